//! Floating-point operations against `tulk-softfloat`: every result bit and every exception flag, in every rounding
//! mode and under every guest's rules, with the flags read from the host's own control register. x86-64 hosts only:
//! there is no safe way to that register, so this file is the one place of the crate with assembly.
#![cfg(target_arch = "x86_64")]

use std::arch::asm;
use tulk_base::*;
use tulk_ir::interp::eval::{EvalOp, eval};
use tulk_ir::interp::{Outcome, Program, run};
use tulk_ir::*;
use tulk_softfloat::{self as soft, Env, Format, IntRule, IntType, MinMax, NanRule, Rounding};

/// MXCSR as the environment; flags lie there as in [`FpFlags`].
struct Host;

fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes to a local.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack)) };
    value
}
fn set_mxcsr(value: u32) {
    // SAFETY: masks stay set, so nothing traps; the tests restore the default before they compute with floats.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack)) };
}

impl FpEnv for Host {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags(mxcsr() as u8 & 0x3f)
    }
    fn set_fp_flags(&mut self, flags: FpFlags) {
        set_mxcsr(mxcsr() & !0x3f | flags.0 as u32);
    }
    fn fp_round(&mut self) -> Round {
        [Round::Nearest, Round::Down, Round::Up, Round::Zero][(mxcsr() >> 13 & 3) as usize]
    }
    fn set_fp_mode(&mut self, _: Round, _: bool, _: bool) {
        unreachable!()
    }
}

const MODES: [(u32, Rounding); 4] = [
    (0, Rounding::NearestEven),
    (1 << 13, Rounding::Down),
    (2 << 13, Rounding::Up),
    (3 << 13, Rounding::Zero),
];
const RULES: [(FpRule, NanRule); 4] = [
    (FpRule::Arm, NanRule::Arm),
    (FpRule::X86, NanRule::Sse),
    (FpRule::Ppc, NanRule::Ppc),
    (FpRule::Sparc, NanRule::Sparc),
];

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    /// An operand with `exp` exponent and `frac` fraction bits, mostly a corner case.
    fn operand(&mut self, exp: u32, frac: u32) -> u64 {
        let top = (1u64 << exp) - 1;
        let e = match self.below(8) {
            0 => 0,
            1 => top,
            2 => self.below(4),
            3 => top - self.below(4),
            4 | 5 => (top / 2 + self.below(70)).saturating_sub(35),
            // Halves of the smallest exponent, for products on the border of the normal range.
            6 => (top / 4 + self.below(8)).saturating_sub(4),
            _ => self.below(top + 1),
        };
        let f = match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(frac as u64),
            3 => !(1 << self.below(frac as u64)),
            4 => 1 << (frac - 1) | self.below(4),
            _ => self.next(),
        };
        (self.next() & 1) << (exp + frac) | e << frac | f & ((1 << frac) - 1)
    }
}

struct Case<'a> {
    op: EvalOp,
    args: [u64; 3],
    /// The same in software.
    soft: &'a dyn Fn(&mut Env) -> u64,
}

fn check(case: Case<'_>) {
    for (rule, nan_rule) in RULES {
        for (control, rounding) in MODES {
            let mut env = Env::new(nan_rule);
            env.rounding = rounding;
            let want = (case.soft)(&mut env);
            let op = EvalOp { fp: rule, ..case.op };
            set_mxcsr(0x1f80 | control);
            let got = eval(&op, case.args.map(u128::from), &mut Host) as u64;
            let flags = mxcsr() & 0x3f;
            set_mxcsr(0x1f80);
            // Which operands are denormal is of interest to x86 guests only.
            let relevant = if rule == FpRule::X86 { 0x3f } else { 0x3d };
            assert_eq!(
                (got, flags & relevant),
                (want, env.flags.x86() & relevant),
                "{op:?} {:x?} {rounding:?}: {got:#x} {flags:#b}, want {want:#x} {:?}",
                case.args,
                env.flags
            );
        }
    }
}

/// Bits of a soft format as `u64`.
trait Bits: Copy {
    fn wide(self) -> u64;
    fn of(x: u64) -> Self;
}
impl Bits for u32 {
    fn wide(self) -> u64 {
        self as u64
    }
    fn of(x: u64) -> u32 {
        x as u32
    }
}
impl Bits for u64 {
    fn wide(self) -> u64 {
        self
    }
    fn of(x: u64) -> u64 {
        x
    }
}

