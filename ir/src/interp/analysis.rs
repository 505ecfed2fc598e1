//! What the translation to bytecode needs to know before it starts, from one forward and one backward scan of a unit:
//! where values are last used, which results can be produced straight into a slot's cell, which slots can be read in
//! place, and which operations are folded into the one that uses them.
//!
//! Two rules make copies disappear:
//!
//! - A `get` is an alias of the slot's cell if nothing overwrites the slot up to the value's last use.
//! - A value is *sunk* into a slot, that is, computed into the slot's cell, if a later `set` stores it there and between
//!   its definition and that `set` nothing reads or writes the slot and nothing can fault or call (slots are exact
//!   there; locals need not be), and nothing overwrites the slot up to the value's last use.
//!
//! Both scan positions count from where the cell is really written: a sunk value writes at its definition.

use crate::helper::{Access, HelperDef};
use crate::layout::Slot;
use crate::op::{Op, effect};
use crate::types::Type;
use crate::unit::{Inst, Unit, Value};
use std::ops::Range;
use tulk_base::MemOp;

/// No instruction.
pub(super) const NONE: u32 = u32::MAX;

/// A constant integer of at most 64 bits.
pub(super) const CONST: u16 = 1;
/// The constant is used where only a cell will do.
pub(super) const NEED_CELL: u16 = 2;
/// The cell's bits above the type are zero.
pub(super) const CLEAN: u16 = 4;
/// Computed as part of the one operation that uses it.
pub(super) const FUSED: u16 = 8;
/// Produced into the slot of `Val::set`.
pub(super) const SUNK: u16 = 16;
/// A `get` that reads the slot in place.
pub(super) const IN_PLACE: u16 = 32;
/// First and second half of a sum or difference with its flags.
pub(super) const PAIR_HEAD: u16 = 64;
pub(super) const PAIR_TAIL: u16 = 128;
/// The value owns its temporary cell.
pub(super) const OWNS: u16 = 256;

/// What is known of a value.
#[derive(Clone, Copy)]
pub(super) struct Val {
    /// Defining instruction.
    pub def: u32,
    /// Last instruction that reads it, through aliases and folded operations too.
    pub last: u32,
    /// Earliest `set` of the value into a slot, or `NONE`.
    pub set: u32,
    /// First write of that slot after `set`.
    limit: u32,
    pub uses: u16,
    pub flags: u16,
    /// The cell it lives in (second scan).
    pub cell: u16,
    /// The value whose temporary it lives in.
    pub root: u16,
}

const NEW_VAL: Val =
    Val { def: NONE, last: 0, set: NONE, limit: NONE, uses: 0, flags: 0, cell: 0, root: 0 };

/// Next accesses to a slot, seen from the backward scan.
#[derive(Clone, Copy)]
struct SlotUse {
    write: u32,
    read: u32,
}

/// What is known of a block.
#[derive(Clone, Copy)]
pub(super) struct BlockInfo {
    /// Number of its direct exit, or of its indirect one, if it ends in one.
    pub exit: u32,
    /// It does nothing but leave through its direct exit.
    pub only_exit: bool,
    /// Something jumps there (second scan).
    pub needed: bool,
    /// Its first step (second scan).
    pub step: u32,
}

/// Results of the scans; reused from unit to unit.
#[derive(Default)]
pub(super) struct Analysis {
    pub vals: Vec<Val>,
    pub blocks: Vec<BlockInfo>,
    /// `set` instructions without effect, last one first.
    pub dead_sets: Vec<u32>,
    /// Guest slots, then locals.
    slots: Vec<SlotUse>,
    guest_slots: usize,
    /// MMU index of plain loads and stores: that of the unit's first access.
    pub mmu: u8,
}

/// An operation's operands, constant last.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub a: Value,
    pub b: Value,
    /// `b` is a constant that the operation holds.
    pub k: Option<u64>,
    /// They were exchanged.
    pub swapped: bool,
}

/// How an address is formed: base, index shifted left, and whether they are there.
#[derive(Clone, Copy)]
pub(super) struct Address {
    pub base: Value,
    pub index: Value,
    pub shift: u32,
    pub offset: i64,
}

