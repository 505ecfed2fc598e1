//! The float instructions of the AdvSIMD groups (Arm ARM C4.1.96): three same, two-register miscellaneous, across
//! lanes, scalar pairwise, by element, and the conversions of the shift group. One function serves the half, the
//! single and double, the vector and the scalar row of an instruction.

use super::by_element::element_place;
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::fp::ops::{Fp1, Fp2, Fp3, Precision, Unary};
use crate::a64::vector::{Form, bit, field, is_scalar, q};
use tulk_ir::{Round, Value};

/// Lane size of a three-register instruction: bit 21 is clear in the half-precision encodings.
fn three_form(i: Insn) -> Form {
    Form::with_log2(i, if bit(i, 21) { 2 + field(i, 22, 1) as u8 } else { 1 })
}
/// Lane size of a two-register instruction: bit 20 is set in the half-precision encodings.
fn two_form(i: Insn) -> Form {
    Form::with_log2(i, if bit(i, 20) { 1 } else { 2 + field(i, 22, 1) as u8 })
}
/// Lane size of the reductions: U (bit 29) is clear in the half-precision encodings.
fn reduce_log2(i: Insn) -> u8 {
    if bit(i, 29) { 2 + field(i, 22, 1) as u8 } else { 1 }
}
/// Lane size of a by-element instruction, from bits 23:22.
fn element_form(i: Insn) -> Form {
    Form::with_log2(i, [1, 1, 2, 3][field(i, 22, 2) as usize])
}

macro_rules! three_same {
    ($($name:ident $op:ident;)+) => { $(
        #[doc = concat!(stringify!($name), " Vd.T, Vn.T, Vm.T")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            l.fp2_regs(Fp2::$op, three_form(i), i.rd(), i.rn(), i.rm());
        }
    )+ };
}

three_same! {
    fadd_v Add;
    fsub_v Sub;
    fmul_v Mul;
    fdiv_v Div;
    fmax_v Max;
    fmin_v Min;
    fmaxnm_v MaxNum;
    fminnm_v MinNum;
    fmulx_v Mulx;
    fabd Abd;
    frecps Recps;
    frsqrts Rsqrts;
    fcmeq_reg CmEq;
    fcmge_reg CmGe;
    fcmgt_reg CmGt;
    facge AcGe;
    facgt AcGt;
}

fn fused(l: &mut Lifter<'_>, i: Insn, form: Form, subtract: bool, b: Value) {
    let (acc, mut a) = (l.v(i.rd()), l.v(i.rn()));
    if subtract {
        a = l.negate(form, a);
    }
    let result = l.fp3(Fp3::Fma, form, a, b, acc);
    l.set_v(i.rd(), result);
}

/// FMLA Vd.T, Vn.T, Vm.T
pub fn fmla_v(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    fused(l, i, three_form(i), false, b);
}
/// FMLS Vd.T, Vn.T, Vm.T
pub fn fmls_v(l: &mut Lifter<'_>, i: Insn) {
    let b = l.v(i.rm());
    fused(l, i, three_form(i), true, b);
}

/// Even against odd lanes of Vm:Vn.
fn pairwise(l: &mut Lifter<'_>, i: Insn, op: Fp2) {
    let form = three_form(i);
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let (even, odd) = (l.unzip(form, false, a, b), l.unzip(form, true, a, b));
    let result = l.fp2(op, form, even, odd);
    l.set_v(i.rd(), result);
}

/// Lane 0 against lane 1.
fn scalar_pairwise(l: &mut Lifter<'_>, i: Insn, op: Fp2) {
    let form = Form::scalar(reduce_log2(i));
    let a = l.v(i.rn());
    let b = l.dup_lane(form.log2, a, 1);
    let result = l.fp2(op, form, a, b);
    l.set_v(i.rd(), result);
}

/// All lanes, neighbours first (Arm ARM, Reduce).
fn across(l: &mut Lifter<'_>, i: Insn, op: Fp2) {
    let mut form = Form::vector(reduce_log2(i), q(i));
    let mut v = l.v(i.rn());
    while !form.is_scalar() {
        let (even, odd) = (l.unzip(form, false, v, v), l.unzip(form, true, v, v));
        form.bits /= 2;
        v = l.fp2(op, form, even, odd);
    }
    l.set_v(i.rd(), v);
}

macro_rules! pairs {
    ($($vector:ident $scalar:ident $op:ident;)+) => { $(
        #[doc = concat!(stringify!($vector), " Vd.T, Vn.T, Vm.T")]
        pub fn $vector(l: &mut Lifter<'_>, i: Insn) {
            pairwise(l, i, Fp2::$op);
        }
        #[doc = concat!(stringify!($scalar), " Vd, Vn.2T")]
        pub fn $scalar(l: &mut Lifter<'_>, i: Insn) {
            scalar_pairwise(l, i, Fp2::$op);
        }
    )+ };
}

