//! AdvSIMD two-register miscellaneous, integer (Arm ARM C4.1.96 "Advanced SIMD two-register miscellaneous" and
//! "scalar two-register miscellaneous"). The float instructions of the group are in `float.rs`.

use super::helpers::SimdOp;
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, field, is_scalar, lanes, q, size};
use tulk_ir::{IntCc, Shape, Value};

/// Vd = op(Vn) in lanes of log2 size `sizes.0 ..= sizes.1`.
fn two_reg(l: &mut Lifter<'_>, i: Insn, op: impl Fn(&mut Lifter<'_>, Form, Value) -> Value) {
    let form = Form::of(i);
    let a = l.v(i.rn());
    let result = op(l, form, a);
    l.set_form(i.rd(), form, result);
}

macro_rules! two_reg {
    ($($name:ident ($l:ident, $f:ident, $a:ident) $body:expr;)+) => { $(
        #[doc = concat!(stringify!($name), " Vd.T, Vn.T")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            two_reg(l, i, |$l, $f, $a| $body);
        }
    )+ };
}

two_reg! {
    rev64_v (l, f, a) reverse(l, f, 3, a);
    rev32_v (l, f, a) reverse(l, f, 2, a);
    rev16_v (l, f, a) reverse(l, f, 1, a);
    cls_v (l, f, a) {
        // The top bit of v ^ (v >> 1) is clear, and as many below it as repeat the sign.
        let shifted = l.vshr_s_i(f.shape(), a, 1);
        let changes = l.vxor(a, shifted);
        let zeros = l.vclz(f.shape(), changes);
        let one = l.vconst(f.splat(1));
        l.vsub(f.shape(), zeros, one)
    };
    clz_v (l, f, a) l.vclz(f.shape(), a);
    cnt_v (l, _f, a) l.vpopcnt(Shape::I8x16, a);
    not_v (l, _f, a) l.vnot(a);
    // RBIT has size 01.
    rbit_v (l, _f, a) {
        // Each nibble looks its reversal up; the halves change places.
        let reversed: [u8; 16] = std::array::from_fn(|n| (n as u8).reverse_bits() >> 4);
        let low_table = l.vconst(u128::from_le_bytes(reversed.map(|b| b << 4)));
        let high_table = l.vconst(u128::from_le_bytes(reversed));
        let mask = l.vconst(Form::vector(0, true).splat(15));
        let low = l.vand(a, mask);
        let high = l.vshr_u_i(Shape::I8x16, a, 4);
        let low = l.vswizzle(low_table, low);
        let high = l.vswizzle(high_table, high);
        l.vor(low, high)
    };
    abs_v (l, f, a) l.vabs(f.shape(), a);
    neg_v (l, f, a) l.vneg(f.shape(), a);
    sqabs (l, f, a) {
        // Only MIN wraps; then the saturated negation is one less.
        let wrapped = l.vabs(f.shape(), a);
        let negative = l.negative(f.shape(), wrapped);
        let result = l.vadd(f.shape(), wrapped, negative);
        l.saturating(f, result, wrapped)
    };
    sqneg (l, f, a) {
        let zero = l.zero_v();
        let (r, wrapped) = (l.vsub_sat_s(f.shape(), zero, a), l.vneg(f.shape(), a));
        l.saturating(f, r, wrapped)
    };
    cmgt_zero (l, f, a) { let zero = l.zero_v(); l.vicmp(IntCc::GtS, f.shape(), a, zero) };
    cmge_zero (l, f, a) { let zero = l.zero_v(); l.vicmp(IntCc::GeS, f.shape(), a, zero) };
    cmeq_zero (l, f, a) { let zero = l.zero_v(); l.vicmp(IntCc::Eq, f.shape(), a, zero) };
    cmle_zero (l, f, a) { let zero = l.zero_v(); l.vicmp(IntCc::LeS, f.shape(), a, zero) };
    cmlt_zero (l, f, a) { let zero = l.zero_v(); l.vicmp(IntCc::LtS, f.shape(), a, zero) };
}

/// Lanes in reverse order within containers of `1 << container` bytes.
fn reverse(l: &mut Lifter<'_>, f: Form, container: u8, a: Value) -> Value {
    let last = (1usize << (container - f.log2)) - 1;
    l.vshuffle(a, a, lanes(f.log2, |k| k ^ last))
}

/// Vd = Vd + Vn, one signed and the other not, saturating.
fn add_mixed(l: &mut Lifter<'_>, i: Insn, op: SimdOp) {
    let form = Form::of(i);
    let (d, a) = (l.v(i.rd()), l.v(i.rn()));
    let result = l.simd_helper(op, form, &[d, a]);
    l.set_form(i.rd(), form, result);
}

/// SUQADD Vd.T, Vn.T: signed Vd plus unsigned Vn
pub fn suqadd(l: &mut Lifter<'_>, i: Insn) {
    add_mixed(l, i, SimdOp::Suqadd);
}
/// USQADD Vd.T, Vn.T: unsigned Vd plus signed Vn
pub fn usqadd(l: &mut Lifter<'_>, i: Insn) {
    add_mixed(l, i, SimdOp::Usqadd);
}

