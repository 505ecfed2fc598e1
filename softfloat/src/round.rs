//! The one rounding at the end of every operation, and packing (IEEE 754-2019 sections 4.3, 7.4 to 7.6).

use crate::env::{Env, Flags, Rounding, Tininess};
use crate::format::Format;
use crate::unpack::{Class, Unpacked};
use crate::word::Word;

/// A significand cut to fewer bits.
#[derive(Clone, Copy)]
pub(crate) struct Cut<W> {
    /// The kept bits, right-aligned; one more bit than asked for when rounding carried out.
    pub kept: W,
    pub inexact: bool,
    /// Rounding made the magnitude larger.
    pub up: bool,
}

/// Drops the low `shift` bits (1 to BITS-1) of a magnitude, rounding.
#[inline]
pub(crate) fn cut<W: Word>(mode: Rounding, sign: bool, sig: W, shift: u32) -> Cut<W> {
    let kept = sig >> shift;
    let rest = sig << (W::BITS - shift);
    let inexact = !rest.is_zero();
    let up = match mode {
        Rounding::NearestEven => rest > W::TOP || rest == W::TOP && !(kept & W::ONE).is_zero(),
        Rounding::NearestAway => rest >= W::TOP,
        Rounding::Down => sign && inexact,
        Rounding::Up => !sign && inexact,
        Rounding::Zero => false,
        Rounding::ToOdd => inexact && (kept & W::ONE).is_zero(),
    };
    let kept = if up { kept.overflowing_add(W::ONE).0 } else { kept };
    Cut { kept, inexact, up }
}

/// Rounds an unrounded result to its format and packs it.
#[inline]
pub(crate) fn round<F: Format>(env: &mut Env, value: Unpacked<F::Sig>) -> F::Bits {
    let precision = if F::EXPLICIT { env.precision as u32 } else { F::PREC };
    let flush = env.flushes_outputs::<F>();
    round_with::<F>(env, value, precision, flush)
}

/// [`round`] for operations with their own rule about precision control and flushing.
#[inline]
pub(crate) fn round_with<F: Format>(
    env: &mut Env,
    value: Unpacked<F::Sig>,
    precision: u32,
    flush: bool,
) -> F::Bits {
    if value.class == Class::Finite {
        return round_finite::<F>(env, value, precision, flush);
    }
    match value.class {
        Class::Zero => zero::<F>(value.sign),
        _ if !F::SPECIALS => {
            // Arm ARM, FPConvert and FPRoundBase: no encoding for it in alternative half precision.
            env.raise(Flags::INVALID);
            if value.is_nan() {
                zero::<F>(value.sign)
            } else {
                F::join(value.sign, F::EXP_MAX, ones::<F>())
            }
        }
        Class::Infinite => infinity::<F>(value.sign),
        _ => {
            let frac = value.sig >> (F::Sig::BITS - F::PREC);
            F::join(value.sign, F::EXP_MAX, frac & ones::<F>())
        }
    }
}

