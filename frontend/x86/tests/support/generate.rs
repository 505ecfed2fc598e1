//! Random instructions for a code, with registers and memory set so that they mostly do something sensible.

use super::case::*;
use super::rng::Rng;
use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpCodeOperandKind as K, OpKind, Register, RflagsBits,
};

/// Distance from the start of a branch to where it goes: behind any instruction, in the breakpoints.
pub const BRANCH: u64 = 20;

/// A case under construction.
pub struct Plan<'a> {
    pub case: Case,
    pub rng: &'a mut Rng,
    pub insns: Vec<Instruction>,
    info: InstructionInfoFactory,
    /// Registers whose initial value is settled.
    pinned: [bool; 16],
    /// Registers that an earlier instruction writes.
    written: [bool; 16],
    /// Arithmetic flags (iced's bits) that are undefined now, and that ever were.
    undefined: u32,
    pub ever_undefined: u32,
    /// Linear address of the memory operand of the instruction under construction.
    effective: Option<u32>,
    /// Only registers, no memory operands.
    pub registers_only: bool,
    /// SS is a segment of 16 bits.
    small_stack: bool,
}

const GPR64: [Register; 16] = {
    use Register::*;
    [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15]
};

/// The register of `bytes` bytes that is number `n`; for bytes 16 to 19 are AH to BH.
pub fn gpr(n: usize, bytes: usize) -> Register {
    let values = |first: Register, n: usize| -> Register {
        Register::values().nth(first as usize + n).unwrap()
    };
    match bytes {
        1 if n >= 16 => values(Register::AH, n - 16),
        1 if n >= 4 => values(Register::SPL, n - 4),
        1 => values(Register::AL, n),
        2 => values(Register::AX, n),
        4 => values(Register::EAX, n),
        _ => values(Register::RAX, n),
    }
}

fn number(r: Register) -> Option<usize> {
    GPR64.iter().position(|&x| x == r.full_register())
}

