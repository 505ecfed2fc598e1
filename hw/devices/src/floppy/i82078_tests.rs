use super::*;
use tulk_block::MemoryDisk;
use tulk_hw::{ManualClock, RecordedIrqs, VecMemory, check_device};

struct Bench {
    fdc: I82078,
    clock: Arc<ManualClock>,
    irqs: Arc<RecordedIrqs>,
    dma: Arc<Mutex<I8237>>,
    memory: VecMemory,
    disk: Arc<MemoryDisk>,
}

/// A 1.44M disk whose sectors hold their number.
fn disk(read_only: bool) -> Arc<MemoryDisk> {
    let bytes = (0..2880u16).flat_map(|n| n.to_le_bytes().repeat(256)).collect();
    Arc::new(MemoryDisk::new(bytes, read_only))
}

impl Bench {
    fn new() -> Bench {
        let (clock, irqs) = (ManualClock::new(), RecordedIrqs::new());
        let memory = VecMemory::new(0x1_0000);
        let dma = Arc::new(Mutex::new(I8237::new(Arc::new(memory.clone()))));
        dma.lock().write(1, 0x16, 1, 0xc0);
        dma.lock().write(1, 0x14, 1, 0);
        let irq = IrqLine::new(irqs.clone(), 6);
        let mut fdc = I82078::new(1, clock.clone(), dma.clone(), irq);
        let disk = disk(false);
        assert!(fdc.insert(0, Some(disk.clone())));
        let mut bench = Bench { fdc, clock, irqs, dma, memory, disk };
        bench.fdc.write(0, DOR, 1, 0);
        bench.fdc.write(0, DOR, 1, 0x1c);
        bench.wait();
        for drive in 0..4 {
            assert_eq!(bench.command(&[8]), [0xc0 | drive, 0]);
        }
        bench.fdc.write(0, DIR_CCR, 1, 0);
        bench.command(&[3, 0xdf, 0x02]);
        bench
    }
    /// The DMA channel for `bytes` at 0x1000.
    fn channel(&self, mode: u64, bytes: u64) {
        let mut dma = self.dma.lock();
        for (port, value) in [(0xa, 6), (0xc, 0), (0xb, mode | 2), (4, 0), (4, 0x10)] {
            dma.write(0, port, 1, value);
        }
        for value in [(bytes - 1) & 0xff, (bytes - 1) >> 8] {
            dma.write(0, 5, 1, value);
        }
        dma.write(0, 0xa, 1, 2);
    }
    fn status(&mut self) -> u64 {
        self.fdc.read(0, MSR_DSR, 1)
    }
    fn send(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            assert_eq!(self.status() & 0xc0, 0x80, "wants no byte");
            self.fdc.write(0, FIFO, 1, byte.into());
        }
    }
    fn wait(&mut self) {
        while let Some(at) = self.fdc.deadline() {
            self.clock.set(at);
            self.fdc.tick(at);
        }
    }
    fn result(&mut self) -> Vec<u8> {
        let mut all = vec![];
        while self.status() & 0xe0 == 0xc0 {
            all.push(self.fdc.read(0, FIFO, 1) as u8);
        }
        all
    }
    /// A command's result.
    fn command(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.wait();
        self.result()
    }
    fn seek(&mut self, track: u8) {
        self.command(&[0x0f, 0, track]);
        assert!(self.irqs.level(6));
        assert_eq!(self.status() & 1, 1, "seeking until sensed");
        assert_eq!(self.command(&[8]), [0x20, track]);
        assert!(!self.irqs.level(6));
    }
}

#[test]
fn conforms() {
    check_device(&mut Bench::new().fdc, &[8], 60_000);
}

/// 82078 datasheet, "Status register B": motors, and bit 0 of the drive select.
#[test]
fn status_register_b_shows_the_output_register() {
    let mut b = Bench::new();
    for (dor, srb) in [(0x0c, 0xc0), (0x1c, 0xc1), (0x2d, 0xe2), (0x3d, 0xe3), (0x2e, 0xc2)] {
        b.fdc.write(0, DOR, 1, dor);
        assert_eq!(b.fdc.read(0, SRB, 1), srb, "{dor:#x}");
    }
}

