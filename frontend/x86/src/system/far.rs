//! Far jumps, calls and returns, and IRET (the manual, volume 3, sections 5.8 and 6.12; volume 2, JMP, CALL, RET, IRET).
//!
//! Each function does the whole instruction or, when it fails, nothing. In real and virtual-8086 mode only the limit
//! of CS is checked. In long mode there are neither 16-bit gates nor task gates, and the code segment of a gate must be
//! of 64 bits.
//!
//! Where we leave the manual, with processors: a return to a 16-bit stack segment changes only SP, the upper half of
//! ESP stays the inner level's.

use super::gate::{self, Gate, inner_stack, inner_stack64, instruction_pointer, target};
use super::segment::{
    Entry, Fallible, check_stack, code64, cpl, drop_privileged, expect, fail_if, get, get32, gp,
    iopl, is_null, long, protected, real_segments, set, set_8086, set_code, set_null, set_vm86,
    upper_half, vm86,
};
use super::stack::Stack;
use super::{cr4, task};
use crate::regs::{self, eflags};
use crate::segment::{GP, NP, attr, set_segment};
use tulk_base::CpuState;
use tulk_ir::HelperCx;

/// Flags that a program at CPL 3 sets with IRET and POPF, in the low word.
const LOW: u32 = 0x8d5 | eflags::TF | eflags::DF | eflags::NT;

/// EFLAGS after IRET or POPF of `1 << log2` bytes in protected mode, where IF, IOPL, VIF and VIP depend on the
/// privilege level. `also`: bits that only one of the two sets.
pub fn popped_flags(state: &CpuState, popped: u64, log2: u8, also: u32) -> u32 {
    let mut mask = LOW;
    if log2 >= 2 {
        mask |= eflags::AC | eflags::ID | also;
    }
    if cpl(state) <= iopl(state) {
        mask |= eflags::IF;
    }
    if cpl(state) == 0 {
        mask |= eflags::IOPL;
    }
    regs::eflags(state) & !mask | popped as u32 & mask
}

/// Offset in the code segment that CS will hold in real or virtual-8086 mode.
fn check_8086(state: &CpuState, offset: u64) -> Fallible<()> {
    let limit = if vm86(state) { 0xffff } else { get32(state, regs::SEG_LIMIT[regs::CS]) };
    fail_if(offset > limit as u64, GP, 0)
}

fn go_8086(state: &mut CpuState, selector: u16, offset: u64) -> u64 {
    set_8086(state, regs::CS, selector);
    get(state, regs::SEG_BASE[regs::CS]).wrapping_add(offset) & 0xffff_ffff
}

/// The checks of a code segment that a far jump or call names itself.
fn direct(cx: &mut HelperCx<'_>, entry: &Entry) -> Fallible<()> {
    let (cpl, rpl, dpl) = (cpl(cx.state), entry.selector as u32 & 3, entry.d.dpl());
    let bad = if entry.conforming() { dpl > cpl } else { rpl > cpl || dpl != cpl };
    fail_if(bad, GP, entry.selector)?;
    long_and_default(cx.state, entry)?;
    fail_if(!entry.d.present(), NP, entry.selector)
}

/// In long mode a code segment cannot have both L and D.
fn long_and_default(state: &CpuState, entry: &Entry) -> Fallible<()> {
    let both = entry.d.attr & (attr::L | attr::DB) == attr::L | attr::DB;
    fail_if(long(state) && both, GP, entry.selector)
}

/// The gate of a far jump or call.
fn call_gate(cx: &mut HelperCx<'_>, entry: &Entry) -> Fallible<Gate> {
    let selector = entry.selector;
    let level = entry.d.dpl();
    fail_if(level < cpl(cx.state) || level < selector as u32 & 3, GP, selector)?;
    let high = if long(cx.state) { upper_half(cx, entry, GP)? } else { 0 };
    fail_if(!entry.d.present(), NP, selector)?;
    Ok(Gate::new(entry.raw, high))
}

