//! Data transfer: manual volume 1, 10.4.1.1, 11.4.1.1 and 11.4.2, 12.3, 14.6 (masked moves).
//!
//! The address that a fault of a masked store names is the processors' own. MASKMOVDQU: on processors of AMD that of
//! the whole vector in the page of the first byte that is stored ([`named`]); those of Intel access the upper eight
//! bytes and then the lower ones, whatever the mask is, and each half for itself wraps at the address size.
//! VMASKMOVPS and kin: on processors of AMD that of the first element that faults; see [`MASKED_PROBE`] for those of
//! Intel. Those were measured on a Sapphire Rapids.

use super::FIRST_TRANSFER;
use super::family;
use super::operand::{Alignment, Vector, first};
use crate::Lifter;
use crate::cpu::Vendor;
use crate::decode::Row;
use crate::helpers::helpers;
use crate::operand::{Intent, segment_number};
use crate::system::data_mmu;
use iced_x86::{Instruction, OpKind, Register};
use tulk_base::{AccessKind, GuestVa, MemFault, MemOp, RmwOp, Trap};
use tulk_ir::{Access, HelperCx, Shape, Type};

pub const ROWS: &[Row] = family! {
    quiet {
        [Movaps_xmm_xmmm128 Movapd_xmm_xmmm128 Movdqa_xmm_xmmm128 Movaps_xmmm128_xmm Movapd_xmmm128_xmm
            Movdqa_xmmm128_xmm Movntps_m128_xmm Movntpd_m128_xmm Movntdq_m128_xmm Movntdqa_xmm_m128
            | Vmovaps Vmovapd Vmovdqa Vmovntps Vmovntpd Vmovntdq Vmovntdqa] => |l, i| move_whole(l, i, Alignment::Full),
        [Movups_xmm_xmmm128 Movupd_xmm_xmmm128 Movdqu_xmm_xmmm128 Movups_xmmm128_xmm Movupd_xmmm128_xmm
            Movdqu_xmmm128_xmm Lddqu_xmm_m128 | Vmovups Vmovupd Vmovdqu Vlddqu]
            => |l, i| move_whole(l, i, Alignment::Any),
        [Movss_xmm_xmmm32 Movss_xmmm32_xmm Movntss_m32_xmm | Vmovss] => |l, i| move_scalar(l, i, Shape::F32x4),
        [Movsd_xmm_xmmm64 Movsd_xmmm64_xmm Movntsd_m64_xmm | Vmovsd] => |l, i| move_scalar(l, i, Shape::F64x2),
        [Movd_xmm_rm32 Movd_rm32_xmm | Vmovd] => |l, i| move_integer(l, i, Shape::I32x4),
        [Movq_xmm_rm64 Movq_rm64_xmm Movq_xmm_xmmm64 Movq_xmmm64_xmm | Vmovq]
            => |l, i| move_integer(l, i, Shape::I64x2),
        [Movlps_xmm_m64 Movlpd_xmm_m64 Movlps_m64_xmm Movlpd_m64_xmm | Vmovlps Vmovlpd] => |l, i| move_half(l, i, 0),
        [Movhps_xmm_m64 Movhpd_xmm_m64 Movhps_m64_xmm Movhpd_m64_xmm | Vmovhps Vmovhpd] => |l, i| move_half(l, i, 1),
        [Movhlps_xmm_xmm | Vmovhlps] => |l, i| move_between(l, i, 1, 0),
        [Movlhps_xmm_xmm | Vmovlhps] => |l, i| move_between(l, i, 0, 1),
        [Movmskps_r32_xmm Movmskps_r64_xmm | Vmovmskps] => |l, i| sign_bits(l, i, Shape::I32x4),
        [Movmskpd_r32_xmm Movmskpd_r64_xmm | Vmovmskpd] => |l, i| sign_bits(l, i, Shape::I64x2),
        [Pmovmskb_r32_xmm Pmovmskb_r64_xmm | Vpmovmskb] => |l, i| sign_bits(l, i, Shape::I8x16),
        [| Vmaskmovps Vpmaskmovd] => |l, i| masked(l, i, 2),
        [| Vmaskmovpd Vpmaskmovq] => |l, i| masked(l, i, 3),
        [| Vbroadcastss Vpbroadcastd] => |l, i| broadcast(l, i, Shape::I32x4),
        [| Vbroadcastsd Vpbroadcastq] => |l, i| broadcast(l, i, Shape::I64x2),
        [| Vpbroadcastb] => |l, i| broadcast(l, i, Shape::I8x16),
        [| Vpbroadcastw] => |l, i| broadcast(l, i, Shape::I16x8),
        [| Vbroadcastf128 Vbroadcasti128] => broadcast128,
    }
    loud {
        [Maskmovdqu_rDI_xmm_xmm | Vmaskmovdqu] => maskmovdqu,
    }
};

