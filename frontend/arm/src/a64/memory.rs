//! Loads and stores of one register or a pair, general or SIMD and floating-point.
//!
//! The base is written back after the access, so a fault leaves every register as it was.

use super::decode::Insn;
use super::integer::extended;
use super::lifter::Lifter;
use tulk_base::MemOp;
use tulk_ir::{Type, Value};

/// Where an access goes.
struct Address {
    base: Value,
    offset: i64,
    /// What the base register becomes: its old value plus this.
    back: Option<i64>,
}

fn sign_extend(value: u32, bits: u32) -> i64 {
    ((value << (32 - bits)) as i32 >> (32 - bits)) as i64
}

/// Scaled unsigned offset.
fn uimm(l: &mut Lifter<'_>, i: Insn, log2: u32) -> Address {
    Address { base: l.base(i.rn()), offset: (i.imm12() as i64) << log2, back: None }
}

fn unscaled(l: &mut Lifter<'_>, i: Insn, _log2: u32) -> Address {
    Address { base: l.base(i.rn()), offset: sign_extend(i.imm9(), 9), back: None }
}

fn post(l: &mut Lifter<'_>, i: Insn, _log2: u32) -> Address {
    Address { base: l.base(i.rn()), offset: 0, back: Some(sign_extend(i.imm9(), 9)) }
}

fn pre(l: &mut Lifter<'_>, i: Insn, _log2: u32) -> Address {
    let offset = sign_extend(i.imm9(), 9);
    Address { base: l.base(i.rn()), offset, back: Some(offset) }
}

/// Register offset, shifted by the access size if S.
fn register(l: &mut Lifter<'_>, i: Insn, log2: u32) -> Address {
    let base = l.base(i.rn());
    let offset = extended(l, 1, i.rm(), i.option(), log2 * i.s());
    Address { base: l.add(base, offset), offset: 0, back: None }
}

fn literal(l: &mut Lifter<'_>, i: Insn) -> Address {
    let at = l.pc.wrapping_add((sign_extend(i.imm19(), 19) * 4) as u64);
    Address { base: l.iconst(Type::I64, at as i64), offset: 0, back: None }
}

fn pair_offset(i: Insn, log2: u32) -> i64 {
    sign_extend(i.imm7(), 7) << log2
}

fn pair(l: &mut Lifter<'_>, i: Insn, log2: u32) -> Address {
    Address { base: l.base(i.rn()), offset: pair_offset(i, log2), back: None }
}

fn pair_post(l: &mut Lifter<'_>, i: Insn, log2: u32) -> Address {
    Address { base: l.base(i.rn()), offset: 0, back: Some(pair_offset(i, log2)) }
}

fn pair_pre(l: &mut Lifter<'_>, i: Insn, log2: u32) -> Address {
    let offset = pair_offset(i, log2);
    Address { base: l.base(i.rn()), offset, back: Some(offset) }
}

