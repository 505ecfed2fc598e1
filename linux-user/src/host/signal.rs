//! Signals of the host as the guest's signals: the handler, the mailbox, masks and actions.
//!
//! A guest thread's host mask is the guest's own mask (without the faults that tulk itself needs), and a guest
//! action is the host's action, with [`on_signal`] where the guest has a handler. So the kernel decides who gets a
//! signal, in which order, and what the default action does. The handler notes the signal in the thread's
//! [`Mailbox`], asks the thread to leave guest code, and returns *with all signals blocked*: the next one stays with
//! the kernel until the thread has built the frame for this one and restores the mask. Nothing is queued here and
//! nothing can be lost.

use super::{Mem, call};
use parking_lot::Mutex;
use std::cell::Cell;
use std::cell::UnsafeCell;
use std::ptr::null;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tulk_softmmu::Errno;

/// The kernel's signal set: bit `n - 1` is signal `n`.
pub type Set = u64;

/// The bit of a signal in a [`Set`].
pub const fn bit(signal: i32) -> Set {
    1 << (signal - 1)
}

/// Signals that accesses of guest memory raise on the host: never blocked there, their host action is tulk's.
pub const FAULTS: Set = bit(libc::SIGSEGV) | bit(libc::SIGBUS);

/// Bytes of a `siginfo_t` of the kernel.
pub const SIGINFO_BYTES: usize = 128;

/// Signals that came for a guest thread and are not yet delivered: at most one besides the faults.
pub struct Mailbox {
    ready: AtomicU64,
    infos: UnsafeCell<[[u8; SIGINFO_BYTES]; 65]>,
    interrupt: *const AtomicU32,
}

impl Mailbox {
    /// `interrupt` must outlive the mailbox's binding; both belong to the same thread structure.
    pub fn new(interrupt: &AtomicU32) -> Box<Mailbox> {
        Box::new(Mailbox {
            ready: AtomicU64::new(0),
            infos: UnsafeCell::new([[0; SIGINFO_BYTES]; 65]),
            interrupt,
        })
    }

    /// The signals that wait.
    pub fn ready(&self) -> Set {
        self.ready.load(Ordering::SeqCst)
    }

    /// Takes a signal out, if it waits.
    pub fn take(&self, signal: i32) -> Option<[u8; SIGINFO_BYTES]> {
        if self.ready() & bit(signal) == 0 {
            return None;
        }
        // SAFETY: the handler, which runs on this thread, does not write the entry while its bit is set.
        let info = unsafe { (*self.infos.get())[signal as usize] };
        self.ready.fetch_and(!bit(signal), Ordering::SeqCst);
        Some(info)
    }

    /// Forgets all but the signals of `set`.
    pub fn keep(&self, set: Set) {
        self.ready.fetch_and(set, Ordering::SeqCst);
    }

    /// Puts a signal in from this thread itself, unless it waits already.
    pub fn post(&self, signal: i32, info: &[u8; SIGINFO_BYTES]) {
        if self.ready() & bit(signal) == 0 {
            // SAFETY: as in `take`.
            unsafe { (*self.infos.get())[signal as usize] = *info };
            self.ready.fetch_or(bit(signal), Ordering::SeqCst);
        }
        // SAFETY: see `new`.
        unsafe { &*self.interrupt }.store(1, Ordering::SeqCst);
    }
}

thread_local! {
    static MAILBOX: Cell<*const Mailbox> = const { Cell::new(null()) };
}

/// Signals of this host thread go to `mailbox` from now on, which must stay where it is until [`unbind`].
pub fn bind(mailbox: &Mailbox) {
    MAILBOX.set(mailbox);
}
pub fn unbind() {
    MAILBOX.set(null());
}

/// The handler of every signal for which the guest has one, and of SIGSEGV and SIGBUS that somebody sent.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    on_hooked(signal, info, context);
}

/// Asks the engine to hand over SIGSEGV and SIGBUS that no guest access caused: somebody sent them.
pub fn install_hook() {
    tulk_exec::host::signals::set_hook(on_hooked);
}

/// The engine's hook: true when a guest thread took the signal.
fn on_hooked(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    let mailbox = MAILBOX.get();
    // SAFETY: bound mailboxes are alive.
    let Some(mailbox) = (unsafe { mailbox.as_ref() }) else {
        return false;
    };
    // SAFETY: the kernel passes a siginfo_t and a ucontext_t; 8 bytes of the mask are the kernel's.
    unsafe {
        if (*info).si_code > 0 && bit(signal) & FAULTS != 0 {
            return false; // a fault of tulk itself
        }
        mailbox.post(signal, &*info.cast());
        tulk_exec::host::signals::request_exit_here();
        let context = context.cast::<libc::ucontext_t>();
        (&raw mut (*context).uc_sigmask).cast::<Set>().write_unaligned(!FAULTS);
        #[cfg(target_arch = "x86_64")]
        {
            let pc = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
            if let Some(to) = super::interrupted_call(*pc as usize) {
                *pc = to as i64;
            }
        }
    }
    true
}

