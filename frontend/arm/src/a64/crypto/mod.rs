//! Cryptographic instructions (Arm ARM C4.1.96 "Cryptographic AES", "three-register SHA" and so on). The simple
//! ones of SHA3 are inline, the rest are helpers.

pub mod helpers;
pub mod sm;

use self::helpers::*;
use self::sm::*;
use super::Lifter;
use super::decode::Insn;
use super::helpers::{FIRST_CRYPTO, helpers as helper_table};
use super::vector::{Form, field};
use tulk_ir::{Access, Shape, Type, Value};

helper_table! { FIRST_CRYPTO;
    AESE = helper_aese(V128, V128) -> V128, Access::None, Access::None, pure;
    AESD = helper_aesd(V128, V128) -> V128, Access::None, Access::None, pure;
    AESMC = helper_aesmc(V128) -> V128, Access::None, Access::None, pure;
    AESIMC = helper_aesimc(V128) -> V128, Access::None, Access::None, pure;
    /// The immediate is the half.
    PMULL64 = helper_pmull64(V128, V128) -> V128, Access::None, Access::None, pure;
    SHA1C = helper_sha1c(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA1P = helper_sha1p(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA1M = helper_sha1m(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA1SU0 = helper_sha1su0(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA1SU1 = helper_sha1su1(V128, V128) -> V128, Access::None, Access::None, pure;
    SHA256H = helper_sha256h(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA256H2 = helper_sha256h2(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA256SU0 = helper_sha256su0(V128, V128) -> V128, Access::None, Access::None, pure;
    SHA256SU1 = helper_sha256su1(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA512H = helper_sha512h(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA512H2 = helper_sha512h2(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SHA512SU0 = helper_sha512su0(V128, V128) -> V128, Access::None, Access::None, pure;
    SHA512SU1 = helper_sha512su1(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SM3PARTW1 = helper_sm3partw1(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SM3PARTW2 = helper_sm3partw2(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SM3SS1 = helper_sm3ss1(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SM3TT = helper_sm3tt(V128, V128, V128) -> V128, Access::None, Access::None, pure;
    SM4E = helper_sm4e(V128, V128) -> V128, Access::None, Access::None, pure;
    SM4EKEY = helper_sm4ekey(V128, V128) -> V128, Access::None, Access::None, pure;
}

/// AESMC Vd.16B, Vn.16B
pub fn aesmc(l: &mut Lifter<'_>, i: Insn) {
    let n = l.v(i.rn());
    let result = l.call(AESMC, &[n], 0);
    l.set_v(i.rd(), result);
}
/// AESIMC Vd.16B, Vn.16B
pub fn aesimc(l: &mut Lifter<'_>, i: Insn) {
    let n = l.v(i.rn());
    let result = l.call(AESIMC, &[n], 0);
    l.set_v(i.rd(), result);
}

/// Vd = helper(Vd, Vn).
fn two(l: &mut Lifter<'_>, i: Insn, helper: u32) {
    let (d, n) = (l.v(i.rd()), l.v(i.rn()));
    let result = l.call(helper, &[d, n], 0);
    l.set_v(i.rd(), result);
}
/// Vd = helper(Vd, Vn, Vm).
fn three(l: &mut Lifter<'_>, i: Insn, helper: u32) {
    let (d, n, m) = (l.v(i.rd()), l.v(i.rn()), l.v(i.rm()));
    let result = l.call(helper, &[d, n, m], 0);
    l.set_v(i.rd(), result);
}

macro_rules! by_helper {
    ($($name:ident $how:ident $helper:ident $text:literal;)+) => { $(
        #[doc = $text]
        pub fn $name(l: &mut Lifter<'_>, i: Insn) {
            $how(l, i, $helper);
        }
    )+ };
}

by_helper! {
    aese two AESE "AESE Vd.16B, Vn.16B";
    aesd two AESD "AESD Vd.16B, Vn.16B";
    sha1c three SHA1C "SHA1C Qd, Sn, Vm.4S";
    sha1p three SHA1P "SHA1P Qd, Sn, Vm.4S";
    sha1m three SHA1M "SHA1M Qd, Sn, Vm.4S";
    sha1su0 three SHA1SU0 "SHA1SU0 Vd.4S, Vn.4S, Vm.4S";
    sha1su1 two SHA1SU1 "SHA1SU1 Vd.4S, Vn.4S";
    sha256h three SHA256H "SHA256H Qd, Qn, Vm.4S";
    sha256h2 three SHA256H2 "SHA256H2 Qd, Qn, Vm.4S";
    sha256su0 two SHA256SU0 "SHA256SU0 Vd.4S, Vn.4S";
    sha256su1 three SHA256SU1 "SHA256SU1 Vd.4S, Vn.4S, Vm.4S";
    sha512h three SHA512H "SHA512H Qd, Qn, Vm.2D";
    sha512h2 three SHA512H2 "SHA512H2 Qd, Qn, Vm.2D";
    sha512su0 two SHA512SU0 "SHA512SU0 Vd.2D, Vn.2D";
    sha512su1 three SHA512SU1 "SHA512SU1 Vd.2D, Vn.2D, Vm.2D";
    sm3partw1 three SM3PARTW1 "SM3PARTW1 Vd.4S, Vn.4S, Vm.4S";
    sm3partw2 three SM3PARTW2 "SM3PARTW2 Vd.4S, Vn.4S, Vm.4S";
    sm4e two SM4E "SM4E Vd.4S, Vn.4S";
}

/// SHA1H Sd, Sn
pub fn sha1h(l: &mut Lifter<'_>, i: Insn) {
    let x = l.scalar(Type::I32, i.rn());
    let result = l.rotr_imm(x, 2);
    l.set_scalar(i.rd(), result);
}

/// Doublewords rotated right.
fn rotate(l: &mut Lifter<'_>, v: Value, amount: u32) -> Value {
    if amount == 0 {
        return v;
    }
    let right = l.vshr_u_i(Shape::I64x2, v, amount);
    let left = l.vshl_i(Shape::I64x2, v, 64 - amount);
    l.vor(left, right)
}

/// EOR3 Vd.16B, Vn.16B, Vm.16B, Va.16B
pub fn eor3(l: &mut Lifter<'_>, i: Insn) {
    let (n, m, a) = (l.v(i.rn()), l.v(i.rm()), l.v(i.ra()));
    let result = l.vxor(m, a);
    let result = l.vxor(n, result);
    l.set_v(i.rd(), result);
}
/// BCAX Vd.16B, Vn.16B, Vm.16B, Va.16B
pub fn bcax(l: &mut Lifter<'_>, i: Insn) {
    let (n, m, a) = (l.v(i.rn()), l.v(i.rm()), l.v(i.ra()));
    let result = l.vand_not(m, a);
    let result = l.vxor(n, result);
    l.set_v(i.rd(), result);
}
/// RAX1 Vd.2D, Vn.2D, Vm.2D
pub fn rax1(l: &mut Lifter<'_>, i: Insn) {
    let (n, m) = (l.v(i.rn()), l.v(i.rm()));
    let rotated = rotate(l, m, 63);
    let result = l.vxor(n, rotated);
    l.set_v(i.rd(), result);
}
/// XAR Vd.2D, Vn.2D, Vm.2D, #imm6
pub fn xar(l: &mut Lifter<'_>, i: Insn) {
    let (n, m) = (l.v(i.rn()), l.v(i.rm()));
    let both = l.vxor(n, m);
    let result = rotate(l, both, field(i, 10, 6));
    l.set_form(i.rd(), Form::vector(3, true), result);
}

/// SM4EKEY Vd.4S, Vn.4S, Vm.4S
pub fn sm4ekey(l: &mut Lifter<'_>, i: Insn) {
    let (n, m) = (l.v(i.rn()), l.v(i.rm()));
    let result = l.call(SM4EKEY, &[n, m], 0);
    l.set_v(i.rd(), result);
}
/// SM3SS1 Vd.4S, Vn.4S, Vm.4S, Va.4S
pub fn sm3ss1(l: &mut Lifter<'_>, i: Insn) {
    let (n, m, a) = (l.v(i.rn()), l.v(i.rm()), l.v(i.ra()));
    let result = l.call(SM3SS1, &[n, m, a], 0);
    l.set_v(i.rd(), result);
}
/// SM3TT1A, SM3TT1B, SM3TT2A, SM3TT2B Vd.4S, Vn.4S, Vm.S[index]
pub fn sm3tt(l: &mut Lifter<'_>, i: Insn) {
    let (d, n, m) = (l.v(i.rd()), l.v(i.rn()), l.v(i.rm()));
    let which = field(i, 12, 2) | field(i, 10, 2) << 2;
    let result = l.call(SM3TT, &[d, n, m], which as i64);
    l.set_v(i.rd(), result);
}
