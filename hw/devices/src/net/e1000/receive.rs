//! Receiving (SDM 3.2): filters, the ring, the descriptors.

use super::regs::{self, Reg, ctrl, interrupt, rctl, rxcsum, stat};
use super::{Delay, E1000};
use crate::net::offload;
use std::sync::atomic::{Ordering, fence};

// Status and errors of a receive descriptor (3.2.3.1, 3.2.3.2).
const DD: u8 = 1 << 0;
const EOP: u8 = 1 << 1;
const IXSM: u8 = 1 << 2;
const VP: u8 = 1 << 3;
const TCPCS: u8 = 1 << 5;
const IPCS: u8 = 1 << 6;
const PIF: u8 = 1 << 7;
const TCPE: u8 = 1 << 5;
const IPE: u8 = 1 << 6;

/// Longest frames without CRC: plain with a VLAN tag, and with RCTL.LPE.
const PLAIN: usize = 1518;
const LONG: usize = 16384 - 4;

/// How a frame passed the filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passed {
    /// By a complete address.
    Exact,
    /// By the multicast table's hash.
    Hash,
    /// All such frames pass.
    Promiscuous,
}

impl E1000 {
    /// The address filters (3.2.1).
    fn filter(&self, to: &[u8; 6]) -> Option<Passed> {
        let has = |bit| self.is(Reg::RCTL, bit);
        if *to == [0xff; 6] && has(rctl::BAM) {
            return Some(Passed::Exact);
        }
        for &[low, high] in self.state.ra.as_chunks::<2>().0 {
            let [l0, l1, l2, l3] = low.to_le_bytes();
            let [h0, h1, ..] = high.to_le_bytes();
            if high >> 31 != 0 && *to == [l0, l1, l2, l3, h0, h1] {
                return Some(Passed::Exact);
            }
        }
        if to[0] & 1 == 0 {
            return has(rctl::UPE).then_some(Passed::Promiscuous);
        }
        if has(rctl::MPE) {
            return Some(Passed::Promiscuous);
        }
        // MO chooses 12 of the last 16 bits (13.5.1).
        let shift = [4, 3, 2, 0][(self.reg(Reg::RCTL) >> 12 & 3) as usize];
        let hash = (u16::from_le_bytes([to[4], to[5]]) >> shift & 0xfff) as usize;
        (self.state.mta[hash / 32] >> (hash % 32) & 1 != 0).then_some(Passed::Hash)
    }

    /// The VLAN of a tagged frame.
    fn tag(&self, frame: &[u8]) -> Option<u16> {
        let &[k0, k1, t0, t1] = frame.get(12..16)?.first_chunk()?;
        let kind = u16::from_be_bytes([k0, k1]);
        (u32::from(kind) == self.reg(Reg::VET)).then_some(u16::from_be_bytes([t0, t1]))
    }

    fn buffer_size(&self) -> usize {
        let size = self.reg(Reg::RCTL) >> 16 & 3;
        match (self.is(Reg::RCTL, rctl::BSEX), size) {
            (true, 1..) => 32768 >> size,
            _ => 2048 >> size,
        }
    }

