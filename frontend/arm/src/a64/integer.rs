//! Data processing with general registers: immediate and register forms, CRC32, flag manipulation.
//!
//! 32-bit forms work on I32 and zero-extend, except where the 64-bit operation gives the same in fewer steps.

use super::decode::Insn;
use super::helpers::helpers;
use super::lifter::{Cond, Flags, Lifter};
use super::regs;
use tulk_base::Trap;
use tulk_ir::{Access, Builder, HelperCx, Type, Value};

helpers! { super::helpers::FIRST_INTEGER;
    /// CRC of the low bytes of the second operand; the immediate is their number, plus 16 for CRC-32C.
    CRC32 = helper_crc32(I32, I64) -> I32, Access::None, Access::None, pure;
}

/// Byte-wise tables of the two reflected polynomials.
static CRC_TABLES: [[u32; 256]; 2] = [crc_table(0xedb8_8320), crc_table(0x82f6_3b78)];

const fn crc_table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { polynomial } else { 0 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

fn helper_crc32(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let kind = args[3] as usize;
    let table = &CRC_TABLES[kind >> 4 & 1];
    let bytes = (args[1] as u64).to_le_bytes();
    let crc = bytes
        .iter()
        .take(kind & 15)
        .fold(args[0] as u32, |crc, byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize]);
    Ok(crc as u128)
}

const fn word_type(sf: u32) -> Type {
    if sf != 0 { Type::I64 } else { Type::I32 }
}

/// A binary operation of the builder.
type Binary<'a> = fn(&mut Builder<'a>, Value, Value) -> Value;

// PC-relative addresses.

fn pc_offset(i: Insn) -> i64 {
    (((i.immhi() << 2 | i.immlo()) << 11) as i32 >> 11) as i64
}

/// ADR Xd, label
pub fn adr(l: &mut Lifter<'_>, i: Insn) {
    l.set_known(i.rd(), l.pc.wrapping_add(pc_offset(i) as u64));
}

/// ADRP Xd, label
pub fn adrp(l: &mut Lifter<'_>, i: Insn) {
    l.set_known(i.rd(), (l.pc & !0xfff).wrapping_add((pc_offset(i) << 12) as u64));
}

// Addition and subtraction.

/// `a + b` or `a - b` to Rd (31: SP unless flags are set, then XZR).
fn add_sub(l: &mut Lifter<'_>, rd: u32, a: Value, b: Value, subtract: bool, flags: bool) {
    if !flags {
        let r = if subtract { l.sub(a, b) } else { l.add(a, b) };
        return l.set_xsp(rd, r);
    }
    if subtract {
        l.set_nzcv_sub(a, b);
        if rd != 31 {
            let r = l.sub(a, b);
            l.set_r(rd, r);
        }
    } else {
        let r = l.add(a, b);
        l.set_nzcv_add(a, b, r);
        l.set_r(rd, r);
    }
}

fn add_sub_imm(l: &mut Lifter<'_>, i: Insn, subtract: bool, flags: bool) {
    let imm = (i.imm12() as i64) << (12 * i.sh());
    let signed = if subtract { -imm } else { imm };
    let known = if i.rn() == 31 { None } else { l.known(i.rn()) };
    if let (Some(base), true) = (known, !flags && i.rd() != 31 && i.sf() == 1) {
        return l.set_known(i.rd(), base.wrapping_add(signed as u64));
    }
    let a = l.rsp(i.sf(), i.rn());
    if !flags {
        let r = l.add_imm(a, signed);
        let from_sp = i.rn() == 31 && i.sf() == 1;
        return l.set_base(i.rd(), r, if from_sp { imm } else { 1 });
    }
    let b = l.iconst(word_type(i.sf()), imm);
    add_sub(l, i.rd(), a, b, subtract, true);
}

/// ADD Rd|SP, Rn|SP, #imm
pub fn add_imm(l: &mut Lifter<'_>, i: Insn) {
    add_sub_imm(l, i, false, false);
}

