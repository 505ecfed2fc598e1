//! UDP and ICMP echo from the guest to anywhere, and UDP from forwarded ports of the host: flows with a time-out.
//!
//! Each flow has a connected socket of its own: only the peer that the guest has written to can answer, and a port that
//! nobody listens on comes back as an ICMP error. Echo goes through the kernel's unprivileged ICMP sockets (icmp(7),
//! `net.ipv4.ping_group_range`); where they are not allowed, the guest's echo requests get no answer.

use super::lan::Lan;
use super::poll::{Kind, Poller, Token};
use super::route::{DNS_PORT, Route};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Flows at most; one more replaces the longest idle one.
const MOST: usize = 512;
const IDLE: Duration = Duration::from_secs(240);
/// Questions and answers are over sooner.
const IDLE_DNS: Duration = Duration::from_secs(10);
/// Datagrams of a flow that are taken at once.
const BURST: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    guest: SocketAddrV4,
    /// As the guest sees it. For an echo the guest's identifier is the port of `guest`, and this port is 0.
    remote: SocketAddrV4,
    echo: bool,
}

enum Socket {
    Own(OwnedFd),
    /// The port that the host's peer has written to.
    Forwarded {
        listener: usize,
        peer: SocketAddr,
    },
}

struct Flow {
    key: Key,
    socket: Socket,
    /// The last packet to the outside, for error messages: IP header and 8 bytes.
    last: Vec<u8>,
    /// Which of the host's resolvers, and whether it has answered the last question.
    resolver: usize,
    answered: bool,
    active: Instant,
}

struct Listener {
    socket: UdpSocket,
    guest: SocketAddrV4,
}

pub(super) struct Udp {
    flows: HashMap<u64, Flow>,
    keys: HashMap<Key, u64>,
    listeners: Vec<Listener>,
    next: u64,
    swept: Instant,
    most: usize,
    buffer: Vec<u8>,
}

impl Udp {
    pub fn new() -> Udp {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Udp {
            flows: HashMap::new(),
            keys: HashMap::new(),
            listeners: Vec::new(),
            next: 0,
            swept: Instant::now(),
            most: MOST.min(files.map_or(usize::MAX, |files| files as usize / 8)),
            buffer: vec![0; 65536],
        }
    }

    pub fn count(&self) -> usize {
        self.flows.len()
    }

