//! x87 FPU instructions (the manual, volume 1, chapter 8).
//!
//! [`unit`] is the whole unit as software, [`number`] its arithmetic alone. [`stack`] has st(i) while lifting: TOP and tags are key flags, so the
//! common case (all exceptions masked, registers in use) is plain IR around helpers on numbers, without checks. Where
//! an exception is unmasked ([`crate::key::X87_TRAPS`]) or a stack fault is certain, [`EXECUTE`] runs the
//! instruction, and a unit ends behind each.
//!
//! - A pending exception is #MF at the next waiting instruction: `Trap::Arithmetic` with ES set in the status word.
//! - Instruction and operand pointers are right at the end of each unit and wherever an instruction reads them, but
//!   at a memory fault they may be those of an earlier x87 instruction of the unit.
//! - FOP, FDP and the selectors follow every instruction, as on AMD's processors; with the features `fdp-excptn-only` and
//!   `zero-fcs-fds` of newer ones of Intel FOP and FDP do with unmasked exceptions only, and the selectors are zero.

pub mod environment;
pub mod fast;
pub mod number;
pub mod stack;
pub mod unit;

use crate::cpu::Vendor;
use crate::decode::{Row, rows};
use crate::fpstate::x87_si_code;
use crate::helpers::{FIRST_X87, helpers};
use crate::key;
use crate::lifter::Lifter;
use crate::operand::{Addr, Intent};
use crate::regs;
use environment::{x87_load_environment, x87_store_environment};
use iced_x86::{Code, FlowControl, Instruction, MemorySize, Mnemonic, OpKind, Register};
use stack::Stack;
use tulk_base::{MemOp, RmwOp, Trap};
use tulk_ir::{Access, HelperCx, IntCc, Slot, Type, Value};
use tulk_softfloat::Env;
use unit::{C0, C2, C3, CODES, ES, EXCEPTIONS, Format, Op, Step, Unit};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {
        Fadd => arithmetic, Faddp => arithmetic, Fiadd => arithmetic,
        Fmul => arithmetic, Fmulp => arithmetic, Fimul => arithmetic,
        Fsub => arithmetic, Fsubp => arithmetic, Fisub => arithmetic,
        Fsubr => arithmetic, Fsubrp => arithmetic, Fisubr => arithmetic,
        Fdiv => arithmetic, Fdivp => arithmetic, Fidiv => arithmetic,
        Fdivr => arithmetic, Fdivrp => arithmetic, Fidivr => arithmetic,
        Fcom => compare, Fcomp => compare, Fcompp => compare, Ficom => compare, Ficomp => compare,
        Fucom => compare, Fucomp => compare, Fucompp => compare, Ftst => compare,
        Fcomi => compare_to_flags, Fcomip => compare_to_flags, Fucomi => compare_to_flags,
        Fucomip => compare_to_flags,
        Fxam => examine,
        Fld => load, Fild => load, Fbld => load,
        Fld1 => constant, Fldl2t => constant, Fldl2e => constant, Fldpi => constant, Fldlg2 => constant,
        Fldln2 => constant, Fldz => constant,
        Fst => store, Fstp => store, Fstpnce => store, Fist => store, Fistp => store, Fisttp => store, Fbstp => store,
        Fchs => sign, Fabs => sign,
        Fsqrt => rare, Frndint => rare, F2xm1 => rare, Fsin => rare, Fcos => rare, Fpatan => rare, Fyl2x => rare,
        Fyl2xp1 => rare, Fprem => rare, Fprem1 => rare, Fscale => rare, Fxtract => rare,
        Fxch => exchange,
        Fcmovb => conditional_move, Fcmove => conditional_move, Fcmovbe => conditional_move,
        Fcmovu => conditional_move, Fcmovnb => conditional_move, Fcmovne => conditional_move,
        Fcmovnbe => conditional_move, Fcmovnu => conditional_move,
        Ffree => free, Ffreep => free, Fincstp => rotate, Fdecstp => rotate,
        Fnop => no_operation, Fneni => ignored, Fndisi => ignored, Fnsetpm => ignored,
        Fnstcw => store_control, Fnstsw => store_status,
    }
    loud {
        Wait => wait, Fsincos => rare, Fptan => rare,
        Fnclex => clear_exceptions, Fninit => init, Fldcw => load_control,
        Fnstenv => environment::store, Fldenv => environment::load,
        Fnsave => environment::save, Frstor => environment::restore,
    }
    codes {}
};

