//! Which register holds which cell.
//!
//! Cells stay in their register, or remain a known constant, until somebody needs the cell in memory ([`Emitter::spill`]) or the
//! register. Where host instructions fault, in flat memory, slots are written through instead: a slot's cell is exact behind every
//! step, so faults and exits need nothing. In paged memory what may fault is out of line, and stores the slots there
//! ([`Emitter::unsaved`]). A vector
//! register holds a cell (its low 64 bits) or a pair of cells. A cell may be in a general and in a vector register at
//! once; writing it ends all its other places.
//!
//! Registers: `rdi` is the state; `rbp` points into the guest's cells, so that the first ones are reached with a short
//! displacement; `rax`, `rcx`, `rdx`, `rsi`, `xmm0` and `xmm1` are for templates; the others hold cells.

use super::Emitter;
use super::asm::*;
use crate::MemoryModel;
use crate::abi::RBP_BIAS;
use crate::neighbours::GROUPS;
use tulk_base::state::{CELL_TEMPS, CELL_ZERO, OFFSET_CELLS};

/// A cell that no program names.
const NOTHING: u16 = u16::MAX;
/// The cell number under which a register holds [`crate::abi::word::MEM_BASE`]: engine scratch, not the guest's.
pub const CELL_MEM_BASE: u16 = 1;
/// From here on: numbers under which registers hold host addresses.
const HOSTS: u16 = u16::MAX - GROUPS;

/// `rbx` and `r8` to `r15`.
const GPRS: u16 = 0xff08;
/// Those that a System V call keeps.
const GPRS_KEPT: u16 = 0xf008;
/// `xmm2` to `xmm15`.
const XMMS: u16 = 0xfffc;
/// Most cells that are constants.
const CONSTANTS: usize = 6;

/// One kind of registers.
#[derive(Clone)]
struct File {
    cells: [u16; 16],
    /// When last used, by number of step.
    used: [u16; 16],
    /// The register has what its cell in memory has not.
    dirty: u16,
    /// Holds a pair.
    pair: u16,
    /// In use by the current step.
    pinned: u16,
}

impl File {
    const EMPTY: File = File { cells: [NOTHING; 16], used: [0; 16], dirty: 0, pair: 0, pinned: 0 };

    /// Registers bound to `cell`.
    #[inline(always)]
    fn holding(&self, cell: u16) -> u16 {
        let mut mask = 0;
        for (i, &c) in self.cells.iter().enumerate() {
            mask |= ((c == cell) as u16) << i;
        }
        mask
    }
    #[inline(always)]
    fn has(mask: u16, r: u8) -> bool {
        mask >> r & 1 != 0
    }
    #[inline(always)]
    fn drop(&mut self, r: u8) {
        self.cells[r as usize] = NOTHING;
        self.dirty &= !(1 << r);
        self.pair &= !(1 << r);
    }
    fn drop_all(&mut self, mut mask: u16) {
        while mask != 0 {
            self.drop(mask.trailing_zeros() as u8);
            mask &= mask - 1;
        }
    }
    #[inline(always)]
    fn bind(&mut self, r: u8, cell: u16, pair: bool, dirty: bool) {
        self.cells[r as usize] = cell;
        let bit = 1 << r;
        self.pair = self.pair & !bit | if pair { bit } else { 0 };
        self.dirty = self.dirty & !bit | if dirty { bit } else { 0 };
    }
    #[inline(always)]
    fn touch(&mut self, r: u8, now: u16) {
        self.used[r as usize] = now;
        self.pinned |= 1 << r;
    }
    /// A free register of `all`, or the one that was not used for longest.
    #[inline(always)]
    fn pick(&self, all: u16) -> u8 {
        let free = self.holding(NOTHING) & all & !self.pinned;
        if free != 0 {
            return free.trailing_zeros() as u8;
        }
        let oldest = (0..16u8)
            .filter(|&r| File::has(all & !self.pinned, r))
            .min_by_key(|&r| self.used[r as usize]);
        oldest.expect("no step uses all registers")
    }
}

/// A cell that is no more than a constant, neither in a register nor in memory.
#[derive(Clone, Copy)]
struct Constant {
    cell: u16,
    value: i32,
}

