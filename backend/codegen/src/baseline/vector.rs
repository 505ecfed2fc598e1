//! Vector templates.
//!
//! Most lanewise operations are one host instruction, found in a table by operation and lane width; the others are
//! short sequences or the interpreter's.

use super::Emitter;
use super::asm::*;
use super::float::{Format, To, arithmetic};
use tulk_ir::interp::code::{self, Step};
use tulk_ir::interp::eval::EvalOp;
use tulk_ir::{FloatCc, IntCc, MinKind, Op, Round, Shape, Type};

/// Host opcodes by log2 of a lane's bytes; 0 for none.
fn binary(op: Op) -> [u32; 4] {
    match op {
        Op::Vadd => [0x66_01_fc, 0x66_01_fd, 0x66_01_fe, 0x66_01_d4],
        Op::Vsub => [0x66_01_f8, 0x66_01_f9, 0x66_01_fa, 0x66_01_fb],
        Op::Vmul => [0, 0x66_01_d5, 0x66_02_40, 0],
        Op::VaddSatS => [0x66_01_ec, 0x66_01_ed, 0, 0],
        Op::VaddSatU => [0x66_01_dc, 0x66_01_dd, 0, 0],
        Op::VsubSatS => [0x66_01_e8, 0x66_01_e9, 0, 0],
        Op::VsubSatU => [0x66_01_d8, 0x66_01_d9, 0, 0],
        Op::VminS => [0x66_02_38, 0x66_01_ea, 0x66_02_39, 0],
        Op::VminU => [0x66_01_da, 0x66_02_3a, 0x66_02_3b, 0],
        Op::VmaxS => [0x66_02_3c, 0x66_01_ee, 0x66_02_3d, 0],
        Op::VmaxU => [0x66_01_de, 0x66_02_3e, 0x66_02_3f, 0],
        Op::VavgU => [0x66_01_e0, 0x66_01_e3, 0, 0],
        _ => [0; 4],
    }
}
const EQUAL: [u32; 4] = [0x66_01_74, 0x66_01_75, 0x66_01_76, 0x66_02_29];
const GREATER: [u32; 4] = [0x660164, 0x660165, 0x660166, 0x660237];
const SUB: [u32; 4] = [0x66_01_f8, 0x66_01_f9, 0x66_01_fa, 0x66_01_fb];
const ABS: [u32; 4] = [0x66_02_1c, 0x66_02_1d, 0x66_02_1e, 0];
/// `pmovsx` and `pmovzx` from lanes of these widths to the double.
const WIDEN_S: [u32; 3] = [0x66_02_20, 0x66_02_23, 0x66_02_25];
const WIDEN_U: [u32; 3] = [0x66_02_30, 0x66_02_33, 0x66_02_35];

/// Opcode of comparisons of float lanes, by predicate.
const CMP: u32 = 0xc2;

/// A lane of `8 << log2` bits in all lanes.
fn every(log2: u8, lane: u64) -> u128 {
    let bits = 8 << log2;
    let lane = lane as u128 & (u128::MAX >> (128 - bits));
    lane * (u128::MAX / (u128::MAX >> (128 - bits)))
}

