//! The host's SSE, FMA and F16C units as judges of the x86 rules: results and exception flags, all rounding modes,
//! DAZ and FTZ. x86-64 hosts only.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

mod support;

use std::arch::asm;
use std::cmp::Ordering;

use support::{Rng, Shape};
use tulk_softfloat::{
    self as soft, Env, F16, F32, F64, Format, IntRule, IntType, MinMax, Negate, Rounding,
};

/// All combinations of rounding, DAZ and FTZ, exceptions masked.
fn control_words() -> impl Iterator<Item = u32> {
    (0..16).map(|n| 0x1f80 | (n & 3) << 13 | (n & 4) << 4 | (n & 8) << 12)
}

const ALL: [Rounding; 4] = [Rounding::NearestEven, Rounding::Down, Rounding::Up, Rounding::Zero];

/// Runs one instruction under a control word: `op xmm0, xmm1[, xmm2]`; returns xmm0's low half and the flags.
macro_rules! sse {
    ($op:literal, $mxcsr:expr, $a:expr, $b:expr, $c:expr) => {{
        let (mut result, mut csr, host): (u64, u32, u32) = ($a, $mxcsr, 0x1f80);
        // SAFETY: touches the named registers and MXCSR only, and restores MXCSR.
        unsafe {
            asm!(
                "movq xmm0, {r}", "movq xmm1, {b}", "movq xmm2, {c}",
                "ldmxcsr [{csr}]", $op, "stmxcsr [{csr}]", "ldmxcsr [{host}]", "movq {r}, xmm0",
                r = inout(reg) result, b = in(reg) $b, c = in(reg) $c, csr = in(reg) &mut csr, host = in(reg) &host,
                out("xmm0") _, out("xmm1") _, out("xmm2") _,
            );
        }
        (result, csr & 0x3f)
    }};
}

/// Runs one instruction with a general-purpose result: `op rax, xmm0`.
macro_rules! sse_int {
    ($op:literal, $mxcsr:expr, $a:expr) => {{
        let (mut csr, host): (u32, u32) = ($mxcsr, 0x1f80);
        let result: u64;
        // SAFETY: touches the named registers and MXCSR only, and restores MXCSR.
        unsafe {
            asm!(
                "xor eax, eax", "movq xmm0, {a}", "ldmxcsr [{csr}]", $op, "stmxcsr [{csr}]", "ldmxcsr [{host}]",
                a = in(reg) $a, csr = in(reg) &mut csr, host = in(reg) &host, out("rax") result, out("xmm0") _,
            );
        }
        (result, csr & 0x3f)
    }};
}

/// Runs one conversion from a general-purpose register: `op xmm0, rax`.
macro_rules! sse_from_int {
    ($op:literal, $mxcsr:expr, $a:expr) => {{
        let (mut csr, host): (u32, u32) = ($mxcsr, 0x1f80);
        let result: u64;
        // SAFETY: touches the named registers and MXCSR only, and restores MXCSR.
        unsafe {
            asm!(
                "xorps xmm0, xmm0", "ldmxcsr [{csr}]", $op, "stmxcsr [{csr}]", "ldmxcsr [{host}]", "movq {r}, xmm0",
                r = out(reg) result, csr = in(reg) &mut csr, host = in(reg) &host, in("rax") $a, out("xmm0") _,
            );
        }
        (result, csr & 0x3f)
    }};
}

/// Operands as the tests pass them around: raw bits in the low bits of a `u64`.
trait Raw: Format {
    const SHAPE: Shape;
    fn raw(bits: Self::Bits) -> u64;
    fn bits(raw: u64) -> Self::Bits;
}

macro_rules! raw {
    ($($f:ident $t:ty),+) => {$(
        impl Raw for $f {
            const SHAPE: Shape = support::$f;
            fn raw(bits: $t) -> u64 {
                u64::from(bits)
            }
            fn bits(raw: u64) -> $t {
                raw as $t
            }
        }
    )+};
}
raw!(F16 u16, F32 u32, F64 u64);

