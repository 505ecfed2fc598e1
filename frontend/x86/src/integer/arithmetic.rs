//! Binary arithmetic instructions: ADD to DEC, multiplication and division, ADCX, ADOX, MULX.

use super::transfer::carry_value;
use crate::Lifter;
use crate::decode::{Row, rows};
use crate::flags::{CF, Kind, OF};
use crate::helpers::{FIRST_ARITHMETIC, helpers};
use crate::lifter::Cond;
use crate::operand::{Intent, Place};
use crate::regs;
use iced_x86::{Instruction, Register};
use tulk_base::{GuestVa, MemOp, RmwOp, Trap};
use tulk_ir::{Access, ExitKind, HelperCx, IntCc, Type, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {
        Add => add, Adc => adc, Sub => sub, Sbb => sbb, Cmp => cmp, Inc => inc, Dec => dec, Neg => neg,
        Mul => mul, Imul => imul, Adcx => adcx, Adox => adox, Mulx => mulx,
    }
    loud { Div => div, Idiv => idiv }
    codes {}
};

/// `si_code` of a SIGFPE for an integer division (FPE_INTDIV).
const INTDIV: u32 = 1;

/// Computes `op(dst, b)` and writes it; a locked one by `rmw`. Returns the old value and the result.
fn update(
    l: &mut Lifter<'_>,
    insn: &Instruction,
    rmw: RmwOp,
    b: Value,
    op: impl Fn(&mut Lifter<'_>, Value, Value) -> Value,
) -> (Value, Value) {
    let ty = l.operand_type(insn, 0);
    let dst = l.place_of(insn, 0, Intent::Write);
    if let (true, Place::Mem(addr)) = (insn.has_lock_prefix(), dst) {
        let old = l.atomic_rmw(rmw, addr, b);
        let result = op(l, old, b);
        return (old, result);
    }
    let old = l.read(dst, ty);
    let result = op(l, old, b);
    l.write(dst, result);
    (old, result)
}

/// ADD dst, src
fn add(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let b = l.operand(insn, 1, ty);
    let (_, sum) = update(l, insn, RmwOp::Add, b, |l, a, b| l.add(a, b));
    l.set_flags(Kind::Add, ty, sum, b);
}

/// SUB dst, src
fn sub(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let b = l.operand(insn, 1, ty);
    let (a, result) = update(l, insn, RmwOp::Sub, b, |l, a, b| l.sub(a, b));
    l.set_flags_sub(a, b, result);
}

/// CMP a, b
fn cmp(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let a = l.operand(insn, 0, ty);
    let b = l.operand(insn, 1, ty);
    l.set_flags_sub(a, b, Value::NONE);
}

/// Flags of a sum (`b` as added) or difference with carry: the carry out of every bit.
fn set_flags_carries(l: &mut Lifter<'_>, a: Value, b: Value, result: Value, borrow: bool) {
    if l.live == 0 {
        return l.set_flags(Kind::Carries, l.ty(a), result, result);
    }
    // Sum: (a & b) | ((a | b) & !r). Difference: (!a & b) | ((!a | b) & r).
    let (both, any) =
        if borrow { (l.and_not(b, a), l.or_not(b, a)) } else { (l.and(a, b), l.or(a, b)) };
    let through = if borrow { l.and(any, result) } else { l.and_not(any, result) };
    let carries = l.or(both, through);
    let ty = l.ty(a);
    l.set_flags(Kind::Carries, ty, result, carries);
}

/// ADC dst, src
fn adc(l: &mut Lifter<'_>, insn: &Instruction) {
    l.settle_carry();
    let ty = l.operand_type(insn, 0);
    let b = l.operand(insn, 1, ty);
    let c = carry_value(l);
    if insn.has_lock_prefix() {
        let c = l.zext(ty, c);
        let sum = l.add(b, c);
        let (a, result) = update(l, insn, RmwOp::Add, sum, |l, a, sum| l.add(a, sum));
        return set_flags_carries(l, a, b, result, false);
    }
    let (a, result) = update(l, insn, RmwOp::Add, b, |l, a, b| l.add_carry(a, b, c));
    set_flags_carries(l, a, b, result, false);
}

/// SBB dst, src
fn sbb(l: &mut Lifter<'_>, insn: &Instruction) {
    l.settle_carry();
    let ty = l.operand_type(insn, 0);
    let registers = insn.op_kinds().all(|k| k == iced_x86::OpKind::Register);
    if registers && insn.op0_register() == insn.op1_register() {
        // All ones or zero: the idiom for the carry as a mask. It borrows from every bit that it sets.
        let c = carry_value(l);
        let c = l.zext(ty, c);
        let result = l.neg(c);
        l.set_reg(insn.op0_register(), result);
        return l.set_flags(Kind::Carries, ty, result, result);
    }
    let b = l.operand(insn, 1, ty);
    let c = carry_value(l);
    let c = l.zext(ty, c);
    let less = l.add(b, c);
    let (a, result) = update(l, insn, RmwOp::Sub, less, |l, a, less| l.sub(a, less));
    set_flags_carries(l, a, b, result, true);
}

/// INC dst
fn inc(l: &mut Lifter<'_>, insn: &Instruction) {
    if l.live & CF != 0 {
        l.settle_carry();
    }
    let ty = l.operand_type(insn, 0);
    let one = l.iconst(ty, 1);
    let (_, result) = update(l, insn, RmwOp::Add, one, |l, a, b| l.add(a, b));
    l.set_flags_keeping_carry(Kind::Inc, result);
}

/// DEC dst
fn dec(l: &mut Lifter<'_>, insn: &Instruction) {
    if l.live & CF != 0 {
        l.settle_carry();
    }
    let ty = l.operand_type(insn, 0);
    let one = l.iconst(ty, 1);
    let (_, result) = update(l, insn, RmwOp::Sub, one, |l, a, b| l.sub(a, b));
    l.set_flags_keeping_carry(Kind::Dec, result);
}

/// NEG dst
fn neg(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let dst = l.place_of(insn, 0, Intent::Write);
    let old = match dst {
        // No single read-modify-write negates.
        Place::Mem(addr) if insn.has_lock_prefix() => {
            let flat = l.flat(addr);
            let old = l.call(LOCKED_NEG, &[flat], ty.bytes().trailing_zeros() as i64);
            l.trunc(ty, old)
        }
        place => l.read(place, ty),
    };
    let result = l.neg(old);
    if !insn.has_lock_prefix() {
        l.write(dst, result);
    }
    let zero = l.iconst(ty, 0);
    l.set_flags_sub(zero, old, result);
}

/// Low and high half of a product, signed or not.
fn product(l: &mut Lifter<'_>, a: Value, b: Value, signed: bool) -> (Value, Value) {
    let ty = l.ty(a);
    if ty == Type::I64 {
        let lo = l.mul(a, b);
        let hi = if signed { l.mulh_s(a, b) } else { l.mulh_u(a, b) };
        return (lo, hi);
    }
    let double = Type::int_of_log2(ty.bytes().trailing_zeros() as u8 + 1);
    let [a, b] = [a, b].map(|v| if signed { l.sext(double, v) } else { l.zext(double, v) });
    let p = l.mul(a, b);
    let top = l.shr_u_imm(p, ty.bits());
    (l.trunc(ty, p), l.trunc(ty, top))
}

/// CF and OF tell whether the low half holds the product.
fn set_flags_product(l: &mut Lifter<'_>, lo: Value, hi: Value, signed: bool) {
    let ty = l.ty(lo);
    if l.live == 0 {
        return l.set_flags(Kind::Mul, ty, lo, lo);
    }
    let lost = if signed {
        let sign = l.shr_s_imm(lo, ty.bits() - 1);
        l.icmp(IntCc::Ne, hi, sign)
    } else {
        l.icmp_imm(IntCc::Ne, hi, 0)
    };
    l.set_flags(Kind::Mul, ty, lo, lost);
}

/// AX, or (E/R)DX and (E/R)AX
fn set_accumulators(l: &mut Lifter<'_>, lo: Value, hi: Value) {
    if l.ty(lo) == Type::I8 {
        let (lo, hi) = (l.zext(Type::I16, lo), l.zext(Type::I16, hi));
        let v = l.binsert(lo, hi, 8, 8);
        l.set_reg(Register::AX, v);
    } else {
        l.set_gpr(0, lo);
        l.set_gpr(2, hi);
    }
}

fn wide_multiply(l: &mut Lifter<'_>, insn: &Instruction, signed: bool) {
    let ty = l.operand_type(insn, 0);
    let b = l.operand(insn, 0, ty);
    let a = l.gpr(0, ty);
    let (lo, hi) = product(l, a, b, signed);
    set_accumulators(l, lo, hi);
    set_flags_product(l, lo, hi, signed);
}

/// MUL src
fn mul(l: &mut Lifter<'_>, insn: &Instruction) {
    wide_multiply(l, insn, false);
}

/// IMUL src; IMUL dst, src; IMUL dst, src, imm
fn imul(l: &mut Lifter<'_>, insn: &Instruction) {
    if insn.op_count() == 1 {
        return wide_multiply(l, insn, true);
    }
    let ty = l.operand_type(insn, 0);
    let n = insn.op_count();
    let a = l.operand(insn, n - 2, ty);
    let b = l.operand(insn, n - 1, ty);
    if l.live == 0 {
        let lo = l.mul(a, b);
        return l.set_reg(insn.op0_register(), lo);
    }
    let (lo, hi) = product(l, a, b, true);
    l.set_reg(insn.op0_register(), lo);
    set_flags_product(l, lo, hi, true);
}

/// MULX hi, lo, src
fn mulx(l: &mut Lifter<'_>, insn: &Instruction) {
    let ty = l.operand_type(insn, 0);
    let b = l.operand(insn, 2, ty);
    let a = l.gpr(2, ty);
    let (lo, hi) = product(l, a, b, false);
    l.set_reg(insn.op1_register(), lo);
    l.set_reg(insn.op0_register(), hi);
}

fn add_through(l: &mut Lifter<'_>, insn: &Instruction, flag: u32) {
    let ty = l.operand_type(insn, 0);
    let b = l.operand(insn, 1, ty);
    let c = l.flag(flag);
    let a = l.reg(insn.op0_register());
    let sum = l.add_carry(a, b, c);
    l.set_reg(insn.op0_register(), sum);
    if l.live & flag != 0 {
        let carry = l.carry_out(a, b, c);
        l.set_flag_bits(&[(flag, Cond::If(carry))]);
    }
}

/// ADCX dst, src
fn adcx(l: &mut Lifter<'_>, insn: &Instruction) {
    add_through(l, insn, CF);
}

/// ADOX dst, src
fn adox(l: &mut Lifter<'_>, insn: &Instruction) {
    add_through(l, insn, OF);
}

/// Leaves with #DE if the truth value holds.
fn divide_error_if(l: &mut Lifter<'_>, bad: Value) {
    let (error, good) = (l.label(), l.label());
    l.brif(bad, error, good);
    l.place(error);
    let pc = l.pc;
    l.trap(ExitKind::Arithmetic, INTDIV, pc);
    l.place(good);
}

/// One division and what is left over.
fn quotient_and_remainder(l: &mut Lifter<'_>, n: Value, d: Value, signed: bool) -> (Value, Value) {
    let q = if signed { l.div_s(n, d) } else { l.div_u(n, d) };
    let product = l.mul(q, d);
    (q, l.sub(n, product))
}

/// DIV with a high half of zero, IDIV where CWD, CDQ or CQO has made it: the dividend is the low half.
fn divide_half(l: &mut Lifter<'_>, insn: &Instruction, ty: Type, signed: bool) {
    let b = l.operand(insn, 0, ty);
    let mut bad = l.icmp_imm(IntCc::Eq, b, 0);
    if signed {
        let lo = l.gpr(0, ty);
        let least = l.icmp_imm(IntCc::Eq, lo, i64::MIN >> (64 - ty.bits()));
        let minus_one = l.icmp_imm(IntCc::Eq, b, -1);
        let overflow = l.and(least, minus_one);
        bad = l.or(bad, overflow);
    }
    let divisor = l.local(ty);
    l.set(divisor, b);
    divide_error_if(l, bad);
    let (a, d) = (l.gpr(0, ty), l.get(divisor));
    let (q, r) = quotient_and_remainder(l, a, d, signed);
    set_accumulators(l, q, r);
}

/// DIV and IDIV of AX, DX:AX or EDX:EAX: the dividend fits a word of twice the width.
fn divide_narrow(l: &mut Lifter<'_>, insn: &Instruction, signed: bool) {
    let ty = l.operand_type(insn, 0);
    let double = if ty == Type::I32 { Type::I64 } else { Type::I32 };
    let b = l.operand(insn, 0, ty);
    let n = match ty {
        Type::I8 => {
            let ax = l.reg(Register::AX);
            if signed { l.sext(double, ax) } else { l.zext(double, ax) }
        }
        _ => {
            let (lo, hi) = (l.gpr(0, ty), l.gpr(2, ty));
            let (lo, hi) = (l.zext(double, lo), l.zext(double, hi));
            l.binsert(lo, hi, ty.bits(), ty.bits())
        }
    };
    let d = if signed { l.sext(double, b) } else { l.zext(double, b) };
    let (q, r) = quotient_and_remainder(l, n, d, signed);
    let (quotient, remainder) = (l.trunc(ty, q), l.trunc(ty, r));
    let again = if signed { l.sext(double, quotient) } else { l.zext(double, quotient) };
    let overflow = l.icmp(IntCc::Ne, q, again);
    let zero = l.icmp_imm(IntCc::Eq, b, 0);
    let bad = l.or(overflow, zero);
    let [lo, hi] = [quotient, remainder].map(|v| {
        let local = l.local(ty);
        l.set(local, v);
        local
    });
    divide_error_if(l, bad);
    let (lo, hi) = (l.get(lo), l.get(hi));
    set_accumulators(l, lo, hi);
}

/// DIV and IDIV of RDX:RAX: inline when RDX only extends RAX, else by a helper.
fn divide_long(l: &mut Lifter<'_>, insn: &Instruction, signed: bool) {
    let b = l.operand(insn, 0, Type::I64);
    let divisor = l.local(Type::I64);
    l.set(divisor, b);
    let (lo, hi) = (l.get(regs::RAX), l.get(regs::RDX));
    let extended = if signed { l.shr_s_imm(lo, 63) } else { l.iconst(Type::I64, 0) };
    let short = l.icmp(IntCc::Eq, hi, extended);
    // The helper also takes 0 and, signed, -1.
    let plain = if signed {
        let next = l.add_imm(b, 1);
        l.icmp_imm(IntCc::GtU, next, 1)
    } else {
        l.icmp_imm(IntCc::Ne, b, 0)
    };
    let inline = l.and(short, plain);
    let (fast, slow, done) = (l.label(), l.label(), l.label());
    l.brif(inline, fast, slow);
    l.place(slow);
    let (a, h, d) = (l.get(regs::RAX), l.get(regs::RDX), l.get(divisor));
    let both = l.call(if signed { IDIV128 } else { DIV128 }, &[a, h, d], 0);
    let (q, r) = (l.lo64(both), l.hi64(both));
    l.set(regs::RAX, q);
    l.set(regs::RDX, r);
    l.jump(done);
    l.place(fast);
    let (a, d) = (l.get(regs::RAX), l.get(divisor));
    let (q, r) = quotient_and_remainder(l, a, d, signed);
    l.set(regs::RAX, q);
    l.set(regs::RDX, r);
    l.place(done);
}

fn divide(l: &mut Lifter<'_>, insn: &Instruction, signed: bool) {
    let ty = l.operand_type(insn, 0);
    let half = if signed { l.is_extended(ty) } else { l.is_zero(regs::RDX) };
    if half && ty != Type::I8 {
        divide_half(l, insn, ty, signed);
    } else if ty == Type::I64 {
        divide_long(l, insn, signed);
    } else {
        divide_narrow(l, insn, signed);
    }
}

/// DIV src
fn div(l: &mut Lifter<'_>, insn: &Instruction) {
    divide(l, insn, false);
}

/// IDIV src
fn idiv(l: &mut Lifter<'_>, insn: &Instruction) {
    divide(l, insn, true);
}

fn divide_error<T>() -> Result<T, Trap> {
    Err(Trap::Arithmetic(INTDIV))
}

fn arithmetic_div128(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (n, d) = (args[0] | args[1] << 64, args[2]);
    match (n.checked_div(d), n.checked_rem(d)) {
        (Some(q), Some(r)) if q >> 64 == 0 => Ok(q | r << 64),
        _ => divide_error(),
    }
}

fn arithmetic_idiv128(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (n, d) = ((args[0] | args[1] << 64) as i128, args[2] as u64 as i64 as i128);
    match (n.checked_div(d), n.checked_rem(d)) {
        (Some(q), Some(r)) if q == q as i64 as i128 => {
            Ok(q as u64 as u128 | (r as u64 as u128) << 64)
        }
        _ => divide_error(),
    }
}

/// The old value; immediate: log2 of the size.
fn arithmetic_locked_neg(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let va = GuestVa(args[0] as u64);
    let op = MemOp::of_log2(args[3] as u8).with_mmu(crate::system::data_mmu(cx.state));
    let mask = u64::MAX >> (64 - 8 * op.bytes());
    let mut old = cx.env.load(va, op)?;
    loop {
        let new = old.wrapping_neg() & mask;
        let seen = cx.env.cas(va, op, old as u128, new as u128)? as u64;
        if seen == old {
            return Ok(old as u128);
        }
        old = seen;
    }
}

helpers! { FIRST_ARITHMETIC;
    /// RAX, RDX, divisor; quotient low, remainder high.
    DIV128 = arithmetic_div128(I64, I64, I64) -> I128, Access::None, Access::None, traps;
    IDIV128 = arithmetic_idiv128(I64, I64, I64) -> I128, Access::None, Access::None, traps;
    /// Linear address; the old value. Immediate: log2 of the size.
    LOCKED_NEG = arithmetic_locked_neg(I64) -> I64, Access::None, Access::None, traps;
}
