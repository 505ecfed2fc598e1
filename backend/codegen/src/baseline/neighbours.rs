//! Looks for [`crate::neighbours`] in bytecode.
//!
//! What may change mappings ends all roots, as do labels, where control flow meets.

use super::labels::Labels;
use super::steps::{PLAIN_LOAD, PLAIN_STORE};
use crate::neighbours::{Neighbours, Sum};
use tulk_ir::Op;
use tulk_ir::interp::code::{self, Step, address, kind};

/// Working memory.
#[derive(Default)]
pub struct Search {
    /// What is known of cells.
    cells: Vec<(u16, Sum)>,
}

/// `kind` and `mode` of a plain access, and whether it writes.
fn plain(step: &Step) -> Option<(u16, u16, bool)> {
    match step.code {
        PLAIN_STORE.. => Some(((step.code - PLAIN_STORE) >> 2, step.code & 3, true)),
        PLAIN_LOAD.. => Some(((step.code - PLAIN_LOAD) >> 2, step.code & 3, false)),
        _ => None,
    }
}

fn bytes(kind: u16) -> u32 {
    match kind {
        kind::U8..=kind::U128 => 1 << kind,
        kind::S8_32 | kind::S8_64 => 1,
        kind::S16_32 | kind::S16_64 => 2,
        _ => 4,
    }
}

/// The constant part of an access's address, if it is one that a host instruction can have.
pub fn displacement(mode: u16, step: &Step) -> Option<i32> {
    match mode {
        address::BASE => i32::try_from(step.imm as i64).ok(),
        address::INDEX if step.imm as u8 & 63 <= 3 => Some((step.imm >> 32) as i32),
        _ => None,
    }
}

impl Search {
    /// Looks at a block.
    pub fn run(&mut self, steps: &[Step], labels: &Labels, found: &mut Neighbours) {
        found.clear();
        if steps.iter().filter(|step| plain(step).is_some()).nth(1).is_none() {
            return;
        }
        self.cells.clear();
        for (step, at) in steps.iter().zip(0..) {
            if labels.is_label(at) {
                self.cells.clear();
            }
            self.step(at, step, found);
        }
    }

    fn sum(&mut self, cell: u16, found: &mut Neighbours) -> Sum {
        if let Some(&(_, sum)) = self.cells.iter().find(|known| known.0 == cell) {
            return sum;
        }
        let sum = found.root();
        self.cells.push((cell, sum));
        sum
    }
    fn kill(&mut self, cell: u16) {
        self.cells.retain(|known| known.0 != cell);
    }

    fn step(&mut self, at: u32, step: &Step, found: &mut Neighbours) {
        const ADD: u16 = code::of(Op::Add, 7);
        const SUB: u16 = code::of(Op::Sub, 7);
        const VFADD: u16 = code::of(Op::Vfadd, 0);
        const VFDIV: u16 = code::of(Op::Vfdiv, 15);
        const BRANCH_ICMP: u16 = code::branch_icmp(0, 0, false);
        if let Some((kind, mode, write)) = plain(step)
            && let Some(displacement) = displacement(mode, step)
        {
            let mut address = self.sum(step.a, found);
            if mode == address::INDEX {
                let index = self.sum(step.b, found);
                address = found.pair(address, index, step.imm as u8 & 63);
            }
            found.access(at, address.plus(displacement as i64), bytes(kind), write);
        }
        let Step { d, a, imm, .. } = *step;
        match step.code {
            code::MOV | ADD | SUB => {
                let sum = self.sum(a, found).plus(match step.code {
                    ADD => imm as i64,
                    SUB => (imm as i64).wrapping_neg(),
                    _ => 0,
                });
                self.kill(d);
                self.cells.push((d, sum));
            }
            // The operations of [`Op`]s with two words as their result.
            VFADD..=VFDIV => {
                self.kill(d);
                self.kill(d | 1);
            }
            // A word.
            0..code::SPECIAL | code::CONST | code::SEXT | code::BEXTRACT_U | code::BEXTRACT_S => {
                self.kill(d);
            }
            // What other code than the guest's instructions may do here is not known.
            code::CALL | code::CALL_WIDE => self.cells.clear(),
            // Two results.
            code::ADDS_R32..=code::SUBS_K64 => self.cells.clear(),
            code::JUMP | code::BRANCH | code::BRANCH_NZCV => {}
            code::BRANCH_EXIT | code::BRANCH_NZCV_EXIT | BRANCH_ICMP..PLAIN_LOAD => {}
            code::STORE | code::STORE_A32 | code::FENCE | PLAIN_STORE.. => {}
            PLAIN_LOAD.. if (step.code - PLAIN_LOAD) >> 2 != kind::U128 => self.kill(d),
            // A result of one cell, or of two.
            _ => {
                self.kill(d);
                self.kill(d | 1);
            }
        }
    }
}
