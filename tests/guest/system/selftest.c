// Built with -mno-red-zone: inline assembly pushes flags.
// What a processor under an operating system does, printed: flags, SSE, x87, faults with handlers, signals, code that
// changes itself, threads, fork, mappings. Two runs, native and in a guest, must print the same.
#define _GNU_SOURCE
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

typedef unsigned long word;

#ifdef __x86_64__
#define STACK "rsp"
#else
#define STACK "esp"
#endif

static uint32_t seed = 12345;
static uint32_t next(void) { return seed = seed * 1664525 + 1013904223; }

static uint64_t sum;
static void mix(uint64_t value) { sum = (sum ^ value) * 0x100000001b3ull; }
static void report(const char *name) {
    printf("%s %016llx\n", name, (unsigned long long)sum);
    sum = 0xcbf29ce484222325ull;
}

enum { CF = 1, PF = 4, AF = 16, ZF = 64, SF = 128, OF = 2048, ALL = CF | PF | AF | ZF | SF | OF };

// The instruction on two operands of a width, from set and clear carry; the result and the flags that it defines.
#define BINARY(instruction, type, modifier, defined)                                                      \
    for (int i = 0; i < 300; i++) {                                                                        \
        type a = next() >> (next() & 16), b = (i & 7) ? next() >> (next() & 24) : a;                       \
        word flags;                                                                                        \
        __asm__ volatile("bt $0, %3\n" instruction " %" modifier "2, %" modifier "0\npushf\npop %1"       \
                         : "+q"(a), "=&r"(flags)                                                           \
                         : "q"(b), "r"(i)                                                                  \
                         : "cc");                                                                          \
        mix(a), mix(flags & (defined));                                                                    \
    }
#define WIDTHS(instruction, defined)                                                                       \
    BINARY(instruction "b", uint8_t, "b", defined)                                                         \
    BINARY(instruction "w", uint16_t, "w", defined)                                                        \
    BINARY(instruction "l", uint32_t, "k", defined)
#define SHIFT(instruction, defined)                                                                        \
    for (int i = 0; i < 300; i++) {                                                                        \
        uint32_t a = next();                                                                               \
        word flags;                                                                                        \
        __asm__ volatile("bt $0, %3\n" instruction " %%cl, %0\npushf\npop %1"                             \
                         : "+r"(a), "=&r"(flags)                                                           \
                         : "c"(i & 63), "r"(i)                                                             \
                         : "cc");                                                                          \
        mix(a), mix(flags & ((i & 31) == 1 ? (defined) | OF : (i & 31) ? (defined) : 0));                  \
    }

static void flags(void) {
    WIDTHS("add", ALL) WIDTHS("adc", ALL) WIDTHS("sub", ALL) WIDTHS("sbb", ALL) WIDTHS("cmp", ALL)
    WIDTHS("and", ALL & ~AF) WIDTHS("or", ALL & ~AF) WIDTHS("xor", ALL & ~AF) WIDTHS("test", ALL & ~AF)
    BINARY("imull", uint32_t, "k", CF | OF) BINARY("xaddl", uint32_t, "k", ALL)
    SHIFT("shll", CF | PF | ZF | SF) SHIFT("shrl", CF | PF | ZF | SF) SHIFT("sarl", CF | PF | ZF | SF)
    report("arithmetic and shifts");
    SHIFT("roll", CF) SHIFT("rorl", CF) SHIFT("rcll", CF) SHIFT("rcrl", CF)
    report("rotates");
}

#include <emmintrin.h>
static void sse(void) {
    for (int i = 0; i < 2000; i++) {
        __m128 a = _mm_castsi128_ps(_mm_set_epi32(next(), next(), next(), next()));
        __m128 b = _mm_castsi128_ps(_mm_set_epi32(next(), next(), next(), next()));
        __m128d c = _mm_set_pd((int32_t)next() / 3.0, (int32_t)next() * 1e-3);
        __m128d d = _mm_set_pd((int32_t)next() * 1e100, i - 1000);
        _mm_setcsr(0x1f80 | (i & 3) << 13 | (i & 4 ? 0x8040 : 0));
        __m128i results[] = {
            _mm_castps_si128(_mm_add_ps(a, b)),  _mm_castps_si128(_mm_mul_ps(a, b)),
            _mm_castps_si128(_mm_div_ps(a, b)),  _mm_castps_si128(_mm_min_ps(a, b)),
            _mm_castps_si128(_mm_sqrt_ps(a)),    _mm_castpd_si128(_mm_mul_pd(c, d)),
            _mm_castpd_si128(_mm_div_pd(c, d)),  _mm_castpd_si128(_mm_sqrt_pd(c)),
            _mm_cvtps_epi32(a),                  _mm_cvttpd_epi32(c),
            _mm_castps_si128(_mm_cvtpd_ps(c)),   _mm_castpd_si128(_mm_cmplt_pd(c, d)),
            _mm_madd_epi16((__m128i)a, (__m128i)b), _mm_packs_epi32((__m128i)a, (__m128i)b),
            _mm_sad_epu8((__m128i)a, (__m128i)b),   _mm_mul_epu32((__m128i)a, (__m128i)b),
            _mm_shufflelo_epi16((__m128i)a, 0x1b),  _mm_subs_epu8((__m128i)a, (__m128i)b),
        };
        mix(_mm_getcsr());
        uint64_t words[sizeof results / 8];
        memcpy(words, results, sizeof results);
        for (unsigned n = 0; n < sizeof results / 8; n++) mix(words[n]);
    }
    _mm_setcsr(0x1f80);
    report("sse");
}

