//! The floating-point environment: what a guest's control register selects, and the exceptions raised so far.

use std::ops::{BitOr, BitOrAssign};

use crate::format::Format;

/// Rounding direction (IEEE 754-2019 section 4.3, and round to odd).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Rounding {
    NearestEven,
    Down,
    Up,
    Zero,
    NearestAway,
    /// An inexact result gets its lowest bit set (Arm FCVTXN, PowerPC `xsaddqpo`); never rounds up to infinity.
    ToOdd,
}

/// Accumulated exceptions. The low six bits lie as in MXCSR and the x87 status word.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u16);

impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const INVALID: Flags = Flags(1);
    /// Which operands raise it, [`DenormalFlag`] says.
    pub const DENORMAL: Flags = Flags(1 << 1);
    pub const DIV_ZERO: Flags = Flags(1 << 2);
    pub const OVERFLOW: Flags = Flags(1 << 3);
    pub const UNDERFLOW: Flags = Flags(1 << 4);
    pub const INEXACT: Flags = Flags(1 << 5);
    /// Rounding made a magnitude larger (x87 C1, PowerPC FR). Clear it before the operation.
    pub const ROUNDED_UP: Flags = Flags(1 << 6);
    /// A result was tiny, exact or not: what an unmasked underflow exception asks for.
    pub const TINY: Flags = Flags(1 << 7);
    /// The kinds of invalid operation that PowerPC tells apart; each comes with `INVALID`.
    pub const VX_SNAN: Flags = Flags(1 << 8);
    /// Infinity minus infinity.
    pub const VX_ISI: Flags = Flags(1 << 9);
    /// Infinity divided by infinity.
    pub const VX_IDI: Flags = Flags(1 << 10);
    /// Zero divided by zero.
    pub const VX_ZDZ: Flags = Flags(1 << 11);
    /// Infinity times zero.
    pub const VX_IMZ: Flags = Flags(1 << 12);
    /// Ordered comparison with a NaN.
    pub const VX_VC: Flags = Flags(1 << 13);
    /// Square root of a negative number.
    pub const VX_SQRT: Flags = Flags(1 << 14);
    /// Conversion to an integer that cannot hold the value.
    pub const VX_CVI: Flags = Flags(1 << 15);

    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// As the exception bits of MXCSR (bits 5:0) or of the x87 status word.
    #[inline]
    pub const fn x86(self) -> u32 {
        self.0 as u32 & 0x3f
    }

    /// As the cumulative bits of Arm's FPSR: IOC 0, DZC 1, OFC 2, UFC 3, IXC 4, IDC 7.
    #[inline]
    pub const fn fpsr(self) -> u32 {
        let f = self.0 as u32;
        (f & 1) | ((f >> 1) & 0x1e) | ((f & 2) << 6)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [&str; 16] = [
            "invalid",
            "denormal",
            "div_zero",
            "overflow",
            "underflow",
            "inexact",
            "rounded_up",
            "tiny",
            "vx_snan",
            "vx_isi",
            "vx_idi",
            "vx_zdz",
            "vx_imz",
            "vx_vc",
            "vx_sqrt",
            "vx_cvi",
        ];
        f.write_str("{")?;
        let mut separator = "";
        for (i, name) in NAMES.iter().enumerate().filter(|(i, _)| self.0 >> i & 1 != 0) {
            debug_assert!(i < 16);
            write!(f, "{separator}{name}")?;
            separator = " ";
        }
        f.write_str("}")
    }
}

/// Whether a result is judged tiny before or after rounding (IEEE 754-2019 section 7.5). It also says how flushing a
/// tiny result to zero shows: before rounding as underflow alone (Arm), after rounding as underflow and inexact (x86).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Tininess {
    BeforeRounding,
    AfterRounding,
}

/// What raises [`Flags::DENORMAL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DenormalFlag {
    Never,
    /// A denormal operand that is used as it is (x86 DE). Operands flushed to zero raise nothing.
    Used,
    /// An operand flushed to zero (Arm IDC), half precision excepted.
    Flushed,
}

