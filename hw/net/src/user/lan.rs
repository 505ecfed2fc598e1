//! The network's side towards the guest: Ethernet, ARP (RFC 826), and IPv4 packets out ([`Lan`]).
//!
//! The network is one station with several addresses (gateway, DNS, and everything outside).

use super::UserOptions;
use crate::port::ToCard;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    UdpPacket, UdpRepr,
};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// IP packet size on the wire.
pub(super) const MTU: usize = 1500;
const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
/// Guests whose hardware addresses are remembered.
const NEIGHBOURS: usize = 256;
/// Packets that wait for one answer to an ARP request.
const UNRESOLVED: usize = 32;
const HOPS: u8 = 64;

pub(super) struct Lan {
    pub options: UserOptions,
    pub card: ToCard,
    neighbours: HashMap<Ipv4Addr, EthernetAddress>,
    /// IP packets for guests whose hardware addresses are not known, since when.
    unresolved: Vec<(Ipv4Addr, Instant, Vec<u8>)>,
    mac: EthernetAddress,
    frame: Vec<u8>,
    ident: u16,
}

/// Locally administered, and the address: so that it is the same in every run.
fn station(address: Ipv4Addr) -> EthernetAddress {
    let [a, b, c, d] = address.octets();
    EthernetAddress([0x52, 0x55, a, b, c, d])
}

impl Lan {
    pub fn new(options: UserOptions, card: ToCard) -> Lan {
        Lan {
            mac: station(options.gateway),
            options,
            card,
            neighbours: HashMap::new(),
            unresolved: Vec::new(),
            frame: vec![0; crate::MAX_FRAME],
            ident: 0,
        }
    }

    /// Remembers who has an address.
    pub fn learn(&mut self, address: Ipv4Addr, mac: EthernetAddress) {
        if !self.options.is_guest(address) || !mac.is_unicast() {
            return;
        }
        if self.neighbours.len() >= NEIGHBOURS && !self.neighbours.contains_key(&address) {
            self.neighbours.clear();
        }
        if self.neighbours.insert(address, mac) != Some(mac) {
            let ready = self.unresolved.extract_if(.., |(guest, _, _)| *guest == address);
            for (_, _, packet) in ready.collect::<Vec<_>>() {
                self.send_ip(&packet);
            }
        }
    }

