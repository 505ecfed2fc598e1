//! Float operations on the host's float unit, exact in results and sticky flags.
//!
//! The host computes; what it may do differently from the guest takes the slow path: a NaN result (which NaN is the
//! guest's [`FpRule`]), and, where host and guest disagree on when a result is tiny, a result of the smallest
//! normal magnitude (only there can the underflow flag differ). Both are one comparison of the result. Where
//! the host's flags would be wrong, as for conversions out of range, the operands are tested first.
//!
//! Cranelift takes float operations for pure: it would drop unused ones together with their flags, and fold those on
//! constants. So each operation that can raise a flag is tied to a branch, by its check or by
//! [`Lower::pin`], and no float constant is ever an operand of arithmetic on guest values. An operation on
//! values that a loop does not change is kept inside by `float_order.rs`.

use super::int::int_cc;
use super::vector::every_lane;
use super::{Lower, clif_type};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self, InstBuilder, InstructionData, Opcode, ValueDef, types};
use tulk_ir::{FloatCc, FpRule, Inst, IntCc, MinKind, Op, Round, Type};

pub fn float_cc(cc: FloatCc) -> FloatCC {
    match cc {
        FloatCc::Eq => FloatCC::Equal,
        FloatCc::Ne => FloatCC::NotEqual,
        FloatCc::Lt => FloatCC::LessThan,
        FloatCc::Le => FloatCC::LessThanOrEqual,
        FloatCc::Gt => FloatCC::GreaterThan,
        FloatCc::Ge => FloatCC::GreaterThanOrEqual,
        FloatCc::Ord => FloatCC::Ordered,
        FloatCc::Uno => FloatCC::Unordered,
        FloatCc::UEq => FloatCC::UnorderedOrEqual,
        FloatCc::ULt => FloatCC::UnorderedOrLessThan,
        FloatCc::ULe => FloatCC::UnorderedOrLessThanOrEqual,
        FloatCc::UGt => FloatCC::UnorderedOrGreaterThan,
        FloatCc::UGe => FloatCC::UnorderedOrGreaterThanOrEqual,
    }
}

/// What is known of a format: F32 or F64, scalar or lanes.
#[derive(Clone, Copy)]
pub(super) struct Format {
    /// The integer type of the same width (and lanes).
    pub int: ir::Type,
    pub bits: u32,
    /// Stored bits of the significand.
    pub fraction: u32,
    pub bias: u64,
}

impl Format {
    pub fn of(ty: ir::Type) -> Format {
        let bits = ty.lane_bits();
        let (fraction, bias) = if bits == 32 { (23, 127) } else { (52, 1023) };
        Format { int: ty.as_int(), bits, fraction, bias }
    }
    pub fn sign(self) -> u64 {
        1 << (self.bits - 1)
    }
    pub fn infinity(self) -> u64 {
        (2 * self.bias + 1) << self.fraction
    }
    pub fn min_normal(self) -> u64 {
        1 << self.fraction
    }
    /// Bits of `2^n`.
    pub fn power(self, n: i32) -> u64 {
        ((self.bias as i64 + n as i64) as u64) << self.fraction
    }
}

