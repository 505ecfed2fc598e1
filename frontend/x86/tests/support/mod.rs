//! The host processor as judge: random instruction sequences run natively in a child process and in the
//! interpreter, from the same registers and memory, and everything that comes out is compared.
//!
//! - [`case`]: one sequence with its registers, and where things lie in memory;
//! - [`native`]: runs cases on the host;
//! - [`world`]: runs them on our side, [`engine`] compiled;
//! - [`generate`]: random operands for an instruction code, [`vectors`] of vector instructions;
//! - [`fpu`]: random x87 states and operands;
//! - [`compare`]: what must agree, and how a difference is shown.
#![allow(dead_code)]

pub mod case;
pub mod compare;
pub mod engine;
pub mod fpu;
pub mod generate;
pub mod native;
pub mod rng;
pub mod vectors;
pub mod world;
