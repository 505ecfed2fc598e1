//! Control transfer instructions: jumps, calls, returns, loops, interrupts, system calls, ENTER and LEAVE.

use super::flag;
use super::transfer::load_segment;
use crate::cpu::Vendor;
use crate::decode::{Row, rows};
use crate::flags::{OF, ZF};
use crate::lifter::Cond;
use crate::operand::Intent;
use crate::segment::{self, GP};
use crate::{Lifter, SYSCALL_INT80, SYSCALL_SYSCALL, SYSCALL_SYSENTER, key, regs};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use tulk_base::RmwOp;
use tulk_ir::{ExitKind, IntCc, Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {}
    loud {
        Jmp => jmp, Call => call, Ret => ret, Retf => retf, Iret => iret, Iretd => iret, Iretq => iret,
        Ja => jcc, Jae => jcc, Jb => jcc, Jbe => jcc, Je => jcc, Jg => jcc, Jge => jcc, Jl => jcc, Jle => jcc,
        Jne => jcc, Jno => jcc, Jnp => jcc, Jns => jcc, Jo => jcc, Jp => jcc, Js => jcc,
        Jcxz => jcxz, Jecxz => jcxz, Jrcxz => jcxz, Loop => loop_, Loope => loop_, Loopne => loop_,
        Int => int, Int1 => int1, Int3 => int3, Into => into, Bound => bound,
        Syscall => syscall, Sysenter => sysenter, Enter => enter, Leave => leave,
        Ud0 => crate::decode::undefined, Ud1 => crate::decode::undefined, Ud2 => crate::decode::undefined,
    }
    codes {
        Jmp_ptr1616 => jmp_far, Jmp_ptr1632 => jmp_far, Jmp_m1616 => jmp_far, Jmp_m1632 => jmp_far,
        Jmp_m1664 => jmp_far, Call_ptr1616 => call_far, Call_ptr1632 => call_far, Call_m1616 => call_far,
        Call_m1632 => call_far, Call_m1664 => call_far,
    }
};

/// Vectors of exceptions that only instructions raise.
const OVERFLOW: u32 = 4;
const BOUND: u32 = 5;

/// Where a near branch goes.
#[derive(Clone, Copy)]
enum Target {
    Pc(u64),
    /// Linear, as an I64.
    Dynamic(Value),
}

/// An instruction pointer (an I16, I32 or I64) as a linear pc.
fn code_linear(l: &mut Lifter<'_>, ip: Value) -> Value {
    if l.key.long() {
        return l.zext(Type::I64, ip);
    }
    let mut v = l.zext(Type::I32, ip);
    if l.key.has(key::CODE_CHECK) || l.key.code == 16 && l.ty(ip) == Type::I32 {
        l.call(segment::CHECK_TARGET, &[v], 0);
    }
    if l.key.has_base(regs::CS) {
        let base = l.get(regs::SEG_BASE[regs::CS]);
        let base = l.trunc(Type::I32, base);
        v = l.add(v, base);
    }
    l.zext(Type::I64, v)
}

/// The instruction pointer behind this instruction, of type `ty`.
fn next_ip(l: &mut Lifter<'_>, ty: Type) -> Value {
    let next = l.next as i64;
    if !l.key.long() && l.key.has_base(regs::CS) {
        let base = l.get(regs::SEG_BASE[regs::CS]);
        let base = l.trunc(Type::I32, base);
        let linear = l.iconst(Type::I32, next);
        let ip = l.sub(linear, base);
        return l.zext(ty, ip);
    }
    l.iconst(ty, next)
}

/// The target of a relative branch.
fn near_target(l: &mut Lifter<'_>, insn: &Instruction) -> Target {
    match insn.op0_kind() {
        OpKind::NearBranch64 => Target::Pc(insn.near_branch64()),
        OpKind::NearBranch32 if l.key.code == 16 || l.key.has(key::CODE_CHECK) => {
            let distance = insn.near_branch32().wrapping_sub(l.next as u32) as i32;
            let ip = next_ip(l, Type::I32);
            let ip = l.add_imm(ip, distance as i64);
            Target::Dynamic(code_linear(l, ip))
        }
        OpKind::NearBranch32 => Target::Pc(insn.near_branch32() as u64),
        _ if !l.key.has_base(regs::CS) && !l.key.has(key::CODE_CHECK) => {
            Target::Pc(insn.near_branch16() as u64)
        }
        _ => {
            // The pointer wraps at 64 KiB before the base is added.
            let distance = insn.near_branch16().wrapping_sub(l.next as u16);
            let ip = next_ip(l, Type::I16);
            let ip = l.add_imm(ip, distance as i64);
            Target::Dynamic(code_linear(l, ip))
        }
    }
}

