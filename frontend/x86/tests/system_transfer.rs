//! Control transfers of system mode: loads of segment registers, far jumps, calls and returns, interrupts, IRET, fast
//! system calls, tasks. Expected values are the manual's (volume 2, the instructions' pseudocode; volume 3, chapters
//! 5 to 8).

mod system;

use system::{Cpu, gate, segment};
use tulk_base::{AccessKind, FaultCause, GuestVa, MemFault, Trap};
use tulk_frontend::Stop;
use tulk_x86::regs::{self, eflags};
use tulk_x86::system::{cr4, efer};

const UD: Trap = Trap::Illegal;
fn exception(vector: u32, code: u32) -> Trap {
    Trap::Guest { vector, code }
}
fn gp(code: u32) -> Trap {
    exception(13, code)
}

const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const TSS2: u64 = 0x3800;
const LDT: u64 = 0x4000;
/// Code of the tests, and where handlers are.
const CODE: u64 = 0x1_0000;
const HANDLER: u32 = 0x2_0000;
const STACK0: u64 = 0x8000;
const STACK3: u64 = 0x9000;

// Selectors of the 32-bit tests.
const CODE0: u16 = 0x08;
const DATA0: u16 = 0x10;
const CODE3: u16 = 0x18 | 3;
const DATA3: u16 = 0x20 | 3;
const TASK: u16 = 0x28;
const LOCAL: u16 = 0x30;
const CODE0_16: u16 = 0x38;
const DATA0_16: u16 = 0x40;
const CONFORMING: u16 = 0x48;
const ABSENT_CODE: u16 = 0x50;
const ABSENT_DATA: u16 = 0x58;
const CALL_GATE: u16 = 0x60;
const READ_ONLY: u16 = 0x68;
const EXECUTE_ONLY: u16 = 0x70;
const TASK2: u16 = 0x78;
const TASK_GATE: u16 = 0x80;
const CALL_GATE_16: u16 = 0x88;
const CODE1: u16 = 0x90;
const DATA1: u16 = 0x98;
const KERNEL_GATE: u16 = 0xa0;
const EMPTY: u16 = 0xa8;
const END: u16 = 0xb0;

fn descriptors() -> Vec<u64> {
    let mut all = vec![0; END as usize / 8];
    let mut put = |selector: u16, raw| all[selector as usize / 8] = raw;
    put(CODE0, segment(0, 0xf_ffff, 0xc09b));
    put(DATA0, segment(0, 0xf_ffff, 0xc093));
    put(CODE3, segment(0, 0xf_ffff, 0xc0fb));
    put(DATA3, segment(0, 0xf_ffff, 0xc0f3));
    put(TASK, segment(TSS as u32, 0x67, 0x8b));
    put(LOCAL, segment(LDT as u32, 0x0f, 0x82));
    put(CODE0_16, segment(0x1_0000, 0xffff, 0x9b));
    put(DATA0_16, segment(0x1_0000, 0xffff, 0x93));
    put(CONFORMING, segment(0, 0xf_ffff, 0xc09f));
    put(ABSENT_CODE, segment(0, 0xf_ffff, 0xc01b));
    put(ABSENT_DATA, segment(0, 0xf_ffff, 0xc013));
    put(CALL_GATE, gate(CODE0, HANDLER, 12, 3, 2));
    put(READ_ONLY, segment(0, 0xf_ffff, 0xc0f1));
    put(EXECUTE_ONLY, segment(0, 0xf_ffff, 0xc0f9));
    put(TASK2, segment(TSS2 as u32, 0x67, 0xe9));
    put(TASK_GATE, gate(TASK2, 0, 5, 3, 0));
    put(CALL_GATE_16, gate(CODE0, 0x1234, 4, 3, 1));
    put(CODE1, segment(0, 0xf_ffff, 0xc0bb));
    put(DATA1, segment(0, 0xf_ffff, 0xc0b3));
    put(KERNEL_GATE, gate(CODE0, HANDLER, 12, 0, 0));
    all
}