    pub fn listen(
        &mut self,
        socket: UdpSocket,
        guest: SocketAddrV4,
        poller: &Poller,
    ) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        poller
            .level(&socket, Token { kind: Kind::UdpListener, id: self.listeners.len() as u64 })?;
        self.listeners.push(Listener { socket, guest });
        Ok(())
    }

    /// A datagram of a guest, to somewhere that is not the network's own business. `packet` is the IP packet.
    #[expect(clippy::too_many_arguments)]
    pub fn send(
        &mut self,
        guest: SocketAddrV4,
        remote: SocketAddrV4,
        payload: &[u8],
        packet: &[u8],
        lan: &mut Lan,
        poller: &Poller,
        route: &Route,
    ) {
        let key = Key { guest, remote, echo: false };
        let dns = *remote.ip() == lan.options.dns;
        if dns
            && let Some(&id) = self.keys.get(&key)
            && self.flows.get(&id).is_some_and(|flow| !flow.answered)
        {
            // Asked again: the next resolver may know.
            let resolver = self.remove(id).map_or(0, |flow| flow.resolver + 1);
            return self.ask(key, resolver, payload, packet, lan, poller, route);
        }
        if !self.keys.contains_key(&key) {
            if dns {
                return self.ask(key, 0, payload, packet, lan, poller, route);
            }
            let Some(address) = route.outside(&lan.options, *remote.ip()) else {
                return lan.unreachable(Icmpv4DstUnreachable::HostProhibited, packet);
            };
            if let Err(error) = self.open(key, SocketAddr::new(address, remote.port()), poller) {
                return refuse(lan, error, packet);
            }
        }
        self.pass(key, payload, packet, lan);
    }

    #[expect(clippy::too_many_arguments)]
    fn ask(
        &mut self,
        key: Key,
        resolver: usize,
        payload: &[u8],
        packet: &[u8],
        lan: &mut Lan,
        poller: &Poller,
        route: &Route,
    ) {
        let address = (key.remote.port() == DNS_PORT && !lan.options.restrict)
            .then(|| route.resolver(resolver))
            .flatten();
        let Some(address) = address else {
            return lan.unreachable(Icmpv4DstUnreachable::PortUnreachable, packet);
        };
        match self.open(key, address, poller) {
            Ok(id) => {
                if let Some(flow) = self.flows.get_mut(&id) {
                    flow.resolver = resolver;
                }
                self.pass(key, payload, packet, lan);
            }
            Err(error) => refuse(lan, error, packet),
        }
    }

    /// An echo request of a guest to the outside. `message` is the ICMP message.
    #[expect(clippy::too_many_arguments)]
    pub fn echo(
        &mut self,
        guest: Ipv4Addr,
        remote: Ipv4Addr,
        ident: u16,
        message: &[u8],
        packet: &[u8],
        lan: &mut Lan,
        poller: &Poller,
        route: &Route,
    ) {
        let key = Key {
            guest: SocketAddrV4::new(guest, ident),
            remote: SocketAddrV4::new(remote, 0),
            echo: true,
        };
        if !self.keys.contains_key(&key) {
            let Some(address) = route.outside(&lan.options, remote) else {
                return lan.unreachable(Icmpv4DstUnreachable::HostProhibited, packet);
            };
            if let Err(error) = self.open(key, SocketAddr::new(address, 0), poller) {
                tracing::debug!("echo request to {remote}: {error}");
                return;
            }
        }
        self.pass(key, message, packet, lan);
    }

    fn open(&mut self, key: Key, address: SocketAddr, poller: &Poller) -> Result<u64, Errno> {
        if self.flows.len() >= self.most {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.active).map(|(id, _)| *id);
            oldest.map(|id| self.remove(id));
        }
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let protocol = key.echo.then_some(ipproto::ICMP);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, protocol)?;
        rustix::net::connect(&socket, &address)?;
        let kind = if key.echo { Kind::Icmp } else { Kind::Udp };
        let id = self.add(key, Socket::Own(socket));
        if let Some(Flow { socket: Socket::Own(socket), .. }) = self.flows.get(&id) {
            poller
                .level(socket, Token { kind, id })
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::NOMEM))?;
        }
        Ok(id)
    }

    fn add(&mut self, key: Key, socket: Socket) -> u64 {
        self.next += 1;
        self.keys.insert(key, self.next);
        let flow = Flow {
            key,
            socket,
            last: Vec::new(),
            resolver: 0,
            answered: true,
            active: Instant::now(),
        };
        self.flows.insert(self.next, flow);
        self.next
    }

    fn remove(&mut self, id: u64) -> Option<Flow> {
        let flow = self.flows.remove(&id)?;
        self.keys.remove(&flow.key);
        Some(flow)
    }

    fn pass(&mut self, key: Key, payload: &[u8], packet: &[u8], lan: &mut Lan) {
        let Some(flow) = self.keys.get(&key).and_then(|id| self.flows.get_mut(id)) else { return };
        flow.active = Instant::now();
        flow.answered = false;
        flow.last.clear();
        flow.last.extend_from_slice(&packet[..packet.len().min(68)]);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let result = match &flow.socket {
            Socket::Own(socket) => match rustix::net::send(socket, payload, flags) {
                // The last datagram was refused; this one is sent again.
                Err(Errno::CONNREFUSED) => rustix::net::send(socket, payload, flags),
                other => other,
            },
            Socket::Forwarded { listener, peer } => match self.listeners.get(*listener) {
                Some(listener) => rustix::net::sendto(&listener.socket, payload, flags, peer),
                None => return,
            },
        };
        match result {
            // A full queue loses datagrams, as networks do.
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => {}
            Err(error) => refuse(lan, error, packet),
        }
    }

    /// A flow's socket has something.
    pub fn event(&mut self, id: u64, lan: &mut Lan) {
        for _ in 0..BURST {
            let Some(flow) = self.flows.get_mut(&id) else { return };
            let Socket::Own(socket) = &flow.socket else { return };
            match rustix::net::recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    flow.active = Instant::now();
                    flow.answered = true;
                    let key = flow.key;
                    let payload = &mut self.buffer[..count];
                    if key.echo {
                        answer(lan, key, payload);
                    } else {
                        lan.send_udp(key.remote, key.guest, payload);
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => {
                    let last = std::mem::take(&mut flow.last);
                    if !flow.answered {
                        refuse(lan, error, &last);
                    }
                    return;
                }
            }
        }
    }

    /// A forwarded port has something.
    pub fn forwarded(&mut self, listener: u64, lan: &mut Lan) {
        let listener = listener as usize;
        for _ in 0..BURST {
            let Some(Listener { socket, guest }) = self.listeners.get(listener) else { return };
            let guest = *guest;
            let (count, peer) = match socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error for something sent before.
                Err(_) => continue,
            };
            let Some(id) = self.flow_of(listener, peer, guest, lan) else { continue };
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            flow.active = Instant::now();
            lan.send_udp(flow.key.remote, guest, &self.buffer[..count]);
        }
    }

    fn flow_of(
        &mut self,
        listener: usize,
        peer: SocketAddr,
        guest: SocketAddrV4,
        lan: &Lan,
    ) -> Option<u64> {
        let known = self.flows.iter().find(|(_, flow)| match &flow.socket {
            Socket::Forwarded { listener: l, peer: p } => *l == listener && *p == peer,
            Socket::Own(_) => false,
        });
        if let Some((&id, _)) = known {
            return Some(id);
        }
        let SocketAddr::V4(v4) = peer else { return None };
        let outside = !v4.ip().is_loopback() && !lan.options.contains(*v4.ip());
        let address = if outside { *v4.ip() } else { lan.options.gateway };
        let mut ports = std::iter::once(v4.port()).chain(49152..=65535);
        let key = ports.find_map(|port| {
            let key = Key { guest, remote: SocketAddrV4::new(address, port), echo: false };
            (!self.keys.contains_key(&key)).then_some(key)
        })?;
        if self.flows.len() >= self.most {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.active).map(|(id, _)| *id);
            oldest.map(|id| self.remove(id));
        }
        Some(self.add(key, Socket::Forwarded { listener, peer }))
    }

    /// Ends flows whose time is over. Called now and then; at least every second while there are flows.
    pub fn sweep(&mut self) {
        let now = Instant::now();
        if now - self.swept < Duration::from_secs(1) {
            return;
        }
        self.swept = now;
        let over = self.flows.iter().filter(|(_, flow)| {
            let short = flow.key.remote.port() == DNS_PORT || flow.key.echo;
            now - flow.active > if short { IDLE_DNS } else { IDLE }
        });
        for id in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
    }
}

