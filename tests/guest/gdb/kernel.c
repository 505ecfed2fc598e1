// A small kernel for tests/gdb_system.rs: PVH entry in 32-bit mode, long mode with the first 4 GiB mapped as they are and again
// at 0xffffffff80000000 (1 GiB), a timer, exceptions, a second processor in real mode. Ends by isa-debug-exit at port 0xf4.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

asm(".pushsection .note.pvh, \"a\", @note\n"
    ".align 4\n.long 4, 4, 18\n.asciz \"Xen\"\n.long start32\n"
    ".popsection\n"
    ".pushsection .text\n.code32\n.globl start32\n.type start32, @function\n"
    "start32: cli\n"
    "movl $stack + 16384, %esp\n"
    // Four directories of 2 MiB pages.
    "movl $directories, %edi\nmovl $0x83, %eax\nxorl %ecx, %ecx\n"
    "1: movl %eax, (%edi, %ecx, 8)\naddl $0x200000, %eax\nincl %ecx\ncmpl $2048, %ecx\njne 1b\n"
    "movl $directories + 3, %eax\nxorl %ecx, %ecx\n"
    "1: movl %eax, low(, %ecx, 8)\naddl $4096, %eax\nincl %ecx\ncmpl $4, %ecx\njne 1b\n"
    "movl $directories + 3, high + 510 * 8\n"
    "movl $low + 3, top\nmovl $high + 3, top + 511 * 8\n"
    "movl %cr4, %eax\norl $0x620, %eax\nmovl %eax, %cr4\n"
    "movl $top, %eax\nmovl %eax, %cr3\n"
    "movl $0xc0000080, %ecx\nrdmsr\norl $0x100, %eax\nwrmsr\n"
    ".globl enable_paging\nenable_paging: movl %cr0, %eax\norl $0x80000001, %eax\nmovl %eax, %cr0\n"
    "lgdt gdt_pointer\nljmp $8, $start64\n"
    ".code64\n.globl start64\n.type start64, @function\n"
    "start64: movl $16, %eax\nmovl %eax, %ds\nmovl %eax, %es\nmovl %eax, %ss\n"
    "xorl %ebp, %ebp\nmovl $stack + 16384, %esp\ncall kernel\n1: hlt\njmp 1b\n"
    ".align 8\ngdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
    "gdt_pointer: .word 23\n.quad gdt\n"
    // The timer's handler, and one for page faults that goes on at `resume`.
    ".globl on_timer\n.type on_timer, @function\n"
    "on_timer: incl ticks\npushq %rax\nmovb $0x20, %al\noutb %al, $0x20\npopq %rax\niretq\n"
    ".globl on_page_fault\n.type on_page_fault, @function\n"
    "on_page_fault: incl faults\naddq $8, %rsp\nmovq $resume, (%rsp)\niretq\n"
    ".popsection\n");

void on_page_fault(void);
void on_call(void);
void on_syscall(void);
asm(".pushsection .text\n"
    ".globl on_call\n.type on_call, @function\non_call: incl calls\niretq\n"
    ".globl on_syscall\n.type on_syscall, @function\non_syscall: incl calls\njmp *%rcx\n"
    ".popsection\n");

__attribute__((aligned(4096))) u64 top[512], low[512], high[512], directories[2048];
u8 stack[16384];
volatile u32 ticks, faults, calls;
volatile u64 global = 1;
volatile u64 counter;
double number = 2.5;
u8 from[256], to[256];
struct { u16 low, selector, kind, middle; u32 high, zero; } idt[256];

static void out(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static void gate(int n, void *handler) {
    u64 at = (u64)handler;
    idt[n].low = at, idt[n].selector = 8, idt[n].kind = 0x8e00, idt[n].middle = at >> 16, idt[n].high = at >> 32;
}

__attribute__((noinline)) u64 work(u64 i) {
    global += i;
    return global * 2;
}

__attribute__((noinline)) u64 outer(u64 i) { return work(i) + 1; }

// Repeated strings, a fault and changed code: what steps must get right.
extern u8 patched[], resume[], copy[];
__attribute__((noinline)) int hard(void) {
    int value = 0;
    void *src = from, *dst = to;
    u64 n = 37;
    asm volatile("copy: rep movsb\n.globl copy" : "+S"(src), "+D"(dst), "+c"(n) : : "memory");
    asm volatile("movb $7, patched + 1(%%rip)\n.globl patched\npatched: movl $1, %0" : "=a"(value) : : "memory");
    asm volatile("movabsq 0x200000000, %%rax\n.globl resume\nresume: nop" : : : "rax", "memory");
    asm volatile(".globl call\ncall: int $0x80\n.globl fast\nfast: syscall\n.globl back\nback: nop" : : : "rcx", "r11", "memory");
    return value;
}

static void set_msr(u32 number, u64 value) { asm volatile("wrmsr" : : "c"(number), "a"((u32)value), "d"(value >> 32)); }

__attribute__((noinline)) void idle(u32 until) {
    while (ticks < until) asm volatile("sti; hlt; cli");
}

__attribute__((noinline)) u64 spin(u64 n) {
    u64 sum = 0;
    asm volatile("sti");
    for (u64 i = 0; i < n; i++) asm volatile("addq %1, %0" : "+r"(sum) : "r"(i));
    asm volatile("cli");
    return sum;
}

__attribute__((noinline)) void second(void) {
    // At 0x8000: inc word [0x7f00]; jmp. INIT and startup to all others.
    const u8 code[] = {0xff, 0x06, 0x00, 0x7f, 0xeb, 0xfa};
    for (int i = 0; i < 6; i++) ((volatile u8 *)0x8000)[i] = code[i];
    volatile u32 *icr = (volatile u32 *)0xfee00300;
    icr[0] = 0xc4500;
    for (volatile int i = 0; i < 10000; i++) {}
    icr[0] = 0xc4608;
    while (*(volatile u16 *)0x7f00 == 0) {}
}

#ifndef ROUNDS
#define ROUNDS 10000
#endif

void kernel(void) {
    for (int i = 0; i < 256; i++) from[i] = i;
    gate(14, &on_page_fault);
    extern u8 on_timer[];
    gate(32, on_timer);
    gate(0x80, &on_call);
    // EFER with SCE, STAR, LSTAR.
    set_msr(0xc0000080, 0x501);
    set_msr(0xc0000081, 8ul << 32);
    set_msr(0xc0000082, (u64)&on_syscall);
    struct __attribute__((packed)) { u16 limit; void *base; } idtr = {sizeof idt - 1, idt};
    asm volatile("lidt %0" : : "m"(idtr));
    u64 sum = 0;
    for (int i = 0; i < ROUNDS; i++) sum += outer(i & 3);
    number = number * 2;
    int value = hard();
    out(0x20, 0x11), out(0x21, 32), out(0x21, 4), out(0x21, 1), out(0x21, 0xfe);
    out(0x43, 0x34), out(0x40, 0xa9), out(0x40, 4);
    idle(3);
    sum += spin(1000000);
#ifdef SECOND
    second();
    for (;;) counter++;
#endif
    int good = value == 7 && faults == 1 && calls == 2 && to[36] == 36 && to[37] == 0 && sum != 0;
    out(0xf4, good ? 3 : 4);
}
