//! The bytecode of a unit.

use super::code::{self, Step};
use super::translate::{Scratch, translate};
use crate::helper::HelperDef;
use crate::layout::RegLayout;
use crate::types::FpRule;
use crate::unit::{ExitKind, Unit};
use std::fmt;
#[cfg(debug_assertions)]
use {
    crate::{helper::Access, layout::Slot},
    tulk_base::CpuState,
};

/// A direct exit of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitInfo {
    pub kind: ExitKind,
    /// Guest pc of the next block.
    pub pc: u64,
    /// Key flags of the next block.
    pub flags: u64,
    /// Return address of a call, else 0.
    pub ret: u64,
}

impl ExitInfo {
    /// Return address of a call.
    pub fn return_pc(&self) -> Option<u64> {
        (self.kind == ExitKind::Call).then_some(self.ret)
    }
}

/// The bytecode of one unit.
///
/// One allocation holds, in this order: the steps, 128-bit constants, fault marks, and the exits that do not fit into the
/// struct, one step each or two. A constant, and an exit's flags and return address, have the low half in `imm`, the high
/// half in the other fields. A mark says that the steps from number `code` on, up to the next mark, belong to the guest
/// instruction at `imm`. Each of `d`, `a` and `b` that is not 0 is another mark, by its distance from the one before: steps in the low byte, guest
/// bytes in the high one.
#[derive(Clone)]
#[repr(C)]
pub struct Program {
    /// First, so that a struct around it can have this pointer in its own first cache line.
    pub(super) steps: Box<[Step]>,
    marks: u32,
    /// Where the exits begin that are among the steps, or 0: a kind and a pc of each but the first two, or, with
    /// [`Program::FULL_EXITS`], all in full.
    far_exits: u32,
    code: u16,
    exits: u16,
    pub(super) fp: FpRule,
    /// MMU index of plain loads and stores.
    pub(super) mmu: u8,
    // What nearly all programs have: one or two exits to the same key flags, at most one of them a call.
    exit_kinds: [ExitKind; 2],
    exit_pcs: [u64; 2],
    exit_flags: u64,
    exit_ret: u64,
    /// First cell and number of cells of the guest's slots, for the check of what helpers write.
    #[cfg(debug_assertions)]
    pub(super) slots: Box<[(u16, u16)]>,
}

// There are tens of thousands of them.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Program>() == 64);

/// What a program is made of.
pub(super) struct Parts<'a> {
    pub steps: &'a [Step],
    pub constants: &'a [Step],
    /// First step and pc of each guest instruction that may fault.
    pub marks: &'a [(u16, u64)],
    pub exits: &'a [ExitInfo],
    pub fp: FpRule,
    pub mmu: u8,
    #[cfg_attr(not(debug_assertions), expect(dead_code))]
    pub layout: &'a RegLayout,
}

impl Program {
    /// Translates a verified unit.
    ///
    /// # Panics
    /// When the unit needs more than 65535 steps or cells: frontends bound the length of their blocks far below.
    pub fn new(unit: &Unit, layout: &RegLayout, helpers: &[HelperDef]) -> Program {
        Program::with_scratch(unit, layout, helpers, &mut Scratch::default())
    }

    /// As [`Program::new`], with working memory that is reused.
    pub fn with_scratch(
        unit: &Unit,
        layout: &RegLayout,
        helpers: &[HelperDef],
        scratch: &mut Scratch,
    ) -> Program {
        translate(unit, layout, helpers, scratch)
    }

    /// Puts the parts together. The constants' numbers in the steps count from the end of the steps.
    pub(super) fn assemble(parts: Parts<'_>) -> Program {
        let Parts { steps: code, constants, marks, exits, fp, mmu, .. } = parts;
        let first = exits.first().copied().unwrap_or(NO_EXIT);
        let second = exits.get(1).copied().unwrap_or(NO_EXIT);
        let mut calls = exits.iter().filter_map(ExitInfo::return_pc);
        let ret = calls.next().unwrap_or(0);
        let alike = exits.iter().all(|exit| exit.flags == first.flags) && calls.next().is_none();

        let most = code.len() + constants.len() + marks.len() + 2 * exits.len();
        let mut steps = Vec::with_capacity(most);
        steps.extend_from_slice(code);
        steps.extend_from_slice(constants);
        let marks_at = steps.len();
        pack_marks(marks, &mut steps);
        let exits_at = steps.len() as u32;
        let kind_and_pc =
            |exit: &ExitInfo| Step { code: exit.kind as u16, d: 0, a: 0, b: 0, imm: exit.pc };
        let far_exits = match alike {
            true if exits.len() <= 2 => 0,
            true => {
                steps.extend(exits[2..].iter().map(kind_and_pc));
                exits_at
            }
            false => {
                for exit in exits {
                    steps.push(kind_and_pc(exit));
                    steps.push(constant_step(exit.flags as u128 | (exit.ret as u128) << 64));
                }
                exits_at | Self::FULL_EXITS
            }
        };
        Program {
            steps: steps.into(),
            marks: marks_at as u32,
            far_exits,
            code: code.len() as u16,
            exits: exits.len() as u16,
            fp,
            mmu,
            exit_kinds: [first.kind, second.kind],
            exit_pcs: [first.pc, second.pc],
            exit_flags: first.flags,
            exit_ret: ret,
            #[cfg(debug_assertions)]
            slots: parts.layout.slots().iter().map(|slot| (slot.cell, slot.ty.cells())).collect(),
        }
    }

