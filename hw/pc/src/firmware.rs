//! What firmware is told about the machine: fw_cfg's items and files, and the CMOS memory.

use crate::acpi::{self, Tables};
use crate::boot::{self, Prepared};
use crate::layout::MemoryMap;
use crate::smbios;
use tulk_devices::misc::FwCfg;
use tulk_devices::misc::fw_cfg::key;
use tulk_devices::timer::Mc146818;

/// Where firmware boots from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootDevice {
    Floppy,
    Disk,
    Cdrom,
    Network,
}

impl BootDevice {
    /// QEMU's letters.
    pub fn from_letter(letter: char) -> Option<BootDevice> {
        Some(match letter {
            'a' | 'b' => BootDevice::Floppy,
            'c' => BootDevice::Disk,
            'd' => BootDevice::Cdrom,
            'n' => BootDevice::Network,
            _ => return None,
        })
    }

    /// The number in CMOS by which SeaBIOS knows it.
    fn number(self) -> u8 {
        match self {
            BootDevice::Floppy => 1,
            BootDevice::Disk => 2,
            BootDevice::Cdrom => 3,
            BootDevice::Network => 4,
        }
    }
}

/// What the user wants of the boot.
#[derive(Clone, Debug, Default)]
pub struct BootOptions {
    /// Up to three devices.
    pub order: Vec<BootDevice>,
    pub menu: bool,
    /// Milliseconds that the menu is offered.
    pub menu_wait: Option<u16>,
    /// Milliseconds to the next try when nothing boots; `None`: never.
    pub retry: Option<u32>,
    /// Nothing but what is in the order.
    pub strict: bool,
}

/// What is told.
pub struct Facts<'a> {
    pub memory: MemoryMap,
    pub cpus: u32,
    pub acpi: Option<&'a Tables>,
    pub hpet: bool,
    pub uuid: Option<[u8; 16]>,
    pub graphics: bool,
    pub boot: &'a BootOptions,
    /// Devices to boot from before all others, as Open Firmware's paths.
    pub boot_paths: Vec<String>,
    pub kernel: Option<Prepared>,
    /// Files of the user's.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Fills fw_cfg.
pub fn fill(fw_cfg: &mut FwCfg, facts: Facts<'_>) {
    let mut item = |key, value: &[u8]| fw_cfg.add_item(key, value.to_vec());
    item(key::UUID, &facts.uuid.unwrap_or_default());
    item(key::RAM_SIZE, &facts.memory.total().to_le_bytes());
    item(key::NOGRAPHIC, &u16::from(!facts.graphics).to_le_bytes());
    item(key::NB_CPUS, &(facts.cpus as u16).to_le_bytes());
    item(key::MAX_CPUS, &(facts.cpus as u16).to_le_bytes());
    item(key::BOOT_MENU, &u16::from(facts.boot.menu).to_le_bytes());
    item(key::IRQ0_OVERRIDE, &1u32.to_le_bytes());
    // No nodes; no CPU belongs to one.
    item(key::NUMA, &[0; 8]);
    if facts.hpet {
        // One block: count, event timer block id, address, minimum tick, protection.
        let mut hpet = vec![1];
        hpet.extend(0x8086_a201u32.to_le_bytes());
        hpet.extend(crate::layout::HPET.start.to_le_bytes());
        hpet.extend(100u16.to_le_bytes());
        hpet.push(0);
        hpet.resize(1 + 8 * 15, 0);
        item(key::HPET, &hpet);
    }
    let mut order = facts.boot_paths;
    if let Some(kernel) = facts.kernel {
        for (key, value) in kernel.items {
            fw_cfg.add_item(key, value);
        }
        fw_cfg.add_file(boot::ROM_FILE, kernel.rom);
        order.insert(0, boot::ROM_BOOT_ENTRY.to_string());
    }
    if facts.boot.strict {
        order.push("HALT".to_string());
    }
    if !order.is_empty() {
        let mut bytes = order.join("\n").into_bytes();
        bytes.push(0);
        fw_cfg.add_file("bootorder", bytes);
    }
    if let Some(ms) = facts.boot.menu_wait {
        fw_cfg.add_file("etc/boot-menu-wait", ms.to_le_bytes().to_vec());
    }
    let retry = facts.boot.retry.unwrap_or(u32::MAX);
    fw_cfg.add_file("etc/boot-fail-wait", retry.to_le_bytes().to_vec());
    fw_cfg.add_file("etc/e820", facts.memory.e820());
    // States S0 to S5 with their sleep types: only S0 and S5 are there.
    fw_cfg.add_file("etc/system-states", vec![128, 0, 0, 1, 2, 128]);
    if let Some(tables) = facts.acpi {
        fw_cfg.add_file(acpi::TABLES_FILE, tables.tables.clone());
        fw_cfg.add_file(acpi::RSDP_FILE, tables.rsdp.clone());
        fw_cfg.add_file("etc/table-loader", tables.linker_script());
    }
    let identity = smbios::Identity {
        uuid: facts.uuid.unwrap_or_default(),
        cpus: facts.cpus,
        memory: facts.memory,
    };
    let tables = smbios::tables(&identity);
    fw_cfg.add_file("etc/smbios/smbios-anchor", tables.anchor);
    fw_cfg.add_file("etc/smbios/smbios-tables", tables.structures);
    for (name, content) in facts.files {
        fw_cfg.add_file(&name, content);
    }
}

