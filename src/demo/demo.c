// The demonstration program: no library, only the write and exit system calls, so that it stays small on every guest.
// It draws the Mandelbrot set with the guest's floating point, counts primes with its integers, and names its processor.
typedef unsigned long size;

#if defined __aarch64__
#define GUEST "64-bit ARM (AArch64)"
static long call(long number, long a, long b, long c) {
    register long x8 asm("x8") = number, x0 asm("x0") = a, x1 asm("x1") = b, x2 asm("x2") = c;
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
enum { WRITE = 64, EXIT = 94 };
#elif defined __x86_64__
#define GUEST "x86-64"
static long call(long number, long a, long b, long c) {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
enum { WRITE = 1, EXIT = 231 };
#elif defined __i386__
#define GUEST "32-bit x86 (i386)"
static long call(long number, long a, long b, long c) {
    long result;
    asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}
enum { WRITE = 4, EXIT = 252 };
#endif

static char line[128];
static size used;
static void flush(void) {
    call(WRITE, 1, (long)line, used);
    used = 0;
}
static void put(char c) {
    line[used++] = c;
    if (c == '\n') flush();
}
static void text(const char *s) {
    while (*s) put(*s++);
}
static void number(unsigned n) {
    char digits[12];
    int i = 0;
    do digits[i++] = '0' + n % 10;
    while (n /= 10);
    while (i) put(digits[--i]);
}

static void mandelbrot(void) {
    for (int y = -10; y <= 10; y++) {
        for (int x = -48; x <= 22; x++) {
            double cr = x / 22.0, ci = y / 9.0, zr = 0, zi = 0;
            int i = 0;
            for (; i < 20000 && zr * zr + zi * zi < 4; i++) {
                double t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci, zr = t;
            }
            put(i >= 20000 ? '#' : i > 30 ? '+' : i > 9 ? ':' : i > 5 ? '.' : ' ');
        }
        put('\n');
    }
}

static unsigned char composite[1 << 22];
static unsigned primes(void) {
    unsigned count = 0, n = sizeof composite;
    for (unsigned i = 2; i < n; i++) {
        if (composite[i]) continue;
        count++;
        for (unsigned j = i * 2; j < n; j += i) composite[j] = 1;
    }
    return count;
}

void _start(void) {
    text("Hello from a program for " GUEST ".\n");
    mandelbrot();
    text("Primes below 4194304: ");
    number(primes());
    text("\n");
    call(EXIT, 0, 0, 0);
}
