//! Float helpers on software floats: half precision, and all precisions in FPCR's unusual modes; and the
//! operations that no host has (estimates, round to odd, bfloat16).
//!
//! Exceptions go to the engine's float environment; input denormal (IDC), which that does not know, goes to the
//! FPSR slot.

use super::ops::{Fp1, Fp2, Fp3, Precision, Unary};
use crate::a64::fpstate::{self, fpcr, fpsr};
use crate::a64::helpers::{FIRST_FP, helpers};
use crate::a64::regs;
use crate::a64::simd::helpers::map2;
use crate::a64::vector::Form;
use std::cmp::Ordering;
use tulk_base::Trap;
use tulk_ir::types::nzcv;
use tulk_ir::{Access, HelperCx, Round, Type};
use tulk_softfloat as sf;
use tulk_softfloat::{
    Bf16, Env, F16, F16Alt, F32, F64, Format, IntRule, IntType, MinMax, Rounding,
};

const READS: Access = Access::These(&[regs::FPCR, regs::FPSR]);
const WRITES: Access = Access::These(&[regs::FPSR]);

helpers! { FIRST_FP;
    /// [`Fp1`] on lanes.
    FP_ONE = helper_fp_one(V128) -> V128, READS, WRITES;
    /// [`Fp2`] on lanes.
    FP_TWO = helper_fp_two(V128, V128) -> V128, READS, WRITES;
    /// [`Fp3`] on lanes.
    FP_THREE = helper_fp_three(V128, V128, V128) -> V128, READS, WRITES;
    /// NZCV of lane 0 against lane 0.
    FP_COMPARE = helper_fp_compare(V128, V128) -> I32, READS, WRITES;
    /// Lane 0 to a general register.
    FP_TO_INT = helper_fp_to_int(V128) -> I64, READS, WRITES;
    /// A general register to lane 0.
    FP_FROM_INT = helper_fp_from_int(I64) -> V128, READS, WRITES;
    /// Lanes to another precision.
    FP_CONVERT = helper_fp_convert(V128) -> V128, READS, WRITES;
    /// Four half-precision factors of a wider product.
    FP_WIDEN_HALF = helper_fp_widen_half(V128) -> V128, Access::These(&[regs::FPCR]), Access::None;
    /// FJCVTZS: the word, and the Z flag in bit 32.
    FP_JAVASCRIPT = helper_fp_javascript(V128) -> I64, READS, WRITES;
}

/// The immediate of the lane helpers: operation, log2 of the lane's bytes, bits covered. [`Fp1`] adds
/// the rounding mode from bit 24 and the fraction bits from bit 32.
pub fn descriptor(op: u8, form: Form) -> i64 {
    op as i64 | (form.log2 as i64) << 8 | (form.bits as i64) << 16
}
pub fn compare_descriptor(form: Form, signalling: bool) -> i64 {
    descriptor(signalling as u8, form)
}
/// Bit 0: signed; bit 1: 64-bit integer; then as [`Fp1`].
pub fn integer_descriptor(unary: Unary, form: Form, int: Type, signed: bool) -> i64 {
    let kind = signed as u8 | ((int == Type::I64) as u8) << 1;
    descriptor(kind, form) | (unary.round as i64) << 24 | (unary.fraction as i64) << 32
}
/// Formats, number of lanes, round to odd.
pub fn convert_descriptor(from: Precision, to: Precision, lanes: u32, to_odd: bool) -> i64 {
    from as i64 | (to as i64) << 8 | (lanes as i64) << 16 | (to_odd as i64) << 24
}

fn form_of(imm: u128) -> Form {
    Form { log2: (imm >> 8) as u8, bits: (imm >> 16) as u8 as u32 }
}

/// A format whose numbers are lanes.
trait Lane: Format {
    fn from_lane(lane: u64) -> Self::Bits;
    fn to_lane(bits: Self::Bits) -> u64;
}

macro_rules! lane {
    ($($format:ident $bits:ty;)+) => { $(
        impl Lane for $format {
            #[inline]
            fn from_lane(lane: u64) -> $bits {
                lane as $bits
            }
            #[inline]
            fn to_lane(bits: $bits) -> u64 {
                bits as u64
            }
        }
    )+ };
}
lane! { F16 u16; F16Alt u16; Bf16 u16; F32 u32; F64 u64; }

