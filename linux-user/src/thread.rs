//! Guest threads: each is a host thread with a vCPU of its own. The loop that serves it, its start and its end.

use crate::abi::GuestAbi;
use crate::abi::record::{Field, U32};
use crate::debug::{self, ThreadDebug};
use crate::host::signal;
use crate::host::{self, spawn};
use crate::process::Process;
use crate::signals;
use crate::sys;
use crate::syscall::clone::Vfork;
use crate::syscall::futex::leave_robust_list;
use crate::syscall::{self, Cx, Errno, Outcome, SysResult};
use crate::thread_state::Thread;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use tulk_base::state::CELL_TEMPS;
use tulk_base::{CpuState, FaultCause, GuestVa, Trap};
use tulk_exec::{Exit, Vcpu};

/// Stack of a host thread that runs a guest thread.
const HOST_STACK: usize = 1 << 20;

/// How a thread's loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Thread(i32),
    Group(i32),
}

/// Runs guest code and serves what it asks for, until the thread or the process ends.
pub fn run(process: &Arc<Process>, thread: &mut Thread, vcpu: &mut Vcpu) -> End {
    signal::bind(&thread.signals.mailbox);
    // Brings the host's mask in line, and takes what came before anyone listened.
    signals::deliver(process, thread, &mut vcpu.state, None);
    let end = serve(process, thread, vcpu);
    signal::set_mask(!0);
    signal::unbind();
    end
}

fn serve(process: &Arc<Process>, thread: &mut Thread, vcpu: &mut Vcpu) -> End {
    process.abi.before_guest(process, &mut vcpu.state);
    loop {
        let mut interrupted = None;
        let exit = match thread.debug {
            None => vcpu.run(),
            Some(_) => match debug::run(process, thread, vcpu) {
                Some(exit) => exit,
                None => continue,
            },
        };
        match exit {
            Exit::Interrupted => {}
            Exit::Breakpoint | Exit::Watch(_) | Exit::Stepped => {}
            Exit::Halt { .. } | Exit::Shutdown => unreachable!("only processors of machines stop"),
            Exit::Trap(Trap::Syscall(kind)) => {
                process.log_registers(&vcpu.state, "system call");
                let state = &mut vcpu.state;
                let outcome = match process.abi.interface(kind, process, state) {
                    Ok(abi) => match thread.debug.clone() {
                        None => syscall::dispatch(process, thread, state, abi),
                        Some(debug) => debugged_call(process, thread, state, abi, &debug),
                    },
                    Err(None) => Outcome::Continue,
                    Err(Some(trap)) => {
                        signals::force_trap(process, thread, state, trap);
                        Outcome::Continue
                    }
                };
                match outcome {
                    Outcome::Continue => {}
                    Outcome::Restart(how) => interrupted = Some(how),
                    Outcome::ExitThread(code) => return End::Thread(code),
                    Outcome::ExitGroup(code) => return End::Group(code),
                    Outcome::Vfork => vfork(process, thread, vcpu),
                }
            }
            Exit::Trap(Trap::Mem(fault))
                if process.engine.isa.retry_fault(&mut vcpu.state, &fault) => {}
            Exit::Trap(Trap::Mem(fault))
                if fault.cause == FaultCause::Unmapped
                    && process.space.grow_down(fault.va, process.stack_size()) => {}
            Exit::Trap(trap) => {
                if !process.abi.absorb_trap(process, &mut vcpu.state, trap) {
                    signals::force_trap(process, thread, &mut vcpu.state, trap);
                }
            }
        }
        if interrupted.is_some() || thread.interrupt.load(Ordering::SeqCst) != 0 {
            signals::deliver(process, thread, &mut vcpu.state, interrupted);
        }
        process.abi.before_guest(process, &mut vcpu.state);
        if thread.debug.is_some() {
            debug::step_done(thread, &mut vcpu.state);
        }
    }
}

/// A system call of which a debugger may want to hear.
fn debugged_call(
    process: &Arc<Process>,
    thread: &mut Thread,
    state: &mut CpuState,
    abi: &'static dyn GuestAbi,
    debug: &ThreadDebug,
) -> Outcome {
    debug.call_entry(state, abi.syscall(state).0);
    let number = abi.syscall(state).0;
    debug.enter_call(state);
    // The kernel may access watched pages.
    let trapped = process.space.has_traps();
    if trapped {
        process.space.open_traps();
    }
    let outcome = syscall::dispatch(process, thread, state, abi);
    if trapped {
        process.space.close_traps();
    }
    // A child has another debugger, or none.
    if outcome == Outcome::Continue
        && let Some(debug) = &thread.debug
    {
        debug.call_return(state, number);
    }
    outcome
}

/// Ends the process on behalf of the guest.
pub fn exit_process(process: &Process, code: i32) -> ! {
    if let Some(debugger) = process.debugger() {
        debugger.ended(tulk_gdb::Stop::Exited(code as u8));
    }
    process.at_exit();
    host::exit_group(code)
}

