//! Integers: rounding to an integral value, conversions to and from integers and fixed point (IEEE 754-2019 sections
//! 5.4.1, 5.8, 5.9).

use crate::env::{Env, Flags, Rounding};
use crate::format::Format;
use crate::nan::{invalid, propagate1};
use crate::round::{Cut, cut, round, round_with};
use crate::unpack::{Class, Unpacked, unpack};
use crate::word::Word;

/// Rounds to an integral value in the same format; raises inexact only if `exact` (Arm FRINTX, x86 ROUNDSS without
/// the suppress bit, x87 FRNDINT).
#[inline]
pub fn round_to_integral<F: Format>(
    env: &mut Env,
    a: F::Bits,
    mode: Rounding,
    exact: bool,
) -> F::Bits {
    let value = unpack::<F>(env, a);
    let value = integral::<F>(env, value, mode, exact);
    round_with::<F>(env, value, F::PREC, false)
}

fn integral<F: Format>(
    env: &mut Env,
    value: Unpacked<F::Sig>,
    mode: Rounding,
    exact: bool,
) -> Unpacked<F::Sig> {
    if value.is_nan() {
        return propagate1(env, value);
    }
    // FRNDINT lists the denormal exception, ROUNDSS does not (Intel SDM vol. 2).
    env.used_denormal(value.denormal && F::EXPLICIT);
    if !value.is_finite() || value.exp >= F::PREC as i32 - 1 {
        return value;
    }
    let Cut { kept, inexact, up } = cut_at_point(mode, &value, value.exp);
    if inexact && exact {
        env.raise(Flags::INEXACT | if up { Flags::ROUNDED_UP } else { Flags::NONE });
    }
    Unpacked::normalised(value.sign, F::Sig::BITS as i32 - 1, kept)
}

/// The integral part, rounded, of a number whose significand counts with exponent `exp` below BITS-1.
#[inline]
fn cut_at_point<W: Word>(mode: Rounding, value: &Unpacked<W>, exp: i32) -> Cut<W> {
    // Below one half only the sticky bit matters.
    let below = (-exp).max(0) as u32;
    cut(mode, value.sign, value.sig.shr_jam(below), (W::BITS as i32 - 1 - exp.max(0)) as u32)
}

/// Arm FRINT32X, FRINT32Z, FRINT64X, FRINT64Z: integral values outside a signed integer of `bits` bits become its
/// least value, with invalid (Arm ARM, FPRoundIntN).
pub fn round_to_integral_within<F: Format>(
    env: &mut Env,
    a: F::Bits,
    mode: Rounding,
    bits: u32,
) -> F::Bits {
    let value = unpack::<F>(env, a);
    let before = env.flags;
    let limit = bits as i32 - 1;
    let result = if value.is_nan() { value } else { integral::<F>(env, value, mode, true) };
    let fits = match result.class {
        Class::Zero => true,
        Class::Finite => {
            result.exp < limit || result.sign && result.exp == limit && result.sig == F::Sig::TOP
        }
        _ => false,
    };
    let result = if fits {
        result
    } else {
        env.flags = before;
        env.raise(Flags::INVALID);
        Unpacked::finite(true, limit, F::Sig::TOP)
    };
    round_with::<F>(env, result, F::PREC, false)
}

/// An integer type to convert to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct IntType {
    /// 8 to 64.
    pub bits: u32,
    pub signed: bool,
}

impl IntType {
    pub const I16: IntType = IntType { bits: 16, signed: true };
    pub const U16: IntType = IntType { bits: 16, signed: false };
    pub const I32: IntType = IntType { bits: 32, signed: true };
    pub const U32: IntType = IntType { bits: 32, signed: false };
    pub const I64: IntType = IntType { bits: 64, signed: true };
    pub const U64: IntType = IntType { bits: 64, signed: false };

    /// All value bits set.
    #[inline]
    const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }
    #[inline]
    const fn max(self) -> u64 {
        self.mask() >> self.signed as u32
    }
    #[inline]
    const fn min(self) -> u64 {
        if self.signed { 1 << (self.bits - 1) } else { 0 }
    }
}

/// What a number outside the integer type converts to; invalid is raised in every case, inexact in none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum IntRule {
    /// Nearest bound; NaN gives zero (Arm ARM, FPToFixed).
    Arm,
    /// The integer indefinite: least signed, greatest unsigned value (Intel SDM vol. 1, 4.8.3.7 and E.4.2.2).
    X86,
    /// Nearest bound; NaN gives the least value (Power ISA Book I, `fctid` and relatives).
    Ppc,
    /// Greatest value, or the least for a set sign bit, NaNs too (SPARC JPS1, `FsTOi`).
    Sparc,
}

/// `a` as an integer in the low bits of the result, the rest zero.
#[inline]
pub fn to_int<F: Format>(
    env: &mut Env,
    a: F::Bits,
    int: IntType,
    mode: Rounding,
    rule: IntRule,
) -> u64 {
    to_fixed::<F>(env, a, 0, int, mode, rule)
}

