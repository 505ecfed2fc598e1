//! The firmware configuration device: items by number and by name, read through a port or by DMA.
//!
//! Specification: "QEMU Firmware Configuration (fw_cfg) Device" (docs/specs/fw_cfg), the interface that firmware and
//! kernels know. Numbers in the device's own structures (directory, DMA) are big-endian, the items of the classic
//! keys little-endian.
//!
//! Not modelled: architecture-local and write channels of old interfaces; items are written by DMA only.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tulk_base::GuestPa;
use tulk_hw::{Device, Dma, Snapshot, SnapshotError, snapshot_error};

/// Window of the selector (16 bits) and data (8 bits) ports, usually 0x510 and 0x511.
pub const PORTS: u8 = 0;
/// Window of the eight ports of the DMA address, usually 0x514.
pub const DMA: u8 = 1;

/// Keys of the classic items.
pub mod key {
    pub const SIGNATURE: u16 = 0x00;
    pub const ID: u16 = 0x01;
    pub const UUID: u16 = 0x02;
    pub const RAM_SIZE: u16 = 0x03;
    pub const NOGRAPHIC: u16 = 0x04;
    pub const NB_CPUS: u16 = 0x05;
    pub const KERNEL_ADDR: u16 = 0x07;
    pub const KERNEL_SIZE: u16 = 0x08;
    pub const INITRD_ADDR: u16 = 0x0a;
    pub const INITRD_SIZE: u16 = 0x0b;
    pub const BOOT_DEVICE: u16 = 0x0c;
    pub const NUMA: u16 = 0x0d;
    pub const BOOT_MENU: u16 = 0x0e;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const KERNEL_ENTRY: u16 = 0x10;
    pub const KERNEL_DATA: u16 = 0x11;
    pub const INITRD_DATA: u16 = 0x12;
    pub const CMDLINE_ADDR: u16 = 0x13;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const SETUP_ADDR: u16 = 0x16;
    pub const SETUP_SIZE: u16 = 0x17;
    pub const SETUP_DATA: u16 = 0x18;
    pub const FILE_DIR: u16 = 0x19;
    /// Files have the keys from here on.
    pub const FILE_FIRST: u16 = 0x20;
    /// x86: ACPI tables, SMBIOS tables, IRQ0 override, E820 table, HPET table.
    pub const ACPI_TABLES: u16 = 0x8000;
    pub const SMBIOS_ENTRIES: u16 = 0x8001;
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
    pub const E820_TABLE: u16 = 0x8003;
    pub const HPET: u16 = 0x8004;
}

/// Bit 0: the interface; bit 1: DMA.
const ID_VALUE: u32 = 3;
/// "QEMU CFG", as the DMA address register reads.
const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
/// Longest file name, with its end.
const NAME_BYTES: usize = 56;
/// Bits of the selector that say nothing about the item (write channel).
const KEY_MASK: u16 = !0x4000;

const DMA_ERROR: u32 = 1 << 0;
const DMA_READ: u32 = 1 << 1;
const DMA_SKIP: u32 = 1 << 2;
const DMA_SELECT: u32 = 1 << 3;
const DMA_WRITE: u32 = 1 << 4;
const CHUNK: usize = 1 << 16;

#[derive(Clone, Serialize, Deserialize)]
struct State {
    key: u16,
    offset: u32,
    /// The upper half of the DMA address, until the lower one is written.
    dma_high: u32,
    /// What the guest has written over items.
    written: BTreeMap<u16, Vec<u8>>,
}

/// Gets an item's content after the guest has written it.
type Changed = Box<dyn Fn(&[u8]) + Send>;

struct Item {
    bytes: Arc<[u8]>,
    writable: bool,
    changed: Option<Changed>,
}

/// The device with its items.
pub struct FwCfg {
    state: State,
    items: BTreeMap<u16, Item>,
    /// File names; the file's key is [`key::FILE_FIRST`] and its place in the order of names.
    files: BTreeMap<String, Item>,
    directory: Vec<u8>,
    memory: Arc<dyn Dma>,
}

