//! `rustc_apfloat` as judge of binary128, which no host instruction knows: results and flags in all its rounding modes.
//! It detects tininess its own way, so underflow is compared with the definition instead.

mod support;

use rustc_apfloat::ieee::{Double, Quad, Single, X87DoubleExtended};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};
use support::Rng;
use tulk_softfloat::{self as soft, Env, F32, F64, F80, F128, Flags, NanRule, Quotient, Rounding};

const MODES: [(Rounding, Round); 5] = [
    (Rounding::NearestEven, Round::NearestTiesToEven),
    (Rounding::Down, Round::TowardNegative),
    (Rounding::Up, Round::TowardPositive),
    (Rounding::Zero, Round::TowardZero),
    (Rounding::NearestAway, Round::NearestTiesToAway),
];

const CASES: usize = if cfg!(debug_assertions) { 10_000 } else { 300_000 };

fn flags(status: Status) -> Flags {
    [
        (Status::INVALID_OP, Flags::INVALID),
        (Status::DIV_BY_ZERO, Flags::DIV_ZERO),
        (Status::OVERFLOW, Flags::OVERFLOW),
        (Status::INEXACT, Flags::INEXACT),
    ]
    .into_iter()
    .fold(Flags::NONE, |all, (theirs, ours)| if status.contains(theirs) { all | ours } else { all })
}

/// Compares one operation on random operands; NaN results only by being one, their choice is tested elsewhere.
fn check<R: Float>(
    name: &str,
    ours: impl Fn(&mut Env, [u128; 3]) -> u128,
    theirs: impl Fn([u128; 3], Round) -> StatusAnd<R>,
) {
    let mut rng = Rng::new(name.len() as u64);
    for (mode, round) in MODES {
        for _ in 0..CASES {
            let a = support::F128.one(&mut rng);
            let b = support::F128.near(&mut rng, a);
            let c = support::F128.near(&mut rng, b);
            let x = [a, b, c];
            let mut env = Env::new(NanRule::Ppc).with_rounding(mode);
            let result = ours(&mut env, x);
            let StatusAnd { status, value } = theirs(x, round);
            let compared =
                Flags::INVALID.0 | Flags::DIV_ZERO.0 | Flags::OVERFLOW.0 | Flags::INEXACT.0;
            let mut mine = Flags(env.flags.0 & compared);
            // It calls a result cut down to the largest finite number inexact only.
            if !value.is_infinite() && mine.contains(Flags::OVERFLOW) {
                mine = Flags::INEXACT;
            }
            let same = result == value.to_bits() || value.is_nan() && R::from_bits(result).is_nan();
            assert!(
                same && mine == flags(status),
                "{name} {mode:?} {x:x?}: got {result:x} {mine:?}, expected {:x} {status:?}",
                value.to_bits()
            );
            let tiny_inexact = Flags::TINY | Flags::INEXACT;
            assert_eq!(
                env.flags.contains(Flags::UNDERFLOW),
                env.flags.contains(tiny_inexact),
                "{name} {x:x?}"
            );
        }
    }
}

fn quad(bits: u128) -> Quad {
    Quad::from_bits(bits)
}

#[test]
fn arithmetic() {
    check(
        "add",
        |e, [a, b, _]| soft::add::<F128>(e, a, b),
        |[a, b, _], r| quad(a).add_r(quad(b), r),
    );
    check(
        "sub",
        |e, [a, b, _]| soft::sub::<F128>(e, a, b),
        |[a, b, _], r| quad(a).sub_r(quad(b), r),
    );
    check(
        "mul",
        |e, [a, b, _]| soft::mul::<F128>(e, a, b),
        |[a, b, _], r| quad(a).mul_r(quad(b), r),
    );
    check(
        "div",
        |e, [a, b, _]| soft::div::<F128>(e, a, b),
        |[a, b, _], r| quad(a).div_r(quad(b), r),
    );
    check(
        "fma",
        |e, [a, b, c]| soft::fma::<F128>(e, a, b, c),
        |[a, b, c], r| quad(a).mul_add_r(quad(b), quad(c), r),
    );
    // The addend near the negated product.
    check(
        "fma, cancelling",
        |e, [a, b, c]| soft::fma::<F128>(e, a, b, cancelling(a, b, c)),
        |[a, b, c], r| quad(a).mul_add_r(quad(b), quad(cancelling(a, b, c)), r),
    );
    check(
        "round to integral",
        |e, [a, ..]| soft::round_to_integral::<F128>(e, a, e.rounding, true),
        |[a, ..], r| quad(a).round_to_integral(r),
    );
}

