//! Lifting what loads segment registers and descriptor tables, transfers control beyond CS, or changes IF and IOPL
//! (the manual, volume 3, chapters 2, 5, 6, 8 and 20).
//!
//! Most of it is helpers that do the whole instruction and leave with `resync`. Inline are CLI, STI, PUSHF and POPF
//! outside of virtual-8086 mode (the key tells the privilege level and whether it is within IOPL), and SWAPGS.

use super::control::user_mode_prevented;
use super::event::{self, Software};
use super::segment::{
    self, Question, canonical, code64, cpl, fail_if, get, get32, iopl, set, vm86,
};
use super::{FIRST_TRANSFER, cr4, far, fast_call};
use crate::Lifter;
use crate::decode::{Row, rows};
use crate::flags::OF;
use crate::helpers::helpers;
use crate::integer::control::{far_pointer, far_pointer_in_memory};
use crate::integer::flag;
use crate::integer::system::{arpl as user_arpl, ask_with};
use crate::integer::transfer::stack_slot;
use crate::key;
use crate::operand::{Intent, Place, segment_number};
use crate::regs::{self, eflags};
use crate::segment::GP;
use iced_x86::{Code, Instruction, Mnemonic};
use std::ops::DerefMut;
use tulk_base::Trap;
use tulk_ir::{Access, ExitKind, HelperCx, IntCc, Slot, Type, Value};

/// The instructions of these chapters.
pub const ROWS: &[Row] = rows! {
    quiet {}
    loud {
        Retf => retf, Iret => iret, Iretd => iret, Iretq => iret,
        Int => int, Int1 => int, Int3 => int, Into => into,
        Syscall => syscall, Sysret => sysret, Sysretq => sysret, Sysenter => sysenter,
        Sysexit => sysexit, Sysexitq => sysexit, Swapgs => swapgs,
        Lds => load_far_pointer, Les => load_far_pointer, Lfs => load_far_pointer, Lgs => load_far_pointer,
        Lss => load_far_pointer,
        Lgdt => load_table, Lidt => load_table, Sgdt => store_table, Sidt => store_table,
        Lldt => load_system, Ltr => load_system, Sldt => store_system, Str => store_system,
        Lar => ask, Lsl => ask, Verr => ask, Verw => ask, Arpl => arpl,
        Cli => cli, Sti => sti, Pushf => pushf, Pushfd => pushf, Pushfq => pushf,
        Popf => popf, Popfd => popf, Popfq => popf,
    }
    codes {
        Jmp_ptr1616 => jmp_far, Jmp_ptr1632 => jmp_far, Jmp_m1616 => jmp_far, Jmp_m1632 => jmp_far,
        Jmp_m1664 => jmp_far, Call_ptr1616 => call_far, Call_ptr1632 => call_far, Call_m1616 => call_far,
        Call_m1632 => call_far, Call_m1664 => call_far,
        Mov_Sreg_rm16 => mov_to_sreg, Mov_Sreg_r32m16 => mov_to_sreg, Mov_Sreg_r64m16 => mov_to_sreg,
        Popw_ES => pop_sreg, Popd_ES => pop_sreg, Popw_SS => pop_sreg, Popd_SS => pop_sreg,
        Popw_DS => pop_sreg, Popd_DS => pop_sreg, Popw_FS => pop_sreg, Popd_FS => pop_sreg,
        Popq_FS => pop_sreg, Popw_GS => pop_sreg, Popd_GS => pop_sreg, Popq_GS => pop_sreg,
    }
};

/// Selectors work as on the 8086.
fn real_segments(l: &Lifter<'_>) -> bool {
    l.key.real() || l.key.has(key::VM86)
}

/// Leaves for the pc that a helper gave, which has also set the key flags there ([`arrived`]): without a look at the board.
fn arrive(l: &mut Lifter<'_>, pc: Value) {
    if l.key.single() || l.key.has(key::SHADOW) {
        return leave(l, pc);
    }
    let flags = l.get(regs::NEXT_KEY);
    l.deref_mut().exit_indirect(ExitKind::Jump, pc, None, Some(flags));
}

