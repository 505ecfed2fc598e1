//! `--strace`: system calls as text, driven by the argument kinds of the tables.
//!
//! A call is one line ([`line`]). Its arguments are read when it is made, up to the first one that only the call fills in;
//! the rest and the result follow when it returns.

mod details;
mod line;
mod names;
mod structures;

use crate::abi::record::{Field, Ptr};
use crate::host::signal::SIGINFO_BYTES;
use crate::process::Process;
use crate::syscall::args::{Arg, Args};
use crate::syscall::file::Iovec;
use crate::syscall::time::{Itimerspec, Timespec};
use crate::syscall::{Cx, Errno, Flow, Row, SysResult, fcntl, ioctl, mem, prctl};
use crate::{host, sys};
use names::{Names, flags, value};
use std::fmt::Write;
use tulk_base::GuestVa;

/// Most bytes of a string or buffer that are shown.
const SHOWN: usize = 64;

/// A call under way.
pub struct Trace {
    tid: u64,
    /// First argument that is still to be shown.
    next: usize,
}

fn own_tid() -> u64 {
    sys!(SYS_gettid).unwrap_or(0)
}

pub use line::forked;

/// Held over `fork`.
pub fn before_fork() -> impl Sized {
    line::before_fork()
}

/// Notes the call.
pub fn entry(cx: &Cx<'_>, row: Option<&Row>, number: u64, args: &Args) -> Trace {
    let tid = own_tid();
    let log = cx.process.log_fd();
    let mut text = format!("{tid} ");
    let Some(row) = row else {
        let _ = write!(text, "syscall_{number:#x}(");
        for (i, a) in args.iter().take(6).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{a:#x}");
        }
        line::begin(log, tid, "?", text);
        return Trace { tid, next: usize::MAX };
    };
    let _ = write!(text, "{}(", row.name);
    let is_result = |(i, kind): (usize, &Arg)| {
        matches!(kind, Arg::Out | Arg::IovOut | Arg::Stat)
            || details::of(row.name, i).is_some_and(details::Detail::is_result)
    };
    let now = row.args.iter().enumerate().position(|a| is_result((a.0, a.1)));
    let now = now.unwrap_or(row.args.len());
    arguments(&mut text, cx, row, 0..now, args, None);
    line::begin(log, tid, row.name, text);
    Trace { tid, next: now }
}

/// Shows the call, which has returned (or does not).
pub fn exit(cx: &Cx<'_>, row: Option<&Row>, args: &Args, trace: Trace, result: &SysResult) {
    let log = cx.process.log_fd();
    if own_tid() != trace.tid {
        return; // a forked child
    }
    let mut text = String::new();
    if let Some(row) = row {
        arguments(&mut text, cx, row, trace.next..row.args.len(), args, Some(result));
    }
    match cx.flow {
        // Its line ends in `resumed`; the child's come first.
        Flow::Vfork => return line::show(trace.tid),
        Flow::ExitThread(code) | Flow::ExitGroup(code) => {
            let _ = write!(text, ") = ?\n{} +++ exited with {} +++", trace.tid, code & 0xff);
        }
        Flow::Return | Flow::Registers => {
            text.push_str(") = ");
            outcome(&mut text, row, result);
        }
    }
    line::end(log, trace.tid, &text);
}

/// A call whose line was left open has this result.
pub fn resumed(process: &Process, result: &SysResult) {
    if process.options.strace {
        let mut text = String::from(") = ");
        outcome(&mut text, None, result);
        line::end(process.log_fd(), own_tid(), &text);
    }
}

/// The program is left by an `execve` that can no longer fail for the guest's reasons.
pub fn replaced(process: &Process) {
    if process.options.strace {
        line::end(process.log_fd(), own_tid(), ") = 0");
    }
}

/// A signal is delivered.
pub fn signal(process: &Process, number: i32, info: &[u8; SIGINFO_BYTES]) {
    if process.options.strace {
        let name = details::signal_name(number);
        let text = format!("{} --- {name} {} ---\n", own_tid(), details::siginfo(info));
        host::write_log(process.log_fd(), text.as_bytes());
    }
}

/// The process dies by a signal.
pub fn killed(process: &Process, number: i32) {
    if process.options.strace {
        let text = format!("{} +++ killed by {} +++\n", own_tid(), details::signal_name(number));
        host::write_log(process.log_fd(), text.as_bytes());
    }
}

fn arguments(
    text: &mut String,
    cx: &Cx<'_>,
    row: &Row,
    range: std::ops::Range<usize>,
    args: &Args,
    result: Option<&SysResult>,
) {
    for i in range {
        // The mode counts only where a file may be made.
        let creates = |flags: u64| {
            let flags = cx.process.abi.open_flags_to_host(flags as u32);
            flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE
        };
        let flags = i.checked_sub(1).filter(|&b| row.args[b] == Arg::Open);
        if row.args[i] == Arg::Mode && flags.is_some_and(|f| !creates(args[f])) {
            continue;
        }
        if i != 0 {
            text.push_str(", ");
        }
        match details::of(row.name, i) {
            Some(detail) => details::show(text, cx, detail, args[i], result),
            None => argument(text, cx, row, i, args, result),
        }
    }
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
        Err(host::ERESTARTSYS) => {
            write!(text, "? ERESTARTSYS (To be restarted if SA_RESTART is set)")
        }
        Err(host::ERESTARTNOHAND) => {
            write!(text, "? ERESTARTNOHAND (To be restarted if no handler)")
        }
        Err(host::ERESTARTNOINTR) => write!(text, "? ERESTARTNOINTR (To be restarted)"),
        Err(e) => match value(names::ERRNO, e.0 as u64) {
            Some(name) => write!(text, "-1 {name} ({e})"),
            None => write!(text, "-1 errno {}", e.0),
        },
    };
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
    let abi = cx.abi;
    let failed = matches!(result, Some(Err(_)));
    let _ = match row.args[i] {
        Arg::Nothing => Ok(()),
        Arg::Clock if v as i32 >= 0 => return named(text, names::CLOCKS, v),
        Arg::Int | Arg::Fd | Arg::Clock => write!(text, "{}", v as i32),
        Arg::At if v as i32 == libc::AT_FDCWD => write!(text, "AT_FDCWD"),
        Arg::At => write!(text, "{}", v as i32),
        Arg::Uint | Arg::Ulong => write!(text, "{v}"),
        Arg::Long | Arg::Off => write!(text, "{}", v as i64),
        Arg::Hex => write!(text, "{v:#x}"),
        Arg::Mode => write!(text, "0{v:03o}"),
        Arg::Sig => write!(text, "{}", details::signal_name(v as i32)),
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
            if !row.name.starts_with("open") {
                return flags(text, &table, v);
            }
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
        Arg::Ptr | Arg::OpenHow => return pointer(text, v),
        Arg::Stat => return structures::stat(text, cx, row.name, v, result),
        Arg::Msghdr => return structures::message(text, cx, v, result),
        Arg::EpollEvent => return structures::epoll_event(text, cx, v),
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
