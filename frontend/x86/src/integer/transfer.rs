//! Data transfer instructions: MOV and its kin, CMOVcc, exchanges, the stack, conversions, LEA, XLAT.

use crate::Lifter;
use crate::cpu::Vendor;
use crate::decode::{Row, rows};
use crate::flags::{CF, Kind, ZF};
use crate::lifter::Cond;
use crate::operand::{Addr, Intent, Place, segment_number};
use crate::{regs, segment};
use iced_x86::{Code, Instruction, OpKind, Register};
use tulk_base::{MemAlign, MemOp, RmwOp};
use tulk_ir::{IntCc, Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {
        Mov => mov, Movzx => movzx, Movsx => movsx, Movsxd => movsx, Movbe => movbe, Movnti => mov, Movdiri => mov,
        Cmova => cmov, Cmovae => cmov, Cmovb => cmov, Cmovbe => cmov, Cmove => cmov, Cmovg => cmov, Cmovge => cmov,
        Cmovl => cmov, Cmovle => cmov, Cmovne => cmov, Cmovno => cmov, Cmovnp => cmov, Cmovns => cmov, Cmovo => cmov,
        Cmovp => cmov, Cmovs => cmov,
        Xchg => xchg, Xadd => xadd, Cmpxchg => cmpxchg, Bswap => bswap, Lea => lea, Xlatb => xlatb,
        Cbw => convert, Cwde => convert, Cdqe => convert, Cwd => spread, Cdq => spread, Cqo => spread,
    }
    loud {
        Cmpxchg8b => cmpxchg8b, Cmpxchg16b => cmpxchg16b, Movdir64b => movdir64b,
        Push => push, Pop => pop, Pusha => pusha, Pushad => pusha, Popa => popa, Popad => popa,
    }
    codes {
        Mov_rm16_Sreg => mov_from_sreg, Mov_r32m16_Sreg => mov_from_sreg, Mov_r64m16_Sreg => mov_from_sreg,
        Mov_Sreg_rm16 => mov_to_sreg, Mov_Sreg_r32m16 => mov_to_sreg, Mov_Sreg_r64m16 => mov_to_sreg,
        Mov_r32_cr => privileged, Mov_r64_cr => privileged, Mov_cr_r32 => privileged, Mov_cr_r64 => privileged,
        Mov_r32_dr => privileged, Mov_r64_dr => privileged, Mov_dr_r32 => privileged, Mov_dr_r64 => privileged,
    }
};

/// MOV to or from control and debug registers
fn privileged(l: &mut Lifter<'_>, _: &Instruction) {
    l.privileged();
}

/// MOV dst, src
fn mov(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    if let (OpKind::Register, Some(imm)) = (insn.op0_kind(), l.immediate(insn, 1)) {
        let r = insn.op0_register();
        if ty != Type::I8 && ty != Type::I16 && imm == 0 {
            return l.clear_reg(r);
        }
        if ty == Type::I32 {
            let v = l.iconst(Type::I64, imm as u32 as i64);
            return l.set_reg(r.full_register(), v);
        }
        let v = l.iconst(ty, imm as i64);
        return l.set_reg(r, v);
    }
    let v = l.operand(insn, 1, ty);
    let dst = l.place_of(insn, 0, Intent::Write);
    l.write(dst, v);
}

/// MOV dst, Sreg
fn mov_from_sreg(l: &mut Lifter<'_>, insn: &Instruction) {
    let selector = l.get(regs::SEG[segment_number(insn.op1_register())]);
    let dst = l.place_of(insn, 0, Intent::Write);
    let ty = match dst {
        Place::Reg(r) => Type::int_of_log2(r.size().trailing_zeros() as u8),
        Place::Mem(_) => Type::I16,
    };
    let v = l.zext(ty, selector);
    l.write(dst, v);
}

/// MOV Sreg, src
fn mov_to_sreg(l: &mut Lifter<'_>, insn: &Instruction) {
    let seg = segment_number(insn.op0_register());
    if seg == regs::CS {
        return l.undefined();
    }
    let v = l.operand(insn, 1, Type::I16);
    load_segment(l, seg, v);
    l.resync();
}

/// Loads a segment register with the low 16 bits of a value.
pub(super) fn load_segment(l: &mut Lifter<'_>, seg: usize, selector: Value) {
    let selector = l.trunc(Type::I16, selector);
    let selector = l.zext(Type::I32, selector);
    l.call(segment::LOAD, &[selector], seg as i64);
}

