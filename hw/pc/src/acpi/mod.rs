//! ACPI tables: what the machine consists of, for operating systems. ACPI Specification 6.4, chapter 5.2.
//!
//! The tables form one block in which pointers are offsets and checksums are missing. [`Tables::linker_script`] tells
//! firmware how to place it (fw_cfg `etc/table-loader`); [`Tables::place`] does the same here.

mod dsdt;

use crate::layout::{self, MemoryMap};
use acpi_tables::sdt::Sdt;

/// What the tables depend on.
#[derive(Clone, Debug)]
pub struct Machine {
    pub cpus: u32,
    pub memory: MemoryMap,
    /// Bit n: COM(n+1) is there.
    pub serial_ports: u8,
    pub hpet: bool,
}

/// Ports of the power management block (PIIX4) and its interrupt.
pub const PM_BASE: u16 = 0x600;
pub const SCI: u8 = 9;
/// Reset control register of the chipset, and the value that resets.
pub const RESET_PORT: u16 = 0xcf9;
pub const RESET_VALUE: u8 = 0x06;
/// APM control port: the value written there moves the machine to and from ACPI mode.
const SMI_PORT: u16 = 0xb2;
const ACPI_ENABLE: u8 = 0xf1;
const ACPI_DISABLE: u8 = 0xf0;

/// Slot of the PIIX3 on the PCI bus.
pub const ISA_BRIDGE_SLOT: u8 = 1;
/// What SeaBIOS and the MADT take for the I/O APIC's number.
const IO_APIC_ID: u8 = 0;
/// The HPET's capabilities, low half: three 64-bit timers, legacy routing, vendor 0x8086, revision 1.
const HPET_BLOCK_ID: u32 = 0x8086_a201;

const OEM: [u8; 6] = *b"TULK  ";
const OEM_TABLE: [u8; 8] = *b"TULKPC  ";

/// Names of the blocks in fw_cfg.
pub const TABLES_FILE: &str = "etc/acpi/tables";
pub const RSDP_FILE: &str = "etc/acpi/rsdp";

/// Which block something is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    Tables,
    Rsdp,
}

impl Block {
    fn file(self) -> &'static str {
        match self {
            Block::Tables => TABLES_FILE,
            Block::Rsdp => RSDP_FILE,
        }
    }
}

/// The tables before they have addresses.
#[derive(Default)]
pub struct Tables {
    pub tables: Vec<u8>,
    pub rsdp: Vec<u8>,
    /// Where pointers to [`Block::Tables`] are: block, offset, size in bytes. They hold offsets.
    pointers: Vec<(Block, u32, u8)>,
    /// Bytes that make the sum of a range zero: block, offset, range's start and length. In this order.
    checksums: Vec<(Block, u32, u32, u32)>,
}

fn header(signature: &[u8; 4], revision: u8) -> Sdt {
    Sdt::new(*signature, 36, revision, OEM, OEM_TABLE, 1)
}

/// FADT fields by offset, size and value. 5.2.9; revision 3.
const FADT: &[(usize, u8, u32)] = &[
    (45, 1, 1), // preferred profile: desktop
    (46, 2, SCI as u32),
    (48, 4, SMI_PORT as u32),
    (52, 1, ACPI_ENABLE as u32),
    (53, 1, ACPI_DISABLE as u32),
    (56, 4, PM_BASE as u32),     // PM1a event block
    (64, 4, PM_BASE as u32 + 4), // PM1a control block
    (76, 4, PM_BASE as u32 + 8), // timer
    (88, 1, 4),
    (89, 1, 2),
    (91, 1, 4),
    (96, 2, 0xfff), // no C2
    (98, 2, 0xfff), // no C3
    (108, 1, 0x32), // the century's place in CMOS
    (109, 2, 0x03), // legacy devices; an 8042
    // WBINVD, C1 on all processors, sleep button and RTC wake not as fixed features, reset register.
    (112, 4, 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10),
    (116, 4, 1 | 8 << 8), // reset register: I/O, eight bits ...
    (120, 4, RESET_PORT as u32),
    (128, 1, RESET_VALUE as u32),
];
const FADT_LEN: u32 = 244;
const FADT_FACS: usize = 36;
const FADT_DSDT: usize = 40;

