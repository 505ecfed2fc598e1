// Calls about tasks that the C library rarely makes: the newest forms of clone, exec, futex and kill.
#include "check.h"
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CALL(...) syscall(__VA_ARGS__)

static long clone3_with(struct clone_args *a) {
    long pid = CALL(SYS_clone3, a, sizeof *a);
    if (pid == 0) _exit(a->exit_signal == SIGCHLD ? 21 : 22);
    return pid;
}
static void clones(void) {
    struct clone_args a = {.exit_signal = SIGCHLD};
    int status, pidfd = -1;
    pid_t tid = -1;
    pid_t pid = clone3_with(&a);
    T(waitpid(pid, &status, 0) == pid); T(WEXITSTATUS(status));
    a.flags = CLONE_PIDFD | CLONE_PARENT_SETTID, a.pidfd = (uintptr_t)&pidfd, a.parent_tid = (uintptr_t)&tid;
    pid = clone3_with(&a);
    OK(pidfd >= 0); OK(tid == pid);
    siginfo_t info;
    T(waitid(P_PIDFD, pidfd, &info, WEXITED)); T(info.si_status); close(pidfd);
    T(CALL(SYS_clone3, &a, 8)); T(CALL(SYS_clone3, &a, 5000)); T(CALL(SYS_clone3, BAD, sizeof a));
    a = (struct clone_args){.flags = CLONE_THREAD};
    T(CALL(SYS_clone3, &a, sizeof a));
    a = (struct clone_args){.flags = CLONE_SIGHAND};
    T(CALL(SYS_clone3, &a, sizeof a));
    a = (struct clone_args){.exit_signal = 300};
    T(CALL(SYS_clone3, &a, sizeof a));
    a = (struct clone_args){.exit_signal = SIGCHLD, .stack = 4096};
    T(CALL(SYS_clone3, &a, sizeof a));
    a = (struct clone_args){.exit_signal = SIGCHLD, .flags = 1ull << 40};
    T(CALL(SYS_clone3, &a, sizeof a));
    a = (struct clone_args){.exit_signal = SIGCHLD, .flags = CLONE_PARENT};
    T(CALL(SYS_clone3, &a, sizeof a));
    T(CALL(SYS_unshare, 0)); T(CALL(SYS_unshare, CLONE_FILES)); T(CALL(SYS_unshare, CLONE_FS)); T(CALL(SYS_unshare, 0x40));
    OK(CALL(SYS_setsid) != 0); OK(getsid(0) > 0);
}

static void kills(void) {
    sigset_t s;
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};
    struct timespec none = {0, 0};
    sigemptyset(&s), sigaddset(&s, SIGUSR1), sigprocmask(SIG_BLOCK, &s, 0);
    long own = CALL(SYS_gettid);
    T(CALL(SYS_tkill, own, SIGUSR1)); T(sigtimedwait(&s, &info, &none)); T(info.si_code);
    T(CALL(SYS_tkill, -1, SIGUSR1)); T(CALL(SYS_tkill, own, 99));
    int fd = CALL(SYS_pidfd_open, getpid(), 0);
    T(CALL(SYS_pidfd_send_signal, fd, SIGUSR1, 0, 0)); T(sigtimedwait(&s, &info, &none)); T(info.si_code);
    info.si_code = SI_QUEUE, info.si_value.sival_int = 55;
    T(CALL(SYS_pidfd_send_signal, fd, SIGUSR1, &info, 0)); T(sigtimedwait(&s, &info, &none)); T(info.si_value.sival_int);
    T(CALL(SYS_pidfd_send_signal, fd, SIGUSR1, 0, 77)); T(CALL(SYS_pidfd_send_signal, 99, SIGUSR1, 0, 0));
    close(fd);
    fd = signalfd(-1, &s, SFD_NONBLOCK | SFD_CLOEXEC);
    struct signalfd_siginfo got;
    T(read(fd, &got, sizeof got)); raise(SIGUSR1);
    T(read(fd, &got, sizeof got)); T(got.ssi_signo); T(got.ssi_code);
    sigaddset(&s, SIGUSR2); sigprocmask(SIG_BLOCK, &s, 0); T(signalfd(fd, &s, 0) == fd); raise(SIGUSR2);
    T(read(fd, &got, sizeof got)); T(got.ssi_signo); T(read(fd, &got, 8)); T(signalfd(0, &s, 0)); T(signalfd(-1, &s, 3));
    close(fd), sigprocmask(SIG_UNBLOCK, &s, 0);
}

static int words[2];
static void *wakes(void *unused) {
    usleep(20000);
    while (CALL(SYS_futex, &words[1], FUTEX_WAKE_PRIVATE, 1, 0, 0, 0) == 0) usleep(1000);
    return 0;
}
static void futexes(void) {
    struct futex_waitv v[2] = {{0, (uintptr_t)&words[0], 0x82}, {0, (uintptr_t)&words[1], 0x82}};
    struct timespec past = {1, 0};
    pthread_t t;
    T(CALL(SYS_futex_waitv, v, 2, 0, &past, CLOCK_MONOTONIC));
    v[0].val = 7; T(CALL(SYS_futex_waitv, v, 2, 0, 0, 0)); v[0].val = 0;
    T(CALL(SYS_futex_waitv, v, 0, 0, 0, 0)); T(CALL(SYS_futex_waitv, v, 129, 0, 0, 0)); T(CALL(SYS_futex_waitv, BAD, 1, 0, 0, 0));
    pthread_create(&t, 0, wakes, 0);
    T(CALL(SYS_futex_waitv, v, 2, 0, 0, 0)); pthread_join(t, 0);
    void *head = 0;
    size_t size = 0;
    T(CALL(SYS_get_robust_list, 0, &head, &size)); OK(head != 0); OK(size == 3 * sizeof(long));
    T(CALL(SYS_get_robust_list, 0, BAD, &size)); T(CALL(SYS_set_robust_list, head, 5));
}

static void execs(const char *self) {
    static char *args[] = {"name", "again", 0}, *env[] = {"CHECK=1", 0};
    int status;
    int fd = open(self, O_RDONLY | O_CLOEXEC);
    fflush(stdout);
    if (!fork()) CALL(SYS_execveat, fd, "", args, env, AT_EMPTY_PATH), _exit(1);
    wait(&status); T(WEXITSTATUS(status));
    if (!fork()) CALL(SYS_execveat, AT_FDCWD, self, args, env, 0), _exit(1);
    wait(&status); T(WEXITSTATUS(status));
    T(CALL(SYS_execveat, fd, "", args, env, 0)); T(CALL(SYS_execveat, 99, "x", args, env, 0));
    T(CALL(SYS_execveat, AT_FDCWD, self, args, env, 0x40)); T(CALL(SYS_execveat, AT_FDCWD, BAD, args, env, 0));
    T(CALL(SYS_execveat, AT_FDCWD, self, BAD, env, 0));
    close(fd);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "again")) return 33 + argc;
    setvbuf(stdout, 0, _IOLBF, 0);
    clones(), kills(), futexes(), execs("/proc/self/exe");
}
