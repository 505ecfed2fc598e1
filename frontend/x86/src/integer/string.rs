//! String instructions: MOVS, CMPS, SCAS, LODS, STOS and their repetition.
//!
//! A repeated instruction is a unit that calls [`REPEAT`], which works on a bounded number of elements and leaves
//! RCX, RSI and RDI behind the last one that was done, also when the next one faults; the unit then either goes
//! on behind the instruction or to its own pc again, where the engine can interrupt it.

use crate::Lifter;
use crate::cpu::Vendor;
use crate::decode::{Row, rows};
use crate::flags::{CcOp, Kind};
use crate::helpers::{FIRST_STRING, helpers};
use crate::operand::{Addr, Intent, segment_number};
use crate::regs::{self, cell};
use crate::segment::{self, attr};
use crate::system::{data_mmu, debug, is_system};
use iced_x86::{Instruction, Mnemonic, OpKind};
use tulk_base::{CpuState, GuestVa, MemAlign, MemOp, Trap};
use tulk_ir::{Access, HelperCx, IntCc, Slot, Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {}
    loud {
        Movsb => string, Movsw => string, Movsq => string, Cmpsb => string, Cmpsw => string, Cmpsq => string,
        Scasb => string, Scasw => string, Scasd => string, Scasq => string, Lodsb => string, Lodsw => string,
        Lodsd => string, Lodsq => string, Stosb => string, Stosw => string, Stosd => string, Stosq => string,
    }
    codes { Movsd_m32_m32 => string, Cmpsd_m32_m32 => string }
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Op {
    Movs,
    Stos,
    Lods,
    Cmps,
    Scas,
}

impl Op {
    const ALL: [Op; 5] = [Op::Movs, Op::Stos, Op::Lods, Op::Cmps, Op::Scas];

    fn of(m: Mnemonic) -> Op {
        use Mnemonic::*;
        match m {
            Movsb | Movsw | Movsd | Movsq => Op::Movs,
            Stosb | Stosw | Stosd | Stosq => Op::Stos,
            Lodsb | Lodsw | Lodsd | Lodsq => Op::Lods,
            Cmpsb | Cmpsw | Cmpsd | Cmpsq => Op::Cmps,
            _ => Op::Scas,
        }
    }
    fn reads_si(self) -> bool {
        matches!(self, Op::Movs | Op::Lods | Op::Cmps)
    }
    fn uses_di(self) -> bool {
        self != Op::Lods
    }
    fn compares(self) -> bool {
        matches!(self, Op::Cmps | Op::Scas)
    }
}

/// Type of the index registers.
fn address_type(insn: &Instruction) -> Type {
    let kinds = [insn.op0_kind(), insn.op1_kind()];
    if kinds.iter().any(|k| matches!(k, OpKind::MemorySegSI | OpKind::MemoryESDI)) {
        Type::I16
    } else if kinds.iter().any(|k| matches!(k, OpKind::MemorySegESI | OpKind::MemoryESEDI)) {
        Type::I32
    } else {
        Type::I64
    }
}

/// MOVS, CMPS, SCAS, LODS, STOS with or without REP, REPE, REPNE
fn string(l: &mut Lifter<'_>, insn: &Instruction) {
    let op = Op::of(insn.mnemonic());
    let ty = Type::int_of_log2(insn.memory_size().size().trailing_zeros() as u8);
    let address = address_type(insn);
    let seg = if op.reads_si() { segment_number(insn.memory_segment()) } else { regs::ES };
    if insn.has_rep_prefix() || insn.has_repne_prefix() {
        return repeated(l, insn, op, ty, address, seg);
    }
    element(l, op, ty, address, seg);
}

/// One element: what the instruction does without a prefix.
fn element(l: &mut Lifter<'_>, op: Op, ty: Type, address: Type, seg: usize) {
    let step = if l.key.df { -(ty.bytes() as i64) } else { ty.bytes() as i64 };
    let at = |l: &mut Lifter<'_>, n: usize, seg, intent| -> Addr {
        let v = l.gpr(n, address);
        let v = if address == Type::I16 { l.zext(Type::I32, v) } else { v };
        l.linear(seg, v, 0, ty.bytes(), intent)
    };
    let (si, di) = (6, 7);
    match op {
        Op::Movs => {
            let from = at(l, si, seg, Intent::Read);
            let v = l.load(ty, from);
            let to = at(l, di, regs::ES, Intent::Write);
            l.store(to, v);
        }
        Op::Stos => {
            let v = l.gpr(0, ty);
            let to = at(l, di, regs::ES, Intent::Write);
            l.store(to, v);
        }
        Op::Lods => {
            let from = at(l, si, seg, Intent::Read);
            let v = l.load(ty, from);
            l.set_gpr(0, v);
        }
        Op::Cmps | Op::Scas => {
            // The second operand is read first, as a fault shows.
            let to = at(l, di, regs::ES, Intent::Read);
            let b = l.load(ty, to);
            let a = if op == Op::Cmps {
                let from = at(l, si, seg, Intent::Read);
                l.load(ty, from)
            } else {
                l.gpr(0, ty)
            };
            l.set_flags_sub(a, b, Value::NONE);
        }
    }
    for (n, used) in [(si, op.reads_si()), (di, op.uses_di())] {
        if used {
            let v = l.gpr(n, address);
            let v = l.add_imm(v, step);
            l.set_gpr(n, v);
        }
    }
}

