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
/// struct, two steps each. A constant, and an exit's flags and return address, have the low half in `imm`, the high
/// half in the other fields. A mark says that the steps from number `code` on, up to the next mark, belong to the guest
/// instruction at `imm`, and if `d` is not 0, those from number `d` on to the one `a` bytes further.
#[derive(Clone)]
#[repr(C)]
pub struct Program {
    /// First, so that a struct around it can have this pointer in its own first cache line.
    pub(super) steps: Box<[Step]>,
    marks: u32,
    /// Where the exits begin that are among the steps, or 0.
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
        let second = exits.get(1).copied().unwrap_or(ExitInfo { ret: first.ret, ..NO_EXIT });
        let near = exits.len() <= 2
            && (exits.len() < 2 || first.flags == second.flags)
            && (first.return_pc().is_none() || second.return_pc().is_none());
        let far_exits = if near { &[][..] } else { exits };

        let most = code.len() + constants.len() + marks.len() + 2 * far_exits.len();
        let mut steps = Vec::with_capacity(most);
        steps.extend_from_slice(code);
        steps.extend_from_slice(constants);
        let marks_at = steps.len();
        pack_marks(marks, &mut steps);
        let exits_at = if near { 0 } else { steps.len() };
        for exit in far_exits {
            steps.push(Step { code: exit.kind as u16, d: 0, a: 0, b: 0, imm: exit.pc });
            steps.push(constant_step(exit.flags as u128 | (exit.ret as u128) << 64));
        }
        Program {
            steps: steps.into(),
            marks: marks_at as u32,
            far_exits: exits_at as u32,
            code: code.len() as u16,
            exits: exits.len() as u16,
            fp,
            mmu,
            exit_kinds: [first.kind, second.kind],
            exit_pcs: [first.pc, second.pc],
            exit_flags: first.flags,
            exit_ret: first.return_pc().unwrap_or(second.ret),
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
        if self.far_exits == 0 {
            let kind = self.exit_kinds[n];
            let ret = if kind == ExitKind::Call { self.exit_ret } else { 0 };
            return ExitInfo { kind, pc: self.exit_pcs[n], flags: self.exit_flags, ret };
        }
        let at = self.far_exits as usize + 2 * n;
        let (exit, more) = (&self.steps[at], constant(&self.steps[at + 1]));
        let kind = ExitKind::from_u8(exit.code as u8);
        ExitInfo { kind, pc: exit.imm, flags: more as u64, ret: (more >> 64) as u64 }
    }

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
        let end = if self.far_exits == 0 { self.steps.len() } else { self.far_exits as usize };
        self.steps[self.marks as usize..end].iter().flat_map(|mark| {
            let second = (mark.d as u32, mark.imm.wrapping_add(mark.a as u64));
            std::iter::once((mark.code as u32, mark.imm)).chain((mark.d != 0).then_some(second))
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

/// Two of them share a step if they are less than 64 KiB apart.
fn pack_marks(marks: &[(u16, u64)], steps: &mut Vec<Step>) {
    let mut marks = marks.iter().copied().peekable();
    while let Some((code, imm)) = marks.next() {
        let near = |&(_, pc): &(u16, u64)| pc.wrapping_sub(imm) <= u16::MAX as u64;
        let second = marks.next_if(near);
        let (d, a) = second.map_or((0, 0), |(step, pc)| (step, pc.wrapping_sub(imm) as u16));
        steps.push(Step { code, d, a, b: 0, imm });
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
