//! Executes regions for real: guest memory on host pages, SIGSEGV to guest faults, thunks in assembly.
//!
//! Everything is process-wide (memory at fixed addresses, a signal handler), so runs hold one lock.

use super::reference::Reference;
use std::arch::{asm, naked_asm};
use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use tulk_base::state::CELL_PC;
use tulk_base::tlb::{ITLB_ENTRIES, MMU_MODES, TLB_ENTRY_LOG2, TlbEntry};
use tulk_base::{AccessKind, CpuState, FaultCause, GuestVa, MemFault, Trap};
use tulk_codegen::abi::{self, JumpEntry, MemAccess, Reason, word};
use tulk_codegen::baseline::{Baseline, Input, Profile};
use tulk_codegen::code_memory::{CodeBlock, CodeMemory};
use tulk_codegen::{
    Compiler, Edge, EdgeKind, FaultMap, MemoryModel, Options, PageCheck, Region, RegionInput,
    Target, host,
};
use tulk_ir::filetest::env::{HELPERS, TestEnv, layout};
use tulk_ir::filetest::{Outcome, Runner};
use tulk_ir::interp::eval::{EvalOp, eval};
use tulk_ir::interp::{self, Program};
use tulk_ir::op::effect;
use tulk_ir::passes::{PassConfig, optimize};
use tulk_ir::{ExitKind, FpFlags, HelperCx, Inst, Op, RegLayout, Round, Type, Unit};

const PAGES: u64 = 0x10000;
const PAGES_LEN: usize = 0x3000;
/// Key flags that no test uses: an indirect exit with these keeps the unit's flags.
pub const OWN_FLAGS: u64 = 0x5ca1_ab1e;

static LOCK: Mutex<()> = Mutex::new(());
static SETUP: Once = Once::new();
/// Host address of guest address 0 in the based model.
static BASE: AtomicU64 = AtomicU64::new(0);
/// Host address of the test pages in the current run.
static HOST: AtomicU64 = AtomicU64::new(0);
static SAVED_SP: AtomicU64 = AtomicU64::new(0);
static CODE_START: AtomicU64 = AtomicU64::new(0);
static CODE_END: AtomicU64 = AtomicU64::new(0);
/// Host pc (0: none), address, si_code, error code of the last fault in generated code.
static FAULT: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

struct Current(UnsafeCell<Option<TestEnv>>, UnsafeCell<Option<Trap>>);
// SAFETY: only touched while LOCK is held.
unsafe impl Sync for Current {}
static CURRENT: Current = Current(UnsafeCell::new(None), UnsafeCell::new(None));

#[unsafe(naked)]
extern "sysv64" fn enter(env: *mut CpuState, code: usize) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "sub rsp, 8",
        "mov [rip + {sp}], rsp",
        "lea rbp, [rdi + {bias}]",
        "call rsi",
        "jmp {out}",
        sp = sym SAVED_SP, out = sym recover, bias = const abi::RBP_BIAS,
    )
}

#[unsafe(naked)]
extern "sysv64" fn recover() {
    naked_asm!(
        "mov rsp, [rip + {sp}]",
        "add rsp, 8",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        sp = sym SAVED_SP,
    )
}

