//! Helpers: guest operations too rare or too odd for an IR op, written in Rust.

use crate::layout::Slot;
use crate::types::{FpFlags, Round, Type};
use tulk_base::{Board, CpuState, GuestMem, GuestPa, GuestVa, TlbFlush, Trap};

/// The thread's floating-point environment. While guest code runs the host's own control register holds the
/// guest's rounding mode and sticky flags, so a helper must not compute with host floats unless it wants those
/// effects; software floating point adds its flags with [`FpEnv::fp_raise`].
pub trait FpEnv {
    fn fp_flags(&mut self) -> FpFlags;
    fn set_fp_flags(&mut self, flags: FpFlags);
    fn fp_raise(&mut self, flags: FpFlags) {
        let all = self.fp_flags().0 | flags.0;
        self.set_fp_flags(FpFlags(all));
    }
    fn fp_round(&mut self) -> Round;
    /// Sets the rounding mode used by float operations (`Nearest`, `Down`, `Up` or `Zero`) and whether
    /// denormal inputs (`daz`) and results (`ftz`) are flushed to zero as x86 does it. Other flush rules
    /// need software floating point.
    fn set_fp_mode(&mut self, round: Round, daz: bool, ftz: bool);
}

/// Everything outside the CPU state that a helper can reach.
pub trait HelperEnv: GuestMem + FpEnv {
    /// Translations of `[start, start + len)` are stale: an explicit instruction-cache flush.
    fn invalidate_code(&mut self, start: GuestVa, len: u64);
    /// Nanoseconds of a monotonic clock, for guest cycle and time counters.
    fn clock_ns(&mut self) -> u64;
    /// Zeroes `[start, start + len)` or copies within guest memory are plain loops over [`GuestMem`]; this
    /// asks only for the number of the host processor (x86 RDPID, RDTSCP).
    fn processor_id(&mut self) -> u32;
    /// Fills `out` with random bytes (x86 RDRAND, Arm RNDR).
    fn random(&mut self, out: &mut [u8]);
    /// System mode: the machine around the processor. `None` in user mode.
    fn machine(&mut self) -> Option<&mut dyn Machine> {
        None
    }
}

/// What helpers and page walks reach in system mode. Guest-virtual accesses go through [`GuestMem`] with the MMU
/// index in the memory operation.
pub trait Machine {
    /// The number of this processor, from 0.
    fn cpu(&self) -> u32;
    fn board(&self) -> &dyn Board;
    /// Loads 1, 2, 4 or 8 naturally aligned bytes of physical memory, in host byte order, zero-extended.
    fn phys_load(&mut self, pa: GuestPa, bytes: u8) -> u64;
    /// Atomically replaces 4 or 8 naturally aligned bytes of physical memory if they are `old`; false when they are
    /// not. Read-only and device memory ignores it (true).
    fn phys_replace(&mut self, pa: GuestPa, bytes: u8, old: u64, new: u64) -> bool;
    /// Drops cached translations of this processor.
    fn flush_tlb(&mut self, what: TlbFlush);
    /// From now on this address space is used; its cached translations are still valid.
    fn switch_space(&mut self, space: u16);
}

/// What a helper works on.
pub struct HelperCx<'a> {
    pub state: &'a mut CpuState,
    pub env: &'a mut dyn HelperEnv,
}

/// A helper: up to three value arguments and the call's immediate (last), zero-extended to 128 bits; the
/// result in the low bits. An error is a guest event at the calling instruction: when the helper returns
/// it, the pc cell holds the address of that instruction (the engine set it) unless the helper changed it.
pub type HelperFn = fn(&mut HelperCx<'_>, &[u128; 4]) -> Result<u128, Trap>;

/// Low and high half of a direct helper's result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Halves(pub u64, pub u64);

impl From<u128> for Halves {
    #[inline]
    fn from(v: u128) -> Halves {
        Halves(v as u64, (v >> 64) as u64)
    }
}

impl From<Halves> for u128 {
    #[inline]
    fn from(v: Halves) -> u128 {
        v.0 as u128 | (v.1 as u128) << 64
    }
}

/// A pure helper as a plain function, which generated code calls without any detour: the value arguments one after
/// another (128-bit ones as low and high half, narrow ones with junk above), then the immediate; six words at most. It
/// must not use the host's float unit.
pub type DirectFn = extern "C" fn(u64, u64, u64, u64, u64, u64) -> Halves;

/// Slots that a helper touches behind the IR's back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    None,
    All,
    These(&'static [Slot]),
}

/// One row of a guest's helper table; the row's index is the helper's number.
#[derive(Clone, Copy)]
pub struct HelperDef {
    pub name: &'static str,
    pub func: HelperFn,
    /// Types of the value arguments (at most three).
    pub args: &'static [Type],
    pub ret: Option<Type>,
    pub reads: Access,
    pub writes: Access,
    /// May return an error.
    pub may_trap: bool,
    /// Touches neither memory, slots, floating-point state nor anything else: may be removed when its result is unused.
    pub pure: bool,
    /// The same helper for generated code, for pure ones that read no slot either and are called often.
    pub direct: Option<DirectFn>,
}
