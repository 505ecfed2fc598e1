//! Significand words: the integer that holds a significand while an operation runs.
//!
//! A significand is kept left-aligned, its integer bit in the word's top bit, so that one piece of code serves every
//! format whose precision leaves at least two bits (guard and sticky) at the bottom: `u64` for up to 62 bits of precision,
//! `u128` beyond. Bits that fall off the bottom are *jammed*: or-ed into the lowest bit, which keeps "more than",
//! "exactly" and "less than half" apart for the one rounding that follows.

use std::fmt::Debug;
use std::ops::{BitAnd, BitOr, BitXor, Not, Shl, Shr};

/// What the arithmetic needs from a significand word. Implemented for `u64` and `u128`.
pub trait Word:
    Copy
    + Ord
    + Debug
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
    + Not<Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
    const BITS: u32;
    const ZERO: Self;
    const ONE: Self;
    /// The integer bit of a left-aligned significand.
    const TOP: Self;
    /// What [`Word::widen`] of all ones gives.
    const MAX_WIDE: u128;

    fn leading_zeros(self) -> u32;
    fn overflowing_add(self, other: Self) -> (Self, bool);
    fn overflowing_sub(self, other: Self) -> (Self, bool);

    /// The full product, high word first.
    fn mul_wide(self, other: Self) -> (Self, Self);

    /// Quotient of `self : low` by `divisor` and whether the division was exact. Needs `self < divisor` and a
    /// divisor with its top bit set.
    fn div_wide(self, low: Self, divisor: Self) -> (Self, bool);

    /// `self * 2^64` divided by `divisor`: quotient and remainder. Needs `self < divisor` and a divisor with its top bit
    /// set.
    fn div_rem_step(self, divisor: Self) -> (u64, Self);

    /// Square root of `self : low`, rounded down, and whether it is exact. Needs one of the two top bits set.
    fn sqrt_wide(self, low: Self) -> (Self, bool);

    /// The same significand, left-aligned in 128 bits.
    fn widen(self) -> u128;

    /// The reverse of [`Word::widen`]; bits that do not fit are jammed.
    fn narrow(wide: u128) -> Self;

    #[inline]
    fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    #[inline]
    fn has_top(self) -> bool {
        self >= Self::TOP
    }

    /// `self` with the lowest bit set if `sticky`.
    #[inline]
    fn jam(self, sticky: bool) -> Self {
        if sticky { self | Self::ONE } else { self }
    }

    /// Shifts right by any amount; what falls off is jammed.
    #[inline]
    fn shr_jam(self, n: u32) -> Self {
        match n {
            0 => self,
            n if n < Self::BITS => (self >> n).jam(!(self << (Self::BITS - n)).is_zero()),
            _ => Self::ZERO.jam(!self.is_zero()),
        }
    }

    /// Shifts the pair `self : low` right by any amount; what falls off is jammed.
    #[inline]
    fn shr_jam_pair(self, low: Self, n: u32) -> (Self, Self) {
        match n {
            0 => (self, low),
            n if n < Self::BITS => {
                let lost = !(low << (Self::BITS - n)).is_zero();
                (self >> n, ((low >> n) | (self << (Self::BITS - n))).jam(lost))
            }
            n => (Self::ZERO, self.shr_jam(n - Self::BITS).jam(!low.is_zero())),
        }
    }
}

impl Word for u64 {
    const BITS: u32 = 64;
    const ZERO: u64 = 0;
    const ONE: u64 = 1;
    const TOP: u64 = 1 << 63;
    const MAX_WIDE: u128 = (u64::MAX as u128) << 64;

    #[inline]
    fn leading_zeros(self) -> u32 {
        u64::leading_zeros(self)
    }
    #[inline]
    fn overflowing_add(self, other: u64) -> (u64, bool) {
        u64::overflowing_add(self, other)
    }
    #[inline]
    fn overflowing_sub(self, other: u64) -> (u64, bool) {
        u64::overflowing_sub(self, other)
    }
    #[inline]
    fn mul_wide(self, other: u64) -> (u64, u64) {
        let product = u128::from(self) * u128::from(other);
        ((product >> 64) as u64, product as u64)
    }
    #[inline]
    fn div_wide(self, low: u64, divisor: u64) -> (u64, bool) {
        let (quotient, rest) = div_128_by_64(self, low, divisor);
        (quotient, rest == 0)
    }
    #[inline]
    fn div_rem_step(self, divisor: u64) -> (u64, u64) {
        div_128_by_64(self, 0, divisor)
    }
    #[inline]
    fn sqrt_wide(self, low: u64) -> (u64, bool) {
        let square = (u128::from(self) << 64) | u128::from(low);
        let root = square.isqrt();
        (root as u64, root * root == square)
    }
    #[inline]
    fn widen(self) -> u128 {
        u128::from(self) << 64
    }
    #[inline]
    fn narrow(wide: u128) -> u64 {
        ((wide >> 64) as u64).jam(wide as u64 != 0)
    }
}

