//! AdvSIMD three registers of the same type, integer (Arm ARM C4.1.96 "Advanced SIMD three same" and "scalar three
//! same"). One function serves the vector and the scalar row of an instruction. The float instructions of the
//! group are in `float.rs`.

use super::helpers::SimdOp;
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, q};
use tulk_ir::{IntCc, Value};

/// Vd = op(Vn, Vm) in lanes of log2 size `sizes.0 ..= sizes.1`.
fn three_same(
    l: &mut Lifter<'_>,
    i: Insn,
    op: impl Fn(&mut Lifter<'_>, Form, Value, Value) -> Value,
) {
    let form = Form::of(i);
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let result = op(l, form, a, b);
    l.set_form(i.rd(), form, result);
}

/// Vd = op(Vd, Vn, Vm).
fn accumulate(
    l: &mut Lifter<'_>,
    i: Insn,
    op: impl Fn(&mut Lifter<'_>, Form, Value, Value, Value) -> Value,
) {
    three_same(l, i, |l, form, a, b| {
        let acc = l.v(i.rd());
        op(l, form, acc, a, b)
    });
}

macro_rules! three_same {
    ($($name:ident ($l:ident, $f:ident, $a:ident, $b:ident) $body:expr;)+) => { $(
        #[doc = concat!(stringify!($name), " Vd.T, Vn.T, Vm.T")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            three_same(l, i, |$l, $f, $a, $b| $body);
        }
    )+ };
}

three_same! {
    add_v (l, f, a, b) l.vadd(f.shape(), a, b);
    sub_v (l, f, a, b) l.vsub(f.shape(), a, b);
    mul_v (l, f, a, b) l.vmul(f.shape(), a, b);
    smax (l, f, a, b) l.vmax_s(f.shape(), a, b);
    umax (l, f, a, b) l.vmax_u(f.shape(), a, b);
    smin (l, f, a, b) l.vmin_s(f.shape(), a, b);
    umin (l, f, a, b) l.vmin_u(f.shape(), a, b);
    sabd (l, f, a, b) l.abs_diff(f.shape(), true, a, b);
    uabd (l, f, a, b) l.abs_diff(f.shape(), false, a, b);
    cmgt_reg (l, f, a, b) l.vicmp(IntCc::GtS, f.shape(), a, b);
    cmhi (l, f, a, b) l.vicmp(IntCc::GtU, f.shape(), a, b);
    cmge_reg (l, f, a, b) l.vicmp(IntCc::GeS, f.shape(), a, b);
    cmhs (l, f, a, b) l.vicmp(IntCc::GeU, f.shape(), a, b);
    cmeq_reg (l, f, a, b) l.vicmp(IntCc::Eq, f.shape(), a, b);
    cmtst (l, f, a, b) {
        let (common, zero) = (l.vand(a, b), l.zero_v());
        l.vicmp(IntCc::Ne, f.shape(), common, zero)
    };

    // Halving: with a + b = 2 (a & b) + (a ^ b) and its like no intermediate result overflows.
    shadd (l, f, a, b) halving(l, f, true, a, b);
    uhadd (l, f, a, b) halving(l, f, false, a, b);
    srhadd (l, f, a, b) {
        let (any, differ) = (l.vor(a, b), l.vxor(a, b));
        let half = l.vshr_s_i(f.shape(), differ, 1);
        l.vsub(f.shape(), any, half)
    };
    urhadd (l, f, a, b) if f.log2 < 2 {
        l.vavg_u(f.shape(), a, b)
    } else {
        let (any, differ) = (l.vor(a, b), l.vxor(a, b));
        let half = l.vshr_u_i(f.shape(), differ, 1);
        l.vsub(f.shape(), any, half)
    };
    shsub (l, f, a, b) halving_sub(l, f, true, a, b);
    uhsub (l, f, a, b) halving_sub(l, f, false, a, b);

    // Saturating.
    sqadd (l, f, a, b) {
        let (r, wrapped) = (l.vadd_sat_s(f.shape(), a, b), l.vadd(f.shape(), a, b));
        l.saturating(f, r, wrapped)
    };
    uqadd (l, f, a, b) {
        let (r, wrapped) = (l.vadd_sat_u(f.shape(), a, b), l.vadd(f.shape(), a, b));
        l.saturating(f, r, wrapped)
    };
    sqsub (l, f, a, b) {
        let (r, wrapped) = (l.vsub_sat_s(f.shape(), a, b), l.vsub(f.shape(), a, b));
        l.saturating(f, r, wrapped)
    };
    uqsub (l, f, a, b) {
        let (r, wrapped) = (l.vsub_sat_u(f.shape(), a, b), l.vsub(f.shape(), a, b));
        l.saturating(f, r, wrapped)
    };
    sqdmulh_v (l, f, a, b) l.doubling_high(f, false, a, b);
    sqrdmulh_v (l, f, a, b) l.doubling_high(f, true, a, b);

    // Shifts by a signed amount in the low byte of each lane of Vm: left when positive, right when negative.
    ushl (l, f, a, b) {
        let amount = shift_amount(l, f, b);
        let right = l.vneg(f.shape(), amount);
        // Of the two amounts one is at least the lane width, and its result zero, unless both are zero.
        let left = l.vshl_v(f.shape(), a, amount);
        let right = l.vshr_u_v(f.shape(), a, right);
        l.vor(left, right)
    };
    sshl (l, f, a, b) {
        let amount = shift_amount(l, f, b);
        let negative = l.negative(f.shape(), amount);
        let right = l.vneg(f.shape(), amount);
        let left = l.vshl_v(f.shape(), a, amount);
        let right = l.vshr_s_v(f.shape(), a, right);
        l.vbitsel(negative, right, left)
    };
    srshl (l, f, a, b) l.simd_helper(SimdOp::Srshl, f, &[a, b]);
    urshl (l, f, a, b) l.simd_helper(SimdOp::Urshl, f, &[a, b]);
    sqshl_reg (l, f, a, b) l.simd_helper(SimdOp::Sqshl, f, &[a, b]);
    uqshl_reg (l, f, a, b) l.simd_helper(SimdOp::Uqshl, f, &[a, b]);
    sqrshl (l, f, a, b) l.simd_helper(SimdOp::Sqrshl, f, &[a, b]);
    uqrshl (l, f, a, b) l.simd_helper(SimdOp::Uqrshl, f, &[a, b]);
    pmul (l, f, a, b) l.simd_helper(SimdOp::Pmul, f, &[a, b]);

    // Pairwise: even against odd lanes of Vm:Vn.
    addp_v (l, f, a, b) if f.bits == 128 {
        l.vadd_pairs(f.shape(), a, b)
    } else {
        let (even, odd) = (l.unzip(f, false, a, b), l.unzip(f, true, a, b));
        l.vadd(f.shape(), even, odd)
    };
    smaxp (l, f, a, b) {
        let (even, odd) = (l.unzip(f, false, a, b), l.unzip(f, true, a, b));
        l.vmax_s(f.shape(), even, odd)
    };
    umaxp (l, f, a, b) {
        let (even, odd) = (l.unzip(f, false, a, b), l.unzip(f, true, a, b));
        l.vmax_u(f.shape(), even, odd)
    };
    sminp (l, f, a, b) {
        let (even, odd) = (l.unzip(f, false, a, b), l.unzip(f, true, a, b));
        l.vmin_s(f.shape(), even, odd)
    };
    uminp (l, f, a, b) {
        let (even, odd) = (l.unzip(f, false, a, b), l.unzip(f, true, a, b));
        l.vmin_u(f.shape(), even, odd)
    };
}

fn halving(l: &mut Lifter<'_>, f: Form, signed: bool, a: Value, b: Value) -> Value {
    let (both, differ) = (l.vand(a, b), l.vxor(a, b));
    let half = l.shift_right(f.shape(), signed, false, differ, 1);
    l.vadd(f.shape(), both, half)
}

fn halving_sub(l: &mut Lifter<'_>, f: Form, signed: bool, a: Value, b: Value) -> Value {
    let (borrow, differ) = (l.vand_not(b, a), l.vxor(a, b));
    let half = l.shift_right(f.shape(), signed, false, differ, 1);
    l.vsub(f.shape(), half, borrow)
}

/// The sign-extended low byte of each lane.
fn shift_amount(l: &mut Lifter<'_>, f: Form, v: Value) -> Value {
    if f.log2 == 0 {
        return v;
    }
    let left = l.vshl_i(f.shape(), v, f.lane_bits() - 8);
    l.vshr_s_i(f.shape(), left, f.lane_bits() - 8)
}

/// MLA Vd.T, Vn.T, Vm.T
pub fn mla_v(l: &mut Lifter<'_>, i: Insn) {
    accumulate(l, i, |l, f, acc, a, b| {
        let product = l.vmul(f.shape(), a, b);
        l.vadd(f.shape(), acc, product)
    });
}
/// MLS Vd.T, Vn.T, Vm.T
pub fn mls_v(l: &mut Lifter<'_>, i: Insn) {
    accumulate(l, i, |l, f, acc, a, b| {
        let product = l.vmul(f.shape(), a, b);
        l.vsub(f.shape(), acc, product)
    });
}
/// SABA Vd.T, Vn.T, Vm.T
pub fn saba(l: &mut Lifter<'_>, i: Insn) {
    accumulate(l, i, |l, f, acc, a, b| {
        let difference = l.abs_diff(f.shape(), true, a, b);
        l.vadd(f.shape(), acc, difference)
    });
}
/// UABA Vd.T, Vn.T, Vm.T
pub fn uaba(l: &mut Lifter<'_>, i: Insn) {
    accumulate(l, i, |l, f, acc, a, b| {
        let difference = l.abs_diff(f.shape(), false, a, b);
        l.vadd(f.shape(), acc, difference)
    });
}

/// Bits of Vn, Vm and Vd combined, in the 8B or 16B form.
fn logical(l: &mut Lifter<'_>, i: Insn, op: impl Fn(&mut Lifter<'_>, Value, Value) -> Value) {
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let result = op(l, a, b);
    l.set_form(i.rd(), Form::vector(0, q(i)), result);
}

