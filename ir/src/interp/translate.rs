//! The translation: one pass that emits a step for each operation that [`super::analysis`] left over.

use super::analysis::{
    Analysis, CONST, FUSED, IN_PLACE, NEED_CELL, NONE, OWNS, Operands, PAIR_HEAD, PAIR_TAIL, SUNK,
    has_constant_form, is_short, plain_kind,
};
use super::code::{self, Step, address};
use super::eval::EvalOp;
use super::int::{cc_table, mask, nzcv_table};
use super::program::{ExitInfo, Parts, Program, constant_step};
use super::vector;
use crate::helper::HelperDef;
use crate::layout::{RegLayout, Slot};
use crate::op::{Op, effect};
use crate::types::{IntCc, Shape, Type};
use crate::unit::{Block, Inst, Unit, Value};
use tulk_base::state::{CELL_PC, CELL_TEMPS, CELL_ZERO};

/// Working memory of [`Program::with_scratch`], reused from unit to unit.
#[derive(Default)]
pub struct Scratch {
    analysis: Analysis,
    steps: Vec<Step>,
    constants: Vec<Step>,
    marks: Vec<(u16, u64)>,
    exits: Vec<ExitInfo>,
    /// Steps with the number of a block where the number of a step belongs, and steps with the number of a constant.
    block_fixups: Vec<(u32, Field)>,
    constant_fixups: Vec<(u32, u32)>,
    local_cells: Vec<u16>,
    /// First cell behind the locals; first that was never used; free single cells and pairs below.
    first_temp: u16,
    next_temp: u16,
    free: Vec<u16>,
    free_pairs: Vec<u16>,
}

/// A field of a step.
#[derive(Clone, Copy)]
enum Field {
    D,
    B,
    Imm,
}

impl Scratch {
    fn clear(&mut self) {
        self.steps.clear();
        self.constants.clear();
        self.marks.clear();
        self.exits.clear();
        self.block_fixups.clear();
        self.constant_fixups.clear();
        self.local_cells.clear();
        self.free.clear();
        self.free_pairs.clear();
        self.first_temp = CELL_TEMPS;
        self.next_temp = CELL_TEMPS;
    }

    fn alloc(&mut self, cells: u16) -> u16 {
        let free = if cells == 1 { &mut self.free } else { &mut self.free_pairs };
        if let Some(cell) = free.pop() {
            return cell;
        }
        let cell = self.next_temp;
        if cells == 2 && cell & 1 != 0 {
            self.free.push(cell);
            self.next_temp += 1;
            return self.alloc(2);
        }
        self.next_temp = cell.checked_add(cells).expect("unit has too many live values");
        cell
    }

    /// Resolves what refers to blocks and constants.
    fn fix(&mut self) {
        let code = self.steps.len();
        assert!(code <= u16::MAX as usize, "unit is too long for the interpreter");
        for &(at, field) in &self.block_fixups {
            let step = &mut self.steps[at as usize];
            let target = |block: u64| self.analysis.blocks[block as usize].step;
            match field {
                Field::D => step.d = target(step.d as u64) as u16,
                Field::B => step.b = target(step.b as u64) as u16,
                Field::Imm => step.imm = target(step.imm) as u64,
            }
        }
        for &(at, shift) in &self.constant_fixups {
            self.steps[at as usize].imm += (code as u64) << shift;
        }
    }
}

pub(super) fn translate(
    unit: &Unit,
    layout: &RegLayout,
    helpers: &[HelperDef],
    s: &mut Scratch,
) -> Program {
    s.analysis.scan(unit, layout.slots().len(), helpers);
    s.clear();
    let mut translator = Translator { s, unit, layout, helpers, pc: unit.pc, marked: false };
    translator.place_locals();
    for block in 0..unit.blocks.len() as Block {
        translator.block(block);
    }
    s.fix();
    let Scratch { steps, constants, marks, exits, analysis, .. } = s;
    let (fp, mmu) = (unit.fp, analysis.mmu);
    Program::assemble(Parts { steps, constants, marks, exits, fp, mmu, layout })
}

