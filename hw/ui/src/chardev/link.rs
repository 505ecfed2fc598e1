//! Connections that may come and go: sockets, pseudo terminals and named pipes.
//!
//! One thread per backend waits for the peer, connects anew and carries both directions; nothing here blocks the guest.
//! Without a peer output is lost, as on a serial cable that is not plugged in. With a peer that does not read, the
//! last [`CAPACITY`] bytes wait for it and older ones are lost.

use super::inlet::Intake;
use super::telnet::Telnet;
use crate::worker::Worker;
use crate::{CharBackend, CharSink};
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Bytes that wait for a peer that does not read.
pub(super) const CAPACITY: usize = 1 << 20;
const FLUSH: Duration = Duration::from_secs(1);
/// Most bytes moved at once, so that both directions have their turn.
const CHUNK: usize = 16 << 10;

/// A peer's descriptors, non-blocking. One of them for both directions, usually.
pub(super) struct Peer {
    pub input: Arc<OwnedFd>,
    pub output: Arc<OwnedFd>,
}

impl Peer {
    pub fn both(fd: OwnedFd) -> Peer {
        let fd = Arc::new(fd);
        Peer { input: fd.clone(), output: fd }
    }
}

/// Where peers come from.
pub(super) enum Source {
    Tcp {
        listener: TcpListener,
        nodelay: bool,
    },
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
    Client {
        connect: Connect,
        reconnect: Option<Duration>,
    },
    /// There is one, and it stays; with a descriptor that keeps it so.
    Fixed {
        _kept: Option<OwnedFd>,
    },
}

pub(super) type Connect = Box<dyn Fn() -> io::Result<Peer> + Send>;

