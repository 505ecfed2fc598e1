//! Writes a [`Unit`] instruction by instruction. Operand types are checked against the op table in debug builds.

use crate::helper::HelperDef;
use crate::layout::{RegLayout, Slot};
use crate::op::{Arg, Op, Res};
use crate::types::*;
use crate::unit::{ExitKind, Inst, Unit, Value};
use tulk_base::{MemOp, RmwOp};

/// A block that may be jumped to before it is placed with [`Builder::place`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(u32);

const UNPLACED: u32 = u32::MAX;

/// See the module. Call [`Builder::finish`] at the end.
pub struct Builder<'a> {
    pub unit: &'a mut Unit,
    layout: &'a RegLayout,
    helpers: &'a [HelperDef],
    /// First instruction of each label.
    labels: Vec<u32>,
    /// The current block has its ending instruction.
    ended: bool,
}

macro_rules! unary {
    ($($name:ident $op:ident),+ $(,)?) => { $(
        #[doc = concat!("[`Op::", stringify!($op), "`].")]
        pub fn $name(&mut self, a: Value) -> Value {
            let ty = self.ty(a);
            self.op1(Op::$op, ty, a)
        }
    )+ };
}
macro_rules! binary {
    ($($name:ident $op:ident),+ $(,)?) => { $(
        #[doc = concat!("[`Op::", stringify!($op), "`].")]
        pub fn $name(&mut self, a: Value, b: Value) -> Value {
            let ty = self.ty(a);
            self.op2(Op::$op, ty, a, b)
        }
    )+ };
}
macro_rules! to_type {
    ($($name:ident $op:ident),+ $(,)?) => { $(
        #[doc = concat!("[`Op::", stringify!($op), "`] to `ty`.")]
        pub fn $name(&mut self, ty: Type, a: Value) -> Value {
            self.op1(Op::$op, ty, a)
        }
    )+ };
}
macro_rules! shaped1 {
    ($($name:ident $op:ident),+ $(,)?) => { $(
        #[doc = concat!("[`Op::", stringify!($op), "`].")]
        pub fn $name(&mut self, shape: Shape, a: Value) -> Value {
            self.emit(Inst { shape, args: [a, Value::NONE, Value::NONE], ..Inst::new(Op::$op, Type::V128) })
        }
    )+ };
}
macro_rules! shaped2 {
    ($($name:ident $op:ident),+ $(,)?) => { $(
        #[doc = concat!("[`Op::", stringify!($op), "`].")]
        pub fn $name(&mut self, shape: Shape, a: Value, b: Value) -> Value {
            self.emit(Inst { shape, args: [a, b, Value::NONE], ..Inst::new(Op::$op, Type::V128) })
        }
    )+ };
}
macro_rules! shaped_imm {
    ($($name:ident $op:ident),+ $(,)?) => { $(
        #[doc = concat!("[`Op::", stringify!($op), "`] by `amount` bits.")]
        pub fn $name(&mut self, shape: Shape, a: Value, amount: u32) -> Value {
            self.emit(Inst { shape, args: [a, Value::NONE, Value::NONE], imm2: amount, ..Inst::new(Op::$op, Type::V128) })
        }
    )+ };
}

impl<'a> Builder<'a> {
    /// Starts writing into `unit`, which must be empty; block 0 is open.
    pub fn new(unit: &'a mut Unit, layout: &'a RegLayout, helpers: &'a [HelperDef]) -> Self {
        debug_assert!(unit.insts.is_empty() && unit.blocks.is_empty());
        unit.blocks.push(0);
        Builder { unit, layout, helpers, labels: vec![0], ended: false }
    }

    /// Type of a value.
    #[inline]
    pub fn ty(&self, v: Value) -> Type {
        self.unit.type_of(v)
    }

