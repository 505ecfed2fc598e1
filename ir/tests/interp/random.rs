//! The bytecode, with all its shortcuts, against the naive evaluator on random units of every operation.

use crate::support::*;
use tulk_base::*;
use tulk_ir::interp::{Program, Scratch, run};
use tulk_ir::op::{Arg, Aux, Class, Imm, Res};
use tulk_ir::*;

const WORDS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
const INT_SHAPES: [Shape; 4] = [Shape::I8x16, Shape::I16x8, Shape::I32x4, Shape::I64x2];

struct Gen<'r, 'b> {
    rng: &'r mut Rng,
    b: Builder<'b>,
    /// Values of the current block.
    values: Vec<Value>,
    locals: Vec<Slot>,
    pc: u64,
}

impl Gen<'_, '_> {
    fn slot(&mut self, ty: Type) -> Slot {
        if self.rng.chance(4) {
            let locals: Vec<_> =
                self.locals.iter().copied().filter(|&s| self.b.slot_type(s) == ty).collect();
            if !locals.is_empty() {
                return *self.rng.pick(&locals);
            }
        }
        slot(ty, self.rng.below(4) as u16)
    }

    /// An operand: mostly an earlier value, often a slot, sometimes a constant.
    fn value(&mut self, ty: Type) -> Value {
        let known: Vec<_> = self.values.iter().copied().filter(|&v| self.b.ty(v) == ty).collect();
        let v = match self.rng.below(8) {
            0..5 if !known.is_empty() => {
                let recent = if self.rng.chance(3) { 0 } else { known.len().saturating_sub(4) };
                return *self.rng.pick(&known[recent..]);
            }
            0 | 5 if ty.is_int() => {
                let imm = self.rng.word() as i64;
                self.b.iconst(ty, if self.rng.chance(2) { imm & 7 } else { imm })
            }
            _ => {
                let slot = self.slot(ty);
                self.b.get(slot)
            }
        };
        self.values.push(v);
        v
    }

    /// An I8 that is 0 or 1.
    fn truth(&mut self) -> Value {
        let v = match self.rng.below(4) {
            0 => {
                let nzcv = self.value(Type::I32);
                let cond = *self.rng.pick(NzcvCond::ALL);
                self.b.nzcv_test(cond, nzcv)
            }
            1 => {
                let a = self.value(Type::I8);
                self.b.and_imm(a, 1)
            }
            _ => {
                let ty = *self.rng.pick(&WORDS);
                let (a, b) = (self.value(ty), self.value(ty));
                let cc = *self.rng.pick(IntCc::ALL);
                self.b.icmp(cc, a, b)
            }
        };
        self.values.push(v);
        v
    }

    fn of_class(&mut self, class: Class) -> Type {
        let choices: &[Type] = match class {
            Class::Word => &WORDS,
            Class::Word32 => &[Type::I32, Type::I64],
            Class::Int => &[Type::I8, Type::I16, Type::I32, Type::I64, Type::I64, Type::I128],
            Class::Float => &[Type::F32, Type::F64],
            Class::V128 => &[Type::V128],
            Class::Any => Type::ALL,
            Class::Unused => &[Type::I64],
        };
        *self.rng.pick(choices)
    }

    fn shape(&mut self, op: Op) -> Shape {
        let name = op.info().name;
        let choices: &[Shape] = match op {
            Op::VmaddPairsS => &[Shape::I16x8],
            Op::Vpopcnt => &[Shape::I8x16],
            Op::Vsplat | Op::Vscalar | Op::Vlane | Op::VsetLane => Shape::ALL,
            Op::VstoF | Op::VutoF => &[Shape::F32x4, Shape::F64x2],
            _ if name.starts_with("vf") => &[Shape::F32x4, Shape::F64x2],
            _ if name.contains("widen") => &INT_SHAPES[..3],
            _ if name.starts_with("vnarrow") => &INT_SHAPES[1..],
            _ => &INT_SHAPES,
        };
        *self.rng.pick(choices)
    }

