//! Guest memory. Addresses and protections are the business of [`tulk_softmmu::UserSpace`]; what only tunes memory
//! is handed to the kernel for the parts of the range that are the guest's.

use super::args::Args;
use super::file::{Iovec, iovecs};
use super::{Cx, EINVAL, ENOMEM, Errno, SysResult};
use crate::abi::to_host;
use crate::process::Process;
use crate::sys;
use std::sync::atomic::Ordering;
use tulk_base::GuestVa;
use tulk_softmmu::MapRequest;
use tulk_softmmu::intervals::{EXEC, READ};
use tulk_softmmu::user::PAGE;

/// `PROT_GROWSDOWN` and `PROT_GROWSUP` of mprotect: the guest's stack does not grow by mapping.
const PROT_GROWS: u32 = 0x0300_0000;

fn protection(cx: &Cx<'_>, prot: u64) -> Result<u32, Errno> {
    let prot = prot as u32 & !(PROT_GROWS | cx.abi.extra_prot());
    if prot & !7 != 0 { Err(EINVAL) } else { Ok(executable(cx, prot)) }
}
/// Readable memory of old programs is executable.
fn executable(cx: &Cx<'_>, prot: u32) -> u32 {
    let more = prot & READ != 0 && cx.process.read_is_exec.load(Ordering::Relaxed);
    if more { prot | EXEC } else { prot }
}

/// `vm.mmap_min_addr`, below which only the privileged map anything. Where guest addresses are not the host's the
/// kernel does not check it.
const LOWEST: u64 = 0x1_0000;

pub fn sys_mmap(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let flags = to_host(cx.abi.map_flags(), a[3] as u32) as i32;
    let anonymous = flags & libc::MAP_ANONYMOUS != 0;
    if flags & libc::MAP_TYPE == 0 {
        if !anonymous {
            // A bad descriptor is the first thing that the kernel notices.
            sys!(SYS_fcntl, a[4], libc::F_GETFD)?;
        }
        return Err(EINVAL);
    }
    let fixed = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0;
    let mut hint = a[0];
    if cx.process.space.is_window() && hint < LOWEST {
        if fixed && sys!(SYS_geteuid)? != 0 {
            return Err(super::EPERM);
        }
        if !fixed && hint != 0 {
            hint = LOWEST;
        }
    }
    let req = MapRequest {
        hint: GuestVa(hint),
        len: a[1],
        prot: executable(cx, a[2] as u32 & 7),
        flags,
        fd: if anonymous { -1 } else { a[4] as i32 },
        offset: if anonymous { 0 } else { a[5] },
        name: None,
    };
    if !anonymous && cx.process.is_own_fd(a[4] as i32) {
        return Err(super::EBADF);
    }
    cx.process.space.map(&req).map(|va| va.0)
}

pub fn sys_munmap(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    cx.process.space.unmap(cx.process.space.untag(GuestVa(a[0])), a[1]).map(|()| 0)
}
pub fn sys_mprotect(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let prot = protection(cx, a[2])?;
    cx.process.space.protect(cx.process.space.untag(GuestVa(a[0])), a[1], prot).map(|()| 0)
}
pub fn sys_pkey_mprotect(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[3] as i32 != -1 {
        return Err(EINVAL);
    }
    sys_mprotect(cx, a)
}
/// No keys: what a processor without them says.
pub fn sys_pkey_alloc(_: &mut Cx<'_>, _: &Args) -> SysResult {
    Err(Errno(libc::ENOSPC))
}
pub fn sys_pkey_free(_: &mut Cx<'_>, _: &Args) -> SysResult {
    Err(EINVAL)
}
pub fn sys_mremap(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let space = &cx.process.space;
    let (old, new) = (GuestVa(a[0]), GuestVa(a[4]));
    space.remap(old, a[1], a[2], a[3] as i32, new).map(|va| va.0)
}
pub fn sys_brk(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    Ok(cx.process.space.brk(GuestVa(a[0])).0)
}

