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

const NO_EXIT: ExitInfo = ExitInfo { kind: ExitKind::Jump, pc: 0, flags: 0, ret: 0 };

/// The exits, in place as long as there are two, which is nearly always.
#[derive(Clone, Debug)]
enum Exits {
    Few { n: u8, exits: [ExitInfo; 2] },
    Many(Box<[ExitInfo]>),
}

/// The bytecode of one unit.
///
/// One allocation holds, in this order: the steps, 128-bit constants, and fault marks. A constant has its low half in
/// `imm`, its high half in the other fields; a mark says that the steps from number `d` on, up to the next mark, belong
/// to the guest instruction at `imm`.
#[derive(Clone)]
#[repr(C)]
pub struct Program {
    /// First, so that a struct around it can have this pointer in its own first cache line.
    pub(super) steps: Box<[Step]>,
    marks: u32,
    code: u32,
    pub(super) fp: FpRule,
    /// MMU index of plain loads and stores.
    pub(super) mmu: u8,
    exits: Exits,
    /// First cell and number of cells of the guest's slots, for the check of what helpers write.
    #[cfg(debug_assertions)]
    pub(super) slots: Box<[(u16, u16)]>,
}

/// What a program is made of.
pub(super) struct Parts<'a> {
    pub steps: &'a [Step],
    pub constants: &'a [Step],
    pub marks: &'a [Step],
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
        let mut steps = Vec::with_capacity(code.len() + constants.len() + marks.len());
        steps.extend_from_slice(code);
        steps.extend_from_slice(constants);
        steps.extend_from_slice(marks);
        let exits = match *exits {
            [] => Exits::Few { n: 0, exits: [NO_EXIT; 2] },
            [a] => Exits::Few { n: 1, exits: [a, NO_EXIT] },
            [a, b] => Exits::Few { n: 2, exits: [a, b] },
            ref many => Exits::Many(many.into()),
        };
        Program {
            steps: steps.into(),
            marks: (code.len() + constants.len()) as u32,
            code: code.len() as u32,
            fp,
            mmu,
            exits,
            #[cfg(debug_assertions)]
            slots: parts.layout.slots().iter().map(|slot| (slot.cell, slot.ty.cells())).collect(),
        }
    }

    /// The unit's `ExitDirect`s in instruction order; [`super::Outcome::Direct`] is an index into it.
    #[inline]
    pub fn exits(&self) -> &[ExitInfo] {
        match &self.exits {
            Exits::Few { n, exits } => &exits[..*n as usize],
            Exits::Many(exits) => exits,
        }
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
        self.steps[self.marks as usize..].iter().map(|mark| (mark.d as u32, mark.imm))
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
        let more = match &self.exits {
            Exits::Few { .. } => 0,
            Exits::Many(exits) => size_of_val(&**exits),
        };
        size_of::<Program>() + size_of_val(&*self.steps) + more
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
        let marks = &self.steps[self.marks as usize..];
        let after = marks.partition_point(|mark| mark.d as usize <= step);
        marks[after - 1].imm
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
