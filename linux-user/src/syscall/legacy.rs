//! Calls of older guests that newer ones express by another call with more arguments. Where only arguments must be
//! added or moved the table says it (`open::openat(cwd,$1,$2,$3)`), and nothing stands here.

use super::args::Args;
use super::time::Timeval;
use super::{Cx, EBADF, EFAULT, EINVAL, Errno, SysResult};
use crate::abi::StatForm;
use crate::abi::record::{I64, Long, U8, U32, ULong};
use crate::host::signal::{FAULTS, Set, bit, set_arg, set_mask};
use crate::host::{self, Zeroed};
use crate::signals::{Action, SA_NODEFER, SA_RESETHAND, SIGNALS};
use crate::{record, sleep, sys};

// ---- names and descriptors -----------------------------------------------------------------------

pub fn sys_dup2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (old, new) = (a[0], a[1]);
    if cx.process.is_own_fd(old as i32) || cx.process.is_own_fd(new as i32) {
        return Err(EBADF);
    }
    // Other than dup3, the same number twice is fine.
    if old as i32 == new as i32 {
        return sys!(SYS_fcntl, old, libc::F_GETFD).map(|_| old);
    }
    sys!(SYS_dup3, old, new, 0)
}

/// `epoll_create` and `inotify_init`'s ancestors check an argument that means nothing today.
pub fn sys_epoll_create(_: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[0] as i32 <= 0 {
        return Err(EINVAL);
    }
    sys!(SYS_epoll_create1, 0)
}

pub fn sys_creat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let flags = cx.abi.open_flags_to_guest(libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC);
    super::open::sys_openat(cx, &[libc::AT_FDCWD as u64, a[0], flags as u64, a[1], 0, 0, 0])
}

/// `_llseek`: the offset comes in halves, the result goes to memory.
pub fn sys_llseek(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let offset = a[1] << 32 | a[2] as u32 as u64;
    let result = super::dir::seek(cx, a[0], offset as i64, a[4])?;
    cx.put::<I64>(a[3], result as i64)?;
    Ok(0)
}

fn stat_by_name(cx: &mut Cx<'_>, a: &Args, flags: i32, form: StatForm) -> SysResult {
    let path = cx.path(libc::AT_FDCWD, a[0], flags & libc::AT_SYMLINK_NOFOLLOW == 0)?;
    let mut st = libc::stat::zeroed();
    sys!(SYS_newfstatat, libc::AT_FDCWD, path.as_c_str(), &mut st, flags)?;
    cx.put_bytes(a[1], &cx.abi.stat_bytes(&st, form)?)?;
    Ok(0)
}
macro_rules! stats {
    ($($stat:ident $lstat:ident $fstat:ident $form:ident;)*) => {$(
        pub fn $stat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
            stat_by_name(cx, a, 0, StatForm::$form)
        }
        pub fn $lstat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
            stat_by_name(cx, a, libc::AT_SYMLINK_NOFOLLOW, StatForm::$form)
        }
        pub fn $fstat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
            let mut st = libc::stat::zeroed();
            sys!(SYS_fstat, a[0], &mut st)?;
            cx.put_bytes(a[1], &cx.abi.stat_bytes(&st, StatForm::$form)?)?;
            Ok(0)
        }
    )*};
}
stats! {
    sys_stat sys_lstat sys_fstat Plain;
    sys_stat64 sys_lstat64 sys_fstat64 Wide;
    sys_oldstat sys_oldlstat sys_oldfstat Old;
}

// ---- time ----------------------------------------------------------------------------------------

pub fn sys_time(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let now = host::clock_gettime(libc::CLOCK_REALTIME)?.tv_sec;
    cx.put_opt::<Long>(a[0], now)?;
    Ok(now as u64)
}
pub fn sys_stime(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = libc::timespec { tv_sec: cx.get::<Long>(a[0])?, tv_nsec: 0 };
    sys!(SYS_clock_settime, libc::CLOCK_REALTIME, &time)
}

