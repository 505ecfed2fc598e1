//! AdvSIMD modified immediate (Arm ARM C4.1.96 "Advanced SIMD modified immediate").

use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, field, q};

/// The 8-bit immediate a:b:c:d:e:f:g:h.
fn imm8(i: Insn) -> u64 {
    (field(i, 16, 3) << 5 | field(i, 5, 5)) as u64
}

/// The 64 bits that op, cmode and imm8 stand for (Arm ARM, AdvSIMDExpandImm), FMOV excepted.
fn expand(i: Insn) -> u64 {
    let (imm, cmode) = (imm8(i), field(i, 12, 4));
    let each = |log2: u8, lane: u64| Form::vector(log2, false).splat(lane) as u64;
    match cmode {
        0..=7 => each(2, imm << (8 * (cmode >> 1))),
        8..=11 => each(1, imm << (8 * (cmode >> 1 & 1))),
        12 => each(2, imm << 8 | 0xff),
        13 => each(2, imm << 16 | 0xffff),
        14 if field(i, 29, 1) == 0 => each(0, imm),
        // Every bit of the immediate becomes a byte.
        _ => (0..8).fold(0, |r, k| r | ((imm >> k & 1) * 0xff) << (8 * k)),
    }
}

/// imm8 as a float of `1 << log2` bytes (Arm ARM, VFPExpandImm).
pub fn float_immediate(log2: u8, imm8: u64) -> u64 {
    let (exponent_bits, fraction_bits) = match log2 {
        1 => (5, 10),
        2 => (8, 23),
        _ => (11, 52),
    };
    let sign = imm8 >> 7;
    // NOT(b) : Replicate(b) : cd
    let repeated = (imm8 >> 6 & 1) * ((1 << (exponent_bits - 3)) - 1);
    let exponent = (!imm8 >> 6 & 1) << (exponent_bits - 1) | repeated << 2 | imm8 >> 4 & 3;
    sign << (exponent_bits + fraction_bits)
        | exponent << fraction_bits
        | (imm8 & 15) << (fraction_bits - 4)
}

fn constant(l: &mut Lifter<'_>, i: Insn, lane: u64) {
    let v = lane as u128 | if q(i) { (lane as u128) << 64 } else { 0 };
    let v = l.vconst(v);
    l.set_v(i.rd(), v);
}

/// MOVI Vd.T, #imm
pub fn movi(l: &mut Lifter<'_>, i: Insn) {
    constant(l, i, expand(i));
}
/// MVNI Vd.T, #imm
pub fn mvni(l: &mut Lifter<'_>, i: Insn) {
    constant(l, i, !expand(i));
}
/// ORR Vd.T, #imm
pub fn orr_imm(l: &mut Lifter<'_>, i: Insn) {
    let (d, imm) = (l.v(i.rd()), l.vconst(Form::vector(3, true).splat(expand(i))));
    let result = l.vor(d, imm);
    l.set_form(i.rd(), Form::vector(3, q(i)), result);
}
/// BIC Vd.T, #imm
pub fn bic_imm(l: &mut Lifter<'_>, i: Insn) {
    let (d, imm) = (l.v(i.rd()), l.vconst(Form::vector(3, true).splat(expand(i))));
    let result = l.vand_not(d, imm);
    l.set_form(i.rd(), Form::vector(3, q(i)), result);
}
/// FMOV Vd.T, #imm (single, double)
pub fn fmov_vector_imm(l: &mut Lifter<'_>, i: Insn) {
    let log2 = 2 + field(i, 29, 1) as u8;
    let lane = float_immediate(log2, imm8(i));
    constant(l, i, Form::vector(log2, false).splat(lane) as u64);
}
/// FMOV Vd.T, #imm (half)
pub fn fmov_vector_imm_half(l: &mut Lifter<'_>, i: Insn) {
    let lane = float_immediate(1, imm8(i));
    constant(l, i, Form::vector(1, false).splat(lane) as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_immediates() {
        assert_eq!(float_immediate(3, 0x70), 1f64.to_bits());
        assert_eq!(float_immediate(2, 0x70), 1f32.to_bits() as u64);
        assert_eq!(float_immediate(1, 0x70), 0x3c00);
        assert_eq!(float_immediate(3, 0x80), (-2f64).to_bits());
        assert_eq!(float_immediate(2, 0x3f), 31f32.to_bits() as u64);
    }
}
