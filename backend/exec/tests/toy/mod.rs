//! A toy guest: sixteen 64-bit registers, instructions of four bytes (operation, three byte fields), so that the
//! engine is tested without a real frontend. Also its assembler and a machine to run it on.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod system;

use std::sync::Arc;
use tulk_base::state::CELL_PC;
use tulk_base::{CpuState, GuestVa, MemOp, RmwOp, Trap};
use tulk_exec::{Config, Engine, Exit, Tier, Vcpu, Watch};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::{
    Access, Builder, ExitKind, FpEnv, FpFlags, FpRule, HelperCx, HelperDef, IntCc, RegLayout,
    Round, Slot, Type, Unit,
};
use tulk_softmmu::intervals::{EXEC, READ, WRITE};
use tulk_softmmu::{MapRequest, UserSpace};

/// Operations. `a`, `b`, `c` are the byte fields, `imm` the last two as a signed number, `off` the same in
/// instructions from this one.
pub mod op {
    /// `a = imm` (negated in mode 1)
    pub const MOVI: u8 = 0;
    /// `a = b + c`
    pub const ADD: u8 = 1;
    /// `a = b + signed c`
    pub const ADDI: u8 = 2;
    /// `a = b - c`
    pub const SUB: u8 = 3;
    /// `a = [b + signed c]`
    pub const LD: u8 = 4;
    /// `[b + signed c] = a`
    pub const ST: u8 = 5;
    /// to `off` if `a != 0`
    pub const BNZ: u8 = 6;
    /// to `off`
    pub const JMP: u8 = 7;
    /// r15 = next; to `off`
    pub const CALL: u8 = 8;
    /// to r15
    pub const RET: u8 = 9;
    /// to `a`
    pub const JR: u8 = 10;
    /// system call `a`
    pub const SYS: u8 = 11;
    /// code in `[a, a + b)` was changed
    pub const FLUSH: u8 = 12;
    /// `a = b << c`
    pub const SHLI: u8 = 13;
    /// `[b + signed c] = a`, 32 bits
    pub const ST32: u8 = 14;
    /// `a = b * c`, by a helper; a breakpoint trap when b is 7
    pub const HMUL: u8 = 15;
    /// `a = b + c` as doubles
    pub const FADD: u8 = 16;
    /// `a = b / c` as doubles
    pub const FDIV: u8 = 17;
    /// atomic `a = [b]; [b] += c`
    pub const XADD: u8 = 18;
    /// mode = `a`
    pub const MODE: u8 = 19;
    /// waits for changed code
    pub const SYNC: u8 = 20;
    /// rounding mode of doubles = `a` (0 nearest, 1 down)
    pub const ROUND: u8 = 21;
    /// call to `a` with r15 = next
    pub const CALLR: u8 = 22;
    /// `a = [b]`, 16-byte aligned or a fault
    pub const LDA: u8 = 23;
}

pub const LR: usize = 15;

pub struct Toy {
    layout: RegLayout,
    pub exact: bool,
}

/// Slots in the order in which they are added.
const MODE: Slot = Slot(16);
const ROUND: Slot = Slot(17);
const FLAGS: Slot = Slot(18);

fn helper_mul(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let _ = cx;
    if args[0] == 7 {
        return Err(Trap::Breakpoint(args[3] as u32));
    }
    Ok((args[0] as u64).wrapping_mul(args[1] as u64) as u128)
}

fn helper_flush(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    cx.env.invalidate_code(GuestVa(args[0] as u64), args[1] as u64);
    Ok(0)
}

static HELPERS: [HelperDef; 2] = [
    HelperDef {
        name: "mul",
        func: helper_mul,
        args: &[Type::I64, Type::I64],
        ret: Some(Type::I64),
        reads: Access::None,
        writes: Access::None,
        may_trap: true,
        pure: false,
        direct: None,
    },
    HelperDef {
        name: "flush",
        func: helper_flush,
        args: &[Type::I64, Type::I64],
        ret: None,
        reads: Access::None,
        writes: Access::None,
        may_trap: false,
        pure: false,
        direct: None,
    },
];

impl Toy {
    pub fn new(exact: bool) -> Toy {
        let mut layout = RegLayout::new();
        for n in 0..16 {
            layout.add(format!("r{n}"), Type::I64, Some(n));
        }
        layout.add("mode", Type::I64, None);
        layout.add("round", Type::I64, None);
        layout.add("flags", Type::I64, None);
        Toy { layout, exact }
    }
    pub fn reg(&self, n: usize) -> u16 {
        self.layout.cell(Slot(n as u16))
    }
    pub fn flags(&self) -> u16 {
        self.layout.cell(FLAGS)
    }

