// A program that hurts itself: its own code unmapped, data executed, memory and threads exhausted, every signal.
// Each deed is done by a child; the parent prints how Linux ended it.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char __executable_start[], etext[];
static uintptr_t down(uintptr_t a) { return a & -4096ul; }

static void unmap_own_code(void) {
    uintptr_t start = down((uintptr_t)__executable_start);
    munmap((void *)start, down((uintptr_t)etext + 4095) - start);
    abort();
}
static void protect_own_code(void) {
    uintptr_t start = down((uintptr_t)__executable_start);
    mprotect((void *)start, down((uintptr_t)etext + 4095) - start, PROT_READ);
    _exit(1);
}
static void write_own_code(void) { *(volatile char *)(uintptr_t)write_own_code = 0; }
static void jump_to_data(void) {
    static char data[64];
    ((void (*)(void))data)();
}
static void jump_to_null(void) { ((void (*)(void))(uintptr_t)0)(); }
static void jump_to_top(void) { ((void (*)(void))(uintptr_t)-4096l)(); }
static void jump_to_no_canonical(void) { ((void (*)(void))(uintptr_t)0x0080000000000000)(); }
static void jump_to_zeros(void) { // not an instruction
    char *p = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#if defined __x86_64__ || defined __i386__
    memcpy(p, "\x0f\x0b", 2);
#endif
    ((void (*)(void))p)();
}
static void jump_to_end_of_map(void) {
    char *p = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(p + 4096, 4096);
#if defined __x86_64__ || defined __i386__
    p[4095] = (char)0x90;
    ((void (*)(void))(p + 4095))();
#else
    *(uint32_t *)(p + 4092) = 0xd503201f; // nop
    __builtin___clear_cache(p, p + 4096);
    ((void (*)(void))(p + 4092))();
#endif
}
static int endless(volatile char *above) {
    volatile char here[256];
    here[0] = above[0];
    return endless(here) + here[0];
}
static void exhaust_stack(void) { _exit(endless("x")); }
static void exhaust_memory(void) {
    struct rlimit limit = {1l << 34, 1l << 34};
    setrlimit(RLIMIT_DATA, &limit);
    void *p = mmap(0, 1ul << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int first = errno;
    _exit(p == MAP_FAILED && first == ENOMEM ? 3 : 4);
}
static void *sleeper(void *unused) { return pause(), unused; }
static void exhaust_threads(void) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1ul << 44); // more than three do not fit into an address space
    pthread_t t;
    for (int i = 0; i < 64; i++)
        if (pthread_create(&t, &small, sleeper, 0)) _exit(5);
    _exit(6);
}
static void bad_signal_stack(void) {
    stack_t stack = {.ss_sp = (void *)(uintptr_t)0x10000, .ss_size = 65536};
    sigaltstack(&stack, 0);
    struct sigaction act = {.sa_handler = (void (*)(int))abort, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &act, 0);
    raise(SIGUSR1);
}
static void bad_handler(void) {
    signal(SIGUSR1, (void (*)(int))(uintptr_t)0x1234);
    raise(SIGUSR1);
}
static void blocked_fault(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, 0);
    signal(SIGSEGV, SIG_IGN);
    *(volatile int *)(uintptr_t)8 = 1;
}
static void unmap_stack(void) {
    volatile char here;
    munmap((void *)(down((uintptr_t)&here) - (16 << 12)), 64 << 12);
    _exit(here);
}
static void bad_pointers(void) {
    int wrong = 0;
    wrong += write(1, (void *)8, 8) != -1 || errno != EFAULT;
    wrong += syscall(SYS_rt_sigaction, SIGUSR1, 8l, 0, 8) != -1 || errno != EFAULT;
    wrong += munmap((void *)1, 4096) != -1 || errno != EINVAL;
    wrong += mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED || errno != EINVAL;
    _exit(40 + wrong);
}

static const struct deed { const char *name; void (*does)(void); } deeds[] = {
#define DEED(name) {#name, name}
    DEED(unmap_own_code), DEED(protect_own_code), DEED(write_own_code), DEED(jump_to_data), DEED(jump_to_null),
    DEED(jump_to_top), DEED(jump_to_no_canonical), DEED(jump_to_zeros), DEED(jump_to_end_of_map), DEED(exhaust_stack),
    DEED(exhaust_memory), DEED(exhaust_threads), DEED(bad_signal_stack), DEED(bad_handler), DEED(blocked_fault),
    DEED(unmap_stack), DEED(bad_pointers),
};

static void report(const char *name, pid_t child) {
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) printf("%s: signal %d\n", name, WTERMSIG(status));
    else printf("%s: exit %d\n", name, WEXITSTATUS(status));
}

int main(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    setvbuf(stdout, 0, _IOLBF, 0);
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        pid_t child = fork();
        if (!child) deeds[i].does(), _exit(99);
        report(deeds[i].name, child);
    }
    for (int sig = 1; sig <= 64; sig++) {
        if (sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU) continue;
        pid_t child = fork();
        if (!child) kill(getpid(), sig), _exit(sig);
        char name[32];
        snprintf(name, sizeof name, "kill %d", sig);
        report(name, child);
    }
}
