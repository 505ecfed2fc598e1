//! FSIN, FCOS, FSINCOS, FPTAN, FPATAN (Intel SDM vol. 1, 8.3.7 and 8.3.8).
//!
//! Arguments are reduced exactly, by the 66-bit value of pi that the manual gives in 8.3.8, as the instructions do: near
//! multiples of the true pi results differ from the mathematical functions, by design.

use super::finish;
use super::wide::{ATAN_EIGHTHS, COS, ODD, ONE, PI, SIN, Wide, high, tail};
use crate::env::{Env, Flags};
use crate::format::F80;
use crate::nan::{invalid, propagate1, propagate2};
use crate::rem::long_division;
use crate::unpack::{Class, unpack};

/// The 66-bit pi, left-aligned: `0.C90FDAA2_2168C234_C * 4`.
const PI_66: u128 = 0xc_90fd_aa22_168c_234c << 60;

/// An argument as `quadrants * pi/2 + rest`, with |rest| at most pi/4.
struct Reduced {
    quadrants: u64,
    rest: Wide,
}

fn reduce(x: Wide) -> Reduced {
    let magnitude = x.magnitude();
    let (quadrants, rest) = if (magnitude.exp, magnitude.sig) <= (-1, PI_66) {
        (0, magnitude)
    } else if magnitude.exp < 0 {
        (1, magnitude.minus(Wide::finite(false, 0, PI_66)))
    } else {
        // pi/2 is PI_66 with exponent zero.
        let (rest, quotient) = long_division(magnitude.sig, PI_66, magnitude.exp as u32);
        let below = PI_66 - rest;
        if rest <= below {
            (quotient, Wide::normalised(false, 0, rest))
        } else {
            (quotient.wrapping_add(1), Wide::normalised(true, 0, below))
        }
    };
    if x.sign {
        Reduced { quadrants: quadrants.wrapping_neg(), rest: rest.negated() }
    } else {
        Reduced { quadrants, rest }
    }
}

impl Reduced {
    fn sin_of_rest(&self) -> Wide {
        let t = self.rest.fraction();
        self.rest.minus(self.rest.times(tail(&SIN, high(t, t), true)))
    }

    fn cos_of_rest(&self) -> Wide {
        let t = self.rest.fraction();
        ONE.minus(tail(&COS, high(t, t), true))
    }

    fn sin(&self) -> Wide {
        let value = if self.quadrants & 1 == 0 { self.sin_of_rest() } else { self.cos_of_rest() };
        if self.quadrants & 2 == 0 { value } else { value.negated() }
    }

    fn cos(&self) -> Wide {
        Reduced { quadrants: self.quadrants.wrapping_add(1), rest: self.rest }.sin()
    }

    fn tan(&self) -> Wide {
        if self.quadrants & 1 == 0 && self.rest.exp < -45 {
            // Sine and cosine would lose which side of the argument the result lies on: r + r^3/3.
            let t = self.rest.fraction();
            return self.rest.plus(self.rest.times(tail(&ODD[..1], high(t, t), false)));
        }
        self.sin().over(self.cos())
    }
}

/// The argument, reduced, or the result of an instruction that needs no evaluation.
enum Argument {
    Reduced(Reduced),
    Zero(bool),
    Result(Wide),
    /// Magnitude 2^63 or more: the instruction sets C2 and leaves its operand.
    OutOfRange,
}

fn argument(env: &mut Env, x: u128) -> Argument {
    let x = unpack::<F80>(env, x);
    match x.class {
        Class::Zero => Argument::Zero(x.sign),
        Class::Infinite => Argument::Result(invalid(env, Flags::NONE)),
        Class::Finite if x.exp >= 63 => Argument::OutOfRange,
        Class::Finite => {
            env.used_denormal(x.denormal);
            Argument::Reduced(reduce(x))
        }
        _ => Argument::Result(propagate1(env, x)),
    }
}

