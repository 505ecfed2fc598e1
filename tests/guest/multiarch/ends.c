// How threads and processes end: exit of one thread, of the first, of all; exec from a thread; locks of the dead; vfork.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void end_thread(long code) { syscall(SYS_exit, code); }
static void *sleeps_then_exits(void *code) { usleep(20000), exit((long)code); }
static void *exits_raw(void *code) { usleep(20000), end_thread((long)code); return 0; }
static void *exits_group(void *code) { syscall(SYS_exit_group, code); return 0; }
static void *execs(void *path) { execl(path, path, "exec", (char *)0); return 0; }
static void *waits(void *unused) { for (;;) pause(); }
static void *kills(void *sig) { raise((long)sig); return 0; }
static void *faults(void *unused) { *(volatile int *)(uintptr_t)16 = 1; return 0; }
static void go(void *(*f)(void *), void *arg) {
    pthread_t t;
    if (pthread_create(&t, 0, f, arg)) abort();
}

static void first_thread_returns(void) { go(sleeps_then_exits, (void *)11), end_thread(12); }
static void pthread_exits(void) { go(sleeps_then_exits, (void *)13), pthread_exit(0); }
// The last thread ends without a word for the process: its code counts.
static void all_end_raw(void) { go(exits_raw, (void *)14), usleep(300000), go(exits_raw, (void *)15), end_thread(16); }
static void first_ends_last(void) { go(exits_raw, (void *)17), usleep(300000), end_thread(18); }
static void thread_ends_group(void) { go(waits, 0), go(exits_group, (void *)19), pause(); }
static void thread_execs(void) { go(waits, 0), go(execs, "/proc/self/exe"), pause(); }
static void thread_killed(void) { go(kills, (void *)SIGTERM), pause(); }
static void thread_faults(void) { go(waits, 0), go(faults, 0), pause(); }
static void returns_high(void) { exit(0x1234); }

// A signal for a process whose first thread is gone.
static void on_usr1(int s) { _exit(21); }
static void signal_after_first(void) {
    signal(SIGUSR1, on_usr1);
    go(waits, 0);
    if (!fork()) usleep(30000), kill(getppid(), SIGUSR1), _exit(0);
    end_thread(22);
}

static struct shared { pthread_mutex_t robust, inherits; volatile int count; } *shared;
static void *dies_holding(void *unused) { pthread_mutex_lock(&shared->robust), pthread_mutex_lock(&shared->inherits); return 0; }
static void init(pthread_mutex_t *m, int protocol) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setprotocol(&a, protocol);
    pthread_mutex_init(m, &a);
}
static void show_locks(const char *who) {
    int r = pthread_mutex_lock(&shared->robust), i = pthread_mutex_lock(&shared->inherits);
    printf("%s: robust %d, with inheritance %d\n", who, r == EOWNERDEAD, i == EOWNERDEAD);
    pthread_mutex_consistent(&shared->robust), pthread_mutex_consistent(&shared->inherits);
    pthread_mutex_unlock(&shared->robust), pthread_mutex_unlock(&shared->inherits);
}
static void locks_of_the_dead(const char *self) {
    static const char *ways[] = {"exit", "kill", "exec", "fault"};
    pthread_t t;
    init(&shared->robust, PTHREAD_PRIO_NONE), init(&shared->inherits, PTHREAD_PRIO_INHERIT);
    pthread_create(&t, 0, dies_holding, 0), pthread_join(t, 0);
    show_locks("thread");
    // The host frees the locks of a process that is killed only where it can read the list: see docs/linux-user.md.
    int known = sizeof(long) == 8 ? 4 : 1;
    for (int way = 0; way < known; way++) {
        shared->count = 0;
        pid_t pid = fork();
        if (!pid) {
            dies_holding(0);
            shared->count = 1;
            usleep(20000); // the parent waits by now
            if (way == 0) _exit(0);
            if (way == 1) raise(SIGKILL);
            if (way == 2) execl(self, self, "exec", (char *)0);
            faults(0);
        }
        while (!shared->count) usleep(1000);
        show_locks(ways[way]);
        waitpid(pid, 0, 0);
    }
}

