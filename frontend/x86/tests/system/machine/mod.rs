//! A small machine for tests of system mode: RAM from physical address 0, one processor, and a board that records what
//! it is asked. Blocks are lifted, interpreted one at a time, and every access walks the page tables.
mod flat;

pub use flat::{gate, segment};

use std::sync::Mutex;
use tulk_base::{AccessKind, Board, CpuEvent, CpuState, FaultCause, GuestMem, GuestPa, GuestVa};
use tulk_base::{Mapping, MemFault, MemOp, RmwOp, TlbFlush, Trap};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, SystemIsa, TbKey};
use tulk_ir::interp::{Outcome, Program, run};
use tulk_ir::verifier::verify;
use tulk_ir::{FpEnv, FpFlags, HelperCx, HelperEnv, Machine, Round, Unit};
use tulk_x86::regs::{self, cell};
use tulk_x86::{CpuModel, X86, system};

pub const RAM: usize = 4 << 20;

/// What the board was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    PortRead(u16, u8),
    PortWrite(u16, u8, u32),
    MsrWrite(u32, u64),
    Flush(TlbFlush),
    Space(u16),
}

pub struct TestBoard {
    pub asked: Mutex<Vec<Asked>>,
    pub events: Mutex<Vec<CpuEvent>>,
    pub priority: Mutex<u8>,
    pub lines: Mutex<u64>,
    pub clock: Mutex<u64>,
    pub shut_down: Mutex<bool>,
}

impl Board for TestBoard {
    fn port_read(&self, _: u32, port: u16, bytes: u8) -> u32 {
        self.asked.lock().unwrap().push(Asked::PortRead(port, bytes));
        0x1122_3344
    }
    fn port_write(&self, _: u32, port: u16, bytes: u8, value: u32) {
        self.asked.lock().unwrap().push(Asked::PortWrite(port, bytes, value));
    }
    fn mmio_read(&self, _: u32, _: GuestPa, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&self, _: u32, _: GuestPa, _: u8, _: u64) {}
    fn has_event(&self, _: u32, _: bool) -> bool {
        !self.events.lock().unwrap().is_empty()
    }
    fn take_event(&self, _: u32, interrupts: bool) -> Option<CpuEvent> {
        let mut events = self.events.lock().unwrap();
        let at = events.iter().position(|e| interrupts || !matches!(e, CpuEvent::Interrupt(_)))?;
        Some(events.remove(at))
    }
    fn msr_read(&self, _: u32, msr: u32) -> Option<u64> {
        match msr {
            0x1b => Some(0xfee0_0900),
            0x6e0 => Some(1000),
            _ => None,
        }
    }
    fn msr_write(&self, _: u32, msr: u32, value: u64) -> bool {
        self.asked.lock().unwrap().push(Asked::MsrWrite(msr, value));
        matches!(msr, 0x1b | 0x6e0)
    }
    fn task_priority(&self, _: u32) -> u8 {
        *self.priority.lock().unwrap()
    }
    fn set_task_priority(&self, _: u32, priority: u8) {
        *self.priority.lock().unwrap() = priority;
    }
    fn address_mask(&self) -> u64 {
        *self.lines.lock().unwrap()
    }
    fn clock_ns(&self) -> u64 {
        *self.clock.lock().unwrap()
    }
    fn shutdown(&self, _: u32) {
        *self.shut_down.lock().unwrap() = true;
    }
}

/// What the processor reaches: RAM and board.
pub struct Outside {
    pub ram: Vec<u8>,
    pub board: TestBoard,
    /// Runs before each replacement of physical memory, once.
    pub race: Option<(u64, u64)>,
    /// Accesses to this page fault with this error code, whatever the tables say.
    pub shut: Option<(u64, u32)>,
    model: CpuModel,
    /// The registers at the start of the block, for walks. Instructions that change what walks look at end blocks.
    seen: Option<Box<CpuState>>,
}

