//! Where a precise region stores its slots, so that a fault finds them exact.
//!
//! A fault need not find the slots of the instruction that faults. It suffices that it finds those of an earlier one,
//! the *checkpoint*, from which the interpreter can do the same again up to the fault: everything since then must be
//! repeatable. Reading memory and computing is, writing memory and calling helpers is not. So:
//!
//! * the entry is a checkpoint, and behind a guest instruction that cannot be repeated stands another one;
//! * an instruction that may fault after it has done something that cannot be repeated (a pair of stores, a helper
//!   call) is one itself.
//!
//! A loop that only reads stores nothing; one that writes stores once per write what it changed.
//!
//! At a checkpoint only *observed* slots are stored: those that the way from there to a fault reads or leaves alone. A
//! slot that is overwritten first, as flags mostly are, stays out. That holds for the guest's code as the interpreter
//! will see it, so a block must not read slots behind a checkpoint without a `get`: the passes forget there what they
//! know, and where a value crosses a checkpoint nevertheless (the lifter may fuse two instructions) all slots count.
//! So they do where an instruction is its own checkpoint, of which the passes know nothing. What a lifter knows without
//! reading it, such as the translation key, is in implied slots ([`tulk_ir::RegLayout::imply`]), which always count.
//!
//! Flags that nobody reads have no `set`, so instructions that overwrite all of them say so
//! ([`tulk_ir::Builder::overwriting`]); at a checkpoint that is one they are not stored, implied or not.
//!
//! The fault map names the checkpoint of each instruction. Where it depends on the way taken, the checkpoints of the
//! region that may be meant write it to the pc cell ([`crate::FaultMap::CHECKPOINT`]).

use crate::RegionInput;
use crate::flow::{Bits, Flow};
use tulk_ir::op::Op;
use tulk_ir::{Inst, Type, Unit};

/// The checkpoint to which an instruction's fault goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaching {
    /// No way leads here.
    None,
    /// This one.
    One(u64),
    /// The one whose pc is in the pc cell.
    Many,
}

impl Reaching {
    fn join(self, other: Reaching) -> Reaching {
        match (self, other) {
            (Reaching::None, x) | (x, Reaching::None) => x,
            (a, b) if a == b => a,
            _ => Reaching::Many,
        }
    }
}

/// See the module. Without `precise` there are none, and every instruction that faults is its own.
#[derive(Default)]
pub struct Checkpoints {
    /// By node: the checkpoints in its block.
    at: Vec<Vec<Point>>,
    /// Unit indices of the instructions that are their own checkpoints, by unit.
    own: Vec<Vec<usize>>,
    /// By node: what reaches its start.
    start: Vec<Reaching>,
    /// The entry writes the pc cell.
    pub entry_tells: bool,
}

/// One checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Point {
    /// The index of its `insn` in the block.
    at: usize,
    /// What it stores, where that is dirty.
    pub stored: Bits,
    /// It writes the pc cell: some instruction whose fault goes back to it may come from another one as well.
    pub tells: bool,
}

impl Checkpoints {
    /// The checkpoint at the `insn` of this index, if it is one.
    pub fn point(&self, node: usize, at: usize) -> Option<&Point> {
        self.at.get(node)?.iter().find(|c| c.at == at)
    }

    pub fn reaching(&self, node: usize) -> Reaching {
        self.start.get(node).copied().unwrap_or(Reaching::None)
    }

    /// How many write the pc cell.
    pub fn telling(&self) -> usize {
        self.at.iter().flatten().filter(|point| point.tells).count()
    }

    pub fn place(flow: &Flow, input: &RegionInput<'_>) -> Checkpoints {
        let mut points = Checkpoints {
            at: vec![Vec::new(); flow.nodes.len()],
            own: input.units.iter().map(|u| own_checkpoints(u, input)).collect(),
            start: vec![Reaching::None; flow.nodes.len()],
            entry_tells: false,
        };
        points.choose(flow, input);
        points.observe(flow, input);
        points.reach(flow, input);
        points.tell(flow, input);
        points
    }

    /// Chooses the instructions.
    fn choose(&mut self, flow: &Flow, input: &RegionInput<'_>) {
        // Whether something that cannot be repeated may lie behind the last checkpoint.
        let mut pending = vec![false; flow.nodes.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for &n in &flow.order {
                let node = &flow.nodes[n];
                let range = input.units[node.unit].block_range(node.block);
                let mut now = pending[n];
                self.at[n].clear();
                for (at, inst) in input.units[node.unit].block(node.block).iter().enumerate() {
                    let index = range.start + at;
                    if inst.op == Op::Insn && (now || self.own[node.unit].contains(&index)) {
                        self.at[n].push(Point { at, ..Point::default() });
                        now = false;
                    }
                    now |= !inst.repeatable(input.helpers);
                }
                for edge in &node.succs {
                    changed |= now && !std::mem::replace(&mut pending[edge.to], now);
                }
            }
        }
    }