/// 32-bit protected mode at a privilege level, with the tables above and a task state segment.
fn protected(level: u16) -> Cpu {
    let mut c = Cpu::real("Haswell");
    let all = descriptors();
    for (n, raw) in all.iter().enumerate() {
        c.put64(GDT + 8 * n as u64, *raw);
    }
    c.protect(false);
    c.set(regs::GDTR_BASE, GDT);
    c.set(regs::GDTR_LIMIT, END as u64 - 1);
    c.set(regs::IDTR_BASE, IDT);
    c.set(regs::IDTR_LIMIT, 0x7ff);
    c.set(regs::TR, TASK as u64);
    c.set(regs::TR_BASE, TSS);
    c.set(regs::TR_LIMIT, 0x67);
    c.set(regs::TR_ATTR, 0x8b);
    c.put32(TSS + 4, STACK0 as u32);
    c.put32(TSS + 8, DATA0 as u32);
    c.put32(TSS + 12, 0x8800);
    c.put32(TSS + 16, DATA1 as u32 | 1);
    let (code, data) = if level == 3 { (CODE3, DATA3) } else { (CODE0, DATA0) };
    c.load(regs::CS, code, all[code as usize / 8]);
    for seg in [regs::SS, regs::DS, regs::ES, regs::FS, regs::GS] {
        c.load(seg, data, all[data as usize / 8]);
    }
    c.set(regs::CPL, level as u64);
    c.set(regs::RSP, if level == 3 { STACK3 } else { STACK0 - 0x100 });
    c.state.set_pc(CODE);
    c
}

/// Runs one instruction at a privilege level.
fn run(level: u16, code: &[u8]) -> (Cpu, Result<(), Trap>) {
    let mut c = protected(level);
    c.put(CODE, code);
    let result = c.step();
    (c, result)
}

/// `opcode`, offset, selector: JMP and CALL far.
fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    let mut code = vec![opcode];
    code.extend(offset.to_le_bytes());
    code.extend(selector.to_le_bytes());
    code
}
const JMP: u8 = 0xea;
const CALL: u8 = 0x9a;

// Segment registers.

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
    c.world.shut = Some((GDT >> 12, 1));
    let va = GuestVa(GDT + 0x20);
    let fault = MemFault { va, kind: AccessKind::Read, cause: FaultCause::Page(1) };
    assert_eq!(c.step(), Err(Trap::Mem(fault)));
    assert_eq!(c.selector(regs::DS), DATA0 as u64);
}

#[test]
fn unreal_mode_keeps_limits() {
    let mut c = Cpu::real("Haswell");
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
    let mut c = Cpu::real("Haswell");
    c.put(0x7c00, &[0x0f, 2, 0xd8]);
    assert_eq!(c.step(), Err(UD));
}

// Far transfers.

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
    c.load(regs::ES, DATA0, segment(0, 0xf_ffff, 0xc093));
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

// Interrupts.

