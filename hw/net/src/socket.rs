//! Frames to and from other programs: `-netdev stream`, `dgram` and the older `socket`.
//!
//! On a stream each frame has its length in front, four bytes, most significant first (what QEMU and passt speak). A
//! peer that sends another length than a frame can have is disconnected. Frames for a peer that does not read are lost
//! when [`WAITING`] bytes wait, whole ones only; frames for a card that has no room stay in the kernel's socket. In a
//! datagram there is one frame.

use crate::port::{Frames, Port, ToCard, Worker};
use crate::{DgramOptions, Endpoint, Error, FrameSink, MAX_FRAME, Network, StreamOptions};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Bytes that wait for a peer.
const WAITING: usize = 4 << 20;
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// A network that another program carries on.
pub struct SocketNetwork {
    port: Arc<Port>,
    state: Arc<Mutex<State>>,
    name: String,
    _worker: Worker,
}

#[derive(Default)]
struct State {
    connected: bool,
    local: String,
}

impl SocketNetwork {
    fn start(
        name: String,
        state: State,
        run: impl FnOnce(Arc<Port>, Arc<Mutex<State>>) + Send + 'static,
    ) -> io::Result<SocketNetwork> {
        let port = Arc::new(Port::new()?);
        let state = Arc::new(Mutex::new(state));
        let _worker = Worker::start("socket network", port.clone(), {
            let (port, state) = (port.clone(), state.clone());
            move || run(port, state)
        })?;
        Ok(SocketNetwork { port, state, name, _worker })
    }
}

