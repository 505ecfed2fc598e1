//! The toy guest with privileges, paging and exceptions, and a board for it.
//!
//! Paging is one table of 8-byte entries (see [`pte`]) for the first 16 MiB of addresses, on when `PTBR` is not 0. An exception
//! stores pc, cause and address to control registers and goes to `VEC` in kernel mode; `ERET` goes back.

use super::{Asm, HELPERS as PLAIN_HELPERS, MODE, Toy};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tulk_base::{
    AccessKind, Board, CpuEvent, CpuState, FaultCause, GuestPa, GuestVa, Mapping, MemFault,
    TlbFlush, Trap,
};
use tulk_exec::{Config, Engine, Exit, Vcpu, VcpuHandle};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, Stop, SystemIsa, TbKey};
use tulk_ir::{
    Access, Builder, ExitKind, FpEnv, FpRule, HelperCx, HelperDef, RegLayout, Slot, Type, Unit,
};
use tulk_softmmu::{PhysKind, PhysMem};

/// Operations beyond [`super::op`].
pub mod op {
    /// control register `a` = register `b`
    pub const CSRW: u8 = 64;
    /// register `a` = control register `b`
    pub const CSRR: u8 = 65;
    /// back from an exception
    pub const ERET: u8 = 66;
    /// TLB flush of kind `a` (0 all, 1 non-global, 2 page of register `b`, 3 space of register `b`)
    pub const TLBI: u8 = 67;
    /// waits for an event
    pub const HALT: u8 = 68;
    /// port `b` = register `a`
    pub const OUT: u8 = 69;
    /// register `a` = port `b`
    pub const IN: u8 = 70;
    /// `a = [b]`, 8 bits
    pub const LD8: u8 = 71;
    /// `[b] = a`, 8 bits
    pub const ST8: u8 = 72;
    /// 16 bytes from `[b]` to `[a]`
    pub const MOV16: u8 = 73;
    /// compare-and-swap of 16 bytes at `[b]`: from zero to registers `a` and `c`; register `a` = low half of the old value
    pub const CAS16: u8 = 74;
}

/// Control registers.
pub mod cr {
    pub const PTBR: u8 = 0;
    pub const SPACE: u8 = 1;
    pub const VEC: u8 = 2;
    pub const EPC: u8 = 3;
    pub const CAUSE: u8 = 4;
    pub const EVA: u8 = 5;
    pub const IE: u8 = 6;
    pub const SMODE: u8 = 7;
    pub const SIE: u8 = 8;
    pub const CPU: u8 = 9;
    pub const MODE: u8 = 10;
    pub const COUNT: u16 = 11;
}

/// Bits of page table entries.
pub mod pte {
    pub const PRESENT: u64 = 1;
    pub const WRITE: u64 = 2;
    pub const EXEC: u64 = 4;
    pub const USER: u64 = 8;
    pub const GLOBAL: u64 = 16;
    pub const ACCESSED: u64 = 32;
    pub const DIRTY: u64 = 64;
    /// One of 16 entries of a page of 64 KiB.
    pub const LARGE: u64 = 128;
    pub const RW: u64 = PRESENT | WRITE;
    pub const RWX: u64 = RW | EXEC;
}

/// Causes.
pub mod cause {
    pub const READ: u64 = 1;
    pub const WRITE: u64 = 2;
    pub const EXEC: u64 = 3;
    pub const ILLEGAL: u64 = 4;
    pub const ALIGN: u64 = 5;
    /// Plus the number.
    pub const SYSCALL: u64 = 16;
    /// Plus the vector.
    pub const INTERRUPT: u64 = 512;
}

/// Key flag (and bit of MODE): user mode.
pub const USER: u64 = 1 << 8;

pub fn mmu_of(flags: u64) -> u8 {
    (flags & USER != 0) as u8
}

/// First slot of the control registers.
const CR: u16 = 19;

fn cr_slot(n: u8) -> Slot {
    if n == cr::MODE { MODE } else { Slot(CR + n as u16) }
}

/// See the module.
pub struct SystemToy {
    pub toy: Toy,
}

/// Cells as every `SystemToy` has them.
fn cell(n: u8) -> u16 {
    static CELLS: OnceLock<Vec<u16>> = OnceLock::new();
    let cells = CELLS.get_or_init(|| {
        let layout = SystemToy::new().toy.layout;
        (0..cr::COUNT as u8).map(|n| layout.cell(cr_slot(n))).collect()
    });
    cells[n as usize]
}

fn get(state: &CpuState, n: u8) -> u64 {
    state.get(cell(n))
}
fn put(state: &mut CpuState, n: u8, value: u64) {
    state.set(cell(n), value);
}