impl FwCfg {
    pub fn new(memory: Arc<dyn Dma>) -> FwCfg {
        let state = State { key: 0, offset: 0, dma_high: 0, written: BTreeMap::new() };
        let (items, files) = (BTreeMap::new(), BTreeMap::new());
        let mut device = FwCfg { state, items, files, directory: vec![], memory };
        device.add_item(key::SIGNATURE, b"QEMU".to_vec());
        device.add_item(key::ID, ID_VALUE.to_le_bytes().to_vec());
        device.make_directory();
        device
    }

    /// Adds an item by number; replaces an earlier one.
    pub fn add_item(&mut self, key: u16, bytes: impl Into<Arc<[u8]>>) {
        let item = Item { bytes: bytes.into(), writable: false, changed: None };
        self.items.insert(key & KEY_MASK, item);
    }

    /// Adds a file, as `etc/e820`; replaces an earlier one. Names longer than 55 bytes are refused: false.
    ///
    /// To be done before the guest runs, as the keys of all files may change.
    pub fn add_file(&mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> bool {
        self.add(name, Item { bytes: bytes.into(), writable: false, changed: None })
    }

    /// Adds a file that the guest may write; `changed` gets its content after each write.
    pub fn add_writable_file(
        &mut self,
        name: &str,
        bytes: impl Into<Arc<[u8]>>,
        changed: impl Fn(&[u8]) + Send + 'static,
    ) -> bool {
        let changed: Option<Changed> = Some(Box::new(changed));
        self.add(name, Item { bytes: bytes.into(), writable: true, changed })
    }

    fn add(&mut self, name: &str, item: Item) -> bool {
        let most = usize::from(key::ACPI_TABLES.min(0x4000) - key::FILE_FIRST);
        if name.len() >= NAME_BYTES || name.contains('\0') || self.files.len() >= most {
            return false;
        }
        self.files.insert(name.to_owned(), item);
        self.make_directory();
        true
    }

    fn make_directory(&mut self) {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for ((name, item), key) in self.files.iter().zip(key::FILE_FIRST..) {
            directory.extend((item.bytes.len() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            let mut field = [0; NAME_BYTES];
            field[..name.len()].copy_from_slice(name.as_bytes());
            directory.extend(field);
        }
        self.directory = directory;
    }

    fn item(&self, key: u16) -> Option<&Item> {
        self.items
            .get(&key)
            .or_else(|| self.files.values().nth(usize::from(key.checked_sub(key::FILE_FIRST)?)))
    }

    /// The selected item's content.
    fn content(&self) -> &[u8] {
        let key = self.state.key & KEY_MASK;
        if key == key::FILE_DIR {
            return &self.directory;
        }
        match self.state.written.get(&key) {
            Some(written) => written,
            None => self.item(key).map_or(&[], |item| &item.bytes),
        }
    }

    fn rest(&self) -> &[u8] {
        self.content().get(self.state.offset as usize..).unwrap_or(&[])
    }

    fn select(&mut self, key: u16) {
        (self.state.key, self.state.offset) = (key, 0);
    }

    fn read_byte(&mut self) -> u8 {
        let byte = self.rest().first().copied();
        self.state.offset = self.state.offset.saturating_add(u32::from(byte.is_some()));
        byte.unwrap_or(0)
    }

    /// Serves the FWCfgDmaAccess structure at `address`: control, length, address.
    fn serve_dma(&mut self, address: u64) {
        let mut access = [0; 16];
        if !self.memory.read(GuestPa(address), &mut access) {
            return;
        }
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| access[at + n]));
        let (control, length) = (word(0), word(4));
        let buffer = u64::from(word(8)) << 32 | u64::from(word(12));
        if control & DMA_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let ok = if control & DMA_READ != 0 {
            self.dma_read(buffer, length)
        } else if control & DMA_WRITE != 0 {
            self.dma_write(buffer, length)
        } else {
            if control & DMA_SKIP != 0 {
                self.skip(length);
            }
            true
        };
        let result = if ok { 0 } else { DMA_ERROR };
        self.memory.write(GuestPa(address), &result.to_be_bytes());
    }

    fn skip(&mut self, length: u32) {
        self.state.offset = self.state.offset.saturating_add(length);
    }

    fn dma_read(&mut self, buffer: u64, length: u32) -> bool {
        let rest = self.rest();
        let whole = rest.len().min(length as usize);
        let mut ok = self.memory.write(GuestPa(buffer), &rest[..whole]);
        // Zeros behind the item's end, as long as they land in memory.
        let mut at = whole as u64;
        while ok && at < u64::from(length) {
            let n = (u64::from(length) - at).min(CHUNK as u64);
            ok = buffer
                .checked_add(at)
                .is_some_and(|pa| self.memory.write(GuestPa(pa), &[0; CHUNK][..n as usize]));
            at += n;
        }
        self.skip(length);
        ok
    }

    fn dma_write(&mut self, buffer: u64, length: u32) -> bool {
        let key = self.state.key & KEY_MASK;
        let start = self.state.offset as usize;
        let content = self.content();
        let fits = start.checked_add(length as usize).is_some_and(|end| end <= content.len());
        if !fits || !self.item(key).is_some_and(|item| item.writable) {
            return false;
        }
        let mut content = content.to_vec();
        let ok = self.memory.read(GuestPa(buffer), &mut content[start..start + length as usize]);
        if ok {
            if let Some(changed) = self.item(key).and_then(|item| item.changed.as_ref()) {
                changed(&content);
            }
            self.state.written.insert(key, content);
            self.skip(length);
        }
        ok
    }
}

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn reset(&mut self) {
        self.state = State { key: 0, offset: 0, dma_high: 0, written: BTreeMap::new() };
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |port| match (window, port) {
            (PORTS, 1) => self.read_byte(),
            (PORTS, 0) => 0,
            (DMA, 0..8) => DMA_SIGNATURE.to_be_bytes()[port as usize],
            _ => 0xff,
        })
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        match (window, offset, bytes) {
            (PORTS, 0, 2) => self.select(value as u16),
            (DMA, 0, 4) => self.state.dma_high = (value as u32).swap_bytes(),
            (DMA, 4, 4) => {
                let high = u64::from(std::mem::take(&mut self.state.dma_high)) << 32;
                self.serve_dma(high | u64::from((value as u32).swap_bytes()));
            }
            (DMA, 0, 8) => self.serve_dma(value.swap_bytes()),
            _ => {}
        }
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let state: State = tulk_hw::load_state(self.name(), snapshot)?;
        let fits = |(key, bytes): (&u16, &Vec<u8>)| {
            self.item(*key).is_some_and(|i| i.writable && i.bytes.len() == bytes.len())
        };
        if !state.written.iter().all(fits) {
            return Err(snapshot_error(self.name(), "items that are not here were written"));
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tulk_hw::{VecMemory, check_device};

    fn device() -> (FwCfg, VecMemory, mpsc::Receiver<Vec<u8>>) {
        let memory = VecMemory::new(0x1000);
        let mut device = FwCfg::new(Arc::new(memory.clone()));
        let (sender, changes) = mpsc::channel();
        assert!(device.add_file("etc/b", b"second".to_vec()));
        assert!(device.add_file("bootorder", b"first\0".to_vec()));
        assert!(device.add_writable_file("etc/w", vec![0; 8], move |bytes| {
            let _ = sender.send(bytes.to_vec());
        }));
        (device, memory, changes)
    }
    fn bytes(device: &mut FwCfg, key: u64, n: usize) -> Vec<u8> {
        device.write(PORTS, 0, 2, key);
        (0..n).map(|_| device.read(PORTS, 1, 1) as u8).collect()
    }
    /// A DMA access; its control word afterwards.
    fn dma(device: &mut FwCfg, memory: &VecMemory, control: u32, len: u32, to: u64) -> u32 {
        let mut access = control.to_be_bytes().to_vec();
        access.extend(len.to_be_bytes());
        access.extend(to.to_be_bytes());
        memory.write(GuestPa(0x100), &access);
        device.write(DMA, 0, 4, 0);
        device.write(DMA, 4, 4, 0x100u32.swap_bytes().into());
        let mut result = [0; 4];
        memory.read(GuestPa(0x100), &mut result);
        u32::from_be_bytes(result)
    }

    #[test]
    fn conforms() {
        check_device(&mut device().0, &[2, 8], 20_000);
    }

    #[test]
    fn signature_and_interface() {
        let (mut device, _, _) = device();
        assert_eq!(bytes(&mut device, 0, 6), b"QEMU\0\0");
        assert_eq!(bytes(&mut device, 1, 4), [3, 0, 0, 0]);
        assert_eq!(device.read(DMA, 0, 4).to_le_bytes()[..4], *b"QEMU");
        assert_eq!(device.read(DMA, 4, 4).to_le_bytes()[..4], *b" CFG");
        device.add_item(key::NB_CPUS, 4u16.to_le_bytes().to_vec());
        assert_eq!(bytes(&mut device, 5, 2), [4, 0]);
        assert_eq!(bytes(&mut device, 0x7777, 2), [0, 0]);
    }

    #[test]
    fn directory_is_sorted() {
        let (mut device, _, _) = device();
        let dir = bytes(&mut device, 0x19, 4 + 3 * 64);
        assert_eq!(dir[..4], [0, 0, 0, 3]);
        for (n, name) in ["bootorder", "etc/b", "etc/w"].iter().enumerate() {
            let entry = &dir[4 + 64 * n..][..64];
            assert_eq!(entry[4..8], [0, 0x20 + n as u8, 0, 0]);
            assert!(entry[8..].starts_with(name.as_bytes()) && entry[8 + name.len()] == 0);
        }
        assert_eq!(dir[4..8], [0, 0, 0, 6]);
        assert_eq!(bytes(&mut device, 0x21, 6), b"second");
        assert!(!device.add_file(&"x".repeat(56), vec![]));
    }

    #[test]
    fn dma_reads_skips_and_refuses() {
        let (mut device, memory, _) = device();
        assert_eq!(dma(&mut device, &memory, 0x21_000a, 3, 0x200), 0);
        assert_eq!(dma(&mut device, &memory, 4, 1, 0), 0);
        assert_eq!(dma(&mut device, &memory, 2, 4, 0x204), 0);
        assert_eq!(memory.0.lock()[0x200..0x208], *b"sec\0nd\0\0");
        assert_eq!(dma(&mut device, &memory, 0x21_000a, 8, 0xfff), 1, "beyond memory");
        assert_eq!(dma(&mut device, &memory, 0x21_000a, u32::MAX, 0x200), 1);
        assert_eq!(dma(&mut device, &memory, 0x21_0018, 4, 0x200), 1, "not writable");
    }

    #[test]
    fn writable_items() {
        let (mut device, memory, changes) = device();
        memory.write(GuestPa(0x300), b"abcd");
        assert_eq!(dma(&mut device, &memory, 0x22_000c, 2, 0), 0);
        assert_eq!(dma(&mut device, &memory, 0x10, 4, 0x300), 0);
        assert_eq!(changes.try_recv().unwrap(), b"\0\0abcd\0\0");
        assert_eq!(bytes(&mut device, 0x22, 8), b"\0\0abcd\0\0");
        assert_eq!(dma(&mut device, &memory, 0x22_0018, 9, 0x300), 1, "longer than the item");
        device.reset();
        assert_eq!(bytes(&mut device, 0x22, 8), [0; 8]);
    }
}
