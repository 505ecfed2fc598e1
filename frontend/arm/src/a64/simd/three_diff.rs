//! AdvSIMD three registers of different types (Arm ARM C4.1.96 "Advanced SIMD three different" and "scalar three
//! different"): the widening, wide and high-narrowing instructions, and the polynomial product.

use super::helpers::SimdOp;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, is_scalar, q, size};
use crate::a64::{Lifter, crypto};
use tulk_ir::{Shape, Value};

/// The source form of a widening instruction; Q selects the half.
fn narrow_form(i: Insn) -> Form {
    Form::vector(size(i), true)
}

/// Vd.Ta = op(Vn.Tb, Vm.Tb): `op` gets the source shape, whether it uses the high halves, and the operands.
fn long(
    l: &mut Lifter<'_>,
    i: Insn,
    op: impl Fn(&mut Lifter<'_>, Shape, bool, Value, Value) -> Value,
) {
    let form = narrow_form(i);
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let result = op(l, form.shape(), q(i), a, b);
    l.set_v(i.rd(), result);
}

macro_rules! long {
    ($($name:ident ($l:ident, $i:ident, $s:ident, $hi:ident, $a:ident, $b:ident) $body:expr;)+) => { $(
        #[doc = concat!(stringify!($name), " Vd.Ta, Vn.Tb, Vm.Tb")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            let $i = i;
            long(l, $i, |$l, $s, $hi, $a, $b| $body);
        }
    )+ };
}

long! {
    saddl (l, _i, s, hi, a, b) add_long(l, s, true, hi, a, b);
    uaddl (l, _i, s, hi, a, b) add_long(l, s, false, hi, a, b);
    ssubl (l, _i, s, hi, a, b) sub_long(l, s, true, hi, a, b);
    usubl (l, _i, s, hi, a, b) sub_long(l, s, false, hi, a, b);
    saddw (l, _i, s, hi, a, b) { let b = l.widen(s, true, hi, b); l.vadd(wide(s), a, b) };
    uaddw (l, _i, s, hi, a, b) { let b = l.widen(s, false, hi, b); l.vadd(wide(s), a, b) };
    ssubw (l, _i, s, hi, a, b) { let b = l.widen(s, true, hi, b); l.vsub(wide(s), a, b) };
    usubw (l, _i, s, hi, a, b) { let b = l.widen(s, false, hi, b); l.vsub(wide(s), a, b) };
    sabdl (l, _i, s, hi, a, b) abd_long(l, s, true, hi, a, b);
    uabdl (l, _i, s, hi, a, b) abd_long(l, s, false, hi, a, b);
    sabal (l, i, s, hi, a, b) { let r = abd_long(l, s, true, hi, a, b); add_to(l, i, s, r) };
    uabal (l, i, s, hi, a, b) { let r = abd_long(l, s, false, hi, a, b); add_to(l, i, s, r) };
    smull_v (l, _i, s, hi, a, b) l.mul_widen(s, true, hi, a, b);
    umull_v (l, _i, s, hi, a, b) l.mul_widen(s, false, hi, a, b);
    smlal_v (l, i, s, hi, a, b) { let r = l.mul_widen(s, true, hi, a, b); add_to(l, i, s, r) };
    umlal_v (l, i, s, hi, a, b) { let r = l.mul_widen(s, false, hi, a, b); add_to(l, i, s, r) };
    smlsl_v (l, i, s, hi, a, b) { let r = l.mul_widen(s, true, hi, a, b); sub_from(l, i, s, r) };
    umlsl_v (l, i, s, hi, a, b) { let r = l.mul_widen(s, false, hi, a, b); sub_from(l, i, s, r) };
}

pub fn wide(s: Shape) -> Shape {
    match s {
        Shape::I8x16 => Shape::I16x8,
        Shape::I16x8 => Shape::I32x4,
        _ => Shape::I64x2,
    }
}
fn add_long(l: &mut Lifter<'_>, s: Shape, signed: bool, hi: bool, a: Value, b: Value) -> Value {
    let (a, b) = (l.widen(s, signed, hi, a), l.widen(s, signed, hi, b));
    l.vadd(wide(s), a, b)
}
fn sub_long(l: &mut Lifter<'_>, s: Shape, signed: bool, hi: bool, a: Value, b: Value) -> Value {
    let (a, b) = (l.widen(s, signed, hi, a), l.widen(s, signed, hi, b));
    l.vsub(wide(s), a, b)
}
/// The difference fits the narrow lane as an unsigned number.
fn abd_long(l: &mut Lifter<'_>, s: Shape, signed: bool, hi: bool, a: Value, b: Value) -> Value {
    let difference = l.abs_diff(s, signed, a, b);
    l.widen(s, false, hi, difference)
}
pub fn add_to(l: &mut Lifter<'_>, i: Insn, s: Shape, v: Value) -> Value {
    let acc = l.v(i.rd());
    l.vadd(wide(s), acc, v)
}
pub fn sub_from(l: &mut Lifter<'_>, i: Insn, s: Shape, v: Value) -> Value {
    let acc = l.v(i.rd());
    l.vsub(wide(s), acc, v)
}

