//! Accesses to guest memory at host addresses that cannot fault: a system guest's RAM.
//!
//! *Memory bytes* are an integer whose lowest byte is the one at the lowest address; a guest's *value* has the byte order of
//! its memory operation applied.

use crate::raw::{self, Fault};
use crate::user_mem::{self, combine, extend, mask, order_bytes, order_bytes128};
use tulk_base::{MemOp, MemOrder, RmwOp};

/// RAM of a system guest stays mapped, see [`crate::phys`]; should the host think otherwise, it reads as zero.
fn sure<T: Default>(result: Result<T, Fault>) -> T {
    debug_assert!(result.is_ok(), "guest RAM is gone");
    result.unwrap_or_default()
}

/// Loads 1 to 8 bytes (a power of two) as [`tulk_base::GuestMem::load`] does.
#[inline(always)]
pub fn load(host: usize, op: MemOp) -> u64 {
    value_of(op, sure(user_mem::load(host, op.log2())))
}

/// What [`tulk_base::GuestMem::load`] makes of memory bytes.
#[inline(always)]
pub fn value_of(op: MemOp, bytes: u64) -> u64 {
    extend(order_bytes(bytes, op), op)
}

/// Loads 16 bytes.
#[inline]
pub fn load128(host: usize, op: MemOp) -> u128 {
    let atomic = op.order() != MemOrder::Plain && host.is_multiple_of(16);
    let bytes = sure(if atomic { raw::load128_atomic(host) } else { raw::load128(host) });
    order_bytes128(bytes, op)
}

/// Loads `n` memory bytes, at most 16.
pub fn load_bytes(host: usize, n: u32) -> u128 {
    match n {
        1 | 2 | 4 | 8 => sure(user_mem::load(host, n.ilog2() as u8)) as u128,
        16 => sure(raw::load128(host)),
        _ => {
            (0..n).fold(0, |sum, i| sum | (sure(raw::load8(host + i as usize)) as u128) << (8 * i))
        }
    }
}

/// Stores memory bytes, as many as the operation says, with its order.
#[inline(always)]
pub fn store(host: usize, op: MemOp, bytes: u128) {
    let ordered = op.order() == MemOrder::SeqCst;
    sure(match op.log2() {
        4 => store128(host, op, bytes),
        log2 if ordered => user_mem::xchg(host, log2, bytes as u64).map(drop),
        0 => raw::store8(host, bytes as u8),
        1 => raw::store16(host, bytes as u16),
        2 => raw::store32(host, bytes as u32),
        _ => raw::store64(host, bytes as u64),
    });
}

fn store128(host: usize, op: MemOp, bytes: u128) -> Result<(), Fault> {
    if op.order() != MemOrder::Plain && host.is_multiple_of(16) {
        raw::store128_atomic(host, bytes)?;
    } else {
        raw::store128(host, bytes)?;
    }
    if op.order() == MemOrder::SeqCst {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
    Ok(())
}

/// Stores the `n` lowest memory bytes, at most 16.
pub fn store_bytes(host: usize, n: u32, bytes: u128) {
    for i in 0..n {
        sure(raw::store8(host + i as usize, (bytes >> (8 * i)) as u8));
    }
}

/// Moves elements upwards, one after the other: where the ranges overlap, what was stored is read again.
pub fn move_elements(to: usize, from: usize, op: MemOp, count: u64) {
    raw::copy_elements(to, from, op.log2(), count as usize);
}

/// Stores `value` to elements.
pub fn fill_elements(to: usize, op: MemOp, count: u64, value: u64) {
    raw::fill_elements(to, op.log2(), count as usize, value);
}

/// As [`tulk_base::GuestMem::rmw`].
pub fn rmw(host: usize, op: MemOp, rmw: RmwOp, operand: u64) -> u64 {
    order_bytes(sure(user_mem::rmw_at(host, op, rmw, operand & mask(op))), op)
}

/// The memory bytes that a read-modify-write makes of others.
pub fn rmw_bytes(op: MemOp, rmw: RmwOp, bytes: u64, operand: u64) -> u64 {
    order_bytes(combine(rmw, op, order_bytes(bytes, op), operand & mask(op)), op)
}

/// As [`tulk_base::GuestMem::cas`]; 16 bytes must be aligned.
pub fn cas(host: usize, op: MemOp, expected: u128, new: u128) -> u128 {
    let (expected, new) = (to_bytes(op, expected), to_bytes(op, new));
    from_bytes(
        op,
        match op.log2() {
            4 => sure(raw::cas128(host, expected, new)),
            log2 => sure(user_mem::cas(host, log2, expected as u64, new as u64)) as u128,
        },
    )
}

/// Memory bytes of a value.
pub fn to_bytes(op: MemOp, value: u128) -> u128 {
    match op.log2() {
        4 => order_bytes128(value, op),
        _ => order_bytes(value as u64 & mask(op), op) as u128,
    }
}

/// The value of memory bytes, zero-extended.
pub fn from_bytes(op: MemOp, bytes: u128) -> u128 {
    to_bytes(op, bytes)
}