/// Microseconds as nanoseconds, out of range when they are.
fn nanos(t: Timeval) -> Result<libc::timespec, Errno> {
    if !(0..1_000_000).contains(&t.usec) {
        return Err(EINVAL);
    }
    Ok(libc::timespec { tv_sec: t.sec, tv_nsec: t.usec * 1000 })
}
fn set_times(
    cx: &mut Cx<'_>,
    dirfd: u64,
    path: u64,
    times: Option<[libc::timespec; 2]>,
) -> SysResult {
    if path != 0 && cx.mem(path).0 == 0 {
        return Err(EFAULT);
    }
    sys!(SYS_utimensat, dirfd, cx.mem(path), times.as_ref(), 0)
}
pub fn sys_utime(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let times = match a[1] {
        0 => None,
        va => {
            let second = |sec| libc::timespec { tv_sec: sec, tv_nsec: 0 };
            Some(cx.get::<[Long; 2]>(va)?.map(second))
        }
    };
    set_times(cx, libc::AT_FDCWD as u64, a[0], times)
}
/// `futimesat`, and `utimes` with the current directory.
pub fn sys_futimesat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let times = match cx.get_opt::<[Timeval; 2]>(a[2])? {
        None => None,
        Some([access, change]) => Some([nanos(access)?, nanos(change)?]),
    };
    set_times(cx, a[0], a[1], times)
}

pub fn sys_alarm(_: &mut Cx<'_>, a: &Args) -> SysResult {
    let (mut new, mut old) = (libc::itimerval::zeroed(), libc::itimerval::zeroed());
    new.it_value.tv_sec = a[0] as u32 as i64;
    sys!(SYS_setitimer, libc::ITIMER_REAL, &new, &mut old)?;
    // Rounded, but a running alarm never shows zero.
    let rest = old.it_value;
    let seconds = rest.tv_sec + (rest.tv_usec >= 500_000) as i64;
    Ok(if seconds == 0 && rest.tv_usec != 0 { 1 } else { seconds as u64 })
}

// ---- waiting -------------------------------------------------------------------------------------

pub fn sys_poll(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let ms = a[2] as i32;
    let time = (ms >= 0).then(|| libc::timespec {
        tv_sec: (ms / 1000) as i64,
        tv_nsec: (ms % 1000) as i64 * 1_000_000,
    });
    super::poll::poll(cx, a[0], a[1], time, None).0
}

pub fn sys_select(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = match cx.get_opt::<Timeval>(a[4])? {
        None => None,
        Some(t) if t.sec < 0 || t.usec < 0 => return Err(EINVAL),
        Some(t) => Some(libc::timespec {
            tv_sec: t.sec + t.usec / 1_000_000,
            tv_nsec: t.usec % 1_000_000 * 1000,
        }),
    };
    let (result, rest) = super::poll::select(cx, a, time, None);
    if let Some(rest) = rest {
        let rest = Timeval { sec: rest.tv_sec, usec: rest.tv_nsec / 1000 };
        // A timeout in memory that cannot be written stays.
        let _ = cx.put::<Timeval>(a[4], rest);
    }
    result
}
/// The first `select`: its arguments are in memory.
pub fn sys_old_select(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let [n, read, write, except, time] = cx.get::<[ULong; 5]>(a[0])?;
    sys_select(cx, &[n, read, write, except, time, 0, 0])
}
/// The first `mmap` likewise.
pub fn sys_old_mmap(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let [at, len, prot, flags, fd, offset] = cx.get::<[U32; 6]>(a[0])?.map(u64::from);
    if offset & 4095 != 0 {
        return Err(EINVAL);
    }
    super::mem::sys_mmap(cx, &[at, len, prot, flags, fd as i32 as u64, offset, 0])
}
/// `mmap2` counts the offset in pages.
pub fn sys_mmap2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let [at, len, prot, flags, fd, offset, _] = *a;
    super::mem::sys_mmap(cx, &[at, len, prot, flags, fd, offset << 12, 0])
}

pub fn sys_waitpid(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    super::wait::sys_wait4(cx, &[a[0], a[1], a[2], 0, 0, 0, 0])
}
pub fn sys_nice(_: &mut Cx<'_>, a: &Args) -> SysResult {
    // The call answers 20 minus the value, which is never negative.
    let now = 20 - sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)? as i32;
    let new = now.saturating_add((a[0] as i32).clamp(-40, 40)).clamp(-20, 19);
    let result = sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, new);
    result.map_err(|e| if e.0 == libc::EACCES { super::EPERM } else { e })
}
pub fn sys_getpgrp(_: &mut Cx<'_>, _: &Args) -> SysResult {
    sys!(SYS_getpgid, 0)
}

// ---- signals with one word of mask ---------------------------------------------------------------

record! {
    struct OldAction { handler: U32, mask: U32, flags: U32, restorer: U32 }
}

/// The mask's upper half stays what it is.
fn with_low(old: Set, low: u32) -> Set {
    (old & !0xffff_ffff | low as u64) & !(bit(libc::SIGKILL) | bit(libc::SIGSTOP))
}

