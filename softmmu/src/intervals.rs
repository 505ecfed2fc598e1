//! The guest's memory map as data: which ranges are mapped, how, and from what.
//!
//! Invariants (held by the tests below against a page-by-page model): regions never overlap, are never
//! empty, start and end on page boundaries, and neighbours that say the same are one region.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Guest protection bits, which are the same numbers on every Linux guest and host.
pub const READ: u32 = 1;
pub const WRITE: u32 = 2;
pub const EXEC: u32 = 4;

/// What a mapping shows in `/proc/self/maps`: a file's path and identity, or a name like `[heap]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MapName {
    pub path: Vec<u8>,
    pub dev: u64,
    pub ino: u64,
}

/// What holds for every byte of a mapped range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// Guest protection ([`READ`], [`WRITE`], [`EXEC`]).
    pub prot: u32,
    /// `MAP_SHARED` rather than `MAP_PRIVATE`.
    pub shared: bool,
    pub name: Option<Arc<MapName>>,
    /// Offset in the file of the region's first byte; 0 for anonymous memory.
    pub offset: u64,
    /// Backed by a file: offsets advance along the region.
    pub file: bool,
    /// `MAP_GROWSDOWN`.
    pub grows: bool,
}

impl Region {
    fn advanced(&self, by: u64) -> Region {
        let offset = if self.file { self.offset.wrapping_add(by) } else { self.offset };
        Region { offset, ..self.clone() }
    }
}

/// A mapped range and what holds there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapped {
    pub start: u64,
    pub end: u64,
    pub region: Region,
}

/// See the module.
#[derive(Default, Debug)]
pub struct Intervals {
    map: BTreeMap<u64, (u64, Region)>,
}

impl Intervals {
    pub fn len(&self) -> usize {
        self.map.len()
    }
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The region that holds `at`.
    #[inline]
    pub fn find(&self, at: u64) -> Option<(u64, u64, &Region)> {
        let (&start, (end, region)) = self.map.range(..=at).next_back()?;
        (at < *end).then_some((start, *end, region))
    }

    /// All regions that touch `range`, unclipped, in order.
    pub fn touching(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u64, &Region)> {
        let first = self.find(range.start).map_or(range.start, |(s, ..)| s);
        let end = if range.is_empty() { first } else { range.end };
        self.map.range(first..end.max(first)).map(|(&s, (e, r))| (s, *e, r))
    }

    /// The parts of regions inside `range`, in order.
    pub fn clipped(&self, range: Range<u64>) -> Vec<Mapped> {
        self.touching(range.clone())
            .map(|(s, e, r)| {
                let (start, end) = (s.max(range.start), e.min(range.end));
                Mapped { start, end, region: r.advanced(start - s) }
            })
            .collect()
    }

    /// Every region in order.
    pub fn all(&self) -> Vec<Mapped> {
        self.clipped(0..u64::MAX)
    }

    /// The unmapped parts of `range`, in order.
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for (s, e, _) in self.touching(range.clone()) {
            if s > at {
                gaps.push(at..s);
            }
            at = e;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// True when nothing in `range` is mapped.
    pub fn is_free(&self, range: Range<u64>) -> bool {
        self.touching(range).next().is_none()
    }

    /// True when every byte of `range` is mapped.
    pub fn is_full(&self, range: Range<u64>) -> bool {
        let mut at = range.start;
        for (s, e, _) in self.touching(range.clone()) {
            if s > at {
                return false;
            }
            at = e;
        }
        at >= range.end
    }

    /// Makes `at` a boundary between regions.
    fn split(&mut self, at: u64) {
        let Some((start, end, region)) = self.find(at) else { return };
        if start == at {
            return;
        }
        let tail = region.advanced(at - start);
        self.map.insert(at, (end, tail));
        if let Some(entry) = self.map.get_mut(&start) {
            entry.0 = at;
        }
    }

    /// Joins the regions before and after `at` when they say the same.
    fn join(&mut self, at: u64) {
        let Some((&start, (end, left))) = self.map.range(..at).next_back() else { return };
        let Some((right_end, right)) = self.map.get(&at) else { return };
        if *end == at && left.advanced(at - start) == *right {
            let right_end = *right_end;
            self.map.remove(&at);
            if let Some(entry) = self.map.get_mut(&start) {
                entry.0 = right_end;
            }
        }
    }

    /// Unmaps `range`.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.split(range.start);
        self.split(range.end);
        let keys: Vec<u64> = self.map.range(range).map(|(&k, _)| k).collect();
        for k in keys {
            self.map.remove(&k);
        }
    }