/// The end of a helper behind which [`arrive`] stands.
fn arrived(cx: &mut HelperCx<'_>, pc: u64) -> Answer {
    let state = &mut *cx.state;
    let key = key::of_system_state(state);
    set(state, regs::NEXT_KEY, key);
    if get32(state, regs::EVENT_WAITS) != 0 && get32(state, regs::EFLAGS) & eflags::IF != 0 {
        state.request_events();
    }
    Ok(pc as u128)
}

/// Leaves for a computed pc without a debug trap in between.
fn leave(l: &mut Lifter<'_>, pc: Value) {
    l.deref_mut().exit_indirect(ExitKind::Resync, pc, None, None);
}

fn next_pc(l: &mut Lifter<'_>) -> Value {
    let next = l.next as i64;
    l.iconst(Type::I64, next)
}

fn selector(l: &mut Lifter<'_>, v: Value) -> Value {
    let v = l.trunc(Type::I16, v);
    l.zext(Type::I32, v)
}

fn log2(ty: Type) -> i64 {
    ty.bytes().trailing_zeros() as i64
}

// Segment registers.

/// Ends an instruction that loaded a segment register. Behind a load of SS nothing is taken for one instruction.
fn loaded(l: &mut Lifter<'_>, seg: usize) {
    if seg != regs::SS {
        return l.resync();
    }
    let one = l.iconst(Type::I32, 1);
    l.set(regs::SHADOW, one);
    let next = next_pc(l);
    leave(l, next);
}

/// MOV Sreg, src
fn mov_to_sreg(l: &mut Lifter<'_>, insn: &Instruction) {
    let seg = segment_number(insn.op0_register());
    if seg == regs::CS {
        return l.undefined();
    }
    let v = l.operand(insn, 1, Type::I16);
    let v = selector(l, v);
    l.call(LOAD, &[v], seg as i64);
    loaded(l, seg);
}

/// POP Sreg
fn pop_sreg(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = stack_slot(insn, 1);
    let seg = segment_number(insn.op0_register());
    let v = l.peek(ty);
    let v = selector(l, v);
    // The pointer of the old stack moves.
    let sp = l.stack_pointer();
    let sp = l.stack_plus(sp, ty.bytes() as i64);
    l.call(LOAD, &[v], seg as i64);
    l.set_stack_pointer(sp);
    loaded(l, seg);
}

/// LDS, LES, LFS, LGS, LSS dst, m
fn load_far_pointer(l: &mut Lifter<'_>, insn: &Instruction) {
    let seg = match insn.mnemonic() {
        Mnemonic::Lds => regs::DS,
        Mnemonic::Les => regs::ES,
        Mnemonic::Lfs => regs::FS,
        Mnemonic::Lgs => regs::GS,
        _ => regs::SS,
    };
    let (offset, v) = far_pointer_in_memory(l, insn);
    l.call(LOAD, &[v], seg as i64);
    let ty = l.operand_type(insn, 0);
    let offset = l.zext(ty, offset);
    l.set_reg(insn.op0_register(), offset);
    loaded(l, seg);
}

// Control transfers.

/// JMP far
fn jmp_far(l: &mut Lifter<'_>, insn: &Instruction) {
    let (offset, v) = far_pointer(l, insn);
    let (offset, next) = (l.zext(Type::I64, offset), next_pc(l));
    let pc = l.call(JUMP, &[v, offset, next], 0);
    l.exit_indirect(ExitKind::Resync, pc);
}

/// CALL far
fn call_far(l: &mut Lifter<'_>, insn: &Instruction) {
    let (offset, v) = far_pointer(l, insn);
    let ty = if insn.code() == Code::Call_m1664 { Type::I64 } else { l.ty(offset) };
    let (offset, next) = (l.zext(Type::I64, offset), next_pc(l));
    let pc = l.call(CALL, &[v, offset, next], log2(ty));
    l.exit_indirect(ExitKind::Resync, pc);
}

/// RETF; RETF imm
fn retf(l: &mut Lifter<'_>, insn: &Instruction) {
    let size = match insn.code() {
        Code::Retfw | Code::Retfw_imm16 => 1,
        Code::Retfd | Code::Retfd_imm16 => 2,
        _ => 3,
    };
    let more = if insn.op_count() == 0 { 0 } else { insn.immediate16() as i64 };
    let pc = l.call(RETURN, &[], more << 8 | size);
    l.exit_indirect(ExitKind::Resync, pc);
}

