//! Runs cases on the host processor, in a child process.
//!
//! The child loads all registers and jumps to the code with a far jump, which also selects 16-, 32- or 64-bit code.
//! Every case ends in a signal: that of the breakpoint behind the code, or of a fault; the handler takes the registers
//! from the signal frame. Descriptors in the LDT provide 16-bit code and segments with a base.

use super::case::*;
use std::arch::{asm, global_asm};
use std::mem::size_of;
use std::ptr;
use std::sync::{Mutex, OnceLock};
use tulk_x86::cpuid::Word;
use tulk_x86::{CpuModel, Feature, Features};

global_asm!(
    ".globl tulk_test_enter",
    "tulk_test_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + tulk_test_rsp], rsp",
    "mov eax, 7",
    "xor edx, edx",
    "xrstor64 [rdi]",
    // Offset and selector of the code.
    "mov eax, [rdi + {rip}]",
    "mov [rip + tulk_test_target], eax",
    "mov [rip + tulk_test_target + 4], si",
    // Data segments, which 64-bit code does not need.
    "mov eax, 0x2b",
    "cmp esi, 0x33",
    "je 2f",
    "mov ds, eax",
    "mov es, eax",
    "mov eax, {gs}",
    "mov gs, eax",
    "2:",
    "cmp esi, 0x33",
    "jne 3f",
    "mov rax, [rdi + {gs_base}]",
    "wrgsbase rax",
    "mov rax, [rdi + {fs_base}]",
    "wrfsbase rax",
    "3:",
    "push qword ptr [rdi + {rflags}]",
    "popfq",
    "mov rax, [rdi + {gpr}]",
    "mov rcx, [rdi + {gpr} + 8]",
    "mov rdx, [rdi + {gpr} + 16]",
    "mov rbx, [rdi + {gpr} + 24]",
    "mov rsp, [rdi + {gpr} + 32]",
    "mov rbp, [rdi + {gpr} + 40]",
    "mov rsi, [rdi + {gpr} + 48]",
    "mov r8, [rdi + {gpr} + 64]",
    "mov r9, [rdi + {gpr} + 72]",
    "mov r10, [rdi + {gpr} + 80]",
    "mov r11, [rdi + {gpr} + 88]",
    "mov r12, [rdi + {gpr} + 96]",
    "mov r13, [rdi + {gpr} + 104]",
    "mov r14, [rdi + {gpr} + 112]",
    "mov r15, [rdi + {gpr} + 120]",
    "mov rdi, [rdi + {gpr} + 56]",
    "jmp fword ptr [rip + tulk_test_target]",
    ".globl tulk_test_leave",
    "tulk_test_leave:",
    "rdfsbase rcx",
    "xor eax, eax",
    "mov ds, eax",
    "mov es, eax",
    "mov gs, eax",
    "mov fs, eax",
    "wrfsbase rcx",
    "fninit",
    "ldmxcsr [rip + tulk_test_mxcsr]",
    "vzeroupper",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".data",
    ".balign 16",
    ".globl tulk_test_rsp",
    "tulk_test_rsp: .quad 0",
    "tulk_test_target: .quad 0",
    "tulk_test_mxcsr: .long 0x1f80",
    ".text",
    rip = const std::mem::offset_of!(Registers, rip),
    gpr = const std::mem::offset_of!(Registers, gpr),
    rflags = const std::mem::offset_of!(Registers, rflags),
    fs_base = const std::mem::offset_of!(Registers, fs_base),
    gs_base = const std::mem::offset_of!(Registers, gs_base),
    gs = const DATA_GS,
);

unsafe extern "C" {
    fn tulk_test_enter(regs: *const Registers, selector: u32);
    fn tulk_test_leave();
    static tulk_test_rsp: u64;
}

/// Where the handler writes, and the FS base of the host's own code. Used by the child only.
static mut OUTCOME: *mut Registers = ptr::null_mut();
static mut HOST_FS: u64 = 0;

