//! AdvSIMD three registers, extension (Arm ARM C4.1.96 "Advanced SIMD three same extra", with the indexed forms):
//! rounding doubling accumulation, dot products, matrix products, complex numbers, bfloat16, and the half to
//! single-precision FMLAL family.

use super::by_element::element;
use super::helpers::SimdOp;
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::fp::ops::{Fp2, Fp3};
use crate::a64::vector::{Form, field, lanes, q};
use tulk_ir::{Shape, Value};

fn doubling_accumulate(l: &mut Lifter<'_>, i: Insn, op: SimdOp) {
    let form = Form::of(i);
    let (acc, a, b) = (l.v(i.rd()), l.v(i.rn()), l.v(i.rm()));
    let result = l.simd_helper(op, form, &[acc, a, b]);
    l.set_form(i.rd(), form, result);
}

/// SQRDMLAH Vd, Vn, Vm
pub fn sqrdmlah_v(l: &mut Lifter<'_>, i: Insn) {
    doubling_accumulate(l, i, SimdOp::Sqrdmlah);
}
/// SQRDMLSH Vd, Vn, Vm
pub fn sqrdmlsh_v(l: &mut Lifter<'_>, i: Insn) {
    doubling_accumulate(l, i, SimdOp::Sqrdmlsh);
}

/// Adds to each 32-bit lane the products of its four bytes in `a` and in `b`.
fn dot(l: &mut Lifter<'_>, i: Insn, signed: (bool, bool), b: Value) {
    let a = l.v(i.rn());
    let [low, high] = [false, true].map(|upper| {
        // Bytes widened to signed 16-bit numbers whatever their sign: the pair products then fit.
        let a = l.widen(Shape::I8x16, signed.0, upper, a);
        let b = l.widen(Shape::I8x16, signed.1, upper, b);
        l.vmadd_pairs_s(Shape::I16x8, a, b)
    });
    let sums = l.vadd_pairs(Shape::I32x4, low, high);
    let acc = l.v(i.rd());
    let result = l.vadd(Shape::I32x4, acc, sums);
    l.set_form(i.rd(), Form::vector(2, q(i)), result);
}

macro_rules! dot {
    ($($name:ident $elem:ident $signed:expr;)+) => { $(
        #[doc = concat!(stringify!($name), " Vd.T, Vn.Tb, Vm.Tb")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            let b = l.v(i.rm());
            dot(l, i, $signed, b);
        }
        #[doc = concat!(stringify!($name), " Vd.T, Vn.Tb, Vm.4B[index]")]
        pub fn $elem(l: &mut Lifter<'_>, i: Insn) {
            let b = element(l, i, 2);
            dot(l, i, $signed, b);
        }
    )+ };
}

dot! {
    sdot sdot_elem (true, true);
    udot udot_elem (false, false);
    usdot usdot_elem (false, true);
}

/// SUDOT Vd.T, Vn.Tb, Vm.4B[index]
pub fn sudot_elem(l: &mut Lifter<'_>, i: Insn) {
    let b = element(l, i, 2);
    dot(l, i, (true, false), b);
}

fn matrix(l: &mut Lifter<'_>, i: Insn, op: SimdOp) {
    let (acc, a, b) = (l.v(i.rd()), l.v(i.rn()), l.v(i.rm()));
    let result = l.simd_helper(op, Form::vector(2, true), &[acc, a, b]);
    l.set_v(i.rd(), result);
}

/// SMMLA Vd.4S, Vn.16B, Vm.16B
pub fn smmla(l: &mut Lifter<'_>, i: Insn) {
    matrix(l, i, SimdOp::Smmla);
}
/// UMMLA Vd.4S, Vn.16B, Vm.16B
pub fn ummla(l: &mut Lifter<'_>, i: Insn) {
    matrix(l, i, SimdOp::Ummla);
}
/// USMMLA Vd.4S, Vn.16B, Vm.16B
pub fn usmmla(l: &mut Lifter<'_>, i: Insn) {
    matrix(l, i, SimdOp::Usmmla);
}

/// Flips the sign of the lanes whose number is `parity` modulo 2.
fn negate_parity(l: &mut Lifter<'_>, f: Form, parity: u32, v: Value) -> Value {
    let width = f.lane_bits();
    let pair = 1u128 << (width - 1 + parity * width);
    let mask = (0..64 / width).fold(0, |m, k| m | pair << (2 * width * k));
    let mask = l.vconst(mask);
    l.vxor(v, mask)
}

/// FCADD Vd.T, Vn.T, Vm.T, #rotate: Vn plus Vm times i or -i
pub fn fcadd(l: &mut Lifter<'_>, i: Insn) {
    let form = Form::of(i);
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let swapped = l.vshuffle(b, b, lanes(form.log2, |k| k ^ 1));
    // 90 degrees: (re, im) becomes (-im, re); 270: (im, -re).
    let rotated = negate_parity(l, form, field(i, 12, 1), swapped);
    let result = l.fp2(Fp2::Add, form, a, rotated);
    l.set_v(i.rd(), result);
}

