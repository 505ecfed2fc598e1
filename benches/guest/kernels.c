// Benchmark kernels: one program, `kernels NAME SCALE`; prints a checksum that must be equal everywhere.
// Built with -O3 so that the compiler vectorises the loops that are meant to be vectorised.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 88172645463325252ull;
static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

// Integer -------------------------------------------------------------------------------------------------

static uint64_t collatz(int scale) {
    uint64_t total = 0;
    for (uint64_t n = 1; n < 40000ull * scale; n++)
        for (uint64_t x = n; x != 1; total++) x = x & 1 ? 3 * x + 1 : x >> 1;
    return total;
}

static __attribute__((noinline)) uint64_t fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
static uint64_t calls(int scale) {
    uint64_t sum = 0;
    for (int i = 0; i < scale; i++) sum += fib(29);
    return sum;
}

static uint64_t sieve(int scale) {
    enum { N = 1 << 20 };
    static uint8_t composite[N];
    uint64_t count = 0;
    for (int r = 0; r < scale * 2; r++) {
        memset(composite, 0, sizeof composite);
        for (uint32_t i = 2; i < N; i++) {
            if (composite[i]) continue;
            count++;
            for (uint32_t j = 2 * i; j < N; j += i) composite[j] = 1;
        }
    }
    return count;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}
static uint64_t sort(int scale) {
    enum { N = 100000 };
    static uint32_t v[N];
    uint64_t sum = 0;
    for (int r = 0; r < scale; r++) {
        for (int i = 0; i < N; i++) v[i] = rnd();
        qsort(v, N, sizeof *v, compare);
        sum += v[N / 3];
    }
    return sum;
}

static uint64_t bytecode(int scale) {
    static const uint8_t code[] = {0, 1, 2, 3, 4, 5, 1, 3, 6, 2, 4, 0, 5, 7};
    uint64_t a = 1, b = 2, count = 900000ull * scale, pc = 0;
    while (count) {
        switch (code[pc]) {
        case 0: a += b; pc++; break;
        case 1: b ^= a << 3; pc++; break;
        case 2: a = a >> 1 | a << 63; pc++; break;
        case 3: b -= 7; pc++; break;
        case 4: a *= 3; pc++; break;
        case 5: b = b & 1 ? b + a : b - a; pc++; break;
        case 6: a ^= b; pc++; break;
        default: pc = 0; count--; break;
        }
    }
    return a ^ b;
}

static uint64_t chase(int scale) {
    enum { N = 1 << 16 };
    static uint32_t next[N];
    for (uint32_t i = 0; i < N; i++) next[i] = i;
    for (uint32_t i = N - 1; i > 0; i--) {
        uint32_t j = rnd() % i, t = next[i];
        next[i] = next[j], next[j] = t;
    }
    uint64_t sum = 0;
    uint32_t p = 0;
    for (uint64_t i = 0; i < 12000000ull * scale; i++) sum += p = next[p];
    return sum;
}

static uint64_t strings(int scale) {
    static char text[1 << 16], word[64];
    uint64_t found = 0;
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = 'a' + rnd() % 20;
    for (int r = 0; r < scale * 60; r++) {
        snprintf(word, sizeof word, "%c%c%c", 'a' + r % 20, 'b' + r % 17, 'c' + r % 13);
        for (const char *p = text; (p = strstr(p, word)); p++) found++;
        for (const char *p = text; *p; p++) found += *p == word[0] && p[1] == word[1];
        found += strlen(text) + (strchr(text, 'z') != 0);
    }
    return found;
}

/* The high half of the product. */
static uint64_t high_product(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
    return (unsigned __int128)a * b >> 64;
#else
    uint64_t low = (a & 0xffffffff) * (b & 0xffffffff), cross = (a >> 32) * (b & 0xffffffff) + (low >> 32);
    uint64_t other = (a & 0xffffffff) * (b >> 32) + (cross & 0xffffffff);
    return (a >> 32) * (b >> 32) + (cross >> 32) + (other >> 32);
#endif
}

static uint64_t muldiv(int scale) {
    uint64_t x = 0x123456789abcdefull, sum = 0;
    for (uint64_t i = 1; i < 3000000ull * scale; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        sum += x / (i | 1) + x % (i + 3) + high_product(x, i);
    }
    return sum;
}

