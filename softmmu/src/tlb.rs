//! A vCPU's translation caches: data TLBs and code TLBs, for several address spaces at once.
//!
//! [`tulk_base::tlb`] has the layout that generated code reads. Here is who fills it and what is dropped when.
//!
//! * The vCPU's thread has the [`TlbOwner`]: it fills, flushes, switches spaces, moves tables. The [`Tlb`] behind it is also known
//!   to others, who only take rights away: [`Tlb::clear`] (the physical map changed) and [`Tlb::protect`] (frames got code
//!   or are watched by a display). All of that happens under one lock; lookups of the owner and of its generated code take
//!   none, because others never move a table and change single words only.
//! * Each *space* (x86: PCID) has a set of tables of its own, so switching back to one refills nothing. The least lately used
//!   one makes room.
//! * A flush touches what was filled since the last one: each table keeps a log. Global pages survive in place.
//! * A large page is remembered in [`Table::large`]: what is missing of it is filled without a walk, and flushing one of its
//!   addresses drops all its pieces.
//! * A table doubles when more was filled into it than it holds, between flushes, and halves after many quiet flushes.
//!
//! A walk and what becomes of it are not one step: who walks takes a [`Ticket`] first, and [`TlbOwner::insert`] refuses when
//! anything was dropped since.

use crate::phys::{CODE, PhysKind, PhysMem, PhysPage, WRITABLE};
use crate::raw::{self, CodeView, View};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tulk_base::tlb::{ITLB_ENTRIES, MMU_MODES, TLB_PAGE_LOG2, TlbEntry, itlb_index};
use tulk_base::{AccessKind, Mapping, TlbFlush};

const PAGE_MASK: u64 = (1 << TLB_PAGE_LOG2) - 1;
/// A tag that nothing hits and that is no page's.
const NOTHING: u64 = u64::MAX;
/// Tag flag: allowed, but not by the fast path.
const SLOW: u64 = 1;

// Low bits of `TlbEntry::page`.
const GLOBAL: u64 = 1;
const SIZE_SHIFT: u32 = 1;
const SIZE_MASK: u64 = 0x3f << SIZE_SHIFT;

const NO_FRAME: u32 = u32::MAX;

/// Entries (log2) of a new data TLB, and of the largest.
const FIRST_LOG2: u32 = 8;
const LARGEST_LOG2: u32 = 13;
/// Quiet flushes in a row after which a table halves.
const QUIET: u32 = 64;
/// Address spaces kept.
const SPACES: usize = 8;
/// Large pages remembered in one table; with more it is emptied.
const LARGE_PAGES: usize = 512;

const RELAXED: Ordering = Ordering::Relaxed;

/// What was true before a walk, see the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(u64);

/// Where an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Physical address of the byte.
    pub pa: u64,
    pub page: Option<PhysPage>,
}

/// A virtual page's physical one for fetches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Large {
    mapping: Mapping,
}

/// For page numbers, which a guest gains nothing by choosing badly: a table has few.
#[derive(Default)]
struct PageHasher(u64);

impl Hasher for PageHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// The tables of one MMU index in one space.
struct Table {
    entries: Box<[TlbEntry]>,
    /// Of each entry that has, or had, a fast tag for stores the frame, else [`NO_FRAME`]: [`Table::protect`] looks through
    /// these, which are an eighth of the size.
    written: Box<[u32]>,
    /// Numbers of entries filled since they were last known to be empty, with repetitions; too long: any.
    log: Vec<u32>,
    /// Since the last flush or growth.
    fills: u32,
    quiet: u32,
    /// Large pages, by size (log2) and first address.
    large: HashMap<(u8, u64), Large, BuildHasherDefault<PageHasher>>,
    /// Bit n: `large` has, or had, pages of 2^n bytes.
    large_sizes: u64,
    code: Box<[AtomicU32]>,
    /// Which entries of `code` are of global pages.
    code_global: [u64; ITLB_ENTRIES / 64],
    /// Entries of `code` in use that are not.
    code_log: Vec<u16>,
}

struct Space {
    tag: u16,
    used: u64,
    tables: Vec<Table>,
}