impl Analysis {
    pub fn scan(&mut self, unit: &Unit, guest_slots: usize, helpers: &[HelperDef]) {
        self.guest_slots = guest_slots;
        let mut accesses = unit.insts.iter().filter(|i| matches!(i.op, Op::Load | Op::Store));
        self.mmu = accesses.next().map_or(0, |inst| inst.memop().mmu());
        self.slots.clear();
        self.slots.resize(guest_slots + unit.locals.len(), SlotUse { write: NONE, read: NONE });
        self.dead_sets.clear();
        self.forward(unit);
        for block in (0..unit.blocks.len() as u32).rev() {
            Backward {
                all: self,
                unit,
                helpers,
                range: unit.block_range(block),
                barrier: NONE,
                call_write: NONE,
            }
            .scan();
        }
    }

    fn forward(&mut self, unit: &Unit) {
        self.vals.clear();
        self.vals.resize(unit.values.len(), NEW_VAL);
        self.blocks.clear();
        let (mut exits, mut sites) = (0, 0);
        for block in 0..unit.blocks.len() as u32 {
            let range = unit.block_range(block);
            let mut only_exit = true;
            for (i, inst) in range.clone().zip(&unit.insts[range]) {
                only_exit &= matches!(inst.op, Op::Iconst | Op::Insn | Op::ExitDirect);
                if inst.dst.is_none() {
                    continue;
                }
                let flags = if inst.op == Op::Iconst && inst.ty != Type::I128 {
                    CONST | CLEAN
                } else if self.makes_clean(unit, inst) {
                    CLEAN
                } else {
                    0
                };
                let val = &mut self.vals[inst.dst.0 as usize];
                val.def = i as u32;
                val.flags = flags;
                val.root = inst.dst.0;
            }
            let end = unit.block(block).last().map(|inst| inst.op);
            let count = match end {
                Some(Op::ExitDirect) => &mut exits,
                _ => &mut sites,
            };
            let exit = *count;
            *count += matches!(end, Some(Op::ExitDirect | Op::ExitIndirect)) as u32;
            only_exit &= end == Some(Op::ExitDirect);
            self.blocks.push(BlockInfo { exit, only_exit, needed: block == 0, step: NONE });
        }
    }

    /// Whether the bits above the result's type are zero in its cell.
    fn makes_clean(&self, unit: &Unit, inst: &Inst) -> bool {
        let ty = unit.type_of(inst.dst);
        ty.bits() >= 64
            || match inst.op {
                Op::Get | Op::Call | Op::Trunc | Op::Select | Op::Binsert | Op::AtomicCas => false,
                Op::Bitcast => self.is(inst.args[0], CLEAN),
                Op::Vlane => lane_cell(inst).is_none(),
                _ => true,
            }
    }

