// Children that use this memory until they exit or run another program: tests/gdb.rs.
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

volatile int touches;
__attribute__((noinline)) void touch(void) { touches++; }

static int child(int by_exec, char *program) {
    int status;
    pid_t pid = vfork();
    if (pid == 0) {
        touch();
        if (by_exec) execl(program, program, "again", (char *)0);
        _exit(3);
    }
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    if (argc > 1) return 5;
    int a = child(0, argv[0]);
    int b = child(1, argv[0]);
    touch();
    printf("children %d %d\n", a, b);
    return 7;
}
