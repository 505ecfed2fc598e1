//! Loads of segment registers, LDT and task register, and questions about selectors.

use crate::machine::{Pc, segment};
use crate::tables::*;
use tulk_base::{AccessKind, FaultCause, GuestVa, MemFault, Trap};
use tulk_x86::regs;

#[test]
fn data_segments_are_checked() {
    // Level, selector, segment register (3 DS, 2 SS), what happens.
    let table: &[(u16, u16, u8, Result<(), Trap>)] = &[
        (0, DATA0, 3, Ok(())),
        (0, 0, 3, Ok(())),
        (0, 3, 3, Ok(())),
        (3, DATA0, 3, Err(gp(DATA0 as u32))),
        (3, DATA3, 3, Ok(())),
        (0, DATA0 | 3, 3, Err(gp(DATA0 as u32))),
        (0, DATA3, 3, Ok(())),
        (3, READ_ONLY, 3, Ok(())),
        (3, EXECUTE_ONLY, 3, Err(gp(EXECUTE_ONLY as u32))),
        (3, CONFORMING, 3, Ok(())),
        (3, CODE0, 3, Err(gp(CODE0 as u32))),
        (0, CODE0, 3, Ok(())),
        (0, ABSENT_DATA, 3, Err(exception(11, ABSENT_DATA as u32))),
        (0, TASK, 3, Err(gp(TASK as u32))),
        (0, CALL_GATE, 3, Err(gp(CALL_GATE as u32))),
        (0, END, 3, Err(gp(END as u32))),
        (0, END + 0x12, 3, Err(gp(END as u32 + 0x10))),
        // No LDT.
        (0, 0x0c, 3, Err(gp(0x0c))),
        (0, 0, 2, Err(gp(0))),
        (0, 1, 2, Err(gp(0))),
        (0, DATA0, 2, Ok(())),
        (0, DATA0 | 1, 2, Err(gp(DATA0 as u32))),
        (0, DATA3, 2, Err(gp(DATA3 as u32 & !3))),
        (3, READ_ONLY | 3, 2, Err(gp(READ_ONLY as u32))),
        (0, CODE0, 2, Err(gp(CODE0 as u32))),
        (0, ABSENT_DATA, 2, Err(exception(12, ABSENT_DATA as u32))),
    ];
    for &(level, selector, seg, result) in table {
        let mut c = protected(level);
        // mov seg, ax
        c.put(CODE, &[0x8e, 0xc0 | seg << 3]);
        c.set(regs::RAX, selector as u64);
        let before = (c.selector(seg as usize), c.get(regs::SEG_ATTR[seg as usize]));
        let at = format!("{selector:#x} to {seg} at {level}");
        assert_eq!(c.step(), result, "{at}");
        let after = (c.selector(seg as usize), c.get(regs::SEG_ATTR[seg as usize]));
        match result {
            Ok(()) => assert_eq!(after.0, selector as u64, "{at}"),
            Err(_) => assert_eq!((after, c.state.pc()), (before, CODE), "{at}"),
        }
        assert_eq!(c.get(regs::SHADOW), (seg == 2 && result.is_ok()) as u64, "{at}");
    }
}

#[test]
fn loads_set_the_accessed_bit_once() {
    let mut c = protected(0);
    let fresh = segment(0x5000, 0xfff, 0x4092);
    c.put64(GDT + DATA1 as u64, fresh);
    c.put(CODE, &[0x8e, 0xd8]);
    c.set(regs::RAX, DATA1 as u64);
    assert_eq!(c.step(), Ok(()));
    assert_eq!(c.peek(GDT + DATA1 as u64, 8), fresh | 1 << 40);
    let hidden = [regs::SEG_BASE, regs::SEG_LIMIT, regs::SEG_ATTR].map(|s| c.get(s[regs::DS]));
    assert_eq!(hidden, [0x5000, 0xfff, 0x4093]);
}

#[test]
fn the_descriptor_is_read_before_anything_changes() {
    let mut c = protected(0);
    c.put(CODE, &[0x8e, 0xd8]);
    c.set(regs::RAX, DATA3 as u64);
    c.outside.shut = Some((GDT >> 12, 1));
    let va = GuestVa(GDT + 0x20);
    let fault = MemFault { va, kind: AccessKind::Read, cause: FaultCause::Page(1) };
    assert_eq!(c.step(), Err(Trap::Mem(fault)));
    assert_eq!(c.selector(regs::DS), DATA0 as u64);
}

#[test]
fn unreal_mode_keeps_limits() {
    let mut c = Pc::real("Haswell");
    c.set(regs::SEG_LIMIT[regs::DS], 0xffff_ffff);
    // mov ds, ax; mov al, [ebx]
    c.put(0x7c00, &[0x8e, 0xd8, 0x67, 0x8a, 0x03]);
    c.set(regs::RAX, 0x1000);
    c.set(regs::RBX, 0x10_0000);
    c.put(0x11_0000, &[0x5a]);
    c.run_to(0x7c05).unwrap();
    assert_eq!(c.get(regs::RAX), 0x105a);
    assert_eq!(c.get(regs::SEG_BASE[regs::DS]), 0x1_0000);
}

