//! MXCSR and the upper halves: manual volume 1, 10.4.5, 14.3 (VZEROUPPER), and the approximations of 10.4.1.2, which
//! need tables.

use super::FIRST_STATE;
use super::estimate;
use super::family;
use super::operand::{Vector, first};
use crate::decode::Row;
use crate::fpstate;
use crate::helpers::helpers;
use crate::operand::Intent;
use crate::regs::{self, cell};
use crate::{Lifter, cpu::Vendor};
use iced_x86::Instruction;
use tulk_base::Trap;
use tulk_ir::Shape::F32x4;
use tulk_ir::{Access, HelperCx, Slot, Type};

pub const ROWS: &[Row] = family! {
    quiet {
        [Rcpps_xmm_xmmm128 | Vrcpps] => |l, i| approximate(l, i, 0, false),
        [Rcpss_xmm_xmmm32 | Vrcpss] => |l, i| approximate(l, i, 0, true),
        [Rsqrtps_xmm_xmmm128 | Vrsqrtps] => |l, i| approximate(l, i, ROOT, false),
        [Rsqrtss_xmm_xmmm32 | Vrsqrtss] => |l, i| approximate(l, i, ROOT, true),
        [| Vzeroupper] => zero_upper,
        [| Vzeroall] => zero_all,
    }
    loud {
        [Ldmxcsr_m32 | Vldmxcsr] => ldmxcsr,
        [Stmxcsr_m32 | Vstmxcsr] => stmxcsr,
    }
};

const MXCSR: &[Slot] = &[regs::MXCSR];

helpers! { FIRST_STATE;
    /// Makes a value MXCSR; #GP for bits that do not exist.
    LOAD_MXCSR = load_mxcsr(I32) -> (), Access::None, Access::These(MXCSR), traps;
    /// MXCSR with the flags collected so far.
    READ_MXCSR = read_mxcsr() -> I32, Access::These(MXCSR), Access::These(MXCSR);
    /// Reciprocals of four numbers, or with [`ROOT`] in the immediate of their square roots; with [`AMD`] as AMD's
    /// processors approximate them.
    APPROXIMATE = approximations(V128) -> V128, Access::None, Access::None, pure;
}

/// Of the immediate of [`APPROXIMATE`].
const ROOT: i64 = 1;
const AMD: i64 = 2;

/// LDMXCSR m32
fn ldmxcsr(l: &mut Lifter<'_>, insn: &Instruction) {
    let addr = l.address(insn, 4, Intent::Read);
    let v = l.load(Type::I32, addr);
    l.call(LOAD_MXCSR, &[v], 0);
    l.resync();
}

/// STMXCSR m32
fn stmxcsr(l: &mut Lifter<'_>, insn: &Instruction) {
    let addr = l.address(insn, 4, Intent::Write);
    let v = l.call(READ_MXCSR, &[], 0);
    l.store(addr, v);
}

fn load_mxcsr(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let v = args[0] as u32;
    if v & !fpstate::VALID != 0 {
        return Err(Trap::Privileged);
    }
    cx.state.set(cell(regs::MXCSR), v as u64);
    fpstate::load(cx.state, cx.env);
    Ok(0)
}

fn read_mxcsr(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    fpstate::save(cx.state, cx.env);
    Ok(cx.state.get(cell(regs::MXCSR)) as u128)
}

/// VZEROUPPER
fn zero_upper(l: &mut Lifter<'_>, _: &Instruction) {
    for n in 0..registers(l) {
        l.clear_upper(n);
    }
}

/// VZEROALL
fn zero_all(l: &mut Lifter<'_>, insn: &Instruction) {
    let zero = l.vconst(0);
    for n in 0..registers(l) {
        l.set(regs::XMM[n], zero);
    }
    zero_upper(l, insn);
}

/// Vector registers that the mode has.
fn registers(l: &Lifter<'_>) -> usize {
    if l.key.long() { 16 } else { 8 }
}

/// RCPPS, RSQRTPS and kin
fn approximate(l: &mut Lifter<'_>, insn: &Instruction, root: i64, scalar: bool) {
    let imm = match l.cpu.chip().vendor {
        Vendor::Amd => root | AMD,
        Vendor::Intel => root,
    };
    if scalar {
        let a = l.low_part(insn, first(insn) + 1, 2);
        let v = l.call(APPROXIMATE, &[a], imm);
        let v = l.vlane(F32x4, v, 0);
        return l.put_low(insn, F32x4, v);
    }
    let a = l.vector(insn, 1);
    let lo = l.call(APPROXIMATE, &[a.lo], imm);
    let hi = a.hi.map(|a| l.call(APPROXIMATE, &[a], imm));
    l.put_vector(insn, Vector { lo, hi });
}

fn approximations(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let imm = args[3] as i64;
    let vendor = if imm & AMD != 0 { Vendor::Amd } else { Vendor::Intel };
    let f = if imm & ROOT != 0 { estimate::reciprocal_root } else { estimate::reciprocal };
    Ok((0..4).fold(0, |v, n| v | (f((args[0] >> (32 * n)) as u32, vendor) as u128) << (32 * n)))
}
