//! `--strace`: system calls as text, driven by the argument kinds of the tables.
//!
//! Arguments are written when the call is made, up to the first one that only the call fills in; the rest and the
//! result follow when it returns. A call that another thread's output cuts in two is marked like strace does it.

mod names;

use crate::abi::record::{Field, Ptr};
use crate::syscall::args::{Arg, Args};
use crate::syscall::file::Iovec;
use crate::syscall::time::{Itimerspec, Timespec};
use crate::syscall::{Cx, Errno, Row, SysResult, fcntl, ioctl, mem, prctl};
use crate::{host, sys};
use names::{Names, flags, value};
use parking_lot::Mutex;
use std::fmt::Write;
use tulk_base::GuestVa;

/// Most bytes of a string or buffer that are shown.
const SHOWN: usize = 64;

/// The thread whose line has no end yet, and the call it is in.
static OPEN_LINE: Mutex<Option<(u64, &'static str)>> = Mutex::new(None);

/// A call under way.
pub struct Trace {
    tid: u64,
    name: &'static str,
    /// First argument that is still to be shown.
    next: usize,
}

/// Shows the call.
pub fn entry(cx: &Cx<'_>, row: Option<&Row>, number: u64, args: &Args) -> Trace {
    let tid = sys!(SYS_gettid).unwrap_or(0);
    let mut text = format!("{tid} ");
    let Some(row) = row else {
        let _ = write!(text, "syscall_{number:#x}(");
        for (i, a) in args.iter().take(6).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{a:#x}");
        }
        emit(cx, tid, Some("?"), &text);
        return Trace { tid, name: "?", next: usize::MAX };
    };
    let _ = write!(text, "{}(", row.name);
    let later = row.args.iter().position(|k| matches!(k, Arg::Out | Arg::IovOut));
    let now = later.unwrap_or(row.args.len());
    for i in 0..now {
        if i != 0 {
            text.push_str(", ");
        }
        argument(&mut text, cx, row, i, args, None);
    }
    emit(cx, tid, Some(row.name), &text);
    Trace { tid, name: row.name, next: now }
}

/// Shows the rest and the result.
pub fn exit(cx: &Cx<'_>, row: Option<&Row>, args: &Args, trace: Trace, result: &SysResult) {
    let mut text = String::new();
    if *OPEN_LINE.lock() != Some((trace.tid, trace.name)) {
        let _ = write!(text, "{} <... {} resumed> ", trace.tid, trace.name);
    }
    if let Some(row) = row {
        for i in trace.next..row.args.len() {
            if i != 0 {
                text.push_str(", ");
            }
            argument(&mut text, cx, row, i, args, Some(result));
        }
    }
    text.push_str(") = ");
    outcome(&mut text, row, result);
    text.push('\n');
    emit(cx, trace.tid, None, &text);
}

fn outcome(text: &mut String, row: Option<&Row>, result: &SysResult) {
    let _ = match result {
        Ok(v) => {
            let address =
                row.is_some_and(|r| matches!(r.name, "mmap" | "brk" | "mremap" | "shmat"));
            if address || *v > i32::MAX as u64 {
                write!(text, "{v:#x}")
            } else {
                write!(text, "{v}")
            }
        }
        Err(host::ERESTARTSYS | host::ERESTARTNOHAND) => write!(text, "? (interrupted)"),
        Err(e) => match value(names::ERRNO, e.0 as u64) {
            Some(name) => write!(text, "-1 {name} ({e})"),
            None => write!(text, "-1 errno {}", e.0),
        },
    };
}

/// Writes to the log; `open` names the call whose line stays without end.
fn emit(cx: &Cx<'_>, tid: u64, open: Option<&'static str>, text: &str) {
    let mut line = OPEN_LINE.lock();
    let cut = match *line {
        Some((other, _)) => other != tid || open.is_some(),
        None => false,
    };
    if cut {
        cx.process.trace_line(&format!(" <unfinished ...>\n{text}"));
    } else {
        cx.process.trace_line(text);
    }
    *line = open.map(|name| (tid, name));
}

/// Appends bytes as a C string literal.
fn quote(text: &mut String, bytes: &[u8], more: bool) {
    text.push('"');
    for &b in bytes {
        let _ = match b {
            b'"' | b'\\' => write!(text, "\\{}", b as char),
            b'\n' => write!(text, "\\n"),
            b'\r' => write!(text, "\\r"),
            b'\t' => write!(text, "\\t"),
            0x20..0x7f => write!(text, "{}", b as char),
            _ => write!(text, "\\{b:o}"),
        };
    }
    text.push('"');
    if more {
        text.push_str("...");
    }
}

fn buffer(text: &mut String, cx: &Cx<'_>, va: u64, len: u64) {
    let mut bytes = vec![0; (len as usize).min(SHOWN)];
    match cx.process.space.copy_in(GuestVa(va), &mut bytes) {
        Ok(()) => quote(text, &bytes, len as usize > SHOWN),
        Err(_) => pointer(text, va),
    }
}

fn pointer(text: &mut String, va: u64) {
    if va == 0 {
        text.push_str("NULL");
    } else {
        let _ = write!(text, "{va:#x}");
    }
}

fn string(text: &mut String, cx: &Cx<'_>, va: u64) {
    match cx.process.space.read_cstr(GuestVa(va), 4096) {
        _ if va == 0 => text.push_str("NULL"),
        Ok(Some(s)) => quote(text, &s[..s.len().min(256)], s.len() > 256),
        _ => pointer(text, va),
    }
}

/// A value of a table or its number.
fn named(text: &mut String, table: &Names, v: u64) {
    let _ = match value(table, v) {
        Some(name) => write!(text, "{name}"),
        None => write!(text, "{:#x}", v as u32),
    };
}

fn named_by(text: &mut String, name: Option<&str>, v: u64) {
    let _ = match name {
        Some(name) => write!(text, "{name}"),
        None => write!(text, "{:#x}", v as u32),
    };
}

fn argument(
    text: &mut String,
    cx: &Cx<'_>,
    row: &Row,
    i: usize,
    args: &Args,
    result: Option<&SysResult>,
) {
    let v = args[i];
    let next = args.get(i + 1).copied().unwrap_or(0);
    let abi = cx.process.abi;
    let failed = matches!(result, Some(Err(_)));
    let _ = match row.args[i] {
        Arg::Nothing => Ok(()),
        Arg::Int | Arg::Fd | Arg::Clock => write!(text, "{}", v as i32),
        Arg::At if v as i32 == libc::AT_FDCWD => write!(text, "AT_FDCWD"),
        Arg::At => write!(text, "{}", v as i32),
        Arg::Uint | Arg::Ulong => write!(text, "{v}"),
        Arg::Long | Arg::Off => write!(text, "{}", v as i64),
        Arg::Hex => write!(text, "{v:#x}"),
        Arg::Mode => write!(text, "{v:#o}"),
        Arg::Sig => return named(text, names::SIGNALS, v),
        Arg::Whence => return named(text, names::WHENCE, v),
        Arg::Fcntl => return named_by(text, fcntl::command_name(v as i32), v),
        Arg::Ioctl => return named_by(text, ioctl::request_name(v as u32), v),
        Arg::Madvise => return named_by(text, mem::advice_name(v as i32), v),
        Arg::Prctl => return named_by(text, prctl::option_name(v as i32), v),
        Arg::Family => return named(text, names::FAMILIES, v),
        Arg::Sol => return named(text, names::LEVELS, v),
        Arg::EpollOp => return named(text, names::EPOLL_OPS, v),
        Arg::Rlimit => return named(text, names::RLIMITS, v),
        Arg::SockType => {
            named(text, names::SOCKET_TYPES, v & 0xf);
            if v & !0xf != 0 {
                text.push('|');
                flags(text, names::SOCKET_FLAGS, v & !0xf);
            }
            Ok(())
        }
        Arg::Futex => {
            named(text, names::FUTEX_OPS, v & 0x7f);
            if v & !0x7f != 0 {
                text.push('|');
                flags(text, names::FUTEX_FLAGS, v & !0x7f);
            }
            Ok(())
        }
        Arg::Open => {
            let table: Vec<(u64, &str)> =
                abi.open_flags().iter().map(|b| (b.guest as u64, b.name)).collect();
            text.push_str(["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"][v as usize & 3]);
            if v & !3 != 0 {
                text.push('|');
                flags(text, &table, v & !3);
            }
            Ok(())
        }
        Arg::Map => {
            let table: Vec<(u64, &str)> =
                abi.map_flags().iter().map(|b| (b.guest as u64, b.name)).collect();
            flags(text, &table, v);
            Ok(())
        }
        Arg::Prot => return flags(text, names::PROT, v),
        Arg::Access => return flags(text, names::ACCESS, v),
        Arg::AtFlags => return flags(text, names::AT_FLAGS, v),
        Arg::Fallocate => return flags(text, names::FALLOCATE, v),
        Arg::Mremap => return flags(text, names::MREMAP, v),
        Arg::Msg => return flags(text, names::MSG_FLAGS, v),
        Arg::Lock => return flags(text, names::LOCKS, v),
        Arg::Wait => return flags(text, names::WAIT, v),
        Arg::StatxMask => return flags(text, names::STATX, v),
        Arg::Clone => {
            flags(text, names::CLONE, v & !0xff);
            if v & 0xff != 0 {
                text.push('|');
                named(text, names::SIGNALS, v & 0xff);
            }
            Ok(())
        }
        Arg::Ptr | Arg::Stat | Arg::Msghdr | Arg::EpollEvent | Arg::OpenHow => {
            return pointer(text, v);
        }
        Arg::Str => return string(text, cx, v),
        Arg::Buf => return buffer(text, cx, v, next),
        Arg::Out if failed => return pointer(text, v),
        Arg::Out => {
            let n = result.and_then(|r| r.as_ref().ok()).copied().unwrap_or(0);
            return buffer(text, cx, v, n.min(next));
        }
        Arg::Argv => return argv(text, cx, v),
        Arg::IovOut if failed => return pointer(text, v),
        Arg::Iov | Arg::IovOut => return vectors(text, cx, v, next, result),
        Arg::Sockaddr => return address(text, cx, v, next),
        Arg::Timespec => {
            return record::<Timespec>(text, cx, v, |t| format!("{{{}.{:09}}}", t.sec, t.nsec));
        }
        Arg::Itimerspec => {
            return record::<Itimerspec>(text, cx, v, |t| {
                format!(
                    "{{{}.{:09}, every {}.{:09}}}",
                    t.value.sec, t.value.nsec, t.interval.sec, t.interval.nsec
                )
            });
        }
        Arg::Pollfds => return pollfds(text, cx, v, next),
    };
}

fn record<F: Field>(text: &mut String, cx: &Cx<'_>, va: u64, show: impl Fn(F::Host) -> String) {
    match cx.get_opt::<F>(va) {
        Ok(Some(r)) => text.push_str(&show(r)),
        _ => pointer(text, va),
    }
}

fn argv(text: &mut String, cx: &Cx<'_>, va: u64) {
    text.push('[');
    for i in 0.. {
        let item: Result<u64, Errno> = cx.get::<Ptr>(cx.element::<Ptr>(va, i));
        match item {
            Ok(at) if at != 0 && i < 64 => {
                if i != 0 {
                    text.push_str(", ");
                }
                string(text, cx, at);
            }
            Ok(0) => break,
            _ => {
                text.push_str(", ...");
                break;
            }
        }
    }
    text.push(']');
}

fn vectors(text: &mut String, cx: &Cx<'_>, va: u64, count: u64, result: Option<&SysResult>) {
    let Ok(list) = cx.get_array::<Iovec>(va, count.min(8) as usize) else {
        return pointer(text, va);
    };
    let mut left = result.and_then(|r| r.as_ref().ok()).copied().unwrap_or(u64::MAX);
    text.push('[');
    for (i, v) in list.iter().enumerate() {
        if i != 0 {
            text.push_str(", ");
        }
        let n = v.len.min(left);
        buffer(text, cx, v.base, n);
        left -= n;
        let _ = write!(text, " ({})", v.len);
    }
    if count > 8 {
        text.push_str(", ...");
    }
    text.push(']');
}

fn pollfds(text: &mut String, cx: &Cx<'_>, va: u64, count: u64) {
    let Ok(words) = cx.get_array::<[crate::abi::record::I32; 2]>(va, count.min(8) as usize) else {
        return pointer(text, va);
    };
    text.push('[');
    for (i, [fd, events]) in words.into_iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{fd}:");
        flags(text, names::POLL, events as u16 as u64);
    }
    text.push(']');
}