/// The immediate of [`REPEAT`].
#[derive(Clone, Copy, Debug)]
struct Repeat {
    op: Op,
    /// log2 of the element's size and of the address's size in bytes.
    log2: u8,
    address: u8,
    seg: usize,
    down: bool,
    until_equal: bool,
    long: bool,
    /// Only one element at a time, since a debug trap may follow each or a debugger steps.
    single: bool,
    /// Misaligned elements fault.
    align: bool,
    /// A processor of Intel: see [`Repeat::interrupted`], and the order in which a comparison reads.
    intel: bool,
}

impl Repeat {
    fn encode(self) -> i64 {
        (self.op as i64)
            | (self.log2 as i64) << 4
            | (self.address as i64) << 8
            | (self.seg as i64) << 12
            | (self.down as i64) << 16
            | (self.until_equal as i64) << 17
            | (self.long as i64) << 18
            | (self.single as i64) << 19
            | (self.align as i64) << 20
            | (self.intel as i64) << 21
    }
    fn decode(imm: u128) -> Repeat {
        let field = |at: u32| (imm >> at) as u8 & 15;
        Repeat {
            op: Op::ALL[field(0) as usize],
            log2: field(4),
            address: field(8),
            seg: field(12) as usize,
            down: imm >> 16 & 1 != 0,
            until_equal: imm >> 17 & 1 != 0,
            long: imm >> 18 & 1 != 0,
            single: imm >> 19 & 1 != 0,
            align: imm >> 20 & 1 != 0,
            intel: imm >> 21 & 1 != 0,
        }
    }
}

fn repeated(l: &mut Lifter<'_>, insn: &Instruction, op: Op, ty: Type, address: Type, seg: usize) {
    let log2 = |t: Type| t.bytes().trailing_zeros() as u8;
    let repeat = Repeat {
        op,
        log2: log2(ty),
        address: log2(address),
        seg,
        down: l.key.df,
        until_equal: insn.has_repne_prefix(),
        long: l.key.long(),
        single: l.key.single() || l.key.stepped,
        align: l.key.align,
        intel: l.cpu.chip().vendor == Vendor::Intel,
    };
    if matches!(op, Op::Movs | Op::Stos) && !repeat.single && !repeat.align && !l.system {
        few(l, op, ty, address, seg);
    }
    let helper = if op.compares() { REPEAT_COMPARE } else { REPEAT };
    let done = l.call(helper, &[], repeat.encode());
    let (behind, again) = (l.label(), l.label());
    l.brif(done, behind, again);
    let (pc, next) = (l.pc, l.next);
    l.place(behind);
    l.exit_to(next);
    l.place(again);
    l.exit_to(pc);
}

