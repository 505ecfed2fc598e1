//! What tulk keeps for one guest thread beside its registers.

use crate::debug::ThreadDebug;
use crate::host::signal::Set;
use crate::signals::{Actions, ThreadSignals};
use crate::syscall::clone::Vfork;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// See the module.
pub struct Thread {
    /// Not zero when a signal waits for the guest: calls that may sleep are then not made
    /// ([`crate::host::call_interruptible`]). Set by the host's signal handler.
    pub interrupt: Arc<AtomicU32>,
    pub signals: ThreadSignals,
    /// The process's; a `vfork` child's own while that runs here.
    pub actions: Arc<Actions>,
    /// What `PR_SET_TAGGED_ADDR_CTRL` was told; only shown.
    pub tagged_addresses: bool,
    /// Where the kernel's `set_tid_address` word is: zeroed, with a futex wake, when the thread ends.
    pub clear_child_tid: u64,
    /// Head of the robust lock list; 0 for none.
    pub robust_list: u64,
    /// A `vfork` that the loop must make.
    pub vfork: Option<Vfork>,
    /// Where a debugger may have a say.
    pub debug: Option<ThreadDebug>,
    /// The debugger itself sends the signal that is being delivered.
    pub undebugged_signal: bool,
    /// Where the instruction is that a debugger's step runs.
    pub step_from: u64,
}

impl Thread {
    /// A thread with this guest mask.
    pub fn new(actions: Arc<Actions>, mask: Set) -> Thread {
        let interrupt = Arc::new(AtomicU32::new(0));
        let signals = ThreadSignals::new(&interrupt, mask);
        Thread {
            interrupt,
            signals,
            actions,
            tagged_addresses: false,
            clear_child_tid: 0,
            robust_list: 0,
            vfork: None,
            debug: None,
            undebugged_signal: false,
            step_from: 0,
        }
    }
}
