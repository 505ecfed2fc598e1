//! Accesses to paged memory: the data TLB's entry is probed inline; what does not hit goes out of line to the memory thunk,
//! which keeps all registers, and comes back as if nothing had happened.

use super::asm::*;
use super::regs::cell_mem;
use super::{Emitter, engine};
use crate::abi::{MemAccess, Reason, word};
use tulk_base::state::{CELL_ARGS, CELL_RET, CELL_ZERO};
use tulk_base::{MemOp, tlb};
use tulk_ir::interp::code::{Step, kind};

/// What goes into an access or comes out of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    None,
    Zero,
    /// A result is cut to this width, and zero-extended.
    Gpr(W, Gpr),
    /// The low 64 bits.
    Low(Xmm),
    Pair(Xmm),
}

/// An access that is out of line.
#[derive(Clone, Copy)]
pub struct Missed {
    patch: Patch,
    back: u32,
    access: MemAccess,
    pc: u64,
    values: [Operand; 2],
    result: Operand,
}

/// The memory operation of a plain access.
fn plain_op(kind: u16, mmu: u8) -> MemOp {
    let op = match kind {
        kind::U8 => MemOp::U8,
        kind::U16 => MemOp::U16,
        kind::U32 => MemOp::U32,
        kind::U64 => MemOp::U64,
        kind::U128 => MemOp::U128,
        kind::S8_32 | kind::S8_64 => MemOp::S8,
        kind::S16_32 | kind::S16_64 => MemOp::S16,
        _ => MemOp::S32,
    };
    op.with_mmu(mmu)
}

