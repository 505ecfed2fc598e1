//! The x87 registers while lifting. TOP and the tags are part of a translation's key, so st(i) is a fixed slot and a
//! stack fault is known at lift time; both change in step with the slots that hold them for everybody else.

use crate::cpu::Feature;
use crate::key;
use crate::lifter::Lifter;
use crate::operand::Intent;
use crate::regs;
use crate::x87::number::STATUS;
use crate::x87::unit::{C1, CODES, ES};
use iced_x86::{Encoder, Instruction, OpKind};
use tulk_ir::{IntCc, Type, Value};

/// TOP and tags at the present point of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stack {
    pub top: u8,
    /// Bit n: physical register n is in use.
    pub tag: u8,
}

impl Stack {
    pub fn of_key(flags: u64) -> Stack {
        Stack {
            top: (flags >> key::X87_TOP_SHIFT) as u8 & 7,
            tag: (flags >> key::X87_TAG_SHIFT) as u8,
        }
    }
    pub fn key(self) -> u64 {
        (self.top as u64) << key::X87_TOP_SHIFT | (self.tag as u64) << key::X87_TAG_SHIFT
    }
    /// Number of the physical register that st(i) is.
    pub fn physical(self, i: u8) -> u8 {
        self.top.wrapping_add(i) & 7
    }
    pub fn is_empty(self, i: u8) -> bool {
        self.tag >> self.physical(i) & 1 == 0
    }
    pub fn fill(&mut self, i: u8) {
        self.tag |= 1 << self.physical(i);
    }
    pub fn free(&mut self, i: u8) {
        self.tag &= !(1 << self.physical(i));
    }
    pub fn push(&mut self) {
        self.top = self.physical(7);
        self.fill(0);
    }
    pub fn pop(&mut self) {
        self.free(0);
        self.top = self.physical(1);
    }
}

/// The low 11 bits of the opcode: of the byte behind the prefixes, and the one behind that.
fn opcode(insn: &Instruction, bits: u32) -> u16 {
    let mut encoder = Encoder::new(bits);
    let encoded = encoder.encode(insn, insn.ip());
    let bytes = encoder.take_buffer();
    let at = bytes.iter().position(|b| b & 0xf8 == 0xd8);
    match (encoded, at) {
        (Ok(_), Some(at)) if at + 1 < bytes.len() => {
            (bytes[at] as u16 & 7) << 8 | bytes[at + 1] as u16
        }
        _ => 0,
    }
}

