// Litmus tests of the x86 memory model (Intel SDM volume 3, "Memory Ordering"; Owens, Sarkar, Sewell: x86-TSO).
//
// Each test runs its 2 to 4 threads on many cells, side by side and nearly at once, for LITMUS_MS milliseconds (the soak takes 2000), and
// looks at what the threads read and what is left in memory. An outcome that the model forbids must never be seen; the
// outcomes of store buffers, which it allows, are only counted. Standard output has the verdicts, standard error the counts.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CELLS 256
#define THREADS 4
#define LINE __attribute__((aligned(64)))

struct cell {
    LINE volatile int x;
    LINE volatile int y;
    LINE volatile int spare[THREADS * 16];
    LINE volatile uint64_t bytes;
    LINE char area[128];
    struct { LINE volatile int a, b; } r[THREADS];
};
static struct cell cells[CELLS];
static LINE volatile int reached[THREADS * 16];
static pthread_barrier_t barrier;
static volatile int stop;

#define STORE(p, v) asm volatile("movl %1, %0" : "=m"(p) : "i"(v) : "memory")
#define LOAD(p) ({ int v_; asm volatile("movl %1, %0" : "=r"(v_) : "m"(p) : "memory"); v_; })
#define XCHG(p, v) ({ int v_ = (v); asm volatile("xchgl %0, %1" : "+r"(v_), "+m"(p)::"memory"); v_; })
#define XADD(p, v) ({ int v_ = (v); asm volatile("lock xaddl %0, %1" : "+r"(v_), "+m"(p)::"memory", "cc"); v_; })
#define CAS(p, old, new) ({ int v_ = (old); asm volatile("lock cmpxchgl %2, %1" : "+a"(v_), "+m"(p) : "r"(new) : "memory", "cc"); v_; })
#define MFENCE asm volatile("mfence" ::: "memory")
#ifdef __x86_64__
#define LOCKED asm volatile("lock orl $0, -64(%%rsp)" ::: "memory", "cc")
#else
#define LOCKED asm volatile("lock orl $0, (%%esp)" ::: "memory", "cc")
#endif
#define CPUID asm volatile("xorl %%eax, %%eax; cpuid" ::: "eax", "ebx", "ecx", "edx", "memory")

// A thread of a test: c is its cell, a and b what it has read, own a line of its own.
#define T(name, ...) \
    static void name(struct cell *c, int me) { \
        int a = 0, b = 0; \
        volatile int *own = c->spare + me * 16; \
        (void)own; \
        __VA_ARGS__; \
        c->r[me].a = a, c->r[me].b = b; \
    }
#define A(n) (c->r[n].a)
#define B(n) (c->r[n].b)
#define OUTCOME(name, condition) static int name(struct cell *c) { return condition; }

// Store buffers: both read the old value.
T(sb0, STORE(c->x, 1); a = LOAD(c->y))
T(sb1, STORE(c->y, 1); a = LOAD(c->x))
OUTCOME(sb, A(0) == 0 && A(1) == 0)
#define SB(name, fence) T(name##0, STORE(c->x, 1); fence; a = LOAD(c->y)) T(name##1, STORE(c->y, 1); fence; a = LOAD(c->x))
SB(sb_mfence, MFENCE)
SB(sb_locked, LOCKED)
SB(sb_cpuid, CPUID)
SB(sb_xchg_own, XCHG(*own, 1))
SB(sb_cas_own, CAS(*own, 7, 8)) // also when it fails
T(sb_xchg0, XCHG(c->x, 1); a = LOAD(c->y))
T(sb_xchg1, XCHG(c->y, 1); a = LOAD(c->x))
T(sb_xadd0, XADD(c->x, 1); a = LOAD(c->y))
T(sb_xadd1, XADD(c->y, 1); a = LOAD(c->x))
T(sb_read0, STORE(c->x, 1); a = XADD(c->y, 0))
T(sb_read1, STORE(c->y, 1); a = XADD(c->x, 0))
T(sb_bts0, asm volatile("lock btsl $0, %0" : "+m"(c->x)::"memory", "cc"); a = LOAD(c->y))
T(sb_bts1, asm volatile("lock btsl $0, %0" : "+m"(c->y)::"memory", "cc"); a = LOAD(c->x))
// Reading one's own store early is seen by nobody else.
T(rfi0, STORE(c->x, 1); a = LOAD(c->x); b = LOAD(c->y))
T(rfi1, STORE(c->y, 1); a = LOAD(c->y); b = LOAD(c->x))
OUTCOME(rfi, B(0) == 0 && B(1) == 0)
OUTCOME(rfi_own, A(0) != 1 || A(1) != 1)