/// Bytes of CMOS memory as firmware reads them: address and value. `floppies`: types of the drives, 0 for none.
pub fn cmos(memory: &MemoryMap, cpus: u32, floppies: [u8; 2], boot: &BootOptions) -> Vec<(u8, u8)> {
    let mut out = Vec::new();
    let mut word = |at: u8, value: u64| {
        let [low, high, ..] = value.to_le_bytes();
        out.extend([(at, low), (at + 1, high)]);
    };
    let kib = |from: u64| (memory.below_4g.saturating_sub(from) >> 10).min(0xffff);
    word(0x15, 640);
    word(0x17, kib(1 << 20));
    word(0x30, kib(1 << 20));
    // In units of 64 KiB: from 16 MiB on, and above 4 GiB in three bytes.
    word(0x34, (memory.below_4g.saturating_sub(16 << 20) >> 16).min(0xffff));
    let high = memory.above_4g >> 16;
    word(0x5b, high & 0xffff);
    out.push((0x5d, (high >> 16) as u8));
    out.push((0x5f, (cpus - 1) as u8));
    out.push((0x10, floppies[0] << 4 | floppies[1]));
    // Equipment: a mathematics coprocessor, a PS/2 mouse, the number of floppy drives.
    let count = floppies.iter().filter(|kind| **kind != 0).count() as u8;
    out.push((0x14, 0x06 | if count > 0 { (count - 1) << 6 | 1 } else { 0 }));
    out.extend(cmos_order(&boot.order));
    out
}

/// The bytes of CMOS memory that have the boot order.
pub fn cmos_order(order: &[BootDevice]) -> [(u8, u8); 2] {
    let number = |n: usize| order.get(n).map_or(0, |device| device.number());
    [(0x3d, number(1) << 4 | number(0)), (0x38, number(2) << 4)]
}

/// Writes them.
pub fn fill_cmos(rtc: &mut Mc146818, bytes: &[(u8, u8)]) {
    for &(at, value) in bytes {
        rtc.set_cmos(at, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmos_tells_the_memory() {
        let order = "cad".chars().map(|c| BootDevice::from_letter(c).unwrap()).collect();
        let boot = BootOptions { order, ..BootOptions::default() };
        let bytes = cmos(&MemoryMap::new(6 << 30), 4, [4, 0], &boot);
        let at = |address: u8| bytes.iter().find(|(a, _)| *a == address).unwrap().1;
        assert_eq!(
            u16::from_le_bytes([at(0x34), at(0x35)]),
            (((3u64 << 30) - (16 << 20)) >> 16) as u16
        );
        assert_eq!([at(0x5b), at(0x5c), at(0x5d)], [0, 0xc0, 0]);
        assert_eq!(at(0x5f), 3);
        assert_eq!(at(0x10), 0x40);
        assert_eq!((at(0x3d), at(0x38)), (0x12, 0x30));
    }
}
