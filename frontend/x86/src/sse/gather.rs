//! Gathers: manual volume 1, 14.10. Elements come in order. One that faults leaves those before it in the destination
//! and their mask cleared, so that the instruction can be restarted; the mask is zero at the end.
//!
//! What a fault leaves of the rest: on processors of AMD what was there. On processors of Intel (measured on Sapphire
//! Rapids) the mask is already whole elements of ones and zeros, its upper half zero in the 128-bit forms
//! ([`Gather::extended`]), and in those the upper half of the destination is zero once an element has been read.

use super::FIRST_GATHER;
use super::family;
use crate::Lifter;
use crate::cpu::Vendor;
use crate::decode::Row;
use crate::helpers::helpers;
use crate::operand::{Addr, Intent, address_bits, segment_number};
use crate::regs::{self, cell};
use crate::system::data_mmu;
use iced_x86::Instruction;
use tulk_base::{GuestVa, MemOp, Trap};
use tulk_ir::{Access, HelperCx, Slot, Type};

pub const ROWS: &[Row] = family! {
    loud {
        [| Vpgatherdd Vgatherdps] => |l, i| gather(l, i, false, false),
        [| Vpgatherdq Vgatherdpd] => |l, i| gather(l, i, false, true),
        [| Vpgatherqd Vgatherqps] => |l, i| gather(l, i, true, false),
        [| Vpgatherqq Vgatherqpd] => |l, i| gather(l, i, true, true),
    }
};

helpers! { FIRST_GATHER;
    /// The whole instruction but its segment: base address, segment base, and in the immediate what [`Gather`] says.
    GATHER = gather_elements(I64, I64) -> (), Access::These(VECTORS), Access::These(VECTORS), traps;
}

const VECTORS: &[Slot] = &{
    let mut all = [regs::XMM[0]; 32];
    let mut n = 0;
    while n < 16 {
        all[n] = regs::XMM[n];
        all[16 + n] = regs::YMMH[n];
        n += 1;
    }
    all
};

/// The immediate.
#[derive(Clone, Copy)]
struct Gather {
    dst: usize,
    mask: usize,
    index: usize,
    /// log2 of the scale.
    scale: u32,
    elements: u32,
    /// Indices and data are quadwords.
    index64: bool,
    data64: bool,
    /// Offsets have 32 bits.
    short: bool,
    /// The 256-bit form: of the indices, the data, or both.
    wide: bool,
    /// A processor of Intel.
    intel: bool,
}

impl Gather {
    fn pack(self) -> i64 {
        self.dst as i64
            | (self.mask as i64) << 4
            | (self.index as i64) << 8
            | (self.scale as i64) << 12
            | (self.elements as i64) << 14
            | (self.index64 as i64) << 18
            | (self.data64 as i64) << 19
            | (self.short as i64) << 20
            | (self.wide as i64) << 21
            | (self.intel as i64) << 22
    }
    fn unpack(v: u64) -> Gather {
        Gather {
            dst: v as usize & 15,
            mask: (v >> 4) as usize & 15,
            index: (v >> 8) as usize & 15,
            scale: (v >> 12) as u32 & 3,
            elements: (v >> 14) as u32 & 15,
            index64: v >> 18 & 1 != 0,
            data64: v >> 19 & 1 != 0,
            short: v >> 20 & 1 != 0,
            wide: v >> 21 & 1 != 0,
            intel: v >> 22 & 1 != 0,
        }
    }
    /// Bits of an element.
    fn bits(self) -> u32 {
        if self.data64 { 64 } else { 32 }
    }
    /// The mask with the top bit of each element in all its bits; of 128-bit forms the lower half, and zero.
    fn extended(self, mask: [u128; 2]) -> [u128; 2] {
        let ones = u128::MAX >> (128 - self.bits());
        let tops = (u128::MAX / ones) << (self.bits() - 1);
        let spread = |half: u128| ((half & tops) >> (self.bits() - 1)) * ones;
        [spread(mask[0]), if self.wide { spread(mask[1]) } else { 0 }]
    }
}

