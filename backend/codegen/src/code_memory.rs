//! Memory for machine code: one memfd mapped twice, writable and executable, never both in one mapping.
//!
//! The address space of the whole limit is reserved at the start; host memory is used as pages are touched. Blocks
//! are multiples of [`Region::ALIGN`], and of at least [`MIN_BLOCK`] bytes. They come from a best-fit free list of what was given back, which merges
//! neighbours, and else from the fresh end. Whole pages of a large freed block go back to the host. All
//! methods may be called from several threads.
//!
//! A forked child shares the memory with its parent, so it must not go on with it: it takes a [`Snapshot`] that the parent
//! made before, at the same addresses.
//!
//! This is the only file of the crate with `unsafe`. Writing into a block that nobody runs, storing one
//! aligned word atomically, and mapping: nothing else happens here. That freed code no longer runs is the
//! caller's promise and cannot be checked here.

use crate::Region;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Default limit: 256 MiB.
pub const DEFAULT_LIMIT: usize = 256 << 20;

/// Least bytes of a block, so that at most one starts in as many aligned bytes.
pub const MIN_BLOCK: usize = 64;

/// Most bytes of code memory: what the displacement of a jump spans.
const MOST: usize = (1 << 31) - PAGE;

/// Freed ranges of at least this size return their pages to the host.
const RELEASE_SIZE: usize = 64 << 10;
const PAGE: usize = 4096;

/// After so many new bytes, and at least one in [`FORGET_SHARE`] of all, the writable view forgets its pages: what was
/// written is mostly only run from then on, and a page mapped twice counts twice in the resident set. Links bring some
/// pages back one by one, which costs faults.
const FORGET_EVERY: usize = 256 << 10;
const FORGET_SHARE: usize = 16;

/// See the module.
pub struct CodeMemory {
    views: Views,
    free: Mutex<FreeList>,
}

/// The two mappings of one piece of memory.
struct Views {
    writable: usize,
    executable: usize,
    len: usize,
}

/// A copy of a code memory for a forked child, see [`CodeMemory::snapshot`].
pub struct Snapshot {
    views: Views,
}

/// A block of code memory. Dropping it leaks the memory; give it back with [`CodeMemory::free`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct CodeBlock {
    // Below `MOST`.
    offset: u32,
    len: u32,
}