/// MOVZX dst, src
fn movzx(l: &mut Lifter<'_>, insn: &Instruction) {
    let (to, from) = (l.operand_type(insn, 0), l.operand_type(insn, 1));
    // To a doubleword is to the whole register.
    let full = if to == Type::I32 { Type::I64 } else { to };
    let v = match l.place_of(insn, 1, Intent::Read) {
        Place::Reg(r) => {
            let v = l.reg(r);
            l.zext(full, v)
        }
        Place::Mem(addr) => {
            let op = MemOp::of_log2(from.bytes().trailing_zeros() as u8);
            l.load_as(full, addr, op)
        }
    };
    let r = insn.op0_register();
    l.set_reg(if full == to { r } else { r.full_register() }, v);
}

/// MOVSX dst, src; MOVSXD
fn movsx(l: &mut Lifter<'_>, insn: &Instruction) {
    let (to, from) = (l.operand_type(insn, 0), l.operand_type(insn, 1));
    let v = match l.place_of(insn, 1, Intent::Read) {
        Place::Reg(r) => {
            let v = l.reg(r);
            l.sext(to, v)
        }
        Place::Mem(addr) => {
            let op = MemOp::of_log2(from.bytes().trailing_zeros() as u8);
            // MOVSXD r16, m16 reads more on AMD processors.
            let quirk = insn.code() == Code::Movsxd_r16_rm16;
            if quirk && l.cpu.chip().vendor == Vendor::Amd {
                let v = l.load(Type::I32, addr);
                l.trunc(to, v)
            } else {
                l.load_as(to, addr, if from == to { op } else { op.with_sign() })
            }
        }
    };
    l.set_reg(insn.op0_register(), v);
}

/// MOVBE dst, src
fn movbe(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let v = l.operand(insn, 1, ty);
    let v = l.bswap(v);
    let dst = l.place_of(insn, 0, Intent::Write);
    l.write(dst, v);
}

/// MOVDIR64B es:dst, src
fn movdir64b(l: &mut Lifter<'_>, insn: &Instruction) {
    let src = l.address(insn, 64, Intent::Read);
    let dst = l.reg(insn.op0_register());
    let dst = if l.ty(dst) == Type::I16 { l.zext(Type::I32, dst) } else { dst };
    let dst = l.linear(regs::ES, dst, 0, 64, Intent::Write);
    let flat = l.flat(dst);
    let low = l.and_imm(flat, 63);
    let odd = l.icmp_imm(IntCc::Ne, low, 0);
    let (from, to) = (l.local(Type::I64), l.local(Type::I64));
    let src = l.flat(src);
    l.set(from, src);
    l.set(to, flat);
    // A source that cannot be read faults first.
    for offset in [0, 16, 32, 48] {
        l.load(Type::V128, Addr { base: src, offset });
    }
    l.fault_if(odd, segment::GP);
    let (src, dst) = (l.get(from), l.get(to));
    let parts = [0, 16, 32, 48].map(|offset| l.load(Type::V128, Addr { base: src, offset }));
    for (n, part) in parts.into_iter().enumerate() {
        l.store(Addr { base: dst, offset: 16 * n as i64 }, part);
    }
}

/// CMOVcc dst, src
fn cmov(l: &mut Lifter<'_>, insn: &Instruction) {
    let cond = l.cond_first(insn.condition_code() as u32 - 1);
    let ty = l.operand_type(insn, 0);
    let r = insn.op0_register();
    let new = l.operand(insn, 1, ty);
    let old = l.reg(r);
    let v = match cond {
        Cond::Const(true) => new,
        Cond::Const(false) => old,
        Cond::If(c) => l.select(c, new, old),
    };
    l.set_reg(r, v);
}

/// XCHG a, b
fn xchg(l: &mut Lifter<'_>, insn: &Instruction) {
    let r = insn.op1_register();
    let b = l.reg(r);
    match l.place_of(insn, 0, Intent::Write) {
        Place::Reg(other) => {
            let a = l.reg(other);
            l.set_reg(other, b);
            l.set_reg(r, a);
        }
        // Locked with or without the prefix.
        Place::Mem(addr) => {
            let a = l.atomic_rmw(RmwOp::Xchg, addr, b);
            l.set_reg(r, a);
        }
    }
}

/// XADD dst, src
fn xadd(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let r = insn.op1_register();
    let b = l.reg(r);
    let dst = l.place_of(insn, 0, Intent::Write);
    let sum = match dst {
        Place::Mem(addr) if insn.has_lock_prefix() => {
            let a = l.atomic_rmw(RmwOp::Add, addr, b);
            l.set_reg(r, a);
            l.add(a, b)
        }
        Place::Mem(addr) => {
            let a = l.load(ty, addr);
            let sum = l.add(a, b);
            l.store(addr, sum);
            l.set_reg(r, a);
            sum
        }
        Place::Reg(other) => {
            let a = l.reg(other);
            let sum = l.add(a, b);
            l.set_reg(r, a);
            l.set_reg(other, sum);
            sum
        }
    };
    l.set_flags(Kind::Add, ty, sum, b);
}

