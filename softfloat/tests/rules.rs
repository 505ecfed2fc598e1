//! The rules for which there is no judge on the test machine, PowerPC's and SPARC's, as their manuals' tables have them,
//! and the parts of the interface that the comparisons with processors do not use.

use tulk_softfloat::{
    self as soft, Bf16, Env, F16, F16Alt, F32, F64, F80, F128, Flags, IntRule, IntType, NanRule,
    Negate, Quotient, Rounding, default_nan,
};

const Q1: u32 = 0x7fc0_0001;
const Q2: u32 = 0xffc0_0002;
const Q3: u32 = 0x7fc0_0003;
const S1: u32 = 0x7f80_0011;
const S2: u32 = 0xff80_0012;
const S3: u32 = 0x7f80_0013;
const QUIET: u32 = 0x0040_0000;
const ONE: u32 = 0x3f80_0000;
const INF: u32 = 0x7f80_0000;

fn add(rule: NanRule, a: u32, b: u32) -> (u32, Flags) {
    let mut env = Env::new(rule);
    let sum = soft::add::<F32>(&mut env, a, b);
    (sum, env.flags)
}

/// SPARC V9, table in B.2.2.
#[test]
fn sparc_nans() {
    let snan = Flags::INVALID | Flags::VX_SNAN;
    for (a, b, result, flags) in [
        (ONE, Q2, Q2, Flags::NONE),
        (ONE, S2, S2 | QUIET, snan),
        (Q1, ONE, Q1, Flags::NONE),
        (Q1, Q2, Q2, Flags::NONE),
        (Q1, S2, S2 | QUIET, snan),
        (S1, ONE, S1 | QUIET, snan),
        (S1, Q2, S1 | QUIET, snan),
        (S1, S2, S2 | QUIET, snan),
        (INF, INF | 1 << 31, 0x7fff_ffff, Flags::INVALID | Flags::VX_ISI),
    ] {
        assert_eq!(add(NanRule::Sparc, a, b), (result, flags), "{a:x} {b:x}");
    }
}

/// Power ISA Book I, 4.2.2: FRA, then FRB, then FRC; `fmadd` is FRA * FRC + FRB.
#[test]
fn power_nans() {
    assert_eq!(add(NanRule::Ppc, Q1, S2).0, Q1);
    assert_eq!(add(NanRule::Ppc, ONE, S2).0, S2 | QUIET);
    let fmadd = |a, c, b| soft::fma::<F32>(&mut Env::ppc(0), a, c, b);
    assert_eq!(fmadd(S1, Q3, Q2), S1 | QUIET);
    assert_eq!(fmadd(ONE, Q3, Q2), Q2);
    assert_eq!(fmadd(ONE, S3, Q2), Q2);
    assert_eq!(fmadd(ONE, S3, ONE), S3 | QUIET);
}

/// The kinds of invalid operation, one by one.
#[test]
fn power_invalid_kinds() {
    type Op = fn(&mut Env) -> u64;
    let rows: [(Flags, Op); 9] = [
        (Flags::VX_ISI, |e| soft::sub::<F32>(e, INF, INF).into()),
        (Flags::VX_ISI, |e| soft::fma::<F32>(e, INF, ONE, INF | 1 << 31).into()),
        (Flags::VX_IDI, |e| soft::div::<F32>(e, INF, INF).into()),
        (Flags::VX_ZDZ, |e| soft::div::<F32>(e, 0, 0).into()),
        (Flags::VX_IMZ, |e| soft::mul::<F32>(e, INF, 0).into()),
        (Flags::VX_IMZ, |e| soft::fma::<F32>(e, INF, 0, Q1).into()),
        (Flags::VX_VC, |e| soft::compare::<F32>(e, Q1, ONE, true).is_some().into()),
        (Flags::VX_SQRT, |e| soft::sqrt::<F32>(e, ONE | 1 << 31).into()),
        (Flags::VX_CVI, |e| {
            soft::to_int::<F32>(e, INF, IntType::I32, Rounding::Zero, IntRule::Ppc)
        }),
    ];
    for (kind, op) in rows {
        let mut env = Env::ppc(0);
        op(&mut env);
        assert_eq!(env.flags, Flags::INVALID | kind);
    }
}

/// `fnmadd` rounds the sum and then negates it; a NaN keeps its sign. The x86 form negates before rounding.
#[test]
fn negated_fused_forms() {
    let result = Negate { result: true, ..Negate::NOTHING };
    let tiny = 0x3380_0000; // 2^-24: one plus this is inexact
    let mut up = Env::ppc(2);
    assert_eq!(soft::fma_with::<F32>(&mut up, ONE, ONE, tiny, result), 0xbf80_0001);
    assert_eq!(soft::fma_with::<F32>(&mut up, Q1, ONE, tiny, result), Q1);
    let both = Negate { product: true, addend: true, result: false };
    assert_eq!(
        soft::fma_with::<F32>(&mut Env::sse(0x1f80 | 2 << 13), ONE, ONE, tiny, both),
        0xbf80_0000
    );
}

