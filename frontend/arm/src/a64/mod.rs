//! AArch64 at user level (EL0), little-endian.
//!
//! [`decode`] holds the instruction tables, one file per chapter of the Arm Architecture Reference Manual
//! (DDI 0487, "the manual" everywhere in this module), and the files beside it hold the lift functions under
//! the rows' names. [`Lifter`] is what they write to. [`regs`] is the register layout, [`cpu`] the CPU models.
//!
//! Choices where the manual leaves one, or where we leave the manual:
//! - Pointer authentication is not shown by any model: the hint-space forms are no operations, as on a CPU
//!   without the feature, and the others are undefined. BTI likewise.
//! - Nothing shows LSE2, so exclusives, acquire/release and LSE accesses demand natural alignment; all other
//!   accesses take any address.
//! - A misaligned SP as base faults (SCTLR_EL1.SA0, which Linux sets). What is tested is not each access but what could
//!   misalign SP, see [`KEY_SP_CHECKED`].
//! - The exclusive monitor is the address and value of the load; a store-exclusive is a compare-and-swap. So a
//!   store that restores the old value between the two goes unseen (ABA), like in every user-level
//!   translator. The monitor is lost at CLREX, at every store-exclusive, at SVC; whoever delivers a signal
//!   resets [`regs::EXCL_ADDR`] to all ones.
//! - Tags in data addresses are ignored (see [`KEY_TAGGED`]); a tag in a branch target is not removed.
//! - CONSTRAINED UNPREDICTABLE: a load whose base is written back and also loaded keeps the loaded value; a
//!   store with the same overlap stores the old value; a pair loading one register twice keeps the second.

pub mod atomic;
pub mod branch;
pub mod cpu;
pub mod crypto;
pub mod debug;
pub mod decode;
pub mod fp;
pub mod fpstate;
pub mod helpers;
pub mod integer;
pub mod lifter;
pub mod memory;
pub mod regs;
pub mod simd;
pub mod system;
pub mod vector;

pub use cpu::{CpuModel, Feature, Features};
pub use lifter::Lifter;

use decode::Decoder;
use tulk_base::{AccessKind, CpuState, GuestVa, MemFault};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::{Builder, FpEnv, FpRule, HelperDef, RegLayout, Unit};

/// Key flag: FPCR asks for something that host floats do not do (flush to zero, default NaN, alternative half
/// precision), so float instructions lift to helper calls.
pub const KEY_FP_SPECIAL: u64 = 1;

/// Key flag: data addresses may carry a tag in their top byte, which Linux has the CPU ignore (TBI). Removing
/// it costs an operation at every access, so that begins with the first access that faults for
/// its tag ([`GuestIsa::retry_fault`]).
pub const KEY_TAGGED: u64 = 2;

/// Key flag: SP is or was misaligned, so accesses with it as their base test it first (the manual's CheckSPAlignment).
/// Code without this flag begins with an aligned SP and keeps it so: nearly all that writes SP adds a multiple of 16, and
/// behind the rest (`mov sp, x29`) the block is left if SP is not aligned any more.
pub const KEY_SP_CHECKED: u64 = 4;

/// The AArch64 guest for one CPU model.
pub struct Aarch64 {
    model: CpuModel,
    layout: RegLayout,
    decoder: Decoder,
}

impl Aarch64 {
    pub fn new(model: CpuModel) -> Aarch64 {
        let decoder = Decoder::new(model.features);
        Aarch64 { model, layout: regs::layout(), decoder }
    }

    pub fn model(&self) -> &CpuModel {
        &self.model
    }

    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The registers of a new process: zero, no exclusive monitor.
    pub fn reset(&self, state: &mut CpuState) {
        for slot in self.layout.slots() {
            for cell in slot.cell..slot.cell + slot.ty.cells() {
                state.set(cell, 0);
            }
        }
        state.set(regs::cell(regs::EXCL_ADDR), u64::MAX);
    }
}

/// Instructions fetched at a time.
const WINDOW: usize = 32;

