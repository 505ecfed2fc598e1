//! Vector operands: reading and writing registers and memory in the legacy and VEX encodings. Part of [`Lifter`].

use super::transfer::PROBE;
use crate::lifter::Lifter;
use crate::operand::{Addr, Intent};
use crate::{key, regs};
use iced_x86::{EncodingKind, Instruction, OpKind, Register};
use tulk_base::{MemAlign, MemOp};
use tulk_ir::{IntCc, Shape, Type, Value};

/// A vector of 128 bits, or of 256 as two halves.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    pub lo: Value,
    pub hi: Option<Value>,
}

impl Vector {
    pub fn of(lo: Value) -> Vector {
        Vector { lo, hi: None }
    }
}

/// Which alignment a whole vector in memory must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alignment {
    /// The operand's size in legacy instructions, none in VEX ones.
    Usual,
    /// None.
    Any,
    /// The operand's size.
    Full,
}

pub fn is_vex(insn: &Instruction) -> bool {
    insn.code().encoding() == EncodingKind::VEX
}

/// Index of the first source: in legacy instructions it is the destination.
pub fn first(insn: &Instruction) -> u32 {
    is_vex(insn) as u32
}

/// The 8-bit immediate, which is the last operand.
pub fn imm8(insn: &Instruction) -> u32 {
    insn.immediate8() as u32
}

/// Address of a half of a page that an access of 32 bytes can begin in without leaving the page.
const LAST_START: i64 = 4096 - 32;