const CASES: usize = if cfg!(debug_assertions) { 20_000 } else { 500_000 };

/// Compares `ours` with `host` on random operands under all control words.
fn check<const N: usize, F: Raw>(
    name: &str,
    ours: impl Fn(&mut Env, [u64; N]) -> u64,
    host: impl Fn(u32, [u64; N]) -> (u64, u32),
) {
    let mut rng = Rng::new(N as u64 + u64::from(F::PREC));
    for csr in control_words() {
        for _ in 0..CASES {
            let mut operands = [0; N];
            let mut last = F::SHAPE.one(&mut rng);
            for x in &mut operands {
                *x = last as u64;
                last = F::SHAPE.near(&mut rng, last);
            }
            compare(name, csr, operands, &ours, &host);
        }
    }
}

fn compare<const N: usize>(
    name: &str,
    csr: u32,
    operands: [u64; N],
    ours: &impl Fn(&mut Env, [u64; N]) -> u64,
    host: &impl Fn(u32, [u64; N]) -> (u64, u32),
) {
    let mut env = Env::sse(csr);
    let result = ours(&mut env, operands);
    let (expected, flags) = host(csr, operands);
    assert!(
        result == expected && env.flags.x86() == flags,
        "{name} mxcsr {csr:x} {operands:x?}: got {result:x} {:?}, host {expected:x} {:?}",
        env.flags,
        soft::Flags(flags as u16)
    );
}

/// One row per instruction pair: name, single and double form, our function.
macro_rules! arithmetic {
    ($($test:ident: $ops:literal, $opd:literal, |$env:ident, $x:ident| $ours:expr;)+) => {$(
        #[test]
        fn $test() {
            {
                type F = F32;
                check::<2, F32>($ops, |$env, $x| F::raw($ours), |csr, x| {
                    let (r, f) = sse!($ops, csr, x[0], x[1], 0u64);
                    (r & 0xffff_ffff, f)
                });
            }
            {
                type F = F64;
                check::<2, F64>($opd, |$env, $x| F::raw($ours), |csr, x| sse!($opd, csr, x[0], x[1], 0u64));
            }
        }
    )+};
}

arithmetic! {
    addition: "addss xmm0, xmm1", "addsd xmm0, xmm1", |e, x| soft::add::<F>(e, F::bits(x[0]), F::bits(x[1]));
    subtraction: "subss xmm0, xmm1", "subsd xmm0, xmm1", |e, x| soft::sub::<F>(e, F::bits(x[0]), F::bits(x[1]));
    multiplication: "mulss xmm0, xmm1", "mulsd xmm0, xmm1", |e, x| soft::mul::<F>(e, F::bits(x[0]), F::bits(x[1]));
    division: "divss xmm0, xmm1", "divsd xmm0, xmm1", |e, x| soft::div::<F>(e, F::bits(x[0]), F::bits(x[1]));
    square_root: "sqrtss xmm0, xmm0", "sqrtsd xmm0, xmm0", |e, x| soft::sqrt::<F>(e, F::bits(x[0]));
    minimum: "minss xmm0, xmm1", "minsd xmm0, xmm1",
        |e, x| soft::min::<F>(e, F::bits(x[0]), F::bits(x[1]), MinMax::Second);
    maximum: "maxss xmm0, xmm1", "maxsd xmm0, xmm1",
        |e, x| soft::max::<F>(e, F::bits(x[0]), F::bits(x[1]), MinMax::Second);
    round_current: "roundss xmm0, xmm0, 4", "roundsd xmm0, xmm0, 4",
        |e, x| soft::round_to_integral::<F>(e, F::bits(x[0]), e.rounding, true);
    round_down_quietly: "roundss xmm0, xmm0, 9", "roundsd xmm0, xmm0, 9",
        |e, x| soft::round_to_integral::<F>(e, F::bits(x[0]), Rounding::Down, false);
}