impl Network for SocketNetwork {
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
        let state = self.state.lock();
        let (name, local) = (&self.name, &state.local);
        let connected = if state.connected { "" } else { " (disconnected)" };
        format!("{name}{local}{connected}: {} frames lost", self.port.lost.load(Ordering::Relaxed))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Inet(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Where peers come from.
enum Source {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
    Client { endpoint: Endpoint, reconnect: Option<Duration> },
}

impl Source {
    fn listener(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Source::Tcp(listener) => Some(listener.as_fd()),
            Source::Unix(listener, _) => Some(listener.as_fd()),
            Source::Client { .. } => None,
        }
    }
    fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Source::Tcp(listener) => tcp(listener.accept()?.0),
            Source::Unix(listener, _) => unix(listener.accept()?.0),
            Source::Client { endpoint, .. } => connect(endpoint),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Source::Unix(_, path) = self {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn tcp(stream: TcpStream) -> io::Result<OwnedFd> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(stream.into())
}

fn unix(stream: UnixStream) -> io::Result<OwnedFd> {
    stream.set_nonblocking(true)?;
    Ok(stream.into())
}

fn connect(endpoint: &Endpoint) -> io::Result<OwnedFd> {
    match endpoint {
        Endpoint::Unix(path) => unix(UnixStream::connect(path)?),
        Endpoint::Inet(host, port) => {
            let mut last = io::ErrorKind::NotFound.into();
            for address in (&**host, *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                    Ok(stream) => return tcp(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

/// Removes a socket that nobody listens on any more. A file of another kind stays.
fn clear(path: &Path, refused: impl FnOnce() -> bool) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && refused() { std::fs::remove_file(path) } else { Ok(()) }
}

fn is_refused<T>(result: io::Result<T>) -> bool {
    matches!(result, Err(e) if e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Frames over a stream socket. A client connects before this returns, unless it is to reconnect; a server does not
/// wait.
///
/// # Errors
/// The address is in use, or nobody listens there.
pub fn open_stream(options: &StreamOptions) -> Result<SocketNetwork, Error> {
    let StreamOptions { endpoint, server, reconnect } = options;
    let name = format!("stream,{}{endpoint}", if *server { "server=on," } else { "" });
    let failed = |e: io::Error| Error::io(format!("-netdev {name}"), e);
    let mut peer = None;
    let mut local = String::new();
    let source = match (server, endpoint) {
        (true, Endpoint::Unix(path)) => {
            clear(path, || is_refused(UnixStream::connect(path))).map_err(failed)?;
            let listener = UnixListener::bind(path).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Source::Unix(listener, path.clone())
        }
        (true, Endpoint::Inet(host, port)) => {
            let listener = TcpListener::bind((&**host, *port)).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            local = listener.local_addr().map(|a| format!(",local={a}")).unwrap_or_default();
            Source::Tcp(listener)
        }
        (false, _) => {
            if reconnect.is_none() {
                peer = Some(connect(endpoint).map_err(failed)?);
            }
            Source::Client { endpoint: endpoint.clone(), reconnect: *reconnect }
        }
    };
    let state = State { connected: peer.is_some(), local };
    SocketNetwork::start(name.clone(), state, move |port, state| {
        Stream::new(port).run(&source, peer, &state);
    })
    .map_err(failed)
}

/// The thread of a stream.
struct Stream {
    port: Arc<Port>,
    card: ToCard,
    frames: Frames,
    /// On the way to the peer.
    output: Vec<u8>,
    sent: usize,
    /// From the peer.
    input: Vec<u8>,
}

impl Stream {
    fn new(port: Arc<Port>) -> Stream {
        Stream {
            card: ToCard::new(port.clone()),
            port,
            frames: Frames::default(),
            output: Vec::new(),
            sent: 0,
            input: Vec::new(),
        }
    }

    fn run(&mut self, source: &Source, mut peer: Option<OwnedFd>, state: &Mutex<State>) {
        let mut retry = Instant::now();
        while !self.port.ended() {
            if let Some(connected) = peer.take() {
                state.lock().connected = true;
                if let Err(error) = self.serve(&connected) {
                    tracing::info!("a socket network's peer has gone: {error}");
                }
                state.lock().connected = false;
                (self.sent, retry) = (0, Instant::now());
                self.output.clear();
                self.input.clear();
                continue;
            }
            let mut patience = None;
            if let Source::Client { endpoint, reconnect: Some(delay) } = source {
                if Instant::now() >= retry {
                    match connect(endpoint) {
                        Ok(connected) => {
                            peer = Some(connected);
                            continue;
                        }
                        Err(error) => tracing::debug!("reconnecting to {endpoint}: {error}"),
                    }
                    retry = Instant::now() + *delay;
                }
                patience = Timespec::try_from(retry.saturating_duration_since(Instant::now())).ok();
            }
            let mut fds = vec![PollFd::from_borrowed_fd(self.port.bell(), PollFlags::IN)];
            fds.extend(source.listener().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            // An interrupted call is one turn more.
            let _ = poll(&mut fds, patience.as_ref());
            let called = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
            self.port.silence();
            self.card.retry();
            // Nobody is there to have them.
            self.port.take(&mut self.frames);
            self.frames.clear();
            if called {
                match source.accept() {
                    Ok(connected) => peer = Some(connected),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::warn!("accepting a connection: {error}");
                        // Too many open files: the listener stays readable.
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        }
    }

    /// Carries frames until the peer goes or the network ends.
    fn serve(&mut self, peer: &OwnedFd) -> io::Result<()> {
        while !self.port.ended() {
            let (waiting, room) = (!self.output.is_empty(), !self.card.blocked());
            // A descriptor is left out, not only its events: a hang-up would be reported all the time.
            let mut events = PollFlags::empty();
            events.set(PollFlags::OUT, waiting);
            events.set(PollFlags::IN, room);
            let mut fds = vec![PollFd::from_borrowed_fd(self.port.bell(), PollFlags::IN)];
            if !events.is_empty() {
                fds.push(PollFd::new(peer, events));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let bell = !fds[0].revents().is_empty();
            let happened = fds.get(1).map_or(PollFlags::empty(), |fd| fd.revents());
            if bell {
                self.port.silence();
                self.card.retry();
                self.collect();
            }
            let broken = happened.intersects(PollFlags::HUP | PollFlags::ERR);
            if bell || happened.contains(PollFlags::OUT) {
                self.send(peer)?;
            }
            if room && (happened.contains(PollFlags::IN) || broken) {
                self.receive(peer)?;
            } else if broken {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        Ok(())
    }

    /// Takes the card's frames.
    fn collect(&mut self) {
        self.port.take(&mut self.frames);
        for frame in self.frames.iter().filter(|frame| !frame.is_empty()) {
            if self.output.len() - self.sent + frame.len() > WAITING {
                self.port.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.output.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            self.output.extend_from_slice(frame);
        }
        self.frames.clear();
    }

    fn send(&mut self, peer: &OwnedFd) -> io::Result<()> {
        while self.sent < self.output.len() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(peer, &self.output[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Not for each call: moving the rest costs.
        if self.sent == self.output.len() || self.sent > WAITING / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    fn receive(&mut self, peer: &OwnedFd) -> io::Result<()> {
        let start = self.input.len();
        self.input.resize(start + CHUNK, 0);
        let result = rustix::net::recv(peer, &mut self.input[start..], RecvFlags::DONTWAIT);
        let count = result.map_or(0, |(count, _)| count);
        self.input.truncate(start + count);
        match result {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut rest = &self.input[..];
        while let Some((length, behind)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            if length == 0 || length > MAX_FRAME {
                let message = format!("a frame of {length} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            let Some((frame, behind)) = behind.split_at_checked(length) else { break };
            self.card.send(frame);
            rest = behind;
        }
        let done = self.input.len() - rest.len();
        self.input.drain(..done);
        Ok(())
    }
}

/// A datagram socket and its peer's address.
enum Datagrams {
    Inet(UdpSocket),
    Unix(UnixDatagram, PathBuf, PathBuf),
}

impl Datagrams {
    fn send(&self, frame: &[u8]) -> io::Result<usize> {
        match self {
            Datagrams::Inet(socket) => socket.send(frame),
            Datagrams::Unix(socket, remote, _) => socket.send_to(frame, remote),
        }
    }
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Datagrams::Inet(socket) => socket.recv(buffer),
            Datagrams::Unix(socket, ..) => socket.recv(buffer),
        }
    }
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Datagrams::Inet(socket) => socket.as_fd(),
            Datagrams::Unix(socket, ..) => socket.as_fd(),
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        if let Datagrams::Unix(_, _, local) = self {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(local);
        }
    }
}

/// Frames in datagrams. Over UDP only the peer's are taken.
///
/// # Errors
/// An address that is in use or that cannot be found.
pub fn open_dgram(options: &DgramOptions) -> Result<SocketNetwork, Error> {
    let name = format!("dgram,{}", options.remote);
    let failed = |e: io::Error| Error::io(format!("-netdev {name}"), e);
    let (socket, local) = bind(options).map_err(failed)?;
    let state = State { connected: true, local };
    SocketNetwork::start(name.clone(), state, move |port, _| run_dgram(&port, &socket))
        .map_err(failed)
}

fn bind(options: &DgramOptions) -> io::Result<(Datagrams, String)> {
    match (&options.remote, &options.local) {
        (Endpoint::Inet(host, port), local) => {
            let remote = (&**host, *port).to_socket_addrs()?.next();
            let remote = remote.ok_or(io::ErrorKind::NotFound)?;
            let socket = match local {
                Some(Endpoint::Inet(host, port)) => UdpSocket::bind((&**host, *port))?,
                _ if remote.is_ipv6() => UdpSocket::bind("[::]:0")?,
                _ => UdpSocket::bind("0.0.0.0:0")?,
            };
            socket.connect(remote)?;
            socket.set_nonblocking(true)?;
            let local = format!(",local={}", socket.local_addr()?);
            Ok((Datagrams::Inet(socket), local))
        }
        (Endpoint::Unix(remote), Some(Endpoint::Unix(local))) => {
            clear(local, || {
                UnixDatagram::unbound().is_ok_and(|socket| is_refused(socket.connect(local)))
            })?;
            let socket = UnixDatagram::bind(local)?;
            socket.set_nonblocking(true)?;
            Ok((Datagrams::Unix(socket, remote.clone(), local.clone()), String::new()))
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn run_dgram(port: &Arc<Port>, socket: &Datagrams) {
    let mut card = ToCard::new(port.clone());
    let mut frames = Frames::default();
    let mut buffer = vec![0; MAX_FRAME];
    while !port.ended() {
        let mut fds = vec![PollFd::from_borrowed_fd(port.bell(), PollFlags::IN)];
        if !card.blocked() {
            fds.push(PollFd::from_borrowed_fd(socket.fd(), PollFlags::IN));
        }
        // An interrupted call is one turn more.
        let _ = poll(&mut fds, None);
        if !fds[0].revents().is_empty() {
            port.silence();
            card.retry();
            port.take(&mut frames);
            for frame in frames.iter() {
                // Twice: an error may be an earlier frame's (nobody was there).
                if socket.send(frame).is_err() && socket.send(frame).is_err() {
                    port.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            frames.clear();
        }
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            while !card.blocked() {
                match socket.receive(&mut buffer) {
                    Ok(count) if count > 0 => card.send(&buffer[..count]),
                    Ok(_) => {}
                    // Empty, or an error of an earlier frame, which this has taken.
                    Err(_) => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NetdevOptions, open_network};
    use std::io::{Read, Write};

    #[derive(Default)]
    struct Card {
        got: Mutex<Vec<Vec<u8>>>,
        room: Mutex<Option<usize>>,
    }

    impl FrameSink for Card {
        fn receive(&self, frame: &[u8]) -> bool {
            let mut room = self.room.lock();
            match &mut *room {
                Some(0) => return false,
                Some(room) => *room -= 1,
                None => {}
            }
            self.got.lock().push(frame.to_vec());
            true
        }
    }

    impl Card {
        fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
            wait_until(|| self.got.lock().len() >= count);
            self.got.lock().clone()
        }
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn network(text: &str) -> (Arc<dyn Network>, Arc<Card>) {
        let network = open_network(&NetdevOptions::parse(text).unwrap()).unwrap();
        let card = Arc::new(Card::default());
        network.connect(card.clone());
        (network, card)
    }

    #[test]
    fn two_machines_on_one_wire_that_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wire");
        let path = path.display();
        let (client, here) =
            network(&format!("stream,id=a,addr.type=unix,addr.path={path},reconnect-ms=10"));
        for round in 1..=2 {
            let (server, there) =
                network(&format!("stream,id=b,addr.type=unix,addr.path={path},server=on"));
            wait_until(|| !client.describe().contains("disconnected"));
            wait_until(|| !server.describe().contains("disconnected"));
            let frames: Vec<Vec<u8>> =
                (1..200).map(|n| vec![n as u8; if n == 100 { MAX_FRAME } else { n * 7 }]).collect();
            for frame in &frames {
                client.transmit(frame);
            }
            assert!(there.wait_for(frames.len()) == frames);
            server.transmit(b"back");
            assert_eq!(here.wait_for(round)[round - 1], b"back");
            drop(server);
            wait_until(|| client.describe().contains("disconnected"));
            client.transmit(b"nobody is there");
        }
    }

    #[test]
    fn a_full_card_holds_the_peer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wire");
        let listener = UnixListener::bind(&path).unwrap();
        let (network, card) =
            network(&format!("stream,addr.type=unix,addr.path={}", path.display()));
        *card.room.lock() = Some(3);
        let (mut peer, _) = listener.accept().unwrap();
        let frame = [&[0, 0, 4, 0][..], &[9; 1024]].concat();
        let sender = std::thread::spawn(move || {
            for _ in 0..4000 {
                peer.write_all(&frame).unwrap();
            }
            peer
        });
        card.wait_for(3);
        std::thread::sleep(Duration::from_millis(50));
        assert!(!sender.is_finished());
        while card.got.lock().len() < 4000 {
            *card.room.lock() = Some(100);
            network.ready();
            std::thread::sleep(Duration::from_millis(1));
        }
        sender.join().unwrap();
        assert!(network.describe().contains(": 0 frames lost"), "{}", network.describe());
    }

    #[test]
    fn a_peer_that_lies_is_disconnected() {
        let (network, card) = network("socket,listen=127.0.0.1:0");
        let text = network.describe();
        let address = text.split("local=").nth(1).unwrap().split(' ').next().unwrap().to_string();
        for length in [0, MAX_FRAME as u32 + 1, u32::MAX] {
            let mut peer = TcpStream::connect(&address).unwrap();
            // A good one in pieces, then a bad one.
            for byte in [0, 0, 0, 2, 7, 8] {
                peer.write_all(&[byte]).unwrap();
            }
            peer.write_all(&length.to_be_bytes()).unwrap();
            assert_eq!(peer.read(&mut [0; 10]).unwrap_or(0), 0);
        }
        assert_eq!(card.wait_for(3), vec![vec![7, 8]; 3]);
    }

    #[test]
    fn datagrams() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (a, b) = (path("a"), path("b"));
        let options = |local: &str, remote: &str| {
            format!(
                "dgram,local.type=unix,local.path={local},remote.type=unix,remote.path={remote}"
            )
        };
        let (first, here) = network(&options(&a, &b));
        first.transmit(b"too early");
        let (second, there) = network(&options(&b, &a));
        wait_until(|| {
            first.transmit(b"one");
            !there.got.lock().is_empty()
        });
        second.transmit(b"two");
        assert_eq!(here.wait_for(1), [b"two"]);

        let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (p, q) = (free(), free());
        let (first, _here) = network(&format!("socket,udp=127.0.0.1:{q},localaddr=127.0.0.1:{p}"));
        let (_second, there) =
            network(&format!("socket,udp=127.0.0.1:{p},localaddr=127.0.0.1:{q}"));
        wait_until(|| {
            first.transmit(b"three");
            !there.got.lock().is_empty()
        });
    }
}