    pub(super) fn receive_frame(&mut self, frame: &[u8]) -> bool {
        let Some(to) = frame.first_chunk::<6>() else { return true };
        if !self.is(Reg::RCTL, rctl::EN) || !self.state.link_up || !self.config.bus_master() {
            return true;
        }
        let longest = if self.is(Reg::RCTL, rctl::LPE) { LONG } else { PLAIN };
        if frame.len() > longest {
            self.count(stat::ROC, 1);
            return true;
        }
        let Some(passed) = self.filter(to) else { return true };
        let tag = self.tag(frame);
        if let Some(tag) = tag.filter(|_| self.is(Reg::RCTL, rctl::VFE)) {
            let id = usize::from(tag & 0xfff);
            if self.state.vfta[id / 32] >> (id % 32) & 1 == 0 {
                return true;
            }
        }
        // What the guest sees: without the tag if it is stripped, padded, with a CRC.
        let stripped = tag.filter(|_| self.is(Reg::CTRL, ctrl::VME));
        let mut data = frame.to_vec();
        if stripped.is_some() {
            data.drain(12..16);
        }
        data.resize(data.len().max(60), 0);
        let sums = self.checksums(&data);
        let len = data.len();
        if !self.is(Reg::RCTL, rctl::SECRC) {
            data.extend([0; 4]);
        }
        let size = self.buffer_size();
        let needed = data.len().div_ceil(size) as u32;
        let (ring, count) = self.ring(Reg::RDBAL, Reg::RDBAH, Reg::RDLEN);
        let (mut head, tail) = (self.reg(Reg::RDH), self.reg(Reg::RDT));
        if head >= count || tail >= count {
            return true;
        }
        let free = (tail + count - head) % count;
        if needed >= count {
            self.count(stat::MPC, 1);
            return true;
        }
        if needed > free {
            // The network is our FIFO: it keeps the frame until there are descriptors.
            self.state.starved = true;
            self.count(stat::RNBC, 1);
            return false;
        }
        let (mut status, errors) = sums;
        if passed != Passed::Exact {
            status |= PIF;
        }
        if stripped.is_some() {
            status |= VP;
        }
        let parts: Vec<&[u8]> = data.chunks(size).collect();
        for (n, part) in parts.iter().enumerate() {
            let at = ring.wrapping_add(16 * u64::from(head));
            let mut address = [0; 8];
            self.dma.read(at, &mut address);
            let buffer = u64::from_le_bytes(address);
            if buffer != 0 {
                self.dma.write(tulk_base::GuestPa(buffer), part);
            }
            let mut rest = [0; 8];
            rest[..2].copy_from_slice(&(part.len() as u16).to_le_bytes());
            rest[4] = DD | status;
            if n + 1 == parts.len() {
                rest[4] |= EOP;
                rest[5] = errors;
                rest[6..].copy_from_slice(&stripped.unwrap_or(0).to_le_bytes());
            }
            fence(Ordering::Release);
            self.dma.write(at.wrapping_add(8), &rest);
            head = (head + 1) % count;
        }
        self.set(Reg::RDH, head);
        self.count_received(to, len);
        self.signal_received(free - needed, count);
        true
    }

    /// Status and errors from the checksums (3.2.9).
    fn checksums(&self, data: &[u8]) -> (u8, u8) {
        let wanted = self.reg(Reg::RXCSUM);
        let layout = offload::layout(data);
        let (mut status, mut errors) = (0, 0);
        if wanted & (rxcsum::IPOFLD | rxcsum::TUOFLD) == 0 || layout.is_none() {
            return (IXSM, 0);
        }
        let Some(layout) = layout else { return (IXSM, 0) };
        if wanted & rxcsum::IPOFLD != 0
            && let Some(right) = offload::ip_sum_right(data, &layout)
        {
            status |= IPCS;
            errors |= if right { 0 } else { IPE };
        }
        if wanted & rxcsum::TUOFLD != 0
            && let Some(right) = offload::transport_sum_right(data, &layout)
        {
            status |= TCPCS;
            errors |= if right { 0 } else { TCPE };
        }
        if status == 0 { (IXSM, 0) } else { (status, errors) }
    }

    fn count_received(&mut self, to: &[u8; 6], len: usize) {
        let bytes = len as u32 + 4;
        for (offset, by) in
            [(stat::GPRC, 1), (stat::TPR, 1), (stat::GORC, bytes), (stat::TOR, bytes)]
        {
            self.count(offset, by);
        }
        self.count_size(stat::PRC, len);
        if *to == [0xff; 6] {
            self.count(stat::BPRC, 1);
        } else if to[0] & 1 != 0 {
            self.count(stat::MPRC, 1);
        }
    }

    /// Interrupts behind a frame: few free descriptors at once, the frame itself when its timer says so.
    fn signal_received(&mut self, free: u32, count: u32) {
        let now = self.clock.now();
        let threshold = count >> (1 + (self.reg(Reg::RCTL) >> 8 & 3).min(2));
        let mut causes = if free <= threshold { interrupt::RXDMT0 } else { 0 };
        match self.reg(Reg::RDTR) {
            0 => {
                self.state.receive_delay = Delay::default();
                causes |= interrupt::RXT0;
            }
            delay => self.state.receive_delay.start(now, delay, self.reg(Reg::RADV)),
        }
        self.raise(causes, now);
    }
}

const _: () = assert!(regs::RA.end - regs::RA.start == 128);
