//! CPUID: what a model's features and signature look like to the guest.
//!
//! Leaves: 0, 1, 2 (descriptors), 4 (caches, Intel), 5 (monitor line: none), 6, 7, 0xa (no counters), 0xb and 0x1f
//! (topology), 0xd (XSAVE), 0x15 and 0x16 (clock), 0x8000_0000 to 0x8000_0008, 0x8000_001d and 0x8000_001e (AMD
//! caches and topology). Beyond the highest basic leaf Intel processors repeat it; AMD's show zero.
//! The guest sees one package whose processors are cores without siblings.

use crate::cpu::{CHIPS, Chip, CpuModel, Feature, Features, Vendor};
use crate::system::cr4;

/// The words of CPUID that hold feature bits: leaf and register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Word {
    L1Ecx,
    L1Edx,
    L7Ebx,
    L7Ecx,
    L7Edx,
    /// Leaf 7, subleaf 2.
    L7C2Edx,
    D1Eax,
    E1Ecx,
    E1Edx,
    E8Ebx,
}

/// XSAVE components that we know: x87, SSE, AVX, protection keys.
pub const XCR0_X87: u64 = 1;
pub const XCR0_SSE: u64 = 2;
pub const XCR0_AVX: u64 = 4;
pub const XCR0_PKRU: u64 = 1 << 9;
/// Offset and size of the AVX component in the standard XSAVE area.
pub const XSAVE_AVX: (u32, u32) = (576, 256);
/// The same of PKRU; in the compacted format it stands right behind what is before it.
pub const XSAVE_PKRU: (u32, u32) = (832, 8);

/// Frequency of the time-stamp counter that RDTSC shows: it counts nanoseconds.
pub const TSC_HZ: u64 = 1_000_000_000;

/// Frequency of the local APIC's timer and of the crystal, in system mode.
pub const APIC_HZ: u64 = 1_000_000_000;

/// The components that XCR0 may have.
pub fn xcr0_supported(features: Features) -> u64 {
    let with = |feature, component| if features.has(feature) { component } else { 0 };
    XCR0_X87 | XCR0_SSE | with(Feature::Avx, XCR0_AVX) | with(Feature::Pku, XCR0_PKRU)
}

/// Size of the standard XSAVE area for these components.
pub fn xsave_size(components: u64) -> u32 {
    match components {
        _ if components & XCR0_PKRU != 0 => XSAVE_PKRU.0 + XSAVE_PKRU.1,
        _ if components & XCR0_AVX != 0 => XSAVE_AVX.0 + XSAVE_AVX.1,
        _ => 576,
    }
}

/// Size of the compacted XSAVE area for these components.
pub fn xsave_compacted_size(components: u64) -> u32 {
    let with = |component, size| if components & component != 0 { size } else { 0 };
    576 + with(XCR0_AVX, XSAVE_AVX.1) + with(XCR0_PKRU, XSAVE_PKRU.1)
}

fn word(features: Features, word: Word) -> u32 {
    features.iter().map(Feature::bit).filter(|b| b.0 == word).fold(0, |all, b| all | 1 << b.1)
}

/// Four bytes of text per register.
fn text(s: &[u8]) -> u32 {
    s.iter().rev().fold(0, |v, &b| v << 8 | b as u32)
}

/// What else the answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Where {
    /// Number of the processor, as APIC id.
    pub processor: u32,
    /// Number of processors.
    pub processors: u32,
    pub xcr0: u64,
}

/// A deterministic cache: level, type (1 data, 2 instruction, 3 unified), KiB, ways.
const CACHES: [(u32, u32, u32, u32); 4] =
    [(1, 1, 32, 8), (1, 2, 32, 8), (2, 3, 512, 8), (3, 3, 16384, 16)];