/// In front of [`REPEAT`]: does the elements one by one where they are few, as in the ends of copies. Opens an IR block.
fn few(l: &mut Lifter<'_>, op: Op, ty: Type, address: Type, seg: usize) {
    let natural = if l.key.long() { Type::I64 } else { Type::I32 };
    if address != natural {
        return;
    }
    let (cx, pc, next) = (1, l.pc, l.next);
    let [few, many, one, none] = [(); 4].map(|_| l.label());
    let count = l.gpr(cx, address);
    let is_few = l.icmp_imm(IntCc::LtU, count, FEW);
    l.brif(is_few, few, many);
    l.place(few);
    let count = l.gpr(cx, address);
    let is_none = l.icmp_imm(IntCc::Eq, count, 0);
    l.brif(is_none, none, one);
    l.place(none);
    l.exit_to(next);
    l.place(one);
    element(l, op, ty, address, seg);
    let count = l.gpr(cx, address);
    let left = l.add_imm(count, -1);
    l.set_gpr(cx, left);
    l.exit_to(pc);
    l.place(many);
}

/// Fewer elements than this are not worth a call.
const FEW: i64 = 9;

/// Most elements that one call works on.
const CHUNK: u64 = 1 << 16;

/// A register's content cut to the address size, and the mask of that size.
fn index(state: &CpuState, slot: Slot, mask: u64) -> u64 {
    state.get(cell(slot)) & mask
}

/// Writes an index or count register as an instruction of this address size does.
fn set_index(state: &mut CpuState, slot: Slot, mask: u64, value: u64) {
    let keep = if mask == 0xffff { state.get(cell(slot)) & !mask } else { 0 };
    state.set(cell(slot), keep | value & mask);
}

impl Repeat {
    fn mask(self) -> u64 {
        u64::MAX >> (64 - (8 << self.address))
    }

    /// The linear address of an element.
    fn linear(
        self,
        state: &CpuState,
        seg: usize,
        offset: u64,
        write: bool,
    ) -> Result<GuestVa, Trap> {
        if self.long {
            let base = if seg >= regs::FS { state.get(cell(regs::SEG_BASE[seg])) } else { 0 };
            return Ok(GuestVa(base.wrapping_add(offset)));
        }
        segment::check(state, seg, offset as u32, 1 << self.log2, write)?;
        let base = state.get(cell(regs::SEG_BASE[seg]));
        Ok(GuestVa(base.wrapping_add(offset) & 0xffff_ffff))
    }

    /// How many of `count` elements upwards from `offset` lie in one piece, needing no check.
    fn unbroken(self, state: &CpuState, seg: usize, offset: u64, count: u64) -> u64 {
        let room = self.mask() - offset;
        let mut elements =
            if room == u64::MAX { u64::MAX >> self.log2 } else { (room + 1) >> self.log2 };
        if !self.long {
            let get = |slot| state.get(cell(slot)) as u32;
            let (limit, access) = (get(regs::SEG_LIMIT[seg]), get(regs::SEG_ATTR[seg]));
            if !attr::is_open(regs::DS, limit, access) {
                return 0;
            }
            let base = get(regs::SEG_BASE[seg]) as u64;
            let start = base.wrapping_add(offset) & 0xffff_ffff;
            elements = elements.min((0x1_0000_0000 - start) >> self.log2);
        }
        elements.min(count)
    }