impl Machine for Outside {
    fn cpu(&self) -> u32 {
        0
    }
    fn board(&self) -> &dyn Board {
        &self.board
    }
    fn phys_load(&mut self, pa: GuestPa, bytes: u8) -> u64 {
        assert!(pa.is_aligned(bytes as u64), "{pa} of {bytes} bytes");
        self.read(pa.0, bytes as u32) as u64
    }
    fn phys_replace(&mut self, pa: GuestPa, bytes: u8, old: u64, new: u64) -> bool {
        if let Some((at, value)) = self.race.take() {
            self.write(at, 8, value as u128);
        }
        if self.phys_load(pa, bytes) != old {
            return false;
        }
        self.write(pa.0, bytes as u32, new as u128);
        true
    }
    fn flush_tlb(&mut self, what: TlbFlush) {
        self.board.asked.lock().unwrap().push(Asked::Flush(what));
    }
    fn switch_space(&mut self, space: u16) {
        self.board.asked.lock().unwrap().push(Asked::Space(space));
    }
}

impl Outside {
    /// Physical memory; all ones and ignored behind the RAM.
    pub fn read(&self, pa: u64, bytes: u32) -> u128 {
        let byte = |n| self.ram.get((pa + n) as usize).copied().unwrap_or(0xff) as u128;
        (0..bytes as u64).fold(0, |v, n| v | byte(n) << (8 * n))
    }
    pub fn write(&mut self, pa: u64, bytes: u32, v: u128) {
        for n in 0..bytes as u64 {
            if let Some(b) = self.ram.get_mut((pa + n) as usize) {
                *b = (v >> (8 * n)) as u8;
            }
        }
    }

    pub fn walk(
        &mut self,
        state: &CpuState,
        va: u64,
        kind: AccessKind,
        mmu: u8,
    ) -> Result<Mapping, MemFault> {
        let model = self.model;
        system::paging::walk(&model, state, self, GuestVa(va), kind, mmu)
    }

    fn translate(&mut self, va: u64, kind: AccessKind, mmu: u8) -> Result<u64, MemFault> {
        if let Some((_, code)) = self.shut.filter(|s| s.0 == va >> 12) {
            return Err(MemFault { va: GuestVa(va), kind, cause: FaultCause::Page(code) });
        }
        let state = self.seen.take().expect("a block runs");
        let mapping = self.walk(&state, va, kind, mmu);
        self.seen = Some(state);
        let m = mapping?;
        Ok(m.pa.0 + (va & ((1 << m.size_log2) - 1)))
    }

    /// Physical addresses of the bytes of an access, all checked first.
    fn places(&mut self, va: GuestVa, op: MemOp, kind: AccessKind) -> Result<Vec<u64>, MemFault> {
        if !va.is_aligned(op.align_bytes() as u64) {
            return Err(MemFault { va, kind, cause: FaultCause::Align });
        }
        let bytes = (0..op.bytes() as u64).map(|n| va.0.wrapping_add(n));
        bytes.map(|va| self.translate(va, kind, op.mmu())).collect()
    }

    fn get(&self, places: &[u64]) -> u128 {
        places.iter().rev().fold(0, |v, &pa| v << 8 | self.read(pa, 1))
    }
    fn put(&mut self, places: &[u64], v: u128) {
        for (n, &pa) in places.iter().enumerate() {
            self.write(pa, 1, v >> (8 * n));
        }
    }
}

impl GuestMem for Outside {
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        let at = self.places(va, op, AccessKind::Read)?;
        let v = self.get(&at) as u64;
        let unused = 64 - 8 * op.bytes();
        Ok(if op.signed() { ((v << unused) as i64 >> unused) as u64 } else { v })
    }
    fn store(&mut self, va: GuestVa, op: MemOp, v: u64) -> Result<(), MemFault> {
        let at = self.places(va, op, AccessKind::Write)?;
        self.put(&at, v as u128);
        Ok(())
    }
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        let at = self.places(va, op, AccessKind::Read)?;
        Ok(self.get(&at))
    }
    fn store128(&mut self, va: GuestVa, op: MemOp, v: u128) -> Result<(), MemFault> {
        let at = self.places(va, op, AccessKind::Write)?;
        self.put(&at, v);
        Ok(())
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, b: u64) -> Result<u64, MemFault> {
        let at = self.places(va, op, AccessKind::Write)?;
        let a = self.get(&at) as u64;
        let new = match rmw {
            RmwOp::Xchg => b,
            RmwOp::Add => a.wrapping_add(b),
            RmwOp::Or => a | b,
            RmwOp::And => a & b,
            RmwOp::AndNot => a & !b,
            other => unimplemented!("{other:?}: no test needs it"),
        };
        self.put(&at, new as u128);
        Ok(a)
    }
    fn cas(&mut self, va: GuestVa, op: MemOp, old: u128, new: u128) -> Result<u128, MemFault> {
        let at = self.places(va, op, AccessKind::Write)?;
        let seen = self.get(&at);
        if seen == old {
            self.put(&at, new);
        }
        Ok(seen)
    }
}