impl Lifter<'_> {
    pub fn xmm(&mut self, r: Register) -> Value {
        self.get(regs::XMM[r.number()])
    }

    /// The low 128 bits of a vector register, bits 255:128 cleared or left as the encoding demands.
    pub fn set_xmm(&mut self, insn: &Instruction, r: Register, v: Value) {
        self.set(regs::XMM[r.number()], v);
        if is_vex(insn) {
            self.clear_upper(r.number());
        }
    }

    /// Clears bits 255:128 of a register.
    pub fn clear_upper(&mut self, n: usize) {
        if self.clear_uppers >> n & 1 == 0 {
            let zero = self.vconst(0);
            self.set(regs::YMMH[n], zero);
            self.clear_uppers |= 1 << n;
        }
    }

    /// A vector register by its width.
    pub fn vector_reg(&mut self, r: Register) -> Vector {
        let lo = self.xmm(r);
        let hi = r.is_ymm().then(|| self.get(regs::YMMH[r.number()]));
        Vector { lo, hi }
    }

    /// A whole vector: register or memory operand `n`.
    pub fn vector(&mut self, insn: &Instruction, n: u32) -> Vector {
        self.vector_aligned(insn, n, Alignment::Usual)
    }

    pub fn vector_aligned(&mut self, insn: &Instruction, n: u32, alignment: Alignment) -> Vector {
        if insn.op_kind(n) == OpKind::Register {
            return self.vector_reg(insn.op_register(n));
        }
        let bytes = insn.memory_size().size() as u32;
        let addr = self.address(insn, bytes, Intent::Read);
        let (addr, op) = self.whole(insn, addr, bytes, alignment);
        let lo = self.load_as(Type::V128, addr, op);
        let hi = (bytes == 32).then(|| self.load_as(Type::V128, addr.plus(16), op));
        Vector { lo, hi }
    }

    /// Address and access of a whole vector or its halves.
    fn whole(
        &mut self,
        insn: &Instruction,
        addr: Addr,
        bytes: u32,
        alignment: Alignment,
    ) -> (Addr, MemOp) {
        let aligned = match alignment {
            Alignment::Usual => !is_vex(insn),
            Alignment::Any => false,
            Alignment::Full => true,
        };
        if !aligned {
            return (addr, MemOp::U128);
        }
        let op = MemOp::U128.with_align(MemAlign::Sixteen);
        if bytes != 32 {
            return (addr, op);
        }
        // An odd address where bit 4 is set: the access then breaks its alignment. (#GP shows no address.)
        let base = self.add_imm(addr.base, addr.offset);
        let bit = self.bextract_u(base, 4, 1);
        (Addr { base: self.or(base, bit), offset: 0 }, op)
    }

    /// Stores a whole vector to the memory operand.
    pub fn store_vector(&mut self, insn: &Instruction, v: Vector, alignment: Alignment) {
        let bytes = if v.hi.is_some() { 32 } else { 16 };
        let addr = self.address(insn, bytes, Intent::Write);
        let (addr, op) = self.whole(insn, addr, bytes, alignment);
        let Some(hi) = v.hi else { return self.store_as(addr, v.lo, op) };
        // Either all of it is written or nothing. Aligned halves lie in one page; so do most others.
        if alignment == Alignment::Full || self.key.has(key::BLIND_FAULTS) {
            self.store_as(addr, v.lo, op);
            return self.store_as(addr.plus(16), hi, op);
        }
        let base = self.add_imm(addr.base, addr.offset);
        let ty = self.ty(base);
        let (at, low, high) = (self.local(ty), self.local(Type::V128), self.local(Type::V128));
        self.set(at, base);
        self.set(low, v.lo);
        self.set(high, hi);
        let in_page = self.and_imm(base, 4095);
        let crosses = self.icmp_imm(IntCc::GtU, in_page, LAST_START);
        let (cold, go_on) = (self.label(), self.label());
        self.brif(crosses, cold, go_on);
        self.place(cold);
        let base = self.get(at);
        let base = self.zext(Type::I64, base);
        self.call(PROBE, &[base], 32);
        self.place(go_on);
        let addr = Addr { base: self.get(at), offset: 0 };
        let (lo, hi) = (self.get(low), self.get(high));
        self.store_as(addr, lo, op);
        self.store_as(addr.plus(16), hi, op);
    }

    /// Writes the destination register, operand 0, by the encoding's rules.
    pub fn put_vector(&mut self, insn: &Instruction, v: Vector) {
        let r = insn.op0_register();
        match v.hi {
            None => self.set_xmm(insn, r, v.lo),
            Some(hi) => {
                self.set(regs::XMM[r.number()], v.lo);
                self.set(regs::YMMH[r.number()], hi);
            }
        }
    }

    /// The scalar in lane 0 of register operand `n`, or the memory operand.
    pub fn scalar(&mut self, insn: &Instruction, n: u32, shape: Shape) -> Value {
        if insn.op_kind(n) == OpKind::Register {
            let v = self.xmm(insn.op_register(n));
            return self.vlane(shape, v, 0);
        }
        let ty = shape.lane_type();
        let addr = self.address(insn, ty.bytes(), Intent::Read);
        self.load(ty, addr)
    }

    /// A vector whose low bits are operand `n`, of which an instruction uses the low `1 << log2` bytes only.
    pub fn low_part(&mut self, insn: &Instruction, n: u32, log2: u8) -> Value {
        if insn.op_kind(n) == OpKind::Register {
            return self.xmm(insn.op_register(n));
        }
        let addr = self.address(insn, 1 << log2, Intent::Read);
        let ty = Type::int_of_log2(log2);
        let v = self.load(ty, addr);
        self.vscalar(Shape::int_of_log2(log2), v)
    }

    /// The destination with lane 0 of the first source replaced.
    pub fn put_low(&mut self, insn: &Instruction, shape: Shape, v: Value) {
        let a = self.xmm(insn.op_register(first(insn)));
        let merged = self.vset_lane(shape, a, 0, v);
        self.set_xmm(insn, insn.op0_register(), merged);
    }

    /// dst = f(src), half by half. The source is operand 1.
    pub fn map1(&mut self, insn: &Instruction, f: impl Fn(&mut Self, Value) -> Value) {
        let a = self.vector(insn, 1);
        let lo = f(self, a.lo);
        let hi = a.hi.map(|a| f(self, a));
        self.put_vector(insn, Vector { lo, hi });
    }

    /// dst = f(first source, second source), half by half.
    pub fn map2(&mut self, insn: &Instruction, f: impl Fn(&mut Self, Value, Value) -> Value) {
        let n = first(insn);
        let a = self.vector(insn, n);
        let b = self.vector(insn, n + 1);
        let lo = f(self, a.lo, b.lo);
        let hi = a.hi.zip(b.hi).map(|(a, b)| f(self, a, b));
        self.put_vector(insn, Vector { lo, hi });
    }

    /// Bytes picked from `a` (0 to 15), and 16 for zero.
    pub fn pick_bytes(&mut self, a: Value, bytes: [u8; 16]) -> Value {
        let zero = self.vconst(0);
        self.vshuffle(a, zero, bytes)
    }
}

/// Byte numbers that select whole lanes of `width` bytes.
pub fn lanes(width: usize, lane: impl Fn(usize) -> usize) -> [u8; 16] {
    std::array::from_fn(|i| (lane(i / width) * width + i % width) as u8)
}