/// Everything but the pointers.
const NUMBERS: &[Slot] = &{
    let mut all = [regs::FTOP; 20];
    let mut n = 0;
    while n < 8 {
        all[n] = regs::FPR_SIG[n];
        all[8 + n] = regs::FPR_EXP[n];
        n += 1;
    }
    all[17] = regs::FCW;
    all[18] = regs::FSW;
    all[19] = regs::FTAG;
    all
};
const STATUS: &[Slot] = &[regs::FSW];
const CONTROL: &[Slot] = &[regs::FCW, regs::FSW];

/// The pointers of an x87 instruction that are not replaced before somebody may look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pointers {
    /// FIP, FCS, FOP.
    pub insn: bool,
    /// FDP, FDS.
    pub data: bool,
}

impl Pointers {
    pub const ALL: Pointers = Pointers { insn: true, data: true };
}

/// Finds the instructions of a block whose pointers are seen.
pub fn mark_pointers<'a>(
    block: impl DoubleEndedIterator<Item = (&'a Instruction, &'a mut Pointers)>,
) {
    use Mnemonic::*;
    let mut seen = Pointers::ALL;
    for (insn, mark) in block.rev() {
        *mark = seen;
        match insn.mnemonic() {
            Fnstenv | Fnsave | Fxsave | Fxsave64 => seen = Pointers::ALL,
            // A branch inside of a block, which may leave it.
            _ if insn.flow_control() != FlowControl::Next => seen = Pointers::ALL,
            Fneni | Fndisi | Fnsetpm | Fnstcw | Fnstsw | Fnclex | Fldcw | Fldenv | Frstor => {}
            // The codes of the x87 opcodes follow one another.
            _ if (Code::Fadd_m32fp as u16..=Code::Fcomip_st0_sti as u16)
                .contains(&(insn.code() as u16)) =>
            {
                seen.insn = false;
                seen.data &= format(insn).is_none();
            }
            _ => {}
        }
    }
}

fn register(insn: &Instruction, n: u32) -> Option<u8> {
    (n < insn.op_count() && insn.op_kind(n) == OpKind::Register && insn.op_register(n).is_st())
        .then(|| (insn.op_register(n) as u32 - Register::ST0 as u32) as u8)
}

fn format(insn: &Instruction) -> Option<Format> {
    Some(match insn.memory_size() {
        MemorySize::Float32 => Format::F32,
        MemorySize::Float64 => Format::F64,
        MemorySize::Float80 => Format::F80,
        MemorySize::Int16 => Format::I16,
        MemorySize::Int32 => Format::I32,
        MemorySize::Int64 => Format::I64,
        MemorySize::Bcd => Format::Bcd,
        _ => return None,
    })
}

fn step(insn: &Instruction, op: Op) -> Step {
    use Mnemonic::*;
    let pops = match insn.mnemonic() {
        Faddp | Fmulp | Fsubp | Fsubrp | Fdivp | Fdivrp | Fcomp | Ficomp | Fucomp | Fcomip
        | Fucomip | Fstp | Fstpnce | Fistp | Fisttp | Fbstp => 1,
        Fcompp | Fucompp => 2,
        _ => 0,
    };
    // st(i) is the last register operand that is not st(0) by name, or st(1) where none is written.
    let (first, second) = (register(insn, 0), register(insn, 1));
    let to_i = matches!((first, second), (Some(_), Some(_))) && to_other(insn.code());
    let i = match (first, second) {
        (Some(a), Some(_)) if to_i => a,
        (Some(_), Some(b)) => b,
        (Some(a), None) => a,
        _ => 1,
    };
    Step { op, i, to_i, pops, format: format(insn), constant: 0 }
}

