//! A layout, helpers, an environment with faulting memory, and a naive evaluator of units as judge.

use std::collections::HashMap;
use std::sync::LazyLock;
use tulk_base::*;
use tulk_ir::interp::Outcome;
use tulk_ir::interp::eval::{EvalOp, eval};
use tulk_ir::*;

/// xorshift64*
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
    /// 64 bits that are often a corner case.
    pub fn word(&mut self) -> u64 {
        const FLOATS: [f64; 6] = [0.0, -0.0, 1.5, -2.25, f64::INFINITY, f64::NAN];
        match self.below(10) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => self.below(9),
            4 => (self.below(9) as i64 - 4) as u64,
            5 => self.pick(&FLOATS).to_bits(),
            6 => (*self.pick(&FLOATS) as f32).to_bits() as u64 * 0x1_0000_0001,
            7 => u64::MAX >> self.below(64),
            _ => self.next(),
        }
    }
    pub fn wide(&mut self) -> u128 {
        self.word() as u128 | (self.word() as u128) << 64
    }
}

pub fn mask(ty: Type) -> u128 {
    u128::MAX >> (128 - ty.bits())
}

/// Four slots of every type, so that reuse of slots is frequent.
pub static LAYOUT: LazyLock<RegLayout> = LazyLock::new(|| {
    let mut layout = RegLayout::new();
    for &ty in Type::ALL {
        for n in 0..4 {
            layout.add(format!("{ty}_{n}"), ty, None);
        }
    }
    layout
});

pub fn slot(ty: Type, n: u16) -> Slot {
    Slot(ty as u16 * 4 + n)
}

/// All slots, cut to their types.
pub fn slots(state: &CpuState) -> Vec<u128> {
    LAYOUT.slots().iter().map(|s| state.get128(s.cell) & mask(s.ty)).collect()
}

