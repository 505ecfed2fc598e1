//! The bytecode: [`Step`]s and their code numbers.
//!
//! Operands are cell numbers. A result narrower than its cell is written zero-extended, except by copies (`MOV`,
//! selects, calls); the bits above an operand's type are ignored. All of a step's operands are read before its result
//! is written, and a step that faults writes nothing.
//!
//! Codes below [`SPECIAL`] belong to an [`Op`]: its number times sixteen plus a variant. `R` variants take operand `b`
//! from a cell, `K` variants from `imm`; the number is the operation's width.

use super::int::{cc_table, nzcv_table};
use super::vector;
use crate::op::Op;
use crate::types::{IntCc, NzcvCond};

/// One bytecode operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Step {
    pub code: u16,
    /// Result cell; value cell of a store; first target of a branch.
    pub d: u16,
    pub a: u16,
    pub b: u16,
    pub imm: u64,
}

const _: () = assert!(size_of::<Step>() == 16);

/// Codes of an operation's variants: `Of::<{ Op::Add as u8 }>::R32`.
pub struct Of<const OP: u8>;

impl<const OP: u8> Of<OP> {
    const BASE: u16 = (OP as u16) << 4;
    pub const R8: u16 = Self::BASE;
    pub const R16: u16 = Self::BASE + 1;
    pub const R32: u16 = Self::BASE + 2;
    pub const R64: u16 = Self::BASE + 3;
    pub const K8: u16 = Self::BASE + 4;
    pub const K16: u16 = Self::BASE + 5;
    pub const K32: u16 = Self::BASE + 6;
    pub const K64: u16 = Self::BASE + 7;
}

/// The code of variant `variant` of `op`: 0 to 3 as `R8` to `R64`, 4 to 7 as `K8` to `K64`.
pub const fn of(op: Op, variant: u16) -> u16 {
    (op as u16) << 4 | variant
}

/// First code that is not an operation's variant.
pub const SPECIAL: u16 = 0xc00;
const _: () = assert!(Op::ALL.len() << 4 <= SPECIAL as usize);