    /// True when the open block already has its ending instruction.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Appends an instruction, allocating its result value if the table says it has one.
    pub fn emit(&mut self, mut inst: Inst) -> Value {
        debug_assert!(!self.ended, "{:?} after the end of the block", inst.op);
        self.check(&inst);
        let info = inst.op.info();
        let ty = match info.result {
            Res::None => None,
            Res::Own => Some(inst.ty),
            Res::Bool => Some(Type::I8),
            Res::I32 => Some(Type::I32),
            Res::I64 => Some(Type::I64),
            Res::I128 => Some(Type::I128),
            Res::V128 => Some(Type::V128),
            Res::Helper => self.helpers[inst.imm2 as usize].ret,
        };
        if let Some(ty) = ty {
            inst.dst = Value(self.unit.values.len() as u16);
            assert!(!inst.dst.is_none(), "unit has too many values");
            self.unit.values.push(ty);
        }
        self.ended = info.effects & crate::op::effect::END != 0;
        self.unit.insts.push(inst);
        inst.dst
    }

    fn check(&self, inst: &Inst) {
        if !cfg!(debug_assertions) {
            return;
        }
        for (i, (&arg, kind)) in inst.args.iter().zip(inst.op.info().args).enumerate() {
            if arg.is_none() {
                debug_assert!(
                    matches!(kind, Arg::OptI64 | Arg::Helper),
                    "{:?}: operand {i} is missing",
                    inst.op
                );
                continue;
            }
            let ty = self.ty(arg);
            let good = match kind {
                Arg::Own => ty == inst.ty,
                Arg::Bool => ty == Type::I8,
                Arg::I32 => ty == Type::I32,
                Arg::I64 | Arg::OptI64 => ty == Type::I64,
                Arg::I128 => ty == Type::I128,
                Arg::V128 => ty == Type::V128,
                Arg::Lane => ty == inst.shape.lane_type(),
                Arg::Addr | Arg::Word32 => matches!(ty, Type::I32 | Type::I64),
                Arg::Narrower => ty.is_int() && ty.bits() < inst.ty.bits(),
                Arg::Wider => ty.is_int() && ty.bits() > inst.ty.bits(),
                Arg::Float => ty.is_float(),
                Arg::SameWidth => ty.bits() == inst.ty.bits(),
                Arg::Helper => self.helpers[inst.imm2 as usize].args.get(i) == Some(&ty),
            };
            debug_assert!(good, "{:?}.{}: operand {i} has type {ty}", inst.op, inst.ty);
        }
    }

