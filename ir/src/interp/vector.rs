//! Integer vector semantics: a V128 is a `u128` whose lane 0 is least significant.
//!
//! Operations that treat every lane alike are functions over [`Pair`]s in memory, which compilers turn into vector
//! instructions; the interpreter finds them in [`BINARY`], [`UNARY`] and [`SHIFT`]. The others compute on `u128`.

use super::int::Int;
use crate::op::Op;
use crate::types::{IntCc, Shape};
use std::hint::black_box;

/// A vector as it lies in the CPU state: two cells, low first.
pub type Pair = [u64; 2];

#[inline(always)]
pub fn pair(x: u128) -> Pair {
    [x as u64, (x >> 64) as u64]
}
#[inline(always)]
pub fn whole(p: Pair) -> u128 {
    p[0] as u128 | (p[1] as u128) << 64
}

/// An integer that is a lane.
pub trait Lane: Int {
    type Lanes: Copy + AsRef<[Self]> + AsMut<[Self]>;
    /// In order of significance.
    fn split(x: u128) -> Self::Lanes;
    fn join(lanes: Self::Lanes) -> u128;
    /// In the order of the host's memory.
    fn view(p: &Pair) -> &Self::Lanes;
    fn view_mut(p: &mut Pair) -> &mut Self::Lanes;
}

macro_rules! lanes {
    ($($t:ident $n:literal),+) => { $(
        impl Lane for $t {
            type Lanes = [$t; $n];
            #[inline(always)]
            fn split(x: u128) -> [$t; $n] {
                let bytes = x.to_le_bytes();
                let (chunks, _) = bytes.as_chunks::<{ 16 / $n }>();
                std::array::from_fn(|i| $t::from_le_bytes(chunks[i]))
            }
            #[inline(always)]
            fn join(lanes: [$t; $n]) -> u128 {
                let mut bytes = [0; 16];
                let (chunks, _) = bytes.as_chunks_mut::<{ 16 / $n }>();
                for (chunk, lane) in chunks.iter_mut().zip(lanes) {
                    *chunk = lane.to_le_bytes();
                }
                u128::from_le_bytes(bytes)
            }
            #[inline(always)]
            fn view(p: &Pair) -> &[$t; $n] {
                zerocopy::transmute_ref!(p)
            }
            #[inline(always)]
            fn view_mut(p: &mut Pair) -> &mut [$t; $n] {
                zerocopy::transmute_mut!(p)
            }
        }
    )+ };
}
lanes!(u8 16, u16 8, u32 4, u64 2);

/// Runs `$e` with `$T` as the lane type of `$shape`.
macro_rules! by_shape {
    ($shape:expr, $T:ident, $e:expr) => {
        match $shape {
            $crate::types::Shape::I8x16 => {
                type $T = u8;
                $e
            }
            $crate::types::Shape::I16x8 => {
                type $T = u16;
                $e
            }
            $crate::types::Shape::I32x4 | $crate::types::Shape::F32x4 => {
                type $T = u32;
                $e
            }
            $crate::types::Shape::I64x2 | $crate::types::Shape::F64x2 => {
                type $T = u64;
                $e
            }
        }
    };
}
pub(super) use by_shape;

#[inline(always)]
fn map1<T: Lane>(a: &Pair, out: &mut Pair, f: impl Fn(T) -> T) {
    for (o, &x) in T::view_mut(out).as_mut().iter_mut().zip(T::view(a).as_ref()) {
        *o = f(x);
    }
}

#[inline(always)]
fn map2<T: Lane>(a: &Pair, b: &Pair, out: &mut Pair, f: impl Fn(T, T) -> T) {
    let operands = T::view(a).as_ref().iter().zip(T::view(b).as_ref());
    for (o, (&x, &y)) in T::view_mut(out).as_mut().iter_mut().zip(operands) {
        *o = f(x, y);
    }
}

