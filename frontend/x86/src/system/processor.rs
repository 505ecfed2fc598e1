//! [`SystemIsa`] for [`X86`]: the processor as a whole, and its state behind power-up, reset and INIT (the manual,
//! volume 3, table 10-1).
//!
//! A processor that waits for its startup event has [`regs::WAIT_FOR_STARTUP`] set. It cannot fetch anything then
//! ([`paging::walk`]), and delivery of that fault ends in `Stop::Halt`.
//!
//! An NMI that comes while another is in progress waits in [`regs::NMI_PENDING`]; IRET then ends in the trap
//! [`PENDING_NMI`].

use super::{cr0, debug, event, mmu, paging};
use crate::X86;
use crate::key::{self, Key};
use crate::regs::{self, cell, eflags};
use crate::segment::attr;
use crate::{cpuid, fpstate};
use tulk_base::{AccessKind, CpuEvent, CpuState, GuestVa, Mapping, MemFault, Trap};
use tulk_frontend::{Stop, SystemIsa};
use tulk_ir::{HelperCx, Machine};

/// IRET ended the NMI in progress, and the next one waits. No exception of the processor.
pub const PENDING_NMI: Trap = Trap::Guest { vector: 0x102, code: 0 };

/// The end of an IRET that goes on at linear `pc`.
///
/// # Errors
/// [`PENDING_NMI`] if there is one; everything is done, and the pc cell is `pc`.
pub fn take_pending_nmi(cx: &mut HelperCx<'_>, pc: u64) -> Result<(), Trap> {
    if cx.state.get(cell(regs::NMI_PENDING)) as u32 == 0 {
        return Ok(());
    }
    cx.state.set_pc(pc);
    Err(PENDING_NMI)
}

impl SystemIsa for X86 {
    fn mmu_modes(&self) -> u8 {
        mmu::COUNT
    }

    fn code_mmu(&self, flags: u64) -> u8 {
        Key::new(flags).mmu()
    }

    fn key_mask(&self) -> u64 {
        key::ALL
    }

    fn walk(
        &self,
        state: &CpuState,
        machine: &mut dyn Machine,
        va: GuestVa,
        kind: AccessKind,
        mmu: u8,
    ) -> Result<Mapping, MemFault> {
        paging::walk(&self.model, state, machine, va, kind, mmu)
    }

    fn deliver(&self, cx: &mut HelperCx<'_>, trap: Trap) -> Result<(), Stop> {
        if cx.state.get(cell(regs::WAIT_FOR_STARTUP)) as u32 != 0 {
            return Err(Stop::Halt { interrupts: false });
        }
        if trap == PENDING_NMI {
            return self.nmi(cx);
        }
        event::deliver(cx, self, trap)
    }

    fn take_event(&self, cx: &mut HelperCx<'_>) -> Result<bool, Stop> {
        let word = |cx: &HelperCx<'_>, slot| cx.state.get(cell(slot)) as u32;
        // No event is taken in a shadow; the next instruction ends it.
        if word(cx, regs::SHADOW) != 0 {
            return Ok(false);
        }
        if word(cx, regs::NMI_PENDING) != 0 && word(cx, regs::NMI_BLOCKED) == 0 {
            return self.nmi(cx).map(|()| true);
        }
        let waits = word(cx, regs::WAIT_FOR_STARTUP) != 0;
        let enabled = !waits && self.interrupts_enabled(cx.state);
        let Some(machine) = cx.env.machine() else { return Ok(false) };
        let cpu = machine.cpu();
        match machine.board().take_event(cpu, enabled) {
            None if waits => Err(Stop::Halt { interrupts: false }),
            None => Ok(false),
            Some(CpuEvent::Interrupt(vector)) => {
                event::interrupt(cx, self, vector, event::Kind::External)?;
                Ok(true)
            }
            // Kept while another is in progress; lost in front of a startup, as INIT clears it.
            Some(CpuEvent::Nmi) if waits => Err(Stop::Halt { interrupts: false }),
            Some(CpuEvent::Nmi) if word(cx, regs::NMI_BLOCKED) != 0 => {
                cx.state.set(cell(regs::NMI_PENDING), 1);
                Ok(false)
            }
            Some(CpuEvent::Nmi) => self.nmi(cx).map(|()| true),
            Some(CpuEvent::Init) => {
                self.init_processor(cx.state, cpu);
                if let Some(machine) = cx.env.machine() {
                    machine.flush_tlb(tulk_base::TlbFlush::All);
                    machine.switch_space(0);
                }
                match word(cx, regs::WAIT_FOR_STARTUP) {
                    0 => Ok(true),
                    _ => Err(Stop::Halt { interrupts: false }),
                }
            }
            Some(CpuEvent::Startup(page)) => {
                if waits {
                    real_segment(cx.state, regs::CS, (page as u16) << 8, (page as u64) << 12);
                    cx.state.set_pc((page as u64) << 12);
                    cx.state.set(cell(regs::WAIT_FOR_STARTUP), 0);
                }
                Ok(waits)
            }
        }
    }

