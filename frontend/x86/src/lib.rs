//! The x86 guest: 16-, 32- and 64-bit code; [`X86`] is the guest for a mode and a CPU model, either at user level or,
//! with [`system`], as a whole processor.
//!
//! "The manual" in this crate is Intel's Software Developer's Manual. Decoding is iced-x86's. [`decode`] maps its
//! codes to lift functions, which stand in modules named after the manual's chapters: [`integer`] (volume 1,
//! chapter 7), [`x87`] (8), [`mmx`] (9, and 3DNow!), [`sse`] (10 to 14). [`lifter`] and [`operand`] are what they
//! write to. [`regs`] is the register layout, [`flags`] the lazy arithmetic flags, [`key`] what a translation
//! assumes of the state, [`segment`] descriptors, [`cpu`] and [`cpuid`] the CPU models.
//!
//! Choices where the manual leaves one, or where we leave the manual:
//! - The pc is the linear address: CS base plus instruction pointer.
//! - `Trap::Guest` carries the exception vector and error code where no other trap fits: #GP and #SS of segment
//!   checks, #BR of BOUND, #OF of INTO, #DB of the trap flag. [`segment::WANT_DESCRIPTOR`] is no exception.
//! - System calls are told apart by number: [`SYSCALL_INT80`], [`SYSCALL_SYSCALL`], [`SYSCALL_SYSENTER`].
//! - #AC at CPL 3 and the alignment #GP of SSE both come as `FaultCause::Align`; the first only while EFLAGS.AC
//!   is set and for accesses of other than 16-byte alignment.
//! - An access that wraps around the end of a segment of 4 GiB is no #GP but wraps, as the manual permits.
//! - The trap flag also traps behind MOV SS and POP SS, not only behind the next instruction.
//! - A near branch to a non-canonical address faults at the target, not as #GP at the branch.
//! - Non-canonical addresses fault as unmapped memory at that address; whether that is #SS or #GP depends on the
//!   base register, and nothing tells.
//! - Where processors of Intel and AMD differ, the vendor of the CPU model decides ([`cpu::Vendor`]).
//! - Undefined flags: the table in [`flags`].
#![forbid(unsafe_code)]

pub mod bytes;
pub mod cpu;
pub mod cpuid;
pub mod debug;
pub mod debug_system;
pub mod decode;
pub mod flags;
pub mod fpstate;
pub mod helpers;
pub mod integer;
pub mod key;
pub mod lifter;
pub mod mmx;
pub mod operand;
pub mod regs;
pub mod segment;
pub mod sse;
pub mod system;
pub mod x87;

pub use cpu::{CpuModel, Feature, Features};
pub use lifter::Lifter;

use bytes::LONGEST;
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, FlowControl, Formatter, Instruction};
use iced_x86::{GasFormatter, OpKind};
use key::Key;
use system::unit;
use tulk_base::{CpuState, GuestVa};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, SystemIsa, TbKey};
use tulk_ir::{Builder, FpEnv, FpRule, HelperDef, RegLayout, Slot, Unit};

/// `Trap::Syscall` number of INT 0x80.
pub const SYSCALL_INT80: u32 = 0x80;
/// `Trap::Syscall` number of SYSCALL.
pub const SYSCALL_SYSCALL: u32 = 0x100;
/// `Trap::Syscall` number of SYSENTER.
pub const SYSCALL_SYSENTER: u32 = 0x101;

/// Which processor a program was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    I386,
    X86_64,
}

/// The x86 guest for one mode and CPU model.
pub struct X86 {
    mode: Mode,
    model: CpuModel,
    layout: RegLayout,
    table: decode::Table,
    /// Number of processors; 0 in user mode.
    processors: u32,
}

impl X86 {
    pub fn new(mode: Mode, model: CpuModel) -> X86 {
        let features = model.features.without(cpu::PRIVILEGED);
        let model = CpuModel { features, ..model };
        let table = decode::Table::new(model.features);
        X86 { mode, model, layout: regs::layout(mode), table, processors: 0 }
    }

