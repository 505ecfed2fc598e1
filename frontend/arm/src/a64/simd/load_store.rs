//! AdvSIMD load and store structures (Arm ARM C4.1.94 "Advanced SIMD load/store multiple structures" and "single
//! structure", each with its post-indexed class).
//!
//! Memory is accessed in pieces of 16 bytes (the last may be 8) and rearranged in registers; no register changes
//! before the last load has succeeded.

use crate::a64::Lifter;
use crate::a64::decode::Insn;
use crate::a64::lifter::lane_shape;
use crate::a64::vector::{Form, field, q};
use tulk_base::MemOp;
use tulk_ir::{Shape, Type, Value};

/// Adds the transferred size or Xm to the base, in the post-indexed forms (bit 23).
fn write_back(l: &mut Lifter<'_>, i: Insn, base: Value, bytes: u32) {
    if field(i, 23, 1) == 0 {
        return;
    }
    if i.rm() == 31 {
        let next = l.add_imm(base, bytes as i64);
        return l.set_base(i.rn(), next, bytes as i64);
    }
    let offset = l.x(i.rm());
    let next = l.add(base, offset);
    l.set_xsp(i.rn(), next);
}

/// Number of registers and whether their elements are interleaved, from the opcode in bits 15:12.
fn structure(i: Insn) -> (u32, bool) {
    match field(i, 12, 4) {
        0 => (4, true),
        2 => (4, false),
        4 => (3, true),
        6 => (3, false),
        7 => (1, false),
        8 => (2, true),
        _ => (2, false),
    }
}

/// Byte `b` of register `r` lies at this offset in memory.
fn offset(form: Form, registers: u32, interleaved: bool, r: u32, b: u32) -> u32 {
    if interleaved {
        let (element, part) = (b >> form.log2, b & ((1 << form.log2) - 1));
        ((element * registers + r) << form.log2) + part
    } else {
        r * form.bits / 8 + b
    }
}

/// A vector of 16 bytes each of which is byte `n % 16` of `sources[n / 16]`, or zero.
fn gather(l: &mut Lifter<'_>, sources: &[Value], byte: impl Fn(u32) -> Option<u32>) -> Value {
    let wanted: [Option<u32>; 16] = std::array::from_fn(|k| byte(k as u32));
    let full = wanted.iter().all(Option::is_some);
    let mut result = None;
    for (n, &source) in sources.iter().enumerate() {
        let here = |w: &Option<u32>| w.filter(|w| *w as usize / 16 == n).map(|w| w as u8 % 16);
        if !wanted.iter().any(|w| here(w).is_some()) {
            continue;
        }
        let pattern = std::array::from_fn(|k| match here(&wanted[k]) {
            Some(from) => 16 + from,
            None => k as u8,
        });
        let before = match result {
            Some(before) => before,
            None if full => source,
            None => l.zero_v(),
        };
        result = Some(if pattern == std::array::from_fn(|k| 16 + k as u8) {
            source
        } else {
            l.vshuffle(before, source, pattern)
        });
    }
    result.unwrap_or_else(|| l.zero_v())
}

/// Offsets and sizes of the pieces of `bytes` bytes.
fn pieces(bytes: u32) -> impl Iterator<Item = (u32, bool)> {
    (0..bytes.div_ceil(16)).map(move |n| (16 * n, bytes - 16 * n >= 16))
}

/// LD1 to LD4 (multiple structures): {Vt.T ...}, [Xn|SP]{, Xm|#imm}
pub fn ld_multiple(l: &mut Lifter<'_>, i: Insn) {
    let form = Form::vector(field(i, 10, 2) as u8, q(i));
    let (registers, interleaved) = structure(i);
    let bytes = registers * form.bits / 8;
    let base = l.base(i.rn());
    if !interleaved {
        let loaded: Vec<Value> = (0..registers)
            .map(|r| load_piece(l, base, r * form.bits / 8, form.bits == 128))
            .collect();
        for (r, v) in loaded.into_iter().enumerate() {
            l.set_v((i.rt() + r as u32) & 31, v);
        }
        return write_back(l, i, base, bytes);
    }
    let loaded: Vec<Value> =
        pieces(bytes).map(|(at, full)| load_piece(l, base, at, full)).collect();
    for r in 0..registers {
        let v = gather(l, &loaded, |b| {
            (b < form.bits / 8).then(|| offset(form, registers, true, r, b))
        });
        l.set_v((i.rt() + r) & 31, v);
    }
    write_back(l, i, base, bytes);
}

fn load_piece(l: &mut Lifter<'_>, base: Value, at: u32, full: bool) -> Value {
    if full {
        l.load(Type::V128, base, at as i64, MemOp::U128)
    } else {
        let low = l.load(Type::F64, base, at as i64, MemOp::U64);
        l.vscalar(Shape::F64x2, low)
    }
}