/// CMPXCHG dst, src
fn cmpxchg(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let new = l.reg(insn.op1_register());
    let acc = l.gpr(0, ty);
    let dst = l.place_of(insn, 0, Intent::Write);
    let old = match dst {
        Place::Mem(addr) if insn.has_lock_prefix() => {
            let op = MemOp::of_log2(ty.bytes().trailing_zeros() as u8);
            l.atomic_cas(addr, acc, new, op)
        }
        place => l.read(place, ty),
    };
    let equal = l.icmp(IntCc::Eq, acc, old);
    // A write of the old value where they differ.
    if !insn.has_lock_prefix() {
        let v = l.select(equal, new, old);
        if let Place::Mem(addr) = dst {
            l.store(addr, v);
        }
    }
    // A register that keeps its value keeps its upper half, too.
    let keep = |l: &mut Lifter<'_>, r: Register, kept, new: Value| {
        let whole = l.reg(r.full_register());
        let wide = l.zext(Type::I64, new);
        let v = if kept { l.select(equal, whole, wide) } else { l.select(equal, wide, whole) };
        l.set_reg(r.full_register(), v);
    };
    let acc_register = [Register::AL, Register::AX, Register::EAX, Register::RAX]
        [ty.bytes().trailing_zeros() as usize];
    if ty == Type::I32 {
        keep(l, acc_register, true, old);
    } else {
        let v = l.select(equal, acc, old);
        l.set_reg(acc_register, v);
    }
    match dst {
        Place::Reg(r) if ty == Type::I32 => keep(l, r, false, new),
        Place::Reg(r) => {
            let v = l.select(equal, new, old);
            l.set_reg(r, v);
        }
        Place::Mem(_) => {}
    }
    l.set_flags_sub(acc, old, Value::NONE);
}

/// CMPXCHG8B m64
fn cmpxchg8b(l: &mut Lifter<'_>, insn: &Instruction) {
    let addr = l.address(insn, 8, Intent::Write);
    let pair = |l: &mut Lifter<'_>, lo: usize, hi: usize| {
        let (lo, hi) = (l.gpr(lo, Type::I32), l.gpr(hi, Type::I32));
        let (lo, hi) = (l.zext(Type::I64, lo), l.wide(hi));
        l.binsert(lo, hi, 32, 32)
    };
    let expected = pair(l, 0, 2);
    let new = pair(l, 3, 1);
    let old = if insn.has_lock_prefix() {
        l.atomic_cas(addr, expected, new, MemOp::U64)
    } else {
        let old = l.load(Type::I64, addr);
        let equal = l.icmp(IntCc::Eq, old, expected);
        let v = l.select(equal, new, old);
        l.store(addr, v);
        old
    };
    let equal = l.icmp(IntCc::Eq, old, expected);
    let halves = [l.bextract_u(old, 0, 32), l.bextract_u(old, 32, 32)];
    for (slot, half) in [regs::RAX, regs::RDX].into_iter().zip(halves) {
        let whole = l.get(slot);
        let v = l.select(equal, whole, half);
        l.set(slot, v);
    }
    l.set_flag_bits(&[(ZF, Cond::If(equal))]);
}

/// CMPXCHG16B m128
fn cmpxchg16b(l: &mut Lifter<'_>, insn: &Instruction) {
    let addr = l.address(insn, 16, Intent::Write);
    let pair = |l: &mut Lifter<'_>, lo, hi| {
        let (lo, hi) = (l.get(lo), l.get(hi));
        l.concat(lo, hi)
    };
    let expected = pair(l, regs::RAX, regs::RDX);
    let new = pair(l, regs::RBX, regs::RCX);
    let old = l.atomic_cas(addr, expected, new, MemOp::U128.with_align(MemAlign::Sixteen));
    let equal = l.icmp(IntCc::Eq, old, expected);
    let (lo, hi) = (l.lo64(old), l.hi64(old));
    l.set(regs::RAX, lo);
    l.set(regs::RDX, hi);
    l.set_flag_bits(&[(ZF, Cond::If(equal))]);
}

/// BSWAP r
fn bswap(l: &mut Lifter<'_>, insn: &Instruction) {
    let r = insn.op0_register();
    let v = l.reg(r);
    // With a word register the result is undefined by the manual and zero in practice.
    let v = if r.is_gpr16() { l.iconst(Type::I16, 0) } else { l.bswap(v) };
    l.set_reg(r, v);
}

/// LEA dst, m
fn lea(l: &mut Lifter<'_>, insn: &Instruction) {
    let v = l.effective_address(insn);
    let r = insn.op0_register();
    let ty = l.operand_type(insn, 0);
    if ty == Type::I32 && l.ty(v) == Type::I64 {
        let v = l.trunc(Type::I32, v);
        return l.set_reg(r, v);
    }
    let v = l.zext(ty, v);
    l.set_reg(r, v);
}

