//! Text and string compares PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM: manual volume 1, 12.9.2, and volume 2, 4.1.

use super::FIRST_STRING;
use super::family;
use super::operand::{Alignment, imm8, is_vex};
use crate::decode::Row;
use crate::flags::{AF, CF, OF, PF, SF, ZF};
use crate::helpers::helpers;
use crate::lifter::Cond;
use crate::{Lifter, regs};
use iced_x86::Instruction;
use tulk_base::Trap;
use tulk_ir::{Access, HelperCx, IntCc, Type, Value};

pub const ROWS: &[Row] = family! {
    quiet {
        [Pcmpestri_xmm_xmmm128_imm8 | Vpcmpestri] => |l, i| compare(l, i, Some(Type::I32), false),
        [Pcmpestri64_xmm_xmmm128_imm8 | Vpcmpestri64] => |l, i| compare(l, i, Some(Type::I64), false),
        [Pcmpestrm_xmm_xmmm128_imm8 | Vpcmpestrm] => |l, i| compare(l, i, Some(Type::I32), true),
        [Pcmpestrm64_xmm_xmmm128_imm8 | Vpcmpestrm64] => |l, i| compare(l, i, Some(Type::I64), true),
        [Pcmpistri_xmm_xmmm128_imm8 | Vpcmpistri] => |l, i| compare(l, i, None, false),
        [Pcmpistrm_xmm_xmmm128_imm8 | Vpcmpistrm] => |l, i| compare(l, i, None, true),
    }
};

helpers! { FIRST_STRING;
    /// The intermediate result 2 (bits 15:0) and ZF, SF (bits 16 and 17) of two strings. The third operand has the
    /// lengths in its halves of 32 bits; with bit 8 of the immediate they are implicit.
    STRINGS = strings(V128, V128, I64) -> I64, Access::None, Access::None, pure;
}

const IMPLICIT: i64 = 1 << 8;

/// PCMPESTRI and kin: `lengths` is the type of the length registers, if they count; `mask`: the result goes to XMM0
fn compare(l: &mut Lifter<'_>, insn: &Instruction, lengths: Option<Type>, mask: bool) {
    let imm = imm8(insn);
    let b = l.vector_aligned(insn, 1, Alignment::Any).lo;
    let a = l.xmm(insn.op0_register());
    let words = imm & 1 != 0;
    let (lengths, implicit) = match lengths {
        Some(ty) => (explicit_lengths(l, ty), 0),
        None => (l.iconst(Type::I64, 0), IMPLICIT),
    };
    let r = l.call(STRINGS, &[a, b, lengths], imm as i64 | implicit);
    let bits = l.bextract_u(r, 0, 16);
    let (zero, sign) = (l.bextract_u(r, 16, 1), l.bextract_u(r, 17, 1));
    let (zero, sign) = (l.trunc(Type::I8, zero), l.trunc(Type::I8, sign));
    if mask {
        let v = if imm & 0x40 != 0 { lane_mask(l, bits, words) } else { low_bits(l, bits) };
        l.set(regs::XMM[0], v);
        if is_vex(insn) {
            l.clear_upper(0);
        }
    } else {
        // The least or the most significant bit; the number of elements if there is none.
        let none = l.iconst(Type::I64, if words { 8 } else { 16 });
        let index = if imm & 0x40 != 0 {
            let zeros = l.clz(bits);
            let last = l.iconst(Type::I64, 63);
            l.sub(last, zeros)
        } else {
            l.ctz(bits)
        };
        let empty = l.icmp_imm(IntCc::Eq, bits, 0);
        let index = l.select(empty, none, index);
        l.set(regs::RCX, index);
    }
    let carry = l.icmp_imm(IntCc::Ne, bits, 0);
    let first = l.bextract_u(bits, 0, 1);
    let overflow = l.trunc(Type::I8, first);
    l.set_flag_bits(&[
        (CF, Cond::If(carry)),
        (ZF, Cond::If(zero)),
        (SF, Cond::If(sign)),
        (OF, Cond::If(overflow)),
        (AF, Cond::Const(false)),
        (PF, Cond::Const(false)),
    ]);
}

