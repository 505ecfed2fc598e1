//! A small virtio driver over the PCI transport, modern and legacy.

use std::sync::Arc;
use tulk_base::GuestPa;
use tulk_devices::pci::{PciFunction, command, reg};
use tulk_devices::virtio::pci::{LEGACY, MODERN, layout, status};
use tulk_devices::virtio::{VirtioDevice, VirtioPci, feature};
use tulk_hw::{Device, Dma, IrqLine, RecordedIrqs, VecMemory};

pub const MEMORY: usize = 1 << 20;
const RINGS: u64 = 0x1_0000;
const RING_STEP: u64 = 0x4000;
const BUFFERS: u64 = 0x8_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

pub struct Ring {
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    avail_index: u16,
    used_index: u16,
    /// Writable segments by head.
    writable: Vec<Vec<(u64, usize)>>,
    next_desc: u16,
}

pub struct Driver<D: VirtioDevice> {
    pub dev: VirtioPci<D>,
    pub memory: VecMemory,
    pub irqs: Arc<RecordedIrqs>,
    pub rings: Vec<Ring>,
    pub legacy: bool,
    pub features: u64,
    pub indirect: bool,
    buffer: u64,
}

impl<D: VirtioDevice> Driver<D> {
    /// `make` gets the memory. The driver is up, with all queues placed.
    pub fn start(
        make: impl FnOnce(Arc<dyn Dma>) -> VirtioPci<D>,
        legacy: bool,
        features: u64,
    ) -> Driver<D> {
        let memory = VecMemory::new(MEMORY);
        let irqs = RecordedIrqs::new();
        let mut dev = make(Arc::new(memory.clone()));
        dev.config_mut().connect(IrqLine::new(irqs.clone(), 5));
        let enable = command::BUS_MASTER | command::MEMORY | command::IO;
        dev.config_write(reg::COMMAND, 2, enable.into());
        let (rings, indirect) = (Vec::new(), features & feature::RING_INDIRECT_DESC != 0);
        let mut d =
            Driver { dev, memory, irqs, rings, legacy, features, indirect, buffer: BUFFERS };
        if legacy {
            d.start_legacy()
        } else {
            d.start_modern()
        }
        d
    }

    pub fn common(&mut self, offset: u64, bytes: u8) -> u64 {
        self.dev.read(MODERN, layout::COMMON + offset, bytes)
    }
    pub fn set_common(&mut self, offset: u64, bytes: u8, value: u64) {
        self.dev.write(MODERN, layout::COMMON + offset, bytes, value);
    }
    pub fn status(&mut self) -> u8 {
        if self.legacy { self.dev.read(LEGACY, 18, 1) as u8 } else { self.common(20, 1) as u8 }
    }

    fn start_modern(&mut self) {
        self.set_common(20, 1, 0);
        self.set_common(20, 1, 1);
        self.set_common(20, 1, 3);
        for half in 0..2 {
            self.set_common(0, 4, half);
            let offered = self.common(4, 4);
            let wanted = (self.features | feature::VERSION_1) >> (32 * half) & 0xffff_ffff;
            assert_eq!(wanted & !offered, 0, "features {half}");
            self.set_common(8, 4, half);
            self.set_common(12, 4, wanted);
        }
        self.set_common(20, 1, 11);
        assert_eq!(self.status(), 11, "features refused");
        for n in 0..self.common(18, 2) {
            self.set_common(22, 2, n);
            let size = self.common(24, 2).min(64);
            self.set_common(24, 2, size);
            let desc = RINGS + n * RING_STEP;
            let (avail, used) = (desc + 0x2000, desc + 0x3000);
            self.set_common(32, 8, desc);
            self.set_common(40, 4, avail);
            self.set_common(44, 4, 0);
            self.set_common(48, 8, used);
            self.set_common(28, 2, 1);
            self.add_ring(size as u16, desc, avail, used);
        }
        self.set_common(20, 1, 15);
        assert_eq!(self.status(), 15);
    }

    fn start_legacy(&mut self) {
        self.dev.write(LEGACY, 18, 1, 0);
        self.dev.write(LEGACY, 18, 1, 3);
        assert_eq!(self.features & !self.dev.read(LEGACY, 0, 4), 0);
        self.dev.write(LEGACY, 4, 4, self.features);
        for n in 0.. {
            self.dev.write(LEGACY, 14, 2, n);
            let size = self.dev.read(LEGACY, 12, 2);
            if size == 0 {
                break;
            }
            let desc = RINGS + n * RING_STEP;
            let avail = desc + 16 * size;
            let used = (avail + 6 + 2 * size + 4095) & !4095;
            assert!(used + 6 + 8 * size <= desc + RING_STEP);
            self.dev.write(LEGACY, 8, 4, desc >> 12);
            assert_eq!(self.dev.read(LEGACY, 8, 4), desc >> 12);
            self.add_ring(size as u16, desc, avail, used);
        }
        self.dev.write(LEGACY, 18, 1, 7);
    }

    fn add_ring(&mut self, size: u16, desc: u64, avail: u64, used: u64) {
        let writable = vec![Vec::new(); size.into()];
        let ring =
            Ring { size, desc, avail, used, avail_index: 0, used_index: 0, writable, next_desc: 0 };
        self.rings.push(ring);
    }