/// `$body` with `$f` the format of lanes of `1 << log2` bytes.
macro_rules! with_format {
    ($log2:expr, $f:ident => $body:expr) => {
        match $log2 {
            1 => {
                type $f = F16;
                $body
            }
            2 => {
                type $f = F32;
                $body
            }
            _ => {
                type $f = F64;
                $body
            }
        }
    };
}

fn control(cx: &HelperCx<'_>) -> u32 {
    cx.state.get(regs::cell(regs::FPCR)) as u32
}

/// Runs `f` in the environment that FPCR describes and accumulates its exceptions.
fn in_env<R>(cx: &mut HelperCx<'_>, f: impl FnOnce(&mut Env) -> R) -> R {
    let mut env = Env::arm(control(cx));
    let result = f(&mut env);
    let raised = env.flags.fpsr();
    if raised & fpsr::IDC != 0 {
        let cell = regs::cell(regs::FPSR);
        cx.state.set(cell, cx.state.get(cell) | fpsr::IDC as u64);
    }
    if raised & !fpsr::IDC != 0 {
        cx.env.fp_raise(fpstate::flags_of(raised));
    }
    result
}

fn rounding(env: &Env, round: u8) -> Rounding {
    match Round::from_u8(round) {
        Round::Nearest => Rounding::NearestEven,
        Round::Down => Rounding::Down,
        Round::Up => Rounding::Up,
        Round::Zero => Rounding::Zero,
        Round::Away => Rounding::NearestAway,
        Round::Current => env.rounding,
    }
}

fn int_type(bits: u32, signed: bool) -> IntType {
    IntType { bits, signed }
}

/// Sign-extended from `bits`.
fn signed(value: u64, bits: u32) -> i64 {
    (value << (64 - bits)) as i64 >> (64 - bits)
}

fn unary<F: Lane>(env: &mut Env, op: Fp1, round: u8, fraction: u32, lane: u64) -> u64 {
    let a = F::from_lane(lane);
    let bits = size_of::<F::Bits>() as u32 * 8;
    let mode = rounding(env, round);
    F::to_lane(match op {
        Fp1::Sqrt => sf::sqrt::<F>(env, a),
        Fp1::Round => sf::round_to_integral::<F>(env, a, mode, false),
        Fp1::RoundExact => sf::round_to_integral::<F>(env, a, mode, true),
        Fp1::Round32 => sf::round_to_integral_within::<F>(env, a, mode, 32),
        Fp1::Round64 => sf::round_to_integral_within::<F>(env, a, mode, 64),
        Fp1::ToS | Fp1::ToU => {
            let int = int_type(bits, op == Fp1::ToS);
            return sf::to_fixed::<F>(env, a, fraction, int, mode, IntRule::Arm);
        }
        Fp1::FromS => sf::from_fixed_i64::<F>(env, signed(lane, bits), fraction),
        Fp1::FromU => sf::from_fixed_u64::<F>(env, lane, fraction),
        Fp1::Recpe => sf::recip_estimate::<F>(env, a),
        Fp1::Rsqrte => sf::recip_sqrt_estimate::<F>(env, a),
        Fp1::Recpx => sf::recip_exponent::<F>(env, a),
    })
}

fn helper_fp_one(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let imm = a[3];
    let (op, form) = (Fp1::ALL[imm as u8 as usize], form_of(imm));
    let (round, fraction) = ((imm >> 24) as u8, (imm >> 32) as u8 as u32);
    Ok(in_env(
        cx,
        |env| with_format!(form.log2, F => map2(form, a[0], 0, |x, _| unary::<F>(env, op, round, fraction, x))),
    ))
}