/// Magnitudes of (R)AX and (R)DX, at most 16, in the halves of an I64.
fn explicit_lengths(l: &mut Lifter<'_>, ty: Type) -> Value {
    let [a, d] = [0, 2].map(|n| {
        let v = l.gpr(n, ty);
        let v = l.abs(v);
        let most = l.iconst(ty, 16);
        let v = l.min_u(v, most);
        l.zext(Type::I64, v)
    });
    l.binsert(a, d, 32, 32)
}

fn low_bits(l: &mut Lifter<'_>, bits: Value) -> Value {
    l.vscalar(tulk_ir::Shape::I64x2, bits)
}

/// All ones in lanes whose bit is set.
fn lane_mask(l: &mut Lifter<'_>, bits: Value, words: bool) -> Value {
    use tulk_ir::Shape::{I8x16, I16x8};
    let low = l.vscalar(tulk_ir::Shape::I64x2, bits);
    let (shape, repeated, weights): (_, [u8; 16], u128) = if words {
        let weights = (0..8).fold(0, |v, n| v | 1u128 << (16 * n + n));
        (I16x8, std::array::from_fn(|i| i as u8 & 1), weights)
    } else {
        let weights = (0..16).fold(0, |v, n| v | 1u128 << (8 * n + n % 8));
        (I8x16, std::array::from_fn(|i| i as u8 / 8), weights)
    };
    let all = l.vshuffle(low, low, repeated);
    let weights = l.vconst(weights);
    let chosen = l.vand(all, weights);
    l.vicmp(IntCc::Eq, shape, chosen, weights)
}

fn strings(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let imm = args[3] as u32;
    let words = imm & 1 != 0;
    let signed = imm & 2 != 0;
    let (bits, count) = if words { (16, 8usize) } else { (8, 16) };
    let element = |v: u128, n: usize| -> i32 {
        let x = (v >> (bits * n)) as u32;
        match (words, signed) {
            (false, false) => x as u8 as i32,
            (false, true) => x as i8 as i32,
            (true, false) => x as u16 as i32,
            (true, true) => x as i16 as i32,
        }
    };
    let length = |v: u128, explicit: u32| -> usize {
        if args[3] as i64 & IMPLICIT == 0 {
            return (explicit as usize).min(count);
        }
        (0..count).find(|&n| element(v, n) == 0).unwrap_or(count)
    };
    let lengths = args[2] as u64;
    let (a, b) = (args[0], args[1]);
    let (in_a, in_b) = (length(a, lengths as u32), length(b, (lengths >> 32) as u32));
    let mut result = 0u32;
    for j in 0..count {
        let valid = j < in_b;
        let holds = match imm >> 2 & 3 {
            // Equal any: b[j] is one of a.
            0 => valid && (0..in_a).any(|i| element(a, i) == element(b, j)),
            // Ranges: b[j] lies within a pair of a.
            1 => {
                valid
                    && (0..in_a / 2).any(|i| {
                        let x = element(b, j);
                        element(a, 2 * i) <= x && x <= element(a, 2 * i + 1)
                    })
            }
            // Equal each; both past the end are equal.
            2 => match (j < in_a, valid) {
                (true, true) => element(a, j) == element(b, j),
                (false, false) => true,
                _ => false,
            },
            // Equal ordered: a begins at b[j], as far as b can show it.
            _ => (0..count - j)
                .all(|i| i >= in_a || j + i < in_b && element(a, i) == element(b, j + i)),
        };
        result |= (holds as u32) << j;
    }
    let all = (1u32 << count) - 1;
    result ^= match imm >> 4 & 3 {
        1 => all,
        3 => (1 << in_b) - 1,
        _ => 0,
    };
    let (zero, sign) = ((in_b < count) as u32, (in_a < count) as u32);
    Ok((result & all | zero << 16 | sign << 17) as u128)
}