static void mix80(long double value) {
    unsigned char bytes[16] = {0};
    memcpy(bytes, &value, 10);
    uint64_t low;
    memcpy(&low, bytes, 8);
    mix(low), mix(bytes[8] | bytes[9] << 8);
}

static void x87(void) {
    for (int i = 0; i < 1000; i++) {
        uint16_t control = 0x37f & ~0x300 | (i & 3) << 10 | ((i >> 2) % 3 ? (((i >> 2) % 3) + 1) << 8 : 0), status;
        __asm__ volatile("fnclex; fldcw %0" ::"m"(control));
        volatile long double a = (int32_t)next() / 7.0L, b = (int32_t)next() * 1e-5L;
        mix80(a + b), mix80(a * b), mix80(a / b), mix80(a - b), mix80(sqrtl(fabsl(a)));
        long double r;
        __asm__ volatile("frndint" : "=t"(r) : "0"(a)); mix80(r);
        __asm__ volatile("fprem" : "=t"(r) : "0"(a), "u"(b)); mix80(r);
        __asm__ volatile("fscale" : "=t"(r) : "0"(a), "u"((long double)(i % 50))); mix80(r);
        __asm__ volatile("fxam; fnstsw %0" : "=a"(status) : "t"(a)); mix(status & 0x4700);
        __asm__ volatile("fnstsw %0" : "=a"(status)); mix(status & 0x3f);
        float f = a; double d = b; int64_t n = a;
        uint32_t f_bits; uint64_t d_bits;
        memcpy(&f_bits, &f, 4), memcpy(&d_bits, &d, 8);
        mix(f_bits), mix(d_bits), mix(n);
    }
    __asm__ volatile("fninit");
    report("x87");
}

static sigjmp_buf back;
static volatile int signals, code, trap, fault_code;
static void *volatile address;
static void caught(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    signals = number, code = info->si_code, address = info->si_addr;
    trap = c->uc_mcontext.gregs[REG_TRAPNO], fault_code = c->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, 1);
}
static void catch(int number) {
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(number, &action, 0);
}
#define FAULT(name, ...)                                                                                   \
    signals = 0;                                                                                           \
    if (!sigsetjmp(back, 1)) { __VA_ARGS__; }                                                                \
    printf("%s: signal %d code %d trap %d error %d\n", name, signals, code, trap, fault_code)

static void faults(void) {
    volatile int zero = 0, least = INT32_MIN, one = -1;
    for (int n = 1; n < 32; n++)
        if (n == SIGSEGV || n == SIGBUS || n == SIGILL || n == SIGFPE || n == SIGTRAP) catch(n);
    char *page = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + 4096, 4096, PROT_NONE);
    FAULT("division by zero", one = one / zero);
    FAULT("division overflow", one = least / one);
    FAULT("undefined", __asm__ volatile("ud2"));
    FAULT("breakpoint", __asm__ volatile("int3"));
    FAULT("privileged", __asm__ volatile("hlt"));
    FAULT("port", __asm__ volatile("outb %al, $0x80"));
    FAULT("interrupt", __asm__ volatile("int $0x77"));
    FAULT("read of nothing", zero = page[4096]);
    FAULT("write to read-only", page[0] = 1);
    FAULT("write to nothing", page[4097] = 1);
    FAULT("across pages", zero = *(volatile int *)(page + 4094));
    printf("at offset %ld\n", (long)((char *)address - page));
#ifdef __x86_64__ // 32-bit kernels make some data executable that 64-bit kernels do not
    FAULT("execution of data", ((void (*)(void))page)());
#endif
    FAULT("null", *(volatile int *)8 = 1);
    FAULT("trap flag", __asm__ volatile("pushf\norl $0x100, (%%" STACK ")\npopf\nnop\nnop" ::: "memory", "cc"));
#ifdef __x86_64__
    FAULT("not canonical", *(volatile int *)0x8000000000000000 = 1);
#endif
    FAULT("sse unmasked", { _mm_setcsr(0x1f80 & ~0x200); volatile double f = 1, z = 0;
        __asm__ volatile("divsd %1, %0" : : "x"(f), "x"(z)); });
    _mm_setcsr(0x1f80);
    FAULT("x87 unmasked", {
        uint16_t control = 0x37b;
        __asm__ volatile("fldcw %0; fld1; fldz; fdivrp; fwait" ::"m"(control));
    });
    __asm__ volatile("fninit");
    FAULT("misaligned sse", __asm__ volatile("movaps %0, %%xmm0" ::"m"(*(page + 1)) : "xmm0"));
    munmap(page, 8192);
}

