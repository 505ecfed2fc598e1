//! AdvSIMD across lanes and scalar pairwise (Arm ARM C4.1.96 "Advanced SIMD across lanes", "Advanced SIMD scalar
//! pairwise"), integer. The float instructions of the groups are in `float.rs`.

use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, lanes, q};
use tulk_ir::Value;

/// Reduces all lanes of the form to lane 0 by halves; `op` must be associative and commutative.
fn fold(
    l: &mut Lifter<'_>,
    form: Form,
    mut v: Value,
    op: impl Fn(&mut Lifter<'_>, Value, Value) -> Value,
) -> Value {
    let mut step = form.lanes() as usize / 2;
    while step > 0 {
        let moved = l.vshuffle(v, v, lanes(form.log2, |k| (k + step) % (16 >> form.log2)));
        v = op(l, v, moved);
        step /= 2;
    }
    v
}

fn across(l: &mut Lifter<'_>, i: Insn, op: impl Fn(&mut Lifter<'_>, Form, Value, Value) -> Value) {
    let form = Form::of(i);
    let v = l.v(i.rn());
    let result = fold(l, form, v, |l, a, b| op(l, form, a, b));
    l.set_form(i.rd(), Form::scalar(form.log2), result);
}

/// ADDV Vd, Vn.T
pub fn addv(l: &mut Lifter<'_>, i: Insn) {
    across(l, i, |l, f, a, b| l.vadd(f.shape(), a, b));
}
/// SMAXV Vd, Vn.T
pub fn smaxv(l: &mut Lifter<'_>, i: Insn) {
    across(l, i, |l, f, a, b| l.vmax_s(f.shape(), a, b));
}
/// UMAXV Vd, Vn.T
pub fn umaxv(l: &mut Lifter<'_>, i: Insn) {
    across(l, i, |l, f, a, b| l.vmax_u(f.shape(), a, b));
}
/// SMINV Vd, Vn.T
pub fn sminv(l: &mut Lifter<'_>, i: Insn) {
    across(l, i, |l, f, a, b| l.vmin_s(f.shape(), a, b));
}
/// UMINV Vd, Vn.T
pub fn uminv(l: &mut Lifter<'_>, i: Insn) {
    across(l, i, |l, f, a, b| l.vmin_u(f.shape(), a, b));
}

/// The sum of all lanes at twice their width.
fn add_long(l: &mut Lifter<'_>, i: Insn, signed: bool) {
    let form = Form::of(i);
    let wide = form.wide();
    let v = l.v(i.rn());
    let mut sum = l.widen(form.shape(), signed, false, v);
    if q(i) {
        let high = l.widen(form.shape(), signed, true, v);
        sum = l.vadd(wide.shape(), sum, high);
    }
    let result = fold(l, wide, sum, |l, a, b| l.vadd(wide.shape(), a, b));
    l.set_form(i.rd(), Form::scalar(wide.log2), result);
}

/// SADDLV Vd, Vn.T
pub fn saddlv(l: &mut Lifter<'_>, i: Insn) {
    add_long(l, i, true);
}
/// UADDLV Vd, Vn.T
pub fn uaddlv(l: &mut Lifter<'_>, i: Insn) {
    add_long(l, i, false);
}

/// ADDP Dd, Vn.2D
pub fn addp_scalar(l: &mut Lifter<'_>, i: Insn) {
    let v = l.v(i.rn());
    let result = fold(l, Form::vector(3, true), v, |l, a, b| l.vadd(tulk_ir::Shape::I64x2, a, b));
    l.set_form(i.rd(), Form::scalar(3), result);
}
