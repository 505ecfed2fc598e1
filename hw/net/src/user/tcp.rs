//! TCP from the guest to anywhere, and from forwarded ports of the host to the guest.
//!
//! Each connection of the guest ends here, in a protocol stack of its own that knows only the one address the guest
//! talks to, so that a segment costs the same however many connections there are. What the guest sends is spliced to a
//! socket of the host and back. The stack appears when the host's connection is there: a refused one is refused to the
//! guest, and a flood of SYNs costs no buffers. Buffers that are full on one side close the window or leave data in the
//! kernel on the other.
//!
//! Host sockets are registered edge-triggered; `readable` and `writable` remember the edges.

use super::lan::{Lan, MTU};
use super::poll::{Kind, Poller, Token};
use super::route::Route;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::wire::{
    HardwareAddress, Icmpv4DstUnreachable, IpCidr, IpProtocol, Ipv4Packet, TcpControl, TcpPacket,
    TcpRepr, TcpSeqNumber,
};
use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Connections at most; the host's limit of open files may set it lower.
const MOST: usize = 4096;
/// Connections with large buffers; more of them have small ones.
const LARGE: usize = 256;
const LARGE_BUFFER: usize = 256 << 10;
const SMALL_BUFFER: usize = 32 << 10;
/// A connection that is idle for longer makes room for a new one.
const IDLE: Duration = Duration::from_secs(60);
/// No timer is closer than this.
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    guest: SocketAddrV4,
    /// As the guest sees it.
    remote: SocketAddrV4,
}

/// A guest's segment, checked.
struct Segment<'a> {
    key: Key,
    packet: &'a [u8],
    seq: TcpSeqNumber,
    ack: Option<TcpSeqNumber>,
    syn: bool,
    rst: bool,
    length: usize,
}

impl<'a> Segment<'a> {
    fn parse(packet: &'a [u8]) -> Option<Segment<'a>> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
        let key = Key {
            guest: SocketAddrV4::new(ip.src_addr(), tcp.src_port()),
            remote: SocketAddrV4::new(ip.dst_addr(), tcp.dst_port()),
        };
        if key.guest.port() == 0 || key.remote.port() == 0 {
            return None;
        }
        Some(Segment {
            key,
            packet,
            seq: tcp.seq_number(),
            ack: tcp.ack().then(|| tcp.ack_number()),
            syn: tcp.syn(),
            rst: tcp.rst(),
            length: tcp.segment_len(),
        })
    }
}

/// A connection's own protocol stack.
struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

struct Connection {
    key: Key,
    host: TcpStream,
    /// `None` while the host connects; `syn` is what the guest has sent then.
    stack: Option<Box<Stack>>,
    syn: Vec<u8>,
    readable: bool,
    writable: bool,
    /// The host sends no more.
    host_ended: bool,
    /// The guest sends no more, and the host knows.
    guest_ended: bool,
    /// Something happened; it is on the list of [`Tcp::run`].
    due: bool,
    timer: Option<Instant>,
    active: Instant,
}

struct Listener {
    socket: TcpListener,
    guest: SocketAddrV4,
}

pub(super) struct Tcp {
    connections: HashMap<u64, Connection>,
    keys: HashMap<Key, u64>,
    listeners: Vec<Listener>,
    next: u64,
    due: Vec<u64>,
    timers: BTreeSet<(Instant, u64)>,
    start: Instant,
    most: usize,
}

impl Tcp {
    pub fn new() -> Tcp {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Tcp {
            connections: HashMap::new(),
            keys: HashMap::new(),
            listeners: Vec::new(),
            next: 0,
            due: Vec::new(),
            timers: BTreeSet::new(),
            start: Instant::now(),
            most: MOST.min(files.map_or(usize::MAX, |files| files as usize / 2)),
        }
    }

    pub fn count(&self) -> usize {
        self.connections.len()
    }

    pub fn listen(
        &mut self,
        socket: TcpListener,
        guest: SocketAddrV4,
        poller: &Poller,
    ) -> std::io::Result<()> {
        socket.set_nonblocking(true)?;
        poller
            .level(&socket, Token { kind: Kind::TcpListener, id: self.listeners.len() as u64 })?;
        self.listeners.push(Listener { socket, guest });
        Ok(())
    }