/// EAX, EBX, ECX and EDX.
pub fn leaf(chip: usize, features: Features, at: Where, eax: u32, ecx: u32) -> [u32; 4] {
    let chip = &CHIPS[chip];
    let (basic, extended) = chip.levels;
    let amd = chip.vendor == Vendor::Amd;
    let vendor: &[u8; 12] = if amd { b"AuthenticAMD" } else { b"GenuineIntel" };
    let vendor = [text(&vendor[0..4]), text(&vendor[8..12]), text(&vendor[4..8])];
    let leaf = match eax {
        0x4000_0000.. if eax >> 31 == 0 => return [0; 4],
        0x8000_0000.. if eax > extended => {
            if amd || extended == 0x8000_0000 {
                return [0; 4];
            }
            basic
        }
        n if n < 0x8000_0000 && n > basic => {
            if amd {
                return [0; 4];
            }
            basic
        }
        n => n,
    };
    let signature = signature_of(chip);
    let word = |w| word(features, w);
    let count = at.processors.max(1);
    let apic_bits = count.next_power_of_two().trailing_zeros();
    match leaf {
        0 => [basic, vendor[0], vendor[1], vendor[2]],
        1 => {
            let osxsave = if features.has(Feature::Xsave) { 1 << 27 } else { 0 };
            // HTT: the count of processors is valid.
            let htt = if count > 1 { 1 << 28 } else { 0 };
            let line = if features.has(Feature::Clflush) { 8 << 8 } else { 0 };
            let ebx = at.processor << 24 | count.min(255) << 16 | line;
            [signature, ebx, word(Word::L1Ecx) | osxsave, word(Word::L1Edx) | htt]
        }
        // Descriptors: 32 KiB L1 data and instruction cache, 512 KiB L2.
        2 if !amd => [1, 0, 0, 0x002c_307d],
        4 if !amd => cache(ecx, count),
        6 => [4, 0, 0, 0],
        7 => {
            let more = word(Word::L7C2Edx);
            let last = if more != 0 { 2 } else { 0 };
            match ecx {
                0 => [last, word(Word::L7Ebx), word(Word::L7Ecx), word(Word::L7Edx)],
                2 => [0, 0, 0, more],
                _ => [0; 4],
            }
        }
        0xb | 0x1f if !amd || leaf == 0xb => match ecx {
            0 => [0, 1, 1 << 8, at.processor],
            1 => [apic_bits, count, 2 << 8 | 1, at.processor],
            n => [0, 0, n & 0xff, at.processor],
        },
        0xd if features.has(Feature::Xsave) => {
            let all = xcr0_supported(features);
            match ecx {
                0 => [all as u32, xsave_size(at.xcr0), xsave_size(all), 0],
                1 => [word(Word::D1Eax), xsave_compacted_size(at.xcr0), 0, 0],
                2 if all & XCR0_AVX != 0 => [XSAVE_AVX.1, XSAVE_AVX.0, 0, 0],
                9 if all & XCR0_PKRU != 0 => [XSAVE_PKRU.1, XSAVE_PKRU.0, 0, 0],
                _ => [0; 4],
            }
        }
        // The counter's rate as a ratio to a 25 MHz crystal; frequencies in MHz.
        0x15 => [1, (TSC_HZ / 25_000_000) as u32, 25_000_000, 0],
        0x16 => [(TSC_HZ / 1_000_000) as u32, (TSC_HZ / 1_000_000) as u32, 100, 0],
        0x8000_0000 if amd => [extended, vendor[0], vendor[1], vendor[2]],
        0x8000_0000 => [extended, 0, 0, 0],
        0x8000_0001 => {
            // AMD repeats the old bits of leaf 1.
            let repeated = if amd { word(Word::L1Edx) & 0x0183_f3ff } else { 0 };
            let legacy = if amd && count > 1 { 2 } else { 0 };
            let signature = if amd { signature } else { 0 };
            [signature, 0, word(Word::E1Ecx) | legacy, word(Word::E1Edx) | repeated]
        }
        0x8000_0002..=0x8000_0004 => {
            let mut brand = [0u8; 48];
            brand[..chip.brand.len()].copy_from_slice(chip.brand.as_bytes());
            let part = &brand[(leaf as usize & 15) * 16 - 32..][..16];
            [0, 4, 8, 12].map(|i| text(&part[i..i + 4]))
        }
        // AMD: L1 data and instruction cache, 32 KiB each; L2 512 KiB; L3 16 MiB.
        0x8000_0005 if amd => [0xff40_ff40, 0xff40_ff40, 0x2008_0140, 0x2008_0140],
        0x8000_0006 => {
            [0, if amd { 0x4200_4200 } else { 0 }, 0x0200_6140, if amd { 0x0080_9140 } else { 0 }]
        }
        // Invariant counter.
        0x8000_0007 => [0, 0, 0, 1 << 8],
        0x8000_0008 => {
            let cores = if amd { apic_bits << 12 | (count - 1) } else { 0 };
            [48 << 8 | 40, word(Word::E8Ebx), cores, 0]
        }
        0x8000_001d if amd => cache(ecx, count),
        0x8000_001e if amd => [at.processor, at.processor, 0, 0],
        _ => [0; 4],
    }
}

