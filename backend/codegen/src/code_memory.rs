//! Memory for machine code: one memfd mapped twice, writable and executable, never both in one mapping.
//!
//! The address space of the whole limit is reserved at the start; host memory is used as pages are touched. Blocks
//! are multiples of [`Region::ALIGN`] from a best-fit free list that merges neighbours; whole pages of a large
//! freed block go back to the host. All methods may be called from several threads.
//!
//! This is the only file of the crate with `unsafe`. Writing into a block that nobody runs, storing one
//! aligned word atomically, and mapping: nothing else happens here. That freed code no longer runs is the
//! caller's promise and cannot be checked here.

use crate::Region;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Default limit: 256 MiB.
pub const DEFAULT_LIMIT: usize = 256 << 20;

/// Freed ranges of at least this size return their pages to the host.
const RELEASE_SIZE: usize = 64 << 10;
const PAGE: usize = 4096;

/// See the module.
pub struct CodeMemory {
    writable: usize,
    executable: usize,
    limit: usize,
    free: Mutex<FreeList>,
}

/// A block of code memory. Dropping it leaks the memory; give it back with [`CodeMemory::free`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct CodeBlock {
    offset: usize,
    len: usize,
}

impl CodeBlock {
    /// Bytes occupied.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Default)]
struct FreeList {
    by_offset: BTreeMap<usize, usize>,
    by_len: BTreeSet<(usize, usize)>,
    used: usize,
}

impl FreeList {
    fn insert(&mut self, offset: usize, len: usize) {
        self.by_offset.insert(offset, len);
        self.by_len.insert((len, offset));
    }
    fn remove(&mut self, offset: usize, len: usize) {
        self.by_offset.remove(&offset);
        self.by_len.remove(&(len, offset));
    }
    fn take(&mut self, len: usize) -> Option<usize> {
        let &(found, offset) = self.by_len.range((len, 0)..).next()?;
        self.remove(offset, found);
        if found > len {
            self.insert(offset + len, found - len);
        }
        self.used += len;
        Some(offset)
    }
    /// Returns the free range that the block became part of.
    fn give(&mut self, mut offset: usize, mut len: usize) -> (usize, usize) {
        self.used -= len;
        if let Some((&before, &n)) = self.by_offset.range(..offset).next_back()
            && before + n == offset
        {
            self.remove(before, n);
            offset = before;
            len += n;
        }
        if let Some(&n) = self.by_offset.get(&(offset + len)) {
            self.remove(offset + len, n);
            len += n;
        }
        self.insert(offset, len);
        (offset, len)
    }
}

impl CodeMemory {
    /// Reserves `limit` bytes (rounded up to pages) of address space, twice.
    pub fn new(limit: usize) -> io::Result<CodeMemory> {
        let limit = limit.max(PAGE).next_multiple_of(PAGE);
        // SAFETY: a constant NUL-terminated name.
        let fd = unsafe { libc::memfd_create(c"tulk-code".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // The mappings keep the memory. A descriptor would be in the way of a guest that owns all numbers: it could
        // close it, and later calls of ours would hit a file of the guest.
        // SAFETY: a descriptor that nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let map = |protection| {
            // SAFETY: a new mapping at an address that the kernel chooses; nothing of ours is replaced.
            let p = unsafe {
                let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
                libc::mmap(std::ptr::null_mut(), limit, protection, flags, fd.as_raw_fd(), 0)
            };
            if p == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(p as usize) }
        };
        let mut memory = CodeMemory { writable: 0, executable: 0, limit, free: Mutex::default() };
        // SAFETY: our own descriptor.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), limit as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        memory.writable = map(libc::PROT_READ | libc::PROT_WRITE)?;
        memory.executable = map(libc::PROT_READ | libc::PROT_EXEC)?;
        memory.lock().insert(0, limit);
        Ok(memory)
    }

    fn lock(&self) -> MutexGuard<'_, FreeList> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies `bytes` into a new block; `None` when no free range is large enough.
    pub fn allocate(&self, bytes: &[u8]) -> Option<CodeBlock> {
        let len = bytes.len().max(1).next_multiple_of(Region::ALIGN);
        let offset = self.lock().take(len)?;
        // SAFETY: `offset + len` lies in the mapping and the free list gave this range to us alone.
        unsafe {
            let to = (self.writable + offset) as *mut u8;
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            flush_instructions(self.executable + offset, bytes.len());
        }
        Some(CodeBlock { offset, len })
    }

