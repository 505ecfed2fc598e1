// Addresses with a tag in their top byte, which AArch64 ignores, and addresses that nothing can have: what is reached, and
// which address a fault names. Other machines have no tags and print what is expected.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __aarch64__
static sigjmp_buf back;
static struct { int signal, code; uint64_t address, far; } got;
static void on_fault(int s, siginfo_t *i, void *c) {
    got.signal = s, got.code = i->si_code, got.address = (uintptr_t)i->si_addr;
    got.far = ((ucontext_t *)c)->uc_mcontext.fault_address;
    siglongjmp(back, 1);
}
static int answer(int n) { return n + 2; }
#endif
static const uint64_t tag = 0x5a;

int main(void) {
    static const struct { uint64_t at, reported; } bad[] = {
        {0x8, 0x8},
        {0x5500000000000008, 0x8},
        {0xff00000000000010, 0x10},
        {0x0000800000000000, 0x0000800000000000},
        {0x0001000000000000, 0x0001000000000000},
        {0x0080000000000000, 0xff80000000000000}, // bit 55 chooses the half of the address space
        {0x00ff000000001000, 0xffff000000001000},
        {0xffff000000001000, 0xffff000000001000},
        {0xfffffffffffffff0, 0xfffffffffffffff0},
    };
    static const char *ways[] = {"load", "store", "pair", "vector", "jump"};
    char text[] = "text";
#ifdef __aarch64__
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &act, 0), sigaction(SIGBUS, &act, 0);
    prctl(55 /* PR_SET_TAGGED_ADDR_CTRL */, 1, 0, 0, 0);
    char *tagged = (char *)((uintptr_t)text | tag << 56);
    int (*call)(int) = (int (*)(int))((uintptr_t)answer | tag << 56);
    volatile char first = tagged[0];
    tagged[1] = 'E';
    int fds[2], n = pipe(fds) ? 0 : (int)write(fds[1], tagged, 4);
    printf("%c %s %d %d\n", first, text, call(40), n);
    __asm volatile("ldxr w1, [%0]\n stxr w2, w1, [%0]" ::"r"(tagged) : "x1", "x2", "memory");
#else
    text[1] = 'E';
    printf("t %s 42 4\n", text);
#endif
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int way = 0; way < 5; way++) {
            uint64_t at = bad[i].at, reported = bad[i].reported;
#ifdef __aarch64__
            if (!sigsetjmp(back, 1)) {
                if (way == 0) *(volatile char *)at;
                if (way == 1) *(volatile char *)at = 1;
                if (way == 2) __asm volatile("ldp x1, x2, [%0]" ::"r"(at) : "x1", "x2");
                if (way == 3) __asm volatile("st1 {v1.16b}, [%0]" ::"r"(at) : "memory");
                if (way == 4) ((void (*)(void))at)();
            }
            int ok = got.address == reported && got.far == reported && got.signal == SIGSEGV && got.code == 1;
            printf("%s %016llx: %d\n", ways[way], (unsigned long long)at, ok);
            memset(&got, 0, sizeof got);
#else
            printf("%s %016llx: %d\n", ways[way], (unsigned long long)at, 1);
#endif
        }
}