impl FpEnv for Outside {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags(0)
    }
    fn set_fp_flags(&mut self, _: FpFlags) {}
    fn fp_round(&mut self) -> Round {
        Round::Nearest
    }
    fn set_fp_mode(&mut self, _: Round, _: bool, _: bool) {}
}

impl HelperEnv for Outside {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        unreachable!("the board has the clock")
    }
    fn processor_id(&mut self) -> u32 {
        unreachable!("the machine numbers its processors")
    }
    fn random(&mut self, out: &mut [u8]) {
        out.fill(0x5a);
    }
    fn machine(&mut self) -> Option<&mut dyn Machine> {
        Some(self)
    }
}

/// Fetches through the page tables.
struct Fetch<'a>(&'a mut Outside, u8);

impl CodeReader for Fetch<'_> {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        for (n, byte) in out.iter_mut().enumerate() {
            let at = va.0.wrapping_add(n as u64);
            match self.0.translate(at, AccessKind::Exec, self.1) {
                Ok(pa) => *byte = self.0.read(pa, 1) as u8,
                Err(_) => return n,
            }
        }
        out.len()
    }
}

/// The modes in which [`Pc::with_code`] starts, with segments that the mode would have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Real,
    /// Flat 32-bit code without paging, at this privilege level.
    Flat(u32),
    /// 64-bit code, all of the RAM mapped at its address for everyone, at this privilege level.
    Long(u32),
    /// Virtual-8086 mode with this IOPL.
    Vm86(u32),
}

pub struct Pc {
    pub isa: X86,
    pub state: Box<CpuState>,
    pub outside: Outside,
}

/// Where code and the page tables of [`Start::Long`] are.
pub const CODE: u64 = 0x1000;
pub const TABLES: u64 = 0x10_0000;

impl Pc {
    /// Behind reset.
    pub fn new(model: &str) -> Pc {
        let model = CpuModel::parse(model).unwrap();
        let isa = X86::new_system(model);
        let mut state = CpuState::new();
        isa.reset_processor(&mut state, 0);
        let board = TestBoard {
            asked: Mutex::default(),
            events: Mutex::default(),
            priority: Mutex::default(),
            lines: Mutex::new(u64::MAX),
            clock: Mutex::new(0x1000_0000),
            shut_down: Mutex::default(),
        };
        let outside =
            Outside { ram: vec![0; RAM], board, race: None, shut: None, model, seen: None };
        Pc { isa, state, outside }
    }

    pub fn with_code(model: &str, start: Start, code: &[u8]) -> Pc {
        let mut pc = Pc::new(model);
        pc.load(code);
        pc.start(start);
        pc
    }

    pub fn load(&mut self, code: &[u8]) {
        self.outside.ram[CODE as usize..][..code.len()].copy_from_slice(code);
    }

    pub fn start(&mut self, start: Start) {
        use system::{cr0, cr4, efer};
        let (cpl, control) = match start {
            Start::Real => (0, 0),
            Start::Flat(cpl) => (cpl, cr0::PE),
            Start::Long(cpl) => (cpl, cr0::PE | cr0::PG),
            Start::Vm86(_) => (3, cr0::PE),
        };
        self.set(regs::CR0, control | cr0::ET | cr0::NE);
        self.set(regs::CPL, cpl as u64);
        self.state.set_pc(CODE);
        let (limit, bits) = match start {
            Start::Real | Start::Vm86(_) => (0xffff, 0),
            Start::Flat(_) => (0xffff_ffff, 0xc000),
            Start::Long(_) => (0xffff_ffff, 0xa000),
        };
        for seg in 0..6 {
            let code = matches!(start, Start::Flat(_) | Start::Long(_)) && seg == regs::CS;
            let rights = 0x93 | if code { 8 } else { 0 } | cpl << 5 | bits;
            self.set(regs::SEG[seg], 0);
            self.set(regs::SEG_BASE[seg], 0);
            self.set(regs::SEG_LIMIT[seg], limit);
            self.set(regs::SEG_ATTR[seg], rights as u64);
        }
        if let Start::Vm86(iopl) = start {
            self.set(regs::EFLAGS, (regs::eflags::VM | iopl << 12) as u64);
        }
        if let Start::Long(_) = start {
            self.set(regs::CR4, cr4::PAE);
            self.set(regs::EFER, efer::LME | efer::LMA);
            self.map_ram();
        }
    }

