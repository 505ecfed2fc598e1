//! Interrupts and exceptions (the manual, volume 3, chapters 6 and 20; volume 2, INT n).
//!
//! [`deliver`] makes of a [`Trap`] what the processor makes of it, [`interrupt`] takes an interrupt of the board, and
//! [`software`] is INT n and its kin. All of them end in `enter`, which changes nothing but memory below the new
//! stack pointer before everything that may fault is done; a task gate is the exception, as it is in the manual.
//!
//! | trap | exception |
//! |---|---|
//! | `Illegal` | #UD |
//! | `Privileged` | #GP(0) |
//! | `Mem`, cause `Page` | #PF, CR2 is the address |
//! | `Mem`, cause `Align` | #AC(0) at CPL 3 with EFLAGS.AC and CR0.AM (but #GP(0) for SSE operands), else #GP(0) |
//! | `Mem`, other causes (an address that is not canonical) | #SS(0) if its segment is SS, else #GP(0) |
//! | `Arithmetic` | #DE for an integer; #MF of an x87 or MMX instruction; else #XM, or #UD without CR4.OSXMMEXCPT |
//! | `Breakpoint` | #BP |
//! | `Guest` | the vector with its error code; for #DB the code holds bits of DR6, none means BS |
//!
//! Where we leave the manual:
//! - #MF is always the exception, never the external interrupt that a clear CR0.NE asks for.
//! - RF in the pushed image is 1 for faults; otherwise it is 0 while no breakpoint is enabled, also for an
//!   interrupt between the iterations of a string instruction.
//! - Machine checks, virtualization and control protection exceptions do not occur.

use super::gate::{self, Gate, inner_stack, inner_stack64, instruction_pointer, target};
use super::segment::{
    self, Fallible, TS, canonical, cpl, expect, fail_if, get, get32, iopl, is_null, long,
    protected, read, set, set_code, set_null, set_real, set_vm86, vm86,
};
use super::stack::Stack;
use super::{cr0, cr4, debug, mmu, task};
use crate::X86;
use crate::regs::{self, eflags};
use crate::segment::{GP, NP, SS, UD, attr, set_segment};
use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use tulk_base::{CpuState, FaultCause, GuestVa, MemFault, MemOp, Trap};
use tulk_frontend::Stop;
use tulk_ir::HelperCx;

/// Where an interrupt comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An interrupt controller.
    External,
    Nmi,
}

const DE: u8 = 0;
const DB: u8 = 1;
const NMI: u8 = 2;
const BP: u8 = 3;
const OF: u8 = 4;
const DF: u8 = 8;
const PF: u8 = 14;
const MF: u8 = 16;
const AC: u8 = 17;
const MC: u8 = 18;
const XM: u8 = 19;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Exception,
    External,
    Nmi,
    /// INT n.
    Int,
    /// INT3, INTO.
    Trap,
    /// INT1.
    Int1,
}

/// What is to be delivered.
#[derive(Clone, Copy, Debug)]
struct Event {
    vector: u8,
    code: Option<u32>,
    source: Source,
    /// Linear pc to return to.
    pc: u64,
    /// Bits for DR6.
    debug: u64,
}

impl Event {
    fn exception(state: &CpuState, vector: u8, code: u32) -> Event {
        let has_code = matches!(vector, 8 | 10..=14 | 17 | 21);
        Event {
            vector,
            code: has_code.then_some(code),
            source: Source::Exception,
            pc: state.pc(),
            debug: 0,
        }
    }
    /// Not caused by INT n, INT3 or INTO: error codes of what goes wrong have the EXT bit.
    fn external(&self) -> bool {
        !matches!(self.source, Source::Int | Source::Trap)
    }
    fn software(&self) -> bool {
        matches!(self.source, Source::Int | Source::Trap)
    }
    /// A fault leaves RF set in the pushed flags.
    fn is_fault(&self) -> bool {
        self.source == Source::Exception && !matches!(self.vector, DB | NMI | BP | OF | DF | MC)
    }
}

/// How an exception combines with one during its delivery (the manual's table 6-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

