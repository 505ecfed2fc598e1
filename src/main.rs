//! The `tulk` command.
#![forbid(unsafe_code)]

fn main() {}
