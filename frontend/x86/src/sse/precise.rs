//! Floating-point instructions in software, where the IR's operations would not do: with an unmasked exception, where
//! all exceptions must be known before anything changes, and for some of them while denormals are flushed. Also the
//! few that have no IR operation.
//!
//! One helper does every instruction. What and on which registers is in the call's immediate ([`Call`]); memory
//! operands and general registers come as arguments. Exceptions of all elements count together (manual volume 1,
//! 11.5.2): invalid operation, denormal operand and division by zero are found before the computation, and if one of
//! them is unmasked, overflow, underflow and inexactness of other elements are not found at all.

use super::FIRST_PRECISE;
use super::operand::{first, is_vex};
use crate::cpu::Vendor;
use crate::helpers::helpers;
use crate::operand::Intent;
use crate::regs::{self, cell};
use crate::{Lifter, key};
use iced_x86::{Instruction, OpKind};
use tulk_base::Trap;
use tulk_ir::{Access, FpFlags, HelperCx, Shape, Slot, Type, Value};
use tulk_softfloat::{
    self as soft, Env, F16, F32, F64, F128, Flags, Format, IntRule, IntType, MinMax, NanRule,
    Negate, Rounding,
};

helpers! { FIRST_PRECISE;
    /// See the module. Arguments: memory operand, its upper half, a general register. The result is the general
    /// register's or EFLAGS' new value.
    PRECISE = precise(V128, V128, I64) -> I64, Access::These(READS), Access::These(WRITES), traps;
}

const READS: &[Slot] = &slots::<33>();
const WRITES: &[Slot] = &slots::<32>();

/// The vector registers, and MXCSR as the 33rd.
const fn slots<const N: usize>() -> [Slot; N] {
    let mut all = [regs::MXCSR; N];
    let mut n = 0;
    while n < 16 {
        all[n] = regs::XMM[n];
        all[16 + n] = regs::YMMH[n];
        n += 1;
    }
    all
}

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Sqrt,
    /// The immediate is the predicate.
    Compare,
    AddSub,
    HorizontalAdd,
    HorizontalSub,
    /// The immediate is that of ROUNDPS.
    Round,
    /// The immediate is [`super::fused::Form`]'s.
    Fused,
    /// The immediate is that of DPPS.
    Dot,
    /// F32 to F64.
    Widen,
    /// F64 to F32.
    Narrow,
    /// Integers to `double` or single floats.
    FromInt,
    ToInt,
    ToIntZero,
    /// COMISS; the immediate is 1 for UCOMISS.
    Order,
    HalfToSingle,
    /// The immediate is that of VCVTPS2PH.
    SingleToHalf,
}

impl Op {
    const ALL: [Op; 22] = [
        Op::Add,
        Op::Sub,
        Op::Mul,
        Op::Div,
        Op::Min,
        Op::Max,
        Op::Sqrt,
        Op::Compare,
        Op::AddSub,
        Op::HorizontalAdd,
        Op::HorizontalSub,
        Op::Round,
        Op::Fused,
        Op::Dot,
        Op::Widen,
        Op::Narrow,
        Op::FromInt,
        Op::ToInt,
        Op::ToIntZero,
        Op::Order,
        Op::HalfToSingle,
        Op::SingleToHalf,
    ];
}

/// One instruction, as it travels in the immediate.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub op: Op,
    pub imm: u8,
    /// The floats are F64 (of conversions: the narrower side's partner, see [`Op`]).
    pub double: bool,
    pub scalar: bool,
    /// 256 bits.
    wide: bool,
    vex: bool,
    /// The integer is 64 bits wide. Of VCVTPS2PH: the result is returned, its half that `scalar` says.
    pub long: bool,
    /// A processor of Intel.
    intel: bool,
    /// Register numbers: destination, then the sources; 16: from the arguments.
    regs: [u8; 4],
}

const MEMORY: u8 = 16;

impl Call {
    fn pack(self) -> i64 {
        let flag = |b: bool, n: u32| (b as i64) << n;
        let regs = self.regs.iter().rev().fold(0, |v, &r| v << 5 | r as i64);
        self.op as i64
            | (self.imm as i64) << 8
            | flag(self.double, 16)
            | flag(self.scalar, 17)
            | flag(self.wide, 18)
            | flag(self.vex, 19)
            | flag(self.long, 20)
            | flag(self.intel, 21)
            | regs << 24
    }
    fn unpack(v: u64) -> Call {
        let flag = |n: u32| v >> n & 1 != 0;
        Call {
            op: Op::ALL[v as usize & 0xff],
            imm: (v >> 8) as u8,
            double: flag(16),
            scalar: flag(17),
            wide: flag(18),
            vex: flag(19),
            long: flag(20),
            intel: flag(21),
            regs: std::array::from_fn(|n| (v >> (24 + 5 * n)) as u8 & 31),
        }
    }
}