fn negated<F: Lane>(bits: F::Bits) -> F::Bits {
    let (sign, exp, frac) = F::split(bits);
    F::join(!sign, exp, frac)
}
fn magnitude<F: Lane>(bits: F::Bits) -> F::Bits {
    let (_, exp, frac) = F::split(bits);
    F::join(false, exp, frac)
}
fn binary<F: Lane>(env: &mut Env, op: Fp2, x: u64, y: u64) -> u64 {
    let (a, b) = (F::from_lane(x), F::from_lane(y));
    let truth = |b: bool| if b { u64::MAX } else { 0 };
    F::to_lane(match op {
        Fp2::Add => sf::add::<F>(env, a, b),
        Fp2::Sub => sf::sub::<F>(env, a, b),
        Fp2::Mul => sf::mul::<F>(env, a, b),
        Fp2::Div => sf::div::<F>(env, a, b),
        Fp2::Max => sf::max::<F>(env, a, b, MinMax::Ieee),
        Fp2::Min => sf::min::<F>(env, a, b, MinMax::Ieee),
        Fp2::MaxNum => sf::max::<F>(env, a, b, MinMax::Number),
        Fp2::MinNum => sf::min::<F>(env, a, b, MinMax::Number),
        Fp2::Nmul => negated::<F>(sf::mul::<F>(env, a, b)),
        Fp2::Abd => magnitude::<F>(sf::sub::<F>(env, a, b)),
        Fp2::Mulx => sf::mul_extended::<F>(env, a, b),
        Fp2::Recps => sf::recip_step::<F>(env, a, b),
        Fp2::Rsqrts => sf::recip_sqrt_step::<F>(env, a, b),
        Fp2::CmEq => return truth(sf::compare::<F>(env, a, b, false) == Some(Ordering::Equal)),
        Fp2::CmGe => return truth(sf::compare::<F>(env, a, b, true).is_some_and(Ordering::is_ge)),
        Fp2::CmGt => return truth(sf::compare::<F>(env, a, b, true).is_some_and(Ordering::is_gt)),
        Fp2::AcGe | Fp2::AcGt => {
            let order = sf::compare::<F>(env, magnitude::<F>(a), magnitude::<F>(b), true);
            return truth(order.is_some_and(|o| o.is_gt() || op == Fp2::AcGe && o.is_eq()));
        }
    })
}

fn helper_fp_two(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let (op, form) = (Fp2::ALL[a[3] as u8 as usize], form_of(a[3]));
    Ok(in_env(
        cx,
        |env| with_format!(form.log2, F => map2(form, a[0], a[1], |x, y| binary::<F>(env, op, x, y))),
    ))
}

fn helper_fp_three(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let (op, form) = (Fp3::ALL[a[3] as u8 as usize], form_of(a[3]));
    let [x, y, acc, _] = *a;
    Ok(match op {
        Fp3::Fma => in_env(cx, |env| {
            with_format!(form.log2, F => {
                let width = form.lane_bits();
                (0..form.lanes()).fold(0u128, |r, k| {
                    let lane = |v: u128| F::from_lane((v >> (k * width)) as u64);
                    let sum = sf::fma::<F>(env, lane(x), lane(y), lane(acc));
                    r | (F::to_lane(sum) as u128) << (k * width)
                })
            })
        }),
        Fp3::Bfdot => (0..form.lanes()).fold(0, |r, k| {
            let sum = sf::bf16_dot((acc >> (32 * k)) as u32, bfloats(x, k), bfloats(y, k));
            r | (sum as u128) << (32 * k)
        }),
        Fp3::Bfmmla => (0..4).fold(0, |r, k| {
            // Row k / 2 of the first and row k % 2 of the second matrix, two columns at a time.
            let (row, column) = (k & !1, (k & 1) << 1);
            let acc = (acc >> (32 * k)) as u32;
            let acc = sf::bf16_dot(acc, bfloats(x, row), bfloats(y, column));
            let acc = sf::bf16_dot(acc, bfloats(x, row + 1), bfloats(y, column + 1));
            r | (acc as u128) << (32 * k)
        }),
    })
}

/// The two bfloat16 numbers in 32-bit lane `k`.
fn bfloats(v: u128, k: u32) -> [u16; 2] {
    [(v >> (32 * k)) as u16, (v >> (32 * k + 16)) as u16]
}

