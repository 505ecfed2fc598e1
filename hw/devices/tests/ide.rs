//! The PIIX3's IDE channels with disks and CD-ROMs, against ATA/ATAPI-6, MMC-5 and the bus master specification.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tulk_block::{Disk, FailingDisk, Guarded, MemoryDisk, OnError, Policy};
use tulk_devices::ide::{Attachment, Piix3Ide, Tray};
use tulk_devices::pci::PciFunction;
use tulk_hw::{Device, Dma, IrqLine, RecordedIrqs, VecMemory, check_device};

const COMMAND: u8 = Piix3Ide::COMMAND_0;
const CONTROL: u8 = Piix3Ide::CONTROL_0;
const BM: u8 = Piix3Ide::BUS_MASTER;

/// Counts flushes, discards and reads; sectors behind `bad` cannot be read or written.
struct Watched {
    disk: MemoryDisk,
    bad: u64,
    reads: AtomicU64,
    flushes: AtomicU64,
    discarded: AtomicU64,
}

impl Disk for Watched {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_only(&self) -> bool {
        self.disk.read_only()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if offset + out.len() as u64 > self.bad {
            return Err(io::ErrorKind::Other.into());
        }
        self.disk.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset + data.len() as u64 > self.bad {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.write_at(offset, data)
    }
    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn discard(&self, _offset: u64, len: u64) -> io::Result<()> {
        self.discarded.fetch_add(len, Ordering::SeqCst);
        Ok(())
    }
}

/// A disk of `sectors`, whose bytes tell their sector.
fn image(sectors: u64) -> Vec<u8> {
    (0..sectors * 512).map(|n| (n / 512) as u8 ^ (n / 512 / 256) as u8 ^ n as u8).collect()
}

fn watched(sectors: u64, bad: u64) -> Arc<Watched> {
    let disk = MemoryDisk::new(image(sectors), false);
    let zero = AtomicU64::default;
    Arc::new(Watched { disk, bad: bad * 512, reads: zero(), flushes: zero(), discarded: zero() })
}

struct Rig {
    ide: Piix3Ide,
    irqs: Arc<RecordedIrqs>,
    memory: VecMemory,
}

fn rig(first: Option<Attachment>, second: Option<Attachment>) -> Rig {
    let irqs = RecordedIrqs::new();
    let memory = VecMemory::new(8 << 20);
    let lines = [14, 15].map(|n| IrqLine::new(irqs.clone(), n));
    let mut ide = Piix3Ide::new([[first, second], [None, None]], lines, Arc::new(memory.clone()));
    ide.config_write(4, 2, 5);
    Rig { ide, irqs, memory }
}

fn disk_rig(sectors: u64) -> (Rig, Arc<Watched>) {
    let disk = watched(sectors, sectors);
    (rig(Some(Attachment::disk(disk.clone())), None), disk)
}

impl Rig {
    fn out(&mut self, register: u64, value: u8) {
        self.ide.write(COMMAND, register, 1, value.into());
    }
    fn inb(&mut self, register: u64) -> u8 {
        self.ide.read(COMMAND, register, 1) as u8
    }
    fn irq(&self) -> bool {
        self.irqs.level(14)
    }
    fn command(&mut self, code: u8, lba: u32, count: u8) {
        self.out(6, 0xe0 | (lba >> 24) as u8);
        self.out(2, count);
        self.out(3, lba as u8);
        self.out(4, (lba >> 8) as u8);
        self.out(5, (lba >> 16) as u8);
        self.out(7, code);
    }
    fn command_ext(&mut self, code: u8, lba: u64, count: u16) {
        self.out(6, 0x40);
        for (register, value) in
            [(2, u64::from(count) >> 8), (3, lba >> 24), (4, lba >> 32), (5, lba >> 40)]
        {
            self.out(register, value as u8);
        }
        for (register, value) in [(2, count.into()), (3, lba), (4, lba >> 8), (5, lba >> 16)] {
            self.out(register, value as u8);
        }
        self.out(7, code);
    }
    fn words(&mut self, n: usize) -> Vec<u8> {
        (0..n).flat_map(|_| (self.ide.read(COMMAND, 0, 2) as u16).to_le_bytes()).collect()
    }
    fn dwords(&mut self, n: usize) -> Vec<u8> {
        (0..n).flat_map(|_| (self.ide.read(COMMAND, 0, 4) as u32).to_le_bytes()).collect()
    }
    fn put_words(&mut self, data: &[u8]) {
        for word in data.chunks(2) {
            self.ide.write(COMMAND, 0, 2, u16::from_le_bytes([word[0], word[1]]).into());
        }
    }
    /// Writes a descriptor table at 0x1000: address and bytes.
    fn table(&mut self, entries: &[(u32, u32)]) {
        for (n, (address, bytes)) in entries.iter().enumerate() {
            let last = u32::from(n + 1 == entries.len()) << 31;
            let entry = u64::from(*address) | u64::from(bytes & 0xffff | last) << 32;
            self.memory.write(tulk_base::GuestPa(0x1000 + 8 * n as u64), &entry.to_le_bytes());
        }
        self.ide.write(BM, 4, 4, 0x1000);
    }
    fn start(&mut self, to_memory: bool) {
        self.ide.write(BM, 2, 1, 6);
        self.ide.write(BM, 0, 1, if to_memory { 9 } else { 1 });
    }
    fn bm_active(&mut self) -> bool {
        self.ide.read(BM, 2, 1) & 1 != 0
    }
    fn bm_status(&mut self) -> u8 {
        let status = self.ide.read(BM, 2, 1) as u8;
        self.ide.write(BM, 0, 1, 0);
        status & 7
    }
    fn ram(&self, at: usize, n: usize) -> Vec<u8> {
        self.memory.0.lock()[at..at + n].to_vec()
    }
    /// Sends a packet and reads the response by PIO.
    fn packet(&mut self, packet: &[u8], limit: u16) -> Vec<u8> {
        self.out(1, 0);
        self.out(4, limit as u8);
        self.out(5, (limit >> 8) as u8);
        self.out(7, 0xa0);
        assert_eq!((self.inb(7), self.inb(2)), (0x58, 1), "DRQ for the packet");
        assert!(!self.irq());
        let mut whole = packet.to_vec();
        whole.resize(12, 0);
        self.put_words(&whole);
        let mut data = vec![];
        while self.ide.read(CONTROL, 0, 1) & 8 != 0 {
            assert!(self.irq());
            assert_eq!((self.inb(7), self.inb(2)), (0x58, 2));
            let n = usize::from(self.inb(4)) | usize::from(self.inb(5)) << 8;
            assert!(n <= usize::from(limit));
            let block = self.words(n.div_ceil(2));
            data.extend_from_slice(&block[..n]);
        }
        assert!(self.irq() && self.inb(2) == 3, "completion");
        data
    }
    /// Sense key, code and qualifier of a packet that fails.
    fn fails(&mut self, packet: &[u8]) -> (u8, u8, u8) {
        self.packet(packet, 0xfffe);
        assert_eq!(self.inb(7) & 1, 1, "{packet:02x?} does not fail");
        let key = self.inb(1) >> 4;
        let data = self.packet(&[3, 0, 0, 0, 18], 0xfffe);
        assert_eq!(key, data[2]);
        (data[2], data[12], data[13])
    }
}

#[test]
fn reads_by_pio_interrupt_for_each_block() {
    let (mut r, _) = disk_rig(1000);
    r.command(0x20, 300, 2);
    assert!(r.irq());
    assert_eq!(r.inb(7), 0x58);
    assert!(!r.irq(), "the status acknowledges");
    assert_eq!(r.words(256), image(1000)[300 * 512..][..512]);
    assert!(r.irq());
    assert_eq!(r.inb(7), 0x58);
    assert_eq!(r.dwords(128), image(1000)[301 * 512..][..512]);
    assert!(!r.irq(), "none behind the last block");
    assert_eq!((r.inb(7), r.inb(1), r.inb(2)), (0x50, 0, 0));
    assert_eq!((r.inb(3), r.inb(4), r.inb(6)), (45, 1, 0xe0), "the last sector");
}

#[test]
fn read_multiple_and_pio_writes() {
    let (mut r, disk) = disk_rig(1000);
    r.command(0xc6, 0, 3);
    assert_eq!((r.inb(7), r.inb(1)), (0x51, 4), "no power of two");
    r.command(0xc6, 0, 4);
    assert_eq!(r.inb(7), 0x50);
    r.command(0xc4, 0, 6);
    assert_eq!(r.dwords(512), image(1000)[..2048]);
    assert!(r.irq());
    assert_eq!(r.dwords(256), image(1000)[2048..3072]);
    assert_eq!(r.inb(7), 0x50);
    r.irqs.take_rises();
    r.command(0x30, 10, 2);
    assert!(!r.irq(), "no interrupt before the first block");
    assert_eq!(r.inb(7), 0x58);
    r.put_words(&[0xaa; 512]);
    assert!(r.irq());
    assert_eq!(r.inb(7), 0x58);
    r.put_words(&[0xbb; 512]);
    assert!(r.irq());
    assert_eq!(r.inb(7), 0x50);
    let mut written = [0; 1024];
    disk.read_at(10 * 512, &mut written).unwrap();
    assert_eq!(written[..512], [0xaa; 512]);
    assert_eq!(written[512..], [0xbb; 512]);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 0);
    r.command(0xe7, 0, 0);
    assert_eq!((r.inb(7), disk.flushes.load(Ordering::SeqCst)), (0x50, 1));
}

