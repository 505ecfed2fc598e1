//! Numbers with 128-bit significands for the transcendental functions, and their power series.

use crate::add::add_finite;
use crate::div::div_finite;
use crate::env::Rounding;
use crate::mul::mul_finite;
use crate::unpack::Unpacked;
use crate::word::Word;

/// A finite number or a zero.
pub(super) type Wide = Unpacked<u128>;

const fn constant(exp: i32, sig: u128) -> Wide {
    Wide { class: crate::unpack::Class::Finite, sign: false, denormal: false, exp, sig }
}

pub(super) const PI: Wide = constant(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
pub(super) const LN2: Wide = constant(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
pub(super) const LOG2_E: Wide = constant(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89);
pub(super) const LOG2_10: Wide = constant(1, 0xd49a_784b_cd1b_8afe_492b_f6ff_4daf_db4d);
pub(super) const LOG10_2: Wide = constant(-2, 0x9a20_9a84_fbcf_f798_8f89_59ac_0b7c_9178);
pub(super) const ONE: Wide = constant(0, 1 << 127);

/// atan(k/8) for k = 1 to 8.
pub(super) const ATAN_EIGHTHS: [Wide; 8] = [
    constant(-4, 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef8),
    constant(-3, 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e6),
    constant(-2, 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483),
    constant(-2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03),
    constant(-1, 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3748),
    constant(-1, 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9f),
    constant(-1, 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d),
    constant(-1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1),
];

/// Coefficients in units of 2^-128, from the term after the leading one.
pub(super) const SIN: [u128; 15] = factorials(3, 2);
pub(super) const COS: [u128; 15] = factorials(2, 2);
pub(super) const EXP: [u128; 29] = factorials(2, 1);
/// 1/3, 1/5, ...: atan in steps of an eighth needs 14 terms, atanh of a logarithm 22.
pub(super) const ODD: [u128; 24] = {
    let mut terms = [0; 24];
    let mut i = 0;
    while i < 24 {
        terms[i] = u128::MAX / (2 * i as u128 + 3);
        i += 1;
    }
    terms
};

/// 1/first!, 1/(first + step)!, ...
const fn factorials<const N: usize>(first: u128, step: u128) -> [u128; N] {
    let mut terms = [0; N];
    let (mut factorial, mut n) = (1, 1);
    let mut i = 0;
    while i < N {
        while n < first + step * i as u128 {
            n += 1;
            factorial *= n;
        }
        terms[i] = u128::MAX / factorial;
        i += 1;
    }
    terms
}

/// `t * (terms[0] + t * (terms[1] + ...))`, alternating minus and plus if asked, for a fraction `t` in units of 2^-128.
/// Never zero, so that what is built from it is inexact.
pub(super) fn tail(terms: &[u128], t: u128, alternate: bool) -> Wide {
    let mut sum = 0;
    for &term in terms.iter().rev() {
        let product = high(t, sum);
        sum = if alternate { term - product } else { term + product };
    }
    Wide::normalised(false, -1, high(t, sum) | 1)
}

/// Upper half of a product: the product of fractions.
pub(super) fn high(a: u128, b: u128) -> u128 {
    a.mul_wide(b).0
}

impl Wide {
    pub fn integer(n: i64) -> Wide {
        Wide::normalised(n < 0, 127, n.unsigned_abs().into())
    }

    /// The magnitude of a number below one in units of 2^-128.
    pub fn fraction(self) -> u128 {
        debug_assert!(self.is_zero() || self.exp < 0);
        self.sig.shr_jam((-1 - self.exp) as u32)
    }

    pub fn magnitude(self) -> Wide {
        Wide { sign: false, ..self }
    }

    pub fn with_sign(self, sign: bool) -> Wide {
        Wide { sign, ..self }
    }

    pub fn halved(self) -> Wide {
        Wide { exp: self.exp - 1, ..self }
    }

    /// Marks a rounded value as inexact.
    pub fn inexact(self) -> Wide {
        Wide { sig: self.sig | 1, ..self }
    }

    pub fn plus(self, other: Wide) -> Wide {
        match (self.is_zero(), other.is_zero()) {
            (_, true) => self,
            (true, _) => other,
            _ => add_finite(Rounding::NearestEven, self, other),
        }
    }

    pub fn minus(self, other: Wide) -> Wide {
        self.plus(other.negated())
    }

    pub fn times(self, other: Wide) -> Wide {
        if self.is_zero() || other.is_zero() {
            return Wide::zero(self.sign ^ other.sign);
        }
        mul_finite(self, other)
    }

    pub fn over(self, other: Wide) -> Wide {
        if self.is_zero() { Wide::zero(self.sign ^ other.sign) } else { div_finite(self, other) }
    }
}