macro_rules! thunk {
    ($name:ident, $target:ident) => {
        #[unsafe(naked)]
        extern "sysv64" fn $name() {
            naked_asm!(
                "push rax", "push rcx", "push rdx", "push rsi", "push rdi",
                "push r8", "push r9", "push r10", "push r11",
                "sub rsp, 256",
                "movups [rsp], xmm0", "movups [rsp + 16], xmm1",
                "movups [rsp + 32], xmm2", "movups [rsp + 48], xmm3",
                "movups [rsp + 64], xmm4", "movups [rsp + 80], xmm5",
                "movups [rsp + 96], xmm6", "movups [rsp + 112], xmm7",
                "movups [rsp + 128], xmm8", "movups [rsp + 144], xmm9",
                "movups [rsp + 160], xmm10", "movups [rsp + 176], xmm11",
                "movups [rsp + 192], xmm12", "movups [rsp + 208], xmm13",
                "movups [rsp + 224], xmm14", "movups [rsp + 240], xmm15",
                "call {target}",
                "movups xmm0, [rsp]", "movups xmm1, [rsp + 16]",
                "movups xmm2, [rsp + 32]", "movups xmm3, [rsp + 48]",
                "movups xmm4, [rsp + 64]", "movups xmm5, [rsp + 80]",
                "movups xmm6, [rsp + 96]", "movups xmm7, [rsp + 112]",
                "movups xmm8, [rsp + 128]", "movups xmm9, [rsp + 144]",
                "movups xmm10, [rsp + 160]", "movups xmm11, [rsp + 176]",
                "movups xmm12, [rsp + 192]", "movups xmm13, [rsp + 208]",
                "movups xmm14, [rsp + 224]", "movups xmm15, [rsp + 240]",
                "add rsp, 256",
                "pop r11", "pop r10", "pop r9", "pop r8",
                "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax",
                "ret",
                target = sym $target,
            )
        }
    };
}
thunk!(helper_thunk, run_helper);
thunk!(eval_thunk, run_eval);
thunk!(mem_thunk, run_mem);

thread_local! {
    /// How often this thread's generated code called the memory thunk.
    pub static MEMORY_CALLS: Cell<u32> = const { Cell::new(0) };
    /// Whether that makes all accesses slow, as if it changed all mappings.
    pub static MEMORY_FORGETS: Cell<bool> = const { Cell::new(false) };
}

/// The memory thunk: on the environment's memory.
extern "sysv64" fn run_mem(state: *mut CpuState, access: u64, pc: u64) {
    // SAFETY: called from generated code with the state of the run, under LOCK.
    let (state, env, trap) = unsafe { (&mut *state, &mut *CURRENT.0.get(), &mut *CURRENT.1.get()) };
    let env = env.as_mut().expect("a run is on");
    state.set_pc(pc);
    copy_pages(env, false);
    let result = abi::mem_access(state, env, MemAccess::from_word(access));
    copy_pages(env, true);
    MEMORY_CALLS.set(MEMORY_CALLS.get() + 1);
    if MEMORY_FORGETS.get() {
        // SAFETY: the machine's table, of this many entries, see `prepare`.
        let table = unsafe { &*(state.engine[word::TLB + 1] as *const [TlbEntry; 8]) };
        for entry in table {
            entry.read.store(u64::MAX, SeqCst);
            entry.write.store(u64::MAX, SeqCst);
        }
    }
    state.engine[word::STATUS] = result.is_err() as u64;
    if let Err(fault) = result {
        *trap = Some(Trap::Mem(fault));
    }
}

/// The data TLB of paged runs: of the three test pages the first is fast, the second only for loads, the third for loads
/// as that is all it allows.
fn tlb_table(host: u64) -> Box<[TlbEntry]> {
    let table: Box<[TlbEntry]> = (0..8)
        .map(|_| TlbEntry {
            read: AtomicU64::new(u64::MAX),
            write: AtomicU64::new(u64::MAX),
            addend: AtomicU64::new(0),
            page: AtomicU64::new(0),
        })
        .collect();
    for (page, write) in
        [(PAGES, PAGES), (PAGES + 0x1000, PAGES + 0x1001), (PAGES + 0x2000, u64::MAX)]
    {
        let entry = &table[(page >> 12) as usize & 7];
        entry.read.store(page, SeqCst);
        entry.write.store(write, SeqCst);
        entry.addend.store(host - PAGES, SeqCst);
    }
    table
}

extern "sysv64" fn run_helper(state: *mut CpuState, number: u64, imm: u64) {
    // SAFETY: called from generated code with the state of the run, under LOCK.
    let (state, env, trap) = unsafe { (&mut *state, &mut *CURRENT.0.get(), &mut *CURRENT.1.get()) };
    let helper = &HELPERS[number as usize];
    let args = abi::helper_args(state, helper, imm);
    let env = env.as_mut().expect("a run is on");
    // Helpers work on the environment's memory, generated code on the pages.
    copy_pages(env, false);
    let result = (helper.func)(&mut HelperCx { state, env }, &args);
    copy_pages(env, true);
    state.engine[word::STATUS] = result.is_err() as u64;
    match result {
        Ok(value) => abi::set_result(state, value),
        Err(t) => *trap = Some(t),
    }
}

