//! Machine code in code memory: where it is, what links to it, and how it goes away.
//!
//! A piece of code is [`Placed`]: the baseline code of one block, which belongs to its [`Tb`], or a region, which
//! belongs to the [`CodeStore`]. A block may have both: then the region runs, and the baseline code runs again
//! should the region be evicted.
//!
//! # Links
//! A direct exit leaves through an edge record behind its code, see [`tulk_codegen::abi`]. Records are *attached* to
//! their target block: at once when the block is known, else when the exit is taken first. All records attached to a block
//! form a list that starts in [`Tb::incoming`] and goes through the records' second words, so publishing code for a
//! block, or taking it away, changes one address or one jump for each; and code that goes away takes its records out of the
//! lists they are in. All that happens under one lock, as [`CodeMemory::link`] demands.
//!
//! # Retiring
//! Code goes in two steps. First the block's code word and the edges to it no longer name it ([`Leaving`]). Then all
//! vCPUs get its keys (see `invalidate.rs`), and only then does its grace period begin: before that, a jump cache or
//! return ring could lead to it from behind a quiescent point. The lock of the engine's index is held over both, so
//! that neither a `fork` nor the end of its block comes in between. Its memory is given back after the grace period,
//! and until then the fault index still knows it. Baseline code that a region replaces is not retired, so jump caches
//! may go on naming it: its counter stands at the limit then, it leaves at once, and the dispatcher corrects the entry.

use crate::engine::Engine;
use crate::host::epoch::{Epoch, Guard, Owned, Shared, lock};
use crate::host::fault_index::FaultIndex;
use crate::table::KeyMap;
use crate::tb::{Tb, code};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tulk_base::GuestVa;
use tulk_codegen::code_memory::{CodeBlock, CodeMemory, MIN_BLOCK, Snapshot};
use tulk_codegen::{Edge, EdgeKind, FaultMap, Region, abi};
use tulk_frontend::TbKey;

/// Code in code memory.
pub struct Placed {
    /// Alive as long as the code is.
    entry: Shared<Tb>,
    pub block: CodeBlock,
    pub fault_map: FaultMap,
    /// For each of its edge records the block that it is attached to, if it is.
    targets: Box<[Shared<Tb>]>,
    /// Where the records begin, one behind the other: offset in the code memory.
    records: u32,
    /// Its records are attached no more. Changed under the lock.
    retired: AtomicBool,
}

// There are tens of thousands of them.
const _: () = assert!(size_of::<Placed>() <= 56);

/// An edge record.
struct Record<'a> {
    /// The block that it is attached to, if it is.
    target: &'a Shared<Tb>,
    /// Offset in the code memory.
    offset: u32,
}

/// The second word of an edge record: whether it is attached, and its neighbours in the list: number of the
/// record (its offset in words plus one), or 0.
#[derive(Clone, Copy)]
struct Neighbours(u64);

impl Neighbours {
    const ATTACHED: u64 = 1 << 63;
    fn new(next: u32, before: u32) -> Neighbours {
        Neighbours(Self::ATTACHED | next as u64 | (before as u64) << 32)
    }
    fn attached(self) -> bool {
        self.0 & Self::ATTACHED != 0
    }
    fn next(self) -> u32 {
        self.0 as u32
    }
    fn before(self) -> u32 {
        ((self.0 & !Self::ATTACHED) >> 32) as u32
    }
}

struct PlacedRegion {
    placed: Owned<Placed>,
    members: Box<[TbKey]>,
}

/// Code that was taken away, until all vCPUs were told: then [`CodeStore::release`].
#[derive(Default)]
#[must_use]
pub struct Leaving {
    /// Blocks whose code it was: stale in jump caches now.
    pub keys: Vec<TbKey>,
    code: Vec<Owned<Placed>>,
}

/// What the lock protects, besides the lists of records.
#[derive(Default)]
pub struct Links {
    /// By address.
    regions: BTreeMap<usize, PlacedRegion>,
    /// Addresses of the regions that contain a block.
    members: KeyMap<TbKey, Vec<usize>>,
    /// Where in the memory the next eviction starts.
    hand: usize,
}

/// See the module. One per process.
pub struct CodeStore {
    pub memory: CodeMemory,
    heat_limit: u32,
    pub faults: FaultIndex,
    links: Mutex<Links>,
    /// Bytes that are retired but not yet free.
    leaving: AtomicUsize,
    /// The memory as a child that is being forked shall have it.
    snapshot: Mutex<Option<Snapshot>>,
    /// Counts how often everything was forgotten.
    generation: AtomicUsize,
    /// This process is a fork that got no memory of its own.
    unusable: AtomicBool,
}

