//! The e1000 as its drivers see it.

mod cable;

use cable::Cable;
use parking_lot::Mutex;
use std::sync::Arc;
use tulk_base::GuestPa;
use tulk_devices::net::e1000::{E1000, MEMORY, PORTS};
use tulk_devices::net::{Nic, Socket, offload};
use tulk_devices::pci::{PciFunction, command, reg};
use tulk_hw::{Device, Dma, IrqLine, ManualClock, RecordedIrqs, VecMemory, check_device};
use tulk_net::FrameSink;

const CTRL: u64 = 0x0;
const STATUS: u64 = 0x8;
const EECD: u64 = 0x10;
const EERD: u64 = 0x14;
const MDIC: u64 = 0x20;
const VET: u64 = 0x38;
const ICR: u64 = 0xc0;
const ITR: u64 = 0xc4;
const ICS: u64 = 0xc8;
const IMS: u64 = 0xd0;
const IMC: u64 = 0xd8;
const RCTL: u64 = 0x100;
const TCTL: u64 = 0x400;
const RDBAL: u64 = 0x2800;
const RDLEN: u64 = 0x2808;
const RDH: u64 = 0x2810;
const RDT: u64 = 0x2818;
const RDTR: u64 = 0x2820;
const RADV: u64 = 0x282c;
const TDBAL: u64 = 0x3800;
const TDLEN: u64 = 0x3808;
const TDH: u64 = 0x3810;
const TDT: u64 = 0x3818;
const TIDV: u64 = 0x3820;
const RXCSUM: u64 = 0x5000;
const MTA: u64 = 0x5200;
const RA: u64 = 0x5400;
const VFTA: u64 = 0x5600;

const TXDW: u32 = 1;
const TXQE: u32 = 2;
const LSC: u32 = 4;
const RXT0: u32 = 0x80;
const RCTL_EN: u32 = 2;
const BAM: u32 = 1 << 15;

const RX_RING: u64 = 0x1000;
const TX_RING: u64 = 0x2000;
const RX_BUFFERS: u64 = 0x1_0000;
const TX_BUFFER: u64 = 0x8_0000;
const RX_COUNT: u64 = 16;
const TX_COUNT: u64 = 16;

const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

struct Driver {
    dev: E1000,
    memory: VecMemory,
    cable: Arc<Cable>,
    clock: Arc<ManualClock>,
    irqs: Arc<RecordedIrqs>,
    rx_next: u64,
    tx_next: u64,
    tx_at: u64,
}

impl Driver {
    fn new() -> Driver {
        let memory = VecMemory::new(1 << 20);
        let (cable, clock, irqs) =
            (Arc::new(Cable::default()), ManualClock::new(), RecordedIrqs::new());
        let mut dev = E1000::new(cable.clone(), MAC, Arc::new(memory.clone()), clock.clone());
        dev.config_mut().connect(IrqLine::new(irqs.clone(), 9));
        dev.config_write(reg::COMMAND, 2, (command::BUS_MASTER | command::MEMORY).into());
        Driver { dev, memory, cable, clock, irqs, rx_next: 0, tx_next: 0, tx_at: TX_BUFFER }
    }

    /// A driver with both rings running, with these bits in RCTL besides.
    fn start(rctl: u32) -> Driver {
        let mut d = Driver::new();
        for n in 0..RX_COUNT {
            d.poke(RX_RING + 16 * n, &(RX_BUFFERS + 0x1000 * n).to_le_bytes());
        }
        d.set(RDBAL, RX_RING as u32);
        d.set(RDLEN, 16 * RX_COUNT as u32);
        d.set(RDH, 0);
        d.set(RDT, RX_COUNT as u32 - 1);
        d.set(RCTL, RCTL_EN | BAM | rctl);
        d.set(TDBAL, TX_RING as u32);
        d.set(TDLEN, 16 * TX_COUNT as u32);
        d.set(TDH, 0);
        d.set(TDT, 0);
        d.set(TCTL, 0xa);
        d.set(IMS, 0x9d);
        d
    }