    /// A random instruction of any operation that does not end a block.
    fn any(&mut self) {
        let op = loop {
            let op = *self.rng.pick(Op::ALL);
            if op.info().effects & tulk_ir::op::effect::END == 0 && op != Op::Insn {
                break op;
            }
        };
        let info = op.info();
        let mut inst = Inst::new(op, self.of_class(info.class));
        match op {
            Op::Fpromote => inst.ty = Type::F64,
            Op::Fdemote => inst.ty = Type::F32,
            Op::Zext | Op::Sext if inst.ty == Type::I8 => inst.ty = Type::I128,
            Op::Trunc if inst.ty == Type::I64 => inst.ty = Type::I32,
            _ => {}
        }
        if info.shaped {
            inst.shape = self.shape(op);
        }
        if op == Op::Vlane {
            inst.ty = inst.shape.lane_type();
        }
        match info.imm {
            Imm::None | Imm::Block | Imm::Blocks | Imm::Pc | Imm::Insn | Imm::Trap => {}
            Imm::Const => inst.imm = self.rng.word() as i64,
            Imm::Pool => {
                let picks = self.rng.wide() & 0x1f1f_1f1f_1f1f_1f1f_1f1f_1f1f_1f1f_1f1f;
                let value = *self.rng.pick(&[0, u128::MAX, picks, picks]);
                self.b.unit.pool.push(value);
                inst.imm = self.b.unit.pool.len() as i64 - 1;
            }
            Imm::Mem | Imm::MemOp => inst.imm2 = self.memop(&mut inst).0 as u32,
            Imm::Slot => inst.imm2 = self.slot(inst.ty).0 as u32,
            Imm::Lane => inst.imm2 = self.rng.below(inst.shape.lanes() as u64) as u32,
            Imm::Amount => {
                let right = op != Op::VshlI;
                inst.imm2 = self.rng.below(inst.shape.lane_bits() as u64 + right as u64) as u32;
            }
            Imm::Field => {
                let width = 1 + self.rng.below(inst.ty.bits() as u64) as u32;
                let lsb = self.rng.below((inst.ty.bits() - width) as u64 + 1) as u32;
                inst.imm2 = lsb | width << 8;
            }
            Imm::Helper => {
                inst.imm2 = self.rng.below(HELPERS.len() as u64) as u32;
                inst.imm = self.rng.word() as i64;
                inst.ty = HELPERS[inst.imm2 as usize].ret.unwrap_or(Type::I64);
            }
        }
        if info.imm == Imm::Mem {
            inst.imm = match self.rng.below(4) {
                0 => self.rng.word() as i64,
                1 => 0,
                _ => self.rng.below(512) as i64 - 256,
            };
        }
        let flag = (self.rng.below(2) as u8) << 7;
        inst.aux = match info.aux {
            Aux::None | Aux::Exit => 0,
            Aux::IntCc if inst.ty == Type::I128 => self.rng.below(2) as u8,
            Aux::IntCc => self.rng.below(10) as u8,
            Aux::FloatCc => self.rng.below(13) as u8 | flag,
            Aux::RoundExact | Aux::RoundRange => self.rng.below(6) as u8 | flag,
            Aux::MinKind => self.rng.below(3) as u8,
            Aux::NzcvCond => self.rng.below(14) as u8,
            Aux::Rmw => self.rng.below(11) as u8,
            Aux::Fence => self.rng.below(3) as u8,
            Aux::Signalling | Aux::Overwriting => flag,
        };
        for (n, kind) in info.args.iter().enumerate() {
            let ty = match kind {
                Arg::Own => inst.ty,
                Arg::Bool => {
                    inst.args[n] = self.truth();
                    continue;
                }
                Arg::I32 => Type::I32,
                Arg::I64 => Type::I64,
                Arg::I128 => Type::I128,
                Arg::V128 => Type::V128,
                Arg::Lane => inst.shape.lane_type(),
                Arg::Addr | Arg::Word32 => *self.rng.pick(&[Type::I32, Type::I64, Type::I64]),
                Arg::Narrower => loop {
                    let ty = *self.rng.pick(&WORDS);
                    if ty.bits() < inst.ty.bits() {
                        break ty;
                    }
                },
                Arg::Wider => loop {
                    let ty = *self.rng.pick(&WORDS);
                    if ty.bits() > inst.ty.bits() {
                        break ty;
                    }
                },
                Arg::Float if op == Op::Fpromote => Type::F32,
                Arg::Float if op == Op::Fdemote => Type::F64,
                Arg::Float => *self.rng.pick(&[Type::F32, Type::F64]),
                Arg::SameWidth => loop {
                    let ty = *self.rng.pick(Type::ALL);
                    if ty.bits() == inst.ty.bits() {
                        break ty;
                    }
                },
                Arg::Helper => match HELPERS[inst.imm2 as usize].args.get(n) {
                    Some(&ty) => ty,
                    None => continue,
                },
                Arg::OptI64 => unreachable!(),
            };
            inst.args[n] = self.value(ty);
        }
        let v = self.b.emit(inst);
        if !v.is_none() {
            assert_ne!(info.result, Res::None);
            self.values.push(v);
        }
    }

