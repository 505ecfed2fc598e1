//! Runs a test program on our side: its memory, its few system calls, and the effect of its signal handler.
//!
//! The units run either on the interpreter, or step by step with each operation's reference meaning
//! (`ir::interp::eval`), which is slow but has nothing that could go wrong twice.

use super::elf::{EXEC, READ, Segment, WRITE};
use super::host_float;
use super::program::{BLOCK_PC, BLOCK_RESUME, BLOCK_SIGNAL};
use std::collections::HashMap;
use tulk_arm::a64::{Aarch64, regs};
use tulk_base::{
    AccessKind, CpuState, FaultCause, GuestMem, GuestVa, MemFault, MemOp, RmwOp, Trap,
};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::interp::eval::{EvalOp, eval};
use tulk_ir::interp::{self, Outcome, Program};
use tulk_ir::{ExitKind, FpEnv, FpFlags, HelperCx, HelperEnv, Op, Round, Slot, Type, Unit, Value};

/// The outside world of the guest.
pub struct World {
    segments: Vec<Segment>,
}

impl World {
    /// The bytes at `va`, if one segment with these permissions holds them all.
    fn find(&mut self, va: u64, len: usize, need: u32) -> Option<&mut [u8]> {
        let s = self
            .segments
            .iter_mut()
            .find(|s| va >= s.va && (va - s.va) < s.bytes.len().next_multiple_of(4096) as u64)?;
        let at = (va - s.va) as usize;
        if s.flags & need != need || at + len > s.bytes.len() {
            None
        } else {
            Some(&mut s.bytes[at..at + len])
        }
    }

    fn access(&mut self, va: GuestVa, op: MemOp, kind: AccessKind) -> Result<&mut [u8], MemFault> {
        if !va.is_aligned(op.align_bytes() as u64) {
            return Err(MemFault { va, kind, cause: FaultCause::Align });
        }
        let need = if kind == AccessKind::Write { WRITE } else { READ };
        self.find(va.0, op.bytes() as usize, need).ok_or(MemFault {
            va,
            kind,
            cause: FaultCause::Unmapped,
        })
    }

    fn read(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        let bytes = self.access(va, op, AccessKind::Read)?;
        Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | *b as u128))
    }

    fn write(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        let bytes = self.access(va, op, AccessKind::Write)?;
        let len = bytes.len();
        bytes.copy_from_slice(&value.to_le_bytes()[..len]);
        Ok(())
    }
}

impl GuestMem for World {
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        let value = self.read(va, op)? as u64;
        let unused = 64 - 8 * op.bytes();
        Ok(if op.signed() { ((value << unused) as i64 >> unused) as u64 } else { value })
    }
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        self.write(va, op, value as u128)
    }
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        self.read(va, op)
    }
    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        self.write(va, op, value)
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, operand: u64) -> Result<u64, MemFault> {
        self.access(va, op, AccessKind::Write)?;
        let old = self.read(va, op)? as u64;
        let unused = 64 - 8 * op.bytes();
        let (a, b) = (old << unused, operand << unused);
        let new = match rmw {
            RmwOp::Xchg => b,
            RmwOp::Add => a.wrapping_add(b),
            RmwOp::Sub => a.wrapping_sub(b),
            RmwOp::And => a & b,
            RmwOp::AndNot => a & !b,
            RmwOp::Or => a | b,
            RmwOp::Xor => a ^ b,
            RmwOp::MinS => (a as i64).min(b as i64) as u64,
            RmwOp::MaxS => (a as i64).max(b as i64) as u64,
            RmwOp::MinU => a.min(b),
            RmwOp::MaxU => a.max(b),
        };
        self.write(va, op, (new >> unused) as u128)?;
        Ok(old)
    }
    fn cas(&mut self, va: GuestVa, op: MemOp, expected: u128, new: u128) -> Result<u128, MemFault> {
        self.access(va, op, AccessKind::Write)?;
        let old = self.read(va, op)?;
        if old == expected & (u128::MAX >> (128 - 8 * op.bytes())) {
            self.write(va, op, new)?;
        }
        Ok(old)
    }
}

impl FpEnv for World {
    fn fp_flags(&mut self) -> FpFlags {
        host_float::flags()
    }
    fn set_fp_flags(&mut self, flags: FpFlags) {
        host_float::set_flags(flags);
    }
    fn fp_round(&mut self) -> Round {
        host_float::round()
    }
    fn set_fp_mode(&mut self, round: Round, daz: bool, ftz: bool) {
        assert!(!daz && !ftz, "Arm's flushing is not the host's");
        host_float::set_round(round);
    }
}