/// The step thunk: an ordinary function.
extern "sysv64" fn run_step(state: *mut CpuState, program: *const Program, index: u64) {
    // SAFETY: as above; the program outlives its code's runs.
    let (state, program) = unsafe { (&mut *state, &*program) };
    // SAFETY: as above.
    let (env, trap) = unsafe { (&mut *CURRENT.0.get(), &mut *CURRENT.1.get()) };
    let env = env.as_mut().expect("a run is on");
    copy_pages(env, false);
    let result = interp::step(program, index as u32, state, HELPERS, env);
    copy_pages(env, true);
    state.engine[word::STATUS] = result.is_err() as u64;
    if let Err(t) = result {
        *trap = Some(t);
    }
    clobber();
}

/// Leaves junk in the registers that a System V call may change.
#[unsafe(naked)]
extern "sysv64" fn clobber() {
    naked_asm!(
        "mov rax, 0x5a5a5a5a5a5a5a5a",
        "mov rcx, rax",
        "mov rdx, rax",
        "mov rsi, rax",
        "mov rdi, rax",
        "mov r8, rax",
        "mov r9, rax",
        "mov r10, rax",
        "mov r11, rax",
        "movq xmm0, rax",
        "movq xmm1, rax",
        "movq xmm2, rax",
        "movq xmm3, rax",
        "movq xmm4, rax",
        "movq xmm5, rax",
        "movq xmm6, rax",
        "movq xmm7, rax",
        "movq xmm8, rax",
        "movq xmm9, rax",
        "movq xmm10, rax",
        "movq xmm11, rax",
        "movq xmm12, rax",
        "movq xmm13, rax",
        "movq xmm14, rax",
        "movq xmm15, rax",
        "ret",
    )
}

/// Copies the environment's memory to the host pages, or back.
fn copy_pages(env: &mut TestEnv, to_host: bool) {
    for r in &mut env.regions {
        let host = (HOST.load(SeqCst) + r.start - PAGES) as *mut u8;
        // SAFETY: the test regions lie in the test pages; read-only ones are only read.
        unsafe {
            if !to_host {
                std::ptr::copy_nonoverlapping(host, r.data.as_mut_ptr(), r.data.len());
            } else if r.writable {
                std::ptr::copy_nonoverlapping(r.data.as_ptr(), host, r.data.len());
            }
        }
    }
}

extern "sysv64" fn run_eval(state: *mut CpuState, w0: u64, w1: u64) {
    // SAFETY: as above.
    let (state, env) = unsafe { (&mut *state, &mut *CURRENT.0.get()) };
    let op = EvalOp::from_words([w0, w1]);
    let env = env.as_mut().expect("a run is on");
    let value = eval(&op, abi::eval_args(state), env);
    abi::set_result(state, value);
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes valid pointers.
    unsafe {
        let context = &mut *(context as *mut libc::ucontext_t);
        let regs = &mut context.uc_mcontext.gregs;
        let pc = regs[libc::REG_RIP as usize] as u64;
        if !(CODE_START.load(SeqCst)..CODE_END.load(SeqCst)).contains(&pc) {
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        let values = [
            pc,
            (*info).si_addr() as u64,
            (*info).si_code as u64,
            regs[libc::REG_ERR as usize] as u64,
        ];
        for (slot, value) in FAULT.iter().zip(values) {
            slot.store(value, SeqCst);
        }
        regs[libc::REG_RIP as usize] = recover as *const () as i64;
    }
}

fn setup() {
    SETUP.call_once(|| {
        // SAFETY: fixed mappings at addresses that nothing uses, and a handler that passes on what is not ours.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
            let map = |at: u64| {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
                let prot = libc::PROT_READ | libc::PROT_WRITE;
                let p = libc::mmap(at as *mut _, PAGES_LEN, prot, flags, -1, 0);
                assert_eq!(p as u64, at, "guest pages");
            };
            map(PAGES);
            let base = 0x2000_0000_0000u64;
            map(base + PAGES);
            BASE.store(base, SeqCst);
        }
    });
}