pairs! {
    faddp_v faddp_scalar Add;
    fmaxp_v fmaxp_scalar Max;
    fminp_v fminp_scalar Min;
    fmaxnmp_v fmaxnmp_scalar MaxNum;
    fminnmp_v fminnmp_scalar MinNum;
}

macro_rules! reductions {
    ($($name:ident $op:ident;)+) => { $(
        #[doc = concat!(stringify!($name), " Vd, Vn.T")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            across(l, i, Fp2::$op);
        }
    )+ };
}

reductions! {
    fmaxv Max;
    fminv Min;
    fmaxnmv MaxNum;
    fminnmv MinNum;
}

macro_rules! two_reg {
    ($($name:ident $unary:expr;)+) => { $(
        #[doc = concat!(stringify!($name), " Vd.T, Vn.T")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            l.fp1_regs($unary, two_form(i), i.rd(), i.rn());
        }
    )+ };
}

two_reg! {
    fsqrt_v Unary::new(Fp1::Sqrt);
    frintn_v Unary::rounding(Fp1::Round, Round::Nearest);
    frintp_v Unary::rounding(Fp1::Round, Round::Up);
    frintm_v Unary::rounding(Fp1::Round, Round::Down);
    frintz_v Unary::rounding(Fp1::Round, Round::Zero);
    frinta_v Unary::rounding(Fp1::Round, Round::Away);
    frintx_v Unary::new(Fp1::RoundExact);
    frinti_v Unary::new(Fp1::Round);
    frint32z_v Unary::rounding(Fp1::Round32, Round::Zero);
    frint32x_v Unary::new(Fp1::Round32);
    frint64z_v Unary::rounding(Fp1::Round64, Round::Zero);
    frint64x_v Unary::new(Fp1::Round64);
    fcvtns_v Unary::rounding(Fp1::ToS, Round::Nearest);
    fcvtnu_v Unary::rounding(Fp1::ToU, Round::Nearest);
    fcvtps_v Unary::rounding(Fp1::ToS, Round::Up);
    fcvtpu_v Unary::rounding(Fp1::ToU, Round::Up);
    fcvtms_v Unary::rounding(Fp1::ToS, Round::Down);
    fcvtmu_v Unary::rounding(Fp1::ToU, Round::Down);
    fcvtzs_v Unary::rounding(Fp1::ToS, Round::Zero);
    fcvtzu_v Unary::rounding(Fp1::ToU, Round::Zero);
    fcvtas_v Unary::rounding(Fp1::ToS, Round::Away);
    fcvtau_v Unary::rounding(Fp1::ToU, Round::Away);
    scvtf_v Unary::new(Fp1::FromS);
    ucvtf_v Unary::new(Fp1::FromU);
    frecpe Unary::new(Fp1::Recpe);
    frsqrte Unary::new(Fp1::Rsqrte);
    frecpx Unary::new(Fp1::Recpx);
}

/// FABS Vd.T, Vn.T
pub fn fabs_v(l: &mut Lifter<'_>, i: Insn) {
    let form = two_form(i);
    let v = l.v(i.rn());
    let result = l.magnitude(form, v);
    l.set_form(i.rd(), form, result);
}
/// FNEG Vd.T, Vn.T
pub fn fneg_v(l: &mut Lifter<'_>, i: Insn) {
    let form = two_form(i);
    let v = l.v(i.rn());
    let result = l.negate(form, v);
    l.set_form(i.rd(), form, result);
}

/// Comparison with zero, which is the second operand unless `swap`.
fn compare_zero(l: &mut Lifter<'_>, i: Insn, op: Fp2, swap: bool) {
    let form = two_form(i);
    let (a, zero) = (l.v(i.rn()), l.zero_v());
    let result = if swap { l.fp2(op, form, zero, a) } else { l.fp2(op, form, a, zero) };
    l.set_v(i.rd(), result);
}

/// FCMGT Vd.T, Vn.T, #0.0
pub fn fcmgt_zero(l: &mut Lifter<'_>, i: Insn) {
    compare_zero(l, i, Fp2::CmGt, false);
}
/// FCMGE Vd.T, Vn.T, #0.0
pub fn fcmge_zero(l: &mut Lifter<'_>, i: Insn) {
    compare_zero(l, i, Fp2::CmGe, false);
}
/// FCMEQ Vd.T, Vn.T, #0.0
pub fn fcmeq_zero(l: &mut Lifter<'_>, i: Insn) {
    compare_zero(l, i, Fp2::CmEq, false);
}
/// FCMLE Vd.T, Vn.T, #0.0
pub fn fcmle_zero(l: &mut Lifter<'_>, i: Insn) {
    compare_zero(l, i, Fp2::CmGe, true);
}
/// FCMLT Vd.T, Vn.T, #0.0
pub fn fcmlt_zero(l: &mut Lifter<'_>, i: Insn) {
    compare_zero(l, i, Fp2::CmGt, true);
}

