//! Interrupts, exceptions and IRET outside long mode, and the flags that rule them.

use crate::machine::{Pc, gate};
use crate::tables::*;
use tulk_base::{AccessKind, FaultCause, GuestVa, MemFault, Trap};
use tulk_frontend::Stop;
use tulk_x86::regs::{self, eflags};
use tulk_x86::system::cr4;

#[test]
fn an_interrupt_of_real_mode() {
    let mut c = Pc::real("Haswell");
    c.put32(0x21 * 4, 0x1234_5678);
    // int 0x21
    c.put(0x7c00, &[0xcd, 0x21]);
    c.put(0x1_79b8, &[0xcf]);
    c.set_flags(0x202);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.selector(regs::CS)), (0x1_79b8, 0x1234));
    assert_eq!((c.flags(), c.get(regs::RSP)), (2, 0x6ffa));
    assert_eq!(c.stack(0x6ffa, 3, 2), [0x7c02, 0, 0x202]);
    // iret
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.selector(regs::CS)), (0x7c02, 0));
    assert_eq!((c.flags(), c.get(regs::RSP)), (0x202, 0x7000));
    // A vector beyond the table is #GP, and that one is there.
    c.set(regs::IDTR_LIMIT, 0x21 * 4 + 2);
    c.put32(13 * 4, 0x9999);
    c.put(0x7c02, &[0xcd, 0x21]);
    let trap = c.step().unwrap_err();
    assert_eq!(trap, gp(0));
    assert_eq!(c.deliver(trap), Ok(()));
    // No error code, and the instruction itself.
    assert_eq!((c.state.pc(), c.stack(0x6ffa, 2, 2)), (0x9999, vec![0x7c02, 0]));
}

#[test]
fn gates_of_the_idt_are_checked() {
    // Level, gate, INT 0x30 or an interrupt from outside; what happens.
    const INDEX: u32 = 0x30 * 8 + 2;
    let table: &[(u16, u64, Trap)] = &[
        (3, gate(CODE0, HANDLER, 14, 0, 0), gp(INDEX)),
        (0, gate(CODE0, HANDLER, 14, 0, 0) & !(1 << 47), exception(11, INDEX)),
        (0, gate(CODE0, HANDLER, 12, 3, 0), gp(INDEX)),
        (0, 0, gp(INDEX)),
        (3, gate(0, HANDLER, 14, 3, 0), gp(0)),
        (3, gate(END, HANDLER, 14, 3, 0), gp(END as u32)),
        (3, gate(DATA0, HANDLER, 14, 3, 0), gp(DATA0 as u32)),
        (0, gate(CODE3, HANDLER, 14, 3, 0), gp(CODE3 as u32 & !3)),
        (3, gate(ABSENT_CODE, HANDLER, 14, 3, 0), exception(11, ABSENT_CODE as u32)),
        (3, gate(CODE0_16, 0x1_0000, 14, 3, 0), gp(0)),
        (0, gate(END, 0, 5, 3, 0), gp(END as u32)),
        (0, gate(TASK, 0, 5, 3, 0), gp(TASK as u32)),
    ];
    for (n, &(level, raw, trap)) in table.iter().enumerate() {
        let mut c = protected(level);
        c.put64(IDT + 0x30 * 8, raw);
        c.put(CODE, &[0xcd, 0x30]);
        let before = (c.get(regs::RSP), c.flags());
        assert_eq!(c.step(), Err(trap), "row {n}");
        assert_eq!((c.get(regs::RSP), c.flags(), c.state.pc()), (before.0, before.1, CODE));
    }
    let mut c = protected(0);
    c.set(regs::IDTR_LIMIT, 0x30 * 8 + 6);
    c.put(CODE, &[0xcd, 0x30]);
    assert_eq!(c.step(), Err(gp(INDEX)));
}

#[test]
fn an_interrupt_to_the_kernel_and_back() {
    for (kind, flag) in [(14, 0), (15, eflags::IF)] {
        let mut c = protected(3);
        c.put64(IDT + 0x80 * 8, gate(CODE0, HANDLER, kind, 3, 0));
        c.put(CODE, &[0xcd, 0x80]);
        c.put(HANDLER as u64, &[0xcf]);
        c.set_flags(0x202 | eflags::NT | eflags::AC | 1);
        assert_eq!(c.step(), Ok(()));
        assert_eq!((c.state.pc(), c.cpl()), (HANDLER as u64, 0));
        assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (CODE0 as u64, DATA0 as u64));
        assert_eq!(c.flags(), 2 | flag | eflags::AC | 1);
        let top = c.get(regs::RSP);
        assert_eq!(top, STACK0 - 20);
        let flags = (0x202 | eflags::NT | eflags::AC | 1) as u64;
        let frame = [CODE + 2, CODE3 as u64, flags, STACK3, DATA3 as u64];
        assert_eq!(c.stack(top, 5, 4), frame);
        assert_eq!(c.step(), Ok(()));
        assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (CODE + 2, 3, STACK3));
        assert_eq!(c.flags() as u64, flags);
    }
}