#[test]
fn an_interrupt_of_real_mode() {
    let mut c = Cpu::real("Haswell");
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
    c.world.shut = Some(((STACK0 - 4) >> 12, 2));
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
        c2.world.ram.copy_from_slice(&c.world.ram);
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

// Virtual-8086 mode.

fn vm86(iopl: u32) -> Cpu {
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
    let flags = |c: &Cpu| c.flags() & (eflags::IF | eflags::VIF | eflags::IOPL);
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

// Tasks.

/// A processor whose second task is at HANDLER in ring 0.
fn tasks(level: u16) -> Cpu {
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
fn busy(c: &Cpu, selector: u16) -> bool {
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

// Long mode.

const CODE64: u16 = 0x08;
const USER32: u16 = 0x18 | 3;
const USER_DATA: u16 = 0x20 | 3;
const USER64: u16 = 0x28 | 3;
const TASK64: u16 = 0x30;
const GATE64: u16 = 0x40;
const BOTH: u16 = 0x50;
const CODE32: u16 = 0x58;
const END64: u16 = 0x60;
const IST1: u64 = 0xa000;

fn long(level: u16) -> Cpu {
    let mut c = Cpu::real("Haswell");
    for (selector, raw) in [
        (CODE64, segment(0, 0xf_ffff, 0xa09b)),
        (DATA0, segment(0, 0xf_ffff, 0xc093)),
        (USER32, segment(0, 0xf_ffff, 0xc0fb)),
        (USER_DATA, segment(0, 0xf_ffff, 0xc0f3)),
        (USER64, segment(0, 0xf_ffff, 0xa0fb)),
        (TASK64, segment(TSS as u32, 0x67, 0x8b)),
        (GATE64, gate(CODE64, HANDLER, 12, 3, 0)),
        (BOTH, segment(0, 0xf_ffff, 0xe09b)),
        (CODE32, segment(0, 0xf_ffff, 0xc09b)),
    ] {
        c.put64(GDT + (selector & !7) as u64, raw);
    }
    c.protect(true);
    c.set(regs::CR4, cr4::PAE);
    c.set(regs::GDTR_BASE, GDT);
    c.set(regs::GDTR_LIMIT, END64 as u64 - 1);
    c.set(regs::IDTR_BASE, IDT);
    c.set(regs::IDTR_LIMIT, 0xfff);
    c.set(regs::TR, TASK64 as u64);
    c.set(regs::TR_BASE, TSS);
    c.set(regs::TR_LIMIT, 0x67);
    c.set(regs::TR_ATTR, 0x8b);
    c.put64(TSS + 4, STACK0);
    c.put64(TSS + 36, IST1);
    c.put64(TSS + 44, 0x8000_0000_0000_0000);
    let (code, data) = if level == 3 { (USER64, USER_DATA) } else { (CODE64, DATA0) };
    let raw = c.peek(GDT + (code & !7) as u64, 8);
    c.load(regs::CS, code, raw);
    let raw = c.peek(GDT + (data & !7) as u64, 8);
    c.load(regs::SS, data, raw);
    c.set(regs::CPL, level as u64);
    c.set(regs::RSP, if level == 3 { STACK3 + 8 } else { 0x7f08 });
    c.state.set_pc(CODE);
    c
}

fn put_gate64(c: &mut Cpu, vector: u64, raw: u64, high: u32) {
    c.put64(IDT + 16 * vector, raw);
    c.put64(IDT + 16 * vector + 8, high as u64);
}

#[test]
fn interrupts_of_long_mode() {
    // Level, IST, stack that is used.
    for (level, ist, top) in [(3, 0, STACK0), (0, 0, 0x7f00), (3, 1, IST1), (0, 1, IST1)] {
        let mut c = long(level);
        put_gate64(&mut c, 0x80, gate(CODE64, HANDLER, 14, 3, ist), 0);
        c.put(CODE, &[0xcd, 0x80]);
        c.put(HANDLER as u64, &[0x48, 0xcf]);
        c.set_flags(0x202);
        let old = (c.selector(regs::CS), c.selector(regs::SS), c.get(regs::RSP));
        assert_eq!(c.step(), Ok(()));
        assert_eq!((c.state.pc(), c.cpl(), c.flags()), (HANDLER as u64, 0, 2));
        assert_eq!(c.get(regs::RSP), top - 40);
        assert_eq!(c.stack(top - 40, 5, 8), [CODE + 2, old.0, 0x202, old.2, old.1]);
        assert_eq!(c.selector(regs::SS), if level == 3 { 0 } else { DATA0 as u64 });
        assert_eq!(c.step(), Ok(()));
        assert_eq!((c.state.pc(), c.cpl(), c.flags()), (CODE + 2, level as u64, 0x202));
        assert_eq!((c.selector(regs::CS), c.selector(regs::SS), c.get(regs::RSP)), old);
    }
}

#[test]
fn gates_of_long_mode_are_checked() {
    const INDEX: u32 = 0x30 * 8 + 2;
    let table: &[(u64, u32, Trap)] = &[
        (gate(CODE64, HANDLER, 14, 0, 0), 0, gp(INDEX)),
        (gate(CODE64, HANDLER, 6, 3, 0), 0, gp(INDEX)),
        (gate(CODE64, HANDLER, 5, 3, 0), 0, gp(INDEX)),
        (gate(CODE64, HANDLER, 14, 3, 0) & !(1 << 47), 0, exception(11, INDEX)),
        (gate(CODE32, HANDLER, 14, 3, 0), 0, gp(CODE32 as u32)),
        (gate(BOTH, HANDLER, 14, 3, 0), 0, gp(BOTH as u32)),
        (gate(CODE64, HANDLER, 14, 3, 0), 0x1_0000, gp(0)),
        (gate(CODE64, HANDLER, 14, 3, 2), 0, exception(12, 0)),
    ];
    for (n, &(raw, high, trap)) in table.iter().enumerate() {
        let mut c = long(3);
        put_gate64(&mut c, 0x30, raw, high);
        c.put(CODE, &[0xcd, 0x30]);
        assert_eq!(c.step(), Err(trap), "row {n}");
        assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (CODE, 3, STACK3 + 8));
    }
}

#[test]
fn iretq_is_checked() {
    // CS, SS, what happens; from ring 0.
    let table: &[(u64, u16, u16, Result<(), Trap>)] = &[
        (0x1234, USER64, USER_DATA, Ok(())),
        (0x1234, USER32, USER_DATA, Ok(())),
        (0x1234, CODE64, DATA0, Ok(())),
        (0x1234, CODE64, 0, Ok(())),
        (0x1234, USER64, 0, Err(gp(0))),
        (0x1234, USER64, 3, Err(gp(0))),
        (0x1234, USER64, DATA0, Err(gp(DATA0 as u32))),
        (0x1234, CODE32, 0, Err(gp(0))),
        (0x1234, BOTH, DATA0, Err(gp(BOTH as u32))),
        (1 << 47, USER64, USER_DATA, Err(gp(0))),
        (1 << 32, USER32, USER_DATA, Err(gp(0))),
    ];
    for &(ip, cs, ss, result) in table {
        let mut c = long(0);
        let sp = c.get(regs::RSP);
        for (n, v) in [ip, cs as u64, 0x202, 0x1_2345_6788, ss as u64].into_iter().enumerate() {
            c.put64(sp + 8 * n as u64, v);
        }
        c.put(CODE, &[0x48, 0xcf]);
        let at = format!("{ip:x} {cs:x} {ss:x}");
        assert_eq!(c.step(), result, "{at}");
        if result.is_err() {
            assert_eq!((c.state.pc(), c.get(regs::RSP), c.cpl()), (CODE, sp, 0), "{at}");
            continue;
        }
        let sp = if cs == USER32 { 0x2345_6788 } else { 0x1_2345_6788 };
        assert_eq!((c.state.pc(), c.get(regs::RSP)), (ip, sp), "{at}");
        let got = (c.selector(regs::CS), c.selector(regs::SS), c.cpl(), c.flags());
        assert_eq!(got, (cs as u64, ss as u64, cs as u64 & 3, 0x202), "{at}");
    }
    let mut c = long(0);
    c.put(CODE, &[0x48, 0xcf]);
    c.set_flags(eflags::NT | 2);
    assert_eq!(c.step(), Err(gp(0)));
}

#[test]
fn far_transfers_of_long_mode() {
    // call far [rip + 0], through the gate
    let mut c = long(3);
    c.put(CODE, &[0xff, 0x1d, 0, 0, 0, 0, 0, 0, 0, 0, GATE64 as u8 | 3, 0]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (HANDLER as u64, 0, STACK0 - 32));
    let frame = [CODE + 6, USER64 as u64, STACK3 + 8, USER_DATA as u64];
    assert_eq!((c.stack(STACK0 - 32, 4, 8), c.selector(regs::SS)), (frame.to_vec(), 0));
    // retfq
    c.put(HANDLER as u64, &[0x48, 0xcb]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (CODE + 6, 3, STACK3 + 8));
    // A gate to 32-bit code, and tasks.
    let mut c = long(3);
    c.put64(GDT + GATE64 as u64, gate(CODE32, HANDLER, 12, 3, 0));
    c.put(CODE, &[0xff, 0x1d, 0, 0, 0, 0, 0, 0, 0, 0, GATE64 as u8 | 3, 0]);
    assert_eq!(c.step(), Err(gp(CODE32 as u32)));
    c.put(CODE + 10, &[TASK64 as u8, 0]);
    assert_eq!(c.step(), Err(gp(TASK64 as u32)));
}

#[test]
fn fast_system_calls() {
    let star = (0x10u64 | 3) << 48 | (CODE64 as u64) << 32;
    let ready = |model: &str, level| {
        let mut c = long(level);
        if model != "Haswell" {
            let other = Cpu::real(model);
            for slot in [regs::CHIP, regs::FEATURES[0], regs::FEATURES[1]] {
                c.set(slot, other.get(slot));
            }
            c.isa = other.isa;
        }
        c.set(regs::STAR, star);
        c.set(regs::LSTAR, HANDLER as u64);
        c.set(regs::SFMASK, 0x4_7700);
        c.put(CODE, &[0x0f, 0x05]);
        c.put(HANDLER as u64, &[0x48, 0x0f, 0x07]);
        c
    };
    let mut c = ready("Haswell", 3);
    c.set_flags(0x4_0646);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.flags()), (HANDLER as u64, 0, 0x46));
    assert_eq!((c.get(regs::RCX), c.get(regs::GPR[11])), (CODE + 2, 0x4_0646));
    assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (CODE64 as u64, DATA0 as u64));
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.flags()), (CODE + 2, 3, 0x4_0646));
    assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (0x23, 0x1b));
    // An address that is not canonical: Intel faults in the kernel.
    for (model, result) in [("Haswell", Err(gp(0))), ("EPYC", Ok(()))] {
        let mut c = ready(model, 0);
        c.put(CODE, &[0x48, 0x0f, 0x07]);
        c.set(regs::RCX, 1 << 47);
        assert_eq!(c.step(), result, "{model}");
    }
    // Not enabled; not privileged.
    let mut c = ready("Haswell", 3);
    c.set(regs::EFER, efer::LMA | efer::LME);
    assert_eq!(c.step(), Err(UD));
    let mut c = ready("Haswell", 3);
    c.state.set_pc(HANDLER as u64);
    assert_eq!(c.step(), Err(gp(0)));
    // A trap flag that SYSRET sets steps behind it.
    let mut c = ready("Haswell", 0);
    c.state.set_pc(HANDLER as u64);
    c.set(regs::RCX, 0x5000);
    c.set(regs::GPR[11], 0x302);
    assert_eq!(c.step(), Err(exception(1, 0)));
    assert_eq!((c.state.pc(), c.cpl()), (0x5000, 3));
    // SYSENTER, SYSEXITQ
    let mut c = ready("Haswell", 3);
    c.put(CODE, &[0x0f, 0x34]);
    assert_eq!(c.step(), Err(gp(0)));
    c.set(regs::SYSENTER_CS, CODE64 as u64);
    c.set(regs::SYSENTER_ESP, 0x1_0000_0000);
    c.set(regs::SYSENTER_EIP, HANDLER as u64);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (HANDLER as u64, 0, 0x1_0000_0000));
    c.put(HANDLER as u64, &[0x48, 0x0f, 0x35]);
    c.set(regs::RDX, 0x1234);
    c.set(regs::RCX, 0x5678);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.get(regs::RSP), c.cpl()), (0x1234, 0x5678, 3));
    assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (0x2b, 0x33));
    // AMD processors have no SYSENTER in long mode.
    let mut c = ready("EPYC", 3);
    c.put(CODE, &[0x0f, 0x34]);
    assert_eq!(c.step(), Err(UD));
}