fn class(event: &Event) -> Class {
    if event.source != Source::Exception {
        return Class::Benign;
    }
    match event.vector {
        0 | 10..=13 | 21 => Class::Contributory,
        PF => Class::PageFault,
        DF => Class::DoubleFault,
        _ => Class::Benign,
    }
}

/// Takes the exception `trap` of the instruction at the pc cell; see [`tulk_frontend::SystemIsa::deliver`].
///
/// # Errors
/// The processor stops.
pub fn deliver(cx: &mut HelperCx<'_>, _isa: &X86, trap: Trap) -> Result<(), Stop> {
    match trap {
        Trap::Resync => Ok(()),
        Trap::Halt => {
            let interrupts = get32(cx.state, regs::EFLAGS) & eflags::IF != 0;
            Err(Stop::Halt { interrupts })
        }
        _ => {
            let event = event_of(cx, trap);
            raise(cx, event)
        }
    }
}

/// Takes an interrupt between two instructions.
///
/// # Errors
/// The processor stops.
pub fn interrupt(cx: &mut HelperCx<'_>, _isa: &X86, vector: u8, kind: Kind) -> Result<(), Stop> {
    let source = match kind {
        Kind::External => Source::External,
        Kind::Nmi => Source::Nmi,
    };
    let event = Event { vector, code: None, source, pc: cx.state.pc(), debug: 0 };
    raise(cx, event)
}

/// What INT n, INT3, INTO or INT1 is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Software {
    Int(u8),
    Int3,
    Into,
    Int1,
}

/// INT n and its kin, whose next instruction is at linear `next`; the new pc.
pub fn software(cx: &mut HelperCx<'_>, which: Software, next: u64) -> Fallible<u64> {
    let (vector, source) = match which {
        Software::Int(n) => (n, Source::Int),
        Software::Int3 => (BP, Source::Trap),
        Software::Into => (OF, Source::Trap),
        Software::Int1 => (DB, Source::Int1),
    };
    let event = Event { vector, code: None, source, pc: next, debug: 0 };
    attempt(cx, &event)?;
    Ok(cx.state.pc())
}

/// Delivers the event, or what comes of trying to.
fn raise(cx: &mut HelperCx<'_>, mut event: Event) -> Result<(), Stop> {
    loop {
        let Err(trap) = attempt(cx, &event) else { return Ok(()) };
        let second = event_of(cx, trap);
        event = match (class(&event), class(&second)) {
            (Class::DoubleFault, Class::Contributory | Class::PageFault) => {
                if let Some(machine) = cx.env.machine() {
                    machine.board().shutdown(machine.cpu());
                }
                return Err(Stop::Shutdown);
            }
            (Class::Contributory, Class::Contributory)
            | (Class::PageFault, Class::Contributory | Class::PageFault) => {
                Event::exception(cx.state, DF, 0)
            }
            _ => second,
        };
    }
}

/// The instruction at the pc.
fn instruction(cx: &mut HelperCx<'_>) -> Option<Instruction> {
    let pc = cx.state.pc();
    let op = MemOp::U8.with_mmu(mmu::SYSTEM);
    let bytes: Vec<u8> = (0..15)
        .map_while(|n| cx.env.load(GuestVa(segment::wrap(cx.state, pc.wrapping_add(n))), op).ok())
        .map(|b| b as u8)
        .collect();
    let bits = match segment::code64(cx.state) {
        true => 64,
        false if get32(cx.state, regs::SEG_ATTR[regs::CS]) & attr::DB != 0 => 32,
        false => 16,
    };
    let insn = Decoder::with_ip(bits, &bytes, pc, DecoderOptions::NONE).decode();
    (!insn.is_invalid()).then_some(insn)
}

fn is_x87(insn: &Instruction) -> bool {
    use CpuidFeature::*;
    let family = |f: &CpuidFeature| {
        matches!(f, FPU | FPU287 | FPU287XL_ONLY | FPU387 | FPU387SL_ONLY | MMX | D3NOW)
    };
    insn.mnemonic() == Mnemonic::Wait || insn.cpuid_features().iter().any(family)
}

