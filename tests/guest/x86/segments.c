// Segments of threads: each has its own descriptors and bases, under locks and signals; and what limits and types forbid.
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define THREADS 4
#define TURNS 3000
static __thread int own = 5;
static pthread_t threads[THREADS];
static atomic_int bad, signals, begun;
static int sum;
static volatile int spin;
static char *low;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int entry(int number, unsigned base, unsigned limit, int contents, int read_only, int not_present, int bits32) {
    struct user_desc d = {.entry_number = number, .base_addr = base, .limit = limit, .seg_32bit = bits32, .contents = contents,
                          .read_exec_only = read_only, .seg_not_present = not_present, .useable = 1};
    return syscall(SYS_modify_ldt, 0x11, &d, sizeof d);
}
#define SELECTOR(n) ((n) << 3 | 7)

static void on_signal(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)info, (void)context;
    // The C library's thread variables work here, and the handler's own change of a segment does not stay.
    signals += own >= 5;
#ifdef __x86_64__
    asm volatile("movw %w0, %%fs; movw %w0, %%es" ::"r"(0) : "memory");
#else
    asm volatile("movw %w0, %%fs; movw %w0, %%es" ::"r"(0) : "memory");
#endif
}

// Reads and counts through the segment: word 0 is the thread's number, word 1 a counter, at 64 bytes the lock.
#define LOCKED_TURN(seg) \
    asm volatile("1: movl $1, %%eax; xchgl %%eax, %1; testl %%eax, %%eax; jz 2f; pause; jmp 1b; 2:" \
                 "movl %%" seg ":0, %0; incl %%" seg ":4; lock incl %2; movl $0, %1" \
                 : "=&r"(number), "+m"(spin), "+m"(sum)::"eax", "memory", "cc")

static void *thread(void *arg) {
    int me = (int)(intptr_t)arg, number = -1;
    unsigned base = (unsigned)(uintptr_t)low + me * 4096;
    int *block = (int *)(uintptr_t)base;
    block[0] = me, block[1] = 0;
    if (entry(me, base, 4095, 0, 0, 0, 1)) bad++;
    begun++;
#ifdef __i386__
    struct user_desc tls = {.entry_number = -1, .base_addr = base + 1024, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1};
    block[256] = me + 100;
    if (syscall(SYS_set_thread_area, &tls)) bad++;
    unsigned fs = tls.entry_number << 3 | 3;
#endif
    for (int i = 0; i < TURNS; i++) {
        if (i % 2 == 0) {
#ifdef __i386__
            asm volatile("movw %w0, %%fs" ::"r"(i % 4 ? SELECTOR(me) : fs) : "memory");
            LOCKED_TURN("fs");
            if (number != (i % 4 ? me : me + 100)) bad++;
#else
            // The base is set by descriptor, by call; a thread's own in every case.
            if (i % 4) asm volatile("movw %w0, %%gs" ::"r"(SELECTOR(me)) : "memory");
            else if (syscall(SYS_arch_prctl, 0x1001, (unsigned long)base)) bad++;
            LOCKED_TURN("gs");
            if (number != me) bad++;
#endif
        } else {
            pthread_mutex_lock(&lock);
            own++;
            pthread_mutex_unlock(&lock);
            // The others count under another lock.
            __atomic_fetch_add(&sum, 1, __ATOMIC_RELAXED);
        }
        if (i % 100 == 0) sched_yield();
    }
    if (own != 5 + TURNS / 2) bad++;
    // Everything was counted in this thread's own block.
    int counted = block[1];
#ifdef __i386__
    counted += block[257];
#endif
    if (counted != TURNS / 2) bad++;
#ifdef __x86_64__
    asm volatile("movw %w0, %%gs" ::"r"(0) : "memory");
#endif
    return 0;
}

