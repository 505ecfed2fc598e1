//! A plain walk over IR: one instruction after the other, values in a table, pure operations by `eval`.

use super::machine::with_float_unit;
use std::collections::HashMap;
use tulk_base::{CpuState, GuestMem, GuestVa, Trap};
use tulk_ir::filetest::env::{HELPERS, TestEnv, layout};
use tulk_ir::filetest::{Outcome, Runner};
use tulk_ir::interp::eval::{EvalOp, eval};
use tulk_ir::{ExitKind, HelperCx, Inst, Op, RegLayout, Round, Type, Unit};

pub struct Reference {
    /// Rounding mode of runs, if not the environment's.
    pub round: Option<Round>,
    layout: RegLayout,
    /// The next stores that are left out.
    done: u8,
    /// Where walks were at the last passage of each guest instruction.
    trail: HashMap<u64, Place>,
}

/// A position in a unit, with what the walk knew there besides the state.
#[derive(Clone)]
struct Place {
    at: usize,
    values: Vec<u128>,
    locals: Vec<u128>,
}

impl Reference {
    pub fn new() -> Reference {
        Reference { round: None, layout: layout(), done: 0, trail: HashMap::new() }
    }

    /// Forgets where walks were.
    pub fn start(&mut self) {
        self.done = 0;
        self.trail.clear();
    }

    /// Walks on in the unit from the instruction at the state's pc, which has been passed since [`Reference::start`], and leaves
    /// out the first `done` stores, also in units that come next.
    pub fn resume(
        &mut self,
        unit: &Unit,
        state: &mut CpuState,
        env: &mut TestEnv,
        done: u8,
    ) -> Outcome {
        self.done = done;
        let place = self.trail[&state.pc()].clone();
        with_float_unit(env, |env| self.walk(unit, place, state, env))
    }

    fn walk(
        &mut self,
        unit: &Unit,
        from: Place,
        state: &mut CpuState,
        env: &mut TestEnv,
    ) -> Outcome {
        let Place { mut at, mut values, mut locals } = from;
        let mut pc = unit.pc;
        loop {
            let inst = &unit.insts[at];
            if inst.op == Op::Insn {
                let place = Place { at, values: values.clone(), locals: locals.clone() };
                self.trail.insert(inst.imm as u64, place);
            }
            at += 1;
            let args = inst.args.map(|a| if a.is_none() { 0 } else { values[a.0 as usize] });
            // A block may start in the middle of a guest instruction.
            let mut enter = |block: u32| {
                at = unit.blocks[block as usize] as usize;
                let open = unit.insts[..at].iter().rev().find(|i| i.op == Op::Insn);
                pc = open.map_or(unit.pc, |i| i.imm as u64);
            };
            let result = match inst.op {
                Op::Get => Ok(match inst.slot().as_local() {
                    Some(n) => locals[n as usize],
                    None => {
                        let def = self.layout.def(inst.slot());
                        state.get128(def.cell) & mask(def.ty)
                    }
                }),
                Op::Set => {
                    match inst.slot().as_local() {
                        Some(n) => locals[n as usize] = args[0],
                        None => {
                            let def = self.layout.def(inst.slot());
                            if def.ty.bytes() == 16 {
                                state.set128(def.cell, args[0]);
                            } else {
                                state.set(def.cell, args[0] as u64);
                            }
                        }
                    }
                    Ok(0)
                }
                Op::Insn => {
                    pc = inst.imm as u64;
                    Ok(0)
                }
                Op::Store if self.done != 0 => {
                    self.done -= 1;
                    Ok(0)
                }
                Op::Load | Op::Store | Op::AtomicRmw | Op::AtomicCas => {
                    access(unit, inst, args, env)
                }
                Op::Fence => Ok(0),
                Op::Call => {
                    state.set_pc(pc);
                    let args = [args[0], args[1], args[2], inst.imm as u64 as u128];
                    (HELPERS[inst.imm2 as usize].func)(&mut HelperCx { state, env }, &args)
                }
                Op::Jump => {
                    enter(inst.imm2);
                    continue;
                }
                Op::Brif => {
                    enter(if args[0] as u8 != 0 { inst.imm2 } else { inst.imm as u32 });
                    continue;
                }
                Op::ExitDirect => {
                    let flags = (!inst.args[1].is_none()).then_some(args[1] as u64);
                    return Outcome::Exit { pc: inst.imm as u64, flags, hint: None };
                }
                Op::ExitIndirect => {
                    let flags = (!inst.args[2].is_none()).then_some(args[2] as u64);
                    let hint = Some((inst.exit_kind(), None));
                    return Outcome::Exit { pc: args[0] as u64, flags, hint };
                }
                Op::ExitTrap => {
                    state.set_pc(inst.imm as u64);
                    let kind: ExitKind = inst.exit_kind();
                    return Outcome::Trap(kind.trap(inst.imm2).expect("a trap"));
                }
                _ => Ok(eval(&EvalOp::of(inst, unit), args, env)),
            };
            match result {
                Ok(value) if !inst.dst.is_none() => {
                    values[inst.dst.0 as usize] = value & mask(unit.type_of(inst.dst));
                }
                Ok(_) => {}
                Err(trap) => {
                    state.set_pc(pc);
                    return Outcome::Trap(trap);
                }
            }
        }
    }
}

fn mask(ty: Type) -> u128 {
    u128::MAX >> (128 - ty.bits())
}

fn access(unit: &Unit, inst: &Inst, args: [u128; 3], env: &mut TestEnv) -> Result<u128, Trap> {
    let op = inst.memop();
    let offset = if matches!(inst.op, Op::Load | Op::Store) { inst.imm as u64 } else { 0 };
    let address = (args[0] as u64).wrapping_add(offset);
    let narrow = unit.type_of(inst.args[0]) == Type::I32;
    let va = GuestVa(if narrow { address as u32 as u64 } else { address });
    Ok(match inst.op {
        Op::Load if op.bytes() == 16 => env.load128(va, op)?,
        Op::Load => env.load(va, op)? as u128,
        Op::Store => {
            env.store128(va, op, args[1])?;
            0
        }
        Op::AtomicRmw => env.rmw(va, op, inst.rmw(), args[1] as u64)? as u128,
        _ => env.cas(va, op, args[1], args[2])?,
    })
}

impl Runner for Reference {
    fn run(&mut self, unit: &Unit, state: &mut CpuState, env: &mut TestEnv) -> Outcome {
        env.round = self.round.unwrap_or(env.round);
        let values = vec![0u128; unit.values.len()];
        let start = Place { at: 0, values, locals: vec![0u128; unit.locals.len()] };
        with_float_unit(env, |env| self.walk(unit, start, state, env))
    }
    fn has_float_environment(&self) -> bool {
        true
    }
}
