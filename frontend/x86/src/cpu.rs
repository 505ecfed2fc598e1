//! CPU models: which features a guest sees. [`crate::cpuid`] shows them to it.
//!
//! A model is chosen by name, with features added or removed behind it: `Haswell,-avx2,+sha`.

use crate::cpuid::Word;
use iced_x86::CpuidFeature as C;

macro_rules! features {
    ($($name:ident $text:literal $word:ident $bit:literal;)+) => {
        /// A feature that CPUID announces.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Feature { $($name),+ }

        impl Feature {
            pub const ALL: &'static [Feature] = &[$(Feature::$name),+];

            /// Name in a model string, which is that of `/proc/cpuinfo` where there is one.
            pub const fn name(self) -> &'static str {
                match self { $(Feature::$name => $text),+ }
            }
            /// Word and bit of CPUID.
            pub const fn bit(self) -> (Word, u32) {
                match self { $(Feature::$name => (Word::$word, $bit)),+ }
            }
        }
    };
}

// Name, name in text, word and bit of CPUID.
features! {
    Fpu "fpu" L1Edx 0;
    Vme "vme" L1Edx 1;
    De "de" L1Edx 2;
    Pse "pse" L1Edx 3;
    Tsc "tsc" L1Edx 4;
    Msr "msr" L1Edx 5;
    Pae "pae" L1Edx 6;
    Mce "mce" L1Edx 7;
    Cx8 "cx8" L1Edx 8;
    Apic "apic" L1Edx 9;
    Sep "sep" L1Edx 11;
    Mtrr "mtrr" L1Edx 12;
    Pge "pge" L1Edx 13;
    Mca "mca" L1Edx 14;
    Cmov "cmov" L1Edx 15;
    Pat "pat" L1Edx 16;
    Pse36 "pse36" L1Edx 17;
    Clflush "clflush" L1Edx 19;
    Mmx "mmx" L1Edx 23;
    Fxsr "fxsr" L1Edx 24;
    Sse "sse" L1Edx 25;
    Sse2 "sse2" L1Edx 26;
    Sse3 "sse3" L1Ecx 0;
    Pclmulqdq "pclmulqdq" L1Ecx 1;
    Monitor "monitor" L1Ecx 3;
    Ssse3 "ssse3" L1Ecx 9;
    Fma "fma" L1Ecx 12;
    Cx16 "cx16" L1Ecx 13;
    Pcid "pcid" L1Ecx 17;
    Sse41 "sse4_1" L1Ecx 19;
    Sse42 "sse4_2" L1Ecx 20;
    X2apic "x2apic" L1Ecx 21;
    Movbe "movbe" L1Ecx 22;
    Popcnt "popcnt" L1Ecx 23;
    TscDeadline "tsc_deadline_timer" L1Ecx 24;
    Aes "aes" L1Ecx 25;
    Xsave "xsave" L1Ecx 26;
    Avx "avx" L1Ecx 28;
    F16c "f16c" L1Ecx 29;
    Rdrand "rdrand" L1Ecx 30;
    Hypervisor "hypervisor" L1Ecx 31;
    Fsgsbase "fsgsbase" L7Ebx 0;
    TscAdjust "tsc_adjust" L7Ebx 1;
    Bmi1 "bmi1" L7Ebx 3;
    Avx2 "avx2" L7Ebx 5;
    // FOP and FDP are kept of instructions with unmasked exceptions only.
    FdpExcptnOnly "fdp-excptn-only" L7Ebx 6;
    Smep "smep" L7Ebx 7;
    Bmi2 "bmi2" L7Ebx 8;
    Erms "erms" L7Ebx 9;
    Invpcid "invpcid" L7Ebx 10;
    // FCS and FDS are always zero.
    ZeroFcsFds "zero-fcs-fds" L7Ebx 13;
    Rdseed "rdseed" L7Ebx 18;
    Adx "adx" L7Ebx 19;
    Smap "smap" L7Ebx 20;
    Clflushopt "clflushopt" L7Ebx 23;
    Clwb "clwb" L7Ebx 24;
    Sha "sha_ni" L7Ebx 29;
    Umip "umip" L7Ecx 2;
    Pku "pku" L7Ecx 3;
    Gfni "gfni" L7Ecx 8;
    Vaes "vaes" L7Ecx 9;
    Vpclmulqdq "vpclmulqdq" L7Ecx 10;
    La57 "la57" L7Ecx 16;
    Rdpid "rdpid" L7Ecx 22;
    Cldemote "cldemote" L7Ecx 25;
    Movdiri "movdiri" L7Ecx 27;
    Movdir64b "movdir64b" L7Ecx 28;
    Fsrm "fsrm" L7Edx 4;
    Serialize "serialize" L7Edx 14;
    SpecCtrl "spec_ctrl" L7Edx 26;
    ArchCapabilities "arch_capabilities" L7Edx 29;
    // What a branch history could say is not used: kernels need not clear it by hand on each system call.
    BhiCtrl "bhi_ctrl" L7C2Edx 4;
    Xsaveopt "xsaveopt" D1Eax 0;
    Xsavec "xsavec" D1Eax 1;
    Xgetbv1 "xgetbv1" D1Eax 2;
    LahfLm "lahf_lm" E1Ecx 0;
    Abm "abm" E1Ecx 5;
    Sse4a "sse4a" E1Ecx 6;
    MisalignSse "misalignsse" E1Ecx 7;
    Prefetchw "3dnowprefetch" E1Ecx 8;
    Syscall "syscall" E1Edx 11;
    Nx "nx" E1Edx 20;
    MmxExt "mmxext" E1Edx 22;
    FxsrOpt "fxsr_opt" E1Edx 25;
    Pdpe1gb "pdpe1gb" E1Edx 26;
    Rdtscp "rdtscp" E1Edx 27;
    Lm "lm" E1Edx 29;
    D3nowExt "3dnowext" E1Edx 30;
    D3now "3dnow" E1Edx 31;
    Clzero "clzero" E8Ebx 0;
}