    /// An IP packet with TCP of a guest.
    pub fn receive(&mut self, packet: &[u8], lan: &mut Lan, poller: &Poller, route: &Route) {
        let Some(segment) = Segment::parse(packet) else { return };
        if let Some(&id) = self.keys.get(&segment.key) {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            connection.active = Instant::now();
            if let Some(stack) = &mut connection.stack {
                stack.input(segment.key, packet, lan, self.start);
                self.mark(id);
            } else if segment.rst {
                self.remove(id);
            } else if segment.syn {
                // The guest asks again, with other options perhaps.
                connection.syn = packet.to_vec();
            }
            return;
        }
        if segment.rst {
            return;
        }
        if !segment.syn || segment.ack.is_some() {
            return reset(lan, &segment);
        }
        let Some(address) = route.stream(&lan.options, segment.key.remote) else {
            return lan.unreachable(Icmpv4DstUnreachable::HostProhibited, packet);
        };
        if !self.make_room() {
            return reset(lan, &segment);
        }
        match self.connect(&segment, address, poller) {
            Ok(()) => {}
            Err(error) => refuse(lan, &segment, error.kind()),
        }
    }

    fn connect(
        &mut self,
        segment: &Segment<'_>,
        address: SocketAddr,
        poller: &Poller,
    ) -> std::io::Result<()> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        self.add(segment.key, socket.into(), None, segment.packet.to_vec(), poller)?;
        Ok(())
    }

    fn add(
        &mut self,
        key: Key,
        host: TcpStream,
        stack: Option<Box<Stack>>,
        syn: Vec<u8>,
        poller: &Poller,
    ) -> std::io::Result<u64> {
        // Small writes are the guest's own decision.
        host.set_nodelay(true)?;
        self.next += 1;
        let id = self.next;
        poller.edge(&host, Token { kind: Kind::Tcp, id })?;
        self.keys.insert(key, id);
        self.connections.insert(
            id,
            Connection {
                key,
                host,
                stack,
                syn,
                readable: false,
                writable: false,
                host_ended: false,
                guest_ended: false,
                due: false,
                timer: None,
                active: Instant::now(),
            },
        );
        Ok(id)
    }

    /// True: there is room for one more connection, made by the longest idle one if need be.
    fn make_room(&mut self) -> bool {
        if self.connections.len() < self.most {
            return true;
        }
        let oldest = self.connections.iter().min_by_key(|(_, c)| c.active);
        match oldest {
            Some((&id, connection)) if connection.active.elapsed() > IDLE => {
                self.remove(id);
                true
            }
            _ => false,
        }
    }

    /// A connection to a forwarded port.
    pub fn accept(&mut self, listener: u64, lan: &mut Lan, poller: &Poller) {
        // A few at a time; the event comes again.
        for _ in 0..16 {
            let Some(Listener { socket, guest }) = self.listeners.get(listener as usize) else {
                return;
            };
            let guest = *guest;
            let (host, peer) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                        tracing::warn!("accepting a forwarded connection: {error}");
                        // Too many open files: the listener stays readable.
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    return;
                }
            };
            if !self.make_room() || host.set_nonblocking(true).is_err() {
                continue;
            }
            let Some(remote) = self.name_for(peer, guest, lan) else { continue };
            let key = Key { guest, remote };
            let large = self.connections.len() < LARGE;
            let stack = Stack::outgoing(key, large, lan, self.start);
            match self.add(key, host, stack, Vec::new(), poller) {
                Ok(id) => self.mark(id),
                Err(error) => tracing::debug!("a forwarded connection: {error}"),
            }
        }
    }

    /// The address under which the guest sees a peer of the host: its own, or the gateway's for the host itself.
    fn name_for(&self, peer: SocketAddr, guest: SocketAddrV4, lan: &Lan) -> Option<SocketAddrV4> {
        let address = match peer.ip() {
            std::net::IpAddr::V4(ip) if !ip.is_loopback() && !lan.options.contains(ip) => ip,
            _ => lan.options.gateway,
        };
        let free = |port: &u16| {
            *port != 0
                && !self
                    .keys
                    .contains_key(&Key { guest, remote: SocketAddrV4::new(address, *port) })
        };
        let port = std::iter::once(peer.port()).chain(49152..=65535).find(free)?;
        Some(SocketAddrV4::new(address, port))
    }

    /// Something happened at a host socket.
    pub fn event(&mut self, id: u64, readable: bool, writable: bool, lan: &mut Lan) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.readable |= readable;
        connection.writable |= writable;
        if connection.stack.is_none() {
            if !readable && !writable {
                return;
            }
            let syn = std::mem::take(&mut connection.syn);
            let key = connection.key;
            if let Err(error) = sockopt::socket_error(&connection.host).unwrap_or_else(Err) {
                self.remove(id);
                if let Some(segment) = Segment::parse(&syn) {
                    refuse(lan, &segment, std::io::Error::from(error).kind());
                }
                return;
            }
            let large = self.connections.len() < LARGE;
            let stack = Stack::incoming(key, large, &syn, lan, self.start);
            let Some(connection) = self.connections.get_mut(&id) else { return };
            connection.stack = stack;
            if connection.stack.is_none() {
                return self.remove(id);
            }
        }
        self.mark(id);
    }

    fn mark(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.due
        {
            connection.due = true;
            self.due.push(id);
        }
    }

    /// Moves data for all connections with which something has happened or whose time has come.
    pub fn run(&mut self, lan: &mut Lan) {
        let now = Instant::now();
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.timer = None;
            }
            self.mark(id);
        }
        if lan.card.blocked() {
            return;
        }
        for id in std::mem::take(&mut self.due) {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.due = false;
            let (done, timer) = connection.pump(lan, self.start, now);
            if done {
                self.remove(id);
                continue;
            }
            if let Some(old) = connection.timer.take() {
                self.timers.remove(&(old, id));
            }
            connection.timer = timer;
            if let Some(at) = timer {
                self.timers.insert((at, id));
            }
            if lan.card.blocked() {
                // It may have more to send when the card has room.
                self.mark(id);
            }
        }
    }

    /// When [`Tcp::run`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.keys.remove(&connection.key);
        if let Some(at) = connection.timer {
            self.timers.remove(&(at, id));
        }
        if !(connection.host_ended && connection.guest_ended) {
            // The peer is to see a reset, not an orderly end.
            let _ = sockopt::set_socket_linger(&connection.host, Some(Duration::ZERO));
        }
    }
}

