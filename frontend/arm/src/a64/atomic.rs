//! Exclusive, ordered and atomic accesses.
//!
//! Every access here demands natural alignment. LDAR and STLR are sequentially consistent among
//! themselves (RCsc), LDAPR is only acquire. Atomic operations are sequentially consistent whatever their
//! acquire and release bits say: hosts have nothing cheaper. Exclusives: see the module [`super`].

use super::decode::Insn;
use super::lifter::Lifter;
use super::regs;
use tulk_base::{MemAlign, MemOp, MemOrder, RmwOp};
use tulk_ir::{FenceKind, IntCc, Type, Value};

fn aligned(log2: u32) -> MemOp {
    MemOp::of_log2(log2 as u8).with_align(MemAlign::Natural)
}

// Exclusives.

/// `lo` and `hi` as the value of a pair of two words of `8 * width` bits: I64 or I128.
fn join(l: &mut Lifter<'_>, sz: u32, lo: Value, hi: Value) -> Value {
    if sz == 0 { l.binsert(lo, hi, 32, 32) } else { l.concat(lo, hi) }
}

/// The two registers' values, as I64s, of what [`join`] made.
fn split(l: &mut Lifter<'_>, sz: u32, pair: Value) -> (Value, Value) {
    if sz == 0 {
        (l.bextract_u(pair, 0, 32), l.bextract_u(pair, 32, 32))
    } else {
        (l.lo64(pair), l.hi64(pair))
    }
}

/// Before a release, after an acquire.
fn ordering(l: &mut Lifter<'_>, i: Insn, kind: FenceKind) {
    if i.excl_ord() == 1 {
        l.fence(kind);
    }
}

/// LDXR{B,H} Rt, [Xn]; LDAXR
pub fn ldxr(l: &mut Lifter<'_>, i: Insn) {
    let addr = l.base(i.rn());
    let value = l.load(Type::I64, addr, 0, aligned(i.size()));
    ordering(l, i, FenceKind::Acquire);
    l.set(regs::EXCL_ADDR, addr);
    l.set(regs::EXCL_LO, value);
    l.set_r(i.rt(), value);
}

/// LDXP Rt, Rt2, [Xn]; LDAXP. Atomic only together with the store, as the manual has it.
pub fn ldxp(l: &mut Lifter<'_>, i: Insn) {
    let addr = l.base(i.rn());
    let (lo, hi);
    if i.sz() == 0 {
        let both = l.load(Type::I64, addr, 0, aligned(3));
        l.set(regs::EXCL_LO, both);
        (lo, hi) = split(l, 0, both);
    } else {
        let align = MemOp::U64.with_align(MemAlign::Sixteen);
        lo = l.load(Type::I64, addr, 0, align);
        hi = l.load(Type::I64, addr, 8, MemOp::U64);
        l.set(regs::EXCL_LO, lo);
        l.set(regs::EXCL_HI, hi);
    }
    ordering(l, i, FenceKind::Acquire);
    l.set(regs::EXCL_ADDR, addr);
    l.set_r(i.rt(), lo);
    l.set_r(i.rt2(), hi);
}