/// The exception that a trap stands for.
fn event_of(cx: &mut HelperCx<'_>, trap: Trap) -> Event {
    let (vector, code) = match trap {
        Trap::Mem(fault) => memory(cx, fault),
        Trap::Privileged => (GP as u8, 0),
        Trap::Breakpoint(_) => (BP, 0),
        Trap::Guest { vector, code } => (vector as u8, code),
        Trap::Arithmetic(1) => (DE, 0),
        Trap::Arithmetic(_) => {
            let pending = get32(cx.state, regs::FSW) & 0x80 != 0;
            if pending && instruction(cx).is_none_or(|insn| is_x87(&insn)) {
                (MF, 0)
            } else if get(cx.state, regs::CR4) & cr4::OSXMMEXCPT == 0 {
                (UD as u8, 0)
            } else {
                (XM, 0)
            }
        }
        Trap::Illegal | Trap::Syscall(_) | Trap::Halt | Trap::Resync => (UD as u8, 0),
    };
    let mut event = Event::exception(cx.state, vector, code);
    if vector == DB {
        event.debug = if code == 0 { debug::DR6_BS } else { code } as u64;
    }
    event
}

fn memory(cx: &mut HelperCx<'_>, fault: MemFault) -> (u8, u32) {
    match fault.cause {
        FaultCause::Page(code) => {
            set(cx.state, regs::CR2, fault.va.0);
            (PF, code)
        }
        FaultCause::Align => {
            let checked = cpl(cx.state) == 3
                && get32(cx.state, regs::EFLAGS) & eflags::AC != 0
                && get(cx.state, regs::CR0) & cr0::AM != 0;
            // An SSE operand of 16 bytes is the other reason.
            let vector = |insn: Instruction| insn.memory_size().size() >= 16;
            let sse = checked && instruction(cx).is_some_and(vector);
            if checked && !sse { (AC, 0) } else { (GP as u8, 0) }
        }
        _ => {
            let stack = instruction(cx).is_some_and(|insn| {
                insn.memory_segment() == Register::SS || insn.is_stack_instruction()
            });
            (if stack { SS } else { GP } as u8, 0)
        }
    }
}

/// A line of `-d int`: vector, error code, whether software asked, and the registers.
#[cold]
fn log(state: &CpuState, event: &Event) {
    let g = |n: usize| get(state, regs::GPR[n]);
    tracing::debug!(
        target: "int",
        "v={:02x} e={:04x} i={} cpl={} IP={:04x}:{:016x} pc={:016x} SP={:04x}:{:016x} CR2={:016x}\n\
         RAX={:016x} RBX={:016x} RCX={:016x} RDX={:016x}\nRSI={:016x} RDI={:016x} RBP={:016x} EFL={:08x}",
        event.vector,
        event.code.unwrap_or(0),
        u8::from(!matches!(event.source, Source::Exception)),
        cpl(state),
        get32(state, regs::SEG[regs::CS]),
        instruction_pointer(state, event.pc),
        event.pc,
        get32(state, regs::SEG[regs::SS]),
        g(4),
        get(state, regs::CR2),
        g(0), g(3), g(1), g(2),
        g(6), g(7), g(5),
        regs::eflags(state),
    );
}

