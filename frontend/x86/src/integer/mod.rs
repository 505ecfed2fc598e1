//! General-purpose instructions: a file for each section of volume 1, chapter 7 of the manual.

pub mod arithmetic;
pub mod bit;
pub mod control;
pub mod decimal;
pub mod flag;
pub mod logic;
pub mod shift;
pub mod string;
pub mod system;
pub mod transfer;

/// How many of [`crate::decode::CHAPTERS`] are this module's; they come first.
pub const CHAPTERS: usize = 10;