#[test]
fn fused() {
    if !std::is_x86_feature_detected!("fma") {
        eprintln!("SKIPPED: the host has no FMA instructions");
        return;
    }
    // vfmadd231: xmm1 * xmm2 + xmm0. The NaN order is by role: multiplicands first, then the addend.
    let cases = |csr, x: [u64; 3]| sse!("vfmadd231ss xmm0, xmm1, xmm2", csr, x[2], x[0], x[1]);
    check::<3, F32>(
        "vfmadd231ss",
        |e, x| F32::raw(soft::fma::<F32>(e, x[0] as u32, x[1] as u32, x[2] as u32)),
        |csr, x| {
            let (r, f) = cases(csr, x);
            (r & 0xffff_ffff, f)
        },
    );
    check::<3, F64>(
        "vfmadd231sd",
        |e, x| soft::fma::<F64>(e, x[0], x[1], x[2]),
        |csr, x| sse!("vfmadd231sd xmm0, xmm1, xmm2", csr, x[2], x[0], x[1]),
    );
    check::<3, F64>(
        "vfnmsub213sd",
        |e, x| {
            soft::fma_with::<F64>(
                e,
                x[0],
                x[1],
                x[2],
                Negate { product: true, addend: true, result: false },
            )
        },
        |csr, x| sse!("vfnmsub213sd xmm1, xmm0, xmm2\nmovaps xmm0, xmm1", csr, x[0], x[1], x[2]),
    );
    check::<3, F64>(
        "vfmsub132sd",
        |e, x| {
            soft::fma_with::<F64>(
                e,
                x[0],
                x[1],
                x[2],
                Negate { product: false, addend: true, result: false },
            )
        },
        |csr, x| sse!("vfmsub132sd xmm0, xmm2, xmm1", csr, x[0], x[1], x[2]),
    );
}

/// The addend close to the negated product: massive cancellation.
#[test]
fn fused_cancellation() {
    if !std::is_x86_feature_detected!("fma") {
        eprintln!("SKIPPED: the host has no FMA instructions");
        return;
    }
    let mut rng = Rng::new(7);
    for csr in control_words() {
        for _ in 0..CASES {
            let a = support::F64.one(&mut rng) as u64;
            let b = support::F64.near(&mut rng, a.into()) as u64;
            let mut env = Env::sse(csr);
            let product = soft::mul::<F64>(&mut env, a, b) ^ 1 << 63;
            let c = product.wrapping_add(rng.below(5)).wrapping_sub(2);
            compare(
                "vfmadd231sd",
                csr,
                [a, b, c],
                &|e, x| soft::fma::<F64>(e, x[0], x[1], x[2]),
                &|csr, x| sse!("vfmadd231sd xmm0, xmm1, xmm2", csr, x[2], x[0], x[1]),
            );
        }
    }
}

#[test]
fn comparisons() {
    fn flags(order: Option<Ordering>) -> u64 {
        match order {
            Some(Ordering::Greater) => 0,
            Some(Ordering::Less) => 1,
            Some(Ordering::Equal) => 0x40,
            None => 0x45,
        }
    }
    macro_rules! compare_with {
        ($f:ident, $op:literal, $signalling:expr) => {
            check::<2, $f>(
                $op,
                |e, x| flags(soft::compare::<$f>(e, $f::bits(x[0]), $f::bits(x[1]), $signalling)),
                |csr, x| {
                    let (mut csr, host): (u32, u32) = (csr, 0x1f80);
                    let eflags: u64;
                    // SAFETY: touches the named registers, MXCSR, which is restored, and a balanced push.
                    unsafe {
                        asm!(
                            "movq xmm0, {a}", "movq xmm1, {b}", "ldmxcsr [{csr}]", $op, "pushfq", "pop {r}",
                            "stmxcsr [{csr}]", "ldmxcsr [{host}]",
                            a = in(reg) x[0], b = in(reg) x[1], csr = in(reg) &mut csr, host = in(reg) &host,
                            r = out(reg) eflags, out("xmm0") _, out("xmm1") _,
                        );
                    }
                    (eflags & 0x45, csr & 0x3f)
                },
            );
        };
    }
    compare_with!(F32, "ucomiss xmm0, xmm1", false);
    compare_with!(F32, "comiss xmm0, xmm1", true);
    compare_with!(F64, "ucomisd xmm0, xmm1", false);
    compare_with!(F64, "comisd xmm0, xmm1", true);
}

