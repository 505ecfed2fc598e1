//! Looks for [`crate::neighbours`] in a block of IR.

use super::Lower;
use crate::neighbours::Sum;
use std::collections::HashMap;
use tulk_base::MemOrder;
use tulk_ir::{Inst, Op, Type, Unit, Value};

/// Working memory.
#[derive(Default)]
pub struct Search {
    values: HashMap<Value, Sum>,
    constants: HashMap<Value, i64>,
    /// Of variables.
    slots: HashMap<usize, Sum>,
    /// Whose TLB: that of the first access.
    mmu: Option<u8>,
}

/// An access that may go by its neighbours.
fn is_plain(inst: &Inst, unit: &Unit) -> bool {
    let op = inst.memop();
    matches!(inst.op, Op::Load | Op::Store)
        && op.order() == MemOrder::Plain
        && op.align_bytes() <= 1
        && unit.type_of(inst.args[0]) == Type::I64
        && i32::try_from(inst.imm).is_ok()
}

impl Lower<'_> {
    /// In the instructions of the current node.
    pub(super) fn find_neighbours(&mut self, insts: &[Inst]) {
        self.neighbours.clear();
        if insts.iter().filter(|inst| is_plain(inst, self.unit)).nth(1).is_none() {
            return;
        }
        let mut search = std::mem::take(&mut self.search);
        search.values.clear();
        search.constants.clear();
        search.slots.clear();
        search.mmu = None;
        for (inst, at) in insts.iter().zip(0..) {
            self.look_at(&mut search, at, inst);
        }
        self.search = search;
    }

    fn sum_of(&mut self, search: &mut Search, value: Value) -> Sum {
        *search.values.entry(value).or_insert_with(|| self.neighbours.root())
    }

    fn look_at(&mut self, search: &mut Search, at: u32, inst: &Inst) {
        let unit = self.unit;
        match inst.op {
            Op::Iconst => {
                search.constants.insert(inst.dst, inst.imm);
            }
            Op::Get => {
                let var = self.flow.var(self.flow.nodes[self.node].unit, inst.slot());
                let sum = *search.slots.entry(var).or_insert_with(|| self.neighbours.root());
                search.values.insert(inst.dst, sum);
            }
            Op::Set => {
                let var = self.flow.var(self.flow.nodes[self.node].unit, inst.slot());
                let sum = self.sum_of(search, inst.args[0]);
                search.slots.insert(var, sum);
            }
            Op::Add | Op::Sub if inst.ty == Type::I64 => {
                let [a, b, _] = inst.args;
                let constants = [a, b].map(|value| search.constants.get(&value).copied());
                let sum = match (inst.op, constants) {
                    (Op::Add, [_, Some(k)]) => self.sum_of(search, a).plus(k),
                    (Op::Sub, [_, Some(k)]) => self.sum_of(search, a).plus(k.wrapping_neg()),
                    (Op::Add, [Some(k), None]) => self.sum_of(search, b).plus(k),
                    (Op::Add, _) => {
                        let (a, b) = (self.sum_of(search, a), self.sum_of(search, b));
                        self.neighbours.pair(a, b, 0)
                    }
                    _ => self.neighbours.root(),
                };
                search.values.insert(inst.dst, sum);
            }
            // What may change mappings.
            Op::Call => {
                search.values.clear();
                search.slots.clear();
            }
            Op::Load | Op::Store if is_plain(inst, unit) => {
                let sum = self.sum_of(search, inst.args[0]).plus(inst.imm);
                let op = inst.memop();
                if *search.mmu.get_or_insert(op.mmu()) == op.mmu() {
                    self.neighbours.access(at, sum, op.bytes(), inst.op == Op::Store);
                }
            }
            _ => {}
        }
    }
}
