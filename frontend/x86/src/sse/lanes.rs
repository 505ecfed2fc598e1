//! Conversion between lane widths, single lanes, tests: manual volume 1, 11.4.2.3, 12.10 and 14.6, SSE4a (AMD64
//! Architecture Programmer's Manual volume 4).

use super::family;
use super::operand::{Vector, first, imm8, lanes};
use crate::decode::Row;
use crate::flags::{AF, CF, OF, PF, SF, ZF};
use crate::lifter::Cond;
use crate::operand::Intent;
use crate::{Lifter, regs};
use iced_x86::{Instruction, OpKind};
use tulk_ir::Shape::{self, F32x4, I8x16, I16x8, I32x4, I64x2};
use tulk_ir::{IntCc, Type, Value};

/// dst = first op second, lane by lane.
macro_rules! lanewise {
    ($op:ident $shape:ident) => {
        |l, i| l.map2(i, |l, a, b| l.$op($shape, a, b))
    };
}

pub const ROWS: &[Row] = family! {
    quiet {
        [Packsswb_xmm_xmmm128 | Vpacksswb] => lanewise!(vnarrow_sat_s I16x8),
        [Packssdw_xmm_xmmm128 | Vpackssdw] => lanewise!(vnarrow_sat_s I32x4),
        [Packuswb_xmm_xmmm128 | Vpackuswb] => lanewise!(vnarrow_sat_su I16x8),
        [Packusdw_xmm_xmmm128 | Vpackusdw] => lanewise!(vnarrow_sat_su I32x4),
        [Pmovsxbw_xmm_xmmm64 | Vpmovsxbw] => |l, i| widen(l, i, true, I8x16, 1),
        [Pmovsxbd_xmm_xmmm32 | Vpmovsxbd] => |l, i| widen(l, i, true, I8x16, 2),
        [Pmovsxbq_xmm_xmmm16 | Vpmovsxbq] => |l, i| widen(l, i, true, I8x16, 3),
        [Pmovsxwd_xmm_xmmm64 | Vpmovsxwd] => |l, i| widen(l, i, true, I16x8, 1),
        [Pmovsxwq_xmm_xmmm32 | Vpmovsxwq] => |l, i| widen(l, i, true, I16x8, 2),
        [Pmovsxdq_xmm_xmmm64 | Vpmovsxdq] => |l, i| widen(l, i, true, I32x4, 1),
        [Pmovzxbw_xmm_xmmm64 | Vpmovzxbw] => |l, i| widen(l, i, false, I8x16, 1),
        [Pmovzxbd_xmm_xmmm32 | Vpmovzxbd] => |l, i| widen(l, i, false, I8x16, 2),
        [Pmovzxbq_xmm_xmmm16 | Vpmovzxbq] => |l, i| widen(l, i, false, I8x16, 3),
        [Pmovzxwd_xmm_xmmm64 | Vpmovzxwd] => |l, i| widen(l, i, false, I16x8, 1),
        [Pmovzxwq_xmm_xmmm32 | Vpmovzxwq] => |l, i| widen(l, i, false, I16x8, 2),
        [Pmovzxdq_xmm_xmmm64 | Vpmovzxdq] => |l, i| widen(l, i, false, I32x4, 1),
        [Pinsrb_xmm_r32m8_imm8 Pinsrb_xmm_r64m8_imm8 | Vpinsrb] => |l, i| insert(l, i, I8x16),
        [Pinsrw_xmm_r32m16_imm8 Pinsrw_xmm_r64m16_imm8 | Vpinsrw] => |l, i| insert(l, i, I16x8),
        [Pinsrd_xmm_rm32_imm8 | Vpinsrd] => |l, i| insert(l, i, I32x4),
        [Pinsrq_xmm_rm64_imm8 | Vpinsrq] => |l, i| insert(l, i, I64x2),
        [Pextrb_r32m8_xmm_imm8 Pextrb_r64m8_xmm_imm8 | Vpextrb] => |l, i| extract(l, i, I8x16),
        [Pextrw_r32_xmm_imm8 Pextrw_r64_xmm_imm8 Pextrw_r32m16_xmm_imm8 Pextrw_r64m16_xmm_imm8 | Vpextrw]
            => |l, i| extract(l, i, I16x8),
        [Pextrd_rm32_xmm_imm8 Extractps_rm32_xmm_imm8 Extractps_r64m32_xmm_imm8 | Vpextrd Vextractps]
            => |l, i| extract(l, i, I32x4),
        [Pextrq_rm64_xmm_imm8 | Vpextrq] => |l, i| extract(l, i, I64x2),
        [Insertps_xmm_xmmm32_imm8 | Vinsertps] => insertps,
        [| Vinsertf128 Vinserti128] => insert128,
        [| Vextractf128 Vextracti128] => extract128,
        [Ptest_xmm_xmmm128 | Vptest] => |l, i| test(l, i, None),
        [| Vtestps] => |l, i| test(l, i, Some(I32x4)),
        [| Vtestpd] => |l, i| test(l, i, Some(I64x2)),
        [Extrq_xmm_imm8_imm8 Extrq_xmm_xmm |] => extrq,
        [Insertq_xmm_xmm_imm8_imm8 Insertq_xmm_xmm |] => insertq,
    }
};