    pub fn arp(&mut self, payload: &[u8]) {
        let Ok(packet) = ArpPacket::new_checked(payload) else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        self.learn(source_protocol_addr, source_hardware_addr);
        let ours = [self.options.gateway, self.options.dns].contains(&target_protocol_addr);
        if operation == ArpOperation::Request && ours {
            let reply = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: self.mac,
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            };
            self.send_arp(source_hardware_addr, &reply);
        }
    }

    fn send_arp(&mut self, to: EthernetAddress, repr: &ArpRepr) {
        debug_assert_eq!(repr.buffer_len(), 28);
        let mut payload = [0; 28];
        repr.emit(&mut ArpPacket::new_unchecked(&mut payload[..]));
        self.send_frame(to, EthernetProtocol::Arp, |frame| {
            frame[..28].copy_from_slice(&payload);
            28
        });
    }

    fn send_frame(
        &mut self,
        to: EthernetAddress,
        ethertype: EthernetProtocol,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let header = EthernetRepr { src_addr: self.mac, dst_addr: to, ethertype };
        header.emit(&mut EthernetFrame::new_unchecked(&mut self.frame[..]));
        let length = fill(&mut self.frame[ETHERNET..]);
        self.card.send(&self.frame[..ETHERNET + length]);
    }

    /// An IP packet, without fragmenting it, to the guest in its header.
    pub fn send_ip(&mut self, packet: &[u8]) {
        let Some(guest) = packet.get(16..20).and_then(|a| <[u8; 4]>::try_from(a).ok()) else {
            return;
        };
        let guest = Ipv4Addr::from(guest);
        if let Some(&mac) = self.neighbours.get(&guest) {
            let length = packet.len().min(self.frame.len() - ETHERNET);
            return self.send_frame(mac, EthernetProtocol::Ipv4, |frame| {
                frame[..length].copy_from_slice(&packet[..length]);
                length
            });
        }
        let now = Instant::now();
        self.unresolved.retain(|(_, since, _)| now - *since < Duration::from_secs(10));
        if self.unresolved.len() < UNRESOLVED {
            self.unresolved.push((guest, now, packet.to_vec()));
        }
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: self.mac,
            source_protocol_addr: self.options.gateway,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: guest,
        };
        self.send_arp(EthernetAddress::BROADCAST, &request);
    }

    /// Writes an IP packet of `length` bytes straight into the frame: the fast way. The guest is known, or the packet
    /// takes the slow way.
    pub fn emit_ip<R>(
        &mut self,
        guest: Ipv4Addr,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let length = length.min(self.frame.len() - ETHERNET);
        let result = fill(&mut self.frame[ETHERNET..ETHERNET + length]);
        match self.neighbours.get(&guest) {
            Some(&mac) => self.send_frame(mac, EthernetProtocol::Ipv4, |_| length),
            None => {
                let packet = self.frame[ETHERNET..ETHERNET + length].to_vec();
                self.send_ip(&packet);
            }
        }
        result
    }

    /// A UDP datagram, in as many fragments as it needs.
    pub fn send_udp(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let Some(datagram) = udp_datagram(from, to, payload) else { return };
        self.send_fragments(*from.ip(), *to.ip(), IpProtocol::Udp, &datagram);
    }

    /// A UDP datagram to a hardware address: to a guest without an IP address (RFC 2131, 4.1).
    pub fn send_udp_to(
        &mut self,
        mac: EthernetAddress,
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: &[u8],
    ) {
        let Some(datagram) = udp_datagram(from, to, payload) else { return };
        let repr = ip_header(*from.ip(), *to.ip(), IpProtocol::Udp, datagram.len());
        let packet = ip_packet(&repr, &datagram, 0, 0, false);
        self.send_frame(mac, EthernetProtocol::Ipv4, |frame| {
            frame[..packet.len()].copy_from_slice(&packet);
            packet.len()
        });
    }

    /// RFC 791, 3.2: all fragments but the last are multiples of 8 bytes.
    pub fn send_fragments(
        &mut self,
        from: Ipv4Addr,
        to: Ipv4Addr,
        protocol: IpProtocol,
        payload: &[u8],
    ) {
        const MOST: usize = (MTU - IP) & !7;
        self.ident = self.ident.wrapping_add(1);
        let mut offset = 0;
        loop {
            let part = &payload[offset..];
            let more = part.len() > MTU - IP;
            let part = if more { &part[..MOST] } else { part };
            let repr = ip_header(from, to, protocol, part.len());
            self.send_ip(&ip_packet(&repr, part, self.ident, offset, more));
            offset += part.len();
            if !more {
                return;
            }
        }
    }

    /// Tells the sender of an IP packet that it does not arrive (RFC 792).
    pub fn unreachable(&mut self, reason: Icmpv4DstUnreachable, original: &[u8]) {
        let Ok(packet) = Ipv4Packet::new_checked(original) else { return };
        let (source, target) = (packet.src_addr(), packet.dst_addr());
        // Not about errors, broadcasts and later fragments (RFC 1122, 3.2.2).
        if packet.next_header() == IpProtocol::Icmp
            || packet.frag_offset() != 0
            || !self.options.is_guest(source)
            || target.is_broadcast()
            || target.is_multicast()
        {
            return;
        }
        let Ok(header) = Ipv4Repr::parse(&packet, &ChecksumCapabilities::ignored()) else { return };
        let data = packet.payload();
        let data = &data[..data.len().min(8)];
        let repr = Icmpv4Repr::DstUnreachable { reason, header, data };
        let mut message = vec![0; repr.buffer_len()];
        let mut icmp = Icmpv4Packet::new_unchecked(&mut message[..]);
        repr.emit(&mut icmp, &ChecksumCapabilities::default());
        self.send_fragments(self.options.gateway, source, IpProtocol::Icmp, &message);
    }
}

fn udp_datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > usize::from(u16::MAX) - IP - UDP {
        return None;
    }
    let mut datagram = vec![0; UDP + payload.len()];
    let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut datagram[..]),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    Some(datagram)
}

fn ip_header(
    src_addr: Ipv4Addr,
    dst_addr: Ipv4Addr,
    next_header: IpProtocol,
    payload_len: usize,
) -> Ipv4Repr {
    Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOPS }
}

fn ip_packet(repr: &Ipv4Repr, payload: &[u8], ident: u16, offset: usize, more: bool) -> Vec<u8> {
    let mut bytes = vec![0; IP + payload.len()];
    bytes[IP..].copy_from_slice(payload);
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    repr.emit(&mut packet, &ChecksumCapabilities::ignored());
    if more || offset != 0 {
        packet.set_dont_frag(false);
    }
    packet.set_ident(ident);
    packet.set_frag_offset(offset as u16);
    packet.set_more_frags(more);
    packet.fill_checksum();
    bytes
}