/// What SQDMULL and its accumulating forms do with the doubled product.
#[derive(Clone, Copy, PartialEq)]
pub enum Doubling {
    Move,
    Add,
    Sub,
}

/// Vd.Ta = [Vd.Ta +-] sat(2 * Vn.Tb * Vm.Tb), each step saturating; vector or scalar.
pub fn doubling_long(l: &mut Lifter<'_>, i: Insn, how: Doubling, b: Value) {
    let log2 = size(i);
    let shape = Shape::int_of_log2(log2);
    let form = if is_scalar(i) { Form::scalar(log2 + 1) } else { Form::vector(log2 + 1, true) };
    let w = form.shape();
    let a = l.v(i.rn());
    let product = l.mul_widen(shape, true, !is_scalar(i) && q(i), a, b);
    let doubled = l.vadd_sat_s(w, product, product);
    let wrapped = l.vadd(w, product, product);
    let mut result = l.saturating(form, doubled, wrapped);
    if how != Doubling::Move {
        let acc = l.v(i.rd());
        let (sat, wrapped) = if how == Doubling::Add {
            (l.vadd_sat_s(w, acc, result), l.vadd(w, acc, result))
        } else {
            (l.vsub_sat_s(w, acc, result), l.vsub(w, acc, result))
        };
        result = l.saturating(form, sat, wrapped);
    }
    l.set_form(i.rd(), form, result);
}

/// SQDMULL Vd.Ta, Vn.Tb, Vm.Tb
pub fn sqdmull(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    doubling_long(l, i, Doubling::Move, b);
}
/// SQDMLAL Vd.Ta, Vn.Tb, Vm.Tb
pub fn sqdmlal(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    doubling_long(l, i, Doubling::Add, b);
}
/// SQDMLSL Vd.Ta, Vn.Tb, Vm.Tb
pub fn sqdmlsl(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    doubling_long(l, i, Doubling::Sub, b);
}

/// Vd.Tb = high halves of Vn.Ta +- Vm.Ta, optionally rounded.
fn high_narrow(l: &mut Lifter<'_>, i: Insn, subtract: bool, round: bool) {
    let form = narrow_form(i);
    let w = form.wide();
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let mut sum = if subtract { l.vsub(w.shape(), a, b) } else { l.vadd(w.shape(), a, b) };
    if round {
        let half = l.vconst(w.splat(1 << (form.lane_bits() - 1)));
        sum = l.vadd(w.shape(), sum, half);
    }
    let high = l.vshr_u_i(w.shape(), sum, form.lane_bits());
    let zero = l.zero_v();
    let low = l.vnarrow(w.shape(), high, zero);
    l.set_narrow(i.rd(), q(i), low);
}

/// ADDHN{2} Vd.Tb, Vn.Ta, Vm.Ta
pub fn addhn(l: &mut Lifter<'_>, i: Insn) {
    high_narrow(l, i, false, false);
}
/// RADDHN{2} Vd.Tb, Vn.Ta, Vm.Ta
pub fn raddhn(l: &mut Lifter<'_>, i: Insn) {
    high_narrow(l, i, false, true);
}
/// SUBHN{2} Vd.Tb, Vn.Ta, Vm.Ta
pub fn subhn(l: &mut Lifter<'_>, i: Insn) {
    high_narrow(l, i, true, false);
}
/// RSUBHN{2} Vd.Tb, Vn.Ta, Vm.Ta
pub fn rsubhn(l: &mut Lifter<'_>, i: Insn) {
    high_narrow(l, i, true, true);
}

/// PMULL{2} Vd.8H, Vn.8B, Vm.8B and PMULL{2} Vd.1Q, Vn.1D, Vm.1D
pub fn pmull(l: &mut Lifter<'_>, i: Insn) {
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let result = if size(i) == 0 {
        let op = if q(i) { SimdOp::Pmull2 } else { SimdOp::Pmull };
        l.simd_helper(op, Form::vector(0, true), &[a, b])
    } else {
        l.call(crypto::PMULL64, &[a, b], q(i) as i64)
    };
    l.set_v(i.rd(), result);
}