/// Which NaN an operation with NaN operands returns, always quieted, and how the default NaN looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum NanRule {
    /// First signalling NaN, else first quiet one; a fused operation looks at the addend first, and infinity times zero
    /// plus a quiet NaN is the default NaN (Arm ARM, FPProcessNaNs, FPProcessNaNs3, FPMulAdd). Default NaN positive.
    Arm,
    /// First operand that is a NaN (Intel SDM vol. 1, 4.8.3.5, SSE). Default NaN negative.
    Sse,
    /// A quiet NaN before a signalling one, else the larger significand, else the positive one (the same, x87).
    /// Default NaN negative.
    X87,
    /// First NaN of A, B (the addend of a fused operation), C (Power ISA Book I, 4.2.2). Default NaN positive.
    Ppc,
    /// Last signalling NaN, else last quiet one (SPARC V9, B.2.2). Default NaN positive, all fraction bits set.
    Sparc,
}

/// Significand bits to which x87 arithmetic rounds (control word PC).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Precision {
    Single = 24,
    Double = 53,
    Extended = 64,
}

/// The environment of a sequence of operations: control, and the flags they accumulate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Env {
    pub rounding: Rounding,
    pub flags: Flags,
    pub tininess: Tininess,
    pub denormal_flag: DenormalFlag,
    /// Denormal operands count as zero (Arm FZ, x86 DAZ); `flush_half` for binary16 (Arm FZ16).
    pub flush_inputs: bool,
    /// Tiny results become zero (Arm FZ, x86 FTZ); `flush_half` for binary16.
    pub flush_outputs: bool,
    pub flush_half: bool,
    /// Every NaN result is the default NaN (Arm DN).
    pub default_nan: bool,
    pub nan_rule: NanRule,
    /// Applies to arithmetic with [`F80`](crate::F80) results only.
    pub precision: Precision,
    /// Overflow and underflow exceptions that are unmasked: such results of format [`F80`](crate::F80) get an exponent
    /// that is 24576 smaller or larger instead of becoming infinite or denormal (Intel SDM vol. 1, 8.5.4 and 8.5.5).
    pub wraps: Flags,
}

impl Env {
    /// Round to nearest even, no flush modes, no flags, and everything else as the rule's processors have it.
    pub const fn new(nan_rule: NanRule) -> Env {
        let x86 = matches!(nan_rule, NanRule::Sse | NanRule::X87);
        Env {
            rounding: Rounding::NearestEven,
            flags: Flags::NONE,
            tininess: if x86 { Tininess::AfterRounding } else { Tininess::BeforeRounding },
            denormal_flag: match nan_rule {
                NanRule::Arm => DenormalFlag::Flushed,
                NanRule::Sse | NanRule::X87 => DenormalFlag::Used,
                NanRule::Ppc | NanRule::Sparc => DenormalFlag::Never,
            },
            flush_inputs: false,
            flush_outputs: false,
            flush_half: false,
            default_nan: false,
            nan_rule,
            precision: Precision::Extended,
            wraps: Flags::NONE,
        }
    }

    /// As FPCR selects (Arm ARM, FPCR: DN 25, FZ 24, RMode 23:22, FZ16 19). AHP is a choice between the formats
    /// [`F16`](crate::F16) and [`F16Alt`](crate::F16Alt).
    pub const fn arm(fpcr: u32) -> Env {
        let mut env = Env::new(NanRule::Arm);
        env.rounding = match (fpcr >> 22) & 3 {
            0 => Rounding::NearestEven,
            1 => Rounding::Up,
            2 => Rounding::Down,
            _ => Rounding::Zero,
        };
        env.flush_inputs = fpcr & (1 << 24) != 0;
        env.flush_outputs = env.flush_inputs;
        env.flush_half = fpcr & (1 << 19) != 0;
        env.default_nan = fpcr & (1 << 25) != 0;
        env
    }

