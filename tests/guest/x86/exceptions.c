// Each exception of user code as a signal: number, code, address, what the frame says of it, and that edits of the
// frame (registers, flags, float state) take effect.
#define _GNU_SOURCE
#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
#define IP REG_RIP
#define SPR REG_RSP
#define AX REG_RAX
#else
#define IP REG_EIP
#define SPR REG_UESP
#define AX REG_EAX
#endif

static sigjmp_buf back;
static char *map;

static void report(int sig, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    greg_t *r = uc->uc_mcontext.gregs;
    uintptr_t address = (uintptr_t)info->si_addr;
    char text[32];
    if (address == (uintptr_t)r[IP]) strcpy(text, "pc");
    else if (map && address >= (uintptr_t)map && address < (uintptr_t)map + 65536)
        snprintf(text, sizeof text, "map+%#lx", (long)(address - (uintptr_t)map));
    else snprintf(text, sizeof text, "%#lx", (long)address);
#ifdef __x86_64__
    uintptr_t cr2 = r[REG_CR2];
#else
    uintptr_t cr2 = uc->uc_mcontext.cr2;
#endif
    printf("signal %d code %d address %s trap %d error %#lx cr2 %s flags %#lx\n", sig, info->si_code, text, (int)r[REG_TRAPNO],
           (long)r[REG_ERR], r[REG_TRAPNO] == 14 && cr2 == address ? "is it" : "-", (long)r[REG_EFL] & 0xc1);
    siglongjmp(back, 1);
}

#define TRY(name, ...) do { printf("%s: ", name); if (!sigsetjmp(back, 1)) { __VA_ARGS__; puts("nothing"); } } while (0)

static void edit(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)info;
    ucontext_t *uc = context;
    greg_t *r = uc->uc_mcontext.gregs;
    r[IP] += 2;
    r[AX] = 77;
    r[REG_EFL] ^= 1;
    // st(0) as 2.0, and xmm0.
    struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;
    fp->_st[0].exponent = 0x4000;
#ifdef __x86_64__
    fp->_xmm[0].element[0] = 0x12345678;
