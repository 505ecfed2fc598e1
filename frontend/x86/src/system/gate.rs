//! Gates, and the stacks of inner privilege levels that they switch to: the manual's volume 3, sections 5.8 and 6.11.

use super::segment::{
    Entry, Fallible, check_stack, code64, fail_if, fault, get, get32, is_null, long, read,
};
use super::stack::Stack;
use crate::regs;
use crate::segment::{Descriptor, attr};
use tulk_base::CpuState;
use tulk_ir::HelperCx;

/// Types of gates and task state segments.
pub const TASK_GATE: u32 = 5;
pub const CALL_GATE_16: u32 = 4;
pub const INTERRUPT_GATE_16: u32 = 6;
pub const TRAP_GATE_16: u32 = 7;
pub const CALL_GATE: u32 = 12;
pub const INTERRUPT_GATE: u32 = 14;
pub const TRAP_GATE: u32 = 15;

/// A gate descriptor taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub selector: u16,
    pub offset: u64,
    /// Type and S bit.
    pub kind: u32,
    pub dpl: u32,
    pub present: bool,
    /// Number of parameters of a call gate; interrupt stack table entry (low three bits) of a 64-bit gate.
    pub count: u32,
}

impl Gate {
    /// Of the descriptor's first 8 bytes and, for 64-bit gates, the second.
    pub fn new(raw: u64, high: u64) -> Gate {
        let kind = (raw >> 40) as u32 & 31;
        let mut offset = raw & 0xffff | (high & 0xffff_ffff) << 32;
        if kind & 8 != 0 {
            offset |= raw >> 32 & 0xffff_0000;
        }
        Gate {
            selector: (raw >> 16) as u16,
            offset,
            kind,
            dpl: (raw >> 45) as u32 & 3,
            present: raw >> 47 & 1 != 0,
            count: (raw >> 32) as u32 & 31,
        }
    }
    /// log2 of the bytes that it pushes at a time in protected mode.
    pub fn log2(&self) -> u8 {
        if self.kind & 8 != 0 { 2 } else { 1 }
    }
}

/// Whether the current task's segment has the 32-bit format.
fn wide_task(state: &CpuState) -> bool {
    get32(state, regs::TR_ATTR) & 8 != 0
}

/// Reads from the current task state segment; #TS when it is too short.
fn read_task(cx: &mut HelperCx<'_>, offset: u64, log2: u8, needed: u64) -> Fallible<u64> {
    let short = offset + needed - 1 > get32(cx.state, regs::TR_LIMIT) as u64;
    fail_if(short, super::segment::TS, get(cx.state, regs::TR) as u16)?;
    let base = get(cx.state, regs::TR_BASE);
    read(cx, base.wrapping_add(offset), log2)
}

/// Pointer and selector for a privilege level from the task state segment, with all checks of the segment.
pub fn inner_stack(cx: &mut HelperCx<'_>, level: u32) -> Fallible<(Entry, Stack)> {
    let (sp, selector) = if wide_task(cx.state) {
        let at = 8 * level as u64 + 4;
        (read_task(cx, at, 2, 6)?, read_task(cx, at + 4, 1, 2)?)
    } else {
        let at = 4 * level as u64 + 2;
        (read_task(cx, at, 1, 4)?, read_task(cx, at + 2, 1, 2)?)
    };
    let selector = selector as u16;
    if is_null(selector) {
        return Err(fault(super::segment::TS, 0));
    }
    let entry = check_stack(cx, selector, level, super::segment::TS)?;
    let stack = Stack::other(cx.state, entry.d, selector, sp, level);
    Ok((entry, stack))
}

/// The stack of 64-bit mode for a privilege level, or an entry of the interrupt stack table when `ist` is not 0.
pub fn inner_stack64(cx: &mut HelperCx<'_>, level: u32, ist: u32) -> Fallible<Stack> {
    let at = if ist != 0 { 28 + 8 * ist as u64 } else { 4 + 8 * level as u64 };
    let sp = read_task(cx, at, 3, 8)?;
    Ok(Stack::flat(cx.state, sp, level))
}

/// Checks an instruction pointer against its new code segment and gives the linear pc.
pub fn target(state: &CpuState, d: Descriptor, ip: u64) -> Fallible<u64> {
    if long(state) && d.attr & attr::L != 0 {
        fail_if(!super::segment::canonical(state, ip), crate::segment::GP, 0)?;
        return Ok(ip);
    }
    fail_if(ip > d.limit as u64, crate::segment::GP, 0)?;
    Ok((d.base as u64).wrapping_add(ip) & 0xffff_ffff)
}

/// The instruction pointer of a linear pc in the present code segment.
pub fn instruction_pointer(state: &CpuState, pc: u64) -> u64 {
    if code64(state) {
        return pc;
    }
    pc.wrapping_sub(get(state, regs::SEG_BASE[regs::CS])) & 0xffff_ffff
}