    /// Lifts one instruction; true when it ends the block.
    fn lift_insn(&self, b: &mut Builder<'_>, pc: u64, insn: [u8; 4], mode: u64) -> bool {
        let [opcode, fa, fb, fc] = insn;
        let slot = |n: u8| Slot(n as u16 & 15);
        let paged = |op: MemOp| op.with_mmu(system::mmu_of(mode));
        let imm = i16::from_le_bytes([fb, fc]) as i64;
        let to = pc.wrapping_add_signed(imm * 4);
        let next = pc.wrapping_add(4);
        match opcode {
            op::MOVI => {
                let v = b.iconst(Type::I64, if mode == 1 { -imm } else { imm });
                b.set(slot(fa), v);
            }
            op::ADD | op::SUB | op::FADD | op::FDIV => {
                let (x, y) = (b.get(slot(fb)), b.get(slot(fc)));
                let v = match opcode {
                    op::ADD => b.add(x, y),
                    op::SUB => b.sub(x, y),
                    _ => {
                        let (x, y) = (b.bitcast(Type::F64, x), b.bitcast(Type::F64, y));
                        let v = if opcode == op::FADD { b.fadd(x, y) } else { b.fdiv(x, y) };
                        b.bitcast(Type::I64, v)
                    }
                };
                b.set(slot(fa), v);
            }
            op::ADDI => {
                let x = b.get(slot(fb));
                let v = b.add_imm(x, fc as i8 as i64);
                b.set(slot(fa), v);
            }
            op::LD => {
                let x = b.get(slot(fb));
                let v = b.load(Type::I64, x, fc as i8 as i64, paged(MemOp::U64));
                b.set(slot(fa), v);
            }
            op::LDA => {
                let x = b.get(slot(fb));
                let op = paged(MemOp::U64).with_align(tulk_base::MemAlign::Sixteen);
                let v = b.load(Type::I64, x, 0, op);
                b.set(slot(fa), v);
            }
            op::ST | op::ST32 => {
                let (x, v) = (b.get(slot(fb)), b.get(slot(fa)));
                let op = if opcode == op::ST { MemOp::U64 } else { MemOp::U32 };
                b.store(x, fc as i8 as i64, paged(op), v);
            }
            op::BNZ => {
                let x = b.get(slot(fa));
                let cond = b.icmp_imm(IntCc::Ne, x, 0);
                let (taken, other) = (b.label(), b.label());
                b.brif(cond, taken, other);
                b.place(taken);
                b.exit(to);
                b.place(other);
                b.exit(next);
                return true;
            }
            op::JMP => {
                b.exit(to);
                return true;
            }
            op::CALL => {
                let v = b.iconst(Type::I64, next as i64);
                b.set(slot(LR as u8), v);
                b.exit_call(to, next);
                return true;
            }
            op::CALLR => {
                let x = b.get(slot(fa));
                let v = b.iconst(Type::I64, next as i64);
                b.set(slot(LR as u8), v);
                b.exit_indirect(ExitKind::Call, x, Some(next), None);
                return true;
            }
            op::RET => {
                let x = b.get(slot(LR as u8));
                b.exit_indirect(ExitKind::Return, x, None, None);
                return true;
            }
            op::JR => {
                let x = b.get(slot(fa));
                b.exit_indirect(ExitKind::Jump, x, None, None);
                return true;
            }
            op::SYS => {
                b.trap(ExitKind::Syscall, fa as u32, next);
                return true;
            }
            op::FLUSH => {
                let (x, y) = (b.get(slot(fa)), b.get(slot(fb)));
                b.call(1, &[x, y], 0);
            }
            op::SHLI => {
                let x = b.get(slot(fb));
                let v = b.shl_imm(x, fc as u32);
                b.set(slot(fa), v);
            }
            op::HMUL => {
                let (x, y) = (b.get(slot(fb)), b.get(slot(fc)));
                let v = b.call(0, &[x, y], fa as i64);
                b.set(slot(fa), v);
            }
            op::XADD => {
                let (x, y) = (b.get(slot(fb)), b.get(slot(fc)));
                let v = b.atomic_rmw(RmwOp::Add, paged(MemOp::U64), x, y);
                b.set(slot(fa), v);
            }
            op::MODE => {
                let (v, pc) = (b.iconst(Type::I64, fa as i64), b.iconst(Type::I64, next as i64));
                b.set(MODE, v);
                b.exit_indirect(ExitKind::Jump, pc, None, Some(v));
                return true;
            }
            op::ROUND => {
                let (v, pc) = (b.iconst(Type::I64, fa as i64), b.iconst(Type::I64, next as i64));
                b.set(ROUND, v);
                b.exit_indirect(ExitKind::Resync, pc, None, None);
                return true;
            }
            op::SYNC => {
                let pc = b.iconst(Type::I64, next as i64);
                b.exit_indirect(ExitKind::Resync, pc, None, None);
                return true;
            }
            _ => {
                b.trap(ExitKind::Illegal, 0, pc);
                return true;
            }
        }
        false
    }

