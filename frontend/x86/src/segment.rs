//! Segments: descriptors, loads of segment registers, limit checks, and far transfers.
//!
//! In user mode descriptors come from the few that Linux keeps in its GDT, from the thread's TLS descriptors
//! ([`regs::GDT_TLS`]), and from the LDT. The LDT belongs to the kernel's side: a load that needs it ends in
//! `Trap::Guest` with [`WANT_DESCRIPTOR`] and the selector as code; whoever handles that writes
//! [`regs::DESC_SELECTOR`] and [`regs::DESC`] (0 when there is no such descriptor) and resumes at the same pc.

use crate::helpers::{FIRST_SEGMENT, helpers};
use crate::regs::{self, cell};
use tulk_base::{CpuState, Trap};
use tulk_ir::{Access, HelperCx, Slot};

/// Vector of the request for an LDT descriptor; the code is the selector.
pub const WANT_DESCRIPTOR: u32 = 0x100;

/// Exception vectors.
pub const UD: u32 = 6;
pub const NP: u32 = 11;
pub const SS: u32 = 12;
pub const GP: u32 = 13;

/// Access rights: bits 55:40 of a descriptor (their bits 11:8, the limit's top, are cleared).
pub mod attr {
    use crate::regs;

    pub const ACCESSED: u32 = 1;
    /// Data: writable. Code: readable.
    pub const RW: u32 = 2;
    /// Data: expands down. Code: conforming.
    pub const DOWN: u32 = 4;
    pub const CODE: u32 = 8;
    /// Not a system segment.
    pub const S: u32 = 1 << 4;
    pub const DPL: u32 = 3 << 5;
    pub const P: u32 = 1 << 7;
    pub const L: u32 = 1 << 13;
    pub const DB: u32 = 1 << 14;
    pub const G: u32 = 1 << 15;

    /// Whether every access that code can try passes the checks: a present, expand-up segment of 4 GiB,
    /// writable unless it is CS.
    pub const fn is_open(seg: usize, limit: u32, access: u32) -> bool {
        let data = access & (P | S | CODE | RW | DOWN) == P | S | RW;
        let code = access & (P | S | CODE | RW) == P | S | CODE | RW;
        limit == u32::MAX && (data || code && seg == regs::CS)
    }
}

/// A descriptor taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    pub base: u32,
    /// In bytes, inclusive.
    pub limit: u32,
    pub attr: u32,
}

impl Descriptor {
    pub const fn new(raw: u64) -> Descriptor {
        let base = (raw >> 16 & 0xff_ffff | raw >> 32 & 0xff00_0000) as u32;
        let attr = (raw >> 40) as u32 & 0xf0ff;
        let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
        let limit = if attr & attr::G != 0 { limit << 12 | 0xfff } else { limit };
        Descriptor { base, limit, attr }
    }
    pub const fn dpl(&self) -> u32 {
        self.attr >> 5 & 3
    }
    pub const fn is_code(&self) -> bool {
        self.attr & (attr::S | attr::CODE) == attr::S | attr::CODE
    }
    pub const fn is_data(&self) -> bool {
        self.attr & (attr::S | attr::CODE) == attr::S
    }
    pub const fn present(&self) -> bool {
        self.attr & attr::P != 0
    }
}

/// Selectors of 64-bit Linux.
pub const USER32_CS: u16 = 0x23;
pub const USER_DS: u16 = 0x2b;
pub const USER_CS: u16 = 0x33;
/// GDT entry whose limit tells the processor and node, for `getcpu`.
const GDT_CPU: usize = 15;