/// Runs `f` with the host's float unit in the mode of `env`; adds the flags that it raised.
pub fn with_float_unit<R>(env: &mut TestEnv, f: impl FnOnce(&mut TestEnv) -> R) -> R {
    let mode = match env.round {
        Round::Down => 1,
        Round::Up => 2,
        Round::Zero => 3,
        _ => 0,
    };
    let set: u32 = 0x1f80 | mode << 13;
    let (mut old, mut new) = (0u32, 0u32);
    // SAFETY: the mask bits stay set: nothing traps. Restored below.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &mut old);
        asm!("ldmxcsr [{}]", in(reg) &set);
    }
    let result = std::hint::black_box(f)(std::hint::black_box(env));
    // SAFETY: as above.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &mut new);
        asm!("ldmxcsr [{}]", in(reg) &old);
    }
    let bits = [
        FpFlags::INVALID,
        FpFlags::DENORMAL,
        FpFlags::DIV_ZERO,
        FpFlags::OVERFLOW,
        FpFlags::UNDERFLOW,
        FpFlags::INEXACT,
    ];
    let raised = bits.iter().enumerate().map(|(i, b)| if new >> i & 1 != 0 { *b } else { 0 });
    env.flags = FpFlags(raised.fold(env.flags.0, |a, b| a | b));
    result
}

/// A region in code memory.
pub struct Placed {
    pub region: Region,
    pub block: CodeBlock,
    pub address: usize,
}

/// The address of the record of an edge.
pub fn edge(placed: &Placed, pc: u64, kind: EdgeKind) -> usize {
    let find = |e: &&Edge| e.pc == pc && e.kind == kind;
    let edge = placed.region.edges.iter().find(find).expect("an edge");
    placed.address + edge.offset as usize
}

impl Placed {
    /// The edge whose record is at this address.
    pub fn edge_at(&self, record: u64) -> &Edge {
        let at = |e: &&Edge| self.address + e.offset as usize == record as usize;
        self.region.edges.iter().find(at).expect("an edge record")
    }
}

/// How a run of regions ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Left {
    Poll,
    Hot,
    Page,
    /// Unlinked edge: its address.
    Direct(u64),
    Indirect {
        flags: u64,
    },
    Resync,
    Trap(Trap),
    /// A host fault; `known` false when the host does not tell the address.
    Fault {
        fault: MemFault,
        known: bool,
        host_pc: u64,
    },
}

/// Who compiles the units of [`Runner::run`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    Baseline,
    Cranelift,
}

pub struct Machine {
    pub tier: Tier,
    pub compiler: Compiler,
    pub baseline: Baseline,
    /// Passes that units go through before the baseline compiler.
    pub passes: Option<PassConfig>,
    /// What baseline code counts: executions, and direct exits 0 and 1.
    pub counters: Box<[u32; 5]>,
    pub memory: CodeMemory,
    pub model: MemoryModel,
    pub precise: bool,
    pub layout: RegLayout,
    pub cache: Vec<JumpEntry>,
    pub tlb: Box<[TlbEntry]>,
    /// The code TLB of all MMU indexes.
    pub itlb: Vec<u32>,
    /// What the next compilation demands of its pages.
    pub pages: Vec<PageCheck>,
    /// Where its computed exits probably lead.
    pub targets: Vec<Target>,
    /// Rounding mode of runs, if not the environment's.
    pub round: Option<Round>,
    /// The last run ended in a fault whose address the host did not tell or that does not come back the same, see
    /// [`interrupted`].
    pub unknown_fault: bool,
    /// How many writes behind the checkpoint were done when the last run ended in a fault.
    pub done: u8,
}