    /// Number of the unit's `ExitDirect`s.
    #[inline]
    pub fn exit_count(&self) -> usize {
        self.exits as usize
    }

    /// The unit's `ExitDirect`s in instruction order; [`super::Outcome::Direct`] is an index into it.
    ///
    /// # Panics
    /// When there are not that many.
    #[inline]
    pub fn exit(&self, n: usize) -> ExitInfo {
        assert!(n < self.exit_count(), "exit {n} of {}", self.exits);
        let far = (self.far_exits & !Self::FULL_EXITS) as usize;
        if self.far_exits & Self::FULL_EXITS != 0 {
            let (exit, more) = (&self.steps[far + 2 * n], constant(&self.steps[far + 2 * n + 1]));
            let kind = ExitKind::from_u8(exit.code as u8);
            return ExitInfo { kind, pc: exit.imm, flags: more as u64, ret: (more >> 64) as u64 };
        }
        let (kind, pc) = match n {
            0 | 1 => (self.exit_kinds[n], self.exit_pcs[n]),
            _ => {
                let exit = &self.steps[far + n - 2];
                (ExitKind::from_u8(exit.code as u8), exit.imm)
            }
        };
        let ret = if kind == ExitKind::Call { self.exit_ret } else { 0 };
        ExitInfo { kind, pc, flags: self.exit_flags, ret }
    }
    /// See [`Program::far_exits`].
    const FULL_EXITS: u32 = 1 << 31;

    /// The one exit to a computed pc with the same key flags that is no return, if there is just one: its return address,
    /// when it is a call.
    pub fn computed_exit(&self) -> Option<Option<u64>> {
        let mut found = self.steps().iter().filter_map(|step| match step.code {
            code::INDIRECT if step.d == ExitKind::Jump as u16 => Some(None),
            code::INDIRECT_RET if step.d == ExitKind::Call as u16 => Some(Some(step.imm)),
            _ => None,
        });
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// All of [`Program::exit`].
    #[inline]
    pub fn exits(&self) -> impl ExactSizeIterator<Item = ExitInfo> + '_ {
        (0..self.exit_count()).map(|n| self.exit(n))
    }

    /// The steps, without constants and marks.
    #[inline]
    pub fn steps(&self) -> &[Step] {
        &self.steps[..self.code as usize]
    }
    /// The constant that steps name by `number`, see [`code::POOL`].
    #[inline]
    pub fn constant(&self, number: u64) -> u128 {
        constant(&self.steps[number as usize])
    }
    /// For each guest instruction with a step that may fault, in order: the first such step's number and the pc.
    #[inline]
    pub fn marks(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let end = match self.far_exits & !Self::FULL_EXITS {
            0 => self.steps.len(),
            far => far as usize,
        };
        self.steps[self.marks as usize..end].iter().flat_map(|mark| {
            let (mut step, mut pc) = (mark.code as u32, mark.imm);
            let more = [mark.d, mark.a, mark.b].into_iter().filter(|&more| more != 0);
            std::iter::once((step, pc)).chain(more.map(move |more| {
                step += more as u32 & 0xff;
                pc = pc.wrapping_add(more as u64 >> 8);
                (step, pc)
            }))
        })
    }
    /// What float operations do with NaNs.
    #[inline]
    pub fn fp(&self) -> FpRule {
        self.fp
    }

    /// MMU index of the steps that are plain loads and stores.
    #[inline]
    pub fn mmu(&self) -> u8 {
        self.mmu
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.code as usize
    }
    pub fn is_empty(&self) -> bool {
        self.code == 0
    }
    /// Bytes of memory that the program occupies.
    pub fn memory(&self) -> usize {
        size_of::<Program>() + size_of_val(&*self.steps)
    }

    /// All slots, cell by cell, for [`Program::check_writes`].
    #[cfg(debug_assertions)]
    pub(super) fn slot_values(&self, state: &CpuState) -> Vec<[u64; 2]> {
        let high = |cell: u16, cells: u16| if cells == 2 { state.get(cell + 1) } else { 0 };
        self.slots.iter().map(|&(cell, n)| [state.get(cell), high(cell, n)]).collect()
    }

