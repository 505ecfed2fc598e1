//! MMX instructions (the manual, volume 1, chapter 9) with the 64-bit forms of SSE and SSSE3, and 3DNow! ([`d3now`]).
//!
//! mm0 to mm7 are the significands of the physical x87 registers. Every instruction but EMMS makes TOP zero and all
//! registers valid, and writing one sets its exponent to all ones. The work is done in the low half of vectors.
//!
//! [`convert`] has CVTPI2PS and kin.

pub mod convert;
pub mod d3now;

use crate::cpu::Vendor;
use crate::decode::{Row, Which};
use crate::helpers::{FIRST_MMX, helpers};
use crate::lifter::Lifter;
use crate::operand::Intent;
use crate::regs;
use crate::system::data_mmu;
use crate::x87::{self, stack::Stack};
use convert::mmx_convert;
use d3now::d3now_run;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use tulk_base::{GuestVa, MemOp, RmwOp, Trap};
use tulk_ir::Shape::{I8x16, I16x8, I32x4, I64x2};
use tulk_ir::{Access, HelperCx, IntCc, Slot, Type, Value};

macro_rules! codes {
    ($($code:ident => $lift:expr),* $(,)?) => {
        &[$(Row { which: Which::Code(Code::$code), lift: $lift, quiet: true }),*]
    };
}

