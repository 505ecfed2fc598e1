//! The dot product of FEAT_BF16 (Arm ARM, BFDotAdd, BFAdd, BFMul, BFRound; FPCR.EBF clear).
//!
//! BFDOT and BFMMLA ignore FPCR and raise nothing: denormals are zero coming and going, rounding is to odd, overflow is
//! an infinity, a NaN result is the default NaN. BFCVT is `convert::<F32, Bf16>`; BFMLALB and BFMLALT are an ordinary
//! `fma::<F32>` on widened operands.

use crate::add::add_unpacked;
use crate::env::{Env, NanRule, Rounding};
use crate::format::{F32, Format};
use crate::mul::mul_unpacked;
use crate::round::round;
use crate::unpack::{Unpacked, unpack};

/// `addend + (a[0] * b[0] + a[1] * b[1])`, each operation rounded by itself.
pub fn bf16_dot(addend: u32, a: [u16; 2], b: [u16; 2]) -> u32 {
    let mut env = Env::new(NanRule::Arm);
    env.rounding = Rounding::ToOdd;
    env.flush_inputs = true;
    env.flush_outputs = true;
    env.default_nan = true;
    let env = &mut env;

    let widen = |env: &mut Env, x: u16| unpack::<F32>(env, u32::from(x) << 16);
    let mut product = |i: usize| {
        let (x, y) = (widen(env, a[i]), widen(env, b[i]));
        let exact = mul_unpacked(env, x, y);
        rounded(env, exact)
    };
    let (low, high) = (product(0), product(1));
    let sum = add(env, low, high);
    add(env, addend, sum)
}

fn add(env: &mut Env, a: u32, b: u32) -> u32 {
    let (a, b) = (unpack::<F32>(env, a), unpack::<F32>(env, b));
    let exact = add_unpacked(env, a, b);
    rounded(env, exact)
}

/// BFRound: as rounding to odd, but what is too large becomes an infinity.
fn rounded(env: &mut Env, value: Unpacked<u64>) -> u32 {
    let too_large = value.is_finite() && value.exp > F32::BIAS;
    round::<F32>(env, if too_large { Unpacked::infinite(value.sign) } else { value })
}
