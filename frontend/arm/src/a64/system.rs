//! Hints, barriers, PSTATE and system registers.
//!
//! A process sees the registers that EL0 can reach and those that Linux emulates for it (the ID registers).
//! Everything else is undefined: Linux gives SIGILL for a trapped register access and for an
//! undefined one alike. That includes CNTPCT_EL0 and the performance monitors, which Linux keeps closed.

use super::decode::Insn;
use super::fpstate::{self, fpcr, fpsr};
use super::helpers::helpers;
use super::lifter::Lifter;
use super::{Feature, regs};
use tulk_base::{AccessKind, FaultCause, GuestVa, MemFault, MemOp, Trap};
use tulk_ir::{Access, FenceKind, HelperCx, NzcvCond, Type, Value};

helpers! { super::helpers::FIRST_SYSTEM;
    /// The pc is misaligned: the fault that Linux turns into SIGBUS.
    PC_ALIGNMENT_FAULT = helper_pc_alignment_fault() -> (), Access::None, Access::None, traps;
    /// A misaligned SP as the base of an access: the same.
    CHECK_SP_ALIGNMENT = helper_check_sp_alignment(I64) -> (), Access::None, Access::None, traps;
    /// IC IVAU: the line that holds the address.
    INVALIDATE_LINE = helper_invalidate_line(I64) -> (), Access::None, Access::None;
    READ_COUNTER = helper_read_counter() -> I64, Access::None, Access::None;
    READ_FPSR = helper_read_fpsr() -> I64, Access::These(&[regs::FPSR, regs::QC]), Access::None;
    WRITE_FPSR = helper_write_fpsr(I64) -> (), Access::None, Access::These(&[regs::FPSR, regs::QC]);
    /// The immediate is the mask of writable bits.
    WRITE_FPCR = helper_write_fpcr(I64) -> (), Access::None, Access::These(&[regs::FPCR]);
    RANDOM = helper_random() -> I64, Access::None, Access::None;
}

/// Bytes of an instruction-cache line: CTR_EL0.IminLine of every model says 16 words.
const CODE_LINE: u64 = 64;

fn helper_pc_alignment_fault(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    let va = GuestVa(cx.state.pc());
    Err(Trap::Mem(MemFault { va, kind: AccessKind::Exec, cause: FaultCause::Align }))
}

fn helper_check_sp_alignment(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let va = GuestVa(args[0] as u64);
    if va.is_aligned(16) {
        return Ok(0);
    }
    Err(Trap::Mem(MemFault { va, kind: AccessKind::Read, cause: FaultCause::Align }))
}

fn helper_invalidate_line(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let line = GuestVa(args[0] as u64).align_down(CODE_LINE);
    cx.env.invalidate_code(line, CODE_LINE);
    Ok(0)
}

/// CNTVCT_EL0 counts nanoseconds: CNTFRQ_EL0 is 1 GHz, as ARMv8.6 demands.
fn helper_read_counter(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    Ok(cx.env.clock_ns() as u128)
}

const COUNTER_HZ: u64 = 1_000_000_000;

fn helper_read_fpsr(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    Ok(fpstate::read_fpsr(cx.state, cx.env) as u128)
}

fn helper_write_fpsr(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let value = args[0] as u32 & fpsr::WRITABLE;
    cx.state.set(regs::cell(regs::FPSR), value as u64);
    cx.state.set128(regs::cell(regs::QC), 0);
    cx.env.set_fp_flags(fpstate::flags_of(value));
    Ok(0)
}

fn helper_write_fpcr(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let value = args[0] as u32 & args[3] as u32;
    cx.state.set(regs::cell(regs::FPCR), value as u64);
    cx.env.set_fp_mode(fpstate::round_of(value), false, false);
    Ok(0)
}

fn helper_random(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    let mut bytes = [0; 8];
    cx.env.random(&mut bytes);
    Ok(u64::from_le_bytes(bytes) as u128)
}