    /// Panics when a helper wrote a slot that its row does not declare.
    #[cfg(debug_assertions)]
    pub(super) fn check_writes(&self, helper: &HelperDef, before: Vec<[u64; 2]>, state: &CpuState) {
        let after = self.slot_values(state);
        for (n, (before, after)) in before.into_iter().zip(after).enumerate() {
            let declared = match helper.writes {
                Access::None => false,
                Access::All => true,
                Access::These(slots) => slots.contains(&Slot(n as u16)),
            };
            let name = helper.name;
            assert!(declared || before == after, "helper {name} writes slot {n}, undeclared");
        }
    }

    /// Guest pc of the instruction to which a faulting step belongs.
    pub(super) fn guest_pc(&self, step: usize) -> u64 {
        let before = self.marks().take_while(|&(first, _)| first as usize <= step);
        before.last().expect("a step that may fault has a mark").1
    }
}

const NO_EXIT: ExitInfo = ExitInfo { kind: ExitKind::Jump, pc: 0, flags: 0, ret: 0 };

/// Up to four that are less than 256 steps and bytes apart share a step.
fn pack_marks(marks: &[(u16, u64)], steps: &mut Vec<Step>) {
    let mut marks = marks.iter().copied().peekable();
    while let Some((code, imm)) = marks.next() {
        let (mut step, mut pc) = (code, imm);
        let mut more = [0; 3];
        for field in &mut more {
            let near = |&(next, to): &(u16, u64)| {
                (1..=0xff).contains(&next.wrapping_sub(step)) && to.wrapping_sub(pc) <= 0xff
            };
            let Some((next, to)) = marks.next_if(near) else { break };
            *field = (next - step) | (to.wrapping_sub(pc) as u16) << 8;
            (step, pc) = (next, to);
        }
        let [d, a, b] = more;
        steps.push(Step { code, d, a, b, imm });
    }
}

/// A 128-bit constant as it lies behind the steps.
pub(super) fn constant(step: &Step) -> u128 {
    let high = [step.code, step.d, step.a, step.b];
    let high = high.iter().rev().fold(0, |acc, &x| acc << 16 | x as u64);
    step.imm as u128 | (high as u128) << 64
}
pub(super) fn constant_step(value: u128) -> Step {
    let high = (value >> 64) as u64;
    Step {
        code: high as u16,
        d: (high >> 16) as u16,
        a: (high >> 32) as u16,
        b: (high >> 48) as u16,
        imm: value as u64,
    }
}

/// A listing: number, name, result and operand cells, immediate.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps[..self.code as usize].iter().enumerate() {
            let Step { code, d, a, b, imm } = *step;
            writeln!(f, "{i:4} {:16} {d:5} {a:5} {b:5} {imm:#x}", code::name(code))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(marks: &[(u16, u64)], exits: &[ExitInfo]) -> Program {
        let (fp, layout) = (FpRule::Arm, &RegLayout::new());
        let step = Step { code: 0, d: 0, a: 0, b: 0, imm: 0 };
        let (steps, constants) = (&[step; 3][..], &[constant_step(7)][..]);
        Program::assemble(Parts { steps, constants, marks, exits, fp, mmu: 0, layout })
    }

    /// Marks come back whatever lies between them, and so do exits of all kinds.
    #[test]
    fn packed_marks_and_exits_come_back() {
        let exit = |kind, pc, flags, ret| ExitInfo { kind, pc, flags, ret };
        let (jump, call) = (ExitKind::Jump, ExitKind::Call);
        let four = [
            exit(jump, 1, 5, 0),
            exit(jump, u64::MAX, 5, 0),
            exit(call, 3, 5, 0x1234_5678_9abc_def0),
            exit(jump, 4, 5, 0),
        ];
        let other_flags = [exit(jump, 1, 5, 0), exit(jump, 2, 6, 0)];
        let calls = [exit(call, 1, 5, 10), exit(call, 2, 5, 20)];
        let sets: [&[ExitInfo]; 8] =
            [&[], &four[..1], &four[..2], &four[1..3], &four[..3], &four, &other_flags, &calls];
        let marks = [
            (0, 100),
            (1, 103),
            (2, 103),
            (257, 358),
            (258, 614),
            (259, 600),
            (260, u64::MAX),
            (261, 2),
            (300, 3),
            (600, 4),
        ];
        for exits in sets {
            for n in 0..=marks.len() {
                let program = program(&marks[..n], exits);
                let back: Vec<_> = program.marks().map(|(step, pc)| (step as u16, pc)).collect();
                assert_eq!(back, marks[..n]);
                assert_eq!(program.exits().collect::<Vec<_>>(), exits);
                assert_eq!((program.steps().len(), program.constant(3)), (3, 7));
            }
        }
    }
}
