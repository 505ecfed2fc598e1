//! The table of IR operations: the one place where an operation is declared.
//!
//! A row reads: name in Rust, name in text, `(operand types) -> result type`, what `aux`, `imm` and `imm2` of the
//! instruction hold, effects, and its meaning. The enum, the builder's checks, the printer, the parser and the
//! verifier come from this table; the interpreter and the lowering match on [`Op`] without a wildcard arm.
//!
//! Legend of operand and result types: `Own` is the instruction's own type field `ty` (whose class stands first
//! in the row), `Bool` an I8 that is 0 or 1, `Lane` the scalar type of a lane of `shape`, `Addr` an I32 or I64
//! address (an I32 address plus offset wraps at 32 bits), the rest name a type or a class of types.
//!
//! Results are never undefined: shift amounts count modulo the width (except in `v*v` shifts, see there),
//! division by zero gives 0 (remainder: the dividend), the most negative number divided by -1 wraps.

/// Class of types allowed in the `ty` field, or demanded of an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// I8 to I64.
    Word,
    /// I32 or I64.
    Word32,
    /// I8 to I128.
    Int,
    /// F32 or F64.
    Float,
    V128,
    Any,
    /// The field is unused and holds I64.
    Unused,
}

/// What an operand must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    Own,
    Bool,
    I32,
    I64,
    I128,
    V128,
    Lane,
    Addr,
    /// Any integer narrower than `ty`.
    Narrower,
    /// Any integer wider than `ty`.
    Wider,
    /// I32 or I64.
    Word32,
    /// F32 or F64.
    Float,
    /// Any type of the same width as `ty`.
    SameWidth,
    /// As the helper's row declares; absent ones are `Value::NONE`.
    Helper,
    /// I64 or absent.
    OptI64,
}

/// What the result is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Res {
    None,
    Own,
    Bool,
    I32,
    I64,
    I128,
    V128,
    /// As the helper's row declares; `ty` holds it (and `dst` is `Value::NONE` when there is none).
    Helper,
}

/// What the `aux` byte holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aux {
    None,
    IntCc,
    /// [`crate::FloatCc`]; bit 7 set: signalling.
    FloatCc,
    /// [`crate::Round`]; bit 7 set: raises inexact.
    RoundExact,
    /// [`crate::Round`]; bit 7 set: out of range gives the most negative number (unsigned: all ones; "indefinite", x86)
    /// instead of saturating (NaN gives 0).
    RoundRange,
    MinKind,
    NzcvCond,
    Rmw,
    Fence,
    Exit,
    /// Bit 7 set: signalling comparison.
    Signalling,
    /// Bit 7 set: the guest instruction replaces all slots of [`crate::RegLayout::overwrite`] before it reads them, and
    /// cannot fault.
    Overwriting,
}

/// What `imm` and `imm2` hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Imm {
    None,
    Const,
    /// Index into the unit's pool of 128-bit constants.
    Pool,
    /// `imm`: byte offset added to the address; `imm2`: [`tulk_base::MemOp`].
    Mem,
    /// `imm2`: slot.
    Slot,
    /// `imm2`: lane number.
    Lane,
    /// `imm2`: shift amount, 0 to the lane width inclusive (right) or exclusive (left).
    Amount,
    /// `imm2`: lowest bit in `[7:0]`, number of bits (at least 1) in `[15:8]`.
    Field,
    /// `imm2`: block.
    Block,
    /// `imm2`: block taken when the operand is non-zero; `imm`: the other.
    Blocks,
    /// `imm`: pc.
    Pc,
    /// `imm`: pc; `imm2`: instruction length in bytes.
    Insn,
    /// `imm`: value for the pc cell; `imm2`: the trap's number.
    Trap,
    /// `imm2`: helper number; `imm`: its immediate argument.
    Helper,
    /// `imm2`: [`tulk_base::MemOp`]; no offset.
    MemOp,
}

