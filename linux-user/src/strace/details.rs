//! What --strace shows of arguments whose kind in the tables is only a number or a pointer: by call and position, for all
//! guests alike.

use super::names::{self, Names, flags, value};
use super::{named, pointer, structures};
use crate::abi::record::{I32, U16, U64};
use crate::syscall::info::Rlimit64;
use crate::syscall::signal::{SigAction, SigStack};
use crate::syscall::time::{Itimerval, Timespec};
use crate::syscall::{Cx, SysResult};
use std::fmt::Write;

/// What an argument points to, or which names its numbers have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Value(&'static Names),
    Flags(&'static Names),
    Set,
    Action,
    Stack,
    Limit,
    Timer,
    /// The rest is written by the call.
    SetOut,
    ActionOut,
    StackOut,
    LimitOut,
    TimeOut,
    /// A status as `wait` has it.
    StatusOut,
    Fds,
    InfoOut,
    StatxOut,
    EventsOut,
    MessageOut,
}
use Detail::*;

impl Detail {
    /// Only there once the call has returned.
    pub fn is_result(self) -> bool {
        matches!(
            self,
            SetOut
                | ActionOut
                | StackOut
                | LimitOut
                | TimeOut
                | StatusOut
                | Fds
                | InfoOut
                | StatxOut
                | EventsOut
                | MessageOut
        )
    }
}

/// Call, position, what it is.
const DETAILS: &[(&str, usize, Detail)] = &[
    ("rt_sigprocmask", 0, Value(names::SIG_HOW)),
    ("rt_sigprocmask", 1, Set),
    ("rt_sigprocmask", 2, SetOut),
    ("rt_sigpending", 0, SetOut),
    ("rt_sigsuspend", 0, Set),
    ("rt_sigtimedwait", 0, Set),
    ("rt_sigtimedwait", 1, InfoOut),
    ("rt_sigaction", 1, Action),
    ("rt_sigaction", 2, ActionOut),
    ("sigaltstack", 0, Stack),
    ("sigaltstack", 1, StackOut),
    ("signalfd4", 1, Set),
    ("ppoll", 3, Set),
    ("epoll_pwait", 4, Set),
    ("epoll_pwait2", 4, Set),
    ("wait4", 1, StatusOut),
    ("waitid", 0, Value(names::WAIT_IDS)),
    ("waitid", 2, InfoOut),
    ("waitid", 3, Flags(names::WAIT)),
    ("pipe2", 0, Fds),
    ("pipe", 0, Fds),
    ("prlimit64", 2, Limit),
    ("prlimit64", 3, LimitOut),
    ("getrandom", 2, Flags(names::GETRANDOM)),
    ("clock_gettime", 1, TimeOut),
    ("clock_nanosleep", 1, Flags(names::TIMER)),
    ("clock_nanosleep", 3, TimeOut),
    ("nanosleep", 1, TimeOut),
    ("setitimer", 0, Value(names::ITIMERS)),
    ("setitimer", 1, Timer),
    ("getitimer", 0, Value(names::ITIMERS)),
    ("statx", 4, StatxOut),
    ("epoll_wait", 1, EventsOut),
    ("epoll_pwait", 1, EventsOut),
    ("epoll_pwait2", 1, EventsOut),
    ("recvmsg", 1, MessageOut),
];

/// What is known of argument `i` of a call.
pub fn of(call: &str, i: usize) -> Option<Detail> {
    DETAILS.iter().find(|d| d.0 == call && d.1 == i).map(|d| d.2)
}

/// Appends the argument. What a failed call would have written is only an address, except the rest of a sleep.
pub fn show(text: &mut String, cx: &Cx<'_>, detail: Detail, v: u64, result: Option<&SysResult>) {
    let failed = matches!(result, Some(Err(_))) && detail != TimeOut;
    let shown = match detail {
        Value(table) => return named(text, table, v),
        Flags(table) => return flags(text, table, v as u32 as u64),
        EventsOut => return structures::epoll_events(text, cx, v, result),
        MessageOut => return structures::message(text, cx, v, result),
        _ if v == 0 || detail.is_result() && failed => None,
        Set | SetOut => cx.get_set(v).ok().map(set),
        Action | ActionOut => cx.get::<SigAction>(v).ok().map(|a| {
            let mask = set(a.mask[0] as u64 | (a.mask[1] as u64) << 32);
            let mut out = match a.handler {
                0 => "{sa_handler=SIG_DFL".to_string(),
                1 => "{sa_handler=SIG_IGN".to_string(),
                at => format!("{{sa_handler={at:#x}"),
            };
            let _ = write!(out, ", sa_mask={mask}, sa_flags=");
            flags(&mut out, names::SIGACTION, a.flags as u32 as u64);
            out + "}"
        }),
        Stack | StackOut => cx.get::<SigStack>(v).ok().map(|s| {
            let mut out = format!("{{ss_sp={:#x}, ss_flags=", s.sp);
            flags(&mut out, names::SIGALTSTACK, s.flags as u32 as u64);
            let _ = write!(out, ", ss_size={}}}", s.size);
            out
        }),
        Limit | LimitOut => cx.get::<Rlimit64>(v).ok().map(|l| {
            let show = |n: u64| if n == u64::MAX { "RLIM_INFINITY".into() } else { n.to_string() };
            format!("{{rlim_cur={}, rlim_max={}}}", show(l.cur), show(l.max))
        }),
        TimeOut => cx.get::<Timespec>(v).ok().map(|t| format!("{{{}.{:09}}}", t.sec, t.nsec)),
        Timer => cx.get::<Itimerval>(v).ok().map(|t| {
            let (v, i) = (t.value, t.interval);
            format!("{{{}.{:06}, every {}.{:06}}}", v.sec, v.usec, i.sec, i.usec)
        }),
        StatusOut => cx.get::<I32>(v).ok().filter(|_| !matches!(result, Some(Ok(0)))).map(status),
        Fds => cx.get::<[I32; 2]>(v).ok().map(|[a, b]| format!("[{a}, {b}]")),
        InfoOut => {
            let bytes = cx.get_bytes(v, crate::host::signal::SIGINFO_BYTES).ok();
            let bytes =
                bytes.and_then(|b| <[u8; crate::host::signal::SIGINFO_BYTES]>::try_from(b).ok());
            bytes.map(|b| siginfo(&cx.abi.siginfo_to_host(&b)))
        }
        StatxOut => match (cx.get::<U16>(v.wrapping_add(28)), cx.get::<U64>(v.wrapping_add(40))) {
            (Ok(mode), Ok(size)) => {
                let mut out = String::from("{stx_mode=");
                structures::file_mode(&mut out, mode as u32);
                Some(format!("{out}, stx_size={size}, ...}}"))
            }
            _ => None,
        },
    };
    match shown {
        Some(shown) => text.push_str(&shown),
        None => pointer(text, v),
    }
}