impl Feature {
    /// Whether the features bring the instructions of iced's feature `iced`.
    pub fn covers(have: Features, iced: C) -> bool {
        let one_of: &[Feature] = match iced {
            C::INTEL8086 | C::INTEL186 | C::INTEL286 | C::INTEL386 | C::INTEL486 => return true,
            // CPUID; long NOPs and PAUSE, which older processors take as something harmless; RDPMC, a #GP.
            C::CPUID | C::MULTIBYTENOP | C::PAUSE | C::RDPMC => return true,
            // Hints in the NOP space.
            C::CET_IBT | C::CLDEMOTE | C::PREFETCHITI => return true,
            // PREFETCHW came with 3DNow!; 64-bit processors of Intel without it take it for a NOP.
            C::PREFETCHW | C::PREFETCHWT1 => &[Feature::Prefetchw, Feature::D3now, Feature::Lm],
            C::FPU => &[Feature::Fpu],
            C::FPU287 => &[Feature::Fpu],
            C::FPU387 => &[Feature::Fpu],
            C::TSC => &[Feature::Tsc],
            C::MSR => &[Feature::Msr],
            C::CX8 => &[Feature::Cx8],
            C::SEP => &[Feature::Sep],
            C::CMOV => &[Feature::Cmov],
            C::CLFSH => &[Feature::Clflush],
            C::MMX => &[Feature::Mmx],
            C::FXSR => &[Feature::Fxsr],
            C::SSE => &[Feature::Sse],
            C::SSE2 => &[Feature::Sse2],
            C::SSE3 => &[Feature::Sse3],
            C::PCLMULQDQ => &[Feature::Pclmulqdq],
            C::SSSE3 => &[Feature::Ssse3],
            C::FMA => &[Feature::Fma],
            C::CMPXCHG16B => &[Feature::Cx16],
            C::SSE4_1 => &[Feature::Sse41],
            C::SSE4_2 => &[Feature::Sse42],
            C::MOVBE => &[Feature::Movbe],
            C::POPCNT => &[Feature::Popcnt],
            C::AES => &[Feature::Aes],
            C::XSAVE => &[Feature::Xsave],
            C::AVX => &[Feature::Avx],
            C::F16C => &[Feature::F16c],
            C::RDRAND => &[Feature::Rdrand],
            C::FSGSBASE => &[Feature::Fsgsbase],
            C::BMI1 => &[Feature::Bmi1],
            C::AVX2 => &[Feature::Avx2],
            C::BMI2 => &[Feature::Bmi2],
            C::INVPCID => &[Feature::Invpcid],
            C::MONITOR => &[Feature::Monitor],
            C::PKU => &[Feature::Pku],
            C::RDSEED => &[Feature::Rdseed],
            C::ADX => &[Feature::Adx],
            C::SMAP => &[Feature::Smap],
            C::CLFLUSHOPT => &[Feature::Clflushopt],
            C::CLWB => &[Feature::Clwb],
            C::SHA => &[Feature::Sha],
            C::GFNI => &[Feature::Gfni],
            C::VAES => &[Feature::Vaes],
            C::VPCLMULQDQ => &[Feature::Vpclmulqdq],
            C::RDPID => &[Feature::Rdpid],
            C::MOVDIRI => &[Feature::Movdiri],
            C::MOVDIR64B => &[Feature::Movdir64b],
            C::SERIALIZE => &[Feature::Serialize],
            C::XSAVEOPT => &[Feature::Xsaveopt],
            C::XSAVEC => &[Feature::Xsavec],
            C::LZCNT => &[Feature::Abm],
            C::SSE4A => &[Feature::Sse4a],
            C::SYSCALL => &[Feature::Syscall],
            C::RDTSCP => &[Feature::Rdtscp],
            C::X64 => &[Feature::Lm],
            C::D3NOWEXT => &[Feature::D3nowExt],
            C::D3NOW => &[Feature::D3now],
            C::CLZERO => &[Feature::Clzero],
            _ => return false,
        };
        one_of.iter().any(|&f| have.has(f))
    }

