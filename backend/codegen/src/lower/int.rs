//! Integer operations. Pure, so that what nobody uses vanishes.

use super::{Lower, clif_type};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, InstBuilder, types};
use tulk_ir::{Inst, IntCc, Op};

pub fn int_cc(cc: IntCc) -> IntCC {
    match cc {
        IntCc::Eq => IntCC::Equal,
        IntCc::Ne => IntCC::NotEqual,
        IntCc::LtS => IntCC::SignedLessThan,
        IntCc::LeS => IntCC::SignedLessThanOrEqual,
        IntCc::GtS => IntCC::SignedGreaterThan,
        IntCc::GeS => IntCC::SignedGreaterThanOrEqual,
        IntCc::LtU => IntCC::UnsignedLessThan,
        IntCc::LeU => IntCC::UnsignedLessThanOrEqual,
        IntCc::GtU => IntCC::UnsignedGreaterThan,
        IntCc::GeU => IntCC::UnsignedGreaterThanOrEqual,
    }
}

impl Lower<'_> {
    pub(super) fn lower_int(&mut self, inst: &Inst) -> ir::Value {
        let ty = clif_type(inst.ty);
        match inst.op {
            Op::Iconst => self.iconst(ty, inst.imm),
            Op::Bitcast => {
                let a = self.arg(inst, 0);
                self.bits(ty, a)
            }
            Op::Icmp => {
                let (a, b) = self.args2(inst);
                self.b.ins().icmp(int_cc(inst.int_cc()), a, b)
            }
            Op::Select => {
                let (c, a, b) = (self.arg(inst, 0), self.arg(inst, 1), self.arg(inst, 2));
                self.b.ins().select(c, a, b)
            }
            Op::AddCarry => {
                let (a, b, c) = (self.arg(inst, 0), self.arg(inst, 1), self.arg(inst, 2));
                self.add_carry(a, b, c)
            }
            Op::CarryOut => {
                let (a, b, c) = (self.arg(inst, 0), self.arg(inst, 1), self.arg(inst, 2));
                self.carry_out(a, b, c)
            }
            Op::MulhU | Op::MulhS => {
                let (a, b) = self.args2(inst);
                if inst.op == Op::MulhU {
                    self.b.ins().umulhi(a, b)
                } else {
                    self.b.ins().smulhi(a, b)
                }
            }
            Op::DivU | Op::DivS | Op::RemU | Op::RemS => self.divide(inst),
            Op::Shl | Op::ShrU | Op::ShrS | Op::Rotl | Op::Rotr => {
                let (a, b) = self.args2(inst);
                let b = if ty == types::I128 { self.b.ins().ireduce(types::I64, b) } else { b };
                match inst.op {
                    Op::Shl => self.b.ins().ishl(a, b),
                    Op::ShrU => self.b.ins().ushr(a, b),
                    Op::ShrS => self.b.ins().sshr(a, b),
                    Op::Rotl => self.b.ins().rotl(a, b),
                    _ => self.b.ins().rotr(a, b),
                }
            }
            Op::BextractU | Op::BextractS | Op::Binsert => self.field(inst),
            Op::ParityEven => {
                let a = self.arg(inst, 0);
                let low = if ty == types::I8 { a } else { self.b.ins().ireduce(types::I8, a) };
                let ones = self.b.ins().popcnt(low);
                let odd = self.b.ins().band_imm_u(ones, 1);
                self.b.ins().bxor_imm_u(odd, 1)
            }
            Op::Zext => {
                let a = self.arg(inst, 0);
                if ty == types::I64 && self.type_of(a) == types::I32 {
                    return self.widen(a);
                }
                self.b.ins().uextend(ty, a)
            }
            Op::Sext => {
                let a = self.arg(inst, 0);
                self.b.ins().sextend(ty, a)
            }
            Op::Trunc => {
                let a = self.arg(inst, 0);
                self.b.ins().ireduce(ty, a)
            }
            Op::Concat => {
                let (a, b) = self.args2(inst);
                self.b.ins().iconcat(a, b)
            }
            Op::Lo64 => {
                let a = self.arg(inst, 0);
                self.b.ins().isplit(a).0
            }
            Op::Hi64 => {
                let a = self.arg(inst, 0);
                self.b.ins().isplit(a).1
            }
            Op::Neg
            | Op::Abs
            | Op::Not
            | Op::Clz
            | Op::Ctz
            | Op::Popcnt
            | Op::Bswap
            | Op::Bitrev => {
                let a = self.arg(inst, 0);
                match inst.op {
                    Op::Neg => self.b.ins().ineg(a),
                    Op::Abs => self.b.ins().iabs(a),
                    Op::Not => self.b.ins().bnot(a),
                    Op::Clz => self.b.ins().clz(a),
                    Op::Ctz => self.b.ins().ctz(a),
                    Op::Popcnt => self.b.ins().popcnt(a),
                    Op::Bswap => self.bswap(a),
                    _ => self.b.ins().bitrev(a),
                }
            }
            op => {
                let (a, b) = self.args2(inst);
                let ins = self.b.ins();
                match op {
                    Op::Add => ins.iadd(a, b),
                    Op::Sub => ins.isub(a, b),
                    Op::Mul => ins.imul(a, b),
                    Op::MinU => ins.umin(a, b),
                    Op::MinS => ins.smin(a, b),
                    Op::MaxU => ins.umax(a, b),
                    Op::MaxS => ins.smax(a, b),
                    Op::And => ins.band(a, b),
                    Op::Or => ins.bor(a, b),
                    Op::Xor => ins.bxor(a, b),
                    Op::AndNot => ins.band_not(a, b),
                    Op::OrNot => ins.bor_not(a, b),
                    Op::XorNot => ins.bxor_not(a, b),
                    _ => unreachable!("{op:?} is not an integer operation"),
                }
            }
        }
    }

    pub(super) fn bswap(&mut self, a: ir::Value) -> ir::Value {
        if self.type_of(a) == types::I8 { a } else { self.b.ins().bswap(a) }
    }

    fn widen_bool(&mut self, ty: ir::Type, c: ir::Value) -> ir::Value {
        if ty == types::I8 { c } else { self.b.ins().uextend(ty, c) }
    }

    pub(super) fn add_carry(&mut self, a: ir::Value, b: ir::Value, c: ir::Value) -> ir::Value {
        let sum = self.b.ins().iadd(a, b);
        let c = self.widen_bool(self.type_of(a), c);
        self.b.ins().iadd(sum, c)
    }

    pub(super) fn carry_out(&mut self, a: ir::Value, b: ir::Value, c: ir::Value) -> ir::Value {
        let sum = self.b.ins().iadd(a, b);
        let c = self.widen_bool(self.type_of(a), c);
        let all = self.b.ins().iadd(sum, c);
        let first = self.b.ins().icmp(IntCC::UnsignedLessThan, sum, a);
        let second = self.b.ins().icmp(IntCC::UnsignedLessThan, all, sum);
        self.b.ins().bor(first, second)
    }

    /// Host division traps on 0 and on MIN / -1: divide by 1 then and pick the defined result.
    fn divide(&mut self, inst: &Inst) -> ir::Value {
        let own = clif_type(inst.ty);
        let signed = matches!(inst.op, Op::DivS | Op::RemS);
        let (mut a, mut d) = self.args2(inst);
        let ty = if own.bits() < 32 { types::I32 } else { own };
        if ty != own {
            (a, d) = if signed {
                (self.b.ins().sextend(ty, a), self.b.ins().sextend(ty, d))
            } else {
                (self.b.ins().uextend(ty, a), self.b.ins().uextend(ty, d))
            };
        }
        let one = self.iconst(ty, 1);
        let zero = self.iconst(ty, 0);
        let by_zero = self.icmp_imm(IntCC::Equal, d, 0);
        let special = if signed {
            let next = self.b.ins().iadd(d, one);
            self.icmp_imm(IntCC::UnsignedLessThanOrEqual, next, 1)
        } else {
            by_zero
        };
        let safe = self.b.ins().select(special, one, d);
        let result = match inst.op {
            Op::DivU => {
                let q = self.b.ins().udiv(a, safe);
                self.b.ins().select(by_zero, zero, q)
            }
            Op::DivS => {
                let q = self.b.ins().sdiv(a, safe);
                // The divisor is 0 or -1 in the special case.
                let negated = self.b.ins().ineg(a);
                let other = self.b.ins().band(negated, d);
                self.b.ins().select(special, other, q)
            }
            Op::RemU => {
                let r = self.b.ins().urem(a, safe);
                self.b.ins().select(by_zero, a, r)
            }
            _ => {
                let r = self.b.ins().srem(a, safe);
                self.b.ins().select(by_zero, a, r)
            }
        };
        if ty == own { result } else { self.b.ins().ireduce(own, result) }
    }

    fn field(&mut self, inst: &Inst) -> ir::Value {
        let ty = clif_type(inst.ty);
        let (lsb, width) = inst.field();
        let bits = ty.bits();
        let mask = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
        let a = self.arg(inst, 0);
        match inst.op {
            Op::BextractU => {
                let low = if lsb == 0 { a } else { self.b.ins().ushr_imm_u(a, lsb as i64) };
                if lsb + width >= bits {
                    return low;
                }
                let mask = self.iconst(ty, mask as i64);
                self.b.ins().band(low, mask)
            }
            Op::BextractS => {
                let up = (bits - lsb - width) as i64;
                let high = if up == 0 { a } else { self.b.ins().ishl_imm_u(a, up) };
                self.b.ins().sshr_imm_u(high, (bits - width) as i64)
            }
            _ => {
                let b = self.arg(inst, 1);
                let keep = self.iconst(ty, !(mask << lsb) as i64);
                let kept = self.b.ins().band(a, keep);
                let field = if lsb + width >= bits {
                    b
                } else {
                    let mask = self.iconst(ty, mask as i64);
                    self.b.ins().band(b, mask)
                };
                let moved =
                    if lsb == 0 { field } else { self.b.ins().ishl_imm_u(field, lsb as i64) };
                self.b.ins().bor(kept, moved)
            }
        }
    }
}