/// `op st(i), st(0)`
fn to_other(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        Fadd_sti_st0
            | Fmul_sti_st0
            | Fsub_sti_st0
            | Fsubr_sti_st0
            | Fdiv_sti_st0
            | Fdivr_sti_st0
            | Faddp_sti_st0
            | Fmulp_sti_st0
            | Fsubp_sti_st0
            | Fsubrp_sti_st0
            | Fdivp_sti_st0
            | Fdivrp_sti_st0
    )
}

/// Starts a waiting instruction: #MF if an exception is pending.
pub fn start(l: &mut Lifter<'_>) {
    if l.key.has(key::X87_TRAPS) {
        l.call(WAIT, &[], 0);
    }
}

/// Ends an instruction that ran with unmasked exceptions.
fn end(l: &mut Lifter<'_>) {
    if l.key.has(key::X87_TRAPS) {
        l.give_pointers_back();
        l.resync();
    }
}

/// What [`EXECUTE`] does to the stack while all exceptions are masked.
fn executed(step: Step, mut s: Stack) -> Stack {
    match step.op {
        Op::Load | Op::Const => s.push(),
        Op::Sincos | Op::Ptan | Op::Xtract => {
            s.fill(0);
            s.push();
        }
        Op::Patan | Op::Yl2x | Op::Yl2xp1 => {
            s.fill(1);
            s.pop();
        }
        Op::Xch => {
            s.fill(0);
            s.fill(step.i);
        }
        Op::Copy => s.fill(step.i),
        Op::CopyQuiet if s.is_empty(0) => {}
        Op::CopyQuiet => s.fill(step.i),
        Op::Com | Op::Ucom | Op::ComI | Op::UcomI | Op::Tst | Op::Xam => {}
        _ if step.to_i => s.fill(step.i),
        _ => s.fill(0),
    }
    (0..step.pops).for_each(|_| s.pop());
    s
}

/// Runs the instruction by helper. `operand`: an I128. The helper's result.
fn execute(l: &mut Lifter<'_>, step: Step, operand: Option<Value>) -> Value {
    let operand = operand.unwrap_or_else(|| {
        let zero = l.iconst(Type::I64, 0);
        l.concat(zero, zero)
    });
    let result = l.call(EXECUTE, &[operand], step.pack());
    if !l.key.has(key::X87_TRAPS) {
        l.stack = executed(step, l.stack);
    }
    result
}

/// Loads the memory operand, if there is one.
fn operand(l: &mut Lifter<'_>, insn: &Instruction, step: Step) -> Option<Value> {
    step.format.map(|f| l.load_raw(insn, f.bytes()))
}

/// Whether an instruction that reads st(0) and perhaps st(i) runs without a stack fault or trap.
fn is_plain(l: &Lifter<'_>, step: Step, two: bool) -> bool {
    let fault = l.stack.is_empty(0) || two && l.stack.is_empty(step.i);
    !fault && !l.key.has(key::X87_TRAPS)
}

/// FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR, with pop or with integers
fn arithmetic(l: &mut Lifter<'_>, insn: &Instruction) {
    use Mnemonic::*;
    let op = match insn.mnemonic() {
        Fadd | Faddp | Fiadd => Op::Add,
        Fmul | Fmulp | Fimul => Op::Mul,
        Fsub | Fsubp | Fisub => Op::Sub,
        Fsubr | Fsubrp | Fisubr => Op::SubR,
        Fdiv | Fdivp | Fidiv => Op::Div,
        _ => Op::DivR,
    };
    let step = step(insn, op);
    start(l);
    let memory = operand(l, insn, step);
    l.note_pointers(insn);
    if !is_plain(l, step, memory.is_none()) {
        execute(l, step, memory);
        return end(l);
    }
    let (a, b) = match memory {
        Some(raw) => (l.st(0), raw),
        None if step.to_i => (l.st(step.i), l.st(0)),
        None => (l.st(0), l.st(step.i)),
    };
    let b = match step.format {
        Some(Format::F64 | Format::F32) => l.lo64(b),
        _ => b,
    };
    let fcw = l.get(regs::FCW);
    let v = l.call(number::helper(op, step.format), &[a, b, fcw], step.pack());
    l.set_result(if step.to_i { step.i } else { 0 }, v);
    l.pop_stack(step.pops);
}