    fn op1(&mut self, op: Op, ty: Type, a: Value) -> Value {
        self.emit(Inst { args: [a, Value::NONE, Value::NONE], ..Inst::new(op, ty) })
    }
    fn op2(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Value {
        self.emit(Inst { args: [a, b, Value::NONE], ..Inst::new(op, ty) })
    }
    fn op3(&mut self, op: Op, ty: Type, a: Value, b: Value, c: Value) -> Value {
        self.emit(Inst { args: [a, b, c], ..Inst::new(op, ty) })
    }

    // Constants and slots.

    /// The constant `value`, truncated to `ty`.
    pub fn iconst(&mut self, ty: Type, value: i64) -> Value {
        self.emit(Inst { imm: value, ..Inst::new(Op::Iconst, ty) })
    }
    /// A 128-bit constant.
    pub fn vconst(&mut self, value: u128) -> Value {
        let imm = self.pool(value);
        self.emit(Inst { imm, ..Inst::new(Op::Vconst, Type::V128) })
    }
    fn pool(&mut self, value: u128) -> i64 {
        let found = self.unit.pool.iter().position(|&c| c == value);
        found.unwrap_or_else(|| {
            self.unit.pool.push(value);
            self.unit.pool.len() - 1
        }) as i64
    }
    /// A new unit-local variable.
    pub fn local(&mut self, ty: Type) -> Slot {
        self.unit.locals.push(ty);
        Slot::local(self.unit.locals.len() as u16 - 1)
    }
    /// Type of a slot or local.
    pub fn slot_type(&self, slot: Slot) -> Type {
        match slot.as_local() {
            Some(n) => self.unit.locals[n as usize],
            None => self.layout.def(slot).ty,
        }
    }
    pub fn get(&mut self, slot: Slot) -> Value {
        let ty = self.slot_type(slot);
        self.emit(Inst { imm2: slot.0 as u32, ..Inst::new(Op::Get, ty) })
    }
    pub fn set(&mut self, slot: Slot, v: Value) {
        let ty = self.slot_type(slot);
        let args = [v, Value::NONE, Value::NONE];
        self.emit(Inst { imm2: slot.0 as u32, args, ..Inst::new(Op::Set, ty) });
    }
    /// The same bits as `ty`; `a` itself when it has that type already.
    pub fn bitcast(&mut self, ty: Type, a: Value) -> Value {
        if self.ty(a) == ty { a } else { self.op1(Op::Bitcast, ty, a) }
    }

    // Integers.

    unary!(neg Neg, abs Abs, not Not, clz Clz, ctz Ctz, popcnt Popcnt, bswap Bswap, bitrev Bitrev,
        parity_even ParityEven, logic_nzcv LogicNzcv);
    binary!(add Add, sub Sub, mul Mul, mulh_u MulhU, mulh_s MulhS, div_u DivU, div_s DivS, rem_u RemU, rem_s RemS,
        min_u MinU, min_s MinS, max_u MaxU, max_s MaxS, and And, or Or, xor Xor, and_not AndNot, or_not OrNot,
        xor_not XorNot, shl Shl, shr_u ShrU, shr_s ShrS, rotl Rotl, rotr Rotr, add_nzcv AddNzcv, sub_nzcv SubNzcv);

    /// `a + imm`.
    pub fn add_imm(&mut self, a: Value, imm: i64) -> Value {
        if imm == 0 {
            return a;
        }
        let c = self.iconst(self.ty(a), imm);
        self.add(a, c)
    }
    pub fn and_imm(&mut self, a: Value, imm: i64) -> Value {
        let c = self.iconst(self.ty(a), imm);
        self.and(a, c)
    }
    pub fn or_imm(&mut self, a: Value, imm: i64) -> Value {
        let c = self.iconst(self.ty(a), imm);
        self.or(a, c)
    }
    pub fn xor_imm(&mut self, a: Value, imm: i64) -> Value {
        let c = self.iconst(self.ty(a), imm);
        self.xor(a, c)
    }
    pub fn shl_imm(&mut self, a: Value, amount: u32) -> Value {
        let c = self.iconst(self.ty(a), amount as i64);
        self.shl(a, c)
    }
    pub fn shr_u_imm(&mut self, a: Value, amount: u32) -> Value {
        let c = self.iconst(self.ty(a), amount as i64);
        self.shr_u(a, c)
    }
    pub fn shr_s_imm(&mut self, a: Value, amount: u32) -> Value {
        let c = self.iconst(self.ty(a), amount as i64);
        self.shr_s(a, c)
    }
    pub fn rotr_imm(&mut self, a: Value, amount: u32) -> Value {
        let c = self.iconst(self.ty(a), amount as i64);
        self.rotr(a, c)
    }
    pub fn add_carry(&mut self, a: Value, b: Value, carry: Value) -> Value {
        self.op3(Op::AddCarry, self.ty(a), a, b, carry)
    }
    pub fn carry_out(&mut self, a: Value, b: Value, carry: Value) -> Value {
        self.op3(Op::CarryOut, self.ty(a), a, b, carry)
    }
    pub fn adc_nzcv(&mut self, a: Value, b: Value, carry: Value) -> Value {
        self.op3(Op::AdcNzcv, self.ty(a), a, b, carry)
    }
    fn field(&mut self, op: Op, a: Value, b: Value, lsb: u32, width: u32) -> Value {
        let ty = self.ty(a);
        debug_assert!(width >= 1 && lsb + width <= ty.bits());
        self.emit(Inst { imm2: lsb | width << 8, args: [a, b, Value::NONE], ..Inst::new(op, ty) })
    }
    /// Bits `lsb .. lsb + width`, zero-extended; `width` at least 1.
    pub fn bextract_u(&mut self, a: Value, lsb: u32, width: u32) -> Value {
        self.field(Op::BextractU, a, Value::NONE, lsb, width)
    }
    /// Bits `lsb .. lsb + width`, sign-extended.
    pub fn bextract_s(&mut self, a: Value, lsb: u32, width: u32) -> Value {
        self.field(Op::BextractS, a, Value::NONE, lsb, width)
    }
    /// `a` with bits `lsb .. lsb + width` replaced by the low bits of `b`.
    pub fn binsert(&mut self, a: Value, b: Value, lsb: u32, width: u32) -> Value {
        self.field(Op::Binsert, a, b, lsb, width)
    }
    /// Zero-extended or truncated to `ty`, or itself.
    pub fn zext(&mut self, ty: Type, a: Value) -> Value {
        self.resize(Op::Zext, ty, a)
    }
    /// Sign-extended or truncated to `ty`, or itself.
    pub fn sext(&mut self, ty: Type, a: Value) -> Value {
        self.resize(Op::Sext, ty, a)
    }
    /// The low bits as `ty`, or itself.
    pub fn trunc(&mut self, ty: Type, a: Value) -> Value {
        debug_assert!(self.ty(a).bits() >= ty.bits());
        self.resize(Op::Zext, ty, a)
    }
    fn resize(&mut self, extend: Op, ty: Type, a: Value) -> Value {
        let from = self.ty(a);
        if from == ty {
            a
        } else if from.bits() < ty.bits() {
            self.op1(extend, ty, a)
        } else if from == Type::I128 {
            let low = self.op1(Op::Lo64, Type::I64, a);
            self.resize(extend, ty, low)
        } else {
            self.op1(Op::Trunc, ty, a)
        }
    }
    pub fn concat(&mut self, lo: Value, hi: Value) -> Value {
        self.op2(Op::Concat, Type::I64, lo, hi)
    }
    pub fn lo64(&mut self, a: Value) -> Value {
        self.op1(Op::Lo64, Type::I64, a)
    }
    pub fn hi64(&mut self, a: Value) -> Value {
        self.op1(Op::Hi64, Type::I64, a)
    }
    pub fn icmp(&mut self, cc: IntCc, a: Value, b: Value) -> Value {
        let args = [a, b, Value::NONE];
        self.emit(Inst { aux: cc as u8, args, ..Inst::new(Op::Icmp, self.ty(a)) })
    }
    pub fn icmp_imm(&mut self, cc: IntCc, a: Value, imm: i64) -> Value {
        let c = self.iconst(self.ty(a), imm);
        self.icmp(cc, a, c)
    }
    /// `cond ? a : b`.
    pub fn select(&mut self, cond: Value, a: Value, b: Value) -> Value {
        self.op3(Op::Select, self.ty(a), cond, a, b)
    }
    pub fn nzcv_test(&mut self, cond: NzcvCond, nzcv: Value) -> Value {
        let args = [nzcv, Value::NONE, Value::NONE];
        self.emit(Inst { aux: cond as u8, args, ..Inst::new(Op::NzcvTest, Type::I64) })
    }

    // Memory.

    /// Loads at `addr + offset`, extended to `ty`.
    pub fn load(&mut self, ty: Type, addr: Value, offset: i64, op: MemOp) -> Value {
        let args = [addr, Value::NONE, Value::NONE];
        self.emit(Inst { imm: offset, imm2: op.0 as u32, args, ..Inst::new(Op::Load, ty) })
    }
    pub fn store(&mut self, addr: Value, offset: i64, op: MemOp, value: Value) {
        let args = [addr, value, Value::NONE];
        let ty = self.ty(value);
        self.emit(Inst { imm: offset, imm2: op.0 as u32, args, ..Inst::new(Op::Store, ty) });
    }
    pub fn atomic_rmw(&mut self, rmw: RmwOp, op: MemOp, addr: Value, value: Value) -> Value {
        let args = [addr, value, Value::NONE];
        let ty = self.ty(value);
        self.emit(Inst { aux: rmw as u8, imm2: op.0 as u32, args, ..Inst::new(Op::AtomicRmw, ty) })
    }
    pub fn atomic_cas(&mut self, op: MemOp, addr: Value, expected: Value, new: Value) -> Value {
        let ty = self.ty(new);
        let args = [addr, expected, new];
        self.emit(Inst { imm2: op.0 as u32, args, ..Inst::new(Op::AtomicCas, ty) })
    }
    pub fn fence(&mut self, kind: FenceKind) {
        self.emit(Inst { aux: kind as u8, ..Inst::new(Op::Fence, Type::I64) });
    }

    // Floating point.

    unary!(fsqrt Fsqrt, fneg Fneg, fabs Fabs);
    binary!(fadd Fadd, fsub Fsub, fmul Fmul, fdiv Fdiv);
    to_type!(sto_f StoF, uto_f UtoF);

    /// `a * b + c`, rounded once.
    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.op3(Op::Fma, self.ty(a), a, b, c)
    }
    pub fn fmin(&mut self, kind: MinKind, a: Value, b: Value) -> Value {
        let args = [a, b, Value::NONE];
        self.emit(Inst { aux: kind as u8, args, ..Inst::new(Op::Fmin, self.ty(a)) })
    }
    pub fn fmax(&mut self, kind: MinKind, a: Value, b: Value) -> Value {
        let args = [a, b, Value::NONE];
        self.emit(Inst { aux: kind as u8, args, ..Inst::new(Op::Fmax, self.ty(a)) })
    }
    pub fn fcmp(&mut self, cc: FloatCc, signalling: bool, a: Value, b: Value) -> Value {
        let aux = cc as u8 | (signalling as u8) << 7;
        self.emit(Inst { aux, args: [a, b, Value::NONE], ..Inst::new(Op::Fcmp, self.ty(a)) })
    }
    pub fn fcmp_nzcv(&mut self, signalling: bool, a: Value, b: Value) -> Value {
        let aux = (signalling as u8) << 7;
        self.emit(Inst { aux, args: [a, b, Value::NONE], ..Inst::new(Op::FcmpNzcv, self.ty(a)) })
    }
    /// Rounds to integral; `exact` raises inexact when the value changes.
    pub fn fround(&mut self, round: Round, exact: bool, a: Value) -> Value {
        let aux = round as u8 | (exact as u8) << 7;
        self.emit(Inst {
            aux,
            args: [a, Value::NONE, Value::NONE],
            ..Inst::new(Op::Fround, self.ty(a))
        })
    }
    /// To a signed integer; out of range saturates, or gives the most negative number if `indefinite`.
    pub fn fto_s(&mut self, ty: Type, round: Round, indefinite: bool, a: Value) -> Value {
        let aux = round as u8 | (indefinite as u8) << 7;
        self.emit(Inst { aux, args: [a, Value::NONE, Value::NONE], ..Inst::new(Op::FtoS, ty) })
    }
    pub fn fto_u(&mut self, ty: Type, round: Round, a: Value) -> Value {
        let args = [a, Value::NONE, Value::NONE];
        self.emit(Inst { aux: round as u8, args, ..Inst::new(Op::FtoU, ty) })
    }
    pub fn fpromote(&mut self, a: Value) -> Value {
        self.op1(Op::Fpromote, Type::F64, a)
    }
    pub fn fdemote(&mut self, a: Value) -> Value {
        self.op1(Op::Fdemote, Type::F32, a)
    }