impl CodeBlock {
    /// Bytes from the start of the memory.
    pub fn offset(&self) -> usize {
        self.offset as usize
    }
    /// Bytes occupied.
    pub fn len(&self) -> usize {
        self.len as usize
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What is free: ranges that were given back, and everything from `fresh` to `limit`, which never was used or is as
/// good.
#[derive(Default)]
struct FreeList {
    by_offset: BTreeMap<usize, usize>,
    by_len: BTreeSet<(usize, usize)>,
    fresh: usize,
    limit: usize,
    used: usize,
    /// Bytes written since the writable view forgot its pages.
    written: usize,
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
        let offset = match self.by_len.range((len, 0)..).next() {
            Some(&(found, offset)) => {
                self.remove(offset, found);
                if found > len {
                    self.insert(offset + len, found - len);
                }
                offset
            }
            None if self.limit - self.fresh >= len => {
                self.fresh += len;
                self.fresh - len
            }
            None => return None,
        };
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
        if offset + len == self.fresh {
            self.fresh = offset;
        } else {
            self.insert(offset, len);
        }
        (offset, len)
    }
}

impl Views {
    /// New memory; `fill` gets it before it is mapped.
    fn new(len: usize, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<Views> {
        // SAFETY: a constant NUL-terminated name.
        let fd = unsafe { libc::memfd_create(c"tulk-code".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // The mappings keep the memory. A descriptor would be in the way of a guest that owns all numbers: it could
        // close it, and later calls of ours would hit a file of the guest.
        // SAFETY: a descriptor that nobody else has.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len(len as u64)?;
        fill(&file)?;
        let map = |protection| {
            // SAFETY: a new mapping at an address that the kernel chooses; nothing of ours is replaced.
            let p = unsafe {
                let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
                libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0)
            };
            if p == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(p as usize) }
        };
        let mut views = Views { writable: 0, executable: 0, len };
        views.writable = map(libc::PROT_READ | libc::PROT_WRITE)?;
        views.executable = map(libc::PROT_READ | libc::PROT_EXEC)?;
        Ok(views)
    }

    /// Moves the mappings to where `other` has its own, which go.
    fn replace(mut self, other: &Views) -> io::Result<()> {
        debug_assert_eq!(self.len, other.len);
        let pairs =
            [(&mut self.writable, other.writable), (&mut self.executable, other.executable)];
        for (from, to) in pairs {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let target = to as *mut libc::c_void;
            // SAFETY: both are whole mappings of ours. What is replaced is memory of the same length, and the caller
            // of `CodeMemory::adopt` promises that nobody uses it.
            let moved = unsafe {
                libc::mremap(*from as *mut libc::c_void, other.len, other.len, flags, target)
            };
            if moved == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            *from = 0;
        }
        Ok(())
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        // SAFETY: our own mappings; nothing in them is used any more.
        unsafe {
            for view in [self.writable, self.executable] {
                if view != 0 {
                    libc::munmap(view as *mut libc::c_void, self.len);
                }
            }
        }
    }
}

impl CodeMemory {
    /// Reserves `limit` bytes (rounded up to pages, at most 2 GiB) of address space, twice.
    pub fn new(limit: usize) -> io::Result<CodeMemory> {
        let limit = limit.clamp(PAGE, MOST).next_multiple_of(PAGE);
        let views = Views::new(limit, |_| Ok(()))?;
        let free = Mutex::new(FreeList { limit, ..FreeList::default() });
        Ok(CodeMemory { views, free })
    }

    /// Locks the free list, for `fork`, and copies what is used if that is at most `limit` bytes. No word may be written
    /// until the fork.
    pub fn freeze(&self, limit: usize) -> (impl Sized + '_, Option<Snapshot>) {
        let list = self.lock();
        let mut snapshot = None;
        if list.fresh <= limit {
            // SAFETY: the readable view, whose words change only atomically; who writes to it waits for us.
            let used = unsafe {
                std::slice::from_raw_parts(self.views.executable as *const u8, list.fresh)
            };
            let copy = Views::new(self.views.len, |file| file.write_all_at(used, 0));
            snapshot = copy.ok().map(|views| Snapshot { views });
        }
        (list, snapshot)
    }

    /// In a forked child, whose only thread calls this: puts the copy that [`CodeMemory::freeze`] made in the place of the
    /// memory that is the parent's. After an error none of the code may be used.
    pub fn adopt(&self, snapshot: Snapshot) -> io::Result<()> {
        snapshot.views.replace(&self.views)
    }

    /// In a forked child, whose only thread calls this: starts with empty memory at the same addresses.
    pub fn renew(&self) -> io::Result<()> {
        let limit = self.views.len;
        *self.lock() = FreeList { limit, ..FreeList::default() };
        Views::new(limit, |_| Ok(()))?.replace(&self.views)
    }

    fn lock(&self) -> MutexGuard<'_, FreeList> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies `bytes` into a new block; `None` when no free range is large enough.
    pub fn allocate(&self, bytes: &[u8]) -> Option<CodeBlock> {
        let len = bytes.len().max(MIN_BLOCK).next_multiple_of(Region::ALIGN);
        let (offset, forget) = {
            let mut list = self.lock();
            let offset = list.take(len)?;
            list.written += len;
            let forget = list.written >= FORGET_EVERY.max(list.fresh / FORGET_SHARE);
            if forget {
                list.written = 0;
            }
            (offset, forget.then_some(list.fresh))
        };
        // SAFETY: `offset + len` lies in the mapping and the free list gave this range to us alone.
        unsafe {
            let to = (self.views.writable + offset) as *mut u8;
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            flush_instructions(self.views.executable + offset, bytes.len());
        }
        if let Some(used) = forget {
            let used = used.next_multiple_of(PAGE);
            // SAFETY: the mapping is shared: its pages live on in the file and come back when they are touched.
            unsafe {
                libc::madvise(self.views.writable as *mut libc::c_void, used, libc::MADV_DONTNEED)
            };
        }
        Some(CodeBlock { offset: offset as u32, len: len as u32 })
    }