#[test]
fn an_interrupt_through_a_16_bit_gate() {
    let mut c = protected(3);
    c.put64(IDT + 0x80 * 8, gate(CODE0, 0x4321, 6, 3, 0));
    c.put(CODE, &[0xcd, 0x80]);
    assert_eq!(c.step(), Ok(()));
    let top = c.get(regs::RSP);
    assert_eq!((c.state.pc(), top), (0x4321, STACK0 - 10));
    assert_eq!(c.stack(top, 5, 2), [2, CODE3 as u64, 2, STACK3, DATA3 as u64]);
}

#[test]
fn an_exception_has_its_error_code() {
    let mut c = protected(0);
    c.put64(IDT + 14 * 8, gate(CODE0, HANDLER, 14, 0, 0));
    let sp = c.get(regs::RSP);
    let (va, kind) = (GuestVa(0x1234_5678), AccessKind::Write);
    let fault = MemFault { va, kind, cause: FaultCause::Page(2) };
    assert_eq!(c.deliver(Trap::Mem(fault)), Ok(()));
    assert_eq!(c.get(regs::CR2), 0x1234_5678);
    // A fault: RF is set in the image.
    let rf = eflags::RF as u64 | 2;
    assert_eq!(c.stack(sp - 16, 4, 4), [2, CODE, CODE0 as u64, rf]);
    assert_eq!(c.flags(), 2);
}

#[test]
fn exceptions_within_exceptions() {
    let go = |vectors: &[u64], trap| {
        let mut c = protected(0);
        for &n in vectors {
            c.put64(IDT + n * 8, gate(CODE0, HANDLER + 16 * n as u32, 14, 0, 0));
        }
        let stopped = c.deliver(trap);
        let vector = (c.state.pc().wrapping_sub(HANDLER as u64)) / 16;
        (c, stopped, vector)
    };
    let page = MemFault { va: GuestVa(5), kind: AccessKind::Read, cause: FaultCause::Page(0) };
    // #GP without a gate: #GP, so #DF with error code 0.
    let (c, stopped, vector) = go(&[8], gp(0));
    assert_eq!((stopped, vector), (Ok(()), 8));
    assert_eq!(c.peek(c.get(regs::RSP), 4), 0);
    // #UD is benign: the #GP of its missing gate is taken, with EXT.
    let (c, stopped, vector) = go(&[13, 8], UD);
    assert_eq!((stopped, vector), (Ok(()), 13));
    assert_eq!(c.peek(c.get(regs::RSP), 4), 6 * 8 + 2 + 1);
    // #PF, then #GP.
    let (_, stopped, vector) = go(&[13, 8], Trap::Mem(page));
    assert_eq!((stopped, vector), (Ok(()), 8));
    // #DE, then #PF on the IDT... is not reachable without paging; #DE, then #GP is #DF.
    let (_, _, vector) = go(&[13, 8], Trap::Arithmetic(1));
    assert_eq!(vector, 8);
    // Nothing there: shutdown.
    let (c, stopped, _) = go(&[], gp(0));
    assert_eq!((stopped, c.shut_down()), (Err(Stop::Shutdown), true));
    assert_eq!(c.state.pc(), CODE);
}

#[test]
fn a_page_fault_during_delivery_replaces_what_is_benign() {
    let mut c = protected(3);
    c.put64(IDT + 0x20 * 8, gate(CODE0, HANDLER, 14, 0, 0));
    c.put64(IDT + 14 * 8, gate(CODE3, HANDLER + 0x100, 14, 3, 0));
    // The kernel's stack cannot be written.
    c.outside.shut = Some(((STACK0 - 4) >> 12, 2));
    assert_eq!(c.interrupt(0x20), Ok(()));
    assert_eq!((c.state.pc(), c.cpl()), (HANDLER as u64 + 0x100, 3));
    assert_eq!(c.get(regs::CR2), STACK0 - 4);
    assert_eq!(c.stack(STACK3 - 16, 2, 4), [2, CODE]);
}

