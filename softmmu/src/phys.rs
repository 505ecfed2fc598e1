//! Guest-physical memory of a system guest.
//!
//! All RAM, ROM and video memory of a machine is one *backing*: one host mapping that stays as it is from start to end. A
//! page of the backing is a *frame*. A table says which frame each guest-physical page shows, if any; the board changes
//! it at any time (shadowed ROM, windows that move). Pages without a frame are devices, and the board's.
//!
//! So a guest reaches host memory only through frames: an address is bounded by the table, a frame by
//! [`PhysMem::map`]. The backing is anonymous memory that nobody unmaps, so accesses to it never fault.
//!
//! # Code and display
//! Each frame has flags, and a bit for each of its 64 *lines* of 64 bytes that holds translated code. Who makes a TLB entry
//! for writing announces it ([`WRITABLE`]) and learns at the same moment whether the frame has code ([`CODE`]); who
//! translates announces code and learns whether such an entry may exist. All stores that do not go through a fast TLB entry
//! end in [`PhysMem::written`], which tells the listener when they hit a line with code. `docs/system-memory.md` has the
//! whole argument.

use crate::raw;
use parking_lot::{Mutex, RwLock};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};
use tulk_base::GuestPa;

/// log2 of the page size.
pub const PAGE_LOG2: u32 = tulk_base::machine::PHYS_PAGE_LOG2;
const PAGE: u64 = 1 << PAGE_LOG2;
/// log2 of the bytes of a line.
pub const LINE_LOG2: u32 = 6;

/// Frame flag: it has, or is about to have, translated code.
pub const CODE: u8 = 1;
/// Frame flag: a TLB may hold a fast entry for writing.
pub const WRITABLE: u8 = 2;
/// Frame flag, only with [`CODE`]: no store through an entry from before the code is under way any more.
pub const SETTLED: u8 = 4;

// Entries of the page table; the frame's offset in the backing above them.
const PRESENT: u64 = 1;
const READ_ONLY: u64 = 2;
const TRACKED: u64 = 4;

// Dirty bits of a frame: since the last look, and in the interval before it.
const DIRTY_NOW: u8 = 1;
const DIRTY_BEFORE: u8 = 2;

/// What a guest-physical page shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PhysKind {
    Ram,
    /// Reads come from the backing, writes go to the board.
    Rom,
    /// RAM whose changes somebody follows with [`PhysMem::take_dirty`].
    Tracked,
}

/// The frame that a guest-physical page shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhysPage {
    pub frame: u32,
    pub kind: PhysKind,
}

/// The engine, as memory sees it. Called on any thread; may be called while the board holds locks.
pub trait PhysListener: Send + Sync {
    /// The table of pages changed: no translation made before may be used any more.
    fn remapped(&self);
    /// TLB entries for writing to these frames must become slow. True when there were any.
    fn protect(&self, frames: Range<u32>) -> bool;
    /// `len` bytes at `offset` of a frame, some of them code, were written.
    fn code_written(&self, frame: u32, offset: u32, len: u32);
}

/// See the module.
pub struct PhysMem {
    host: usize,
    frames: u32,
    pages: Box<[AtomicU64]>,
    flags: Box<[AtomicU8]>,
    lines: Box<[AtomicU64]>,
    dirty: Box<[AtomicU8]>,
    listeners: RwLock<Vec<Weak<dyn PhysListener>>>,
    /// Held by who changes `pages`.
    mapping: Mutex<()>,
    /// Threads that translate now, between announcing and publishing a block.
    pub translating: AtomicU32,
    /// Counts stores to frames with code while somebody translates.
    pub disturbed: AtomicU64,
}

