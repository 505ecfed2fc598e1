//! Debug registers and breakpoints (the manual, volume 3, chapter 19).
//!
//! A debug exception is `Trap::Guest` with vector 1 whose code has the bits of DR6 that it sets ([`DR6_BS`] and so
//! on); behind the instruction for traps, at it for instruction breakpoints and [`DR6_BD`]. Delivery ors the code into
//! DR6 and clears DR7.GD.
//!
//! While DR7 enables a breakpoint ([`crate::key::BREAKPOINTS`]) a helper looks at each instruction before it runs, and
//! at each access; a data breakpoint that was hit is taken behind the instruction ([`regs::PENDING_DB`]).
//! - Accesses of helpers (FXSAVE, task switches and the like) hit no breakpoints, but repeated string
//!   instructions and port input and output do.

use super::FIRST_DEBUG;
use super::{cr4, paging};
use crate::Lifter;
use crate::decode::{Row, rows};
use crate::helpers::helpers;
use crate::regs::{self, cell, eflags};
use crate::segment::GP;
use iced_x86::{Instruction, Register};
use tulk_base::{CpuState, Trap};
use tulk_ir::{Access, HelperCx, Slot, Type};

pub const DR6_RESET: u64 = 0xffff_0ff0;
pub const DR7_RESET: u64 = 0x400;
/// A debug register was accessed while DR7.GD was set.
pub const DR6_BD: u32 = 1 << 13;
/// A single step.
pub const DR6_BS: u32 = 1 << 14;
/// A task switch with the T flag set.
pub const DR6_BT: u32 = 1 << 15;
/// General detect.
pub const DR7_GD: u64 = 1 << 13;

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {}
    loud {}
    codes {
        Mov_r32_dr => read, Mov_r64_dr => read, Mov_dr_r32 => write, Mov_dr_r64 => write,
    }
};

/// Whether a breakpoint is enabled in this value of DR7.
pub const fn armed(dr7: u64) -> bool {
    dr7 & 0xff != 0
}

fn number(r: Register) -> i64 {
    r as i64 - Register::DR0 as i64
}

/// MOV r, DRn
fn read(l: &mut Lifter<'_>, insn: &Instruction) {
    let n = number(insn.op1_register());
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    if n > 7 {
        return l.undefined();
    }
    let v = l.call(READ, &[], n);
    let r = insn.op0_register();
    let v = if r.is_gpr32() { l.trunc(Type::I32, v) } else { v };
    l.set_reg(r, v);
}

/// MOV DRn, r
fn write(l: &mut Lifter<'_>, insn: &Instruction) {
    let n = number(insn.op0_register());
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    if n > 7 {
        return l.undefined();
    }
    let v = l.reg(insn.op1_register());
    let v = l.zext(Type::I64, v);
    l.call(WRITE, &[v], n);
    l.resync();
}

const GENERAL_PROTECTION: Trap = Trap::Guest { vector: GP, code: 0 };

/// The register that number `n` means: 4 and 5 are 6 and 7 unless CR4.DE is set. General detect comes after #UD.
fn selected(state: &CpuState, n: usize) -> Result<usize, Trap> {
    let n = match n {
        4 | 5 if state.get(cell(regs::CR4)) & cr4::DE != 0 => return Err(Trap::Illegal),
        4 | 5 => n + 2,
        n => n,
    };
    if state.get(cell(regs::DR[7])) & DR7_GD != 0 {
        return Err(Trap::Guest { vector: 1, code: DR6_BD });
    }
    Ok(n)
}

fn debug_read(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let n = selected(cx.state, args[3] as usize & 7)?;
    Ok(cx.state.get(cell(regs::DR[n])) as u128)
}

fn debug_write(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let n = selected(cx.state, args[3] as usize & 7)?;
    let v = args[0] as u64;
    let value = match n {
        6 | 7 if v >> 32 != 0 => return Err(GENERAL_PROTECTION),
        // Fixed bits; RTM and bus-lock bits do not exist.
        6 => v & 0xe00f | DR6_RESET,
        // Bits 12, 14 and 15 are zero; bit 11 is RTM's.
        7 => v & 0xffff_23ff | DR7_RESET,
        _ if !paging::is_canonical(cx.state, v) => return Err(GENERAL_PROTECTION),
        _ => v,
    };
    cx.state.set(cell(regs::DR[n]), value);
    // What runs now is done: the resume flag, which nobody looks at without breakpoints, ends with it.
    let flags = cx.state.get(cell(regs::EFLAGS)) & !(eflags::RF as u64);
    cx.state.set(cell(regs::EFLAGS), flags);
    Ok(0)
}

