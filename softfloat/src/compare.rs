//! Comparison, minimum and maximum, classification (IEEE 754-2019 sections 5.6, 5.7, 9.6).

use std::cmp::Ordering;

use crate::env::{Env, Flags};
use crate::format::Format;
use crate::nan::propagate2;
use crate::round::round_with;
use crate::unpack::{Class, Unpacked, unpack, unpack_flushing};
use crate::word::Word;

/// `a` against `b`; `None` is unordered. A signalling NaN raises invalid, a quiet one only if `signalling`.
#[inline]
pub fn compare<F: Format>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
    signalling: bool,
) -> Option<Ordering> {
    let a = unpack::<F>(env, a);
    let b = unpack::<F>(env, b);
    if a.is_nan() || b.is_nan() {
        let mut kind = Flags::NONE;
        if a.is_signalling() || b.is_signalling() {
            kind = Flags::INVALID | Flags::VX_SNAN;
        }
        // Power ISA, fcmpo with the invalid exception disabled: VXVC for a signalling NaN too.
        if signalling {
            kind |= Flags::INVALID | Flags::VX_VC;
        }
        env.raise(kind);
        return None;
    }
    env.used_denormal(a.denormal | b.denormal);
    Some(order(&a, &b))
}

/// The order of two numbers; zeros are equal.
#[inline]
fn order<W: Word>(a: &Unpacked<W>, b: &Unpacked<W>) -> Ordering {
    let rank = |x: &Unpacked<W>| match x.class {
        Class::Zero => 0,
        _ if x.sign => -1,
        _ => 1,
    };
    let by_sign = rank(a).cmp(&rank(b));
    if by_sign != Ordering::Equal || a.is_zero() {
        return by_sign;
    }
    // Infinities have the greatest class of the two.
    let magnitude = (a.class, a.exp, a.sig).cmp(&(b.class, b.exp, b.sig));
    if a.sign { magnitude.reverse() } else { magnitude }
}

/// Which minimum or maximum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum MinMax {
    /// A NaN if an operand is one; -0 is below +0 (Arm FMIN and FMAX; IEEE 754-2019 minimum).
    Ieee,
    /// A quiet NaN loses against a number, a signalling one does not (Arm FMINNM, PowerPC `xsmindp`; IEEE 754-2008
    /// minNum).
    Number,
    /// The second operand if the operands are equal or one is a NaN, which raises invalid; NaNs are not quieted (x86
    /// MINSS).
    Second,
}

/// The smaller of two.
#[inline]
pub fn min<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits, kind: MinMax) -> F::Bits {
    choose::<F>(env, a, b, kind, Ordering::Less)
}

/// The larger of two.
#[inline]
pub fn max<F: Format>(env: &mut Env, a: F::Bits, b: F::Bits, kind: MinMax) -> F::Bits {
    choose::<F>(env, a, b, kind, Ordering::Greater)
}

fn choose<F: Format>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
    kind: MinMax,
    wanted: Ordering,
) -> F::Bits {
    let x = unpack::<F>(env, a);
    let y = unpack::<F>(env, b);
    if x.is_nan() || y.is_nan() {
        match kind {
            MinMax::Second => {
                env.raise(Flags::INVALID);
                return flushed::<F>(env, b);
            }
            MinMax::Number if x.class == Class::QuietNan && !y.is_nan() => {
                return flushed::<F>(env, b);
            }
            MinMax::Number if y.class == Class::QuietNan && !x.is_nan() => {
                return flushed::<F>(env, a);
            }
            _ => {
                let nan = propagate2(env, x, y);
                return round_with::<F>(env, nan, F::PREC, false);
            }
        }
    }
    env.used_denormal(x.denormal | y.denormal);
    let first = match order(&x, &y) {
        Ordering::Equal if kind == MinMax::Second => false,
        Ordering::Equal => x.sign == (wanted == Ordering::Less),
        other => other == wanted,
    };
    flushed::<F>(env, if first { a } else { b })
}

/// An operand returned as it is, or the zero it counts as.
fn flushed<F: Format>(env: &Env, bits: F::Bits) -> F::Bits {
    let (sign, exp, frac) = F::split(bits);
    let zero = exp == 0 && !frac.is_zero() && env.flushes_inputs::<F>();
    if zero { F::join(sign, 0, F::Sig::ZERO) } else { bits }
}

/// What an encoding is, signs apart (IEEE 754-2019 section 5.7.2; x87 FXAM).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FpClass {
    Zero,
    Subnormal,
    Normal,
    Infinite,
    QuietNan,
    SignallingNan,
    /// x87 only: unnormal, pseudo-infinity, pseudo-NaN.
    Unsupported,
}

/// Sign (true for negative) and class of a number. Raises nothing; x87 pseudo-denormals are subnormal.
pub fn classify<F: Format>(bits: F::Bits) -> (bool, FpClass) {
    let mut env = Env::new(crate::env::NanRule::Arm);
    let x = unpack_flushing::<F>(&mut env, bits, false);
    let class = match x.class {
        Class::Zero => FpClass::Zero,
        Class::Finite if x.denormal => FpClass::Subnormal,
        Class::Finite => FpClass::Normal,
        Class::Infinite => FpClass::Infinite,
        Class::QuietNan => FpClass::QuietNan,
        Class::SignallingNan => FpClass::SignallingNan,
        Class::Unsupported => FpClass::Unsupported,
    };
    (x.sign, class)
}
