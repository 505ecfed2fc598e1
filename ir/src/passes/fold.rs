//! Operations on constants, algebra, and branches whose way is known.

use super::forward::{Change, Walk};
use crate::helper::FpEnv;
use crate::interp::eval::{EvalOp, eval};
use crate::op::{Op, Res};
use crate::types::*;
use crate::unit::{Inst, Value};

/// The constant that `v` is, zero-extended.
fn constant(walk: &Walk, v: Value) -> Option<u128> {
    if v.is_none() {
        return None;
    }
    let def = walk.def(v);
    match def.op {
        Op::Iconst => Some(def.imm as i128 as u128 & mask(def.ty)),
        Op::Vconst => Some(walk.unit.pool[def.imm as usize]),
        _ => None,
    }
}

fn mask(ty: Type) -> u128 {
    u128::MAX >> (128 - ty.bits())
}

fn become_constant(inst: &Inst, ty: Type, imm: i64) -> Change {
    Change::Become(Inst { dst: inst.dst, imm, ..Inst::new(Op::Iconst, ty) })
}

fn become_vector(walk: &mut Walk, inst: &Inst, value: u128) -> Change {
    let imm = super::intern(&mut walk.unit.pool, value);
    Change::Become(Inst { dst: inst.dst, imm, ..Inst::new(Op::Vconst, Type::V128) })
}

/// `op` on the first operand only.
fn become_unary(inst: &Inst, op: Op, operand: Value) -> Change {
    Change::Become(Inst { op, args: [operand, Value::NONE, Value::NONE], ..*inst })
}

/// Improves the current instruction or finds the existing value that it equals. New constants go in front of it.
pub(super) fn fold(walk: &mut Walk) -> Change {
    let inst = walk.current();
    let [a, b, c] = inst.args;
    if a.is_none() || inst.op.info().effects != 0 {
        return Change::Keep;
    }
    let (x, y) = (constant(walk, a), constant(walk, b));
    if (x, y) == (None, None) && !has_algebra(inst.op) {
        return Change::Keep;
    }
    let inst = *inst;
    match (x, y) {
        (Some(x), None) if b.is_none() => evaluate(walk, &inst, [x, 0, 0]),
        (Some(x), Some(y)) if c.is_none() => evaluate(walk, &inst, [x, y, 0]),
        (Some(x), _) if inst.op == Op::Select => Change::Same(if x as u8 != 0 { b } else { c }),
        (Some(x), Some(y)) if constant(walk, c).is_some() => {
            let z = constant(walk, c).unwrap_or_default();
            evaluate(walk, &inst, [x, y, z])
        }
        (Some(0), None) if inst.op == Op::Sub => become_unary(&inst, Op::Neg, b),
        (Some(x), None) => match swapped(&inst) {
            None => Change::Keep,
            Some(swapped) => match second_constant(walk, &swapped, x) {
                Change::Keep => Change::Become(swapped),
                change => change,
            },
        },
        (_, Some(y)) if inst.op != Op::Select => second_constant(walk, &inst, y),
        _ => no_constant(walk, &inst),
    }
}

/// All operands are constants.
fn evaluate(walk: &mut Walk, inst: &Inst, args: [u128; 3]) -> Change {
    let ty = walk.ty(inst.dst);
    if ty.is_float() {
        // There are no constants of these types.
        return Change::Keep;
    }
    let op = EvalOp::of(inst, walk.unit);
    let result = eval(&op, args, &mut NoFloats);
    if ty == Type::V128 {
        return become_vector(walk, inst, result);
    }
    let unused = 64u32.saturating_sub(ty.bits());
    let imm = (result as i64) << unused >> unused;
    if imm as i128 as u128 & mask(ty) == result {
        become_constant(inst, ty, imm)
    } else {
        Change::Keep
    }
}

/// The environment of operations without float effects.
struct NoFloats;

impl FpEnv for NoFloats {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags::default()
    }
    fn set_fp_flags(&mut self, _: FpFlags) {
        unreachable!("operations with float effects are not folded")
    }
    fn fp_round(&mut self) -> Round {
        Round::Nearest
    }
    fn set_fp_mode(&mut self, _: Round, _: bool, _: bool) {
        unreachable!("operations with float effects are not folded")
    }
}

/// The same with the first two operands exchanged, if the operation allows it.
fn swapped(inst: &Inst) -> Option<Inst> {
    let mut aux = inst.aux;
    match inst.op {
        Op::Add | Op::Mul | Op::And | Op::Or | Op::Xor | Op::XorNot | Op::AddCarry => {}
        Op::MinU | Op::MinS | Op::MaxU | Op::MaxS | Op::CarryOut => {}
        Op::Icmp => {
            aux = match inst.int_cc() {
                cc @ (IntCc::Eq | IntCc::Ne) => cc,
                IntCc::LtS => IntCc::GtS,
                IntCc::LeS => IntCc::GeS,
                IntCc::GtS => IntCc::LtS,
                IntCc::GeS => IntCc::LeS,
                IntCc::LtU => IntCc::GtU,
                IntCc::LeU => IntCc::GeU,
                IntCc::GtU => IntCc::LtU,
                IntCc::GeU => IntCc::LeU,
            } as u8
        }
        _ => return None,
    }
    let [a, b, c] = inst.args;
    Some(Inst { aux, args: [b, a, c], ..*inst })
}

