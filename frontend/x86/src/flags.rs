//! Lazy arithmetic flags.
//!
//! An instruction that sets CF, PF, AF, ZF, SF and OF stores what set them: the operation and operand size in
//! `cc_op` (a constant at lift time), and two values in `cc_dst` and `cc_src`, of which only the low bits of the
//! operand size mean something. [`packed`] computes the flags from these three, and the lifter emits the same
//! formulas inline where it knows `cc_op` ([`crate::lifter`]).
//!
//! | operation | `cc_dst` | `cc_src` | CF | AF | OF |
//! |---|---|---|---|---|---|
//! | `Eflags` | | the six flags where EFLAGS has them | | | |
//! | `Fcmp32`, `Fcmp64` | first operand | second | unordered or less | 0 | 0 |
//! | `Add` | result | addend `b` | result < b | a ^ b ^ result | signs of a, b equal, of result not |
//! | `Sub` | minuend `a` | subtrahend `b` | a < b | a ^ b ^ result | signs of a, b differ, of a, result too |
//! | `Logic` | result | | 0 | 0 | 0 |
//! | `Carries` | result | carry (borrow) out of each bit | top bit | bit 3 | top two bits differ |
//! | `Inc` | result | CF | | low nibble 0 | result is the minimum |
//! | `Dec` | result | CF | | low nibble 15 | result is the maximum |
//! | `Shl` | result | operand shifted by one less | top bit | 0 | CF ^ top bit of result |
//! | `Shr` | result | operand shifted by one less | bit 0 | 0 | top two bits of the result differ |
//! | `ResCf` | result | CF | | 0 | 0 |
//! | `Mul` | low half | 1 when it does not hold the product | `cc_src` | 0 | `cc_src` |
//!
//! ZF, SF and PF follow the result (for `Fcmp*`: equal or unordered, 0, unordered). The rows also say what we do
//! where the manual leaves a flag undefined; in this we follow what recent Intel processors do:
//!
//! | instructions | undefined | here |
//! |---|---|---|
//! | AND, OR, XOR, TEST, ANDN, shifts | AF | 0 |
//! | shifts by more than one | OF | as in the table above |
//! | shifts by at least the operand size (8 and 16 bit) | CF | the last bit shifted out; 0 behind the operand |
//! | SHLD, SHRD of 16 bits by more than 16 | all | shifts destination:source:destination |
//! | rotates by more than one | OF | as for one, on the last step |
//! | MUL, IMUL | ZF, SF, PF, AF | ZF, SF, PF of the low half, AF 0 |
//! | DIV, IDIV | all | unchanged |
//! | BT, BTS, BTR, BTC | OF, SF, AF, PF | unchanged, or as of a logical result with the same ZF |
//! | BSF, BSR | CF, OF, SF, AF, PF | unchanged |
//! | LZCNT, TZCNT | OF, SF, AF, PF | of the result as a logical one |
//! | BLSI and kin, BZHI, BEXTR | AF, PF (BEXTR: SF) | of the result as a logical one |
//! | AAA, AAS | OF, SF, ZF, PF | SF 0, OF 0, ZF and PF of AL |
//! | DAA, DAS | OF | 0 |
//! | AAM, AAD | OF, AF, CF | 0 |

use crate::helpers::{FIRST_FLAGS, helpers};
use tulk_base::Trap;
use tulk_ir::{Access, HelperCx, Type};

pub const CF: u32 = 1;
pub const PF: u32 = 1 << 2;
pub const AF: u32 = 1 << 4;
pub const ZF: u32 = 1 << 6;
pub const SF: u32 = 1 << 7;
pub const OF: u32 = 1 << 11;
/// The arithmetic flags.
pub const ALL: u32 = CF | PF | AF | ZF | SF | OF;

/// What kind of operation set the flags; see the module. The order makes what the lifter asks of an unknown one a comparison:
/// first those with CF in bit 0 of `cc_src`; then others that have their result in `cc_dst`; in `Add`, `Logic` and `Sub`
/// CF compares two values, in the last two, which would have the flags of a subtraction of zero, all conditions do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Eflags,
    Inc,
    Dec,
    Shr,
    ResCf,
    Mul,
    Carries,
    Shl,
    Add,
    Logic,
    Sub,
    Fcmp32,
    Fcmp64,
}

impl Kind {
    pub const ALL: [Kind; 13] = [
        Kind::Eflags,
        Kind::Inc,
        Kind::Dec,
        Kind::Shr,
        Kind::ResCf,
        Kind::Mul,
        Kind::Carries,
        Kind::Shl,
        Kind::Add,
        Kind::Logic,
        Kind::Sub,
        Kind::Fcmp32,
        Kind::Fcmp64,
    ];

