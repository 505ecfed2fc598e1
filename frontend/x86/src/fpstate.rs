//! Float state as a whole: MXCSR in the host's float unit, and the FXSAVE and XSAVE areas (the manual, volume 1, 10.5
//! and chapter 13).
//!
//! While guest code runs the host holds the guest's rounding mode, flush bits and sticky SSE exception flags. The x87
//! unit keeps its own state in slots.
//!
//! - A state component counts as in its initial configuration when its registers hold the initial values.
//! - XSAVEOPT writes all components that are not; it does not remember what was last restored.
//! - FXSAVE and XSAVE of AMD models write the x87 pointers, and FXRSTOR and XRSTOR read them, only while an exception
//!   is pending.

use crate::cpu::{Feature, Vendor};
use crate::cpuid::{self, XCR0_AVX, XCR0_PKRU, XCR0_SSE, XCR0_X87, XSAVE_AVX, XSAVE_PKRU};
use crate::decode::{Row, rows};
use crate::helpers::{FIRST_FPSTATE, helpers};
use crate::lifter::Lifter;
use crate::operand::Intent;
use crate::regs::{self, cell};
use crate::segment;
use crate::system::control;
use crate::x87::unit::{ES, Unit};
use iced_x86::{Instruction, Mnemonic, Register};
use tulk_base::{CpuState, GuestVa, MemOp, RmwOp, Trap};
use tulk_ir::{Access, FpEnv, FpFlags, HelperCx, HelperEnv, Round};
use tulk_softfloat::{f80_from_parts, f80_parts};

/// Sticky exception flags; they lie as in [`FpFlags`].
pub const FLAGS: u32 = 0x3f;
pub const DAZ: u32 = 1 << 6;
/// Exception masks.
pub const MASKS: u32 = 0x3f << 7;
pub const ROUND: u32 = 3 << 13;
pub const FTZ: u32 = 1 << 15;
/// Bits that exist; setting another is #GP.
pub const VALID: u32 = 0xffff;
/// MXCSR after reset and of a new process.
pub const DEFAULT: u32 = 0x1f80;

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {}
    loud {
        Fxsave => lift_save, Fxsave64 => lift_save, Fxrstor => lift_restore, Fxrstor64 => lift_restore,
        Xsave => lift_save, Xsave64 => lift_save, Xsavec => lift_save, Xsavec64 => lift_save, Xsaveopt => lift_save, Xsaveopt64 => lift_save,
        Xrstor => lift_restore, Xrstor64 => lift_restore,
    }
    codes {}
};

/// The rounding mode that RC (two bits, as in MXCSR and the x87 control word) selects.
pub const fn round(rc: u32) -> Round {
    match rc & 3 {
        0 => Round::Nearest,
        1 => Round::Down,
        2 => Round::Up,
        _ => Round::Zero,
    }
}

/// Puts MXCSR's modes and flags into the host's float unit.
pub fn load(state: &CpuState, env: &mut dyn FpEnv) {
    let mxcsr = state.get(cell(regs::MXCSR)) as u32;
    env.set_fp_mode(round(mxcsr >> 13), mxcsr & DAZ != 0, mxcsr & FTZ != 0);
    env.set_fp_flags(FpFlags((mxcsr & FLAGS) as u8));
}

/// Takes the sticky flags back into MXCSR.
pub fn save(state: &mut CpuState, env: &mut dyn FpEnv) {
    let cell = cell(regs::MXCSR);
    let flags = env.fp_flags().0 as u64 & FLAGS as u64;
    state.set(cell, state.get(cell) & !(FLAGS as u64) | flags);
}

/// An unmasked x87 exception waits for the next waiting instruction.
pub fn x87_pending(state: &CpuState) -> bool {
    state.get(cell(regs::FSW)) as u16 & ES != 0
}

/// Linux's `si_code` of the SIGFPE for a pending x87 exception.
pub fn x87_si_code(state: &CpuState) -> u32 {
    let word = |slot| state.get(cell(slot)) as u32;
    si_code(word(regs::FSW) & !word(regs::FCW))
}

/// Linux's `si_code` of the SIGFPE for an SSE exception; MXCSR has its flags.
pub fn sse_si_code(state: &CpuState) -> u32 {
    let mxcsr = state.get(cell(regs::MXCSR)) as u32;
    si_code(mxcsr & !(mxcsr >> 7))
}

/// FPE_FLTINV, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND (denormal operands too), FPE_FLTRES.
fn si_code(unmasked: u32) -> u32 {
    let table = [(1, 7), (4, 3), (8, 4), (0x12, 5), (0x20, 6)];
    table.iter().find(|(bits, _)| unmasked & bits != 0).map_or(0, |t| t.1)
}

