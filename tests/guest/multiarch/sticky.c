// Sticky float flags: what a program reads is what the operations in front raised, no more and no less, also where
// a compiler would move or merge them.
#include <fenv.h>
#include <stdio.h>
#include <string.h>

#if defined __aarch64__
static inline unsigned long status(void) { unsigned long v; __asm volatile("mrs %0, fpsr" : "=r"(v) :: "memory"); return v; }
static inline void clear(void) { __asm volatile("msr fpsr, xzr" ::: "memory"); }
static inline int div_zero(void) { return status() >> 1 & 1; }
static inline int inexact(void) { return status() >> 4 & 1; }
#define HIDE(x) __asm volatile("" : "+w"(x))
#elif defined __x86_64__
static inline void clear(void) { unsigned v = 0x1f80; __asm volatile("ldmxcsr %0" :: "m"(v) : "memory"); }
static inline unsigned status(void) { unsigned v; __asm volatile("stmxcsr %0" : "=m"(v) :: "memory"); return v; }
static inline int div_zero(void) { return status() >> 2 & 1; }
static inline int inexact(void) { return status() >> 5 & 1; }
#define HIDE(x) __asm volatile("" : "+x"(x))
#else
static inline void clear(void) { feclearexcept(FE_ALL_EXCEPT); }
static inline int div_zero(void) { return !!fetestexcept(FE_DIVBYZERO); }
static inline int inexact(void) { return !!fetestexcept(FE_INEXACT); }
#define HIDE(x) __asm volatile("" : "+m"(x))
#endif

// The quotient does not change in the loop, and is not computed at all unless something is taken.
__attribute__((noinline)) static double sum(double a, double b, const char *take, long n) {
    double s = 0;
    for (long i = 0; i < n; i++)
        if (take[i]) s += a / b;
    return s;
}
__attribute__((noinline)) static float sum_f(float a, float b, const char *take, long n) {
    float s = 0;
    for (long i = 0; i < n; i++)
        if (take[i]) s += a / b;
    return s;
}
typedef double pair __attribute__((vector_size(16)));
__attribute__((noinline)) static pair sum_v(pair a, pair b, const char *take, long n) {
    pair s = {};
    for (long i = 0; i < n; i++)
        if (take[i]) s += a / b;
    return s;
}
__attribute__((noinline)) static double convert(long v, const char *take, long n) {
    double s = 0;
    for (long i = 0; i < n; i++)
        if (take[i]) {
            double d = (double)v;
            HIDE(d);
            s += d;
        }
    return s;
}

// The same quotient again and again, with the flags cleared before each.
__attribute__((noinline)) static int raised_again(double a, double b, long n) {
    int hits = 0;
    for (long i = 0; i < n; i++) {
        clear();
        double q = a / b;
        HIDE(q);
        hits += div_zero();
        HIDE(a);
        clear();
        q = a / b;
        HIDE(q);
        hits += div_zero();
        hits += div_zero();
        HIDE(a);
        q = a * b;
        HIDE(q);
        clear();
        hits += 100 * div_zero();
    }
    return hits;
}
// Read before the operation that raises, and after it.
__attribute__((noinline)) static int in_order(double a, double b, long n) {
    int early = 0, late = 0;
    for (long i = 0; i < n; i++) {
        clear();
        early += inexact();
        double q = a / b;
        HIDE(q);
        late += inexact();
        HIDE(a);
    }
    return early * 100000 + late;
}

int main(void) {
    static char none[1000];
    char last[1000] = {};
    last[999] = 1;
    // So that both ways are worth compiling.
    char half[1000];
    for (int i = 0; i < 1000; i++) half[i] = i * 7 % 5 < 2;
    double warm = 0;
    for (int round = 0; round < 500; round++) {
        pair v = sum_v((pair){1, 2}, (pair){1, 2}, half, 1000);
        warm += sum(1, 1, half, 1000) + sum_f(1, 1, half, 1000) + convert(1, half, 1000) + v[0] + v[1];
    }
    printf("%g\n", warm);
    int wrong = 0, right = 0, again = 0, order = 0;
    for (int round = 0; round < 3000; round++) {
        clear();
        double s = sum(1, 0, none, 1000) + sum_f(1, 0, none, 1000);
        pair v = sum_v((pair){1, 2}, (pair){0, 3}, none, 1000);
        s += convert((1l << 30) + 1, none, 1000) + v[0] + v[1];
        wrong += div_zero() + inexact() + (s != 0);
        if (round % 16 == 0) {
            s = sum(1, 0, last, 1000);
            right += div_zero() && s > 1e300;
            again += raised_again(1, 0, 100);
            order += in_order(1, 3, 100);
        }
    }
    printf("%d %d %d %d\n", wrong, right, again, order);
}