/// ADDS Rd, Rn|SP, #imm
pub fn adds_imm(l: &mut Lifter<'_>, i: Insn) {
    add_sub_imm(l, i, false, true);
}

/// SUB Rd|SP, Rn|SP, #imm
pub fn sub_imm(l: &mut Lifter<'_>, i: Insn) {
    add_sub_imm(l, i, true, false);
}

/// SUBS Rd, Rn|SP, #imm
pub fn subs_imm(l: &mut Lifter<'_>, i: Insn) {
    add_sub_imm(l, i, true, true);
}

/// Rm shifted by `imm6` as `shift` says.
fn shifted(l: &mut Lifter<'_>, i: Insn) -> Value {
    let v = l.r(i.sf(), i.rm());
    let amount = i.imm6();
    if amount == 0 {
        return v;
    }
    match i.shift() {
        0 => l.shl_imm(v, amount),
        1 => l.shr_u_imm(v, amount),
        2 => l.shr_s_imm(v, amount),
        _ => l.rotr_imm(v, amount),
    }
}

fn add_sub_shifted(l: &mut Lifter<'_>, i: Insn, subtract: bool, flags: bool) {
    let b = shifted(l, i);
    if subtract && !flags && i.rn() == 31 {
        let r = l.neg(b);
        return l.set_r(i.rd(), r);
    }
    let a = l.r(i.sf(), i.rn());
    if flags || i.rd() != 31 {
        add_sub(l, i.rd(), a, b, subtract, flags);
    }
}

/// ADD Rd, Rn, Rm, shift #amount
pub fn add_shifted(l: &mut Lifter<'_>, i: Insn) {
    add_sub_shifted(l, i, false, false);
}

/// ADDS Rd, Rn, Rm, shift #amount
pub fn adds_shifted(l: &mut Lifter<'_>, i: Insn) {
    add_sub_shifted(l, i, false, true);
}

/// SUB Rd, Rn, Rm, shift #amount
pub fn sub_shifted(l: &mut Lifter<'_>, i: Insn) {
    add_sub_shifted(l, i, true, false);
}

/// SUBS Rd, Rn, Rm, shift #amount
pub fn subs_shifted(l: &mut Lifter<'_>, i: Insn) {
    add_sub_shifted(l, i, true, true);
}

/// Register `rm`, extended as `option` says to the width of `sf` and shifted left by `amount`.
pub(super) fn extended(l: &mut Lifter<'_>, sf: u32, rm: u32, option: u32, amount: u32) -> Value {
    let bits = 8 << (option & 3);
    let v = l.r(sf, rm);
    let v = if bits >= word_type(sf).bits() {
        v
    } else if option & 4 != 0 {
        l.bextract_s(v, 0, bits)
    } else {
        l.bextract_u(v, 0, bits)
    };
    if amount == 0 { v } else { l.shl_imm(v, amount) }
}

fn add_sub_extended(l: &mut Lifter<'_>, i: Insn, subtract: bool, flags: bool) {
    let a = l.rsp(i.sf(), i.rn());
    let b = extended(l, i.sf(), i.rm(), i.option(), i.imm3());
    add_sub(l, i.rd(), a, b, subtract, flags);
}

/// ADD Rd|SP, Rn|SP, Rm, extend #amount
pub fn add_extended(l: &mut Lifter<'_>, i: Insn) {
    add_sub_extended(l, i, false, false);
}

/// ADDS Rd, Rn|SP, Rm, extend #amount
pub fn adds_extended(l: &mut Lifter<'_>, i: Insn) {
    add_sub_extended(l, i, false, true);
}

/// SUB Rd|SP, Rn|SP, Rm, extend #amount
pub fn sub_extended(l: &mut Lifter<'_>, i: Insn) {
    add_sub_extended(l, i, true, false);
}

/// SUBS Rd, Rn|SP, Rm, extend #amount
pub fn subs_extended(l: &mut Lifter<'_>, i: Insn) {
    add_sub_extended(l, i, true, true);
}