/// Computes an address for an access of `1 << log2` bytes.
type Mode = fn(&mut Lifter<'_>, Insn, u32) -> Address;

fn write_back(l: &mut Lifter<'_>, i: Insn, address: &Address) {
    if let Some(delta) = address.back {
        let new = l.add_imm(address.base, delta);
        l.set_base(i.rn(), new, delta);
    }
}

/// How a load fills its register.
#[derive(Clone, Copy)]
enum Extend {
    Zero,
    Sign64,
    Sign32,
}

fn load_value(l: &mut Lifter<'_>, address: &Address, log2: u32, extend: Extend) -> Value {
    let op = MemOp::of_log2(log2 as u8);
    let (ty, op) = match extend {
        Extend::Zero => (Type::I64, op),
        Extend::Sign64 => (Type::I64, op.with_sign()),
        Extend::Sign32 => (Type::I32, op.with_sign()),
    };
    l.load(ty, address.base, address.offset, op)
}

fn load(l: &mut Lifter<'_>, i: Insn, mode: Mode, extend: Extend) {
    let address = mode(l, i, i.size());
    let value = load_value(l, &address, i.size(), extend);
    write_back(l, i, &address);
    l.set_r(i.rt(), value);
}

fn store(l: &mut Lifter<'_>, i: Insn, mode: Mode) {
    let address = mode(l, i, i.size());
    let value = l.x(i.rt());
    l.store(address.base, address.offset, MemOp::of_log2(i.size() as u8), value);
    write_back(l, i, &address);
}

/// The type that a SIMD and floating-point register of `1 << log2` bytes is loaded as.
const fn fp_type(log2: u32) -> Type {
    [Type::I8, Type::I16, Type::F32, Type::F64, Type::V128][log2 as usize]
}

fn load_fp_value(l: &mut Lifter<'_>, address: &Address, offset: i64, log2: u32) -> Value {
    l.load(fp_type(log2), address.base, address.offset + offset, MemOp::of_log2(log2 as u8))
}

fn set_fp(l: &mut Lifter<'_>, n: u32, value: Value) {
    if l.ty(value) == Type::V128 { l.set_v(n, value) } else { l.set_scalar(n, value) }
}

fn fp(l: &mut Lifter<'_>, n: u32, log2: u32) -> Value {
    if log2 == 4 { l.v(n) } else { l.scalar(fp_type(log2), n) }
}

fn load_fp(l: &mut Lifter<'_>, i: Insn, mode: Mode, log2: u32) {
    let address = mode(l, i, log2);
    let value = load_fp_value(l, &address, 0, log2);
    write_back(l, i, &address);
    set_fp(l, i.rt(), value);
}

fn store_fp(l: &mut Lifter<'_>, i: Insn, mode: Mode, log2: u32) {
    let address = mode(l, i, log2);
    let value = fp(l, i.rt(), log2);
    l.store(address.base, address.offset, MemOp::of_log2(log2 as u8), value);
    write_back(l, i, &address);
}

fn load_pair(l: &mut Lifter<'_>, i: Insn, mode: Mode, log2: u32, extend: Extend) {
    let address = mode(l, i, log2);
    let second = Address { offset: address.offset + (1 << log2), ..address };
    let values = [&address, &second].map(|a| load_value(l, a, log2, extend));
    write_back(l, i, &address);
    l.set_r(i.rt(), values[0]);
    l.set_r(i.rt2(), values[1]);
}

fn store_pair(l: &mut Lifter<'_>, i: Insn, mode: Mode) {
    let log2 = 2 + i.sf();
    let address = mode(l, i, log2);
    let values = [l.x(i.rt()), l.x(i.rt2())];
    let op = MemOp::of_log2(log2 as u8);
    l.store(address.base, address.offset, op, values[0]);
    l.store(address.base, address.offset + (1 << log2), op, values[1]);
    write_back(l, i, &address);
}

fn load_pair_fp(l: &mut Lifter<'_>, i: Insn, mode: Mode) {
    let log2 = 2 + i.size();
    let address = mode(l, i, log2);
    let values = [0, 1 << log2].map(|offset| load_fp_value(l, &address, offset, log2));
    write_back(l, i, &address);
    set_fp(l, i.rt(), values[0]);
    set_fp(l, i.rt2(), values[1]);
}

fn store_pair_fp(l: &mut Lifter<'_>, i: Insn, mode: Mode) {
    let log2 = 2 + i.size();
    let address = mode(l, i, log2);
    let op = MemOp::of_log2(log2 as u8);
    let values = [fp(l, i.rt(), log2), fp(l, i.rt2(), log2)];
    l.store(address.base, address.offset, op, values[0]);
    l.store(address.base, address.offset + (1 << log2), op, values[1]);
    write_back(l, i, &address);
}

/// Lift functions that combine an access with an addressing mode.
macro_rules! accesses {
    ($($(#[$doc:meta])* $name:ident = $access:ident($mode:ident $(, $with:expr)*);)+) => {
        $($(#[$doc])* pub fn $name(l: &mut Lifter<'_>, i: Insn) { $access(l, i, $mode $(, $with(i))*) })+
    };
}

// What an access needs to know beside its mode.
const fn zero(_: Insn) -> Extend {
    Extend::Zero
}
const fn sign64(_: Insn) -> Extend {
    Extend::Sign64
}
const fn sign32(_: Insn) -> Extend {
    Extend::Sign32
}
const fn size(i: Insn) -> u32 {
    i.size()
}
const fn q(_: Insn) -> u32 {
    4
}
const fn pair_size(i: Insn) -> u32 {
    2 + i.sf()
}
const fn word(_: Insn) -> u32 {
    2
}

accesses! {
    /// STR{B,H} Rt, [Xn, #imm]
    str_uimm = store(uimm);
    /// LDR{B,H} Rt, [Xn, #imm]
    ldr_uimm = load(uimm, zero);
    /// LDRS{B,H,W} Xt, [Xn, #imm]
    ldrs_uimm = load(uimm, sign64);
    /// LDRS{B,H} Wt, [Xn, #imm]
    ldrs_w_uimm = load(uimm, sign32);
    /// STUR{B,H} Rt, [Xn, #simm]
    stur = store(unscaled);
    /// LDUR{B,H} Rt, [Xn, #simm]
    ldur = load(unscaled, zero);
    /// LDURS{B,H,W} Xt, [Xn, #simm]
    ldurs = load(unscaled, sign64);
    /// LDURS{B,H} Wt, [Xn, #simm]
    ldurs_w = load(unscaled, sign32);
    /// STTR{B,H} Rt, [Xn, #simm]: at EL0 the same as STUR
    sttr = store(unscaled);
    /// LDTR{B,H} Rt, [Xn, #simm]
    ldtr = load(unscaled, zero);
    /// LDTRS{B,H,W} Xt, [Xn, #simm]
    ldtrs = load(unscaled, sign64);
    /// LDTRS{B,H} Wt, [Xn, #simm]
    ldtrs_w = load(unscaled, sign32);
    /// STR{B,H} Rt, [Xn], #simm
    str_post = store(post);
    /// LDR{B,H} Rt, [Xn], #simm
    ldr_post = load(post, zero);
    /// LDRS{B,H,W} Xt, [Xn], #simm
    ldrs_post = load(post, sign64);
    /// LDRS{B,H} Wt, [Xn], #simm
    ldrs_w_post = load(post, sign32);
    /// STR{B,H} Rt, [Xn, #simm]!
    str_pre = store(pre);
    /// LDR{B,H} Rt, [Xn, #simm]!
    ldr_pre = load(pre, zero);
    /// LDRS{B,H,W} Xt, [Xn, #simm]!
    ldrs_pre = load(pre, sign64);
    /// LDRS{B,H} Wt, [Xn, #simm]!
    ldrs_w_pre = load(pre, sign32);
    /// STR{B,H} Rt, [Xn, Rm, extend #amount]
    str_reg = store(register);
    /// LDR{B,H} Rt, [Xn, Rm, extend #amount]
    ldr_reg = load(register, zero);
    /// LDRS{B,H,W} Xt, [Xn, Rm, extend #amount]
    ldrs_reg = load(register, sign64);
    /// LDRS{B,H} Wt, [Xn, Rm, extend #amount]
    ldrs_w_reg = load(register, sign32);

    /// STR {B,H,S,D}t, [Xn, #imm]
    str_fp_uimm = store_fp(uimm, size);
    /// LDR {B,H,S,D}t, [Xn, #imm]
    ldr_fp_uimm = load_fp(uimm, size);
    /// STR Qt, [Xn, #imm]
    str_q_uimm = store_fp(uimm, q);
    /// LDR Qt, [Xn, #imm]
    ldr_q_uimm = load_fp(uimm, q);
    /// STUR {B,H,S,D}t, [Xn, #simm]
    stur_fp = store_fp(unscaled, size);
    /// LDUR {B,H,S,D}t, [Xn, #simm]
    ldur_fp = load_fp(unscaled, size);
    /// STUR Qt, [Xn, #simm]
    stur_q = store_fp(unscaled, q);
    /// LDUR Qt, [Xn, #simm]
    ldur_q = load_fp(unscaled, q);
    /// STR {B,H,S,D}t, [Xn], #simm
    str_fp_post = store_fp(post, size);
    /// LDR {B,H,S,D}t, [Xn], #simm
    ldr_fp_post = load_fp(post, size);
    /// STR Qt, [Xn], #simm
    str_q_post = store_fp(post, q);
    /// LDR Qt, [Xn], #simm
    ldr_q_post = load_fp(post, q);
    /// STR {B,H,S,D}t, [Xn, #simm]!
    str_fp_pre = store_fp(pre, size);
    /// LDR {B,H,S,D}t, [Xn, #simm]!
    ldr_fp_pre = load_fp(pre, size);
    /// STR Qt, [Xn, #simm]!
    str_q_pre = store_fp(pre, q);
    /// LDR Qt, [Xn, #simm]!
    ldr_q_pre = load_fp(pre, q);
    /// STR {B,H,S,D}t, [Xn, Rm, extend #amount]
    str_fp_reg = store_fp(register, size);
    /// LDR {B,H,S,D}t, [Xn, Rm, extend #amount]
    ldr_fp_reg = load_fp(register, size);
    /// STR Qt, [Xn, Rm, extend #amount]
    str_q_reg = store_fp(register, q);
    /// LDR Qt, [Xn, Rm, extend #amount]
    ldr_q_reg = load_fp(register, q);

    /// STNP Rt, Rt2, [Xn, #imm]
    stnp = store_pair(pair);
    /// LDNP Rt, Rt2, [Xn, #imm]
    ldnp = load_pair(pair, pair_size, zero);
    /// STP Rt, Rt2, [Xn, #imm]
    stp = store_pair(pair);
    /// LDP Rt, Rt2, [Xn, #imm]
    ldp = load_pair(pair, pair_size, zero);
    /// LDPSW Xt, Xt2, [Xn, #imm]
    ldpsw = load_pair(pair, word, sign64);
    /// STP Rt, Rt2, [Xn], #imm
    stp_post = store_pair(pair_post);
    /// LDP Rt, Rt2, [Xn], #imm
    ldp_post = load_pair(pair_post, pair_size, zero);
    /// LDPSW Xt, Xt2, [Xn], #imm
    ldpsw_post = load_pair(pair_post, word, sign64);
    /// STP Rt, Rt2, [Xn, #imm]!
    stp_pre = store_pair(pair_pre);
    /// LDP Rt, Rt2, [Xn, #imm]!
    ldp_pre = load_pair(pair_pre, pair_size, zero);
    /// LDPSW Xt, Xt2, [Xn, #imm]!
    ldpsw_pre = load_pair(pair_pre, word, sign64);
    /// STNP {S,D,Q}t, {S,D,Q}t2, [Xn, #imm]
    stnp_fp = store_pair_fp(pair);
    /// LDNP {S,D,Q}t, {S,D,Q}t2, [Xn, #imm]
    ldnp_fp = load_pair_fp(pair);
    /// STP {S,D,Q}t, {S,D,Q}t2, [Xn, #imm]
    stp_fp = store_pair_fp(pair);
    /// LDP {S,D,Q}t, {S,D,Q}t2, [Xn, #imm]
    ldp_fp = load_pair_fp(pair);
    /// STP {S,D,Q}t, {S,D,Q}t2, [Xn], #imm
    stp_fp_post = store_pair_fp(pair_post);
    /// LDP {S,D,Q}t, {S,D,Q}t2, [Xn], #imm
    ldp_fp_post = load_pair_fp(pair_post);
    /// STP {S,D,Q}t, {S,D,Q}t2, [Xn, #imm]!
    stp_fp_pre = store_pair_fp(pair_pre);
    /// LDP {S,D,Q}t, {S,D,Q}t2, [Xn, #imm]!
    ldp_fp_pre = load_pair_fp(pair_pre);
}

/// LDR Rt, label
pub fn ldr_lit(l: &mut Lifter<'_>, i: Insn) {
    let address = literal(l, i);
    let value = load_value(l, &address, 2 + i.sz(), Extend::Zero);
    l.set_r(i.rt(), value);
}

/// LDRSW Xt, label
pub fn ldrsw_lit(l: &mut Lifter<'_>, i: Insn) {
    let address = literal(l, i);
    let value = load_value(l, &address, 2, Extend::Sign64);
    l.set_r(i.rt(), value);
}

/// LDR {S,D,Q}t, label
pub fn ldr_fp_lit(l: &mut Lifter<'_>, i: Insn) {
    let address = literal(l, i);
    let value = load_fp_value(l, &address, 0, 2 + i.size());
    set_fp(l, i.rt(), value);
}

// Prefetches are hints and never fault.

/// PRFM op, label
pub fn prfm_lit(_: &mut Lifter<'_>, _: Insn) {}

/// PRFM op, [Xn, #imm]
pub fn prfm_uimm(_: &mut Lifter<'_>, _: Insn) {}

/// PRFM op, [Xn, Rm, extend #amount]; RPRFM
pub fn prfm_reg(_: &mut Lifter<'_>, _: Insn) {}

/// PRFUM op, [Xn, #simm]
pub fn prfum(_: &mut Lifter<'_>, _: Insn) {}