/// The instructions of this chapter. Codes, since SSE has the same mnemonics.
pub const ROWS: &[Row] = codes! {
    Movd_mm_rm32 => to_mm, Movq_mm_rm64 => to_mm, Movq_mm_mmm64 => to_mm,
    Movd_rm32_mm => from_mm, Movq_rm64_mm => from_mm, Movq_mmm64_mm => from_mm, Movntq_m64_mm => from_mm,
    Movq2dq_xmm_mm => to_xmm, Movdq2q_mm_xmm => from_xmm,
    Maskmovq_rDI_mm_mm => masked_store, Emms => empty, Femms => empty,

    Cvtpi2ps_xmm_mmm64 => convert::from_integers, Cvtpi2pd_xmm_mmm64 => convert::from_integers,
    Cvtps2pi_mm_xmmm64 => convert::to_integers, Cvttps2pi_mm_xmmm64 => convert::to_integers,
    Cvtpd2pi_mm_xmmm128 => convert::to_integers, Cvttpd2pi_mm_xmmm128 => convert::to_integers,

    Paddb_mm_mmm64 => binary, Paddw_mm_mmm64 => binary, Paddd_mm_mmm64 => binary, Paddq_mm_mmm64 => binary,
    Psubb_mm_mmm64 => binary, Psubw_mm_mmm64 => binary, Psubd_mm_mmm64 => binary, Psubq_mm_mmm64 => binary,
    Paddsb_mm_mmm64 => binary, Paddsw_mm_mmm64 => binary, Paddusb_mm_mmm64 => binary, Paddusw_mm_mmm64 => binary,
    Psubsb_mm_mmm64 => binary, Psubsw_mm_mmm64 => binary, Psubusb_mm_mmm64 => binary, Psubusw_mm_mmm64 => binary,
    Pmullw_mm_mmm64 => binary, Pmulhw_mm_mmm64 => binary, Pmulhuw_mm_mmm64 => binary, Pmaddwd_mm_mmm64 => binary,
    Pmuludq_mm_mmm64 => binary, Psadbw_mm_mmm64 => binary,
    Pcmpeqb_mm_mmm64 => binary, Pcmpeqw_mm_mmm64 => binary, Pcmpeqd_mm_mmm64 => binary,
    Pcmpgtb_mm_mmm64 => binary, Pcmpgtw_mm_mmm64 => binary, Pcmpgtd_mm_mmm64 => binary,
    Pminub_mm_mmm64 => binary, Pmaxub_mm_mmm64 => binary, Pminsw_mm_mmm64 => binary, Pmaxsw_mm_mmm64 => binary,
    Pavgb_mm_mmm64 => binary, Pavgw_mm_mmm64 => binary,
    Pand_mm_mmm64 => binary, Pandn_mm_mmm64 => binary, Por_mm_mmm64 => binary, Pxor_mm_mmm64 => binary,
    Punpcklbw_mm_mmm32 => binary, Punpcklwd_mm_mmm32 => binary, Punpckldq_mm_mmm32 => binary,
    Punpckhbw_mm_mmm64 => binary, Punpckhwd_mm_mmm64 => binary, Punpckhdq_mm_mmm64 => binary,
    Packsswb_mm_mmm64 => binary, Packssdw_mm_mmm64 => binary, Packuswb_mm_mmm64 => binary,
    Psllw_mm_mmm64 => binary, Pslld_mm_mmm64 => binary, Psllq_mm_mmm64 => binary,
    Psrlw_mm_mmm64 => binary, Psrld_mm_mmm64 => binary, Psrlq_mm_mmm64 => binary,
    Psraw_mm_mmm64 => binary, Psrad_mm_mmm64 => binary,
    Psllw_mm_imm8 => binary, Pslld_mm_imm8 => binary, Psllq_mm_imm8 => binary,
    Psrlw_mm_imm8 => binary, Psrld_mm_imm8 => binary, Psrlq_mm_imm8 => binary,
    Psraw_mm_imm8 => binary, Psrad_mm_imm8 => binary,

    Pshufb_mm_mmm64 => binary, Phaddw_mm_mmm64 => binary, Phaddd_mm_mmm64 => binary, Phaddsw_mm_mmm64 => binary,
    Phsubw_mm_mmm64 => binary, Phsubd_mm_mmm64 => binary, Phsubsw_mm_mmm64 => binary,
    Pmaddubsw_mm_mmm64 => binary, Pmulhrsw_mm_mmm64 => binary,
    Psignb_mm_mmm64 => binary, Psignw_mm_mmm64 => binary, Psignd_mm_mmm64 => binary,
    Pabsb_mm_mmm64 => binary, Pabsw_mm_mmm64 => binary, Pabsd_mm_mmm64 => binary,

    Palignr_mm_mmm64_imm8 => align_right, Pshufw_mm_mmm64_imm8 => shuffle,
    Pinsrw_mm_r32m16_imm8 => insert, Pinsrw_mm_r64m16_imm8 => insert,
    Pextrw_r32_mm_imm8 => extract, Pextrw_r64_mm_imm8 => extract,
    Pmovmskb_r32_mm => sign_mask, Pmovmskb_r64_mm => sign_mask,

    D3NOW_Pavgusb_mm_mmm64 => binary, D3NOW_Pswapd_mm_mmm64 => binary, D3NOW_Pmulhrw_mm_mmm64 => binary,
    D3NOW_Pi2fw_mm_mmm64 => d3now::lift, D3NOW_Pi2fd_mm_mmm64 => d3now::lift,
    D3NOW_Pf2iw_mm_mmm64 => d3now::lift, D3NOW_Pf2id_mm_mmm64 => d3now::lift,
    D3NOW_Pfnacc_mm_mmm64 => d3now::lift, D3NOW_Pfpnacc_mm_mmm64 => d3now::lift, D3NOW_Pfacc_mm_mmm64 => d3now::lift,
    D3NOW_Pfcmpge_mm_mmm64 => d3now::lift, D3NOW_Pfcmpgt_mm_mmm64 => d3now::lift,
    D3NOW_Pfcmpeq_mm_mmm64 => d3now::lift, D3NOW_Pfmin_mm_mmm64 => d3now::lift, D3NOW_Pfmax_mm_mmm64 => d3now::lift,
    D3NOW_Pfadd_mm_mmm64 => d3now::lift, D3NOW_Pfsub_mm_mmm64 => d3now::lift, D3NOW_Pfsubr_mm_mmm64 => d3now::lift,
    D3NOW_Pfmul_mm_mmm64 => d3now::lift, D3NOW_Pfrcp_mm_mmm64 => d3now::lift, D3NOW_Pfrsqrt_mm_mmm64 => d3now::lift,
    D3NOW_Pfrcpit1_mm_mmm64 => d3now::lift, D3NOW_Pfrcpit2_mm_mmm64 => d3now::lift,
    D3NOW_Pfrsqit1_mm_mmm64 => d3now::lift,
};

const MXCSR: &[Slot] = &[regs::MXCSR];

/// Number of an mm register.
fn number(r: Register) -> usize {
    debug_assert!(r.is_mm());
    r as usize - Register::MM0 as usize
}

/// Starts a store of an mm register: #MF if an exception is pending.
fn start_store(l: &mut Lifter<'_>) {
    x87::start(l);
    if l.cpu.chip().vendor == Vendor::Intel {
        // Their processors clear TOP also when the store faults.
        let stack = Stack { top: 0, ..l.stack };
        l.set_stack(stack);
    }
}