fn add_sub_carry(l: &mut Lifter<'_>, i: Insn, subtract: bool, flags: bool) {
    let a = l.r(i.sf(), i.rn());
    let mut b = l.r(i.sf(), i.rm());
    if subtract {
        b = l.not(b);
    }
    let carry = l.carry();
    let r = l.add_carry(a, b, carry);
    if flags {
        let packed = l.adc_nzcv(a, b, carry);
        l.set_nzcv(packed);
    }
    l.set_r(i.rd(), r);
}

/// ADC Rd, Rn, Rm
pub fn adc(l: &mut Lifter<'_>, i: Insn) {
    add_sub_carry(l, i, false, false);
}

/// ADCS Rd, Rn, Rm
pub fn adcs(l: &mut Lifter<'_>, i: Insn) {
    add_sub_carry(l, i, false, true);
}

/// SBC Rd, Rn, Rm
pub fn sbc(l: &mut Lifter<'_>, i: Insn) {
    add_sub_carry(l, i, true, false);
}

/// SBCS Rd, Rn, Rm
pub fn sbcs(l: &mut Lifter<'_>, i: Insn) {
    add_sub_carry(l, i, true, true);
}

// Logic.

/// The mask that N, immr and imms of a logical immediate encode (32 bits of it if sf is 0), or `None` where
/// they are reserved: DecodeBitMasks of the manual.
pub const fn bit_mask(i: Insn) -> Option<u64> {
    if i.sf() == 0 && i.n() == 1 {
        return None;
    }
    let size = i.n() << 6 | (!i.imms() & 63);
    if size < 2 {
        return None;
    }
    let bits = 1u32 << (31 - size.leading_zeros());
    let (ones, rotation) = ((i.imms() & (bits - 1)) + 1, i.immr() & (bits - 1));
    if ones == bits {
        return None;
    }
    let run = (1u64 << ones) - 1;
    let element_mask = u64::MAX >> (64 - bits);
    let mut element = (run >> rotation | run << ((bits - rotation) & 63)) & element_mask;
    if rotation == 0 {
        element = run;
    }
    let mut width = bits;
    while width < 64 {
        element |= element << width;
        width *= 2;
    }
    Some(if i.sf() == 0 { element & 0xffff_ffff } else { element })
}

fn logic_imm<'a>(l: &mut Lifter<'a>, i: Insn, op: Binary<'a>) {
    let mask = bit_mask(i).unwrap_or(0) as i64;
    let a = l.r(i.sf(), i.rn());
    let b = l.iconst(word_type(i.sf()), mask);
    let r = op(l, a, b);
    l.set_xsp(i.rd(), r);
}

/// AND Rd|SP, Rn, #imm
pub fn and_imm(l: &mut Lifter<'_>, i: Insn) {
    // The mask has no high half if sf is 0, so 64 bits do for both.
    let a = l.x(i.rn());
    let mask = bit_mask(i).unwrap_or(0) as i64;
    let r = l.and_imm(a, mask);
    // A multiple of 16 if the mask is one.
    l.set_base(i.rd(), r, mask);
}

/// ORR Rd|SP, Rn, #imm
pub fn orr_imm(l: &mut Lifter<'_>, i: Insn) {
    if i.rn() == 31 && i.rd() != 31 {
        return l.set_known(i.rd(), bit_mask(i).unwrap_or(0));
    }
    logic_imm(l, i, Builder::or);
}

/// EOR Rd|SP, Rn, #imm
pub fn eor_imm(l: &mut Lifter<'_>, i: Insn) {
    logic_imm(l, i, Builder::xor);
}

/// ANDS Rd, Rn, #imm
pub fn ands_imm(l: &mut Lifter<'_>, i: Insn) {
    let a = l.r(i.sf(), i.rn());
    let r = l.and_imm(a, bit_mask(i).unwrap_or(0) as i64);
    l.set_nzcv_logic(r);
    l.set_r(i.rd(), r);
}

fn logic_shifted<'a>(l: &mut Lifter<'a>, i: Insn, op: Binary<'a>) -> Value {
    let b = shifted(l, i);
    let a = l.r(i.sf(), i.rn());
    op(l, a, b)
}