    /// Gives a block back. No thread may run it or reach it through an edge, the ring or a jump cache any more.
    pub fn free(&self, block: CodeBlock) {
        let mut list = self.lock();
        let (given, given_len) = (block.offset(), block.len());
        let (offset, len) = list.give(given, given_len);
        if given_len < RELEASE_SIZE && len - given_len < RELEASE_SIZE && len < RELEASE_SIZE {
            return;
        }
        // Only pages that this block made free can hold anything; earlier ones were released before, or were
        // part of a range too small to bother and are cheap to release again.
        let start = offset.max(given.saturating_sub(RELEASE_SIZE)).next_multiple_of(PAGE);
        let end = (offset + len).min(given + given_len + RELEASE_SIZE) & !(PAGE - 1);
        if start < end {
            // SAFETY: the range is free, and the lock keeps it so. Failure costs only memory.
            unsafe {
                let at = (self.views.writable + start) as *mut libc::c_void;
                libc::madvise(at, end - start, libc::MADV_REMOVE)
            };
        }
    }

    /// Where the block's code runs.
    pub fn address(&self, block: &CodeBlock) -> usize {
        self.views.executable + block.offset()
    }

    /// The executable view: every address of generated code lies in it.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.views.executable..self.views.executable + self.views.len
    }

    /// Bytes in allocated blocks.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    pub fn limit(&self) -> usize {
        self.views.len
    }

    /// The word at an address of the executable view, such as an edge record's.
    ///
    /// # Panics
    /// When the address is not in this memory or not a multiple of 8.
    pub fn word(&self, address: usize) -> &AtomicU64 {
        let offset = address.wrapping_sub(self.views.executable);
        assert!(
            offset < self.views.len && offset.is_multiple_of(8),
            "no code word at {address:#x}"
        );
        // SAFETY: aligned and inside the writable mapping, which lives as long as `self`; while shared, words
        // are only accessed atomically (`allocate` writes only what nobody else refers to yet).
        unsafe { AtomicU64::from_ptr((self.views.writable + offset) as *mut u64) }
    }

    /// As loading from [`CodeMemory::word`], but by the executable view, whose pages are there anyway.
    ///
    /// # Panics
    /// As [`CodeMemory::word`].
    pub fn read(&self, address: usize) -> u64 {
        assert!(
            self.range().contains(&address) && address.is_multiple_of(8),
            "no code word at {address:#x}"
        );
        // SAFETY: aligned and inside the executable view, which is readable and lives as long as `self`; words
        // are only accessed atomically while shared, and an atomic load does not write.
        unsafe { AtomicU64::from_ptr(address as *mut u64) }.load(Ordering::Relaxed)
    }

    /// Links the edge record at this address to the code at `code`, or unlinks it with 0. Of two threads that link
    /// jumps of the same block at the same time one may be without effect: a lock must prevent that.
    pub fn link(&self, edge: usize, code: usize) {
        match crate::abi::jump_of_record(self.read(edge)) {
            None => self.word(edge).store(code as u64, Ordering::Release),
            Some(distance) => {
                // An unlinked jump leads to its record.
                let target = if code == 0 { edge } else { code };
                self.redirect(edge - distance as usize, target);
            }
        }
    }

