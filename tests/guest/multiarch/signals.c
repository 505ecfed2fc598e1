// Delivery, masks, siginfo, alternate stacks, nesting, restart, queues, register edits in the frame.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t count, depth, deepest, last_value;
static void counter(int sig) { (void)sig; count++; }
static void queued(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    last_value = last_value * 10 + info->si_value.sival_int;
}
static void nesting(int sig) {
    if (++depth > deepest) deepest = depth;
    if (sig == SIGUSR1) raise(SIGUSR2);
    depth--;
}
static char alternate[65536];
static volatile int on_alternate;
static void check_stack(int sig) {
    (void)sig;
    char here;
    on_alternate = &here >= alternate && &here < alternate + sizeof alternate;
}
static sigjmp_buf back;
static void jump(int sig) { siglongjmp(back, sig); }

static volatile int skipped;
static void skip(int sig, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    (void)info;
    skipped = sig;
#if defined __aarch64__
    uc->uc_mcontext.pc += 4;
    uc->uc_mcontext.regs[0] = 1234;
#elif defined __x86_64__
    uc->uc_mcontext.gregs[REG_RIP] += 2;
    uc->uc_mcontext.gregs[REG_RAX] = 1234;
#elif defined __i386__
    uc->uc_mcontext.gregs[REG_EIP] += 2;
    uc->uc_mcontext.gregs[REG_EAX] = 1234;
#endif
}
static __attribute__((noinline)) long fault_with_edit(void) {
    register long result
#if defined __aarch64__
        asm("x0") = 0;
    asm volatile("udf #0" : "+r"(result)::"memory");
#else
        asm("eax") = 0;
    asm volatile("ud2" : "+r"(result)::"memory");
#endif
    return result;
}

static double keep_float(double x) {
    volatile double a = x, b = 1.5;
    double s = 0;
    for (int i = 0; i < 3000000; i++) s += a * b - s * 0.5;
    return s;
}

int main(void) {
    struct sigaction sa = {.sa_handler = counter};
    sigaction(SIGUSR1, &sa, 0);
    for (int i = 0; i < 100; i++) raise(SIGUSR1);
    printf("raised: %d\n", (int)count);

    sigset_t mask, old, pending;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, &old);
    count = 0;
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR1);
    sigpending(&pending);
    printf("blocked: %d pending %d\n", (int)count, sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_SETMASK, &old, 0);
    printf("unblocked: %d\n", (int)count);

    struct sigaction rt = {.sa_sigaction = queued, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 3, &rt, 0);
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &mask, 0);
    for (int i = 1; i <= 5; i++) sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = i});
    sigprocmask(SIG_UNBLOCK, &mask, 0);
    printf("queued in order: %d\n", (int)last_value);

    struct sigaction nest = {.sa_handler = nesting};
    sigaction(SIGUSR1, &nest, 0);
    sigaction(SIGUSR2, &nest, 0);
    raise(SIGUSR1);
    printf("nested: %d\n", (int)deepest);

    stack_t ss = {.ss_sp = alternate, .ss_size = sizeof alternate}, got;
    sigaltstack(&ss, 0);
    struct sigaction alt = {.sa_handler = check_stack, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &alt, 0);
    raise(SIGUSR1);
    sigaltstack(0, &got);
    printf("alternate stack: %d size %d\n", on_alternate, (int)got.ss_size);

    struct sigaction edit = {.sa_sigaction = skip, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &edit, 0);
    long value = 0;
    for (int i = 0; i < 200; i++) value += fault_with_edit();
    printf("edited register: %ld after signal %d\n", value, skipped);

    int fds[2];
    char byte;
    if (pipe(fds)) return 1;
    struct sigaction restart = {.sa_handler = counter, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &restart, 0);
    count = 0;
    struct itimerval timer = {.it_value = {0, 30000}};
    setitimer(ITIMER_REAL, &timer, 0);
    if (fork() == 0) {
        usleep(150000);
        if (write(fds[1], "r", 1) != 1) _exit(1);
        _exit(0);
    }
    ssize_t n = read(fds[0], &byte, 1);
    printf("restarted read: %zd, signals %d\n", n, (int)count);
    struct sigaction interrupt = {.sa_handler = counter};
    sigaction(SIGALRM, &interrupt, 0);
    setitimer(ITIMER_REAL, &timer, 0);
    n = read(fds[0], &byte, 1);
    printf("interrupted read: %zd %s\n", n, strerror(errno));
    wait(0);

    setitimer(ITIMER_REAL, &timer, 0);
    struct timespec want = {1, 0}, left;
    int r = nanosleep(&want, &left);
    printf("nanosleep: %d %d\n", r, left.tv_sec == 0 && left.tv_nsec > 500000000);

    sigaction(SIGALRM, &interrupt, 0);
    sigemptyset(&mask);
    sigaddset(&mask, SIGALRM);
    sigprocmask(SIG_BLOCK, &mask, &old);
    setitimer(ITIMER_REAL, &timer, 0);
    sigset_t none = old;
    sigdelset(&none, SIGALRM);
    r = sigsuspend(&none);
    printf("sigsuspend: %d %s\n", r, strerror(errno));
    sigprocmask(SIG_SETMASK, &old, 0);

    struct sigaction jumping = {.sa_handler = jump};
    sigaction(SIGSEGV, &jumping, 0);
    volatile int jumps = 0;
    volatile uintptr_t bad = 16;
    for (int i = 0; i < 50; i++)
        if (sigsetjmp(back, 1) == 0) *(volatile int *)bad = 1;
        else jumps++;
    printf("jumped out: %d\n", jumps);

    struct sigaction once = {.sa_handler = counter, .sa_flags = SA_RESETHAND};
    sigaction(SIGUSR2, &once, 0);
    raise(SIGUSR2);
    sigaction(SIGUSR2, 0, &once);
    printf("reset: %d\n", once.sa_handler == SIG_DFL);

    count = 0;
    sigaction(SIGALRM, &restart, 0);
    struct itimerval fast = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
    double expect = keep_float(3.25);
    setitimer(ITIMER_REAL, &fast, 0);
    int same = 1;
    for (int i = 0; i < 5; i++) same &= keep_float(3.25) == expect;
    setitimer(ITIMER_REAL, &off, 0);
    printf("floats survive signals: %d, signals came: %d\n", same, count > 5);

    for (int sig = 1; sig <= 64; sig++) {
        struct sigaction any = {.sa_handler = counter};
        if (sigaction(sig, &any, 0) != 0) continue;
        if (sig != SIGKILL && sig != SIGSTOP) raise(sig);
    }
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGTERM, SIG_DFL);
        raise(SIGTERM);
        _exit(3);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0);
    printf("child killed by %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
    pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile int *)bad = 1;
        _exit(3);
    }
    while (waitpid(pid, &status, 0) < 0);
    printf("child killed by %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
    return 0;
}
