//! What a debugger needs of the engine: breakpoints and watchpoints that cost nothing elsewhere, and exact steps.
//!
//! **Breakpoints.** No guest memory is patched. Blocks end in front of a breakpoint's address, and the block that starts
//! there is marked ([`crate::tb::code::BREAK`]): such blocks are never compiled and always lead through the dispatcher,
//! which returns [`crate::Exit::Breakpoint`] with the pc at the address. Setting one drops the translations that contain
//! the address. Clearing one drops nothing until the address is reached again: debuggers clear and set breakpoints
//! each time that they step over one.
//!
//! In system mode a breakpoint is at a virtual (x86: linear) address in all address spaces; retired are the blocks at that place of
//! the frames that its page showed when code there was translated.
//!
//! **Watchpoints.** In user mode the pages are protected on the host ([`tulk_softmmu::UserSpace::trap_pages`]), so only accesses
//! to them get slower: the instruction that faults is run alone, in tier 0, with all other threads outside of guest
//! code and every access compared with the watched ranges. In system mode accesses to the virtual pages have slow entries in
//! every TLB ([`tulk_softmmu::Tlb::watch`]); where the slow path finds a watched byte ([`crate::mmu::Mmu`]) the block is left before
//! the access as it is for a store to code, the instruction is run alone, and its watched access is told behind it.
//!
//! **Pausing.** For that one thread excludes the others: each is counted while it is inside [`crate::Vcpu::run`], and leaves
//! for a moment at its next quiescent point.
//!
//! `debug_step.rs` has the thread's side. Tests: the sessions of `tests/gdb.rs`.

use crate::engine::Engine;
use crate::host::epoch::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tulk_base::{AccessKind, FaultCause, GuestVa, MemFault};

/// Which accesses a watchpoint is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WatchKind {
    Write,
    Read,
    /// Both.
    Access,
}

/// Watched bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Watchpoint {
    pub start: GuestVa,
    pub len: u64,
    pub kind: WatchKind,
}

impl Watchpoint {
    /// The first watched byte that an access of `[va, va + len)` touches.
    fn touched(&self, va: u64, len: u64, write: bool) -> Option<u64> {
        let about = match self.kind {
            WatchKind::Write => write,
            WatchKind::Read => !write,
            WatchKind::Access => true,
        };
        let first = self.start.0.max(va);
        (about && first < self.start.0.wrapping_add(self.len) && first < va.wrapping_add(len))
            .then_some(first)
    }
    pub(crate) fn contains(&self, va: GuestVa) -> bool {
        va.0.wrapping_sub(self.start.0) < self.len
    }
    fn pages(&self) -> impl Iterator<Item = u64> {
        let last = self.start.0.saturating_add(self.len.max(1) - 1);
        (self.start.0 >> PAGE_SHIFT..=last >> PAGE_SHIFT).take(MAX_WATCHED_PAGES)
    }
}

const PAGE_SHIFT: u32 = 12;
/// A debugger that asks for more watches the first of them.
const MAX_WATCHED_PAGES: usize = 1 << 12;

/// An access to watched bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchHit {
    /// The watchpoint's kind.
    pub kind: WatchKind,
    /// The first watched byte that was accessed.
    pub va: GuestVa,
}

#[derive(Default)]
struct Points {
    /// Blocks end in front of these: all breakpoints and some that were cleared.
    split: BTreeSet<u64>,
    set: BTreeSet<u64>,
}

#[derive(Default)]
struct Inside {
    threads: usize,
    /// One thread wants, or has, guest code for itself.
    exclusive: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Debug {
    /// Somebody may debug: threads are counted.
    on: AtomicBool,
    any_split: AtomicBool,
    points: Mutex<Points>,
    any_watch: AtomicBool,
    watches: Mutex<Vec<Watchpoint>>,
    inside: Mutex<Inside>,
    /// [`Inside::exclusive`] for those who only look.
    exclusive: AtomicBool,
    changed: Condvar,
}

impl Debug {
    /// The next address after `pc` in front of which a block must end.
    pub fn next_split(&self, pc: u64) -> Option<u64> {
        if !self.any_split.load(Ordering::SeqCst) {
            return None;
        }
        lock(&self.points).split.range(pc.checked_add(1)?..).next().copied()
    }
    /// Whether the block at `pc` gets the mark.
    pub fn is_split(&self, pc: u64) -> bool {
        self.any_split.load(Ordering::SeqCst) && lock(&self.points).split.contains(&pc)
    }
    pub fn is_breakpoint(&self, pc: u64) -> bool {
        lock(&self.points).set.contains(&pc)
    }
    pub fn has_watch(&self) -> bool {
        self.any_watch.load(Ordering::SeqCst)
    }
    pub fn watches(&self) -> Vec<Watchpoint> {
        lock(&self.watches).clone()
    }