fn fadt(facs: u32, dsdt: u32) -> Sdt {
    let mut fadt = Sdt::new(*b"FACP", FADT_LEN, 3, OEM, OEM_TABLE, 1);
    fadt.write_u32(FADT_FACS, facs);
    fadt.write_u32(FADT_DSDT, dsdt);
    for &(offset, size, value) in FADT {
        fadt.write_bytes(offset, &value.to_le_bytes()[..size as usize]);
    }
    // The same blocks as generic addresses: in I/O space, bits wide.
    for (offset, bits, port) in [(148, 32, PM_BASE), (172, 16, PM_BASE + 4), (208, 32, PM_BASE + 8)]
    {
        fadt.write_bytes(offset, &[1, bits, 0, 0]);
        fadt.write_u64(offset + 4, port as u64);
    }
    fadt
}

/// 5.2.12: the processors' local APICs, the I/O APIC, and how ISA interrupts differ from its pins.
fn madt(machine: &Machine) -> Sdt {
    let mut madt = header(b"APIC", 3);
    madt.append_slice(&(layout::LOCAL_APIC.start as u32).to_le_bytes());
    madt.append_slice(&1u32.to_le_bytes()); // there are 8259s, too
    for cpu in 0..machine.cpus {
        if cpu < 255 {
            madt.append_slice(&[0, 8, cpu as u8, cpu as u8, 1, 0, 0, 0]);
        } else {
            let [a, b, c, d] = cpu.to_le_bytes();
            madt.append_slice(&[9, 16, 0, 0, a, b, c, d, 1, 0, 0, 0, a, b, c, d]);
        }
    }
    madt.append_slice(&[1, 12, IO_APIC_ID, 0]);
    madt.append_slice(&(layout::IO_APIC.start as u32).to_le_bytes());
    madt.append_slice(&0u32.to_le_bytes());
    // Source overrides: IRQ 0 is input 2 as it always was; the SCI and what PCI interrupts may be routed to are
    // level-triggered, active high.
    madt.append_slice(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    for irq in dsdt::PCI_IRQS.map(|irq| irq as u8).into_iter().chain([SCI]) {
        madt.append_slice(&[2, 10, 0, irq, irq, 0, 0, 0, 0x0d, 0]);
    }
    // NMI at LINT1 of all processors.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

/// The HPET table of the IA-PC HPET Specification, 3.2.4.
fn hpet() -> Sdt {
    let mut hpet = header(b"HPET", 1);
    hpet.append_slice(&HPET_BLOCK_ID.to_le_bytes());
    hpet.append_slice(&[0, 64, 0, 0]);
    hpet.append_slice(&layout::HPET.start.to_le_bytes());
    hpet.append_slice(&[0, 0, 0, 0]);
    hpet
}

impl Tables {
    pub fn new(machine: &Machine) -> Tables {
        let mut t = Tables::default();
        // 5.2.10: the FACS must be aligned to 64 bytes, and has no checksum.
        let mut facs = b"FACS".to_vec();
        facs.extend(64u32.to_le_bytes());
        facs.resize(64, 0);
        facs[32] = 1;
        t.tables.extend(facs);
        let mut dsdt = header(b"DSDT", 2);
        dsdt.append_slice(&dsdt::body(machine));
        let dsdt = t.add(&dsdt);
        let fadt = t.add(&fadt(0, dsdt));
        t.pointers.push((Block::Tables, fadt + FADT_FACS as u32, 4));
        t.pointers.push((Block::Tables, fadt + FADT_DSDT as u32, 4));
        let mut listed = vec![fadt, t.add(&madt(machine))];
        if machine.hpet {
            listed.push(t.add(&hpet()));
        }
        let rsdt = t.add_root(b"RSDT", &listed, 4);
        let xsdt = t.add_root(b"XSDT", &listed, 8);
        t.add_rsdp(rsdt, xsdt);
        t
    }

    /// Appends a table; the firmware makes its checksum. Returns its offset.
    fn add(&mut self, table: &Sdt) -> u32 {
        let offset = self.tables.len().next_multiple_of(16);
        self.tables.resize(offset, 0);
        self.tables.extend(table.as_slice());
        self.tables[offset + 9] = 0;
        let offset = offset as u32;
        self.checksums.push((Block::Tables, offset + 9, offset, table.len() as u32));
        offset
    }

    fn add_root(&mut self, signature: &[u8; 4], listed: &[u32], size: u8) -> u32 {
        let mut root = header(signature, 1);
        for &table in listed {
            root.append_slice(&(table as u64).to_le_bytes()[..size as usize]);
        }
        let offset = self.add(&root);
        for n in 0..listed.len() as u32 {
            self.pointers.push((Block::Tables, offset + 36 + n * size as u32, size));
        }
        offset
    }

    /// 5.2.5.3: the root pointer, revision 2; one checksum for the first 20 bytes and one for all.
    fn add_rsdp(&mut self, rsdt: u32, xsdt: u32) {
        let rsdp = &mut self.rsdp;
        rsdp.extend(b"RSD PTR \0");
        rsdp.extend(OEM);
        rsdp.push(2);
        rsdp.extend(rsdt.to_le_bytes());
        rsdp.extend(36u32.to_le_bytes());
        rsdp.extend((xsdt as u64).to_le_bytes());
        rsdp.resize(36, 0);
        self.pointers.push((Block::Rsdp, 16, 4));
        self.pointers.push((Block::Rsdp, 24, 8));
        self.checksums.push((Block::Rsdp, 8, 0, 20));
        self.checksums.push((Block::Rsdp, 32, 0, 36));
    }

    /// The commands for firmware: 128 bytes each, a number and its arguments; file names in 56 bytes.
    pub fn linker_script(&self) -> Vec<u8> {
        const ALLOCATE: u32 = 1;
        const ADD_POINTER: u32 = 2;
        const ADD_CHECKSUM: u32 = 3;
        /// Anywhere, or in the segment where the root pointer is looked for.
        const HIGH: u8 = 1;
        const F_SEGMENT: u8 = 2;
        let mut script = Vec::new();
        let mut command = |number: u32, files: &[Block], arguments: &[&[u8]]| {
            let end = script.len() + 128;
            script.extend(number.to_le_bytes());
            for file in files {
                let mut name = [0; 56];
                name[..file.file().len()].copy_from_slice(file.file().as_bytes());
                script.extend(name);
            }
            for argument in arguments {
                script.extend(*argument);
            }
            script.resize(end, 0);
        };
        command(ALLOCATE, &[Block::Rsdp], &[&16u32.to_le_bytes(), &[F_SEGMENT]]);
        command(ALLOCATE, &[Block::Tables], &[&64u32.to_le_bytes(), &[HIGH]]);
        for (block, offset, size) in &self.pointers {
            command(ADD_POINTER, &[*block, Block::Tables], &[&offset.to_le_bytes(), &[*size]]);
        }
        for (block, offset, start, len) in &self.checksums {
            let arguments = [offset.to_le_bytes(), start.to_le_bytes(), len.to_le_bytes()];
            command(ADD_CHECKSUM, &[*block], &[&arguments.concat()]);
        }
        script
    }

    /// The tables as they look at physical address `address`, and their root pointer.
    pub fn place(&self, address: u64) -> (Vec<u8>, Vec<u8>) {
        let (mut tables, mut rsdp) = (self.tables.clone(), self.rsdp.clone());
        let mut block = |block: Block, edit: &mut dyn FnMut(&mut [u8])| match block {
            Block::Tables => edit(&mut tables),
            Block::Rsdp => edit(&mut rsdp),
        };
        for &(where_, offset, size) in &self.pointers {
            block(where_, &mut |bytes| {
                let field = &mut bytes[offset as usize..][..size as usize];
                let mut value = [0; 8];
                value[..size as usize].copy_from_slice(field);
                let value = u64::from_le_bytes(value) + address;
                field.copy_from_slice(&value.to_le_bytes()[..size as usize]);
            });
        }
        for &(where_, offset, start, len) in &self.checksums {
            block(where_, &mut |bytes| {
                let range = &bytes[start as usize..][..len as usize];
                let sum = range.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
                bytes[offset as usize] = bytes[offset as usize].wrapping_sub(sum);
            });
        }
        (tables, rsdp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn machine() -> Machine {
        Machine { cpus: 4, memory: MemoryMap::new(6 << 30), serial_ports: 0b0011, hpet: true }
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
    }

    /// Tables by signature, found from the root pointer as an operating system does.
    fn listed(tables: &[u8], rsdp: &[u8], base: u64) -> Vec<(String, Vec<u8>)> {
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let table = |address: u64| {
            let at = (address - base) as usize;
            let bytes = tables[at..at + word(tables, at + 4) as usize].to_vec();
            (String::from_utf8(bytes[..4].to_vec()).unwrap(), bytes)
        };
        let xsdt = table(u64::from_le_bytes(rsdp[24..32].try_into().unwrap()));
        let rsdt = table(word(rsdp, 16) as u64);
        let mut all: Vec<_> = xsdt.1[36..]
            .chunks(8)
            .map(|entry| table(u64::from_le_bytes(entry.try_into().unwrap())))
            .collect();
        let also: Vec<_> =
            rsdt.1[36..].chunks(4).map(|entry| table(word(entry, 0) as u64)).collect();
        assert_eq!(all, also, "both roots list the same");
        let fadt = all[0].1.clone();
        all.push(table(word(&fadt, FADT_DSDT) as u64));
        assert_eq!(&tables[(word(&fadt, FADT_FACS) as u64 - base) as usize..][..4], b"FACS");
        all.extend([xsdt, rsdt]);
        all
    }

    #[test]
    fn sums_are_zero_where_they_must_be() {
        let (tables, rsdp) = Tables::new(&machine()).place(0xbffe_0000);
        assert_eq!(sum(&rsdp[..20]), 0);
        assert_eq!(sum(&rsdp), 0);
        let all = listed(&tables, &rsdp, 0xbffe_0000);
        let names: Vec<_> = all.iter().map(|t| t.0.as_str()).collect();
        assert_eq!(names, ["FACP", "APIC", "HPET", "DSDT", "XSDT", "RSDT"]);
        for (name, bytes) in &all {
            assert_eq!(sum(bytes), 0, "{name}");
        }
    }

    #[test]
    fn the_script_names_everything() {
        let tables = Tables::new(&machine());
        let script = tables.linker_script();
        assert_eq!(script.len() % 128, 0);
        assert_eq!(script.len() / 128, 2 + tables.pointers.len() + tables.checksums.len());
        assert_eq!(&script[4..4 + RSDP_FILE.len()], RSDP_FILE.as_bytes());
    }

    /// The ACPI Component Architecture's compiler takes the tables apart and puts the DSDT together again without an
    /// error or warning.
    #[test]
    fn acpica_understands_the_tables() {
        if Command::new("iasl").arg("-v").output().is_err() {
            assert!(std::env::var_os("TULK_REQUIRE_TOOLS").is_none(), "iasl is not installed");
            eprintln!("SKIPPED: iasl is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tables, rsdp) = Tables::new(&machine()).place(0x7fe_0000);
        for (name, bytes) in listed(&tables, &rsdp, 0x7fe_0000) {
            let file = dir.path().join(&name);
            std::fs::write(&file, bytes).unwrap();
            let run = |option: &str, file: &std::path::Path| {
                let out = Command::new("iasl").arg(option).arg(file).output().unwrap();
                let text = [out.stdout, out.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                assert!(out.status.success(), "{name}: {text}");
                assert!(!text.contains("Error "), "{name}: {text}");
                text
            };
            let text = run("-d", &file);
            assert!(!text.to_lowercase().contains("invalid"), "{name}: {text}");
            if name == "DSDT" {
                let text = run("-vr", &file.with_extension("dsl"));
                assert!(text.contains("0 Errors, 0 Warnings"), "{text}");
            }
        }
    }
}
