//! Tier 0: the interpreter. It runs everything that is cold, and it is the reference that the JIT is compared with.
//!
//! - [`Program::new`] turns a [`crate::Unit`] into a [`Program`]: 16-byte steps ([`code`]) whose operands are cells of
//!   the CPU state, so that guest registers and temporaries are named alike and most copies disappear.
//! - [`run()`] executes a program on a CPU state.
//! - [`eval`] defines what every pure operation means; `run` uses the same functions on its fast paths, and
//!   generated code calls [`eval::eval`] as its universal slow path.

mod analysis;
pub mod code;
pub mod eval;
mod float;
mod int;
mod program;
mod run;
mod translate;
mod vector;

pub use program::{ExitInfo, Program};
pub use run::{Chain, Outcome, run, run_chained, step};
pub use translate::Scratch;
