//! The common case of x87 arithmetic: normal numbers, rounding to nearest with 64 bits, a normal result. Everything
//! else is left to the soft-float library, which `tests` compares with.

use super::unit::{C0, C1, C3, Op};

/// Inexact, in the status word.
const INEXACT: u16 = 0x20;
const EXP_MAX: i32 = 0x7fff;
const BIAS: i32 = 0x3fff;
const ONE: u64 = 1 << 63;

/// Whether the control word rounds to nearest with 64 bits.
#[inline]
pub fn applies(fcw: u16) -> bool {
    fcw & 0xf00 == 0x300
}

/// Sign (in bit 15), exponent and significand of a normal number.
#[inline]
fn normal(a: u128) -> Option<(u16, i32, u64)> {
    let (significand, high) = (a as u64, (a >> 64) as u16);
    let exp = (high & 0x7fff) as i32;
    // The exponents 1 to 0x7ffe, with the integer bit.
    let good = (exp - 1) as u32 <= (EXP_MAX - 2) as u32 && significand >> 63 != 0;
    good.then_some((high & 0x8000, exp, significand))
}

/// Rounds a significand with 64 bits behind it, and what the status word gets.
#[inline]
fn rounded(sign: u16, exp: i32, v: u128) -> Option<(u128, u16)> {
    let (kept, rest) = ((v >> 64) as u64, v as u64);
    let up = rest > ONE || rest == ONE && kept & 1 != 0;
    let (significand, carry) = kept.overflowing_add(up as u64);
    let exp = exp + carry as i32;
    // A carry leaves zeros.
    let significand = significand | (carry as u64) << 63;
    if exp <= 0 || exp >= EXP_MAX {
        return None;
    }
    let status = if rest != 0 { INEXACT } else { 0 } | if up { C1 } else { 0 };
    Some(((significand as u128) | ((exp as u16 | sign) as u128) << 64, status))
}

#[inline]
fn add(a: (u16, i32, u64), b: (u16, i32, u64)) -> Option<(u128, u16)> {
    let (large, small) = if (a.1, a.2) >= (b.1, b.2) { (a, b) } else { (b, a) };
    let distance = (large.1 - small.1) as u32;
    let x = (large.2 as u128) << 64;
    let y = (small.2 as u128) << 64;
    // What is shifted out leaves a mark in the lowest bit.
    let y = match distance {
        0..=64 => y >> distance,
        65..=127 => y >> distance | (y << (128 - distance) != 0) as u128,
        _ => 1,
    };
    if large.0 == small.0 {
        let (sum, carry) = x.overflowing_add(y);
        if carry {
            return rounded(large.0, large.1 + 1, sum >> 1 | sum & 1 | 1 << 127);
        }
        return rounded(large.0, large.1, sum);
    }
    let difference = x - y;
    if difference == 0 {
        return Some((0, 0));
    }
    let n = difference.leading_zeros();
    rounded(large.0, large.1 - n as i32, difference << n)
}

#[inline]
fn mul(a: (u16, i32, u64), b: (u16, i32, u64)) -> Option<(u128, u16)> {
    let product = a.2 as u128 * b.2 as u128;
    let n = product.leading_zeros();
    rounded(a.0 ^ b.0, a.1 + b.1 - BIAS + 1 - n as i32, product << n)
}

#[inline]
fn div(a: (u16, i32, u64), b: (u16, i32, u64)) -> Option<(u128, u16)> {
    let less = a.2 < b.2;
    let dividend = (a.2 as u128) << (63 + less as u32);
    let (quotient, rest) = (dividend / b.2 as u128, (dividend % b.2 as u128) as u64);
    // Where the rest stands to one half: below, at, above.
    let half = (rest as u128 * 2).cmp(&(b.2 as u128)) as i64;
    let behind = if rest == 0 { 0 } else { (ONE as i64).wrapping_add(half) as u64 };
    rounded(a.0 ^ b.0, a.1 - b.1 + BIAS - less as i32, quotient << 64 | behind as u128)
}

