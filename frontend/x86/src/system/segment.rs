//! Descriptor tables and loads of segment registers: the manual's volume 3, chapters 3 and 5.
//!
//! Tables are read with the rights of [`mmu::SYSTEM`], whatever the privilege level. Nothing is written to the state
//! before everything that may fault is done; the accessed bit of a descriptor is the last of that.
//!
//! - In real mode a load sets selector and base and makes the segment readable and writable; limit and size stay as
//!   protected mode left them ("unreal mode"). In virtual-8086 mode the limit is 64 KiB - 1.
//! - A null selector leaves a segment that is not present. With Intel's processors it clears the base of FS and GS in
//!   long mode, with AMD's it leaves it.
//! - The EXT bit of error codes is added by whoever delivers an event ([`super::event`]).

use super::{cr0, efer, mmu, model};
use crate::cpu::Vendor;
use crate::regs::{self, cell, eflags};
use crate::segment::{Descriptor, GP, NP, SS, attr, set_segment};
use tulk_base::{CpuState, GuestVa, MemOp, RmwOp, Trap};
use tulk_ir::{HelperCx, Slot};

pub type Fallible<T> = Result<T, Trap>;

/// Vector of the invalid-TSS exception.
pub const TS: u32 = 10;

pub fn get(state: &CpuState, slot: Slot) -> u64 {
    state.get(cell(slot))
}
pub fn get32(state: &CpuState, slot: Slot) -> u32 {
    state.get(cell(slot)) as u32
}
pub fn set(state: &mut CpuState, slot: Slot, value: u64) {
    state.set(cell(slot), value);
}

/// The exception `vector` with a selector's index and table as error code.
pub fn fault(vector: u32, selector: u16) -> Trap {
    Trap::Guest { vector, code: (selector & !3) as u32 }
}
pub fn gp<T>(selector: u16) -> Fallible<T> {
    Err(fault(GP, selector))
}
/// Fails with `vector` and the selector's error code when the condition holds.
pub fn fail_if(condition: bool, vector: u32, selector: u16) -> Fallible<()> {
    if condition { Err(fault(vector, selector)) } else { Ok(()) }
}

pub fn protected(state: &CpuState) -> bool {
    get(state, regs::CR0) & cr0::PE != 0
}
pub fn vm86(state: &CpuState) -> bool {
    protected(state) && get32(state, regs::EFLAGS) & eflags::VM != 0
}
/// Segments work as on the 8086: real or virtual-8086 mode.
pub fn real_segments(state: &CpuState) -> bool {
    !protected(state) || vm86(state)
}
/// Long mode is active (EFER.LMA).
pub fn long(state: &CpuState) -> bool {
    get(state, regs::EFER) & efer::LMA != 0
}
/// The code segment is one of 64 bits.
pub fn code64(state: &CpuState) -> bool {
    long(state) && get32(state, regs::SEG_ATTR[regs::CS]) & attr::L != 0
}
pub fn cpl(state: &CpuState) -> u32 {
    get32(state, regs::CPL) & 3
}
pub fn iopl(state: &CpuState) -> u32 {
    get32(state, regs::EFLAGS) >> 12 & 3
}
pub fn intel(state: &CpuState) -> bool {
    model(state).chip().vendor == Vendor::Intel
}

/// Whether all bits above the 48 (57 with five-level paging) of a linear address equal the highest of them.
pub fn canonical(state: &CpuState, va: u64) -> bool {
    let unused = if get(state, regs::CR4) & super::cr4::LA57 != 0 { 7 } else { 16 };
    (va as i64) << unused >> unused == va as i64
}

/// A linear address as wide as the mode has them.
pub fn wrap(state: &CpuState, va: u64) -> u64 {
    if long(state) { va } else { va & 0xffff_ffff }
}

/// The MMU index of explicit accesses at a privilege level.
pub fn rights(state: &CpuState, cpl: u32) -> u8 {
    let ac = get32(state, regs::EFLAGS) & eflags::AC != 0;
    match cpl {
        3 => mmu::USER,
        _ if get(state, regs::CR4) & super::cr4::SMAP != 0 && !ac => mmu::KERNEL_SMAP,
        _ => mmu::KERNEL,
    }
}

