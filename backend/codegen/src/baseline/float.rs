//! Float templates: the host's instructions, and the eval thunk where their result may not be the guest's.
//!
//! As in `lower/float.rs`: a NaN result (which NaN is the guest's [`FpRule`]) and, where the guest detects tininess
//! before rounding, one of the smallest normal magnitude are computed again out of line; flags are sticky, so twice
//! does no harm. Guests of the x86 rule need neither check: the host does as they do. (Others cannot see the denormal
//! flag, which the checks' comparisons may raise.)
//!
//! An F32 result is zero-extended like every narrow one: its register's bits 32 to 63 are zero.

use super::Emitter;
use super::asm::*;
use super::regs::cell_mem;
use crate::abi::word;
use tulk_base::state::{CELL_ARGS, CELL_RET};
use tulk_ir::interp::code::Step;
use tulk_ir::interp::eval::EvalOp;
use tulk_ir::{FloatCc, FpRule, MinKind, Op, Round, Shape, Type};

/// A result to be computed again out of line.
pub struct Doubt {
    /// Jumps from the checks.
    from: [Option<Patch>; 2],
    back: u32,
    op: [u64; 2],
    args: [Option<Xmm>; 3],
    to: To,
}

/// Where the result goes.
#[derive(Clone, Copy)]
pub enum To {
    Gpr(Gpr),
    Xmm(Xmm),
}

/// F32 or F64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    pub double: bool,
}

impl Format {
    fn of(ty: Type) -> Format {
        Format { double: ty == Type::F64 }
    }
    pub fn of_lanes(shape: Shape) -> Format {
        Format { double: shape.lane_bits() == 64 }
    }
    fn ty(self) -> Type {
        if self.double { Type::F64 } else { Type::F32 }
    }
    /// The opcode of a scalar operation: prefix F3 or F2.
    fn scalar(self, opcode: u32) -> u32 {
        (if self.double { 0xf2_0000 } else { 0xf3_0000 }) | 0x100 | opcode
    }
    /// Of a packed one: no prefix or 66.
    pub fn packed(self, opcode: u32) -> u32 {
        (if self.double { 0x66_0000 } else { 0 }) | 0x100 | opcode
    }
    /// The bits in every lane of a vector.
    pub fn every(self, double: u64, single: u32) -> u128 {
        if self.double {
            double as u128 | (double as u128) << 64
        } else {
            single as u128 * (u128::MAX / u32::MAX as u128)
        }
    }
    pub fn signs(self) -> u128 {
        self.every(1 << 63, 1 << 31)
    }
    pub fn least_normal(self) -> u128 {
        self.every(1 << 52, 1 << 23)
    }
}

/// Opcodes that scalar and packed operations share.
pub fn arithmetic(op: Op) -> Option<u32> {
    Some(match op {
        Op::Fadd | Op::Vfadd => 0x58,
        Op::Fsub | Op::Vfsub => 0x5c,
        Op::Fmul | Op::Vfmul => 0x59,
        Op::Fdiv | Op::Vfdiv => 0x5e,
        _ => return None,
    })
}

