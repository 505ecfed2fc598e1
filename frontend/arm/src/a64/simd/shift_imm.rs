//! AdvSIMD shift by immediate (Arm ARM C4.1.96 "Advanced SIMD shift by immediate" and "scalar shift by
//! immediate"). immh:immb gives lane width and amount together: its highest set bit is the width. The conversions
//! between fixed point and float of the group are in `float.rs`.

use super::two_reg_misc::{Narrow, narrow};
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, field, q};
use tulk_ir::{IntCc, Value};

/// log2 of the lane's bytes as immh says; the decode rows exclude immh = 0.
fn log2(i: Insn) -> u8 {
    debug_assert!(field(i, 19, 4) != 0);
    field(i, 19, 4).ilog2() as u8
}
/// The form that Q, bit 28 and immh encode.
fn form(i: Insn) -> Form {
    Form::with_log2(i, log2(i))
}
/// Right shift amount, 1 to `bits`.
fn right(i: Insn, bits: u32) -> u32 {
    2 * bits - field(i, 16, 7)
}
/// Left shift amount, 0 to `bits` - 1.
fn left(i: Insn, bits: u32) -> u32 {
    field(i, 16, 7) - bits
}

/// Vd = op(Vn, amount).
fn shift(l: &mut Lifter<'_>, i: Insn, op: impl Fn(&mut Lifter<'_>, Form, Value) -> Value) {
    let form = form(i);
    let a = l.v(i.rn());
    let result = op(l, form, a);
    l.set_form(i.rd(), form, result);
}

fn shift_right(l: &mut Lifter<'_>, i: Insn, signed: bool, round: bool, accumulate: bool) {
    shift(l, i, |l, f, a| {
        let r = l.shift_right(f.shape(), signed, round, a, right(i, f.lane_bits()));
        if accumulate {
            let d = l.v(i.rd());
            l.vadd(f.shape(), d, r)
        } else {
            r
        }
    });
}

/// SSHR Vd.T, Vn.T, #n
pub fn sshr(l: &mut Lifter<'_>, i: Insn) {
    shift_right(l, i, true, false, false);
}
/// USHR Vd.T, Vn.T, #n
pub fn ushr(l: &mut Lifter<'_>, i: Insn) {
    shift_right(l, i, false, false, false);
}
/// SSRA Vd.T, Vn.T, #n
pub fn ssra(l: &mut Lifter<'_>, i: Insn) {
    shift_right(l, i, true, false, true);
}
/// USRA Vd.T, Vn.T, #n
pub fn usra(l: &mut Lifter<'_>, i: Insn) {
    shift_right(l, i, false, false, true);
}
/// SRSHR Vd.T, Vn.T, #n
pub fn srshr(l: &mut Lifter<'_>, i: Insn) {
    shift_right(l, i, true, true, false);
}
/// URSHR Vd.T, Vn.T, #n
pub fn urshr(l: &mut Lifter<'_>, i: Insn) {
    shift_right(l, i, false, true, false);
}
/// SRSRA Vd.T, Vn.T, #n
pub fn srsra(l: &mut Lifter<'_>, i: Insn) {
    shift_right(l, i, true, true, true);
}
/// URSRA Vd.T, Vn.T, #n
pub fn ursra(l: &mut Lifter<'_>, i: Insn) {
    shift_right(l, i, false, true, true);
}

/// SHL Vd.T, Vn.T, #n
pub fn shl_v(l: &mut Lifter<'_>, i: Insn) {
    shift(l, i, |l, f, a| l.vshl_i(f.shape(), a, left(i, f.lane_bits())));
}
/// SLI Vd.T, Vn.T, #n: the low n bits of each lane stay
pub fn sli(l: &mut Lifter<'_>, i: Insn) {
    shift(l, i, |l, f, a| {
        let amount = left(i, f.lane_bits());
        let shifted = l.vshl_i(f.shape(), a, amount);
        insert(l, i, f, u64::MAX << amount, shifted)
    });
}
/// SRI Vd.T, Vn.T, #n: the high n bits of each lane stay
pub fn sri(l: &mut Lifter<'_>, i: Insn) {
    shift(l, i, |l, f, a| {
        let amount = right(i, f.lane_bits());
        let shifted = l.vshr_u_i(f.shape(), a, amount);
        let all = u64::MAX >> (64 - f.lane_bits());
        insert(l, i, f, all.checked_shr(amount).unwrap_or(0), shifted)
    });
}

/// Vd with the bits of `mask` in each lane replaced by those of `v`.
fn insert(l: &mut Lifter<'_>, i: Insn, f: Form, mask: u64, v: Value) -> Value {
    let mask = l.vconst(f.splat(mask));
    let d = l.v(i.rd());
    l.vbitsel(mask, v, d)
}

