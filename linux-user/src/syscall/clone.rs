//! New threads and processes: `clone`, `clone3`, and the calls about thread identity.

use super::args::Args;
use super::{Cx, EINVAL, Errno, Flow, SysResult};
use crate::abi::record::U64;
use crate::host::signal::set_mask;
use crate::host::{self, spawn};
use crate::signals::SIGNALS;
use crate::thread::{self, Spawn};
use crate::{record, sys};
use libc::c_int;
use std::sync::atomic::Ordering;

const CLONE_VM: u64 = libc::CLONE_VM as u64;
const CLONE_VFORK: u64 = libc::CLONE_VFORK as u64;
const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;
const CLONE_SIGHAND: u64 = libc::CLONE_SIGHAND as u64;
const CLONE_FILES: u64 = libc::CLONE_FILES as u64;
const CLONE_FS: u64 = libc::CLONE_FS as u64;
const CLONE_SYSVSEM: u64 = libc::CLONE_SYSVSEM as u64;
const CLONE_SETTLS: u64 = libc::CLONE_SETTLS as u64;
const CLONE_PARENT_SETTID: u64 = libc::CLONE_PARENT_SETTID as u64;
const CLONE_CHILD_SETTID: u64 = libc::CLONE_CHILD_SETTID as u64;
const CLONE_CHILD_CLEARTID: u64 = libc::CLONE_CHILD_CLEARTID as u64;
const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;
const CLONE_PTRACE: u64 = libc::CLONE_PTRACE as u64;
const CLONE_DETACHED: u64 = libc::CLONE_DETACHED as u64;
const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;
const CLONE_IO: u64 = libc::CLONE_IO as u64 & 0xffff_ffff;
const CLONE_UNTRACED: u64 = libc::CLONE_UNTRACED as u64;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CSIGNAL: u64 = 0xff;

/// What a thread shares: exactly this much is possible, because it is a host thread.
const THREAD_SHARES: u64 =
    CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_FILES | CLONE_FS | CLONE_SYSVSEM;
/// Flags that tulk serves itself, and those without meaning here.
const OWN: u64 = CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_SETTID
    | CLONE_CHILD_CLEARTID
    | CLONE_PTRACE
    | CLONE_DETACHED
    | CLONE_UNTRACED
    | CLONE_IO
    | CLONE_SYSVSEM;

/// What is asked for, from either call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    flags: u64,
    exit_signal: u64,
    /// The stack pointer to start with; 0 keeps the parent's.
    sp: u64,
    tls: u64,
    parent_tid: u64,
    child_tid: u64,
    pidfd: u64,
}

/// A child in the same memory, for a thread's loop to make.
#[derive(Clone, Copy, Debug)]
pub struct Vfork {
    request: Request,
    /// For the host.
    pub flags: u64,
}

impl Vfork {
    /// The child handles signals as its parent does, now and later.
    pub fn shares_actions(&self) -> bool {
        self.request.flags & CLONE_SIGHAND != 0
    }
    /// A pidfd is wanted.
    pub fn wants_pidfd(&self) -> bool {
        self.request.flags & CLONE_PIDFD != 0
    }
    /// In the child.
    pub fn become_child(&self, cx: &mut Cx<'_>) {
        become_child(cx, &self.request);
    }
    /// In the parent, once the child has gone its own way, or in the memory that both share; the result of the call.
    pub fn finish(&self, cx: &mut Cx<'_>, pid: i32, pidfd: c_int) -> SysResult {
        if self.request.flags & CLONE_PIDFD != 0 {
            cx.put::<crate::abi::record::I32>(self.request.pidfd, pidfd)?;
        }
        if self.request.flags & CLONE_PARENT_SETTID != 0 {
            cx.put::<crate::abi::record::U32>(self.request.parent_tid, pid as u32)?;
        }
        Ok(pid as u64)
    }
}

record! {
    /// `struct clone_args`, version 2 with `cgroup`.
    struct CloneArgs {
        flags: U64,
        pidfd: U64,
        child_tid: U64,
        parent_tid: U64,
        exit_signal: U64,
        stack: U64,
        stack_size: U64,
        tls: U64,
        set_tid: U64,
        set_tid_size: U64,
        cgroup: U64,
    }
}