/// `a op b` for the first six operations, and what the status word gets.
#[inline]
pub fn arithmetic(op: Op, a: u128, b: u128) -> Option<(u128, u16)> {
    let (a, b) = (normal(a)?, normal(b)?);
    let minus = |v: (u16, i32, u64)| (v.0 ^ 0x8000, v.1, v.2);
    match op {
        Op::Add => add(a, b),
        Op::Sub => add(a, minus(b)),
        Op::SubR => add(b, minus(a)),
        Op::Mul => mul(a, b),
        Op::Div => div(a, b),
        _ => div(b, a),
    }
}

/// A key that orders normal numbers and zeros.
#[inline]
fn place(a: u128) -> Option<i128> {
    let (significand, high) = (a as u64, (a >> 64) as u16);
    if normal(a).is_none() && (significand != 0 || high & 0x7fff != 0) {
        return None;
    }
    let magnitude = ((high & 0x7fff) as i128) << 64 | significand as i128;
    Some(if high & 0x8000 != 0 { -magnitude } else { magnitude })
}

/// Condition codes of a comparison.
#[inline]
pub fn compare(a: u128, b: u128) -> Option<u16> {
    let (a, b) = (place(a)?, place(b)?);
    Some(match a.cmp(&b) {
        std::cmp::Ordering::Less => C0,
        std::cmp::Ordering::Equal => C3,
        std::cmp::Ordering::Greater => 0,
    })
}

/// To a binary format with `FRACTION` bits behind the integer bit and `EXPONENT` bits of exponent, and what the
/// status word gets.
#[inline]
fn narrowed<const FRACTION: u32, const EXPONENT: u32>(a: u128) -> Option<(u64, u16)> {
    let (sign, exp, significand) = normal(a)?;
    let largest = (1 << EXPONENT) - 1;
    let exp = exp - BIAS + largest / 2;
    if !(1..largest).contains(&exp) {
        return None;
    }
    let rest = significand << (FRACTION + 1);
    let kept = significand >> (63 - FRACTION);
    let up = rest > ONE || rest == ONE && kept & 1 != 0;
    // The integer bit adds one to the exponent, a carry another.
    let v = ((exp - 1) as u64) << FRACTION;
    let v = v + kept + up as u64;
    if v >> FRACTION == largest as u64 {
        return None;
    }
    let status = if rest != 0 { INEXACT } else { 0 } | if up { C1 } else { 0 };
    Some((v | (sign as u64) << (FRACTION + EXPONENT - 15), status))
}

/// To a binary64, and what the status word gets.
#[inline]
pub fn to_double(a: u128) -> Option<(u64, u16)> {
    narrowed::<52, 11>(a)
}

/// To a binary32, and what the status word gets.
#[inline]
pub fn to_single(a: u128) -> Option<(u64, u16)> {
    narrowed::<23, 8>(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x87::unit;
    use tulk_softfloat::{Env, F32, F64, F80, convert};

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

    #[test]
    fn agrees_with_softfloat() {
        let mut next = numbers();
        let mut taken = 0;
        for n in 0..300_000 {
            let (a, b) = (next(), next());
            let b = if n % 5 == 0 { a ^ (n as u128 & 3) } else { b };
            for op in [Op::Add, Op::Sub, Op::SubR, Op::Mul, Op::Div, Op::DivR] {
                let Some(fast) = arithmetic(op, a, b) else { continue };
                let mut env = Env::x87(0x37f);
                let v = unit::arithmetic(op, &mut env, a, b);
                assert_eq!(fast, (v, unit::status(env.flags)), "{op:?} {a:020x} {b:020x}");
                taken += 1;
            }
            if let Some(codes) = compare(a, b) {
                assert_eq!(codes, unit::compare(a, b, true), "compare {a:020x} {b:020x}");
            }
            if let Some(fast) = to_double(a) {
                let mut env = Env::x87(0x37f);
                let v = convert::<F80, F64>(&mut env, a);
                assert_eq!(fast, (v, unit::status(env.flags)), "to double {a:020x}");
            }
            if let Some(fast) = to_single(a) {
                let mut env = Env::x87(0x37f);
                let v = convert::<F80, F32>(&mut env, a) as u64;
                assert_eq!(fast, (v, unit::status(env.flags)), "to single {a:020x}");
            }
        }
        assert!(taken > 900_000, "{taken} operations were common");
    }
}
