//! Floating-point arithmetic, comparison and rounding: manual volume 1, 10.4.1.2, 11.4.1.2, 12.3, 12.8.3 and 14.4.

use super::family;
use super::operand::{first, imm8, lanes};
use super::precise::{self, Op, shape_of, traps, traps_or_flushes};
use crate::Lifter;
use crate::cpu::Vendor;
use crate::decode::Row;
use crate::flags::{AF, CF, Kind, OF, PF, SF, ZF};
use crate::key;
use crate::lifter::Cond;
use iced_x86::Instruction;
use tulk_ir::Shape::{self, F32x4, I32x4, I64x2};
use tulk_ir::{FloatCc, MinKind, Round, Type, Value};

macro_rules! packed {
    ($op:ident $double:literal) => {
        |l, i| arithmetic(l, i, Op::$op, $double, false)
    };
}
macro_rules! scalar {
    ($op:ident $double:literal) => {
        |l, i| arithmetic(l, i, Op::$op, $double, true)
    };
}

pub const ROWS: &[Row] = family! {
    quiet {
        [Addps_xmm_xmmm128 | Vaddps] => packed!(Add false),
        [Addpd_xmm_xmmm128 | Vaddpd] => packed!(Add true),
        [Addss_xmm_xmmm32 | Vaddss] => scalar!(Add false),
        [Addsd_xmm_xmmm64 | Vaddsd] => scalar!(Add true),
        [Subps_xmm_xmmm128 | Vsubps] => packed!(Sub false),
        [Subpd_xmm_xmmm128 | Vsubpd] => packed!(Sub true),
        [Subss_xmm_xmmm32 | Vsubss] => scalar!(Sub false),
        [Subsd_xmm_xmmm64 | Vsubsd] => scalar!(Sub true),
        [Mulps_xmm_xmmm128 | Vmulps] => packed!(Mul false),
        [Mulpd_xmm_xmmm128 | Vmulpd] => packed!(Mul true),
        [Mulss_xmm_xmmm32 | Vmulss] => scalar!(Mul false),
        [Mulsd_xmm_xmmm64 | Vmulsd] => scalar!(Mul true),
        [Divps_xmm_xmmm128 | Vdivps] => packed!(Div false),
        [Divpd_xmm_xmmm128 | Vdivpd] => packed!(Div true),
        [Divss_xmm_xmmm32 | Vdivss] => scalar!(Div false),
        [Divsd_xmm_xmmm64 | Vdivsd] => scalar!(Div true),
        [Minps_xmm_xmmm128 | Vminps] => packed!(Min false),
        [Minpd_xmm_xmmm128 | Vminpd] => packed!(Min true),
        [Minss_xmm_xmmm32 | Vminss] => scalar!(Min false),
        [Minsd_xmm_xmmm64 | Vminsd] => scalar!(Min true),
        [Maxps_xmm_xmmm128 | Vmaxps] => packed!(Max false),
        [Maxpd_xmm_xmmm128 | Vmaxpd] => packed!(Max true),
        [Maxss_xmm_xmmm32 | Vmaxss] => scalar!(Max false),
        [Maxsd_xmm_xmmm64 | Vmaxsd] => scalar!(Max true),
        [Sqrtps_xmm_xmmm128 | Vsqrtps] => |l, i| square_root(l, i, false, false),
        [Sqrtpd_xmm_xmmm128 | Vsqrtpd] => |l, i| square_root(l, i, true, false),
        [Sqrtss_xmm_xmmm32 | Vsqrtss] => |l, i| square_root(l, i, false, true),
        [Sqrtsd_xmm_xmmm64 | Vsqrtsd] => |l, i| square_root(l, i, true, true),
        [Roundps_xmm_xmmm128_imm8 | Vroundps] => |l, i| round(l, i, false, false),
        [Roundpd_xmm_xmmm128_imm8 | Vroundpd] => |l, i| round(l, i, true, false),
        [Roundss_xmm_xmmm32_imm8 | Vroundss] => |l, i| round(l, i, false, true),
        [Roundsd_xmm_xmmm64_imm8 | Vroundsd] => |l, i| round(l, i, true, true),
        [Cmpps_xmm_xmmm128_imm8 | Vcmpps] => |l, i| compare(l, i, false, false),
        [Cmppd_xmm_xmmm128_imm8 | Vcmppd] => |l, i| compare(l, i, true, false),
        [Cmpss_xmm_xmmm32_imm8 | Vcmpss] => |l, i| compare(l, i, false, true),
        [Cmpsd_xmm_xmmm64_imm8 | Vcmpsd] => |l, i| compare(l, i, true, true),
        [Comiss_xmm_xmmm32 | Vcomiss] => |l, i| order(l, i, false, true),
        [Comisd_xmm_xmmm64 | Vcomisd] => |l, i| order(l, i, true, true),
        [Ucomiss_xmm_xmmm32 | Vucomiss] => |l, i| order(l, i, false, false),
        [Ucomisd_xmm_xmmm64 | Vucomisd] => |l, i| order(l, i, true, false),
        [Addsubps_xmm_xmmm128 | Vaddsubps] => |l, i| add_sub(l, i, false),
        [Addsubpd_xmm_xmmm128 | Vaddsubpd] => |l, i| add_sub(l, i, true),
        [Haddps_xmm_xmmm128 | Vhaddps] => |l, i| horizontal(l, i, Op::HorizontalAdd, false),
        [Haddpd_xmm_xmmm128 | Vhaddpd] => |l, i| horizontal(l, i, Op::HorizontalAdd, true),
        [Hsubps_xmm_xmmm128 | Vhsubps] => |l, i| horizontal(l, i, Op::HorizontalSub, false),
        [Hsubpd_xmm_xmmm128 | Vhsubpd] => |l, i| horizontal(l, i, Op::HorizontalSub, true),
        [Dpps_xmm_xmmm128_imm8 | Vdpps] => |l, i| dot_product(l, i, false),
        [Dppd_xmm_xmmm128_imm8 | Vdppd] => |l, i| dot_product(l, i, true),
    }
};