helpers! { FIRST_TRANSFER;
    /// Faults unless the bytes at the address, as many as the immediate says, can be written.
    PROBE = probe(I64) -> (), Access::None, Access::None, traps;
    /// The lanes at the address for which the mask's lanes have their top bit set, zero for the others. The
    /// immediate is the lane size's log2.
    MASKED_LOAD = masked_load(I64, V128) -> V128, Access::None, Access::None, traps;
    /// Stores lanes of the third operand at the address by the second's top bits; with bit 8 of the immediate only
    /// faults where that would.
    MASKED_STORE = masked_store(I64, V128, V128) -> (), Access::None, Access::None, traps;
    /// Faults where processors of Intel do if a store at the address faults, of lanes that the halves of a mask choose
    /// by their top bits: at the first byte of the first one, then at the last byte of the last one. The immediate
    /// is the lane size's log2.
    MASKED_PROBE = masked_probe(I64, V128, V128) -> (), Access::None, Access::None, traps;
}

/// MOVAPS, MOVUPS and kin, streaming moves
fn move_whole(l: &mut Lifter<'_>, insn: &Instruction, alignment: Alignment) {
    let v = l.vector_aligned(insn, 1, alignment);
    match insn.op0_kind() {
        // The store forms clear the upper half of a register, too.
        OpKind::Register => l.put_vector(insn, v),
        _ => l.store_vector(insn, v, alignment),
    }
}

/// MOVSS, MOVSD: a load clears the rest of the register, a move between registers merges
fn move_scalar(l: &mut Lifter<'_>, insn: &Instruction, shape: Shape) {
    if insn.op0_kind() == OpKind::Memory {
        let v = l.xmm(insn.op1_register());
        let v = l.vlane(shape, v, 0);
        let addr = l.address(insn, shape.lane_bits() / 8, Intent::Write);
        return l.store(addr, v);
    }
    if insn.op1_kind() == OpKind::Memory {
        let v = l.scalar(insn, 1, shape);
        let v = l.vscalar(shape, v);
        return l.put_vector(insn, Vector::of(v));
    }
    let v = l.scalar(insn, first(insn) + 1, shape);
    l.put_low(insn, shape, v);
}

/// MOVD, MOVQ
fn move_integer(l: &mut Lifter<'_>, insn: &Instruction, shape: Shape) {
    let ty = shape.lane_type();
    let is_vector = |n| insn.op_kind(n) == OpKind::Register && insn.op_register(n).is_xmm();
    if is_vector(0) {
        let v = if is_vector(1) { l.scalar(insn, 1, shape) } else { l.operand(insn, 1, ty) };
        let v = l.vscalar(shape, v);
        return l.put_vector(insn, Vector::of(v));
    }
    let v = l.xmm(insn.op1_register());
    let v = l.vlane(shape, v, 0);
    let dst = l.place_of(insn, 0, Intent::Write);
    l.write(dst, v);
}

/// MOVLPS, MOVHPS and kin: half `half` and memory
fn move_half(l: &mut Lifter<'_>, insn: &Instruction, half: u32) {
    let shape = Shape::I64x2;
    let addr = |l: &mut Lifter<'_>, intent| l.address(insn, 8, intent);
    if insn.op0_kind() == OpKind::Memory {
        let v = l.xmm(insn.op1_register());
        let v = l.vlane(shape, v, half);
        let addr = addr(l, Intent::Write);
        return l.store(addr, v);
    }
    let addr = addr(l, Intent::Read);
    let v = l.load(Type::I64, addr);
    let a = l.xmm(insn.op_register(first(insn)));
    let merged = l.vset_lane(shape, a, half, v);
    l.put_vector(insn, Vector::of(merged));
}