static volatile int touched;
static int leaves(void *unused) { _exit(33); }
static void handler(int s) { touched += 100; }
static void vforks(void) {
    pid_t pid;
    int status, fd = dup(1);
    touched = 0;
    signal(SIGUSR1, handler);
    signal(SIGUSR2, SIG_IGN);
    if (!(pid = vfork())) {
        touched = 1;            // the parent sees this
        signal(SIGUSR1, SIG_IGN); // but not this
        raise(SIGUSR1);
        signal(SIGUSR2, handler), raise(SIGUSR2); // runs in the shared memory
        sigset_t s;
        sigemptyset(&s), sigaddset(&s, SIGUSR1), sigprocmask(SIG_BLOCK, &s, 0);
        close(fd);
        _exit(31);
    }
    waitpid(pid, &status, 0);
    printf("vfork: %d, exit %d, descriptor stays %d\n", touched, WEXITSTATUS(status), close(fd) == 0);
    raise(SIGUSR1), raise(SIGUSR2);
    printf("vfork: handlers of the parent %d\n", touched);
    if (!(pid = vfork())) raise(SIGKILL);
    waitpid(pid, &status, 0);
    printf("vfork: signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
    if (!(pid = vfork())) {
        execl("/nonexistent", "x", (char *)0);
        touched = errno;
        _exit(1);
    }
    waitpid(pid, &status, 0);
    printf("vfork: exec failed with %s\n", strerror(touched));
    static char stack[65536] __attribute__((aligned(16)));
    siginfo_t info = {0};
    int pidfd = -1;
    pid = clone(leaves, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, 0, &pidfd);
    int waited = waitid((idtype_t)3, pidfd, &info, WEXITED); // P_PIDFD
    printf("vfork: by descriptor %d, exit %d\n", !waited && info.si_pid == pid, info.si_status);
    close(pidfd);
}

// While a vfork child changes its actions the parent's other threads keep theirs.
static volatile int stop, seen;
static void count(int s) { seen++; }
static void *gets_signals(void *main_thread) {
    sigset_t s;
    sigemptyset(&s), sigaddset(&s, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &s, 0);
    while (!stop) pthread_kill(pthread_self(), SIGUSR1);
    return 0;
}
static void vfork_beside_threads(void) {
    pthread_t t;
    sigset_t s;
    sigemptyset(&s), sigaddset(&s, SIGUSR1), sigprocmask(SIG_BLOCK, &s, 0);
    signal(SIGUSR1, count);
    pthread_create(&t, 0, gets_signals, 0);
    for (int i = 0; i < 50 || !seen; i++) {
        pid_t pid = vfork();
        if (!pid) signal(SIGUSR1, SIG_DFL), sched_yield(), _exit(0);
        waitpid(pid, 0, 0);
    }
    stop = 1, pthread_join(t, 0);
    printf("vfork beside threads: %d\n", seen > 0);
}

static void dies_with_parent(void) {
    int fds[2];
    char byte;
    if (pipe(fds)) abort();
    if (!fork()) {
        if (!fork()) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (write(fds[1], "x", 1) != 1) abort();
            for (;;) pause();
        }
        if (read(fds[0], &byte, 1) != 1) abort();
        _exit(0);
    }
    close(fds[1]), wait(0);
    printf("died with its parent: %d\n", (int)read(fds[0], &byte, 1) == 0);
}

static const struct end { const char *name; void (*does)(void); } ends[] = {
#define END(name) {#name, name}
    END(first_thread_returns), END(pthread_exits), END(all_end_raw), END(first_ends_last), END(thread_ends_group),
    END(thread_execs), END(thread_killed), END(thread_faults), END(returns_high), END(signal_after_first),
};

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IOLBF, 0);
    if (argc > 1) {
        int first = getpid() == syscall(SYS_gettid);
        _exit(first ? 40 : 41);
    }
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int status;
        pid_t child = fork();
        if (!child) ends[i].does(), _exit(99);
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) printf("%s: signal %d\n", ends[i].name, WTERMSIG(status));
        else printf("%s: exit %d\n", ends[i].name, WEXITSTATUS(status));
    }
    shared = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    locks_of_the_dead("/proc/self/exe");
    vforks();
    vfork_beside_threads();
    dies_with_parent();
}
