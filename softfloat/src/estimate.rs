//! Arm's reciprocal estimates and Newton steps for binary16, binary32 and binary64, bit-exact (Arm ARM, shared
//! pseudocode: RecipEstimate, RecipSqrtEstimate, FPRecipEstimate, FPRSqrtEstimate, FPRecpX, FPRecipStepFused,
//! FPRSqrtStepFused).

use crate::env::{Env, Flags};
use crate::format::Format;
use crate::mul::{Negate, fma_unpacked};
use crate::nan::{invalid, propagate1, propagate2};
use crate::round::{infinity, ones, overflows_to_infinity, round, round_with, zero};
use crate::unpack::{Class, Unpacked, unpack};
use crate::word::Word;

/// RecipEstimate: for 256 <= a <= 511, a number in units of 1/512, its reciprocal in units of 1/256.
const fn recip_9bit(a: u32) -> u32 {
    // The middle of the interval that a stands for, rounded to nearest.
    ((1 << 19) / (a * 2 + 1)).div_ceil(2)
}

/// RecipSqrtEstimate: for 128 <= a <= 511, in units of 1/512, the reciprocal root in units of 1/256.
const fn recip_sqrt_9bit(a: u32) -> u32 {
    let middle = if a < 256 { a * 2 + 1 } else { ((a >> 1 << 1) + 1) * 2 };
    let mut b = 512;
    while middle * (b + 1) * (b + 1) < 1 << 28 {
        b += 1;
    }
    b.div_ceil(2)
}

/// Estimates as nine bits, by the nine leading bits of the operand. The root table starts at 128, the other at 256.
static RECIP: [u16; 256] = table(256);
static RECIP_SQRT: [u16; 384] = table(128);

const fn table<const N: usize>(first: usize) -> [u16; N] {
    let mut entries = [0; N];
    let mut i = 0;
    while i < N {
        let a = (first + i) as u32;
        entries[i] = (if first == 256 { recip_9bit(a) } else { recip_sqrt_9bit(a) }) as u16;
        i += 1;
    }
    entries
}

#[inline]
fn recip_entry(a: u32) -> u32 {
    RECIP[a as usize - 256].into()
}

#[inline]
fn recip_sqrt_entry(a: u32) -> u32 {
    RECIP_SQRT[a as usize - 128].into()
}

/// The top nine bits of a significand.
#[inline]
fn leading_nine<W: Word>(sig: W) -> u32 {
    (sig.widen() >> 119) as u32
}

/// A number from a nine-bit estimate and its exponent field, which may be 0 or -1: denormal then.
fn from_estimate<F: Format>(sign: bool, exp: i32, estimate: u32) -> F::Bits {
    let sig = F::Sig::narrow(u128::from(estimate) << 119) >> (F::Sig::BITS - F::PREC);
    if exp > 0 {
        F::join(sign, exp, sig & ones::<F>())
    } else {
        F::join(sign, 0, sig >> (1 - exp) as u32)
    }
}

/// FRECPE.
pub fn recip_estimate<F: Format>(env: &mut Env, a: F::Bits) -> F::Bits {
    let a = unpack::<F>(env, a);
    match a.class {
        Class::Zero => {
            env.raise(Flags::DIV_ZERO);
            infinity::<F>(a.sign)
        }
        Class::Infinite => zero::<F>(a.sign),
        Class::Finite if a.exp < -F::BIAS - 1 => {
            env.raise(Flags::OVERFLOW | Flags::INEXACT);
            if overflows_to_infinity(env.rounding, a.sign) {
                infinity::<F>(a.sign)
            } else {
                F::join(a.sign, F::EXP_MAX - 1, ones::<F>())
            }
        }
        Class::Finite if a.exp >= F::BIAS - 1 && env.flushes_outputs::<F>() => {
            env.raise(Flags::UNDERFLOW);
            zero::<F>(a.sign)
        }
        Class::Finite => {
            from_estimate::<F>(a.sign, F::BIAS - 1 - a.exp, recip_entry(leading_nine(a.sig)))
        }
        _ => nan::<F>(env, a),
    }
}

/// FRSQRTE.
pub fn recip_sqrt_estimate<F: Format>(env: &mut Env, a: F::Bits) -> F::Bits {
    let a = unpack::<F>(env, a);
    if a.is_nan() {
        return nan::<F>(env, a);
    }
    if a.is_zero() {
        env.raise(Flags::DIV_ZERO);
        return infinity::<F>(a.sign);
    }
    if a.sign {
        let value = invalid(env, Flags::VX_SQRT);
        return round_with::<F>(env, value, F::PREC, false);
    }
    if a.is_infinite() {
        return zero::<F>(false);
    }
    let exp = a.exp + F::BIAS;
    let leading = leading_nine(a.sig) >> (exp & 1);
    from_estimate::<F>(false, (3 * F::BIAS - 1 - exp).div_euclid(2), recip_sqrt_entry(leading))
}

