//! A network of its own for the guest, behind address translation: `-netdev user`.
//!
//! The guest sees an Ethernet with a gateway that is also DHCP, TFTP and echo server, and a DNS server. What it sends
//! further is carried by ordinary sockets of the tulk process, so no privileges are needed, and the guest reaches what
//! that process reaches: the outside, the host's own services at the gateway's address, the host's resolvers at the DNS
//! server's. With `restrict` it reaches nothing. From outside only forwarded ports lead in.
//!
//! Not there: IPv6, other protocols than TCP, UDP and ICMP echo, multicast.
//!
//! One thread does everything ([`Engine`]), woken by the card or by a host socket. [`lan`] is the side towards the guest,
//! [`route`] says where addresses are, [`tcp`] and [`udp`] carry data. All state is bounded: connections, flows, leases,
//! transfers, fragments, and bytes that wait.

mod dhcp;
mod fragments;
mod lan;
mod options;
mod poll;
mod route;
mod tcp;
#[cfg(test)]
mod tests;
mod tftp;
mod udp;

pub use options::{Forward, UserOptions};

use crate::port::{Frames, Port, ToCard, Worker};
use crate::{Error, FrameSink, Network};
use dhcp::Dhcp;
use fragments::Fragments;
use lan::Lan;
use poll::{Event, Kind, Poller, Token};
use route::Route;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable, Icmpv4Packet,
    Icmpv4Repr, IpProtocol, Ipv4Packet, UdpPacket,
};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tcp::Tcp;
use tftp::Tftp;
use udp::Udp;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// The network.
pub struct UserNetwork {
    port: Arc<Port>,
    counts: Arc<Counts>,
    options: UserOptions,
    forwards: Vec<(Forward, SocketAddr)>,
    _worker: Worker,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    flows: AtomicUsize,
}

impl UserNetwork {
    /// Binds the forwarded ports and starts the network's thread.
    ///
    /// # Errors
    /// A port is in use, the TFTP directory is missing.
    pub fn open(options: &UserOptions) -> Result<UserNetwork, Error> {
        Self::with_resolvers(options, "/etc/resolv.conf".into())
    }

    fn with_resolvers(options: &UserOptions, resolv_conf: PathBuf) -> Result<UserNetwork, Error> {
        let failed = |e: std::io::Error| Error::io("-netdev user", e);
        let port = Arc::new(Port::new().map_err(failed)?);
        let poller = Poller::new().map_err(failed)?;
        poller.level(port.bell(), Token { kind: Kind::Bell, id: 0 }).map_err(failed)?;
        let (mut tcp, mut udp) = (Tcp::new(), Udp::new());
        let mut forwards = Vec::new();
        for forward in &options.forwards {
            let Forward { udp: is_udp, host, guest } = forward;
            let bound = if *is_udp {
                UdpSocket::bind(host).and_then(|socket| {
                    let bound = socket.local_addr()?;
                    udp.listen(socket, *guest, &poller).map(|()| bound)
                })
            } else {
                TcpListener::bind(host).and_then(|socket| {
                    let bound = socket.local_addr()?;
                    tcp.listen(socket, *guest, &poller).map(|()| bound)
                })
            };
            let kind = if *is_udp { "udp" } else { "tcp" };
            let bound = bound.map_err(|e| Error::io(format!("hostfwd={kind}:{host}"), e))?;
            forwards.push((forward.clone(), bound));
        }
        let tftp = Tftp::new(options.tftp.as_deref()).map_err(|e| {
            Error::io(format!("tftp={}", options.tftp.clone().unwrap_or_default().display()), e)
        })?;
        let counts = Arc::<Counts>::default();
        let engine = Engine {
            lan: Lan::new(options.clone(), ToCard::new(port.clone())),
            port: port.clone(),
            poller,
            route: Route::new(resolv_conf),
            tcp,
            udp,
            tftp,
            dhcp: Dhcp::default(),
            fragments: Fragments::default(),
            counts: counts.clone(),
        };
        let _worker =
            Worker::start("user network", port.clone(), move || engine.run()).map_err(failed)?;
        Ok(UserNetwork { port, counts, options: options.clone(), forwards, _worker })
    }