    fn get(&mut self, at: u64) -> u32 {
        self.dev.read(MEMORY, at, 4) as u32
    }
    fn set(&mut self, at: u64, value: u32) {
        self.dev.write(MEMORY, at, 4, value.into());
    }
    fn poke(&self, pa: u64, data: &[u8]) {
        assert!(self.memory.write(GuestPa(pa), data));
    }
    fn peek(&self, pa: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        assert!(self.memory.read(GuestPa(pa), &mut out));
        out
    }

    /// A raw transmit descriptor, without telling the device.
    fn tx_raw(&mut self, raw: [u8; 16]) {
        self.poke(TX_RING + 16 * (self.tx_next % TX_COUNT), &raw);
        self.tx_next += 1;
    }
    /// A legacy or data descriptor for some bytes: what stands in bytes 10 to 15.
    fn tx(&mut self, data: &[u8], high: u8, command: u8, options: u8, special: u16) {
        self.poke(self.tx_at, data);
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&self.tx_at.to_le_bytes());
        raw[8..10].copy_from_slice(&(data.len() as u16).to_le_bytes());
        raw[10..].copy_from_slice(&[
            high,
            command,
            0,
            options,
            special as u8,
            (special >> 8) as u8,
        ]);
        self.tx_at += data.len() as u64;
        self.tx_raw(raw);
    }
    /// Tells the device; the frames that left. All descriptors are done.
    fn go(&mut self) -> Vec<Vec<u8>> {
        let tail = (self.tx_next % TX_COUNT) as u32;
        self.set(TDT, tail);
        while self.dev.deadline() == Some(0) {
            self.dev.tick(0);
        }
        assert_eq!(self.get(TDH), tail);
        self.tx_at = TX_BUFFER;
        self.cable.take()
    }

    /// Offers a frame; descriptors that came back: length, status, errors, special and data.
    fn rx(&mut self, frame: &[u8]) -> Vec<(u16, u8, u8, u16, Vec<u8>)> {
        assert!(self.dev.receive(frame));
        let mut all = Vec::new();
        while u64::from(self.get(RDH)) != self.rx_next % RX_COUNT {
            let slot = self.rx_next % RX_COUNT;
            let raw = self.peek(RX_RING + 16 * slot, 16);
            let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
            assert_eq!(raw[12] & 1, 1, "done");
            let data = self.peek(RX_BUFFERS + 0x1000 * slot, half(8).into());
            all.push((half(8), raw[12], raw[13], half(14), data));
            self.set(RDT, slot as u32);
            self.rx_next += 1;
        }
        all
    }
    fn passes(&mut self, frame: &[u8]) -> bool {
        !self.rx(frame).is_empty()
    }

    fn pin(&self) -> bool {
        self.irqs.level(9)
    }
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut f = to.to_vec();
    f.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    f.extend((14..len).map(|n| n as u8));
    f
}

#[test]
fn the_eeprom_by_both_ways() {
    let mut d = Driver::new();
    let mut fast = Vec::new();
    for word in 0..64 {
        d.set(EERD, word << 8 | 1);
        let value = d.get(EERD);
        assert_ne!(value & 0x10, 0, "done");
        fast.push((value >> 16) as u16);
    }
    assert_eq!(fast[..3], [0x5452, 0x1200, 0x5634]);
    assert_eq!(fast.iter().fold(0u16, |s, w| s.wrapping_add(*w)), 0xbaba);
    assert_eq!((fast[0xd], fast[0xe]), (0x100e, 0x8086));

    d.set(EECD, 0x40);
    assert_eq!(d.get(EECD) & 0x80, 0x80, "granted");
    for (word, &expected) in fast.iter().enumerate() {
        let wires = |d: &mut Driver, bits: u32| d.set(EECD, 0x40 | bits);
        wires(&mut d, 0);
        wires(&mut d, 2);
        // A leading zero, then start, read, and six bits of address.
        for n in (0..10).rev() {
            let bit = ((0b110 << 6 | word) >> n & 1) as u32;
            wires(&mut d, 2 | bit << 2);
            wires(&mut d, 2 | bit << 2 | 1);
            wires(&mut d, 2 | bit << 2);
        }
        let mut value = 0u16;
        for _ in 0..16 {
            wires(&mut d, 3);
            value = value << 1 | u16::from(d.get(EECD) & 8 != 0);
            wires(&mut d, 2);
        }
        assert_eq!(value, expected, "word {word}");
    }
    d.set(EECD, 0);
    assert_eq!(d.get(EECD) & 0x80, 0);
    assert_eq!((d.get(RA), d.get(RA + 4)), (0x1200_5452, 0x8000_5634));
}