/// XLATB
fn xlatb(l: &mut Lifter<'_>, insn: &Instruction) {
    let addr = l.address(insn, 1, Intent::Read);
    let v = l.load(Type::I8, addr);
    l.set_reg(Register::AL, v);
}

/// CBW, CWDE, CDQE
fn convert(l: &mut Lifter<'_>, insn: &Instruction) {
    use iced_x86::Mnemonic::*;
    let (from, to) = match insn.mnemonic() {
        Cbw => (Register::AL, Register::AX),
        Cwde => (Register::AX, Register::EAX),
        _ => (Register::EAX, Register::RAX),
    };
    let v = l.reg(from);
    let v = l.sext(Type::int_of_log2(to.size().trailing_zeros() as u8), v);
    l.set_reg(to, v);
}

/// CWD, CDQ, CQO
fn spread(l: &mut Lifter<'_>, insn: &Instruction) {
    use iced_x86::Mnemonic::*;
    let (from, to) = match insn.mnemonic() {
        Cwd => (Register::AX, Register::DX),
        Cdq => (Register::EAX, Register::EDX),
        _ => (Register::RAX, Register::RDX),
    };
    let v = l.reg(from);
    let ty = l.ty(v);
    let v = l.shr_s_imm(v, ty.bits() - 1);
    l.set_reg(to, v);
    l.note_extended(ty);
}

/// Integer type of the stack slots that an instruction pushes or pops `count` of.
pub(crate) fn stack_slot(insn: &Instruction, count: i32) -> Type {
    let bytes = insn.stack_pointer_increment().unsigned_abs() / count as u32;
    Type::int_of_log2(bytes.trailing_zeros() as u8)
}

/// PUSH src
fn push(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = stack_slot(insn, 1);
    if insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register() {
        let v = l.get(regs::SEG[segment_number(insn.op0_register())]);
        // Processors of Intel leave the upper half of 32 bits as it was.
        if ty == Type::I32 && l.cpu.chip().vendor == Vendor::Intel {
            let sp = l.stack_pointer();
            let addr = l.stack_address(sp, -4, 4, Intent::Write);
            l.store_as(addr, v, MemOp::U16);
            let sp = l.stack_plus(sp, -4);
            return l.set_stack_pointer(sp);
        }
        let v = l.zext(ty, v);
        return l.push(v);
    }
    let v = l.operand(insn, 0, ty);
    l.push(v);
}

/// POP dst
fn pop(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = stack_slot(insn, 1);
    let bytes = ty.bytes() as i64;
    if insn.op0_kind() == OpKind::Register {
        let r = insn.op0_register();
        let v = l.peek(ty);
        if r.is_segment_register() {
            load_segment(l, segment_number(r), v);
            l.drop_stack(bytes);
            return l.resync();
        }
        l.drop_stack(bytes);
        return l.set_reg(r, v);
    }
    // The pointer moves before the address is computed, but only a store that succeeds lets it.
    let v = l.peek(ty);
    let mut addr = l.address(insn, ty.bytes(), Intent::Write);
    if insn.memory_base().full_register() == Register::RSP {
        addr = addr.plus(bytes);
    }
    l.store(addr, v);
    l.drop_stack(bytes);
}

/// PUSHA, PUSHAD
fn pusha(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = stack_slot(insn, 8);
    let bytes = ty.bytes() as i64;
    let sp = l.stack_pointer();
    for n in 0..8 {
        let v = l.gpr(n, ty);
        let addr = l.stack_address(sp, -(n as i64 + 1) * bytes, ty.bytes(), Intent::Write);
        l.store(addr, v);
    }
    let sp = l.stack_plus(sp, -8 * bytes);
    l.set_stack_pointer(sp);
}

/// POPA, POPAD
fn popa(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = stack_slot(insn, 8);
    let bytes = ty.bytes() as i64;
    let sp = l.stack_pointer();
    let values: Vec<_> = (0..8)
        .map(|n| {
            let addr = l.stack_address(sp, n * bytes, ty.bytes(), Intent::Read);
            l.load(ty, addr)
        })
        .collect();
    for (n, v) in values.into_iter().enumerate().filter(|(n, _)| *n != 3) {
        l.set_gpr(7 - n, v);
    }
    let sp = l.stack_plus(sp, 8 * bytes);
    l.set_stack_pointer(sp);
}

/// CF as an I8 for arithmetic; zero where it is known to be clear.
pub(super) fn carry_value(l: &mut Lifter<'_>) -> Value {
    match l.carry() {
        Cond::If(v) => v,
        Cond::Const(c) => l.iconst(Type::I8, (c as u32 & CF) as i64),
    }
}