/// The kernel's `struct sigaction` on x86-64 (which wants a restorer) and on the generic hosts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelAction {
    pub handler: u64,
    pub flags: u64,
    #[cfg(target_arch = "x86_64")]
    pub restorer: u64,
    pub mask: Set,
}

#[cfg(target_arch = "x86_64")]
mod restorer {
    std::arch::global_asm!(
        ".pushsection .text.tulk_sigreturn, \"ax\", @progbits",
        ".globl tulk_sigreturn",
        ".hidden tulk_sigreturn",
        "tulk_sigreturn:",
        "mov eax, 15", // rt_sigreturn
        "syscall",
        ".popsection",
    );
    unsafe extern "C" {
        pub fn tulk_sigreturn();
    }
}

/// What the host shall do with a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    Default,
    Ignore,
    /// Note it for the guest.
    Catch,
}

const SA_NOCLDSTOP: u64 = 1;
const SA_NOCLDWAIT: u64 = 2;
const SA_RESTART: u64 = libc::SA_RESTART as u64;
const SA_RESTORER: u64 = 0x0400_0000;

/// Sets the host's action by the kernel's own call: the C library keeps two signals for itself, which belong to
/// the guest here. `flags` may hold `SA_NOCLDSTOP`, `SA_NOCLDWAIT` and `SA_RESTART`.
pub fn set_disposition(signal: i32, what: Disposition, flags: u64) -> Result<(), Errno> {
    let mut action = KernelAction {
        flags: flags & (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_RESTART),
        ..Default::default()
    };
    match what {
        Disposition::Default => {}
        Disposition::Ignore => action.handler = libc::SIG_IGN as u64,
        Disposition::Catch => {
            action.handler = on_signal as *const () as u64;
            action.flags |= (libc::SA_SIGINFO | libc::SA_ONSTACK) as u64;
            action.mask = !FAULTS;
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        action.flags |= SA_RESTORER;
        action.restorer = restorer::tulk_sigreturn as *const () as u64;
    }
    put_action(signal, &action)
}

/// Takes only `SA_RESTART` over from `flags`.
pub fn set_restart(signal: i32, flags: u64) -> Result<(), Errno> {
    let mut action = action(signal)?;
    action.flags = action.flags & !SA_RESTART | flags & SA_RESTART;
    put_action(signal, &action)
}

/// The host's action.
fn action(signal: i32) -> Result<KernelAction, Errno> {
    let mut action = KernelAction::default();
    let args = [signal as u64, 0, &raw mut action as u64, size_of::<Set>() as u64];
    call(libc::SYS_rt_sigaction, &args).map(|_| action)
}
fn put_action(signal: i32, action: &KernelAction) -> Result<(), Errno> {
    let args = [signal as u64, std::ptr::from_ref(action) as u64, 0, size_of::<Set>() as u64];
    call(libc::SYS_rt_sigaction, &args).map(|_| ())
}

/// True when the host ignores the signal.
fn is_ignored(signal: i32) -> bool {
    action(signal).is_ok_and(|action| action.handler == libc::SIG_IGN as u64)
}

/// With what tulk was started: ignored signals, the mask.
static INHERITED_IGNORED: AtomicU64 = AtomicU64::new(0);
static INHERITED_MASK: AtomicU64 = AtomicU64::new(0);
/// Faults that somebody had sent while they were blocked.
static INHERITED_FAULTS: Mutex<Vec<(i32, [u8; SIGINFO_BYTES])>> = Mutex::new(Vec::new());

extern "C" fn note_inherited() {
    let ignored = (1..=64).filter(|&s| is_ignored(s)).fold(0, |set, s| set | bit(s));
    INHERITED_IGNORED.store(ignored, Ordering::Relaxed);
    let mask = current_mask();
    INHERITED_MASK.store(mask, Ordering::Relaxed);
    if mask & FAULTS != 0 {
        let (set, now) = (FAULTS, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        let mut info = [0; SIGINFO_BYTES];
        let words = [&raw const set as u64, &raw mut info as u64, &raw const now as u64, 8];
        while let Ok(signal) = call(libc::SYS_rt_sigtimedwait, &words) {
            INHERITED_FAULTS.lock().push((signal as i32, info));
        }
    }
    set_mask(mask);
}

/// Puts the faults that the parent program left into the first thread's mailbox.
pub fn take_inherited(mailbox: &Mailbox) {
    for (signal, info) in INHERITED_FAULTS.lock().drain(..) {
        mailbox.post(signal, &info);
    }
}

/// The signal mask of the program that started this one: the guest's first.
pub fn inherited_mask() -> Set {
    INHERITED_MASK.load(Ordering::Relaxed)
}

/// Run before Rust's runtime, which ignores SIGPIPE, and before the first fault, which must not be blocked.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_INHERITED: extern "C" fn() = note_inherited;

/// The signals that are ignored from the program's start on. Takes back those that the runtimes below use, because
/// they are the guest's: Rust's ignores SIGPIPE, and the C library catches number 33 from its first thread on (which therefore is made
/// here).
pub fn take_inherited_ignored() -> Set {
    const SETXID: i32 = 33;
    let ignored = INHERITED_IGNORED.load(Ordering::Relaxed);
    let _ = std::thread::spawn(|| ()).join();
    for signal in [SETXID, libc::SIGPIPE] {
        let what =
            if ignored & bit(signal) != 0 { Disposition::Ignore } else { Disposition::Default };
        let _ = set_disposition(signal, what, 0);
    }
    ignored
}

/// Sets the calling thread's host mask for a guest mask; returns the old one.
pub fn set_mask(guest: Set) -> Set {
    let (new, mut old) = (guest & !FAULTS, 0u64);
    let args = [libc::SIG_SETMASK as u64, &raw const new as u64, &raw mut old as u64, 8];
    let _ = call(libc::SYS_rt_sigprocmask, &args);
    old
}

/// The calling thread's host mask.
pub fn current_mask() -> Set {
    let mut old = 0u64;
    let _ = call(libc::SYS_rt_sigprocmask, &[libc::SIG_SETMASK as u64, 0, &raw mut old as u64, 8]);
    old
}

/// Ends the process by `signal`'s default action, without a core of tulk itself.
pub fn die_by(signal: i32) -> ! {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let _ = call(libc::SYS_prlimit64, &[0, libc::RLIMIT_CORE as u64, &raw const none as u64, 0]);
    let _ = put_action(signal, &KernelAction::default());
    let all: Set = !bit(signal);
    let _ =
        call(libc::SYS_rt_sigprocmask, &[libc::SIG_SETMASK as u64, &raw const all as u64, 0, 8]);
    raise(signal);
    super::exit_group(128 + signal)
}

/// What `execve` must find on the host and tulk does not otherwise have there: undone when dropped, because the call may
/// fail.
pub struct Handover {
    mask: Set,
    actions: Vec<(i32, KernelAction)>,
}

/// Prepares for a new program: faults are blocked and ignored where the guest has it so, and those that wait in the
/// mailbox for being unblocked go back to the kernel, which keeps them for that program.
pub fn hand_over(mask: Set, ignored: Set, mailbox: &Mailbox) -> Handover {
    let mut out = Handover { mask, actions: Vec::new() };
    let faults = [libc::SIGSEGV, libc::SIGBUS];
    for signal in faults.into_iter().filter(|&s| bit(s) & ignored != 0) {
        if let Ok(old) = action(signal) {
            out.actions.push((signal, old));
            let _ = set_disposition(signal, Disposition::Ignore, 0);
        }
    }
    if mask & FAULTS != 0 {
        let args = [libc::SIG_SETMASK as u64, &raw const mask as u64, 0, 8];
        let _ = call(libc::SYS_rt_sigprocmask, &args);
        for signal in faults.into_iter().filter(|&s| bit(s) & mask != 0) {
            if let Some(info) = mailbox.take(signal) {
                send(signal, Some(&info));
            }
        }
    }
    out
}

impl Drop for Handover {
    fn drop(&mut self) {
        for (signal, action) in &self.actions {
            let _ = put_action(*signal, action);
        }
        set_mask(self.mask);
    }
}

/// Sends a signal to the calling thread.
fn send(signal: i32, info: Option<&[u8; SIGINFO_BYTES]>) {
    let own = (call(libc::SYS_getpid, &[]), call(libc::SYS_gettid, &[]));
    let (Ok(pid), Ok(tid)) = own else { return };
    let _ = match info {
        Some(info) => {
            let info = info.as_ptr() as u64;
            call(libc::SYS_rt_tgsigqueueinfo, &[pid, tid, signal as u64, info])
        }
        None => call(libc::SYS_tgkill, &[pid, tid, signal as u64]),
    };
}

/// Does to this thread what the host's action for `signal` says, though it came when that was another.
pub fn raise(signal: i32) {
    send(signal, None);
}

/// `rt_sigtimedwait` and `rt_sigsuspend` take sets by pointer.
pub fn set_arg(set: &Set) -> Mem {
    Mem(std::ptr::from_ref(set) as usize)
}
