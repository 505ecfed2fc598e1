//! 3DNow! and its extension: pairs of single-precision numbers in mm registers (AMD's "3DNow! Technology Manual",
//! 21928, and "Extensions to the 3DNow! and MMX Instruction Sets Manual", 22466).
//!
//! No exceptions and no status: denormals count as zero, results too small become zero, those too large the largest
//! number, rounding is to nearest (conversions: towards zero). What the manual leaves undefined, infinities and NaNs
//! as operands, is IEEE arithmetic on them here. The reciprocal approximations are correctly rounded, and the
//! refining steps compute the terms of the iteration that they stand for, so that the usual sequences are right to
//! a unit in the last place.
//!
//! No present processor has these instructions: `tests/host_mmx.rs` holds examples worked out from the manuals.

use super::{D3NOW, enter, get, set, source};
use crate::lifter::Lifter;
use crate::x87;
use iced_x86::{Instruction, Mnemonic};
use std::cmp::Ordering;
use tulk_base::Trap;
use tulk_ir::HelperCx;
use tulk_softfloat::{self as soft, Env, F32, IntRule, IntType, Negate, Rounding};

/// op mm, src
pub fn lift(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let b = source(l, insn, 1);
    let a = get(l, insn.op0_register());
    let op = ORDER.iter().position(|&m| m == insn.mnemonic()).expect("an operation");
    let v = l.call(D3NOW, &[a, b], op as i64);
    enter(l);
    set(l, insn.op0_register(), v);
}

/// Numbers of the operations in the helper's immediate.
const ORDER: [Mnemonic; 21] = {
    use Mnemonic::*;
    [
        Pi2fw, Pi2fd, Pf2iw, Pf2id, Pfnacc, Pfpnacc, Pfacc, Pfcmpge, Pfcmpgt, Pfcmpeq, Pfmin,
        Pfmax, Pfadd, Pfsub, Pfsubr, Pfmul, Pfrcp, Pfrsqrt, Pfrcpit1, Pfrcpit2, Pfrsqit1,
    ]
};

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0x7f80_0000;
const LARGEST: u32 = 0x7f7f_ffff;
const ONE: u32 = 0x3f80_0000;
const TWO: u32 = 0x4000_0000;
const THREE: u32 = 0x4040_0000;
const HALF: u32 = 0x3f00_0000;

fn env() -> Env {
    let mut env = Env::sse(0x1f80);
    env.flush_inputs = true;
    env.flush_outputs = true;
    env
}

/// A result of finite operands.
fn clamped(v: u32) -> u32 {
    if v & !SIGN == INFINITY { v & SIGN | LARGEST } else { v }
}

fn add(a: u32, b: u32) -> u32 {
    clamped(soft::add::<F32>(&mut env(), a, b))
}
fn sub(a: u32, b: u32) -> u32 {
    clamped(soft::sub::<F32>(&mut env(), a, b))
}
fn mul(a: u32, b: u32) -> u32 {
    clamped(soft::mul::<F32>(&mut env(), a, b))
}
/// `c - a * b`
fn minus_product(c: u32, a: u32, b: u32) -> u32 {
    let negate = Negate { product: true, addend: false, result: false };
    clamped(soft::fma_with::<F32>(&mut env(), a, b, c, negate))
}
fn order(a: u32, b: u32) -> Option<Ordering> {
    soft::compare::<F32>(&mut env(), a, b, false)
}
fn truth(v: bool) -> u32 {
    if v { u32::MAX } else { 0 }
}
fn to_int(a: u32, int: IntType) -> u32 {
    soft::to_int::<F32>(&mut env(), a, int, Rounding::Zero, IntRule::Arm) as u32
}
fn from_int(a: i32) -> u32 {
    soft::from_i64::<F32>(&mut env().with_rounding(Rounding::Zero), a as i64)
}

/// The one that `wanted` asks for; zeros, also those that denormals count as, come out positive.
fn extreme(a: u32, b: u32, wanted: Ordering) -> u32 {
    let v = if order(a, b) == Some(wanted) { a } else { b };
    if v & INFINITY == 0 { 0 } else { v }
}

/// The same for both halves.
fn both(a: [u32; 2], b: [u32; 2], f: impl Fn(u32, u32) -> u32) -> [u32; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
}

fn run(op: Mnemonic, a: [u32; 2], b: [u32; 2]) -> [u32; 2] {
    use Mnemonic::*;
    match op {
        Pi2fw => b.map(|v| from_int(v as i16 as i32)),
        Pi2fd => b.map(|v| from_int(v as i32)),
        Pf2iw => b.map(|v| to_int(v, IntType::I16) as i16 as i32 as u32),
        Pf2id => b.map(|v| to_int(v, IntType::I32)),
        Pfnacc => [sub(a[0], a[1]), sub(b[0], b[1])],
        Pfpnacc => [sub(a[0], a[1]), add(b[0], b[1])],
        Pfacc => [add(a[0], a[1]), add(b[0], b[1])],
        Pfcmpge => both(a, b, |a, b| {
            truth(matches!(order(a, b), Some(Ordering::Greater | Ordering::Equal)))
        }),
        Pfcmpgt => both(a, b, |a, b| truth(order(a, b) == Some(Ordering::Greater))),
        Pfcmpeq => both(a, b, |a, b| truth(order(a, b) == Some(Ordering::Equal))),
        Pfmin => both(a, b, |a, b| extreme(a, b, Ordering::Less)),
        Pfmax => both(a, b, |a, b| extreme(a, b, Ordering::Greater)),
        Pfadd => both(a, b, add),
        Pfsub => both(a, b, sub),
        Pfsubr => both(a, b, |a, b| sub(b, a)),
        Pfmul => both(a, b, mul),
        // Of the low half, to both.
        Pfrcp => [clamped(soft::div::<F32>(&mut env(), ONE, b[0])); 2],
        Pfrsqrt => {
            // The sign is the operand's, as if the magnitude were taken first.
            let root = soft::sqrt::<F32>(&mut env(), b[0] & !SIGN);
            [clamped(soft::div::<F32>(&mut env(), ONE, root)) | b[0] & SIGN; 2]
        }
        Pfrcpit1 => both(a, b, |a, b| minus_product(TWO, a, b)),
        Pfrcpit2 => both(a, b, mul),
        _ => both(a, b, |a, b| mul(HALF, minus_product(THREE, a & !SIGN, b))),
    }
}