static uint64_t sha256(int scale) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
        0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
        0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
        0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
        0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
        0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    for (int block = 0; block < scale * 30000; block++) {
        uint32_t w[64], s[8];
        for (int i = 0; i < 16; i++) w[i] = h[i & 7] + block * 31 + i;
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] + (ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3) + (ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10);
        memcpy(s, h, sizeof s);
        for (int i = 0; i < 64; i++) {
            uint32_t t1 = s[7] + (ROR(s[4], 6) ^ ROR(s[4], 11) ^ ROR(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
            uint32_t t2 = (ROR(s[0], 2) ^ ROR(s[0], 13) ^ ROR(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
            s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + t1, s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++) h[i] += s[i];
    }
    return (uint64_t)h[0] << 32 | h[7];
}

static uint64_t hash_table(int scale) {
    enum { N = 1 << 17 };
    static uint64_t keys[N], values[N];
    uint64_t sum = 0;
    for (int r = 0; r < scale; r++) {
        memset(keys, 0, sizeof keys);
        for (int i = 0; i < N / 2; i++) {
            uint64_t key = rnd() | 1, at = key * 0x9e3779b97f4a7c15ull >> 47;
            while (keys[at] && keys[at] != key) at = (at + 1) & (N - 1);
            keys[at] = key, values[at] += i;
            sum += values[at] ^ at;
        }
    }
    return sum;
}

// Virtual calls through a table of functions.
typedef uint64_t (*op_fn)(uint64_t, uint64_t);
static __attribute__((noinline)) uint64_t op_add(uint64_t a, uint64_t b) { return a + b; }
static __attribute__((noinline)) uint64_t op_xor(uint64_t a, uint64_t b) { return a ^ b; }
static __attribute__((noinline)) uint64_t op_rot(uint64_t a, uint64_t b) { return a << (b & 31) | a >> 1; }
static __attribute__((noinline)) uint64_t op_mul(uint64_t a, uint64_t b) { return a * (b | 1); }
static uint64_t indirect(int scale) {
    static op_fn volatile ops[4] = {op_add, op_xor, op_rot, op_mul};
    uint64_t a = 1;
    for (uint64_t i = 0; i < 10000000ull * scale; i++) a = ops[(i * 7 ^ i >> 3) & 3](a, i);
    return a;
}

// Floating point and SIMD -----------------------------------------------------------------------------------

static uint64_t bits(double d) {
    uint64_t u;
    memcpy(&u, &d, 8);
    return u;
}

static uint64_t matmul(int scale) {
    enum { N = 160 };
    static double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = i * 0.5 + j, b[i][j] = i - j * 0.25;
    for (int r = 0; r < scale * 6; r++)
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double s = c[j][i] * 1e-9;
                for (int k = 0; k < N; k++) s += a[i][k] * b[k][j];
                c[i][j] = s;
            }
    return bits(c[17][33]);
}

static uint64_t nbody(int scale) {
    double p[5][3], v[5][3], m[5];
    for (int i = 0; i < 5; i++) {
        m[i] = 1.0 / (i + 1);
        for (int k = 0; k < 3; k++) p[i][k] = i * 1.7 + k * 0.9 + 0.1, v[i][k] = (i - 2) * 0.01 * (k + 1);
    }
    for (int step = 0; step < 80000 * scale; step++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double d[3], d2 = 0.01;
                for (int k = 0; k < 3; k++) d[k] = p[i][k] - p[j][k], d2 += d[k] * d[k];
                double mag = 0.001 / (d2 * sqrt(d2));
                for (int k = 0; k < 3; k++) v[i][k] -= d[k] * m[j] * mag, v[j][k] += d[k] * m[i] * mag;
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++) p[i][k] += 0.001 * v[i][k];
    }
    return bits(p[0][0]) ^ bits(v[4][2]);
}

static uint64_t mandelbrot(int scale) {
    uint64_t inside = 0;
    int n = 220;
    for (int r = 0; r < scale; r++)
        for (int y = 0; y < n; y++)
            for (int x = 0; x < n; x++) {
                double cr = 3.0 * x / n - 2.0, ci = 2.0 * y / n - 1.0, zr = 0, zi = 0;
                int i = 0;
                while (i < 200 && zr * zr + zi * zi < 4.0) {
                    double t = zr * zr - zi * zi + cr;
                    zi = 2 * zr * zi + ci, zr = t, i++;
                }
                inside += i;
            }
    return inside;
}

