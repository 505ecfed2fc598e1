//! Conversions: manual volume 1, 10.4.1.3 (table 11-1), 11.4.1.6, 11.6, 12.3 and 14.4.1 (half precision).

use super::family;
use super::operand::{Vector, first, lanes};
use super::precise::{self, Op, shape_of, traps, traps_or_flushes};
use super::transfer::PROBE;
use crate::Lifter;
use crate::cpu::Vendor;
use crate::decode::Row;
use crate::operand::Intent;
use iced_x86::{Instruction, OpKind};
use tulk_ir::Shape::{F32x4, F64x2, I32x4, I64x2};
use tulk_ir::{Round, Type, Value};

pub const ROWS: &[Row] = family! {
    quiet {
        [Cvtsi2ss_xmm_rm32 Cvtsi2ss_xmm_rm64 | Vcvtsi2ss] => |l, i| from_integer(l, i, false),
        [Cvtsi2sd_xmm_rm32 Cvtsi2sd_xmm_rm64 | Vcvtsi2sd] => |l, i| from_integer(l, i, true),
        [Cvtss2si_r32_xmmm32 Cvtss2si_r64_xmmm32 | Vcvtss2si] => |l, i| to_integer(l, i, Op::ToInt, false),
        [Cvtsd2si_r32_xmmm64 Cvtsd2si_r64_xmmm64 | Vcvtsd2si] => |l, i| to_integer(l, i, Op::ToInt, true),
        [Cvttss2si_r32_xmmm32 Cvttss2si_r64_xmmm32 | Vcvttss2si] => |l, i| to_integer(l, i, Op::ToIntZero, false),
        [Cvttsd2si_r32_xmmm64 Cvttsd2si_r64_xmmm64 | Vcvttsd2si] => |l, i| to_integer(l, i, Op::ToIntZero, true),
        [Cvtdq2ps_xmm_xmmm128 | Vcvtdq2ps] => integers_to_singles,
        [Cvtdq2pd_xmm_xmmm64 | Vcvtdq2pd] => integers_to_doubles,
        [Cvtps2dq_xmm_xmmm128 | Vcvtps2dq] => |l, i| singles_to_integers(l, i, Op::ToInt),
        [Cvttps2dq_xmm_xmmm128 | Vcvttps2dq] => |l, i| singles_to_integers(l, i, Op::ToIntZero),
        [Cvtpd2dq_xmm_xmmm128 | Vcvtpd2dq] => |l, i| doubles_to_integers(l, i, Op::ToInt),
        [Cvttpd2dq_xmm_xmmm128 | Vcvttpd2dq] => |l, i| doubles_to_integers(l, i, Op::ToIntZero),
        [Cvtss2sd_xmm_xmmm32 | Vcvtss2sd] => single_to_double,
        [Cvtsd2ss_xmm_xmmm64 | Vcvtsd2ss] => double_to_single,
        [Cvtps2pd_xmm_xmmm64 | Vcvtps2pd] => singles_to_doubles,
        [Cvtpd2ps_xmm_xmmm128 | Vcvtpd2ps] => doubles_to_singles,
        [| Vcvtph2ps] => |l, i| { precise::call(l, i, Op::HalfToSingle, false, false, 0); },
        [| Vcvtps2ph] => singles_to_halves,
    }
};

/// How [`Op::ToInt`] and [`Op::ToIntZero`] round.
fn rounding(op: Op) -> Round {
    if op == Op::ToInt { Round::Current } else { Round::Zero }
}

/// CVTSI2SS, CVTSI2SD dst, src
fn from_integer(l: &mut Lifter<'_>, insn: &Instruction, double: bool) {
    let n = first(insn) + 1;
    let ty = match insn.op_kind(n) {
        OpKind::Register if insn.op_register(n).is_gpr64() => Type::I64,
        OpKind::Memory if insn.memory_size().size() == 8 => Type::I64,
        _ => Type::I32,
    };
    // Doubles hold every 32-bit integer.
    if traps(l) && !(double && ty == Type::I32) {
        precise::call(l, insn, Op::FromInt, double, true, 0);
        return;
    }
    let a = l.operand(insn, n, ty);
    let v = l.sto_f(if double { Type::F64 } else { Type::F32 }, a);
    l.put_low(insn, shape_of(double), v);
}

/// CVTSS2SI, CVTTSS2SI and kin
fn to_integer(l: &mut Lifter<'_>, insn: &Instruction, op: Op, double: bool) {
    let r = insn.op0_register();
    let ty = if r.is_gpr64() { Type::I64 } else { Type::I32 };
    let v = if traps_or_flushes(l) {
        let v = precise::call(l, insn, op, double, true, 0);
        l.trunc(ty, v)
    } else {
        let a = l.scalar(insn, 1, shape_of(double));
        l.fto_s(ty, rounding(op), true, a)
    };
    l.set_reg(r, v);
}

/// CVTDQ2PS dst, src
fn integers_to_singles(l: &mut Lifter<'_>, insn: &Instruction) {
    if traps(l) {
        precise::call(l, insn, Op::FromInt, false, false, 0);
        return;
    }
    l.map1(insn, |l, a| l.vsto_f(F32x4, a));
}