/// Whether an instruction whose IR operations know of flushed denormals goes this way.
pub fn traps(l: &Lifter<'_>) -> bool {
    l.key.has(key::SSE_TRAPS)
}

/// Whether an instruction whose IR operations do not know of flushed denormals goes this way.
pub fn traps_or_flushes(l: &Lifter<'_>) -> bool {
    l.key.has(key::SSE_TRAPS | key::SSE_FLUSH)
}

/// Calls the helper for an instruction. Sources are the operands from the first source on.
pub fn call(
    l: &mut Lifter<'_>,
    insn: &Instruction,
    op: Op,
    double: bool,
    scalar: bool,
    imm: u32,
) -> Value {
    let zero = l.vconst(0);
    let mut args = [zero, zero, Value::NONE];
    let mut call = Call {
        op,
        imm: imm as u8,
        double,
        scalar,
        wide: insn.memory_size().size() == 32
            || (0..insn.op_count()).any(|n| insn.op_register(n).is_ymm()),
        vex: is_vex(insn),
        long: false,
        intel: l.cpu.chip().vendor == Vendor::Intel,
        regs: [0; 4],
    };
    let one_source = (!scalar || op == Op::SingleToHalf)
        && matches!(
            op,
            Op::Sqrt
                | Op::Round
                | Op::Widen
                | Op::Narrow
                | Op::FromInt
                | Op::ToInt
                | Op::ToIntZero
                | Op::HalfToSingle
                | Op::SingleToHalf
        );
    let from = match op {
        Op::Fused => 0,
        Op::Order => 0,
        Op::ToInt | Op::ToIntZero if scalar => 0,
        _ if one_source => 0,
        _ => first(insn),
    };
    // With one source it is the second of a pair whose first is the destination.
    for n in 0..3 {
        let operand = from + n as u32;
        if operand >= insn.op_count() {
            break;
        }
        call.regs[n + 1] = match insn.op_kind(operand) {
            OpKind::Register => {
                let r = insn.op_register(operand);
                if r.is_xmm() || r.is_ymm() {
                    r.number() as u8
                } else {
                    call.long |= r.is_gpr64();
                    if op == Op::FromInt {
                        let v = l.reg(r);
                        args[2] = l.zext(Type::I64, v);
                    }
                    0
                }
            }
            OpKind::Memory if operand == 0 => {
                call.long = true;
                0
            }
            OpKind::Memory => {
                let bytes = insn.memory_size().size();
                if op == Op::FromInt && scalar {
                    call.long = bytes == 8;
                    let ty = if bytes == 8 { Type::I64 } else { Type::I32 };
                    let addr = l.address(insn, bytes as u32, Intent::Read);
                    let v = l.load(ty, addr);
                    args[2] = l.zext(Type::I64, v);
                } else if bytes >= 16 {
                    let v = l.vector(insn, operand);
                    (args[0], args[1]) = (v.lo, v.hi.unwrap_or(zero));
                } else {
                    let log2 = bytes.trailing_zeros() as u8;
                    args[0] = l.low_part(insn, operand, log2);
                }
                MEMORY
            }
            _ => 0,
        };
    }
    if insn.op0_kind() == OpKind::Register {
        let r = insn.op0_register();
        if r.is_xmm() || r.is_ymm() {
            call.regs[0] = r.number() as u8;
        }
    }
    if args[2].is_none() {
        args[2] = l.iconst(Type::I64, 0);
    }
    l.call(PRECISE, &args, call.pack())
}

/// Exceptions of one step, over all elements.
struct Sum(Flags);

const BEFORE: u16 = Flags::INVALID.0 | Flags::DENORMAL.0 | Flags::DIV_ZERO.0;

/// Linux's `si_code` for the SIGFPE of a set of unmasked exceptions.
fn si_code(exceptions: u32) -> u32 {
    const DIV: u32 = 3;
    const OVF: u32 = 4;
    const UND: u32 = 5;
    const RES: u32 = 6;
    const INV: u32 = 7;
    match exceptions {
        e if e & 1 != 0 => INV,
        e if e & 4 != 0 => DIV,
        e if e & 8 != 0 => OVF,
        e if e & 0x12 != 0 => UND,
        _ => RES,
    }
}

