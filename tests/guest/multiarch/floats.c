// IEEE arithmetic bit by bit: rounding modes, exception flags, special values, conversions.
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t bits(double d) {
    uint64_t u;
    memcpy(&u, &d, 8);
    return u;
}
static uint32_t bitsf(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
// The sign of a generated NaN differs between processors; payloads of quiet NaNs do not.
static uint64_t canon(double d) { return isnan(d) ? 0x7ff8000000000000 : bits(d); }
static uint32_t canonf(float f) { return isnan(f) ? 0x7fc00000 : bitsf(f); }
static const char *flags(void) {
    static char text[8];
    int f = fetestexcept(FE_ALL_EXCEPT);
    snprintf(text, sizeof text, "%c%c%c%c%c", f & FE_INVALID ? 'V' : '-', f & FE_DIVBYZERO ? 'Z' : '-', f & FE_OVERFLOW ? 'O' : '-',
             f & FE_UNDERFLOW ? 'U' : '-', f & FE_INEXACT ? 'X' : '-');
    feclearexcept(FE_ALL_EXCEPT);
    return text;
}

int main(void) {
    static const double v[] = {0.0, -0.0, 1.0, -1.5, 3.0, 1e308, -1e308, 5e-324, 2.2250738585072014e-308, 1.0 / 3, INFINITY, -INFINITY, NAN, 123456789.75, 4503599627370497.5};
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    enum { N = sizeof v / sizeof *v };
    uint64_t hash = 0;
    for (int m = 0; m < 4; m++) {
        fesetround(modes[m]);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                volatile double a = v[i], b = v[j];
                volatile float fa = (float)a, fb = (float)b;
                flags();
                volatile double r[4];
                char f[4][8];
                r[0] = a + b, strcpy(f[0], flags());
                r[1] = a - b, strcpy(f[1], flags());
                r[2] = a * b, strcpy(f[2], flags());
                r[3] = a / b, strcpy(f[3], flags());
                for (int k = 0; k < 4; k++) {
                    hash = hash * 31 + canon(r[k]);
                    if (m == 0 && i % 3 == 1 && j % 3 == 2) printf("%d %d op%d %016llx %s\n", i, j, k, (unsigned long long)canon(r[k]), f[k]);
                    // Whether a result that rounds up to the smallest normal number was tiny is the processor's choice.
                    if (fabs(r[k]) == 0x1p-1022) f[k][3] = '?';
                    for (char *c = f[k]; *c; c++) hash = hash * 31 + *c;
                }
                volatile float s = fa + fb, p = fa * fb, q = fa / fb;
                hash = hash * 31 + canonf(s), hash = hash * 31 + canonf(p), hash = hash * 31 + canonf(q);
                hash = hash * 2 + (a < b), hash = hash * 2 + (a <= b), hash = hash * 2 + (a == b), hash = hash * 2 + (a != b);
                volatile double lo = fmin(a, b), hi = fmax(a, b), mad = fma(a, b, 1.0);
                if (!(a == 0 && b == 0)) hash = hash * 31 + canon(lo), hash = hash * 31 + canon(hi);
                hash = hash * 31 + canon(mad);
            }
        for (int i = 0; i < N; i++) {
            volatile double a = v[i];
            hash = hash * 31 + canon(sqrt(fabs(a))) + canon(rint(a)) * 3 + canon(floor(a)) * 5 + canon(ceil(a)) * 7 + canon(trunc(a)) * 11 + canon(round(a)) * 13;
            if (fabs(a) < 1e9) {
                volatile int32_t n = (int32_t)a;
                volatile int64_t w = llrint(a);
                hash = hash * 31 + (uint32_t)n, hash = hash * 31 + (uint64_t)w;
            }
            volatile int64_t big = 0x7fffffffffff0000ll + i * 77, wide = 0x123456789abcdefull * (i + 1);
            volatile uint64_t huge = 0xffffffffffff0000ull + i * 999;
            volatile double d = (double)big, u = (double)huge;
            volatile float g = (float)wide;
            hash = hash * 31 + bits(d), hash = hash * 31 + bits(u), hash = hash * 31 + bitsf(g);
        }
        fesetround(FE_TONEAREST);
        printf("mode %d hash %016llx\n", m, (unsigned long long)hash);
    }
    volatile double quiet;
    uint64_t payload = 0x7ff8000000abcdef;
    memcpy((void *)&quiet, &payload, 8);
    printf("payload kept: %016llx\n", (unsigned long long)bits(quiet + 1.0));
    printf("%.17g %.9g %a\n", exp(1.25), (double)sinf(0.5f), pow(2.0, 0.5));
    long double third = 1.0L / 3;
    printf("%d\n", third * 3 > 0.99L);
    return 0;
}