    /// MOVS or STOS of many elements at once; how many were done.
    fn bulk(self, cx: &mut HelperCx<'_>, count: u64) -> Result<u64, (u64, Trap)> {
        if self.down || self.align || self.single {
            return Ok(0);
        }
        let mask = self.mask();
        let di = index(cx.state, regs::RDI, mask);
        let mut n = self.unbroken(cx.state, regs::ES, di, count);
        if self.op == Op::Movs {
            let si = index(cx.state, regs::RSI, mask);
            n = self.unbroken(cx.state, self.seg, si, n);
        }
        if n < 2 {
            return Ok(0);
        }
        let fault = |t| (0, t);
        let to = self.linear(cx.state, regs::ES, di, true).map_err(fault)?;
        let op = MemOp::of_log2(self.log2).with_mmu(data_mmu(cx.state));
        let (done, fault) = if self.op == Op::Movs {
            let si = index(cx.state, regs::RSI, mask);
            let from = self.linear(cx.state, self.seg, si, false).map_err(fault)?;
            cx.env.copy_elements(to, from, op, n)
        } else {
            let value = cx.state.get(cell(regs::RAX));
            cx.env.fill_elements(to, op, n, value)
        };
        match fault {
            None => Ok(done),
            Some(f) => Err((done, f.into())),
        }
    }

    /// Breakpoints of system mode.
    fn note(self, state: &mut CpuState, va: GuestVa, write: bool) {
        if self.single && is_system(state) {
            let kind = if write { debug::What::Write } else { debug::What::Data };
            debug::note(state, va.0, 1 << self.log2, kind);
        }
    }

    /// One element; whether a comparison ends the repetition.
    fn element(self, cx: &mut HelperCx<'_>) -> Result<bool, Trap> {
        let mask = self.mask();
        let op = MemOp::of_log2(self.log2).with_mmu(data_mmu(cx.state));
        let op = if self.align { op.with_align(MemAlign::Natural) } else { op };
        let whole = u64::MAX >> (64 - (8 << self.log2));
        let si = index(cx.state, regs::RSI, mask);
        let di = index(cx.state, regs::RDI, mask);
        let acc = cx.state.get(cell(regs::RAX));
        let read = |cx: &mut HelperCx<'_>, seg, offset| {
            let va = self.linear(cx.state, seg, offset, false)?;
            let v = cx.env.load(va, op)?;
            self.note(cx.state, va, false);
            Ok::<u64, Trap>(v)
        };
        let mut ends = false;
        match self.op {
            Op::Movs => {
                let v = read(cx, self.seg, si)?;
                let to = self.linear(cx.state, regs::ES, di, true)?;
                cx.env.store(to, op, v)?;
                self.note(cx.state, to, true);
            }
            Op::Stos => {
                let to = self.linear(cx.state, regs::ES, di, true)?;
                cx.env.store(to, op, acc)?;
                self.note(cx.state, to, true);
            }
            Op::Lods => {
                let v = read(cx, self.seg, si)?;
                let keep = if self.log2 < 2 { acc & !whole } else { 0 };
                cx.state.set(cell(regs::RAX), keep | v);
            }
            Op::Cmps | Op::Scas => {
                // Which operand is read first shows in a fault; REPE CMPSB is special to AMD's processors.
                let special = self.log2 == 0 && self.op == Op::Cmps && !self.until_equal;
                let early =
                    if special && !self.intel { Some(read(cx, self.seg, si)?) } else { None };
                let b = read(cx, regs::ES, di)?;
                let a = match (early, self.op) {
                    (Some(a), _) => a,
                    (None, Op::Cmps) => read(cx, self.seg, si)?,
                    _ => acc & whole,
                };
                let op = CcOp::new(Kind::Sub, Type::int_of_log2(self.log2));
                cx.state.set(cell(regs::CC_OP), op.code() as u64);
                cx.state.set(cell(regs::CC_DST), a);
                cx.state.set(cell(regs::CC_SRC), b);
                ends = (a == b) == self.until_equal;
            }
        }
        Ok(ends)
    }

    /// Moves the index registers over `n` elements and counts them off.
    fn advance(self, state: &mut CpuState, n: u64) {
        if n == 0 {
            return;
        }
        let mask = self.mask();
        let distance = n << self.log2;
        let distance = if self.down { distance.wrapping_neg() } else { distance };
        for (slot, used) in [(regs::RSI, self.op.reads_si()), (regs::RDI, self.op.uses_di())] {
            if used {
                let v = index(state, slot, mask).wrapping_add(distance);
                set_index(state, slot, mask, v);
            }
        }
        let left = index(state, regs::RCX, mask).wrapping_sub(n);
        set_index(state, regs::RCX, mask, left);
    }

    /// Whether registers become 32 bits wide where nothing was done.
    fn narrows(self) -> bool {
        self.intel && self.long && self.address == 2 && matches!(self.op, Op::Movs | Op::Stos)
    }

    /// Works on some elements; 1 when the instruction is done.
    fn run(self, cx: &mut HelperCx<'_>) -> Result<u128, Trap> {
        let mask = self.mask();
        let mut count = index(cx.state, regs::RCX, mask);
        if count == 0 && self.narrows() {
            cx.state.set(cell(regs::RCX), 0);
        }
        let mut budget = if self.single { 1 } else { CHUNK };
        if matches!(self.op, Op::Movs | Op::Stos) {
            let (done, trap) = match self.bulk(cx, count.min(budget)) {
                Ok(n) => (n, None),
                Err((n, trap)) => (n, Some(trap)),
            };
            self.advance(cx.state, done);
            if let Some(trap) = trap {
                return Err(trap);
            }
            count -= done;
            budget -= done;
        }
        while count != 0 && budget != 0 {
            let ends = self.element(cx)?;
            self.advance(cx.state, 1);
            if ends {
                return Ok(1);
            }
            count -= 1;
            budget -= 1;
        }
        Ok((count == 0) as u128)
    }

    /// What a fault or debug trap leaves behind on processors of Intel: the flags as they were before the instruction (the manual,
    /// volume 2, REP), and of MOVS and STOS with 32-bit addresses in 64-bit code
    /// registers of 32 bits.
    fn interrupted(self, state: &mut CpuState, flags: [u64; 3]) {
        if !self.intel {
            return;
        }
        if self.op.compares() {
            FLAGS.into_iter().zip(flags).for_each(|(slot, v)| state.set(cell(slot), v));
        }
        if self.narrows() {
            let used = [
                (regs::RSI, self.op.reads_si()),
                (regs::RDI, self.op.uses_di()),
                (regs::RCX, true),
            ];
            for (slot, _) in used.into_iter().filter(|u| u.1) {
                state.set(cell(slot), state.get(cell(slot)) & self.mask());
            }
        }
    }
}

