//! The guest program around the sequences under test.
//!
//! Each case has a block of memory with the registers that it starts with, replaced by those that it ends with,
//! and scratch memory that its pointer registers point into. x30 holds the block's address while a case runs,
//! so no sequence may write it. A signal handler notes signal and pc in the block and continues at the end of
//! the sequence, with all registers as they were at the fault. Finally blocks and scratch go to standard output.

use super::asm::*;
use super::elf::{EXEC, READ, Segment, WRITE};

pub const CODE: u64 = 0x40_0000;
/// Signal stack and structures for system calls.
const SYSTEM: u64 = 0x1000_0000;
const SYSTEM_SIZE: usize = 0x1_0000;
pub const BLOCKS: u64 = 0x2000_0000;
pub const SCRATCH: u64 = 0x3000_0000;
pub const BLOCK_SIZE: usize = 1024;
pub const SCRATCH_SIZE: usize = 4096;

// Offsets in a block; the general registers come first.
pub const BLOCK_SP: u32 = 248;
pub const BLOCK_NZCV: u32 = 256;
pub const BLOCK_FPCR: u32 = 264;
pub const BLOCK_FPSR: u32 = 272;
/// Number of the signal that ended the sequence, or 0.
pub const BLOCK_SIGNAL: u32 = 280;
pub const BLOCK_PC: u32 = 288;
/// Where the signal handler continues.
pub const BLOCK_RESUME: u32 = 296;
pub const BLOCK_V: u32 = 512;

/// Registers before a case, and what to run.
#[derive(Clone)]
pub struct Case {
    pub x: [u64; 30],
    pub sp: u64,
    pub nzcv: u32,
    pub fpcr: u32,
    pub fpsr: u32,
    pub v: [u128; 32],
    pub scratch: Vec<u8>,
    pub words: Vec<u32>,
}

/// What a case left behind.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    pub block: Vec<u8>,
    pub scratch: Vec<u8>,
}

impl Outcome {
    pub fn u64(&self, offset: u32) -> u64 {
        let at = offset as usize;
        u64::from_le_bytes(self.block[at..at + 8].try_into().unwrap())
    }
}

/// The address of a case's block.
pub fn block_of(case: usize) -> u64 {
    BLOCKS + (case * BLOCK_SIZE) as u64
}

/// The address of a case's scratch memory.
pub fn scratch_of(case: usize) -> u64 {
    SCRATCH + (case * SCRATCH_SIZE) as u64
}

/// Signals that the handler takes.
const SIGNALS: [u64; 5] = [4, 5, 7, 8, 11];
/// Offset of x0 in the `ucontext` that a handler gets.
const CONTEXT_X0: u32 = 184;
const CONTEXT_PC: u32 = CONTEXT_X0 + 32 * 8;

/// The program: entry point and segments.
pub fn build(cases: &[Case]) -> (u64, Vec<Segment>) {
    let mut code = Vec::new();

    // The signal handler: x0 the signal, x2 the context.
    let handler = CODE;
    code.extend([
        ldr(3, 2, CONTEXT_X0 + 30 * 8),
        str(0, 3, BLOCK_SIGNAL),
        ldr(4, 2, CONTEXT_PC),
        str(4, 3, BLOCK_PC),
        ldr(4, 3, BLOCK_RESUME),
        str(4, 2, CONTEXT_PC),
        RET,
    ]);
    let restorer = CODE + 4 * code.len() as u64;
    syscall(&mut code, 139);

    // sigaltstack, then sigaction for each signal.
    let entry = CODE + 4 * code.len() as u64;
    let mut system = vec![0u8; SYSTEM_SIZE];
    let mut put = |at: usize, value: u64| system[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, SYSTEM + 0x1000);
    put(16, SYSTEM_SIZE as u64 - 0x1000);
    put(64, handler);
    // SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_NODEFER.
    put(72, 4 | 0x0800_0000 | 0x0400_0000 | 0x4000_0000);
    put(80, restorer);
    load_const(&mut code, 0, SYSTEM);
    load_const(&mut code, 1, 0);
    syscall(&mut code, 132);
    for signal in SIGNALS {
        load_const(&mut code, 0, signal);
        load_const(&mut code, 1, SYSTEM + 64);
        load_const(&mut code, 2, 0);
        load_const(&mut code, 3, 8);
        syscall(&mut code, 134);
    }

    let (mut blocks, mut scratch) = (Vec::new(), Vec::new());
    for (n, case) in cases.iter().enumerate() {
        let resume = emit_case(&mut code, n, case);
        blocks.extend(input_block(case, resume));
        assert_eq!(case.scratch.len(), SCRATCH_SIZE);
        scratch.extend(&case.scratch);
    }

    for (va, size) in [(BLOCKS, blocks.len()), (SCRATCH, scratch.len())] {
        load_const(&mut code, 0, 1);
        load_const(&mut code, 1, va);
        load_const(&mut code, 2, size as u64);
        syscall(&mut code, 64);
    }
    load_const(&mut code, 0, 0);
    syscall(&mut code, 94);

    let code = code.iter().flat_map(|w| w.to_le_bytes()).collect();
    let segments = vec![
        Segment { va: CODE, flags: READ | EXEC, bytes: code },
        Segment { va: SYSTEM, flags: READ | WRITE, bytes: system },
        Segment { va: BLOCKS, flags: READ | WRITE, bytes: blocks },
        Segment { va: SCRATCH, flags: READ | WRITE, bytes: scratch },
    ];
    (entry, segments)
}

