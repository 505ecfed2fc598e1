//! Transmitting (SDM 3.3 to 3.5): legacy, context and data descriptors, offloads.

use super::regs::{Reg, ctrl, interrupt, stat, tctl};
use super::{Delay, E1000};
use crate::net::offload::{self, Large};
use serde::{Deserialize, Serialize};
use tulk_base::GuestPa;
use tulk_net::MAX_FRAME;

// Command bits of all descriptors (3.3.3.1, 3.3.6.1, 3.3.7.1).
const EOP: u8 = 1 << 0;
const RS: u8 = 1 << 3;
const DEXT: u8 = 1 << 5;
const IDE: u8 = 1 << 7;
/// Legacy and data descriptors.
const VLE: u8 = 1 << 6;
/// Legacy descriptors: insert a checksum.
const IC: u8 = 1 << 2;
/// Context and data descriptors: segmentation.
const TSE: u8 = 1 << 2;
/// Context descriptors: TCP, IPv4.
const TCP: u8 = 1 << 0;
const IPV4: u8 = 1 << 1;
// POPTS of data descriptors.
const IXSM: u8 = 1 << 0;
const TXSM: u8 = 1 << 1;
/// Status: done.
const DD: u8 = 1;

/// Most bytes of a packet that is to be cut; more is no packet.
const LONGEST: usize = 256 << 10;
/// Most descriptors and frames in one go; the rest follows by `tick`.
const BURST: usize = 512;

/// What a context descriptor says (3.3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Context {
    ip_start: u8,
    ip_sum: u8,
    ip_end: u16,
    start: u8,
    sum: u8,
    end: u16,
    command: u8,
    headers: u8,
    mss: u16,
}

/// One for checksums, one for segmentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Contexts {
    plain: Context,
    large: Context,
}

/// A packet while its descriptors come.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Packet {
    data: Vec<u8>,
    started: bool,
    /// Too long, or not in RAM.
    bad: bool,
    large: bool,
    /// POPTS of the first data descriptor.
    options: u8,
    /// A legacy checksum: where from, and where to.
    legacy_sum: Option<(u8, u8)>,
}

impl E1000 {
    /// Works on the ring from TDH to TDT.
    pub(super) fn transmit(&mut self, now: u64) {
        self.state.again = false;
        if !self.is(Reg::TCTL, tctl::EN) || !self.config.bus_master() {
            return;
        }
        let (ring, count) = self.ring(Reg::TDBAL, Reg::TDBAH, Reg::TDLEN);
        let (mut head, tail) = (self.reg(Reg::TDH), self.reg(Reg::TDT));
        if head == tail || head >= count || tail >= count {
            return;
        }
        let (mut causes, mut delayed, mut work) = (0, false, 0);
        while head != tail {
            if work >= BURST {
                self.state.again = true;
                break;
            }
            let at = ring.wrapping_add(16 * u64::from(head));
            let mut raw = [0; 16];
            self.dma.read(at, &mut raw);
            work += 1 + self.descriptor(&raw);
            let command = raw[11];
            if command & RS != 0 {
                self.dma.write(at.wrapping_add(12), &[raw[12] | DD]);
                // The interrupt of a descriptor with IDE waits for the timer, if there is one.
                if command & IDE != 0 && self.reg(Reg::TIDV) != 0 {
                    delayed = true;
                } else {
                    causes |= interrupt::TXDW;
                }
            }
            head = (head + 1) % count;
        }
        self.set(Reg::TDH, head);
        if head == tail {
            causes |= interrupt::TXQE;
        }
        if delayed {
            let (delay, limit) = (self.reg(Reg::TIDV), self.reg(Reg::TADV));
            self.state.transmit_delay.start(now, delay, limit);
        }
        if causes & interrupt::TXDW != 0 {
            self.state.transmit_delay = Delay::default();
        }
        self.raise(causes, now);
    }

