//! The network as a guest sees it: a machine with a protocol stack of its own on the other side of the card.

use super::*;
use crate::NetdevOptions;
use parking_lot::Mutex;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::io::{Read, Write};

const PATIENCE: Duration = Duration::from_secs(30);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// A card: frames wait in it up to a number.
#[derive(Default)]
struct Card(Mutex<VecDeque<Vec<u8>>>);

impl FrameSink for Card {
    fn receive(&self, frame: &[u8]) -> bool {
        let mut queue = self.0.lock();
        let room = queue.len() < 256;
        if room {
            queue.push_back(frame.to_vec());
        }
        room
    }
}

struct Plug {
    network: Arc<UserNetwork>,
    card: Arc<Card>,
}

struct In(Vec<u8>);
struct Out<'a>(&'a UserNetwork);

impl Device for Plug {
    type RxToken<'a> = In;
    type TxToken<'a> = Out<'a>;
    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(In, Out<'_>)> {
        let (frame, left) = {
            let mut queue = self.card.0.lock();
            (queue.pop_front()?, queue.len())
        };
        if left == 128 {
            self.network.ready();
        }
        Some((In(frame), Out(&self.network)))
    }
    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Out<'_>> {
        Some(Out(&self.network))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.transmit(&frame);
        result
    }
}

/// A guest with TCP.
struct Guest {
    plug: Plug,
    interface: Interface,
    sockets: SocketSet<'static>,
    port: u16,
}

fn network(options: &str) -> (Arc<UserNetwork>, Arc<Card>) {
    let NetdevOptions::User(options) = NetdevOptions::parse(options).unwrap() else { panic!() };
    let network = Arc::new(UserNetwork::open(&options).unwrap());
    let card = Arc::new(Card::default());
    network.connect(card.clone());
    (network, card)
}

impl Guest {
    fn new(options: &str) -> Guest {
        let (network, card) = network(options);
        let mut plug = Plug { network, card };
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        let mut interface = Interface::new(config, &mut plug, smoltcp::time::Instant::now());
        interface.update_ip_addrs(|list| list.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Guest { plug, interface, sockets: SocketSet::new(Vec::new()), port: 40000 }
    }

    fn socket(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 512 << 10]);
        self.sockets.add(Socket::new(buffer(), buffer()))
    }

    fn connect(&mut self, address: Ipv4Addr, port: u16) -> SocketHandle {
        let handle = self.socket();
        self.port += 1;
        let to = (IpAddress::from(address), port);
        let context = self.interface.context();
        self.sockets.get_mut::<Socket>(handle).connect(context, to, self.port).unwrap();
        handle
    }

    fn poll(&mut self) {
        let now = smoltcp::time::Instant::now();
        self.interface.poll(now, &mut self.plug, &mut self.sockets);
    }

    /// Runs the guest until a condition holds.
    fn until<T>(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut SocketSet<'static>) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            self.poll();
            if let Some(value) = condition(&mut self.sockets) {
                self.poll();
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::yield_now();
        }
    }

    fn state(&mut self, handle: SocketHandle, wanted: State) {
        self.until(&format!("{wanted}"), |sockets| {
            (sockets.get::<Socket>(handle).state() == wanted).then_some(())
        });
    }

    fn write_all(&mut self, handle: SocketHandle, mut data: &[u8]) {
        self.until("writing", |sockets| {
            let count = sockets.get_mut::<Socket>(handle).send_slice(data).unwrap();
            data = &data[count..];
            data.is_empty().then_some(())
        });
    }

    /// Reads to the end of the stream.
    fn read_to_end(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut all = Vec::new();
        self.until("reading", |sockets| {
            let socket = sockets.get_mut::<Socket>(handle);
            loop {
                match socket.recv(|data| (data.len(), data.to_vec())) {
                    Ok(data) if data.is_empty() => break None,
                    Ok(data) => all.extend_from_slice(&data),
                    Err(smoltcp::socket::tcp::RecvError::Finished) => break Some(()),
                    Err(_)
                        if matches!(
                            socket.state(),
                            State::Listen | State::SynSent | State::SynReceived
                        ) =>
                    {
                        break None;
                    }
                    Err(error) => panic!("{error:?} in {}", socket.state()),
                }
            }
        });
        all
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn tcp_both_ways_with_half_closes() {
    let (listener, port) = listener();
    let data = pattern(3 << 20);
    let server = std::thread::spawn({
        let data = data.clone();
        move || {
            // The guest closes first, then the host.
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert!(all == data);
            stream.write_all(&data).unwrap();
            drop(stream);
            // The host closes first.
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&data).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            all.clear();
            stream.read_to_end(&mut all).unwrap();
            assert!(all == data);
        }
    });
    let mut guest = Guest::new("user");
    let first = guest.connect(GATEWAY, port);
    guest.state(first, State::Established);
    guest.write_all(first, &data);
    guest.sockets.get_mut::<Socket>(first).close();
    assert!(guest.read_to_end(first) == data);
    let second = guest.connect(GATEWAY, port);
    assert!(guest.read_to_end(second) == data);
    guest.write_all(second, &data);
    guest.sockets.get_mut::<Socket>(second).close();
    guest.until("closed", |sockets| (!sockets.get::<Socket>(second).may_send()).then_some(()));
    let start = Instant::now();
    while !server.is_finished() {
        guest.poll();
        assert!(start.elapsed() < PATIENCE);
    }
    server.join().unwrap();
    let start = Instant::now();
    while !guest.plug.network.describe().contains(" 0 TCP") {
        guest.poll();
        assert!(start.elapsed() < PATIENCE, "{}", guest.plug.network.describe());
    }
}

