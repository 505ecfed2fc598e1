//! x86-64: the float unit, the way into and out of generated code, and the thunks it calls.

use crate::trampoline::{eval_call, helper_call, mem_call};
use std::arch::{asm, naked_asm};
use tulk_base::CpuState;
use tulk_base::state::OFFSET_ENGINE;
use tulk_codegen::abi::{RBP_BIAS, word};
use tulk_ir::{FpEnv, FpFlags, Round};

/// Engine word that holds the stack pointer of [`enter`]'s frame while generated code runs.
pub const WORD_STACK: usize = word::DISPATCHER;
const STACK_OFFSET: i32 = OFFSET_ENGINE + 8 * WORD_STACK as i32;

/// The thread's SSE control and status register as the guest's float environment. Its flag bits are numbered as
/// [`FpFlags`]; all exceptions stay masked.
pub struct HostFp;

const FLAGS: u32 = 0x3f;
const DAZ: u32 = 1 << 6;
const MASKS: u32 = 0x3f << 7;
const ROUND_SHIFT: u32 = 13;
const FTZ: u32 = 1 << 15;

impl HostFp {
    #[inline]
    pub fn get() -> u32 {
        let mut csr = 0u32;
        // SAFETY: stores the register to a local.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut csr, options(nostack, preserves_flags)) };
        csr
    }
    /// Loads what `to` makes of the present value, if that is another: the load takes longer than the look.
    #[inline]
    fn change(to: impl FnOnce(u32) -> u32) {
        let now = HostFp::get();
        let new = to(now);
        if new != now {
            HostFp::set(new);
        }
    }
    /// Loads a value that came from [`HostFp::get`] or has its reserved bits clear and exceptions masked.
    #[inline]
    pub fn set(csr: u32) {
        // SAFETY: loads the register from a local. Rust code that runs meanwhile computes no floats that matter:
        // `Vcpu::run` restores the host's value when it returns.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &csr, options(nostack, preserves_flags, readonly)) };
    }
}

impl FpEnv for HostFp {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags((HostFp::get() & FLAGS) as u8)
    }
    fn set_fp_flags(&mut self, flags: FpFlags) {
        HostFp::change(|csr| csr & !FLAGS | flags.0 as u32 & FLAGS);
    }
    fn fp_round(&mut self) -> Round {
        match HostFp::get() >> ROUND_SHIFT & 3 {
            0 => Round::Nearest,
            1 => Round::Down,
            2 => Round::Up,
            _ => Round::Zero,
        }
    }
    fn set_fp_mode(&mut self, round: Round, daz: bool, ftz: bool) {
        let mode = match round {
            Round::Down => 1,
            Round::Up => 2,
            Round::Zero => 3,
            Round::Nearest | Round::Away | Round::Current => 0,
        };
        let flush = if daz { DAZ } else { 0 } | if ftz { FTZ } else { 0 };
        HostFp::change(|csr| csr & FLAGS | MASKS | mode << ROUND_SHIFT | flush);
    }
}

/// Starts to load a cache line; any address will do.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint that never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// A cheap clock in unknown but constant units.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Runs generated code at `code` on `state` until it returns.
///
/// # Safety
/// `code` is the entry of a live region, `state` has its engine words set up, and no reference to `state` is used
/// meanwhile.
#[unsafe(naked)]
pub unsafe extern "C" fn enter(state: *mut CpuState, code: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rdi + {stack}], rsp",
        "lea rbp, [rdi + {bias}]",
        "call rsi",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        stack = const STACK_OFFSET,
        bias = const RBP_BIAS,
    )
}