/// All registers.
#[derive(Clone)]
pub struct Registers {
    gpr: File,
    xmm: File,
    constants: [Constant; CONSTANTS],
    /// How many there are.
    known: u8,
}

impl Registers {
    pub const EMPTY: Registers = Registers {
        gpr: File::EMPTY,
        xmm: File::EMPTY,
        constants: [Constant { cell: NOTHING, value: 0 }; CONSTANTS],
        known: 0,
    };

    #[inline(always)]
    fn constants(&self) -> &[Constant] {
        &self.constants[..self.known as usize]
    }
    /// The cell is this constant no more.
    #[inline(always)]
    fn take_constant(&mut self, cell: u16) -> Option<i32> {
        let n = self.constants().iter().position(|constant| constant.cell == cell)?;
        let Constant { value, .. } = self.constants[n];
        self.known -= 1;
        self.constants[n] = self.constants[self.known as usize];
        Some(value)
    }
}

/// What memory does not have of a slot.
#[derive(Clone, Copy)]
pub enum Unsaved {
    Gpr(u16, Gpr),
    Low(u16, Xmm),
    Pair(u16, Xmm),
    Constant(u16, i32),
}

pub fn cell_mem(cell: u16) -> Mem {
    Mem::base(RBP, OFFSET_CELLS + 8 * cell as i32 - RBP_BIAS)
}

/// The number under which a register holds the host address of a group of neighbours.
pub fn host_cell(group: u16) -> u16 {
    debug_assert!(group < GROUPS);
    HOSTS + group
}

