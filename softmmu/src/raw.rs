//! Host memory accesses that survive a fault, and the host calls that shape guest memory.
//!
//! Guest memory can vanish or change its protection at any time, so every access to it is a host
//! instruction at a known address: when it faults, the SIGSEGV/SIGBUS handler asks [`fixup`] for the
//! address to continue at, and the accessor returns [`Fault`]. No Rust reference to guest memory exists.
//!
//! **Trust.** In a flat address space guest addresses are host addresses: a guest that stores to an
//! address that it never mapped can hit tulk, as it could hit itself. The functions here are safe to
//! call in the sense that tulk's own code passes only addresses that [`crate::UserSpace`] derived from
//! guest addresses, and that what the guest does to its own process is the guest's business.
//!
//! Hosts: `raw/x86_64.rs` (inline assembly and a fixup table), `raw/generic.rs` (system calls that
//! check; slow, for hosts without a file of their own).

use std::sync::atomic::{AtomicU32, Ordering};
use tulk_base::tlb::{ITLB_ENTRIES, TLB_ENTRY_LOG2, TLB_PAGE_LOG2, TlbEntry, itlb_index};

#[cfg(target_arch = "x86_64")]
#[path = "raw/x86_64.rs"]
mod host;
#[cfg(not(target_arch = "x86_64"))]
#[path = "raw/generic.rs"]
mod host;

pub use host::{
    cas8, cas16, cas32, cas64, cas128, copy_elements, copy_from, copy_to, fill_elements, fixup,
    load8, load16, load32, load64, load128, load128_atomic, store8, store16, store32, store64,
    store128, store128_atomic, xadd8, xadd16, xadd32, xadd64, xchg8, xchg16, xchg32, xchg64,
};

/// A host access faulted; why is for the interval map to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