/// ADDPS and kin, MINPS and kin
fn arithmetic(l: &mut Lifter<'_>, insn: &Instruction, op: Op, double: bool, scalar: bool) {
    // Minima and maxima are flushed operands themselves.
    if traps(l) || matches!(op, Op::Min | Op::Max) && traps_or_flushes(l) {
        precise::call(l, insn, op, double, scalar, 0);
        return;
    }
    let shape = shape_of(double);
    let n = first(insn);
    if scalar {
        // Memory first: its fault comes before anything else.
        let b = l.scalar(insn, n + 1, shape);
        let a = l.scalar(insn, n, shape);
        let v = match op {
            Op::Add => l.fadd(a, b),
            Op::Sub => l.fsub(a, b),
            Op::Mul => l.fmul(a, b),
            Op::Div => l.fdiv(a, b),
            Op::Min => l.fmin(MinKind::Second, a, b),
            _ => l.fmax(MinKind::Second, a, b),
        };
        return l.put_low(insn, shape, v);
    }
    l.map2(insn, |l, a, b| match op {
        Op::Add => l.vfadd(shape, a, b),
        Op::Sub => l.vfsub(shape, a, b),
        Op::Mul => l.vfmul(shape, a, b),
        Op::Div => l.vfdiv(shape, a, b),
        Op::Min => l.vfmin(MinKind::Second, shape, a, b),
        _ => l.vfmax(MinKind::Second, shape, a, b),
    });
}

/// SQRTPS and kin
fn square_root(l: &mut Lifter<'_>, insn: &Instruction, double: bool, scalar: bool) {
    if traps(l) {
        precise::call(l, insn, Op::Sqrt, double, scalar, 0);
        return;
    }
    let shape = shape_of(double);
    if scalar {
        let a = l.scalar(insn, first(insn) + 1, shape);
        let v = l.fsqrt(a);
        return l.put_low(insn, shape, v);
    }
    l.map1(insn, |l, a| l.vfsqrt(shape, a));
}