    fn by_name(name: &str) -> Option<Feature> {
        let name = match name {
            // Other spellings in use.
            "sse4.1" => "sse4_1",
            "sse4.2" => "sse4_2",
            "lzcnt" => "abm",
            "sha-ni" | "sha" => "sha_ni",
            other => other,
        };
        let same = |f: &&Feature| f.name().replace('-', "_") == name.replace('-', "_");
        Feature::ALL.iter().find(same).copied()
    }
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features(pub u128);

impl Features {
    pub const NONE: Features = Features(0);

    pub const fn of(list: &[Feature]) -> Features {
        let mut bits = 0;
        let mut i = 0;
        while i < list.len() {
            bits |= 1 << list[i] as u8;
            i += 1;
        }
        Features(bits)
    }
    #[inline]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u8 & 1 != 0
    }
    pub const fn with(self, more: Features) -> Features {
        Features(self.0 | more.0)
    }
    pub const fn without(self, less: Features) -> Features {
        Features(self.0 & !less.0)
    }
    /// The members, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |&f| self.has(f))
    }
}

/// Who made it: decides vendor string and a few leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    Intel,
    Amd,
}

/// The part of a model that does not change with `+feat,-feat`.
#[derive(Debug)]
pub struct Chip {
    pub name: &'static str,
    pub vendor: Vendor,
    /// Family, model, stepping.
    pub signature: (u32, u32, u32),
    pub brand: &'static str,
    /// Highest basic and extended leaf.
    pub levels: (u32, u32),
    pub features: Features,
}

/// A chip with its features: what the guest runs on.
#[derive(Clone, Copy, Debug)]
pub struct CpuModel {
    /// Index in [`CHIPS`].
    pub chip: usize,
    pub features: Features,
}

/// Why a model string was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModelError {
    UnknownModel(String),
    UnknownFeature(String),
}

impl std::fmt::Display for ModelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ModelError::UnknownModel(name) => {
                let known: Vec<_> = CHIPS.iter().map(|c| c.name).collect();
                write!(f, "unknown CPU model `{name}`; known are {}", known.join(", "))
            }
            ModelError::UnknownFeature(name) => {
                write!(f, "unknown CPU feature `{name}` (write +name or -name)")
            }
        }
    }
}

