//! All valid blocks: by key (read without locks) and by guest page (for invalidation).
//!
//! Readers probe an open-addressed array of owning slots. A writer (one at a time, under the engine's lock around
//! [`Index`]) inserts, removes with backward shifting, or moves everything into a larger array, so a reader
//! may *miss* an entry that moves under it, but never finds a wrong one: it compares the key in the block itself.
//! Who misses repeats the lookup under the lock before it lifts.
//!
//! [`CodePages`] answers quickly "has this page no blocks at all?", for guests that flush caches line by line.

use crate::host::epoch::{Epoch, Guard, Owned, OwnedSlot, Participant, Shared};
use crate::system::Ids;
use crate::tb::{PAGE_SHIFT, Tb};
use crate::tuning;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tulk_base::GuestVa;
use tulk_frontend::TbKey;
use tulk_softmmu::PhysMem;

/// Spreads the bits of a key.
#[inline]
pub fn hash(pc: u64, flags: u64) -> u64 {
    let mixed = (pc ^ flags.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// Hashes the few integers of our keys; they are addresses chosen by no adversary worth a slower hash.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(b as u64);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = hash(n, self.0);
    }
}

pub type KeyMap<K, V> = HashMap<K, V, BuildHasherDefault<KeyHasher>>;

struct Buckets {
    /// Of each slot the hash of its key, see [`tag`], or 0: what is not looked for is passed without a look at the block.
    tags: Box<[AtomicU32]>,
    slots: Box<[OwnedSlot<Tb>]>,
}

/// The part of a key's hash that the table keeps. Never 0.
fn tag(key: TbKey) -> u32 {
    hash(key.pc.0, key.flags) as u32 | 1 << 31
}

impl Buckets {
    fn new(len: usize) -> Buckets {
        let slots = std::iter::repeat_with(OwnedSlot::default).take(len).collect();
        Buckets { tags: crate::host::zeroed_slice(len), slots }
    }
    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.slots.len() - 1)
    }
    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
    #[inline]
    fn tag_at(&self, at: usize) -> u32 {
        self.tags[at].load(Ordering::Acquire)
    }
    #[inline]
    fn find<'g>(&self, key: TbKey, guard: &'g Guard<'_>) -> Option<(usize, &'g Tb)> {
        let wanted = tag(key);
        let mut at = self.home(wanted);
        loop {
            match self.tag_at(at) {
                0 => return None,
                found if found == wanted => {
                    if let Some(tb) = self.slots[at].get(guard)
                        && tb.key == key
                    {
                        return Some((at, tb));
                    }
                }
                _ => {}
            }
            at = self.next(at);
        }
    }
    /// Adds a block that is not there.
    fn add(&self, tb: Owned<Tb>, tag: u32) {
        let mut at = self.home(tag);
        while self.tag_at(at) != 0 {
            at = self.next(at);
        }
        self.put(at, tb, tag);
    }
    fn put(&self, at: usize, tb: Owned<Tb>, tag: u32) {
        self.slots[at].put(tb);
        self.tags[at].store(tag, Ordering::Release);
    }
    fn take(&self, at: usize) -> Option<Owned<Tb>> {
        self.tags[at].store(0, Ordering::Release);
        self.slots[at].take()
    }
}

/// The reader's side of the table.
pub struct Table {
    buckets: Shared<Buckets>,
}

/// The writer's side, and the pages.
pub struct Index {
    /// Always there, but for the drop.
    buckets: Option<Owned<Buckets>>,
    count: usize,
    /// Blocks on each guest page.
    pages: KeyMap<u64, Vec<Shared<Tb>>>,
    /// Write faults on each page that is or was watched.
    pub faults: KeyMap<u64, u32>,
    /// Invalidated blocks that wait for a sweep.
    pub dead: Vec<Owned<Tb>>,
    /// Pinned by whoever holds the lock.
    writer: Arc<Participant>,
    /// System mode: pages are frames, which these name.
    frames: Option<Arc<Ids>>,
    /// Frames whose blocks became fewer.
    touched: Vec<u32>,
    /// Blocks lifted since [`Index::remove_idle`].
    lifted: usize,
}

