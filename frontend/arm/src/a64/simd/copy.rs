//! AdvSIMD copy (Arm ARM C4.1.96 "Advanced SIMD copy" and "scalar copy"). imm5 holds lane width and number: its
//! lowest set bit is the width, the bits above it the number.

use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, field, lanes};
use tulk_ir::{Shape, Type, Value};

/// log2 of the lane's bytes and the lane number.
fn lane(i: Insn) -> (u8, u32) {
    let log2 = i.imm5().trailing_zeros();
    (log2 as u8, i.imm5() >> (log2 + 1))
}

/// The general register as a lane of `1 << log2` bytes.
fn general(l: &mut Lifter<'_>, i: Insn, log2: u8) -> Value {
    if log2 == 3 {
        return l.x(i.rn());
    }
    let w = l.w(i.rn());
    l.trunc(Type::int_of_log2(log2), w)
}

/// DUP Vd.T, Vn.Ts[index] and DUP (MOV) Vd, Vn.T[index]
pub fn dup_element(l: &mut Lifter<'_>, i: Insn) {
    let (log2, index) = lane(i);
    let form = Form::with_log2(i, log2);
    let v = l.v(i.rn());
    if form.is_scalar() {
        let zero = l.zero_v();
        let all = 16 >> log2;
        let result =
            l.vshuffle(v, zero, lanes(log2, |k| if k == 0 { index as usize } else { all + k }));
        return l.set_v(i.rd(), result);
    }
    let result = l.dup_lane(log2, v, index);
    l.set_form(i.rd(), form, result);
}

/// DUP Vd.T, Rn
pub fn dup_general(l: &mut Lifter<'_>, i: Insn) {
    let (log2, _) = lane(i);
    let form = Form::with_log2(i, log2);
    let r = general(l, i, log2);
    let result = l.vsplat(form.shape(), r);
    l.set_form(i.rd(), form, result);
}

/// INS (MOV) Vd.Ts[index], Rn
pub fn ins_general(l: &mut Lifter<'_>, i: Insn) {
    let (log2, index) = lane(i);
    let d = l.v(i.rd());
    let r = general(l, i, log2);
    let result = l.vset_lane(Shape::int_of_log2(log2), d, index, r);
    l.set_v(i.rd(), result);
}

/// INS (MOV) Vd.Ts[index1], Vn.Ts[index2]
pub fn ins_element(l: &mut Lifter<'_>, i: Insn) {
    let (log2, to) = lane(i);
    let from = field(i, 11, 4) >> log2;
    let (d, n) = (l.v(i.rd()), l.v(i.rn()));
    let all = 16 >> log2;
    let pattern = lanes(log2, |k| if k == to as usize { all + from as usize } else { k });
    let result = l.vshuffle(d, n, pattern);
    l.set_v(i.rd(), result);
}

/// SMOV Rd, Vn.Ts[index]
pub fn smov(l: &mut Lifter<'_>, i: Insn) {
    let (log2, index) = lane(i);
    let v = l.v(i.rn());
    let lane = l.vlane(Shape::int_of_log2(log2), v, index);
    let result = l.sext(if i.q() != 0 { Type::I64 } else { Type::I32 }, lane);
    l.set_r(i.rd(), result);
}

/// UMOV (MOV) Rd, Vn.Ts[index]
pub fn umov(l: &mut Lifter<'_>, i: Insn) {
    let (log2, index) = lane(i);
    let v = l.v(i.rn());
    let lane = l.vlane(Shape::int_of_log2(log2), v, index);
    l.set_r(i.rd(), lane);
}