static volatile sig_atomic_t ticks;
static void tick(int number) { ticks++; }
static void timers(void) {
    struct itimerval interval = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}};
    signal(SIGALRM, tick);
    setitimer(ITIMER_REAL, &interval, 0);
    double x = 0;
    uint32_t y = 1;
    // Registers and flags survive signals at any instruction.
    for (long i = 0; ticks < 20; i++) {
        double before = x;
        x += 1, y = y * 3 + 1;
        if (x != before + 1) printf("lost x\n");
    }
    setitimer(ITIMER_REAL, &off, 0);
    char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&stack, 0);
    raise(SIGALRM);
    printf("signals %s\n", ticks >= 21 ? "arrive" : "lost");
}

static void code_changes(void) {
    // mov eax, imm32; ret
    unsigned char *text = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (uint32_t i = 0; i < 300; i++) {
        unsigned char *at = text + (i % 3 ? i : 4093);
        at[0] = 0xb8, memcpy(at + 1, &i, 4), at[5] = 0xc3;
        mix(((uint32_t(*)(void))at)());
    }
    // A store into the next instruction: mov byte [rip or absolute + imm], 7.
    for (int i = 0; i < 3; i++) {
        uint32_t result;
#ifdef __x86_64__
        unsigned char own[] = {0xc6, 0x05, 1, 0, 0, 0, (unsigned char)(i + 7), 0xb8, 0, 0, 0, 0, 0xc3};
        memcpy(text, own, sizeof own);
#else
        unsigned char own[] = {0xc6, 0x05, 0, 0, 0, 0, (unsigned char)(i + 7), 0xb8, 0, 0, 0, 0, 0xc3};
        unsigned char *target = text + 8;
        memcpy(own + 2, &target, 4), memcpy(text, own, sizeof own);
#endif
        result = ((uint32_t(*)(void))text)();
        mix(result);
    }
    munmap(text, 8192);
    report("self-modifying code");
}

static atomic_long counter;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long guarded;
static __thread long local;
static void *work(void *argument) {
    long n = (long)argument;
    for (int i = 0; i < 20000; i++) {
        atomic_fetch_add(&counter, n);
        local += n;
        if (i % 16 == 0) pthread_mutex_lock(&lock), guarded += n, pthread_mutex_unlock(&lock);
    }
    return (void *)local;
}
static void threads(void) {
    pthread_t all[4];
    long locals = 0;
    for (long i = 0; i < 4; i++) pthread_create(&all[i], 0, work, (void *)(i + 1));
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(all[i], &result);
        locals += (long)result;
    }
    printf("threads %ld %ld %ld\n", atomic_load(&counter), guarded, locals);
}

static void processes(void) {
    int ends[2];
    int *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int *copied = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 1 << 18; i += 512) copied[i] = i;
    pipe(ends);
    fflush(stdout);
    for (int child = 0; child < 8; child++) {
        if (!fork()) {
            for (int i = 0; i < 1 << 18; i += 512) copied[i] += child;
            long total = 0;
            for (int i = 0; i < 1 << 18; i += 512) total += copied[i];
            __atomic_fetch_add(shared, total, __ATOMIC_SEQ_CST);
            write(ends[1], &total, sizeof total);
            _exit(child);
        }
    }
    for (int i = 0; i < 8; i++) {
        long total;
        int status;
        read(ends[0], &total, sizeof total);
        wait(&status);
    }
    for (int i = 0; i < 1 << 18; i += 512) mix(copied[i]);
    mix(*shared);
    report("processes");
    int status, child = fork();
    if (!child) signal(SIGSEGV, SIG_DFL), *(volatile int *)8 = 1, _exit(0);
    waitpid(child, &status, 0);
    printf("child died of %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static void mappings(void) {
    char *area = mmap(0, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 200; i++) {
        int page = next() % 64;
        char *at = area + (page << 12);
        mprotect(at, 4096, PROT_READ);
        signals = 0;
        if (!sigsetjmp(back, 1)) at[i] = 1;
        mix(signals), mix((char *)address - at);
        mprotect(at, 4096, PROT_READ | PROT_WRITE);
        at[i] += i;
        if (i % 5 == 0) madvise(at, 4096, MADV_DONTNEED);
        mix(at[i]);
    }
    char *moved = mremap(area, 64 << 12, 128 << 12, MREMAP_MAYMOVE);
    for (int i = 0; i < 64; i++) mix(moved[(i << 12) + i]);
    report("mappings");
}

int main(void) {
    sum = 0xcbf29ce484222325ull;
    flags();
    sse();
    x87();
    faults();
    timers();
    code_changes();
    threads();
    processes();
    mappings();
    return 0;
}
