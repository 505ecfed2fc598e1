//! The host's ends of character devices: [`open_chardev`], [`ChardevOptions`], and several users on one: [`Mux`].
//!
//! | kind | output that the host does not take at once |
//! |---|---|
//! | stdio, file | waits, up to 1 MiB; then the guest waits. Nothing is lost |
//! | socket, pty, pipe | the last 1 MiB waits for a peer that does not read; without a peer output is lost |
//! | null | lost |
//! | ringbuf | the last `size` bytes are kept for the monitor |
//!
//! Input waits at the host until the device has room. Sinks are called from a backend's own thread.

mod inlet;
mod link;
mod mux;
mod options;
mod outlet;
mod telnet;
#[cfg(test)]
mod tests;

pub use mux::{Mux, MuxCommand};
pub use options::{ChardevOptions, SocketAddress, SocketOptions};
pub use outlet::Impatient;

use crate::terminal::TerminalGuard;
use crate::{CharBackend, CharSink, Error};
use inlet::Inlet;
use link::{Link, Peer, Source};
use outlet::Outlet;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a peer may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Opens a backend by its spelling. `mon:` in front changes only how a terminal is set; the sharing itself is made with
/// a [`Mux`] around the backend.
///
/// # Errors
/// A spelling that is not understood, and what the host refuses.
pub fn open_chardev(spec: &str) -> Result<Arc<dyn CharBackend>, Error> {
    ChardevOptions::parse(spec)?.open()
}

impl ChardevOptions {
    /// Opens the backend. A server with `wait` blocks until its first client is there.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn open(&self) -> Result<Arc<dyn CharBackend>, Error> {
        Ok(match self {
            ChardevOptions::Null => Arc::new(Null),
            ChardevOptions::Ringbuf { size } => Arc::new(Ringbuf::new(*size)),
            ChardevOptions::Stdio { signal } => Arc::new(Stdio::open(*signal)?),
            ChardevOptions::File { path, append } => Arc::new(LogFile::open(path, *append)?),
            ChardevOptions::Pipe { path } => Arc::new(open_pipe(path)?),
            ChardevOptions::Pty => Arc::new(open_pty()?),
            ChardevOptions::Socket(options) => Arc::new(open_socket(options)?),
            ChardevOptions::Mux(inner) => return inner.open(),
        })
    }
}

/// Nothing.
pub struct Null;

impl CharBackend for Null {
    fn write(&self, _: &[u8]) {}
    fn connect(&self, _: Arc<dyn CharSink>) {}
    fn ready(&self) {}
    fn describe(&self) -> String {
        "null".into()
    }
}

/// The last bytes of output.
pub struct Ringbuf {
    size: usize,
    bytes: Mutex<VecDeque<u8>>,
}

impl Ringbuf {
    pub fn new(size: usize) -> Ringbuf {
        Ringbuf { size, bytes: Mutex::default() }
    }
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.lock().iter().copied().collect()
    }
}

impl CharBackend for Ringbuf {
    fn write(&self, bytes: &[u8]) {
        let mut kept = self.bytes.lock();
        kept.extend(&bytes[bytes.len().saturating_sub(self.size)..]);
        let excess = kept.len().saturating_sub(self.size);
        kept.drain(..excess);
    }
    fn connect(&self, _: Arc<dyn CharSink>) {}
    fn ready(&self) {}
    fn describe(&self) -> String {
        format!("ringbuf,size={}", self.size)
    }
}

/// A file that output goes to.
struct LogFile {
    outlet: Outlet,
    name: String,
}

impl LogFile {
    fn open(path: &Path, append: bool) -> Result<LogFile, Error> {
        let name = format!("file:{}", path.display());
        let file = File::options()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(path)
            .map_err(|e| Error::io(&name, e))?;
        let outlet = Outlet::new(file, name.clone()).map_err(|e| Error::io(&name, e))?;
        Ok(LogFile { outlet, name })
    }
}

impl CharBackend for LogFile {
    fn write(&self, bytes: &[u8]) {
        self.outlet.write(bytes);
    }
    fn connect(&self, _: Arc<dyn CharSink>) {}
    fn ready(&self) {}
    fn describe(&self) -> String {
        self.name.clone()
    }
    fn flush(&self) {
        self.outlet.flush();
    }
}

static STDIO_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, or what standard input and output are otherwise.
struct Stdio {
    // In the order of their ends: the last output is written before the terminal is given back.
    outlet: Outlet,
    inlet: Inlet,
    _guard: Option<TerminalGuard>,
}

impl Stdio {
    fn open(signal: bool) -> Result<Stdio, Error> {
        if STDIO_TAKEN.swap(true, Ordering::AcqRel) {
            return Err(Error::StdioTaken);
        }
        Stdio::start(signal).inspect_err(|_| STDIO_TAKEN.store(false, Ordering::Release))
    }