    #[inline]
    pub fn val(&self, v: Value) -> &Val {
        &self.vals[v.0 as usize]
    }
    #[inline]
    pub fn val_mut(&mut self, v: Value) -> &mut Val {
        &mut self.vals[v.0 as usize]
    }
    #[inline]
    pub fn is(&self, v: Value, flag: u16) -> bool {
        self.val(v).flags & flag != 0
    }
    #[inline]
    pub fn def<'u>(&self, unit: &'u Unit, v: Value) -> &'u Inst {
        &unit.insts[self.val(v).def as usize]
    }
    /// The value, if it is a constant of at most 64 bits.
    #[inline]
    pub fn constant(&self, unit: &Unit, v: Value) -> Option<u64> {
        if !self.is(v, CONST) {
            return None;
        }
        let inst = self.def(unit, v);
        Some(inst.imm as u64 & super::int::mask(inst.ty.bits()))
    }

    /// The two operands of an operation that has a form with a constant.
    #[inline]
    pub fn operands(&self, unit: &Unit, inst: &Inst) -> Operands {
        let [a, b, _] = inst.args;
        if !inst.ty.is_int() || inst.ty == Type::I128 {
            return Operands { a, b, k: None, swapped: false };
        }
        if let Some(k) = self.constant(unit, b) {
            return Operands { a, b, k: Some(k), swapped: false };
        }
        match self.constant(unit, a) {
            Some(k) if exchangeable(inst.op) => Operands { a: b, b: a, k: Some(k), swapped: true },
            _ => Operands { a, b, k: None, swapped: false },
        }
    }

    /// The address of a load or store. Folds sums only as far as they are marked as fused.
    pub fn address(&self, unit: &Unit, inst: &Inst) -> Address {
        let addr = inst.args[0];
        if !self.is(addr, FUSED) {
            return Address { base: addr, index: Value::NONE, shift: 0, offset: inst.imm };
        }
        let sum = self.operands(unit, self.def(unit, addr));
        if let Some(k) = sum.k {
            let offset = inst.imm.wrapping_add(k as i64);
            return Address { base: sum.a, index: Value::NONE, shift: 0, offset };
        }
        if !self.is(sum.b, FUSED) {
            return Address { base: sum.a, index: sum.b, shift: 0, offset: inst.imm };
        }
        let shift = self.operands(unit, self.def(unit, sum.b));
        Address {
            base: sum.a,
            index: shift.a,
            shift: shift.k.unwrap_or(0) as u32 & (inst_bits(unit, addr) - 1),
            offset: inst.imm,
        }
    }

    /// Whether the result is just another name for (a part of) the operand: the cell's offset.
    #[inline]
    pub fn alias(&self, inst: &Inst) -> Option<u16> {
        match inst.op {
            Op::Trunc | Op::Bitcast | Op::Lo64 => Some(0),
            Op::Hi64 => Some(1),
            Op::Zext if inst.ty != Type::I128 && self.is(inst.args[0], CLEAN) => Some(0),
            Op::Vlane => lane_cell(inst),
            _ => None,
        }
    }
}

/// Whether 32 bits, sign-extended, give a constant of this type.
pub(super) fn is_short(k: u64, ty: Type) -> bool {
    ty.bits() <= 32 || k as i64 == k as i32 as i64
}

fn inst_bits(unit: &Unit, v: Value) -> u32 {
    unit.type_of(v).bits()
}

/// The cell of a vector's pair in which the lane has the lowest place.
fn lane_cell(inst: &Inst) -> Option<u16> {
    let bit = inst.imm2 * inst.shape.lane_bits();
    (bit & 63 == 0).then_some(bit as u16 / 64)
}

/// Operations of two integers that may take the second from a constant.
pub(super) fn has_constant_form(op: Op) -> bool {
    matches!(
        op,
        Op::Add
            | Op::Sub
            | Op::Mul
            | Op::MulhU
            | Op::MulhS
            | Op::DivU
            | Op::DivS
            | Op::RemU
            | Op::RemS
            | Op::MinU
            | Op::MinS
            | Op::MaxU
            | Op::MaxS
            | Op::And
            | Op::Or
            | Op::Xor
            | Op::AndNot
            | Op::OrNot
            | Op::XorNot
            | Op::Shl
            | Op::ShrU
            | Op::ShrS
            | Op::Rotl
            | Op::Rotr
            | Op::Icmp
            | Op::AddNzcv
            | Op::SubNzcv
    )
}

/// Those whose operands may be exchanged (comparisons with their condition).
fn exchangeable(op: Op) -> bool {
    matches!(
        op,
        Op::Add
            | Op::Mul
            | Op::MulhU
            | Op::MulhS
            | Op::MinU
            | Op::MinS
            | Op::MaxU
            | Op::MaxS
            | Op::And
            | Op::Or
            | Op::Xor
            | Op::Icmp
            | Op::AddNzcv
    )
}

/// The operation that makes a sum's or difference's flags, and the reverse.
fn partner(op: Op) -> Option<Op> {
    match op {
        Op::Add => Some(Op::AddNzcv),
        Op::Sub => Some(Op::SubNzcv),
        Op::AddNzcv => Some(Op::Add),
        Op::SubNzcv => Some(Op::Sub),
        _ => None,
    }
}

