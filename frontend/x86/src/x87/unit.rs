//! The x87 unit as software: registers in a [`CpuState`], and every instruction that computes on them, with all
//! exceptions masked or not (the manual, volume 1, chapter 8).
//!
//! This is the complete meaning. The lift functions of [`crate::x87`] use it whole where an exception is unmasked,
//! where a register is empty or the stack overflows, and for what is rare; the common rest calls only its
//! functions on numbers ([`arithmetic`], [`compare`], [`load`], [`stored`]).
//!
//! Where the manual leaves it open we follow AMD's processors, which `tests/host_x87.rs` compares with.

use crate::regs::{self, cell};
use std::cmp::Ordering;
use tulk_base::CpuState;
use tulk_ir::Slot;
use tulk_softfloat::{
    self as soft, Env, F32, F64, F80, Flags, FpClass, IntRule, IntType, Quotient, Rounding,
    X87Constant,
};

/// Status word: stack fault, error summary, condition codes, busy.
pub const SF: u16 = 1 << 6;
pub const ES: u16 = 1 << 7;
pub const C0: u16 = 1 << 8;
pub const C1: u16 = 1 << 9;
pub const C2: u16 = 1 << 10;
pub const C3: u16 = 1 << 14;
pub const BUSY: u16 = 1 << 15;
pub const CODES: u16 = C0 | C1 | C2 | C3;
/// The six exceptions, in status and control word.
pub const EXCEPTIONS: u16 = 0x3f;
const INVALID: u16 = 1;
const DENORMAL: u16 = 2;
const DIV_ZERO: u16 = 4;
const OVERFLOW: u16 = 8;
const UNDERFLOW: u16 = 16;

/// The control word that FLDCW makes of a value.
pub const fn control(value: u16) -> u16 {
    value & 0x1f3f | 0x40
}

/// The default NaN, which masked invalid operations give ("real indefinite").
pub const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// Formats in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Format {
    F32,
    F64,
    F80,
    I16,
    I32,
    I64,
    Bcd,
}

impl Format {
    const ALL: [Format; 7] = {
        use Format::*;
        [F32, F64, F80, I16, I32, I64, Bcd]
    };
    pub fn bytes(self) -> u32 {
        [4, 8, 10, 2, 4, 8, 10][self as usize]
    }
}

/// What an instruction computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Op {
    Add,
    Mul,
    Sub,
    SubR,
    Div,
    DivR,
    /// FCOM and FUCOM, to the condition codes.
    Com,
    Ucom,
    /// The same, to the arithmetic flags.
    ComI,
    UcomI,
    Tst,
    Xam,
    Load,
    Const,
    Chs,
    Abs,
    Sqrt,
    Rndint,
    F2xm1,
    Sin,
    Cos,
    Sincos,
    Ptan,
    Patan,
    Yl2x,
    Yl2xp1,
    Prem,
    Prem1,
    Scale,
    Xtract,
    Xch,
    /// FST st(i) and FSTP st(i).
    Copy,
    /// FSTPNCE st(i): an empty register is no fault.
    CopyQuiet,
    /// FCMOVcc whose condition holds, or not.
    Cmov,
    /// To memory: rounded as the control word says, or (FISTTP) towards zero.
    Store,
    StoreTruncated,
}

impl Op {
    pub(super) const ALL: [Op; 36] = {
        use Op::*;
        [
            Add,
            Mul,
            Sub,
            SubR,
            Div,
            DivR,
            Com,
            Ucom,
            ComI,
            UcomI,
            Tst,
            Xam,
            Load,
            Const,
            Chs,
            Abs,
            Sqrt,
            Rndint,
            F2xm1,
            Sin,
            Cos,
            Sincos,
            Ptan,
            Patan,
            Yl2x,
            Yl2xp1,
            Prem,
            Prem1,
            Scale,
            Xtract,
            Xch,
            Copy,
            CopyQuiet,
            Cmov,
            Store,
            StoreTruncated,
        ]
    };
}

/// One instruction: an immediate for the helpers.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub op: Op,
    /// The register st(i) that is an operand.
    pub i: u8,
    /// The result goes to st(i), not st(0).
    pub to_i: bool,
    pub pops: u8,
    /// The operand in memory.
    pub format: Option<Format>,
    /// Number of a constant, in the order of the opcodes.
    pub constant: u8,
}

