// What steps must get right: repeated strings, system calls, faults with a handler, registers of all kinds. `exec`: starts itself again first.
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

// The compiler must not be told of registers that it does not know.
#ifdef __SSE2__
#define OVERWRITES "xmm1", "xmm2", "xmm3", "xmm5", "xmm6", "xmm7"
#else
#define OVERWRITES "memory"
#endif

static char from[64] = "bytes to be copied", to[64];
volatile double angle = 0.5, ratio = 1;
volatile float small;

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
        ratio = ratio * 1.5 + i, small = ratio / 3;
#if defined __aarch64__
        asm volatile("dup v20.4s, %w0\n fadd v21.2d, v20.2d, v21.2d\n sqadd v22.4s, v20.4s, v22.4s\n cmp %w0, #7" : : "r"(i * 0x1234567)
                     : "v20", "v21", "v22", "cc");
        memcpy(to, from, 13 + i);
        register long x9 asm("x9") = 0;
        asm volatile(".globl here\nhere: ldr x10, [%0]" : "+r"(x9) : : "x10", "memory");
#else
        asm volatile("movd %0, %%xmm1\n pshufd $0, %%xmm1, %%xmm2\n paddb %%xmm2, %%xmm3\n divps %%xmm3, %%xmm2\n movd %0, %%mm2\n paddw %%mm2, %%mm3\n emms"
                     : : "r"(i * 0x1234567) : OVERWRITES);
        asm volatile("fldl %0\n fsqrt\n fld1\n fdivp\n fstps %1" : : "m"(ratio), "m"(small) : "memory");
        if (__builtin_cpu_supports("avx"))
            asm volatile("vmovups %0, %%ymm5\n vaddps %%ymm5, %%ymm5, %%ymm6\n vxorps %%ymm7, %%ymm6, %%ymm7" : : "m"(from) : OVERWRITES);
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
