//! Hostile guests: random accesses to PCI configuration space, the bridges, IDE and VGA, from random seeds.
//! See [`tulk_hw::check_device`] for what must hold.
//!
//! `TULK_FUZZ_ROUNDS` makes it longer.

use parking_lot::Mutex;
use std::sync::Arc;
use tulk_base::GuestPa;
use tulk_block::MemoryDisk;
use tulk_devices::ide::{Attachment, Piix3Ide};
use tulk_devices::pci::i440fx::{I440fx, MemoryAttributes, Smram};
use tulk_devices::pci::piix3::Piix3;
use tulk_devices::pci::piix4_pm::Piix4Pm;
use tulk_devices::pci::{BusMapper, PciBus, PciFunction, PirqRouter};
use tulk_devices::vga::{StdVga, VecVideoMemory};
use tulk_hw::{Bus, Device, Dma, IrqLine, ManualClock, RecordedIrqs, VecMemory};

/// Numbers of a seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// One of the values that guests like.
    fn value(&mut self) -> u64 {
        match self.next() % 5 {
            0 => self.next() % 256,
            1 => 1 << (self.next() % 64),
            2 => 0,
            3 => u64::MAX,
            _ => self.next(),
        }
    }
}

/// Random accesses to windows (number, length), with what else the row wants to do in between.
fn scribble<D: Device + ?Sized>(
    device: &mut D,
    windows: &[(u8, u64)],
    mut between: impl FnMut(&mut D, &mut Numbers),
) {
    let rounds = std::env::var("TULK_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for seed in 1..=rounds {
        let mut numbers = Numbers(seed);
        for _ in 0..5000 {
            let (window, length) = windows[(numbers.next() % windows.len() as u64) as usize];
            let (offset, bytes) = (numbers.next() % length, 1 << (numbers.next() % 4));
            if numbers.next().is_multiple_of(3) {
                device.read(window, offset, bytes);
            } else {
                let value = numbers.value();
                device.write(window, offset, bytes, value);
            }
            if numbers.next().is_multiple_of(16) {
                between(device, &mut numbers);
            }
        }
        let saved = device.save();
        device.load(&saved).expect("its own snapshot");
        assert_eq!(device.save(), saved, "{} seed {seed}", device.name());
    }
}

/// Random configuration writes, as guests reach every function.
fn configure<F: PciFunction + ?Sized>(function: &mut F, numbers: &mut Numbers) {
    let bytes = 1 << (numbers.next() % 3);
    let offset = (numbers.next() % 256) as u16 & !(u16::from(bytes) - 1);
    function.config_read(offset, bytes);
    let value = numbers.value() as u32;
    function.config_write(offset, bytes, value);
    function.mappings();
}

struct NoAttributes;

impl MemoryAttributes for NoAttributes {
    fn set_segment(&self, _: std::ops::Range<u64>, _: bool, _: bool) {}
    fn set_smram(&self, _: Smram) {}
}

struct IdeRig {
    ide: Piix3Ide,
    memory: VecMemory,
    irqs: Arc<RecordedIrqs>,
}

fn ide() -> IdeRig {
    let memory = VecMemory::new(1 << 20);
    let disk = || Arc::new(MemoryDisk::new(vec![0x5a; 400 << 10], false));
    let drives = [
        [Some(Attachment::disk(disk())), Some(Attachment::cdrom(Some(disk())))],
        [Some(Attachment::cdrom(None)), None],
    ];
    let irqs = RecordedIrqs::new();
    let lines = [14, 15].map(|n| IrqLine::new(irqs.clone(), n));
    let ide = Piix3Ide::new(drives, lines, Arc::new(memory.clone()));
    IdeRig { ide, memory, irqs }
}

/// Commands and packets that exist.
const COMMANDS: &[u8] =
    &[0x20, 0x25, 0x30, 0x35, 0x40, 0xa0, 0xa0, 0xa0, 0xc4, 0xc5, 0xc8, 0xca, 0xec, 0x06, 0xef];
const DMA_COMMANDS: &[u8] = &[0xc8, 0xc8, 0x25, 0xca, 0x35, 0x06, 0xa0];
const PACKETS: &[u64] =
    &[0x28, 0x28, 0x43, 0x46, 0x4a, 0x5a, 0xa8, 0xb9, 0xbe, 0x1b, 0x12, 3, 0x42, 0x51];

/// Gives a drive a command with registers that are often good, and moves some of its data. Gives the
/// window of its channel.
fn ide_command(ide: &mut Piix3Ide, commands: &[u8], numbers: &mut Numbers) -> u8 {
    let window = if numbers.next().is_multiple_of(3) { 9 } else { 7 };
    let reset = if numbers.next().is_multiple_of(2) { 4 } else { 0 };
    ide.write(window + 1, 0, 1, reset);
    ide.write(window + 1, 0, 1, 0);
    ide.write(window, 6, 1, 0xe0 | numbers.next() & 0x10);
    for (register, limit) in [(1, 4), (2, 40), (3, 256), (4, 4), (5, 2)] {
        ide.write(window, register, 1, numbers.next() % limit);
    }
    let code = commands[(numbers.next() % commands.len() as u64) as usize];
    ide.write(window, 7, 1, code.into());
    if code == 0xa0 {
        let packet = PACKETS[(numbers.next() % PACKETS.len() as u64) as usize];
        ide.write(window, 0, 2, packet | (numbers.next() & 2) << 8);
        for limit in [0x100, 0x10000, 0x100, 0x2000, 0x10000] {
            ide.write(window, 0, 2, numbers.next() % limit);
        }
    }
    for _ in 0..numbers.next() % 600 {
        let value = numbers.next();
        ide.read(window, 0, 4);
        ide.write(window, 0, 4, value & 0xffff_ffff);
    }
    window
}

