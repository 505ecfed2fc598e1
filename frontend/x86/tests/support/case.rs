//! One test: code, registers, memory.
//!
//! | region | access |
//! |---|---|
//! | [`CODE`], one page | read, execute |
//! | [`DATA`], two pages | read, write |
//! | [`CONST`], one page | read |
//! | [`STACK`], one page | read, write |
//!
//! Everything around them is unmapped, and all of it lies below 2 GiB, so 32-bit code sees the same addresses.

use super::rng::Rng;

pub const PAGE: u32 = 4096;
pub const CODE: u32 = 0x1357_1000;
pub const DATA: u32 = 0x2468_2000;
pub const DATA_LEN: usize = 8192;
pub const CONST: u32 = 0x2479_3000;
pub const CONST_LEN: usize = 4096;
pub const STACK: u32 = 0x358a_4000;
pub const STACK_LEN: usize = 4096;
pub const CODE_LEN: usize = 256;

/// Base of the FS and GS segments in 64-bit cases, of LDT entries 1 (GS) in others.
pub const FS_BASE: u32 = DATA + 0x100;
pub const GS_BASE: u32 = DATA + 0x1000;
/// LDT selectors: 16-bit code at [`CODE`], 32-bit data at [`GS_BASE`], a small segment at [`DATA`].
pub const CODE16: u16 = 7;
pub const DATA_GS: u16 = 15;
pub const DATA_SMALL: u16 = 23;
/// A stack of 16 bits: [`STACK`].
pub const STACK16: u16 = 31;
/// Limit of [`DATA_SMALL`].
pub const SMALL_LIMIT: u32 = 0x1ff;

/// Registers as loaded before the code runs, and as found after it.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq)]
pub struct Registers {
    /// Standard-format XSAVE image: x87, SSE, AVX.
    pub xsave: [u8; 832],
    pub gpr: [u64; 16],
    pub rflags: u64,
    pub rip: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    /// Trap number of the exception that ended the code, its error code and address, as Linux reports them.
    pub trap: u64,
    pub error: u64,
    pub address: u64,
    pub signal: u64,
    pub si_code: u64,
    /// Selector of the code segment.
    pub cs: u64,
}

impl Registers {
    pub fn zero() -> Registers {
        let mut r = Registers {
            xsave: [0; 832],
            gpr: [0; 16],
            rflags: 0x202,
            rip: CODE as u64,
            fs_base: FS_BASE as u64,
            gs_base: GS_BASE as u64,
            trap: 0,
            error: 0,
            address: 0,
            signal: 0,
            si_code: 0,
            cs: 0,
        };
        r.set_u16(0, 0x37f);
        r.set_u32(24, 0x1f80);
        // XSTATE_BV: all three components.
        r.xsave[512] = 7;
        r
    }

    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.xsave[at..at + 2].try_into().unwrap())
    }
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.xsave[at..at + 4].try_into().unwrap())
    }
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.xsave[at..at + 8].try_into().unwrap())
    }
    pub fn u128(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.xsave[at..at + 16].try_into().unwrap())
    }
    pub fn set_u16(&mut self, at: usize, v: u16) {
        self.xsave[at..at + 2].copy_from_slice(&v.to_le_bytes());
    }
    pub fn set_u32(&mut self, at: usize, v: u32) {
        self.xsave[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }
    pub fn set_u64(&mut self, at: usize, v: u64) {
        self.xsave[at..at + 8].copy_from_slice(&v.to_le_bytes());
    }
    pub fn set_u128(&mut self, at: usize, v: u128) {
        self.xsave[at..at + 16].copy_from_slice(&v.to_le_bytes());
    }
    pub fn mxcsr(&self) -> u32 {
        self.u32(24)
    }
    pub fn set_mxcsr(&mut self, v: u32) {
        self.set_u32(24, v);
    }
    /// Control word, status word, abridged tag word.
    pub fn fcw(&self) -> u16 {
        self.u16(0)
    }
    pub fn fsw(&self) -> u16 {
        self.u16(2)
    }
    pub fn ftw(&self) -> u8 {
        self.xsave[4]
    }
    /// st(i): significand, sign and exponent.
    pub fn st(&self, i: usize) -> (u64, u16) {
        (self.u64(32 + 16 * i), self.u16(40 + 16 * i))
    }
    pub fn set_st(&mut self, i: usize, significand: u64, exponent: u16) {
        self.set_u64(32 + 16 * i, significand);
        self.set_u16(40 + 16 * i, exponent);
    }
    pub fn xmm(&self, i: usize) -> u128 {
        self.u128(160 + 16 * i)
    }
    pub fn set_xmm(&mut self, i: usize, v: u128) {
        self.set_u128(160 + 16 * i, v);
    }
    /// High half of ymm.
    pub fn ymmh(&self, i: usize) -> u128 {
        self.u128(576 + 16 * i)
    }
    pub fn set_ymmh(&mut self, i: usize, v: u128) {
        self.set_u128(576 + 16 * i, v);
    }
}