/// Hands an echo reply over, with the identifier that the guest has given.
fn answer(lan: &mut Lan, key: Key, message: &mut [u8]) {
    let length = message.len();
    let Ok(mut packet) = Icmpv4Packet::new_checked(&mut message[..]) else { return };
    if length < 8 || packet.msg_type() != smoltcp::wire::Icmpv4Message::EchoReply {
        return;
    }
    packet.set_echo_ident(key.guest.port());
    packet.fill_checksum();
    lan.send_fragments(*key.remote.ip(), *key.guest.ip(), IpProtocol::Icmp, message);
}

/// The network itself answers an echo request.
pub(super) fn echo_reply(
    lan: &mut Lan,
    from: Ipv4Addr,
    to: Ipv4Addr,
    ident: u16,
    seq_no: u16,
    data: &[u8],
) {
    let repr = Icmpv4Repr::EchoReply { ident, seq_no, data };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&mut Icmpv4Packet::new_unchecked(&mut message[..]), &ChecksumCapabilities::default());
    lan.send_fragments(from, to, IpProtocol::Icmp, &message);
}

/// Tells the guest why its datagram does not arrive.
fn refuse(lan: &mut Lan, error: Errno, packet: &[u8]) {
    let reason = match error {
        Errno::CONNREFUSED => Icmpv4DstUnreachable::PortUnreachable,
        Errno::HOSTUNREACH => Icmpv4DstUnreachable::HostUnreachable,
        Errno::NETUNREACH => Icmpv4DstUnreachable::NetUnreachable,
        Errno::ACCESS | Errno::PERM => Icmpv4DstUnreachable::HostProhibited,
        _ => return,
    };
    lan.unreachable(reason, packet);
}