/// AND Vd.T, Vn.T, Vm.T
pub fn and_v(l: &mut Lifter<'_>, i: Insn) {
    logical(l, i, |l, a, b| l.vand(a, b));
}
/// BIC Vd.T, Vn.T, Vm.T
pub fn bic_v(l: &mut Lifter<'_>, i: Insn) {
    logical(l, i, |l, a, b| l.vand_not(a, b));
}
/// ORR Vd.T, Vn.T, Vm.T; MOV Vd.T, Vn.T when Vn is Vm
pub fn orr_v(l: &mut Lifter<'_>, i: Insn) {
    logical(l, i, |l, a, b| if i.rn() == i.rm() { a } else { l.vor(a, b) });
}
/// ORN Vd.T, Vn.T, Vm.T
pub fn orn_v(l: &mut Lifter<'_>, i: Insn) {
    logical(l, i, |l, a, b| {
        let b = l.vnot(b);
        l.vor(a, b)
    });
}
/// EOR Vd.T, Vn.T, Vm.T
pub fn eor_v(l: &mut Lifter<'_>, i: Insn) {
    logical(l, i, |l, a, b| if i.rn() == i.rm() { l.zero_v() } else { l.vxor(a, b) });
}
/// BSL Vd.T, Vn.T, Vm.T: Vd selects
pub fn bsl(l: &mut Lifter<'_>, i: Insn) {
    logical(l, i, |l, a, b| {
        let d = l.v(i.rd());
        l.vbitsel(d, a, b)
    });
}
/// BIT Vd.T, Vn.T, Vm.T: inserts where Vm is set
pub fn bit_v(l: &mut Lifter<'_>, i: Insn) {
    logical(l, i, |l, a, b| {
        let d = l.v(i.rd());
        l.vbitsel(b, a, d)
    });
}
/// BIF Vd.T, Vn.T, Vm.T: inserts where Vm is clear
pub fn bif_v(l: &mut Lifter<'_>, i: Insn) {
    logical(l, i, |l, a, b| {
        let d = l.v(i.rd());
        l.vbitsel(b, d, a)
    });
}
