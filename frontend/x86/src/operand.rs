//! Operands: addresses, memory accesses, segment checks, reading and writing an instruction's operands, and the
//! stack. Part of [`Lifter`].

use crate::lifter::Lifter;
use crate::system::debug;
use crate::{key, regs, segment};
use iced_x86::{Instruction, OpKind, Register};
use tulk_base::{MemAlign, MemOp, RmwOp};
use tulk_ir::{Type, Value};

/// A linear address: an I32 (which wraps at 4 GiB) or an I64, plus an offset.
#[derive(Clone, Copy, Debug)]
pub struct Addr {
    pub base: Value,
    pub offset: i64,
}

impl Addr {
    /// The address `bytes` further on.
    pub fn plus(self, bytes: i64) -> Addr {
        Addr { base: self.base, offset: self.offset.wrapping_add(bytes) }
    }
}

/// Where an operand lives; a memory operand's address is computed once.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Reg(Register),
    Mem(Addr),
}

/// What an access does, for the segment check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    Read,
    Write,
}

/// Number of a segment register.
pub fn segment_number(r: Register) -> usize {
    debug_assert!(r.is_segment_register());
    r as usize - Register::ES as usize
}

/// Width in bits of the addresses of a memory operand.
pub fn address_bits(insn: &Instruction) -> u32 {
    for r in [insn.memory_base(), insn.memory_index()] {
        if r.is_gpr() || r.is_ip() {
            return r.size() as u32 * 8;
        }
    }
    match insn.memory_displ_size() {
        2 => 16,
        4 => 32,
        _ => 64,
    }
}

