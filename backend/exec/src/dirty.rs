//! Pages whose watched code was written to, handed from the signal handler to the dispatcher.

use crate::tb::PAGE_SHIFT;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tulk_base::GuestVa;

const SLOTS: usize = 64;
/// Marks a slot in use; page addresses have their low bits free.
const USED: u64 = 1;

/// A bag of page addresses that a signal handler can add to.
pub struct DirtyPages {
    slots: [AtomicU64; SLOTS],
    any: AtomicBool,
    /// More pages than slots: everything counts as dirty.
    overflow: AtomicBool,
}

/// What was in the bag.
pub enum Dirty {
    Pages(Vec<GuestVa>),
    Everything,
}

impl DirtyPages {
    pub fn new() -> DirtyPages {
        DirtyPages {
            slots: [const { AtomicU64::new(0) }; SLOTS],
            any: AtomicBool::new(false),
            overflow: AtomicBool::new(false),
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
        self.any.store(true, Ordering::Release);
    }

    /// Empties the bag; `None` when it was empty.
    pub fn take(&self) -> Option<Dirty> {
        if !self.any.load(Ordering::Acquire) || !self.any.swap(false, Ordering::AcqRel) {
            return None;
        }
        let pages = self
            .slots
            .iter()
            .map(|slot| slot.swap(0, Ordering::AcqRel))
            .filter(|&entry| entry != 0)
            .map(|entry| GuestVa(entry & !USED))
            .collect();
        Some(if self.overflow.swap(false, Ordering::AcqRel) {
            Dirty::Everything
        } else {
            Dirty::Pages(pages)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_out_once_and_overflow_is_noticed() {
        let dirty = DirtyPages::new();
        assert!(dirty.take().is_none());
        for va in [0x5123, 0x5fff, 0x9000] {
            dirty.push(GuestVa(va));
        }
        match dirty.take() {
            Some(Dirty::Pages(pages)) => assert_eq!(pages, [GuestVa(0x5000), GuestVa(0x9000)]),
            _ => panic!("pages expected"),
        }
        assert!(dirty.take().is_none());
        (0..=SLOTS as u64).for_each(|n| dirty.push(GuestVa(n << PAGE_SHIFT)));
        assert!(matches!(dirty.take(), Some(Dirty::Everything)));
        assert!(dirty.take().is_none());
    }
}
