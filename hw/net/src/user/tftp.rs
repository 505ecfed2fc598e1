//! A read-only TFTP server (RFC 1350) with the options blksize, tsize and timeout (RFC 2347, 2348, 2349).
//!
//! Files are opened below one directory by the kernel's own rules (openat2(2), RESOLVE_BENEATH): neither `..` nor a
//! symbolic link leads out of it.

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const PORT: u16 = 69;
/// Transfers at once; one more ends the longest idle one.
const SESSIONS: usize = 20;
const BLOCK: usize = 512;
/// So that a block fits into a frame.
const LARGEST_BLOCK: usize = 1428;
const RETRIES: u32 = 5;

mod opcode {
    pub const READ: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const DATA: u16 = 3;
    pub const ACK: u16 = 4;
    pub const ERROR: u16 = 5;
    pub const OPTIONS: u16 = 6;
}

struct Session {
    guest: SocketAddrV4,
    server: SocketAddrV4,
    file: File,
    size: u64,
    block: usize,
    /// Blocks that the guest has confirmed. The block number on the wire is the low 16 bits of one more.
    confirmed: u64,
    /// What was sent last, for another try.
    last: Vec<u8>,
    timeout: Duration,
    sent: Instant,
    tries: u32,
}

pub(super) struct Tftp {
    root: Option<OwnedFd>,
    sessions: Vec<Session>,
}

/// Something to send: from, to, payload.
pub(super) type Packet = (SocketAddrV4, SocketAddrV4, Vec<u8>);

fn error(code: u16, message: &str) -> Vec<u8> {
    let mut packet = [opcode::ERROR.to_be_bytes(), code.to_be_bytes()].concat();
    packet.extend_from_slice(message.as_bytes());
    packet.push(0);
    packet
}

impl Tftp {
    /// # Errors
    /// The directory cannot be opened.
    pub fn new(root: Option<&Path>) -> std::io::Result<Tftp> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let root = root.map(|path| rustix::fs::open(path, flags, Mode::empty())).transpose()?;
        Ok(Tftp { root, sessions: Vec::new() })
    }

    pub fn enabled(&self) -> bool {
        self.root.is_some()
    }

    /// A datagram from the guest to the server.
    pub fn receive(
        &mut self,
        guest: SocketAddrV4,
        server: SocketAddrV4,
        payload: &[u8],
    ) -> Option<Packet> {
        let (operation, rest) = payload.split_first_chunk()?;
        let answer = match u16::from_be_bytes(*operation) {
            opcode::READ => match self.read(guest, server, rest) {
                Ok(packet) => Some(packet),
                Err((code, message)) => Some(error(code, message)),
            },
            opcode::WRITE => Some(error(2, "access violation")),
            opcode::ACK => {
                let at = self.sessions.iter().position(|s| s.guest == guest)?;
                let number = u16::from_be_bytes(*rest.first_chunk()?);
                match self.sessions[at].confirm(number) {
                    Ok(packet) => packet,
                    Err(packet) => {
                        self.sessions.swap_remove(at);
                        packet
                    }
                }
            }
            opcode::ERROR => {
                self.sessions.retain(|s| s.guest != guest);
                None
            }
            _ => Some(error(4, "illegal operation")),
        };
        answer.map(|packet| (server, guest, packet))
    }

    fn read(
        &mut self,
        guest: SocketAddrV4,
        server: SocketAddrV4,
        request: &[u8],
    ) -> Result<Vec<u8>, (u16, &'static str)> {
        let root = self.root.as_ref().ok_or((2, "access violation"))?;
        let mut words = request.split(|byte| *byte == 0);
        let name = words.next().unwrap_or_default();
        let mode = words.next().unwrap_or_default();
        if !mode.eq_ignore_ascii_case(b"octet") && !mode.eq_ignore_ascii_case(b"netascii") {
            return Err((4, "unsupported transfer mode"));
        }
        // A leading slash is the directory itself; some boot ROMs write backslashes.
        let name = String::from_utf8_lossy(name).replace('\\', "/");
        let name = name.trim_start_matches('/');
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = rustix::fs::openat2(root, name, flags, Mode::empty(), resolve)
            .map_err(|_| (1, "file not found"))?;
        let status = rustix::fs::fstat(&file).map_err(|_| (1, "file not found"))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err((1, "file not found"));
        }
        let mut session = Session {
            guest,
            server,
            file: file.into(),
            size: status.st_size.max(0) as u64,
            block: BLOCK,
            confirmed: 0,
            last: Vec::new(),
            timeout: Duration::from_secs(1),
            sent: Instant::now(),
            tries: 0,
        };
        let packet = match session.negotiate(words) {
            Some(options) => options,
            None => session.data().map_err(|_| (0, "read error"))?,
        };
        session.last.clone_from(&packet);
        self.sessions.retain(|s| s.guest != guest);
        if self.sessions.len() >= SESSIONS {
            let oldest = (0..self.sessions.len()).min_by_key(|&n| self.sessions[n].sent);
            oldest.map(|n| self.sessions.swap_remove(n));
        }
        self.sessions.push(session);
        Ok(packet)
    }

    /// What is to be sent again. Transfers without an answer end.
    pub fn retry(&mut self) -> Vec<Packet> {
        let now = Instant::now();
        let mut packets = Vec::new();
        self.sessions.retain_mut(|session| {
            if now - session.sent < session.timeout {
                return true;
            }
            session.tries += 1;
            session.sent = now;
            packets.push((session.server, session.guest, session.last.clone()));
            session.tries <= RETRIES
        });
        packets
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.sessions.iter().map(|session| session.sent + session.timeout).min()
    }
}