/// What a `vfork` child changes in memory that it shares with its parent.
struct Saved {
    cells: Vec<u64>,
    actions: Arc<signals::Actions>,
    mask: signal::Set,
    alt: signals::AltStack,
    exception: signals::Exception,
    tagged_addresses: bool,
    clear_child_tid: u64,
    robust_list: u64,
}

fn vfork(process: &Arc<Process>, thread: &mut Thread, vcpu: &mut Vcpu) {
    let Some(request) = thread.vfork.take() else { return };
    let own = Arc::new(thread.actions.copy());
    let saved = Saved {
        cells: vcpu.state.cells[..CELL_TEMPS as usize].to_vec(),
        actions: std::mem::replace(&mut thread.actions, own),
        mask: thread.signals.mask,
        alt: thread.signals.alt,
        exception: thread.signals.exception,
        tagged_addresses: thread.tagged_addresses,
        clear_child_tid: thread.clear_child_tid,
        robust_list: thread.robust_list,
    };
    // All signals are blocked: nothing may interrupt the parent between the child's end and the restoring.
    // The child does not stop for the debugger, whose breakpoints are in memory that it shares.
    let debug = thread.debug.take();
    vcpu.ignores_breakpoints = true;
    let mut pidfd = -1;
    let pid = spawn::vfork(request.flags, &mut pidfd, |_| child(process, thread, vcpu, &request));
    thread.debug = debug;
    vcpu.ignores_breakpoints = false;
    vcpu.state.cells[..CELL_TEMPS as usize].copy_from_slice(&saved.cells);
    thread.actions = saved.actions;
    thread.signals.mask = saved.mask;
    thread.signals.alt = saved.alt;
    thread.signals.saved_mask = None;
    thread.signals.exception = saved.exception;
    // What the child took from the kernel and did not live to handle.
    thread.signals.mailbox.keep(signal::FAULTS);
    thread.tagged_addresses = saved.tagged_addresses;
    thread.clear_child_tid = saved.clear_child_tid;
    thread.robust_list = saved.robust_list;
    signal::bind(&thread.signals.mailbox);
    let mut cx = Cx::new(process, thread, &mut vcpu.state);
    let result = pid.and_then(|pid| request.finish(&mut cx, pid, pidfd));
    crate::strace::resumed(process, &result);
    let result = result.map_err(|e| Errno(process.abi.errno(e.0)));
    process.abi.set_result(&mut vcpu.state, result);
    signal::set_mask(thread.signals.mask);
}

/// The child's life, on its own host stack, with the parent's vCPU.
fn child(
    process: &Arc<Process>,
    thread: &mut Thread,
    vcpu: &mut Vcpu,
    request: &Vfork,
) -> Infallible {
    let mut cx = Cx::new(process, thread, &mut vcpu.state);
    request.become_child(&mut cx);
    signal::set_mask(cx.thread.signals.mask);
    match serve(process, thread, vcpu) {
        End::Thread(code) | End::Group(code) => {
            leave_robust_list(process, thread);
            host::exit_group(code)
        }
    }
}

/// Starts a process that shares this one's memory and is not waited for (`CLONE_VM` alone); returns its pid.
///
/// It is a `vfork` that a host thread of its own makes and waits for. So the child has thread-local data that nobody else uses,
/// a vCPU, and a host process for everything that belongs to one (descriptors, signals, credentials, name spaces); tulk's
/// data is shared as among threads, whose locks work between processes in the same memory. The waiting thread cleans up
/// when the child has ended or runs another program, and is no guest thread.
pub fn spawn_process(cx: &mut Cx<'_>, request: Vfork) -> SysResult {
    let (process, mask) = (cx.process.clone(), cx.thread.signals.mask);
    let actions = match request.shares_actions() {
        true => cx.thread.actions.clone(),
        false => Arc::new(cx.thread.actions.copy()),
    };
    let tagged_addresses = cx.thread.tagged_addresses;
    let cells = cx.state.cells[..CELL_TEMPS as usize].to_vec();
    let (started, wait) = mpsc::sync_channel::<SysResult>(1);
    let body = move || {
        let mut vcpu = process.engine.vcpu();
        vcpu.state.cells[..CELL_TEMPS as usize].copy_from_slice(&cells);
        vcpu.ignores_breakpoints = true;
        let mut thread = Thread::new(actions, mask);
        thread.tagged_addresses = tagged_addresses;
        signal::bind(&thread.signals.mailbox);
        let mut pidfd = -1;
        let ended = spawn::vfork(request.flags, &mut pidfd, |word| {
            let mut cx = Cx::new(&process, &mut thread, &mut vcpu.state);
            let own = sys!(SYS_getpid).unwrap_or(0) as i32;
            let (pid, pidfd) = if request.wants_pidfd() { (own, word) } else { (word, -1) };
            let _ = started.send(request.finish(&mut cx, pid, pidfd));
            child(&process, &mut thread, &mut vcpu, &request)
        });
        match ended {
            Ok(_) => clear_tid(&process, &thread),
            Err(error) => drop(started.send(Err(error))),
        }
        signal::unbind();
    };
    // All signals stay blocked in the thread that waits.
    let old = signal::set_mask(!0);
    let result = match std::thread::Builder::new().stack_size(HOST_STACK).spawn(body) {
        Ok(_) => wait.recv().unwrap_or(Err(Errno(libc::EAGAIN))),
        Err(_) => Err(Errno(libc::EAGAIN)),
    };
    signal::set_mask(old);
    result
}