/// Calls `f(host address, length)` for each mapped part of `[va, va + len)`; ENOMEM afterwards when there were
/// holes, which the kernel does too.
fn for_mapped(
    cx: &Cx<'_>,
    va: u64,
    len: u64,
    mut f: impl FnMut(usize, u64) -> SysResult,
) -> SysResult {
    let space = &cx.process.space;
    let start = space.untag(GuestVa(va));
    if !start.is_aligned(PAGE) {
        return Err(EINVAL);
    }
    let len = len.checked_next_multiple_of(PAGE).ok_or(ENOMEM)?;
    let mut at = start.0;
    let end = at.checked_add(len).ok_or(ENOMEM)?;
    let mut holes = false;
    // Neighbours with different protection are one range to the kernel's call.
    let mut run: Option<(u64, u64)> = None;
    for part in space.mapped_in(start, len) {
        holes |= part.start > at;
        at = part.end;
        match &mut run {
            Some((_, e)) if *e == part.start => *e = part.end,
            _ => {
                if let Some((s, e)) = run.replace((part.start, part.end)) {
                    f(space.host_ptr(GuestVa(s)), e - s)?;
                }
            }
        }
    }
    let mut result = Ok(0);
    if let Some((s, e)) = run {
        result = f(space.host_ptr(GuestVa(s)), e - s);
    }
    let result = result?;
    if holes || at < end { Err(ENOMEM) } else { Ok(result) }
}

/// `madvise` advice: number, name, and whether it discards content.
const ADVICE: &[(i32, &str, bool)] = &[
    (0, "MADV_NORMAL", false),
    (1, "MADV_RANDOM", false),
    (2, "MADV_SEQUENTIAL", false),
    (3, "MADV_WILLNEED", false),
    (4, "MADV_DONTNEED", true),
    (8, "MADV_FREE", true),
    (9, "MADV_REMOVE", true),
    (10, "MADV_DONTFORK", false),
    (11, "MADV_DOFORK", false),
    (12, "MADV_MERGEABLE", false),
    (13, "MADV_UNMERGEABLE", false),
    (14, "MADV_HUGEPAGE", false),
    (15, "MADV_NOHUGEPAGE", false),
    (16, "MADV_DONTDUMP", false),
    (17, "MADV_DODUMP", false),
    (18, "MADV_WIPEONFORK", false),
    (19, "MADV_KEEPONFORK", false),
    (20, "MADV_COLD", false),
    (21, "MADV_PAGEOUT", false),
    (22, "MADV_POPULATE_READ", false),
    (23, "MADV_POPULATE_WRITE", true),
    (24, "MADV_DONTNEED_LOCKED", true),
    (25, "MADV_COLLAPSE", false),
];

/// The advice's name, for --strace.
pub fn advice_name(advice: i32) -> Option<&'static str> {
    ADVICE.iter().find(|a| a.0 == advice).map(|a| a.1)
}

pub fn sys_madvise(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let advice = a[2] as i32;
    let Some(&(.., discards)) = ADVICE.iter().find(|r| r.0 == advice) else { return Err(EINVAL) };
    if discards {
        // Translations of what vanishes go first; write-protected code pages become writable again.
        cx.process.space.prepare_kernel_write(GuestVa(a[0]), a[1]);
    }
    let result = for_mapped(cx, a[0], a[1], |host, len| sys!(SYS_madvise, host, len, advice));
    if discards {
        cx.process.space.discard_code(GuestVa(a[0]), a[1]);
    }
    if advice == libc::MADV_DONTFORK && result.is_ok() {
        let start = cx.process.space.untag(GuestVa(a[0]));
        cx.process.not_forked.lock().insert((start.0, a[1].next_multiple_of(PAGE)));
    }
    result
}