impl Machine {
    pub fn new(options: Options, model: MemoryModel, precise: bool) -> Machine {
        setup();
        Machine {
            tier: Tier::Cranelift,
            compiler: Compiler::new(options).unwrap(),
            baseline: Baseline::new().unwrap(),
            passes: None,
            counters: Box::default(),
            memory: CodeMemory::new(64 << 20).unwrap(),
            model,
            precise,
            layout: layout(),
            cache: vec![JumpEntry::default(); abi::JUMP_CACHE_ENTRIES],
            tlb: tlb_table(BASE.load(SeqCst) + PAGES),
            itlb: vec![0; ITLB_ENTRIES],
            pages: Vec::new(),
            targets: Vec::new(),
            round: None,
            unknown_fault: false,
            done: 0,
        }
    }

    /// As [`Machine::new`], with the baseline compiler.
    pub fn baseline(model: MemoryModel) -> Machine {
        Machine { tier: Tier::Baseline, ..Machine::new(Options::default(), model, true) }
    }

    /// Baseline code of a program, which must live as long as that.
    pub fn compile_baseline(&mut self, unit: &Unit, program: &Program, limit: u32) -> Region {
        self.counters[0] = Profile::LIMIT - limit;
        let [runs, edges @ ..] = [0, 1, 2, 3, 4].map(|n| &raw const self.counters[n] as u64);
        let profile = Some(Profile { runs, edges });
        let (pc, flags, insns) = (unit.pc, unit.flags, unit.guest_insns);
        let page = self.pages.first().copied();
        let input =
            Input { program, pc, flags, insns, mem: self.model, profile, page, second: None };
        self.baseline.compile(&input).unwrap()
    }

    pub fn compile(&mut self, units: &[&Unit]) -> Region {
        let input = RegionInput {
            units,
            layout: &self.layout,
            helpers: HELPERS,
            mem: self.model,
            precise: self.precise,
            pages: &self.pages,
            targets: &self.targets,
        };
        let region = self.compiler.compile(&input).unwrap_or_else(|e| {
            let text: String = units.iter().map(|u| u.display(&self.layout).to_string()).collect();
            panic!("{e}\n{text}")
        });
        if let Some(listing) = &region.listing {
            println!("{}\n{}", listing.clif, listing.asm);
        }
        region
    }

    pub fn place(&mut self, region: Region) -> Placed {
        let block = self.memory.allocate(&region.bytes).expect("code memory");
        let address = self.memory.address(&block);
        Placed { region, block, address }
    }

    fn prepare(&self, state: &mut CpuState) {
        state.engine[word::THUNK_HELPER] = helper_thunk as *const () as u64;
        state.engine[word::THUNK_EVAL] = eval_thunk as *const () as u64;
        state.engine[word::THUNK_UNLINKED] = host::unlinked_thunk as *const () as u64;
        state.engine[word::THUNK_ENTRY] = host::entry_thunk as *const () as u64;
        state.engine[word::THUNK_STEP] = run_step as *const () as u64;
        state.engine[word::HELPERS] = HELPERS.as_ptr() as u64;
        state.engine[word::THUNK_MEM] = mem_thunk as *const () as u64;
        for mmu in 0..MMU_MODES {
            state.engine[word::TLB + 2 * mmu] = 7 << TLB_ENTRY_LOG2;
            state.engine[word::TLB + 2 * mmu + 1] = self.tlb.as_ptr() as u64;
            state.engine[word::ITLB + mmu] = self.itlb.as_ptr() as u64;
        }
        state.engine[word::MEM_BASE] = BASE.load(SeqCst);
        state.engine[word::JUMP_CACHE] = self.cache.as_ptr() as u64;
    }

    fn host_pages(&self) -> u64 {
        PAGES + if self.model != MemoryModel::Flat { BASE.load(SeqCst) } else { 0 }
    }