/// IRET, IRETD, IRETQ
fn iret(l: &mut Lifter<'_>, insn: &Instruction) {
    let size = match insn.mnemonic() {
        Mnemonic::Iret => 1,
        Mnemonic::Iretd => 2,
        _ => 3,
    };
    let next = next_pc(l);
    let pc = l.call(IRET, &[next], size);
    if l.key.single() {
        return l.exit_indirect(ExitKind::Resync, pc);
    }
    arrive(l, pc);
}

fn software(l: &mut Lifter<'_>, imm: i64) {
    let next = next_pc(l);
    let pc = l.call(INTERRUPT, &[next], imm);
    leave(l, pc);
}

/// INT imm, INT3, INT1
fn int(l: &mut Lifter<'_>, insn: &Instruction) {
    match insn.mnemonic() {
        Mnemonic::Int3 => software(l, INT3),
        Mnemonic::Int1 => software(l, INT1),
        _ => software(l, insn.immediate8() as i64),
    }
}

/// INTO
fn into(l: &mut Lifter<'_>, _: &Instruction) {
    let overflow = l.flag(OF);
    let (trap, on) = (l.label(), l.label());
    l.brif(overflow, trap, on);
    l.place(trap);
    software(l, INTO);
    l.place(on);
    let next = l.next;
    l.exit_to(next);
}

/// SYSCALL
fn syscall(l: &mut Lifter<'_>, _: &Instruction) {
    let next = next_pc(l);
    let pc = l.call(SYSCALL, &[next], 0);
    arrive(l, pc);
}

/// SYSRET, SYSRETQ
fn sysret(l: &mut Lifter<'_>, insn: &Instruction) {
    let wide = insn.mnemonic() == Mnemonic::Sysretq;
    let pc = l.call(SYSRET, &[], wide as i64);
    arrive(l, pc);
}

/// SYSENTER
fn sysenter(l: &mut Lifter<'_>, _: &Instruction) {
    let pc = l.call(SYSENTER, &[], 0);
    l.exit_indirect(ExitKind::Resync, pc);
}

/// SYSEXIT, SYSEXITQ
fn sysexit(l: &mut Lifter<'_>, insn: &Instruction) {
    let wide = insn.mnemonic() == Mnemonic::Sysexitq;
    let pc = l.call(SYSEXIT, &[], wide as i64);
    l.exit_indirect(ExitKind::Resync, pc);
}

/// SWAPGS
fn swapgs(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let base = regs::SEG_BASE[regs::GS];
    let (old, new) = (l.get(base), l.get(regs::KERNEL_GS_BASE));
    l.set(base, new);
    l.set(regs::KERNEL_GS_BASE, old);
}

// Tables.

/// LGDT, LIDT m
fn load_table(l: &mut Lifter<'_>, insn: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let wide = l.key.long();
    let addr = l.address(insn, if wide { 10 } else { 6 }, Intent::Read);
    let limit = l.load(Type::I16, addr);
    let limit = l.zext(Type::I32, limit);
    let base = l.load(if wide { Type::I64 } else { Type::I32 }, addr.plus(2));
    let mut base = l.zext(Type::I64, base);
    if matches!(insn.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
        base = l.and_imm(base, 0xff_ffff);
    }
    l.call(LOAD_TABLE, &[base, limit], (insn.mnemonic() == Mnemonic::Lidt) as i64);
}

/// SGDT, SIDT m
fn store_table(l: &mut Lifter<'_>, insn: &Instruction) {
    user_mode_prevented(l);
    let (base, limit) = match insn.mnemonic() {
        Mnemonic::Sgdt => (regs::GDTR_BASE, regs::GDTR_LIMIT),
        _ => (regs::IDTR_BASE, regs::IDTR_LIMIT),
    };
    let wide = l.key.long();
    let addr = l.address(insn, if wide { 10 } else { 6 }, Intent::Write);
    let base = l.get(base);
    let base = l.trunc(if wide { Type::I64 } else { Type::I32 }, base);
    l.store(addr.plus(2), base);
    let limit = l.get(limit);
    let limit = l.trunc(Type::I16, limit);
    l.store(addr, limit);
}

/// LLDT, LTR src
fn load_system(l: &mut Lifter<'_>, insn: &Instruction) {
    if real_segments(l) {
        return l.undefined();
    }
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let v = l.operand(insn, 0, Type::I16);
    let v = selector(l, v);
    l.call(LOAD_SYSTEM, &[v], (insn.mnemonic() == Mnemonic::Ltr) as i64);
}