/// The descriptor of a selector, `None` when its index is beyond the table or the entry empty.
pub fn descriptor(cx: &mut HelperCx<'_>, selector: u16) -> Result<Option<u64>, Trap> {
    let index = selector as usize >> 3;
    let raw = if selector & 4 == 0 {
        match index {
            4 => 0x00cf_fb00_0000_ffff,
            5 => 0x00cf_f300_0000_ffff,
            6 => 0x00af_fb00_0000_ffff,
            GDT_CPU => 0x0040_f500_0000_0000 | cx.env.processor_id() as u64 & 0xfff,
            n if (regs::GDT_TLS_FIRST..regs::GDT_TLS_FIRST + 3).contains(&n) => {
                cx.state.get(cell(regs::GDT_TLS[n - regs::GDT_TLS_FIRST]))
            }
            _ => 0,
        }
    } else {
        let delivered = cell(regs::DESC_SELECTOR);
        if cx.state.get(delivered) != regs::DESC_VALID | (selector & !3) as u64 {
            return Err(Trap::Guest { vector: WANT_DESCRIPTOR, code: (selector & !3) as u32 });
        }
        cx.state.set(delivered, 0);
        cx.state.get(cell(regs::DESC))
    };
    Ok((raw != 0).then_some(raw))
}

fn fault(vector: u32, selector: u16) -> Trap {
    Trap::Guest { vector, code: (selector & !3) as u32 }
}

/// Writes a segment register's visible and hidden part.
pub fn set_segment(state: &mut CpuState, seg: usize, selector: u16, raw: u64) {
    let d = Descriptor::new(raw);
    state.set(cell(regs::SEG[seg]), selector as u64);
    state.set(cell(regs::SEG_BASE[seg]), d.base as u64);
    state.set(cell(regs::SEG_LIMIT[seg]), d.limit as u64);
    state.set(cell(regs::SEG_ATTR[seg]), d.attr as u64);
}

/// The descriptor that MOV to DS, ES, FS, GS or SS at CPL 3 loads.
fn check_data(cx: &mut HelperCx<'_>, seg: usize, selector: u16) -> Result<u64, Trap> {
    if selector & !3 == 0 {
        return if seg == regs::SS { Err(fault(GP, 0)) } else { Ok(0) };
    }
    let Some(raw) = descriptor(cx, selector)? else { return Err(fault(GP, selector)) };
    let d = Descriptor::new(raw);
    let readable = d.is_data() || d.is_code() && d.attr & attr::RW != 0;
    let good = match seg {
        regs::SS => d.is_data() && d.attr & attr::RW != 0 && d.dpl() == 3 && selector & 3 == 3,
        // Conforming code may be read at any privilege.
        _ => readable && (d.is_code() && d.attr & attr::DOWN != 0 || d.dpl() == 3),
    };
    if !good {
        return Err(fault(GP, selector));
    }
    if !d.present() {
        return Err(fault(if seg == regs::SS { SS } else { NP }, selector));
    }
    Ok(raw)
}

/// The descriptor that a far jump, call or return to the same privilege level loads into CS.
fn check_code(cx: &mut HelperCx<'_>, selector: u16, is_return: bool) -> Result<u64, Trap> {
    if selector & !3 == 0 {
        return Err(fault(GP, 0));
    }
    let Some(raw) = descriptor(cx, selector)? else { return Err(fault(GP, selector)) };
    let d = Descriptor::new(raw);
    let conforming = d.attr & attr::DOWN != 0;
    let privilege = if is_return { selector & 3 == 3 } else { true };
    if !d.is_code() || !privilege || !(conforming || d.dpl() == 3) {
        return Err(fault(GP, selector));
    }
    if !d.present() {
        return Err(fault(NP, selector));
    }
    Ok(raw)
}

/// The linear pc of an offset in a code segment.
fn code_pc(raw: u64, offset: u64) -> Result<u64, Trap> {
    let d = Descriptor::new(raw);
    if d.attr & attr::L != 0 {
        return Ok(offset);
    }
    if offset > d.limit as u64 {
        return Err(fault(GP, 0));
    }
    Ok((d.base as u64 + offset) & 0xffff_ffff)
}

/// Segment number in the immediate.
fn segment_load(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (seg, selector) = (args[3] as usize, args[0] as u16);
    let raw = check_data(cx, seg, selector)?;
    set_segment(cx.state, seg, selector, raw);
    Ok(0)
}