impl<'a> Plan<'a> {
    /// Code of 16 and 32 bits sometimes begins with a change to a stack of 16 bits.
    pub fn new(bits: u32, rng: &'a mut Rng) -> Plan<'a> {
        let small_stack = bits != 64 && rng.chance(6);
        Plan::with_stack(bits, rng, small_stack)
    }

    pub fn with_stack(bits: u32, rng: &'a mut Rng, small_stack: bool) -> Plan<'a> {
        let mut case = Case::random(bits, rng);
        if bits != 64 {
            // Instruction pointers from anywhere are often small, and must not lead back into the code.
            case.code_at = 0xa35;
        }
        let mut pinned = [false; 16];
        pinned[4] = true;
        let mut plan = Plan {
            case,
            rng,
            insns: Vec::new(),
            info: InstructionInfoFactory::new(),
            pinned,
            written: [false; 16],
            undefined: 0,
            ever_undefined: 0,
            effective: None,
            registers_only: false,
            small_stack,
        };
        if small_stack {
            plan.enter_small_stack();
        }
        plan
    }

    /// mov ax, STACK16; mov ss, ax; mov esp, ...: the same linear address as before, and something above SP.
    fn enter_small_stack(&mut self) {
        let [low, high] = STACK16.to_le_bytes();
        let esp = self.rng.next() as u32 & 0xffff_0000 | (PAGE / 2);
        let esp = esp.to_le_bytes();
        let wide = (self.bits() == 16) as usize;
        self.push_bytes(&[0x66, 0xb8, low, high][wide..]);
        self.push_bytes(&[0x8e, 0xd0]);
        let mov = [0x66, 0xbc, esp[0], esp[1], esp[2], esp[3]];
        self.push_bytes(&mov[1 - wide..]);
        self.written[4] = false;
    }

    fn bits(&self) -> u32 {
        self.case.bits
    }
    /// Instructions that set the stage.
    fn prologue(&self) -> usize {
        if self.small_stack { 3 } else { 0 }
    }
    fn registers(&self) -> u64 {
        if self.bits() == 64 { 16 } else { 8 }
    }
    /// Linear address of the next instruction.
    pub fn ip(&self) -> u32 {
        self.case.end()
    }
    /// Instruction pointer of the next instruction.
    fn offset_ip(&self) -> u64 {
        let ip = self.ip() as u64;
        if self.bits() == 16 { ip - CODE as u64 } else { ip }
    }

    /// Settles the initial value of a register if that is still possible.
    pub fn pin(&mut self, n: usize, value: u64) -> bool {
        if self.pinned[n] || self.written[n] {
            return false;
        }
        self.pinned[n] = true;
        self.case.regs.gpr[n] = if self.bits() == 64 { value } else { value as u32 as u64 };
        true
    }

    /// A linear address for an access of `bytes` bytes.
    fn target(&mut self, bytes: u32) -> u32 {
        let bytes = bytes.max(1);
        let aligned = bytes >= 16 && !self.rng.chance(4);
        let inside = |rng: &mut Rng, start: u32, len: usize| {
            start + rng.below((len as u32 - bytes.min(512)) as u64) as u32
        };
        let at = match self.rng.below(40) {
            0 => DATA + DATA_LEN as u32 - self.rng.below(bytes as u64 + 1) as u32,
            1 => DATA - self.rng.below(bytes as u64 + 2) as u32,
            2 | 3 => DATA + PAGE - self.rng.below(bytes as u64 + 1) as u32,
            4 => inside(self.rng, CONST, CONST_LEN),
            5 => DATA + DATA_LEN as u32 + 64,
            _ => inside(self.rng, DATA, DATA_LEN),
        };
        if aligned { at & !(bytes.min(64) - 1) } else { at }
    }

    /// Sets the memory operand `op`.
    fn memory(&mut self, insn: &mut Instruction, op: u32, bytes: u32) -> Option<()> {
        if self.registers_only {
            return None;
        }
        insn.set_op_kind(op, OpKind::Memory);
        let bits = self.bits();
        let mut address = bits;
        if self.rng.chance(8) {
            address = if bits == 32 { 16 } else { 32 };
        }
        let mut target = self.target(bytes);
        let mut base_of_segment = 0;
        let segment = match (bits, self.rng.below(10)) {
            (64, 0) => Some((Register::FS, FS_BASE)),
            (_, 1) => Some((Register::GS, GS_BASE)),
            (32, 2) => Some((Register::ES, 0)),
            (32, 3) => Some((Register::CS, 0)),
            _ => None,
        };
        if let Some((r, base)) = segment {
            insn.set_segment_prefix(r);
            base_of_segment = base;
        }
        if address == 16 {
            // Only segments with a base reach the data.
            insn.set_segment_prefix(Register::GS);
            base_of_segment = GS_BASE;
            target = GS_BASE + self.rng.below(PAGE as u64 + 16) as u32;
        }
        // Accesses over the end of a 4 GiB segment are not modelled.
        if bits != 64 && target < base_of_segment && target + bytes.max(64) > base_of_segment {
            return None;
        }
        self.effective = Some(target);
        let offset = target.wrapping_sub(base_of_segment);
        match self.rng.below(12) {
            0 if bits == 64 && base_of_segment == 0 && address == 64 => {
                insn.set_memory_base(Register::RIP);
                insn.set_memory_displ_size(8);
                insn.set_memory_displacement64(offset as u64);
                return Some(());
            }
            1 if address != 16 => {
                insn.set_memory_displ_size(if bits == 64 && address == 64 { 8 } else { 4 });
                let long = address == 64;
                let d = if long { offset as i32 as i64 as u64 } else { offset as u64 };
                insn.set_memory_displacement64(d);
                return Some(());
            }
            _ => {}
        }
        if address == 16 {
            let combination = *self.rng.pick(&[(3, 6), (3, 7), (6, 16), (7, 16), (3, 16), (5, 6)]);
            let (base, index) = combination;
            let displacement = *self.rng.pick(&[0u64, 5, 0x1234, 0xfff0]);
            let i = if index == 16 {
                0
            } else {
                insn.set_memory_index(gpr(index, 2));
                self.case.regs.gpr[index]
            };
            insn.set_memory_base(gpr(base, 2));
            insn.set_memory_displ_size(if displacement == 0 { 0 } else { 2 });
            insn.set_memory_displacement64(displacement);
            if index != 16 {
                self.pinned[index] = true;
            }
            let want = (offset as u64).wrapping_sub(i).wrapping_sub(displacement) as u16 as u64;
            let high = self.case.regs.gpr[base] & !0xffff;
            self.pin(base, high | want);
            return Some(());
        }
        let size = address as usize / 8;
        let base = self.rng.below(self.registers()) as usize;
        let index = self.rng.below(self.registers()) as usize;
        let use_index = self.rng.chance(2) && index != 4 && index != base;
        let scale = if use_index { 1u64 << self.rng.below(4) } else { 1 };
        let mut rest = offset as u64;
        if address == 64 && self.rng.chance(30) {
            // A non-canonical or far address.
            rest = self.rng.next();
        }
        if use_index {
            insn.set_memory_index(gpr(index, size));
            insn.set_memory_index_scale(scale as u32);
            if self.written[index] {
                return None;
            }
            self.pinned[index] = true;
            rest = rest.wrapping_sub(self.case.regs.gpr[index].wrapping_mul(scale));
        }
        insn.set_memory_base(gpr(base, size));
        let cut = |v: u64| if address == 64 { v } else { v as u32 as u64 };
        let displacement = if self.pinned[base] || self.written[base] {
            // Reach the target from the value that the register has.
            let d = cut(rest.wrapping_sub(self.case.regs.gpr[base]));
            if address == 64 && d as i32 as i64 as u64 != d {
                return None;
            }
            d
        } else {
            let d = match self.rng.below(4) {
                0 => 0,
                1 => self.rng.range(-128, 128) as u64,
                _ => self.rng.next() as i32 as i64 as u64,
            };
            let upper = if address == 64 { 0 } else { self.rng.next() << 32 };
            self.pin(base, cut(rest.wrapping_sub(d)) | upper);
            d
        };
        let small = displacement as i8 as i64 as u64 == displacement;
        let no_displacement = displacement == 0 && self.rng.chance(2);
        insn.set_memory_displ_size(match () {
            _ if no_displacement => 0,
            _ if small => 1,
            _ => size as u32,
        });
        insn.set_memory_displacement64(displacement);
        Some(())
    }

    fn any_gpr(&mut self, bytes: usize) -> Register {
        for _ in 0..20 {
            let n = self.rng.below(if bytes == 1 { 20 } else { 16 }) as usize;
            let n = if self.bits() == 64 || n >= 16 { n } else { n % 8 };
            if bytes == 1 && self.bits() != 64 && (4..16).contains(&n) {
                continue;
            }
            let whole = if n >= 16 { n - 16 } else { n };
            if !self.pinned[whole] || self.rng.chance(6) {
                return gpr(n, bytes);
            }
        }
        gpr(0, bytes)
    }

    fn vector(&mut self, first: Register) -> Register {
        let n = self.rng.below(self.registers()) as usize;
        Register::values().nth(first as usize + n).unwrap()
    }

    /// Sets operand `op` by its kind.
    fn operand(&mut self, insn: &mut Instruction, op: u32, kind: K) -> Option<()> {
        let bytes = insn.memory_size().size() as u32;
        let memory = self.rng.chance(2);
        let register = match kind {
            K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem
            | K::r32_or_mem_mpx
            | K::r64_or_mem_mpx
                if memory =>
            {
                return self.memory(insn, op, bytes);
            }
            K::mem | K::mem_mpx | K::mem_mib => return self.memory(insn, op, bytes),
            K::r8_or_mem | K::r8_reg | K::r8_opcode => self.any_gpr(1),
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => self.any_gpr(2),
            K::r16_reg_mem => {
                self.effective = None;
                self.any_gpr(2)
            }
            K::r32_or_mem
            | K::r32_reg
            | K::r32_rm
            | K::r32_opcode
            | K::r32_vvvv
            | K::r32_or_mem_mpx
            | K::r32_reg_mem => self.any_gpr(4),
            K::r64_or_mem
            | K::r64_reg
            | K::r64_rm
            | K::r64_opcode
            | K::r64_vvvv
            | K::r64_or_mem_mpx
            | K::r64_reg_mem => self.any_gpr(8),
            K::mm_or_mem | K::mm_reg | K::mm_rm => {
                let n = self.rng.below(8) as usize;
                Register::values().nth(Register::MM0 as usize + n).unwrap()
            }
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 | K::xmm_is5 => {
                self.vector(Register::XMM0)
            }
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_is5 => {
                self.vector(Register::YMM0)
            }
            K::seg_reg => *self.rng.pick(&[
                Register::ES,
                Register::CS,
                Register::SS,
                Register::DS,
                Register::FS,
                Register::GS,
            ]),
            K::cr_reg => {
                *self.rng.pick(&[Register::CR0, Register::CR2, Register::CR3, Register::CR4])
            }
            K::dr_reg => *self.rng.pick(&[Register::DR0, Register::DR6, Register::DR7]),
            K::es => Register::ES,
            K::cs => Register::CS,
            K::ss => Register::SS,
            K::ds => Register::DS,
            K::fs => Register::FS,
            K::gs => Register::GS,
            K::al => Register::AL,
            K::cl => Register::CL,
            K::ax => Register::AX,
            K::dx => Register::DX,
            K::eax => Register::EAX,
            K::rax => Register::RAX,
            K::st0 => Register::ST0,
            K::sti_opcode => {
                let n = self.rng.below(8) as usize;
                Register::values().nth(Register::ST0 as usize + n).unwrap()
            }
            _ => return self.other_operand(insn, op, kind),
        };
        insn.set_op_kind(op, OpKind::Register);
        insn.set_op_register(op, register);
        Some(())
    }

    fn other_operand(&mut self, insn: &mut Instruction, op: u32, kind: K) -> Option<()> {
        let random = self.rng.word();
        let bits = self.bits();
        let branch = self.offset_ip() + BRANCH;
        match kind {
            K::imm8 | K::imm8_const_1 | K::imm4_m2z => {
                let v = match kind {
                    K::imm8_const_1 => 1,
                    K::imm4_m2z => random as u8 & 15,
                    _ => self.rng.next() as u8,
                };
                let first = (0..op)
                    .all(|n| !matches!(insn.op_kind(n), OpKind::Immediate8 | OpKind::Immediate16));
                if first {
                    insn.set_op_kind(op, OpKind::Immediate8);
                    insn.set_immediate8(v);
                } else {
                    insn.set_op_kind(op, OpKind::Immediate8_2nd);
                    insn.set_immediate8_2nd(v);
                }
            }
            K::imm8sex16 => {
                insn.set_op_kind(op, OpKind::Immediate8to16);
                insn.set_immediate8to16(random as i8 as i16);
            }
            K::imm8sex32 => {
                insn.set_op_kind(op, OpKind::Immediate8to32);
                insn.set_immediate8to32(random as i8 as i32);
            }
            K::imm8sex64 => {
                insn.set_op_kind(op, OpKind::Immediate8to64);
                insn.set_immediate8to64(random as i8 as i64);
            }
            K::imm16 => {
                insn.set_op_kind(op, OpKind::Immediate16);
                // Far returns look at the stack behind what they drop.
                let small = insn.mnemonic() == Mnemonic::Retf;
                insn.set_immediate16(if small { random as u16 & 0xff } else { random as u16 });
            }
            K::imm32 => {
                insn.set_op_kind(op, OpKind::Immediate32);
                insn.set_immediate32(random as u32);
            }
            K::imm32sex64 => {
                insn.set_op_kind(op, OpKind::Immediate32to64);
                insn.set_immediate32to64(random as i32 as i64);
            }
            K::imm64 => {
                insn.set_op_kind(op, OpKind::Immediate64);
                insn.set_immediate64(random);
            }
            K::br16_1 | K::br16_2 => {
                insn.set_op_kind(op, OpKind::NearBranch16);
                insn.set_near_branch16(branch as u16);
            }
            K::br32_1 | K::br32_4 => {
                insn.set_op_kind(op, OpKind::NearBranch32);
                insn.set_near_branch32(branch as u32);
            }
            K::br64_1 | K::br64_4 => {
                insn.set_op_kind(op, OpKind::NearBranch64);
                insn.set_near_branch64(branch);
            }
            K::farbr2_2 | K::farbr4_2 => {
                let selectors = [0x23, 0x2b, 0x33, CODE16, 0, DATA_GS, random as u16 & !4];
                let mut selector = *self.rng.pick(&selectors);
                // A call to 64-bit code pushes where SS has no base; we push first.
                if selector == 0x33 && !self.insns.is_empty() {
                    selector = 0x23;
                }
                let linear = self.ip() as u64 + BRANCH;
                let to = if selector == CODE16 { linear - CODE as u64 } else { linear };
                insn.set_far_branch_selector(selector);
                if kind == K::farbr2_2 {
                    insn.set_op_kind(op, OpKind::FarBranch16);
                    insn.set_far_branch16(to as u16);
                } else {
                    insn.set_op_kind(op, OpKind::FarBranch32);
                    insn.set_far_branch32(to as u32);
                }
            }
            K::mem_offs => {
                insn.set_op_kind(op, OpKind::Memory);
                let target = self.target(insn.memory_size().size() as u32);
                self.effective = Some(target);
                if bits == 16 || bits == 32 && self.rng.chance(4) {
                    let target = GS_BASE + self.rng.below(PAGE as u64) as u32;
                    self.effective = Some(target);
                    insn.set_segment_prefix(Register::GS);
                    insn.set_memory_displ_size(2);
                    insn.set_memory_displacement64((target - GS_BASE) as u64);
                } else {
                    let size = if bits == 64 && !self.rng.chance(4) { 8 } else { 4 };
                    insn.set_memory_displ_size(size);
                    insn.set_memory_displacement64(target as u64);
                }
            }
            K::seg_rSI | K::es_rDI | K::seg_rDI => {
                let size = self.string_address(insn);
                let kinds = match kind {
                    K::seg_rSI => [OpKind::MemorySegSI, OpKind::MemorySegESI, OpKind::MemorySegRSI],
                    K::es_rDI => [OpKind::MemoryESDI, OpKind::MemoryESEDI, OpKind::MemoryESRDI],
                    _ => [OpKind::MemorySegDI, OpKind::MemorySegEDI, OpKind::MemorySegRDI],
                };
                insn.set_op_kind(op, kinds[size]);
                let n = if kind == K::seg_rSI { 6 } else { 7 };
                let count = if self.rng.chance(8) { 1 } else { 40 };
                let mut at = self.target(8 * count) as u64;
                let range = 8 * 40;
                if !self.rng.chance(8) {
                    at = at.clamp(DATA as u64 + range, DATA as u64 + DATA_LEN as u64 - range);
                }
                if size == 0 {
                    at = self.rng.below(PAGE as u64);
                }
                self.pin(n, at);
            }
            K::seg_rBX_al => {
                insn.set_op_kind(op, OpKind::Memory);
                let base = if bits == 64 { 8 } else { bits as usize / 8 };
                insn.set_memory_base(gpr(3, base));
                insn.set_memory_index(Register::AL);
                self.pinned[0] = true;
                let mut at = self.target(1);
                if bits == 16 {
                    insn.set_segment_prefix(Register::GS);
                    at = self.rng.below(PAGE as u64) as u32;
                }
                let al = self.case.regs.gpr[0] as u8;
                self.pin(3, at.wrapping_sub(al as u32) as u64);
            }
            _ => return None,
        }
        Some(())
    }

    /// log2 of the address size less one (0 for 16 bits), the same for both operands.
    fn string_address(&mut self, insn: &Instruction) -> usize {
        for n in 0..2 {
            match insn.op_kind(n) {
                OpKind::MemorySegSI | OpKind::MemoryESDI => return 0,
                OpKind::MemorySegESI | OpKind::MemoryESEDI => return 1,
                OpKind::MemorySegRSI | OpKind::MemoryESRDI => return 2,
                _ => {}
            }
        }
        let usual = self.bits() as usize / 32;
        if self.rng.chance(6) { if usual == 1 { 0 } else { 1 } } else { usual }
    }

    /// Appends a random instruction of this code; `None` when the attempt did not work out.
    pub fn push(&mut self, code: Code) -> Option<Instruction> {
        let info = code.op_code();
        let mut insn = Instruction::default();
        insn.set_code(code);
        self.effective = None;
        for (op, &kind) in info.op_kinds().iter().enumerate() {
            self.operand(&mut insn, op as u32, kind)?;
        }
        if info.can_use_lock_prefix() && insn.op0_kind() == OpKind::Memory && self.rng.chance(3) {
            insn.set_has_lock_prefix(true);
        }
        if insn.is_string_instruction() {
            match self.rng.below(3) {
                0 if info.can_use_rep_prefix() => insn.set_has_rep_prefix(true),
                1 if info.can_use_repne_prefix() => insn.set_has_repne_prefix(true),
                _ => {}
            }
        }
        // Where the trap flag may be set.
        let stack_segment = insn.op_count() > 0
            && insn.op0_kind() == OpKind::Register
            && insn.op0_register() == Register::SS;
        let popped = self.insns.iter().any(|i| i.rflags_written() & RflagsBits::DF != 0);
        if stack_segment && popped {
            return None;
        }
        // This must not clear the code.
        if insn.mnemonic() == Mnemonic::Clzero {
            let at = DATA as u64 + self.rng.below(DATA_LEN as u64);
            if !self.pin(0, at) {
                return None;
            }
        }
        // Small instruction pointers from anywhere lead back into the code, and around for ever.
        let indirect = !matches!(
            insn.code().flow_control(),
            FlowControl::Next | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        );
        if self.bits() == 16 && indirect && self.insns.len() > self.prologue() {
            return None;
        }
        self.prepare(&insn);
        let mut encoder = Encoder::new(self.bits());
        encoder.encode(&insn, self.offset_ip()).ok()?;
        let bytes = encoder.take_buffer();
        let decoded =
            Decoder::with_ip(self.bits(), &bytes, self.ip() as u64, DecoderOptions::NONE).decode();
        if decoded.code() != code || decoded.len() != bytes.len() {
            return None;
        }
        // What depends on undefined flags cannot be compared.
        if decoded.rflags_read() & self.undefined != 0 {
            return None;
        }
        self.note(&decoded);
        self.case.append(&bytes);
        self.insns.push(decoded);
        Some(decoded)
    }

    /// Appends fixed bytes.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let ip = self.ip() as u64;
        let decoded = Decoder::with_ip(self.bits(), bytes, ip, DecoderOptions::NONE).decode();
        self.note(&decoded);
        self.case.append(bytes);
        self.insns.push(decoded);
    }

    fn note(&mut self, insn: &Instruction) {
        let arithmetic = RflagsBits::OF
            | RflagsBits::SF
            | RflagsBits::ZF
            | RflagsBits::AF
            | RflagsBits::CF
            | RflagsBits::PF;
        let undefined = undefined_flags(insn) & arithmetic;
        let certain = tulk_x86::decode::flag_effects(insn).1;
        let defined = (insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set())
            & if certain == 0 { 0 } else { !0 };
        self.undefined = self.undefined & !defined | undefined;
        self.ever_undefined |= undefined;
        for used in self.info.info(insn).used_registers() {
            let writes = !matches!(
                used.access(),
                OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            );
            if let (true, Some(n)) = (writes, number(used.register())) {
                self.written[n] = true;
            }
        }
    }

    /// Arithmetic flags, where EFLAGS has them, that need not agree at the end.
    pub fn undefined_at_end(&self) -> u64 {
        flag_bits(self.undefined)
    }
    pub fn undefined_anywhere(&self) -> u64 {
        flag_bits(self.ever_undefined)
    }

    /// Registers and memory that this instruction needs in a certain way.
    fn prepare(&mut self, insn: &Instruction) {
        use Mnemonic::*;
        let linear = self.ip() as u64 + BRANCH;
        let ip = self.offset_ip() + BRANCH;
        let bits = self.bits();
        let sp = self.case.regs.gpr[4] as u32;
        if insn.is_string_instruction() && (insn.has_rep_prefix() || insn.has_repne_prefix()) {
            let most = if self.rng.chance(4) { 300 } else { 30 };
            let count = self.rng.below(most);
            self.pin(1, count);
        }
        match insn.mnemonic() {
            Div | Idiv if self.rng.chance(2) => {
                let v = if self.rng.chance(2) { 0 } else { self.rng.range(-3, 3) as u64 };
                self.pin(2, v);
            }
            Bt | Bts | Btr | Btc if insn.op0_kind() == OpKind::Memory => {
                if let Some(n) = number(insn.op1_register()) {
                    let v = self.rng.range(-4000, 4000) as u64;
                    self.pin(n, v);
                }
            }
            Ret => self.stack_top(&[ip]),
            Retf => {
                let selectors = match bits {
                    64 => [0x33, 0x23, 0x2b, 0],
                    32 => [0x23, 0x33, CODE16 as u64, 0x2b],
                    _ => [CODE16 as u64, 0x23, 0x33, 0],
                };
                let s = *self.rng.pick(&selectors);
                let to = if s == CODE16 as u64 { linear - CODE as u64 } else { linear };
                self.frame(insn, &[to, s]);
            }
            Iret | Iretd | Iretq => {
                let flags = 0x202 | self.rng.next() & 0x20_0cd5;
                let (to, cs) = match bits {
                    64 => (linear, 0x33),
                    32 => (linear, 0x23),
                    _ => (ip, CODE16 as u64),
                };
                self.frame(insn, &[to, cs, flags, (STACK + 64) as u64, 0x2b]);
            }
            Jmp | Call if insn.op0_kind() == OpKind::Register => {
                let n = number(insn.op0_register()).expect("a general register");
                self.pin(n, ip);
            }
            Jmp | Call if insn.op0_kind() == OpKind::Memory => {
                let far = matches!(insn.memory_size().size(), 6 | 10)
                    || insn.code().mnemonic() == insn.mnemonic()
                        && insn.code().op_code().op0_kind() == K::mem;
                if let Some(at) = self.effective {
                    let in_data = at >= DATA && at + 16 <= DATA + DATA_LEN as u32;
                    if in_data {
                        let mut bytes = ip.to_le_bytes().to_vec();
                        if far {
                            bytes.truncate(insn.memory_size().size() - 2);
                            let selector: u16 = match bits {
                                64 => 0x33,
                                32 => 0x23,
                                _ => CODE16,
                            };
                            bytes.extend(selector.to_le_bytes());
                        }
                        self.case.patch(at, &bytes);
                    }
                }
            }
            Leave | Enter => {
                let base = if self.small_stack { 0 } else { STACK };
                let v = (base + 256 + 8 * self.rng.below(200) as u32) as u64;
                self.pin(5, v);
            }
            Loop | Loope | Loopne | Jcxz | Jecxz | Jrcxz if self.rng.chance(2) => {
                let v = self.rng.below(3);
                self.pin(1, v);
            }
            Popf | Popfd | Popfq => {
                // Sometimes with the trap flag.
                let trap = if self.rng.chance(10) { 0x100 } else { 0 };
                let v = 0x202 | self.rng.next() & 0x20_4cd5 | trap;
                self.stack_top(&[v]);
            }
            Pop if insn.op0_kind() == OpKind::Register
                && insn.op0_register().is_segment_register() =>
            {
                let v = self.selector();
                self.stack_top(&[v as u64]);
            }
            Mov if insn.op0_kind() == OpKind::Register
                && insn.op0_register().is_segment_register() =>
            {
                let v = self.selector();
                self.operand_value(insn, 1, v);
            }
            Lar | Lsl => {
                let v = self.selector();
                self.operand_value(insn, 1, v);
            }
            Verr | Verw => {
                let v = self.selector();
                self.operand_value(insn, 0, v);
            }
            Lds | Les | Lfs | Lgs | Lss => {
                let v = self.selector();
                if let Some(at) = self.effective {
                    let size = insn.op0_register().size() as u32;
                    if at >= DATA && at + 16 <= DATA + DATA_LEN as u32 {
                        self.case.patch(at + size, &v.to_le_bytes());
                    }
                }
            }
            _ => {}
        }
        debug_assert!(sp != 0);
    }

    fn selector(&mut self) -> u16 {
        *self
            .rng
            .pick(&[0, 3, 0x2b, 0x23, 0x33, DATA_GS, DATA_SMALL, STACK16, CODE16, 0x2a, 0x63, 0x10])
    }

    /// Gives a register or memory operand this 16-bit value.
    fn operand_value(&mut self, insn: &Instruction, n: u32, v: u16) {
        if insn.op_kind(n) == OpKind::Register {
            if let Some(r) = number(insn.op_register(n)) {
                let high = self.rng.next() << 16;
                self.pin(r, high | v as u64);
            }
        } else if let Some(at) = self.effective
            && at >= DATA
            && at + 2 <= DATA + DATA_LEN as u32
        {
            self.case.patch(at, &v.to_le_bytes());
        }
    }

    /// Puts words at the top of the stack, of the width of near branches.
    fn stack_top(&mut self, words: &[u64]) {
        let width = self.bits() as usize / 8;
        self.words(words, width);
    }
    fn frame(&mut self, insn: &Instruction, words: &[u64]) {
        let width = insn.code().op_code().operand_size() as usize / 8;
        let width = if width == 0 { self.bits() as usize / 8 } else { width };
        self.words(words, width);
    }
    fn words(&mut self, words: &[u64], width: usize) {
        let mut at = self.case.regs.gpr[4] as u32;
        // What an earlier instruction found there stays.
        if self.case.patches[..self.case.patch_count as usize].iter().any(|p| p.address == at) {
            return;
        }
        for w in words {
            if (self.case.patch_count as usize) < PATCHES {
                self.case.patch(at, &w.to_le_bytes()[..width]);
            }
            at += width as u32;
        }
    }
}

/// iced's bits as EFLAGS has them.
fn flag_bits(iced: u32) -> u64 {
    [
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
        (RflagsBits::AF, 0x10),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::SF, 0x80),
        (RflagsBits::OF, 0x800),
    ]
    .iter()
    .filter(|f| iced & f.0 != 0)
    .fold(0, |all, f| all | f.1)
}

/// Flags that the manual leaves undefined, with what iced does not know: counts beyond narrow operands.
fn undefined_flags(insn: &Instruction) -> u32 {
    use Mnemonic::*;
    let mut flags = insn.rflags_undefined();
    match insn.mnemonic() {
        Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd => {
            let last = insn.op_count() - 1;
            let variable = insn.op_kind(last) == OpKind::Register;
            let count = if variable { 31 } else { insn.immediate(last) as u32 & 63 };
            let rotate = matches!(insn.mnemonic(), Rol | Ror | Rcl | Rcr);
            if count != 1 || variable {
                flags |= RflagsBits::OF;
            }
            if !rotate {
                flags |= RflagsBits::AF;
                flags |= RflagsBits::CF * (count >= 8) as u32;
            }
            if matches!(insn.mnemonic(), Shld | Shrd) && count >= 16 {
                flags |= RflagsBits::PF | RflagsBits::SF | RflagsBits::ZF;
            }
        }
        _ => {}
    }
    flags
}
