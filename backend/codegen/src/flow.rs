//! The control flow of a region and what is known about its variables on it.
//!
//! Nodes are the IR blocks of all units. A *variable* is a guest slot or a unit's local that the region uses.
//! Two analyses run over the graph:
//!
//! * *dirty* (forward, may): the variable may differ from its home in the CPU state;
//! * *live* (backward): the variable's value may still be read, by a `get` or by a write-back of a dirty slot.
//!
//! Write-backs happen only at fixed points ([`Effect`]), so after one the slots written are clean and no store is
//! ever repeated; the lowering replays [`Flow::effect`] and so stores exactly what the analysis assumed.
//! What is stored because of faults is the subject of [`crate::checkpoint`].
//! Variables that are live into the entry are loaded there, all others are never loaded.

use crate::checkpoint::Checkpoints;
use crate::{CompileError, MemoryModel, PageCheck, RegionInput};
use std::collections::HashMap;
use tulk_base::MemAlign;
use tulk_ir::op::{Op, effect};
use tulk_ir::{Access, ExitKind, Inst, Slot, Type, Unit, Value};

/// A set of variables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    pub fn new(len: usize) -> Bits {
        Bits(vec![0; len.div_ceil(64)])
    }
    pub fn contains(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 != 0
    }
    pub fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }
    pub fn remove(&mut self, i: usize) {
        self.0[i / 64] &= !(1 << (i % 64));
    }
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }
    pub fn clear(&mut self) {
        self.0.fill(0);
    }
    /// Adds `other`; true when that changed something.
    pub fn union(&mut self, other: &Bits) -> bool {
        let mut changed = false;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            changed |= b & !*a != 0;
            *a |= b;
        }
        changed
    }
    pub fn intersect(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }
    pub fn subtract(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= !b);
    }
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(word, &bits)| {
            let mut rest = bits;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let i = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    word * 64 + i
                })
            })
        })
    }
}

/// A guest slot or local of the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Var {
    pub ty: Type,
    /// First cell of a slot; `None` for locals, which have no home and are never dirty.
    pub cell: Option<u16>,
}

/// Where an IR block continues inside the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    pub to: usize,
    /// Closes a loop: the edge polls `exit_request`.
    pub back: bool,
    /// The guest pc at the target, for edges to the start of a unit.
    pub pc: Option<u64>,
    /// What the target's page must be.
    pub check: Option<PageCheck>,
}

impl Edge {
    /// The region may be left on it.
    fn leaves(&self) -> bool {
        self.back || self.check.is_some()
    }
}

/// One IR block.
#[derive(Clone, Debug)]
pub struct Node {
    pub unit: usize,
    pub block: u32,
    /// In order: the targets of `jump`; then, else of `brif`; the one of `exit`; the return sites of a return; where a computed
    /// jump or call probably leads.
    pub succs: Vec<Edge>,
    /// Edges from reachable nodes.
    pub preds: usize,
    pub dirty_in: Bits,
    pub live_in: Bits,
}

/// What an instruction does to variables, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    Get(usize),
    Set(usize),
    /// All dirty slots are stored before it and are clean after it.
    Sync,
    /// All dirty slots are stored on a side path that leaves the region.
    SyncAside,
    /// A checkpoint: dirty ones of these slots are stored.
    Checkpoint(Bits),
    /// A helper: dirty ones of the first set are stored before it, those of the second are loaded after it.
    Call {
        store: Bits,
        load: Bits,
    },
}

/// See the module.
pub struct Flow {
    pub vars: Vec<Var>,
    pub nodes: Vec<Node>,
    /// Reachable nodes, reverse postorder.
    pub order: Vec<usize>,
    /// First node of each unit.
    pub first: Vec<usize>,
    /// Guest pcs to which a return inside the region may come back.
    pub return_sites: Vec<u64>,
    pub checkpoints: Checkpoints,
    slot_vars: HashMap<u16, usize>,
    local_base: Vec<usize>,
    /// By pc and key flags.
    units: HashMap<(u64, u64), usize>,
    all_slots: Bits,
    implied: Bits,
    overwritten: Bits,
}

/// See [`Flow::peeled`].
pub struct Peeled<'a> {
    pub units: Vec<&'a Unit>,
    pub flow: Flow,
}

/// Larger units are not worth a second copy.
const MAX_PEELED_INSNS: u32 = 24;

/// More return sites than this are left to the return ring.
const MAX_RETURN_SITES: usize = 4;