/// Why there is no memory for a guest.
#[derive(Debug, thiserror::Error)]
pub enum PhysError {
    #[error("guest memory of {0} bytes: not a multiple of the page size, or too large")]
    Size(u64),
    #[error("no host memory for the guest's: {0}")]
    Host(#[source] std::io::Error),
}

impl PhysMem {
    /// Memory with a backing of `backing` bytes (zeroed), in which frames can be shown at guest-physical addresses below
    /// `end`. Both are multiples of 4096. Nothing is mapped.
    ///
    /// # Errors
    /// Bad sizes (above 8 TiB), or the host has no address space left.
    pub fn new(backing: u64, end: u64) -> Result<Arc<PhysMem>, PhysError> {
        const MOST: u64 = 1 << 43;
        for size in [backing, end] {
            if size == 0 || !size.is_multiple_of(PAGE) || size > MOST {
                return Err(PhysError::Size(size));
            }
        }
        let host = raw::map_ram(backing)
            .map_err(|e| PhysError::Host(std::io::Error::from_raw_os_error(e)))?;
        let frames = (backing / PAGE) as usize;
        Ok(Arc::new(PhysMem {
            host,
            frames: frames as u32,
            pages: raw::zeroed_slice((end / PAGE) as usize),
            flags: raw::zeroed_slice(frames),
            lines: raw::zeroed_slice(frames),
            dirty: raw::zeroed_slice(frames),
            listeners: RwLock::default(),
            mapping: Mutex::default(),
            translating: AtomicU32::new(0),
            disturbed: AtomicU64::new(0),
        }))
    }

    /// Bytes of the backing.
    pub fn backing_len(&self) -> u64 {
        (self.frames as u64) << PAGE_LOG2
    }

    pub fn add_listener(&self, listener: Weak<dyn PhysListener>) {
        let mut listeners = self.listeners.write();
        listeners.retain(|l| l.strong_count() > 0);
        listeners.push(listener);
    }

    fn each_listener(&self, mut f: impl FnMut(&dyn PhysListener)) {
        // Not called under the lock: a listener may take its own locks.
        let listeners = self.listeners.read().clone();
        listeners.iter().filter_map(Weak::upgrade).for_each(|l| f(&*l));
    }

    // The map.

    /// Shows `len` bytes of the backing from `offset` on at `pa`. All three are multiples of 4096.
    ///
    /// # Panics
    /// When they are not, or lie outside the backing or the address space of [`PhysMem::new`]: boards map what they
    /// made, never what a guest asks for.
    pub fn map(&self, pa: GuestPa, len: u64, offset: u64, kind: PhysKind) {
        assert!(offset.is_multiple_of(PAGE) && offset.checked_add(len) <= Some(self.backing_len()));
        let flags = match kind {
            PhysKind::Ram => PRESENT,
            PhysKind::Rom => PRESENT | READ_ONLY,
            PhysKind::Tracked => PRESENT | TRACKED,
        };
        self.set_pages(pa, len, |n| (offset + n * PAGE) | flags);
    }

    /// Leaves `len` bytes at `pa` to the board.
    ///
    /// # Panics
    /// As [`PhysMem::map`].
    pub fn unmap(&self, pa: GuestPa, len: u64) {
        self.set_pages(pa, len, |_| 0);
    }

    fn set_pages(&self, pa: GuestPa, len: u64, entry: impl Fn(u64) -> u64) {
        assert!(pa.is_aligned(PAGE) && len.is_multiple_of(PAGE));
        let first = (pa.0 >> PAGE_LOG2) as usize;
        let pages = &self.pages[first..][..(len >> PAGE_LOG2) as usize];
        let mut changed = false;
        {
            let _mapping = self.mapping.lock();
            for (page, n) in pages.iter().zip(0..) {
                let new = entry(n);
                changed |= page.swap(new, Ordering::SeqCst) != new;
            }
        }
        if changed {
            self.drop_translations();
        }
    }

    /// Has all cached translations dropped: something that decides about addresses changed (x86: the A20 gate).
    pub fn drop_translations(&self) {
        self.each_listener(|l| l.remapped());
    }

    /// What the page of `pa` shows; `None`: a device, or nothing.
    #[inline]
    pub fn page(&self, pa: u64) -> Option<PhysPage> {
        let entry = self.pages.get((pa >> PAGE_LOG2) as usize)?.load(Ordering::Acquire);
        if entry & PRESENT == 0 {
            return None;
        }
        let kind = match entry & (READ_ONLY | TRACKED) {
            0 => PhysKind::Ram,
            TRACKED => PhysKind::Tracked,
            _ => PhysKind::Rom,
        };
        Some(PhysPage { frame: (entry >> PAGE_LOG2) as u32, kind })
    }

