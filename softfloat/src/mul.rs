//! Multiplication and fused multiply-add (IEEE 754-2019 section 5.4.1).
//!
//! The negated forms flip signs outside: `fma(-a, b, c)` is fnmsub and the like. Arm's instructions do the same, NaNs
//! included (Arm ARM, FPNeg before FPMulAdd); x86 and PowerPC leave NaN operands alone, which [`fma_with`] does.

use crate::add::exact_zero_sign;
use crate::env::{Env, Flags};
use crate::format::Format;
use crate::nan::{invalid, propagate2, propagate3};
use crate::round::round;
use crate::unpack::{Unpacked, unpack};
use crate::word::Word;

/// `a * b`.
#[inline]
pub fn mul<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits) -> F::Bits {
    mul_into::<F, F>(env, a, b)
}

/// `a * b` rounded once, to another format (PowerPC `fmuls`).
#[inline]
pub fn mul_into<F: Format, R: Format<Sig = F::Sig>>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
) -> R::Bits {
    let a = unpack::<F>(env, a);
    let b = unpack::<F>(env, b);
    let product = mul_unpacked(env, a, b);
    round::<R>(env, product)
}

/// Arm FMULX: as [`mul`], but infinity times zero is 2.0 with the product's sign (Arm ARM, FPMulX).
pub fn mul_extended<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits) -> F::Bits {
    let a = unpack::<F>(env, a);
    let b = unpack::<F>(env, b);
    let product = if is_invalid_product(&a, &b) {
        Unpacked::finite(a.sign ^ b.sign, 1, F::Sig::TOP)
    } else {
        mul_unpacked(env, a, b)
    };
    round::<F>(env, product)
}

/// `a * b + c`, rounded once.
#[inline]
pub fn fma<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits, c: F::Bits) -> F::Bits {
    fma_into::<F, F>(env, a, b, c, Negate::NOTHING)
}

/// Which parts of a fused operation change sign. NaN operands never do; negating the result leaves a NaN result alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Negate {
    pub product: bool,
    pub addend: bool,
    pub result: bool,
}

impl Negate {
    pub const NOTHING: Negate = Negate { product: false, addend: false, result: false };
}

/// `a * b + c` with parts negated, as x86 (`vfnmsub`: product and addend) and PowerPC (`fnmadd`: result) do it.
#[inline]
pub fn fma_with<F: Format>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
    c: F::Bits,
    negate: Negate,
) -> F::Bits {
    fma_into::<F, F>(env, a, b, c, negate)
}

/// [`fma_with`], rounded once to another format (PowerPC `fmadds`).
#[inline]
pub fn fma_into<F: Format, R: Format<Sig = F::Sig>>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
    c: F::Bits,
    negate: Negate,
) -> R::Bits {
    let a = unpack::<F>(env, a);
    let b = unpack::<F>(env, b);
    let c = unpack::<F>(env, c);
    let sum = fma_unpacked(env, a, b, c, negate);
    if negate.result && !sum.is_nan() {
        // Rounding happens before the sign changes: directed modes see the sum (Power ISA Book I, 4.6.7.1).
        return negated::<R>(round::<R>(env, sum));
    }
    round::<R>(env, sum)
}

#[inline]
fn negated<F: Format>(bits: F::Bits) -> F::Bits {
    let (sign, exp, frac) = F::split(bits);
    F::join(!sign, exp, frac)
}

#[inline]
fn is_invalid_product<W: Word>(a: &Unpacked<W>, b: &Unpacked<W>) -> bool {
    a.is_infinite() && b.is_zero() || a.is_zero() && b.is_infinite()
}

/// The unrounded product.
#[inline]
pub(crate) fn mul_unpacked<W: Word>(env: &mut Env, a: Unpacked<W>, b: Unpacked<W>) -> Unpacked<W> {
    let sign = a.sign ^ b.sign;
    if a.is_finite() && b.is_finite() {
        env.used_denormal(a.denormal | b.denormal);
        return mul_finite(a, b);
    }
    if a.is_nan() || b.is_nan() {
        return propagate2(env, a, b);
    }
    if is_invalid_product(&a, &b) {
        return invalid(env, Flags::VX_IMZ);
    }
    env.used_denormal(a.denormal | b.denormal);
    if a.is_infinite() || b.is_infinite() { Unpacked::infinite(sign) } else { Unpacked::zero(sign) }
}