#[inline]
fn round_finite<F: Format>(
    env: &mut Env,
    value: Unpacked<F::Sig>,
    precision: u32,
    flush: bool,
) -> F::Bits {
    let Unpacked { sign, mut sig, .. } = value;
    let mode = env.rounding;
    let shift = F::Sig::BITS - precision;
    let carried = F::Sig::ONE << precision;
    let mut exp = value.exp + F::BIAS;
    let mut tiny = false;
    if exp <= 0 {
        // Tiny after rounding means: tiny even when rounded as if the exponent had no lower bound.
        tiny = env.tininess == Tininess::BeforeRounding
            || exp < 0
            || cut(mode, sign, sig, shift).kept < carried;
        if tiny {
            env.raise(Flags::TINY);
            if F::EXPLICIT && env.wraps.contains(Flags::UNDERFLOW) {
                return wrapped::<F>(env, value, precision, WRAP);
            }
            if flush {
                env.raise(match env.tininess {
                    Tininess::BeforeRounding => Flags::UNDERFLOW,
                    Tininess::AfterRounding => Flags::UNDERFLOW | Flags::INEXACT,
                });
                return zero::<F>(sign);
            }
        }
        sig = sig.shr_jam((1 - exp) as u32);
        exp = 1;
    }
    let Cut { mut kept, inexact, up } = cut(mode, sign, sig, shift);
    if kept >= carried {
        kept = kept >> 1;
        exp += 1;
    }
    if exp >= F::EXP_MAX + i32::from(!F::SPECIALS) {
        if F::EXPLICIT && env.wraps.contains(Flags::OVERFLOW) {
            return wrapped::<F>(env, value, precision, -WRAP);
        }
        return overflow::<F>(env, sign, precision);
    }
    if inexact {
        env.raise(Flags::INEXACT);
        if up {
            env.raise(Flags::ROUNDED_UP);
        }
        if tiny {
            env.raise(Flags::UNDERFLOW);
        }
    }
    let integer_bit = F::Sig::ONE << (precision - 1);
    if (kept & integer_bit).is_zero() {
        exp = 0;
    }
    let frac = if F::EXPLICIT { kept << (F::PREC - precision) } else { kept & !integer_bit };
    F::join(sign, exp, frac)
}

/// What an unmasked overflow or underflow exception adds to the exponent.
const WRAP: i32 = 24576;

/// The result that an unmasked overflow or underflow exception delivers. Only x87 FSCALE can leave the range even so;
/// then it is an infinity or zero.
#[cold]
fn wrapped<F: Format>(
    env: &mut Env,
    value: Unpacked<F::Sig>,
    precision: u32,
    bias: i32,
) -> F::Bits {
    env.raise(if bias < 0 { Flags::OVERFLOW } else { Flags::UNDERFLOW });
    let exp = value.exp + bias;
    if exp + F::BIAS <= 0 || exp + F::BIAS >= F::EXP_MAX {
        env.raise(Flags::INEXACT);
        if bias > 0 {
            return zero::<F>(value.sign);
        }
        env.raise(Flags::ROUNDED_UP);
        return infinity::<F>(value.sign);
    }
    round_finite::<F>(env, Unpacked { exp, ..value }, precision, false)
}

#[cold]
fn overflow<F: Format>(env: &mut Env, sign: bool, precision: u32) -> F::Bits {
    if !F::SPECIALS {
        env.raise(Flags::INVALID);
        return F::join(sign, F::EXP_MAX, ones::<F>());
    }
    env.raise(Flags::OVERFLOW | Flags::INEXACT);
    if overflows_to_infinity(env.rounding, sign) {
        env.raise(Flags::ROUNDED_UP);
        infinity::<F>(sign)
    } else {
        let lost = F::PREC - precision;
        F::join(sign, F::EXP_MAX - 1, (ones::<F>() >> lost) << lost)
    }
}

/// Whether a result beyond the largest finite number becomes an infinity or that number.
#[inline]
pub(crate) fn overflows_to_infinity(mode: Rounding, sign: bool) -> bool {
    match mode {
        Rounding::NearestEven | Rounding::NearestAway => true,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero | Rounding::ToOdd => false,
    }
}

#[inline]
pub(crate) fn zero<F: Format>(sign: bool) -> F::Bits {
    F::join(sign, 0, F::Sig::ZERO)
}

#[inline]
pub(crate) fn infinity<F: Format>(sign: bool) -> F::Bits {
    let integer_bit = if F::EXPLICIT { F::Sig::ONE << (F::PREC - 1) } else { F::Sig::ZERO };
    F::join(sign, F::EXP_MAX, integer_bit)
}

/// A significand field with all bits set.
#[inline]
pub(crate) fn ones<F: Format>() -> F::Sig {
    (F::Sig::ONE << F::FRAC_BITS).overflowing_sub(F::Sig::ONE).0
}
