//! Powers of two: scaling, and taking exponent and significand apart (IEEE 754-2019 section 5.3.3).

use crate::env::{Env, Flags, Rounding};
use crate::format::{F80, Format};
use crate::integer::{IntRule, IntType, to_int};
use crate::nan::{invalid, propagate1, propagate2};
use crate::round::{round, round_with};
use crate::unpack::{Class, Unpacked, unpack};
use crate::word::Word;

/// `a * 2^n`, rounded once.
pub fn scalbn<F: Format>(env: &mut Env, a: F::Bits, n: i32) -> F::Bits {
    let a = unpack::<F>(env, a);
    let scaled = if a.is_nan() { propagate1(env, a) } else { shifted(env, a, n) };
    round::<F>(env, scaled)
}

fn shifted<W: Word>(env: &mut Env, a: Unpacked<W>, n: i32) -> Unpacked<W> {
    env.used_denormal(a.denormal);
    // Twice the widest exponent range decides every case.
    Unpacked { exp: a.exp + n.clamp(-0x1_0000, 0x1_0000), ..a }
}

/// x87 FSCALE: `a * 2^trunc(b)`, infinities as in the table of Intel SDM vol. 2, FSCALE. Precision control is ignored.
pub fn x87_scale(env: &mut Env, a: u128, b: u128) -> u128 {
    let x = unpack::<F80>(env, a);
    let y = unpack::<F80>(env, b);
    let value = if x.is_nan() || y.is_nan() {
        propagate2(env, x, y)
    } else if y.is_infinite() && (x.is_infinite() && y.sign || x.is_zero() && !y.sign) {
        invalid(env, Flags::NONE)
    } else {
        env.used_denormal(x.denormal | y.denormal);
        match y.class {
            Class::Infinite if y.sign => Unpacked::zero(x.sign),
            Class::Infinite => Unpacked::infinite(x.sign),
            _ => {
                let mut quiet = Env::new(env.nan_rule);
                let n = to_int::<F80>(&mut quiet, b, IntType::I32, Rounding::Zero, IntRule::Arm);
                shifted(env, x, n as i32)
            }
        }
    };
    round_with::<F80>(env, value, F80::PREC, false)
}

/// The unbiased exponent as a number: logB, the exponent half of x87 FXTRACT. Zero gives minus infinity with
/// division by zero, an infinity plus infinity.
pub fn exponent<F: Format>(env: &mut Env, a: F::Bits) -> F::Bits {
    let a = unpack::<F>(env, a);
    let value = match a.class {
        Class::Zero => {
            env.raise(Flags::DIV_ZERO);
            Unpacked::infinite(true)
        }
        Class::Infinite => Unpacked::infinite(false),
        Class::Finite => {
            env.used_denormal(a.denormal);
            let magnitude = F::Sig::narrow(u128::from(a.exp.unsigned_abs()) << 96);
            Unpacked::normalised(a.exp < 0, 31, magnitude)
        }
        _ => propagate1(env, a),
    };
    round_with::<F>(env, value, F::PREC, false)
}

/// The significand as a number in [1, 2) with the sign of `a`: the other half of FXTRACT. Zeros and infinities stay.
pub fn significand<F: Format>(env: &mut Env, a: F::Bits) -> F::Bits {
    let a = unpack::<F>(env, a);
    let value = if a.is_nan() {
        propagate1(env, a)
    } else {
        env.used_denormal(a.denormal);
        Unpacked { exp: 0, ..a }
    };
    round_with::<F>(env, value, F::PREC, false)
}
