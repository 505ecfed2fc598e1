//! Debugged programs: what guest threads do for a debugger.
//!
//! A [`Debugger`] exists when the user asked for one (`-g`). Guest threads note in their [`Slot`] where they are:
//!
//! | place | registers | when everything stops |
//! |---|---|---|
//! | running | with the thread | is kicked, and parks |
//! | in a system call | a copy, for reading | parks when the call is done; what the kernel does goes on |
//! | parked | a copy, taken back when it goes on | waits |
//!
//! So a stop interrupts no system call, and the program cannot tell. What happens to a thread ([`Stop`]) is noted in its slot
//! until the server's thread (`debug_target.rs`) takes it and stops the others; while one is waiting to be told, nothing
//! goes on.
//!
//! A forked child goes on without debugger, unless each process has an address of its own (`%d`); a `vfork` child, which
//! has its parent's memory, ignores breakpoints. `execve` starts tulk anew with the same address, where the debugger
//! finds the new program.

use crate::host::signal::{self, SIGINFO_BYTES};
use crate::process::Process;
use crate::thread_state::Thread;
use crate::{signals, sys};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tulk_base::CpuState;
use tulk_base::state::{CELL_GUEST, CELL_PC};
use tulk_exec::{Exit, Vcpu, VcpuHandle};
use tulk_gdb::listen::Spec;
use tulk_gdb::{Action, Catch, Go, Stop, Tid};

/// How long the end of the program waits for the debugger to hear of it.
const FAREWELL: Duration = Duration::from_secs(3);

/// How often a thread that waits for a debugger looks for signals.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where a guest thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Running,
    Call,
    Parked,
}

/// What the debugger knows of a thread.
pub(crate) struct Slot {
    handle: VcpuHandle,
    pub place: Place,
    /// A copy, unless it is running.
    pub registers: Box<CpuState>,
    /// The copy was changed.
    pub changed: bool,
    /// Happened, and is not told yet.
    pub event: Option<Stop>,
    pub action: Action,
    /// The signal whose delivery it waits with; 0 for none.
    pub signal: i32,
    /// Its `siginfo_t`, as the guest would get it.
    pub siginfo: Vec<u8>,
    /// At the entry or end of this system call.
    pub call: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub threads: BTreeMap<Tid, Slot>,
    /// Nobody may run guest code.
    pub stopped: bool,
    /// A client is there.
    pub attached: bool,
    /// What the last stop was about.
    pub current: Tid,
    pub catch: Catch,
    end: Option<Stop>,
    end_told: bool,
}

impl Inner {
    fn may_go(&self, tid: Tid) -> bool {
        let slot = self.threads.get(&tid);
        slot.is_none_or(|s| !self.stopped && s.action.go != Go::Stay && s.event.is_none())
    }
}

/// See the module.
pub struct Debugger {
    pub(crate) pid: u32,
    pub spec: Spec,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Cells of the state that are registers.
    cells: usize,
    pub(crate) wake: UnixStream,
    woken: UnixStream,
    /// Descriptors that a forked child must close.
    fds: Mutex<Vec<i32>>,
    pub(crate) listener: Mutex<Option<tulk_gdb::listen::Listener>>,
    /// There is a catchpoint.
    catching: AtomicBool,
}

/// A thread's way to its slot.
#[derive(Clone)]
pub struct ThreadDebug {
    pub(crate) debugger: Arc<Debugger>,
    tid: Tid,
    handle: VcpuHandle,
}

const GO: Action = Action { go: Go::Run, signal: 0 };