    /// Lifts a block with `lift_insn`, which is true when the instruction ends it.
    fn lift_block(
        &self,
        key: TbKey,
        code: &mut dyn CodeReader,
        limits: LiftLimits,
        unit: &mut Unit,
        helpers: &'static [HelperDef],
        mut lift_insn: impl FnMut(&mut Builder<'_>, u64, [u8; 4]) -> bool,
    ) {
        unit.reset(key.pc.0, key.flags, FpRule::Arm);
        let mut pc = key.pc.0;
        let mut b = Builder::new(unit, &self.layout, helpers);
        let mut insns = 0;
        loop {
            let mut insn = [0; 4];
            if code.fetch(GuestVa(pc), &mut insn) < 4 {
                if insns == 0 {
                    b.trap(ExitKind::Illegal, 0, pc);
                    b.finish();
                    unit.len = 0;
                    return;
                }
                b.exit(pc);
                break;
            }
            b.insn(pc, 4);
            insns += 1;
            let ended = lift_insn(&mut b, pc, insn);
            pc += 4;
            if ended {
                break;
            }
            if insns >= limits.max_insns || pc >= limits.end.0 {
                b.exit(pc);
                break;
            }
        }
        b.finish();
        unit.len = (pc - key.pc.0) as u32;
    }
}

impl GuestIsa for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn layout(&self) -> &RegLayout {
        &self.layout
    }
    fn helpers(&self) -> &'static [HelperDef] {
        &HELPERS
    }
    fn fp_rule(&self) -> FpRule {
        FpRule::Arm
    }
    fn tb_key(&self, state: &CpuState) -> TbKey {
        TbKey { pc: GuestVa(state.pc()), flags: state.get(self.layout.cell(MODE)) }
    }
    fn lift(&self, key: TbKey, code: &mut dyn CodeReader, limits: LiftLimits, unit: &mut Unit) {
        self.lift_block(key, code, limits, unit, &HELPERS, |b, pc, insn| {
            self.lift_insn(b, pc, insn, key.flags)
        });
    }
    fn load_fp(&self, state: &CpuState, env: &mut dyn FpEnv) {
        let down = state.get(self.layout.cell(ROUND)) == 1;
        env.set_fp_mode(if down { Round::Down } else { Round::Nearest }, false, false);
        env.set_fp_flags(FpFlags(state.get(self.layout.cell(FLAGS)) as u8));
    }
    fn save_fp(&self, state: &mut CpuState, env: &mut dyn FpEnv) {
        state.set(self.layout.cell(FLAGS), env.fp_flags().0 as u64);
    }
    fn disassemble(&self, _key: TbKey, bytes: &[u8]) -> Option<(String, usize)> {
        (bytes.len() >= 4).then(|| (format!("op{} {:?}", bytes[0], &bytes[1..4]), 4))
    }
    fn self_modifying_is_exact(&self) -> bool {
        self.exact
    }
}

/// Assembles: three-field instructions, and branches to labels.
#[derive(Default)]
pub struct Asm {
    pub words: Vec<[u8; 4]>,
    labels: Vec<Option<usize>>,
    fixups: Vec<(usize, usize)>,
}

#[derive(Clone, Copy)]
pub struct Label(usize);

impl Asm {
    pub fn new() -> Asm {
        Asm::default()
    }
    pub fn op(&mut self, opcode: u8, a: u8, b: u8, c: i8) -> &mut Self {
        self.words.push([opcode, a, b, c as u8]);
        self
    }
    pub fn imm(&mut self, opcode: u8, a: u8, imm: i16) -> &mut Self {
        let [l, h] = imm.to_le_bytes();
        self.words.push([opcode, a, l, h]);
        self
    }
    pub fn movi(&mut self, a: u8, imm: i16) -> &mut Self {
        self.imm(op::MOVI, a, imm)
    }
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }
    pub fn place(&mut self, label: Label) -> &mut Self {
        self.labels[label.0] = Some(self.words.len());
        self
    }
    pub fn here(&mut self) -> Label {
        let label = self.label();
        self.place(label);
        label
    }
    pub fn branch(&mut self, opcode: u8, a: u8, to: Label) -> &mut Self {
        self.fixups.push((self.words.len(), to.0));
        self.imm(opcode, a, 0)
    }
    pub fn sys(&mut self, n: u8) -> &mut Self {
        self.op(op::SYS, n, 0, 0)
    }
    pub fn offset(&self, label: Label) -> u64 {
        4 * self.labels[label.0].expect("placed") as u64
    }
    pub fn bytes(&mut self) -> Vec<u8> {
        for (at, label) in std::mem::take(&mut self.fixups) {
            let to = self.labels[label].expect("placed");
            let [l, h] = (to as i64 - at as i64).try_into().map(i16::to_le_bytes).expect("near");
            self.words[at][2] = l;
            self.words[at][3] = h;
        }
        self.words.concat()
    }
}

