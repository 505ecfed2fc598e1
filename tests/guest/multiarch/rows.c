// Rows of writes, of which each faults in turn: a handler sees what is written so far, changes it, and lets the program go on.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { WRITES = 6, PAGE = 65536, CELLS = PAGE / sizeof(int32_t), ROUNDS = 60000 };
static volatile int32_t *base;
static int bad, faults, right;
static int32_t seen[WRITES];

static void on_fault(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    faults++;
    right = info->si_addr == (void *)(base + bad * CELLS);
    for (int i = 0; i < WRITES; i++) {
        seen[i] = i == bad ? 0 : base[i * CELLS];
        if (i < bad) base[i * CELLS] = -1 - i;
    }
    mprotect((void *)(base + bad * CELLS), PAGE, PROT_READ | PROT_WRITE);
}

__attribute__((noinline)) static uint32_t row(volatile int32_t *p, uint32_t v) {
    p[0] = v;
    v = v * 5 + 1;
    p[CELLS] = v;
    v ^= v << 3;
    p[2 * CELLS] = v;
    p[3 * CELLS] = v + 1;
    v -= 12345;
    p[4 * CELLS] = v;
    v = v * 3 + 7;
    p[5 * CELLS] = v;
    return v;
}

// The same with a read of what was written before, and one of what will be.
__attribute__((noinline)) static uint32_t mixed(volatile int32_t *p, uint32_t v) {
    p[0] = v;
    v = v * 5 + 1;
    p[CELLS] = v;
    v ^= p[0] << 3;
    p[2 * CELLS] = v;
    p[3 * CELLS] = v + 1;
    v -= p[5 * CELLS];
    p[4 * CELLS] = v;
    v = v * 3 + 7;
    p[5 * CELLS] = v;
    return v + p[5 * CELLS];
}

static void test(const char *name, uint32_t (*f)(volatile int32_t *, uint32_t)) {
    uint32_t v = 1;
    for (int i = 0; i < ROUNDS; i++) v = f(base, v);
    printf("%s: %u\n", name, v);
    for (bad = 0; bad < WRITES; bad++) {
        for (int i = 0; i < WRITES; i++) base[i * CELLS] = 100 + i;
        mprotect((void *)(base + bad * CELLS), PAGE, bad & 1 ? PROT_READ : PROT_NONE);
        faults = 0;
        v = f(base, v);
        printf("%d: %u, %d faults, address %d, seen", bad, v, faults, right);
        for (int i = 0; i < WRITES; i++) printf(" %d", seen[i]);
        printf(", left");
        for (int i = 0; i < WRITES; i++) printf(" %d", base[i * CELLS]);
        printf("\n");
        for (int i = 0; i < ROUNDS / 100; i++) v = f(base, v);
    }
}

int main(void) {
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &sa, 0);
    sigaction(SIGBUS, &sa, 0);
    base = mmap(0, WRITES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    test("row", row);
    test("mixed", mixed);
    return 0;
}