impl Source {
    fn listener(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Source::Tcp { listener, .. } => Some(listener.as_fd()),
            Source::Unix { listener, .. } => Some(listener.as_fd()),
            Source::Client { .. } | Source::Fixed { .. } => None,
        }
    }

    fn accept(&self) -> io::Result<Peer> {
        match self {
            Source::Tcp { listener, nodelay } => tcp_peer(listener.accept()?.0, *nodelay),
            Source::Unix { listener, .. } => unix_peer(listener.accept()?.0),
            Source::Client { connect, .. } => connect(),
            Source::Fixed { .. } => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Blocks until there is a peer (`wait=on`).
    pub fn wait(&self) -> io::Result<Peer> {
        loop {
            if let Some(listener) = self.listener() {
                let mut fds = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match self.accept() {
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                other => return other,
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Source::Unix { path, .. } = self {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(super) fn tcp_peer(stream: TcpStream, nodelay: bool) -> io::Result<Peer> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(nodelay)?;
    Ok(Peer::both(stream.into()))
}

pub(super) fn unix_peer(stream: UnixStream) -> io::Result<Peer> {
    stream.set_nonblocking(true)?;
    Ok(Peer::both(stream.into()))
}

#[derive(Default)]
struct Out {
    queue: VecDeque<u8>,
    connected: bool,
    telnet: bool,
}

struct Shared {
    intake: Intake,
    out: Mutex<Out>,
    flushed: Condvar,
}

/// A backend whose peer comes and goes.
pub(super) struct Link {
    shared: Arc<Shared>,
    _worker: Worker,
    name: String,
}

impl Link {
    pub fn new(source: Source, peer: Option<Peer>, telnet: bool, name: String) -> io::Result<Link> {
        let out = Out { connected: peer.is_some(), telnet, ..Out::default() };
        let shared = Arc::new(Shared {
            intake: Intake::new()?,
            out: Mutex::new(out),
            flushed: Condvar::new(),
        });
        let _worker = Worker::start("chardev", {
            let shared = shared.clone();
            move || run(&shared, &source, peer)
        })?;
        Ok(Link { shared, _worker, name })
    }
}

impl CharBackend for Link {
    fn write(&self, bytes: &[u8]) {
        let mut out = self.shared.out.lock();
        if !out.connected {
            return;
        }
        let idle = out.queue.is_empty();
        for &byte in bytes {
            out.queue.push_back(byte);
            if out.telnet && byte == super::telnet::IAC {
                out.queue.push_back(byte);
            }
        }
        let excess = out.queue.len().saturating_sub(CAPACITY);
        out.queue.drain(..excess);
        drop(out);
        if idle {
            self.shared.intake.bell.ring();
        }
    }
    fn connect(&self, sink: Arc<dyn CharSink>) {
        self.shared.intake.connect(sink);
    }
    fn has_peers(&self) -> bool {
        true
    }
    fn ready(&self) {
        self.shared.intake.bell.ring();
    }
    fn describe(&self) -> String {
        let state = if self.shared.out.lock().connected { "" } else { " (disconnected)" };
        format!("{}{state}", self.name)
    }
    fn flush(&self) {
        let mut out = self.shared.out.lock();
        let busy = |out: &mut Out| out.connected && !out.queue.is_empty();
        self.shared.flushed.wait_while_for(&mut out, busy, FLUSH);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.flush();
        self.shared.intake.end();
    }
}

fn run(shared: &Shared, source: &Source, mut peer: Option<Peer>) {
    let mut retry = Instant::now();
    let mut last_error = String::new();
    let mut pending = Vec::new();
    while !shared.intake.stop.load(Ordering::Acquire) {
        if let Some(connected) = peer.take() {
            serve(shared, &connected, &mut pending);
            set_connected(shared, false);
            retry = Instant::now();
            continue;
        }
        shared.intake.offer(&mut pending);
        let delay = match source {
            Source::Client { connect, reconnect: Some(delay) } => {
                if Instant::now() >= retry {
                    match connect() {
                        Ok(connected) => {
                            set_connected(shared, true);
                            peer = Some(connected);
                            continue;
                        }
                        Err(error) => {
                            // Once per reason, not once per second.
                            if error.to_string() != last_error {
                                last_error = error.to_string();
                                tracing::info!("reconnecting: {error}");
                            }
                            retry = Instant::now() + *delay;
                        }
                    }
                }
                Some(retry.saturating_duration_since(Instant::now()))
            }
            _ => None,
        };
        let mut fds = vec![PollFd::from_borrowed_fd(shared.intake.bell.fd(), PollFlags::IN)];
        fds.extend(source.listener().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // An interrupted call is one turn more.
        let _ = poll(&mut fds, delay.and_then(|d| Timespec::try_from(d).ok()).as_ref());
        shared.intake.bell.silence();
        if fds.get(1).is_some_and(|fd| fd.revents().contains(PollFlags::IN)) {
            match source.accept() {
                Ok(connected) => {
                    set_connected(shared, true);
                    peer = Some(connected);
                }
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

fn set_connected(shared: &Shared, connected: bool) {
    let mut out = shared.out.lock();
    out.connected = connected;
    out.queue.clear();
    if connected && out.telnet {
        out.queue.extend(super::telnet::GREETING);
    }
    shared.flushed.notify_all();
}

/// Carries bytes both ways until the peer or the backend ends. `pending` is what the guest had no room for; it stays
/// for the guest when the peer has gone.
fn serve(shared: &Shared, peer: &Peer, pending: &mut Vec<u8>) {
    let mut buffer = [0; CHUNK];
    let mut telnet = shared.out.lock().telnet.then(Telnet::default);
    let mut told = false;
    while !shared.intake.stop.load(Ordering::Acquire) {
        shared.intake.open(&mut told);
        let room = shared.intake.offer(pending);
        let waiting = !shared.out.lock().queue.is_empty();
        // A descriptor is left out, not only its events: a hang-up would be reported all the time.
        let mut fds = vec![PollFd::from_borrowed_fd(shared.intake.bell.fd(), PollFlags::IN)];
        if waiting {
            fds.push(PollFd::new(&peer.output, PollFlags::OUT));
        }
        if room {
            fds.push(PollFd::new(&peer.input, PollFlags::IN));
        }
        if let Err(error) = poll(&mut fds, None)
            && error != Errno::INTR
        {
            return;
        }
        let happened = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        if happened(0) {
            shared.intake.bell.silence();
        }
        if waiting && happened(1) && !send(shared, &peer.output) {
            // It may have written before it went.
            set_connected(shared, false);
        }
        if room && happened(1 + usize::from(waiting)) {
            match rustix::io::read(&peer.input, &mut buffer) {
                Ok(0) => return,
                Ok(count) => match &mut telnet {
                    None => pending.extend_from_slice(&buffer[..count]),
                    Some(telnet) => telnet.strip(&buffer[..count], pending),
                },
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return,
            }
        }
    }
}

/// False: the peer has gone.
fn send(shared: &Shared, output: &OwnedFd) -> bool {
    let mut out = shared.out.lock();
    let (front, _) = out.queue.as_slices();
    let result = match rustix::net::send(
        output,
        &front[..front.len().min(CHUNK)],
        rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT,
    ) {
        Err(Errno::NOTSOCK) => rustix::io::write(output, &front[..front.len().min(CHUNK)]),
        other => other,
    };
    match result {
        Ok(count) => {
            out.queue.drain(..count);
            if out.queue.is_empty() {
                shared.flushed.notify_all();
            }
            true
        }
        Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => false,
    }
}