/// MOVHLPS, MOVLHPS: half `from` of the second source to half `to` of the first
fn move_between(l: &mut Lifter<'_>, insn: &Instruction, from: usize, to: usize) {
    l.map2(insn, |l, a, b| {
        let bytes = super::operand::lanes(8, |n| if n == to { 2 + from } else { n });
        l.vshuffle(a, b, bytes)
    });
}

/// MOVMSKPS, PMOVMSKB and kin
fn sign_bits(l: &mut Lifter<'_>, insn: &Instruction, shape: Shape) {
    let v = l.vector_reg(insn.op1_register());
    let mut bits = l.vsign_bits(shape, v.lo);
    if let Some(hi) = v.hi {
        let hi = l.vsign_bits(shape, hi);
        let hi = l.shl_imm(hi, shape.lanes());
        bits = l.or(bits, hi);
    }
    let bits = l.zext(Type::I64, bits);
    l.set_reg(insn.op0_register().full_register(), bits);
}

/// VBROADCASTSS and kin, VPBROADCASTB and kin
fn broadcast(l: &mut Lifter<'_>, insn: &Instruction, shape: Shape) {
    let v = l.scalar(insn, 1, shape);
    let v = l.vsplat(shape, v);
    let hi = insn.op0_register().is_ymm().then_some(v);
    l.put_vector(insn, Vector { lo: v, hi });
}

/// VBROADCASTF128, VBROADCASTI128
fn broadcast128(l: &mut Lifter<'_>, insn: &Instruction) {
    let v = l.vector(insn, 1);
    l.put_vector(insn, Vector { lo: v.lo, hi: Some(v.lo) });
}

/// VMASKMOVPS, VPMASKMOVD and kin: lanes of `1 << log2` bytes
fn masked(l: &mut Lifter<'_>, insn: &Instruction, log2: i64) {
    let mask = l.vector_reg(insn.op1_register());
    let bytes = insn.memory_size().size() as u32;
    if insn.op0_kind() == OpKind::Register {
        let addr = l.address(insn, bytes, Intent::Read);
        let at = l.flat(addr);
        let lo = l.call(MASKED_LOAD, &[at, mask.lo], log2);
        let hi = mask.hi.map(|mask| {
            let at = l.flat(addr.plus(16));
            l.call(MASKED_LOAD, &[at, mask], log2)
        });
        return l.put_vector(insn, Vector { lo, hi });
    }
    let v = l.vector_reg(insn.op2_register());
    let addr = l.address(insn, bytes, Intent::Write);
    let at = l.flat(addr);
    let intel = l.cpu.chip().vendor == Vendor::Intel;
    if intel {
        let upper = mask.hi.unwrap_or_else(|| l.vconst(0));
        l.call(MASKED_PROBE, &[at, mask.lo, upper], log2);
    }
    let Some((mask_hi, hi)) = mask.hi.zip(v.hi) else {
        l.call(MASKED_STORE, &[at, mask.lo, v.lo], log2);
        return;
    };
    let at_hi = l.flat(addr.plus(16));
    if !intel {
        l.call(MASKED_STORE, &[at, mask.lo, v.lo], log2 | 1 << 8);
    }
    l.call(MASKED_STORE, &[at_hi, mask_hi, hi], log2);
    l.call(MASKED_STORE, &[at, mask.lo, v.lo], log2);
}

/// MASKMOVDQU src, mask
fn maskmovdqu(l: &mut Lifter<'_>, insn: &Instruction) {
    let offset = match insn.op0_kind() {
        OpKind::MemorySegRDI => l.reg(Register::RDI),
        OpKind::MemorySegEDI => l.reg(Register::EDI),
        _ => {
            let di = l.reg(Register::DI);
            l.zext(Type::I32, di)
        }
    };
    let seg = segment_number(insn.memory_segment());
    let (v, mask) = (l.xmm(insn.op1_register()), l.xmm(insn.op2_register()));
    if l.cpu.chip().vendor == Vendor::Intel {
        let mut upper = l.add_imm(offset, 8);
        if insn.op0_kind() == OpKind::MemorySegDI {
            upper = l.and_imm(upper, 0xffff);
        }
        let halves = [(1, upper), (0, offset)].map(|(half, offset)| {
            let addr = l.linear(seg, offset, 0, 8, Intent::Write);
            let at = l.flat(addr);
            l.call(PROBE, &[at], 8);
            (half, at)
        });
        for (half, at) in halves {
            let bytes = super::operand::lanes(8, |n| if n == 0 { half } else { 2 });
            let (mask, v) = (l.pick_bytes(mask, bytes), l.pick_bytes(v, bytes));
            l.call(MASKED_STORE, &[at, mask, v], 0);
        }
        return;
    }
    let addr = l.linear(seg, offset, 0, 16, Intent::Write);
    let at = l.flat(addr);
    l.call(MASKED_STORE, &[at, mask, v], 0);
}