impl Emitter<'_> {
    /// The registers with host addresses.
    pub fn hosts(&self) -> u16 {
        let mut mask = 0;
        for (r, &cell) in self.regs.gpr.cells.iter().enumerate() {
            mask |= ((cell >= HOSTS && cell != NOTHING) as u16) << r;
        }
        mask
    }
    pub fn forget_hosts(&mut self) {
        let hosts = self.hosts();
        self.regs.gpr.drop_all(hosts);
    }

    /// A new step begins: no register is in use.
    #[inline(always)]
    pub fn unpin(&mut self) {
        self.regs.gpr.pinned = 0;
        self.regs.xmm.pinned = 0;
    }

    fn store_gpr(&mut self, r: u8) {
        let cell = self.regs.gpr.cells[r as usize];
        self.asm.mov_mr(W::B64, cell_mem(cell), Gpr(r));
        self.regs.gpr.dirty &= !(1 << r);
    }
    fn store_xmm(&mut self, r: u8) {
        let cell = self.regs.xmm.cells[r as usize];
        let pair = File::has(self.regs.xmm.pair, r);
        let op = if pair { sse::MOVUPS_STORE } else { sse::MOVQ_STORE };
        self.asm.sse_mr(op, cell_mem(cell), Xmm(r));
        self.regs.xmm.dirty &= !(1 << r);
    }

    /// Makes every cell in memory exact. Changes no flags.
    pub fn spill(&mut self) {
        self.spill_below(NOTHING);
    }
    /// Makes every slot in memory exact. Changes no flags.
    pub fn spill_slots(&mut self) {
        self.spill_below(CELL_TEMPS);
    }
    #[inline]
    fn spill_below(&mut self, end: u16) {
        let mut mask = self.regs.gpr.dirty;
        while mask != 0 {
            let r = mask.trailing_zeros() as u8;
            if self.regs.gpr.cells[r as usize] < end {
                self.store_gpr(r);
            }
            mask &= mask - 1;
        }
        let mut mask = self.regs.xmm.dirty;
        while mask != 0 {
            let r = mask.trailing_zeros() as u8;
            if self.regs.xmm.cells[r as usize] < end {
                self.store_xmm(r);
            }
            mask &= mask - 1;
        }
        let mut n = 0;
        while let Some(&Constant { cell, value }) = self.regs.constants().get(n) {
            if cell < end {
                self.asm.mov_mi(W::B64, cell_mem(cell), value);
                self.regs.take_constant(cell);
            } else {
                n += 1;
            }
        }
    }
    /// Adds the slots that are not in memory to `to`.
    pub fn unsaved(&self, to: &mut Vec<Unsaved>) {
        let Registers { gpr, xmm, .. } = &self.regs;
        let mut mask = gpr.dirty;
        while mask != 0 {
            let r = mask.trailing_zeros() as u8;
            let cell = gpr.cells[r as usize];
            if cell < CELL_TEMPS {
                to.push(Unsaved::Gpr(cell, Gpr(r)));
            }
            mask &= mask - 1;
        }
        let mut mask = xmm.dirty;
        while mask != 0 {
            let r = mask.trailing_zeros() as u8;
            let cell = xmm.cells[r as usize];
            if cell < CELL_TEMPS {
                let pair = File::has(xmm.pair, r);
                let of = if pair { Unsaved::Pair } else { Unsaved::Low };
                to.push(of(cell, Xmm(r)));
            }
            mask &= mask - 1;
        }
        let slots = self.regs.constants().iter().filter(|constant| constant.cell < CELL_TEMPS);
        to.extend(slots.map(|&Constant { cell, value }| Unsaved::Constant(cell, value)));
    }
    /// Stores what [`Emitter::unsaved`] told, out of line: registers are those of that place.
    pub fn save(&mut self, unsaved: Unsaved) {
        match unsaved {
            Unsaved::Gpr(cell, r) => self.asm.mov_mr(W::B64, cell_mem(cell), r),
            Unsaved::Low(cell, x) => self.asm.sse_mr(sse::MOVQ_STORE, cell_mem(cell), x),
            Unsaved::Pair(cell, x) => self.asm.sse_mr(sse::MOVUPS_STORE, cell_mem(cell), x),
            Unsaved::Constant(cell, value) => self.asm.mov_mi(W::B64, cell_mem(cell), value),
        }
    }

    /// A slot whose value memory has.
    pub fn is_in_memory(&self, cell: u16) -> bool {
        let Registers { gpr, xmm, .. } = &self.regs;
        let halves = xmm.holding(cell & !1) & xmm.pair;
        cell < CELL_TEMPS
            && cell & !1 != CELL_ZERO
            && gpr.holding(cell) & gpr.dirty == 0
            && (xmm.holding(cell) | halves) & xmm.dirty == 0
            && self.known_constant(cell).is_none()
    }

    /// Slots may stay in registers.
    #[inline(always)]
    fn is_lazy(&self) -> bool {
        self.input.mem == MemoryModel::Paged
    }
    /// The cell becomes a constant; false where it is to be in a register.
    pub fn def_constant(&mut self, cell: u16, value: u64) -> bool {
        let Ok(value) = i32::try_from(value as i64) else { return false };
        if !self.is_lazy() || self.regs.known as usize == CONSTANTS {
            return false;
        }
        self.kill(cell);
        self.regs.constants[self.regs.known as usize] = Constant { cell, value };
        self.regs.known += 1;
        true
    }
    /// The constant that the cell is, if it is in no register.
    pub fn known_constant(&self, cell: u16) -> Option<i32> {
        let constant = self.regs.constants().iter().find(|constant| constant.cell == cell)?;
        Some(constant.value)
    }
    /// Forgets what a System V call may change; all have been spilled.
    pub fn forget_unkept(&mut self) {
        self.regs.gpr.drop_all(!GPRS_KEPT);
        self.regs.xmm.cells = [NOTHING; 16];
        self.regs.xmm.pair = 0;
    }
    /// Forgets the guest's registers, which a helper may have written.
    pub fn forget_slots(&mut self) {
        for r in 0..16 {
            if self.regs.gpr.cells[r] < CELL_TEMPS && self.regs.gpr.cells[r] != CELL_MEM_BASE {
                self.regs.gpr.drop(r as u8);
            }
        }
        debug_assert!(self.regs.xmm.cells == [NOTHING; 16]);
    }

    /// Ends all places of a cell but memory. A pair of which it is a half is stored.
    #[inline]
    pub fn kill(&mut self, cell: u16) {
        let held = self.regs.gpr.holding(cell);
        if held != 0 {
            self.regs.gpr.drop(held.trailing_zeros() as u8);
        }
        self.regs.take_constant(cell);
        self.kill_xmm(cell);
    }
    #[inline]
    fn kill_xmm(&mut self, cell: u16) {
        let held = self.regs.xmm.holding(cell) & !self.regs.xmm.pair;
        if held != 0 {
            self.regs.xmm.drop(held.trailing_zeros() as u8);
        }
        let held = self.regs.xmm.holding(cell & !1) & self.regs.xmm.pair;
        if held != 0 {
            let r = held.trailing_zeros() as u8;
            if File::has(self.regs.xmm.dirty, r) {
                self.store_xmm(r);
            }
            self.regs.xmm.drop(r);
        }
    }

    /// A register to compute in. Changes no flags.
    #[inline]
    pub fn alloc(&mut self) -> Gpr {
        let r = self.regs.gpr.pick(GPRS);
        if File::has(self.regs.gpr.dirty, r) {
            self.store_gpr(r);
        }
        self.regs.gpr.drop(r);
        self.regs.gpr.touch(r, self.now);
        Gpr(r)
    }
    #[inline]
    pub fn alloc_x(&mut self) -> Xmm {
        let r = self.regs.xmm.pick(XMMS);
        if File::has(self.regs.xmm.dirty, r) {
            self.store_xmm(r);
        }
        self.regs.xmm.drop(r);
        self.regs.xmm.touch(r, self.now);
        Xmm(r)
    }

    /// The register that holds the cell, if one does; a constant gets one. Changes no flags.
    #[inline]
    pub fn cached(&mut self, cell: u16) -> Option<Gpr> {
        let held = self.regs.gpr.holding(cell);
        if held == 0 {
            let value = self.regs.take_constant(cell)?;
            let r = self.alloc();
            self.asm.mov_ri(r, value as i64 as u64);
            self.regs.gpr.bind(r.0, cell, false, true);
            return Some(r);
        }
        let r = held.trailing_zeros() as u8;
        self.regs.gpr.touch(r, self.now);
        Some(Gpr(r))
    }
    /// The vector register whose low half is the cell, if there is one.
    #[inline]
    pub fn cached_x(&mut self, cell: u16) -> Option<Xmm> {
        let held = self.regs.xmm.holding(cell);
        if held == 0 {
            return None;
        }
        // A pair begins with its low half.
        let r = held.trailing_zeros() as u8;
        self.regs.xmm.touch(r, self.now);
        Some(Xmm(r))
    }

    /// A register with the cell's 64 bits, not to be changed. May change flags.
    #[inline]
    pub fn read(&mut self, cell: u16) -> Gpr {
        if let Some(r) = self.cached(cell) {
            return r;
        }
        let r = self.alloc();
        if cell & !1 == CELL_ZERO {
            self.asm.zero(r);
        } else {
            self.fetch(r, cell);
        }
        self.regs.gpr.bind(r.0, cell, false, false);
        r
    }

    /// Loads a cell that no general register holds.
    fn fetch(&mut self, r: Gpr, cell: u16) {
        if let Some(x) = self.cached_x(cell) {
            return self.asm.movq_rx(W::B64, r, x);
        }
        let held = self.regs.xmm.holding(cell & !1) & self.regs.xmm.pair & self.regs.xmm.dirty;
        if held != 0 {
            return self.asm.pextrq_high(r, Xmm(held.trailing_zeros() as u8));
        }
        self.asm.mov_rm(W::B64, r, cell_mem(cell));
    }

    /// The low bits of a cell in a register that may be changed: `to`.
    pub fn copy_to(&mut self, w: W, to: Gpr, cell: u16) {
        let r = self.read(cell);
        self.asm.mov_rr(w, to, r);
    }

    /// A register with a copy of cell `a` that may be changed, to become cell `d`: `a`'s own if they are the same.
    #[inline]
    pub fn take(&mut self, w: W, d: u16, a: u16) -> Gpr {
        let ra = self.read(a);
        if d == a {
            return ra;
        }
        let r = self.alloc();
        self.asm.mov_rr(w, r, ra);
        r
    }

    /// `r` is the cell's value from here on. Changes no flags.
    #[inline]
    pub fn def(&mut self, cell: u16, r: Gpr) {
        let held = self.regs.gpr.holding(cell) & !(1 << r.0);
        if held != 0 {
            self.regs.gpr.drop(held.trailing_zeros() as u8);
        }
        self.regs.take_constant(cell);
        self.kill_xmm(cell);
        let through = cell < CELL_TEMPS && !self.is_lazy();
        self.regs.gpr.bind(r.0, cell, false, !through);
        if through {
            self.asm.mov_mr(W::B64, cell_mem(cell), r);
        }
    }
    /// `r` holds what the number `cell` stands for, which is not a cell in memory.
    pub fn hold(&mut self, r: Gpr, cell: u16) {
        self.regs.gpr.bind(r.0, cell, false, false);
    }
    /// Stores a scratch register to a cell.
    pub fn def_scratch(&mut self, cell: u16, r: Gpr) {
        self.kill(cell);
        self.asm.mov_mr(W::B64, cell_mem(cell), r);
    }

    /// A vector register whose low 64 bits are the cell, not to be changed.
    pub fn read_x(&mut self, cell: u16) -> Xmm {
        if let Some(x) = self.cached_x(cell) {
            return x;
        }
        let x = self.alloc_x();
        if cell & !1 == CELL_ZERO {
            self.asm.sse_rr(sse::XORPS, x, x);
        } else if let Some(r) = self.cached(cell) {
            self.asm.movq_xr(W::B64, x, r);
        } else {
            self.spill_pair(cell & !1);
            self.asm.sse_rm(sse::MOVQ, x, cell_mem(cell));
        }
        self.regs.xmm.bind(x.0, cell, false, false);
        x
    }
    /// Stores the pair if it is in a register only.
    fn spill_pair(&mut self, cell: u16) {
        let held = self.regs.xmm.holding(cell) & self.regs.xmm.pair & self.regs.xmm.dirty;
        if held != 0 {
            self.store_xmm(held.trailing_zeros() as u8);
        }
    }

    /// A vector register with a pair of cells, not to be changed.
    pub fn read_pair(&mut self, cell: u16) -> Xmm {
        let held = self.regs.xmm.holding(cell) & self.regs.xmm.pair;
        if held != 0 {
            let r = held.trailing_zeros() as u8;
            self.regs.xmm.touch(r, self.now);
            return Xmm(r);
        }
        let x = self.alloc_x();
        if cell == CELL_ZERO {
            self.asm.sse_rr(sse::XORPS, x, x);
        } else {
            for half in [cell, cell | 1] {
                let dirty = self.regs.gpr.holding(half) & self.regs.gpr.dirty;
                if dirty != 0 {
                    self.store_gpr(dirty.trailing_zeros() as u8);
                }
                let xmm = &self.regs.xmm;
                let dirty = xmm.holding(half) & xmm.dirty & !xmm.pair;
                if dirty != 0 {
                    self.store_xmm(dirty.trailing_zeros() as u8);
                }
                if let Some(value) = self.regs.take_constant(half) {
                    self.asm.mov_mi(W::B64, cell_mem(half), value);
                }
            }
            self.asm.sse_rm(sse::MOVUPS, x, cell_mem(cell));
        }
        self.regs.xmm.bind(x.0, cell, true, false);
        x
    }
    /// As [`Emitter::take`], for pairs.
    pub fn take_pair(&mut self, d: u16, a: u16) -> Xmm {
        let xa = self.read_pair(a);
        if d == a {
            return xa;
        }
        let x = self.alloc_x();
        self.asm.sse_rr(sse::MOVAPS, x, xa);
        x
    }

    /// The low 64 bits of `x` are the cell's value from here on.
    pub fn def_x(&mut self, cell: u16, x: Xmm) {
        self.regs.xmm.drop(x.0);
        self.kill(cell);
        let through = cell < CELL_TEMPS && !self.is_lazy();
        self.regs.xmm.bind(x.0, cell, false, !through);
        if through {
            self.asm.sse_mr(sse::MOVQ_STORE, cell_mem(cell), x);
        }
    }
    /// `x` is the pair's value from here on.
    pub fn def_pair(&mut self, cell: u16, x: Xmm) {
        self.regs.xmm.drop(x.0);
        let old = self.regs.xmm.holding(cell) & self.regs.xmm.pair;
        self.regs.xmm.drop_all(old);
        self.kill(cell);
        self.kill(cell | 1);
        let through = cell < CELL_TEMPS && !self.is_lazy();
        self.regs.xmm.bind(x.0, cell, true, !through);
        if through {
            self.asm.sse_mr(sse::MOVUPS_STORE, cell_mem(cell), x);
        }
    }
}