fn change_action(cx: &mut Cx<'_>, signal: i32, new: Option<Action>) -> Result<Action, Errno> {
    if !(1..=SIGNALS).contains(&signal) {
        return Err(EINVAL);
    }
    match new {
        Some(_) if matches!(signal, libc::SIGKILL | libc::SIGSTOP) => Err(EINVAL),
        Some(action) => cx.thread.actions.set(signal, action),
        None => Ok(cx.thread.actions.get(signal)),
    }
}

pub fn sys_sigaction(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let new = cx.get_opt::<OldAction>(a[1])?.map(|new| Action {
        handler: new.handler as u64,
        flags: new.flags as u64,
        restorer: new.restorer as u64,
        mask: with_low(0, new.mask),
        narrow: true,
    });
    let old = change_action(cx, a[0] as i32, new)?;
    let shown = OldAction {
        handler: old.handler as u32,
        mask: old.mask as u32,
        flags: old.flags as u32,
        restorer: old.restorer as u32,
    };
    cx.put_opt::<OldAction>(a[2], shown)?;
    Ok(0)
}
/// The first of all: the action is used once, and the signal not blocked meanwhile.
pub fn sys_signal(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let flags = SA_RESETHAND | SA_NODEFER;
    let action = Action { handler: a[1], flags, narrow: true, ..Action::default() };
    change_action(cx, a[0] as i32, Some(action)).map(|old| old.handler)
}

pub fn sys_sigprocmask(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let old = cx.thread.signals.mask;
    if let Some(set) = cx.get_opt::<U32>(a[1])? {
        let set = set as u64;
        let new = match a[0] as i32 {
            libc::SIG_BLOCK => old | set,
            libc::SIG_UNBLOCK => old & !set,
            libc::SIG_SETMASK => old & !0xffff_ffff | set,
            _ => return Err(EINVAL),
        };
        cx.pending_first()?;
        cx.thread.signals.mask = with_low(new, new as u32);
        set_mask(cx.thread.signals.mask);
        cx.recheck(cx.thread.signals.mask);
    }
    cx.put_opt::<U32>(a[2], old as u32)?;
    Ok(0)
}
pub fn sys_sigpending(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut set: Set = 0;
    sys!(SYS_rt_sigpending, &mut set, 8)?;
    set |= cx.thread.signals.mailbox.ready();
    cx.put::<U32>(a[0], (set & cx.thread.signals.mask) as u32)?;
    Ok(0)
}
/// The mask is the third argument; the others had a meaning once.
pub fn sys_sigsuspend(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let set = with_low(0, a[2] as u32);
    let old = std::mem::replace(&mut cx.thread.signals.mask, set);
    cx.recheck(set);
    let result = sleep!(cx, SYS_rt_sigsuspend, set_arg(&(set & !FAULTS)), 8);
    cx.thread.signals.saved_mask = Some(old);
    result.map_err(|_| host::ERESTARTNOHAND)
}
pub fn sys_sgetmask(cx: &mut Cx<'_>, _: &Args) -> SysResult {
    Ok(cx.thread.signals.mask as u32 as u64)
}
pub fn sys_ssetmask(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    cx.pending_first()?;
    let old = cx.thread.signals.mask;
    cx.thread.signals.mask = with_low(0, a[0] as u32);
    set_mask(cx.thread.signals.mask);
    cx.recheck(cx.thread.signals.mask);
    Ok(old as u32 as u64)
}

// ---- descriptors for events ----------------------------------------------------------------------

pub fn sys_signalfd(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    super::signal::sys_signalfd4(cx, &[a[0], a[1], a[2], 0, 0, 0, 0])
}

// ---- the system ----------------------------------------------------------------------------------

record! {
    /// `struct old_utsname` and the one before.
    struct OldUtsname {
        sysname: [U8; 65],
        nodename: [U8; 65],
        release: [U8; 65],
        version: [U8; 65],
        machine: [U8; 65],
    }
    struct OldestUtsname {
        sysname: [U8; 9],
        nodename: [U8; 9],
        release: [U8; 9],
        version: [U8; 9],
        machine: [U8; 9],
    }
}

pub fn sys_olduname(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let [sysname, nodename, release, version, machine, _] = super::info::names(cx)?;
    let out = OldUtsname { sysname, nodename, release, version, machine };
    cx.put::<OldUtsname>(a[0], out)?;
    Ok(0)
}
pub fn sys_oldolduname(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let cut =
        |name: [u8; 65]| -> [u8; 9] { std::array::from_fn(|i| if i < 8 { name[i] } else { 0 }) };
    let [sysname, nodename, release, version, machine, _] = super::info::names(cx)?.map(cut);
    let out = OldestUtsname { sysname, nodename, release, version, machine };
    cx.put::<OldestUtsname>(a[0], out)?;
    Ok(0)
}