/// SLDT, STR dst
fn store_system(l: &mut Lifter<'_>, insn: &Instruction) {
    if real_segments(l) {
        return l.undefined();
    }
    user_mode_prevented(l);
    let slot = if insn.mnemonic() == Mnemonic::Sldt { regs::LDTR } else { regs::TR };
    let v = l.get(slot);
    let dst = l.place_of(insn, 0, Intent::Write);
    let ty = match dst {
        Place::Reg(r) => Type::int_of_log2(r.size().trailing_zeros() as u8),
        Place::Mem(_) => Type::I16,
    };
    let v = selector(l, v);
    let v = if ty == Type::I16 { l.trunc(ty, v) } else { l.zext(ty, v) };
    l.write(dst, v);
}

/// LAR, LSL dst, src; VERR, VERW src
fn ask(l: &mut Lifter<'_>, insn: &Instruction) {
    if real_segments(l) {
        return l.undefined();
    }
    ask_with(l, insn, ASK);
}

/// ARPL dst, src
fn arpl(l: &mut Lifter<'_>, insn: &Instruction) {
    if real_segments(l) {
        return l.undefined();
    }
    user_arpl(l, insn);
}

// Flags.

/// Whether IF can be read and written: CPL is within IOPL. Virtual interrupts come in where it is not.
fn interrupts_allowed(l: &Lifter<'_>) -> bool {
    l.key.has(key::IOPL_OK)
}

/// CLI
fn cli(l: &mut Lifter<'_>, _: &Instruction) {
    if !interrupts_allowed(l) {
        l.call(VIRTUAL_FLAG, &[], 0);
        return;
    }
    let old = l.get(regs::EFLAGS);
    let new = l.and_imm(old, !(eflags::IF as i64));
    l.set(regs::EFLAGS, new);
}

/// STI: what was kept waiting is taken behind the next instruction
fn sti(l: &mut Lifter<'_>, _: &Instruction) {
    if !interrupts_allowed(l) {
        l.call(VIRTUAL_FLAG, &[], 1);
        return l.resync();
    }
    let old = l.get(regs::EFLAGS);
    let was = l.bextract_u(old, 9, 1);
    let shadow = l.xor_imm(was, 1);
    let new = l.or_imm(old, eflags::IF as i64);
    l.set(regs::EFLAGS, new);
    if !(l.last || l.key.single() || l.key.has(key::SHADOW)) {
        // Nothing waits: there is nothing to take behind the next instruction, which is in this block.
        let waits = l.get(regs::EVENT_WAITS);
        let waits = l.icmp_imm(IntCc::Ne, waits, 0);
        let (something, nothing) = (l.label(), l.label());
        l.brif(waits, something, nothing);
        l.place(something);
        let one = l.iconst(Type::I32, 1);
        l.set(regs::SHADOW, one);
        l.resync();
        return l.place(nothing);
    }
    l.set(regs::SHADOW, shadow);
    l.resync();
}

/// PUSHF, PUSHFD, PUSHFQ
fn pushf(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = stack_slot(insn, 1);
    let mut all = flag::whole(l);
    if l.key.has(key::VM86) && !interrupts_allowed(l) {
        all = l.call(VIRTUAL_IMAGE, &[all], log2(ty));
    }
    let v = l.trunc(ty, all);
    l.push(v);
}

/// POPF, POPFD, POPFQ
fn popf(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = stack_slot(insn, 1);
    if l.key.has(key::VM86) && !interrupts_allowed(l) {
        // Nothing is read when it is not allowed.
        l.call(VIRTUAL_POP, &[], log2(ty));
        let v = l.peek(ty);
        let v = l.zext(Type::I64, v);
        l.call(SET_VIRTUAL, &[v], 0);
        l.drop_stack(ty.bytes() as i64);
        return l.resync();
    }
    let v = l.peek(ty);
    l.drop_stack(ty.bytes() as i64);
    let mut writable = eflags::TF | eflags::DF | eflags::NT;
    if ty != Type::I16 {
        writable |= eflags::AC | eflags::ID;
    }
    if interrupts_allowed(l) {
        writable |= eflags::IF;
    }
    if l.key.cpl() == 0 {
        writable |= eflags::IOPL;
    }
    flag::set_writable(l, v, writable);
    l.resync();
}