#endif
    // What the handler computes must not come through.
    volatile double x = 1;
    for (int i = 0; i < 10; i++) x = x * 3 + 1;
    feraiseexcept(FE_DIVBYZERO);
}

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    static char stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&ss, 0);
    struct sigaction sa = {.sa_sigaction = report, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    int all[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (int i = 0; i < 5; i++) sigaction(all[i], &sa, 0);
    map = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(map + 4096, 4096, PROT_READ);
    mprotect(map + 8192, 4096, PROT_NONE);
    map[4096 - 1] = 0;
    munmap(map + 12288, 4096);
    volatile char *p = map;
    p[0] = 1;
    volatile char seen = p[4096];
    (void)seen;

    TRY("read unmapped", seen = p[12288 + 5]);
    TRY("write unmapped", p[12288 + 5] = 1);
    TRY("write read-only", p[4096 + 7] = 1);
    TRY("null", *(volatile int *)(uintptr_t)0 = 1);
    TRY("jump to data", ((void (*)(void))map)());
    TRY("jump to null", ((void (*)(void))(uintptr_t)0)());
    TRY("across pages", *(volatile uint32_t *)(map + 12286) = 1);
#ifdef __x86_64__
    TRY("no canonical address", *(volatile int *)0x0080000000000000 = 1);
    TRY("kernel address", *(volatile int *)0xffff800000000000 = 1);
    TRY("last byte", seen = *(volatile char *)-1l);
#endif
    TRY("ud2", asm volatile("ud2"));
    TRY("hlt", asm volatile("hlt"));
    TRY("cli", asm volatile("cli"));
    TRY("in", asm volatile("inb $0x80, %%al" ::: "eax"));
    TRY("rdmsr", asm volatile("rdmsr" ::"c"(0x10) : "eax", "edx"));
    TRY("int3", asm volatile("int3"));
    TRY("int 3", asm volatile(".byte 0xcd, 3"));
    TRY("int1", asm volatile(".byte 0xf1"));
    TRY("int 0x21", asm volatile("int $0x21"));
#ifdef __i386__
    TRY("into", asm volatile("movb $127, %%al; addb $1, %%al; into" ::: "eax"));
    int bounds[2] = {1, 5};
    TRY("bound", asm volatile("bound %0, %1" ::"r"(9), "m"(bounds)));
#else
    TRY("into", asm volatile(".byte 0xce"));
#endif
    TRY("divide by zero", asm volatile("xorl %%ecx, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx"));
    TRY("quotient too large", asm volatile("movl $2, %%edx; movl $1, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx"));
    TRY("selector", asm volatile("movw %w0, %%fs" ::"r"(0x1000)));
    TRY("null ss", asm volatile("movw %w0, %%ss" ::"r"(0)));
#ifdef __x86_64__
    TRY("trap flag", asm volatile("sub $128, %%rsp; pushfq; orl $0x100, (%%rsp); popfq; nop; nop; add $128, %%rsp" ::: "memory", "cc"));
#else
    TRY("trap flag", asm volatile("pushf; orl $0x100, (%%esp); popf; nop; nop" ::: "memory", "cc"));
#endif
#ifdef __SSE2__
    TRY("misaligned movaps", asm volatile("movaps %%xmm0, (%0)" ::"r"(map + 1) : "memory"));
#endif
#ifdef __i386__
    // In 64-bit programs the C library's own accesses would fault in the handler.
    TRY("alignment check", asm volatile("pushf; orl $0x40000, (%%esp); popf; movl 1(%0), %%eax" ::"r"(map) : "eax", "memory", "cc"));
    asm volatile("pushf; andl $~0x40000, (%%esp); popf" ::: "memory", "cc");
#endif
    int fd = memfd_create("short", 0);
    char *gone = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    map = gone;
    TRY("behind the file's end", gone[10] = 1);
    map = 0;

    short cw = 0x37f & ~4;
    TRY("x87 divide by zero", asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fwait" ::"m"(cw)));
    asm volatile("fninit");
    cw = 0x37f & ~1;
    TRY("x87 invalid", asm volatile("fninit; fldcw %0; fldz; fldz; fdivp; fwait" ::"m"(cw)));
    asm volatile("fninit");
#ifdef __SSE2__
    unsigned mxcsr = 0x1f80 & ~0x200;
    TRY("sse divide by zero", asm volatile("ldmxcsr %0; xorps %%xmm1, %%xmm1; movss %1, %%xmm0; divss %%xmm1, %%xmm0"
                                           ::"m"(mxcsr), "m"((float){1}) : "xmm0", "xmm1"));
    mxcsr = 0x1f80 & ~0x80;
    TRY("sse invalid", asm volatile("ldmxcsr %0; xorps %%xmm1, %%xmm1; divss %%xmm1, %%xmm1" ::"m"(mxcsr) : "xmm1"));
    mxcsr = 0x1f80;
    asm volatile("ldmxcsr %0" ::"m"(mxcsr));
#endif

    sa.sa_sigaction = edit;
    sigaction(SIGILL, &sa, 0);
    int ax = 0;
    long double st = 0;
    unsigned char carry;
    asm volatile("fld1; clc; ud2; setc %1; fstpt %2" : "=a"(ax), "=b"(carry), "=m"(st)::"cc");
    printf("edited: %d carry %d st %Lg except %#x\n", ax, carry, st, fetestexcept(FE_ALL_EXCEPT));
#ifdef __x86_64__
    unsigned x = 0;
    asm volatile("pxor %%xmm0, %%xmm0; ud2; movd %%xmm0, %0" : "=r"(x)::"xmm0", "rax");
    printf("edited xmm0 %#x\n", x);
    // The red zone survives.
    long kept;
    asm volatile("movq $4711, -8(%%rsp); movq $4712, -128(%%rsp); ud2; movq -8(%%rsp), %0; addq -128(%%rsp), %0" : "=r"(kept)::"memory", "rax");
    printf("red zone %ld\n", kept);
#endif
    return 0;
}
