# The demonstration that `tulk system` boots when it is given nothing: a boot sector that loads the rest and greets in
# real mode, then a program in protected mode, then in long mode. Each part writes on the VGA text screen and on the
# first serial port; at the end the machine powers off by ACPI's PM1 control register.
#
# ./rebuild assembles it into demo.img, which boots from disk and floppy.

        .set COM1, 0x3f8
        .set PM1_CONTROL, 0x604         # the PIIX4's, as firmware places it
        .set SLEEP_ENABLE, 0x2000       # sleep type 0: soft off

        .code16
        .text
        .globl _start
_start: ljmp $0, $1f
1:      cli
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $_start, %sp
        sti
        cld
        movb %dl, drive
        movw $0x0003, %ax               # 80 columns, 25 lines; clears the screen
        int $0x10

        # The other sectors one by one, by cylinder, head and sector: all of them are in the first track.
        movw $rest, %bx
        movw $2, %cx
2:      movw $0x0201, %ax
        movb drive, %dl
        xorb %dh, %dh
        int $0x13
        jc 4f
        addw $512, %bx
        incw %cx
        cmpw $(SECTORS + 1), %cx
        jb 2b

        movw $real_text, %si
        call print16
        jmp rest
4:      movw $error_text, %si
        call print16
5:      hlt
        jmp 5b

# si = text: on the screen by the BIOS, and on the serial port.
print16:
        lodsb
        testb %al, %al
        jz 2f
        movb $0x0e, %ah
        movw $7, %bx
        int $0x10
        movb %al, %ah
        movw $COM1 + 5, %dx
1:      inb %dx, %al
        testb $0x20, %al
        jz 1b
        movb %ah, %al
        movw $COM1, %dx
        outb %al, %dx
        jmp print16
2:      ret

drive:  .byte 0
error_text: .asciz "cannot read the disk\r\n"

        # A partition, so that firmware takes it for a hard disk, too.
        .org 446
        .byte 0x80, 0, 2, 0, 0x7f, 0, 17, 0
        .long 1, 16
        .org 510
        .word 0xaa55

rest:   cli
        lgdtl gdt_pointer
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmp $0x08, $protected

real_text: .asciz "16 bits: real mode, booted by the firmware\r\n"

        .code32
protected:
        movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $0x7c00, %esp
        # Primes up to a million by a sieve of bytes at 1 MiB.
        movl $0x100000, %edi
        movl $1000000, %ecx
        movb $1, %al
        rep stosb
        movl $2, %ebx
1:      cmpb $0, 0x100000(%ebx)
        je 3f
        movl %ebx, %ecx
        imull %ebx, %ecx
2:      cmpl $1000000, %ecx
        jae 3f
        movb $0, 0x100000(%ecx)
        addl %ebx, %ecx
        jmp 2b
3:      incl %ebx
        cmpl $1000, %ebx
        jbe 1b
        xorl %eax, %eax
        movl $2, %ebx
4:      movzbl 0x100000(%ebx), %edx
        addl %edx, %eax
        incl %ebx
        cmpl $1000000, %ebx
        jb 4b
        movl $prime_digits + 6, %edi
        call digits
        movl $protected_text, %esi
        movl $0xb8000 + 160, %edi
        movb $0x1f, %ah
        call print

        # Long mode: the first GiB in pages of 2 MiB, tables from 0x10000 on.
        movl $0x10000, %edi
        xorl %eax, %eax
        movl $3072, %ecx
        rep stosl
        movl $0x11003, 0x10000
        movl $0x12003, 0x11000
        movl $0x12000, %edi
        movl $0x83, %eax
5:      movl %eax, (%edi)
        addl $0x200000, %eax
        addl $8, %edi
        cmpl $0x13000, %edi
        jb 5b
        movl $0x80000001, %eax
        cpuid
        btl $29, %edx
        jnc no_long_mode
        movl %cr4, %eax
        orl $0x620, %eax                # PAE, SSE
        movl %eax, %cr4
        movl $0x10000, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl %cr0, %eax
        andl $~0x4, %eax
        orl $0x80000002, %eax
        movl %eax, %cr0
        ljmpl $0x18, $long_mode

no_long_mode:
        movl $short_text, %esi
        movl $0xb8000 + 320, %edi
        movb $0x4f, %ah
        call print
        jmp off

# eax = number, edi = behind its last digit.
digits: movl $10, %ecx
1:      xorl %edx, %edx
        divl %ecx
        addb $'0', %dl
        decl %edi
        movb %dl, (%edi)
        testl %eax, %eax
        jnz 1b
        ret

# esi = text, edi = place on the screen, ah = colours.
print:  lodsb
        testb %al, %al
        jz 3f
        cmpb $' ', %al
        jb 1f
        stosw
1:      movb %al, %bl
        movl $COM1 + 5, %edx
2:      inb %dx, %al
        testb $0x20, %al
        jz 2b
        movb %bl, %al
        movl $COM1, %edx
        outb %al, %dx
        jmp print
3:      ret

off:    movl $done_text, %esi
        movl $0xb8000 + 480, %edi
        movb $0x07, %ah
        call print
        movl $PM1_CONTROL, %edx
        movl $SLEEP_ENABLE, %eax
        outw %ax, %dx
1:      hlt
        jmp 1b

        .code64
long_mode:
        # The sum of the squares of 1 to 1000, in 64 bits and in double precision.
        xorl %eax, %eax
        movl $1000, %ecx
        pxor %xmm0, %xmm0
1:      movq %rcx, %rdx
        imulq %rcx, %rdx
        addq %rdx, %rax
        cvtsi2sdq %rdx, %xmm1
        addsd %xmm1, %xmm0
        decq %rcx
        jnz 1b
        cvtsd2siq %xmm0, %rdx
        cmpq %rax, %rdx
        jne 2f
        movb $'=', equal
2:      movl $square_digits + 9, %edi
        movl $10, %ecx
3:      xorl %edx, %edx
        divq %rcx
        addb $'0', %dl
        decq %rdi
        movb %dl, (%rdi)
        testq %rax, %rax
        jnz 3b
        movl $long_text, %esi
        movl $0xb8000 + 320, %edi
        movb $0x2f, %ah
4:      lodsb
        testb %al, %al
        jz 7f
        cmpb $' ', %al
        jb 5f
        stosw
5:      movb %al, %bl
        movl $COM1 + 5, %edx
6:      inb %dx, %al
        testb $0x20, %al
        jz 6b
        movb %bl, %al
        movl $COM1, %edx
        outb %al, %dx
        jmp 4b
        # Back to 32 bits for the end.
7:      pushq $0x08
        pushq $off
        lretq

protected_text: .ascii "32 bits: protected mode, "
prime_digits: .asciz "       primes below a million\r\n"
long_text: .ascii "64 bits: long mode, squares to 1000 sum to "
square_digits: .ascii "         , in floats "
equal:  .asciz "# the same\r\n"
short_text: .asciz "64 bits: this processor has no long mode\r\n"
done_text: .asciz "tulk boots PCs: tulk system [options] DISK\r\n"

        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff
        .quad 0x00cf93000000ffff
        .quad 0x00af9b000000ffff
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt
        .set SECTORS, 4
        .org 512 * (SECTORS + 1) - 1
        .byte 0
