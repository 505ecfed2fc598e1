//! Floating-point compare, conditional compare and conditional select (Arm ARM C4.1.96), scalar.

use super::arith::scalar_form;
use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::lifter::Cond;
use crate::a64::vector::field;
use tulk_ir::Type;

/// The second register, or none in the forms that compare with zero.
fn second(i: Insn) -> Option<u32> {
    (field(i, 3, 1) == 0).then(|| i.rm())
}

/// FCMP Fn, Fm and FCMP Fn, #0.0
pub fn fcmp_s(l: &mut Lifter<'_>, i: Insn) {
    l.fp_compare(scalar_form(i), false, i.rn(), second(i));
}
/// FCMPE Fn, Fm and FCMPE Fn, #0.0
pub fn fcmpe_s(l: &mut Lifter<'_>, i: Insn) {
    l.fp_compare(scalar_form(i), true, i.rn(), second(i));
}

/// Compares only if the condition holds, so that no exception is raised otherwise.
fn conditional_compare(l: &mut Lifter<'_>, i: Insn, signalling: bool) {
    match l.cond(i.cond()) {
        Cond::Const(true) => l.fp_compare(scalar_form(i), signalling, i.rn(), Some(i.rm())),
        Cond::Const(false) => {
            let packed = l.iconst(Type::I32, (i.nzcv() as i64) << 28);
            l.set_nzcv(packed);
        }
        Cond::If(holds) => {
            let packed = l.local(Type::I32);
            let (compare, skip, join) = (l.label(), l.label(), l.label());
            l.brif(holds, compare, skip);
            l.place(skip);
            let constant = l.iconst(Type::I32, (i.nzcv() as i64) << 28);
            l.set(packed, constant);
            l.jump(join);
            l.place(compare);
            let compared = l.fp_compare_packed(scalar_form(i), signalling, i.rn(), Some(i.rm()));
            l.set(packed, compared);
            l.place(join);
            let packed = l.get(packed);
            l.set_nzcv(packed);
        }
    }
}

/// FCCMP Fn, Fm, #nzcv, cond
pub fn fccmp(l: &mut Lifter<'_>, i: Insn) {
    conditional_compare(l, i, false);
}
/// FCCMPE Fn, Fm, #nzcv, cond
pub fn fccmpe(l: &mut Lifter<'_>, i: Insn) {
    conditional_compare(l, i, true);
}

/// FCSEL Fd, Fn, Fm, cond
pub fn fcsel(l: &mut Lifter<'_>, i: Insn) {
    let form = scalar_form(i);
    let ty = if form.log2 == 1 { Type::I16 } else { form.float_type() };
    let r = match l.cond(i.cond()) {
        Cond::Const(holds) => l.scalar(ty, if holds { i.rn() } else { i.rm() }),
        Cond::If(holds) => {
            let (n, m) = (l.scalar(ty, i.rn()), l.scalar(ty, i.rm()));
            l.select(holds, n, m)
        }
    };
    l.set_scalar(i.rd(), r);
}