/// A store-exclusive: when the monitor still has the address, `swap` tries the store and returns the old and
/// the expected value.
fn store_exclusive(
    l: &mut Lifter<'_>,
    i: Insn,
    swap: impl FnOnce(&mut Lifter<'_>) -> (Value, Value),
) {
    let addr = l.base(i.rn());
    let monitor = l.get(regs::EXCL_ADDR);
    let ours = l.icmp(IntCc::Eq, monitor, addr);
    let (attempt, fail, done) = (l.label(), l.label(), l.label());
    l.brif(ours, attempt, fail);
    l.place(attempt);
    let (old, expected) = swap(l);
    let failed = l.icmp(IntCc::Ne, old, expected);
    let none = l.iconst(Type::I64, -1);
    l.set(regs::EXCL_ADDR, none);
    l.set_r(i.rs(), failed);
    l.jump(done);
    l.place(fail);
    let none = l.iconst(Type::I64, -1);
    l.set(regs::EXCL_ADDR, none);
    l.set_known(i.rs(), 1);
    l.place(done);
}

/// STXR{B,H} Ws, Rt, [Xn]; STLXR
pub fn stxr(l: &mut Lifter<'_>, i: Insn) {
    let ty = Type::int_of_log2(i.size() as u8);
    store_exclusive(l, i, |l| {
        let (addr, new, expected) = (l.xsp(i.rn()), l.x(i.rt()), l.get(regs::EXCL_LO));
        let (new, expected) = (l.trunc(ty, new), l.trunc(ty, expected));
        (l.atomic_cas(aligned(i.size()), addr, expected, new), expected)
    });
}

/// STXP Ws, Rt, Rt2, [Xn]; STLXP
pub fn stxp(l: &mut Lifter<'_>, i: Insn) {
    store_exclusive(l, i, |l| {
        let (addr, lo, hi) = (l.xsp(i.rn()), l.x(i.rt()), l.x(i.rt2()));
        let new = join(l, i.sz(), lo, hi);
        let mut expected = l.get(regs::EXCL_LO);
        if i.sz() == 1 {
            let hi = l.get(regs::EXCL_HI);
            expected = l.concat(expected, hi);
        }
        (l.atomic_cas(aligned(3 + i.sz()), addr, expected, new), expected)
    });
}

// Ordered loads and stores.

fn load_ordered(l: &mut Lifter<'_>, i: Insn, order: MemOrder) {
    let addr = l.base(i.rn());
    let value = l.load(Type::I64, addr, 0, aligned(i.size()).with_order(order));
    l.set_r(i.rt(), value);
}

fn store_ordered(l: &mut Lifter<'_>, i: Insn) {
    let (addr, value) = (l.base(i.rn()), l.x(i.rt()));
    l.store(addr, 0, aligned(i.size()).with_order(MemOrder::SeqCst), value);
}

/// STLLR{B,H} Rt, [Xn]
pub fn stllr(l: &mut Lifter<'_>, i: Insn) {
    store_ordered(l, i);
}

/// STLR{B,H} Rt, [Xn]
pub fn stlr(l: &mut Lifter<'_>, i: Insn) {
    store_ordered(l, i);
}

/// LDLAR{B,H} Rt, [Xn]
pub fn ldlar(l: &mut Lifter<'_>, i: Insn) {
    load_ordered(l, i, MemOrder::SeqCst);
}

/// LDAR{B,H} Rt, [Xn]
pub fn ldar(l: &mut Lifter<'_>, i: Insn) {
    load_ordered(l, i, MemOrder::SeqCst);
}

/// LDAPR{B,H} Rt, [Xn]
pub fn ldapr(l: &mut Lifter<'_>, i: Insn) {
    load_ordered(l, i, MemOrder::Acquire);
}

fn unscaled_offset(i: Insn) -> i64 {
    ((i.imm9() << 23) as i32 >> 23) as i64
}

/// STLUR{B,H} Rt, [Xn, #simm]
pub fn stlur(l: &mut Lifter<'_>, i: Insn) {
    let (addr, value) = (l.base(i.rn()), l.x(i.rt()));
    let op = aligned(i.size()).with_order(MemOrder::SeqCst);
    l.store(addr, unscaled_offset(i), op, value);
}

fn load_acquire_unscaled(l: &mut Lifter<'_>, i: Insn, ty: Type, op: MemOp) {
    let addr = l.base(i.rn());
    let value = l.load(ty, addr, unscaled_offset(i), op.with_order(MemOrder::Acquire));
    l.set_r(i.rt(), value);
}

/// LDAPUR{B,H} Rt, [Xn, #simm]
pub fn ldapur(l: &mut Lifter<'_>, i: Insn) {
    load_acquire_unscaled(l, i, Type::I64, aligned(i.size()));
}

/// LDAPURS{B,H,W} Xt, [Xn, #simm]
pub fn ldapurs(l: &mut Lifter<'_>, i: Insn) {
    load_acquire_unscaled(l, i, Type::I64, aligned(i.size()).with_sign());
}

/// LDAPURS{B,H} Wt, [Xn, #simm]
pub fn ldapurs_w(l: &mut Lifter<'_>, i: Insn) {
    load_acquire_unscaled(l, i, Type::I32, aligned(i.size()).with_sign());
}

// Atomic operations.

fn rmw(l: &mut Lifter<'_>, i: Insn, op: RmwOp) {
    let (addr, operand) = (l.base(i.rn()), l.x(i.rs()));
    let operand = l.trunc(Type::int_of_log2(i.size() as u8), operand);
    let old = l.atomic_rmw(op, aligned(i.size()), addr, operand);
    l.set_r(i.rt(), old);
}

macro_rules! rmw {
    ($($(#[$doc:meta])* $name:ident $op:ident;)+) => {
        $($(#[$doc])* pub fn $name(l: &mut Lifter<'_>, i: Insn) { rmw(l, i, RmwOp::$op) })+
    };
}

rmw! {
    /// LDADD{A,L}{B,H} Rs, Rt, [Xn]; STADD
    ldadd Add;
    /// LDCLR{A,L}{B,H} Rs, Rt, [Xn]; STCLR
    ldclr AndNot;
    /// LDEOR{A,L}{B,H} Rs, Rt, [Xn]; STEOR
    ldeor Xor;
    /// LDSET{A,L}{B,H} Rs, Rt, [Xn]; STSET
    ldset Or;
    /// LDSMAX{A,L}{B,H} Rs, Rt, [Xn]; STSMAX
    ldsmax MaxS;
    /// LDSMIN{A,L}{B,H} Rs, Rt, [Xn]; STSMIN
    ldsmin MinS;
    /// LDUMAX{A,L}{B,H} Rs, Rt, [Xn]; STUMAX
    ldumax MaxU;
    /// LDUMIN{A,L}{B,H} Rs, Rt, [Xn]; STUMIN
    ldumin MinU;
    /// SWP{A,L}{B,H} Rs, Rt, [Xn]
    swp Xchg;
}

/// CAS{A,L}{B,H} Rs, Rt, [Xn]
pub fn cas(l: &mut Lifter<'_>, i: Insn) {
    let ty = Type::int_of_log2(i.size() as u8);
    let addr = l.base(i.rn());
    let [expected, new] = [i.rs(), i.rt()].map(|n| {
        let x = l.x(n);
        l.trunc(ty, x)
    });
    let old = l.atomic_cas(aligned(i.size()), addr, expected, new);
    l.set_r(i.rs(), old);
}

/// CASP{A,L} Rs, R(s+1), Rt, R(t+1), [Xn]
pub fn casp(l: &mut Lifter<'_>, i: Insn) {
    let addr = l.base(i.rn());
    let [expected, new] = [i.rs(), i.rt()].map(|n| {
        let (lo, hi) = (l.x(n), l.x(n + 1));
        join(l, i.sz(), lo, hi)
    });
    let old = l.atomic_cas(aligned(3 + i.sz()), addr, expected, new);
    let (lo, hi) = split(l, i.sz(), old);
    l.set_r(i.rs(), lo);
    l.set_r(i.rs() + 1, hi);
}