/// What a breakpoint waits for: the R/W field of DR7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Execute,
    Write,
    /// With CR4.DE only.
    Port,
    /// Reads or writes.
    Data,
}

/// The breakpoints that an access of `bytes` bytes at `at` hits, as bits of DR6. `kind`: an instruction, a write or
/// a read of data ([`What::Data`]), a port.
pub fn hits(state: &CpuState, at: u64, bytes: u64, kind: What) -> u32 {
    let dr7 = state.get(cell(regs::DR[7]));
    let extensions = state.get(cell(regs::CR4)) & cr4::DE != 0;
    let mut hit = 0;
    for n in 0..4 {
        if dr7 >> (2 * n) & 3 == 0 {
            continue;
        }
        let control = dr7 >> (16 + 4 * n);
        let what = match control & 3 {
            0 => What::Execute,
            1 => What::Write,
            2 if extensions => What::Port,
            2 => continue,
            _ => What::Data,
        };
        let fits = match kind {
            What::Write => matches!(what, What::Write | What::Data),
            other => other == what,
        };
        if !fits {
            continue;
        }
        let length = match control >> 2 & 3 {
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4,
        };
        let first = state.get(cell(regs::DR[n])) & !(length - 1);
        // Both ranges may wrap at the end of the address space.
        if at.wrapping_sub(first) < length || first.wrapping_sub(at) < bytes {
            hit |= 1 << n;
        }
    }
    hit
}

/// An instruction is about to run at the pc: #DB if a breakpoint waits for it and RF is clear.
fn debug_instruction(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    let flags = cell(regs::EFLAGS);
    let old = cx.state.get(flags);
    if old as u32 & eflags::RF != 0 {
        cx.state.set(flags, old & !(eflags::RF as u64));
        return Ok(0);
    }
    match hits(cx.state, cx.state.pc(), 1, What::Execute) {
        0 => Ok(0),
        code => Err(Trap::Guest { vector: 1, code }),
    }
}

/// Notes the breakpoints that an access hits; they are taken behind the instruction.
pub fn note(state: &mut CpuState, at: u64, bytes: u64, kind: What) {
    let hit = hits(state, at, bytes, kind);
    if hit != 0 {
        let pending = cell(regs::PENDING_DB);
        state.set(pending, state.get(pending) | hit as u64);
    }
}

/// Linear address; immediate: bytes << 1 | write.
fn debug_access(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let kind = if args[3] & 1 != 0 { What::Write } else { What::Data };
    note(cx.state, args[0] as u64, (args[3] >> 1) as u64, kind);
    Ok(0)
}

/// The instruction is done and goes on at this linear pc: #DB if the trap flag was set (immediate 1) or a breakpoint
/// was hit.
fn debug_boundary(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let pending = cell(regs::PENDING_DB);
    let mut code = cx.state.get(pending) as u32;
    if args[3] & 1 != 0 {
        code |= DR6_BS;
    }
    if code == 0 || cx.state.get(cell(regs::SHADOW)) as u32 != 0 {
        return Ok(0);
    }
    cx.state.set(pending, 0);
    cx.state.set_pc(args[0] as u64);
    Err(Trap::Guest { vector: 1, code })
}

const REGISTERS: &[Slot] = &{
    let mut all = [regs::CR4; 12];
    let mut n = 0;
    while n < 8 {
        all[n] = regs::DR[n];
        n += 1;
    }
    all[8] = regs::EFLAGS;
    all[9] = regs::EFER;
    all[10] = regs::PENDING_DB;
    all[11] = regs::CR4;
    all
};
const PENDING: &[Slot] = &[regs::PENDING_DB];
const RESUME: &[Slot] = &[regs::EFLAGS];

helpers! { FIRST_DEBUG;
    /// The register whose number is in the immediate.
    READ = debug_read() -> I64, Access::These(REGISTERS), Access::None, traps;
    WRITE = debug_write(I64) -> (), Access::These(REGISTERS), Access::These(REGISTERS), traps;
    /// Before an instruction.
    INSTRUCTION = debug_instruction() -> (), Access::These(REGISTERS), Access::These(RESUME), traps;
    /// Linear address of an access; immediate: bytes << 1 | write.
    ACCESS = debug_access(I64) -> (), Access::These(REGISTERS), Access::These(PENDING);
    /// Linear pc behind an instruction; immediate: the trap flag.
    BOUNDARY = debug_boundary(I64) -> (), Access::All, Access::These(PENDING), traps;
}