#[test]
fn refusals_and_resets_arrive() {
    let (closed, port) = listener();
    drop(closed);
    let mut guest = Guest::new("user");
    let refused = guest.connect(GATEWAY, port);
    guest.state(refused, State::Closed);

    let (listener, port) = listener();
    // The host resets.
    let handle = guest.connect(GATEWAY, port);
    let (stream, _) = listener.accept_while(&mut guest);
    guest.state(handle, State::Established);
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.state(handle, State::Closed);
    // The guest resets.
    let handle = guest.connect(GATEWAY, port);
    let (mut stream, _) = listener.accept_while(&mut guest);
    guest.state(handle, State::Established);
    guest.sockets.get_mut::<Socket>(handle).abort();
    guest.poll();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

trait AcceptWhile {
    fn accept_while(&self, guest: &mut Guest) -> (std::net::TcpStream, SocketAddr);
}

impl AcceptWhile for TcpListener {
    fn accept_while(&self, guest: &mut Guest) -> (std::net::TcpStream, SocketAddr) {
        self.set_nonblocking(true).unwrap();
        let accepted = guest.until("accepting", |_| self.accept().ok());
        accepted.0.set_nonblocking(false).unwrap();
        accepted
    }
}

#[test]
fn a_host_that_does_not_read_stops_the_guest_and_no_byte_is_lost() {
    let (listener, port) = listener();
    let mut guest = Guest::new("user");
    let handle = guest.connect(GATEWAY, port);
    let (mut stream, _) = listener.accept_while(&mut guest);
    guest.state(handle, State::Established);
    let data = pattern(24 << 20);
    let mut sent = 0;
    let start = Instant::now();
    let mut progress = Instant::now();
    // Until nothing goes on any more.
    while progress.elapsed() < Duration::from_millis(300) {
        guest.poll();
        let count = guest.sockets.get_mut::<Socket>(handle).send_slice(&data[sent..]).unwrap();
        if count > 0 {
            sent += count;
            progress = Instant::now();
        }
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(sent < data.len(), "the window closes");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    guest.write_all(handle, &data[sent..]);
    guest.sockets.get_mut::<Socket>(handle).close();
    while !reader.is_finished() {
        guest.poll();
    }
    assert!(reader.join().unwrap() == data);
}

#[test]
fn many_connections_at_once() {
    let (listener, port) = listener();
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(200) {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut line = [0; 100];
                stream.read_exact(&mut line).unwrap();
                stream.write_all(&line).unwrap();
            });
        }
    });
    let mut guest = Guest::new("user");
    let handles: Vec<SocketHandle> = (0..200)
        .map(|n| {
            let handle = guest.connect(GATEWAY, port);
            guest.poll();
            guest.state(handle, State::Established);
            guest.write_all(handle, &[n as u8; 100]);
            handle
        })
        .collect();
    for (n, handle) in handles.into_iter().enumerate() {
        assert_eq!(guest.read_to_end(handle), [n as u8; 100]);
        guest.sockets.remove(handle);
    }
    server.join().unwrap();
}