// Message passing: the flag is there, the data not.
T(mp0, STORE(c->x, 1); STORE(c->y, 1))
T(mp1, a = LOAD(c->y); b = LOAD(c->x))
OUTCOME(mp, A(1) == 1 && B(1) == 0)
T(mp_xchg0, XCHG(c->x, 1); XCHG(c->y, 1))
T(mp_locked1, a = XADD(c->y, 0); b = XADD(c->x, 0))
T(mp_movnti0, asm volatile("movnti %1, %0; sfence" : "=m"(c->x) : "r"(1) : "memory"); STORE(c->y, 1))
T(mp_string0, char *to = c->area; long n = 100;
  asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(1) : "memory"); STORE(c->y, 1))
T(mp_string1, a = LOAD(c->y); b = LOAD(c->area[96]) & 1)
T(mp_x870, double one = 1; asm volatile("fldl %1; fistpl %0" : "=m"(c->x) : "m"(one) : "memory"); STORE(c->y, 1))
#ifdef __SSE2__
T(mp_sse0, asm volatile("movd %2, %%xmm0; movd %%xmm0, %0; movd %%xmm0, %1" : "=m"(c->x), "=m"(c->y) : "r"(1) : "xmm0", "memory"))
T(mp_sse1, asm volatile("movd %2, %%xmm0; movd %3, %%xmm1; movd %%xmm0, %0; movd %%xmm1, %1"
                        : "=r"(a), "=r"(b) : "m"(c->y), "m"(c->x) : "xmm0", "xmm1", "memory"))
#endif
// Load buffering: both read what the other writes later.
T(lb0, a = LOAD(c->x); STORE(c->y, 1))
T(lb1, a = LOAD(c->y); STORE(c->x, 1))
OUTCOME(lb, A(0) == 1 && A(1) == 1)
T(lb_xchg0, a = LOAD(c->x); XCHG(c->y, 1))
T(lb_xchg1, a = LOAD(c->y); XCHG(c->x, 1))

T(s0, STORE(c->x, 2); STORE(c->y, 1))
T(s1, a = LOAD(c->y); STORE(c->x, 1))
OUTCOME(s, A(1) == 1 && c->x == 2)

T(r0, STORE(c->x, 1); STORE(c->y, 1))
T(r1, STORE(c->y, 2); a = LOAD(c->x))
T(r_mfence1, STORE(c->y, 2); MFENCE; a = LOAD(c->x))
T(r_xchg1, XCHG(c->y, 2); a = LOAD(c->x))
OUTCOME(r, c->y == 2 && A(1) == 0)

T(ww0, STORE(c->x, 1); STORE(c->y, 2))
T(ww1, STORE(c->y, 1); STORE(c->x, 2))
OUTCOME(ww, c->x == 1 && c->y == 1)
T(ww_locked0, XCHG(c->x, 1); XCHG(c->y, 2))
T(ww_locked1, XCHG(c->y, 1); XCHG(c->x, 2))

// Coherence of one location.
T(corr0, STORE(c->x, 1))
T(corr1, a = LOAD(c->x); b = LOAD(c->x))
OUTCOME(corr, A(1) == 1 && B(1) == 0)
T(n50, STORE(c->x, 1); a = LOAD(c->x))
T(n51, STORE(c->x, 2); a = LOAD(c->x))
OUTCOME(n5, A(0) == 2 && A(1) == 1)