/// The code segment that a call gate names.
fn behind_gate(cx: &mut HelperCx<'_>, gate: &Gate, jump: bool) -> Fallible<Entry> {
    fail_if(is_null(gate.selector), GP, 0)?;
    let entry = expect(cx, gate.selector, GP)?;
    let (cpl, dpl) = (cpl(cx.state), entry.d.dpl());
    let level = dpl > cpl || jump && !entry.conforming() && dpl != cpl;
    fail_if(!entry.d.is_code() || level, GP, gate.selector)?;
    if long(cx.state) {
        fail_if(entry.d.attr & (attr::L | attr::DB) != attr::L, GP, gate.selector)?;
    }
    fail_if(!entry.d.present(), NP, gate.selector)?;
    Ok(entry)
}

/// A far jump or call to a task: `way` with the instruction behind it at `next`.
fn to_task(cx: &mut HelperCx<'_>, entry: Entry, way: task::Way, next: u64) -> Fallible<u64> {
    let level = entry.d.dpl();
    let low = level < cpl(cx.state) || level < entry.selector as u32 & 3;
    fail_if(low, GP, entry.selector)?;
    let entry = if entry.kind() == gate::TASK_GATE {
        fail_if(!entry.d.present(), NP, entry.selector)?;
        let gate = Gate::new(entry.raw, 0);
        task::available(cx, gate.selector, GP)?
    } else {
        task::available(cx, entry.selector, GP)?
    };
    let flags = regs::eflags(cx.state);
    task::switch(cx, entry, way, next, flags)?;
    task::finish(cx)?;
    Ok(cx.state.pc())
}

/// What a far jump or call finds at its selector.
enum Destination {
    Code(Entry),
    Gate(Gate),
    Task(Entry),
}

fn destination(cx: &mut HelperCx<'_>, selector: u16) -> Fallible<Destination> {
    fail_if(is_null(selector), GP, 0)?;
    let entry = expect(cx, selector, GP)?;
    if entry.d.is_code() {
        direct(cx, &entry)?;
        return Ok(Destination::Code(entry));
    }
    match entry.kind() {
        gate::CALL_GATE => Ok(Destination::Gate(call_gate(cx, &entry)?)),
        gate::CALL_GATE_16 if !long(cx.state) => Ok(Destination::Gate(call_gate(cx, &entry)?)),
        gate::TASK_GATE | 1 | 3 | 9 | 11 if !long(cx.state) => Ok(Destination::Task(entry)),
        _ => gp(selector),
    }
}

/// JMP far; the new pc. `next` is the linear pc behind it.
pub fn jump(cx: &mut HelperCx<'_>, selector: u16, offset: u64, next: u64) -> Fallible<u64> {
    if real_segments(cx.state) {
        check_8086(cx.state, offset)?;
        return Ok(go_8086(cx.state, selector, offset));
    }
    let (mut code, offset) = match destination(cx, selector)? {
        Destination::Code(entry) => (entry, offset),
        Destination::Gate(gate) => (behind_gate(cx, &gate, true)?, gate.offset),
        Destination::Task(entry) => return to_task(cx, entry, task::Way::Jump, next),
    };
    let pc = target(cx.state, code.d, offset)?;
    code.access(cx)?;
    let level = cpl(cx.state);
    set_code(cx.state, &code, level);
    Ok(pc)
}