/// AND Rd, Rn, Rm, shift #amount
pub fn and_shifted(l: &mut Lifter<'_>, i: Insn) {
    let r = logic_shifted(l, i, Builder::and);
    l.set_r(i.rd(), r);
}

/// BIC Rd, Rn, Rm, shift #amount
pub fn bic_shifted(l: &mut Lifter<'_>, i: Insn) {
    let r = logic_shifted(l, i, Builder::and_not);
    l.set_r(i.rd(), r);
}

/// ORR Rd, Rn, Rm, shift #amount; MOV Rd, Rm
pub fn orr_shifted(l: &mut Lifter<'_>, i: Insn) {
    if i.rn() == 31 {
        if let (Some(k), 0, 1) = (l.known(i.rm()), i.imm6(), i.sf()) {
            return l.set_known(i.rd(), k);
        }
        let r = shifted(l, i);
        return l.set_r(i.rd(), r);
    }
    let r = logic_shifted(l, i, Builder::or);
    l.set_r(i.rd(), r);
}

/// ORN Rd, Rn, Rm, shift #amount; MVN Rd, Rm
pub fn orn_shifted(l: &mut Lifter<'_>, i: Insn) {
    let r = if i.rn() == 31 {
        let v = shifted(l, i);
        l.not(v)
    } else {
        logic_shifted(l, i, Builder::or_not)
    };
    l.set_r(i.rd(), r);
}

/// EOR Rd, Rn, Rm, shift #amount
pub fn eor_shifted(l: &mut Lifter<'_>, i: Insn) {
    let r = logic_shifted(l, i, Builder::xor);
    l.set_r(i.rd(), r);
}

/// EON Rd, Rn, Rm, shift #amount
pub fn eon_shifted(l: &mut Lifter<'_>, i: Insn) {
    let r = logic_shifted(l, i, Builder::xor_not);
    l.set_r(i.rd(), r);
}

/// ANDS Rd, Rn, Rm, shift #amount
pub fn ands_shifted(l: &mut Lifter<'_>, i: Insn) {
    let r = if i.rn() == i.rm() && i.imm6() == 0 {
        l.r(i.sf(), i.rn())
    } else {
        logic_shifted(l, i, Builder::and)
    };
    l.set_nzcv_logic(r);
    l.set_r(i.rd(), r);
}

/// BICS Rd, Rn, Rm, shift #amount
pub fn bics_shifted(l: &mut Lifter<'_>, i: Insn) {
    let r = logic_shifted(l, i, Builder::and_not);
    l.set_nzcv_logic(r);
    l.set_r(i.rd(), r);
}

// Moves, bit fields, extraction.

/// MOVN Rd, #imm, LSL #shift
pub fn movn(l: &mut Lifter<'_>, i: Insn) {
    let value = !((i.imm16() as u64) << (16 * i.hw()));
    l.set_known(i.rd(), if i.sf() == 0 { value as u32 as u64 } else { value });
}

/// MOVZ Rd, #imm, LSL #shift
pub fn movz(l: &mut Lifter<'_>, i: Insn) {
    l.set_known(i.rd(), (i.imm16() as u64) << (16 * i.hw()));
}

/// MOVK Rd, #imm, LSL #shift
pub fn movk(l: &mut Lifter<'_>, i: Insn) {
    let shift = 16 * i.hw();
    if let Some(known) = l.known(i.rd()) {
        let value = known & !(0xffff << shift) | (i.imm16() as u64) << shift;
        return l.set_known(i.rd(), if i.sf() == 0 { value as u32 as u64 } else { value });
    }
    let old = l.r(i.sf(), i.rd());
    let part = l.iconst(word_type(i.sf()), i.imm16() as i64);
    let r = l.binsert(old, part, shift, 16);
    l.set_r(i.rd(), r);
}

