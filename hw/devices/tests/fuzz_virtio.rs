//! Hostile guests: seeded scribbling over registers, rings and command blocks. A row per device.
//!
//! Each round fills memory with what looks like descriptors, brings the device up as a driver would, and then accesses hot
//! registers with hot values, while the host's side does its part. No access may panic or take long, and the device
//! must be as good as new behind a reset.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tulk_base::GuestPa;
use tulk_block::MemoryDisk;
use tulk_devices::chardev::CharDevice;
use tulk_devices::net::Nic;
use tulk_devices::net::e1000::E1000;
use tulk_devices::pci::{PciFunction, reg};
use tulk_devices::virtio::blk::{Blk, Options};
use tulk_devices::virtio::console::{Console, Port};
use tulk_devices::virtio::net::Net;
use tulk_devices::virtio::rng::Rng;
use tulk_devices::virtio::{Interface, VirtioPci};
use tulk_hw::{Dma, ManualClock, VecMemory};
use tulk_net::{FrameSink, Network};
use tulk_ui::{CharBackend, CharSink};

/// A write: window, offset, bytes, value.
type Write = (u8, u64, u8, u64);

struct Row {
    make: fn(Arc<dyn Dma>) -> Subject,
    /// What brings the device up.
    setup: &'static [Write],
    /// Registers where things happen: window, offset, bytes.
    hot: &'static [(u8, u64, u8)],
    /// Sizes of the windows.
    windows: &'static [u64],
}

struct Subject {
    device: Arc<Mutex<dyn PciFunction>>,
    /// What the host's side does now and then, with a random number; with 0, what is so in a fresh device.
    event: Box<dyn Fn(u64)>,
}

fn subject<F: PciFunction + 'static>(device: F, event: fn(&mut F, u64)) -> Subject {
    let device = Arc::new(Mutex::new(device));
    let other = device.clone();
    Subject { device, event: Box::new(move |n| event(&mut other.lock(), n)) }
}

const ROWS: &[Row] = &[
    Row { make: blk, setup: VIRTIO_UP, hot: VIRTIO_HOT, windows: VIRTIO_WINDOWS },
    Row { make: blk, setup: VIRTIO_LEGACY_UP, hot: VIRTIO_HOT, windows: VIRTIO_WINDOWS },
    Row { make: net, setup: VIRTIO_UP, hot: VIRTIO_HOT, windows: VIRTIO_WINDOWS },
    Row { make: net, setup: VIRTIO_LEGACY_UP, hot: VIRTIO_HOT, windows: VIRTIO_WINDOWS },
    Row { make: rng, setup: VIRTIO_UP, hot: VIRTIO_HOT, windows: VIRTIO_WINDOWS },
    Row { make: console, setup: VIRTIO_UP, hot: VIRTIO_HOT, windows: VIRTIO_WINDOWS },
    Row { make: console, setup: VIRTIO_LEGACY_UP, hot: VIRTIO_HOT, windows: VIRTIO_WINDOWS },
    Row { make: e1000, setup: E1000_UP, hot: E1000_HOT, windows: &[0x6000, 64] },
];

/// The host's side of everything: takes what comes.
struct Sink;

impl Network for Sink {
    fn transmit(&self, frame: &[u8]) {
        assert!(frame.len() <= tulk_net::MAX_FRAME);
    }
    fn connect(&self, _: Arc<dyn FrameSink>) {}
    fn ready(&self) {}
    fn describe(&self) -> String {
        String::new()
    }
}

impl CharBackend for Sink {
    fn write(&self, _: &[u8]) {}
    fn connect(&self, _: Arc<dyn CharSink>) {}
    fn ready(&self) {}
    fn describe(&self) -> String {
        String::new()
    }
}

fn frame(n: u64) -> Vec<u8> {
    let mut frame = vec![n as u8; (n % 4000) as usize];
    for (to, from) in frame.iter_mut().zip([0xff; 6]) {
        *to = from;
    }
    frame
}

fn blk(dma: Arc<dyn Dma>) -> Subject {
    let disk = Arc::new(MemoryDisk::new(vec![0; 64 << 10], false));
    let blk = Blk::new(disk, Options { queues: 2, ..Options::default() });
    subject(VirtioPci::new(blk, dma, Interface::Transitional), |d, _| {
        d.with(|blk, rings| blk.run_all(rings));
    })
}

fn net(dma: Arc<dyn Dma>) -> Subject {
    let net = Net::new(Arc::new(Sink), [2; 6]);
    subject(VirtioPci::new(net, dma, Interface::Transitional), |d, n| {
        d.receive(&frame(n));
        d.set_link(n % 5 != 4);
    })
}

fn rng(dma: Arc<dyn Dma>) -> Subject {
    let rng = Rng::new(Box::new(|out| out.fill(4)));
    subject(VirtioPci::new(rng, dma, Interface::Transitional), |_, _| {})
}

