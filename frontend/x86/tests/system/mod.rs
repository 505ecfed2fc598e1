//! A processor with flat RAM and nothing else, for the tests of system mode: no paging, a board that records.
// Not every test uses all of it.
#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use tulk_base::{AccessKind, Board, CpuEvent, CpuState, FaultCause, GuestMem, GuestPa, GuestVa};
use tulk_base::{MemFault, MemOp, RmwOp, TlbFlush, Trap};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, Stop};
use tulk_ir::interp::{Outcome, Program, run};
use tulk_ir::{FpEnv, FpFlags, HelperCx, HelperEnv, Machine, Round, Slot, Unit};
use tulk_x86::system::{cr0, efer, event};
use tulk_x86::{CpuModel, X86, regs};

/// Bytes of RAM.
pub const RAM: usize = 0x20_0000;

#[derive(Default)]
pub struct Recorder {
    shut_down: AtomicBool,
}

impl Board for Recorder {
    fn port_read(&self, _: u32, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn port_write(&self, _: u32, _: u16, _: u8, _: u32) {}
    fn mmio_read(&self, _: u32, _: GuestPa, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&self, _: u32, _: GuestPa, _: u8, _: u64) {}
    fn has_event(&self, _: u32, _: bool) -> bool {
        false
    }
    fn take_event(&self, _: u32, _: bool) -> Option<CpuEvent> {
        None
    }
    fn msr_read(&self, _: u32, _: u32) -> Option<u64> {
        None
    }
    fn msr_write(&self, _: u32, _: u32, _: u64) -> bool {
        false
    }
    fn task_priority(&self, _: u32) -> u8 {
        0
    }
    fn set_task_priority(&self, _: u32, _: u8) {}
    fn address_mask(&self) -> u64 {
        u64::MAX
    }
    fn clock_ns(&self) -> u64 {
        0
    }
    fn shutdown(&self, _: u32) {
        self.shut_down.store(true, Ordering::Relaxed);
    }
}

/// RAM, of which one page may be shut.
pub struct World {
    pub ram: Vec<u8>,
    pub board: Recorder,
    /// Accesses to this page fault with this error code.
    pub shut: Option<(u64, u32)>,
}

impl World {
    fn place(&self, va: GuestVa, bytes: u32, kind: AccessKind) -> Result<usize, MemFault> {
        let fault = |va, code| MemFault { va, kind, cause: FaultCause::Page(code) };
        for at in [va, va.wrapping_add(bytes as u64 - 1)] {
            if let Some((page, code)) = self.shut.filter(|s| s.0 == at.0 >> 12) {
                return Err(fault(GuestVa((page << 12).max(va.0)), code));
            }
        }
        match va.0 as usize {
            at if va.0 < RAM as u64 && at + bytes as usize <= RAM => Ok(at),
            _ => Err(fault(va, 0)),
        }
    }
}

impl CodeReader for World {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let Some(rest) = self.ram.get(va.0 as usize..) else { return 0 };
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        n
    }
}

impl GuestMem for World {
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        let at = self.place(va, op.bytes(), AccessKind::Read)?;
        let bytes = &self.ram[at..at + op.bytes() as usize];
        Ok(bytes.iter().rev().fold(0, |v, &b| v << 8 | b as u64))
    }
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        let at = self.place(va, op.bytes(), AccessKind::Write)?;
        let n = op.bytes() as usize;
        self.ram[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
        Ok(())
    }
    fn load128(&mut self, va: GuestVa, _: MemOp) -> Result<u128, MemFault> {
        let low = self.load(va, MemOp::U64)? as u128;
        Ok(low | (self.load(va.wrapping_add(8), MemOp::U64)? as u128) << 64)
    }
    fn store128(&mut self, va: GuestVa, _: MemOp, value: u128) -> Result<(), MemFault> {
        self.store(va, MemOp::U64, value as u64)?;
        self.store(va.wrapping_add(8), MemOp::U64, (value >> 64) as u64)
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, v: u64) -> Result<u64, MemFault> {
        self.place(va, op.bytes(), AccessKind::Write)?;
        let old = self.load(va, op)?;
        let new = match rmw {
            RmwOp::Or => old | v,
            RmwOp::AndNot => old & !v,
            _ => unimplemented!("no test needs it"),
        };
        self.store(va, op, new)?;
        Ok(old)
    }
    fn cas(&mut self, _: GuestVa, _: MemOp, _: u128, _: u128) -> Result<u128, MemFault> {
        unimplemented!("no test needs it")
    }
}

impl FpEnv for World {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags(0)
    }
    fn set_fp_flags(&mut self, _: FpFlags) {}
    fn fp_round(&mut self) -> Round {
        Round::Nearest
    }
    fn set_fp_mode(&mut self, _: Round, _: bool, _: bool) {}
}

impl HelperEnv for World {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        0
    }
    fn processor_id(&mut self) -> u32 {
        0
    }
    fn random(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
    fn machine(&mut self) -> Option<&mut dyn Machine> {
        Some(self)
    }
}

