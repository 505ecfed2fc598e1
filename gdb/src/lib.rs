//! Debugging through the GDB remote protocol, which the `gdbstub` crate speaks.
//!
//! [`Debuggee`] is what is debugged: a user program, with its threads, or a machine, with its processors. [`target`] shows it
//! to `gdbstub`, [`registers`] describes the guest's registers from [`tulk_frontend::GuestIsa::debug_registers`], and
//! [`server`] waits for a client and passes what happens between the two.
//!
//! One client at a time. What it sends can at most end the session: the guest keeps its state, and the next client finds
//! it as it was (`tests/garbage.rs`).
#![forbid(unsafe_code)]

pub mod extension;
pub mod libraries;
pub mod listen;
pub mod registers;
pub mod server;
pub mod target;

pub use tulk_exec::{WatchKind, Watchpoint};

use std::os::fd::BorrowedFd;
use tulk_base::CpuState;
use tulk_frontend::debug::Registers;

/// Number of a thread or processor as the client sees it; not 0.
pub type Tid = u32;

/// How a thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Go {
    Run,
    /// One instruction.
    Step,
    /// Instructions until the pc leaves `start..end`.
    StepRange(u64, u64),
    /// Not at all.
    Stay,
}

/// How a thread goes on, and with which signal (the guest's number; 0 for none).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action {
    pub go: Go,
    pub signal: i32,
}

/// Why everything stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    Stepped(Tid),
    Breakpoint(Tid),
    Watch(Tid, WatchKind, u64),
    /// The guest's number of a signal that is about to be delivered.
    Signal(Tid, i32),
    SyscallEntry(Tid, u64),
    SyscallReturn(Tid, u64),
    Exited(u8),
    Killed(i32),
}

/// A system call that the client wants to hear of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Catch {
    #[default]
    None,
    All,
    Only(Vec<u64>),
}

/// Something to debug. Everything is stopped when anything but [`Debuggee::stop`], [`Debuggee::poll`] and
/// [`Debuggee::event_fd`] is called, unless the client breaks the protocol: then the call must do no harm, and registers of what
/// runs are refused.
pub trait Debuggee {
    fn registers(&self) -> &Registers;
    /// The process, or 1.
    fn pid(&self) -> u32;
    /// The one that the last stop was about comes first.
    fn threads(&self) -> Vec<Tid>;
    fn thread_name(&self, tid: Tid) -> String;
    /// Shows a thread's registers; false when there is no such thread. `changes`: `f` changes them.
    fn with_registers(&mut self, tid: Tid, changes: bool, f: &mut dyn FnMut(&mut CpuState))
    -> bool;
    /// The number of the system call at whose entry or end the thread stands.
    fn system_call(&self, tid: Tid) -> Option<u64>;
    /// Reads as far as possible; returns how far.
    fn read_memory(&mut self, tid: Tid, va: u64, out: &mut [u8]) -> usize;
    /// Protection notwithstanding. False when not all could be written.
    fn write_memory(&mut self, tid: Tid, va: u64, data: &[u8]) -> bool;
    /// Whether a breakpoint can be there.
    fn may_break(&mut self, va: u64) -> bool {
        let tid = self.threads().first().copied().unwrap_or(0);
        self.read_memory(tid, va, &mut [0]) != 0
    }
    fn set_breakpoint(&mut self, va: u64);
    fn clear_breakpoint(&mut self, va: u64) -> bool;
    /// False when it cannot be watched.
    fn set_watch(&mut self, watch: Watchpoint) -> bool;
    fn clear_watch(&mut self, watch: Watchpoint) -> bool;
    fn catch_syscalls(&mut self, _catch: Catch) {}

    /// Everything goes on: threads that `actions` names as it says, others as `rest` says.
    fn resume(&mut self, rest: Action, actions: &[(Tid, Action)]);
    /// Stops everything and returns the thread to show.
    fn stop(&mut self) -> Tid;
    /// What happened since everything goes on; then everything is stopped.
    fn poll(&mut self) -> Option<Stop>;
    /// Readable when [`Debuggee::poll`] should be called.
    fn event_fd(&self) -> BorrowedFd<'_>;
    /// Everything goes on without breakpoints and the like.
    fn detach(&mut self);
    /// The client is gone without a word: breakpoints and the like go too, what is stopped stays stopped.
    fn forsaken(&mut self);
    /// Ends the guest.
    fn kill(&mut self);
    /// The client has heard of [`Stop::Exited`] or [`Stop::Killed`].
    fn end_told(&mut self) {}

    /// A descriptor of the server's own, to be kept from the guest.
    fn adopt_fd(&mut self, _fd: BorrowedFd<'_>) {}
    fn forget_fd(&mut self, _fd: BorrowedFd<'_>) {}

    /// The auxiliary vector, in a user program.
    fn auxv(&self) -> Option<Vec<u8>> {
        None
    }
    /// The program's path, to be opened by [`Debuggee::open`].
    fn exec_file(&self) -> Option<Vec<u8>> {
        None
    }
    /// The guest's `siginfo_t` of the signal that the thread of the last stop is about to get.
    fn siginfo(&self) -> Option<Vec<u8>> {
        None
    }
    /// A file as the guest would see it, for reading.
    fn open(&self, _path: &[u8]) -> std::io::Result<File> {
        Err(std::io::ErrorKind::NotFound.into())
    }
    fn read_link(&self, _path: &[u8]) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
    /// What `monitor COMMAND` prints, or `None` for an unknown command. An empty command asks for the list.
    fn monitor(&mut self, _command: &str) -> Option<String> {
        None
    }
    /// The answer to a packet of an emulator's own (`qqemu.sstep`), which `gdbstub` does not know; `None`: unknown here, too.
    fn vendor(&mut self, _packet: &str) -> Option<String> {
        None
    }
}

/// What [`Debuggee::open`] opens.
pub enum File {
    Host(std::fs::File),
    /// Made up.
    Content(Vec<u8>),
}
