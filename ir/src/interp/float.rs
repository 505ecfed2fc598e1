//! Floating-point semantics on raw bits.
//!
//! The fast case is the host's own arithmetic: its control register holds the guest's rounding mode and collects the
//! exception flags. Three things need more, and then `tulk-softfloat` does the operation again and its flags are added:
//! a NaN result (which NaN is the guest's rule), a result of the smallest normal magnitude for guests that detect
//! tininess before rounding (the host detects it after), and operations without a host instruction that works in every
//! rounding mode. Doing an operation twice is harmless because flags are sticky.
//!
//! The compiler believes that arithmetic has no side effects. That is safe here as long as operands are run-time
//! values and results are used, which holds for everything that reads them from the CPU state. `tests/float_flags.rs`
//! is the judge.
//!
//! Not modelled in the software cases: x86 FTZ and DAZ (they cannot be asked for through [`FpEnv`]).

use super::vector::{Lane, Pair, pair, vsplat, whole};
use crate::helper::FpEnv;
use crate::types::{FloatCc, FpFlags, FpRule, MinKind, Round, nzcv};
use std::cmp::Ordering;
use std::hint::black_box;
use std::ops::{Add, Div, Mul, Sub};
use tulk_softfloat::{self as soft, Env, IntRule, IntType, MinMax, NanRule, Rounding};

/// A host float type. Bits travel in the low end of a `u64`.
pub trait Float:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    type Bits: Lane;
    type Soft: soft::Format<Bits = Self::Bits>;
    const SIGN: u64;
    const INFINITY: u64;
    const MIN_NORMAL: u64;
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
    fn sqrt(self) -> Self;
    fn from_i64(x: i64) -> Self;
}

macro_rules! floats {
    ($($t:ident $bits:ident $soft:ident),+) => { $(
        impl Float for $t {
            type Bits = $bits;
            type Soft = soft::$soft;
            const SIGN: u64 = 1 << ($bits::BITS - 1);
            const INFINITY: u64 = $t::INFINITY.to_bits() as u64;
            const MIN_NORMAL: u64 = $t::MIN_POSITIVE.to_bits() as u64;
            #[inline(always)]
            fn of(bits: u64) -> $t { $t::from_bits(bits as $bits) }
            #[inline(always)]
            fn bits(self) -> u64 { self.to_bits() as u64 }
            #[inline(always)]
            fn sqrt(self) -> $t { self.sqrt() }
            #[inline(always)]
            fn from_i64(x: i64) -> $t { x as $t }
        }
    )+ };
}
floats!(f32 u32 F32, f64 u64 F64);

type B<F> = <F as Float>::Bits;

#[inline(always)]
fn bits_of<F: Float>(x: u64) -> B<F> {
    super::int::Int::of64(x)
}
#[inline(always)]
fn to_u64<T: super::int::Int>(x: T) -> u64 {
    x.to64()
}

#[inline(always)]
fn is_nan<F: Float>(x: u64) -> bool {
    x & !F::SIGN & bits_mask::<F>() > F::INFINITY
}
#[inline(always)]
fn bits_mask<F: Float>() -> u64 {
    F::SIGN | (F::SIGN - 1)
}

const fn nan_rule(rule: FpRule) -> NanRule {
    match rule {
        FpRule::Arm => NanRule::Arm,
        FpRule::X86 => NanRule::Sse,
        FpRule::Ppc => NanRule::Ppc,
        FpRule::Sparc => NanRule::Sparc,
    }
}

fn rounding(round: Round, fp: &mut dyn FpEnv) -> Rounding {
    let round = if round == Round::Current { fp.fp_round() } else { round };
    match round {
        Round::Nearest | Round::Current => Rounding::NearestEven,
        Round::Down => Rounding::Down,
        Round::Up => Rounding::Up,
        Round::Zero => Rounding::Zero,
        Round::Away => Rounding::NearestAway,
    }
}