impl Word for u128 {
    const BITS: u32 = 128;
    const ZERO: u128 = 0;
    const ONE: u128 = 1;
    const TOP: u128 = 1 << 127;
    const MAX_WIDE: u128 = u128::MAX;

    #[inline]
    fn leading_zeros(self) -> u32 {
        u128::leading_zeros(self)
    }
    #[inline]
    fn overflowing_add(self, other: u128) -> (u128, bool) {
        u128::overflowing_add(self, other)
    }
    #[inline]
    fn overflowing_sub(self, other: u128) -> (u128, bool) {
        u128::overflowing_sub(self, other)
    }
    #[inline]
    fn mul_wide(self, other: u128) -> (u128, u128) {
        let (a1, a0) = halves(self);
        let (b1, b0) = halves(other);
        let (low, high) = (a0 * b0, a1 * b1);
        let (middle, carry) = (a1 * b0).overflowing_add(a0 * b1);
        let (low, carry_low) = low.overflowing_add(middle << 64);
        (high + (middle >> 64) + (u128::from(carry) << 64) + u128::from(carry_low), low)
    }

    /// Long division by 64-bit digits (Knuth, The Art of Computer Programming vol. 2, 4.3.1, algorithm D).
    fn div_wide(self, low: u128, divisor: u128) -> (u128, bool) {
        let (low1, low0) = halves(low);
        let (digit1, rest) = div_step(self, low1, divisor);
        let (digit0, rest) = div_step(rest, low0, divisor);
        ((digit1 << 64) | digit0, rest == 0)
    }

    #[inline]
    fn div_rem_step(self, divisor: u128) -> (u64, u128) {
        let (digit, rest) = div_step(self, 0, divisor);
        (digit as u64, rest)
    }

    /// One Karatsuba step (Zimmermann, "Karatsuba Square Root", INRIA RR-3805): root of the high word, then one
    /// division for the low half. The estimate is never too small and at most one too large.
    fn sqrt_wide(self, low: u128) -> (u128, bool) {
        let high_root = self.isqrt();
        let rest = self - high_root * high_root;
        // rest <= 2 * high_root, so this fits; it is (rest * 2^64 + top of low) / 2.
        let half = (rest << 63) + (low >> 65);
        let digit = half / high_root;
        // A root of 2^128 would be one too large: all ones then.
        let mut root = (high_root << 64).saturating_add(digit);
        loop {
            let square = root.mul_wide(root);
            if square <= (self, low) {
                return (root, square == (self, low));
            }
            root -= 1;
        }
    }
    #[inline]
    fn widen(self) -> u128 {
        self
    }
    #[inline]
    fn narrow(wide: u128) -> u128 {
        wide
    }
}

/// High and low 64 bits.
#[inline]
fn halves(word: u128) -> (u128, u128) {
    (word >> 64, word & u128::from(u64::MAX))
}

/// Quotient and remainder of `high : low` by a divisor above `high` with its top bit set: two 32-bit digits of long
/// division, which is several times faster than the general 128-bit division of the run-time library.
#[inline]
pub(crate) fn div_128_by_64(high: u64, low: u64, divisor: u64) -> (u64, u64) {
    #[inline]
    fn digit(rest: u64, next: u32, divisor: u64) -> (u64, u64) {
        let (d1, d0) = (divisor >> 32, divisor & 0xffff_ffff);
        let mut quotient = rest / d1;
        let mut partial = rest - quotient * d1;
        while quotient >> 32 != 0 || quotient * d0 > ((partial << 32) | u64::from(next)) {
            quotient -= 1;
            partial += d1;
            if partial >> 32 != 0 {
                break;
            }
        }
        let whole = (rest << 32) | u64::from(next);
        (quotient, whole.wrapping_sub(quotient.wrapping_mul(divisor)))
    }
    let (q1, rest) = digit(high, (low >> 32) as u32, divisor);
    let (q0, rest) = digit(rest, low as u32, divisor);
    ((q1 << 32) | q0, rest)
}

