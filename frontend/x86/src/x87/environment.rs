//! FLDENV, FNSTENV, FNSAVE and FRSTOR: the environment in memory (the manual, volume 1, 8.1.10), in the protected-mode
//! formats of 32 and 16 bits.

use super::unit::{EXCEPTIONS, Unit};
use crate::fpstate::Area;
use crate::lifter::Lifter;
use crate::operand::Intent;
use crate::regs::{self, cell};
use iced_x86::Instruction;
use tulk_base::Trap;
use tulk_ir::{HelperCx, Slot};
use tulk_softfloat::{F80, FpClass, classify, f80_from_parts, f80_parts};

/// All x87 slots.
pub const ALL: &[Slot] = &{
    let mut all = [regs::FTOP; 25];
    let mut n = 0;
    while n < 8 {
        all[n] = regs::FPR_SIG[n];
        all[8 + n] = regs::FPR_EXP[n];
        n += 1;
    }
    let rest =
        [regs::FCW, regs::FSW, regs::FTAG, regs::FIP, regs::FDP, regs::FCS, regs::FDS, regs::FOP];
    n = 0;
    while n < 8 {
        all[17 + n] = rest[n];
        n += 1;
    }
    all
};

// Immediates: bit 0 the 32-bit form, bit 1 with the registers, bit 2 in 64-bit code.
const WIDE: u64 = 1;
const REGISTERS: u64 = 2;
const LONG: u64 = 4;

/// Bytes that a form takes.
fn size(form: u64) -> u64 {
    let environment = if form & WIDE != 0 { 28 } else { 14 };
    environment + if form & REGISTERS != 0 { 80 } else { 0 }
}

/// Bytes of its first word.
fn word(form: u64) -> u32 {
    if form & WIDE != 0 { 4 } else { 2 }
}

fn access(l: &mut Lifter<'_>, insn: &Instruction, registers: bool, intent: Intent, helper: u32) {
    let bytes = insn.memory_size().size() as u32;
    let wide = bytes == 28 || bytes == 108;
    let addr = l.address(insn, bytes, intent);
    let va = l.flat(addr);
    let long = if l.key.long() { LONG } else { 0 };
    let form = if registers { REGISTERS } else { 0 } | if wide { WIDE } else { 0 } | long;
    l.call(helper, &[va], form as i64);
    l.forget_selectors();
    l.resync();
}

/// FNSTENV m: also masks all exceptions
pub fn store(l: &mut Lifter<'_>, insn: &Instruction) {
    access(l, insn, false, Intent::Write, super::STORE_ENVIRONMENT);
}

/// FNSAVE m: also resets the unit
pub fn save(l: &mut Lifter<'_>, insn: &Instruction) {
    access(l, insn, true, Intent::Write, super::STORE_ENVIRONMENT);
}

/// FLDENV m
pub fn load(l: &mut Lifter<'_>, insn: &Instruction) {
    super::start(l);
    access(l, insn, false, Intent::Read, super::LOAD_ENVIRONMENT);
}

/// FRSTOR m
pub fn restore(l: &mut Lifter<'_>, insn: &Instruction) {
    super::start(l);
    access(l, insn, true, Intent::Read, super::LOAD_ENVIRONMENT);
}

/// The full tag word: valid 0, zero 1, special 2, empty 3 for each physical register.
pub fn tag_word(unit: &Unit<'_>) -> u16 {
    (0..8).fold(0, |word, i| {
        let n = unit.top().wrapping_add(i) & 7;
        let tag = match classify::<F80>(unit.get(i)).1 {
            _ if unit.is_empty(i) => 3,
            FpClass::Normal => 0,
            FpClass::Zero => 1,
            _ => 2,
        };
        word | tag << (2 * n)
    })
}

/// The abridged form of a tag word.
fn abridged(word: u16) -> u8 {
    (0..8).fold(0, |tag, n| tag | ((word >> (2 * n) & 3 != 3) as u8) << n)
}

