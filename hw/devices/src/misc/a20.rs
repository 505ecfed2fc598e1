//! The gate on address line 20: one value, which the keyboard controller and port 0x92 move and show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The gate. Called by devices in the middle of an access.
pub trait A20Gate: Send + Sync {
    fn set(&self, open: bool);
    /// Open: the line is connected, as all software but the oldest wants it.
    fn is_open(&self) -> bool;
}

/// A gate that nothing is behind, for tests.
pub struct LooseGate(AtomicBool);

impl LooseGate {
    /// An open one.
    pub fn new() -> Arc<LooseGate> {
        Arc::new(LooseGate(AtomicBool::new(true)))
    }
}

impl A20Gate for LooseGate {
    fn set(&self, open: bool) {
        self.0.store(open, Ordering::SeqCst);
    }
    fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
