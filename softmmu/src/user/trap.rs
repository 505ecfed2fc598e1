//! Pages that a debugger watches: the guest may access them, the host does not let it, so that each access is noticed.
//!
//! Whoever must access one all the same opens all of them for that time; holds are counted.

use super::*;
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub(super) struct Traps {
    /// First address of each page; true: reads are noticed too.
    pages: BTreeMap<u64, bool>,
    /// How many want them open.
    holds: usize,
}

impl Traps {
    /// The host protection of a trapped page that would otherwise be `prot`.
    pub fn limit(&self, page: u64, prot: i32) -> i32 {
        match self.pages.get(&page) {
            Some(true) if self.holds == 0 => libc::PROT_NONE,
            Some(false) if self.holds == 0 => prot & !libc::PROT_WRITE,
            _ => prot,
        }
    }
    pub fn in_range(&self, range: Range<u64>) -> Vec<u64> {
        self.pages.range(range).map(|(page, _)| *page).collect()
    }
}

impl UserSpace {
    /// Sets which pages (first addresses) are trapped, in place of those that were; `true` for reads too.
    pub fn trap_pages(&self, pages: BTreeMap<u64, bool>) {
        let mut maps = self.maps.write();
        let before = std::mem::replace(&mut maps.traps.pages, pages);
        let now: Vec<u64> = maps.traps.pages.keys().copied().collect();
        self.trapping.store(!now.is_empty(), Ordering::SeqCst);
        self.renew(&maps, before.into_keys().chain(now));
    }

    /// Whether an access at `[va, va + len)` could be one that a trap noticed.
    pub fn is_trapped(&self, va: GuestVa, len: u64, write: bool) -> bool {
        if !self.trapping.load(Ordering::SeqCst) {
            return false;
        }
        let va = self.untag(va).0;
        let pages = va & !(PAGE - 1)..va.saturating_add(len);
        let maps = self.maps.read();
        maps.traps.pages.range(pages).any(|(_, reads)| write || *reads)
    }

    /// Lets accesses through until [`UserSpace::close_traps`].
    pub fn open_traps(&self) {
        let mut maps = self.maps.write();
        maps.traps.holds += 1;
        if maps.traps.holds == 1 {
            let pages = maps.traps.in_range(0..u64::MAX);
            self.renew(&maps, pages.into_iter());
        }
    }
    pub fn close_traps(&self) {
        let mut maps = self.maps.write();
        maps.traps.holds -= 1;
        if maps.traps.holds == 0 {
            let pages = maps.traps.in_range(0..u64::MAX);
            self.renew(&maps, pages.into_iter());
        }
    }
    /// Forgets who held them open: in a forked child those threads do not exist.
    pub fn forget_trap_holds(&self) {
        self.maps.write().traps.holds = 0;
    }
    /// Whether there are any.
    #[inline]
    pub fn has_traps(&self) -> bool {
        self.trapping.load(Ordering::Relaxed)
    }

    /// Gives pages the protection that they must have now.
    fn renew(&self, maps: &Maps, pages: impl Iterator<Item = u64>) {
        for page in pages {
            if let Some((.., region)) = maps.regions.find(page) {
                let _ = self.apply(maps, page..page + PAGE, region.prot);
            }
        }
    }

    /// Runs an access that a trap may have stopped once more, without.
    #[cold]
    pub(super) fn untrapped<T>(&self, f: impl FnOnce() -> T) -> T {
        self.open_traps();
        let result = f();
        self.close_traps();
        result
    }
}
