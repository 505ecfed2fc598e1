//! New host threads and processes for guest ones.

use super::call;
use std::os::raw::{c_int, c_void};
use std::ptr::null_mut;
use tulk_softmmu::Errno;

/// `fork`: returns 0 in the child.
pub fn fork() -> Result<i32, Errno> {
    // SAFETY: the caller holds the engine's and the address space's fork guards, so that the child finds no lock
    // taken by a thread that it does not have; the C library takes care of its own.
    match unsafe { libc::fork() } {
        -1 => Err(last()),
        pid => Ok(pid),
    }
}

/// The bare system call, for the flags (new name spaces, CLONE_PARENT, pidfd) that `fork` cannot express.
pub fn clone_process(flags: u64, pidfd: u64) -> Result<i32, Errno> {
    call(libc::SYS_clone, &[flags, 0, pidfd, 0, 0]).map(|pid| pid as i32)
}

fn last() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN))
}

const CHILD_STACK: usize = 1 << 20;

/// Runs `child` in a new process that shares this one's memory, with the calling thread suspended until the child
/// has called `execve` or exited (which `child` must do), as `vfork` does. Returns the child's pid; `CLONE_PIDFD` among the
/// flags sets `pidfd`.
///
/// The child has the parent thread's thread-local data, on a stack of its own. What it changes in tulk's memory the
/// parent finds changed: the caller saves and restores what must not. `child` gets the pidfd, or without that flag its
/// pid as the parent sees it.
pub fn vfork<F: FnOnce(c_int) -> std::convert::Infallible>(
    flags: u64,
    pidfd: &mut c_int,
    child: F,
) -> Result<i32, Errno> {
    struct Start<F> {
        child: Option<F>,
        /// Written by the kernel before the child runs.
        word: c_int,
    }
    extern "C" fn start<F: FnOnce(c_int) -> std::convert::Infallible>(data: *mut c_void) -> c_int {
        // SAFETY: `data` is the parent's, which waits for us and does not touch it meanwhile.
        let (child, word) = unsafe {
            let data = &mut *data.cast::<Start<F>>();
            (data.child.take(), data.word)
        };
        match child.map(|child| child(word)) {
            Some(never) => match never {},
            None => 0,
        }
    }
    let mut data = Start { child: Some(child), word: -1 };
    // SAFETY: a fresh stack; the child runs `start` on it while this thread sleeps in the kernel (CLONE_VFORK), so
    // that only one of them uses the data borrowed by the closure. The mapping outlives the child's use of it.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let stack = libc::mmap(null_mut(), CHILD_STACK, protection, kind, -1, 0);
        if stack == libc::MAP_FAILED {
            return Err(last());
        }
        let top = stack.byte_add(CHILD_STACK);
        let mut flags = flags as c_int | libc::CLONE_VM | libc::CLONE_VFORK;
        if flags & libc::CLONE_PIDFD == 0 {
            flags |= libc::CLONE_PARENT_SETTID;
        }
        let word = &raw mut data.word;
        let pid = libc::clone(start::<F>, top, flags, (&raw mut data).cast(), word);
        *pidfd = data.word;
        let result = if pid < 0 { Err(last()) } else { Ok(pid) };
        libc::munmap(stack, CHILD_STACK);
        result
    }
}