/// VPGATHERDD and kin
fn gather(l: &mut Lifter<'_>, insn: &Instruction, index64: bool, data64: bool) {
    let [dst, mask, index] = [insn.op0_register(), insn.op2_register(), insn.memory_index()];
    if dst.number() == mask.number()
        || dst.number() == index.number()
        || mask.number() == index.number()
    {
        return l.undefined();
    }
    // As many as the wider side has.
    let of = |bytes: usize, wide: bool| bytes as u32 / if wide { 8 } else { 4 };
    let elements = of(dst.size(), data64).min(of(index.size(), index64));
    let short = address_bits(insn) != 64;
    let (base, displacement) = l.offset(insn);
    let base = l.add_imm(base, displacement);
    let base = l.zext(Type::I64, base);
    let seg = segment_number(insn.memory_segment());
    // The segment's base; checks of limits would have to be made for each element.
    let ty = if l.key.long() { Type::I64 } else { Type::I32 };
    let zero = l.iconst(ty, 0);
    let Addr { base: segment, offset } = l.linear(seg, zero, 0, 1, Intent::Read);
    let segment = l.add_imm(segment, offset);
    let segment = l.zext(Type::I64, segment);
    let call = Gather {
        dst: dst.number(),
        mask: mask.number(),
        index: index.number(),
        scale: insn.memory_index_scale().trailing_zeros(),
        elements,
        index64,
        data64,
        short,
        wide: dst.is_ymm() || index.is_ymm(),
        intel: l.cpu.chip().vendor == Vendor::Intel,
    };
    l.call(GATHER, &[base, segment], call.pack());
}

fn gather_elements(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let g = Gather::unpack(args[3] as u64);
    let (base, segment) = (args[0] as u64, args[1] as u64);
    let read = |cx: &HelperCx<'_>, r: usize| {
        [cx.state.get128(cell(regs::XMM[r])), cx.state.get128(cell(regs::YMMH[r]))]
    };
    let write = |cx: &mut HelperCx<'_>, r: usize, v: [u128; 2]| {
        cx.state.set128(cell(regs::XMM[r]), v[0]);
        cx.state.set128(cell(regs::YMMH[r]), v[1]);
    };
    let indices = read(cx, g.index);
    let bits = g.bits();
    let ones = u128::MAX >> (128 - bits);
    let at = |n: u32| ((n * bits / 128) as usize, n * bits % 128);
    let (mut dst, mut mask) = (read(cx, g.dst), read(cx, g.mask));
    if g.intel {
        mask = g.extended(mask);
    }
    for n in 0..g.elements {
        let (half, shift) = at(n);
        if mask[half] >> (shift + bits - 1) & 1 != 0 {
            let index = if g.index64 {
                (indices[n as usize / 2] >> (64 * (n % 2))) as u64
            } else {
                (indices[n as usize / 4] >> (32 * (n % 4))) as u32 as i32 as i64 as u64
            };
            let mut offset = base.wrapping_add(index << g.scale);
            if g.short {
                offset = offset as u32 as u64;
            }
            let va = segment.wrapping_add(offset);
            let va = if cx.state.get(cell(regs::SEG_ATTR[regs::CS])) as u32
                & crate::segment::attr::L
                != 0
            {
                va
            } else {
                va as u32 as u64
            };
            let op = if g.data64 { MemOp::U64 } else { MemOp::U32 };
            let op = op.with_mmu(data_mmu(cx.state));
            match cx.env.load(GuestVa(va), op) {
                Ok(v) => {
                    dst[half] = dst[half] & !(ones << shift) | (v as u128) << shift;
                    if g.intel && !g.wide {
                        dst[1] = 0;
                    }
                }
                Err(fault) => {
                    write(cx, g.dst, dst);
                    write(cx, g.mask, mask);
                    return Err(Trap::Mem(fault));
                }
            }
        }
        mask[half] &= !(ones << shift);
    }
    // Bits behind the last element are cleared.
    let used = g.elements * bits;
    dst[1] = if used > 128 { dst[1] } else { 0 };
    if used < 128 {
        dst[0] &= (1 << used) - 1;
    }
    write(cx, g.dst, dst);
    write(cx, g.mask, [0; 2]);
    Ok(0)
}