    /// Gives a block back. No thread may run it or reach it through an edge, the ring or a jump cache any more.
    pub fn free(&self, block: CodeBlock) {
        let mut list = self.lock();
        let (offset, len) = list.give(block.offset, block.len);
        if block.len < RELEASE_SIZE && len - block.len < RELEASE_SIZE && len < RELEASE_SIZE {
            return;
        }
        // Only pages that this block made free can hold anything; earlier ones were released before, or were
        // part of a range too small to bother and are cheap to release again.
        let start = offset.max(block.offset.saturating_sub(RELEASE_SIZE)).next_multiple_of(PAGE);
        let end = (offset + len).min(block.offset + block.len + RELEASE_SIZE) & !(PAGE - 1);
        if start < end {
            // SAFETY: the range is free, and the lock keeps it so. Failure costs only memory.
            unsafe {
                let at = (self.writable + start) as *mut libc::c_void;
                libc::madvise(at, end - start, libc::MADV_REMOVE)
            };
        }
    }

    /// Where the block's code runs.
    pub fn address(&self, block: &CodeBlock) -> usize {
        self.executable + block.offset
    }

    /// The executable view: every address of generated code lies in it.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.executable..self.executable + self.limit
    }

    /// Bytes in allocated blocks.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The word at an address of the executable view, such as an edge record's.
    ///
    /// # Panics
    /// When the address is not in this memory or not a multiple of 8.
    pub fn word(&self, address: usize) -> &AtomicU64 {
        let offset = address.wrapping_sub(self.executable);
        assert!(offset < self.limit && offset.is_multiple_of(8), "no code word at {address:#x}");
        // SAFETY: aligned and inside the writable mapping, which lives as long as `self`; while shared, words
        // are only accessed atomically (`allocate` writes only what nobody else refers to yet).
        unsafe { AtomicU64::from_ptr((self.writable + offset) as *mut u64) }
    }

    /// Links the edge record at this address to the region at `code`, or unlinks it with 0.
    pub fn link(&self, edge: usize, code: usize) {
        self.word(edge).store(code as u64, Ordering::Release);
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: our own mappings; blocks hold no pointers.
        unsafe {
            for view in [self.writable, self.executable] {
                if view != 0 {
                    libc::munmap(view as *mut libc::c_void, self.limit);
                }
            }
        }
    }
}

/// Makes new code visible to instruction fetch.
///
/// # Safety
/// The range must be mapped.
#[cfg(target_arch = "x86_64")]
unsafe fn flush_instructions(_address: usize, _len: usize) {}

/// Makes new code visible to instruction fetch.
///
/// # Safety
/// The range must be mapped.
#[cfg(target_arch = "aarch64")]
unsafe fn flush_instructions(address: usize, len: usize) {
    use std::arch::asm;
    let ctr: usize;
    // SAFETY: cache maintenance by address on mapped memory has no other effect.
    unsafe {
        asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack));
        let (dline, iline) = (4usize << (ctr >> 16 & 15), 4usize << (ctr & 15));
        let end = address + len;
        for line in (address & !(dline - 1)..end).step_by(dline) {
            asm!("dc cvau, {}", in(reg) line, options(nostack));
        }
        asm!("dsb ish", options(nostack));
        for line in (address & !(iline - 1)..end).step_by(iline) {
            asm!("ic ivau, {}", in(reg) line, options(nostack));
        }
        asm!("dsb ish", "isb", options(nostack));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_reused_and_merge() {
        let memory = CodeMemory::new(1 << 20).unwrap();
        let a = memory.allocate(&[1; 100]).unwrap();
        let b = memory.allocate(&[2; 64]).unwrap();
        let c = memory.allocate(&[3; 1]).unwrap();
        assert_eq!((a.len(), b.len(), c.len()), (128, 64, 64));
        assert_eq!(memory.used(), 256);
        let at = memory.address(&a);
        memory.free(a);
        memory.free(c);
        memory.free(b);
        assert_eq!(memory.used(), 0);
        let all = memory.allocate(&vec![0x5a; 1 << 20]).unwrap();
        assert_eq!(memory.address(&all), at);
        assert!(memory.allocate(&[0]).is_none());
        memory.free(all);
        assert_eq!(memory.lock().by_offset.len(), 1);
    }

    #[test]
    fn both_views_show_the_same_words() {
        let memory = CodeMemory::new(4096).unwrap();
        let block = memory.allocate(&7u64.to_le_bytes()).unwrap();
        let address = memory.address(&block);
        assert_eq!(memory.word(address).load(Ordering::Relaxed), u64::from_le(7));
        memory.link(address, 0x1234);
        // SAFETY: the executable view is readable and the block is ours.
        let seen = unsafe { std::ptr::read_volatile(address as *const u64) };
        assert_eq!(seen, 0x1234);
        memory.free(block);
    }

    #[test]
    #[should_panic(expected = "no code word")]
    fn foreign_addresses_are_refused() {
        CodeMemory::new(4096).unwrap().word(8);
    }
}
