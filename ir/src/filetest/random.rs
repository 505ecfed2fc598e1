//! Random valid units over the test machine, for comparing two ways of running the same thing: before and
//! after the passes, interpreter and generated code.

use super::env::{HELPERS, TestEnv, layout};
use super::{Outcome, Runner, read_slot, write_slot};
use crate::layout::{RegLayout, Slot};
use crate::op::{Arg, Aux, Class, Imm, Op, OpInfo, Res, effect};
use crate::printer::{aux_flag_name, aux_names};
use crate::types::*;
use crate::unit::{ExitKind, Inst, Unit, Value};
use crate::verifier::shapes;
use tulk_base::{CpuState, MemAlign, MemOp, MemOrder};

/// A small generator of random numbers (splitmix64); equal seeds give equal units.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }
    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
    /// Bits that hit special cases more often than chance.
    pub fn bits(&mut self, ty: Type) -> u128 {
        let mut lane = || match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => self.below(40) as u64,
            4 => (self.below(40) as u64).wrapping_neg(),
            5 => ((self.below(400) as f64 - 200.0) / 8.0).to_bits(),
            6 => {
                let single = ((self.below(400) as f32 - 200.0) / 8.0).to_bits();
                single as u64 | (self.pick(&SPECIAL_F32) as u64) << 32
            }
            _ => match self.below(4) {
                0 => self.pick(&SPECIAL_F64),
                1 => self.pick(&SPECIAL_F32) as u64,
                _ => self.word(),
            },
        };
        let bits = lane() as u128 | (lane() as u128) << 64;
        bits & u128::MAX >> (128 - ty.bits())
    }
}

const SPECIAL_F32: [u32; 10] = [
    0x8000_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7f80_0001,
    0xffc0_1234,
    0x0000_0001,
    0x007f_ffff,
    0x7f7f_ffff,
    0x3f80_0000,
];
const SPECIAL_F64: [u64; 10] = [
    1 << 63,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0xfff8_0000_0000_1234,
    1,
    0x000f_ffff_ffff_ffff,
    0x7fef_ffff_ffff_ffff,
    0x3ff0_0000_0000_0000,
];

/// Which operations a random unit may have.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Instructions, roughly.
    pub size: usize,
    /// Operations that raise float flags or depend on the rounding mode.
    pub floats: bool,
    pub memory: bool,
    pub calls: bool,
}

/// A valid unit at pc 0x1000.
pub fn unit(rng: &mut Rng, options: &Options) -> Unit {
    let rule = rng.pick(FpRule::ALL);
    let mut g = Generator {
        unit: Unit::new(0x1000, 0, rule),
        layout: layout(),
        ops: Op::ALL.iter().copied().filter(|&op| allowed(op, options)).collect(),
        values: Vec::new(),
        truths: Vec::new(),
        rng,
        options,
    };
    g.generate();
    g.unit
}

fn allowed(op: Op, options: &Options) -> bool {
    let effects = op.info().effects;
    match op {
        Op::Call => options.calls,
        Op::Insn | Op::Jump | Op::Brif => false,
        Op::ExitDirect | Op::ExitIndirect | Op::ExitTrap => false,
        _ if effects & effect::FAULT != 0 => options.memory,
        _ if effects & effect::FLAGS != 0 => options.floats,
        _ => true,
    }
}

struct Generator<'a> {
    unit: Unit,
    layout: RegLayout,
    ops: Vec<Op>,
    /// Values of the open block.
    values: Vec<Value>,
    /// Those that are 0 or 1.
    truths: Vec<Value>,
    rng: &'a mut Rng,
    options: &'a Options,
}

const INTS: [Type; 5] = [Type::I8, Type::I16, Type::I32, Type::I64, Type::I128];