/// A named way to run things.
#[derive(Clone)]
pub struct Setting {
    pub name: &'static str,
    pub window: bool,
    pub config: Config,
}

/// Every tier, with memory at guest addresses and in a window.
pub fn settings() -> Vec<Setting> {
    let mixed = |synchronous| Config {
        baseline_threshold: 1,
        threshold: 2,
        synchronous,
        workers: 1,
        compile_share: 1 << 16,
        ..Config::for_tier(Tier::Mixed)
    };
    let baseline =
        |n| Config { baseline_threshold: n, threshold: 2, ..Config::for_tier(Tier::Baseline) };
    vec![
        Setting { name: "interp", window: false, config: Config::for_tier(Tier::Interp) },
        Setting { name: "interp, window", window: true, config: Config::for_tier(Tier::Interp) },
        Setting { name: "baseline", window: false, config: baseline(1) },
        Setting { name: "baseline, window", window: true, config: baseline(3) },
        Setting { name: "jit", window: false, config: Config::for_tier(Tier::Jit) },
        Setting { name: "jit, window", window: true, config: Config::for_tier(Tier::Jit) },
        Setting { name: "mixed", window: false, config: mixed(false) },
        Setting { name: "mixed, synchronous", window: true, config: mixed(true) },
        Setting {
            name: "mixed, slower",
            window: false,
            config: Config { baseline_threshold: 3, threshold: 50, ..mixed(false) },
        },
        Setting {
            name: "mixed, watched",
            window: false,
            config: Config { watch: Watch::Always, ..mixed(false) },
        },
    ]
}

/// A toy computer: code at `code`, sixteen pages of data at `data`.
pub struct Machine {
    pub isa: Arc<Toy>,
    pub mem: Arc<UserSpace>,
    pub engine: Arc<Engine>,
    pub vcpu: Vcpu,
    pub code: u64,
    pub data: u64,
}

pub const CODE_SIZE: u64 = 64 << 12;
pub const DATA_SIZE: u64 = 16 << 12;

impl Machine {
    pub fn new(setting: &Setting) -> Machine {
        Machine::with(setting, false)
    }
    pub fn with(setting: &Setting, exact: bool) -> Machine {
        let mem = if setting.window { UserSpace::window32() } else { UserSpace::flat() };
        let mem = Arc::new(mem.expect("memory"));
        let map = |len, prot| mem.map(&MapRequest::anonymous(len, prot)).expect("memory").0;
        let code = map(CODE_SIZE, READ | WRITE | EXEC);
        let data = map(DATA_SIZE, READ | WRITE);
        let isa = Arc::new(Toy::new(exact));
        let engine = Engine::new(isa.clone(), mem.clone(), setting.config.clone());
        let vcpu = engine.vcpu();
        let mut machine = Machine { isa, mem, engine, vcpu, code, data };
        machine.vcpu.state.cells[CELL_PC as usize] = code;
        machine
    }
    /// Puts code at the start of the code pages.
    pub fn load(&mut self, asm: &mut Asm) {
        self.mem.copy_out(GuestVa(self.code), &asm.bytes()).expect("code fits");
        self.engine.invalidate(GuestVa(self.code), CODE_SIZE);
    }
    pub fn reg(&self, n: usize) -> u64 {
        self.vcpu.state.get(self.isa.reg(n))
    }
    pub fn set(&mut self, n: usize, value: u64) {
        let cell = self.isa.reg(n);
        self.vcpu.state.set(cell, value);
    }
    pub fn start(&mut self, offset: u64) -> Exit {
        self.vcpu.state.set_pc(self.code + offset);
        self.vcpu.run()
    }
    /// Runs from `offset` and expects this system call.
    pub fn run_to(&mut self, offset: u64, sys: u32, what: &str) {
        let exit = self.start(offset);
        assert_eq!(exit, Exit::Trap(Trap::Syscall(sys)), "{what}");
    }
}