/// FCOM, FUCOM, FTST, with pops or with integers
fn compare(l: &mut Lifter<'_>, insn: &Instruction) {
    use Mnemonic::*;
    let op = match insn.mnemonic() {
        Fucom | Fucomp | Fucompp => Op::Ucom,
        Ftst => Op::Tst,
        _ => Op::Com,
    };
    let step = step(insn, op);
    start(l);
    let memory = operand(l, insn, step);
    l.note_pointers(insn);
    if !is_plain(l, step, memory.is_none() && op != Op::Tst) {
        execute(l, step, memory);
        return end(l);
    }
    let a = l.st(0);
    let b = match memory {
        Some(raw) => raw,
        None if op == Op::Tst => {
            let zero = l.iconst(Type::I64, 0);
            l.concat(zero, zero)
        }
        None => l.st(step.i),
    };
    let codes = l.call(number::COMPARE, &[a, b], step.pack());
    l.set_codes(codes);
    l.pop_stack(step.pops);
}

/// FCOMI, FUCOMI, with pop
fn compare_to_flags(l: &mut Lifter<'_>, insn: &Instruction) {
    let signalling = matches!(insn.mnemonic(), Mnemonic::Fcomi | Mnemonic::Fcomip);
    let step = step(insn, if signalling { Op::ComI } else { Op::UcomI });
    start(l);
    l.note_pointers(insn);
    if !is_plain(l, step, true) {
        let codes = execute(l, step, None);
        let word = l.shr_u_imm(codes, 8);
        l.set_packed_flags(word);
        return end(l);
    }
    let (a, b) = (l.st(0), l.st(step.i));
    let codes = l.call(number::COMPARE, &[a, b], step.pack());
    // C1 stays, as on AMD's processors.
    let exceptions = l.and_imm(codes, EXCEPTIONS as i64);
    let fsw = l.get(regs::FSW);
    let fsw = l.or(fsw, exceptions);
    l.set(regs::FSW, fsw);
    l.pop_stack(step.pops);
    // C0, C2, C3 become CF, PF, ZF.
    let codes = l.and_imm(codes, (C0 | C2 | C3) as i64);
    let word = l.zext(Type::I64, codes);
    let word = l.shr_u_imm(word, 8);
    l.set_packed_flags(word);
}

/// FXAM
fn examine(l: &mut Lifter<'_>, insn: &Instruction) {
    let step = step(insn, Op::Xam);
    start(l);
    l.note_pointers(insn);
    execute(l, step, None);
    end(l);
}

/// FLD, FILD, FBLD
fn load(l: &mut Lifter<'_>, insn: &Instruction) {
    let step = step(insn, Op::Load);
    start(l);
    let memory = operand(l, insn, step);
    l.note_pointers(insn);
    let full = !l.stack.is_empty(7);
    if l.key.has(key::X87_TRAPS) || full || memory.is_none() && l.stack.is_empty(step.i) {
        execute(l, step, memory);
        return end(l);
    }
    let v = match (step.format, memory) {
        (Some(Format::F80), Some(raw)) => {
            l.clear_c1();
            raw
        }
        (Some(format @ (Format::F32 | Format::F64)), Some(raw)) => {
            return load_float(l, format, raw, step);
        }
        (Some(_), Some(raw)) => {
            let v = l.call(number::LOAD, &[raw], step.pack());
            l.set_result(7, v);
            return pushed(l);
        }
        _ => {
            l.clear_c1();
            l.st(step.i)
        }
    };
    l.set_st(7, v);
    pushed(l);
}

/// Behind a load to st(7).
fn pushed(l: &mut Lifter<'_>) {
    let mut stack = l.stack;
    stack.push();
    l.set_stack(stack);
}