/// SBFM Rd, Rn, #immr, #imms; ASR, SBFIZ, SBFX, SXTB, SXTH, SXTW
pub fn sbfm(l: &mut Lifter<'_>, i: Insn) {
    let a = l.r(i.sf(), i.rn());
    let r = if i.imms() >= i.immr() {
        l.bextract_s(a, i.immr(), i.imms() - i.immr() + 1)
    } else {
        let low = l.bextract_s(a, 0, i.imms() + 1);
        l.shl_imm(low, word_type(i.sf()).bits() - i.immr())
    };
    l.set_r(i.rd(), r);
}

/// BFM Rd, Rn, #immr, #imms; BFC, BFI, BFXIL
pub fn bfm(l: &mut Lifter<'_>, i: Insn) {
    let old = l.r(i.sf(), i.rd());
    let a = l.r(i.sf(), i.rn());
    let r = if i.imms() >= i.immr() {
        let field = if i.immr() == 0 { a } else { l.shr_u_imm(a, i.immr()) };
        l.binsert(old, field, 0, i.imms() - i.immr() + 1)
    } else {
        l.binsert(old, a, word_type(i.sf()).bits() - i.immr(), i.imms() + 1)
    };
    l.set_r(i.rd(), r);
}

/// UBFM Rd, Rn, #immr, #imms; LSL, LSR, UBFIZ, UBFX, UXTB, UXTH
pub fn ubfm(l: &mut Lifter<'_>, i: Insn) {
    // Field and result lie inside the low word if sf is 0, so 64 bits do for both.
    let a = l.x(i.rn());
    let r = if i.imms() >= i.immr() {
        l.bextract_u(a, i.immr(), i.imms() - i.immr() + 1)
    } else {
        let (shift, width) = (word_type(i.sf()).bits() - i.immr(), i.imms() + 1);
        let low = if shift + width == 64 { a } else { l.bextract_u(a, 0, width) };
        l.shl_imm(low, shift)
    };
    l.set_r(i.rd(), r);
}

/// EXTR Rd, Rn, Rm, #lsb; ROR Rd, Rs, #shift
pub fn extr(l: &mut Lifter<'_>, i: Insn) {
    let lsb = i.imms();
    let low = l.r(i.sf(), i.rm());
    let r = if lsb == 0 {
        low
    } else if i.rn() == i.rm() {
        l.rotr_imm(low, lsb)
    } else {
        let low = l.shr_u_imm(low, lsb);
        let high = l.r(i.sf(), i.rn());
        let high = l.shl_imm(high, word_type(i.sf()).bits() - lsb);
        l.or(high, low)
    };
    l.set_r(i.rd(), r);
}

// Two sources.

fn two_sources<'a>(l: &mut Lifter<'a>, i: Insn, op: Binary<'a>) {
    let a = l.r(i.sf(), i.rn());
    let b = l.r(i.sf(), i.rm());
    let r = op(l, a, b);
    l.set_r(i.rd(), r);
}

/// UDIV Rd, Rn, Rm
pub fn udiv(l: &mut Lifter<'_>, i: Insn) {
    two_sources(l, i, Builder::div_u);
}

/// SDIV Rd, Rn, Rm
pub fn sdiv(l: &mut Lifter<'_>, i: Insn) {
    two_sources(l, i, Builder::div_s);
}

/// LSL Rd, Rn, Rm
pub fn lslv(l: &mut Lifter<'_>, i: Insn) {
    two_sources(l, i, Builder::shl);
}

/// LSR Rd, Rn, Rm
pub fn lsrv(l: &mut Lifter<'_>, i: Insn) {
    two_sources(l, i, Builder::shr_u);
}

/// ASR Rd, Rn, Rm
pub fn asrv(l: &mut Lifter<'_>, i: Insn) {
    two_sources(l, i, Builder::shr_s);
}

/// ROR Rd, Rn, Rm
pub fn rorv(l: &mut Lifter<'_>, i: Insn) {
    two_sources(l, i, Builder::rotr);
}

fn crc(l: &mut Lifter<'_>, i: Insn, kind: i64) {
    let (acc, data) = (l.w(i.rn()), l.x(i.rm()));
    let r = l.call(CRC32, &[acc, data], kind);
    l.set_r(i.rd(), r);
}