fn csrw(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (n, value) = (args[3] as u8, args[0] as u64);
    put(cx.state, n, value);
    let machine = cx.env.machine().expect("system mode");
    match n {
        cr::PTBR => machine.flush_tlb(TlbFlush::NonGlobal),
        cr::SPACE => machine.switch_space(value as u16),
        _ => {}
    }
    Ok(0)
}

fn eret(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    let state = &mut *cx.state;
    let [mode, ie] = [get(state, cr::SMODE), get(state, cr::SIE)];
    put(state, cr::MODE, mode);
    put(state, cr::IE, ie);
    Ok(0)
}

fn tlbi(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let space = get(cx.state, cr::SPACE) as u16;
    let what = match args[3] {
        0 => TlbFlush::All,
        1 => TlbFlush::NonGlobal,
        2 => TlbFlush::Page { va: GuestVa(args[0] as u64), space },
        _ => TlbFlush::Space(args[0] as u16),
    };
    cx.env.machine().expect("system mode").flush_tlb(what);
    Ok(0)
}

fn port_out(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let machine = cx.env.machine().expect("system mode");
    machine.board().port_write(machine.cpu(), args[3] as u16, 4, args[0] as u32);
    Ok(0)
}

fn port_in(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let machine = cx.env.machine().expect("system mode");
    Ok(machine.board().port_read(machine.cpu(), args[3] as u16, 4) as u128)
}

const HELPER: HelperDef = HelperDef {
    name: "",
    func: csrw,
    args: &[],
    ret: None,
    reads: Access::All,
    writes: Access::All,
    may_trap: true,
    pure: false,
    direct: None,
};

static HELPERS: [HelperDef; 7] = [
    PLAIN_HELPERS[0],
    PLAIN_HELPERS[1],
    HelperDef { name: "csrw", func: csrw, args: &[Type::I64], ..HELPER },
    HelperDef { name: "eret", func: eret, ..HELPER },
    HelperDef { name: "tlbi", func: tlbi, args: &[Type::I64], ..HELPER },
    HelperDef { name: "out", func: port_out, args: &[Type::I64], ..HELPER },
    HelperDef { name: "in", func: port_in, ret: Some(Type::I64), ..HELPER },
];

impl SystemToy {
    pub fn new() -> SystemToy {
        let mut toy = Toy::new(true);
        for n in 0..cr::COUNT - 1 {
            toy.layout.add(format!("cr{n}"), Type::I64, None);
        }
        SystemToy { toy }
    }

    fn lift_system(&self, b: &mut Builder<'_>, pc: u64, insn: [u8; 4], flags: u64) -> Option<bool> {
        let [opcode, fa, fb, fc] = insn;
        let slot = |n: u8| Slot(n as u16 & 15);
        let next = pc + 4;
        let paged = |op: tulk_base::MemOp| op.with_mmu(mmu_of(flags));
        match opcode {
            op::CSRW => {
                let v = b.get(slot(fb));
                b.call(2, &[v], fa as i64);
                let next = b.iconst(Type::I64, next as i64);
                b.exit_indirect(ExitKind::Resync, next, None, None);
                return Some(true);
            }
            op::CSRR => {
                let v = b.get(cr_slot(fb));
                b.set(slot(fa), v);
            }
            op::ERET => {
                b.call(3, &[], 0);
                let v = b.get(cr_slot(cr::EPC));
                b.exit_indirect(ExitKind::Resync, v, None, None);
                return Some(true);
            }
            op::TLBI => {
                let v = b.get(slot(fb));
                b.call(4, &[v], fa as i64);
                let next = b.iconst(Type::I64, next as i64);
                b.exit_indirect(ExitKind::Resync, next, None, None);
                return Some(true);
            }
            op::HALT => {
                b.trap(ExitKind::Halt, 0, next);
                return Some(true);
            }
            op::OUT => {
                let v = b.get(slot(fa));
                b.call(5, &[v], fb as i64);
            }
            op::IN => {
                let v = b.call(6, &[], fb as i64);
                b.set(slot(fa), v);
            }
            op::LD8 => {
                let x = b.get(slot(fb));
                let v = b.load(Type::I64, x, 0, paged(tulk_base::MemOp::U8));
                b.set(slot(fa), v);
            }
            op::ST8 => {
                let (x, v) = (b.get(slot(fb)), b.get(slot(fa)));
                b.store(x, 0, paged(tulk_base::MemOp::U8), v);
            }
            op::MOV16 => {
                let (from, to) = (b.get(slot(fb)), b.get(slot(fa)));
                let v = b.load(Type::V128, from, 0, paged(tulk_base::MemOp::U128));
                b.store(to, 0, paged(tulk_base::MemOp::U128), v);
            }
            op::CAS16 => {
                let x = b.get(slot(fb));
                let (low, high) = (b.get(slot(fa)), b.get(slot(fc)));
                let zero = b.iconst(Type::I64, 0);
                let (old, new) = (b.concat(zero, zero), b.concat(low, high));
                let op = paged(tulk_base::MemOp::U128).with_align(tulk_base::MemAlign::Sixteen);
                let v = b.atomic_cas(op, x, old, new);
                let v = b.lo64(v);
                b.set(slot(fa), v);
            }
            _ => return None,
        }
        Some(false)
    }
}

