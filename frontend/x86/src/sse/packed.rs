//! Packed integer arithmetic, comparison, logic and shifts: manual volume 1, 11.4.2, 12.6, 12.8 and 14.6.

use super::family;
use super::operand::{Vector, first, imm8, lanes};
use crate::Lifter;
use crate::decode::Row;
use iced_x86::{Instruction, OpKind};
use tulk_ir::Shape::{self, I8x16, I16x8, I32x4, I64x2};
use tulk_ir::{IntCc, Value};

/// dst = first op second, lane by lane.
macro_rules! lanewise {
    ($op:ident $shape:ident) => {
        |l, i| l.map2(i, |l, a, b| l.$op($shape, a, b))
    };
    ($op:ident) => {
        |l, i| l.map2(i, |l, a, b| l.$op(a, b))
    };
}
macro_rules! compare {
    ($cc:ident $shape:ident) => {
        |l, i| l.map2(i, |l, a, b| l.vicmp(IntCc::$cc, $shape, a, b))
    };
}
macro_rules! by {
    ($f:ident $($arg:expr),*) => {
        |l, i| l.map2(i, |l, a, b| $f(l, $($arg,)* a, b))
    };
}

pub const ROWS: &[Row] = family! {
    quiet {
        [Paddb_xmm_xmmm128 | Vpaddb] => lanewise!(vadd I8x16),
        [Paddw_xmm_xmmm128 | Vpaddw] => lanewise!(vadd I16x8),
        [Paddd_xmm_xmmm128 | Vpaddd] => lanewise!(vadd I32x4),
        [Paddq_xmm_xmmm128 | Vpaddq] => lanewise!(vadd I64x2),
        [Psubb_xmm_xmmm128 | Vpsubb] => lanewise!(vsub I8x16),
        [Psubw_xmm_xmmm128 | Vpsubw] => lanewise!(vsub I16x8),
        [Psubd_xmm_xmmm128 | Vpsubd] => lanewise!(vsub I32x4),
        [Psubq_xmm_xmmm128 | Vpsubq] => lanewise!(vsub I64x2),
        [Paddsb_xmm_xmmm128 | Vpaddsb] => lanewise!(vadd_sat_s I8x16),
        [Paddsw_xmm_xmmm128 | Vpaddsw] => lanewise!(vadd_sat_s I16x8),
        [Paddusb_xmm_xmmm128 | Vpaddusb] => lanewise!(vadd_sat_u I8x16),
        [Paddusw_xmm_xmmm128 | Vpaddusw] => lanewise!(vadd_sat_u I16x8),
        [Psubsb_xmm_xmmm128 | Vpsubsb] => lanewise!(vsub_sat_s I8x16),
        [Psubsw_xmm_xmmm128 | Vpsubsw] => lanewise!(vsub_sat_s I16x8),
        [Psubusb_xmm_xmmm128 | Vpsubusb] => lanewise!(vsub_sat_u I8x16),
        [Psubusw_xmm_xmmm128 | Vpsubusw] => lanewise!(vsub_sat_u I16x8),
        [Pmullw_xmm_xmmm128 | Vpmullw] => lanewise!(vmul I16x8),
        [Pmulld_xmm_xmmm128 | Vpmulld] => lanewise!(vmul I32x4),
        [Pmulhw_xmm_xmmm128 | Vpmulhw] => by!(multiply_high true),
        [Pmulhuw_xmm_xmmm128 | Vpmulhuw] => by!(multiply_high false),
        [Pmulhrsw_xmm_xmmm128 | Vpmulhrsw] => by!(multiply_high_rounded),
        [Pmuludq_xmm_xmmm128 | Vpmuludq] => by!(multiply_even false),
        [Pmuldq_xmm_xmmm128 | Vpmuldq] => by!(multiply_even true),
        [Pmaddwd_xmm_xmmm128 | Vpmaddwd] => lanewise!(vmadd_pairs_s I16x8),
        [Pmaddubsw_xmm_xmmm128 | Vpmaddubsw] => by!(multiply_add_bytes),
        [Psadbw_xmm_xmmm128 | Vpsadbw] => by!(sum_of_differences),
        [Mpsadbw_xmm_xmmm128_imm8 | Vmpsadbw] => mpsadbw,
        [Pavgb_xmm_xmmm128 | Vpavgb] => lanewise!(vavg_u I8x16),
        [Pavgw_xmm_xmmm128 | Vpavgw] => lanewise!(vavg_u I16x8),
        [Pminub_xmm_xmmm128 | Vpminub] => lanewise!(vmin_u I8x16),
        [Pminuw_xmm_xmmm128 | Vpminuw] => lanewise!(vmin_u I16x8),
        [Pminud_xmm_xmmm128 | Vpminud] => lanewise!(vmin_u I32x4),
        [Pminsb_xmm_xmmm128 | Vpminsb] => lanewise!(vmin_s I8x16),
        [Pminsw_xmm_xmmm128 | Vpminsw] => lanewise!(vmin_s I16x8),
        [Pminsd_xmm_xmmm128 | Vpminsd] => lanewise!(vmin_s I32x4),
        [Pmaxub_xmm_xmmm128 | Vpmaxub] => lanewise!(vmax_u I8x16),
        [Pmaxuw_xmm_xmmm128 | Vpmaxuw] => lanewise!(vmax_u I16x8),
        [Pmaxud_xmm_xmmm128 | Vpmaxud] => lanewise!(vmax_u I32x4),
        [Pmaxsb_xmm_xmmm128 | Vpmaxsb] => lanewise!(vmax_s I8x16),
        [Pmaxsw_xmm_xmmm128 | Vpmaxsw] => lanewise!(vmax_s I16x8),
        [Pmaxsd_xmm_xmmm128 | Vpmaxsd] => lanewise!(vmax_s I32x4),
        [Pabsb_xmm_xmmm128 | Vpabsb] => |l, i| l.map1(i, |l, a| l.vabs(I8x16, a)),
        [Pabsw_xmm_xmmm128 | Vpabsw] => |l, i| l.map1(i, |l, a| l.vabs(I16x8, a)),
        [Pabsd_xmm_xmmm128 | Vpabsd] => |l, i| l.map1(i, |l, a| l.vabs(I32x4, a)),
        [Psignb_xmm_xmmm128 | Vpsignb] => by!(sign I8x16),
        [Psignw_xmm_xmmm128 | Vpsignw] => by!(sign I16x8),
        [Psignd_xmm_xmmm128 | Vpsignd] => by!(sign I32x4),
        [Phaddw_xmm_xmmm128 | Vphaddw] => lanewise!(vadd_pairs I16x8),
        [Phaddd_xmm_xmmm128 | Vphaddd] => lanewise!(vadd_pairs I32x4),
        [Phaddsw_xmm_xmmm128 | Vphaddsw] => by!(pairs I16x8, |l, a, b| l.vadd_sat_s(I16x8, a, b)),
        [Phsubw_xmm_xmmm128 | Vphsubw] => by!(pairs I16x8, |l, a, b| l.vsub(I16x8, a, b)),
        [Phsubd_xmm_xmmm128 | Vphsubd] => by!(pairs I32x4, |l, a, b| l.vsub(I32x4, a, b)),
        [Phsubsw_xmm_xmmm128 | Vphsubsw] => by!(pairs I16x8, |l, a, b| l.vsub_sat_s(I16x8, a, b)),
        [Phminposuw_xmm_xmmm128 | Vphminposuw] => phminposuw,

        [Pcmpeqb_xmm_xmmm128 | Vpcmpeqb] => compare!(Eq I8x16),
        [Pcmpeqw_xmm_xmmm128 | Vpcmpeqw] => compare!(Eq I16x8),
        [Pcmpeqd_xmm_xmmm128 | Vpcmpeqd] => compare!(Eq I32x4),
        [Pcmpeqq_xmm_xmmm128 | Vpcmpeqq] => compare!(Eq I64x2),
        [Pcmpgtb_xmm_xmmm128 | Vpcmpgtb] => compare!(GtS I8x16),
        [Pcmpgtw_xmm_xmmm128 | Vpcmpgtw] => compare!(GtS I16x8),
        [Pcmpgtd_xmm_xmmm128 | Vpcmpgtd] => compare!(GtS I32x4),
        [Pcmpgtq_xmm_xmmm128 | Vpcmpgtq] => compare!(GtS I64x2),

        [Pand_xmm_xmmm128 Andps_xmm_xmmm128 Andpd_xmm_xmmm128 | Vpand Vandps Vandpd] => lanewise!(vand),
        [Por_xmm_xmmm128 Orps_xmm_xmmm128 Orpd_xmm_xmmm128 | Vpor Vorps Vorpd] => lanewise!(vor),
        [Pxor_xmm_xmmm128 Xorps_xmm_xmmm128 Xorpd_xmm_xmmm128 | Vpxor Vxorps Vxorpd] => exclusive_or,
        [Pandn_xmm_xmmm128 Andnps_xmm_xmmm128 Andnpd_xmm_xmmm128 | Vpandn Vandnps Vandnpd]
            => |l, i| l.map2(i, |l, a, b| l.vand_not(b, a)),

        [Psllw_xmm_xmmm128 Psllw_xmm_imm8 | Vpsllw] => |l, i| shift(l, i, Kind::Left, I16x8),
        [Pslld_xmm_xmmm128 Pslld_xmm_imm8 | Vpslld] => |l, i| shift(l, i, Kind::Left, I32x4),
        [Psllq_xmm_xmmm128 Psllq_xmm_imm8 | Vpsllq] => |l, i| shift(l, i, Kind::Left, I64x2),
        [Psrlw_xmm_xmmm128 Psrlw_xmm_imm8 | Vpsrlw] => |l, i| shift(l, i, Kind::Logical, I16x8),
        [Psrld_xmm_xmmm128 Psrld_xmm_imm8 | Vpsrld] => |l, i| shift(l, i, Kind::Logical, I32x4),
        [Psrlq_xmm_xmmm128 Psrlq_xmm_imm8 | Vpsrlq] => |l, i| shift(l, i, Kind::Logical, I64x2),
        [Psraw_xmm_xmmm128 Psraw_xmm_imm8 | Vpsraw] => |l, i| shift(l, i, Kind::Arithmetic, I16x8),
        [Psrad_xmm_xmmm128 Psrad_xmm_imm8 | Vpsrad] => |l, i| shift(l, i, Kind::Arithmetic, I32x4),
        [| Vpsllvd] => lanewise!(vshl_v I32x4),
        [| Vpsllvq] => lanewise!(vshl_v I64x2),
        [| Vpsrlvd] => lanewise!(vshr_u_v I32x4),
        [| Vpsrlvq] => lanewise!(vshr_u_v I64x2),
        [| Vpsravd] => lanewise!(vshr_s_v I32x4),
        [Pslldq_xmm_imm8 | Vpslldq] => |l, i| shift_bytes(l, i, true),
        [Psrldq_xmm_imm8 | Vpsrldq] => |l, i| shift_bytes(l, i, false),
    }
};