    // Vectors.

    shaped1!(vsplat Vsplat, vscalar Vscalar, vneg Vneg, vabs Vabs, vwiden_lo_s VwidenLoS, vwiden_lo_u VwidenLoU,
        vwiden_hi_s VwidenHiS, vwiden_hi_u VwidenHiU, vpopcnt Vpopcnt, vclz Vclz,
        vfsqrt Vfsqrt, vfneg Vfneg, vfabs Vfabs, vsto_f VstoF, vuto_f VutoF);
    shaped2!(vadd Vadd, vsub Vsub, vmul Vmul, vadd_sat_s VaddSatS, vadd_sat_u VaddSatU, vsub_sat_s VsubSatS,
        vsub_sat_u VsubSatU, vmin_s VminS, vmin_u VminU, vmax_s VmaxS, vmax_u VmaxU, vavg_u VavgU, vshl_v VshlV,
        vshr_u_v VshrUV, vshr_s_v VshrSV, vshl_by VshlBy, vshr_u_by VshrUBy, vshr_s_by VshrSBy, vnarrow Vnarrow, vnarrow_sat_s VnarrowSatS, vnarrow_sat_su VnarrowSatSU,
        vnarrow_sat_u VnarrowSatU, vmul_widen_lo_s VmulWidenLoS, vmul_widen_lo_u VmulWidenLoU,
        vmul_widen_hi_s VmulWidenHiS, vmul_widen_hi_u VmulWidenHiU, vadd_pairs VaddPairs,
        vmadd_pairs_s VmaddPairsS, vfadd Vfadd, vfsub Vfsub, vfmul Vfmul, vfdiv Vfdiv);
    shaped_imm!(vshl_i VshlI, vshr_u_i VshrUI, vshr_s_i VshrSI);
    unary!(vnot Vnot, vfpromote_lo VfpromoteLo, vfdemote_lo VfdemoteLo);
    binary!(vand Vand, vor Vor, vxor Vxor, vand_not VandNot, vswizzle Vswizzle);

