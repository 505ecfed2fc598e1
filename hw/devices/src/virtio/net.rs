//! Virtio network card (Virtual I/O Device 1.2, section 5.1): one pair of queues and the control queue.
//!
//! Checksums and TCP segments that the driver leaves to the device are finished here, before the frame goes to the
//! [`Network`]; the checksums of incoming frames are verified so that the driver need not. Not modelled: several queue
//! pairs, receive side scaling, large receive offload, UDP segmentation, MTU, announcements.

use super::queue::{Broken, Chain};
use super::{BURST, Rings, VirtioDevice, VirtioPci};
use crate::net::Nic;
use crate::net::offload::{self, Large};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_net::{MAX_FRAME, Network};

/// Feature bits (5.1.3).
pub mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MAC: u64 = 1 << 5;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const CTRL_RX: u64 = 1 << 18;
    pub const CTRL_VLAN: u64 = 1 << 19;
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
}

/// The queues.
pub const RX: u16 = 0;
pub const TX: u16 = 1;
pub const CTRL: u16 = 2;

// struct virtio_net_hdr (5.1.6)
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;
const HEADER: usize = 12;

/// Most addresses of each kind in the filter; with more, all pass.
const MAX_ADDRESSES: usize = 64;
/// Longest control command that is looked at.
const MAX_COMMAND: usize = 16 << 10;

type Mac = [u8; 6];

/// Which frames the driver wants (5.1.6.5).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Filter {
    promiscuous: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    unicast: Vec<Mac>,
    multicast: Vec<Mac>,
    /// The driver gave more addresses than we keep.
    unicast_overflow: bool,
    multicast_overflow: bool,
    /// A bit per VLAN.
    vlans: Vec<u64>,
}

impl Filter {
    fn new() -> Filter {
        Filter {
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            multicast: Vec::new(),
            unicast_overflow: false,
            multicast_overflow: false,
            vlans: vec![0; 64],
        }
    }

    fn passes(&self, frame: &[u8], own: &Mac, vlans: bool) -> bool {
        let (Some(to), Some(kind)) = (frame.first_chunk::<6>(), frame.get(12..14)) else {
            return false;
        };
        if vlans && kind == [0x81, 0x00] {
            let Some(&[high, low]) = frame.get(14..16).and_then(|t| t.first_chunk()) else {
                return false;
            };
            let id = usize::from(u16::from_be_bytes([high, low]) & 0xfff);
            if self.vlans.get(id / 64).is_none_or(|bits| bits >> (id % 64) & 1 == 0) {
                return false;
            }
        }
        if self.promiscuous {
            return true;
        }
        if *to == [0xff; 6] {
            !self.no_broadcast
        } else if to[0] & 1 != 0 {
            !self.no_multicast
                && (self.all_multicast || self.multicast_overflow || self.multicast.contains(to))
        } else {
            !self.no_unicast
                && (self.all_unicast
                    || self.unicast_overflow
                    || to == own
                    || self.unicast.contains(to))
        }
    }
}

/// The saved state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The address in use; the driver may change it.
    mac: Mac,
    filter: Filter,
    link_up: bool,
    /// A frame found no room; the network waits to be told.
    starved: bool,
}

/// The device type.
pub struct Net {
    network: Arc<dyn Network>,
    /// The card's own address.
    mac: Mac,
    state: State,
    frame: Vec<u8>,
    piece: Vec<u8>,
}

impl Net {
    pub fn new(network: Arc<dyn Network>, mac: [u8; 6]) -> Net {
        let state = State { mac, filter: Filter::new(), link_up: true, starved: false };
        Net { network, mac, state, frame: Vec::new(), piece: Vec::new() }
    }

    fn header_len(rings: &Rings) -> usize {
        match rings.has(super::feature::VERSION_1) || rings.has(feature::MRG_RXBUF) {
            true => HEADER,
            false => 10,
        }
    }

    /// Plugs or pulls the cable.
    pub fn set_link(&mut self, up: bool, rings: &mut Rings) {
        if up != self.state.link_up {
            self.state.link_up = up;
            rings.config_changed();
        }
    }

