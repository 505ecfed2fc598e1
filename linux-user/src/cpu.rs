//! Processors by name: what `-cpu` takes and what programs can learn of them.

use crate::abi::Cpu;
use std::sync::Arc;
use tulk_arm::a64::cpu::MODELS;
use tulk_arm::a64::{Aarch64, CpuModel};

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

#[cfg(test)]
mod tests {
    #[test]
    fn models_by_name() {
        let a53 = super::aarch64(Some("cortex-a53")).unwrap();
        assert!(a53.cpuinfo.contains("CPU part\t: 0xd03\n"));
        assert!(a53.cpuinfo.contains("CPU implementer\t: 0x41\n"));
        let e = super::aarch64(Some("pentium")).err().unwrap();
        assert!(e.contains("cortex-a53"), "{e}");
    }
}
