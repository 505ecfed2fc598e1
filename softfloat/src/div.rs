//! Division and square root (IEEE 754-2019 section 5.4.1).

use crate::env::{Env, Flags};
use crate::format::Format;
use crate::nan::{invalid, propagate1, propagate2};
use crate::round::round;
use crate::unpack::{Unpacked, unpack};
use crate::word::Word;

/// `a / b`.
#[inline]
pub fn div<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits) -> F::Bits {
    div_into::<F, F>(env, a, b)
}

/// `a / b` rounded once, to another format (PowerPC `fdivs`).
#[inline]
pub fn div_into<F: Format, R: Format<Sig = F::Sig>>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
) -> R::Bits {
    let a = unpack::<F>(env, a);
    let b = unpack::<F>(env, b);
    let quotient = div_unpacked(env, a, b);
    round::<R>(env, quotient)
}

/// The square root.
#[inline]
pub fn sqrt<F: Format>(env: &mut Env, a: F::Bits) -> F::Bits {
    sqrt_into::<F, F>(env, a)
}

/// The square root rounded once, to another format (PowerPC `fsqrts`).
#[inline]
pub fn sqrt_into<F: Format, R: Format<Sig = F::Sig>>(env: &mut Env, a: F::Bits) -> R::Bits {
    let a = unpack::<F>(env, a);
    let root = sqrt_unpacked(env, a);
    round::<R>(env, root)
}

#[inline]
fn div_unpacked<W: Word>(env: &mut Env, a: Unpacked<W>, b: Unpacked<W>) -> Unpacked<W> {
    let sign = a.sign ^ b.sign;
    if a.is_nan() || b.is_nan() {
        return propagate2(env, a, b);
    }
    if a.is_finite() && b.is_finite() {
        env.used_denormal(a.denormal | b.denormal);
        return div_finite(a, b);
    }
    if a.is_infinite() && b.is_infinite() {
        return invalid(env, Flags::VX_IDI);
    }
    if a.is_zero() && b.is_zero() {
        return invalid(env, Flags::VX_ZDZ);
    }
    if b.is_zero() && a.is_finite() {
        env.raise(Flags::DIV_ZERO);
        return Unpacked::infinite(sign);
    }
    env.used_denormal(a.denormal | b.denormal);
    if a.is_infinite() || b.is_zero() { Unpacked::infinite(sign) } else { Unpacked::zero(sign) }
}

/// The unrounded quotient of finite non-zero numbers.
#[inline]
pub(crate) fn div_finite<W: Word>(a: Unpacked<W>, b: Unpacked<W>) -> Unpacked<W> {
    // Halve the dividend where it is not below the divisor: a quotient below one, its top bit set.
    let (exp, (sig, exact)) = if a.sig < b.sig {
        (a.exp - b.exp - 1, a.sig.div_wide(W::ZERO, b.sig))
    } else {
        (a.exp - b.exp, (a.sig >> 1).div_wide(a.sig << (W::BITS - 1), b.sig))
    };
    Unpacked::finite(a.sign ^ b.sign, exp, sig.jam(!exact))
}

#[inline]
fn sqrt_unpacked<W: Word>(env: &mut Env, a: Unpacked<W>) -> Unpacked<W> {
    if a.is_nan() {
        return propagate1(env, a);
    }
    if a.is_zero() {
        return a;
    }
    if a.sign {
        return invalid(env, Flags::VX_SQRT);
    }
    env.used_denormal(a.denormal);
    if a.is_infinite() {
        return a;
    }
    // The root of sig * 2^BITS, or of half that for an even exponent, has its top bit set.
    let (root, exact) = if a.exp & 1 != 0 {
        a.sig.sqrt_wide(W::ZERO)
    } else {
        (a.sig >> 1).sqrt_wide(a.sig << (W::BITS - 1))
    };
    Unpacked::finite(false, a.exp >> 1, root.jam(!exact))
}