    /// Finds the observed slots at each.
    fn observe(&mut self, flow: &Flow, input: &RegionInput<'_>) {
        let none = Bits::new(flow.vars.len());
        let mut at_start = vec![none.clone(); flow.nodes.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for &n in flow.order.iter().rev() {
                let node = &flow.nodes[n];
                let unit = input.units[node.unit];
                let insts = unit.block(node.block);
                let first = unit.block_range(node.block).start;
                let mut observed = none.clone();
                for edge in &node.succs {
                    observed.union(&at_start[edge.to]);
                }
                for (at, inst) in insts.iter().enumerate().rev() {
                    match inst.op {
                        Op::Get => observed.insert(flow.var(node.unit, inst.slot())),
                        Op::Set => observed.remove(flow.var(node.unit, inst.slot())),
                        Op::Insn => {
                            // Whatever the way on does, it does not see what they held before.
                            if inst.aux_flag() {
                                observed.subtract(flow.overwritten());
                            }
                            let Some(point) = self.at[n].iter_mut().find(|c| c.at == at) else {
                                continue;
                            };
                            let mut locals = observed.clone();
                            locals.subtract(flow.all_slots());
                            let own = self.own[node.unit].contains(&(first + at));
                            if own || !locals.is_empty() || crosses(insts, at) {
                                observed.union(flow.all_slots());
                            }
                            observed.intersect(flow.all_slots());
                            observed.union(flow.implied());
                            if inst.aux_flag() {
                                observed.subtract(flow.overwritten());
                            }
                            point.stored = std::mem::replace(&mut observed, locals);
                        }
                        _ if faults(inst) => {
                            observed.union(flow.all_slots());
                        }
                        _ => {}
                    }
                }
                changed |= at_start[n].union(&observed);
            }
        }
    }

    /// Finds which checkpoint reaches each node.
    fn reach(&mut self, flow: &Flow, input: &RegionInput<'_>) {
        self.start[0] = Reaching::One(input.units[0].pc);
        let mut changed = true;
        while changed {
            changed = false;
            for &n in &flow.order {
                let node = &flow.nodes[n];
                let mut now = self.start[n];
                let insts = input.units[node.unit].block(node.block);
                if let Some(last) = self.at[n].last() {
                    now = Reaching::One(insts[last.at].imm as u64);
                }
                for edge in &node.succs {
                    let joined = self.start[edge.to].join(now);
                    changed |= joined != std::mem::replace(&mut self.start[edge.to], joined);
                }
            }
        }
    }

    /// Finds the checkpoints that must be told apart when running.
    fn tell(&mut self, flow: &Flow, input: &RegionInput<'_>) {
        // Whether from a node's start on, before a checkpoint, something may fault that many reach.
        let mut asked = vec![false; flow.nodes.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for &n in flow.order.iter().rev() {
                let node = &flow.nodes[n];
                let insts = input.units[node.unit].block(node.block);
                let mut now = node.succs.iter().any(|edge| asked[edge.to]);
                if let Some(last) = self.at[n].last_mut() {
                    last.tells = now;
                    now = false;
                }
                let first = self.at[n].first().map_or(insts.len(), |c| c.at);
                now |= self.start[n] == Reaching::Many && insts[..first].iter().any(faults);
                changed |= now != std::mem::replace(&mut asked[n], now);
            }
        }
        self.entry_tells = asked[0];
    }
}

fn faults(inst: &Inst) -> bool {
    matches!(inst.op, Op::Load | Op::Store | Op::AtomicRmw | Op::AtomicCas)
}

/// Indices of the `insn`s whose instructions call a helper or may fault behind something that cannot be repeated.
fn own_checkpoints(unit: &Unit, input: &RegionInput<'_>) -> Vec<usize> {
    let mut own = Vec::new();
    let (mut insn, mut done) = (0, false);
    for (i, inst) in unit.insts.iter().enumerate() {
        if inst.op == Op::Insn {
            (insn, done) = (i, false);
            continue;
        }
        let repeatable = inst.repeatable(input.helpers);
        // An integer of 128 bits is stored in halves.
        let halves = inst.op == Op::Store && inst.ty == Type::I128;
        if (done || halves) && faults(inst) || inst.op == Op::Call && !repeatable {
            own.push(insn);
        }
        done |= !repeatable;
    }
    own.dedup();
    own
}

/// True when the block uses a value behind `at` that it computed before.
fn crosses(insts: &[Inst], at: usize) -> bool {
    let before: Vec<_> = insts[..at].iter().map(|i| i.dst).filter(|v| !v.is_none()).collect();
    insts[at..].iter().flat_map(|i| i.args).any(|arg| !arg.is_none() && before.contains(&arg))
}
