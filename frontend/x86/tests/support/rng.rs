//! Random numbers that are often corner cases.

/// xorshift64*
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
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low) as u64) as i64
    }
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
    /// 64 bits that are often a corner case.
    pub fn word(&mut self) -> u64 {
        match self.below(12) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => self.below(9),
            4 => (self.below(9) as i64 - 4) as u64,
            5 => self.double(),
            6 => self.single() | self.single() << 32,
            7 => u64::MAX >> self.below(64),
            8 => (self.next() as u32 as i32) as i64 as u64,
            9 => (1u64 << self.below(64)).wrapping_sub(1),
            _ => self.next(),
        }
    }
    /// Bits of an F64, often special.
    pub fn double(&mut self) -> u64 {
        const SPECIAL: [u64; 14] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xbff8_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0xfff8_0000_0000_1234,
            0x7ff0_0000_0000_0001,
            0x000f_ffff_ffff_ffff,
            0x8000_0000_0000_0001,
            0x0010_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x41df_ffff_ffe0_0000,
        ];
        match self.below(3) {
            0 => *self.pick(&SPECIAL),
            // A moderate exponent.
            1 => self.next() & 0x800f_ffff_ffff_ffff | (0x3e0 + self.below(64)) << 52,
            _ => self.next(),
        }
    }
    /// Bits of an F32, often special.
    pub fn single(&mut self) -> u64 {
        const SPECIAL: [u32; 12] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbfc0_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0xffc0_1234,
            0x7f80_0001,
            0x007f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
        ];
        let v = match self.below(3) {
            0 => *self.pick(&SPECIAL),
            1 => self.next() as u32 & 0x807f_ffff | (0x70 + self.below(32) as u32) << 23,
            _ => self.next() as u32,
        };
        v as u64
    }
}