    pub fn poke(&self, pa: u64, data: &[u8]) {
        assert!(self.memory.write(GuestPa(pa), data));
    }
    pub fn peek(&self, pa: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        assert!(self.memory.read(GuestPa(pa), &mut out));
        out
    }
    pub fn peek16(&self, pa: u64) -> u16 {
        u16::from_le_bytes(self.peek(pa, 2).try_into().unwrap())
    }

    pub fn allocate(&mut self, len: usize) -> u64 {
        if self.buffer + len as u64 > MEMORY as u64 {
            self.buffer = BUFFERS;
        }
        let at = self.buffer;
        self.buffer += len.next_multiple_of(16) as u64;
        at
    }

    pub fn descriptor(&self, table: u64, index: u16, pa: u64, len: u32, flags: u16, next: u16) {
        let mut raw = pa.to_le_bytes().to_vec();
        raw.extend(len.to_le_bytes());
        raw.extend(flags.to_le_bytes());
        raw.extend(next.to_le_bytes());
        self.poke(table + 16 * u64::from(index), &raw);
    }

    /// Makes a request available; its head.
    pub fn add(&mut self, queue: usize, readable: &[&[u8]], writable: &[usize]) -> u16 {
        let mut segments = Vec::new();
        for data in readable {
            let at = self.allocate(data.len());
            self.poke(at, data);
            segments.push((at, data.len(), 0));
        }
        let mut room = Vec::new();
        for &len in writable {
            let at = self.allocate(len);
            segments.push((at, len, WRITE));
            room.push((at, len));
        }
        let size = self.rings[queue].size;
        let head = self.rings[queue].next_desc;
        let chain = |d: &Driver<D>, table: u64, start: u16, modulus: u16| {
            for (n, &(at, len, flags)) in segments.iter().enumerate() {
                let last = n + 1 == segments.len();
                let index = (start + n as u16) % modulus;
                let flags = flags | if last { 0 } else { NEXT };
                d.descriptor(table, index, at, len as u32, flags, (index + 1) % modulus);
            }
        };
        let desc = self.rings[queue].desc;
        if self.indirect {
            let table = self.allocate(16 * segments.len());
            chain(self, table, 0, u16::MAX);
            self.descriptor(desc, head, table, 16 * segments.len() as u32, INDIRECT, 0);
            self.rings[queue].next_desc = (head + 1) % size;
        } else {
            chain(self, desc, head, size);
            self.rings[queue].next_desc = (head + segments.len() as u16) % size;
        }
        self.rings[queue].writable[usize::from(head)] = room;
        self.publish(queue, head);
        head
    }

    /// Puts a head into the available ring.
    pub fn publish(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let slot = ring.avail + 4 + 2 * u64::from(ring.avail_index % ring.size);
        ring.avail_index = ring.avail_index.wrapping_add(1);
        let (at, index) = (ring.avail + 2, ring.avail_index);
        self.poke(slot, &head.to_le_bytes());
        self.poke(at, &index.to_le_bytes());
    }

    pub fn kick(&mut self, queue: u64) {
        if self.legacy {
            self.dev.write(LEGACY, 16, 2, queue);
        } else {
            self.dev.write(MODERN, layout::NOTIFY + queue * layout::NOTIFY_STEP, 2, queue);
        }
        while self.dev.deadline().is_some() {
            self.dev.tick(0);
        }
    }

    /// Requests that came back since the last call: head, bytes written, and these bytes.
    pub fn used(&mut self, queue: usize) -> Vec<(u16, u32, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let ring = &self.rings[queue];
            if self.peek16(ring.used + 2) == ring.used_index {
                return all;
            }
            let slot = ring.used + 4 + 8 * u64::from(ring.used_index % ring.size);
            let element = self.peek(slot, 8);
            let head = u16::from_le_bytes([element[0], element[1]]);
            let len = u32::from_le_bytes(element[4..].try_into().unwrap());
            let mut data = Vec::new();
            for &(at, n) in &ring.writable[usize::from(head)] {
                data.extend(self.peek(at, n));
            }
            data.truncate(len as usize);
            all.push((head, len, data));
            self.rings[queue].used_index = self.rings[queue].used_index.wrapping_add(1);
        }
    }

    /// Whether the pin is up, and lowers it as an interrupt handler does; the ISR bits.
    pub fn interrupt(&mut self) -> Option<u8> {
        let up = self.irqs.level(5);
        let isr = match self.legacy {
            true => self.dev.read(LEGACY, 19, 1),
            false => self.dev.read(MODERN, layout::ISR, 1),
        };
        assert!(!self.irqs.level(5));
        up.then_some(isr as u8)
    }

    pub fn needs_reset(&mut self) -> bool {
        self.status() & status::NEEDS_RESET != 0
    }
}

impl<D: VirtioDevice> Driver<D> {
    /// The last byte that the device may write of a request.
    pub fn last_byte(&self, queue: usize, head: u16) -> u8 {
        let &(at, len) = self.rings[queue].writable[usize::from(head)].last().unwrap();
        self.peek(at + len as u64 - 1, 1)[0]
    }
}