/// PMULHW, PMULHUW
fn multiply_high(l: &mut Lifter<'_>, signed: bool, a: Value, b: Value) -> Value {
    if signed {
        let (lo, hi) = (l.vmul_widen_lo_s(I16x8, a, b), l.vmul_widen_hi_s(I16x8, a, b));
        let (lo, hi) = (l.vshr_s_i(I32x4, lo, 16), l.vshr_s_i(I32x4, hi, 16));
        l.vnarrow_sat_s(I32x4, lo, hi)
    } else {
        let (lo, hi) = (l.vmul_widen_lo_u(I16x8, a, b), l.vmul_widen_hi_u(I16x8, a, b));
        let (lo, hi) = (l.vshr_u_i(I32x4, lo, 16), l.vshr_u_i(I32x4, hi, 16));
        l.vnarrow_sat_su(I32x4, lo, hi)
    }
}

/// PMULHRSW: bits 30:15 of the product, rounded
fn multiply_high_rounded(l: &mut Lifter<'_>, a: Value, b: Value) -> Value {
    let half = l.iconst(tulk_ir::Type::I32, 0x4000);
    let half = l.vsplat(I32x4, half);
    let (lo, hi) = (l.vmul_widen_lo_s(I16x8, a, b), l.vmul_widen_hi_s(I16x8, a, b));
    let [lo, hi] = [lo, hi].map(|p| {
        let p = l.vadd(I32x4, p, half);
        // The square of -1.0 wraps.
        let p = l.vshl_i(I32x4, p, 1);
        l.vshr_s_i(I32x4, p, 16)
    });
    l.vnarrow_sat_s(I32x4, lo, hi)
}

