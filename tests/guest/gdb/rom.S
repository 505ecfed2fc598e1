// Firmware of 64 KiB for tests/gdb_steps.rs: from the reset vector through real and protected to long mode, with repeated strings,
// interrupts, system calls, faults, changed code, x87 and SSE. Ends by isa-debug-exit at port 0xf4, with 7.
//
// RAM: 0x1000 page tables, 0x4000 the IDT, 0x5000 code that changes, 0x6000 and 0x6800 strings, 0x7000 the stack's end.
.text
.set LOW, 0xf0000
rom:
.code16
start:
    cli
    xor %ax, %ax
    mov %ax, %es
    mov %ax, %ss
    mov $0x7000, %sp
    push %cs
    pop %ds
    mov $message - rom, %si
    mov $0x6000, %di
    mov $23, %cx
    rep movsb
    // int $0x21, by the vector table.
    movw $real_handler - rom, %es:0x84
    movw $0xf000, %es:0x86
    mov $5, %bx
1:  int $0x21
    dec %bx
    jnz 1b
    lgdtl gdt_pointer - rom
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $8, $protected - rom + LOW

real_handler:
    imul $3, %dx
    adc $0x77, %dl
    iret

.code32
protected:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x7000, %esp
    mov $30, %ecx
    fninit
    fld1
1:  lea 3(%eax, %ecx, 4), %ebx
    bt %ecx, %ebx
    rcl $3, %edx
    fldpi
    faddp
    fsts 0x6100
    loop 1b
    // The first 2 MiB, where everything is.
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x83, 0x3000
    mov $0x1000, %eax
    mov %eax, %cr3
    mov $0x620, %eax
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    and $0x9fffffff, %eax
    or $0x80000020, %eax
    mov %eax, %cr0
    ljmp $24, $long - rom + LOW

.code64
long:
    mov $0x7000, %esp
    // Gates of the page fault and of int $0x80.
    mov $page_fault - rom + LOW, %eax
    mov $0x4000 + 14 * 16, %edi
    call gate
    mov $interrupt - rom + LOW, %eax
    mov $0x4000 + 0x80 * 16, %edi
    call gate
    lidt idt_pointer(%rip)
    // syscall: to segment 24, and to `call`.
    mov $0xc0000080, %ecx
    rdmsr
    or $1, %eax
    wrmsr
    mov $0xc0000081, %ecx
    mov $24, %edx
    xor %eax, %eax
    wrmsr
    mov $0xc0000082, %ecx
    mov $called - rom + LOW, %eax
    xor %edx, %edx
    wrmsr
    mov $0x47700, %r11d
    mov $0xc0000084, %ecx
    mov %r11d, %eax
    wrmsr
    // mov $N, %eax; ret
    movl $0x000001b8, 0x5000
    movw $0xc300, 0x5004
    mov $40, %r15d
next:
    movd %r15d, %xmm0
    pshufd $0, %xmm0, %xmm1
    cvtdq2ps %xmm1, %xmm2
    divps %xmm2, %xmm3
    addps %xmm2, %xmm3
    cvtsi2sd %r15, %xmm4
    sqrtsd %xmm4, %xmm5
    mov $0x6000, %esi
    mov $0x6800, %edi
    mov $7, %ecx
    rep movsw
    mov $5, %ecx
    repne scasb
    int $0x80
    syscall
    mov %r15b, 0x5001
    mov $0x5000, %eax
    call *%rax
    add %rax, %r14
    movabs 0x40000000, %rax
resume:
    xor %r14, %r13
    rol $7, %r13
    popcnt %r13, %r12
    dec %r15d
    jnz next
    mov $3, %al
    out %al, $0xf4
1:  hlt
    jmp 1b

gate:
    mov %ax, (%rdi)
    movw $24, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shr $16, %eax
    mov %ax, 6(%rdi)
    ret

page_fault:
    mov %cr2, %r9
    pop %r10
    lea resume(%rip), %r8
    mov %r8, (%rsp)
    iretq

interrupt:
    inc %rbp
    iretq

called:
    add $9, %rbp
    jmp *%rcx

message: .ascii "bytes that are copied and compared"
.balign 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer: .word 39
    .long gdt - rom + LOW
idt_pointer: .word 0xfff
    .quad 0x4000

.org 0xfff0
.code16
    ljmp $0xf000, $start - rom
.org 0x10000