impl HelperEnv for World {
    fn invalidate_code(&mut self, _start: GuestVa, _len: u64) {}
    fn clock_ns(&mut self) -> u64 {
        1
    }
    fn processor_id(&mut self) -> u32 {
        0
    }
    fn random(&mut self, out: &mut [u8]) {
        out.fill(0x5a);
    }
}

impl CodeReader for World {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let Some(s) = self
            .segments
            .iter()
            .find(|s| s.flags & EXEC != 0 && va.0 >= s.va && va.0 < s.va + s.bytes.len() as u64)
        else {
            return 0;
        };
        let from = &s.bytes[(va.0 - s.va) as usize..];
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        n
    }
}

/// What runs the units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    Interpreter,
    Reference,
}

/// How a unit is left.
enum Left {
    To(u64),
    Trap(Trap),
}

pub struct Machine<'a> {
    isa: &'a Aarch64,
    pub state: Box<CpuState>,
    pub world: World,
    tier: Tier,
    units: HashMap<TbKey, (Unit, Program)>,
    output: Vec<u8>,
}

impl<'a> Machine<'a> {
    pub fn new(isa: &'a Aarch64, tier: Tier, entry: u64, segments: Vec<Segment>) -> Machine<'a> {
        let mut state = CpuState::new();
        isa.reset(&mut state);
        state.set_pc(entry);
        host_float::reset();
        let world = World { segments };
        Machine { isa, tier, state, world, units: HashMap::new(), output: Vec::new() }
    }

    /// Runs the program until it exits; what it wrote, or the trap that it could not handle.
    pub fn run(mut self) -> Result<Vec<u8>, String> {
        let result = self.run_to_exit();
        host_float::reset();
        result
    }

    fn run_to_exit(&mut self) -> Result<Vec<u8>, String> {
        loop {
            match self.step() {
                Trap::Syscall(_) => match self.x(8) {
                    64 => {
                        let (va, len) = (self.x(1), self.x(2) as usize);
                        let bytes =
                            self.world.find(va, len, READ).ok_or("write of unmapped memory")?;
                        self.output.extend_from_slice(bytes);
                        self.set_x(0, len as u64);
                    }
                    94 => return Ok(std::mem::take(&mut self.output)),
                    132 | 134 => self.set_x(0, 0),
                    n => return Err(format!("unknown system call {n}")),
                },
                Trap::Resync => {}
                Trap::Mem(fault) if self.isa.retry_fault(&mut self.state, &fault) => {}
                trap => self.signal(trap)?,
            }
        }
    }

    fn x(&self, n: usize) -> u64 {
        self.state.get(regs::cell(regs::X[n]))
    }

    fn set_x(&mut self, n: usize, value: u64) {
        self.state.set(regs::cell(regs::X[n]), value);
    }

    /// What the program's signal handler does.
    fn signal(&mut self, trap: Trap) -> Result<(), String> {
        let number = match trap {
            Trap::Illegal => 4,
            Trap::Breakpoint(_) => 5,
            Trap::Mem(MemFault { cause: FaultCause::Align, .. }) => 7,
            Trap::Mem(_) => 11,
            other => return Err(format!("trap {other:?} at {:#x}", self.state.pc())),
        };
        let block = GuestVa(self.x(30));
        let broken = |f: MemFault| format!("x30 lost: {trap:?}, then {f:?}");
        let pc = self.state.pc();
        let at = |offset: u32| block.wrapping_add(offset as u64);
        self.world.store(at(BLOCK_SIGNAL), MemOp::U64, number).map_err(broken)?;
        self.world.store(at(BLOCK_PC), MemOp::U64, pc).map_err(broken)?;
        let resume = self.world.load(at(BLOCK_RESUME), MemOp::U64).map_err(broken)?;
        self.state.set_pc(resume);
        // The kernel's return from the signal clears the monitor.
        self.state.set(regs::cell(regs::EXCL_ADDR), u64::MAX);
        Ok(())
    }

    /// Runs units until a trap.
    pub fn step(&mut self) -> Trap {
        loop {
            let key = self.isa.tb_key(&self.state);
            if !self.units.contains_key(&key) {
                let mut unit = Unit::new(0, 0, self.isa.fp_rule());
                let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
                self.isa.lift(key, &mut self.world, limits, &mut unit);
                let program = Program::new(&unit, self.isa.layout(), self.isa.helpers());
                self.units.insert(key, (unit, program));
            }
            let (unit, program) = &self.units[&key];
            if unit.len == 0 {
                return Trap::Mem(MemFault {
                    va: key.pc,
                    kind: AccessKind::Exec,
                    cause: FaultCause::Unmapped,
                });
            }
            let left = match self.tier {
                Tier::Reference => walk(self.isa, unit, &mut self.state, &mut self.world),
                Tier::Interpreter => {
                    let helpers = self.isa.helpers();
                    match interp::run(program, &mut self.state, helpers, &mut self.world) {
                        Outcome::Direct(n) => Left::To(program.exit(n as usize).pc),
                        Outcome::Indirect { pc, .. } => Left::To(pc),
                        Outcome::Trap(trap) => Left::Trap(trap),
                    }
                }
            };
            match left {
                Left::To(pc) => self.state.set_pc(pc),
                Left::Trap(trap) => return trap,
            }
        }
    }
}

/// Runs one unit by the reference meaning of its operations.
fn walk(isa: &Aarch64, unit: &Unit, state: &mut CpuState, world: &mut World) -> Left {
    let mut values = vec![0u128; unit.values.len()];
    let mut locals = vec![0u128; unit.locals.len()];
    let mut at = 0;
    loop {
        let inst = &unit.insts[at];
        at += 1;
        let arg = |n: usize| {
            let v: Value = inst.args[n];
            if v.is_none() { 0 } else { values[v.0 as usize] }
        };
        let addr = |n: usize| GuestVa((arg(n) as u64).wrapping_add(inst.imm as u64));
        let wide = |ty: Type| ty.bytes() == 16;
        let result = match inst.op {
            Op::Insn => {
                state.set_pc(inst.imm as u64);
                Ok(0)
            }
            Op::Get => Ok(match inst.slot().as_local() {
                Some(n) => locals[n as usize],
                None => get(isa, state, inst.slot()),
            }),
            Op::Set => {
                match inst.slot().as_local() {
                    Some(n) => locals[n as usize] = arg(0),
                    None => set(isa, state, inst.slot(), arg(0)),
                }
                Ok(0)
            }
            Op::Load if wide(inst.ty) => world.load128(addr(0), inst.memop()),
            Op::Load => world.load(addr(0), inst.memop()).map(|v| truncate(inst.ty, v as u128)),
            Op::Store if wide(inst.ty) => world.store128(addr(0), inst.memop(), arg(1)).map(|()| 0),
            Op::Store => world.store(addr(0), inst.memop(), arg(1) as u64).map(|()| 0),
            Op::AtomicRmw => world
                .rmw(GuestVa(arg(0) as u64), inst.memop(), inst.rmw(), arg(1) as u64)
                .map(|v| v as u128),
            Op::AtomicCas => world.cas(GuestVa(arg(0) as u64), inst.memop(), arg(1), arg(2)),
            Op::Fence => Ok(0),
            Op::Call => {
                let helper = &isa.helpers()[inst.imm2 as usize];
                let args = [arg(0), arg(1), arg(2), inst.imm as u64 as u128];
                let mut cx = HelperCx { state, env: world };
                match (helper.func)(&mut cx, &args) {
                    Ok(v) => Ok(helper.ret.map_or(0, |ty| truncate(ty, v))),
                    Err(trap) => return Left::Trap(trap),
                }
            }
            Op::Jump => {
                at = unit.block_range(inst.imm2).start;
                Ok(0)
            }
            Op::Brif => {
                let to = if arg(0) as u8 != 0 { inst.imm2 } else { inst.imm as u32 };
                at = unit.block_range(to).start;
                Ok(0)
            }
            Op::ExitDirect => return Left::To(inst.imm as u64),
            Op::ExitIndirect => return Left::To(arg(0) as u64),
            Op::ExitTrap => {
                state.set_pc(inst.imm as u64);
                let kind: ExitKind = inst.exit_kind();
                return Left::Trap(kind.trap(inst.imm2).expect("a trap's kind"));
            }
            _ => Ok(eval(&EvalOp::of(inst, unit), [arg(0), arg(1), arg(2)], world)),
        };
        match result {
            Ok(v) if !inst.dst.is_none() => values[inst.dst.0 as usize] = v,
            Ok(_) => {}
            Err(fault) => return Left::Trap(Trap::Mem(fault)),
        }
    }
}

fn truncate(ty: Type, value: u128) -> u128 {
    value & (u128::MAX >> (128 - ty.bits()))
}

fn get(isa: &Aarch64, state: &CpuState, slot: Slot) -> u128 {
    let def = isa.layout().def(slot);
    if def.ty.cells() == 2 {
        state.get128(def.cell)
    } else {
        truncate(def.ty, state.get(def.cell) as u128)
    }
}

fn set(isa: &Aarch64, state: &mut CpuState, slot: Slot, value: u128) {
    let def = isa.layout().def(slot);
    if def.ty.cells() == 2 {
        state.set128(def.cell, value)
    } else {
        state.set(def.cell, value as u64)
    }
}
