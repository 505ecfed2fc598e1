//! Futexes: the host's own, on the guest's words. Guest threads are host threads with the same numbers, so that
//! owner words (priority inheritance, robust lists) hold what the host's kernel expects.

use super::args::Args;
use super::time::Timespec;
use super::{Cx, EINVAL, ENOSYS, Errno, SysResult};
use crate::abi::record::{DataModel, Field, Long, Ptr, U32, U64};
use crate::host::{self, Mem};
use crate::process::Process;
use crate::thread_state::Thread;
use crate::{record, sleep, sys};
use tulk_base::GuestVa;

const CMD_MASK: i32 = !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);

pub fn sys_futex(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let command = a[1] as i32 & CMD_MASK;
    let (word, word2) = (cx.mem(a[0]), cx.mem(a[4]));
    match command {
        libc::FUTEX_WAIT
        | libc::FUTEX_WAIT_BITSET
        | libc::FUTEX_LOCK_PI
        | libc::FUTEX_LOCK_PI2
        | libc::FUTEX_WAIT_REQUEUE_PI => {
            let timeout = cx.get_opt::<Timespec>(a[3])?;
            let timeout = timeout.map(|t| libc::timespec { tv_sec: t.sec, tv_nsec: t.nsec });
            sleep!(cx, SYS_futex, word, a[1], a[2], timeout.as_ref(), word2, a[5])
        }
        libc::FUTEX_WAKE
        | libc::FUTEX_WAKE_BITSET
        | libc::FUTEX_UNLOCK_PI
        | libc::FUTEX_TRYLOCK_PI
        | libc::FUTEX_REQUEUE
        | libc::FUTEX_CMP_REQUEUE
        | libc::FUTEX_CMP_REQUEUE_PI
        | libc::FUTEX_WAKE_OP => sys!(SYS_futex, word, a[1], a[2], a[3], word2, a[5]),
        _ => Err(ENOSYS),
    }
}

record! {
    struct Waitv {
        value: U64,
        address: U64,
        flags: U32,
        _reserved: U32,
    }
    /// `struct robust_list_head`.
    struct RobustHead {
        next: Ptr,
        offset: Long,
        pending: Ptr,
    }
}

/// The kernel's `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy)]
struct HostWaitv {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const FUTEX_WAITV_MAX: u64 = 128;

/// The host's copies of `struct futex_waitv`s.
fn host_waiters(cx: &mut Cx<'_>, at: u64, count: usize) -> Result<Vec<HostWaitv>, Errno> {
    let waiters = cx.get_array::<Waitv>(at, count)?;
    let host = |w: &Waitv| HostWaitv {
        value: w.value,
        address: host::SysArg::word(cx.mem(w.address)),
        flags: w.flags,
        reserved: w._reserved,
    };
    Ok(waiters.iter().map(host).collect())
}

/// From one word to another, which two `struct futex_waitv`s name.
pub fn sys_futex_requeue(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    const NUMBER: i64 = 456;
    if a[0] == 0 {
        return Err(EINVAL);
    }
    let waiters = host_waiters(cx, a[0], 2)?;
    host::call(NUMBER, &[host::SysArg::word(&waiters[..]), a[1], a[2], a[3]])
}

pub fn sys_futex_waitv(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[1] == 0 || a[1] > FUTEX_WAITV_MAX {
        return Err(EINVAL);
    }
    let waiters = host_waiters(cx, a[0], a[1] as usize)?;
    let timeout = cx.get_opt::<Timespec>(a[3])?;
    let timeout = timeout.map(|t| libc::timespec { tv_sec: t.sec, tv_nsec: t.nsec });
    sleep!(cx, SYS_futex_waitv, &waiters[..], a[1], a[2], timeout.as_ref(), a[4])
}

pub fn sys_set_robust_list(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[1] as usize != RobustHead::size(cx.model) {
        return Err(EINVAL);
    }
    cx.thread.robust_list = a[0];
    if DataModel::HOST == cx.process.abi.model() {
        // The host's kernel reads it too: it frees the locks of a process that is killed.
        sys!(SYS_set_robust_list, cx.mem(a[0]), a[1])?;
    }
    Ok(0)
}

pub fn sys_get_robust_list(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let own = sys!(SYS_gettid)?;
    if a[0] != 0 && a[0] != own {
        return Err(super::EPERM);
    }
    let size = RobustHead::size(cx.model) as u64;
    cx.put::<crate::abi::record::Ptr>(a[1], cx.thread.robust_list)?;
    cx.put::<crate::abi::record::ULong>(a[2], size)?;
    Ok(0)
}

/// Longest list that is walked (the kernel's ROBUST_LIST_LIMIT).
const ROBUST_LIMIT: usize = 2048;
const FUTEX_WAITERS: u32 = 0x8000_0000;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

/// Marks the robust locks that the ending thread still holds, and wakes who waits for them (kernel documentation,
/// `locking/robust-futexes`).
pub fn leave_robust_list(process: &Process, thread: &mut Thread) {
    let head = std::mem::take(&mut thread.robust_list);
    let m = process.abi.model();
    if DataModel::HOST == m {
        let _ = sys!(SYS_set_robust_list, Mem::NULL, RobustHead::size(m));
    }
    let read = |va: u64, size: usize| {
        let mut bytes = vec![0; size];
        process.space.copy_in(GuestVa(va), &mut bytes).ok().map(|()| bytes)
    };
    if head == 0 {
        return;
    }
    let Some(list) = read(head, RobustHead::size(m)).map(|b| RobustHead::get(&b, m)) else {
        return;
    };
    let tid = sys!(SYS_gettid).unwrap_or(0) as u32;
    let mut entry = list.next;
    for _ in 0..ROBUST_LIMIT {
        if entry & !1 == head {
            break;
        }
        let next = read(entry & !1, Ptr::size(m)).map(|b| Ptr::get(&b, m));
        if entry != list.pending {
            die_holding(process, entry, list.offset, tid);
        }
        let Some(next) = next else { break };
        entry = next;
    }
    if list.pending != 0 {
        die_holding(process, list.pending, list.offset, tid);
    }
}

/// `entry` has bit 0 set for a lock with priority inheritance, whose waiters the kernel wakes when the thread is gone.
fn die_holding(process: &Process, entry: u64, offset: i64, tid: u32) {
    let inherits = entry & 1 != 0;
    let lock = (entry & !1).wrapping_add(offset as u64);
    use tulk_base::{GuestMem, MemOp};
    let mut mem = tulk_softmmu::UserMem::new(&process.space);
    let op = if process.abi.model().big_endian { MemOp::U32.with_big_endian() } else { MemOp::U32 };
    let va = GuestVa(lock);
    if lock & 3 != 0 {
        return;
    }
    while let Ok(old) = mem.load(va, op) {
        let old = old as u32;
        if old & FUTEX_TID_MASK != tid {
            return;
        }
        let new = old & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        match mem.cas(va, op, old as u128, new as u128) {
            Ok(seen) if seen as u32 == old => {
                if old & FUTEX_WAITERS != 0 && !inherits {
                    let word: Mem = Mem(process.space.host_ptr(process.space.untag(va)));
                    let _ = sys!(SYS_futex, word, libc::FUTEX_WAKE, 1, 0, 0, 0);
                }
                return;
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