/// Effects beyond the result, or-ed together.
pub mod effect {
    /// May end in a guest fault.
    pub const FAULT: u8 = 1;
    pub const READ: u8 = 2;
    pub const WRITE: u8 = 4;
    /// Reads or writes a slot.
    pub const SLOT: u8 = 8;
    /// Raises sticky floating-point flags.
    pub const FLAGS: u8 = 16;
    /// Ends an IR block.
    pub const END: u8 = 32;
    /// Must stay even when its result is unused, for other reasons.
    pub const KEEP: u8 = 64;
}

/// One row of the table.
#[derive(Debug)]
pub struct OpInfo {
    pub name: &'static str,
    pub class: Class,
    pub args: &'static [Arg],
    pub result: Res,
    pub aux: Aux,
    pub imm: Imm,
    /// True when the `shape` field is meaningful.
    pub shaped: bool,
    /// Bits of [`effect`].
    pub effects: u8,
    pub meaning: &'static str,
}

macro_rules! ops {
    ($($variant:ident $name:literal $class:ident ($($arg:ident),*) -> $res:ident, $aux:ident, $imm:ident, $shaped:literal, [$($eff:ident)*] $doc:literal;)+) => {
        /// An IR operation. Each variant's documentation is its row of the table.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Op { $(#[doc = $doc] $variant),+ }

        impl Op {
            pub const ALL: &'static [Op] = &[$(Op::$variant),+];
            const INFO: &'static [OpInfo] = &[$(OpInfo {
                name: $name,
                class: Class::$class,
                args: &[$(Arg::$arg),*],
                result: Res::$res,
                aux: Aux::$aux,
                imm: Imm::$imm,
                shaped: $shaped,
                effects: 0 $(| effect::$eff)*,
                meaning: $doc,
            }),+];

            /// The operation's row.
            #[inline]
            pub fn info(self) -> &'static OpInfo {
                &Self::INFO[self as usize]
            }
            /// The operation of this name in IR text.
            pub fn parse(name: &str) -> Option<Op> {
                match name { $($name => Some(Op::$variant),)+ _ => None }
            }
        }
    };
}