impl Emitter<'_> {
    pub fn exact_host(&self) -> bool {
        self.input.program.fp() == FpRule::X86
    }
    /// A doubtful result may also be tiny.
    pub fn may_be_tiny(&self, op: Op) -> bool {
        matches!(op, Op::Fmul | Op::Fdiv | Op::Fma | Op::Fdemote | Op::Vfmul | Op::Vfdiv | Op::Vfma)
    }

    /// Operations with codes of their own; false for those that have no template.
    pub fn float(&mut self, op: Op, variant: u16, step: &Step) -> bool {
        let Step { d, a, b, .. } = *step;
        let f = Format { double: variant & 1 != 0 };
        match op {
            Op::Fadd | Op::Fsub | Op::Fmul | Op::Fdiv => {
                let opcode = f.scalar(arithmetic(op).expect("one of four"));
                let (xa, xb) = (self.read_x(a), self.read_x(b));
                let r = self.scalar_copy(f, xa);
                self.asm.sse_rr(opcode, r, xb);
                self.check(op, f, f.ty(), r, [Some(xa), Some(xb), None]);
                self.def_x(d, r);
            }
            Op::Fsqrt => {
                let xa = self.read_x(a);
                let r = self.zero_x();
                self.asm.sse_rr(f.scalar(0x51), r, xa);
                self.check(op, f, f.ty(), r, [Some(xa), None, None]);
                self.def_x(d, r);
            }
            Op::Fneg | Op::Fabs => self.sign(op == Op::Fneg, f, d, a),
            Op::FcmpNzcv => self.compare_nzcv(f, step),
            Op::StoF => {
                let ra = self.read(a);
                let r = self.zero_x();
                let w = if variant & 2 != 0 { W::B64 } else { W::B32 };
                self.asm.sse_xr(f.scalar(0x2a), w, r, ra);
                self.def_x(d, r);
            }
            Op::UtoF if variant & 2 == 0 => {
                self.copy_to(W::B32, RAX, a);
                let r = self.zero_x();
                self.asm.sse_xr(f.scalar(0x2a), W::B64, r, RAX);
                self.def_x(d, r);
            }
            Op::UtoF => {
                // Numbers with the top bit are no signed ones.
                let (ra, xa) = (self.read(a), self.read_x(a));
                let r = self.zero_x();
                self.asm.test_rr(W::B64, ra, ra);
                let from = self.asm.jcc(Cc::S);
                self.asm.sse_xr(f.scalar(0x2a), W::B64, r, ra);
                let eval = self.eval_op(op, f.ty(), Type::I64);
                self.doubt([Some(from), None], eval, [Some(xa), None, None], To::Xmm(r));
                self.def_x(d, r);
            }
            Op::Fpromote => {
                let xa = self.read_x(a);
                let r = self.zero_x();
                self.asm.sse_rr(sse::CVTSS2SD, r, xa);
                self.check(op, Format::of(Type::F64), Type::F32, r, [Some(xa), None, None]);
                self.def_x(d, r);
            }
            Op::Fdemote => {
                let xa = self.read_x(a);
                let r = self.zero_x();
                self.asm.sse_rr(sse::CVTSD2SS, r, xa);
                self.check(op, Format::of(Type::F32), Type::F64, r, [Some(xa), None, None]);
                self.def_x(d, r);
            }
            Op::Vfadd | Op::Vfsub | Op::Vfmul | Op::Vfdiv => self.float_lanes(op, f, step),
            _ => return false,
        }
        true
    }

    /// A new register, zero: host operations that write only its low part depend on nothing then.
    fn zero_x(&mut self) -> Xmm {
        let r = self.alloc_x();
        self.asm.sse_rr(sse::XORPS, r, r);
        r
    }
    /// A new register with the scalar of `x`.
    fn scalar_copy(&mut self, f: Format, x: Xmm) -> Xmm {
        if f.double {
            let r = self.alloc_x();
            self.asm.sse_rr(sse::MOVAPS, r, x);
            return r;
        }
        let r = self.zero_x();
        self.asm.sse_rr(sse::MOVSS, r, x);
        r
    }

    /// Examines the scalar result `r` of type `f`, of an operation on `args` of type `source`.
    fn check(&mut self, op: Op, f: Format, source: Type, r: Xmm, args: [Option<Xmm>; 3]) {
        if self.exact_host() {
            return;
        }
        let ucomis = if f.double { sse::UCOMISD } else { sse::UCOMISS };
        let from = if self.may_be_tiny(op) {
            // Unordered sets the zero flag too.
            let (mask, least) = (self.literal(!f.signs()), self.literal(f.least_normal()));
            self.asm.sse_rr(sse::MOVAPS, XMM0, r);
            self.asm.sse_rm(sse::ANDPS, XMM0, mask);
            self.asm.sse_rm(ucomis, XMM0, least);
            self.asm.jcc(Cc::E)
        } else {
            self.asm.sse_rr(ucomis, r, r);
            self.asm.jcc(Cc::P)
        };
        let eval = self.eval_op(op, f.ty(), source);
        self.doubt([Some(from), None], eval, args, To::Xmm(r));
    }
    pub fn eval_op(&self, op: Op, ty: Type, src_ty: Type) -> EvalOp {
        EvalOp {
            op,
            ty,
            src_ty,
            aux: 0,
            shape: Shape::I8x16,
            imm2: 0,
            imm: 0,
            fp: self.input.program.fp(),
            pool: 0,
        }
    }
    pub fn doubt(&mut self, from: [Option<Patch>; 2], op: EvalOp, args: [Option<Xmm>; 3], to: To) {
        let back = self.asm.here();
        self.doubts.push(Doubt { from, back, op: op.to_words(), args, to });
    }

    /// Computes the doubtful results again. The thunk keeps all registers.
    pub fn finish_doubts(&mut self) {
        for i in 0..self.doubts.len() {
            let Doubt { from, back, op, args, to } = self.doubts[i];
            for patch in from.into_iter().flatten() {
                self.asm.bind(patch);
            }
            for (n, x) in args.into_iter().enumerate() {
                if let Some(x) = x {
                    let cell = CELL_ARGS + 2 * n as u16;
                    self.asm.sse_mr(sse::MOVUPS_STORE, cell_mem(cell), x);
                }
            }
            self.asm.mov_ri(RSI, op[0]);
            self.asm.mov_ri(RDX, op[1]);
            self.asm.push(RDI);
            self.asm.call_m(super::engine(word::THUNK_EVAL));
            self.asm.pop(RDI);
            match to {
                To::Gpr(r) => self.asm.mov_rm(W::B64, r, cell_mem(CELL_RET)),
                To::Xmm(x) => self.asm.sse_rm(sse::MOVUPS, x, cell_mem(CELL_RET)),
            }
            self.asm.jmp_to(back);
        }
    }

    /// Sign bit flipped or cleared.
    fn sign(&mut self, flip: bool, f: Format, d: u16, a: u16) {
        let xa = self.read_x(a);
        let r = self.scalar_copy(f, xa);
        // The upper lanes of the literals do not matter, but for F32 the second one must stay zero.
        let (op, mask) = match (flip, f.double) {
            (true, true) => (sse::XORPS, 1u128 << 63),
            (true, false) => (sse::XORPS, 1 << 31),
            (false, _) => (sse::ANDPS, !f.signs()),
        };
        let mask = self.literal(mask);
        self.asm.sse_rm(op, r, mask);
        self.def_x(d, r);
    }

    fn compare_nzcv(&mut self, f: Format, step: &Step) {
        let (xa, xb) = (self.read_x(step.a), self.read_x(step.b));
        self.compare_x(f, step.imm != 0, xa, xb);
        // Greater, then what says otherwise: unordered sets all three flags and comes last.
        self.asm.mov_ri(RAX, 1 << 29);
        for (cc, word) in [(Cc::E, 6u64 << 28), (Cc::B, 8 << 28), (Cc::P, 3 << 28)] {
            self.asm.mov_ri(RCX, word);
            self.asm.cmov(cc, W::B32, RAX, RCX);
        }
        self.def_scratch(step.d, RAX);
    }
    fn compare_x(&mut self, f: Format, signalling: bool, a: Xmm, b: Xmm) {
        let op = match (signalling, f.double) {
            (false, false) => sse::UCOMISS,
            (false, true) => sse::UCOMISD,
            (true, false) => sse::COMISS,
            (true, true) => sse::COMISD,
        };
        self.asm.sse_rr(op, a, b);
    }

    /// Float operations that the bytecode has no codes for.
    pub fn float_eval(&mut self, eval: &EvalOp, step: &Step, third: u16) -> bool {
        let Step { d, a, b, .. } = *step;
        match eval.op {
            Op::Fcmp => self.compare_float(eval, d, a, b),
            Op::FtoS => return self.convert_signed(eval, d, a),
            Op::FtoU => return self.convert_unsigned(eval, d, a),
            Op::Fround => return self.round(eval, d, a),
            Op::Fmin | Op::Fmax => return self.min_max_float(eval, d, a, b),
            Op::Fma if self.host.fma && !self.exact_host() => {
                let f = Format::of(eval.ty);
                let (xa, xb, xc) = (self.read_x(a), self.read_x(b), self.read_x(third));
                let r = self.scalar_copy(f, xa);
                self.asm.fma213(f.double, false, r, xb, xc);
                self.check(Op::Fma, f, f.ty(), r, [Some(xa), Some(xb), Some(xc)]);
                self.def_x(d, r);
            }
            _ => return false,
        }
        true
    }

    fn compare_float(&mut self, eval: &EvalOp, d: u16, a: u16, b: u16) {
        let f = Format::of(eval.src_ty);
        let (xa, xb) = (self.read_x(a), self.read_x(b));
        let signalling = eval.aux & 0x80 != 0;
        // What is false for unordered operands is asked so that carry says no.
        let (swap, cc) = match FloatCc::from_u8(eval.aux & 0x7f) {
            FloatCc::Eq | FloatCc::UEq => (false, Cc::E),
            FloatCc::Ne => (false, Cc::Ne),
            FloatCc::Lt => (true, Cc::A),
            FloatCc::Le => (true, Cc::Ae),
            FloatCc::Gt => (false, Cc::A),
            FloatCc::Ge => (false, Cc::Ae),
            FloatCc::Ord => (false, Cc::Np),
            FloatCc::Uno => (false, Cc::P),
            FloatCc::ULt => (false, Cc::B),
            FloatCc::ULe => (false, Cc::Be),
            FloatCc::UGt => (true, Cc::B),
            FloatCc::UGe => (true, Cc::Be),
        };
        let (x, y) = if swap { (xb, xa) } else { (xa, xb) };
        self.compare_x(f, signalling, x, y);
        match FloatCc::from_u8(eval.aux & 0x7f) {
            FloatCc::Eq => {
                self.asm.setcc(Cc::Np, RCX);
                self.asm.setcc(cc, RAX);
                self.asm.alu_rr(Alu::And, W::B8, RAX, RCX);
            }
            FloatCc::Ne => {
                self.asm.setcc(Cc::P, RCX);
                self.asm.setcc(cc, RAX);
                self.asm.alu_rr(Alu::Or, W::B8, RAX, RCX);
            }
            _ => return self.set_cc(d, cc),
        }
        let r = self.alloc();
        self.asm.movzx(W::B8, r, RAX);
        self.def(d, r);
    }

    fn convert_signed(&mut self, eval: &EvalOp, d: u16, a: u16) -> bool {
        let opcode = match Round::from_u8(eval.aux & 0x7f) {
            Round::Zero => 0x2c,
            Round::Current => 0x2d,
            _ => return false,
        };
        let f = Format::of(eval.src_ty);
        let w = if eval.ty == Type::I64 { W::B64 } else { W::B32 };
        let xa = self.read_x(a);
        let r = self.alloc();
        self.asm.sse_rx(f.scalar(opcode), w, r, xa);
        // What is out of range becomes the least integer.
        self.asm.alu_ri(Alu::Cmp, w, r, 1);
        let from = self.asm.jcc(Cc::O);
        self.doubt([Some(from), None], *eval, [Some(xa), None, None], To::Gpr(r));
        self.def(d, r);
        true
    }

    /// By the signed conversion where that cannot raise a flag of its own: from 0 up to what both can represent.
    fn convert_unsigned(&mut self, eval: &EvalOp, d: u16, a: u16) -> bool {
        let opcode = match Round::from_u8(eval.aux & 0x7f) {
            Round::Zero => 0x2c,
            _ => return false,
        };
        let f = Format::of(eval.src_ty);
        let end = if eval.ty == Type::I64 { 63 } else { 32 };
        let end = self.literal(f.every((1023 + end) << 52, (127 + end as u32) << 23));
        let xa = self.read_x(a);
        let r = self.alloc();
        let ucomis = if f.double { sse::UCOMISD } else { sse::UCOMISS };
        self.asm.sse_rr(sse::XORPS, XMM0, XMM0);
        self.asm.sse_rr(ucomis, xa, XMM0);
        let below = self.asm.jcc(Cc::B);
        self.asm.sse_rm(ucomis, xa, end);
        let above = self.asm.jcc(Cc::Ae);
        self.asm.sse_rx(f.scalar(opcode), W::B64, r, xa);
        self.doubt([Some(below), Some(above)], *eval, [Some(xa), None, None], To::Gpr(r));
        self.def(d, r);
        true
    }

    fn round(&mut self, eval: &EvalOp, d: u16, a: u16) -> bool {
        let mode = match Round::from_u8(eval.aux & 0x7f) {
            Round::Nearest => 0,
            Round::Down => 1,
            Round::Up => 2,
            Round::Zero => 3,
            Round::Current => 4,
            Round::Away => return false,
        };
        let quiet = if eval.aux & 0x80 != 0 { 0 } else { 8 };
        let f = Format::of(eval.ty);
        let xa = self.read_x(a);
        let r = self.zero_x();
        let op = if f.double { 0x66_03_0b } else { 0x66_03_0a };
        self.asm.sse_rri(op, r, xa, mode | quiet);
        if !self.exact_host() {
            self.asm.sse_rr(if f.double { sse::UCOMISD } else { sse::UCOMISS }, r, r);
            let from = self.asm.jcc(Cc::P);
            self.doubt([Some(from), None], *eval, [Some(xa), None, None], To::Xmm(r));
        }
        self.def_x(d, r);
        true
    }

    fn min_max_float(&mut self, eval: &EvalOp, d: u16, a: u16, b: u16) -> bool {
        let (f, max) = (Format::of(eval.ty), eval.op == Op::Fmax);
        let kind = MinKind::from_u8(eval.aux);
        let opcode = f.scalar(if max { 0x5f } else { 0x5d });
        if kind == MinKind::Second {
            let (xa, xb) = (self.read_x(a), self.read_x(b));
            let r = self.scalar_copy(f, xa);
            self.asm.sse_rr(opcode, r, xb);
            self.def_x(d, r);
            return true;
        }
        if self.exact_host() {
            return false;
        }
        let (xa, xb) = (self.read_x(a), self.read_x(b));
        let r = self.scalar_copy(f, xa);
        self.compare_x(f, false, xa, xb);
        let nan = self.asm.jcc(Cc::P);
        let differ = self.asm.jcc_short(Cc::Ne);
        // Equal numbers differ in the sign of zero at most.
        self.asm.sse_rr(if max { sse::ANDPS } else { sse::ORPS }, r, xb);
        self.asm.bind_short(differ);
        let differ = self.asm.jcc_short(Cc::E);
        self.asm.sse_rr(opcode, r, xb);
        self.asm.bind_short(differ);
        if !f.double {
            // The other operand's upper lanes may have come along.
            self.asm.sse_rr(sse::MOVAPS, XMM0, r);
            self.asm.sse_rr(sse::XORPS, r, r);
            self.asm.sse_rr(sse::MOVSS, r, XMM0);
        }
        self.doubt([Some(nan), None], *eval, [Some(xa), Some(xb), None], To::Xmm(r));
        self.def_x(d, r);
        true
    }
}
