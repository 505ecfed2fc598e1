//! x87 arithmetic as functions of numbers, all exceptions being masked: what lifted code calls while no register
//! is empty. They are pure, so that generated code calls them directly ([`tulk_ir::HelperDef::direct`]).
//!
//! A result has 80 bits; above them, from bit [`STATUS`] on, stands what the status word gets.

use super::fast::{self, Normal};
use super::unit::{self, Format, Op, Step};
use crate::helpers::{FIRST_NUMBER, helpers};
use tulk_base::Trap;
use tulk_ir::{Access, Halves, HelperCx};
use tulk_softfloat::{self as soft, Env, F80, Rounding};

/// Where exceptions and C1 stand in a result.
pub const STATUS: u32 = 80;

fn wide(low: u64, high: u64) -> u128 {
    Halves(low, high).into()
}

#[inline]
fn with_status(v: u128, status: u16) -> u128 {
    v | (status as u128) << STATUS
}

/// `a op b`; the immediate is a [`Step`], which names the format of a datum `b` of memory. Takes the words that its callers
/// take, so that they end with a jump here and keep nothing for it.
#[cold]
#[inline(never)]
extern "C" fn general<const OP: u8>(
    a0: u64,
    a1: u64,
    b0: u64,
    b1: u64,
    fcw: u64,
    imm: u64,
) -> Halves {
    let (op, a) = (Op::ALL[OP as usize], wide(a0, a1));
    let mut env = Env::x87(fcw as u16);
    let b = unit::second(&mut env, Step::format_of(imm), a, wide(b0, b1));
    let v = unit::arithmetic(op, &mut env, a, b);
    with_status(v, unit::status(env.flags)).into()
}

/// Two registers, or a register and a rare datum of memory.
#[inline(always)]
fn registers<const OP: u8>(a: Halves, b: Halves, fcw: u64, imm: u64) -> Halves {
    if fast::applies(fcw)
        && Step::format_of(imm).is_none()
        && let Some(x) = Normal::of_register(a.0, a.1)
        && let Some(y) = Normal::of_register(b.0, b.1)
        && let Some(v) = fast::arithmetic(Op::ALL[OP as usize], x, y)
    {
        return v;
    }
    general::<OP>(a.0, a.1, b.0, b.1, fcw, imm)
}

/// A register and a datum of memory.
#[inline(always)]
fn with_memory<const OP: u8>(format: Format, a: Halves, raw: u64, fcw: u64, imm: u64) -> Halves {
    if fast::applies(fcw)
        && let Some(x) = Normal::of_register(a.0, a.1)
        && let Some(y) = Normal::of_memory(format, raw)
        && let Some(v) = fast::arithmetic(Op::ALL[OP as usize], x, y)
    {
        return v;
    }
    general::<OP>(a.0, a.1, raw, 0, fcw, imm)
}

/// The forms of an arithmetic operation: of registers (or a rare datum of memory), of a binary64 and a binary32.
macro_rules! operations {
    ($($op:ident: $any:ident $direct:ident $double:ident $direct_double:ident $single:ident $direct_single:ident;)*) => {$(
        fn $any(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
            let [a, b, fcw, imm] = *args;
            Ok(registers::<{ Op::$op as u8 }>(a.into(), b.into(), fcw as u64, imm as u64).into())
        }
        extern "C" fn $direct(a0: u64, a1: u64, b0: u64, b1: u64, fcw: u64, imm: u64) -> Halves {
            registers::<{ Op::$op as u8 }>(Halves(a0, a1), Halves(b0, b1), fcw, imm)
        }
        operations!(@memory $op F64 $double $direct_double);
        operations!(@memory $op F32 $single $direct_single);
    )*};
    (@memory $op:ident $format:ident $helper:ident $direct:ident) => {
        fn $helper(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
            let [raw, fcw, imm] = [args[1], args[2], args[3]].map(|v| v as u64);
            Ok(with_memory::<{ Op::$op as u8 }>(Format::$format, args[0].into(), raw, fcw, imm).into())
        }
        extern "C" fn $direct(a0: u64, a1: u64, raw: u64, fcw: u64, imm: u64, _: u64) -> Halves {
            with_memory::<{ Op::$op as u8 }>(Format::$format, Halves(a0, a1), raw, fcw, imm)
        }
    };
}