/// How many blocks ahead a walk over all of them looks.
const PREFETCH: usize = 12;

/// See the module. Hashed counters: a zero means "no blocks", anything else "perhaps".
pub struct CodePages {
    counts: Box<[AtomicU32]>,
}

const CODE_PAGES: usize = 1 << 14;

impl CodePages {
    pub fn new() -> CodePages {
        CodePages { counts: crate::host::zeroed_slice(CODE_PAGES) }
    }
    fn count(&self, page: u64) -> &AtomicU32 {
        &self.counts[(page ^ page >> 14) as usize & (CODE_PAGES - 1)]
    }
    pub fn may_have_code(&self, page: u64) -> bool {
        self.count(page).load(Ordering::SeqCst) != 0
    }
    /// Announces code on a page before it is read, or withdraws that.
    pub fn add(&self, page: u64) {
        self.count(page).fetch_add(1, Ordering::SeqCst);
    }
    pub fn remove(&self, page: u64) {
        self.count(page).fetch_sub(1, Ordering::SeqCst);
    }
}

impl Table {
    pub fn new(epoch: &Epoch) -> (Table, Index) {
        let buckets = Owned::new(Buckets::new(1 << 10));
        let table = Table { buckets: Shared::default() };
        table.buckets.set(Some(&buckets));
        let index = Index {
            buckets: Some(buckets),
            count: 0,
            pages: KeyMap::default(),
            faults: KeyMap::default(),
            dead: Vec::new(),
            writer: epoch.join(),
            frames: None,
            touched: Vec::new(),
            lifted: 0,
        };
        (table, index)
    }

    /// The valid block with this key, if the caller is lucky; see the module.
    #[inline]
    pub fn get<'g>(&self, key: TbKey, guard: &'g Guard<'_>) -> Option<&'g Tb> {
        self.buckets.get(guard)?.find(key, guard).map(|(_, tb)| tb)
    }
}