/// FRECPX: the exponent field inverted, the fraction zero.
pub fn recip_exponent<F: Format>(env: &mut Env, a: F::Bits) -> F::Bits {
    let value = unpack::<F>(env, a);
    if value.is_nan() {
        return nan::<F>(env, value);
    }
    let (sign, exp, _) = F::split(a);
    let inverted = if exp == 0 { F::EXP_MAX - 1 } else { F::EXP_MAX - exp };
    F::join(sign, inverted, F::Sig::ZERO)
}

/// FRECPS: `2 - a * b`, fused; infinity times zero counts as zero. The sign of `a` is flipped even if it is a NaN.
pub fn recip_step<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits) -> F::Bits {
    let two = Unpacked::finite(false, 1, F::Sig::TOP);
    let value = fused_step::<F>(env, a, b, two);
    round::<F>(env, value)
}

/// FRSQRTS: `(3 - a * b) / 2`, fused; infinity times zero counts as zero. The sign of `a` is flipped even if it is a NaN.
pub fn recip_sqrt_step<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits) -> F::Bits {
    let three = Unpacked::finite(false, 1, F::Sig::TOP | (F::Sig::TOP >> 1));
    let value = fused_step::<F>(env, a, b, three);
    round::<F>(env, Unpacked { exp: value.exp - 1, ..value })
}

fn fused_step<F: Format>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
    c: Unpacked<F::Sig>,
) -> Unpacked<F::Sig> {
    let a = unpack::<F>(env, a).negated();
    let b = unpack::<F>(env, b);
    if a.is_nan() || b.is_nan() {
        return propagate2(env, a, b);
    }
    if a.is_infinite() && b.is_zero() || a.is_zero() && b.is_infinite() {
        return c;
    }
    fma_unpacked(env, a, b, c, Negate::NOTHING)
}

fn nan<F: Format>(env: &mut Env, a: Unpacked<F::Sig>) -> F::Bits {
    let value = propagate1(env, a);
    round_with::<F>(env, value, F::PREC, false)
}

/// URECPE: operands below 0.5 (top bit clear) give all ones (Arm ARM, UnsignedRecipEstimate).
pub fn recip_estimate_u32(a: u32) -> u32 {
    if a >> 31 == 0 { u32::MAX } else { recip_entry(a >> 23) << 23 }
}

/// URSQRTE: operands below 0.25 give all ones (Arm ARM, UnsignedRSqrtEstimate).
pub fn recip_sqrt_estimate_u32(a: u32) -> u32 {
    if a >> 30 == 0 { u32::MAX } else { recip_sqrt_entry(a >> 23) << 23 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::NanRule;
    use crate::format::{F16, F32, F64};

    #[test]
    fn estimates_span_their_range() {
        assert_eq!((recip_9bit(256), recip_9bit(511)), (511, 256));
        assert_eq!((recip_sqrt_9bit(128), recip_sqrt_9bit(511)), (511, 256));
        assert!(RECIP.iter().chain(&RECIP_SQRT).all(|e| (256..512).contains(e)));
    }

    /// Values by hand from the pseudocode.
    #[test]
    fn spot_values() {
        let mut env = Env::new(NanRule::Arm);
        assert_eq!(recip_estimate::<F32>(&mut env, 1.0_f32.to_bits()), 0x3f7f_8000);
        assert_eq!(recip_sqrt_estimate::<F32>(&mut env, 1.0_f32.to_bits()), 0x3f7f_8000);
        assert_eq!(recip_estimate::<F64>(&mut env, 2.0_f64.to_bits()), 0x3fdf_f000_0000_0000);
        assert_eq!(recip_exponent::<F16>(&mut env, 0x3c00), 0x4000);
        assert_eq!(recip_step::<F32>(&mut env, 0, 0x7f80_0000), 2.0_f32.to_bits());
        assert_eq!(recip_sqrt_step::<F32>(&mut env, 0, 0x7f80_0000), 1.5_f32.to_bits());
        assert_eq!(recip_estimate_u32(0x8000_0000), 0xff80_0000);
        assert_eq!(recip_sqrt_estimate_u32(0x4000_0000), 0xff80_0000);
        assert_eq!(env.flags, Flags::NONE);
    }
}
