//! System-level x86: what programs at CPL 3 do not see. The files are named after the chapters of the manual's volume
//! 3 (and its volume 1 for input and output).
//!
//! [`X86`] is the whole processor when it was made by [`X86::new_system`]; everything here is used then only. The
//! state is in the slots from [`crate::regs::SYSTEM`] on. Rows of [`CHAPTERS`] replace those of user mode.
//!
//! Invariants:
//! - [`crate::regs::CPL`] is 0 in real mode and 3 in virtual-8086 mode, and in protected mode the DPL of SS.
//! - Lifted accesses name the MMU index that the key gives ([`crate::key::Key::mmu`]); helpers use [`data_mmu`].
//!
//! Where we leave the manual:
//! - Code of 16 bits may run over the end of its 64 KiB.
//! - A near branch to a non-canonical address is #GP at the target, not at the branch.
//! - FSTENV and FSAVE have the protected-mode format in real mode, too.
//! - MONITOR and MWAIT do nothing, and models that are not asked for it do not announce them; RDPMC is always #GP, as there are no counters.

pub mod control;
pub mod debug;
pub mod event;
pub mod far;
pub mod fast_call;
pub mod gate;
pub mod io;
pub mod msr;
pub mod paging;
pub mod processor;
pub mod segment;
pub mod stack;
pub mod task;
pub mod transfer;
pub mod unit;

use crate::cpu::{CpuModel, Features};
use crate::decode::Row;
use crate::helpers::FIRST_PRIVILEGED;
use crate::key;
use crate::regs::{self, cell};
use tulk_base::CpuState;
use tulk_ir::HelperDef;

#[cfg(doc)]
use crate::X86;

/// MMU indexes: whose access it is.
pub mod mmu {
    /// At CPL 3.
    pub const USER: u8 = 0;
    /// At CPL 0 to 2, where user pages may be accessed: CR4.SMAP is clear or EFLAGS.AC set.
    pub const KERNEL: u8 = 1;
    /// At CPL 0 to 2, where user pages may not be accessed.
    pub const KERNEL_SMAP: u8 = 2;
    /// The processor's own, at any CPL: descriptor tables, task state segments, stacks of interrupts. With CR4.SMAP
    /// user pages may not be accessed whatever EFLAGS.AC is.
    pub const SYSTEM: u8 = 3;
    pub const COUNT: u8 = 4;
}

/// Bits of CR0.
pub mod cr0 {
    pub const PE: u64 = 1 << 0;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4.
pub mod cr4 {
    pub const VME: u64 = 1 << 0;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const LA57: u64 = 1 << 12;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
}

/// Bits of IA32_EFER.
pub mod efer {
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// Whether this is the state of a whole processor.
pub fn is_system(state: &CpuState) -> bool {
    state.get(cell(regs::SYSTEM)) as u32 != 0
}

/// The current privilege level.
pub fn cpl(state: &CpuState) -> u32 {
    state.get(cell(regs::CPL)) as u32 & 3
}

/// CR0.PE is set; virtual-8086 mode counts, too.
pub fn protected(state: &CpuState) -> bool {
    state.get(cell(regs::CR0)) & cr0::PE != 0
}

/// The processor is in virtual-8086 mode.
pub fn vm86(state: &CpuState) -> bool {
    protected(state) && state.get(cell(regs::EFLAGS)) as u32 & regs::eflags::VM != 0
}

/// IA-32e mode: 64-bit code or compatibility code.
pub fn long_mode(state: &CpuState) -> bool {
    state.get(cell(regs::EFER)) & efer::LMA != 0
}

/// The MMU index of data accesses of the present instruction, also for user mode.
pub fn data_mmu(state: &CpuState) -> u8 {
    if !is_system(state) || cpl(state) == 3 {
        return mmu::USER;
    }
    let enforced = state.get(cell(regs::CR4)) & cr4::SMAP != 0
        && state.get(cell(regs::EFLAGS)) as u32 & regs::eflags::AC == 0;
    if enforced { mmu::KERNEL_SMAP } else { mmu::KERNEL }
}

/// The CPU model of a processor in system mode.
pub fn model(state: &CpuState) -> CpuModel {
    let get = |slot| state.get(cell(slot));
    let low = get(regs::FEATURES[0]) as u128;
    let features = Features(low | (get(regs::FEATURES[1]) as u128) << 64);
    CpuModel { chip: get(regs::CHIP) as u32 as usize, features }
}

/// The chapters' tables of instructions.
pub const CHAPTERS: &[&[Row]] = &[control::ROWS, debug::ROWS, io::ROWS, msr::ROWS, transfer::ROWS];

const FIRST_CONTROL: u32 = FIRST_PRIVILEGED;
const FIRST_DEBUG: u32 = FIRST_CONTROL + control::HELPERS.len() as u32;
const FIRST_IO: u32 = FIRST_DEBUG + debug::HELPERS.len() as u32;
const FIRST_MSR: u32 = FIRST_IO + io::HELPERS.len() as u32;
const FIRST_UNIT: u32 = FIRST_MSR + msr::HELPERS.len() as u32;
const FIRST_TRANSFER: u32 = FIRST_UNIT + unit::HELPERS.len() as u32;
const COUNT: usize = (FIRST_TRANSFER - FIRST_PRIVILEGED) as usize + transfer::HELPERS.len();

/// The chapters' helpers, one table after another.
pub const HELPERS: &[HelperDef] = &crate::helpers::joined::<COUNT>(&[
    control::HELPERS,
    debug::HELPERS,
    io::HELPERS,
    msr::HELPERS,
    unit::HELPERS,
    transfer::HELPERS,
]);

const _: () = assert!(key::ALL == (1 << 44) - 1);
