//! Where a precise region stores its slots, so that a fault finds them exact.
//!
//! A fault need not find the slots of the instruction that faults. It suffices that it finds those of an earlier one,
//! the *checkpoint*, from which the interpreter can do the same again up to the fault: everything since then must be
//! repeatable. Reading memory and computing is, writing memory and calling helpers is not. So:
//!
//! * the entry is a checkpoint, and behind a guest instruction that cannot be repeated stands another one;
//! * an instruction that may fault after it has done something that cannot be repeated (a load and two stores, a helper
//!   call) is one itself.
//!
//! A loop that only reads stores nothing; one that writes stores once per write what it changed.
//!
//! Writes in a *row* share a checkpoint: between it and the last of them nothing is read, so whoever does all of it again computes
//! the same, and may leave out the writes that are done, whose number the fault map names. Behind them may be read what they
//! wrote; the first write behind such a load ends the row, because the load would be repeated and see it. Where ways meet that
//! have written a different number of times, rows have ended: behind the last write of each of these ways is a checkpoint. If they
//! meet inside a unit, none of its writes are in rows.
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
use std::collections::HashSet;
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
    /// By node: the indices of the writes that are left out when what follows is repeated.
    rows: Vec<Vec<usize>>,
    /// By node: how many of those are done at its start, since the checkpoint.
    done: Vec<u8>,
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
    /// The instruction may fault after it has done something that cannot be repeated.
    own: bool,
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

    /// How many writes lie between the last checkpoint and the node's start.
    pub fn done(&self, node: usize) -> u8 {
        self.done.get(node).copied().unwrap_or(0)
    }

    /// The instruction of this index is a write that is left out when it is done.
    pub fn in_row(&self, node: usize, at: usize) -> bool {
        self.rows.get(node).is_some_and(|rows| rows.contains(&at))
    }

    /// How many write the pc cell.
    pub fn telling(&self) -> usize {
        self.at.iter().flatten().filter(|point| point.tells).count()
    }

    pub fn place(flow: &Flow, input: &RegionInput<'_>) -> Checkpoints {
        let mut points = Checkpoints {
            at: vec![Vec::new(); flow.nodes.len()],
            rows: vec![Vec::new(); flow.nodes.len()],
            done: vec![0; flow.nodes.len()],
            start: vec![Reaching::None; flow.nodes.len()],
            entry_tells: false,
        };
        let mut breaks = Breaks {
            anew: vec![false; flow.nodes.len()],
            forced: vec![false; flow.nodes.len()],
            units: vec![false; input.units.len()],
            last: HashSet::new(),
        };
        let insns: Vec<_> = input.units.iter().map(|unit| instructions(unit, input)).collect();
        while points.choose(flow, input, &insns, &mut breaks) {}
        points.observe(flow, input);
        points.reach(flow, input);
        points.tell(flow, input);
        points
    }

    /// Chooses the instructions. True when `breaks` were added because ways meet: then it is to be done again.
    fn choose(
        &mut self,
        flow: &Flow,
        input: &RegionInput<'_>,
        insns: &[Vec<Kind>],
        breaks: &mut Breaks,
    ) -> bool {
        let mut preds = vec![Vec::new(); flow.nodes.len()];
        for &n in &flow.order {
            flow.nodes[n].succs.iter().for_each(|edge| preds[edge.to].push((n, edge.back)));
        }
        let mut starts = vec![Row::default(); flow.nodes.len()];
        let mut ends: Vec<Option<Row>> = vec![None; flow.nodes.len()];
        for sweep in 0.. {
            let mut changed = false;
            for &n in &flow.order {
                // The first one is known: it comes before this node, unless that is the entry.
                let entry = (n == 0).then(Row::default);
                let end = |&(p, back): &(usize, bool)| {
                    ends[p].map(|row| if back { row.come_round() } else { row })
                };
                let known = entry.into_iter().chain(preds[n].iter().filter_map(end));
                let mut start = known.reduce(Row::join).unwrap_or_default();
                start.ends |= breaks.forced[n];
                if sweep > PATIENCE {
                    // Another checkpoint may make this one needless, and so on in circles.
                    start.reads |= starts[n].reads;
                    start.rounds |= starts[n].rounds;
                    start.ends |= starts[n].ends;
                }
                changed |= start != std::mem::replace(&mut starts[n], start);
                let end = self.choose_in(flow, input, n, start, insns, breaks);
                changed |= ends[n].replace(end) != Some(end);
            }
            if !changed {
                break;
            }
        }
        let mut broken = false;
        for &n in &flow.order {
            let Some(row) = ends[n] else { continue };
            for edge in &flow.nodes[n].succs {
                let (to, unit) = (edge.to, flow.nodes[edge.to].unit);
                let start = starts[to];
                let first = flow.first[unit] == to;
                if start.done != row.done && !(start.ends && first) {
                    let known = if first { &mut breaks.anew[to] } else { &mut breaks.units[unit] };
                    broken |= !std::mem::replace(known, true);
                }
                if row.done != 0 && first && (breaks.anew[to] || breaks.units[unit]) {
                    broken |= match row.last {
                        Some(last) => breaks.last.insert(last),
                        None => !std::mem::replace(&mut breaks.forced[to], true),
                    };
                }
            }
        }
        broken
    }

    /// Chooses the instructions of a node; returns what holds at its end.
    fn choose_in(
        &mut self,
        flow: &Flow,
        input: &RegionInput<'_>,
        n: usize,
        mut row: Row,
        insns: &[Vec<Kind>],
        breaks: &Breaks,
    ) -> Row {
        let node = &flow.nodes[n];
        self.done[n] = row.done;
        self.at[n].clear();
        self.rows[n].clear();
        let start = input.units[node.unit].block_range(node.block).start;
        let insts = input.units[node.unit].block(node.block);
        let may = |at| !breaks.units[node.unit] && !breaks.last.contains(&(n, at));
        // An instruction that began in another block has no row.
        let mut kind = Kind::Own;
        for (at, inst) in insts.iter().enumerate() {
            if inst.op == Op::Insn {
                kind = insns[node.unit][start + at];
                let from = if row.ends { Row::default() } else { row };
                let ends = || from.ends_inside((n, at), insts, may, input);
                let own = kind == Kind::Own || kind == Kind::Plain && ends();
                if own || row.ends {
                    self.at[n].push(Point { at, own, ..Point::default() });
                    row = Row::default();
                }
            } else if row.step((n, at), inst, kind == Kind::Plain && may(at), input) {
                self.rows[n].push(at);
            }
        }
        row
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
                let insts = input.units[node.unit].block(node.block);
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
                            if point.own || !locals.is_empty() || crosses(insts, at) {
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

/// Sweeps over a region in which checkpoints may still go away.
const PATIENCE: usize = 8;

/// Where rows end because ways meet that wrote a different number of times.
struct Breaks {
    /// By node: no row reaches its start.
    anew: Vec<bool>,
    /// By node: there is a checkpoint at its start, because nobody knows where the rows would have to end.
    forced: Vec<bool>,
    /// By unit: no row is in it.
    units: Vec<bool>,
    /// Writes behind which is a checkpoint.
    last: HashSet<(usize, usize)>,
}

/// What happened since the last checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Row {
    /// Something was read.
    reads: bool,
    /// A loop was closed.
    rounds: bool,
    /// Something was done that can neither be repeated nor left out.
    ends: bool,
    /// Writes that can be left out, and node and index of the last of them, where it is the same on all ways.
    done: u8,
    last: Option<(usize, usize)>,
}

impl Row {
    /// The longest.
    const MAX: u8 = 100;

    /// Where two ways meet. They have the same number, or there will be a checkpoint.
    fn join(self, other: Row) -> Row {
        let ends = self.ends | other.ends;
        Row {
            reads: self.reads | other.reads,
            rounds: self.rounds | other.rounds,
            ends,
            done: if ends { 0 } else { self.done },
            last: self.last.filter(|_| self.last == other.last),
        }
    }

    /// On an edge that closes a loop. The row ends in front of one without any checkpoint, all of which would be repeated for
    /// the sake of a write behind it.
    fn come_round(self) -> Row {
        Row { reads: self.reads | self.rounds, rounds: true, ..self }
    }

    /// Goes behind the instruction at this node and index; true when it is a write of the row. `may`: it can be one.
    fn step(
        &mut self,
        at: (usize, usize),
        inst: &Inst,
        may: bool,
        input: &RegionInput<'_>,
    ) -> bool {
        if inst.op == Op::Store && may && !self.ends && !self.reads && self.done < Row::MAX {
            self.done += 1;
            self.last = Some(at);
            return true;
        }
        self.reads |= inst.op == Op::Load;
        if !inst.repeatable(input.helpers) {
            (self.ends, self.done, self.last) = (true, 0, None);
        }
        false
    }

    /// The guest instruction that begins at this node and index may fault behind something that can neither be repeated nor
    /// left out.
    fn ends_inside(
        mut self,
        (n, at): (usize, usize),
        insts: &[Inst],
        may: impl Fn(usize) -> bool,
        input: &RegionInput<'_>,
    ) -> bool {
        let own = insts.iter().enumerate().skip(at + 1);
        own.take_while(|(_, inst)| inst.op != Op::Insn).any(|(at, inst)| {
            let ends = self.ends && faults(inst);
            self.step((n, at), inst, may(at), input);
            ends
        })
    }
}

/// A guest instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Always its own checkpoint: it calls a helper or may fault behind something that can neither be repeated nor left out.
    Own,
    /// Its writes may be in a row.
    Plain,
    /// Its writes end a row.
    Other,
}

