//! Pairs of cells: moves, fields and constants of 128 bits.

use super::Emitter;
use super::asm::*;
use tulk_ir::interp::code::{self, Step};
use tulk_ir::interp::eval::EvalOp;

impl Emitter<'_> {
    /// False for what has no template.
    pub fn wide(&mut self, step: &Step) -> bool {
        let Step { d, a, b, imm, .. } = *step;
        match step.code {
            code::MOV2 => {
                let x = self.take_pair(d, a);
                self.def_pair(d, x);
            }
            code::CONST2 => self.wide_constant(d, imm as u128 | (imm as u128) << 64),
            code::POOL => self.wide_constant(d, self.input.program.constant(imm)),
            code::ZEXT128 => self.zero_extend(d, a, imm),
            code::SEXT128 => {
                // Sign bits in the upper half.
                let from = 64 - b as u32;
                let ra = self.read(a);
                match from {
                    64 => self.asm.mov_rr(W::B64, RAX, ra),
                    _ => self.asm.movsx(
                        W::of_log2(from.trailing_zeros() as u16 - 3),
                        W::B64,
                        RAX,
                        ra,
                    ),
                }
                self.asm.mov_rr(W::B64, RCX, RAX);
                self.asm.shift_ri(Shift::Sar, W::B64, RCX, 63);
                self.join(d, RAX, RCX);
            }
            code::CONCAT => {
                let (ra, rb) = (self.read(a), self.read(b));
                self.join(d, ra, rb);
            }
            code::SPLAT => self.splat(step),
            code::SET_LANE => {
                let (bit, width) = (imm as u8, (imm >> 8) as u8);
                let rb = self.read(b);
                let x = self.take_pair(d, a);
                let w = W::of_log2(width.trailing_zeros() as u16 - 3);
                self.asm.pinsr(w, x, rb, bit / width);
                self.def_pair(d, x);
            }
            code::SHUFFLE => self.shuffle(d, a, b, self.input.program.constant(imm)),
            code::SELECT2 => {
                let (xb, xc) = (self.read_pair(b), self.read_pair(imm as u16));
                let r = self.alloc_x();
                self.asm.sse_rr(sse::MOVAPS, r, xb);
                let cc = self.truth(a);
                let then = self.asm.jcc_short(cc);
                self.asm.sse_rr(sse::MOVAPS, r, xc);
                self.asm.bind_short(then);
                self.def_pair(d, r);
            }
            code::EVAL | code::EVAL2 => {
                let eval = EvalOp::from_head(imm);
                let third = (imm >> EvalOp::HEAD_BITS) as u16;
                return self.float_eval(&eval, step, third) || self.vector_eval(&eval, step, third);
            }
            _ => return self.vector(step),
        }
        true
    }

    fn wide_constant(&mut self, d: u16, value: u128) {
        let x = self.alloc_x();
        if value == 0 {
            self.asm.sse_rr(sse::XORPS, x, x);
        } else if value == u128::MAX {
            self.asm.sse_rr(sse::PCMPEQD, x, x);
        } else {
            let literal = self.literal(value);
            self.asm.sse_rm(sse::MOVAPS, x, literal);
        }
        self.def_pair(d, x);
    }

    /// The pair of two registers, changing none.
    fn join(&mut self, d: u16, low: Gpr, high: Gpr) {
        let x = self.alloc_x();
        self.asm.movq_xr(W::B64, x, low);
        self.asm.movq_xr(W::B64, XMM0, high);
        self.asm.sse_rr(sse::PUNPCKLQDQ, x, XMM0);
        self.def_pair(d, x);
    }

    /// `a & mask` with upper half zero.
    fn zero_extend(&mut self, d: u16, a: u16, mask: u64) {
        let wide = mask == u64::MAX;
        if wide || mask == u32::MAX as u64 {
            if let Some(xa) = self.cached_x(a) {
                let x = self.alloc_x();
                if wide {
                    self.asm.sse_rr(sse::MOVQ, x, xa);
                } else {
                    self.asm.sse_rr(sse::XORPS, x, x);
                    self.asm.sse_rr(sse::MOVSS, x, xa);
                }
                return self.def_pair(d, x);
            }
            let ra = self.read(a);
            let x = self.alloc_x();
            self.asm.movq_xr(if wide { W::B64 } else { W::B32 }, x, ra);
            return self.def_pair(d, x);
        }
        let ra = self.read(a);
        self.asm.movzx(if mask == 0xff { W::B8 } else { W::B16 }, RAX, ra);
        let x = self.alloc_x();
        self.asm.movq_xr(W::B32, x, RAX);
        self.def_pair(d, x);
    }

    /// The low `b` bits of `a` in every lane.
    fn splat(&mut self, step: &Step) {
        let Step { d, a, b, imm, .. } = *step;
        if b >= 32
            && let Some(xa) = self.cached_x(a)
        {
            let x = self.alloc_x();
            self.asm.sse_rri(sse::PSHUFD, x, xa, if b == 32 { 0 } else { 0x44 });
            return self.def_pair(d, x);
        }
        let ra = self.read(a);
        let x = self.alloc_x();
        if b >= 32 {
            self.asm.movq_xr(if b == 32 { W::B32 } else { W::B64 }, x, ra);
            self.asm.sse_rri(sse::PSHUFD, x, x, if b == 32 { 0 } else { 0x44 });
        } else {
            self.asm.movzx(if b == 8 { W::B8 } else { W::B16 }, RAX, ra);
            // The multiplier has a one in each lane; four bytes are enough.
            self.asm.imul_rri(W::B32, RAX, RAX, imm as i32);
            self.asm.movq_xr(W::B32, x, RAX);
            self.asm.sse_rri(sse::PSHUFD, x, x, 0);
        }
        self.def_pair(d, x);
    }

    /// Byte i of the result is byte `picks[i]` of `a` followed by `b`.
    fn shuffle(&mut self, d: u16, a: u16, b: u16, picks: u128) {
        let picks = picks.to_le_bytes().map(|p| p & if a == b { 15 } else { 31 });
        let mask = |from: u8| {
            u128::from_le_bytes(picks.map(|p| if p & 16 == from { p & 15 } else { 0x80 }))
        };
        let (of_a, of_b) = (picks.iter().any(|p| p & 16 == 0), picks.iter().any(|p| p & 16 != 0));
        let part = |e: &mut Self, to: Xmm, cell: u16, from: u8| {
            let x = e.read_pair(cell);
            let mask = e.literal(mask(from));
            e.asm.sse_rr(sse::MOVAPS, to, x);
            e.asm.sse_rm(sse::PSHUFB, to, mask);
        };
        let x = self.alloc_x();
        part(self, x, if of_a { a } else { b }, if of_a { 0 } else { 16 });
        if of_a && of_b {
            part(self, XMM0, b, 16);
            self.asm.sse_rr(sse::POR, x, XMM0);
        }
        self.def_pair(d, x);
    }
}