fn head(op: Op, ty: Type) -> EvalOp {
    EvalOp {
        op,
        ty,
        src_ty: ty,
        aux: 0,
        shape: Shape::F32x4,
        imm2: 0,
        imm: 0,
        fp: FpRule::Arm,
        pool: 0,
    }
}

fn all_operations<F: Format<Bits: Bits>>(ty: Type, rounds: u32) {
    let mut rng = Rng(0x1234_5678_9abc_def1);
    let of = F::Bits::of;
    for _ in 0..rounds {
        let operand = |rng: &mut Rng| rng.operand(F::EXP_BITS, F::FRAC_BITS);
        let args = [operand(&mut rng), operand(&mut rng), operand(&mut rng)];
        let [a, b, c] = args.map(of);
        type Binary<B> = fn(&mut Env, B, B) -> B;
        let binary: [(Op, Binary<F::Bits>); 4] = [
            (Op::Fadd, soft::add::<F>),
            (Op::Fsub, soft::sub::<F>),
            (Op::Fmul, soft::mul::<F>),
            (Op::Fdiv, soft::div::<F>),
        ];
        for (op, f) in binary {
            let soft = |env: &mut Env| f(env, a, b).wide();
            check(Case { op: head(op, ty), args, soft: &soft });
        }
        let soft = |env: &mut Env| soft::sqrt::<F>(env, a).wide();
        check(Case { op: head(Op::Fsqrt, ty), args, soft: &soft });
        let soft = |env: &mut Env| soft::fma::<F>(env, a, b, c).wide();
        check(Case { op: head(Op::Fma, ty), args, soft: &soft });

        let kinds = [
            (MinKind::Ieee, MinMax::Ieee),
            (MinKind::Num, MinMax::Number),
            (MinKind::Second, MinMax::Second),
        ];
        for (aux, kind) in kinds {
            let min = EvalOp { aux: aux as u8, ..head(Op::Fmin, ty) };
            let soft = |env: &mut Env| soft::min::<F>(env, a, b, kind).wide();
            check(Case { op: min, args, soft: &soft });
            let max = EvalOp { op: Op::Fmax, ..min };
            let soft = |env: &mut Env| soft::max::<F>(env, a, b, kind).wide();
            check(Case { op: max, args, soft: &soft });
        }

        for signalling in [false, true] {
            for &cc in FloatCc::ALL {
                let op = EvalOp { aux: cc as u8 | (signalling as u8) << 7, ..head(Op::Fcmp, ty) };
                let soft = |env: &mut Env| {
                    use std::cmp::Ordering::*;
                    let order = soft::compare::<F>(env, a, b, signalling);
                    let holds = match cc {
                        FloatCc::Eq => order == Some(Equal),
                        FloatCc::Ne => order != Some(Equal),
                        FloatCc::Lt => order == Some(Less),
                        FloatCc::Le => matches!(order, Some(Less | Equal)),
                        FloatCc::Gt => order == Some(Greater),
                        FloatCc::Ge => matches!(order, Some(Greater | Equal)),
                        FloatCc::Ord => order.is_some(),
                        FloatCc::Uno => order.is_none(),
                        FloatCc::UEq => matches!(order, None | Some(Equal)),
                        FloatCc::ULt => matches!(order, None | Some(Less)),
                        FloatCc::ULe => !matches!(order, Some(Greater)),
                        FloatCc::UGt => matches!(order, None | Some(Greater)),
                        FloatCc::UGe => !matches!(order, Some(Less)),
                    };
                    holds as u64
                };
                check(Case { op, args, soft: &soft });
            }
            let op = EvalOp { aux: (signalling as u8) << 7, ..head(Op::FcmpNzcv, ty) };
            let soft = |env: &mut Env| {
                use std::cmp::Ordering::*;
                match soft::compare::<F>(env, a, b, signalling) {
                    Some(Less) => 0x8000_0000,
                    Some(Equal) => 0x6000_0000,
                    Some(Greater) => 0x2000_0000,
                    None => 0x3000_0000,
                }
            };
            check(Case { op, args, soft: &soft });
        }

        for &round in Round::ALL {
            let mode = |env: &Env| match round {
                Round::Nearest => Rounding::NearestEven,
                Round::Down => Rounding::Down,
                Round::Up => Rounding::Up,
                Round::Zero => Rounding::Zero,
                Round::Away => Rounding::NearestAway,
                Round::Current => env.rounding,
            };
            for flag in [false, true] {
                let aux = round as u8 | (flag as u8) << 7;
                let op = EvalOp { aux, ..head(Op::Fround, ty) };
                let soft =
                    |env: &mut Env| soft::round_to_integral::<F>(env, a, mode(env), flag).wide();
                check(Case { op, args, soft: &soft });
                for (to, bits) in [(Type::I32, 32), (Type::I64, 64)] {
                    for (o, signed) in [(Op::FtoS, true), (Op::FtoU, false)] {
                        let op = EvalOp { aux, src_ty: ty, ..head(o, to) };
                        let rule = if flag { IntRule::X86 } else { IntRule::Arm };
                        let int = IntType { bits, signed };
                        let soft = |env: &mut Env| soft::to_int::<F>(env, a, int, mode(env), rule);
                        check(Case { op, args, soft: &soft });
                    }
                }
            }
        }

        let x = rng.next() >> rng.below(64);
        let args = [x, 0, 0];
        let integers = [
            (Op::StoF, Type::I32, x as i32 as i64, true),
            (Op::StoF, Type::I64, x as i64, true),
            (Op::UtoF, Type::I32, x as u32 as i64, false),
            (Op::UtoF, Type::I64, x as i64, false),
        ];
        for (o, src_ty, value, signed) in integers {
            let op = EvalOp { src_ty, ..head(o, ty) };
            let soft = |env: &mut Env| match signed {
                true => soft::from_i64::<F>(env, value).wide(),
                false => soft::from_u64::<F>(env, value as u64).wide(),
            };
            check(Case { op, args, soft: &soft });
        }
    }
}