struct Inner {
    spaces: Vec<Space>,
    current: usize,
    clock: u64,
    /// Counts whatever takes something away.
    drops: u64,
    /// Virtual pages of which no access is fast.
    watched: Vec<u64>,
}

/// See the module.
pub struct Tlb {
    inner: Mutex<Inner>,
    phys: Arc<PhysMem>,
    modes: u8,
}

/// The side of the vCPU's own thread.
pub struct TlbOwner {
    shared: Arc<Tlb>,
    /// Of the current space.
    views: [View; MMU_MODES],
    codes: [CodeView; MMU_MODES],
    /// The tables may be elsewhere than [`TlbOwner::words`] last said.
    moved: bool,
}

fn empty_entry() -> TlbEntry {
    TlbEntry {
        read: AtomicU64::new(NOTHING),
        write: AtomicU64::new(NOTHING),
        addend: AtomicU64::new(0),
        page: AtomicU64::new(0),
    }
}

fn empty_entries(log2: u32) -> Box<[TlbEntry]> {
    std::iter::repeat_with(empty_entry).take(1 << log2).collect()
}

impl Table {
    fn new() -> Table {
        Table {
            entries: empty_entries(FIRST_LOG2),
            written: vec![NO_FRAME; 1 << FIRST_LOG2].into(),
            log: Vec::new(),
            fills: 0,
            quiet: 0,
            large: HashMap::default(),
            large_sizes: 0,
            code: raw::zeroed_slice(ITLB_ENTRIES),
            code_global: [0; ITLB_ENTRIES / 64],
            code_log: Vec::new(),
        }
    }

    #[inline]
    fn number(&self, va: u64) -> usize {
        (va >> TLB_PAGE_LOG2) as usize & (self.entries.len() - 1)
    }

    fn clear_entry(entry: &TlbEntry) {
        entry.read.store(NOTHING, RELAXED);
        entry.write.store(NOTHING, RELAXED);
    }

    /// The virtual page of an entry that is not empty.
    fn page_of(entry: &TlbEntry) -> Option<u64> {
        let tags = [entry.read.load(RELAXED), entry.write.load(RELAXED)];
        tags.into_iter().find(|&tag| tag != NOTHING).map(|tag| tag & !PAGE_MASK)
    }

    fn clear(&mut self) {
        if self.log.len() >= self.entries.len() {
            self.entries.iter().for_each(Self::clear_entry);
        } else {
            self.log.iter().for_each(|&n| Self::clear_entry(&self.entries[n as usize]));
        }
        self.log.clear();
        self.large.clear();
        self.large_sizes = 0;
        self.clear_code();
    }

    fn clear_code(&mut self) {
        self.code.iter().for_each(|id| id.store(0, RELAXED));
        self.code_global.fill(0);
        self.code_log.clear();
    }

    fn clear_local(&mut self) {
        let local = |entry: &TlbEntry| entry.page.load(RELAXED) & GLOBAL == 0;
        if self.log.len() >= self.entries.len() {
            self.log.clear();
            for (entry, n) in self.entries.iter().zip(0..) {
                if local(entry) {
                    Self::clear_entry(entry);
                } else if Self::page_of(entry).is_some() {
                    self.log.push(n);
                }
            }
        } else {
            let entries = &self.entries;
            self.log.retain(|&n| {
                let gone = local(&entries[n as usize]);
                if gone {
                    Self::clear_entry(&entries[n as usize]);
                }
                !gone
            });
        }
        if !self.large.is_empty() {
            self.large.retain(|_, large| large.mapping.global);
        }
        let (code, global) = (&self.code, &self.code_global);
        for n in self.code_log.drain(..) {
            let n = n as usize;
            if global[n / 64] >> (n % 64) & 1 == 0 {
                code[n].store(0, RELAXED);
            }
        }
    }

