//! What lift functions write to: the IR builder plus what is known about the guest at this point of the block.
//!
//! [`Lifter`] dereferences to [`Builder`]; its own `get`, `set`, `call` and `place` shadow the builder's so that
//! remembered values stay true. This file has the registers and the ends of a block, [`condition`] the arithmetic
//! flags; [`crate::operand`] has operands, addresses, memory and the stack. Invariants:
//! - values are remembered only within one IR block ([`Lifter::place`] forgets them all);
//! - a remembered narrow value equals the low bits of the register it is remembered for;
//! - the flag slots hold the flags before each instruction that may leave the unit. Where no such instruction
//!   comes before the flags are replaced, they are not written at all ([`Lifter::live`]).

mod condition;

use crate::cpu::CpuModel;
use crate::flags::{self, CcOp};
use crate::helpers;
use crate::integer::system;
use crate::key::{self, Key};
use crate::system::{cr4, debug};
use crate::x87::Pointers;
use crate::x87::stack::Stack;
use crate::{regs, segment};
use iced_x86::Register;
use std::ops::{Deref, DerefMut};
use tulk_ir::builder::Label;
use tulk_ir::{Access, Builder, ExitKind, Slot, Type, Value};

/// A condition of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cond {
    Const(bool),
    /// A truth value.
    If(Value),
}

/// What is known about the arithmetic flags. Values are `NONE` where they must be read from the slots.
#[derive(Clone, Copy, Debug)]
struct Flags {
    op: Option<CcOp>,
    /// The operands, as values of the operation's type.
    dst: Value,
    src: Value,
    /// For `Sub`: the difference.
    result: Value,
    /// `cc_op`, `cc_dst` and `cc_src` behind a bit test, but for CF, where that asked at its start.
    settled: [Value; 3],
    /// Single flags as truth values, by [`condition::index`].
    bits: [Value; 6],
}

const UNKNOWN: Flags = Flags {
    op: None,
    dst: Value::NONE,
    src: Value::NONE,
    result: Value::NONE,
    settled: [Value::NONE; 3],
    bits: [Value::NONE; 6],
};

/// Vector of the debug exception.
const DEBUG: u32 = 1;

/// See the module.
pub struct Lifter<'a> {
    builder: Builder<'a>,
    pub cpu: &'a CpuModel,
    pub key: Key,
    /// The guest is a whole processor.
    pub system: bool,
    /// The MMU index of accesses.
    pub mmu: u8,
    /// Linear address of the current instruction, and of the one behind it.
    pub pc: u64,
    pub next: u64,
    /// Arithmetic flags that somebody may read after the current instruction.
    pub live: u32,
    /// TOP and tags of the x87 stack.
    pub stack: Stack,
    /// Which x87 pointers that the current instruction leaves somebody may see.
    pub pointers: Pointers,
    /// FOP and FDP as they were before the current x87 instruction, which may have to give them back.
    pub old_pointers: Option<[Slot; 2]>,
    /// Values of slots below [`REMEMBERED`].
    slots: [Value; REMEMBERED],
    /// Narrow views of the general registers: low 8, 16, 32 bits, bits 15:8.
    views: [[Value; 4]; 16],
    /// Narrow values and wide ones with the same low bits.
    wide: [(Value, Value); 8],
    next_wide: usize,
    flags: Flags,
    /// The constant in the `cc_op` slot.
    cc_op: Option<u32>,
    /// General registers that hold zero, as bits.
    zero: u16,
    /// RDX, EDX or DX, of this type, is the sign of RAX, EAX or AX.
    extended: Option<Type>,
    /// Slots with known content at the unit's entry.
    known: &'a [(Slot, u64)],
    /// Bit n: bits 255:128 of vector register n are zero.
    pub clear_uppers: u16,
    /// The present instruction is the unit's last one.
    pub last: bool,
    /// Ways out of the block that are still to be placed: label, linear pc, key flags.
    side_exits: Vec<(Label, u64, Option<u64>)>,
}

/// Slots whose values are remembered: the general registers, the flags, and the vector registers.
const REMEMBERED: usize = regs::YMMH[15].0 as usize + 1;

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

