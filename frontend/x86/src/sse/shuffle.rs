//! Shuffles, unpacks, permutations and blends: manual volume 1, 10.4.4, 11.4.1.4, 11.4.2.2, 12.5, 12.8.5 and 14.6.

use super::family;
use super::operand::{Vector, first, imm8, lanes};
use crate::decode::Row;
use crate::{Lifter, regs};
use iced_x86::{Instruction, OpKind};
use tulk_ir::Shape::{self, I8x16, I32x4, I64x2};
use tulk_ir::{IntCc, Value};

pub const ROWS: &[Row] = family! {
    quiet {
        [Punpcklbw_xmm_xmmm128 | Vpunpcklbw] => |l, i| unpack(l, i, 1, 0),
        [Punpcklwd_xmm_xmmm128 | Vpunpcklwd] => |l, i| unpack(l, i, 2, 0),
        [Punpckldq_xmm_xmmm128 Unpcklps_xmm_xmmm128 | Vpunpckldq Vunpcklps] => |l, i| unpack(l, i, 4, 0),
        [Punpcklqdq_xmm_xmmm128 Unpcklpd_xmm_xmmm128 | Vpunpcklqdq Vunpcklpd] => |l, i| unpack(l, i, 8, 0),
        [Punpckhbw_xmm_xmmm128 | Vpunpckhbw] => |l, i| unpack(l, i, 1, 8),
        [Punpckhwd_xmm_xmmm128 | Vpunpckhwd] => |l, i| unpack(l, i, 2, 8),
        [Punpckhdq_xmm_xmmm128 Unpckhps_xmm_xmmm128 | Vpunpckhdq Vunpckhps] => |l, i| unpack(l, i, 4, 8),
        [Punpckhqdq_xmm_xmmm128 Unpckhpd_xmm_xmmm128 | Vpunpckhqdq Vunpckhpd] => |l, i| unpack(l, i, 8, 8),
        [Pshufd_xmm_xmmm128_imm8 | Vpshufd] => |l, i| pshufd(l, i),
        [Pshuflw_xmm_xmmm128_imm8 | Vpshuflw] => |l, i| shuffle_words(l, i, 0),
        [Pshufhw_xmm_xmmm128_imm8 | Vpshufhw] => |l, i| shuffle_words(l, i, 4),
        [Shufps_xmm_xmmm128_imm8 | Vshufps] => shufps,
        [Shufpd_xmm_xmmm128_imm8 | Vshufpd] => shufpd,
        [Pshufb_xmm_xmmm128 | Vpshufb] => |l, i| l.map2(i, shuffle_bytes),
        [Palignr_xmm_xmmm128_imm8 | Vpalignr] => palignr,
        [Movddup_xmm_xmmm64 | Vmovddup] => movddup,
        [Movsldup_xmm_xmmm128 | Vmovsldup] => |l, i| l.map1(i, |l, a| l.vshuffle(a, a, lanes(4, |n| n & 2))),
        [Movshdup_xmm_xmmm128 | Vmovshdup] => |l, i| l.map1(i, |l, a| l.vshuffle(a, a, lanes(4, |n| n | 1))),
        [Blendps_xmm_xmmm128_imm8 | Vblendps Vpblendd] => |l, i| blend(l, i, 4, 4),
        [Blendpd_xmm_xmmm128_imm8 | Vblendpd] => |l, i| blend(l, i, 8, 2),
        // The same eight bits for both halves.
        [Pblendw_xmm_xmmm128_imm8 | Vpblendw] => |l, i| blend(l, i, 2, 0),
        [Blendvps_xmm_xmmm128 | Vblendvps] => |l, i| blend_by(l, i, I32x4),
        [Blendvpd_xmm_xmmm128 | Vblendvpd] => |l, i| blend_by(l, i, I64x2),
        [Pblendvb_xmm_xmmm128 | Vpblendvb] => |l, i| blend_by(l, i, I8x16),
        [| Vpermilps] => |l, i| permute_in_half(l, i, 4),
        [| Vpermilpd] => |l, i| permute_in_half(l, i, 8),
        [| Vperm2f128 Vperm2i128] => permute_halves,
        [| Vpermq Vpermpd] => permute_quadwords,
        [| Vpermd Vpermps] => permute_doublewords,
    }
};

/// PUNPCKLBW and kin, UNPCKLPS and kin: lanes of `width` bytes from byte `from` on, in turn
fn unpack(l: &mut Lifter<'_>, insn: &Instruction, width: usize, from: usize) {
    let lane = |n: usize| n / 2 + from / width + if n.is_multiple_of(2) { 0 } else { 16 / width };
    l.map2(insn, |l, a, b| l.vshuffle(a, b, lanes(width, lane)));
}

