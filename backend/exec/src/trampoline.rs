//! Between Rust and generated code: entering a region, and what its thunks call. The assembly is in `host/`.
//!
//! While generated code runs it owns the [`CpuState`] through a raw pointer; Rust code that it calls gets exclusive
//! access for the duration of the call. Nothing unwinds through generated code: a panic in a callee aborts.

use crate::env::Env;
use crate::host;
use std::sync::atomic::{AtomicU32, Ordering};
use tulk_base::tlb::{MMU_MODES, itlb_index};
use tulk_base::{CpuState, Trap};
use tulk_codegen::abi::{self, JUMP_CACHE_ENTRIES, JumpEntry, MemAccess, word};
use tulk_ir::HelperCx;
use tulk_ir::interp::eval::{EvalOp, eval};
use tulk_ir::interp::{self, Program};

/// Engine word with the address of the vCPU's [`Env`].
const WORD_ENV: usize = word::DISPATCHER + 1;
/// The signal handler's own reason for leaving: a fault; [`abi::word::A`] is the host address. The pc cell is exact.
pub const REASON_FAULT: u64 = 0x100;

/// The table that generated code probes for computed jumps.
pub type JumpCache = Box<[JumpEntry; JUMP_CACHE_ENTRIES]>;

pub fn new_jump_cache() -> JumpCache {
    let entries: Box<[JumpEntry]> = host::zeroed_slice(JUMP_CACHE_ENTRIES);
    entries.try_into().expect("the length is the constant")
}

/// A processor's registers as its [`Env`] reaches them while somebody else runs on them: page walks read control registers,
/// flushes tell generated code where the tables are.
#[derive(Clone, Copy)]
pub struct StatePtr(*mut CpuState);

// SAFETY: it goes where its processor goes.
unsafe impl Send for StatePtr {}
// SAFETY: used by the thread that runs the processor only.
unsafe impl Sync for StatePtr {}

impl StatePtr {
    /// The state must stay where it is as long as the pointer is used: a [`crate::Vcpu`] owns both.
    pub fn new(state: &mut CpuState) -> StatePtr {
        StatePtr(state)
    }
    /// The registers as they are in memory. What walks read is written by helpers only, before they call anything.
    pub fn registers<'a>(self) -> &'a CpuState {
        // SAFETY: alive, see `new`. The thread that asks is the one that runs the processor: nobody writes meanwhile, and
        // the interpreter, which has the state borrowed mutably, keeps no register of its own over a call.
        unsafe { &*self.0 }
    }
    /// Where the tables of an MMU index are.
    pub fn set_tables(self, mmu: usize, mask: u64, table: u64, code: u64) {
        // SAFETY: as above; the words belong to generated code, Rust code does not look at them.
        unsafe {
            let words = &raw mut (*self.0).engine;
            (*words)[word::TLB + 2 * mmu] = mask;
            (*words)[word::TLB + 2 * mmu + 1] = table;
            (*words)[word::ITLB + mmu] = code;
        }
    }
}

/// The code page id that the processor's code TLB has for the page of `pc` now.
#[inline]
pub fn code_page(state: &CpuState, mmu: u8, pc: u64) -> u32 {
    let table = state.engine[word::ITLB + (mmu as usize & (MMU_MODES - 1))] as *const AtomicU32;
    if table.is_null() {
        return 0;
    }
    // SAFETY: the word names a table of `ITLB_ENTRIES` that lives as long as its TLB's owner does not move it, which tells
    // the word's writer before anybody runs on.
    unsafe { &*table.add(itlb_index(pc)) }.load(Ordering::Relaxed)
}

/// Points the engine words at a vCPU's own structures. They must stay where they are from here to the end of the last
/// [`enter`].
pub fn set_words(state: &mut CpuState, env: &mut Env, jumps: &mut JumpCache) {
    state.engine[word::THUNK_HELPER] = host::helper_thunk as *const () as u64;
    state.engine[word::THUNK_EVAL] = host::eval_thunk as *const () as u64;
    state.engine[word::THUNK_UNLINKED] = tulk_codegen::host::unlinked_thunk as *const () as u64;
    state.engine[word::THUNK_ENTRY] = tulk_codegen::host::entry_thunk as *const () as u64;
    state.engine[word::THUNK_STEP] = step_call as *const () as u64;
    state.engine[word::HELPERS] = env.engine.isa.helpers().as_ptr() as u64;
    state.engine[word::THUNK_MEM] = host::mem_thunk as *const () as u64;
    state.engine[word::MEM_BASE] = env.engine.mem.base() as u64;
    state.engine[word::JUMP_CACHE] = jumps.as_mut_ptr() as u64;
    state.engine[WORD_ENV] = std::ptr::from_mut(env) as u64;
}