pub(super) fn d3now_run(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let halves = |v: u128| [v as u32, (v >> 32) as u32];
    let [low, high] = run(ORDER[args[3] as usize], halves(args[0]), halves(args[1]));
    Ok(low as u128 | (high as u128) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mnemonic::*;

    fn floats(op: Mnemonic, a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
        run(op, a.map(f32::to_bits), b.map(f32::to_bits)).map(f32::from_bits)
    }

    #[test]
    fn arithmetic() {
        assert_eq!(floats(Pfadd, [1.5, -2.0], [2.25, 5.0]), [3.75, 3.0]);
        assert_eq!(floats(Pfsub, [1.5, -2.0], [2.25, 5.0]), [-0.75, -7.0]);
        assert_eq!(floats(Pfsubr, [1.5, -2.0], [2.25, 5.0]), [0.75, 7.0]);
        assert_eq!(floats(Pfmul, [1.5, -2.0], [2.0, 5.0]), [3.0, -10.0]);
        assert_eq!(floats(Pfacc, [1.0, 2.0], [3.0, 4.0]), [3.0, 7.0]);
        assert_eq!(floats(Pfnacc, [1.0, 2.0], [3.0, 5.0]), [-1.0, -2.0]);
        assert_eq!(floats(Pfpnacc, [1.0, 2.0], [3.0, 5.0]), [-1.0, 8.0]);
        // Overflow saturates, tiny results and denormal operands are zero.
        assert_eq!(floats(Pfmul, [f32::MAX, -f32::MAX], [2.0, 2.0]), [f32::MAX, -f32::MAX]);
        assert_eq!(floats(Pfmul, [f32::MIN_POSITIVE, 1.0], [0.5, 1e-40]), [0.0, 0.0]);
    }

    #[test]
    fn comparisons() {
        let ones = u32::MAX;
        let bits = |op, a: [f32; 2], b: [f32; 2]| run(op, a.map(f32::to_bits), b.map(f32::to_bits));
        assert_eq!(bits(Pfcmpge, [1.0, -1.0], [1.0, 0.0]), [ones, 0]);
        assert_eq!(bits(Pfcmpgt, [1.0, 2.0], [1.0, 0.0]), [0, ones]);
        assert_eq!(bits(Pfcmpeq, [0.0, 2.0], [-0.0, 0.0]), [ones, 0]);
        assert_eq!(bits(Pfmax, [-0.0, 3.0], [-5.0, 2.0]), [0, 3f32.to_bits()]);
        assert_eq!(bits(Pfmin, [-0.0, 3.0], [5.0, -2.0]), [0, (-2f32).to_bits()]);
    }

    #[test]
    fn conversions() {
        assert_eq!(
            floats(Pi2fd, [0.0; 2], [f32::from_bits(7), f32::from_bits(-3i32 as u32)]),
            [7.0, -3.0]
        );
        // More digits than fit are cut off.
        assert_eq!(run(Pi2fd, [0; 2], [0x7fff_ffff, 0x8000_0000]), [0x4eff_ffff, 0xcf00_0000]);
        assert_eq!(
            floats(Pi2fw, [0.0; 2], [f32::from_bits(0x5_fffe), f32::from_bits(9)]),
            [-2.0, 9.0]
        );
        let int = |op, v: [f32; 2]| run(op, [0; 2], v.map(f32::to_bits)).map(|v| v as i32);
        assert_eq!(int(Pf2id, [-1.9, 3e10]), [-1, i32::MAX]);
        assert_eq!(int(Pf2iw, [-40000.5, 1.9]), [-32768, 1]);
    }

    #[test]
    fn reciprocals() {
        // The manual's sequences: x0 = rcp(b), x1 = rcpit1(b, x0), rcpit2(x1, x0).
        for b in [1.0f32, 3.0, -7.5, 1e20, 0.1] {
            let x0 = floats(Pfrcp, [0.0; 2], [b, 9.0]);
            assert_eq!(x0, [1.0 / b; 2]);
            let x1 = floats(Pfrcpit1, [b; 2], x0);
            let x = floats(Pfrcpit2, x1, x0)[0];
            assert!((x.to_bits() as i32 - (1.0 / b).to_bits() as i32).abs() <= 1, "1 / {b}: {x}");
            // x0 = rsqrt(b), x1 = rsqit1(b, x0 * x0), rcpit2(x1, x0).
            let b = b.abs();
            let x0 = floats(Pfrsqrt, [0.0; 2], [b, 9.0]);
            let square = floats(Pfmul, x0, x0);
            let x1 = floats(Pfrsqit1, [b; 2], square);
            let x = floats(Pfrcpit2, x1, x0)[0];
            let root = (1.0 / (b as f64).sqrt()) as f32;
            assert!((x.to_bits() as i32 - root.to_bits() as i32).abs() <= 1, "rsqrt {b}: {x}");
        }
        assert_eq!(run(Pfrcp, [0; 2], [0, 0]), [LARGEST; 2]);
    }
}