impl GuestIsa for Aarch64 {
    fn name(&self) -> &'static str {
        "aarch64"
    }

    fn layout(&self) -> &RegLayout {
        &self.layout
    }

    fn debug_registers(&self) -> tulk_frontend::debug::Registers {
        debug::registers(&self.layout)
    }

    fn watches_before_access(&self) -> bool {
        true
    }

    fn helpers(&self) -> &'static [HelperDef] {
        &helpers::ALL
    }

    fn fp_rule(&self) -> FpRule {
        FpRule::Arm
    }

    fn tb_key(&self, state: &CpuState) -> TbKey {
        let mut flags = fpstate::key_flags(state.get(regs::cell(regs::FPCR)) as u32);
        if state.get(regs::cell(regs::TAGGED)) != 0 {
            flags |= KEY_TAGGED;
        }
        let sp = state.get(regs::cell(regs::SP));
        if sp & 15 | state.get(regs::cell(regs::SP_CHECKED)) != 0 {
            flags |= KEY_SP_CHECKED;
        }
        TbKey { pc: GuestVa(state.pc()), flags }
    }

    fn lift(&self, key: TbKey, code: &mut dyn CodeReader, limits: LiftLimits, unit: &mut Unit) {
        unit.reset(key.pc.0, key.flags, FpRule::Arm);
        let mut window = [0u8; 4 * WINDOW];
        let mut have = code.fetch(key.pc, &mut window) / 4;
        if key.pc.is_aligned(4) && have == 0 {
            return;
        }
        let mut l = Lifter::new(
            Builder::new(unit, &self.layout, &helpers::ALL),
            &self.model,
            key.pc.0,
            key.flags,
        );
        if !key.pc.is_aligned(4) {
            l.insn(key.pc.0, 4);
            l.call(helpers::PC_ALIGNMENT_FAULT, &[], 0);
            l.undefined();
        }
        let mut next = 0;
        while !l.ended() {
            if next == have {
                have = code.fetch(GuestVa(l.pc), &mut window) / 4;
                next = 0;
            }
            let full = l.unit.guest_insns >= limits.max_insns.max(1);
            let past = l.unit.guest_insns > 0 && l.pc >= limits.end.0;
            if have == 0 || full || past {
                let pc = l.pc;
                l.exit_to(pc);
                break;
            }
            let bytes = &window[4 * next..4 * next + 4];
            let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            next += 1;
            let pc = l.pc;
            l.insn(pc, 4);
            if pc == key.pc.0 {
                l.note_sp_checked();
            }
            match self.decoder.decode(word) {
                Some(row) => (row.lift)(&mut l, decode::Insn(word)),
                None => l.undefined(),
            }
            l.leave_if_sp_misaligned();
            l.pc = l.pc.wrapping_add(4);
        }
        let len = l.pc.wrapping_sub(key.pc.0);
        l.finish();
        unit.len = if key.pc.is_aligned(4) { len as u32 } else { 4 };
    }

    fn load_fp(&self, state: &CpuState, env: &mut dyn FpEnv) {
        fpstate::load(state, env);
    }

    fn save_fp(&self, state: &mut CpuState, env: &mut dyn FpEnv) {
        fpstate::save(state, env);
    }

    fn retry_fault(&self, state: &mut CpuState, fault: &MemFault) -> bool {
        if fault.kind == AccessKind::Exec {
            // A branch drops the tag of its target (the manual's AArch64.BranchAddr): here once nothing is found there.
            let plain = ((state.pc() as i64) << 8 >> 8) as u64;
            let tagged = plain != state.pc();
            state.set_pc(plain);
            return tagged;
        }
        let tagged = regs::cell(regs::TAGGED);
        let first = state.get(tagged) == 0 && fault.va.0 >> 56 != 0;
        if first {
            state.set(tagged, 1);
        }
        first
    }

    #[cfg(feature = "disasm")]
    fn disassemble(&self, key: TbKey, bytes: &[u8]) -> Option<(String, usize)> {
        use capstone::arch::{BuildsCapstone, arm64::ArchMode};
        thread_local! {
            static CAPSTONE: Option<capstone::Capstone> =
                capstone::Capstone::new().arm64().mode(ArchMode::Arm).build().ok();
        }
        CAPSTONE.with(|cs| {
            let insns = cs.as_ref()?.disasm_count(bytes.get(..4)?, key.pc.0, 1).ok()?;
            let insn = insns.first()?;
            Some((format!("{} {}", insn.mnemonic()?, insn.op_str()?).trim_end().to_owned(), 4))
        })
    }

    #[cfg(not(feature = "disasm"))]
    fn disassemble(&self, _key: TbKey, bytes: &[u8]) -> Option<(String, usize)> {
        let word = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        self.decoder.decode(word).map(|row| (row.name.to_owned(), 4))
    }
}
