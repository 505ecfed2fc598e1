//! Floating point: scalar lift functions (one file per encoding group of the manual, C4.1.96), the float operations
//! that AdvSIMD shares with them ([`ops`]), and their helpers.
//!
//! In the usual mode (no flushing, no default NaN) single and double precision lift to IR float operations;
//! rounding mode and sticky flags are those of the engine's float environment. In other modes and for half
//! precision everything is a helper on software floats ([`helpers`]).

pub mod arith;
pub mod compare;
pub mod convert;
pub mod helpers;
pub mod ops;

pub use helpers::HELPERS;

/// The lift functions under their rows' names.
pub mod lift {
    pub use super::arith::*;
    pub use super::compare::*;
    pub use super::convert::*;
}
