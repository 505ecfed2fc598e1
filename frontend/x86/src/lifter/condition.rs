//! The arithmetic flags and conditions over them: see [`crate::flags`]. Part of [`Lifter`].

use super::{Cond, Flags, Lifter, UNKNOWN};
use crate::flags::{self, AF, CF, CcOp, Kind, OF, PF, SF, ZF};
use crate::regs;
use tulk_ir::{IntCc, Slot, Type, Value};

const SINGLE: [u32; 6] = [CF, PF, AF, ZF, SF, OF];

/// The condition's code that is CF.
const CARRY: u32 = 2;

/// Flags that a condition looks at.
fn needs(code: u32) -> &'static [u32] {
    match code >> 1 {
        0 => &[OF],
        1 => &[CF],
        2 => &[ZF],
        3 => &[CF, ZF],
        4 => &[SF],
        5 => &[PF],
        6 => &[SF, OF],
        _ => &[ZF, SF, OF],
    }
}

fn index(flag: u32) -> usize {
    SINGLE.iter().position(|&f| f == flag).expect("one flag")
}

impl Lifter<'_> {
    // Writing.

    /// All six flags follow from an operation; see [`crate::flags`] for what `dst` and `src` are. Operations that
    /// use no `src` pass `NONE`.
    pub fn set_flags(&mut self, kind: Kind, ty: Type, dst: Value, src: Value) {
        self.flags = UNKNOWN;
        if self.live == 0 {
            return;
        }
        let op = CcOp::new(kind, ty);
        if self.cc_op != Some(op.code()) {
            let code = self.builder.iconst(Type::I32, op.code() as i64);
            self.put(regs::CC_OP, code);
        }
        for (slot, v) in [(regs::CC_DST, dst), (regs::CC_SRC, src)] {
            if !v.is_none() {
                let wide = self.wide(v);
                if self.slots[slot.0 as usize] != wide {
                    self.put(slot, wide);
                }
            }
        }
        self.cc_op = Some(op.code());
        self.flags = Flags { op: Some(op), dst, src, ..UNKNOWN };
    }

    /// Flags of `a - b`, with the difference where it exists.
    pub fn set_flags_sub(&mut self, a: Value, b: Value, result: Value) {
        let ty = self.ty(a);
        self.set_flags(Kind::Sub, ty, a, b);
        self.flags.result = result;
    }
    /// Flags of a logical result.
    pub fn set_flags_logic(&mut self, result: Value) {
        let ty = self.ty(result);
        self.set_flags(Kind::Logic, ty, result, Value::NONE);
    }
    /// Flags of INC or DEC, which leave CF.
    pub fn set_flags_keeping_carry(&mut self, kind: Kind, result: Value) {
        let carry = match self.live & CF {
            0 => self.builder.iconst(Type::I8, 0),
            _ => self.flag(CF),
        };
        let ty = self.ty(result);
        self.set_flags(kind, ty, result, carry);
        if self.live & CF != 0 {
            self.flags.bits[0] = carry;
        }
    }
    /// As [`Lifter::set_flags`] if `cond` holds, else unchanged.
    pub fn set_flags_if(&mut self, cond: Value, kind: Kind, ty: Type, dst: Value, src: Value) {
        if self.live == 0 {
            self.flags = UNKNOWN;
            return;
        }
        let code = self.builder.iconst(Type::I32, CcOp::new(kind, ty).code() as i64);
        let (dst, src) = (self.wide(dst), self.wide(src));
        for (slot, new) in [(regs::CC_OP, code), (regs::CC_DST, dst), (regs::CC_SRC, src)] {
            let old = self.get(slot);
            let v = self.builder.select(cond, new, old);
            self.put(slot, v);
        }
        self.flags = UNKNOWN;
        self.cc_op = None;
    }

    /// Sets the given flags to truth values and leaves the others.
    pub fn set_flag_bits(&mut self, new: &[(u32, Cond)]) {
        let mask = new.iter().fold(0, |m, f| m | f.0);
        if self.live & mask == 0 {
            return;
        }
        let keep = self.live & !mask;
        let mut bits = self.flags.bits;
        let mut word = match keep {
            0 => None,
            _ => Some(self.packed_bits(keep)),
        };
        for &(flag, cond) in new {
            let part = match cond {
                Cond::Const(false) => None,
                Cond::Const(true) => Some(self.builder.iconst(Type::I64, flag as i64)),
                Cond::If(v) => {
                    bits[index(flag)] = v;
                    let wide = self.wide(v);
                    Some(self.builder.shl_imm(wide, flag.trailing_zeros()))
                }
            };
            if let Cond::Const(c) = cond {
                bits[index(flag)] = self.builder.iconst(Type::I8, c as i64);
            }
            word = match (word, part) {
                (Some(w), Some(p)) => Some(self.builder.or(w, p)),
                (w, p) => w.or(p),
            };
        }
        let word = word.unwrap_or_else(|| self.builder.iconst(Type::I64, 0));
        self.set_packed_flags(word);
        for (i, flag) in SINGLE.into_iter().enumerate() {
            if flag & (mask | keep) == 0 {
                bits[i] = Value::NONE;
            }
        }
        self.flags.bits = bits;
    }

    /// Sets CF; ZF stays, and the others, which the manual leaves undefined, stay where that costs nothing. Behind
    /// [`Lifter::settle_bit_test`].
    pub fn set_flags_bit_test(&mut self, carry: Value) {
        if let Some(op) = self.flags.op
            && self.live & ZF != 0
            && let Some(result) = self.flag_result(op)
        {
            return self.set_flags(Kind::ResCf, op.ty, result, carry);
        }
        let [op, result, others] = self.flags.settled;
        if !op.is_none() {
            let src = self.wide(carry);
            let src = self.builder.or(others, src);
            for (slot, v) in [(regs::CC_OP, op), (regs::CC_DST, result), (regs::CC_SRC, src)] {
                self.put(slot, v);
            }
            self.cc_op = None;
            self.flags = UNKNOWN;
            self.flags.bits[0] = carry;
            return;
        }
        self.set_flag_bits(&[(CF, Cond::If(carry))]);
    }

    /// Sets all six flags from an I64 that has them where EFLAGS does; its other bits are anything.
    pub fn set_packed_flags(&mut self, word: Value) {
        self.set_flags(Kind::Eflags, Type::I64, Value::NONE, word);
    }

    // Reading.

    fn flag_operand(&mut self, slot: Slot, ty: Type) -> Value {
        let wide = self.get(slot);
        let v = self.builder.trunc(ty, wide);
        if v != wide {
            self.remember_wide(v, wide);
        }
        v
    }
    fn flag_dst(&mut self, ty: Type) -> Value {
        if self.flags.dst.is_none() {
            self.flags.dst = self.flag_operand(regs::CC_DST, ty);
        }
        self.flags.dst
    }
    fn flag_src(&mut self, ty: Type) -> Value {
        if self.flags.src.is_none() {
            self.flags.src = self.flag_operand(regs::CC_SRC, ty);
        }
        self.flags.src
    }
    /// The result that ZF, SF and PF follow, if the operation has one.
    fn flag_result(&mut self, op: CcOp) -> Option<Value> {
        match op.kind {
            Kind::Eflags | Kind::Fcmp32 | Kind::Fcmp64 => None,
            Kind::Sub => {
                if self.flags.result.is_none() {
                    let (a, b) = (self.flag_dst(op.ty), self.flag_src(op.ty));
                    self.flags.result = self.builder.sub(a, b);
                }
                Some(self.flags.result)
            }
            _ => Some(self.flag_dst(op.ty)),
        }
    }

    /// All six flags as a packed I32.
    pub fn packed_flags(&mut self) -> Value {
        let op = match self.flags.op {
            Some(CcOp { kind: Kind::Eflags, .. }) => {
                let src = self.get(regs::CC_SRC);
                let word = self.builder.trunc(Type::I32, src);
                return self.builder.and_imm(word, flags::ALL as i64);
            }
            Some(op) => self.builder.iconst(Type::I32, op.code() as i64),
            None => self.get(regs::CC_OP),
        };
        let dst = self.get(regs::CC_DST);
        let src = self.get(regs::CC_SRC);
        self.call(flags::PACKED, &[op, dst, src], 0)
    }

    /// An I64 with these flags where EFLAGS has them and zero elsewhere.
    pub fn packed_bits(&mut self, mask: u32) -> Value {
        let inline = self.flags.op.is_some_and(|op| op.kind != Kind::Eflags);
        if !inline || mask.count_ones() > 2 {
            let all = self.packed_flags();
            let all = self.builder.zext(Type::I64, all);
            return self.builder.and_imm(all, mask as i64);
        }
        let mut word = None;
        for flag in SINGLE.into_iter().filter(|f| mask & f != 0) {
            let v = self.flag(flag);
            let wide = self.wide(v);
            let part = self.builder.shl_imm(wide, flag.trailing_zeros());
            word = Some(word.map_or(part, |w| self.builder.or(w, part)));
        }
        word.expect("some flag")
    }

    /// One flag as a truth value.
    pub fn flag(&mut self, flag: u32) -> Value {
        let i = index(flag);
        if self.flags.bits[i].is_none() {
            let v = match self.compute_flag(flag) {
                Cond::If(v) => v,
                Cond::Const(c) => self.builder.iconst(Type::I8, c as i64),
            };
            self.flags.bits[i] = v;
        }
        self.flags.bits[i]
    }

    /// Finds CF at the start of an instruction that needs it: most operations that leave it to be found, and
    /// above all INC and DEC in a loop, have it at hand, so no helper is called for them. Opens an IR block when
    /// the operation is unknown, so no value from before may be in use.
    pub fn settle_carry(&mut self) {
        if self.flags.op.is_some() || !self.flags.bits[0].is_none() {
            return;
        }
        let op = self.get(regs::CC_OP);
        let limit = Kind::Carries.first_code() as i64;
        let at_hand = self.builder.icmp_imm(IntCc::LtU, op, limit);
        let at_once = |lifter: &mut Self| {
            let src = lifter.get(regs::CC_SRC);
            let low = lifter.builder.trunc(Type::I8, src);
            lifter.builder.and_imm(low, 1)
        };
        let found = self.either(Type::I8, at_hand, at_once, |lifter| lifter.find_out(CARRY));
        self.flags.bits[0] = found;
    }

    /// Finds what the flags but CF become at the start of an instruction that sets CF, leaves ZF and may do anything with the
    /// others. Opens IR blocks when the operation is unknown, so no value from before may be in use.
    pub fn settle_bit_test(&mut self) {
        if self.flags.op.is_some() || self.live & ZF == 0 {
            return;
        }
        let op = self.get(regs::CC_OP);
        let number = self.builder.add_imm(op, -(Kind::Inc.first_code() as i64));
        let count = Kind::Fcmp32.first_code() - Kind::Inc.first_code();
        let has_result = self.builder.icmp_imm(IntCc::LtU, number, count as i64);
        let locals = [Type::I32, Type::I64, Type::I64].map(|ty| self.builder.local(ty));
        let (fast, slow, done) = (self.label(), self.label(), self.label());
        self.builder.brif(has_result, fast, slow);
        self.place(slow);
        let all = self.packed_flags();
        let all = self.builder.zext(Type::I64, all);
        let others = self.builder.and_imm(all, (flags::ALL & !CF) as i64);
        let op = self.builder.iconst(Type::I32, CcOp::new(Kind::Eflags, Type::I64).code() as i64);
        let zero = self.builder.iconst(Type::I64, 0);
        for (local, v) in locals.into_iter().zip([op, zero, others]) {
            self.builder.set(local, v);
        }
        self.builder.jump(done);
        self.place(fast);
        let (op, dst) = (self.get(regs::CC_OP), self.get(regs::CC_DST));
        let src = self.get(regs::CC_SRC);
        let difference = self.builder.icmp_imm(IntCc::GeU, op, Kind::Sub.first_code() as i64);
        let zero = self.builder.iconst(Type::I64, 0);
        let src = self.builder.select(difference, src, zero);
        let result = self.builder.sub(dst, src);
        // The type is that of the operation before.
        let shift = self.builder.and_imm(op, CcOp::SHIFT as i64);
        let op = self.builder.or_imm(shift, Kind::ResCf.first_code() as i64);
        for (local, v) in locals.into_iter().zip([op, result, zero]) {
            self.builder.set(local, v);
        }
        self.place(done);
        self.flags.settled = locals.map(|local| self.builder.get(local));
    }

    /// A value that one way has where `quick` holds and the other way elsewhere, each in an IR block of its own.
    fn either(
        &mut self,
        ty: Type,
        quick: Value,
        at_once: impl FnOnce(&mut Self) -> Value,
        slowly: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        let found = self.builder.local(ty);
        let (fast, slow, done) = (self.label(), self.label(), self.label());
        self.builder.brif(quick, fast, slow);
        self.place(slow);
        let v = slowly(self);
        self.builder.set(found, v);
        self.builder.jump(done);
        self.place(fast);
        let v = at_once(self);
        self.builder.set(found, v);
        self.place(done);
        self.builder.get(found)
    }

    /// [`Lifter::cond`] at the start of an instruction: where the operation is unknown, no helper is called for the commonest.
    /// Opens IR blocks then, so no value from before may be in use.
    pub fn cond_first(&mut self, code: u32) -> Cond {
        if self.flags.op.is_some() || self.has_bits(code) || matches!(code >> 1, 0 | 5) {
            return self.cond(code);
        }
        Cond::If(self.find_out(code))
    }

    /// A condition over the flags of an operation that another block did, except O and P: by comparing if that tells. Opens
    /// an IR block.
    fn find_out(&mut self, code: u32) -> Value {
        let first = match code >> 1 {
            1 => Kind::Add,
            // Zero and sign need only the result.
            2 | 4 => Kind::Inc,
            _ => Kind::Logic,
        };
        let first = first.first_code();
        let behind = Kind::Fcmp32.first_code();
        let op = self.get(regs::CC_OP);
        let number = self.builder.add_imm(op, -(first as i64));
        let compares = self.builder.icmp_imm(IntCc::LtU, number, (behind - first) as i64);
        self.either(Type::I8, compares, |lifter| lifter.compare(code), |lifter| lifter.ask(code))
    }

    /// The same by a comparison; CC_OP says which.
    fn compare(&mut self, code: u32) -> Value {
        use IntCc::*;
        let (op, a, src) = (self.get(regs::CC_OP), self.get(regs::CC_DST), self.get(regs::CC_SRC));
        // A sum is less than its addend where a difference's minuend is less than the subtrahend.
        let (from, first) = match code >> 1 {
            1 => {
                let codes = Kind::Sub.first_code() - Kind::Logic.first_code();
                (self.builder.add_imm(op, -(Kind::Logic.first_code() as i64)), codes)
            }
            _ => (op, Kind::Sub.first_code()),
        };
        let two = self.builder.icmp_imm(GeU, from, first as i64);
        let zero = self.builder.iconst(Type::I64, 0);
        let b = self.builder.select(two, src, zero);
        // The low bits of the code, which are what the shift looks at, move the type's sign to bit 63.
        let amount = self.wide(op);
        let (a, b) = (self.builder.shl(a, amount), self.builder.shl(b, amount));
        let cc = match code {
            2 => LtU,
            3 => GeU,
            4 => Eq,
            5 => Ne,
            6 => LeU,
            7 => GtU,
            8 | 12 => LtS,
            9 | 13 => GeS,
            14 => LeS,
            _ => GtS,
        };
        if code >> 1 == 4 {
            let difference = self.builder.sub(a, b);
            self.builder.icmp_imm(cc, difference, 0)
        } else {
            self.builder.icmp(cc, a, b)
        }
    }

    /// CF where it is a known constant, else as a truth value.
    pub fn carry(&mut self) -> Cond {
        match self.flags.op {
            Some(CcOp { kind: Kind::Logic, .. }) if self.flags.bits[0].is_none() => {
                Cond::Const(false)
            }
            _ => Cond::If(self.flag(CF)),
        }
    }

    fn compute_flag(&mut self, flag: u32) -> Cond {
        let Some(op) = self.flags.op else {
            let cc = match flag {
                CF => 2,
                PF => 10,
                ZF => 4,
                SF => 8,
                OF => 0,
                _ => {
                    let packed = self.packed_flags();
                    return self.bit(packed, 4);
                }
            };
            return Cond::If(self.ask(cc));
        };
        let ty = op.ty;
        match (op.kind, flag) {
            (Kind::Eflags, _) => {
                let word = self.get(regs::CC_SRC);
                self.bit(word, flag.trailing_zeros())
            }
            (Kind::Fcmp32 | Kind::Fcmp64, AF | SF | OF) => Cond::Const(false),
            (Kind::Fcmp32 | Kind::Fcmp64, _) => {
                use tulk_ir::FloatCc;
                let (a, b) = self.float_operands(op.kind);
                let cc = match flag {
                    CF => FloatCc::ULt,
                    ZF => FloatCc::UEq,
                    _ => FloatCc::Uno,
                };
                Cond::If(self.builder.fcmp(cc, false, a, b))
            }
            (_, ZF) if op.kind == Kind::Sub => {
                let (a, b) = (self.flag_dst(ty), self.flag_src(ty));
                Cond::If(self.builder.icmp(IntCc::Eq, a, b))
            }
            (_, ZF) => {
                let r = self.flag_result(op).expect("a result");
                Cond::If(self.builder.icmp_imm(IntCc::Eq, r, 0))
            }
            (_, SF) => {
                let r = self.flag_result(op).expect("a result");
                Cond::If(self.builder.icmp_imm(IntCc::LtS, r, 0))
            }
            (_, PF) => {
                let r = self.flag_result(op).expect("a result");
                Cond::If(self.builder.parity_even(r))
            }
            (Kind::Add, CF) => {
                let (r, b) = (self.flag_dst(ty), self.flag_src(ty));
                Cond::If(self.builder.icmp(IntCc::LtU, r, b))
            }
            (Kind::Sub, CF) => {
                let (a, b) = (self.flag_dst(ty), self.flag_src(ty));
                Cond::If(self.builder.icmp(IntCc::LtU, a, b))
            }
            (Kind::Add | Kind::Sub, AF) => {
                let (x, b) = (self.flag_dst(ty), self.flag_src(ty));
                let y = match op.kind {
                    Kind::Add => self.builder.sub(x, b),
                    _ => self.flag_result(op).expect("a result"),
                };
                let xy = self.builder.xor(x, y);
                let all = self.builder.xor(xy, b);
                self.bit(all, 4)
            }
            (Kind::Add, _) => {
                let (r, b) = (self.flag_dst(ty), self.flag_src(ty));
                let a = self.builder.sub(r, b);
                let ar = self.builder.xor(a, r);
                let br = self.builder.xor(b, r);
                let both = self.builder.and(ar, br);
                Cond::If(self.builder.icmp_imm(IntCc::LtS, both, 0))
            }
            (Kind::Sub, _) => {
                let (a, b) = (self.flag_dst(ty), self.flag_src(ty));
                let r = self.flag_result(op).expect("a result");
                let ab = self.builder.xor(a, b);
                let ar = self.builder.xor(a, r);
                let both = self.builder.and(ab, ar);
                Cond::If(self.builder.icmp_imm(IntCc::LtS, both, 0))
            }
            (Kind::Logic, _) => Cond::Const(false),
            (Kind::Carries, CF) => {
                let carries = self.flag_src(ty);
                Cond::If(self.builder.icmp_imm(IntCc::LtS, carries, 0))
            }
            (Kind::Carries, AF) => {
                let carries = self.flag_src(ty);
                self.bit(carries, 3)
            }
            (Kind::Carries, _) => {
                let carries = self.flag_src(ty);
                self.top_two_differ(carries)
            }
            (Kind::Inc | Kind::Dec | Kind::Shr | Kind::ResCf | Kind::Mul, CF) | (Kind::Mul, OF) => {
                let src = self.flag_src(ty);
                self.bit(src, 0)
            }
            (Kind::Inc | Kind::Dec, AF) => {
                let r = self.flag_dst(ty);
                let low = self.builder.and_imm(r, 15);
                let edge = if op.kind == Kind::Inc { 0 } else { 15 };
                Cond::If(self.builder.icmp_imm(IntCc::Eq, low, edge))
            }
            (Kind::Inc | Kind::Dec, _) => {
                let r = self.flag_dst(ty);
                let min = 1i64 << (ty.bits() - 1);
                let edge = if op.kind == Kind::Inc { min } else { min.wrapping_sub(1) };
                Cond::If(self.builder.icmp_imm(IntCc::Eq, r, edge))
            }
            (Kind::Shl, CF) => {
                let src = self.flag_src(ty);
                Cond::If(self.builder.icmp_imm(IntCc::LtS, src, 0))
            }
            (Kind::Shl, OF) => {
                let (r, src) = (self.flag_dst(ty), self.flag_src(ty));
                let x = self.builder.xor(r, src);
                Cond::If(self.builder.icmp_imm(IntCc::LtS, x, 0))
            }
            (Kind::Shr, OF) => {
                let r = self.flag_dst(ty);
                self.top_two_differ(r)
            }
            (Kind::Shl | Kind::Shr | Kind::ResCf | Kind::Mul, _) => Cond::Const(false),
        }
    }

    fn bit(&mut self, v: Value, n: u32) -> Cond {
        let field = self.builder.bextract_u(v, n, 1);
        Cond::If(self.builder.trunc(Type::I8, field))
    }
    fn top_two_differ(&mut self, v: Value) -> Cond {
        let doubled = self.builder.add(v, v);
        let x = self.builder.xor(v, doubled);
        Cond::If(self.builder.icmp_imm(IntCc::LtS, x, 0))
    }
    fn float_operands(&mut self, kind: Kind) -> (Value, Value) {
        let (int, float) = match kind {
            Kind::Fcmp32 => (Type::I32, Type::F32),
            _ => (Type::I64, Type::F64),
        };
        let (a, b) = (self.get(regs::CC_DST), self.get(regs::CC_SRC));
        let (a, b) = (self.builder.trunc(int, a), self.builder.trunc(int, b));
        (self.builder.bitcast(float, a), self.builder.bitcast(float, b))
    }
    /// Whether the flags that a condition needs are at hand as truth values.
    fn has_bits(&self, code: u32) -> bool {
        needs(code).iter().all(|&f| !self.flags.bits[index(f)].is_none())
    }
    /// The condition by a helper, from the slots.
    fn ask(&mut self, code: u32) -> Value {
        let op = self.get(regs::CC_OP);
        let dst = self.get(regs::CC_DST);
        let src = self.get(regs::CC_SRC);
        self.call(flags::CONDITION, &[op, dst, src], code as i64)
    }

    /// The condition `code` (the low four bits of Jcc's opcode) over the present flags.
    pub fn cond(&mut self, code: u32) -> Cond {
        if let Some(cond) = self.fused(code) {
            return cond;
        }
        if self.flags.op.is_none() && !self.has_bits(code) {
            return Cond::If(self.ask(code));
        }
        let value = match code >> 1 {
            3 => {
                let (c, z) = (self.flag(CF), self.flag(ZF));
                self.builder.or(c, z)
            }
            6 | 7 => {
                let (s, o) = (self.flag(SF), self.flag(OF));
                let l = self.builder.xor(s, o);
                if code >> 1 == 7 {
                    let z = self.flag(ZF);
                    self.builder.or(l, z)
                } else {
                    l
                }
            }
            _ => self.flag(needs(code)[0]),
        };
        Cond::If(if code & 1 == 0 { value } else { self.builder.xor_imm(value, 1) })
    }

    /// The condition as one comparison of the remembered operands, where there is one.
    fn fused(&mut self, code: u32) -> Option<Cond> {
        use IntCc::*;
        let op = self.flags.op?;
        if !matches!(op.kind, Kind::Sub | Kind::Fcmp32 | Kind::Fcmp64) {
            let r = self.flag_result(op)?;
            let cc = match (code, op.kind) {
                (4, _) => Eq,
                (5, _) => Ne,
                (8, _) => LtS,
                (9, _) => GeS,
                (12, Kind::Logic | Kind::ResCf) => LtS,
                (13, Kind::Logic | Kind::ResCf) => GeS,
                (14, Kind::Logic | Kind::ResCf) => LeS,
                (15, Kind::Logic | Kind::ResCf) => GtS,
                (6, Kind::Logic) => Eq,
                (7, Kind::Logic) => Ne,
                (0 | 2, Kind::Logic) | (0, Kind::ResCf) => return Some(Cond::Const(false)),
                (1 | 3, Kind::Logic) | (1, Kind::ResCf) => return Some(Cond::Const(true)),
                (3, Kind::Add) => {
                    let b = self.flag_src(op.ty);
                    return Some(Cond::If(self.builder.icmp(GeU, r, b)));
                }
                _ => return None,
            };
            return Some(Cond::If(self.builder.icmp_imm(cc, r, 0)));
        }
        if op.kind != Kind::Sub {
            use tulk_ir::FloatCc;
            let cc = match code {
                2 => FloatCc::ULt,
                3 => FloatCc::Ge,
                4 => FloatCc::UEq,
                5 => return None,
                6 => FloatCc::ULe,
                7 => FloatCc::Gt,
                10 => FloatCc::Uno,
                11 => FloatCc::Ord,
                _ => return None,
            };
            let (a, b) = self.float_operands(op.kind);
            return Some(Cond::If(self.builder.fcmp(cc, false, a, b)));
        }
        let cc = match code {
            2 => LtU,
            3 => GeU,
            4 => Eq,
            5 => Ne,
            6 => LeU,
            7 => GtU,
            12 => LtS,
            13 => GeS,
            14 => LeS,
            15 => GtS,
            8 | 9 => {
                let r = self.flag_result(op)?;
                let cc = if code == 8 { LtS } else { GeS };
                return Some(Cond::If(self.builder.icmp_imm(cc, r, 0)));
            }
            _ => return None,
        };
        let (a, b) = (self.flag_dst(op.ty), self.flag_src(op.ty));
        Some(Cond::If(self.builder.icmp(cc, a, b)))
    }

    /// A condition as a truth value.
    pub fn truth(&mut self, cond: Cond) -> Value {
        match cond {
            Cond::If(v) => v,
            Cond::Const(c) => self.builder.iconst(Type::I8, c as i64),
        }
    }
}