impl std::error::Error for ModelError {}

impl CpuModel {
    /// The model that `text` names: `name`, or `name,+feature,-feature`.
    pub fn parse(text: &str) -> Result<CpuModel, ModelError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or("");
        let chip = CHIPS
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| ModelError::UnknownModel(name.to_owned()))?;
        let mut features = CHIPS[chip].features;
        for part in parts {
            let unknown = || ModelError::UnknownFeature(part.to_owned());
            let (add, name) = match part.split_at_checked(1) {
                Some(("+", name)) => (true, name),
                Some(("-", name)) => (false, name),
                _ => return Err(unknown()),
            };
            let one = Features::of(&[Feature::by_name(name).ok_or_else(unknown)?]);
            features = if add { features.with(one) } else { features.without(one) };
        }
        Ok(CpuModel { chip, features: consistent(features) })
    }
    /// The model of this exact name.
    pub fn by_name(name: &str) -> Option<CpuModel> {
        CpuModel::parse(name).ok()
    }
    pub fn chip(&self) -> &'static Chip {
        &CHIPS[self.chip]
    }
    #[inline]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }
}

use Feature::*;

/// What only system software can use or switch on; programs in user mode do not see it.
pub const PRIVILEGED: Features = Features::of(&[
    Monitor,
    Pcid,
    X2apic,
    TscDeadline,
    TscAdjust,
    La57,
    ArchCapabilities,
    BhiCtrl,
    Pdpe1gb,
    Pku,
]);

/// Features that make no sense without another: dropped with it.
const NEEDS: &[(Feature, Feature)] = &[
    (Sse, Fxsr),
    (Sse2, Sse),
    (Sse3, Sse2),
    (Ssse3, Sse3),
    (Sse41, Ssse3),
    (Sse42, Sse41),
    (Sse4a, Sse3),
    (Aes, Sse2),
    (Pclmulqdq, Sse2),
    (Sha, Sse2),
    (Gfni, Sse2),
    (Avx, Sse42),
    (Avx, Xsave),
    (Xsaveopt, Xsave),
    (Xsavec, Xsave),
    (Xgetbv1, Xsave),
    (F16c, Avx),
    (Fma, Avx),
    (Avx2, Avx),
    (Vaes, Avx2),
    (Vaes, Aes),
    (Vpclmulqdq, Avx2),
    (Vpclmulqdq, Pclmulqdq),
    (D3now, Mmx),
    (D3nowExt, D3now),
    (Pcid, Lm),
    (La57, Lm),
    (Pdpe1gb, Lm),
    (Pku, Lm),
    (X2apic, Apic),
    (TscDeadline, Apic),
    (TscAdjust, Tsc),
    (BhiCtrl, SpecCtrl),
];

fn consistent(mut features: Features) -> Features {
    for &(feature, base) in NEEDS {
        if !features.has(base) {
            features = features.without(Features::of(&[feature]));
        }
    }
    features
}

const PENTIUM: Features =
    Features::of(&[Fpu, Vme, Pse, De, Tsc, Msr, Mce, Cx8, Mmx, Apic, Hypervisor]);
const PENTIUM3: Features =
    PENTIUM.with(Features::of(&[Mtrr, Pge, Mca, Cmov, Pse36, Pae, Pat, Sep, Fxsr, Sse]));
const CORE2: Features =
    PENTIUM3.with(Features::of(&[Clflush, Sse2, Sse3, Ssse3, Cx16, Syscall, Nx, Lm, LahfLm]));
const NEHALEM: Features = CORE2.with(Features::of(&[Sse41, Sse42, Popcnt]));
const HASWELL: Features = NEHALEM.with(Features::of(&[
    Pclmulqdq,
    Fma,
    Movbe,
    Aes,
    Xsave,
    Avx,
    F16c,
    Rdrand,
    Fsgsbase,
    Bmi1,
    Avx2,
    Smep,
    Bmi2,
    Erms,
    Invpcid,
    Xsaveopt,
    Abm,
    Rdtscp,
    Pcid,
    X2apic,
    TscDeadline,
    TscAdjust,
    ArchCapabilities,
    SpecCtrl,
    BhiCtrl,
    FdpExcptnOnly,
    ZeroFcsFds,
]));
const SKYLAKE: Features =
    HASWELL.with(Features::of(&[Rdseed, Adx, Smap, Clflushopt, Xsavec, Xgetbv1, Prefetchw]));
