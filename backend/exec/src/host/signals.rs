//! Host signals that guest code causes: SIGSEGV and SIGBUS.
//!
//! What a fault means depends on where it happened:
//!
//! 1. A write to a page with watched code, by generated code or an accessor of `softmmu::raw`: the page becomes
//!    writable, its blocks are queued as stale, and the access is repeated. A guest that must see its own changes
//!    at once ([`tulk_frontend::GuestIsa::self_modifying_is_exact`]) leaves the running block instead, and the dispatcher
//!    repeats the one instruction in tier 0; see `docs/self-modifying-code.md`. So do regions of any guest: what leads to
//!    a later fault might be repeated, and must be what it was.
//! 2. An accessor: it continues at its recovery address and reports the fault.
//! 3. Generated code: the region's fault map names the guest pc, all slots are exact, and the thread returns to
//!    the dispatcher, which repeats the instruction in tier 0 to learn what exactly is wrong.
//! 4. Anything else, and signals that somebody sent: the hook. If that declines, the default action.
//!
//! The handler allocates nothing and takes only the locks of [`tulk_softmmu::UserSpace::on_write_fault`], which is
//! safe there because these are synchronous faults of single instructions outside all critical sections.

use crate::engine::{Engine, VcpuShared};
use crate::host::fault_frame;
use crate::host::fault_index::FaultIndex;
use crate::trampoline::REASON_FAULT;
use std::cell::Cell;
use std::ptr::{null, null_mut};
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use tulk_base::CpuState;
use tulk_base::state::CELL_PC;
use tulk_codegen::FaultMap;
use tulk_codegen::abi::word;
use tulk_softmmu::{WriteFault, raw};

/// Gets SIGSEGV and SIGBUS that no guest access caused. True when it dealt with the signal. Runs in the
/// handler: it may do only what is async-signal-safe.
pub type Hook = fn(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool;

static HOOK: AtomicUsize = AtomicUsize::new(0);

/// For threads that touch guest memory without a vCPU.
static ANY_ENGINE: AtomicPtr<Engine> = AtomicPtr::new(null_mut());

/// What the handler knows of its thread.
struct Thread {
    state: Cell<*mut CpuState>,
    engine: Cell<*const Engine>,
    shared: Cell<*const VcpuShared>,
    regions: Cell<*const FaultIndex>,
    /// A write to watched code ends the running block.
    exact: Cell<bool>,
    /// That happened.
    hit: Cell<bool>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            state: Cell::new(null_mut()),
            engine: Cell::new(null()),
            shared: Cell::new(null()),
            regions: Cell::new(null()),
            exact: Cell::new(false),
            hit: Cell::new(false),
        }
    };
    static STACK: Cell<Option<SignalStack>> = const { Cell::new(None) };
}

/// Registers who is asked about SIGSEGV and SIGBUS that tulk's own guest accesses did not cause.
pub fn set_hook(hook: Hook) {
    HOOK.store(hook as usize, Ordering::Release);
}

/// Installs the handlers, once per process.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            // SAFETY: a zeroed sigaction is valid; the handler has the SA_SIGINFO signature and keeps to what is
            // allowed in one.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_fault as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
                libc::sigfillset(&mut action.sa_mask);
                libc::sigaction(signal, &action, null_mut());
            }
        }
    });
}

/// Makes `engine` the one for threads without a vCPU, until [`forget_engine`].
pub(crate) fn set_engine(engine: &Engine) {
    ANY_ENGINE.store(std::ptr::from_ref(engine).cast_mut(), Ordering::Release);
}

pub(crate) fn forget_engine(engine: &Engine) {
    let engine = std::ptr::from_ref(engine).cast_mut();
    let _ = ANY_ENGINE.compare_exchange(engine, null_mut(), Ordering::AcqRel, Ordering::Relaxed);
}

/// The host thread now runs this vCPU. The referents outlive the binding: [`unbind`] ends it before they go.
pub(crate) fn bind(state: &mut CpuState, engine: &Engine, shared: &VcpuShared) {
    THREAD.with(|t| {
        if std::ptr::eq(t.shared.get(), shared) && std::ptr::eq(t.state.get(), state) {
            return;
        }
        t.state.set(state);
        t.engine.set(engine);
        t.shared.set(shared);
        t.regions.set(null());
        SignalStack::install();
    });
}

/// Ends the binding if this thread has it.
pub(crate) fn unbind(shared: &VcpuShared) {
    THREAD.with(|t| {
        if std::ptr::eq(t.shared.get(), shared) {
            t.engine.set(null());
            t.shared.set(null());
            t.regions.set(null());
            t.state.set(null_mut());
        }
    });
}

/// Whether this thread is bound to that vCPU.
pub(crate) fn is_bound(shared: &VcpuShared) -> bool {
    THREAD.with(|t| std::ptr::eq(t.shared.get(), shared))
}

/// Where this thread's generated code is looked up.
pub(crate) fn set_regions(regions: &FaultIndex) {
    THREAD.with(|t| t.regions.set(regions));
}

/// Sets whether a write to watched code ends the running block; returns what it was.
pub(crate) fn set_exact(exact: bool) -> bool {
    THREAD.with(|t| t.exact.replace(exact))
}