/// In a forked child: the kernel has left out what was advised so, and the map must know.
pub fn forget_not_forked(process: &Process) {
    let ranges = std::mem::take(&mut *process.not_forked.lock());
    for (start, len) in ranges {
        for va in (start..start + len).step_by(PAGE as usize).map(GuestVa) {
            let mut there = [0u8; 1];
            let host = process.space.host_ptr(va);
            if sys!(SYS_mincore, host, PAGE, &mut there) == Err(ENOMEM) {
                let _ = process.space.unmap(va, PAGE);
            }
        }
    }
}
pub fn sys_msync(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    for_mapped(cx, a[0], a[1], |host, len| sys!(SYS_msync, host, len, a[2]))
}

/// Rounds a range that need not start on a page.
fn whole_pages(va: u64, len: u64) -> (u64, u64) {
    let start = va & !(PAGE - 1);
    (start, len.saturating_add(va - start))
}
pub fn sys_mlock(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (va, len) = whole_pages(a[0], a[1]);
    for_mapped(cx, va, len, |host, len| sys!(SYS_mlock, host, len))
}
pub fn sys_mlock2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (va, len) = whole_pages(a[0], a[1]);
    for_mapped(cx, va, len, |host, len| sys!(SYS_mlock2, host, len, a[2]))
}
pub fn sys_munlock(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (va, len) = whole_pages(a[0], a[1]);
    for_mapped(cx, va, len, |host, len| sys!(SYS_munlock, host, len))
}
/// Locks tulk's own memory too, which is more than asked for but what the promise needs.
pub fn sys_mlockall(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_mlockall, a[0])
}
pub fn sys_munlockall(_: &mut Cx<'_>, _: &Args) -> SysResult {
    sys!(SYS_munlockall)
}
pub fn sys_mincore(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let va = GuestVa(a[0]);
    if !va.is_aligned(PAGE) {
        return Err(EINVAL);
    }
    if !cx.process.space.is_mapped(va, a[1]) {
        return Err(ENOMEM);
    }
    let out = cx.mem_out(a[2], a[1].div_ceil(PAGE));
    sys!(SYS_mincore, cx.process.space.host_ptr(va), a[1], out)
}

pub fn sys_membarrier(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_membarrier, a[0], a[1], a[2])
}

pub fn sys_mbind(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    for_mapped(cx, a[0], a[1], |host, len| {
        sys!(SYS_mbind, host, len, a[2], cx.mem(a[3]), a[4], a[5])
    })
}
pub fn sys_set_mempolicy(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_set_mempolicy, a[0], cx.mem(a[1]), a[2])
}
pub fn sys_get_mempolicy(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (mode, nodes) = (cx.mem_out(a[0], 4), cx.mem_out(a[1], a[2].div_ceil(8)));
    sys!(SYS_get_mempolicy, mode, nodes, a[2], cx.mem(a[3]), a[4])
}

/// Addresses in the other process are taken as those of a guest like this one.
fn remote_iovecs(cx: &Cx<'_>, va: u64, count: u64) -> Result<Vec<libc::iovec>, Errno> {
    if count > 1024 {
        return Err(EINVAL);
    }
    let remote = cx.get_array::<Iovec>(va, count as usize)?;
    let host =
        |v: &Iovec| libc::iovec { iov_base: cx.mem(v.base).0 as *mut _, iov_len: v.len as usize };
    Ok(remote.iter().map(host).collect())
}
pub fn sys_process_vm_readv(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (local, remote) = (iovecs(cx, a[1], a[2], true)?, remote_iovecs(cx, a[3], a[4])?);
    sys!(SYS_process_vm_readv, a[0], &local[..], local.len(), &remote[..], remote.len(), a[5])
}
pub fn sys_process_vm_writev(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (local, remote) = (iovecs(cx, a[1], a[2], false)?, remote_iovecs(cx, a[3], a[4])?);
    sys!(SYS_process_vm_writev, a[0], &local[..], local.len(), &remote[..], remote.len(), a[5])
}