    /// Where a forwarded port is on the host, in the order of the options: for port 0.
    pub fn forwarded(&self, index: usize) -> Option<SocketAddr> {
        self.forwards.get(index).map(|(_, bound)| *bound)
    }
}

impl Network for UserNetwork {
    fn transmit(&self, frame: &[u8]) {
        self.port.transmit(frame);
    }
    fn connect(&self, card: Arc<dyn FrameSink>) {
        self.port.connect(card);
    }
    fn ready(&self) {
        self.port.ring();
    }
    fn describe(&self) -> String {
        use std::fmt::Write;
        let UserOptions { network, prefix, restrict, .. } = &self.options;
        let mut text = format!(
            "user,net={network}/{prefix},restrict={}: {} TCP connections, {} other flows, {} frames lost",
            if *restrict { "on" } else { "off" },
            self.counts.connections.load(Ordering::Relaxed),
            self.counts.flows.load(Ordering::Relaxed),
            self.port.lost.load(Ordering::Relaxed),
        );
        for (forward, bound) in &self.forwards {
            let kind = if forward.udp { "udp" } else { "tcp" };
            // A String takes all text.
            let _ = write!(text, "\n  hostfwd {kind} {bound} -> {}", forward.guest);
        }
        text
    }
}

/// The network's thread.
struct Engine {
    lan: Lan,
    port: Arc<Port>,
    poller: Poller,
    route: Route,
    tcp: Tcp,
    udp: Udp,
    tftp: Tftp,
    dhcp: Dhcp,
    fragments: Fragments,
    counts: Arc<Counts>,
}

