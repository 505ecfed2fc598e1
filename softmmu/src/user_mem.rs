//! Loads, stores and atomics of the interpreter and of helpers on a [`UserSpace`].

use crate::raw::{self, Fault};
use crate::user::UserSpace;
use tulk_base::mem::{copy_one_by_one, fill_one_by_one};
use tulk_base::{
    AccessKind, FaultCause, GuestMem, GuestVa, MemAlign, MemFault, MemOp, MemOrder, RmwOp,
};

/// From so many bytes on the host's repeated string instructions are quicker than single accesses.
const BULK: u64 = 64;

/// [`GuestMem`] over a user address space. One fault-safe host access per operation; the interval map is
/// only asked after a fault.
#[derive(Clone, Copy)]
pub struct UserMem<'a> {
    pub space: &'a UserSpace,
}

impl<'a> UserMem<'a> {
    pub fn new(space: &'a UserSpace) -> UserMem<'a> {
        UserMem { space }
    }

    #[inline(always)]
    fn aligned(va: GuestVa, op: MemOp, kind: AccessKind) -> Result<(), MemFault> {
        if op.align() != MemAlign::Any && !va.is_aligned(op.align_bytes() as u64) {
            return Err(MemFault { va, kind, cause: FaultCause::Align });
        }
        Ok(())
    }

    /// After a host fault: repeats the access without an ignored address tag, or says what was wrong.
    #[cold]
    #[inline(never)]
    fn retry<T>(
        self,
        va: GuestVa,
        len: u32,
        kind: AccessKind,
        access: impl Fn(usize) -> Result<T, Fault>,
    ) -> Result<T, MemFault> {
        let plain = self.space.untag(va);
        if plain != va
            && let Ok(value) = access(self.space.host_ptr(plain))
        {
            return Ok(value);
        }
        Err(self.space.fault_cause(va, len as u64, kind))
    }

    /// Whether the elements are many and lie in one piece on the host.
    fn is_bulk(self, va: GuestVa, op: MemOp, count: u64) -> bool {
        let end = count.checked_mul(op.bytes() as u64).and_then(|len| va.0.checked_add(len));
        let limit = if self.space.is_window() { 1 << 32 } else { u64::MAX };
        count.saturating_mul(op.bytes() as u64) >= BULK && end.is_some_and(|end| end <= limit)
    }

    #[inline(always)]
    fn access<T>(
        self,
        va: GuestVa,
        op: MemOp,
        kind: AccessKind,
        access: impl Fn(usize) -> Result<T, Fault>,
    ) -> Result<T, MemFault> {
        Self::aligned(va, op, kind)?;
        match access(self.space.host_ptr(va)) {
            Ok(value) => Ok(value),
            Err(Fault) => self.retry(va, op.bytes(), kind, access),
        }
    }
}

/// Puts the low `bytes` of `value` into guest byte order (and back).
#[inline(always)]
pub(crate) fn order_bytes(value: u64, op: MemOp) -> u64 {
    if op.big_endian() { value.swap_bytes() >> (64 - 8 * op.bytes()) } else { value }
}
#[inline(always)]
pub(crate) fn order_bytes128(value: u128, op: MemOp) -> u128 {
    if op.big_endian() { value.swap_bytes() } else { value }
}

#[inline(always)]
pub(crate) fn extend(value: u64, op: MemOp) -> u64 {
    if !op.signed() {
        return value;
    }
    match op.log2() {
        0 => value as i8 as u64,
        1 => value as i16 as u64,
        2 => value as i32 as u64,
        _ => value,
    }
}

pub(crate) fn mask(op: MemOp) -> u64 {
    u64::MAX >> (64 - 8 * op.bytes().min(8))
}

/// Loads `1 << log2` bytes (at most 8), zero-extended, in host byte order.
#[inline(always)]
pub(crate) fn load(host: usize, log2: u8) -> Result<u64, Fault> {
    match log2 {
        0 => raw::load8(host).map(u64::from),
        1 => raw::load16(host).map(u64::from),
        2 => raw::load32(host).map(u64::from),
        _ => raw::load64(host),
    }
}

pub(crate) fn xchg(host: usize, log2: u8, value: u64) -> Result<u64, Fault> {
    match log2 {
        0 => raw::xchg8(host, value as u8).map(u64::from),
        1 => raw::xchg16(host, value as u16).map(u64::from),
        2 => raw::xchg32(host, value as u32).map(u64::from),
        _ => raw::xchg64(host, value),
    }
}

fn xadd(host: usize, log2: u8, value: u64) -> Result<u64, Fault> {
    match log2 {
        0 => raw::xadd8(host, value as u8).map(u64::from),
        1 => raw::xadd16(host, value as u16).map(u64::from),
        2 => raw::xadd32(host, value as u32).map(u64::from),
        _ => raw::xadd64(host, value),
    }
}

pub(crate) fn cas(host: usize, log2: u8, expected: u64, new: u64) -> Result<u64, Fault> {
    match log2 {
        0 => raw::cas8(host, expected as u8, new as u8).map(u64::from),
        1 => raw::cas16(host, expected as u16, new as u16).map(u64::from),
        2 => raw::cas32(host, expected as u32, new as u32).map(u64::from),
        _ => raw::cas64(host, expected, new),
    }
}

/// What `rmw` stores when it finds `old`; both are zero-extended values of the access size.
pub(crate) fn combine(rmw: RmwOp, op: MemOp, old: u64, operand: u64) -> u64 {
    let sext = |v| extend(v, op.with_sign()) as i64;
    let pick = |first: bool| if first { old } else { operand };
    match rmw {
        RmwOp::Xchg => operand,
        RmwOp::Add => old.wrapping_add(operand) & mask(op),
        RmwOp::Sub => old.wrapping_sub(operand) & mask(op),
        RmwOp::And => old & operand,
        RmwOp::AndNot => old & !operand,
        RmwOp::Or => old | operand,
        RmwOp::Xor => old ^ operand,
        RmwOp::MinS => pick(sext(old) <= sext(operand)),
        RmwOp::MaxS => pick(sext(old) >= sext(operand)),
        RmwOp::MinU => pick(old <= operand),
        RmwOp::MaxU => pick(old >= operand),
    }
}

/// A read-modify-write with a value as operand; the memory bytes from before.
#[inline(always)]
pub(crate) fn rmw_at(host: usize, op: MemOp, rmw: RmwOp, operand: u64) -> Result<u64, Fault> {
    let log2 = op.log2();
    match rmw {
        RmwOp::Xchg => xchg(host, log2, order_bytes(operand, op)),
        RmwOp::Add if !op.big_endian() => xadd(host, log2, operand),
        RmwOp::Sub if !op.big_endian() => xadd(host, log2, operand.wrapping_neg()),
        _ => {
            let mut seen = load(host, log2)?;
            loop {
                let new = combine(rmw, op, order_bytes(seen, op), operand);
                let old = cas(host, log2, seen, order_bytes(new, op))?;
                if old == seen {
                    return Ok(old);
                }
                seen = old;
            }
        }
    }
}

impl GuestMem for UserMem<'_> {
    #[inline(always)]
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        let v = self.access(va, op, AccessKind::Read, |host| load(host, op.log2()))?;
        Ok(extend(order_bytes(v, op), op))
    }

    #[inline(always)]
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        let value = order_bytes(value, op);
        self.access(va, op, AccessKind::Write, |host| {
            if op.order() == MemOrder::SeqCst {
                return xchg(host, op.log2(), value).map(drop);
            }
            match op.log2() {
                0 => raw::store8(host, value as u8),
                1 => raw::store16(host, value as u16),
                2 => raw::store32(host, value as u32),
                _ => raw::store64(host, value),
            }
        })
    }

    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        let atomic = op.order() != MemOrder::Plain && va.is_aligned(16);
        let v = self.access(va, op, AccessKind::Read, |host| {
            if atomic { raw::load128_atomic(host) } else { raw::load128(host) }
        })?;
        Ok(order_bytes128(v, op))
    }

    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        let value = order_bytes128(value, op);
        let atomic = op.order() != MemOrder::Plain && va.is_aligned(16);
        self.access(va, op, AccessKind::Write, |host| {
            if atomic {
                raw::store128_atomic(host, value)?
            } else {
                raw::store128(host, value)?
            }
            if op.order() == MemOrder::SeqCst {
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            }
            Ok(())
        })
    }

    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, operand: u64) -> Result<u64, MemFault> {
        let operand = operand & mask(op);
        let old = self.access(va, op, AccessKind::Write, |host| rmw_at(host, op, rmw, operand))?;
        Ok(order_bytes(old, op))
    }

    fn cas(&mut self, va: GuestVa, op: MemOp, expected: u128, new: u128) -> Result<u128, MemFault> {
        if op.log2() == 4 {
            // The host has no 16-byte compare-and-swap across alignment, and guests demand alignment.
            let op = op.with_align(MemAlign::Sixteen);
            let (expected, new) = (order_bytes128(expected, op), order_bytes128(new, op));
            let old =
                self.access(va, op, AccessKind::Write, |host| raw::cas128(host, expected, new))?;
            return Ok(order_bytes128(old, op));
        }
        let ordered = |v: u128| order_bytes(v as u64 & mask(op), op);
        let old = self.access(va, op, AccessKind::Write, |host| {
            cas(host, op.log2(), ordered(expected), ordered(new))
        })?;
        Ok(order_bytes(old, op) as u128)
    }

    fn copy_elements(
        &mut self,
        dst: GuestVa,
        src: GuestVa,
        op: MemOp,
        count: u64,
    ) -> (u64, Option<MemFault>) {
        let mut done = 0;
        if self.is_bulk(dst, op, count) && self.is_bulk(src, op, count) {
            let (to, from) = (self.space.host_ptr(dst), self.space.host_ptr(src));
            done = raw::copy_elements(to, from, op.log2(), count as usize) as u64;
        }
        // What faulted is tried again, and explained.
        copy_one_by_one(self, dst, src, op, done..count)
    }

    fn fill_elements(
        &mut self,
        dst: GuestVa,
        op: MemOp,
        count: u64,
        value: u64,
    ) -> (u64, Option<MemFault>) {
        let mut done = 0;
        if self.is_bulk(dst, op, count) {
            let (to, bytes) = (self.space.host_ptr(dst), order_bytes(value, op));
            done = raw::fill_elements(to, op.log2(), count as usize, bytes) as u64;
        }
        fill_one_by_one(self, dst, op, done..count, value)
    }
}