/// The second operand is the constant `c`; the first is none, or the third is none.
fn second_constant(walk: &mut Walk, inst: &Inst, c: u128) -> Change {
    let (ty, a) = (inst.ty, inst.args[0]);
    let ones = c == mask(ty);
    match inst.op {
        Op::Shl | Op::ShrU | Op::ShrS | Op::Rotl | Op::Rotr
            if c.is_multiple_of(ty.bits() as u128) =>
        {
            Change::Same(a)
        }
        Op::Or | Op::Xor | Op::AndNot if c == 0 => Change::Same(a),
        Op::And | Op::OrNot | Op::XorNot if ones => Change::Same(a),
        Op::Mul | Op::DivU | Op::DivS if c == 1 => Change::Same(a),
        Op::Mul | Op::And if c == 0 => become_constant(inst, ty, 0),
        Op::AndNot if ones => become_constant(inst, ty, 0),
        Op::Or if ones => become_constant(inst, ty, -1),
        Op::OrNot if c == 0 => become_constant(inst, ty, -1),
        Op::Xor if ones => become_unary(inst, Op::Not, a),
        Op::XorNot if c == 0 => become_unary(inst, Op::Not, a),
        Op::Add | Op::Sub if ty != Type::I128 => add_constant(walk, inst, c as i64),
        Op::AddCarry => without_carry(walk, inst),
        Op::Icmp if c == 0 && walk.def(a).op.info().result == Res::Bool => {
            compare_truth(walk, inst)
        }
        _ => Change::Keep,
    }
}

/// `a + c` or `a - c`; constants of a chain are added up.
fn add_constant(walk: &mut Walk, inst: &Inst, c: i64) -> Change {
    let signed = |op, c: i64| if op == Op::Sub { c.wrapping_neg() } else { c };
    let (ty, a) = (inst.ty, inst.args[0]);
    let is_zero = |n: i64| n as i128 as u128 & mask(ty) == 0;
    if is_zero(c) {
        return Change::Same(a);
    }
    let inner = *walk.def(a);
    if !matches!(inner.op, Op::Add | Op::Sub) {
        return Change::Keep;
    }
    let Some(before) = constant(walk, inner.args[1]) else { return Change::Keep };
    let sum = signed(inner.op, before as i64).wrapping_add(signed(inst.op, c));
    if is_zero(sum) {
        return Change::Same(inner.args[0]);
    }
    let unused = 64 - ty.bits();
    match walk.iconst(ty, sum << unused >> unused) {
        Some(sum) => {
            let args = [inner.args[0], sum, Value::NONE];
            Change::Become(Inst { op: Op::Add, args, ..*inst })
        }
        None => Change::Keep,
    }
}

/// `a + b + 0`.
fn without_carry(walk: &Walk, inst: &Inst) -> Change {
    let [a, b, carry] = inst.args;
    match constant(walk, carry) {
        Some(0) => Change::Become(Inst { op: Op::Add, args: [a, b, Value::NONE], ..*inst }),
        _ => Change::Keep,
    }
}

/// A truth value compared with 0: itself, or its negation, which another comparison may give at once.
fn compare_truth(walk: &Walk, inst: &Inst) -> Change {
    let a = inst.args[0];
    let inner = walk.def(a);
    let dst = inst.dst;
    match (inst.int_cc(), inner.op) {
        (IntCc::Ne, _) => Change::Same(a),
        (IntCc::Eq, Op::Icmp) => {
            Change::Become(Inst { dst, aux: negated(inner.int_cc()) as u8, ..*inner })
        }
        // Arm's numbering: negations differ in the lowest bit.
        (IntCc::Eq, Op::NzcvTest) => Change::Become(Inst { dst, aux: inner.aux ^ 1, ..*inner }),
        _ => Change::Keep,
    }
}

fn negated(cc: IntCc) -> IntCc {
    match cc {
        IntCc::Eq => IntCc::Ne,
        IntCc::Ne => IntCc::Eq,
        IntCc::LtS => IntCc::GeS,
        IntCc::LeS => IntCc::GtS,
        IntCc::GtS => IntCc::LeS,
        IntCc::GeS => IntCc::LtS,
        IntCc::LtU => IntCc::GeU,
        IntCc::LeU => IntCc::GtU,
        IntCc::GtU => IntCc::LeU,
        IntCc::GeU => IntCc::LtU,
    }
}