/// ST1 to ST4 (multiple structures): {Vt.T ...}, [Xn|SP]{, Xm|#imm}
pub fn st_multiple(l: &mut Lifter<'_>, i: Insn) {
    let form = Form::vector(field(i, 10, 2) as u8, q(i));
    let (registers, interleaved) = structure(i);
    let bytes = registers * form.bits / 8;
    let base = l.base(i.rn());
    let sources: Vec<Value> = (0..registers).map(|r| l.v((i.rt() + r) & 31)).collect();
    // Which register byte lies at each memory byte.
    let mut place = [0u32; 64];
    for r in 0..registers {
        for b in 0..form.bits / 8 {
            place[offset(form, registers, interleaved, r, b) as usize] = 16 * r + b;
        }
    }
    for (at, full) in pieces(bytes) {
        let v = gather(l, &sources, |b| Some(place[(at + if full { b } else { b & 7 }) as usize]));
        if full {
            l.store(base, at as i64, MemOp::U128, v);
        } else {
            let low = l.vlane(Shape::F64x2, v, 0);
            l.store(base, at as i64, MemOp::U64, low);
        }
    }
    write_back(l, i, base, bytes);
}

/// Registers, log2 of the element's bytes and lane number of a single-structure access. In the
/// replicating form the size is in bits 11:10 and there is no lane number.
fn single(i: Insn) -> (u32, u8, u32) {
    let (opcode, s, size) = (field(i, 13, 3), field(i, 12, 1), field(i, 10, 2));
    let registers = ((opcode & 1) << 1 | field(i, 21, 1)) + 1;
    let place = field(i, 30, 1) << 3 | s << 2 | size;
    match opcode >> 1 {
        0 => (registers, 0, place),
        1 => (registers, 1, place >> 1),
        2 if size & 1 == 0 => (registers, 2, place >> 2),
        2 => (registers, 3, place >> 3),
        _ => (registers, size as u8, 0),
    }
}

/// The access to an element; floats keep the wide ones out of integer registers.
fn element_type(log2: u8) -> Type {
    [Type::I8, Type::I16, Type::F32, Type::F64][log2 as usize]
}

/// LD1 to LD4 (single structure): {Vt.T ...}[index], [Xn|SP]{, Xm|#imm}
pub fn ld_single(l: &mut Lifter<'_>, i: Insn) {
    let (registers, log2, lane) = single(i);
    let ty = element_type(log2);
    let base = l.base(i.rn());
    let loaded: Vec<Value> = (0..registers)
        .map(|r| l.load(ty, base, (r << log2) as i64, MemOp::of_log2(log2)))
        .collect();
    for (r, element) in loaded.into_iter().enumerate() {
        let n = (i.rt() + r as u32) & 31;
        let d = l.v(n);
        let v = l.vset_lane(lane_shape(ty), d, lane, element);
        l.set_v(n, v);
    }
    write_back(l, i, base, registers << log2);
}

/// ST1 to ST4 (single structure): {Vt.T ...}[index], [Xn|SP]{, Xm|#imm}
pub fn st_single(l: &mut Lifter<'_>, i: Insn) {
    let (registers, log2, lane) = single(i);
    let base = l.base(i.rn());
    for r in 0..registers {
        let v = l.v((i.rt() + r) & 31);
        let element = l.vlane(lane_shape(element_type(log2)), v, lane);
        l.store(base, (r << log2) as i64, MemOp::of_log2(log2), element);
    }
    write_back(l, i, base, registers << log2);
}

/// LD1R to LD4R: {Vt.T ...}, [Xn|SP]{, Xm|#imm}
pub fn ld_replicate(l: &mut Lifter<'_>, i: Insn) {
    let (registers, log2, _) = single(i);
    let ty = element_type(log2);
    let base = l.base(i.rn());
    let loaded: Vec<Value> = (0..registers)
        .map(|r| l.load(ty, base, (r << log2) as i64, MemOp::of_log2(log2)))
        .collect();
    for (r, element) in loaded.into_iter().enumerate() {
        let v = l.vsplat(lane_shape(ty), element);
        l.set_form((i.rt() + r as u32) & 31, Form::vector(log2, q(i)), v);
    }
    write_back(l, i, base, registers << log2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_interleave() {
        let form = Form::vector(1, true);
        assert_eq!(offset(form, 3, true, 1, 0), 2);
        assert_eq!(offset(form, 3, true, 0, 3), 7);
        assert_eq!(offset(form, 4, false, 2, 5), 37);
        assert_eq!(pieces(24).collect::<Vec<_>>(), [(0, true), (16, false)]);
    }
}