impl Generator<'_> {
    fn generate(&mut self) {
        let blocks = 1 + self.rng.below(4) as u32;
        let locals: Vec<Type> = (0..self.rng.below(3)).map(|_| self.rng.pick(Type::ALL)).collect();
        for block in 0..blocks {
            self.unit.blocks.push(self.unit.insts.len() as u32);
            self.values.clear();
            self.truths.clear();
            // As in lifted units, a block belongs to the instruction that the text says.
            self.marker();
            if block == 0 {
                for (n, &ty) in locals.iter().enumerate() {
                    let value = self.fresh(ty);
                    self.access(Op::Set, Slot::local(n as u16), ty, value);
                }
                // From here on they may be read.
                self.unit.locals = locals.clone();
            }
            for _ in 0..1 + self.rng.below(self.options.size / blocks as usize + 1) {
                if self.rng.one_in(5) {
                    self.marker();
                }
                self.random_inst();
            }
            self.end(block, blocks);
        }
        self.unit.len = 4 * self.unit.guest_insns;
    }

    fn marker(&mut self) {
        let imm = 0x1000 + 4 * self.unit.guest_insns as i64;
        self.unit.guest_insns += 1;
        self.push(Inst { imm, imm2: 4, ..Inst::new(Op::Insn, Type::I64) });
    }

    fn push(&mut self, mut inst: Inst) -> Value {
        let ty = match inst.op.info().result {
            Res::None => None,
            Res::Own => Some(inst.ty),
            Res::Bool => Some(Type::I8),
            Res::I32 => Some(Type::I32),
            Res::I64 => Some(Type::I64),
            Res::I128 => Some(Type::I128),
            Res::V128 => Some(Type::V128),
            Res::Helper => HELPERS[inst.imm2 as usize].ret,
        };
        if let Some(ty) = ty {
            inst.dst = Value(self.unit.values.len() as u16);
            self.unit.values.push(ty);
            self.values.push(inst.dst);
            if inst.op.info().result == Res::Bool {
                self.truths.push(inst.dst);
            }
        }
        self.unit.insts.push(inst);
        inst.dst
    }

    fn access(&mut self, op: Op, slot: Slot, ty: Type, value: Value) -> Value {
        let args = [value, Value::NONE, Value::NONE];
        self.push(Inst { imm2: slot.0 as u32, args, ..Inst::new(op, ty) })
    }

    fn iconst(&mut self, ty: Type, imm: i64) -> Value {
        self.push(Inst { imm, ..Inst::new(Op::Iconst, ty) })
    }

    fn op(&mut self, op: Op, ty: Type, args: &[Value]) -> Value {
        let mut all = [Value::NONE; 3];
        all[..args.len()].copy_from_slice(args);
        self.push(Inst { args: all, ..Inst::new(op, ty) })
    }

    /// A slot or local of this type.
    fn slot(&mut self, ty: Type) -> Slot {
        let locals = self.unit.locals.iter().enumerate().filter(|(_, l)| **l == ty);
        let locals = locals.map(|(n, _)| Slot::local(n as u16));
        let slots = self.layout.slots().iter().enumerate().filter(|(_, s)| s.ty == ty);
        let mut all: Vec<Slot> = locals.chain(slots.map(|(n, _)| Slot(n as u16))).collect();
        // Few slots, so that units meet them again.
        all.truncate(5);
        self.rng.pick(&all)
    }

    /// A new value of this type, from a slot or a constant.
    fn fresh(&mut self, ty: Type) -> Value {
        if self.rng.one_in(2) || ty == Type::I128 {
            let slot = self.slot(ty);
            return self.access(Op::Get, slot, ty, Value::NONE);
        }
        let bits = self.rng.bits(ty);
        match ty {
            Type::V128 => {
                let imm = crate::passes::intern(&mut self.unit.pool, bits);
                self.push(Inst { imm, ..Inst::new(Op::Vconst, ty) })
            }
            Type::F32 | Type::F64 => {
                let int = if ty == Type::F32 { Type::I32 } else { Type::I64 };
                let bits = self.iconst(int, bits as i64);
                self.op(Op::Bitcast, ty, &[bits])
            }
            _ => self.iconst(ty, bits as i64),
        }
    }

    fn operand(&mut self, ty: Type) -> Value {
        let known: Vec<Value> =
            self.values.iter().copied().filter(|&v| self.unit.type_of(v) == ty).collect();
        if known.is_empty() || self.rng.one_in(4) { self.fresh(ty) } else { self.rng.pick(&known) }
    }

    fn truth(&mut self) -> Value {
        if self.truths.is_empty() || self.rng.one_in(4) {
            let ty = self.rng.pick(&INTS[..4]);
            let args = [self.operand(ty), self.operand(ty), Value::NONE];
            let aux = self.rng.below(IntCc::ALL.len()) as u8;
            self.push(Inst { aux, args, ..Inst::new(Op::Icmp, ty) })
        } else {
            let truths = self.truths.clone();
            self.rng.pick(&truths)
        }
    }

    /// Mostly inside the writable pages, sometimes elsewhere.
    fn address(&mut self, ty: Type) -> Value {
        let x = self.operand(ty);
        if self.rng.one_in(16) {
            return x;
        }
        let mask = if self.rng.one_in(8) { 0x3fff } else { 0x1ff8 };
        let mask = self.iconst(ty, mask);
        let offset = self.op(Op::And, ty, &[x, mask]);
        let base = self.iconst(ty, 0x10000);
        self.op(Op::Add, ty, &[offset, base])
    }

    fn memop(&mut self, op: Op, ty: Type) -> MemOp {
        let own = ty.bytes().trailing_zeros() as u8;
        let narrower = ty.is_int() && ty != Type::I128 && matches!(op, Op::Load | Op::Store);
        let log2 = if narrower { self.rng.below(own as usize + 1) as u8 } else { own };
        let mut memop = MemOp::of_log2(log2);
        if narrower && op == Op::Load && self.rng.one_in(2) {
            memop = memop.with_sign();
        }
        if self.rng.one_in(4) {
            memop = memop.with_big_endian();
        }
        if self.rng.one_in(4) {
            memop = memop.with_align(self.rng.pick(&[MemAlign::Natural, MemAlign::Sixteen]));
        }
        if self.rng.one_in(4) {
            let order = [MemOrder::Acquire, MemOrder::Release, MemOrder::SeqCst];
            memop = memop.with_order(self.rng.pick(&order));
        }
        memop
    }

    fn random_inst(&mut self) {
        let op = match self.rng.below(10) {
            0..2 => Op::Get,
            2..4 => Op::Set,
            _ => {
                let ops = std::mem::take(&mut self.ops);
                let op = self.rng.pick(&ops);
                self.ops = ops;
                op
            }
        };
        let info = op.info();
        let types: Vec<Type> =
            Type::ALL.iter().copied().filter(|&t| in_class(info, op, t)).collect();
        let mut inst = Inst::new(op, self.rng.pick(&types));
        inst.shape = self.rng.pick(shapes(op));
        if op == Op::Vlane {
            inst.ty = inst.shape.lane_type();
        }
        self.aux(&mut inst, info);
        self.immediates(&mut inst, info);
        for n in 0..info.args.len() {
            inst.args[n] = match info.args[n] {
                Arg::Own => self.operand(inst.ty),
                Arg::Bool => self.truth(),
                Arg::I32 => self.operand(Type::I32),
                Arg::I64 | Arg::OptI64 => self.operand(Type::I64),
                Arg::I128 => self.operand(Type::I128),
                Arg::V128 => self.operand(Type::V128),
                Arg::Lane => self.operand(inst.shape.lane_type()),
                Arg::Addr => {
                    let ty = self.rng.pick(&[Type::I32, Type::I64]);
                    self.address(ty)
                }
                Arg::Word32 => {
                    let ty = self.rng.pick(&[Type::I32, Type::I64]);
                    self.operand(ty)
                }
                Arg::Float => {
                    let ty = match op {
                        Op::Fpromote => Type::F32,
                        Op::Fdemote => Type::F64,
                        _ => self.rng.pick(&[Type::F32, Type::F64]),
                    };
                    self.operand(ty)
                }
                Arg::Narrower => self.int_operand(|t| t.bits() < inst.ty.bits()),
                Arg::Wider => self.int_operand(|t| t.bits() > inst.ty.bits()),
                Arg::SameWidth => {
                    let all = Type::ALL.iter().copied();
                    let types: Vec<Type> = all.filter(|t| t.bits() == inst.ty.bits()).collect();
                    let ty = self.rng.pick(&types);
                    self.operand(ty)
                }
                Arg::Helper => match HELPERS[inst.imm2 as usize].args.get(n) {
                    Some(&Type::I64) => self.address(Type::I64),
                    Some(&ty) => self.operand(ty),
                    None => Value::NONE,
                },
            };
        }
        if info.imm == Imm::Pool {
            // Behind the operands', so that the pool is in order of first use.
            let constant = match op {
                Op::Vshuffle => u128::from_le_bytes([0; 16].map(|_: u8| self.rng.below(32) as u8)),
                _ => self.rng.bits(Type::V128),
            };
            inst.imm = crate::passes::intern(&mut self.unit.pool, constant);
        }
        self.push(inst);
    }

    fn int_operand(&mut self, fits: impl Fn(Type) -> bool) -> Value {
        let types: Vec<Type> = INTS.into_iter().filter(|&t| fits(t)).collect();
        let ty = self.rng.pick(&types);
        self.operand(ty)
    }

    fn aux(&mut self, inst: &mut Inst, info: &OpInfo) {
        let names = aux_names(info.aux).len();
        if names > 0 {
            inst.aux = self.rng.below(names) as u8;
        }
        if inst.op == Op::Icmp && inst.ty == Type::I128 {
            inst.aux &= 1;
        }
        let flagged = aux_flag_name(info.aux).is_some() || info.aux == Aux::Signalling;
        let unsigned = matches!(inst.op, Op::FtoU | Op::VftoU);
        if flagged && !unsigned && self.rng.one_in(2) {
            inst.aux |= 0x80;
        }
    }

    fn immediates(&mut self, inst: &mut Inst, info: &OpInfo) {
        match info.imm {
            Imm::None | Imm::Pool => {}
            Imm::Block | Imm::Blocks | Imm::Pc | Imm::Insn | Imm::Trap => {}
            Imm::Const => inst.imm = self.rng.bits(inst.ty) as i64,
            Imm::Mem | Imm::MemOp => {
                inst.imm2 = self.memop(inst.op, inst.ty).0 as u32;
                if info.imm == Imm::Mem && self.rng.one_in(2) {
                    inst.imm = self.rng.below(64) as i64 - 16;
                }
            }
            Imm::Slot => inst.imm2 = self.slot(inst.ty).0 as u32,
            Imm::Lane => inst.imm2 = self.rng.below(inst.shape.lanes() as usize) as u32,
            Imm::Amount => {
                let most = inst.shape.lane_bits() + (inst.op != Op::VshlI) as u32;
                inst.imm2 = self.rng.below(most as usize) as u32;
            }
            Imm::Field => {
                let bits = inst.ty.bits() as usize;
                let lsb = self.rng.below(bits);
                inst.imm2 = lsb as u32 | (1 + self.rng.below(bits - lsb) as u32) << 8;
            }
            Imm::Helper => {
                inst.imm2 = self.rng.below(HELPERS.len()) as u32;
                inst.imm = if HELPERS[inst.imm2 as usize].name == "raise" { 1 } else { 7 };
                inst.ty = HELPERS[inst.imm2 as usize].ret.unwrap_or(Type::I64);
            }
        }
    }

    fn end(&mut self, block: u32, blocks: u32) {
        let later = blocks - block - 1;
        if later > 0 && !self.rng.one_in(6) {
            let mut target = || block + 1 + self.rng.below(later as usize) as u32;
            let (then, otherwise) = (target(), target());
            if self.rng.one_in(3) {
                self.push(Inst { imm2: then, ..Inst::new(Op::Jump, Type::I64) });
            } else {
                let args = [self.truth(), Value::NONE, Value::NONE];
                let imm = otherwise as i64;
                self.push(Inst { imm2: then, imm, args, ..Inst::new(Op::Brif, Type::I64) });
            }
            return;
        }
        let mut exit = Inst::new(Op::ExitDirect, Type::I64);
        match self.rng.below(4) {
            kind @ (0 | 1) => {
                exit.imm = 0x2000;
                if kind == 1 {
                    exit.imm = 0x3000;
                    exit.aux = ExitKind::Call as u8;
                    exit.args[0] = self.iconst(Type::I64, 0x1004);
                }
                if self.rng.one_in(3) {
                    exit.args[1] = self.iconst(Type::I64, 0x77);
                }
            }
            2 => {
                exit.op = Op::ExitIndirect;
                exit.aux = ExitKind::Return as u8;
                exit.args[0] = self.operand(Type::I64);
                if self.rng.one_in(2) {
                    exit.args[2] = self.operand(Type::I64);
                }
            }
            _ => {
                exit.op = Op::ExitTrap;
                exit.aux = ExitKind::Syscall as u8;
                (exit.imm, exit.imm2) = (0x1008, 3);
            }
        }
        self.push(exit);
    }
}

