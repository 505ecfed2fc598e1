//! A translation block: guest code from one entry to a branch, lifted and ready for tier 0.

use crate::code::Placed;
use crate::counters::{self, Counters};
use crate::host::epoch::{Guard, OwnedSlot, Shared};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use tulk_codegen::baseline::Profile;
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
    /// A breakpoint is, or was, at its start: see `debug.rs`.
    pub const BREAK: u64 = 3;
    /// Everything above is an address: of the block's baseline code, or of the region whose entry it is.
    pub const LAST: u64 = BREAK;
}

/// What [`Tb::counting`] says.
mod counting {
    /// No baseline code.
    pub const NONE: u8 = 0;
    /// The baseline compiler refused the block.
    pub const REFUSED: u8 = 1;
    /// Baseline code that counts each edge.
    pub const ALL: u8 = 2;
    /// Baseline code, and edge 0 (with this plus n: edge n) counts the block's executions: it is taken when none of the others is.
    pub const DERIVED: u8 = 3;
}

/// What [`Tb::keep`] notes.
const KEEP: u32 = u32::MAX;

/// See the module. Immutable but for the atomics; shared by all threads. What running it in tier 0 touches lies in
/// its first 64 bytes, because the blocks of a large program do not fit the caches otherwise. Aligning it to cache
/// lines too would cost more than it gains: a general allocator wastes some 80 bytes for each such block.
#[repr(C)]
pub struct Tb {
    /// How to run it, see [`code`]. The one word that publishes code.
    pub code: AtomicU64,
    /// Executions in tier 0 since the last decision about compiling.
    pub heat: AtomicU32,
    /// Whether a region was asked for, see `compile.rs`.
    pub requested: AtomicU16,
    /// [`Tb::code`] is a region.
    pub in_region: AtomicBool,
    /// What became of its baseline code, see [`counting`].
    counting: AtomicU8,
    /// The edges of nearly all blocks.
    first_edges: [Edge; 2],
    pub program: Program,
    pub key: TbKey,
    /// Guest bytes covered.
    pub len: u16,
    pub insns: u16,
    /// The first edge record that wants to come here, see `code.rs`.
    pub incoming: AtomicU32,
    /// Its baseline code. Stays when a region takes over.
    pub baseline: OwnedSlot<Placed>,
    rare: Option<Box<Rare>>,
}

/// What few blocks have.
#[derive(Default)]
struct Rare {
    /// The third exit's, and those of more.
    edge: Edge,
    edges: Box<[Edge]>,
    /// Where a computed jump or call went in tier 0.
    computed: Box<[Edge]>,
    checked: Option<Box<Checked>>,
}

/// What blocks have that are checked before they run.
#[derive(Default)]
struct Checked {
    /// Guest code, for blocks on pages that are not watched any more.
    bytes: Box<[u8]>,
    /// System mode: the code page id of the page into which its instruction reaches, or 0.
    second: u32,
    /// How often the bytes were found unchanged.
    checks: AtomicU32,
}

/// Targets of a computed jump or call that are kept.
const COMPUTED_EDGES: usize = 4;

const _: () = assert!(std::mem::offset_of!(Tb, program) == 48);
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Tb>() <= 152);

/// A direct exit in tier 0; [`Program::exits`] says where to.
#[derive(Default)]
pub struct Edge {
    /// The block there, once somebody went; may be stale, see [`Tb::is_valid`].
    next: Shared<Tb>,
    /// Times taken (some are lost when threads race).
    count: AtomicU32,
    /// Of the first edge: the block's [`Counters`]. Of the second: what [`Tb::look`] noted.
    spare: AtomicU32,
}

impl Edge {
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
    #[inline]
    pub fn hit(&self) {
        self.add(1);
    }
    #[inline]
    fn add(&self, n: u32) {
        self.count.store(self.count().wrapping_add(n), Ordering::Relaxed);
    }
    /// The target if it is known, valid or not.
    #[inline]
    pub fn known<'g>(&self, guard: &'g Guard<'_>) -> Option<&'g Tb> {
        self.next.get(guard)
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
        let exits = program.exit_count();
        let computed = program.computed_exit().map_or(0, |_| COMPUTED_EDGES);
        let rare = (exits > 2 || computed > 0).then(|| {
            let edges = |n| std::iter::repeat_with(Edge::default).take(n).collect();
            let (edges, computed) = (edges(exits.saturating_sub(3)), edges(computed));
            Box::new(Rare { edges, computed, ..Rare::default() })
        });
        Tb {
            code: AtomicU64::new(code::INTERPRET),
            heat: AtomicU32::new(0),
            requested: AtomicU16::new(0),
            in_region: AtomicBool::new(false),
            counting: AtomicU8::new(counting::NONE),
            first_edges: Default::default(),
            program,
            key,
            len: len as u16,
            insns: insns as u16,
            incoming: AtomicU32::new(0),
            baseline: OwnedSlot::default(),
            rare,
        }
    }