/// PMULUDQ, PMULDQ: products of the even lanes
fn multiply_even(l: &mut Lifter<'_>, signed: bool, a: Value, b: Value) -> Value {
    let even = lanes(4, |n| (2 * n) & 3);
    let (a, b) = (l.vshuffle(a, a, even), l.vshuffle(b, b, even));
    if signed { l.vmul_widen_lo_s(I32x4, a, b) } else { l.vmul_widen_lo_u(I32x4, a, b) }
}

/// PMADDUBSW: unsigned by signed bytes, neighbours summed with saturation
fn multiply_add_bytes(l: &mut Lifter<'_>, a: Value, b: Value) -> Value {
    let low = l.iconst(tulk_ir::Type::I16, 0xff);
    let low = l.vsplat(I16x8, low);
    let (a_even, a_odd) = (l.vand(a, low), l.vshr_u_i(I16x8, a, 8));
    let b_even = l.vshl_i(I16x8, b, 8);
    let (b_even, b_odd) = (l.vshr_s_i(I16x8, b_even, 8), l.vshr_s_i(I16x8, b, 8));
    let (even, odd) = (l.vmul(I16x8, a_even, b_even), l.vmul(I16x8, a_odd, b_odd));
    l.vadd_sat_s(I16x8, even, odd)
}

