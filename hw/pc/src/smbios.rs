//! SMBIOS tables: who made the machine, its processors and memory. System Management BIOS Reference Specification 2.8,
//! section numbers as there.

use crate::layout::MemoryMap;

/// What users may say about the machine.
#[derive(Clone, Debug)]
pub struct Identity {
    /// As the user has given it. The product's serial number stays empty.
    pub uuid: [u8; 16],
    pub cpus: u32,
    pub memory: MemoryMap,
}

/// The two files that firmware takes over: the entry point and the structures. The entry point's address and checksums
/// are filled in by the firmware.
pub struct Smbios {
    pub anchor: Vec<u8>,
    pub structures: Vec<u8>,
}

/// Collects structures.
#[derive(Default)]
struct Builder {
    bytes: Vec<u8>,
    count: u16,
    longest: u16,
}

impl Builder {
    /// Adds a structure: its formatted area without the four bytes of the header, and its strings, which the area names
    /// from 1 on.
    fn add(&mut self, kind: u8, handle: u16, area: &[u8], strings: &[&str]) {
        let start = self.bytes.len();
        self.bytes.extend([kind, area.len() as u8 + 4]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(area);
        for string in strings {
            self.bytes.extend(string.bytes().filter(|&b| b != 0));
            self.bytes.push(0);
        }
        if strings.is_empty() {
            self.bytes.push(0);
        }
        self.bytes.push(0);
        self.count += 1;
        self.longest = self.longest.max((self.bytes.len() - start) as u16);
    }
}

/// Concatenates fields of different widths.
macro_rules! area {
    ($($field:expr),* $(,)?) => {{
        let mut area: Vec<u8> = Vec::new();
        $(area.extend($field.to_le_bytes());)*
        area
    }};
}

const MAKER: &str = "tulk";
/// The largest module that one memory device describes.
const DIMM: u64 = 16 << 30;
/// Memory devices at most; more RAM makes larger modules.
const DIMMS: u64 = 8;

/// The tables of a machine.
pub fn tables(machine: &Identity) -> Smbios {
    let mut t = Builder::default();
    // 7.1 BIOS information: characteristics "not supported" (bit 3); virtual machine (extension byte 2, bit 4).
    let bios = area![1u8, 2u8, 0xe800u16, 3u8, 0u8, 8u64, 0u8, 0x14u8, 0u8, 0u8, 0xffu8, 0xffu8];
    t.add(0, 0, &bios, &["SeaBIOS", "1", "04/01/2014"]);
    // 7.2 System information. The UUID's first three fields are stored in little endian.
    let mut system = area![1u8, 2u8, 3u8, 0u8];
    let u = machine.uuid;
    system.extend([u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6]]);
    system.extend(&u[8..]);
    system.extend([6, 0, 0]); // woken by the power switch; no SKU, no family
    t.add(1, 0x100, &system, &[MAKER, "Standard PC (i440FX + PIIX)", env!("CARGO_PKG_VERSION")]);
    // 7.4 Enclosure: other; all states safe; security unknown.
    let enclosure =
        area![1u8, 1u8, 2u8, 0u8, 0u8, 3u8, 3u8, 3u8, 2u8, 0u32, 0u8, 0u8, 0u8, 0u8, 0u8,];
    t.add(3, 0x300, &enclosure, &[MAKER, env!("CARGO_PKG_VERSION")]);
    for cpu in 0..machine.cpus {
        // 7.5 Processor: central processor, enabled, one core; speeds and caches are not told.
        let processor = area![
            1u8, 3u8, 1u8, 2u8, 0u64, 3u8, 0u8, 0u16, 2000u16, 2000u16, 0x41u8, 1u8, 0xffffu16,
            0xffffu16, 0xffffu16, 0u8, 0u8, 0u8, 1u8, 1u8, 1u8, 2u16, 1u16,
        ];
        t.add(4, 0x400 + cpu as u16, &processor, &[&format!("CPU {cpu}"), MAKER, "tulk"]);
    }
    let total = machine.memory.total();
    let module = DIMM.max(total.div_ceil(DIMMS).next_multiple_of(1 << 20));
    let modules = total.div_ceil(module).max(1) as u16;
    // 7.17 Physical memory array on the system board, for system memory, multi-bit ECC; capacity in KiB or, when that
    // is too much, in bytes at the end.
    let kib = u32::try_from(total >> 10).ok().filter(|&k| k < 0x8000_0000);
    let array = area![
        1u8,
        3u8,
        6u8,
        kib.unwrap_or(0x8000_0000),
        0xfffeu16,
        modules,
        if kib.is_none() { total } else { 0 },
    ];
    t.add(16, 0x1000, &array, &[]);
    for n in 0..modules {
        // 7.18 Memory device: DIMM, RAM; the size in MiB, or 0x7fff and in the extended field.
        let mib = ((total - n as u64 * module).min(module) >> 20) as u32;
        let short = if mib < 0x7fff { mib as u16 } else { 0x7fff };
        let device = area![
            0x1000u16,
            0xfffeu16,
            0xffffu16,
            0xffffu16,
            short,
            9u8,
            0u8,
            1u8,
            0u8,
            7u8,
            2u16,
            0u16,
            2u8,
            0u8,
            0u8,
            0u8,
            0u8,
            if short == 0x7fff { mib } else { 0 },
            0u16,
            0u16,
            0u16,
            0u16,
        ];
        t.add(17, 0x1100 + n, &device, &[&format!("DIMM {n}"), MAKER]);
    }
    let ranges = [(0, machine.memory.below_4g), (1u64 << 32, machine.memory.above_4g)];
    for (n, (start, len)) in ranges.into_iter().filter(|(_, len)| *len > 0).enumerate() {
        // 7.20 Memory array mapped address, in KiB, last address included; beyond 4 TiB in bytes at the end.
        let end = start + len - 1;
        let mapped = if end >> 10 < 0xffff_ffff {
            area![(start >> 10) as u32, (end >> 10) as u32, 0x1000u16, 1u8, 0u64, 0u64]
        } else {
            area![0xffff_ffffu32, 0xffff_ffffu32, 0x1000u16, 1u8, start, end]
        };
        t.add(19, 0x1300 + n as u16, &mapped, &[]);
    }
    // 7.33 System boot information: no errors.
    t.add(32, 0x2000, &[0; 7], &[]);
    t.add(127, 0x7f00, &[], &[]);