/// Reads `1 << log2` bytes of a system structure.
pub fn read(cx: &mut HelperCx<'_>, va: u64, log2: u8) -> Fallible<u64> {
    let va = wrap(cx.state, va);
    Ok(cx.env.load(GuestVa(va), MemOp::of_log2(log2).with_mmu(mmu::SYSTEM))?)
}
pub fn write(cx: &mut HelperCx<'_>, va: u64, log2: u8, value: u64) -> Fallible<()> {
    let va = wrap(cx.state, va);
    Ok(cx.env.store(GuestVa(va), MemOp::of_log2(log2).with_mmu(mmu::SYSTEM), value)?)
}
/// Sets bits in the type byte of the descriptor at `at`, as one locked access; clears them if `clear`.
pub fn mark(cx: &mut HelperCx<'_>, at: u64, bits: u8, clear: bool) -> Fallible<()> {
    let va = wrap(cx.state, at.wrapping_add(5));
    let rmw = if clear { RmwOp::AndNot } else { RmwOp::Or };
    let op = MemOp::U8.with_mmu(mmu::SYSTEM);
    cx.env.rmw(GuestVa(va), op, rmw, bits as u64)?;
    Ok(())
}

/// A descriptor and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub selector: u16,
    pub raw: u64,
    pub at: u64,
    pub d: Descriptor,
}

impl Entry {
    /// Type and S bit: 0x10 and more are code and data.
    pub fn kind(&self) -> u32 {
        self.d.attr & 31
    }
    pub fn conforming(&self) -> bool {
        self.d.is_code() && self.d.attr & attr::DOWN != 0
    }
    pub fn writable(&self) -> bool {
        self.d.is_data() && self.d.attr & attr::RW != 0
    }
    pub fn readable(&self) -> bool {
        self.d.is_data() || self.d.is_code() && self.d.attr & attr::RW != 0
    }
    /// L without D; what long mode demands of 64-bit code.
    pub fn is_long(&self) -> bool {
        self.d.attr & attr::L != 0
    }
    /// Sets the accessed bit in the table.
    pub fn access(&mut self, cx: &mut HelperCx<'_>) -> Fallible<()> {
        if self.d.attr & attr::ACCESSED == 0 {
            mark(cx, self.at, 1, false)?;
            self.raw |= 1 << 40;
            self.d.attr |= attr::ACCESSED;
        }
        Ok(())
    }
}

pub fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// Base and limit of the table that the selector's TI bit names; `None` when there is no LDT.
fn table(state: &CpuState, selector: u16) -> Option<(u64, u32)> {
    if selector & 4 == 0 {
        return Some((get(state, regs::GDTR_BASE), get32(state, regs::GDTR_LIMIT)));
    }
    let present = get32(state, regs::LDTR_ATTR) & attr::P != 0;
    present.then(|| (get(state, regs::LDTR_BASE), get32(state, regs::LDTR_LIMIT)))
}

/// The descriptor of a selector; `None` when it lies beyond its table.
pub fn lookup(cx: &mut HelperCx<'_>, selector: u16) -> Fallible<Option<Entry>> {
    let Some((base, limit)) = table(cx.state, selector) else { return Ok(None) };
    if (selector | 7) as u32 > limit {
        return Ok(None);
    }
    let at = base.wrapping_add((selector & !7) as u64);
    let raw = read(cx, at, 3)?;
    Ok(Some(Entry { selector, raw, at, d: Descriptor::new(raw) }))
}

/// [`lookup`] of a descriptor that must be there, else the exception `vector`.
pub fn expect(cx: &mut HelperCx<'_>, selector: u16, vector: u32) -> Fallible<Entry> {
    lookup(cx, selector)?.ok_or(fault(vector, selector))
}

/// The upper half of a system descriptor of 16 bytes, whose own type field must be zero.
pub fn upper_half(cx: &mut HelperCx<'_>, entry: &Entry, vector: u32) -> Fallible<u64> {
    let inside = table(cx.state, entry.selector)
        .is_some_and(|(_, limit)| (entry.selector & !7) as u32 + 15 <= limit);
    fail_if(!inside, vector, entry.selector)?;
    let high = read(cx, entry.at.wrapping_add(8), 3)?;
    fail_if(high >> 40 & 31 != 0, vector, entry.selector)?;
    Ok(high)
}

/// Base of an LDT or TSS descriptor: 64 bits in long mode.
pub fn system_base(cx: &mut HelperCx<'_>, entry: &Entry, vector: u32) -> Fallible<u64> {
    if !long(cx.state) {
        return Ok(entry.d.base as u64);
    }
    let base = upper_half(cx, entry, vector)? << 32 | entry.d.base as u64;
    fail_if(!canonical(cx.state, base), vector, entry.selector)?;
    Ok(base)
}