/// Runs an operation in software under the guest's rules and hands its flags to the environment.
fn in_software<R>(rule: FpRule, fp: &mut dyn FpEnv, f: impl FnOnce(&mut Env) -> R) -> R {
    const {
        assert!(FpFlags::DENORMAL as u16 == soft::Flags::DENORMAL.0);
        assert!(FpFlags::INEXACT as u16 == soft::Flags::INEXACT.0);
    }
    let mut env = Env::new(nan_rule(rule));
    env.rounding = rounding(Round::Current, fp);
    let result = f(&mut env);
    let flags = env.flags.x86() as u8;
    if flags != 0 {
        fp.fp_raise(FpFlags(flags));
    }
    result
}

/// Whether the host's result may differ from the guest's, in value (NaNs) or flags (tininess).
#[inline(always)]
fn suspicious<F: Float>(result: u64, rule: FpRule, may_be_tiny: bool) -> bool {
    let magnitude = result & !F::SIGN;
    magnitude > F::INFINITY || may_be_tiny && magnitude == F::MIN_NORMAL && rule != FpRule::X86
}

macro_rules! arithmetic {
    ($($name:ident $vector:ident $op:tt tiny $tiny:literal;)+) => { $(
        #[inline(always)]
        pub fn $name<F: Float>(a: u64, b: u64, rule: FpRule, fp: &mut dyn FpEnv) -> u64 {
            let r = (F::of(a) $op F::of(b)).bits();
            if suspicious::<F>(r, rule, $tiny) { again::<F>(soft::$name::<F::Soft>, a, b, r, rule, fp) } else { r }
        }

        /// The same on every lane. All lanes together make a whole vector instruction, see [`lanes1`].
        #[inline(always)]
        pub fn $vector<F: Float>(
            a: &Pair,
            b: &Pair,
            out: &mut Pair,
            rule: FpRule,
            fp: &mut dyn FpEnv,
        ) {
            let operands = B::<F>::view(a).as_ref().iter().zip(B::<F>::view(b).as_ref());
            let results = B::<F>::view_mut(out).as_mut();
            for (o, (&x, &y)) in results.iter_mut().zip(operands) {
                *o = bits_of::<F>((F::of(to_u64(x)) $op F::of(to_u64(y))).bits());
            }
            if results.iter().any(|&r| suspicious::<F>(to_u64(r), rule, $tiny)) {
                let again = lanes2::<F>(whole(*a), whole(*b), |x, y| $name::<F>(x, y, rule, fp));
                *out = pair(again);
            }
        }
    )+ };
}
arithmetic! {
    add vadd + tiny false;
    sub vsub - tiny false;
    mul vmul * tiny true;
    div vdiv / tiny true;
}

/// A suspicious result, examined.
#[cold]
#[inline(never)]
fn again<F: Float>(
    op: fn(&mut Env, B<F>, B<F>) -> B<F>,
    a: u64,
    b: u64,
    host: u64,
    rule: FpRule,
    fp: &mut dyn FpEnv,
) -> u64 {
    if is_nan::<F>(host) && !is_nan::<F>(a) && !is_nan::<F>(b) {
        return default_nan::<F>(rule);
    }
    to_u64(in_software(rule, fp, |env| op(env, bits_of::<F>(a), bits_of::<F>(b))))
}

fn default_nan<F: Float>(rule: FpRule) -> u64 {
    to_u64(soft::default_nan::<F::Soft>(nan_rule(rule)))
}

#[inline(always)]
pub fn sqrt<F: Float>(a: u64, rule: FpRule, fp: &mut dyn FpEnv) -> u64 {
    let r = F::of(a).sqrt().bits();
    if suspicious::<F>(r, rule, false) {
        return to_u64(in_software(rule, fp, |env| {
            if is_nan::<F>(a) {
                soft::sqrt::<F::Soft>(env, bits_of::<F>(a))
            } else {
                soft::default_nan::<F::Soft>(nan_rule(rule))
            }
        }));
    }
    r
}

