//! Float lanes: as the scalar operations of [`super::float`], with one check for all lanes. A lane that needs the slow
//! path takes the whole vector there.

use super::float::{Format, float_cc};
use super::{Lower, clif_shape};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self, InstBuilder, Opcode, ValueDef, types};
use tulk_ir::{FloatCc, Inst, Op, Round, Shape};

impl Lower<'_> {
    /// Lowers a float vector operation; the result is `i8x16`.
    pub(super) fn lower_vector_float(&mut self, inst: &Inst) -> ir::Value {
        let value = self.vector_float_value(inst);
        self.bits(types::I8X16, value)
    }

    fn float_lanes(&mut self, inst: &Inst, i: usize) -> ir::Value {
        let a = self.arg(inst, i);
        self.bits(clif_shape(inst.shape), a)
    }

    fn vector_float_value(&mut self, inst: &Inst) -> ir::Value {
        match inst.op {
            Op::Vfadd | Op::Vfsub | Op::Vfmul | Op::Vfdiv => {
                let args = [self.float_lanes(inst, 0), self.float_lanes(inst, 1)];
                self.arithmetic(inst, &args)
            }
            Op::Vfma => {
                let args = [0, 1, 2].map(|i| self.float_lanes(inst, i));
                self.arithmetic(inst, &args)
            }
            Op::Vfsqrt => {
                let a = self.float_lanes(inst, 0);
                self.arithmetic(inst, &[a])
            }
            Op::Vfneg => {
                let a = self.float_lanes(inst, 0);
                self.b.ins().fneg(a)
            }
            Op::Vfabs => {
                let a = self.float_lanes(inst, 0);
                self.b.ins().fabs(a)
            }
            Op::Vfmin | Op::Vfmax => {
                let (a, b) = (self.float_lanes(inst, 0), self.float_lanes(inst, 1));
                self.min_max(inst, a, b)
            }
            Op::Vfcmp => self.compare_lanes(inst),
            Op::Vfround => self.round_lanes(inst),
            Op::VftoS | Op::VftoU => self.lanes_to_int(inst),
            Op::VstoF | Op::VutoF => self.lanes_from_int(inst),
            Op::VfpromoteLo => {
                let a = self.arg(inst, 0);
                let a = self.bits(types::F32X4, a);
                let r = self.b.ins().fvpromote_low(a);
                self.checked(inst, r, false)
            }
            _ => {
                let a = self.arg(inst, 0);
                let a = self.bits(types::F64X2, a);
                let r = self.b.ins().fvdemote(a);
                self.checked(inst, r, true)
            }
        }
    }

    /// Without NaNs every host compares alike and raises nothing.
    fn compare_lanes(&mut self, inst: &Inst) -> ir::Value {
        let (a, b) = (self.float_lanes(inst, 0), self.float_lanes(inst, 1));
        let nan = self.b.ins().fcmp(FloatCC::Unordered, a, b);
        let nan = self.b.ins().vany_true(nan);
        let hot = |s: &mut Self| {
            let cc = match inst.float_cc() {
                FloatCc::Ord => return s.vector_const(u128::MAX),
                FloatCc::Uno => return s.vector_const(0),
                FloatCc::UEq => FloatCc::Eq,
                FloatCc::ULt => FloatCc::Lt,
                FloatCc::ULe => FloatCc::Le,
                FloatCc::UGt => FloatCc::Gt,
                FloatCc::UGe => FloatCc::Ge,
                cc => cc,
            };
            let holds = s.b.ins().fcmp(float_cc(cc), a, b);
            s.bits(types::I8X16, holds)
        };
        self.if_else(nan, types::I8X16, hot, |s| s.slow(inst))
    }

    /// Applies a scalar lowering to each lane.
    fn each_lane(
        &mut self,
        result: ir::Type,
        a: ir::Value,
        mut f: impl FnMut(&mut Self, ir::Value) -> ir::Value,
    ) -> ir::Value {
        let mut all = self.vector_const(0);
        all = self.bits(result, all);
        for lane in 0..result.lane_count() as u8 {
            let value = self.b.ins().extractlane(a, lane);
            let value = f(self, value);
            all = self.b.ins().insertlane(all, value, lane);
        }
        all
    }

    fn round_lanes(&mut self, inst: &Inst) -> ir::Value {
        let a = self.float_lanes(inst, 0);
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
        let hot = |s: &mut Self| match round {
            Round::Current => s.round_current_lanes(a),
            _ => s.each_lane(ty, a, |s, x| s.round_quietly(round, x)),
        };
        self.if_else(cond, ty, hot, |s| s.slow_as(inst, ty))
    }

    /// [`Self::round_current`] with the sign handled by masks, since `fcopysign` is scalar.
    fn round_current_lanes(&mut self, a: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        let format = Format::of(ty);
        let signs = self.float_const(ty, format.sign());
        let sign = self.b.ins().band(a, signs);
        let large = self.float_const(ty, format.power(format.fraction as i32));
        let large = self.b.ins().bor(large, sign);
        let sum = self.b.ins().fadd(a, large);
        let r = self.b.ins().fsub(sum, large);
        let nan = self.b.ins().fcmp(FloatCC::Unordered, sum, sum);
        let nan = self.b.ins().vany_true(nan);
        self.pin(nan);
        // A zero difference is negative when rounding down.
        let r = self.b.ins().band_not(r, signs);
        self.b.ins().bor(r, sign)
    }

    fn lanes_to_int(&mut self, inst: &Inst) -> ir::Value {
        let a = self.float_lanes(inst, 0);
        let ty = self.type_of(a);
        let format = Format::of(ty);
        let round = inst.round();
        let (signed, bits) = (inst.op == Op::VftoS, format.bits as i32);
        let by_sum = round == Round::Current && signed;
        if !self.host.sse41 || matches!(round, Round::Away | Round::Current) && !by_sum {
            return self.slow(inst);
        }
        let outside = if by_sum {
            self.beyond_or_denormal(a, format.fraction as i32 - 1)
        } else if signed {
            self.beyond(a, if round == Round::Zero { bits - 1 } else { bits - 2 })
        } else {
            // As integers, NaNs and numbers with a sign are large.
            let bits_a = self.bits(format.int, a);
            let high = self.int_const(format.int, format.power(bits - 2));
            let outside = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, bits_a, high);
            self.b.ins().vany_true(outside)
        };
        let hot = |s: &mut Self| {
            let a = match round {
                Round::Zero => a,
                Round::Current => s.round_current_lanes(a),
                _ => s.round_native(round, a),
            };
            let r = if inst.shape == Shape::F32x4 {
                if s.host.x86 {
                    s.b.ins().x86_cvtt2dq(types::I32X4, a)
                } else {
                    s.b.ins().fcvt_to_sint_sat(types::I32X4, a)
                }
            } else {
                let convert = |s: &mut Self, x| s.b.ins().fcvt_to_sint_sat(types::I64, x);
                s.each_lane(types::I64X2, a, convert)
            };
            let any = s.b.ins().vany_true(r);
            s.pin(any);
            s.bits(types::I8X16, r)
        };
        self.if_else(outside, types::I8X16, hot, |s| s.slow(inst))
    }

    /// Whether the lanes are the low 32-bit lanes of a vector, sign-extended.
    fn is_widened(&self, a: ir::Value) -> bool {
        let dfg = &self.b.func.dfg;
        let mut a = dfg.resolve_aliases(a);
        while let ValueDef::Result(inst, _) = dfg.value_def(a) {
            match dfg.insts[inst].opcode() {
                Opcode::Bitcast => a = dfg.resolve_aliases(dfg.inst_args(inst)[0]),
                Opcode::SwidenLow => return true,
                _ => break,
            }
        }
        false
    }

    fn lanes_from_int(&mut self, inst: &Inst) -> ir::Value {
        let to = clif_shape(inst.shape);
        let a = self.arg(inst, 0);
        let a = self.bits(Format::of(to).int, a);
        let signed = inst.op == Op::VstoF;
        let r = if signed && (inst.shape == Shape::F32x4 || self.is_widened(a)) {
            // Of widened 32-bit lanes one host instruction makes doubles.
            self.b.ins().fcvt_from_sint(to, a)
        } else {
            self.each_lane(to, a, |s, x| s.int_to_float(to.lane_type(), signed, x))
        };
        let nan = self.b.ins().fcmp(FloatCC::Unordered, r, r);
        let nan = self.b.ins().vany_true(nan);
        self.pin(nan);
        r
    }
}
