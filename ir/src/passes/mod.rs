//! Improves a [`Unit`]: a walk forwards, a walk backwards, and a last one that closes the gaps.
//!
//! | walk | passes | file |
//! |---|---|---|
//! | forwards | slot forwarding, copies, folding, branches | `forward.rs`, `copies.rs`, `fold.rs` |
//! | backwards | dead slot stores, dead code | `dead.rs` |
//!
//! Units may go through here when they are lifted, so a pass may spend a few nanoseconds per instruction and
//! no allocation: [`Passes`] keeps all buffers (all passes together: about 15 ns per instruction). Passes never change what the guest can see: at every
//! instruction that may fault, at every helper that reads them, and at exits all slots are exact; operations
//! that raise floating-point flags stay even when nobody uses their result.
//! A region goes back to a *checkpoint* when it faults: the instruction behind the last one that cannot be
//! repeated. There all slots are exact too, and code behind it reads slots anew.
//! `ir/filetests/passes/` and the random units of `ir/tests/passes.rs` hold that.

mod copies;
mod dead;
mod fold;
mod forward;

use crate::Op;
use crate::helper::HelperDef;
use crate::layout::RegLayout;
use crate::types::Type;
use crate::unit::{Inst, Unit, Value};

/// Which passes run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassConfig {
    /// A `get` of a slot whose value the block knows becomes that value; a `set` to it disappears.
    pub forward_slots: bool,
    /// Expressions that equal an existing value become that value.
    pub copies: bool,
    /// Operations on constants, and algebra.
    pub fold: bool,
    /// Branches on constants; blocks that cannot be reached; blocks that merely continue another.
    pub branches: bool,
    /// A `set` that is overwritten before anyone can see it.
    pub dead_stores: bool,
    /// Unused values.
    pub dead_code: bool,
}

impl PassConfig {
    /// Nothing runs.
    pub const fn none() -> PassConfig {
        PassConfig {
            forward_slots: false,
            copies: false,
            fold: false,
            branches: false,
            dead_stores: false,
            dead_code: false,
        }
    }
    /// For units that the interpreter runs: nothing. Its translation to bytecode finds the copies by itself, so that
    /// the passes cost more there than they save (`examples/pass_speed.rs`: 70 ns for each guest instruction, and
    /// the block runs as fast without).
    pub const fn cold() -> PassConfig {
        PassConfig::none()
    }
    /// For units that go into a region.
    pub const fn hot() -> PassConfig {
        PassConfig {
            forward_slots: true,
            copies: true,
            fold: true,
            branches: true,
            dead_stores: true,
            dead_code: true,
        }
    }
    /// The switches by name, for command lines and filetests.
    pub fn switch(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "forward_slots" => &mut self.forward_slots,
            "copies" => &mut self.copies,
            "fold" => &mut self.fold,
            "branches" => &mut self.branches,
            "dead_stores" => &mut self.dead_stores,
            "dead_code" => &mut self.dead_code,
            _ => return None,
        })
    }
    /// Names of all switches.
    pub const SWITCHES: [&str; 6] =
        ["forward_slots", "copies", "fold", "branches", "dead_stores", "dead_code"];
}

/// Runs the passes once with fresh buffers; see [`Passes::run`].
pub fn optimize(unit: &mut Unit, layout: &RegLayout, helpers: &[HelperDef], config: &PassConfig) {
    Passes::default().run(unit, layout, helpers, config);
}

/// The passes and their buffers, kept by whoever lifts.
#[derive(Default)]
pub struct Passes {
    /// The unit's instructions as improved so far, and where its blocks start in them.
    out: Vec<Inst>,
    starts: Vec<u32>,
    /// Old to new block number.
    block_of: Vec<u32>,
    forward: forward::Buffers,
    dead: dead::Buffers,
    /// Old to new value number.
    renumber: Vec<Value>,
    types: Vec<Type>,
    pool: Vec<u128>,
}

impl Passes {
    pub fn new() -> Passes {
        Passes::default()
    }

    /// Improves `unit`, which must be valid and stays so.
    pub fn run(
        &mut self,
        unit: &mut Unit,
        layout: &RegLayout,
        helpers: &[HelperDef],
        config: &PassConfig,
    ) {
        if *config == PassConfig::none() {
            return;
        }
        self.walk_forwards(unit, layout, helpers, config);
        self.walk_backwards(unit, layout, helpers, config);
        self.compact(unit);
    }

    /// Writes the instructions that are kept back to the unit; renumbers values and pool constants in order.
    fn compact(&mut self, unit: &mut Unit) {
        self.renumber.clear();
        self.renumber.resize(unit.values.len(), Value::NONE);
        self.types.clear();
        self.pool.clear();
        unit.insts.clear();
        unit.blocks.clear();
        for (block, &start) in self.starts.iter().enumerate() {
            let end = self.starts.get(block + 1).map_or(self.out.len(), |&e| e as usize);
            unit.blocks.push(unit.insts.len() as u32);
            let range = start as usize..end;
            for (inst, &keep) in self.out[range.clone()].iter().zip(&self.dead.keep[range]) {
                if !keep {
                    continue;
                }
                let args = inst.args.map(|arg| match self.renumber.get(arg.0 as usize) {
                    Some(&now) => now,
                    None => arg,
                });
                let mut dst = inst.dst;
                if let Some(now) = self.renumber.get_mut(dst.0 as usize) {
                    self.types.push(unit.values[dst.0 as usize]);
                    dst = Value(self.types.len() as u16 - 1);
                    *now = dst;
                }
                let mut imm = inst.imm;
                if matches!(inst.op, Op::Vconst | Op::Vshuffle) {
                    imm = intern(&mut self.pool, unit.pool[imm as usize]);
                }
                unit.insts.push(Inst { dst, args, imm, ..*inst });
            }
        }
        std::mem::swap(&mut unit.values, &mut self.types);
        std::mem::swap(&mut unit.pool, &mut self.pool);
    }
}

/// Index of `constant` in the pool, where it is put if missing.
pub(crate) fn intern(pool: &mut Vec<u128>, constant: u128) -> i64 {
    let found = pool.iter().position(|&c| c == constant);
    found.unwrap_or_else(|| {
        pool.push(constant);
        pool.len() - 1
    }) as i64
}

#[cfg(test)]
mod tests {
    use crate::Op;
    use crate::op::Imm;

    /// [`super::Passes::run`] renumbers the pool constants of these.
    #[test]
    fn two_operations_have_pool_constants() {
        let with_pool: Vec<Op> =
            Op::ALL.iter().copied().filter(|op| op.info().imm == Imm::Pool).collect();
        assert_eq!(with_pool, [Op::Vconst, Op::Vshuffle]);
    }
}