/// FSIN; `None` if the operand is out of range (C2).
pub fn x87_sin(env: &mut Env, x: u128) -> Option<u128> {
    let value = match argument(env, x) {
        Argument::Reduced(r) => r.sin(),
        Argument::Zero(sign) => Wide::zero(sign),
        Argument::Result(value) => value,
        Argument::OutOfRange => return None,
    };
    Some(finish(env, value))
}

/// FCOS; `None` if the operand is out of range (C2).
pub fn x87_cos(env: &mut Env, x: u128) -> Option<u128> {
    let value = match argument(env, x) {
        Argument::Reduced(r) => r.cos(),
        Argument::Zero(_) => ONE,
        Argument::Result(value) => value,
        Argument::OutOfRange => return None,
    };
    Some(finish(env, value))
}

/// FSINCOS: sine and cosine, the latter for the top of the stack; `None` if the operand is out of range (C2).
pub fn x87_sincos(env: &mut Env, x: u128) -> Option<(u128, u128)> {
    let (sin, cos) = match argument(env, x) {
        Argument::Reduced(r) => (r.sin(), r.cos()),
        Argument::Zero(sign) => (Wide::zero(sign), ONE),
        Argument::Result(value) => (value, value),
        Argument::OutOfRange => return None,
    };
    Some((finish(env, sin), finish(env, cos)))
}

/// FPTAN: the tangent; the instruction then pushes 1.0. `None` if the operand is out of range (C2).
pub fn x87_tan(env: &mut Env, x: u128) -> Option<u128> {
    let value = match argument(env, x) {
        Argument::Reduced(r) => r.tan(),
        Argument::Zero(sign) => Wide::zero(sign),
        Argument::Result(value) => value,
        Argument::OutOfRange => return None,
    };
    Some(finish(env, value))
}

/// FPATAN: the angle of the point (x, y), `y` in st(1) and `x` in st(0), for all operands (Intel SDM vol. 2, FPATAN,
/// table of results).
pub fn x87_atan(env: &mut Env, y: u128, x: u128) -> u128 {
    let y = unpack::<F80>(env, y);
    let x = unpack::<F80>(env, x);
    if x.is_nan() || y.is_nan() {
        // st(0) is the first operand.
        let nan = propagate2(env, x, y);
        return finish(env, nan);
    }
    env.used_denormal(x.denormal | y.denormal);
    let first_quadrant = match (y.class, x.class) {
        (Class::Zero, _) | (Class::Finite, Class::Infinite) => Wide::zero(false),
        (_, Class::Zero) | (Class::Infinite, Class::Finite) => PI.halved(),
        (Class::Infinite, _) => PI.halved().halved(),
        _ => angle(y.magnitude(), x.magnitude()),
    };
    let value = if x.sign { PI.minus(first_quadrant) } else { first_quadrant };
    let value = if value.is_zero() { value } else { value.inexact() };
    finish(env, value.with_sign(y.sign))
}

/// atan(y/x) of positive finite numbers.
fn angle(y: Wide, x: Wide) -> Wide {
    if (y.exp, y.sig) > (x.exp, x.sig) {
        return PI.halved().minus(angle(x, y));
    }
    // The nearest eighth to y/x; atan(y/x) = atan(k/8) + atan((8y - kx) / (8x + ky)).
    let distance = x.exp - y.exp;
    let k = if distance > 4 {
        0
    } else {
        let (numerator, denominator) = (y.sig >> (64 + distance), x.sig >> 64);
        (numerator * 8 + denominator / 2) / denominator
    };
    if k == 0 {
        return small_angle(y.over(x));
    }
    let (eight, steps) = (Wide::integer(8), Wide::integer(k as i64));
    let u = eight.times(y).minus(steps.times(x)).over(eight.times(x).plus(steps.times(y)));
    ATAN_EIGHTHS[k as usize - 1].plus(small_angle(u))
}

/// atan(u) for |u| up to about 1/16.
fn small_angle(u: Wide) -> Wide {
    let t = u.fraction();
    u.minus(u.times(tail(&ODD[..15], high(t, t), true)))
}