    /// Drops the page of `va`; only where it is global, if `global`.
    fn clear_page(&mut self, va: u64, global: bool) {
        let wanted = |entry: &TlbEntry| !global || entry.page.load(RELAXED) & GLOBAL != 0;
        let entry = &self.entries[self.number(va)];
        if Self::page_of(entry) == Some(va & !PAGE_MASK) && wanted(entry) {
            Self::clear_entry(entry);
        }
        let n = itlb_index(va);
        if !global || self.code_global[n / 64] >> (n % 64) & 1 != 0 {
            self.code[n].store(0, RELAXED);
        }
        let mut sizes = self.large_sizes;
        while sizes != 0 {
            let log2 = sizes.trailing_zeros() as u8;
            sizes &= sizes - 1;
            let first = va >> log2 << log2;
            if self.large.remove(&(log2, first)).is_none() {
                continue;
            }
            for entry in &self.entries {
                let size = (entry.page.load(RELAXED) & SIZE_MASK) >> SIZE_SHIFT;
                if size == log2 as u64
                    && Self::page_of(entry).is_some_and(|p| p >> log2 << log2 == first)
                {
                    Self::clear_entry(entry);
                }
            }
            self.clear_code();
        }
    }

    /// Called at flushes of many pages.
    fn resize(&mut self) -> bool {
        let (fills, len) = (std::mem::take(&mut self.fills), self.entries.len());
        if fills as usize > len / 8 || len == 1 << FIRST_LOG2 {
            self.quiet = 0;
            return false;
        }
        self.quiet += 1;
        if self.quiet < QUIET {
            return false;
        }
        self.quiet = 0;
        self.rebuild(len.trailing_zeros() - 1);
        true
    }

    /// Moves everything to a table of another size.
    fn rebuild(&mut self, log2: u32) {
        let old = std::mem::replace(&mut self.entries, empty_entries(log2));
        let written = std::mem::replace(&mut self.written, vec![NO_FRAME; 1 << log2].into());
        self.log.clear();
        for (entry, frame) in old.into_iter().zip(written) {
            let Some(page) = Self::page_of(&entry) else { continue };
            let n = self.number(page);
            let to = &self.entries[n];
            to.read.store(entry.read.load(RELAXED), RELAXED);
            to.write.store(entry.write.load(RELAXED), RELAXED);
            to.addend.store(entry.addend.load(RELAXED), RELAXED);
            to.page.store(entry.page.load(RELAXED), RELAXED);
            self.written[n] = frame;
            self.log.push(n as u32);
        }
    }

    fn note(&mut self, n: usize) {
        if self.log.len() < self.entries.len() {
            self.log.push(n as u32);
        }
    }

    fn fill(
        &mut self,
        va: u64,
        mapping: &Mapping,
        page: Option<PhysPage>,
        phys: &PhysMem,
        watched: bool,
    ) -> bool {
        let mut moved = false;
        self.fills += 1;
        let len = self.entries.len();
        if self.fills as usize > 2 * len && len < 1 << LARGEST_LOG2 {
            self.fills = 0;
            self.rebuild(len.trailing_zeros() + 1);
            moved = true;
        }
        let vpage = va & !PAGE_MASK;
        let pa = physical(mapping, vpage);
        let n = self.number(va);
        self.note(n);
        let entry = &self.entries[n];
        let global = if mapping.global { GLOBAL } else { 0 };
        let (read, write, addend) = match page {
            None => (SLOW, SLOW, 0),
            Some(PhysPage { frame, kind }) => {
                let write = match kind {
                    PhysKind::Rom => SLOW,
                    _ if !mapping.write => 0,
                    // Announced before it is known whether it may be.
                    _ if phys.set_flags(frame, WRITABLE) & CODE != 0 => SLOW,
                    PhysKind::Tracked if phys.is_clean(frame) => SLOW,
                    _ => 0,
                };
                (0, write, (phys.frame_host(frame) as u64).wrapping_sub(vpage))
            }
        };
        let (read, write) = if watched { (SLOW, SLOW) } else { (read, write) };
        self.written[n] = match page {
            Some(page) if mapping.write && write == 0 => page.frame,
            _ => NO_FRAME,
        };
        entry
            .page
            .store(pa & !PAGE_MASK | global | (mapping.size_log2 as u64) << SIZE_SHIFT, RELAXED);
        entry.addend.store(addend, RELAXED);
        entry.read.store(if mapping.read { vpage | read } else { NOTHING }, RELAXED);
        entry.write.store(if mapping.write { vpage | write } else { NOTHING }, RELAXED);
        moved
    }