    /// Maps `range`, replacing what was there.
    pub fn insert(&mut self, range: Range<u64>, region: Region) {
        if range.is_empty() {
            return;
        }
        self.remove(range.clone());
        self.map.insert(range.start, (range.end, region));
        self.join(range.end);
        self.join(range.start);
    }

    /// Sets the protection of the mapped parts of `range`.
    pub fn protect(&mut self, range: Range<u64>, prot: u32) {
        if range.is_empty() {
            return;
        }
        self.split(range.start);
        self.split(range.end);
        let keys: Vec<u64> = self.map.range(range.clone()).map(|(&k, _)| k).collect();
        for k in &keys {
            if let Some(entry) = self.map.get_mut(k) {
                entry.1.prot = prot;
            }
        }
        for k in keys {
            self.join(k);
        }
        self.join(range.end);
    }

    /// The highest free range of `len` bytes in `area`, top down, aligned to `align`.
    pub fn find_gap_down(&self, area: Range<u64>, len: u64, align: u64) -> Option<u64> {
        let mut top = area.end;
        let fits = |bottom: u64, top: u64| {
            let start = top.checked_sub(len)? & !(align - 1);
            (start >= bottom && start >= area.start).then_some(start)
        };
        for (&s, &(e, _)) in self.map.range(..area.end).rev() {
            if e < top
                && let Some(found) = fits(e, top)
            {
                return Some(found);
            }
            top = top.min(s);
            if top <= area.start {
                return None;
            }
        }
        fits(area.start, top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(prot: u32, file: bool, offset: u64) -> Region {
        Region { prot, shared: false, name: None, offset, file, grows: false }
    }

    /// A tiny generator is enough to drive the model.
    struct Lcg(u64);
    impl Lcg {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % n
        }
    }

    #[test]
    fn random_operations_agree_with_a_page_model() {
        const PAGES: u64 = 64;
        let page = 4096;
        for seed in 0..200 {
            let mut rng = Lcg(seed);
            let mut map = Intervals::default();
            let mut model: Vec<Option<(u32, bool, u64)>> = vec![None; PAGES as usize];
            for _ in 0..120 {
                let a = rng.below(PAGES);
                let b = a + 1 + rng.below(PAGES - a);
                let range = a * page..b * page;
                match rng.below(4) {
                    0 | 1 => {
                        let (prot, file) = (rng.below(3) as u32, rng.below(2) == 0);
                        let offset = if file { rng.below(3) * page } else { 0 };
                        map.insert(range.clone(), region(prot, file, offset));
                        for p in a..b {
                            let off = if file { offset + (p - a) * page } else { 0 };
                            model[p as usize] = Some((prot, file, off));
                        }
                    }
                    2 => {
                        map.remove(range.clone());
                        model[a as usize..b as usize].fill(None);
                    }
                    _ => {
                        let prot = rng.below(3) as u32;
                        map.protect(range.clone(), prot);
                        for m in model[a as usize..b as usize].iter_mut().flatten() {
                            m.0 = prot;
                        }
                    }
                }
                for p in 0..PAGES {
                    let got = map.find(p * page).map(|(s, _, r)| {
                        let r = r.advanced(p * page - s);
                        (r.prot, r.file, r.offset)
                    });
                    assert_eq!(got, model[p as usize], "seed {seed} page {p}");
                }
                let window = &model[a as usize..b as usize];
                assert_eq!(map.is_free(range.clone()), window.iter().all(Option::is_none));
                assert_eq!(map.is_full(range.clone()), window.iter().all(Option::is_some));
                let gap_pages: u64 =
                    map.gaps(range.clone()).iter().map(|g| (g.end - g.start) / page).sum();
                assert_eq!(gap_pages, window.iter().filter(|m| m.is_none()).count() as u64);
                let want = 1 + rng.below(5);
                let best = (0..=PAGES - want)
                    .rev()
                    .find(|&p| model[p as usize..(p + want) as usize].iter().all(Option::is_none));
                let got = map.find_gap_down(0..PAGES * page, want * page, page);
                assert_eq!(got, best.map(|p| p * page), "seed {seed}");
                let all = map.all();
                for w in all.windows(2) {
                    assert!(w[0].end <= w[1].start && w[0].start < w[0].end);
                    let same = w[0].region.advanced(w[0].end - w[0].start) == w[1].region;
                    assert!(w[0].end < w[1].start || !same, "unjoined neighbours, seed {seed}");
                }
            }
        }
    }
}