    /// Runs code at `address` with guest memory as in `env`.
    pub fn run_code(&mut self, address: usize, state: &mut CpuState, env: &mut TestEnv) -> Left {
        let guard: MutexGuard<'_, ()> = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        self.prepare(state);
        let range = self.memory.range();
        CODE_START.store(range.start as u64, SeqCst);
        CODE_END.store(range.end as u64, SeqCst);
        FAULT[0].store(0, SeqCst);
        state.engine[word::REASON] = 0;
        let host = self.host_pages();
        HOST.store(host, SeqCst);
        let protect = |start: u64, len: usize, prot| {
            // SAFETY: our own test pages.
            unsafe { assert_eq!(libc::mprotect((host - PAGES + start) as *mut _, len, prot), 0) };
        };
        protect(PAGES, PAGES_LEN, libc::PROT_READ | libc::PROT_WRITE);
        for r in &env.regions {
            // SAFETY: the test regions lie in the test pages.
            unsafe {
                let to = (host - PAGES + r.start) as *mut u8;
                std::ptr::copy_nonoverlapping(r.data.as_ptr(), to, r.data.len());
            }
            if !r.writable {
                protect(r.start, r.data.len(), libc::PROT_READ);
            }
        }
        // SAFETY: under LOCK.
        unsafe { *CURRENT.0.get() = Some(env.clone()) };
        with_float_unit(env, |_| enter(state, address));
        // SAFETY: under LOCK.
        let (inner, trap) = unsafe { ((*CURRENT.0.get()).take(), (*CURRENT.1.get()).take()) };
        let inner = inner.expect("a run was on");
        env.flags.0 |= inner.flags.0;
        copy_pages(env, false);
        let [pc, address, code, error] = [0, 1, 2, 3].map(|i| FAULT[i].load(SeqCst));
        drop(guard);
        if pc != 0 {
            let fault = MemFault {
                va: GuestVa(address.wrapping_sub(host - PAGES)),
                kind: if error & 2 != 0 { AccessKind::Write } else { AccessKind::Read },
                cause: if code == 2 { FaultCause::Protection } else { FaultCause::Unmapped },
            };
            return Left::Fault { fault, known: code < 0x80, host_pc: pc };
        }
        let [a, b] = [word::A, word::B].map(|w| state.engine[w]);
        match Reason::from_word(state.engine[word::REASON]).expect("a reason") {
            Reason::Poll => Left::Poll,
            Reason::Hot => Left::Hot,
            Reason::Direct => Left::Direct(a),
            Reason::Indirect => Left::Indirect { flags: a },
            Reason::Resync => Left::Resync,
            Reason::Page => Left::Page,
            Reason::Trap => Left::Trap(ExitKind::from_u8(a as u8).trap(b as u32).expect("a trap")),
            Reason::HelperTrap => Left::Trap(trap.expect("the helper's trap")),
            Reason::Misaligned => Left::Trap(Trap::Mem(MemFault {
                va: GuestVa(a),
                kind: if b != 0 { AccessKind::Write } else { AccessKind::Read },
                cause: FaultCause::Align,
            })),
        }
    }

    /// Runs one region; faults become traps with the pc cell set from the fault map.
    pub fn run_region(&mut self, placed: &Placed, state: &mut CpuState, env: &mut TestEnv) -> Left {
        let left = self.run_code(placed.address, state, env);
        self.unknown_fault = matches!(left, Left::Fault { known: false, .. });
        if let Left::Fault { fault, host_pc, .. } = left {
            let offset = host_pc - placed.address as u64;
            let resume = placed.region.fault_map.lookup(offset as u32).expect("pc of a fault");
            if resume.pc != FaultMap::CHECKPOINT {
                state.cells[CELL_PC as usize] = resume.pc;
            }
            self.done = resume.done.unwrap_or(0);
            return Left::Trap(Trap::Mem(fault));
        }
        left
    }

    pub fn free(&mut self, placed: Placed) {
        self.memory.free(placed.block);
    }
}