/// CALL far with an operand size of `1 << log2` bytes; the new pc. `next` is the linear pc behind it.
pub fn call(
    cx: &mut HelperCx<'_>,
    selector: u16,
    offset: u64,
    log2: u8,
    next: u64,
) -> Fallible<u64> {
    let cs = get(cx.state, regs::SEG[regs::CS]);
    let ip = instruction_pointer(cx.state, next);
    let mut stack = Stack::present(cx.state);
    if real_segments(cx.state) {
        stack.room(cx.state, 2, log2)?;
        check_8086(cx.state, offset)?;
        stack.push_all(cx, log2, &[cs, ip])?;
        stack.commit(cx.state);
        return Ok(go_8086(cx.state, selector, offset));
    }
    let (mut code, offset, log2) = match destination(cx, selector)? {
        Destination::Code(entry) => (entry, offset, log2),
        Destination::Gate(gate) => {
            let code = behind_gate(cx, &gate, false)?;
            if !code.conforming() && code.d.dpl() < cpl(cx.state) {
                return call_inwards(cx, &gate, code, next);
            }
            let log2 = if long(cx.state) { 3 } else { gate.log2() };
            (code, gate.offset, log2)
        }
        Destination::Task(entry) => return to_task(cx, entry, task::Way::Nested, next),
    };
    stack.room(cx.state, 2, log2)?;
    let pc = target(cx.state, code.d, offset)?;
    code.access(cx)?;
    stack.push_all(cx, log2, &[cs, ip])?;
    stack.commit(cx.state);
    let level = cpl(cx.state);
    set_code(cx.state, &code, level);
    Ok(pc)
}

/// A call gate to more privilege.
fn call_inwards(cx: &mut HelperCx<'_>, gate: &Gate, mut code: Entry, next: u64) -> Fallible<u64> {
    let level = code.d.dpl();
    let old = Stack::present(cx.state);
    let mut frame = vec![get(cx.state, regs::SEG[regs::SS]), get(cx.state, regs::RSP)];
    let (mut outer, mut stack, log2) = if long(cx.state) {
        (None, inner_stack64(cx, level, 0)?.of_system(), 3)
    } else {
        let (entry, stack) = inner_stack(cx, level)?;
        (Some(entry), stack.of_system(), gate.log2())
    };
    let count = if long(cx.state) { 0 } else { gate.count };
    stack.room(cx.state, 4 + count, log2)?;
    let pc = target(cx.state, code.d, gate.offset)?;
    for n in (0..count).rev() {
        frame.push(old.peek(cx, n, log2)?);
    }
    frame.push(get(cx.state, regs::SEG[regs::CS]));
    frame.push(instruction_pointer(cx.state, next));
    code.access(cx)?;
    if let Some(entry) = &mut outer {
        entry.access(cx)?;
    }
    stack.push_all(cx, log2, &frame)?;
    match outer {
        Some(entry) => set_segment(cx.state, regs::SS, entry.selector, entry.raw),
        None => set_null(cx.state, regs::SS, level as u16),
    }
    stack.commit(cx.state);
    set_code(cx.state, &code, level);
    Ok(pc)
}

/// The code segment that a far return or IRET names.
fn return_code(cx: &mut HelperCx<'_>, selector: u16) -> Fallible<Entry> {
    fail_if(is_null(selector), GP, 0)?;
    let entry = expect(cx, selector, GP)?;
    let (rpl, dpl) = (selector as u32 & 3, entry.d.dpl());
    let bad = if entry.conforming() { dpl > rpl } else { dpl != rpl };
    fail_if(!entry.d.is_code() || rpl < cpl(cx.state) || bad, GP, selector)?;
    long_and_default(cx.state, &entry)?;
    fail_if(!entry.d.present(), NP, selector)?;
    Ok(entry)
}

/// The stack segment that a return names; `None` for the null selector that 64-bit code may have.
fn return_stack(cx: &mut HelperCx<'_>, selector: u16, code: &Entry) -> Fallible<Option<Entry>> {
    let level = code.selector as u32 & 3;
    if is_null(selector) {
        let good = long(cx.state) && code.is_long() && level != 3 && selector as u32 == level;
        fail_if(!good, GP, 0)?;
        return Ok(None);
    }
    Ok(Some(check_stack(cx, selector, level, GP)?))
}