    /// Host address of a frame.
    ///
    /// # Panics
    /// When there is no such frame.
    #[inline]
    pub fn frame_host(&self, frame: u32) -> usize {
        assert!(frame < self.frames);
        self.host + ((frame as usize) << PAGE_LOG2)
    }

    // Reading and writing.

    /// Calls `f` with each piece of `[pa, pa + len)` that lies in one page: its frame if it has one, the offset
    /// there, and where the piece lies in the whole.
    fn pieces(pa: u64, len: usize, mut f: impl FnMut(u64, Range<usize>)) {
        let mut done = 0;
        while done < len {
            let at = pa.wrapping_add(done as u64);
            let n = (len - done).min((PAGE - at % PAGE) as usize);
            f(at, done..done + n);
            done += n;
        }
    }

    /// Reads physical memory as a device does. Bytes without RAM or ROM read as ones; false when there were any.
    pub fn read(&self, pa: GuestPa, out: &mut [u8]) -> bool {
        let mut complete = true;
        Self::pieces(pa.0, out.len(), |at, piece| match self.page(at) {
            Some(page) => {
                let host = self.frame_host(page.frame) + (at % PAGE) as usize;
                raw::copy_from(&mut out[piece], host);
            }
            None => {
                out[piece].fill(0xff);
                complete = false;
            }
        });
        complete
    }

    /// Writes physical memory as a device does; drops translations of what it overwrites. Bytes without RAM are ignored;
    /// false when there were any.
    pub fn write(&self, pa: GuestPa, data: &[u8]) -> bool {
        let mut complete = true;
        Self::pieces(pa.0, data.len(), |at, piece| match self.page(at) {
            Some(PhysPage { frame, kind: PhysKind::Ram | PhysKind::Tracked }) => {
                let offset = (at % PAGE) as u32;
                raw::copy_to(self.frame_host(frame) + offset as usize, &data[piece.clone()]);
                self.written(frame, offset, piece.len() as u32);
            }
            _ => complete = false,
        });
        complete
    }

    /// Reads the backing itself, whatever is shown where.
    ///
    /// # Panics
    /// Outside of it.
    pub fn read_backing(&self, offset: u64, out: &mut [u8]) {
        assert!(offset.checked_add(out.len() as u64) <= Some(self.backing_len()));
        raw::copy_from(out, self.host + offset as usize);
    }

    /// Writes the backing, ROM too.
    ///
    /// # Panics
    /// Outside of it.
    pub fn write_backing(&self, offset: u64, data: &[u8]) {
        assert!(offset.checked_add(data.len() as u64) <= Some(self.backing_len()));
        Self::pieces(offset, data.len(), |at, piece| {
            raw::copy_to(self.host + at as usize, &data[piece.clone()]);
            self.written((at >> PAGE_LOG2) as u32, (at % PAGE) as u32, piece.len() as u32);
        });
    }

    /// Reads an aligned number of 1, 2, 4 or 8 bytes of RAM or ROM, in host byte order; `None` elsewhere.
    #[inline]
    pub fn load(&self, pa: u64, bytes: u8) -> Option<u64> {
        let page = self.page(pa)?;
        let offset = (pa % PAGE) as usize & !(bytes as usize - 1);
        let host = self.frame_host(page.frame) + offset;
        let value = match bytes {
            1 => raw::load8(host).map(u64::from),
            2 => raw::load16(host).map(u64::from),
            4 => raw::load32(host).map(u64::from),
            _ => raw::load64(host),
        };
        value.ok()
    }