#[test]
fn breakpoints_single_steps_and_icebp() {
    let mut c = protected(3);
    for n in [1, 3, 4] {
        c.put64(IDT + n * 8, gate(CODE0, HANDLER + 16 * n as u32, 14, (n != 1) as u64 * 3, 0));
    }
    // int3; int1 (whatever its gate's level is); into
    for (code, vector, flags) in [(0xcc, 3, 2), (0xf1, 1, 2), (0xce, 4, 0x802)] {
        c.put(CODE, &[code]);
        c.set_flags(flags);
        let mut c2 = protected(3);
        c2.outside.ram.copy_from_slice(&c.outside.ram);
        c2.set_flags(flags);
        assert_eq!(c2.step(), Ok(()), "{code:x}");
        assert_eq!(c2.state.pc(), HANDLER as u64 + 16 * vector, "{code:x}");
        assert_eq!(c2.peek(STACK0 - 20, 4), CODE + 1);
        assert_eq!(c2.get(regs::DR[6]), 0xffff_0ff0);
    }
    // nop with TF
    c.put(CODE, &[0x90]);
    c.set_flags(eflags::TF | 2);
    let trap = c.step().unwrap_err();
    assert_eq!(c.deliver(trap), Ok(()));
    assert_eq!((c.state.pc(), c.flags()), (HANDLER as u64 + 16, 2));
    assert_eq!(c.stack(STACK0 - 20, 3, 4), [CODE + 1, CODE3 as u64, 0x102]);
    assert_eq!(c.get(regs::DR[6]), 0xffff_4ff0);
    // INT n is not stepped behind: its handler runs with TF clear.
    let mut c = protected(3);
    c.put64(IDT + 0x30 * 8, gate(CODE0, HANDLER, 14, 3, 0));
    c.put(CODE, &[0xcd, 0x30]);
    c.set_flags(eflags::TF | 2);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.peek(STACK0 - 12, 4)), (HANDLER as u64, 0x102));
}

#[test]
fn nmis_are_blocked_until_iret() {
    let mut c = protected(0);
    c.put64(IDT + 2 * 8, gate(CODE0, HANDLER, 14, 0, 0));
    c.put(HANDLER as u64, &[0xcf]);
    assert_eq!(c.nmi(), Ok(()));
    assert_eq!((c.state.pc(), c.get(regs::NMI_BLOCKED)), (HANDLER as u64, 1));
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.get(regs::NMI_BLOCKED)), (CODE, 0));
}

// Flags.

#[test]
fn flags_follow_the_privilege_level() {
    // Level, IOPL, what POPFD changes of all ones.
    let user = 0x24_4dd5u32;
    for (level, iopl, changed) in
        [(0, 0, user | eflags::IF | eflags::IOPL), (3, 0, user), (3, 3, user | eflags::IF)]
    {
        let mut c = protected(level);
        c.set_flags(2 | iopl << 12);
        let sp = c.get(regs::RSP);
        c.put32(sp, !eflags::TF);
        c.put(CODE, &[0x9d]);
        assert_eq!(c.step(), Ok(()));
        let want = (changed & !eflags::TF | 2) | iopl << 12;
        assert_eq!(c.flags(), want, "level {level}, IOPL {iopl}");
    }
    for (level, iopl, code, result, flags) in [
        (0, 0, 0xfa, Ok(()), 2),
        (3, 3, 0xfa, Ok(()), 2),
        (3, 2, 0xfa, Err(gp(0)), 0x202),
        (3, 2, 0xfb, Err(gp(0)), 0x202),
        (3, 3, 0xfb, Ok(()), 0x202),
    ] {
        let mut c = protected(level);
        c.set_flags(0x202 | iopl << 12);
        c.put(CODE, &[code]);
        assert_eq!(c.step(), result);
        assert_eq!(c.flags(), flags | iopl << 12);
    }
}

#[test]
fn sti_has_a_shadow_of_one_instruction() {
    let mut c = protected(0);
    // sti; nop; sti; nop
    c.put(CODE, &[0xfb, 0x90, 0xfb, 0x90]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.get(regs::SHADOW), c.flags()), (1, 0x202));
    assert_eq!(c.step(), Ok(()));
    assert_eq!(c.get(regs::SHADOW), 0);
    // IF was set before.
    assert_eq!(c.step(), Ok(()));
    assert_eq!(c.get(regs::SHADOW), 0);
}

#[test]
fn virtual_interrupts_of_protected_mode() {
    let mut c = protected(3);
    c.set(regs::CR4, cr4::PVI);
    c.put(CODE, &[0xfb, 0xfa]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!(c.flags(), eflags::VIF | 2);
    assert_eq!(c.step(), Ok(()));
    assert_eq!(c.flags(), 2);
    c.set_flags(eflags::VIP | 2);
    c.state.set_pc(CODE);
    assert_eq!(c.step(), Err(gp(0)));
}