/// FCVTL{2} Vd.Ta, Vn.Tb
pub fn fcvtl(l: &mut Lifter<'_>, i: Insn) {
    let mut v = l.v(i.rn());
    if q(i) {
        v = l.high_to_low(v);
    }
    let result = if bit(i, 22) {
        l.fp_convert(Precision::Single, Precision::Double, 2, false, v)
    } else {
        l.fp_convert(Precision::Half, Precision::Single, 4, false, v)
    };
    l.set_v(i.rd(), result);
}

fn narrow(l: &mut Lifter<'_>, i: Insn, from: Precision, to: Precision, to_odd: bool) {
    let v = l.v(i.rn());
    let lanes = if is_scalar(i) { 1 } else { 16 >> from.log2() };
    let low = l.fp_convert(from, to, lanes, to_odd, v);
    l.set_narrow(i.rd(), !is_scalar(i) && q(i), low);
}

/// FCVTN{2} Vd.Tb, Vn.Ta
pub fn fcvtn(l: &mut Lifter<'_>, i: Insn) {
    if bit(i, 22) {
        narrow(l, i, Precision::Double, Precision::Single, false);
    } else {
        narrow(l, i, Precision::Single, Precision::Half, false);
    }
}
/// FCVTXN{2} Vd.Tb, Vn.2D and FCVTXN Sd, Dn: rounding to odd
pub fn fcvtxn(l: &mut Lifter<'_>, i: Insn) {
    narrow(l, i, Precision::Double, Precision::Single, true);
}
/// BFCVTN{2} Vd.Tb, Vn.4S
pub fn bfcvtn(l: &mut Lifter<'_>, i: Insn) {
    narrow(l, i, Precision::Single, Precision::Bfloat, false);
}

/// The element in every lane.
fn element(l: &mut Lifter<'_>, i: Insn, form: Form) -> Value {
    let (register, index) = element_place(i, form.log2);
    let v = l.v(register);
    l.dup_lane(form.log2, v, index)
}

/// FMUL Vd, Vn, Vm.Ts[index]
pub fn fmul_elem(l: &mut Lifter<'_>, i: Insn) {
    let form = element_form(i);
    let (a, b) = (l.v(i.rn()), element(l, i, form));
    let result = l.fp2(Fp2::Mul, form, a, b);
    l.set_v(i.rd(), result);
}
/// FMULX Vd, Vn, Vm.Ts[index]
pub fn fmulx_elem(l: &mut Lifter<'_>, i: Insn) {
    let form = element_form(i);
    let (a, b) = (l.v(i.rn()), element(l, i, form));
    let result = l.fp2(Fp2::Mulx, form, a, b);
    l.set_v(i.rd(), result);
}
/// FMLA Vd, Vn, Vm.Ts[index]
pub fn fmla_elem(l: &mut Lifter<'_>, i: Insn) {
    let form = element_form(i);
    let b = element(l, i, form);
    fused(l, i, form, false, b);
}
/// FMLS Vd, Vn, Vm.Ts[index]
pub fn fmls_elem(l: &mut Lifter<'_>, i: Insn) {
    let form = element_form(i);
    let b = element(l, i, form);
    fused(l, i, form, true, b);
}

/// The conversions to and from fixed point: immh gives the lane size, immh:immb the fraction bits.
fn fixed(l: &mut Lifter<'_>, i: Insn, op: Fp1) {
    let log2 = field(i, 19, 4).ilog2() as u8;
    let form = Form::with_log2(i, log2);
    let fraction = 2 * form.lane_bits() - field(i, 16, 7);
    let round = if matches!(op, Fp1::ToS | Fp1::ToU) { Round::Zero } else { Round::Current };
    l.fp1_regs(Unary::fixed(op, round, fraction as u8), form, i.rd(), i.rn());
}

/// SCVTF Vd.T, Vn.T, #fbits
pub fn scvtf_fixed(l: &mut Lifter<'_>, i: Insn) {
    fixed(l, i, Fp1::FromS);
}
/// UCVTF Vd.T, Vn.T, #fbits
pub fn ucvtf_fixed(l: &mut Lifter<'_>, i: Insn) {
    fixed(l, i, Fp1::FromU);
}
/// FCVTZS Vd.T, Vn.T, #fbits
pub fn fcvtzs_fixed(l: &mut Lifter<'_>, i: Insn) {
    fixed(l, i, Fp1::ToS);
}
/// FCVTZU Vd.T, Vn.T, #fbits
pub fn fcvtzu_fixed(l: &mut Lifter<'_>, i: Insn) {
    fixed(l, i, Fp1::ToU);
}