/// One try.
fn attempt(cx: &mut HelperCx<'_>, event: &Event) -> Fallible<()> {
    if event.vector == DB && event.source == Source::Exception {
        // Debug exceptions are recorded even if nobody can take them.
        let bits = get(cx.state, regs::DR[6]) | event.debug | get(cx.state, regs::PENDING_DB);
        set(cx.state, regs::DR[6], bits);
        set(cx.state, regs::PENDING_DB, 0);
        let armed = get(cx.state, regs::DR[7]) & !debug::DR7_GD;
        set(cx.state, regs::DR[7], armed);
    }
    if tracing::enabled!(target: "int", tracing::Level::DEBUG) {
        log(cx.state, event);
    }
    let entered = enter(cx, event);
    match entered {
        Ok(()) => {
            set(cx.state, regs::SHADOW, 0);
            if event.source == Source::Nmi {
                set(cx.state, regs::NMI_BLOCKED, 1);
            }
            Ok(())
        }
        Err(Trap::Guest { vector: v @ (TS | NP | SS | GP), code }) if event.external() => {
            Err(Trap::Guest { vector: v, code: code | 1 })
        }
        error => error,
    }
}
fn enter(cx: &mut HelperCx<'_>, event: &Event) -> Fallible<()> {
    if !protected(cx.state) {
        return real_mode(cx, event);
    }
    if event.source == Source::Int && vm86(cx.state) && redirected(cx, event.vector)? {
        return to_8086(cx, event);
    }
    if long(cx.state) {
        return long_mode(cx, event);
    }
    let at = event.vector as u64 * 8;
    // Bit 1 says that it is an entry of the IDT.
    let refused = |vector| Err(Trap::Guest { vector, code: at as u32 | 2 });
    if at + 7 > get32(cx.state, regs::IDTR_LIMIT) as u64 {
        return refused(GP);
    }
    let base = get(cx.state, regs::IDTR_BASE);
    let gate = Gate::new(read(cx, base.wrapping_add(at), 3)?, 0);
    let known = [
        gate::TASK_GATE,
        gate::INTERRUPT_GATE_16,
        gate::TRAP_GATE_16,
        gate::INTERRUPT_GATE,
        gate::TRAP_GATE,
    ];
    if !known.contains(&gate.kind) || event.software() && gate.dpl < cpl(cx.state) {
        return refused(GP);
    }
    if !gate.present {
        return refused(NP);
    }
    if gate.kind == gate::TASK_GATE {
        return through_task(cx, event, &gate);
    }
    protected_mode(cx, event, &gate)
}

/// The flags as they are pushed.
fn flags_image(state: &CpuState, event: &Event) -> u32 {
    let flags = regs::eflags(state);
    // Without breakpoints nothing clears it behind an instruction.
    let kept = if debug::armed(get(state, regs::DR[7])) { flags & eflags::RF } else { 0 };
    let rf = if event.is_fault() { eflags::RF } else { kept };
    flags & !eflags::RF | rf
}

/// The flags of the handler.
fn clear_flags(state: &mut CpuState, also: u32) {
    let flags = regs::eflags(state);
    let gone = eflags::TF | eflags::NT | eflags::RF | eflags::VM | also;
    regs::set_eflags(state, flags & !gone);
}

/// Real mode: through the interrupt vector table, whose base and limit are IDTR's.
fn real_mode(cx: &mut HelperCx<'_>, event: &Event) -> Fallible<()> {
    let at = event.vector as u64 * 4;
    fail_if(at + 3 > get32(cx.state, regs::IDTR_LIMIT) as u64, GP, 0)?;
    let base = get(cx.state, regs::IDTR_BASE);
    let pointer = read(cx, base.wrapping_add(at), 2)?;
    let mut stack = Stack::present(cx.state);
    let flags = flags_image(cx.state, event) as u64 & 0xffff;
    let cs = get(cx.state, regs::SEG[regs::CS]);
    let ip = instruction_pointer(cx.state, event.pc);
    stack.push_all(cx, 1, &[flags, cs, ip])?;
    stack.commit(cx.state);
    let flags = regs::eflags(cx.state);
    let gone = eflags::IF | eflags::TF | eflags::AC | eflags::RF;
    regs::set_eflags(cx.state, flags & !gone);
    set_real(cx.state, regs::CS, (pointer >> 16) as u16);
    go_8086(cx.state, pointer as u16);
    Ok(())
}

fn go_8086(state: &mut CpuState, ip: u16) {
    let base = get(state, regs::SEG_BASE[regs::CS]);
    state.set_pc((base + ip as u64) & 0xffff_ffff);
}