/// `a * b + c`, always in software: not every host has the instruction.
pub fn fma<F: Float>(a: u64, b: u64, c: u64, rule: FpRule, fp: &mut dyn FpEnv) -> u64 {
    let (a, b, c) = (bits_of::<F>(a), bits_of::<F>(b), bits_of::<F>(c));
    to_u64(in_software(rule, fp, |env| soft::fma::<F::Soft>(env, a, b, c)))
}

#[inline(always)]
pub fn neg<F: Float>(a: u64) -> u64 {
    (a ^ F::SIGN) & bits_mask::<F>()
}
#[inline(always)]
pub fn abs<F: Float>(a: u64) -> u64 {
    a & (F::SIGN - 1)
}

/// The minimum, or the maximum.
pub fn min_max<F: Float>(
    max: bool,
    kind: MinKind,
    a: u64,
    b: u64,
    rule: FpRule,
    fp: &mut dyn FpEnv,
) -> u64 {
    let kind = match kind {
        MinKind::Ieee => MinMax::Ieee,
        MinKind::Num => MinMax::Number,
        // As the x86 instruction, which the host's comparison also matches in its denormal rules.
        MinKind::Second => {
            let first = match order::<F>(true, a, b, fp) {
                Some(Ordering::Less) => !max,
                Some(Ordering::Greater) => max,
                _ => false,
            };
            return if first { a } else { b } & bits_mask::<F>();
        }
    };
    let (a, b) = (bits_of::<F>(a), bits_of::<F>(b));
    to_u64(in_software(rule, fp, |env| {
        if max {
            soft::max::<F::Soft>(env, a, b, kind)
        } else {
            soft::min::<F::Soft>(env, a, b, kind)
        }
    }))
}

/// Compares; the host's quiet comparison raises invalid for signalling NaNs.
#[inline(always)]
fn order<F: Float>(signalling: bool, a: u64, b: u64, fp: &mut dyn FpEnv) -> Option<Ordering> {
    let order = F::of(a).partial_cmp(&F::of(b));
    if order.is_none() && signalling {
        fp.fp_raise(FpFlags(FpFlags::INVALID));
    }
    order
}

/// Truth table of a condition: bit 0 less, 1 equal, 2 greater, 3 unordered.
pub const fn cc_table(cc: FloatCc) -> u8 {
    match cc {
        FloatCc::Eq => 0b0010,
        FloatCc::Ne => 0b1101,
        FloatCc::Lt => 0b0001,
        FloatCc::Le => 0b0011,
        FloatCc::Gt => 0b0100,
        FloatCc::Ge => 0b0110,
        FloatCc::Ord => 0b0111,
        FloatCc::Uno => 0b1000,
        FloatCc::UEq => 0b1010,
        FloatCc::ULt => 0b1001,
        FloatCc::ULe => 0b1011,
        FloatCc::UGt => 0b1100,
        FloatCc::UGe => 0b1110,
    }
}

#[inline(always)]
pub fn cmp<F: Float>(cc: FloatCc, signalling: bool, a: u64, b: u64, fp: &mut dyn FpEnv) -> bool {
    let bit = match order::<F>(signalling, a, b, fp) {
        Some(Ordering::Less) => 0,
        Some(Ordering::Equal) => 1,
        Some(Ordering::Greater) => 2,
        None => 3,
    };
    cc_table(cc) >> bit & 1 != 0
}

#[inline(always)]
pub fn cmp_nzcv<F: Float>(signalling: bool, a: u64, b: u64, fp: &mut dyn FpEnv) -> u32 {
    match order::<F>(signalling, a, b, fp) {
        Some(Ordering::Less) => nzcv::N,
        Some(Ordering::Equal) => nzcv::Z | nzcv::C,
        Some(Ordering::Greater) => nzcv::C,
        None => nzcv::C | nzcv::V,
    }
}

/// To an integral value; raises inexact only if `exact`.
pub fn round<F: Float>(mode: Round, exact: bool, a: u64, rule: FpRule, fp: &mut dyn FpEnv) -> u64 {
    let mode = rounding(mode, fp);
    to_u64(in_software(rule, fp, |env| {
        soft::round_to_integral::<F::Soft>(env, bits_of::<F>(a), mode, exact)
    }))
}

