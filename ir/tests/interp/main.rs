//! Tests of the interpreter.

mod ops;
mod random;
mod shape;
mod support;