/// As the verifier has it, but I128 only where it is common.
fn in_class(info: &OpInfo, op: Op, ty: Type) -> bool {
    let int = ty.is_int();
    let width_change = match op {
        Op::Zext | Op::Sext => ty != Type::I8,
        _ => true,
    };
    width_change
        && match info.class {
            Class::Word => int && ty != Type::I128,
            Class::Word32 => matches!(ty, Type::I32 | Type::I64),
            Class::Int => int,
            Class::Float => ty.is_float(),
            Class::V128 => ty == Type::V128,
            Class::Any => true,
            Class::Unused => {
                ty == match op {
                    Op::Fpromote => Type::F64,
                    Op::Fdemote => Type::F32,
                    _ => Type::I64,
                }
            }
        }
}

/// Runs two units that should do the same from one random state, and names what differs.
pub fn compare(
    rng: &mut Rng,
    (unit_a, runner_a): (&Unit, &mut dyn Runner),
    (unit_b, runner_b): (&Unit, &mut dyn Runner),
) -> Result<(), String> {
    let layout = layout();
    let slots: Vec<u128> = layout.slots().iter().map(|s| rng.bits(s.ty)).collect();
    let flags = runner_a.has_float_environment() && runner_b.has_float_environment();
    let run = |unit: &Unit, runner: &mut dyn Runner| {
        let mut state = CpuState::new();
        let mut env = TestEnv::new();
        state.set_pc(unit.pc);
        for (n, &value) in slots.iter().enumerate() {
            write_slot(&mut state, &layout, Slot(n as u16), value);
        }
        let outcome = runner.run(unit, &mut state, &mut env);
        (outcome, state, env)
    };
    let (outcome_a, state_a, env_a) = run(unit_a, runner_a);
    let (outcome_b, state_b, env_b) = run(unit_b, runner_b);
    let same = match (outcome_a, outcome_b) {
        (Outcome::Exit { pc: a, flags: fa, .. }, Outcome::Exit { pc: b, flags: fb, .. }) => {
            a == b && fa == fb
        }
        (Outcome::Trap(a), Outcome::Trap(b)) => a == b && state_a.pc() == state_b.pc(),
        _ => false,
    };
    if !same {
        let pcs = (state_a.pc(), state_b.pc());
        return Err(format!("left by {outcome_a:x?} and {outcome_b:x?}, pc cells {pcs:x?}"));
    }
    for (n, slot) in layout.slots().iter().enumerate() {
        let a = read_slot(&state_a, &layout, Slot(n as u16));
        let b = read_slot(&state_b, &layout, Slot(n as u16));
        if a != b {
            return Err(format!("{} is {a:#x} and {b:#x}", slot.name));
        }
    }
    if env_a.regions != env_b.regions {
        return Err("memory differs".into());
    }
    if flags && (env_a.flags.0 ^ env_b.flags.0) & !FpFlags::DENORMAL != 0 {
        return Err(format!("float flags are {:?} and {:?}", env_a.flags, env_b.flags));
    }
    Ok(())
}