    /// The first code of this kind. Those of all types are below the next kind's.
    pub const fn first_code(self) -> u32 {
        (self as u32) << 6
    }
}

/// The content of the `cc_op` slot: `kind << 6`, plus by how many bits a value of the type is shifted left to fill 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CcOp {
    pub kind: Kind,
    /// I8 to I64.
    pub ty: Type,
}

impl CcOp {
    /// The part of a code that is a shift amount.
    pub const SHIFT: u32 = 63;

    pub const fn new(kind: Kind, ty: Type) -> CcOp {
        CcOp { kind, ty }
    }
    pub const fn code(self) -> u32 {
        self.kind.first_code() + 64 - self.ty.bits()
    }
    /// # Panics
    /// When `code` is none that [`CcOp::code`] gives.
    pub const fn of_code(code: u32) -> CcOp {
        let log2 = (8 - (code >> 3 & 7)).trailing_zeros();
        CcOp { kind: Kind::ALL[(code >> 6) as usize], ty: Type::int_of_log2(log2 as u8) }
    }
}

/// PF, ZF and SF of a result.
const fn of_result(result: u64, top: u64) -> u32 {
    let even = (result as u8).count_ones() & 1 == 0;
    let mut f = if even { PF } else { 0 };
    if result & (top | (top - 1)) == 0 {
        f |= ZF;
    }
    if result & top != 0 {
        f |= SF;
    }
    f
}

/// `bit` if the condition holds.
const fn when(condition: bool, bit: u32) -> u32 {
    if condition { bit } else { 0 }
}

fn compared(order: Option<std::cmp::Ordering>) -> u32 {
    match order {
        None => ZF | PF | CF,
        Some(std::cmp::Ordering::Less) => CF,
        Some(std::cmp::Ordering::Equal) => ZF,
        Some(std::cmp::Ordering::Greater) => 0,
    }
}

/// Order of two floats given by their bits; `None` when one is NaN. `width` is 32 or 64.
fn float_order(a: u64, b: u64, width: u32) -> Option<std::cmp::Ordering> {
    let infinity = if width == 32 { 0x7f80_0000 } else { 0x7ff0_0000_0000_0000 };
    let sign = 1u64 << (width - 1);
    let mask = sign | (sign - 1);
    let key = |x: u64| -> Option<i64> {
        let magnitude = x & mask & !sign;
        (magnitude <= infinity).then(|| {
            let m = magnitude as i64;
            if x & sign != 0 { -m } else { m }
        })
    };
    Some(key(a)?.cmp(&key(b)?))
}

/// The six flags where EFLAGS has them.
pub fn packed(cc_op: u32, dst: u64, src: u64) -> u32 {
    let CcOp { kind, ty } = CcOp::of_code(cc_op);
    let top = 1u64 << (ty.bits() - 1);
    let mask = top | (top - 1);
    let msb = |x: u64| x & top != 0;
    let next = |x: u64| x & (top >> 1) != 0;
    match kind {
        Kind::Eflags => src as u32 & ALL,
        Kind::Fcmp32 => compared(float_order(dst, src, 32)),
        Kind::Fcmp64 => compared(float_order(dst, src, 64)),
        Kind::Add => {
            let (r, b) = (dst, src);
            let a = r.wrapping_sub(b);
            of_result(r, top)
                | when(r & mask < b & mask, CF)
                | (a ^ b ^ r) as u32 & AF
                | when(msb(!(a ^ b) & (a ^ r)), OF)
        }
        Kind::Sub => {
            let (a, b) = (dst, src);
            let r = a.wrapping_sub(b);
            of_result(r, top)
                | when(a & mask < b & mask, CF)
                | (a ^ b ^ r) as u32 & AF
                | when(msb((a ^ b) & (a ^ r)), OF)
        }
        Kind::Logic => of_result(dst, top),
        Kind::Carries => {
            of_result(dst, top)
                | when(msb(src), CF)
                | when(src & 8 != 0, AF)
                | when(msb(src) != next(src), OF)
        }
        Kind::Inc => {
            of_result(dst, top)
                | src as u32 & CF
                | when(dst & 15 == 0, AF)
                | when(dst & mask == top, OF)
        }
        Kind::Dec => {
            of_result(dst, top)
                | src as u32 & CF
                | when(dst & 15 == 15, AF)
                | when(dst & mask == top - 1, OF)
        }
        Kind::Shl => of_result(dst, top) | when(msb(src), CF) | when(msb(src) != msb(dst), OF),
        Kind::Shr => of_result(dst, top) | src as u32 & CF | when(msb(dst) != next(dst), OF),
        Kind::ResCf => of_result(dst, top) | src as u32 & CF,
        Kind::Mul => of_result(dst, top) | when(src & 1 != 0, CF | OF),
    }
}

