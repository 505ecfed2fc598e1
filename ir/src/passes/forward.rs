//! The walk forwards: copies the unit block by block, replacing what it understands.

use super::{PassConfig, Passes, copies, fold};
use crate::helper::{Access, HelperDef};
use crate::layout::{RegLayout, Slot};
use crate::op::Op;
use crate::types::Type;
use crate::unit::{Inst, Unit, Value};

#[derive(Default)]
pub(super) struct Buffers {
    /// What each value is called now.
    alias: Vec<Value>,
    /// The instruction in `out` that defines a value.
    def: Vec<u32>,
    slots: KnownSlots,
    /// Edges into each block, from blocks that can be reached.
    edges: Vec<u32>,
}

/// Values that slots and locals hold, as far as the block has seen them.
#[derive(Default)]
struct KnownSlots {
    /// By slot, locals behind them. Valid if the epoch is the current one.
    entries: Vec<(u32, Value)>,
    locals_at: usize,
    slot_epoch: u32,
    local_epoch: u32,
    last_epoch: u32,
}

impl KnownSlots {
    fn start_unit(&mut self, slots: usize, locals: usize) {
        self.locals_at = slots;
        if self.entries.len() < slots + locals || self.last_epoch > u32::MAX / 2 {
            self.entries.clear();
            self.entries.resize(slots + locals, (0, Value::NONE));
            self.last_epoch = 0;
        }
    }
    fn forget_all(&mut self) {
        self.forget_slots();
        self.local_epoch = self.last_epoch;
    }
    fn forget_slots(&mut self) {
        self.last_epoch += 1;
        self.slot_epoch = self.last_epoch;
    }
    fn entry(&mut self, slot: Slot) -> (u32, &mut (u32, Value)) {
        match slot.as_local() {
            Some(n) => (self.local_epoch, &mut self.entries[self.locals_at + n as usize]),
            None => (self.slot_epoch, &mut self.entries[slot.0 as usize]),
        }
    }
    fn get(&mut self, slot: Slot) -> Option<Value> {
        let (epoch, entry) = self.entry(slot);
        (entry.0 == epoch && !entry.1.is_none()).then_some(entry.1)
    }
    fn set(&mut self, slot: Slot, value: Value) {
        let (epoch, entry) = self.entry(slot);
        *entry = (epoch, value);
    }
}

/// What a step of the walk may look at and add to: the block so far, the current instruction last.
pub(super) struct Walk<'a> {
    pub unit: &'a mut Unit,
    pub out: &'a mut Vec<Inst>,
    def: &'a mut Vec<u32>,
}

/// What becomes of the current instruction. (Returned, not done in place: an instruction that is written in parts
/// and read as a whole right afterwards costs more than all the rest.)
pub(super) enum Change {
    Keep,
    /// Its result is this existing value.
    Same(Value),
    /// It becomes this one, with the same result.
    Become(Inst),
}

impl Walk<'_> {
    #[inline]
    pub fn current(&self) -> &Inst {
        self.out.last().expect("a current instruction")
    }
    /// The instruction that defines `v`, which is of the current block.
    #[inline]
    pub fn def(&self, v: Value) -> &Inst {
        &self.out[self.def[v.0 as usize] as usize]
    }
    #[inline]
    pub fn ty(&self, v: Value) -> Type {
        self.unit.values[v.0 as usize]
    }
    /// The current instruction uses a value defined before this index of `out`.
    #[inline]
    fn uses_before(&self, index: usize) -> bool {
        let args = self.current().args;
        args.iter().any(|arg| !arg.is_none() && (self.def[arg.0 as usize] as usize) < index)
    }
    /// A new constant in front of the current instruction; `None` when the unit is full.
    pub fn iconst(&mut self, ty: Type, value: i64) -> Option<Value> {
        let dst = Value(u16::try_from(self.unit.values.len()).ok()?);
        if dst.is_none() {
            return None;
        }
        self.unit.values.push(ty);
        let at = self.out.len() - 1;
        self.def.push(at as u32);
        self.out.insert(at, Inst { dst, imm: value, ..Inst::new(Op::Iconst, ty) });
        Some(dst)
    }
    /// The existing value that the current instruction is to be replaced with, if any; else it is in its final form.
    #[inline]
    fn apply(&mut self, change: Change) -> Option<Value> {
        match change {
            Change::Keep => None,
            Change::Same(value) => Some(value),
            Change::Become(inst) => {
                let last = self.out.len() - 1;
                self.out[last] = inst;
                None
            }
        }
    }
}

