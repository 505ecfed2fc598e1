// Bytes as code: undefined and privileged instructions, wrong prefixes, instructions that are too long or end on a page
// that is not there, jumps into the middle, code that changes what comes next.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
#define IP REG_RIP
#define AX REG_RAX
#define WIDE 1
#else
#define IP REG_EIP
#define AX REG_EAX
#define WIDE 0
#endif

#define PAGE 4096
static unsigned char *code, *data; // two pages, and one that is not there; below 4 GiB
static sigjmp_buf back;

static void place(char *text, uintptr_t at) {
    if (at >= (uintptr_t)code && at < (uintptr_t)code + 4 * PAGE) sprintf(text, "code+%#lx", (long)(at - (uintptr_t)code));
    else if (at >= (uintptr_t)data && at < (uintptr_t)data + PAGE) sprintf(text, "data+%#lx", (long)(at - (uintptr_t)data));
    else sprintf(text, "%#lx", (long)at);
}
static void report(int sig, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    char at[40], pc[40];
    place(at, (uintptr_t)info->si_addr);
    place(pc, r[IP]);
    printf("signal %d code %d address %s pc %s trap %d error %#lx ax %#x\n", sig, info->si_code, at, pc, (int)r[REG_TRAPNO], (long)r[REG_ERR],
           (unsigned)r[AX] == (unsigned)(uintptr_t)data ? 1 : (unsigned)r[AX]);
    siglongjmp(back, 1);
}
// Runs from `at`; rax points to data, so do rsi and rdi.
static void run(unsigned char *at) {
    if (sigsetjmp(back, 1)) return;
#ifdef __x86_64__
    asm volatile("call *%0" ::"r"(at), "a"(data), "S"(data), "D"(data), "c"(0x10), "d"(0x80) : "memory", "cc", "r8", "r9", "r10", "r11");
#else
    asm volatile("call *%0" ::"b"(at), "a"(data), "S"(data), "D"(data), "c"(0x10), "d"(0x80) : "memory", "cc");
#endif
    puts("returns");
}

