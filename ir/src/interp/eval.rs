//! What every pure operation means: neither memory, slots, calls nor control.
//!
//! This is the reference. The interpreter calls it for all but its common operations, and generated code for what has
//! no short host sequence.

use super::float::{self, Float};
use super::int::{self, Int, Word};
use super::vector::{self, Lane, Narrow, by_shape, pair, whole};
use crate::helper::FpEnv;
use crate::op::Op;
use crate::types::{FloatCc, FpRule, IntCc, MinKind, NzcvCond, Round, Shape, Type};
use crate::unit::{Inst, Unit};
use std::hint::black_box;

/// A pure operation with everything but its operands: the fields of [`crate::Inst`] that such operations use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EvalOp {
    pub op: Op,
    pub ty: Type,
    /// Type of the first operand (`ty` when there is none).
    pub src_ty: Type,
    pub aux: u8,
    pub shape: Shape,
    pub imm2: u16,
    /// The constant of `iconst`; 0 for the others.
    pub imm: i64,
    pub fp: FpRule,
    /// The constant that `imm` of a `vconst` or `vshuffle` names; 0 for the others.
    pub pool: u128,
}

impl EvalOp {
    /// Number of bits of [`EvalOp::head`].
    pub const HEAD_BITS: u32 = 48;

    /// The operation of an instruction of `unit`.
    ///
    /// # Panics
    /// When a constant is not in the unit's pool.
    pub fn of(inst: &Inst, unit: &Unit) -> EvalOp {
        let src = inst.args[0];
        EvalOp {
            op: inst.op,
            ty: inst.ty,
            src_ty: if src.is_none() { inst.ty } else { unit.type_of(src) },
            aux: inst.aux,
            shape: inst.shape,
            imm2: inst.imm2 as u16,
            imm: if inst.op == Op::Iconst { inst.imm } else { 0 },
            fp: unit.fp,
            pool: match inst.op {
                Op::Vconst | Op::Vshuffle => unit.pool[inst.imm as usize],
                _ => 0,
            },
        }
    }

    /// Everything but the constants, in [`EvalOp::HEAD_BITS`] bits.
    pub fn head(&self) -> u64 {
        self.op as u64
            | (self.ty as u64) << 8
            | (self.src_ty as u64) << 11
            | (self.shape as u64) << 14
            | (self.fp as u64) << 17
            | (self.aux as u64) << 19
            | (self.imm2 as u64) << 27
    }
    /// Inverse of [`EvalOp::head`]; ignores the bits above.
    #[inline]
    pub fn from_head(head: u64) -> EvalOp {
        EvalOp {
            op: Op::ALL[(head & 0xff) as usize],
            ty: Type::from_u8((head >> 8 & 7) as u8),
            src_ty: Type::from_u8((head >> 11 & 7) as u8),
            shape: Shape::from_u8((head >> 14 & 7) as u8),
            fp: FpRule::from_u8((head >> 17 & 3) as u8),
            aux: (head >> 19) as u8,
            imm2: (head >> 27) as u16,
            imm: 0,
            pool: 0,
        }
    }

    /// Packs into two words. Every operation but `vconst` comes back from [`EvalOp::from_words`] with the same
    /// meaning: the byte numbers of a shuffle lose the bits above the fifth, which do not count.
    pub fn to_words(&self) -> [u64; 2] {
        if self.op != Op::Vshuffle {
            return [self.head(), self.imm as u64];
        }
        let picks = self.pool.to_le_bytes();
        let packed = picks.iter().rev().fold(0u128, |acc, &p| acc << 5 | (p & 31) as u128);
        [self.head() | (packed >> 64 << Self::HEAD_BITS) as u64, packed as u64]
    }
    pub fn from_words(words: [u64; 2]) -> EvalOp {
        let op = EvalOp::from_head(words[0]);
        if op.op != Op::Vshuffle {
            return EvalOp { imm: words[1] as i64, ..op };
        }
        let packed = u128::from(words[0] >> Self::HEAD_BITS) << 64 | u128::from(words[1]);
        let picks = std::array::from_fn(|i| (packed >> (5 * i)) as u8 & 31);
        EvalOp { pool: u128::from_le_bytes(picks), ..op }
    }