    fn remember(&mut self, va: u64, mapping: &Mapping) {
        let log2 = mapping.size_log2;
        if log2 as u32 <= TLB_PAGE_LOG2 || log2 >= 64 {
            return;
        }
        if self.large.len() >= LARGE_PAGES {
            self.clear();
        }
        self.large_sizes |= 1 << log2;
        let first = va >> log2 << log2;
        match self.large.entry((log2, first)) {
            // Several rights of one page come one after the other.
            std::collections::hash_map::Entry::Occupied(mut old) => {
                old.get_mut().mapping = *mapping
            }
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(Large { mapping: *mapping });
            }
        }
    }

    fn recall(&self, va: u64, kind: AccessKind) -> Option<Mapping> {
        let mut sizes = self.large_sizes;
        while sizes != 0 {
            let log2 = sizes.trailing_zeros() as u8;
            sizes &= sizes - 1;
            if let Some(large) = self.large.get(&(log2, va >> log2 << log2))
                && allows(&large.mapping, kind)
            {
                return Some(large.mapping);
            }
        }
        None
    }

    fn protect(&mut self, frames: &Range<u32>, phys: &PhysMem) -> bool {
        let mut any = false;
        let first = phys.frame_host(frames.start) as u64;
        let len = (frames.len() as u64) << TLB_PAGE_LOG2;
        let wanted = |frame: u32| frame.wrapping_sub(frames.start) < frames.len() as u32;
        // In steps that the host does at once.
        let rows = self.written.chunks(16).zip(self.entries.chunks(16));
        let near = rows.filter(|(row, _)| row.iter().fold(false, |any, &f| any | wanted(f)));
        for entry in near.flat_map(|(_, entries)| entries) {
            let tag = entry.write.load(RELAXED);
            if tag & PAGE_MASK != 0 {
                continue;
            }
            let host = tag.wrapping_add(entry.addend.load(RELAXED));
            if host.wrapping_sub(first) < len {
                entry.write.store(tag | SLOW, Ordering::SeqCst);
                any = true;
            }
        }
        any
    }
}

fn allows(mapping: &Mapping, kind: AccessKind) -> bool {
    match kind {
        AccessKind::Read => mapping.read,
        AccessKind::Write => mapping.write,
        AccessKind::Exec => mapping.exec,
    }
}

/// Where a mapping leads an address.
fn physical(mapping: &Mapping, va: u64) -> u64 {
    let inside = (1u64 << mapping.size_log2.min(63)).wrapping_sub(1);
    mapping.pa.0 & !inside | va & inside
}

impl Space {
    fn new(tag: u16, modes: u8) -> Space {
        Space { tag, used: 0, tables: (0..modes).map(|_| Table::new()).collect() }
    }
}

impl Inner {
    fn each(&mut self, mut f: impl FnMut(&mut Table)) {
        self.spaces.iter_mut().flat_map(|s| &mut s.tables).for_each(&mut f);
    }
    fn table(&mut self, mmu: u8) -> &mut Table {
        &mut self.spaces[self.current].tables[mmu as usize]
    }
}

impl Tlb {
    /// Of a vCPU that uses MMU indexes below `modes`, in space 0.
    pub fn new(phys: Arc<PhysMem>, modes: u8) -> Arc<Tlb> {
        let modes = modes.clamp(1, MMU_MODES as u8);
        let spaces = vec![Space::new(0, modes)];
        let inner = Inner { spaces, current: 0, clock: 0, drops: 0, watched: Vec::new() };
        Arc::new(Tlb { inner: Mutex::new(inner), phys, modes })
    }

    /// Drops everything. For any thread.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.drops += 1;
        inner.each(Table::clear);
    }

    /// Makes all data accesses to these virtual pages (addresses without the low 12 bits) slow, in every space, and no
    /// others any more. For any thread.
    pub fn watch(&self, pages: &[u64]) {
        let mut inner = self.inner.lock();
        inner.drops += 1;
        inner.watched = pages.to_vec();
        inner.each(Table::clear);
    }

    /// Makes stores to these frames slow. True when some were fast. For any thread.
    pub fn protect(&self, frames: Range<u32>) -> bool {
        let mut any = false;
        self.inner.lock().each(|table| any |= table.protect(&frames, &self.phys));
        any
    }

    /// Forgets all code page ids: they will mean other pages. For any thread.
    pub fn clear_code(&self) {
        let mut inner = self.inner.lock();
        inner.drops += 1;
        inner.each(Table::clear_code);
    }
}