// Independent readers see two stores in different orders.
T(iriw0, STORE(c->x, 1))
T(iriw1, STORE(c->y, 1))
T(iriw2, a = LOAD(c->x); b = LOAD(c->y))
T(iriw3, a = LOAD(c->y); b = LOAD(c->x))
OUTCOME(iriw, A(2) == 1 && B(2) == 0 && A(3) == 1 && B(3) == 0)
T(iriw_xchg0, XCHG(c->x, 1))
T(iriw_xchg1, XCHG(c->y, 1))

// Causality through a third thread.
T(wrc1, a = LOAD(c->x); STORE(c->y, 1))
T(wrc2, a = LOAD(c->y); b = LOAD(c->x))
OUTCOME(wrc, A(1) == 1 && A(2) == 1 && B(2) == 0)
T(rwc1, a = LOAD(c->x); b = LOAD(c->y))
T(rwc2, STORE(c->y, 1); MFENCE; a = LOAD(c->x))
OUTCOME(rwc, A(1) == 1 && B(1) == 0 && A(2) == 0)

// 8 aligned bytes are written and read whole: 0 or ~0.
#ifdef __SSE2__
T(whole_sse0, asm volatile("pcmpeqd %%xmm0, %%xmm0; movq %%xmm0, %0" : "=m"(c->bytes)::"xmm0", "memory"))
T(whole_sse1, uint64_t v; asm volatile("movq %1, %%xmm0; movq %%xmm0, %0" : "=m"(v) : "m"(c->bytes) : "xmm0", "memory"); a = v; b = v >> 32)
#endif
T(whole_x870, static const int64_t ones = -1; asm volatile("fildll %1; fistpll %0" : "=m"(c->bytes) : "m"(ones) : "memory"))
T(whole_x871, uint64_t v; asm volatile("fildll %1; fistpll %0" : "=m"(v) : "m"(c->bytes) : "memory"); a = v; b = v >> 32)
#ifdef __x86_64__
T(whole_move0, asm volatile("movq $-1, %0" : "=m"(c->bytes)::"memory"))
T(whole_move1, uint64_t v; asm volatile("movq %1, %0" : "=r"(v) : "m"(c->bytes) : "memory"); a = v; b = v >> 32)
#else
#define whole_move0 whole_x870
#define whole_move1 whole_cx8
#endif
T(whole_cx8, uint32_t low = 0, high = 0; asm volatile("lock cmpxchg8b %2" : "+a"(low), "+d"(high), "+m"(c->bytes) : "b"(0), "c"(0) : "memory", "cc"); a = low; b = high)
OUTCOME(torn, A(1) != B(1))
// So is a word across the middle of a cache line.
T(split0, asm volatile("movl $-1, %0" : "=m"(*(int *)(c->area + 6))::"memory"))
T(split1, int v; asm volatile("movl %1, %0" : "=r"(v) : "m"(*(int *)(c->area + 6)) : "memory"); a = (short)v; b = v >> 16)