impl Machine for World {
    fn cpu(&self) -> u32 {
        0
    }
    fn board(&self) -> &dyn Board {
        &self.board
    }
    fn phys_load(&mut self, pa: GuestPa, bytes: u8) -> u64 {
        let at = pa.0 as usize;
        let bytes = self.ram.get(at..at + bytes as usize).unwrap_or(&[]);
        bytes.iter().rev().fold(0, |v, &b| v << 8 | b as u64)
    }
    fn phys_replace(&mut self, _: GuestPa, _: u8, _: u64, _: u64) -> bool {
        true
    }
    fn flush_tlb(&mut self, _: TlbFlush) {}
    fn switch_space(&mut self, _: u16) {}
}

/// A processor and its memory.
pub struct Cpu {
    pub isa: X86,
    pub state: Box<CpuState>,
    pub world: World,
}

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

impl Cpu {
    /// In real mode, all registers zero, IP 0x7c00, SP 0x7000.
    pub fn real(model: &str) -> Cpu {
        let model = CpuModel::parse(model).unwrap();
        let mut state = CpuState::new();
        let world = World { ram: vec![0; RAM], board: Recorder::default(), shut: None };
        let set = |state: &mut CpuState, slot, v| state.set(regs::cell(slot), v);
        set(&mut state, regs::SYSTEM, 1);
        set(&mut state, regs::CHIP, model.chip as u64);
        set(&mut state, regs::FEATURES[0], model.features.0 as u64);
        set(&mut state, regs::FEATURES[1], (model.features.0 >> 64) as u64);
        set(&mut state, regs::CR0, cr0::ET);
        set(&mut state, regs::IDTR_LIMIT, 0x3ff);
        set(&mut state, regs::FCW, 0x37f);
        set(&mut state, regs::MXCSR, 0x1f80);
        set(&mut state, regs::XCR0, 1);
        set(&mut state, regs::DR[6], 0xffff_0ff0);
        set(&mut state, regs::DR[7], 0x400);
        regs::set_eflags(&mut state, 2);
        for seg in 0..6 {
            set(&mut state, regs::SEG_LIMIT[seg], 0xffff);
            set(&mut state, regs::SEG_ATTR[seg], 0x93);
        }
        set(&mut state, regs::RSP, 0x7000);
        state.set_pc(0x7c00);
        Cpu { isa: X86::new_system(model), state, world }
    }

    pub fn get(&self, slot: Slot) -> u64 {
        self.state.get(regs::cell(slot))
    }
    pub fn set(&mut self, slot: Slot, v: u64) {
        self.state.set(regs::cell(slot), v);
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
        self.world.ram[at as usize..][..bytes.len()].copy_from_slice(bytes);
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
        self.world.ram[at as usize..][..bytes].iter().rev().fold(0, |v, &b| v << 8 | b as u64)
    }
    /// `count` values of `bytes` bytes from the top of the stack (linear address `at`) upwards.
    pub fn stack(&self, at: u64, count: usize, bytes: usize) -> Vec<u64> {
        (0..count).map(|n| self.peek(at + (n * bytes) as u64, bytes)).collect()
    }
    /// Loads a segment register from a descriptor without any check.
    pub fn load(&mut self, seg: usize, selector: u16, raw: u64) {
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

    /// Runs one instruction; the trap that it ended in.
    pub fn step(&mut self) -> Result<(), Trap> {
        self.block(1)
    }

    fn block(&mut self, max_insns: u32) -> Result<(), Trap> {
        let key = self.isa.tb_key(&self.state);
        let mut unit = Unit::new(0, 0, self.isa.fp_rule());
        let limits = LiftLimits { max_insns, end: GuestVa(u64::MAX) };
        self.isa.lift(key, &mut self.world, limits, &mut unit);
        if unit.len == 0 {
            let (va, kind, cause) = (key.pc, AccessKind::Exec, FaultCause::Page(0x10));
            return Err(Trap::Mem(MemFault { va, kind, cause }));
        }
        let program = Program::new(&unit, self.isa.layout(), self.isa.helpers());
        match run(&program, &mut self.state, self.isa.helpers(), &mut self.world) {
            Outcome::Direct(n) => self.state.set_pc(program.exits()[n as usize].pc),
            Outcome::Indirect { pc, .. } => self.state.set_pc(pc),
            Outcome::Trap(trap) => return Err(trap),
        }
        Ok(())
    }

    pub fn deliver(&mut self, trap: Trap) -> Result<(), Stop> {
        let mut cx = HelperCx { state: &mut self.state, env: &mut self.world };
        self.isa.system().unwrap().deliver(&mut cx, trap)
    }
    pub fn interrupt(&mut self, vector: u8) -> Result<(), Stop> {
        let mut cx = HelperCx { state: &mut self.state, env: &mut self.world };
        event::interrupt(&mut cx, &self.isa, vector, event::Kind::External)
    }
    pub fn nmi(&mut self) -> Result<(), Stop> {
        let mut cx = HelperCx { state: &mut self.state, env: &mut self.world };
        event::interrupt(&mut cx, &self.isa, 2, event::Kind::Nmi)
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
        self.world.board.shut_down.load(Ordering::Relaxed)
    }
}
