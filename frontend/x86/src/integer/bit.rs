//! Bit and byte instructions: BT and kin, bit scans and counts, SETcc, CRC32, BMI1 and BMI2.

use crate::Lifter;
use crate::decode::{Row, rows};
use crate::flags::{CF, Kind, ZF};
use crate::helpers::{FIRST_BIT, helpers};
use crate::lifter::Cond;
use crate::operand::{Intent, Place, address_bits, segment_number};
use iced_x86::{Instruction, Mnemonic, OpKind};
use tulk_base::{RmwOp, Trap};
use tulk_ir::{Access, HelperCx, IntCc, Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {
        Bt => bit_test, Bts => bit_test, Btr => bit_test, Btc => bit_test,
        Bsf => scan, Bsr => scan, Tzcnt => tzcnt, Lzcnt => lzcnt, Popcnt => popcnt, Crc32 => crc32,
        Bextr => bextr, Blsi => blsi, Blsmsk => blsmsk, Blsr => blsr, Bzhi => bzhi, Pdep => pdep, Pext => pext,
        Seta => set, Setae => set, Setb => set, Setbe => set, Sete => set, Setg => set, Setge => set, Setl => set,
        Setle => set, Setne => set, Setno => set, Setnp => set, Setns => set, Seto => set, Setp => set, Sets => set,
    }
    loud {}
    codes {}
};

/// BT, BTS, BTR, BTC dst, index: a memory operand is a string of bits when the index is a register
fn bit_test(l: &mut Lifter<'_>, insn: &Instruction) {
    l.settle_bit_test();
    let ty = l.operand_type(insn, 0);
    let log2 = ty.bits().trailing_zeros();
    let index = l.operand(insn, 1, ty);
    let intent = if insn.mnemonic() == Mnemonic::Bt { Intent::Read } else { Intent::Write };
    let dst = if insn.op0_kind() == OpKind::Memory && insn.op1_kind() == OpKind::Register {
        let (base, disp) = l.offset(insn);
        let to = l.ty(base);
        // The word's number, signed, then its distance.
        let word = l.shr_s_imm(index, log2);
        let word = l.sext(to, word);
        let distance = l.shl_imm(word, log2 - 3);
        let mut offset = l.add(base, distance);
        if address_bits(insn) == 16 {
            offset = l.and_imm(offset, 0xffff);
        }
        let seg = segment_number(insn.memory_segment());
        Place::Mem(l.linear(seg, offset, disp, ty.bytes(), intent))
    } else {
        l.place_of(insn, 0, intent)
    };
    let one = l.iconst(ty, 1);
    // Shift amounts count modulo the width.
    let mask = l.shl(one, index);
    let rmw = match insn.mnemonic() {
        Mnemonic::Bt => None,
        Mnemonic::Bts => Some(RmwOp::Or),
        Mnemonic::Btr => Some(RmwOp::AndNot),
        _ => Some(RmwOp::Xor),
    };
    let old = match (rmw, dst) {
        (Some(rmw), Place::Mem(addr)) if insn.has_lock_prefix() => l.atomic_rmw(rmw, addr, mask),
        _ => l.read(dst, ty),
    };
    if let (Some(rmw), false) = (rmw, insn.has_lock_prefix()) {
        let new = match rmw {
            RmwOp::Or => l.or(old, mask),
            RmwOp::AndNot => l.and_not(old, mask),
            _ => l.xor(old, mask),
        };
        l.write(dst, new);
    }
    if l.live & CF != 0 {
        let shifted = l.shr_u(old, index);
        let bit = l.and_imm(shifted, 1);
        let bit = l.trunc(Type::I8, bit);
        l.set_flags_bit_test(bit);
    }
}

/// BSF, BSR dst, src: a zero source leaves the whole destination alone
fn scan(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    // Processors without them take TZCNT and LZCNT for these.
    let found = if matches!(insn.mnemonic(), Mnemonic::Bsf | Mnemonic::Tzcnt) {
        l.ctz(a)
    } else {
        let zeros = l.clz(a);
        let top = l.iconst(ty, ty.bits() as i64 - 1);
        l.sub(top, zeros)
    };
    let zero = l.icmp_imm(IntCc::Eq, a, 0);
    let r = insn.op0_register();
    if ty == Type::I32 {
        let whole = l.reg(r.full_register());
        let found = l.zext(Type::I64, found);
        let v = l.select(zero, whole, found);
        l.set_reg(r.full_register(), v);
    } else {
        let old = l.reg(r);
        let v = l.select(zero, old, found);
        l.set_reg(r, v);
    }
    l.set_flag_bits(&[(ZF, Cond::If(zero))]);
}

/// Writes the result of a bit count; CF tells whether the source was zero.
fn counted(l: &mut Lifter<'_>, insn: &Instruction, a: Value, n: Value) {
    l.set_reg(insn.op0_register(), n);
    let ty = l.ty(n);
    let none = l.icmp_imm(IntCc::Eq, a, 0);
    l.set_flags(Kind::ResCf, ty, n, none);
}

/// TZCNT dst, src
fn tzcnt(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let n = l.ctz(a);
    counted(l, insn, a, n);
}

/// LZCNT dst, src
fn lzcnt(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let n = l.clz(a);
    counted(l, insn, a, n);
}

/// POPCNT dst, src
fn popcnt(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let n = l.popcnt(a);
    l.set_reg(insn.op0_register(), n);
    if l.live != 0 {
        let none = l.icmp_imm(IntCc::Eq, n, 0);
        let none = l.zext(Type::I64, none);
        let word = l.shl_imm(none, ZF.trailing_zeros());
        l.set_packed_flags(word);
    }
}