pub fn x87_store_environment(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let form = args[3] as u64;
    let wide = form & WIDE != 0;
    let unit = Unit(cx.state);
    let words = [unit.fcw(), unit.fsw() | (unit.top() as u16) << 11, tag_word(&unit)];
    let registers: [u128; 8] = std::array::from_fn(|i| unit.get(i as u8));
    let get = |slot| cx.state.get(cell(slot));
    let (fip, fdp, fop) = (get(regs::FIP) as u32, get(regs::FDP) as u32, get(regs::FOP) as u32);
    let (fcs, fds) = (get(regs::FCS) as u32 & 0xffff, get(regs::FDS) as u32 & 0xffff);
    let area = Area::new(cx.state, args[0] as u64, form & LONG != 0);
    area.probe(cx.env, size(form), word(form), true)?;
    if wide {
        let upper = |w: u16| w as u32 | 0xffff_0000;
        let all = words.map(upper);
        let pointers = [fip, fcs | (fop & 0x7ff) << 16, fdp, fds | 0xffff_0000];
        for (n, v) in all.into_iter().chain(pointers).enumerate() {
            area.store(cx.env, 4 * n as u64, 4, v as u64)?;
        }
    } else {
        let pointers = [fip as u16, fcs as u16, fdp as u16, fds as u16];
        for (n, v) in words.into_iter().chain(pointers).enumerate() {
            area.store(cx.env, 2 * n as u64, 2, v as u64)?;
        }
    }
    if form & REGISTERS != 0 {
        let first = if wide { 28 } else { 14 };
        for (i, v) in registers.into_iter().enumerate() {
            let (significand, exponent) = f80_parts(v);
            area.store(cx.env, first + 10 * i as u64, 8, significand)?;
            area.store(cx.env, first + 10 * i as u64 + 8, 2, exponent as u64)?;
        }
        Unit(cx.state).init();
    } else {
        let mut unit = Unit(cx.state);
        let fcw = unit.fcw();
        unit.set_fcw(fcw | EXCEPTIONS);
    }
    Ok(0)
}

pub fn x87_load_environment(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let form = args[3] as u64;
    let wide = form & WIDE != 0;
    let area = Area::new(cx.state, args[0] as u64, form & LONG != 0);
    area.probe(cx.env, size(form), word(form), false)?;
    let size = if wide { 4 } else { 2 };
    let mut words = [0u32; 7];
    for (n, word) in words.iter_mut().enumerate() {
        *word = area.load(cx.env, (n * size) as u64, size as u32)? as u32;
    }
    let mut registers = [0u128; 8];
    if form & REGISTERS != 0 {
        let first = 7 * size as u64;
        for (i, v) in registers.iter_mut().enumerate() {
            let significand = area.load(cx.env, first + 10 * i as u64, 8)?;
            let exponent = area.load(cx.env, first + 10 * i as u64 + 8, 2)?;
            *v = f80_from_parts(significand, exponent as u16);
        }
    }
    let fop = if wide { words[4] >> 16 & 0x7ff } else { 0 };
    let pointers = [
        (regs::FIP, words[3]),
        (regs::FCS, words[4] & 0xffff),
        (regs::FDP, words[5]),
        (regs::FDS, words[6] & 0xffff),
        (regs::FOP, fop),
    ];
    for (slot, v) in pointers {
        cx.state.set(cell(slot), v as u64);
    }
    let mut unit = Unit(cx.state);
    unit.set_top((words[1] >> 11) as u8);
    unit.set_fcw(words[0] as u16);
    unit.set_fsw(words[1] as u16);
    if form & REGISTERS != 0 {
        for (i, v) in registers.into_iter().enumerate() {
            unit.set(i as u8, v);
        }
    }
    unit.set_tag(abridged(words[2] as u16));
    Ok(0)
}