/// The operations that [`no_constant`] knows something about.
fn has_algebra(op: Op) -> bool {
    matches!(
        op,
        Op::Sub | Op::Xor | Op::AndNot | Op::OrNot | Op::XorNot | Op::Icmp | Op::Vxor | Op::VandNot
    ) || matches!(op, Op::Hi64 | Op::NzcvTest | Op::Select | Op::AddCarry)
}

fn no_constant(walk: &mut Walk, inst: &Inst) -> Change {
    let [a, b, c] = inst.args;
    match inst.op {
        Op::Sub | Op::Xor | Op::AndNot if a == b => become_constant(inst, inst.ty, 0),
        Op::OrNot | Op::XorNot if a == b => become_constant(inst, inst.ty, -1),
        Op::Icmp if a == b => {
            let holds = matches!(
                inst.int_cc(),
                IntCc::Eq | IntCc::LeS | IntCc::GeS | IntCc::LeU | IntCc::GeU
            );
            become_constant(inst, Type::I8, holds as i64)
        }
        Op::Vxor | Op::VandNot if a == b => become_vector(walk, inst, 0),
        Op::Hi64 if walk.def(a).op == Op::Zext => become_constant(inst, Type::I64, 0),
        Op::NzcvTest => compare_without_flags(walk, inst),
        Op::AddCarry => without_carry(walk, inst),
        Op::Select => match is_false(walk, a) {
            Some(truth) => Change::Become(Inst { args: [truth, c, b], ..*inst }),
            None => Change::Keep,
        },
        _ => Change::Keep,
    }
}

/// The truth value whose negation `v` is.
fn is_false(walk: &Walk, v: Value) -> Option<Value> {
    let def = walk.def(v);
    let negates = def.op == Op::Icmp
        && def.int_cc() == IntCc::Eq
        && walk.def(def.args[0]).op.info().result == Res::Bool
        && constant(walk, def.args[1]) == Some(0);
    negates.then_some(def.args[0])
}

/// A condition over flags that were just computed, as a comparison of the operands.
fn compare_without_flags(walk: &mut Walk, inst: &Inst) -> Change {
    use NzcvCond::*;
    let flags = *walk.def(inst.args[0]);
    let (cc, a, b) = match (flags.op, inst.nzcv_cond()) {
        (Op::SubNzcv, cond) => {
            let cc = match cond {
                Eq => IntCc::Eq,
                Ne => IntCc::Ne,
                Cs => IntCc::GeU,
                Cc => IntCc::LtU,
                Hi => IntCc::GtU,
                Ls => IntCc::LeU,
                Ge => IntCc::GeS,
                Lt => IntCc::LtS,
                Gt => IntCc::GtS,
                Le => IntCc::LeS,
                Mi | Pl | Vs | Vc => return Change::Keep,
            };
            (cc, flags.args[0], flags.args[1])
        }
        (Op::LogicNzcv, cond) => {
            // C and V are clear.
            let cc = match cond {
                Eq => IntCc::Eq,
                Ne => IntCc::Ne,
                Mi | Lt => IntCc::LtS,
                Pl | Ge => IntCc::GeS,
                Gt => IntCc::GtS,
                Le => IntCc::LeS,
                Cs | Vs | Hi => return become_constant(inst, Type::I8, 0),
                Cc | Vc | Ls => return become_constant(inst, Type::I8, 1),
            };
            let Some(zero) = walk.iconst(flags.ty, 0) else { return Change::Keep };
            (cc, flags.args[0], zero)
        }
        _ => return Change::Keep,
    };
    let args = [a, b, Value::NONE];
    Change::Become(Inst { dst: inst.dst, aux: cc as u8, args, ..Inst::new(Op::Icmp, flags.ty) })
}

/// A `brif` whose way is known becomes a `jump`; one on a negation changes its sides.
pub(super) fn branch(walk: &Walk) -> Change {
    let inst = walk.current();
    if inst.op != Op::Brif {
        return Change::Keep;
    }
    let (mut condition, mut then, mut otherwise) = (inst.args[0], inst.imm2, inst.imm as u32);
    let negation = is_false(walk, condition);
    if let Some(truth) = negation {
        condition = truth;
        std::mem::swap(&mut then, &mut otherwise);
    }
    let target = match constant(walk, condition) {
        Some(0) => Some(otherwise),
        Some(_) => Some(then),
        None => (then == otherwise).then_some(then),
    };
    match target {
        Some(imm2) => Change::Become(Inst { imm2, ..Inst::new(Op::Jump, Type::I64) }),
        None if negation.is_some() => {
            let args = [condition, Value::NONE, Value::NONE];
            Change::Become(Inst { args, imm2: then, imm: otherwise as i64, ..*inst })
        }
        None => Change::Keep,
    }
}
