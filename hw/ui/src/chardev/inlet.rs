//! Bytes on their way to the guest: [`Intake`], and [`Inlet`], a thread that reads them from a file that may block.

use crate::CharSink;
use crate::worker::Worker;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A bell for a thread in poll(2).
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub fn new() -> std::io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }
    pub fn ring(&self) {
        // It fails only when it rings already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The guest's side of the way in, and what the guest had no room for yet.
pub(super) struct Intake {
    sink: Mutex<Option<Arc<dyn CharSink>>>,
    pub bell: Bell,
    pub stop: AtomicBool,
}

impl Intake {
    pub fn new() -> std::io::Result<Intake> {
        Ok(Intake { sink: Mutex::default(), bell: Bell::new()?, stop: AtomicBool::new(false) })
    }
    pub fn connect(&self, sink: Arc<dyn CharSink>) {
        *self.sink.lock() = Some(sink);
        self.bell.ring();
    }
    /// Hands bytes over, as many as there is room for. True: there is room for more.
    pub fn offer(&self, pending: &mut Vec<u8>) -> bool {
        // Not under the lock: the device's lock is taken in there.
        let Some(sink) = self.sink.lock().clone() else { return false };
        sink.resume();
        while !pending.is_empty() {
            let taken = sink.receive(pending).min(pending.len());
            if taken == 0 {
                return false;
            }
            pending.drain(..taken);
        }
        true
    }
    /// Tells the guest's side of a peer, once it is there to be told; `told` remembers.
    pub fn open(&self, told: &mut bool) {
        if *told {
            return;
        }
        let Some(sink) = self.sink.lock().clone() else { return };
        *told = true;
        sink.opened();
    }
    pub fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// A reading thread. It reads only when the guest has taken everything before.
pub(super) struct Inlet {
    pub intake: Arc<Intake>,
    _worker: Worker,
}

impl Inlet {
    pub fn new(source: impl AsFd + Send + 'static) -> std::io::Result<Inlet> {
        let intake = Arc::new(Intake::new()?);
        let _worker = Worker::start("chardev in", {
            let intake = intake.clone();
            move || run(&intake, source.as_fd())
        })?;
        Ok(Inlet { intake, _worker })
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.intake.end();
    }
}

fn run(intake: &Intake, source: BorrowedFd<'_>) {
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    let mut ended = false;
    while !intake.stop.load(Ordering::Acquire) {
        let room = intake.offer(&mut pending);
        let mut fds = vec![PollFd::from_borrowed_fd(intake.bell.fd(), PollFlags::IN)];
        if room && !ended {
            fds.push(PollFd::from_borrowed_fd(source, PollFlags::IN));
        }
        if let Err(error) = poll(&mut fds, None)
            && error != Errno::INTR
        {
            return;
        }
        if !fds[0].revents().is_empty() {
            intake.bell.silence();
        }
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            match rustix::io::read(source, &mut buffer) {
                Ok(0) => ended = true,
                Ok(count) => pending.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                // The terminal has gone away, or there never was an input.
                Err(_) => ended = true,
            }
        }
    }
}
