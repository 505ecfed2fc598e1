// Code that writes code: fresh pages, rewriting with the architecture's flush, many small functions, jumps into data.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

// Writes a function that returns `value` (below 65536) at `at`; returns its length in bytes.
static int emit(uint8_t *at, unsigned value) {
#if defined __aarch64__
    uint32_t code[2] = {0x52800000 | value << 5, 0xd65f03c0};  // mov w0, #value; ret
    memcpy(at, code, 8);
    __builtin___clear_cache((char *)at, (char *)at + 8);
    return 8;
#else
    uint8_t code[6] = {0xb8, value & 255, value >> 8, 0, 0, 0xc3};  // mov eax, value; ret
    memcpy(at, code, 6);
    return 6;
#endif
}
typedef int (*function)(void);
static sigjmp_buf back;
static void leave(int sig) { siglongjmp(back, sig); }

int main(void) {
    uint8_t *page = mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    for (int i = 0; i < 3000; i++) {
        emit(page, i & 0xffff);
        sum += ((function)page)();
    }
    printf("rewritten in place: %ld\n", sum);
    sum = 0;
    int at = 0, n = 0;
    for (; at + 16 < 65536; n++) at += emit(page + at, n % 60000);
    for (int round = 0; round < 50; round++)
        for (int i = 0, p = 0; i < n; i++) {
            sum += ((function)(page + p))();
            p += at / n;
        }
    printf("many functions: %d %s\n", n > 1000, sum == 50l * ((long)n * (n - 1) / 2) ? "right" : "wrong");

    int size = emit(page, 1);
    sum = 0;
    for (int i = 0; i < 500; i++) {
        mprotect(page, 65536, PROT_READ | PROT_WRITE);
        emit(page + 64 * (i % 8), i);
        mprotect(page, 65536, PROT_READ | PROT_EXEC);
        sum += ((function)(page + 64 * (i % 8)))();
    }
    printf("write xor execute: %ld %d\n", sum & 0xffff, size > 0);

    signal(SIGSEGV, leave);
    uint8_t *data = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    emit(data, 3);
    volatile int signals = 0;
    if (sigsetjmp(back, 1) == 0) ((function)data)();
    else signals++;
    if (sigsetjmp(back, 1) == 0) ((function)8)();
    else signals++;
    munmap(page, 65536);
    if (sigsetjmp(back, 1) == 0) ((function)page)();
    else signals++;
    printf("refused: %d\n", signals);
    return 0;
}
