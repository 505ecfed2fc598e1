//! Waiting for descriptors: poll, select, epoll.
//!
//! A signal mask for the time of the wait goes to the kernel with the call, so that it is installed and the wait begun
//! in one step.

use super::args::Args;
use super::signal::UNBLOCKABLE;
use super::time::{Timespec, timeout};
use super::{Cx, EBADF, EINVAL, Errno, SysResult};
use crate::abi::record::{DataModel, Field, I16, I32, Ptr, U32, U64, ULong};
use crate::host::Zeroed;
use crate::host::signal::{FAULTS, Set};
use crate::{host, record, sleep, sys};

record! {
    struct PollFd { fd: I32, events: I16, revents: I16 }
    /// `struct epoll_event` of guests that do not pack it.
    struct EpollEvent { events: U32, data: U64 }
    /// The last argument of pselect6.
    struct MaskArg { mask: Ptr, size: ULong }
}

/// Reads the guest's signal mask for a wait.
fn wait_mask(cx: &Cx<'_>, va: u64, size: u64) -> Result<Option<Set>, Errno> {
    if va == 0 {
        return Ok(None);
    }
    if size != 8 {
        return Err(EINVAL);
    }
    let mask = cx.get_set(va)? & !UNBLOCKABLE;
    cx.recheck(mask);
    Ok(Some(mask))
}

/// The mask for the host's call.
fn host_mask(guest: Option<Set>) -> Option<Set> {
    guest.map(|mask| mask & !FAULTS)
}

/// A signal that ended the wait was let through by the wait's mask, which holds until its handler is entered.
fn ended(cx: &mut Cx<'_>, mask: Option<Set>, result: SysResult) -> SysResult {
    let (Some(mask), Err(host::ERESTARTSYS | super::EINTR)) = (mask, result) else { return result };
    if host::is_interrupted(&cx.thread.interrupt) {
        let signals = &mut cx.thread.signals;
        signals.saved_mask = Some(std::mem::replace(&mut signals.mask, mask));
    }
    Err(host::ERESTARTNOHAND)
}

/// Polls; the result, and what remains of the time.
pub fn poll(
    cx: &mut Cx<'_>,
    va: u64,
    count: u64,
    mut time: Option<libc::timespec>,
    mask: Option<u64>,
) -> (SysResult, Option<libc::timespec>) {
    if count > 1 << 20 {
        return (Err(EINVAL), None);
    }
    let guest = match cx.get_array::<PollFd>(va, count as usize) {
        Ok(guest) => guest,
        Err(e) => return (Err(e), None),
    };
    let host = |p: &PollFd| libc::pollfd { fd: p.fd, events: p.events, revents: 0 };
    let mut fds: Vec<libc::pollfd> = guest.iter().map(host).collect();
    let result = sleep!(
        cx,
        SYS_ppoll,
        &mut fds[..],
        fds.len(),
        time.as_mut(),
        host_mask(mask).as_ref(),
        8usize
    );
    let result = ended(cx, mask, result).and_then(|ready| {
        for (i, fd) in fds.iter().enumerate() {
            let at = cx.element::<PollFd>(va, i).wrapping_add(6);
            cx.put::<I16>(at, fd.revents)?;
        }
        Ok(ready)
    });
    (result, time)
}

pub fn sys_ppoll(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = timeout(cx, a[2])?;
    let mask = wait_mask(cx, a[3], a[4])?;
    let (result, rest) = poll(cx, a[0], a[1], time, mask);
    put_rest(cx, a[2], rest);
    result
}

/// The kernel counts the guest's timeout down; a timeout in memory that cannot be written stays.
fn put_rest(cx: &Cx<'_>, va: u64, rest: Option<libc::timespec>) {
    if let Some(rest) = rest {
        let _ = cx.put::<Timespec>(va, Timespec::of_host(rest));
    }
}

/// A bitmap of guest words as host words, for `bits` bits.
pub fn bitmap_in(cx: &Cx<'_>, va: u64, bits: usize) -> Result<Vec<u64>, Errno> {
    let m = cx.model;
    let mut out = vec![0u64; bits.div_ceil(64)];
    if m == DataModel::HOST {
        let bytes = cx.get_bytes(va, bits.div_ceil(64) * 8)?;
        for (w, b) in out.iter_mut().zip(bytes.chunks_exact(8)) {
            *w = U64::get(b, m);
        }
        return Ok(out);
    }
    let per = m.word * 8;
    for (i, word) in cx.get_array::<ULong>(va, bits.div_ceil(per))?.into_iter().enumerate() {
        out[i * per / 64] |= word << (i * per % 64);
    }
    Ok(out)
}
/// The reverse.
pub fn bitmap_out(cx: &Cx<'_>, va: u64, bits: usize, map: &[u64]) -> Result<(), Errno> {
    let per = cx.model.word * 8;
    let words: Vec<u64> =
        (0..bits.div_ceil(per)).map(|i| map[i * per / 64] >> (i * per % 64)).collect();
    cx.put_array::<ULong>(va, &words)
}