#[test]
fn to_integers() {
    macro_rules! to_int {
        ($f:ident, $op:literal, $int:expr, $mode:expr) => {
            check::<1, $f>(
                $op,
                |e, x| {
                    let mode: Option<Rounding> = $mode;
                    soft::to_int::<$f>(
                        e,
                        $f::bits(x[0]),
                        $int,
                        mode.unwrap_or(e.rounding),
                        IntRule::X86,
                    )
                },
                |csr, x| sse_int!($op, csr, x[0]),
            );
        };
    }
    to_int!(F32, "cvtss2si eax, xmm0", IntType::I32, None);
    to_int!(F32, "cvtss2si rax, xmm0", IntType::I64, None);
    to_int!(F32, "cvttss2si rax, xmm0", IntType::I64, Some(Rounding::Zero));
    to_int!(F64, "cvtsd2si eax, xmm0", IntType::I32, None);
    to_int!(F64, "cvtsd2si rax, xmm0", IntType::I64, None);
    to_int!(F64, "cvttsd2si eax, xmm0", IntType::I32, Some(Rounding::Zero));
    if std::is_x86_feature_detected!("avx512f") {
        to_int!(F64, "vcvtsd2usi rax, xmm0", IntType::U64, None);
        to_int!(F64, "vcvttsd2usi eax, xmm0", IntType::U32, Some(Rounding::Zero));
        to_int!(F32, "vcvtss2usi rax, xmm0", IntType::U64, None);
    } else {
        eprintln!("SKIPPED: unsigned conversions, the host has no AVX-512");
    }
}

#[test]
fn from_integers() {
    let mut rng = Rng::new(11);
    for csr in control_words() {
        for _ in 0..CASES {
            let n = rng.pattern(64) as u64;
            compare(
                "cvtsi2sd",
                csr,
                [n],
                &|e, [n]| soft::from_i64::<F64>(e, n as i64),
                &|csr, [n]| sse_from_int!("cvtsi2sd xmm0, rax", csr, n),
            );
            compare(
                "cvtsi2ss",
                csr,
                [n],
                &|e, [n]| soft::from_i64::<F32>(e, n as i64).into(),
                &|csr, [n]| sse_from_int!("cvtsi2ss xmm0, rax", csr, n),
            );
            if std::is_x86_feature_detected!("avx512f") {
                compare(
                    "vcvtusi2sd",
                    csr,
                    [n],
                    &|e, [n]| soft::from_u64::<F64>(e, n),
                    &|csr, [n]| sse_from_int!("vcvtusi2sd xmm0, xmm0, rax", csr, n),
                );
            }
        }
    }
}