ops! {
    // Constants and slots.
    Iconst "iconst" Int () -> Own, None, Const, false, [] "The constant `imm`, truncated or sign-extended to `ty`.";
    Vconst "vconst" V128 () -> Own, None, Pool, false, [] "The constant number `imm` of the unit's pool.";
    Get "get" Any () -> Own, None, Slot, false, [SLOT] "The slot's value. `ty` is the slot's type.";
    Set "set" Any (Own) -> None, None, Slot, false, [SLOT] "Writes the slot.";
    Bitcast "bitcast" Any (SameWidth) -> Own, None, None, false, [] "The same bits as another type of the same width.";

    // Integer arithmetic.
    Add "add" Int (Own, Own) -> Own, None, None, false, [] "Sum, wrapping.";
    Sub "sub" Int (Own, Own) -> Own, None, None, false, [] "Difference, wrapping.";
    Mul "mul" Int (Own, Own) -> Own, None, None, false, [] "Low half of the product.";
    MulhU "mulh_u" Word (Own, Own) -> Own, None, None, false, [] "High half of the unsigned product.";
    MulhS "mulh_s" Word (Own, Own) -> Own, None, None, false, [] "High half of the signed product.";
    DivU "div_u" Word (Own, Own) -> Own, None, None, false, [] "Unsigned quotient; 0 when dividing by 0.";
    DivS "div_s" Word (Own, Own) -> Own, None, None, false, [] "Signed quotient towards zero; 0 when dividing by 0; wraps.";
    RemU "rem_u" Word (Own, Own) -> Own, None, None, false, [] "Unsigned remainder; the dividend when dividing by 0.";
    RemS "rem_s" Word (Own, Own) -> Own, None, None, false, [] "Signed remainder; the dividend when dividing by 0; 0 for MIN by -1.";
    Neg "neg" Int (Own) -> Own, None, None, false, [] "Two's complement negation.";
    Abs "abs" Word (Own) -> Own, None, None, false, [] "Magnitude, wrapping at MIN.";
    MinU "min_u" Word (Own, Own) -> Own, None, None, false, [] "Unsigned minimum.";
    MinS "min_s" Word (Own, Own) -> Own, None, None, false, [] "Signed minimum.";
    MaxU "max_u" Word (Own, Own) -> Own, None, None, false, [] "Unsigned maximum.";
    MaxS "max_s" Word (Own, Own) -> Own, None, None, false, [] "Signed maximum.";
    AddCarry "add_carry" Word (Own, Own, Bool) -> Own, None, None, false, [] "`a + b + carry`, wrapping.";
    CarryOut "carry_out" Word (Own, Own, Bool) -> Bool, None, None, false, [] "Unsigned carry out of `a + b + carry`.";

    // Bits.
    Not "not" Int (Own) -> Own, None, None, false, [] "Complement.";
    And "and" Int (Own, Own) -> Own, None, None, false, [] "Bitwise and.";
    Or "or" Int (Own, Own) -> Own, None, None, false, [] "Bitwise or.";
    Xor "xor" Int (Own, Own) -> Own, None, None, false, [] "Bitwise exclusive or.";
    AndNot "and_not" Int (Own, Own) -> Own, None, None, false, [] "`a & !b`.";
    OrNot "or_not" Int (Own, Own) -> Own, None, None, false, [] "`a | !b`.";
    XorNot "xor_not" Int (Own, Own) -> Own, None, None, false, [] "`a ^ !b`.";
    Shl "shl" Int (Own, Own) -> Own, None, None, false, [] "Shift left by `b` modulo the width.";
    ShrU "shr_u" Int (Own, Own) -> Own, None, None, false, [] "Logical shift right by `b` modulo the width.";
    ShrS "shr_s" Int (Own, Own) -> Own, None, None, false, [] "Arithmetic shift right by `b` modulo the width.";
    Rotl "rotl" Word (Own, Own) -> Own, None, None, false, [] "Rotate left by `b` modulo the width.";
    Rotr "rotr" Word (Own, Own) -> Own, None, None, false, [] "Rotate right by `b` modulo the width.";
    Clz "clz" Word (Own) -> Own, None, None, false, [] "Leading zero bits; the width for 0.";
    Ctz "ctz" Word (Own) -> Own, None, None, false, [] "Trailing zero bits; the width for 0.";
    Popcnt "popcnt" Word (Own) -> Own, None, None, false, [] "Number of one bits.";
    Bswap "bswap" Int (Own) -> Own, None, None, false, [] "Bytes reversed.";
    Bitrev "bitrev" Word (Own) -> Own, None, None, false, [] "Bits reversed.";
    BextractU "bextract_u" Word (Own) -> Own, None, Field, false, [] "The field, zero-extended.";
    BextractS "bextract_s" Word (Own) -> Own, None, Field, false, [] "The field, sign-extended.";
    Binsert "binsert" Word (Own, Own) -> Own, None, Field, false, [] "`a` with the field replaced by the low bits of `b`.";
    ParityEven "parity_even" Word (Own) -> Bool, None, None, false, [] "1 when the low byte has an even number of ones.";

    // Widths, pairs, choice.
    Zext "zext" Int (Narrower) -> Own, None, None, false, [] "Zero-extension.";
    Sext "sext" Int (Narrower) -> Own, None, None, false, [] "Sign-extension.";
    Trunc "trunc" Word (Wider) -> Own, None, None, false, [] "The low bits.";
    Concat "concat" Unused (I64, I64) -> I128, None, None, false, [] "`a` low, `b` high.";
    Lo64 "lo64" Unused (I128) -> I64, None, None, false, [] "Low half.";
    Hi64 "hi64" Unused (I128) -> I64, None, None, false, [] "High half.";
    Icmp "icmp" Int (Own, Own) -> Bool, IntCc, None, false, [] "Comparison of integers (I128: eq and ne only).";
    Select "select" Any (Bool, Own, Own) -> Own, None, None, false, [] "`b` when the first operand is non-zero, else `c`.";

    // Packed condition flags, see [`crate::types::nzcv`]. Bits 27:0 are zero.
    AddNzcv "add_nzcv" Word32 (Own, Own) -> I32, None, None, false, [] "NZCV of `a + b`.";
    SubNzcv "sub_nzcv" Word32 (Own, Own) -> I32, None, None, false, [] "NZCV of `a - b`; C is set when there is no borrow.";
    AdcNzcv "adc_nzcv" Word32 (Own, Own, Bool) -> I32, None, None, false, [] "NZCV of `a + b + carry`.";
    LogicNzcv "logic_nzcv" Word32 (Own) -> I32, None, None, false, [] "N and Z of `a`; C and V zero.";
    FcmpNzcv "fcmp_nzcv" Float (Own, Own) -> I32, Signalling, None, false, [FLAGS] "N if less, Z and C if equal, C if greater, C and V if unordered.";
    NzcvTest "nzcv_test" Unused (I32) -> Bool, NzcvCond, None, false, [] "The condition over a packed word.";

    // Memory.
    Load "load" Any (Addr) -> Own, None, Mem, false, [FAULT READ] "Loads `memop.bytes()` at address plus `imm`, extended to `ty` as memop says (floats and 128-bit types: exactly their size).";
    Store "store" Any (Addr, Own) -> None, None, Mem, false, [FAULT WRITE] "Stores the low `memop.bytes()` of the value.";
    AtomicRmw "atomic_rmw" Word (Addr, Own) -> Own, Rmw, MemOp, false, [FAULT READ WRITE KEEP] "Sequentially consistent read-modify-write; the old value. memop's size is the size of `ty`.";
    AtomicCas "atomic_cas" Int (Addr, Own, Own) -> Own, None, MemOp, false, [FAULT READ WRITE KEEP] "Sequentially consistent compare (operand 2) and swap (operand 3); the old value.";
    Fence "fence" Unused () -> None, Fence, None, false, [KEEP] "Memory fence.";

    // Floating point. Rounding follows the environment, flags accumulate there, NaNs follow the unit's FpRule.
    Fadd "fadd" Float (Own, Own) -> Own, None, None, false, [FLAGS] "Sum.";
    Fsub "fsub" Float (Own, Own) -> Own, None, None, false, [FLAGS] "Difference.";
    Fmul "fmul" Float (Own, Own) -> Own, None, None, false, [FLAGS] "Product.";
    Fdiv "fdiv" Float (Own, Own) -> Own, None, None, false, [FLAGS] "Quotient.";
    Fsqrt "fsqrt" Float (Own) -> Own, None, None, false, [FLAGS] "Square root.";
    Fma "fma" Float (Own, Own, Own) -> Own, None, None, false, [FLAGS] "`a * b + c`, rounded once.";
    Fneg "fneg" Float (Own) -> Own, None, None, false, [] "Sign bit flipped, NaNs too.";
    Fabs "fabs" Float (Own) -> Own, None, None, false, [] "Sign bit cleared, NaNs too.";
    Fmin "fmin" Float (Own, Own) -> Own, MinKind, None, false, [FLAGS] "Minimum.";
    Fmax "fmax" Float (Own, Own) -> Own, MinKind, None, false, [FLAGS] "Maximum.";
    Fcmp "fcmp" Float (Own, Own) -> Bool, FloatCc, None, false, [FLAGS] "Comparison.";
    Fround "fround" Float (Own) -> Own, RoundExact, None, false, [FLAGS] "To an integral value in the same format.";
    FtoS "fto_s" Word32 (Float) -> Own, RoundRange, None, false, [FLAGS] "To a signed integer.";
    FtoU "fto_u" Word32 (Float) -> Own, RoundRange, None, false, [FLAGS] "To an unsigned integer.";
    StoF "sto_f" Float (Word32) -> Own, None, None, false, [FLAGS] "From a signed integer.";
    UtoF "uto_f" Float (Word32) -> Own, None, None, false, [FLAGS] "From an unsigned integer.";
    Fpromote "fpromote" Unused (Float) -> Own, None, None, false, [FLAGS] "F32 to F64 (`ty` is F64).";
    Fdemote "fdemote" Unused (Float) -> Own, None, None, false, [FLAGS] "F64 to F32 (`ty` is F32).";

    // Vectors: lanes. Lane 0 is the least significant.
    Vsplat "vsplat" V128 (Lane) -> Own, None, None, true, [] "Every lane is the scalar.";
    Vscalar "vscalar" V128 (Lane) -> Own, None, None, true, [] "Lane 0 is the scalar, the others zero.";
    Vlane "vlane" Any (V128) -> Own, None, Lane, true, [] "One lane; `ty` is the lane type.";
    VsetLane "vset_lane" V128 (Own, Lane) -> Own, None, Lane, true, [] "`a` with one lane replaced.";
    Vshuffle "vshuffle" V128 (Own, Own) -> Own, None, Pool, false, [] "Byte i is byte `pool[imm][i]` (0 to 31) of `a` followed by `b`.";
    Vswizzle "vswizzle" V128 (Own, Own) -> Own, None, None, false, [] "Byte i is byte `b[i]` of `a`, 0 when `b[i]` is above 15.";

    // Vectors: bits.
    Vand "vand" V128 (Own, Own) -> Own, None, None, false, [] "Bitwise and.";
    Vor "vor" V128 (Own, Own) -> Own, None, None, false, [] "Bitwise or.";
    Vxor "vxor" V128 (Own, Own) -> Own, None, None, false, [] "Bitwise exclusive or.";
    VandNot "vand_not" V128 (Own, Own) -> Own, None, None, false, [] "`a & !b`.";
    Vnot "vnot" V128 (Own) -> Own, None, None, false, [] "Complement.";
    Vbitsel "vbitsel" V128 (Own, Own, Own) -> Own, None, None, false, [] "`(a & b) | (!a & c)`.";

    // Vectors: integer lanes.
    Vadd "vadd" V128 (Own, Own) -> Own, None, None, true, [] "Sums, wrapping.";
    Vsub "vsub" V128 (Own, Own) -> Own, None, None, true, [] "Differences, wrapping.";
    Vmul "vmul" V128 (Own, Own) -> Own, None, None, true, [] "Low halves of the products.";
    Vneg "vneg" V128 (Own) -> Own, None, None, true, [] "Negations.";
    Vabs "vabs" V128 (Own) -> Own, None, None, true, [] "Magnitudes, wrapping.";
    VaddSatS "vadd_sat_s" V128 (Own, Own) -> Own, None, None, true, [] "Signed saturating sums (all lane widths).";
    VaddSatU "vadd_sat_u" V128 (Own, Own) -> Own, None, None, true, [] "Unsigned saturating sums.";
    VsubSatS "vsub_sat_s" V128 (Own, Own) -> Own, None, None, true, [] "Signed saturating differences.";
    VsubSatU "vsub_sat_u" V128 (Own, Own) -> Own, None, None, true, [] "Unsigned saturating differences.";
    VminS "vmin_s" V128 (Own, Own) -> Own, None, None, true, [] "Signed minima.";
    VminU "vmin_u" V128 (Own, Own) -> Own, None, None, true, [] "Unsigned minima.";
    VmaxS "vmax_s" V128 (Own, Own) -> Own, None, None, true, [] "Signed maxima.";
    VmaxU "vmax_u" V128 (Own, Own) -> Own, None, None, true, [] "Unsigned maxima.";
    VavgU "vavg_u" V128 (Own, Own) -> Own, None, None, true, [] "`(a + b + 1) >> 1` without overflow, unsigned.";
    Vicmp "vicmp" V128 (Own, Own) -> Own, IntCc, None, true, [] "All ones in lanes where the comparison holds, else zero.";
    VshlI "vshl_i" V128 (Own) -> Own, None, Amount, true, [] "Shift left by `imm2`.";
    VshrUI "vshr_u_i" V128 (Own) -> Own, None, Amount, true, [] "Logical shift right; the full width gives 0.";
    VshrSI "vshr_s_i" V128 (Own) -> Own, None, Amount, true, [] "Arithmetic shift right; the full width gives the sign.";
    VshlV "vshl_v" V128 (Own, Own) -> Own, None, None, true, [] "Shift each lane left by the unsigned lane of `b`; 0 when that is at least the width.";
    VshrUV "vshr_u_v" V128 (Own, Own) -> Own, None, None, true, [] "Logical shift right per lane; 0 when the amount is at least the width.";
    VshrSV "vshr_s_v" V128 (Own, Own) -> Own, None, None, true, [] "Arithmetic shift right per lane; the sign when the amount is at least the width.";
    VshlBy "vshl_by" V128 (Own, I64) -> Own, None, None, true, [] "Shift every lane left by the unsigned `b`; 0 when that is at least the width.";
    VshrUBy "vshr_u_by" V128 (Own, I64) -> Own, None, None, true, [] "Logical shift right of every lane by `b`; 0 when that is at least the width.";
    VshrSBy "vshr_s_by" V128 (Own, I64) -> Own, None, None, true, [] "Arithmetic shift right of every lane by `b`; the sign when that is at least the width.";
    VwidenLoS "vwiden_lo_s" V128 (Own) -> Own, None, None, true, [] "The low half's lanes (`shape` is the source's) sign-extended to twice the width.";
    VwidenLoU "vwiden_lo_u" V128 (Own) -> Own, None, None, true, [] "The low half's lanes zero-extended.";
    VwidenHiS "vwiden_hi_s" V128 (Own) -> Own, None, None, true, [] "The high half's lanes sign-extended.";
    VwidenHiU "vwiden_hi_u" V128 (Own) -> Own, None, None, true, [] "The high half's lanes zero-extended.";
    Vnarrow "vnarrow" V128 (Own, Own) -> Own, None, None, true, [] "Lanes of `a` then `b` (`shape` is the source's, 16 to 64 bits) truncated to half the width.";
    VnarrowSatS "vnarrow_sat_s" V128 (Own, Own) -> Own, None, None, true, [] "Signed lanes saturated to signed half width.";
    VnarrowSatSU "vnarrow_sat_su" V128 (Own, Own) -> Own, None, None, true, [] "Signed lanes saturated to unsigned half width.";
    VnarrowSatU "vnarrow_sat_u" V128 (Own, Own) -> Own, None, None, true, [] "Unsigned lanes saturated to unsigned half width.";
    VmulWidenLoS "vmul_widen_lo_s" V128 (Own, Own) -> Own, None, None, true, [] "Signed products of the low half's lanes (`shape` is the source's, 8 to 32 bits), double width.";
    VmulWidenLoU "vmul_widen_lo_u" V128 (Own, Own) -> Own, None, None, true, [] "Unsigned products of the low half's lanes.";
    VmulWidenHiS "vmul_widen_hi_s" V128 (Own, Own) -> Own, None, None, true, [] "Signed products of the high half's lanes.";
    VmulWidenHiU "vmul_widen_hi_u" V128 (Own, Own) -> Own, None, None, true, [] "Unsigned products of the high half's lanes.";
    VaddPairs "vadd_pairs" V128 (Own, Own) -> Own, None, None, true, [] "Sums of adjacent lanes of `a`, then of `b`.";
    VmaddPairsS "vmadd_pairs_s" V128 (Own, Own) -> Own, None, None, true, [] "I16x8 only: signed products, adjacent ones summed to I32x4, wrapping.";
    Vpopcnt "vpopcnt" V128 (Own) -> Own, None, None, true, [] "Ones in each lane (I8x16 only).";
    Vclz "vclz" V128 (Own) -> Own, None, None, true, [] "Leading zeroes of each lane.";
    VanyTrue "vany_true" Unused (V128) -> Bool, None, None, false, [] "1 when any bit is set.";
    VsignBits "vsign_bits" Unused (V128) -> I32, None, None, true, [] "Bit i is the top bit of lane i.";

    // Vectors: float lanes (F32x4, F64x2), as the scalar operations.
    Vfadd "vfadd" V128 (Own, Own) -> Own, None, None, true, [FLAGS] "Sums.";
    Vfsub "vfsub" V128 (Own, Own) -> Own, None, None, true, [FLAGS] "Differences.";
    Vfmul "vfmul" V128 (Own, Own) -> Own, None, None, true, [FLAGS] "Products.";
    Vfdiv "vfdiv" V128 (Own, Own) -> Own, None, None, true, [FLAGS] "Quotients.";
    Vfsqrt "vfsqrt" V128 (Own) -> Own, None, None, true, [FLAGS] "Square roots.";
    Vfma "vfma" V128 (Own, Own, Own) -> Own, None, None, true, [FLAGS] "`a * b + c`, rounded once.";
    Vfneg "vfneg" V128 (Own) -> Own, None, None, true, [] "Sign bits flipped.";
    Vfabs "vfabs" V128 (Own) -> Own, None, None, true, [] "Sign bits cleared.";
    Vfmin "vfmin" V128 (Own, Own) -> Own, MinKind, None, true, [FLAGS] "Minima.";
    Vfmax "vfmax" V128 (Own, Own) -> Own, MinKind, None, true, [FLAGS] "Maxima.";
    Vfcmp "vfcmp" V128 (Own, Own) -> Own, FloatCc, None, true, [FLAGS] "All ones in lanes where the comparison holds.";
    Vfround "vfround" V128 (Own) -> Own, RoundExact, None, true, [FLAGS] "To integral values.";
    VftoS "vfto_s" V128 (Own) -> Own, RoundRange, None, true, [FLAGS] "To signed integers of the same lane width.";
    VftoU "vfto_u" V128 (Own) -> Own, RoundRange, None, true, [FLAGS] "To unsigned integers of the same lane width.";
    VstoF "vsto_f" V128 (Own) -> Own, None, None, true, [FLAGS] "From signed integers of the same lane width (`shape` is the float's).";
    VutoF "vuto_f" V128 (Own) -> Own, None, None, true, [FLAGS] "From unsigned integers.";
    VfpromoteLo "vfpromote_lo" V128 (Own) -> Own, None, None, false, [FLAGS] "The two low F32 lanes to F64x2.";
    VfdemoteLo "vfdemote_lo" V128 (Own) -> Own, None, None, false, [FLAGS] "F64x2 to the two low F32 lanes, the others zero.";

    // Helpers and control.
    Call "call" Any (Helper, Helper, Helper) -> Helper, None, Helper, false, [FAULT READ WRITE SLOT FLAGS KEEP] "Calls a helper of the guest's table; effects as its row says.";
    Insn "insn" Unused () -> None, Overwriting, Insn, false, [KEEP] "A guest instruction starts: faults from here on belong to it.";
    Jump "jump" Unused () -> None, None, Block, false, [END] "To a later block of the unit.";
    Brif "brif" Unused (Bool) -> None, None, Blocks, false, [END] "To a later block by truth value.";
    ExitDirect "exit" Unused (OptI64, OptI64) -> None, Exit, Pc, false, [END] "To the translation block at a constant pc. For a call operand 1 is the guest's return pc. Operand 2, if present, is a constant, the new key flags; else this unit's. Kinds are hints: a backend may treat each as a jump.";
    ExitIndirect "exit_indirect" Unused (I64, OptI64, OptI64) -> None, Exit, None, false, [END] "To the block at the pc in operand 1. For a call operand 2 is the return pc. Operand 3, if present, gives the new key flags; else this unit's.";
    ExitTrap "trap" Unused () -> None, Exit, Trap, false, [END] "Stores `imm` to the pc cell and leaves guest execution with the trap that `aux` and `imm2` name.";
}