impl Sum {
    /// Raises the exceptions, or fails with them.
    fn settle(&self, cx: &mut HelperCx<'_>, masks: u16) -> Result<(), Trap> {
        let mut flags = self.0.0;
        if flags & Flags::TINY.0 != 0 && masks & Flags::UNDERFLOW.0 == 0 {
            flags |= Flags::UNDERFLOW.0;
        }
        let before = flags & BEFORE;
        let raised = if before & !masks != 0 { before } else { flags & 0x3f };
        cx.env.fp_raise(FpFlags(raised as u8));
        if raised & !masks != 0 {
            let all = cx.env.fp_flags().0 as u32 & !masks as u32;
            return Err(Trap::Arithmetic(si_code(all)));
        }
        Ok(())
    }
}

/// Two halves.
type Wide = [u128; 2];

fn lane(v: &Wide, bits: u32, n: u32) -> u64 {
    let at = n * bits;
    let mask = u64::MAX >> (64 - bits);
    (v[at as usize / 128] >> (at % 128)) as u64 & mask
}

fn set_lane(v: &mut Wide, bits: u32, n: u32, x: u64) {
    let at = n * bits;
    let mask = (u64::MAX >> (64 - bits)) as u128;
    let half = &mut v[at as usize / 128];
    *half = *half & !(mask << (at % 128)) | (x as u128 & mask) << (at % 128);
}

/// `f::<F32>` or `f::<F64>` on bits in the low end of a u64.
macro_rules! by_format {
    ($double:expr, $env:expr, $f:ident($($x:expr),*) $($rest:tt)*) => {
        if $double {
            soft::$f::<F64>($env, $($x),* $($rest)*)
        } else {
            soft::$f::<F32>($env, $($x as u32),* $($rest)*) as u64
        }
    };
}

/// The table of comparison predicates: bit 0 less, 1 equal, 2 greater, 3 unordered; and which signal quiet NaNs.
pub const PREDICATES: [(u8, bool); 32] = {
    const BASE: [(u8, bool); 16] = [
        (0b0010, false),
        (0b0001, true),
        (0b0011, true),
        (0b1000, false),
        (0b1101, false),
        (0b1110, true),
        (0b1100, true),
        (0b0111, false),
        (0b1010, false),
        (0b1001, true),
        (0b1011, true),
        (0b0000, false),
        (0b0101, false),
        (0b0110, true),
        (0b0100, true),
        (0b1111, false),
    ];
    let mut all = [(0, false); 32];
    let mut n = 0;
    while n < 32 {
        let (table, signals) = BASE[n % 16];
        all[n] = (table, signals != (n >= 16));
        n += 1;
    }
    all
};

/// Arithmetic on up to three operands.
#[derive(Clone, Copy)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Fused(Negate),
}

/// What makes a result one with an unbounded exponent: tiny or too large with that exception unmasked. It is then
/// inexact only if its significand had to be rounded (manual volume 1, 4.9.1.4 to 4.9.1.6).
fn unbounded(masks: u16) -> Flags {
    let tiny = if masks & Flags::UNDERFLOW.0 == 0 { Flags::TINY } else { Flags::NONE };
    let large = if masks & Flags::OVERFLOW.0 == 0 { Flags::OVERFLOW } else { Flags::NONE };
    tiny | large
}

/// One operation; see [`unbounded`].
fn arithmetic(env: &mut Env, unbounded: Flags, double: bool, op: Arithmetic, x: [u64; 3]) -> u64 {
    fn run<F: Format>(env: &mut Env, op: Arithmetic, [a, b, c]: [F::Bits; 3]) -> F::Bits {
        match op {
            Arithmetic::Add => soft::add::<F>(env, a, b),
            Arithmetic::Sub => soft::sub::<F>(env, a, b),
            Arithmetic::Mul => soft::mul::<F>(env, a, b),
            Arithmetic::Div => soft::div::<F>(env, a, b),
            Arithmetic::Fused(negate) => soft::fma_with::<F>(env, a, b, c, negate),
        }
    }
    let before = env.flags;
    env.flags = Flags::NONE;
    let result = if double {
        run::<F64>(env, op, x)
    } else {
        run::<F32>(env, op, x.map(|x| x as u32)) as u64
    };
    if env.flags.0 & unbounded.0 != 0 && env.flags.contains(Flags::INEXACT) {
        // The same in a format with room for every exponent.
        let mut wide = Env::new(NanRule::Sse);
        wide.flush_inputs = env.flush_inputs;
        let x = x.map(|x| match double {
            true => soft::convert::<F64, F128>(&mut wide, x),
            false => soft::convert::<F32, F128>(&mut wide, x as u32),
        });
        wide.flags = Flags::NONE;
        let r = run::<F128>(&mut wide, op, x);
        let exact = !wide.flags.contains(Flags::INEXACT);
        if exact && significant_bits(r) <= if double { 53 } else { 24 } {
            env.flags.0 &= !Flags::INEXACT.0;
        }
    }
    env.flags |= before;
    result
}