macro_rules! specials {
    ($($(#[$doc:meta])* $name:ident)+) => {
        #[allow(clippy::upper_case_acronyms, non_camel_case_types)]
        enum Special { $($name),+ }
        $($(#[$doc])* pub const $name: u16 = SPECIAL + Special::$name as u16;)+
        const SPECIAL_NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

specials! {
    /// `d = a`.
    MOV
    /// The same for a pair of cells.
    MOV2
    /// `d = imm`.
    CONST
    /// Both cells of `d` become `imm`.
    CONST2
    /// The pair `d` becomes the constant in the program's step number `imm`.
    POOL
    /// `d = a & imm`, high cell zero.
    ZEXT128
    /// `d` is `a` shifted left, then arithmetically right by `b`, and with `imm`.
    SEXT
    /// The same without the mask, to a pair.
    SEXT128
    /// `d = a >> b & imm`.
    BEXTRACT_U
    /// `a` shifted left by `b`, arithmetically right by `imm[7:0]`, cut to `imm[15:8]` bits.
    BEXTRACT_S
    /// Lowest bit in `imm[7:0]`, width in `imm[15:8]`.
    BINSERT
    CONCAT
    PARITY_EVEN
    /// `imm` is a truth table over the top four bits of `a`.
    NZCV_TEST
    /// The low `b` bits of `a` times `imm`, in both cells.
    SPLAT
    /// Bit offset in `imm[7:0]`, lane width in `imm[15:8]`.
    SET_LANE
    /// Byte numbers in the program's step number `imm`.
    SHUFFLE
    VAND
    VOR
    VXOR
    VAND_NOT
    VNOT
    /// Third operand in `imm`.
    VBITSEL
    /// The function `imm` (row times four plus column) of [`super::vector::BINARY`].
    VBINARY
    /// Of [`super::vector::COMPARE`].
    VCOMPARE
    /// Of [`super::vector::UNARY`].
    VUNARY
    /// Of [`super::vector::SHIFT`], by `b`.
    VSHIFT

    /// Any pure operation: [`super::eval::EvalOp::head`] and the third operand's cell above it in `imm`.
    EVAL
    /// The same with a result of two cells.
    EVAL2

    /// `a` chooses `b` or cell `imm`.
    SELECT
    /// `b` or the constant `imm`.
    SELECT_K
    /// The constant `imm` or `b`.
    SELECT_KR
    /// Pairs.
    SELECT2
    /// Truth table `imm[31:16]` over the packed flags `a` chooses `b` or cell `imm[15:0]`.
    SELECT_NZCV
    /// `b` or the constant `imm[63:32]`, sign-extended.
    SELECT_NZCV_K
    /// The constant or `b`.
    SELECT_NZCV_KR

    /// Sum to `d` and its NZCV to cell `imm` (`K`: operand in `imm`, flags to cell `b`).
    ADDS_R32 ADDS_R64 ADDS_K32 ADDS_K64
    SUBS_R32 SUBS_R64 SUBS_K32 SUBS_K64

    /// Any memory operation in `b`, the result's type in `b[15:13]`, offset `imm`.
    LOAD
    /// The same with a 32-bit address.
    LOAD_A32
    STORE
    STORE_A32
    /// Memory operation in `imm[15:0]`, kind in `imm[23:16]`, 32-bit address if `imm[24]`.
    RMW
    /// Third operand in `imm[15:0]`, memory operation in `imm[31:16]`, 32-bit address if `imm[32]`.
    CAS
    /// Kind in `a`.
    FENCE

    /// Third operand in `imm[15:0]`, helper in `imm[31:16]`, its immediate in `imm[63:32]`, sign-extended.
    CALL
    /// The immediate is in the program's step number `imm[63:32]`.
    CALL_WIDE

    /// To step `imm`.
    JUMP
    /// To step `d` if the I8 `a` is not zero, else to `b`.
    BRANCH
    /// The same, but `d` and `b` are numbers of exits.
    BRANCH_EXIT
    /// By truth table `imm` over the packed flags `a`.
    BRANCH_NZCV
    BRANCH_NZCV_EXIT
    /// Direct exit number `imm`.
    EXIT
    /// Kind `d`, pc `a`, site `b`.
    INDIRECT
    /// With the return pc `imm`.
    INDIRECT_RET
    /// Cells of return pc and flags in `imm[15:0]` and `imm[31:16]`, whether they are there in bits 32 and 33.
    INDIRECT_FULL
    /// Kind `d`, number `b << 16 | a`, pc `imm`.
    TRAP
}

/// First code of the fused compare-and-select: [`SelectIcmp`].
const SELECT_ICMP: u16 = 0xd00;
/// `R`: truth table over [`super::int::compare`] in `imm[39:32]`, chosen cells in `imm[15:0]` and `imm[31:16]`. `K`:
/// chosen cells in `b` and `imm[15:0]`, table in `imm[23:16]`, the constant in `imm[63:32]`, sign-extended.
pub struct SelectIcmp;

/// First code of the fused compare-and-branch: [`Branch`].
const BRANCH_ICMP: u16 = 0xd10;
/// Compare-and-branch by condition number `CC` of [`branch_cc`]. First target in `d`, second in `imm` (`R`) or `b` (`K`).
/// `X` variants: the targets are numbers of exits.
pub struct Branch<const CC: u8>;

macro_rules! variants {
    ($($name:ident = $n:literal),+) => {
        impl SelectIcmp { $(pub const $name: u16 = SELECT_ICMP + $n;)+ }
        impl<const CC: u8> Branch<CC> {
            $(pub const $name: u16 = BRANCH_ICMP + ((CC as u16) << 4) + $n;)+
        }
    };
}
variants! {
    R8 = 0, R16 = 1, R32 = 2, R64 = 3, K8 = 4, K16 = 5, K32 = 6, K64 = 7,
    XR8 = 8, XR16 = 9, XR32 = 10, XR64 = 11, XK8 = 12, XK16 = 13, XK32 = 14, XK64 = 15
}

pub const fn select_icmp(variant: u16) -> u16 {
    SELECT_ICMP + variant
}
pub const fn branch_icmp(cc: u8, variant: u16, exits: bool) -> u16 {
    BRANCH_ICMP + ((cc as u16) << 4) + variant + if exits { 8 } else { 0 }
}

/// The condition number (0 eq, 1 lt_s, 2 le_s, 3 lt_u, 4 le_u) that a condition is, and whether it is its negation.
pub const fn branch_cc(cc: IntCc) -> (u8, bool) {
    match cc {
        IntCc::Eq => (0, false),
        IntCc::Ne => (0, true),
        IntCc::LtS => (1, false),
        IntCc::GeS => (1, true),
        IntCc::LeS => (2, false),
        IntCc::GtS => (2, true),
        IntCc::LtU => (3, false),
        IntCc::GeU => (3, true),
        IntCc::LeU => (4, false),
        IntCc::GtU => (4, true),
    }
}

/// The condition of a truth table of `Icmp` and [`SelectIcmp`] steps: bits as [`super::int::compare`] numbers them.
pub fn table_cc(table: u8) -> Option<IntCc> {
    IntCc::ALL.iter().copied().find(|&cc| cc_table(cc) == table)
}
/// The condition of a truth table over the top four bits of a packed word.
pub fn table_nzcv(table: u16) -> Option<NzcvCond> {
    NzcvCond::ALL.iter().copied().find(|&cond| nzcv_table(cond) == table)
}

/// The operation and the log2 of the lanes' bytes that the function number of a [`VBINARY`], [`VUNARY`] or [`VSHIFT`]
/// step means.
pub fn lanewise(code: u16, function: u64) -> (Op, u8) {
    let ops = match code {
        VBINARY => vector::BINARY_OPS,
        VUNARY => vector::UNARY_OPS,
        _ => vector::SHIFT_OPS,
    };
    (ops[function as usize >> 2], function as u8 & 3)
}

/// Kinds of plain loads, by memory size, extension and result width. Stores use the unsigned ones.
pub mod kind {
    pub const U8: u16 = 0;
    pub const U16: u16 = 1;
    pub const U32: u16 = 2;
    pub const U64: u16 = 3;
    pub const U128: u16 = 4;
    pub const S8_32: u16 = 5;
    pub const S8_64: u16 = 6;
    pub const S16_32: u16 = 7;
    pub const S16_64: u16 = 8;
    pub const S32_64: u16 = 9;
}

/// Addressing of plain loads and stores.
pub mod address {
    /// `a + imm`.
    pub const BASE: u16 = 0;
    /// `a + (b << imm[31:0]) + imm[63:32]` (sign-extended).
    pub const INDEX: u16 = 2;
    /// Added to either: the sum wraps at 32 bits.
    pub const WRAP32: u16 = 1;
}

const PLAIN_LOAD: u16 = 0xe00;
const PLAIN_STORE: u16 = 0xe40;
/// Plain loads of a [`kind`].
pub struct Load<const KIND: u16>;
/// Plain stores of a [`kind`]; the value is in `d`.
pub struct Store<const KIND: u16>;

macro_rules! modes {
    ($($name:ident = $n:expr),+) => {
        impl<const KIND: u16> Load<KIND> { $(pub const $name: u16 = PLAIN_LOAD + KIND * 4 + $n;)+ }
        impl<const KIND: u16> Store<KIND> { $(pub const $name: u16 = PLAIN_STORE + KIND * 4 + $n;)+ }
    };
}
modes! {
    BASE = address::BASE, BASE32 = address::BASE + address::WRAP32,
    INDEX = address::INDEX, INDEX32 = address::INDEX + address::WRAP32
}
pub const fn plain_load(kind: u16, mode: u16) -> u16 {
    PLAIN_LOAD + kind * 4 + mode
}
pub const fn plain_store(kind: u16, mode: u16) -> u16 {
    PLAIN_STORE + kind * 4 + mode
}

/// A code's name, for listings.
pub fn name(code: u16) -> String {
    match code {
        0..SPECIAL => format!("{}.{}", Op::ALL[(code >> 4) as usize].info().name, code & 15),
        PLAIN_STORE.. => format!("store.{}", code - PLAIN_STORE),
        PLAIN_LOAD.. => format!("load.{}", code - PLAIN_LOAD),
        BRANCH_ICMP.. => format!("branch_icmp.{}", code - BRANCH_ICMP),
        SELECT_ICMP.. => format!("select_icmp.{}", code - SELECT_ICMP),
        _ => SPECIAL_NAMES[(code - SPECIAL) as usize].to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_their_conditions() {
        for &cc in IntCc::ALL {
            assert_eq!(table_cc(cc_table(cc)), Some(cc));
        }
        for &cond in NzcvCond::ALL {
            assert_eq!(table_nzcv(nzcv_table(cond)), Some(cond));
        }
        assert_eq!(table_cc(0b1001_0110), None);
    }
}
