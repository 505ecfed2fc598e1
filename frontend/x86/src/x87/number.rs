//! x87 arithmetic as functions of numbers, all exceptions being masked: what lifted code calls while no register
//! is empty. They are pure, so that generated code calls them directly ([`tulk_ir::HelperDef::direct`]).
//!
//! A result has 80 bits; above them, from bit [`STATUS`] on, stands what the status word gets.

use super::fast;
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

/// `a op b`, where `b` may be a datum of memory: the immediate is a [`Step`].
#[inline(always)]
fn arithmetic(op: Op, a: u128, b: u128, fcw: u16, imm: u64) -> u128 {
    let format = Step::format_of(imm);
    if fast::applies(fcw) {
        let (b, denormal) = match format {
            None => (b, false),
            Some(format) => unit::widened(format, b),
        };
        if let (Some((v, status)), false) = (fast::arithmetic(op, a, b), denormal) {
            return with_status(v, status);
        }
    }
    general(op, a, b, fcw, imm)
}

#[cold]
fn general(op: Op, a: u128, b: u128, fcw: u16, imm: u64) -> u128 {
    let mut env = Env::x87(fcw);
    let b = unit::second(&mut env, Step::format_of(imm), a, b);
    let v = unit::arithmetic(op, &mut env, a, b);
    with_status(v, unit::status(env.flags))
}

/// Both forms of an arithmetic operation.
macro_rules! operations {
    ($($op:ident $helper:ident $direct:ident)*) => {$(
        fn $helper(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
            Ok(arithmetic(Op::$op, args[0], args[1], args[2] as u16, args[3] as u64))
        }
        extern "C" fn $direct(a0: u64, a1: u64, b0: u64, b1: u64, fcw: u64, imm: u64) -> Halves {
            arithmetic(Op::$op, wide(a0, a1), wide(b0, b1), fcw as u16, imm).into()
        }
    )*};
}

operations! {
    Add x87_add direct_add
    Mul x87_mul direct_mul
    Sub x87_sub direct_sub
    SubR x87_subr direct_subr
    Div x87_div direct_div
    DivR x87_divr direct_divr
}

/// The helper of an arithmetic operation.
pub fn helper(op: Op) -> u32 {
    match op {
        Op::Add => ADD,
        Op::Mul => MUL,
        Op::Sub => SUB,
        Op::SubR => SUBR,
        Op::Div => DIV,
        _ => DIVR,
    }
}

/// Condition codes and exceptions of a comparison.
#[inline]
fn compare(a: u128, b: u128, imm: u64) -> u16 {
    let format = Step::format_of(imm);
    let second = match format {
        None => Some(b),
        Some(format) => Some(unit::widened(format, b)).filter(|b| !b.1).map(|b| b.0),
    };
    if let Some(codes) = second.and_then(|b| fast::compare(a, b)) {
        return codes;
    }
    let mut env = Env::x87(0x37f);
    let b = unit::second(&mut env, format, a, b);
    let signalling = !matches!(Step::unpack(imm).op, Op::Ucom | Op::UcomI);
    unit::compare(a, b, signalling) | env.flags.x86() as u16
}

fn x87_compare(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(compare(args[0], args[1], args[3] as u64) as u128)
}

extern "C" fn direct_compare(a0: u64, a1: u64, b0: u64, b1: u64, imm: u64, _: u64) -> Halves {
    Halves(compare(wide(a0, a1), wide(b0, b1), imm) as u64, 0)
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
#[inline]
fn convert(a: u128, fcw: u16, imm: u64) -> u128 {
    let format = Step::format_of(imm).unwrap_or(Format::F80);
    if fast::applies(fcw) {
        let quick = match format {
            Format::F64 => fast::to_double(a),
            Format::F32 => fast::to_single(a),
            _ => None,
        };
        if let Some((v, status)) = quick {
            return with_status(v as u128, status);
        }
    }
    let mut env = Env::x87(fcw);
    let truncates = Step::unpack(imm).op == Op::StoreTruncated;
    let mode = if truncates { Rounding::Zero } else { env.rounding };
    let v = unit::stored(&mut env, format, a, mode);
    with_status(v, unit::status(env.flags))
}

fn x87_convert(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(convert(args[0], args[1] as u16, args[3] as u64))
}

extern "C" fn direct_convert(low: u64, high: u64, fcw: u64, imm: u64, _: u64, _: u64) -> Halves {
    convert(wide(low, high), fcw as u16, imm).into()
}

/// FSQRT and FRNDINT.
fn one(op: Op, a: u128, fcw: u16) -> u128 {
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
    Ok(one(Op::Sqrt, args[0], args[1] as u16))
}

extern "C" fn direct_sqrt(low: u64, high: u64, fcw: u64, _: u64, _: u64, _: u64) -> Halves {
    one(Op::Sqrt, wide(low, high), fcw as u16).into()
}

fn x87_rndint(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(one(Op::Rndint, args[0], args[1] as u16))
}

extern "C" fn direct_rndint(low: u64, high: u64, fcw: u64, _: u64, _: u64, _: u64) -> Halves {
    one(Op::Rndint, wide(low, high), fcw as u16).into()
}

helpers! { FIRST_NUMBER;
    /// Two numbers (the second as in memory if the [`Step`] says so) and the control word.
    ADD = x87_add(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_add;
    MUL = x87_mul(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_mul;
    SUB = x87_sub(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_sub;
    SUBR = x87_subr(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_subr;
    DIV = x87_div(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_div;
    DIVR = x87_divr(I128, I128, I32) -> I128, Access::None, Access::None, pure => direct_divr;
    /// Condition codes and exceptions.
    COMPARE = x87_compare(I128, I128) -> I32, Access::None, Access::None, pure => direct_compare;
    /// A register from memory's datum.
    LOAD = x87_load(I128) -> I128, Access::None, Access::None, pure => direct_load;
    /// A datum for memory from a register and the control word.
    CONVERT = x87_convert(I128, I32) -> I128, Access::None, Access::None, pure => direct_convert;
    SQRT = x87_sqrt(I128, I32) -> I128, Access::None, Access::None, pure => direct_sqrt;
    RNDINT = x87_rndint(I128, I32) -> I128, Access::None, Access::None, pure => direct_rndint;
}