#[test]
fn without_write_cache_each_write_is_flushed() {
    let (mut r, disk) = disk_rig(100);
    r.out(1, 0x82);
    r.command(0xef, 0, 0);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1);
    r.command(0x30, 1, 1);
    r.put_words(&[1; 512]);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 2);
}

#[test]
fn geometry_translates() {
    let (mut r, _) = disk_rig(1000);
    // 4 heads, 17 sectors.
    r.out(6, 0xa3);
    r.out(2, 17);
    r.out(7, 0x91);
    assert_eq!(r.inb(7), 0x50);
    // Cylinder 2, head 1, sector 3: (2 * 4 + 1) * 17 + 2.
    for (register, value) in [(6, 0xa1), (2, 1), (3, 3), (4, 2), (5, 0), (7, 0x20)] {
        r.out(register, value);
    }
    assert_eq!(r.words(256), image(1000)[155 * 512..][..512]);
    for (register, value) in [(6, 0xa4), (2, 1), (3, 3), (7, 0x20)] {
        r.out(register, value);
    }
    assert_eq!((r.inb(7), r.inb(1)), (0x51, 0x10), "no such head");
}

#[test]
fn dma_scatters_in_one_host_read() {
    let (mut r, disk) = disk_rig(1000);
    r.table(&[(0x10000, 0x1000), (0x20002, 0x400), (0x30000, 0xc00)]);
    r.command(0xc8, 100, 16);
    assert!(!r.irq());
    r.start(true);
    assert!(r.irq());
    assert_eq!(r.bm_status(), 4, "interrupt, no longer active");
    assert_eq!(r.inb(7), 0x50);
    assert_eq!(disk.reads.load(Ordering::SeqCst), 1);
    let data = [r.ram(0x10000, 0x1000), r.ram(0x20002, 0x400), r.ram(0x30000, 0xc00)].concat();
    assert_eq!(data, image(1000)[100 * 512..][..16 * 512]);
    // Started before the command; the table is longer than the transfer.
    r.table(&[(0x40000, 0x0000)]);
    r.start(true);
    r.command_ext(0x25, 900, 4);
    assert_eq!(r.bm_status(), 5, "active: descriptors are left");
    assert_eq!(r.ram(0x40000, 2048), image(1000)[900 * 512..][..2048]);
    // Too short: nothing ends, and no interrupt comes.
    r.inb(7);
    r.table(&[(0x40000, 0x200)]);
    r.command(0xc8, 5, 2);
    r.start(true);
    assert!(!r.irq());
    assert_eq!(r.bm_status(), 0);
    assert_eq!(r.inb(7), 0x58);
    assert_eq!(r.ram(0x40000, 512), image(1000)[5 * 512..][..512]);
    r.table(&[(0x40000, 0x200)]);
    r.start(true);
    assert_eq!((r.bm_status(), r.inb(7)), (4, 0x50), "the rest");
}