/// |a - b| of unsigned lanes.
fn difference(l: &mut Lifter<'_>, shape: Shape, a: Value, b: Value) -> Value {
    let (x, y) = (l.vsub_sat_u(shape, a, b), l.vsub_sat_u(shape, b, a));
    l.vor(x, y)
}

/// PSADBW: sums of |a - b| over eight bytes
fn sum_of_differences(l: &mut Lifter<'_>, a: Value, b: Value) -> Value {
    let mut v = difference(l, I8x16, a, b);
    // Neighbours are added until a lane is 64 bits wide; sums stay below 2^16.
    for shape in [I16x8, I32x4, I64x2] {
        let half = shape.lane_bits() / 2;
        let low = (1u64 << half) - 1;
        let low = (0..shape.lanes()).fold(0, |m, n| m | (low as u128) << (n * shape.lane_bits()));
        let low = l.vconst(low);
        let (even, odd) = (l.vand(v, low), l.vshr_u_i(shape, v, half));
        v = l.vadd(shape, even, odd);
    }
    v
}

/// MPSADBW dst, src, imm8
fn mpsadbw(l: &mut Lifter<'_>, insn: &Instruction) {
    let imm = imm8(insn);
    let n = first(insn);
    let (a, b) = (l.vector(insn, n), l.vector(insn, n + 1));
    let half = |l: &mut Lifter<'_>, a: Value, b: Value, imm: u32| {
        let window = 4 * (imm >> 2 & 1) as u8;
        let block = 4 * (imm & 3) as u8;
        let mut sum = None;
        for k in 0..4u8 {
            let zero_extended = |at: &dyn Fn(u8) -> u8| {
                std::array::from_fn(|i| if i % 2 == 0 { at(i as u8 / 2) } else { 16 })
            };
            let x = l.pick_bytes(a, zero_extended(&|i| window + k + i));
            let y = l.pick_bytes(b, zero_extended(&|_| block + k));
            let d = difference(l, I16x8, x, y);
            sum = Some(sum.map_or(d, |s| l.vadd(I16x8, s, d)));
        }
        sum.expect("four terms")
    };
    let lo = half(l, a.lo, b.lo, imm);
    let hi = a.hi.zip(b.hi).map(|(a, b)| half(l, a, b, imm >> 3));
    l.put_vector(insn, Vector { lo, hi });
}

/// PSIGNB and kin: `a` times the sign of `b`
fn sign(l: &mut Lifter<'_>, shape: Shape, a: Value, b: Value) -> Value {
    let zero = l.vconst(0);
    let negated = l.vneg(shape, a);
    let negative = l.vicmp(IntCc::LtS, shape, b, zero);
    let v = l.vbitsel(negative, negated, a);
    let none = l.vicmp(IntCc::Eq, shape, b, zero);
    l.vand_not(v, none)
}

