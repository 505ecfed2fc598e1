//! Float operations on lanes: inline where IR has the operation, else by helper.
//!
//! Operands are whole registers. Results are zero outside the form. What lies outside it in the operands must not
//! raise exceptions, so 64-bit vector forms clear it first.

use super::helpers::{
    FP_COMPARE, FP_CONVERT, FP_FROM_INT, FP_ONE, FP_THREE, FP_TO_INT, FP_TWO, FP_WIDEN_HALF,
    compare_descriptor, convert_descriptor, descriptor, integer_descriptor,
};
use crate::a64::Lifter;
use crate::a64::vector::Form;
use tulk_ir::{FloatCc, MinKind, Round, Type, Value};

/// Operations on one operand. Some take a rounding mode, the fixed-point ones a number of fraction bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fp1 {
    Sqrt,
    /// To an integral value.
    Round,
    /// The same, raising inexact.
    RoundExact,
    /// To an integral value that fits 32 bits.
    Round32,
    Round64,
    /// To an integer or fixed-point number of the lane's width.
    ToS,
    ToU,
    FromS,
    FromU,
    /// Reciprocal estimate.
    Recpe,
    /// Reciprocal square root estimate.
    Rsqrte,
    /// Reciprocal exponent.
    Recpx,
}

impl Fp1 {
    pub const ALL: [Fp1; 12] = [
        Fp1::Sqrt,
        Fp1::Round,
        Fp1::RoundExact,
        Fp1::Round32,
        Fp1::Round64,
        Fp1::ToS,
        Fp1::ToU,
        Fp1::FromS,
        Fp1::FromU,
        Fp1::Recpe,
        Fp1::Rsqrte,
        Fp1::Recpx,
    ];
}

/// An operation on one operand with its parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unary {
    pub op: Fp1,
    pub round: Round,
    pub fraction: u8,
}

impl Unary {
    pub const fn new(op: Fp1) -> Unary {
        Unary { op, round: Round::Current, fraction: 0 }
    }
    pub const fn rounding(op: Fp1, round: Round) -> Unary {
        Unary { op, round, fraction: 0 }
    }
    pub const fn fixed(op: Fp1, round: Round, fraction: u8) -> Unary {
        Unary { op, round, fraction }
    }
    /// IR operations do it, given single or double precision and the usual mode.
    fn inline(self) -> bool {
        match self.op {
            Fp1::Sqrt | Fp1::Round | Fp1::RoundExact | Fp1::FromS | Fp1::FromU => true,
            Fp1::ToS | Fp1::ToU => self.fraction == 0,
            Fp1::Round32 | Fp1::Round64 | Fp1::Recpe | Fp1::Rsqrte | Fp1::Recpx => false,
        }
    }
}

/// Operations on two operands. The comparisons give lanes of all ones or zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
#[repr(u8)]
pub enum Fp2 {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    MaxNum,
    MinNum,
    /// Product negated.
    Nmul,
    /// Magnitude of the difference.
    Abd,
    CmEq,
    CmGe,
    CmGt,
    /// Comparisons of magnitudes.
    AcGe,
    AcGt,
    /// Product where infinity times zero is 2.
    Mulx,
    /// `2 - a * b`.
    Recps,
    /// `(3 - a * b) / 2`.
    Rsqrts,
}

impl Fp2 {
    pub const ALL: [Fp2; 18] = [
        Fp2::Add,
        Fp2::Sub,
        Fp2::Mul,
        Fp2::Div,
        Fp2::Max,
        Fp2::Min,
        Fp2::MaxNum,
        Fp2::MinNum,
        Fp2::Nmul,
        Fp2::Abd,
        Fp2::CmEq,
        Fp2::CmGe,
        Fp2::CmGt,
        Fp2::AcGe,
        Fp2::AcGt,
        Fp2::Mulx,
        Fp2::Recps,
        Fp2::Rsqrts,
    ];
    fn inline(self) -> bool {
        self <= Fp2::AcGt
    }
    fn is_comparison(self) -> bool {
        self >= Fp2::CmEq && self <= Fp2::AcGt
    }
}