    /// A whole processor: system mode. The layout is that of x86-64; the state decides the mode.
    pub fn new_system(model: CpuModel) -> X86 {
        let table = decode::Table::new_system(model.features);
        let layout = regs::layout(Mode::X86_64);
        X86 { mode: Mode::X86_64, model, layout, table, processors: 1 }
    }

    /// The number of processors that CPUID tells in system mode.
    pub fn with_processors(self, processors: u32) -> X86 {
        X86 { processors: processors.max(1), ..self }
    }

    pub fn is_system(&self) -> bool {
        self.processors != 0
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn model(&self) -> &CpuModel {
        &self.model
    }

    /// Whether the instruction lifts to something else than #UD.
    pub fn accepts(&self, code: Code) -> bool {
        let info = code.op_code();
        let exists = self.mode == Mode::X86_64 || info.mode16() || info.mode32();
        exists && self.table.entry(code).accepted
    }

    /// True when the processor is in long mode even in 32-bit code, as under a 64-bit kernel.
    fn long(&self) -> bool {
        self.mode == Mode::X86_64 || self.model.has(Feature::Lm)
    }

    /// The state of a new process (user mode): registers zero, flat segments as Linux sets them, default float modes.
    pub fn reset(&self, state: &mut CpuState) {
        for slot in self.layout.slots() {
            for cell in slot.cell..slot.cell + slot.ty.cells() {
                state.set(cell, 0);
            }
        }
        use regs::cell;
        regs::set_eflags(state, regs::eflags::IF);
        const DATA: u64 = 0x00cf_f300_0000_ffff;
        match self.mode {
            Mode::I386 => {
                segment::set_segment(state, regs::CS, segment::USER32_CS, 0x00cf_fb00_0000_ffff);
                for seg in [regs::SS, regs::DS, regs::ES] {
                    segment::set_segment(state, seg, segment::USER_DS, DATA);
                }
            }
            Mode::X86_64 => {
                segment::set_segment(state, regs::CS, segment::USER_CS, 0x00af_fb00_0000_ffff);
                segment::set_segment(state, regs::SS, segment::USER_DS, DATA);
            }
        }
        state.set(cell(regs::FCW), 0x37f);
        state.set(cell(regs::MXCSR), fpstate::DEFAULT as u64);
        let xcr0 = if self.model.has(Feature::Xsave) {
            cpuid::xcr0_supported(self.model.features)
        } else {
            cpuid::XCR0_X87
        };
        state.set(cell(regs::XCR0), xcr0);
        state.set(cell(regs::PKRU), 0x5555_5554);
    }
}

/// Bytes fetched at a time.
const WINDOW: usize = 128;

/// Most conditional branches inside of a block, behind which it goes on: with the two at its end that makes four exits, as many
/// as are counted. Backward ones close loops and end blocks.
const SIDE_EXITS: u32 = 2;
/// How far ahead of such a branch is looked for one that reads the same flags.
const LOOK_AHEAD: usize = 3;

/// Whether a relative branch goes forward, not far.
fn is_forward(insn: &Instruction) -> bool {
    insn.near_branch_target().wrapping_sub(insn.next_ip()) < 1 << 12
}

/// Whether flags from before are read by the code that follows at `at`: as in `cmp; jg; je`, where the block goes on behind the first branch, so that
/// the second knows what set them.
fn reads_flags(key: &Key, code: &[u8], at: u64, end: u64) -> bool {
    let mut decoder = Decoder::with_ip(key.code, code, at, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    for _ in 0..LOOK_AHEAD {
        if decoder.ip() >= end || !decoder.can_decode() {
            return false;
        }
        decoder.decode_out(&mut insn);
        let (reads, kills) = decode::flag_effects(&insn);
        if insn.is_invalid() || reads != 0 {
            return reads != 0;
        }
        if kills != 0 || insn.flow_control() != FlowControl::Next {
            return false;
        }
    }
    false
}

/// One decoded instruction and the arithmetic flags that are read after it.
#[derive(Clone, Copy)]
struct Decoded {
    insn: Instruction,
    live: u32,
    /// Which x87 pointers that it leaves somebody may see.
    pointers: x87::Pointers,
}

/// What follows the decoded instructions.
enum End {
    /// The limits, or the last instruction's own exit.
    Limit,
    /// Bytes that are no instruction, of this length.
    Undefined(u64),
    /// An instruction of more than [`LONGEST`] bytes.
    TooLong,
    /// The code cannot be fetched at this address.
    Fetch(u64),
}

impl X86 {
    /// Decodes the block at `pc` up to a branch or the limits.
    fn decode(
        &self,
        pc: u64,
        key: &Key,
        code: &mut dyn CodeReader,
        limits: &LiftLimits,
        out: &mut Vec<Decoded>,
    ) -> End {
        let mut window = [0u8; WINDOW];
        let mut at = pc;
        let mut side_exits = 0;
        let end = limits.end.0;
        loop {
            let start = at;
            let have = code.fetch(GuestVa(start), &mut window);
            if have == 0 {
                return End::Fetch(start);
            }
            let mut decoder =
                Decoder::with_ip(key.code, &window[..have], start, DecoderOptions::NONE);
            loop {
                if out.len() as u32 >= limits.max_insns.max(1)
                    || !out.is_empty() && at >= limits.end.0
                {
                    return End::Limit;
                }
                let left = have - decoder.position();
                if left == 0 || left < LONGEST && have == WINDOW {
                    break;
                }
                let from = decoder.position();
                let insn = decoder.decode();
                if insn.is_invalid() {
                    if decoder.last_error() == DecoderError::NoMoreBytes && left < LONGEST {
                        return End::Fetch(start.wrapping_add(have as u64));
                    }
                    if bytes::is_too_long(key.code, &window[from..have]) {
                        return End::TooLong;
                    }
                    return End::Undefined(insn.len().max(1) as u64);
                }
                out.push(Decoded { insn, live: flags::ALL, pointers: x87::Pointers::ALL });
                at = at.wrapping_add(insn.len() as u64);
                if key.single() || key.has(key::SHADOW) {
                    return End::Limit;
                }
                match insn.flow_control() {
                    FlowControl::Next => {}
                    FlowControl::ConditionalBranch
                        if side_exits < SIDE_EXITS
                            && key.branches_are_constant()
                            && insn.is_jcc_short_or_near()
                            && (is_forward(&insn)
                                || reads_flags(
                                    key,
                                    &window[decoder.position()..have],
                                    at,
                                    end,
                                )) =>
                    {
                        side_exits += 1;
                    }
                    _ => return End::Limit,
                }
            }
        }
    }

    /// Finds out for each instruction which flags are read after it before they are replaced. Where the unit
    /// can be left all are.
    fn mark_live_flags(&self, key: &Key, block: &mut [Decoded]) {
        // Every instruction may leave the unit.
        let checks = key::CODE_CHECK | key::X87_CHECK | key::SSE_CHECK | key::AVX_CHECK;
        if key.has(checks | key::SSE_TRAPS | key::X87_TRAPS | key::BREAKPOINTS) {
            return;
        }
        let blind = key.has(key::BLIND_FAULTS);
        let mut live = flags::ALL;
        for d in block.iter_mut().rev() {
            let entry = self.table.entry(d.insn.code());
            // Others may leave the unit behind themselves, too.
            d.live = if entry.quiet { live } else { flags::ALL };
            let stays = entry.quiet && (blind || !d.insn.op_kinds().any(|k| k == OpKind::Memory));
            live = if stays {
                let (reads, kills) = decode::flag_effects(&d.insn);
                live & !kills | reads
            } else {
                flags::ALL
            };
        }
    }
}

impl GuestIsa for X86 {
    fn name(&self) -> &'static str {
        match self.mode {
            Mode::I386 => "i386",
            Mode::X86_64 => "x86_64",
        }
    }

    fn layout(&self) -> &RegLayout {
        &self.layout
    }

    fn helpers(&self) -> &'static [HelperDef] {
        &helpers::ALL
    }

