//! Helpers of integer AdvSIMD: [`SimdOp`] says which operation, [`descriptor`] packs it with the form.

use crate::a64::helpers::{FIRST_SIMD, helpers};
use crate::a64::vector::Form;
use crate::a64::{Lifter, crypto, regs};
use tulk_base::Trap;
use tulk_ir::{Access, HelperCx, Value};

/// What a helper does. Those up to `Usmmla` are pure; the rest accumulate FPSR.QC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
#[repr(u8)]
pub enum SimdOp {
    Srshl,
    Urshl,
    Pmul,
    /// Widening, of the low half.
    Pmull,
    /// Widening, of the high half.
    Pmull2,
    Urecpe,
    Ursqrte,
    Smmla,
    Ummla,
    Usmmla,
    Sqshl,
    Uqshl,
    Sqrshl,
    Uqrshl,
    Suqadd,
    Usqadd,
    Sqrdmlah,
    Sqrdmlsh,
}

use SimdOp::*;

const OPS: [SimdOp; 18] = [
    Srshl, Urshl, Pmul, Pmull, Pmull2, Urecpe, Ursqrte, Smmla, Ummla, Usmmla, Sqshl, Uqshl, Sqrshl,
    Uqrshl, Suqadd, Usqadd, Sqrdmlah, Sqrdmlsh,
];

helpers! { FIRST_SIMD;
    /// Two operands, pure.
    SIMD_PURE2 = helper_simd_pure(V128, V128) -> V128, Access::None, Access::None, pure;
    /// Three operands, pure.
    SIMD_PURE3 = helper_simd_pure(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    /// Two operands, saturating.
    SIMD_SAT2 = helper_simd_sat(V128, V128) -> V128, Access::These(&[regs::QC]), Access::These(&[regs::QC]);
    /// Three operands, saturating.
    SIMD_SAT3 = helper_simd_sat(V128, V128, V128) -> V128, Access::These(&[regs::QC]), Access::These(&[regs::QC]);
}

/// The immediate: operation, log2 of the lane's bytes, bits covered.
fn descriptor(op: SimdOp, form: Form) -> i64 {
    op as i64 | (form.log2 as i64) << 8 | (form.bits as i64) << 16
}

fn unpack(imm: u128) -> (SimdOp, Form) {
    (OPS[imm as u8 as usize], Form { log2: (imm >> 8) as u8, bits: (imm >> 16) as u32 })
}

impl Lifter<'_> {
    /// Emits the helper call. The result's bits outside the form are zero.
    pub fn simd_helper(&mut self, op: SimdOp, form: Form, args: &[Value]) -> Value {
        let helper = match (op <= Usmmla, args.len()) {
            (true, 2) => SIMD_PURE2,
            (true, _) => SIMD_PURE3,
            (false, 2) => SIMD_SAT2,
            (false, _) => SIMD_SAT3,
        };
        self.call(helper, args, descriptor(op, form))
    }
}

/// Applies `f` to the lanes, zero-extended; the result is truncated to the lane.
pub fn map2(form: Form, a: u128, b: u128, mut f: impl FnMut(u64, u64) -> u64) -> u128 {
    let width = form.lane_bits();
    let mask = u64::MAX >> (64 - width);
    (0..form.lanes()).fold(0, |r, k| {
        let lane = |v: u128| (v >> (k * width)) as u64 & mask;
        r | ((f(lane(a), lane(b)) & mask) as u128) << (k * width)
    })
}

/// The lane as a number.
fn number(signed: bool, width: u32, lane: u64) -> i128 {
    if signed { ((lane << (64 - width)) as i64 >> (64 - width)) as i128 } else { lane as i128 }
}

/// The nearest number that a lane can hold, noting when that is another one.
fn saturate(signed: bool, width: u32, value: i128, qc: &mut bool) -> u64 {
    let (min, max) = if signed {
        (-1i128 << (width - 1), (1i128 << (width - 1)) - 1)
    } else {
        (0, (1i128 << width) - 1)
    };
    let r = value.clamp(min, max);
    *qc |= r != value;
    r as u64
}

/// The shifts by a signed register lane: `lane` shifted by the low byte of `by`. Left shifts give at most
/// a number that surely saturates.
fn shift(signed: bool, round: bool, width: u32, lane: u64, by: u64) -> i128 {
    let value = number(signed, width, lane);
    match by as i8 as i32 {
        // Anything but zero is out of range there, in the direction of its sign.
        n @ 0.. if n as u32 >= width => value.signum() << 126,
        n @ 0.. => value << n,
        n => {
            // From 65 places on every number gives the same as at 65.
            let n = n.unsigned_abs().min(65);
            let half = if round { 1i128 << (n - 1) } else { 0 };
            (value + half) >> n
        }
    }
}

