# From real mode to a program in ring 3 of long mode and back to ring 0, by way of 32-bit protected mode.
# Loaded at 0x7c00 in real mode, with CR3 set. Each stage stores what it saw from 0x6000 on; the end is at `done`.
# as --64 boot.s -o boot.o && ld -Ttext 0x7c00 --oformat binary -o boot.bin boot.o
        .set LOG, 0x6000
        .globl _start
        .code16
_start: cli
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %ss
        movw $0x7000, %sp
        # INT 0x40 in real mode.
        movw $real_handler, 0x40*4
        movw %ax, 0x40*4+2
        movl $0x11110000, %ebx
        int $0x40
        movl %ebx, LOG
        lgdtl gdtr
        lidtl idtr32
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $0x08, $protected
real_handler:
        incl %ebx
        iretw

        .code32
protected:
        movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $0x7000, %esp
        # A 32-bit gate for INT 0x41.
        movl $gate_handler, %eax
        movw %ax, idt+0x41*8
        movw $0x08, idt+0x41*8+2
        movw $0x8e00, idt+0x41*8+4
        shrl $16, %eax
        movw %ax, idt+0x41*8+6
        movl $0x22220000, %ebx
        int $0x41
        movl %ebx, LOG+4
        # Long mode; the tables are not looked at by a machine without paging.
        movl %cr4, %eax
        orl $0x20, %eax
        movl %eax, %cr4
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x101, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80000000, %eax
        movl %eax, %cr0
        ljmpl $0x18, $long
gate_handler:
        incl %ebx
        iretl

        .code64
long:   movl $0x10, %eax
        movl %eax, %ss
        xorl %eax, %eax
        movl %eax, %ds
        movl %eax, %es
        movabsq $0x7000, %rsp
        movw $0x38, %ax
        ltr %ax
        # A 64-bit trap gate for INT 0x42 from ring 3, and an interrupt gate for #UD.
        leaq user_handler(%rip), %rax
        leaq idt+0x42*16(%rip), %rdi
        movl $0xef00, %edx
        call set_gate
        leaq fault_handler(%rip), %rax
        leaq idt+6*16(%rip), %rdi
        movl $0x8e00, %edx
        call set_gate
        lidtq idtr64(%rip)
        movl $0xc0000081, %ecx          # STAR
        movl $0x00230018, %edx          # SYSRET: 0x33, 0x2b
        xorl %eax, %eax
        wrmsr
        movl $0xc0000082, %ecx          # LSTAR
        leaq system_call(%rip), %rax
        xorl %edx, %edx
        wrmsr
        movl $0xc0000084, %ecx          # SFMASK
        movl $0x700, %eax
        wrmsr
        # To ring 3.
        pushq $0x2b
        pushq $0x6f00
        pushq $0x202
        pushq $0x33
        leaq user(%rip), %rax
        pushq %rax
        iretq
set_gate:
        movw %ax, (%rdi)
        movw $0x18, 2(%rdi)
        movw %dx, 4(%rdi)
        shrq $16, %rax
        movw %ax, 6(%rdi)
        shrq $16, %rax
        movl %eax, 8(%rdi)
        movl $0, 12(%rdi)
        ret
user:   movl $0x33330000, %ebx
        int $0x42
        movl %ebx, LOG+8
        movl $0x44440000, %ebx
        syscall
        movl %ebx, LOG+12
        movl $0x55550000, %ebx
        ud2
        movl %ebx, LOG+16
        movw %cs, LOG+20
        pushfq
        popq LOG+24
        # The last system call stays in the kernel.
        movl $0x66660000, %ebx
        syscall
user_handler:
        incl %ebx
        iretq
fault_handler:
        incl %ebx
        addq $2, (%rsp)
        iretq
system_call:
        swapgs
        incl %ebx
        cmpl $0x66660001, %ebx
        je done
        swapgs
        sysretq
done:   hlt

        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        # 0x08 32-bit code
        .quad 0x00cf93000000ffff        # 0x10 data
        .quad 0x00af9b000000ffff        # 0x18 64-bit code
        .quad 0x00cf93000000ffff        # 0x20 data behind it
        .quad 0x00cff3000000ffff        # 0x28 user data
        .quad 0x00affb000000ffff        # 0x30 64-bit user code
        .word 0x67, tss                 # 0x38 TSS
        .byte 0, 0x89, 0, 0
        .quad 0
gdtr:   .word gdtr - gdt - 1
        .long gdt
tss:    .long 0
        .quad 0x6800
        .fill 0x67 - 12, 1, 0
idtr32: .word 0x42 * 8 - 1
        .long idt
idtr64: .word 0x43 * 16 - 1
        .quad idt
        .set idt, 0x9000