/// By index, the kinds of the instructions that begin in the unit.
fn instructions(unit: &Unit, input: &RegionInput<'_>) -> Vec<Kind> {
    let mut kinds = vec![Kind::Other; unit.insts.len()];
    let starts: Vec<usize> =
        (0..unit.insts.len()).filter(|&i| unit.insts[i].op == Op::Insn).collect();
    for (i, &start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).copied().unwrap_or(unit.insts.len());
        let insts = &unit.insts[start..end];
        // An integer of 128 bits is stored in halves.
        let halves = |inst: &Inst| inst.op == Op::Store && inst.ty == Type::I128;
        let call = |inst: &Inst| inst.op == Op::Call && !inst.repeatable(input.helpers);
        let mut done = false;
        let twice = insts.iter().any(|inst| {
            let cut = done && faults(inst);
            done |= !inst.repeatable(input.helpers);
            cut
        });
        let whole = !unit.blocks.iter().any(|&b| (start + 1..end).contains(&(b as usize)));
        let own = insts.iter().any(|inst| halves(inst) || call(inst))
            || if whole {
                Row::default().ends_inside((0, 0), insts, |_| true, input)
            } else {
                twice
            };
        kinds[start] = if own {
            Kind::Own
        } else if whole {
            Kind::Plain
        } else {
            Kind::Other
        };
    }
    kinds
}

/// True when the block uses a value behind `at` that it computed before.
fn crosses(insts: &[Inst], at: usize) -> bool {
    let before: Vec<_> = insts[..at].iter().map(|i| i.dst).filter(|v| !v.is_none()).collect();
    insts[at..].iter().flat_map(|i| i.args).any(|arg| !arg.is_none() && before.contains(&arg))
}