/// A shift amount that the compiler must not join with other lanes': where the host has no shift by lanes it makes one from
/// float conversions, which would raise the guest's float flags.
#[inline(always)]
fn alone<T: Int>(amount: T) -> T {
    black_box(amount)
}

/// All ones or zero.
#[inline(always)]
fn truth<T: Int>(holds: bool) -> T {
    T::of(if holds { u128::MAX } else { 0 })
}

/// As [`map1`], with an amount that is the same for all lanes.
#[inline(always)]
fn shift<T: Lane>(a: &Pair, amount: u32, out: &mut Pair, f: impl Fn(T, u32) -> T) {
    map1::<T>(a, out, |x| f(x, amount));
}

/// Declares the operations on equal lanes, the table of their functions in the four lane widths, and an operation's
/// row in it.
macro_rules! lanewise {
    (
        $table:ident $ops:ident $row:ident $map:ident $types:tt $params:tt $args:tt;
        $($op:ident |$($x:ident),+| $e:expr;)+
    ) => {
        /// Four functions for each row: lanes of 8, 16, 32 and 64 bits.
        pub static $table: &[[fn $types; 4]] = &[$({
            fn lanewise<T: Lane> $params {
                lanewise!(@ $map $args |$($x),+| $e)
            }
            [lanewise::<u8>, lanewise::<u16>, lanewise::<u32>, lanewise::<u64>]
        }),+];
        /// The operation of each row.
        pub static $ops: &[Op] = &[$(Op::$op),+];
        pub fn $row(op: Op) -> Option<usize> {
            enum Row { $($op),+ }
            match op {
                $(Op::$op => Some(Row::$op as usize),)+
                _ => None,
            }
        }
    };
    (@ $map:ident ($($arg:ident),+) |$($x:ident),+| $e:expr) => {
        $map::<T>($($arg),+, |$($x),+| $e)
    };
}

lanewise! {
    BINARY BINARY_OPS binary_row map2 (&Pair, &Pair, &mut Pair) (a: &Pair, b: &Pair, out: &mut Pair) (a, b, out);
    Vadd |x, y| x.add(y);
    Vsub |x, y| x.sub(y);
    Vmul |x, y| x.mul(y);
    VaddSatS |x, y| x.add_sat_s(y);
    VaddSatU |x, y| x.add_sat_u(y);
    VsubSatS |x, y| x.sub_sat_s(y);
    VsubSatU |x, y| x.sub_sat_u(y);
    VminS |x, y| x.min_s(y);
    VminU |x, y| x.min_u(y);
    VmaxS |x, y| x.max_s(y);
    VmaxU |x, y| x.max_u(y);
    VavgU |x, y| x.or(y).sub(x.xor(y).shr_u(T::of(1)));
    VshlV |x, n| if n.to64() < T::BITS as u64 { x.shl(alone(n)) } else { T::of(0) };
    VshrUV |x, n| if n.to64() < T::BITS as u64 { x.shr_u(alone(n)) } else { T::of(0) };
    VshrSV |x, n| x.shr_s(alone(n.min_u(T::of(T::BITS as u128 - 1))));
}

lanewise! {
    UNARY UNARY_OPS unary_row map1 (&Pair, &mut Pair) (a: &Pair, out: &mut Pair) (a, out);
    Vneg |x| x.neg();
    Vabs |x| x.abs();
    Vpopcnt |x| x.popcnt();
    Vclz |x| x.clz();
}

lanewise! {
    SHIFT SHIFT_OPS shift_row shift (&Pair, u32, &mut Pair) (a: &Pair, n: u32, out: &mut Pair) (a, n, out);
    VshlI |x, n| if n < T::BITS { x.shl(T::of(n as u128)) } else { T::of(0) };
    VshrUI |x, n| if n < T::BITS { x.shr_u(T::of(n as u128)) } else { T::of(0) };
    VshrSI |x, n| x.shr_s(T::of(n.min(T::BITS - 1) as u128));
}

