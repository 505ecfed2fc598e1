//! The common case of x87 arithmetic: normal numbers, rounding to nearest with 64 bits, a normal result. Everything
//! else is left to the soft-float library, which `tests` compares with.

use super::unit::{C0, C1, C3, Format, Op};
use tulk_ir::Halves;

/// Number of the inexact exception's bit in the status word.
const INEXACT: u32 = 5;
const EXP_MAX: i64 = 0x7fff;
const BIAS: i64 = 0x3fff;
const ONE: u64 = 1 << 63;

/// Whether the control word rounds to nearest with 64 bits.
#[inline]
pub fn applies(fcw: u64) -> bool {
    fcw & 0xf00 == 0x300
}

/// A normal number.
#[derive(Clone, Copy)]
pub struct Normal {
    /// In bit 15.
    sign: u64,
    exp: i64,
    significand: u64,
}

impl Normal {
    /// Of a register: the exponents 1 to 0x7ffe, with the integer bit.
    #[inline(always)]
    pub fn of_register(significand: u64, high: u64) -> Option<Normal> {
        let exp = high & 0x7fff;
        let good = exp.wrapping_sub(1) < EXP_MAX as u64 - 1 && significand >> 63 != 0;
        good.then_some(Normal { sign: high & 0x8000, exp: exp as i64, significand })
    }

    /// Of a binary format in memory.
    #[inline(always)]
    fn of_format<const FRACTION: u32, const EXPONENT: u32>(raw: u64) -> Option<Normal> {
        let largest = (1 << EXPONENT) - 1;
        let exp = raw >> FRACTION & largest;
        let significand = raw << (63 - FRACTION) | ONE;
        let sign = (raw >> (FRACTION + EXPONENT) & 1) << 15;
        let good = exp.wrapping_sub(1) < largest - 1;
        good.then_some(Normal { sign, exp: exp as i64 + BIAS - largest as i64 / 2, significand })
    }

    /// Of an operand in this format, if it is one of the quick ones.
    #[inline(always)]
    pub fn of_memory(format: Format, raw: u64) -> Option<Normal> {
        match format {
            Format::F64 => Normal::of_format::<52, 11>(raw),
            Format::F32 => Normal::of_format::<23, 8>(raw as u32 as u64),
            _ => None,
        }
    }

    #[inline(always)]
    fn negated(self) -> Normal {
        Normal { sign: self.sign ^ 0x8000, ..self }
    }
}

/// Rounds a significand with 64 bits behind it; the exponent is known to stay in range. As in [`super::number`] what the
/// status word gets stands above the number.
#[inline(always)]
fn rounded(sign: u64, exp: i64, kept: u64, rest: u64) -> Halves {
    // Up above one half, and from one half to even.
    let (_, up) = rest.overflowing_add(ONE - 1 + (kept & 1));
    let (significand, carry) = kept.overflowing_add(up as u64);
    let exp = exp + carry as i64;
    // A carry leaves zeros.
    let significand = significand | (carry as u64) << 63;
    let status = ((rest != 0) as u64) << (16 + INEXACT) | (up as u64) << (16 + C1.trailing_zeros());
    Halves(significand, exp as u64 | sign | status)
}

/// Whether an exponent is at least `low` and so far from the largest that a result stays in range: what is not common is
/// told before anything is computed, so that the common way needs few registers.
#[inline(always)]
fn far_from_ends(exp: i64, low: i64) -> bool {
    ((exp - low) as u64) < (EXP_MAX - 2 - low) as u64
}

/// Only numbers go to the functions off the common way, not structures, which would be built in memory for them.
#[inline(always)]
fn add(a: Normal, b: Normal) -> Option<Halves> {
    let swap = (a.exp, a.significand) < (b.exp, b.significand);
    let (large, small) = if swap { (b, a) } else { (a, b) };
    if !far_from_ends(large.exp, 131) {
        return None;
    }
    let (sign, exp, distance) = (large.sign, large.exp, large.exp - small.exp);
    let (large, small, minus) = (large.significand, small.significand, sign != small.sign);
    if distance > 63 {
        return Some(add_far(sign, exp, large, small, distance, minus));
    }
    let (high, low) = (small >> distance, small << 1 << (63 - distance));
    if !minus {
        let (high, carry) = large.overflowing_add(high);
        let n = carry as u32;
        let low = low >> n | low & n as u64 | (high & n as u64) << 63;
        let high = high >> n | (carry as u64) << 63;
        return Some(rounded(sign, exp + n as i64, high, low));
    }
    let (low, borrow) = 0u64.overflowing_sub(low);
    let high = large - high - borrow as u64;
    if high == 0 {
        return Some(cancelled(sign, exp, low));
    }
    let n = high.leading_zeros();
    let high = high << n | low >> 1 >> (63 - n);
    Some(rounded(sign, exp - n as i64, high, low << n))
}