impl GuestIsa for SystemToy {
    fn name(&self) -> &'static str {
        "toy-system"
    }
    fn layout(&self) -> &RegLayout {
        &self.toy.layout
    }
    fn helpers(&self) -> &'static [HelperDef] {
        &HELPERS
    }
    fn fp_rule(&self) -> FpRule {
        FpRule::Arm
    }
    fn tb_key(&self, state: &CpuState) -> TbKey {
        self.toy.tb_key(state)
    }
    fn lift(&self, key: TbKey, code: &mut dyn CodeReader, limits: LiftLimits, unit: &mut Unit) {
        assert_eq!(key.flags & !self.key_mask(), 0, "the engine's bits");
        self.toy.lift_block(key, code, limits, unit, &HELPERS, |b, pc, insn| {
            self.lift_system(b, pc, insn, key.flags)
                .unwrap_or_else(|| self.toy.lift_insn(b, pc, insn, key.flags))
        });
    }
    fn load_fp(&self, state: &CpuState, env: &mut dyn FpEnv) {
        self.toy.load_fp(state, env);
    }
    fn save_fp(&self, state: &mut CpuState, env: &mut dyn FpEnv) {
        self.toy.save_fp(state, env);
    }
    fn disassemble(&self, key: TbKey, bytes: &[u8]) -> Option<(String, usize)> {
        self.toy.disassemble(key, bytes)
    }
    fn self_modifying_is_exact(&self) -> bool {
        true
    }
}

