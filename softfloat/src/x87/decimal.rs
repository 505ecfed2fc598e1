//! Packed decimal integers: 18 digits, two to the byte, low digits first; the sign is the top bit of the tenth byte
//! (Intel SDM vol. 1, 4.7).

use crate::env::{Env, Flags};
use crate::format::F80;
use crate::integer::{IntRule, IntType, from_u64, to_int};
use crate::unpack::unpack_flushing;

const DIGITS: u32 = 18;
const SIGN: u128 = 1 << 79;
/// What storing an invalid operand gives.
const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// FBLD: the number of the low 80 bits; always exact. Digits above nine count by their place, as the manual leaves open.
pub fn x87_load_bcd(packed: u128) -> u128 {
    let digit = |i: u32| (packed >> (4 * i)) as u64 & 15;
    let magnitude = (0..DIGITS).rev().fold(0_u64, |n, i| n.wrapping_mul(10).wrapping_add(digit(i)));
    let value = from_u64::<F80>(&mut Env::x87(0x37f), magnitude);
    value | (packed & SIGN)
}

/// FBSTP: the number rounded to an integer in the current mode; invalid if it needs more than 18 digits.
pub fn x87_store_bcd(env: &mut Env, a: u128) -> u128 {
    let sign = unpack_flushing::<F80>(env, a, false).sign;
    let before = env.flags;
    // Signed, so that directed modes see the sign; 18 digits take 60 bits.
    let value = to_int::<F80>(env, a, IntType::I64, env.rounding, IntRule::X86) as i64;
    let magnitude = value.unsigned_abs();
    if magnitude >= 10_u64.pow(DIGITS) {
        env.flags = before;
        env.raise(Flags::INVALID);
        return INDEFINITE;
    }
    let mut rest = magnitude;
    let mut packed = if sign { SIGN } else { 0 };
    for i in 0..DIGITS {
        packed |= u128::from(rest % 10) << (4 * i);
        rest /= 10;
    }
    packed
}