/// ROUNDPS and kin
fn round(l: &mut Lifter<'_>, insn: &Instruction, double: bool, scalar: bool) {
    let imm = imm8(insn);
    if traps_or_flushes(l) {
        precise::call(l, insn, Op::Round, double, scalar, imm);
        return;
    }
    let shape = shape_of(double);
    let mode = match imm & 7 {
        0 => Round::Nearest,
        1 => Round::Down,
        2 => Round::Up,
        3 => Round::Zero,
        _ => Round::Current,
    };
    let exact = imm & 8 == 0;
    if scalar {
        let a = l.scalar(insn, first(insn) + 1, shape);
        let v = l.fround(mode, exact, a);
        return l.put_low(insn, shape, v);
    }
    l.map1(insn, |l, a| l.vfround(mode, exact, shape, a));
}

/// CMPPS and kin
fn compare(l: &mut Lifter<'_>, insn: &Instruction, double: bool, scalar: bool) {
    let imm = imm8(insn) & if first(insn) == 0 { 7 } else { 31 };
    let (table, signalling) = precise::PREDICATES[imm as usize];
    // Condition, and whether its opposite is wanted.
    let (cc, opposite) = match table {
        0b0010 => (FloatCc::Eq, false),
        0b0001 => (FloatCc::Lt, false),
        0b0011 => (FloatCc::Le, false),
        0b0100 => (FloatCc::Gt, false),
        0b0110 => (FloatCc::Ge, false),
        0b1000 => (FloatCc::Uno, false),
        0b0111 => (FloatCc::Ord, false),
        0b1101 => (FloatCc::Ne, false),
        0b1010 => (FloatCc::UEq, false),
        0b1001 => (FloatCc::ULt, false),
        0b1011 => (FloatCc::ULe, false),
        0b1100 => (FloatCc::UGt, false),
        0b1110 => (FloatCc::UGe, false),
        0b0101 => (FloatCc::UEq, true),
        // True and false still raise exceptions.
        _ => {
            precise::call(l, insn, Op::Compare, double, scalar, imm);
            return;
        }
    };
    if traps(l) {
        precise::call(l, insn, Op::Compare, double, scalar, imm);
        return;
    }
    let shape = shape_of(double);
    if scalar {
        let n = first(insn);
        let b = l.scalar(insn, n + 1, shape);
        let a = l.scalar(insn, n, shape);
        let holds = l.fcmp(cc, signalling, a, b);
        let holds = if opposite { l.xor_imm(holds, 1) } else { holds };
        let (ints, ty) = if double { (I64x2, Type::I64) } else { (I32x4, Type::I32) };
        let v = l.zext(ty, holds);
        let v = l.neg(v);
        return l.put_low(insn, ints, v);
    }
    l.map2(insn, |l, a, b| {
        let v = l.vfcmp(cc, signalling, shape, a, b);
        if opposite { l.vnot(v) } else { v }
    });
}

/// COMISS, UCOMISS and kin
fn order(l: &mut Lifter<'_>, insn: &Instruction, double: bool, signalling: bool) {
    if traps(l) {
        let flags = precise::call(l, insn, Op::Order, double, true, !signalling as u32);
        return l.set_packed_flags(flags);
    }
    let shape = shape_of(double);
    let b = l.scalar(insn, 1, shape);
    let a = l.scalar(insn, 0, shape);
    // For its exceptions; the flags are computed when they are read.
    let unordered = l.fcmp(FloatCc::Uno, signalling, a, b);
    if l.key.has(key::SSE_FLUSH) {
        // Or at once, because later the operands would not be flushed.
        let less = l.fcmp(FloatCc::ULt, false, a, b);
        let equal = l.fcmp(FloatCc::UEq, false, a, b);
        let clear = Cond::Const(false);
        return l.set_flag_bits(&[
            (CF, Cond::If(less)),
            (PF, Cond::If(unordered)),
            (AF, clear),
            (ZF, Cond::If(equal)),
            (SF, clear),
            (OF, clear),
        ]);
    }
    let (kind, ty) = if double { (Kind::Fcmp64, Type::I64) } else { (Kind::Fcmp32, Type::I32) };
    let (a, b) = (l.bitcast(ty, a), l.bitcast(ty, b));
    l.set_flags(kind, ty, a, b);
}