const PAGE: u64 = 4096;

fn probe(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (first, last) = (args[0] as u64, (args[0] as u64).wrapping_add(args[3] as u64 - 1));
    for va in [first, last & !(PAGE - 1)] {
        let op = MemOp::U8.with_mmu(data_mmu(cx.state));
        cx.env.rmw(GuestVa(va), op, RmwOp::Or, 0)?;
    }
    Ok(0)
}

/// Whether each lane's top bit is set.
fn chosen(mask: u128, log2: u32) -> impl Iterator<Item = (u32, bool)> {
    let bits = 8u32 << log2;
    (0..128 / bits).map(move |n| (n, mask >> ((n + 1) * bits - 1) & 1 != 0))
}

/// Faults of MASKMOVDQU name the first byte of the whole vector in the page, whichever byte it was.
fn named(at: GuestVa, lane: GuestVa, log2: u32) -> impl Fn(MemFault) -> Trap {
    move |fault| match log2 {
        0 => Trap::Mem(MemFault { va: GuestVa(at.0.max(lane.0 & !(PAGE - 1))), ..fault }),
        _ => Trap::Mem(fault),
    }
}

fn masked_load(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let log2 = args[3] as u32;
    let mut v = 0;
    for (n, _) in chosen(args[1], log2).filter(|c| c.1) {
        let at = GuestVa(args[0] as u64);
        let va = at.wrapping_add((n << log2) as u64);
        let op = MemOp::of_log2(log2 as u8).with_mmu(data_mmu(cx.state));
        let lane = cx.env.load(va, op).map_err(named(at, va, log2))?;
        v |= (lane as u128) << (n * (8 << log2));
    }
    Ok(v)
}

/// See [`MASKED_PROBE`].
fn masked_probe(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (log2, at) = (args[3] as u32, GuestVa(args[0] as u64));
    let lower = chosen(args[1], log2);
    let upper = chosen(args[2], log2).map(|(n, is)| (n + (16 >> log2), is));
    let mut all = lower.chain(upper).filter(|c| c.1).map(|c| (c.0 as u64) << log2);
    let Some(first) = all.next() else { return Ok(0) };
    let last = all.last().unwrap_or(first) + (1 << log2) - 1;
    for offset in [first, last] {
        cx.env.rmw(at.wrapping_add(offset), MemOp::U8, RmwOp::Or, 0)?;
    }
    Ok(0)
}

fn masked_store(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (log2, only_probe) = (args[3] as u32 & 7, args[3] & 1 << 8 != 0);
    let at = GuestVa(args[0] as u64);
    let op = MemOp::of_log2(log2 as u8).with_mmu(data_mmu(cx.state));
    // MASKMOVDQU touches memory even if it stores nothing.
    if log2 == 0 && !chosen(args[1], log2).any(|c| c.1) {
        let as_write = |fault| Trap::Mem(MemFault { kind: AccessKind::Write, ..fault });
        cx.env.load(at, op).map_err(as_write)?;
    }
    // Within a page the first store decides.
    if only_probe || at.0 & (PAGE - 1) > PAGE - 16 {
        for (n, _) in chosen(args[1], log2).filter(|c| c.1) {
            let va = at.wrapping_add((n << log2) as u64);
            cx.env.rmw(va, op, RmwOp::Or, 0).map_err(named(at, va, log2))?;
        }
    }
    if !only_probe {
        for (n, _) in chosen(args[1], log2).filter(|c| c.1) {
            let lane = (args[2] >> (n * (8 << log2))) as u64;
            let va = at.wrapping_add((n << log2) as u64);
            cx.env.store(va, op, lane).map_err(named(at, va, log2))?;
        }
    }
    Ok(0)
}
