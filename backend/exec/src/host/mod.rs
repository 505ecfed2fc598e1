//! What depends on the host processor or needs `unsafe`: reclamation, entering and leaving generated code, the
//! float unit, signals.

pub(crate) mod epoch;
pub(crate) mod fault_index;
pub mod signals;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    HostFp, enter, eval_thunk, fault_frame, helper_thunk, mem_thunk, prefetch, ticks,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!(
    "this host needs a file like host/x86_64.rs: float unit, trampoline, thunks, signal frame"
);

use std::sync::atomic::{AtomicU32, Ordering};
use tulk_base::CpuState;

/// Types of which all zero bytes are a value.
///
/// # Safety
/// Just that.
pub(crate) unsafe trait Zeroed {}

// SAFETY: the number 0.
unsafe impl Zeroed for AtomicU32 {}
// SAFETY: the number 0.
unsafe impl Zeroed for std::sync::atomic::AtomicU8 {}
// SAFETY: the number 0.
unsafe impl Zeroed for std::sync::atomic::AtomicU64 {}
// SAFETY: null.
unsafe impl<T> Zeroed for epoch::Shared<T> {}
// SAFETY: numbers.
unsafe impl Zeroed for tulk_codegen::abi::JumpEntry {}
// SAFETY: numbers and null.
unsafe impl Zeroed for crate::vcpu::Cached {}

/// Zeroed memory of which only what is written costs anything.
pub(crate) fn zeroed_slice<T: Zeroed>(n: usize) -> Box<[T]> {
    // SAFETY: what the trait says.
    unsafe { Box::new_zeroed_slice(n).assume_init() }
}

/// The same for ever, on pages as large as the host has when it has them.
pub(crate) fn huge_pages<T: Zeroed>(n: usize) -> &'static [T] {
    const HUGE: usize = 2 << 20;
    let (bytes, protection) = (n * size_of::<T>(), libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes + HUGE, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Box::leak(zeroed_slice(n));
    }
    let skip = (address as usize).wrapping_neg() % HUGE;
    // SAFETY: inside the mapping, which has room for `skip` bytes more, is aligned to `HUGE` there, all zero as the trait
    // wants it, and never unmapped. The advice changes no contents.
    unsafe {
        let start = address.byte_add(skip);
        libc::madvise(start, bytes, libc::MADV_HUGEPAGE);
        std::slice::from_raw_parts(start.cast(), n)
    }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills a local.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds of the host's monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Processor time that this thread has used, in nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time that the process has used, in nanoseconds.
pub(crate) fn process_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// The kernel's number of this thread.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() as u32 }
}

/// Maps the start of a file executable and leaves it so: a mark that perf records.
pub(crate) fn map_executable(file: &std::fs::File) {
    use std::os::fd::AsRawFd;
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: a new private mapping at an address that the kernel chooses; nobody executes it.
    unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
}

/// Number of the processor that this thread runs on.
pub(crate) fn processor_id() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::sched_getcpu() }.max(0) as u32
}

/// Fills `out` from the kernel's generator.
pub(crate) fn random(out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        let rest = &mut out[done..];
        // SAFETY: writes at most the slice's length into it.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        done += n.max(0) as usize;
    }
}

/// Another thread's way to a CPU state's exit flag.
pub(crate) struct ExitFlag(*const AtomicU32);

// SAFETY: the flag is atomic, and `ExitFlag::new`'s caller keeps the state alive.
unsafe impl Send for ExitFlag {}
// SAFETY: as above.
unsafe impl Sync for ExitFlag {}

/// Bits of [`CpuState::exit_request`] as this crate uses them. [`CpuState::request_exit`] stores `GUEST`; work of the engine is
/// also noted elsewhere, so that losing `ENGINE` to that store loses nothing.
pub(crate) const EXIT_GUEST: u32 = 1;
pub(crate) const EXIT_ENGINE: u32 = 2;
pub(crate) use tulk_base::state::EXIT_EVENT;

impl ExitFlag {
    /// The state must outlive the flag: [`crate::Vcpu`] owns both through its engine's registry and takes the flag out of
    /// there before it frees the state.
    pub(crate) fn new(state: &CpuState) -> ExitFlag {
        ExitFlag(&raw const state.exit_request)
    }
    /// The engine wants the thread at a quiescent point.
    pub fn raise(&self, bits: u32) {
        // SAFETY: alive, see `new`.
        unsafe { &*self.0 }.fetch_or(bits, Ordering::SeqCst);
    }
}
