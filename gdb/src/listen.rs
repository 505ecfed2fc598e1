//! Where a client may come from: `PORT`, `HOST:PORT` or `unix:PATH`, with `,suspend=n`.

use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use thiserror::Error;

/// What is wrong with the user's words.
#[derive(Error, Debug, PartialEq, Eq)]
pub enum SpecError {
    #[error("debugger address `{0}`: expected PORT, HOST:PORT or unix:PATH")]
    Address(String),
    #[error("debugger option `{0}`: expected suspend=y or suspend=n")]
    Option(String),
}

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// On the loopback interface unless the user names another host.
    Tcp(String, u16),
    /// `%d` becomes the process id.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What `-g` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    pub address: Address,
    /// The guest waits for the debugger at its first instruction.
    pub suspend: bool,
}

impl Spec {
    /// # Errors
    /// Names the word that is wrong.
    pub fn parse(text: &str) -> Result<Spec, SpecError> {
        let mut words = text.split(',');
        let address = words.next().unwrap_or_default();
        let wrong = || SpecError::Address(address.into());
        let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let parsed = if let Some(path) = address.strip_prefix("unix:") {
            Address::Unix(path.into())
        } else if address.contains('/') {
            // As qemu-user takes it.
            Address::Unix(address.into())
        } else if let Some((host, number)) = address.rsplit_once(':') {
            let host = host.strip_prefix("tcp:").unwrap_or(host);
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            Address::Tcp(host.into(), port(number)?)
        } else {
            Address::Tcp("127.0.0.1".into(), port(address)?)
        };
        if matches!(&parsed, Address::Unix(path) if path.as_os_str().is_empty()) {
            return Err(wrong());
        }
        let mut spec = Spec { address: parsed, suspend: true };
        for word in words {
            spec.suspend = match word {
                "suspend=y" => true,
                "suspend=n" => false,
                _ => return Err(SpecError::Option(word.into())),
            };
        }
        Ok(spec)
    }

    /// Whether each process has an address of its own.
    pub fn is_per_process(&self) -> bool {
        matches!(&self.address, Address::Unix(path) if path.to_string_lossy().contains("%d"))
    }
}

/// Waits for clients.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// # Errors
    /// The host refuses the address.
    pub fn open(address: &Address) -> io::Result<Listener> {
        match address {
            Address::Tcp(host, port) => {
                Ok(Listener::Tcp(TcpListener::bind((host.as_str(), *port))?))
            }
            Address::Unix(path) => {
                let name = path.to_string_lossy().replace("%d", &std::process::id().to_string());
                // What an earlier run left; anything else is not ours to remove.
                use std::os::unix::fs::FileTypeExt;
                if std::fs::symlink_metadata(&name).is_ok_and(|m| m.file_type().is_socket()) {
                    let _ = std::fs::remove_file(&name);
                }
                Ok(Listener::Unix(UnixListener::bind(name)?))
            }
        }
    }
    /// Blocks until a client comes.
    pub fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Listener::Tcp(l) => {
                let (stream, _) = l.accept()?;
                let _ = stream.set_nodelay(true);
                Stream::Tcp(stream)
            }
            Listener::Unix(l) => Stream::Unix(l.accept()?.0),
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(l) => l.as_fd(),
            Listener::Unix(l) => l.as_fd(),
        }
    }
}
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
        }
    }
}
impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buf),
            Stream::Unix(s) => s.read(buf),
        }
    }
}
impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write(buf),
            Stream::Unix(s) => s.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until one of the two is readable; says which are.
pub fn wait(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    let mut fds = [PollFd::new(&a, PollFlags::IN), PollFd::new(&b, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let tcp =
            |host: &str, port, suspend| Spec { address: Address::Tcp(host.into(), port), suspend };
        assert_eq!(Spec::parse("1234"), Ok(tcp("127.0.0.1", 1234, true)));
        assert_eq!(Spec::parse("0.0.0.0:1234,suspend=n"), Ok(tcp("0.0.0.0", 1234, false)));
        assert_eq!(Spec::parse("tcp::1234"), Ok(tcp("127.0.0.1", 1234, true)));
        assert_eq!(Spec::parse("tcp:[::1]:1234"), Ok(tcp("::1", 1234, true)));
        let unix = Spec::parse("unix:/tmp/gdb.%d,suspend=n").unwrap();
        assert!(unix.is_per_process() && !unix.suspend);
        assert!(!Spec::parse("/tmp/gdb").unwrap().is_per_process());
        for wrong in ["", "x", "70000", "unix:", "1234,suspend=x", "1234,"] {
            assert!(Spec::parse(wrong).is_err(), "{wrong}");
        }
    }
}
