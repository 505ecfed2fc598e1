//! What lift functions write to: the IR builder plus what is known about the guest at this point of the block.
//!
//! [`Lifter`] dereferences to [`Builder`]; its own `get`, `set`, `call` and `place` shadow the builder's so that
//! the remembered values stay true, and its memory operations so that tags in addresses are removed. Invariants:
//! - values are remembered only within one IR block ([`Lifter::place`] forgets them all), and not across an
//!   instruction that cannot be repeated ([`Lifter::insn`] does);
//! - a remembered narrow value equals the low bits of the register it is remembered for;
//! - the NZCV slot is always written; [`Flags`] only spares reading it again.

use super::cpu::CpuModel;
use super::regs;
use std::ops::{Deref, DerefMut};
use tulk_base::{MemOp, RmwOp};
use tulk_ir::builder::Label;
use tulk_ir::types::nzcv;
use tulk_ir::{Access, Builder, ExitKind, FloatCc, IntCc, NzcvCond, Shape, Slot, Type, Value};

/// What wrote NZCV last, in this IR block. Values are the operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flags {
    Unknown,
    /// The packed word.
    Packed(Value),
    /// `a - b`.
    Sub(Value, Value),
    /// `a + b` and its result.
    Add(Value, Value, Value),
    /// A logical result.
    Logic(Value),
    /// A quiet float comparison.
    Float(Value, Value),
}

/// A condition of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cond {
    Const(bool),
    /// A truth value.
    If(Value),
}

/// See the module.
pub struct Lifter<'a> {
    builder: Builder<'a>,
    pub cpu: &'a CpuModel,
    /// Address of the current instruction.
    pub pc: u64,
    /// Float instructions must lift to helper calls: see [`super::KEY_FP_SPECIAL`].
    pub fp_special: bool,
    /// Data addresses may have tags: see [`super::KEY_TAGGED`].
    tagged: bool,
    /// See [`super::KEY_SP_CHECKED`].
    sp_checked: bool,
    /// The current instruction wrote SP in a way that may have misaligned it.
    sp_loose: bool,
    /// Values of slots (x0 to x30, SP, NZCV, v0 to v31).
    slots: [Value; REMEMBERED],
    /// I32 views of x0 to x30 and SP.
    words: [Value; 32],
    /// Lane 0 of v0 to v31, of whatever scalar type was used last.
    scalars: [Value; 32],
    /// Constants in x0 to x30, written in this block.
    known: [Option<u64>; 31],
    flags: Flags,
    /// Set by CCMP and CCMN: when the first is false, NZCV is the second instead.
    otherwise: Option<(Value, u32)>,
}

/// Slots whose values are remembered: those up to v31.
const REMEMBERED: usize = regs::V[31].0 as usize + 1;

impl<'a> Deref for Lifter<'a> {
    type Target = Builder<'a>;
    fn deref(&self) -> &Builder<'a> {
        &self.builder
    }
}

impl<'a> DerefMut for Lifter<'a> {
    fn deref_mut(&mut self) -> &mut Builder<'a> {
        &mut self.builder
    }
}

