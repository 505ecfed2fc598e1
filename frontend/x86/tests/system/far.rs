//! Far jumps, calls and returns, through gates too.

use crate::machine::{gate, segment};
use crate::tables::*;
use tulk_base::Trap;
use tulk_x86::regs;

#[test]
fn far_jumps_and_calls_check_code() {
    let table: &[(u16, u8, u16, Result<(), Trap>)] = &[
        (0, JMP, CODE0, Ok(())),
        (3, JMP, CODE0, Err(gp(CODE0 as u32))),
        (0, JMP, CODE3, Err(gp(CODE3 as u32 & !3))),
        (3, JMP, CODE3, Ok(())),
        (3, JMP, CONFORMING, Ok(())),
        (0, JMP, CONFORMING, Ok(())),
        (0, JMP, 0, Err(gp(0))),
        (0, JMP, DATA0, Err(gp(DATA0 as u32))),
        (0, JMP, ABSENT_CODE, Err(exception(11, ABSENT_CODE as u32))),
        (0, JMP, LOCAL, Err(gp(LOCAL as u32))),
        (0, JMP, EMPTY, Err(gp(EMPTY as u32))),
        (0, JMP, END, Err(gp(END as u32))),
        (0, JMP, TASK, Err(gp(TASK as u32))),
        (3, JMP, CALL_GATE, Err(gp(CODE0 as u32))),
        (0, JMP, CALL_GATE, Ok(())),
        (3, JMP, KERNEL_GATE, Err(gp(KERNEL_GATE as u32))),
        (0, CALL, KERNEL_GATE | 3, Err(gp(KERNEL_GATE as u32))),
        (0, CALL, CODE0, Ok(())),
        (3, CALL, CONFORMING, Ok(())),
        (3, CALL, CODE0, Err(gp(CODE0 as u32))),
    ];
    for &(level, opcode, selector, result) in table {
        let (c, got) = run(level, &far(opcode, selector, 0x2_0000));
        let at = format!("{opcode:x} {selector:#x} at {level}");
        assert_eq!(got, result, "{at}");
        if result.is_err() {
            assert_eq!(c.state.pc(), CODE, "{at}");
            continue;
        }
        assert_eq!((c.state.pc(), c.cpl()), (HANDLER as u64, level as u64), "{at}");
        let code = if selector == CALL_GATE { CODE0 } else { selector };
        assert_eq!(c.selector(regs::CS), (code & !3 | level) as u64, "{at}");
        if opcode == CALL {
            let old = if level == 3 { CODE3 } else { CODE0 };
            let top = c.get(regs::RSP);
            assert_eq!(c.stack(top, 2, 4), [CODE + 7, old as u64], "{at}");
        }
    }
}

#[test]
fn a_jump_beyond_the_limit() {
    let (_, got) = run(0, &far(JMP, CODE0_16, 0x1_0000));
    assert_eq!(got, Err(gp(0)));
    let (c, got) = run(0, &far(JMP, CODE0_16, 0xffff));
    assert_eq!((got, c.state.pc()), (Ok(()), 0x1_ffff));
}

#[test]
fn a_call_gate_changes_the_stack_and_copies_parameters() {
    let mut c = protected(3);
    c.put(CODE, &far(CALL, CALL_GATE | 3, 0xdead_beef));
    c.put32(STACK3, 0x1111);
    c.put32(STACK3 + 4, 0x2222);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl()), (HANDLER as u64, 0));
    assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (CODE0 as u64, DATA0 as u64));
    let top = c.get(regs::RSP);
    assert_eq!(top, STACK0 - 24);
    let frame = [CODE + 7, CODE3 as u64, 0x1111, 0x2222, STACK3, DATA3 as u64];
    assert_eq!(c.stack(top, 6, 4), frame);
    // retf 8
    c.put(HANDLER as u64, &[0xca, 8, 0]);
    c.load_segment(regs::ES, DATA0, segment(0, 0xf_ffff, 0xc093));
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl()), (CODE + 7, 3));
    assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (CODE3 as u64, DATA3 as u64));
    assert_eq!(c.get(regs::RSP), STACK3 + 8);
    // What only the kernel may use is gone.
    assert_eq!((c.selector(regs::ES), c.selector(regs::DS)), (0, DATA3 as u64));
}