/// Memory at a linear address; in code of 16 and 32 bits it wraps at 4 GiB.
#[derive(Clone, Copy)]
pub struct Area {
    pub base: u64,
    pub long: bool,
    /// The MMU index.
    pub mmu: u8,
}

impl Area {
    pub fn new(state: &CpuState, base: u64, long: bool) -> Area {
        Area { base, long, mmu: crate::system::data_mmu(state) }
    }
    fn op(self, bytes: u32) -> MemOp {
        MemOp::of_log2(bytes.trailing_zeros() as u8).with_mmu(self.mmu)
    }
    fn at(self, offset: u64) -> GuestVa {
        let va = self.base.wrapping_add(offset);
        GuestVa(if self.long { va } else { va & 0xffff_ffff })
    }
    pub fn load(self, env: &mut dyn HelperEnv, offset: u64, bytes: u32) -> Result<u64, Trap> {
        Ok(env.load(self.at(offset), self.op(bytes))?)
    }
    pub fn store(
        self,
        env: &mut dyn HelperEnv,
        offset: u64,
        bytes: u32,
        v: u64,
    ) -> Result<(), Trap> {
        Ok(env.store(self.at(offset), self.op(bytes), v)?)
    }
    /// Faults as an access to the first word or the last byte of `size` bytes does: processors try these before the
    /// others.
    pub fn probe(
        self,
        env: &mut dyn HelperEnv,
        size: u64,
        word: u32,
        write: bool,
    ) -> Result<(), Trap> {
        self.touch(env, 0, word, write)?;
        self.touch(env, size - 1, 1, write)
    }
    /// Faults as FXSAVE and kin do, which try the first and the last byte before the others (in which order is the
    /// processor's affair). A misaligned address is #GP unless it is not canonical.
    fn probe_block(
        self,
        env: &mut dyn HelperEnv,
        form: u64,
        size: u64,
        write: bool,
    ) -> Result<(), Trap> {
        let canonical = ((self.base << 16) as i64 >> 16) as u64 == self.base;
        let alignment = if form & XSAVE != 0 { 63 } else { 15 };
        if self.base & alignment != 0 && canonical {
            return Err(GP);
        }
        self.touch(env, 0, 1, write)?;
        self.touch(env, size - 1, 1, write)
    }
    fn touch(
        self,
        env: &mut dyn HelperEnv,
        offset: u64,
        bytes: u32,
        write: bool,
    ) -> Result<(), Trap> {
        let op = self.op(bytes);
        match write {
            true => env.rmw(self.at(offset), op, RmwOp::Or, 0)?,
            false => env.load(self.at(offset), op)?,
        };
        Ok(())
    }
    fn load128(self, env: &mut dyn HelperEnv, offset: u64) -> Result<u128, Trap> {
        let low = self.load(env, offset, 8)? as u128;
        Ok(low | (self.load(env, offset + 8, 8)? as u128) << 64)
    }
    fn store128(self, env: &mut dyn HelperEnv, offset: u64, v: u128) -> Result<(), Trap> {
        self.store(env, offset, 8, v as u64)?;
        self.store(env, offset + 8, 8, (v >> 64) as u64)
    }
}

// Immediates.
const LONG: u64 = 1;
/// 64-bit pointers.
const WIDE: u64 = 2;
const XSAVE: u64 = 4;
const COMPACT: u64 = 8;
const OPTIMIZED: u64 = 16;
const AMD: u64 = 32;
const SSE: u64 = 64;
/// The compacted form exists.
const HAS_COMPACT: u64 = 128;

fn access(l: &mut Lifter<'_>, insn: &Instruction, intent: Intent, helper: u32) {
    use Mnemonic::*;
    let m = insn.mnemonic();
    let legacy = matches!(m, Fxsave | Fxsave64 | Fxrstor | Fxrstor64);
    let amd = l.cpu.chip().vendor == Vendor::Amd;
    let form = [
        (l.key.long(), LONG),
        (matches!(m, Fxsave64 | Fxrstor64 | Xsave64 | Xrstor64 | Xsavec64 | Xsaveopt64), WIDE),
        (!legacy, XSAVE),
        (matches!(m, Xsavec | Xsavec64), COMPACT),
        (matches!(m, Xsaveopt | Xsaveopt64), OPTIMIZED),
        (amd, AMD),
        (l.cpu.has(Feature::Sse), SSE),
        (l.cpu.has(Feature::Xsavec), HAS_COMPACT),
    ];
    let form = form.iter().filter(|f| f.0).fold(0, |all, f| all | f.1);
    let bytes = if legacy { 512 } else { 576 };
    let addr = l.address(insn, bytes, intent);
    let va = l.flat(addr);
    let (eax, edx) = (l.reg(Register::EAX), l.reg(Register::EDX));
    l.call(helper, &[va, eax, edx], form as i64);
    if intent == Intent::Read {
        l.forget_selectors();
    }
}