/// Virtual-8086 mode, INT n: whether it goes to the program's own handler (the manual's table 20-2).
fn redirected(cx: &mut HelperCx<'_>, vector: u8) -> Fallible<bool> {
    let allowed = iopl(cx.state) == 3;
    if get(cx.state, regs::CR4) & cr4::VME == 0 {
        fail_if(!allowed, GP, 0)?;
        return Ok(false);
    }
    // The bitmap lies below the I/O permissions.
    let (base, limit) = (get(cx.state, regs::TR_BASE), get32(cx.state, regs::TR_LIMIT) as u64);
    fail_if(limit < 103, GP, 0)?;
    let map = read(cx, base.wrapping_add(102), 1)?;
    let at = (map + vector as u64 / 8).wrapping_sub(32);
    fail_if(map < 32 || at > limit, GP, 0)?;
    let bits = read(cx, base.wrapping_add(at), 0)?;
    if bits >> (vector & 7) & 1 == 0 {
        return Ok(true);
    }
    fail_if(!allowed, GP, 0)?;
    Ok(false)
}

/// INT n inside virtual-8086 mode.
fn to_8086(cx: &mut HelperCx<'_>, event: &Event) -> Fallible<()> {
    let allowed = iopl(cx.state) == 3;
    let op = MemOp::U32.with_mmu(mmu::USER);
    let pointer = cx.env.load(GuestVa(event.vector as u64 * 4), op)?;
    let flags = regs::eflags(cx.state);
    let image = if allowed {
        flags & !(eflags::NT | eflags::IOPL)
    } else {
        let on = if flags & eflags::VIF != 0 { eflags::IF } else { 0 };
        flags & !eflags::IF | on | eflags::IOPL
    };
    let mut stack = Stack::present(cx.state);
    let cs = get(cx.state, regs::SEG[regs::CS]);
    let ip = instruction_pointer(cx.state, event.pc);
    stack.push_all(cx, 1, &[image as u64 & 0xffff, cs, ip])?;
    stack.commit(cx.state);
    let off = if allowed { eflags::IF } else { eflags::VIF };
    regs::set_eflags(cx.state, flags & !(off | eflags::TF | eflags::RF));
    set_vm86(cx.state, regs::CS, (pointer >> 16) as u16);
    go_8086(cx.state, pointer as u16);
    Ok(())
}

/// The handler's code segment and its privilege level.
fn handler(cx: &mut HelperCx<'_>, selector: u16, long: bool) -> Fallible<(segment::Entry, u32)> {
    fail_if(is_null(selector), GP, 0)?;
    let entry = expect(cx, selector, GP)?;
    let present = cpl(cx.state);
    fail_if(!entry.d.is_code() || entry.d.dpl() > present, GP, selector)?;
    if long {
        let size = entry.d.attr & (attr::L | attr::DB);
        fail_if(size != attr::L, GP, selector)?;
    }
    fail_if(!entry.d.present(), NP, selector)?;
    let level = if entry.conforming() { present } else { entry.d.dpl() };
    Ok((entry, level))
}

/// An interrupt or trap gate of 16 or 32 bits.
fn protected_mode(cx: &mut HelperCx<'_>, event: &Event, gate: &Gate) -> Fallible<()> {
    let (mut code, level) = handler(cx, gate.selector, false)?;
    let (present, virtual8086) = (cpl(cx.state), vm86(cx.state));
    // Out of virtual-8086 mode there is only ring 0.
    fail_if(virtual8086 && level != 0, GP, gate.selector)?;
    let log2 = gate.log2();
    let get_segment = |state: &CpuState, seg: usize| get(state, regs::SEG[seg]);
    let mut frame = Vec::with_capacity(10);
    let inner = level < present;
    let mut outer = None;
    let mut stack = if inner {
        let (entry, stack) = inner_stack(cx, level)?;
        if virtual8086 {
            for seg in [regs::GS, regs::FS, regs::DS, regs::ES] {
                frame.push(get_segment(cx.state, seg));
            }
        }
        frame.push(get_segment(cx.state, regs::SS));
        frame.push(get(cx.state, regs::RSP));
        outer = Some(entry);
        stack
    } else {
        Stack::present(cx.state)
    }
    .of_system();
    frame.push(flags_image(cx.state, event) as u64);
    frame.push(get_segment(cx.state, regs::CS));
    frame.push(instruction_pointer(cx.state, event.pc));
    frame.extend(event.code.map(u64::from));
    stack.room(cx.state, frame.len() as u32, log2)?;
    let pc = target(cx.state, code.d, gate.offset)?;
    code.access(cx)?;
    if let Some(entry) = &mut outer {
        entry.access(cx)?;
    }
    stack.push_all(cx, log2, &frame)?;
    if let Some(entry) = outer {
        set_segment(cx.state, regs::SS, entry.selector, entry.raw);
    }
    stack.commit(cx.state);
    let off = if gate.kind & 1 == 0 { eflags::IF } else { 0 };
    clear_flags(cx.state, off);
    if virtual8086 {
        for seg in [regs::GS, regs::FS, regs::DS, regs::ES] {
            set_null(cx.state, seg, 0);
        }
    }
    set_code(cx.state, &code, level);
    cx.state.set_pc(pc);
    Ok(())
}