/// What a new thread starts with; absent fields are its parent's.
#[derive(Clone, Copy, Debug)]
pub struct Spawn {
    pub sp: Option<u64>,
    pub tls: Option<u64>,
    pub set_child_tid: Option<u64>,
    pub set_parent_tid: Option<u64>,
    /// 0 for none.
    pub clear_child_tid: u64,
}

fn put_tid(process: &Process, at: Option<u64>, tid: u32) {
    if let Some(at) = at {
        let mut bytes = [0; 4];
        U32::put(&mut bytes, tid, process.abi.model());
        let _ = process.space.copy_out(GuestVa(at), &bytes);
    }
}

/// Starts a thread that goes on where the calling one stands, with result 0; returns its tid.
pub fn spawn(cx: &mut Cx<'_>, spawn: Spawn) -> SysResult {
    let (process, abi) = (cx.process.clone(), cx.abi);
    let (mask, actions) = (cx.thread.signals.mask, cx.thread.actions.clone());
    let cells = cx.state.cells[..CELL_TEMPS as usize].to_vec();
    let (started, wait) = mpsc::sync_channel(1);
    let body = move || {
        let mut vcpu = process.engine.vcpu();
        vcpu.state.cells[..CELL_TEMPS as usize].copy_from_slice(&cells);
        drop(cells);
        abi.start_clone(&process, &mut vcpu.state, spawn.sp, spawn.tls);
        let mut thread = Thread::new(actions, mask);
        thread.clear_child_tid = spawn.clear_child_tid;
        let tid = sys!(SYS_gettid).unwrap_or(0) as u32;
        put_tid(&process, spawn.set_parent_tid, tid);
        put_tid(&process, spawn.set_child_tid, tid);
        // From here on its maker may meet a breakpoint, and this thread must stand still then.
        thread.debug = ThreadDebug::register(&process, &vcpu);
        let _ = started.send(tid);
        match run(&process, &mut thread, &mut vcpu) {
            End::Group(code) => {
                leave_robust_list(&process, &mut thread);
                exit_process(&process, code)
            }
            End::Thread(code) => end(&process, &mut thread, code),
        }
    };
    cx.process.threads.fetch_add(1, Ordering::SeqCst);
    // The new thread begins with everything blocked, until its mailbox is there.
    let old = signal::set_mask(!0);
    let handle = std::thread::Builder::new().stack_size(HOST_STACK).spawn(body);
    let result = match handle {
        Ok(_) => wait.recv().map(u64::from).map_err(|_| Errno(libc::EAGAIN)),
        Err(_) => {
            cx.process.threads.fetch_sub(1, Ordering::SeqCst);
            Err(Errno(libc::EAGAIN))
        }
    };
    signal::set_mask(old);
    result
}

/// What the kernel does for a thread that ends: its robust locks, and the word that `pthread_join` waits for. The last
/// guest thread takes the process with it: tulk's own do not keep it alive.
fn end(process: &Process, thread: &mut Thread, code: i32) {
    let debug = thread.debug.take();
    leave_robust_list(process, thread);
    clear_tid(process, thread);
    if process.threads.fetch_sub(1, Ordering::SeqCst) == 1 {
        exit_process(process, code);
    }
    if let Some(debug) = debug {
        debug.leave();
    }
}

/// Clears the word that waits for the end of a thread.
fn clear_tid(process: &Process, thread: &Thread) {
    let at = thread.clear_child_tid;
    if at != 0 && process.space.copy_out(GuestVa(at), &[0; 4]).is_ok() {
        let word = host::Mem(process.space.host_ptr(process.space.untag(GuestVa(at))));
        let _ = sys!(SYS_futex, word, libc::FUTEX_WAKE, 1, 0, 0, 0);
    }
}

/// Runs the first thread of a process whose registers `vcpu` holds; ends the process, or this thread of it.
pub fn run_first(process: &Arc<Process>, mut vcpu: Vcpu) -> ! {
    signal::install_hook();
    let mut thread = Thread::new(process.actions.clone(), signal::inherited_mask());
    // As frames of a program that never called `sigaltstack` show it.
    thread.signals.alt.flags = 0;
    crate::debug_target::start(process);
    thread.debug = ThreadDebug::register(process, &vcpu);
    signal::take_inherited(&thread.signals.mailbox);
    match run(process, &mut thread, &mut vcpu) {
        End::Group(code) => {
            leave_robust_list(process, &mut thread);
            exit_process(process, code)
        }
        End::Thread(code) => {
            end(process, &mut thread, code);
            drop(vcpu);
            host::exit_thread(code)
        }
    }
}