impl Lower<'_> {
    /// A float constant (in every lane) by its bits. For comparisons and exact steps only, see the module.
    pub(super) fn float_const(&mut self, ty: ir::Type, bits: u64) -> ir::Value {
        match ty {
            types::F32 => self.b.ins().f32const(f32::from_bits(bits as u32)),
            types::F64 => self.b.ins().f64const(f64::from_bits(bits)),
            _ => {
                let c = self.vector_const(every_lane(ty.lane_bits(), bits));
                self.bits(ty, c)
            }
        }
    }

    /// Non-zero when a scalar comparison holds, or one of lanes holds in any lane.
    fn any(&mut self, holds: ir::Value) -> ir::Value {
        if self.type_of(holds).is_vector() { self.b.ins().vany_true(holds) } else { holds }
    }

    /// Keeps the computation of `of`, which may be unused, by a branch to nowhere.
    pub(super) fn pin(&mut self, of: ir::Value) {
        let (aside, go_on) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(of, aside, &[], go_on, &[]);
        self.b.seal_block(aside);
        self.b.switch_to_block(aside);
        self.b.ins().jump(go_on, &[]);
        self.b.seal_block(go_on);
        self.b.switch_to_block(go_on);
    }

    /// The absolute value, by a mask that is an ordinary value: shared by neighbours and kept over loops.
    fn magnitude(&mut self, a: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        let format = Format::of(ty);
        let mask = self.int_const(format.int, !format.sign());
        let mask = self.bits(ty, mask);
        self.b.ins().band(a, mask)
    }

    /// Non-zero when `r` is (in any lane) NaN, or with `tiny` of the smallest normal magnitude.
    fn odd(&mut self, r: ir::Value, tiny: bool) -> ir::Value {
        let ty = self.type_of(r);
        let format = Format::of(ty);
        if self.unit.fp == FpRule::X86 {
            // In integers: a float comparison would raise the denormal flag, which this guest can see.
            return self.odd_bits(r, tiny, format);
        }
        if !tiny {
            let nan = self.b.ins().fcmp(FloatCC::Unordered, r, r);
            return self.any(nan);
        }
        let magnitude = self.magnitude(r);
        let least = self.float_const(ty, format.min_normal());
        if ty.is_vector() {
            let nan = self.b.ins().fcmp(FloatCC::Unordered, r, r);
            let same = self.b.ins().fcmp(FloatCC::Equal, magnitude, least);
            let either = self.b.ins().bor(nan, same);
            return self.any(either);
        }
        self.b.ins().fcmp(FloatCC::UnorderedOrEqual, magnitude, least)
    }

    pub(super) fn int_const(&mut self, ty: ir::Type, n: u64) -> ir::Value {
        if ty.is_vector() {
            let c = self.vector_const(every_lane(ty.lane_bits(), n));
            self.bits(ty, c)
        } else {
            self.iconst(ty, n as i64)
        }
    }

    fn odd_bits(&mut self, r: ir::Value, tiny: bool, format: Format) -> ir::Value {
        let r = self.bits(format.int, r);
        let mask = self.int_const(format.int, !format.sign());
        let magnitude = self.b.ins().band(r, mask);
        let infinity = self.int_const(format.int, format.infinity());
        let mut holds = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, infinity);
        if tiny {
            let least = self.int_const(format.int, format.min_normal());
            let same = self.b.ins().icmp(int_cc(IntCc::Eq), magnitude, least);
            holds = self.b.ins().bor(holds, same);
        }
        self.any(holds)
    }

    /// The host's result `r`, unless it is odd.
    pub(super) fn checked(&mut self, inst: &Inst, r: ir::Value, may_be_tiny: bool) -> ir::Value {
        let tiny_after_rounding = self.unit.fp == FpRule::X86;
        let tiny = may_be_tiny && tiny_after_rounding != self.host.x86;
        let odd = self.odd(r, tiny);
        let ty = self.type_of(r);
        self.or_else(odd, r, |s| s.slow_as(inst, ty))
    }

    /// Arithmetic on operands of one float type, scalar or lanes.
    pub(super) fn arithmetic(&mut self, inst: &Inst, args: &[ir::Value]) -> ir::Value {
        let (r, may_be_tiny) = match inst.op {
            // Tiny sums are exact.
            Op::Fadd | Op::Vfadd => (self.b.ins().fadd(args[0], args[1]), false),
            Op::Fsub | Op::Vfsub => (self.b.ins().fsub(args[0], args[1]), false),
            Op::Fmul | Op::Vfmul => (self.b.ins().fmul(args[0], args[1]), true),
            Op::Fdiv | Op::Vfdiv => (self.b.ins().fdiv(args[0], args[1]), true),
            Op::Fsqrt | Op::Vfsqrt => (self.b.ins().sqrt(args[0]), false),
            _ if self.host.fma => (self.b.ins().fma(args[0], args[1], args[2]), true),
            _ => {
                let ty = self.type_of(args[0]);
                return self.slow_as(inst, ty);
            }
        };
        self.checked(inst, r, may_be_tiny)
    }

    pub(super) fn min_max(&mut self, inst: &Inst, a: ir::Value, b: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        let nan = self.b.ins().fcmp(FloatCC::Unordered, a, b);
        let nan = self.any(nan);
        let min = matches!(inst.op, Op::Fmin | Op::Vfmin);
        let hot = |s: &mut Self| match inst.min_kind() {
            MinKind::Second => s.second_if_equal(min, a, b),
            MinKind::Ieee | MinKind::Num if !s.host.x86 => {
                if min {
                    s.b.ins().fmin(a, b)
                } else {
                    s.b.ins().fmax(a, b)
                }
            }
            // Both orders differ for zeroes of different signs only. (What Cranelift emits for `fmax` of lanes is
            // wrong when rounding down.)
            MinKind::Ieee | MinKind::Num => {
                let x = s.second_if_equal(min, a, b);
                let y = s.second_if_equal(min, b, a);
                if min { s.b.ins().bor(x, y) } else { s.b.ins().band(x, y) }
            }
        };
        self.if_else(nan, ty, hot, |s| s.slow_as(inst, ty))
    }

    /// Minimum or maximum of ordered operands, the second one when they are equal: one host instruction on x86.
    fn second_if_equal(&mut self, min: bool, a: ir::Value, b: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        let (x, y) = if min { (a, b) } else { (b, a) };
        let first = self.b.ins().fcmp(FloatCC::LessThan, x, y);
        if ty.is_vector() {
            let first = self.bits(ty, first);
            self.b.ins().bitselect(first, a, b)
        } else {
            self.b.ins().select(first, a, b)
        }
    }

    /// The exception flags of a scalar comparison.
    pub(super) fn float_compare_flags(&mut self, inst: &Inst, a: ir::Value, b: ir::Value) {
        let nan = self.b.ins().fcmp(FloatCC::Unordered, a, b);
        if !inst.aux_flag() {
            return self.pin(nan);
        }
        let (aside, go_on) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(nan, aside, &[], go_on, &[]);
        self.b.seal_block(aside);
        self.b.switch_to_block(aside);
        self.slow_flags(inst);
        self.b.ins().jump(go_on, &[]);
        self.b.seal_block(go_on);
        self.b.switch_to_block(go_on);
    }

    pub(super) fn lower_float(&mut self, inst: &Inst) -> ir::Value {
        let ty = clif_type(inst.ty);
        let a = self.arg(inst, 0);
        match inst.op {
            Op::Fadd | Op::Fsub | Op::Fmul | Op::Fdiv => {
                let b = self.arg(inst, 1);
                self.arithmetic(inst, &[a, b])
            }
            Op::Fsqrt => self.arithmetic(inst, &[a]),
            Op::Fma => {
                let (b, c) = (self.arg(inst, 1), self.arg(inst, 2));
                self.arithmetic(inst, &[a, b, c])
            }
            Op::Fneg => self.b.ins().fneg(a),
            Op::Fabs => self.b.ins().fabs(a),
            Op::Fmin | Op::Fmax => {
                let b = self.arg(inst, 1);
                self.min_max(inst, a, b)
            }
            Op::Fcmp => {
                let b = self.arg(inst, 1);
                self.float_compare_flags(inst, a, b);
                self.b.ins().fcmp(float_cc(inst.float_cc()), a, b)
            }
            Op::Fround => self.round(inst, a),
            Op::FtoS | Op::FtoU => self.lower_to_int(inst, a),
            Op::StoF | Op::UtoF => self.lower_from_int(inst, a),
            Op::Fpromote => {
                let r = self.b.ins().fpromote(ty, a);
                self.checked(inst, r, false)
            }
            _ => {
                let r = self.b.ins().fdemote(ty, a);
                self.checked(inst, r, true)
            }
        }
    }

    // Rounding.

    /// The host's rounding instruction, which raises inexact; `Nearest`, `Down`, `Up` and `Zero` only.
    pub(super) fn round_native(&mut self, round: Round, a: ir::Value) -> ir::Value {
        match round {
            Round::Nearest => self.b.ins().nearest(a),
            Round::Down => self.b.ins().floor(a),
            Round::Up => self.b.ins().ceil(a),
            _ => self.b.ins().trunc(a),
        }
    }

    /// Non-zero unless (in all lanes) `|a| < 2^n`.
    pub(super) fn beyond(&mut self, a: ir::Value, n: i32) -> ir::Value {
        let ty = self.type_of(a);
        let format = Format::of(ty);
        if ty.is_vector() || self.unit.fp == FpRule::X86 {
            // In integers: lane comparisons by size raise invalid for quiet NaNs, all of them the denormal flag.
            let a = self.bits(format.int, a);
            let mask = self.int_const(format.int, !format.sign());
            let magnitude = self.b.ins().band(a, mask);
            let below = self.int_const(format.int, format.power(n) - 1);
            let outside = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, below);
            return self.any(outside);
        }
        let magnitude = self.magnitude(a);
        let limit = self.float_const(ty, format.power(n));
        self.b.ins().fcmp(FloatCC::UnorderedOrGreaterThanOrEqual, magnitude, limit)
    }

    /// As [`Self::beyond`], or when (in any lane) `a` is denormal and the guest could see arithmetic on it.
    pub(super) fn beyond_or_denormal(&mut self, a: ir::Value, n: i32) -> ir::Value {
        let outside = self.beyond(a, n);
        if self.unit.fp != FpRule::X86 {
            return outside;
        }
        let format = Format::of(self.type_of(a));
        let bits = self.bits(format.int, a);
        let mask = self.int_const(format.int, !format.sign());
        let magnitude = self.b.ins().band(bits, mask);
        let one = self.int_const(format.int, 1);
        let less = self.b.ins().isub(magnitude, one);
        let last = self.int_const(format.int, format.min_normal() - 1);
        let denormal = self.b.ins().icmp(IntCC::UnsignedLessThan, less, last);
        let denormal = self.any(denormal);
        self.b.ins().bor(outside, denormal)
    }

    pub(super) fn can_round(&self, round: Round) -> bool {
        self.host.sse41 && matches!(round, Round::Nearest | Round::Down | Round::Up | Round::Zero)
    }

    fn round(&mut self, inst: &Inst, a: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        let (round, exact) = (inst.round(), inst.aux_flag());
        if exact && self.can_round(round) {
            let r = self.round_native(round, a);
            return self.checked(inst, r, false);
        }
        if round == Round::Current && !exact || exact && round != Round::Current {
            return self.slow(inst);
        }
        let cond = self.beyond_or_denormal(a, Format::of(ty).fraction as i32);
        let hot = |s: &mut Self| {
            if round == Round::Current { s.round_current(a) } else { s.round_quietly(round, a) }
        };
        self.if_else(cond, ty, hot, |s| s.slow(inst))
    }

    /// Rounds `|a| < 2^fraction` in the current mode, raising inexact: adding and subtracting a number so large that
    /// its last place is 1.
    pub(super) fn round_current(&mut self, a: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        let format = Format::of(ty);
        let large = self.float_const(ty, format.power(format.fraction as i32));
        let large = self.b.ins().fcopysign(large, a);
        let sum = self.b.ins().fadd(a, large);
        let r = self.b.ins().fsub(sum, large);
        let r = self.b.ins().fcopysign(r, a);
        let zero = self.b.ins().fcmp(FloatCC::Unordered, sum, sum);
        let zero = self.any(zero);
        self.pin(zero);
        r
    }

    /// Rounds a scalar `|a| < 2^fraction` without raising a flag.
    pub(super) fn round_quietly(&mut self, round: Round, a: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        let format = Format::of(ty);
        let int = format.int;
        let bits = self.bits(int, a);
        // Clear the bits below the unit; below 1 all but the sign.
        let exponent = self.b.ins().ushr_imm_u(bits, format.fraction as i64);
        let exponent = self.b.ins().band_imm_u(exponent, (2 * format.bias + 1) as i64);
        let bias = self.iconst(int, format.bias as i64);
        let whole = self.b.ins().isub(exponent, bias);
        let fraction_mask = self.iconst(int, ((1u64 << format.fraction) - 1) as i64);
        let below_unit = self.b.ins().ushr(fraction_mask, whole);
        let keep = self.b.ins().bnot(below_unit);
        let sign = self.iconst(int, format.sign() as i64);
        let small = self.icmp_imm(IntCC::SignedLessThan, whole, 0);
        let keep = self.b.ins().select(small, sign, keep);
        let toward_zero = self.b.ins().band(bits, keep);
        let t = self.bits(ty, toward_zero);
        let one = self.float_const(ty, format.power(0));
        let step = match round {
            Round::Down => self.b.ins().fcmp(FloatCC::LessThan, a, t),
            Round::Up => self.b.ins().fcmp(FloatCC::GreaterThan, a, t),
            Round::Nearest | Round::Away => {
                let rest = self.b.ins().fsub(a, t);
                let rest = self.b.ins().fabs(rest);
                let half = self.float_const(ty, format.power(-1));
                if round == Round::Away {
                    self.b.ins().fcmp(FloatCC::GreaterThanOrEqual, rest, half)
                } else {
                    let more = self.b.ins().fcmp(FloatCC::GreaterThan, rest, half);
                    let tie = self.b.ins().fcmp(FloatCC::Equal, rest, half);
                    let odd = self.unit_bit(bits, whole, format);
                    let tie_up = self.b.ins().band(tie, odd);
                    self.b.ins().bor(more, tie_up)
                }
            }
            _ => return t,
        };
        let one = self.b.ins().fcopysign(one, a);
        let stepped = self.b.ins().fadd(t, one);
        self.b.ins().select(step, stepped, t)
    }

    /// The bit of weight 1 of a float with unbiased exponent `whole`, as a truth value.
    fn unit_bit(&mut self, bits: ir::Value, whole: ir::Value, format: Format) -> ir::Value {
        let int = format.int;
        let fraction = self.iconst(int, ((1u64 << format.fraction) - 1) as i64);
        let significand = self.b.ins().band(bits, fraction);
        let leading = self.iconst(int, 1 << format.fraction);
        let significand = self.b.ins().bor(significand, leading);
        let top = self.iconst(int, format.fraction as i64);
        let by = self.b.ins().isub(top, whole);
        let unit = self.b.ins().ushr(significand, by);
        let unit = self.b.ins().ireduce(types::I8, unit);
        self.b.ins().band_imm_u(unit, 1)
    }

    // Conversions.

    /// Rounds a value that is in range for the conversion, raising inexact; `Zero` is left to the conversion.
    pub(super) fn round_for_int(&mut self, round: Round, a: ir::Value) -> ir::Value {
        match round {
            Round::Zero => a,
            Round::Nearest | Round::Down | Round::Up => self.round_native(round, a),
            Round::Current => self.round_current(a),
            Round::Away => {
                let ty = self.type_of(a);
                let format = Format::of(ty);
                let t = self.b.ins().trunc(a);
                let rest = self.b.ins().fsub(a, t);
                let rest = self.b.ins().fabs(rest);
                let half = self.float_const(ty, format.power(-1));
                let step = self.b.ins().fcmp(FloatCC::GreaterThanOrEqual, rest, half);
                let one = self.float_const(ty, format.power(0));
                let one = self.b.ins().fcopysign(one, a);
                // Large numbers have no place for a 1, and no fraction: add 0.
                let zero = self.float_const(ty, 0);
                let addend = self.b.ins().select(step, one, zero);
                self.b.ins().fadd(t, addend)
            }
        }
    }

    fn lower_to_int(&mut self, inst: &Inst, a: ir::Value) -> ir::Value {
        let ty = clif_type(inst.ty);
        let bits = inst.ty.bits() as i32;
        let float = self.type_of(a);
        let format = Format::of(float);
        let round = inst.round();
        let signed = inst.op == Op::FtoS;
        if round != Round::Zero && !self.host.sse41 {
            return self.slow(inst);
        }
        if signed && round == Round::Zero && !inst.aux_flag() {
            let r = self.b.ins().fcvt_to_sint_sat(ty, a);
            let zero = self.icmp_imm(IntCC::Equal, r, 0);
            self.pin(zero);
            return r;
        }
        // Operands for which neither rounding nor conversion leaves the range take the host's way.
        let mut limit = match (signed, round) {
            (true, Round::Zero) => bits - 1,
            (true, _) => bits - 2,
            (false, Round::Zero) => bits,
            (false, _) => bits - 1,
        };
        if round == Round::Current {
            limit = limit.min(format.fraction as i32 - 1);
        }
        let outside = if signed && matches!(round, Round::Current | Round::Away) {
            self.beyond_or_denormal(a, limit)
        } else if signed {
            self.beyond(a, limit)
        } else {
            let (low, cc) = if round == Round::Zero {
                (format.power(0) | format.sign(), FloatCC::UnorderedOrLessThanOrEqual)
            } else {
                (0, FloatCC::UnorderedOrLessThan)
            };
            let low = self.float_const(float, low);
            let high = self.float_const(float, format.power(limit));
            let below = self.b.ins().fcmp(cc, a, low);
            let above = self.b.ins().fcmp(FloatCC::UnorderedOrGreaterThanOrEqual, a, high);
            self.b.ins().bor(below, above)
        };
        let hot = |s: &mut Self| {
            let a = s.round_for_int(round, a);
            let r = match (signed, ty) {
                (true, _) => s.b.ins().fcvt_to_sint_sat(ty, a),
                (false, types::I32) => {
                    let wide = s.b.ins().fcvt_to_sint_sat(types::I64, a);
                    s.b.ins().ireduce(types::I32, wide)
                }
                (false, _) => s.b.ins().fcvt_to_uint_sat(ty, a),
            };
            let zero = s.icmp_imm(IntCC::Equal, r, 0);
            s.pin(zero);
            r
        };
        self.if_else(outside, ty, hot, |s| s.slow(inst))
    }

    /// A scalar integer to a float, without the slow path or pinning.
    pub(super) fn int_to_float(&mut self, to: ir::Type, signed: bool, a: ir::Value) -> ir::Value {
        if signed {
            self.b.ins().fcvt_from_sint(to, a)
        } else if self.type_of(a) == types::I32 {
            let wide = self.b.ins().uextend(types::I64, a);
            self.b.ins().fcvt_from_sint(to, wide)
        } else {
            self.b.ins().fcvt_from_uint(to, a)
        }
    }

    fn lower_from_int(&mut self, inst: &Inst, a: ir::Value) -> ir::Value {
        let to = clif_type(inst.ty);
        let exact = inst.ty == Type::F64 && self.type_of(a) == types::I32;
        if let Some(n) = self.constant_of(a) {
            // Cranelift would fold it, without flags and rounding mode, and then what is computed from it.
            let n = match inst.op {
                Op::StoF => n as i128,
                _ => (n as u64 & (u64::MAX >> (64 - self.type_of(a).bits()))) as i128,
            };
            let format = Format::of(to);
            if n.unsigned_abs() >> (format.fraction + 1) != 0 {
                return self.slow(inst);
            }
            let bits = match inst.ty {
                Type::F32 => (n as f32).to_bits() as i64,
                _ => (n as f64).to_bits() as i64,
            };
            let bits = self.iconst(format.int, bits);
            return self.bits(to, bits);
        }
        let a = self.opaque(a);
        let r = self.int_to_float(to, inst.op == Op::StoF, a);
        if !exact {
            let nan = self.b.ins().fcmp(FloatCC::Unordered, r, r);
            self.pin(nan);
        }
        r
    }

    /// `a`, such that Cranelift cannot find out that it is a constant: an addition of 0 that also asks for the carry
    /// is beyond its folding. Nothing when `a` comes from memory or another block anyway.
    fn opaque(&mut self, a: ir::Value) -> ir::Value {
        let dfg = &self.b.func.dfg;
        let mut origin = dfg.resolve_aliases(a);
        loop {
            let ValueDef::Result(inst, _) = dfg.value_def(origin) else { return a };
            match dfg.insts[inst].opcode() {
                Opcode::Load => return a,
                Opcode::Uextend | Opcode::Sextend | Opcode::Ireduce => {
                    origin = dfg.resolve_aliases(dfg.inst_args(inst)[0]);
                }
                _ => break,
            }
        }
        let zero = self.iconst(self.type_of(a), 0);
        self.b.ins().uadd_overflow(a, zero).0
    }

    /// The value of a scalar integer constant, sign-extended.
    pub(super) fn constant_of(&self, a: ir::Value) -> Option<i64> {
        let dfg = &self.b.func.dfg;
        let ValueDef::Result(inst, _) = dfg.value_def(dfg.resolve_aliases(a)) else { return None };
        let InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } = dfg.insts[inst] else {
            return None;
        };
        let unused = 64 - self.type_of(a).bits();
        Some(imm.bits() << unused >> unused)
    }
}
