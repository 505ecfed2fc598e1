//! Signals of a guest: actions, masks, alternate stacks, delivery.
//!
//! How signals come from the host is told in [`crate::host::signal`]; here a guest thread takes them out of its
//! mailbox between two pieces of guest code and pushes the frames that its handlers run on.
//! `docs/signals.md` has the whole picture.

use crate::host::signal::{self, Disposition, FAULTS, Mailbox, SIGINFO_BYTES, Set, bit};
use crate::process::Process;
use crate::syscall::Errno;
use crate::thread_state::Thread;
use parking_lot::Mutex;
use tulk_base::{CpuState, FaultCause, Trap};

/// Guest and host number signals alike (a guest that does not will translate at its system calls).
pub const SIGNALS: i32 = 64;

pub const SIG_DFL: u64 = 0;
pub const SIG_IGN: u64 = 1;
pub const SA_SIGINFO: u64 = 4;
pub const SA_NODEFER: u64 = 0x4000_0000;
pub const SA_RESETHAND: u64 = 0x8000_0000;
pub const SA_RESTART: u64 = 0x1000_0000;
pub const SA_ONSTACK: u64 = 0x0800_0000;
pub const SA_RESTORER: u64 = 0x0400_0000;

pub const SS_ONSTACK: u32 = 1;
pub const SS_DISABLE: u32 = 2;
pub const SS_AUTODISARM: u32 = 1 << 31;

/// What the guest does with a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Action {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: Set,
}

/// The actions of a process, shared by its threads.
pub struct Actions(Mutex<[Action; SIGNALS as usize]>);

impl Actions {
    /// Those of a new program: default, or ignored where the parent left it so.
    pub fn inherited() -> Actions {
        let mut actions = [Action::default(); SIGNALS as usize];
        for s in (1..=SIGNALS).filter(|&s| signal::is_ignored(s)) {
            actions[s as usize - 1].handler = SIG_IGN;
        }
        Actions(Mutex::new(actions))
    }

    pub fn get(&self, signal: i32) -> Action {
        self.0.lock()[signal as usize - 1]
    }

    /// Sets an action here and on the host; returns the old one.
    pub fn set(&self, signal: i32, action: Action) -> Result<Action, Errno> {
        let mut all = self.0.lock();
        // The host's handlers of faults stay: tulk needs them. What a fault means is decided at delivery.
        if bit(signal) & FAULTS & !(bit(libc::SIGILL) | bit(libc::SIGFPE) | bit(libc::SIGTRAP)) == 0
        {
            let what = match action.handler {
                SIG_DFL => Disposition::Default,
                SIG_IGN => Disposition::Ignore,
                _ => Disposition::Catch,
            };
            signal::set_disposition(signal, what, action.flags)?;
        }
        Ok(std::mem::replace(&mut all[signal as usize - 1], action))
    }

    /// A copy, to be put back with [`Actions::restore`]: a `vfork` child shares this memory.
    pub fn snapshot(&self) -> [Action; SIGNALS as usize] {
        *self.0.lock()
    }
    pub fn restore(&self, actions: &[Action; SIGNALS as usize]) {
        *self.0.lock() = *actions;
    }
    /// Handlers become the default action (`CLONE_CLEAR_SIGHAND`).
    pub fn clear_handlers(&self) {
        for number in 1..=SIGNALS {
            if self.get(number).handler > SIG_IGN {
                let _ = self.set(number, Action::default());
            }
        }
    }
    /// Before `execve`: handlers do not survive it, and tulk's own must not be found by the new program either. The
    /// kernel does that; ignored faults are the exception that must be told to it.
    pub fn before_exec(&self) {
        let all = self.0.lock();
        for s in [libc::SIGSEGV, libc::SIGBUS] {
            if all[s as usize - 1].handler == SIG_IGN {
                let _ = signal::set_disposition(s, Disposition::Ignore, 0);
            }
        }
    }
}

/// The alternate stack that the guest has set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AltStack {
    pub sp: u64,
    pub flags: u32,
    pub size: u64,
}

impl AltStack {
    pub const NONE: AltStack = AltStack { sp: 0, flags: SS_DISABLE, size: 0 };

    /// True when the stack pointer is on it.
    pub fn contains(&self, sp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && sp > self.sp && sp - self.sp <= self.size
    }
    /// Its flags as `sigaltstack` shows them.
    pub fn shown_flags(&self, sp: u64) -> u32 {
        if self.size == 0 {
            SS_DISABLE
        } else {
            self.flags & SS_AUTODISARM | if self.contains(sp) { SS_ONSTACK } else { 0 }
        }
    }
}

