//! Tasks and the hardware task switch (the manual, volume 3, chapter 8).
//!
//! [`switch`] first reads and checks everything that belongs to the old task, and touches what it will write. Then it
//! saves and loads; from there on faults belong to the new task: the state and the pc are the new task's when it fails.
//! [`finish`] raises the debug trap of the T flag when all else went well. There is no task switch in long mode.
//!
//! The limit of the old task's segment is not checked. TR keeps the requested privilege level of the selector.
//!
//! Where the manual says nothing: a 16-bit task state segment leaves the upper halves of the general registers as
//! they were, and clears those of EFLAGS, FS and GS.

use super::control::write_cr3;
use super::segment::{
    self, BUSY, Entry, Fallible, TS, cpl, expect, fail_if, get, get32, is_null, load_ldt, mark,
    read, set, set_code, set_null, set_task, set_vm86, write,
};
use super::{cr0, debug};
use crate::regs::{self, eflags};
use crate::segment::{GP, NP, set_segment};
use tulk_base::{GuestVa, MemOp, RmwOp, Trap};
use tulk_ir::HelperCx;

/// What switches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Jump,
    /// CALL, interrupts and exceptions: the new task can return.
    Nested,
    /// IRET
    Return,
}

/// Where a task state segment has what.
struct Format {
    log2: u8,
    /// Its smallest limit.
    limit: u32,
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    /// The first of eight.
    general: u64,
    /// The first of `segments`, 1 << log2 bytes apart.
    selectors: u64,
    segments: usize,
    ldt: u64,
    trap: Option<u64>,
}

const WIDE: Format = Format {
    log2: 2,
    limit: 0x67,
    cr3: Some(0x1c),
    ip: 0x20,
    flags: 0x24,
    general: 0x28,
    selectors: 0x48,
    segments: 6,
    ldt: 0x60,
    trap: Some(0x64),
};
const NARROW: Format = Format {
    log2: 1,
    limit: 0x2b,
    cr3: None,
    ip: 0x0e,
    flags: 0x10,
    general: 0x12,
    selectors: 0x22,
    segments: 4,
    ldt: 0x2a,
    trap: None,
};

fn format(attr: u32) -> &'static Format {
    if attr & 8 != 0 { &WIDE } else { &NARROW }
}

/// The descriptor of a task that may be started; `vector` is raised when the selector names something else.
pub fn available(cx: &mut HelperCx<'_>, selector: u16, vector: u32) -> Fallible<Entry> {
    fail_if(is_null(selector) || selector & 4 != 0, vector, selector)?;
    let entry = expect(cx, selector, vector)?;
    fail_if(!matches!(entry.kind(), 1 | 9), vector, selector)?;
    fail_if(!entry.d.present(), NP, selector)?;
    Ok(entry)
}

/// The task that the current one returns to.
pub fn previous(cx: &mut HelperCx<'_>) -> Fallible<Entry> {
    let base = get(cx.state, regs::TR_BASE);
    let selector = read(cx, base, 1)? as u16;
    fail_if(is_null(selector) || selector & 4 != 0, TS, selector)?;
    let entry = expect(cx, selector, TS)?;
    fail_if(!matches!(entry.kind(), 3 | 11), TS, selector)?;
    fail_if(!entry.d.present(), NP, selector)?;
    Ok(entry)
}

/// What a task state segment holds.
#[derive(Default)]
struct Image {
    cr3: Option<u64>,
    ip: u64,
    flags: u32,
    general: [u64; 8],
    selectors: [u16; 6],
    ldt: u16,
}

fn read_image(cx: &mut HelperCx<'_>, base: u64, f: &Format) -> Fallible<Image> {
    let mut image = Image::default();
    if let Some(at) = f.cr3 {
        image.cr3 = Some(read(cx, base.wrapping_add(at), 2)?);
    }
    image.ip = read(cx, base.wrapping_add(f.ip), f.log2)?;
    image.flags = read(cx, base.wrapping_add(f.flags), f.log2)? as u32;
    for n in 0..8 {
        image.general[n] = read(cx, base.wrapping_add(f.general + ((n as u64) << f.log2)), f.log2)?;
    }
    for n in 0..f.segments {
        image.selectors[n] =
            read(cx, base.wrapping_add(f.selectors + ((n as u64) << f.log2)), 1)? as u16;
    }
    image.ldt = read(cx, base.wrapping_add(f.ldt), 1)? as u16;
    Ok(image)
}

fn save(cx: &mut HelperCx<'_>, base: u64, f: &Format, ip: u64, flags: u32) -> Fallible<()> {
    write(cx, base.wrapping_add(f.ip), f.log2, ip)?;
    write(cx, base.wrapping_add(f.flags), f.log2, flags as u64)?;
    for n in 0..8 {
        let v = get(cx.state, regs::GPR[n]);
        write(cx, base.wrapping_add(f.general + ((n as u64) << f.log2)), f.log2, v)?;
    }
    for n in 0..f.segments {
        let v = get(cx.state, regs::SEG[n]);
        write(cx, base.wrapping_add(f.selectors + ((n as u64) << f.log2)), 1, v)?;
    }
    Ok(())
}