    /// Replaces an aligned number of 4 or 8 bytes of RAM if it is `old`. `None`: not RAM; else whether it was.
    pub fn replace(&self, pa: u64, bytes: u8, old: u64, new: u64) -> Option<bool> {
        let page = self.page(pa).filter(|p| p.kind != PhysKind::Rom)?;
        let offset = (pa % PAGE) as u32 & !(bytes as u32 - 1);
        let host = self.frame_host(page.frame) + offset as usize;
        let same = match bytes {
            4 => raw::cas32(host, old as u32, new as u32).ok()? == old as u32,
            _ => raw::cas64(host, old, new).ok()? == old,
        };
        if same {
            self.written(page.frame, offset, bytes as u32);
        }
        Some(same)
    }

    // Code.

    /// Bits of the lines that `[offset, offset + len)` of a frame touches; `len` is at least 1.
    #[inline]
    pub fn line_bits(offset: u32, len: u32) -> u64 {
        let (first, last) = (offset >> LINE_LOG2, (offset + len - 1).min(4095) >> LINE_LOG2);
        (u64::MAX >> (63 - last)) & (u64::MAX << first)
    }

    /// Must follow every store to a frame that did not go through a fast TLB entry.
    #[inline]
    pub fn written(&self, frame: u32, offset: u32, len: u32) {
        // The store before, the look at the flags behind: who announces code does it the other way round.
        fence(Ordering::SeqCst);
        if self.dirty[frame as usize].load(Ordering::Relaxed) & DIRTY_NOW == 0 {
            self.dirty[frame as usize].fetch_or(DIRTY_NOW, Ordering::Relaxed);
        }
        if self.flags[frame as usize].load(Ordering::SeqCst) & CODE != 0 {
            self.written_beside_code(frame, offset, len);
        }
    }

    #[cold]
    fn written_beside_code(&self, frame: u32, offset: u32, len: u32) {
        if self.translating.load(Ordering::SeqCst) != 0 {
            self.disturbed.fetch_add(1, Ordering::SeqCst);
        }
        if self.has_code(frame, offset, len) {
            self.each_listener(|l| l.code_written(frame, offset, len));
        }
    }

    /// Whether a line that these bytes touch holds translated code.
    #[inline]
    pub fn has_code(&self, frame: u32, offset: u32, len: u32) -> bool {
        self.lines[frame as usize].load(Ordering::SeqCst) & Self::line_bits(offset, len) != 0
    }

    /// The frame's flags.
    #[inline]
    pub fn flags(&self, frame: u32) -> u8 {
        self.flags[frame as usize].load(Ordering::SeqCst)
    }
    /// Sets flags; what they were before.
    #[inline]
    pub fn set_flags(&self, frame: u32, flags: u8) -> u8 {
        self.flags[frame as usize].fetch_or(flags, Ordering::SeqCst)
    }
    #[inline]
    pub fn clear_flags(&self, frame: u32, flags: u8) -> u8 {
        self.flags[frame as usize].fetch_and(!flags, Ordering::SeqCst)
    }
    /// Adds lines with code.
    pub fn add_lines(&self, frame: u32, bits: u64) {
        self.lines[frame as usize].fetch_or(bits, Ordering::SeqCst);
    }
    /// Says which lines have code.
    pub fn set_lines(&self, frame: u32, bits: u64) {
        self.lines[frame as usize].store(bits, Ordering::SeqCst);
    }

    // Display.

    /// Whether stores to a tracked frame must be slow, because nobody noted one yet.
    #[inline]
    pub fn is_clean(&self, frame: u32) -> bool {
        self.dirty[frame as usize].load(Ordering::Relaxed) & DIRTY_NOW == 0
    }