/// Operations on three operands; the last is the addend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fp3 {
    /// `a * b + c`.
    Fma,
    /// bfloat16 pairs to single precision (Arm ARM, BFDotAdd).
    Bfdot,
    /// bfloat16 2x4 matrices to a single-precision 2x2 matrix.
    Bfmmla,
}

impl Fp3 {
    pub const ALL: [Fp3; 3] = [Fp3::Fma, Fp3::Bfdot, Fp3::Bfmmla];
}

/// A float format of a conversion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Precision {
    Half = 1,
    Single = 2,
    Double = 3,
    Bfloat = 4,
}

impl Precision {
    pub const fn log2(self) -> u8 {
        if matches!(self, Precision::Bfloat) { 1 } else { self as u8 }
    }
}

impl Lifter<'_> {
    /// Float operations on lanes of this form are helper calls.
    fn soft(&self, form: Form) -> bool {
        form.log2 < 2 || self.fp_special
    }
    /// One operand of an inline vector operation.
    fn covered(&mut self, form: Form, v: Value) -> Value {
        self.low_bits(form.bits, v)
    }

    /// One operand.
    pub fn fp1(&mut self, unary: Unary, form: Form, a: Value) -> Value {
        // Integers do not become NaNs or denormals: no mode touches these conversions but half precision's.
        let mode = !matches!(unary.op, Fp1::FromS | Fp1::FromU) && self.fp_special;
        if form.log2 < 2 || mode || !unary.inline() {
            return self.call(FP_ONE, &[a], descriptor(unary.op as u8, form) | unary_bits(unary));
        }
        if form.is_scalar() {
            let x = match unary.op {
                Fp1::FromS | Fp1::FromU => self.vlane(form.shape(), a, 0),
                _ => self.vlane(form.float_shape(), a, 0),
            };
            let r = self.scalar1(unary, form, x);
            let shape = crate::a64::lifter::lane_shape(self.ty(r));
            return self.vscalar(shape, r);
        }
        let shape = form.float_shape();
        let a = self.covered(form, a);
        match unary.op {
            Fp1::Sqrt => self.vfsqrt(shape, a),
            Fp1::Round => self.vfround(unary.round, false, shape, a),
            Fp1::RoundExact => self.vfround(unary.round, true, shape, a),
            Fp1::ToS => self.vfto_s(shape, unary.round, false, a),
            Fp1::ToU => self.vfto_u(shape, unary.round, a),
            Fp1::FromS | Fp1::FromU => {
                let r = if unary.op == Fp1::FromS {
                    self.vsto_f(shape, a)
                } else {
                    self.vuto_f(shape, a)
                };
                if unary.fraction == 0 {
                    return r;
                }
                let scale = self.vconst(form.splat(power_of_two(form, unary.fraction)));
                self.vfmul(shape, r, scale)
            }
            _ => unreachable!("{:?} is a helper", unary.op),
        }
    }

    /// One scalar operand: a float, or an integer to be converted.
    fn scalar1(&mut self, unary: Unary, form: Form, x: Value) -> Value {
        let int = Type::int_of_log2(form.log2);
        let ty = form.float_type();
        match unary.op {
            Fp1::Sqrt => self.fsqrt(x),
            Fp1::Round => self.fround(unary.round, false, x),
            Fp1::RoundExact => self.fround(unary.round, true, x),
            Fp1::ToS => self.fto_s(int, unary.round, false, x),
            Fp1::ToU => self.fto_u(int, unary.round, x),
            Fp1::FromS | Fp1::FromU => {
                let r = if unary.op == Fp1::FromS { self.sto_f(ty, x) } else { self.uto_f(ty, x) };
                self.scaled(form, r, unary.fraction)
            }
            _ => unreachable!("{:?} is a helper", unary.op),
        }
    }

    /// `x / 2^fraction`: exact, a converted integer never gets that small.
    fn scaled(&mut self, form: Form, x: Value, fraction: u8) -> Value {
        if fraction == 0 {
            return x;
        }
        let bits = power_of_two(form, fraction);
        let scale = self.iconst(Type::int_of_log2(form.log2), bits as i64);
        let scale = self.bitcast(form.float_type(), scale);
        self.fmul(x, scale)
    }

    /// Vd = op(Vn).
    pub fn fp1_regs(&mut self, unary: Unary, form: Form, d: u32, n: u32) {
        let float_source = !matches!(unary.op, Fp1::FromS | Fp1::FromU);
        if form.is_scalar() && !self.soft(form) && unary.inline() && float_source {
            let x = self.scalar(form.float_type(), n);
            let r = self.scalar1(unary, form, x);
            return self.set_scalar(d, r);
        }
        let a = self.v(n);
        let r = self.fp1(unary, form, a);
        self.set_v(d, r);
    }

    /// Two operands.
    pub fn fp2(&mut self, op: Fp2, form: Form, a: Value, b: Value) -> Value {
        if self.soft(form) || !op.inline() {
            return self.call(FP_TWO, &[a, b], descriptor(op as u8, form));
        }
        let shape = form.float_shape();
        if form.is_scalar() && !op.is_comparison() {
            let (x, y) = (self.vlane(shape, a, 0), self.vlane(shape, b, 0));
            let r = self.scalar2(op, x, y);
            return self.vscalar(shape, r);
        }
        let a = self.covered(form, a);
        let mut b = self.covered(form, b);
        if op == Fp2::Div && form.bits < 128 {
            // Zero by zero would be invalid.
            let ones = self.vconst(form.splat(power_of_two(form, 0)) >> 64 << 64);
            b = self.vor(b, ones);
        }
        let result = match op {
            Fp2::Add => self.vfadd(shape, a, b),
            Fp2::Sub => self.vfsub(shape, a, b),
            Fp2::Mul => self.vfmul(shape, a, b),
            Fp2::Div => self.vfdiv(shape, a, b),
            Fp2::Max => self.vfmax(MinKind::Ieee, shape, a, b),
            Fp2::Min => self.vfmin(MinKind::Ieee, shape, a, b),
            Fp2::MaxNum => self.vfmax(MinKind::Num, shape, a, b),
            Fp2::MinNum => self.vfmin(MinKind::Num, shape, a, b),
            Fp2::Nmul => {
                let r = self.vfmul(shape, a, b);
                self.vfneg(shape, r)
            }
            Fp2::Abd => {
                let r = self.vfsub(shape, a, b);
                self.vfabs(shape, r)
            }
            Fp2::CmEq => self.vfcmp(FloatCc::Eq, false, shape, a, b),
            Fp2::CmGe => self.vfcmp(FloatCc::Ge, true, shape, a, b),
            Fp2::CmGt => self.vfcmp(FloatCc::Gt, true, shape, a, b),
            Fp2::AcGe | Fp2::AcGt => {
                let (a, b) = (self.vfabs(shape, a), self.vfabs(shape, b));
                let cc = if op == Fp2::AcGe { FloatCc::Ge } else { FloatCc::Gt };
                self.vfcmp(cc, true, shape, a, b)
            }
            Fp2::Mulx | Fp2::Recps | Fp2::Rsqrts => unreachable!("{op:?} is a helper"),
        };
        match op {
            // Zero operands give +0 in every rounding mode.
            Fp2::Add
            | Fp2::Mul
            | Fp2::Max
            | Fp2::Min
            | Fp2::MaxNum
            | Fp2::MinNum
            | Fp2::Div
            | Fp2::Abd => result,
            _ => self.low_bits(form.bits, result),
        }
    }

    fn scalar2(&mut self, op: Fp2, x: Value, y: Value) -> Value {
        match op {
            Fp2::Add => self.fadd(x, y),
            Fp2::Sub => self.fsub(x, y),
            Fp2::Mul => self.fmul(x, y),
            Fp2::Div => self.fdiv(x, y),
            Fp2::Max => self.fmax(MinKind::Ieee, x, y),
            Fp2::Min => self.fmin(MinKind::Ieee, x, y),
            Fp2::MaxNum => self.fmax(MinKind::Num, x, y),
            Fp2::MinNum => self.fmin(MinKind::Num, x, y),
            Fp2::Nmul => {
                let r = self.fmul(x, y);
                self.fneg(r)
            }
            Fp2::Abd => {
                let r = self.fsub(x, y);
                self.fabs(r)
            }
            _ => unreachable!("{op:?} is a vector operation or a helper"),
        }
    }

    /// Vd = op(Vn, Vm).
    pub fn fp2_regs(&mut self, op: Fp2, form: Form, d: u32, n: u32, m: u32) {
        if form.is_scalar() && !self.soft(form) && op.inline() && !op.is_comparison() {
            let ty = form.float_type();
            let (x, y) = (self.scalar(ty, n), self.scalar(ty, m));
            let r = self.scalar2(op, x, y);
            return self.set_scalar(d, r);
        }
        let (a, b) = (self.v(n), self.v(m));
        let r = self.fp2(op, form, a, b);
        self.set_v(d, r);
    }

    /// Three operands.
    pub fn fp3(&mut self, op: Fp3, form: Form, a: Value, b: Value, c: Value) -> Value {
        if self.soft(form) || op != Fp3::Fma {
            return self.call(FP_THREE, &[a, b, c], descriptor(op as u8, form));
        }
        let shape = form.float_shape();
        if form.is_scalar() {
            let [a, b, c] = [a, b, c].map(|v| self.vlane(shape, v, 0));
            let r = self.fma(a, b, c);
            return self.vscalar(shape, r);
        }
        let [a, b, c] = [a, b, c].map(|v| self.covered(form, v));
        self.vfma(shape, a, b, c)
    }

    /// Vd = +-Va +- Vn * Vm, scalar (FMADD and its negated forms).
    pub fn fma_regs(&mut self, form: Form, negate: (bool, bool), d: u32, n: u32, m: u32, a: u32) {
        let (negate_addend, negate_product) = negate;
        if self.soft(form) {
            let (mut x, y, mut z) = (self.v(n), self.v(m), self.v(a));
            if negate_product {
                x = self.negate(form, x);
            }
            if negate_addend {
                z = self.negate(form, z);
            }
            let r = self.fp3(Fp3::Fma, form, x, y, z);
            return self.set_v(d, r);
        }
        let ty = form.float_type();
        let (mut x, y, mut z) = (self.scalar(ty, n), self.scalar(ty, m), self.scalar(ty, a));
        if negate_product {
            x = self.fneg(x);
        }
        if negate_addend {
            z = self.fneg(z);
        }
        let r = self.fma(x, y, z);
        self.set_scalar(d, r);
    }

    /// The sign bits of all lanes flipped (in the whole register).
    pub fn negate(&mut self, form: Form, v: Value) -> Value {
        if form.log2 >= 2 {
            return self.vfneg(form.float_shape(), v);
        }
        let signs = self.vconst(form.splat(1 << (form.lane_bits() - 1)));
        self.vxor(v, signs)
    }

    /// The sign bits of all lanes cleared (in the whole register).
    pub fn magnitude(&mut self, form: Form, v: Value) -> Value {
        if form.log2 >= 2 {
            return self.vfabs(form.float_shape(), v);
        }
        let signs = self.vconst(form.splat(1 << (form.lane_bits() - 1)));
        self.vand_not(v, signs)
    }

    /// Sets NZCV from the comparison of lane 0 of two registers, or of the first with zero.
    pub fn fp_compare(&mut self, form: Form, signalling: bool, n: u32, m: Option<u32>) {
        if self.soft(form) {
            let packed = self.fp_compare_packed(form, signalling, n, m);
            return self.set_nzcv(packed);
        }
        let (x, y) = self.compared(form, n, m);
        self.set_nzcv_float(signalling, x, y);
    }

    fn compared(&mut self, form: Form, n: u32, m: Option<u32>) -> (Value, Value) {
        let ty = form.float_type();
        let x = self.scalar(ty, n);
        let y = match m {
            Some(m) => self.scalar(ty, m),
            None => {
                let zero = self.iconst(Type::int_of_log2(form.log2), 0);
                self.bitcast(ty, zero)
            }
        };
        (x, y)
    }

    /// The comparison's packed word.
    pub fn fp_compare_packed(
        &mut self,
        form: Form,
        signalling: bool,
        n: u32,
        m: Option<u32>,
    ) -> Value {
        if !self.soft(form) {
            let (x, y) = self.compared(form, n, m);
            return self.fcmp_nzcv(signalling, x, y);
        }
        let a = self.v(n);
        let b = match m {
            Some(m) => self.v(m),
            None => self.zero_v(),
        };
        self.call(FP_COMPARE, &[a, b], compare_descriptor(form, signalling))
    }

    /// Lane 0 of Vn to an integer (or fixed-point number) in a general register.
    pub fn fp_to_general(&mut self, unary: Unary, form: Form, int: Type, d: u32, n: u32) {
        let signed = unary.op == Fp1::ToS;
        let r = if self.soft(form) || !unary.inline() {
            let a = self.v(n);
            let r = self.call(FP_TO_INT, &[a], integer_descriptor(unary, form, int, signed));
            self.trunc(int, r)
        } else {
            let x = self.scalar(form.float_type(), n);
            if signed {
                self.fto_s(int, unary.round, false, x)
            } else {
                self.fto_u(int, unary.round, x)
            }
        };
        self.set_r(d, r);
    }

    /// An integer (or fixed-point number) `x` to lane 0 of Vd.
    pub fn fp_from_general(&mut self, unary: Unary, form: Form, d: u32, x: Value) {
        let signed = unary.op == Fp1::FromS;
        if form.log2 < 2 {
            let int = self.ty(x);
            let x = self.zext(Type::I64, x);
            let r = self.call(FP_FROM_INT, &[x], integer_descriptor(unary, form, int, signed));
            return self.set_v(d, r);
        }
        let ty = form.float_type();
        let r = if signed { self.sto_f(ty, x) } else { self.uto_f(ty, x) };
        let r = self.scaled(form, r, unary.fraction);
        self.set_scalar(d, r);
    }

    /// The four low half-precision lanes as single-precision numbers, signalling NaNs kept (Arm ARM, FPMulAddH
    /// unpacks its factors so).
    pub fn widen_half(&mut self, v: Value) -> Value {
        self.call(FP_WIDEN_HALF, &[v], 0)
    }

    /// `lanes` low lanes of `from` precision to as many of `to`; the rest of the result is zero.
    pub fn fp_convert(
        &mut self,
        from: Precision,
        to: Precision,
        lanes: u32,
        to_odd: bool,
        a: Value,
    ) -> Value {
        if !self.fp_special && !to_odd {
            match (from, to, lanes) {
                (Precision::Single, Precision::Double, 2) => return self.vfpromote_lo(a),
                (Precision::Double, Precision::Single, 2) => return self.vfdemote_lo(a),
                _ => {}
            }
        }
        self.call(FP_CONVERT, &[a], convert_descriptor(from, to, lanes, to_odd))
    }
}

/// The bits of 2^-n in a lane of the form.
fn power_of_two(form: Form, n: u8) -> u64 {
    if form.log2 == 3 { (1023 - n as u64) << 52 } else { (127 - n as u64) << 23 }
}

fn unary_bits(unary: Unary) -> i64 {
    (unary.round as i64) << 24 | (unary.fraction as i64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_by_number() {
        assert!(Fp1::ALL.into_iter().enumerate().all(|(n, op)| op as usize == n));
        assert!(Fp2::ALL.into_iter().enumerate().all(|(n, op)| op as usize == n));
        assert!(Fp3::ALL.into_iter().enumerate().all(|(n, op)| op as usize == n));
        assert_eq!(power_of_two(Form::scalar(2), 3) as u32, 0.125f32.to_bits());
    }
}