impl<'a> Lifter<'a> {
    /// A lifter at `pc` under the key flags `flags`.
    pub fn new(builder: Builder<'a>, cpu: &'a CpuModel, pc: u64, flags: u64) -> Lifter<'a> {
        Lifter {
            builder,
            cpu,
            pc,
            fp_special: flags & super::KEY_FP_SPECIAL != 0,
            tagged: flags & super::KEY_TAGGED != 0,
            sp_checked: flags & super::KEY_SP_CHECKED != 0,
            sp_loose: false,
            slots: [Value::NONE; REMEMBERED],
            words: [Value::NONE; 32],
            scalars: [Value::NONE; 32],
            known: [None; 31],
            flags: Flags::Unknown,
            otherwise: None,
        }
    }

    pub fn finish(self) {
        self.builder.finish();
    }

    fn forget_all(&mut self) {
        self.slots = [Value::NONE; REMEMBERED];
        self.words = [Value::NONE; 32];
        self.scalars = [Value::NONE; 32];
        self.known = [None; 31];
        self.set_flags(Flags::Unknown);
    }

    fn set_flags(&mut self, flags: Flags) {
        self.flags = flags;
        self.otherwise = None;
    }

    /// Forgets what is derived from a slot other than its value.
    fn forget_views(&mut self, slot: Slot) {
        let n = slot.0 as usize;
        if n < 32 {
            self.words[n] = Value::NONE;
            if let Some(known) = self.known.get_mut(n) {
                *known = None;
            }
        } else if slot == regs::NZCV {
            self.set_flags(Flags::Unknown);
        } else if n < REMEMBERED {
            self.scalars[n - regs::V[0].0 as usize] = Value::NONE;
        }
    }

    // Slots.

    /// The slot's value, read at most once per block.
    pub fn get(&mut self, slot: Slot) -> Value {
        let n = slot.0 as usize;
        if n >= REMEMBERED {
            return self.builder.get(slot);
        }
        if self.slots[n].is_none() {
            self.slots[n] = self.builder.get(slot);
        }
        self.slots[n]
    }

    pub fn set(&mut self, slot: Slot, v: Value) {
        self.builder.set(slot, v);
        self.sp_loose |= slot == regs::SP;
        if (slot.0 as usize) < REMEMBERED {
            self.forget_views(slot);
            self.slots[slot.0 as usize] = v;
        }
    }

    /// [`Builder::call`], forgetting what the helper may write.
    pub fn call(&mut self, helper: u32, args: &[Value], imm: i64) -> Value {
        let result = self.builder.call(helper, args, imm);
        match super::helpers::ALL[helper as usize].writes {
            Access::None => {}
            Access::All => self.forget_all(),
            Access::These(slots) => {
                for &slot in slots.iter().filter(|s| (s.0 as usize) < REMEMBERED) {
                    self.forget_views(slot);
                    self.slots[slot.0 as usize] = Value::NONE;
                }
            }
        }
        result
    }

    /// [`Builder::insn`]; see [`Builder::repeatable`].
    pub fn insn(&mut self, pc: u64, len: u32) {
        if !self.builder.repeatable() {
            self.forget_all();
        }
        self.builder.insn(pc, len);
    }

    /// [`Builder::place`]: opens an IR block, in which no value of the last is known.
    pub fn place(&mut self, label: Label) {
        self.builder.place(label);
        self.forget_all();
    }

    // Memory.

    /// The effective address and what is left of the offset.
    fn address(&mut self, addr: Value, offset: i64) -> (Value, i64) {
        if !self.tagged {
            return (addr, offset);
        }
        let sum = self.builder.add_imm(addr, offset);
        (self.builder.bextract_s(sum, 0, 56), 0)
    }
    /// [`Builder::load`].
    pub fn load(&mut self, ty: Type, addr: Value, offset: i64, op: MemOp) -> Value {
        let (addr, offset) = self.address(addr, offset);
        self.builder.load(ty, addr, offset, op)
    }
    /// [`Builder::store`].
    pub fn store(&mut self, addr: Value, offset: i64, op: MemOp, value: Value) {
        let (addr, offset) = self.address(addr, offset);
        self.builder.store(addr, offset, op, value);
    }
    /// [`Builder::atomic_rmw`].
    pub fn atomic_rmw(&mut self, rmw: RmwOp, op: MemOp, addr: Value, value: Value) -> Value {
        let (addr, _) = self.address(addr, 0);
        self.builder.atomic_rmw(rmw, op, addr, value)
    }
    /// [`Builder::atomic_cas`].
    pub fn atomic_cas(&mut self, op: MemOp, addr: Value, expected: Value, new: Value) -> Value {
        let (addr, _) = self.address(addr, 0);
        self.builder.atomic_cas(op, addr, expected, new)
    }

    // The alignment of SP.

    /// Xn or SP as the base of an access, before anything else of the access: a misaligned SP faults first.
    pub fn base(&mut self, n: u32) -> Value {
        let base = self.xsp(n);
        if n == 31 && self.sp_checked {
            self.call(super::helpers::CHECK_SP_ALIGNMENT, &[base], 0);
        }
        base
    }

    /// Writes Xn or SP: SP with a multiple of 16 if it was one before and `step` is one.
    pub fn set_base(&mut self, n: u32, v: Value, step: i64) {
        let loose = self.sp_loose;
        self.set_xsp(n, v);
        if step & 15 == 0 {
            self.sp_loose = loose;
        }
    }

    /// At the start of a block: once SP is checked it stays so, because the edges of the block lead to blocks that do.
    pub fn note_sp_checked(&mut self) {
        if self.sp_checked {
            let one = self.iconst(Type::I64, 1);
            self.builder.set(regs::SP_CHECKED, one);
        }
    }

    /// Behind an instruction: leaves for code that checks SP, if the instruction wrote it and that misaligned it.
    pub fn leave_if_sp_misaligned(&mut self) {
        if !std::mem::take(&mut self.sp_loose) || self.sp_checked || self.ended() {
            return;
        }
        let sp = self.xsp(31);
        let low = self.and_imm(sp, 15);
        let misaligned = self.icmp_imm(IntCc::Ne, low, 0);
        let (leave, stay) = (self.label(), self.label());
        self.brif(misaligned, leave, stay);
        self.place(leave);
        self.resync();
        self.place(stay);
    }

    // General registers. Number 31 is XZR here.

    /// Xn, or zero for number 31.
    pub fn x(&mut self, n: u32) -> Value {
        if n == 31 { self.builder.iconst(Type::I64, 0) } else { self.get(Slot(n as u16)) }
    }

    /// Wn as an I32, or zero for number 31.
    pub fn w(&mut self, n: u32) -> Value {
        if n == 31 {
            return self.builder.iconst(Type::I32, 0);
        }
        self.low_word(n)
    }

    fn low_word(&mut self, n: u32) -> Value {
        if self.words[n as usize].is_none() {
            let x = self.get(Slot(n as u16));
            self.words[n as usize] = self.builder.trunc(Type::I32, x);
        }
        self.words[n as usize]
    }

    /// Xn or Wn by `sf`.
    pub fn r(&mut self, sf: u32, n: u32) -> Value {
        if sf != 0 { self.x(n) } else { self.w(n) }
    }

    /// Writes Xn: an I64, or an I32 (or narrower) that is zero-extended. Number 31 discards it.
    pub fn set_r(&mut self, n: u32, v: Value) {
        if n != 31 {
            self.set_xsp(n, v);
        }
    }

    /// Writes a constant.
    pub fn set_known(&mut self, n: u32, value: u64) {
        if n != 31 {
            let v = self.builder.iconst(Type::I64, value as i64);
            self.set(Slot(n as u16), v);
            self.known[n as usize] = Some(value);
        }
    }

    /// The constant that Xn is known to hold; zero for number 31.
    pub fn known(&self, n: u32) -> Option<u64> {
        self.known.get(n as usize).copied().unwrap_or(Some(0))
    }

    // The same where number 31 is SP.

    pub fn xsp(&mut self, n: u32) -> Value {
        self.get(Slot(n as u16))
    }
    pub fn rsp(&mut self, sf: u32, n: u32) -> Value {
        if sf != 0 { self.xsp(n) } else { self.low_word(n) }
    }
    pub fn set_xsp(&mut self, n: u32, v: Value) {
        let slot = Slot(n as u16);
        if self.ty(v) == Type::I64 {
            self.set(slot, v);
        } else {
            let wide = self.builder.zext(Type::I64, v);
            self.set(slot, wide);
            if self.ty(v) == Type::I32 {
                self.words[n as usize] = v;
            }
        }
    }

    // SIMD and floating-point registers.

    /// Vn.
    pub fn v(&mut self, n: u32) -> Value {
        self.get(regs::V[n as usize])
    }
    pub fn set_v(&mut self, n: u32, v: Value) {
        self.set(regs::V[n as usize], v);
    }

    /// Lane 0 of Vn as `ty`: the B, H, S or D register.
    pub fn scalar(&mut self, ty: Type, n: u32) -> Value {
        let have = self.scalars[n as usize];
        if !have.is_none() {
            let from = self.ty(have);
            if from == ty {
                return have;
            }
            if from.bits() == ty.bits() {
                return self.builder.bitcast(ty, have);
            }
        }
        let v = self.v(n);
        let lane = self.builder.vlane(lane_shape(ty), v, 0);
        self.scalars[n as usize] = lane;
        lane
    }

    /// Writes a scalar to Vn, zeroing the rest.
    pub fn set_scalar(&mut self, n: u32, scalar: Value) {
        let shape = lane_shape(self.ty(scalar));
        let v = self.builder.vscalar(shape, scalar);
        self.set_v(n, v);
        self.scalars[n as usize] = scalar;
    }

    // Condition flags.

    /// Writes a packed word to NZCV.
    pub fn set_nzcv(&mut self, packed: Value) {
        self.set(regs::NZCV, packed);
        self.set_flags(Flags::Packed(packed));
    }
    /// Flags of `a - b`.
    pub fn set_nzcv_sub(&mut self, a: Value, b: Value) {
        let packed = self.builder.sub_nzcv(a, b);
        self.set_nzcv(packed);
        self.set_flags(Flags::Sub(a, b));
    }
    /// Flags of `a + b`, which is `sum`.
    pub fn set_nzcv_add(&mut self, a: Value, b: Value, sum: Value) {
        let packed = self.builder.add_nzcv(a, b);
        self.set_nzcv(packed);
        self.set_flags(Flags::Add(a, b, sum));
    }
    /// N and Z of `a`.
    pub fn set_nzcv_logic(&mut self, a: Value) {
        let packed = self.builder.logic_nzcv(a);
        self.set_nzcv(packed);
        self.set_flags(Flags::Logic(a));
    }
    /// Flags of the float comparison of `a` and `b`.
    pub fn set_nzcv_float(&mut self, signalling: bool, a: Value, b: Value) {
        let packed = self.builder.fcmp_nzcv(signalling, a, b);
        self.set_nzcv(packed);
        self.set_flags(Flags::Float(a, b));
    }
    /// Flags of the comparison that CCMP or CCMN makes if `cond` holds, else the constant `nzcv` (4 bits).
    pub fn set_nzcv_if(&mut self, cond: Value, compared: Flags, nzcv: u32) {
        let yes = match compared {
            Flags::Sub(a, b) => self.builder.sub_nzcv(a, b),
            Flags::Add(a, b, _) => self.builder.add_nzcv(a, b),
            Flags::Float(a, b) => self.builder.fcmp_nzcv(false, a, b),
            Flags::Logic(a) => self.builder.logic_nzcv(a),
            Flags::Packed(v) => v,
            Flags::Unknown => unreachable!("a comparison has operands"),
        };
        let no = self.builder.iconst(Type::I32, (nzcv as i64) << 28);
        let packed = self.builder.select(cond, yes, no);
        self.set_nzcv(packed);
        self.flags = compared;
        self.otherwise = Some((cond, nzcv << 28));
    }

    /// The condition of a 4-bit code over the present flags.
    pub fn cond(&mut self, code: u32) -> Cond {
        if code >= 14 {
            return Cond::Const(true);
        }
        let cc = NzcvCond::from_u8(code as u8);
        if let Some((cond, nzcv)) = self.otherwise {
            return match self.fused(cc) {
                Some(Cond::If(v)) => {
                    let no = self.builder.iconst(Type::I8, holds(cc, nzcv) as i64);
                    Cond::If(self.builder.select(cond, v, no))
                }
                _ => self.test(cc),
            };
        }
        self.fused(cc).unwrap_or_else(|| self.test(cc))
    }

    /// The condition as a truth value.
    pub fn cond_value(&mut self, code: u32) -> Value {
        match self.cond(code) {
            Cond::If(v) => v,
            Cond::Const(c) => self.builder.iconst(Type::I8, c as i64),
        }
    }

    /// PSTATE.C as a truth value.
    pub fn carry(&mut self) -> Value {
        self.cond_value(NzcvCond::Cs as u32)
    }

    fn test(&mut self, cc: NzcvCond) -> Cond {
        let packed = self.get(regs::NZCV);
        Cond::If(self.builder.nzcv_test(cc, packed))
    }

    /// The condition as a comparison of the remembered operands, where there is one.
    fn fused(&mut self, cc: NzcvCond) -> Option<Cond> {
        use NzcvCond::*;
        let b = &mut self.builder;
        let value = match self.flags {
            Flags::Sub(x, y) => {
                let cc = match cc {
                    Eq => IntCc::Eq,
                    Ne => IntCc::Ne,
                    Cs => IntCc::GeU,
                    Cc => IntCc::LtU,
                    Hi => IntCc::GtU,
                    Ls => IntCc::LeU,
                    Ge => IntCc::GeS,
                    Lt => IntCc::LtS,
                    Gt => IntCc::GtS,
                    Le => IntCc::LeS,
                    Mi | Pl | Vs | Vc => return None,
                };
                b.icmp(cc, x, y)
            }
            Flags::Add(x, _, sum) => match cc {
                Eq => b.icmp_imm(IntCc::Eq, sum, 0),
                Ne => b.icmp_imm(IntCc::Ne, sum, 0),
                Mi => b.icmp_imm(IntCc::LtS, sum, 0),
                Pl => b.icmp_imm(IntCc::GeS, sum, 0),
                Cs => b.icmp(IntCc::LtU, sum, x),
                Cc => b.icmp(IntCc::GeU, sum, x),
                _ => return None,
            },
            Flags::Logic(r) => match cc {
                Eq => b.icmp_imm(IntCc::Eq, r, 0),
                Ne => b.icmp_imm(IntCc::Ne, r, 0),
                Mi | Lt => b.icmp_imm(IntCc::LtS, r, 0),
                Pl | Ge => b.icmp_imm(IntCc::GeS, r, 0),
                Gt => b.icmp_imm(IntCc::GtS, r, 0),
                Le => b.icmp_imm(IntCc::LeS, r, 0),
                Cc | Vc | Ls => return Some(Cond::Const(true)),
                Cs | Vs | Hi => return Some(Cond::Const(false)),
            },
            Flags::Float(x, y) => {
                let cc = match cc {
                    Eq => FloatCc::Eq,
                    Ne => FloatCc::Ne,
                    Cs | Pl => FloatCc::UGe,
                    Cc | Mi => FloatCc::Lt,
                    Vs => FloatCc::Uno,
                    Vc => FloatCc::Ord,
                    Hi => FloatCc::UGt,
                    Ls => FloatCc::Le,
                    Ge => FloatCc::Ge,
                    Lt => FloatCc::ULt,
                    Gt => FloatCc::Gt,
                    Le => FloatCc::ULe,
                };
                b.fcmp(cc, false, x, y)
            }
            Flags::Packed(v) => b.nzcv_test(cc, v),
            Flags::Unknown => return None,
        };
        Some(Cond::If(value))
    }

    // Ends of the block.

    /// Ends the block as undefined.
    pub fn undefined(&mut self) {
        let pc = self.pc;
        self.builder.trap(ExitKind::Illegal, 0, pc);
    }

    /// Ends the block at a constant pc.
    pub fn exit_to(&mut self, pc: u64) {
        self.builder.exit(pc);
    }

    /// Ends the block: to `target` if `cond`, else to the next instruction.
    pub fn branch_if(&mut self, cond: Cond, target: u64) {
        let next = self.pc.wrapping_add(4);
        match cond {
            Cond::Const(true) => self.exit_to(target),
            Cond::Const(false) => self.exit_to(next),
            Cond::If(v) => {
                let (taken, not) = (self.label(), self.label());
                self.brif(v, taken, not);
                self.place(not);
                self.exit_to(next);
                self.place(taken);
                self.exit_to(target);
            }
        }
    }

    /// Ends the block: looks the next instruction up anew, because a mode or code changed.
    pub fn resync(&mut self) {
        let next = self.pc.wrapping_add(4);
        let next = self.builder.iconst(Type::I64, next as i64);
        self.builder.exit_indirect(ExitKind::Resync, next, None, None);
    }
}

/// The vector shape with lanes of a scalar type.
pub const fn lane_shape(ty: Type) -> Shape {
    match ty {
        Type::I8 => Shape::I8x16,
        Type::I16 => Shape::I16x8,
        Type::I32 => Shape::I32x4,
        Type::F32 => Shape::F32x4,
        Type::F64 => Shape::F64x2,
        _ => Shape::I64x2,
    }
}

/// Whether the condition holds for a constant packed word.
fn holds(cc: NzcvCond, flags: u32) -> bool {
    let [n, z, c, v] = [nzcv::N, nzcv::Z, nzcv::C, nzcv::V].map(|bit| flags & bit != 0);
    match cc {
        NzcvCond::Eq => z,
        NzcvCond::Ne => !z,
        NzcvCond::Cs => c,
        NzcvCond::Cc => !c,
        NzcvCond::Mi => n,
        NzcvCond::Pl => !n,
        NzcvCond::Vs => v,
        NzcvCond::Vc => !v,
        NzcvCond::Hi => c && !z,
        NzcvCond::Ls => !c || z,
        NzcvCond::Ge => n == v,
        NzcvCond::Lt => n != v,
        NzcvCond::Gt => !z && n == v,
        NzcvCond::Le => z || n != v,
    }
}
