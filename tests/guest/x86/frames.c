// Where signal frames go, and which kind: alternate stacks and their edges, overflow, handlers set through INT 0x80 from
// 64-bit code, which start in 32-bit code.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
#define IP REG_RIP
#define SPR REG_RSP
#else
#define IP REG_EIP
#define SPR REG_UESP
#endif
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

#define STACK 65536
static char *area; // a guard of 64 KiB, the alternate stack, 64 KiB more
static char *alt;
static volatile int depth;

static int inside(uintptr_t p) { return p > (uintptr_t)alt && p <= (uintptr_t)alt + STACK; }

// Runs `f` in a child and tells how it ended.
static void child(const char *name, void (*f)(void)) {
    int outside = strstr(name, "disarmed") != 0;
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        f();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) printf("%s: killed by %d\n", name, WTERMSIG(status));
    else printf("%s: exit %d\n", name, WEXITSTATUS(status));
    // Nothing below the alternate stack was touched but by a handler's own few words.
    int touched = 0;
    for (int i = 0; i < 65536 - 1024 && !outside; i++) touched += area[i] != 0x55;
    printf("below it %d bytes changed\n", touched);
    memset(area, 0x55, 65536);
}

static void act(int sig, void *handler, int flags) {
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigaction(sig, &sa, 0);
}
static void set_alt(unsigned flags) {
    stack_t ss = {.ss_sp = alt, .ss_size = STACK, .ss_flags = flags};
    if (sigaltstack(&ss, 0)) perror("sigaltstack");
}
static void hit(int sig) { syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), sig); }

static void again(int sig, siginfo_t *info, void *uc) {
    (void)info, (void)uc;
    depth++;
    hit(sig);
}
static void tell_segv(int sig, siginfo_t *info, void *uc) {
    (void)uc;
    char text[120];
    int n = snprintf(text, sizeof text, "segv: signal %d code %d address %p, on the alternate stack %d, deep %d\n", sig, info->si_code,
                     info->si_addr, inside((uintptr_t)text), depth > 3);
    write(1, text, n);
    _exit(3);
}

static void nested(void) {
    set_alt(0);
    act(SIGUSR1, again, SA_ONSTACK | SA_NODEFER);
    hit(SIGUSR1);
}
static void nested_with_handler(void) {
    act(SIGSEGV, tell_segv, 0);
    nested();
}
static void nested_with_handler_there(void) {
    act(SIGSEGV, tell_segv, SA_ONSTACK);
    nested();
}
static void too_small(void) {
    stack_t ss = {.ss_sp = alt, .ss_size = 1000};
    printf("too small: %d\n", sigaltstack(&ss, 0));
    ss.ss_size = STACK, ss.ss_flags = 77;
    printf("bad flags: %d\n", sigaltstack(&ss, 0));
    ss.ss_flags = SS_ONSTACK;
    printf("onstack: %d\n", sigaltstack(&ss, 0));
    sigaltstack(0, &ss);
    printf("flags %#x size %d\n", ss.ss_flags, (int)ss.ss_size);
    fflush(stdout);
}

