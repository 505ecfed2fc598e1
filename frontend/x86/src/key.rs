//! The key flags: what of the CPU state a translation assumes beside the code bytes.

use crate::fpstate;
use crate::regs::{self, cell, eflags};
use crate::segment::attr;
use crate::x87::stack::Stack;
use tulk_base::CpuState;

/// Bits 1:0: code size, 0 for 16, 1 for 32, 2 for 64 bits.
pub const CODE_SIZE: u64 = 3;
/// The stack pointer of 16- and 32-bit code is ESP, not SP.
pub const STACK32: u64 = 1 << 2;
/// The base of ES, CS, SS, DS is not zero: bit 3 plus the segment's number.
pub const SEG_BASE: u64 = 15 << 3;
/// Accesses through ES, CS, SS, DS, FS, GS must be checked against limit and type: bit 7 plus the number.
pub const SEG_CHECK: u64 = 63 << 7;
/// The direction flag.
pub const DF: u64 = 1 << 13;
/// The trap flag: a debug trap follows each instruction.
pub const TF: u64 = 1 << 14;
/// Misaligned accesses fault (EFLAGS.AC at CPL 3).
pub const ALIGN: u64 = 1 << 15;
/// An SSE exception is unmasked: float instructions must find out before they change anything.
pub const SSE_TRAPS: u64 = 1 << 16;
/// MXCSR asks for denormals to be flushed (FTZ or DAZ).
pub const SSE_FLUSH: u64 = 1 << 17;
/// An x87 exception is unmasked, or pending.
pub const X87_TRAPS: u64 = 1 << 20;
/// Long mode is active (64-bit code, or 32-bit code beside it).
pub const LONG: u64 = 1 << 22;
/// Bits 25:23: TOP of the x87 stack.
pub const X87_TOP: u64 = 7 << 23;
pub const X87_TOP_SHIFT: u32 = 23;

/// Instructions must be checked against the limit of CS.
pub const CODE_CHECK: u64 = 1 << 26;

/// The arithmetic flags need not be right at a memory fault ([`regs::BLIND_FAULTS`]), so an access does not keep
/// flags alive that a later instruction replaces.
pub const BLIND_FAULTS: u64 = 1 << 27;

/// Bits 35:28: the x87 tags, bit n set when physical register n is in use.
pub const X87_TAG: u64 = 0xff << 28;
pub const X87_TAG_SHIFT: u32 = 28;

/// The key flags of a state. `long`: the processor is in long mode.
pub fn of_state(state: &CpuState, long: bool) -> u64 {
    let get = |slot| state.get(cell(slot));
    let cs = get(regs::SEG_ATTR[regs::CS]) as u32;
    let mut key = if long { LONG } else { 0 };
    if long && cs & attr::L != 0 {
        key |= 2;
    } else {
        if cs & attr::DB != 0 {
            key |= 1;
        }
        if get(regs::SEG_ATTR[regs::SS]) as u32 & attr::DB != 0 {
            key |= STACK32;
        }
        for seg in 0..6 {
            if seg < 4 && get(regs::SEG_BASE[seg]) as u32 != 0 {
                key |= 1 << (3 + seg);
            }
            let limit = get(regs::SEG_LIMIT[seg]) as u32;
            let access = get(regs::SEG_ATTR[seg]) as u32;
            if !attr::is_open(seg, limit, access) {
                key |= 1 << (7 + seg);
            }
            // 16-bit code that runs to the end of 64 KiB is not worth slowing all of it down.
            let end = if access & attr::DB != 0 { u32::MAX } else { 0xffff };
            if seg == regs::CS && limit < end {
                key |= CODE_CHECK;
            }
        }
    }
    let flags = get(regs::EFLAGS) as u32;
    for (bit, flag) in [(eflags::DF, DF), (eflags::TF, TF), (eflags::AC, ALIGN)] {
        if flags & bit != 0 {
            key |= flag;
        }
    }
    if get(regs::BLIND_FAULTS) as u32 != 0 {
        key |= BLIND_FAULTS;
    }
    let stack = Stack { top: get(regs::FTOP) as u8 & 7, tag: get(regs::FTAG) as u8 };
    key |= stack.key() | of_fcw(get(regs::FCW) as u32, get(regs::FSW) as u32);
    key | of_mxcsr(get(regs::MXCSR) as u32)
}

/// The part that MXCSR decides.
pub fn of_mxcsr(mxcsr: u32) -> u64 {
    let mut key = 0;
    if mxcsr & fpstate::MASKS != fpstate::MASKS {
        key |= SSE_TRAPS;
    }
    if mxcsr & (fpstate::DAZ | fpstate::FTZ) != 0 {
        key |= SSE_FLUSH;
    }
    key
}

/// The part that the x87 control and status words decide.
pub fn of_fcw(fcw: u32, fsw: u32) -> u64 {
    if fcw & 0x3f != 0x3f || fsw & 0x80 != 0 { X87_TRAPS } else { 0 }
}

/// Key flags, taken apart for the lifter.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub flags: u64,
    /// 16, 32 or 64.
    pub code: u32,
    /// Width of the stack pointer.
    pub stack: u32,
    /// At the present point of the unit, where CLD or STD may have changed it; `flags` stays as it was at the entry.
    pub df: bool,
    pub align: bool,
    pub tf: bool,
}

impl Key {
    pub fn new(flags: u64) -> Key {
        let code = 16 << (flags & CODE_SIZE);
        let stack = match code {
            64 => 64,
            _ if flags & STACK32 != 0 => 32,
            _ => 16,
        };
        Key {
            flags,
            code,
            stack,
            df: flags & DF != 0,
            align: flags & ALIGN != 0,
            tf: flags & TF != 0,
        }
    }
    /// Addresses are 64 bits wide.
    pub fn long(&self) -> bool {
        self.code == 64
    }
    /// The segment's base must be added.
    pub fn has_base(&self, seg: usize) -> bool {
        seg >= regs::FS || self.flags >> 3 & 1 << seg != 0
    }
    /// Accesses through the segment must be checked.
    pub fn has_check(&self, seg: usize) -> bool {
        self.flags >> 7 & 1 << seg != 0
    }
    /// Has any of the bits.
    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}
