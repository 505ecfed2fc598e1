//! Logical instructions: AND, OR, XOR, NOT, TEST, ANDN.

use crate::Lifter;
use crate::decode::{Row, rows};
use crate::operand::{Intent, Place};
use iced_x86::Instruction;
use tulk_base::RmwOp;
use tulk_ir::{Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet { And => and, Or => or, Xor => xor, Not => not, Test => test, Andn => andn }
    loud {}
    codes {}
};

/// `op dst, src` with flags of the result; locked forms as one atomic operation.
fn logical(
    l: &mut Lifter<'_>,
    insn: &Instruction,
    rmw: RmwOp,
    op: fn(&mut Lifter<'_>, Value, Value) -> Value,
) {
    let ty = l.operand_type(insn, 0);
    let b = l.operand(insn, 1, ty);
    let dst = l.place_of(insn, 0, Intent::Write);
    if let (true, Place::Mem(addr)) = (insn.has_lock_prefix(), dst) {
        let old = l.atomic_rmw(rmw, addr, b);
        let result = op(l, old, b);
        return l.set_flags_logic(result);
    }
    let a = l.read(dst, ty);
    let result = op(l, a, b);
    l.write(dst, result);
    l.set_flags_logic(result);
}

/// AND dst, src
fn and(l: &mut Lifter<'_>, insn: &Instruction) {
    logical(l, insn, RmwOp::And, |l, a, b| l.and(a, b));
}

/// OR dst, src
fn or(l: &mut Lifter<'_>, insn: &Instruction) {
    logical(l, insn, RmwOp::Or, |l, a, b| l.or(a, b));
}

/// XOR dst, src
fn xor(l: &mut Lifter<'_>, insn: &Instruction) {
    // The idiom for zero does not depend on the register.
    let same = insn.op0_register() == insn.op1_register();
    if same && insn.op_kinds().all(|k| k == iced_x86::OpKind::Register) {
        l.clear_reg(insn.op0_register());
        let zero = l.reg(insn.op0_register());
        return l.set_flags_logic(zero);
    }
    logical(l, insn, RmwOp::Xor, |l, a, b| l.xor(a, b));
}

/// NOT dst
fn not(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let dst = l.place_of(insn, 0, Intent::Write);
    if let (true, Place::Mem(addr)) = (insn.has_lock_prefix(), dst) {
        let ones = l.iconst(ty, -1);
        l.atomic_rmw(RmwOp::Xor, addr, ones);
        return;
    }
    let a = l.read(dst, ty);
    let result = std::ops::DerefMut::deref_mut(l).not(a);
    l.write(dst, result);
}

/// TEST a, b
fn test(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 0, ty);
    let same = insn.op1_kind() == iced_x86::OpKind::Register
        && insn.op0_kind() == iced_x86::OpKind::Register
        && insn.op0_register() == insn.op1_register();
    if same {
        return l.set_flags_logic(a);
    }
    let b = l.operand(insn, 1, ty);
    let result = l.and(a, b);
    l.set_flags_logic(result);
}

/// ANDN dst, a, b
fn andn(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, Type::I64);
    let b = l.operand(insn, 2, ty);
    let result = l.and_not(b, a);
    l.set_reg(insn.op0_register(), result);
    l.set_flags_logic(result);
}
