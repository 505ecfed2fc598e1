//! Signals of a guest: actions, masks, alternate stacks, delivery.
//!
//! How signals come from the host is told in [`crate::host::signal`]; here a guest thread takes them out of its
//! mailbox between two pieces of guest code and pushes the frames that its handlers run on.
//! `docs/signals.md` has the whole picture.

use crate::abi::GuestAbi;
use crate::debug::{self, ends_by_default};
use crate::host::signal::{self, Disposition, FAULTS, Mailbox, SIGINFO_BYTES, Set, bit};
use crate::process::Process;
use crate::syscall::{EFAULT, Errno};
use crate::thread_state::Thread;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Set by a call of the 32-bit interface: in 64-bit programs too, the handler then is 32-bit code.
    pub narrow: bool,
}

/// Signals whose instructions raise them: what `force` delivers. Their `siginfo_t` holds an address.
const BY_INSTRUCTIONS: Set = FAULTS | bit(libc::SIGILL) | bit(libc::SIGFPE) | bit(libc::SIGTRAP);

/// The actions of a process, shared by its threads.
pub struct Actions {
    all: Mutex<[Action; SIGNALS as usize]>,
    /// There is, or was, a handler for memory faults, here or in a `vfork` child.
    faults_are_seen: Arc<AtomicBool>,
    /// Signals that end the program by default are caught: a debugger may be there.
    debugged: AtomicBool,
}

impl Actions {
    /// Those of a new program: default, or ignored where the parent left it so.
    pub fn inherited() -> Actions {
        let ignored = signal::take_inherited_ignored();
        let mut actions = [Action::default(); SIGNALS as usize];
        for s in (1..=SIGNALS).filter(|&s| ignored & bit(s) != 0) {
            actions[s as usize - 1].handler = SIG_IGN;
        }
        Actions {
            all: Mutex::new(actions),
            faults_are_seen: Arc::default(),
            debugged: AtomicBool::new(false),
        }
    }

    pub fn get(&self, signal: i32) -> Action {
        self.all.lock()[signal as usize - 1]
    }

    /// Sets an action here and on the host; returns the old one.
    pub fn set(&self, signal: i32, action: Action) -> Result<Action, Errno> {
        let mut all = self.all.lock();
        let what = match action.handler {
            SIG_DFL if self.is_debugged() && ends_by_default(signal) => Disposition::Catch,
            SIG_DFL => Disposition::Default,
            SIG_IGN => Disposition::Ignore,
            _ => Disposition::Catch,
        };
        let flags = if action.handler > SIG_IGN { action.flags } else { action.flags | SA_RESTART };
        // The host's handlers of faults stay: tulk needs them. What a fault means is decided at delivery.
        if bit(signal) & FAULTS == 0 {
            signal::set_disposition(signal, what, flags)?;
        } else {
            signal::set_restart(signal, flags)?;
        }
        if matches!(signal, libc::SIGSEGV | libc::SIGBUS) && action.handler > SIG_IGN {
            self.faults_are_seen.store(true, Ordering::Relaxed);
        }
        Ok(std::mem::replace(&mut all[signal as usize - 1], action))
    }
    /// Has everything caught that debuggers must hear of before it takes effect.
    pub fn let_debuggers_see(&self) {
        self.debugged.store(true, Ordering::Relaxed);
        self.faults_are_seen.store(true, Ordering::Relaxed);
        for number in (1..=SIGNALS).filter(|&n| self.get(n).handler == SIG_DFL) {
            let _ = self.set(number, self.get(number));
        }
    }
    fn is_debugged(&self) -> bool {
        self.debugged.load(Ordering::Relaxed)
    }
    /// False as long as nobody will look at the registers of a memory fault.
    pub fn faults_are_seen(&self) -> bool {
        self.faults_are_seen.load(Ordering::Relaxed)
    }

    /// See [`Process::lock_for_fork`].
    pub fn lock_for_fork(&self) -> impl Sized {
        self.all.lock()
    }
    /// A copy for a `vfork` child, which shares this memory but not its parent's actions.
    pub fn copy(&self) -> Actions {
        let faults_are_seen = self.faults_are_seen.clone();
        let debugged = AtomicBool::new(self.is_debugged());
        Actions { all: Mutex::new(*self.all.lock()), faults_are_seen, debugged }
    }
    /// Handlers become the default action (`CLONE_CLEAR_SIGHAND`).
    pub fn clear_handlers(&self) {
        for number in 1..=SIGNALS {
            if self.get(number).handler > SIG_IGN {
                let _ = self.set(number, Action::default());
            }
        }
    }
    /// Those that the guest ignores.
    pub fn ignored(&self) -> Set {
        let all = self.all.lock();
        let ignored = (1..=SIGNALS).filter(|&s| all[s as usize - 1].handler == SIG_IGN);
        ignored.fold(0, |set, s| set | bit(s))
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
        self.flags & SS_AUTODISARM == 0 && self.covers(sp)
    }
    fn covers(&self, sp: u64) -> bool {
        sp > self.sp && sp - self.sp <= self.size
    }
    /// As a frame keeps it.
    fn kept(&self) -> AltStack {
        let flags = if self.size == 0 { self.flags } else { self.flags & SS_AUTODISARM };
        AltStack { flags, ..*self }
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
    pub exception: Exception,
}

impl ThreadSignals {
    pub fn new(interrupt: &std::sync::atomic::AtomicU32, mask: Set) -> ThreadSignals {
        ThreadSignals {
            mask,
            saved_mask: None,
            alt: AltStack::NONE,
            mailbox: Mailbox::new(interrupt),
            exception: Exception::default(),
        }
    }

