//! Signals: actions, masks, waiting, sending.

use super::args::Args;
use super::{Cx, EFAULT, EINVAL, EPERM, Errno, Flow, SysResult};
use crate::abi::record::{I32, Ptr, U32, ULong};
use crate::host::signal::{FAULTS, SIGINFO_BYTES, Set, bit, set_arg, set_mask};
use crate::host::{ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS};
use crate::signals::{self, Action, AltStack, FrameKind, SIGNALS};
use crate::signals::{SS_AUTODISARM, SS_DISABLE};
use crate::{record, sleep, sys};
use std::sync::atomic::Ordering;

record! {
    /// The kernel's `struct sigaction` of the generic interface; the restorer is there on some guests.
    pub struct SigAction {
        handler: Ptr,
        flags: ULong,
        restorer: Ptr,
        mask: [U32; 2],
    }
    /// `stack_t`.
    pub struct SigStack {
        sp: Ptr,
        flags: I32,
        size: ULong,
    }
}

/// Signals that no mask holds.
pub const UNBLOCKABLE: Set = bit(libc::SIGKILL) | bit(libc::SIGSTOP);

fn words_to_set(words: [u32; 2]) -> Set {
    words[0] as u64 | (words[1] as u64) << 32
}
fn set_to_words(set: Set) -> [u32; 2] {
    [set as u32, (set >> 32) as u32]
}

fn check_size(size: u64) -> Result<(), Errno> {
    if size == 8 { Ok(()) } else { Err(EINVAL) }
}

impl Cx<'_> {
    /// A guest's `sigset_t`: on 32-bit guests two words, low first, whatever the byte order.
    pub fn get_set(&self, va: u64) -> Result<Set, Errno> {
        if self.model.word == 8 {
            return self.get::<crate::abi::record::U64>(va);
        }
        self.get::<[U32; 2]>(va).map(words_to_set)
    }
    pub fn put_set(&self, va: u64, set: Set) -> Result<(), Errno> {
        if self.model.word == 8 {
            return self.put::<crate::abi::record::U64>(va, set);
        }
        self.put::<[U32; 2]>(va, set_to_words(set))
    }
    /// A host `siginfo_t` for the guest.
    pub fn put_siginfo(&self, va: u64, info: &[u8; SIGINFO_BYTES]) -> Result<(), Errno> {
        self.put_bytes(va, &self.abi.siginfo_bytes(info))
    }
    /// Signals that came but are not yet delivered must be seen before anything changes the mask.
    pub fn pending_first(&self) -> Result<(), Errno> {
        match self.thread.signals.let_through(self.thread.signals.mask) {
            0 => Ok(()),
            _ => Err(ERESTARTNOINTR),
        }
    }
    /// Under a new mask of the guest's a signal that waits here may become deliverable: the thread must see it.
    pub fn recheck(&self, mask: Set) {
        if self.thread.signals.let_through(mask) != 0 {
            self.thread.interrupt.store(1, Ordering::SeqCst);
        }
    }
}

pub fn sys_rt_sigaction(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    check_size(a[3])?;
    let signal = a[0] as i32;
    if !(1..=SIGNALS).contains(&signal) {
        return Err(EINVAL);
    }
    let old = if a[1] != 0 {
        if UNBLOCKABLE & bit(signal) != 0 {
            return Err(EINVAL);
        }
        let new = cx.get::<SigAction>(a[1])?;
        let action = Action {
            handler: new.handler,
            flags: new.flags,
            restorer: new.restorer,
            mask: words_to_set(new.mask) & !UNBLOCKABLE,
            narrow: cx.model.word == 4,
        };
        cx.thread.actions.set(signal, action)?
    } else {
        cx.thread.actions.get(signal)
    };
    let shown = SigAction {
        handler: old.handler,
        flags: old.flags,
        restorer: old.restorer,
        mask: set_to_words(old.mask),
    };
    cx.put_opt::<SigAction>(a[2], shown)?;
    Ok(0)
}

pub fn sys_rt_sigprocmask(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    check_size(a[3])?;
    let old = cx.thread.signals.mask;
    if a[1] != 0 {
        let set = cx.get_set(a[1])?;
        let new = match a[0] as i32 {
            libc::SIG_BLOCK => old | set,
            libc::SIG_UNBLOCK => old & !set,
            libc::SIG_SETMASK => set,
            _ => return Err(EINVAL),
        };
        cx.pending_first()?;
        cx.thread.signals.mask = new & !UNBLOCKABLE;
        set_mask(cx.thread.signals.mask);
        cx.recheck(cx.thread.signals.mask);
    }
    if a[2] != 0 {
        cx.put_set(a[2], old)?;
    }
    Ok(0)
}

pub fn sys_rt_sigpending(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[1] > 8 {
        return Err(EINVAL);
    }
    let mut set: Set = 0;
    sys!(SYS_rt_sigpending, &mut set, 8)?;
    set |= cx.thread.signals.mailbox.ready();
    cx.put_set(a[0], set & cx.thread.signals.mask)?;
    Ok(0)
}