extern "C" fn handler(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: runs in the child, which has one thread; the kernel passes valid pointers; the FS base is put
    // back before anything could use thread-local storage.
    unsafe {
        let (fs, gs): (u64, u64);
        // Code may have set AC.
        asm!("pushfq", "and qword ptr [rsp], ~0x40000", "popfq");
        asm!("rdfsbase {0}", "rdgsbase {1}", "wrfsbase {2}", out(reg) fs, out(reg) gs, in(reg) HOST_FS);
        let out = &mut *OUTCOME;
        let context = &mut *(context as *mut libc::ucontext_t);
        let g = &mut context.uc_mcontext.gregs;
        use libc::*;
        let order = [
            REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9,
            REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
        ];
        for (n, r) in order.into_iter().enumerate() {
            out.gpr[n] = g[r as usize] as u64;
        }
        out.rflags = g[REG_EFL as usize] as u64;
        out.rip = g[REG_RIP as usize] as u64;
        out.trap = g[REG_TRAPNO as usize] as u64;
        out.error = g[REG_ERR as usize] as u64;
        out.address = g[REG_CR2 as usize] as u64;
        out.fs_base = fs;
        out.gs_base = gs;
        out.signal = number as u64;
        out.si_code = (*info).si_code as u64;
        let image = context.uc_mcontext.fpregs as *const u8;
        ptr::copy_nonoverlapping(image, out.xsave.as_mut_ptr(), 832);
        g[REG_RIP as usize] = tulk_test_leave as *const () as i64;
        g[REG_RSP as usize] = tulk_test_rsp as i64;
        g[REG_EFL as usize] = 0x202;
        let selectors = g[REG_CSGSFS as usize];
        out.cs = selectors as u64 & 0xffff;
        g[REG_CSGSFS as usize] = selectors & 0x0000_ffff_ffff_0000 | 0x33 | 0x2b << 48;
    }
}

/// Parts of the image that are in their initial state hold anything.
fn normalize(r: &mut Registers) {
    let bv = r.xsave[512];
    if bv & 1 == 0 {
        let (mxcsr, mask) = (r.u32(24), r.u32(28));
        r.xsave[..160].fill(0);
        r.set_u16(0, 0x37f);
        r.set_u32(24, mxcsr);
        r.set_u32(28, mask);
    }
    if bv & 2 == 0 {
        r.xsave[160..416].fill(0);
    }
    if bv & 4 == 0 {
        r.xsave[576..832].fill(0);
    }
}

/// The host as a model: everything that both have, with the quirks of its maker.
pub fn model() -> CpuModel {
    use std::arch::x86_64::__cpuid_count as cpuid;
    let max = CpuModel::by_name("max").expect("a model");
    let amd = cpuid(0, 0).ebx == u32::from_le_bytes(*b"Auth");
    let chip = if amd { CpuModel::by_name("EPYC").expect("a model") } else { max };
    let has = |f: Feature| {
        let (word, bit) = f.bit();
        let value = match word {
            Word::L1Ecx => cpuid(1, 0).ecx,
            Word::L1Edx => cpuid(1, 0).edx,
            Word::L7Ebx => cpuid(7, 0).ebx,
            Word::L7Ecx => cpuid(7, 0).ecx,
            Word::L7Edx => cpuid(7, 0).edx,
            Word::L7C2Edx => cpuid(7, 2).edx,
            Word::D1Eax => cpuid(0xd, 1).eax,
            Word::E1Ecx => cpuid(0x8000_0001, 0).ecx,
            Word::E1Edx => cpuid(0x8000_0001, 0).edx,
            Word::E8Ebx => cpuid(0x8000_0008, 0).ebx,
        };
        value >> bit & 1 != 0
    };
    let shared: Vec<Feature> = max.features.iter().filter(|&f| has(f)).collect();
    CpuModel { chip: chip.chip, features: Features::of(&shared) }
}

#[repr(C)]
struct UserDesc {
    entry: u32,
    base: u32,
    limit: u32,
    /// seg_32bit, contents (2), read_exec_only, limit_in_pages, seg_not_present, useable
    flags: u32,
}

fn set_ldt(entry: u32, base: u32, limit: u32, flags: u32) {
    let d = UserDesc { entry, base, limit, flags };
    // SAFETY: the kernel reads the structure; segments that nobody selects change nothing.
    let r = unsafe { libc::syscall(libc::SYS_modify_ldt, 1, &d, size_of::<UserDesc>()) };
    assert_eq!(r, 0, "modify_ldt: {}", std::io::Error::last_os_error());
}

struct Memory {
    data: Vec<u8>,
    constant: Vec<u8>,
    stack: Vec<u8>,
}

fn map(address: u32, len: usize, protection: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping that may not replace another.
    let p = unsafe { libc::mmap(address as *mut _, len, protection, flags, -1, 0) };
    assert_eq!(p as usize, address as usize, "{}", std::io::Error::last_os_error());
}

/// Maps the regions and sets the LDT, once per process; children inherit both.
fn memory() -> &'static Memory {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    MEMORY.get_or_init(|| {
        let (data, constant, stack) = initial_memory();
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        map(CODE, PAGE as usize, rw | libc::PROT_EXEC);
        map(DATA, DATA_LEN, rw);
        map(CONST, CONST_LEN, rw);
        map(STACK, STACK_LEN, rw);
        // SAFETY: the page was mapped just now.
        unsafe {
            ptr::copy_nonoverlapping(constant.as_ptr(), CONST as *mut u8, CONST_LEN);
            libc::mprotect(CONST as *mut _, CONST_LEN, libc::PROT_READ);
        }
        // Code of 16 bits; data of 32 bits with the limit in pages; small data.
        set_ldt(0, CODE, 0xffff, 2 << 1 | 1 << 6);
        set_ldt(1, GS_BASE, 0xf_ffff, 1 | 1 << 4 | 1 << 6);
        set_ldt(2, DATA, SMALL_LIMIT, 1 | 1 << 6);
        set_ldt(3, STACK, PAGE - 1, 1 << 6);
        Memory { data, constant, stack }
    })
}

