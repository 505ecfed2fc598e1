//! The host's floating-point control, which the reference meaning of float operations computes with: rounding mode
//! and sticky flags. Only for x86-64 hosts; on others the float tests say that they are skipped.

use tulk_ir::{FpFlags, Round};

/// Whether this host's control register is known here.
pub const KNOWN: bool = cfg!(target_arch = "x86_64");

/// All exceptions masked.
const DEFAULT: u32 = 0x1f80;

#[cfg(target_arch = "x86_64")]
fn read() -> u32 {
    let mut csr = 0u32;
    // SAFETY: STMXCSR stores four bytes to a local variable.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut csr, options(nostack)) };
    csr
}

#[cfg(target_arch = "x86_64")]
fn write(csr: u32) {
    // SAFETY: LDMXCSR loads four bytes from a local variable; exceptions stay masked and the caller's thread
    // does no other float arithmetic until `reset`.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &csr, options(nostack)) };
}

#[cfg(not(target_arch = "x86_64"))]
fn read() -> u32 {
    DEFAULT
}
#[cfg(not(target_arch = "x86_64"))]
fn write(_: u32) {}

/// Back to what Rust code expects.
pub fn reset() {
    write(DEFAULT);
}

pub fn flags() -> FpFlags {
    FpFlags(read() as u8 & 0x3f)
}
pub fn set_flags(flags: FpFlags) {
    write(read() & !0x3f | flags.0 as u32);
}

const ROUNDS: [Round; 4] = [Round::Nearest, Round::Down, Round::Up, Round::Zero];

pub fn round() -> Round {
    ROUNDS[(read() >> 13 & 3) as usize]
}
pub fn set_round(round: Round) {
    let code = ROUNDS.iter().position(|r| *r == round).expect("a mode of the host");
    write(read() & !(3 << 13) | (code as u32) << 13);
}
