//! AdvSIMD vector by indexed element, integer (Arm ARM C4.1.96 "Advanced SIMD vector x indexed element" and "scalar
//! x indexed element"). The element is broadcast first; the rest is as in the three-register groups. The float
//! instructions of the group are in `float.rs`.

use super::helpers::SimdOp;
use super::three_diff::{Doubling, add_to, doubling_long, sub_from};
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, field, q, size};
use tulk_ir::Value;

/// Register and index of an element of `1 << log2` bytes: H:L:M with a 4-bit register, H:L, or H.
pub fn element_place(i: Insn, log2: u8) -> (u32, u32) {
    let (h, l, m) = (field(i, 11, 1), field(i, 21, 1), field(i, 20, 1));
    match log2 {
        1 => (field(i, 16, 4), h << 2 | l << 1 | m),
        2 => (i.rm(), h << 1 | l),
        _ => (i.rm(), h),
    }
}

/// The indexed element in every lane.
pub fn element(l: &mut Lifter<'_>, i: Insn, log2: u8) -> Value {
    let (register, index) = element_place(i, log2);
    let v = l.v(register);
    l.dup_lane(log2, v, index)
}

/// Vd = op(Vn, element).
fn by_element(
    l: &mut Lifter<'_>,
    i: Insn,
    op: impl Fn(&mut Lifter<'_>, Form, Value, Value) -> Value,
) {
    let form = Form::of(i);
    let a = l.v(i.rn());
    let b = element(l, i, form.log2);
    let result = op(l, form, a, b);
    l.set_form(i.rd(), form, result);
}

/// MUL Vd.T, Vn.T, Vm.Ts[index]
pub fn mul_elem(l: &mut Lifter<'_>, i: Insn) {
    by_element(l, i, |l, f, a, b| l.vmul(f.shape(), a, b));
}
/// MLA Vd.T, Vn.T, Vm.Ts[index]
pub fn mla_elem(l: &mut Lifter<'_>, i: Insn) {
    by_element(l, i, |l, f, a, b| {
        let (acc, product) = (l.v(i.rd()), l.vmul(f.shape(), a, b));
        l.vadd(f.shape(), acc, product)
    });
}
/// MLS Vd.T, Vn.T, Vm.Ts[index]
pub fn mls_elem(l: &mut Lifter<'_>, i: Insn) {
    by_element(l, i, |l, f, a, b| {
        let (acc, product) = (l.v(i.rd()), l.vmul(f.shape(), a, b));
        l.vsub(f.shape(), acc, product)
    });
}
/// SQDMULH Vd, Vn, Vm.Ts[index]
pub fn sqdmulh_elem(l: &mut Lifter<'_>, i: Insn) {
    by_element(l, i, |l, f, a, b| l.doubling_high(f, false, a, b));
}
/// SQRDMULH Vd, Vn, Vm.Ts[index]
pub fn sqrdmulh_elem(l: &mut Lifter<'_>, i: Insn) {
    by_element(l, i, |l, f, a, b| l.doubling_high(f, true, a, b));
}
/// SQRDMLAH Vd, Vn, Vm.Ts[index]
pub fn sqrdmlah_elem(l: &mut Lifter<'_>, i: Insn) {
    by_element(l, i, |l, f, a, b| {
        let acc = l.v(i.rd());
        l.simd_helper(SimdOp::Sqrdmlah, f, &[acc, a, b])
    });
}
/// SQRDMLSH Vd, Vn, Vm.Ts[index]
pub fn sqrdmlsh_elem(l: &mut Lifter<'_>, i: Insn) {
    by_element(l, i, |l, f, a, b| {
        let acc = l.v(i.rd());
        l.simd_helper(SimdOp::Sqrdmlsh, f, &[acc, a, b])
    });
}

/// Products at twice the width, moved to Vd, added to it or subtracted from it.
fn mul_long(l: &mut Lifter<'_>, i: Insn, signed: bool, how: Doubling) {
    let shape = Form::vector(size(i), true).shape();
    let a = l.v(i.rn());
    let b = element(l, i, size(i));
    let product = l.mul_widen(shape, signed, q(i), a, b);
    let result = match how {
        Doubling::Move => product,
        Doubling::Add => add_to(l, i, shape, product),
        Doubling::Sub => sub_from(l, i, shape, product),
    };
    l.set_v(i.rd(), result);
}

/// SMULL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn smull_elem(l: &mut Lifter<'_>, i: Insn) {
    mul_long(l, i, true, Doubling::Move);
}
/// UMULL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn umull_elem(l: &mut Lifter<'_>, i: Insn) {
    mul_long(l, i, false, Doubling::Move);
}
/// SMLAL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn smlal_elem(l: &mut Lifter<'_>, i: Insn) {
    mul_long(l, i, true, Doubling::Add);
}
/// UMLAL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn umlal_elem(l: &mut Lifter<'_>, i: Insn) {
    mul_long(l, i, false, Doubling::Add);
}
/// SMLSL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn smlsl_elem(l: &mut Lifter<'_>, i: Insn) {
    mul_long(l, i, true, Doubling::Sub);
}
/// UMLSL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn umlsl_elem(l: &mut Lifter<'_>, i: Insn) {
    mul_long(l, i, false, Doubling::Sub);
}
/// SQDMULL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn sqdmull_elem(l: &mut Lifter<'_>, i: Insn) {
    let b = element(l, i, size(i));
    doubling_long(l, i, Doubling::Move, b);
}
/// SQDMLAL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn sqdmlal_elem(l: &mut Lifter<'_>, i: Insn) {
    let b = element(l, i, size(i));
    doubling_long(l, i, Doubling::Add, b);
}
/// SQDMLSL{2} Vd.Ta, Vn.Tb, Vm.Ts[index]
pub fn sqdmlsl_elem(l: &mut Lifter<'_>, i: Insn) {
    let b = element(l, i, size(i));
    doubling_long(l, i, Doubling::Sub, b);
}