impl Index {
    fn buckets(&self) -> &Buckets {
        self.buckets.as_ref().expect("only the drop takes them")
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn find<'g>(&self, key: TbKey, guard: &'g Guard<'_>) -> Option<&'g Tb> {
        self.buckets().find(key, guard).map(|(_, tb)| tb)
    }

    /// Adds a block whose key is not in the table.
    pub fn insert<'g>(
        &mut self,
        tb: Tb,
        table: &Table,
        epoch: &Epoch,
        guard: &'g Guard<'_>,
    ) -> &'g Tb {
        // Tags make long runs cheap.
        if (self.count + 1) * 16 > self.buckets().slots.len() * 15 {
            self.grow(table, epoch);
        }
        let tb = Owned::new(tb);
        for (page, ..) in self.extent(&tb).into_iter().flatten() {
            let link = Shared::default();
            link.set(Some(&*tb));
            self.pages.entry(page).or_default().push(link);
        }
        self.count += 1;
        let key = tb.key;
        self.buckets().add(tb, tag(key));
        self.find(key, guard).expect("just put there")
    }

    fn grow(&mut self, table: &Table, epoch: &Epoch) {
        let larger = Owned::new(Buckets::new(self.buckets().slots.len() * 2));
        let old = self.buckets();
        for at in 0..old.slots.len() {
            let tag = old.tag_at(at);
            if let Some(tb) = old.slots[at].take() {
                larger.add(tb, tag);
            }
        }
        table.buckets.set(Some(&*larger));
        if let Some(old) = self.buckets.replace(larger) {
            // Nothing points to the old array any more.
            epoch.retire(move || drop(old.free()));
        }
    }

    /// Pages are frames from here on.
    pub fn use_frames(&mut self, ids: Arc<Ids>) {
        self.frames = Some(ids);
    }

    /// Where a block lies: page, offset and length on one page or two.
    pub fn extent(&self, tb: &Tb) -> [Option<(u64, u32, u32)>; 2] {
        let offset = tb.key.pc.0 as u32 & ((1 << PAGE_SHIFT) - 1);
        let len = (tb.len as u32).max(1);
        let first = len.min((1 << PAGE_SHIFT) - offset);
        let mut pages = tb.pages();
        let (page, next) = (pages.next().unwrap_or_default(), pages.next());
        match &self.frames {
            None => [Some((page, offset, first)), next.map(|next| (next, 0, len - first))],
            Some(ids) => {
                let next = tb.second().filter(|_| next.is_some());
                let second = next.map(|id| (ids.frame(id) as u64, 0, len - first));
                [Some((ids.frame(ids.of(tb.key)) as u64, offset, first)), second]
            }
        }
    }

    /// Calls `each` on every block of a page.
    pub fn on_page(&self, epoch: &Epoch, page: u64, each: impl FnMut(&Tb)) {
        let guard = self.writer.pin(epoch);
        let blocks = self.pages.get(&page).map_or(&[][..], |blocks| blocks);
        blocks.iter().filter_map(|link| link.get(&guard)).for_each(each);
    }

    /// Numbers of all pages with blocks.
    pub fn page_numbers(&self) -> Vec<u64> {
        self.pages.keys().copied().collect()
    }

    /// Bits of the lines of a frame that hold code which is not compared before it runs.
    pub fn lines(&self, epoch: &Epoch, frame: u32) -> u64 {
        let mut bits = 0;
        self.on_page(epoch, frame as u64, |tb| {
            for (page, offset, len) in self.extent(tb).into_iter().flatten() {
                if page == frame as u64 {
                    bits |= PhysMem::line_bits(offset, len);
                }
            }
        });
        bits
    }

    /// Frames that [`Index::remove_on_frame`] and [`Index::remove_where`] took blocks from.
    pub fn take_touched(&mut self) -> Vec<u32> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// As [`Index::remove_range`], for `len` bytes at `offset` of a frame.
    pub fn remove_on_frame(
        &mut self,
        frame: u32,
        offset: u32,
        len: u32,
        epoch: &Epoch,
        mut each: impl FnMut(&Tb),
    ) {
        self.touched.push(frame);
        let writer = self.writer.clone();
        let guard = writer.pin(epoch);
        let Some(blocks) = self.pages.get(&(frame as u64)) else { return };
        let overlaps = |tb: &Tb| {
            self.extent(tb).into_iter().flatten().any(|(page, start, n)| {
                page == frame as u64 && start < offset + len && offset < start + n
            })
        };
        let stale: Vec<&Tb> =
            blocks.iter().filter_map(|link| link.get(&guard)).filter(|tb| overlaps(tb)).collect();
        for tb in stale {
            for (page, ..) in self.extent(tb).into_iter().flatten() {
                self.touched.push(page as u32);
                if let Some(entry) = self.pages.get_mut(&page) {
                    entry.retain(|link| !link.is(tb));
                    if entry.is_empty() {
                        self.pages.remove(&page);
                    }
                }
            }
            each(tb);
            self.remove(tb.key, &guard);
        }
    }

    /// Takes every block that overlaps `[start, end)` (`end` 0: to the end) out of the table and the pages, and
    /// calls `each` on it. The blocks are in [`Index::dead`] afterwards.
    pub fn remove_range(
        &mut self,
        start: GuestVa,
        end: GuestVa,
        code_pages: &CodePages,
        epoch: &Epoch,
        mut each: impl FnMut(&Tb),
    ) {
        let (first, last) = (start.0 >> PAGE_SHIFT, end.0.wrapping_sub(1) >> PAGE_SHIFT);
        let pages: Vec<u64> = if last - first < self.pages.len() as u64 {
            (first..=last).filter(|page| self.pages.contains_key(page)).collect()
        } else {
            self.pages.keys().copied().filter(|page| (first..=last).contains(page)).collect()
        };
        let writer = self.writer.clone();
        let guard = writer.pin(epoch);
        for page in pages {
            let Some(blocks) = self.pages.get(&page) else { continue };
            let stale: Vec<&Tb> = blocks
                .iter()
                .filter_map(|link| link.get(&guard))
                .filter(|tb| tb.overlaps(start.0, end.0))
                .collect();
            for tb in stale {
                for page in tb.pages() {
                    if let Some(entry) = self.pages.get_mut(&page) {
                        entry.retain(|link| !link.is(tb));
                        if entry.is_empty() {
                            self.pages.remove(&page);
                        }
                    }
                    code_pages.remove(page);
                }
                each(tb);
                self.remove(tb.key, &guard);
            }
        }
    }

    /// Counts a lifted block. True when it is time for [`Index::remove_idle`]: after `every` blocks, or half as many as there are.
    pub fn count_lifted(&mut self, every: usize) -> bool {
        self.lifted += 1;
        let due = self.lifted >= every.max(self.count / 2) && self.count <= tuning::IDLE_UNTIL;
        if due {
            self.lifted = 0;
        }
        due
    }

    /// Takes every block out that has not run since the last call and has no code, and calls `each` on it, as
    /// [`Index::remove_range`] does. Pages are the guest's.
    pub fn remove_idle(
        &mut self,
        code_pages: &CodePages,
        epoch: &Epoch,
        mut each: impl FnMut(&Tb),
    ) {
        self.remove_where(epoch, Tb::look, |tb| {
            tb.pages().for_each(|page| code_pages.remove(page));
            each(tb);
        });
    }

    /// Takes every block out for which `gone` holds, and calls `each` on it, as [`Index::remove_range`] does.
    pub fn remove_where(
        &mut self,
        epoch: &Epoch,
        gone: impl Fn(&Tb) -> bool,
        mut each: impl FnMut(&Tb),
    ) {
        let writer = self.writer.clone();
        let guard = writer.pin(epoch);
        let slots = &self.buckets().slots;
        let mut found: Vec<&Tb> = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            if let Some(ahead) = slots.get(at + PREFETCH) {
                ahead.prefetch();
            }
            found.extend(slot.get(&guard).filter(|tb| gone(tb)));
        }
        for tb in &found {
            if self.frames.is_some() {
                let frames = self.extent(tb).into_iter().flatten();
                self.touched.extend(frames.map(|(frame, ..)| frame as u32));
            }
            each(tb);
            self.remove(tb.key, &guard);
        }
        if !found.is_empty() {
            self.pages.retain(|_, blocks| {
                blocks.retain(|link| link.get(&guard).is_some_and(Tb::is_valid));
                !blocks.is_empty()
            });
        }
    }

    fn remove(&mut self, key: TbKey, guard: &Guard<'_>) {
        let Some(buckets) = &self.buckets else { return };
        let Some((mut hole, _)) = buckets.find(key, guard) else { return };
        self.dead.extend(buckets.take(hole));
        self.count -= 1;
        // Close the gap: a later entry of the run moves in when its home is not behind the hole.
        let mut at = hole;
        loop {
            at = buckets.next(at);
            let tag = buckets.tag_at(at);
            if tag == 0 {
                break;
            }
            let mask = buckets.slots.len() - 1;
            let distance = |from: usize, to: usize| to.wrapping_sub(from) & mask;
            if distance(buckets.home(tag), at) >= distance(hole, at) {
                if let Some(tb) = buckets.take(at) {
                    buckets.put(hole, tb, tag);
                }
                hole = at;
            }
        }
    }

    /// Calls `each` on every valid block.
    pub fn for_each(&self, epoch: &Epoch, mut each: impl FnMut(&Tb, &Guard<'_>)) {
        let guard = self.writer.pin(epoch);
        let slots = &self.buckets().slots;
        for (at, slot) in slots.iter().enumerate() {
            if let Some(ahead) = slots.get(at + 2 * PREFETCH) {
                ahead.prefetch();
            }
            if let Some(tb) = slots.get(at + PREFETCH).and_then(|ahead| ahead.get(&guard)) {
                tb.prefetch_next();
            }
            if let Some(tb) = slot.get(&guard) {
                each(tb, &guard);
            }
        }
    }

    /// The participant behind the lock.
    pub fn writer(&self) -> &Arc<Participant> {
        &self.writer
    }
}

