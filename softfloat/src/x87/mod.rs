//! What only the x87 unit does: packed decimal, constants, transcendental functions (Intel SDM vol. 1, 8.3).
//!
//! The transcendental functions are evaluated with 128-bit significands and rounded once to 64 bits, so they lie within
//! 0.51 units in the last place of the mathematical function; processors promise less than one (SDM vol. 1, 8.3.10),
//! and differ from each other. Precision control does not apply to any instruction here.

mod decimal;
mod log;
mod trig;
mod wide;

pub use decimal::{x87_load_bcd, x87_store_bcd};
pub use log::{x87_exp2_minus_1, x87_log2, x87_log2_plus_1};
pub use trig::{x87_atan, x87_cos, x87_sin, x87_sincos, x87_tan};

use crate::env::Env;
use crate::format::{F80, Format};
use crate::round::round_with;
use wide::{LN2, LOG2_10, LOG2_E, LOG10_2, PI, Wide};

/// The constants that instructions load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum X87Constant {
    /// FLD1
    One,
    /// FLDL2T
    Log2Of10,
    /// FLDL2E
    Log2OfE,
    /// FLDPI
    Pi,
    /// FLDLG2
    Log10Of2,
    /// FLDLN2
    LnOf2,
    /// FLDZ
    Zero,
}

/// A constant rounded as the rounding control says (Intel SDM vol. 2, FLDPI and relatives). Raises nothing.
pub fn x87_constant(env: &Env, constant: X87Constant) -> u128 {
    let value = match constant {
        X87Constant::One => Wide::finite(false, 0, 1 << 127),
        X87Constant::Log2Of10 => LOG2_10,
        X87Constant::Log2OfE => LOG2_E,
        X87Constant::Pi => PI,
        X87Constant::Log10Of2 => LOG10_2,
        X87Constant::LnOf2 => LN2,
        X87Constant::Zero => Wide::zero(false),
    };
    finish(&mut env.clone(), value)
}

/// Rounds to the full 64 bits.
fn finish(env: &mut Env, value: Wide) -> u128 {
    round_with::<F80>(env, value, F80::PREC, false)
}