/// A signal's name; real-time signals count from 32, as strace has it.
pub fn signal_name(signal: i32) -> String {
    match value(names::SIGNALS, signal as u64) {
        Some(name) => name.into(),
        None if (32..=64).contains(&signal) => format!("SIGRT_{}", signal - 32),
        None => signal.to_string(),
    }
}

/// `[USR1 RT_3]`, or `~[KILL]` when most are in.
pub fn set(set: u64) -> String {
    let inverted = set.count_ones() > 32;
    let shown = if inverted { !set } else { set };
    let names = (1..=64).filter(|s| shown >> (s - 1) & 1 != 0).map(signal_name);
    let names: Vec<_> = names.map(|n| n.trim_start_matches("SIG").to_string()).collect();
    format!("{}[{}]", if inverted { "~" } else { "" }, names.join(" "))
}

fn status(s: i32) -> String {
    let core = if libc::WCOREDUMP(s) { " && WCOREDUMP(s)" } else { "" };
    if libc::WIFSTOPPED(s) {
        format!("[WIFSTOPPED(s) && WSTOPSIG(s) == {}]", signal_name(libc::WSTOPSIG(s)))
    } else if libc::WIFCONTINUED(s) {
        "[WIFCONTINUED(s)]".into()
    } else if libc::WIFSIGNALED(s) {
        format!("[WIFSIGNALED(s) && WTERMSIG(s) == {}{core}]", signal_name(libc::WTERMSIG(s)))
    } else {
        format!("[WIFEXITED(s) && WEXITSTATUS(s) == {}]", libc::WEXITSTATUS(s))
    }
}

/// The part of a host's `siginfo_t` that its code says is there.
pub fn siginfo(info: &[u8; crate::host::signal::SIGINFO_BYTES]) -> String {
    let int = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| info[at + i]));
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| info[at + i]));
    let (signal, code) = (int(0), int(8));
    let by_instruction = [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP];
    let table: &Names = match signal {
        _ if code <= 0 || code == libc::SI_KERNEL => names::SI_CODES,
        libc::SIGCHLD => names::CLD_CODES,
        libc::SIGSEGV => names::SEGV_CODES,
        libc::SIGBUS => names::BUS_CODES,
        libc::SIGILL => names::ILL_CODES,
        libc::SIGFPE => names::FPE_CODES,
        libc::SIGTRAP => names::TRAP_CODES,
        _ => names::SI_CODES,
    };
    let mut out = format!("{{si_signo={}, si_code=", signal_name(signal));
    named(&mut out, table, code as u64);
    let _ = match code {
        libc::SI_KERNEL => Ok(()),
        libc::SI_TIMER => {
            write!(out, ", si_timerid={}, si_overrun={}, si_int={}", int(16), int(20), int(24))
        }
        _ if code <= 0 => {
            let _ = write!(out, ", si_pid={}, si_uid={}", int(16), int(20));
            if code == libc::SI_QUEUE || code == libc::SI_MESGQ {
                let _ = write!(out, ", si_int={}, si_ptr={:#x}", int(24), word(24));
            }
            Ok(())
        }
        _ if signal == libc::SIGCHLD => {
            let exited = code == libc::CLD_EXITED;
            let status = if exited { int(24).to_string() } else { signal_name(int(24)) };
            write!(out, ", si_pid={}, si_uid={}, si_status={status}", int(16), int(20))
        }
        _ if by_instruction.contains(&signal) => write!(out, ", si_addr={:#x}", word(16)),
        _ => Ok(()),
    };
    out + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_ends() {
        assert_eq!(set(0), "[]");
        assert_eq!(set(1 << 9 | 1 << 34), "[USR1 RT_3]");
        assert_eq!(set(!(1 << 8)), "~[KILL]");
        assert_eq!(status(0x700), "[WIFEXITED(s) && WEXITSTATUS(s) == 7]");
        assert_eq!(status(15), "[WIFSIGNALED(s) && WTERMSIG(s) == SIGTERM]");
        let mut info = [0; 128];
        info[0] = 11;
        info[8] = 1;
        info[16] = 16;
        assert_eq!(siginfo(&info), "{si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x10}");
    }
}
