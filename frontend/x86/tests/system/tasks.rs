//! Task switches.

use crate::machine::{Pc, gate, segment};
use crate::tables::*;
use tulk_x86::regs::{self, eflags};

/// A processor whose second task is at HANDLER in ring 0.
fn tasks(level: u16) -> Pc {
    let mut c = protected(level);
    for (at, v) in [
        (0x20, HANDLER),
        (0x24, 2),
        (0x28, 0xaaaa_aaaa),
        (0x38, 0x8f00),
        (0x48, DATA0 as u32),
        (0x4c, CODE0 as u32),
        (0x50, DATA0 as u32),
        (0x54, DATA3 as u32),
        (0x60, 0),
        (0x64, 0),
    ] {
        c.put32(TSS2 + at, v);
    }
    c.set(regs::RAX, 0x1234_5678);
    c
}
fn busy(c: &Pc, selector: u16) -> bool {
    c.peek(GDT + (selector & !7) as u64 + 5, 1) & 2 != 0
}

#[test]
fn tasks_are_called_and_return() {
    for selector in [TASK2, TASK_GATE] {
        let mut c = tasks(3);
        c.put(CODE, &far(CALL, selector | 3, 0));
        c.put(HANDLER as u64, &[0xcf]);
        let selectors = (0..6).map(|seg| c.selector(seg)).collect::<Vec<_>>();
        assert_eq!(c.step(), Ok(()));
        assert_eq!((c.state.pc(), c.cpl()), (HANDLER as u64, 0));
        assert_eq!(c.get(regs::TR) & !3, TASK2 as u64);
        assert_eq!((c.get(regs::RAX), c.get(regs::RSP)), (0xaaaa_aaaa, 0x8f00));
        assert_eq!((c.selector(regs::DS), c.selector(regs::FS)), (DATA3 as u64, 0));
        assert_eq!(c.flags(), eflags::NT | 2);
        assert_eq!(c.peek(TSS2, 2), TASK as u64);
        assert!(busy(&c, TASK) && busy(&c, TASK2));
        assert_eq!(c.get(regs::CR0) & 8, 8);
        assert_eq!((c.peek(TSS + 0x20, 4), c.peek(TSS + 0x28, 4)), (CODE + 7, 0x1234_5678));
        assert_eq!(c.step(), Ok(()));
        assert_eq!((c.state.pc(), c.cpl(), c.get(regs::TR)), (CODE + 7, 3, TASK as u64));
        assert_eq!((c.get(regs::RAX), c.get(regs::RSP)), (0x1234_5678, STACK3));
        assert_eq!((0..6).map(|seg| c.selector(seg)).collect::<Vec<_>>(), selectors);
        assert!(busy(&c, TASK) && !busy(&c, TASK2));
        // Its NT was cleared when it returned.
        assert_eq!((c.flags(), c.peek(TSS2 + 0x24, 4)), (2, 2));
    }
}

#[test]
fn a_jump_leaves_the_old_task_free() {
    let mut c = tasks(3);
    c.put(CODE, &far(JMP, TASK2, 0));
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.flags(), c.peek(TSS2, 2)), (2, 0));
    assert!(!busy(&c, TASK) && busy(&c, TASK2));
}

#[test]
fn a_task_gate_takes_an_exception_with_its_code() {
    let mut c = tasks(3);
    c.put64(IDT + 13 * 8, gate(TASK2, 0, 5, 0, 0));
    assert_eq!(c.deliver(gp(0x18)), Ok(()));
    assert_eq!((c.state.pc(), c.get(regs::RSP)), (HANDLER as u64, 0x8efc));
    assert_eq!((c.peek(0x8efc, 4), c.peek(TSS + 0x20, 4)), (0x18, CODE));
    assert_eq!(c.peek(TSS + 0x24, 4), eflags::RF as u64 | 2);
}

#[test]
fn faults_of_a_new_task_are_its_own() {
    // What is wrong in its segment, and the exception.
    for (at, value, trap) in [
        (0x4c, 0, exception(10, 0)),
        (0x4c, DATA0, exception(10, DATA0 as u32)),
        (0x4c, ABSENT_CODE, exception(11, ABSENT_CODE as u32)),
        (0x50, 0, exception(10, 0)),
        (0x50, DATA3, exception(10, DATA3 as u32 & !3)),
        (0x50, ABSENT_DATA, exception(12, ABSENT_DATA as u32)),
        (0x54, CALL_GATE, exception(10, CALL_GATE as u32)),
        (0x54, ABSENT_DATA, exception(11, ABSENT_DATA as u32)),
        (0x60, DATA0, exception(10, DATA0 as u32)),
    ] {
        let mut c = tasks(3);
        c.put32(TSS2 + at, value as u32);
        c.put(CODE, &far(JMP, TASK2, 0));
        assert_eq!(c.step(), Err(trap), "{at:x} {value:x}");
        assert_eq!((c.get(regs::TR), c.state.pc()), (TASK2 as u64, HANDLER as u64));
        assert_eq!(c.get(regs::RAX), 0xaaaa_aaaa);
    }
    // And those of the old one: nothing happened.
    let mut c = tasks(3);
    c.put64(GDT + TASK2 as u64, segment(TSS2 as u32, 0x66, 0xe9));
    c.put(CODE, &far(JMP, TASK2, 0));
    assert_eq!(c.step(), Err(exception(10, TASK2 as u32)));
    assert_eq!((c.get(regs::TR), c.state.pc()), (TASK as u64, CODE));
    assert!(busy(&c, TASK) && !busy(&c, TASK2));
    // The T flag.
    let mut c = tasks(3);
    c.put32(TSS2 + 0x64, 1);
    c.put(CODE, &far(JMP, TASK2, 0));
    assert_eq!(c.step(), Err(exception(1, 1 << 15)));
    assert_eq!(c.state.pc(), HANDLER as u64);
}