/// One rounding from double operands to a single result: 1 + 2^-24 + 2^-54 rounds up, in two steps it would not.
#[test]
fn rounding_into_another_format() {
    let mut env = Env::ppc(0);
    let a = (1.0 + 2.0_f64.powi(-24)).to_bits();
    let b = 2.0_f64.powi(-54).to_bits();
    assert_eq!(soft::add_into::<F64, F32>(&mut env, a, b), 0x3f80_0001);
    let two_steps = soft::add::<F64>(&mut env, a, b);
    assert_eq!(soft::convert::<F64, F32>(&mut env, two_steps), 0x3f80_0000);
    assert_eq!(soft::mul_into::<F64, F32>(&mut env, a, 1.0_f64.to_bits()), 0x3f80_0000);
    assert_eq!(
        soft::div_into::<F64, F32>(&mut env, 1.0_f64.to_bits(), 3.0_f64.to_bits()),
        0x3eaa_aaab
    );
    assert_eq!(soft::sqrt_into::<F64, F32>(&mut env, 2.0_f64.to_bits()), 0x3fb5_04f3);
    assert_eq!(soft::sub_into::<F64, F32>(&mut env, a, a), 0);
    assert_eq!(
        soft::fma_into::<F64, F32>(&mut env, a, 1.0_f64.to_bits(), b, Negate::NOTHING),
        0x3f80_0001
    );
}

#[test]
fn integers_out_of_range() {
    let convert =
        |rule, a: u32, int| soft::to_int::<F32>(&mut Env::ppc(0), a, int, Rounding::Zero, rule);
    let minus_inf = INF | 1 << 31;
    for (rule, nan, inf, negative) in [
        (IntRule::Arm, 0, 0x7fff_ffff, 0x8000_0000),
        (IntRule::X86, 0x8000_0000, 0x8000_0000, 0x8000_0000),
        (IntRule::Ppc, 0x8000_0000, 0x7fff_ffff, 0x8000_0000),
        (IntRule::Sparc, 0x7fff_ffff, 0x7fff_ffff, 0x8000_0000),
    ] {
        let got = [Q1, INF, minus_inf].map(|a| convert(rule, a, IntType::I32));
        assert_eq!(got, [nan, inf, negative], "{rule:?}");
    }
    assert_eq!(convert(IntRule::Sparc, Q2, IntType::I64), 1 << 63);
    assert_eq!(convert(IntRule::Arm, ONE | 1 << 31, IntType::U64), 0);
    assert_eq!(convert(IntRule::X86, ONE | 1 << 31, IntType::U16), 0xffff);
}

#[test]
fn default_nans() {
    assert_eq!(default_nan::<F16>(NanRule::Arm), 0x7e00);
    assert_eq!(default_nan::<Bf16>(NanRule::Arm), 0x7fc0);
    assert_eq!(default_nan::<F32>(NanRule::Sparc), 0x7fff_ffff);
    assert_eq!(default_nan::<F64>(NanRule::Sse), 0xfff8 << 48);
    assert_eq!(default_nan::<F80>(NanRule::X87), 0xffff_c000 << 48);
    assert_eq!(default_nan::<F128>(NanRule::Ppc), 0x7fff_8000 << 96);
}

/// Both ends of alternative half precision.
#[test]
fn alternative_half_precision() {
    let mut env = Env::arm(0);
    assert_eq!(soft::convert::<F16Alt, F32>(&mut env, 0x7fff), 131_008.0_f32.to_bits());
    assert_eq!(soft::convert::<F32, F16Alt>(&mut env, 131_008.0_f32.to_bits()), 0x7fff);
    assert_eq!(env.flags, Flags::NONE);
    assert_eq!(soft::convert::<F32, F16Alt>(&mut env, 131_072.0_f32.to_bits()), 0x7fff);
    assert_eq!(env.flags, Flags::INVALID);
}

#[test]
fn scaling_and_exponents() {
    let mut env = Env::arm(0);
    let e = &mut env;
    assert_eq!(soft::scalbn::<F32>(e, ONE, 127), 0x7f00_0000);
    assert_eq!(soft::scalbn::<F32>(e, 1, 149), ONE);
    assert_eq!(soft::exponent::<F64>(e, 0.75_f64.to_bits()), (-1.0_f64).to_bits());
    assert_eq!(soft::exponent::<F32>(e, 1), (-149.0_f32).to_bits());
    assert_eq!(soft::significand::<F64>(e, (-0.75_f64).to_bits()), (-1.5_f64).to_bits());
    assert_eq!(e.flags, Flags::NONE);
    assert_eq!(soft::scalbn::<F32>(e, ONE, i32::MAX), INF);
    assert_eq!(soft::scalbn::<F32>(e, ONE, i32::MIN), 0);
}

#[test]
fn whole_remainders() {
    let mut env = Env::arm(0);
    let rem = |e: &mut Env, a: f64, b: f64, q| {
        let (r, n) = soft::remainder::<F64>(e, a.to_bits(), b.to_bits(), q);
        (f64::from_bits(r), n)
    };
    assert_eq!(rem(&mut env, 7.0, 4.0, Quotient::Truncated), (3.0, 1));
    assert_eq!(rem(&mut env, 7.0, 4.0, Quotient::Nearest), (-1.0, 2));
    assert_eq!(rem(&mut env, -6.0, 4.0, Quotient::Nearest), (2.0, 2));
    assert_eq!(rem(&mut env, 1e300, 3.0, Quotient::Truncated).0, 1e300 % 3.0);
}