/// The condition `code` (the low four bits of Jcc's opcode) over packed flags.
pub const fn holds(code: u32, f: u32) -> bool {
    let [c, p, z, s, o] = [f & CF != 0, f & PF != 0, f & ZF != 0, f & SF != 0, f & OF != 0];
    let base = match code >> 1 & 7 {
        0 => o,
        1 => c,
        2 => z,
        3 => c || z,
        4 => s,
        5 => p,
        6 => s != o,
        _ => z || s != o,
    };
    base != (code & 1 != 0)
}

fn flags_packed(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(packed(args[0] as u32, args[1] as u64, args[2] as u64) as u128)
}

fn flags_condition(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let f = packed(args[0] as u32, args[1] as u64, args[2] as u64);
    Ok(holds(args[3] as u32, f) as u128)
}

helpers! { FIRST_FLAGS;
    /// `cc_op, cc_dst, cc_src` to the packed flags.
    PACKED = flags_packed(I32, I64, I64) -> I32, Access::None, Access::None, pure;
    /// The condition in the immediate over `cc_op, cc_dst, cc_src`.
    CONDITION = flags_condition(I32, I64, I64) -> I8, Access::None, Access::None, pure;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for kind in Kind::ALL {
            for log2 in 0..4 {
                let op = CcOp::new(kind, Type::int_of_log2(log2));
                assert_eq!(CcOp::of_code(op.code()), op);
            }
        }
        assert_eq!(CcOp::new(Kind::Eflags, Type::I64).code(), 0);
    }

    #[test]
    fn low_codes_carry_in_the_source() {
        for kind in Kind::ALL {
            let op = CcOp::new(kind, Type::I32).code();
            let same = [0, 1, 2, 3].into_iter().all(|src: u64| {
                [0, 1, 0x8000_0000, 0xffff_ffff]
                    .into_iter()
                    .all(|dst| packed(op, dst, src) & CF == src as u32 & CF)
            });
            assert_eq!(same, op < Kind::Carries.first_code(), "{kind:?}");
        }
    }

    #[test]
    fn sums_carry_as_differences_borrow() {
        for (dst, src) in [(0, 0), (1, 2), (2, 1), (0x8000_0000, 1), (u64::MAX, 1), (1, u64::MAX)] {
            let carry = |kind| packed(CcOp::new(kind, Type::I32).code(), dst, src) & CF;
            assert_eq!(carry(Kind::Add), carry(Kind::Sub), "{dst:#x} {src:#x}");
        }
    }

    /// What the lifter relies on where it does not know the operation.
    #[test]
    fn logic_subtracts_zero() {
        for ty in [Type::I8, Type::I16, Type::I32, Type::I64] {
            for dst in [0, 1, 0x7f, 0x80, 0x8000, 0x1_8000_0000, u64::MAX, 0xffff_ff00] {
                let flags = |kind, src| packed(CcOp::new(kind, ty).code(), dst, src);
                assert_eq!(flags(Kind::Logic, 5), flags(Kind::Sub, 0));
            }
        }
        let results = Kind::Inc.first_code()..Kind::Sub.first_code();
        for kind in Kind::ALL.into_iter().filter(|k| results.contains(&k.first_code())) {
            for (dst, zero) in [(0x1_0000_0000, true), (1, false)] {
                let flags = packed(CcOp::new(kind, Type::I32).code(), dst, 0);
                assert_eq!(flags & ZF != 0, zero, "{kind:?}");
            }
        }
    }

    #[test]
    fn float_comparisons() {
        let op = |ty| CcOp::new(ty, Type::I8).code();
        let f = |a: f64, b: f64| packed(op(Kind::Fcmp64), a.to_bits(), b.to_bits());
        assert_eq!(f(0.0, -0.0), ZF);
        assert_eq!(f(-1.0, 1.0), CF);
        assert_eq!(f(2.0, -f64::INFINITY), 0);
        assert_eq!(f(f64::NAN, 1.0), ZF | PF | CF);
        let g = |a: f32, b: f32| packed(op(Kind::Fcmp32), a.to_bits() as u64, b.to_bits() as u64);
        assert_eq!(g(-3.5, -3.25), CF);
        assert_eq!(g(1.0, f32::NAN), ZF | PF | CF);
    }
}
