//! AdvSIMD permute, extract and table lookup (Arm ARM C4.1.96 "Advanced SIMD permute", "extract", "table lookup").

use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::vector::{Form, field, lanes, q};
use tulk_ir::{IntCc, Shape, Value};

/// Vd's lane k is lane `source(k, lanes)` of Vn followed by Vm, both of `lanes` lanes.
fn permute(l: &mut Lifter<'_>, i: Insn, source: impl Fn(usize, usize) -> usize) {
    let form = Form::of(i);
    let (n, all) = (form.lanes() as usize, 16usize >> form.log2);
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let pattern = lanes(form.log2, |k| {
        // In the 64-bit form Vm starts in the middle of a register; what lies above is cleared below.
        let from = source(k % n, n);
        if from < n { from } else { from - n + all }
    });
    let result = l.vshuffle(a, b, pattern);
    l.set_form(i.rd(), form, result);
}

/// UZP1 Vd.T, Vn.T, Vm.T
pub fn uzp1(l: &mut Lifter<'_>, i: Insn) {
    permute(l, i, |k, _| 2 * k);
}
/// UZP2 Vd.T, Vn.T, Vm.T
pub fn uzp2(l: &mut Lifter<'_>, i: Insn) {
    permute(l, i, |k, _| 2 * k + 1);
}
/// TRN1 Vd.T, Vn.T, Vm.T
pub fn trn1(l: &mut Lifter<'_>, i: Insn) {
    permute(l, i, |k, n| (k & !1) + (k & 1) * n);
}
/// TRN2 Vd.T, Vn.T, Vm.T
pub fn trn2(l: &mut Lifter<'_>, i: Insn) {
    permute(l, i, |k, n| (k | 1) + (k & 1) * n);
}
/// ZIP1 Vd.T, Vn.T, Vm.T
pub fn zip1(l: &mut Lifter<'_>, i: Insn) {
    permute(l, i, |k, n| k / 2 + (k & 1) * n);
}
/// ZIP2 Vd.T, Vn.T, Vm.T
pub fn zip2(l: &mut Lifter<'_>, i: Insn) {
    permute(l, i, |k, n| (n + k) / 2 + (k & 1) * n);
}

/// EXT Vd.T, Vn.T, Vm.T, #index
pub fn ext(l: &mut Lifter<'_>, i: Insn) {
    let form = Form::vector(0, q(i));
    let n = form.lanes() as usize;
    let index = field(i, 11, 4) as usize;
    let (a, b) = (l.v(i.rn()), l.v(i.rm()));
    let pattern = lanes(0, |k| {
        let from = k % n + index;
        if from < n { from } else { from - n + 16 }
    });
    let result = l.vshuffle(a, b, pattern);
    l.set_form(i.rd(), form, result);
}

/// The bytes of the table at Vm's indices, zero where one is out of range; and the indices and table size.
fn look_up(l: &mut Lifter<'_>, i: Insn) -> (Value, Value, u32) {
    let registers = field(i, 13, 2) + 1;
    let index = l.v(i.rm());
    let mut result = None;
    for k in 0..registers {
        let table = l.v((i.rn() + k) & 31);
        let local = if k == 0 {
            index
        } else {
            let start = l.vconst(Form::vector(0, true).splat(16 * k as u64));
            l.vsub(Shape::I8x16, index, start)
        };
        let found = l.vswizzle(table, local);
        result = Some(match result {
            Some(before) => l.vor(before, found),
            None => found,
        });
    }
    (result.expect("a table has a register"), index, 16 * registers)
}

/// TBL Vd.T, {Vn.16B ...}, Vm.T
pub fn tbl(l: &mut Lifter<'_>, i: Insn) {
    let (found, _, _) = look_up(l, i);
    l.set_form(i.rd(), Form::vector(0, q(i)), found);
}

/// TBX Vd.T, {Vn.16B ...}, Vm.T: indices out of range leave the byte of Vd
pub fn tbx(l: &mut Lifter<'_>, i: Insn) {
    let (found, index, size) = look_up(l, i);
    let form = Form::vector(0, q(i));
    let (size, d) = (l.vconst(form.splat(size as u64)), l.v(i.rd()));
    let inside = l.vicmp(IntCc::LtU, Shape::I8x16, index, size);
    let result = l.vbitsel(inside, found, d);
    l.set_form(i.rd(), form, result);
}