    /// `(mask & a) | (!mask & b)`.
    pub fn vbitsel(&mut self, mask: Value, a: Value, b: Value) -> Value {
        self.op3(Op::Vbitsel, Type::V128, mask, a, b)
    }
    /// One lane as a scalar of the lane type.
    pub fn vlane(&mut self, shape: Shape, a: Value, lane: u32) -> Value {
        debug_assert!(lane < shape.lanes());
        let args = [a, Value::NONE, Value::NONE];
        self.emit(Inst { shape, imm2: lane, args, ..Inst::new(Op::Vlane, shape.lane_type()) })
    }
    /// `a` with one lane replaced.
    pub fn vset_lane(&mut self, shape: Shape, a: Value, lane: u32, scalar: Value) -> Value {
        debug_assert!(lane < shape.lanes());
        let args = [a, scalar, Value::NONE];
        self.emit(Inst { shape, imm2: lane, args, ..Inst::new(Op::VsetLane, Type::V128) })
    }
    /// Bytes picked from `a` (0 to 15) and `b` (16 to 31).
    pub fn vshuffle(&mut self, a: Value, b: Value, bytes: [u8; 16]) -> Value {
        let imm = self.pool(u128::from_le_bytes(bytes));
        self.emit(Inst { imm, args: [a, b, Value::NONE], ..Inst::new(Op::Vshuffle, Type::V128) })
    }
    pub fn vicmp(&mut self, cc: IntCc, shape: Shape, a: Value, b: Value) -> Value {
        let args = [a, b, Value::NONE];
        self.emit(Inst { aux: cc as u8, shape, args, ..Inst::new(Op::Vicmp, Type::V128) })
    }
    pub fn vany_true(&mut self, a: Value) -> Value {
        self.op1(Op::VanyTrue, Type::I64, a)
    }
    /// [`Op::VsignBits`].
    pub fn vsign_bits(&mut self, shape: Shape, a: Value) -> Value {
        let args = [a, Value::NONE, Value::NONE];
        self.emit(Inst { shape, args, ..Inst::new(Op::VsignBits, Type::I64) })
    }
    pub fn vfma(&mut self, shape: Shape, a: Value, b: Value, c: Value) -> Value {
        self.emit(Inst { shape, args: [a, b, c], ..Inst::new(Op::Vfma, Type::V128) })
    }
    pub fn vfmin(&mut self, kind: MinKind, shape: Shape, a: Value, b: Value) -> Value {
        let args = [a, b, Value::NONE];
        self.emit(Inst { aux: kind as u8, shape, args, ..Inst::new(Op::Vfmin, Type::V128) })
    }
    pub fn vfmax(&mut self, kind: MinKind, shape: Shape, a: Value, b: Value) -> Value {
        let args = [a, b, Value::NONE];
        self.emit(Inst { aux: kind as u8, shape, args, ..Inst::new(Op::Vfmax, Type::V128) })
    }
    pub fn vfcmp(
        &mut self,
        cc: FloatCc,
        signalling: bool,
        shape: Shape,
        a: Value,
        b: Value,
    ) -> Value {
        let aux = cc as u8 | (signalling as u8) << 7;
        let args = [a, b, Value::NONE];
        self.emit(Inst { aux, shape, args, ..Inst::new(Op::Vfcmp, Type::V128) })
    }
    pub fn vfround(&mut self, round: Round, exact: bool, shape: Shape, a: Value) -> Value {
        let aux = round as u8 | (exact as u8) << 7;
        let args = [a, Value::NONE, Value::NONE];
        self.emit(Inst { aux, shape, args, ..Inst::new(Op::Vfround, Type::V128) })
    }
    pub fn vfto_s(&mut self, shape: Shape, round: Round, indefinite: bool, a: Value) -> Value {
        let aux = round as u8 | (indefinite as u8) << 7;
        let args = [a, Value::NONE, Value::NONE];
        self.emit(Inst { aux, shape, args, ..Inst::new(Op::VftoS, Type::V128) })
    }
    pub fn vfto_u(&mut self, shape: Shape, round: Round, a: Value) -> Value {
        let args = [a, Value::NONE, Value::NONE];
        self.emit(Inst { aux: round as u8, shape, args, ..Inst::new(Op::VftoU, Type::V128) })
    }