fn address(text: &mut String, cx: &Cx<'_>, va: u64, len: u64) {
    let Ok(b) = crate::syscall::sock::addr_in(cx, va, len) else { return pointer(text, va) };
    let family = b.get(..2).map_or(0, |f| u16::from_ne_bytes([f[0], f[1]]) as i32);
    let _ = match family {
        libc::AF_UNIX if b.len() > 2 => {
            let abstract_name = b[2] == 0;
            let name = if abstract_name { &b[3..] } else { &b[2..] };
            let end = name.iter().position(|&c| c == 0 && !abstract_name).unwrap_or(name.len());
            text.push_str(if abstract_name { "unix:@" } else { "unix:" });
            quote(text, &name[..end], false);
            Ok(())
        }
        libc::AF_INET if b.len() >= 8 => {
            let port = u16::from_be_bytes([b[2], b[3]]);
            write!(text, "{}.{}.{}.{}:{port}", b[4], b[5], b[6], b[7])
        }
        libc::AF_INET6 if b.len() >= 24 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&b[8..24]);
            let port = u16::from_be_bytes([b[2], b[3]]);
            write!(text, "[{}]:{port}", std::net::Ipv6Addr::from(ip))
        }
        _ => {
            text.push('{');
            named(text, names::FAMILIES, family as u64);
            write!(text, ", {len} bytes}}")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted() {
        let mut text = String::new();
        quote(&mut text, b"a\"b\\\n\x01\xff", true);
        assert_eq!(text, r#""a\"b\\\n\1\377"..."#);
    }

    #[test]
    fn results() {
        let show = |r: SysResult| {
            let mut text = String::new();
            outcome(&mut text, None, &r);
            text
        };
        assert_eq!(show(Ok(3)), "3");
        assert!(show(Err(Errno(libc::ENOENT))).starts_with("-1 ENOENT ("));
    }
}
