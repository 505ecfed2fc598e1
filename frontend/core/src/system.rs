//! What a guest is to the engine in system mode, beyond [`crate::GuestIsa`]: [`SystemIsa`].

use tulk_base::{AccessKind, CpuState, GuestVa, Mapping, MemFault, Trap};
use tulk_ir::{HelperCx, Machine};

/// Why a processor runs no more guest code for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It waits for an event that [`tulk_base::Board::has_event`] will tell; interrupts wake it if the flag says so.
    Halt { interrupts: bool },
    /// It cannot go on; the board was told.
    Shutdown,
}

/// The privileged half of a guest architecture. Exceptions are values here too: an instruction leaves translated code
/// with a [`Trap`], and [`SystemIsa::deliver`] makes of it what the processor would, by writing registers and guest memory.
pub trait SystemIsa: Send + Sync {
    /// MMU indexes that memory operations of this guest name: `0..mmu_modes()`, at most 16. An index stands for a set
    /// of rights (privilege level and the like), not for an address space.
    fn mmu_modes(&self) -> u8;

    /// The MMU index of instruction fetches in translations with these key flags.
    fn code_mmu(&self, flags: u64) -> u8;

    /// Key flags that fit in system mode: the engine needs the bits of `!key_mask()` for itself (20 or more, at the top).
    fn key_mask(&self) -> u64;

    /// Walks the page tables for one access to the page of `va`. Sets accessed and dirty bits. Without paging the
    /// mapping is the identity (in pages of any size). The fault's cause is `FaultCause::Page` with the guest's
    /// error code; the state is not changed.
    ///
    /// # Errors
    /// No such page, or not for this access with this MMU index.
    fn walk(
        &self,
        state: &CpuState,
        machine: &mut dyn Machine,
        va: GuestVa,
        kind: AccessKind,
        mmu: u8,
    ) -> Result<Mapping, MemFault>;

    /// Takes the exception `trap`, which ended the instruction at the pc cell (or stands behind it, where traps do).
    /// Faults while doing so are handled here, too. Afterwards the state is that of the handler's first instruction.
    ///
    /// # Errors
    /// The processor stops: it halts ([`Trap::Halt`]), or nothing could take the exception.
    fn deliver(&self, cx: &mut HelperCx<'_>, trap: Trap) -> Result<(), Stop>;

    /// Takes the board's most urgent event if the processor accepts one now; false when there was none. Called
    /// between blocks whenever one may be there.
    ///
    /// # Errors
    /// As [`SystemIsa::deliver`].
    fn take_event(&self, cx: &mut HelperCx<'_>) -> Result<bool, Stop>;

    /// Whether maskable interrupts are accepted between the present instruction and the next.
    fn interrupts_enabled(&self, state: &CpuState) -> bool;

    /// The engine has looked for events: whether an interrupt is left that is not accepted now. An instruction that makes the
    /// processor accept it has the engine look again ([`CpuState::request_events`]), by whatever means; others need not.
    fn note_waiting(&self, state: &mut CpuState, waits: bool) {
        let _ = (state, waits);
    }

    /// The state behind a reset. Processors other than the boot processor wait for a startup event.
    fn reset_processor(&self, state: &mut CpuState, cpu: u32);
}
