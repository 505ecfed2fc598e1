//! A translation block: guest code from one entry to a branch, lifted and ready for tier 0.

use crate::host::epoch::{Guard, Shared};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tulk_frontend::TbKey;
use tulk_ir::interp::Program;

/// What [`Tb::code`] says besides an address (which is larger).
pub mod code {
    /// Run it in tier 0.
    pub const INTERPRET: u64 = 0;
    /// Stale: look the key up again.
    pub const INVALID: u64 = 1;
    /// Tier 0 after comparing the guest bytes with [`super::Tb::bytes`].
    pub const CHECKED: u64 = 2;
    /// Everything above is the entry address of a region.
    pub const LAST: u64 = CHECKED;
}

/// See the module. Immutable but for the atomics; shared by all threads.
pub struct Tb {
    pub key: TbKey,
    /// Guest bytes covered.
    pub len: u32,
    pub insns: u32,
    pub program: Program,
    /// How to run it, see [`code`]. The one word that publishes a region.
    pub code: AtomicU64,
    /// Tier-0 executions since the last decision about compiling.
    pub heat: AtomicU32,
    /// A compile job for this entry is queued or running.
    pub requested: AtomicU32,
    /// One per direct exit, in the order of [`Program::exits`].
    pub edges: Edges,
    /// Guest code, for blocks on pages that are not watched any more.
    pub bytes: Option<Box<[u8]>>,
}

/// A direct exit in tier 0; [`Program::exits`] says where to.
#[derive(Default)]
pub struct Edge {
    /// The block there, once somebody went; may be stale, see [`Tb::is_valid`].
    next: Shared<Tb>,
    /// Times taken (some are lost when threads race).
    count: AtomicU32,
}

/// The edges of a block: nearly all have at most two, which lie in the block itself.
#[derive(Default)]
pub struct Edges {
    first: [Edge; 2],
    more: Box<[Edge]>,
}

impl Edges {
    fn new(n: usize) -> Edges {
        let more = std::iter::repeat_with(Edge::default).take(n.saturating_sub(2)).collect();
        Edges { first: Default::default(), more }
    }
    /// The edge of exit number `n`.
    #[inline]
    pub fn get(&self, n: usize) -> &Edge {
        match self.first.get(n) {
            Some(edge) => edge,
            None => &self.more[n - 2],
        }
    }
    /// All of them, perhaps followed by unused ones.
    pub fn iter(&self) -> impl Iterator<Item = &Edge> {
        self.first.iter().chain(&*self.more)
    }
}

impl Edge {
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
    #[inline]
    pub fn hit(&self) {
        self.count.store(self.count().wrapping_add(1), Ordering::Relaxed);
    }
    /// The target if it is known and still valid.
    #[inline]
    pub fn target<'g>(&self, guard: &'g Guard<'_>) -> Option<&'g Tb> {
        self.next.get(guard).filter(|tb| tb.is_valid())
    }
    #[inline]
    pub fn link(&self, to: &Tb) {
        self.next.set(Some(to));
    }
    /// Forgets a stale target.
    pub fn sweep(&self, guard: &Guard<'_>) {
        if self.next.get(guard).is_some_and(|tb| !tb.is_valid()) {
            self.next.set(None);
        }
    }
}

impl Tb {
    pub fn new(key: TbKey, len: u32, insns: u32, program: Program) -> Tb {
        let edges = Edges::new(program.exits().len());
        Tb {
            key,
            len,
            insns,
            program,
            code: AtomicU64::new(code::INTERPRET),
            heat: AtomicU32::new(0),
            requested: AtomicU32::new(0),
            edges,
            bytes: None,
        }
    }

    #[inline]
    pub fn is_valid(&self) -> bool {
        self.code.load(Ordering::Acquire) != code::INVALID
    }

    /// True when a byte of `[start, end)` belongs to the block. `end` 0 means the end of the address space.
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        let (first, last) = (self.key.pc.0, self.key.pc.0.wrapping_add(self.len.max(1) as u64 - 1));
        last >= start && first <= end.wrapping_sub(1)
    }

    /// Numbers of the guest pages that hold the block: one or two.
    pub fn pages(&self) -> impl Iterator<Item = u64> {
        let first = self.key.pc.0 >> PAGE_SHIFT;
        let last = self.key.pc.0.wrapping_add(self.len.max(1) as u64 - 1) >> PAGE_SHIFT;
        std::iter::once(first).chain((last != first).then_some(last))
    }
}

/// Invalidation works by ranges of this size, whatever the guest's or host's page size.
pub const PAGE_SHIFT: u32 = 12;