/// FXSAVE, XSAVE, XSAVEC, XSAVEOPT m
fn lift_save(l: &mut Lifter<'_>, insn: &Instruction) {
    access(l, insn, Intent::Write, SAVE);
}

/// FXRSTOR, XRSTOR m
fn lift_restore(l: &mut Lifter<'_>, insn: &Instruction) {
    access(l, insn, Intent::Read, RESTORE);
    l.resync();
}

const GP: Trap = Trap::Guest { vector: segment::GP, code: 0 };

/// Offset of the XSAVE header.
const HEADER: u64 = 512;
/// Bit of XCOMP_BV: the compacted form.
const COMPACTED: u64 = 1 << 63;

/// Number of vector registers that code can name.
fn vectors(form: u64) -> usize {
    if form & LONG != 0 { 16 } else { 8 }
}

fn mxcsr(cx: &mut HelperCx<'_>) -> u32 {
    cx.state.get(cell(regs::MXCSR)) as u32 & !FLAGS | cx.env.fp_flags().0 as u32
}

/// Components that are not in their initial configuration.
fn in_use(state: &CpuState) -> u64 {
    let get = |slot| state.get(cell(slot));
    let zero = |slots: &[tulk_ir::Slot]| slots.iter().all(|&s| get(s) == 0);
    let x87 = get(regs::FCW) as u16 == 0x37f
        && get(regs::FSW) as u16 == 0
        && zero(&[regs::FTOP, regs::FTAG, regs::FIP, regs::FDP, regs::FCS, regs::FDS, regs::FOP])
        && zero(&regs::FPR_SIG)
        && regs::FPR_EXP.iter().all(|&s| get(s) as u16 == 0);
    let vectors = |slots: &[tulk_ir::Slot]| slots.iter().all(|&s| state.get128(cell(s)) == 0);
    let component = |initial: bool, bit| if initial { 0 } else { bit };
    component(x87, XCR0_X87)
        | component(vectors(&regs::XMM), XCR0_SSE)
        | component(vectors(&regs::YMMH), XCR0_AVX)
        | component(get(regs::PKRU) as u32 == 0, XCR0_PKRU)
}

/// Where PKRU stands in an area whose compacted layout has these components, or in one of the standard format.
fn keys_at(compacted: Option<u64>) -> u64 {
    compacted.map_or(XSAVE_PKRU.0, |layout| cpuid::xsave_compacted_size(layout & XCR0_AVX)) as u64
}

fn store_x87(cx: &mut HelperCx<'_>, area: Area, form: u64) -> Result<(), Trap> {
    let unit = Unit(cx.state);
    let (fcw, top, tag) = (unit.fcw(), unit.top(), unit.tag());
    let fsw = unit.fsw();
    let registers: [u128; 8] = std::array::from_fn(|i| unit.get(i as u8));
    let get = |slot| cx.state.get(cell(slot));
    let mut pointers = [get(regs::FOP) & 0x7ff, get(regs::FIP), get(regs::FDP)];
    let mut selectors = [get(regs::FCS) & 0xffff, get(regs::FDS) & 0xffff];
    if form & AMD != 0 && fsw & ES == 0 {
        pointers = [0; 3];
        selectors = [0; 2];
    }
    if form & WIDE == 0 {
        for n in 0..2 {
            pointers[1 + n] = pointers[1 + n] & 0xffff_ffff | selectors[n] << 32;
        }
    }
    area.store(cx.env, 0, 2, fcw as u64)?;
    area.store(cx.env, 2, 2, (fsw | (top as u16) << 11) as u64)?;
    area.store(cx.env, 4, 2, tag as u64)?;
    area.store(cx.env, 6, 2, pointers[0])?;
    area.store(cx.env, 8, 8, pointers[1])?;
    area.store(cx.env, 16, 8, pointers[2])?;
    for (i, v) in registers.into_iter().enumerate() {
        area.store128(cx.env, 32 + 16 * i as u64, v)?;
    }
    Ok(())
}

