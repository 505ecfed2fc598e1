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
/// System mode: a breakpoint of DR7 is enabled, so accesses and instructions are checked.
pub const BREAKPOINTS: u64 = 1 << 18;
/// System mode: SSE instructions must ask whether they may run (CR0.EM, CR0.TS, CR4.OSFXSR).
pub const SSE_CHECK: u64 = 1 << 19;
/// System mode: the same for AVX instructions (CR0.TS, CR4.OSXSAVE, XCR0).
pub const AVX_CHECK: u64 = 1 << 21;
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

/// System mode, bits 37:36: the current privilege level.
pub const CPL: u64 = 3 << CPL_SHIFT;
pub const CPL_SHIFT: u32 = 36;
/// System mode: explicit supervisor accesses must not touch user pages (CR4.SMAP without EFLAGS.AC; CPL below 3).
pub const SMAP: u64 = 1 << 38;
/// System mode: CR0.PE, and EFLAGS.VM with it.
pub const PROTECTED: u64 = 1 << 39;
pub const VM86: u64 = 1 << 40;
/// System mode: CPL is not above IOPL.
pub const IOPL_OK: u64 = 1 << 41;
/// System mode: an interrupt shadow lasts over the first instruction, which is the only one of its block.
pub const SHADOW: u64 = 1 << 42;
/// System mode: x87 and MMX instructions must ask whether they may run (CR0.EM, CR0.TS).
pub const X87_CHECK: u64 = 1 << 43;
/// The bits that key flags use.
pub const ALL: u64 = (1 << 44) - 1;

/// The key flags of a state in system mode.
pub fn of_system_state(state: &CpuState) -> u64 {
    use crate::system::{cr0, cr4, efer, model};
    let get = |slot| state.get(cell(slot));
    let (control, extended) = (get(regs::CR0), get(regs::CR4));
    let flags = get(regs::EFLAGS) as u32;
    let cpl = get(regs::CPL) & 3;
    let protected = control & cr0::PE != 0;
    let mut key = of_state(state, get(regs::EFER) & efer::LMA != 0) & !(ALIGN | BLIND_FAULTS);
    key |= cpl << CPL_SHIFT;
    let iopl = flags >> 12 & 3;
    let features = model(state).features;
    let bits = [
        (flags & eflags::AC != 0 && control & cr0::AM != 0 && cpl == 3, ALIGN),
        (extended & cr4::SMAP != 0 && flags & eflags::AC == 0 && cpl < 3, SMAP),
        (protected, PROTECTED),
        (protected && flags & eflags::VM != 0, VM86),
        (cpl <= iopl as u64, IOPL_OK),
        (get(regs::SHADOW) as u32 != 0, SHADOW),
        (crate::system::debug::armed(get(regs::DR[7])), BREAKPOINTS),
        (control & (cr0::EM | cr0::TS) != 0, X87_CHECK),
        (
            features.has(crate::Feature::Sse)
                && (control & (cr0::EM | cr0::TS) != 0 || extended & cr4::OSFXSR == 0),
            SSE_CHECK,
        ),
        (
            features.has(crate::Feature::Avx)
                && (control & cr0::TS != 0
                    || extended & cr4::OSXSAVE == 0
                    || get(regs::XCR0) & 6 != 6
                    || !protected
                    || flags & eflags::VM != 0),
            AVX_CHECK,
        ),
    ];
    bits.iter().filter(|b| b.0).fold(key, |key, b| key | b.1)
}

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
    /// A debugger steps: one iteration of a repeated instruction. No part of the key.
    pub stepped: bool,
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
            stepped: false,
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
    /// The MMU index of data accesses in system mode.
    pub fn mmu(&self) -> u8 {
        use crate::system::mmu;
        match (self.cpl(), self.has(SMAP)) {
            (3, _) => mmu::USER,
            (_, true) => mmu::KERNEL_SMAP,
            (_, false) => mmu::KERNEL,
        }
    }
    /// The current privilege level of system mode.
    pub fn cpl(&self) -> u32 {
        (self.flags >> CPL_SHIFT) as u32 & 3
    }
    /// System mode: a block is one instruction, behind which #DB may be due.
    pub fn single(&self) -> bool {
        self.tf || self.has(BREAKPOINTS)
    }
    /// Relative branches of the code's own size go to constant linear addresses.
    pub fn branches_are_constant(&self) -> bool {
        self.long() || self.code == 32 && !self.has(CODE_CHECK) && !self.has_base(regs::CS)
    }
    /// Real mode (system mode only): CR0.PE is clear.
    pub fn real(&self) -> bool {
        !self.has(PROTECTED)
    }
    /// Has any of the bits.
    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}