/// To an integer of `bits` bits, zero-extended.
pub fn to_int<F: Float>(
    bits: u32,
    signed: bool,
    mode: Round,
    indefinite: bool,
    a: u64,
    rule: FpRule,
    fp: &mut dyn FpEnv,
) -> u64 {
    let mode = rounding(mode, fp);
    let out_of_range = if indefinite { IntRule::X86 } else { IntRule::Arm };
    let int = IntType { bits, signed };
    in_software(rule, fp, |env| {
        soft::to_int::<F::Soft>(env, bits_of::<F>(a), int, mode, out_of_range)
    })
}

#[inline(always)]
pub fn from_signed<F: Float>(a: i64) -> u64 {
    F::from_i64(black_box(a)).bits()
}
/// The compiler's own unsigned conversion is only right to nearest; so the signed one where it serves.
#[inline(always)]
pub fn from_unsigned<F: Float>(a: u64, rule: FpRule, fp: &mut dyn FpEnv) -> u64 {
    if a as i64 >= 0 {
        from_signed::<F>(a as i64)
    } else {
        to_u64(in_software(rule, fp, |env| soft::from_u64::<F::Soft>(env, a)))
    }
}

/// Sign bits of all lanes flipped.
pub fn vneg<F: Float>(a: u128) -> u128 {
    a ^ vsplat::<B<F>>(F::SIGN as u128)
}
/// Sign bits of all lanes cleared.
pub fn vabs<F: Float>(a: u128) -> u128 {
    a & !vsplat::<B<F>>(F::SIGN as u128)
}

#[inline(always)]
pub fn promote(a: u64, rule: FpRule, fp: &mut dyn FpEnv) -> u64 {
    let r = f64::from(f32::of(a)).to_bits();
    if suspicious::<f64>(r, rule, false) {
        return in_software(rule, fp, |env| soft::convert::<soft::F32, soft::F64>(env, a as u32));
    }
    r
}

#[inline(always)]
pub fn demote(a: u64, rule: FpRule, fp: &mut dyn FpEnv) -> u64 {
    let r = (f64::of(a) as f32).bits();
    if suspicious::<f32>(r, rule, true) {
        return to_u64(in_software(rule, fp, |env| soft::convert::<soft::F64, soft::F32>(env, a)));
    }
    r
}

/// Applies `f` to every lane, one after the other: a compiler that joins two lanes of four into one vector instruction
/// computes on garbage in the other two, and its exceptions show.
#[inline(always)]
pub fn lanes1<F: Float>(a: u128, mut f: impl FnMut(u64) -> u64) -> u128 {
    let mut x = B::<F>::split(a);
    for lane in x.as_mut() {
        *lane = bits_of::<F>(f(black_box(to_u64(*lane))));
    }
    B::<F>::join(x)
}

#[inline(always)]
pub fn lanes2<F: Float>(a: u128, b: u128, mut f: impl FnMut(u64, u64) -> u64) -> u128 {
    let mut x = B::<F>::split(a);
    for (lane, &y) in x.as_mut().iter_mut().zip(B::<F>::split(b).as_ref()) {
        *lane = bits_of::<F>(f(black_box(to_u64(*lane)), black_box(to_u64(y))));
    }
    B::<F>::join(x)
}

pub fn vfma<F: Float>(a: u128, b: u128, c: u128, rule: FpRule, fp: &mut dyn FpEnv) -> u128 {
    let mut c = B::<F>::split(c);
    let mut addends = c.as_mut().iter();
    lanes2::<F>(a, b, |x, y| fma::<F>(x, y, addends.next().map_or(0, |&z| to_u64(z)), rule, fp))
}

/// All ones in lanes where the comparison holds.
pub fn vcmp<F: Float>(cc: FloatCc, signalling: bool, a: u128, b: u128, fp: &mut dyn FpEnv) -> u128 {
    lanes2::<F>(a, b, |x, y| if cmp::<F>(cc, signalling, x, y, fp) { u64::MAX } else { 0 })
}