/// FLD m32fp, m64fp: a normal number is widened here.
fn load_float(l: &mut Lifter<'_>, format: Format, raw: Value, step: Step) {
    let (fraction, bits) = if format == Format::F64 { (52, 64) } else { (23, 32) };
    let exponent_bits = bits - 1 - fraction;
    let word = l.lo64(raw);
    let exponent = l.bextract_u(word, fraction, exponent_bits);
    let below = l.add_imm(exponent, -1);
    let normal = l.icmp_imm(IntCc::LtU, below, (1 << exponent_bits) - 2);
    let (quick, slow, rest) = (l.label(), l.label(), l.label());
    let kept = l.local(Type::I64);
    l.set(kept, word);
    l.brif(normal, quick, slow);
    l.place(slow);
    let word = l.get(kept);
    let raw = l.zext(Type::I128, word);
    let v = l.call(number::LOAD, &[raw], step.pack());
    l.set_result(7, v);
    l.jump(rest);
    l.place(quick);
    let word = l.get(kept);
    let significand = l.shl_imm(word, 63 - fraction);
    let significand = l.or_imm(significand, i64::MIN);
    let exponent = l.bextract_u(word, fraction, exponent_bits);
    let exponent = l.add_imm(exponent, 0x3fff - ((1 << (exponent_bits - 1)) - 1));
    let sign = l.shr_u_imm(word, bits - 1);
    let sign = l.shl_imm(sign, 15);
    let exponent = l.or(exponent, sign);
    let n = l.stack.physical(7) as usize;
    l.set(regs::FPR_SIG[n], significand);
    l.set(regs::FPR_EXP[n], exponent);
    l.clear_c1();
    l.jump(rest);
    l.place(rest);
    pushed(l);
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ
fn constant(l: &mut Lifter<'_>, insn: &Instruction) {
    use Mnemonic::*;
    let order = [Fld1, Fldl2t, Fldl2e, Fldpi, Fldlg2, Fldln2, Fldz];
    let n = order.iter().position(|&m| m == insn.mnemonic()).expect("a constant") as u8;
    let step = Step { constant: n, ..step(insn, Op::Const) };
    start(l);
    l.note_pointers(insn);
    let rounded = !matches!(insn.mnemonic(), Fld1 | Fldz);
    if l.key.has(key::X87_TRAPS) || !l.stack.is_empty(7) || rounded {
        execute(l, step, None);
        return end(l);
    }
    let v = unit::constant(&Env::x87(0x37f), n);
    let (significand, exponent) = (v as u64, (v >> 64) as u64);
    let significand = l.iconst(Type::I64, significand as i64);
    let exponent = l.iconst(Type::I64, exponent as i64);
    l.clear_c1();
    let n = l.stack.physical(7) as usize;
    l.set(regs::FPR_SIG[n], significand);
    l.set(regs::FPR_EXP[n], exponent);
    let mut stack = l.stack;
    stack.push();
    l.set_stack(stack);
}

/// FST, FSTP, FIST, FISTP, FISTTP, FBSTP
fn store(l: &mut Lifter<'_>, insn: &Instruction) {
    let truncated = insn.mnemonic() == Mnemonic::Fisttp;
    let step = step(insn, if truncated { Op::StoreTruncated } else { Op::Store });
    let Some(format) = step.format else { return copy(l, insn, step) };
    start(l);
    // What is not stored faults all the same, but not on processors of Intel.
    let touches = l.cpu.chip().vendor == Vendor::Amd;
    if !is_plain(l, step, false) {
        if touches {
            l.address(insn, format.bytes(), Intent::Write);
        }
        let v = l.call(STORED, &[], step.pack());
        let high = l.hi64(v);
        let skip = l.icmp_imm(IntCc::LtS, high, 0);
        let (no, yes, rest) = (l.label(), l.label(), l.label());
        l.brif(skip, no, yes);
        l.place(yes);
        // Values do not cross blocks.
        let v = l.call(STORED, &[], step.pack());
        let addr = l.address(insn, format.bytes(), Intent::Write);
        write(l, addr, format, v);
        l.jump(rest);
        l.place(no);
        if touches {
            let addr = l.address(insn, format.bytes(), Intent::Write);
            let first = l.add_imm(addr.base, addr.offset);
            let last = l.add_imm(first, format.bytes() as i64 - 1);
            let page = l.and_imm(last, -4096);
            let second = l.max_u(first, page);
            for base in [first, second] {
                let zero = l.iconst(Type::I8, 0);
                l.atomic_rmw(RmwOp::Or, Addr { base, offset: 0 }, zero);
            }
        }
        l.place(rest);
        l.note_pointers(insn);
        l.call(FINISH_STORE, &[], step.pack());
        if !l.key.has(key::X87_TRAPS) {
            (0..step.pops).for_each(|_| l.stack.pop());
        }
        return end(l);
    }
    let addr = l.address(insn, format.bytes(), Intent::Write);
    let a = l.st(0);
    if format == Format::F80 {
        write(l, addr, format, a);
        l.clear_c1();
    } else {
        let fcw = l.get(regs::FCW);
        let v = l.call(number::CONVERT, &[a, fcw], step.pack());
        write(l, addr, format, v);
        let high = l.hi64(v);
        let status = l.shr_u_imm(high, number::STATUS - 64);
        let status = l.trunc(Type::I32, status);
        l.add_status(status);
    }
    l.note_pointers(insn);
    l.pop_stack(step.pops);
}

fn write(l: &mut Lifter<'_>, addr: Addr, format: Format, v: Value) {
    let low = l.lo64(v);
    match format.bytes() {
        10 => {
            l.store(addr, low);
            let high = l.hi64(v);
            l.store_as(addr.plus(8), high, MemOp::U16);
        }
        8 => l.store(addr, low),
        bytes => l.store_as(addr, low, MemOp::of_log2(bytes.trailing_zeros() as u8)),
    }
}

/// FST st(i), FSTP st(i)
fn copy(l: &mut Lifter<'_>, insn: &Instruction, step: Step) {
    let quiet = insn.mnemonic() == Mnemonic::Fstpnce;
    let step = Step { op: if quiet { Op::CopyQuiet } else { Op::Copy }, ..step };
    start(l);
    l.note_pointers(insn);
    if !is_plain(l, step, false) {
        execute(l, step, None);
        return end(l);
    }
    l.clear_c1();
    if step.i != 0 {
        let v = l.st(0);
        l.set_st(step.i, v);
    }
    let mut stack = l.stack;
    stack.fill(step.i);
    (0..step.pops).for_each(|_| stack.pop());
    l.set_stack(stack);
}

/// FCHS, FABS
fn sign(l: &mut Lifter<'_>, insn: &Instruction) {
    let change = insn.mnemonic() == Mnemonic::Fchs;
    let step = step(insn, if change { Op::Chs } else { Op::Abs });
    start(l);
    l.note_pointers(insn);
    if !is_plain(l, step, false) {
        execute(l, step, None);
        return end(l);
    }
    l.clear_c1();
    let slot = regs::FPR_EXP[l.stack.physical(0) as usize];
    let exponent = l.get(slot);
    let exponent = if change { l.xor_imm(exponent, 0x8000) } else { l.and_imm(exponent, 0x7fff) };
    l.set(slot, exponent);
}

/// FSQRT, FRNDINT, FPREM, FPREM1, FSCALE, FXTRACT and the transcendental functions
fn rare(l: &mut Lifter<'_>, insn: &Instruction) {
    use Mnemonic::*;
    let op = match insn.mnemonic() {
        Fsqrt => Op::Sqrt,
        Frndint => Op::Rndint,
        F2xm1 => Op::F2xm1,
        Fsin => Op::Sin,
        Fcos => Op::Cos,
        Fsincos => Op::Sincos,
        Fptan => Op::Ptan,
        Fpatan => Op::Patan,
        Fyl2x => Op::Yl2x,
        Fyl2xp1 => Op::Yl2xp1,
        Fprem => Op::Prem,
        Fprem1 => Op::Prem1,
        Fscale => Op::Scale,
        _ => Op::Xtract,
    };
    let step = step(insn, op);
    start(l);
    l.note_pointers(insn);
    if let (Op::Sqrt | Op::Rndint, true) = (op, is_plain(l, step, false)) {
        let (a, fcw) = (l.st(0), l.get(regs::FCW));
        let helper = if op == Op::Sqrt { number::SQRT } else { number::RNDINT };
        let v = l.call(helper, &[a, fcw], 0);
        return l.set_result(0, v);
    }
    let found = execute(l, step, None);
    if matches!(op, Op::Sincos | Op::Ptan) && !l.key.has(key::X87_TRAPS) {
        // Out of range nothing is pushed.
        let pushed = l.icmp_imm(IntCc::Ne, found, 0);
        let (good, bad) = (l.label(), l.label());
        l.brif(pushed, good, bad);
        l.place(bad);
        l.resync();
        l.place(good);
    }
    end(l);
}

/// FXCH st(i)
fn exchange(l: &mut Lifter<'_>, insn: &Instruction) {
    let step = step(insn, Op::Xch);
    start(l);
    l.note_pointers(insn);
    if !is_plain(l, step, true) {
        execute(l, step, None);
        return end(l);
    }
    l.clear_c1();
    let (a, b) = (l.stack.physical(0) as usize, l.stack.physical(step.i) as usize);
    for slots in [regs::FPR_SIG, regs::FPR_EXP] {
        let (x, y) = (l.get(slots[a]), l.get(slots[b]));
        l.set(slots[a], y);
        l.set(slots[b], x);
    }
}

/// FCMOVcc st(0), st(i)
fn conditional_move(l: &mut Lifter<'_>, insn: &Instruction) {
    use Mnemonic::*;
    let code = match insn.mnemonic() {
        Fcmovb => 2,
        Fcmove => 4,
        Fcmovbe => 6,
        Fcmovu => 10,
        Fcmovnb => 3,
        Fcmovne => 5,
        Fcmovnbe => 7,
        _ => 11,
    };
    let step = step(insn, Op::Cmov);
    start(l);
    let cond = l.cond(code);
    let cond = l.truth(cond);
    l.note_pointers(insn);
    if !is_plain(l, step, true) {
        let cond = l.zext(Type::I128, cond);
        execute(l, step, Some(cond));
        return end(l);
    }
    let (a, b) = (l.stack.physical(0) as usize, l.stack.physical(step.i) as usize);
    for slots in [regs::FPR_SIG, regs::FPR_EXP] {
        let (x, y) = (l.get(slots[a]), l.get(slots[b]));
        let v = l.select(cond, y, x);
        l.set(slots[a], v);
    }
}

/// FFREE, FFREEP st(i)
fn free(l: &mut Lifter<'_>, insn: &Instruction) {
    let step = step(insn, Op::Copy);
    start(l);
    l.note_pointers(insn);
    l.clear_c1();
    let mut stack = l.stack;
    stack.free(step.i);
    if insn.mnemonic() == Mnemonic::Ffreep {
        stack.pop();
    }
    l.set_stack(stack);
    end(l);
}

/// FINCSTP, FDECSTP
fn rotate(l: &mut Lifter<'_>, insn: &Instruction) {
    start(l);
    l.note_pointers(insn);
    l.clear_c1();
    let by = if insn.mnemonic() == Mnemonic::Fincstp { 1 } else { 7 };
    let top = l.stack.physical(by);
    l.set_stack(Stack { top, ..l.stack });
    end(l);
}

/// FNOP: leaves its pointers
fn no_operation(l: &mut Lifter<'_>, insn: &Instruction) {
    start(l);
    l.note_pointers(insn);
    l.give_pointers_back();
}

/// FWAIT
fn wait(l: &mut Lifter<'_>, _: &Instruction) {
    start(l);
}

/// FNENI, FNDISI, FNSETPM: of older units
fn ignored(_: &mut Lifter<'_>, _: &Instruction) {}

/// FNSTCW m16
fn store_control(l: &mut Lifter<'_>, insn: &Instruction) {
    let addr = l.address(insn, 2, Intent::Write);
    let fcw = l.get(regs::FCW);
    l.store_as(addr, fcw, MemOp::U16);
}

/// The status word with TOP.
fn status_word(l: &mut Lifter<'_>) -> Value {
    let fsw = l.get(regs::FSW);
    match l.stack.top {
        0 => fsw,
        top => l.or_imm(fsw, (top as i64) << 11),
    }
}

/// FNSTSW m16 or AX
fn store_status(l: &mut Lifter<'_>, insn: &Instruction) {
    if insn.op0_kind() == OpKind::Register {
        let v = status_word(l);
        let v = l.trunc(Type::I16, v);
        return l.set_reg(Register::AX, v);
    }
    let addr = l.address(insn, 2, Intent::Write);
    let v = status_word(l);
    l.store_as(addr, v, MemOp::U16);
}

/// FNCLEX
fn clear_exceptions(l: &mut Lifter<'_>, _: &Instruction) {
    let fsw = l.get(regs::FSW);
    let fsw = l.and_imm(fsw, CODES as i64);
    l.set(regs::FSW, fsw);
    end(l);
}

/// FNINIT
fn init(l: &mut Lifter<'_>, _: &Instruction) {
    l.call(INIT, &[], 0);
    l.stack = Stack { top: 0, tag: 0 };
    end(l);
}

/// FLDCW m16
fn load_control(l: &mut Lifter<'_>, insn: &Instruction) {
    start(l);
    let addr = l.address(insn, 2, Intent::Read);
    let v = l.load_as(Type::I32, addr, MemOp::U16);
    if l.key.has(key::X87_TRAPS) {
        l.call(SET_CONTROL, &[v], 0);
        return end(l);
    }
    let kept = l.and_imm(v, 0x1f3f);
    let fcw = l.or_imm(kept, 0x40);
    l.set(regs::FCW, fcw);
    let masks = l.and_imm(fcw, EXCEPTIONS as i64);
    let masked = l.icmp_imm(IntCc::Eq, masks, EXCEPTIONS as i64);
    let (good, bad) = (l.label(), l.label());
    l.brif(masked, good, bad);
    l.place(bad);
    let fcw = l.get(regs::FCW);
    l.call(SET_CONTROL, &[fcw], 0);
    l.resync();
    l.place(good);
}

fn x87_wait(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    match Unit(cx.state).fsw() & ES {
        0 => Ok(0),
        _ => Err(Trap::Arithmetic(x87_si_code(cx.state))),
    }
}

fn x87_execute(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(Unit(cx.state).run(Step::unpack(args[3] as u64), args[0]) as u128)
}

fn x87_stored(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Ok(Unit(cx.state).stored(Step::unpack(args[3] as u64)).unwrap_or(1 << 127))
}

fn x87_finish_store(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Unit(cx.state).finish_store(Step::unpack(args[3] as u64));
    Ok(0)
}

fn x87_init(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    Unit(cx.state).init();
    Ok(0)
}

fn x87_set_control(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    Unit(cx.state).set_fcw(args[0] as u16);
    Ok(0)
}

helpers! { FIRST_X87;
    /// Raises a pending exception.
    WAIT = x87_wait() -> (), Access::These(STATUS), Access::None, traps;
    /// Runs a [`Step`], the immediate; memory operand or condition. See [`Unit::run`].
    EXECUTE = x87_execute(I128) -> I64, Access::These(NUMBERS), Access::These(NUMBERS);
    /// What a storing [`Step`] writes; the top bit is set when it does not.
    STORED = x87_stored() -> I128, Access::These(NUMBERS), Access::None;
    FINISH_STORE = x87_finish_store() -> (), Access::These(NUMBERS), Access::These(NUMBERS);
    INIT = x87_init() -> (), Access::None, Access::These(environment::ALL);
    SET_CONTROL = x87_set_control(I32) -> (), Access::These(CONTROL), Access::These(CONTROL);
    /// See [`environment`]: linear address; immediate: the form.
    STORE_ENVIRONMENT = x87_store_environment(I64) -> (), Access::These(environment::ALL), Access::These(environment::ALL), traps;
    LOAD_ENVIRONMENT = x87_load_environment(I64) -> (), Access::These(environment::ALL), Access::These(environment::ALL), traps;
}