/// A block was ended by its own write since the last call.
pub(crate) fn take_hit() -> bool {
    THREAD.with(|t| t.hit.replace(false))
}

/// Asks the vCPU of the calling thread, if it has one, to return [`crate::Exit::Interrupted`] soon. Async-signal-safe: for
/// signal handlers.
pub fn request_exit_here() {
    THREAD.with(|t| {
        let state = t.state.get();
        if !state.is_null() {
            // SAFETY: bound states are alive, see `bind`.
            unsafe { &*state }.request_exit();
        }
    });
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes valid pointers to an SA_SIGINFO handler.
    let (code, address, cx) = unsafe {
        ((*info).si_code, (*info).si_addr() as usize, &mut *context.cast::<libc::ucontext_t>())
    };
    // Codes of at most 0 are of signals that somebody sent.
    if code > 0 && on_guest_access(signal, address, cx) {
        return;
    }
    let hook = HOOK.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: only `set_hook` stores here.
        let hook: Hook = unsafe { std::mem::transmute::<usize, Hook>(hook) };
        if hook(signal, info, context) {
            return;
        }
    }
    // SAFETY: the default action takes effect when the instruction is repeated, or the signal raised again.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        if code <= 0 {
            libc::raise(signal);
        }
    }
}

/// Cases 1 to 3. True when the thread can go on.
fn on_guest_access(signal: i32, address: usize, cx: &mut libc::ucontext_t) -> bool {
    let pc = fault_frame::pc(cx);
    THREAD.with(|t| {
        let accessor = raw::fixup(pc);
        // SAFETY: set by `set_regions` to an index that the thread's vCPU keeps alive.
        let regions = unsafe { t.regions.get().as_ref() };
        // SAFETY: regions in the index are alive while a thread that runs them is pinned.
        let resume = regions.and_then(|r| unsafe { r.resume(pc) });
        if accessor.is_none() && resume.is_none() {
            return false;
        }
        if signal == libc::SIGSEGV && fault_frame::is_write(cx) {
            // SAFETY: bound engines and the one for all threads are alive.
            let engine =
                unsafe { t.engine.get().as_ref().or(ANY_ENGINE.load(Ordering::Acquire).as_ref()) };
            if let Some(engine) = engine
                && let WriteFault::CodePage { .. } =
                    engine.mem.on_write_fault(address, |page| engine.dirty.push(page))
            {
                // SAFETY: as above.
                if let Some(shared) = unsafe { t.shared.get().as_ref() } {
                    shared.flag.raise(crate::host::EXIT_ENGINE);
                }
                let in_region = resume.is_some_and(|resume| resume.done.is_some());
                if !t.exact.get() && !in_region {
                    return true;
                }
                t.hit.set(true);
            }
        }
        if let Some(to) = accessor {
            fault_frame::set_pc(cx, to);
        } else if let Some(resume) = resume {
            // SAFETY: the state of the generated code that was interrupted; nobody else uses it.
            let state = unsafe { &mut *t.state.get() };
            if resume.pc != FaultMap::CHECKPOINT {
                state.cells[CELL_PC as usize] = resume.pc;
            }
            state.engine[word::REASON] = REASON_FAULT;
            state.engine[word::A] = address as u64;
            state.engine[word::B] = resume.done.unwrap_or(0) as u64;
            fault_frame::leave_code(cx, state);
        }
        true
    })
}

/// Runs `f` with all signals but synchronous faults blocked, so that threads it starts inherit that.
pub(crate) fn without_signals<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: sets of locals, restored below.
    unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
            libc::sigdelset(&mut all, fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let result = f();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, null_mut());
        result
    }
}

/// A thread's alternate stack for handlers, with a guard page.
struct SignalStack {
    base: *mut libc::c_void,
}

const STACK_SIZE: usize = 64 << 10;
const GUARD_SIZE: usize = 4 << 10;

impl SignalStack {
    /// Gives this thread one, unless it has one that is large enough.
    fn install() {
        // SAFETY: queries and sets the calling thread's own alternate stack to fresh memory of ours.
        unsafe {
            let mut old: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(null(), &mut old);
            if old.ss_flags & libc::SS_DISABLE == 0 && old.ss_size >= STACK_SIZE {
                return;
            }
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let base = libc::mmap(null_mut(), GUARD_SIZE + STACK_SIZE, protection, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return;
            }
            libc::mprotect(base, GUARD_SIZE, libc::PROT_NONE);
            let stack = libc::stack_t {
                ss_sp: base.byte_add(GUARD_SIZE),
                ss_flags: 0,
                ss_size: STACK_SIZE,
            };
            if libc::sigaltstack(&stack, null_mut()) != 0 {
                libc::munmap(base, GUARD_SIZE + STACK_SIZE);
                return;
            }
            STACK.with(|s| s.set(Some(SignalStack { base })));
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the kernel stops using it before it goes, if it still does.
        unsafe {
            let mut now: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(null(), &mut now);
            if now.ss_sp == self.base.byte_add(GUARD_SIZE) {
                let off =
                    libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
                libc::sigaltstack(&off, null_mut());
            }
            libc::munmap(self.base, GUARD_SIZE + STACK_SIZE);
        }
    }
}