// With a stack pointer of its own choice, raise SIGUSR1.
static void raise_at(uintptr_t sp) {
    long pid = getpid(), tid = syscall(SYS_gettid);
#ifdef __x86_64__
    asm volatile("movq %%rsp, %%rbx; movq %1, %%rsp; syscall; movq %%rbx, %%rsp" ::"a"(SYS_tgkill), "r"(sp), "D"(pid), "S"(tid), "d"((long)SIGUSR1)
                 : "rbx", "rcx", "r11", "memory");
#else
    asm volatile("pushl %%ebx; movl %%esp, %%edi; movl %0, %%ebx; movl %1, %%esp; int $0x80; movl %%edi, %%esp; popl %%ebx" ::"r"(pid), "S"(sp),
                 "a"(SYS_tgkill), "c"(tid), "d"(SIGUSR1)
                 : "edi", "memory");
#endif
}
static volatile uintptr_t frame_at, info_at;
static void where(int sig, siginfo_t *info, void *context) {
    (void)sig;
    ucontext_t *uc = context;
    info_at = (uintptr_t)info;
    stack_t ss;
    sigaltstack(0, &ss);
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), sp = uc->uc_mcontext.gregs[SPR];
    frame_at = here;
    // Where the frame was put: on the stack it came from, or from the alternate one's end.
    printf("frame %s, the stack pointer was %s; now %#x, it was %#x size %d\n", inside(here) ? "on it" : "elsewhere", inside(sp) ? "on it" : "elsewhere",
           ss.ss_flags, uc->uc_stack.ss_flags, (int)uc->uc_stack.ss_size);
}
static void edges(void) {
    act(SIGUSR1, where, SA_ONSTACK);
    const unsigned flags[] = {0, SS_AUTODISARM};
    for (int f = 0; f < 2; f++) {
        set_alt(flags[f]);
        // Far behind: from the alternate stack's end. Then far inside; the end, which is inside; around what the red zone
        // hides at both ends; behind.
        const long places[] = {STACK + 4096, STACK / 2, STACK, STACK - 64, STACK - 128, STACK - 129, STACK + 8, STACK + 64, STACK + 128, STACK + 129, 128, 64};
        uintptr_t from_end = 0;
        for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
            raise_at((uintptr_t)alt + places[i]);
            if (i == 0) from_end = info_at;
            printf("at %ld flags %#x: %s\n", places[i], flags[f], info_at == from_end ? "from the end" : info_at < from_end ? "below" : "above");
        }
    }
    fflush(stdout);
}
static void low_on_it(void) {
    set_alt(0);
    act(SIGUSR1, where, SA_ONSTACK);
    raise_at((uintptr_t)alt + 200);
}
static void low_on_it_disarmed(void) {
    set_alt(SS_AUTODISARM);
    act(SIGUSR1, where, 0);
    raise_at((uintptr_t)alt + 200);
}
static void no_stack(void) {
    act(SIGUSR1, where, 0);
    raise_at(0x1000);
}
static void no_stack_but_for_segv(void) {
    set_alt(0);
    act(SIGSEGV, tell_segv, SA_ONSTACK);
    no_stack();
}
static void no_stack_and_blocked(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigprocmask(SIG_BLOCK, &set, 0);
    no_stack_but_for_segv();
}
static void no_stack_and_ignored(void) {
    set_alt(0);
    signal(SIGSEGV, SIG_IGN);
    no_stack();
}
static void misaligned(void) {
    set_alt(0);
    act(SIGUSR1, where, 0);
    for (int i = 0; i < 5; i++) raise_at((uintptr_t)area + 65536 + STACK + 32768 + i * 3);
    fflush(stdout);
}
// A handler edits its frame into nonsense.
static void spoil(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)info;
    ucontext_t *uc = context;
    switch (depth) {
#ifdef __x86_64__
    case 0: uc->uc_mcontext.gregs[IP] = 0x1234567812345678; break;
    case 1: uc->uc_mcontext.fpregs = (void *)8; break;
    case 2: uc->uc_mcontext.gregs[REG_CSGSFS] = 0x2b; break;
    case 3: uc->uc_mcontext.fpregs->mxcsr = 0xffffffff; break;
#else
    case 0: uc->uc_mcontext.gregs[IP] = 0xffffff00; break;
    case 1: uc->uc_mcontext.fpregs = (void *)8; break;
    case 2: uc->uc_mcontext.gregs[REG_CS] = 0x2b; break;
    case 3: uc->uc_mcontext.gregs[REG_SS] = 0x23; break;
#endif
    case 4: uc->uc_mcontext.gregs[SPR] = 0x100; break;
    case 5: uc->uc_stack.ss_flags = 0x70; break;
    case 6: uc->uc_mcontext.gregs[REG_EFL] = 0xffffffff & ~0x40100; break;
    }
}
static void spoiled(void) {
    act(SIGSEGV, tell_segv, SA_ONSTACK);
    act(SIGUSR1, spoil, SA_ONSTACK);
    set_alt(0);
    hit(SIGUSR1);
    if (depth == 6) {
        unsigned long flags;
        asm volatile("pushf; pop %0; cld" : "=r"(flags));
        printf("flags %#lx\n", flags & ~0x8d5);
        fflush(stdout);
    }
    _exit(7);
}

