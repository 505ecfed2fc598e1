//! `sendmsg` and `recvmsg`: scattered data, an address, and control messages.
//!
//! Data goes directly between guest memory and the kernel. Address and control messages are copied: their headers have
//! words of the guest. What control messages carry (descriptors, credentials, packet information) is made of 32-bit
//! numbers or network-order bytes.

use super::args::Args;
use super::file::iovecs;
use super::sock::{ADDR_MAX, addr_in, addr_to_guest};
use super::time::{Timespec, Timeval, timeout};
use super::{Cx, EINVAL, Errno, SysResult};
use crate::abi::record::{DataModel, Field, I32, Ptr, U32, ULong};
use crate::host::{self, Zeroed};
use crate::{record, sleep, sys};

record! {
    /// `struct msghdr`.
    pub struct Msghdr {
        name: Ptr,
        namelen: U32,
        iov: Ptr,
        iovlen: ULong,
        control: Ptr,
        controllen: ULong,
        flags: U32,
    }
    struct Mmsghdr { hdr: Msghdr, len: U32 }
    /// `struct cmsghdr`; data follows, aligned to a word.
    struct Cmsghdr { len: ULong, level: I32, kind: I32 }
}

/// Most bytes of control messages.
const CONTROL_MAX: u64 = 1 << 20;

/// Rewrites control messages from one data model into another.
fn convert_control(bytes: &[u8], from: DataModel, to: DataModel) -> Vec<u8> {
    if from == to {
        return bytes.to_vec();
    }
    let swap = from.big_endian != to.big_endian;
    let (head_in, head_out) = (Cmsghdr::size(from), Cmsghdr::size(to));
    let mut out = Vec::new();
    let mut rest = bytes;
    while rest.len() >= head_in {
        let head = Cmsghdr::get(rest, from);
        let len = (head.len as usize).min(rest.len());
        if len < head_in {
            break;
        }
        let start = out.len();
        out.resize(start + head_out, 0);
        let data = &rest[head_in..len];
        match (head.level, head.kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMP) if data.len() >= Timeval::size(from) => {
                convert_data::<Timeval>(data, &mut out, from, to);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if data.len() >= Timespec::size(from) => {
                convert_data::<Timespec>(data, &mut out, from, to);
            }
            _ => out.extend_from_slice(data),
        }
        let new = Cmsghdr { len: (out.len() - start) as u64, ..head };
        Cmsghdr::put(&mut out[start..], new, to);
        if swap && head.level == libc::SOL_SOCKET {
            // Descriptors and credentials.
            for word in out[start + head_out..].chunks_exact_mut(4) {
                word.reverse();
            }
        }
        out.resize(out.len().next_multiple_of(to.word), 0);
        rest = rest.get(len.next_multiple_of(from.word)..).unwrap_or(&[]);
    }
    out
}