impl Connection {
    /// Moves what can be moved. True: the connection is over; and when to come back.
    fn pump(&mut self, lan: &mut Lan, start: Instant, now: Instant) -> (bool, Option<Instant>) {
        let Some(stack) = &mut self.stack else { return (false, None) };
        let socket = stack.sockets.get_mut::<Socket>(stack.handle);
        let mut broken = false;
        // Guest to host.
        while self.writable {
            let host = &mut self.host;
            match socket.recv(|data| match host.write(data) {
                Ok(count) => (count, Ok(data.len())),
                Err(error) => (0, Err(error)),
            }) {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(_)) => {
                    broken = true;
                    break;
                }
                Err(RecvError::Finished) => {
                    if !self.guest_ended {
                        self.guest_ended = true;
                        // A peer that has gone shows at the next read.
                        let _ = self.host.shutdown(Shutdown::Write);
                    }
                    break;
                }
                Err(RecvError::InvalidState) => break,
            }
        }
        // Host to guest.
        while self.readable && !self.host_ended && socket.may_send() {
            let host = &mut self.host;
            match socket.send(|room| {
                if room.is_empty() {
                    return (0, Ok(None));
                }
                match host.read(room) {
                    Ok(count) => (count, Ok(Some(count))),
                    Err(error) => (0, Err(error)),
                }
            }) {
                Ok(Ok(None)) | Err(_) => break,
                Ok(Ok(Some(0))) => {
                    self.host_ended = true;
                    socket.close();
                }
                Ok(Ok(Some(_))) => self.active = now,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(_)) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken {
            socket.abort();
        }
        let next = stack.output(self.key, lan, start);
        let socket = stack.sockets.get_mut::<Socket>(stack.handle);
        let over = match socket.state() {
            // What the guest has sent goes to the host first.
            State::TimeWait => socket.recv_queue() == 0 && self.guest_ended,
            // The reset that says so may wait for the card.
            State::Closed => !lan.card.blocked() && (broken || socket.recv_queue() == 0),
            _ => false,
        };
        (over, next.map(|at| at.max(now + TICK)))
    }
}

