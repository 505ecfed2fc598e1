//! Structures that --strace shows by their main fields: `struct stat`, events of epoll, messages.

use super::names::{self, flags};
use super::{address, buffer, named, pointer, vectors};
use crate::abi::StatForm;
use crate::abi::record::{U32, U64};
use crate::syscall::msg::Msghdr;
use crate::syscall::poll::epoll_layout;
use crate::syscall::{Cx, SysResult};
use std::fmt::Write;

/// Most events that are shown.
const EVENTS: u64 = 8;

fn returned(result: Option<&SysResult>) -> Option<u64> {
    result.and_then(|r| r.as_ref().ok()).copied()
}

/// What a call with this name fills in.
fn stat_form(call: &str) -> StatForm {
    match call {
        _ if call.starts_with("old") => StatForm::Old,
        _ if call.ends_with("64") => StatForm::Wide,
        _ => StatForm::Plain,
    }
}

pub fn stat(text: &mut String, cx: &Cx<'_>, call: &str, va: u64, result: Option<&SysResult>) {
    let shown = returned(result).and_then(|_| cx.abi.stat_shown(cx.process, va, stat_form(call)));
    let Some((mode, size)) = shown else { return pointer(text, va) };
    text.push_str("{st_mode=");
    file_mode(text, mode);
    let _ = write!(text, ", st_size={size}, ...}}");
}

/// The type of a file by name, its permissions as a number.
pub fn file_mode(text: &mut String, mode: u32) {
    named(text, names::FILE_TYPES, (mode & libc::S_IFMT) as u64);
    let _ = write!(text, "|0{:03o}", mode & !libc::S_IFMT);
}

pub fn epoll_event(text: &mut String, cx: &Cx<'_>, va: u64) {
    let (_, data_at) = epoll_layout(cx);
    match (cx.get::<U32>(va), cx.get::<U64>(va.wrapping_add(data_at as u64))) {
        (Ok(events), Ok(data)) if va != 0 => {
            text.push_str("{events=");
            flags(text, names::EPOLL_EVENTS, events as u64);
            let _ = write!(text, ", data={data:#x}}}");
        }
        _ => pointer(text, va),
    }
}

/// The events that a wait returned.
pub fn epoll_events(text: &mut String, cx: &Cx<'_>, va: u64, result: Option<&SysResult>) {
    let Some(count) = returned(result) else { return pointer(text, va) };
    text.push('[');
    for i in 0..count.min(EVENTS) {
        if i != 0 {
            text.push_str(", ");
        }
        epoll_event(text, cx, va.wrapping_add(i * epoll_layout(cx).0 as u64));
    }
    text.push_str(if count > EVENTS { ", ...]" } else { "]" });
}

/// A message, with as much of its data as a call that returned has received or sent.
pub fn message(text: &mut String, cx: &Cx<'_>, va: u64, result: Option<&SysResult>) {
    let failed = matches!(result, Some(Err(_)));
    let Some(head) = cx.get::<Msghdr>(va).ok().filter(|_| !failed) else {
        return pointer(text, va);
    };
    text.push_str("{msg_name=");
    if head.name == 0 || head.namelen == 0 {
        pointer(text, head.name);
    } else {
        address(text, cx, head.name, head.namelen as u64);
    }
    text.push_str(", msg_iov=");
    vectors(text, cx, head.iov, head.iovlen, result);
    text.push_str(", msg_control=");
    if head.control == 0 || head.controllen == 0 {
        pointer(text, head.control);
    } else {
        buffer(text, cx, head.control, head.controllen);
    }
    text.push_str(", msg_flags=");
    flags(text, names::MSG_FLAGS, head.flags as u64);
    text.push('}');
}