static int hex(const char *text, unsigned char *out) {
    int n = 0, used;
    unsigned byte;
    while (sscanf(text, "%2x%n", &byte, &used) == 1) out[n++] = byte, text += used;
    return n;
}
static const char *const instructions[] = {
    // Privileged.
    "f4", "fa", "fb", "0f 06", "0f 08", "0f 09", "0f 30", "0f 32", "0f 33", "0f 20 c0", "0f 22 c0", "0f 20 d8", "0f 22 d8", "0f 21 c0", "0f 23 f8",
    "0f 01 10", "0f 01 18", "0f 01 38", "0f 01 f0", "0f 00 d0", "0f 00 d8", "0f 01 d1", "e4 80", "e6 80", "e5 80", "e7 80", "ec", "ee", "ed", "ef",
    "6c", "6d", "6e", "6f", "f3 6c", "f3 6e", "0f 35", "0f 07", "cf ",
    // Undefined.
    "0f 0b", "0f b9 c0", "0f ff c0", "0f b9 00", "0f 04", "0f 0a", "0f 0c", "0f 24 c0", "0f 26 c0", "0f 36", "0f 39", "0f 7a c0", "0f a6 00", "0f a7 00",
    "0f aa", "fe f8", "fe d0", "ff f8", "ff ff", "8f c8", "8f 48 00", "c6 c8 00", "c7 c8 00 00 00 00", "0f ba c0 00", "0f ba d8 01", "0f c7 c0", "0f c7 c8",
    "0f 71 00 01", "0f 72 c0 01", "0f 73 c0 01", "66 0f 73 c0 01", "0f 13 c0", "0f 17 c0", "0f 16 00", "0f 2b c0", "0f 50 00", "0f e7 c0", "66 0f e7 c0", "0f c3 c0",
    "0f f7 00", "0f d7 00", "0f c5 00 00", "66 0f d6 c0", "f2 0f d6 00", "f3 0f d6 00", "0f d6 00", "f2 0f f0 c0", "0f f0 00", "0f 38 0c c0", "0f 38 3f c0",
    "0f 3a 01 c0 00", "0f 3a 63 c0 00", "0f 01 c0", "0f 01 d2", "0f 01 fd", "f3 0f b8 c0", "0f b8 c0", "f3 0f ae f8", "0f ae 18", "0f ae d0", "0f 1b c0",
    "8d c0", "c4 c0", "c5 c0", "62 c0", "0f b2 c0", "0f b4 c0", "0f b5 c0", "f6 c8 01", "d0 f0", "d9 d1", "d9 e2", "d9 e6", "db e5", "db e8 ", "dd e8", "de d8", "df e0", "df e8",
    "da e8", "da e0", "db fe", "dd c8", "de d1", "df d0", "8c f0", "8e c8", "8c f8", "8e f8",
    // LOCK where it may not be.
    "f0 90", "f0 01 c0", "f0 01 00", "f0 03 00", "f0 39 00", "f0 85 00", "f0 89 00", "f0 87 00", "f0 87 c0", "f0 f7 d0", "f0 f7 10", "f0 0f a3 00", "f0 0f ab 00",
    "f0 0f c1 00", "f0 0f c1 c0", "f0 0f c7 08", "f0 a4", "f0 0f b1 00", "f0 0f b1 c0", "f0 ff 30", "f0 ff 00", "f0 0f 58 c0", "f0 0f 0b", "f0 0f ba 38 01", "f0 0f ba 20 01",
    // VEX with a prefix before it, with fields that must be ones, with the wrong length.
    "66 c5 f8 58 c0", "f2 c5 f8 58 c0", "f3 c5 f8 58 c0", "f0 c5 f8 58 c0", "c5 f8 58 c0", "c5 f8 28 c0", "c5 f0 28 c0", "c5 fc 77", "c5 f8 77", "c5 f0 77", "c5 f8 77",
    "c4 e1 f8 58 c0", "c4 e0 78 58 c0", "c4 e4 78 58 c0", "c4 e2 7d 5a c0", "c4 e2 7d 5a 00", "c4 e2 79 5a 00", "c4 e2 7d 18 00", "c4 e3 79 19 c0 00", "c4 e3 7d 19 c0 00",
    "c5 f8 10 c0", "c5 f2 10 00", "c5 f2 10 c0", "c5 fa 11 00", "c5 f2 11 00", "c5 f8 ae 10", "c5 f9 ae 10", "c5 fc ae 10", "c4 e2 78 f2 c0", "c4 e2 7c f2 c0", "c4 e2 f8 f3 c0", "c4 e2 78 f3 c8",
    "c4 e2 79 92 04 00", "c4 e2 79 90 00", "c4 e2 f9 f7 c0", "c4 e2 fb f6 c0",
    // Prefixes that are ignored, repeated, in odd order.
    "66 66 90", "f3 f2 90", "f2 f3 90", "2e 90", "3e 64 65 90", "67 90", "66 f2 0f 58 c0", "f2 66 0f 58 c0", "f2 f3 0f 58 c0", "f3 f2 0f 58 c0", "66 f3 0f 12 c0", "f2 0f 90 c0", "f3 0f 05 90",
#ifdef __x86_64__
    "48 66 90", "48 48 90", "66 48 90", "40 0f 0b", "48 f0 01 00", "48 c5 f8 58 c0", "06", "07", "0e", "16", "17", "1e", "1f", "27", "2f", "37", "3f", "60", "61", "82 00 00", "9a 00 00 00 00 00 00",
    "ce", "d4 0a", "d5 0a c0", "d6", "ea 00 00 00 00 00 00", "48 0f 06", "0f 01 f8", "41 0f 20 c0", "44 0f 20 c0", "44 0f 20 c8",
#else
    "0f 05", "0f 01 f8", "48", "40 90", "d6", "9b", "37", "d4 00", "d4 0a", "c5 78 28 c0", "c4 61 78 28 c0", "c4 41 78 28 c0", "c5 78 00 00", "67 8b 00", "67 a1 00 00", "62 00", "63 c0", "0f 02 c0", "0f 03 c0",
#endif
};

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    code = mmap((void *)0x20000000, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    data = mmap((void *)0x28000000, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    static char stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&ss, 0);
    struct sigaction sa = {.sa_sigaction = report, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    int all[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (int i = 0; i < 5; i++) sigaction(all[i], &sa, 0);

    for (unsigned i = 0; i < sizeof instructions / sizeof *instructions; i++) {
        memset(code, 0xcc, 256);
        memset(data, 0, PAGE);
        printf("%s: ", instructions[i]);
        hex(instructions[i], code + 64);
        run(code + 64);
    }

    // Lengths: 15 bytes are the most, wherever they are.
    unsigned char *end = code + 2 * PAGE;
    for (int prefixes = 12; prefixes <= 16; prefixes++) {
        for (int beyond = -1; beyond < 3; beyond++) {
            // So many bytes of the instruction are on the page that is not there.
            unsigned char *at = beyond < 0 ? code + 64 : end - (prefixes + 1 - beyond);
            memset(code, 0xcc, 2 * PAGE);
            for (unsigned char *p = at; p < at + prefixes + 1 && p < end; p++) *p = p == at + prefixes ? 0x90 : 0x66;
            printf("%d prefixes, %d bytes beyond: ", prefixes, beyond);
            run(at);
        }
    }
    // The operand, the displacement, the immediate are beyond; 11 bytes with them.
    static const unsigned char wide[] = {0xc7, 0x84, 0x00, 0x10, 0x00, 0x00, 0x00, 0x44, 0x33, 0x22, 0x11};
    for (int here = 1; here <= (int)sizeof wide; here++) {
        memset(code, 0xcc, 2 * PAGE);
        memcpy(end - here, wide, here);
        printf("%d bytes of an instruction: ", here);
        run(end - here);
    }
    // On a page that may be read but not executed, and over its start.
    mprotect(code + PAGE, PAGE, PROT_READ);
    for (int here = 0; here < 4; here++) {
        mprotect(code + PAGE, PAGE, PROT_READ | PROT_WRITE);
        memset(code, 0x90, 2 * PAGE);
        memcpy(code + PAGE - here, "\x05\x01\x00\x00\x00", 5); // add eax, 1
        mprotect(code + PAGE, PAGE, PROT_READ);
        printf("%d bytes before data: ", here);
        run(code + PAGE - here - 2);
    }
    mprotect(code, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);

    // Into the middle: the same bytes, each as a start.
    static const unsigned char mixed[] = {0xb8, 0x05, 0x01, 0x00, 0x00, 0x00, 0x90, 0x66, 0xb8, 0x40, 0x3c, 0x05, 0xeb, 0x01, 0x0f, 0x0b, 0x31, 0xc0, 0x0f, 0xc8, 0xcc};
    for (int round = 0; round < 3; round++) {
        for (unsigned start = 0; start < 17; start++) {
            memset(code, 0xcc, 256);
            memcpy(code + 64, mixed, sizeof mixed);
            if (round == 0) printf("from byte %u: ", start);
            if (round == 0) run(code + 64 + start);
        }
    }
    // A jump over its own middle and back, many times: a loop in two readings of the same bytes.
    // mov ecx, 300; 1: mov eax, 0x04eb01b0 -> as code at +1: mov al, 1; jmp +4
    static const unsigned char twice[] = {0xb9, 0x2c, 1, 0, 0, 0x31, 0xdb, 0xb8, 0xb0, 0x01, 0xeb, 0x05, 0x01, 0xc3, 0x49, 0x75, 0xf5, 0xcc, 0x90};
    memset(code, 0xcc, 256);
    memcpy(code + 64, twice, sizeof twice);
    if (!WIDE) {
        printf("twice: ");
        run(code + 64);
    }

    // What rewrites the next instruction, so many bytes ahead.
    for (int ahead = 0; ahead < 24; ahead++) {
        memset(code, 0x90, 256);
        // mov byte [rip/absolute], 0x40-like change of an immediate: mov eax, 1 becomes mov eax, 7.
        unsigned char *p = code + 64;
        unsigned char *target = p + 7 + ahead;
        *p++ = 0xc6, *p++ = 0x80 | 6; // mov byte [esi + disp32], imm8; esi is data
        int disp = (int)(target + 1 - data);
        memcpy(p, &disp, 4);
        p[4] = 7;
        target[0] = 0xb8, target[1] = 1, target[2] = target[3] = target[4] = 0, target[5] = 0xcc;
        for (int round = 0; round < (ahead == 0 ? 300 : 1); round++) {
            target[1] = 1;
            if (round == 0) printf("%d ahead: ", ahead), run(code + 64);
        }
    }
    // A string instruction over the code that follows.
    static const unsigned char fill[] = {0xb9, 0x20, 0, 0, 0, 0xb0, 0x40, 0xf3, 0xaa};
    for (int at = 6; at < 12; at += 3) {
        memset(code, 0xcc, 256);
        unsigned char *p = code + 64;
        *p++ = 0xbf; // mov edi, the code
        unsigned to = (unsigned)(uintptr_t)(code + 64 + 5 + sizeof fill - 4 + at);
        memcpy(p, &to, 4);
        memcpy(p + 4, fill, sizeof fill);
        if (at < 4) p[4 + 1] = 4 - at + 8;
        p[4 + 6] = 0x90;
        printf("filled from %d: ", at - 4);
        run(code + 64);
        for (int i = 60; i < 90; i++) printf("%02x", code[i]);
        puts("");
    }
    // A loop that counts in its own immediate, 2000 times: add byte [code], 1 before the instruction it changes.
    {
        memset(code, 0xcc, 256);
        unsigned char *p = code + 64;
        static const unsigned char start[] = {0xb9, 0xd0, 7, 0, 0, 0x31, 0xd2};
        memcpy(p, start, sizeof start), p += sizeof start;
        unsigned char *loop = p;
        *p++ = 0x80, *p++ = 0x86; // add byte [esi + disp32], 1
        int disp = (int)(loop + 8 - data);
        memcpy(p, &disp, 4), p += 4;
        *p++ = 1;
        *p++ = 0xb8, *p++ = 0, *p++ = 0, *p++ = 0, *p++ = 0; // mov eax, imm
        *p++ = 0x01, *p++ = 0xc2;                            // add edx, eax
        *p++ = 0x83, *p++ = 0xe9, *p++ = 1;                  // sub ecx, 1
        p[0] = 0x75, p[1] = (unsigned char)(loop - (p + 2)), p += 2;
        *p++ = 0x89, *p++ = 0xd0, *p++ = 0xcc; // mov eax, edx
        printf("own immediate: ");
        run(code + 64);
    }
    return 0;
}