#[test]
fn forwarded_ports_lead_to_the_guest() {
    let mut guest = Guest::new("user,hostfwd=tcp::0-:22");
    let address = guest.plug.network.forwarded(0).unwrap();
    assert!(address.ip().is_loopback());
    let server = guest.socket();
    guest.sockets.get_mut::<Socket>(server).listen(22).unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"hello guest").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    assert_eq!(guest.read_to_end(server), b"hello guest");
    let peer = guest.sockets.get::<Socket>(server).remote_endpoint().unwrap();
    assert_eq!(peer.addr, IpAddress::from(GATEWAY));
    guest.write_all(server, b"hello host");
    guest.sockets.get_mut::<Socket>(server).close();
    let start = Instant::now();
    while !client.is_finished() && start.elapsed() < PATIENCE {
        guest.poll();
    }
    assert_eq!(client.join().unwrap(), b"hello host");
    // Nobody listens any more: the client sees an end.
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    guest.until("refused", |_| match stream.read(&mut [0; 1]) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
        _ => Some(()),
    });
}

/// Frames by hand.
mod raw {
    use super::*;

    pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&[0xff; 6][..], &MAC, &ethertype.to_be_bytes(), payload].concat()
    }

    pub fn ip(protocol: u8, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
        packet.extend(GUEST.octets());
        packet.extend(to.octets());
        packet.extend_from_slice(payload);
        let mut view = Ipv4Packet::new_unchecked(&mut packet[..]);
        view.set_total_len(20 + payload.len() as u16);
        view.fill_checksum();
        packet
    }

    pub fn udp(from: u16, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
        let mut datagram = [from.to_be_bytes(), to.port().to_be_bytes()].concat();
        datagram.extend((8 + payload.len() as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend_from_slice(payload);
        UdpPacket::new_unchecked(&mut datagram[..])
            .fill_checksum(&GUEST.into(), &(*to.ip()).into());
        datagram
    }

    pub fn echo(payload: &[u8]) -> Vec<u8> {
        let mut message = [&[8, 0, 0, 0, 0x12, 0x34, 0, 1][..], payload].concat();
        Icmpv4Packet::new_unchecked(&mut message[..]).fill_checksum();
        message
    }

    pub fn arp(target: Ipv4Addr) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4, 0, 1];
        ethernet(0x806, &[&head[..], &MAC, &GUEST.octets(), &[0; 6], &target.octets()].concat())
    }

    /// The next frame of a kind that the guest gets.
    pub fn next(card: &Card, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            while let Some(frame) = card.0.lock().pop_front() {
                if wanted(&frame) {
                    return Some(frame);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// The payload of the next UDP datagram from a port.
    pub fn datagram(card: &Card, port: u16) -> Option<Vec<u8>> {
        let frame = next(card, |frame| {
            frame[12..14] == [8, 0] && frame[23] == 17 && frame[34..36] == port.to_be_bytes()
        })?;
        Some(frame[42..].to_vec())
    }
}

#[test]
fn the_networks_own_stations_answer() {
    let (network, card) = network("user");
    network.transmit(&raw::arp(GATEWAY));
    let reply = raw::next(&card, |frame| frame[12..14] == [8, 6]).unwrap();
    assert_eq!((&reply[..6], &reply[28..32]), (&MAC[..], &GATEWAY.octets()[..]));
    let data = pattern(3000);
    for address in [GATEWAY, Ipv4Addr::new(10, 0, 2, 3)] {
        network.transmit(&raw::ethernet(0x800, &raw::ip(1, address, &raw::echo(&data[..56]))));
        let reply = raw::next(&card, |frame| frame[23] == 1).unwrap();
        assert_eq!((&reply[26..30], reply[34]), (&address.octets()[..], 0));
        assert_eq!(&reply[42..], &data[..56]);
    }
    // A long one comes in fragments, whichever order, and goes back so.
    let message = raw::echo(&data);
    for (offset, end) in [(1480, 2960), (2960, message.len()), (0, 1480)] {
        let mut packet = raw::ip(1, GATEWAY, &message[offset..end]);
        let mut view = Ipv4Packet::new_unchecked(&mut packet[..]);
        view.set_frag_offset(offset as u16);
        view.set_more_frags(end < message.len());
        view.fill_checksum();
        network.transmit(&raw::ethernet(0x800, &packet));
    }
    let mut back = Vec::new();
    while back.len() < message.len() {
        back.extend_from_slice(
            &raw::next(&card, |frame| frame[23] == 1).expect("a fragment")[34..],
        );
    }
    assert!(back[8..] == data);
}

#[test]
fn datagrams_go_out_and_come_back() {
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = host.local_addr().unwrap().port();
    let (network, card) = network("user,hostfwd=udp::0-:7000");
    let to = SocketAddrV4::new(GATEWAY, port);
    let send = |from: u16, to: SocketAddrV4, payload: &[u8]| {
        network
            .transmit(&raw::ethernet(0x800, &raw::ip(17, *to.ip(), &raw::udp(from, to, payload))));
    };
    send(5000, to, b"question");
    let mut buffer = [0; 100];
    let (count, peer) = host.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"question");
    host.send_to(b"answer", peer).unwrap();
    assert_eq!(raw::datagram(&card, port).unwrap(), b"answer");
    // A stranger does not get in by the same port.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"let me in", peer).unwrap();
    host.send_to(b"more", peer).unwrap();
    assert_eq!(raw::datagram(&card, port).unwrap(), b"more");
    assert!(card.0.lock().is_empty());
    // Nobody listens: an ICMP error.
    drop(host);
    send(5000, to, b"anybody?");
    let error = raw::next(&card, |frame| frame[23] == 1).unwrap();
    assert_eq!(error[34..36], [3, 3]);
    // A forwarded port, and the guest's answer.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"ping", network.forwarded(0).unwrap()).unwrap();
    let client_port = client.local_addr().unwrap().port();
    assert_eq!(raw::datagram(&card, client_port).unwrap(), b"ping");
    send(7000, SocketAddrV4::new(GATEWAY, client_port), b"pong");
    let (count, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..count], from), (&b"pong"[..], network.forwarded(0).unwrap()));
}