/// CRC32B Wd, Wn, Wm
pub fn crc32b(l: &mut Lifter<'_>, i: Insn) {
    crc(l, i, 1);
}

/// CRC32H Wd, Wn, Wm
pub fn crc32h(l: &mut Lifter<'_>, i: Insn) {
    crc(l, i, 2);
}

/// CRC32W Wd, Wn, Wm
pub fn crc32w(l: &mut Lifter<'_>, i: Insn) {
    crc(l, i, 4);
}

/// CRC32X Wd, Wn, Xm
pub fn crc32x(l: &mut Lifter<'_>, i: Insn) {
    crc(l, i, 8);
}

/// CRC32CB Wd, Wn, Wm
pub fn crc32cb(l: &mut Lifter<'_>, i: Insn) {
    crc(l, i, 16 + 1);
}

/// CRC32CH Wd, Wn, Wm
pub fn crc32ch(l: &mut Lifter<'_>, i: Insn) {
    crc(l, i, 16 + 2);
}

/// CRC32CW Wd, Wn, Wm
pub fn crc32cw(l: &mut Lifter<'_>, i: Insn) {
    crc(l, i, 16 + 4);
}

/// CRC32CX Wd, Wn, Xm
pub fn crc32cx(l: &mut Lifter<'_>, i: Insn) {
    crc(l, i, 16 + 8);
}

// One source.

fn one_source<'a>(l: &mut Lifter<'a>, i: Insn, op: fn(&mut Builder<'a>, Value) -> Value) {
    let a = l.r(i.sf(), i.rn());
    let r = op(l, a);
    l.set_r(i.rd(), r);
}

/// RBIT Rd, Rn
pub fn rbit(l: &mut Lifter<'_>, i: Insn) {
    one_source(l, i, Builder::bitrev);
}

/// REV16 Rd, Rn
pub fn rev16(l: &mut Lifter<'_>, i: Insn) {
    let a = l.r(i.sf(), i.rn());
    let odd = l.shr_u_imm(a, 8);
    let odd = l.and_imm(odd, 0x00ff_00ff_00ff_00ff);
    let even = l.and_imm(a, 0x00ff_00ff_00ff_00ff);
    let even = l.shl_imm(even, 8);
    let r = l.or(odd, even);
    l.set_r(i.rd(), r);
}

/// REV Wd, Wn
pub fn rev_w(l: &mut Lifter<'_>, i: Insn) {
    one_source(l, i, Builder::bswap);
}

/// REV32 Xd, Xn
pub fn rev32(l: &mut Lifter<'_>, i: Insn) {
    let a = l.x(i.rn());
    let all = l.bswap(a);
    let r = l.rotr_imm(all, 32);
    l.set_r(i.rd(), r);
}

/// REV Xd, Xn
pub fn rev_x(l: &mut Lifter<'_>, i: Insn) {
    one_source(l, i, Builder::bswap);
}

/// CLZ Rd, Rn
pub fn clz(l: &mut Lifter<'_>, i: Insn) {
    one_source(l, i, Builder::clz);
}

/// CLS Rd, Rn
pub fn cls(l: &mut Lifter<'_>, i: Insn) {
    // A bit that differs from the one above it ends the run; the top bit has none above it.
    let a = l.r(i.sf(), i.rn());
    let above = l.shr_s_imm(a, 1);
    let changes = l.xor(a, above);
    let zeroes = l.clz(changes);
    let r = l.add_imm(zeroes, -1);
    l.set_r(i.rd(), r);
}

// Three sources.

fn multiply_add(l: &mut Lifter<'_>, sf: u32, i: Insn, product: Value, subtract: bool) {
    let r = match (i.ra(), subtract) {
        (31, false) => product,
        (31, true) => l.neg(product),
        (ra, _) => {
            let acc = l.r(sf, ra);
            if subtract { l.sub(acc, product) } else { l.add(acc, product) }
        }
    };
    l.set_r(i.rd(), r);
}