type Binary = fn(&Pair, &Pair, &mut Pair);

/// A row for each [`IntCc`].
pub static COMPARE: &[[Binary; 4]] = {
    macro_rules! rows {
        ($(|$x:ident, $y:ident| $e:expr;)+) => {
            &[$({
                fn compare<T: Lane>(a: &Pair, b: &Pair, out: &mut Pair) {
                    map2::<T>(a, b, out, |$x, $y| truth($e))
                }
                [compare::<u8>, compare::<u16>, compare::<u32>, compare::<u64>]
            }),+]
        };
    }
    const { assert!(IntCc::Eq as u8 == 0 && IntCc::LtU as u8 == 6 && IntCc::ALL.len() == 10) };
    rows! {
        |x, y| x == y;
        |x, y| x != y;
        |x, y| x.lt_s(y);
        |x, y| !y.lt_s(x);
        |x, y| y.lt_s(x);
        |x, y| !x.lt_s(y);
        |x, y| x < y;
        |x, y| x <= y;
        |x, y| x > y;
        |x, y| x >= y;
    }
};

/// Column of the tables.
pub fn column(shape: Shape) -> usize {
    shape.lane_bits().trailing_zeros() as usize - 3
}

#[inline(always)]
pub fn vsplat<T: Lane>(scalar: u128) -> u128 {
    let mut lanes = T::split(0);
    lanes.as_mut().fill(T::of(scalar));
    T::join(lanes)
}

#[inline(always)]
pub fn vlane(shape: Shape, a: u128, lane: u32) -> u128 {
    let bits = shape.lane_bits();
    a >> (lane * bits) & (u128::MAX >> (128 - bits))
}

#[inline(always)]
pub fn vset_lane(shape: Shape, a: u128, lane: u32, scalar: u128) -> u128 {
    let bits = shape.lane_bits();
    let field = (u128::MAX >> (128 - bits)) << (lane * bits);
    a & !field | scalar << (lane * bits) & field
}

/// Byte i is byte `picks[i]` modulo 32 of `a` followed by `b`.
#[inline(always)]
pub fn vshuffle(a: u128, b: u128, picks: u128) -> u128 {
    let mut from = [0u8; 32];
    from[..16].copy_from_slice(&a.to_le_bytes());
    from[16..].copy_from_slice(&b.to_le_bytes());
    u128::from_le_bytes(picks.to_le_bytes().map(|p| from[(p & 31) as usize]))
}

/// Byte i is byte `picks[i]` of `a`, 0 when that is above 15.
#[inline(always)]
pub fn vswizzle(a: u128, picks: u128) -> u128 {
    let from = a.to_le_bytes();
    let pick = |p: u8| if p > 15 { 0 } else { from[(p & 15) as usize] };
    u128::from_le_bytes(picks.to_le_bytes().map(pick))
}

/// Half of the lanes of `a` (`from` on), each through `f` to twice the width.
#[inline(always)]
fn widen<T: Lane, W: Lane>(a: u128, high: bool, f: impl Fn(T) -> u64) -> u128 {
    let a = T::split(a);
    let half = a.as_ref().len() / 2;
    let from = if high { half } else { 0 };
    let mut out = W::split(0);
    for (o, &x) in out.as_mut().iter_mut().zip(&a.as_ref()[from..from + half]) {
        *o = W::of64(f(x));
    }
    W::join(out)
}

/// Runs a generic function with the lane type of an integer shape of 8 to 32 bits and the type of twice the width.
macro_rules! by_widening {
    ($shape:expr, $f:ident($($arg:expr),*)) => {
        match $shape {
            Shape::I8x16 => $f::<u8, u16>($($arg),*),
            Shape::I16x8 => $f::<u16, u32>($($arg),*),
            Shape::I32x4 => $f::<u32, u64>($($arg),*),
            other => unreachable!("{other} lanes cannot be widened"),
        }
    };
}
/// The same for shapes of 16 to 64 bits and the type of half the width.
macro_rules! by_narrowing {
    ($shape:expr, $f:ident($($arg:expr),*)) => {
        match $shape {
            Shape::I16x8 => $f::<u16, u8>($($arg),*),
            Shape::I32x4 => $f::<u32, u16>($($arg),*),
            Shape::I64x2 => $f::<u64, u32>($($arg),*),
            other => unreachable!("{other} lanes cannot be narrowed"),
        }
    };
}