/// Signal state of one guest thread.
pub struct ThreadSignals {
    pub mask: Set,
    /// The mask to return to from the next frame, where a call (`rt_sigsuspend`) had replaced it.
    pub saved_mask: Option<Set>,
    pub alt: AltStack,
    pub mailbox: Box<Mailbox>,
}

impl ThreadSignals {
    pub fn new(interrupt: &std::sync::atomic::AtomicU32, mask: Set) -> ThreadSignals {
        ThreadSignals {
            mask,
            saved_mask: None,
            alt: AltStack::NONE,
            mailbox: Mailbox::new(interrupt),
        }
    }
}

/// A signal frame to be pushed.
pub struct Frame<'a> {
    pub signal: i32,
    pub action: Action,
    /// The host's `siginfo_t`.
    pub info: &'a [u8; SIGINFO_BYTES],
    /// Mask to return to.
    pub mask: Set,
    pub alt: AltStack,
    /// Where the frame may start: the alternate stack's end, or the stack pointer.
    pub stack_top: u64,
    /// Code that calls `rt_sigreturn`, for actions without a restorer.
    pub trampoline: u64,
}

impl Frame<'_> {
    /// The address of a fault that an instruction of the guest made.
    pub fn fault_address(&self) -> Option<u64> {
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| self.info[at + i]));
        let by_an_instruction = word(8) as i32 > 0;
        (by_an_instruction && bit(self.signal) & FAULTS != 0).then(|| word(16))
    }
}

/// What a frame restores.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    pub mask: Set,
    pub alt: AltStack,
}

/// How a system call that a signal interrupted waits for the decision: restart or EINTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupted {
    pub always_eintr: bool,
}

/// A `siginfo_t` of the kernel's generic 64-bit layout, for events of tulk's own making.
fn siginfo(signal: i32, code: i32, address: u64) -> [u8; SIGINFO_BYTES] {
    let mut info = [0; SIGINFO_BYTES];
    info[0..4].copy_from_slice(&signal.to_ne_bytes());
    info[8..12].copy_from_slice(&code.to_ne_bytes());
    info[16..24].copy_from_slice(&address.to_ne_bytes());
    info
}

/// Signal, code and address of a trap (Linux, `force_sig_fault` of the architectures).
fn of_trap(trap: Trap, pc: u64) -> Option<(i32, i32, u64)> {
    Some(match trap {
        Trap::Mem(fault) => match fault.cause {
            FaultCause::Unmapped | FaultCause::Page(_) => (libc::SIGSEGV, 1, fault.va.0),
            FaultCause::Protection => (libc::SIGSEGV, 2, fault.va.0),
            FaultCause::Align => (libc::SIGBUS, 1, fault.va.0),
            FaultCause::Bus => (libc::SIGBUS, 2, fault.va.0),
        },
        Trap::Illegal => (libc::SIGILL, 1, pc),
        Trap::Privileged => (libc::SIGILL, 5, pc),
        Trap::Breakpoint(_) => (libc::SIGTRAP, 1, pc),
        Trap::Arithmetic(code) => (libc::SIGFPE, code as i32, pc),
        Trap::Guest { .. } => (libc::SIGSEGV, 128, 0),
        Trap::Halt => (libc::SIGSEGV, 128, 0),
        Trap::Syscall(_) | Trap::Resync => return None,
    })
}

/// Raises the signal that a trap means. It cannot be ignored or blocked: then the process dies by it.
pub fn force_trap(process: &Process, thread: &mut Thread, state: &mut CpuState, trap: Trap) {
    let guest_trap = process.abi.trap_signal(trap, state);
    let Some((number, code, address)) = guest_trap.or_else(|| of_trap(trap, state.pc())) else {
        return;
    };
    if number == libc::SIGILL {
        let pc = state.pc();
        process.unimplemented_once(pc, || {
            let mut bytes = [0; 16];
            let n = process.space.fetch_code(tulk_base::GuestVa(pc), &mut bytes);
            format!("illegal instruction at {pc:#x}: {:02x?}", &bytes[..n])
        });
    }
    force(process, thread, state, number, &siginfo(number, code, address));
}

/// Delivers a synchronous signal at once, or dies by it.
fn force(
    process: &Process,
    thread: &mut Thread,
    state: &mut CpuState,
    number: i32,
    info: &[u8; SIGINFO_BYTES],
) {
    let action = process.actions.get(number);
    let blocked = thread.signals.mask & bit(number) != 0;
    if action.handler <= SIG_IGN || blocked {
        die(process, state, number);
    }
    handle(process, thread, state, number, info, None);
}