/// Why code was not published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The code memory is full; room is being made.
    Full,
    /// It will never fit.
    TooLarge,
    /// A block was invalidated, or compiled by somebody else, meanwhile.
    Stale,
}

impl CodeStore {
    /// Memory for `limit` bytes; baseline code says so after `heat_limit` executions.
    pub fn new(limit: usize, heat_limit: u32) -> io::Result<Arc<CodeStore>> {
        let memory = CodeMemory::new(limit)?;
        let faults = FaultIndex::new(&memory);
        Ok(Arc::new(CodeStore {
            memory,
            heat_limit,
            faults,
            links: Mutex::default(),
            leaving: AtomicUsize::new(0),
            snapshot: Mutex::default(),
            generation: AtomicUsize::new(0),
            unusable: AtomicBool::new(false),
        }))
    }

    pub fn regions(&self) -> usize {
        lock(&self.links).regions.len()
    }

    pub fn lock(&self) -> MutexGuard<'_, Links> {
        lock(&self.links)
    }

    /// Bytes in use, without those that will be free soon.
    fn used(&self) -> usize {
        self.memory.used().saturating_sub(self.leaving.load(Ordering::Relaxed))
    }

    fn place(&self, entry: &Tb, region: &mut Region) -> Result<(Owned<Placed>, usize), Refused> {
        if !self.fits(region.bytes.len()) {
            return Err(Refused::TooLarge);
        }
        let block = self.memory.allocate(&region.bytes).ok_or(Refused::Full)?;
        let address = self.memory.address(&block);
        let records = region.edges.first().map_or(0, |edge| edge.offset);
        let placed = Placed {
            entry: Shared::default(),
            records: block.offset() as u32 + records,
            block,
            fault_map: std::mem::take(&mut region.fault_map),
            targets: region.edges.iter().map(|_| Shared::default()).collect(),
            retired: AtomicBool::new(false),
        };
        placed.entry.set(Some(entry));
        debug_assert!(
            self.records(&placed)
                .map(|record| record.offset)
                .eq(region.edges.iter().map(|edge| placed.block.offset() as u32 + edge.offset))
        );
        Ok((Owned::new(placed), address))
    }

    /// The edge records of code that is still in its place.
    fn records<'a>(&self, placed: &'a Placed) -> impl Iterator<Item = Record<'a>> {
        let mut next = placed.records;
        placed.targets.iter().map(move |target| {
            let offset = next;
            next +=
                abi::record_bytes(self.memory.read(self.memory.range().start + offset as usize));
            Record { target, offset }
        })
    }

    /// Whether so much code can be placed, now or after an eviction. One eviction frees [`Self::eviction`] bytes in a row.
    fn fits(&self, bytes: usize) -> bool {
        bytes <= self.eviction() && !self.unusable.load(Ordering::Relaxed)
    }

    fn eviction(&self) -> usize {
        self.memory.limit() / 4
    }

    /// Nobody knows it yet.
    fn discard(&self, placed: Owned<Placed>) -> Refused {
        self.memory.free(placed.free().block);
        Refused::Stale
    }

    /// Makes `region` the baseline code of a block that had none. `Ok` is its address.
    pub fn publish_baseline<'g>(
        &self,
        tb: &Tb,
        mut region: Region,
        find: impl Fn(TbKey) -> Option<&'g Tb>,
        guard: &'g Guard<'_>,
    ) -> Result<usize, Refused> {
        let (placed, address) = self.place(tb, &mut region)?;
        let _links = self.lock();
        if tb.code.load(Ordering::Acquire) != tb.plain() || tb.baseline.get(guard).is_some() {
            return Err(self.discard(placed));
        }
        self.faults.set(&placed.block, Some(&placed));
        for (edge, record) in region.edges.iter().zip(self.records(&placed)) {
            let target = match edge.kind {
                // Blocks that tier 0 went to are known without a search; others wait until they are.
                EdgeKind::Exit(_) => tb
                    .program
                    .exits()
                    .position(|exit| (exit.pc, exit.flags) == (edge.pc, edge.flags))
                    .and_then(|n| tb.edge(n).known(guard)),
                EdgeKind::ReturnSite => find(key_of(edge)),
            };
            if let Some(target) = target {
                self.attach(&record, target);
            }
        }
        tb.baseline.put(placed);
        tb.start_counting(region.derived, self.heat_limit);
        // The store that makes it run; an invalidation that came in between wins, and will find the code.
        let (old, new) = (tb.plain(), address as u64);
        if tb.code.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Err(Refused::Stale);
        }
        self.relink(tb);
        Ok(address)
    }

    /// Makes `region` the code of `members[0]`. `Ok` is its address.
    pub fn publish<'g>(
        self: &Arc<Self>,
        epoch: &Epoch,
        members: &[&Tb],
        mut region: Region,
        find: impl Fn(TbKey) -> Option<&'g Tb>,
        guard: &'g Guard<'_>,
    ) -> Result<usize, Refused> {
        let entry = members[0];
        let (placed, address) = self.place(entry, &mut region)?;
        let mut links = self.lock();
        let old = entry.code.load(Ordering::Acquire);
        let replaceable = old == entry.plain() || old == self.baseline_of(entry, guard);
        if !replaceable || !members.iter().all(|tb| tb.is_valid()) {
            return Err(self.discard(placed));
        }
        self.faults.set(&placed.block, Some(&placed));
        for (edge, record) in region.edges.iter().zip(self.records(&placed)) {
            if let Some(target) = find(key_of(edge)) {
                self.attach(&record, target);
            }
        }
        members.iter().for_each(|tb| tb.keep());
        let members: Box<[TbKey]> = members.iter().map(|tb| tb.key).collect();
        for &key in &members {
            links.members.entry(key).or_default().push(address);
        }
        links.regions.insert(address, PlacedRegion { placed, members });
        let new = address as u64;
        if entry.code.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            let mut leaving = Leaving::default();
            self.retire_region(&mut links, address, guard, &mut leaving);
            // Nobody saw it.
            self.release(epoch, leaving);
            return Err(Refused::Stale);
        }
        entry.in_region.store(true, Ordering::Relaxed);
        self.relink(entry);
        Ok(address)
    }

    /// What a block's code word is when its baseline code runs.
    fn baseline_of(&self, tb: &Tb, guard: &Guard<'_>) -> u64 {
        let baseline = tb.baseline.get(guard);
        baseline.map_or(tb.plain(), |placed| self.memory.address(&placed.block) as u64)
    }

    fn words(&self, number: u32) -> usize {
        self.memory.range().start + 8 * (number as usize - 1)
    }

    fn neighbours(&self, number: u32) -> Neighbours {
        Neighbours(self.memory.read(self.words(number) + 8))
    }

    fn set_neighbours(&self, number: u32, to: Neighbours) {
        self.memory.word(self.words(number) + 8).store(to.0, Ordering::Relaxed);
    }

    /// Puts a record into its target's list and links it if there is code. The lock is held.
    fn attach(&self, record: &Record<'_>, target: &Tb) {
        let number = record.number();
        if !target.is_valid() || self.neighbours(number).attached() {
            return;
        }
        let first = target.incoming.load(Ordering::Relaxed);
        if first != 0 {
            let next = self.neighbours(first).next();
            self.set_neighbours(first, Neighbours::new(next, number));
        }
        self.set_neighbours(number, Neighbours::new(first, 0));
        target.incoming.store(number, Ordering::Relaxed);
        record.target.set(Some(target));
        let code = target.code.load(Ordering::Acquire);
        if code > code::LAST {
            self.memory.link(self.words(number), code as usize);
        }
    }

    /// Takes a record out of its list. The lock is held.
    fn detach(&self, record: &Record<'_>, guard: &Guard<'_>) {
        let number = record.number();
        let place = self.neighbours(number);
        if !place.attached() {
            return;
        }
        let (next, before) = (place.next(), place.before());
        if next != 0 {
            self.set_neighbours(next, Neighbours::new(self.neighbours(next).next(), before));
        }
        if before != 0 {
            self.set_neighbours(before, Neighbours::new(next, self.neighbours(before).before()));
        } else if let Some(target) = record.target.get(guard) {
            // Attached, so the target was not dropped.
            target.incoming.store(next, Ordering::Relaxed);
        }
        self.set_neighbours(number, Neighbours(0));
        self.memory.link(self.words(number), 0);
    }

    /// Calls `each` on the records attached to a block. The lock is held.
    fn incoming(&self, tb: &Tb, mut each: impl FnMut(u32)) {
        let mut number = tb.incoming.load(Ordering::Relaxed);
        while number != 0 {
            let next = self.neighbours(number).next();
            each(number);
            number = next;
        }
    }

    /// Writes a block's present code into the records attached to it. The lock is held.
    fn relink(&self, tb: &Tb) {
        let now = tb.code.load(Ordering::Acquire);
        let code = if now > code::LAST { now as usize } else { 0 };
        self.incoming(tb, |number| self.memory.link(self.words(number), code));
    }

    /// A direct exit was left through this record, which is not linked, to `target`.
    pub fn exit_taken(&self, record: usize, target: &Tb, guard: &Guard<'_>) {
        if Neighbours(self.memory.read(record + 8)).attached() {
            return;
        }
        let _links = self.lock();
        let Some(placed) = self.faults.find(record, guard) else { return };
        let offset = (record - self.memory.range().start) as u32;
        if !placed.retired.load(Ordering::Relaxed)
            && let Some(record) = self.records(placed).find(|r| r.offset == offset)
        {
            self.attach(&record, target);
        }
    }

    /// Retires all code of a block that was just marked invalid, and that of other blocks that contains it.
    pub fn drop_block(&self, links: &mut Links, tb: &Tb, guard: &Guard<'_>, leaving: &mut Leaving) {
        self.incoming(tb, |number| {
            self.memory.link(self.words(number), 0);
            self.set_neighbours(number, Neighbours(0));
        });
        tb.incoming.store(0, Ordering::Relaxed);
        if let Some(placed) = tb.baseline.take() {
            self.retire(placed, guard, leaving);
        }
        for address in links.members.get(&tb.key).cloned().unwrap_or_default() {
            self.retire_region(links, address, guard, leaving);
        }
    }

    /// Retires code in the order of its addresses until at least `bytes` are on their way back.
    pub fn evict(&self, bytes: usize, guard: &Guard<'_>) -> Leaving {
        let mut links = self.lock();
        let (limit, hand) = (self.memory.limit(), links.hand);
        let (mut leaving, mut sum, mut end) = (Leaving::default(), 0, hand);
        let around = [hand..limit, 0..hand].map(|part| self.faults.each(part, guard));
        for placed in around.into_iter().flatten() {
            if sum >= bytes {
                break;
            }
            end = placed.block.offset() / MIN_BLOCK * MIN_BLOCK;
            let address = self.memory.address(&placed.block);
            if placed.retired.load(Ordering::Relaxed) {
                continue;
            }
            sum += placed.block.len();
            if links.regions.contains_key(&address) {
                self.retire_region(&mut links, address, guard, &mut leaving);
            } else if let Some(tb) = placed.entry.get(guard)
                && let Some(placed) = tb.baseline.take()
            {
                self.withdraw(tb, address, tb.plain());
                leaving.keys.push(tb.key);
                self.retire(placed, guard, &mut leaving);
            }
        }
        links.hand = end;
        leaving
    }

    /// A block's code is no longer at `address` but `instead`.
    fn withdraw(&self, tb: &Tb, address: usize, instead: u64) {
        let old = address as u64;
        // Fails when the block was invalidated, which is as good, or runs something else.
        if tb.code.compare_exchange(old, instead, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            tb.in_region.store(false, Ordering::Relaxed);
            if instead > code::LAST {
                tb.cool(self.heat_limit);
            } else {
                tb.stop_counting(self.heat_limit);
            }
            self.relink(tb);
        }
    }

    /// Takes a region, if there is one, out of everything; its entry goes back to its baseline code.
    fn retire_region(
        &self,
        links: &mut Links,
        address: usize,
        guard: &Guard<'_>,
        leaving: &mut Leaving,
    ) {
        let Some(PlacedRegion { placed, members }) = links.regions.remove(&address) else { return };
        for key in &members {
            if let Some(addresses) = links.members.get_mut(key) {
                addresses.retain(|&other| other != address);
                if addresses.is_empty() {
                    links.members.remove(key);
                }
            }
        }
        if let Some(tb) = placed.entry.get(guard) {
            self.withdraw(tb, address, self.baseline_of(tb, guard));
        }
        leaving.keys.push(members[0]);
        self.retire(placed, guard, leaving);
    }

    /// Detaches code that no edge names any more. The lock is held.
    fn retire(&self, placed: Owned<Placed>, guard: &Guard<'_>, leaving: &mut Leaving) {
        placed.retired.store(true, Ordering::Relaxed);
        self.records(&placed).for_each(|record| self.detach(&record, guard));
        self.leaving.fetch_add(placed.block.len(), Ordering::Relaxed);
        leaving.code.push(placed);
    }

    /// Schedules the end of code whose keys all vCPUs got.
    pub fn release(self: &Arc<Self>, epoch: &Epoch, leaving: Leaving) {
        for placed in leaving.code {
            let (store, generation) = (self.clone(), self.generation.load(Ordering::Relaxed));
            epoch.retire(move || store.bury(placed, generation));
        }
    }

    /// No thread is in the code any more.
    fn bury(&self, placed: Owned<Placed>, generation: usize) {
        if generation != self.generation.load(Ordering::Relaxed) {
            drop(placed.free());
            return;
        }
        let _links = self.lock();
        self.leaving.fetch_sub(placed.block.len(), Ordering::Relaxed);
        self.faults.set(&placed.block, None);
        self.memory.free(placed.free().block);
    }

    /// Locks everything for `fork` and copies the memory for the child, if it is not too large.
    pub fn freeze(&self, copy_limit: usize) -> impl Sized + '_ {
        let links = self.lock();
        let (free, snapshot) = self.memory.freeze(copy_limit);
        *lock(&self.snapshot) = snapshot;
        (links, free)
    }

    /// In the parent, after the fork.
    pub fn drop_snapshot(&self) {
        drop(lock(&self.snapshot).take());
    }

    /// In the child: goes on with a copy of all code. False when there is none; then it must [`CodeStore::forget`].
    pub fn adopt(&self) -> bool {
        let snapshot = lock(&self.snapshot).take();
        snapshot.is_some_and(|snapshot| self.memory.adopt(snapshot).is_ok())
    }

    /// Starts with empty memory at the same addresses. Blocks must forget their code too.
    pub fn forget(&self, guard: &Guard<'_>) {
        let everything = 0..self.memory.limit();
        self.faults.each(everything, guard).for_each(|placed| self.faults.set(&placed.block, None));
        for (_, region) in std::mem::take(&mut *self.lock()).regions {
            drop(region.placed.free());
        }
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.leaving.store(0, Ordering::Relaxed);
        if let Err(error) = self.memory.renew() {
            tracing::warn!(%error, "no memory for machine code, interpreting");
            self.unusable.store(true, Ordering::Relaxed);
        }
    }
}