/// Makes the registers MMX registers; behind all that may fault.
pub fn enter(l: &mut Lifter<'_>) {
    l.set_stack(Stack { top: 0, tag: 0xff });
}

/// An mm register as I64.
pub fn get(l: &mut Lifter<'_>, r: Register) -> Value {
    l.get(regs::FPR_SIG[number(r)])
}

/// Writes an mm register, behind [`enter`].
pub fn set(l: &mut Lifter<'_>, r: Register, v: Value) {
    let n = number(r);
    l.set(regs::FPR_SIG[n], v);
    let ones = l.iconst(Type::I64, 0xffff);
    l.set(regs::FPR_EXP[n], ones);
}

/// An mm register or memory operand as I64; narrower memory is extended.
pub fn source(l: &mut Lifter<'_>, insn: &Instruction, n: u32) -> Value {
    match insn.op_kind(n) {
        OpKind::Register if insn.op_register(n).is_mm() => get(l, insn.op_register(n)),
        OpKind::Register => {
            let v = l.reg(insn.op_register(n));
            l.zext(Type::I64, v)
        }
        OpKind::Memory => {
            let bytes = insn.memory_size().size() as u32;
            let addr = l.address(insn, bytes, Intent::Read);
            l.load_as(Type::I64, addr, MemOp::of_log2(bytes.trailing_zeros() as u8))
        }
        _ => {
            let imm = insn.immediate(n) as i64;
            l.iconst(Type::I64, imm)
        }
    }
}

fn vector(l: &mut Lifter<'_>, v: Value) -> Value {
    l.vscalar(I64x2, v)
}

/// The two as one vector, `a` low.
fn joined(l: &mut Lifter<'_>, a: Value, b: Value) -> Value {
    let v = vector(l, a);
    l.vset_lane(I64x2, v, 1, b)
}

/// MOVD, MOVQ mm, src
fn to_mm(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let v = source(l, insn, 1);
    enter(l);
    set(l, insn.op0_register(), v);
}

/// MOVD, MOVQ, MOVNTQ dst, mm
fn from_mm(l: &mut Lifter<'_>, insn: &Instruction) {
    match insn.op0_kind() {
        OpKind::Memory => start_store(l),
        _ => x87::start(l),
    }
    let v = get(l, insn.op1_register());
    match insn.op0_kind() {
        OpKind::Register if insn.op0_register().is_mm() => {
            enter(l);
            return set(l, insn.op0_register(), v);
        }
        OpKind::Register => {
            let ty = l.operand_type(insn, 0);
            let v = l.trunc(ty, v);
            l.set_reg(insn.op0_register(), v);
        }
        _ => {
            let ty = Type::int_of_log2(insn.memory_size().size().trailing_zeros() as u8);
            let addr = l.address(insn, ty.bytes(), Intent::Write);
            let v = l.trunc(ty, v);
            l.store(addr, v);
        }
    }
    enter(l);
}

fn xmm(r: Register) -> usize {
    r as usize - Register::XMM0 as usize
}

/// MOVQ2DQ xmm, mm
fn to_xmm(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    enter(l);
    let v = get(l, insn.op1_register());
    let v = vector(l, v);
    l.set(regs::XMM[xmm(insn.op0_register())], v);
}

/// MOVDQ2Q mm, xmm
fn from_xmm(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    enter(l);
    let v = l.get(regs::XMM[xmm(insn.op1_register())]);
    let v = l.vlane(I64x2, v, 0);
    set(l, insn.op0_register(), v);
}

/// MASKMOVQ mm, mm: the bytes whose mask has the top bit, to DS:rDI
fn masked_store(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let (data, mask) = (get(l, insn.op1_register()), get(l, insn.op2_register()));
    let (offset, disp) = match insn.op0_kind() {
        OpKind::MemorySegRDI => (l.reg(Register::RDI), 0),
        OpKind::MemorySegEDI => (l.reg(Register::EDI), 0),
        _ => {
            let v = l.reg(Register::DI);
            (l.zext(Type::I32, v), 0)
        }
    };
    let seg = crate::operand::segment_number(insn.memory_segment());
    let addr = l.linear(seg, offset, disp, 8, Intent::Write);
    let va = l.flat(addr);
    let long = l.key.long() as i64;
    // These are MMX registers even if it faults, as on AMD's processors.
    enter(l);
    l.call(MASKED_STORE, &[va, data, mask], long);
}

