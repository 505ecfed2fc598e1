# The option ROM behind -kernel: firmware offers it as a boot device, and when it is chosen it has fw_cfg's DMA copy
# the parts of the kernel to where the board says (fw_cfg items of address, size and content) and starts it.
#
# Three kinds of kernels, by the byte at `kind`, which the board sets:
#   0  Linux, by its 16-bit boot protocol: setup code at 0x10000, command line at 0x20000
#   1  Multiboot 1 (ebx: information at 0x10000, whose memory map this ROM makes at 0x20000)
#   2  PVH (ebx: start information at 0x10000; memory map and ACPI root pointer are filled in)
#
# ./rebuild assembles it. No register is expected to survive; the stack is the firmware's until the kernel's is set.

        .code16
        .text
        .globl _start
_start:
        .word 0xaa55
        .byte (end - _start) / 512
        lret                            # initialisation: nothing to do
        .org 0x18
        .word 0                         # PCI data structure: none
        .word pnp - _start
        .org 0x1c
kind:   .byte 0

        .balign 16
pnp:    .ascii "$PnP"
        .byte 1, 2                      # revision, length in 16 bytes
        .word 0                         # next header
        .byte 0
        .byte 0                         # checksum, set by the board
        .long 0                         # device
        .word maker - _start
        .word product - _start
        .byte 0x02, 0x80, 0x00          # class: mass storage, other
        .byte 0xe4                      # may be shadowed, initial program load device
        .word 0                         # boot connection vector
        .word 0                         # disconnect vector
        .word boot - _start             # bootstrap entry vector
        .word 0
        .word 0

maker:  .asciz "tulk"
product: .asciz "kernel"

# fw_cfg: selector port, data port, DMA address port (big endian, high half first); 82 bytes and so on are its items.
        .set SELECT, 0x510
        .set DATA, 0x511
        .set DMA_HIGH, 0x514
        .set DMA_LOW, 0x518
# (address, size, content)
        .macro items name, address, size, content
        .set \name\()_ADDRESS, \address
        .set \name\()_SIZE, \size
        .set \name\()_CONTENT, \content
        .endm
        items KERNEL, 0x07, 0x08, 0x11
        items INITRD, 0x0a, 0x0b, 0x12
        items CMDLINE, 0x13, 0x14, 0x15
        items SETUP, 0x16, 0x17, 0x18
        .set ENTRY, 0x10

# eax = the 32-bit little-endian item \item
        .macro read item
        movw $\item, %ax
        call read_item
        .endm

# Copies an item to its address.
        .macro load name
        read \name\()_ADDRESS
        movl %eax, %edi
        read \name\()_SIZE
        movl %eax, %ecx
        movl $(\name\()_CONTENT << 16 | 0x0a), %ebx  # select, read
        call copy
        .endm

boot:   cli
        cld
        movw $0x3000, %ax               # a stack of our own
        movw %ax, %ss
        movl $0xfff0, %esp
        load SETUP
        load CMDLINE
        load KERNEL
        load INITRD
        cmpb $0, %cs:kind - _start
        jne protected

# Documentation/arch/x86/boot.rst, "Running the kernel".
linux:  movw $0x1000, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %fs
        movw %ax, %gs
        movw %ax, %ss
        movl $0xfff0, %esp
        ljmp $0x1020, $0

# ax = item; returns eax, changes dx, ebx.
read_item:
        movw $SELECT, %dx
        outw %ax, %dx
        movw $DATA, %dx
        movl $4, %ebx
1:      inb %dx, %al
        rorl $8, %eax
        decw %bx
        jnz 1b
        ret

# ebx = control, ecx = length, edi = address. The command is built on the stack, big endian.
copy:   testl %ecx, %ecx
        jz 2f
        bswapl %edi
        pushl %edi
        pushl $0
        bswapl %ecx
        pushl %ecx
        bswapl %ebx
        pushl %ebx
        movzwl %sp, %esi
        xorl %eax, %eax
        movw %ss, %ax
        shll $4, %eax
        addl %esi, %eax
        bswapl %eax
        pushl %eax
        movw $DMA_HIGH, %dx
        xorl %eax, %eax
        outl %eax, %dx
        popl %eax
        movw $DMA_LOW, %dx
        outl %eax, %dx
1:      movw %sp, %bp
        movl (%bp), %eax                # zero when done
        bswapl %eax
        andl $~1, %eax
        jnz 1b
        addw $16, %sp
2:      ret

protected:
# The firmware's memory map (INT 15h, E820) to 0x20000, in steps of 24 bytes. Multiboot: a size of 20, then the entry;
# PVH: the entry, then zero.
        movw $0x2000, %ax
        movw %ax, %es
        xorl %edi, %edi
        xorl %ebx, %ebx
        xorl %ebp, %ebp                 # entries
        sti
next:   movl $0, %es:20(%di)
        cmpb $1, %cs:kind - _start
        jne 1f
        movl $20, %es:(%di)
        addw $4, %di
1:      movl $0xe820, %eax
        movl $0x534d4150, %edx
        movl $20, %ecx
        int $0x15
        jc 2f
        incw %bp
        addw $20, %di
        cmpb $1, %cs:kind - _start
        je 1f
        addw $4, %di
1:      testl %ebx, %ebx
        jz 2f
        cmpw $100, %bp
        jb next
2:      cli

        movw $0x1000, %ax
        movw %ax, %ds
        cmpb $1, %cs:kind - _start
        jne pvh
        movl $24, %eax
        mull %ebp
        movl %eax, 44                   # mmap_length
        jmp enter

pvh:    movl %ebp, 48                   # memmap_entries
        movw $0xe000, %ax               # the ACPI root pointer is in the last 128 KiB below 1 MiB
1:      movw %ax, %es
        cmpl $0x20445352, %es:0         # "RSD "
        jne 2f
        cmpl $0x20525450, %es:4         # "PTR "
        je 3f
2:      incw %ax
        jnz 1b
        jmp enter
3:      movzwl %ax, %eax
        shll $4, %eax
        movl %eax, 32                   # rsdp_paddr

enter:  read ENTRY
        movl %eax, %ebp
        movb %cs:kind - _start, %cl
        movw %cs, %ax                   # the descriptor table's and the next code's linear addresses
        movzwl %ax, %eax
        shll $4, %eax
        leal gdt - _start(%eax), %ebx
        movw %ss, %dx
        movw %dx, %ds
        movl %ebx, 0xff02               # in the stack segment, above the stack's end
        movw $(gdt_end - gdt - 1), 0xff00
        lgdtl 0xff00
        addl $(flat - _start), %eax
        movl %eax, 0xff08
        movw $8, 0xff0c
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl *0xff08

        .code32
flat:   movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %fs
        movl %eax, %gs
        movl %eax, %ss
        movl $0x40000, %esp
        movl $0x10000, %ebx
        movl $0x2badb002, %eax          # what a multiboot kernel looks for
        xorl %edx, %edx
        pushl %edx
        popfl
        jmpl *%ebp

        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        # code: flat, 32 bits
        .quad 0x00cf93000000ffff        # data
gdt_end:
        .org 1023
        .byte 0                         # checksum, set by the board
end:
