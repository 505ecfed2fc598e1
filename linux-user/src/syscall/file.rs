//! Reading, writing and making descriptors. Data goes between guest memory and the kernel without a copy.

use super::args::Args;
use super::{Cx, EBADF, EINVAL, Errno, SysResult};
use crate::abi::record::{I32, I64, Long, Ptr, ULong};
use crate::{record, sleep, sys};

record! {
    /// `struct iovec`.
    pub struct Iovec { base: Ptr, len: ULong }
}

/// Most vectors of one call.
const IOV_MAX: u64 = 1024;

/// The guest's vectors as host vectors over guest memory; `out` when the kernel writes to them.
pub fn iovecs(cx: &Cx<'_>, va: u64, count: u64, out: bool) -> Result<Vec<libc::iovec>, Errno> {
    if count > IOV_MAX {
        return Err(EINVAL);
    }
    let vectors = cx.get_array::<Iovec>(va, count as usize)?;
    let host = |v: &Iovec| {
        let mem = if out { cx.mem_out(v.base, v.len) } else { cx.mem(v.base) };
        libc::iovec { iov_base: mem.0 as *mut _, iov_len: v.len as usize }
    };
    Ok(vectors.iter().map(host).collect())
}

/// The offset of `preadv` and friends, which comes as two words whatever the guest's word size.
fn position(cx: &Cx<'_>, low: u64, high: u64) -> u64 {
    if cx.model.word == 8 { low } else { low as u32 as u64 | high << 32 }
}

pub fn sys_read(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sleep!(cx, SYS_read, a[0], cx.mem_out(a[1], a[2]), a[2])
}
pub fn sys_write(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sleep!(cx, SYS_write, a[0], cx.mem(a[1]), a[2])
}
pub fn sys_readv(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let iov = iovecs(cx, a[1], a[2], true)?;
    sleep!(cx, SYS_readv, a[0], &iov[..], iov.len())
}
pub fn sys_writev(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let iov = iovecs(cx, a[1], a[2], false)?;
    sleep!(cx, SYS_writev, a[0], &iov[..], iov.len())
}
pub fn sys_pread64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sleep!(cx, SYS_pread64, a[0], cx.mem_out(a[1], a[2]), a[2], a[3])
}
pub fn sys_pwrite64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sleep!(cx, SYS_pwrite64, a[0], cx.mem(a[1]), a[2], a[3])
}
pub fn sys_preadv(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let iov = iovecs(cx, a[1], a[2], true)?;
    sleep!(cx, SYS_preadv, a[0], &iov[..], iov.len(), position(cx, a[3], a[4]), 0)
}
pub fn sys_pwritev(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let iov = iovecs(cx, a[1], a[2], false)?;
    sleep!(cx, SYS_pwritev, a[0], &iov[..], iov.len(), position(cx, a[3], a[4]), 0)
}
pub fn sys_preadv2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let iov = iovecs(cx, a[1], a[2], true)?;
    sleep!(cx, SYS_preadv2, a[0], &iov[..], iov.len(), position(cx, a[3], a[4]), 0, a[5])
}
pub fn sys_pwritev2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let iov = iovecs(cx, a[1], a[2], false)?;
    sleep!(cx, SYS_pwritev2, a[0], &iov[..], iov.len(), position(cx, a[3], a[4]), 0, a[5])
}
pub fn sys_vmsplice(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    // The descriptor's direction decides who writes; assume the kernel does.
    let iov = iovecs(cx, a[1], a[2], true)?;
    sleep!(cx, SYS_vmsplice, a[0], &iov[..], iov.len(), a[3])
}

pub fn sys_lseek(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let at = super::dir::seek(cx, a[0], a[1] as i64, a[2])?;
    if cx.model.word == 4 && at > i32::MAX as u64 {
        return Err(Errno(libc::EOVERFLOW));
    }
    Ok(at)
}
pub fn sys_truncate(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_truncate, cx.mem(a[0]), a[1])
}
pub fn sys_ftruncate(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_ftruncate, a[0], a[1])
}
pub fn sys_fallocate(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sleep!(cx, SYS_fallocate, a[0], a[1], a[2], a[3])
}

/// Calls `f` with a pointer to the guest's 64-bit offset, if it gave one, and writes the offset back.
fn with_offset(
    cx: &mut Cx<'_>,
    va: u64,
    f: impl FnOnce(&mut Cx<'_>, Option<&mut i64>) -> SysResult,
) -> SysResult {
    if va == 0 {
        return f(cx, None);
    }
    let mut offset = cx.get::<I64>(va)?;
    let result = f(cx, Some(&mut offset))?;
    cx.put::<I64>(va, offset)?;
    Ok(result)
}

pub fn sys_sendfile(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[2] == 0 {
        return sleep!(cx, SYS_sendfile, a[0], a[1], 0, a[3]);
    }
    let mut offset = cx.get::<Long>(a[2])?;
    let n = sleep!(cx, SYS_sendfile, a[0], a[1], &mut offset, a[3])?;
    cx.put::<Long>(a[2], offset)?;
    Ok(n)
}
/// With a 64-bit offset on 32-bit guests too.
pub fn sys_sendfile64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    with_offset(cx, a[2], |cx, offset| sleep!(cx, SYS_sendfile, a[0], a[1], offset, a[3]))
}
pub fn sys_splice(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    with_offset(cx, a[1], |cx, from| {
        with_offset(cx, a[3], |cx, to| sleep!(cx, SYS_splice, a[0], from, a[2], to, a[4], a[5]))
    })
}
pub fn sys_copy_file_range(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    with_offset(cx, a[1], |cx, from| {
        with_offset(cx, a[3], |_, to| sys!(SYS_copy_file_range, a[0], from, a[2], to, a[4], a[5]))
    })
}

pub fn sys_close(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if cx.process.is_own_fd(a[0] as i32) {
        return Err(EBADF);
    }
    sys!(SYS_close, a[0])
}
pub fn sys_close_range(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (first, last, flags) = (a[0], a[1], a[2]);
    if first > last {
        return Err(EINVAL);
    }
    // Around the descriptors that are tulk's.
    let mut at = first;
    for own in cx.process.own_fds() {
        let own = own as u64;
        if own < at || own > last {
            continue;
        }
        if own > at {
            sys!(SYS_close_range, at, own - 1, flags)?;
        }
        at = own + 1;
    }
    if at > last {
        return Ok(0);
    }
    sys!(SYS_close_range, at, last, flags)
}
pub fn sys_dup(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if cx.process.is_own_fd(a[0] as i32) {
        return Err(EBADF);
    }
    sys!(SYS_dup, a[0])
}
pub fn sys_dup3(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if cx.process.is_own_fd(a[0] as i32) || cx.process.is_own_fd(a[1] as i32) {
        return Err(EBADF);
    }
    sys!(SYS_dup3, a[0], a[1], cx.abi.open_flags_to_host(a[2] as u32))
}

/// Hands a pair of new descriptors to the guest, or closes them when it cannot take them.
pub fn put_pair(cx: &Cx<'_>, va: u64, pair: [i32; 2]) -> SysResult {
    let put = cx.put::<[I32; 2]>(va, pair);
    if put.is_err() {
        for fd in pair {
            let _ = sys!(SYS_close, fd);
        }
    }
    put.map(|()| 0)
}

pub fn sys_pipe2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut pair = [0i32; 2];
    sys!(SYS_pipe2, &mut pair, cx.abi.open_flags_to_host(a[1] as u32))?;
    put_pair(cx, a[0], pair)
}
pub fn sys_eventfd2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    // EFD_SEMAPHORE is 1; the other flags are those of open.
    let flags = cx.abi.open_flags_to_host(a[1] as u32 & !1) | (a[1] & 1) as i32;
    sys!(SYS_eventfd2, a[0], flags)
}
pub fn sys_epoll_create1(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_epoll_create1, cx.abi.open_flags_to_host(a[0] as u32))
}
pub fn sys_inotify_init1(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_inotify_init1, cx.abi.open_flags_to_host(a[0] as u32))
}
pub fn sys_inotify_add_watch(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let follow = a[2] as u32 & libc::IN_DONT_FOLLOW == 0;
    let path = cx.path(libc::AT_FDCWD, a[1], follow)?;
    sys!(SYS_inotify_add_watch, a[0], path.as_c_str(), a[2])
}
pub fn sys_fanotify_init(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fanotify_init, a[0], cx.abi.open_flags_to_host(a[1] as u32))
}
pub fn sys_fanotify_mark(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fanotify_mark, a[0], a[1], a[2], a[3], cx.mem(a[4]))
}
