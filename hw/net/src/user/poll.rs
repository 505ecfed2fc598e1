//! Which host socket is ready: epoll(7) with names for what is waited for.

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Bell,
    Tcp,
    TcpListener,
    Udp,
    UdpListener,
    Icmp,
}

const KINDS: [Kind; 6] =
    [Kind::Bell, Kind::Tcp, Kind::TcpListener, Kind::Udp, Kind::UdpListener, Kind::Icmp];

/// Whose event it is. A number is never used again for another socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub id: u64,
}

pub(super) struct Event {
    pub token: Token,
    pub readable: bool,
    pub writable: bool,
}

pub(super) struct Poller(OwnedFd);

impl Poller {
    pub fn new() -> io::Result<Poller> {
        Ok(Poller(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Reports as long as there is something to read.
    pub fn level(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, token.data(), epoll::EventFlags::IN)?)
    }

    /// Reports when it begins to be readable or writable.
    pub fn edge(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        Ok(epoll::add(&self.0, socket, token.data(), flags)?)
    }

    /// Waits, without end for `None`.
    pub fn wait(
        &self,
        events: &mut Vec<epoll::Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        events.clear();
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        match epoll::wait(&self.0, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Token {
    fn data(self) -> epoll::EventData {
        epoll::EventData::new_u64((self.kind as u64) << 56 | self.id)
    }
}

impl Event {
    pub fn from(event: &epoll::Event) -> Option<Event> {
        use epoll::EventFlags as Flags;
        let data = event.data.u64();
        let kind = *KINDS.get((data >> 56) as usize)?;
        let flags = event.flags;
        let broken = flags.intersects(Flags::ERR | Flags::HUP);
        Some(Event {
            token: Token { kind, id: data & (u64::MAX >> 8) },
            readable: broken || flags.intersects(Flags::IN | Flags::RDHUP),
            writable: broken || flags.contains(Flags::OUT),
        })
    }
}
