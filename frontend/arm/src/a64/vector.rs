//! What all SIMD and floating-point lift functions share: instruction fields, lane forms, access to the vector
//! registers, and the cumulative saturation flag.
//!
//! Every write of a vector register writes all 128 bits; what an instruction's form does not cover becomes zero
//! (Arm ARM C1.2.5 "V registers": a write to a scalar or to a 64-bit vector clears the rest).

use super::decode::Insn;
use super::{Lifter, regs};
use tulk_ir::{IntCc, Shape, Type, Value};

/// Bits `lsb .. lsb + width` of the instruction.
#[inline]
pub fn field(i: Insn, lsb: u32, width: u32) -> u32 {
    i.0 >> lsb & ((1 << width) - 1)
}
#[inline]
pub fn bit(i: Insn, n: u32) -> bool {
    i.0 >> n & 1 != 0
}
/// The Q bit: the operation covers 128 bits, or it is the `2` form of a widening or narrowing one.
#[inline]
pub fn q(i: Insn) -> bool {
    bit(i, 30)
}
/// Bits 23:22, in most integer instructions log2 of the lane's bytes.
#[inline]
pub fn size(i: Insn) -> u8 {
    field(i, 22, 2) as u8
}
/// Bit 28 tells the scalar from the vector half of the AdvSIMD encodings.
#[inline]
pub fn is_scalar(i: Insn) -> bool {
    bit(i, 28)
}

/// Which lanes an operation covers: lanes of `1 << log2` bytes in the low `bits` of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    pub log2: u8,
    pub bits: u32,
}

impl Form {
    pub const fn scalar(log2: u8) -> Form {
        Form { log2, bits: 8 << log2 }
    }
    pub const fn vector(log2: u8, q: bool) -> Form {
        Form { log2, bits: if q { 128 } else { 64 } }
    }
    /// The form that bits 30, 28 and 23:22 encode in the AdvSIMD groups.
    pub fn of(i: Insn) -> Form {
        Form::with_log2(i, size(i))
    }
    /// The same with the lane size taken from elsewhere. The rows exclude the reserved vector 1D.
    pub fn with_log2(i: Insn, log2: u8) -> Form {
        if is_scalar(i) { Form::scalar(log2) } else { Form::vector(log2, q(i)) }
    }
    /// Integer lanes.
    pub fn shape(self) -> Shape {
        Shape::int_of_log2(self.log2)
    }
    /// Float lanes of 4 or 8 bytes.
    pub fn float_shape(self) -> Shape {
        if self.log2 == 3 { Shape::F64x2 } else { Shape::F32x4 }
    }
    /// The scalar float type of a lane of 4 or 8 bytes.
    pub const fn float_type(self) -> Type {
        if self.log2 == 3 { Type::F64 } else { Type::F32 }
    }
    pub const fn lane_bits(self) -> u32 {
        8 << self.log2
    }
    pub const fn lanes(self) -> u32 {
        self.bits / self.lane_bits()
    }
    pub const fn is_scalar(self) -> bool {
        self.bits == self.lane_bits()
    }
    /// Lanes of twice the width over a whole register: what the widening instructions produce.
    pub const fn wide(self) -> Form {
        Form { log2: self.log2 + 1, bits: 128 }
    }
    /// `lane` in every lane of a full register.
    pub fn splat(self, lane: u64) -> u128 {
        splat(self.log2, lane)
    }
}

/// The low `8 << log2` bits of `lane` in every lane of that width.
pub fn splat(log2: u8, lane: u64) -> u128 {
    let width = 8u32 << log2;
    let lane = (lane & (u64::MAX >> (64 - width))) as u128;
    (0..128 / width).fold(0, |v, k| v | lane << (k * width))
}

/// A byte pattern for `vshuffle` from a function of lane number to source lane number; sources from the lane
/// count on belong to the second operand.
pub fn lanes(log2: u8, source: impl Fn(usize) -> usize) -> [u8; 16] {
    std::array::from_fn(|i| ((source(i >> log2) << log2) + (i & ((1 << log2) - 1))) as u8)
}