    /// Locks everything, for `fork`.
    pub fn freeze(&self) -> impl Sized + '_ {
        (lock(&self.points), lock(&self.watches), lock(&self.inside))
    }
    /// In a forked child, whose one thread is outside of guest code.
    pub fn after_fork(&self) {
        *lock(&self.inside) = Inside::default();
        self.exclusive.store(false, Ordering::SeqCst);
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, Inside>) -> MutexGuard<'a, Inside> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread starts to run guest code. True when [`Debug::leave`] must be called.
    pub fn enter(&self) -> bool {
        if !self.on.load(Ordering::Relaxed) {
            return false;
        }
        let mut inside = lock(&self.inside);
        while inside.exclusive {
            inside = self.wait(inside);
        }
        inside.threads += 1;
        true
    }
    pub fn leave(&self) {
        lock(&self.inside).threads -= 1;
        self.changed.notify_all();
    }
    /// At a quiescent point: lets a thread that wants guest code for itself have it.
    pub fn make_way(&self) {
        if self.exclusive.load(Ordering::SeqCst) {
            self.leave();
            self.enter();
        }
    }
    /// Runs `f` with no other thread in guest code. The caller is inside itself.
    pub fn alone<T>(&self, engine: &Engine, f: impl FnOnce() -> T) -> T {
        let mut inside = lock(&self.inside);
        inside.threads -= 1;
        self.changed.notify_all();
        while inside.exclusive {
            inside = self.wait(inside);
        }
        inside.exclusive = true;
        self.exclusive.store(true, Ordering::SeqCst);
        drop(inside);
        engine.nudge();
        let mut inside = lock(&self.inside);
        while inside.threads > 0 {
            inside = self.wait(inside);
        }
        drop(inside);
        let result = f();
        let mut inside = lock(&self.inside);
        inside.exclusive = false;
        inside.threads += 1;
        self.exclusive.store(false, Ordering::SeqCst);
        self.changed.notify_all();
        result
    }
}

impl Engine {
    /// Somebody may debug this engine's guest. To be called before any vCPU runs.
    pub fn prepare_debugging(&self) {
        self.debug.on.store(true, Ordering::SeqCst);
    }

    /// [`crate::Exit::Breakpoint`] whenever a thread reaches `va`.
    pub fn set_breakpoint(&self, va: GuestVa) {
        let fresh = {
            let mut points = lock(&self.debug.points);
            points.set.insert(va.0);
            points.split.insert(va.0)
        };
        self.debug.any_split.store(true, Ordering::SeqCst);
        if fresh {
            self.drop_at(va);
        }
    }
    /// False when there is none.
    pub fn clear_breakpoint(&self, va: GuestVa) -> bool {
        lock(&self.debug.points).set.remove(&va.0)
    }
    pub fn clear_breakpoints(&self) {
        lock(&self.debug.points).set.clear();
    }
    pub fn has_breakpoint(&self, va: GuestVa) -> bool {
        self.debug.is_breakpoint(va.0)
    }

    /// A marked block was reached that is no breakpoint any more.
    pub(crate) fn forget_split(&self, pc: u64) {
        let none_left = {
            let mut points = lock(&self.debug.points);
            if points.set.contains(&pc) {
                return;
            }
            points.split.remove(&pc);
            points.split.is_empty()
        };
        if none_left {
            self.debug.any_split.store(false, Ordering::SeqCst);
            // Should one have been set in between.
            if !lock(&self.debug.points).split.is_empty() {
                self.debug.any_split.store(true, Ordering::SeqCst);
            }
        }
        self.drop_at(GuestVa(pc));
    }

    fn drop_at(&self, va: GuestVa) {
        match &self.system {
            None => self.invalidate(va, 1),
            Some(system) => {
                for frame in system.ids.frames_of(va.0) {
                    self.invalidate_frame(frame, va.0 as u32 & ((1 << PAGE_SHIFT) - 1), 1);
                }
            }
        }
    }

    /// Watches bytes; [`crate::Exit::Watch`] tells of accesses to them.
    pub fn set_watchpoint(&self, watch: Watchpoint) {
        lock(&self.debug.watches).push(watch);
        self.trap_watched();
    }
    /// False when there is no such.
    pub fn clear_watchpoint(&self, watch: Watchpoint) -> bool {
        let found = {
            let mut watches = lock(&self.debug.watches);
            let at = watches.iter().position(|w| *w == watch);
            at.map(|at| watches.remove(at)).is_some()
        };
        if found {
            self.trap_watched();
        }
        found
    }
    pub fn clear_watchpoints(&self) {
        lock(&self.debug.watches).clear();
        self.trap_watched();
    }

    /// Protects the pages that the watchpoints are on.
    fn trap_watched(&self) {
        let watches = self.debug.watches();
        let mut pages = BTreeMap::new();
        for watch in &watches {
            for page in watch.pages() {
                *pages.entry(page << PAGE_SHIFT).or_default() |= watch.kind != WatchKind::Write;
            }
        }
        self.debug.any_watch.store(!watches.is_empty(), Ordering::SeqCst);
        if self.system.is_some() {
            let pages: Vec<u64> = pages.into_keys().collect();
            for vcpu in lock(&self.vcpus).iter() {
                if let Some(tlb) = &vcpu.tlb {
                    tlb.watch(&pages);
                }
            }
            return;
        }
        self.mem.trap_pages(pages);
    }

    /// A fault that is the doing of a watchpoint: the guest may access these bytes.
    pub(crate) fn is_watched(&self, fault: &MemFault) -> bool {
        self.system.is_none()
            && self.debug.has_watch()
            && fault.cause == FaultCause::Bus
            && fault.kind != AccessKind::Exec
            && self.mem.is_trapped(fault.va, LONGEST_ACCESS, fault.kind == AccessKind::Write)
    }
}

/// Bytes.
const LONGEST_ACCESS: u64 = 64;

/// The watchpoint that an access is about.
pub(crate) fn watch_hit(
    watches: &[Watchpoint],
    va: u64,
    len: u64,
    write: bool,
) -> Option<WatchHit> {
    watches.iter().find_map(|w| {
        w.touched(va, len, write).map(|va| WatchHit { kind: w.kind, va: GuestVa(va) })
    })
}