/// The source of a conversion to lanes of twice the width: 64 bits, or 128 for a 256-bit destination.
fn half_source(l: &mut Lifter<'_>, insn: &Instruction) -> (Value, bool) {
    if insn.op0_register().is_ymm() {
        (l.vector(insn, 1).lo, true)
    } else {
        (l.low_part(insn, 1, 3), false)
    }
}

/// CVTDQ2PD dst, src
fn integers_to_doubles(l: &mut Lifter<'_>, insn: &Instruction) {
    let (a, wide) = half_source(l, insn);
    let lo = l.vwiden_lo_s(I32x4, a);
    let lo = l.vsto_f(F64x2, lo);
    let hi = wide.then(|| {
        let hi = l.vwiden_hi_s(I32x4, a);
        l.vsto_f(F64x2, hi)
    });
    l.put_vector(insn, Vector { lo, hi });
}

/// CVTPS2DQ, CVTTPS2DQ
fn singles_to_integers(l: &mut Lifter<'_>, insn: &Instruction, op: Op) {
    if traps_or_flushes(l) {
        precise::call(l, insn, op, false, false, 0);
        return;
    }
    l.map1(insn, |l, a| l.vfto_s(F32x4, rounding(op), true, a));
}

/// CVTPD2DQ, CVTTPD2DQ: to the low lanes, the others zero
fn doubles_to_integers(l: &mut Lifter<'_>, insn: &Instruction, op: Op) {
    if traps_or_flushes(l) {
        precise::call(l, insn, op, true, false, 0);
        return;
    }
    let a = l.vector(insn, 1);
    let pair = |l: &mut Lifter<'_>, a: Value| {
        let [low, high] = [0, 1].map(|n| {
            let x = l.vlane(F64x2, a, n);
            l.fto_s(Type::I32, rounding(op), true, x)
        });
        let (low, high) = (l.zext(Type::I64, low), l.zext(Type::I64, high));
        l.binsert(low, high, 32, 32)
    };
    let low = pair(l, a.lo);
    let mut v = l.vscalar(I64x2, low);
    if let Some(hi) = a.hi {
        let high = pair(l, hi);
        v = l.vset_lane(I64x2, v, 1, high);
    }
    l.put_vector(insn, Vector::of(v));
}

/// CVTSS2SD dst, src
fn single_to_double(l: &mut Lifter<'_>, insn: &Instruction) {
    if traps_or_flushes(l) {
        precise::call(l, insn, Op::Widen, true, true, 0);
        return;
    }
    let a = l.scalar(insn, first(insn) + 1, F32x4);
    let v = l.fpromote(a);
    l.put_low(insn, F64x2, v);
}

/// CVTSD2SS dst, src
fn double_to_single(l: &mut Lifter<'_>, insn: &Instruction) {
    if traps_or_flushes(l) {
        precise::call(l, insn, Op::Narrow, false, true, 0);
        return;
    }
    let a = l.scalar(insn, first(insn) + 1, F64x2);
    let v = l.fdemote(a);
    l.put_low(insn, F32x4, v);
}

/// CVTPS2PD dst, src
fn singles_to_doubles(l: &mut Lifter<'_>, insn: &Instruction) {
    if traps_or_flushes(l) {
        precise::call(l, insn, Op::Widen, true, false, 0);
        return;
    }
    let (a, wide) = half_source(l, insn);
    let lo = l.vfpromote_lo(a);
    let hi = wide.then(|| {
        let upper = l.vshuffle(a, a, lanes(8, |_| 1));
        l.vfpromote_lo(upper)
    });
    l.put_vector(insn, Vector { lo, hi });
}

/// CVTPD2PS dst, src
fn doubles_to_singles(l: &mut Lifter<'_>, insn: &Instruction) {
    if traps_or_flushes(l) {
        precise::call(l, insn, Op::Narrow, false, false, 0);
        return;
    }
    let a = l.vector(insn, 1);
    let mut v = l.vfdemote_lo(a.lo);
    if let Some(hi) = a.hi {
        let upper = l.vfdemote_lo(hi);
        v = l.vshuffle(v, upper, lanes(8, |n| 2 * n));
    }
    l.put_vector(insn, Vector::of(v));
}

/// VCVTPS2PH dst, src, imm8
fn singles_to_halves(l: &mut Lifter<'_>, insn: &Instruction) {
    let imm = insn.immediate8() as u32;
    if insn.op0_kind() == OpKind::Memory && l.cpu.chip().vendor != Vendor::Intel {
        // A fault of the store comes before the exceptions; on processors of Intel behind them.
        let bytes = insn.memory_size().size() as u32;
        let addr = l.address(insn, bytes, Intent::Write);
        let at = l.flat(addr);
        l.call(PROBE, &[at], bytes as i64);
    }
    let low = precise::call(l, insn, Op::SingleToHalf, false, false, imm);
    if insn.op0_kind() == OpKind::Register {
        return;
    }
    // The result is in memory: the halves of 64 bits come one by one.
    if insn.memory_size().size() == 8 {
        let addr = l.address(insn, 8, Intent::Write);
        return l.store(addr, low);
    }
    let high = precise::call(l, insn, Op::SingleToHalf, false, true, imm);
    let v = l.vscalar(I64x2, low);
    let v = l.vset_lane(I64x2, v, 1, high);
    let addr = l.address(insn, 16, Intent::Write);
    l.store(addr, v);
}