fn key_of(edge: &Edge) -> TbKey {
    TbKey { pc: GuestVa(edge.pc), flags: edge.flags }
}

impl Record<'_> {
    fn number(&self) -> u32 {
        self.offset / 8 + 1
    }
}

impl Drop for CodeStore {
    fn drop(&mut self) {
        let links = self.links.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (_, region) in std::mem::take(&mut links.regions) {
            drop(region.placed.free());
        }
    }
}

impl Engine {
    /// The code memory of this process, made on first use; `None` when the host refuses.
    pub(crate) fn code_store(&self) -> Option<&Arc<CodeStore>> {
        if self.code.get().is_none() {
            // The lock keeps a `fork` away.
            let _index = lock(&self.index);
            self.code.get_or_init(|| {
                let store = CodeStore::new(self.config.code_limit, self.config.heat_limit());
                store
                    .inspect_err(|error| {
                        tracing::warn!(%error, "no memory for machine code, interpreting");
                    })
                    .ok()
            });
        }
        self.existing_code_store()
    }

    /// The code memory if there is one.
    #[inline]
    pub(crate) fn existing_code_store(&self) -> Option<&Arc<CodeStore>> {
        self.code.get()?.as_ref()
    }

    /// Makes sure that `bytes` more will fit soon, by retiring a quarter of all code when they would not.
    pub(crate) fn make_room(&self, store: &Arc<CodeStore>, bytes: usize, guard: &Guard<'_>) {
        if store.used() + bytes > store.memory.limit() / 8 * 7 {
            self.evict(store, guard);
        }
    }

    /// No free range was large enough, though there may be room in all.
    #[cold]
    pub(crate) fn no_room(&self, store: &Arc<CodeStore>, guard: &Guard<'_>) {
        if store.leaving.load(Ordering::Relaxed) < store.eviction() {
            self.evict(store, guard);
        }
        self.nudge();
    }

    fn evict(&self, store: &Arc<CodeStore>, guard: &Guard<'_>) {
        let _index = lock(&self.index);
        let leaving = store.evict(store.eviction(), guard);
        self.stats.evicted.fetch_add(leaving.keys.len() as u64, Ordering::Relaxed);
        self.announce_stale(&leaving.keys);
        store.release(&self.epoch, leaving);
    }
}