    /// Tables of long mode that map all of the RAM at its address for everyone.
    pub fn map_ram(&mut self) {
        self.set(regs::CR3, TABLES);
        self.outside.write(TABLES, 8, (TABLES + 0x1000) as u128 | 7);
        self.outside.write(TABLES + 0x1000, 8, (TABLES + 0x2000) as u128 | 7);
        for n in 0..2 {
            let entry = (n << 21) as u128 | 0x87;
            self.outside.write(TABLES + 0x2000 + 8 * n, 8, entry);
        }
    }

    pub fn get(&self, slot: tulk_ir::Slot) -> u64 {
        self.state.get(cell(slot))
    }
    pub fn set(&mut self, slot: tulk_ir::Slot, v: u64) {
        self.state.set(cell(slot), v);
    }
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.outside.board.asked.lock().unwrap())
    }

    /// What walks see from now on.
    fn look(&mut self) {
        let mut seen = self.outside.seen.take().unwrap_or_else(CpuState::new);
        seen.cells[..1024].copy_from_slice(&self.state.cells[..1024]);
        self.outside.seen = Some(seen);
    }

    pub fn key(&self) -> TbKey {
        self.isa.tb_key(&self.state)
    }

    /// The present block.
    pub fn lift(&mut self, max_insns: u32) -> Unit {
        self.look();
        let key = self.key();
        let mut unit = Unit::new(0, 0, self.isa.fp_rule());
        let limits = LiftLimits { max_insns, end: GuestVa(u64::MAX) };
        let index = self.isa.code_mmu(key.flags);
        self.isa.lift(key, &mut Fetch(&mut self.outside, index), limits, &mut unit);
        if unit.len == 0 {
            return unit;
        }
        verify(&unit, self.isa.layout(), self.isa.helpers()).expect("a valid unit");
        unit
    }

    /// Runs one block of up to `max_insns` instructions.
    pub fn block(&mut self, max_insns: u32) -> Result<(), Trap> {
        let unit = self.lift(max_insns);
        if unit.len == 0 {
            let va = GuestVa(self.state.pc());
            let index = self.isa.code_mmu(self.key().flags);
            let fault = self.outside.translate(va.0, AccessKind::Exec, index);
            return Err(fault.expect_err("code that cannot be fetched").into());
        }
        let program = Program::new(&unit, self.isa.layout(), self.isa.helpers());
        let out = run(&program, &mut self.state, self.isa.helpers(), &mut self.outside);
        match out {
            Outcome::Direct(n) => {
                let exit = program.exit(n as usize);
                self.state.set_pc(exit.pc);
                assert_eq!(exit.flags, self.key().flags, "the key that the unit promised");
            }
            Outcome::Indirect { kind, pc, flags, .. } => {
                self.state.set_pc(pc);
                if kind != tulk_ir::ExitKind::Resync {
                    let promised = flags.unwrap_or(unit.flags);
                    assert_eq!(promised, self.key().flags, "the key that the unit promised");
                }
            }
            Outcome::Trap(trap) => return Err(trap),
        }
        Ok(())
    }

    /// Runs one instruction.
    pub fn step(&mut self) -> Result<(), Trap> {
        self.block(1)
    }

    pub fn with_cx<R>(&mut self, f: impl FnOnce(&X86, &mut HelperCx<'_>) -> R) -> R {
        self.look();
        f(&self.isa, &mut HelperCx { state: &mut self.state, env: &mut self.outside })
    }
}