#[test]
fn an_ldt_and_a_task_register_are_loaded() {
    let mut c = protected(0);
    c.put64(LDT + 8, segment(0x7000, 0xff, 0x4093));
    c.put64(GDT + TASK2 as u64, segment(TSS2 as u32, 0x67, 0x89));
    // lldt ax; mov ds, bx; ltr cx; sldt dx; str si
    let code = [0x0f, 0, 0xd0, 0x8e, 0xdb, 0x0f, 0, 0xd9, 0x66, 0x0f, 0, 0xc2, 0x66, 0x0f, 0, 0xce];
    c.put(CODE, &code);
    c.set(regs::RAX, LOCAL as u64);
    c.set(regs::RBX, 0x0c);
    c.set(regs::RCX, TASK2 as u64);
    c.run_to(CODE + code.len() as u64).unwrap();
    assert_eq!((c.get(regs::LDTR_BASE), c.get(regs::LDTR_LIMIT)), (LDT, 0xf));
    assert_eq!(c.get(regs::SEG_BASE[regs::DS]), 0x7000);
    assert_eq!((c.get(regs::TR), c.get(regs::TR_BASE)), (TASK2 as u64, TSS2));
    assert_eq!((c.get(regs::RDX), c.get(regs::RSI)), (LOCAL as u64, TASK2 as u64));
    // Busy now.
    assert_eq!(c.peek(GDT + TASK2 as u64 + 5, 1), 0x8b);
    for (code, selector, trap) in [
        (0xd8, TASK2, gp(TASK2 as u32)),
        (0xd8, 0, gp(0)),
        (0xd8, LOCAL, gp(LOCAL as u32)),
        (0xd8, 0x0c, gp(0x0c)),
        (0xd0, TASK, gp(TASK as u32)),
        (0xd0, 0x0c, gp(0x0c)),
        (0xd0, END, gp(END as u32)),
    ] {
        c.put(CODE, &[0x0f, 0, code]);
        c.set(regs::RAX, selector as u64);
        c.state.set_pc(CODE);
        assert_eq!(c.step(), Err(trap), "{code:x} {selector:x}");
    }
    assert_eq!(run(3, &[0x0f, 0, 0xd0]).1, Err(Trap::Privileged));
}

#[test]
fn questions_about_selectors() {
    // Level, opcode byte, selector, ZF, value.
    let table: &[(u16, u8, u16, bool, u64)] = &[
        (0, 2, DATA0, true, 0x00cf_9300),
        (3, 2, DATA0, false, 0),
        (3, 2, DATA3, true, 0x00cf_f300),
        (0, 2, DATA0 | 3, false, 0),
        (3, 2, CONFORMING, true, 0x00cf_9f00),
        (0, 2, CALL_GATE, true, 0x0002_ec00),
        (0, 2, TASK, true, 0x0000_8b00),
        (0, 2, 0, false, 0),
        (0, 2, END, false, 0),
        (0, 2, EMPTY, false, 0),
        (0, 3, DATA0, true, 0xffff_ffff),
        (0, 3, TASK, true, 0x67),
        (0, 3, LOCAL, true, 0x0f),
        (0, 3, CALL_GATE, false, 0),
        (0, 3, TASK_GATE, false, 0),
    ];
    for &(level, opcode, selector, zf, value) in table {
        let mut c = protected(level);
        c.put(CODE, &[0x0f, opcode, 0xd8]);
        c.set(regs::RAX, selector as u64);
        assert_eq!(c.step(), Ok(()));
        let at = format!("{opcode} {selector:#x} at {level}");
        assert_eq!((c.flags() & 0x40 != 0, c.get(regs::RBX)), (zf, value), "{at}");
    }
    // verr, verw
    for (code, selector, zf) in [
        (0xe0, READ_ONLY, true),
        (0xe8, READ_ONLY, false),
        (0xe0, EXECUTE_ONLY, false),
        (0xe0, CODE3, true),
        (0xe8, CODE3, false),
        (0xe8, DATA3, true),
        (0xe0, TASK, false),
    ] {
        let mut c = protected(3);
        c.put(CODE, &[0x0f, 0, code]);
        c.set(regs::RAX, selector as u64);
        assert_eq!(c.step(), Ok(()));
        assert_eq!(c.flags() & 0x40 != 0, zf, "{code:x} {selector:x}");
    }
    let mut c = Pc::real("Haswell");
    c.put(0x7c00, &[0x0f, 2, 0xd8]);
    assert_eq!(c.step(), Err(UD));
}