/// Sums of adjacent lanes at twice their width.
fn add_pairs_long(l: &mut Lifter<'_>, i: Insn, signed: bool, accumulate: bool) {
    let form = Form::of(i);
    let wide = Form { log2: form.log2 + 1, ..form };
    let (shape, bits) = (wide.shape(), form.lane_bits());
    let a = l.v(i.rn());
    let even = l.vshl_i(shape, a, bits);
    let even = l.shift_right(shape, signed, false, even, bits);
    let odd = l.shift_right(shape, signed, false, a, bits);
    let mut sum = l.vadd(shape, even, odd);
    if accumulate {
        let d = l.v(i.rd());
        sum = l.vadd(shape, d, sum);
    }
    l.set_form(i.rd(), wide, sum);
}

/// SADDLP Vd.Ta, Vn.Tb
pub fn saddlp(l: &mut Lifter<'_>, i: Insn) {
    add_pairs_long(l, i, true, false);
}
/// UADDLP Vd.Ta, Vn.Tb
pub fn uaddlp(l: &mut Lifter<'_>, i: Insn) {
    add_pairs_long(l, i, false, false);
}
/// SADALP Vd.Ta, Vn.Tb
pub fn sadalp(l: &mut Lifter<'_>, i: Insn) {
    add_pairs_long(l, i, true, true);
}
/// UADALP Vd.Ta, Vn.Tb
pub fn uadalp(l: &mut Lifter<'_>, i: Insn) {
    add_pairs_long(l, i, false, true);
}

/// How a narrowing instruction treats what does not fit.
#[derive(Clone, Copy, PartialEq)]
pub enum Narrow {
    Truncate,
    /// Signed to signed.
    Signed,
    /// Signed to unsigned.
    SignedUnsigned,
    Unsigned,
}

/// Narrows the lanes of `v` to `1 << log2` bytes and writes them to Vd: a scalar, the low half, or (`2` forms)
/// the high half.
pub fn narrow(l: &mut Lifter<'_>, i: Insn, log2: u8, how: Narrow, v: Value) {
    let source = if is_scalar(i) { Form::scalar(log2 + 1) } else { Form::vector(log2 + 1, true) };
    let (shape, narrow_shape) = (source.shape(), Shape::int_of_log2(log2));
    let zero = l.zero_v();
    let v = l.low_bits(source.bits, v);
    let low = match how {
        Narrow::Truncate => l.vnarrow(shape, v, zero),
        Narrow::Signed => l.vnarrow_sat_s(shape, v, zero),
        Narrow::SignedUnsigned => l.vnarrow_sat_su(shape, v, zero),
        Narrow::Unsigned => l.vnarrow_sat_u(shape, v, zero),
    };
    if how != Narrow::Truncate {
        let back = l.widen(narrow_shape, how == Narrow::Signed, false, low);
        let difference = l.vxor(back, v);
        l.saturated(source, difference);
    }
    l.set_narrow(i.rd(), !is_scalar(i) && q(i), low);
}

fn extract_narrow(l: &mut Lifter<'_>, i: Insn, how: Narrow) {
    let v = l.v(i.rn());
    narrow(l, i, size(i), how, v);
}

/// XTN{2} Vd.Tb, Vn.Ta
pub fn xtn(l: &mut Lifter<'_>, i: Insn) {
    extract_narrow(l, i, Narrow::Truncate);
}
/// SQXTN{2} Vd.Tb, Vn.Ta
pub fn sqxtn(l: &mut Lifter<'_>, i: Insn) {
    extract_narrow(l, i, Narrow::Signed);
}
/// SQXTUN{2} Vd.Tb, Vn.Ta
pub fn sqxtun(l: &mut Lifter<'_>, i: Insn) {
    extract_narrow(l, i, Narrow::SignedUnsigned);
}
/// UQXTN{2} Vd.Tb, Vn.Ta
pub fn uqxtn(l: &mut Lifter<'_>, i: Insn) {
    extract_narrow(l, i, Narrow::Unsigned);
}

/// SHLL{2} Vd.Ta, Vn.Tb, #width
pub fn shll(l: &mut Lifter<'_>, i: Insn) {
    let form = Form::vector(size(i), true);
    let a = l.v(i.rn());
    let wide = l.widen(form.shape(), false, q(i), a);
    let result = l.vshl_i(form.wide().shape(), wide, form.lane_bits());
    l.set_v(i.rd(), result);
}

/// Reciprocal estimates of unsigned fixed-point numbers, 32-bit lanes.
fn unsigned_estimate(l: &mut Lifter<'_>, i: Insn, op: SimdOp) {
    debug_assert_eq!(field(i, 22, 1), 0);
    let form = Form::vector(2, q(i));
    let a = l.v(i.rn());
    let result = l.simd_helper(op, form, &[a, a]);
    l.set_form(i.rd(), form, result);
}

/// URECPE Vd.T, Vn.T
pub fn urecpe(l: &mut Lifter<'_>, i: Insn) {
    unsigned_estimate(l, i, SimdOp::Urecpe);
}
/// URSQRTE Vd.T, Vn.T
pub fn ursqrte(l: &mut Lifter<'_>, i: Insn) {
    unsigned_estimate(l, i, SimdOp::Ursqrte);
}