    /// The signals that wait here and that `mask` lets through. The kernel has judged what came asynchronously by
    /// the mask of that moment; only faults that somebody sent can be here though the guest blocks them.
    pub fn let_through(&self, mask: Set) -> Set {
        self.mailbox.ready() & !(mask & FAULTS)
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
    /// Where the frame may start: the alternate stack's end, or the stack pointer (below what code uses beneath it).
    pub stack_top: u64,
    /// The alternate stack, if the frame goes there.
    pub within: Option<AltStack>,
    /// Where [`crate::abi::GuestAbi::sigreturn_code`] is, for actions without a restorer.
    pub trampoline: u64,
    /// The thread's last exception.
    pub exception: Exception,
}

impl Frame<'_> {
    /// Fails when a frame at this address would be below the alternate stack. Not all kernels look.
    pub fn check_overflow(&self, at: u64) -> Result<(), Errno> {
        match self.within {
            Some(alt) if !alt.covers(at) => Err(EFAULT),
            _ => Ok(()),
        }
    }
    /// The address of a fault that an instruction of the guest made.
    pub fn fault_address(&self) -> Option<u64> {
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| self.info[at + i]));
        let by_an_instruction = word(8) as i32 > 0;
        (by_an_instruction && bit(self.signal) & BY_INSTRUCTIONS != 0).then(|| word(16))
    }
}

/// Which frame a handler returns from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// With a `siginfo_t`.
    Full,
    /// Of handlers that did not ask for one, on old guests.
    Old,
}

/// What a frame restores.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    pub mask: Set,
    /// `None` when the frame has no room for it: then nothing changes.
    pub alt: Option<AltStack>,
}

/// What a handler does to the system call that its signal interrupted before it had done anything, as the host has
/// decided by `SA_RESTART` and the call's own rule. Without a handler the call is restarted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupted {
    /// Ends it with EINTR.
    Ends,
    /// Restarts it.
    Restarts,
}

/// A `siginfo_t` of the kernel's generic 64-bit layout, for events of tulk's own making.
fn siginfo(signal: i32, code: i32, address: u64) -> [u8; SIGINFO_BYTES] {
    let mut info = [0; SIGINFO_BYTES];
    info[0..4].copy_from_slice(&signal.to_ne_bytes());
    info[8..12].copy_from_slice(&code.to_ne_bytes());
    info[16..24].copy_from_slice(&address.to_ne_bytes());
    info
}

/// What the processor tells of an exception beside the signal that it becomes; x86 programs find the last one in every
/// frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exception {
    pub vector: u32,
    pub error: u32,
    /// Of a page fault; the last one stays.
    pub address: Option<u64>,
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
    let guest_trap = process.abi.trap_signal(process, state, trap);
    if let Some(signal) = &guest_trap {
        let address = signal.exception.address.or(thread.signals.exception.address);
        thread.signals.exception = Exception { address, ..signal.exception };
    }
    let guest_trap = guest_trap.map(|s| (s.number, s.code, s.address));
    let Some((number, code, address)) = guest_trap.or_else(|| of_trap(trap, state.pc())) else {
        return;
    };
    tracing::debug!(target: "int", "trap at pc {:#x}: {trap:?}", state.pc());
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
    let Some(chosen) = debug::signal(process, thread, state, number, info) else { return };
    let renamed = siginfo(chosen, 0, 0);
    let (number, info) = if chosen == number { (number, info) } else { (chosen, &renamed) };
    let action = thread.actions.get(number);
    let blocked = thread.signals.mask & bit(number) != 0;
    if action.handler <= SIG_IGN || blocked {
        crate::strace::signal(process, number, info);
        die(process, state, number);
    }
    handle(process, thread, state, number, info, None);
}