impl Engine {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut frames = Frames::default();
        while !self.port.ended() {
            if let Err(error) = self.poller.wait(&mut events, self.patience()) {
                tracing::error!("the user network ends: {error}");
                return;
            }
            for event in events.iter().filter_map(Event::from) {
                let Token { kind, id } = event.token;
                match kind {
                    Kind::Bell => {
                        self.port.silence();
                        self.lan.card.retry();
                        self.port.take(&mut frames);
                        self.route.refresh();
                        for frame in frames.iter() {
                            self.frame(frame);
                        }
                        frames.clear();
                    }
                    Kind::Tcp => self.tcp.event(id, event.readable, event.writable, &mut self.lan),
                    Kind::TcpListener => self.tcp.accept(id, &mut self.lan, &self.poller),
                    Kind::Udp | Kind::Icmp => self.udp.event(id, &mut self.lan),
                    Kind::UdpListener => self.udp.forwarded(id, &mut self.lan),
                }
            }
            self.tcp.run(&mut self.lan);
            self.udp.sweep();
            for (from, to, payload) in self.tftp.retry() {
                self.lan.send_udp(from, to, &payload);
            }
            self.counts.connections.store(self.tcp.count(), Ordering::Relaxed);
            self.counts.flows.store(self.udp.count(), Ordering::Relaxed);
        }
    }

    /// How long nothing needs to be done.
    fn patience(&self) -> Option<Duration> {
        let sweep = (self.udp.count() > 0).then(|| Instant::now() + Duration::from_secs(2));
        // What waits for a full card goes on when the card says so.
        let tcp = self.tcp.deadline().filter(|_| !self.lan.card.blocked());
        let next = [tcp, self.tftp.deadline(), sweep].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// A frame from the card.
    fn frame(&mut self, frame: &[u8]) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else { return };
        match frame.ethertype() {
            EthernetProtocol::Arp => self.lan.arp(frame.payload()),
            EthernetProtocol::Ipv4 => self.packet(frame.src_addr(), frame.payload()),
            _ => {}
        }
    }

    fn packet(&mut self, mac: EthernetAddress, bytes: &[u8]) {
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return };
        if packet.version() != 4 || !packet.verify_checksum() {
            return;
        }
        // Without what Ethernet has padded.
        let bytes = &bytes[..usize::from(packet.total_len())];
        if packet.more_frags() || packet.frag_offset() != 0 {
            if let Some(whole) = self.fragments.add(bytes) {
                self.whole(mac, &whole);
            }
        } else {
            self.whole(mac, bytes);
        }
    }

    /// An IP packet that is not a fragment (any more).
    fn whole(&mut self, mac: EthernetAddress, bytes: &[u8]) {
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return };
        let (source, target) = (packet.src_addr(), packet.dst_addr());
        let known = self.lan.options.is_guest(source);
        if known {
            self.lan.learn(source, mac);
        }
        match packet.next_header() {
            IpProtocol::Udp => self.datagram(source, target, bytes, packet.payload()),
            _ if !known => {}
            IpProtocol::Tcp => {
                if !target.is_broadcast() && !target.is_multicast() {
                    self.tcp.receive(bytes, &mut self.lan, &self.poller, &self.route);
                }
            }
            IpProtocol::Icmp => self.icmp(source, target, bytes, packet.payload()),
            _ => self.lan.unreachable(Icmpv4DstUnreachable::ProtoUnreachable, bytes),
        }
    }

    fn datagram(&mut self, source: Ipv4Addr, target: Ipv4Addr, packet: &[u8], payload: &[u8]) {
        let Ok(udp) = UdpPacket::new_checked(payload) else { return };
        if !udp.verify_checksum(&source.into(), &target.into()) {
            return;
        }
        let (from, to) =
            (SocketAddrV4::new(source, udp.src_port()), SocketAddrV4::new(target, udp.dst_port()));
        let gateway = self.lan.options.gateway;
        if to.port() == dhcp::SERVER_PORT && (target.is_broadcast() || target == gateway) {
            return self.dhcp(udp.payload());
        }
        let broadcast = target.is_broadcast() || target == self.lan.options.broadcast();
        if !self.lan.options.is_guest(source) || broadcast || target.is_multicast() {
            return;
        }
        if to == SocketAddrV4::new(gateway, tftp::PORT) && self.tftp.enabled() {
            if let Some((from, to, payload)) = self.tftp.receive(from, to, udp.payload()) {
                self.lan.send_udp(from, to, &payload);
            }
            return;
        }
        if from.port() == 0 || to.port() == 0 {
            return;
        }
        let (poller, route) = (&self.poller, &self.route);
        self.udp.send(from, to, udp.payload(), packet, &mut self.lan, poller, route);
    }

    fn dhcp(&mut self, payload: &[u8]) {
        let Some(reply) = self.dhcp.receive(payload, &self.lan.options) else { return };
        let from = SocketAddrV4::new(self.lan.options.gateway, dhcp::SERVER_PORT);
        let to = SocketAddrV4::new(reply.to.unwrap_or(Ipv4Addr::BROADCAST), dhcp::CLIENT_PORT);
        let mac = if reply.broadcast { [0xff; 6] } else { reply.mac };
        self.lan.send_udp_to(EthernetAddress(mac), from, to, &reply.bytes);
    }

    fn icmp(&mut self, source: Ipv4Addr, target: Ipv4Addr, packet: &[u8], message: &[u8]) {
        let Ok(icmp) = Icmpv4Packet::new_checked(message) else { return };
        let Ok(Icmpv4Repr::EchoRequest { ident, seq_no, data }) =
            Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default())
        else {
            return;
        };
        let UserOptions { gateway, dns, .. } = self.lan.options;
        if target == gateway || target == dns {
            udp::echo_reply(&mut self.lan, target, source, ident, seq_no, data);
        } else {
            let (poller, route) = (&self.poller, &self.route);
            self.udp.echo(source, target, ident, message, packet, &mut self.lan, poller, route);
        }
    }
}