impl Emitter<'_> {
    /// Steps with codes of their own.
    pub fn vector(&mut self, step: &Step) -> bool {
        let Step { d, a, b, imm, .. } = *step;
        match step.code {
            code::VAND => self.both(sse::PAND, d, a, b, true),
            code::VOR => self.both(sse::POR, d, a, b, true),
            code::VXOR => self.both(sse::PXOR, d, a, b, true),
            code::VAND_NOT => {
                // The host complements its first operand.
                let (xa, xb) = (self.read_pair(a), self.read_pair(b));
                let x = self.alloc_x();
                self.asm.sse_rr(sse::MOVAPS, x, xb);
                self.asm.sse_rr(sse::PANDN, x, xa);
                self.def_pair(d, x);
            }
            code::VNOT => {
                let x = self.take_pair(d, a);
                self.invert(x);
                self.def_pair(d, x);
            }
            code::VBITSEL => {
                // c ^ (a & (b ^ c)).
                let xc = self.read_pair(imm as u16);
                let (xa, xb) = (self.read_pair(a), self.read_pair(b));
                let x = self.alloc_x();
                self.asm.sse_rr(sse::MOVAPS, x, xb);
                self.asm.sse_rr(sse::PXOR, x, xc);
                self.asm.sse_rr(sse::PAND, x, xa);
                self.asm.sse_rr(sse::PXOR, x, xc);
                self.def_pair(d, x);
            }
            code::VBINARY => {
                let (op, log2) = code::lanewise(code::VBINARY, imm);
                let opcode = binary(op)[log2 as usize];
                if opcode == 0 {
                    return false;
                }
                let commutes = !matches!(op, Op::Vsub | Op::VsubSatS | Op::VsubSatU);
                self.both(opcode, d, a, b, commutes);
            }
            code::VCOMPARE => self.compare_lanes(step),
            code::VUNARY => {
                let (op, log2) = code::lanewise(code::VUNARY, imm);
                match op {
                    Op::Vneg => {
                        let xa = self.read_pair(a);
                        let x = self.alloc_x();
                        self.asm.sse_rr(sse::PXOR, x, x);
                        self.asm.sse_rr(SUB[log2 as usize], x, xa);
                        self.def_pair(d, x);
                    }
                    Op::Vabs if log2 < 3 => {
                        let xa = self.read_pair(a);
                        let x = self.alloc_x();
                        self.asm.sse_rr(ABS[log2 as usize], x, xa);
                        self.def_pair(d, x);
                    }
                    _ => return false,
                }
            }
            code::VSHIFT => return self.shift_lanes(step),
            _ => return false,
        }
        true
    }

    /// All bits complemented. Uses `xmm0`.
    fn invert(&mut self, x: Xmm) {
        self.asm.sse_rr(sse::PCMPEQD, XMM0, XMM0);
        self.asm.sse_rr(sse::PXOR, x, XMM0);
    }

    /// `d = a op b` by one host instruction.
    fn both(&mut self, opcode: u32, d: u16, a: u16, b: u16, commutes: bool) {
        let (a, b) = if commutes && d == b { (b, a) } else { (a, b) };
        let xb = self.read_pair(b);
        let x = if d == b && d != a {
            let xa = self.read_pair(a);
            let x = self.alloc_x();
            self.asm.sse_rr(sse::MOVAPS, x, xa);
            x
        } else {
            self.take_pair(d, a)
        };
        self.asm.sse_rr(opcode, x, xb);
        self.def_pair(d, x);
    }

    fn compare_lanes(&mut self, step: &Step) {
        let Step { d, a, b, imm, .. } = *step;
        let (cc, log2) = (IntCc::from_u8((imm >> 2) as u8), imm as usize & 3);
        // By equality or signed greater of operands in this or the other order, inverted or not.
        let (equal, swap, not) = match cc {
            IntCc::Eq => (true, false, false),
            IntCc::Ne => (true, false, true),
            IntCc::GtS | IntCc::GtU => (false, false, false),
            IntCc::LeS | IntCc::LeU => (false, false, true),
            IntCc::LtS | IntCc::LtU => (false, true, false),
            IntCc::GeS | IntCc::GeU => (false, true, true),
        };
        let unsigned = matches!(cc, IntCc::LtU | IntCc::LeU | IntCc::GtU | IntCc::GeU);
        let (a, b) = if swap { (b, a) } else { (a, b) };
        let (xa, mut xb) = (self.read_pair(a), self.read_pair(b));
        let x = self.alloc_x();
        self.asm.sse_rr(sse::MOVAPS, x, xa);
        if unsigned {
            // Signed comparison of operands with their top bits flipped.
            let tops = self.literal(every(log2 as u8, 1 << ((8 << log2) - 1)));
            self.asm.sse_rm(sse::PXOR, x, tops);
            self.asm.sse_rr(sse::MOVAPS, XMM1, xb);
            self.asm.sse_rm(sse::PXOR, XMM1, tops);
            xb = XMM1;
        }
        self.asm.sse_rr(if equal { EQUAL } else { GREATER }[log2], x, xb);
        if not {
            self.invert(x);
        }
        self.def_pair(d, x);
    }

    /// By a constant.
    fn shift_lanes(&mut self, step: &Step) -> bool {
        let Step { d, a, b, imm, .. } = *step;
        let (op, log2) = code::lanewise(code::VSHIFT, imm);
        let number = match op {
            Op::VshlI => 6,
            Op::VshrUI => 2,
            _ => 4,
        };
        let by = b.min(255) as u8;
        match (log2, op) {
            (0, Op::VshrSI) | (3, Op::VshrSI) => return false,
            (0, _) if by < 8 => {
                let x = self.take_pair(d, a);
                self.asm.sse_shift(0x71, number, x, by);
                let kept = if op == Op::VshlI { 0xff << by } else { 0xff >> by };
                let mask = self.literal(every(0, kept));
                self.asm.sse_rm(sse::PAND, x, mask);
                self.def_pair(d, x);
            }
            (0, _) => {
                let x = self.alloc_x();
                self.asm.sse_rr(sse::PXOR, x, x);
                self.def_pair(d, x);
            }
            _ => {
                let x = self.take_pair(d, a);
                self.asm.sse_shift(0x70 + log2, number, x, by);
                self.def_pair(d, x);
            }
        }
        true
    }

    /// Operations that the bytecode has no codes for.
    pub fn vector_eval(&mut self, eval: &EvalOp, step: &Step, third: u16) -> bool {
        let Step { d, a, b, .. } = *step;
        let log2 = eval.shape.lane_bits().trailing_zeros() as usize - 3;
        match eval.op {
            Op::VwidenLoS | Op::VwidenLoU | Op::VwidenHiS | Op::VwidenHiU => {
                let signed = matches!(eval.op, Op::VwidenLoS | Op::VwidenHiS);
                let high = matches!(eval.op, Op::VwidenHiS | Op::VwidenHiU);
                let xa = self.read_pair(a);
                let x = self.alloc_x();
                self.widen(x, xa, log2, signed, high);
                self.def_pair(d, x);
            }
            Op::VmulWidenLoS | Op::VmulWidenLoU | Op::VmulWidenHiS | Op::VmulWidenHiU => {
                let signed = matches!(eval.op, Op::VmulWidenLoS | Op::VmulWidenHiS);
                let high = matches!(eval.op, Op::VmulWidenHiS | Op::VmulWidenHiU);
                let (xa, xb) = (self.read_pair(a), self.read_pair(b));
                let x = self.alloc_x();
                self.widen(x, xa, log2, signed, high);
                self.widen(XMM0, xb, log2, signed, high);
                let product = match (log2, signed) {
                    (0, _) => 0x66_01_d5,
                    (1, _) => 0x66_02_40,
                    (_, true) => 0x66_02_28,
                    (_, false) => 0x66_01_f4,
                };
                self.asm.sse_rr(product, x, XMM0);
                self.def_pair(d, x);
            }
            Op::Vnarrow => self.narrow(log2, d, a, b),
            Op::VnarrowSatS | Op::VnarrowSatSU => {
                let opcode = match (eval.op, log2) {
                    (Op::VnarrowSatS, 1) => 0x66_01_63,
                    (Op::VnarrowSatS, 2) => 0x66_01_6b,
                    (Op::VnarrowSatSU, 1) => 0x66_01_67,
                    (Op::VnarrowSatSU, 2) => 0x66_02_2b,
                    _ => return false,
                };
                self.both(opcode, d, a, b, false);
            }
            Op::VaddPairs if log2 == 1 => self.both(0x66_02_01, d, a, b, false),
            Op::VaddPairs if log2 == 2 => self.both(0x66_02_02, d, a, b, false),
            Op::VaddPairs if log2 == 3 => {
                let (xa, xb) = (self.read_pair(a), self.read_pair(b));
                let x = self.alloc_x();
                self.asm.sse_rr(sse::MOVAPS, XMM0, xa);
                self.asm.sse_rr(sse::MOVAPS, x, xa);
                self.asm.sse_rr(sse::PUNPCKLQDQ, x, xb);
                self.asm.sse_rr(sse::PUNPCKHQDQ, XMM0, xb);
                self.asm.sse_rr(binary(Op::Vadd)[3], x, XMM0);
                self.def_pair(d, x);
            }
            Op::VmaddPairsS => self.both(0x66_01_f5, d, a, b, true),
            Op::Vswizzle => {
                // Numbers above 15 get their top bit, which makes zero.
                let (xa, xb) = (self.read_pair(a), self.read_pair(b));
                let x = self.alloc_x();
                let bias = self.literal(every(0, 0x70));
                self.asm.sse_rr(sse::MOVAPS, XMM0, xb);
                self.asm.sse_rm(binary(Op::VaddSatU)[0], XMM0, bias);
                self.asm.sse_rr(sse::MOVAPS, x, xa);
                self.asm.sse_rr(sse::PSHUFB, x, XMM0);
                self.def_pair(d, x);
            }
            Op::VanyTrue => {
                let xa = self.read_pair(a);
                self.asm.sse_rr(sse::PTEST, xa, xa);
                self.set_cc(d, Cc::Ne);
            }
            Op::VsignBits => {
                let mut xa = self.read_pair(a);
                if log2 == 1 {
                    // Signs survive saturation.
                    self.asm.sse_rr(sse::PXOR, XMM1, XMM1);
                    self.asm.sse_rr(sse::MOVAPS, XMM0, xa);
                    self.asm.sse_rr(0x66_01_63, XMM0, XMM1);
                    xa = XMM0;
                }
                let r = self.alloc();
                let opcode = match log2 {
                    0 | 1 => sse::PMOVMSKB,
                    2 => sse::MOVMSKPS,
                    _ => sse::MOVMSKPD,
                };
                self.asm.sse_rx(opcode, W::B32, r, xa);
                self.def(d, r);
            }
            Op::Vfneg | Op::Vfabs => {
                let f = Format::of_lanes(eval.shape);
                let x = self.take_pair(d, a);
                let (op, mask) = match eval.op {
                    Op::Vfneg => (sse::XORPS, f.signs()),
                    _ => (sse::ANDPS, !f.signs()),
                };
                let mask = self.literal(mask);
                self.asm.sse_rm(op, x, mask);
                self.def_pair(d, x);
            }
            Op::Vfsqrt => {
                let f = Format::of_lanes(eval.shape);
                let xa = self.read_pair(a);
                let x = self.alloc_x();
                self.asm.sse_rr(f.packed(0x51), x, xa);
                self.check_lanes(*eval, f, x, [Some(xa), None, None]);
                self.def_pair(d, x);
            }
            Op::Vfcmp => return self.compare_float_lanes(eval, d, a, b),
            Op::Vfmin | Op::Vfmax if MinKind::from_u8(eval.aux) == MinKind::Second => {
                let opcode = if eval.op == Op::Vfmax { 0x5f } else { 0x5d };
                self.both(Format::of_lanes(eval.shape).packed(opcode), d, a, b, false);
            }
            Op::VstoF if log2 == 2 => {
                let xa = self.read_pair(a);
                let x = self.alloc_x();
                self.asm.sse_rr(sse::CVTDQ2PS, x, xa);
                self.def_pair(d, x);
            }
            Op::VftoS if log2 == 2 && eval.aux & 0x7f == Round::Zero as u8 => {
                let xa = self.read_pair(a);
                let x = self.alloc_x();
                self.asm.sse_rr(sse::CVTTPS2DQ, x, xa);
                // What is out of range becomes the least integer.
                let least = self.literal(every(2, 1 << 31));
                self.asm.sse_rm(sse::MOVAPS, XMM0, least);
                self.asm.sse_rr(sse::PCMPEQD, XMM0, x);
                self.asm.sse_rr(sse::PTEST, XMM0, XMM0);
                let from = self.asm.jcc(Cc::Ne);
                self.doubt([Some(from), None], *eval, [Some(xa), None, None], To::Xmm(x));
                self.def_pair(d, x);
            }
            Op::Vfma if self.host.fma && !self.exact_host() => {
                let f = Format::of_lanes(eval.shape);
                let xs = [a, b, third].map(|cell| self.read_pair(cell));
                let x = self.alloc_x();
                self.asm.sse_rr(sse::MOVAPS, x, xs[0]);
                self.asm.fma213(f.double, true, x, xs[1], xs[2]);
                self.check_lanes(*eval, f, x, xs.map(Some));
                self.def_pair(d, x);
            }
            _ => return false,
        }
        true
    }

    /// Comparisons whose exceptions the host raises as they say; false for the others.
    fn compare_float_lanes(&mut self, eval: &EvalOp, d: u16, a: u16, b: u16) -> bool {
        let signalling = eval.aux & 0x80 != 0;
        let (predicate, swap) = match (FloatCc::from_u8(eval.aux & 0x7f), signalling) {
            (FloatCc::Eq, false) => (0, false),
            (FloatCc::Lt, true) => (1, false),
            (FloatCc::Le, true) => (2, false),
            (FloatCc::Gt, true) => (1, true),
            (FloatCc::Ge, true) => (2, true),
            (FloatCc::Uno, false) => (3, false),
            (FloatCc::Ne, false) => (4, false),
            (FloatCc::Ord, false) => (7, false),
            _ => return false,
        };
        let (a, b) = if swap { (b, a) } else { (a, b) };
        let (xa, xb) = (self.read_pair(a), self.read_pair(b));
        let x = self.alloc_x();
        self.asm.sse_rr(sse::MOVAPS, x, xa);
        self.asm.sse_rri(Format::of_lanes(eval.shape).packed(CMP), x, xb, predicate);
        self.def_pair(d, x);
        true
    }

    /// Half of the lanes of `x`, twice as wide.
    fn widen(&mut self, to: Xmm, x: Xmm, log2: usize, signed: bool, high: bool) {
        let opcode = if signed { WIDEN_S } else { WIDEN_U }[log2];
        if high {
            self.asm.sse_rri(sse::PSHUFD, to, x, 0xee);
            self.asm.sse_rr(opcode, to, to);
        } else {
            self.asm.sse_rr(opcode, to, x);
        }
    }

    fn narrow(&mut self, log2: usize, d: u16, a: u16, b: u16) {
        let (xa, xb) = (self.read_pair(a), self.read_pair(b));
        let x = self.alloc_x();
        self.asm.sse_rr(sse::MOVAPS, x, xa);
        if log2 == 3 {
            self.asm.sse_rri(sse::SHUFPS, x, xb, 0x88);
            return self.def_pair(d, x);
        }
        // The low halves alone are in range of unsigned saturation.
        let halves = every(log2 as u8, u64::MAX >> (64 - (4 << log2)));
        let mask = self.literal(halves);
        self.asm.sse_rr(sse::MOVAPS, XMM0, xb);
        self.asm.sse_rm(sse::PAND, XMM0, mask);
        self.asm.sse_rm(sse::PAND, x, mask);
        self.asm.sse_rr(if log2 == 1 { 0x66_01_67 } else { 0x66_02_2b }, x, XMM0);
        self.def_pair(d, x);
    }

    /// Float lanes with codes of their own.
    pub fn float_lanes(&mut self, op: Op, f: Format, step: &Step) {
        let (xa, xb) = (self.read_pair(step.a), self.read_pair(step.b));
        let x = self.alloc_x();
        self.asm.sse_rr(sse::MOVAPS, x, xa);
        self.asm.sse_rr(f.packed(arithmetic(op).expect("one of four")), x, xb);
        let shape = if f.double { Shape::F64x2 } else { Shape::F32x4 };
        let eval = EvalOp { shape, ..self.eval_op(op, Type::V128, Type::V128) };
        self.check_lanes(eval, f, x, [Some(xa), Some(xb), None]);
        self.def_pair(step.d, x);
    }

    /// Examines the lanes of the result `x`.
    fn check_lanes(&mut self, eval: EvalOp, f: Format, x: Xmm, args: [Option<Xmm>; 3]) {
        if self.exact_host() {
            return;
        }
        const EQ: u8 = 0;
        const UNORDERED: u8 = 3;
        self.asm.sse_rr(sse::MOVAPS, XMM0, x);
        self.asm.sse_rri(f.packed(CMP), XMM0, x, UNORDERED);
        if self.may_be_tiny(eval.op) {
            let (mask, least) = (self.literal(!f.signs()), self.literal(f.least_normal()));
            self.asm.sse_rm(sse::MOVAPS, XMM1, mask);
            self.asm.sse_rr(sse::ANDPS, XMM1, x);
            self.asm.sse_rmi(f.packed(CMP), XMM1, least, EQ);
            self.asm.sse_rr(sse::POR, XMM0, XMM1);
        }
        self.asm.sse_rx(f.packed(0x50), W::B32, RAX, XMM0);
        self.asm.test_rr(W::B32, RAX, RAX);
        let from = self.asm.jcc(Cc::Ne);
        self.doubt([Some(from), None], eval, args, To::Xmm(x));
    }
}
