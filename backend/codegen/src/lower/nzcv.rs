//! Packed condition flags. The word is a pure expression that vanishes unless something needs it packed; a test of
//! a word whose producer is known in the block becomes a comparison of the producer's operands.

use super::Lower;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self, InstBuilder, types};
use tulk_ir::{Inst, NzcvCond, Op};

/// What a packed word is the flags of.
#[derive(Clone, Copy, Debug)]
pub enum Producer {
    Add(ir::Value, ir::Value),
    Sub(ir::Value, ir::Value),
    Logic(ir::Value),
    Fcmp(ir::Value, ir::Value),
}

impl Lower<'_> {
    pub(super) fn lower_nzcv(&mut self, inst: &Inst) -> ir::Value {
        if inst.op == Op::NzcvTest {
            return self.nzcv_test(inst);
        }
        let a = self.arg(inst, 0);
        let zero_flag = |s: &mut Self, r: ir::Value| s.icmp_imm(IntCC::Equal, r, 0);
        match inst.op {
            Op::AddNzcv => {
                let b = self.arg(inst, 1);
                self.nzcv.note(inst.dst, Producer::Add(a, b));
                let r = self.b.ins().iadd(a, b);
                let z = zero_flag(self, r);
                let c = self.b.ins().icmp(IntCC::UnsignedLessThan, r, a);
                let v = self.overflow(a, b, r);
                self.pack(r, z, Some(c), Some(v))
            }
            Op::SubNzcv => {
                let b = self.arg(inst, 1);
                self.nzcv.note(inst.dst, Producer::Sub(a, b));
                let r = self.b.ins().isub(a, b);
                let z = self.b.ins().icmp(IntCC::Equal, a, b);
                let c = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, a, b);
                let differ = self.b.ins().bxor(a, b);
                let changed = self.b.ins().bxor(a, r);
                let v = self.b.ins().band(differ, changed);
                self.pack(r, z, Some(c), Some(v))
            }
            Op::AdcNzcv => {
                let (b, carry) = (self.arg(inst, 1), self.arg(inst, 2));
                let r = self.add_carry(a, b, carry);
                let z = zero_flag(self, r);
                let c = self.carry_out(a, b, carry);
                let v = self.overflow(a, b, r);
                self.pack(r, z, Some(c), Some(v))
            }
            Op::LogicNzcv => {
                self.nzcv.note(inst.dst, Producer::Logic(a));
                let z = zero_flag(self, a);
                self.pack(a, z, None, None)
            }
            _ => {
                let b = self.arg(inst, 1);
                self.float_compare_flags(inst, a, b);
                self.nzcv.note(inst.dst, Producer::Fcmp(a, b));
                let bits = [
                    (FloatCC::LessThan, 31),
                    (FloatCC::Equal, 30),
                    (FloatCC::UnorderedOrGreaterThanOrEqual, 29),
                    (FloatCC::Unordered, 28),
                ]
                .map(|(cc, bit)| {
                    let holds = self.b.ins().fcmp(cc, a, b);
                    self.at_bit(holds, bit)
                });
                self.or_all(&bits)
            }
        }
    }

    /// Top bit set when `a + b = r` overflowed.
    fn overflow(&mut self, a: ir::Value, b: ir::Value, r: ir::Value) -> ir::Value {
        let x = self.b.ins().bxor(a, r);
        let y = self.b.ins().bxor(b, r);
        self.b.ins().band(x, y)
    }

    /// A truth value moved to a bit of an I32.
    fn at_bit(&mut self, holds: ir::Value, bit: i64) -> ir::Value {
        let wide = self.b.ins().uextend(types::I32, holds);
        self.b.ins().ishl_imm_u(wide, bit)
    }

    /// The top bit moved to a bit of an I32, other bits zero.
    fn top_at_bit(&mut self, v: ir::Value, bit: i64) -> ir::Value {
        let v = if self.type_of(v) == types::I64 {
            let high = self.b.ins().ushr_imm_u(v, 32);
            self.b.ins().ireduce(types::I32, high)
        } else {
            v
        };
        let top = self.b.ins().band_imm_u(v, 0x8000_0000);
        if bit == 31 { top } else { self.b.ins().ushr_imm_u(top, 31 - bit) }
    }

    fn or_all(&mut self, parts: &[ir::Value]) -> ir::Value {
        let mut all = parts[0];
        for &p in &parts[1..] {
            all = self.b.ins().bor(all, p);
        }
        all
    }

    /// N is the top bit of `r`, V that of `v`; `z` and `c` are truth values.
    fn pack(
        &mut self,
        r: ir::Value,
        z: ir::Value,
        c: Option<ir::Value>,
        v: Option<ir::Value>,
    ) -> ir::Value {
        let n = self.top_at_bit(r, 31);
        let z = self.at_bit(z, 30);
        let mut all = self.b.ins().bor(n, z);
        if let Some(c) = c {
            let c = self.at_bit(c, 29);
            all = self.b.ins().bor(all, c);
        }
        if let Some(v) = v {
            let v = self.top_at_bit(v, 28);
            all = self.b.ins().bor(all, v);
        }
        all
    }

    fn nzcv_test(&mut self, inst: &Inst) -> ir::Value {
        let cond = inst.nzcv_cond();
        let folded = match self.nzcv.of(inst.args[0]) {
            Some(Producer::Sub(a, b)) => match sub_cc(cond) {
                Some(cc) => Some(self.b.ins().icmp(cc, a, b)),
                None => {
                    let r = self.b.ins().isub(a, b);
                    self.sign_test(cond, r)
                }
            },
            Some(Producer::Add(a, b)) => {
                let r = self.b.ins().iadd(a, b);
                match cond {
                    NzcvCond::Cs => Some(self.b.ins().icmp(IntCC::UnsignedLessThan, r, a)),
                    NzcvCond::Cc => {
                        Some(self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, r, a))
                    }
                    _ => self.sign_test(cond, r),
                }
            }
            Some(Producer::Logic(a)) => match cond {
                NzcvCond::Cs | NzcvCond::Vs | NzcvCond::Hi => Some(self.iconst(types::I8, 0)),
                NzcvCond::Cc | NzcvCond::Vc | NzcvCond::Ls => Some(self.iconst(types::I8, 1)),
                NzcvCond::Lt => self.sign_test(NzcvCond::Mi, a),
                NzcvCond::Ge => self.sign_test(NzcvCond::Pl, a),
                NzcvCond::Gt => Some(self.icmp_imm(IntCC::SignedGreaterThan, a, 0)),
                NzcvCond::Le => Some(self.icmp_imm(IntCC::SignedLessThanOrEqual, a, 0)),
                _ => self.sign_test(cond, a),
            },
            Some(Producer::Fcmp(a, b)) => Some(self.b.ins().fcmp(fcmp_cc(cond), a, b)),
            None => None,
        };
        match folded {
            Some(value) => value,
            None => {
                let word = self.arg(inst, 0);
                self.test_word(cond, word)
            }
        }
    }

    /// Conditions that depend on a result's sign or zeroness alone.
    fn sign_test(&mut self, cond: NzcvCond, r: ir::Value) -> Option<ir::Value> {
        let cc = match cond {
            NzcvCond::Eq => IntCC::Equal,
            NzcvCond::Ne => IntCC::NotEqual,
            NzcvCond::Mi => IntCC::SignedLessThan,
            NzcvCond::Pl => IntCC::SignedGreaterThanOrEqual,
            _ => return None,
        };
        Some(self.icmp_imm(cc, r, 0))
    }

    /// The condition over a word of unknown origin.
    fn test_word(&mut self, cond: NzcvCond, word: ir::Value) -> ir::Value {
        use NzcvCond::*;
        // One flag, or its opposite.
        let masked = |s: &mut Self, mask: i64, cc: IntCC| {
            let m = s.b.ins().band_imm_u(word, mask);
            s.icmp_imm(cc, m, 0)
        };
        let (n, z, c, v) = (1i64 << 31, 1i64 << 30, 1i64 << 29, 1i64 << 28);
        match cond {
            Eq => masked(self, z, IntCC::NotEqual),
            Ne => masked(self, z, IntCC::Equal),
            Cs => masked(self, c, IntCC::NotEqual),
            Cc => masked(self, c, IntCC::Equal),
            Mi => masked(self, n, IntCC::NotEqual),
            Pl => masked(self, n, IntCC::Equal),
            Vs => masked(self, v, IntCC::NotEqual),
            Vc => masked(self, v, IntCC::Equal),
            Hi | Ls => {
                let m = self.b.ins().band_imm_u(word, z | c);
                let cc = if cond == Hi { IntCC::Equal } else { IntCC::NotEqual };
                self.icmp_imm(cc, m, c)
            }
            Ge | Lt | Gt | Le => {
                // N differs from V: bit 31 of word ^ word << 3.
                let shifted = self.b.ins().ishl_imm_u(word, 3);
                let differ = self.b.ins().bxor(word, shifted);
                match cond {
                    Ge => self.icmp_imm(IntCC::SignedGreaterThanOrEqual, differ, 0),
                    Lt => self.icmp_imm(IntCC::SignedLessThan, differ, 0),
                    _ => {
                        let differ = self.b.ins().band_imm_u(differ, n);
                        let zero = self.b.ins().band_imm_u(word, z);
                        let either = self.b.ins().bor(differ, zero);
                        let cc = if cond == Gt { IntCC::Equal } else { IntCC::NotEqual };
                        self.icmp_imm(cc, either, 0)
                    }
                }
            }
        }
    }
}