/// The unrounded product of finite non-zero numbers.
#[inline]
pub(crate) fn mul_finite<W: Word>(a: Unpacked<W>, b: Unpacked<W>) -> Unpacked<W> {
    let (exp, high, low) = product(a, b);
    Unpacked::finite(a.sign ^ b.sign, exp, high.jam(!low.is_zero()))
}

/// Exponent and exact significand of a product of finite numbers, normalised over two words.
#[inline]
fn product<W: Word>(a: Unpacked<W>, b: Unpacked<W>) -> (i32, W, W) {
    let exp = a.exp + b.exp;
    let (high, low) = a.sig.mul_wide(b.sig);
    if high.has_top() {
        (exp + 1, high, low)
    } else {
        (exp, (high << 1) | (low >> (W::BITS - 1)), low << 1)
    }
}

/// The unrounded fused result, product and addend negated as asked, not the result.
#[inline]
pub(crate) fn fma_unpacked<W: Word>(
    env: &mut Env,
    a: Unpacked<W>,
    b: Unpacked<W>,
    c: Unpacked<W>,
    negate: Negate,
) -> Unpacked<W> {
    let product_invalid = is_invalid_product(&a, &b);
    if a.is_nan() || b.is_nan() || c.is_nan() {
        return propagate3(env, a, b, c, product_invalid);
    }
    if product_invalid {
        return invalid(env, Flags::VX_IMZ);
    }
    let sign = a.sign ^ b.sign ^ negate.product;
    let c = if negate.addend { c.negated() } else { c };
    if a.is_infinite() || b.is_infinite() {
        if c.is_infinite() && c.sign != sign {
            return invalid(env, Flags::VX_ISI);
        }
        env.used_denormal(a.denormal | b.denormal | c.denormal);
        return Unpacked::infinite(sign);
    }
    env.used_denormal(a.denormal | b.denormal | c.denormal);
    if c.is_infinite() {
        return c;
    }
    if a.is_zero() || b.is_zero() {
        return match c.is_zero() {
            true if c.sign != sign => Unpacked::zero(exact_zero_sign(env.rounding)),
            _ => c,
        };
    }
    let (exp, high, low) = product(a, b);
    if c.is_zero() {
        return Unpacked::finite(sign, exp, high.jam(!low.is_zero()));
    }
    add_pairs(env, (sign, exp, high, low), (c.sign, c.exp, c.sig, W::ZERO))
}

/// Adds two finite numbers whose significands fill two words. One of them uses at most the upper word, so what
/// alignment jams is at least a word's guard bits away from where rounding looks.
#[inline]
fn add_pairs<W: Word>(env: &Env, x: (bool, i32, W, W), y: (bool, i32, W, W)) -> Unpacked<W> {
    let (large, small) = if (x.1, x.2, x.3) >= (y.1, y.2, y.3) { (x, y) } else { (y, x) };
    let (sign, mut exp, high, low) = large;
    let (small_high, small_low) = small.2.shr_jam_pair(small.3, (exp - small.1) as u32);
    if sign == small.0 {
        let (sum_low, carry) = low.overflowing_add(small_low);
        let (sum, carry1) = high.overflowing_add(small_high);
        let (sum, carry2) = sum.overflowing_add(if carry { W::ONE } else { W::ZERO });
        let mut sig = sum.jam(!sum_low.is_zero());
        if carry1 | carry2 {
            sig = sig.shr_jam(1) | W::TOP;
            exp += 1;
        }
        return Unpacked::finite(sign, exp, sig);
    }
    let (mut rest_low, borrow) = low.overflowing_sub(small_low);
    let (rest, _) = high.overflowing_sub(small_high);
    let (mut rest, _) = rest.overflowing_sub(if borrow { W::ONE } else { W::ZERO });
    if rest.is_zero() {
        if rest_low.is_zero() {
            return Unpacked::zero(exact_zero_sign(env.rounding));
        }
        (rest, rest_low) = (rest_low, W::ZERO);
        exp -= W::BITS as i32;
    }
    let n = rest.leading_zeros();
    if n != 0 {
        rest = (rest << n) | (rest_low >> (W::BITS - n));
        rest_low = rest_low << n;
    }
    Unpacked::finite(sign, exp - n as i32, rest.jam(!rest_low.is_zero()))
}