/// PHSUBW and kin: adjacent lanes of `a`, then of `b`, by `f(even, odd)`
fn pairs(
    l: &mut Lifter<'_>,
    shape: Shape,
    f: fn(&mut Lifter<'_>, Value, Value) -> Value,
    a: Value,
    b: Value,
) -> Value {
    let width = shape.lane_bits() as usize / 8;
    let even = l.vshuffle(a, b, lanes(width, |n| 2 * n));
    let odd = l.vshuffle(a, b, lanes(width, |n| 2 * n + 1));
    f(l, even, odd)
}

/// PHMINPOSUW dst, src: the least word and its position
fn phminposuw(l: &mut Lifter<'_>, insn: &Instruction) {
    l.map1(insn, |l, a| {
        // Words widened to value : position, so that the least of all is the answer.
        let positions = |from: u32| (0..4).fold(0, |v, n| v | ((from + n) as u128) << (32 * n));
        let (low, high) = (l.vconst(positions(0)), l.vconst(positions(4)));
        let (x, y) = (l.vwiden_lo_u(I16x8, a), l.vwiden_hi_u(I16x8, a));
        let (x, y) = (l.vshl_i(I32x4, x, 16), l.vshl_i(I32x4, y, 16));
        let (x, y) = (l.vor(x, low), l.vor(y, high));
        let mut least = l.vmin_u(I32x4, x, y);
        for step in [2, 1] {
            let other = l.vshuffle(least, least, lanes(4, |n| n ^ step));
            least = l.vmin_u(I32x4, least, other);
        }
        // Value in word 0, position in word 1.
        let from = |i| match i {
            0 | 1 => 2 + i as u8,
            2 | 3 => i as u8 - 2,
            _ => 16,
        };
        l.pick_bytes(least, std::array::from_fn(from))
    });
}

/// PXOR and kin; a register with itself is the usual way to zero
fn exclusive_or(l: &mut Lifter<'_>, insn: &Instruction) {
    let n = first(insn);
    if insn.op_kind(n + 1) == OpKind::Register && insn.op_register(n) == insn.op_register(n + 1) {
        let zero = l.vconst(0);
        let hi = insn.op0_register().is_ymm().then_some(zero);
        return l.put_vector(insn, Vector { lo: zero, hi });
    }
    l.map2(insn, |l, a, b| l.vxor(a, b));
}

#[derive(Clone, Copy)]
enum Kind {
    Left,
    Logical,
    Arithmetic,
}

/// PSLLW and kin: all lanes by the immediate, or by the low 64 bits of the second source
fn shift(l: &mut Lifter<'_>, insn: &Instruction, kind: Kind, shape: Shape) {
    let n = first(insn);
    let a = l.vector(insn, n);
    let f: &dyn Fn(&mut Lifter<'_>, Value) -> Value = if insn.op_kind(n + 1) == OpKind::Immediate8 {
        let amount = imm8(insn);
        let bits = shape.lane_bits();
        &move |l, a| match kind {
            Kind::Left | Kind::Logical if amount >= bits => l.vconst(0),
            Kind::Left => l.vshl_i(shape, a, amount),
            Kind::Logical => l.vshr_u_i(shape, a, amount),
            Kind::Arithmetic => l.vshr_s_i(shape, a, amount.min(bits)),
        }
    } else {
        let count = l.vector(insn, n + 1);
        let count = l.vlane(I64x2, count.lo, 0);
        &move |l, a| match kind {
            Kind::Left => l.vshl_by(shape, a, count),
            Kind::Logical => l.vshr_u_by(shape, a, count),
            Kind::Arithmetic => l.vshr_s_by(shape, a, count),
        }
    };
    let lo = f(l, a.lo);
    let hi = a.hi.map(|hi| f(l, hi));
    l.put_vector(insn, Vector { lo, hi });
}

/// PSLLDQ, PSRLDQ: by bytes
fn shift_bytes(l: &mut Lifter<'_>, insn: &Instruction, left: bool) {
    let a = l.vector(insn, first(insn));
    let amount = imm8(insn).min(16) as usize;
    let bytes = std::array::from_fn(|i| {
        let from = if left { i.checked_sub(amount) } else { Some(i + amount) };
        from.map_or(16, |n| n.min(16)) as u8
    });
    let lo = l.pick_bytes(a.lo, bytes);
    let hi = a.hi.map(|hi| l.pick_bytes(hi, bytes));
    l.put_vector(insn, Vector { lo, hi });
}