fn load_x87(cx: &mut HelperCx<'_>, area: Area, form: u64) -> Result<(), Trap> {
    let fcw = area.load(cx.env, 0, 2)? as u16;
    let fsw = area.load(cx.env, 2, 2)? as u16;
    let tag = area.load(cx.env, 4, 1)? as u8;
    let fop = area.load(cx.env, 6, 2)? & 0x7ff;
    let mut pointers = [area.load(cx.env, 8, 8)?, area.load(cx.env, 16, 8)?];
    let mut selectors = [0; 2];
    let mut registers = [0; 8];
    for (i, v) in registers.iter_mut().enumerate() {
        *v = area.load128(cx.env, 32 + 16 * i as u64)?;
    }
    if form & WIDE == 0 {
        selectors = pointers.map(|p| p >> 32 & 0xffff);
        pointers = pointers.map(|p| p & 0xffff_ffff);
    }
    set_x87(cx.state, fcw, fsw, tag, registers);
    if form & AMD == 0 || Unit(cx.state).fsw() & ES != 0 {
        let all = [
            (regs::FOP, fop),
            (regs::FIP, pointers[0]),
            (regs::FDP, pointers[1]),
            (regs::FCS, selectors[0]),
            (regs::FDS, selectors[1]),
        ];
        all.into_iter().for_each(|(slot, v)| cx.state.set(cell(slot), v));
    }
    Ok(())
}

/// Control word, status word with TOP, abridged tags, and the registers from st(0) on.
pub fn set_x87(state: &mut CpuState, fcw: u16, fsw: u16, tag: u8, registers: [u128; 8]) {
    let mut unit = Unit(state);
    unit.set_top((fsw >> 11) as u8);
    unit.set_fcw(fcw);
    unit.set_fsw(fsw);
    for (i, v) in registers.into_iter().enumerate() {
        let (significand, exponent) = f80_parts(v);
        unit.set(i as u8, f80_from_parts(significand, exponent));
    }
    unit.set_tag(tag);
}

/// The components that EDX:EAX asks for.
fn components(cx: &HelperCx<'_>, args: &[u128; 4]) -> u64 {
    (args[1] as u64 | (args[2] as u64) << 32) & cx.state.get(cell(regs::XCR0))
}

/// Bytes that an instruction may touch.
fn size(form: u64, components: u64) -> u64 {
    match form & XSAVE {
        0 => 512,
        _ if form & COMPACT != 0 => cpuid::xsave_compacted_size(components) as u64,
        _ => cpuid::xsave_size(components) as u64,
    }
}

/// Linear address, EAX, EDX; immediate: the form.
fn fpstate_save(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let form = args[3] as u64;
    let area = Area::new(cx.state, args[0] as u64, form & LONG != 0);
    let wanted = components(cx, args);
    area.probe_block(cx.env, form, size(form, wanted), true)?;
    let csr = mxcsr(cx);
    if form & XSAVE == 0 {
        store_x87(cx, area, form)?;
        if form & SSE != 0 {
            area.store(cx.env, 24, 4, csr as u64)?;
            area.store(cx.env, 28, 4, VALID as u64)?;
            for n in 0..vectors(form) {
                let v = cx.state.get128(cell(regs::XMM[n]));
                area.store128(cx.env, 160 + 16 * n as u64, v)?;
            }
        }
        return Ok(0);
    }
    let compact = form & COMPACT != 0;
    let mut used = in_use(cx.state);
    if compact && csr != DEFAULT {
        used |= XCR0_SSE;
    }
    let optimizes = form & (COMPACT | OPTIMIZED) != 0;
    let written = if optimizes { wanted & used } else { wanted };
    let old = if compact { 0 } else { area.load(cx.env, HEADER, 8)? };
    if written & XCR0_X87 != 0 {
        store_x87(cx, area, form)?;
    }
    let with_csr = if compact { XCR0_SSE } else { XCR0_SSE | XCR0_AVX };
    let csr_for = if compact { written } else { wanted };
    if csr_for & with_csr != 0 {
        area.store(cx.env, 24, 4, csr as u64)?;
        area.store(cx.env, 28, 4, VALID as u64)?;
    }
    if written & XCR0_SSE != 0 {
        for n in 0..vectors(form) {
            let v = cx.state.get128(cell(regs::XMM[n]));
            area.store128(cx.env, 160 + 16 * n as u64, v)?;
        }
    }
    if written & XCR0_AVX != 0 {
        for n in 0..vectors(form) {
            let v = cx.state.get128(cell(regs::YMMH[n]));
            area.store128(cx.env, XSAVE_AVX.0 as u64 + 16 * n as u64, v)?;
        }
    }
    if written & XCR0_PKRU != 0 {
        let keys = cx.state.get(cell(regs::PKRU)) & 0xffff_ffff;
        area.store(cx.env, keys_at(compact.then_some(wanted)), 8, keys)?;
    }
    area.store(cx.env, HEADER, 8, old & !wanted | wanted & used)?;
    if compact {
        area.store(cx.env, HEADER + 8, 8, COMPACTED | wanted)?;
    }
    Ok(0)
}