    /// Calls `each` with the number (from the start of the range) of each page in `len` bytes of the backing at
    /// `offset` that may have been written since the last call. A page is named once more in the call behind that, for a
    /// store that was under way.
    ///
    /// # Panics
    /// Outside the backing.
    pub fn take_dirty(&self, offset: u64, len: u64, mut each: impl FnMut(usize)) {
        let first = (offset >> PAGE_LOG2) as usize;
        let dirty = &self.dirty[first..][..(len.div_ceil(PAGE)) as usize];
        let mut any = false;
        for (n, flags) in dirty.iter().enumerate() {
            let old = flags.load(Ordering::Relaxed);
            if old != 0 {
                // Now becomes before, and before is forgotten.
                let old = flags.swap(0, Ordering::Relaxed);
                if old & DIRTY_NOW != 0 {
                    flags.fetch_or(DIRTY_BEFORE, Ordering::Relaxed);
                    any = true;
                }
                each(n);
            }
        }
        if any {
            let frames = first as u32..(first + dirty.len()) as u32;
            self.each_listener(|l| {
                l.protect(frames.clone());
            });
        }
    }
}

impl Drop for PhysMem {
    fn drop(&mut self) {
        let _ = raw::unmap(self.host, self.backing_len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_frames() {
        let mem = PhysMem::new(16 * PAGE, 64 * PAGE).unwrap();
        mem.map(GuestPa(0), 4 * PAGE, 0, PhysKind::Ram);
        mem.map(GuestPa(32 * PAGE), 2 * PAGE, 14 * PAGE, PhysKind::Rom);
        // The last ROM page again, and RAM under another address.
        mem.map(GuestPa(8 * PAGE), PAGE, 15 * PAGE, PhysKind::Rom);
        mem.map(GuestPa(9 * PAGE), PAGE, PAGE, PhysKind::Ram);
        mem.write_backing(15 * PAGE + 5, b"rom");
        let mut buffer = [0; 3];
        assert!(mem.read(GuestPa(8 * PAGE + 5), &mut buffer));
        assert_eq!(&buffer, b"rom");
        assert!(!mem.write(GuestPa(33 * PAGE + 5), b"xyz"));
        assert!(mem.read(GuestPa(33 * PAGE + 5), &mut buffer));
        assert_eq!(&buffer, b"rom");
        assert!(mem.write(GuestPa(9 * PAGE - 1 - 7 * PAGE), b"abc"));
        assert_eq!(mem.load(9 * PAGE - 7 * PAGE, 1), Some(b'b' as u64));
        mem.write_backing(PAGE, &7u64.to_le_bytes());
        assert_eq!(mem.load(9 * PAGE, 8), Some(7));
        assert_eq!(mem.replace(9 * PAGE, 8, 7, 8), Some(true));
        assert_eq!(mem.replace(PAGE, 8, 7, 9), Some(false));
        assert_eq!(mem.load(PAGE, 4), Some(8));
        assert_eq!(mem.replace(32 * PAGE, 8, 0, 1), None);
        // Over the end of what is mapped.
        let mut buffer = [0; 4];
        assert!(!mem.read(GuestPa(4 * PAGE - 2), &mut buffer));
        assert_eq!(buffer, [0, 0, 0xff, 0xff]);
        mem.unmap(GuestPa(9 * PAGE), PAGE);
        assert_eq!(mem.page(9 * PAGE), None);
        assert_eq!(mem.page(u64::MAX), None);
        assert!(PhysMem::new(1, PAGE).is_err() && PhysMem::new(PAGE, 0).is_err());
    }

    #[test]
    fn lines_cover_their_bytes() {
        assert_eq!(PhysMem::line_bits(0, 1), 1);
        assert_eq!(PhysMem::line_bits(63, 2), 3);
        assert_eq!(PhysMem::line_bits(4095, 1), 1 << 63);
        assert_eq!(PhysMem::line_bits(0, 4096), u64::MAX);
        assert_eq!(PhysMem::line_bits(128, 64), 4);
    }

    #[test]
    fn dirty_pages_are_named_twice() {
        let mem = PhysMem::new(16 * PAGE, 16 * PAGE).unwrap();
        mem.map(GuestPa(0), 16 * PAGE, 0, PhysKind::Tracked);
        let take = || {
            let mut found = Vec::new();
            mem.take_dirty(4 * PAGE, 8 * PAGE, |n| found.push(n));
            found
        };
        assert!(mem.write(GuestPa(5 * PAGE), &[1]) && mem.write(GuestPa(2 * PAGE), &[1]));
        assert!(!mem.is_clean(5));
        assert_eq!(take(), [1]);
        assert!(mem.is_clean(5));
        assert_eq!(take(), [1]);
        assert_eq!(take(), [0usize; 0]);
    }
}