/// Two bits of an immediate.
fn two(imm: u32, n: usize) -> usize {
    (imm >> (2 * n) & 3) as usize
}

/// PSHUFD dst, src, imm8
fn pshufd(l: &mut Lifter<'_>, insn: &Instruction) {
    let imm = imm8(insn);
    l.map1(insn, |l, a| l.vshuffle(a, a, lanes(4, |n| two(imm, n))));
}

/// PSHUFLW, PSHUFHW: the four words from `from` on
fn shuffle_words(l: &mut Lifter<'_>, insn: &Instruction, from: usize) {
    let imm = imm8(insn);
    let lane = |n: usize| if n & 4 == from { from + two(imm, n & 3) } else { n };
    l.map1(insn, |l, a| l.vshuffle(a, a, lanes(2, lane)));
}

/// SHUFPS dst, src, imm8
fn shufps(l: &mut Lifter<'_>, insn: &Instruction) {
    let imm = imm8(insn);
    let lane = |n: usize| two(imm, n) + if n < 2 { 0 } else { 4 };
    l.map2(insn, |l, a, b| l.vshuffle(a, b, lanes(4, lane)));
}

/// SHUFPD dst, src, imm8
fn shufpd(l: &mut Lifter<'_>, insn: &Instruction) {
    let n = first(insn);
    let (a, b) = (l.vector(insn, n), l.vector(insn, n + 1));
    let half = |l: &mut Lifter<'_>, a, b, imm: u32| {
        l.vshuffle(a, b, lanes(8, |n| (imm >> n & 1) as usize + 2 * n))
    };
    let imm = imm8(insn);
    let lo = half(l, a.lo, b.lo, imm);
    let hi = a.hi.zip(b.hi).map(|(a, b)| half(l, a, b, imm >> 2));
    l.put_vector(insn, Vector { lo, hi });
}

/// PSHUFB: byte numbers with bit 7 set give zero, else the low four bits count
fn shuffle_bytes(l: &mut Lifter<'_>, a: Value, b: Value) -> Value {
    let mask = l.vconst(u128::from_le_bytes([0x8f; 16]));
    let numbers = l.vand(b, mask);
    l.vswizzle(a, numbers)
}

/// PALIGNR dst, src, imm8
fn palignr(l: &mut Lifter<'_>, insn: &Instruction) {
    let by = imm8(insn) as usize;
    l.map2(insn, |l, a, b| {
        if by >= 16 {
            return l.pick_bytes(a, std::array::from_fn(|i| (i + by - 16).min(16) as u8));
        }
        l.vshuffle(b, a, std::array::from_fn(|i| (i + by) as u8))
    });
}

/// MOVDDUP dst, src: 64 bits of memory in the 128-bit form
fn movddup(l: &mut Lifter<'_>, insn: &Instruction) {
    if insn.op0_register().is_xmm() {
        let v = l.scalar(insn, 1, I64x2);
        let v = l.vsplat(I64x2, v);
        return l.put_vector(insn, Vector::of(v));
    }
    l.map1(insn, |l, a| l.vshuffle(a, a, lanes(8, |_| 0)));
}

/// BLENDPS and kin: lanes of `width` bytes by bits of the immediate, `per_half` of them for each half
fn blend(l: &mut Lifter<'_>, insn: &Instruction, width: usize, per_half: u32) {
    let imm = imm8(insn);
    let n = first(insn);
    let (a, b) = (l.vector(insn, n), l.vector(insn, n + 1));
    let half = |l: &mut Lifter<'_>, a, b, imm: u32| {
        let lane = |n: usize| if imm >> n & 1 != 0 { n + 16 / width } else { n };
        l.vshuffle(a, b, lanes(width, lane))
    };
    let lo = half(l, a.lo, b.lo, imm);
    let hi = a.hi.zip(b.hi).map(|(a, b)| half(l, a, b, imm >> per_half));
    l.put_vector(insn, Vector { lo, hi });
}

