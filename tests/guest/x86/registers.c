// Every register through a signal: what an asynchronous handler sees in its frame, that what it computes does not come
// through, and that what it writes into the frame does.
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
#define XMMS 16
#define GPRS 14
static const int places[GPRS] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
#define IP REG_RIP
#else
#define XMMS 8
#define GPRS 5
static const int places[GPRS] = {REG_EAX, REG_ECX, REG_EDX, REG_ESI, REG_EDI};
#define IP REG_EIP
#endif

struct state {
    unsigned long gpr[GPRS], flags;
    unsigned char xmm[16][16] __attribute__((aligned(64))), ymm[16][16];
    unsigned char x87[108];
    unsigned mxcsr;
} in, out, seen, wish __attribute__((aligned(64)));
static int has_avx, editing;
static volatile int handled, go;

// The frame's float state: FXSAVE format, on i386 behind FSAVE's.
static unsigned char *fxsave(ucontext_t *uc) {
#ifdef __x86_64__
    return (unsigned char *)uc->uc_mcontext.fpregs;
#else
    return (unsigned char *)uc->uc_mcontext.fpregs + 112;
#endif
}

extern char wait_start[], wait_end[];

static void handler(int sig, siginfo_t *info, void *context) {
    (void)info;
    ucontext_t *uc = context;
    uintptr_t ip = uc->uc_mcontext.gregs[IP];
    if (sig == SIGALRM && (ip < (uintptr_t)wait_start || ip >= (uintptr_t)wait_end)) {
        // Not there yet.
        struct itimerval again = {{0, 0}, {0, 3000}};
        setitimer(ITIMER_REAL, &again, 0);
        return;
    }
    unsigned char *fx = fxsave(uc);
    for (int n = 0; n < GPRS; n++) {
        seen.gpr[n] = uc->uc_mcontext.gregs[places[n]];
        if (editing) uc->uc_mcontext.gregs[places[n]] = wish.gpr[n];
    }
    seen.flags = uc->uc_mcontext.gregs[REG_EFL];
    for (int n = 0; n < XMMS; n++) memcpy(seen.xmm[n], fx + 160 + 16 * n, 16);
    memcpy(&seen.mxcsr, fx + 24, 4);
    // Behind it the XSAVE area, if the frame says so.
    unsigned magic, size;
    memcpy(&magic, fx + 464, 4);
    memcpy(&size, fx + 464 + 16, 4);
    int extended = magic == 0x46505853;
    if (has_avx && extended)
        for (int n = 0; n < XMMS; n++) memcpy(seen.ymm[n], fx + 576 + 16 * n, 16);
    if (editing) {
        uc->uc_mcontext.gregs[REG_EFL] ^= wish.flags;
        memcpy(fx + 160, wish.xmm, 16 * XMMS);
        memcpy(fx + 24, &wish.mxcsr, 4);
        if (has_avx && extended) {
            fx[512] |= 7;
            memcpy(fx + 576, wish.ymm, 16 * XMMS);
        }
        // st(0) becomes 3: on i386 FSAVE's registers are for those without FXSAVE.
        static const unsigned char three[10] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0x40};
        memcpy(fx + 32, three, 10);
#ifdef __i386__
        memcpy((unsigned char *)uc->uc_mcontext.fpregs + 28, three, 10);
#endif
        uc->uc_mcontext.gregs[IP] += 2;
    }
    // All is changed here; nothing of it may be seen outside.
    asm volatile("fninit; fldpi; fldpi; fldpi" ::: "memory");
    asm volatile("fninit" ::: "memory");
    unsigned other = 0x7f80;
    asm volatile("ldmxcsr %0; pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm5, %%xmm5; pcmpeqd %%xmm7, %%xmm7" ::"m"(other) : "xmm0", "xmm5", "xmm7");
    if (has_avx) asm volatile("vzeroall" ::: "memory");
    other = 0x1f80;
    asm volatile("ldmxcsr %0" ::"m"(other));
    handled++, go = 1;
}

// Loads everything from `in`, runs the body, stores everything to `out`.
#ifdef __x86_64__
#define LOAD_GPRS "movq in, %%rax; movq in+8, %%rbx; movq in+16, %%rcx; movq in+24, %%rdx; movq in+32, %%rsi; movq in+40, %%rdi; movq in+48, %%r8;" \
    "movq in+56, %%r9; movq in+64, %%r10; movq in+72, %%r11; movq in+80, %%r12; movq in+88, %%r13; movq in+96, %%r14; movq in+104, %%r15;"
#define STORE_GPRS "movq %%rax, out; movq %%rbx, out+8; movq %%rcx, out+16; movq %%rdx, out+24; movq %%rsi, out+32; movq %%rdi, out+40; movq %%r8, out+48;" \
    "movq %%r9, out+56; movq %%r10, out+64; movq %%r11, out+72; movq %%r12, out+80; movq %%r13, out+88; movq %%r14, out+96; movq %%r15, out+104;"
#define CLOBBERS "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc"
#define PUSHF "pushfq; popq out+112;"
#else
#define LOAD_GPRS "movl in, %%eax; movl in+4, %%ecx; movl in+8, %%edx; movl in+12, %%esi; movl in+16, %%edi;"
#define STORE_GPRS "movl %%eax, out; movl %%ecx, out+4; movl %%edx, out+8; movl %%esi, out+12; movl %%edi, out+16;"
#define CLOBBERS "eax", "ecx", "edx", "esi", "edi", "memory", "cc"
#define PUSHF "pushfl; popl out+20;"
#endif
#define AROUND(body) \
    asm volatile("subl $0, %%eax; " LOAD_GPRS "cmpl $3, two;" body STORE_GPRS PUSHF ::: CLOBBERS)
