//! Remainders: C's fmod and IEEE 754-2019 section 5.3.1 remainder, whole or in the x87's partial steps.

use crate::env::{Env, Flags};
use crate::format::{F80, Format};
use crate::nan::{invalid, propagate2};
use crate::round::round_with;
use crate::unpack::{Unpacked, unpack};
use crate::word::Word;

/// How the quotient that defines a remainder is rounded to an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Quotient {
    /// Toward zero (C fmod, x87 FPREM).
    Truncated,
    /// To nearest, ties to even (C remainder, x87 FPREM1).
    Nearest,
}

/// `a - q * b`, exact, and the low 64 bits of the magnitude of the integer `q`.
pub fn remainder<F: Format>(
    env: &mut Env,
    a: F::Bits,
    b: F::Bits,
    quotient: Quotient,
) -> (F::Bits, u64) {
    let a = unpack::<F>(env, a);
    let b = unpack::<F>(env, b);
    let (value, q) = match special(env, a, b) {
        Some(result) => (result, 0),
        None => reduce(a, b, quotient),
    };
    (round_with::<F>(env, value, F::PREC, false), q)
}

/// x87 FPREM and FPREM1: as [`remainder`] if the exponents differ by less than 64; otherwise one step that lowers the
/// difference by 32 to 63, and `true` for C2 (Intel SDM vol. 2, FPREM). The quotient's low three bits go to C0, C3, C1.
pub fn x87_partial_remainder(
    env: &mut Env,
    a: u128,
    b: u128,
    quotient: Quotient,
) -> (u128, u64, bool) {
    let a = unpack::<F80>(env, a);
    let b = unpack::<F80>(env, b);
    let mut partial = false;
    let (value, q) = match special(env, a, b) {
        Some(result) => (result, 0),
        None if a.exp - b.exp < 64 => reduce(a, b, quotient),
        None => {
            partial = true;
            // The manual leaves the step open; this one makes the rest a multiple of 32.
            let step = 32 + ((a.exp - b.exp) & 31);
            let (rest, _) = long_division(a.sig, b.sig, step as u32);
            (Unpacked::normalised(a.sign, a.exp - step, rest), 0)
        }
    };
    (round_with::<F80>(env, value, F80::PREC, false), q, partial)
}

/// Results that need no division.
fn special<W: Word>(env: &mut Env, a: Unpacked<W>, b: Unpacked<W>) -> Option<Unpacked<W>> {
    if a.is_nan() || b.is_nan() {
        return Some(propagate2(env, a, b));
    }
    if a.is_infinite() || b.is_zero() {
        return Some(invalid(env, Flags::NONE));
    }
    env.used_denormal(a.denormal | b.denormal);
    (a.is_zero() || b.is_infinite()).then_some(a)
}

/// The remainder of finite numbers.
fn reduce<W: Word>(a: Unpacked<W>, b: Unpacked<W>, quotient: Quotient) -> (Unpacked<W>, u64) {
    let nearest = quotient == Quotient::Nearest;
    let steps = a.exp - b.exp;
    if steps < 0 {
        // The quotient is below one; only from one half on can it round up.
        if nearest && steps == -1 && a.sig > b.sig {
            let (above_b, _) = a.sig.overflowing_sub(b.sig);
            let (rest, _) = b.sig.overflowing_sub(above_b);
            return (Unpacked::normalised(!a.sign, a.exp, rest), 1);
        }
        return (a, 0);
    }
    let (rest, q) = long_division(a.sig, b.sig, steps as u32);
    let (other, _) = b.sig.overflowing_sub(rest);
    if nearest && (rest > other || rest == other && q & 1 != 0) {
        return (Unpacked::normalised(!a.sign, b.exp, other), q.wrapping_add(1));
    }
    (Unpacked::normalised(a.sign, b.exp, rest), q)
}

/// `a * 2^steps` divided by `b`, both with their top bits set: remainder, and quotient modulo 2^64.
pub(crate) fn long_division<W: Word>(a: W, b: W, steps: u32) -> (W, u64) {
    let (mut rest, mut q) = if a >= b { (a.overflowing_sub(b).0, 1_u64) } else { (a, 0) };
    for _ in 0..steps % 64 {
        let carry = rest.has_top();
        rest = rest << 1;
        let bit = carry || rest >= b;
        if bit {
            rest = rest.overflowing_sub(b).0;
        }
        q = (q << 1) | u64::from(bit);
    }
    for _ in 0..steps / 64 {
        (q, rest) = rest.div_rem_step(b);
    }
    (rest, q)
}