#[test]
fn dma_writes_and_trims() {
    let (mut r, disk) = disk_rig(1000);
    r.memory.0.lock()[0x5000..0x5800].fill(0x77);
    r.table(&[(0x5000, 0x800)]);
    r.command_ext(0x3d, 30, 4);
    r.start(false);
    assert_eq!(r.bm_status(), 4);
    let mut written = [0; 2048];
    disk.read_at(30 * 512, &mut written).unwrap();
    assert_eq!(written, [0x77; 2048]);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1, "FUA");
    r.inb(7);
    r.memory.0.lock()[0x5000..0x5200].fill(0);
    r.memory.0.lock()[0x5000..0x5008].copy_from_slice(&(8u64 << 48 | 40).to_le_bytes());
    r.table(&[(0x5000, 0x200)]);
    r.out(1, 1);
    r.command_ext(0x06, 0, 1);
    r.start(false);
    assert_eq!((r.bm_status(), r.inb(7)), (4, 0x50));
    assert_eq!(disk.discarded.load(Ordering::SeqCst), 8 * 512);
}

#[test]
fn hostile_descriptors_end() {
    let (mut r, _) = disk_rig(70000);
    // 8192 entries of 2 bytes, none the last, at the end of memory and outside of it.
    let entry = (0x7f_fff0u64 | 2 << 32).to_le_bytes();
    let table = entry.repeat(8192);
    r.memory.write(tulk_base::GuestPa(0x10000), &table);
    r.ide.write(BM, 4, 4, 0x10000);
    r.command_ext(0x25, 0, 0);
    r.start(true);
    assert_eq!(r.bm_status(), 0);
    r.ide.write(BM, 4, 4, 0xffff_fffc);
    r.start(true);
    assert_eq!(r.bm_status(), 2, "the table is nowhere");
    // Without bus mastering nothing moves.
    r.ide.config_write(4, 2, 1);
    r.start(true);
    assert_eq!(r.bm_status(), 1);
}

