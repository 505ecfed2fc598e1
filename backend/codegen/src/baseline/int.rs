//! Integer templates.
//!
//! Operations narrower than 32 bits are done in 32 and their result cut; those that look at the upper bits extend
//! their operands first.

use super::Emitter;
use super::asm::*;
use super::flags::Rhs;
use tulk_ir::Op;
use tulk_ir::interp::code::Step;

impl Emitter<'_> {
    /// Zero-extends a result narrower than 32 bits.
    fn cut(&mut self, w: W, r: Gpr) {
        if w < W::B32 {
            self.asm.movzx(w, r, r);
        }
    }
    /// The operand extended from its width to at least 32 bits, in a register not to be changed: its own, or `scratch`.
    fn extended(&mut self, w: W, signed: bool, cell: u16, scratch: Gpr) -> Gpr {
        let r = self.read(cell);
        match (w, signed) {
            (W::B8 | W::B16, false) => self.asm.movzx(w, scratch, r),
            (W::B8 | W::B16, true) => self.asm.movsx(w, W::B32, scratch, r),
            _ => return r,
        }
        scratch
    }
    /// The second operand likewise.
    fn rhs(&mut self, w: W, signed: bool, b: Rhs, scratch: Gpr) -> Gpr {
        match b {
            Rhs::Cell(b) => self.extended(w, signed, b, scratch),
            Rhs::Constant(k) => {
                let shift = 64 - w.bits();
                let k = if signed {
                    ((k << shift) as i64 >> shift) as u64
                } else {
                    k << shift >> shift
                };
                self.asm.mov_ri(scratch, k);
                scratch
            }
        }
    }

    /// Operations of two words.
    pub fn word(&mut self, op: Op, w: W, constant: bool, step: &Step) {
        let (d, a) = (step.d, step.a);
        let b = if constant { Rhs::Constant(step.imm) } else { Rhs::Cell(step.b) };
        match op {
            Op::Add => self.add(w, d, a, b),
            Op::Sub => match b {
                Rhs::Constant(k) => self.add(w, d, a, Rhs::Constant(k.wrapping_neg())),
                _ => self.two(Alu::Sub, w, d, a, b, false),
            },
            Op::And => match b {
                Rhs::Constant(k) => self.and_constant(w, d, a, k),
                _ => self.two(Alu::And, w, d, a, b, true),
            },
            Op::Or => self.two(Alu::Or, w, d, a, b, true),
            Op::Xor => self.two(Alu::Xor, w, d, a, b, true),
            Op::AndNot | Op::OrNot | Op::XorNot => {
                let alu = match op {
                    Op::AndNot => Alu::And,
                    Op::OrNot => Alu::Or,
                    _ => Alu::Xor,
                };
                match b {
                    Rhs::Constant(k) => self.word_constant(alu, w, d, a, !k),
                    Rhs::Cell(b) => {
                        self.copy_to(W::B64, RAX, b);
                        self.asm.unary(Unary::Not, W::B64, RAX);
                        let r = self.take(w.full(), d, a);
                        self.asm.alu_rr(alu, w.full(), r, RAX);
                        self.cut(w, r);
                        self.def(d, r);
                    }
                }
            }
            Op::Mul => self.mul(w, d, a, b),
            Op::MulhU | Op::MulhS => self.mul_high(op == Op::MulhS, w, d, a, b),
            Op::DivU | Op::RemU => self.div_unsigned(op == Op::RemU, w, d, a, b),
            Op::DivS | Op::RemS => self.div_signed(op == Op::RemS, w, d, a, b),
            Op::MinU => self.min_max(Cc::B, false, w, d, a, b),
            Op::MaxU => self.min_max(Cc::A, false, w, d, a, b),
            Op::MinS => self.min_max(Cc::L, true, w, d, a, b),
            Op::MaxS => self.min_max(Cc::G, true, w, d, a, b),
            Op::Shl => self.shift(Shift::Shl, w, d, a, b),
            Op::ShrU => self.shift(Shift::Shr, w, d, a, b),
            Op::ShrS => self.shift(Shift::Sar, w, d, a, b),
            Op::Rotl => self.rotate(Shift::Rol, w, d, a, b),
            Op::Rotr => self.rotate(Shift::Ror, w, d, a, b),
            op => unreachable!("{op:?} is not an operation of two words"),
        }
    }

    fn add(&mut self, w: W, d: u16, a: u16, b: Rhs) {
        match b {
            Rhs::Constant(k) => {
                let Some(k) = short(w, k) else { return self.word_constant(Alu::Add, w, d, a, k) };
                let ra = self.read(a);
                if d == a {
                    self.asm.alu_ri(Alu::Add, w.full(), ra, k);
                    self.cut(w, ra);
                    return self.def(d, ra);
                }
                let r = self.alloc();
                self.asm.lea(w.full(), r, Mem::base(ra, k));
                self.cut(w, r);
                self.def(d, r);
            }
            Rhs::Cell(b) => {
                let (ra, rb) = (self.read(a), self.read(b));
                let (r, other) = if d == a { (ra, rb) } else { (rb, ra) };
                if d == a || d == b {
                    self.asm.alu_rr(Alu::Add, w.full(), r, other);
                    self.cut(w, r);
                    return self.def(d, r);
                }
                let r = self.alloc();
                self.asm.lea(w.full(), r, Mem::index(ra, rb, 0, 0));
                self.cut(w, r);
                self.def(d, r);
            }
        }
    }

    /// A classic operation.
    fn two(&mut self, op: Alu, w: W, d: u16, a: u16, b: Rhs, commutes: bool) {
        let b = match b {
            Rhs::Constant(k) => return self.word_constant(op, w, d, a, k),
            Rhs::Cell(b) => b,
        };
        let (a, b) = if commutes && d == b { (b, a) } else { (a, b) };
        let rb = self.read(b);
        let r = self.take(w.full(), d, a);
        self.asm.alu_rr(op, w.full(), r, rb);
        self.cut(w, r);
        self.def(d, r);
    }
    fn word_constant(&mut self, op: Alu, w: W, d: u16, a: u16, k: u64) {
        let r = self.take(w.full(), d, a);
        match short(w, k) {
            Some(k) => self.asm.alu_ri(op, w.full(), r, k),
            None => {
                self.asm.mov_ri(RAX, k);
                self.asm.alu_rr(op, W::B64, r, RAX);
            }
        }
        self.cut(w, r);
        self.def(d, r);
    }
    fn and_constant(&mut self, w: W, d: u16, a: u16, k: u64) {
        let k = k & (u64::MAX >> (64 - w.bits()));
        if k <= u32::MAX as u64 {
            return self.mask(d, a, k as u32);
        }
        self.word_constant(Alu::And, w, d, a, k)
    }
    /// `d = a & k`, the upper half zero.
    fn mask(&mut self, d: u16, a: u16, k: u32) {
        let ra = self.read(a);
        let r = if d == a { ra } else { self.alloc() };
        match k {
            0xff => self.asm.movzx(W::B8, r, ra),
            0xffff => self.asm.movzx(W::B16, r, ra),
            u32::MAX => self.asm.mov_rr(W::B32, r, ra),
            _ => {
                if r != ra {
                    self.asm.mov_rr(W::B32, r, ra);
                }
                self.asm.alu_ri(Alu::And, W::B32, r, k as i32);
            }
        }
        self.def(d, r);
    }

    fn mul(&mut self, w: W, d: u16, a: u16, b: Rhs) {
        match b {
            Rhs::Cell(b) => {
                let (a, b) = if d == b { (b, a) } else { (a, b) };
                let rb = self.read(b);
                let r = self.take(w.full(), d, a);
                self.asm.imul_rr(w.full(), r, rb);
                self.cut(w, r);
                self.def(d, r);
            }
            Rhs::Constant(k) => {
                let ra = self.read(a);
                let r = if d == a { ra } else { self.alloc() };
                match short(w, k) {
                    Some(k) => self.asm.imul_rri(w.full(), r, ra, k),
                    None => {
                        self.asm.mov_ri(RAX, k);
                        self.asm.imul_rr(W::B64, RAX, ra);
                        self.asm.mov_rr(W::B64, r, RAX);
                    }
                }
                self.cut(w, r);
                self.def(d, r);
            }
        }
    }

    fn mul_high(&mut self, signed: bool, w: W, d: u16, a: u16, b: Rhs) {
        let rb = self.rhs(w, signed, b, RCX);
        if w == W::B64 {
            self.copy_to(W::B64, RAX, a);
            self.asm.unary(if signed { Unary::Imul } else { Unary::Mul }, W::B64, rb);
            let r = self.alloc();
            self.asm.mov_rr(W::B64, r, RDX);
            return self.def(d, r);
        }
        // Half as wide, the product fits.
        let ra = self.extended(w, signed, a, RDX);
        let r = self.alloc();
        if w == W::B32 {
            if signed {
                self.asm.movsx(W::B32, W::B64, RCX, rb);
                self.asm.movsx(W::B32, W::B64, r, ra);
            } else {
                self.asm.mov_rr(W::B32, RCX, rb);
                self.asm.mov_rr(W::B32, r, ra);
            }
            self.asm.imul_rr(W::B64, r, RCX);
            self.asm.shift_ri(Shift::Shr, W::B64, r, 32);
        } else {
            self.asm.mov_rr(W::B32, r, ra);
            self.asm.imul_rr(W::B32, r, rb);
            self.asm.shift_ri(Shift::Shr, W::B32, r, w.bits() as u8);
            self.cut(w, r);
        }
        self.def(d, r);
    }

    /// By zero: quotient 0, remainder `a`.
    fn div_unsigned(&mut self, remainder: bool, w: W, d: u16, a: u16, b: Rhs) {
        let rb = self.rhs(w, false, b, RCX);
        let ra = self.extended(w, false, a, RAX);
        let full = w.full();
        if ra != RAX {
            self.asm.mov_rr(full, RAX, ra);
        }
        self.asm.zero(RDX);
        self.asm.test_rr(full, rb, rb);
        let by_zero = self.asm.jcc_short(Cc::E);
        self.asm.unary(Unary::Div, full, rb);
        // The result, whichever way, to the register that holds it without a division.
        let result = if remainder { RAX } else { RDX };
        self.asm.mov_rr(full, result, if remainder { RDX } else { RAX });
        self.asm.bind_short(by_zero);
        let r = self.alloc();
        self.asm.mov_rr(full, r, result);
        self.cut(w, r);
        self.def(d, r);
    }

    /// By zero: quotient 0, remainder `a`. By -1: quotient `-a`, remainder 0.
    fn div_signed(&mut self, remainder: bool, w: W, d: u16, a: u16, b: Rhs) {
        let rb = self.rhs(w, true, b, RCX);
        let ra = self.extended(w, true, a, RAX);
        let full = w.full();
        if ra != RAX {
            self.asm.mov_rr(full, RAX, ra);
        }
        // 1 for zero, 0 for -1.
        self.asm.lea(full, RSI, Mem::base(rb, 1));
        self.asm.alu_ri(Alu::Cmp, full, RSI, 1);
        let usual = self.asm.jcc_short(Cc::A);
        if remainder {
            self.asm.unary(Unary::Neg, full, RSI);
        } else {
            self.asm.alu_ri(Alu::Sub, full, RSI, 1);
            self.asm.unary(Unary::Neg, full, RAX);
        }
        self.asm.alu_rr(Alu::And, full, RAX, RSI);
        let done = self.asm.jmp_short();
        self.asm.bind_short(usual);
        self.asm.sign_to_rdx(full);
        self.asm.unary(Unary::Idiv, full, rb);
        if remainder {
            self.asm.mov_rr(full, RAX, RDX);
        }
        self.asm.bind_short(done);
        let r = self.alloc();
        self.asm.mov_rr(full, r, RAX);
        self.cut(w, r);
        self.def(d, r);
    }

    /// `b` if `b cc a`, else `a`.
    fn min_max(&mut self, cc: Cc, signed: bool, w: W, d: u16, a: u16, b: Rhs) {
        let rb = self.rhs(w, signed, b, RCX);
        let ra = self.extended(w, signed, a, RAX);
        let full = w.full();
        let r = self.alloc();
        self.asm.mov_rr(full, r, ra);
        self.asm.alu_rr(Alu::Cmp, full, rb, ra);
        self.asm.cmov(cc, full, r, rb);
        self.cut(w, r);
        self.def(d, r);
    }

    fn shift(&mut self, op: Shift, w: W, d: u16, a: u16, b: Rhs) {
        let full = w.full();
        // Bits that a narrow operand has above its width must be right when they move down.
        let extend = |e: &mut Self, r: Gpr, ra: Gpr| match (op, w) {
            (Shift::Shr, W::B8 | W::B16) => e.asm.movzx(w, r, ra),
            (Shift::Sar, W::B8 | W::B16) => e.asm.movsx(w, W::B32, r, ra),
            _ if r != ra => e.asm.mov_rr(full, r, ra),
            _ => {}
        };
        match b {
            Rhs::Constant(k) => {
                let by = k as u8 & (w.bits() as u8 - 1);
                let ra = self.read(a);
                let r = if d == a { ra } else { self.alloc() };
                extend(self, r, ra);
                if by != 0 {
                    self.asm.shift_ri(op, full, r, by);
                } else if r == ra && w == W::B32 {
                    self.asm.mov_rr(W::B32, r, ra);
                }
                self.cut(w, r);
                self.def(d, r);
            }
            Rhs::Cell(b) if self.host.bmi2 && w >= W::B32 => {
                let (ra, rb) = (self.read(a), self.read(b));
                let r = if d == a { ra } else { self.alloc() };
                self.asm.shift_x(op, full, r, ra, rb);
                self.def(d, r);
            }
            Rhs::Cell(b) => {
                self.copy_to(W::B32, RCX, b);
                if w < W::B32 {
                    self.asm.alu_ri(Alu::And, W::B32, RCX, w.bits() as i32 - 1);
                }
                let ra = self.read(a);
                let r = if d == a { ra } else { self.alloc() };
                extend(self, r, ra);
                self.asm.shift_cl(op, full, r);
                self.cut(w, r);
                self.def(d, r);
            }
        }
    }

    fn rotate(&mut self, op: Shift, w: W, d: u16, a: u16, b: Rhs) {
        if let Rhs::Cell(b) = b {
            self.copy_to(W::B32, RCX, b);
        }
        let r = self.take(W::B64, d, a);
        match b {
            Rhs::Cell(_) => self.asm.shift_cl(op, w, r),
            Rhs::Constant(k) => {
                let by = k as u8 & (w.bits() as u8 - 1);
                if by != 0 {
                    self.asm.shift_ri(op, w, r, by);
                }
            }
        }
        match w {
            // A rotation by nothing leaves the upper half.
            W::B32 => self.asm.mov_rr(W::B32, r, r),
            _ => self.cut(w, r),
        }
        self.def(d, r);
    }

    /// Operations of one word; false if the host has no instruction for it.
    pub fn unary(&mut self, op: Op, w: W, step: &Step) -> bool {
        let (d, a, full) = (step.d, step.a, w.full());
        let r = match op {
            Op::Neg | Op::Not => {
                let r = self.take(full, d, a);
                let op = if op == Op::Neg { Unary::Neg } else { Unary::Not };
                self.asm.unary(op, full, r);
                r
            }
            Op::Abs => {
                let ra = self.extended(w, true, a, RCX);
                let r = self.alloc();
                self.asm.mov_rr(full, r, ra);
                self.asm.unary(Unary::Neg, full, r);
                self.asm.cmov(Cc::S, full, r, ra);
                r
            }
            Op::Clz if self.host.lzcnt => {
                let ra = self.extended(w, false, a, RAX);
                let r = self.alloc();
                self.asm.lzcnt(full, r, ra);
                if w < W::B32 {
                    self.asm.alu_ri(Alu::Sub, W::B32, r, 32 - w.bits() as i32);
                }
                r
            }
            Op::Ctz if self.host.bmi1 => {
                let mut ra = self.read(a);
                if w < W::B32 {
                    self.asm.mov_rr(W::B32, RAX, ra);
                    self.asm.alu_ri(Alu::Or, W::B32, RAX, 1 << w.bits());
                    ra = RAX;
                }
                let r = self.alloc();
                self.asm.tzcnt(full, r, ra);
                r
            }
            Op::Popcnt if self.host.popcnt => {
                let ra = self.extended(w, false, a, RAX);
                let r = self.alloc();
                self.asm.popcnt(full, r, ra);
                r
            }
            Op::Bswap => {
                let r = self.take(full, d, a);
                match w {
                    W::B8 => {}
                    W::B16 => self.asm.shift_ri(Shift::Rol, W::B16, r, 8),
                    _ => self.asm.bswap(w, r),
                }
                r
            }
            Op::Bitrev if w >= W::B32 => {
                let r = self.take(full, d, a);
                self.asm.bswap(w, r);
                // Bits change places with their neighbours, pairs with theirs, then fours.
                for (by, mask) in [(1, u64::MAX / 3), (2, u64::MAX / 5), (4, u64::MAX / 17)] {
                    let mask = mask & (u64::MAX >> (64 - w.bits()));
                    self.asm.mov_ri(RCX, mask);
                    self.asm.mov_rr(full, RAX, r);
                    self.asm.shift_ri(Shift::Shr, full, RAX, by);
                    self.asm.alu_rr(Alu::And, full, r, RCX);
                    self.asm.alu_rr(Alu::And, full, RAX, RCX);
                    self.asm.shift_ri(Shift::Shl, full, r, by);
                    self.asm.alu_rr(Alu::Or, full, r, RAX);
                }
                r
            }
            _ => return false,
        };
        self.cut(w, r);
        self.def(d, r);
        true
    }

    /// `a + b + carry`, or its carry.
    pub fn carry(&mut self, out: bool, w: W, step: &Step) {
        let rb = self.extended(w, false, step.b, RDX);
        let ra = self.extended(w, false, step.a, RCX);
        let carry = self.read(step.imm as u16);
        let r = self.alloc();
        self.asm.mov_rr(w.full(), r, ra);
        self.asm.bt_ri(carry, 0);
        self.asm.alu_rr(Alu::Adc, w.full(), r, rb);
        if !out {
            self.cut(w, r);
        } else if w < W::B32 {
            self.asm.shift_ri(Shift::Shr, W::B32, r, w.bits() as u8);
        } else {
            self.asm.setcc(Cc::B, r);
            self.asm.movzx(W::B8, r, r);
        }
        self.def(step.d, r);
    }

    // Moves and fields.

    pub fn constant(&mut self, d: u16, k: u64) {
        if d == tulk_base::state::CELL_PC {
            // For the helper call that follows.
            self.kill(d);
            match i32::try_from(k as i64) {
                Ok(k) => self.asm.mov_mi(W::B64, super::exits::pc_cell(), k),
                Err(_) => {
                    self.asm.mov_ri(RAX, k);
                    self.asm.mov_mr(W::B64, super::exits::pc_cell(), RAX);
                }
            }
            return;
        }
        if self.def_constant(d, k) {
            return;
        }
        let r = self.alloc();
        if k == 0 {
            self.asm.zero(r);
        } else {
            self.asm.mov_ri(r, k);
        }
        self.def(d, r);
    }

    pub fn mov(&mut self, step: &Step) {
        if let Some(x) = self.cached_x(step.a)
            && self.cached(step.a).is_none()
        {
            let to = self.alloc_x();
            self.asm.sse_rr(sse::MOVQ, to, x);
            return self.def_x(step.d, to);
        }
        let r = self.take(W::B64, step.d, step.a);
        self.def(step.d, r);
    }

    pub fn sign_extend(&mut self, step: &Step) {
        let from = W::of_log2(match step.b {
            56 => 0,
            48 => 1,
            _ => 2,
        });
        let ra = self.read(step.a);
        let r = if step.d == step.a { ra } else { self.alloc() };
        let to = if step.imm == u64::MAX { W::B64 } else { W::B32 };
        self.asm.movsx(from, to, r, ra);
        if step.imm == 0xffff {
            self.asm.movzx(W::B16, r, r);
        }
        self.def(step.d, r);
    }

    pub fn extract_unsigned(&mut self, step: &Step) {
        let Step { d, a, b, imm, .. } = *step;
        let by = b as u8 & 63;
        if by == 0 && imm <= u32::MAX as u64 {
            return self.mask(d, a, imm as u32);
        }
        let width = imm.count_ones();
        let top = by as u32 + width;
        // A field in the low half needs only that.
        let w = if top <= 32 { W::B32 } else { W::B64 };
        let r = self.take(w, d, a);
        if top < w.bits() && width > 31 {
            self.asm.shift_ri(Shift::Shl, W::B64, r, (64 - top) as u8);
            self.asm.shift_ri(Shift::Shr, W::B64, r, (64 - width) as u8);
            return self.def(d, r);
        }
        if by != 0 {
            self.asm.shift_ri(Shift::Shr, w, r, by);
        }
        if top < w.bits() {
            match imm {
                0xff => self.asm.movzx(W::B8, r, r),
                0xffff => self.asm.movzx(W::B16, r, r),
                _ => self.asm.alu_ri(Alu::And, W::B32, r, imm as i32),
            }
        }
        self.def(d, r);
    }

    pub fn extract_signed(&mut self, step: &Step) {
        let (left, right) = (step.b as u8 & 63, step.imm as u8 & 63);
        let r = self.take(W::B64, step.d, step.a);
        if left != 0 {
            self.asm.shift_ri(Shift::Shl, W::B64, r, left);
        }
        if right != 0 {
            self.asm.shift_ri(Shift::Sar, W::B64, r, right);
        }
        match step.imm >> 8 & 0xff {
            32 => self.asm.mov_rr(W::B32, r, r),
            16 => self.asm.movzx(W::B16, r, r),
            8 => self.asm.movzx(W::B8, r, r),
            _ => {}
        }
        self.def(step.d, r);
    }

    pub fn insert(&mut self, step: &Step) {
        let Step { d, a, b, imm, .. } = *step;
        let (lsb, width) = (imm as u8, (imm >> 8) as u8);
        if width >= 64 {
            let rb = self.read(b);
            let r = self.alloc();
            self.asm.mov_rr(W::B64, r, rb);
            return self.def(d, r);
        }
        let (ra, rb) = (self.read(a), self.read(b));
        let r = if d == a && a != b { ra } else { self.alloc() };
        if r != ra {
            self.asm.mov_rr(W::B64, r, ra);
        }
        // The field to the bottom and out, the new one in at the top, and back.
        if lsb != 0 {
            self.asm.shift_ri(Shift::Ror, W::B64, r, lsb);
        }
        self.asm.shrd(r, rb, width);
        let back = (lsb + width) & 63;
        if back != 0 {
            self.asm.shift_ri(Shift::Rol, W::B64, r, back);
        }
        self.def(d, r);
    }

    pub fn parity(&mut self, step: &Step) {
        let ra = self.read(step.a);
        self.asm.test_rr(W::B8, ra, ra);
        self.set_cc(step.d, Cc::P);
    }
}

/// The constant as the sign-extended 32 bits that instructions take. Narrow operations ignore the rest.
fn short(w: W, k: u64) -> Option<i32> {
    if w < W::B64 { Some(k as i32) } else { i32::try_from(k as i64).ok() }
}
