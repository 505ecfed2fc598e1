//! Floating-point data processing, one, two and three sources, and immediate (Arm ARM C4.1.96 "Floating-point
//! data-processing (1 source)" and so on), scalar.

use super::ops::{Fp1, Fp2, Precision, Unary};
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::simd::modified_imm::float_immediate;
use crate::a64::vector::{Form, field};
use tulk_ir::{Round, Type};

/// The scalar form that ftype (bits 23:22) says: 00 single, 01 double, 11 half.
pub fn scalar_form(i: Insn) -> Form {
    Form::scalar(match field(i, 22, 2) {
        0 => 2,
        1 => 3,
        _ => 1,
    })
}

macro_rules! two_source {
    ($($name:ident $op:ident;)+) => { $(
        #[doc = concat!(stringify!($name), " Fd, Fn, Fm")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            l.fp2_regs(Fp2::$op, scalar_form(i), i.rd(), i.rn(), i.rm());
        }
    )+ };
}

two_source! {
    fmul_s Mul;
    fdiv_s Div;
    fadd_s Add;
    fsub_s Sub;
    fmax_s Max;
    fmin_s Min;
    fmaxnm_s MaxNum;
    fminnm_s MinNum;
    fnmul_s Nmul;
}

macro_rules! three_source {
    ($($name:ident ($addend:literal, $product:literal);)+) => { $(
        #[doc = concat!(stringify!($name), " Fd, Fn, Fm, Fa")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            let negate = ($addend, $product);
            l.fma_regs(scalar_form(i), negate, i.rd(), i.rn(), i.rm(), i.ra());
        }
    )+ };
}

// Whether the addend and the product are negated.
three_source! {
    fmadd (false, false);
    fmsub (false, true);
    fnmadd (true, true);
    fnmsub (true, false);
}

macro_rules! one_source {
    ($($name:ident $unary:expr;)+) => { $(
        #[doc = concat!(stringify!($name), " Fd, Fn")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            l.fp1_regs($unary, scalar_form(i), i.rd(), i.rn());
        }
    )+ };
}

one_source! {
    fsqrt_s Unary::new(Fp1::Sqrt);
    frintn_s Unary::rounding(Fp1::Round, Round::Nearest);
    frintp_s Unary::rounding(Fp1::Round, Round::Up);
    frintm_s Unary::rounding(Fp1::Round, Round::Down);
    frintz_s Unary::rounding(Fp1::Round, Round::Zero);
    frinta_s Unary::rounding(Fp1::Round, Round::Away);
    frintx_s Unary::new(Fp1::RoundExact);
    frinti_s Unary::new(Fp1::Round);
    frint32z_s Unary::rounding(Fp1::Round32, Round::Zero);
    frint32x_s Unary::new(Fp1::Round32);
    frint64z_s Unary::rounding(Fp1::Round64, Round::Zero);
    frint64x_s Unary::new(Fp1::Round64);
}

/// FMOV Fd, Fn
pub fn fmov_s(l: &mut Lifter<'_>, i: Insn) {
    let form = scalar_form(i);
    if form.log2 == 1 {
        let x = l.scalar(Type::I16, i.rn());
        return l.set_scalar(i.rd(), x);
    }
    let x = l.scalar(form.float_type(), i.rn());
    l.set_scalar(i.rd(), x);
}

/// FABS Fd, Fn
pub fn fabs_s(l: &mut Lifter<'_>, i: Insn) {
    let form = scalar_form(i);
    if form.log2 == 1 {
        let v = l.v(i.rn());
        let r = l.magnitude(form, v);
        return l.set_form(i.rd(), form, r);
    }
    let x = l.scalar(form.float_type(), i.rn());
    let r = l.fabs(x);
    l.set_scalar(i.rd(), r);
}

/// FNEG Fd, Fn
pub fn fneg_s(l: &mut Lifter<'_>, i: Insn) {
    let form = scalar_form(i);
    if form.log2 == 1 {
        let v = l.v(i.rn());
        let r = l.negate(form, v);
        return l.set_form(i.rd(), form, r);
    }
    let x = l.scalar(form.float_type(), i.rn());
    let r = l.fneg(x);
    l.set_scalar(i.rd(), r);
}

/// FCVT Fd, Fn: between half, single and double precision
pub fn fcvt(l: &mut Lifter<'_>, i: Insn) {
    let precision = |code| match code {
        0 => Precision::Single,
        1 => Precision::Double,
        _ => Precision::Half,
    };
    let (from, to) = (precision(field(i, 22, 2)), precision(field(i, 15, 2)));
    if !l.fp_special && from != Precision::Half && to != Precision::Half {
        let r = if to == Precision::Double {
            let x = l.scalar(Type::F32, i.rn());
            l.fpromote(x)
        } else {
            let x = l.scalar(Type::F64, i.rn());
            l.fdemote(x)
        };
        return l.set_scalar(i.rd(), r);
    }
    let v = l.v(i.rn());
    let r = l.fp_convert(from, to, 1, false, v);
    l.set_v(i.rd(), r);
}

/// BFCVT Hd, Sn
pub fn bfcvt(l: &mut Lifter<'_>, i: Insn) {
    let v = l.v(i.rn());
    let r = l.fp_convert(Precision::Single, Precision::Bfloat, 1, false, v);
    l.set_v(i.rd(), r);
}

/// FMOV Fd, #imm
pub fn fmov_imm(l: &mut Lifter<'_>, i: Insn) {
    let value = float_immediate(scalar_form(i).log2, field(i, 13, 8) as u64);
    let v = l.vconst(value as u128);
    l.set_v(i.rd(), v);
}