#[test]
fn between_formats() {
    check::<1, F32>(
        "cvtss2sd",
        |e, [a]| soft::convert::<F32, F64>(e, a as u32),
        |csr, [a]| sse!("cvtss2sd xmm0, xmm0", csr, a, 0u64, 0u64),
    );
    check::<1, F64>(
        "cvtsd2ss",
        |e, [a]| soft::convert::<F64, F32>(e, a).into(),
        |csr, [a]| {
            let (r, f) = sse!("cvtsd2ss xmm0, xmm0", csr, a, 0u64, 0u64);
            (r & 0xffff_ffff, f)
        },
    );
    if !std::is_x86_feature_detected!("f16c") {
        eprintln!("SKIPPED: the host has no F16C instructions");
        return;
    }
    check::<1, F32>(
        "vcvtps2ph",
        |e, [a]| soft::convert::<F32, F16>(e, a as u32).into(),
        |csr, [a]| sse!("vcvtps2ph xmm0, xmm0, 4", csr, a, 0u64, 0u64),
    );
    for csr in control_words() {
        for a in 0..0x10000 {
            compare(
                "vcvtph2ps",
                csr,
                [a],
                &|e, [a]| soft::convert::<F16, F32>(e, a as u16).into(),
                &|csr, [a]| {
                    let (r, f) = sse!("vcvtph2ps xmm0, xmm0", csr, a, 0u64, 0u64);
                    (r & 0xffff_ffff, f)
                },
            );
        }
    }
}

/// Half precision through single precision: 24 bits suffice for one exact rounding of +, -, *, / and sqrt of 11-bit
/// significands (24 >= 2 * 11 + 2), so the host's single-precision result, converted, is the half-precision one.
#[test]
fn half_arithmetic_through_single() {
    type Op = fn(&mut Env, u16, u16) -> u16;
    type Single = fn(f32, f32) -> f32;
    let ops: [(&str, Op, Single); 5] = [
        ("add", |e, a, b| soft::add::<F16>(e, a, b), |a, b| a + b),
        ("sub", |e, a, b| soft::sub::<F16>(e, a, b), |a, b| a - b),
        ("mul", |e, a, b| soft::mul::<F16>(e, a, b), |a, b| a * b),
        ("div", |e, a, b| soft::div::<F16>(e, a, b), |a, b| a / b),
        ("sqrt", |e, a, _| soft::sqrt::<F16>(e, a), |a, _| a.sqrt()),
    ];
    let mut rng = Rng::new(3);
    for (name, ours, single) in ops {
        for _ in 0..CASES {
            let a = support::F16.one(&mut rng) as u16;
            let b = support::F16.near(&mut rng, a.into()) as u16;
            let mut env = Env::sse(0x1f80);
            let widen = |x| f32::from_bits(soft::convert::<F16, F32>(&mut Env::sse(0x1f80), x));
            let wide = single(widen(a), widen(b));
            let expected = soft::convert::<F32, F16>(&mut Env::sse(0x1f80), wide.to_bits());
            let got = ours(&mut env, a, b);
            let both_nan = wide.is_nan() && got & 0x7fff > 0x7c00;
            assert!(
                got == expected || both_nan,
                "{name} {a:x} {b:x}: {got:x}, expected {expected:x}"
            );
        }
    }
}

/// The modes that x86 lacks, by definition from the modes it has.
#[test]
fn nearest_away_and_to_odd_follow_from_directed_modes() {
    let mut rng = Rng::new(5);
    for _ in 0..CASES {
        let a = support::F64.one(&mut rng) as u64;
        let run = |mode| soft::convert::<F64, F32>(&mut Env::sse(0x1f80).with_rounding(mode), a);
        let [even, down, up, _] = ALL.map(run);
        let (away, odd) = (run(Rounding::NearestAway), run(Rounding::ToOdd));
        let finite = |x: u32| x & 0x7f80_0000 != 0x7f80_0000;
        if !(finite(down) && finite(up)) {
            continue;
        }
        if down == up {
            assert_eq!((away, odd), (even, even));
            continue;
        }
        assert_eq!(odd, if down & 1 != 0 { down } else { up }, "{a:x}");
        let (value, low, high) =
            (f64::from_bits(a), f64::from(f32::from_bits(down)), f64::from(f32::from_bits(up)));
        let tie = value - low == high - value;
        assert_eq!(away, if tie { if value > 0.0 { up } else { down } } else { even }, "{a:x}");
    }
}