/// Linear address, EAX, EDX; immediate: the form.
fn fpstate_restore(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let form = args[3] as u64;
    let area = Area::new(cx.state, args[0] as u64, form & LONG != 0);
    let wanted = components(cx, args);
    // Where the keys are, the header says.
    area.probe_block(cx.env, form, size(form, wanted & !XCR0_PKRU), false)?;
    if form & XSAVE == 0 {
        if form & SSE != 0 {
            let csr = area.load(cx.env, 24, 4)? as u32;
            if csr & !VALID != 0 {
                return Err(GP);
            }
            let mut all = [0; 16];
            for (n, v) in all.iter_mut().enumerate().take(vectors(form)) {
                *v = area.load128(cx.env, 160 + 16 * n as u64)?;
            }
            load_x87(cx, area, form)?;
            set_mxcsr(cx, csr);
            for (n, v) in all.into_iter().enumerate().take(vectors(form)) {
                cx.state.set128(cell(regs::XMM[n]), v);
            }
        } else {
            load_x87(cx, area, form)?;
        }
        return Ok(0);
    }
    let xcr0 = cx.state.get(cell(regs::XCR0));
    let present = area.load(cx.env, HEADER, 8)?;
    let layout = area.load(cx.env, HEADER + 8, 8)?;
    let compact = layout & COMPACTED != 0;
    let rest = (2..8).map(|n| area.load(cx.env, HEADER + 8 * n, 8));
    let rest = rest.collect::<Result<Vec<_>, _>>()?;
    let reserved = if compact { &rest[..] } else { &rest[..1] };
    let bad = match compact {
        true => {
            form & HAS_COMPACT == 0
                || layout & !COMPACTED & !xcr0 != 0
                || present & !(layout & !COMPACTED) != 0
        }
        false => layout != 0 || present & !xcr0 != 0,
    };
    if bad || reserved.iter().any(|&v| v != 0) {
        return Err(GP);
    }
    let takes_csr =
        if compact { wanted & present & XCR0_SSE } else { wanted & (XCR0_SSE | XCR0_AVX) };
    let csr = match takes_csr {
        0 if compact && wanted & XCR0_SSE != 0 => Some(DEFAULT),
        0 => None,
        _ => Some(area.load(cx.env, 24, 4)? as u32),
    };
    if csr.is_some_and(|v| v & !VALID != 0) {
        return Err(GP);
    }
    let block = |cx: &mut HelperCx<'_>, bit: u64, first: u64| -> Result<[u128; 16], Trap> {
        let mut all = [0; 16];
        if wanted & present & bit != 0 {
            for (n, v) in all.iter_mut().enumerate().take(vectors(form)) {
                *v = area.load128(cx.env, first + 16 * n as u64)?;
            }
        }
        Ok(all)
    };
    let xmm = block(cx, XCR0_SSE, 160)?;
    let ymm = block(cx, XCR0_AVX, XSAVE_AVX.0 as u64)?;
    let keys = match wanted & present & XCR0_PKRU {
        0 => 0,
        _ => area.load(cx.env, keys_at(compact.then_some(layout)), 4)?,
    };
    if wanted & XCR0_X87 != 0 {
        if present & XCR0_X87 != 0 {
            load_x87(cx, area, form)?;
        } else {
            let mut unit = Unit(cx.state);
            unit.init();
            (0..8).for_each(|i| unit.set(i, 0));
            unit.set_tag(0);
        }
    }
    if let Some(csr) = csr {
        set_mxcsr(cx, csr);
    }
    if wanted & XCR0_PKRU != 0 {
        control::set_keys(cx, keys as u32);
    }
    for (bit, slots, values) in [(XCR0_SSE, regs::XMM, xmm), (XCR0_AVX, regs::YMMH, ymm)] {
        if wanted & bit != 0 {
            for n in 0..vectors(form) {
                cx.state.set128(cell(slots[n]), values[n]);
            }
        }
    }
    Ok(0)
}

fn set_mxcsr(cx: &mut HelperCx<'_>, value: u32) {
    cx.state.set(cell(regs::MXCSR), value as u64);
    load(cx.state, cx.env as &mut dyn FpEnv);
}

helpers! { FIRST_FPSTATE;
    SAVE = fpstate_save(I64, I32, I32) -> (), Access::All, Access::None, traps;
    RESTORE = fpstate_restore(I64, I32, I32) -> (), Access::All, Access::All, traps;
}