#[test]
fn the_phy() {
    let mut d = Driver::new();
    let read = |d: &mut Driver, register: u32, phy: u32| {
        d.set(MDIC, 2 << 26 | phy << 21 | register << 16);
        d.get(MDIC)
    };
    assert_eq!(read(&mut d, 2, 1), 1 << 28 | 2 << 26 | 1 << 21 | 2 << 16 | 0x141);
    assert_eq!(read(&mut d, 3, 1) as u16 & 0xfff0, 0x0c20);
    assert_eq!(read(&mut d, 1, 1) as u16 & 0x24, 0x24, "negotiated, link");
    assert_eq!(read(&mut d, 17, 1) as u16 & 0xac00, 0xac00, "1000 Mb/s, full duplex");
    assert_eq!(read(&mut d, 2, 2) >> 30 & 1, 1, "nobody there");
    d.set(MDIC, 1 << 26 | 1 << 21 | 4 << 16 | 0x0123);
    assert_eq!(read(&mut d, 4, 1) as u16, 0x0123);
    d.set(ICR, !0);
    d.set(MDIC, 1 << 29 | 1 << 26 | 1 << 21 | 0x8000 | 0x1140);
    assert_eq!(d.get(ICR), 1 << 9 | LSC);
    assert_eq!(read(&mut d, 4, 1) as u16, 0x0de1, "behind reset");
    assert_eq!(d.get(STATUS), 0x283);
    d.dev.set_link(false);
    assert_eq!((d.get(STATUS), d.get(ICR)), (0x281, LSC));
    assert_eq!(read(&mut d, 1, 1) as u16 & 0x24, 0);
}

#[test]
fn legacy_frames_go_out() {
    let mut d = Driver::start(0);
    let f = frame([1; 6], 100);
    // EOP and RS in the last of two descriptors.
    d.tx(&f[..30], 0, 0, 0, 0);
    d.tx(&f[30..], 0, 9, 0, 0);
    d.tx(&f[..14], 0, 1, 0, 0);
    let sent = d.go();
    assert_eq!(sent[0], f);
    assert_eq!(sent[1].len(), 60, "padded");
    assert_eq!(d.peek(TX_RING + 12, 1), [0]);
    assert_eq!(d.peek(TX_RING + 28, 1), [1], "done");
    assert!(d.pin());
    assert_eq!(d.get(ICR), TXDW | TXQE);
    assert!(!d.pin());
    assert_eq!(d.get(ICR), 0, "read clears");
    assert_eq!((d.get(0x4080), d.get(0x4080)), (2, 0), "GPTC");
    assert_eq!((d.get(0x4090), d.get(0x4094), d.get(0x4090)), (104 + 64, 0, 0), "GOTC");
    // A tag is inserted, and a checksum from byte 14 to byte 16.
    d.set(CTRL, 1 << 30 | 0x201);
    d.set(VET, 0x8100);
    d.tx(&f, 16, 1 | 4 | 0x40, 14, 0x2007);
    let sent = d.go();
    assert_eq!(sent[0][12..18], [0x81, 0, 0x20, 7, 0x88, 0xb5]);
    let mut plain = sent[0].clone();
    plain.drain(12..16);
    let sum = !offload::fold(offload::add(0, &f[14..]));
    assert_eq!(plain[16..18], sum.to_be_bytes());
}