/// EMMS, FEMMS
fn empty(l: &mut Lifter<'_>, _: &Instruction) {
    x87::start(l);
    l.set_stack(Stack { top: 0, tag: 0 });
}

/// op mm, src: all instructions of two operands
fn binary(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let b = source(l, insn, 1);
    let a = get(l, insn.op0_register());
    let v = combine(l, insn.mnemonic(), a, b);
    let v = if l.ty(v) == Type::V128 { l.vlane(I64x2, v, 0) } else { v };
    enter(l);
    set(l, insn.op0_register(), v);
}

/// Bytes of two vectors' low halves, alternating, in lanes of `bytes` bytes from byte `from` on.
fn interleaved(bytes: u8, from: u8) -> [u8; 16] {
    std::array::from_fn(|i| {
        let (lane, byte) = (i as u8 / bytes, i as u8 % bytes);
        (lane & 1) * 16 + ((from + lane / 2 * bytes + byte) & 15)
    })
}

/// Every other lane of `bytes` bytes, first those of the even or odd numbers.
fn every_other(bytes: u8, odd: bool) -> [u8; 16] {
    std::array::from_fn(|i| {
        let (lane, byte) = (i as u8 / bytes, i as u8 % bytes);
        ((2 * lane + odd as u8) * bytes + byte) & 15
    })
}

/// The two results of [`every_other`] on one vector.
fn even_and_odd(l: &mut Lifter<'_>, bytes: u8, v: Value) -> (Value, Value) {
    (l.vshuffle(v, v, every_other(bytes, false)), l.vshuffle(v, v, every_other(bytes, true)))
}

/// High halves of products of words; `rounded`: with 0x8000 added (PMULHRW).
fn multiply_high(l: &mut Lifter<'_>, a: Value, b: Value, signed: bool, rounded: bool) -> Value {
    let product = match signed {
        true => l.vmul_widen_lo_s(I16x8, a, b),
        false => l.vmul_widen_lo_u(I16x8, a, b),
    };
    let sum = if rounded {
        let half = l.vconst(0x8000 * 0x1_0000_0001_0000_0001_0000_0001);
        l.vadd(I32x4, product, half)
    } else {
        product
    };
    let high = l.vshr_u_i(I32x4, sum, 16);
    l.vnarrow(I32x4, high, high)
}

fn shifted(l: &mut Lifter<'_>, m: Mnemonic, a: Value, count: Value) -> Value {
    use Mnemonic::*;
    let shape = match m {
        Psllw | Psrlw | Psraw => I16x8,
        Pslld | Psrld | Psrad => I32x4,
        _ => I64x2,
    };
    let most = l.iconst(Type::I64, 64);
    let count = l.min_u(count, most);
    let lane = l.trunc(shape.lane_type(), count);
    let count = l.vsplat(shape, lane);
    let a = vector(l, a);
    match m {
        Psllw | Pslld | Psllq => l.vshl_v(shape, a, count),
        Psraw | Psrad => l.vshr_s_v(shape, a, count),
        _ => l.vshr_u_v(shape, a, count),
    }
}

