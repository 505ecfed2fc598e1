//! tulk's intermediate representation: what a guest instruction means, without naming the guest.
//!
//! [`op`] holds the one table of operations. A [`Unit`] is the IR of one translation block; frontends write it
//! through [`Builder`], [`passes`] improve it, [`interp`] runs it and `backend/codegen` compiles it.
//! `docs/ir.md` explains the language.
#![forbid(unsafe_code)]

pub mod builder;
pub mod filetest;
pub mod helper;
pub mod interp;
pub mod layout;
pub mod op;
pub mod parser;
pub mod passes;
pub mod printer;
pub mod types;
pub mod unit;
pub mod verifier;

pub use builder::Builder;
pub use helper::{
    Access, DirectFn, FpEnv, Halves, HelperCx, HelperDef, HelperEnv, HelperFn, Machine,
};
pub use layout::{RegLayout, Slot, SlotDef};
pub use op::Op;
pub use types::{
    FenceKind, FloatCc, FpFlags, FpRule, IntCc, MinKind, NzcvCond, Round, Shape, Type,
};
pub use unit::{Block, ExitKind, Inst, Unit, Value};
