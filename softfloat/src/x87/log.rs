//! F2XM1, FYL2X, FYL2XP1 (Intel SDM vol. 1, 8.3.9).

use super::finish;
use super::wide::{EXP, LN2, LOG2_E, ODD, ONE, Wide, high, tail};
use crate::env::{Env, Flags};
use crate::format::F80;
use crate::mul::mul_unpacked;
use crate::nan::{invalid, propagate1, propagate2};
use crate::unpack::{Class, Unpacked, unpack};

/// The root of two, left-aligned and cut to 64 bits.
const SQRT_2: u128 = 0xb504_f333_f9de_6484 << 64;

/// F2XM1: 2^x - 1 for -1 <= x <= 1. Beyond, where the manual leaves the result undefined, `x` itself, as AMD processors
/// give. Inexact except for zeros and infinities.
pub fn x87_exp2_minus_1(env: &mut Env, x: u128) -> u128 {
    let x = unpack::<F80>(env, x);
    let value = match x.class {
        Class::Zero => x,
        Class::Finite => {
            env.used_denormal(x.denormal);
            env.raise(Flags::INEXACT);
            match x.exp {
                0 if x.sign && x.sig == ONE.sig => ONE.halved().negated(),
                0.. => x,
                _ => exp_minus_1(x.times(LN2)),
            }
        }
        Class::Infinite if x.sign => ONE.negated(),
        Class::Infinite => x,
        _ => propagate1(env, x),
    };
    finish(env, value)
}

/// e^w - 1 for |w| < 1: w + w * (w/2! + w^2/3! + ...).
fn exp_minus_1(w: Wide) -> Wide {
    let rest = w.times(tail(&EXP, w.fraction(), w.sign));
    if w.sign { w.minus(rest) } else { w.plus(rest) }
}

/// FYL2X: `y * log2(x)`, `y` in st(1) and `x` in st(0) (Intel SDM vol. 2, FYL2X, table of results).
pub fn x87_log2(env: &mut Env, y: u128, x: u128) -> u128 {
    let y = unpack::<F80>(env, y);
    let x = unpack::<F80>(env, x);
    let value = if x.is_nan() || y.is_nan() {
        propagate2(env, x, y)
    } else if x.is_zero() && y.is_finite() {
        env.raise(Flags::DIV_ZERO);
        Unpacked::infinite(!y.sign)
    } else if x.is_zero() {
        mul_unpacked(env, y, Unpacked::infinite(true))
    } else if x.sign {
        invalid(env, Flags::NONE)
    } else {
        env.used_denormal(x.denormal);
        let logarithm = if x.is_infinite() { x } else { log2(x) };
        mul_unpacked(env, y, logarithm)
    };
    finish_inexact(env, value, x.is_finite() && y.is_finite())
}

/// FYL2XP1: `y * log2(x + 1)`, `y` in st(1) and `x` in st(0). The manual defines it for |x| below 1 - sqrt(1/2). Beyond,
/// as on AMD processors, it is still that function for `x` above -1, and `x` itself otherwise.
pub fn x87_log2_plus_1(env: &mut Env, y: u128, x: u128) -> u128 {
    let y = unpack::<F80>(env, y);
    let x = unpack::<F80>(env, x);
    let value = if x.is_nan() || y.is_nan() {
        propagate2(env, x, y)
    } else if x.is_infinite() && x.sign {
        invalid(env, Flags::NONE)
    } else {
        env.used_denormal(x.denormal | y.denormal);
        match log2_plus_1(x) {
            Some(logarithm) => mul_unpacked(env, y, logarithm),
            None if y.is_finite() => x,
            None => mul_unpacked(env, y, x),
        }
    };
    finish_inexact(env, value, x.is_finite() && y.is_finite())
}

/// Rounds; a finite non-zero result from finite operands counts as inexact even where it is exact, as on AMD processors
/// (the manual does not say).
fn finish_inexact(env: &mut Env, value: Wide, evaluated: bool) -> u128 {
    let mut after = Env { flags: Flags::NONE, ..*env };
    let result = finish(&mut after, value);
    if evaluated && value.is_finite() {
        let tiny = after.flags.contains(Flags::TINY);
        after.raise(Flags::INEXACT | if tiny { Flags::UNDERFLOW } else { Flags::NONE });
    }
    env.raise(after.flags);
    result
}

/// log2(1 + x) of zero, plus infinity, and finite numbers above -1.
fn log2_plus_1(x: Wide) -> Option<Wide> {
    if !x.is_finite() {
        return Some(x);
    }
    if x.exp < -1 {
        // 2 atanh(x / (2 + x)) * log2(e)
        return Some(log2_of_ratio(x.over(ONE.plus(ONE).plus(x))));
    }
    let sum = ONE.plus(x);
    (sum.is_finite() && !sum.sign).then(|| log2(sum))
}

/// log2 of a positive number: its exponent plus the logarithm of a significand between sqrt(1/2) and sqrt(2).
fn log2(x: Wide) -> Wide {
    let (exp, significand) = if x.sig > SQRT_2 {
        (x.exp + 1, Wide { exp: -1, ..x })
    } else {
        (x.exp, Wide { exp: 0, ..x })
    };
    let exponent = Wide::integer(exp.into());
    let above_one = significand.minus(ONE);
    if above_one.is_zero() {
        return exponent;
    }
    exponent.plus(log2_of_ratio(above_one.over(significand.plus(ONE))))
}

/// 2 atanh(s) * log2(e) for |s| up to about 0.18.
fn log2_of_ratio(s: Wide) -> Wide {
    let t = s.fraction();
    let atanh = s.plus(s.times(tail(&ODD, high(t, t), false)));
    let doubled = Wide { exp: atanh.exp + 1, ..atanh };
    doubled.times(LOG2_E)
}
