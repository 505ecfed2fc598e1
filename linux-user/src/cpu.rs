//! Processors by name: what `-cpu` takes and what programs can learn of them.

use crate::abi::Cpu;
use std::sync::Arc;
use tulk_arm::a64::cpu::MODELS;
use tulk_arm::a64::{Aarch64, CpuModel};
use tulk_x86::cpu::{CpuModel as X86Model, Feature, Vendor};
use tulk_x86::cpuid::{self, Where};
use tulk_x86::{Mode, X86};

/// An AArch64 processor; `max` by default.
pub fn aarch64(name: Option<&str>) -> Result<Cpu, String> {
    let name = name.unwrap_or("max");
    let model = CpuModel::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = MODELS.iter().map(|m| m.name).collect();
        format!("unknown CPU `{name}` for aarch64; known are {}", known.join(", "))
    })?;
    // MIDR_EL1: implementer, variant, architecture, part, revision.
    let cpuinfo = format!(
        "BogoMIPS\t: 100.00\nFeatures\t: {}\nCPU implementer\t: {:#04x}\nCPU architecture: 8\n\
         CPU variant\t: {:#x}\nCPU part\t: {:#05x}\nCPU revision\t: {}\n",
        model.cpuinfo_features().join(" "),
        model.midr >> 24 & 0xff,
        model.midr >> 20 & 0xf,
        model.midr >> 4 & 0xfff,
        model.midr & 0xf,
    );
    Ok(Cpu {
        hwcap: model.hwcap(),
        hwcap2: model.hwcap2(),
        cpuinfo,
        isa: Arc::new(Aarch64::new(model)),
    })
}

/// An x86 processor; `max` by default.
pub fn x86(mode: Mode, name: Option<&str>) -> Result<Cpu, String> {
    let model = X86Model::parse(name.unwrap_or("max")).map_err(|e| e.to_string())?;
    if mode == Mode::X86_64 && !(model.has(Feature::Lm) && model.has(Feature::Sse2)) {
        return Err(format!("the CPU `{}` does not run 64-bit programs", model.chip().name));
    }
    let at = Where { processor: 0, processors: 1, xcr0: 0 };
    let leaf = |eax| cpuid::leaf(model.chip, model.features, at, eax, 0);
    // AT_HWCAP is CPUID's word of the oldest features; AT_HWCAP2 has FSGSBASE, which the kernel must allow.
    let hwcap = leaf(1)[3] as u64;
    let hwcap2 = if model.has(Feature::Fsgsbase) { 2 } else { 0 };
    Ok(Cpu {
        hwcap,
        hwcap2,
        cpuinfo: x86_cpuinfo(&model, mode),
        isa: Arc::new(X86::new(mode, model)),
    })
}

fn x86_cpuinfo(model: &X86Model, mode: Mode) -> String {
    let chip = model.chip();
    let (vendor, (family, number, stepping)) = match chip.vendor {
        Vendor::Intel => ("GenuineIntel", chip.signature),
        Vendor::Amd => ("AuthenticAMD", chip.signature),
    };
    let name = if chip.brand.is_empty() { "unknown" } else { chip.brand };
    let mut flags: Vec<&str> = model.features.iter().map(Feature::name).collect();
    flags.extend(["constant_tsc", "nonstop_tsc", "cpuid"]);
    let fpu = if model.has(Feature::Fpu) { "yes" } else { "no" };
    let virtual_bits = if mode == Mode::X86_64 || model.has(Feature::Lm) { 48 } else { 32 };
    format!(
        "vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {number}\nmodel name\t: {name}\n\
         stepping\t: {stepping}\nmicrocode\t: 0x1\ncpu MHz\t\t: 1000.000\ncache size\t: 16384 KB\n\
         physical id\t: 0\nsiblings\t: {{count}}\ncore id\t\t: {{n}}\ncpu cores\t: {{count}}\n\
         apicid\t\t: {{n}}\ninitial apicid\t: {{n}}\nfpu\t\t: {fpu}\nfpu_exception\t: {fpu}\n\
         cpuid level\t: {}\nwp\t\t: yes\nflags\t\t: {}\nbugs\t\t:\nbogomips\t: 2000.00\n\
         clflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: 40 bits physical, {virtual_bits} bits virtual\n\
         power management:\n",
        chip.levels.0,
        flags.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x86_models() {
        let cpu = x86(Mode::X86_64, Some("Haswell,-avx2")).unwrap();
        assert!(cpu.cpuinfo.contains(" avx ") && !cpu.cpuinfo.contains(" avx2 "));
        assert!(cpu.cpuinfo.contains("core id\t\t: {n}\n"));
        // FPU, TSC, CMOV, MMX, FXSR, SSE, SSE2.
        let old = 1 | 1 << 4 | 1 << 15 | 7 << 23 | 1 << 26;
        assert_eq!(cpu.hwcap & old, old);
        let e = x86(Mode::X86_64, Some("pentium")).err().unwrap();
        assert!(e.contains("64-bit"), "{e}");
        assert!(x86(Mode::I386, Some("pentium")).is_ok());
    }

    #[test]
    fn models_by_name() {
        let a53 = super::aarch64(Some("cortex-a53")).unwrap();
        assert!(a53.cpuinfo.contains("CPU part\t: 0xd03\n"));
        assert!(a53.cpuinfo.contains("CPU implementer\t: 0x41\n"));
        let e = super::aarch64(Some("pentium")).err().unwrap();
        assert!(e.contains("cortex-a53"), "{e}");
    }
}
