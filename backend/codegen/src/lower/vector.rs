//! Vector operations over bits and integer lanes. What Cranelift has for no or not every lane width is composed.

use super::int::int_cc;
use super::{Lower, clif_shape};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::immediates::V128Imm;
use cranelift_codegen::ir::{
    self, ConstantData, InstBuilder, InstructionData, Opcode, ValueDef, types,
};
use tulk_ir::{Inst, Op, Shape};

/// Byte selections that keep the even elements of `width` bytes of two vectors.
fn even_bytes(width: usize) -> u128 {
    u128::from_le_bytes(std::array::from_fn(|i| (i / width * 2 * width + i % width) as u8))
}

/// The low `bits` of `n` in every lane.
pub(super) fn every_lane(bits: u32, n: u64) -> u128 {
    let n = n & (u64::MAX >> (64 - bits));
    (0..128 / bits).fold(0, |all, i| all | (n as u128) << (i * bits))
}

impl Lower<'_> {
    pub(super) fn vector_const(&mut self, n: u128) -> ir::Value {
        let data: ConstantData = V128Imm(n.to_le_bytes()).0.to_vec().into();
        let handle = self.b.func.dfg.constants.insert(data);
        self.b.ins().vconst(types::I8X16, handle)
    }

    /// Bytes of `a` then `b` as `mask` numbers them; result and operands are `i8x16`.
    pub(super) fn shuffle(&mut self, a: ir::Value, b: ir::Value, mask: u128) -> ir::Value {
        let (a, b) = (self.bits(types::I8X16, a), self.bits(types::I8X16, b));
        let mask = self.b.func.dfg.immediates.push(mask.to_le_bytes().to_vec().into());
        self.b.ins().shuffle(a, b, mask)
    }

    /// Whether every byte of the vector is known to have no bit outside `mask`: it was and-ed with a constant.
    fn has_only_bits(&self, v: ir::Value, mask: u8) -> bool {
        let dfg = &self.b.func.dfg;
        let origin = |v| match dfg.value_def(dfg.resolve_aliases(v)) {
            ValueDef::Result(inst, _) => Some(inst),
            _ => None,
        };
        let Some(and) = origin(v).filter(|&i| dfg.insts[i].opcode() == Opcode::Band) else {
            return false;
        };
        dfg.inst_args(and).iter().any(|&arg| match origin(arg).map(|i| dfg.insts[i]) {
            Some(InstructionData::UnaryConst { opcode: Opcode::Vconst, constant_handle }) => {
                dfg.constants.get(constant_handle).iter().all(|byte| byte & !mask == 0)
            }
            _ => false,
        })
    }

    fn shaped(&mut self, inst: &Inst, i: usize) -> ir::Value {
        let a = self.arg(inst, i);
        self.bits(clif_shape(inst.shape), a)
    }

    fn lane_const(&mut self, ty: ir::Type, n: u64) -> ir::Value {
        let c = self.vector_const(every_lane(ty.lane_bits(), n));
        self.bits(ty, c)
    }

    /// Lowers one of the integer vector operations; the result has the type of the instruction's result.
    pub(super) fn lower_vector(&mut self, inst: &Inst) -> ir::Value {
        let value = self.vector_value(inst);
        let ty = self.result_type(inst);
        self.bits(ty, value)
    }

    fn vector_value(&mut self, inst: &Inst) -> ir::Value {
        let ty = clif_shape(inst.shape);
        match inst.op {
            Op::Vconst => self.vector_const(self.unit.pool[inst.imm as usize]),
            Op::Vsplat => {
                let a = self.arg(inst, 0);
                self.b.ins().splat(ty, a)
            }
            Op::Vscalar => {
                let a = self.arg(inst, 0);
                self.scalars.note(inst.dst, (inst.shape, a));
                self.scalar_to_vector(inst.shape, a)
            }
            Op::Vlane => {
                if let Some((shape, scalar)) = self.scalars.of(inst.args[0])
                    && (shape, inst.imm2) == (inst.shape, 0)
                {
                    return scalar;
                }
                let a = self.shaped(inst, 0);
                self.b.ins().extractlane(a, inst.imm2 as u8)
            }
            Op::VsetLane => {
                let (a, lane) = (self.shaped(inst, 0), self.arg(inst, 1));
                if inst.imm2 == 0 {
                    self.scalars.note(inst.dst, (inst.shape, lane));
                }
                self.b.ins().insertlane(a, lane, inst.imm2 as u8)
            }
            Op::Vshuffle => {
                let (a, b) = self.args2(inst);
                // Bits above the fifth of a byte number do not count.
                let mask = self.unit.pool[inst.imm as usize] & every_lane(8, 31);
                self.shuffle(a, b, mask)
            }
            Op::Vbitsel => {
                let (m, a, b) = (self.arg(inst, 0), self.arg(inst, 1), self.arg(inst, 2));
                self.b.ins().bitselect(m, a, b)
            }
            Op::Vswizzle | Op::Vand | Op::Vor | Op::Vxor | Op::VandNot => {
                let (a, b) = self.args2(inst);
                match inst.op {
                    // Byte numbers without bits 6:4 are as the host's instruction wants them.
                    Op::Vswizzle if self.host.ssse3 && self.has_only_bits(b, 0x8f) => {
                        self.b.ins().x86_pshufb(a, b)
                    }
                    Op::Vswizzle => self.b.ins().swizzle(a, b),
                    Op::Vand => self.b.ins().band(a, b),
                    Op::Vor => self.b.ins().bor(a, b),
                    Op::Vxor => self.b.ins().bxor(a, b),
                    _ => self.b.ins().band_not(a, b),
                }
            }
            Op::Vnot => {
                let a = self.arg(inst, 0);
                self.b.ins().bnot(a)
            }
            Op::VanyTrue => {
                let a = self.arg(inst, 0);
                self.b.ins().vany_true(a)
            }
            Op::VsignBits => {
                let shape = Shape::int_of_log2(inst.shape.lane_bits().ilog2() as u8 - 3);
                let a = self.arg(inst, 0);
                let a = self.bits(clif_shape(shape), a);
                self.b.ins().vhigh_bits(types::I32, a)
            }
            Op::VshlI | Op::VshrUI | Op::VshrSI => self.shift_imm(inst),
            Op::VshlBy | Op::VshrUBy | Op::VshrSBy => self.shift_by(inst),
            Op::Vneg
            | Op::Vabs
            | Op::Vpopcnt
            | Op::VwidenLoS
            | Op::VwidenLoU
            | Op::VwidenHiS
            | Op::VwidenHiU => {
                let a = self.shaped(inst, 0);
                let ins = self.b.ins();
                match inst.op {
                    Op::Vneg => ins.ineg(a),
                    Op::Vabs => ins.iabs(a),
                    Op::Vpopcnt => ins.popcnt(a),
                    Op::VwidenLoS => ins.swiden_low(a),
                    Op::VwidenLoU => ins.uwiden_low(a),
                    Op::VwidenHiS => ins.swiden_high(a),
                    _ => ins.uwiden_high(a),
                }
            }
            Op::Vclz => {
                let a = self.shaped(inst, 0);
                self.leading_zeroes(a)
            }
            op => {
                let (a, b) = (self.shaped(inst, 0), self.shaped(inst, 1));
                self.lanes2(inst, op, ty, a, b)
            }
        }
    }

    /// Operations on two vectors of lanes.
    fn lanes2(
        &mut self,
        inst: &Inst,
        op: Op,
        ty: ir::Type,
        a: ir::Value,
        b: ir::Value,
    ) -> ir::Value {
        let narrow = ty.lane_bits() <= 16;
        match op {
            Op::Vadd => self.b.ins().iadd(a, b),
            Op::Vsub => self.b.ins().isub(a, b),
            Op::Vmul if ty == types::I8X16 => {
                let (a_lo, b_lo) = (self.b.ins().uwiden_low(a), self.b.ins().uwiden_low(b));
                let (a_hi, b_hi) = (self.b.ins().uwiden_high(a), self.b.ins().uwiden_high(b));
                let lo = self.b.ins().imul(a_lo, b_lo);
                let hi = self.b.ins().imul(a_hi, b_hi);
                self.shuffle(lo, hi, even_bytes(1))
            }
            Op::Vmul => self.b.ins().imul(a, b),
            Op::VaddSatS if narrow => self.b.ins().sadd_sat(a, b),
            Op::VaddSatU if narrow => self.b.ins().uadd_sat(a, b),
            Op::VsubSatS if narrow => self.b.ins().ssub_sat(a, b),
            Op::VsubSatU if narrow => self.b.ins().usub_sat(a, b),
            Op::VaddSatU => {
                let sum = self.b.ins().iadd(a, b);
                let over = self.b.ins().icmp(IntCC::UnsignedLessThan, sum, a);
                self.b.ins().bor(sum, over)
            }
            Op::VsubSatU => {
                let difference = self.b.ins().isub(a, b);
                let good = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, a, b);
                self.b.ins().band(difference, good)
            }
            Op::VaddSatS | Op::VsubSatS => {
                let (r, x, y) = if op == Op::VaddSatS {
                    let r = self.b.ins().iadd(a, b);
                    (r, self.b.ins().bxor(a, r), self.b.ins().bxor(b, r))
                } else {
                    let r = self.b.ins().isub(a, b);
                    (r, self.b.ins().bxor(a, b), self.b.ins().bxor(a, r))
                };
                let over = self.b.ins().band(x, y);
                let over = self.sign_mask(over);
                let sign = self.sign_mask(a);
                let max = self.lane_const(ty, (1 << (ty.lane_bits() - 1)) - 1);
                let limit = self.b.ins().bxor(sign, max);
                self.b.ins().bitselect(over, limit, r)
            }
            Op::VminS => self.b.ins().smin(a, b),
            Op::VminU => self.b.ins().umin(a, b),
            Op::VmaxS => self.b.ins().smax(a, b),
            Op::VmaxU => self.b.ins().umax(a, b),
            Op::VavgU if narrow => self.b.ins().avg_round(a, b),
            Op::VavgU => {
                let either = self.b.ins().bor(a, b);
                let differ = self.b.ins().bxor(a, b);
                let half = self.b.ins().ushr_imm_u(differ, 1);
                self.b.ins().isub(either, half)
            }
            Op::Vicmp => self.b.ins().icmp(int_cc(inst.int_cc()), a, b),
            Op::VshlV | Op::VshrUV | Op::VshrSV => self.shift_lanes(op, ty, a, b),
            Op::Vnarrow => self.shuffle(a, b, even_bytes(ty.lane_bits() as usize / 16)),
            Op::VnarrowSatS | Op::VnarrowSatSU | Op::VnarrowSatU => {
                self.narrow_saturating(op, ty, a, b)
            }
            Op::VmulWidenLoS | Op::VmulWidenLoU | Op::VmulWidenHiS | Op::VmulWidenHiU => {
                let [a, b] = [a, b].map(|v| match op {
                    Op::VmulWidenLoS => self.b.ins().swiden_low(v),
                    Op::VmulWidenLoU => self.b.ins().uwiden_low(v),
                    Op::VmulWidenHiS => self.b.ins().swiden_high(v),
                    _ => self.b.ins().uwiden_high(v),
                });
                self.b.ins().imul(a, b)
            }
            Op::VaddPairs if ty == types::I64X2 => {
                let low = self.shuffle(a, b, even_bytes(8));
                let high = self.shuffle(a, b, even_bytes(8) + every_lane(8, 8));
                let (low, high) = (self.bits(ty, low), self.bits(ty, high));
                self.b.ins().iadd(low, high)
            }
            Op::VaddPairs => self.b.ins().iadd_pairwise(a, b),
            Op::VmaddPairsS => {
                let (a_lo, b_lo) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
                let (a_hi, b_hi) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
                let lo = self.b.ins().imul(a_lo, b_lo);
                let hi = self.b.ins().imul(a_hi, b_hi);
                self.b.ins().iadd_pairwise(lo, hi)
            }
            _ => unreachable!("{op:?} is not an operation on integer lanes"),
        }
    }

    /// The scalar in lane 0, the other lanes zero.
    pub(super) fn scalar_to_vector(&mut self, shape: Shape, a: ir::Value) -> ir::Value {
        match shape {
            Shape::I8x16 | Shape::I16x8 => {
                let wide = self.b.ins().uextend(types::I32, a);
                self.b.ins().scalar_to_vector(types::I32X4, wide)
            }
            _ => self.b.ins().scalar_to_vector(clif_shape(shape), a),
        }
    }

    /// All ones in lanes whose top bit is set.
    fn sign_mask(&mut self, a: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        let zero = self.lane_const(ty, 0);
        self.b.ins().icmp(IntCC::SignedLessThan, a, zero)
    }

    fn shift_imm(&mut self, inst: &Inst) -> ir::Value {
        let a = self.shaped(inst, 0);
        let bits = inst.shape.lane_bits();
        let amount = inst.imm2;
        match inst.op {
            Op::VshlI | Op::VshrUI if amount >= bits => self.vector_const(0),
            Op::VshlI => self.b.ins().ishl_imm_u(a, amount as i64),
            Op::VshrUI => self.b.ins().ushr_imm_u(a, amount as i64),
            _ => self.b.ins().sshr_imm_u(a, amount.min(bits - 1) as i64),
        }
    }

    /// Shifts by the same variable amount, which the host takes modulo the width.
    fn shift_by(&mut self, inst: &Inst) -> ir::Value {
        let (a, amount) = (self.shaped(inst, 0), self.arg(inst, 1));
        let bits = inst.shape.lane_bits() as i64;
        if inst.op == Op::VshrSBy {
            let last = self.iconst(types::I64, bits - 1);
            let amount = self.b.ins().umin(amount, last);
            return self.b.ins().sshr(a, amount);
        }
        let shifted = match inst.op {
            Op::VshlBy => self.b.ins().ishl(a, amount),
            _ => self.b.ins().ushr(a, amount),
        };
        let inside = self.icmp_imm(IntCC::UnsignedLessThan, amount, bits);
        let zero = self.lane_const(clif_shape(inst.shape), 0);
        self.b.ins().select(inside, shifted, zero)
    }

    /// Shifts by an amount per lane. The host instructions for this are out of reach, so: 64-bit lanes one by one,
    /// narrower ones by conditional shifts by powers of two.
    fn shift_lanes(&mut self, op: Op, ty: ir::Type, a: ir::Value, amount: ir::Value) -> ir::Value {
        let bits = ty.lane_bits();
        let limit = self.lane_const(ty, bits as u64 - 1);
        // Amounts from the width on: all bits leave, arithmetically those of the sign come.
        let amount = if op == Op::VshrSV { self.b.ins().umin(amount, limit) } else { amount };
        let shifted = if bits == 64 {
            let mut result = a;
            for lane in 0..2u8 {
                let value = self.b.ins().extractlane(a, lane);
                let by = self.b.ins().extractlane(amount, lane);
                let value = match op {
                    Op::VshlV => self.b.ins().ishl(value, by),
                    Op::VshrUV => self.b.ins().ushr(value, by),
                    _ => self.b.ins().sshr(value, by),
                };
                result = self.b.ins().insertlane(result, value, lane);
            }
            result
        } else {
            let mut result = a;
            for k in 0..bits.ilog2() {
                let bit = self.b.ins().ishl_imm_u(amount, (bits - 1 - k) as i64);
                let chosen = self.sign_mask(bit);
                let moved = match op {
                    Op::VshlV => self.b.ins().ishl_imm_u(result, 1 << k),
                    Op::VshrUV => self.b.ins().ushr_imm_u(result, 1 << k),
                    _ => self.b.ins().sshr_imm_u(result, 1 << k),
                };
                result = self.b.ins().bitselect(chosen, moved, result);
            }
            result
        };
        if op == Op::VshrSV {
            return shifted;
        }
        let inside = self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, amount, limit);
        self.b.ins().band(shifted, inside)
    }

    fn narrow_saturating(
        &mut self,
        op: Op,
        ty: ir::Type,
        mut a: ir::Value,
        mut b: ir::Value,
    ) -> ir::Value {
        let half = ty.lane_bits() / 2;
        if op == Op::VnarrowSatU {
            let max = self.lane_const(ty, (1 << half) - 1);
            (a, b) = (self.b.ins().umin(a, max), self.b.ins().umin(b, max));
        }
        match (op, half) {
            (Op::VnarrowSatS, 8 | 16) => self.b.ins().snarrow(a, b),
            (_, 8 | 16) => self.b.ins().unarrow(a, b),
            (_, _) => {
                let (min, max) = match op {
                    Op::VnarrowSatS => (i32::MIN as i64, i32::MAX as i64),
                    _ => (0, u32::MAX as i64),
                };
                if op != Op::VnarrowSatU {
                    let min = self.lane_const(ty, min as u64);
                    let max = self.lane_const(ty, max as u64);
                    [a, b] = [a, b].map(|v| {
                        let v = self.b.ins().smax(v, min);
                        self.b.ins().smin(v, max)
                    });
                }
                self.shuffle(a, b, even_bytes(4))
            }
        }
    }

    fn leading_zeroes(&mut self, a: ir::Value) -> ir::Value {
        let ty = self.type_of(a);
        match ty.lane_bits() {
            8 => {
                // By nibble: the table's value of the high one, plus that of the low one when it is zero.
                let table = u128::from_le_bytes([4, 3, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
                let table = self.vector_const(table);
                let high = self.b.ins().ushr_imm_u(a, 4);
                let low = self.lane_const(ty, 15);
                let low = self.b.ins().band(a, low);
                let high = self.b.ins().swizzle(table, high);
                let low = self.b.ins().swizzle(table, low);
                self.add_if_full(high, low, 4)
            }
            16 => {
                let bytes = self.bits(types::I8X16, a);
                let counts = self.leading_zeroes(bytes);
                let counts = self.bits(ty, counts);
                let high = self.b.ins().ushr_imm_u(counts, 8);
                let low = self.lane_const(ty, 0xff);
                let low = self.b.ins().band(counts, low);
                self.add_if_full(high, low, 8)
            }
            _ => {
                let mut result = a;
                for lane in 0..ty.lane_count() as u8 {
                    let value = self.b.ins().extractlane(a, lane);
                    let count = self.b.ins().clz(value);
                    result = self.b.ins().insertlane(result, count, lane);
                }
                result
            }
        }
    }

    /// `high`, plus `low` in lanes where `high` is `full`.
    fn add_if_full(&mut self, high: ir::Value, low: ir::Value, full: u64) -> ir::Value {
        let full = self.lane_const(self.type_of(high), full);
        let all = self.b.ins().icmp(IntCC::Equal, high, full);
        let low = self.b.ins().band(low, all);
        self.b.ins().iadd(high, low)
    }
}