#[test]
fn swapgs_and_null_stacks() {
    let mut c = long(0);
    c.set(regs::SEG_BASE[regs::GS], 1);
    c.set(regs::KERNEL_GS_BASE, 2);
    // swapgs; mov ss, eax
    c.put(CODE, &[0x0f, 0x01, 0xf8, 0x8e, 0xd0]);
    c.run_to(CODE + 5).unwrap();
    assert_eq!((c.get(regs::SEG_BASE[regs::GS]), c.get(regs::KERNEL_GS_BASE)), (2, 1));
    assert_eq!(c.selector(regs::SS), 0);
    let mut c = long(3);
    c.put(CODE, &[0x0f, 0x01, 0xf8]);
    assert_eq!(c.step(), Err(Trap::Privileged));
    // A null selector for SS is for the kernel.
    c.put(CODE, &[0x8e, 0xd0]);
    c.set(regs::RAX, 3);
    assert_eq!(c.step(), Err(gp(0)));
}

#[test]
fn from_real_mode_to_a_user_program_and_back() {
    // system/boot.s has the program.
    let program = include_bytes!("system/boot.bin");
    let hlt = |at: &u64| program[(at - 0x7c00) as usize] == 0xf4;
    for model in ["Haswell", "EPYC"] {
        let mut c = Cpu::real(model);
        c.put(0x7c00, program);
        let done = (0x7c00..0x7c00 + program.len() as u64).filter(hlt).find(|&at| {
            // Behind sysretq.
            program[(at - 0x7c00) as usize - 3..][..3] == [0x48, 0x0f, 0x07]
        });
        assert_eq!(c.run_to(done.unwrap()), Ok(()), "{model}");
        let log = c.stack(0x6000, 5, 4);
        let want = [0x1111_0001, 0x2222_0001, 0x3333_0001, 0x4444_0001, 0x5555_0001];
        assert_eq!(log, want, "{model}");
        assert_eq!((c.peek(0x6014, 2), c.peek(0x6018, 8) & !0x8d5), (0x33, 0x202), "{model}");
        assert_eq!((c.cpl(), c.get(regs::RBX)), (0, 0x6666_0001), "{model}");
    }
}
