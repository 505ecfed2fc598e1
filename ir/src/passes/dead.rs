//! The walk backwards: stores to slots that nobody can see, and values that nobody uses.

use super::{PassConfig, Passes};
use crate::helper::{Access, HelperDef};
use crate::layout::{RegLayout, Slot};
use crate::op::{Op, effect};
use crate::unit::{Inst, Unit};

#[derive(Default)]
pub(super) struct Buffers {
    /// Which instructions of `out` stay.
    pub keep: Vec<bool>,
    used: Vec<bool>,
    overwritten: SlotSet,
    /// [`Buffers::overwritten`] at the start of each block.
    at_start: Vec<u64>,
}

/// Slots and locals that will be written before anyone can read them, as bits: slots first, locals from a
/// word of their own on.
#[derive(Default)]
struct SlotSet {
    words: Vec<u64>,
    local_words_at: usize,
}

impl SlotSet {
    #[inline]
    fn bit(&self, slot: Slot) -> (usize, u64) {
        let (base, n) = match slot.as_local() {
            Some(n) => (self.local_words_at, n),
            None => (0, slot.0),
        };
        (base + (n >> 6) as usize, 1 << (n & 63))
    }
    #[inline]
    fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = self.bit(slot);
        self.words[word] & bit != 0
    }
    #[inline]
    fn insert(&mut self, slot: Slot) {
        let (word, bit) = self.bit(slot);
        self.words[word] |= bit;
    }
    #[inline]
    fn remove(&mut self, slot: Slot) {
        let (word, bit) = self.bit(slot);
        self.words[word] &= !bit;
    }
    /// The guest may look at its registers here.
    #[inline]
    fn remove_slots(&mut self) {
        self.words[..self.local_words_at].fill(0);
    }
    /// Behind an exit the guest sees all slots and nobody sees a local.
    fn at_exit(&mut self) {
        self.remove_slots();
        self.words[self.local_words_at..].fill(!0);
    }
}

impl Passes {
    /// Control flow only goes forward, so one walk sees what follows each block before the block.
    pub(super) fn walk_backwards(
        &mut self,
        unit: &Unit,
        layout: &RegLayout,
        helpers: &[HelperDef],
        config: &PassConfig,
    ) {
        let out = &self.out;
        let Buffers { keep, used, overwritten, at_start } = &mut self.dead;
        keep.clear();
        keep.resize(out.len(), true);
        if !config.dead_stores && !config.dead_code {
            return;
        }
        used.clear();
        used.resize(unit.values.len(), false);
        overwritten.local_words_at = layout.slots().len().div_ceil(64);
        let words = overwritten.local_words_at + unit.locals.len().div_ceil(64);
        overwritten.words.clear();
        overwritten.words.resize(words, 0);
        at_start.clear();
        at_start.resize(words * self.starts.len(), 0);

        let mut end = out.len();
        for (block, &start) in self.starts.iter().enumerate().rev() {
            for i in (start as usize..end).rev() {
                let inst = &out[i];
                let dead = match inst.op {
                    Op::Insn => {
                        if checkpoint(&out[..i], helpers) {
                            overwritten.remove_slots();
                        }
                        false
                    }
                    Op::Set => config.dead_stores && dead_store(overwritten, inst.slot()),
                    Op::Get => {
                        let dead = config.dead_code && !used[inst.dst.0 as usize];
                        if !dead {
                            overwritten.remove(inst.slot());
                        }
                        dead
                    }
                    Op::Call => {
                        let helper = &helpers[inst.imm2 as usize];
                        let unused = inst.dst.is_none() || !used[inst.dst.0 as usize];
                        let dead = config.dead_code && helper.pure && !helper.may_trap && unused;
                        if !dead {
                            read_by_helper(overwritten, helper);
                        }
                        dead
                    }
                    op => {
                        let effects = op.info().effects;
                        if effects & effect::END != 0 {
                            flow_into(overwritten, at_start, inst);
                        }
                        if effects & effect::FAULT != 0 {
                            overwritten.remove_slots();
                        }
                        config.dead_code && effects == 0 && !used[inst.dst.0 as usize]
                    }
                };
                if dead {
                    keep[i] = false;
                    continue;
                }
                for arg in inst.args {
                    if let Some(used) = used.get_mut(arg.0 as usize) {
                        *used = true;
                    }
                }
            }
            at_start[block * words..][..words].copy_from_slice(&overwritten.words);
            end = start as usize;
        }
    }
}

/// True when the guest instruction that `before` ends in cannot be repeated.
fn checkpoint(before: &[Inst], helpers: &[HelperDef]) -> bool {
    let mut own = before.iter().rev().take_while(|inst| inst.op != Op::Insn);
    own.any(|inst| !inst.repeatable(helpers))
}

/// A `set` of `slot`: dead if another one follows before anyone looks, and what makes earlier ones dead.
fn dead_store(overwritten: &mut SlotSet, slot: Slot) -> bool {
    let dead = overwritten.contains(slot);
    overwritten.insert(slot);
    dead
}

/// A helper's own writes are not counted on: its row says where it may write, not that it does.
fn read_by_helper(overwritten: &mut SlotSet, helper: &HelperDef) {
    match helper.reads {
        _ if helper.may_trap || !helper.pure => overwritten.remove_slots(),
        Access::None => {}
        Access::All => overwritten.remove_slots(),
        Access::These(slots) => slots.iter().for_each(|&slot| overwritten.remove(slot)),
    }
}

/// The state behind the block that `end` ends.
fn flow_into(overwritten: &mut SlotSet, at_start: &[u64], end: &Inst) {
    let words = overwritten.words.len();
    let state = |block: usize| &at_start[block * words..][..words];
    match end.op {
        Op::Jump => overwritten.words.copy_from_slice(state(end.imm2 as usize)),
        Op::Brif => {
            let both = state(end.imm2 as usize).iter().zip(state(end.imm as usize));
            overwritten.words.iter_mut().zip(both).for_each(|(word, (a, b))| *word = a & b);
        }
        _ => overwritten.at_exit(),
    }
}