/// MADD Rd, Rn, Rm, Ra; MUL
pub fn madd(l: &mut Lifter<'_>, i: Insn) {
    let (a, b) = (l.r(i.sf(), i.rn()), l.r(i.sf(), i.rm()));
    let product = l.mul(a, b);
    multiply_add(l, i.sf(), i, product, false);
}

/// MSUB Rd, Rn, Rm, Ra; MNEG
pub fn msub(l: &mut Lifter<'_>, i: Insn) {
    let (a, b) = (l.r(i.sf(), i.rn()), l.r(i.sf(), i.rm()));
    let product = l.mul(a, b);
    multiply_add(l, i.sf(), i, product, true);
}

fn multiply_long(l: &mut Lifter<'_>, i: Insn, signed: bool, subtract: bool) {
    let [a, b] = [i.rn(), i.rm()].map(|n| {
        let x = l.x(n);
        if signed { l.bextract_s(x, 0, 32) } else { l.bextract_u(x, 0, 32) }
    });
    let product = l.mul(a, b);
    multiply_add(l, 1, i, product, subtract);
}

/// SMADDL Xd, Wn, Wm, Xa
pub fn smaddl(l: &mut Lifter<'_>, i: Insn) {
    multiply_long(l, i, true, false);
}

/// SMSUBL Xd, Wn, Wm, Xa
pub fn smsubl(l: &mut Lifter<'_>, i: Insn) {
    multiply_long(l, i, true, true);
}

/// UMADDL Xd, Wn, Wm, Xa
pub fn umaddl(l: &mut Lifter<'_>, i: Insn) {
    multiply_long(l, i, false, false);
}

/// UMSUBL Xd, Wn, Wm, Xa
pub fn umsubl(l: &mut Lifter<'_>, i: Insn) {
    multiply_long(l, i, false, true);
}

/// SMULH Xd, Xn, Xm
pub fn smulh(l: &mut Lifter<'_>, i: Insn) {
    two_sources(l, i, Builder::mulh_s);
}

/// UMULH Xd, Xn, Xm
pub fn umulh(l: &mut Lifter<'_>, i: Insn) {
    two_sources(l, i, Builder::mulh_u);
}

// Conditions.

fn conditional_compare(l: &mut Lifter<'_>, i: Insn, b: Value, subtract: bool) {
    let a = l.r(i.sf(), i.rn());
    let cond = l.cond(i.cond());
    let sum = if subtract { None } else { Some(l.add(a, b)) };
    match (cond, sum) {
        (Cond::If(c), None) => l.set_nzcv_if(c, Flags::Sub(a, b), i.nzcv()),
        (Cond::If(c), Some(sum)) => l.set_nzcv_if(c, Flags::Add(a, b, sum), i.nzcv()),
        (Cond::Const(true), None) => l.set_nzcv_sub(a, b),
        (Cond::Const(true), Some(sum)) => l.set_nzcv_add(a, b, sum),
        (Cond::Const(false), _) => {
            let flags = l.iconst(Type::I32, (i.nzcv() as i64) << 28);
            l.set_nzcv(flags);
        }
    }
}

/// CCMN Rn, Rm, #nzcv, cond
pub fn ccmn_reg(l: &mut Lifter<'_>, i: Insn) {
    let b = l.r(i.sf(), i.rm());
    conditional_compare(l, i, b, false);
}

/// CCMP Rn, Rm, #nzcv, cond
pub fn ccmp_reg(l: &mut Lifter<'_>, i: Insn) {
    let b = l.r(i.sf(), i.rm());
    conditional_compare(l, i, b, true);
}

/// CCMN Rn, #imm, #nzcv, cond
pub fn ccmn_imm(l: &mut Lifter<'_>, i: Insn) {
    let b = l.iconst(word_type(i.sf()), i.imm5() as i64);
    conditional_compare(l, i, b, false);
}