/// Writes a segment register in real mode.
pub fn set_real(state: &mut CpuState, seg: usize, selector: u16) {
    let size = get32(state, regs::SEG_ATTR[seg]) & (attr::DB | attr::G);
    set(state, regs::SEG[seg], selector as u64);
    set(state, regs::SEG_BASE[seg], (selector as u64) << 4);
    set(state, regs::SEG_ATTR[seg], (size | 0x93) as u64);
}
/// Writes a segment register in virtual-8086 mode.
pub fn set_vm86(state: &mut CpuState, seg: usize, selector: u16) {
    set(state, regs::SEG[seg], selector as u64);
    set(state, regs::SEG_BASE[seg], (selector as u64) << 4);
    set(state, regs::SEG_LIMIT[seg], 0xffff);
    set(state, regs::SEG_ATTR[seg], 0xf3);
}
/// [`set_real`] or [`set_vm86`].
pub fn set_8086(state: &mut CpuState, seg: usize, selector: u16) {
    if protected(state) {
        set_vm86(state, seg, selector);
    } else {
        set_real(state, seg, selector);
    }
}
/// Loads a null selector: the segment cannot be used.
pub fn set_null(state: &mut CpuState, seg: usize, selector: u16) {
    let keep = seg >= regs::FS && long(state) && !intel(state);
    set(state, regs::SEG[seg], selector as u64);
    if !keep {
        set(state, regs::SEG_BASE[seg], 0);
    }
    set(state, regs::SEG_LIMIT[seg], 0);
    // The privilege level of SS is the processor's.
    let level = if seg == regs::SS { (selector as u64 & 3) << 5 } else { 0 };
    set(state, regs::SEG_ATTR[seg], level);
}
/// Writes CS from its descriptor, at privilege level `cpl`.
pub fn set_code(state: &mut CpuState, entry: &Entry, cpl: u32) {
    set_segment(state, regs::CS, entry.selector & !3 | cpl as u16, entry.raw);
    set(state, regs::CPL, cpl as u64);
}

/// Checks a selector for DS, ES, FS or GS and reads its descriptor; `None` for a null selector. The accessed bit
/// is not set yet.
pub fn check_data(cx: &mut HelperCx<'_>, selector: u16, vector: u32) -> Fallible<Option<Entry>> {
    if is_null(selector) {
        return Ok(None);
    }
    let entry = expect(cx, selector, vector)?;
    let (cpl, rpl) = (cpl(cx.state), selector as u32 & 3);
    let level = entry.d.dpl();
    let bad = !entry.readable() || !entry.conforming() && (rpl > level || cpl > level);
    fail_if(bad, vector, selector)?;
    fail_if(!entry.d.present(), NP, selector)?;
    Ok(Some(entry))
}

/// Checks a selector for SS at privilege level `cpl`, which is no null selector.
pub fn check_stack(cx: &mut HelperCx<'_>, selector: u16, cpl: u32, vector: u32) -> Fallible<Entry> {
    let entry = expect(cx, selector, vector)?;
    let bad = selector as u32 & 3 != cpl || !entry.writable() || entry.d.dpl() != cpl;
    fail_if(bad, vector, selector)?;
    fail_if(!entry.d.present(), SS, selector)?;
    Ok(entry)
}

/// MOV, POP and LxS to a segment register other than CS.
pub fn load(cx: &mut HelperCx<'_>, seg: usize, selector: u16) -> Fallible<()> {
    if real_segments(cx.state) {
        set_8086(cx.state, seg, selector);
        return Ok(());
    }
    if seg == regs::SS {
        let level = cpl(cx.state);
        if is_null(selector) {
            let good = code64(cx.state) && level < 3 && selector as u32 & 3 == level;
            fail_if(!good, GP, 0)?;
            set_null(cx.state, seg, selector);
            return Ok(());
        }
        let mut entry = check_stack(cx, selector, level, GP)?;
        entry.access(cx)?;
        set_segment(cx.state, seg, selector, entry.raw);
        return Ok(());
    }
    match check_data(cx, selector, GP)? {
        None => set_null(cx.state, seg, selector),
        Some(mut entry) => {
            entry.access(cx)?;
            set_segment(cx.state, seg, selector, entry.raw);
        }
    }
    Ok(())
}

