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
use tulk_ir::{Access, Halves, HelperCx, IntCc, Type, Value};

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
    STRINGS = strings(V128, V128, I64) -> I64, Access::None, Access::None, pure => strings_direct;
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

/// Elements of a vector: bytes, or words and as many zeros.
fn elements(v: u128, words: bool) -> [u16; 16] {
    let bytes = v.to_le_bytes();
    match words {
        false => bytes.map(u16::from),
        true => std::array::from_fn(|n| match bytes.get(2 * n..2 * n + 2) {
            Some(pair) => u16::from_le_bytes([pair[0], pair[1]]),
            None => 0,
        }),
    }
}

/// Bit n: element n is one for which `holds`.
#[inline(always)]
fn mask_of(elements: &[u16; 16], holds: impl Fn(u16) -> bool) -> u32 {
    elements.iter().enumerate().fold(0, |mask, (n, &x)| mask | (holds(x) as u32) << n)
}

/// Times a byte: that in each byte.
const EACH: u128 = u128::MAX / 255;

/// The top bit of each byte of `v` that is zero.
#[inline(always)]
fn zero_bytes(v: u128) -> u128 {
    const LOW: u128 = EACH * 0x7f;
    !(((v & LOW) + LOW) | v | LOW)
}

/// The top bit of each byte of `v` that is one of `set`.
#[inline(always)]
fn bytes_in(v: u128, set: &[u8]) -> u128 {
    const LOW: u64 = EACH as u64 * 0x7f;
    // In halves, and so that only a few operations are left for each byte of the set.
    let differ = |half: u64, x: u64| (((half ^ x) & LOW) + LOW) | (half ^ x);
    let (low, high) = (v as u64, (v >> 64) as u64);
    let all = set.iter().fold((u64::MAX, u64::MAX), |(l, h), &x| {
        let x = EACH as u64 * x as u64;
        (l & differ(low, x), h & differ(high, x))
    });
    u128::from(Halves(!(all.0 | LOW), !(all.1 | LOW)))
}

/// Bit n: the top bit of byte n.
#[inline(always)]
fn top_bits(v: u128) -> u32 {
    // Moves bit 8n to bit 56 + n.
    let half = |v: u64| ((v >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32;
    half(v as u64) | half((v >> 64) as u64) << 8
}

/// PCMPISTRx for bytes of which any are to be found, or equal ones, which is what C libraries look for: the answer of
/// [`strings`] before the polarity, with the lengths.
fn byte_strings(a: u128, b: u128, any: bool) -> (u32, u32, u32) {
    let length = |v| (top_bits(zero_bytes(v)) | 1 << 16).trailing_zeros();
    let (in_a, in_b) = (length(a), length(b));
    let (valid_a, valid_b) = ((1u32 << in_a) - 1, (1u32 << in_b) - 1);
    let result = if any {
        top_bits(bytes_in(b, &a.to_le_bytes()[..in_a as usize])) & valid_b
    } else {
        top_bits(zero_bytes(a ^ b)) & valid_a & valid_b | !valid_a & !valid_b & 0xffff
    };
    (result, in_a, in_b)
}

/// The answer of [`strings`] before the polarity, with the lengths.
fn any_strings(args: &[u128; 4], imm: u32, implicit: bool) -> (u32, u32, u32) {
    let words = imm & 1 != 0;
    let count = if words { 8 } else { 16 };
    let length = |v: &[u16; 16], explicit: u32| -> u32 {
        match implicit {
            false => explicit.min(count),
            true => (mask_of(v, |x| x == 0) | 1 << count).trailing_zeros(),
        }
    };
    let lengths = args[2] as u64;
    let (mut a, mut b) = (elements(args[0], words), elements(args[1], words));
    let (in_a, in_b) = (length(&a, lengths as u32), length(&b, (lengths >> 32) as u32));
    let all = (1u32 << count) - 1;
    let (valid_a, valid_b) = ((1u32 << in_a) - 1, (1u32 << in_b) - 1);
    let result = match imm >> 2 & 3 {
        // Equal any: b[j] is one of a.
        0 => a[..in_a as usize].iter().fold(0, |m, &x| m | mask_of(&b, |y| x == y)) & valid_b,
        // Ranges: b[j] lies within a pair of a.
        1 => {
            if imm & 2 != 0 {
                // Signed ones in the order of unsigned ones.
                let sign = if words { 0x8000 } else { 0x80 };
                (a, b) = (a.map(|x| x ^ sign), b.map(|x| x ^ sign));
            }
            let pairs = a[..in_a as usize].chunks_exact(2);
            pairs.fold(0, |m, p| m | mask_of(&b, |y| p[0] <= y && y <= p[1])) & valid_b
        }
        // Equal each; both past the end are equal.
        2 => {
            let equal = (0..16).fold(0, |m, n| m | ((a[n] == b[n]) as u32) << n);
            equal & valid_a & valid_b | !valid_a & !valid_b & all
        }
        // Equal ordered: a begins at b[j], as far as b can show it.
        _ => (0..in_a).fold(all, |m, i| {
            let here = mask_of(&b, |y| a[i as usize] == y) & valid_b;
            m & (here >> i | all << (count - i))
        }),
    } & all;
    (result, in_a, in_b)
}

fn strings(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(answer(args) as u128)
}

extern "C" fn strings_direct(
    a: u64,
    high_a: u64,
    b: u64,
    high_b: u64,
    len: u64,
    imm: u64,
) -> Halves {
    let wide = |low, high| u128::from(Halves(low, high));
    Halves(answer(&[wide(a, high_a), wide(b, high_b), len as u128, imm as u128]), 0)
}

/// What [`STRINGS`] returns.
#[inline(always)]
fn answer(args: &[u128; 4]) -> u64 {
    let imm = args[3] as u32;
    let implicit = args[3] as i64 & IMPLICIT != 0;
    let words = imm & 1 != 0;
    let count = if words { 8 } else { 16 };
    let (mut result, in_a, in_b) = match imm >> 2 & 3 {
        way @ (0 | 2) if implicit && !words => byte_strings(args[0], args[1], way == 0),
        _ => any_strings(args, imm, implicit),
    };
    let all = (1u32 << count) - 1;
    result ^= match imm >> 4 & 3 {
        1 => all,
        3 => (1 << in_b) - 1,
        _ => 0,
    };
    let (zero, sign) = ((in_b < count) as u32, (in_a < count) as u32);
    (result & all | zero << 16 | sign << 17) as u64
}