/// The result, as I64 or in a vector's low half.
fn combine(l: &mut Lifter<'_>, m: Mnemonic, x: Value, y: Value) -> Value {
    use Mnemonic::*;
    // Those that need no vectors.
    match m {
        Paddq => return l.add(x, y),
        Psubq => return l.sub(x, y),
        Pand => return l.and(x, y),
        Pandn => return l.and_not(y, x),
        Por => return l.or(x, y),
        Pxor => return l.xor(x, y),
        Pmuludq => {
            let (a, b) = (l.bextract_u(x, 0, 32), l.bextract_u(y, 0, 32));
            return l.mul(a, b);
        }
        Punpckldq => return l.binsert(x, y, 32, 32),
        Punpckhdq => {
            let low = l.shr_u_imm(x, 32);
            let high = l.shr_u_imm(y, 32);
            return l.binsert(low, high, 32, 32);
        }
        Pswapd => return l.rotr_imm(y, 32),
        Psllw | Pslld | Psllq | Psrlw | Psrld | Psrlq | Psraw | Psrad => {
            return shifted(l, m, x, y);
        }
        Packsswb | Packssdw | Packuswb | Phaddw | Phaddd | Phaddsw | Phsubw | Phsubd | Phsubsw => {
            let v = joined(l, x, y);
            return match m {
                Packsswb => l.vnarrow_sat_s(I16x8, v, v),
                Packssdw => l.vnarrow_sat_s(I32x4, v, v),
                Packuswb => l.vnarrow_sat_su(I16x8, v, v),
                Phaddw => l.vadd_pairs(I16x8, v, v),
                Phaddd => l.vadd_pairs(I32x4, v, v),
                _ => {
                    let bytes = if m == Phsubd { 4 } else { 2 };
                    let (even, odd) = even_and_odd(l, bytes, v);
                    match m {
                        Phaddsw => l.vadd_sat_s(I16x8, even, odd),
                        Phsubsw => l.vsub_sat_s(I16x8, even, odd),
                        Phsubw => l.vsub(I16x8, even, odd),
                        _ => l.vsub(I32x4, even, odd),
                    }
                }
            };
        }
        _ => {}
    }
    let (a, b) = (vector(l, x), vector(l, y));
    match m {
        Paddb => l.vadd(I8x16, a, b),
        Paddw => l.vadd(I16x8, a, b),
        Paddd => l.vadd(I32x4, a, b),
        Psubb => l.vsub(I8x16, a, b),
        Psubw => l.vsub(I16x8, a, b),
        Psubd => l.vsub(I32x4, a, b),
        Paddsb => l.vadd_sat_s(I8x16, a, b),
        Paddsw => l.vadd_sat_s(I16x8, a, b),
        Paddusb => l.vadd_sat_u(I8x16, a, b),
        Paddusw => l.vadd_sat_u(I16x8, a, b),
        Psubsb => l.vsub_sat_s(I8x16, a, b),
        Psubsw => l.vsub_sat_s(I16x8, a, b),
        Psubusb => l.vsub_sat_u(I8x16, a, b),
        Psubusw => l.vsub_sat_u(I16x8, a, b),
        Pmullw => l.vmul(I16x8, a, b),
        Pmulhw => multiply_high(l, a, b, true, false),
        Pmulhuw => multiply_high(l, a, b, false, false),
        Pmulhrw => multiply_high(l, a, b, true, true),
        Pmulhrsw => {
            let product = l.vmul_widen_lo_s(I16x8, a, b);
            let v = l.vshr_s_i(I32x4, product, 14);
            let one = l.vconst(0x1_0000_0001_0000_0001_0000_0001);
            let v = l.vadd(I32x4, v, one);
            let v = l.vshr_u_i(I32x4, v, 1);
            l.vnarrow(I32x4, v, v)
        }
        Pmaddwd => l.vmadd_pairs_s(I16x8, a, b),
        Pmaddubsw => {
            let (a, b) = (l.vwiden_lo_u(I8x16, a), l.vwiden_lo_s(I8x16, b));
            let product = l.vmul(I16x8, a, b);
            let (even, odd) = even_and_odd(l, 2, product);
            l.vadd_sat_s(I16x8, even, odd)
        }
        Psadbw => {
            let (high, low) = (l.vmax_u(I8x16, a, b), l.vmin_u(I8x16, a, b));
            let differences = l.vsub(I8x16, high, low);
            let mut v = l.vwiden_lo_u(I8x16, differences);
            for _ in 0..3 {
                v = l.vadd_pairs(I16x8, v, v);
            }
            let sum = l.vlane(I16x8, v, 0);
            l.zext(Type::I64, sum)
        }
        Pcmpeqb => l.vicmp(IntCc::Eq, I8x16, a, b),
        Pcmpeqw => l.vicmp(IntCc::Eq, I16x8, a, b),
        Pcmpeqd => l.vicmp(IntCc::Eq, I32x4, a, b),
        Pcmpgtb => l.vicmp(IntCc::GtS, I8x16, a, b),
        Pcmpgtw => l.vicmp(IntCc::GtS, I16x8, a, b),
        Pcmpgtd => l.vicmp(IntCc::GtS, I32x4, a, b),
        Pminub => l.vmin_u(I8x16, a, b),
        Pmaxub => l.vmax_u(I8x16, a, b),
        Pminsw => l.vmin_s(I16x8, a, b),
        Pmaxsw => l.vmax_s(I16x8, a, b),
        Pavgb | Pavgusb => l.vavg_u(I8x16, a, b),
        Pavgw => l.vavg_u(I16x8, a, b),
        Punpcklbw => l.vshuffle(a, b, interleaved(1, 0)),
        Punpcklwd => l.vshuffle(a, b, interleaved(2, 0)),
        Punpckhbw => l.vshuffle(a, b, interleaved(1, 4)),
        Punpckhwd => l.vshuffle(a, b, interleaved(2, 4)),
        Pshufb => {
            let mask = l.vconst(0x8787_8787_8787_8787_8787_8787_8787_8787);
            let index = l.vand(b, mask);
            l.vswizzle(a, index)
        }
        Psignb | Psignw | Psignd => {
            let shape = match m {
                Psignb => I8x16,
                Psignw => I16x8,
                _ => I32x4,
            };
            let zero = l.vconst(0);
            let minus = l.vneg(shape, a);
            let negative = l.vicmp(IntCc::LtS, shape, b, zero);
            let v = l.vbitsel(negative, minus, a);
            let none = l.vicmp(IntCc::Eq, shape, b, zero);
            l.vand_not(v, none)
        }
        Pabsb => l.vabs(I8x16, b),
        Pabsw => l.vabs(I16x8, b),
        Pabsd => l.vabs(I32x4, b),
        _ => unreachable!("{m:?} is not of this chapter"),
    }
}

