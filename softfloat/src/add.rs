//! Addition and subtraction (IEEE 754-2019 section 5.4.1).

use crate::env::{Env, Flags, Rounding};
use crate::format::Format;
use crate::nan::{invalid, propagate2};
use crate::round::round;
use crate::unpack::{Class, Unpacked, unpack};
use crate::word::Word;

/// `a + b`.
#[inline]
pub fn add<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits) -> F::Bits {
    add_into::<F, F>(env, a, b)
}

/// `a - b`. A NaN operand keeps its sign.
#[inline]
pub fn sub<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits) -> F::Bits {
    sub_into::<F, F>(env, a, b)
}

/// `a + b` rounded once, to another format (PowerPC `fadds`: double operands, single result).
#[inline]
pub fn add_into<F: Format, R: Format<Sig = F::Sig>>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
) -> R::Bits {
    let a = unpack::<F>(env, a);
    let b = unpack::<F>(env, b);
    let sum = add_unpacked(env, a, b);
    round::<R>(env, sum)
}

/// `a - b` rounded once, to another format.
#[inline]
pub fn sub_into<F: Format, R: Format<Sig = F::Sig>>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
) -> R::Bits {
    let a = unpack::<F>(env, a);
    let b = unpack::<F>(env, b);
    let difference = add_unpacked(env, a, if b.is_nan() { b } else { b.negated() });
    round::<R>(env, difference)
}

/// The unrounded sum.
#[inline]
pub(crate) fn add_unpacked<W: Word>(env: &mut Env, a: Unpacked<W>, b: Unpacked<W>) -> Unpacked<W> {
    if a.is_finite() && b.is_finite() {
        env.used_denormal(a.denormal | b.denormal);
        return add_finite(env.rounding, a, b);
    }
    if a.is_nan() || b.is_nan() {
        return propagate2(env, a, b);
    }
    match (a.class, b.class) {
        (Class::Infinite, Class::Infinite) if a.sign != b.sign => {
            return invalid(env, Flags::VX_ISI);
        }
        _ => env.used_denormal(a.denormal | b.denormal),
    }
    match (a.class, b.class) {
        (Class::Infinite, _) => a,
        (_, Class::Infinite) => b,
        (Class::Zero, Class::Zero) if a.sign != b.sign => {
            Unpacked::zero(exact_zero_sign(env.rounding))
        }
        (Class::Zero, _) => b,
        _ => a,
    }
}

/// Sign of the exact zero sum of two numbers of opposite sign (IEEE 754-2019 section 6.3).
#[inline]
pub(crate) fn exact_zero_sign(mode: Rounding) -> bool {
    mode == Rounding::Down
}

/// The sum of two finite non-zero numbers.
///
/// Only when the exponents differ by at most one can a difference lose more than one leading bit, and then no bit was
/// jammed: the guard bits below the precision hold the shifted-out one.
#[inline]
pub(crate) fn add_finite<W: Word>(mode: Rounding, a: Unpacked<W>, b: Unpacked<W>) -> Unpacked<W> {
    let (large, small) = if (a.exp, a.sig) >= (b.exp, b.sig) { (a, b) } else { (b, a) };
    let aligned = small.sig.shr_jam((large.exp - small.exp) as u32);
    if large.sign == small.sign {
        let (sum, carry) = large.sig.overflowing_add(aligned);
        return if carry {
            Unpacked::finite(large.sign, large.exp + 1, sum.shr_jam(1) | W::TOP)
        } else {
            Unpacked::finite(large.sign, large.exp, sum)
        };
    }
    let (difference, _) = large.sig.overflowing_sub(aligned);
    if difference.is_zero() {
        return Unpacked::zero(exact_zero_sign(mode));
    }
    Unpacked::normalised(large.sign, large.exp, difference)
}