pub fn sys_clone(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let [flags, sp, parent_tid, child_tid, tls] = cx.abi.clone_args(a);
    // clone() returns the pidfd through the parent's tid.
    let flags = flags & 0xffff_ffff;
    let exit_signal = flags & CSIGNAL;
    let flags = flags & !CSIGNAL;
    if flags & CLONE_PIDFD != 0 && flags & CLONE_PARENT_SETTID != 0 {
        return Err(EINVAL);
    }
    start(cx, Request { flags, exit_signal, sp, tls, parent_tid, child_tid, pidfd: parent_tid })
}

pub fn sys_fork(cx: &mut Cx<'_>, _: &Args) -> SysResult {
    start(cx, Request { exit_signal: libc::SIGCHLD as u64, ..Request::default() })
}
pub fn sys_vfork(cx: &mut Cx<'_>, _: &Args) -> SysResult {
    let flags = CLONE_VM | CLONE_VFORK;
    start(cx, Request { flags, exit_signal: libc::SIGCHLD as u64, ..Request::default() })
}

pub fn sys_clone3(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    const V0: u64 = 64;
    let full = 88;
    if a[1] < V0 {
        return Err(EINVAL);
    }
    if a[1] > 4096 {
        return Err(Errno(libc::E2BIG));
    }
    let mut bytes = cx.get_bytes(a[0], a[1] as usize)?;
    if bytes.iter().skip(full).any(|&b| b != 0) {
        return Err(Errno(libc::E2BIG));
    }
    bytes.resize(full, 0);
    let args = <CloneArgs as crate::abi::record::Field>::get(&bytes, cx.model);
    if args.set_tid_size != 0 || args.cgroup != 0 {
        return Err(EINVAL);
    }
    let known = !(CLONE_DETACHED | CSIGNAL) & 0xffff_ffff | CLONE_CLEAR_SIGHAND;
    let sibling = args.flags & (CLONE_THREAD | CLONE_PARENT) != 0;
    if args.flags & !known != 0
        || args.exit_signal > SIGNALS as u64
        || sibling && args.exit_signal != 0
        || (args.stack == 0) != (args.stack_size == 0)
    {
        return Err(EINVAL);
    }
    let sp = args.stack.wrapping_add(args.stack_size);
    let request = Request {
        flags: args.flags,
        exit_signal: args.exit_signal,
        sp,
        tls: args.tls,
        parent_tid: args.parent_tid,
        child_tid: args.child_tid,
        pidfd: args.pidfd,
    };
    start(cx, request)
}

fn start(cx: &mut Cx<'_>, r: Request) -> SysResult {
    let f = r.flags;
    if f & CLONE_SIGHAND != 0 && f & CLONE_VM == 0
        || f & CLONE_THREAD != 0 && f & CLONE_SIGHAND == 0
    {
        return Err(EINVAL);
    }
    if f & CLONE_SETTLS != 0 {
        cx.abi.check_tls(cx.process, r.tls)?;
    }
    if f & CLONE_THREAD != 0 {
        if f & THREAD_SHARES & !CLONE_SYSVSEM != THREAD_SHARES & !CLONE_SYSVSEM
            || f & !(THREAD_SHARES | OWN) != 0
        {
            return Err(EINVAL);
        }
        return thread(cx, &r);
    }
    if f & CLONE_VM != 0 && f & CLONE_VFORK == 0 {
        let flags = (f & !(OWN | CLONE_CLEAR_SIGHAND)) | r.exit_signal;
        return thread::spawn_process(cx, Vfork { request: r, flags });
    }
    process(cx, &r)
}

fn thread(cx: &mut Cx<'_>, r: &Request) -> SysResult {
    let spawn = Spawn {
        sp: (r.sp != 0).then_some(r.sp),
        tls: (r.flags & CLONE_SETTLS != 0).then_some(r.tls),
        set_child_tid: (r.flags & CLONE_CHILD_SETTID != 0).then_some(r.child_tid),
        set_parent_tid: (r.flags & CLONE_PARENT_SETTID != 0).then_some(r.parent_tid),
        clear_child_tid: if r.flags & CLONE_CHILD_CLEARTID != 0 { r.child_tid } else { 0 },
    };
    thread::spawn(cx, spawn)
}