/// Changes to the code segment, stack segment and pointer of a return.
fn commit_outer(state: &mut CpuState, code: &Entry, ss_selector: u16, ss: Option<Entry>, sp: u64) {
    let level = code.selector as u32 & 3;
    let lowered = level > cpl(state);
    let wide = ss.is_none_or(|entry| entry.d.attr & attr::DB != 0);
    let sp = match long(state) && code.is_long() {
        true => sp,
        false if wide => sp & 0xffff_ffff,
        false => get(state, regs::RSP) & 0xffff_0000 | sp & 0xffff,
    };
    match ss {
        Some(entry) => set_segment(state, regs::SS, ss_selector, entry.raw),
        None => set_null(state, regs::SS, ss_selector),
    }
    set(state, regs::RSP, sp);
    set_code(state, code, level);
    if lowered {
        drop_privileged(state);
    }
}

/// RETF of an operand size of `1 << log2` bytes that drops `more` bytes of parameters; the new pc.
pub fn ret(cx: &mut HelperCx<'_>, log2: u8, more: u64) -> Fallible<u64> {
    let mut stack = Stack::present(cx.state);
    // Read downwards, as a fault shows.
    let (selector, offset) = (stack.peek(cx, 1, log2)? as u16, stack.peek(cx, 0, log2)?);
    if real_segments(cx.state) {
        check_8086(cx.state, offset)?;
        stack.drop((2 << log2) + more);
        stack.commit(cx.state);
        return Ok(go_8086(cx.state, selector, offset));
    }
    let mut code = return_code(cx, selector)?;
    if selector as u32 & 3 == cpl(cx.state) {
        let pc = target(cx.state, code.d, offset)?;
        code.access(cx)?;
        stack.drop((2 << log2) + more);
        stack.commit(cx.state);
        let level = cpl(cx.state);
        set_code(cx.state, &code, level);
        return Ok(pc);
    }
    stack.drop((2 << log2) + more);
    let (ss, sp) = (stack.peek(cx, 1, log2)? as u16, stack.peek(cx, 0, log2)?);
    let mut segment = return_stack(cx, ss, &code)?;
    let pc = target(cx.state, code.d, offset)?;
    code.access(cx)?;
    if let Some(entry) = &mut segment {
        entry.access(cx)?;
    }
    commit_outer(cx.state, &code, ss, segment, sp.wrapping_add(more));
    Ok(pc)
}

/// IRET of an operand size of `1 << log2` bytes; the new pc. `next` is the linear pc behind it.
pub fn iret(cx: &mut HelperCx<'_>, log2: u8, next: u64) -> Fallible<u64> {
    if vm86(cx.state) && iopl(cx.state) < 3 {
        let extended = get(cx.state, regs::CR4) & cr4::VME != 0 && log2 == 1;
        fail_if(!extended, GP, 0)?;
    }
    // Even if it faults.
    set(cx.state, regs::NMI_BLOCKED, 0);
    if real_segments(cx.state) {
        return iret_8086(cx, log2);
    }
    if get32(cx.state, regs::EFLAGS) & eflags::NT != 0 {
        fail_if(long(cx.state), GP, 0)?;
        let entry = task::previous(cx)?;
        let flags = regs::eflags(cx.state);
        task::switch(cx, entry, task::Way::Return, next, flags)?;
        task::finish(cx)?;
        return Ok(cx.state.pc());
    }
    let stack = Stack::present(cx.state);
    let flags = stack.peek(cx, 2, log2)?;
    let (selector, offset) = (stack.peek(cx, 1, log2)? as u16, stack.peek(cx, 0, log2)?);
    let to_vm86 = flags as u32 & eflags::VM != 0 && log2 == 2;
    if to_vm86 && cpl(cx.state) == 0 && !long(cx.state) {
        return iret_to_vm86(cx, stack, [offset, selector as u64, flags]);
    }
    let from64 = code64(cx.state);
    let mut code = return_code(cx, selector)?;
    let outer = selector as u32 & 3 != cpl(cx.state);
    let mut also = eflags::RF;
    if cpl(cx.state) == 0 {
        also |= eflags::VIF | eflags::VIP;
    }
    let new_flags = popped_flags(cx.state, flags, log2, also);
    if outer || from64 {
        let (ss, sp) = (stack.peek(cx, 4, log2)? as u16, stack.peek(cx, 3, log2)?);
        let mut segment = return_stack(cx, ss, &code)?;
        let pc = target(cx.state, code.d, offset)?;
        code.access(cx)?;
        if let Some(entry) = &mut segment {
            entry.access(cx)?;
        }
        regs::set_eflags(cx.state, new_flags);
        commit_outer(cx.state, &code, ss, segment, sp);
        return Ok(pc);
    }
    let pc = target(cx.state, code.d, offset)?;
    code.access(cx)?;
    let mut stack = stack;
    stack.drop(3 << log2);
    stack.commit(cx.state);
    regs::set_eflags(cx.state, new_flags);
    let level = cpl(cx.state);
    set_code(cx.state, &code, level);
    Ok(pc)
}