/// PMOVSXBW and kin: the low lanes of the source, doubled in width `steps` times
fn widen(l: &mut Lifter<'_>, insn: &Instruction, signed: bool, from: Shape, steps: u32) {
    let wide = insn.op0_register().is_ymm();
    let log2 = 4 - steps as u8 + wide as u8;
    let a = if log2 == 4 { l.vector(insn, 1).lo } else { l.low_part(insn, 1, log2) };
    let mut shape = from;
    let (mut lo, mut hi) = (a, None);
    for step in 0..steps {
        // The last step fills both halves; before it all lanes are in the low one.
        if wide && step == steps - 1 {
            hi = Some(if signed { l.vwiden_hi_s(shape, lo) } else { l.vwiden_hi_u(shape, lo) });
        }
        lo = if signed { l.vwiden_lo_s(shape, lo) } else { l.vwiden_lo_u(shape, lo) };
        shape = Shape::int_of_log2(shape.lane_bits().ilog2() as u8 - 3 + 1);
    }
    l.put_vector(insn, Vector { lo, hi });
}

/// PINSRB and kin: a general register's low bits or memory to a lane
fn insert(l: &mut Lifter<'_>, insn: &Instruction, shape: Shape) {
    let n = first(insn);
    let ty = shape.lane_type();
    let v = match insn.op_kind(n + 1) {
        OpKind::Register => {
            let v = l.reg(insn.op_register(n + 1));
            l.trunc(ty, v)
        }
        _ => {
            let addr = l.address(insn, ty.bytes(), Intent::Read);
            l.load(ty, addr)
        }
    };
    let a = l.xmm(insn.op_register(n));
    let v = l.vset_lane(shape, a, imm8(insn) % shape.lanes(), v);
    l.put_vector(insn, Vector::of(v));
}

/// PEXTRB and kin, EXTRACTPS: a lane to memory, or zero-extended to a general register
fn extract(l: &mut Lifter<'_>, insn: &Instruction, shape: Shape) {
    let a = l.xmm(insn.op1_register());
    let v = l.vlane(shape, a, imm8(insn) % shape.lanes());
    if insn.op0_kind() == OpKind::Memory {
        let addr = l.address(insn, shape.lane_bits() / 8, Intent::Write);
        return l.store(addr, v);
    }
    let v = l.zext(Type::I64, v);
    l.set_reg(insn.op0_register().full_register(), v);
}

/// INSERTPS dst, src, imm8
fn insertps(l: &mut Lifter<'_>, insn: &Instruction) {
    let n = first(insn);
    let imm = imm8(insn);
    let v = match insn.op_kind(n + 1) {
        OpKind::Register => {
            let v = l.xmm(insn.op_register(n + 1));
            l.vlane(F32x4, v, imm >> 6)
        }
        // Memory has one lane only.
        _ => l.scalar(insn, n + 1, F32x4),
    };
    let a = l.xmm(insn.op_register(n));
    let mut v = l.vset_lane(F32x4, a, imm >> 4 & 3, v);
    if imm & 15 != 0 {
        let bytes = lanes(4, |n| if imm >> n & 1 != 0 { 4 } else { n });
        v = l.pick_bytes(v, bytes);
    }
    l.put_vector(insn, Vector::of(v));
}

/// VINSERTF128, VINSERTI128
fn insert128(l: &mut Lifter<'_>, insn: &Instruction) {
    let a = l.vector(insn, 1);
    let b = l.vector(insn, 2).lo;
    let v = match imm8(insn) & 1 {
        0 => Vector { lo: b, hi: a.hi },
        _ => Vector { lo: a.lo, hi: Some(b) },
    };
    l.put_vector(insn, v);
}