/// Cuts control messages to the guest's room as the kernel does it; true when something was lost. Descriptors for which
/// there is no room must not stay open.
fn fit(control: &mut Vec<u8>, room: usize, m: DataModel) -> bool {
    let head = Cmsghdr::size(m);
    let (mut at, mut size) = (0, control.len().min(room));
    let mut lost = false;
    while at + head <= control.len() {
        let message = Cmsghdr::get(&control[at..], m);
        let end = (at + message.len as usize).min(control.len());
        if end > room {
            lost = true;
            let files = (message.level, message.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
            let kept = room.saturating_sub(at + head);
            let kept = if files { kept & !3 } else { kept };
            if files {
                for fd in control[at + head + kept..end].chunks_exact(4) {
                    let _ = sys!(SYS_close, I32::get(fd, m));
                }
            }
            size = size.min(if kept == 0 { at } else { at + head + kept });
            if kept != 0 {
                let cut = Cmsghdr { len: (head + kept) as u64, ..message };
                Cmsghdr::put(&mut control[at..], cut, m);
            }
        }
        at += (message.len as usize).max(head).next_multiple_of(m.word);
    }
    control.truncate(size);
    lost
}

/// Appends a structure in another data model.
fn convert_data<F: Field>(data: &[u8], out: &mut Vec<u8>, from: DataModel, to: DataModel) {
    let start = out.len();
    out.resize(start + F::size(to), 0);
    F::put(&mut out[start..], F::get(data, from), to);
}

/// Host-side buffers of one message; they must not move while `header` is used.
struct Buffers {
    name: Vec<u8>,
    iov: Vec<libc::iovec>,
    control: Vec<u64>,
}

impl Buffers {
    fn header(&mut self, control_len: usize) -> libc::msghdr {
        let mut h = libc::msghdr::zeroed();
        if !self.name.is_empty() {
            h.msg_name = self.name.as_mut_ptr().cast();
            h.msg_namelen = self.name.len() as u32;
        }
        h.msg_iov = self.iov.as_mut_ptr();
        h.msg_iovlen = self.iov.len();
        if control_len != 0 {
            h.msg_control = self.control.as_mut_ptr().cast();
            h.msg_controllen = control_len;
        }
        h
    }
}

/// Bytes as words, because control messages are aligned to them.
fn to_words(bytes: &[u8]) -> Vec<u64> {
    let word = |c: &[u8]| {
        let mut w = [0; 8];
        w[..c.len()].copy_from_slice(c);
        u64::from_ne_bytes(w)
    };
    bytes.chunks(8).map(word).collect()
}

fn send(cx: &mut Cx<'_>, fd: u64, va: u64, flags: u64) -> SysResult {
    let m = cx.model;
    let h = cx.get::<Msghdr>(va)?;
    if h.controllen > CONTROL_MAX {
        return Err(Errno(libc::ENOBUFS));
    }
    let name = if h.name == 0 { Vec::new() } else { addr_in(cx, h.name, h.namelen as u64)? };
    let control = match h.control {
        0 => Vec::new(),
        at => convert_control(&cx.get_bytes(at, h.controllen as usize)?, m, DataModel::HOST),
    };
    if h.iovlen > 1024 {
        return Err(Errno(libc::EMSGSIZE));
    }
    let iov = iovecs(cx, h.iov, h.iovlen, false)?;
    let mut buffers = Buffers { name, iov, control: to_words(&control) };
    let header = buffers.header(control.len());
    sleep!(cx, SYS_sendmsg, fd, &header, flags)
}

fn receive(cx: &mut Cx<'_>, fd: u64, va: u64, flags: u64) -> SysResult {
    let m = cx.model;
    let mut h = cx.get::<Msghdr>(va)?;
    if h.iovlen > 1024 {
        return Err(Errno(libc::EMSGSIZE));
    }
    let name_room = match h.name {
        0 => 0,
        _ => usize::try_from(h.namelen as i32).map_err(|_| EINVAL)?,
    };
    let iov = iovecs(cx, h.iov, h.iovlen, true)?;
    // The host's headers are never smaller than the guest's.
    let room = h.controllen.min(CONTROL_MAX) as usize;
    let host_room = match (h.control, m == DataModel::HOST) {
        (0, _) => 0,
        (_, true) => room,
        (_, false) => room * 2,
    };
    let name = if h.name == 0 { Vec::new() } else { vec![0; ADDR_MAX] };
    let mut buffers = Buffers { name, iov, control: vec![0; host_room.div_ceil(8)] };
    let mut header = buffers.header(host_room);
    let n = sleep!(cx, SYS_recvmsg, fd, &mut header, flags)?;
    if h.name != 0 {
        let have = (header.msg_namelen as usize).min(ADDR_MAX);
        addr_to_guest(cx, &mut buffers.name[..have]);
        cx.put_bytes(h.name, &buffers.name[..have.min(name_room)])?;
        h.namelen = header.msg_namelen;
    }
    h.flags = header.msg_flags as u32;
    let got: Vec<u8> = buffers.control.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let mut control =
        convert_control(&got[..header.msg_controllen.min(got.len())], DataModel::HOST, m);
    if fit(&mut control, room, m) {
        h.flags |= libc::MSG_CTRUNC as u32;
    }
    if h.control != 0 {
        cx.put_bytes(h.control, &control)?;
    }
    h.controllen = control.len() as u64;
    cx.put::<Msghdr>(va, h)?;
    Ok(n)
}

pub fn sys_sendmsg(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    send(cx, a[0], a[1], a[2])
}
pub fn sys_recvmsg(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    receive(cx, a[0], a[1], a[2])
}

/// Most messages of one call, as the kernel limits it.
const MESSAGES_MAX: u64 = 1024;

/// Handles messages one after the other; what went well before an error is the result.
fn each(
    cx: &mut Cx<'_>,
    a: &Args,
    mut one: impl FnMut(&mut Cx<'_>, u64, u64) -> Result<Option<u64>, Errno>,
) -> SysResult {
    let m = cx.model;
    let len_at = Mmsghdr::size(m) - m.word.max(4);
    for i in 0..a[2].min(MESSAGES_MAX) {
        let at = cx.element::<Mmsghdr>(a[1], i as usize);
        match one(cx, at, i) {
            Ok(Some(n)) => cx.put::<U32>(at.wrapping_add(len_at as u64), n as u32)?,
            Ok(None) => return Ok(i),
            Err(e) if i == 0 => return Err(e),
            Err(_) => return Ok(i),
        }
    }
    Ok(a[2].min(MESSAGES_MAX))
}

pub fn sys_sendmmsg(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (fd, flags) = (a[0], a[3]);
    each(cx, a, |cx, at, _| send(cx, fd, at, flags).map(Some))
}

pub fn sys_recvmmsg(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (fd, mut flags) = (a[0], a[3] & !(libc::MSG_WAITFORONE as u64));
    let one = a[3] & libc::MSG_WAITFORONE as u64 != 0;
    let now = || host::clock_gettime(libc::CLOCK_MONOTONIC);
    let nanos = |t: libc::timespec| t.tv_sec as i128 * 1_000_000_000 + t.tv_nsec as i128;
    let end = match timeout(cx, a[4])? {
        Some(t) => Some(nanos(now()?) + nanos(t)),
        None => None,
    };
    // The kernel too looks at the clock only between messages.
    each(cx, a, |cx, at, i| {
        if let Some(end) = end
            && i > 0
            && nanos(now()?) >= end
        {
            return Ok(None);
        }
        let n = receive(cx, fd, at, flags)?;
        if one {
            flags |= libc::MSG_DONTWAIT as u64;
        }
        Ok(Some(n))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        assert_eq!(Msghdr::size(DataModel::LP64), 56);
        assert_eq!(Mmsghdr::size(DataModel::LP64), 64);
        assert_eq!(Cmsghdr::size(DataModel::LP64), 16);
    }

    #[test]
    fn control_messages_are_cut_to_their_room() {
        let m = DataModel::I386;
        let mut all = vec![0; 40];
        // Three descriptors that are not open, then 4 bytes of something else.
        let files = Cmsghdr { len: 24, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS };
        Cmsghdr::put(&mut all, files, m);
        all[12..24].fill(0x7f);
        Cmsghdr::put(&mut all[24..], Cmsghdr { len: 16, level: 0, kind: 1 }, m);
        let fits = |room: usize| {
            let mut c = all.clone();
            let lost = fit(&mut c, room, m);
            let len = if c.is_empty() { 0 } else { Cmsghdr::get(&c, m).len };
            (lost, c.len(), len)
        };
        assert_eq!(fits(64), (false, 40, 24));
        assert_eq!(fits(40), (false, 40, 24));
        assert_eq!(fits(38), (true, 38, 24));
        assert_eq!(fits(30), (true, 24, 24));
        assert_eq!(fits(23), (true, 20, 20));
        assert_eq!(fits(14), (true, 0, 0));
        // The padding behind the last message needs no room.
        let mut odd = vec![0; 16];
        Cmsghdr::put(&mut odd, Cmsghdr { len: 13, level: 0, kind: 1 }, m);
        assert!(!fit(&mut odd, 13, m) && odd.len() == 13);
    }

    #[test]
    fn control_messages_change_their_model() {
        let small = DataModel { big_endian: true, word: 4, align64: 8, time: 4 };
        let mut bytes = vec![0; 24];
        let head = Cmsghdr { len: 20, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS };
        Cmsghdr::put(&mut bytes, head, DataModel::LP64);
        I32::put(&mut bytes[16..], 7, DataModel::LP64);
        let twice = [bytes.clone(), bytes.clone()].concat();
        let there = convert_control(&twice, DataModel::LP64, small);
        assert_eq!(there.len(), 32);
        assert_eq!((there[3], there[15]), (16, 7));
        assert_eq!(convert_control(&there, small, DataModel::LP64), twice);
        // A header that lies about its length ends the list.
        bytes[0] = 3;
        assert!(convert_control(&bytes, DataModel::LP64, small).is_empty());
    }
}