enum { FORBIDDEN, ALLOWED };
static const struct test {
    const char *name;
    int verdict, threads;
    void (*run[THREADS])(struct cell *, int);
    int (*outcome)(struct cell *);
} tests[] = {
    {"SB", ALLOWED, 2, {sb0, sb1}, sb},
    {"SB+mfence", FORBIDDEN, 2, {sb_mfence0, sb_mfence1}, sb},
    {"SB+lock or", FORBIDDEN, 2, {sb_locked0, sb_locked1}, sb},
    {"SB+cpuid", FORBIDDEN, 2, {sb_cpuid0, sb_cpuid1}, sb},
    {"SB+xchg elsewhere", FORBIDDEN, 2, {sb_xchg_own0, sb_xchg_own1}, sb},
    {"SB+failed cmpxchg elsewhere", FORBIDDEN, 2, {sb_cas_own0, sb_cas_own1}, sb},
    {"SB by xchg", FORBIDDEN, 2, {sb_xchg0, sb_xchg1}, sb},
    {"SB by xadd", FORBIDDEN, 2, {sb_xadd0, sb_xadd1}, sb},
    {"SB read by xadd", FORBIDDEN, 2, {sb_read0, sb_read1}, sb},
    {"SB by bts", FORBIDDEN, 2, {sb_bts0, sb_bts1}, sb},
    {"SB+rfi", ALLOWED, 2, {rfi0, rfi1}, rfi},
    {"own store unseen", FORBIDDEN, 2, {rfi0, rfi1}, rfi_own},
    {"MP", FORBIDDEN, 2, {mp0, mp1}, mp},
    {"MP by xchg", FORBIDDEN, 2, {mp_xchg0, mp1}, mp},
    {"MP read by xadd", FORBIDDEN, 2, {mp0, mp_locked1}, mp},
    {"MP by movnti+sfence", FORBIDDEN, 2, {mp_movnti0, mp1}, mp},
    {"MP by rep stos", FORBIDDEN, 2, {mp_string0, mp_string1}, mp},
    {"MP by fistp", FORBIDDEN, 2, {mp_x870, mp1}, mp},
#ifdef __SSE2__
    {"MP by movd", FORBIDDEN, 2, {mp_sse0, mp_sse1}, mp},
#endif
    {"LB", FORBIDDEN, 2, {lb0, lb1}, lb},
    {"LB by xchg", FORBIDDEN, 2, {lb_xchg0, lb_xchg1}, lb},
    {"S", FORBIDDEN, 2, {s0, s1}, s},
    {"R", ALLOWED, 2, {r0, r1}, r},
    {"R+mfence", FORBIDDEN, 2, {r0, r_mfence1}, r},
    {"R by xchg", FORBIDDEN, 2, {r0, r_xchg1}, r},
    {"2+2W", FORBIDDEN, 2, {ww0, ww1}, ww},
    {"2+2W by xchg", FORBIDDEN, 2, {ww_locked0, ww_locked1}, ww},
    {"CoRR", FORBIDDEN, 2, {corr0, corr1}, corr},
    {"n5", FORBIDDEN, 2, {n50, n51}, n5},
    {"IRIW", FORBIDDEN, 4, {iriw0, iriw1, iriw2, iriw3}, iriw},
    {"IRIW by xchg", FORBIDDEN, 4, {iriw_xchg0, iriw_xchg1, iriw2, iriw3}, iriw},
    {"WRC", FORBIDDEN, 3, {iriw0, wrc1, wrc2}, wrc},
    {"RWC+mfence", FORBIDDEN, 3, {iriw0, rwc1, rwc2}, rwc},
#ifdef __SSE2__
    {"torn movq xmm", FORBIDDEN, 2, {whole_sse0, whole_sse1}, torn},
#endif
    {"torn fild", FORBIDDEN, 2, {whole_x870, whole_x871}, torn},
    {"torn mov", FORBIDDEN, 2, {whole_move0, whole_move1}, torn},
    {"torn cmpxchg8b", FORBIDDEN, 2, {whole_x870, whole_cx8}, torn},
    {"torn inside a line", FORBIDDEN, 2, {split0, split1}, torn},
};
static const struct test *now;
static long batches, seen;
static struct timespec until;
static long ms;

static void set_end(void) {
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
}

static void *thread(void *arg) {
    int me = (int)(intptr_t)arg;
    unsigned random = me * 2654435761u + 1;
    for (;;) {
        pthread_barrier_wait(&barrier);
        if (stop) return 0;
        for (int i = 0; i < CELLS; i++) {
            // Nearly together: wait for the others, not for long since they may not be running.
            reached[me * 16] = i + 1;
            for (int other = 0; other < now->threads; other++)
                for (int spin = 0; spin < 100 && reached[other * 16] <= i; spin++) asm volatile("pause");
            random = random * 1103515245 + 12345;
            for (unsigned n = random >> 16 & 7; n; n--) asm volatile("" ::: "memory");
            now->run[me](&cells[i], me);
        }
        pthread_barrier_wait(&barrier);
        if (me == 0) {
            struct timespec t;
            for (int i = 0; i < CELLS; i++) seen += now->outcome(&cells[i]);
            memset(cells, 0, sizeof cells);
            memset((void *)reached, 0, sizeof reached);
            // The first batch is translation.
            if (batches++ == 0) set_end();
            clock_gettime(CLOCK_MONOTONIC, &t);
            stop = t.tv_sec > until.tv_sec || (t.tv_sec == until.tv_sec && t.tv_nsec > until.tv_nsec);
        }
    }
}

