//! Shift and rotate instructions.

use super::transfer::carry_value;
use crate::Lifter;
use crate::cpu::Vendor;
use crate::decode::{Row, rows};
use crate::flags::{CF, Kind, OF};
use crate::helpers::{FIRST_SHIFT, helpers};
use crate::lifter::Cond;
use crate::operand::Intent;
use iced_x86::{Instruction, Mnemonic};
use tulk_base::Trap;
use tulk_ir::{Access, HelperCx, IntCc, Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {
        Shl => shift, Sal => shift, Shr => shift, Sar => shift, Rol => rotate, Ror => rotate,
        Rcl => rotate_carry, Rcr => rotate_carry, Shld => shift_double, Shrd => shift_double,
        Rorx => rorx, Sarx => shift_x, Shlx => shift_x, Shrx => shift_x,
    }
    loud {}
    codes {}
};

/// A shift count.
#[derive(Clone, Copy)]
enum Count {
    /// Already masked.
    Const(u32),
    /// CL masked, as an I8.
    Value(Value),
}

/// Operand `n` as count for an operand of type `ty`.
fn count(l: &mut Lifter<'_>, insn: &Instruction, n: u32, ty: Type) -> Count {
    let mask = if ty == Type::I64 { 63 } else { 31 };
    match l.immediate(insn, n) {
        Some(imm) => Count::Const(imm as u32 & mask),
        None => {
            let cl = l.reg(insn.op_register(n));
            Count::Value(l.and_imm(cl, mask as i64))
        }
    }
}

impl Count {
    /// As an operand of a shift of type `ty`, less `less`.
    fn operand(self, l: &mut Lifter<'_>, ty: Type, less: u32) -> Value {
        match self {
            Count::Const(n) => l.iconst(ty, n as i64 - less as i64),
            Count::Value(v) => {
                let v = l.zext(ty, v);
                l.add_imm(v, -(less as i64))
            }
        }
    }
}

/// All flags follow from `kind` unless the count is zero.
fn set_flags_shift(l: &mut Lifter<'_>, n: Count, kind: Kind, result: Value, before: Value) {
    let ty = l.ty(result);
    match n {
        Count::Const(_) => l.set_flags(kind, ty, result, before),
        Count::Value(v) => {
            let some = l.icmp_imm(IntCc::Ne, v, 0);
            l.set_flags_if(some, kind, ty, result, before);
        }
    }
}

/// SHL, SHR, SAR dst, count
fn shift(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let n = count(l, insn, 1, ty);
    let dst = l.place_of(insn, 0, Intent::Write);
    let a = l.read(dst, ty);
    if let Count::Const(0) = n {
        return l.write(dst, a);
    }
    // Narrow operands are shifted as doublewords, since counts go up to 31.
    let wide = if ty == Type::I64 { Type::I64 } else { Type::I32 };
    let m = insn.mnemonic();
    let a = if m == Mnemonic::Sar { l.sext(wide, a) } else { l.zext(wide, a) };
    let by = |l: &mut Lifter<'_>, less| {
        let amount = n.operand(l, wide, less);
        let v = match m {
            Mnemonic::Shr => l.shr_u(a, amount),
            Mnemonic::Sar => l.shr_s(a, amount),
            _ => l.shl(a, amount),
        };
        l.trunc(ty, v)
    };
    let result = by(l, 0);
    l.write(dst, result);
    if l.live != 0 {
        let before = by(l, 1);
        let kind = if matches!(m, Mnemonic::Shr | Mnemonic::Sar) { Kind::Shr } else { Kind::Shl };
        set_flags_shift(l, n, kind, result, before);
    }
}

/// CF and OF, unless the count is zero.
fn set_flags_rotate(l: &mut Lifter<'_>, n: Count, carry: Value, overflow: Value) {
    let (carry, overflow) = match n {
        Count::Const(_) => (carry, overflow),
        Count::Value(v) => {
            let some = l.icmp_imm(IntCc::Ne, v, 0);
            let (c, o) = (l.flag(CF), l.flag(OF));
            (l.select(some, carry, c), l.select(some, overflow, o))
        }
    };
    l.set_flag_bits(&[(CF, Cond::If(carry)), (OF, Cond::If(overflow))]);
}

fn bit(l: &mut Lifter<'_>, v: Value, n: u32) -> Value {
    let field = l.bextract_u(v, n, 1);
    l.trunc(Type::I8, field)
}

/// ROL, ROR dst, count
fn rotate(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let n = count(l, insn, 1, ty);
    let dst = l.place_of(insn, 0, Intent::Write);
    let a = l.read(dst, ty);
    let amount = n.operand(l, ty, 0);
    let left = insn.mnemonic() == Mnemonic::Rol;
    let result = if left { l.rotl(a, amount) } else { l.rotr(a, amount) };
    l.write(dst, result);
    if l.live & (CF | OF) == 0 || matches!(n, Count::Const(0)) {
        return;
    }
    let top = bit(l, result, ty.bits() - 1);
    let other = bit(l, result, if left { 0 } else { ty.bits() - 2 });
    let overflow = l.xor(top, other);
    set_flags_rotate(l, n, if left { other } else { top }, overflow);
}

