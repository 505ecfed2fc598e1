//! Memory operations as data, and the memory interface that the interpreter and helpers use.

use crate::{GuestVa, MemFault};
use std::fmt;
use std::ops::Range;

/// Alignment that an access demands; breaking it is a [`crate::FaultCause::Align`] fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemAlign {
    Any,
    Natural,
    /// Sixteen bytes whatever the size (x86 `movaps`, AArch64 pairs of exclusives).
    Sixteen,
}

/// Ordering of one access. Plain accesses keep the guest's own model, which the frontend states by
/// choosing these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemOrder {
    Plain,
    Acquire,
    Release,
    SeqCst,
}

/// Size, extension, byte order, alignment demand, ordering and address space of one access, packed in
/// 16 bits: `[2:0]` log2 size, `[3]` sign-extend, `[4]` big-endian, `[6:5]` align, `[8:7]` order,
/// `[12:9]` MMU index.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemOp(pub u16);

impl MemOp {
    pub const U8: MemOp = MemOp(0);
    pub const U16: MemOp = MemOp(1);
    pub const U32: MemOp = MemOp(2);
    pub const U64: MemOp = MemOp(3);
    pub const U128: MemOp = MemOp(4);
    pub const S8: MemOp = MemOp(8);
    pub const S16: MemOp = MemOp(9);
    pub const S32: MemOp = MemOp(10);

    /// An unsigned access of `1 << log2` bytes, `log2` in 0..=4.
    #[inline]
    pub const fn of_log2(log2: u8) -> MemOp {
        MemOp(log2 as u16 & 7)
    }
    #[inline]
    pub const fn log2(self) -> u8 {
        (self.0 & 7) as u8
    }
    /// Size in bytes: 1, 2, 4, 8 or 16.
    #[inline]
    pub const fn bytes(self) -> u32 {
        1 << (self.0 & 7)
    }
    #[inline]
    pub const fn signed(self) -> bool {
        self.0 & 8 != 0
    }
    #[inline]
    pub const fn with_sign(self) -> MemOp {
        MemOp(self.0 | 8)
    }
    #[inline]
    pub const fn big_endian(self) -> bool {
        self.0 & 16 != 0
    }
    #[inline]
    pub const fn with_big_endian(self) -> MemOp {
        MemOp(self.0 | 16)
    }
    #[inline]
    pub const fn align(self) -> MemAlign {
        match self.0 >> 5 & 3 {
            0 => MemAlign::Any,
            1 => MemAlign::Natural,
            _ => MemAlign::Sixteen,
        }
    }
    #[inline]
    pub const fn with_align(self, a: MemAlign) -> MemOp {
        MemOp(self.0 & !(3 << 5) | (a as u16) << 5)
    }
    /// The alignment in bytes that the address must have (1 when any will do).
    #[inline]
    pub const fn align_bytes(self) -> u32 {
        match self.align() {
            MemAlign::Any => 1,
            MemAlign::Natural => self.bytes(),
            MemAlign::Sixteen => 16,
        }
    }
    #[inline]
    pub const fn order(self) -> MemOrder {
        match self.0 >> 7 & 3 {
            0 => MemOrder::Plain,
            1 => MemOrder::Acquire,
            2 => MemOrder::Release,
            _ => MemOrder::SeqCst,
        }
    }
    #[inline]
    pub const fn with_order(self, o: MemOrder) -> MemOp {
        MemOp(self.0 & !(3 << 7) | (o as u16) << 7)
    }
    /// Which address space (privilege level and the like) in system mode; 0 in user mode.
    #[inline]
    pub const fn mmu(self) -> u8 {
        (self.0 >> 9 & 15) as u8
    }
    #[inline]
    pub const fn with_mmu(self, index: u8) -> MemOp {
        MemOp(self.0 & !(15 << 9) | (index as u16 & 15) << 9)
    }
}

impl fmt::Debug for MemOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `u32`, `s16`, then `.be`, `.nat`/`.a16`, `.acq`/`.rel`/`.sc`, `.mmuN` where they differ from the default.
impl fmt::Display for MemOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.signed() { 's' } else { 'u' }, self.bytes() * 8)?;
        if self.big_endian() {
            f.write_str(".be")?;
        }
        f.write_str(match self.align() {
            MemAlign::Any => "",
            MemAlign::Natural => ".nat",
            MemAlign::Sixteen => ".a16",
        })?;
        f.write_str(match self.order() {
            MemOrder::Plain => "",
            MemOrder::Acquire => ".acq",
            MemOrder::Release => ".rel",
            MemOrder::SeqCst => ".sc",
        })?;
        if self.mmu() != 0 {
            write!(f, ".mmu{}", self.mmu())?;
        }
        Ok(())
    }
}