    /// One descriptor; the number of frames that left.
    fn descriptor(&mut self, raw: &[u8; 16]) -> usize {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, command, _, options, s0, s1] = *raw;
        let pa = GuestPa(u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]));
        let special = u16::from_le_bytes([s0, s1]);
        let extended = command & DEXT != 0;
        if extended && l2 >> 4 == 0 {
            let context = Context {
                ip_start: a0,
                ip_sum: a1,
                ip_end: u16::from_le_bytes([a2, a3]),
                start: a4,
                sum: a5,
                end: u16::from_le_bytes([a6, a7]),
                command,
                headers: options,
                mss: special,
            };
            match command & TSE != 0 {
                true => {
                    self.state.contexts.large = context;
                    self.count(stat::TSCTC, 1);
                }
                false => self.state.contexts.plain = context,
            }
            return 0;
        }
        let len = match extended {
            true => u32::from_le_bytes([l0, l1, l2 & 15, 0]) as usize,
            false => usize::from(u16::from_le_bytes([l0, l1])),
        };
        let packet = &mut self.state.packet;
        if !packet.started {
            packet.started = true;
            packet.large = extended && command & TSE != 0;
            packet.options = if extended { options } else { 0 };
        }
        if !extended && command & IC != 0 {
            // CSS stands where data descriptors have POPTS, CSO in the third byte of the length.
            packet.legacy_sum = Some((options, l2));
        }
        let old = packet.data.len();
        if packet.bad || old + len > LONGEST {
            packet.bad = true;
        } else {
            packet.data.resize(old + len, 0);
            packet.bad |= !self.dma.read(pa, &mut packet.data[old..]);
        }
        if command & EOP == 0 {
            return 0;
        }
        let mut packet = std::mem::take(&mut self.state.packet);
        let tag = (command & VLE != 0 && self.is(Reg::CTRL, ctrl::VME)).then_some(special);
        let frames = if packet.bad || !self.state.link_up {
            0
        } else if packet.large {
            self.send_large(&packet.data, tag)
        } else {
            self.finish_sums(&mut packet);
            self.send(&mut packet.data, tag)
        };
        packet.data.clear();
        // The storage is kept.
        self.state.packet.data = packet.data;
        frames
    }

    /// The checksums of a packet that is not cut. An end of 0 is the packet's.
    fn finish_sums(&self, packet: &mut Packet) {
        let c = &self.state.contexts.plain;
        let len = packet.data.len();
        let mut insert = |start: u8, end: u16, at: u8| {
            let end = if end == 0 { len } else { usize::from(end) + 1 };
            // What does not fit the packet is left alone, as the hardware does.
            let _ = offload::finish(&mut packet.data, start.into()..end, at.into());
        };
        if packet.options & IXSM != 0 {
            insert(c.ip_start, c.ip_end, c.ip_sum);
        }
        if packet.options & TXSM != 0 {
            insert(c.start, c.end, c.sum);
        }
        if let Some((start, at)) = packet.legacy_sum {
            insert(start, 0, at);
        }
    }

    fn send_large(&mut self, data: &[u8], tag: Option<u16>) -> usize {
        let c = self.state.contexts.large;
        if c.command & TCP == 0 {
            return 0;
        }
        let large = Large {
            ipv6: c.command & IPV4 == 0,
            ip: c.ip_start.into(),
            tcp: c.start.into(),
            headers: c.headers.into(),
            mss: c.mss.into(),
        };
        let mut piece = std::mem::take(&mut self.piece);
        let mut frame = Vec::new();
        let frames = large.cut(data, &mut piece, |p| {
            frame.clear();
            frame.extend_from_slice(p);
            self.send(&mut frame, tag);
        });
        self.piece = piece;
        if frames.is_none() {
            self.count(stat::TSCTFC, 1);
        }
        frames.unwrap_or(0)
    }

    /// Sends a frame, with a tag if it is to have one, padded if it is short.
    fn send(&mut self, frame: &mut Vec<u8>, tag: Option<u16>) -> usize {
        if !(14..=MAX_FRAME - 4).contains(&frame.len()) {
            return 0;
        }
        if let Some(tag) = tag {
            let kind = (self.reg(Reg::VET) as u16).to_be_bytes();
            frame.splice(12..12, kind.into_iter().chain(tag.to_be_bytes()));
        }
        if self.is(Reg::TCTL, tctl::PSP) {
            frame.resize(frame.len().max(60), 0);
        }
        self.network.transmit(frame);
        let (len, bytes) = (frame.len(), frame.len() as u32 + 4);
        for (offset, by) in
            [(stat::GPTC, 1), (stat::TPT, 1), (stat::GOTC, bytes), (stat::TOT, bytes)]
        {
            self.count(offset, by);
        }
        self.count_size(stat::PTC, len);
        if frame[..6] == [0xff; 6] {
            self.count(stat::BPTC, 1);
        } else if frame[0] & 1 != 0 {
            self.count(stat::MPTC, 1);
        }
        1
    }
}