    // Helpers and control.

    /// Calls helper number `helper` with up to three values and an immediate. The result is `Value::NONE`
    /// when the helper has none.
    pub fn call(&mut self, helper: u32, args: &[Value], imm: i64) -> Value {
        let mut all = [Value::NONE; 3];
        all[..args.len()].copy_from_slice(args);
        let ty = self.helpers[helper as usize].ret.unwrap_or(Type::I64);
        self.emit(Inst { imm, imm2: helper, args: all, ..Inst::new(Op::Call, ty) })
    }
    /// The current guest instruction has done nothing, so far, that cannot be repeated. Behind one that has, a lifter
    /// must forget what it remembers of slots: there the interpreter may take over.
    pub fn repeatable(&self) -> bool {
        let mut own = self.unit.insts.iter().rev().take_while(|inst| inst.op != Op::Insn);
        own.all(|inst| inst.repeatable(self.helpers))
    }
    /// Starts the guest instruction at `pc`.
    pub fn insn(&mut self, pc: u64, len: u32) {
        self.unit.guest_insns += 1;
        self.emit(Inst { imm: pc as i64, imm2: len, ..Inst::new(Op::Insn, Type::I64) });
    }
    /// The guest instruction that has just been started replaces all slots of [`crate::RegLayout::overwrite`] before it reads
    /// them, and cannot fault: a region need not store them for it.
    pub fn overwriting(&mut self) {
        if let Some(inst) = self.unit.insts.last_mut().filter(|inst| inst.op == Op::Insn) {
            inst.aux = 0x80;
        }
    }
    /// A label for a block to be placed later.
    pub fn label(&mut self) -> Label {
        self.labels.push(UNPLACED);
        Label(self.labels.len() as u32 - 1)
    }
    /// Opens the block of `label`; the block before must have ended, or jumps here.
    pub fn place(&mut self, label: Label) {
        if !self.ended {
            self.jump(label);
        }
        debug_assert!(self.labels[label.0 as usize] == UNPLACED);
        let start = self.unit.insts.len() as u32;
        self.labels[label.0 as usize] = start;
        self.unit.blocks.push(start);
        self.ended = false;
    }
    pub fn jump(&mut self, to: Label) {
        self.emit(Inst { imm2: to.0, ..Inst::new(Op::Jump, Type::I64) });
    }
    pub fn brif(&mut self, cond: Value, then: Label, otherwise: Label) {
        let args = [cond, Value::NONE, Value::NONE];
        let imm = otherwise.0 as i64;
        self.emit(Inst { imm2: then.0, imm, args, ..Inst::new(Op::Brif, Type::I64) });
    }
    /// Leaves to the constant `pc`.
    pub fn exit(&mut self, pc: u64) {
        self.exit_with_flags(ExitKind::Jump, pc, None, None);
    }
    /// Leaves to the constant `pc` as a call that returns to `ret`.
    pub fn exit_call(&mut self, pc: u64, ret: u64) {
        self.exit_with_flags(ExitKind::Call, pc, Some(ret), None);
    }
    /// Leaves to the constant `pc`. `ret` for calls; `flags` when the key flags change.
    pub fn exit_with_flags(
        &mut self,
        kind: ExitKind,
        pc: u64,
        ret: Option<u64>,
        flags: Option<u64>,
    ) {
        let [ret, flags] =
            [ret, flags].map(|c| c.map_or(Value::NONE, |c| self.iconst(Type::I64, c as i64)));
        self.emit(Inst {
            aux: kind as u8,
            imm: pc as i64,
            args: [ret, flags, Value::NONE],
            ..Inst::new(Op::ExitDirect, Type::I64)
        });
    }
    /// Leaves to a computed pc. `ret` for calls; `flags` when the key flags change.
    pub fn exit_indirect(
        &mut self,
        kind: ExitKind,
        pc: Value,
        ret: Option<u64>,
        flags: Option<Value>,
    ) {
        let ret = match ret {
            Some(ret) => self.iconst(Type::I64, ret as i64),
            None => Value::NONE,
        };
        self.emit(Inst {
            aux: kind as u8,
            args: [pc, ret, flags.unwrap_or(Value::NONE)],
            ..Inst::new(Op::ExitIndirect, Type::I64)
        });
    }
    /// Leaves with a trap; the pc cell becomes `pc`.
    pub fn trap(&mut self, kind: ExitKind, number: u32, pc: u64) {
        self.emit(Inst {
            aux: kind as u8,
            imm2: number,
            imm: pc as i64,
            ..Inst::new(Op::ExitTrap, Type::I64)
        });
    }

    /// Resolves labels to block numbers. Every used label must have been placed and the last block ended.
    ///
    /// # Panics
    /// When that does not hold, or a jump goes backwards.
    pub fn finish(self) {
        assert!(self.ended, "unit does not end in an exit");
        let blocks = &self.unit.blocks;
        let number = |label: u32, from: usize| -> u32 {
            let start = self.labels[label as usize];
            assert!(
                start != UNPLACED && start as usize > from,
                "label unplaced or behind the jump"
            );
            blocks.binary_search(&start).expect("placed label starts a block") as u32
        };
        for (i, inst) in self.unit.insts.iter_mut().enumerate() {
            match inst.op {
                Op::Jump => inst.imm2 = number(inst.imm2, i),
                Op::Brif => {
                    inst.imm2 = number(inst.imm2, i);
                    inst.imm = number(inst.imm as u32, i) as i64;
                }
                _ => {}
            }
        }
    }
}
