//! Differential testing of the AArch64 frontend: random instruction sequences from the decode tables, run by
//! the outside oracle `qemu-aarch64` and by our interpreter.
//!
//! - [`generate`] makes sequences from the rows of the tables;
//! - [`program`] wraps many of them into one guest program that loads registers and memory for each, runs it,
//!   and stores everything back, faults included, and prints the lot;
//! - [`machine`] runs such a program on the interpreter;
//! - [`compare`] runs it on both and reports the shortest sequences on which they differ.
//!
//! A test using this: `compare::fuzz(&Plan { .. })`. The oracle is the program named by the environment variable
//! `TULK_QEMU_AARCH64`, else `qemu-aarch64`; where there is none the tests say so and pass. `TULK_FUZZ_SEED` and
//! `TULK_FUZZ_FACTOR` give other cases and more of them.
#![allow(dead_code)]

pub mod asm;
pub mod compare;
pub mod elf;
pub mod generate;
pub mod host_float;
pub mod machine;
pub mod program;

/// xorshift64*: small, repeatable.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn u32(&mut self) -> u32 {
        (self.u64() >> 32) as u32
    }
    /// Below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        ((self.u32() as u64 * n as u64) >> 32) as u32
    }
    /// True once in `n`.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u32) as usize]
    }
    /// Corner cases, small numbers and noise.
    pub fn interesting(&mut self) -> u64 {
        match self.below(8) {
            0 => *self.pick(&[0, 1, u64::MAX, i64::MAX as u64, i64::MIN as u64]),
            1 => *self.pick(&[0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000]),
            2 => self.u64() & 0xff,
            3 => (self.below(256) as i8 as i64) as u64,
            4 => 1 << self.below(64),
            5 => u64::MAX << self.below(64),
            _ => self.u64(),
        }
    }
}
