//! Branches and exception generation: chapter C6 of the manual.
//!
//! Every branch ends the block; regions are formed later along the exits.

use super::decode::Insn;
use super::lifter::{Cond, Lifter};
use super::regs;
use tulk_ir::{ExitKind, IntCc, Type};

/// The low `bits` of `value` as a signed word offset, in bytes.
fn words(value: u32, bits: u32) -> u64 {
    ((((value << (32 - bits)) as i32) >> (32 - bits)) as i64 * 4) as u64
}

fn target(l: &Lifter<'_>, offset: u64) -> u64 {
    l.pc.wrapping_add(offset)
}

/// B label
pub fn b(l: &mut Lifter<'_>, i: Insn) {
    let to = target(l, words(i.imm26(), 26));
    l.exit_to(to);
}

/// BL label
pub fn bl(l: &mut Lifter<'_>, i: Insn) {
    let to = target(l, words(i.imm26(), 26));
    let next = l.pc.wrapping_add(4);
    l.set_known(30, next);
    l.exit_call(to, next);
}

/// CBZ Rt, label
pub fn cbz(l: &mut Lifter<'_>, i: Insn) {
    compare_and_branch(l, i, IntCc::Eq);
}

/// CBNZ Rt, label
pub fn cbnz(l: &mut Lifter<'_>, i: Insn) {
    compare_and_branch(l, i, IntCc::Ne);
}

fn compare_and_branch(l: &mut Lifter<'_>, i: Insn, cc: IntCc) {
    let to = target(l, words(i.imm19(), 19));
    let value = l.r(i.sf(), i.rt());
    let cond = l.icmp_imm(cc, value, 0);
    l.branch_if(Cond::If(cond), to);
}

/// TBZ Rt, #bit, label
pub fn tbz(l: &mut Lifter<'_>, i: Insn) {
    test_and_branch(l, i, IntCc::Eq, IntCc::GeS);
}

/// TBNZ Rt, #bit, label
pub fn tbnz(l: &mut Lifter<'_>, i: Insn) {
    test_and_branch(l, i, IntCc::Ne, IntCc::LtS);
}

/// `sign` is the comparison that does it for the top bit.
fn test_and_branch(l: &mut Lifter<'_>, i: Insn, cc: IntCc, sign: IntCc) {
    let to = target(l, words(i.imm14(), 14));
    let bit = i.b5() << 5 | i.b40();
    let cond = match bit {
        31 | 63 => {
            let value = l.r(i.b5(), i.rt());
            l.icmp_imm(sign, value, 0)
        }
        _ => {
            let value = l.x(i.rt());
            let masked = l.and_imm(value, 1 << bit);
            l.icmp_imm(cc, masked, 0)
        }
    };
    l.branch_if(Cond::If(cond), to);
}

/// B.cond label
pub fn b_cond(l: &mut Lifter<'_>, i: Insn) {
    let to = target(l, words(i.imm19(), 19));
    let cond = l.cond(i.bcond());
    l.branch_if(cond, to);
}

/// BR Xn
pub fn br(l: &mut Lifter<'_>, i: Insn) {
    let to = l.x(i.rn());
    l.exit_indirect(ExitKind::Jump, to, None, None);
}

/// BLR Xn
pub fn blr(l: &mut Lifter<'_>, i: Insn) {
    let to = l.x(i.rn());
    let next = l.pc.wrapping_add(4);
    l.set_known(30, next);
    l.exit_indirect(ExitKind::Call, to, Some(next), None);
}

/// RET Xn
pub fn ret(l: &mut Lifter<'_>, i: Insn) {
    let to = l.x(i.rn());
    l.exit_indirect(ExitKind::Return, to, None, None);
}

/// SVC #imm. The return from the exception clears the exclusive monitor.
pub fn svc(l: &mut Lifter<'_>, i: Insn) {
    let none = l.iconst(Type::I64, -1);
    l.set(regs::EXCL_ADDR, none);
    let next = l.pc.wrapping_add(4);
    l.trap(ExitKind::Syscall, i.imm16(), next);
}

/// BRK #imm
pub fn brk(l: &mut Lifter<'_>, i: Insn) {
    let pc = l.pc;
    l.trap(ExitKind::Breakpoint, i.imm16(), pc);
}
