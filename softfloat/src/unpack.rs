//! From encoded numbers to class, sign, exponent and significand.

use crate::env::{DenormalFlag, Env, Flags};
use crate::format::Format;
use crate::word::Word;

/// What kind of datum an encoding is, as far as arithmetic cares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    Zero,
    Finite,
    Infinite,
    /// From here on operations return a NaN.
    QuietNan,
    SignallingNan,
    /// An x87 encoding that is no number and no NaN; invalid as an operand.
    Unsupported,
}

/// A number taken apart.
///
/// A finite one is `(-1)^sign * significand / 2^(BITS-1) * 2^exp`, the significand's top bit set. A NaN keeps sign
/// and significand (top bit set, the quiet bit below it). Unrounded results take the same form, the lowest significand
/// bit sticky.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpacked<W> {
    pub class: Class,
    pub sign: bool,
    /// The encoding was denormal and has not been flushed.
    pub denormal: bool,
    pub exp: i32,
    pub sig: W,
}

impl<W: Word> Unpacked<W> {
    #[inline]
    pub fn zero(sign: bool) -> Self {
        Unpacked { class: Class::Zero, sign, denormal: false, exp: 0, sig: W::ZERO }
    }
    #[inline]
    pub fn infinite(sign: bool) -> Self {
        Unpacked { class: Class::Infinite, sign, denormal: false, exp: 0, sig: W::ZERO }
    }
    #[inline]
    pub fn finite(sign: bool, exp: i32, sig: W) -> Self {
        Unpacked { class: Class::Finite, sign, denormal: false, exp, sig }
    }
    /// A finite number or a zero from a significand that need not be normalised.
    #[inline]
    pub fn normalised(sign: bool, exp: i32, sig: W) -> Self {
        if sig.is_zero() {
            return Self::zero(sign);
        }
        let n = sig.leading_zeros();
        Self::finite(sign, exp - n as i32, sig << n)
    }
    #[inline]
    pub fn is_finite(&self) -> bool {
        self.class == Class::Finite
    }
    #[inline]
    pub fn is_zero(&self) -> bool {
        self.class == Class::Zero
    }
    #[inline]
    pub fn is_infinite(&self) -> bool {
        self.class == Class::Infinite
    }
    /// A NaN, or an encoding that acts like a signalling one.
    #[inline]
    pub fn is_nan(&self) -> bool {
        self.class >= Class::QuietNan
    }
    #[inline]
    pub fn is_signalling(&self) -> bool {
        self.class >= Class::SignallingNan
    }
    #[inline]
    pub fn negated(self) -> Self {
        Unpacked { sign: !self.sign, ..self }
    }

    /// The same number in another word; the target's lowest bit becomes sticky.
    #[inline]
    pub fn resized<V: Word>(self) -> Unpacked<V> {
        let Unpacked { class, sign, denormal, exp, sig } = self;
        let wide = sig.widen();
        // A NaN's lost payload bits are dropped, not jammed.
        let sig =
            if class >= Class::QuietNan { V::narrow(wide & V::MAX_WIDE) } else { V::narrow(wide) };
        Unpacked { class, sign, denormal, exp, sig }
    }
}

/// Takes an operand apart, flushing a denormal one as the environment says.
#[inline]
pub(crate) fn unpack<F: Format>(env: &mut Env, bits: F::Bits) -> Unpacked<F::Sig> {
    let flush = env.flushes_inputs::<F>();
    unpack_flushing::<F>(env, bits, flush)
}

/// [`unpack`] for operations with their own rule about flushing.
#[inline]
pub(crate) fn unpack_flushing<F: Format>(
    env: &mut Env,
    bits: F::Bits,
    flush: bool,
) -> Unpacked<F::Sig> {
    let (sign, exp, frac) = F::split(bits);
    let align = F::Sig::BITS - F::PREC;
    let sig = frac << align;
    if exp == 0 {
        if sig.is_zero() {
            return Unpacked::zero(sign);
        }
        if flush {
            if env.denormal_flag == DenormalFlag::Flushed && !F::HALF {
                env.raise(Flags::DENORMAL);
            }
            return Unpacked::zero(sign);
        }
        return Unpacked { denormal: true, ..Unpacked::normalised(sign, 1 - F::BIAS, sig) };
    }
    let quiet = F::Sig::TOP >> 1;
    if exp == F::EXP_MAX && F::SPECIALS {
        let fraction = sig & !F::Sig::TOP;
        let class = if F::EXPLICIT && !sig.has_top() {
            Class::Unsupported
        } else if fraction.is_zero() {
            Class::Infinite
        } else if !(fraction & quiet).is_zero() {
            Class::QuietNan
        } else {
            Class::SignallingNan
        };
        return Unpacked { class, sign, denormal: false, exp: 0, sig: fraction | F::Sig::TOP };
    }
    if F::EXPLICIT && !sig.has_top() {
        return Unpacked { class: Class::Unsupported, sign, denormal: false, exp: 0, sig };
    }
    Unpacked::finite(sign, exp - F::BIAS, sig | F::Sig::TOP)
}