static uint64_t saxpy(int scale) {
    enum { N = 8192 };
    static float x[N], y[N];
    for (int i = 0; i < N; i++) x[i] = i * 0.001f, y[i] = i;
    for (int r = 0; r < scale * 6000; r++) {
        float a = 1.0f / (r + 2);
        for (int i = 0; i < N; i++) y[i] = a * x[i] + y[i] * 0.5f;
    }
    double s = 0;
    for (int i = 0; i < N; i++) s += y[i];
    return bits(s);
}

static uint64_t float_reduce(int scale) {
    enum { N = 4096 };
    static double x[N];
    static float f[N];
    for (int i = 0; i < N; i++) x[i] = 1.0 + i * 1e-4, f[i] = x[i];
    double total = 0;
    for (int r = 0; r < scale * 1500; r++) {
        for (int i = 0; i < N; i++) x[i] = x[i] * 0.999 + 0.01 / x[i];
        for (int i = 0; i < N; i++) f[i] = f[i] * f[i] * 0.25f + 1.0f - f[i] * 0.25f;
        total += x[r & (N - 1)] + f[(r * 7) & (N - 1)];
    }
    return bits(total);
}

static uint64_t blur(int scale) {
    enum { N = 1 << 16 };
    static uint8_t in[N + 2], out[N + 2];
    for (int i = 0; i < N + 2; i++) in[i] = rnd();
    uint64_t sum = 0;
    for (int r = 0; r < scale * 900; r++) {
        for (int i = 1; i <= N; i++) out[i] = (in[i - 1] + 2 * in[i] + in[i + 1] + 2) >> 2;
        for (int i = 1; i <= N; i++) in[i] = out[i] ^ (uint8_t)r;
        sum += in[1 + r % N];
    }
    return sum;
}

static uint64_t dot16(int scale) {
    enum { N = 8192 };
    static int16_t a[N], b[N];
    for (int i = 0; i < N; i++) a[i] = rnd(), b[i] = rnd();
    int64_t total = 0;
    for (int r = 0; r < scale * 7000; r++) {
        int32_t s = 0;
        for (int i = 0; i < N; i++) s += a[i] * (b[i] >> 3);
        total += s;
        a[r & (N - 1)] ^= r;
    }
    return total;
}

static uint64_t minmax32(int scale) {
    enum { N = 8192 };
    static int32_t a[N], b[N];
    for (int i = 0; i < N; i++) a[i] = rnd(), b[i] = rnd();
    uint64_t sum = 0;
    for (int r = 0; r < scale * 5000; r++) {
        int32_t hi = INT32_MIN;
        for (int i = 0; i < N; i++) {
            int32_t m = a[i] < b[i] ? a[i] : b[i];
            b[i] = (m ^ r) + (a[i] >> 1);
            hi = m > hi ? m : hi;
        }
        sum += (uint32_t)hi;
    }
    return sum;
}

static const struct {
    const char *name;
    uint64_t (*run)(int scale);
} kernels[] = {
    {"collatz", collatz},   {"calls", calls},           {"sieve", sieve},       {"sort", sort},     {"bytecode", bytecode},
    {"chase", chase},       {"strings", strings},       {"muldiv", muldiv},     {"sha256", sha256}, {"hash_table", hash_table},
    {"indirect", indirect}, {"matmul", matmul},         {"nbody", nbody},       {"mandelbrot", mandelbrot},
    {"saxpy", saxpy},       {"float_reduce", float_reduce}, {"blur", blur},     {"dot16", dot16},   {"minmax32", minmax32},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 3 && i < sizeof kernels / sizeof *kernels; i++)
        if (!strcmp(argv[1], kernels[i].name)) {
            printf("%s %016llx\n", argv[1], (unsigned long long)kernels[i].run(atoi(argv[2])));
            return 0;
        }
    fprintf(stderr, "usage: kernels NAME SCALE\n");
    return 2;
}