/// acc (2x2 words) plus the product of a 2x8 and the transpose of a 2x8 matrix of bytes.
fn matrix_product(acc: u128, a: u128, b: u128, signed: (bool, bool)) -> u128 {
    let byte =
        |v: u128, signed: bool, n: u32| number(signed, 8, (v >> (8 * n)) as u8 as u64) as i32;
    map2(Form::vector(2, true), acc, 0x3_0000_0002_0000_0001_0000_0000, |acc, n| {
        let (row, column) = (n as u32 >> 1, n as u32 & 1);
        let sum = (0..8).fold(acc as i32, |sum, k| {
            sum.wrapping_add(byte(a, signed.0, 8 * row + k) * byte(b, signed.1, 8 * column + k))
        });
        sum as u32 as u64
    })
}

/// Carry-less product of two bytes.
fn polynomial(a: u64, b: u64) -> u64 {
    crypto::helpers::clmul(a, b) as u64
}

fn helper_simd_pure(_: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let (op, form) = unpack(a[3]);
    let width = form.lane_bits();
    Ok(match op {
        Srshl | Urshl => {
            let shift = |x, y| {
                let left = y as i8 as i64;
                if left >= width as i64 { 0 } else { shift(op == Srshl, true, width, x, y) as u64 }
            };
            map2(form, a[0], a[1], shift)
        }
        Pmul => map2(form, a[0], a[1], polynomial),
        Pmull | Pmull2 => {
            let half = |v: u128| if op == Pmull { v as u64 } else { (v >> 64) as u64 };
            let spread =
                |v: u64| (0..8).fold(0u128, |r, k| r | (v as u128 >> (8 * k) & 0xff) << (16 * k));
            map2(Form::vector(1, true), spread(half(a[0])), spread(half(a[1])), polynomial)
        }
        Urecpe => map2(form, a[0], 0, |x, _| tulk_softfloat::recip_estimate_u32(x as u32) as u64),
        Ursqrte => {
            map2(form, a[0], 0, |x, _| tulk_softfloat::recip_sqrt_estimate_u32(x as u32) as u64)
        }
        Smmla => matrix_product(a[0], a[1], a[2], (true, true)),
        Ummla => matrix_product(a[0], a[1], a[2], (false, false)),
        Usmmla => matrix_product(a[0], a[1], a[2], (false, true)),
        Sqshl | Uqshl | Sqrshl | Uqrshl | Suqadd | Usqadd | Sqrdmlah | Sqrdmlsh => {
            unreachable!("{op:?} accumulates QC")
        }
    })
}

fn helper_simd_sat(cx: &mut HelperCx<'_>, a: &[u128; 4]) -> Result<u128, Trap> {
    let (op, form) = unpack(a[3]);
    let width = form.lane_bits();
    let mut qc = false;
    let q = &mut qc;
    let result = match op {
        Sqshl => {
            map2(form, a[0], a[1], |x, y| saturate(true, width, shift(true, false, width, x, y), q))
        }
        Uqshl => map2(form, a[0], a[1], |x, y| {
            saturate(false, width, shift(false, false, width, x, y), q)
        }),
        Sqrshl => {
            map2(form, a[0], a[1], |x, y| saturate(true, width, shift(true, true, width, x, y), q))
        }
        Uqrshl => map2(form, a[0], a[1], |x, y| {
            saturate(false, width, shift(false, true, width, x, y), q)
        }),
        Suqadd | Usqadd => {
            let signed = op == Suqadd;
            map2(form, a[0], a[1], |x, y| {
                let sum = number(signed, width, x) + number(!signed, width, y);
                saturate(signed, width, sum, q)
            })
        }
        Sqrdmlah | Sqrdmlsh => {
            // Accumulator, then the factors; lanes of at most 32 bits, so both factors fit one word.
            let pairs = |f: &mut dyn FnMut(u64, i128) -> u64| {
                let mask = u64::MAX >> (64 - width);
                (0..form.lanes()).fold(0u128, |r, k| {
                    let lane = |v: u128| (v >> (k * width)) as u64 & mask;
                    let product = number(true, width, lane(a[1])) * number(true, width, lane(a[2]));
                    r | ((f(lane(a[0]), 2 * product) & mask) as u128) << (k * width)
                })
            };
            pairs(&mut |acc, doubled| {
                let acc = number(true, width, acc) << width;
                let sum = if op == Sqrdmlah { acc + doubled } else { acc - doubled };
                saturate(true, width, (sum + (1 << (width - 1))) >> width, q)
            })
        }
        _ => unreachable!("{op:?} is pure"),
    };
    if qc {
        cx.state.set(regs::cell(regs::QC), 1);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_by_number() {
        for (n, op) in OPS.into_iter().enumerate() {
            assert_eq!(op as usize, n);
            assert_eq!(unpack(descriptor(op, Form::scalar(3)) as u128), (op, Form::scalar(3)));
        }
    }

    #[test]
    fn shifts_by_register() {
        assert_eq!(shift(true, true, 8, 0x80, 0xf8), 0);
        assert_eq!(shift(true, false, 8, 0x80, 0xf8), -1);
        assert_eq!(shift(false, true, 64, u64::MAX, 0xff), 1 << 63);
        assert_eq!(shift(false, true, 64, u64::MAX, 0x80), 0);
        let mut qc = false;
        assert_eq!(saturate(false, 64, shift(false, false, 64, 1, 64), &mut qc), u64::MAX);
        assert!(qc);
    }
}