#[test]
fn host_errors_name_their_sector() {
    let disk = watched(1000, 503);
    let mut r = rig(Some(Attachment::disk(disk)), None);
    r.table(&[(0x10000, 0x2000)]);
    r.command(0xc8, 500, 16);
    r.start(true);
    assert_eq!(r.bm_status() & 4, 4);
    assert_eq!((r.inb(7), r.inb(1)), (0x51, 0x40));
    assert_eq!(u32::from(r.inb(3)) | u32::from(r.inb(4)) << 8, 503);
    assert_eq!(r.ram(0x10000, 3 * 512), image(1000)[500 * 512..][..3 * 512]);
    r.command(0x30, 600, 1);
    r.put_words(&[0; 512]);
    assert!(r.irq());
    assert_eq!((r.inb(7), r.inb(1)), (0x51, 4));
    r.command(0x40, 490, 50);
    assert_eq!((r.inb(7), r.inb(1)), (0x51, 0x40));
    r.command(0x20, 1000, 1);
    assert_eq!((r.inb(7), r.inb(1)), (0x51, 0x10), "beyond the end");
    r.command(0x99, 0, 0);
    assert_eq!(r.inb(7), 0x50);
    r.command(0xe5, 0, 0);
    assert_eq!(r.inb(2), 0, "standby");
    r.command(0xfe, 0, 0);
    assert_eq!((r.inb(7), r.inb(1)), (0x51, 4), "no such command");
}

/// A disk whose errors make the machine wait.
fn patient_rig() -> (Rig, Arc<FailingDisk>) {
    let failing = Arc::new(FailingDisk::new(Arc::new(MemoryDisk::new(image(100), false))));
    let policy = Policy { write: OnError::Pause, read: OnError::Pause };
    let guarded = Arc::new(Guarded::new(failing.clone(), policy, |_, _, _| ()));
    (rig(Some(Attachment::disk(guarded)), None), failing)
}

