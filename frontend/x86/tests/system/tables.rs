//! Descriptor tables, a task state segment and stacks for the tests of control transfers in protected mode.

use crate::machine::{Pc, gate, segment};
use tulk_base::Trap;
use tulk_x86::regs;

pub const UD: Trap = Trap::Illegal;
pub fn exception(vector: u32, code: u32) -> Trap {
    Trap::Guest { vector, code }
}
pub fn gp(code: u32) -> Trap {
    exception(13, code)
}

pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x3000;
pub const TSS2: u64 = 0x3800;
pub const LDT: u64 = 0x4000;
/// Code of the tests, and where handlers are.
pub const CODE: u64 = 0x1_0000;
pub const HANDLER: u32 = 0x2_0000;
pub const STACK0: u64 = 0x8000;
pub const STACK3: u64 = 0x9000;

// Selectors of the 32-bit tests.
pub const CODE0: u16 = 0x08;
pub const DATA0: u16 = 0x10;
pub const CODE3: u16 = 0x18 | 3;
pub const DATA3: u16 = 0x20 | 3;
pub const TASK: u16 = 0x28;
pub const LOCAL: u16 = 0x30;
pub const CODE0_16: u16 = 0x38;
pub const DATA0_16: u16 = 0x40;
pub const CONFORMING: u16 = 0x48;
pub const ABSENT_CODE: u16 = 0x50;
pub const ABSENT_DATA: u16 = 0x58;
pub const CALL_GATE: u16 = 0x60;
pub const READ_ONLY: u16 = 0x68;
pub const EXECUTE_ONLY: u16 = 0x70;
pub const TASK2: u16 = 0x78;
pub const TASK_GATE: u16 = 0x80;
pub const CALL_GATE_16: u16 = 0x88;
pub const CODE1: u16 = 0x90;
pub const DATA1: u16 = 0x98;
pub const KERNEL_GATE: u16 = 0xa0;
pub const EMPTY: u16 = 0xa8;
pub const END: u16 = 0xb0;

pub fn descriptors() -> Vec<u64> {
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
pub fn protected(level: u16) -> Pc {
    let mut c = Pc::real("Haswell");
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
    c.load_segment(regs::CS, code, all[code as usize / 8]);
    for seg in [regs::SS, regs::DS, regs::ES, regs::FS, regs::GS] {
        c.load_segment(seg, data, all[data as usize / 8]);
    }
    c.set(regs::CPL, level as u64);
    c.set(regs::RSP, if level == 3 { STACK3 } else { STACK0 - 0x100 });
    c.state.set_pc(CODE);
    c
}

/// Runs one instruction at a privilege level.
pub fn run(level: u16, code: &[u8]) -> (Pc, Result<(), Trap>) {
    let mut c = protected(level);
    c.put(CODE, code);
    let result = c.step();
    (c, result)
}

/// `opcode`, offset, selector: JMP and CALL far.
pub fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    let mut code = vec![opcode];
    code.extend(offset.to_le_bytes());
    code.extend(selector.to_le_bytes());
    code
}
pub const JMP: u8 = 0xea;
pub const CALL: u8 = 0x9a;
