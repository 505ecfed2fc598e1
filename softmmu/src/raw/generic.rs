//! Fault-safe accesses for hosts without a file of their own: the kernel is asked whether the bytes can
//! be reached (`process_vm_readv`/`process_vm_writev` on ourselves report EFAULT instead of faulting).
//!
//! Plain accesses go through these calls altogether. Atomic ones test the page that way and then use a
//! host atomic; memory that another thread unmaps in between faults for real, which kills the process.
//! A host of its own avoids both with a fixup table like `x86_64.rs`.

use super::Fault;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};

/// No instruction here is allowed to fault.
pub fn fixup(_host_pc: usize) -> Option<usize> {
    None
}

/// Copies guest memory at `host` into `out`; returns how many bytes could be read.
pub fn copy_from(out: &mut [u8], host: usize) -> usize {
    let local = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    let remote = libc::iovec { iov_base: host as *mut _, iov_len: out.len() };
    // SAFETY: the local side is a slice of that length; the kernel checks the other side.
    let n = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    if n < 0 { 0 } else { n as usize }
}

/// Copies `data` to guest memory at `host`; returns how many bytes could be written.
pub fn copy_to(host: usize, data: &[u8]) -> usize {
    let local = libc::iovec { iov_base: data.as_ptr() as *mut _, iov_len: data.len() };
    let remote = libc::iovec { iov_base: host as *mut _, iov_len: data.len() };
    // SAFETY: as above.
    let n = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    if n < 0 { 0 } else { n as usize }
}

macro_rules! plain {
    ($($load:ident $store:ident $ty:ty;)*) => {$(
        #[doc = concat!("Loads a `", stringify!($ty), "`.")]
        pub fn $load(host: usize) -> Result<$ty, Fault> {
            let mut b = [0; size_of::<$ty>()];
            if copy_from(&mut b, host) == b.len() { Ok(<$ty>::from_ne_bytes(b)) } else { Err(Fault) }
        }
        #[doc = concat!("Stores a `", stringify!($ty), "`.")]
        pub fn $store(host: usize, value: $ty) -> Result<(), Fault> {
            let b = value.to_ne_bytes();
            if copy_to(host, &b) == b.len() { Ok(()) } else { Err(Fault) }
        }
    )*};
}
plain! {
    load8 store8 u8;
    load16 store16 u16;
    load32 store32 u32;
    load64 store64 u64;
    load128 store128 u128;
}

/// Proves that the byte at `host` can be written, by asking the kernel to make its page present for
/// writing (Linux 5.14), which changes no content.
fn probe(host: usize) -> Result<(), Fault> {
    let page = super::page_size() as usize;
    let start = (host & !(page - 1)) as *mut libc::c_void;
    // SAFETY: populating changes no memory content; the kernel checks the range.
    match unsafe { libc::madvise(start, page, libc::MADV_POPULATE_WRITE) } {
        0 => Ok(()),
        _ => Err(Fault),
    }
}

macro_rules! atomic {
    ($($xchg:ident $xadd:ident $cas:ident $ty:ty, $atomic:ty;)*) => {$(
        #[doc = concat!("Atomic exchange of a `", stringify!($ty), "`; the old value.")]
        pub fn $xchg(host: usize, value: $ty) -> Result<$ty, Fault> {
            probe(host)?;
            // SAFETY: just proved accessible; see the module for the race that remains.
            Ok(unsafe { <$atomic>::from_ptr(host as *mut $ty) }.swap(value, SeqCst))
        }
        #[doc = concat!("Atomic addition to a `", stringify!($ty), "`; the old value.")]
        pub fn $xadd(host: usize, value: $ty) -> Result<$ty, Fault> {
            probe(host)?;
            // SAFETY: as above.
            Ok(unsafe { <$atomic>::from_ptr(host as *mut $ty) }.fetch_add(value, SeqCst))
        }
        #[doc = concat!("Atomic compare-and-swap of a `", stringify!($ty), "`; the old value.")]
        pub fn $cas(host: usize, expected: $ty, new: $ty) -> Result<$ty, Fault> {
            probe(host)?;
            // SAFETY: as above.
            let cell = unsafe { <$atomic>::from_ptr(host as *mut $ty) };
            Ok(cell.compare_exchange(expected, new, SeqCst, SeqCst).unwrap_or_else(|old| old))
        }
    )*};
}
atomic! {
    xchg8 xadd8 cas8 u8, AtomicU8;
    xchg16 xadd16 cas16 u16, AtomicU16;
    xchg32 xadd32 cas32 u32, AtomicU32;
    xchg64 xadd64 cas64 u64, AtomicU64;
}

/// Sixteen-byte atomics exclude each other, not other sizes: the host has no such access in Rust.
static WIDE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Compare-and-swap of 16 bytes; the old value.
pub fn cas128(host: usize, expected: u128, new: u128) -> Result<u128, Fault> {
    let _guard = WIDE.lock();
    let old = load128(host)?;
    store128(host, if old == expected { new } else { old })?;
    Ok(old)
}

/// Loads 16 bytes as one access among the accesses of this module.
pub fn load128_atomic(host: usize) -> Result<u128, Fault> {
    let _guard = WIDE.lock();
    load128(host)
}

/// Stores 16 bytes as one access among the accesses of this module.
pub fn store128_atomic(host: usize, value: u128) -> Result<(), Fault> {
    let _guard = WIDE.lock();
    store128(host, value)
}

/// Copies `count` elements of `1 << log2` bytes (at most 8) one after another, upwards; returns how many were copied
/// before a fault. The ranges may overlap.
pub fn copy_elements(to: usize, from: usize, log2: u8, count: usize) -> usize {
    let copied = |at: usize| match log2 {
        0 => load8(from + at).and_then(|v| store8(to + at, v)),
        1 => load16(from + at).and_then(|v| store16(to + at, v)),
        2 => load32(from + at).and_then(|v| store32(to + at, v)),
        _ => load64(from + at).and_then(|v| store64(to + at, v)),
    };
    (0..count).take_while(|n| copied(n << log2).is_ok()).count()
}

/// Stores `count` elements of `1 << log2` bytes (at most 8), upwards; returns how many were stored before a fault.
pub fn fill_elements(to: usize, log2: u8, count: usize, value: u64) -> usize {
    let stored = |at: usize| match log2 {
        0 => store8(at, value as u8),
        1 => store16(at, value as u16),
        2 => store32(at, value as u32),
        _ => store64(at, value),
    };
    (0..count).take_while(|n| stored(to + (n << log2)).is_ok()).count()
}
