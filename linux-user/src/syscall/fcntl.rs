//! `fcntl`: one row per command.

use super::args::Args;
use super::{Cx, EBADF, EINVAL, Errno, SysResult};
use crate::abi::record::{I16, I32, I64, Long, U64};
use crate::host::Zeroed;
use crate::{record, sleep, sys};

record! {
    /// `struct flock`.
    struct Flock { kind: I16, whence: I16, start: Long, len: Long, pid: I32 }
    /// `struct flock64` of 32-bit guests.
    struct Flock64 { kind: I16, whence: I16, start: I64, len: I64, pid: I32 }
    /// `struct f_owner_ex`.
    struct OwnerEx { kind: I32, pid: I32 }
}

/// What the argument of a command is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    /// Like `Int`; makes a descriptor.
    Dup,
    GetFlags,
    SetFlags,
    Lock,
    LockWait,
    GetLock,
    GetOwnerEx,
    SetOwnerEx,
    /// A pointer to a 64-bit number.
    GetU64,
    SetU64,
}

/// Commands: number, name, argument.
const COMMANDS: &[(i32, &str, Kind)] = &[
    (0, "F_DUPFD", Kind::Dup),
    (1, "F_GETFD", Kind::Int),
    (2, "F_SETFD", Kind::Int),
    (3, "F_GETFL", Kind::GetFlags),
    (4, "F_SETFL", Kind::SetFlags),
    (5, "F_GETLK", Kind::GetLock),
    (6, "F_SETLK", Kind::Lock),
    (7, "F_SETLKW", Kind::LockWait),
    (8, "F_SETOWN", Kind::Int),
    (9, "F_GETOWN", Kind::Int),
    (10, "F_SETSIG", Kind::Int),
    (11, "F_GETSIG", Kind::Int),
    (15, "F_SETOWN_EX", Kind::SetOwnerEx),
    (16, "F_GETOWN_EX", Kind::GetOwnerEx),
    (36, "F_OFD_GETLK", Kind::GetLock),
    (37, "F_OFD_SETLK", Kind::Lock),
    (38, "F_OFD_SETLKW", Kind::LockWait),
    (1024, "F_SETLEASE", Kind::Int),
    (1025, "F_GETLEASE", Kind::Int),
    (1026, "F_NOTIFY", Kind::Int),
    (1027, "F_DUPFD_QUERY", Kind::Int),
    (1030, "F_DUPFD_CLOEXEC", Kind::Dup),
    (1031, "F_SETPIPE_SZ", Kind::Int),
    (1032, "F_GETPIPE_SZ", Kind::Int),
    (1033, "F_ADD_SEALS", Kind::Int),
    (1034, "F_GET_SEALS", Kind::Int),
    (1035, "F_GET_RW_HINT", Kind::GetU64),
    (1036, "F_SET_RW_HINT", Kind::SetU64),
    (1037, "F_GET_FILE_RW_HINT", Kind::GetU64),
    (1038, "F_SET_FILE_RW_HINT", Kind::SetU64),
];

/// The command's name, for --strace.
pub fn command_name(command: i32) -> Option<&'static str> {
    COMMANDS.iter().find(|c| c.0 == command).map(|c| c.1)
}

/// Reads a lock in either form.
fn get_lock(cx: &Cx<'_>, va: u64, wide: bool) -> Result<libc::flock, Errno> {
    let mut host = libc::flock::zeroed();
    let (kind, whence, start, len, pid) = match wide {
        true => {
            let l = cx.get::<Flock64>(va)?;
            (l.kind, l.whence, l.start, l.len, l.pid)
        }
        false => {
            let l = cx.get::<Flock>(va)?;
            (l.kind, l.whence, l.start, l.len, l.pid)
        }
    };
    (host.l_type, host.l_whence) = (kind, whence);
    (host.l_start, host.l_len, host.l_pid) = (start, len, pid);
    Ok(host)
}
fn put_lock(cx: &Cx<'_>, va: u64, wide: bool, host: &libc::flock) -> Result<(), Errno> {
    let (kind, whence, pid) = (host.l_type, host.l_whence, host.l_pid);
    let (start, len) = (host.l_start, host.l_len);
    if wide {
        return cx.put::<Flock64>(va, Flock64 { kind, whence, start, len, pid });
    }
    let narrow = cx.model.word == 4;
    let len = if narrow { len.min(i32::MAX as i64) } else { len };
    if narrow && start > i32::MAX as i64 {
        return Err(Errno(libc::EOVERFLOW));
    }
    cx.put::<Flock>(va, Flock { kind, whence, start, len, pid })
}

/// `fcntl64` of 32-bit guests: three commands more, for locks with 64-bit offsets, which the host's own are.
pub fn sys_fcntl64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    match a[1] as i32 {
        command @ 12..=14 => fcntl(cx, &[a[0], command as u64 - 7, a[2], 0, 0, 0, 0], true),
        _ => fcntl(cx, a, false),
    }
}
pub fn sys_fcntl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    fcntl(cx, a, false)
}
fn fcntl(cx: &mut Cx<'_>, a: &Args, wide: bool) -> SysResult {
    let (fd, command, arg) = (a[0], a[1] as i32, a[2]);
    // Locks of open files came later and are wide everywhere.
    let wide = wide || cx.model.word == 4 && (36..=38).contains(&command);
    let Some(&(.., kind)) = COMMANDS.iter().find(|c| c.0 == command) else { return Err(EINVAL) };
    if cx.process.is_own_fd(fd as i32) {
        return Err(EBADF);
    }
    match kind {
        Kind::Int | Kind::Dup => sys!(SYS_fcntl, fd, command, arg),
        Kind::GetFlags => {
            let flags = sys!(SYS_fcntl, fd, command)?;
            Ok(cx.abi.open_flags_to_guest(flags as i32) as u64)
        }
        Kind::SetFlags => {
            sys!(SYS_fcntl, fd, command, cx.abi.open_flags_to_host(arg as u32))
        }
        Kind::Lock | Kind::LockWait | Kind::GetLock => {
            let mut host = get_lock(cx, arg, wide)?;
            if kind == Kind::LockWait {
                return sleep!(cx, SYS_fcntl, fd, command, &mut host);
            }
            let result = sys!(SYS_fcntl, fd, command, &mut host)?;
            if kind == Kind::GetLock {
                put_lock(cx, arg, wide, &host)?;
            }
            Ok(result)
        }
        Kind::SetOwnerEx => {
            let owner = cx.get::<OwnerEx>(arg)?;
            sys!(SYS_fcntl, fd, command, &[owner.kind, owner.pid])
        }
        Kind::GetOwnerEx => {
            let mut owner = [0i32; 2];
            let result = sys!(SYS_fcntl, fd, command, &mut owner)?;
            cx.put::<OwnerEx>(arg, OwnerEx { kind: owner[0], pid: owner[1] })?;
            Ok(result)
        }
        Kind::GetU64 => {
            let mut value = 0u64;
            let result = sys!(SYS_fcntl, fd, command, &mut value)?;
            cx.put::<U64>(arg, value)?;
            Ok(result)
        }
        Kind::SetU64 => {
            let value = cx.get::<I64>(arg)?;
            sys!(SYS_fcntl, fd, command, &value)
        }
    }
}