pub fn sys_rt_sigsuspend(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    check_size(a[1])?;
    let set = cx.get_set(a[0])? & !UNBLOCKABLE;
    let signals = &mut cx.thread.signals;
    let old = signals.mask;
    signals.mask = set;
    cx.recheck(set);
    let result = sleep!(cx, SYS_rt_sigsuspend, set_arg(&(set & !FAULTS)), 8);
    // The frame returns to the old mask; without a frame `deliver` puts it back.
    cx.thread.signals.saved_mask = Some(old);
    result.map_err(|_| ERESTARTNOHAND)
}

pub fn sys_rt_sigtimedwait(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    check_size(a[3])?;
    let set = cx.get_set(a[0])?;
    let timeout = cx.get_opt::<super::time::Timespec>(a[2])?;
    let timeout = timeout.map(|t| libc::timespec { tv_sec: t.sec, tv_nsec: t.nsec });
    let mut info = [0u8; SIGINFO_BYTES];
    let set = set & !UNBLOCKABLE;
    // Faults that somebody sent wait here, because the host's mask never holds them.
    let here = cx.thread.signals.mailbox.ready() & set & FAULTS;
    let number = if here != 0 {
        let number = here.trailing_zeros() as i32 + 1;
        info = cx.thread.signals.mailbox.take(number).ok_or(ERESTARTSYS)?;
        number as u64
    } else {
        sleep!(cx, SYS_rt_sigtimedwait, set_arg(&set), &mut info, timeout.as_ref(), 8)?
    };
    if a[1] != 0 {
        cx.put_siginfo(a[1], &info)?;
    }
    Ok(number)
}

pub fn sys_rt_sigreturn(cx: &mut Cx<'_>, _: &Args) -> SysResult {
    sigreturn(cx, FrameKind::Full)
}
/// From the frame of a handler without siginfo.
pub fn sys_sigreturn(cx: &mut Cx<'_>, _: &Args) -> SysResult {
    sigreturn(cx, FrameKind::Old)
}
fn sigreturn(cx: &mut Cx<'_>, kind: FrameKind) -> SysResult {
    signals::sigreturn(cx.process, cx.thread, cx.state, cx.abi, kind);
    cx.flow = Flow::Registers;
    Ok(0)
}

pub fn sys_sigaltstack(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let sp = cx.abi.stack_pointer(cx.state);
    let old = cx.thread.signals.alt;
    if a[0] != 0 {
        let new = cx.get::<SigStack>(a[0])?;
        if old.contains(sp) {
            return Err(EPERM);
        }
        let flags = new.flags as u32;
        cx.thread.signals.alt = match flags & !SS_AUTODISARM {
            SS_DISABLE => AltStack::NONE,
            0 | signals::SS_ONSTACK => {
                if new.size < cx.abi.min_signal_stack() {
                    return Err(super::ENOMEM);
                }
                AltStack { sp: new.sp, flags: flags & SS_AUTODISARM, size: new.size }
            }
            _ => return Err(EINVAL),
        };
    }
    let shown = SigStack { sp: old.sp, flags: old.shown_flags(sp) as i32, size: old.size };
    cx.put_opt::<SigStack>(a[1], shown)?;
    Ok(0)
}

/// Only for the kernel, which restarts a sleep with it; here sleeps go on by themselves.
pub fn sys_restart_syscall(_: &mut Cx<'_>, _: &Args) -> SysResult {
    Err(Errno(libc::EINTR))
}

pub fn sys_kill(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_kill, a[0], a[1])
}
pub fn sys_tkill(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_tkill, a[0], a[1])
}
pub fn sys_tgkill(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_tgkill, a[0], a[1], a[2])
}

fn siginfo_in(cx: &Cx<'_>, va: u64) -> Result<[u8; SIGINFO_BYTES], Errno> {
    let bytes = cx.get_bytes(va, SIGINFO_BYTES)?.try_into().map_err(|_| EFAULT)?;
    Ok(cx.abi.siginfo_to_host(&bytes))
}

pub fn sys_rt_sigqueueinfo(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let info = siginfo_in(cx, a[2])?;
    sys!(SYS_rt_sigqueueinfo, a[0], a[1], &info)
}
pub fn sys_rt_tgsigqueueinfo(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let info = siginfo_in(cx, a[3])?;
    sys!(SYS_rt_tgsigqueueinfo, a[0], a[1], a[2], &info)
}
pub fn sys_pidfd_send_signal(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let info = if a[2] != 0 { Some(siginfo_in(cx, a[2])?) } else { None };
    sys!(SYS_pidfd_send_signal, a[0], a[1], info.as_ref(), a[3])
}

/// The set is the host's own, because the host's mask is the guest's. `signalfd_siginfo` is fixed.
pub fn sys_signalfd4(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    check_size(a[2])?;
    let set = cx.get_set(a[1])? & !UNBLOCKABLE;
    let flags = cx.abi.open_flags_to_host(a[3] as u32);
    sys!(SYS_signalfd4, a[0], set_arg(&set), 8, flags)
}

pub fn sys_pause(cx: &mut Cx<'_>, _: &Args) -> SysResult {
    sleep!(cx, SYS_ppoll, 0, 0, 0, 0, 0)
}