operations! {
    Add: x87_add direct_add x87_add_double direct_add_double x87_add_single direct_add_single;
    Mul: x87_mul direct_mul x87_mul_double direct_mul_double x87_mul_single direct_mul_single;
    Sub: x87_sub direct_sub x87_sub_double direct_sub_double x87_sub_single direct_sub_single;
    SubR: x87_subr direct_subr x87_subr_double direct_subr_double x87_subr_single direct_subr_single;
    Div: x87_div direct_div x87_div_double direct_div_double x87_div_single direct_div_single;
    DivR: x87_divr direct_divr x87_divr_double direct_divr_double x87_divr_single direct_divr_single;
}

/// The helper of an arithmetic operation. Those of binary64 and binary32 operands take them as I64.
pub fn helper(op: Op, format: Option<Format>) -> u32 {
    let row = match op {
        Op::Add => [ADD, ADD_DOUBLE, ADD_SINGLE],
        Op::Mul => [MUL, MUL_DOUBLE, MUL_SINGLE],
        Op::Sub => [SUB, SUB_DOUBLE, SUB_SINGLE],
        Op::SubR => [SUBR, SUBR_DOUBLE, SUBR_SINGLE],
        Op::Div => [DIV, DIV_DOUBLE, DIV_SINGLE],
        _ => [DIVR, DIVR_DOUBLE, DIVR_SINGLE],
    };
    match format {
        Some(Format::F64) => row[1],
        Some(Format::F32) => row[2],
        _ => row[0],
    }
}

/// Condition codes and exceptions of a comparison.
#[inline(always)]
fn compare(a: Halves, b: Halves, imm: u64) -> u16 {
    let second = match Step::format_of(imm) {
        None => Normal::of_register(b.0, b.1),
        Some(format) => Normal::of_memory(format, b.0),
    };
    if let Some(x) = Normal::of_register(a.0, a.1)
        && let Some(y) = second
    {
        return fast::compare(x, y);
    }
    compare_any(a.into(), b.into(), imm)
}

#[cold]
#[inline(never)]
fn compare_any(a: u128, b: u128, imm: u64) -> u16 {
    let mut env = Env::x87(0x37f);
    let b = unit::second(&mut env, Step::format_of(imm), a, b);
    let signalling = !matches!(Step::unpack(imm).op, Op::Ucom | Op::UcomI);
    unit::compare(a, b, signalling) | env.flags.x86() as u16
}

fn x87_compare(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(compare(args[0].into(), args[1].into(), args[3] as u64) as u128)
}

extern "C" fn direct_compare(a0: u64, a1: u64, b0: u64, b1: u64, imm: u64, _: u64) -> Halves {
    Halves(compare(Halves(a0, a1), Halves(b0, b1), imm) as u64, 0)
}

/// A datum of memory as a register gets it.
#[inline]
fn load(raw: u128, imm: u64) -> u128 {
    let mut env = Env::x87(0x37f);
    let v = unit::load(&mut env, Step::format_of(imm).unwrap_or(Format::F80), raw);
    with_status(v, env.flags.x86() as u16)
}

fn x87_load(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(load(args[0], args[3] as u64))
}

extern "C" fn direct_load(low: u64, high: u64, imm: u64, _: u64, _: u64, _: u64) -> Halves {
    load(wide(low, high), imm).into()
}

/// A register as memory gets it.
#[inline(always)]
fn convert(a: Halves, fcw: u64, imm: u64) -> Halves {
    if fast::applies(fcw)
        && let Some(x) = Normal::of_register(a.0, a.1)
    {
        let quick = match Step::format_of(imm) {
            Some(Format::F64) => fast::to_double(x),
            Some(Format::F32) => fast::to_single(x),
            _ => None,
        };
        if let Some(v) = quick {
            return v;
        }
    }
    convert_any(a.into(), fcw as u16, imm).into()
}