/// Emits one case; returns the address of the end of its sequence.
fn emit_case(code: &mut Vec<u32>, n: usize, case: &Case) -> u64 {
    load_const(code, 30, block_of(n));
    for (offset, register) in [(BLOCK_NZCV, NZCV), (BLOCK_FPCR, FPCR), (BLOCK_FPSR, FPSR)] {
        code.extend([ldr(0, 30, offset), msr(register, 0)]);
    }
    code.extend([CLREX, ldr(0, 30, BLOCK_SP), mov_sp(31, 0)]);
    code.extend((0..32).step_by(2).map(|n| ldp_q(n, n + 1, 30, BLOCK_V + 16 * n)));
    code.extend((0..30).step_by(2).map(|n| ldp(n, n + 1, 30, 8 * n)));
    code.extend(&case.words);
    // Where a forward branch out of the last instruction ends.
    code.extend([NOP, NOP]);
    let resume = CODE + 4 * code.len() as u64;
    code.extend((0..30).step_by(2).map(|n| stp(n, n + 1, 30, 8 * n)));
    code.extend([mov_sp(0, 31), str(0, 30, BLOCK_SP)]);
    for (offset, register) in [(BLOCK_NZCV, NZCV), (BLOCK_FPCR, FPCR), (BLOCK_FPSR, FPSR)] {
        code.extend([mrs(0, register), str(0, 30, offset)]);
    }
    code.extend((0..32).step_by(2).map(|n| stp_q(n, n + 1, 30, BLOCK_V + 16 * n)));
    resume
}

fn input_block(case: &Case, resume: u64) -> Vec<u8> {
    let mut block = vec![0u8; BLOCK_SIZE];
    let mut put = |at: u32, value: u64| {
        block[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes())
    };
    for (n, x) in case.x.iter().enumerate() {
        put(8 * n as u32, *x);
    }
    put(BLOCK_SP, case.sp);
    put(BLOCK_NZCV, case.nzcv as u64);
    put(BLOCK_FPCR, case.fpcr as u64);
    put(BLOCK_FPSR, case.fpsr as u64);
    put(BLOCK_RESUME, resume);
    for (n, v) in case.v.iter().enumerate() {
        put(BLOCK_V + 16 * n as u32, *v as u64);
        put(BLOCK_V + 16 * n as u32 + 8, (*v >> 64) as u64);
    }
    block
}

/// Takes the program's output apart; `None` when it is not whole.
pub fn outcomes(cases: usize, output: &[u8]) -> Option<Vec<Outcome>> {
    if output.len() != cases * (BLOCK_SIZE + SCRATCH_SIZE) {
        return None;
    }
    let (blocks, scratch) = output.split_at(cases * BLOCK_SIZE);
    let pairs = blocks.chunks(BLOCK_SIZE).zip(scratch.chunks(SCRATCH_SIZE));
    Some(pairs.map(|(b, s)| Outcome { block: b.to_vec(), scratch: s.to_vec() }).collect())
}