    /// A frame from the network (see [`Nic::receive`]).
    pub fn receive(&mut self, frame: &[u8], rings: &mut Rings) -> bool {
        let filtered = rings.has(feature::CTRL_RX)
            && !self.state.filter.passes(frame, &self.state.mac, rings.has(feature::CTRL_VLAN));
        if !rings.live || !self.state.link_up || filtered || frame.len() > MAX_FRAME {
            return true;
        }
        let header_len = Net::header_len(rings);
        let total = header_len + frame.len();
        let mergeable = rings.has(feature::MRG_RXBUF);
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        while room < total {
            let Some(chain) = rings.pop(RX) else {
                rings.unpop(RX, chains.len());
                // A frame that not even the whole ring holds would wait for ever.
                self.state.starved = chains.len() < usize::from(rings.size(RX));
                return !self.state.starved;
            };
            let size = chain.writable_len();
            if size == 0 || chains.is_empty() && size < header_len {
                rings.stop(RX, Broken("receive buffer without room for the header"));
                return true;
            }
            room += size;
            chains.push(chain);
            if !mergeable && room < total {
                rings.unpop(RX, 1);
                return true;
            }
        }
        let mut header = [0; HEADER];
        if rings.has(feature::GUEST_CSUM)
            && offload::layout(frame).and_then(|l| offload::transport_sum_right(frame, &l))
                == Some(true)
        {
            header[0] = DATA_VALID;
        }
        header[10..].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        let mut done = Vec::with_capacity(chains.len());
        let mut at = 0;
        for chain in &chains {
            let skip = if at == 0 { header_len } else { 0 };
            // Buffers outside RAM swallow what is written.
            chain.write(&*rings.dma, 0, &header[..skip]);
            let n = (chain.writable_len() - skip).min(frame.len() - at);
            chain.write(&*rings.dma, skip, &frame[at..at + n]);
            at += n;
            done.push((chain.head, (skip + n) as u32));
        }
        rings.push(RX, &done);
        true
    }

    /// Sends what waits. Large segments count as the frames they become.
    fn transmit(&mut self, rings: &mut Rings) {
        let mut work = 0;
        let mut done = Vec::new();
        while let Some(chain) = rings.pop(TX) {
            work += 1 + self.transmit_one(&chain, rings);
            done.push((chain.head, 0));
            if work >= BURST {
                rings.again(TX);
                break;
            }
        }
        if !done.is_empty() {
            rings.push(TX, &done);
        }
    }

    /// Returns the number of frames it became. Frames that make no sense are dropped.
    fn transmit_one(&mut self, chain: &Chain, rings: &mut Rings) -> usize {
        let header_len = Net::header_len(rings);
        let Some(len) = chain.readable_len().checked_sub(header_len) else {
            rings.stop(TX, Broken("frame without header"));
            return 0;
        };
        let mut header = [0; HEADER];
        self.frame.resize(len.min(MAX_FRAME), 0);
        if !(14..=MAX_FRAME).contains(&len)
            || !chain.read(&*rings.dma, 0, &mut header[..header_len])
            || !chain.read(&*rings.dma, header_len, &mut self.frame)
            || !self.state.link_up
        {
            return 0;
        }
        let [flags, gso, _, _, m0, m1, s0, s1, o0, o1, ..] = header;
        let start = usize::from(u16::from_le_bytes([s0, s1]));
        let sum_at = start + usize::from(u16::from_le_bytes([o0, o1]));
        let needs_sum = flags & NEEDS_CSUM != 0 && rings.has(feature::CSUM);
        let ipv6 = match gso & !GSO_ECN {
            GSO_TCPV4 if rings.has(feature::HOST_TSO4) => false,
            GSO_TCPV6 if rings.has(feature::HOST_TSO6) => true,
            GSO_NONE => {
                if needs_sum && offload::finish(&mut self.frame, start..len, sum_at).is_none() {
                    return 0;
                }
                self.network.transmit(&self.frame);
                return 1;
            }
            _ => return 0,
        };
        let (Some(at), Some(offset)) = (offload::layout(&self.frame), self.frame.get(start + 12))
        else {
            return 0;
        };
        if !needs_sum || at.ipv6 != ipv6 {
            return 0;
        }
        let large = Large {
            ipv6,
            ip: at.ip,
            tcp: start,
            headers: start + usize::from(offset >> 4) * 4,
            mss: usize::from(u16::from_le_bytes([m0, m1])),
        };
        let network = &*self.network;
        large.cut(&self.frame, &mut self.piece, |frame| network.transmit(frame)).unwrap_or(0)
    }

    fn control(&mut self, rings: &mut Rings) {
        for _ in 0..BURST {
            let Some(chain) = rings.pop(CTRL) else { return };
            if chain.writable_len() == 0 || chain.readable_len() < 2 {
                rings.stop(CTRL, Broken("control command without class or status"));
                return;
            }
            let mut command = vec![0; chain.readable_len().min(MAX_COMMAND)];
            let ok = chain.readable_len() <= MAX_COMMAND
                && chain.read(&*rings.dma, 0, &mut command)
                && self.command(&command, rings).is_some();
            chain.write(&*rings.dma, chain.writable_len() - 1, &[u8::from(!ok)]);
            rings.push(CTRL, &[(chain.head, 1)]);
        }
        rings.again(CTRL);
    }

