//! Integer semantics, written once for every width: the interpreter's fast paths, [`super::eval`] and vector lanes
//! all call these. A method has the name of the operation that it defines.

use crate::types::{IntCc, NzcvCond, nzcv};

/// An integer of any width, as its bits.
pub trait Int: Copy + Ord {
    const BITS: u32;
    /// The low bits.
    fn of(x: u128) -> Self;
    /// Zero-extended.
    fn to(self) -> u128;
    /// The low bits.
    fn of64(x: u64) -> Self;
    /// Zero-extended (the low half of a 128-bit number).
    fn to64(self) -> u64;
    /// Sign-extended (the low half of a 128-bit number).
    fn sext64(self) -> u64;
    fn sext128(self) -> u128;

    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div_u(self, b: Self) -> Self;
    fn div_s(self, b: Self) -> Self;
    fn rem_u(self, b: Self) -> Self;
    fn rem_s(self, b: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn min_u(self, b: Self) -> Self;
    fn min_s(self, b: Self) -> Self;
    fn max_u(self, b: Self) -> Self;
    fn max_s(self, b: Self) -> Self;
    fn not(self) -> Self;
    fn and(self, b: Self) -> Self;
    fn or(self, b: Self) -> Self;
    fn xor(self, b: Self) -> Self;
    fn and_not(self, b: Self) -> Self;
    fn or_not(self, b: Self) -> Self;
    fn xor_not(self, b: Self) -> Self;
    fn shl(self, b: Self) -> Self;
    fn shr_u(self, b: Self) -> Self;
    fn shr_s(self, b: Self) -> Self;
    fn rotl(self, b: Self) -> Self;
    fn rotr(self, b: Self) -> Self;
    fn clz(self) -> Self;
    fn ctz(self) -> Self;
    fn popcnt(self) -> Self;
    fn bswap(self) -> Self;
    fn bitrev(self) -> Self;
    fn lt_s(self, b: Self) -> bool;
    fn add_sat_u(self, b: Self) -> Self;
    fn add_sat_s(self, b: Self) -> Self;
    fn sub_sat_u(self, b: Self) -> Self;
    fn sub_sat_s(self, b: Self) -> Self;
    fn top_bit(self) -> bool;
    /// Sum with carry in, and the carry out.
    fn adc(self, b: Self, carry: bool) -> (Self, bool);
}

/// The widths that have a double width: `mulh` exists for them.
pub trait Word: Int {
    fn mulh_u(self, b: Self) -> Self;
    fn mulh_s(self, b: Self) -> Self;
}

macro_rules! ints {
    ($($u:ident $s:ident),+) => { $(
        impl Int for $u {
            const BITS: u32 = $u::BITS;
            #[inline(always)]
            fn of(x: u128) -> $u { x as $u }
            #[inline(always)]
            fn to(self) -> u128 { self as u128 }
            #[inline(always)]
            fn of64(x: u64) -> $u { x as $u }
            #[inline(always)]
            fn to64(self) -> u64 { self as u64 }
            #[inline(always)]
            fn sext64(self) -> u64 { self as $s as i64 as u64 }
            #[inline(always)]
            fn sext128(self) -> u128 { self as $s as i128 as u128 }
            #[inline(always)]
            fn add(self, b: $u) -> $u { self.wrapping_add(b) }
            #[inline(always)]
            fn sub(self, b: $u) -> $u { self.wrapping_sub(b) }
            #[inline(always)]
            fn mul(self, b: $u) -> $u { self.wrapping_mul(b) }
            #[inline(always)]
            fn div_u(self, b: $u) -> $u { self.checked_div(b).unwrap_or(0) }
            #[inline(always)]
            fn div_s(self, b: $u) -> $u {
                if b == 0 { 0 } else { (self as $s).wrapping_div(b as $s) as $u }
            }
            #[inline(always)]
            fn rem_u(self, b: $u) -> $u { self.checked_rem(b).unwrap_or(self) }
            #[inline(always)]
            fn rem_s(self, b: $u) -> $u {
                if b == 0 { self } else { (self as $s).wrapping_rem(b as $s) as $u }
            }
            #[inline(always)]
            fn neg(self) -> $u { self.wrapping_neg() }
            #[inline(always)]
            fn abs(self) -> $u { (self as $s).wrapping_abs() as $u }
            #[inline(always)]
            fn min_u(self, b: $u) -> $u { Ord::min(self, b) }
            #[inline(always)]
            fn min_s(self, b: $u) -> $u { Ord::min(self as $s, b as $s) as $u }
            #[inline(always)]
            fn max_u(self, b: $u) -> $u { Ord::max(self, b) }
            #[inline(always)]
            fn max_s(self, b: $u) -> $u { Ord::max(self as $s, b as $s) as $u }
            #[inline(always)]
            fn not(self) -> $u { !self }
            #[inline(always)]
            fn and(self, b: $u) -> $u { self & b }
            #[inline(always)]
            fn or(self, b: $u) -> $u { self | b }
            #[inline(always)]
            fn xor(self, b: $u) -> $u { self ^ b }
            #[inline(always)]
            fn and_not(self, b: $u) -> $u { self & !b }
            #[inline(always)]
            fn or_not(self, b: $u) -> $u { self | !b }
            #[inline(always)]
            fn xor_not(self, b: $u) -> $u { self ^ !b }
            #[inline(always)]
            fn shl(self, b: $u) -> $u { self.wrapping_shl(b as u32) }
            #[inline(always)]
            fn shr_u(self, b: $u) -> $u { self.wrapping_shr(b as u32) }
            #[inline(always)]
            fn shr_s(self, b: $u) -> $u { (self as $s).wrapping_shr(b as u32) as $u }
            #[inline(always)]
            fn rotl(self, b: $u) -> $u { self.rotate_left(b as u32 % $u::BITS) }
            #[inline(always)]
            fn rotr(self, b: $u) -> $u { self.rotate_right(b as u32 % $u::BITS) }
            #[inline(always)]
            fn clz(self) -> $u { self.leading_zeros() as $u }
            #[inline(always)]
            fn ctz(self) -> $u { self.trailing_zeros() as $u }
            #[inline(always)]
            fn popcnt(self) -> $u { self.count_ones() as $u }
            #[inline(always)]
            fn bswap(self) -> $u { self.swap_bytes() }
            #[inline(always)]
            fn bitrev(self) -> $u { self.reverse_bits() }
            #[inline(always)]
            fn lt_s(self, b: $u) -> bool { (self as $s) < b as $s }
            #[inline(always)]
            fn add_sat_u(self, b: $u) -> $u { self.saturating_add(b) }
            #[inline(always)]
            fn add_sat_s(self, b: $u) -> $u { (self as $s).saturating_add(b as $s) as $u }
            #[inline(always)]
            fn sub_sat_u(self, b: $u) -> $u { self.saturating_sub(b) }
            #[inline(always)]
            fn sub_sat_s(self, b: $u) -> $u { (self as $s).saturating_sub(b as $s) as $u }
            #[inline(always)]
            fn top_bit(self) -> bool { (self as $s) < 0 }
            #[inline(always)]
            fn adc(self, b: $u, carry: bool) -> ($u, bool) {
                let (x, c1) = self.overflowing_add(b);
                let (x, c2) = x.overflowing_add(carry as $u);
                (x, c1 | c2)
            }
        }
    )+ };
}
ints!(u8 i8, u16 i16, u32 i32, u64 i64, u128 i128);

macro_rules! words {
    ($($u:ident $s:ident $wu:ident $ws:ident),+) => { $(
        impl Word for $u {
            #[inline(always)]
            fn mulh_u(self, b: $u) -> $u { ((self as $wu * b as $wu) >> $u::BITS) as $u }
            #[inline(always)]
            fn mulh_s(self, b: $u) -> $u {
                ((self as $s as $ws * b as $s as $ws) >> $u::BITS) as $u
            }
        }
    )+ };
}
words!(u8 i8 u16 i16, u16 i16 u32 i32, u32 i32 u64 i64, u64 i64 u128 i128);

/// NZCV of `a + b + carry`.
#[inline(always)]
pub fn adc_nzcv<T: Int>(a: T, b: T, carry: bool) -> u32 {
    let (r, c) = a.adc(b, carry);
    let v = a.xor(r).and(b.xor(r)).top_bit();
    pack_nzcv(r.top_bit(), r.to64() == 0, c, v)
}

/// NZCV of `a + b`.
#[inline(always)]
pub fn add_nzcv<T: Int>(a: T, b: T) -> u32 {
    adc_nzcv(a, b, false)
}

/// NZCV of `a - b`.
#[inline(always)]
pub fn sub_nzcv<T: Int>(a: T, b: T) -> u32 {
    let r = a.sub(b);
    let v = a.xor(b).and(a.xor(r)).top_bit();
    pack_nzcv(r.top_bit(), r.to64() == 0, a >= b, v)
}

/// N and Z of `a`.
#[inline(always)]
pub fn logic_nzcv<T: Int>(a: T) -> u32 {
    pack_nzcv(a.top_bit(), a.to64() == 0, false, false)
}

#[inline(always)]
fn pack_nzcv(n: bool, z: bool, c: bool, v: bool) -> u32 {
    const { assert!(nzcv::N == 1 << 31 && nzcv::V == 1 << 28) };
    (n as u32) << 31 | (z as u32) << 30 | (c as u32) << 29 | (v as u32) << 28
}

/// Where a comparison stands in the truth table [`cc_table`]: bit 0 equal, bit 1 signed less, bit 2 unsigned less.
#[inline(always)]
pub fn compare<T: Int>(a: T, b: T) -> u32 {
    (a == b) as u32 | (a.lt_s(b) as u32) << 1 | ((a < b) as u32) << 2
}

/// Truth table of a condition code over [`compare`]'s eight results.
pub const fn cc_table(cc: IntCc) -> u8 {
    const EQ: u8 = 0b1010_1010;
    const LT_S: u8 = 0b1100_1100;
    const LT_U: u8 = 0b1111_0000;
    match cc {
        IntCc::Eq => EQ,
        IntCc::Ne => !EQ,
        IntCc::LtS => LT_S,
        IntCc::LeS => LT_S | EQ,
        IntCc::GtS => !(LT_S | EQ),
        IntCc::GeS => !LT_S,
        IntCc::LtU => LT_U,
        IntCc::LeU => LT_U | EQ,
        IntCc::GtU => !(LT_U | EQ),
        IntCc::GeU => !LT_U,
    }
}

/// Whether `a cc b`.
#[inline(always)]
pub fn icmp<T: Int>(cc: IntCc, a: T, b: T) -> bool {
    cc_table(cc) >> compare(a, b) & 1 != 0
}

/// Truth table of a condition over the sixteen values of a packed word's top four bits.
pub const fn nzcv_table(cond: NzcvCond) -> u16 {
    // Bit i of each is the flag's value in the word i << 28.
    const N: u16 = 0xff00;
    const Z: u16 = 0xf0f0;
    const C: u16 = 0xcccc;
    const V: u16 = 0xaaaa;
    match cond {
        NzcvCond::Eq => Z,
        NzcvCond::Ne => !Z,
        NzcvCond::Cs => C,
        NzcvCond::Cc => !C,
        NzcvCond::Mi => N,
        NzcvCond::Pl => !N,
        NzcvCond::Vs => V,
        NzcvCond::Vc => !V,
        NzcvCond::Hi => C & !Z,
        NzcvCond::Ls => !C | Z,
        NzcvCond::Ge => !(N ^ V),
        NzcvCond::Lt => N ^ V,
        NzcvCond::Gt => !(N ^ V) & !Z,
        NzcvCond::Le => (N ^ V) | Z,
    }
}

/// Whether the condition holds for a packed word.
#[inline(always)]
pub fn nzcv_test(cond: NzcvCond, word: u32) -> bool {
    nzcv_table(cond) >> (word >> 28) & 1 != 0
}

/// A mask of `width` (1 to 64) low bits.
#[inline(always)]
pub const fn mask(width: u32) -> u64 {
    u64::MAX >> (64 - width)
}

/// Bits `lsb .. lsb + width` of `a`, zero-extended.
#[inline(always)]
pub fn bextract_u(a: u64, lsb: u32, width: u32) -> u64 {
    a >> lsb & mask(width)
}

/// Bits `lsb .. lsb + width` of `a`, sign-extended to 64 bits.
#[inline(always)]
pub fn bextract_s(a: u64, lsb: u32, width: u32) -> u64 {
    ((a << (64 - lsb - width)) as i64 >> (64 - width)) as u64
}

/// `a` with bits `lsb .. lsb + width` replaced by the low bits of `b`.
#[inline(always)]
pub fn binsert(a: u64, b: u64, lsb: u32, width: u32) -> u64 {
    let field = mask(width) << lsb;
    a & !field | b << lsb & field
}