struct Translator<'a> {
    s: &'a mut Scratch,
    unit: &'a Unit,
    layout: &'a RegLayout,
    helpers: &'a [HelperDef],
    /// The guest instruction, and whether it has its mark.
    pc: u64,
    marked: bool,
}

impl Translator<'_> {
    fn place_locals(&mut self) {
        for ty in &self.unit.locals {
            let cell = self.s.alloc(ty.cells());
            self.s.local_cells.push(cell);
        }
        // Cells that alignment left over would outlive the blocks.
        self.s.first_temp = self.s.next_temp;
    }

    fn block(&mut self, block: Block) {
        // Every exit has its number, reachable or not.
        let unit = self.unit;
        let insts = unit.block(block);
        if let Some(last) = insts.last()
            && last.op == Op::ExitDirect
        {
            let constant = |v: Value, otherwise| {
                let known = if v.is_none() { None } else { self.s.analysis.constant(unit, v) };
                known.unwrap_or(otherwise)
            };
            self.s.exits.push(ExitInfo {
                kind: last.exit_kind(),
                pc: last.imm as u64,
                flags: constant(last.args[1], unit.flags),
                ret: constant(last.args[0], 0),
            });
        }
        if !self.s.analysis.blocks[block as usize].needed {
            let end = unit.block_range(block).end as u32;
            while self.s.analysis.dead_sets.last().is_some_and(|&i| i < end) {
                self.s.analysis.dead_sets.pop();
            }
            if let Some(insn) = insts.iter().rev().find(|inst| inst.op == Op::Insn) {
                self.pc = insn.imm as u64;
                self.marked = false;
            }
            return;
        }
        self.s.analysis.blocks[block as usize].step = self.s.steps.len() as u32;
        self.s.next_temp = self.s.first_temp;
        self.s.free.clear();
        self.s.free_pairs.clear();
        for (i, inst) in unit.block_range(block).zip(insts) {
            self.inst(block, i as u32, inst);
        }
    }

    fn inst(&mut self, block: Block, i: u32, inst: &Inst) {
        match inst.op {
            Op::Insn => {
                self.pc = inst.imm as u64;
                self.marked = false;
            }
            Op::Get => self.get(i, inst),
            Op::Set => self.set(i, inst),
            Op::Load => self.load(i, inst),
            Op::Store => self.store(i, inst),
            Op::AtomicRmw | Op::AtomicCas => self.atomic(i, inst),
            Op::Fence => self.step(code::FENCE, 0, inst.aux as u16, 0, 0),
            Op::Call => self.call(i, inst),
            Op::Jump => self.jump(block, inst.imm2),
            Op::Brif => self.brif(i, inst),
            Op::ExitDirect => {
                let exit = self.s.analysis.blocks[block as usize].exit;
                self.step(code::EXIT, 0, 0, 0, exit as u64);
            }
            Op::ExitIndirect => self.exit_indirect(block, i, inst),
            Op::ExitTrap => {
                assert!(inst.exit_kind().trap(0).is_some(), "trap of kind {:?}", inst.exit_kind());
                let (low, high) = (inst.imm2 as u16, (inst.imm2 >> 16) as u16);
                self.step(code::TRAP, inst.aux as u16, low, high, inst.imm as u64);
            }
            _ => self.pure(i, inst),
        }
    }

    // Cells.

    fn step(&mut self, code: u16, d: u16, a: u16, b: u16, imm: u64) {
        self.s.steps.push(Step { code, d, a, b, imm });
    }
    fn ty(&self, v: Value) -> Type {
        self.unit.type_of(v)
    }
    fn is(&self, v: Value, flag: u16) -> bool {
        self.s.analysis.is(v, flag)
    }
    /// The cell of an operand; any for an absent one.
    fn cell(&self, v: Value) -> u16 {
        if v.is_none() { 0 } else { self.s.analysis.val(v).cell }
    }
    fn constant(&self, v: Value) -> Option<u64> {
        self.s.analysis.constant(self.unit, v)
    }
    fn operands(&self, inst: &Inst) -> Operands {
        self.s.analysis.operands(self.unit, inst)
    }
    fn def(&self, v: Value) -> Inst {
        *self.s.analysis.def(self.unit, v)
    }
    fn slot_cell(&self, slot: Slot) -> u16 {
        match slot.as_local() {
            Some(n) => self.s.local_cells[n as usize],
            None => self.layout.cell(slot),
        }
    }

    /// Frees the temporary of an operand of instruction `i` if this was the last use.
    fn release(&mut self, v: Value, i: u32) {
        if v.is_none() {
            return;
        }
        let root = Value(self.s.analysis.val(v).root);
        let val = self.s.analysis.val_mut(root);
        if val.flags & OWNS != 0 && val.last <= i {
            val.flags &= !OWNS;
            let cell = val.cell;
            self.free(cell, self.ty(root));
        }
    }
    fn free(&mut self, cell: u16, ty: Type) {
        if ty.cells() == 1 {
            self.s.free.push(cell);
        } else {
            self.s.free_pairs.push(cell);
        }
    }
    /// The cells of an instruction's operands, which are read by it.
    fn read(&mut self, args: [Value; 3], i: u32) -> [u16; 3] {
        let cells = args.map(|v| self.cell(v));
        for v in args {
            self.release(v, i);
        }
        cells
    }
    /// The cell for the result of instruction `i`, whose operands have been read.
    fn place(&mut self, v: Value) -> u16 {
        if v.is_none() {
            return 0;
        }
        let val = *self.s.analysis.val(v);
        let ty = self.ty(v);
        let cell = if val.flags & SUNK != 0 {
            self.slot_cell(self.unit.insts[val.set as usize].slot())
        } else {
            self.s.alloc(ty.cells())
        };
        if val.uses == 0 {
            self.free(cell, ty);
        } else if val.flags & SUNK == 0 {
            self.s.analysis.val_mut(v).flags |= OWNS;
        }
        self.s.analysis.val_mut(v).cell = cell;
        cell
    }

    fn copy(&mut self, d: u16, a: u16, ty: Type) {
        let code = if ty.cells() == 1 { code::MOV } else { code::MOV2 };
        self.step(code, d, a, 0, 0);
    }

    fn get(&mut self, _i: u32, inst: &Inst) {
        let cell = self.slot_cell(inst.slot());
        let val = self.s.analysis.val_mut(inst.dst);
        if val.flags & IN_PLACE != 0 {
            val.cell = cell;
        } else if val.uses != 0 {
            let d = self.place(inst.dst);
            self.copy(d, cell, inst.ty);
        }
    }

    fn set(&mut self, i: u32, inst: &Inst) {
        if self.s.analysis.dead_sets.last() == Some(&i) {
            self.s.analysis.dead_sets.pop();
            return;
        }
        let d = self.slot_cell(inst.slot());
        let v = inst.args[0];
        if let Some(k) = self.constant(v) {
            return self.step(code::CONST, d, 0, 0, k);
        }
        let [a, ..] = self.read([v, Value::NONE, Value::NONE], i);
        if a != d {
            self.copy(d, a, inst.ty);
        }
    }

    // Pure operations.

    fn pure(&mut self, i: u32, inst: &Inst) {
        let val = *self.s.analysis.val(inst.dst);
        if val.flags & CONST != 0 {
            return self.iconst(inst);
        }
        let kept = inst.op.info().effects & effect::FLAGS != 0;
        if val.uses == 0 && !kept || val.flags & (FUSED | PAIR_TAIL) != 0 {
            return;
        }
        if let Some(offset) = self.s.analysis.alias(inst) {
            let from = *self.s.analysis.val(inst.args[0]);
            let to = self.s.analysis.val_mut(inst.dst);
            to.cell = from.cell + offset;
            to.root = from.root;
            return;
        }
        if val.flags & PAIR_HEAD != 0 {
            return self.with_flags(i, inst);
        }
        if has_constant_form(inst.op) && inst.ty != Type::I128 {
            return self.binary(i, inst);
        }
        self.other(i, inst)
    }

    fn iconst(&mut self, inst: &Inst) {
        if !self.is(inst.dst, NEED_CELL) {
            return;
        }
        let k = self.constant(inst.dst).unwrap_or(0);
        if k == 0 {
            self.s.analysis.val_mut(inst.dst).cell = CELL_ZERO;
        } else {
            let d = self.place(inst.dst);
            self.step(code::CONST, d, 0, 0, k);
        }
    }

    /// The number of a constant behind the steps; the step about to be emitted holds it from bit `shift` on.
    fn pool(&mut self, value: u128, shift: u32) -> u64 {
        self.s.constant_fixups.push((self.s.steps.len() as u32, shift));
        self.s.constants.push(constant_step(value));
        (self.s.constants.len() as u64 - 1) << shift
    }

    fn wide_constant(&mut self, v: Value, value: u128) {
        if value == 0 && !self.is(v, SUNK) {
            self.s.analysis.val_mut(v).cell = CELL_ZERO;
            return;
        }
        let d = self.place(v);
        if (value >> 64) as u64 == value as u64 {
            return self.step(code::CONST2, d, 0, 0, value as u64);
        }
        let imm = self.pool(value, 0);
        self.step(code::POOL, d, 0, 0, imm);
    }

    /// Releases what `operands` reads and returns the cells.
    fn read_operands(&mut self, operands: Operands, i: u32) -> [u16; 2] {
        let b = if operands.k.is_some() { Value::NONE } else { operands.b };
        let [a, b, _] = self.read([operands.a, b, Value::NONE], i);
        [a, b]
    }

    fn binary(&mut self, i: u32, inst: &Inst) {
        let operands = self.operands(inst);
        let [a, mut b] = self.read_operands(operands, i);
        let d = self.place(inst.dst);
        let mut variant = width(inst.ty);
        let mut imm = 0;
        if let Some(k) = operands.k {
            variant += 4;
            imm = k;
        }
        if inst.op == Op::Icmp {
            // The truth table goes where the form has room.
            let table = cc_table(condition(inst, operands));
            if operands.k.is_some() {
                b = table as u16;
            } else {
                imm = table as u64;
            }
        }
        self.step(code::of(inst.op, variant), d, a, b, imm);
    }

    /// A sum or difference and its flags.
    fn with_flags(&mut self, i: u32, inst: &Inst) {
        let other = self.unit.insts[i as usize + 1].dst;
        let operands = self.operands(inst);
        let [a, b] = self.read_operands(operands, i);
        let (first, second) = (self.place(inst.dst), self.place(other));
        let difference = matches!(inst.op, Op::Sub | Op::SubNzcv);
        let (d, flags) =
            if matches!(inst.op, Op::Add | Op::Sub) { (first, second) } else { (second, first) };
        let base = if difference { code::SUBS_R32 } else { code::ADDS_R32 };
        let wide = (inst.ty == Type::I64) as u16;
        match operands.k {
            Some(k) => self.step(base + 2 + wide, d, a, flags, k),
            None => self.step(base + wide, d, a, b, flags as u64),
        }
    }

    fn other(&mut self, i: u32, inst: &Inst) {
        if inst.op == Op::Select && inst.ty.cells() == 1 {
            return self.select(i, inst);
        }
        let (ty, unit) = (inst.ty, self.unit);
        match inst.op {
            Op::Vconst => return self.wide_constant(inst.dst, unit.pool[inst.imm as usize]),
            Op::Iconst => return self.wide_constant(inst.dst, inst.imm as i128 as u128),
            _ => {}
        }
        let [a, b, c] = self.read(inst.args, i);
        let d = self.place(inst.dst);
        let source = || unit.type_of(inst.args[0]);
        let lane = inst.shape.lane_bits();
        let code_of = |variant: u16| code::of(inst.op, variant);
        let word = ty.is_int() && ty != Type::I128;
        let double = (ty == Type::F64) as u16;
        let double_lanes = (inst.shape == Shape::F64x2) as u16;
        let (low, bits) = inst.field();
        let function = |row: usize| (row * 4 + vector::column(inst.shape)) as u64;

        let (code, b, imm) = match inst.op {
            Op::Neg | Op::Not | Op::Bswap if word => (code_of(width(ty)), b, 0),
            Op::Abs | Op::Clz | Op::Ctz | Op::Popcnt | Op::Bitrev => (code_of(width(ty)), b, 0),
            Op::AddCarry | Op::CarryOut | Op::AdcNzcv => (code_of(width(ty)), b, c as u64),
            Op::LogicNzcv => (code_of(width(ty)), b, 0),
            Op::BextractU => (code::BEXTRACT_U, low as u16, mask(bits)),
            Op::BextractS => {
                let imm = (64 - bits) | ty.bits() << 8;
                (code::BEXTRACT_S, (64 - low - bits) as u16, imm as u64)
            }
            Op::Binsert => (code::BINSERT, b, (low | bits << 8) as u64),
            Op::ParityEven => (code::PARITY_EVEN, b, 0),
            Op::Zext if ty != Type::I128 => (code::of(Op::And, 7), b, mask(source().bits())),
            Op::Zext => (code::ZEXT128, b, mask(source().bits())),
            Op::Sext if ty != Type::I128 => {
                (code::SEXT, 64 - source().bits() as u16, mask(ty.bits()))
            }
            Op::Sext => (code::SEXT128, 64 - source().bits() as u16, 0),
            Op::Concat => (code::CONCAT, b, 0),
            Op::Select => (code::SELECT2, b, c as u64),
            Op::NzcvTest => (code::NZCV_TEST, b, nzcv_table(inst.nzcv_cond()) as u64),

            Op::Fadd | Op::Fsub | Op::Fmul | Op::Fdiv | Op::Fsqrt | Op::Fneg | Op::Fabs => {
                (code_of(double), b, 0)
            }
            Op::FcmpNzcv => (code_of(double), b, inst.aux_flag() as u64),
            Op::StoF | Op::UtoF => (code_of(double + 2 * (source() == Type::I64) as u16), b, 0),
            Op::Fpromote | Op::Fdemote => (code_of(0), b, 0),

            Op::Vsplat => (code::SPLAT, lane as u16, u64::MAX / mask(lane)),
            Op::Vscalar => (code::ZEXT128, b, mask(lane)),
            Op::Vlane => {
                let bit = inst.imm2 * lane;
                let a = a + (bit / 64) as u16;
                return self.step(code::BEXTRACT_U, d, a, (bit & 63) as u16, mask(lane));
            }
            Op::VsetLane => (code::SET_LANE, b, ((inst.imm2 * lane) | lane << 8) as u64),
            Op::Vshuffle => (code::SHUFFLE, b, self.pool(unit.pool[inst.imm as usize], 0)),
            Op::Vand => (code::VAND, b, 0),
            Op::Vor => (code::VOR, b, 0),
            Op::Vxor => (code::VXOR, b, 0),
            Op::VandNot => (code::VAND_NOT, b, 0),
            Op::Vnot => (code::VNOT, b, 0),
            Op::Vbitsel => (code::VBITSEL, b, c as u64),
            Op::Vicmp => (code::VCOMPARE, b, function(inst.aux as usize)),
            Op::Vfadd | Op::Vfsub | Op::Vfmul | Op::Vfdiv => (code_of(double_lanes), b, 0),

            // The rest has a row in a table, or is rare enough for the general way.
            op => {
                if let Some(row) = vector::binary_row(op) {
                    return self.step(code::VBINARY, d, a, b, function(row));
                }
                if let Some(row) = vector::unary_row(op) {
                    return self.step(code::VUNARY, d, a, b, function(row));
                }
                if let Some(row) = vector::shift_row(op) {
                    return self.step(code::VSHIFT, d, a, inst.imm2 as u16, function(row));
                }
                let head = EvalOp::of(inst, unit).head();
                let pair = unit.type_of(inst.dst).cells() == 2;
                let code = if pair { code::EVAL2 } else { code::EVAL };
                (code, b, head | (c as u64) << EvalOp::HEAD_BITS)
            }
        };
        self.step(code, d, a, b, imm);
    }

    /// A select of one cell. Each arm that [`super::analysis`] did not give a cell is a constant here.
    fn select(&mut self, i: u32, inst: &Inst) {
        let [cond, then, otherwise] = inst.args;
        let test = self.is(cond, FUSED).then(|| self.def(cond));
        let in_cell = |this: &Self, v| !this.is(v, CONST) || this.is(v, NEED_CELL);
        if let Some(test) = test
            && test.op == Op::Icmp
        {
            let operands = self.operands(&test);
            let [then, otherwise, _] = self.read([then, otherwise, Value::NONE], i);
            let [a, b] = self.read_operands(operands, i);
            let d = self.place(inst.dst);
            let table = cc_table(condition(&test, operands)) as u64;
            let variant = width(test.ty);
            return match operands.k {
                Some(k) => {
                    let imm = otherwise as u64 | table << 16 | k << 32;
                    self.step(code::select_icmp(variant + 4), d, a, then, imm);
                }
                None => {
                    let imm = then as u64 | (otherwise as u64) << 16 | table << 32;
                    self.step(code::select_icmp(variant), d, a, b, imm);
                }
            };
        }
        let (a, table) = match test {
            Some(test) => (test.args[0], Some(nzcv_table(test.nzcv_cond()) as u64)),
            None => (cond, None),
        };
        // With flags there is room for 32 bits of constant only.
        let folds = |this: &Self, v: Value| {
            this.constant(v).filter(|&k| table.is_none() || is_short(k, inst.ty))
        };
        let (arms, k, form) = if in_cell(self, then)
            && let Some(k) = folds(self, otherwise)
        {
            ([then, Value::NONE], k, 1)
        } else if let Some(k) = folds(self, then) {
            ([otherwise, Value::NONE], k, 2)
        } else {
            ([then, otherwise], 0, 0)
        };
        let [a, b, c] = self.read([a, arms[0], arms[1]], i);
        let d = self.place(inst.dst);
        match table {
            Some(table) => {
                let imm = c as u64 | table << 16 | k << 32;
                self.step(code::SELECT_NZCV + form, d, a, b, imm);
            }
            None => self.step(code::SELECT + form, d, a, b, c as u64 | k),
        }
    }

    // Memory and calls.

    /// The steps from here on belong to the current guest instruction.
    fn mark(&mut self) {
        if !self.marked {
            let d = self.s.steps.len() as u16;
            self.s.marks.push((d, self.pc));
            self.marked = true;
        }
    }

    /// Base cell, index cell, immediate and mode of a plain access.
    fn plain_address(&mut self, i: u32, inst: &Inst) -> (u16, u16, u64, u16) {
        let at = self.s.analysis.address(self.unit, inst);
        let [base, index, _] = self.read([at.base, at.index, Value::NONE], i);
        let wrap = if self.ty(inst.args[0]) == Type::I32 { address::WRAP32 } else { 0 };
        if at.index.is_none() {
            return (base, 0, at.offset as u64, address::BASE + wrap);
        }
        (base, index, (at.offset as u64) << 32 | at.shift as u64, address::INDEX + wrap)
    }

    fn load(&mut self, i: u32, inst: &Inst) {
        self.mark();
        match plain_kind(inst, self.s.analysis.mmu) {
            Some(kind) => {
                let (a, b, imm, mode) = self.plain_address(i, inst);
                let d = self.place(inst.dst);
                self.step(code::plain_load(kind, mode), d, a, b, imm);
            }
            None => {
                let wrap = (self.ty(inst.args[0]) == Type::I32) as u16;
                let [a, ..] = self.read(inst.args, i);
                let d = self.place(inst.dst);
                let b = inst.memop().0 | (inst.ty as u16) << 13;
                self.step(code::LOAD + wrap, d, a, b, inst.imm as u64);
            }
        }
    }

    fn store(&mut self, i: u32, inst: &Inst) {
        self.mark();
        let value = self.cell(inst.args[1]);
        match plain_kind(inst, self.s.analysis.mmu) {
            Some(kind) => {
                let (a, b, imm, mode) = self.plain_address(i, inst);
                self.step(code::plain_store(kind, mode), value, a, b, imm);
            }
            None => {
                let wrap = (self.ty(inst.args[0]) == Type::I32) as u16;
                let a = self.cell(inst.args[0]);
                self.step(code::STORE + wrap, value, a, inst.memop().0, inst.imm as u64);
                self.release(inst.args[0], i);
            }
        }
        self.release(inst.args[1], i);
    }

    fn atomic(&mut self, i: u32, inst: &Inst) {
        self.mark();
        let narrow = (self.ty(inst.args[0]) == Type::I32) as u64;
        let [a, b, c] = self.read(inst.args, i);
        let d = self.place(inst.dst);
        let op = inst.memop().0 as u64;
        if inst.op == Op::AtomicRmw {
            let imm = op | (inst.aux as u64) << 16 | narrow << 24;
            self.step(code::RMW, d, a, b, imm);
        } else {
            self.step(code::CAS, d, a, b, c as u64 | op << 16 | narrow << 32);
        }
    }

    fn call(&mut self, i: u32, inst: &Inst) {
        let helper = &self.helpers[inst.imm2 as usize];
        if helper.pure && !helper.may_trap {
            if inst.dst.is_none() || self.s.analysis.val(inst.dst).uses == 0 {
                return;
            }
        } else {
            self.step(code::CONST, CELL_PC, 0, 0, self.pc);
        }
        let [a, b, c] = self.read(inst.args, i);
        let d = self.place(inst.dst);
        let low = c as u64 | (inst.imm2 as u64) << 16;
        if inst.imm == inst.imm as i32 as i64 {
            self.step(code::CALL, d, a, b, low | (inst.imm as u64) << 32);
        } else {
            let imm = low | self.pool(inst.imm as u64 as u128, 32);
            self.step(code::CALL_WIDE, d, a, b, imm);
        }
    }

    // Control.

    /// The exit to which a block amounts.
    fn exit_of(&self, block: Block) -> Option<u64> {
        let info = self.s.analysis.blocks[block as usize];
        info.only_exit.then_some(info.exit as u64)
    }
    /// Notes that a field of the step about to be emitted holds a block number.
    fn refer(&mut self, block: Block, field: Field) {
        self.s.analysis.blocks[block as usize].needed = true;
        self.s.block_fixups.push((self.s.steps.len() as u32, field));
    }

    fn jump(&mut self, from: Block, to: Block) {
        if let Some(exit) = self.exit_of(to) {
            self.step(code::EXIT, 0, 0, 0, exit);
        } else if to == from + 1 {
            self.s.analysis.blocks[to as usize].needed = true;
        } else {
            self.refer(to, Field::Imm);
            self.step(code::JUMP, 0, 0, 0, to as u64);
        }
    }

    fn brif(&mut self, i: u32, inst: &Inst) {
        let cond = inst.args[0];
        let test = self.is(cond, FUSED).then(|| self.def(cond));
        let icmp = test.filter(|test| test.op == Op::Icmp).map(|test| {
            let operands = self.operands(&test);
            let (cc, negated) = code::branch_cc(condition(&test, operands));
            (width(test.ty), operands, cc, negated)
        });
        let (mut yes, mut no) = (inst.imm2, inst.imm as Block);
        if icmp.is_some_and(|(.., negated)| negated) {
            (yes, no) = (no, yes);
        }
        let register = icmp.is_some_and(|(_, operands, ..)| operands.k.is_none());
        // Both targets are exits, or both are steps.
        let (exits, yes, no) = match (self.exit_of(yes), self.exit_of(no)) {
            (Some(yes), Some(no)) => (true, yes, no),
            _ => {
                self.refer(yes, Field::D);
                self.refer(no, if register { Field::Imm } else { Field::B });
                (false, yes as u64, no as u64)
            }
        };
        let d = u16::try_from(yes).expect("unit has too many blocks");
        let b = u16::try_from(no).expect("unit has too many blocks");
        match (icmp, test) {
            (Some((variant, operands, cc, _)), _) => {
                let [a, rhs] = self.read_operands(operands, i);
                match operands.k {
                    Some(k) => {
                        self.step(code::branch_icmp(cc, variant + 4, exits), d, a, b, k);
                    }
                    None => self.step(code::branch_icmp(cc, variant, exits), d, a, rhs, no),
                }
            }
            (None, Some(test)) => {
                let [a, ..] = self.read([test.args[0], Value::NONE, Value::NONE], i);
                let table = nzcv_table(test.nzcv_cond()) as u64;
                self.step(code::BRANCH_NZCV + exits as u16, d, a, b, table);
            }
            (None, None) => {
                let [a, ..] = self.read([cond, Value::NONE, Value::NONE], i);
                self.step(code::BRANCH + exits as u16, d, a, b, 0);
            }
        }
    }

    fn exit_indirect(&mut self, block: Block, i: u32, inst: &Inst) {
        let site = self.s.analysis.blocks[block as usize].exit as u16;
        let [pc, ret, flags] = inst.args;
        let kind = inst.aux as u16;
        let constant = if ret.is_none() { None } else { self.constant(ret) };
        let [a, b, c] = self.read(inst.args, i);
        if ret.is_none() && flags.is_none() {
            self.step(code::INDIRECT, kind, a, site, 0);
        } else if let Some(ret) = constant
            && flags.is_none()
        {
            self.step(code::INDIRECT_RET, kind, a, site, ret);
        } else {
            let present = (!ret.is_none()) as u64 | (!flags.is_none() as u64) << 1;
            let imm = b as u64 | (c as u64) << 16 | present << 32;
            self.step(code::INDIRECT_FULL, kind, a, site, imm);
        }
        debug_assert!(!pc.is_none() && self.s.analysis.blocks[block as usize].exit != NONE);
    }
}

/// 0 to 3 for I8 to I64.
fn width(ty: Type) -> u16 {
    debug_assert!(ty.is_int() && ty != Type::I128);
    ty as u16
}
const _: () = assert!(Type::I8 as u16 == 0 && Type::I64 as u16 == 3);

/// The condition of a comparison whose operands may have been exchanged.
fn condition(inst: &Inst, operands: Operands) -> IntCc {
    if !operands.swapped {
        return inst.int_cc();
    }
    match inst.int_cc() {
        IntCc::LtS => IntCc::GtS,
        IntCc::LeS => IntCc::GeS,
        IntCc::GtS => IntCc::LtS,
        IntCc::GeS => IntCc::LeS,
        IntCc::LtU => IntCc::GtU,
        IntCc::LeU => IntCc::GeU,
        IntCc::GtU => IntCc::LtU,
        IntCc::GeU => IntCc::LeU,
        same @ (IntCc::Eq | IntCc::Ne) => same,
    }
}
