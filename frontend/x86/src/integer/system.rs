//! Segment register, miscellaneous, random number and system instructions. User code has no I/O privilege and
//! runs at CPL 3: privileged instructions are #GP, which `Trap::Privileged` stands for.
//!
//! SGDT, SIDT, SLDT, STR and SMSW show the constants that Linux shows where the processor has UMIP.

use super::control::load_far_pointer;
use crate::cpu::Vendor;
use crate::cpuid::{self, Where};
use crate::decode::{Row, rows};
use crate::flags::{CF, ZF};
use crate::helpers::{FIRST_SYSTEM, helpers};
use crate::lifter::Cond;
use crate::operand::{Intent, Place};
use crate::regs::{self, cell};
use crate::system::{data_mmu, is_system, model, paging};
use crate::{Lifter, segment};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use std::sync::OnceLock;
use tulk_base::{AccessKind, FaultCause, GuestVa, MemFault, Trap};
use tulk_ir::{Access, FenceKind, HelperCx, IntCc, Slot, Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {
        Nop => nop, Endbr32 => nop, Endbr64 => nop, Pause => nop, Prefetchit0 => nop, Prefetchit1 => nop,
        Prefetch => nop, Prefetchw => nop, Prefetchwt1 => nop, Prefetchnta => nop, Prefetcht0 => nop,
        Prefetcht1 => nop, Prefetcht2 => nop, Cldemote => nop,
        Clflush => touch, Clflushopt => touch, Clwb => touch,
        Lfence => fence, Sfence => fence, Mfence => fence, Serialize => fence,
        Rdfsbase => read_base, Rdgsbase => read_base, Smsw => smsw, Sldt => sldt, Str => str,
    }
    loud {
        Reservednop => reserved_nop,
        Cpuid => cpuid, Rdtsc => rdtsc, Rdtscp => rdtscp, Rdpid => rdpid, Rdrand => random, Rdseed => random,
        Wrfsbase => write_base, Wrgsbase => write_base, Xgetbv => xgetbv, Clzero => clzero,
        Sgdt => sgdt, Sidt => sgdt, Arpl => arpl,
        Lar => ask, Lsl => ask, Verr => ask, Verw => ask,
        Lds => load_far_pointer, Les => load_far_pointer, Lfs => load_far_pointer, Lgs => load_far_pointer,
        Lss => load_far_pointer,
        Hlt => privileged, In => privileged, Out => privileged, Insb => privileged, Insw => privileged,
        Insd => privileged, Outsb => privileged, Outsw => privileged, Outsd => privileged,
        Lgdt => privileged, Lidt => privileged, Lldt => privileged, Ltr => privileged, Lmsw => privileged,
        Clts => privileged, Invd => privileged, Wbinvd => privileged, Invlpg => privileged,
        Invpcid => privileged, Rdmsr => privileged, Wrmsr => privileged, Rdpmc => privileged,
        Sysexit => privileged, Sysexitq => privileged, Sysret => sysret, Sysretq => sysret,
        Swapgs => privileged, Xsetbv => privileged,
    }
    codes {}
};