/// No thread uses the engine any more.
impl Drop for Index {
    fn drop(&mut self) {
        if let Some(buckets) = self.buckets.take() {
            buckets.slots.iter().filter_map(OwnedSlot::take).for_each(|tb| drop(tb.free()));
            drop(buckets.free());
        }
        for tb in self.dead.drain(..) {
            drop(tb.free());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tb::code;
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;
    use tulk_ir::interp::Program;
    use tulk_ir::{Builder, FpRule, RegLayout, Unit};

    fn block(pc: u64, len: u32, flags: u64) -> Tb {
        let layout = RegLayout::new();
        let mut unit = Unit::new(pc, flags, FpRule::Arm);
        let mut b = Builder::new(&mut unit, &layout, &[]);
        b.exit(pc);
        b.finish();
        let key = TbKey { pc: GuestVa(pc), flags };
        Tb::new(key, len, 1, Program::new(&unit, &layout, &[]))
    }

    /// Random insertions and removals against an ordered map, with growth and colliding keys.
    #[test]
    fn agrees_with_a_map() {
        let epoch = Epoch::new();
        let (table, mut index) = Table::new(&epoch);
        let code_pages = CodePages::new();
        let me = epoch.join();
        let guard = me.pin(&epoch);
        let mut model: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        let mut seed = 1u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        for round in 0..20_000 {
            if random(3) < 2 {
                let (pc, flags) = (random(1 << 14) * 4, random(2));
                let len = 4 + 4 * random(20) as u32;
                if let Entry::Vacant(slot) = model.entry((pc, flags)) {
                    let tb = block(pc, len, flags);
                    tb.pages().for_each(|p| code_pages.add(p));
                    let tb = index.insert(tb, &table, &epoch, &guard);
                    assert_eq!(tb.key, TbKey { pc: GuestVa(pc), flags });
                    slot.insert(len);
                }
            } else {
                let start = random(1 << 16);
                let end = start + 1 + random(if round % 100 == 0 { 20_000 } else { 64 });
                let mut gone = Vec::new();
                let each = |tb: &Tb| {
                    tb.code.store(code::INVALID, Ordering::Relaxed);
                    gone.push((tb.key.pc.0, tb.key.flags));
                };
                index.remove_range(GuestVa(start), GuestVa(end), &code_pages, &epoch, each);
                gone.sort();
                let overlaps = |pc: u64, len: u32| pc < end && pc + len as u64 > start;
                let want: Vec<_> = model
                    .iter()
                    .filter(|&(&(pc, _), &len)| overlaps(pc, len))
                    .map(|(&key, _)| key)
                    .collect();
                assert_eq!(gone, want);
                model.retain(|&(pc, _), &mut len| !overlaps(pc, len));
            }
            assert_eq!(index.len(), model.len());
        }
        for pc in (0..1 << 16).step_by(4) {
            for flags in 0..2 {
                let found = table.get(TbKey { pc: GuestVa(pc), flags }, &guard);
                assert_eq!(found.map(|tb| tb.len as u32), model.get(&(pc, flags)).copied());
                if found.is_some() {
                    assert!(code_pages.may_have_code(pc >> PAGE_SHIFT));
                }
            }
        }
        let everything = (GuestVa(0), GuestVa(0));
        index.remove_range(everything.0, everything.1, &code_pages, &epoch, |_| {});
        assert_eq!(index.len(), 0);
        assert!((0..32).all(|page| !code_pages.may_have_code(page)));
    }
}