fn helper_fp_compare(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let (signalling, form) = (a[3] & 1 != 0, form_of(a[3]));
    let order = in_env(cx, |env| {
        with_format!(form.log2, F => {
            sf::compare::<F>(env, F::from_lane(a[0] as u64), F::from_lane(a[1] as u64), signalling)
        })
    });
    Ok(match order {
        Some(Ordering::Less) => nzcv::N,
        Some(Ordering::Equal) => nzcv::Z | nzcv::C,
        Some(Ordering::Greater) => nzcv::C,
        None => nzcv::C | nzcv::V,
    } as u128)
}

/// Signed, width, rounding mode, fraction bits.
fn integer_of(imm: u128) -> (bool, u32, u8, u32) {
    (imm & 1 != 0, 32 << (imm >> 1 & 1), (imm >> 24) as u8, (imm >> 32) as u8 as u32)
}

fn helper_fp_to_int(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let form = form_of(a[3]);
    let (signed, bits, round, fraction) = integer_of(a[3]);
    Ok(in_env(cx, |env| {
        let mode = rounding(env, round);
        with_format!(form.log2, F => {
            let x = F::from_lane(a[0] as u64);
            sf::to_fixed::<F>(env, x, fraction, int_type(bits, signed), mode, IntRule::Arm)
        })
    }) as u128)
}

fn helper_fp_from_int(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let form = form_of(a[3]);
    let (is_signed, bits, _, fraction) = integer_of(a[3]);
    let x = a[0] as u64;
    Ok(in_env(cx, |env| {
        with_format!(form.log2, F => F::to_lane(if is_signed {
            sf::from_fixed_i64::<F>(env, signed(x, bits), fraction)
        } else {
            sf::from_fixed_u64::<F>(env, x, fraction)
        }))
    }) as u128)
}

fn helper_fp_convert(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let (from, to, lanes, to_odd) =
        (a[3] as u8, (a[3] >> 8) as u8, (a[3] >> 16) as u8, a[3] >> 24 & 1 != 0);
    let alternative = control(cx) & fpcr::AHP != 0;
    let width = |precision: u8| if precision == 4 { 16 } else { 8u32 << precision };
    Ok(in_env(cx, |env| {
        if to_odd {
            env.rounding = Rounding::ToOdd;
        }
        (0..lanes as u32).fold(0, |r, k| {
            let lane = (a[0] >> (k * width(from))) as u64;
            r | (convert_lane(env, from, to, alternative, lane) as u128) << (k * width(to))
        })
    }))
}

fn convert_lane(env: &mut Env, from: u8, to: u8, alternative: bool, lane: u64) -> u64 {
    fn to_precision<F: Lane>(env: &mut Env, to: u8, alternative: bool, lane: u64) -> u64 {
        let x = F::from_lane(lane);
        match to {
            1 if alternative => F16Alt::to_lane(sf::convert::<F, F16Alt>(env, x)),
            1 => F16::to_lane(sf::convert::<F, F16>(env, x)),
            2 => F32::to_lane(sf::convert::<F, F32>(env, x)),
            3 => F64::to_lane(sf::convert::<F, F64>(env, x)),
            _ => Bf16::to_lane(sf::convert::<F, Bf16>(env, x)),
        }
    }
    match from {
        1 if alternative => to_precision::<F16Alt>(env, to, true, lane),
        1 => to_precision::<F16>(env, to, false, lane),
        2 => to_precision::<F32>(env, to, alternative, lane),
        _ => to_precision::<F64>(env, to, alternative, lane),
    }
}

fn helper_fp_widen_half(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let flush = control(cx) & fpcr::FZ16 != 0;
    // Exact, so without exceptions.
    let env = &mut Env::arm(0);
    Ok((0..4).fold(0, |r, k| {
        let half = (a[0] >> (16 * k)) as u16;
        let (exp, fraction) = (half >> 10 & 31, half & 0x3ff);
        let sign = (half as u32 & 0x8000) << 16;
        let wide = match exp {
            31 => sign | 0x7f80_0000 | (fraction as u32) << 13,
            0 if flush => sign,
            _ => sf::convert::<F16, F32>(env, half),
        };
        r | (wide as u128) << (32 * k)
    }))
}

fn helper_fp_javascript(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let (word, exact) = in_env(cx, |env| sf::to_i32_javascript(env, a[0] as u64));
    Ok(word as u128 | (exact as u128) << 32)
}
