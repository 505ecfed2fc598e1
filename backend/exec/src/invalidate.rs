//! Dropping translations: who is told, in which order, and when memory is given back.
//!
//! 1. The blocks leave the table and are marked invalid. From here on nobody finds them; edges and caches that still
//!    point to them see the mark.
//! 2. Their baseline code and the regions that contain one are unlinked (`code.rs`).
//! 3. All vCPUs get the stale keys for their caches and come to the dispatcher. Generated code that is entered
//!    through a stale cache entry meanwhile polls at its entry and leaves. Now the grace period of the code begins.
//! 4. The blocks wait in [`crate::table::Index::dead`]. When they are many, and after a grace period (so nobody links an edge
//!    to one any more), a sweep clears the edges that name them; another grace period later they are freed.
//!
//! `docs/self-modifying-code.md` says where the calls come from.

use crate::code::Leaving;
use crate::dirty::Dirty;
use crate::engine::Engine;
use crate::host::epoch::lock;
use crate::table::Index;
use crate::tb::{PAGE_SHIFT, Tb, code};
use crate::tuning;
use std::sync::atomic::Ordering;
use tulk_base::GuestVa;
use tulk_frontend::TbKey;

impl Engine {
    /// Drops all translations of guest code in `[start, start + len)`.
    pub fn invalidate(&self, start: GuestVa, len: u64) {
        if len == 0 || self.system.is_some() {
            return;
        }
        let end = start.0.checked_add(len).unwrap_or(0);
        let (first, last) = (start.0 >> PAGE_SHIFT, end.wrapping_sub(1) >> PAGE_SHIFT);
        if last - first < 64 && !(first..=last).any(|page| self.code_pages.may_have_code(page)) {
            return;
        }
        let end = GuestVa(end);
        self.drop_blocks(|index, each| {
            index.remove_range(start, end, &self.code_pages, &self.epoch, each);
        });
    }

    /// Drops the blocks that `remove` takes out of the index and passes on.
    pub(crate) fn drop_blocks(&self, remove: impl FnOnce(&mut Index, &mut dyn FnMut(&Tb))) {
        self.drop_and_tell(remove, Engine::announce_stale);
    }

    fn drop_and_tell(
        &self,
        remove: impl FnOnce(&mut Index, &mut dyn FnMut(&Tb)),
        tell: impl FnOnce(&Engine, &[TbKey]),
    ) {
        let mut stale: Vec<TbKey> = Vec::new();
        let mut leaving = Leaving::default();
        let reader = self.epoch.join();
        let guard = reader.pin(&self.epoch);
        let count = {
            let mut index = lock(&self.index);
            // It is made under this lock, so it does not come into being from here on.
            let store = self.existing_code_store();
            self.changes.fetch_add(1, Ordering::SeqCst);
            let mut links = store.map(|store| (store, store.lock()));
            remove(&mut index, &mut |tb| {
                tb.code.store(code::INVALID, Ordering::Release);
                stale.push(tb.key);
                if let Some((store, links)) = &mut links {
                    store.drop_block(links, tb, &guard, &mut leaving);
                }
            });
            // Who read the counter in between may have seen less than all of it.
            self.changes.fetch_add(1, Ordering::SeqCst);
            drop(links);
            let count = stale.len();
            stale.append(&mut leaving.keys);
            tell(self, &stale);
            if let Some(store) = store {
                store.release(&self.epoch, leaving);
            }
            count
        };
        drop(guard);
        self.epoch.leave(&reader);
        if count == 0 {
            return;
        }
        self.stats.invalidated.fetch_add(count as u64, Ordering::Relaxed);
        self.bury_dead();
    }

    /// Drops the blocks that have not run since the last time and have no code: programs run a third of their code once, when
    /// they start. What is reached again is lifted again.
    #[cold]
    pub(crate) fn drop_idle(&self) {
        let mut count = 0;
        let remove = |index: &mut Index, each: &mut dyn FnMut(&Tb)| {
            index.remove_idle(&self.code_pages, &self.epoch, |tb| {
                count += 1;
                each(tb);
            });
        };
        self.drop_and_tell(remove, Engine::announce_uncompiled);
        self.stats.idle.fetch_add(count, Ordering::Relaxed);
    }

    /// Drops everything.
    pub fn invalidate_all(&self) {
        self.invalidate(GuestVa(0), u64::MAX);
    }

    /// Drops the translations of pages that were written to while watched.
    pub(crate) fn drain_dirty(&self) {
        self.dirty.settle(|dirty| match dirty {
            Dirty::Everything => self.invalidate_all(),
            Dirty::Pages(pages) => {
                for va in pages {
                    *lock(&self.index).faults.entry(va.0 >> PAGE_SHIFT).or_default() += 1;
                    self.stats.write_faults.fetch_add(1, Ordering::Relaxed);
                    self.invalidate(va, 1 << PAGE_SHIFT);
                }
            }
        });
    }

    /// The bytes of a checked block are still what was lifted; else it is invalidated.
    pub(crate) fn still_matches(&self, tb: &Tb) -> bool {
        if let Some(system) = &self.system {
            return self.still_matches_frame(system, tb);
        }
        let bytes = tb.bytes();
        let mut now = [0u8; 256];
        let same = bytes.chunks(now.len()).zip(0u64..).all(|(piece, n)| {
            let at = tb.key.pc.wrapping_add(n * now.len() as u64);
            let now = &mut now[..piece.len()];
            self.mem.fetch_code(at, now) == piece.len() && now == piece
        });
        if !same {
            self.invalidate(tb.key.pc, tb.len as u64);
        }
        same
    }

    /// Step 4, when it is worth it.
    fn bury_dead(&self) {
        let dead = {
            let mut index = lock(&self.index);
            let limit = tuning::SWEEP_MIN.max(index.len() / tuning::SWEEP_SHARE);
            if index.dead.len() < limit {
                return;
            }
            std::mem::take(&mut index.dead)
        };
        let me = self.me.clone();
        self.epoch.retire(move || {
            if let Some(engine) = me.upgrade() {
                engine.sweep();
                engine.epoch.retire(move || dead.into_iter().for_each(|tb| drop(tb.free())));
                engine.nudge();
            } else {
                dead.into_iter().for_each(|tb| drop(tb.free()));
            }
        });
        self.nudge();
    }

    /// Clears all edges to invalid blocks.
    fn sweep(&self) {
        let index = lock(&self.index);
        index.for_each(&self.epoch, |tb, guard| tb.edges().for_each(|e| e.sweep(guard)));
    }
}