fn console(dma: Arc<dyn Dma>) -> Subject {
    let port = |name: &str| Port {
        backend: Arc::new(Sink),
        console: name.is_empty(),
        name: (!name.is_empty()).then(|| name.to_string()),
    };
    let console = Console::new(vec![port(""), port("agent")]);
    subject(VirtioPci::new(console, dma, Interface::Transitional), |d, n| {
        d.receive((n % 3) as usize, &frame(n));
        d.with(|console, rings| console.resize(n as u16, (n >> 16) as u16, rings));
    })
}

fn e1000(dma: Arc<dyn Dma>) -> Subject {
    let card = E1000::new(Arc::new(Sink), [2; 6], dma, ManualClock::new());
    subject(card, |d, n| {
        d.receive(&frame(n));
        d.set_link(n % 5 != 4);
    })
}

const VIRTIO_WINDOWS: &[u64] = &[64, 4096, 0, 0, 0x4000];
/// All features that are offered (the writes of `FEATURES` take what is read), queues 0 to 3.
const FEATURES: u64 = u64::MAX;
const VIRTIO_UP: &[Write] = &[
    (4, 20, 1, 0),
    (4, 20, 1, 3),
    (4, 0, 4, 0),
    (4, 8, 4, 0),
    (4, 12, 4, FEATURES),
    (4, 8, 4, 1),
    (4, 12, 4, 1),
    (4, 20, 1, 11),
    (4, 22, 2, 0),
    (4, 24, 2, 16),
    (4, 32, 8, 0x0000),
    (4, 40, 8, 0x0800),
    (4, 48, 8, 0x1000),
    (4, 28, 2, 1),
    (4, 22, 2, 1),
    (4, 24, 2, 16),
    (4, 32, 8, 0x2000),
    (4, 40, 8, 0x2800),
    (4, 48, 8, 0x3000),
    (4, 28, 2, 1),
    (4, 22, 2, 2),
    (4, 24, 2, 16),
    (4, 32, 8, 0x4000),
    (4, 40, 8, 0x4800),
    (4, 48, 8, 0x5000),
    (4, 28, 2, 1),
    (4, 22, 2, 3),
    (4, 24, 2, 16),
    (4, 32, 8, 0x6000),
    (4, 40, 8, 0x6800),
    (4, 48, 8, 0x7000),
    (4, 28, 2, 1),
    (4, 20, 1, 15),
];
const VIRTIO_LEGACY_UP: &[Write] = &[
    (0, 18, 1, 0),
    (0, 18, 1, 3),
    (0, 4, 4, FEATURES),
    (0, 14, 2, 0),
    (0, 8, 4, 0),
    (0, 8, 4, 1),
    (0, 14, 2, 1),
    (0, 8, 4, 4),
    (0, 14, 2, 2),
    (0, 8, 4, 8),
    (0, 14, 2, 3),
    (0, 8, 4, 12),
    (0, 18, 1, 7),
];
const VIRTIO_HOT: &[(u8, u64, u8)] = &[
    (4, 0x3000, 2),
    (4, 0x3004, 2),
    (4, 0x3008, 2),
    (4, 0x300c, 2),
    (0, 16, 2),
    (0, 16, 2),
    (4, 0x1000, 1),
    (4, 0x2020, 1),
    (4, 0x2008, 4),
];

const E1000_UP: &[Write] = &[
    (0, 0x0000, 4, 1 << 26),
    (0, 0x0000, 4, 0x4000_0241),
    (0, 0x0038, 4, 0x8100),
    (0, 0x2800, 4, 0x1000),
    (0, 0x2808, 4, 0x800),
    (0, 0x2818, 4, 0x70),
    (0, 0x5000, 4, 0x300),
    (0, 0x0100, 4, 0x801e),
    (0, 0x3800, 4, 0x3000),
    (0, 0x3808, 4, 0x800),
    (0, 0x0400, 4, 0xa),
    (0, 0x00d0, 4, 0xffff),
];
const E1000_HOT: &[(u8, u64, u8)] = &[
    (0, 0x3818, 4),
    (0, 0x3818, 4),
    (0, 0x2818, 4),
    (0, 0x3810, 4),
    (0, 0x2810, 4),
    (0, 0x0100, 4),
    (0, 0x00c0, 4),
    (0, 0x00c4, 4),
    (0, 0x0010, 4),
    (0, 0x0014, 4),
    (0, 0x0020, 4),
    (0, 0x3808, 4),
    (1, 0, 4),
    (1, 4, 4),
];

const MEMORY: usize = 64 << 10;

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
    /// A number that devices care about.
    fn hot(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(16),
            1 => self.below(MEMORY as u64),
            2 => 1 << self.below(63),
            _ => self.next(),
        }
    }
}