#[test]
fn single_precision() {
    all_operations::<soft::F32>(Type::F32, 6000);
}

#[test]
fn double_precision() {
    all_operations::<soft::F64>(Type::F64, 6000);
}

#[test]
fn promotion_and_demotion() {
    let mut rng = Rng(77);
    for _ in 0..60_000 {
        let a = rng.operand(8, 23);
        let op = EvalOp { src_ty: Type::F32, ..head(Op::Fpromote, Type::F64) };
        let soft = |env: &mut Env| soft::convert::<soft::F32, soft::F64>(env, a as u32);
        check(Case { op, args: [a, 0, 0], soft: &soft });
        let mut a = rng.operand(11, 52);
        if rng.below(2) == 0 {
            // Near the smallest normal single.
            a = a & !(0x7ff << 52) | (1023 - 127 + rng.below(4)) << 52;
        }
        let op = EvalOp { src_ty: Type::F64, ..head(Op::Fdemote, Type::F32) };
        let soft = |env: &mut Env| soft::convert::<soft::F64, soft::F32>(env, a).wide();
        check(Case { op, args: [a, 0, 0], soft: &soft });
    }
}

/// Every lane does what the scalar operation does, and no other flags appear.
#[test]
fn vectors_are_scalars_in_lanes() {
    let pairs = [
        (Op::Vfadd, Op::Fadd),
        (Op::Vfsub, Op::Fsub),
        (Op::Vfmul, Op::Fmul),
        (Op::Vfdiv, Op::Fdiv),
        (Op::Vfsqrt, Op::Fsqrt),
        (Op::Vfma, Op::Fma),
        (Op::Vfneg, Op::Fneg),
        (Op::Vfabs, Op::Fabs),
        (Op::Vfmin, Op::Fmin),
        (Op::Vfmax, Op::Fmax),
        (Op::Vfcmp, Op::Fcmp),
        (Op::Vfround, Op::Fround),
        (Op::VftoS, Op::FtoS),
        (Op::VftoU, Op::FtoU),
        (Op::VstoF, Op::StoF),
        (Op::VutoF, Op::UtoF),
    ];
    let mut rng = Rng(99);
    let run = |op: &EvalOp, args: [u128; 3], control: u32| {
        set_mxcsr(0x1f80 | control);
        let result = eval(op, args, &mut Host);
        let flags = mxcsr() & 0x3f;
        set_mxcsr(0x1f80);
        (result, flags)
    };
    for _ in 0..4000 {
        let shapes = [
            (Shape::F32x4, Type::F32, Type::I32, (8, 23)),
            (Shape::F64x2, Type::F64, Type::I64, (11, 52)),
        ];
        for (shape, float, int, (exp, frac)) in shapes {
            let n = shape.lane_bits();
            // One corner case in a vector of tame numbers shows stray flags best.
            let corner = rng.below(shape.lanes() as u64);
            let mut vector = || {
                (0..shape.lanes() as u64).fold(0u128, |acc, i| {
                    let tame = if n == 32 { 0x3f80_0000 } else { 0x3ff0 << 48 };
                    let x = if i == corner { rng.operand(exp, frac) } else { tame };
                    acc | (x as u128) << (i as u32 * n)
                })
            };
            let args = [vector(), vector(), vector()];
            let control = (rng.below(4) as u32) << 13;
            let fp = *[FpRule::Arm, FpRule::X86].get(rng.below(2) as usize).unwrap();
            for (vector_op, scalar_op) in pairs {
                let choices = match vector_op {
                    Op::Vfmin | Op::Vfmax => 3,
                    Op::Vfcmp => 13,
                    _ => 6,
                };
                let aux = rng.below(choices) as u8;
                let (ty, src_ty) = match scalar_op {
                    Op::FtoS | Op::FtoU => (int, float),
                    Op::StoF | Op::UtoF => (float, int),
                    _ => (float, float),
                };
                let op = EvalOp { shape, aux, fp, ..head(vector_op, Type::V128) };
                let scalar = EvalOp { aux, fp, src_ty, ..head(scalar_op, ty) };
                let got = run(&op, args, control);
                let mut want = (0u128, 0);
                for i in 0..shape.lanes() {
                    let lane = args.map(|x| x >> (i * n) & (u128::MAX >> (128 - n)));
                    let (mut x, flags) = run(&scalar, lane, control);
                    if vector_op == Op::Vfcmp && x != 0 {
                        x = u128::MAX >> (128 - n);
                    }
                    want = (want.0 | x << (i * n), want.1 | flags);
                }
                assert_eq!(got, want, "{op:?} {args:x?} {control:#x}");
            }
        }
        let x = rng.operand(11, 52) as u128 | (rng.operand(11, 52) as u128) << 64;
        let one =
            |op: Op, ty, src_ty, x: u128| run(&EvalOp { src_ty, ..head(op, ty) }, [x, 0, 0], 0);
        let low = one(Op::Fdemote, Type::F32, Type::F64, x & u64::MAX as u128);
        let high = one(Op::Fdemote, Type::F32, Type::F64, x >> 64);
        let both = one(Op::VfdemoteLo, Type::V128, Type::V128, x);
        assert_eq!(both, (low.0 | high.0 << 32, low.1 | high.1));
        let low = one(Op::Fpromote, Type::F64, Type::F32, x & 0xffff_ffff);
        let high = one(Op::Fpromote, Type::F64, Type::F32, x >> 32 & 0xffff_ffff);
        let both = one(Op::VfpromoteLo, Type::V128, Type::V128, x);
        assert_eq!(both, (low.0 | high.0 << 64, low.1 | high.1));
    }
}