    fn interrupts_enabled(&self, state: &CpuState) -> bool {
        state.get(cell(regs::EFLAGS)) as u32 & eflags::IF != 0
            && state.get(cell(regs::SHADOW)) as u32 == 0
            && state.get(cell(regs::WAIT_FOR_STARTUP)) as u32 == 0
    }

    fn note_waiting(&self, state: &mut CpuState, waits: bool) {
        state.set(cell(regs::EVENT_WAITS), waits as u64);
    }

    fn reset_processor(&self, state: &mut CpuState, cpu: u32) {
        for slot in self.layout.slots() {
            for cell in slot.cell..slot.cell + slot.ty.cells() {
                state.set(cell, 0);
            }
        }
        let features = self.model.features.0;
        for (slot, v) in [
            (regs::SYSTEM, 1),
            (regs::CHIP, self.model.chip as u64),
            (regs::FEATURES[0], features as u64),
            (regs::FEATURES[1], (features >> 64) as u64),
            (regs::PROCESSORS, self.processors as u64),
            (regs::TSC_AUX, 0),
            (regs::CR0, cr0::CD | cr0::NW | cr0::ET),
            // All registers hold zero and are in use, where FNINIT leaves them empty.
            (regs::FCW, 0x40),
            (regs::FTAG, 0xff),
            (regs::MXCSR, fpstate::DEFAULT as u64),
            (regs::XCR0, cpuid::XCR0_X87),
            (regs::PAT, 0x0007_0406_0007_0406),
            // Fast strings, and without performance monitoring: no BTS, no PEBS.
            (regs::MISC_ENABLE, 1 | 1 << 11 | 1 << 12),
            // Locked, without VMX.
            (regs::FEATURE_CONTROL, 1),
            (regs::BIOS_SIGN, super::msr::MICROCODE),
        ] {
            state.set(cell(slot), v);
        }
        self.init_processor(state, cpu);
    }
}

impl X86 {
    fn nmi(&self, cx: &mut HelperCx<'_>) -> Result<(), Stop> {
        cx.state.set(cell(regs::NMI_PENDING), 0);
        event::interrupt(cx, self, 2, event::Kind::Nmi)
    }

    /// The state behind INIT: the float units, the model-specific registers and the cache mode stay.
    pub fn init_processor(&self, state: &mut CpuState, cpu: u32) {
        let caches = state.get(cell(regs::CR0)) & (cr0::CD | cr0::NW);
        for slot in regs::GPR.into_iter().chain(regs::DR).chain(regs::PDPTE) {
            state.set(cell(slot), 0);
        }
        regs::set_eflags(state, 0);
        for seg in [regs::ES, regs::SS, regs::DS, regs::FS, regs::GS] {
            real_segment(state, seg, 0, 0);
        }
        real_segment(state, regs::CS, 0xf000, 0xffff_0000);
        state.set_pc(0xffff_fff0);
        let signature = cpuid::signature(self.model.chip) as u64;
        for (slot, v) in [
            (regs::RDX, signature),
            (regs::CPL, 0),
            (regs::SHADOW, 0),
            (regs::PENDING_DB, 0),
            (regs::NMI_BLOCKED, 0),
            (regs::NMI_PENDING, 0),
            (regs::WAIT_FOR_STARTUP, (cpu != 0) as u64),
            (regs::CR0, caches | cr0::ET),
            (regs::CR2, 0),
            (regs::CR3, 0),
            (regs::CR4, 0),
            (regs::EFER, 0),
            (regs::GDTR_BASE, 0),
            (regs::GDTR_LIMIT, 0xffff),
            (regs::IDTR_BASE, 0),
            (regs::IDTR_LIMIT, 0xffff),
            (regs::LDTR, 0),
            (regs::LDTR_BASE, 0),
            (regs::LDTR_LIMIT, 0xffff),
            (regs::LDTR_ATTR, (attr::P | 2) as u64),
            (regs::TR, 0),
            (regs::TR_BASE, 0),
            (regs::TR_LIMIT, 0xffff),
            // A busy TSS, as processors have it.
            (regs::TR_ATTR, (attr::P | 11) as u64),
            (regs::DR[6], debug::DR6_RESET),
            (regs::DR[7], debug::DR7_RESET),
            (regs::PKRU, 0),
        ] {
            state.set(cell(slot), v);
        }
    }
}

/// A segment register as real mode has it behind a reset: 64 KiB, readable, writable, accessed.
fn real_segment(state: &mut CpuState, seg: usize, selector: u16, base: u64) {
    let rights = attr::P | attr::S | attr::RW | attr::ACCESSED;
    state.set(cell(regs::SEG[seg]), selector as u64);
    state.set(cell(regs::SEG_BASE[seg]), base);
    state.set(cell(regs::SEG_LIMIT[seg]), 0xffff);
    state.set(cell(regs::SEG_ATTR[seg]), rights as u64);
}