/// IRET in real and virtual-8086 mode.
fn iret_8086(cx: &mut HelperCx<'_>, log2: u8) -> Fallible<u64> {
    let mut stack = Stack::present(cx.state);
    let flags = stack.peek(cx, 2, log2)? as u32;
    let (selector, offset) = (stack.peek(cx, 1, log2)? as u16, stack.peek(cx, 0, log2)?);
    check_8086(cx.state, offset)?;
    let old = regs::eflags(cx.state);
    let upper = eflags::RF | eflags::AC | eflags::ID;
    let mask = match log2 {
        1 => LOW | eflags::IF | eflags::IOPL,
        _ => LOW | eflags::IF | eflags::IOPL | upper,
    };
    let new = if !protected(cx.state) {
        old & !mask | flags & mask
    } else if iopl(cx.state) == 3 {
        let mask = mask & !eflags::IOPL;
        old & !mask | flags & mask
    } else {
        virtual_interrupts(old, flags)?
    };
    stack.drop(3 << log2);
    stack.commit(cx.state);
    regs::set_eflags(cx.state, new);
    Ok(go_8086(cx.state, selector, offset))
}

/// Flags popped by 16-bit IRET and POPF with virtual interrupts: IF goes to VIF.
pub fn virtual_interrupts(old: u32, popped: u32) -> Fallible<u32> {
    let pending = popped & eflags::IF != 0 && old & eflags::VIP != 0;
    fail_if(pending || popped & eflags::TF != 0, GP, 0)?;
    let vif = if popped & eflags::IF != 0 { eflags::VIF } else { 0 };
    Ok(old & !(LOW | eflags::VIF) | popped & LOW | vif)
}

fn iret_to_vm86(cx: &mut HelperCx<'_>, stack: Stack, popped: [u64; 3]) -> Fallible<u64> {
    let [offset, selector, flags] = popped;
    let mut words = [0; 6];
    for (n, word) in words.iter_mut().enumerate() {
        *word = stack.peek(cx, n as u32 + 3, 2)?;
    }
    fail_if(offset > 0xffff, GP, 0)?;
    let [sp, ss, es, ds, fs, gs] = words;
    regs::set_eflags(cx.state, flags as u32 & 0x003f_7fd7);
    set(cx.state, regs::CPL, 3);
    let selectors = [es, selector, ss, ds, fs, gs];
    for (seg, value) in selectors.into_iter().enumerate() {
        set_vm86(cx.state, seg, value as u16);
    }
    set(cx.state, regs::RSP, sp & 0xffff_ffff);
    Ok((get(cx.state, regs::SEG_BASE[regs::CS]) + offset) & 0xffff_ffff)
}