/// Selector and offset; the new pc. Immediate: 1 for returns, 2 to only check the selector.
fn segment_far(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let selector = args[0] as u16;
    let raw = check_code(cx, selector, args[3] & 1 != 0)?;
    if args[3] & 2 != 0 {
        // The descriptor is needed once more.
        if selector & 4 != 0 {
            cx.state.set(cell(regs::DESC_SELECTOR), regs::DESC_VALID | (selector & !3) as u64);
        }
        return Ok(0);
    }
    let pc = code_pc(raw, args[1] as u64)?;
    set_segment(cx.state, regs::CS, selector | 3, raw);
    Ok(pc as u128)
}

/// Selector and offset, selector of SS; the new pc.
fn segment_far_stack(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (code, stack) = (args[0] as u16, args[2] as u16);
    // Descriptors of the LDT arrive one at a time: the first waits here for the second.
    let waits = cell(regs::DESC_WAITS);
    let tag = cx.state.pc() << 16 | code as u64;
    let raw = if code & 4 != 0 && cx.state.get(waits) == tag {
        cx.state.get(cell(regs::DESC_FIRST))
    } else {
        check_code(cx, code, true)?
    };
    cx.state.set(waits, 0);
    let ss = check_data(cx, regs::SS, stack);
    if code & 4 != 0 && matches!(ss, Err(Trap::Guest { vector: WANT_DESCRIPTOR, .. })) {
        cx.state.set(waits, tag);
        cx.state.set(cell(regs::DESC_FIRST), raw);
    }
    let (ss, pc) = (ss?, code_pc(raw, args[1] as u64)?);
    set_segment(cx.state, regs::CS, code | 3, raw);
    set_segment(cx.state, regs::SS, stack, ss);
    Ok(pc as u128)
}

/// Checks an access of `bytes` bytes at `offset` in a segment of 16- or 32-bit code.
pub fn check(
    state: &CpuState,
    seg: usize,
    offset: u32,
    bytes: u64,
    write: bool,
) -> Result<(), Trap> {
    let limit = state.get(cell(regs::SEG_LIMIT[seg])) as u32 as u64;
    let access = state.get(cell(regs::SEG_ATTR[seg])) as u32;
    let first = offset as u64;
    let last = first + bytes.max(1) - 1;
    let code = access & attr::CODE != 0;
    let usable = access & (attr::P | attr::S) == attr::P | attr::S;
    let allowed = match (code, write) {
        (true, true) => false,
        (true, false) | (false, true) => access & attr::RW != 0,
        (false, false) => true,
    };
    let inside = if !code && access & attr::DOWN != 0 {
        let top = if access & attr::DB != 0 { u32::MAX as u64 } else { 0xffff };
        first > limit && last <= top
    } else {
        // The whole 4 GiB wrap around.
        last <= limit || limit == u32::MAX as u64
    };
    if usable && allowed && inside {
        return Ok(());
    }
    Err(fault(if seg == regs::SS { SS } else { GP }, 0))
}

/// Offset; the immediate is bytes << 8 | write << 4 | segment.
fn segment_check(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let seg = args[3] as usize & 15;
    check(cx.state, seg, args[0] as u32, (args[3] >> 8) as u64, args[3] & 16 != 0)?;
    Ok(0)
}

/// Immediate: bytes of the instruction at the pc. #GP when it reaches beyond the limit of CS.
fn segment_check_code(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let base = cx.state.get(cell(regs::SEG_BASE[regs::CS])) as u32;
    let ip = (cx.state.pc() as u32).wrapping_sub(base) as u64;
    let limit = cx.state.get(cell(regs::SEG_LIMIT[regs::CS])) as u32 as u64;
    if ip + args[3] as u64 - 1 > limit {
        return Err(fault(GP, 0));
    }
    Ok(0)
}

/// An instruction pointer to jump to: #GP when it lies beyond the limit of CS.
fn segment_check_target(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let limit = cx.state.get(cell(regs::SEG_LIMIT[regs::CS])) as u32;
    if args[0] as u32 > limit { Err(fault(GP, 0)) } else { Ok(0) }
}