#[test]
fn what_waits_for_the_host_is_tried_again() {
    let full = Some(io::ErrorKind::StorageFull);
    // PIO: busy and quiet until the host can, then as if nothing had been.
    let (mut r, disk) = patient_rig();
    *disk.writes.lock() = full;
    r.command(0x30, 5, 2);
    r.put_words(&[7; 512]);
    assert_eq!((r.inb(7), r.irq()), (0x80, false));
    r.put_words(&[9; 512]);
    r.out(7, 0xec);
    r.ide.retry();
    assert_eq!((r.inb(7), r.irq()), (0x80, false), "still full; other commands are not heard");
    *disk.writes.lock() = None;
    r.ide.retry();
    assert!(r.irq());
    assert_eq!(r.inb(7), 0x58);
    r.put_words(&[8; 512]);
    assert_eq!(r.inb(7), 0x50);
    let mut written = [0; 1024];
    disk.read_at(5 * 512, &mut written).unwrap();
    assert_eq!((written[..512] == [7; 512], written[512..] == [8; 512]), (true, true));
    // A flush.
    *disk.writes.lock() = full;
    r.command(0xe7, 0, 0);
    assert_eq!((r.inb(7), r.irq()), (0x80, false));
    *disk.writes.lock() = None;
    r.ide.retry();
    assert!(r.irq());
    assert_eq!(r.inb(7), 0x50);
    // Reads, by PIO and by the bus master.
    *disk.reads.lock() = Some(io::ErrorKind::Other);
    r.command(0x20, 3, 1);
    assert_eq!(r.inb(7), 0x80);
    *disk.reads.lock() = None;
    r.ide.retry();
    assert_eq!(r.inb(7), 0x58);
    assert_eq!(r.words(256), image(100)[3 * 512..][..512]);
    *disk.reads.lock() = Some(io::ErrorKind::Other);
    r.table(&[(0x2000, 1536)]);
    r.command(0xc8, 20, 3);
    r.start(true);
    assert_eq!((r.inb(7), r.irq(), r.bm_active()), (0x80, false, true));
    *disk.reads.lock() = None;
    r.ide.retry();
    assert!(r.irq());
    assert_eq!((r.inb(7), r.bm_status()), (0x50, 4));
    assert_eq!(r.ram(0x2000, 1536), image(100)[20 * 512..][..1536]);
    // DMA writes, and a reset of the machine in between.
    for reset in [false, true] {
        *disk.writes.lock() = full;
        r.memory.0.lock()[0x2000..0x2600].fill(0x5a + u8::from(reset));
        r.table(&[(0x2000, 512), (0x2200, 1024)]);
        r.command(0xca, 30, 3);
        r.start(false);
        assert_eq!((r.inb(7), r.irq(), r.bm_active()), (0x80, false, true));
        if reset {
            r.ide.reset();
            r.ide.config_write(4, 2, 5);
        }
        *disk.writes.lock() = None;
        r.ide.retry();
        assert_eq!((r.inb(7), r.irq()), (0x50, false), "the status acknowledges");
        r.bm_status();
        let mut written = [0; 1536];
        disk.read_at(30 * 512, &mut written).unwrap();
        assert_eq!(written, [0x5a; 1536]);
    }
}

#[test]
fn identify_tells_size_and_model() {
    let (mut r, _) = disk_rig(70000);
    r.command(0xec, 0, 0);
    let data = r.words(256);
    let word = |n: usize| u16::from_le_bytes([data[2 * n], data[2 * n + 1]]);
    assert_eq!((word(1), word(3), word(6)), (69, 16, 63));
    assert_eq!(u32::from(word(61)) << 16 | u32::from(word(60)), 70000);
    assert_eq!(u32::from(word(101)) << 16 | u32::from(word(100)), 70000);
    let model: Vec<u8> = data[54..94].chunks(2).flat_map(|c| [c[1], c[0]]).collect();
    assert_eq!(std::str::from_utf8(&model).unwrap().trim_end(), "TULK HARDDISK");
    assert_eq!(data.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0, "checksum");
    assert_eq!((word(82) & 2, word(85) & 2, word(128)), (2, 0, 9), "security: off and frozen");
    r.command(0xf5, 0, 0);
    assert_eq!(r.inb(7), 0x50);
    r.command(0xf1, 0, 0);
    assert_eq!((r.inb(7), r.inb(1)), (0x51, 4), "frozen");
    assert_eq!(word(88), 0x203f, "ultra DMA 5 chosen");
    r.command_ext(0x27, 0, 0);
    let low = u32::from(r.inb(3)) | u32::from(r.inb(4)) << 8 | u32::from(r.inb(5)) << 16;
    assert_eq!(low, 69999);
    r.ide.write(CONTROL, 0, 1, 0x80);
    assert_eq!((r.inb(3), r.inb(4)), (0, 0), "high order bytes");
}