    /// Changes where a jump leads whose displacement, at this address, lies in an aligned word. Processors that run it
    /// meanwhile find the old or the new one.
    fn redirect(&self, at: usize, target: usize) {
        let (word, shift) = (at & !7, 8 * (at & 7));
        debug_assert!(shift <= 32, "a displacement across words at {at:#x}");
        let distance = target.wrapping_sub(at + 4) as u32 as u64;
        let old = self.read(word);
        let new = old & !(0xffff_ffff << shift) | distance << shift;
        if new != old {
            self.word(word).store(new, Ordering::Release);
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
        assert_eq!((a.len(), b.len(), c.len()), (112, 64, 64));
        assert_eq!(memory.used(), 240);
        let at = memory.address(&a);
        memory.free(a);
        memory.free(c);
        memory.free(b);
        assert_eq!(memory.used(), 0);
        let all = memory.allocate(&vec![0x5a; 1 << 20]).unwrap();
        assert_eq!(memory.address(&all), at);
        assert!(memory.allocate(&[0]).is_none());
        memory.free(all);
        let list = memory.lock();
        assert_eq!((list.by_offset.len(), list.fresh), (0, 0));
    }

    /// What was written stays, however often the writable view forgets its pages.
    #[test]
    fn both_views_see_all_words() {
        let memory = CodeMemory::new(4 << 20).unwrap();
        let block = |n: u64| memory.allocate(&n.to_le_bytes().repeat(64)).unwrap();
        let blocks: Vec<CodeBlock> = (0..4096).map(block).collect();
        for (n, block) in blocks.iter().enumerate() {
            let word = memory.address(block) + 8;
            assert_eq!((memory.read(word), memory.read(word - 8)), (n as u64, n as u64));
            memory.link(word, n + 1);
        }
        for (n, block) in blocks.iter().enumerate() {
            let word = memory.address(block) + 8;
            assert_eq!(memory.read(word), n as u64 + 1);
            assert_eq!(memory.word(word).load(Ordering::Relaxed), n as u64 + 1);
        }
    }

    /// A jump is redirected wherever its displacement lies in its word, and leads to its record while not linked.
    #[test]
    fn links_of_jumps_change_their_displacement_only() {
        let memory = CodeMemory::new(1 << 20).unwrap();
        for at in [0usize, 1, 2, 3, 4, 8, 12] {
            let mut bytes = [0xa5; 64];
            let (record, jump) = (40usize, 8 + at);
            let word = crate::abi::jump_record((record - jump) as u32);
            bytes[record..record + 8].copy_from_slice(&word.to_le_bytes());
            let block = memory.allocate(&bytes).unwrap();
            let start = memory.address(&block);
            for (code, target) in
                [(start, start), (start + 0x1234, start + 0x1234), (0, start + record)]
            {
                memory.link(start + record, code);
                let distance = (target as isize - (start + jump + 4) as isize) as i32;
                bytes[jump..jump + 4].copy_from_slice(&distance.to_le_bytes());
                for (n, expected) in bytes.chunks_exact(8).enumerate() {
                    assert_eq!(memory.read(start + 8 * n).to_le_bytes(), expected, "{at} {n}");
                }
            }
            memory.free(block);
        }
    }

    #[test]
    fn a_child_goes_on_with_its_own_copy() {
        let memory = CodeMemory::new(1 << 20).unwrap();
        let block = memory.allocate(&7u64.to_le_bytes()).unwrap();
        let word = memory.address(&block);
        let (guard, none) = memory.freeze(0);
        drop(guard);
        assert!(none.is_none());
        let (guard, snapshot) = memory.freeze(1 << 20);
        drop(guard);
        // SAFETY: the child touches nothing but the memory, and leaves at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut good = memory.adopt(snapshot.unwrap()).is_ok();
            good &= memory.word(word).load(Ordering::Relaxed) == 7;
            memory.link(word, 8);
            let more = memory.allocate(&9u64.to_le_bytes()).unwrap();
            // SAFETY: as above; the word is readable through the executable view.
            unsafe {
                good &= std::ptr::read_volatile(word as *const u64) == 8;
                good &= std::ptr::read_volatile(memory.address(&more) as *const u64) == 9;
                libc::_exit(!good as i32)
            }
        }
        let mut status = 0;
        // SAFETY: waits for our child.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        assert_eq!(memory.word(word).load(Ordering::Relaxed), 7);
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