impl Step {
    pub fn pack(self) -> i64 {
        self.op as i64
            | (self.i as i64) << 8
            | (self.to_i as i64) << 12
            | (self.pops as i64) << 13
            | self.format.map_or(0, |f| f as i64 + 1) << 16
            | (self.constant as i64) << 20
    }
    /// [`Step::format`] alone.
    #[inline]
    pub fn format_of(imm: u64) -> Option<Format> {
        Some(Format::ALL[((imm >> 16 & 15) as usize).checked_sub(1)?])
    }
    pub fn unpack(imm: u64) -> Step {
        let field = |at: u32, bits: u32| (imm >> at) as u8 & ((1 << bits) - 1);
        Step {
            op: Op::ALL[imm as u8 as usize],
            i: field(8, 3),
            to_i: field(12, 1) != 0,
            pops: field(13, 2),
            format: Step::format_of(imm),
            constant: field(20, 3),
        }
    }
}

/// Exceptions and C1 as the status word has them.
pub fn status(flags: Flags) -> u16 {
    let up = if flags.contains(Flags::ROUNDED_UP) { C1 } else { 0 };
    flags.x86() as u16 | up
}

/// `a op b` for the first six operations. The environment may hold the denormal exception of [`second`].
#[inline]
pub fn arithmetic(op: Op, env: &mut Env, a: u128, b: u128) -> u128 {
    let denormal = std::mem::take(&mut env.flags);
    let v = match op {
        Op::Add => soft::add::<F80>(env, a, b),
        Op::Mul => soft::mul::<F80>(env, a, b),
        Op::Sub => soft::sub::<F80>(env, a, b),
        Op::SubR => soft::sub::<F80>(env, b, a),
        Op::Div => soft::div::<F80>(env, a, b),
        _ => soft::div::<F80>(env, b, a),
    };
    if env.flags.0 & (INVALID | DIV_ZERO) == 0 {
        env.raise(denormal);
    }
    v
}

/// Condition codes of a comparison, exceptions beside them.
#[inline]
pub fn compare(a: u128, b: u128, signalling: bool) -> u16 {
    let mut env = Env::x87(0x37f);
    let codes = match soft::compare::<F80>(&mut env, a, b, signalling) {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        None => C0 | C2 | C3,
    };
    codes | env.flags.x86() as u16
}

/// Condition codes of FXAM for a register that is in use.
pub fn examine(a: u128) -> u16 {
    let (sign, class) = soft::classify::<F80>(a);
    let codes = match class {
        FpClass::Unsupported => 0,
        FpClass::QuietNan | FpClass::SignallingNan => C0,
        FpClass::Normal => C2,
        FpClass::Infinite => C2 | C0,
        FpClass::Zero => C3,
        FpClass::Subnormal => C3 | C2,
    };
    codes | if sign { C1 } else { 0 }
}

/// A datum from memory as a register holds it, signalling NaNs unchanged, and whether it was denormal.
#[inline]
pub fn widened(format: Format, raw: u128) -> (u128, bool) {
    let fraction = |raw: u64, exp_bits: u32, bits: u32| -> (u128, bool) {
        let sign = (raw >> (bits - 1) & 1) << 15;
        let exp = raw >> (bits - 1 - exp_bits) & ((1 << exp_bits) - 1);
        let sig = raw << (exp_bits + 1) << (64 - bits) >> 1;
        let bias = 0x3fff - ((1 << (exp_bits - 1)) - 1);
        let (exp, sig, denormal) = match exp {
            0 if sig == 0 => (0, 0, false),
            0 => {
                let n = sig.leading_zeros();
                (bias + 1 - n as u64, sig << n, true)
            }
            e if e == (1 << exp_bits) - 1 => (0x7fff, sig | 1 << 63, false),
            e => (bias + e, sig | 1 << 63, false),
        };
        (soft::f80_from_parts(sig, (sign | exp) as u16), denormal)
    };
    let exact = |v: i64| {
        let n = v.unsigned_abs().leading_zeros();
        let exp = if v == 0 { 0 } else { 0x3fff + 63 - n as u16 };
        let sig = v.unsigned_abs().wrapping_shl(n);
        soft::f80_from_parts(sig, exp | if v < 0 { 0x8000 } else { 0 })
    };
    match format {
        Format::F32 => fraction(raw as u32 as u64, 8, 32),
        Format::F64 => fraction(raw as u64, 11, 64),
        Format::F80 => (raw & (u128::MAX >> 48), false),
        Format::I16 => (exact(raw as i16 as i64), false),
        Format::I32 => (exact(raw as i32 as i64), false),
        Format::I64 => (exact(raw as i64), false),
        Format::Bcd => (soft::x87_load_bcd(raw), false),
    }
}

