//! Conversion between floating point and integers or fixed point in general registers (Arm ARM C4.1.96 "Conversion
//! between floating-point and integer", "and fixed-point"), and FMOV to and from general registers.

use super::arith::scalar_form;
use super::helpers::FP_JAVASCRIPT;
use super::ops::{Fp1, Unary};
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::field;
use tulk_ir::{Round, Shape, Type};

/// The general register's type, by bit 31.
fn general(i: Insn) -> Type {
    if i.sf() != 0 { Type::I64 } else { Type::I32 }
}

macro_rules! to_int {
    ($($name:ident $op:ident $round:ident;)+) => { $(
        #[doc = concat!(stringify!($name), " Rd, Fn")]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            let unary = Unary::rounding(Fp1::$op, Round::$round);
            l.fp_to_general(unary, scalar_form(i), general(i), i.rd(), i.rn());
        }
    )+ };
}

to_int! {
    fcvtns_g ToS Nearest;
    fcvtnu_g ToU Nearest;
    fcvtps_g ToS Up;
    fcvtpu_g ToU Up;
    fcvtms_g ToS Down;
    fcvtmu_g ToU Down;
    fcvtzs_g ToS Zero;
    fcvtzu_g ToU Zero;
    fcvtas_g ToS Away;
    fcvtau_g ToU Away;
}

fn from_int(l: &mut Lifter<'_>, i: Insn, op: Fp1, fraction: u8) {
    let x = l.r(i.sf(), i.rn());
    l.fp_from_general(Unary::fixed(op, Round::Current, fraction), scalar_form(i), i.rd(), x);
}

/// SCVTF Fd, Rn
pub fn scvtf_g(l: &mut Lifter<'_>, i: Insn) {
    from_int(l, i, Fp1::FromS, 0);
}
/// UCVTF Fd, Rn
pub fn ucvtf_g(l: &mut Lifter<'_>, i: Insn) {
    from_int(l, i, Fp1::FromU, 0);
}

/// Fraction bits of the fixed-point forms: 64 - scale.
fn fraction(i: Insn) -> u8 {
    64 - field(i, 10, 6) as u8
}

/// SCVTF Fd, Rn, #fbits
pub fn scvtf_fixed_g(l: &mut Lifter<'_>, i: Insn) {
    from_int(l, i, Fp1::FromS, fraction(i));
}
/// UCVTF Fd, Rn, #fbits
pub fn ucvtf_fixed_g(l: &mut Lifter<'_>, i: Insn) {
    from_int(l, i, Fp1::FromU, fraction(i));
}
/// FCVTZS Rd, Fn, #fbits
pub fn fcvtzs_fixed_g(l: &mut Lifter<'_>, i: Insn) {
    let unary = Unary::fixed(Fp1::ToS, Round::Zero, fraction(i));
    l.fp_to_general(unary, scalar_form(i), general(i), i.rd(), i.rn());
}
/// FCVTZU Rd, Fn, #fbits
pub fn fcvtzu_fixed_g(l: &mut Lifter<'_>, i: Insn) {
    let unary = Unary::fixed(Fp1::ToU, Round::Zero, fraction(i));
    l.fp_to_general(unary, scalar_form(i), general(i), i.rd(), i.rn());
}

/// FJCVTZS Wd, Dn
pub fn fjcvtzs(l: &mut Lifter<'_>, i: Insn) {
    let v = l.v(i.rn());
    let both = l.call(FP_JAVASCRIPT, &[v], 0);
    let word = l.trunc(Type::I32, both);
    l.set_r(i.rd(), word);
    let exact = l.bextract_u(both, 32, 1);
    let z = l.shl_imm(exact, 30);
    let z = l.trunc(Type::I32, z);
    l.set_nzcv(z);
}

/// FMOV Rd, Fn: half, single or double bits to a general register
pub fn fmov_to_general(l: &mut Lifter<'_>, i: Insn) {
    let ty = [Type::I8, Type::I16, Type::I32, Type::I64][scalar_form(i).log2 as usize];
    let x = l.scalar(ty, i.rn());
    l.set_r(i.rd(), x);
}
/// FMOV Fd, Rn
pub fn fmov_from_general(l: &mut Lifter<'_>, i: Insn) {
    let form = scalar_form(i);
    let ty = Type::int_of_log2(form.log2);
    let x = l.r(i.sf(), i.rn());
    let x = l.trunc(ty, x);
    let x = if form.log2 == 1 { x } else { l.bitcast(form.float_type(), x) };
    l.set_scalar(i.rd(), x);
}
/// FMOV Xd, Vn.D[1]
pub fn fmov_top_to_general(l: &mut Lifter<'_>, i: Insn) {
    let v = l.v(i.rn());
    let x = l.vlane(Shape::I64x2, v, 1);
    l.set_r(i.rd(), x);
}
/// FMOV Vd.D[1], Xn
pub fn fmov_top_from_general(l: &mut Lifter<'_>, i: Insn) {
    let d = l.v(i.rd());
    let x = l.x(i.rn());
    let r = l.vset_lane(Shape::I64x2, d, 1, x);
    l.set_v(i.rd(), r);
}