impl Lifter<'_> {
    // Addresses.

    /// The offset within the segment of the memory operand: an I32 (16-bit offsets zero-extended) or I64, and
    /// a displacement to be added.
    pub(crate) fn offset(&mut self, insn: &Instruction) -> (Value, i64) {
        let bits = address_bits(insn);
        let ty = if bits == 64 { Type::I64 } else { Type::I32 };
        let disp = match bits {
            64 => insn.memory_displacement64() as i64,
            _ => insn.memory_displacement32() as i32 as i64,
        };
        if insn.memory_base().is_ip() {
            return (self.iconst(ty, disp), 0);
        }
        let mut sum = Value::NONE;
        if insn.memory_base() != Register::None {
            sum = self.address_reg(insn.memory_base(), ty);
        }
        // A vector index (VSIB) is added by its instruction.
        if insn.memory_index().is_gpr() {
            let mut index = self.address_reg(insn.memory_index(), ty);
            let scale = insn.memory_index_scale().trailing_zeros();
            if scale != 0 {
                index = self.shl_imm(index, scale);
            }
            sum = if sum.is_none() { index } else { self.add(sum, index) };
        }
        if sum.is_none() {
            let disp = if bits == 16 { disp & 0xffff } else { disp };
            return (self.iconst(ty, disp), 0);
        }
        if bits == 16 {
            let sum = self.add_imm(sum, disp);
            return (self.and_imm(sum, 0xffff), 0);
        }
        (sum, disp)
    }

    fn address_reg(&mut self, r: Register, ty: Type) -> Value {
        let v = self.reg(r);
        self.zext(ty, v)
    }

    /// The memory operand's offset as LEA gives it, of the address size (I16, I32 or I64).
    pub fn effective_address(&mut self, insn: &Instruction) -> Value {
        let (v, disp) = self.offset(insn);
        let v = self.add_imm(v, disp);
        if address_bits(insn) == 16 { self.trunc(Type::I16, v) } else { v }
    }

    /// The linear address of the memory operand, for an access of `bytes` bytes.
    pub fn address(&mut self, insn: &Instruction, bytes: u32, intent: Intent) -> Addr {
        let (offset, disp) = self.offset(insn);
        let seg = segment_number(insn.memory_segment());
        self.linear(seg, offset, disp, bytes, intent)
    }

    /// The linear address of the memory operand, for an instruction that does not access it.
    pub fn unchecked_address(&mut self, insn: &Instruction) -> Addr {
        let (offset, disp) = self.offset(insn);
        let seg = segment_number(insn.memory_segment());
        if self.key.long() && (seg < regs::FS || self.ty(offset) == Type::I64) {
            return self.linear(seg, offset, disp, 1, Intent::Read);
        }
        let offset = self.add_imm(offset, disp);
        let offset = self.zext(Type::I64, offset);
        let base = self.get(regs::SEG_BASE[seg]);
        let sum = self.add(base, offset);
        let sum = if self.key.long() { sum } else { self.and_imm(sum, 0xffff_ffff) };
        Addr { base: sum, offset: 0 }
    }

    /// The linear address of `offset + disp` in a segment. `offset` is an I32 or, in 64-bit code, an I64.
    pub fn linear(
        &mut self,
        seg: usize,
        offset: Value,
        disp: i64,
        bytes: u32,
        intent: Intent,
    ) -> Addr {
        if self.key.long() {
            if seg < regs::FS {
                return Addr { base: offset, offset: disp };
            }
            let base = self.get(regs::SEG_BASE[seg]);
            if self.ty(offset) == Type::I64 {
                return Addr { base: self.add(base, offset), offset: disp };
            }
            // A 32-bit offset wraps before the base is added.
            let offset = self.add_imm(offset, disp);
            let offset = self.zext(Type::I64, offset);
            return Addr { base: self.add(base, offset), offset: 0 };
        }
        // No code segment can be written in protected mode, however open it is.
        if self.key.has_check(seg) || seg == regs::CS && intent == Intent::Write {
            let write = (intent == Intent::Write) as i64;
            let sum = self.add_imm(offset, disp);
            let imm = (bytes as i64) << 8 | write << 4 | seg as i64;
            self.call(segment::CHECK, &[sum], imm);
        }
        if !self.key.has_base(seg) {
            return Addr { base: offset, offset: disp };
        }
        let base = self.get(regs::SEG_BASE[seg]);
        let base = self.trunc(Type::I32, base);
        Addr { base: self.add(base, offset), offset: disp }
    }

    /// The address as one I64.
    pub fn flat(&mut self, addr: Addr) -> Value {
        let v = self.add_imm(addr.base, addr.offset);
        self.zext(Type::I64, v)
    }

    // Memory.

    fn memop(&self, op: MemOp) -> MemOp {
        let op = op.with_mmu(self.mmu);
        if self.key.align && op.align() == MemAlign::Any {
            op.with_align(MemAlign::Natural)
        } else {
            op
        }
    }

    /// Looks whether an access that was made hits a breakpoint.
    fn note_access(&mut self, addr: Addr, op: MemOp, write: bool) {
        if self.key.has(key::BREAKPOINTS) {
            let va = self.flat(addr);
            self.call(debug::ACCESS, &[va], (op.bytes() as i64) << 1 | write as i64);
        }
    }

    /// Loads a value of type `ty` at an address.
    pub fn load(&mut self, ty: Type, addr: Addr) -> Value {
        let op = MemOp::of_log2(ty.bytes().trailing_zeros() as u8);
        self.load_as(ty, addr, op)
    }
    /// Loads as `op` says, extended to `ty`.
    pub fn load_as(&mut self, ty: Type, addr: Addr, op: MemOp) -> Value {
        let op = self.memop(op);
        let v = std::ops::DerefMut::deref_mut(self).load(ty, addr.base, addr.offset, op);
        self.note_access(addr, op, false);
        v
    }
    /// Stores a value of its type's size.
    pub fn store(&mut self, addr: Addr, v: Value) {
        let op = MemOp::of_log2(self.ty(v).bytes().trailing_zeros() as u8);
        self.store_as(addr, v, op);
    }
    pub fn store_as(&mut self, addr: Addr, v: Value, op: MemOp) {
        let op = self.memop(op);
        std::ops::DerefMut::deref_mut(self).store(addr.base, addr.offset, op, v);
        self.note_access(addr, op, true);
    }
    /// Atomic read-modify-write; the old value.
    pub fn atomic_rmw(&mut self, rmw: RmwOp, addr: Addr, v: Value) -> Value {
        let op = self.memop(MemOp::of_log2(self.ty(v).bytes().trailing_zeros() as u8));
        let base = self.add_imm(addr.base, addr.offset);
        let old = std::ops::DerefMut::deref_mut(self).atomic_rmw(rmw, op, base, v);
        self.note_access(addr, op, true);
        old
    }
    /// Atomic compare and swap; the old value.
    pub fn atomic_cas(&mut self, addr: Addr, expected: Value, new: Value, op: MemOp) -> Value {
        let op = self.memop(op);
        let base = self.add_imm(addr.base, addr.offset);
        let old = std::ops::DerefMut::deref_mut(self).atomic_cas(op, base, expected, new);
        self.note_access(addr, op, true);
        old
    }

    // Operands.

    /// The operand's place; for memory the address of an access of the operand's size.
    pub fn place_of(&mut self, insn: &Instruction, n: u32, intent: Intent) -> Place {
        match insn.op_kind(n) {
            OpKind::Register => Place::Reg(insn.op_register(n)),
            _ => {
                let bytes = insn.memory_size().size() as u32;
                Place::Mem(self.address(insn, bytes, intent))
            }
        }
    }
    /// The value at a place, as `ty` (the register's width for registers).
    pub fn read(&mut self, place: Place, ty: Type) -> Value {
        match place {
            Place::Reg(r) => self.reg(r),
            Place::Mem(addr) => self.load(ty, addr),
        }
    }
    pub fn write(&mut self, place: Place, v: Value) {
        match place {
            Place::Reg(r) => self.set_reg(r, v),
            Place::Mem(addr) => self.store(addr, v),
        }
    }

    /// The integer type of an operand: of the register, of the memory operand, or, for an immediate, of the
    /// first operand.
    pub fn operand_type(&self, insn: &Instruction, n: u32) -> Type {
        let bytes = match insn.op_kind(n) {
            OpKind::Register => insn.op_register(n).size(),
            OpKind::Memory
            | OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI => insn.memory_size().size(),
            _ => return self.operand_type(insn, 0),
        };
        Type::int_of_log2(bytes.trailing_zeros() as u8)
    }

    /// Reads a general-register, memory or immediate operand; an immediate is extended to `ty`.
    pub fn operand(&mut self, insn: &Instruction, n: u32, ty: Type) -> Value {
        match insn.op_kind(n) {
            OpKind::Register => self.reg(insn.op_register(n)),
            OpKind::Memory => {
                let place = self.place_of(insn, n, Intent::Read);
                self.read(place, ty)
            }
            _ => {
                let imm = insn.immediate(n) as i64;
                self.iconst(ty, imm)
            }
        }
    }

    /// The constant that an immediate operand is.
    pub fn immediate(&self, insn: &Instruction, n: u32) -> Option<u64> {
        match insn.op_kind(n) {
            OpKind::Register | OpKind::Memory => None,
            _ => Some(insn.immediate(n)),
        }
    }

    // The stack.

    /// RSP, ESP or SP as an address operand: I64, or an I32.
    pub fn stack_pointer(&mut self) -> Value {
        match self.key.stack {
            64 => self.reg(Register::RSP),
            32 => self.reg(Register::ESP),
            _ => {
                let sp = self.reg(Register::SP);
                self.zext(Type::I32, sp)
            }
        }
    }
    /// Writes RSP, ESP or SP with a value of the type that [`Lifter::stack_pointer`] has.
    pub fn set_stack_pointer(&mut self, v: Value) {
        match self.key.stack {
            64 => self.set_reg(Register::RSP, v),
            32 => self.set_reg(Register::ESP, v),
            _ => {
                let sp = self.trunc(Type::I16, v);
                self.set_reg(Register::SP, sp);
            }
        }
    }
    /// Stack pointer plus `delta`, wrapped to its width.
    pub fn stack_plus(&mut self, sp: Value, delta: i64) -> Value {
        let sum = self.add_imm(sp, delta);
        if self.key.stack == 16 { self.and_imm(sum, 0xffff) } else { sum }
    }
    /// The address of the `bytes` at `delta` from a stack pointer value.
    pub fn stack_address(&mut self, sp: Value, delta: i64, bytes: u32, intent: Intent) -> Addr {
        if self.key.stack == 16 {
            let sp = self.stack_plus(sp, delta);
            return self.linear(regs::SS, sp, 0, bytes, intent);
        }
        self.linear(regs::SS, sp, delta, bytes, intent)
    }
    /// Pushes a value of its width.
    pub fn push(&mut self, v: Value) {
        let bytes = self.ty(v).bytes();
        let sp = self.stack_pointer();
        let addr = self.stack_address(sp, -(bytes as i64), bytes, Intent::Write);
        self.store(addr, v);
        let sp = self.stack_plus(sp, -(bytes as i64));
        self.set_stack_pointer(sp);
    }
    /// What a pop of this width reads; [`Lifter::drop_stack`] then moves the pointer.
    pub fn peek(&mut self, ty: Type) -> Value {
        let sp = self.stack_pointer();
        let addr = self.stack_address(sp, 0, ty.bytes(), Intent::Read);
        self.load(ty, addr)
    }
    pub fn drop_stack(&mut self, bytes: i64) {
        let sp = self.stack_pointer();
        let sp = self.stack_plus(sp, bytes);
        self.set_stack_pointer(sp);
    }
}