    /// Where baseline code of this block counts, if there is room for it.
    pub fn profile(&self) -> Option<Profile> {
        if self.counters() == Counters::NONE {
            let (none, new) = (Counters::NONE.to_word(), Counters::new(self.counted()));
            let (word, relaxed) = (&self.first_edges[0].spare, Ordering::Relaxed);
            if word.compare_exchange(none, new.to_word(), relaxed, relaxed).is_err() {
                // Another thread is at the same.
                new.free(self.counted());
            }
        }
        let counters = self.counters();
        let address = |n| std::ptr::from_ref(counters.word(n)) as u64;
        let edge = |n| if n + 1 < self.counted() { address(n + 1) } else { 0 };
        (counters != Counters::NONE)
            .then(|| Profile { runs: address(0), edges: std::array::from_fn(edge) })
    }

    fn counters(&self) -> Counters {
        Counters::from_word(self.first_edges[0].spare.load(Ordering::Relaxed))
    }
    /// How many words that are: for its executions, and for the first exits if it has several.
    fn counted(&self) -> usize {
        match self.program.exit_count() {
            0 | 1 => 1,
            exits => (exits + 1).min(counters::MOST),
        }
    }
    fn runs(&self) -> &AtomicU32 {
        self.counters().word(0)
    }
    /// How often an edge that is no derived one was taken.
    fn taken(&self, n: usize) -> u32 {
        let counters = self.counters();
        let counts = n + 1 < self.counted() && counters != Counters::NONE;
        let counted = if counts { counters.word(n + 1).load(Ordering::Relaxed) } else { 0 };
        self.edge(n).count().wrapping_add(counted)
    }
    fn counting(&self) -> u8 {
        self.counting.load(Ordering::Relaxed)
    }
    pub fn refuse_baseline(&self) {
        self.counting.store(counting::REFUSED, Ordering::Relaxed);
    }
    pub fn refuses_baseline(&self) -> bool {
        self.counting() == counting::REFUSED
    }
    /// The edge that is not counted, and the count of all others.
    fn derived(&self) -> Option<(&Edge, u32)> {
        let n = self.counting().checked_sub(counting::DERIVED)? as usize;
        let others = (0..self.program.exit_count()).filter(|&other| other != n);
        let counts = others.map(|other| self.taken(other));
        Some((self.edge(n), counts.fold(0, u32::wrapping_add)))
    }

    /// Baseline code will count from here on, and say so after `limit` executions; see
    /// [`tulk_codegen::Region::derived`].
    pub fn start_counting(&self, derived: Option<u8>, limit: u32) {
        let state = derived.map_or(counting::ALL, |n| counting::DERIVED + n);
        self.counting.store(state, Ordering::Relaxed);
        if let Some((derived, counted)) = self.derived() {
            derived.add(counted);
        }
        self.cool(limit);
    }
    /// There is no baseline code any more.
    pub fn stop_counting(&self, limit: u32) {
        self.cool(limit);
        if let Some((derived, counted)) = self.derived() {
            derived.add(counted.wrapping_neg());
        }
        self.counting.store(counting::NONE, Ordering::Relaxed);
    }
    /// Executions of the baseline code since it started counting or cooled down.
    fn ran(&self, limit: u32) -> u32 {
        self.runs().load(Ordering::Relaxed).saturating_sub(Profile::LIMIT - limit)
    }
    /// The decision about compiling was made; the next one comes after `limit` executions.
    pub fn cool(&self, limit: u32) {
        self.heat.store(0, Ordering::Relaxed);
        if self.counting() >= counting::ALL {
            if let Some((derived, _)) = self.derived() {
                derived.add(self.ran(limit));
            }
            self.runs().store(Profile::LIMIT - limit, Ordering::Relaxed);
        }
    }
    /// Its baseline code leaves at once from here on.
    pub fn close(&self, limit: u32) {
        self.cool(limit);
        self.runs().store(Profile::LIMIT - 1, Ordering::Relaxed);
        if let Some((derived, _)) = self.derived() {
            derived.add((limit - 1).wrapping_neg());
        }
    }
    /// Executions since it cooled down, in whichever tier.
    pub fn warmth(&self, limit: u32) -> u32 {
        let ran = if self.counting() >= counting::ALL { self.ran(limit) } else { 0 };
        self.heat.load(Ordering::Relaxed).saturating_add(ran)
    }