    fn field(&self) -> (u32, u32) {
        (self.imm2 as u32 & 0xff, self.imm2 as u32 >> 8)
    }
    fn int_cc(&self) -> IntCc {
        IntCc::from_u8(self.aux)
    }
    fn float_cc(&self) -> FloatCc {
        FloatCc::from_u8(self.aux & 0x7f)
    }
    fn round(&self) -> Round {
        Round::from_u8(self.aux & 0x7f)
    }
    fn min_kind(&self) -> MinKind {
        MinKind::from_u8(self.aux)
    }
    fn aux_flag(&self) -> bool {
        self.aux & 0x80 != 0
    }
}

/// Runs `$e` with `$T` as the unsigned type of an integer type.
macro_rules! by_int {
    ($ty:expr, $T:ident, $e:expr) => {
        match $ty {
            Type::I128 => {
                type $T = u128;
                $e
            }
            other => by_word!(other, $T, $e),
        }
    };
}
/// The same for I8 to I64.
macro_rules! by_word {
    ($ty:expr, $T:ident, $e:expr) => {
        match $ty {
            Type::I8 => {
                type $T = u8;
                $e
            }
            Type::I16 => {
                type $T = u16;
                $e
            }
            Type::I32 => {
                type $T = u32;
                $e
            }
            Type::I64 => {
                type $T = u64;
                $e
            }
            other => unreachable!("{other} is not a word"),
        }
    };
}
/// Runs `$e` with `$F` as the host type of a float type.
macro_rules! by_float {
    ($ty:expr, $F:ident, $e:expr) => {
        match $ty {
            Type::F32 => {
                type $F = f32;
                $e
            }
            Type::F64 => {
                type $F = f64;
                $e
            }
            other => unreachable!("{other} is not a float type"),
        }
    };
}
/// The same by the lanes of a shape.
macro_rules! by_float_shape {
    ($shape:expr, $F:ident, $e:expr) => {
        match $shape {
            Shape::F32x4 | Shape::I32x4 => {
                type $F = f32;
                $e
            }
            Shape::F64x2 | Shape::I64x2 => {
                type $F = f64;
                $e
            }
            other => unreachable!("{other} has no float lanes"),
        }
    };
}

/// The low bits of `x` that belong to `ty`.
#[inline]
pub(super) fn truncate(x: u128, ty: Type) -> u128 {
    x & (u128::MAX >> (128 - ty.bits()))
}