#[test]
fn commands_without_disk() {
    let mut b = Bench::new();
    assert_eq!(b.command(&[0x10]), [0x90]);
    assert_eq!(b.command(&[0x94]), [0x10]);
    assert_eq!(b.command(&[0x13, 0, 0x57, 5]), [0u8; 0]);
    assert_eq!(b.command(&[0x12, 0x84 | 1]), [0u8; 0]);
    assert_eq!(b.command(&[0x0e]), [0, 0, 0, 0, 0xdf, 2, 0, 0x85, 0x57, 5]);
    assert_eq!(b.command(&[0x1f]), [0x80], "invalid");
    assert_eq!(b.command(&[8]), [0x80], "nothing to sense");
    assert_eq!(b.command(&[4, 0]), [0x38]);
    b.fdc.write(0, MSR_DSR, 1, 0x80);
    assert_eq!(b.command(&[0x0e])[7..], [0x84, 0x57, 5], "locked");
    // The second drive is not there.
    let mut b = Bench::new();
    b.command(&[7, 1]);
    assert_eq!(b.command(&[8]), [0x71, 0]);
}

#[test]
fn seek_recalibrate_and_change_line() {
    let mut b = Bench::new();
    assert_eq!(b.fdc.read(0, DIR_CCR, 1), 0x80);
    b.command(&[7, 0]);
    assert_eq!(b.command(&[8]), [0x20, 0]);
    assert_eq!(b.fdc.read(0, DIR_CCR, 1), 0x80, "no step");
    b.seek(5);
    assert_eq!(b.fdc.read(0, DIR_CCR, 1), 0);
    assert_eq!(b.command(&[0xcf, 0, 3]), [0u8; 0]);
    assert_eq!(b.command(&[8]), [0x20, 8]);
    assert_eq!(b.command(&[0x4a, 4]), [4, 0, 0, 8, 1, 1, 2]);
    assert_eq!(b.command(&[0x4a, 0])[3..], [8, 0, 2, 2]);
    b.fdc.insert(0, None);
    assert_eq!(b.fdc.read(0, DIR_CCR, 1), 0x80);
    assert_eq!(b.command(&[0x4a, 0])[..2], [0x40, 1]);
}

#[test]
fn read_by_dma() {
    let mut b = Bench::new();
    b.channel(0x44, 1024);
    assert_eq!(b.command(&[0xe6, 0, 0, 0, 2, 2, 18, 0x1b, 0xff]), [0, 0, 0, 0, 0, 4, 2]);
    let memory = b.memory.0.lock().clone();
    assert_eq!(memory[0x1000..0x1004], [1, 0, 1, 0]);
    assert_eq!(memory[0x1200..0x1204], [2, 0, 2, 0]);
    assert_eq!(memory[0x1400], 0);
    // From the last sector of head 0 on to head 1.
    b.channel(0x44, 1024);
    assert_eq!(b.command(&[0xe6, 0, 0, 0, 18, 2, 18, 0x1b, 0xff]), [4, 0, 0, 0, 1, 2, 2]);
    assert_eq!(b.memory.0.lock()[0x1200], 18);
    // The track's end before the terminal count.
    b.channel(0x44, 4096);
    let result = b.command(&[0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]);
    assert_eq!(result, [0x40, 0x80, 0, 1, 0, 1, 2]);
}

#[test]
fn read_errors() {
    let mut b = Bench::new();
    b.channel(0x44, 512);
    let read = |b: &mut Bench, c, h, r, n| b.command(&[0x46, h << 2, c, h, r, n, 18, 0, 0xff]);
    assert_eq!(read(&mut b, 0, 0, 19, 2)[..3], [0x40, 4, 0]);
    assert_eq!(read(&mut b, 3, 0, 1, 2)[..3], [0x40, 4, 0x10], "head is elsewhere");
    assert_eq!(read(&mut b, 0, 1, 1, 3)[..3], [0x44, 4, 0]);
    b.fdc.write(0, DIR_CCR, 1, 2);
    assert_eq!(read(&mut b, 0, 0, 1, 2)[..3], [0x40, 1, 0], "wrong rate");
    b.fdc.write(0, DIR_CCR, 1, 0);
    b.command(&[0x13, 0, 0x40, 0]);
    assert_eq!(read(&mut b, 3, 0, 1, 2), [0, 0, 0, 3, 0, 2, 2], "implied seek");
    assert_eq!(b.memory.0.lock()[0x1000], 108);
}