    /// As the control bits of MXCSR select (Intel SDM vol. 1, 10.2.3: FTZ 15, RC 14:13, UM 11, DAZ 6). Flags start empty.
    pub const fn sse(mxcsr: u32) -> Env {
        let mut env = Env::new(NanRule::Sse);
        env.rounding = x86_rounding(mxcsr >> 13);
        env.flush_inputs = mxcsr & (1 << 6) != 0;
        // With the underflow exception unmasked FTZ is without effect (10.2.3.3).
        env.flush_outputs = mxcsr & (1 << 15) != 0 && mxcsr & (1 << 11) != 0;
        env
    }

    /// As the x87 control word selects (Intel SDM vol. 1, 8.1.5: RC 11:10, PC 9:8). Flags start empty.
    pub const fn x87(control: u16) -> Env {
        let mut env = Env::new(NanRule::X87);
        env.rounding = x86_rounding(control as u32 >> 10);
        env.precision = match (control >> 8) & 3 {
            0 => Precision::Single,
            2 => Precision::Double,
            _ => Precision::Extended,
        };
        env
    }

    /// As FPSCR selects (Power ISA Book I, 4.2.2: RN in the low two bits). Flags start empty.
    pub const fn ppc(fpscr: u32) -> Env {
        let mut env = Env::new(NanRule::Ppc);
        env.rounding = zero_up_down(fpscr);
        env
    }

    /// As FSR selects (SPARC V9, 5.1.7: RD 31:30). The non-standard mode NS is the processor's own affair and not
    /// applied. Flags start empty.
    pub const fn sparc(fsr: u32) -> Env {
        let mut env = Env::new(NanRule::Sparc);
        env.rounding = zero_up_down(fsr >> 30);
        env
    }

    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags |= flags;
    }

    /// The same environment with another rounding direction, for one operation: hand the flags back with `raise`.
    #[inline]
    pub fn with_rounding(mut self, rounding: Rounding) -> Env {
        self.rounding = rounding;
        self
    }

    #[inline]
    pub(crate) fn flushes_inputs<F: Format>(&self) -> bool {
        if F::HALF { self.flush_half } else { self.flush_inputs }
    }

    #[inline]
    pub(crate) fn flushes_outputs<F: Format>(&self) -> bool {
        if F::HALF { self.flush_half } else { self.flush_outputs }
    }

    /// Notes a denormal operand that takes part in the operation.
    #[inline]
    pub(crate) fn used_denormal(&mut self, any: bool) {
        if any && self.denormal_flag == DenormalFlag::Used {
            self.raise(Flags::DENORMAL);
        }
    }
}

/// The order in which PowerPC and SPARC number the modes.
const fn zero_up_down(rn: u32) -> Rounding {
    match rn & 3 {
        0 => Rounding::NearestEven,
        1 => Rounding::Zero,
        2 => Rounding::Up,
        _ => Rounding::Down,
    }
}

const fn x86_rounding(rc: u32) -> Rounding {
    match rc & 3 {
        0 => Rounding::NearestEven,
        1 => Rounding::Down,
        2 => Rounding::Up,
        _ => Rounding::Zero,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_as_registers() {
        let all = Flags(0x3f);
        assert_eq!(all.fpsr(), 0x9f);
        assert_eq!(Flags::DENORMAL.fpsr(), 0x80);
        assert_eq!(Flags::INEXACT.fpsr(), 0x10);
        assert_eq!((all | Flags::TINY | Flags::VX_CVI).x86(), 0x3f);
        assert_eq!(format!("{:?}", Flags::INVALID | Flags::VX_ISI), "{invalid vx_isi}");
    }

    #[test]
    fn control_registers() {
        let env = Env::arm(0x0340_0000);
        assert!(env.flush_inputs && env.flush_outputs && env.default_nan && !env.flush_half);
        assert_eq!(env.rounding, Rounding::Up);
        assert!(!Env::sse(0x8040).flush_outputs && Env::sse(0x9fc0).flush_outputs);
        assert_eq!(Env::x87(0x0e7f).precision, Precision::Double);
        assert_eq!(Env::x87(0x0e7f).rounding, Rounding::Zero);
        assert_eq!(Env::ppc(3).rounding, Rounding::Down);
        assert_eq!(Env::sparc(0x8000_0000).rounding, Rounding::Up);
    }
}