/// A gate of long mode.
fn long_mode(cx: &mut HelperCx<'_>, event: &Event) -> Fallible<()> {
    let at = event.vector as u64 * 16;
    let refused = |vector| Err(Trap::Guest { vector, code: (event.vector as u32 * 8) | 2 });
    if at + 15 > get32(cx.state, regs::IDTR_LIMIT) as u64 {
        return refused(GP);
    }
    let base = get(cx.state, regs::IDTR_BASE).wrapping_add(at);
    let gate = Gate::new(read(cx, base, 3)?, read(cx, base.wrapping_add(8), 3)?);
    let known = matches!(gate.kind, gate::INTERRUPT_GATE | gate::TRAP_GATE);
    if !known || event.software() && gate.dpl < cpl(cx.state) {
        return refused(GP);
    }
    if !gate.present {
        return refused(NP);
    }
    let (mut code, level) = handler(cx, gate.selector, true)?;
    let inner = level < cpl(cx.state);
    let ist = gate.count & 7;
    let mut stack = if inner || ist != 0 {
        inner_stack64(cx, level, ist)?
    } else {
        Stack::flat(cx.state, get(cx.state, regs::RSP), level)
    }
    .of_system();
    // What is not canonical even before it is aligned cannot be used.
    fail_if(!canonical(cx.state, stack.sp), SS, 0)?;
    stack.sp &= !15;
    let frame = [
        get(cx.state, regs::SEG[regs::SS]),
        get(cx.state, regs::RSP),
        flags_image(cx.state, event) as u64,
        get(cx.state, regs::SEG[regs::CS]),
        instruction_pointer(cx.state, event.pc),
        event.code.unwrap_or(0) as u64,
    ];
    fail_if(!canonical(cx.state, gate.offset), GP, 0)?;
    code.access(cx)?;
    stack.push_all(cx, 3, &frame[..5 + event.code.is_some() as usize])?;
    if inner {
        set_null(cx.state, regs::SS, level as u16);
    }
    stack.commit(cx.state);
    clear_flags(cx.state, if gate.kind & 1 == 0 { eflags::IF } else { 0 });
    set_code(cx.state, &code, level);
    cx.state.set_pc(gate.offset);
    Ok(())
}

/// A task gate: the handler is another task.
fn through_task(cx: &mut HelperCx<'_>, event: &Event, gate: &Gate) -> Fallible<()> {
    let entry = task::available(cx, gate.selector, GP)?;
    let image = flags_image(cx.state, event);
    task::switch(cx, entry, task::Way::Nested, event.pc, image)?;
    let Some(code) = event.code else { return task::finish(cx) };
    let log2 = if get32(cx.state, regs::TR_ATTR) & 8 != 0 { 2 } else { 1 };
    let mut stack = Stack::present(cx.state).of_system();
    stack.push_all(cx, log2, &[code as u64])?;
    stack.commit(cx.state);
    task::finish(cx)
}