#ifdef __x86_64__
// 32-bit code: what it finds goes to `low`.
static unsigned *low;
static long int80(long n, long a, long b, long c, long d) {
    long r;
    asm volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d) : "memory", "r8", "r9", "r10", "r11");
    return r;
}
static void low_stack_hit(int sig) {
    long pid = getpid(), tid = syscall(SYS_gettid);
    // The frame keeps 32 bits of each register.
    asm volatile("movq %%rsp, 1024(%1); movq %1, %%rsp; addq $60000, %%rsp; syscall; movl %k2, %%ecx; movq 1024(%%rcx), %%rsp" ::"a"(SYS_tgkill), "b"(low), "m"(low),
                 "D"(pid), "S"(tid), "d"((long)sig)
                 : "rcx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
}
static void narrow_frames(void) {
    low = mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    unsigned base = (unsigned)(uintptr_t)low;
    // movl $base, %ebp; copy 60 words from the stack; note cs, ss, ds; ret
    unsigned char code[] = {0xbd, 0, 0, 0, 0,                   // mov ebp, low
                            0x89, 0xe6, 0x8d, 0xbd, 0, 1, 0, 0, // mov esi, esp; lea edi, [ebp+0x100]
                            0xb9, 100, 0, 0, 0, 0xf3, 0xa5,     // mov ecx, 100; rep movsd
                            0x8c, 0x4d, 0x10, 0x8c, 0x55, 0x14, // mov [ebp+16], cs; mov [ebp+20], ss
                            0x8c, 0x5d, 0x18, 0x89, 0x45, 0x1c, // mov [ebp+24], ds; mov [ebp+28], eax
                            0xff, 0x45, 0x20, 0xc3};            // inc dword [ebp+32]; ret
    memcpy(code + 1, &base, 4);
    memcpy(low + 512, code, sizeof code);
    static const unsigned char back[] = {0xb8, 173, 0, 0, 0, 0xcd, 0x80}, back_old[] = {0x58, 0xb8, 119, 0, 0, 0, 0xcd, 0x80};
    memcpy(low + 600, back, sizeof back);
    memcpy(low + 640, back_old, sizeof back_old);
    // rt_sigaction: handler, flags, restorer, mask.
    unsigned *sa = low + 300;
    sa[0] = base + 2048, sa[1] = SA_SIGINFO | 0x04000000, sa[2] = base + 2400, sa[3] = 0, sa[4] = 0;
    printf("rt_sigaction %ld\n", int80(174, SIGUSR1, (long)sa, 0, 8));
    low_stack_hit(SIGUSR1);
    unsigned *f = low + 64;
    printf("handled %u, cs %#x ss %#x ds %#x eax %u\n", low[8], low[4] & 0xffff, low[5] & 0xffff, low[6] & 0xffff, low[7]);
    printf("signal %u info at %d context at %d, restorer %d\n", f[1], f[2] - base > 50000, f[3] - f[2], f[0] - base);
    printf("siginfo %u %u %u pid %d\n", f[4], f[5], (int)f[6], f[7] == (unsigned)getpid());
    unsigned *uc = (unsigned *)((char *)f + (f[3] - f[2]) + 16), *sc = uc + 5;
    printf("flags %#x stack %#x; cs %#x ss %#x ebx %d esp %d mask %#x\n", uc[0] & 1, uc[3], sc[15] & 0xffff, sc[18] & 0xffff, sc[8] - base, sc[7] - base, uc[27]);
    // The old form.
    sa[0] = base + 2048, sa[1] = 0, sa[2] = 0x04000000, sa[3] = base + 2560;
    printf("sigaction %ld\n", int80(67, SIGUSR2, (long)sa, 0, 0));
    low_stack_hit(SIGUSR2);
    printf("handled %u, cs %#x signal %u, restorer %d\n", low[8], low[4] & 0xffff, f[1], f[0] - base);
    printf("esp %d ebx %d\n", f[9] - base, f[10] - base);
    // What the 64-bit call says of it, and the reverse.
    struct { unsigned long handler, flags, restorer, mask; } wide;
    printf("seen by rt_sigaction %ld:", syscall(SYS_rt_sigaction, SIGUSR1, 0, &wide, 8));
    printf(" %d flags %#lx restorer %d\n", (int)(wide.handler - base), wide.flags, (int)(wide.restorer - base));
    // Set again by the 64-bit call, the handler is one of 64-bit code.
    act(SIGUSR1, where, 0);
    hit(SIGUSR1);
    printf("seen by int 0x80 %ld: flags %#x\n", int80(174, SIGUSR1, 0, (long)sa, 8), sa[1]);
    fflush(stdout);
}
#endif

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    area = mmap(0, 3 * 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    alt = area + 65536;
    memset(area, 0x55, 65536);
    child("nested", nested);
    child("nested with a handler elsewhere", nested_with_handler);
    child("nested with a handler there", nested_with_handler_there);
    child("sizes and flags", too_small);
    child("edges", edges);
    child("low on it", low_on_it);
    child("low on it, disarmed", low_on_it_disarmed);
    child("no stack", no_stack);
    child("no stack, an alternate one for SIGSEGV", no_stack_but_for_segv);
    child("no stack, SIGSEGV blocked", no_stack_and_blocked);
    child("no stack, SIGSEGV ignored", no_stack_and_ignored);
    child("misaligned", misaligned);
    for (depth = 0; depth < 7; depth++) {
        char name[20];
        snprintf(name, sizeof name, "spoiled %d", depth);
        child(name, spoiled);
    }
#ifdef __x86_64__
    child("frames of 32-bit handlers", narrow_frames);
#endif
    return 0;
}