    fn memop(&mut self, inst: &mut Inst) -> MemOp {
        let sizes = match inst.op {
            Op::AtomicRmw => inst.ty.bytes().trailing_zeros() as u8,
            Op::AtomicCas => inst.ty.bytes().trailing_zeros() as u8,
            _ if !inst.ty.is_int() || inst.ty == Type::I128 => {
                inst.ty.bytes().trailing_zeros() as u8
            }
            _ => self.rng.below(inst.ty.bytes().trailing_zeros() as u64 + 1) as u8,
        };
        let mut op = MemOp::of_log2(sizes);
        if inst.op == Op::Load && sizes < 4 && inst.ty.is_int() && self.rng.chance(2) {
            op = op.with_sign();
        }
        if self.rng.chance(6) {
            op = op.with_big_endian();
        }
        if self.rng.chance(8) {
            op = op.with_order(MemOrder::Acquire);
        }
        if self.rng.chance(12) {
            op = op.with_align(MemAlign::Natural);
        }
        op
    }

    /// Sequences that the translation treats as one.
    fn idiom(&mut self) {
        let ty = *self.rng.pick(&[Type::I32, Type::I64]);
        match self.rng.below(8) {
            0 => {
                let (a, b) = (self.value(ty), self.value(ty));
                let (r, f) = match self.rng.below(4) {
                    0 => (self.b.sub(a, b), self.b.sub_nzcv(a, b)),
                    1 => (self.b.add(a, b), self.b.add_nzcv(a, b)),
                    2 => {
                        let f = self.b.sub_nzcv(a, b);
                        (self.b.sub(a, b), f)
                    }
                    _ => {
                        let f = self.b.add_nzcv(a, b);
                        (self.b.add(a, b), f)
                    }
                };
                self.values.extend([r, f]);
                let (x, y) = (self.slot(ty), self.slot(Type::I32));
                self.b.set(x, r);
                self.b.set(y, f);
            }
            1 | 2 => {
                let (base, index) = (self.value(ty), self.value(ty));
                let amount = self.rng.below(70) as u32;
                let index = if self.rng.chance(2) { self.b.shl_imm(index, amount) } else { index };
                let addr = if self.rng.chance(3) {
                    self.b.add_imm(base, amount as i64 + 1)
                } else {
                    self.b.add(base, index)
                };
                let offset = self.rng.below(64) as i64;
                if self.rng.chance(2) {
                    let v = self.b.load(Type::I64, addr, offset, MemOp::U64);
                    self.values.push(v);
                } else {
                    let v = self.value(Type::I64);
                    self.b.store(addr, offset, MemOp::U32, v);
                }
                if self.rng.chance(3) {
                    self.values.push(addr);
                }
            }
            3 => {
                let cond = self.truth();
                let (x, y) = (self.value(ty), self.value(ty));
                let v = self.b.select(cond, x, y);
                self.values.push(v);
            }
            4 => {
                let (x, y) = (self.slot(ty), self.slot(ty));
                let (a, b) = (self.b.get(x), self.b.get(y));
                self.b.set(x, b);
                self.b.set(y, a);
            }
            5 => {
                let (a, b) = (self.value(ty), self.value(ty));
                let r = self.b.add(a, b);
                let f = self.b.add_nzcv(a, b);
                let again = if self.rng.chance(2) { self.b.add(a, b) } else { r };
                self.values.extend([f, again]);
                let loaded = self.b.load(Type::I64, r, 8, MemOp::U16);
                self.values.push(loaded);
            }
            _ => {
                let v = self.value(Type::I32);
                let wide = self.b.zext(Type::I64, v);
                let narrow = self.b.trunc(Type::I16, wide);
                self.values.extend([wide, narrow]);
            }
        }
    }

    fn set_some(&mut self) {
        if let Some(&v) = self.values.last() {
            let v = if self.rng.chance(3) { *self.rng.pick(&self.values) } else { v };
            let ty = self.b.ty(v);
            let slot = self.slot(ty);
            self.b.set(slot, v);
        }
    }

    fn insn(&mut self) {
        self.pc += 4;
        self.b.insn(self.pc, 4);
    }
}