/// One 64-bit digit of `rest : next` divided by a 128-bit divisor above `rest` with its top bit set.
#[inline]
fn div_step(rest: u128, next: u128, divisor: u128) -> (u128, u128) {
    let (d1, d0) = halves(divisor);
    let (r1, r0) = halves(rest);
    // Estimate from the top digits; at most two too large.
    let (mut quotient, mut partial) = if r1 >= d1 {
        (u128::from(u64::MAX), rest - u128::from(u64::MAX) * d1)
    } else {
        let (q, r) = div_128_by_64(r1 as u64, r0 as u64, d1 as u64);
        (u128::from(q), u128::from(r))
    };
    while partial >> 64 == 0 && quotient * d0 > ((partial << 64) | next) {
        quotient -= 1;
        partial += d1;
    }
    let whole = (rest << 64) | next;
    (quotient, whole.wrapping_sub(quotient.wrapping_mul(divisor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Corner-heavy numbers without a dependency: a multiplicative generator masked into runs of ones and zeros.
    fn words(n: usize) -> impl Iterator<Item = u128> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u128;
        let mut next = move || {
            state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            state ^ (state >> 64)
        };
        (0..n).map(move |_| {
            let (value, kind) = (next(), next());
            let run = u128::MAX << (kind as u32 % 128);
            match kind >> 100 & 3 {
                0 => value,
                1 => run,
                2 => !run ^ (value & 1),
                _ => value & run,
            }
        })
    }

    #[test]
    fn wide_division_multiplies_back() {
        let mut numbers = words(400_000);
        while let (Some(a), Some(low), Some(d)) = (numbers.next(), numbers.next(), numbers.next()) {
            let d = d | u128::TOP;
            let a = a % d;
            let (q, exact) = a.div_wide(low, d);
            let (high, product_low) = q.mul_wide(d);
            let (rest_low, borrow) = low.overflowing_sub(product_low);
            assert_eq!(a - high - u128::from(borrow), 0, "{a:x} {low:x} / {d:x}");
            assert!(rest_low < d);
            assert_eq!(exact, rest_low == 0);

            let d64 = (d >> 64) as u64;
            let (a64, low64) = ((a >> 64) as u64 % d64, low as u64);
            let whole = (u128::from(a64) << 64) | u128::from(low64);
            let (q, r) = div_128_by_64(a64, low64, d64);
            assert_eq!(
                (u128::from(q), u128::from(r)),
                (whole / u128::from(d64), whole % u128::from(d64))
            );
        }
    }

    #[test]
    fn wide_root_brackets_its_square() {
        let mut numbers = words(200_000);
        while let (Some(a), Some(low)) = (numbers.next(), numbers.next()) {
            let a = a | if a & 1 == 0 { u128::TOP } else { u128::TOP >> 1 };
            for low in [low, 0, u128::MAX] {
                let (root, exact) = a.sqrt_wide(low);
                assert!(root.mul_wide(root) <= (a, low));
                assert_eq!(exact, root.mul_wide(root) == (a, low));
                if let Some(above) = root.checked_add(1) {
                    assert!(above.mul_wide(above) > (a, low));
                }
            }
            let (square, low) = a.mul_wide(a);
            if square >> 126 != 0 {
                assert_eq!(square.sqrt_wide(low), (a, true));
            }
        }
        assert_eq!(u128::MAX.sqrt_wide(u128::MAX), (u128::MAX, false));
    }

    #[test]
    fn jamming_keeps_what_falls_off() {
        assert_eq!(0x8000_0000_0000_0001_u64.shr_jam(4), 0x0800_0000_0000_0001);
        assert_eq!(1_u64.shr_jam(200), 1);
        assert_eq!(0_u64.shr_jam(200), 0);
        assert_eq!(u64::TOP.shr_jam_pair(1, 64), (0, u64::TOP | 1));
        assert_eq!(u64::TOP.shr_jam_pair(0, 127), (0, 1));
        assert_eq!(3_u64.shr_jam_pair(0, 1), (1, u64::TOP));
    }
}