/// Bits of the significand of a normal binary128, without trailing zeroes.
fn significant_bits(r: u128) -> u32 {
    113 - (r & (u128::MAX >> 16) | 1 << 112).trailing_zeros()
}

/// Conversion to a narrower format; `unbounded` as in [`arithmetic`].
fn narrow<F: Format, R: Format>(env: &mut Env, unbounded: Flags, x: F::Bits) -> R::Bits {
    let before = env.flags;
    env.flags = Flags::NONE;
    let result = soft::convert::<F, R>(env, x);
    if env.flags.0 & unbounded.0 != 0 && env.flags.contains(Flags::INEXACT) {
        let wide = soft::convert::<F, F128>(&mut Env::new(NanRule::Sse), x);
        if significant_bits(wide) <= R::PREC {
            env.flags.0 &= !Flags::INEXACT.0;
        }
    }
    env.flags |= before;
    result
}

fn compare(env: &mut Env, double: bool, a: u64, b: u64, signalling: bool) -> u8 {
    use std::cmp::Ordering::*;
    let order = if double {
        soft::compare::<F64>(env, a, b, signalling)
    } else {
        soft::compare::<F32>(env, a as u32, b as u32, signalling)
    };
    match order {
        Some(Less) => 1,
        Some(Equal) => 2,
        Some(Greater) => 4,
        None => 8,
    }
}

/// The rounding mode that the low three bits of an immediate select.
fn rounding(env: &Env, imm: u8) -> Rounding {
    match imm & 7 {
        0 => Rounding::NearestEven,
        1 => Rounding::Down,
        2 => Rounding::Up,
        3 => Rounding::Zero,
        _ => env.rounding,
    }
}

fn fused(env: &mut Env, unbounded: Flags, c: &Call, x: [u64; 3], odd: bool) -> u64 {
    let form = super::fused::Form::unpack(c.imm);
    let negate = Negate { product: form.product, addend: form.addend[odd as usize], result: false };
    let x = form.order.map(|n| x[n as usize]);
    arithmetic(env, unbounded, c.double, Arithmetic::Fused(negate), x)
}

/// One element of an instruction whose elements stand alone, with two sources.
fn element(env: &mut Env, unbounded: Flags, c: &Call, a: u64, b: u64, n: u32) -> u64 {
    let d = c.double;
    let mut compute = |op| arithmetic(env, unbounded, d, op, [a, b, 0]);
    match c.op {
        Op::Add => compute(Arithmetic::Add),
        Op::Sub => compute(Arithmetic::Sub),
        Op::Mul => compute(Arithmetic::Mul),
        Op::Div => compute(Arithmetic::Div),
        Op::Min => by_format!(d, env, min(a, b), MinMax::Second),
        Op::Max => by_format!(d, env, max(a, b), MinMax::Second),
        Op::Sqrt => by_format!(d, env, sqrt(b)),
        Op::AddSub if n & 1 == 0 => compute(Arithmetic::Sub),
        Op::AddSub => compute(Arithmetic::Add),
        Op::Compare => {
            let (table, signalling) = PREDICATES[c.imm as usize & 31];
            if table & compare(env, d, a, b, signalling) != 0 { u64::MAX } else { 0 }
        }
        Op::Round => {
            let mode = rounding(env, c.imm);
            by_format!(d, env, round_to_integral(b), mode, c.imm & 8 == 0)
        }
        _ => unreachable!("{:?} is not done by elements", c.op),
    }
}

fn to_int(env: &mut Env, c: &Call, a: u64) -> u64 {
    let mode = if c.op == Op::ToInt { env.rounding } else { Rounding::Zero };
    let int = if c.long { IntType::I64 } else { IntType::I32 };
    if c.double {
        soft::to_int::<F64>(env, a, int, mode, IntRule::X86)
    } else {
        soft::to_int::<F32>(env, a as u32, int, mode, IntRule::X86)
    }
}

