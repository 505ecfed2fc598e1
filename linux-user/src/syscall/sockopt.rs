//! Socket options. Most values are an `int` or bytes in network order; rows name the others.

use super::args::Args;
use super::time::Timeval;
use super::{Cx, EINVAL, SysResult};
use crate::abi::record::{DataModel, Field, I32, Ptr, U16};
use crate::{record, sys};

record! {
    /// `struct sock_fprog`: a BPF program by pointer.
    struct SockFprog { len: U16, filter: Ptr }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An `int` (or several), which the byte order concerns.
    Ints,
    Timeval,
    /// A structure with a pointer to BPF instructions.
    Filter,
    /// Bytes that are the same everywhere.
    Bytes,
}

/// Levels and options whose value is not what its length suggests (four bytes: an `int`, else bytes).
const SPECIAL: &[(i32, i32, Kind)] = &[
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO, Kind::Timeval),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO, Kind::Timeval),
    (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, Kind::Filter),
    (libc::SOL_SOCKET, 51, Kind::Filter), // SO_ATTACH_REUSEPORT_CBPF
    (libc::SOL_SOCKET, libc::SO_LINGER, Kind::Ints),
    (libc::SOL_SOCKET, libc::SO_PEERCRED, Kind::Ints),
    // An address in network order, though it has four bytes.
    (libc::IPPROTO_IP, libc::IP_MULTICAST_IF, Kind::Bytes),
];

fn kind(level: i32, option: i32, len: usize) -> Kind {
    match SPECIAL.iter().find(|s| (s.0, s.1) == (level, option)) {
        Some(&(.., kind)) => kind,
        None if len == 4 => Kind::Ints,
        None => Kind::Bytes,
    }
}

/// Turns `int`s from one byte order into the other.
fn reorder(bytes: &mut [u8], from: DataModel, to: DataModel) {
    for word in bytes.chunks_exact_mut(4) {
        let v = I32::get(word, from);
        I32::put(word, v, to);
    }
}

pub fn sys_setsockopt(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (fd, level, option) = (a[0], a[1] as i32, a[2] as i32);
    let len = usize::try_from(a[4] as i32).map_err(|_| EINVAL)?;
    let m = cx.model;
    match kind(level, option, len) {
        Kind::Timeval if len >= Timeval::size(m) => {
            let tv = cx.get::<Timeval>(a[3])?.to_host();
            sys!(SYS_setsockopt, fd, level, option, &tv, size_of::<libc::timeval>())
        }
        Kind::Filter if len >= SockFprog::size(m) => {
            let prog = cx.get::<SockFprog>(a[3])?;
            let host = [prog.len as u64, cx.mem(prog.filter).0 as u64];
            sys!(SYS_setsockopt, fd, level, option, &host, size_of_val(&host))
        }
        Kind::Ints if m.big_endian != DataModel::HOST.big_endian => {
            let mut bytes = cx.get_bytes(a[3], len)?;
            reorder(&mut bytes, m, DataModel::HOST);
            sys!(SYS_setsockopt, fd, level, option, &bytes[..], len)
        }
        _ => sys!(SYS_setsockopt, fd, level, option, cx.mem(a[3]), len),
    }
}

pub fn sys_getsockopt(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (fd, level, option) = (a[0], a[1] as i32, a[2] as i32);
    let room = usize::try_from(cx.get::<I32>(a[4])?).map_err(|_| EINVAL)?;
    let m = cx.model;
    let mut len = room as u32;
    match kind(level, option, room) {
        Kind::Timeval if room >= Timeval::size(m) => {
            let mut tv = libc::timeval { tv_sec: 0, tv_usec: 0 };
            len = size_of::<libc::timeval>() as u32;
            sys!(SYS_getsockopt, fd, level, option, &mut tv, &mut len)?;
            cx.put::<Timeval>(a[3], Timeval::of_host(tv))?;
            len = Timeval::size(m) as u32;
        }
        Kind::Ints if m.big_endian != DataModel::HOST.big_endian => {
            let mut bytes = vec![0; room.min(1 << 16)];
            len = bytes.len() as u32;
            sys!(SYS_getsockopt, fd, level, option, &mut bytes[..], &mut len)?;
            bytes.truncate(len as usize);
            reorder(&mut bytes, DataModel::HOST, m);
            cx.put_bytes(a[3], &bytes)?;
        }
        _ => {
            let out = cx.mem_out(a[3], room as u64);
            sys!(SYS_getsockopt, fd, level, option, out, &mut len)?;
        }
    }
    cx.put::<I32>(a[4], len as i32)?;
    Ok(0)
}