#[test]
fn reset_diagnostic_and_absent_drives() {
    let disk = || Some(Attachment::disk(watched(100, 100)));
    let mut r = rig(disk(), Some(Attachment::cdrom(None)));
    r.command(0x20, 0, 1);
    r.ide.write(CONTROL, 0, 1, 4);
    assert_eq!(r.inb(7), 0x80);
    assert!(!r.irq());
    r.ide.write(CONTROL, 0, 1, 0);
    assert_eq!((r.inb(7), r.inb(1), r.inb(2), r.inb(3)), (0x50, 1, 1, 1));
    assert_eq!((r.inb(4), r.inb(5)), (0, 0));
    r.out(6, 0xb0);
    assert_eq!((r.inb(7), r.inb(4), r.inb(5)), (0, 0x14, 0xeb), "ATAPI signature");
    r.out(7, 0x90);
    assert!(r.irq());
    assert_eq!((r.inb(1), r.inb(6)), (1, 0xa0));
    r.ide.write(CONTROL, 0, 1, 2);
    r.out(7, 0xe7);
    assert!(!r.irq(), "nIEN");
    r.ide.write(CONTROL, 0, 1, 0);
    assert!(r.irq());
    assert_eq!(r.ide.read(Piix3Ide::COMMAND_1, 7, 1), 0x7f, "an empty channel");
    let mut r = rig(disk(), None);
    r.out(6, 0xb0);
    r.out(2, 0x55);
    assert_eq!((r.inb(2), r.inb(7)), (0, 0), "no drive 1");
}

#[test]
fn channels_decode_as_idetim_says() {
    let (mut r, _) = disk_rig(10);
    assert!(r.ide.mappings().is_empty());
    r.ide.config_write(0x40, 2, 0x8000);
    r.ide.config_write(0x20, 4, 0xc000);
    let places: Vec<_> = r.ide.mappings().iter().map(|m| (m.window, m.address, m.size)).collect();
    assert_eq!(places, [(4, 0xc000, 16), (COMMAND, 0x1f0, 8), (CONTROL, 0x3f6, 1)]);
    r.ide.config_write(0x42, 2, 0x8000);
    assert_eq!(r.ide.mappings()[3].address, 0x170);
    r.ide.config_write(4, 2, 0);
    assert!(r.ide.mappings().is_empty());
}

fn cd_rig(sectors: u64) -> Rig {
    let medium = Arc::new(MemoryDisk::new(image(4 * sectors), true));
    let mut r = rig(None, Some(Attachment::cdrom(Some(medium))));
    r.out(6, 0xb0);
    r
}

#[test]
fn a_cd_reads_in_blocks_of_the_hosts_limit() {
    let mut r = cd_rig(300);
    assert_eq!(r.packet(&[0x25], 8), [0, 0, 1, 43, 0, 0, 8, 0]);
    let read = [0x28, 0, 0, 0, 0, 5, 0, 0, 3];
    let data = &image(1200)[5 * 2048..][..3 * 2048];
    assert_eq!(r.packet(&read, 2048), data);
    assert_eq!(r.packet(&read, 0xfffe), data);
    assert_eq!(r.packet(&read, 1000), data, "not whole sectors");
    assert_eq!(r.packet(&[0xa8, 0, 0, 0, 0, 5, 0, 0, 0, 3], 6144), data);
    assert_eq!(r.fails(&[0x28, 0, 0, 0, 1, 43, 0, 0, 2]), (5, 0x21, 0));
    let raw = r.packet(&[0xbe, 0, 0, 0, 0, 16, 0, 0, 1, 0xf8], 0xfffe);
    assert_eq!(raw.len(), 2352);
    assert_eq!(raw[..16], [0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 2, 0x16, 1]);
    assert_eq!(raw[16..2064], image(1200)[16 * 2048..][..2048]);
    // The same by DMA.
    r.table(&[(0x10000, 0x1000), (0x30000, 0x800)]);
    r.out(1, 1);
    r.out(7, 0xa0);
    r.put_words(&[&read[..], &[0; 3]].concat());
    r.start(true);
    assert!(r.irq());
    assert_eq!((r.bm_status(), r.inb(7), r.inb(2)), (4, 0x50, 3));
    assert_eq!([r.ram(0x10000, 0x1000), r.ram(0x30000, 0x800)].concat(), data);
}