impl Flow {
    pub fn new(input: &RegionInput<'_>) -> Result<Flow, CompileError> {
        if input.units.is_empty() {
            return Err(CompileError::Empty);
        }
        let mut flow = Flow {
            vars: Vec::new(),
            nodes: Vec::new(),
            order: Vec::new(),
            first: Vec::new(),
            return_sites: Vec::new(),
            checkpoints: Checkpoints::default(),
            slot_vars: HashMap::new(),
            local_base: Vec::new(),
            units: HashMap::new(),
            all_slots: Bits::default(),
            implied: Bits::default(),
            overwritten: Bits::default(),
        };
        // The second of two, see `peeled`.
        for (i, unit) in input.units.iter().enumerate() {
            flow.units.insert((unit.pc, unit.flags), i);
        }
        flow.collect_vars(input);
        flow.build_nodes(input);
        flow.walk();
        // In paged memory an access that fails leaves by itself.
        if input.precise && input.mem != MemoryModel::Paged {
            flow.checkpoints = Checkpoints::place(&flow, input);
        }
        flow.solve(input);
        Ok(flow)
    }

    /// The region with its first unit twice, if that makes checkpoints cheaper: once for who enters, once for who comes
    /// round the loop, who otherwise meet with different checkpoints, which then have to tell which one they are.
    pub fn peeled<'a>(&self, input: &RegionInput<'a>) -> Option<Peeled<'a>> {
        let small = input.units[0].guest_insns <= MAX_PEELED_INSNS;
        if !self.checkpoints.entry_tells || self.nodes[0].preds == 0 || !small {
            return None;
        }
        let twice = |n: usize| input.units.get(n).or(input.units.first()).copied();
        let units: Vec<&Unit> = (0..=input.units.len()).filter_map(twice).collect();
        let flow = Flow::new(&RegionInput { units: &units, pages: &[], ..*input }).ok()?;
        let fewer = flow.checkpoints.telling() < self.checkpoints.telling();
        (fewer && input.pages.is_empty()).then_some(Peeled { units, flow })
    }

    /// The node leaves the region, from a unit that mostly stays in it.
    pub fn is_aside(&self, input: &RegionInput<'_>, n: usize) -> bool {
        let node = &self.nodes[n];
        let unit = input.units[node.unit];
        let stays = |n: &Node| {
            let last = unit.block(n.block).last();
            last.is_some_and(|i| i.op == Op::ExitDirect) && !n.succs.is_empty()
        };
        let last = unit.block(node.block).last();
        let leaves = last.is_some_and(|i| matches!(i.op, Op::ExitDirect | Op::ExitTrap));
        let first = self.first[node.unit];
        leaves
            && node.succs.is_empty()
            && self.nodes[first..first + unit.blocks.len()].iter().any(stays)
    }

    /// The variable of a slot or local as `unit` names it.
    pub fn var(&self, unit: usize, slot: Slot) -> usize {
        match slot.as_local() {
            Some(n) => self.local_base[unit] + n as usize,
            None => self.slot_vars[&slot.0],
        }
    }

    /// The unit that starts at `pc` with these key flags.
    pub fn unit_at(&self, pc: u64, flags: u64) -> Option<usize> {
        self.units.get(&(pc, flags)).copied()
    }

    /// True when the region returns to `ret` from a call that it makes to itself without leaving.
    pub fn returns_inside(&self, ret: u64) -> bool {
        self.return_sites.contains(&ret)
    }

    fn collect_vars(&mut self, input: &RegionInput<'_>) {
        for unit in input.units {
            for inst in unit.insts.iter().filter(|i| matches!(i.op, Op::Get | Op::Set)) {
                let slot = inst.slot();
                if slot.as_local().is_none() && !self.slot_vars.contains_key(&slot.0) {
                    let def = input.layout.def(slot);
                    self.slot_vars.insert(slot.0, self.vars.len());
                    self.vars.push(Var { ty: def.ty, cell: Some(def.cell) });
                }
            }
        }
        let slots = self.vars.len();
        let implied = self.slot_vars.iter().filter(|(n, _)| input.layout.def(Slot(**n)).implied);
        let implied: Vec<usize> = implied.map(|(_, &var)| var).collect();
        let overwritten =
            self.slot_vars.iter().filter(|(n, _)| input.layout.def(Slot(**n)).overwritten);
        let overwritten: Vec<usize> = overwritten.map(|(_, &var)| var).collect();
        for unit in input.units {
            self.local_base.push(self.vars.len());
            self.vars.extend(unit.locals.iter().map(|&ty| Var { ty, cell: None }));
        }
        self.all_slots = Bits::new(self.vars.len());
        (0..slots).for_each(|i| self.all_slots.insert(i));
        self.implied = Bits::new(self.vars.len());
        implied.into_iter().for_each(|i| self.implied.insert(i));
        self.overwritten = Bits::new(self.vars.len());
        overwritten.into_iter().for_each(|i| self.overwritten.insert(i));
    }

    fn build_nodes(&mut self, input: &RegionInput<'_>) {
        for (u, unit) in input.units.iter().enumerate() {
            self.first.push(self.nodes.len());
            for block in 0..unit.blocks.len() as u32 {
                self.nodes.push(Node {
                    unit: u,
                    block,
                    succs: Vec::new(),
                    preds: 0,
                    dirty_in: Bits::new(self.vars.len()),
                    live_in: Bits::new(self.vars.len()),
                });
            }
        }
        for unit in input.units {
            for inst in &unit.insts {
                let flags = || exit_flags(unit, inst).unwrap_or(0);
                let (calls_inside, ret) = match inst.op {
                    Op::ExitDirect => {
                        (self.unit_at(inst.imm as u64, flags()).is_some(), inst.args[0])
                    }
                    Op::ExitIndirect => {
                        let mut targets = input.targets_of(unit);
                        (targets.any(|pc| self.unit_at(pc, flags()).is_some()), inst.args[1])
                    }
                    _ => continue,
                };
                if inst.exit_kind() != ExitKind::Call || !calls_inside {
                    continue;
                }
                // The callee may come back with other key flags.
                if let Some(ret) = constant(unit, ret)
                    && input.units.iter().any(|u| u.pc == ret)
                    && !self.return_sites.contains(&ret)
                    && self.return_sites.len() < MAX_RETURN_SITES
                {
                    self.return_sites.push(ret);
                }
            }
        }
        for n in 0..self.nodes.len() {
            let (u, block) = (self.nodes[n].unit, self.nodes[n].block);
            let unit = input.units[u];
            let last = *unit.block(block).last().expect("a block ends in an instruction");
            let inside = |b: u32| {
                let to = self.first[u] + b as usize;
                Edge { to, back: false, pc: None, check: None }
            };
            let enter = |pc: u64, to: usize| {
                let check = input.page_check(u, to);
                Edge { to: self.first[to], back: false, pc: Some(pc), check }
            };
            let succs = match last.op {
                Op::Jump => vec![inside(last.imm2)],
                Op::Brif => vec![inside(last.imm2), inside(last.imm as u32)],
                Op::ExitDirect => {
                    let pc = last.imm as u64;
                    let to = exit_flags(unit, &last).and_then(|flags| self.unit_at(pc, flags));
                    to.map(|to| enter(pc, to)).into_iter().collect()
                }
                Op::ExitIndirect if last.exit_kind() == ExitKind::Return => {
                    let flags = exit_flags(unit, &last);
                    let site = |&pc: &u64| self.unit_at(pc, flags?).map(|to| enter(pc, to));
                    self.return_sites.iter().filter_map(site).collect()
                }
                Op::ExitIndirect if matches!(last.exit_kind(), ExitKind::Jump | ExitKind::Call) => {
                    let flags = exit_flags(unit, &last);
                    let target = |pc: u64| self.unit_at(pc, flags?).map(|to| enter(pc, to));
                    input.targets_of(unit).filter_map(target).collect()
                }
                _ => vec![],
            };
            self.nodes[n].succs = succs;
        }
    }

    /// Depth-first search: order, predecessors, back edges.
    fn walk(&mut self) {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            No,
            Open,
            Done,
        }
        let mut seen = vec![Seen::No; self.nodes.len()];
        let mut stack = vec![(0usize, 0usize)];
        seen[0] = Seen::Open;
        while let Some(top) = stack.last_mut() {
            let (n, i) = *top;
            top.1 += 1;
            // The last successor first, so that the first one (a branch's taken side, a call's callee) ends up
            // right behind its predecessor in the order.
            let count = self.nodes[n].succs.len();
            if i == count {
                seen[n] = Seen::Done;
                self.order.push(n);
                stack.pop();
                continue;
            }
            let to = self.nodes[n].succs[count - 1 - i].to;
            self.nodes[to].preds += 1;
            match seen[to] {
                Seen::No => {
                    seen[to] = Seen::Open;
                    stack.push((to, 0));
                }
                Seen::Open => self.nodes[n].succs[count - 1 - i].back = true,
                Seen::Done => {}
            }
        }
        self.order.reverse();
    }

    fn access(&self, access: Access) -> Bits {
        match access {
            Access::None => Bits::new(self.vars.len()),
            Access::All => self.all_slots.clone(),
            Access::These(slots) => {
                let mut bits = Bits::new(self.vars.len());
                slots.iter().filter_map(|s| self.slot_vars.get(&s.0)).for_each(|&v| bits.insert(v));
                bits
            }
        }
    }

    /// Variables that are slots.
    pub fn all_slots(&self) -> &Bits {
        &self.all_slots
    }

    /// Variables that are implied slots ([`tulk_ir::RegLayout::imply`]).
    pub fn implied(&self) -> &Bits {
        &self.implied
    }

    /// Variables that an instruction marked so overwrites ([`tulk_ir::RegLayout::overwrite`]).
    pub fn overwritten(&self) -> &Bits {
        &self.overwritten
    }

    /// What the instruction number `at` of the node's block does to the variables.
    pub fn effect(&self, input: &RegionInput<'_>, n: usize, at: usize, inst: &Inst) -> Effect {
        let unit = self.nodes[n].unit;
        match inst.op {
            Op::Insn => match self.checkpoints.point(n, at) {
                Some(point) => Effect::Checkpoint(point.stored.clone()),
                None => Effect::None,
            },
            Op::Get => Effect::Get(self.var(unit, inst.slot())),
            Op::Set => Effect::Set(self.var(unit, inst.slot())),
            Op::Call => {
                let helper = &input.helpers[inst.imm2 as usize];
                let load = self.access(helper.writes);
                let mut store =
                    self.access(if helper.may_trap { Access::All } else { helper.reads });
                // A helper need not write what it may write.
                store.union(&load);
                Effect::Call { store, load }
            }
            Op::Load | Op::Store | Op::AtomicRmw | Op::AtomicCas => {
                let op = inst.memop();
                let aligned = op.align() != MemAlign::Any && op.align_bytes() > 1;
                if aligned || input.mem == MemoryModel::Paged {
                    Effect::SyncAside
                } else {
                    Effect::None
                }
            }
            Op::ExitTrap => Effect::Sync,
            // Inside the region no slot is stored; what stays dirty is stored where it leaves.
            Op::ExitDirect if self.nodes[n].succs.is_empty() => Effect::Sync,
            Op::ExitDirect => Effect::None,
            Op::ExitIndirect => Effect::SyncAside,
            _ => {
                debug_assert!(inst.op.info().effects & (effect::FAULT | effect::SLOT) == 0);
                Effect::None
            }
        }
    }

    /// Applies an effect to the dirty set.
    pub fn step(&self, effect: &Effect, dirty: &mut Bits) {
        match effect {
            Effect::Set(v) if self.vars[*v].cell.is_some() => dirty.insert(*v),
            Effect::Sync => dirty.clear(),
            Effect::Checkpoint(store) => dirty.subtract(store),
            Effect::Call { store, load } => {
                dirty.subtract(store);
                dirty.subtract(load);
            }
            Effect::None | Effect::Get(_) | Effect::Set(_) | Effect::SyncAside => {}
        }
    }

    /// Walks instructions, collecting the variables read before they are written into `uses` and the written
    /// ones into `defs`.
    fn scan<'i>(
        &self,
        input: &RegionInput<'_>,
        n: usize,
        insts: impl Iterator<Item = (usize, &'i Inst)>,
        dirty: &mut Bits,
        uses: &mut Bits,
        defs: &mut Bits,
    ) {
        for (at, inst) in insts {
            let effect = self.effect(input, n, at, inst);
            let stored = match &effect {
                Effect::Get(v) => {
                    if !defs.contains(*v) {
                        uses.insert(*v);
                    }
                    None
                }
                Effect::Sync | Effect::SyncAside => Some(dirty.clone()),
                Effect::Checkpoint(store) | Effect::Call { store, .. } => {
                    let mut bits = dirty.clone();
                    bits.intersect(store);
                    Some(bits)
                }
                Effect::None | Effect::Set(_) => None,
            };
            if let Some(mut stored) = stored {
                stored.subtract(defs);
                uses.union(&stored);
            }
            match &effect {
                Effect::Set(v) => defs.insert(*v),
                Effect::Call { load, .. } => {
                    defs.union(load);
                }
                _ => {}
            }
            self.step(&effect, dirty);
        }
    }

    fn solve(&mut self, input: &RegionInput<'_>) {
        let empty = Bits::new(self.vars.len());
        // Dirty, forward.
        let mut dirty_out = vec![empty.clone(); self.nodes.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for &n in &self.order.clone() {
                let node = &self.nodes[n];
                let mut dirty = node.dirty_in.clone();
                let insts = input.units[node.unit].block(node.block);
                for (at, inst) in insts.iter().enumerate() {
                    self.step(&self.effect(input, n, at, inst), &mut dirty);
                }
                for i in 0..self.nodes[n].succs.len() {
                    let to = self.nodes[n].succs[i].to;
                    changed |= self.nodes[to].dirty_in.union(&dirty);
                }
                dirty_out[n] = dirty;
            }
        }
        // Live, backward.
        let mut uses = vec![empty.clone(); self.nodes.len()];
        let mut defs = vec![empty.clone(); self.nodes.len()];
        for &n in &self.order {
            let node = &self.nodes[n];
            let insts = input.units[node.unit].block(node.block);
            let mut dirty = node.dirty_in.clone();
            let insts = insts.iter().enumerate();
            self.scan(input, n, insts, &mut dirty, &mut uses[n], &mut defs[n]);
            if node.succs.iter().any(Edge::leaves) {
                dirty.subtract(&defs[n]);
                uses[n].union(&dirty);
            }
        }
        let mut changed = true;
        while changed {
            changed = false;
            for &n in self.order.iter().rev() {
                let mut live = self.live_out(n);
                live.subtract(&defs[n]);
                live.union(&uses[n]);
                changed |= self.nodes[n].live_in.union(&live);
            }
        }
    }

    fn live_out(&self, n: usize) -> Bits {
        let mut live = Bits::new(self.vars.len());
        for edge in &self.nodes[n].succs {
            live.union(&self.nodes[edge.to].live_in);
        }
        live
    }

    /// Variables live behind the instruction number `at` of the node's block, where `dirty` holds.
    pub fn live_after(&self, input: &RegionInput<'_>, n: usize, at: usize, dirty: &Bits) -> Bits {
        let node = &self.nodes[n];
        let insts = input.units[node.unit].block(node.block).iter().enumerate().skip(at + 1);
        let (mut dirty, empty) = (dirty.clone(), Bits::new(self.vars.len()));
        let (mut live, mut defs) = (empty.clone(), empty);
        self.scan(input, n, insts, &mut dirty, &mut live, &mut defs);
        let mut out = self.live_out(n);
        if node.succs.iter().any(Edge::leaves) {
            out.union(&dirty);
        }
        out.subtract(&defs);
        live.union(&out);
        live
    }
}