pub fn vwiden(shape: Shape, signed: bool, high: bool, a: u128) -> u128 {
    fn go<T: Lane, W: Lane>(a: u128, signed: bool, high: bool) -> u128 {
        widen::<T, W>(a, high, |x| if signed { x.sext64() } else { x.to64() })
    }
    by_widening!(shape, go(a, signed, high))
}

pub fn vmul_widen(shape: Shape, signed: bool, high: bool, a: u128, b: u128) -> u128 {
    fn go<T: Lane, W: Lane>(a: u128, b: u128, signed: bool, high: bool) -> u128 {
        let extend = |x: T| if signed { x.sext64() } else { x.to64() };
        let (a, b) = (widen::<T, W>(a, high, extend), widen::<T, W>(b, high, extend));
        let (mut x, y) = (W::split(a), W::split(b));
        for (x, &y) in x.as_mut().iter_mut().zip(y.as_ref()) {
            *x = x.mul(y);
        }
        W::join(x)
    }
    by_widening!(shape, go(a, b, signed, high))
}

/// How a lane becomes half as wide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Narrow {
    Truncate,
    /// Signed to signed.
    SatS,
    /// Signed to unsigned.
    SatSU,
    /// Unsigned to unsigned.
    SatU,
}

pub fn vnarrow(shape: Shape, how: Narrow, a: u128, b: u128) -> u128 {
    fn go<W: Lane, T: Lane>(a: u128, b: u128, how: Narrow) -> u128 {
        let one = |x: W| -> T {
            let (signed, max) = (x.sext64() as i64, super::int::mask(T::BITS));
            T::of64(match how {
                Narrow::Truncate => x.to64(),
                Narrow::SatS => signed.clamp(-(max as i64 >> 1) - 1, max as i64 >> 1) as u64,
                Narrow::SatSU => signed.clamp(0, max as i64) as u64,
                Narrow::SatU => x.to64().min(max),
            })
        };
        let (a, b) = (W::split(a), W::split(b));
        let mut out = T::split(0);
        for (o, &x) in out.as_mut().iter_mut().zip(a.as_ref().iter().chain(b.as_ref())) {
            *o = one(x);
        }
        T::join(out)
    }
    by_narrowing!(shape, go(a, b, how))
}

pub fn vadd_pairs<T: Lane>(a: u128, b: u128) -> u128 {
    let (a, b) = (T::split(a), T::split(b));
    let mut out = T::split(0);
    let pairs = a.as_ref().chunks_exact(2).chain(b.as_ref().chunks_exact(2));
    for (o, pair) in out.as_mut().iter_mut().zip(pairs) {
        *o = pair[0].add(pair[1]);
    }
    T::join(out)
}

/// Signed products of 16-bit lanes, adjacent ones summed to 32 bits.
pub fn vmadd_pairs_s(a: u128, b: u128) -> u128 {
    let (a, b) = (u16::split(a), u16::split(b));
    let product = |i: usize| a[i] as i16 as i32 * b[i] as i16 as i32;
    u32::join(std::array::from_fn(|i| product(2 * i).wrapping_add(product(2 * i + 1)) as u32))
}

/// Bit i is the top bit of lane i.
pub fn vsign_bits<T: Lane>(a: u128) -> u32 {
    let bits = T::split(a);
    bits.as_ref().iter().rev().fold(0, |acc, lane| acc << 1 | lane.top_bit() as u32)
}