/// Memory of virtio descriptors, e1000 descriptors, ring heads, and noise.
fn fill(memory: &VecMemory, n: &mut Numbers) {
    let mut bytes = memory.0.lock();
    for unit in bytes.as_chunks_mut::<16>().0 {
        let address = match n.below(16) {
            0 => n.next(),
            1 => 0,
            _ => n.below(MEMORY as u64),
        };
        let len = match n.below(8) {
            0 => n.next() as u32,
            1 => 0,
            2 => 16 * n.below(20) as u32,
            _ => n.below(2000) as u32,
        };
        match n.below(8) {
            0 => *unit = (u128::from(n.next()) << 64 | u128::from(n.next())).to_le_bytes(),
            1 | 2 => {
                for half in unit.as_chunks_mut::<2>().0 {
                    *half = (n.below(17) as u16).to_le_bytes();
                }
            }
            3 => {
                // A request's header: its kind and a sector.
                *unit = [0; 16];
                unit[0] = n.of(&[0, 1, 4, 8, 11, 13, 2]);
                unit[8] = n.below(140) as u8;
            }
            4 => {
                // An e1000 descriptor with command and status bits.
                unit[..8].copy_from_slice(&address.to_le_bytes());
                unit[8..12].copy_from_slice(&len.to_le_bytes());
                unit[10] &= 0x1f;
                unit[11] = n.next() as u8;
                unit[12..].copy_from_slice(&(n.next() as u32).to_le_bytes());
            }
            _ => {
                unit[..8].copy_from_slice(&address.to_le_bytes());
                unit[8..12].copy_from_slice(&len.to_le_bytes());
                unit[12] = n.of(&[0, 1, 1, 1, 2, 2, 3, 3, 4, 5]);
                unit[13] = 0;
                unit[14..].copy_from_slice(&(n.below(18) as u16).to_le_bytes());
            }
        }
    }
}

#[test]
fn hostile_guests() {
    for (index, row) in ROWS.iter().enumerate() {
        let memory = VecMemory::new(MEMORY);
        let Subject { device, event } = (row.make)(Arc::new(memory.clone()));
        let mut n = Numbers(0x7475_6c6b + index as u64);
        device.lock().reset();
        let fresh = device.lock().save();
        let mut moved = 0;
        for _ in 0..150 {
            fill(&memory, &mut n);
            device.lock().config_write(reg::COMMAND, 2, 7);
            for &(window, offset, bytes, value) in row.setup {
                let mut d = device.lock();
                let offered = if window == 4 { d.read(4, 4, 4) } else { d.read(0, 0, 4) };
                let value = if value == FEATURES { offered } else { value };
                d.write(window, offset, bytes, value);
            }
            let before = memory.0.lock().clone();
            for _ in 0..100 {
                access(row, &device, &memory, &mut n, &*event);
            }
            moved += u32::from(*memory.0.lock() != before);
        }
        let name = device.lock().name();
        assert!(moved > 20, "{name}: only {moved} rounds did something");
        event(0);
        device.lock().reset();
        assert!(device.lock().save() == fresh, "{name}: reset does not reset everything");
    }
}

fn access(
    row: &Row,
    device: &Mutex<dyn PciFunction>,
    memory: &VecMemory,
    n: &mut Numbers,
    event: &dyn Fn(u64),
) {
    let start = Instant::now();
    let mut d = device.lock();
    match n.below(16) {
        0 => {
            drop(d);
            event(n.next());
        }
        1 => {
            // A ring's index moves on.
            let at = 0x800 * n.below(32) + 2;
            let index = (n.below(20) as u16).to_le_bytes();
            memory.write(GuestPa(at), &index);
        }
        2 => {
            let (window, bytes) = (n.below(row.windows.len() as u64) as u8, n.of(&[1, 2, 4, 8]));
            let offset = n.below(row.windows[window as usize] + 16);
            d.read(window, offset, bytes);
        }
        3 if n.below(8) == 0 => {
            let (window, bytes) = (n.below(row.windows.len() as u64) as u8, n.of(&[1, 2, 4, 8]));
            let (offset, value) = (n.below(row.windows[window as usize] + 16), n.hot());
            d.write(window, offset, bytes, value);
        }
        4 => {
            if let Some(deadline) = d.deadline() {
                d.tick(deadline);
            }
        }
        5 if n.below(8) == 0 => {
            let saved = d.save();
            d.load(&saved).expect("its own snapshot");
            assert_eq!(d.save(), saved);
        }
        6 => {
            let (window, offset, bytes) = n.of(row.hot);
            d.read(window, offset, bytes);
        }
        _ => {
            let (window, offset, bytes) = n.of(row.hot);
            let value = n.hot();
            d.write(window, offset, bytes, value);
        }
    }
    assert!(start.elapsed() < Duration::from_secs(5), "an access took long");
}