/// In the child: its registers and identity.
fn become_child(cx: &mut Cx<'_>, r: &Request) {
    let tls = (r.flags & CLONE_SETTLS != 0).then_some(r.tls);
    cx.abi.start_clone(cx.process, cx.state, (r.sp != 0).then_some(r.sp), tls);
    cx.thread.clear_child_tid = if r.flags & CLONE_CHILD_CLEARTID != 0 { r.child_tid } else { 0 };
    cx.thread.robust_list = 0;
    cx.flow = Flow::Registers;
    if r.flags & CLONE_CHILD_SETTID != 0 {
        let tid = sys!(SYS_gettid).unwrap_or(0);
        let _ = cx.put::<crate::abi::record::U32>(r.child_tid, tid as u32);
    }
    if r.flags & CLONE_CLEAR_SIGHAND != 0 {
        cx.thread.actions.clear_handlers();
    }
}

/// A signal that this thread has taken from the kernel must be seen by the parent, and only there.
fn process(cx: &mut Cx<'_>, r: &Request) -> SysResult {
    set_mask(!0);
    let result = cx.pending_first().and_then(|()| start_process(cx, r));
    if cx.flow != Flow::Vfork {
        set_mask(cx.thread.signals.mask);
    }
    result
}

fn start_process(cx: &mut Cx<'_>, r: &Request) -> SysResult {
    let flags = (r.flags & !(OWN | CLONE_CLEAR_SIGHAND)) | r.exit_signal;
    if r.flags & CLONE_VM != 0 {
        return vfork(cx, *r, flags);
    }
    // vfork without shared memory: the parent waits for exec or exit of a real fork.
    let mut pidfd: c_int = -1;
    let plain = flags & !CLONE_VFORK == libc::SIGCHLD as u64;
    let wait = if r.flags & CLONE_VFORK != 0 { Some(host::pipe_cloexec()?) } else { None };
    let pid = {
        let _trace = crate::strace::before_fork();
        let debugger = cx.process.debugger();
        let _debugger = debugger.as_ref().map(|d| d.lock_for_fork());
        let _process = cx.process.lock_for_fork();
        let _space = cx.process.space.lock_for_fork();
        let _engine = cx.process.engine.before_fork();
        if plain {
            spawn::fork()?
        } else {
            let pidfd_at = (&raw mut pidfd) as u64;
            spawn::clone_process(flags & !CLONE_VFORK, pidfd_at)?
        }
    };
    if pid == 0 {
        cx.process.engine.after_fork_in_child();
        cx.process.threads.store(1, Ordering::SeqCst);
        super::mem::forget_not_forked(cx.process);
        crate::strace::forked();
        crate::debug::forked(cx.process, cx.thread, cx.state);
        if let Some((read, write)) = wait {
            let _ = sys!(SYS_close, read);
            cx.process.hide_fd(write);
        }
        become_child(cx, r);
        return Ok(0);
    }
    if r.flags & CLONE_PIDFD != 0 {
        cx.put::<crate::abi::record::I32>(r.pidfd, pidfd)?;
    }
    if r.flags & CLONE_PARENT_SETTID != 0 {
        cx.put::<crate::abi::record::U32>(r.parent_tid, pid as u32)?;
    }
    if let Some((read, write)) = wait {
        let _ = sys!(SYS_close, write);
        let mut byte = 0u8;
        // Ends when the child's descriptor goes: at its exec or exit.
        while sys!(SYS_read, read, &mut byte, 1) == Err(Errno(libc::EINTR)) {}
        let _ = sys!(SYS_close, read);
    }
    Ok(pid as u64)
}

/// A child in the same memory until its `execve` or exit, as `posix_spawn` and shells want it: what it writes
/// (an error number, say) its parent sees. The thread's loop makes it, because the child runs there too.
fn vfork(cx: &mut Cx<'_>, r: Request, flags: u64) -> SysResult {
    cx.thread.vfork = Some(Vfork { request: r, flags });
    cx.flow = Flow::Vfork;
    Ok(0)
}

pub fn sys_set_tid_address(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    cx.thread.clear_child_tid = a[0];
    sys!(SYS_gettid)
}
