//! Fused multiply-add: manual volume 1, 14.5.

use super::family;
use super::float::{negate_numbers, sign_bits};
use super::operand::Vector;
use super::precise::{self, Op, shape_of, traps_or_flushes};
use crate::Lifter;
use crate::decode::Row;
use iced_x86::Instruction;
use tulk_ir::{Shape, Type, Value};

/// Which operands are multiplied and which signs change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// Operand numbers of the factors and of the addend.
    pub order: [u8; 3],
    /// The product is negated.
    pub product: bool,
    /// The addend is negated, in even and in odd lanes.
    pub addend: [bool; 2],
}

const F132: u8 = 0;
const F213: u8 = 1;
const F231: u8 = 2;

impl Form {
    /// The form in a byte: order in bits 1:0, then the signs.
    pub fn unpack(v: u8) -> Form {
        let order = match v & 3 {
            F132 => [0, 2, 1],
            F213 => [1, 0, 2],
            _ => [1, 2, 0],
        };
        Form { order, product: v & 4 != 0, addend: [v & 8 != 0, v & 16 != 0] }
    }
}

macro_rules! fused {
    (@ neg) => {
        1
    };
    (@ pos) => {
        0
    };
    (@ sub) => {
        1
    };
    (@ add) => {
        0
    };
    ($order:ident $product:ident $even:ident $odd:ident $double:literal $scalar:literal) => {
        |l, i| {
            const FORM: u8 =
        $order | fused!(@ $product) << 2 | fused!(@ $even) << 3 | fused!(@ $odd) << 4;
            multiply_add(l, i, FORM, $double, $scalar)
        }
    };
}

/// Names by order of the operands; the words say whether the product is negated and whether the addend is added or
/// subtracted in even and odd lanes.
pub const ROWS: &[Row] = family! {
    quiet {
        [| Vfmadd132ps] => fused!(F132 pos add add false false),
        [| Vfmadd132pd] => fused!(F132 pos add add true false),
        [| Vfmadd132ss] => fused!(F132 pos add add false true),
        [| Vfmadd132sd] => fused!(F132 pos add add true true),
        [| Vfmsub132ps] => fused!(F132 pos sub sub false false),
        [| Vfmsub132pd] => fused!(F132 pos sub sub true false),
        [| Vfmsub132ss] => fused!(F132 pos sub sub false true),
        [| Vfmsub132sd] => fused!(F132 pos sub sub true true),
        [| Vfnmadd132ps] => fused!(F132 neg add add false false),
        [| Vfnmadd132pd] => fused!(F132 neg add add true false),
        [| Vfnmadd132ss] => fused!(F132 neg add add false true),
        [| Vfnmadd132sd] => fused!(F132 neg add add true true),
        [| Vfnmsub132ps] => fused!(F132 neg sub sub false false),
        [| Vfnmsub132pd] => fused!(F132 neg sub sub true false),
        [| Vfnmsub132ss] => fused!(F132 neg sub sub false true),
        [| Vfnmsub132sd] => fused!(F132 neg sub sub true true),
        [| Vfmaddsub132ps] => fused!(F132 pos sub add false false),
        [| Vfmaddsub132pd] => fused!(F132 pos sub add true false),
        [| Vfmsubadd132ps] => fused!(F132 pos add sub false false),
        [| Vfmsubadd132pd] => fused!(F132 pos add sub true false),
        [| Vfmadd213ps] => fused!(F213 pos add add false false),
        [| Vfmadd213pd] => fused!(F213 pos add add true false),
        [| Vfmadd213ss] => fused!(F213 pos add add false true),
        [| Vfmadd213sd] => fused!(F213 pos add add true true),
        [| Vfmsub213ps] => fused!(F213 pos sub sub false false),
        [| Vfmsub213pd] => fused!(F213 pos sub sub true false),
        [| Vfmsub213ss] => fused!(F213 pos sub sub false true),
        [| Vfmsub213sd] => fused!(F213 pos sub sub true true),
        [| Vfnmadd213ps] => fused!(F213 neg add add false false),
        [| Vfnmadd213pd] => fused!(F213 neg add add true false),
        [| Vfnmadd213ss] => fused!(F213 neg add add false true),
        [| Vfnmadd213sd] => fused!(F213 neg add add true true),
        [| Vfnmsub213ps] => fused!(F213 neg sub sub false false),
        [| Vfnmsub213pd] => fused!(F213 neg sub sub true false),
        [| Vfnmsub213ss] => fused!(F213 neg sub sub false true),
        [| Vfnmsub213sd] => fused!(F213 neg sub sub true true),
        [| Vfmaddsub213ps] => fused!(F213 pos sub add false false),
        [| Vfmaddsub213pd] => fused!(F213 pos sub add true false),
        [| Vfmsubadd213ps] => fused!(F213 pos add sub false false),
        [| Vfmsubadd213pd] => fused!(F213 pos add sub true false),
        [| Vfmadd231ps] => fused!(F231 pos add add false false),
        [| Vfmadd231pd] => fused!(F231 pos add add true false),
        [| Vfmadd231ss] => fused!(F231 pos add add false true),
        [| Vfmadd231sd] => fused!(F231 pos add add true true),
        [| Vfmsub231ps] => fused!(F231 pos sub sub false false),
        [| Vfmsub231pd] => fused!(F231 pos sub sub true false),
        [| Vfmsub231ss] => fused!(F231 pos sub sub false true),
        [| Vfmsub231sd] => fused!(F231 pos sub sub true true),
        [| Vfnmadd231ps] => fused!(F231 neg add add false false),
        [| Vfnmadd231pd] => fused!(F231 neg add add true false),
        [| Vfnmadd231ss] => fused!(F231 neg add add false true),
        [| Vfnmadd231sd] => fused!(F231 neg add add true true),
        [| Vfnmsub231ps] => fused!(F231 neg sub sub false false),
        [| Vfnmsub231pd] => fused!(F231 neg sub sub true false),
        [| Vfnmsub231ss] => fused!(F231 neg sub sub false true),
        [| Vfnmsub231sd] => fused!(F231 neg sub sub true true),
        [| Vfmaddsub231ps] => fused!(F231 pos sub add false false),
        [| Vfmaddsub231pd] => fused!(F231 pos sub add true false),
        [| Vfmsubadd231ps] => fused!(F231 pos add sub false false),
        [| Vfmsubadd231pd] => fused!(F231 pos add sub true false),
    }
};