static sigjmp_buf back;
static void report(int sig, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    // Where the fault is no page fault, the address is the kernel's choice.
    printf("signal %d code %d trap %d error %#lx\n", sig, info->si_code, (int)r[REG_TRAPNO], (long)r[REG_ERR]);
    siglongjmp(back, 1);
}
#define TRY(name, ...) do { printf("%s: ", name); fflush(stdout); if (!sigsetjmp(back, 1)) { __VA_ARGS__; puts("passes"); } } while (0)

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    low = mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
#ifdef __i386__
    sigaction(SIGUSR1, &sa, 0);
#endif
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, thread, (void *)i);
#ifdef __i386__
    while (begun < THREADS) sched_yield();
    for (int i = 0; i < 200; i++) {
        syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
        usleep(100);
    }
#endif
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
    printf("sum %d, %d wrong, %d signals\n", sum, bad, signals);

    // What a segment permits. Entry 8: data of 0x100 bytes. 9: read only. 10: not present. 11: expands down from 0xfff.
    // 12: code that may only be executed. 13: code that may be read.
    sa.sa_sigaction = report, sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    static char stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&ss, 0);
    int all[] = {SIGSEGV, SIGBUS, SIGILL};
    for (int i = 0; i < 3; i++) sigaction(all[i], &sa, 0);
    unsigned base = (unsigned)(uintptr_t)low;
    printf("entries %d %d %d %d %d %d\n", entry(8, base, 0xff, 0, 0, 0, 1), entry(9, base, 0xfff, 0, 1, 0, 1),
           entry(10, base, 0xfff, 0, 0, 1, 1), entry(11, base, 0xfff, 1, 0, 0, 1), entry(12, base, 0xffff, 2, 1, 0, 1),
           entry(13, base, 0xffff, 2, 0, 0, 1));
    printf("bad entries %d %d\n", entry(8192, base, 1, 0, 0, 0, 1), entry(9, base, 1, 3, 0, 0, 1));
#define GS(n) asm volatile("movw %w0, %%gs" ::"r"(SELECTOR(n)) : "memory")
#define READ(size, at) do { unsigned v_; asm volatile("mov" size " %%gs:(%1), %k0" : "=r"(v_) : "r"((uintptr_t)(at)) : "memory"); } while (0)
#define WRITE(at) asm volatile("movl $1, %%gs:(%0)" ::"r"((uintptr_t)(at)) : "memory")
#ifdef __i386__
    unsigned before;
    asm volatile("movl %%gs, %0" : "=r"(before));
    // The C library needs its own GS between.
#define HERE(name, n, ...) do { TRY(name, GS(n); __VA_ARGS__; asm volatile("movl %0, %%gs" ::"r"(before))); asm volatile("movl %0, %%gs" ::"r"(before)); } while (0)
#undef TRY
#define TRY(name, ...) do { printf("%s: ", name); int how_ = sigsetjmp(back, 1); if (!how_) { __VA_ARGS__; puts("passes"); } } while (0)
#else
#define HERE(name, n, ...) TRY(name, GS(n); __VA_ARGS__)
#endif
#ifdef __i386__
    // The handler starts with the segment that failed.
    struct sigaction with = sa;
    (void)with;
#endif
    TRY("load not present", GS(10));
#ifdef __i386__
    asm volatile("movl %0, %%gs" ::"r"(before));
#endif
    TRY("load execute only", GS(12));
#ifdef __i386__
    asm volatile("movl %0, %%gs" ::"r"(before));
#endif
    TRY("load beyond the table", GS(100));
    unsigned limit = 0, rights = 0;
    unsigned char zero;
    for (int n = 8; n < 15; n++) {
        asm volatile("lsl %3, %0; setz %2; lar %3, %1" : "+r"(limit), "+r"(rights), "=q"(zero) : "r"(SELECTOR(n)) : "cc");
        unsigned char may_read, may_write;
        asm volatile("verr %w2; setz %0; verw %w2; setz %1" : "=&q"(may_read), "=&q"(may_write) : "r"(SELECTOR(n)) : "cc");
        printf("entry %d: %d limit %#x rights %#x read %d write %d\n", n, zero, limit, rights & ~0x100, may_read, may_write);
    }