#[test]
fn write_by_dma() {
    let mut b = Bench::new();
    b.memory.0.lock()[0x1000..0x1300].fill(0xaa);
    b.channel(0x48, 0x300);
    assert_eq!(b.command(&[0x45, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..3], [0, 0, 0]);
    let mut sectors = [0; 1536];
    b.disk.read_at(0, &mut sectors).unwrap();
    assert!(sectors[..0x300].iter().all(|&x| x == 0xaa));
    assert!(sectors[0x300..0x400].iter().all(|&x| x == 0), "filled up");
    assert_eq!(sectors[0x400], 2);
    b.fdc.insert(0, Some(disk(true)));
    b.channel(0x48, 512);
    assert_eq!(b.command(&[0x45, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..3], [0x40, 2, 0]);
    assert_eq!(b.command(&[4, 0]), [0x78]);
}

#[test]
fn waits_for_dma() {
    let mut b = Bench::new();
    b.send(&[0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff]);
    for _ in 0..3 {
        let at = b.fdc.deadline().unwrap();
        b.clock.set(at);
        b.fdc.tick(at);
        assert_eq!((b.status(), b.irqs.level(6)), (0x10, false));
    }
    b.channel(0x44, 512);
    b.wait();
    assert!(b.irqs.level(6));
    assert_eq!(b.result(), [0, 0, 0, 0, 0, 2, 2]);
    assert!(!b.irqs.level(6));
}

#[test]
fn without_dma() {
    let mut b = Bench::new();
    b.command(&[3, 0xdf, 0x03]);
    b.send(&[0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]);
    b.wait();
    for sector in [16, 17] {
        assert!(b.irqs.level(6));
        for n in 0..512 {
            assert_eq!(b.status(), 0xf0);
            let wanted = if n % 2 == 0 { sector } else { 0 };
            assert_eq!(b.fdc.read(0, FIFO, 1), wanted);
        }
    }
    assert_eq!(b.result(), [0x40, 0x80, 0, 1, 0, 1, 2]);
    b.send(&[0x45, 0, 0, 0, 18, 2, 18, 0x1b, 0xff]);
    b.wait();
    for _ in 0..512 {
        assert_eq!(b.status(), 0xb0);
        b.fdc.write(0, FIFO, 1, 0x77);
    }
    assert_eq!(b.result()[..2], [0x40, 0x80]);
    let mut sector = [0; 512];
    b.disk.read_at(17 * 512, &mut sector).unwrap();
    assert_eq!(sector, [0x77; 512]);
}

#[test]
fn format_and_verify() {
    let mut b = Bench::new();
    b.seek(2);
    let ids: Vec<u8> = (1..=18).flat_map(|r| [2, 1, r, 2]).collect();
    b.memory.0.lock()[0x1000..0x1000 + ids.len()].copy_from_slice(&ids);
    b.channel(0x48, 72);
    assert_eq!(b.command(&[0x4d, 4, 2, 18, 0x6c, 0xf6])[..3], [4, 0, 0]);
    let mut track = [0; 20 * 512];
    b.disk.read_at((5 * 18 - 1) * 512, &mut track).unwrap();
    assert_eq!((track[0], track[19 * 512]), (88 + 1, 108));
    assert!(track[512..19 * 512].iter().all(|&x| x == 0xf6));
    assert_eq!(b.command(&[0xd6, 0, 2, 0, 1, 2, 18, 0, 0])[..3], [0, 0, 0]);
    assert_eq!(b.command(&[0x56, 0x80, 2, 0, 18, 2, 18, 0, 2])[..2], [0x40, 0x80]);
}