/// CCMP Rn, #imm, #nzcv, cond
pub fn ccmp_imm(l: &mut Lifter<'_>, i: Insn) {
    let b = l.iconst(word_type(i.sf()), i.imm5() as i64);
    conditional_compare(l, i, b, true);
}

/// Rd = cond ? Rn : `other(Rm)`.
fn select(l: &mut Lifter<'_>, i: Insn, other: fn(&mut Lifter<'_>, Value) -> Value) {
    let cond = l.cond(i.cond());
    let r = match cond {
        Cond::Const(true) => l.r(i.sf(), i.rn()),
        Cond::Const(false) => {
            let b = l.r(i.sf(), i.rm());
            other(l, b)
        }
        Cond::If(c) => {
            let (a, b) = (l.r(i.sf(), i.rn()), l.r(i.sf(), i.rm()));
            let b = other(l, b);
            l.select(c, a, b)
        }
    };
    l.set_r(i.rd(), r);
}

/// CSET and CSETM: the truth value of the opposite condition, if the instruction is one of them.
fn set_condition(l: &mut Lifter<'_>, i: Insn) -> Option<Value> {
    let is_set = i.rn() == 31 && i.rm() == 31 && i.cond() < 14;
    is_set.then(|| {
        let truth = l.cond_value(i.cond() ^ 1);
        l.zext(Type::I64, truth)
    })
}

/// CSEL Rd, Rn, Rm, cond
pub fn csel(l: &mut Lifter<'_>, i: Insn) {
    select(l, i, |_, b| b);
}

/// CSINC Rd, Rn, Rm, cond; CINC, CSET
pub fn csinc(l: &mut Lifter<'_>, i: Insn) {
    match set_condition(l, i) {
        Some(truth) => l.set_r(i.rd(), truth),
        None => select(l, i, |l, b| l.add_imm(b, 1)),
    }
}

/// CSINV Rd, Rn, Rm, cond; CINV, CSETM
pub fn csinv(l: &mut Lifter<'_>, i: Insn) {
    match set_condition(l, i) {
        Some(truth) => {
            let truth = l.trunc(word_type(i.sf()), truth);
            let r = l.neg(truth);
            l.set_r(i.rd(), r);
        }
        None => select(l, i, |l, b| l.not(b)),
    }
}

/// CSNEG Rd, Rn, Rm, cond; CNEG
pub fn csneg(l: &mut Lifter<'_>, i: Insn) {
    select(l, i, |l, b| l.neg(b));
}

// Flag manipulation.

/// RMIF Xn, #rotate, #mask
pub fn rmif(l: &mut Lifter<'_>, i: Insn) {
    let x = l.x(i.rn());
    let rotated = if i.rotate() == 0 { x } else { l.rotr_imm(x, i.rotate()) };
    let word = l.trunc(Type::I32, rotated);
    let new = l.shl_imm(word, 28);
    let mask = (i.mask() << 28) as i32 as i64;
    let new = l.and_imm(new, mask);
    let old = l.get(regs::NZCV);
    let kept = l.and_imm(old, !mask);
    let flags = l.or(kept, new);
    l.set_nzcv(flags);
}

fn evaluate(l: &mut Lifter<'_>, i: Insn, bits: u32) {
    // N and Z of the low bits, V where the bit above them differs from their sign, C as it was.
    let w = l.w(i.rn());
    let top = l.shl_imm(w, 32 - bits);
    let nz = l.logic_nzcv(top);
    let above = l.shr_u_imm(w, 1);
    let differs = l.xor(w, above);
    let v = l.bextract_u(differs, bits - 1, 1);
    let v = l.shl_imm(v, 28);
    let old = l.get(regs::NZCV);
    let c = l.and_imm(old, 1 << 29);
    let flags = l.or(nz, v);
    let flags = l.or(flags, c);
    l.set_nzcv(flags);
}

/// SETF8 Wn
pub fn setf8(l: &mut Lifter<'_>, i: Insn) {
    evaluate(l, i, 8);
}

/// SETF16 Wn
pub fn setf16(l: &mut Lifter<'_>, i: Insn) {
    evaluate(l, i, 16);
}