/// LAR (immediate 0), LSL (1), VERR (2), VERW (3) at CPL 3: bit 32 of the result is ZF.
fn segment_ask(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let selector = args[0] as u16;
    if selector & !3 == 0 {
        return Ok(0);
    }
    let Some(raw) = descriptor(cx, selector)? else { return Ok(0) };
    let d = Descriptor::new(raw);
    let conforming = d.is_code() && d.attr & attr::DOWN != 0;
    if !(conforming || d.dpl() == 3) {
        return Ok(0);
    }
    // System descriptors that LAR and LSL show: TSS, LDT; LAR also gates.
    let system = d.attr & attr::S == 0;
    let kind = d.attr & 15;
    let shown = match args[3] {
        0 => !system || matches!(kind, 1..=5 | 9 | 11 | 12),
        1 => !system || matches!(kind, 1..=3 | 9 | 11),
        2 => d.is_data() || d.is_code() && d.attr & attr::RW != 0,
        _ => d.is_data() && d.attr & attr::RW != 0,
    };
    if !shown {
        return Ok(0);
    }
    let value = match args[3] {
        0 => (raw >> 32) as u32 & 0x00ff_ff00,
        1 => d.limit,
        _ => 0,
    };
    Ok(1 << 32 | value as u128)
}

/// Everything that a segment load may write.
const HIDDEN: &[Slot] = &{
    let mut all = [Slot(0); 28];
    let mut i = 0;
    while i < 24 {
        all[i] = Slot(regs::SEG[0].0 + i as u16);
        i += 1;
    }
    all[24] = regs::DESC_SELECTOR;
    all[25] = regs::DESC;
    all[26] = regs::DESC_WAITS;
    all[27] = regs::DESC_FIRST;
    all
};
const READ: &[Slot] = &{
    let mut all = [Slot(0); 31];
    let mut i = 0;
    while i < 28 {
        all[i] = HIDDEN[i];
        i += 1;
    }
    all[28] = regs::GDT_TLS[0];
    all[29] = regs::GDT_TLS[1];
    all[30] = regs::GDT_TLS[2];
    all
};

helpers! { FIRST_SEGMENT;
    /// Selector; segment number in the immediate.
    LOAD = segment_load(I32) -> (), Access::These(READ), Access::These(HIDDEN), traps;
    /// Selector, offset; the new linear pc. Immediate: 1 for returns, 2 to only check the selector.
    FAR = segment_far(I32, I64) -> I64, Access::These(READ), Access::These(HIDDEN), traps;
    /// Selector, offset, selector of SS; the new linear pc. For returns that change both segments.
    FAR_STACK = segment_far_stack(I32, I64, I32) -> I64, Access::These(READ), Access::These(HIDDEN), traps;
    /// Offset; immediate bytes << 8 | write << 4 | segment.
    CHECK = segment_check(I32) -> (), Access::These(READ), Access::None, traps;
    /// Immediate: length of the instruction, which must lie within CS.
    CHECK_CODE = segment_check_code() -> (), Access::These(READ), Access::None, traps;
    /// Instruction pointer, which must lie within CS.
    CHECK_TARGET = segment_check_target(I32) -> (), Access::These(READ), Access::None, traps;
    /// Selector; immediate 0 LAR, 1 LSL, 2 VERR, 3 VERW. ZF is bit 32 of the result.
    ASK = segment_ask(I32) -> I64, Access::These(READ), Access::These(HIDDEN), traps;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors() {
        let flat = Descriptor::new(0x00cf_f300_0000_ffff);
        assert_eq!((flat.base, flat.limit, flat.dpl()), (0, u32::MAX, 3));
        assert!(attr::is_open(regs::DS, flat.limit, flat.attr) && flat.is_data());
        let code = Descriptor::new(0x00af_fb00_0000_ffff);
        assert!(code.is_code() && code.attr & attr::L != 0);
        let small = Descriptor::new(0x1240_f334_5678_0fff);
        assert_eq!((small.base, small.limit), (0x1234_5678, 0xfff));
        assert!(!attr::is_open(regs::DS, small.limit, small.attr));
    }
}
