//! Guest time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Guest time in nanoseconds since the machine was made. Stands still while the machine is stopped.
pub trait Clock: Send + Sync {
    fn now(&self) -> u64;
}

/// A clock that tests move by hand.
#[derive(Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn new() -> Arc<ManualClock> {
        Arc::default()
    }
    pub fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::SeqCst);
    }
    pub fn set(&self, ns: u64) {
        self.0.store(ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
