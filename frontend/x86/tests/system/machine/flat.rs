//! [`Pc`] for tests of segments, gates and tasks: mostly without paging, their tables written by hand.

use super::Pc;
use tulk_base::{CpuState, Trap};
use tulk_frontend::{GuestIsa, Stop};
use tulk_x86::regs;
use tulk_x86::system::{cr0, efer, event};

/// A segment descriptor; `access` as in bits 55:40.
pub fn segment(base: u32, limit: u32, access: u64) -> u64 {
    let (base, limit) = (base as u64, limit as u64);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (access & 0xff) << 40
        | (limit >> 16 & 15) << 48
        | (access >> 12 & 15) << 52
        | base >> 24 << 56
}

/// A gate of type `kind`, present, with a privilege level and a parameter count (or IST).
pub fn gate(selector: u16, offset: u32, kind: u64, dpl: u64, count: u64) -> u64 {
    offset as u64 & 0xffff
        | (selector as u64) << 16
        | count << 32
        | (0x80 | dpl << 5 | kind) << 40
        | (offset as u64 >> 16) << 48
}

impl Pc {
    /// In real mode, all registers zero, IP 0x7c00, SP 0x7000.
    pub fn real(model: &str) -> Pc {
        let mut c = Pc::new(model);
        let model = c.outside.model;
        c.state = CpuState::new();
        c.set(regs::SYSTEM, 1);
        c.set(regs::CHIP, model.chip as u64);
        c.set(regs::FEATURES[0], model.features.0 as u64);
        c.set(regs::FEATURES[1], (model.features.0 >> 64) as u64);
        c.set(regs::CR0, cr0::ET);
        c.set(regs::IDTR_LIMIT, 0x3ff);
        c.set(regs::FCW, 0x37f);
        c.set(regs::MXCSR, 0x1f80);
        c.set(regs::XCR0, 1);
        c.set(regs::DR[6], 0xffff_0ff0);
        c.set(regs::DR[7], 0x400);
        c.set_flags(2);
        for seg in 0..6 {
            c.set(regs::SEG_LIMIT[seg], 0xffff);
            c.set(regs::SEG_ATTR[seg], 0x93);
        }
        c.set(regs::RSP, 0x7000);
        c.state.set_pc(0x7c00);
        c
    }

    pub fn flags(&self) -> u32 {
        regs::eflags(&self.state)
    }
    pub fn set_flags(&mut self, v: u32) {
        regs::set_eflags(&mut self.state, v);
    }
    pub fn selector(&self, seg: usize) -> u64 {
        self.get(regs::SEG[seg])
    }
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.outside.ram[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    pub fn put16(&mut self, at: u64, v: u16) {
        self.put(at, &v.to_le_bytes());
    }
    pub fn put32(&mut self, at: u64, v: u32) {
        self.put(at, &v.to_le_bytes());
    }
    pub fn put64(&mut self, at: u64, v: u64) {
        self.put(at, &v.to_le_bytes());
    }
    pub fn peek(&self, at: u64, bytes: usize) -> u64 {
        self.outside.ram[at as usize..][..bytes].iter().rev().fold(0, |v, &b| v << 8 | b as u64)
    }
    /// `count` values of `bytes` bytes from the top of the stack (linear address `at`) upwards.
    pub fn stack(&self, at: u64, count: usize, bytes: usize) -> Vec<u64> {
        (0..count).map(|n| self.peek(at + (n * bytes) as u64, bytes)).collect()
    }
    /// Loads a segment register from a descriptor without any check.
    pub fn load_segment(&mut self, seg: usize, selector: u16, raw: u64) {
        tulk_x86::segment::set_segment(&mut self.state, seg, selector, raw);
    }
    /// What the processor's level is.
    pub fn cpl(&self) -> u64 {
        self.get(regs::CPL)
    }
    pub fn protect(&mut self, long: bool) {
        let old = self.get(regs::CR0);
        self.set(regs::CR0, old | cr0::PE);
        if long {
            self.set(regs::EFER, efer::LMA | efer::LME | efer::SCE);
        }
    }

    pub fn deliver(&mut self, trap: Trap) -> Result<(), Stop> {
        self.with_cx(|isa, cx| isa.system().unwrap().deliver(cx, trap))
    }
    pub fn interrupt(&mut self, vector: u8) -> Result<(), Stop> {
        self.with_cx(|isa, cx| event::interrupt(cx, isa, vector, event::Kind::External))
    }
    pub fn nmi(&mut self) -> Result<(), Stop> {
        self.with_cx(|isa, cx| event::interrupt(cx, isa, 2, event::Kind::Nmi))
    }

    /// Runs until the pc is `end`, delivering exceptions.
    pub fn run_to(&mut self, end: u64) -> Result<(), Stop> {
        for _ in 0..100_000 {
            if self.state.pc() == end {
                return Ok(());
            }
            if let Err(trap) = self.block(1) {
                self.deliver(trap)?;
            }
        }
        panic!("never came to {end:#x}, is at {:#x}", self.state.pc());
    }

    pub fn shut_down(&self) -> bool {
        *self.outside.board.shut_down.lock().unwrap()
    }
}
