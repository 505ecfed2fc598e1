//! Slots of 64 bits that hold 32-bit numbers.
//!
//! The registers of a 32-bit guest are the low halves of 64-bit slots ([`tulk_ir::RegLayout::general`]); what instructions
//! write is zero-extended, and what they read truncated. In a 32-bit window ([`MemoryModel::Based`]) nobody sees the upper
//! halves, so a region in which all `set`s of such a slot extend takes its value for extended from the entry on: to extend what was
//! read from it, for an address or another register, is nothing.

use crate::flow::{Bits, Flow};
use crate::{MemoryModel, RegionInput};
use tulk_ir::{Inst, Op, Slot, Type, Unit, Value};

/// The variables that are such slots.
pub fn narrow_slots(input: &RegionInput<'_>, flow: &Flow) -> Bits {
    let mut narrow = Bits::new(flow.vars.len());
    if input.mem != MemoryModel::Based {
        return narrow;
    }
    let slots = input.units.iter().enumerate().flat_map(|(u, unit)| {
        let slots = unit.insts.iter().filter(|i| matches!(i.op, Op::Get | Op::Set));
        slots.map(move |i| (u, i.slot()))
    });
    for (u, slot) in slots.filter(|(_, slot)| is_general(input, *slot)) {
        narrow.insert(flow.var(u, slot));
    }
    let defs: Vec<_> = input.units.iter().map(|unit| definitions(unit)).collect();
    loop {
        let mut wide = Bits::new(flow.vars.len());
        for (u, unit) in input.units.iter().enumerate() {
            let unit = Region { input, flow, narrow: &narrow, u, unit, defs: &defs[u] };
            for set in unit.unit.insts.iter().filter(|i| i.op == Op::Set) {
                let var = flow.var(u, set.slot());
                if narrow.contains(var) && !unit.is_narrow(set.args[0], MAX_DEPTH) {
                    wide.insert(var);
                }
            }
        }
        if wide.is_empty() {
            return narrow;
        }
        narrow.subtract(&wide);
    }
}

/// Operations looked through for one value.
const MAX_DEPTH: u32 = 8;

fn is_general(input: &RegionInput<'_>, slot: Slot) -> bool {
    slot.as_local().is_none() && input.layout.def(slot).general
}

/// By value: the instruction that defines it.
fn definitions(unit: &Unit) -> Vec<Option<&Inst>> {
    let mut defs = vec![None; unit.values.len()];
    for inst in unit.insts.iter().filter(|i| !i.dst.is_none()) {
        defs[inst.dst.0 as usize] = Some(inst);
    }
    defs
}

struct Region<'a> {
    input: &'a RegionInput<'a>,
    flow: &'a Flow,
    narrow: &'a Bits,
    u: usize,
    unit: &'a Unit,
    defs: &'a [Option<&'a Inst>],
}

impl Region<'_> {
    /// The upper half of this I64 value is zero.
    fn is_narrow(&self, value: Value, depth: u32) -> bool {
        let (Some(inst), Some(less)) = (self.defs[value.0 as usize], depth.checked_sub(1)) else {
            return false;
        };
        let arg = |i: usize| self.is_narrow(inst.args[i], less);
        match inst.op {
            Op::Iconst => inst.imm as u64 >> 32 == 0,
            Op::Zext => self.unit.type_of(inst.args[0]).bits() <= 32,
            Op::Load => inst.memop().bytes() <= 4 && !inst.memop().signed(),
            Op::Get => {
                is_general(self.input, inst.slot())
                    && self.narrow.contains(self.flow.var(self.u, inst.slot()))
            }
            Op::And => arg(0) || arg(1),
            Op::Or | Op::Xor => arg(0) && arg(1),
            Op::Select => inst.ty == Type::I64 && arg(1) && arg(2),
            _ => false,
        }
    }
}