/// RCL, RCR dst, count
fn rotate_carry(l: &mut Lifter<'_>, insn: &Instruction) {
    l.settle_carry();
    let ty = l.operand_type(insn, 0);
    let n = count(l, insn, 1, ty);
    let dst = l.place_of(insn, 0, Intent::Write);
    let a = l.read(dst, ty);
    let left = insn.mnemonic() == Mnemonic::Rcl;
    let width = ty.bits();
    if let Count::Const(0) = n {
        return l.write(dst, a);
    }
    let c = carry_value(l);
    if let Count::Const(1) = n {
        let c = l.zext(ty, c);
        let (result, out) = if left {
            let doubled = l.add(a, a);
            (l.or(doubled, c), bit(l, a, width - 1))
        } else {
            let half = l.shr_u_imm(a, 1);
            (l.binsert(half, c, width - 1, 1), bit(l, a, 0))
        };
        l.write(dst, result);
        if l.live & (CF | OF) != 0 {
            let top = bit(l, result, width - 1);
            let other = if left { out } else { bit(l, result, width - 2) };
            let overflow = l.xor(top, other);
            set_flags_rotate(l, n, out, overflow);
        }
        return;
    }
    // The helper returns the carry as it was where nothing rotates; OF is defined for single steps only and
    // follows the result unless the masked count is zero.
    let wide = l.zext(Type::I64, a);
    let amount = n.operand(l, Type::I32, 0);
    let both = l.call(ROTATE_CARRY, &[wide, amount, c], (width | (left as u32) << 8) as i64);
    let result = l.lo64(both);
    let result = l.trunc(ty, result);
    l.write(dst, result);
    if l.live & (CF | OF) != 0 {
        let out = l.hi64(both);
        let out = l.trunc(Type::I8, out);
        let top = bit(l, result, width - 1);
        let other = if left { out } else { bit(l, result, width - 2) };
        let overflow = l.xor(top, other);
        set_flags_rotate(l, n, out, overflow);
    }
}

/// SHLD, SHRD dst, src, count
fn shift_double(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let n = count(l, insn, 2, ty);
    let b = l.reg(insn.op1_register());
    let dst = l.place_of(insn, 0, Intent::Write);
    let a = l.read(dst, ty);
    if let Count::Const(0) = n {
        return l.write(dst, a);
    }
    let left = insn.mnemonic() == Mnemonic::Shld;
    let kind = if left { Kind::Shl } else { Kind::Shr };
    if ty == Type::I16 {
        // As 48 bits destination:source:destination or, on AMD processors, with the source twice.
        let (a64, b64) = (l.zext(Type::I64, a), l.zext(Type::I64, b));
        let last = if l.cpu.chip().vendor == Vendor::Amd { b64 } else { a64 };
        let (low, high) = if left { (last, a64) } else { (a64, last) };
        let low = l.binsert(low, b64, 16, 16);
        let all = l.binsert(low, high, 32, 16);
        let by = |l: &mut Lifter<'_>, less| {
            let amount = n.operand(l, Type::I64, less);
            let v = if left {
                let v = l.shl(all, amount);
                l.shr_u_imm(v, 32)
            } else {
                l.shr_u(all, amount)
            };
            l.trunc(ty, v)
        };
        let result = by(l, 0);
        l.write(dst, result);
        if l.live != 0 {
            let before = by(l, 1);
            set_flags_shift(l, n, kind, result, before);
        }
        return;
    }
    let amount = n.operand(l, ty, 0);
    let rest = match n {
        Count::Const(n) => l.iconst(ty, (ty.bits() - n) as i64),
        // Modulo the width.
        Count::Value(_) => l.neg(amount),
    };
    let joined = if left {
        let (high, low) = (l.shl(a, amount), l.shr_u(b, rest));
        l.or(high, low)
    } else {
        let (low, high) = (l.shr_u(a, amount), l.shl(b, rest));
        l.or(low, high)
    };
    let result = match n {
        Count::Const(_) => joined,
        Count::Value(v) => {
            let some = l.icmp_imm(IntCc::Ne, v, 0);
            l.select(some, joined, a)
        }
    };
    l.write(dst, result);
    if l.live != 0 {
        let less = n.operand(l, ty, 1);
        let before = if left { l.shl(a, less) } else { l.shr_u(a, less) };
        set_flags_shift(l, n, kind, result, before);
    }
}

/// RORX dst, src, imm
fn rorx(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let result = l.rotr_imm(a, insn.immediate8() as u32 & (ty.bits() - 1));
    l.set_reg(insn.op0_register(), result);
}

/// SARX, SHLX, SHRX dst, src, count
fn shift_x(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 1, ty);
    let n = l.reg(insn.op2_register());
    let result = match insn.mnemonic() {
        Mnemonic::Sarx => l.shr_s(a, n),
        Mnemonic::Shrx => l.shr_u(a, n),
        _ => l.shl(a, n),
    };
    l.set_reg(insn.op0_register(), result);
}

/// Operand, count, CF; the result low and CF high. Immediate: width, plus 256 for left.
fn shift_rotate_carry(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let width = args[3] as u32 & 255;
    let count = args[1] as u32 % (width + 1);
    let count = if args[3] & 256 != 0 { count } else { (width + 1 - count) % (width + 1) };
    // The operand with the carry above it, rotated left.
    let all = args[0] & (u128::MAX >> (128 - width)) | (args[2] & 1) << width;
    let turned = if count == 0 { all } else { all << count | all >> (width + 1 - count) };
    let result = turned & (u128::MAX >> (128 - width));
    Ok(result | (turned >> width & 1) << 64)
}

helpers! { FIRST_SHIFT;
    /// Operand, count, CF; the result low and CF high. Immediate: width, plus 256 for left.
    ROTATE_CARRY = shift_rotate_carry(I64, I32, I8) -> I128, Access::None, Access::None, pure;
}