fn from_int(env: &mut Env, double: bool, a: i64) -> u64 {
    if double { soft::from_i64::<F64>(env, a) } else { soft::from_i64::<F32>(env, a) as u64 }
}

fn precise(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let c = Call::unpack(args[3] as u64);
    let mxcsr = cx.state.get(cell(regs::MXCSR)) as u32;
    let masks = (mxcsr >> 7) as u16 & 0x3f;
    let unbounded = unbounded(masks);
    let mut env = Env::sse(mxcsr);
    let read = |cx: &HelperCx<'_>, n: usize| -> Wide {
        match c.regs[n] {
            MEMORY => [args[0], args[1]],
            r => [
                cx.state.get128(cell(regs::XMM[r as usize])),
                cx.state.get128(cell(regs::YMMH[r as usize])),
            ],
        }
    };
    let (a, b) = (read(cx, 1), read(cx, 2));
    let bits = if c.double { 64 } else { 32 };
    let halves = 1 + c.wide as u32;
    let lanes = if c.scalar { 1 } else { halves * 128 / bits };
    let mut sum = Flags::NONE;
    // The result; a scalar keeps the rest of the first source.
    let mut out: Wide = if c.scalar { [a[0], 0] } else { [0; 2] };
    let mut result = 0u64;
    match c.op {
        Op::Fused => {
            let third = read(cx, 3);
            for n in 0..lanes {
                let x = [a, b, third].map(|v| lane(&v, bits, n));
                set_lane(&mut out, bits, n, fused(&mut env, unbounded, &c, x, n & 1 != 0));
            }
        }
        Op::HorizontalAdd | Op::HorizontalSub => {
            let per_half = 128 / bits;
            for n in 0..lanes {
                let (half, at) = (n / per_half, n % per_half);
                let v = if at < per_half / 2 { &a } else { &b };
                let even = half * per_half + 2 * at % per_half;
                let (x, y) = (lane(v, bits, even), lane(v, bits, even + 1));
                let r = match c.op {
                    Op::HorizontalAdd => by_format!(c.double, &mut env, add(x, y)),
                    _ => by_format!(c.double, &mut env, sub(x, y)),
                };
                set_lane(&mut out, bits, n, r);
            }
        }
        Op::Dot => return dot(cx, &c, env, masks, a, b),
        Op::Widen => {
            let lanes = if c.scalar { 1 } else { 2 * halves };
            for n in 0..lanes {
                let x = lane(&b, 32, n) as u32;
                set_lane(&mut out, 64, n, soft::convert::<F32, F64>(&mut env, x));
            }
        }
        Op::Narrow => {
            let lanes = if c.scalar { 1 } else { 2 * halves };
            for n in 0..lanes {
                let x = lane(&b, 64, n);
                set_lane(&mut out, 32, n, narrow::<F64, F32>(&mut env, unbounded, x) as u64);
            }
        }
        Op::FromInt if c.scalar => {
            let v = args[2] as u64;
            let v = if c.long { v as i64 } else { v as i32 as i64 };
            set_lane(&mut out, bits, 0, from_int(&mut env, c.double, v));
        }
        Op::FromInt => {
            for n in 0..lanes {
                let x = lane(&b, 32, n) as i32 as i64;
                set_lane(&mut out, bits, n, from_int(&mut env, c.double, x));
            }
        }
        Op::ToInt | Op::ToIntZero if c.scalar => {
            result = to_int(&mut env, &c, lane(&b, bits, 0));
        }
        Op::ToInt | Op::ToIntZero => {
            for n in 0..lanes {
                let x = to_int(&mut env, &c, lane(&b, bits, n));
                set_lane(&mut out, 32, n, x);
            }
        }
        Op::Order => {
            let order =
                compare(&mut env, c.double, lane(&a, bits, 0), lane(&b, bits, 0), c.imm == 0);
            // CF, PF, ZF.
            result = match order {
                1 => 0x01,
                2 => 0x40,
                4 => 0,
                _ => 0x45,
            };
        }
        Op::HalfToSingle => {
            for n in 0..4 * halves {
                let x = lane(&b, 16, n) as u16;
                set_lane(&mut out, 32, n, half_to_single(&mut env, x) as u64);
            }
        }
        Op::SingleToHalf => {
            let mode = rounding(&env, c.imm);
            let mut env16 = env.with_rounding(mode);
            env16.flush_outputs = false;
            out = [0; 2];
            for n in 0..4 * halves {
                let x = lane(&b, 32, n) as u32;
                set_lane(&mut out, 16, n, narrow::<F32, F16>(&mut env16, unbounded, x) as u64);
            }
            // Processors of Intel take denormals for inexact, also those that are exact in [`unbounded`]'s sense.
            if c.intel && env16.flags.contains(Flags::DENORMAL) {
                env16.raise(Flags::INEXACT);
            }
            env.flags = env16.flags;
            result = lane(&out, 64, c.scalar as u32);
        }
        _ => {
            for n in 0..lanes {
                let (x, y) = (lane(&a, bits, n), lane(&b, bits, n));
                set_lane(&mut out, bits, n, element(&mut env, unbounded, &c, x, y, n));
            }
        }
    }
    sum |= env.flags;
    Sum(sum).settle(cx, masks)?;
    let to_register = match c.op {
        Op::Order => false,
        Op::ToInt | Op::ToIntZero => !c.scalar,
        Op::SingleToHalf => !c.long,
        _ => true,
    };
    if to_register {
        write(cx, &c, out);
    }
    Ok(result as u128)
}