/// VEXTRACTF128, VEXTRACTI128
fn extract128(l: &mut Lifter<'_>, insn: &Instruction) {
    let a = l.vector_reg(insn.op1_register());
    let v = if imm8(insn) & 1 == 0 { a.lo } else { a.hi.expect("a 256-bit source") };
    if insn.op0_kind() == OpKind::Memory {
        let addr = l.address(insn, 16, Intent::Write);
        return l.store(addr, v);
    }
    l.put_vector(insn, Vector::of(v));
}

/// PTEST, VTESTPS, VTESTPD: ZF for `a & b`, CF for `!a & b` being zero; with lanes, in their top bits
fn test(l: &mut Lifter<'_>, insn: &Instruction, tops: Option<Shape>) {
    let a = l.vector(insn, 0);
    let b = l.vector(insn, 1);
    let both = |l: &mut Lifter<'_>, f: fn(&mut Lifter<'_>, Value, Value) -> Value| {
        let mut v = f(l, a.lo, b.lo);
        if let Some((a, b)) = a.hi.zip(b.hi) {
            let hi = f(l, a, b);
            v = l.vor(v, hi);
        }
        if let Some(shape) = tops {
            let bits = l.vsign_bits(shape, v);
            return l.icmp_imm(IntCc::Eq, bits, 0);
        }
        let any = l.vany_true(v);
        l.icmp_imm(IntCc::Eq, any, 0)
    };
    let zero = both(l, |l, a, b| l.vand(a, b));
    let carry = both(l, |l, a, b| l.vand_not(b, a));
    let clear = Cond::Const(false);
    l.set_flag_bits(&[
        (ZF, Cond::If(zero)),
        (CF, Cond::If(carry)),
        (PF, clear),
        (AF, clear),
        (SF, clear),
        (OF, clear),
    ]);
}

/// The field that SSE4a immediates or the bytes of a register describe: mask of its length, and index, as I64.
fn field(l: &mut Lifter<'_>, length: Value, index: Value) -> (Value, Value) {
    let length = l.and_imm(length, 63);
    let index = l.and_imm(index, 63);
    // A length of 0 is 64.
    let unused = l.iconst(Type::I64, 64);
    let unused = l.sub(unused, length);
    let ones = l.iconst(Type::I64, -1);
    (l.shr_u(ones, unused), index)
}

/// EXTRQ dst, length, index; EXTRQ dst, src
fn extrq(l: &mut Lifter<'_>, insn: &Instruction) {
    let r = insn.op0_register();
    let (length, index) = if insn.op1_kind() == OpKind::Register {
        let b = l.xmm(insn.op1_register());
        let b = l.vlane(I64x2, b, 0);
        (b, l.shr_u_imm(b, 8))
    } else {
        let (length, index) = (insn.immediate(1) as i64, insn.immediate(2) as i64);
        (l.iconst(Type::I64, length), l.iconst(Type::I64, index))
    };
    let (mask, index) = field(l, length, index);
    let a = l.xmm(r);
    let low = l.vlane(I64x2, a, 0);
    let low = l.shr_u(low, index);
    let low = l.and(low, mask);
    // The upper half is undefined by the manual and zero in practice.
    let v = l.vscalar(I64x2, low);
    l.set(regs::XMM[r.number()], v);
}

/// INSERTQ dst, src, length, index; INSERTQ dst, src
fn insertq(l: &mut Lifter<'_>, insn: &Instruction) {
    let r = insn.op0_register();
    let b = l.xmm(insn.op1_register());
    let value = l.vlane(I64x2, b, 0);
    let (length, index) = if insn.op_count() == 2 {
        let b = l.vlane(I64x2, b, 1);
        (b, l.shr_u_imm(b, 8))
    } else {
        let (length, index) = (insn.immediate(2) as i64, insn.immediate(3) as i64);
        (l.iconst(Type::I64, length), l.iconst(Type::I64, index))
    };
    let (mask, index) = field(l, length, index);
    let a = l.xmm(r);
    let low = l.vlane(I64x2, a, 0);
    let value = l.and(value, mask);
    let value = l.shl(value, index);
    let mask = l.shl(mask, index);
    let low = l.and_not(low, mask);
    let low = l.or(low, value);
    // The upper half is undefined by the manual and zero in practice.
    let v = l.vscalar(I64x2, low);
    l.set(regs::XMM[r.number()], v);
}