static long together(int threads, void *(*run)(void *)) {
    pthread_t t[THREADS];
    for (int i = 0; i < threads; i++) pthread_create(&t[i], 0, run, (void *)(intptr_t)i);
    for (int i = 0; i < threads; i++) pthread_join(t[i], 0);
    return 0;
}

// Locked instructions of all sizes count right.
static struct { LINE volatile uint8_t b; LINE volatile uint16_t w; LINE volatile uint32_t d; LINE volatile uint64_t q; LINE volatile uint64_t wide[2];
    LINE volatile uint32_t odd[16], bits, plain, lock; } count;
static int turns;
static void *counting(void *arg) {
    uint32_t bit = 1u << (intptr_t)arg;
    volatile uint32_t *odd = (volatile uint32_t *)((char *)count.odd + 29);
    for (int i = 0; i < turns; i++) {
        asm volatile("lock incb %0" : "+m"(count.b)::"cc", "memory");
        asm volatile("lock addw $3, %0" : "+m"(count.w)::"cc", "memory");
        asm volatile("lock subl $-5, %0" : "+m"(count.d)::"cc", "memory");
        asm volatile("lock decl %0" : "+m"(*odd)::"cc", "memory");
        asm volatile("lock xorl %1, %0" : "+m"(count.bits) : "r"(bit) : "cc", "memory");
        asm volatile("lock btcl %1, %0" : "+m"(count.bits) : "r"((int)(intptr_t)arg + 8) : "cc", "memory");
#ifdef __x86_64__
        asm volatile("clc; lock adcq $7, %0" : "+m"(count.q) : : "cc", "memory");
        uint64_t low = count.wide[0], high = count.wide[1];
        unsigned char done;
        do asm volatile("lock cmpxchg16b %1; sete %0" : "=q"(done), "+m"(*(__int128 *)count.wide), "+a"(low), "+d"(high)
                        : "b"(low + 1), "c"(high + 2) : "cc", "memory");
        while (!done);
#else
        uint32_t low = count.q, high = count.q >> 32;
        unsigned char done;
        do asm volatile("lock cmpxchg8b %1; sete %0" : "=q"(done), "+m"(count.q), "+a"(low), "+d"(high)
                        : "b"(low + 1), "c"(high + 2) : "cc", "memory");
        while (!done);
#endif
        // A lock taken by xchg and given back by a plain store.
        while (XCHG(count.lock, 1)) asm volatile("pause");
        count.plain++;
        STORE(count.lock, 0);
    }
    return 0;
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    const char *text = getenv("LITMUS_MS"), *soak = getenv("TULK_SOAK");
    ms = text ? atol(text) : soak && strcmp(soak, "yes") == 0 ? 2000 : 60;
    int bad = 0;
    for (now = tests; now < tests + sizeof tests / sizeof *tests; now++) {
        pthread_barrier_init(&barrier, 0, now->threads);
        batches = seen = stop = 0;
        together(now->threads, thread);
        pthread_barrier_destroy(&barrier);
        int broken = now->verdict == FORBIDDEN && seen;
        bad += broken;
        printf("%s: %s\n", now->name, broken ? "FORBIDDEN OUTCOME" : "as the model has it");
        fprintf(stderr, "%s: %ld of %ld\n", now->name, seen, batches * CELLS);
    }
    turns = ms * 100 + 1;
    together(THREADS, counting);
    uint64_t total = (uint64_t)turns * THREADS;
    int right = count.b == (uint8_t)total && count.w == (uint16_t)(3 * total) && count.d == (uint32_t)(5 * total) &&
        *(uint32_t *)((char *)count.odd + 29) == -(uint32_t)total && count.bits == (turns & 1 ? 0xf0f : 0) && count.plain == total;
#ifdef __x86_64__
    right = right && count.q == 7 * total && count.wide[0] == total && count.wide[1] == 2 * total;
#else
    right = right && (uint32_t)count.q == (uint32_t)total && count.q >> 32 == (uint32_t)(2 * total);
#endif
    printf("locked counters: %s\n", right ? "right" : "WRONG");
    return bad || !right;
}