    /// One control command (5.1.6.5). `None`: refused.
    fn command(&mut self, command: &[u8], rings: &mut Rings) -> Option<()> {
        let (&[class, command], data) = command.split_first_chunk()?;
        let filter = &mut self.state.filter;
        match (class, command) {
            (0, 0..=5) if rings.has(feature::CTRL_RX) => {
                let on = *data.first()? != 0;
                *[
                    &mut filter.promiscuous,
                    &mut filter.all_multicast,
                    &mut filter.all_unicast,
                    &mut filter.no_multicast,
                    &mut filter.no_unicast,
                    &mut filter.no_broadcast,
                ][usize::from(command)] = on;
            }
            (1, 0) if rings.has(feature::CTRL_RX) => {
                let (unicast, rest) = addresses(data)?;
                let (multicast, rest) = addresses(rest)?;
                if !rest.is_empty() {
                    return None;
                }
                filter.unicast_overflow = unicast.len() > MAX_ADDRESSES;
                filter.multicast_overflow = multicast.len() > MAX_ADDRESSES;
                filter.unicast = unicast.iter().take(MAX_ADDRESSES).copied().collect();
                filter.multicast = multicast.iter().take(MAX_ADDRESSES).copied().collect();
            }
            (1, 1) if rings.has(feature::CTRL_MAC_ADDR) => {
                self.state.mac = data.try_into().ok()?;
                rings.config_changed();
            }
            (2, 0 | 1) if rings.has(feature::CTRL_VLAN) => {
                let id = usize::from(u16::from_le_bytes(data.try_into().ok()?));
                let word = filter.vlans.get_mut(id / 64)?;
                let bit = 1 << (id % 64);
                *word = if command == 0 { *word | bit } else { *word & !bit };
            }
            _ => return None,
        }
        Some(())
    }
}

/// A table of addresses: its number of entries, the entries.
fn addresses(data: &[u8]) -> Option<(&[Mac], &[u8])> {
    let (count, rest) = data.split_first_chunk()?;
    let bytes = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(6)?;
    let (table, rest) = rest.split_at_checked(bytes)?;
    Some((table.as_chunks().0, rest))
}

impl VirtioDevice for Net {
    const NAME: &'static str = "virtio-net";
    const ID: u16 = 1;
    const CLASS: u32 = 0x02_00_00;
    type State = State;

    fn queue_sizes(&self) -> Vec<u16> {
        vec![256, 256, 64]
    }

    fn features(&self) -> u64 {
        use feature::*;
        CSUM | GUEST_CSUM
            | MAC
            | HOST_TSO4
            | HOST_TSO6
            | MRG_RXBUF
            | STATUS
            | CTRL_VQ
            | CTRL_RX
            | CTRL_VLAN
            | CTRL_RX_EXTRA
            | CTRL_MAC_ADDR
    }

    /// struct virtio_net_config (5.1.4) as far as its features are offered.
    fn config(&self, _: u64) -> Vec<u8> {
        let mut config = self.state.mac.to_vec();
        config.extend(u16::from(self.state.link_up).to_le_bytes());
        config
    }

    /// Drivers before 1.0 set the address here.
    fn write_config(&mut self, offset: usize, data: &[u8], rings: &mut Rings) {
        if rings.has(super::feature::VERSION_1) || rings.has(feature::CTRL_MAC_ADDR) {
            return;
        }
        if let Some(place) = self.state.mac.get_mut(offset..) {
            place.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        }
    }

    fn notify(&mut self, queue: u16, rings: &mut Rings) {
        match queue {
            TX => self.transmit(rings),
            CTRL => self.control(rings),
            _ => {
                if std::mem::take(&mut self.state.starved) {
                    self.network.ready();
                }
            }
        }
    }

    fn reset(&mut self) {
        // The network may hold a frame back: what comes now is dropped.
        if std::mem::take(&mut self.state.starved) {
            self.network.ready();
        }
        self.state.mac = self.mac;
        self.state.filter = Filter::new();
    }

    fn state(&self) -> State {
        self.state.clone()
    }

    fn check_state(&self, state: &State) -> Result<(), String> {
        let f = &state.filter;
        if f.vlans.len() != 64 || f.unicast.len().max(f.multicast.len()) > MAX_ADDRESSES {
            return Err("filter tables of the wrong size".into());
        }
        Ok(())
    }

    fn set_state(&mut self, state: State) {
        self.state = state;
    }
}

impl Nic for VirtioPci<Net> {
    fn receive(&mut self, frame: &[u8]) -> bool {
        self.with(|net, rings| net.receive(frame, rings))
    }
    fn set_link(&mut self, up: bool) {
        self.with(|net, rings| net.set_link(up, rings));
    }
}
