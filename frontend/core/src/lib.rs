//! What a guest is to the engine: [`GuestIsa`]. Frontends implement it; the engine knows nothing else of them.
#![forbid(unsafe_code)]

pub mod debug;
mod system;

pub use system::{Stop, SystemIsa};
pub use tulk_base as base;
pub use tulk_ir as ir;

use tulk_base::{CpuState, GuestVa, MemFault};
use tulk_ir::{FpRule, HelperDef, RegLayout, Slot, Unit};

/// What identifies a translation: the same bytes at the same pc in another mode are another block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct TbKey {
    pub pc: GuestVa,
    /// Mode bits that the frontend chooses: execution state, floating-point mode, operand size.
    pub flags: u64,
}

/// Reads guest code for the lifter.
pub trait CodeReader {
    /// Copies up to `out.len()` bytes of executable guest memory at `va`; returns how many could be read (0
    /// when the first byte is not executable or not mapped).
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize;
}

/// Bounds for one translation block.
#[derive(Clone, Copy, Debug)]
pub struct LiftLimits {
    /// Most guest instructions; [`LiftLimits::STEP`] for one.
    pub max_insns: u32,
    /// A block must not continue past this address (exclusive), so that it can be stopped for a breakpoint
    /// or a page end; an instruction that starts before it may extend over it.
    pub end: GuestVa,
}

impl LiftLimits {
    /// In `max_insns`: one instruction that is stepped over, of which a repeated one does a single iteration.
    pub const STEP: u32 = 0;
}

/// One guest architecture, configured for a CPU model. Shared by all threads.
pub trait GuestIsa: Send + Sync {
    /// The architecture's name as users write it: `aarch64`, `x86_64`.
    fn name(&self) -> &'static str;

    /// Registers. The slots' cells never change.
    fn layout(&self) -> &RegLayout;

    /// The helper table; `Op::Call` numbers its rows.
    fn helpers(&self) -> &'static [HelperDef];

    fn fp_rule(&self) -> FpRule;

    /// The key of the block that the state would run next.
    fn tb_key(&self, state: &CpuState) -> TbKey;

    /// Lifts the block at `key` into `unit` (which this resets): at least one instruction, up to a branch or
    /// the limits. When not even the first byte can be fetched the unit is one `trap` that raises the fetch
    /// fault: frontends express it with a helper or by leaving `unit.len` 0, which the engine reports as a
    /// `Trap::Mem` of kind `Exec` at `key.pc`. An undefined instruction lifts to an `illegal` trap; instructions
    /// before it run first.
    fn lift(&self, key: TbKey, code: &mut dyn CodeReader, limits: LiftLimits, unit: &mut Unit);

    /// [`GuestIsa::lift`] where some registers are known to hold a constant at the block's entry, so that the
    /// translation may depend on them (x86: which operation set the flags). The caller sees to it that the unit
    /// runs only when that is so.
    fn lift_with(
        &self,
        key: TbKey,
        code: &mut dyn CodeReader,
        limits: LiftLimits,
        known: &[(Slot, u64)],
        unit: &mut Unit,
    ) {
        let _ = known;
        self.lift(key, code, limits, unit);
    }

    /// The registers of a new process: all zero unless the frontend says otherwise.
    fn reset(&self, state: &mut CpuState) {
        for slot in self.layout().slots() {
            for cell in slot.cell..slot.cell + slot.ty.cells() {
                state.set(cell, 0);
            }
        }
    }

    /// Called before guest code runs on this state on a host thread: the rounding mode and flush bits for the
    /// host's float unit, and the sticky flags to start from.
    fn load_fp(&self, state: &CpuState, env: &mut dyn tulk_ir::FpEnv);

    /// Called after guest code ran: stores the sticky flags back into the guest's registers.
    fn save_fp(&self, state: &mut CpuState, env: &mut dyn tulk_ir::FpEnv);

    /// A memory access failed. True when the frontend changed the state so that the instruction must be tried
    /// again before the fault counts (AArch64: the first access through a tagged address). A host that cannot
    /// tell the address because it is no canonical one reports `u64::MAX`.
    fn retry_fault(&self, _state: &mut CpuState, _fault: &MemFault) -> bool {
        false
    }

    /// The registers as debuggers know them.
    fn debug_registers(&self) -> debug::Registers {
        debug::Registers::plain(self.layout())
    }

    /// A debugger expects to hear of an access to watched bytes before it happens (AArch64), not after (x86).
    fn watches_before_access(&self) -> bool {
        false
    }

    /// Assembly text and length of the instruction in `bytes` at `pc` for logs, or `None` if undefined.
    fn disassemble(&self, key: TbKey, bytes: &[u8]) -> Option<(String, usize)>;

    /// True when guest code may rewrite itself without any flush instruction and must see the change at the
    /// next instruction (x86). Otherwise changes need to be seen only after a flush (`HelperEnv::invalidate_code`).
    fn self_modifying_is_exact(&self) -> bool {
        false
    }

    /// The privileged half, when this guest is configured as a whole processor.
    fn system(&self) -> Option<&dyn SystemIsa> {
        None
    }
}
