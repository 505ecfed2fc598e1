//! CVTPI2PS, CVTPI2PD, CVTPS2PI, CVTPD2PI and the truncating forms: between mm registers and floats (the manual, volume
//! 1, 10.4.4 and 11.4.1.6).
//!
//! With an unmasked SSE exception or flushed denormals a helper does them in software, as in [`crate::sse`].

use super::{CONVERT, enter, set, source, vector};
use crate::fpstate::{FLAGS, sse_si_code};
use crate::lifter::Lifter;
use crate::regs::{self, cell};
use crate::x87;
use crate::{fpstate, key};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use tulk_base::Trap;
use tulk_ir::Shape::{F32x4, F64x2, I32x4, I64x2};
use tulk_ir::{FpFlags, HelperCx, Round, Type, Value};
use tulk_softfloat::{self as soft, Env, F32, F64, Flags, IntRule, IntType, Rounding};

/// CVTPI2PS, CVTPI2PD xmm, src
pub fn from_integers(l: &mut Lifter<'_>, insn: &Instruction) {
    let double = insn.mnemonic() == Mnemonic::Cvtpi2pd;
    // With an operand in memory the MMX state is not touched (the manual has that of CVTPI2PD only).
    let mmx = insn.op1_kind() == OpKind::Register;
    if mmx {
        x87::start(l);
    }
    let v = source(l, insn, 1);
    let v = vector(l, v);
    if mmx {
        enter(l);
    }
    let slot = regs::XMM[insn.op0_register() as usize - Register::XMM0 as usize];
    if double {
        let wide = l.vwiden_lo_s(I32x4, v);
        let v = l.vsto_f(F64x2, wide);
        return l.set(slot, v);
    }
    let v = match l.key.has(key::SSE_TRAPS) {
        true => l.call(CONVERT, &[v], Conversion::FromInt as i64),
        false => l.vsto_f(F32x4, v),
    };
    let old = l.get(slot);
    let low = l.vlane(I64x2, v, 0);
    let v = l.vset_lane(I64x2, old, 0, low);
    l.set(slot, v);
}

/// CVTPS2PI, CVTPD2PI, CVTTPS2PI, CVTTPD2PI mm, src
pub fn to_integers(l: &mut Lifter<'_>, insn: &Instruction) {
    use Mnemonic::*;
    let m = insn.mnemonic();
    let double = matches!(m, Cvtpd2pi | Cvttpd2pi);
    let truncated = matches!(m, Cvttps2pi | Cvttpd2pi);
    x87::start(l);
    let a = match (insn.op1_kind(), double) {
        (OpKind::Memory, false) => {
            let v = source(l, insn, 1);
            vector(l, v)
        }
        _ => {
            let a = l.vector(insn, 1).lo;
            if double { a } else { low_half(l, a) }
        }
    };
    enter(l);
    let round = if truncated { Round::Zero } else { Round::Current };
    let v = if l.key.has(key::SSE_TRAPS | key::SSE_FLUSH) {
        let how = match (double, truncated) {
            (false, false) => Conversion::Single,
            (false, true) => Conversion::SingleTruncated,
            (true, false) => Conversion::Double,
            (true, true) => Conversion::DoubleTruncated,
        };
        let v = l.call(CONVERT, &[a], how as i64);
        l.vlane(I64x2, v, 0)
    } else if double {
        let [low, high] = [0, 1].map(|n| {
            let x = l.vlane(F64x2, a, n);
            let x = l.fto_s(Type::I32, round, true, x);
            l.zext(Type::I64, x)
        });
        l.binsert(low, high, 32, 32)
    } else {
        let v = l.vfto_s(F32x4, round, true, a);
        l.vlane(I64x2, v, 0)
    };
    set(l, insn.op0_register(), v);
}

/// The upper half made zero, which raises nothing.
fn low_half(l: &mut Lifter<'_>, a: Value) -> Value {
    let low = l.vlane(I64x2, a, 0);
    vector(l, low)
}

/// The helper's immediate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conversion {
    FromInt,
    Single,
    SingleTruncated,
    Double,
    DoubleTruncated,
}

pub(super) fn mmx_convert(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let mxcsr = cx.state.get(cell(regs::MXCSR)) as u32;
    let mut env = Env::sse(mxcsr);
    let kind = args[3] as i64;
    let truncated = [Conversion::SingleTruncated, Conversion::DoubleTruncated]
        .iter()
        .any(|&c| c as i64 == kind);
    let mode = if truncated { Rounding::Zero } else { env.rounding };
    let double = kind >= Conversion::Double as i64;
    let halves = if double {
        [args[0] as u64, (args[0] >> 64) as u64]
    } else {
        [args[0] as u32 as u64, (args[0] >> 32) as u32 as u64]
    };
    let [low, high] = halves.map(|v| match kind {
        0 => soft::from_i64::<F32>(&mut env, v as i32 as i64),
        _ if double => soft::to_int::<F64>(&mut env, v, IntType::I32, mode, IntRule::X86) as u32,
        _ => soft::to_int::<F32>(&mut env, v as u32, IntType::I32, mode, IntRule::X86) as u32,
    });
    raise(cx, mxcsr, env.flags)?;
    Ok(low as u128 | (high as u128) << 32)
}

/// Records exceptions; an unmasked one is #XM. Invalid operation, found before the others, hides them if unmasked.
fn raise(cx: &mut HelperCx<'_>, mxcsr: u32, flags: Flags) -> Result<(), Trap> {
    let masks = mxcsr >> 7;
    let before = flags.x86() & 1;
    let raised = if before & !masks != 0 { before } else { flags.x86() };
    cx.env.fp_raise(FpFlags(raised as u8));
    if raised & !masks & FLAGS == 0 {
        return Ok(());
    }
    fpstate::save(cx.state, cx.env);
    Err(Trap::Arithmetic(sse_si_code(cx.state)))
}