    fn fp_rule(&self) -> FpRule {
        FpRule::X86
    }

    fn tb_key(&self, state: &CpuState) -> TbKey {
        let flags = match self.is_system() {
            true => key::of_system_state(state),
            false => key::of_state(state, self.long()),
        };
        TbKey { pc: GuestVa(state.pc()), flags }
    }

    fn lift(&self, key: TbKey, code: &mut dyn CodeReader, limits: LiftLimits, unit: &mut Unit) {
        self.lift_with(key, code, limits, &[], unit);
    }

    fn lift_with(
        &self,
        key: TbKey,
        code: &mut dyn CodeReader,
        limits: LiftLimits,
        known: &[(Slot, u64)],
        unit: &mut Unit,
    ) {
        unit.reset(key.pc.0, key.flags, FpRule::X86);
        let pc = key.pc.0;
        let mut taken_apart = Key::new(key.flags);
        taken_apart.stepped = limits.max_insns == LiftLimits::STEP;
        let mut block = Vec::with_capacity(32);
        let end = self.decode(pc, &taken_apart, code, &limits, &mut block);
        if block.is_empty() && matches!(end, End::Fetch(va) if va == pc) {
            return;
        }
        self.mark_live_flags(&taken_apart, &mut block);
        x87::mark_pointers(block.iter_mut().map(|d| (&d.insn, &mut d.pointers)));
        let builder = Builder::new(unit, &self.layout, &helpers::ALL);
        let mut l = Lifter::new(builder, &self.model, pc, taken_apart, known);
        if self.is_system() {
            l = l.for_system();
        }
        for (d, behind) in block.iter().zip((0..block.len()).rev()) {
            let len = d.insn.len();
            l.last = behind == 0;
            l.start_instruction(len as u64, d.live);
            if decode::overwrites_flags(&d.insn) {
                l.overwriting();
            }
            l.pointers = d.pointers;
            let entry = self.table.entry(d.insn.code());
            unit::check(&mut l, entry.class);
            (entry.lift)(&mut l, &d.insn);
            if l.ended() {
                break;
            }
        }
        if !l.ended() {
            match end {
                End::Undefined(len) => {
                    l.start_instruction(len, flags::ALL);
                    l.undefined();
                }
                End::TooLong => {
                    l.start_instruction(LONGEST as u64, flags::ALL);
                    l.exception(segment::GP, 0);
                }
                End::Fetch(va) if block.is_empty() => {
                    l.start_instruction(va.wrapping_sub(pc), flags::ALL);
                    l.fetch_fault(va);
                }
                End::Limit | End::Fetch(_) => {
                    let next = l.next;
                    l.exit_to(next);
                }
            }
        }
        let len = l.next.wrapping_sub(pc);
        l.finish();
        unit.len = len as u32;
    }

    fn reset(&self, state: &mut CpuState) {
        X86::reset(self, state);
    }

    fn load_fp(&self, state: &CpuState, env: &mut dyn FpEnv) {
        fpstate::load(state, env);
    }

    fn save_fp(&self, state: &mut CpuState, env: &mut dyn FpEnv) {
        fpstate::save(state, env);
    }

    fn debug_registers(&self) -> tulk_frontend::debug::Registers {
        match self.is_system() {
            true => debug_system::registers(&self.layout, self.model.features.has(Feature::Lm)),
            false => debug::registers(&self.layout, self.mode == Mode::X86_64),
        }
    }

    fn disassemble(&self, key: TbKey, bytes: &[u8]) -> Option<(String, usize)> {
        let bits = Key::new(key.flags).code;
        let insn = Decoder::with_ip(bits, bytes, key.pc.0, DecoderOptions::NONE).decode();
        if insn.is_invalid() {
            return None;
        }
        let mut text = String::new();
        GasFormatter::new().format(&insn, &mut text);
        Some((text, insn.len()))
    }

    fn self_modifying_is_exact(&self) -> bool {
        true
    }

    fn system(&self) -> Option<&dyn SystemIsa> {
        self.is_system().then_some(self as &dyn SystemIsa)
    }
}