/// Family, model and stepping as leaf 1 has them.
pub fn signature(chip: usize) -> u32 {
    signature_of(&CHIPS[chip])
}

fn signature_of(chip: &Chip) -> u32 {
    let (family, model, stepping) = chip.signature;
    stepping
        | (model & 15) << 4
        | family.min(15) << 8
        | (model >> 4) << 16
        | family.saturating_sub(15) << 20
}

/// Width in bits of physical and of linear addresses.
pub fn address_bits(features: Features) -> (u32, u32) {
    let physical = match (features.has(Feature::Lm), features.has(Feature::Pae)) {
        (true, _) => 40,
        (false, true) => 36,
        _ if features.has(Feature::Pse36) => 36,
        _ => 32,
    };
    let linear = match (features.has(Feature::La57), features.has(Feature::Lm)) {
        (true, _) => 57,
        (false, true) => 48,
        _ => 32,
    };
    (physical, linear)
}

/// What the system software of a whole processor decided.
#[derive(Clone, Copy, Debug)]
pub struct System {
    pub cr4: u64,
    /// The local APIC is enabled.
    pub apic: bool,
}

/// The signature of leaf 0x4000_0000.
const HYPERVISOR: &[u8; 12] = b"TulkTulkTulk";

/// [`leaf`] in system mode: with what depends on control registers, and with the leaves of the hypervisor range.
pub fn system_leaf(m: &CpuModel, at: Where, system: System, eax: u32, ecx: u32) -> [u32; 4] {
    let has = |f| m.features.has(f);
    let on = |bit| system.cr4 & bit != 0;
    if (0x4000_0000..0x5000_0000).contains(&eax) {
        let part = |n| text(&HYPERVISOR[n..n + 4]);
        return match eax {
            _ if !has(Feature::Hypervisor) => [0; 4],
            0x4000_0000 => [0x4000_0010, part(0), part(4), part(8)],
            // Rates of the time-stamp counter and of the local APIC's timer in kHz.
            0x4000_0010 => [(TSC_HZ / 1000) as u32, (APIC_HZ / 1000) as u32, 0, 0],
            _ => [0; 4],
        };
    }
    let [mut a, mut b, mut c, mut d] = leaf(m.chip, m.features, at, eax, ecx);
    match eax {
        1 => {
            if has(Feature::Xsave) && !on(cr4::OSXSAVE) {
                c &= !(1 << 27);
            }
            if !system.apic {
                d &= !(1 << 9);
            }
        }
        7 if ecx == 0 && on(cr4::PKE) && has(Feature::Pku) => c |= 1 << 4,
        // The local APIC's timer runs at the crystal's rate.
        0x15 if CHIPS[m.chip].levels.0 >= 0x15 => {
            (a, b, c, d) = (1, (TSC_HZ / APIC_HZ) as u32, APIC_HZ as u32, 0);
        }
        0x8000_0001 if CHIPS[m.chip].vendor == Vendor::Amd && !system.apic => d &= !(1 << 9),
        0x8000_0008 if CHIPS[m.chip].levels.1 >= 0x8000_0008 => {
            let (physical, linear) = address_bits(m.features);
            a = linear << 8 | physical;
        }
        _ => {}
    }
    [a, b, c, d]
}