/// A TCP segment whose checksum field has the sum of the pseudo header (`partial`: with its length).
fn tcp(data: usize, partial: bool) -> Vec<u8> {
    let mut f = frame([0x52; 6], 14);
    f[12..].copy_from_slice(&[8, 0]);
    f.extend([0x45, 0]);
    f.extend((if partial { 40 + data as u16 } else { 0 }).to_be_bytes());
    f.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    f.extend([1, 2, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    f.extend((0..data).map(|n| (n * 3) as u8));
    let len = if partial { 20 + data as u64 } else { 0 };
    let sum = offload::fold(offload::add(6 + len, &f[26..34]));
    f[50..52].copy_from_slice(&sum.to_be_bytes());
    f
}

fn sums_are_right(frame: &[u8]) -> bool {
    let at = offload::layout(frame).unwrap();
    offload::ip_sum_right(frame, &at) == Some(true)
        && offload::transport_sum_right(frame, &at) == Some(true)
}

fn context(command: u8, headers: u8, mss: u16) -> [u8; 16] {
    let [m0, m1] = mss.to_le_bytes();
    [14, 24, 33, 0, 34, 50, 0, 0, 0, 0, 0, 0x20 | command, 0, headers, m0, m1]
}

#[test]
fn checksums_and_segmentation() {
    let mut d = Driver::start(0);
    d.tx_raw(context(1 | 2, 0, 0));
    d.tx(&tcp(301, true), 0x10, 0x20 | 9, 3, 0);
    let sent = d.go();
    assert_eq!(sent.len(), 1);
    assert!(sums_are_right(&sent[0]));
    // Segmentation: headers and data in descriptors of their own, as Linux gives them.
    let large = tcp(20_000, false);
    d.tx_raw(context(1 | 2 | 4, 54, 1460));
    d.tx(&large[..54], 0x10, 0x20 | 4, 3, 0);
    d.tx(&large[54..9000], 0x10, 0x20 | 4, 3, 0);
    d.tx(&large[9000..], 0x10, 0x20 | 4 | 9, 3, 0);
    let sent = d.go();
    assert_eq!(sent.len(), 14);
    assert!(sent.iter().all(|f| sums_are_right(f) && f.len() <= 1514));
    let data: Vec<u8> = sent.iter().flat_map(|f| f[54..].to_vec()).collect();
    assert_eq!(data, large[54..]);
    assert_eq!(d.get(0x40f8), 1, "TSCTC");
    // Nonsense is no frame, and the ring goes on.
    d.tx_raw(context(1 | 2 | 4, 200, 0));
    d.tx(&large[..1000], 0x10, 0x20 | 4 | 9, 3, 0);
    d.tx(&large[..100], 0, 9, 0, 0);
    assert_eq!(d.go().len(), 1);
    assert_eq!(d.get(0x40fc), 1, "TSCTFC");
}

#[test]
fn frames_come_in() {
    let mut d = Driver::start(0);
    let f = frame(MAC, 300);
    let got = d.rx(&f);
    assert_eq!((got.len(), got[0].0, got[0].1 & 3), (1, 304, 3));
    assert_eq!(got[0].4[..300], f);
    assert!(d.pin());
    assert_eq!(d.get(ICR), RXT0);
    assert_eq!(d.rx(&frame(MAC, 20))[0].0, 64, "padded, with CRC");
    // Small buffers: 256 bytes; CRC stripped.
    d.set(RCTL, RCTL_EN | BAM | 3 << 16 | 1 << 26);
    let got = d.rx(&f);
    assert_eq!(got.iter().map(|g| (g.0, g.1 & 2)).collect::<Vec<_>>(), [(256, 0), (44, 2)]);
    // Long frames only with LPE, in buffers of 4096 by BSEX.
    let long = frame(MAC, 4000);
    assert!(!d.passes(&long));
    d.set(RCTL, RCTL_EN | BAM | 3 << 16 | 1 << 25 | 1 << 5);
    assert_eq!(d.rx(&long)[0].0, 4004);
    assert_eq!(d.get(0x40ac), 1, "ROC");
    assert_eq!(d.get(0x4074), 4, "GPRC");
    d.dev.set_link(false);
    assert!(!d.passes(&f));
}

#[test]
fn a_full_ring_holds_the_network_back() {
    let mut d = Driver::start(0);
    for n in 0..RX_COUNT - 1 {
        assert!(d.dev.receive(&frame(MAC, 60)), "{n}");
    }
    assert_ne!(d.get(ICR) & 0x10, 0, "few descriptors left");
    assert!(!d.dev.receive(&frame(MAC, 60)));
    assert_eq!(d.cable.take_ready(), 0);
    d.set(RDT, 3);
    assert_eq!(d.cable.take_ready(), 1);
    assert!(d.dev.receive(&frame(MAC, 60)));
}

#[test]
fn filters() {
    let mut d = Driver::start(0);
    let group = [1, 0, 0x5e, 0, 0x12, 0x34];
    let other = [2, 9, 9, 9, 9, 9];
    assert!(d.passes(&frame(MAC, 60)));
    assert!(d.passes(&frame([0xff; 6], 60)));
    assert!(!d.passes(&frame(group, 60)));
    assert!(!d.passes(&frame(other, 60)));
    // The hash of bits 47 to 36: 0x3412 >> 4.
    d.set(MTA + 4 * (0x341 / 32), 1 << (0x341 % 32));
    let got = d.rx(&frame(group, 60));
    assert_eq!(got[0].1 & 0x80, 0x80, "not by its whole address");
    d.set(RA + 8, 0x0909_0902);
    d.set(RA + 12, 0x8000_0909);
    assert!(d.passes(&frame(other, 60)));
    d.set(RCTL, RCTL_EN | 8 | 0x10);
    assert!(d.passes(&frame([2; 6], 60)));
    assert!(d.passes(&frame([3; 6], 60)));
    d.set(RCTL, RCTL_EN);
    assert!(!d.passes(&frame([0xff; 6], 60)));
    // VLANs.
    d.set(VET, 0x8100);
    d.set(RCTL, RCTL_EN | 1 << 18);
    let mut tagged = frame(MAC, 100);
    tagged[12..16].copy_from_slice(&[0x81, 0, 0x60, 0x21]);
    assert!(!d.passes(&tagged));
    d.set(VFTA + 4, 2);
    assert_eq!(d.rx(&tagged)[0].0, 104);
    d.set(CTRL, 1 << 30);
    let got = d.rx(&tagged);
    assert_eq!((got[0].0, got[0].1 & 8, got[0].3), (100, 8, 0x6021));
    assert_eq!(got[0].4[12..14], tagged[16..18]);
}

#[test]
fn received_checksums() {
    let mut d = Driver::start(8);
    let mut good = tcp(64, true);
    let end = good.len();
    offload::finish(&mut good, 14..34, 24).unwrap();
    offload::finish(&mut good, 34..end, 50).unwrap();
    assert_eq!(d.rx(&good)[0].1 & 4, 4, "not looked at");
    d.set(RXCSUM, 0x300);
    let got = d.rx(&good);
    assert_eq!((got[0].1 & 0x64, got[0].2), (0x60, 0));
    let mut bad = good.clone();
    bad[60] ^= 1;
    assert_eq!(d.rx(&bad)[0].2, 0x20);
    bad = good;
    bad[22] ^= 1;
    assert_eq!(d.rx(&bad)[0].2, 0x40);
    assert_eq!(d.rx(&frame(MAC, 100))[0].1 & 4, 4);
}

#[test]
fn interrupts() {
    let mut d = Driver::new();
    d.set(ICS, LSC);
    assert!(!d.pin(), "masked");
    d.set(IMS, LSC);
    assert!(d.pin());
    d.set(IMC, LSC);
    assert!(!d.pin());
    assert_eq!(d.get(ICR), LSC);
    // No more often than each 100 us.
    d.set(IMS, LSC);
    d.set(ITR, 390);
    d.set(ICS, LSC);
    assert!(d.pin());
    d.get(ICR);
    d.set(ICS, LSC);
    assert!(!d.pin());
    assert_eq!(d.dev.deadline(), Some(390 * 256));
    d.clock.set(390 * 256);
    d.dev.tick(390 * 256);
    assert!(d.pin());
    // The receive timer: restarted by each frame, within the absolute limit.
    let mut d = Driver::start(0);
    d.set(RDTR, 100);
    d.set(RADV, 150);
    d.rx(&frame(MAC, 60));
    assert_eq!((d.pin(), d.dev.deadline()), (false, Some(102_400)));
    d.clock.set(90_000);
    d.rx(&frame(MAC, 60));
    assert_eq!(d.dev.deadline(), Some(153_600));
    d.dev.tick(153_600);
    assert!(d.pin());
    assert_eq!(d.get(ICR), RXT0);
    // The timer is the board's: the cable's end tells it.
    let noticed = Arc::new(Mutex::new(None));
    let (card, seen) = (Arc::new(Mutex::new(d.dev)), noticed.clone());
    let socket = Socket { card, notice: Box::new(move |at| *seen.lock() = at) };
    assert!(socket.receive(&frame(MAC, 60)));
    assert_eq!(*noticed.lock(), Some(90_000 + 102_400));
    // The transmit timer, for descriptors that ask for it.
    let mut d = Driver::start(0);
    d.set(TIDV, 10);
    d.tx(&frame(MAC, 60), 0, 9 | 0x80, 0, 0);
    d.go();
    assert_eq!(d.get(ICR), TXQE);
    assert_eq!(d.dev.deadline(), Some(10_240));
    d.dev.tick(10_240);
    assert_eq!(d.get(ICR), TXDW);
}

#[test]
fn ports_reset_and_snapshot() {
    let mut d = Driver::start(0);
    d.dev.write(PORTS, 0, 4, STATUS);
    assert_eq!(d.dev.read(PORTS, 4, 4), 0x283);
    d.dev.write(PORTS, 0, 4, VET);
    d.dev.write(PORTS, 4, 4, 0x1234);
    assert_eq!(d.get(VET), 0x1234);
    d.tx(&frame(MAC, 40), 0, 0, 0, 0);
    d.go();
    let saved = d.dev.save();
    d.set(CTRL, 1 << 26);
    assert_eq!((d.get(VET), d.get(RCTL), d.get(CTRL)), (0, 0, 0x201));
    assert_ne!(d.dev.save(), saved);
    d.dev.load(&saved).unwrap();
    assert_eq!(d.dev.save(), saved);
    // The packet that was begun goes on.
    d.tx(&frame(MAC, 40), 0, 1, 0, 0);
    assert_eq!(d.go()[0].len(), 80);
}

#[test]
fn conforms() {
    let mut d = Driver::new();
    check_device(&mut d.dev, &[0x6000, 64], 30_000);
    // Rings that may be anywhere, driven by the registers alone.
    let mut d = Driver::start(0);
    for (base, length) in [(0xffff_fff0u32, 0xf_ff80), (0, 0xf_ff80), (0x000f_ff80, 0x80)] {
        d.set(TDBAL, base);
        d.set(TDLEN, length);
        d.set(TDH, 3);
        d.set(TDT, 0xffff);
        d.set(RDBAL, base);
        d.set(RDLEN, length);
        d.set(RDT, 5);
        d.dev.receive(&frame(MAC, 1500));
        for _ in 0..200 {
            d.dev.tick(0);
        }
    }
    assert_eq!(d.dev.name(), "e1000");
}