/// What an atomic read-modify-write does with the old value and the operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum RmwOp {
    Xchg,
    Add,
    Sub,
    And,
    /// `old & !operand`
    AndNot,
    Or,
    Xor,
    MinS,
    MaxS,
    MinU,
    MaxU,
}

impl RmwOp {
    pub const ALL: [RmwOp; 11] = [
        RmwOp::Xchg,
        RmwOp::Add,
        RmwOp::Sub,
        RmwOp::And,
        RmwOp::AndNot,
        RmwOp::Or,
        RmwOp::Xor,
        RmwOp::MinS,
        RmwOp::MaxS,
        RmwOp::MinU,
        RmwOp::MaxU,
    ];
}

/// A 32-bit guest's window of host memory has at least so many bytes in front of and behind it that nothing can be
/// mapped to. Generated code may add an offset of up to this size without wrapping at 32 bits: where that would have
/// wrapped the host faults, and the interpreter repeats the access.
pub const WINDOW_GUARD: u64 = 16 << 20;

/// Guest memory as the interpreter, helpers and instruction fetch see it. Values are in the low bits
/// of the `u64`/`u128`; byte order and alignment are applied by the implementation.
pub trait GuestMem {
    /// Loads up to 8 bytes; zero- or sign-extended to 64 bits as `op` says.
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault>;
    /// Stores the low `op.bytes()` (at most 8) of `value`.
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault>;
    /// Loads 16 bytes. Single-copy atomic only when `op.order()` is not `Plain`.
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault>;
    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault>;
    /// Sequentially consistent read-modify-write of 1 to 8 bytes; returns the old value, zero-extended.
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, operand: u64) -> Result<u64, MemFault>;
    /// Sequentially consistent compare-and-swap of 1 to 16 bytes; returns the old value.
    fn cas(&mut self, va: GuestVa, op: MemOp, expected: u128, new: u128) -> Result<u128, MemFault>;

    /// Copies `count` elements of `op.bytes()` (at most 8) upwards from `src` to `dst`, with the effect of doing
    /// so one by one with `op` (of any alignment, plain): the ranges may overlap, and only whole elements before a fault are copied. Returns
    /// how many were, and the fault. Implementations replace it by something faster.
    fn copy_elements(
        &mut self,
        dst: GuestVa,
        src: GuestVa,
        op: MemOp,
        count: u64,
    ) -> (u64, Option<MemFault>) {
        copy_one_by_one(self, dst, src, op, 0..count)
    }

    /// Stores `value` to `count` consecutive elements of `op.bytes()` upwards from `dst`; as
    /// [`GuestMem::copy_elements`].
    fn fill_elements(
        &mut self,
        dst: GuestVa,
        op: MemOp,
        count: u64,
        value: u64,
    ) -> (u64, Option<MemFault>) {
        fill_one_by_one(self, dst, op, 0..count, value)
    }
}

/// [`GuestMem::copy_elements`] by single loads and stores: those elements of the range that are in `these`.
pub fn copy_one_by_one<M: GuestMem + ?Sized>(
    mem: &mut M,
    dst: GuestVa,
    src: GuestVa,
    op: MemOp,
    these: Range<u64>,
) -> (u64, Option<MemFault>) {
    let end = these.end;
    for n in these {
        let offset = n << op.log2();
        let moved = mem
            .load(src.wrapping_add(offset), op)
            .and_then(|v| mem.store(dst.wrapping_add(offset), op, v));
        if let Err(fault) = moved {
            return (n, Some(fault));
        }
    }
    (end, None)
}

/// [`GuestMem::fill_elements`] by single stores, as [`copy_one_by_one`].
pub fn fill_one_by_one<M: GuestMem + ?Sized>(
    mem: &mut M,
    dst: GuestVa,
    op: MemOp,
    these: Range<u64>,
    value: u64,
) -> (u64, Option<MemFault>) {
    let end = these.end;
    for n in these {
        if let Err(fault) = mem.store(dst.wrapping_add(n << op.log2()), op, value) {
            return (n, Some(fault));
        }
    }
    (end, None)
}