impl Debugger {
    /// Listens at `spec`'s address.
    pub fn new(spec: Spec, isa: &dyn tulk_frontend::GuestIsa) -> std::io::Result<Debugger> {
        let listener = tulk_gdb::listen::Listener::open(&spec.address)?;
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let last = isa.layout().slots().iter().map(|s| s.cell + s.ty.cells()).max();
        Ok(Debugger {
            pid: std::process::id(),
            inner: Mutex::new(Inner { stopped: spec.suspend, ..Inner::default() }),
            spec,
            changed: Condvar::new(),
            cells: last.unwrap_or(CELL_GUEST) as usize,
            wake,
            woken,
            fds: Mutex::default(),
            listener: Mutex::new(Some(listener)),
            catching: AtomicBool::new(false),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn wait<'a>(&self, guard: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
    /// See [`Process::lock_for_fork`].
    pub fn lock_for_fork(&self) -> impl Sized + '_ {
        (self.lock(), self.fds.lock().unwrap_or_else(PoisonError::into_inner))
    }
    pub(crate) fn note_fd(&self, fd: i32) {
        self.fds.lock().unwrap_or_else(PoisonError::into_inner).push(fd);
    }
    pub(crate) fn drop_fd(&self, fd: i32) {
        self.fds.lock().unwrap_or_else(PoisonError::into_inner).retain(|&f| f != fd);
    }
    /// Readable when something happened.
    pub(crate) fn woken(&self) -> &UnixStream {
        &self.woken
    }
    fn wake(&self) {
        let _ = (&self.wake).write(&[1]);
    }

    fn copy(&self, to: &mut CpuState, from: &CpuState) {
        to.cells[CELL_PC as usize] = from.cells[CELL_PC as usize];
        let guest = CELL_GUEST as usize..self.cells;
        to.cells[guest.clone()].copy_from_slice(&from.cells[guest]);
    }

    fn park(&self, inner: &mut Inner, tid: Tid, state: &CpuState) {
        if let Some(slot) = inner.threads.get_mut(&tid) {
            self.copy(&mut slot.registers, state);
            slot.changed = false;
            slot.place = Place::Parked;
        }
        self.changed.notify_all();
    }
    fn let_go(&self, inner: &mut Inner, tid: Tid, state: &mut CpuState) -> Action {
        let Some(slot) = inner.threads.get_mut(&tid) else { return GO };
        if std::mem::take(&mut slot.changed) {
            self.copy(state, &slot.registers);
        }
        slot.place = Place::Running;
        (slot.call, slot.signal) = (None, 0);
        Action { signal: std::mem::take(&mut slot.action.signal), ..slot.action }
    }

    /// Stops everything; returns when nothing runs.
    pub(crate) fn stop_all(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        inner.stopped = true;
        let moving = |inner: &Inner| {
            // At the very start the first thread is still to come.
            inner.threads.is_empty() && inner.end.is_none()
                || inner.threads.values().any(|s| s.place == Place::Running)
        };
        while moving(&inner) {
            let running = inner.threads.values().filter(|s| s.place == Place::Running);
            running.for_each(|s| s.handle.kick());
            let step = Duration::from_millis(20);
            let waited = self.changed.wait_timeout(inner, step);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner
    }

    /// Lets everything go on, unless something has still to be told.
    pub(crate) fn resume(&self, rest: Action, actions: &[(Tid, Action)]) {
        let mut inner = self.lock();
        let mut waiting = inner.end.is_some();
        for (tid, slot) in &mut inner.threads {
            let named = actions.iter().find(|(t, _)| t == tid);
            let action = named.map_or(rest, |(_, action)| *action);
            // It comes again, if it still is to come.
            if matches!(slot.event, Some(Stop::Breakpoint(_) | Stop::Stepped(_))) {
                slot.event = None;
            }
            waiting |= slot.event.is_some() && action.go != Go::Stay;
            slot.action = action;
        }
        if waiting {
            self.wake();
            return;
        }
        inner.stopped = false;
        drop(inner);
        self.changed.notify_all();
    }

    /// What happened; everything is stopped then.
    pub(crate) fn poll(&self) -> Option<Stop> {
        let mut drain = [0; 64];
        while matches!((&self.woken).read(&mut drain), Ok(n) if n > 0) {}
        let happened = |inner: &Inner| {
            inner.end.is_some() || inner.threads.values().any(|s| s.event.is_some())
        };
        if !happened(&self.lock()) {
            return None;
        }
        let mut inner = self.stop_all();
        if let Some(end) = inner.end {
            return Some(end);
        }
        let (tid, stop) =
            inner.threads.iter_mut().find_map(|(t, s)| Some((*t, s.event.take()?)))?;
        inner.current = tid;
        Some(stop)
    }

    pub(crate) fn set_catch(&self, catch: Catch) {
        self.catching.store(catch != Catch::None, Ordering::SeqCst);
        self.lock().catch = catch;
    }

    /// The server has told the client of the end, or there is none.
    pub(crate) fn end_told(&self) {
        self.lock().end_told = true;
        self.changed.notify_all();
    }

    /// The program ends: returns when the debugger knows.
    pub fn ended(&self, stop: Stop) {
        if std::process::id() != self.pid {
            return;
        }
        let mut inner = self.lock();
        while inner.stopped && inner.attached {
            inner = self.wait(inner);
        }
        if !inner.attached {
            return;
        }
        let tid = sys!(SYS_gettid).unwrap_or(0) as Tid;
        if let Some(slot) = inner.threads.get_mut(&tid) {
            slot.place = Place::Parked;
        }
        inner.end = Some(stop);
        self.wake();
        let waited = self.changed.wait_timeout_while(inner, FAREWELL, |inner| !inner.end_told);
        drop(waited);
    }
}

impl ThreadDebug {
    /// Makes the calling thread known.
    pub fn register(process: &Process, vcpu: &Vcpu) -> Option<ThreadDebug> {
        let debugger = process.debugger()?;
        let tid = sys!(SYS_gettid).unwrap_or(1) as Tid;
        Some(ThreadDebug::enlist(debugger, tid, vcpu.handle(), &vcpu.state))
    }
    fn enlist(
        debugger: Arc<Debugger>,
        tid: Tid,
        handle: VcpuHandle,
        state: &CpuState,
    ) -> ThreadDebug {
        let mut slot = Slot {
            handle: handle.clone(),
            place: Place::Call,
            registers: CpuState::new(),
            changed: false,
            event: None,
            action: GO,
            signal: 0,
            siginfo: Vec::new(),
            call: None,
        };
        debugger.copy(&mut slot.registers, state);
        let mut inner = debugger.lock();
        if inner.current == 0 {
            inner.current = tid;
        }
        inner.threads.insert(tid, slot);
        drop(inner);
        debugger.changed.notify_all();
        ThreadDebug { debugger, tid, handle }
    }
    /// The thread ends.
    pub fn leave(&self) {
        let mut inner = self.debugger.lock();
        inner.threads.remove(&self.tid);
        if inner.current == self.tid {
            inner.current = inner.threads.keys().next().copied().unwrap_or(0);
        }
        drop(inner);
        self.debugger.changed.notify_all();
    }

    /// Waits until the thread may run; says how. `None`: nobody debugs, and a signal came meanwhile (one that ends the
    /// program must end it though it waits for a debugger).
    fn gate(&self, state: &mut CpuState, interrupt: &AtomicU32) -> Option<Action> {
        let debugger = &*self.debugger;
        let mut inner = debugger.lock();
        let mut parked = false;
        loop {
            if inner.may_go(self.tid) {
                return Some(debugger.let_go(&mut inner, self.tid, state));
            }
            if !inner.attached && interrupt.load(Ordering::SeqCst) != 0 {
                return None;
            }
            if !parked {
                parked = true;
                debugger.park(&mut inner, self.tid, state);
            }
            let waited = debugger.changed.wait_timeout(inner, PATIENCE);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Something happened: waits until the debugger lets the thread go on. Nothing, without a debugger.
    fn report(&self, state: &mut CpuState, stop: Stop, call: Option<u64>) -> Action {
        let mut inner = self.debugger.lock();
        if !inner.attached {
            return GO;
        }
        let Some(slot) = inner.threads.get_mut(&self.tid) else { return GO };
        slot.event = Some(stop);
        slot.call = call;
        if let Stop::Signal(_, number) = stop {
            slot.signal = number;
        }
        self.debugger.park(&mut inner, self.tid, state);
        drop(inner);
        self.debugger.wake();
        let action = self.gate_parked(state);
        if action.signal == 0 || matches!(stop, Stop::Signal(..)) {
            return action;
        }
        // For the next time that the thread would run.
        if let Some(slot) = self.debugger.lock().threads.get_mut(&self.tid) {
            slot.action.signal = action.signal;
        }
        action
    }

    /// [`ThreadDebug::gate`] of a thread that is parked already.
    fn gate_parked(&self, state: &mut CpuState) -> Action {
        let debugger = &*self.debugger;
        let mut inner = debugger.lock();
        while !inner.may_go(self.tid) {
            inner = debugger.wait(inner);
        }
        debugger.let_go(&mut inner, self.tid, state)
    }

    /// The thread leaves guest code for a system call.
    pub fn enter_call(&self, state: &CpuState) {
        let debugger = &*self.debugger;
        let mut inner = debugger.lock();
        if let Some(slot) = inner.threads.get_mut(&self.tid) {
            debugger.copy(&mut slot.registers, state);
            slot.place = Place::Call;
        }
        if inner.stopped {
            debugger.changed.notify_all();
        }
    }

    /// Tells of a system call's entry, if the debugger wants to know.
    pub fn call_entry(&self, state: &mut CpuState, number: u64) {
        if self.catches(number) {
            self.report(state, Stop::SyscallEntry(self.tid, number), Some(number));
        }
    }
    /// The same of its end.
    pub fn call_return(&self, state: &mut CpuState, number: u64) {
        if self.catches(number) {
            self.report(state, Stop::SyscallReturn(self.tid, number), Some(number));
        }
    }
    fn catches(&self, number: u64) -> bool {
        self.debugger.catching.load(Ordering::SeqCst)
            && match &self.debugger.lock().catch {
                Catch::None => false,
                Catch::All => true,
                Catch::Only(numbers) => numbers.contains(&number),
            }
    }
}

/// Runs guest code as the debugger wants it. `None`: something happened, and is dealt with.
pub fn run(process: &Arc<Process>, thread: &mut Thread, vcpu: &mut Vcpu) -> Option<Exit> {
    let debug = thread.debug.clone()?;
    let Some(action) = debug.gate(&mut vcpu.state, &thread.interrupt) else {
        return Some(Exit::Interrupted);
    };
    let stepping = !matches!(action.go, Go::Run | Go::Stay);
    if action.signal != 0 {
        let mut info = [0; SIGINFO_BYTES];
        info[0..4].copy_from_slice(&action.signal.to_ne_bytes());
        thread.undebugged_signal = true;
        thread.signals.mailbox.post(action.signal, &info);
        signals::deliver(process, thread, &mut vcpu.state, None);
        thread.undebugged_signal = false;
        process.abi.before_guest(process, &mut vcpu.state);
        if stepping {
            debug.report(&mut vcpu.state, Stop::Stepped(debug.tid), None);
        }
        return None;
    }
    thread.step_from = vcpu.state.pc();
    let exit = if stepping { vcpu.step_one() } else { vcpu.run() };
    let pc = vcpu.state.pc();
    let stop = match exit {
        Exit::Breakpoint => Stop::Breakpoint(debug.tid),
        Exit::Watch(hit) => Stop::Watch(debug.tid, hit.kind, hit.va.0),
        Exit::Stepped => match action.go {
            Go::StepRange(start, end)
                if (start..end).contains(&pc)
                    && !process.engine.has_breakpoint(tulk_base::GuestVa(pc)) =>
            {
                return None;
            }
            _ => Stop::Stepped(debug.tid),
        },
        other => return Some(other),
    };
    debug.report(&mut vcpu.state, stop, None);
    None
}

/// A step led out of guest code, and is done if it is not where it began: what is to be run again is not done.
pub fn step_done(thread: &Thread, state: &mut CpuState) {
    let Some(debug) = &thread.debug else { return };
    let go = debug.debugger.lock().threads.get(&debug.tid).map(|slot| slot.action.go);
    if matches!(go, Some(Go::Step | Go::StepRange(..))) && state.pc() != thread.step_from {
        debug.report(state, Stop::Stepped(debug.tid), None);
    }
}

/// A signal is about to be delivered: the debugger decides which, if any, will be.
pub fn signal(
    process: &Process,
    thread: &Thread,
    state: &mut CpuState,
    number: i32,
    info: &[u8; SIGINFO_BYTES],
) -> Option<i32> {
    let Some(debug) = thread.debug.as_ref().filter(|_| !thread.undebugged_signal) else {
        return Some(number);
    };
    {
        let mut inner = debug.debugger.lock();
        if !inner.attached {
            return Some(number);
        }
        if let Some(slot) = inner.threads.get_mut(&debug.tid) {
            slot.siginfo = process.abi.siginfo_bytes(info).to_vec();
        }
    }
    let action = debug.report(state, Stop::Signal(debug.tid, number), None);
    (action.signal != 0).then_some(action.signal)
}

/// Whether a signal's default action ends the program: then tulk catches it, so that the debugger hears of it first.
pub fn ends_by_default(signal: i32) -> bool {
    !matches!(
        signal,
        libc::SIGKILL
            | libc::SIGCHLD
            | libc::SIGCONT
            | libc::SIGSTOP
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
            | libc::SIGURG
            | libc::SIGWINCH
    )
}

/// In a forked child: the debugger stays with the parent, or a new one begins.
pub fn forked(process: &Arc<Process>, thread: &mut Thread, state: &CpuState) {
    let (Some(debug), Some(old)) = (thread.debug.take(), process.debugger()) else { return };
    let fds = std::mem::take(&mut *old.fds.lock().unwrap_or_else(PoisonError::into_inner));
    for fd in fds {
        let _ = sys!(SYS_close, fd);
        process.show_fd(fd);
    }
    process.engine.clear_breakpoints();
    process.space.forget_trap_holds();
    process.engine.clear_watchpoints();
    process.set_debugger(None);
    if !old.spec.is_per_process() {
        return;
    }
    let spec = Spec { suspend: old.spec.suspend && old.lock().attached, ..old.spec.clone() };
    match Debugger::new(spec, &*process.engine.isa) {
        Ok(debugger) => {
            let debugger = Arc::new(debugger);
            process.set_debugger(Some(debugger.clone()));
            let tid = sys!(SYS_gettid).unwrap_or(1) as Tid;
            thread.debug = Some(ThreadDebug::enlist(debugger, tid, debug.handle, state));
            crate::debug_target::start(process);
        }
        Err(error) => tracing::warn!(%error, "no debugger for the child"),
    }
}

/// How a new program, started by `execve`, finds the debugger: the words behind `--gdb`.
pub fn words_for_exec(process: &Process) -> Option<String> {
    process.options.gdb.as_ref()?;
    let Some(debugger) = process.debugger().filter(|d| d.pid == std::process::id()) else {
        return Some("none".into());
    };
    let suspend = if debugger.lock().attached { 'y' } else { 'n' };
    Some(format!("{},suspend={suspend}", debugger.spec.address))
}

/// Makes host descriptors of the debugger invisible to the guest.
pub(crate) fn hide(process: &Process, fd: &impl AsRawFd) {
    process.hide_fd(fd.as_raw_fd());
    if let Some(debugger) = process.debugger() {
        debugger.note_fd(fd.as_raw_fd());
    }
}

/// Starts the server's thread, which takes no signals.
pub(crate) fn quiet_thread(name: &str, body: impl FnOnce() + Send + 'static) {
    let old = signal::set_mask(!0);
    let started = std::thread::Builder::new().name(name.into()).spawn(body);
    signal::set_mask(old);
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for the debugger");
    }
}
