//! CPU models: which features a guest sees, and how it can see them from EL0: HWCAP bits, the ID registers
//! that Linux emulates, `/proc/cpuinfo`.
//!
//! The ID registers show what Linux shows to a process (Documentation/arch/arm64/cpu-feature-registers): only
//! the fields of features that a process may use; all others read as zero or as their safest value.

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident $caps:tt;)+) => {
        /// An instruction-set extension. `Base` is what every model has.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Feature { $($(#[$doc])* $name),+ }

        impl Feature {
            pub const ALL: &'static [Feature] = &[$(Feature::$name),+];
            /// The HWCAP bits that announce it: word (1 or 2), bit, name in `/proc/cpuinfo`.
            pub const fn caps(self) -> &'static [(u8, u8, &'static str)] {
                match self { $(Feature::$name => &$caps),+ }
            }
        }
    };
}

features! {
    /// EVTSTRM and CPUID are the kernel's: every model has them.
    Base [(1, 2, "evtstrm"), (1, 11, "cpuid")];
    Fp [(1, 0, "fp")];
    Simd [(1, 1, "asimd")];
    Aes [(1, 3, "aes")];
    Pmull [(1, 4, "pmull")];
    Sha1 [(1, 5, "sha1")];
    Sha256 [(1, 6, "sha2")];
    Crc32 [(1, 7, "crc32")];
    Lse [(1, 8, "atomics")];
    Fp16 [(1, 9, "fphp"), (1, 10, "asimdhp")];
    Rdm [(1, 12, "asimdrdm")];
    Jscvt [(1, 13, "jscvt")];
    Fcma [(1, 14, "fcma")];
    Lrcpc [(1, 15, "lrcpc")];
    /// DC CVAP.
    Dpb [(1, 16, "dcpop")];
    Sha3 [(1, 17, "sha3")];
    Sm3 [(1, 18, "sm3")];
    Sm4 [(1, 19, "sm4")];
    DotProd [(1, 20, "asimddp")];
    Sha512 [(1, 21, "sha512")];
    /// FMLAL and FMLSL.
    Fhm [(1, 23, "asimdfhm")];
    Dit [(1, 24, "dit")];
    Lrcpc2 [(1, 26, "ilrcpc")];
    Flagm [(1, 27, "flagm")];
    Ssbs [(1, 28, "ssbs")];
    Sb [(1, 29, "sb")];
    /// DC CVADP.
    Dpb2 [(2, 0, "dcpodp")];
    Flagm2 [(2, 7, "flagm2")];
    Frintts [(2, 8, "frint")];
    I8mm [(2, 13, "i8mm")];
    Bf16 [(2, 14, "bf16")];
    /// RNDR and RNDRRS.
    Rng [(2, 16, "rng")];
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features(u64);

impl Features {
    pub const ALL: Features = Features::of(Feature::ALL);

    pub const fn of(list: &[Feature]) -> Features {
        let mut bits = 1 << Feature::Base as u8;
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
    /// The members, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |&f| self.has(f))
    }
}

/// What distinguishes one CPU from another for a program at EL0.
#[derive(Clone, Copy, Debug)]
pub struct CpuModel {
    pub name: &'static str,
    pub midr: u64,
    pub features: Features,
    /// CTR_EL0: cache line sizes and what a program must do after writing code.
    pub ctr: u64,
}

use Feature::*;

/// ARMv8.0 with the optional cryptography that all Linux-capable cores of the time were sold with.
const V8_0: Features = Features::of(&[Fp, Simd, Aes, Pmull, Sha1, Sha256, Crc32]);
const NEOVERSE_N1: Features = V8_0.with(Features::of(&[Lse, Rdm, Fp16, DotProd, Lrcpc, Dpb, Ssbs]));
/// Everything that is implemented.
const MAX: Features = NEOVERSE_N1.with(Features::of(&[
    Lrcpc2, Jscvt, Fcma, Flagm, Flagm2, Sha512, Sha3, Sm3, Sm4, Fhm, I8mm, Bf16, Frintts, Dpb2,
    Dit, Sb, Rng,
]));

/// The models, by `-cpu` name.
pub const MODELS: [CpuModel; 4] = [
    // Implementer 0 is reserved for software; DC CVAU is not needed (IDC).
    CpuModel { name: "max", midr: 0x000f_7c10, features: MAX, ctr: 0x9444_c004 },
    CpuModel { name: "cortex-a53", midr: 0x410f_d034, features: V8_0, ctr: 0x8444_8004 },
    CpuModel { name: "cortex-a72", midr: 0x410f_d083, features: V8_0, ctr: 0x8444_c004 },
    CpuModel { name: "neoverse-n1", midr: 0x414f_d0c1, features: NEOVERSE_N1, ctr: 0x8444_c004 },
];

/// ID register fields that Linux lets a process see: register as `crm << 3 | op2` in the space op0 = 3,
/// op1 = 0, crn = 0; lowest bit of the field; its value; the feature that gives it. Of several
/// values the highest counts.
const ID_FIELDS: &[(u32, u32, u64, Feature)] = &[
    // ID_AA64PFR0_EL1: EL0 and EL1 are AArch64 only; FP, AdvSIMD, DIT.
    (0x20, 0, 1, Base),
    (0x20, 4, 1, Base),
    (0x20, 16, 1, Fp16),
    (0x20, 20, 1, Fp16),
    (0x20, 48, 1, Dit),
    // ID_AA64PFR1_EL1: SSBS.
    (0x21, 4, 2, Ssbs),
    // ID_AA64DFR0_EL1: the architecture's least debug version.
    (0x28, 0, 6, Base),
    // ID_AA64ISAR0_EL1.
    (0x30, 4, 1, Aes),
    (0x30, 4, 2, Pmull),
    (0x30, 8, 1, Sha1),
    (0x30, 12, 1, Sha256),
    (0x30, 12, 2, Sha512),
    (0x30, 16, 1, Crc32),
    (0x30, 20, 2, Lse),
    (0x30, 28, 1, Rdm),
    (0x30, 32, 1, Sha3),
    (0x30, 36, 1, Sm3),
    (0x30, 40, 1, Sm4),
    (0x30, 44, 1, DotProd),
    (0x30, 48, 1, Fhm),
    (0x30, 52, 1, Flagm),
    (0x30, 52, 2, Flagm2),
    (0x30, 60, 1, Rng),
    // ID_AA64ISAR1_EL1.
    (0x31, 0, 1, Dpb),
    (0x31, 0, 2, Dpb2),
    (0x31, 12, 1, Jscvt),
    (0x31, 16, 1, Fcma),
    (0x31, 20, 1, Lrcpc),
    (0x31, 20, 2, Lrcpc2),
    (0x31, 32, 1, Frintts),
    (0x31, 36, 1, Sb),
    (0x31, 44, 1, Bf16),
    (0x31, 52, 1, I8mm),
    // ID_AA64MMFR0_EL1: no granule is announced.
    (0x38, 24, 15, Base),
    (0x38, 28, 15, Base),
];

impl CpuModel {
    pub fn by_name(name: &str) -> Option<CpuModel> {
        MODELS.into_iter().find(|m| m.name == name)
    }

    fn caps(&self, word: u8) -> u64 {
        let caps = self.features.iter().flat_map(Feature::caps);
        caps.filter(|c| c.0 == word).fold(0, |all, c| all | 1 << c.1)
    }
    /// AT_HWCAP.
    pub fn hwcap(&self) -> u64 {
        self.caps(1)
    }
    /// AT_HWCAP2.
    pub fn hwcap2(&self) -> u64 {
        self.caps(2)
    }
    /// The words of the `Features` line of `/proc/cpuinfo`, in the kernel's order.
    pub fn cpuinfo_features(&self) -> Vec<&'static str> {
        let mut caps: Vec<_> = self.features.iter().flat_map(Feature::caps).copied().collect();
        caps.sort();
        caps.into_iter().map(|c| c.2).collect()
    }
    /// DCZID_EL0: DC ZVA is allowed and zeroes 64 bytes.
    pub const fn dczid(&self) -> u64 {
        4
    }
    /// A register of the ID space (op0 = 3, op1 = 0, crn = 0) as Linux emulates it, or `None` where it
    /// gives SIGILL.
    pub fn id_register(&self, crm: u32, op2: u32) -> Option<u64> {
        match (crm, op2) {
            (0, 0) => Some(self.midr),
            // MPIDR_EL1: Linux hides the topology. REVIDR_EL1.
            (0, 5) => Some(1 << 31),
            (0, 6) => Some(0),
            (2..=7, _) => {
                let mut value = match (crm, op2) {
                    // No FP and no AdvSIMD are announced by all ones.
                    (4, 0) if !self.features.has(Fp) => 0xff << 16,
                    _ => 0,
                };
                for &(_, lsb, field, _) in
                    ID_FIELDS.iter().filter(|f| f.0 == crm << 3 | op2 && self.features.has(f.3))
                {
                    if value >> lsb & 15 < field {
                        value = value & !(15 << lsb) | field << lsb;
                    }
                }
                Some(value)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cortex_a53_as_a_raspberry_pi_shows_it() {
        let m = CpuModel::by_name("cortex-a53").unwrap();
        assert_eq!(
            m.cpuinfo_features().join(" "),
            "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
        );
        assert_eq!((m.hwcap(), m.hwcap2()), (0x8ff, 0));
        assert_eq!(m.id_register(6, 0), Some(0x0000_0000_0001_1120));
        assert_eq!(m.id_register(4, 0), Some(0x11));
    }

    #[test]
    fn neoverse_n1_as_a_graviton2_shows_it() {
        let m = CpuModel::by_name("neoverse-n1").unwrap();
        assert_eq!(
            m.cpuinfo_features().join(" "),
            "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
        );
        assert_eq!(m.id_register(6, 0), Some(0x0000_1000_1021_1120));
        assert_eq!(m.id_register(6, 1), Some(0x0010_0001));
    }

    #[test]
    fn every_announced_feature_is_in_an_id_register() {
        for f in Feature::ALL.iter().filter(|f| !matches!(f, Base | Fp | Simd)) {
            assert!(ID_FIELDS.iter().any(|row| row.3 == *f), "{f:?}");
        }
        assert_eq!(CpuModel::by_name("pentium").map(|m| m.name), None);
    }
}
