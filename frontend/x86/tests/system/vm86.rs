//! Virtual-8086 mode.

use crate::machine::{Pc, gate};
use crate::tables::*;
use tulk_x86::regs::{self, eflags};
use tulk_x86::system::cr4;

fn vm86(iopl: u32) -> Pc {
    let mut c = protected(0);
    let sp = c.get(regs::RSP);
    let flags = eflags::VM | iopl << 12 | 0x202;
    let frame = [0x100, 0x2000, flags, 0x800, 0x3000, 0x11, 0x22, 0x33, 0x44];
    for (n, v) in frame.into_iter().enumerate() {
        c.put32(sp + 4 * n as u64, v);
    }
    c.put(CODE, &[0xcf]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (0x2_0100, 3, 0x800));
    let selectors: Vec<_> = (0..6).map(|seg| c.selector(seg)).collect();
    assert_eq!(selectors, [0x11, 0x2000, 0x3000, 0x22, 0x33, 0x44]);
    assert_eq!(c.get(regs::SEG_BASE[regs::GS]), 0x440);
    assert_eq!(c.flags(), flags);
    c
}

#[test]
fn virtual_8086_mode_is_left_by_interrupts() {
    let mut c = vm86(3);
    c.put64(IDT + 0x80 * 8, gate(CODE0, HANDLER, 14, 3, 0));
    c.put(0x2_0100, &[0xcd, 0x80]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl()), (HANDLER as u64, 0));
    assert_eq!(c.flags(), 2 | eflags::IOPL);
    let top = c.get(regs::RSP);
    assert_eq!(top, STACK0 - 36);
    let flags = (eflags::VM | eflags::IOPL | 0x202) as u64;
    let frame = [0x102, 0x2000, flags, 0x800, 0x3000, 0x11, 0x22, 0x33, 0x44];
    assert_eq!(c.stack(top, 9, 4), frame);
    assert_eq!([0, 3, 4, 5].map(|seg| c.selector(seg)), [0; 4]);
    // Only ring 0 may take it.
    let mut c = vm86(3);
    c.put64(IDT + 0x80 * 8, gate(CODE1, HANDLER, 14, 3, 0));
    c.put(0x2_0100, &[0xcd, 0x80]);
    assert_eq!(c.step(), Err(gp(CODE1 as u32)));
}

#[test]
fn virtual_8086_mode_without_io_privilege() {
    // int 0x21, iret, pushf, popf, cli, sti; int3 is not held back.
    for code in [&[0xcd, 0x21][..], &[0xcf], &[0x9c], &[0x9d], &[0xfa], &[0xfb]] {
        let mut c = vm86(0);
        c.put(0x2_0100, code);
        assert_eq!(c.step(), Err(gp(0)), "{code:x?}");
        assert_eq!(c.get(regs::RSP), 0x800);
    }
    let mut c = vm86(0);
    c.put64(IDT + 3 * 8, gate(CODE0, HANDLER, 14, 3, 0));
    c.put(0x2_0100, &[0xcc]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!(c.state.pc(), HANDLER as u64);
}

#[test]
fn virtual_8086_mode_extensions() {
    let start = |iopl| {
        let mut c = vm86(iopl);
        c.set(regs::CR4, cr4::VME);
        c.set(regs::TR_LIMIT, 0x100);
        // The bitmap ends where the I/O map starts.
        c.put16(TSS + 0x66, 0x88);
        c.put32(0x21 * 4, 0x4000_0010);
        c.put64(IDT + 0x22 * 8, gate(CODE0, HANDLER, 14, 3, 0));
        // 0x22 is not redirected.
        c.put(TSS + 0x68 + 4, &[4]);
        c
    };
    let flags = |c: &Pc| c.flags() & (eflags::IF | eflags::VIF | eflags::IOPL);
    // int 0x21
    let mut c = start(0);
    c.put(0x2_0100, &[0xcd, 0x21]);
    c.set_flags(c.flags() | eflags::VIF);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (0x4_0010, 3, 0x7fa));
    assert_eq!(c.stack(0x3_07fa, 3, 2), [0x102, 0x2000, 0x3202]);
    assert_eq!(flags(&c), eflags::IF);
    // iret
    c.put(0x4_0010, &[0xcf]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.get(regs::RSP)), (0x2_0102, 0x800));
    assert_eq!(flags(&c), eflags::IF | eflags::VIF);
    // pushf, cli, popf
    c.put(0x2_0102, &[0x9c, 0xfa, 0x9d]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!(c.peek(0x3_07fe, 2), 0x3202);
    assert_eq!(c.step(), Ok(()));
    assert_eq!(flags(&c), eflags::IF);
    assert_eq!(c.step(), Ok(()));
    assert_eq!(flags(&c), eflags::IF | eflags::VIF);
    // With I/O privilege IF itself is used, and the image has neither NT nor IOPL.
    let mut c = start(3);
    c.put(0x2_0100, &[0xcd, 0x21]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.peek(0x3_07fe, 2), flags(&c)), (0x202, eflags::IOPL));
    for (iopl, result) in [(0, Err(gp(0))), (3, Ok(()))] {
        let mut c = start(iopl);
        c.put(0x2_0100, &[0xcd, 0x22]);
        assert_eq!(c.step(), result);
    }
}
