//! The layout of a vCPU's translation caches: `softmmu` fills them, code of `backend/codegen` reads them.
//!
//! A *data TLB* is a power-of-two table of [`TlbEntry`], one table per MMU index. The entry for `va` has the number
//! `va >> 12` modulo the table's size. An access of `n` bytes hits when `(va + n - 1)` without its low 12 bits is the entry's
//! tag for that kind of access: low bits of a tag are flags, so an entry that needs care never hits, and neither does an
//! access that crosses into the next page. Then `va + addend` is the host address.
//!
//! A *code TLB* is a table of [`ITLB_ENTRIES`] numbers, one table per MMU index of fetches. The number in entry
//! [`itlb_index`] of a virtual page is the *code page id* that it has now, or another page's, or 0.

use std::sync::atomic::AtomicU64;

/// One page. Only the vCPU's own thread writes entries, but for flags that others set in `write` (under the TLB's lock).
#[derive(Debug)]
#[repr(C, align(32))]
pub struct TlbEntry {
    /// Tag for loads.
    pub read: AtomicU64,
    /// Tag for stores and atomics.
    pub write: AtomicU64,
    /// Host address minus guest address, modulo 2^64.
    pub addend: AtomicU64,
    /// Physical address of the page; in the low bits what `softmmu` wants to remember.
    pub page: AtomicU64,
}

/// log2 of the entry's size.
pub const TLB_ENTRY_LOG2: u32 = 5;
const _: () = assert!(size_of::<TlbEntry>() == 1 << TLB_ENTRY_LOG2);
/// Byte offsets of the fields.
pub const TLB_READ: i32 = 0;
pub const TLB_WRITE: i32 = 8;
pub const TLB_ADDEND: i32 = 16;
/// log2 of the page size that entries stand for.
pub const TLB_PAGE_LOG2: u32 = 12;
/// MMU indexes: as many as a [`crate::MemOp`] can name.
pub const MMU_MODES: usize = 16;

/// Entries of a code TLB, each 4 bytes.
pub const ITLB_ENTRIES: usize = 1 << 12;

/// The entry of a code TLB that belongs to the page of `va`.
#[inline]
pub const fn itlb_index(va: u64) -> usize {
    let page = va >> TLB_PAGE_LOG2;
    ((page ^ page >> 12 ^ page >> 24) as usize) & (ITLB_ENTRIES - 1)
}