#[test]
fn a_cd_describes_itself() {
    let mut r = cd_rig(300);
    r.out(7, 0xa1);
    assert_eq!(r.words(256)[..2], [0xc0, 0x85]);
    assert_eq!(r.inb(7), 0x50);
    r.out(7, 0xec);
    assert_eq!((r.inb(7), r.inb(1), r.inb(4), r.inb(5)), (0x51, 4, 0x14, 0xeb));
    assert_eq!(r.packet(&[0x12, 0, 0, 0, 36], 36)[..8], [5, 0x80, 0, 0x21, 31, 0, 0, 0]);
    assert_eq!(
        r.packet(&[0x43, 0, 0, 0, 0, 0, 0, 0, 20], 20),
        [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x16, 0xaa, 0, 0, 0, 1, 44]
    );
    let msf = r.packet(&[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 12], 20);
    assert_eq!(msf, [0, 10, 1, 1, 0, 0x16, 0xaa, 0, 0, 0, 6, 0]);
    assert_eq!(
        r.packet(&[0x43, 0, 1, 0, 0, 0, 0, 0, 12], 20),
        [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]
    );
    let raw = r.packet(&[0x43, 0, 2, 0, 0, 0, 0, 1, 0], 256);
    assert_eq!((raw.len(), raw[1]), (48, 46));
    assert_eq!(raw[26..37], [1, 0x14, 0, 0xa2, 0, 0, 0, 0, 0, 6, 0]);
    let config = r.packet(&[0x46, 0, 0, 0, 0, 0, 0, 0, 255], 256);
    assert_eq!((config.len(), config[3], config[7]), (64, 60, 8), "profile CD-ROM");
    let modes = r.packet(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 255], 256);
    assert_eq!((modes.len(), modes[1], modes[2], modes[8]), (30, 28, 1, 0x2a));
    assert_eq!(r.packet(&[0x51, 0, 0, 0, 0, 0, 0, 0, 34], 256)[..3], [0, 32, 0x0e]);
    assert_eq!(r.packet(&[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8], 256), [0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(r.fails(&[0x43, 0, 5]), (5, 0x24, 0));
    assert_eq!(r.fails(&[0xff]), (5, 0x20, 0));
    assert_eq!(r.packet(&[3, 0, 0, 0, 18], 18)[2], 0, "sense is reported once");
}

#[test]
fn media_change_and_the_tray() {
    let mut r = cd_rig(300);
    r.packet(&[0], 8);
    assert_eq!(r.inb(7), 0x50);
    r.packet(&[0x1e, 0, 0, 0, 1], 8);
    assert_eq!(r.fails(&[0x1b, 0, 0, 0, 2]), (5, 0x53, 2));
    r.ide.press_eject(0, 1);
    let status = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8];
    assert_eq!(r.packet(&status, 8), [0, 6, 4, 0x10, 1, 2, 0, 0], "eject request");
    r.packet(&[0x1e], 8);
    r.packet(&[0x1b, 0, 0, 0, 2], 8);
    assert_eq!(r.ide.tray(0, 1), Some((Tray::Open, false)));
    assert_eq!(r.packet(&status, 8), [0, 6, 4, 0x10, 3, 1, 0, 0], "removal");
    assert_eq!(r.fails(&[0]), (2, 0x3a, 2));
    assert!(r.ide.set_medium(0, 1, Some(Arc::new(MemoryDisk::new(image(40), true)))));
    assert_eq!(r.packet(&status, 8), [0, 6, 4, 0x10, 2, 2, 0, 0], "new media");
    assert_eq!(r.fails(&[0]), (6, 0x28, 0));
    assert_eq!(r.packet(&[0x25], 8), [0, 0, 0, 9, 0, 0, 8, 0]);
    assert!(r.ide.set_medium(0, 1, None));
    assert_eq!(r.fails(&[0x25]), (2, 0x3a, 1));
    assert!(!r.ide.set_medium(0, 0, None));
}

#[test]
fn a_transfer_goes_on_behind_a_snapshot() {
    let (mut r, _) = disk_rig(1000);
    r.command(0x20, 300, 2);
    r.words(100);
    let saved = r.ide.save();
    let (mut fresh, _) = disk_rig(1000);
    fresh.ide.load(&saved).unwrap();
    assert!(fresh.irq());
    assert_eq!(fresh.words(156), image(1000)[300 * 512 + 200..][..312]);
    assert_eq!(fresh.words(256), image(1000)[301 * 512..][..512]);
    assert!(rig(None, None).ide.load(&saved).is_err(), "other drives");
}

#[test]
fn conforms() {
    let cd = Attachment::cdrom(Some(Arc::new(MemoryDisk::new(image(400), true))));
    let mut r = rig(Some(Attachment::disk(watched(1000, 900))), Some(cd));
    check_device(&mut r.ide, &[8, 8, 8, 8, 16, 8, 8, 8, 1, 8, 1], 100_000);
}