impl Stack {
    fn new(key: Key, large: bool, lan: &mut Lan, start: Instant) -> Option<Stack> {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).ok()?;
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from_ne_bytes(seed);
        let mut wire = Wire { lan, guest: *key.guest.ip(), input: None };
        let mut interface = Interface::new(config, &mut wire, instant(start));
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new((*key.remote.ip()).into(), 32));
        });
        let size = if large { LARGE_BUFFER } else { SMALL_BUFFER };
        let buffer = || SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Some(Stack { interface, sockets, handle })
    }

    /// For a connection that the guest began with `syn`.
    fn incoming(
        key: Key,
        large: bool,
        syn: &[u8],
        lan: &mut Lan,
        start: Instant,
    ) -> Option<Box<Stack>> {
        let mut stack = Stack::new(key, large, lan, start)?;
        stack.sockets.get_mut::<Socket>(stack.handle).listen(key.remote).ok()?;
        stack.input(key, syn, lan, start);
        // A SYN with a wrong checksum changes nothing.
        let taken = stack.sockets.get::<Socket>(stack.handle).state() != State::Listen;
        taken.then(|| Box::new(stack))
    }

    /// For a connection to the guest.
    fn outgoing(key: Key, large: bool, lan: &mut Lan, start: Instant) -> Option<Box<Stack>> {
        let mut stack = Stack::new(key, large, lan, start)?;
        let socket = stack.sockets.get_mut::<Socket>(stack.handle);
        socket.connect(stack.interface.context(), key.guest, key.remote).ok()?;
        Some(Box::new(stack))
    }

    fn input(&mut self, key: Key, packet: &[u8], lan: &mut Lan, start: Instant) {
        let mut wire = Wire { lan, guest: *key.guest.ip(), input: Some(packet) };
        self.interface.poll_ingress_single(instant(start), &mut wire, &mut self.sockets);
    }

    /// Sends what there is to send. When to come back.
    fn output(&mut self, key: Key, lan: &mut Lan, start: Instant) -> Option<Instant> {
        let now = instant(start);
        let mut wire = Wire { lan, guest: *key.guest.ip(), input: None };
        while !wire.lan.card.blocked()
            && self.interface.poll_egress(now, &mut wire, &mut self.sockets)
                == PollResult::SocketStateChanged
        {}
        let at = self.interface.poll_at(now, &self.sockets)?;
        Some(start + Duration::from_micros(at.total_micros().max(0) as u64))
    }
}

/// The time of protocol stacks counts from `start`.
fn instant(start: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(start.elapsed().as_micros() as i64)
}

/// What a stack is connected to: one packet in, packets out to the guest.
struct Wire<'a> {
    lan: &'a mut Lan,
    guest: Ipv4Addr,
    input: Option<&'a [u8]>,
}

struct Incoming<'a>(&'a [u8]);
struct Outgoing<'a>(&'a mut Lan, Ipv4Addr);

impl Device for Wire<'_> {
    type RxToken<'a>
        = Incoming<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.input.take()?;
        Some((Incoming(packet), Outgoing(self.lan, self.guest)))
    }
    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        (!self.lan.card.blocked()).then_some(Outgoing(self.lan, self.guest))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.0.emit_ip(self.1, length, f)
    }
}

/// Refuses a connection as the host's refusal says.
fn refuse(lan: &mut Lan, segment: &Segment<'_>, why: ErrorKind) {
    match why {
        ErrorKind::HostUnreachable => {
            lan.unreachable(Icmpv4DstUnreachable::HostUnreachable, segment.packet);
        }
        ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
            lan.unreachable(Icmpv4DstUnreachable::NetUnreachable, segment.packet);
        }
        ErrorKind::PermissionDenied => {
            lan.unreachable(Icmpv4DstUnreachable::HostProhibited, segment.packet);
        }
        // The guest asks again itself.
        ErrorKind::TimedOut => {}
        _ => reset(lan, segment),
    }
}

/// RFC 9293, 3.5.2: the reset that answers a segment to no connection.
fn reset(lan: &mut Lan, segment: &Segment<'_>) {
    let Key { guest, remote } = segment.key;
    let repr = TcpRepr {
        src_port: remote.port(),
        dst_port: guest.port(),
        control: TcpControl::Rst,
        seq_number: segment.ack.unwrap_or_default(),
        ack_number: segment.ack.is_none().then(|| segment.seq + segment.length),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut message[..]),
        &(*remote.ip()).into(),
        &(*guest.ip()).into(),
        &ChecksumCapabilities::default(),
    );
    lan.send_fragments(*remote.ip(), *guest.ip(), IpProtocol::Tcp, &message);
}
