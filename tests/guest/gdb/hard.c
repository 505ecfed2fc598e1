// What steps must get right: repeated strings, system calls, faults with a handler. `exec`: starts itself again first.
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

static char from[64] = "bytes to be copied", to[64];
volatile double angle = 0.5;

// Has the instruction read something that is there. (gdb waits for it to be run again.)
static void on_fault(int signal, siginfo_t *info, void *context) {
    ucontext_t *u = context;
#if defined __aarch64__
    u->uc_mcontext.regs[9] = (unsigned long)to;
#elif defined __x86_64__
    u->uc_mcontext.gregs[REG_RDX] = (long)to;
#else
    u->uc_mcontext.gregs[REG_EDX] = (long)to;
#endif
}

__attribute__((noinline)) static int go(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
#if defined __aarch64__
        memcpy(to, from, 13 + i);
        register long x9 asm("x9") = 0;
        asm volatile(".globl here\nhere: ldr x10, [%0]" : "+r"(x9) : : "x10", "memory");
#else
        void *s = from, *d = to;
        unsigned long c = 13 + i;
        asm volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
        void *nothing = 0;
        asm volatile(".globl here\nhere: mov (%0), %%eax" : "+d"(nothing) : : "eax", "memory");
#endif
        sum += getuid() >= 0;
    }
    return sum;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "exec")) execl(argv[0], argv[0], "again", (char *)0);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, 0);
    double c = cos(angle);
    return go(30) == 30 && c > 0.8 && c < 0.9 && to[0] == 'b' ? 7 : 8;
}