/// Runs one case in the child.
///
/// # Safety
/// Only in a process of its own whose handlers are set.
unsafe fn run_one(case: &Case, out: &mut Outcome, memory: &Memory) {
    // SAFETY: the regions are mapped, the case's code and patches lie within them by construction.
    unsafe {
        ptr::copy_nonoverlapping(memory.data.as_ptr(), DATA as *mut u8, DATA_LEN);
        ptr::copy_nonoverlapping(memory.stack.as_ptr(), STACK as *mut u8, STACK_LEN);
        ptr::write_bytes(CODE as *mut u8, 0xcc, PAGE as usize);
        let len = CODE_LEN.min((PAGE - case.code_at) as usize);
        ptr::copy_nonoverlapping(case.code.as_ptr(), case.start() as *mut u8, len);
        for p in &case.patches[..case.patch_count as usize] {
            ptr::copy_nonoverlapping(p.bytes.as_ptr(), p.address as *mut u8, p.len as usize);
        }
        OUTCOME = &mut out.regs;
        let mut regs = case.regs;
        let selector = match case.bits {
            64 => 0x33,
            32 => 0x23,
            _ => CODE16 as u32,
        };
        regs.rip = if case.bits == 16 { case.code_at as u64 } else { case.start() as u64 };
        tulk_test_enter(&regs, selector);
        if out.regs.cs == CODE16 as u64 {
            out.regs.rip += CODE as u64;
        }
        ptr::copy_nonoverlapping(DATA as *const u8, out.data.as_mut_ptr(), DATA_LEN);
        ptr::copy_nonoverlapping(STACK as *const u8, out.stack.as_mut_ptr(), STACK_LEN);
    }
}

/// The child's life: runs the cases and exits.
///
/// # Safety
/// After fork, in the child. `outcomes` has room for all cases.
unsafe fn child(cases: &[Case], outcomes: *mut Outcome, progress: *mut u64, memory: &Memory) -> ! {
    // SAFETY: the child is single-threaded and calls nothing that needs more than system calls.
    unsafe {
        asm!("rdfsbase {0}", out(reg) HOST_FS);
        const ALT: usize = 1 << 16;
        static mut ALT_STACK: [u8; ALT] = [0; ALT];
        let alt = libc::stack_t {
            ss_sp: ptr::addr_of_mut!(ALT_STACK) as *mut _,
            ss_flags: 0,
            ss_size: ALT,
        };
        libc::sigaltstack(&alt, ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for s in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            libc::sigaction(s, &action, ptr::null_mut());
        }
        libc::alarm(20);
        // The number of the processor shows in a segment limit.
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
        for (n, case) in cases.iter().enumerate() {
            *progress = n as u64;
            run_one(case, &mut *outcomes.add(n), memory);
        }
        *progress = cases.len() as u64;
        libc::_exit(0);
    }
}

/// Runs all cases natively.
///
/// # Panics
/// When the child dies of a case.
pub fn run(cases: &[Case]) -> Vec<Outcome> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let memory = memory();
    let size = size_of_val(cases) / size_of::<Case>() * size_of::<Outcome>();
    // SAFETY: anonymous shared memory, written by the child and read after it is gone. Zero is a valid outcome.
    unsafe {
        let shared = libc::mmap(
            ptr::null_mut(),
            size + 64,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(shared, libc::MAP_FAILED);
        let outcomes = shared as *mut Outcome;
        let progress = (shared as *mut u8).add(size) as *mut u64;
        let pid = libc::fork();
        if pid == 0 {
            child(cases, outcomes, progress, memory);
        }
        let mut status = 0;
        libc::waitpid(pid, &mut status, 0);
        let done = *progress as usize;
        let mut result: Vec<Outcome> = (0..cases.len()).map(|n| *outcomes.add(n)).collect();
        libc::munmap(shared, size + 64);
        if status != 0 {
            let case = &cases[done];
            panic!(
                "child ended with status {status:#x} at case {done}: {}-bit code {:02x?}",
                case.bits,
                &case.code[..case.code_len as usize]
            );
        }
        result.iter_mut().for_each(|o| normalize(&mut o.regs));
        result
    }
}