/// NOP, PAUSE, prefetches and other hints: their memory operand is not touched
fn nop(_: &mut Lifter<'_>, _: &Instruction) {}

/// Opcodes set aside for hints; those beside PREFETCHW are undefined with a register on AMD processors
fn reserved_nop(l: &mut Lifter<'_>, insn: &Instruction) {
    let beside = matches!(
        insn.code(),
        Code::Reservednop_rm16_r16_0F0D
            | Code::Reservednop_rm32_r32_0F0D
            | Code::Reservednop_rm64_r64_0F0D
    );
    if beside && insn.op0_kind() == OpKind::Register && l.cpu.chip().vendor == Vendor::Amd {
        l.undefined();
    }
}

/// Privileged instructions
fn privileged(l: &mut Lifter<'_>, _: &Instruction) {
    l.privileged();
}

/// SYSRET: processors of Intel know it in 64-bit code only
fn sysret(l: &mut Lifter<'_>, insn: &Instruction) {
    if !l.key.long() && l.cpu.chip().vendor == Vendor::Intel {
        return l.undefined();
    }
    privileged(l, insn);
}

/// CLFLUSH, CLFLUSHOPT, CLWB m: faults as a read of one byte does
fn touch(l: &mut Lifter<'_>, insn: &Instruction) {
    let addr = l.address(insn, 1, Intent::Read);
    l.load(Type::I8, addr);
}

/// LFENCE, SFENCE, MFENCE, SERIALIZE
fn fence(l: &mut Lifter<'_>, insn: &Instruction) {
    l.fence(match insn.mnemonic() {
        Mnemonic::Lfence => FenceKind::Acquire,
        Mnemonic::Sfence => FenceKind::Release,
        _ => FenceKind::Full,
    });
}

/// CLZERO rax
fn clzero(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = match insn.code() {
        Code::Clzerow => Type::I16,
        Code::Clzerod => Type::I32,
        _ => Type::I64,
    };
    let v = l.gpr(0, ty);
    let v = if ty == Type::I16 { l.zext(Type::I32, v) } else { v };
    let v = l.and_imm(v, -64);
    let at = l.linear(regs::DS, v, 0, 64, Intent::Write);
    let zero = l.vconst(0);
    for n in 0..4 {
        l.store(at.plus(16 * n), zero);
    }
}

fn base_slot(m: Mnemonic) -> Slot {
    match m {
        Mnemonic::Rdfsbase | Mnemonic::Wrfsbase => regs::SEG_BASE[regs::FS],
        _ => regs::SEG_BASE[regs::GS],
    }
}

/// RDFSBASE, RDGSBASE dst
pub fn read_base(l: &mut Lifter<'_>, insn: &Instruction) {
    let v = l.get(base_slot(insn.mnemonic()));
    let ty = l.operand_type(insn, 0);
    let v = l.trunc(ty, v);
    l.set_reg(insn.op0_register(), v);
}

/// WRFSBASE, WRGSBASE src: #GP unless canonical
pub fn write_base(l: &mut Lifter<'_>, insn: &Instruction) {
    let r = insn.op0_register();
    let v = l.reg(r);
    if r.is_gpr64() {
        let extended = l.bextract_s(v, 0, 48);
        let bad = l.icmp(IntCc::Ne, extended, v);
        l.fault_if(bad, segment::GP);
    }
    let v = l.reg(r);
    let v = l.zext(Type::I64, v);
    l.set(base_slot(insn.mnemonic()), v);
}

fn store_constant(l: &mut Lifter<'_>, insn: &Instruction, value: i64) {
    let dst = l.place_of(insn, 0, Intent::Write);
    let ty = match dst {
        Place::Reg(r) => Type::int_of_log2(r.size().trailing_zeros() as u8),
        Place::Mem(_) => Type::I16,
    };
    let v = l.iconst(ty, value);
    l.write(dst, v);
}

/// SMSW dst
fn smsw(l: &mut Lifter<'_>, insn: &Instruction) {
    store_constant(l, insn, 0x8005_0033);
}

/// SLDT dst
fn sldt(l: &mut Lifter<'_>, insn: &Instruction) {
    store_constant(l, insn, 0);
}

/// STR dst
fn str(l: &mut Lifter<'_>, insn: &Instruction) {
    store_constant(l, insn, 0x40);
}

/// SGDT, SIDT m
fn sgdt(l: &mut Lifter<'_>, insn: &Instruction) {
    let addr = l.address(insn, if l.key.long() { 10 } else { 6 }, Intent::Write);
    let high = if insn.mnemonic() == Mnemonic::Sgdt { 0xfffe_0000u32 } else { 0xffff_0000 };
    let base = if l.key.long() {
        l.iconst(Type::I64, high as i32 as i64)
    } else {
        l.iconst(Type::I32, high as i64)
    };
    l.store(addr.plus(2), base);
    let limit = l.iconst(Type::I16, 0);
    l.store(addr, limit);
}

/// ARPL dst, src: memory is written only when it changes
pub(crate) fn arpl(l: &mut Lifter<'_>, insn: &Instruction) {
    let src = l.reg(insn.op1_register());
    let src = l.trunc(Type::I16, src);
    let dst = l.place_of(insn, 0, Intent::Read);
    let old = match dst {
        Place::Reg(r) => {
            let v = l.reg(r);
            l.trunc(Type::I16, v)
        }
        Place::Mem(addr) => l.load(Type::I16, addr),
    };
    let (have, want) = (l.and_imm(old, 3), l.and_imm(src, 3));
    let raise = l.icmp(IntCc::LtU, have, want);
    let cleared = l.and_imm(old, !3);
    let raised = l.or(cleared, want);
    if let Place::Reg(r) = dst {
        let new = l.select(raise, raised, old);
        l.set_gpr(r.number(), new);
        return l.set_flag_bits(&[(ZF, Cond::If(raise))]);
    }
    let (new, changed) = (l.local(Type::I16), l.local(Type::I8));
    l.set(new, raised);
    l.set(changed, raise);
    let (change, done) = (l.label(), l.label());
    l.brif(raise, change, done);
    l.place(change);
    let dst = l.place_of(insn, 0, Intent::Write);
    let v = l.get(new);
    l.write(dst, v);
    l.place(done);
    let raise = l.get(changed);
    l.set_flag_bits(&[(ZF, Cond::If(raise))]);
}

/// LAR, LSL dst, src; VERR, VERW src
fn ask(l: &mut Lifter<'_>, insn: &Instruction) {
    ask_with(l, insn, segment::ASK);
}

/// The same with a helper that answers as [`segment::ASK`] does.
pub(crate) fn ask_with(l: &mut Lifter<'_>, insn: &Instruction, helper: u32) {
    let which = match insn.mnemonic() {
        Mnemonic::Lar => 0,
        Mnemonic::Lsl => 1,
        Mnemonic::Verr => 2,
        _ => 3,
    };
    let selector = l.operand(insn, insn.op_count() - 1, Type::I16);
    let selector = l.trunc(Type::I16, selector);
    let selector = l.zext(Type::I32, selector);
    let answer = l.call(helper, &[selector], which);
    let ok = l.bextract_u(answer, 32, 1);
    let ok = l.trunc(Type::I8, ok);
    if which < 2 {
        let r = insn.op0_register();
        let value = l.bextract_u(answer, 0, 32);
        if r.is_gpr16() {
            let value = l.trunc(Type::I16, value);
            let old = l.reg(r);
            let v = l.select(ok, value, old);
            l.set_reg(r, v);
        } else {
            let r = r.full_register();
            let old = l.reg(r);
            let v = l.select(ok, value, old);
            l.set_reg(r, v);
        }
    }
    l.set_flag_bits(&[(ZF, Cond::If(ok))]);
}

/// CPUID
fn cpuid(l: &mut Lifter<'_>, _: &Instruction) {
    let (leaf, sub) = (l.reg(Register::EAX), l.reg(Register::ECX));
    let cpu = l.cpu;
    let features = l.vconst(cpu.features.0);
    let all = l.call(CPUID, &[leaf, sub, features], cpu.chip as i64);
    let (low, high) = (l.lo64(all), l.hi64(all));
    for (slot, half, lsb) in
        [(regs::RAX, low, 0), (regs::RBX, low, 32), (regs::RCX, high, 0), (regs::RDX, high, 32)]
    {
        let v = l.bextract_u(half, lsb, 32);
        l.set(slot, v);
    }
}

fn set_pair(l: &mut Lifter<'_>, v: Value) {
    let (lo, hi) = (l.bextract_u(v, 0, 32), l.bextract_u(v, 32, 32));
    l.set(regs::RAX, lo);
    l.set(regs::RDX, hi);
}

/// RDTSC
fn rdtsc(l: &mut Lifter<'_>, _: &Instruction) {
    let v = l.call(TSC, &[], 0);
    set_pair(l, v);
}

/// RDTSCP
fn rdtscp(l: &mut Lifter<'_>, _: &Instruction) {
    let v = l.call(TSC, &[], 0);
    set_pair(l, v);
    let processor = l.call(PROCESSOR, &[], 0);
    l.set(regs::RCX, processor);
}

/// RDPID dst
fn rdpid(l: &mut Lifter<'_>, insn: &Instruction) {
    let processor = l.call(PROCESSOR, &[], 0);
    l.set_reg(insn.op0_register().full_register(), processor);
}

/// RDRAND, RDSEED dst: always succeed
fn random(l: &mut Lifter<'_>, insn: &Instruction) {
    let v = l.call(RANDOM, &[], 0);
    let ty = l.operand_type(insn, 0);
    let v = l.trunc(ty, v);
    l.set_reg(insn.op0_register(), v);
    let word = l.iconst(Type::I64, CF as i64);
    l.set_packed_flags(word);
}

/// XGETBV
pub fn xgetbv(l: &mut Lifter<'_>, _: &Instruction) {
    let n = l.reg(Register::ECX);
    let v = l.call(XGETBV, &[n], l.cpu.has(crate::Feature::Xgetbv1) as i64);
    set_pair(l, v);
}

fn system_fetch_fault(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let va = GuestVa(args[0] as u64);
    if is_system(cx.state) {
        let (model, index) = (model(cx.state), data_mmu(cx.state));
        let Some(machine) = cx.env.machine() else { return Err(Trap::Resync) };
        let walk = paging::walk(&model, cx.state, machine, va, AccessKind::Exec, index);
        // Where it can be fetched by now the engine finds out that the unit is stale.
        if let Err(fault) = walk {
            return Err(Trap::Mem(fault));
        }
    }
    Err(Trap::Mem(MemFault { va, kind: AccessKind::Exec, cause: FaultCause::Unmapped }))
}

fn system_debug_trap(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    cx.state.set_pc(args[0] as u64);
    Err(Trap::Guest { vector: 1, code: 0 })
}

/// Number of processors that the guest may count on.
fn processors() -> u32 {
    static COUNT: OnceLock<u32> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32))
}