/// Switches to the task of `entry` (from [`available`] or [`previous`]). The old task goes on at linear `next` with
/// `flags`.
pub fn switch(
    cx: &mut HelperCx<'_>,
    entry: Entry,
    way: Way,
    next: u64,
    flags: u32,
) -> Fallible<()> {
    let new = format(entry.d.attr);
    fail_if(entry.d.limit < new.limit, TS, entry.selector)?;
    let old = format(get32(cx.state, regs::TR_ATTR));
    let (old_base, new_base) = (get(cx.state, regs::TR_BASE), entry.d.base as u64);
    let old_selector = get(cx.state, regs::TR) as u16;
    let ip = super::gate::instruction_pointer(cx.state, next);
    let image = read_image(cx, new_base, new)?;
    let old_entry = expect(cx, old_selector, TS)?;
    let flags = if way == Way::Return { flags & !eflags::NT } else { flags };

    // What is written below must not fail halfway: the old segment's ends and the descriptors are touched.
    for at in [old_base.wrapping_add(old.ip), old_base.wrapping_add(old.ldt)] {
        let op = MemOp::U8.with_mmu(super::mmu::SYSTEM);
        cx.env.rmw(GuestVa(at & 0xffff_ffff), op, RmwOp::Or, 0)?;
    }
    for descriptor in [old_entry.at, entry.at] {
        mark(cx, descriptor, 0, false)?;
    }
    if way == Way::Nested {
        write(cx, new_base, 1, old_selector as u64)?;
    } else {
        mark(cx, old_entry.at, BUSY, true)?;
    }
    if way != Way::Return {
        mark(cx, entry.at, BUSY, false)?;
    }
    save(cx, old_base, old, ip, flags)?;
    load(cx, &entry, image, new, way)
}

/// Makes the new task the present one.
fn load(cx: &mut HelperCx<'_>, entry: &Entry, image: Image, f: &Format, way: Way) -> Fallible<()> {
    let state = &mut *cx.state;
    set_task(state, entry, entry.d.base as u64);
    let ts = get(state, regs::CR0) | cr0::TS;
    set(state, regs::CR0, ts);
    // Local breakpoints were the old task's.
    let armed = get(state, regs::DR[7]) & !0x155;
    set(state, regs::DR[7], armed);
    set(state, regs::SHADOW, 0);
    for (slot, value) in regs::GPR.into_iter().zip(image.general) {
        let kept = if f.log2 == 1 { get(state, slot) & 0xffff_0000 } else { 0 };
        set(state, slot, kept | value);
    }
    let nested = if way == Way::Nested { eflags::NT } else { 0 };
    let flags = image.flags & 0x003f_7fd7 | nested;
    let virtual8086 = flags & eflags::VM != 0;
    regs::set_eflags(state, flags);
    // Selectors first: a fault shows them all.
    let level = if virtual8086 { 3 } else { image.selectors[regs::CS] as u32 & 3 };
    set(state, regs::CPL, level as u64);
    for (seg, &selector) in image.selectors.iter().enumerate() {
        match virtual8086 {
            true => set_vm86(state, seg, selector),
            false => set_null(state, seg, selector),
        }
    }
    set(state, regs::LDTR, image.ldt as u64);
    set(state, regs::LDTR_ATTR, 0);
    state.set_pc(image.ip & 0xffff_ffff);
    if let Some(cr3) = image.cr3.filter(|_| get(state, regs::CR0) & cr0::PG != 0) {
        write_cr3(cx, cr3)?;
    }
    load_ldt(cx, image.ldt, TS)?;
    if !virtual8086 {
        load_segments(cx, &image.selectors)?;
    }
    let base = get(cx.state, regs::SEG_BASE[regs::CS]);
    cx.state.set_pc((base + image.ip) & 0xffff_ffff);
    let limit = get32(cx.state, regs::SEG_LIMIT[regs::CS]);
    fail_if(image.ip > limit as u64, GP, 0)
}

fn load_segments(cx: &mut HelperCx<'_>, selectors: &[u16; 6]) -> Fallible<()> {
    let level = cpl(cx.state);
    let cs = selectors[regs::CS];
    fail_if(is_null(cs), TS, cs)?;
    let mut code = expect(cx, cs, TS)?;
    let dpl = code.d.dpl();
    let bad = if code.conforming() { dpl > level } else { dpl != level };
    fail_if(!code.d.is_code() || bad, TS, cs)?;
    fail_if(!code.d.present(), NP, cs)?;
    code.access(cx)?;
    let ip = cx.state.pc();
    set_code(cx.state, &code, level);
    cx.state.set_pc((code.d.base as u64 + ip) & 0xffff_ffff);

    let ss = selectors[regs::SS];
    fail_if(is_null(ss), TS, ss)?;
    let mut stack = segment::check_stack(cx, ss, level, TS)?;
    stack.access(cx)?;
    set_segment(cx.state, regs::SS, ss, stack.raw);

    for seg in [regs::ES, regs::DS, regs::FS, regs::GS] {
        if let Some(mut entry) = segment::check_data(cx, selectors[seg], TS)? {
            entry.access(cx)?;
            set_segment(cx.state, seg, entry.selector, entry.raw);
        }
    }
    Ok(())
}

/// The debug trap of the new task's T flag.
pub fn finish(cx: &mut HelperCx<'_>) -> Fallible<()> {
    let Some(at) = format(get32(cx.state, regs::TR_ATTR)).trap else { return Ok(()) };
    let base = get(cx.state, regs::TR_BASE);
    if read(cx, base.wrapping_add(at), 1)? & 1 != 0 {
        return Err(Trap::Guest { vector: 1, code: debug::DR6_BT });
    }
    Ok(())
}
