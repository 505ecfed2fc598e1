//! The interchange formats (IEEE 754-2019 section 3.4) and their relatives, described by numbers.
//!
//! A format is a type without values; all operations are generic over it and work on its raw bits ([`Format::Bits`]).

use std::fmt::{Debug, LowerHex};

use crate::word::Word;

/// A binary floating-point format.
pub trait Format: Copy + Debug + 'static {
    /// The encoded number: the smallest unsigned integer that holds it.
    type Bits: Copy + Eq + Debug + LowerHex;
    /// Word for the significand during an operation.
    type Sig: Word;

    /// Bits of the exponent field.
    const EXP_BITS: u32;
    /// Bits of the significand, the integer bit included.
    const PREC: u32;
    /// The integer bit is stored (x87 extended).
    const EXPLICIT: bool = false;
    /// Flushing of denormals follows Arm's FZ16, not FZ.
    const HALF: bool = false;
    /// The top exponent encodes infinities and NaNs; Arm's alternative half precision uses it for numbers.
    const SPECIALS: bool = true;

    /// Exponent field of 1.0.
    const BIAS: i32 = (1 << (Self::EXP_BITS - 1)) - 1;
    /// Exponent field with all bits set.
    const EXP_MAX: i32 = (1 << Self::EXP_BITS) - 1;
    /// Stored bits of the significand.
    const FRAC_BITS: u32 = if Self::EXPLICIT { Self::PREC } else { Self::PREC - 1 };

    /// Sign, exponent field, significand field (right-aligned).
    fn split(bits: Self::Bits) -> (bool, i32, Self::Sig);

    /// The reverse of [`Format::split`]; the fields are in range.
    fn join(sign: bool, exp: i32, frac: Self::Sig) -> Self::Bits;
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident: $bits:ty, $sig:ty, exponent $exp:literal, precision $prec:literal
        $(, $const:ident = $value:literal)*;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl Format for $name {
            type Bits = $bits;
            type Sig = $sig;
            const EXP_BITS: u32 = $exp;
            const PREC: u32 = $prec;
            $(const $const: bool = $value;)*

            #[inline]
            fn split(bits: $bits) -> (bool, i32, $sig) {
                let frac = <$sig>::from(bits) & ((1 << Self::FRAC_BITS) - 1);
                let exp = (bits >> Self::FRAC_BITS) as i32 & Self::EXP_MAX;
                (bits >> (Self::FRAC_BITS + Self::EXP_BITS) & 1 != 0, exp, frac)
            }

            #[inline]
            fn join(sign: bool, exp: i32, frac: $sig) -> $bits {
                (<$bits>::from(sign) << (Self::FRAC_BITS + Self::EXP_BITS))
                    | ((exp as $bits) << Self::FRAC_BITS)
                    | frac as $bits
            }
        }
    )+};
}

formats! {
    /// IEEE binary16.
    F16: u16, u64, exponent 5, precision 11, HALF = true;
    /// Arm's alternative half precision (Arm ARM A1.4.2): no infinities or NaNs, one binade more. Only a format to
    /// convert from and to.
    F16Alt: u16, u64, exponent 5, precision 11, HALF = true, SPECIALS = false;
    /// bfloat16: the upper half of a binary32.
    Bf16: u16, u64, exponent 8, precision 8;
    /// IEEE binary32.
    F32: u32, u64, exponent 8, precision 24;
    /// IEEE binary64.
    F64: u64, u64, exponent 11, precision 53;
    /// x87 double extended (Intel SDM vol. 1, 4.2.2): the low 80 bits of a `u128`, the rest zero. The integer bit is
    /// stored, so there are encodings that no operation makes: pseudo-denormals, which count as the number they spell,
    /// and unnormals, pseudo-infinities and pseudo-NaNs, which are invalid operands.
    F80: u128, u128, exponent 15, precision 64, EXPLICIT = true;
    /// IEEE binary128.
    F128: u128, u128, exponent 15, precision 113;
}

/// The parts of an x87 register: significand (integer bit included), and sign with exponent.
#[inline]
pub fn f80_parts(bits: u128) -> (u64, u16) {
    (bits as u64, (bits >> 64) as u16)
}

/// An x87 register from its parts.
#[inline]
pub fn f80_from_parts(significand: u64, sign_exp: u16) -> u128 {
    (u128::from(sign_exp) << 64) | u128::from(significand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_standard_puts_them() {
        assert_eq!(F16::split(0xbc01), (true, 15, 1));
        assert_eq!(F32::split(0x3f80_0000), (false, F32::BIAS, 0));
        assert_eq!(F64::split(1.5f64.to_bits()), (false, 1023, 1 << 51));
        assert_eq!(F80::split(f80_from_parts(1 << 63, 0x3fff)), (false, 16383, 1 << 63));
        assert_eq!(F128::split(0x3fff << 112), (false, 16383, 0));
        assert_eq!(F80::join(true, 0x7fff, 3 << 62) >> 64, 0xffff);
        assert_eq!(Bf16::join(true, 127, 1), 0xbf81);
    }
}