/// Numbers whose significands do not overlap: the smaller one decides how the larger one is rounded.
#[cold]
#[inline(never)]
fn add_far(sign: u64, exp: i64, large: u64, small: u64, distance: i64, minus: bool) -> Halves {
    // What is shifted out leaves a mark in the lowest bit.
    let rest = match distance {
        64 => small,
        65..128 => small >> (distance - 64) | (small << (128 - distance) != 0) as u64,
        _ => 1,
    };
    if !minus {
        return rounded(sign, exp, large, rest);
    }
    let (high, rest) = (large - 1, rest.wrapping_neg());
    let n = high.leading_zeros();
    let high = high << n | rest >> 1 >> (63 - n);
    rounded(sign, exp - n as i64, high, rest << n)
}

/// A difference that left `low` 64 bits further down only.
#[cold]
#[inline(never)]
fn cancelled(sign: u64, exp: i64, low: u64) -> Halves {
    if low == 0 {
        return Halves(0, 0);
    }
    let n = low.leading_zeros();
    rounded(sign, exp - 64 - n as i64, low << n, 0)
}

#[inline(always)]
fn mul(a: Normal, b: Normal) -> Option<Halves> {
    let exp = a.exp + b.exp - BIAS;
    if !far_from_ends(exp, 1) {
        return None;
    }
    let product = a.significand as u128 * b.significand as u128;
    let (high, low) = ((product >> 64) as u64, product as u64);
    // The product of two numbers in [1, 2) is in [1, 4).
    let top = high >> 63;
    let n = 1 - top;
    let high = high << n | (low >> 63) & n;
    Some(rounded(a.sign ^ b.sign, exp + top as i64, high, low << n))
}

#[inline(always)]
fn div(a: Normal, b: Normal) -> Option<Halves> {
    let exp = a.exp - b.exp + BIAS;
    if !far_from_ends(exp, 2) {
        return None;
    }
    let less = a.significand < b.significand;
    let dividend = (a.significand as u128) << (63 + less as u32);
    let quotient = (dividend / b.significand as u128) as u64;
    let rest = (dividend as u64).wrapping_sub(quotient.wrapping_mul(b.significand));
    // Where the rest stands to one half: below, at, above.
    let half = (rest as u128 * 2).cmp(&(b.significand as u128)) as i64;
    let behind = if rest == 0 { 0 } else { (ONE as i64).wrapping_add(half) as u64 };
    Some(rounded(a.sign ^ b.sign, exp - less as i64, quotient, behind))
}

/// The square root, of positive numbers.
#[inline(always)]
pub fn sqrt(a: Normal) -> Option<Halves> {
    if a.sign != 0 {
        return None;
    }
    let above = a.exp - BIAS;
    let radicand = (a.significand as u128) << (63 + (above & 1));
    let root = radicand.isqrt() as u64;
    // The root of a number is never half way between two others: (r + 1/2)^2 = r^2 + r + 1/4.
    let rest = radicand - root as u128 * root as u128;
    let behind = if rest > root as u128 { ONE + 1 } else { (rest != 0) as u64 };
    Some(rounded(0, (above >> 1) + BIAS, root, behind))
}

/// `a op b` for the first six operations.
#[inline(always)]
pub fn arithmetic(op: Op, a: Normal, b: Normal) -> Option<Halves> {
    match op {
        Op::Add => add(a, b),
        Op::Sub => add(a, b.negated()),
        Op::SubR => add(b, a.negated()),
        Op::Mul => mul(a, b),
        Op::Div => div(a, b),
        _ => div(b, a),
    }
}

/// Condition codes of a comparison of normal numbers.
#[inline(always)]
pub fn compare(a: Normal, b: Normal) -> u16 {
    // The order of magnitudes, turned round for negative numbers.
    let (x, y) = if a.sign != 0 { (b, a) } else { (a, b) };
    let less = (x.exp, x.significand) < (y.exp, y.significand);
    let equal = (x.exp, x.significand) == (y.exp, y.significand);
    match (a.sign == b.sign, equal) {
        (false, _) => (a.sign >> 15) as u16 * C0,
        (true, true) => C3,
        (true, false) => less as u16 * C0,
    }
}