impl SystemIsa for SystemToy {
    fn mmu_modes(&self) -> u8 {
        2
    }
    fn code_mmu(&self, flags: u64) -> u8 {
        mmu_of(flags)
    }
    fn key_mask(&self) -> u64 {
        (1 << 40) - 1
    }
    fn walk(
        &self,
        state: &CpuState,
        machine: &mut dyn tulk_ir::Machine,
        va: GuestVa,
        kind: AccessKind,
        mmu: u8,
    ) -> Result<Mapping, MemFault> {
        WALKS.fetch_add(1, Ordering::Relaxed);
        let base = get(state, cr::PTBR);
        if base == 0 {
            let pa = GuestPa(va.0 & !0xfff);
            let yes = true;
            return Ok(Mapping {
                pa,
                size_log2: 12,
                read: yes,
                write: yes,
                exec: yes,
                global: false,
            });
        }
        let fault = |code| MemFault { va, kind, cause: FaultCause::Page(code) };
        let page = va.0 >> 12;
        if page >= 4096 {
            return Err(fault(0));
        }
        loop {
            let at = GuestPa(base + 8 * page);
            let entry = machine.phys_load(at, 8);
            let need = match kind {
                AccessKind::Read => 0,
                AccessKind::Write => pte::WRITE,
                AccessKind::Exec => pte::EXEC,
            } | if mmu == 1 { pte::USER } else { 0 }
                | pte::PRESENT;
            if entry & need != need {
                return Err(fault((entry & pte::PRESENT) as u32));
            }
            let dirty = if kind == AccessKind::Write { pte::DIRTY } else { 0 };
            let new = entry | pte::ACCESSED | dirty;
            if new != entry && !machine.phys_replace(at, 8, entry, new) {
                continue;
            }
            let user = mmu == 0 || entry & pte::USER != 0;
            return Ok(Mapping {
                pa: GuestPa(entry & !0xfff),
                size_log2: if entry & pte::LARGE != 0 { 16 } else { 12 },
                read: user,
                write: user && entry & pte::WRITE != 0 && new & pte::DIRTY != 0,
                exec: user && entry & pte::EXEC != 0,
                global: entry & pte::GLOBAL != 0,
            });
        }
    }
    fn deliver(&self, cx: &mut HelperCx<'_>, trap: Trap) -> Result<(), Stop> {
        let ie = get(cx.state, cr::IE) != 0;
        let (number, va) = match trap {
            Trap::Halt => return Err(Stop::Halt { interrupts: ie }),
            Trap::Syscall(n) => (cause::SYSCALL + n as u64, 0),
            Trap::Mem(MemFault { va, cause: FaultCause::Align, .. }) => (cause::ALIGN, va.0),
            Trap::Mem(fault) => {
                assert!(matches!(fault.cause, FaultCause::Page(_)), "{fault:?}");
                let number = match fault.kind {
                    AccessKind::Read => cause::READ,
                    AccessKind::Write => cause::WRITE,
                    AccessKind::Exec => cause::EXEC,
                };
                (number, fault.va.0)
            }
            Trap::Illegal => (cause::ILLEGAL, 0),
            other => panic!("{other:?}"),
        };
        self.enter_handler(cx, number, va)
    }
    fn take_event(&self, cx: &mut HelperCx<'_>) -> Result<bool, Stop> {
        let enabled = self.interrupts_enabled(cx.state);
        let machine = cx.env.machine().expect("system mode");
        match machine.board().take_event(machine.cpu(), enabled) {
            None => Ok(false),
            Some(CpuEvent::Interrupt(v)) => {
                self.enter_handler(cx, cause::INTERRUPT + v as u64, 0).map(|()| true)
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    fn interrupts_enabled(&self, state: &CpuState) -> bool {
        get(state, cr::IE) != 0
    }
    fn reset_processor(&self, state: &mut CpuState, cpu: u32) {
        put(state, cr::CPU, cpu as u64);
    }
}

impl SystemToy {
    fn enter_handler(&self, cx: &mut HelperCx<'_>, number: u64, va: u64) -> Result<(), Stop> {
        if get(cx.state, cr::VEC) == 0 {
            let machine = cx.env.machine().expect("system mode");
            machine.board().shutdown(machine.cpu());
            return Err(Stop::Shutdown);
        }
        let state = &mut *cx.state;
        let (pc, mode, ie) = (state.pc(), get(state, cr::MODE), get(state, cr::IE));
        for (n, v) in [
            (cr::EPC, pc),
            (cr::CAUSE, number),
            (cr::EVA, va),
            (cr::SMODE, mode),
            (cr::SIE, ie),
            (cr::MODE, mode & !USER),
            (cr::IE, 0),
        ] {
            put(state, n, v);
        }
        let vec = get(state, cr::VEC);
        state.set_pc(vec);
        Ok(())
    }
}

/// Page walks of the whole process.
pub static WALKS: AtomicU64 = AtomicU64::new(0);

type OnPort = Box<dyn Fn(&TestBoard, u32, u32) + Send + Sync>;

/// A board: devices at [`DEVICE`], ports that tests define.
#[derive(Default)]
pub struct TestBoard {
    /// Writes to devices and ports: address or port, bytes, value.
    pub log: Mutex<Vec<(u64, u8, u64)>>,
    /// What a write to a port does.
    pub on_port: Mutex<Vec<(u16, Arc<OnPort>)>>,
    pub input: AtomicU64,
    pub events: Mutex<Vec<VecDeque<u8>>>,
    pub handles: Mutex<Vec<VcpuHandle>>,
    pub shutdowns: AtomicU64,
}

/// Where devices begin.
pub const DEVICE: u64 = 0xf0_0000;

impl TestBoard {
    pub fn port(&self, number: u16, f: impl Fn(&TestBoard, u32, u32) + Send + Sync + 'static) {
        self.on_port.lock().unwrap().push((number, Arc::new(Box::new(f))));
    }
    pub fn raise(&self, cpu: u32, vector: u8) {
        {
            let mut events = self.events.lock().unwrap();
            let n = cpu as usize;
            if events.len() <= n {
                events.resize(n + 1, VecDeque::new());
            }
            events[n].push_back(vector);
        }
        self.handles.lock().unwrap()[cpu as usize].interrupt();
    }
}

impl Board for TestBoard {
    fn port_read(&self, _cpu: u32, port: u16, _bytes: u8) -> u32 {
        self.input.load(Ordering::SeqCst) as u32 + port as u32
    }
    fn port_write(&self, cpu: u32, port: u16, bytes: u8, value: u32) {
        let action = self.on_port.lock().unwrap().iter().find(|p| p.0 == port).map(|p| p.1.clone());
        match action {
            Some(action) => action(self, cpu, value),
            None => self.log.lock().unwrap().push((port as u64, bytes, value as u64)),
        }
    }
    fn mmio_read(&self, _cpu: u32, pa: GuestPa, bytes: u8) -> u64 {
        assert!(pa.0 / 4096 == (pa.0 + bytes as u64 - 1) / 4096, "within a page");
        pa.0.wrapping_mul(0x0101_0101_0101)
    }
    fn mmio_write(&self, _cpu: u32, pa: GuestPa, bytes: u8, value: u64) {
        self.log.lock().unwrap().push((pa.0, bytes, value));
    }
    fn has_event(&self, cpu: u32, interrupts: bool) -> bool {
        let events = self.events.lock().unwrap();
        interrupts && events.get(cpu as usize).is_some_and(|e| !e.is_empty())
    }
    fn take_event(&self, cpu: u32, interrupts: bool) -> Option<CpuEvent> {
        let mut events = self.events.lock().unwrap();
        let queue = events.get_mut(cpu as usize).filter(|_| interrupts)?;
        queue.pop_front().map(CpuEvent::Interrupt)
    }
    fn msr_read(&self, _cpu: u32, _msr: u32) -> Option<u64> {
        None
    }
    fn msr_write(&self, _cpu: u32, _msr: u32, _value: u64) -> bool {
        false
    }
    fn task_priority(&self, _cpu: u32) -> u8 {
        0
    }
    fn set_task_priority(&self, _cpu: u32, _priority: u8) {}
    fn address_mask(&self) -> u64 {
        u64::MAX
    }
    fn clock_ns(&self) -> u64 {
        0
    }
    fn shutdown(&self, _cpu: u32) {
        self.shutdowns.fetch_add(1, Ordering::SeqCst);
    }
}

/// Physical memory: tables at [`TABLE`], the handler at [`HANDLER`], code at [`CODE`], all of it RAM up to [`RAM`].
pub const RAM: u64 = 8 << 20;
pub const TABLE: u64 = 0x10_0000;
pub const TABLE2: u64 = 0x11_0000;
pub const HANDLER: u64 = 0x2000;
pub const CODE: u64 = 0x4000;
pub const DATA: u64 = 0x20_0000;

/// A machine with one processor made, tables that map [0, 1 MiB) to itself for the kernel, and no paging yet.
pub struct Computer {
    pub isa: Arc<SystemToy>,
    pub mem: Arc<PhysMem>,
    pub board: Arc<TestBoard>,
    pub engine: Arc<Engine>,
    pub vcpu: Vcpu,
}

impl Computer {
    pub fn new(config: &Config) -> Computer {
        let mem = PhysMem::new(RAM, 16 << 20).expect("memory");
        mem.map(GuestPa(0), RAM, 0, PhysKind::Ram);
        let isa = Arc::new(SystemToy::new());
        let board = Arc::new(TestBoard::default());
        let engine = Engine::system(isa.clone(), mem.clone(), board.clone(), config.clone())
            .expect("engine");
        let vcpu = engine.processor(0);
        board.handles.lock().unwrap().push(vcpu.handle());
        let computer = Computer { isa, mem, board, engine, vcpu };
        for table in [TABLE, TABLE2] {
            for page in 0..256 {
                computer.map(table, page << 12, page << 12, pte::RWX);
            }
        }
        computer
    }
    /// Enters a page in a table.
    pub fn map(&self, table: u64, va: u64, pa: u64, bits: u64) {
        self.write64(table + 8 * (va >> 12), pa | bits);
    }
    pub fn write64(&self, pa: u64, value: u64) {
        assert!(self.mem.write(GuestPa(pa), &value.to_le_bytes()));
    }
    pub fn read64(&self, pa: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(self.mem.read(GuestPa(pa), &mut bytes));
        u64::from_le_bytes(bytes)
    }
    pub fn load(&self, pa: u64, asm: &mut Asm) {
        assert!(self.mem.write(GuestPa(pa), &asm.bytes()));
    }
    pub fn reg(&self, n: usize) -> u64 {
        self.vcpu.state.get(self.isa.toy.reg(n))
    }
    pub fn set(&mut self, n: usize, value: u64) {
        let cell = self.isa.toy.reg(n);
        self.vcpu.state.set(cell, value);
    }
    pub fn cr(&self, n: u8) -> u64 {
        get(&self.vcpu.state, n)
    }
    /// Sets a control register before the processor runs.
    pub fn set_cr(&mut self, n: u8, value: u64) {
        put(&mut self.vcpu.state, n, value);
    }
    /// Runs from `pc` until it halts with interrupts off.
    pub fn run(&mut self, pc: u64, what: &str) {
        self.vcpu.state.set_pc(pc);
        assert_eq!(
            self.vcpu.run(),
            Exit::Halt { interrupts: false },
            "{what}, at {:#x}",
            self.vcpu.state.pc()
        );
    }
}