/// CRC32 dst, src
fn crc32(l: &mut Lifter<'_>, insn: &Instruction) {
    let from = l.operand_type(insn, 1);
    let data = l.operand(insn, 1, from);
    let data = l.zext(Type::I64, data);
    let r = insn.op0_register();
    let crc = l.reg(r);
    let crc = l.trunc(Type::I32, crc);
    let v = l.call(CRC32C, &[crc, data], from.bytes() as i64);
    let v = l.zext(Type::I64, v);
    l.set_reg(r.full_register(), v);
}

/// BEXTR dst, src, control
fn bextr(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let control = l.reg(insn.op2_register());
    let (start, len) = (l.bextract_u(control, 0, 8), l.bextract_u(control, 8, 8));
    let bits = ty.bits() as i64;
    let zero = l.iconst(ty, 0);
    let inside = l.icmp_imm(IntCc::LtU, start, bits);
    let shifted = l.shr_u(a, start);
    let shifted = l.select(inside, shifted, zero);
    let result = low_bits(l, shifted, len);
    l.set_reg(insn.op0_register(), result);
    l.set_flags_logic(result);
}

/// The low `n` bits of `a`; all when `n` is at least the width.
fn low_bits(l: &mut Lifter<'_>, a: Value, n: Value) -> Value {
    let ty = l.ty(a);
    let one = l.iconst(ty, 1);
    let bit = l.shl(one, n);
    let mask = l.sub(bit, one);
    let part = l.and(a, mask);
    let fits = l.icmp_imm(IntCc::LtU, n, ty.bits() as i64);
    l.select(fits, part, a)
}

/// BLSI dst, src
fn blsi(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let minus = l.neg(a);
    let result = l.and(a, minus);
    l.set_reg(insn.op0_register(), result);
    let some = l.icmp_imm(IntCc::Ne, a, 0);
    l.set_flags(Kind::ResCf, ty, result, some);
}

/// BLSMSK dst, src
fn blsmsk(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let less = l.add_imm(a, -1);
    let result = l.xor(a, less);
    l.set_reg(insn.op0_register(), result);
    let none = l.icmp_imm(IntCc::Eq, a, 0);
    l.set_flags(Kind::ResCf, ty, result, none);
}

/// BLSR dst, src
fn blsr(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let less = l.add_imm(a, -1);
    let result = l.and(a, less);
    l.set_reg(insn.op0_register(), result);
    let none = l.icmp_imm(IntCc::Eq, a, 0);
    l.set_flags(Kind::ResCf, ty, result, none);
}

/// BZHI dst, src, index
fn bzhi(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let index = l.reg(insn.op2_register());
    let index = l.bextract_u(index, 0, 8);
    let result = low_bits(l, a, index);
    l.set_reg(insn.op0_register(), result);
    let beyond = l.icmp_imm(IntCc::GtU, index, ty.bits() as i64 - 1);
    l.set_flags(Kind::ResCf, ty, result, beyond);
}

fn through_mask(l: &mut Lifter<'_>, insn: &Instruction, helper: u32) {
    let ty = l.operand_type(insn, 0);
    let mask = l.operand(insn, 2, ty);
    let a = l.reg(insn.op1_register());
    let (a, mask) = (l.zext(Type::I64, a), l.zext(Type::I64, mask));
    let v = l.call(helper, &[a, mask], 0);
    // Neither sets a bit beyond the mask's width.
    l.set_reg(insn.op0_register().full_register(), v);
}

/// PDEP dst, src, mask
fn pdep(l: &mut Lifter<'_>, insn: &Instruction) {
    through_mask(l, insn, PDEP);
}

/// PEXT dst, src, mask
fn pext(l: &mut Lifter<'_>, insn: &Instruction) {
    through_mask(l, insn, PEXT);
}

/// SETcc dst
fn set(l: &mut Lifter<'_>, insn: &Instruction) {
    let cond = l.cond_first(insn.condition_code() as u32 - 1);
    let v = l.truth(cond);
    let dst = l.place_of(insn, 0, Intent::Write);
    l.write(dst, v);
}

/// Tables for CRC-32C (reflected polynomial 0x82f63b78), a byte at a time.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut k = 0;
        while k < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
            k += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn bit_crc32c(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let data = (args[1] as u64).to_le_bytes();
    let crc = data[..args[3] as usize]
        .iter()
        .fold(args[0] as u32, |crc, &b| crc >> 8 ^ CRC_TABLE[(crc as u8 ^ b) as usize]);
    Ok(crc as u128)
}

fn bit_pdep(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (mut from, mut mask, mut to) = (args[0] as u64, args[1] as u64, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if from & 1 != 0 {
            to |= lowest;
        }
        from >>= 1;
        mask ^= lowest;
    }
    Ok(to as u128)
}

fn bit_pext(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (from, mut mask, mut to, mut n) = (args[0] as u64, args[1] as u64, 0u64, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        to |= ((from & lowest != 0) as u64) << n;
        n += 1;
        mask ^= lowest;
    }
    Ok(to as u128)
}

helpers! { FIRST_BIT;
    /// CRC, data; immediate: bytes of data.
    CRC32C = bit_crc32c(I32, I64) -> I32, Access::None, Access::None, pure;
    PDEP = bit_pdep(I64, I64) -> I64, Access::None, Access::None, pure;
    PEXT = bit_pext(I64, I64) -> I64, Access::None, Access::None, pure;
}