impl Session {
    /// Takes the options that are known. `None`: there are none.
    fn negotiate<'a>(&mut self, mut words: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
        let mut taken = Vec::new();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            let name = name.to_ascii_lowercase();
            let answer = match (&name[..], number) {
                (b"blksize", Some(size)) if size >= 8 => {
                    self.block = usize::try_from(size).unwrap_or(BLOCK).min(LARGEST_BLOCK);
                    self.block as u64
                }
                (b"tsize", Some(_)) => self.size,
                (b"timeout", Some(seconds @ 1..=255)) => {
                    self.timeout = Duration::from_secs(seconds);
                    seconds
                }
                _ => continue,
            };
            taken.extend_from_slice(&name);
            taken.push(0);
            taken.extend_from_slice(answer.to_string().as_bytes());
            taken.push(0);
            if taken.len() > LARGEST_BLOCK {
                break;
            }
        }
        (!taken.is_empty()).then(|| [&opcode::OPTIONS.to_be_bytes()[..], &taken].concat())
    }

    /// The block behind the confirmed ones.
    fn data(&self) -> std::io::Result<Vec<u8>> {
        let number = (self.confirmed + 1) as u16;
        let mut packet = [opcode::DATA.to_be_bytes(), number.to_be_bytes()].concat();
        packet.resize(4 + self.block, 0);
        let mut count = 0;
        while count < self.block {
            let at = self.confirmed * self.block as u64 + count as u64;
            match self.file.read_at(&mut packet[4 + count..], at)? {
                0 => break,
                n => count += n,
            }
        }
        packet.truncate(4 + count);
        Ok(packet)
    }

    /// A confirmation of the guest. `Err`: the transfer is over, with or without a last word.
    fn confirm(&mut self, number: u16) -> Result<Option<Vec<u8>>, Option<Vec<u8>>> {
        let options = self.last.starts_with(&opcode::OPTIONS.to_be_bytes());
        let awaited = if options { 0 } else { (self.confirmed + 1) as u16 };
        if number != awaited {
            // A repeated confirmation is not answered, or every packet would be sent twice from then on (RFC 1123,
            // 4.2.3.1).
            return Ok(None);
        }
        if !options {
            if self.last.len() < 4 + self.block {
                return Err(None);
            }
            self.confirmed += 1;
        }
        self.last = self.data().map_err(|_| Some(error(0, "read error")))?;
        self.sent = Instant::now();
        self.tries = 0;
        Ok(Some(self.last.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(tftp: &mut Tftp, request: &[u8]) -> Result<Vec<u8>, String> {
        let guest = "10.0.2.15:2000".parse().unwrap();
        let server = "10.0.2.2:69".parse().unwrap();
        let mut file = Vec::new();
        let mut answer = tftp.receive(guest, server, request);
        let mut block = BLOCK;
        loop {
            let (_, _, packet) = answer.ok_or("no answer")?;
            let number = match packet[1] {
                5 => return Err(String::from_utf8_lossy(&packet[4..packet.len() - 1]).into()),
                6 => {
                    let text = String::from_utf8_lossy(&packet[2..]).into_owned();
                    let words: Vec<&str> = text.split('\0').collect();
                    let at = words.iter().position(|word| *word == "blksize");
                    block = at.map_or(BLOCK, |at| words[at + 1].parse().unwrap());
                    [0, 0]
                }
                3 => {
                    file.extend_from_slice(&packet[4..]);
                    [packet[2], packet[3]]
                }
                other => panic!("{other}"),
            };
            let ack = [&[0, 4][..], &number].concat();
            answer = tftp.receive(guest, server, &ack);
            if packet[1] == 3 && packet.len() < 4 + block {
                assert!(answer.is_none());
                return Ok(file);
            }
        }
    }

    #[test]
    fn files_arrive_and_nothing_outside_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        let big: Vec<u8> = (0..100_000u32).map(|n| ((n * 7) >> 3) as u8).collect();
        std::fs::write(root.join("sub/big"), &big).unwrap();
        std::fs::write(root.join("even"), [7; 1024]).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("absolute")).unwrap();
        let mut tftp = Tftp::new(Some(&root)).unwrap();
        assert_eq!(fetch(&mut tftp, b"\0\x01even\0octet\0").unwrap(), [7; 1024]);
        assert!(fetch(&mut tftp, b"\0\x01/sub/big\0octet\0").unwrap() == big);
        assert!(
            fetch(&mut tftp, b"\0\x01sub\\big\0OCTET\0blksize\x001428\0tsize\x000\0").unwrap()
                == big
        );
        assert!(tftp.sessions.is_empty());
        for name in
            ["../secret", "sub/../../secret", "/../secret", "link", "absolute", "sub", "", "none"]
        {
            let request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
            assert_eq!(fetch(&mut tftp, &request).unwrap_err(), "file not found", "{name}");
        }
        assert_eq!(fetch(&mut tftp, b"\0\x02new\0octet\0").unwrap_err(), "access violation");
        assert_eq!(
            fetch(&mut tftp, b"\0\x01even\0mail\0").unwrap_err(),
            "unsupported transfer mode"
        );
        for junk in [&b""[..], b"\0", b"\0\x01", b"\0\x04", b"\0\x04\0", b"\0\x01even", b"\0\x07"] {
            tftp.receive("10.0.2.15:3".parse().unwrap(), "10.0.2.2:69".parse().unwrap(), junk);
        }
    }

    #[test]
    fn transfers_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), [0; 4096]).unwrap();
        let mut tftp = Tftp::new(Some(dir.path())).unwrap();
        for port in 1000..2000 {
            let guest = SocketAddrV4::new([10, 0, 2, 15].into(), port);
            tftp.receive(guest, "10.0.2.2:69".parse().unwrap(), b"\0\x01f\0octet\0").unwrap();
        }
        assert_eq!(tftp.sessions.len(), SESSIONS);
    }
}