impl TlbOwner {
    pub fn new(shared: Arc<Tlb>) -> TlbOwner {
        let mut owner = TlbOwner {
            shared,
            views: [View::NONE; MMU_MODES],
            codes: [CodeView::NONE; MMU_MODES],
            moved: true,
        };
        owner.look();
        owner
    }

    pub fn shared(&self) -> &Arc<Tlb> {
        &self.shared
    }

    /// Finds out where the tables are now.
    fn look(&mut self) {
        let mut inner = self.shared.inner.lock();
        for mmu in 0..self.shared.modes {
            let table = inner.table(mmu);
            self.views[mmu as usize] = View::of(&table.entries);
            self.codes[mmu as usize] = CodeView::of(&table.code);
        }
        self.moved = true;
    }

    /// For generated code, when something moved since the last call: calls `set` with each MMU index, the mask and the
    /// address of its data TLB, and the address of its code TLB.
    #[inline]
    pub fn words(&mut self, mut set: impl FnMut(usize, u64, u64, u64)) {
        if std::mem::take(&mut self.moved) {
            for mmu in 0..self.shared.modes as usize {
                let view = self.views[mmu];
                set(mmu, view.mask, view.base as u64, self.codes[mmu].address());
            }
        }
    }

    /// Host address for an access of `bytes` bytes that needs no care.
    #[inline(always)]
    pub fn host(&self, va: u64, bytes: u32, mmu: u8, write: bool) -> Option<usize> {
        let entry = self.views[mmu as usize & (MMU_MODES - 1)].entry(va)?;
        let tag = if write { &entry.write } else { &entry.read };
        let page = va.wrapping_add(bytes as u64 - 1) & !PAGE_MASK;
        (tag.load(RELAXED) == page).then(|| va.wrapping_add(entry.addend.load(RELAXED)) as usize)
    }

    /// Where an access goes that the cache knows and allows, fast or slow.
    pub fn find(&self, va: u64, mmu: u8, write: bool) -> Option<Found> {
        let entry = self.views[mmu as usize & (MMU_MODES - 1)].entry(va)?;
        let tag = if write { &entry.write } else { &entry.read };
        if tag.load(RELAXED) & !SLOW != va & !PAGE_MASK {
            return None;
        }
        let pa = entry.page.load(RELAXED) & !PAGE_MASK | va & PAGE_MASK;
        Some(Found { pa, page: self.shared.phys.page(pa) })
    }

    /// Before a walk: a ticket, and the mapping of a large page that makes the walk unnecessary.
    pub fn begin(&self, va: u64, kind: AccessKind, mmu: u8) -> (Ticket, Option<Mapping>) {
        let mut inner = self.shared.inner.lock();
        let ticket = Ticket(inner.drops);
        (ticket, inner.table(mmu).recall(va, kind))
    }

    /// Enters what a walk for `va` found. `None`: something was dropped meanwhile, so walk again.
    pub fn insert(&mut self, ticket: Ticket, va: u64, mmu: u8, mapping: &Mapping) -> Option<Found> {
        let mut inner = self.shared.inner.lock();
        if inner.drops != ticket.0 {
            return None;
        }
        let pa = physical(mapping, va);
        let page = self.shared.phys.page(pa);
        let watched = inner.watched.contains(&(va & !PAGE_MASK));
        let table = inner.table(mmu);
        table.remember(va, mapping);
        let moved = table.fill(va, mapping, page, &self.shared.phys, watched);
        drop(inner);
        if moved {
            self.look();
        }
        Some(Found { pa, page })
    }

    /// The same for a fetch: `id` gives the code page id of the frame. `None` also when there is none.
    pub fn insert_code(
        &mut self,
        ticket: Ticket,
        va: u64,
        mmu: u8,
        mapping: &Mapping,
        id: u32,
    ) -> Option<()> {
        let mut inner = self.shared.inner.lock();
        if inner.drops != ticket.0 {
            return None;
        }
        let table = inner.table(mmu);
        table.remember(va, mapping);
        let n = itlb_index(va);
        let (word, bit) = (n / 64, 1u64 << (n % 64));
        if mapping.global {
            table.code_global[word] |= bit;
        } else {
            table.code_global[word] &= !bit;
            if table.code_log.len() < 4 * ITLB_ENTRIES {
                table.code_log.push(n as u16);
            } else {
                table.clear_code();
                table.code_log.push(n as u16);
            }
        }
        table.code[n].store(id, RELAXED);
        Some(())
    }