/// VFMADD132PS and kin
fn multiply_add(l: &mut Lifter<'_>, insn: &Instruction, code: u8, double: bool, scalar: bool) {
    if traps_or_flushes(l) {
        precise::call(l, insn, Op::Fused, double, scalar, code as u32);
        return;
    }
    let form = Form::unpack(code);
    let shape = shape_of(double);
    let every = sign_bits(double, |_| true);
    let product = if form.product { every } else { 0 };
    let addend = sign_bits(double, |n| form.addend[n as usize & 1]);
    if scalar {
        let third = l.scalar(insn, 2, shape);
        let x = [l.scalar(insn, 0, shape), l.scalar(insn, 1, shape), third];
        let [mut a, b, mut c] = form.order.map(|n| x[n as usize]);
        if form.product {
            a = negate_number(l, a);
        }
        if form.addend[0] {
            c = negate_number(l, c);
        }
        let v = l.fma(a, b, c);
        let dst = l.xmm(insn.op0_register());
        let v = l.vset_lane(shape, dst, 0, v);
        return l.put_vector(insn, Vector::of(v));
    }
    let third = l.vector(insn, 2);
    let x = [l.vector(insn, 0), l.vector(insn, 1), third];
    let half = |l: &mut Lifter<'_>, x: [Value; 3]| {
        let [a, b, c] = form.order.map(|n| x[n as usize]);
        let a = with_signs(l, shape, a, product);
        let c = with_signs(l, shape, c, addend);
        l.vfma(shape, a, b, c)
    };
    let lo = half(l, x.map(|v| v.lo));
    let hi = match x.map(|v| v.hi) {
        [Some(a), Some(b), Some(c)] => Some(half(l, [a, b, c])),
        _ => None,
    };
    l.put_vector(insn, Vector { lo, hi });
}

fn with_signs(l: &mut Lifter<'_>, shape: Shape, v: Value, signs: u128) -> Value {
    if signs == 0 {
        return v;
    }
    let signs = l.vconst(signs);
    negate_numbers(l, shape, v, signs)
}

/// A scalar with its sign changed, unless it is NaN.
fn negate_number(l: &mut Lifter<'_>, v: Value) -> Value {
    let float = l.ty(v);
    let (int, infinity) = match float {
        Type::F32 => (Type::I32, 0xff00_0000u32 as i32 as i64),
        _ => (Type::I64, 0xffe0_0000_0000_0000u64 as i64),
    };
    let bits = l.bitcast(int, v);
    let magnitude = l.add(bits, bits);
    let nan = l.icmp_imm(tulk_ir::IntCc::GtU, magnitude, infinity);
    let sign = l.iconst(int, 1i64 << (int.bits() - 1));
    let flipped = l.xor(bits, sign);
    let bits = l.select(nan, bits, flipped);
    l.bitcast(float, bits)
}
