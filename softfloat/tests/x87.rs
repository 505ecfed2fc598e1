//! The host's x87 unit as judge of the double extended format: results, exception flags and C1, all rounding modes and
//! precision controls. x86-64 hosts only.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

mod support;

use std::arch::asm;
use std::cmp::Ordering;

use support::Rng;
use tulk_softfloat::{
    self as soft, Env, F32, F64, F80, Flags, FpClass, IntRule, IntType, Quotient, f80_from_parts,
    f80_parts,
};

const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;

/// A register image in memory, as FLD and FSTP of 80 bits see it.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Image([u8; 16]);

impl Image {
    fn new(bits: u128) -> Image {
        Image(bits.to_le_bytes())
    }
    fn bits(self) -> u128 {
        u128::from_le_bytes(self.0) & ((1 << 80) - 1)
    }
}

/// Runs instructions with `a` in st(0) and `b` in st(1) under a control word; returns st(0), st(1) and the status word.
macro_rules! x87 {
    ($op:literal, $control:expr, $a:expr, $b:expr) => {{
        let (mut a, mut b, control) = (Image::new($a), Image::new($b), $control);
        let status: u16;
        // SAFETY: starts from FNINIT and leaves the register stack empty and initialised; writes `a` and `b` only.
        unsafe {
            asm!(
                "fninit", "fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", "fldcw word ptr [{cw}]", $op, "fnstsw ax",
                "fstp tbyte ptr [{a}]", "fstp tbyte ptr [{b}]", "fninit",
                a = in(reg) &mut a, b = in(reg) &mut b, cw = in(reg) &control, out("ax") status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        (a.bits(), b.bits(), status)
    }};
}

/// Like `x87!`, with a memory operand `m` that the instruction reads or writes; returns it, st(0) and the status word.
macro_rules! x87_memory {
    ($op:literal, $control:expr, $a:expr, $m:expr) => {{
        let (mut a, mut m, control) = (Image::new($a), Image::new($m), $control);
        let status: u16;
        // SAFETY: starts from FNINIT and leaves the register stack empty and initialised; writes `a` and `m` only.
        unsafe {
            asm!(
                "fninit", "fld tbyte ptr [{a}]", "fldcw word ptr [{cw}]", $op, "fnstsw ax",
                "fstp tbyte ptr [{a}]", "fninit",
                a = in(reg) &mut a, m = in(reg) &mut m, cw = in(reg) &control, out("ax") status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        (u128::from_le_bytes(m.0), a.bits(), status)
    }};
}

/// All combinations of rounding and precision control, exceptions masked.
fn control_words() -> impl Iterator<Item = u16> {
    (0..4).flat_map(|rc| [0, 2, 3].map(|pc| 0x7f | rc << 10 | pc << 8))
}

const CASES: usize = if cfg!(debug_assertions) { 20_000 } else { 300_000 };

fn pairs(seed: u64) -> impl FnMut() -> (u128, u128) {
    let mut rng = Rng::new(seed);
    move || {
        let a = support::F80.one(&mut rng);
        let b = support::F80.near(&mut rng, a);
        (support::F80.extended(&mut rng, a), support::F80.extended(&mut rng, b))
    }
}

/// Exceptions and C1 as they appear in the status word.
fn status(flags: Flags) -> u16 {
    flags.x86() as u16 | if flags.contains(Flags::ROUNDED_UP) { C1 } else { 0 }
}

fn check(
    name: &str,
    ours: impl Fn(&mut Env, u128, u128) -> u128,
    host: impl Fn(u16, u128, u128) -> (u128, u128, u16),
) {
    let mut next = pairs(name.len() as u64);
    let (mut failures, mut shown) = (0, String::new());
    for control in control_words() {
        for _ in 0..CASES {
            let (a, b) = next();
            let mut env = Env::x87(control);
            let result = ours(&mut env, a, b);
            let (expected, _, word) = host(control, a, b);
            let mine = status(env.flags);
            if (result, mine) != (expected, word & (C1 | 0x3f)) {
                failures += 1;
                if failures < 6 {
                    shown += &format!(
                        "{name} cw {control:x} {a:020x} {b:020x}: got {result:020x} {mine:x} {:?}, host {expected:020x} {:x}\n",
                        env.flags,
                        word & (C1 | 0x3f)
                    );
                }
            }
        }
    }
    assert!(failures == 0, "{failures} differences\n{shown}");
}

#[test]
fn addition() {
    check("fadd", soft::add::<F80>, |cw, a, b| x87!("fadd st(0), st(1)", cw, a, b));
}

#[test]
fn subtraction() {
    check("fsub", soft::sub::<F80>, |cw, a, b| x87!("fsub st(0), st(1)", cw, a, b));
}

#[test]
fn multiplication() {
    check("fmul", soft::mul::<F80>, |cw, a, b| x87!("fmul st(0), st(1)", cw, a, b));
}

#[test]
fn division() {
    check("fdiv", soft::div::<F80>, |cw, a, b| x87!("fdiv st(0), st(1)", cw, a, b));
}

#[test]
fn square_root() {
    check("fsqrt", |e, a, _| soft::sqrt::<F80>(e, a), |cw, a, b| x87!("fsqrt", cw, a, b));
}

#[test]
fn round_to_integral() {
    check(
        "frndint",
        |e, a, _| soft::round_to_integral::<F80>(e, a, e.rounding, true),
        |cw, a, b| x87!("frndint", cw, a, b),
    );
}

#[test]
fn scale() {
    check("fscale", soft::x87_scale, |cw, a, b| x87!("fscale", cw, a, b));
}

#[test]
fn extract() {
    let significand = |e: &mut Env, a, _| {
        // One instruction raises what either half does.
        soft::exponent::<F80>(e, a);
        soft::significand::<F80>(e, a)
    };
    check("fxtract, significand", significand, |cw, a, b| x87!("fxtract", cw, a, b));
    check(
        "fxtract, exponent",
        |e, a, _| soft::exponent::<F80>(e, a),
        |cw, a, b| x87!("fxtract\nfstp st(0)", cw, a, b),
    );
}

#[test]
fn comparisons() {
    for (name, signalling) in [("fcom", true), ("fucom", false)] {
        let mut next = pairs(77);
        for _ in 0..CASES {
            let (a, b) = next();
            let mut env = Env::x87(0x37f);
            let order = soft::compare::<F80>(&mut env, a, b, signalling);
            let (_, _, word) = if signalling {
                x87!("fcom st(1)", 0x37f_u16, a, b)
            } else {
                x87!("fucom st(1)", 0x37f_u16, a, b)
            };
            let codes = match order {
                Some(Ordering::Greater) => 0,
                Some(Ordering::Less) => C0,
                Some(Ordering::Equal) => C3,
                None => C0 | C2 | C3,
            };
            let (mine, host) = (codes | status(env.flags), word & (C0 | C1 | C2 | C3 | 0x3f));
            assert_eq!(mine, host, "{name} {a:020x} {b:020x}: got {mine:x}, host {host:x}");
        }
    }
}

#[test]
fn examine() {
    let mut next = pairs(5);
    for _ in 0..CASES {
        let (a, _) = next();
        let (sign, class) = soft::classify::<F80>(a);
        let codes = match class {
            FpClass::Unsupported => 0,
            FpClass::QuietNan | FpClass::SignallingNan => C0,
            FpClass::Normal => C2,
            FpClass::Infinite => C2 | C0,
            FpClass::Zero => C3,
            FpClass::Subnormal => C3 | C2,
        };
        let (_, _, word) = x87!("fxam", 0x37f_u16, a, a);
        let mine = codes | if sign { C1 } else { 0 };
        assert_eq!(mine, word & (C0 | C1 | C2 | C3), "fxam {a:020x}");
    }
}

#[test]
fn remainders() {
    let amd = host_is_amd();
    for quotient in [Quotient::Truncated, Quotient::Nearest] {
        let mut next = pairs(9);
        for _ in 0..4 * CASES {
            let (a, b) = next();
            let mut env = Env::x87(0x37f);
            let (result, q, partial) = soft::x87_partial_remainder(&mut env, a, b, quotient);
            let (expected, _, word) = match quotient {
                Quotient::Truncated => x87!("fprem", 0x37f_u16, a, b),
                Quotient::Nearest => x87!("fprem1", 0x37f_u16, a, b),
            };
            // How far a partial step goes is the processor's choice.
            if partial && word & C2 != 0 && !amd {
                continue;
            }
            let bit = |n: u64, c| if q >> n & 1 != 0 { c } else { 0 };
            let codes = bit(2, C0) | bit(1, C3) | bit(0, C1) | if partial { C2 } else { 0 };
            let (mine, host) = (codes | env.flags.x86() as u16, word & (C0 | C1 | C2 | C3 | 0x3f));
            assert!(
                (result, mine) == (expected, host),
                "{quotient:?} {a:020x} {b:020x}: got {result:020x} {mine:x}, host {expected:020x} {host:x}"
            );
        }
    }
}

#[test]
fn loads() {
    let mut rng = Rng::new(21);
    for _ in 0..CASES {
        let (s, d) = (support::F32.one(&mut rng), support::F64.one(&mut rng));
        let i = rng.pattern(64);
        let one = f80_from_parts(1 << 63, 0x3fff);
        let mut env = Env::x87(0x7f);
        let single = soft::convert::<F32, F80>(&mut env, s as u32);
        let (_, host, word) = x87_memory!("fld dword ptr [{m}]\nfstp st(1)", 0x7f_u16, one, s);
        assert_eq!((single, status(env.flags)), (host, word & 0x3f), "fld {s:x}");
        let mut env = Env::x87(0x7f);
        let double = soft::convert::<F64, F80>(&mut env, d as u64);
        let (_, host, word) = x87_memory!("fld qword ptr [{m}]\nfstp st(1)", 0x7f_u16, one, d);
        assert_eq!((double, status(env.flags)), (host, word & 0x3f), "fld {d:x}");
        let mut env = Env::x87(0x7f);
        let integer = soft::from_i64::<F80>(&mut env, i as i64);
        let (_, host, word) = x87_memory!("fild qword ptr [{m}]\nfstp st(1)", 0x7f_u16, one, i);
        assert_eq!((integer, status(env.flags)), (host, word & 0x3f), "fild {i:x}");
    }
}

#[test]
fn stores() {
    macro_rules! store {
        ($op:literal, $bits:literal, |$e:ident, $a:ident| $ours:expr) => {
            check(
                $op,
                |$e, $a, _| u128::from($ours),
                |cw, a, _| {
                    let (m, _, word) = x87_memory!($op, cw, a, 0);
                    (m & ((1 << $bits) - 1), 0, word)
                },
            );
        };
    }
    store!("fst dword ptr [{m}]", 32, |e, a| soft::convert::<F80, F32>(e, a));
    store!("fst qword ptr [{m}]", 64, |e, a| soft::convert::<F80, F64>(e, a));
    store!("fist word ptr [{m}]", 16, |e, a| soft::to_int::<F80>(
        e,
        a,
        IntType::I16,
        e.rounding,
        IntRule::X86
    ));
    store!("fist dword ptr [{m}]", 32, |e, a| soft::to_int::<F80>(
        e,
        a,
        IntType::I32,
        e.rounding,
        IntRule::X86
    ));
    store!("fld st(0)\nfistp qword ptr [{m}]", 64, |e, a| {
        soft::to_int::<F80>(e, a, IntType::I64, e.rounding, IntRule::X86)
    });
}

#[test]
fn constants() {
    use soft::X87Constant::*;
    for control in control_words() {
        macro_rules! constant {
            ($($op:literal $which:expr),+) => {$(
                let (host, _, _) = x87!($op, control, 0, 0);
                assert_eq!(soft::x87_constant(&Env::x87(control), $which), host, "{}", $op);
            )+};
        }
        constant!(
            "fld1" One, "fldl2t" Log2Of10, "fldl2e" Log2OfE, "fldpi" Pi, "fldlg2" Log10Of2, "fldln2" LnOf2, "fldz" Zero
        );
    }
}

#[test]
fn packed_decimal() {
    let mut rng = Rng::new(31);
    for _ in 0..CASES {
        let packed = (0..18).fold(u128::from(rng.next() >> 63) << 79, |n, i| {
            n | u128::from(rng.below(10)) << (4 * i)
        });
        let (_, host, _) = x87_memory!("fbld tbyte ptr [{m}]\nfstp st(1)", 0x37f_u16, 0, packed);
        assert_eq!(soft::x87_load_bcd(packed), host, "fbld {packed:x}");
    }
    check(
        "fbstp",
        |e, a, _| soft::x87_store_bcd(e, a),
        |cw, a, _| {
            let (m, _, word) = x87_memory!("fld st(0)\nfbstp tbyte ptr [{m}]", cw, a, 0);
            (m, 0, word)
        },
    );
    // Mostly in range.
    for _ in 0..CASES {
        let control = 0x37f | (rng.next() as u16 & 0xc00);
        let a = f80_from_parts(
            rng.next() | 1 << 63,
            (0x3fff - 3 + rng.below(68) as u16) | (rng.next() as u16 & 0x8000),
        );
        let mut env = Env::x87(control);
        let result = soft::x87_store_bcd(&mut env, a);
        let (m, _, word) = x87_memory!("fld st(0)\nfbstp tbyte ptr [{m}]", control, a, 0);
        assert_eq!(
            (result, status(env.flags)),
            (m, word & (C1 | 0x3f)),
            "fbstp {control:x} {a:020x}"
        );
    }
}

/// Where the manuals leave a choice the functions follow AMD processors.
fn host_is_amd() -> bool {
    std::arch::x86_64::__cpuid(0).ecx == u32::from_le_bytes(*b"cAMD")
}

/// Position on the number line in units in the last place.
fn place(x: u128) -> i128 {
    let (significand, sign_exp) = f80_parts(x);
    let magnitude = i128::from(sign_exp & 0x7fff) << 63 | i128::from(significand & (u64::MAX >> 1));
    if sign_exp >> 15 != 0 { -magnitude } else { magnitude }
}

/// Random operands of the given exponents; some significands are corner cases.
fn of_exponents(rng: &mut Rng, (low, high): (i64, i64)) -> u128 {
    let exp = low + rng.below((high - low + 1) as u64) as i64 + 16383;
    let significand = if rng.below(3) == 0 { rng.pattern(63) as u64 } else { rng.next() };
    f80_from_parts(significand | 1 << 63, exp as u16 | (rng.next() as u16 & 0x8000))
}

/// Both sides promise less than one unit in the last place, so they differ by at most one.
#[test]
fn transcendental_functions() {
    type Ours = fn(&mut Env, u128, u128) -> Option<u128>;
    type Host = fn(u16, u128, u128) -> (u128, u128, u16);
    type Exponents = (i64, i64);
    // Exponents for which the manual defines the function; the others are compared on AMD hosts.
    let table: [(&str, Exponents, Ours, Host); 9] = [
        ("fsin", (-16382, 64), |e, a, _| soft::x87_sin(e, a), |cw, a, b| x87!("fsin", cw, a, b)),
        ("fcos", (-16382, 64), |e, a, _| soft::x87_cos(e, a), |cw, a, b| x87!("fcos", cw, a, b)),
        (
            "fsincos, sine",
            (-16382, 62),
            |e, a, _| soft::x87_sincos(e, a).map(|r| r.0),
            |cw, a, b| x87!("fsincos\nfstp st(0)", cw, a, b),
        ),
        (
            "fsincos, cosine",
            (-16382, 62),
            |e, a, _| soft::x87_sincos(e, a).map(|r| r.1),
            |cw, a, b| x87!("fsincos", cw, a, b),
        ),
        // The pushed 1.0 must not turn an operand out of range into a result.
        (
            "fptan",
            (-16382, 62),
            |e, a, _| soft::x87_tan(e, a),
            |cw, a, b| x87!("fptan\nfstp st(0)", cw, a, b),
        ),
        (
            "fpatan",
            (-16382, 16383),
            |e, a, b| Some(soft::x87_atan(e, b, a)),
            |cw, a, b| x87!("fpatan", cw, a, b),
        ),
        (
            "f2xm1",
            (-16382, -1),
            |e, a, _| Some(soft::x87_exp2_minus_1(e, a)),
            |cw, a, b| x87!("f2xm1", cw, a, b),
        ),
        (
            "fyl2x",
            (-16382, 16383),
            |e, a, b| Some(soft::x87_log2(e, b, a)),
            |cw, a, b| x87!("fyl2x", cw, a, b),
        ),
        (
            "fyl2xp1",
            (-16382, -3),
            |e, a, b| Some(soft::x87_log2_plus_1(e, b, a)),
            |cw, a, b| x87!("fyl2xp1", cw, a, b),
        ),
    ];
    let mut rng = Rng::new(99);
    let amd = host_is_amd();
    for (name, defined, ours, host) in table {
        let (mut equal, mut all) = (0, 0);
        for n in 0..4 * CASES {
            let control = 0x37f | (rng.next() as u16 & 0xc00);
            let range = |low: i64, high: i64| (low.max(defined.0), high.min(defined.1));
            let (mut a, b) = match n % 6 {
                0 if amd => {
                    let a = support::F80.one(&mut rng);
                    let b = support::F80.near(&mut rng, a);
                    (support::F80.extended(&mut rng, a), support::F80.extended(&mut rng, b))
                }
                1 => (of_exponents(&mut rng, defined), of_exponents(&mut rng, (-16382, 16383))),
                2 => (of_exponents(&mut rng, range(-70, 70)), of_exponents(&mut rng, (-70, 70))),
                _ => (of_exponents(&mut rng, range(-5, 5)), of_exponents(&mut rng, (-5, 5))),
            };
            if name == "fyl2x" && n % 6 != 0 {
                a &= !(1 << 79);
            }
            if name.starts_with("fsincos") || name == "fptan" {
                // Out of range these push nothing, and the host code above pops.
                let (_, sign_exp) = f80_parts(a);
                if (16383 + 63..0x7fff).contains(&(sign_exp & 0x7fff)) {
                    continue;
                }
            }
            let mut env = Env::x87(control);
            let result = ours(&mut env, a, b);
            let (expected, _, word) = host(control, a, b);
            let context = || format!("{name} cw {control:x} {a:020x} {b:020x}");
            assert_eq!(result.is_none(), word & C2 != 0, "{}: out of range", context());
            let result = result.unwrap_or(a);
            let distance = (place(result) - place(expected)).abs();
            assert!(distance <= 1, "{}: got {result:020x}, host {expected:020x}", context());
            let compared = if amd { 0x3f } else { 0x0f };
            let (mine, host) = (env.flags.x86() as u16 & compared, word & compared);
            assert!(mine == host, "{}: {result:020x} flags {mine:x}, host {host:x}", context());
            all += 1;
            equal += usize::from(distance == 0);
        }
        println!("{name}: {:.2}% equal to the host", 100.0 * equal as f64 / all as f64);
        assert!(
            !amd || equal * 100 > all * 85,
            "{name}: only {equal} of {all} equal the host's result"
        );
    }
}

/// Values known to more places than the format has.
#[test]
fn transcendental_values() {
    let number = |x: f64| soft::convert::<F64, F80>(&mut Env::x87(0x37f), x.to_bits());
    let mut env = Env::x87(0x37f);
    let e = &mut env;
    assert_eq!(soft::x87_atan(e, number(1.0), number(1.0)), 0x3ffe_c90f_daa2_2168_c235);
    assert_eq!(soft::x87_atan(e, number(0.0), number(-1.0)), 0x4000_c90f_daa2_2168_c235);
    assert_eq!(soft::x87_log2(e, number(1.0), number(8.0)), number(3.0));
    assert_eq!(soft::x87_log2(e, number(1.0), number(10.0)), 0x4000_d49a_784b_cd1b_8afe);
    assert_eq!(soft::x87_exp2_minus_1(e, number(1.0)), number(1.0));
    assert_eq!(soft::x87_sin(e, number(2.0_f64.powi(63))), None);
}