/// Bytes to change in memory before the code runs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Patch {
    pub address: u32,
    pub len: u32,
    pub bytes: [u8; 16],
}

pub const PATCHES: usize = 8;

/// One test. Plain data: it crosses to the child process.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Case {
    pub regs: Registers,
    /// 16, 32 or 64.
    pub bits: u32,
    /// Where in the code page the code starts.
    pub code_at: u32,
    pub code_len: u32,
    pub patch_count: u32,
    pub code: [u8; CODE_LEN],
    pub patches: [Patch; PATCHES],
}

impl Case {
    /// Zero registers, default modes, the stack pointer in the middle of the stack.
    pub fn new(bits: u32) -> Case {
        let mut regs = Registers::zero();
        regs.gpr[4] = (STACK + PAGE / 2) as u64;
        Case {
            regs,
            bits,
            code_at: 0,
            code_len: 0,
            patch_count: 0,
            code: [0xcc; CODE_LEN],
            patches: [Patch { address: 0, len: 0, bytes: [0; 16] }; PATCHES],
        }
    }

    /// Random registers: corner cases in the general ones, float patterns in the vectors, valid x87 contents.
    pub fn random(bits: u32, rng: &mut Rng) -> Case {
        let mut case = Case::new(bits);
        for n in 0..16 {
            let v = rng.word();
            if n != 4 {
                case.regs.gpr[n] = if bits == 64 { v } else { v as u32 as u64 };
            }
            if n < 8 || bits == 64 {
                for high in [false, true] {
                    let v = rng.word() as u128 | (rng.word() as u128) << 64;
                    if high {
                        case.regs.set_ymmh(n, v);
                    } else {
                        case.regs.set_xmm(n, v);
                    }
                }
            }
        }
        if bits != 64 {
            case.regs.gpr[8..].fill(0);
        }
        case.regs.rflags = 0x202 | rng.next() & 0x8d5;
        if rng.chance(8) {
            case.regs.rflags |= 0x400;
        }
        if rng.chance(8) {
            case.regs.rflags |= 0x20_0000;
        }
        case
    }

    /// Bytes of memory to set before the code runs.
    pub fn patch(&mut self, address: u32, bytes: &[u8]) {
        let p = &mut self.patches[self.patch_count as usize];
        p.address = address;
        p.len = bytes.len() as u32;
        p.bytes[..bytes.len()].copy_from_slice(bytes);
        self.patch_count += 1;
    }

    /// Linear address of the first instruction.
    pub fn start(&self) -> u32 {
        CODE + self.code_at
    }
    /// Linear address of the breakpoint behind the last instruction; another one follows.
    pub fn end(&self) -> u32 {
        self.start() + self.code_len
    }
    /// Appends instruction bytes.
    pub fn append(&mut self, bytes: &[u8]) {
        let at = self.code_len as usize;
        self.code[at..at + bytes.len()].copy_from_slice(bytes);
        self.code_len += bytes.len() as u32;
    }
}

/// What a run leaves behind.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Outcome {
    pub regs: Registers,
    pub data: [u8; DATA_LEN],
    pub stack: [u8; STACK_LEN],
}

/// Initial content of the data, constant and stack regions, before patches: the same for every case.
pub fn initial_memory() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut rng = Rng::new(7);
    let mut fill =
        |len: usize| -> Vec<u8> { (0..len / 8).flat_map(|_| rng.word().to_le_bytes()).collect() };
    (fill(DATA_LEN), fill(CONST_LEN), fill(STACK_LEN))
}