impl Passes {
    pub(super) fn walk_forwards(
        &mut self,
        unit: &mut Unit,
        layout: &RegLayout,
        helpers: &[HelperDef],
        config: &PassConfig,
    ) {
        let Buffers { alias, def, slots, edges } = &mut self.forward;
        let old = std::mem::take(&mut unit.insts);
        let blocks = std::mem::take(&mut unit.blocks);
        let values = unit.values.len();
        alias.clear();
        alias.extend((0..values as u16).map(Value));
        def.resize(values, 0);
        edges.clear();
        edges.resize(blocks.len(), 0);
        slots.start_unit(layout.slots().len(), unit.locals.len());
        self.starts.clear();
        self.block_of.clear();
        self.out.clear();
        let mut walk = Walk { unit, out: &mut self.out, def };

        let mut marker = None;
        // The current guest instruction, so far.
        let mut repeatable = true;
        // Where in `out` the last checkpoint stands.
        let mut behind = 0;
        for (block, &start) in blocks.iter().enumerate() {
            let end = blocks.get(block + 1).map_or(old.len(), |&e| e as usize);
            self.block_of.push(self.starts.len() as u32);
            let insts = &old[start as usize..end];
            if config.branches && block > 0 && edges[block] == 0 {
                // What follows in the text may belong to a guest instruction that started here.
                marker = insts.iter().rfind(|inst| inst.op == Op::Insn).or(marker);
                continue;
            }
            if config.branches && edges[block] == 1 && continues(walk.out, block) {
                walk.out.pop();
                self.block_of[block] -= 1;
            } else {
                self.starts.push(walk.out.len() as u32);
                slots.forget_all();
            }
            walk.out.extend(marker.take().filter(|_| insts[0].op != Op::Insn));
            for inst in insts {
                let args = inst.args.map(|arg| *alias.get(arg.0 as usize).unwrap_or(&arg));
                let dst = inst.dst.0 as usize;
                if config.forward_slots
                    && matches!(inst.op, Op::Get | Op::Set)
                    && let Some(value) = forward_slot(slots, inst, args[0])
                {
                    if inst.op == Op::Get {
                        alias[dst] = value;
                    }
                    continue;
                }
                walk.out.push(Inst { args, ..*inst });
                let mut same = None;
                repeatable &= inst.repeatable(helpers);
                match inst.op {
                    Op::Insn if !std::mem::replace(&mut repeatable, true) => {
                        slots.forget_slots();
                        behind = walk.out.len();
                    }
                    Op::Get | Op::Set | Op::Insn | Op::Load | Op::Store => {}
                    Op::Call => match helpers[inst.imm2 as usize].writes {
                        Access::None => {}
                        Access::All => slots.forget_slots(),
                        Access::These(these) => {
                            these.iter().for_each(|&slot| slots.set(slot, Value::NONE));
                        }
                    },
                    Op::Jump | Op::Brif => {
                        if config.branches {
                            walk.apply(fold::branch(&walk));
                        }
                        let end = walk.current();
                        edges[end.imm2 as usize] += 1;
                        if end.op == Op::Brif {
                            edges[end.imm as usize] += 1;
                        }
                    }
                    _ => {
                        if config.copies {
                            same = walk.apply(copies::copy(&walk));
                        }
                        // A value that crosses a checkpoint makes all slots be stored there. Folded into a constant it
                        // would not show any more, though the slot that it came from is read in the interpreter.
                        if config.fold && same.is_none() && !walk.uses_before(behind) {
                            let change = fold::fold(&mut walk);
                            same = walk.apply(change);
                        }
                    }
                }
                if let Some(value) = same {
                    walk.out.pop();
                    alias[dst] = value;
                } else if let Some(def) = walk.def.get_mut(dst) {
                    *def = walk.out.len() as u32 - 1;
                }
            }
        }
        for inst in walk.out.iter_mut() {
            match inst.op {
                Op::Jump => inst.imm2 = self.block_of[inst.imm2 as usize],
                Op::Brif => {
                    inst.imm2 = self.block_of[inst.imm2 as usize];
                    inst.imm = self.block_of[inst.imm as usize] as i64;
                }
                _ => {}
            }
        }
        walk.unit.insts = old;
        walk.unit.blocks = blocks;
    }
}

/// The code so far ends in a jump to `block`.
fn continues(out: &[Inst], block: usize) -> bool {
    matches!(out.last(), Some(jump) if jump.op == Op::Jump && jump.imm2 as usize == block)
}

/// Slot forwarding. If the access is redundant, the value that the slot holds; `value` is what a `set` writes.
fn forward_slot(slots: &mut KnownSlots, inst: &Inst, value: Value) -> Option<Value> {
    let known = slots.get(inst.slot());
    let (now, redundant) = match inst.op {
        Op::Set => (value, known == Some(value)),
        _ => (known.unwrap_or(inst.dst), known.is_some()),
    };
    if redundant {
        return known;
    }
    slots.set(inst.slot(), now);
    None
}