/// HINT #imm: NOP, YIELD, WFE, WFI, SEV, BTI, PACIASP and the rest, none of which a process can tell from NOP.
pub fn hint(_: &mut Lifter<'_>, _: Insn) {}

/// CLREX
pub fn clrex(l: &mut Lifter<'_>, _: Insn) {
    let none = l.iconst(Type::I64, -1);
    l.set(regs::EXCL_ADDR, none);
}

/// DSB option
pub fn dsb(l: &mut Lifter<'_>, _: Insn) {
    l.fence(FenceKind::Full);
}

/// DMB option
pub fn dmb(l: &mut Lifter<'_>, i: Insn) {
    l.fence(match i.crm() & 3 {
        1 => FenceKind::Acquire,
        2 => FenceKind::Release,
        _ => FenceKind::Full,
    });
}

/// ISB: code that another thread wrote is seen from here on, so running translations are left.
pub fn isb(l: &mut Lifter<'_>, _: Insn) {
    l.resync();
}

/// SB: speculation is not modelled.
pub fn sb(_: &mut Lifter<'_>, _: Insn) {}

/// CFINV
pub fn cfinv(l: &mut Lifter<'_>, _: Insn) {
    let flags = l.get(regs::NZCV);
    let flipped = l.xor_imm(flags, 1 << 29);
    l.set_nzcv(flipped);
}

/// `bool << bit`, as an I32.
fn flag(l: &mut Lifter<'_>, bit: u32, value: Value) -> Value {
    let word = l.zext(Type::I32, value);
    l.shl_imm(word, bit)
}

/// XAFLAG: from the flags of x86 comparisons to Arm's.
pub fn xaflag(l: &mut Lifter<'_>, _: Insn) {
    // N = !C & !Z, Z = Z & C, C = C | Z, V = !C & Z.
    let c = l.cond_value(NzcvCond::Cs as u32);
    let z = l.cond_value(NzcvCond::Eq as u32);
    let either = l.or(c, z);
    let n = l.xor_imm(either, 1);
    let both = l.and(c, z);
    let v = l.and_not(z, c);
    let parts = [(31, n), (30, both), (29, either), (28, v)].map(|(bit, b)| flag(l, bit, b));
    let high = l.or(parts[0], parts[1]);
    let low = l.or(parts[2], parts[3]);
    let all = l.or(high, low);
    l.set_nzcv(all);
}

/// AXFLAG: from Arm's flags of comparisons to x86's.
pub fn axflag(l: &mut Lifter<'_>, _: Insn) {
    // N = 0, Z = Z | V, C = C & !V, V = 0.
    let z = l.cond_value(NzcvCond::Eq as u32);
    let c = l.cond_value(NzcvCond::Cs as u32);
    let v = l.cond_value(NzcvCond::Vs as u32);
    let z = l.or(z, v);
    let c = l.and_not(c, v);
    let (z, c) = (flag(l, 30, z), flag(l, 29, c));
    let all = l.or(z, c);
    l.set_nzcv(all);
}

/// Where MRS shows PSTATE.SSBS and PSTATE.DIT.
const SSBS_BIT: u32 = 12;
const DIT_BIT: u32 = 24;

/// MSR SSBS, #imm
pub fn msr_ssbs_imm(l: &mut Lifter<'_>, i: Insn) {
    let value = l.iconst(Type::I64, ((i.crm() & 1) << SSBS_BIT) as i64);
    l.set(regs::SSBS, value);
}

/// MSR DIT, #imm
pub fn msr_dit_imm(l: &mut Lifter<'_>, i: Insn) {
    let value = l.iconst(Type::I64, ((i.crm() & 1) << DIT_BIT) as i64);
    l.set(regs::DIT, value);
}

/// DC ZVA, Xt: zeroes the 64 bytes around the address.
pub fn dc_zva(l: &mut Lifter<'_>, i: Insn) {
    let addr = l.x(i.rt());
    let block = l.and_imm(addr, -64);
    let zero = l.vconst(0);
    for offset in (0..64).step_by(16) {
        l.store(block, offset, MemOp::U128, zero);
    }
}

/// IC IVAU, Xt
pub fn ic_ivau(l: &mut Lifter<'_>, i: Insn) {
    let addr = l.x(i.rt());
    l.call(INVALIDATE_LINE, &[addr], 0);
    l.resync();
}

/// Cleaning a line changes nothing that a process can see, but faults where a read would.
fn clean(l: &mut Lifter<'_>, i: Insn) {
    let addr = l.x(i.rt());
    l.load(Type::I64, addr, 0, MemOp::U8);
}

/// DC CVAC, Xt
pub fn dc_cvac(l: &mut Lifter<'_>, i: Insn) {
    clean(l, i);
}

/// DC CVAU, Xt
pub fn dc_cvau(l: &mut Lifter<'_>, i: Insn) {
    clean(l, i);
}

/// DC CVAP, Xt
pub fn dc_cvap(l: &mut Lifter<'_>, i: Insn) {
    clean(l, i);
}

/// DC CVADP, Xt
pub fn dc_cvadp(l: &mut Lifter<'_>, i: Insn) {
    clean(l, i);
}

/// DC CIVAC, Xt
pub fn dc_civac(l: &mut Lifter<'_>, i: Insn) {
    clean(l, i);
}

/// A system register's number: op0, op1, CRn, CRm, op2 packed as in the instruction.
const fn sysreg(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

fn number(i: Insn) -> u32 {
    sysreg(2 + i.o0(), i.op1(), i.crn(), i.crm(), i.op2())
}

/// System registers by number. The first block needs nothing but the base architecture.
pub mod sysregs {
    use super::sysreg;
    pub const CTR_EL0: u32 = sysreg(3, 3, 0, 0, 1);
    pub const DCZID_EL0: u32 = sysreg(3, 3, 0, 0, 7);
    pub const NZCV: u32 = sysreg(3, 3, 4, 2, 0);
    pub const FPCR: u32 = sysreg(3, 3, 4, 4, 0);
    pub const FPSR: u32 = sysreg(3, 3, 4, 4, 1);
    pub const TPIDR_EL0: u32 = sysreg(3, 3, 13, 0, 2);
    pub const TPIDRRO_EL0: u32 = sysreg(3, 3, 13, 0, 3);
    pub const CNTFRQ_EL0: u32 = sysreg(3, 3, 14, 0, 0);
    pub const CNTVCT_EL0: u32 = sysreg(3, 3, 14, 0, 2);

    pub const DIT: u32 = sysreg(3, 3, 4, 2, 5);
    pub const SSBS: u32 = sysreg(3, 3, 4, 2, 6);
    pub const RNDR: u32 = sysreg(3, 3, 2, 4, 0);
    pub const RNDRRS: u32 = sysreg(3, 3, 2, 4, 1);
}

/// MRS Xt, register
pub fn mrs(l: &mut Lifter<'_>, i: Insn) {
    let has = |f| l.cpu.features.has(f);
    let value = match number(i) {
        sysregs::NZCV => {
            let flags = l.get(regs::NZCV);
            l.zext(Type::I64, flags)
        }
        sysregs::FPCR => {
            let value = l.get(regs::FPCR);
            l.zext(Type::I64, value)
        }
        sysregs::FPSR => l.call(READ_FPSR, &[], 0),
        sysregs::TPIDR_EL0 => l.get(regs::TPIDR_EL0),
        sysregs::TPIDRRO_EL0 => l.get(regs::TPIDRRO_EL0),
        sysregs::CNTVCT_EL0 => l.call(READ_COUNTER, &[], 0),
        sysregs::DIT if has(Feature::Dit) => l.get(regs::DIT),
        sysregs::SSBS if has(Feature::Ssbs) => l.get(regs::SSBS),
        sysregs::RNDR | sysregs::RNDRRS if has(Feature::Rng) => {
            let value = l.call(RANDOM, &[], 0);
            // All flags clear: a number was delivered.
            let none = l.iconst(Type::I32, 0);
            l.set_nzcv(none);
            value
        }
        sysregs::CTR_EL0 => return l.set_known(i.rt(), l.cpu.ctr),
        sysregs::DCZID_EL0 => return l.set_known(i.rt(), l.cpu.dczid()),
        sysregs::CNTFRQ_EL0 => return l.set_known(i.rt(), COUNTER_HZ),
        _ if (i.o0(), i.op1(), i.crn()) == (1, 0, 0) => {
            return match l.cpu.id_register(i.crm(), i.op2()) {
                Some(value) => l.set_known(i.rt(), value),
                None => l.undefined(),
            };
        }
        _ => return l.undefined(),
    };
    l.set_r(i.rt(), value);
}

/// MSR register, Xt
pub fn msr(l: &mut Lifter<'_>, i: Insn) {
    let has = |f| l.cpu.features.has(f);
    let single_bit = |l: &mut Lifter<'_>, slot, bit: u32| {
        let value = l.x(i.rt());
        let masked = l.and_imm(value, 1 << bit);
        l.set(slot, masked);
    };
    match number(i) {
        sysregs::NZCV => {
            let value = l.w(i.rt());
            let flags = l.and_imm(value, 0xf000_0000);
            l.set_nzcv(flags);
        }
        sysregs::FPCR => {
            let half = if has(Feature::Fp16) { fpcr::FZ16 } else { 0 };
            let value = l.x(i.rt());
            l.call(WRITE_FPCR, &[value], (fpcr::WRITABLE | half) as i64);
            l.resync();
        }
        sysregs::FPSR => {
            let value = l.x(i.rt());
            l.call(WRITE_FPSR, &[value], 0);
            // Float operations behind it raise their flags anew, though they may equal ones in front of it.
            l.resync();
        }
        sysregs::TPIDR_EL0 => {
            let value = l.x(i.rt());
            l.set(regs::TPIDR_EL0, value);
        }
        sysregs::DIT if has(Feature::Dit) => single_bit(l, regs::DIT, DIT_BIT),
        sysregs::SSBS if has(Feature::Ssbs) => single_bit(l, regs::SSBS, SSBS_BIT),
        _ => l.undefined(),
    }
}