// Helpers.

type Args<'a> = &'a [u128; 4];
type Answer = Result<u128, Trap>;

fn transfer_load(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    segment::load(cx, args[3] as usize, args[0] as u16).map(|()| 0)
}

fn transfer_jump(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    far::jump(cx, args[0] as u16, args[1] as u64, args[2] as u64).map(u128::from)
}

fn transfer_call(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let (offset, next) = (args[1] as u64, args[2] as u64);
    far::call(cx, args[0] as u16, offset, args[3] as u8, next).map(u128::from)
}

fn transfer_return(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    far::ret(cx, args[3] as u8, (args[3] >> 8) as u64 & 0xffff).map(u128::from)
}

fn transfer_iret(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let pc = far::iret(cx, args[3] as u8, args[0] as u64)?;
    super::processor::take_pending_nmi(cx, pc)?;
    arrived(cx, pc)
}

const INT3: i64 = 1 << 8;
const INTO: i64 = 2 << 8;
const INT1: i64 = 3 << 8;

fn transfer_interrupt(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let which = match args[3] as i64 {
        INT3 => Software::Int3,
        INTO => Software::Into,
        INT1 => Software::Int1,
        n => Software::Int(n as u8),
    };
    event::software(cx, which, args[0] as u64).map(u128::from)
}

fn transfer_syscall(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let pc = fast_call::syscall(cx, args[0] as u64)?;
    arrived(cx, pc)
}
fn transfer_sysret(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let pc = fast_call::sysret(cx, args[3] != 0)?;
    arrived(cx, pc)
}
fn transfer_sysenter(cx: &mut HelperCx<'_>, _: Args<'_>) -> Answer {
    fast_call::sysenter(cx).map(u128::from)
}
fn transfer_sysexit(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    fast_call::sysexit(cx, args[3] != 0).map(u128::from)
}

/// Base, limit; immediate 1 for IDTR.
fn transfer_load_table(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let base = args[0] as u64;
    fail_if(code64(cx.state) && !canonical(cx.state, base), GP, 0)?;
    let (base_slot, limit_slot) = match args[3] {
        0 => (regs::GDTR_BASE, regs::GDTR_LIMIT),
        _ => (regs::IDTR_BASE, regs::IDTR_LIMIT),
    };
    set(cx.state, base_slot, base);
    set(cx.state, limit_slot, args[1] as u64);
    Ok(0)
}

/// Selector; immediate 1 for LTR.
fn transfer_load_system(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let selector = args[0] as u16;
    match args[3] {
        0 => segment::load_ldt(cx, selector, GP)?,
        _ => segment::load_task(cx, selector)?,
    }
    Ok(0)
}

/// As [`crate::segment::ASK`].
fn transfer_ask(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let question = match args[3] {
        0 => Question::Rights,
        1 => Question::Limit,
        2 => Question::Read,
        _ => Question::Write,
    };
    let answer = segment::ask(cx, question, args[0] as u16)?;
    Ok(answer.map_or(0, |value| 1 << 32 | value as u128))
}

/// CLI (immediate 0) and STI (1) without I/O privilege: VIF stands in for IF where CR4 says so.
fn transfer_virtual_flag(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let extensions = match vm86(cx.state) {
        true => cr4::VME,
        false => cr4::PVI,
    };
    let on = get(cx.state, regs::CR4) & extensions != 0 && cpl(cx.state) == 3;
    let flags = get32(cx.state, regs::EFLAGS);
    let pending = args[3] != 0 && flags & eflags::VIP != 0;
    fail_if(!on || pending, GP, 0)?;
    let flags = flags & !eflags::VIF | if args[3] != 0 { eflags::VIF } else { 0 };
    set(cx.state, regs::EFLAGS, flags as u64);
    Ok(0)
}

/// Virtual interrupts, which only 16-bit instructions have, or #GP.
fn virtual_interrupts(cx: &HelperCx<'_>, log2: u128) -> Result<(), Trap> {
    let on = get(cx.state, regs::CR4) & cr4::VME != 0 && log2 == 1;
    fail_if(!on && iopl(cx.state) < 3, GP, 0)
}

