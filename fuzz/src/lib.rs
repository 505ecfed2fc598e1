//! Fuzz targets: whatever reads bytes that somebody else made.
//!
//! A target takes any bytes and returns, or panics when tulk is wrong. `tests/seeded.rs` runs each of them on mutations of
//! its seeds, the same every time: a short while always, long in the soak. `fuzz TARGET FILE...` runs a target on
//! files, or on standard input, which is how AFL and honggfuzz start it.
#![forbid(unsafe_code)]

mod aarch64;
mod elf;
mod gdb;
mod ir;
mod lifted;
pub mod mutate;
mod x86;

/// One reader of foreign bytes.
pub struct Target {
    pub name: &'static str,
    /// Panics when tulk is wrong.
    pub run: fn(&[u8]),
    /// Good inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Which bytes of a seed of this length deserve to be changed.
    pub focus: fn(usize) -> usize,
}

pub const TARGETS: &[Target] = &[
    Target { name: "elf", run: elf::run, seeds: elf::seeds, focus: |len| len.min(512) },
    Target { name: "aarch64", run: aarch64::run, seeds: aarch64::seeds, focus: |len| len },
    Target { name: "x86", run: x86::run, seeds: x86::seeds, focus: |len| len },
    Target { name: "gdb", run: gdb::run, seeds: gdb::seeds, focus: |len| len },
    Target { name: "ir", run: ir::run, seeds: ir::seeds, focus: |len| len },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