const INTEL_ONLY: Features = Features::of(&[
    Invpcid,
    Pcid,
    X2apic,
    TscDeadline,
    TscAdjust,
    ArchCapabilities,
    SpecCtrl,
    BhiCtrl,
    FdpExcptnOnly,
    ZeroFcsFds,
]);
const EPYC: Features = SKYLAKE.without(INTEL_ONLY).with(Features::of(&[
    Pdpe1gb,
    Sse4a,
    MisalignSse,
    MmxExt,
    FxsrOpt,
    Sha,
]));
const QEMU64: Features =
    PENTIUM3.with(Features::of(&[Clflush, Sse2, Sse3, Cx16, Syscall, Nx, Lm, LahfLm, Sse4a]));
/// Everything that is implemented but MONITOR, whose wait is shorter than HLT's.
const MAX: Features = SKYLAKE.with(EPYC).with(Features::of(&[
    Clwb, Gfni, Vaes, Vpclmulqdq, Rdpid, Cldemote, Movdiri, Movdir64b, Fsrm, Serialize, D3nowExt,
    D3now, Clzero, Umip, La57, Pku,
]));

macro_rules! chips {
    ($($name:literal $vendor:ident $sig:tt $brand:literal ($basic:literal, $extended:literal) $features:ident;)+) => {
        /// The models, by `-cpu` name.
        pub static CHIPS: &[Chip] = &[$(Chip {
            name: $name,
            vendor: Vendor::$vendor,
            signature: $sig,
            brand: $brand,
            levels: ($basic, 0x8000_0000 + $extended),
            features: $features,
        }),+];
    };
}

// Name, vendor, family, model and stepping, brand, highest basic and extended leaf, features.
chips! {
    "max" Intel (6, 94, 3) "tulk virtual CPU" (0x1f, 0x08) MAX;
    "qemu64" Amd (15, 107, 1) "QEMU Virtual CPU version 2.5+" (0xd, 0x0a) QEMU64;
    "pentium" Intel (5, 4, 3) "" (1, 0) PENTIUM;
    "pentium3" Intel (6, 8, 3) "" (3, 0) PENTIUM3;
    "core2duo" Intel (6, 15, 11) "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz" (0xa, 0x08) CORE2;
    "Nehalem" Intel (6, 26, 3) "Intel Core i7 9xx (Nehalem Class Core i7)" (0xb, 0x08) NEHALEM;
    "Haswell" Intel (6, 60, 4) "Intel Core Processor (Haswell)" (0xd, 0x08) HASWELL;
    "Skylake-Client-noAVX512" Intel (6, 94, 3) "Intel Core Processor (Skylake)" (0x16, 0x08) SKYLAKE;
    "EPYC" Amd (23, 1, 2) "AMD EPYC Processor" (0xd, 0x1e) EPYC;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_strings() {
        let m = CpuModel::parse("Haswell,-avx2,+sha-ni").unwrap();
        assert!(!m.has(Avx2) && m.has(Sha) && m.has(Avx));
        // AVX goes with what it needs.
        assert!(!CpuModel::parse("haswell,-xsave").unwrap().has(Fma));
        assert_eq!(
            CpuModel::parse("haswell,avx").unwrap_err(),
            ModelError::UnknownFeature("avx".into())
        );
        assert!(matches!(CpuModel::parse("z80"), Err(ModelError::UnknownModel(_))));
    }

    #[test]
    fn models_are_consistent_and_fit_their_set() {
        for chip in CHIPS {
            assert_eq!(consistent(chip.features), chip.features, "{}", chip.name);
            assert_eq!(chip.features.without(MAX), Features::NONE, "{}", chip.name);
        }
    }
}