/// Selects with the sets of arguments 0 to 3; the result, and what remains of the time.
pub fn select(
    cx: &mut Cx<'_>,
    a: &Args,
    mut time: Option<libc::timespec>,
    mask: Option<u64>,
) -> (SysResult, Option<libc::timespec>) {
    let result = select_until(cx, a, time.as_mut(), mask);
    (result, time)
}
fn select_until(
    cx: &mut Cx<'_>,
    a: &Args,
    time: Option<&mut libc::timespec>,
    mask: Option<u64>,
) -> SysResult {
    let n = a[0] as i32;
    if n < 0 {
        return Err(EINVAL);
    }
    let n = (n as usize).min(1 << 20);
    let mut sets: [Option<Vec<u64>>; 3] = [None, None, None];
    for (set, &va) in sets.iter_mut().zip(&a[1..4]) {
        if va != 0 {
            *set = Some(bitmap_in(cx, va, n)?);
        }
    }
    let host = host_mask(mask);
    let mask_arg = [host.as_ref().map_or(0, |m| m as *const u64 as u64), 8];
    let [read, write, except] = sets.each_mut().map(|s| s.as_mut().map(|v| &mut v[..]));
    let result = sleep!(cx, SYS_pselect6, n, read, write, except, time, &mask_arg);
    let ready = ended(cx, mask, result)?;
    for (set, &va) in sets.iter().zip(&a[1..4]) {
        if let Some(map) = set {
            bitmap_out(cx, va, n, map)?;
        }
    }
    Ok(ready)
}

pub fn sys_pselect6(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = timeout(cx, a[4])?;
    let mask = match cx.get_opt::<MaskArg>(a[5])? {
        Some(arg) => wait_mask(cx, arg.mask, arg.size)?,
        None => wait_mask(cx, 0, 0)?,
    };
    let (result, rest) = select(cx, a, time, mask);
    put_rest(cx, a[4], rest);
    result
}

/// Size of the guest's `struct epoll_event`, and where its data is.
pub fn epoll_layout(cx: &Cx<'_>) -> (usize, usize) {
    if cx.abi.packed_epoll_event() {
        return (12, 4);
    }
    let size = EpollEvent::size(cx.model);
    (size, size - 8)
}

pub fn sys_epoll_ctl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if cx.process.is_own_fd(a[2] as i32) {
        return Err(EBADF);
    }
    let mut event = libc::epoll_event::zeroed();
    if a[1] as i32 != libc::EPOLL_CTL_DEL {
        let (_, data_at) = epoll_layout(cx);
        event.events = cx.get::<U32>(a[3])?;
        event.u64 = cx.get::<U64>(a[3].wrapping_add(data_at as u64))?;
    }
    sys!(SYS_epoll_ctl, a[0], a[1], a[2], &mut event)
}

/// Waits on an epoll descriptor; `wait` makes the call with the room for events and the mask.
fn epoll_wait(
    cx: &mut Cx<'_>,
    a: &Args,
    mask: Option<u64>,
    wait: impl FnOnce(&mut Cx<'_>, &mut [libc::epoll_event], Option<&u64>) -> SysResult,
) -> SysResult {
    let max = a[2] as i32;
    if max <= 0 || max > 1 << 24 {
        return Err(EINVAL);
    }
    // The kernel reports no more than fits; more room than this only saves calls.
    let mut events = vec![libc::epoll_event::zeroed(); (max as usize).min(4096)];
    let result = wait(cx, &mut events, host_mask(mask).as_ref());
    let n = ended(cx, mask, result)? as usize;
    let m = cx.model;
    let (size, data_at) = epoll_layout(cx);
    let mut bytes = vec![0; n * size];
    for (b, e) in bytes.chunks_exact_mut(size).zip(&events) {
        U32::put(b, e.events, m);
        U64::put(&mut b[data_at..], e.u64, m);
    }
    cx.put_bytes(a[1], &bytes)?;
    Ok(n as u64)
}

pub fn sys_epoll_pwait(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mask = wait_mask(cx, a[4], a[5])?;
    epoll_wait(cx, a, mask, |cx, events, mask| {
        let room = events.len();
        sleep!(cx, SYS_epoll_pwait, a[0], events, room, a[3], mask, 8usize)
    })
}
pub fn sys_epoll_pwait2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mask = wait_mask(cx, a[4], a[5])?;
    let time = timeout(cx, a[3])?;
    epoll_wait(cx, a, mask, |cx, events, mask| {
        let room = events.len();
        sleep!(cx, SYS_epoll_pwait2, a[0], events, room, time.as_ref(), mask, 8usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        assert_eq!(EpollEvent::size(DataModel::LP64), 16);
        assert_eq!(PollFd::size(DataModel::LP64), 8);
    }
}