/// The vector with the sign of numbers (not NaNs) changed in the lanes that `signs` has a sign bit for.
pub fn negate_numbers(l: &mut Lifter<'_>, shape: Shape, v: Value, signs: Value) -> Value {
    let (ints, infinity) = match shape {
        F32x4 => (I32x4, 0xff00_0000u64 | 0xff00_0000 << 32),
        _ => (I64x2, 0xffe0_0000_0000_0000),
    };
    let infinity = l.vconst(infinity as u128 | (infinity as u128) << 64);
    let magnitude = l.vadd(ints, v, v);
    let nan = l.vicmp(tulk_ir::IntCc::GtU, ints, magnitude, infinity);
    let flip = l.vand_not(signs, nan);
    l.vxor(v, flip)
}

/// Sign bits of the lanes that `chosen` chooses.
pub fn sign_bits(double: bool, chosen: impl Fn(u32) -> bool) -> u128 {
    let bits = if double { 64 } else { 32 };
    (0..128 / bits).filter(|&n| chosen(n)).fold(0, |v, n| v | 1 << (n * bits + bits - 1))
}

/// ADDSUBPS, ADDSUBPD: even lanes are subtracted, odd ones added
fn add_sub(l: &mut Lifter<'_>, insn: &Instruction, double: bool) {
    if traps(l) {
        precise::call(l, insn, Op::AddSub, double, false, 0);
        return;
    }
    let shape = shape_of(double);
    l.map2(insn, |l, a, b| {
        let signs = l.vconst(sign_bits(double, |n| n % 2 == 0));
        let b = negate_numbers(l, shape, b, signs);
        l.vfadd(shape, a, b)
    });
}

/// HADDPS, HSUBPS and kin: adjacent lanes of the first source, then of the second
fn horizontal(l: &mut Lifter<'_>, insn: &Instruction, op: Op, double: bool) {
    if traps(l) {
        precise::call(l, insn, op, double, false, 0);
        return;
    }
    let shape = shape_of(double);
    let width = shape.lane_bits() as usize / 8;
    l.map2(insn, |l, a, b| {
        let even = l.vshuffle(a, b, lanes(width, |n| 2 * n));
        let odd = l.vshuffle(a, b, lanes(width, |n| 2 * n + 1));
        match op {
            Op::HorizontalAdd => l.vfadd(shape, even, odd),
            _ => l.vfsub(shape, even, odd),
        }
    });
}

/// DPPS, DPPD dst, src, imm8
fn dot_product(l: &mut Lifter<'_>, insn: &Instruction, double: bool) {
    let imm = imm8(insn);
    if traps(l) {
        precise::call(l, insn, Op::Dot, double, false, imm);
        return;
    }
    let intel = l.cpu.chip().vendor == Vendor::Intel;
    let shape = shape_of(double);
    let width = shape.lane_bits() as usize / 8;
    l.map2(insn, |l, a, b| {
        // Lanes that are not chosen are zero times zero, which raises nothing.
        let chosen = lanes(width, |n| if imm >> (4 + n) & 1 != 0 { n } else { 16 / width });
        let zero = l.vconst(0);
        let (a, b) = (l.vshuffle(a, zero, chosen), l.vshuffle(b, zero, chosen));
        let mut v = l.vfmul(shape, a, b);
        let mut step = 1;
        while step < 16 / width {
            let pair = |n| precise::dot_pair(intel, double, step, n);
            let low = l.vshuffle(v, v, lanes(width, |n| pair(n).0));
            let high = l.vshuffle(v, v, lanes(width, |n| pair(n).1));
            v = l.vfadd(shape, low, high);
            step *= 2;
        }
        l.vshuffle(v, zero, lanes(width, |n| if imm >> n & 1 != 0 { n } else { 16 / width }))
    });
}