/// Whether a plain load or store has its own code: its [`super::code::kind`].
pub(super) fn plain_kind(inst: &Inst, mmu: u8) -> Option<u16> {
    use super::code::kind;
    let op = inst.memop();
    if op.0 & !0xf != MemOp(0).with_mmu(mmu).0 {
        return None;
    }
    let store = inst.op == Op::Store;
    Some(match (op.log2(), inst.ty) {
        (log2, ty) if store || !op.signed() || ty.bytes() == op.bytes() => log2 as u16,
        (0, Type::I32) => kind::S8_32,
        (0, Type::I64) => kind::S8_64,
        (1, Type::I32) => kind::S16_32,
        (1, Type::I64) => kind::S16_64,
        (2, Type::I64) => kind::S32_64,
        _ => return None,
    })
}

/// The backward scan of one block.
struct Backward<'a> {
    all: &'a mut Analysis,
    unit: &'a Unit,
    helpers: &'a [HelperDef],
    range: Range<usize>,
    /// Nearest later instruction at which slots must be exact.
    barrier: u32,
    /// Nearest later call that may write any slot.
    call_write: u32,
}

impl Backward<'_> {
    fn scan(mut self) {
        for i in self.range.clone().rev() {
            self.inst(i as u32, &self.unit.insts[i]);
        }
    }

    fn inst(&mut self, i: u32, inst: &Inst) {
        match inst.op {
            Op::Get => self.get(i, inst),
            Op::Set => self.set(i, inst),
            Op::Iconst if inst.ty != Type::I128 => {}
            Op::Insn | Op::Fence | Op::Jump | Op::ExitDirect | Op::ExitTrap => {}
            Op::Brif => self.condition(i, inst.args[0]),
            Op::ExitIndirect => {
                let [pc, ret, flags] = inst.args;
                self.use_cell(pc, i);
                // Without new flags a constant return pc stands in the step.
                if ret.is_none() || !flags.is_none() || !self.all.is(ret, CONST) {
                    self.use_cell(ret, i);
                }
                self.use_cell(flags, i);
            }
            Op::Load => {
                self.sink(inst.dst, i);
                self.address(i, inst);
                self.barrier = i;
            }
            Op::Store => {
                self.address(i, inst);
                self.use_cell(inst.args[1], i);
                self.barrier = i;
            }
            Op::AtomicRmw | Op::AtomicCas => {
                self.sink(inst.dst, i);
                self.use_cells(inst, i);
                self.barrier = i;
            }
            Op::Call => self.call(i, inst),
            _ => self.pure(i, inst),
        }
    }

    fn pure(&mut self, i: u32, inst: &Inst) {
        let val = *self.all.val(inst.dst);
        if val.uses == 0 && inst.op.info().effects & effect::FLAGS == 0 {
            return;
        }
        if let Some(offset) = self.all.alias(inst) {
            return self.alias(i, inst, offset);
        }
        if val.flags & FUSED != 0 {
            return self.fused(val.last, inst);
        }
        if self.pairs_with_previous(i, inst) {
            self.all.val_mut(inst.dst).flags |= PAIR_TAIL;
            let head = self.unit.insts[i as usize - 1].dst;
            self.all.val_mut(head).flags |= PAIR_HEAD;
            self.sink(inst.dst, i - 1);
            return;
        }
        self.sink(inst.dst, i);
        if has_constant_form(inst.op) {
            return self.use_operands(inst, i);
        }
        if inst.op == Op::Select {
            return self.select(i, inst);
        }
        self.use_cells(inst, i);
    }

    /// A use in any form.
    fn use_value(&mut self, v: Value, at: u32) {
        let val = self.all.val_mut(v);
        val.uses = val.uses.saturating_add(1);
        val.last = val.last.max(at);
        val.flags &= !FUSED;
    }
    /// A use that reads a cell.
    fn use_cell(&mut self, v: Value, at: u32) {
        if v.is_none() {
            return;
        }
        self.use_value(v, at);
        let val = self.all.val_mut(v);
        if val.flags & CONST != 0 {
            val.flags |= NEED_CELL;
        }
    }
    fn use_cells(&mut self, inst: &Inst, at: u32) {
        for v in inst.args {
            self.use_cell(v, at);
        }
    }
    fn use_operands(&mut self, inst: &Inst, at: u32) {
        let operands = self.all.operands(self.unit, inst);
        self.use_cell(operands.a, at);
        if operands.k.is_none() {
            self.use_cell(operands.b, at);
        }
    }

    /// Marks `v` as computed where it is used, at `at`, if this is its only use and `fits` its definition.
    fn fuse(&mut self, v: Value, at: u32, fits: impl Fn(&Self, &Inst) -> bool) -> bool {
        let val = *self.all.val(v);
        if val.uses != 0 || val.flags & CONST != 0 {
            return false;
        }
        if !fits(self, &self.unit.insts[val.def as usize]) {
            return false;
        }
        self.use_value(v, at);
        self.all.val_mut(v).flags |= FUSED;
        true
    }

    /// The operands of an operation that is computed at `at`.
    fn fused(&mut self, at: u32, inst: &Inst) {
        match inst.op {
            Op::NzcvTest => self.use_cell(inst.args[0], at),
            Op::Add => {
                let sum = self.all.operands(self.unit, inst);
                self.use_cell(sum.a, at);
                if sum.k.is_none() {
                    let shifted = self.fuse(sum.b, at, |this, def| {
                        def.op == Op::Shl && this.all.operands(this.unit, def).k.is_some()
                    });
                    if !shifted {
                        self.use_cell(sum.b, at);
                    }
                }
            }
            // A comparison, or the shift of an address.
            _ => self.use_operands(inst, at),
        }
    }

    fn condition(&mut self, i: u32, v: Value) {
        let fused = self.fuse(v, i, |_, def| match def.op {
            Op::Icmp => def.ty != Type::I128,
            Op::NzcvTest => true,
            _ => false,
        });
        if !fused {
            self.use_cell(v, i);
        }
    }

    fn select(&mut self, i: u32, inst: &Inst) {
        let [cond, then, otherwise] = inst.args;
        let unit = self.unit;
        let small = |this: &Self, v| match this.all.constant(unit, v) {
            Some(k) => is_short(k, inst.ty),
            None => false,
        };
        let constant = |this: &Self, v| this.all.is(v, CONST);
        if inst.ty.cells() == 2 {
            return self.use_cells(inst, i);
        }
        let fused = self.fuse(cond, i, |this, def| match def.op {
            Op::Icmp if def.ty != Type::I128 => {
                let k = this.all.operands(unit, def).k;
                k.is_none_or(|k| is_short(k, def.ty))
            }
            Op::NzcvTest => true,
            _ => false,
        });
        if !fused {
            self.use_cell(cond, i);
        }
        // At most one arm stays a constant; see `Translator::select`, which decides by the same rules.
        let icmp = fused && self.all.def(unit, cond).op == Op::Icmp;
        let folds = |this: &Self, v| {
            if fused { !icmp && small(this, v) } else { constant(this, v) }
        };
        if folds(self, otherwise) {
            self.use_cell(then, i);
        } else {
            self.use_cell(otherwise, i);
            if !folds(self, then) {
                self.use_cell(then, i);
            }
        }
    }

    fn address(&mut self, i: u32, inst: &Inst) {
        let addr = inst.args[0];
        let ty = self.unit.type_of(addr);
        let short_offset = inst.imm == inst.imm as i32 as i64;
        let plain = plain_kind(inst, self.all.mmu).is_some();
        let fused = plain
            && self.fuse(addr, i, |this, def| {
                let constant = || this.all.operands(this.unit, def).k.is_some();
                def.op == Op::Add && def.ty == ty && (short_offset || constant())
            });
        if !fused {
            self.use_cell(addr, i);
        }
    }

    fn alias(&mut self, i: u32, inst: &Inst, offset: u16) {
        let (v, w) = (inst.args[0], *self.all.val(inst.dst));
        self.use_cell(v, w.last.max(i));
        let cells = |v: Value| self.unit.type_of(v).cells();
        if offset == 0 && cells(v) == cells(inst.dst) && w.set != NONE {
            let val = self.all.val_mut(v);
            if w.set < val.set {
                (val.set, val.limit) = (w.set, w.limit);
            }
        }
    }

    fn pairs_with_previous(&self, i: u32, inst: &Inst) -> bool {
        let Some(other) = partner(inst.op) else { return false };
        if i as usize == self.range.start || !matches!(inst.ty, Type::I32 | Type::I64) {
            return false;
        }
        let before = &self.unit.insts[i as usize - 1];
        if before.op != other || before.ty != inst.ty || before.args != inst.args {
            return false;
        }
        let head = self.all.val(before.dst);
        head.uses != 0 && head.flags & FUSED == 0 && self.all.val(inst.dst).flags & PAIR_HEAD == 0
    }

    fn slot_index(&self, slot: Slot) -> usize {
        match slot.as_local() {
            Some(n) => self.all.guest_slots + n as usize,
            None => slot.0 as usize,
        }
    }
    /// Position in this block, or `NONE`.
    fn within(&self, at: u32) -> u32 {
        if at < self.range.end as u32 { at } else { NONE }
    }
    /// Next write of a slot.
    fn next_write(&self, slot: Slot) -> u32 {
        let write = self.within(self.all.slots[self.slot_index(slot)].write);
        if slot.as_local().is_some() { write } else { write.min(self.call_write) }
    }
    fn next_read(&self, slot: Slot) -> u32 {
        self.within(self.all.slots[self.slot_index(slot)].read)
    }
    /// Next instruction at which the slot must be exact.
    fn slot_barrier(&self, slot: Slot) -> u32 {
        if slot.as_local().is_some() { NONE } else { self.barrier }
    }

    fn get(&mut self, i: u32, inst: &Inst) {
        let write = self.next_write(inst.slot());
        let val = self.all.val_mut(inst.dst);
        if val.uses == 0 {
            return;
        }
        if val.last <= write {
            val.flags |= IN_PLACE;
        }
        let slot = self.slot_index(inst.slot());
        self.all.slots[slot].read = i;
    }

    fn set(&mut self, i: u32, inst: &Inst) {
        let slot = inst.slot();
        let write = self.next_write(slot);
        if write != NONE && self.next_read(slot) > write && self.slot_barrier(slot) > write {
            self.all.dead_sets.push(i);
            return;
        }
        let index = self.slot_index(slot);
        self.all.slots[index].write = i;
        let v = inst.args[0];
        if self.all.is(v, CONST) {
            return;
        }
        self.use_value(v, i);
        let val = self.all.val_mut(v);
        (val.set, val.limit) = (i, write);
    }

    /// Decides whether `v`, produced at `i`, goes straight to a slot.
    fn sink(&mut self, v: Value, i: u32) {
        if v.is_none() {
            return;
        }
        let val = *self.all.val(v);
        if val.set == NONE {
            return;
        }
        let slot = self.unit.insts[val.set as usize].slot();
        if self.next_write(slot) == val.set
            && self.next_read(slot) > val.set
            && self.slot_barrier(slot) > val.set
            && val.last <= val.limit
        {
            self.all.val_mut(v).flags |= SUNK;
            let index = self.slot_index(slot);
            self.all.slots[index].write = i;
        }
    }

    fn call(&mut self, i: u32, inst: &Inst) {
        let helper = &self.helpers[inst.imm2 as usize];
        let quiet = helper.pure && !helper.may_trap;
        if quiet && (inst.dst.is_none() || self.all.val(inst.dst).uses == 0) {
            return;
        }
        self.sink(inst.dst, i);
        self.use_cells(inst, i);
        if quiet {
            return;
        }
        self.barrier = i;
        match helper.writes {
            Access::None => {}
            Access::All => self.call_write = i,
            Access::These(slots) => {
                for &slot in slots {
                    let index = self.slot_index(slot);
                    self.all.slots[index].write = i;
                }
            }
        }
    }
}
