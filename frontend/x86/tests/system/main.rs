//! System mode, instruction by instruction, on a processor with RAM and a board that records what it is asked. Expected values are
//! the manual's: volume 2, the instructions' pseudocode; volume 3, chapters 2 to 10.

mod control;
mod events;
mod far;
mod host;
mod interrupts;
mod long_mode;
mod machine;
mod paging;
#[path = "../support/rng.rs"]
#[allow(dead_code)] // the tests of user mode draw more
mod rng;
mod segments;
mod tables;
mod tasks;
mod vm86;