/// See [`REPEAT`].
fn string_repeat(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let r = Repeat::decode(args[3]);
    let flags = FLAGS.map(|slot| cx.state.get(cell(slot)));
    let result = r.run(cx);
    // A debug trap in between finds the flags of before, too.
    if result.is_err() || r.single && result == Ok(0) {
        r.interrupted(cx.state, flags);
    }
    result
}

const FLAGS: [Slot; 3] = [regs::CC_OP, regs::CC_DST, regs::CC_SRC];

const READS: &[Slot] = &{
    let mut all = [Slot(0); 28];
    let registers = [regs::RAX, regs::RCX, regs::RSI, regs::RDI];
    let mut i = 0;
    while i < 28 {
        all[i] = if i < 4 {
            registers[i]
        } else {
            // Selectors, bases, limits and access rights follow each other.
            Slot(regs::SEG[0].0 + i as u16 - 4)
        };
        i += 1;
    }
    all
};
const WRITES: &[Slot] = &[regs::RAX, regs::RCX, regs::RSI, regs::RDI, regs::PENDING_DB];
const COMPARE_WRITES: &[Slot] =
    &[regs::RCX, regs::RSI, regs::RDI, regs::CC_OP, regs::CC_DST, regs::CC_SRC, regs::PENDING_DB];

helpers! { FIRST_STRING;
    /// A repeated MOVS, STOS or LODS: 1 when it is done, 0 when the instruction must be run again.
    REPEAT = string_repeat() -> I8, Access::These(READS), Access::These(WRITES), traps;
    /// A repeated CMPS or SCAS.
    REPEAT_COMPARE = string_repeat() -> I8, Access::These(READS), Access::These(COMPARE_WRITES), traps;
}