/// FLD of a datum in memory: quiets a NaN.
#[inline]
pub fn load(env: &mut Env, format: Format, raw: u128) -> u128 {
    let (v, denormal) = widened(format, raw);
    if denormal {
        env.raise(Flags::DENORMAL);
    }
    let signalling = v >> 62 & 0x1_ffff == 0x1_fffe && v as u64 != 1 << 63;
    if signalling && matches!(format, Format::F32 | Format::F64) {
        env.raise(Flags::INVALID);
        return v | 1 << 62;
    }
    v
}

/// Whether an operation looks at its other operand: this one is a number.
fn is_number(a: u128) -> bool {
    let (significand, exponent) = soft::f80_parts(a);
    let unnormal = exponent & 0x7fff != 0 && significand >> 63 == 0;
    let nan = exponent & 0x7fff == 0x7fff && significand << 1 != 0;
    !(unnormal || nan)
}

/// The second operand of an instruction, from memory if it has a format; the first is `a`. A denormal one in memory
/// raises its exception where a denormal register would.
#[inline]
pub fn second(env: &mut Env, format: Option<Format>, a: u128, raw: u128) -> u128 {
    let Some(format) = format else { return raw };
    let (v, denormal) = widened(format, raw);
    if denormal && is_number(a) {
        env.raise(Flags::DENORMAL);
    }
    v
}

/// A register as memory gets it.
#[inline]
pub fn stored(env: &mut Env, format: Format, a: u128, mode: Rounding) -> u128 {
    let mut int = |ty| soft::to_int::<F80>(env, a, ty, mode, IntRule::X86) as u128;
    match format {
        Format::F32 => soft::convert::<F80, F32>(env, a) as u128,
        Format::F64 => soft::convert::<F80, F64>(env, a) as u128,
        Format::F80 => a,
        Format::I16 => int(IntType::I16),
        Format::I32 => int(IntType::I32),
        Format::I64 => int(IntType::I64),
        Format::Bcd => soft::x87_store_bcd(env, a),
    }
}

/// What an empty register stores when invalid is masked.
fn stored_indefinite(format: Format) -> u128 {
    match format {
        Format::F32 => 0xffc0_0000,
        Format::F64 => 0xfff8_0000_0000_0000,
        Format::F80 | Format::Bcd => INDEFINITE,
        Format::I16 => 1 << 15,
        Format::I32 => 1 << 31,
        Format::I64 => 1 << 63,
    }
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ.
pub fn constant(env: &Env, n: u8) -> u128 {
    use X87Constant::*;
    soft::x87_constant(env, [One, Log2Of10, Log2OfE, Pi, Log10Of2, LnOf2, Zero][n as usize])
}

/// The registers.
pub struct Unit<'a>(pub &'a mut CpuState);