    // 5.2.1 The 32-bit entry point.
    let mut anchor = b"_SM_".to_vec();
    anchor.extend([0, 0x1f, 2, 8]);
    anchor.extend(t.longest.to_le_bytes());
    anchor.extend([0; 6]);
    anchor.extend(b"_DMI_\0");
    anchor.extend((t.bytes.len() as u16).to_le_bytes());
    anchor.extend([0; 4]);
    anchor.extend(t.count.to_le_bytes());
    anchor.push(0x28);
    Smbios { anchor, structures: t.bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types of the structures in order, checking lengths and terminators on the way.
    fn walk(mut bytes: &[u8]) -> Vec<u8> {
        let mut kinds = Vec::new();
        while !bytes.is_empty() {
            kinds.push(bytes[0]);
            let strings = bytes[1] as usize;
            let end = bytes[strings..].windows(2).position(|w| w == [0, 0]).expect("two zeros");
            bytes = &bytes[strings + end + 2..];
        }
        kinds
    }

    #[test]
    fn structures_are_complete() {
        let machine = Identity { uuid: [7; 16], cpus: 2, memory: MemoryMap::new(6 << 30) };
        let smbios = tables(&machine);
        let kinds = walk(&smbios.structures);
        assert_eq!(kinds, [0, 1, 3, 4, 4, 16, 17, 19, 19, 32, 127]);
        assert_eq!(smbios.anchor.len(), 0x1f);
        assert_eq!(smbios.anchor[0x1c..0x1e], (kinds.len() as u16).to_le_bytes());
        // Lengths that the specification gives for version 2.8.
        let lengths = [0x18, 0x1b, 0x16, 0x2a, 0x2a, 0x17, 0x28, 0x1f, 0x1f, 0x0b, 4];
        let mut rest = &smbios.structures[..];
        for (kind, length) in kinds.iter().zip(lengths) {
            assert_eq!(rest[1], length, "type {kind}");
            let strings = rest[1] as usize;
            let end = rest[strings..].windows(2).position(|w| w == [0, 0]).unwrap();
            rest = &rest[strings + end + 2..];
        }
    }
}