/// Writes the destination by the encoding's rules.
fn write(cx: &mut HelperCx<'_>, c: &Call, v: Wide) {
    let r = c.regs[0] as usize;
    cx.state.set128(cell(regs::XMM[r]), v[0]);
    if c.vex {
        let upper = if c.wide && !c.scalar { v[1] } else { 0 };
        cx.state.set128(cell(regs::YMMH[r]), upper);
    }
}

/// Half precision raises nothing for denormals, and none are flushed.
fn half_to_single(env: &mut Env, x: u16) -> u32 {
    let mut quiet = *env;
    quiet.flags = Flags::NONE;
    let r = soft::convert::<F16, F32>(&mut quiet, x);
    env.raise(Flags(quiet.flags.0 & !Flags::DENORMAL.0));
    r
}

/// Which lanes DPPS and DPPD add up in lane `n`, `step` apart; of two NaNs the first one is the sum. On processors of
/// AMD the lower lane comes first everywhere. On those of Intel (measured on Sapphire Rapids) it is the lane itself,
/// but in the first step of DPPS the other one.
pub fn dot_pair(intel: bool, double: bool, step: usize, n: usize) -> (usize, usize) {
    match (intel, !double && step == 1) {
        (false, _) => (n & !step, n | step),
        (true, false) => (n, n ^ step),
        (true, true) => (n ^ step, n),
    }
}

/// DPPS, DPPD: products, then sums of two, then (DPPS) of those. Each step's exceptions are its own.
fn dot(
    cx: &mut HelperCx<'_>,
    c: &Call,
    mut env: Env,
    masks: u16,
    a: Wide,
    b: Wide,
) -> Result<u128, Trap> {
    let unbounded = unbounded(masks);
    let bits = if c.double { 64 } else { 32 };
    let per_half = 128 / bits;
    let halves = 1 + c.wide as u32;
    let mut v: Wide = [0; 2];
    for n in 0..halves * per_half {
        if c.imm >> (4 + n % per_half) & 1 != 0 {
            let (x, y) = (lane(&a, bits, n), lane(&b, bits, n));
            let r = arithmetic(&mut env, unbounded, c.double, Arithmetic::Mul, [x, y, 0]);
            set_lane(&mut v, bits, n, r);
        }
    }
    Sum(env.flags).settle(cx, masks)?;
    let mut step = 1;
    while step < per_half as usize {
        env.flags = Flags::NONE;
        let from = v;
        for n in 0..halves * per_half {
            let (x, y) = dot_pair(c.intel, c.double, step, n as usize);
            let (x, y) = (lane(&from, bits, x as u32), lane(&from, bits, y as u32));
            set_lane(&mut v, bits, n, by_format!(c.double, &mut env, add(x, y)));
        }
        Sum(env.flags).settle(cx, masks)?;
        step *= 2;
    }
    for n in 0..halves * per_half {
        if c.imm >> (n % per_half) & 1 == 0 {
            set_lane(&mut v, bits, n, 0);
        }
    }
    write(cx, c, v);
    Ok(0)
}

/// Width of a format's lanes.
pub fn shape_of(double: bool) -> Shape {
    if double { Shape::F64x2 } else { Shape::F32x4 }
}
