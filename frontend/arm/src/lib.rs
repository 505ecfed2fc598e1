//! The Arm guests. [`a64`] is AArch64; the 32-bit instruction sets get modules of their own beside it.
//!
//! A frontend turns guest code into IR and knows nothing of how the IR is run.
#![forbid(unsafe_code)]

pub mod a64;
