//! Guest events that end the normal flow of instructions. They are values; nothing unwinds.

use crate::GuestVa;

/// What the guest tried to do with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AccessKind {
    Read,
    Write,
    Exec,
}

/// Why a memory access failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FaultCause {
    /// Nothing is mapped there (`SEGV_MAPERR`).
    Unmapped,
    /// Mapped, but this access is not allowed (`SEGV_ACCERR`).
    Protection,
    /// The address breaks the alignment that the access demands (`BUS_ADRALN`).
    Align,
    /// Mapped, but the backing is gone: past the end of a truncated file (`BUS_ADRERR`).
    Bus,
    /// System mode: the page walk failed; the frontend's error code.
    Page(u32),
}

/// A failed memory access. The guest pc is in the CPU state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct MemFault {
    /// The first byte that could not be accessed.
    pub va: GuestVa,
    pub kind: AccessKind,
    pub cause: FaultCause,
}

/// Why guest execution stopped at an instruction. The pc slot tells where: at the instruction for
/// faults, behind it for a syscall.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Trap {
    /// System call instruction; `0` is the instruction's immediate (or an interrupt number).
    Syscall(u32),
    /// Undefined or unsupported instruction.
    Illegal,
    /// Breakpoint instruction with its immediate.
    Breakpoint(u32),
    /// A memory access failed.
    Mem(MemFault),
    /// An arithmetic trap (integer division, unmasked floating-point exception); `0` is the Linux
    /// `si_code` of the SIGFPE.
    Arithmetic(u32),
    /// A privileged instruction in user mode.
    Privileged,
    /// Any other guest exception; the number's meaning belongs to the frontend (`vector`, `error code`).
    Guest { vector: u32, code: u32 },
    /// The processor waits for an interrupt.
    Halt,
    /// Not an event: state (mode, translation key) changed, look the next block up anew at the pc slot.
    Resync,
}

impl From<MemFault> for Trap {
    fn from(f: MemFault) -> Trap {
        Trap::Mem(f)
    }
}
