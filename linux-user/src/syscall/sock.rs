//! Sockets: making, connecting, and data with an address. Messages are in `msg`, options in `sockopt`.

use super::args::Args;
use super::{Cx, EINVAL, Errno, SysResult};
use crate::abi::record::{DataModel, Field, I32, U16};
use crate::{sleep, sys};

/// Room for any socket address.
pub const ADDR_MAX: usize = 128;

/// The type with its flags: the flags are those of open.
fn socket_type(cx: &Cx<'_>, guest: u64) -> i32 {
    let guest = guest as u32;
    cx.abi.open_flags_to_host(guest & !0xf) | (guest & 0xf) as i32
}

/// Brings an address into the host's form (the family is in the machine's byte order, the rest in the network's).
pub fn addr_in(cx: &Cx<'_>, va: u64, len: u64) -> Result<Vec<u8>, Errno> {
    let len = len as u32 as usize;
    if len as i32 > ADDR_MAX as i32 || (len as i32) < 0 {
        return Err(EINVAL);
    }
    let mut bytes = cx.get_bytes(va, len)?;
    if len >= 2 {
        let family = U16::get(&bytes, cx.model);
        U16::put(&mut bytes, family, DataModel::HOST);
    }
    Ok(bytes)
}

/// The reverse.
pub fn addr_to_guest(cx: &Cx<'_>, bytes: &mut [u8]) {
    if bytes.len() >= 2 {
        let family = U16::get(bytes, DataModel::HOST);
        U16::put(bytes, family, cx.model);
    }
}

/// An address that a call returns: `va` and `len_va` as the guest gave them.
struct AddrOut {
    va: u64,
    len_va: u64,
    room: usize,
    bytes: [u8; ADDR_MAX],
    len: u32,
}

impl AddrOut {
    fn new(cx: &Cx<'_>, va: u64, len_va: u64) -> Result<AddrOut, Errno> {
        let mut out = AddrOut { va, len_va, room: 0, bytes: [0; ADDR_MAX], len: ADDR_MAX as u32 };
        if va != 0 {
            out.room = usize::try_from(cx.get::<I32>(len_va)?).map_err(|_| EINVAL)?;
        }
        Ok(out)
    }
    /// Gives the guest as much as it has room for, and the whole length.
    fn put(mut self, cx: &Cx<'_>) -> Result<(), Errno> {
        if self.va == 0 {
            return Ok(());
        }
        let have = (self.len as usize).min(ADDR_MAX);
        addr_to_guest(cx, &mut self.bytes[..have]);
        cx.put_bytes(self.va, &self.bytes[..have.min(self.room)])?;
        cx.put::<I32>(self.len_va, self.len as i32)
    }
}

pub fn sys_socket(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_socket, a[0], socket_type(cx, a[1]), a[2])
}
pub fn sys_socketpair(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, a[0], socket_type(cx, a[1]), a[2], &mut pair)?;
    super::file::put_pair(cx, a[3], pair)
}
pub fn sys_bind(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let addr = addr_in(cx, a[1], a[2])?;
    sys!(SYS_bind, a[0], &addr[..], addr.len())
}
pub fn sys_connect(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let addr = addr_in(cx, a[1], a[2])?;
    sleep!(cx, SYS_connect, a[0], &addr[..], addr.len())
}

pub fn sys_accept(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    accept(cx, a, 0)
}
pub fn sys_accept4(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let flags = cx.abi.open_flags_to_host(a[3] as u32);
    accept(cx, a, flags)
}
fn accept(cx: &mut Cx<'_>, a: &Args, flags: i32) -> SysResult {
    let mut out = AddrOut::new(cx, a[1], a[2])?;
    let fd = sleep!(cx, SYS_accept4, a[0], &mut out.bytes, &mut out.len, flags)?;
    if let Err(e) = out.put(cx) {
        let _ = sys!(SYS_close, fd);
        return Err(e);
    }
    Ok(fd)
}
pub fn sys_getsockname(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut out = AddrOut::new(cx, a[1], a[2])?;
    sys!(SYS_getsockname, a[0], &mut out.bytes, &mut out.len)?;
    out.put(cx).map(|()| 0)
}
pub fn sys_getpeername(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut out = AddrOut::new(cx, a[1], a[2])?;
    sys!(SYS_getpeername, a[0], &mut out.bytes, &mut out.len)?;
    out.put(cx).map(|()| 0)
}

pub fn sys_sendto(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let addr = match a[4] {
        0 => None,
        va => Some(addr_in(cx, va, a[5])?),
    };
    let len = addr.as_ref().map_or(0, Vec::len);
    sleep!(cx, SYS_sendto, a[0], cx.mem(a[1]), a[2], a[3], addr.as_deref(), len)
}
pub fn sys_recvfrom(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut out = AddrOut::new(cx, a[4], a[5])?;
    let (data, room) = (cx.mem_out(a[1], a[2]), a[2]);
    let n = sleep!(cx, SYS_recvfrom, a[0], data, room, a[3], &mut out.bytes, &mut out.len)?;
    // A connected stream has no address to tell.
    out.put(cx)?;
    Ok(n)
}
