//! Copy propagation: the IR has no copy, but many expressions equal an existing value, above all where one
//! guest instruction wraps its result up for a slot and the next one unwraps it.

use super::forward::{Change, Walk};
use crate::op::Op;
use crate::types::Type;
use crate::unit::{Inst, Value};
use std::cmp::Ordering;

/// The existing value that the current instruction computes, or a shorter way to it that looks past such wrapping.
pub(super) fn copy(walk: &Walk) -> Change {
    let inst = walk.current();
    let a = inst.args[0];
    if a.is_none() {
        return Change::Keep;
    }
    let from = walk.def(a);
    let inner = from.args[0];
    // The operation `op` on what the operand wraps.
    let past = |op: Op| Change::Become(Inst { op, args: with_first(inst, inner), ..*inst });
    let same_if =
        |holds: bool, value: Value| if holds { Change::Same(value) } else { Change::Keep };
    match (inst.op, from.op) {
        // An operation that undoes itself.
        (Op::Not, Op::Not)
        | (Op::Neg, Op::Neg)
        | (Op::Bswap, Op::Bswap)
        | (Op::Bitrev, Op::Bitrev)
        | (Op::Vnot, Op::Vnot)
        | (Op::Fneg, Op::Fneg) => Change::Same(inner),
        (Op::Vfneg | Op::Vneg, op) if op == inst.op => same_if(from.shape == inst.shape, inner),

        (Op::Bitcast, _) if walk.ty(a) == inst.ty => Change::Same(a),
        (Op::Bitcast, Op::Bitcast) if walk.ty(inner) == inst.ty => Change::Same(inner),
        (Op::Bitcast, Op::Bitcast) => past(Op::Bitcast),

        // Widths. A truncation sees only the low bits that an extension left alone.
        (Op::Trunc, Op::Zext | Op::Sext) => match inst.ty.bits().cmp(&walk.ty(inner).bits()) {
            Ordering::Less => past(Op::Trunc),
            Ordering::Equal => Change::Same(inner),
            Ordering::Greater => past(from.op),
        },
        (Op::Trunc, Op::Trunc) | (Op::Zext, Op::Zext) | (Op::Sext, Op::Sext) => past(inst.op),
        (Op::Sext, Op::Zext) => past(Op::Zext),
        (Op::Trunc, Op::Concat) if inst.ty == Type::I64 => Change::Same(inner),
        (Op::Trunc, Op::Concat) => past(Op::Trunc),
        (Op::Lo64, Op::Concat) => Change::Same(inner),
        (Op::Hi64, Op::Concat) => Change::Same(from.args[1]),
        (Op::Lo64, Op::Zext | Op::Sext) if walk.ty(inner) == Type::I64 => Change::Same(inner),
        (Op::Lo64, Op::Zext | Op::Sext) => past(from.op),
        (Op::BextractU | Op::BextractS, _) => same_if(inst.field() == (0, inst.ty.bits()), a),
        (Op::Binsert, _) => same_if(inst.field() == (0, inst.ty.bits()), inst.args[1]),

        (Op::Select, _) => same_if(inst.args[1] == inst.args[2], inst.args[1]),
        (Op::And | Op::Or | Op::MinU | Op::MinS | Op::MaxU | Op::MaxS, _)
        | (Op::Vand | Op::Vor, _) => same_if(a == inst.args[1], a),

        (Op::Vlane, _) => lane(walk, inst),
        (Op::VsetLane, Op::VsetLane) if from.shape == inst.shape && from.imm2 == inst.imm2 => {
            past(Op::VsetLane)
        }
        _ => Change::Keep,
    }
}

fn with_first(inst: &Inst, first: Value) -> [Value; 3] {
    [first, inst.args[1], inst.args[2]]
}

/// Looks for the scalar that became this lane.
fn lane(walk: &Walk, inst: &Inst) -> Change {
    let mut vector = inst.args[0];
    loop {
        let from = walk.def(vector);
        let scalar = match from.op {
            _ if from.shape.lane_bits() != inst.shape.lane_bits() => Value::NONE,
            Op::Vsplat => from.args[0],
            Op::Vscalar if inst.imm2 == 0 => from.args[0],
            Op::VsetLane if from.imm2 == inst.imm2 => from.args[1],
            Op::VsetLane => {
                vector = from.args[0];
                continue;
            }
            _ => Value::NONE,
        };
        return if scalar.is_none() && vector == inst.args[0] {
            Change::Keep
        } else if scalar.is_none() {
            Change::Become(Inst { args: with_first(inst, vector), ..*inst })
        } else if walk.ty(scalar) == inst.ty {
            Change::Same(scalar)
        } else {
            // The same bits as another type.
            let args = [scalar, Value::NONE, Value::NONE];
            Change::Become(Inst { dst: inst.dst, args, ..Inst::new(Op::Bitcast, inst.ty) })
        };
    }
}