/// True when the guest instruction at `pc` may fault behind something that can neither be repeated nor left out, which then is
/// done twice: no lifter writes such, except for stores, of which an integer of 128 bits is two.
pub fn interrupted(unit: &Unit, pc: u64) -> bool {
    let start = unit.insts.iter().rposition(|i| i.op == Op::Insn && i.imm as u64 == pc);
    let own = unit.insts[start.map_or(0, |n| n + 1)..].iter().take_while(|i| i.op != Op::Insn);
    let (mut read, mut done) = (false, false);
    own.into_iter().any(|i| {
        let faults = i.op.info().effects & effect::FAULT != 0 && i.op != Op::Call;
        let halves = i.op == Op::Store && i.ty == Type::I128;
        let cut = faults && done || halves;
        read |= i.op == Op::Load;
        done |= !i.repeatable(HELPERS) && (read || i.op != Op::Store);
        cut
    })
}

/// The accesses of the guest instruction at `pc`.
fn memory_ops(unit: &Unit, pc: u64) -> Vec<&Inst> {
    let mut at = unit.pc;
    let accesses = unit.insts.iter().filter(|i| {
        if i.op == Op::Insn {
            at = i.imm as u64;
        }
        at == pc && matches!(i.op, Op::Load | Op::Store | Op::AtomicRmw | Op::AtomicCas)
    });
    accesses.collect()
}

impl Runner for Machine {
    fn run(&mut self, unit: &Unit, state: &mut CpuState, env: &mut TestEnv) -> Outcome {
        let mut unit = Unit { flags: OWN_FLAGS, ..unit.clone() };
        if let Some(passes) = &self.passes {
            optimize(&mut unit, &self.layout, HELPERS, passes);
        }
        env.round = self.round.unwrap_or(env.round);
        // Where the steps can find it.
        let program = Program::new(&unit, &self.layout, HELPERS);
        let region = match self.tier {
            Tier::Cranelift => self.compile(&[&unit]),
            Tier::Baseline => self.compile_baseline(&unit, &program, Profile::LIMIT),
        };
        let placed = self.place(region);
        let (mut first_state, mut first_env) = (CpuState::new(), env.clone());
        first_state.cells.copy_from_slice(&state.cells);
        let mut left = self.run_region(&placed, state, env);
        if self.model == MemoryModel::Paged
            || matches!(left, Left::Trap(Trap::Mem(MemFault { cause: FaultCause::Align, .. })))
        {
        } else if let (Left::Trap(Trap::Mem(fault)), Tier::Baseline) = (&mut left, self.tier) {
            // A read-modify-write may fault at its read; for the guest it is a write.
            let ops = memory_ops(&unit, state.pc());
            if ops.iter().all(|i| i.op != Op::Load) {
                fault.kind = AccessKind::Write;
            } else if ops.iter().any(|i| matches!(i.op, Op::AtomicRmw | Op::AtomicCas)) {
                self.unknown_fault = true;
            }
            // An integer of 128 bits is stored in halves, of which the second may fault.
            self.unknown_fault |= ops.iter().any(|i| i.op == Op::Store && i.ty == Type::I128);
        } else if let Left::Trap(Trap::Mem(_)) = left {
            // The plain walk takes over at the checkpoint, where it has been itself.
            self.free(placed);
            let mut reference = Reference::new();
            reference.run(&unit, &mut first_state, &mut first_env);
            self.unknown_fault |= interrupted(&unit, state.pc());
            return reference.resume(&unit, state, env, self.done);
        }
        let flags = |flags| (flags != OWN_FLAGS).then_some(flags);
        let outcome = match left {
            Left::Poll | Left::Hot | Left::Page => panic!("nobody asked to leave"),
            Left::Direct(record) => {
                let own = flags(placed.edge_at(record).flags);
                Outcome::Exit { pc: state.pc(), flags: own, hint: None }
            }
            Left::Indirect { flags: f } => {
                Outcome::Exit { pc: state.pc(), flags: flags(f), hint: None }
            }
            Left::Resync => Outcome::Exit { pc: state.pc(), flags: None, hint: None },
            Left::Trap(trap) => Outcome::Trap(trap),
            Left::Fault { .. } => unreachable!("run_region maps faults"),
        };
        self.free(placed);
        outcome
    }
    fn has_float_environment(&self) -> bool {
        true
    }
}