impl Unit<'_> {
    fn word(&self, slot: Slot) -> u16 {
        self.0.get(cell(slot)) as u16
    }
    fn set_word(&mut self, slot: Slot, v: u16) {
        self.0.set(cell(slot), v as u64);
    }
    pub fn fcw(&self) -> u16 {
        self.word(regs::FCW)
    }
    /// Without TOP.
    pub fn fsw(&self) -> u16 {
        self.word(regs::FSW)
    }
    pub fn top(&self) -> u8 {
        self.word(regs::FTOP) as u8 & 7
    }
    pub fn set_top(&mut self, top: u8) {
        self.set_word(regs::FTOP, top as u16 & 7);
    }
    pub fn tag(&self) -> u8 {
        self.word(regs::FTAG) as u8
    }
    pub fn set_tag(&mut self, tag: u8) {
        self.set_word(regs::FTAG, tag as u16);
    }
    fn physical(&self, i: u8) -> u8 {
        self.top().wrapping_add(i) & 7
    }
    pub fn is_empty(&self, i: u8) -> bool {
        self.tag() >> self.physical(i) & 1 == 0
    }
    /// st(i), whether in use or not.
    pub fn get(&self, i: u8) -> u128 {
        let n = self.physical(i) as usize;
        soft::f80_from_parts(self.0.get(cell(regs::FPR_SIG[n])), self.word(regs::FPR_EXP[n]))
    }
    /// Writes st(i), which then is in use.
    pub fn set(&mut self, i: u8, v: u128) {
        let n = self.physical(i);
        self.set_tag(self.tag() | 1 << n);
        let (significand, exponent) = soft::f80_parts(v);
        self.0.set(cell(regs::FPR_SIG[n as usize]), significand);
        self.set_word(regs::FPR_EXP[n as usize], exponent);
    }
    pub fn pop(&mut self) {
        let n = self.physical(0);
        self.set_tag(self.tag() & !(1 << n));
        self.set_top(n + 1);
    }
    fn push(&mut self, v: u128) {
        self.set_top(self.top().wrapping_sub(1));
        self.set(0, v);
    }

    /// Sets the control word, and what follows for a pending exception.
    pub fn set_fcw(&mut self, value: u16) {
        self.set_word(regs::FCW, control(value));
        self.set_fsw(self.fsw());
    }
    /// Sets the status word's exceptions and codes; error summary and busy follow.
    pub fn set_fsw(&mut self, value: u16) {
        let pending = value & !self.fcw() & EXCEPTIONS != 0;
        let summary = if pending { ES | BUSY } else { 0 };
        self.set_word(regs::FSW, value & (EXCEPTIONS | SF | CODES) | summary);
    }
    /// FNINIT.
    pub fn init(&mut self) {
        self.set_word(regs::FCW, 0x37f);
        for slot in [
            regs::FSW,
            regs::FTOP,
            regs::FTAG,
            regs::FIP,
            regs::FDP,
            regs::FCS,
            regs::FDS,
            regs::FOP,
        ] {
            self.0.set(cell(slot), 0);
        }
    }

    /// Replaces the condition codes; the low bits of `codes` are exceptions to record.
    fn note(&mut self, mask: u16, codes: u16) {
        self.set_fsw(self.fsw() & !mask | codes);
    }

    /// A stack fault. True when invalid is masked, so that the instruction goes on with the default NaN.
    fn stack_fault(&mut self, overflow: bool) -> bool {
        self.note(C1, INVALID | SF | if overflow { C1 } else { 0 });
        self.fcw() & INVALID != 0
    }

    /// The environment of an operation; unmasked overflow and underflow wrap the exponent of register results.
    fn env(&self) -> Env {
        let mut env = Env::x87(self.fcw());
        env.wraps = Flags(!self.fcw() & (OVERFLOW | UNDERFLOW));
        env
    }

    /// Records an operation's exceptions. True when its result is delivered, which unmasked ones prevent: invalid,
    /// denormal and zero divide always, overflow and underflow when the result goes to memory.
    fn record(&mut self, flags: Flags, to_memory: bool) -> bool {
        let masks = self.fcw();
        let mut raised = flags.x86() as u16;
        // A tiny result that is exact raises only an unmasked underflow.
        if flags.contains(Flags::TINY) && masks & UNDERFLOW == 0 {
            raised |= UNDERFLOW;
        }
        let unmasked = raised & !masks;
        // In the order of their precedence; what comes behind does not happen.
        for (one, before) in [(INVALID, 0), (DENORMAL, 0), (DIV_ZERO, DENORMAL)] {
            if unmasked & one != 0 {
                self.note(C1, raised & (one | before));
                return false;
            }
        }
        if to_memory && unmasked & (OVERFLOW | UNDERFLOW) != 0 {
            self.note(C1, raised & !0x20);
            return false;
        }
        let up = if flags.contains(Flags::ROUNDED_UP) { C1 } else { 0 };
        self.note(C1, raised | up);
        true
    }

    /// The registers an operation reads are in use, or an invalid exception is on its way: then `None`, or the
    /// default NaN for the result when that is masked.
    fn check(&mut self, empty: bool) -> Result<(), Option<u128>> {
        if !empty {
            return Ok(());
        }
        Err(self.stack_fault(false).then_some(INDEFINITE))
    }

    /// Runs an instruction. `operand`: the memory operand, or (FCMOVcc) the condition. The result: condition codes
    /// for FCOMI and its kin, 1 if FPTAN and FSINCOS found their operand in range.
    pub fn run(&mut self, step: Step, operand: u128) -> u64 {
        let pops = step.pops;
        let result = match step.op {
            Op::Add | Op::Mul | Op::Sub | Op::SubR | Op::Div | Op::DivR => {
                self.run_arithmetic(step, operand)
            }
            Op::Com | Op::Ucom | Op::ComI | Op::UcomI | Op::Tst => {
                return self.run_compare(step, operand);
            }
            Op::Xam => {
                let codes = match self.get(0) {
                    a if self.is_empty(0) => C3 | C0 | examine(a) & C1,
                    a => examine(a),
                };
                self.note(CODES, codes);
                true
            }
            Op::Load | Op::Const => self.run_load(step, operand),
            Op::Chs | Op::Abs => {
                let a = self.get(0);
                let v = if step.op == Op::Chs { a ^ 1 << 79 } else { a & !(1 << 79) };
                self.unary(|_, _| v)
            }
            Op::Sqrt => self.unary(soft::sqrt::<F80>),
            Op::Rndint => self.unary(|e, a| soft::round_to_integral::<F80>(e, a, e.rounding, true)),
            Op::F2xm1 => self.unary(soft::x87_exp2_minus_1),
            Op::Sin | Op::Cos => self.run_sine(step.op),
            Op::Sincos | Op::Ptan => return self.run_two_results(step.op),
            Op::Patan => self.binary(|e, x, y| soft::x87_atan(e, y, x), true),
            Op::Yl2x => self.binary(|e, x, y| soft::x87_log2(e, y, x), true),
            Op::Yl2xp1 => self.binary(|e, x, y| soft::x87_log2_plus_1(e, y, x), true),
            Op::Scale => self.binary(soft::x87_scale, false),
            Op::Prem => self.run_remainder(Quotient::Truncated),
            Op::Prem1 => self.run_remainder(Quotient::Nearest),
            Op::Xtract => return self.run_two_results(step.op),
            Op::Xch => self.run_exchange(step.i),
            Op::CopyQuiet => {
                self.note(C1, 0);
                if !self.is_empty(0) {
                    self.set(step.i, self.get(0));
                }
                true
            }
            Op::Copy => {
                let v = match self.check(self.is_empty(0)) {
                    Ok(()) => {
                        self.note(C1, 0);
                        self.get(0)
                    }
                    Err(Some(nan)) => nan,
                    Err(None) => return 0,
                };
                self.set(step.i, v);
                true
            }
            Op::Cmov => {
                match self.check(self.is_empty(0) || self.is_empty(step.i)) {
                    Ok(()) => {
                        if operand as u8 != 0 {
                            self.set(0, self.get(step.i));
                        }
                    }
                    Err(Some(nan)) => self.set(0, nan),
                    Err(None) => {}
                }
                true
            }
            Op::Store | Op::StoreTruncated => unreachable!("stores have their own helpers"),
        };
        if result {
            (0..pops).for_each(|_| self.pop());
        }
        0
    }

    fn run_arithmetic(&mut self, step: Step, operand: u128) -> bool {
        let other_empty = step.format.is_none() && self.is_empty(step.i);
        let to = if step.to_i { step.i } else { 0 };
        match self.check(self.is_empty(0) || other_empty) {
            Ok(()) => {}
            Err(Some(nan)) => {
                self.set(to, nan);
                return true;
            }
            Err(None) => return false,
        }
        let mut env = self.env();
        let other = match step.format {
            Some(_) => second(&mut env, step.format, self.get(0), operand),
            None => self.get(step.i),
        };
        let (a, b) = if step.to_i { (other, self.get(0)) } else { (self.get(0), other) };
        let v = arithmetic(step.op, &mut env, a, b);
        let delivered = self.record(env.flags, false);
        if delivered {
            self.set(to, v);
        }
        delivered
    }

    fn run_compare(&mut self, step: Step, operand: u128) -> u64 {
        let eflags = matches!(step.op, Op::ComI | Op::UcomI);
        let other_empty = step.format.is_none() && step.op != Op::Tst && self.is_empty(step.i);
        let (codes, delivered) = if self.is_empty(0) || other_empty {
            (C0 | C2 | C3, self.stack_fault(false))
        } else {
            let mut env = self.env();
            let other = match step.format {
                Some(_) => second(&mut env, step.format, self.get(0), operand),
                None if step.op == Op::Tst => 0,
                None => self.get(step.i),
            };
            let signalling = !matches!(step.op, Op::Ucom | Op::UcomI);
            let found = compare(self.get(0), other, signalling);
            let c1 = if eflags { self.fsw() & C1 } else { 0 };
            let delivered = self.record(Flags(found & EXCEPTIONS) | env.flags, false);
            self.note(C1, c1);
            (found & CODES, delivered)
        };
        if !eflags {
            // An unmasked exception prevents the pops only.
            self.note(C0 | C2 | C3, codes);
        }
        if delivered {
            (0..step.pops).for_each(|_| self.pop());
        }
        codes as u64
    }

    fn run_load(&mut self, step: Step, operand: u128) -> bool {
        let from_empty = step.op == Op::Load && step.format.is_none() && self.is_empty(step.i);
        if !self.is_empty(7) && !from_empty {
            if self.stack_fault(true) {
                self.push(INDEFINITE);
            }
            return true;
        }
        let mut env = self.env();
        let v = match (step.op, step.format) {
            (Op::Const, _) => constant(&env, step.constant),
            (_, Some(format)) => load(&mut env, format, operand),
            _ => match self.check(self.is_empty(step.i)) {
                Ok(()) => self.get(step.i),
                Err(Some(nan)) => {
                    self.push(nan);
                    return true;
                }
                Err(None) => return true,
            },
        };
        let denormal = step.format.is_some() && !env.flags.contains(Flags::INVALID);
        // A denormal number from memory is loaded though the exception is not masked.
        if self.record(env.flags, false) || denormal {
            self.push(v);
        }
        true
    }

    fn unary(&mut self, f: impl Fn(&mut Env, u128) -> u128) -> bool {
        match self.check(self.is_empty(0)) {
            Ok(()) => {
                let mut env = self.env();
                let v = f(&mut env, self.get(0));
                if self.record(env.flags, false) {
                    self.set(0, v);
                }
            }
            Err(Some(nan)) => self.set(0, nan),
            Err(None) => {}
        }
        true
    }

    /// Of st(0) and st(1); with `pop` the result replaces st(1) and st(0) is popped.
    fn binary(&mut self, f: impl Fn(&mut Env, u128, u128) -> u128, pop: bool) -> bool {
        let to = pop as u8;
        let v = match self.check(self.is_empty(0) || self.is_empty(1)) {
            Ok(()) => {
                let mut env = self.env();
                let v = f(&mut env, self.get(0), self.get(1));
                if !self.record(env.flags, false) {
                    return true;
                }
                v
            }
            Err(Some(nan)) => nan,
            Err(None) => return true,
        };
        self.set(to, v);
        if pop {
            self.pop();
        }
        true
    }

    fn run_sine(&mut self, op: Op) -> bool {
        match self.check(self.is_empty(0)) {
            Ok(()) => {
                let mut env = self.env();
                let a = self.get(0);
                let v = match op {
                    Op::Sin => soft::x87_sin(&mut env, a),
                    _ => soft::x87_cos(&mut env, a),
                };
                let delivered = self.record(env.flags, false);
                self.note(C2, if v.is_none() { C2 } else { 0 });
                if let (Some(v), true) = (v, delivered) {
                    self.set(0, v);
                }
            }
            Err(nan) => {
                self.note(C2, 0);
                if let Some(nan) = nan {
                    self.set(0, nan);
                }
            }
        }
        true
    }

    /// FSINCOS, FPTAN and FXTRACT replace st(0) and push another.
    fn run_two_results(&mut self, op: Op) -> u64 {
        let trigonometric = op != Op::Xtract;
        let underflow = self.is_empty(0);
        if underflow || !self.is_empty(7) {
            let masked = self.stack_fault(!underflow);
            if trigonometric {
                self.note(C2, 0);
            }
            if masked {
                self.set(0, INDEFINITE);
                self.push(INDEFINITE);
            }
            return 1;
        }
        let mut env = self.env();
        let a = self.get(0);
        let one = 0x3fff_8000_0000_0000_0000;
        let found = match op {
            Op::Sincos => soft::x87_sincos(&mut env, a),
            Op::Ptan => soft::x87_tan(&mut env, a).map(|t| {
                let nan = matches!(
                    soft::classify::<F80>(t).1,
                    FpClass::QuietNan | FpClass::SignallingNan
                );
                (t, if nan { t } else { one })
            }),
            _ => {
                let exponent = soft::exponent::<F80>(&mut env, a);
                Some((exponent, soft::significand::<F80>(&mut env, a)))
            }
        };
        let delivered = self.record(env.flags, false);
        if trigonometric {
            self.note(C2, if found.is_none() { C2 } else { 0 });
        }
        if let (Some((first, second)), true) = (found, delivered) {
            self.set(0, first);
            self.push(second);
        }
        found.is_some() as u64
    }

    fn run_remainder(&mut self, quotient: Quotient) -> bool {
        match self.check(self.is_empty(0) || self.is_empty(1)) {
            Ok(()) => {
                let mut env = self.env();
                let (v, q, partial) =
                    soft::x87_partial_remainder(&mut env, self.get(0), self.get(1), quotient);
                let delivered = self.record(env.flags, false);
                self.note(C2, if partial && delivered { C2 } else { 0 });
                if delivered {
                    self.set(0, v);
                    if is_number(v) && !partial {
                        let bit = |n: u32, c: u16| if q >> n & 1 != 0 { c } else { 0 };
                        self.note(C0 | C1 | C3, bit(2, C0) | bit(1, C3) | bit(0, C1));
                    } else if partial {
                        self.note(CODES, C2);
                    }
                }
            }
            Err(nan) => {
                self.note(C2, 0);
                if let Some(nan) = nan {
                    self.set(0, nan);
                }
            }
        }
        true
    }

    fn run_exchange(&mut self, i: u8) -> bool {
        if self.is_empty(0) || self.is_empty(i) {
            if !self.stack_fault(false) {
                return true;
            }
            for n in [0, i] {
                if self.is_empty(n) {
                    self.set(n, INDEFINITE);
                }
            }
        } else {
            self.note(C1, 0);
        }
        let (a, b) = (self.get(0), self.get(i));
        self.set(0, b);
        self.set(i, a);
        true
    }

    /// What a store writes, if it does, with the exceptions that it raises. Changes nothing.
    pub fn stored(&self, step: Step) -> Option<u128> {
        let format = step.format.expect("a memory operand");
        if self.is_empty(0) {
            return (self.fcw() & INVALID != 0).then(|| stored_indefinite(format));
        }
        let (v, flags) = self.converted(step, format);
        let mut raised = flags.x86() as u16;
        if flags.contains(Flags::TINY) {
            raised |= UNDERFLOW;
        }
        let stopped = raised & !self.fcw() & (INVALID | DENORMAL | DIV_ZERO | OVERFLOW | UNDERFLOW);
        (stopped == 0).then_some(v)
    }

    fn converted(&self, step: Step, format: Format) -> (u128, Flags) {
        let mut env = self.env();
        let mode = match step.op {
            Op::StoreTruncated => Rounding::Zero,
            _ => env.rounding,
        };
        let v = stored(&mut env, format, self.get(0), mode);
        (v, env.flags)
    }

    /// The rest of a store, once memory was written.
    pub fn finish_store(&mut self, step: Step) {
        let format = step.format.expect("a memory operand");
        let delivered = if self.is_empty(0) {
            self.stack_fault(false)
        } else {
            let (_, flags) = self.converted(step, format);
            self.record(flags, true)
        };
        if delivered {
            (0..step.pops).for_each(|_| self.pop());
        }
    }
}