    fn start(signal: bool) -> Result<Stdio, Error> {
        let failed = |e| Error::io("stdio", e);
        let _guard = TerminalGuard::raw(signal, "")?;
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let output = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        let outlet = Outlet::new(Patient(output.into()), "stdio".into()).map_err(failed)?;
        let inlet = Inlet::new(input).map_err(failed)?;
        Ok(Stdio { outlet, inlet, _guard })
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        STDIO_TAKEN.store(false, Ordering::Release);
    }
}

impl CharBackend for Stdio {
    fn write(&self, bytes: &[u8]) {
        self.outlet.write(bytes);
    }
    fn connect(&self, sink: Arc<dyn CharSink>) {
        self.inlet.intake.connect(sink);
    }
    fn ready(&self) {
        self.inlet.intake.bell.ring();
    }
    fn describe(&self) -> String {
        "stdio".into()
    }
    fn flush(&self) {
        self.outlet.flush();
    }
}

/// A file that waits when it is non-blocking: our parent may have left standard output so.
struct Patient(File);

impl io::Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    use rustix::event::{PollFd, PollFlags, poll};
                    // An error shows at the next write.
                    let _ = poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None);
                }
                other => return other,
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open_pipe(path: &Path) -> Result<Link, Error> {
    let name = format!("pipe:{}", path.display());
    // Both ways, so that opening does not wait and the other end may come and go.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
    let side = |end: &str| {
        let mut path = path.as_os_str().to_owned();
        path.push(end);
        open(Path::new(&path))
    };
    let peer = match (side(".in"), side(".out")) {
        (Ok(input), Ok(output)) => Peer { input: Arc::new(input), output: Arc::new(output) },
        _ => Peer::both(open(path).map_err(|e| Error::io(&name, e))?),
    };
    Link::new(Source::Fixed { _kept: None }, Some(peer), false, name.clone())
        .map_err(|e| Error::io(name, e))
}

fn open_pty() -> Result<Link, Error> {
    let failed = |e: io::Error| Error::io("pty", e);
    let (master, other, path) = pty_pair().map_err(|e| failed(e.into()))?;
    println!("char device redirected to {path}");
    let source = Source::Fixed { _kept: Some(other) };
    Link::new(source, Some(Peer::both(master)), false, format!("pty:{path}")).map_err(failed)
}

/// A pseudo terminal in raw mode, its other end, and the path of that.
///
/// The other end is kept open: without it the kernel reports a hang-up until somebody comes, and throws away what was
/// written before.
fn pty_pair() -> rustix::io::Result<(OwnedFd, OwnedFd, String)> {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let path = rustix::pty::ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
    let other = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let mut mode = tcgetattr(&other)?;
    mode.make_raw();
    tcsetattr(&other, OptionalActions::Now, &mode)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok((master, other, path))
}

fn open_socket(options: &SocketOptions) -> Result<Link, Error> {
    let name = options.name();
    let failed = |e: io::Error| Error::io(&name, e);
    let source = if options.server {
        options.listen().map_err(failed)?
    } else {
        let options = options.clone();
        let reconnect = options.reconnect;
        Source::Client { connect: Box::new(move || options.connect()), reconnect }
    };
    let peer = match &source {
        Source::Client { reconnect: Some(_), .. } => None,
        Source::Client { connect, .. } => Some(connect().map_err(failed)?),
        source if options.wait => {
            eprintln!("tulk: waiting for a connection on {name}");
            Some(source.wait().map_err(failed)?)
        }
        _ => None,
    };
    Link::new(source, peer, options.telnet, name.clone()).map_err(failed)
}

impl SocketOptions {
    fn name(&self) -> String {
        let server = if self.server { ",server=on" } else { "" };
        match &self.address {
            SocketAddress::Unix(path) => format!("unix:{}{server}", path.display()),
            SocketAddress::Tcp { host, port } => {
                let kind = if self.telnet { "telnet" } else { "tcp" };
                format!("{kind}:{host}:{port}{server}")
            }
        }
    }

    fn listen(&self) -> io::Result<Source> {
        match &self.address {
            SocketAddress::Unix(path) => {
                // A socket that nobody listens on any more is in the way; a file of another kind stays.
                let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
                let is_socket = |m: std::fs::Metadata| m.file_type().is_socket();
                if std::fs::symlink_metadata(path).is_ok_and(is_socket)
                    && UnixStream::connect(path).is_err_and(refused)
                {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(Source::Unix { listener, path: path.clone() })
            }
            SocketAddress::Tcp { host, port } => {
                let host = if host.is_empty() { "0.0.0.0" } else { host };
                let listener = TcpListener::bind((host, *port))?;
                listener.set_nonblocking(true)?;
                Ok(Source::Tcp { listener, nodelay: self.nodelay })
            }
        }
    }

    fn connect(&self) -> io::Result<Peer> {
        match &self.address {
            SocketAddress::Unix(path) => link::unix_peer(UnixStream::connect(path)?),
            SocketAddress::Tcp { host, port } => {
                let host = if host.is_empty() { "localhost" } else { host };
                let mut last = io::ErrorKind::NotFound.into();
                for address in (host, *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                        Ok(stream) => return link::tcp_peer(stream, self.nodelay),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}