/// Runs the code at `code` until generated code returns to the dispatcher, with the reason in the engine words.
/// `env` and `jumps` are what [`set_words`] was given; generated code uses them through `state`.
///
/// `code` must come from a block's code word read under the caller's guard, so that the code is alive.
#[inline]
pub fn enter(state: &mut CpuState, env: &mut Env, jumps: &mut JumpCache, code: u64) {
    debug_assert_eq!(state.engine[WORD_ENV], std::ptr::from_mut(env) as u64);
    debug_assert_eq!(state.engine[word::JUMP_CACHE], jumps.as_mut_ptr() as u64);
    // SAFETY: the code lives while the caller's guard does; the words are set; `state`, `env` and `jumps` are
    // borrowed mutably here and not used by Rust until the call returns, but for the callees below.
    unsafe { host::enter(state, code) };
}

/// Runs a row of the guest's helper table for generated code.
///
/// # Safety
/// Called by the helper thunk only, with the state that [`enter`] was given.
pub(crate) unsafe extern "C" fn helper_call(state: *mut CpuState, number: u64, imm: u64) {
    // SAFETY: generated code passes on its state and waits; the word was set by `enter`.
    let (state, env) = unsafe { (&mut *state, &mut *((*state).engine[WORD_ENV] as *mut Env)) };
    let helper = &env.engine.isa.helpers()[number as usize];
    let args = abi::helper_args(state, helper, imm);
    let result = (helper.func)(&mut HelperCx { state, env }, &args);
    match result {
        Ok(value) => {
            abi::set_result(state, value);
            state.engine[word::STATUS] = 0;
        }
        Err(trap) => {
            env.trap = Some(trap);
            state.engine[word::STATUS] = 1;
        }
    }
}

/// Evaluates a packed operation for generated code.
///
/// # Safety
/// Called by the eval thunk only, with the state that [`enter`] was given.
pub(crate) unsafe extern "C" fn eval_call(state: *mut CpuState, w0: u64, w1: u64) {
    // SAFETY: generated code passes on its state and waits.
    let state = unsafe { &mut *state };
    let value = eval(&EvalOp::from_words([w0, w1]), abi::eval_args(state), &mut host::HostFp);
    abi::set_result(state, value);
}

/// Runs a step of a block's program for baseline code.
///
/// # Safety
/// Called by baseline code only, with the state that [`enter`] was given and the program that it was compiled from.
unsafe extern "C" fn step_call(state: *mut CpuState, program: *const Program, index: u64) {
    // SAFETY: generated code passes on its state and waits; the word was set by `set_words`; the program belongs to
    // a block, which lives longer than its code.
    let (state, env, program) =
        unsafe { (&mut *state, &mut *((*state).engine[WORD_ENV] as *mut Env), &*program) };
    let helpers = env.engine.isa.helpers();
    let result = interp::step(program, index as u32, state, helpers, env);
    state.engine[word::STATUS] = result.is_err() as u64;
    env.trap = result.err();
}

/// Does an access to paged memory for generated code.
///
/// # Safety
/// Called by the memory thunk only, with the state that [`enter`] was given.
pub(crate) unsafe extern "C" fn mem_call(state: *mut CpuState, access: u64, pc: u64) {
    // SAFETY: generated code passes on its state and waits; the word was set by `set_words`.
    let (state, env) = unsafe { (&mut *state, &mut *((*state).engine[WORD_ENV] as *mut Env)) };
    state.set_pc(pc);
    let result = abi::mem_access(state, env, MemAccess::from_word(access));
    state.engine[word::STATUS] = result.is_err() as u64;
    env.trap = result.err().map(Trap::Mem);
}