impl Lifter<'_> {
    /// Writes the part of `value` that `form` covers and clears the rest of the register.
    pub fn set_form(&mut self, n: u32, form: Form, value: Value) {
        let value = self.low_bits(form.bits, value);
        self.set_v(n, value);
    }
    /// The low `bits` of `v`, the rest zero.
    pub fn low_bits(&mut self, bits: u32, v: Value) -> Value {
        if bits == 128 {
            return v;
        }
        let mask = self.vconst((1 << bits) - 1);
        self.vand(v, mask)
    }
    pub fn zero_v(&mut self) -> Value {
        self.vconst(0)
    }
    /// The upper half moved down; the new upper half is zero.
    pub fn high_to_low(&mut self, v: Value) -> Value {
        let zero = self.zero_v();
        self.vshuffle(v, zero, std::array::from_fn(|i| i as u8 + 8))
    }
    /// For the narrowing instructions: `low` holds 64 bits with zeroes above. The plain form writes them, the
    /// `2` form puts them above the low half of register `n`.
    pub fn set_narrow(&mut self, n: u32, upper: bool, low: Value) {
        let value = if upper {
            let old = self.v(n);
            self.vshuffle(old, low, lanes(3, |k| if k == 0 { 0 } else { 2 }))
        } else {
            low
        };
        self.set_v(n, value);
    }
    /// Even lanes of `a` then of `b`, within the form (UZP1; with `odd`, UZP2).
    pub fn unzip(&mut self, form: Form, odd: bool, a: Value, b: Value) -> Value {
        let (n, all) = (form.lanes() as usize, 16usize >> form.log2);
        let pattern = lanes(form.log2, |k| {
            let from = 2 * (k % n) + odd as usize;
            if from < n { from } else { from - n + all }
        });
        self.vshuffle(a, b, pattern)
    }
    /// Lane `index` of `v` in every lane.
    pub fn dup_lane(&mut self, log2: u8, v: Value, index: u32) -> Value {
        self.vshuffle(v, v, lanes(log2, |_| index as usize))
    }

    /// Accumulates FPSR.QC: any set bit of `difference` within the form says that a lane saturated.
    pub fn saturated(&mut self, form: Form, difference: Value) {
        let difference = self.low_bits(form.bits, difference);
        let qc = self.get(regs::QC);
        let qc = self.vor(qc, difference);
        self.set(regs::QC, qc);
    }
    /// Accumulates FPSR.QC where the saturated result differs from the wrapped one, and returns the former.
    pub fn saturating(&mut self, form: Form, result: Value, wrapped: Value) -> Value {
        let difference = self.vxor(result, wrapped);
        self.saturated(form, difference);
        result
    }

    // Lane operations that several groups share.

    /// Shift right by `amount` (1 to the lane width), rounding to nearest with ties up if `round`.
    pub fn shift_right(
        &mut self,
        shape: Shape,
        signed: bool,
        round: bool,
        v: Value,
        amount: u32,
    ) -> Value {
        let shifted =
            if signed { self.vshr_s_i(shape, v, amount) } else { self.vshr_u_i(shape, v, amount) };
        if !round {
            return shifted;
        }
        // The bit shifted out last is the carry; adding the rounding constant first could overflow.
        let last = self.vshl_i(shape, v, shape.lane_bits() - amount);
        let last = self.vshr_u_i(shape, last, shape.lane_bits() - 1);
        self.vadd(shape, shifted, last)
    }
    /// `|a - b|` without overflow.
    pub fn abs_diff(&mut self, shape: Shape, signed: bool, a: Value, b: Value) -> Value {
        let (max, min) = if signed {
            (self.vmax_s(shape, a, b), self.vmin_s(shape, a, b))
        } else {
            (self.vmax_u(shape, a, b), self.vmin_u(shape, a, b))
        };
        self.vsub(shape, max, min)
    }
    /// The low half's lanes, or the high half's if `high`, at twice their width.
    pub fn widen(&mut self, shape: Shape, signed: bool, high: bool, v: Value) -> Value {
        match (high, signed) {
            (false, true) => self.vwiden_lo_s(shape, v),
            (false, false) => self.vwiden_lo_u(shape, v),
            (true, true) => self.vwiden_hi_s(shape, v),
            (true, false) => self.vwiden_hi_u(shape, v),
        }
    }
    /// Products of the low or high half's lanes at twice their width.
    pub fn mul_widen(
        &mut self,
        shape: Shape,
        signed: bool,
        high: bool,
        a: Value,
        b: Value,
    ) -> Value {
        match (high, signed) {
            (false, true) => self.vmul_widen_lo_s(shape, a, b),
            (false, false) => self.vmul_widen_lo_u(shape, a, b),
            (true, true) => self.vmul_widen_hi_s(shape, a, b),
            (true, false) => self.vmul_widen_hi_u(shape, a, b),
        }
    }
    /// All ones in negative lanes.
    pub fn negative(&mut self, shape: Shape, v: Value) -> Value {
        let zero = self.zero_v();
        self.vicmp(IntCc::LtS, shape, v, zero)
    }
    /// High halves of doubled signed products (SQDMULH, SQRDMULH), 16- or 32-bit lanes.
    pub fn doubling_high(&mut self, form: Form, round: bool, a: Value, b: Value) -> Value {
        let (shape, wide) = (form.shape(), form.wide().shape());
        let half = self.vconst(form.wide().splat(1 << (form.lane_bits() - 2)));
        let [low, high] = [false, true].map(|upper| {
            // The doubled product overflows only for MIN * MIN; shifting one bit less does not.
            let mut product = self.mul_widen(shape, true, upper, a, b);
            if round {
                product = self.vadd(wide, product, half);
            }
            self.vshr_s_i(wide, product, form.lane_bits() - 1)
        });
        let result = self.vnarrow_sat_s(wide, low, high);
        let wrapped = self.vnarrow(wide, low, high);
        self.saturating(form, result, wrapped)
    }
}