fn random_unit(rng: &mut Rng, unit: &mut Unit) {
    let rule = *rng.pick(FpRule::ALL);
    unit.reset(0x4000, 0, rule);
    let b = Builder::new(unit, &LAYOUT, HELPERS);
    let mut g = Gen { rng, b, values: vec![], locals: vec![], pc: 0x4000 };
    for _ in 0..g.rng.below(4) {
        let ty = *g.rng.pick(Type::ALL);
        let local = g.b.local(ty);
        g.locals.push(local);
    }
    let mut labels: Vec<_> = (0..g.rng.below(5)).map(|_| g.b.label()).collect();
    labels.reverse();
    loop {
        let length = if g.rng.chance(4) { 0 } else { g.rng.below(30) };
        for _ in 0..length {
            match g.rng.below(8) {
                0 | 1 => g.set_some(),
                2 => g.idiom(),
                3 => g.insn(),
                _ => g.any(),
            }
        }
        for _ in 0..g.rng.below(4) {
            g.set_some();
        }
        let below = labels.len() as u64;
        match g.rng.below(6) {
            0 if below > 0 => {
                let to = *g.rng.pick(&labels);
                g.b.jump(to);
            }
            1..4 if below > 0 => {
                let (yes, no) = (*g.rng.pick(&labels), *g.rng.pick(&labels));
                let cond = g.truth();
                g.b.brif(cond, yes, no);
            }
            0 | 1 => {
                let pc = g.rng.next();
                g.b.exit_call(pc, pc + 4);
            }
            2 | 3 => {
                let pc = g.value(Type::I64);
                let ret = g.rng.chance(2).then(|| g.rng.next());
                let flags = if g.rng.chance(3) { Some(g.value(Type::I64)) } else { None };
                g.b.exit_indirect(ExitKind::Call, pc, ret, flags);
            }
            4 => g.b.exit(0x8000),
            _ => {
                let pc = g.rng.next();
                g.b.trap(ExitKind::Syscall, 0x1_2345, pc);
            }
        }
        g.values.clear();
        match labels.pop() {
            Some(label) => g.b.place(label),
            None => break,
        }
    }
    g.b.finish();
}

fn random_state(rng: &mut Rng) -> Box<CpuState> {
    let mut state = CpuState::new();
    for s in LAYOUT.slots() {
        // The bits above a slot's type mean nothing.
        let value = if rng.chance(2) { rng.wide() } else { rng.wide() & mask(s.ty) };
        if s.ty.cells() == 2 {
            state.set128(s.cell, value);
        } else {
            state.set(s.cell, value as u64);
        }
    }
    state
}

fn copy_of(state: &CpuState) -> Box<CpuState> {
    let mut copy = CpuState::new();
    for cell in 0..tulk_base::state::CELL_TEMPS {
        copy.set(cell, state.get(cell));
    }
    copy
}

fn check(seeds: std::ops::Range<u64>) {
    let mut scratch = Scratch::default();
    let mut unit = Unit::new(0, 0, FpRule::Arm);
    for seed in seeds {
        let mut rng = Rng::new(seed);
        random_unit(&mut rng, &mut unit);
        let p = Program::with_scratch(&unit, &LAYOUT, HELPERS, &mut scratch);
        for _ in 0..3 {
            let mut state = random_state(&mut rng);
            let mut other = copy_of(&state);
            let mut env = Env::new(rng.chance(2));
            env.round = Round::from_u8(rng.below(4) as u8);
            let mut other_env = env.clone();
            let outcome = run(&p, &mut state, HELPERS, &mut env);
            let expected = naive(&unit, &mut other, &mut other_env);
            let context = || {
                let insts: Vec<String> = unit
                    .insts
                    .iter()
                    .enumerate()
                    .map(|(i, inst)| format!("{i:3} {inst:?}\n"))
                    .collect();
                format!("seed {seed}\n{}\n{p:?}", insts.concat())
            };
            assert_eq!(outcome, expected, "{}", context());
            if let tulk_ir::interp::Outcome::Trap(_) = outcome {
                assert_eq!(state.pc(), other.pc(), "pc: {}", context());
            }
            for (i, (got, want)) in slots(&state).into_iter().zip(slots(&other)).enumerate() {
                let name = &LAYOUT.slots()[i].name;
                assert_eq!(got, want, "{name}: {got:#x} {want:#x} {}", context());
            }
            assert_eq!(env, other_env, "memory or flags: {}", context());
        }
    }
}

#[test]
fn random_units_agree_with_naive_walk() {
    check(0..4000);
}

/// Longer, for changes of the translation: `cargo test --release -- --ignored many_random_units`.
#[test]
#[ignore = "minutes"]
fn many_random_units() {
    check(1_000_000..1_300_000);
}