/// `a * 2^fraction_bits` as an integer, rounded once (Arm ARM, FPToFixed).
pub fn to_fixed<F: Format>(
    env: &mut Env,
    a: F::Bits,
    fraction_bits: u32,
    int: IntType,
    mode: Rounding,
    rule: IntRule,
) -> u64 {
    let value = unpack::<F>(env, a);
    let exp = value.exp + fraction_bits as i32;
    match value.class {
        Class::Zero => return 0,
        Class::Finite if exp <= 64 => {
            let wide: Unpacked<u128> = value.resized();
            let Cut { kept, inexact, up } = cut_at_point(mode, &wide, exp);
            let bound = if value.sign { u128::from(int.min()) } else { u128::from(int.max()) };
            if kept <= bound {
                if inexact {
                    env.raise(Flags::INEXACT | if up { Flags::ROUNDED_UP } else { Flags::NONE });
                }
                let magnitude = kept as u64;
                return (if value.sign { magnitude.wrapping_neg() } else { magnitude })
                    & int.mask();
            }
        }
        Class::SignallingNan => env.raise(Flags::VX_SNAN),
        _ => {}
    }
    env.raise(Flags::INVALID | Flags::VX_CVI);
    match rule {
        IntRule::X86 if int.signed => int.min(),
        IntRule::X86 => int.max(),
        IntRule::Arm if value.is_nan() => 0,
        IntRule::Ppc if value.is_nan() => int.min(),
        _ if value.sign => int.min(),
        _ => int.max(),
    }
}

/// A signed integer as a number, rounded once.
#[inline]
pub fn from_i64<F: Format>(env: &mut Env, value: i64) -> F::Bits {
    from_magnitude::<F>(env, value < 0, value.unsigned_abs(), 0)
}

/// An unsigned integer as a number, rounded once.
#[inline]
pub fn from_u64<F: Format>(env: &mut Env, value: u64) -> F::Bits {
    from_magnitude::<F>(env, false, value, 0)
}

/// `value / 2^fraction_bits` (Arm ARM, FixedToFP), rounded once.
#[inline]
pub fn from_fixed_i64<F: Format>(env: &mut Env, value: i64, fraction_bits: u32) -> F::Bits {
    from_magnitude::<F>(env, value < 0, value.unsigned_abs(), fraction_bits)
}

/// `value / 2^fraction_bits`, unsigned.
#[inline]
pub fn from_fixed_u64<F: Format>(env: &mut Env, value: u64, fraction_bits: u32) -> F::Bits {
    from_magnitude::<F>(env, false, value, fraction_bits)
}

#[inline]
fn from_magnitude<F: Format>(
    env: &mut Env,
    sign: bool,
    magnitude: u64,
    fraction_bits: u32,
) -> F::Bits {
    let value =
        Unpacked::<u128>::normalised(sign, 63 - fraction_bits as i32, u128::from(magnitude) << 64);
    if F::EXPLICIT {
        // FILD is exact, whatever the precision control says.
        return round_with::<F>(env, value.resized(), F::PREC, false);
    }
    round::<F>(env, value.resized())
}

/// Arm FJCVTZS: a double modulo 2^32, rounded toward zero, and the Z flag: whether the conversion was exact
/// (Arm ARM, FPToFixedJS). -0 and flushed denormals count as inexact.
pub fn to_i32_javascript(env: &mut Env, a: u64) -> (u32, bool) {
    let value = unpack::<crate::format::F64>(env, a);
    match value.class {
        Class::Zero => return (0, a == 0),
        Class::Finite => {}
        _ => {
            env.raise(Flags::INVALID);
            return (0, false);
        }
    }
    // The low 32 bits of the magnitude, by the significand's place.
    let (magnitude, exact) = match value.exp {
        exp if exp < 0 => (0, false),
        exp if exp <= 63 => {
            let shift = 63 - exp as u32;
            ((value.sig >> shift) as u32, value.sig & ((1_u64 << shift) - 1) == 0)
        }
        exp if exp < 96 => ((value.sig << (exp as u32 - 63)) as u32, true),
        _ => (0, true),
    };
    let in_range = value.exp < 31 || value.sign && value.exp == 31 && magnitude == 1 << 31;
    if !in_range {
        env.raise(Flags::INVALID);
    } else if !exact {
        env.raise(Flags::INEXACT);
    }
    (if value.sign { magnitude.wrapping_neg() } else { magnitude }, in_range && exact)
}

/// The invalid result of an operation without operands to propagate, for instructions built outside this crate.
pub fn invalid_result<F: Format>(env: &mut Env) -> F::Bits {
    let nan = invalid::<F::Sig>(env, Flags::NONE);
    round_with::<F>(env, nan, F::PREC, false)
}
