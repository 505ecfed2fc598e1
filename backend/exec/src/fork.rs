//! The engine and `fork`: the child has one thread, and goes on with a copy of all machine code.
//!
//! Blocks and everything else of the heap are the child's own by copy-on-write. The code memory is shared, so the
//! parent copies what is used of it before the fork, and the child puts that copy in its place, at the same addresses;
//! `tests/changes.rs` forks in the middle of everything.

use crate::counters;
use crate::engine::Engine;
use crate::host::epoch::lock;
use crate::host::{EXIT_ENGINE, signals};
use crate::tb::code;
use std::sync::atomic::Ordering;

/// Keeps what a `fork` must find unlocked; see [`Engine::before_fork`].
pub struct ForkGuard<'a> {
    engine: &'a Engine,
    process: u32,
    locks: Option<Box<dyn Locks + 'a>>,
}

/// Whatever it is, it is only kept.
trait Locks {}
impl<T> Locks for T {}

impl Drop for ForkGuard<'_> {
    fn drop(&mut self) {
        drop(self.locks.take());
        if std::process::id() == self.process
            && let Some(store) = self.engine.existing_code_store()
        {
            store.drop_snapshot();
        }
    }
}

impl Engine {
    /// To be called before `fork`, and the result kept until it returned in both processes. All vCPUs but the
    /// caller's may go on.
    pub fn before_fork(&self) -> ForkGuard<'_> {
        let dirty = self.dirty.freeze();
        let index = lock(&self.index);
        let vcpus = lock(&self.vcpus);
        let jobs = self.jobs.freeze();
        let code = self.existing_code_store().map(|store| store.freeze(self.config.fork_copy));
        let debug = self.debug.freeze();
        let counters = counters::freeze();
        let locks: Box<dyn Locks> =
            Box::new((dirty, index, vcpus, jobs, code, self.epoch.freeze(), debug, counters));
        ForkGuard { engine: self, process: std::process::id(), locks: Some(locks) }
    }

    /// In the child, after the guard of [`Engine::before_fork`] was dropped: only the calling thread exists.
    pub fn after_fork_in_child(&self) {
        let mine = {
            let mut vcpus = lock(&self.vcpus);
            vcpus.retain(|v| signals::is_bound(v));
            vcpus.first().cloned()
        };
        self.jobs.after_fork();
        self.debug.after_fork();
        let index = lock(&self.index);
        let writer = index.writer().clone();
        self.epoch.only(&[Some(&writer), mine.as_ref().map(|m| &m.participant)]);
        if let Some(store) = self.existing_code_store()
            && !store.adopt()
        {
            store.forget(&writer.pin(&self.epoch));
            index.for_each(&self.epoch, |tb, _| {
                if tb.code.load(Ordering::Relaxed) > code::LAST {
                    tb.code.store(code::INTERPRET, Ordering::Release);
                    tb.in_region.store(false, Ordering::Relaxed);
                }
                if let Some(placed) = tb.baseline.take() {
                    drop(placed.free());
                    tb.stop_counting(self.config.heat_limit());
                }
                tb.incoming.store(0, Ordering::Relaxed);
            });
            if let Some(mine) = mine {
                mine.flush.store(true, Ordering::Release);
                mine.flag.raise(EXIT_ENGINE);
            }
        }
        drop(index);
        self.perf.after_fork();
    }
}