/// Dies by a signal's default action.
pub fn die(process: &Process, state: &CpuState, number: i32) -> ! {
    process.on_fatal_signal(number, state);
    crate::strace::killed(process, number);
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
    crate::strace::signal(process, number, info);
    tracing::debug!(target: "int", "handler of signal {number} entered from pc {:#x}", state.pc());
    process.log_registers(state, "signal");
    let abi = process.abi;
    let action = thread.actions.get(number);
    if let Some(call) = interrupted {
        match call {
            Interrupted::Ends => abi.set_result(state, Err(Errno(abi.errno(libc::EINTR)))),
            Interrupted::Restarts => abi.rewind_syscall(state),
        }
    }
    let signals = &mut thread.signals;
    let saved_mask = signals.saved_mask.take();
    let mask = saved_mask.unwrap_or(signals.mask);
    let frame_abi = abi.frame_abi(&action);
    let (sp, alt) = (abi.stack_pointer(state), signals.alt);
    // Linux decides by what is below the red zone whether the alternate stack is in use.
    let below = sp.wrapping_sub(frame_abi.red_zone());
    let switch = action.flags & SA_ONSTACK != 0 && alt.size != 0 && !alt.contains(below);
    let stack_top = if switch { alt.sp.wrapping_add(alt.size) } else { below };
    let trampoline = process.sigreturn_code();
    let frame = Frame {
        signal: number,
        action,
        info,
        mask,
        alt: alt.kept(),
        stack_top,
        within: (switch || alt.contains(sp)).then_some(alt),
        trampoline,
        exception: signals.exception,
    };
    if frame_abi.push_frame(&process.space, state, &frame).is_err() {
        // No room for the frame: SIGSEGV, whose handler may have a stack of its own.
        if number == libc::SIGSEGV {
            die(process, state, libc::SIGSEGV);
        }
        signals.saved_mask = saved_mask;
        return force(process, thread, state, libc::SIGSEGV, &siginfo(libc::SIGSEGV, 128, 0));
    }
    if alt.flags & SS_AUTODISARM != 0 {
        signals.alt = AltStack::NONE;
    }
    signals.mask |= action.mask;
    if action.flags & SA_NODEFER == 0 {
        signals.mask |= bit(number);
    }
    signals.mask &= !(bit(libc::SIGKILL) | bit(libc::SIGSTOP));
    if action.flags & SA_RESETHAND != 0 {
        let reset = Action { handler: SIG_DFL, ..action };
        let _ = thread.actions.set(number, reset);
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
    let mut again: Set = 0;
    loop {
        let now = thread.signals.let_through(thread.signals.mask);
        if now != 0 {
            let number = now.trailing_zeros() as i32 + 1;
            let Some(mut info) = thread.signals.mailbox.take(number) else { continue };
            let Some(chosen) = debug::signal(process, thread, state, number, &info) else {
                continue;
            };
            if chosen != number {
                info = siginfo(chosen, 0, 0);
            }
            let number = chosen;
            match thread.actions.get(number).handler {
                SIG_IGN => {}
                SIG_DFL if thread.actions.is_debugged() && ends_by_default(number) => {
                    die(process, state, number)
                }
                // The action has changed since the signal came, on the host too.
                SIG_DFL if bit(number) & FAULTS == 0 => again |= bit(number),
                SIG_DFL => die(process, state, number),
                _ => handle(process, thread, state, number, &info, interrupted.take()),
            }
            continue;
        }
        // Unblocking may bring the next one at once.
        thread.interrupt.store(0, Ordering::SeqCst);
        if let Some(mask) = thread.signals.saved_mask.take() {
            thread.signals.mask = mask;
        }
        for number in (1..=SIGNALS).filter(|&n| again & bit(n) != 0) {
            signal::raise(number);
        }
        again = 0;
        signal::set_mask(thread.signals.mask);
        if thread.signals.let_through(thread.signals.mask) == 0 {
            break;
        }
    }
    if interrupted.is_some() {
        process.abi.rewind_syscall(state);
    }
}

/// `rt_sigreturn`, or `sigreturn`: takes back what the frame at the stack pointer holds.
pub fn sigreturn(
    process: &Process,
    thread: &mut Thread,
    state: &mut CpuState,
    abi: &'static dyn GuestAbi,
    kind: FrameKind,
) {
    match abi.pop_frame(process, state, kind) {
        Ok(restored) => {
            thread.signals.mask = restored.mask & !(bit(libc::SIGKILL) | bit(libc::SIGSTOP));
            if let Some(alt) = restored.alt {
                restore_alt(process, thread, state, alt);
            }
            // The mask change may let a blocked signal through: the host learns of it in `deliver`.
            thread.interrupt.store(1, Ordering::SeqCst);
        }
        Err(_) => {
            let (code, address) = abi.bad_frame(state);
            let info = siginfo(libc::SIGSEGV, code, address);
            force(process, thread, state, libc::SIGSEGV, &info);
        }
    }
}

/// What a frame says of the alternate stack holds again, as if the program had called `sigaltstack` (sigaltstack(2)).
fn restore_alt(process: &Process, thread: &mut Thread, state: &CpuState, alt: AltStack) {
    if thread.signals.alt.contains(process.abi.stack_pointer(state)) {
        return;
    }
    match alt.flags & !SS_AUTODISARM {
        SS_DISABLE => thread.signals.alt = AltStack::NONE,
        0 | SS_ONSTACK if alt.size >= process.abi.min_signal_stack() => {
            thread.signals.alt = AltStack { flags: alt.flags & SS_AUTODISARM, ..alt };
        }
        _ => {}
    }
}