/// The result of `op`, zero-extended to 128 bits. Only the low bits of each argument that belong to its type
/// count. Exception flags appear in the host's float unit or are raised through `fp`.
///
/// # Panics
/// When the operation is not pure.
pub fn eval(op: &EvalOp, args: [u128; 3], fp: &mut dyn FpEnv) -> u128 {
    let [a, b, c] = args;
    let (a64, b64) = (a as u64, b as u64);
    let carry = c & 1 != 0;
    let rule = op.fp;

    macro_rules! int1 {
        ($f:ident) => {
            by_int!(op.ty, T, T::of(a).$f().to())
        };
    }
    macro_rules! int2 {
        ($f:ident) => {
            by_int!(op.ty, T, Int::$f(T::of(a), T::of(b)).to())
        };
    }
    macro_rules! word1 {
        ($f:ident) => {
            by_word!(op.ty, T, Int::$f(T::of(a)).to())
        };
    }
    macro_rules! word2 {
        ($f:ident) => {
            by_word!(op.ty, T, T::of(a).$f(T::of(b)).to())
        };
    }
    macro_rules! float2 {
        ($f:ident) => {
            by_float!(op.ty, F, float::$f::<F>(a64, b64, rule, fp)) as u128
        };
    }
    // Operations that treat every lane alike.
    let lanewise = |f: &dyn Fn(&mut vector::Pair)| {
        let mut out = [0; 2];
        f(&mut out);
        whole(out)
    };
    let column = vector::column(op.shape);
    macro_rules! float_lanes2 {
        ($f:ident) => {
            by_float_shape!(op.shape, F, {
                let mut out = [0; 2];
                float::$f::<F>(&pair(a), &pair(b), &mut out, rule, fp);
                whole(out)
            })
        };
    }

    match op.op {
        Op::Iconst => truncate(op.imm as i128 as u128, op.ty),
        Op::Vconst => op.pool,
        Op::Bitcast => truncate(a, op.ty),

        Op::Add => int2!(add),
        Op::Sub => int2!(sub),
        Op::Mul => int2!(mul),
        Op::MulhU => word2!(mulh_u),
        Op::MulhS => word2!(mulh_s),
        Op::DivU => word2!(div_u),
        Op::DivS => word2!(div_s),
        Op::RemU => word2!(rem_u),
        Op::RemS => word2!(rem_s),
        Op::Neg => int1!(neg),
        Op::Abs => word1!(abs),
        Op::MinU => word2!(min_u),
        Op::MinS => word2!(min_s),
        Op::MaxU => word2!(max_u),
        Op::MaxS => word2!(max_s),
        Op::AddCarry => by_word!(op.ty, T, T::of(a).adc(T::of(b), carry).0.to()),
        Op::CarryOut => by_word!(op.ty, T, T::of(a).adc(T::of(b), carry).1 as u128),

        Op::Not => int1!(not),
        Op::And => int2!(and),
        Op::Or => int2!(or),
        Op::Xor => int2!(xor),
        Op::AndNot => int2!(and_not),
        Op::OrNot => int2!(or_not),
        Op::XorNot => int2!(xor_not),
        Op::Shl => int2!(shl),
        Op::ShrU => int2!(shr_u),
        Op::ShrS => int2!(shr_s),
        Op::Rotl => word2!(rotl),
        Op::Rotr => word2!(rotr),
        Op::Clz => word1!(clz),
        Op::Ctz => word1!(ctz),
        Op::Popcnt => word1!(popcnt),
        Op::Bswap => int1!(bswap),
        Op::Bitrev => word1!(bitrev),
        Op::BextractU => {
            let (lsb, width) = op.field();
            int::bextract_u(a64, lsb, width) as u128
        }
        Op::BextractS => {
            let (lsb, width) = op.field();
            truncate(int::bextract_s(a64, lsb, width) as u128, op.ty)
        }
        Op::Binsert => {
            let (lsb, width) = op.field();
            truncate(int::binsert(a64, b64, lsb, width) as u128, op.ty)
        }
        Op::ParityEven => (a as u8).count_ones() as u128 & 1 ^ 1,

        Op::Zext => truncate(a, op.src_ty),
        Op::Sext => truncate(by_int!(op.src_ty, T, T::of(a).sext128()), op.ty),
        Op::Trunc => truncate(a, op.ty),
        Op::Concat => a64 as u128 | (b64 as u128) << 64,
        Op::Lo64 => a64 as u128,
        Op::Hi64 => a >> 64,
        Op::Icmp => by_int!(op.ty, T, int::icmp(op.int_cc(), T::of(a), T::of(b))) as u128,
        Op::Select => truncate(if a as u8 != 0 { b } else { c }, op.ty),

        Op::AddNzcv => by_word!(op.ty, T, int::add_nzcv(T::of(a), T::of(b))) as u128,
        Op::SubNzcv => by_word!(op.ty, T, int::sub_nzcv(T::of(a), T::of(b))) as u128,
        Op::AdcNzcv => by_word!(op.ty, T, int::adc_nzcv(T::of(a), T::of(b), carry)) as u128,
        Op::LogicNzcv => by_word!(op.ty, T, int::logic_nzcv(T::of(a))) as u128,
        Op::FcmpNzcv => {
            by_float!(op.ty, F, float::cmp_nzcv::<F>(op.aux_flag(), a64, b64, fp)) as u128
        }
        Op::NzcvTest => int::nzcv_test(NzcvCond::from_u8(op.aux), a as u32) as u128,

        Op::Fadd => float2!(add),
        Op::Fsub => float2!(sub),
        Op::Fmul => float2!(mul),
        Op::Fdiv => float2!(div),
        Op::Fsqrt => by_float!(op.ty, F, float::sqrt::<F>(a64, rule, fp)) as u128,
        Op::Fma => by_float!(op.ty, F, float::fma::<F>(a64, b64, c as u64, rule, fp)) as u128,
        Op::Fneg => by_float!(op.ty, F, float::neg::<F>(a64)) as u128,
        Op::Fabs => by_float!(op.ty, F, float::abs::<F>(a64)) as u128,
        Op::Fmin | Op::Fmax => {
            let (max, kind) = (op.op == Op::Fmax, op.min_kind());
            by_float!(op.ty, F, float::min_max::<F>(max, kind, a64, b64, rule, fp)) as u128
        }
        Op::Fcmp => {
            let (cc, signalling) = (op.float_cc(), op.aux_flag());
            by_float!(op.ty, F, float::cmp::<F>(cc, signalling, a64, b64, fp)) as u128
        }
        Op::Fround => {
            let (mode, exact) = (op.round(), op.aux_flag());
            by_float!(op.ty, F, float::round::<F>(mode, exact, a64, rule, fp)) as u128
        }
        Op::FtoS | Op::FtoU => {
            let (bits, signed) = (op.ty.bits(), op.op == Op::FtoS);
            let (mode, indefinite) = (op.round(), op.aux_flag());
            by_float!(op.src_ty, F, {
                float::to_int::<F>(bits, signed, mode, indefinite, a64, rule, fp)
            }) as u128
        }
        Op::StoF => {
            let x = by_word!(op.src_ty, T, T::of(a).sext64()) as i64;
            by_float!(op.ty, F, float::from_signed::<F>(x)) as u128
        }
        Op::UtoF => {
            let x = by_word!(op.src_ty, T, T::of(a).to64());
            by_float!(op.ty, F, float::from_unsigned::<F>(x, rule, fp)) as u128
        }
        Op::Fpromote => float::promote(a64, rule, fp) as u128,
        Op::Fdemote => float::demote(a64, rule, fp) as u128,

        Op::Vsplat => by_shape!(op.shape, T, vector::vsplat::<T>(a)),
        Op::Vscalar => truncate(a, op.shape.lane_type()),
        Op::Vlane => vector::vlane(op.shape, a, op.imm2 as u32),
        Op::VsetLane => vector::vset_lane(op.shape, a, op.imm2 as u32, b),
        Op::Vshuffle => vector::vshuffle(a, b, op.pool),
        Op::Vswizzle => vector::vswizzle(a, b),

        Op::Vand => a & b,
        Op::Vor => a | b,
        Op::Vxor => a ^ b,
        Op::VandNot => a & !b,
        Op::Vnot => !a,
        Op::Vbitsel => a & b | !a & c,

        Op::Vadd
        | Op::Vsub
        | Op::Vmul
        | Op::VaddSatS
        | Op::VaddSatU
        | Op::VsubSatS
        | Op::VsubSatU
        | Op::VminS
        | Op::VminU
        | Op::VmaxS
        | Op::VmaxU
        | Op::VavgU
        | Op::VshlV
        | Op::VshrUV
        | Op::VshrSV => {
            let row = vector::binary_row(op.op).expect("in the table");
            lanewise(&|out| vector::BINARY[row][column](&pair(a), &pair(b), out))
        }
        Op::Vicmp => {
            lanewise(&|out| vector::COMPARE[op.aux as usize][column](&pair(a), &pair(b), out))
        }
        Op::Vneg | Op::Vabs | Op::Vpopcnt | Op::Vclz => {
            let row = vector::unary_row(op.op).expect("in the table");
            lanewise(&|out| vector::UNARY[row][column](&pair(a), out))
        }
        Op::VshlI | Op::VshrUI | Op::VshrSI => {
            let row = vector::shift_row(op.op).expect("in the table");
            lanewise(&|out| vector::SHIFT[row][column](&pair(a), op.imm2 as u32, out))
        }
        Op::VshlBy | Op::VshrUBy | Op::VshrSBy => {
            let by_immediate = match op.op {
                Op::VshlBy => Op::VshlI,
                Op::VshrUBy => Op::VshrUI,
                _ => Op::VshrSI,
            };
            let row = vector::shift_row(by_immediate).expect("in the table");
            let amount = b64.min(64) as u32;
            lanewise(&|out| vector::SHIFT[row][column](&pair(a), amount, out))
        }
        Op::VwidenLoS => vector::vwiden(op.shape, true, false, a),
        Op::VwidenLoU => vector::vwiden(op.shape, false, false, a),
        Op::VwidenHiS => vector::vwiden(op.shape, true, true, a),
        Op::VwidenHiU => vector::vwiden(op.shape, false, true, a),
        Op::Vnarrow => vector::vnarrow(op.shape, Narrow::Truncate, a, b),
        Op::VnarrowSatS => vector::vnarrow(op.shape, Narrow::SatS, a, b),
        Op::VnarrowSatSU => vector::vnarrow(op.shape, Narrow::SatSU, a, b),
        Op::VnarrowSatU => vector::vnarrow(op.shape, Narrow::SatU, a, b),
        Op::VmulWidenLoS => vector::vmul_widen(op.shape, true, false, a, b),
        Op::VmulWidenLoU => vector::vmul_widen(op.shape, false, false, a, b),
        Op::VmulWidenHiS => vector::vmul_widen(op.shape, true, true, a, b),
        Op::VmulWidenHiU => vector::vmul_widen(op.shape, false, true, a, b),
        Op::VaddPairs => by_shape!(op.shape, T, vector::vadd_pairs::<T>(a, b)),
        Op::VmaddPairsS => vector::vmadd_pairs_s(a, b),
        Op::VanyTrue => (a != 0) as u128,
        Op::VsignBits => by_shape!(op.shape, T, vector::vsign_bits::<T>(a)) as u128,

        Op::Vfadd => float_lanes2!(vadd),
        Op::Vfsub => float_lanes2!(vsub),
        Op::Vfmul => float_lanes2!(vmul),
        Op::Vfdiv => float_lanes2!(vdiv),
        Op::Vfsqrt => by_float_shape!(op.shape, F, {
            float::lanes1::<F>(a, |x| float::sqrt::<F>(x, rule, fp))
        }),
        Op::Vfma => by_float_shape!(op.shape, F, float::vfma::<F>(a, b, c, rule, fp)),
        Op::Vfneg => by_float_shape!(op.shape, F, float::vneg::<F>(a)),
        Op::Vfabs => by_float_shape!(op.shape, F, float::vabs::<F>(a)),
        Op::Vfmin | Op::Vfmax => {
            let (max, kind) = (op.op == Op::Vfmax, op.min_kind());
            by_float_shape!(op.shape, F, {
                float::lanes2::<F>(a, b, |x, y| float::min_max::<F>(max, kind, x, y, rule, fp))
            })
        }
        Op::Vfcmp => {
            let (cc, signalling) = (op.float_cc(), op.aux_flag());
            by_float_shape!(op.shape, F, float::vcmp::<F>(cc, signalling, a, b, fp))
        }
        Op::Vfround => {
            let (mode, exact) = (op.round(), op.aux_flag());
            by_float_shape!(op.shape, F, {
                float::lanes1::<F>(a, |x| float::round::<F>(mode, exact, x, rule, fp))
            })
        }
        Op::VftoS | Op::VftoU => {
            let (bits, signed) = (op.shape.lane_bits(), op.op == Op::VftoS);
            let (mode, indefinite) = (op.round(), op.aux_flag());
            by_float_shape!(op.shape, F, {
                float::lanes1::<F>(a, |x| {
                    float::to_int::<F>(bits, signed, mode, indefinite, x, rule, fp)
                })
            })
        }
        Op::VstoF => by_float_shape!(op.shape, F, {
            float::lanes1::<F>(a, |x| {
                float::from_signed::<F>(<F as Float>::Bits::of64(x).sext64() as i64)
            })
        }),
        Op::VutoF => by_float_shape!(op.shape, F, {
            float::lanes1::<F>(a, |x| float::from_unsigned::<F>(x, rule, fp))
        }),
        Op::VfpromoteLo => {
            let low = u32::split(a);
            u64::join(std::array::from_fn(|i| float::promote(black_box(low[i] as u64), rule, fp)))
        }
        Op::VfdemoteLo => {
            let [x, y] = u64::split(a).map(|x| float::demote(black_box(x), rule, fp));
            (x | y << 32) as u128
        }

        Op::Get
        | Op::Set
        | Op::Load
        | Op::Store
        | Op::AtomicRmw
        | Op::AtomicCas
        | Op::Fence
        | Op::Call
        | Op::Insn
        | Op::Jump
        | Op::Brif
        | Op::ExitDirect
        | Op::ExitIndirect
        | Op::ExitTrap => unreachable!("{:?} is not a pure operation", op.op),
    }
}