#[test]
fn dhcp_and_tftp_over_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pxe.0"), b"boot").unwrap();
    let (network, card) =
        network(&format!("user,tftp={},bootfile=pxe.0,restrict=on", dir.path().display()));
    let mut discover = vec![0; 236];
    discover[..3].copy_from_slice(&[1, 1, 6]);
    discover[28..34].copy_from_slice(&MAC);
    discover.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let mut packet = raw::ip(17, *everybody.ip(), &raw::udp(68, everybody, &discover));
    packet[12..16].fill(0);
    let mut view = Ipv4Packet::new_unchecked(&mut packet[..]);
    view.fill_checksum();
    // The checksum of UDP is optional, and this one is of another sender's address.
    packet[26..28].fill(0);
    network.transmit(&raw::ethernet(0x800, &packet));
    let offer = raw::datagram(&card, 67).unwrap();
    assert_eq!(&offer[16..20], &GUEST.octets());
    let server = SocketAddrV4::new(GATEWAY, 69);
    let request = raw::udp(3000, server, b"\0\x01pxe.0\0octet\0");
    network.transmit(&raw::ethernet(0x800, &raw::ip(17, GATEWAY, &request)));
    assert_eq!(raw::datagram(&card, 69).unwrap(), b"\0\x03\0\x01boot");
}

#[test]
fn names_are_asked_of_the_hosts_resolvers_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("resolv.conf");
    // Two resolvers on port 53 cannot be had in a test: what is asked is refused, and that is told.
    std::fs::write(&conf, "nameserver 127.0.0.77\nnameserver 127.0.0.78\n").unwrap();
    let network = UserNetwork::with_resolvers(&UserOptions::default(), conf).unwrap();
    let card = Arc::new(Card::default());
    network.connect(card.clone());
    let dns = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 3), 53);
    for _ in 0..3 {
        let question = raw::udp(6000, dns, b"who?");
        network.transmit(&raw::ethernet(0x800, &raw::ip(17, *dns.ip(), &question)));
        let error = raw::next(&card, |frame| frame[23] == 1).unwrap();
        assert_eq!(error[34..36], [3, 3]);
    }
    assert!(network.describe().contains("1 other flows"), "{}", network.describe());
}

#[test]
fn restriction_lets_nothing_out() {
    let (listener, port) = listener();
    listener.set_nonblocking(true).unwrap();
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let mut guest = Guest::new("user,restrict=on");
    for address in [GATEWAY, Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(10, 0, 2, 3)] {
        guest.connect(address, port);
        let to = SocketAddrV4::new(address, host.local_addr().unwrap().port());
        let datagram = raw::udp(4000, to, b"out");
        guest.plug.network.transmit(&raw::ethernet(0x800, &raw::ip(17, address, &datagram)));
        let echo = raw::echo(b"out");
        let outside = Ipv4Addr::new(127, 0, 0, 1);
        guest.plug.network.transmit(&raw::ethernet(0x800, &raw::ip(1, outside, &echo)));
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        guest.poll();
    }
    assert!(listener.accept().is_err() && host.recv(&mut [0; 10]).is_err());
    let text = guest.plug.network.describe();
    assert!(text.contains(": 0 TCP connections, 0 other flows"), "{text}");
}

