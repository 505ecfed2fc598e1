// Processes in one address space: clone with CLONE_VM and neither CLONE_THREAD nor CLONE_VFORK.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int step, value, tid_word, child_tid;
static int fd;
static char *volatile mapped;
static volatile sig_atomic_t handled, children;

// The children share the parent's thread-local data: they use plain system calls.
static void reach(int n) {
    for (int i = 0; atomic_load(&step) < n && i < 20000; i++) syscall(SYS_clock_nanosleep, 0, 0, &(struct timespec){0, 500000}, 0);
}
static char stack[8][1 << 16] __attribute__((aligned(16)));
static int start(int (*child)(void *), int n, int flags, void *arg) {
    int pid = clone(child, stack[n] + sizeof stack[n], flags, arg, &tid_word, 0, &child_tid);
    if (pid < 0) perror("clone"), exit(1);
    return pid;
}
static int end(int pid) {
    int status = -1;
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {}
    return status;
}
static void on_signal(int s) { handled = s; }
static void on_child(int s) { children++; }

static int turns(void *arg) { // Each waits for the other: both run at once.
    for (int i = 0; i < 100; i++) {
        reach(2 * i + 1);
        atomic_fetch_add(&value, i);
        atomic_store(&step, 2 * i + 2);
    }
    mapped = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(mapped, "from the child");
    syscall(SYS_close, fd);
    syscall(SYS_chdir, "/");
    return (int)(long)arg;
}
static int files(void *arg) {
    syscall(SYS_close, fd);
    syscall(SYS_chdir, "/");
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGUSR2, &act, 0);
    atomic_store(&step, 1);
    return 3;
}
static int sleeps(void *arg) {
    atomic_store(&step, 1);
    for (;;) syscall(SYS_clock_nanosleep, 0, 0, &(struct timespec){10, 0}, 0);
}
static int computes(void *arg) { // A loop that only a signal ends, with code of its own.
    atomic_store(&step, 1);
    for (unsigned n = 1;; n = n * 1103515245 + 12345) atomic_fetch_xor(&value, n);
}
static int faults(void *arg) {
    *(volatile int *)8 = 1;
    return 0;
}
static int executes(void *arg) {
    static char *const words[] = {"sharing", "executed", 0}, *const none[] = {0};
    syscall(SYS_execve, "/proc/self/exe", words, none);
    return 9;
}
static int self(void *arg) {
    atomic_store(&value, syscall(SYS_getpid) != (long)arg && syscall(SYS_getppid) == (long)arg && syscall(SYS_gettid) == syscall(SYS_getpid));
    return 0;
}
static int waits(void *arg) {
    reach(1);
    return 0;
}
static int forks(void *arg) {
    int pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), status = 0;
    if (pid == 0) atomic_store(&value, 77), syscall(SYS_exit, 5); // its own memory
    syscall(SYS_wait4, pid, &status, 0, 0);
    return WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    if (argc > 1) return printf("%s\n", argv[1]), 4;
    setvbuf(stdout, 0, _IONBF, 0);
    struct sigaction act = {.sa_handler = on_child, .sa_flags = SA_RESTART};
    sigaction(SIGCHLD, &act, 0);
    char home[4096], now[4096];
    getcwd(home, sizeof home);

    fd = open("/dev/null", O_RDONLY);
    int pid = start(turns, 0, CLONE_VM | SIGCHLD, (void *)7);
    for (int i = 0; i < 100; i++) {
        reach(2 * i);
        atomic_fetch_add(&value, 1000);
        atomic_store(&step, 2 * i + 1);
    }
    int status = end(pid);
    printf("turns %d %d %#x %s\n", atomic_load(&step), atomic_load(&value), status, mapped);
    printf("own files %d, own folder %d\n", fcntl(fd, F_GETFD) == 0, !strcmp(getcwd(now, sizeof now), home));

    atomic_store(&step, 0);
    pid = start(files, 1, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND | SIGCHLD, 0);
    status = end(pid);
    printf("shared %#x: file closed %d, folder %s", status, fcntl(fd, F_GETFD) == -1, getcwd(now, sizeof now));
    raise(SIGUSR2);
    printf(", handler %d\n", handled == SIGUSR2);

    int (*const killed[])(void *) = {sleeps, computes};
    for (int n = 0; n < 2; n++) {
        atomic_store(&step, 0);
        pid = start(killed[n], 2 + n, CLONE_VM | SIGCHLD, 0);
        reach(1);
        usleep(20000);
        kill(pid, n ? SIGKILL : SIGTERM);
        printf("killed %#x\n", end(pid));
    }
    printf("fault %#x\n", end(start(faults, 4, CLONE_VM | SIGCHLD, 0)) & 0x7f);
    printf("exec %#x\n", end(start(executes, 5, CLONE_VM | SIGCHLD, 0)));
    pid = end(start(self, 6, CLONE_VM | SIGCHLD, (void *)(long)getpid()));
    printf("self %d %#x\n", atomic_load(&value), pid);
    printf("forks %#x %d\n", end(start(forks, 6, CLONE_VM | SIGCHLD, 0)), atomic_load(&value) == 77);

    // The words: the parent's is set when clone returns, the child's is cleared when the child ends.
    atomic_store(&step, 0);
    atomic_store(&child_tid, -1);
    pid = start(waits, 7, CLONE_VM | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, 0);
    printf("tid %d", atomic_load(&tid_word) == pid);
    atomic_store(&step, 1);
    for (int left; (left = atomic_load(&child_tid)) != 0;) syscall(SYS_futex, &child_tid, FUTEX_WAIT, left, &(struct timespec){1, 0}, 0, 0);
    printf(" cleared, %#x\n", end(pid));
    // Without a signal at its end it is found with __WCLONE only.
    pid = start(waits, 7, CLONE_VM, 0);
    printf("clone child %d", waitpid(pid, 0, 0));
    printf(" %d\n", waitpid(pid, &status, __WCLONE) == pid);
    // Many, one after another: nothing is left over.
    for (int n = 0; n < 200; n++) status |= end(start(waits, 7, CLONE_VM | SIGCHLD, 0));
    printf("many %#x, told of %s\n", status, children >= 10 ? "children" : "none");
}
