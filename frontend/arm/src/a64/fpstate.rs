//! FPCR and FPSR: what they say to the host's float unit and to the translation key.
//!
//! While guest code runs, the sticky exceptions accumulate in the float environment and the FPSR slot is behind;
//! the two are or-ed when FPSR is read. The environment's denormal flag is x86's and not Arm's IDC, so IDC
//! lives in the slot alone: helpers that raise it write the slot. QC accumulates in a slot of its own,
//! [`regs::QC`].

use super::{KEY_FP_SPECIAL, regs};
use tulk_base::CpuState;
use tulk_ir::{FpEnv, FpFlags, Round};

pub mod fpcr {
    /// Alternative half precision.
    pub const AHP: u32 = 1 << 26;
    /// Default NaN.
    pub const DN: u32 = 1 << 25;
    /// Flush single and double denormals to zero.
    pub const FZ: u32 = 1 << 24;
    pub const RMODE_SHIFT: u32 = 22;
    /// Flush half-precision denormals to zero; only with FP16.
    pub const FZ16: u32 = 1 << 19;
    /// Stride and Len of AArch32, which AArch64 ignores: plain storage.
    const VECTOR: u32 = 0x0037_0000;
    /// Bits that a write keeps. Trap enables are RAZ/WI as on the CPUs that we model.
    pub const WRITABLE: u32 = AHP | DN | FZ | 3 << RMODE_SHIFT | VECTOR;
}

pub mod fpsr {
    /// Cumulative saturation.
    pub const QC: u32 = 1 << 27;
    /// Input denormal.
    pub const IDC: u32 = 1 << 7;
    pub const IXC: u32 = 1 << 4;
    pub const UFC: u32 = 1 << 3;
    pub const OFC: u32 = 1 << 2;
    pub const DZC: u32 = 1 << 1;
    pub const IOC: u32 = 1 << 0;
    /// Condition flags of AArch32, which the CPUs that we model have: plain storage here.
    const NZCV: u32 = 15 << 28;
    /// Bits that a write keeps.
    pub const WRITABLE: u32 = NZCV | QC | IDC | IXC | UFC | OFC | DZC | IOC;
}

const PAIRS: [(u32, u8); 5] = [
    (fpsr::IOC, FpFlags::INVALID),
    (fpsr::DZC, FpFlags::DIV_ZERO),
    (fpsr::OFC, FpFlags::OVERFLOW),
    (fpsr::UFC, FpFlags::UNDERFLOW),
    (fpsr::IXC, FpFlags::INEXACT),
];

/// FPSR's IEEE exceptions as neutral flags.
pub fn flags_of(fpsr: u32) -> FpFlags {
    FpFlags(PAIRS.iter().filter(|p| fpsr & p.0 != 0).fold(0, |all, p| all | p.1))
}

/// Neutral flags as FPSR bits.
pub fn fpsr_of(flags: FpFlags) -> u32 {
    PAIRS.iter().filter(|p| flags.0 & p.1 != 0).fold(0, |all, p| all | p.0)
}

/// The rounding mode that FPCR asks for.
pub fn round_of(fpcr: u32) -> Round {
    [Round::Nearest, Round::Up, Round::Down, Round::Zero][(fpcr >> fpcr::RMODE_SHIFT & 3) as usize]
}

/// The translation key's flags under this FPCR.
pub fn key_flags(fpcr: u32) -> u64 {
    let special = fpcr & (fpcr::AHP | fpcr::DN | fpcr::FZ | fpcr::FZ16) != 0;
    if special { KEY_FP_SPECIAL } else { 0 }
}

/// Prepares the float environment. Flushing is never left to the host: its rules are not Arm's.
pub fn load(state: &CpuState, env: &mut dyn FpEnv) {
    env.set_fp_mode(round_of(state.get(regs::cell(regs::FPCR)) as u32), false, false);
    env.set_fp_flags(flags_of(state.get(regs::cell(regs::FPSR)) as u32));
}

/// FPSR as the guest reads it: the slot, the environment and QC together.
pub fn read_fpsr(state: &CpuState, env: &mut dyn FpEnv) -> u32 {
    let slot = state.get(regs::cell(regs::FPSR)) as u32;
    let qc = if state.get128(regs::cell(regs::QC)) != 0 { fpsr::QC } else { 0 };
    slot | fpsr_of(env.fp_flags()) | qc
}

/// Adds what the environment and QC accumulated to the FPSR slot.
pub fn save(state: &mut CpuState, env: &mut dyn FpEnv) {
    let value = read_fpsr(state, env);
    state.set(regs::cell(regs::FPSR), value as u64);
    state.set128(regs::cell(regs::QC), 0);
}