/// The flags as PUSHF shows them in virtual-8086 mode without I/O privilege; immediate: log2 of the size.
fn transfer_virtual_image(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    virtual_interrupts(cx, args[3])?;
    let all = args[0] as u32;
    let on = if all & eflags::VIF != 0 { eflags::IF } else { 0 };
    Ok((all & !eflags::IF | on | eflags::IOPL) as u128)
}

/// POPF in virtual-8086 mode without I/O privilege: whether it is allowed.
fn transfer_virtual_pop(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    virtual_interrupts(cx, args[3]).map(|()| 0)
}

fn transfer_set_virtual(cx: &mut HelperCx<'_>, args: Args<'_>) -> Answer {
    let flags = far::virtual_interrupts(regs::eflags(cx.state), args[0] as u32)?;
    regs::set_eflags(cx.state, flags & !eflags::RF);
    Ok(0)
}

/// What a load of one segment register may write.
const SEGMENTS: &[Slot] = &{
    let mut all = [Slot(0); 24];
    let mut i = 0;
    while i < 24 {
        all[i] = Slot(regs::SEG[0].0 + i as u16);
        i += 1;
    }
    all
};
const TABLES: &[Slot] = &[regs::GDTR_BASE, regs::GDTR_LIMIT, regs::IDTR_BASE, regs::IDTR_LIMIT];
const SYSTEM: &[Slot] = &[
    regs::LDTR,
    regs::LDTR_BASE,
    regs::LDTR_LIMIT,
    regs::LDTR_ATTR,
    regs::TR,
    regs::TR_BASE,
    regs::TR_LIMIT,
    regs::TR_ATTR,
];
const FLAGS: &[Slot] = &[regs::EFLAGS, regs::CC_OP, regs::CC_DST, regs::CC_SRC];

helpers! { FIRST_TRANSFER;
    /// Selector; segment number in the immediate.
    LOAD = transfer_load(I32) -> (), Access::All, Access::These(SEGMENTS), traps;
    /// Selector, offset, the pc behind it; the new pc.
    JUMP = transfer_jump(I32, I64, I64) -> I64, Access::All, Access::All, traps;
    /// The same; immediate: log2 of the operand size.
    CALL = transfer_call(I32, I64, I64) -> I64, Access::All, Access::All, traps;
    /// Immediate: bytes to drop << 8 | log2 of the operand size.
    RETURN = transfer_return() -> I64, Access::All, Access::All, traps;
    /// The pc behind it; immediate: log2 of the operand size.
    IRET = transfer_iret(I64) -> I64, Access::All, Access::All, traps;
    /// The pc behind it; immediate: vector, or which other instruction.
    INTERRUPT = transfer_interrupt(I64) -> I64, Access::All, Access::All, traps;
    /// The pc behind it.
    SYSCALL = transfer_syscall(I64) -> I64, Access::All, Access::All, traps;
    /// Immediate: 1 for 64 bits.
    SYSRET = transfer_sysret() -> I64, Access::All, Access::All, traps;
    SYSENTER = transfer_sysenter() -> I64, Access::All, Access::All, traps;
    SYSEXIT = transfer_sysexit() -> I64, Access::All, Access::All, traps;
    /// Base, limit; immediate 0 GDTR, 1 IDTR.
    LOAD_TABLE = transfer_load_table(I64, I32) -> (), Access::All, Access::These(TABLES), traps;
    /// Selector; immediate 0 LLDT, 1 LTR.
    LOAD_SYSTEM = transfer_load_system(I32) -> (), Access::All, Access::These(SYSTEM), traps;
    /// Selector; immediate 0 LAR, 1 LSL, 2 VERR, 3 VERW. ZF is bit 32 of the result.
    ASK = transfer_ask(I32) -> I64, Access::All, Access::None, traps;
    /// Immediate 0 CLI, 1 STI.
    VIRTUAL_FLAG = transfer_virtual_flag() -> (), Access::All, Access::These(FLAGS), traps;
    VIRTUAL_IMAGE = transfer_virtual_image(I64) -> I64, Access::All, Access::None, traps;
    VIRTUAL_POP = transfer_virtual_pop() -> (), Access::All, Access::None, traps;
    SET_VIRTUAL = transfer_set_virtual(I64) -> (), Access::All, Access::These(FLAGS), traps;
}