#[test]
fn a_call_gate_of_16_bits() {
    let mut c = protected(3);
    c.put(CODE, &far(CALL, CALL_GATE_16 | 3, 0));
    c.put16(STACK3, 0x7777);
    assert_eq!(c.step(), Ok(()));
    let top = c.get(regs::RSP);
    assert_eq!((c.state.pc(), top), (0x1234, STACK0 - 10));
    let frame = [CODE as u16 as u64 + 7, CODE3 as u64, 0x7777, STACK3, DATA3 as u64];
    assert_eq!(c.stack(top, 5, 2), frame);
}

#[test]
fn inner_stacks_are_checked() {
    // Selector of SS0, TSS limit, what happens.
    for (ss, limit, trap) in [
        (0, 0x67, exception(10, 0)),
        (END, 0x67, exception(10, END as u32)),
        (DATA0 | 1, 0x67, exception(10, DATA0 as u32)),
        (DATA3 & !3, 0x67, exception(10, DATA3 as u32 & !3)),
        (CODE0, 0x67, exception(10, CODE0 as u32)),
        (ABSENT_DATA, 0x67, exception(12, ABSENT_DATA as u32)),
        (DATA0, 8, exception(10, TASK as u32)),
    ] {
        let mut c = protected(3);
        c.put32(TSS + 8, ss as u32);
        c.set(regs::TR_LIMIT, limit);
        c.put(CODE, &far(CALL, CALL_GATE | 3, 0));
        assert_eq!(c.step(), Err(trap), "{ss:x}");
        assert_eq!((c.cpl(), c.get(regs::RSP)), (3, STACK3));
        // The same of an interrupt that the processor takes has EXT set.
        c.put64(IDT + 0x20 * 8, gate(CODE0, HANDLER, 14, 0, 0));
        c.put64(IDT + 10 * 8, gate(CODE3, HANDLER + 0x10, 14, 0, 0));
        c.put64(IDT + 12 * 8, gate(CODE3, HANDLER + 0x10, 14, 0, 0));
        let Trap::Guest { code, .. } = trap else { unreachable!() };
        // Handlers at level 3 need no other stack.
        assert_eq!(c.interrupt(0x20), Ok(()));
        assert_eq!(c.state.pc(), HANDLER as u64 + 0x10);
        assert_eq!(c.peek(c.get(regs::RSP), 4), code as u64 | 1, "{ss:x}");
    }
}

#[test]
fn far_returns_are_checked() {
    // Level, CS and SS on the stack, what happens.
    let table: &[(u16, u16, u16, Result<(), Trap>)] = &[
        (0, CODE0, 0, Ok(())),
        (0, 0, 0, Err(gp(0))),
        (0, DATA0, 0, Err(gp(DATA0 as u32))),
        (3, CODE0, 0, Err(gp(CODE0 as u32))),
        (3, CONFORMING, 0, Err(gp(CONFORMING as u32))),
        (3, CONFORMING | 3, 0, Ok(())),
        (0, CODE3 & !3, 0, Err(gp(CODE3 as u32 & !3))),
        (0, CODE3, DATA3, Ok(())),
        (0, CODE3, DATA0, Err(gp(DATA0 as u32))),
        (0, CODE3, 0, Err(gp(0))),
        (0, CODE3, 3, Err(gp(0))),
        (0, CODE3, READ_ONLY | 3, Err(gp(READ_ONLY as u32))),
        (0, ABSENT_CODE, 0, Err(exception(11, ABSENT_CODE as u32))),
    ];
    for &(level, cs, ss, result) in table {
        let mut c = protected(level);
        let sp = c.get(regs::RSP);
        for (n, v) in [HANDLER, cs as u32, 0x9900, ss as u32].into_iter().enumerate() {
            c.put32(sp + 4 * n as u64, v);
        }
        c.put(CODE, &[0xcb]);
        let at = format!("{cs:x} {ss:x} at {level}");
        assert_eq!(c.step(), result, "{at}");
        match result {
            Ok(()) if cs & 3 > level => assert_eq!(c.get(regs::RSP), 0x9900, "{at}"),
            Ok(()) => assert_eq!(c.get(regs::RSP), sp + 8, "{at}"),
            Err(_) => assert_eq!((c.get(regs::RSP), c.state.pc()), (sp, CODE), "{at}"),
        }
        if result.is_ok() {
            assert_eq!((c.state.pc(), c.cpl()), (HANDLER as u64, cs as u64 & 3), "{at}");
        }
    }
}
