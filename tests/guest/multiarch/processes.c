// fork, vfork, exec of itself, wait family, pipes, exit codes, environment, sessions.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IONBF, 0);
    if (argc > 1) {
        printf("child: %s, GREETING=%s, argc %d\n", argv[1], getenv("GREETING") ? getenv("GREETING") : "-", argc);
        return 40 + argc;
    }
    char self[4096] = {0};
    if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return 1;
    printf("self is %s\n", strrchr(self, '/') + 1);

    int status, fds[2];
    pid_t pid = fork();
    if (pid == 0) _exit(7);
    waitpid(pid, &status, 0);
    printf("fork: exit %d\n", WEXITSTATUS(status));

    setenv("GREETING", "hi", 1);
    pid = fork();
    if (pid == 0) {
        execl(self, "other-name", "exec'd", (char *)0);
        _exit(99);
    }
    waitpid(pid, &status, 0);
    printf("exec: exit %d\n", WEXITSTATUS(status));

    pid = vfork();
    if (pid == 0) {
        char *args[] = {"v", "vforked", "more", 0}, *env[] = {"GREETING=v", 0};
        execve(self, args, env);
        _exit(98);
    }
    waitpid(pid, &status, 0);
    printf("vfork: exit %d\n", WEXITSTATUS(status));

    char *args[] = {"s", "spawned", 0};
    int spawned = posix_spawn(&pid, self, 0, 0, args, environ);
    waitpid(pid, &status, 0);
    printf("spawn: %d\n", spawned);
    printf("spawn: exit %d\n", WEXITSTATUS(status));
    printf("spawn of nothing: %s\n", strerror(posix_spawn(&pid, "/nonexistent", 0, 0, args, environ)));
    execl("/nonexistent", "x", (char *)0);
    printf("exec of nothing: %s\n", strerror(errno));
    execl("/etc/passwd", "x", (char *)0);
    printf("exec of text: %s\n", strerror(errno));

    if (pipe2(fds, O_CLOEXEC)) return 1;
    int total = 0;
    for (int i = 0; i < 20; i++)
        if (fork() == 0) {
            char c = i;
            _exit(write(fds[1], &c, 1) != 1);
        }
    for (int i = 0; i < 20; i++) {
        char c;
        if (read(fds[0], &c, 1) == 1) total += c;
    }
    int reaped = 0;
    while (wait(0) > 0) reaped++;
    printf("pipe sum %d, reaped %d, then %s\n", total, reaped, strerror(errno));

    siginfo_t info;
    pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        _exit(5);
    }
    waitpid(pid, &status, WUNTRACED);
    printf("stopped by %d\n", WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
    kill(pid, SIGCONT);
    waitid(P_PID, pid, &info, WEXITED);
    printf("waitid: code %d status %d own %d\n", info.si_code, info.si_status, info.si_pid == pid);

    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    printf("limit %d\n", (int)limit.rlim_cur);
    FILE *p = popen("echo from the shell; exit 3", "r");
    char line[64];
    if (p && fgets(line, sizeof line, p)) printf("popen: %s", line);
    printf("pclose: %d\n", WEXITSTATUS(pclose(p)));
    printf("system: %d\n", WEXITSTATUS(system("exit 9")));
    return 23;
}