fn mix(values: impl IntoIterator<Item = u128>) -> u128 {
    values.into_iter().fold(0x1234_5678_9abc_def1, |acc, x| {
        (acc ^ x).wrapping_mul(0x0000_0100_0000_01b3_9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

fn h_pure(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(mix(*args))
}
fn h_all(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let seen = mix(slots(cx.state).into_iter().chain(*args).chain([cx.state.pc() as u128]));
    if seen & 15 == 0 {
        return Err(Trap::Guest { vector: 7, code: seen as u32 >> 8 });
    }
    let cell = LAYOUT.slots()[(seen >> 8) as usize % LAYOUT.slots().len()].cell;
    cx.state.set128(cell, seen);
    Ok(seen)
}
fn h_these(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let read = slots(cx.state)[slot(Type::I64, 0).0 as usize];
    let seen = mix([read, args[0], args[3]]);
    cx.state.set(LAYOUT.cell(slot(Type::I64, 1)), seen as u64);
    cx.state.set128(LAYOUT.cell(slot(Type::V128, 1)), seen);
    Ok(0)
}
fn h_memory(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let value = cx.env.load(GuestVa(args[0] as u64), MemOp::U64)?;
    Ok(value as u128)
}

pub const HELPERS: &[HelperDef] = &[
    HelperDef {
        name: "pure",
        func: h_pure,
        args: &[Type::I32, Type::I8, Type::V128],
        ret: Some(Type::I16),
        reads: Access::None,
        writes: Access::None,
        may_trap: false,
        pure: true,
        direct: None,
    },
    HelperDef {
        name: "all",
        func: h_all,
        args: &[Type::I64, Type::F32],
        ret: Some(Type::V128),
        reads: Access::All,
        writes: Access::All,
        may_trap: true,
        pure: false,
        direct: None,
    },
    HelperDef {
        name: "these",
        func: h_these,
        args: &[Type::I8],
        ret: None,
        reads: Access::These(&[Slot(Type::I64 as u16 * 4)]),
        writes: Access::These(&[Slot(Type::I64 as u16 * 4 + 1), Slot(Type::V128 as u16 * 4 + 1)]),
        may_trap: false,
        pure: false,
        direct: None,
    },
    HelperDef {
        name: "memory",
        func: h_memory,
        args: &[Type::I64],
        ret: Some(Type::I64),
        reads: Access::None,
        writes: Access::None,
        may_trap: true,
        pure: false,
        direct: None,
    },
];

/// Memory in which every address works, except that one in 64 faults.
#[derive(Clone, PartialEq, Debug)]
pub struct Env {
    pub bytes: HashMap<u64, u8>,
    pub faulty: bool,
    pub flags: FpFlags,
    pub round: Round,
}

impl Env {
    pub fn new(faulty: bool) -> Env {
        Env { bytes: HashMap::new(), faulty, flags: FpFlags(0), round: Round::Nearest }
    }
    fn check(&self, va: GuestVa, op: MemOp, kind: AccessKind) -> Result<(), MemFault> {
        if !va.is_aligned(op.align_bytes() as u64) {
            return Err(MemFault { va, kind, cause: FaultCause::Align });
        }
        let place = (va.0 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        if self.faulty && place == 0 {
            return Err(MemFault { va, kind, cause: FaultCause::Unmapped });
        }
        Ok(())
    }
    fn get(&self, va: GuestVa, op: MemOp) -> u128 {
        let n = op.bytes() as u64;
        (0..n).fold(0, |acc, i| {
            let at = va.0.wrapping_add(if op.big_endian() { i } else { n - 1 - i });
            let fresh = || (at.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 56) as u8;
            acc << 8 | self.bytes.get(&at).copied().unwrap_or_else(fresh) as u128
        })
    }
    fn put(&mut self, va: GuestVa, op: MemOp, value: u128) {
        let n = op.bytes() as u64;
        for i in 0..n {
            let at = va.0.wrapping_add(if op.big_endian() { n - 1 - i } else { i });
            self.bytes.insert(at, (value >> (8 * i)) as u8);
        }
    }
}

impl GuestMem for Env {
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        assert!(op.log2() < 4);
        self.check(va, op, AccessKind::Read)?;
        let value = self.get(va, op) as u64;
        let unused = 64 - 8 * op.bytes();
        Ok(if op.signed() { ((value << unused) as i64 >> unused) as u64 } else { value })
    }
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        assert!(op.log2() < 4);
        self.check(va, op, AccessKind::Write)?;
        self.put(va, op, value as u128);
        Ok(())
    }
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        assert!(op.log2() == 4);
        self.check(va, op, AccessKind::Read)?;
        Ok(self.get(va, op))
    }
    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        assert!(op.log2() == 4);
        self.check(va, op, AccessKind::Write)?;
        self.put(va, op, value);
        Ok(())
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, x: u64) -> Result<u64, MemFault> {
        self.check(va, op, AccessKind::Write)?;
        let old = self.get(va, op) as u64;
        let unused = 64 - 8 * op.bytes();
        let x = x << unused >> unused;
        let signed = |x: u64| (x << unused) as i64;
        let new = match rmw {
            RmwOp::Xchg => x,
            RmwOp::Add => old.wrapping_add(x),
            RmwOp::Sub => old.wrapping_sub(x),
            RmwOp::And => old & x,
            RmwOp::AndNot => old & !x,
            RmwOp::Or => old | x,
            RmwOp::Xor => old ^ x,
            RmwOp::MinS => {
                if signed(old) < signed(x) {
                    old
                } else {
                    x
                }
            }
            RmwOp::MaxS => {
                if signed(old) > signed(x) {
                    old
                } else {
                    x
                }
            }
            RmwOp::MinU => old.min(x),
            RmwOp::MaxU => old.max(x),
        };
        self.put(va, op, new as u128);
        Ok(old)
    }
    fn cas(&mut self, va: GuestVa, op: MemOp, expect: u128, new: u128) -> Result<u128, MemFault> {
        self.check(va, op, AccessKind::Write)?;
        let old = self.get(va, op);
        let cut = u128::MAX >> (128 - 8 * op.bytes());
        assert_eq!((expect & !cut, new & !cut), (0, 0));
        if old == expect {
            self.put(va, op, new);
        }
        Ok(old)
    }
}

impl FpEnv for Env {
    fn fp_flags(&mut self) -> FpFlags {
        self.flags
    }
    fn set_fp_flags(&mut self, flags: FpFlags) {
        self.flags = flags;
    }
    fn fp_round(&mut self) -> Round {
        self.round
    }
    fn set_fp_mode(&mut self, round: Round, _: bool, _: bool) {
        self.round = round;
    }
}

impl HelperEnv for Env {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        0
    }
    fn processor_id(&mut self) -> u32 {
        0
    }
    fn random(&mut self, _: &mut [u8]) {}
}

