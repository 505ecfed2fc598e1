//! Guest-exact floating point in integers: every result bit and every exception flag as the guest's processor gives
//! them, whatever the host's floating-point unit does.
//!
//! All functions are generic over a [`Format`] and work on raw bits: `add::<F64>(&mut env, a, b)`. The [`Env`] says
//! what the guest's control register selects and accumulates exceptions. Every operation runs the same way: operands
//! are taken apart (`unpack.rs`), the exact result is formed with a sticky lowest bit, and one rounding (`round.rs`)
//! makes the number. What IEEE 754 leaves to the processor is data in `Env`.
//!
//! Not modelled: Arm's FEAT_AFP (FPCR.AH, FIZ, NEP) and FPCR.EBF; the non-fused reciprocal steps of A32 (compose them
//! from `mul`, `sub` and `scalbn`); PowerPC's estimates, which are each processor's own; SPARC's non-standard mode.
//!
//! Judges: the host's SSE and x87 units (`tests/host.rs`, `tests/x87.rs`), `rustc_apfloat` for binary128
//! (`tests/quad.rs`), an AArch64 program under `qemu-aarch64` (`tests/arm.rs`), and the manuals' tables for the rest
//! (`tests/rules.rs`).
#![forbid(unsafe_code)]

mod add;
mod bfloat;
mod compare;
mod convert;
mod div;
mod env;
mod estimate;
mod format;
mod integer;
mod mul;
mod nan;
mod rem;
mod round;
mod scale;
mod unpack;
mod word;
mod x87;

pub use add::{add, add_into, sub, sub_into};
pub use bfloat::bf16_dot;
pub use compare::{FpClass, MinMax, classify, compare, max, min};
pub use convert::convert;
pub use div::{div, div_into, sqrt, sqrt_into};
pub use env::{DenormalFlag, Env, Flags, NanRule, Precision, Rounding, Tininess};
pub use estimate::{
    recip_estimate, recip_estimate_u32, recip_exponent, recip_sqrt_estimate,
    recip_sqrt_estimate_u32, recip_sqrt_step, recip_step,
};
pub use format::{Bf16, F16, F16Alt, F32, F64, F80, F128, Format, f80_from_parts, f80_parts};
pub use integer::{
    IntRule, IntType, from_fixed_i64, from_fixed_u64, from_i64, from_u64, invalid_result,
    round_to_integral, round_to_integral_within, to_fixed, to_i32_javascript, to_int,
};
pub use mul::{Negate, fma, fma_into, fma_with, mul, mul_extended, mul_into};
pub use nan::default_nan;
pub use rem::{Quotient, remainder, x87_partial_remainder};
pub use scale::{exponent, scalbn, significand, x87_scale};
pub use word::Word;
pub use x87::{
    X87Constant, x87_atan, x87_constant, x87_cos, x87_exp2_minus_1, x87_load_bcd, x87_log2,
    x87_log2_plus_1, x87_sin, x87_sincos, x87_store_bcd, x87_tan,
};
