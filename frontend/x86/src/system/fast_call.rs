//! Fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT (the manual, volume 3, section 5.8.7; AMD's manual, volume 2,
//! section 6.1).
//!
//! | | Intel | AMD |
//! |---|---|---|
//! | SYSCALL, SYSRET outside of 64-bit mode | #UD | CSTAR in compatibility mode, STAR in legacy mode |
//! | SYSRET to an address that is not canonical | #GP(0) in the kernel | faults at the target |
//! | SYSRET's SS | base, limit and rights are set | only selector and privilege level |
//! | SYSENTER, SYSEXIT in long mode | as elsewhere, 64-bit entry | #UD |
//!
//! SYSCALL and SYSRET single-step with the trap flag that they leave, SYSENTER and SYSEXIT with the one that they found.

use super::segment::{Fallible, canonical, code64, cpl, fail_if, get, intel, long, protected, set};
use super::{cr0, efer};
use crate::regs::{self, eflags};
use crate::segment::{GP, attr, set_segment};
use tulk_base::{CpuState, Trap};
use tulk_ir::HelperCx;

/// Flat segments: 64-bit code, 32-bit code, data; at CPL 0.
pub const CODE64: u64 = 0x00af_9b00_0000_ffff;
pub const CODE32: u64 = 0x00cf_9b00_0000_ffff;
pub const DATA: u64 = 0x00cf_9300_0000_ffff;
/// DPL 3 in a descriptor.
pub const USER: u64 = 3 << 45;

/// Flags that SYSRET takes from R11.
pub const SYSRET_FLAGS: u64 = 0x003c_7fd7;

/// Sets CS, SS and the privilege level to flat segments.
fn enter(state: &mut CpuState, cs: u16, ss: u16, code: u64, level: u32) {
    let user = if level == 3 { USER } else { 0 };
    set_segment(state, regs::CS, cs & !3 | level as u16, code | user);
    set_segment(state, regs::SS, ss & !3 | level as u16, DATA | user);
    set(state, regs::CPL, level as u64);
}

/// Goes to `pc`, past a debug trap when the trap flag is set now.
fn stepped(state: &mut CpuState, pc: u64) -> Fallible<u64> {
    if regs::eflags(state) & eflags::TF != 0 {
        state.set_pc(pc);
        return Err(Trap::Guest { vector: 1, code: 0 });
    }
    Ok(pc)
}

fn enabled(state: &CpuState) -> Fallible<()> {
    let on = get(state, regs::EFER) & efer::SCE != 0 && protected(state);
    if !on || intel(state) && !code64(state) { Err(Trap::Illegal) } else { Ok(()) }
}

/// SYSCALL; `next` is the linear pc behind it.
pub fn syscall(cx: &mut HelperCx<'_>, next: u64) -> Fallible<u64> {
    let state = &mut *cx.state;
    enabled(state)?;
    let star = get(state, regs::STAR);
    let kernel = (star >> 32) as u16 & !3;
    let flags = regs::eflags(state);
    let ip = super::gate::instruction_pointer(state, next);
    if !long(state) {
        set(state, regs::RCX, ip);
        regs::set_eflags(state, flags & !(eflags::VM | eflags::IF | eflags::RF));
        enter(state, kernel, kernel.wrapping_add(8), CODE32, 0);
        return stepped(state, star & 0xffff_ffff);
    }
    let wide = code64(state);
    set(state, regs::RCX, ip);
    set(state, regs::GPR[11], (flags & !eflags::RF) as u64);
    let mask = get(state, regs::SFMASK) as u32;
    regs::set_eflags(state, flags & !(mask | eflags::RF));
    enter(state, kernel, kernel.wrapping_add(8), CODE64, 0);
    let pc = get(state, if wide { regs::LSTAR } else { regs::CSTAR });
    stepped(state, pc)
}

/// SYSRET with an operand size of 64 bits (`wide`) or 32.
pub fn sysret(cx: &mut HelperCx<'_>, wide: bool) -> Fallible<u64> {
    let state = &mut *cx.state;
    enabled(state)?;
    fail_if(cpl(state) != 0, GP, 0)?;
    let selector = (get(state, regs::STAR) >> 48) as u16;
    let rcx = get(state, regs::RCX);
    let ss = selector.wrapping_add(8) & !3 | 3;
    let hidden = [regs::SEG_BASE, regs::SEG_LIMIT, regs::SEG_ATTR]
        .map(|slots| (slots[regs::SS], get(state, slots[regs::SS])));
    let pc = if wide { rcx } else { rcx & 0xffff_ffff };
    fail_if(wide && intel(state) && !canonical(state, pc), GP, 0)?;
    if long(state) {
        let flags = get(state, regs::GPR[11]) & SYSRET_FLAGS;
        regs::set_eflags(state, flags as u32);
    } else {
        let flags = regs::eflags(state);
        regs::set_eflags(state, flags | eflags::IF);
    }
    match wide {
        true => enter(state, selector.wrapping_add(16), ss, CODE64, 3),
        false => enter(state, selector, ss, CODE32, 3),
    }
    if !intel(state) {
        for (slot, value) in hidden {
            let level = if slot == regs::SEG_ATTR[regs::SS] { attr::DPL as u64 } else { 0 };
            set(state, slot, value | level);
        }
    }
    stepped(state, pc)
}

fn sysenter_selector(state: &CpuState) -> Fallible<u16> {
    if long(state) && !intel(state) {
        return Err(Trap::Illegal);
    }
    let selector = get(state, regs::SYSENTER_CS) as u16;
    let real = get(state, regs::CR0) & cr0::PE == 0;
    fail_if(real || selector & !3 == 0, GP, 0)?;
    Ok(selector & !3)
}

/// SYSENTER
pub fn sysenter(cx: &mut HelperCx<'_>) -> Fallible<u64> {
    let state = &mut *cx.state;
    let selector = sysenter_selector(state)?;
    let flags = regs::eflags(state);
    regs::set_eflags(state, flags & !(eflags::VM | eflags::IF | eflags::RF));
    let wide = long(state);
    enter(state, selector, selector.wrapping_add(8), if wide { CODE64 } else { CODE32 }, 0);
    let mask = if wide { u64::MAX } else { 0xffff_ffff };
    let sp = get(state, regs::SYSENTER_ESP) & mask;
    set(state, regs::RSP, sp);
    Ok(get(state, regs::SYSENTER_EIP) & mask)
}

/// SYSEXIT with an operand size of 64 bits (`wide`) or 32.
pub fn sysexit(cx: &mut HelperCx<'_>, wide: bool) -> Fallible<u64> {
    let state = &mut *cx.state;
    let selector = sysenter_selector(state)?;
    fail_if(cpl(state) != 0, GP, 0)?;
    let mask = if wide { u64::MAX } else { 0xffff_ffff };
    let (sp, pc) = (get(state, regs::RCX) & mask, get(state, regs::RDX) & mask);
    fail_if(wide && !(canonical(state, sp) && canonical(state, pc)), GP, 0)?;
    let cs = selector.wrapping_add(if wide { 32 } else { 16 });
    enter(state, cs, cs.wrapping_add(8), if wide { CODE64 } else { CODE32 }, 3);
    set(state, regs::RSP, sp);
    Ok(pc)
}
