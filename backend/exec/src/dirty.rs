//! Pages whose watched code was written to, handed from the signal handler to the dispatcher.
//!
//! A page is *settled* when its translations are gone. Until then whoever asks waits: the thread that wrote the page goes on
//! only behind [`DirtyPages::settle`], also when another thread has taken the page out of the bag, and a `fork` holds
//! [`DirtyPages::freeze`], so that a page that is on its way is in the child's bag.

use crate::host::epoch::lock;
use crate::tb::PAGE_SHIFT;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tulk_base::GuestVa;

const SLOTS: usize = 64;
/// Marks a slot in use; page addresses have their low bits free.
const USED: u64 = 1;

/// A bag of page addresses that a signal handler can add to.
pub struct DirtyPages {
    slots: [AtomicU64; SLOTS],
    /// More pages than slots: everything counts as dirty.
    overflow: AtomicBool,
    /// Counts pushes, and those whose pages are settled.
    pushed: AtomicU64,
    settled: AtomicU64,
    /// Whose turn it is to settle.
    turn: Mutex<()>,
}

/// What was in the bag.
#[derive(PartialEq, Eq, Debug)]
pub enum Dirty {
    Pages(Vec<GuestVa>),
    Everything,
}

impl DirtyPages {
    pub fn new() -> DirtyPages {
        DirtyPages {
            slots: [const { AtomicU64::new(0) }; SLOTS],
            overflow: AtomicBool::new(false),
            pushed: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            turn: Mutex::new(()),
        }
    }

    /// Async-signal-safe.
    pub fn push(&self, va: GuestVa) {
        let entry = va.align_down(1 << PAGE_SHIFT).0 | USED;
        let stored = self.slots.iter().any(|slot| {
            let old = slot.compare_exchange(0, entry, Ordering::AcqRel, Ordering::Acquire);
            old.is_ok() || old == Err(entry)
        });
        if !stored {
            self.overflow.store(true, Ordering::Release);
        }
        self.pushed.fetch_add(1, Ordering::AcqRel);
    }

    /// Has `each` drop the translations of all that was pushed before this call, and waits for those who are at it.
    pub fn settle(&self, mut each: impl FnMut(Dirty)) {
        // By far the most calls end here.
        if self.settled.load(Ordering::Acquire) == self.pushed.load(Ordering::Acquire) {
            return;
        }
        let _turn = lock(&self.turn);
        let pushed = self.pushed.load(Ordering::Acquire);
        if self.settled.load(Ordering::Relaxed) != pushed {
            each(self.take());
            // What was pushed since has been taken or not: it counts as not settled.
            self.settled.store(pushed, Ordering::Release);
        }
    }

    /// Nothing is out of the bag and not yet settled, as long as the result lives.
    pub fn freeze(&self) -> impl Sized + '_ {
        lock(&self.turn)
    }

    fn take(&self) -> Dirty {
        let overflow = self.overflow.swap(false, Ordering::AcqRel);
        let pages = self
            .slots
            .iter()
            .map(|slot| slot.swap(0, Ordering::AcqRel))
            .filter(|&entry| entry != 0)
            .map(|entry| GuestVa(entry & !USED))
            .collect();
        if overflow { Dirty::Everything } else { Dirty::Pages(pages) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn settled(dirty: &DirtyPages) -> Option<Dirty> {
        let mut got = None;
        dirty.settle(|what| got = Some(what));
        got
    }

    #[test]
    fn pages_come_out_once_and_overflow_is_noticed() {
        let dirty = DirtyPages::new();
        assert_eq!(settled(&dirty), None);
        for va in [0x5123, 0x5fff, 0x9000] {
            dirty.push(GuestVa(va));
        }
        let pages = vec![GuestVa(0x5000), GuestVa(0x9000)];
        assert_eq!(settled(&dirty), Some(Dirty::Pages(pages)));
        assert_eq!(settled(&dirty), None);
        (0..=SLOTS as u64).for_each(|n| dirty.push(GuestVa(n << PAGE_SHIFT)));
        assert_eq!(settled(&dirty), Some(Dirty::Everything));
        assert_eq!(settled(&dirty), None);
    }

    /// The writer of a page must not go on while another thread is about to drop its translations.
    #[test]
    fn whoever_wrote_waits_until_its_page_is_settled() {
        let dirty = Arc::new(DirtyPages::new());
        let dropped = Arc::new(Mutex::new(BTreeSet::new()));
        let drop_slowly = |what| {
            let Dirty::Pages(pages) = what else { panic!("pages expected") };
            // The window in which the bag is empty and nothing is dropped yet.
            std::thread::yield_now();
            lock(&dropped).extend(pages);
        };
        std::thread::scope(|s| {
            for n in 0..4u64 {
                let (dirty, dropped, drop_slowly) = (&dirty, &dropped, &drop_slowly);
                s.spawn(move || {
                    for round in 0..5_000 {
                        let page = GuestVa((n * 5_000 + round) << PAGE_SHIFT);
                        dirty.push(page);
                        dirty.settle(drop_slowly);
                        assert!(lock(dropped).remove(&page), "went on with {page} stale");
                    }
                });
            }
        });
        assert!(lock(&dropped).is_empty());
    }

    /// What a child of a `fork` would get: each page is in the bag or settled.
    #[test]
    fn a_fork_finds_every_page() {
        let dirty = DirtyPages::new();
        let dropped = AtomicU64::new(0);
        let (pages, stop) = (2_000, AtomicBool::new(false));
        std::thread::scope(|s| {
            s.spawn(|| {
                for n in 0..pages {
                    dirty.push(GuestVa(n << PAGE_SHIFT));
                    dirty.settle(|_| {
                        std::thread::yield_now();
                        dropped.fetch_add(1, Ordering::SeqCst);
                    });
                }
                stop.store(true, Ordering::SeqCst);
            });
            while !stop.load(Ordering::SeqCst) {
                let frozen = dirty.freeze();
                let settled = dirty.settled.load(Ordering::SeqCst);
                assert_eq!(dropped.load(Ordering::SeqCst), settled);
                drop(frozen);
            }
        });
    }
}