/// A return to less privilege takes away the data segments that need more.
pub fn drop_privileged(state: &mut CpuState) {
    let level = cpl(state);
    for seg in [regs::ES, regs::DS, regs::FS, regs::GS] {
        let rights = get32(state, regs::SEG_ATTR[seg]);
        let data = rights & (attr::S | attr::CODE) == attr::S;
        let code = rights & (attr::S | attr::CODE | attr::DOWN) == attr::S | attr::CODE;
        let null = is_null(get(state, regs::SEG[seg]) as u16);
        if !null && (data || code) && rights >> 5 & 3 < level {
            set_null(state, seg, 0);
        }
    }
}

/// LLDT
pub fn load_ldt(cx: &mut HelperCx<'_>, selector: u16, vector: u32) -> Fallible<()> {
    if is_null(selector) {
        set(cx.state, regs::LDTR, selector as u64);
        set(cx.state, regs::LDTR_ATTR, 0);
        return Ok(());
    }
    fail_if(selector & 4 != 0, vector, selector)?;
    let entry = expect(cx, selector, vector)?;
    fail_if(entry.kind() != 2, vector, selector)?;
    let absent = if vector == TS { TS } else { NP };
    fail_if(!entry.d.present(), absent, selector)?;
    let base = system_base(cx, &entry, vector)?;
    set(cx.state, regs::LDTR, selector as u64);
    set(cx.state, regs::LDTR_BASE, base);
    set(cx.state, regs::LDTR_LIMIT, entry.d.limit as u64);
    set(cx.state, regs::LDTR_ATTR, entry.d.attr as u64);
    Ok(())
}

/// Bit of a TSS descriptor's type: busy.
pub const BUSY: u8 = 2;

/// Writes TR from a descriptor, which is busy now.
pub fn set_task(state: &mut CpuState, entry: &Entry, base: u64) {
    set(state, regs::TR, entry.selector as u64);
    set(state, regs::TR_BASE, base);
    set(state, regs::TR_LIMIT, entry.d.limit as u64);
    set(state, regs::TR_ATTR, (entry.d.attr | BUSY as u32) as u64);
}

/// LTR
pub fn load_task(cx: &mut HelperCx<'_>, selector: u16) -> Fallible<()> {
    fail_if(is_null(selector), GP, 0)?;
    fail_if(selector & 4 != 0, GP, selector)?;
    let entry = expect(cx, selector, GP)?;
    let small = entry.kind() == 1 && !long(cx.state);
    fail_if(!small && entry.kind() != 9, GP, selector)?;
    fail_if(!entry.d.present(), NP, selector)?;
    let base = system_base(cx, &entry, GP)?;
    mark(cx, entry.at, BUSY, false)?;
    set_task(cx.state, &entry, base);
    Ok(())
}

/// What LAR, LSL, VERR and VERW ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    Rights,
    Limit,
    Read,
    Write,
}

/// The answer, `None` for a clear ZF.
pub fn ask(cx: &mut HelperCx<'_>, question: Question, selector: u16) -> Fallible<Option<u32>> {
    if is_null(selector) {
        return Ok(None);
    }
    let Some(entry) = lookup(cx, selector)? else { return Ok(None) };
    let long = long(cx.state);
    let shown = match (question, entry.kind()) {
        (Question::Rights | Question::Limit, 16..) => true,
        (Question::Rights, kind) if long => matches!(kind, 2 | 9 | 11 | 12),
        (Question::Rights, kind) => matches!(kind, 1..=5 | 9 | 11 | 12),
        (Question::Limit, kind) if long => matches!(kind, 2 | 9 | 11),
        (Question::Limit, kind) => matches!(kind, 1..=3 | 9 | 11),
        (Question::Read, _) => entry.readable(),
        (Question::Write, _) => entry.writable(),
    };
    let (cpl, rpl, level) = (cpl(cx.state), selector as u32 & 3, entry.d.dpl());
    if !shown || !entry.conforming() && (cpl > level || rpl > level) {
        return Ok(None);
    }
    // A system descriptor of long mode has a second half, which must be there and of type 0.
    if long && entry.kind() < 16 {
        match upper_half(cx, &entry, GP) {
            Err(Trap::Guest { .. }) => return Ok(None),
            other => other?,
        };
    }
    Ok(Some(match question {
        Question::Rights => (entry.raw >> 32) as u32 & 0x00ff_ff00,
        _ => entry.d.limit,
    }))
}