impl Emitter<'_> {
    /// With the guest address in `rax`: the operand for the host's access. [`Emitter::missed`] must follow behind it.
    /// Changes `rcx` and `rdx`.
    pub fn probe_tlb(&mut self, op: MemOp, write: bool) -> Mem {
        let words = word::TLB + 2 * op.mmu() as usize;
        self.asm.mov_rr(W::B64, RCX, RAX);
        self.asm.shift_ri(
            Shift::Shr,
            W::B64,
            RCX,
            (tlb::TLB_PAGE_LOG2 - tlb::TLB_ENTRY_LOG2) as u8,
        );
        self.asm.alu_rm(Alu::And, W::B64, RCX, engine(words));
        self.asm.alu_rm(Alu::Add, W::B64, RCX, engine(words + 1));
        match op.bytes() {
            1 => self.asm.mov_rr(W::B64, RDX, RAX),
            n => self.asm.lea(W::B64, RDX, Mem::base(RAX, n as i32 - 1)),
        }
        self.asm.alu_ri(Alu::And, W::B64, RDX, -(1 << tlb::TLB_PAGE_LOG2));
        let tag = if write { tlb::TLB_WRITE } else { tlb::TLB_READ };
        self.asm.alu_rm(Alu::Cmp, W::B64, RDX, Mem::base(RCX, tag));
        self.miss = Some(self.asm.jcc(Cc::Ne));
        self.asm.alu_rm(Alu::Add, W::B64, RAX, Mem::base(RCX, tlb::TLB_ADDEND));
        Mem::base(RAX, 0)
    }

    /// Behind the access of the last [`Emitter::probe`], if there was one: what it would have needed, and where its result
    /// is. Registers hold the same cells as where it was probed.
    pub fn missed(&mut self, access: MemAccess, a: Operand, b: Operand, result: Operand) {
        let Some(patch) = self.miss.take() else { return };
        let (back, pc) = (self.asm.here(), self.pc);
        self.misses.push(Missed { patch, back, access, pc, values: [a, b], result });
    }

    fn paged_address(&mut self, mode: u16, step: &Step, op: MemOp, write: bool) -> Mem {
        let (w, mem) = self.guest_address(mode, step);
        match mem {
            Mem::Base { base, disp: 0 } => self.asm.mov_rr(w, RAX, base),
            _ => self.asm.lea(w, RAX, mem),
        }
        self.probe_tlb(op, write)
    }

    pub fn paged_plain_load(&mut self, kind: u16, mode: u16, step: &Step) {
        let op = plain_op(kind, self.input.program.mmu());
        let access = MemAccess::Load(op);
        if kind == kind::U128 || self.wanted_in_vector(kind, step.d) {
            let x = self.alloc_x();
            let mem = self.paged_address(mode, step, op, false);
            let (load, result) = match kind {
                kind::U128 => (sse::MOVUPS, Operand::Pair(x)),
                kind::U64 => (sse::MOVQ, Operand::Low(x)),
                _ => (sse::MOVSS, Operand::Low(x)),
            };
            self.asm.sse_rm(load, x, mem);
            self.missed(access, Operand::None, Operand::None, result);
            return match kind {
                kind::U128 => self.def_pair(step.d, x),
                _ => self.def_x(step.d, x),
            };
        }
        let r = self.alloc();
        let mem = self.paged_address(mode, step, op, false);
        let mut w = W::B64;
        match kind {
            kind::U8 => self.asm.movzx_m(W::B8, r, mem),
            kind::U16 => self.asm.movzx_m(W::B16, r, mem),
            kind::U32 => self.asm.mov_rm(W::B32, r, mem),
            kind::U64 => self.asm.mov_rm(W::B64, r, mem),
            kind::S8_64 => self.asm.movsx_m(W::B8, W::B64, r, mem),
            kind::S16_64 => self.asm.movsx_m(W::B16, W::B64, r, mem),
            kind::S8_32 | kind::S16_32 => {
                w = W::B32;
                let from = if kind == kind::S8_32 { W::B8 } else { W::B16 };
                self.asm.movsx_m(from, W::B32, r, mem);
            }
            _ => self.asm.movsx_m(W::B32, W::B64, r, mem),
        }
        self.missed(access, Operand::None, Operand::None, Operand::Gpr(w, r));
        self.def(step.d, r);
    }

    pub fn paged_plain_store(&mut self, kind: u16, mode: u16, step: &Step) {
        let op = plain_op(kind, self.input.program.mmu());
        let value = step.d;
        let w = if kind == kind::U128 { W::B64 } else { W::of_log2(kind) };
        let operand = if kind == kind::U128 {
            Operand::Pair(self.read_pair(value))
        } else if value & !1 == CELL_ZERO {
            Operand::Zero
        } else if w >= W::B32
            && self.cached(value).is_none()
            && let Some(x) = self.cached_x(value)
        {
            Operand::Low(x)
        } else {
            Operand::Gpr(w, self.read(value))
        };
        let mem = self.paged_address(mode, step, op, true);
        match operand {
            Operand::Pair(x) => self.asm.sse_mr(sse::MOVUPS_STORE, mem, x),
            Operand::Low(x) => {
                let store = if w == W::B64 { sse::MOVQ_STORE } else { sse::MOVSS_STORE };
                self.asm.sse_mr(store, mem, x);
            }
            Operand::Gpr(w, r) => self.asm.mov_mr(w, mem, r),
            Operand::Zero | Operand::None => self.asm.mov_mi(w, mem, 0),
        }
        self.missed(MemAccess::Store(op), operand, Operand::None, Operand::None);
    }

    /// The ways out of line.
    pub fn finish_misses(&mut self) {
        if self.misses.is_empty() {
            return;
        }
        let misses = std::mem::take(&mut self.misses);
        // In the stub, with a return address below, the stack is aligned as for any call.
        let stub = self.asm.here();
        self.asm.mov_mr(W::B64, engine(word::VA), RAX);
        self.asm.call_m(engine(word::THUNK_MEM));
        self.asm.alu_mi(Alu::Cmp, W::B32, engine(word::STATUS), 0);
        let failed = self.asm.jcc(Cc::Ne);
        self.asm.ret();
        self.asm.bind(failed);
        self.asm.pop(RCX);
        self.asm.mov_mi(W::B64, engine(word::REASON), Reason::HelperTrap as i32);
        self.asm.ret();
        for missed in &misses {
            self.asm.bind(missed.patch);
            for (operand, cell) in missed.values.into_iter().zip([CELL_ARGS, CELL_ARGS + 2]) {
                match operand {
                    Operand::None => {}
                    Operand::Zero => self.asm.mov_mi(W::B64, cell_mem(cell), 0),
                    Operand::Gpr(_, r) => self.asm.mov_mr(W::B64, cell_mem(cell), r),
                    Operand::Low(x) => self.asm.sse_mr(sse::MOVQ_STORE, cell_mem(cell), x),
                    Operand::Pair(x) => self.asm.sse_mr(sse::MOVUPS_STORE, cell_mem(cell), x),
                }
            }
            self.asm.mov_ri(RSI, missed.access.to_word());
            self.asm.mov_ri(RDX, missed.pc);
            let call = self.asm.call();
            self.asm.patch(call, stub);
            match missed.result {
                Operand::None | Operand::Zero => {}
                Operand::Gpr(w, r) if w < W::B32 => self.asm.movzx_m(w, r, cell_mem(CELL_RET)),
                Operand::Gpr(w, r) => self.asm.mov_rm(w, r, cell_mem(CELL_RET)),
                Operand::Low(x) => self.asm.sse_rm(sse::MOVQ, x, cell_mem(CELL_RET)),
                Operand::Pair(x) => self.asm.sse_rm(sse::MOVUPS, x, cell_mem(CELL_RET)),
            }
            self.asm.jmp_to(missed.back);
        }
        self.misses = misses;
        self.misses.clear();
    }
}