/// The comparison of a subtraction's operands that a condition amounts to.
fn sub_cc(cond: NzcvCond) -> Option<IntCC> {
    Some(match cond {
        NzcvCond::Eq => IntCC::Equal,
        NzcvCond::Ne => IntCC::NotEqual,
        NzcvCond::Cs => IntCC::UnsignedGreaterThanOrEqual,
        NzcvCond::Cc => IntCC::UnsignedLessThan,
        NzcvCond::Hi => IntCC::UnsignedGreaterThan,
        NzcvCond::Ls => IntCC::UnsignedLessThanOrEqual,
        NzcvCond::Ge => IntCC::SignedGreaterThanOrEqual,
        NzcvCond::Lt => IntCC::SignedLessThan,
        NzcvCond::Gt => IntCC::SignedGreaterThan,
        NzcvCond::Le => IntCC::SignedLessThanOrEqual,
        NzcvCond::Mi | NzcvCond::Pl | NzcvCond::Vs | NzcvCond::Vc => return None,
    })
}

/// The float comparison that a condition over its flags amounts to.
fn fcmp_cc(cond: NzcvCond) -> FloatCC {
    match cond {
        NzcvCond::Eq => FloatCC::Equal,
        NzcvCond::Ne => FloatCC::NotEqual,
        NzcvCond::Cs | NzcvCond::Pl => FloatCC::UnorderedOrGreaterThanOrEqual,
        NzcvCond::Cc | NzcvCond::Mi => FloatCC::LessThan,
        NzcvCond::Vs => FloatCC::Unordered,
        NzcvCond::Vc => FloatCC::Ordered,
        NzcvCond::Hi => FloatCC::UnorderedOrGreaterThan,
        NzcvCond::Ls => FloatCC::LessThanOrEqual,
        NzcvCond::Ge => FloatCC::GreaterThanOrEqual,
        NzcvCond::Lt => FloatCC::UnorderedOrLessThan,
        NzcvCond::Gt => FloatCC::GreaterThan,
        NzcvCond::Le => FloatCC::UnorderedOrLessThanOrEqual,
    }
}