/// To a binary format with `FRACTION` bits behind the integer bit and `EXPONENT` bits of exponent.
#[inline(always)]
fn narrowed<const FRACTION: u32, const EXPONENT: u32>(a: Normal) -> Option<Halves> {
    let largest = (1 << EXPONENT) - 1;
    let exp = a.exp - BIAS + largest / 2;
    if !(1..largest).contains(&exp) {
        return None;
    }
    let rest = a.significand << (FRACTION + 1);
    let kept = a.significand >> (63 - FRACTION);
    let (_, up) = rest.overflowing_add(ONE - 1 + (kept & 1));
    // The integer bit adds one to the exponent, a carry another.
    let v = ((exp - 1) as u64) << FRACTION;
    let v = v + kept + up as u64;
    if v >> FRACTION == largest as u64 {
        return None;
    }
    let status = ((rest != 0) as u64) << INEXACT | (up as u64) << C1.trailing_zeros();
    Some(Halves(v | a.sign << (FRACTION + EXPONENT - 15), status << 16))
}

/// To a binary64.
#[inline(always)]
pub fn to_double(a: Normal) -> Option<Halves> {
    narrowed::<52, 11>(a)
}

/// To a binary32.
#[inline(always)]
pub fn to_single(a: Normal) -> Option<Halves> {
    narrowed::<23, 8>(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x87::unit;
    use tulk_softfloat::{self as soft, Env, F32, F64, F80, convert};

    /// Numbers whose exponents are near each other or near the ends, with runs of ones and zeros.
    fn numbers() -> impl FnMut() -> u128 {
        let mut state = 0x1234_5678_9abc_def1u64;
        let mut next = move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
        };
        move || {
            let significand = match next() % 4 {
                0 => ONE | 1 << (next() % 64),
                1 => u64::MAX << (next() % 64),
                2 => ONE | next() >> (next() % 50),
                _ => ONE | next() << 8 | next() & 0xff,
            };
            let exp = match next() % 8 {
                0 => next() % 130,
                1 => 0x7fff - next() % 130,
                _ => 0x3fff - 70 + next() % 140,
            };
            let zero = next() % 40 == 0;
            let sign = (next() & 1) << 15;
            if zero {
                return (sign as u128) << 64;
            }
            significand as u128 | ((exp | sign) as u128) << 64
        }
    }

    fn with_status(v: u128, flags: tulk_softfloat::Flags) -> Option<Halves> {
        Some((v | (unit::status(flags) as u128) << 80).into())
    }

    #[test]
    fn agrees_with_softfloat() {
        let mut next = numbers();
        let mut taken = 0;
        for n in 0..300_000 {
            let (a, b) = (next(), next());
            let b = if n % 5 == 0 { a ^ (n as u128 & 3) } else { b };
            let normal = |v: u128| Normal::of_register(v as u64, (v >> 64) as u64);
            let (Some(x), Some(y)) = (normal(a), normal(b)) else { continue };
            for op in [Op::Add, Op::Sub, Op::SubR, Op::Mul, Op::Div, Op::DivR] {
                let Some(fast) = arithmetic(op, x, y) else { continue };
                let mut env = Env::x87(0x37f);
                let v = unit::arithmetic(op, &mut env, a, b);
                assert_eq!(Some(fast), with_status(v, env.flags), "{op:?} {a:020x} {b:020x}");
                taken += 1;
            }
            assert_eq!(compare(x, y), unit::compare(a, b, true), "compare {a:020x} {b:020x}");
            if let Some(fast) = sqrt(x) {
                let mut env = Env::x87(0x37f);
                let v = soft::sqrt::<F80>(&mut env, a);
                assert_eq!(Some(fast), with_status(v, env.flags), "root {a:020x}");
                taken += 1;
            }
            let (mut env, mut narrow) = (Env::x87(0x37f), Env::x87(0x37f));
            let double = convert::<F80, F64>(&mut env, a);
            let single = convert::<F80, F32>(&mut narrow, a);
            if let Some(fast) = to_double(x) {
                assert_eq!(Some(fast), with_status(double as u128, env.flags), "{a:020x}");
            }
            if let Some(fast) = to_single(x) {
                assert_eq!(Some(fast), with_status(single as u128, narrow.flags), "{a:020x}");
            }
        }
        assert!(taken > 900_000, "{taken} operations were common");
    }

    #[test]
    fn operands_in_memory() {
        let mut taken = 0;
        for n in 0..200_000u64 {
            let raw = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n as u32 % 64);
            for (format, raw) in [(Format::F64, raw), (Format::F32, raw as u32 as u64)] {
                let Some(fast) = Normal::of_memory(format, raw) else { continue };
                let (wide, denormal) = unit::widened(format, raw as u128);
                assert!(!denormal);
                let high = fast.exp as u64 | fast.sign;
                assert_eq!(Halves(fast.significand, high), wide.into(), "{format:?} {raw:x}");
                taken += 1;
            }
        }
        assert!(taken > 300_000, "{taken} operands were common");
    }
}