impl Lifter<'_> {
    /// st(i) as an I128: significand low, sign and exponent high.
    pub fn st(&mut self, i: u8) -> Value {
        let n = self.stack.physical(i) as usize;
        let significand = self.get(regs::FPR_SIG[n]);
        let exponent = self.get(regs::FPR_EXP[n]);
        self.concat(significand, exponent)
    }

    /// Writes st(i) with 80 bits, the others zero. The tag is the caller's.
    pub fn set_st(&mut self, i: u8, v: Value) {
        let n = self.stack.physical(i) as usize;
        let (significand, exponent) = (self.lo64(v), self.hi64(v));
        self.set(regs::FPR_SIG[n], significand);
        self.set(regs::FPR_EXP[n], exponent);
    }

    /// Writes st(i) and the status word from a result of [`super::number`].
    pub fn set_result(&mut self, i: u8, v: Value) {
        let n = self.stack.physical(i) as usize;
        let (significand, high) = (self.lo64(v), self.hi64(v));
        self.set(regs::FPR_SIG[n], significand);
        let exponent = self.and_imm(high, 0xffff);
        self.set(regs::FPR_EXP[n], exponent);
        let status = self.shr_u_imm(high, STATUS - 64);
        let status = self.trunc(Type::I32, status);
        self.add_status(status);
    }

    /// Changes TOP and tags, in the slots too.
    pub fn set_stack(&mut self, new: Stack) {
        if new.top != self.stack.top {
            let top = self.iconst(Type::I32, new.top as i64);
            self.set(regs::FTOP, top);
        }
        if new.tag != self.stack.tag {
            let tag = self.iconst(Type::I32, new.tag as i64);
            self.set(regs::FTAG, tag);
        }
        self.stack = new;
    }

    /// Pops `n` registers.
    pub fn pop_stack(&mut self, n: u8) {
        let mut stack = self.stack;
        (0..n).for_each(|_| stack.pop());
        self.set_stack(stack);
    }

    /// Clears C1 in the status word.
    pub fn clear_c1(&mut self) {
        let fsw = self.get(regs::FSW);
        let fsw = self.and_imm(fsw, !(C1 as i64));
        self.set(regs::FSW, fsw);
    }

    /// Adds exceptions and C1 (an I32) to the status word.
    pub fn add_status(&mut self, status: Value) {
        let fsw = self.get(regs::FSW);
        let fsw = self.and_imm(fsw, !(C1 as i64));
        let fsw = self.or(fsw, status);
        self.set(regs::FSW, fsw);
    }

    /// Replaces the condition codes; `codes` (an I32) may have exceptions beside them.
    pub fn set_codes(&mut self, codes: Value) {
        let fsw = self.get(regs::FSW);
        let fsw = self.and_imm(fsw, !(CODES as i64));
        let fsw = self.or(fsw, codes);
        self.set(regs::FSW, fsw);
    }

    /// Notes where the instruction and its memory operand are, if anybody can see that.
    pub fn note_pointers(&mut self, insn: &Instruction) {
        let all = self.key.has(key::X87_TRAPS);
        let rarely = self.cpu.has(Feature::FdpExcptnOnly);
        let everything = all || !rarely;
        if all && rarely {
            let old = [self.get(regs::FOP), self.get(regs::FDP)];
            let kept = [self.local(Type::I32), self.local(Type::I64)];
            kept.into_iter().zip(old).for_each(|(slot, v)| self.set(slot, v));
            self.old_pointers = Some(kept);
        }
        if (self.pointers.data || all) && everything {
            self.note_data_pointer(insn);
        }
        if !(self.pointers.insn || all) {
            return;
        }
        let (pc, bits) = (self.pc, self.key.code);
        let mut ip = self.iconst(Type::I64, pc as i64);
        if !self.key.long() && self.key.has_base(regs::CS) {
            let base = self.get(regs::SEG_BASE[regs::CS]);
            let offset = self.sub(ip, base);
            ip = self.and_imm(offset, 0xffff_ffff);
        }
        self.set(regs::FIP, ip);
        if !self.cpu.has(Feature::ZeroFcsFds) {
            let cs = self.get(regs::SEG[regs::CS]);
            self.set(regs::FCS, cs);
        }
        if everything {
            let fop = self.iconst(Type::I32, opcode(insn, bits) as i64);
            self.set(regs::FOP, fop);
        }
    }

    /// Behind an instruction that ran with unmasked exceptions: if it raised none, FOP and FDP are what they were.
    pub fn give_pointers_back(&mut self) {
        let Some(kept) = self.old_pointers.take() else { return };
        let fsw = self.get(regs::FSW);
        let pending = self.and_imm(fsw, ES as i64);
        let raised = self.icmp_imm(IntCc::Ne, pending, 0);
        for (slot, kept) in [regs::FOP, regs::FDP].into_iter().zip(kept) {
            let (new, old) = (self.get(slot), self.get(kept));
            let v = self.select(raised, new, old);
            self.set(slot, v);
        }
    }

    /// Behind a load of the x87 state: the selectors are zero on processors that do not keep them.
    pub fn forget_selectors(&mut self) {
        if self.cpu.has(Feature::ZeroFcsFds) {
            for slot in [regs::FCS, regs::FDS] {
                let zero = self.iconst(Type::I32, 0);
                self.set(slot, zero);
            }
        }
    }

    fn note_data_pointer(&mut self, insn: &Instruction) {
        if (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory) {
            let offset = self.effective_address(insn);
            let offset = self.zext(Type::I64, offset);
            self.set(regs::FDP, offset);
            if !self.cpu.has(Feature::ZeroFcsFds) {
                let seg = crate::operand::segment_number(insn.memory_segment());
                let selector = self.get(regs::SEG[seg]);
                self.set(regs::FDS, selector);
            }
        }
    }

    /// Loads a memory operand of 2, 4, 8 or 10 bytes as an I128.
    pub fn load_raw(&mut self, insn: &Instruction, bytes: u32) -> Value {
        let addr = self.address(insn, bytes, Intent::Read);
        if bytes == 10 {
            let low = self.load(Type::I64, addr);
            let high = self.load_as(Type::I64, addr.plus(8), tulk_base::MemOp::U16);
            return self.concat(low, high);
        }
        let v = self.load(Type::int_of_log2(bytes.trailing_zeros() as u8), addr);
        self.zext(Type::I128, v)
    }
}