fn system_cpuid(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let at = Where {
        processor: cx.env.processor_id(),
        processors: processors(),
        xcr0: cx.state.get(cell(regs::XCR0)),
    };
    let features = crate::Features(args[2]);
    let words = cpuid::leaf(args[3] as usize, features, at, args[0] as u32, args[1] as u32);
    Ok(words.iter().rev().fold(0, |all, &w| all << 32 | w as u128))
}

fn system_tsc(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    Ok(cx.env.clock_ns() as u128)
}

/// IA32_TSC_AUX as Linux sets it: the processor, and its node (0) above.
fn system_processor(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    Ok((cx.env.processor_id() & 0xfff) as u128)
}

fn system_random(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    let mut bytes = [0; 8];
    cx.env.random(&mut bytes);
    Ok(u64::from_le_bytes(bytes) as u128)
}

/// Register number; immediate 1 when number 1 exists (XCR0 and the components in use, which may be all of them).
fn system_xgetbv(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    if args[0] as u32 > args[3] as u32 {
        return Err(Trap::Guest { vector: segment::GP, code: 0 });
    }
    Ok(cx.state.get(cell(regs::XCR0)) as u128)
}

const XCR0: &[Slot] = &[regs::XCR0];

helpers! { FIRST_SYSTEM;
    /// Raises the fault of fetching an instruction byte.
    FETCH_FAULT = system_fetch_fault(I64) -> (), Access::All, Access::None, traps;
    /// Raises #DB behind an instruction: the pc becomes the operand.
    DEBUG_TRAP = system_debug_trap(I64) -> (), Access::None, Access::None, traps;
    /// Leaf, subleaf, the features; EAX, EBX, ECX, EDX from low to high. Immediate: number of the chip.
    CPUID = system_cpuid(I32, I32, V128) -> I128, Access::These(XCR0), Access::None;
    TSC = system_tsc() -> I64, Access::None, Access::None;
    PROCESSOR = system_processor() -> I64, Access::None, Access::None;
    RANDOM = system_random() -> I64, Access::None, Access::None;
    XGETBV = system_xgetbv(I32) -> I64, Access::These(XCR0), Access::None, traps;
}