fn cancelling(a: u128, b: u128, c: u128) -> u128 {
    let product = soft::mul::<F128>(&mut Env::new(NanRule::Ppc), a, b);
    (product ^ 1 << 127).wrapping_add(c & 3).wrapping_sub(1)
}

#[test]
fn remainders() {
    // The judge reduces bit by bit: fewer cases.
    let mut rng = Rng::new(4);
    for _ in 0..CASES / 100 {
        let a = support::F128.one(&mut rng);
        let b = support::F128.near(&mut rng, a);
        let mut env = Env::new(NanRule::Ppc);
        for (kind, expected) in [
            (Quotient::Truncated, quad(a).c_fmod(quad(b)).value),
            (Quotient::Nearest, quad(a).ieee_rem(quad(b)).value),
        ] {
            let (result, _) = soft::remainder::<F128>(&mut env, a, b, kind);
            let same = result == expected.to_bits() || expected.is_nan() && quad(result).is_nan();
            assert!(
                same,
                "{kind:?} {a:x} {b:x}: got {result:x}, expected {:x}",
                expected.to_bits()
            );
        }
    }
}

#[test]
fn conversions() {
    fn to<T: Float>(a: Quad, round: Round) -> StatusAnd<T>
    where
        Quad: FloatConvert<T>,
    {
        a.convert_r(round, &mut false)
    }
    check(
        "to single",
        |e, [a, ..]| soft::convert::<F128, F32>(e, a).into(),
        |[a, ..], r| to::<Single>(quad(a), r),
    );
    check(
        "to double",
        |e, [a, ..]| soft::convert::<F128, F64>(e, a).into(),
        |[a, ..], r| to::<Double>(quad(a), r),
    );
    check(
        "to extended",
        |e, [a, ..]| soft::convert::<F128, F80>(e, a),
        |[a, ..], r| to::<X87DoubleExtended>(quad(a), r),
    );
    check(
        "from double",
        |e, [a, ..]| soft::convert::<F64, F128>(e, a as u64),
        |[a, ..], r| {
            FloatConvert::<Quad>::convert_r(Double::from_bits(u128::from(a as u64)), r, &mut false)
        },
    );
}

/// Rounding to odd with 113 bits, then to double, is one correct rounding: the double root must come out.
#[test]
fn square_root_contains_the_double_one() {
    let mut rng = Rng::new(8);
    for _ in 0..CASES {
        let a = support::F64.one(&mut rng) as u64 & (u64::MAX >> 1);
        let mut env = Env::new(NanRule::Arm);
        let wide = soft::convert::<F64, F128>(&mut env, a);
        let mut odd = env.with_rounding(Rounding::ToOdd);
        let root = soft::sqrt::<F128>(&mut odd, wide);
        let root = soft::convert::<F128, F64>(&mut env, root);
        assert_eq!(root, soft::sqrt::<F64>(&mut env, a), "{a:x}");
    }
}

/// A square of a number of half the precision has an exact root.
#[test]
fn square_root_of_squares() {
    let mut rng = Rng::new(9);
    for _ in 0..CASES {
        let a = soft::convert::<F64, F128>(
            &mut Env::new(NanRule::Arm),
            0x3ff0 << 48 | rng.pattern(52) as u64,
        );
        let mut env = Env::new(NanRule::Arm);
        let square = soft::mul::<F128>(&mut env, a, a);
        assert_eq!(soft::sqrt::<F128>(&mut env, square), a);
        assert_eq!(env.flags, Flags::NONE);
    }
}