/// A generator of numbers that look like chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Damages frames of all kinds, checksums mostly made right again, and floods the network with them.
#[test]
fn hostile_frames_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), [1; 5000]).unwrap();
    // Nothing is to reach the world outside.
    let (network, card) =
        network(&format!("user,restrict=on,tftp={},hostfwd=tcp::0-:80", dir.path().display()));
    let to = |port| SocketAddrV4::new(GATEWAY, port);
    let mut discover = vec![0; 236];
    discover[..3].copy_from_slice(&[1, 1, 6]);
    discover.extend([99, 130, 83, 99, 53, 1, 1, 50, 4, 10, 0, 2, 20, 55, 3, 1, 2, 3, 255]);
    let syn =
        [0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let frames = [
        raw::arp(GATEWAY),
        raw::ethernet(0x800, &raw::ip(17, GATEWAY, &raw::udp(68, to(67), &discover))),
        raw::ethernet(
            0x800,
            &raw::ip(17, GATEWAY, &raw::udp(99, to(69), b"\0\x01f\0octet\0blksize\x00800\0")),
        ),
        raw::ethernet(0x800, &raw::ip(17, GATEWAY, &raw::udp(99, to(69), b"\0\x04\0\x01"))),
        raw::ethernet(0x800, &raw::ip(1, GATEWAY, &raw::echo(&[7; 64]))),
        raw::ethernet(0x800, &raw::ip(6, GATEWAY, &syn)),
        raw::ethernet(0x800, &raw::ip(47, GATEWAY, &[0; 40])),
    ];
    let _forwarded = std::net::TcpStream::connect(network.forwarded(0).unwrap()).unwrap();
    let mut chance = Chance(20_260_101);
    for round in 0..60_000 {
        let mut frame = frames[chance.below(frames.len())].clone();
        for _ in 0..chance.below(4) {
            let at = chance.below(frame.len());
            frame[at] = chance.next() as u8;
        }
        if chance.below(4) == 0 {
            frame.truncate(chance.below(frame.len()));
        }
        if chance.below(8) == 0 {
            frame.resize(frame.len() + chance.below(2000), chance.next() as u8);
        }
        if frame.len() >= 34 && chance.below(8) != 0 {
            let header = 14 + usize::from(frame[14] & 15) * 4;
            if header >= 34 && header <= frame.len() {
                Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
            }
        }
        network.transmit(&frame);
        if round % 100 == 0 {
            std::thread::sleep(Duration::from_millis(1));
            card.0.lock().clear();
            network.ready();
        }
    }
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(1));
        card.0.lock().clear();
        network.ready();
    }
    network.transmit(&raw::arp(GATEWAY));
    network.transmit(&raw::ethernet(0x800, &raw::ip(1, GATEWAY, &raw::echo(b"still there?"))));
    raw::next(&card, |frame| frame.ends_with(b"still there?")).expect("the network has survived");
}

/// Rates of a guest's TCP; run it by name in a release build.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    const BYTES: usize = 1 << 30;
    let (listener, port) = listener();
    let mut guest = Guest::new("user");
    let chunk = vec![0x55; 256 << 10];
    let handle = guest.connect(GATEWAY, port);
    let (mut stream, _) = listener.accept_while(&mut guest);
    let reader = std::thread::spawn(move || {
        let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
        while total < BYTES {
            total += stream.read(&mut buffer).unwrap();
        }
        stream
    });
    let start = Instant::now();
    let mut sent = 0;
    while !reader.is_finished() {
        guest.poll();
        let part = &chunk[..chunk.len().min(BYTES - sent)];
        sent += guest.sockets.get_mut::<Socket>(handle).send_slice(part).unwrap();
    }
    let rate = |start: Instant| BYTES as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("guest to host: {:.0} MB/s", rate(start));
    let mut stream = reader.join().unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..BYTES / (256 << 10) {
            stream.write_all(&chunk).unwrap();
        }
        stream
    });
    let start = Instant::now();
    let mut got = 0;
    while got < BYTES {
        guest.poll();
        let socket = guest.sockets.get_mut::<Socket>(handle);
        while let Ok(count @ 1..) = socket.recv(|data| (data.len(), data.len())) {
            got += count;
        }
    }
    println!("host to guest: {:.0} MB/s", rate(start));
    drop(writer.join().unwrap());
}
