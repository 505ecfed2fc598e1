// AArch64: a stack pointer that is not a multiple of 16 faults as the base of an access (SIGBUS, BUS_ADRALN, the address is SP),
// before anything else of the access goes wrong; as an operand, and as the base of a prefetch, it does not. Other machines
// have no such rule and print what is expected.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

// Every way to misalign SP, and to use it. The label 1 is the instruction that faults, x9 the aligned stack.
#define WAYS(way) \
    way(sub_imm, "sub sp, sp, #8", "1: ldr x0, [sp]") \
    way(sub_reg, "mov x1, #24\n sub sp, sp, x1", "1: str x0, [sp, #8]") \
    way(move, "sub x1, x9, #40\n mov sp, x1", "1: ldp x0, x1, [sp]") \
    way(narrow, "mov wsp, w9\n sub wsp, wsp, #1", "1: ldrb w0, [sp]") \
    way(write_back, "str x0, [sp, #-8]!", "1: ldr q0, [sp]") \
    way(post, "ldr x0, [sp], #8", "1: stp x0, x1, [sp, #-16]!") \
    way(pair_back, "stp w0, w1, [sp, #-8]!", "1: ldxr w0, [sp]") \
    way(post_reg, "mov x1, #4\n ld1 {v0.16b}, [sp], x1", "1: ld1 {v0.16b, v1.16b}, [sp]") \
    way(post_list, "ld1 {v0.8b}, [sp], #8", "1: st1 {v0.b}[3], [sp]") \
    way(logic, "orr sp, xzr, #2", "1: ldar x0, [sp]") \
    way(extended, "add sp, sp, w9, uxtb #1\n add sp, sp, #1", "1: ldr w0, [sp, x9]") \
    way(later, "sub sp, sp, #8\n prfm pldl1keep, [sp]\n mov x1, sp\n ldr x0, [x1]\n b 2f\n 2: nop", "1: ldrsw x0, [sp, #4]") \
    way(restored, "sub sp, sp, #8\n add sp, sp, #8\n ldr x0, [sp]\n sub sp, sp, #4", "1: swp x0, x0, [sp]") \
    way(unmapped, "mov x1, #0x1008\n mov sp, x1", "1: str xzr, [sp]") \
    way(exclusive, "clrex\n sub sp, sp, #8", "1: stxr w0, x1, [sp]")

#define NAME(name, misalign, use) #name,
static const char *const names[] = {WAYS(NAME)};
enum { COUNT = sizeof names / sizeof *names };

#ifdef __aarch64__
static sigjmp_buf back;
static struct { int signal, code; uint64_t address, sp, pc; } got;
static void on_fault(int s, siginfo_t *i, void *c) {
    mcontext_t *m = &((ucontext_t *)c)->uc_mcontext;
    got.signal = s, got.code = i->si_code, got.address = (uintptr_t)i->si_addr, got.sp = m->sp, got.pc = m->pc;
    siglongjmp(back, 1);
}
#define FUNCTION(name, misalign, use) \
    extern const char at_##name[]; \
    __attribute__((noinline)) static void do_##name(void) { \
        __asm volatile(".arch armv8.1-a\n mov x9, sp\n" misalign "\n.globl at_" #name "\nat_" #name ":\n" use "\n mov sp, x9" ::: "x0", "x1", "x2", "x9", "v0", "v1", "memory"); \
    }
WAYS(FUNCTION)
#define ENTRY(name, misalign, use) {do_##name, at_##name},
static const struct { void (*run)(void); const char *at; } ways[] = {WAYS(ENTRY)};

// A frame that returns to a misaligned SP; then the handler of the fault repairs it.
static void misalign(int s, siginfo_t *i, void *c) { ((ucontext_t *)c)->uc_mcontext.sp -= 8; }
static volatile int repaired;
static void repair(int s, siginfo_t *i, void *c) {
    repaired += s == SIGBUS;
    ((ucontext_t *)c)->uc_mcontext.sp += 8;
}
#endif

// Frames of odd sizes move SP by registers; nothing faults.
__attribute__((noinline)) static int odd(int n) {
    volatile char bytes[n * 7 + 1];
    bytes[0] = n, bytes[n * 7] = 1;
    return n == 0 ? 0 : bytes[0] + odd(n - 1);
}

int main(void) {
    int sum = 0;
    for (int n = 0; n < 300; n++) sum += odd(n % 50);
    printf("%d\n", sum);
#ifdef __aarch64__
    static char stack[1 << 16];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alt, 0);
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGBUS, &act, 0), sigaction(SIGSEGV, &act, 0);
#endif
    // Each way as the first that misaligns SP: a child starts as the parent is, which never did.
    for (int n = 0; n < COUNT; n++) {
        int status = 0;
        volatile int ok = 1;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
#ifdef __aarch64__
            for (volatile int round = 0; round < 3; round++)
                if (!sigsetjmp(back, 1)) ways[n].run(), ok = 0;
                else ok &= got.signal == SIGBUS && got.pc == (uintptr_t)ways[n].at;
#endif
            _exit(ok);
        }
        waitpid(child, &status, 0);
        printf("first %s: %d\n", names[n], WIFEXITED(status) && WEXITSTATUS(status) == 1);
    }
    for (int round = 0; round < 60; round++)
        for (int n = 0; n < COUNT; n++) {
            int ok = 1;
#ifdef __aarch64__
            memset(&got, 0, sizeof got);
            if (!sigsetjmp(back, 1)) ways[n].run();
            ok = got.signal == SIGBUS && got.code == BUS_ADRALN && got.address == got.sp && got.sp % 16 && got.pc == (uintptr_t)ways[n].at;
            if (!ok) printf("signal %d code %d address %#lx sp %#lx pc %#lx not %p\n", got.signal, got.code, got.address, got.sp, got.pc, ways[n].at);
#endif
            if (!ok || round == 59) printf("%s: %d\n", names[n], ok);
        }
#ifdef __aarch64__
    act.sa_sigaction = misalign, sigaction(SIGUSR1, &act, 0);
    act.sa_sigaction = repair, sigaction(SIGBUS, &act, 0);
    for (int n = 0; n < 20; n++)
        __asm volatile("mov x8, #178\n svc #0\n mov x2, x0\n mov x8, #172\n svc #0\n mov x1, x2\n mov x2, %0\n mov x8, #131\n svc #0\n ldr x3, [sp]" ::"r"((long)SIGUSR1) : "x0", "x1", "x2", "x3", "x8", "memory");
    printf("repaired %d\n", repaired);
#else
    printf("repaired 20\n");
#endif
}