/// SQSHL Vd.T, Vn.T, #n
pub fn sqshl_imm(l: &mut Lifter<'_>, i: Insn) {
    shift(l, i, |l, f, a| {
        let (s, amount) = (f.shape(), left(i, f.lane_bits()));
        let shifted = l.vshl_i(s, a, amount);
        let back = l.vshr_s_i(s, shifted, amount);
        let over = l.vicmp(IntCc::Ne, s, back, a);
        l.saturated(f, over);
        let sign = l.vshr_s_i(s, a, f.lane_bits() - 1);
        let max = l.vconst(f.splat(u64::MAX >> (65 - f.lane_bits())));
        let limit = l.vxor(sign, max);
        l.vbitsel(over, limit, shifted)
    });
}
/// UQSHL Vd.T, Vn.T, #n
pub fn uqshl_imm(l: &mut Lifter<'_>, i: Insn) {
    shift(l, i, |l, f, a| {
        let (s, amount) = (f.shape(), left(i, f.lane_bits()));
        let shifted = l.vshl_i(s, a, amount);
        let back = l.vshr_u_i(s, shifted, amount);
        let over = l.vicmp(IntCc::Ne, s, back, a);
        l.saturated(f, over);
        l.vor(shifted, over)
    });
}
/// SQSHLU Vd.T, Vn.T, #n: signed to unsigned
pub fn sqshlu(l: &mut Lifter<'_>, i: Insn) {
    shift(l, i, |l, f, a| {
        let (s, amount) = (f.shape(), left(i, f.lane_bits()));
        let shifted = l.vshl_i(s, a, amount);
        let back = l.vshr_u_i(s, shifted, amount);
        let over = l.vicmp(IntCc::Ne, s, back, a);
        let negative = l.negative(s, a);
        let saturated = l.vor(over, negative);
        l.saturated(f, saturated);
        let all = l.vor(shifted, over);
        l.vand_not(all, negative)
    });
}

/// Shift right, then narrow to the lane width that immh says.
fn shift_right_narrow(l: &mut Lifter<'_>, i: Insn, signed: bool, round: bool, how: Narrow) {
    let log2 = log2(i);
    let source = Form::scalar(log2 + 1);
    let a = l.v(i.rn());
    let v = l.shift_right(source.shape(), signed, round, a, right(i, 8 << log2));
    narrow(l, i, log2, how, v);
}

/// SHRN{2} Vd.Tb, Vn.Ta, #n
pub fn shrn(l: &mut Lifter<'_>, i: Insn) {
    shift_right_narrow(l, i, false, false, Narrow::Truncate);
}
/// RSHRN{2} Vd.Tb, Vn.Ta, #n
pub fn rshrn(l: &mut Lifter<'_>, i: Insn) {
    shift_right_narrow(l, i, false, true, Narrow::Truncate);
}
/// SQSHRN{2} Vd.Tb, Vn.Ta, #n
pub fn sqshrn(l: &mut Lifter<'_>, i: Insn) {
    shift_right_narrow(l, i, true, false, Narrow::Signed);
}
/// SQRSHRN{2} Vd.Tb, Vn.Ta, #n
pub fn sqrshrn(l: &mut Lifter<'_>, i: Insn) {
    shift_right_narrow(l, i, true, true, Narrow::Signed);
}
/// SQSHRUN{2} Vd.Tb, Vn.Ta, #n
pub fn sqshrun(l: &mut Lifter<'_>, i: Insn) {
    shift_right_narrow(l, i, true, false, Narrow::SignedUnsigned);
}
/// SQRSHRUN{2} Vd.Tb, Vn.Ta, #n
pub fn sqrshrun(l: &mut Lifter<'_>, i: Insn) {
    shift_right_narrow(l, i, true, true, Narrow::SignedUnsigned);
}
/// UQSHRN{2} Vd.Tb, Vn.Ta, #n
pub fn uqshrn(l: &mut Lifter<'_>, i: Insn) {
    shift_right_narrow(l, i, false, false, Narrow::Unsigned);
}
/// UQRSHRN{2} Vd.Tb, Vn.Ta, #n
pub fn uqrshrn(l: &mut Lifter<'_>, i: Insn) {
    shift_right_narrow(l, i, false, true, Narrow::Unsigned);
}

fn shift_left_long(l: &mut Lifter<'_>, i: Insn, signed: bool) {
    let log2 = log2(i);
    let form = Form::vector(log2, true);
    let a = l.v(i.rn());
    let wide = l.widen(form.shape(), signed, q(i), a);
    let result = match left(i, form.lane_bits()) {
        0 => wide,
        amount => l.vshl_i(form.wide().shape(), wide, amount),
    };
    l.set_v(i.rd(), result);
}

/// SSHLL{2} Vd.Ta, Vn.Tb, #n
pub fn sshll(l: &mut Lifter<'_>, i: Insn) {
    shift_left_long(l, i, true);
}
/// USHLL{2} Vd.Ta, Vn.Tb, #n
pub fn ushll(l: &mut Lifter<'_>, i: Insn) {
    shift_left_long(l, i, false);
}
