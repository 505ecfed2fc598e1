//! Flag control instructions.

use super::transfer::stack_slot;
use crate::decode::{Row, rows};
use crate::flags::{self, CF, OF};
use crate::lifter::Cond;
use crate::regs::{self, eflags};
use crate::{Feature, Lifter};
use iced_x86::{Instruction, Register};
use tulk_ir::{Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet { Clc => clc, Stc => stc, Cmc => cmc, Salc => salc }
    loud {
        Cld => cld, Std => std, Lahf => lahf, Sahf => sahf, Cli => interrupts, Sti => interrupts,
        Pushf => pushf, Pushfd => pushf, Pushfq => pushf, Popf => popf, Popfd => popf, Popfq => popf,
    }
    codes {}
};

/// CLC
fn clc(l: &mut Lifter<'_>, _: &Instruction) {
    l.set_flag_bits(&[(CF, Cond::Const(false))]);
}

/// STC
fn stc(l: &mut Lifter<'_>, _: &Instruction) {
    l.set_flag_bits(&[(CF, Cond::Const(true))]);
}

/// CMC
fn cmc(l: &mut Lifter<'_>, _: &Instruction) {
    let c = l.flag(CF);
    let c = l.xor_imm(c, 1);
    l.set_flag_bits(&[(CF, Cond::If(c))]);
}

/// SALC: AL becomes all ones if CF, else zero
fn salc(l: &mut Lifter<'_>, _: &Instruction) {
    let c = l.flag(CF);
    let v = l.neg(c);
    l.set_reg(Register::AL, v);
}

/// The direction flag is part of the key.
fn direction(l: &mut Lifter<'_>, down: bool) {
    if l.key.df == down {
        return;
    }
    let old = l.get(regs::EFLAGS);
    let new = l.xor_imm(old, eflags::DF as i64);
    l.set(regs::EFLAGS, new);
    l.key.df = down;
}

/// CLD
fn cld(l: &mut Lifter<'_>, _: &Instruction) {
    direction(l, false);
}

/// STD
fn std(l: &mut Lifter<'_>, _: &Instruction) {
    direction(l, true);
}

/// CLI, STI: user code has no I/O privilege
fn interrupts(l: &mut Lifter<'_>, _: &Instruction) {
    l.privileged();
}

/// LAHF
fn lahf(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.long() && !l.cpu.has(Feature::LahfLm) {
        return l.undefined();
    }
    let packed = l.packed_flags();
    let low = l.trunc(Type::I8, packed);
    let low = l.or_imm(low, eflags::FIXED as i64);
    l.set_reg(Register::AH, low);
}

/// SAHF
fn sahf(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.long() && !l.cpu.has(Feature::LahfLm) {
        return l.undefined();
    }
    let ah = l.reg(Register::AH);
    let word = l.wide(ah);
    let word = l.and_imm(word, (flags::ALL & 0xff) as i64);
    let old = l.packed_bits(OF);
    let word = l.or(word, old);
    l.set_packed_flags(word);
}

/// All of EFLAGS as PUSHF and SYSCALL show it, an I64.
pub(crate) fn whole(l: &mut Lifter<'_>) -> Value {
    let packed = l.packed_flags();
    let rest = l.get(regs::EFLAGS);
    let rest = l.and_imm(rest, !(flags::ALL | eflags::RF | eflags::VM) as i64);
    let all = l.or(packed, rest);
    let all = l.or_imm(all, eflags::FIXED as i64);
    l.zext(Type::I64, all)
}

/// PUSHF, PUSHFD, PUSHFQ
fn pushf(l: &mut Lifter<'_>, insn: &Instruction) {
    let all = whole(l);
    let v = l.trunc(stack_slot(insn, 1), all);
    l.push(v);
}

/// Writes EFLAGS from a popped I16, I32 or I64 at CPL 3 without I/O privilege.
pub(super) fn set_whole(l: &mut Lifter<'_>, v: Value) {
    let writable = match l.ty(v) {
        Type::I16 => eflags::TF | eflags::DF | eflags::NT,
        _ => eflags::TF | eflags::DF | eflags::NT | eflags::AC | eflags::ID,
    };
    set_writable(l, v, writable);
}

/// Writes the arithmetic flags and the `writable` ones from a popped I16, I32 or I64, and clears RF.
pub(crate) fn set_writable(l: &mut Lifter<'_>, v: Value, writable: u32) {
    let word = l.zext(Type::I64, v);
    l.set_packed_flags(word);
    let low = l.trunc(Type::I32, word);
    let new = l.and_imm(low, writable as i64);
    let old = l.get(regs::EFLAGS);
    let kept = l.and_imm(old, !(writable | eflags::RF) as i64);
    let rest = l.or(kept, new);
    l.set(regs::EFLAGS, rest);
}

/// POPF, POPFD, POPFQ
fn popf(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = stack_slot(insn, 1);
    let v = l.peek(ty);
    l.drop_stack(ty.bytes() as i64);
    set_whole(l, v);
    l.resync();
}