impl GuestMem for Host {
    fn load(&mut self, _: GuestVa, _: MemOp) -> Result<u64, MemFault> {
        unreachable!()
    }
    fn store(&mut self, _: GuestVa, _: MemOp, _: u64) -> Result<(), MemFault> {
        unreachable!()
    }
    fn load128(&mut self, _: GuestVa, _: MemOp) -> Result<u128, MemFault> {
        unreachable!()
    }
    fn store128(&mut self, _: GuestVa, _: MemOp, _: u128) -> Result<(), MemFault> {
        unreachable!()
    }
    fn rmw(&mut self, _: GuestVa, _: MemOp, _: RmwOp, _: u64) -> Result<u64, MemFault> {
        unreachable!()
    }
    fn cas(&mut self, _: GuestVa, _: MemOp, _: u128, _: u128) -> Result<u128, MemFault> {
        unreachable!()
    }
}

impl HelperEnv for Host {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        0
    }
    fn processor_id(&mut self) -> u32 {
        0
    }
    fn random(&mut self, _: &mut [u8]) {}
}

/// The interpreter's fast paths raise the same flags as the reference.
#[test]
fn programs_raise_the_same_flags() {
    let cases: Vec<(EvalOp, RegLayout, Program)> = [
        (Op::Fadd, Type::F32, Type::F32, Type::F32),
        (Op::Fadd, Type::F64, Type::F64, Type::F64),
        (Op::Fsub, Type::F32, Type::F32, Type::F32),
        (Op::Fsub, Type::F64, Type::F64, Type::F64),
        (Op::Fmul, Type::F32, Type::F32, Type::F32),
        (Op::Fmul, Type::F64, Type::F64, Type::F64),
        (Op::Fdiv, Type::F32, Type::F32, Type::F32),
        (Op::Fdiv, Type::F64, Type::F64, Type::F64),
        (Op::Fsqrt, Type::F32, Type::F32, Type::F32),
        (Op::Fsqrt, Type::F64, Type::F64, Type::F64),
        (Op::FcmpNzcv, Type::F32, Type::F32, Type::I32),
        (Op::FcmpNzcv, Type::F64, Type::F64, Type::I32),
        (Op::StoF, Type::F32, Type::I64, Type::F32),
        (Op::StoF, Type::F64, Type::I64, Type::F64),
        (Op::StoF, Type::F32, Type::I32, Type::F32),
        (Op::UtoF, Type::F32, Type::I64, Type::F32),
        (Op::UtoF, Type::F64, Type::I64, Type::F64),
        (Op::Fpromote, Type::F64, Type::F32, Type::F64),
        (Op::Fdemote, Type::F32, Type::F64, Type::F32),
        (Op::Fma, Type::F64, Type::F64, Type::F64),
        (Op::Vfadd, Type::V128, Type::V128, Type::V128),
        (Op::Vfmul, Type::V128, Type::V128, Type::V128),
        (Op::Vfdiv, Type::V128, Type::V128, Type::V128),
    ]
    .into_iter()
    .flat_map(|(op, ty, from, to)| {
        [FpRule::Arm, FpRule::X86]
            .map(|rule| [Shape::F32x4, Shape::F64x2].map(|s| (rule, s)))
            .into_iter()
            .flatten()
            .map(move |(rule, shape)| (op, ty, from, to, rule, shape))
    })
    .map(|(op, ty, from, to, rule, shape)| {
        let mut layout = RegLayout::new();
        let operands = ["a", "b", "c"].map(|name| layout.add(name, from, None));
        let result = layout.add("r", to, None);
        let mut unit = Unit::new(0, 0, rule);
        let mut b = Builder::new(&mut unit, &layout, &[]);
        let mut args = [Value::NONE; 3];
        for (arg, &slot) in args.iter_mut().zip(&operands).take(op.info().args.len()) {
            *arg = b.get(slot);
        }
        let v = b.emit(Inst { args, shape, ..Inst::new(op, ty) });
        b.set(result, v);
        b.exit(0);
        b.finish();
        let program = Program::new(&unit, &layout, &[]);
        let inst = unit.insts.iter().find(|inst| inst.op == op).unwrap();
        let op = EvalOp::of(inst, &unit);
        (op, layout, program)
    })
    .collect();
    let mut rng = Rng(4711);
    let mut state = CpuState::new();
    for _ in 0..10_000 {
        for (op, layout, program) in &cases {
            let single =
                op.src_ty == Type::F32 || op.src_ty == Type::V128 && op.shape == Shape::F32x4;
            let mut args = [0u128; 3];
            for (arg, slot) in args.iter_mut().zip(layout.slots()) {
                for cell in slot.cell..slot.cell + slot.ty.cells() {
                    let mut x = rng.operand(11, 52);
                    if single {
                        x = rng.operand(8, 23) | 0x3f80_0000 << 32;
                    }
                    state.set(cell, x);
                }
                *arg = state.get128(slot.cell) & (u128::MAX >> (128 - slot.ty.bits()));
            }
            let control = (rng.below(4) as u32) << 13;
            set_mxcsr(0x1f80 | control);
            let want = eval(op, args, &mut Host);
            let want_flags = mxcsr() & 0x3f;
            set_mxcsr(0x1f80 | control);
            let outcome = run(program, &mut state, &[], &mut Host);
            let flags = mxcsr() & 0x3f;
            set_mxcsr(0x1f80);
            assert_eq!(outcome, Outcome::Direct(0));
            let result = &layout.slots()[3];
            let got = state.get128(result.cell) & (u128::MAX >> (128 - result.ty.bits()));
            assert_eq!((got, flags), (want, want_flags), "{op:?} {args:x?} {control:#x}");
        }
    }
}
