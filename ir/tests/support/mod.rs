//! The plainest way to run a unit: instruction by instruction over the [`Unit`] itself, pure operations through
//! `eval`. It knows nothing of bytecode, fused slots or fast paths, so the interpreter is compared with it.

use tulk_base::{CpuState, GuestMem, GuestVa, Trap};
use tulk_ir::filetest::env::{HELPERS, TestEnv, layout};
use tulk_ir::filetest::{Outcome, Runner};
use tulk_ir::interp::eval::{EvalOp, eval};
use tulk_ir::{ExitKind, HelperCx, Inst, Op, RegLayout, Type, Unit, Value};

pub struct Reference {
    layout: RegLayout,
}

impl Default for Reference {
    fn default() -> Self {
        Reference { layout: layout() }
    }
}

impl Runner for Reference {
    fn run(&mut self, unit: &Unit, state: &mut CpuState, env: &mut TestEnv) -> Outcome {
        let mut walk = Walk {
            unit,
            layout: &self.layout,
            values: vec![0; unit.values.len()],
            locals: vec![0; unit.locals.len()],
            insn_pc: unit.pc,
        };
        // What may fault belongs to the last marker before it in the text.
        let mut pc = unit.pc;
        let guest_pcs: Vec<u64> = (unit.insts.iter())
            .map(|inst| {
                pc = if inst.op == Op::Insn { inst.imm as u64 } else { pc };
                pc
            })
            .collect();
        let mut at = 0;
        loop {
            let inst = &unit.insts[at];
            walk.insn_pc = guest_pcs[at];
            at += 1;
            match walk.step(inst, state, env) {
                Ok(None) => {}
                Ok(Some(Next::Block(block))) => at = unit.blocks[block as usize] as usize,
                Ok(Some(Next::Left(outcome))) => return outcome,
                Err(trap) => return Outcome::Trap(trap),
            }
        }
    }
    fn has_float_environment(&self) -> bool {
        false
    }
}

enum Next {
    Block(u32),
    Left(Outcome),
}

struct Walk<'a> {
    unit: &'a Unit,
    layout: &'a RegLayout,
    values: Vec<u128>,
    locals: Vec<u128>,
    /// Address of the guest instruction.
    insn_pc: u64,
}

fn low_bits(value: u128, ty: Type) -> u128 {
    value & (u128::MAX >> (128 - ty.bits()))
}

impl Walk<'_> {
    fn value(&self, v: Value) -> u128 {
        if v.is_none() { 0 } else { self.values[v.0 as usize] }
    }

    fn address(&self, inst: &Inst) -> GuestVa {
        let sum = (self.value(inst.args[0]) as u64).wrapping_add(inst.imm as u64);
        let narrow = self.unit.type_of(inst.args[0]) == Type::I32;
        GuestVa(if narrow { sum as u32 as u64 } else { sum })
    }

    fn step(
        &mut self,
        inst: &Inst,
        state: &mut CpuState,
        env: &mut TestEnv,
    ) -> Result<Option<Next>, Trap> {
        let [a, b, c] = inst.args.map(|v| self.value(v));
        let ty = inst.ty;
        let wide = inst.memop().bytes() == 16;
        let mut fault = |f| {
            state.set_pc(self.insn_pc);
            Trap::Mem(f)
        };
        let result = match inst.op {
            Op::Get => match inst.slot().as_local() {
                Some(n) => self.locals[n as usize],
                None if ty.cells() == 2 => state.get128(self.layout.cell(inst.slot())),
                None => state.get(self.layout.cell(inst.slot())) as u128,
            },
            Op::Set => {
                match inst.slot().as_local() {
                    Some(n) => self.locals[n as usize] = a,
                    None if ty.cells() == 2 => state.set128(self.layout.cell(inst.slot()), a),
                    None => state.set(self.layout.cell(inst.slot()), a as u64),
                }
                return Ok(None);
            }
            Op::Load if wide => env.load128(self.address(inst), inst.memop()).map_err(fault)?,
            Op::Load => env.load(self.address(inst), inst.memop()).map_err(fault)? as u128,
            Op::Store if wide => {
                env.store128(self.address(inst), inst.memop(), b).map_err(fault)?;
                return Ok(None);
            }
            Op::Store => {
                env.store(self.address(inst), inst.memop(), b as u64).map_err(fault)?;
                return Ok(None);
            }
            Op::AtomicRmw => {
                let va = self.address(inst);
                env.rmw(va, inst.memop(), inst.rmw(), b as u64).map_err(&mut fault)? as u128
            }
            Op::AtomicCas => env.cas(self.address(inst), inst.memop(), b, c).map_err(fault)?,
            Op::Insn | Op::Fence => return Ok(None),
            Op::Call => {
                state.set_pc(self.insn_pc);
                let helper = &HELPERS[inst.imm2 as usize];
                let imm = inst.imm as u64 as u128;
                (helper.func)(&mut HelperCx { state, env }, &[a, b, c, imm])?
            }
            Op::Jump => return Ok(Some(Next::Block(inst.imm2))),
            Op::Brif => {
                let to = if a != 0 { inst.imm2 } else { inst.imm as u32 };
                return Ok(Some(Next::Block(to)));
            }
            Op::ExitDirect | Op::ExitIndirect => {
                let direct = inst.op == Op::ExitDirect;
                let (pc, ret) = if direct { (inst.imm as u64, 0) } else { (a as u64, 1) };
                let is_call = inst.exit_kind() == ExitKind::Call;
                let ret = is_call.then(|| self.value(inst.args[ret]) as u64);
                let flags = if direct { (inst.args[1], b) } else { (inst.args[2], c) };
                let flags = (!flags.0.is_none()).then_some(flags.1 as u64);
                let hint = Some((inst.exit_kind(), ret));
                return Ok(Some(Next::Left(Outcome::Exit { pc, flags, hint })));
            }
            Op::ExitTrap => {
                state.set_pc(inst.imm as u64);
                return Err(inst.exit_kind().trap(inst.imm2).expect("a kind of trap"));
            }
            _ => {
                let op = EvalOp::of(inst, self.unit);
                eval(&op, [a, b, c], env)
            }
        };
        if !inst.dst.is_none() {
            self.values[inst.dst.0 as usize] = low_bits(result, self.unit.type_of(inst.dst));
        }
        Ok(None)
    }
}