/// Leaf 4 and 0x8000_001d.
fn cache(n: u32, processors: u32) -> [u32; 4] {
    let Some(&(level, kind, kib, ways)) = CACHES.get(n as usize) else { return [0; 4] };
    let line = 64;
    let sets = kib * 1024 / ways / line;
    let sharing = if level == 3 { processors - 1 } else { 0 };
    let eax = kind | level << 5 | 1 << 8 | sharing << 14 | (processors - 1).min(63) << 26;
    [eax, (line - 1) | (ways - 1) << 22, sets - 1, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuModel;

    fn ask(model: &str, eax: u32, ecx: u32) -> [u32; 4] {
        let m = CpuModel::parse(model).unwrap();
        leaf(m.chip, m.features, Where { processor: 0, processors: 1, xcr0: 7 }, eax, ecx)
    }

    #[test]
    fn signatures_and_vendors() {
        assert_eq!(ask("Haswell", 1, 0)[0], 0x306c4);
        assert_eq!(ask("EPYC", 1, 0)[0], 0x800f12);
        assert_eq!(ask("pentium", 1, 0)[0], 0x543);
        assert_eq!(ask("Haswell", 0, 0), [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]);
        assert_eq!(
            ask("EPYC", 0x8000_0000, 0),
            [0x8000_001e, 0x6874_7541, 0x444d_4163, 0x6974_6e65]
        );
    }

    #[test]
    fn features_show_and_hide() {
        assert_eq!(ask("Haswell", 7, 0)[1] >> 5 & 1, 1);
        assert_eq!(ask("Haswell,-avx2", 7, 0)[1] >> 5 & 1, 0);
        // The bits of AVX-512 stay clear in every model.
        for chip in CHIPS.iter().filter(|c| c.levels.0 >= 7) {
            let [_, ebx, _, _] = ask(chip.name, 7, 0);
            assert_eq!(ebx & 0xdc23_0000, 0, "{}", chip.name);
        }
        assert_eq!(ask("pentium3", 0x8000_0001, 0), [0; 4]);
    }

    #[test]
    fn every_model_answers_every_leaf() {
        for chip in CHIPS {
            let brand: Vec<u8> = (0x8000_0002u32..0x8000_0005)
                .flat_map(|l| ask(chip.name, l, 0))
                .flat_map(u32::to_le_bytes)
                .collect();
            if chip.levels.1 >= 0x8000_0004 {
                let end = brand.iter().position(|&b| b == 0).expect("an end");
                assert_eq!(&brand[..end], chip.brand.as_bytes());
            }
            for leaf in (0..0x30).chain(0x8000_0000..0x8000_0030) {
                (0..8).for_each(|sub| _ = ask(chip.name, leaf, sub));
            }
            // Caches end, and are as large as their sets, ways and lines say.
            let leaf = if chip.vendor == Vendor::Amd { 0x8000_001d } else { 4 };
            if chip.levels.0 >= 4 {
                let sizes: Vec<u32> = (0..)
                    .map(|n| ask(chip.name, leaf, n))
                    .take_while(|c| c[0] & 31 != 0)
                    .map(|c| ((c[1] >> 22) + 1) * ((c[1] & 0xfff) + 1) * (c[2] + 1) / 1024)
                    .collect();
                let known = chip.levels.1 >= 0x8000_001d || chip.vendor == Vendor::Intel;
                assert_eq!(sizes, if known { vec![32, 32, 512, 16384] } else { vec![] });
            }
        }
    }

    #[test]
    fn topology_counts_the_processors() {
        let m = CpuModel::parse("max").unwrap();
        let at = Where { processor: 5, processors: 6, xcr0: 7 };
        let leaf = |eax, ecx| leaf(m.chip, m.features, at, eax, ecx);
        assert_eq!(leaf(0xb, 0), [0, 1, 0x100, 5]);
        assert_eq!(leaf(0xb, 1), [3, 6, 0x201, 5]);
        assert_eq!(leaf(0xb, 2), [0, 0, 2, 5]);
        assert_eq!(leaf(1, 0)[1] >> 16, 5 << 8 | 6);
    }

    #[test]
    fn xsave_leaf_follows_avx() {
        assert_eq!(ask("Haswell", 0xd, 0), [7, 832, 832, 0]);
        assert_eq!(ask("Haswell", 0xd, 2), [256, 576, 0, 0]);
        assert_eq!(ask("Haswell,-avx", 0xd, 0)[0], 3);
        // With protection keys they have a component; the kernel takes both for granted.
        assert_eq!(ask("max", 0xd, 0), [0x207, 832, 840, 0]);
        assert_eq!(ask("max", 0xd, 9), [8, 832, 0, 0]);
        assert_eq!(ask("max,-pku", 0xd, 0), [7, 832, 832, 0]);
        assert_eq!(ask("max,-pku", 0xd, 9), [0; 4]);
        assert_eq!(ask("Nehalem", 0xd, 0), ask("Nehalem", 0xb, 0));
    }
}