    /// Whether it waits for its next execution in tier 0 and has had none since the last call of this.
    pub fn look(&self) -> bool {
        let noted = &self.first_edges[1].spare;
        let before = noted.load(Ordering::Relaxed);
        let waits = self.code.load(Ordering::Relaxed) == code::INTERPRET
            && self.requested.load(Ordering::Relaxed) == 0
            && before != KEEP;
        if !waits {
            return false;
        }
        // Not 0: nobody looked yet.
        let now = self.heat.load(Ordering::Relaxed).saturating_add(1).min(KEEP - 1);
        noted.store(now, Ordering::Relaxed);
        before == now
    }
    /// [`Tb::look`] finds it busy from here on: regions run it without counting.
    pub fn keep(&self) {
        self.first_edges[1].spare.store(KEEP, Ordering::Relaxed);
    }

    /// How often edge number `n` was taken.
    pub fn count(&self, n: usize, limit: u32) -> u32 {
        let edge = self.edge(n);
        match self.derived() {
            Some((derived, counted)) if std::ptr::eq(derived, edge) => {
                let runs = derived.count().wrapping_add(self.ran(limit));
                runs.saturating_sub(counted)
            }
            _ => self.taken(n),
        }
    }

    /// Makes it a block that stops.
    pub fn stop_at(&mut self) {
        self.code = AtomicU64::new(code::BREAK);
    }

    /// Makes it a block that is compared with `bytes` before each run.
    pub fn check(&mut self, bytes: Box<[u8]>) {
        self.code = AtomicU64::new(code::CHECKED);
        self.checked().bytes = bytes;
    }

    /// Its instruction reaches into the next page.
    pub fn set_second(&mut self, id: Option<u32>) {
        self.checked().second = id.unwrap_or(0);
    }
    pub fn second(&self) -> Option<u32> {
        self.get_checked().map(|checked| checked.second).filter(|&id| id != 0)
    }
    fn checked(&mut self) -> &mut Checked {
        self.rare.get_or_insert_default().checked.get_or_insert_default()
    }
    #[inline]
    fn get_checked(&self) -> Option<&Checked> {
        self.rare.as_ref()?.checked.as_deref()
    }
    /// Its code word while it has no machine code.
    pub fn plain(&self) -> u64 {
        if self.second().is_some() { code::CHECKED } else { code::INTERPRET }
    }
    /// Counts that the bytes were found unchanged.
    pub fn count_check(&self) -> u32 {
        self.get_checked().map_or(0, |checked| checked.checks.fetch_add(1, Ordering::Relaxed))
    }
    /// Whether its last byte is on another page than the first.
    pub fn crosses(&self) -> bool {
        self.pages().count() > 1
    }

    /// The guest code of a checked block.
    pub fn bytes(&self) -> &[u8] {
        self.get_checked().map_or(&[], |checked| &checked.bytes)
    }

    /// The edge of direct exit number `n`, as [`Program::exits`] counts.
    #[inline]
    pub fn edge(&self, n: usize) -> &Edge {
        match self.first_edges.get(n) {
            Some(edge) => edge,
            None => self.many_edges(n - 2),
        }
    }

    /// Starts to load the blocks that probably follow.
    #[inline]
    pub fn prefetch_next(&self) {
        self.first_edges.iter().for_each(|edge| edge.next.prefetch());
    }

    #[cold]
    fn many_edges(&self, n: usize) -> &Edge {
        let rare = self.rare.as_ref().expect("a block with more than two exits");
        if n == 0 { &rare.edge } else { &rare.edges[n - 1] }
    }

    /// All edges, perhaps followed by unused ones, and by those of a computed exit.
    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        let more = self.rare.iter().flat_map(|rare| std::iter::once(&rare.edge).chain(&rare.edges));
        self.first_edges.iter().chain(more).chain(self.computed())
    }

    /// The edges of its computed jump or call ([`Program::computed_exit`]), some of them without a target.
    pub fn computed(&self) -> &[Edge] {
        self.rare.as_ref().map_or(&[], |rare| &rare.computed)
    }

    /// Its computed jump or call went to `to`.
    pub fn hit_computed(&self, to: &Tb, guard: &Guard<'_>) {
        for edge in self.computed() {
            match edge.known(guard) {
                Some(known) if std::ptr::eq(known, to) => return edge.hit(),
                Some(_) => {}
                None => {
                    edge.count.store(1, Ordering::Relaxed);
                    return edge.link(to);
                }
            }
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

/// Its code was retired before, or the engine is going.
impl Drop for Tb {
    fn drop(&mut self) {
        if let Some(placed) = self.baseline.take() {
            drop(placed.free());
        }
        self.counters().free(self.counted());
    }
}

/// Invalidation works by ranges of this size, whatever the guest's or host's page size.
pub const PAGE_SHIFT: u32 = 12;
