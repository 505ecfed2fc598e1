//! Where a block's jumps lead: a label that only one jump leads to, and nothing falls into, goes on with the registers as they
//! were at the jump.

use tulk_ir::interp::code::{self, Step};

/// The target of jumps.
#[derive(Clone, Copy)]
struct Label {
    at: u32,
    jumps: u32,
    /// The step before goes on here.
    falls: bool,
}

/// All labels of a block.
#[derive(Default)]
pub struct Labels(Vec<Label>);

/// Where a step may go on in its block.
pub enum Next {
    /// With the next step.
    Falls,
    Jumps(u32),
    Either([u32; 2]),
    /// Nowhere.
    Leaves,
}

/// Where step number `at` may go on.
pub fn next(step: &Step) -> Next {
    const FIRST: u16 = code::branch_icmp(0, 0, false);
    const BEHIND: u16 = code::plain_load(0, 0);
    let Step { code: n, d, b, imm, .. } = *step;
    match n {
        code::JUMP => Next::Jumps(imm as u32),
        code::BRANCH | code::BRANCH_NZCV => Next::Either([d as u32, b as u32]),
        FIRST..BEHIND if (n - FIRST) & 8 == 0 => {
            let constant = n & 4 != 0;
            Next::Either([d as u32, if constant { b as u32 } else { imm as u32 }])
        }
        FIRST..BEHIND | code::BRANCH_EXIT | code::BRANCH_NZCV_EXIT => Next::Leaves,
        code::EXIT | code::INDIRECT | code::INDIRECT_RET | code::INDIRECT_FULL | code::TRAP => {
            Next::Leaves
        }
        _ => Next::Falls,
    }
}

impl Labels {
    /// Looks at a block.
    pub fn find(&mut self, steps: &[Step]) {
        self.0.clear();
        for (step, at) in steps.iter().zip(0..) {
            match next(step) {
                Next::Jumps(to) => self.jump(at, to),
                Next::Either(ways) => ways.into_iter().for_each(|to| self.jump(at, to)),
                Next::Falls => self.fall(at + 1),
                Next::Leaves => {}
            }
        }
    }
    fn jump(&mut self, at: u32, to: u32) {
        let falls = to == at + 1;
        match self.0.iter_mut().find(|label| label.at == to) {
            Some(label) if falls => label.falls = true,
            Some(label) => label.jumps += 1,
            // What falls and is no label yet is none: jumps go forward only.
            None if falls => {}
            None => self.0.push(Label { at: to, jumps: 1, falls: false }),
        }
    }
    fn fall(&mut self, to: u32) {
        if let Some(label) = self.0.iter_mut().find(|label| label.at == to) {
            label.falls = true;
        }
    }

    /// A jump leads there, which is not the step before.
    pub fn is_label(&self, at: u32) -> bool {
        self.0.iter().any(|label| label.at == at)
    }
    /// Only one jump leads there.
    pub fn is_single(&self, at: u32) -> bool {
        self.0.iter().any(|label| label.at == at && label.jumps == 1 && !label.falls)
    }
    /// The step before goes on at this label.
    pub fn is_fallen_into(&self, at: u32) -> bool {
        self.0.iter().any(|label| label.at == at && label.falls)
    }
}
