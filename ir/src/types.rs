//! Types, lane shapes, condition codes and rounding modes.

/// Declares a `u8` enum with names for printer and parser.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The value with this discriminant.
            ///
            /// # Panics
            /// When no variant has it.
            #[inline]
            pub const fn from_u8(n: u8) -> $name {
                Self::ALL[n as usize]
            }
            /// The name in IR text.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
            /// Inverse of [`Self::name`].
            pub fn parse(text: &str) -> Option<$name> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named_enum! {
    /// Type of a value. A truth value is an `I8` that is 0 or 1.
    Type { I8 = "i8", I16 = "i16", I32 = "i32", I64 = "i64", I128 = "i128", F32 = "f32", F64 = "f64", V128 = "v128" }
}

impl Type {
    /// Size in bytes.
    #[inline]
    pub const fn bytes(self) -> u32 {
        match self {
            Type::I8 => 1,
            Type::I16 => 2,
            Type::I32 | Type::F32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::I128 | Type::V128 => 16,
        }
    }
    #[inline]
    pub const fn bits(self) -> u32 {
        self.bytes() * 8
    }
    #[inline]
    pub const fn is_int(self) -> bool {
        matches!(self, Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::I128)
    }
    #[inline]
    pub const fn is_float(self) -> bool {
        matches!(self, Type::F32 | Type::F64)
    }
    /// State cells that a value occupies: 1, or 2 for the 128-bit types.
    #[inline]
    pub const fn cells(self) -> u16 {
        if self.bytes() == 16 { 2 } else { 1 }
    }
    /// The integer type of `1 << log2` bytes.
    #[inline]
    pub const fn int_of_log2(log2: u8) -> Type {
        [Type::I8, Type::I16, Type::I32, Type::I64, Type::I128][log2 as usize]
    }
}

named_enum! {
    /// Lane shape of a vector operation on `V128`. `F*` shapes are used by the float operations.
    Shape { I8x16 = "i8x16", I16x8 = "i16x8", I32x4 = "i32x4", I64x2 = "i64x2", F32x4 = "f32x4", F64x2 = "f64x2" }
}

impl Shape {
    pub const fn lane_bits(self) -> u32 {
        match self {
            Shape::I8x16 => 8,
            Shape::I16x8 => 16,
            Shape::I32x4 | Shape::F32x4 => 32,
            Shape::I64x2 | Shape::F64x2 => 64,
        }
    }
    pub const fn lanes(self) -> u32 {
        128 / self.lane_bits()
    }
    /// The scalar type of one lane.
    pub const fn lane_type(self) -> Type {
        match self {
            Shape::I8x16 => Type::I8,
            Shape::I16x8 => Type::I16,
            Shape::I32x4 => Type::I32,
            Shape::I64x2 => Type::I64,
            Shape::F32x4 => Type::F32,
            Shape::F64x2 => Type::F64,
        }
    }
    /// The integer shape with lanes of `8 << log2` bits.
    pub const fn int_of_log2(log2: u8) -> Shape {
        [Shape::I8x16, Shape::I16x8, Shape::I32x4, Shape::I64x2][log2 as usize]
    }
}

named_enum! {
    /// Integer comparison.
    IntCc { Eq = "eq", Ne = "ne", LtS = "lt_s", LeS = "le_s", GtS = "gt_s", GeS = "ge_s", LtU = "lt_u", LeU = "le_u", GtU = "gt_u", GeU = "ge_u" }
}

named_enum! {
    /// Float comparison. All but `Ne`, `Uno` and the `U*` forms are false when an operand is NaN. A quiet
    /// comparison raises invalid for a signalling NaN only; a signalling one (flag beside the code in
    /// [`crate::unit::Inst::aux`]) for any NaN.
    FloatCc { Eq = "eq", Ne = "ne", Lt = "lt", Le = "le", Gt = "gt", Ge = "ge", Ord = "ord", Uno = "uno",
        /// Unordered or equal, unordered or less, and so on.
        UEq = "ueq", ULt = "ult", ULe = "ule", UGt = "ugt", UGe = "uge" }
}

named_enum! {
    /// Rounding mode of a conversion.
    Round { Nearest = "nearest", Down = "down", Up = "up", Zero = "zero", Away = "away",
        /// The mode in the floating-point environment.
        Current = "current" }
}

named_enum! {
    /// Which minimum or maximum.
    MinKind {
        /// NaN if an operand is NaN; -0 is below +0 (ARM FMIN, IEEE 754-2019 minimum with the guest's NaN rule).
        Ieee = "ieee",
        /// A quiet NaN loses against a number (ARM FMINNM, IEEE 754-2008 minNum).
        Num = "num",
        /// `a < b ? a : b` (`a > b ? a : b` for max): second operand on NaN or equal; invalid on any NaN (x86 MINPS).
        Second = "second"
    }
}

named_enum! {
    /// Conditions over a packed NZCV word, in ARM's numbering. Carry is ARM's: set when a subtraction
    /// does not borrow.
    NzcvCond { Eq = "eq", Ne = "ne", Cs = "cs", Cc = "cc", Mi = "mi", Pl = "pl", Vs = "vs", Vc = "vc", Hi = "hi", Ls = "ls", Ge = "ge", Lt = "lt", Gt = "gt", Le = "le" }
}

named_enum! {
    /// What a fence orders.
    FenceKind { Full = "full", Acquire = "acquire", Release = "release" }
}

named_enum! {
    /// How a family of guests defines what IEEE 754 leaves open: which NaN a result is, the sign of the
    /// default NaN, and when a result counts as tiny. One rule holds for a whole unit.
    FpRule {
        /// Arm: the first signalling NaN, else the first quiet NaN, quieted; default NaN positive; tiny before rounding.
        Arm = "arm",
        /// x86 SSE: the first operand if it is NaN, else the second, quieted; default NaN negative; tiny after rounding.
        X86 = "x86",
        /// PowerPC: first operand, then (for fused) the addend, then the multiplier; default NaN positive; tiny before rounding.
        Ppc = "ppc",
        /// SPARC: the last signalling NaN, else the last quiet NaN, quieted; default NaN positive, all ones; tiny before rounding.
        Sparc = "sparc"
    }
}

/// Accumulated IEEE exceptions as neutral bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct FpFlags(pub u8);

impl FpFlags {
    pub const INVALID: u8 = 1;
    /// An operand was denormal (x86 DE); Arm's input-denormal flag is softfloat's business.
    pub const DENORMAL: u8 = 2;
    pub const DIV_ZERO: u8 = 4;
    pub const OVERFLOW: u8 = 8;
    pub const UNDERFLOW: u8 = 16;
    pub const INEXACT: u8 = 32;
}

/// Packed NZCV bits, where Arm, SPARC and the neutral NZCV operations keep them.
pub mod nzcv {
    pub const N: u32 = 1 << 31;
    pub const Z: u32 = 1 << 30;
    pub const C: u32 = 1 << 29;
    pub const V: u32 = 1 << 28;
}