/// Number of a general register and which part of it: 0 low byte, 1 word, 2 doubleword, 3 second byte, 4 all.
fn part(r: Register) -> (usize, usize) {
    let n = r as usize;
    let at = |first: Register| n - first as usize;
    match r {
        _ if n < Register::AH as usize => (at(Register::AL), 0),
        _ if n < Register::SPL as usize => (at(Register::AH), 3),
        _ if n < Register::AX as usize => (at(Register::SPL) + 4, 0),
        _ if n < Register::EAX as usize => (at(Register::AX), 1),
        _ if n < Register::RAX as usize => (at(Register::EAX), 2),
        _ => {
            debug_assert!(n <= Register::R15 as usize, "{r:?} is no general register");
            (at(Register::RAX), 4)
        }
    }
}

const VIEW_TYPE: [Type; 5] = [Type::I8, Type::I16, Type::I32, Type::I8, Type::I64];

impl<'a> Lifter<'a> {
    pub fn new(
        builder: Builder<'a>,
        cpu: &'a CpuModel,
        pc: u64,
        key: Key,
        known: &'a [(Slot, u64)],
    ) -> Lifter<'a> {
        let mut l = Lifter {
            builder,
            cpu,
            key,
            system: false,
            mmu: 0,
            pc,
            next: pc,
            live: flags::ALL,
            stack: Stack::of_key(key.flags),
            pointers: Pointers::ALL,
            old_pointers: None,
            slots: [Value::NONE; REMEMBERED],
            views: [[Value::NONE; 4]; 16],
            wide: [(Value::NONE, Value::NONE); 8],
            next_wide: 0,
            flags: UNKNOWN,
            cc_op: None,
            zero: 0,
            extended: None,
            known,
            clear_uppers: 0,
            last: true,
            side_exits: Vec::new(),
        };
        l.cc_op = l.known(regs::CC_OP).map(|op| op as u32);
        l.flags.op = l.cc_op.map(CcOp::of_code);
        l
    }

    /// The guest is a whole processor.
    pub fn for_system(mut self) -> Lifter<'a> {
        self.system = true;
        self.mmu = self.key.mmu();
        self
    }

    /// Starts the instruction of this length behind the last one.
    pub fn start_instruction(&mut self, len: u64, live: u32) {
        self.pc = self.next;
        self.next = self.wrap(self.pc.wrapping_add(len));
        self.live = live;
        let pc = self.pc;
        if !self.builder.repeatable() {
            // The interpreter may take over here and reads what is known of registers and flags. Who is known to have cleared
            // the upper halves does not matter: they are left alone.
            let uppers = self.clear_uppers;
            if self.system {
                self.zero = 0;
                self.extended = None;
            } else {
                self.forget_values();
            }
            self.clear_uppers = uppers;
        }
        self.builder.insn(pc, len as u32);
        if self.key.has(key::CODE_CHECK) {
            self.call(segment::CHECK_CODE, &[], len as i64);
        }
        if self.key.has(key::SHADOW) {
            let none = self.builder.iconst(Type::I32, 0);
            self.set(regs::SHADOW, none);
        }
        if self.key.has(key::BREAKPOINTS) {
            self.call(debug::INSTRUCTION, &[], 0);
        }
    }

    /// System mode: the instruction is done, and the next is at the linear `pc`. Takes what #DB is due.
    fn boundary(&mut self, pc: Value) {
        if self.key.single() {
            self.call(debug::BOUNDARY, &[pc], self.key.tf as i64);
        }
    }

    /// A linear address as wide as the mode has them.
    pub fn wrap(&self, va: u64) -> u64 {
        if self.key.long() { va } else { va & 0xffff_ffff }
    }

    pub fn finish(mut self) {
        for (label, pc, flags) in std::mem::take(&mut self.side_exits) {
            self.builder.place(label);
            self.builder.exit_with_flags(ExitKind::Jump, pc, None, flags);
        }
        self.builder.finish();
    }

    /// What the slot holds at the unit's entry, if the lifter was told.
    pub fn known(&self, slot: Slot) -> Option<u64> {
        self.known.iter().find(|k| k.0 == slot).map(|k| k.1)
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
        let n = slot.0 as usize;
        if n < REMEMBERED {
            self.forget(slot);
            self.slots[n] = v;
        }
    }

    /// [`Lifter::set`] of a flag slot by the flag functions themselves.
    fn put(&mut self, slot: Slot, v: Value) {
        self.builder.set(slot, v);
        self.slots[slot.0 as usize] = v;
    }

    fn forget(&mut self, slot: Slot) {
        let n = slot.0 as usize;
        if n < REMEMBERED {
            self.slots[n] = Value::NONE;
        }
        if let Some(n) = n.checked_sub(regs::YMMH[0].0 as usize).filter(|&n| n < 16) {
            self.clear_uppers &= !(1 << n);
        }
        if n < 16 {
            self.views[n] = [Value::NONE; 4];
            self.zero &= !(1 << n);
            if slot == regs::RAX || slot == regs::RDX {
                self.extended = None;
            }
        } else if [regs::CC_OP, regs::CC_DST, regs::CC_SRC].contains(&slot) {
            self.forget_flags();
        }
    }

    /// Every value is forgotten; the constant in `cc_op` is not.
    fn forget_values(&mut self) {
        self.clear_uppers = 0;
        self.slots = [Value::NONE; REMEMBERED];
        self.views = [[Value::NONE; 4]; 16];
        self.wide = [(Value::NONE, Value::NONE); 8];
        self.zero = 0;
        self.extended = None;
        self.flags = Flags { op: self.cc_op.map(CcOp::of_code), ..UNKNOWN };
    }

    /// The flag slots were written behind the lifter's back.
    pub fn forget_flags(&mut self) {
        self.flags = UNKNOWN;
        self.cc_op = None;
        for slot in [regs::CC_OP, regs::CC_DST, regs::CC_SRC] {
            self.slots[slot.0 as usize] = Value::NONE;
        }
    }

    /// [`Builder::call`], forgetting what the helper may write.
    pub fn call(&mut self, helper: u32, args: &[Value], imm: i64) -> Value {
        let result = self.builder.call(helper, args, imm);
        match helpers::ALL[helper as usize].writes {
            Access::None => {}
            Access::All => {
                self.forget_values();
                self.forget_flags();
            }
            Access::These(slots) => slots.iter().for_each(|&slot| self.forget(slot)),
        }
        result
    }

    /// [`Builder::place`]: opens an IR block, in which no value of the last is known. A lift function that
    /// sets flags on one way to the label and not on another calls [`Lifter::forget_flags`] behind it.
    pub fn place(&mut self, label: Label) {
        self.builder.place(label);
        self.forget_values();
    }

    // General registers.

    /// The register's value, of its width.
    pub fn reg(&mut self, r: Register) -> Value {
        let (n, p) = part(r);
        let full = self.get(regs::GPR[n]);
        if p == 4 {
            return full;
        }
        if self.views[n][p].is_none() {
            self.views[n][p] = match p {
                3 => {
                    let shifted = self.builder.shr_u_imm(full, 8);
                    let v = self.builder.trunc(Type::I8, shifted);
                    self.remember_wide(v, shifted);
                    v
                }
                _ => {
                    let v = self.builder.trunc(VIEW_TYPE[p], full);
                    self.remember_wide(v, full);
                    v
                }
            };
        }
        self.views[n][p]
    }

    /// Writes a register: 32 bits clear the upper half, 8 and 16 bits leave the rest alone. `v` has the
    /// register's width.
    pub fn set_reg(&mut self, r: Register, v: Value) {
        let (n, p) = part(r);
        let slot = regs::GPR[n];
        debug_assert_eq!(self.ty(v), VIEW_TYPE[p]);
        match p {
            4 => self.set(slot, v),
            2 => {
                let wide = self.builder.zext(Type::I64, v);
                self.set(slot, wide);
                self.remember_wide(v, wide);
            }
            _ => {
                let old = self.get(slot);
                let part = self.wide(v);
                let (lsb, width) = [(0, 8), (0, 16), (0, 0), (8, 8)][p];
                let merged = self.builder.binsert(old, part, lsb, width);
                self.set(slot, merged);
            }
        }
        if p < 4 {
            self.views[n][p] = v;
        }
    }

    /// Register `n` in the encoding's order, as `ty` (its low byte for I8, also for 4 to 7).
    pub fn gpr(&mut self, n: usize, ty: Type) -> Value {
        self.reg(numbered(n, ty))
    }
    pub fn set_gpr(&mut self, n: usize, v: Value) {
        let ty = self.ty(v);
        self.set_reg(numbered(n, ty), v);
    }

    /// Writes zero to a register and remembers that.
    pub fn clear_reg(&mut self, r: Register) {
        let (n, p) = part(r);
        let zero = self.builder.iconst(VIEW_TYPE[p], 0);
        self.set_reg(r, zero);
        if p == 2 || p == 4 {
            self.zero |= 1 << n;
        }
    }
    /// Whether the register is known to hold zero.
    pub fn is_zero(&self, slot: Slot) -> bool {
        self.zero >> slot.0 & 1 != 0
    }
    /// RDX was made the sign of RAX, both as `ty`.
    pub fn note_extended(&mut self, ty: Type) {
        self.extended = Some(ty);
    }
    pub fn is_extended(&self, ty: Type) -> bool {
        self.extended == Some(ty)
    }

    fn remember_wide(&mut self, narrow: Value, wide: Value) {
        self.wide[self.next_wide % 8] = (narrow, wide);
        self.next_wide += 1;
    }

    /// Some I64 whose low bits are `v` (the other bits are anything).
    pub fn wide(&mut self, v: Value) -> Value {
        if self.ty(v) == Type::I64 {
            return v;
        }
        if let Some(known) = self.wide.iter().find(|w| w.0 == v) {
            return known.1;
        }
        let wide = self.builder.zext(Type::I64, v);
        self.remember_wide(v, wide);
        wide
    }

    // Ends of the block.

    /// Ends the block as undefined (#UD).
    pub fn undefined(&mut self) {
        let pc = self.pc;
        self.builder.trap(ExitKind::Illegal, 0, pc);
    }
    /// Ends the block as privileged (#GP(0) in user mode).
    pub fn privileged(&mut self) {
        let pc = self.pc;
        self.builder.trap(ExitKind::Privileged, 0, pc);
    }
    /// Ends the block with an exception that reports this instruction.
    pub fn exception(&mut self, vector: u32, code: u32) {
        let pc = self.pc;
        self.builder.trap(ExitKind::Guest, vector << 16 | code, pc);
    }
    /// Leaves with #GP(0) if the truth value holds, else goes on in a new IR block.
    pub fn fault_if(&mut self, cond: Value, vector: u32) {
        let (bad, good) = (self.label(), self.label());
        self.builder.brif(cond, bad, good);
        self.builder.place(bad);
        self.exception(vector, 0);
        self.place(good);
    }

    /// Ends the block with the fault of fetching the byte at `va`.
    pub fn fetch_fault(&mut self, va: u64) {
        let va = self.builder.iconst(Type::I64, va as i64);
        self.call(system::FETCH_FAULT, &[va], 0);
        self.undefined();
    }

    /// Ends the block at a constant linear pc.
    pub fn exit_to(&mut self, pc: u64) {
        if self.system && self.key.single() {
            let at = self.builder.iconst(Type::I64, pc as i64);
            self.boundary(at);
        }
        if !self.system && self.key.tf {
            self.builder.trap(ExitKind::Guest, DEBUG << 16, pc);
        } else if self.key.has(key::SHADOW) {
            // The engine must look whether an interrupt waits for the end of the shadow.
            let pc = self.builder.iconst(Type::I64, pc as i64);
            self.builder.exit_indirect(ExitKind::Resync, pc, None, None);
        } else {
            let flags = self.new_key();
            self.builder.exit_with_flags(ExitKind::Jump, pc, None, flags);
        }
    }

    /// The key flags of the next block, if the unit changed them.
    fn new_key(&self) -> Option<u64> {
        let flags = self.flags_now();
        (flags != self.key.flags).then_some(flags)
    }

    /// The key flags of the next block.
    fn flags_now(&self) -> u64 {
        let changing = key::X87_TOP | key::X87_TAG | key::DF;
        let df = if self.key.df { key::DF } else { 0 };
        self.key.flags & !changing | self.stack.key() | df
    }

    /// System mode: ends the block behind this instruction, which changed EFLAGS.AC at a CPL below 3.
    pub fn exit_with_smap(&mut self, ac: bool) {
        if self.key.single() || self.key.has(key::SHADOW) {
            return self.resync();
        }
        let (next, flags) = (self.next, self.flags_now() & !key::SMAP);
        if ac {
            let changed = (flags != self.key.flags).then_some(flags);
            return self.builder.exit_with_flags(ExitKind::Jump, next, None, changed);
        }
        let control = self.get(regs::CR4);
        let enforced = self.builder.and_imm(control, cr4::SMAP as i64);
        let shift = key::SMAP.trailing_zeros() - cr4::SMAP.trailing_zeros();
        let bit = self.builder.shl_imm(enforced, shift);
        let flags = self.builder.or_imm(bit, flags as i64);
        let pc = self.builder.iconst(Type::I64, next as i64);
        self.builder.exit_indirect(ExitKind::Jump, pc, None, Some(flags));
    }

    /// Ends the block with a call of a constant linear pc, which returns behind this instruction.
    pub fn exit_call(&mut self, pc: u64) {
        if self.key.single() || self.key.has(key::SHADOW) {
            return self.exit_to(pc);
        }
        let (ret, flags) = (self.next, self.new_key());
        self.builder.exit_with_flags(ExitKind::Call, pc, Some(ret), flags);
    }

    /// Ends the block at a computed linear pc.
    pub fn exit_indirect(&mut self, kind: ExitKind, pc: Value) {
        if self.system {
            self.boundary(pc);
        } else if self.key.tf {
            self.call(system::DEBUG_TRAP, &[pc], 0);
            return self.undefined();
        }
        let kind = if self.key.has(key::SHADOW) { ExitKind::Resync } else { kind };
        let ret = (kind == ExitKind::Call).then_some(self.next);
        let flags = if kind == ExitKind::Resync { None } else { self.new_key() };
        let flags = flags.map(|flags| self.builder.iconst(Type::I64, flags as i64));
        self.builder.exit_indirect(kind, pc, ret, flags);
    }

    /// Ends the block: to `target` if `cond`, else to the next instruction.
    pub fn branch_if(&mut self, cond: Cond, target: u64) {
        let next = self.next;
        match cond {
            Cond::Const(true) => self.exit_to(target),
            Cond::Const(false) => self.exit_to(next),
            Cond::If(v) => {
                let (taken, not) = (self.label(), self.label());
                self.builder.brif(v, taken, not);
                self.place(not);
                self.exit_to(next);
                self.place(taken);
                self.exit_to(target);
            }
        }
    }

    /// Leaves to `target` if `cond`, and goes on otherwise, in a new IR block. The block is no single step.
    pub fn leave_if(&mut self, cond: Cond, target: u64) {
        match cond {
            Cond::Const(true) => self.exit_to(target),
            Cond::Const(false) => {}
            Cond::If(v) => {
                let (taken, on) = (self.label(), self.label());
                self.builder.brif(v, taken, on);
                let flags = self.new_key();
                self.side_exits.push((taken, target, flags));
                self.place(on);
            }
        }
    }

    /// Ends the block behind this instruction: looks the next one up anew, because the key may have changed.
    pub fn resync(&mut self) {
        let next = self.builder.iconst(Type::I64, self.next as i64);
        self.exit_indirect(ExitKind::Resync, next);
    }
}

/// General register `n` in the encoding's order with the width of `ty`.
fn numbered(n: usize, ty: Type) -> Register {
    const NAMES: [[Register; 16]; 4] = {
        use Register::*;
        [
            [AL, CL, DL, BL, SPL, BPL, SIL, DIL, R8L, R9L, R10L, R11L, R12L, R13L, R14L, R15L],
            [AX, CX, DX, BX, SP, BP, SI, DI, R8W, R9W, R10W, R11W, R12W, R13W, R14W, R15W],
            [EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, R8D, R9D, R10D, R11D, R12D, R13D, R14D, R15D],
            [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15],
        ]
    };
    NAMES[ty.bytes().trailing_zeros() as usize][n]
}