#[test]
fn piix3_ide() {
    let IdeRig { mut ide, memory, irqs } = ide();
    ide.config_write(4, 2, 5);
    let windows = [(7, 8), (7, 8), (8, 1), (9, 8), (10, 1), (4, 16)];
    let (mut interrupts, mut transfers) = (0, 0);
    scribble(&mut ide, &windows, |ide, numbers| match numbers.next() % 8 {
        0..5 => {
            ide_command(ide, COMMANDS, numbers);
            interrupts += irqs.take_rises().len();
        }
        5 => {
            ide.config_write(4, 2, 5);
            for _ in 0..4 {
                let window = ide_command(ide, DMA_COMMANDS, numbers);
                let channel = if window == 7 { 0 } else { 8 };
                let (address, count) = (numbers.next() % (1 << 20), numbers.next() & 0x8000_1fff);
                let entry = address | (count << 32);
                let at = numbers.next() % (1 << 20);
                memory.write(GuestPa(at & !3), &entry.to_le_bytes());
                let before = memory.0.lock().clone();
                let all = before.len() as u64;
                let table = if numbers.next().is_multiple_of(8) { all - 4 } else { at };
                ide.write(4, channel + 4, 4, table);
                ide.write(4, channel, 1, 0);
                ide.write(4, channel, 1, numbers.next() & 8 | 1);
                transfers += u32::from(*memory.0.lock() != before);
            }
        }
        6 => ide.config_write(4, 2, 5),
        _ => configure(ide, numbers),
    });
    assert!(interrupts > 100 && transfers > 5, "{interrupts} interrupts, {transfers} transfers");
}

#[test]
fn stdvga() {
    let vram = Arc::new(VecVideoMemory::new(256 << 10));
    let mut vga = StdVga::new(vram, ManualClock::new(), vec![0x55; 4096]);
    let windows = [(0, 256 << 10), (2, 4096), (6, 4096), (7, 0x20000), (8, 0x30), (9, 4)];
    scribble(&mut vga, &windows, |vga, numbers| {
        configure(vga, numbers);
        vga.write(9, 0, 2, numbers.next() % 12);
        vga.write(9, 1, 2, numbers.value() & 0xffff);
        if numbers.next().is_multiple_of(64) {
            vga.frame();
        }
    });
}

#[test]
fn bridges() {
    let router = PirqRouter::new(RecordedIrqs::new());
    let pm: Arc<Mutex<dyn Device>> = Arc::new(Mutex::new(ide().ide));
    scribble(&mut I440fx::new(Arc::new(NoAttributes)), &[(0, 16)], configure);
    scribble(&mut Piix3::new(router, Box::new(|_| ())), &[(7, 2)], configure);
    scribble(&mut Piix4Pm::new((pm, 0), None), &[(7, 64), (8, 16)], configure);
}

#[test]
fn pci_bus() {
    let router = PirqRouter::new(RecordedIrqs::new());
    let (ports, memory) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
    let mapper = Arc::new(BusMapper { ports: ports.clone(), memory: memory.clone() });
    let mut bus = PciBus::new(router.clone(), mapper);
    let vram = Arc::new(VecVideoMemory::new(256 << 10));
    let vga = StdVga::new(vram, ManualClock::new(), vec![]);
    let bridge = Piix3::new(router, Box::new(|_| ()));
    bus.add(0, 0, Arc::new(Mutex::new(I440fx::new(Arc::new(NoAttributes))))).unwrap();
    bus.add(1, 0, Arc::new(Mutex::new(bridge))).unwrap();
    bus.add(1, 1, Arc::new(Mutex::new(ide().ide))).unwrap();
    bus.add(2, 0, Arc::new(Mutex::new(vga))).unwrap();
    scribble(&mut bus, &[(0, 8)], |bus, numbers| {
        let devfn = numbers.next() % 24;
        bus.write(0, 0, 4, 1 << 31 | devfn << 8 | numbers.next() & 0xfc);
        bus.write(0, 4, 4, numbers.value() & 0xffff_ffff);
        // Whatever is mapped now answers.
        for (space, limit) in [(&ports, 0x1_0000), (&memory, 1 << 32)] {
            let at = numbers.next() % limit;
            if let Some((mapped, offset)) = space.find(at) {
                mapped.device.lock().write(mapped.window, offset, 4, numbers.next());
            }
            assert!(space.list().len() <= 16);
        }
    });
}