fn complex_multiply_add(l: &mut Lifter<'_>, i: Insn, form: Form, rotation: u32, b: Value) {
    let (acc, a) = (l.v(i.rd()), l.v(i.rn()));
    // 0 and 180 degrees multiply by the real part of Vn, the others by its imaginary part.
    let odd = (rotation & 1) as usize;
    let part = l.vshuffle(a, a, lanes(form.log2, |k| k & !1 | odd));
    let mut b = if odd != 0 { l.vshuffle(b, b, lanes(form.log2, |k| k ^ 1)) } else { b };
    if rotation == 1 || rotation == 2 {
        b = negate_parity(l, form, 0, b);
    }
    if rotation >= 2 {
        b = negate_parity(l, form, 1, b);
    }
    let result = l.fp3(Fp3::Fma, form, part, b, acc);
    l.set_v(i.rd(), result);
}

/// FCMLA Vd.T, Vn.T, Vm.T, #rotate
pub fn fcmla(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    complex_multiply_add(l, i, Form::of(i), field(i, 11, 2), b);
}
/// FCMLA Vd.T, Vn.T, Vm.Ts[index], #rotate
pub fn fcmla_elem(l: &mut Lifter<'_>, i: Insn) {
    let form = Form::of(i);
    // The index counts pairs of lanes.
    let b = element(l, i, form.log2 + 1);
    complex_multiply_add(l, i, form, field(i, 13, 2), b);
}

/// BFDOT Vd.T, Vn.Tb, Vm.Tb
pub fn bfdot(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    bfloat(l, i, Fp3::Bfdot, q(i), b);
}
/// BFDOT Vd.T, Vn.Tb, Vm.2H[index]
pub fn bfdot_elem(l: &mut Lifter<'_>, i: Insn) {
    let b = element(l, i, 2);
    bfloat(l, i, Fp3::Bfdot, q(i), b);
}
/// BFMMLA Vd.4S, Vn.8H, Vm.8H
pub fn bfmmla(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    bfloat(l, i, Fp3::Bfmmla, true, b);
}

fn bfloat(l: &mut Lifter<'_>, i: Insn, op: Fp3, q: bool, b: Value) {
    let (acc, a) = (l.v(i.rd()), l.v(i.rn()));
    let result = l.fp3(op, Form::vector(2, q), a, b, acc);
    l.set_v(i.rd(), result);
}

/// Adds the products of the even (odd when Q is set) bfloat16 lanes to the single-precision lanes of Vd.
fn bfmlal_with(l: &mut Lifter<'_>, i: Insn, b: Value) {
    let (acc, a) = (l.v(i.rd()), l.v(i.rn()));
    let [a, b] = [a, b].map(|v| {
        if q(i) {
            let mask = l.vconst(Form::vector(2, true).splat(0xffff_0000));
            l.vand(v, mask)
        } else {
            l.vshl_i(Shape::I32x4, v, 16)
        }
    });
    let result = l.fp3(Fp3::Fma, Form::vector(2, true), a, b, acc);
    l.set_v(i.rd(), result);
}

/// BFMLALB, BFMLALT Vd.4S, Vn.8H, Vm.8H
pub fn bfmlal(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    bfmlal_with(l, i, b);
}
/// BFMLALB, BFMLALT Vd.4S, Vn.8H, Vm.H[index]
pub fn bfmlal_elem(l: &mut Lifter<'_>, i: Insn) {
    let b = element(l, i, 1);
    bfmlal_with(l, i, b);
}

/// Adds products of half-precision lanes, from the low or the high half of what Q covers, to single-precision ones.
fn half_fused(l: &mut Lifter<'_>, i: Insn, high: bool, subtract: bool, b: Value) {
    let a = l.v(i.rn());
    let form = Form::vector(2, q(i));
    let [mut a, b] = [(a, high), (b, high)].map(|(v, high)| {
        let v = match (high, q(i)) {
            (false, _) => v,
            (true, true) => l.high_to_low(v),
            (true, false) => l.dup_lane(2, v, 1),
        };
        l.widen_half(v)
    });
    if subtract {
        a = l.negate(form, a);
    }
    let acc = l.v(i.rd());
    let result = l.fp3(Fp3::Fma, form, a, b, acc);
    l.set_v(i.rd(), result);
}

macro_rules! half_fused {
    ($($name:ident $elem:ident ($high:literal, $subtract:literal);)+) => { $(
        #[doc = concat!(stringify!($name), " Vd.T, Vn.Tb, Vm.Tb")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            let b = l.v(i.rm());
            half_fused(l, i, $high, $subtract, b);
        }
        #[doc = concat!(stringify!($name), " Vd.T, Vn.Tb, Vm.H[index]")]
        pub fn $elem(l: &mut Lifter<'_>, i: Insn) {
            let b = element(l, i, 1);
            half_fused(l, i, $high, $subtract, b);
        }
    )+ };
}

// Whether the high half is used, and whether the product is subtracted.
half_fused! {
    fmlal fmlal_elem (false, false);
    fmlal2 fmlal2_elem (true, false);
    fmlsl fmlsl_elem (false, true);
    fmlsl2 fmlsl2_elem (true, true);
}