    /// The code page id in the entry that belongs to `va`.
    #[inline]
    pub fn code_id(&self, va: u64, mmu: u8) -> u32 {
        self.codes[mmu as usize & (MMU_MODES - 1)].get(va)
    }

    /// Makes the entry for stores to `va` what it would be if it were filled now.
    pub fn refresh(&mut self, va: u64, mmu: u8) {
        let phys = &self.shared.phys;
        let mut inner = self.shared.inner.lock();
        let vpage = va & !PAGE_MASK;
        if inner.watched.contains(&vpage) {
            return;
        }
        let table = inner.table(mmu);
        let n = table.number(va);
        let entry = &table.entries[n];
        if entry.write.load(RELAXED) != vpage | SLOW {
            return;
        }
        let pa = entry.page.load(RELAXED);
        let Some(PhysPage { frame, kind }) = phys.page(pa) else { return };
        let slow = match kind {
            PhysKind::Rom => true,
            _ if phys.set_flags(frame, WRITABLE) & CODE != 0 => true,
            PhysKind::Tracked => phys.is_clean(frame),
            PhysKind::Ram => false,
        };
        if !slow {
            entry.write.store(vpage, RELAXED);
            table.written[n] = frame;
        }
    }

    pub fn flush(&mut self, what: TlbFlush) {
        let mut guard = self.shared.inner.lock();
        let inner = &mut *guard;
        inner.drops += 1;
        let current = inner.spaces[inner.current].tag;
        let mut moved = false;
        match what {
            TlbFlush::All => inner.each(Table::clear),
            TlbFlush::NonGlobal => inner.each(Table::clear_local),
            TlbFlush::Space(tag) => {
                for space in inner.spaces.iter_mut().filter(|s| s.tag == tag) {
                    space.tables.iter_mut().for_each(Table::clear_local);
                }
            }
            TlbFlush::Page { va, space } => {
                for s in &mut inner.spaces {
                    let global = s.tag != space;
                    s.tables.iter_mut().for_each(|t| t.clear_page(va.0, global));
                }
            }
            TlbFlush::NonGlobalPage { va, space } => {
                for s in inner.spaces.iter_mut().filter(|s| s.tag == space) {
                    s.tables.iter_mut().for_each(|t| t.clear_page(va.0, false));
                }
            }
        }
        if !matches!(what, TlbFlush::Page { .. } | TlbFlush::NonGlobalPage { .. }) {
            for space in inner.spaces.iter_mut().filter(|s| s.tag == current) {
                space.tables.iter_mut().for_each(|t| moved |= t.resize());
            }
        }
        drop(guard);
        if moved {
            self.look();
        }
    }

    /// From now on this space is the current one.
    pub fn switch_space(&mut self, tag: u16) {
        let mut inner = self.shared.inner.lock();
        let inner_ref = &mut *inner;
        if inner_ref.spaces[inner_ref.current].tag == tag {
            return;
        }
        inner_ref.drops += 1;
        inner_ref.clock += 1;
        let found = inner_ref.spaces.iter().position(|s| s.tag == tag);
        let n = found.unwrap_or_else(|| {
            if inner_ref.spaces.len() < SPACES {
                inner_ref.spaces.push(Space::new(tag, self.shared.modes));
                return inner_ref.spaces.len() - 1;
            }
            let oldest = (0..inner_ref.spaces.len())
                .filter(|&n| n != inner_ref.current)
                .min_by_key(|&n| inner_ref.spaces[n].used)
                .unwrap_or(0);
            let space = &mut inner_ref.spaces[oldest];
            space.tag = tag;
            space.tables.iter_mut().for_each(Table::clear);
            oldest
        });
        inner_ref.spaces[n].used = inner_ref.clock;
        inner_ref.current = n;
        drop(inner);
        self.look();
    }
}

#[cfg(test)]
#[path = "tlb/tests.rs"]
mod tests;