/// The key flags with which an exit leaves the unit, if they are a constant.
pub fn exit_flags(unit: &Unit, exit: &Inst) -> Option<u64> {
    let flags = exit.args[if exit.op == Op::ExitDirect { 1 } else { 2 }];
    if flags.is_none() { Some(unit.flags) } else { constant(unit, flags) }
}

/// The number that an I64 operand holds when an `iconst` of the unit defines it.
pub fn constant(unit: &Unit, value: Value) -> Option<u64> {
    let def = |i: &&Inst| i.op == Op::Iconst && i.dst == value;
    (!value.is_none()).then(|| unit.insts.iter().rev().find(def).map(|i| i.imm as u64))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Reaching;
    use tulk_ir::RegLayout;
    use tulk_ir::filetest::env::{HELPERS, layout};
    use tulk_ir::parser::parse;

    fn with_flow(texts: &[&str], precise: bool, check: impl FnOnce(&Flow, &dyn Fn(&str) -> usize)) {
        with_flow_of(&layout(), texts, precise, check);
    }

    fn with_flow_of(
        layout: &RegLayout,
        texts: &[&str],
        precise: bool,
        check: impl FnOnce(&Flow, &dyn Fn(&str) -> usize),
    ) {
        let units: Vec<Unit> =
            texts.iter().map(|t| parse(t, layout, HELPERS).expect("a unit")).collect();
        let units: Vec<&Unit> = units.iter().collect();
        let mem = MemoryModel::Flat;
        let input = RegionInput {
            units: &units,
            layout,
            helpers: HELPERS,
            mem,
            precise,
            pages: &[],
            targets: &[],
        };
        let flow = Flow::new(&input).expect("a region");
        check(&flow, &|name| flow.var(0, layout.by_name(name).expect("a register")));
    }

    const LOOP: &str = "unit 0x1000 len 8 insns 2 flags 0x0 fp arm
block0:
    insn 0x1000, 4
    v0 = get x1
    v1 = load.i64 v0 u64
    set x2, v1
    v2 = get x3
    v3 = add.i64 v2, v1
    set x3, v3
    v4 = icmp.i64 eq v1, v3
    brif v4, block1, block2
block1:
    exit jump 0x1000
block2:
    set x4, v3
    exit jump 0x2000
";

    #[test]
    fn slots_are_loaded_when_read_and_stored_when_written() {
        let text = LOOP.replace("    set x4, v3\n", "");
        with_flow(&[&text], false, |flow, var| {
            let entry = &flow.nodes[0];
            // x2 is written before any exit; nothing but x1 and x3 has to come from memory.
            let live: Vec<usize> = entry.live_in.iter().collect();
            assert_eq!(live, [var("x1"), var("x3")]);
            // Around the loop both written slots are dirty.
            let dirty: Vec<usize> = entry.dirty_in.iter().collect();
            assert_eq!(dirty, [var("x2"), var("x3")]);
            assert!(flow.nodes[1].succs[0].back);
            assert_eq!(flow.order.len(), 3);
        });
    }

    #[test]
    fn a_precise_region_that_only_reads_stores_nothing_for_faults() {
        let text = LOOP.replace("    set x4, v3\n", "");
        with_flow(&[&text], true, |flow, var| {
            assert!(!flow.nodes[0].live_in.contains(var("x2")));
            assert_eq!(flow.checkpoints.point(0, 0), None);
            assert_eq!(flow.checkpoints.reaching(0), Reaching::One(0x1000));
            assert!(!flow.checkpoints.entry_tells);
        });
    }

    const WRITES: &str = "unit 0x1000 len 12 insns 3 flags 0x0 fp arm
block0:
    insn 0x1000, 4
    v0 = get x1
    v1 = get x2
    store.i64 v0 u64, v1
    insn 0x1004, 4
    v2 = get x2
    v3 = add.i64 v2, v2
    set x2, v3
    insn 0x1008, 4
    v4 = get x3
    set x4, v4
    exit jump 0x1000
";

    #[test]
    fn a_checkpoint_stores_what_the_way_to_the_fault_reads() {
        with_flow(&[WRITES], true, |flow, var| {
            // Behind the store: x4 is overwritten before the next one, the others are not.
            let point = flow.checkpoints.point(0, 4).expect("one");
            let stored: Vec<usize> = point.stored.iter().collect();
            assert_eq!(stored, [var("x1"), var("x2"), var("x3")]);
            assert_eq!(flow.checkpoints.point(0, 0), None);
            // The first round's goes back to the entry.
            assert_eq!(flow.checkpoints.reaching(0), Reaching::Many);
            assert!(point.tells && flow.checkpoints.entry_tells);
        });
    }

    #[test]
    fn a_loop_at_the_entry_begins_with_a_round_of_its_own() {
        let layout = layout();
        let unit = parse(WRITES, &layout, HELPERS).expect("a unit");
        let units = [&unit];
        let mem = MemoryModel::Flat;
        let input = RegionInput {
            units: &units,
            layout: &layout,
            helpers: HELPERS,
            mem,
            precise: true,
            pages: &[],
            targets: &[],
        };
        let flow = Flow::new(&input).expect("a region");
        let Some(Peeled { units, flow }) = flow.peeled(&input) else { panic!("nothing to gain") };
        assert_eq!((units.len(), flow.checkpoints.telling()), (2, 0));
        // The round at the entry goes on in the loop, not back to itself.
        assert_eq!((flow.nodes[0].preds, flow.nodes[0].succs[0].to), (0, 1));
        assert!(!flow.nodes[0].succs[0].back && flow.nodes[1].succs[0].back);
        assert_eq!(flow.checkpoints.reaching(0), Reaching::One(0x1000));
        assert_eq!(flow.checkpoints.reaching(1), Reaching::One(0x1004));
        // A loop that writes nothing has one checkpoint only.
        with_flow(&[LOOP], true, |flow, _| assert!(!flow.checkpoints.entry_tells));
    }

    #[test]
    fn exits_beside_a_loop_are_aside() {
        with_flow(&[LOOP], true, |flow, _| {
            let layout = layout();
            let unit = parse(LOOP, &layout, HELPERS).expect("a unit");
            let units = [&unit];
            let mem = MemoryModel::Flat;
            let (layout, helpers) = (&layout, HELPERS);
            let input = RegionInput {
                units: &units,
                layout,
                helpers,
                mem,
                precise: true,
                pages: &[],
                targets: &[],
            };
            assert_eq!([0, 1, 2].map(|n| flow.is_aside(&input, n)), [false, false, true]);
        });
    }

    #[test]
    fn a_value_behind_a_checkpoint_may_stand_for_any_slot() {
        let text = WRITES.replace("add.i64 v2, v2", "add.i64 v2, v0");
        with_flow(&[&text], true, |flow, var| {
            assert!(flow.checkpoints.point(0, 4).expect("one").stored.contains(var("x4")));
        });
    }

    #[test]
    fn an_implied_slot_is_stored_though_nothing_reads_it() {
        let mut layout = layout();
        layout.imply(layout.by_name("x4"));
        // Overwritten before the next fault, as in the test above.
        with_flow_of(&layout, &[WRITES], true, |flow, var| {
            assert!(flow.checkpoints.point(0, 4).expect("one").stored.contains(var("x4")));
        });
    }

    #[test]
    fn what_an_instruction_overwrites_is_not_stored_for_it() {
        let mut layout = layout();
        let x4 = layout.by_name("x4").expect("a register");
        layout.overwrite([x4]);
        // x4 is dirty at the checkpoint 0x1004, and the store that may fault behind it sees it.
        let write = "    store.i64 v0 u64, v1\n";
        let text = WRITES.replace("set x4, v4", "set x5, v4");
        let text = text.replace(write, &format!("{write}    set x4, v1\n"));
        let stored = |layout: &RegLayout, marked: &str| {
            let text =
                text.replace(&format!("insn {marked}"), &format!("insn overwriting {marked}"));
            let mut found = false;
            with_flow_of(layout, &[&text], true, |flow, var| {
                let point = flow.checkpoints.point(0, 5).expect("one");
                assert!(point.stored.contains(var("x1")));
                found = point.stored.contains(var("x4"));
            });
            found
        };
        let marks = ["none", "0x1004", "0x1008"];
        assert_eq!(marks.map(|pc| stored(&layout, pc)), [true, false, false]);
        // Lifted code may know what is implied, until it is overwritten.
        layout.imply([x4]);
        assert_eq!(marks.map(|pc| stored(&layout, pc)), [true, false, true]);
    }

    #[test]
    fn an_instruction_that_writes_twice_behind_a_read_is_a_checkpoint() {
        let twice =
            "    v9 = load.i64 v0 u64\n    store.i64 v0 u64, v1\n    store.i64 v0+8 u64, v1\n";
        let text = WRITES.replace("    store.i64 v0 u64, v1\n", twice);
        with_flow(&[&text], true, |flow, _| {
            let [own, behind] = [0, 6].map(|at| flow.checkpoints.point(0, at).expect("one"));
            // Whoever comes round the loop meets the first one before anything that faults.
            assert!(!own.tells && !behind.tells && !flow.checkpoints.entry_tells);
        });
    }

    const ROW: &str = "unit 0x1000 len 20 insns 5 flags 0x0 fp arm
block0:
    insn 0x1000, 4
    v0 = get x1
    v1 = get x2
    store.i64 v0 u64, v1
    store.i64 v0+8 u64, v1
    insn 0x1004, 4
    set x3, v1
    insn 0x1008, 4
    v2 = get x1
    v3 = get x3
    store.i64 v2+16 u64, v3
    insn 0x100c, 4
    v4 = get x4
    v5 = load.i64 v4 u64
    set x5, v5
    insn 0x1010, 4
    v6 = get x5
    v7 = get x1
    store.i64 v7+24 u64, v6
    insn 0x1014, 4
    v8 = get x1
    store.i64 v8+32 u64, v8
    exit jump 0x2000
";

    #[test]
    fn writes_in_a_row_share_a_checkpoint() {
        with_flow(&[ROW], true, |flow, _| {
            let row = |at| flow.checkpoints.in_row(0, at);
            // Behind the read the row's next write is its last, and stands before a checkpoint.
            let unit = ROW.lines().skip(2).enumerate();
            let stores = unit.filter(|(_, line)| line.contains("store"));
            let rows: Vec<bool> = stores.clone().map(|(at, _)| row(at)).collect();
            assert_eq!(rows, [true, true, true, false, true]);
            let insns = ROW.lines().skip(2).enumerate().filter(|(_, line)| line.contains("insn"));
            let points: Vec<bool> =
                insns.map(|(at, _)| flow.checkpoints.point(0, at).is_some()).collect();
            assert_eq!(points, [false, false, false, false, false, true]);
        });
    }

    /// A write on one of two ways that meet at `0x3000`, where there is another one.
    #[test]
    fn rows_end_where_ways_meet() {
        let fork = "unit 0x1000 len 4 insns 1 flags 0x0 fp arm
block0:
    insn 0x1000, 4
    v0 = get x1
    v1 = icmp.i64 eq v0, v0
    brif v1, block1, block2
block1:
    exit jump 0x2000
block2:
    exit jump 0x3000
";
        let write = "unit 0x2000 len 8 insns 2 flags 0x0 fp arm
block0:
    insn 0x2000, 4
    v0 = get x1
    store.i64 v0 u64, v0
    store.i64 v0 u64, v0
    insn 0x2004, 4
    exit jump 0x3000
";
        let meet = "unit 0x3000 len 8 insns 2 flags 0x0 fp arm
block0:
    insn 0x3000, 4
    v0 = get x1
    store.i64 v0 u64, v0
    insn 0x3004, 4
    exit jump 0x4000
";
        with_flow(&[fork, write, meet], true, |flow, _| {
            let points = &flow.checkpoints;
            let [_, write, meet] = [0, 1, 2].map(|unit| flow.first[unit]);
            assert!(points.in_row(write, 2) && !points.in_row(write, 3));
            assert!(points.point(write, 4).is_some() && points.point(meet, 0).is_none());
            assert_eq!((points.done(meet), points.in_row(meet, 2)), (0, true));
        });
        // The same inside of a unit: none of its writes are in rows, and no row goes into it.
        let inside = "unit 0x2000 len 16 insns 4 flags 0x0 fp arm
block0:
    insn 0x2000, 4
    v0 = get x1
    v1 = icmp.i64 eq v0, v0
    brif v1, block1, block2
block1:
    insn 0x2004, 4
    v2 = get x1
    store.i64 v2 u64, v2
    insn 0x2008, 4
    jump block2
block2:
    insn 0x200c, 4
    v3 = get x1
    store.i64 v3 u64, v3
    exit jump 0x4000
";
        let before = meet.replace("0x300", "0x100").replace("0x4000", "0x2000");
        with_flow(&[&before, inside], true, |flow, _| {
            let points = &flow.checkpoints;
            assert!(!points.in_row(0, 2) && points.point(0, 3).is_some());
            assert!(!points.in_row(2, 2) && !points.in_row(3, 2));
            assert!(points.point(2, 3).is_some());
            assert_eq!([1, 2, 3].map(|n| points.done(n)), [0; 3]);
        });
    }

    /// Otherwise a fault behind a loop would be found again by going round it, for the sake of the write in front.
    #[test]
    fn rows_do_not_go_over_loops() {
        let write = "unit 0x1000 len 4 insns 1 flags 0x0 fp arm
block0:
    insn 0x1000, 4
    v0 = get x1
    store.i64 v0 u64, v0
    exit jump 0x2000
";
        let round = "unit 0x2000 len 8 insns 2 flags 0x0 fp arm
block0:
    insn 0x2000, 4
    v0 = get x2
    v1 = iconst.i64 1
    v2 = sub.i64 v0, v1
    set x2, v2
    insn 0x2004, 4
    v3 = icmp.i64 eq v2, v1
    brif v3, block1, block2
block1:
    exit jump 0x3000
block2:
    exit jump 0x2000
";
        let behind = "unit 0x3000 len 8 insns 2 flags 0x0 fp arm
block0:
    insn 0x3000, 4
    v0 = get x1
    store.i64 v0+8 u64, v0
    insn 0x3004, 4
    exit jump 0x4000
";
        let straight = round.replace("exit jump 0x2000", "exit jump 0x5000");
        for (round, in_row) in [(round, false), (&straight, true)] {
            with_flow(&[write, round, behind], true, |flow, _| {
                let behind = flow.first[2];
                assert_eq!(flow.checkpoints.in_row(behind, 2), in_row);
                assert_eq!(flow.checkpoints.done(behind), 1);
            });
        }
    }

    #[test]
    fn returns_lead_to_the_sites_of_internal_calls() {
        let call = "unit 0x1000 len 4 insns 1 flags 0x0 fp arm
block0:
    insn 0x1000, 4
    v0 = iconst.i64 0x1004
    exit call 0x3000, v0
";
        let site = "unit 0x1004 len 4 insns 1 flags 0x0 fp arm
block0:
    insn 0x1004, 4
    exit jump 0x1000
";
        let callee = "unit 0x3000 len 4 insns 1 flags 0x0 fp arm
block0:
    insn 0x3000, 4
    v0 = get x14
    exit_indirect return v0
";
        with_flow(&[call, site, callee], false, |flow, _| {
            assert!(flow.returns_inside(0x1004));
            assert!(!flow.returns_inside(0x1008));
            let back = Edge { to: 1, back: false, pc: Some(0x1004), check: None };
            assert_eq!(flow.nodes[2].succs, [back]);
            assert!(flow.nodes[1].succs[0].back);
        });
    }
}