/// PALIGNR mm, src, imm8
fn align_right(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let b = source(l, insn, 1);
    let a = get(l, insn.op0_register());
    let v = joined(l, b, a);
    let zero = l.vconst(0);
    let by = insn.immediate8();
    let v = l.vshuffle(v, zero, std::array::from_fn(|i| (i as u8).saturating_add(by).min(31)));
    let v = l.vlane(I64x2, v, 0);
    enter(l);
    set(l, insn.op0_register(), v);
}

/// PSHUFW mm, src, imm8
fn shuffle(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let v = source(l, insn, 1);
    let v = vector(l, v);
    let order = insn.immediate8();
    let bytes = std::array::from_fn(|i| {
        let lane = order >> (i & 6) & 3;
        2 * lane + (i as u8 & 1)
    });
    let v = l.vshuffle(v, v, bytes);
    let v = l.vlane(I64x2, v, 0);
    enter(l);
    set(l, insn.op0_register(), v);
}

/// PINSRW mm, src, imm8
fn insert(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let v = match insn.op1_kind() {
        OpKind::Memory => {
            let addr = l.address(insn, 2, Intent::Read);
            l.load_as(Type::I64, addr, MemOp::U16)
        }
        _ => source(l, insn, 1),
    };
    let a = get(l, insn.op0_register());
    let v = l.binsert(a, v, 16 * (insn.immediate8() as u32 & 3), 16);
    enter(l);
    set(l, insn.op0_register(), v);
}

/// PEXTRW dst, mm, imm8
fn extract(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let v = get(l, insn.op1_register());
    let v = l.bextract_u(v, 16 * (insn.immediate8() as u32 & 3), 16);
    enter(l);
    l.set_reg(insn.op0_register().full_register(), v);
}

/// PMOVMSKB dst, mm
fn sign_mask(l: &mut Lifter<'_>, insn: &Instruction) {
    x87::start(l);
    let v = get(l, insn.op1_register());
    let v = vector(l, v);
    let bits = l.vsign_bits(I8x16, v);
    let bits = l.zext(Type::I64, bits);
    enter(l);
    l.set_reg(insn.op0_register().full_register(), bits);
}

fn mmx_masked_store(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (data, mask) = ((args[1] as u64).to_le_bytes(), (args[2] as u64).to_le_bytes());
    // All eight bytes fault, masked or not.
    let index = data_mmu(cx.state);
    let op = |op: MemOp| op.with_mmu(index);
    cx.env.rmw(GuestVa(args[0] as u64), op(MemOp::U64), RmwOp::Or, 0)?;
    for n in (0..8).filter(|&n| mask[n] & 0x80 != 0) {
        let va = (args[0] as u64).wrapping_add(n as u64);
        let va = if args[3] != 0 { va } else { va & 0xffff_ffff };
        cx.env.store(GuestVa(va), op(MemOp::U8), data[n] as u64)?;
    }
    Ok(0)
}

helpers! { FIRST_MMX;
    /// Linear address, bytes, mask; immediate: 64-bit addresses.
    MASKED_STORE = mmx_masked_store(I64, I64, I64) -> (), Access::None, Access::None, traps;
    /// See [`convert`]: the source; the immediate is the conversion.
    CONVERT = mmx_convert(V128) -> V128, Access::These(MXCSR), Access::These(MXCSR), traps;
    /// See [`d3now`]; the immediate is the operation.
    D3NOW = d3now_run(I64, I64) -> I64, Access::None, Access::None, pure;
}