#[inline(never)]
fn convert_any(a: u128, fcw: u16, imm: u64) -> u128 {
    let format = Step::format_of(imm).unwrap_or(Format::F80);
    let mut env = Env::x87(fcw);
    let truncates = Step::unpack(imm).op == Op::StoreTruncated;
    let mode = if truncates { Rounding::Zero } else { env.rounding };
    let v = unit::stored(&mut env, format, a, mode);
    with_status(v, unit::status(env.flags))
}

fn x87_convert(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(convert(args[0].into(), args[1] as u64, args[3] as u64).into())
}

extern "C" fn direct_convert(low: u64, high: u64, fcw: u64, imm: u64, _: u64, _: u64) -> Halves {
    convert(Halves(low, high), fcw, imm)
}

/// FSQRT and FRNDINT.
#[inline(always)]
fn one(op: Op, a: Halves, fcw: u64) -> Halves {
    if op == Op::Sqrt
        && fast::applies(fcw)
        && let Some(x) = Normal::of_register(a.0, a.1)
        && let Some(v) = fast::sqrt(x)
    {
        return v;
    }
    one_any(op, a.into(), fcw as u16).into()
}

#[inline(never)]
fn one_any(op: Op, a: u128, fcw: u16) -> u128 {
    let mut env = Env::x87(fcw);
    let v = match op {
        Op::Sqrt => soft::sqrt::<F80>(&mut env, a),
        _ => {
            let mode = env.rounding;
            soft::round_to_integral::<F80>(&mut env, a, mode, true)
        }
    };
    with_status(v, unit::status(env.flags))
}

fn x87_sqrt(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(one(Op::Sqrt, args[0].into(), args[1] as u64).into())
}

extern "C" fn direct_sqrt(low: u64, high: u64, fcw: u64, _: u64, _: u64, _: u64) -> Halves {
    one(Op::Sqrt, Halves(low, high), fcw)
}

fn x87_rndint(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(one(Op::Rndint, args[0].into(), args[1] as u64).into())
}

extern "C" fn direct_rndint(low: u64, high: u64, fcw: u64, _: u64, _: u64, _: u64) -> Halves {
    one(Op::Rndint, Halves(low, high), fcw)
}

helpers! { FIRST_NUMBER;
    /// Two numbers (the second as in memory if the [`Step`] says so) and the control word; see [`helper`].
    ADD = x87_add(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_add;
    ADD_DOUBLE = x87_add_double(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_add_double;
    ADD_SINGLE = x87_add_single(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_add_single;
    MUL = x87_mul(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_mul;
    MUL_DOUBLE = x87_mul_double(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_mul_double;
    MUL_SINGLE = x87_mul_single(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_mul_single;
    SUB = x87_sub(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_sub;
    SUB_DOUBLE = x87_sub_double(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_sub_double;
    SUB_SINGLE = x87_sub_single(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_sub_single;
    SUBR = x87_subr(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_subr;
    SUBR_DOUBLE = x87_subr_double(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_subr_double;
    SUBR_SINGLE = x87_subr_single(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_subr_single;
    DIV = x87_div(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_div;
    DIV_DOUBLE = x87_div_double(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_div_double;
    DIV_SINGLE = x87_div_single(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_div_single;
    DIVR = x87_divr(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_divr;
    DIVR_DOUBLE = x87_divr_double(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_divr_double;
    DIVR_SINGLE = x87_divr_single(I128, I64, I32) -> I128, Access::None, Access::None, pure => direct_divr_single;
    /// Condition codes and exceptions.
    COMPARE = x87_compare(I128, I128) -> I32, Access::None, Access::None, pure => direct_compare;
    /// A register from memory's datum.
    LOAD = x87_load(I128) -> I128, Access::None, Access::None, pure => direct_load;
    /// A datum for memory from a register and the control word.
    CONVERT = x87_convert(I128, I32) -> I128, Access::None, Access::None, pure => direct_convert;
    SQRT = x87_sqrt(I128, I32) -> I128, Access::None, Access::None, pure => direct_sqrt;
    RNDINT = x87_rndint(I128, I32) -> I128, Access::None, Access::None, pure => direct_rndint;
}