/// Walks a unit as it is written.
pub fn naive(unit: &Unit, state: &mut CpuState, env: &mut Env) -> Outcome {
    let mut locals: Vec<u128> = vec![0; unit.locals.len()];
    let mut values: HashMap<Value, u128> = HashMap::new();
    let mut block = 0;
    let count =
        |op: Op, upto: usize| unit.insts[..upto].iter().filter(|i| i.op == op).count() as u32;
    loop {
        let mut next = None;
        for i in unit.block_range(block) {
            let inst = &unit.insts[i];
            // Markers count in the order in which they are written, whatever was jumped over.
            let marker = unit.insts[..i].iter().rfind(|inst| inst.op == Op::Insn);
            let pc = marker.map_or(unit.pc, |inst| inst.imm as u64);
            let arg = |n: usize| values[&inst.args[n]];
            let opt = |n: usize| (!inst.args[n].is_none()).then(|| values[&inst.args[n]] as u64);
            let address = || {
                let sum = arg(0).wrapping_add(inst.imm as u128) as u64;
                match unit.type_of(inst.args[0]) {
                    Type::I32 => GuestVa(sum as u32 as u64),
                    _ => GuestVa(sum),
                }
            };
            let op = inst.memop();
            macro_rules! guest {
                ($result:expr) => {
                    match $result {
                        Ok(x) => x,
                        Err(fault) => {
                            state.set_pc(pc);
                            return Outcome::Trap(Trap::from(fault));
                        }
                    }
                };
            }
            let result = match inst.op {
                Op::Get => match inst.slot().as_local() {
                    Some(n) => locals[n as usize],
                    None => state.get128(LAYOUT.cell(inst.slot())) & mask(inst.ty),
                },
                Op::Set => {
                    let value = arg(0);
                    match inst.slot().as_local() {
                        Some(n) => locals[n as usize] = value,
                        None if inst.ty.cells() == 1 => {
                            state.set(LAYOUT.cell(inst.slot()), value as u64)
                        }
                        None => state.set128(LAYOUT.cell(inst.slot()), value),
                    }
                    0
                }
                Op::Load if op.bytes() == 16 => guest!(env.load128(address(), op)),
                Op::Load => guest!(env.load(address(), op)) as u128 & mask(inst.ty),
                Op::Store => {
                    if op.bytes() == 16 {
                        guest!(env.store128(address(), op, arg(1)))
                    } else {
                        guest!(env.store(address(), op, arg(1) as u64))
                    }
                    0
                }
                Op::AtomicRmw => {
                    guest!(env.rmw(GuestVa(arg(0) as u64), op, inst.rmw(), arg(1) as u64)) as u128
                }
                Op::AtomicCas => guest!(env.cas(GuestVa(arg(0) as u64), op, arg(1), arg(2))),
                Op::Fence | Op::Insn => 0,
                Op::Call => {
                    let helper = &HELPERS[inst.imm2 as usize];
                    if !helper.pure {
                        state.set_pc(pc);
                    }
                    let mut args = [0, 0, 0, inst.imm as u64 as u128];
                    for (n, arg) in args[..helper.args.len()].iter_mut().enumerate() {
                        *arg = values[&inst.args[n]];
                    }
                    match (helper.func)(&mut HelperCx { state: &mut *state, env: &mut *env }, &args)
                    {
                        Ok(x) => x & helper.ret.map_or(0, mask),
                        Err(trap) => return Outcome::Trap(trap),
                    }
                }
                Op::Jump => {
                    next = Some(inst.imm2);
                    0
                }
                Op::Brif => {
                    next = Some(if arg(0) != 0 { inst.imm2 } else { inst.imm as u32 });
                    0
                }
                Op::ExitDirect => return Outcome::Direct(count(Op::ExitDirect, i)),
                Op::ExitIndirect => {
                    return Outcome::Indirect {
                        kind: inst.exit_kind(),
                        pc: arg(0) as u64,
                        ret: opt(1),
                        flags: opt(2),
                        site: count(Op::ExitIndirect, i),
                    };
                }
                Op::ExitTrap => {
                    state.set_pc(inst.imm as u64);
                    return Outcome::Trap(inst.exit_kind().trap(inst.imm2).unwrap());
                }
                _ => {
                    let args = inst.args.map(|v| if v.is_none() { 0 } else { values[&v] });
                    eval(&EvalOp::of(inst, unit), args, env)
                }
            };
            if !inst.dst.is_none() {
                assert_eq!(result & !mask(unit.type_of(inst.dst)), 0, "{inst:?} is too wide");
                values.insert(inst.dst, result);
            }
        }
        block = next.expect("block ends");
    }
}
