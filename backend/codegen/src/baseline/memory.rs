//! Guest memory accesses: host instructions that may fault, each with its guest instruction in the fault map.

use super::asm::*;
use super::paged::Operand;
use super::regs::CELL_MEM_BASE;
use super::{Emitter, engine};
use crate::MemoryModel;
use crate::abi::{MemAccess, word};
use crate::fault_map::Resume;
use tulk_base::state::CELL_ZERO;
use tulk_base::{MemOp, MemOrder, RmwOp};
use tulk_ir::interp::code::{self, Step, address, kind};
use tulk_ir::{FenceKind, Type};

impl Emitter<'_> {
    /// The guest address of a plain access as an operand for `lea` or, in a flat memory, for the access.
    pub(super) fn guest_address(&mut self, mode: u16, step: &Step) -> (W, Mem) {
        let w = if mode & address::WRAP32 != 0 { W::B32 } else { W::B64 };
        let base = self.read(step.a);
        if mode & address::INDEX == 0 {
            let offset = step.imm;
            let mem = match i32::try_from(offset as i64) {
                Ok(disp) => Mem::base(base, disp),
                Err(_) if w == W::B32 => Mem::base(base, offset as i32),
                Err(_) => {
                    self.asm.mov_ri(RAX, offset);
                    Mem::index(base, RAX, 0, 0)
                }
            };
            return (w, mem);
        }
        let disp = (step.imm >> 32) as i32;
        let mut index = self.read(step.b);
        let mut scale = step.imm as u8 & (w.bits() as u8 - 1);
        if scale > 3 {
            self.asm.mov_rr(w, RAX, index);
            self.asm.shift_ri(Shift::Shl, w, RAX, scale);
            (index, scale) = (RAX, 0);
        }
        (w, Mem::index(base, index, scale, disp))
    }

    /// The same as an operand for the access.
    fn host_address(&mut self, mode: u16, step: &Step) -> Mem {
        let (w, mem) = self.guest_address(mode, step);
        match (self.input.mem, mem) {
            (MemoryModel::Flat, _) if w == W::B64 => mem,
            (MemoryModel::Based, Mem::Base { base, disp }) if w == W::B64 => {
                let far = self.mem_base();
                Mem::index(far, base, 0, disp)
            }
            (MemoryModel::Paged, _) => unreachable!("paged memory has no fixed place"),
            (model, _) => {
                let far = (model == MemoryModel::Based).then(|| self.mem_base());
                match mem {
                    Mem::Base { base, disp: 0 } => self.asm.mov_rr(w, RAX, base),
                    _ => self.asm.lea(w, RAX, mem),
                }
                match far {
                    None => Mem::base(RAX, 0),
                    Some(far) => Mem::index(far, RAX, 0, 0),
                }
            }
        }
    }

    /// The host address of guest address 0.
    fn mem_base(&mut self) -> Gpr {
        if let Some(r) = self.cached(CELL_MEM_BASE) {
            return r;
        }
        let r = self.alloc();
        self.asm.mov_rm(W::B64, r, engine(word::MEM_BASE));
        self.hold(r, CELL_MEM_BASE);
        r
    }

    /// An MMU index that only paged memory has.
    fn foreign(&self, op: MemOp) -> bool {
        op.mmu() != 0 && self.input.mem != MemoryModel::Paged
    }

    /// The next instruction may fault.
    fn faulting(&mut self) {
        if self.input.mem == MemoryModel::Paged {
            return;
        }
        self.map.push(self.asm.here(), Some(Resume { pc: self.pc, done: None }));
    }

    pub fn plain_load(&mut self, number: u16, step: &Step) {
        let (kind, mode) = (number >> 2, number & 3);
        if self.input.mem == MemoryModel::Paged {
            return self.paged_plain_load(kind, mode, step);
        }
        let mem = self.host_address(mode, step);
        if kind == kind::U128 {
            let x = self.alloc_x();
            self.faulting();
            self.asm.sse_rm(sse::MOVUPS, x, mem);
            return self.def_pair(step.d, x);
        }
        if self.wanted_in_vector(kind, step.d) {
            let x = self.alloc_x();
            self.faulting();
            self.asm.sse_rm(if kind == kind::U64 { sse::MOVQ } else { sse::MOVSS }, x, mem);
            return self.def_x(step.d, x);
        }
        let r = self.alloc();
        self.faulting();
        match kind {
            kind::U8 => self.asm.movzx_m(W::B8, r, mem),
            kind::U16 => self.asm.movzx_m(W::B16, r, mem),
            kind::U32 => self.asm.mov_rm(W::B32, r, mem),
            kind::U64 => self.asm.mov_rm(W::B64, r, mem),
            kind::S8_32 => self.asm.movsx_m(W::B8, W::B32, r, mem),
            kind::S8_64 => self.asm.movsx_m(W::B8, W::B64, r, mem),
            kind::S16_32 => self.asm.movsx_m(W::B16, W::B32, r, mem),
            kind::S16_64 => self.asm.movsx_m(W::B16, W::B64, r, mem),
            _ => self.asm.movsx_m(W::B32, W::B64, r, mem),
        }
        self.def(step.d, r);
    }
    /// Whether the next step makes a vector of the loaded cell.
    pub(super) fn wanted_in_vector(&self, kind: u16, d: u16) -> bool {
        let Some(next) = self.steps.get(self.now as usize + 1) else { return false };
        matches!(kind, kind::U32 | kind::U64) && next.code == code::ZEXT128 && next.a == d
    }

    pub fn plain_store(&mut self, number: u16, step: &Step) {
        let (kind, mode) = (number >> 2, number & 3);
        let value = step.d;
        if self.input.mem == MemoryModel::Paged {
            return self.paged_plain_store(kind, mode, step);
        }
        if kind == kind::U128 {
            let x = self.read_pair(value);
            let mem = self.host_address(mode, step);
            self.faulting();
            return self.asm.sse_mr(sse::MOVUPS_STORE, mem, x);
        }
        let w = W::of_log2(kind);
        if value & !1 == CELL_ZERO {
            let mem = self.host_address(mode, step);
            self.faulting();
            return self.asm.mov_mi(w, mem, 0);
        }
        if w >= W::B32
            && self.cached(value).is_none()
            && let Some(x) = self.cached_x(value)
        {
            let mem = self.host_address(mode, step);
            let op = if w == W::B64 { sse::MOVQ_STORE } else { sse::MOVSS_STORE };
            self.faulting();
            return self.asm.sse_mr(op, mem, x);
        }
        let r = self.read(value);
        let mem = self.host_address(mode, step);
        self.faulting();
        self.asm.mov_mr(w, mem, r);
    }

    // General accesses, one by one.

    /// The host address of an access at `address` (computed to `rax`), which must be aligned as `op` says.
    fn checked(&mut self, w: W, address: Mem, op: MemOp, write: bool) -> Mem {
        if op.align_bytes() > 1 {
            self.spill_slots();
        }
        match address {
            Mem::Base { base, disp: 0 } => self.asm.mov_rr(w, RAX, base),
            _ => self.asm.lea(w, RAX, address),
        }
        if op.align_bytes() > 1 {
            self.asm.test_ri(W::B8, RAX, op.align_bytes() - 1);
            let patch = self.asm.jcc(Cc::Ne);
            self.exits.misaligned.push((self.pc, write, patch));
        }
        match self.input.mem {
            MemoryModel::Flat => Mem::base(RAX, 0),
            MemoryModel::Based => Mem::index(self.mem_base(), RAX, 0, 0),
            MemoryModel::Paged => self.probe_tlb(op, write),
        }
    }
    fn general_address(&mut self, step: &Step, narrow: bool, op: MemOp, write: bool) -> Mem {
        let (w, mem) = self.guest_address(narrow as u16 * address::WRAP32, step);
        self.checked(w, mem, op, write)
    }

    /// A load of any kind; false when it is the interpreter's.
    pub fn load(&mut self, narrow: bool, step: &Step) -> bool {
        let (op, ty) = (MemOp(step.b & 0x1fff), Type::from_u8((step.b >> 13) as u8));
        if op.bytes() > 8 || self.foreign(op) {
            return false;
        }
        let result = W::of_log2(ty.bytes().trailing_zeros() as u16);
        let r = self.alloc();
        let mem = self.general_address(step, narrow, op, false);
        let size = W::of_log2(op.log2() as u16);
        self.faulting();
        let signed = op.signed() && size < result;
        if op.big_endian() || !signed {
            match size {
                W::B8 | W::B16 => self.asm.movzx_m(size, r, mem),
                _ => self.asm.mov_rm(size, r, mem),
            }
        }
        if op.big_endian() {
            match size {
                W::B8 => {}
                W::B16 => self.asm.shift_ri(Shift::Rol, W::B16, r, 8),
                _ => self.asm.bswap(size, r),
            }
            if signed {
                self.asm.movsx(size, result.full(), r, r);
            }
        } else if signed {
            self.asm.movsx_m(size, result.full(), r, mem);
        }
        if result < W::B32 {
            self.asm.movzx(result, r, r);
        }
        self.missed(MemAccess::Load(op), Operand::None, Operand::None, Operand::Gpr(result, r));
        self.def(step.d, r);
        true
    }

    pub fn store(&mut self, narrow: bool, step: &Step) -> bool {
        let op = MemOp(step.b);
        if op.bytes() > 8 || self.foreign(op) {
            return false;
        }
        let mut value = self.read(step.d);
        let given = Operand::Gpr(W::B64, value);
        let mem = self.general_address(&Step { b: 0, ..*step }, narrow, op, true);
        let size = W::of_log2(op.log2() as u16);
        let swap = op.big_endian() && size != W::B8;
        if swap || op.order() == MemOrder::SeqCst {
            self.asm.mov_rr(W::B64, RCX, value);
            value = RCX;
        }
        if swap {
            match size {
                W::B16 => self.asm.shift_ri(Shift::Rol, W::B16, RCX, 8),
                _ => self.asm.bswap(size, RCX),
            }
        }
        self.faulting();
        if op.order() == MemOrder::SeqCst {
            self.asm.xchg(size, mem, value);
        } else {
            self.asm.mov_mr(size, mem, value);
        }
        self.missed(MemAccess::Store(op), given, Operand::None, Operand::None);
        true
    }

    /// The host address in `rsi` of an atomic operation.
    fn atomic_address(&mut self, step: &Step, narrow: bool, op: MemOp) {
        let base = self.read(step.a);
        let w = if narrow { W::B32 } else { W::B64 };
        let mem = self.checked(w, Mem::base(base, 0), op, true);
        match mem {
            Mem::Base { base, .. } => self.asm.mov_rr(W::B64, RSI, base),
            _ => self.asm.lea(W::B64, RSI, mem),
        }
    }
    /// The old value is in `rax`.
    fn atomic_result(&mut self, w: W, d: u16) {
        let r = self.alloc();
        match w {
            W::B8 | W::B16 => self.asm.movzx(w, r, RAX),
            _ => self.asm.mov_rr(w, r, RAX),
        }
        self.def(d, r);
    }

    pub fn rmw(&mut self, step: &Step) -> bool {
        let Step { d, b, imm, .. } = *step;
        let (op, rmw) = (MemOp(imm as u16), RmwOp::ALL[(imm >> 16 & 0xff) as usize]);
        if op.big_endian() || self.foreign(op) {
            return false;
        }
        let w = W::of_log2(op.log2() as u16);
        let value = self.read(b);
        self.atomic_address(step, imm >> 24 & 1 != 0, op);
        let mem = Mem::base(RSI, 0);
        match rmw {
            RmwOp::Xchg | RmwOp::Add | RmwOp::Sub => {
                self.asm.mov_rr(W::B64, RAX, value);
                if rmw == RmwOp::Sub {
                    self.asm.unary(Unary::Neg, W::B64, RAX);
                }
                self.faulting();
                match rmw {
                    RmwOp::Xchg => self.asm.xchg(w, mem, RAX),
                    _ => self.asm.lock_xadd(w, mem, RAX),
                }
            }
            _ => self.rmw_loop(rmw, w, mem, value),
        }
        let given = Operand::Gpr(W::B64, value);
        self.missed(MemAccess::Rmw(op, rmw), given, Operand::None, Operand::Gpr(W::B64, RAX));
        self.atomic_result(w, d);
        true
    }
    fn rmw_loop(&mut self, rmw: RmwOp, w: W, mem: Mem, value: Gpr) {
        let signed = matches!(rmw, RmwOp::MinS | RmwOp::MaxS);
        let narrow = w < W::B32;
        if narrow {
            // Comparisons need both operands extended.
            if signed {
                self.asm.movsx(w, W::B32, RDX, value);
            } else {
                self.asm.movzx(w, RDX, value);
            }
        } else {
            self.asm.mov_rr(w, RDX, value);
        }
        if rmw == RmwOp::AndNot {
            self.asm.unary(Unary::Not, W::B64, RDX);
        }
        self.faulting();
        match narrow {
            true => self.asm.movzx_m(w, RAX, mem),
            false => self.asm.mov_rm(w, RAX, mem),
        }
        let again = self.asm.here();
        match (narrow, signed) {
            (true, true) => self.asm.movsx(w, W::B32, RCX, RAX),
            _ => self.asm.mov_rr(w.full(), RCX, RAX),
        }
        let full = w.full();
        let keep = match rmw {
            RmwOp::And | RmwOp::AndNot => Err(Alu::And),
            RmwOp::Or => Err(Alu::Or),
            RmwOp::Xor => Err(Alu::Xor),
            // The operand wins when it compares so with the old value.
            RmwOp::MinS => Ok(Cc::L),
            RmwOp::MaxS => Ok(Cc::G),
            RmwOp::MinU => Ok(Cc::B),
            _ => Ok(Cc::A),
        };
        match keep {
            Err(alu) => self.asm.alu_rr(alu, full, RCX, RDX),
            Ok(cc) => {
                self.asm.alu_rr(Alu::Cmp, full, RDX, RCX);
                self.asm.cmov(cc, full, RCX, RDX);
            }
        }
        self.asm.lock_cmpxchg(w, mem, RCX);
        if narrow {
            // What cmpxchg loaded stands in the low bits only; the flags stay.
            self.asm.movzx(w, RAX, RAX);
        }
        self.asm.jcc_to(Cc::Ne, again);
    }

    pub fn cas(&mut self, step: &Step) -> bool {
        let Step { d, b, imm, .. } = *step;
        let op = MemOp((imm >> 16) as u16);
        if op.bytes() > 8 || op.big_endian() || self.foreign(op) {
            return false;
        }
        let w = W::of_log2(op.log2() as u16);
        let (expected, new) = (self.read(b), self.read(imm as u16));
        self.atomic_address(step, imm >> 32 & 1 != 0, op);
        self.asm.mov_rr(W::B64, RAX, expected);
        self.faulting();
        self.asm.lock_cmpxchg(w, Mem::base(RSI, 0), new);
        let [expected, new] = [expected, new].map(|r| Operand::Gpr(W::B64, r));
        self.missed(MemAccess::Cas(op), expected, new, Operand::Gpr(W::B64, RAX));
        self.atomic_result(w, d);
        true
    }

    pub fn fence(&mut self, step: &Step) {
        // The others are the host's own order.
        if FenceKind::from_u8(step.a as u8) == FenceKind::Full {
            self.asm.mfence();
        }
    }
}
