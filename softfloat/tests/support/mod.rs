//! Random operands for the comparison tests: mostly corner cases, pairs that are close to each other, seeded so that a
//! failure repeats.
#![allow(dead_code)]

/// xorshift64* generator.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    pub fn next128(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
    /// `bits` bits: uniform, or runs of ones and zeros with a few bits flipped.
    pub fn pattern(&mut self, bits: u32) -> u128 {
        let mask = (1u128 << bits) - 1;
        let run = |rng: &mut Rng| (1u128 << rng.below(u64::from(bits) + 1)) - 1;
        (match self.below(8) {
            0 => 0,
            1 => mask,
            2 => 1 << self.below(u64::from(bits)),
            3 => run(self) ^ run(self),
            4 => !run(self) ^ (1 << self.below(u64::from(bits))),
            5 => self.next128() & !run(self),
            _ => self.next128(),
        }) & mask
    }
}

/// Layout of an interchange format for the generator: exponent bits, stored significand bits.
#[derive(Clone, Copy)]
pub struct Shape {
    pub exp: u32,
    pub frac: u32,
}

pub const F16: Shape = Shape { exp: 5, frac: 10 };
pub const F32: Shape = Shape { exp: 8, frac: 23 };
pub const F64: Shape = Shape { exp: 11, frac: 52 };
pub const F128: Shape = Shape { exp: 15, frac: 112 };
/// The integer bit comes from [`Shape::extended`].
pub const F80: Shape = Shape { exp: 15, frac: 63 };

impl Shape {
    /// One operand.
    pub fn one(self, rng: &mut Rng) -> u128 {
        let top = (1u64 << self.exp) - 1;
        let bias = top >> 1;
        let near = |rng: &mut Rng, around: u64, spread: u64| {
            (around + rng.below(2 * spread + 1)).saturating_sub(spread).min(top)
        };
        let p = u64::from(self.frac);
        let exp = match rng.below(12) {
            0 => 0,
            1 => near(rng, 0, p + 4),
            2 => near(rng, top, p + 4),
            3 => top,
            4..8 => near(rng, bias, p + 4),
            8 => near(rng, bias / 2, 5),
            9 => near(rng, bias + bias / 2, 5),
            _ => rng.below(top + 1),
        };
        let sign = u128::from(rng.next() >> 63);
        sign << (self.exp + self.frac) | u128::from(exp) << self.frac | rng.pattern(self.frac)
    }

    /// A second operand that is often close to `a` in exponent or value.
    pub fn near(self, rng: &mut Rng, a: u128) -> u128 {
        let b = self.one(rng);
        let frac_mask = (1u128 << self.frac) - 1;
        let sign_bit = 1u128 << (self.exp + self.frac);
        match rng.below(6) {
            0 => {
                let top = (1i64 << self.exp) - 1;
                let exp = ((a & !sign_bit) >> self.frac) as i64 + rng.below(9) as i64 - 4;
                b & (frac_mask | sign_bit) | (exp.clamp(0, top) as u128) << self.frac
            }
            1 => {
                let step = rng.below(5) as u128;
                let moved =
                    if rng.below(2) == 0 { a.wrapping_add(step) } else { a.wrapping_sub(step) };
                (moved & (sign_bit | (sign_bit - 1))) ^ if rng.below(2) == 0 { sign_bit } else { 0 }
            }
            _ => b,
        }
    }

    /// An x87 register: mostly well-formed, sometimes an encoding that only software makes.
    pub fn extended(self, rng: &mut Rng, bits: u128) -> u128 {
        let (frac, rest) = (bits & ((1 << 63) - 1), bits >> 63);
        let exp = rest & 0x7fff;
        let integer = if rng.below(40) == 0 { rng.below(2) as u128 } else { u128::from(exp != 0) };
        rest << 64 | integer << 63 | frac
    }
}