int two = 2;

static __attribute__((noinline, noclone)) void wait_for_signal(void) {
    AROUND("wait_start: cmpl $3, two; nop; testl $1, go; nop; jz wait_start; wait_end: cmpl $3, two;");
}

static void vectors_in(void) {
#define X(n) asm volatile("movups %0, %%xmm" #n ::"m"(in.xmm[n]));
#define Y(n) asm volatile("vmovups %0, %%xmm" #n "; vinsertf128 $1, %1, %%ymm" #n ", %%ymm" #n ::"m"(in.xmm[n]), "m"(in.ymm[n]));
#define LOW(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#ifdef __x86_64__
#define ALL(M) LOW(M) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#else
#define ALL(M) LOW(M)
#endif
    if (has_avx) { ALL(Y) } else { ALL(X) }
}
static void vectors_out(void) {
#define XO(n) asm volatile("movups %%xmm" #n ", %0" : "=m"(out.xmm[n]));
#define YO(n) asm volatile("vmovups %%xmm" #n ", %0; vextractf128 $1, %%ymm" #n ", %1" : "=m"(out.xmm[n]), "=m"(out.ymm[n]));
    if (has_avx) { ALL(YO) } else { ALL(XO) }
}

static int differs(const char *what, const void *a, const void *b, int n) {
    if (memcmp(a, b, n) == 0) return 0;
    printf("%s differs\n", what);
    return 1;
}

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    unsigned a, b, c, d;
    has_avx = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AVX) && (c & bit_OSXSAVE);
    printf("avx %s\n", has_avx ? "is there" : "is not there");
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGALRM, &sa, 0);
    sigaction(SIGILL, &sa, 0);
    for (unsigned n = 0; n < sizeof in; n++) ((unsigned char *)&in)[n] = n * 37 + 11, ((unsigned char *)&wish)[n] = n * 59 + 5;
    int bad = 0;

    // A timer interrupts a loop anywhere.
    struct itimerval once = {{0, 0}, {0, 3000}};
    for (int round = 0; round < 40; round++) {
        go = 0;
        in.mxcsr = round % 2 ? 0x1f80 : 0x5fc0;
        setitimer(ITIMER_REAL, &once, 0);
        memset(&seen, 0, sizeof seen);
        asm volatile("fninit; fldl2e; fldlg2; fldz");
        asm volatile("ldmxcsr %0" ::"m"(in.mxcsr));
        vectors_in();
        wait_for_signal();
        vectors_out();
        asm volatile("stmxcsr %0" : "=m"(out.mxcsr));
        unsigned plain = 0x1f80;
        long double st[3];
        asm volatile("ldmxcsr %0" ::"m"(plain));
        asm volatile("fstpt %0; fstpt %1; fstpt %2" : "=m"(st[0]), "=m"(st[1]), "=m"(st[2]));
        bad += differs("general registers seen", seen.gpr, in.gpr, sizeof in.gpr) + differs("general registers", out.gpr, in.gpr, sizeof in.gpr);
        bad += differs("xmm seen", seen.xmm, in.xmm, 16 * XMMS) + differs("xmm", out.xmm, in.xmm, 16 * XMMS);
        if (has_avx) bad += differs("ymm seen", seen.ymm, in.ymm, 16 * XMMS) + differs("ymm", out.ymm, in.ymm, 16 * XMMS);
        if (seen.mxcsr != in.mxcsr || out.mxcsr != in.mxcsr) bad++, printf("mxcsr %#x, seen %#x, then %#x\n", in.mxcsr, seen.mxcsr, out.mxcsr);
        // Between the compare and the test either has set the flags.
        unsigned long f = seen.flags & 0x8d5;
        if (f != 0x95 && f != 0x44 && f != 0x00 && f != 0x04) bad++, printf("flags %#lx\n", f);
        if (st[0] != 0 || st[1] < 0.3L || st[1] > 0.302L || st[2] < 1.44L || st[2] > 1.45L) bad++, puts("x87 differs");
    }
    printf("%d signals, %d bad\n", handled, bad);

    // A handler gives every register another value.
    editing = 1, bad = 0;
    for (int round = 0; round < 20; round++) {
        wish.flags = 0x8d5 ^ (round % 3 ? 0 : 0x400);
        wish.mxcsr = 0x1f80 | round % 4 << 13;
        wish.gpr[round % GPRS] ^= round * 0x01010101ul;
        asm volatile("fninit; fldz");
        vectors_in();
        AROUND("ud2;");
        asm volatile("cld");
        vectors_out();
        asm volatile("stmxcsr %0" : "=m"(out.mxcsr));
        unsigned plain = 0x1f80;
        long double st;
        asm volatile("ldmxcsr %1; fstpt %0" : "=m"(st) : "m"(plain));
        bad += differs("edited general registers", out.gpr, wish.gpr, sizeof in.gpr) + differs("edited xmm", out.xmm, wish.xmm, 16 * XMMS);
        if (has_avx) bad += differs("edited ymm", out.ymm, wish.ymm, 16 * XMMS);
        if (out.mxcsr != wish.mxcsr) bad++, printf("edited mxcsr %#x\n", out.mxcsr);
        if (((out.flags ^ seen.flags) & 0xcd5) != wish.flags) bad++, printf("edited flags %#lx from %#lx\n", out.flags, seen.flags);
        if (st != 3) bad++, printf("edited st %Lg\n", st);
    }
    printf("edits: %d bad\n", bad);
    return bad;
}