fn go(l: &mut Lifter<'_>, target: Target) {
    match target {
        Target::Pc(pc) => l.exit_to(pc),
        Target::Dynamic(v) => l.exit_indirect(ExitKind::Jump, v),
    }
}

/// Ends the block: to the target of this relative branch if the condition holds.
fn branch(l: &mut Lifter<'_>, insn: &Instruction, cond: Cond) {
    match near_target(l, insn) {
        Target::Pc(pc) => l.branch_if(cond, pc),
        target @ Target::Dynamic(v) => match cond {
            Cond::Const(true) => go(l, target),
            Cond::Const(false) => {
                let next = l.next;
                l.exit_to(next);
            }
            Cond::If(c) => {
                let next = l.next as i64;
                let next = l.iconst(Type::I64, next);
                let pc = l.select(c, v, next);
                l.exit_indirect(ExitKind::Jump, pc);
            }
        },
    }
}

/// The pointer that an indirect near branch reads, as a linear pc.
fn indirect_target(l: &mut Lifter<'_>, insn: &Instruction) -> Value {
    let ty = l.operand_type(insn, 0);
    let ip = l.operand(insn, 0, ty);
    code_linear(l, ip)
}

fn is_relative(insn: &Instruction) -> bool {
    matches!(insn.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

/// JMP rel; JMP r/m
fn jmp(l: &mut Lifter<'_>, insn: &Instruction) {
    let target = if is_relative(insn) {
        near_target(l, insn)
    } else {
        Target::Dynamic(indirect_target(l, insn))
    };
    go(l, target);
}

/// CALL rel; CALL r/m
fn call(l: &mut Lifter<'_>, insn: &Instruction) {
    let relative = is_relative(insn);
    let target =
        if relative { near_target(l, insn) } else { Target::Dynamic(indirect_target(l, insn)) };
    let ty = super::transfer::stack_slot(insn, 1);
    let ret = next_ip(l, ty);
    l.push(ret);
    match target {
        Target::Pc(pc) => l.exit_call(pc),
        Target::Dynamic(v) => l.exit_indirect(ExitKind::Call, v),
    }
}

/// RET; RET imm
fn ret(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = match insn.code() {
        Code::Retnw | Code::Retnw_imm16 => Type::I16,
        Code::Retnd | Code::Retnd_imm16 => Type::I32,
        _ => Type::I64,
    };
    let more = if insn.op_count() == 0 { 0 } else { insn.immediate16() as i64 };
    let ip = l.peek(ty);
    let pc = code_linear(l, ip);
    l.drop_stack(ty.bytes() as i64 + more);
    l.exit_indirect(ExitKind::Return, pc);
}

/// Jcc rel
fn jcc(l: &mut Lifter<'_>, insn: &Instruction) {
    let cond = l.cond_first(insn.condition_code() as u32 - 1);
    if l.last {
        return branch(l, insn, cond);
    }
    if let Target::Pc(pc) = near_target(l, insn) {
        l.leave_if(cond, pc);
    }
}

/// JCXZ, JECXZ, JRCXZ rel
fn jcxz(l: &mut Lifter<'_>, insn: &Instruction) {
    let r = match insn.mnemonic() {
        Mnemonic::Jcxz => Register::CX,
        Mnemonic::Jecxz => Register::ECX,
        _ => Register::RCX,
    };
    let v = l.reg(r);
    let zero = l.icmp_imm(IntCc::Eq, v, 0);
    branch(l, insn, Cond::If(zero));
}

/// LOOP, LOOPE, LOOPNE rel
fn loop_(l: &mut Lifter<'_>, insn: &Instruction) {
    use Code::*;
    let r = match insn.code() {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX
        | Loopne_rel8_16_CX | Loopne_rel8_32_CX => Register::CX,
        Loop_rel8_16_RCX | Loop_rel8_64_RCX | Loope_rel8_16_RCX | Loope_rel8_64_RCX
        | Loopne_rel8_16_RCX | Loopne_rel8_64_RCX => Register::RCX,
        _ => Register::ECX,
    };
    let v = l.reg(r);
    let v = l.add_imm(v, -1);
    let mut taken = l.icmp_imm(IntCc::Ne, v, 0);
    if insn.mnemonic() != Mnemonic::Loop {
        let mut z = l.flag(ZF);
        if insn.mnemonic() == Mnemonic::Loopne {
            z = l.xor_imm(z, 1);
        }
        taken = l.and(taken, z);
    }
    l.set_reg(r, v);
    branch(l, insn, Cond::If(taken));
}

/// INT imm
fn int(l: &mut Lifter<'_>, insn: &Instruction) {
    let next = l.next;
    match insn.immediate8() as u32 {
        3 => l.trap(ExitKind::Breakpoint, 3, next),
        OVERFLOW => l.trap(ExitKind::Guest, OVERFLOW << 16, next),
        n if n == SYSCALL_INT80 => l.trap(ExitKind::Syscall, SYSCALL_INT80, next),
        // A gate that user code may not use.
        n => l.exception(GP, n << 3 | 2),
    }
}

/// INT1
fn int1(l: &mut Lifter<'_>, _: &Instruction) {
    let next = l.next;
    l.trap(ExitKind::Guest, 1 << 16, next);
}

/// INT3: a trap, so the pc is behind it
fn int3(l: &mut Lifter<'_>, _: &Instruction) {
    let next = l.next;
    l.trap(ExitKind::Breakpoint, 3, next);
}

/// INTO
fn into(l: &mut Lifter<'_>, _: &Instruction) {
    let overflow = l.flag(OF);
    let (trap, on) = (l.label(), l.label());
    l.brif(overflow, trap, on);
    l.place(trap);
    let next = l.next;
    l.trap(ExitKind::Guest, OVERFLOW << 16, next);
    l.place(on);
    l.exit_to(next);
}

/// BOUND index, bounds
fn bound(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let v = l.reg(insn.op0_register());
    let addr = l.address(insn, 2 * ty.bytes(), Intent::Read);
    let low = l.load(ty, addr);
    let below = l.icmp(IntCc::LtS, v, low);
    if l.cpu.chip().vendor == Vendor::Intel {
        // The upper bound is read only then.
        l.fault_if(below, BOUND);
        let v = l.reg(insn.op0_register());
        let addr = l.address(insn, 2 * ty.bytes(), Intent::Read);
        let high = l.load(ty, addr.plus(ty.bytes() as i64));
        let above = l.icmp(IntCc::GtS, v, high);
        return l.fault_if(above, BOUND);
    }
    let high = l.load(ty, addr.plus(ty.bytes() as i64));
    let above = l.icmp(IntCc::GtS, v, high);
    let outside = l.or(below, above);
    l.fault_if(outside, BOUND);
}

/// SYSCALL
fn syscall(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.long() {
        let all = flag::whole(l);
        let next = l.next as i64;
        let next = l.iconst(Type::I64, next);
        l.set(regs::RCX, next);
        l.set(regs::GPR[11], all);
    } else if l.cpu.chip().vendor == Vendor::Intel {
        return l.undefined();
    }
    let next = l.next;
    l.trap(ExitKind::Syscall, SYSCALL_SYSCALL, next);
}

/// SYSENTER
fn sysenter(l: &mut Lifter<'_>, _: &Instruction) {
    let next = l.next;
    l.trap(ExitKind::Syscall, SYSCALL_SYSENTER, next);
}

/// ENTER size, level
fn enter(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = match insn.code() {
        Code::Enterw_imm16_imm8 => Type::I16,
        Code::Enterd_imm16_imm8 => Type::I32,
        _ => Type::I64,
    };
    let bytes = ty.bytes() as i64;
    let (size, level) = (insn.immediate16() as i64, insn.immediate8_2nd() as i64 & 31);
    let sp = l.stack_pointer();
    let bp = l.gpr(5, ty);
    let base = frame_pointer(l);
    let push = |l: &mut Lifter<'_>, n: i64, v| {
        let addr = l.stack_address(sp, -n * bytes, ty.bytes(), Intent::Write);
        l.store(addr, v);
    };
    push(l, 1, bp);
    let mut frame = l.stack_plus(sp, -bytes);
    if l.key.stack == 16 && ty == Type::I32 {
        // Processors keep the upper half of ESP in it, where the manual has SP only.
        let esp = l.gpr(4, Type::I32);
        frame = l.binsert(esp, frame, 0, 16);
    }
    if level > 0 {
        for n in 1..level {
            let addr = l.stack_address(base, -n * bytes, ty.bytes(), Intent::Read);
            let v = l.load(ty, addr);
            push(l, n + 1, v);
        }
        let v = l.zext(ty, frame);
        push(l, level + 1, v);
    }
    let pushed = bytes * if level > 0 { level + 1 } else { 1 };
    let sp = l.stack_plus(sp, -pushed - size);
    // The processor finds out whether the new top can be written.
    let top = l.stack_address(sp, 0, ty.bytes(), Intent::Write);
    let nothing = l.iconst(ty, 0);
    l.atomic_rmw(RmwOp::Or, top, nothing);
    l.set_stack_pointer(sp);
    let frame = l.zext(ty, frame);
    l.set_gpr(5, frame);
}

/// The frame pointer as a stack pointer: see [`Lifter::stack_pointer`].
fn frame_pointer(l: &mut Lifter<'_>) -> Value {
    match l.key.stack {
        64 => l.gpr(5, Type::I64),
        32 => l.gpr(5, Type::I32),
        _ => {
            let bp = l.gpr(5, Type::I16);
            l.zext(Type::I32, bp)
        }
    }
}

/// LEAVE
fn leave(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = match insn.code() {
        Code::Leavew => Type::I16,
        Code::Leaved => Type::I32,
        _ => Type::I64,
    };
    let sp = frame_pointer(l);
    let addr = l.stack_address(sp, 0, ty.bytes(), Intent::Read);
    let v = l.load(ty, addr);
    let sp = l.stack_plus(sp, ty.bytes() as i64);
    l.set_stack_pointer(sp);
    l.set_gpr(5, v);
}

/// Offset (I16 to I64) and selector (an I32) of a far pointer in the instruction or in memory.
pub(crate) fn far_pointer(l: &mut Lifter<'_>, insn: &Instruction) -> (Value, Value) {
    let (ty, offset) = match insn.op0_kind() {
        OpKind::FarBranch16 => (Type::I16, insn.far_branch16() as u32),
        OpKind::FarBranch32 => (Type::I32, insn.far_branch32()),
        _ => return far_pointer_in_memory(l, insn),
    };
    let selector = insn.far_branch_selector() as i64;
    (l.iconst(ty, offset as i64), l.iconst(Type::I32, selector))
}

pub(crate) fn far_pointer_in_memory(l: &mut Lifter<'_>, insn: &Instruction) -> (Value, Value) {
    let ty = match insn.memory_size().size() {
        4 => Type::I16,
        // AMD processors have no far pointers with 64-bit offsets.
        10 if l.cpu.chip().vendor == Vendor::Intel => Type::I64,
        _ => Type::I32,
    };
    let addr = l.address(insn, ty.bytes() + 2, Intent::Read);
    let offset = l.load(ty, addr);
    let selector = l.load(Type::I16, addr.plus(ty.bytes() as i64));
    (offset, l.zext(Type::I32, selector))
}

fn load_code(l: &mut Lifter<'_>, selector: Value, offset: Value, is_return: bool) -> Value {
    let offset = l.zext(Type::I64, offset);
    l.call(segment::FAR, &[selector, offset], is_return as i64)
}

/// JMP far
fn jmp_far(l: &mut Lifter<'_>, insn: &Instruction) {
    let (offset, selector) = far_pointer(l, insn);
    let pc = load_code(l, selector, offset, false);
    l.exit_indirect(ExitKind::Resync, pc);
}

/// CALL far
fn call_far(l: &mut Lifter<'_>, insn: &Instruction) {
    let (offset, selector) = far_pointer(l, insn);
    let ty = if insn.code() == Code::Call_m1664 { Type::I64 } else { l.ty(offset) };
    let bytes = ty.bytes() as i64;
    let wide = l.zext(Type::I64, offset);
    l.call(segment::FAR, &[selector, wide], 2);
    let sp = l.stack_pointer();
    let cs = l.get(regs::SEG[regs::CS]);
    let cs = l.zext(ty, cs);
    let ip = next_ip(l, ty);
    for (n, v) in [(1, cs), (2, ip)] {
        let addr = l.stack_address(sp, -n * bytes, ty.bytes(), Intent::Write);
        l.store(addr, v);
    }
    let pc = load_code(l, selector, offset, false);
    let sp = l.stack_plus(sp, -2 * bytes);
    l.set_stack_pointer(sp);
    l.exit_indirect(ExitKind::Resync, pc);
}

/// The `n`-th stack slot from the top.
fn slot(l: &mut Lifter<'_>, n: i64, ty: Type) -> Value {
    let sp = l.stack_pointer();
    let addr = l.stack_address(sp, n * ty.bytes() as i64, ty.bytes(), Intent::Read);
    l.load(ty, addr)
}

/// RETF; RETF imm
fn retf(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = match insn.code() {
        Code::Retfw | Code::Retfw_imm16 => Type::I16,
        Code::Retfd | Code::Retfd_imm16 => Type::I32,
        _ => Type::I64,
    };
    let more = if insn.op_count() == 0 { 0 } else { insn.immediate16() as i64 };
    // Read downwards, as a fault shows.
    let (selector, offset) = (slot(l, 1, ty), slot(l, 0, ty));
    let selector = l.trunc(Type::I16, selector);
    let selector = l.zext(Type::I32, selector);
    let pc = load_code(l, selector, offset, true);
    l.drop_stack(2 * ty.bytes() as i64 + more);
    l.exit_indirect(ExitKind::Resync, pc);
}

/// IRET, IRETD, IRETQ to the same privilege level; in 64-bit code it also pops the stack pointer
fn iret(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = match insn.mnemonic() {
        Mnemonic::Iret => Type::I16,
        Mnemonic::Iretd => Type::I32,
        _ => Type::I64,
    };
    let nested = l.get(regs::EFLAGS);
    let nested = l.and_imm(nested, regs::eflags::NT as i64);
    let nested = l.icmp_imm(IntCc::Ne, nested, 0);
    l.fault_if(nested, GP);
    // Read in this order, as a fault shows.
    let (flags, selector, offset) = (slot(l, 2, ty), slot(l, 1, ty), slot(l, 0, ty));
    let stack = l.key.long().then(|| (slot(l, 3, ty), slot(l, 4, ty)));
    let selector = l.trunc(Type::I16, selector);
    let selector = l.zext(Type::I32, selector);
    let pc = match stack {
        Some((sp, ss)) => {
            let ss = l.trunc(Type::I16, ss);
            let ss = l.zext(Type::I32, ss);
            let offset = l.zext(Type::I64, offset);
            let pc = l.call(segment::FAR_STACK, &[selector, offset, ss], 0);
            let sp = l.zext(Type::I64, sp);
            l.set_stack_pointer(sp);
            pc
        }
        None => {
            let pc = load_code(l, selector, offset, true);
            l.drop_stack(3 * ty.bytes() as i64);
            pc
        }
    };
    flag::set_whole(l, flags);
    l.exit_indirect(ExitKind::Resync, pc);
}

/// Loads a segment register and a general register with a far pointer: LDS, LES, LFS, LGS, LSS
pub(super) fn load_far_pointer(l: &mut Lifter<'_>, insn: &Instruction) {
    let seg = match insn.mnemonic() {
        Mnemonic::Lds => regs::DS,
        Mnemonic::Les => regs::ES,
        Mnemonic::Lfs => regs::FS,
        Mnemonic::Lgs => regs::GS,
        _ => regs::SS,
    };
    let (offset, selector) = far_pointer_in_memory(l, insn);
    load_segment(l, seg, selector);
    let ty = l.operand_type(insn, 0);
    let offset = l.zext(ty, offset);
    l.set_reg(insn.op0_register(), offset);
    l.resync();
}