/// BLENDVPS and kin: by the top bits of lanes of XMM0 or of the last operand
fn blend_by(l: &mut Lifter<'_>, insn: &Instruction, shape: Shape) {
    let n = first(insn);
    let (a, b) = (l.vector(insn, n), l.vector(insn, n + 1));
    let mask = match n {
        0 => Vector::of(l.get(regs::XMM[0])),
        _ => l.vector(insn, 3),
    };
    let half = |l: &mut Lifter<'_>, a, b, mask| {
        let zero = l.vconst(0);
        let take = l.vicmp(IntCc::LtS, shape, mask, zero);
        l.vbitsel(take, b, a)
    };
    let lo = half(l, a.lo, b.lo, mask.lo);
    let hi = match (a.hi, b.hi, mask.hi) {
        (Some(a), Some(b), Some(mask)) => Some(half(l, a, b, mask)),
        _ => None,
    };
    l.put_vector(insn, Vector { lo, hi });
}

/// VPERMILPS, VPERMILPD: lanes of `width` bytes within each half, by the immediate or by lanes of the second source
fn permute_in_half(l: &mut Lifter<'_>, insn: &Instruction, width: usize) {
    if insn.op2_kind() == OpKind::Immediate8 {
        let a = l.vector(insn, 1);
        let imm = imm8(insn);
        let half = |l: &mut Lifter<'_>, a, imm: u32| {
            let lane = |n: usize| match width {
                4 => two(imm, n),
                _ => (imm >> n & 1) as usize,
            };
            l.vshuffle(a, a, lanes(width, lane))
        };
        let lo = half(l, a.lo, imm);
        let hi = a.hi.map(|a| half(l, a, if width == 8 { imm >> 2 } else { imm }));
        return l.put_vector(insn, Vector { lo, hi });
    }
    l.map2(insn, |l, a, b| {
        // VPERMILPD looks at bit 1 of a lane.
        let number = match width {
            4 => b,
            _ => l.vshr_u_i(I64x2, b, 1),
        };
        let numbers = lane_numbers(l, number, width, 16 / width as u8 - 1);
        l.vswizzle(a, numbers)
    });
}

/// Byte numbers for a swizzle from lane numbers in the lowest bits (`mask`) of lanes of `width` bytes.
fn lane_numbers(l: &mut Lifter<'_>, lane: Value, width: usize, mask: u8) -> Value {
    let repeat = l.vshuffle(lane, lane, std::array::from_fn(|i| (i / width * width) as u8));
    let mask = l.vconst(u128::from_le_bytes([mask; 16]));
    let number = l.vand(repeat, mask);
    let first = l.vshl_i(I8x16, number, width.trailing_zeros());
    let within = l.vconst(u128::from_le_bytes(std::array::from_fn(|i| (i % width) as u8)));
    l.vor(first, within)
}

/// VPERM2F128, VPERM2I128
fn permute_halves(l: &mut Lifter<'_>, insn: &Instruction) {
    let (a, b) = (l.vector(insn, 1), l.vector(insn, 2));
    let all = [Some(a.lo), a.hi, Some(b.lo), b.hi];
    let imm = imm8(insn);
    let pick = |l: &mut Lifter<'_>, imm: u32| {
        if imm & 8 != 0 { l.vconst(0) } else { all[imm as usize & 3].expect("256 bits") }
    };
    let lo = pick(l, imm);
    let hi = Some(pick(l, imm >> 4));
    l.put_vector(insn, Vector { lo, hi });
}

/// VPERMQ, VPERMPD dst, src, imm8
fn permute_quadwords(l: &mut Lifter<'_>, insn: &Instruction) {
    let a = l.vector(insn, 1);
    let (lo, hi) = (a.lo, a.hi.expect("256 bits"));
    let imm = imm8(insn);
    let half = |l: &mut Lifter<'_>, at: usize| l.vshuffle(lo, hi, lanes(8, |n| two(imm, at + n)));
    let v = Vector { lo: half(l, 0), hi: Some(half(l, 2)) };
    l.put_vector(insn, v);
}

/// VPERMD, VPERMPS dst, numbers, src
fn permute_doublewords(l: &mut Lifter<'_>, insn: &Instruction) {
    let numbers = l.vector(insn, 1);
    let a = l.vector(insn, 2);
    let (a_lo, a_hi) = (a.lo, a.hi.expect("256 bits"));
    let half = |l: &mut Lifter<'_>, numbers: Value| {
        let bytes = lane_numbers(l, numbers, 4, 3);
        let (x, y) = (l.vswizzle(a_lo, bytes), l.vswizzle(a_hi, bytes));
        // Bit 2 of a number chooses the half.
        let bit = l.vshl_i(I32x4, numbers, 29);
        let upper = l.vshr_s_i(I32x4, bit, 31);
        l.vbitsel(upper, y, x)
    };
    let lo = half(l, numbers.lo);
    let hi = numbers.hi.map(|n| half(l, n));
    l.put_vector(insn, Vector { lo, hi });
}