/// Where the signal handler sends a thread that faulted in generated code, with the stack pointer of
/// [`WORD_STACK`]: the second half of [`enter`].
#[unsafe(naked)]
unsafe extern "C" fn leave() {
    naked_asm!(
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Saves everything that a System V call may change (generated code uses the sixteen low halves of the vector
/// registers), calls `callee` with `rdi`, `rsi` and `rdx` as they are, and restores.
macro_rules! thunk {
    ($(#[$doc:meta])* $name:ident, $callee:path) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "push rax",
                "push rcx",
                "push rdx",
                "push rsi",
                "push rdi",
                "push r8",
                "push r9",
                "push r10",
                "push r11",
                "sub rsp, 264",
                "movaps [rsp], xmm0",
                "movaps [rsp + 16], xmm1",
                "movaps [rsp + 32], xmm2",
                "movaps [rsp + 48], xmm3",
                "movaps [rsp + 64], xmm4",
                "movaps [rsp + 80], xmm5",
                "movaps [rsp + 96], xmm6",
                "movaps [rsp + 112], xmm7",
                "movaps [rsp + 128], xmm8",
                "movaps [rsp + 144], xmm9",
                "movaps [rsp + 160], xmm10",
                "movaps [rsp + 176], xmm11",
                "movaps [rsp + 192], xmm12",
                "movaps [rsp + 208], xmm13",
                "movaps [rsp + 224], xmm14",
                "movaps [rsp + 240], xmm15",
                "call {callee}",
                "movaps xmm0, [rsp]",
                "movaps xmm1, [rsp + 16]",
                "movaps xmm2, [rsp + 32]",
                "movaps xmm3, [rsp + 48]",
                "movaps xmm4, [rsp + 64]",
                "movaps xmm5, [rsp + 80]",
                "movaps xmm6, [rsp + 96]",
                "movaps xmm7, [rsp + 112]",
                "movaps xmm8, [rsp + 128]",
                "movaps xmm9, [rsp + 144]",
                "movaps xmm10, [rsp + 160]",
                "movaps xmm11, [rsp + 176]",
                "movaps xmm12, [rsp + 192]",
                "movaps xmm13, [rsp + 208]",
                "movaps xmm14, [rsp + 224]",
                "movaps xmm15, [rsp + 240]",
                "add rsp, 264",
                "pop r11",
                "pop r10",
                "pop r9",
                "pop r8",
                "pop rdi",
                "pop rsi",
                "pop rdx",
                "pop rcx",
                "pop rax",
                "pop rbp",
                "ret",
                callee = sym $callee,
            )
        }
    };
}

thunk!(
    /// [`word::THUNK_HELPER`].
    ///
    /// # Safety
    /// For generated code only, by the convention of [`tulk_codegen::abi`].
    helper_thunk,
    helper_call
);
thunk!(
    /// [`word::THUNK_EVAL`].
    ///
    /// # Safety
    /// For generated code only, by the convention of [`tulk_codegen::abi`].
    eval_thunk,
    eval_call
);
thunk!(
    /// [`word::THUNK_MEM`].
    ///
    /// # Safety
    /// For generated code only, by the convention of [`tulk_codegen::abi`].
    mem_thunk,
    mem_call
);

/// The interrupted registers of a signal frame that matter here.
pub(crate) mod fault_frame {
    use super::{WORD_STACK, leave};
    use tulk_base::CpuState;

    pub fn pc(cx: &libc::ucontext_t) -> usize {
        cx.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
    }
    pub fn set_pc(cx: &mut libc::ucontext_t, pc: usize) {
        cx.uc_mcontext.gregs[libc::REG_RIP as usize] = pc as i64;
    }
    /// A page fault of a write.
    pub fn is_write(cx: &libc::ucontext_t) -> bool {
        const PAGE_FAULT: i64 = 14;
        cx.uc_mcontext.gregs[libc::REG_TRAPNO as usize] == PAGE_FAULT
            && cx.uc_mcontext.gregs[libc::REG_ERR as usize] & 2 != 0
    }
    /// Makes the interrupted generated code return to the caller of `enter`.
    pub fn leave_code(cx: &mut libc::ucontext_t, state: &CpuState) {
        cx.uc_mcontext.gregs[libc::REG_RSP as usize] = state.engine[WORD_STACK] as i64;
        set_pc(cx, leave as *const () as usize);
    }
}