/// Dies by a signal's default action.
pub fn die(process: &Process, state: &CpuState, number: i32) -> ! {
    process.on_fatal_signal(number, state);
    signal::die_by(number)
}

/// Pushes the frame of a handler and enters it.
fn handle(
    process: &Process,
    thread: &mut Thread,
    state: &mut CpuState,
    number: i32,
    info: &[u8; SIGINFO_BYTES],
    interrupted: Option<Interrupted>,
) {
    let abi = process.abi;
    let action = process.actions.get(number);
    if let Some(call) = interrupted {
        if !call.always_eintr && action.flags & SA_RESTART != 0 {
            abi.rewind_syscall(state);
        } else {
            abi.set_result(state, Err(Errno(abi.errno(libc::EINTR))));
        }
    }
    let signals = &mut thread.signals;
    let mask = signals.saved_mask.take().unwrap_or(signals.mask);
    let sp = abi.stack_pointer(state);
    let alt = signals.alt;
    let switch = action.flags & SA_ONSTACK != 0 && alt.size != 0 && !alt.contains(sp);
    let stack_top = if switch { alt.sp.wrapping_add(alt.size) } else { sp };
    let shown = AltStack { flags: alt.shown_flags(sp), ..alt };
    let trampoline = process.sigreturn_code();
    let frame = Frame { signal: number, action, info, mask, alt: shown, stack_top, trampoline };
    if abi.push_frame(&process.space, state, &frame).is_err() {
        // No room for the frame: SIGSEGV, which cannot be handled there either.
        die(process, state, libc::SIGSEGV);
    }
    if alt.flags & SS_AUTODISARM != 0 && switch {
        signals.alt = AltStack::NONE;
    }
    signals.mask |= action.mask;
    if action.flags & SA_NODEFER == 0 {
        signals.mask |= bit(number);
    }
    signals.mask &= !(bit(libc::SIGKILL) | bit(libc::SIGSTOP));
    if action.flags & SA_RESETHAND != 0 {
        let reset = Action { handler: SIG_DFL, ..action };
        let _ = process.actions.set(number, reset);
    }
}

/// Delivers what waits in the mailbox and brings the host's mask in line with the guest's. `interrupted` tells of
/// a system call that ended without having done anything: it is restarted unless a handler decides otherwise.
pub fn deliver(
    process: &Process,
    thread: &mut Thread,
    state: &mut CpuState,
    mut interrupted: Option<Interrupted>,
) {
    loop {
        let ready = thread.signals.mailbox.ready();
        // The kernel has judged what came asynchronously by the mask of that moment; only faults that somebody
        // sent can be here though the guest blocks them.
        let now = ready & !(thread.signals.mask & FAULTS);
        if now != 0 {
            let number = now.trailing_zeros() as i32 + 1;
            let Some(info) = thread.signals.mailbox.take(number) else { continue };
            match process.actions.get(number).handler {
                SIG_IGN => {}
                SIG_DFL if ignored_by_default(number) => {}
                SIG_DFL => die(process, state, number),
                _ => handle(process, thread, state, number, &info, interrupted.take()),
            }
            continue;
        }
        // Unblocking may bring the next one at once.
        thread.interrupt.store(0, std::sync::atomic::Ordering::SeqCst);
        if let Some(mask) = thread.signals.saved_mask.take() {
            thread.signals.mask = mask;
        }
        signal::set_mask(thread.signals.mask);
        if thread.signals.mailbox.ready() & !(thread.signals.mask & FAULTS) == 0 {
            break;
        }
    }
    thread.wait_mask = None;
    if interrupted.is_some() {
        process.abi.rewind_syscall(state);
    }
}

fn ignored_by_default(number: i32) -> bool {
    matches!(number, libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT)
}

/// `rt_sigreturn`: takes back what the frame at the stack pointer holds.
pub fn sigreturn(process: &Process, thread: &mut Thread, state: &mut CpuState) {
    match process.abi.pop_frame(&process.space, state) {
        Ok(restored) => {
            thread.signals.mask = restored.mask & !(bit(libc::SIGKILL) | bit(libc::SIGSTOP));
            if restored.alt.flags & (SS_DISABLE | SS_ONSTACK) == 0 && restored.alt.size != 0 {
                thread.signals.alt = restored.alt;
            }
            // The mask change may let a blocked signal through: the host learns of it in `deliver`.
            thread.interrupt.store(1, std::sync::atomic::Ordering::SeqCst);
        }
        Err(_) => die(process, state, libc::SIGSEGV),
    }
}