/// The host's error number of a failed call.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The host's page size.
pub fn page_size() -> u64 {
    // SAFETY: sysconf only reads.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// `mmap`. `addr` is a host address inside the guest's range, or anything without `MAP_FIXED`.
pub(crate) fn map(
    addr: usize,
    len: u64,
    prot: i32,
    flags: i32,
    fd: i32,
    offset: u64,
) -> Result<usize, i32> {
    // SAFETY: callers pass MAP_FIXED only for ranges that the interval map says are the guest's (or
    // reserved for it), so no mapping of tulk's own is replaced.
    let p = unsafe { libc::mmap(addr as *mut _, len as usize, prot, flags, fd, offset as i64) };
    if p == libc::MAP_FAILED {
        return Err(errno());
    }
    // Kernels before 4.17 take MAP_FIXED_NOREPLACE for a mere hint.
    if flags & libc::MAP_FIXED_NOREPLACE != 0 && p as usize != addr {
        unmap(p as usize, len)?;
        return Err(libc::EEXIST);
    }
    Ok(p as usize)
}

/// `munmap` of guest memory.
pub(crate) fn unmap(addr: usize, len: u64) -> Result<(), i32> {
    // SAFETY: only ranges that the interval map holds as the guest's.
    match unsafe { libc::munmap(addr as *mut _, len as usize) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// `mprotect` of guest memory.
pub(crate) fn protect(addr: usize, len: u64, prot: i32) -> Result<(), i32> {
    // SAFETY: only ranges that the interval map holds as the guest's.
    match unsafe { libc::mprotect(addr as *mut _, len as usize, prot) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// `mremap` of guest memory; `to` is used with `MREMAP_FIXED`.
pub(crate) fn remap(
    addr: usize,
    old_len: u64,
    new_len: u64,
    flags: i32,
    to: usize,
) -> Result<usize, i32> {
    // SAFETY: both ranges are the guest's or reserved for it, as for `map`.
    let p = unsafe {
        libc::mremap(addr as *mut _, old_len as usize, new_len as usize, flags, to as *mut u8)
    };
    if p == libc::MAP_FAILED { Err(errno()) } else { Ok(p as usize) }
}

/// Types of which all zero bytes are a value.
///
/// # Safety
/// Just that.
pub(crate) unsafe trait Zeroed {}

// SAFETY: numbers.
unsafe impl Zeroed for std::sync::atomic::AtomicU8 {}
// SAFETY: numbers.
unsafe impl Zeroed for AtomicU32 {}
// SAFETY: numbers.
unsafe impl Zeroed for std::sync::atomic::AtomicU64 {}

/// Zeroed memory of which only what is written costs anything.
pub(crate) fn zeroed_slice<T: Zeroed>(n: usize) -> Box<[T]> {
    // SAFETY: what the trait says.
    unsafe { Box::new_zeroed_slice(n).assume_init() }
}

/// Anonymous memory for a guest's RAM: of the host only what is touched, in large pages where the host can.
pub(crate) fn map_ram(len: u64) -> Result<usize, i32> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let host = map(0, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
    // SAFETY: advice on the mapping just made.
    unsafe { libc::madvise(host as *mut _, len as usize, libc::MADV_HUGEPAGE) };
    Ok(host)
}

/// A table of TLB entries as its owner's fast path sees it.
#[derive(Clone, Copy)]
pub(crate) struct View {
    /// `(entries - 1) << TLB_ENTRY_LOG2`.
    pub mask: u64,
    pub base: *const TlbEntry,
}

// SAFETY: the entries are atomics; `View::entry` says when the pointer is used.
unsafe impl Send for View {}

impl View {
    pub const NONE: View = View { mask: 0, base: std::ptr::null() };

    pub fn of(table: &[TlbEntry]) -> View {
        View { mask: (table.len() as u64 - 1) << TLB_ENTRY_LOG2, base: table.as_ptr() }
    }

    /// The entry in which the page of `va` may be. Only [`crate::TlbOwner`] has views, and only of tables that exist: it
    /// is the only one to move or free a table, and looks where they are before it returns from doing so.
    #[inline(always)]
    pub fn entry(&self, va: u64) -> Option<&TlbEntry> {
        if self.base.is_null() {
            return None;
        }
        let offset =
            va >> (TLB_PAGE_LOG2 - TLB_ENTRY_LOG2) & self.mask & !((1 << TLB_ENTRY_LOG2) - 1);
        // SAFETY: the table exists, see above; the mask keeps the offset inside it, at a multiple of the entry's size.
        Some(unsafe { &*self.base.byte_add(offset as usize) })
    }
}

/// A code TLB, as [`View`].
#[derive(Clone, Copy)]
pub(crate) struct CodeView(*const AtomicU32);

// SAFETY: as for `View`.
unsafe impl Send for CodeView {}

impl CodeView {
    pub const NONE: CodeView = CodeView(std::ptr::null());
    pub fn of(table: &[AtomicU32]) -> CodeView {
        assert_eq!(table.len(), ITLB_ENTRIES);
        CodeView(table.as_ptr())
    }
    pub fn address(self) -> u64 {
        self.0 as u64
    }
    /// The entry that belongs to the page of `va`; 0 without a table.
    #[inline]
    pub fn get(&self, va: u64) -> u32 {
        if self.0.is_null() {
            return 0;
        }
        // SAFETY: the table exists, as for `View`; the index is below its length.
        unsafe { &*self.0.add(itlb_index(va)) }.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Once;

    /// Installs a handler for SIGSEGV and SIGBUS that does what the engine's does for accessors.
    pub(crate) fn install_handler() {
        static ONCE: Once = Once::new();
        extern "C" fn handler(sig: i32, _: *mut libc::siginfo_t, cx: *mut libc::c_void) {
            // SAFETY: the kernel passes a valid ucontext to an SA_SIGINFO handler.
            let cx = unsafe { &mut *(cx as *mut libc::ucontext_t) };
            #[cfg(target_arch = "x86_64")]
            {
                let pc = &mut cx.uc_mcontext.gregs[libc::REG_RIP as usize];
                if let Some(to) = fixup(*pc as usize) {
                    *pc = to as i64;
                    return;
                }
            }
            let _ = cx;
            // SAFETY: restoring the default action and returning repeats the fault, which ends the test.
            unsafe { libc::signal(sig, libc::SIG_DFL) };
        }
        ONCE.call_once(|| {
            for sig in [libc::SIGSEGV, libc::SIGBUS] {
                // SAFETY: a zeroed sigaction is valid, the handler has the SA_SIGINFO signature.
                unsafe {
                    let mut sa: libc::sigaction = std::mem::zeroed();
                    sa.sa_sigaction = handler as *const () as usize;
                    sa.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
                    libc::sigaction(sig, &sa, std::ptr::null_mut());
                }
            }
        });
    }

    const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

    #[test]
    fn accesses_recover_from_faults() {
        install_handler();
        let p = map(0, 8192, libc::PROT_READ | libc::PROT_WRITE, ANON, -1, 0).unwrap();
        protect(p + 4096, 4096, libc::PROT_NONE).unwrap();
        let bad = p + 4096;
        assert_eq!(store64(p, 0x1122_3344_5566_7788), Ok(()));
        assert_eq!(load8(p), Ok(0x88));
        assert_eq!(load16(p + 1), Ok(0x6677));
        assert_eq!(load32(p + 4), Ok(0x1122_3344));
        assert_eq!(load8(bad), Err(Fault));
        assert_eq!(load64(bad - 4), Err(Fault));
        assert_eq!(load128(bad - 8), Err(Fault));
        assert_eq!(load128_atomic(bad), Err(Fault));
        assert_eq!(store8(bad, 1), Err(Fault));
        assert_eq!(store16(bad - 1, 1), Err(Fault));
        assert_eq!(store32(bad, 1), Err(Fault));
        assert_eq!(store128(bad, 1), Err(Fault));
        assert_eq!(store128_atomic(bad, 1), Err(Fault));
        assert_eq!(xchg32(bad, 1), Err(Fault));
        assert_eq!(xadd64(bad, 1), Err(Fault));
        assert_eq!(cas64(bad, 1, 2), Err(Fault));
        assert_eq!(cas128(bad, 1, 2), Err(Fault));
        // Addresses that no mapping can have raise a general protection fault instead.
        assert_eq!(load64(0x00ff_0000_0000_0000), Err(Fault));
        let mut buf = [0u8; 4096];
        assert_eq!(copy_from(&mut buf, bad - 100), 100);
        assert_eq!(copy_to(bad - 7, &[9; 64]), 7);
        assert_eq!(load8(bad - 1), Ok(9));
        unmap(p, 8192).unwrap();
    }

    #[test]
    fn atomics_return_the_old_value() {
        let p = map(0, 4096, libc::PROT_READ | libc::PROT_WRITE, ANON, -1, 0).unwrap();
        store64(p, 40).unwrap();
        assert_eq!(xadd64(p, 2), Ok(40));
        assert_eq!(xchg8(p, 7), Ok(42));
        assert_eq!(cas32(p, 7, 8), Ok(7));
        assert_eq!(cas32(p, 7, 9), Ok(8));
        assert_eq!(cas8(p, 8, 0xff), Ok(8));
        assert_eq!(xadd8(p, 1), Ok(0xff));
        assert_eq!(load64(p), Ok(0));
        let big = 0x0123_4567_89ab_cdef_1122_3344_5566_7788u128;
        assert_eq!(cas128(p + 16, 0, big), Ok(0));
        assert_eq!(cas128(p + 16, 0, 1), Ok(big));
        assert_eq!(load128(p + 16), Ok(big));
        assert_eq!(load128_atomic(p + 16), Ok(big));
        store128_atomic(p + 32, !big).unwrap();
        assert_eq!(load128(p + 32), Ok(!big));
        store128(p + 49, big).unwrap();
        assert_eq!(load128(p + 49), Ok(big));
        unmap(p, 4096).unwrap();
    }
}