#ifdef __x86_64__
    // 64-bit code knows no limits, but the base.
    HERE("inside", 8, READ("l", 0xfc));
    HERE("outside", 8, READ("l", 0x100));
    HERE("write read-only", 9, WRITE(0));
    int value = 0;
    strcpy(low, "abc");
    GS(8);
    asm volatile("movl %%gs:0, %0" : "=r"(value)::"memory");
    printf("%.4s\n", (char *)&value);
    asm volatile("movw %w0, %%gs" ::"r"(0) : "memory");
#else
    // FS, which nothing else uses.
#undef GS
#define GS(n) asm volatile("movw %w0, %%fs" ::"r"(SELECTOR(n)) : "memory")
#undef READ
#undef WRITE
#define READ(size, at) do { unsigned v_; asm volatile("mov" size " %%fs:(%1), %k0" : "=r"(v_) : "r"((uintptr_t)(at)) : "memory"); } while (0)
#define WRITE(at) asm volatile("movl $1, %%fs:(%0)" ::"r"((uintptr_t)(at)) : "memory")
#undef HERE
#define HERE(name, n, ...) TRY(name, GS(n); __VA_ARGS__)
    HERE("last word", 8, READ("l", 0xfc));
    HERE("over the limit", 8, READ("l", 0xfd));
    HERE("behind the limit", 8, READ("l", 0x100));
    HERE("last byte", 8, READ("zbl", 0xff));
    HERE("write inside", 8, WRITE(0xfc));
    HERE("write over", 8, WRITE(0xfd));
    HERE("read read-only", 9, READ("l", 0));
    HERE("write read-only", 9, WRITE(0));
    HERE("expand down below", 11, READ("l", 0xffc));
    HERE("expand down inside", 11, READ("l", 0x1000));
    HERE("read code", 13, READ("l", 0));
    HERE("write code", 13, WRITE(0));
    HERE("null", 0, asm volatile("movw %w0, %%fs" ::"r"(0)); READ("l", 0));
    TRY("string over the limit", GS(8); unsigned at = 0xf8; unsigned n = 8; asm volatile("rep lodsb %%fs:(%%esi), %%al" : "+S"(at), "+c"(n)::"eax", "memory");
        printf("%x %u ", at, n); n = 1; asm volatile("rep lodsb %%fs:(%%esi), %%al" : "+S"(at), "+c"(n)::"eax", "memory"));
    // A far call into a code segment, of 32 and of 16 bits, and over its limit.
    static const unsigned char code32[] = {0xb8, 0x2a, 0, 0, 0, 0xcb}, code16[] = {0xb8, 0x2b, 0, 0x66, 0xcb};
    memcpy(low + 0x200, code32, sizeof code32);
    memcpy(low + 0x210, code16, sizeof code16);
    printf("entries %d %d\n", entry(14, base, 0xffff, 2, 0, 0, 0), entry(15, base, 0x20f, 2, 0, 0, 1));
    struct { unsigned offset; unsigned short selector; } far = {0x200, SELECTOR(13)};
    unsigned ax = 0;
    TRY("far call", asm volatile("lcall *%1" : "=a"(ax) : "m"(far) : "memory"); printf("%#x ", ax));
    far.offset = 0x210, far.selector = SELECTOR(14), ax = 0x11110000;
    TRY("far call of 16-bit code", asm volatile("lcall *%1" : "+a"(ax) : "m"(far) : "memory"); printf("%#x ", ax));
    far.selector = SELECTOR(15);
    TRY("far call over the limit", asm volatile("lcall *%1" : "+a"(ax) : "m"(far) : "memory"));
    far.selector = SELECTOR(8);
    TRY("far call of data", asm volatile("lcall *%1" : "+a"(ax) : "m"(far) : "memory"));
    far.selector = SELECTOR(10);
    TRY("far call of what is not present", asm volatile("lcall *%1" : "+a"(ax) : "m"(far) : "memory"));
#endif
    return bad;
}
