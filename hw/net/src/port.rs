//! The card's plug in a network: [`Port`] hands frames between the threads of the guest and the network's own thread.

use crate::{FrameSink, MAX_FRAME};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Bytes of frames that wait for the network's thread; more are lost.
const FROM_CARD: usize = 4 << 20;
/// Bytes of frames that wait for the card; more are lost.
const TO_CARD: usize = 1 << 20;

/// Frames one behind the other, without an allocation for each.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(&(frame.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(frame);
    }
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let (frame, behind) = behind.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
            rest = behind;
            Some(frame)
        })
    }
}

/// Shared between the guest's threads and the network's.
pub(crate) struct Port {
    from_card: Mutex<Frames>,
    sink: Mutex<Option<Arc<dyn FrameSink>>>,
    bell: OwnedFd,
    stop: AtomicBool,
    pub lost: AtomicU64,
}

impl Port {
    pub fn new() -> std::io::Result<Port> {
        Ok(Port {
            from_card: Mutex::default(),
            sink: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stop: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        })
    }
    /// Rings when there are frames of the card, room in the card, or when the network is to end.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
    pub fn ring(&self) {
        // It fails only when it rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
    }
    pub fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }
    pub fn ended(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
    pub fn connect(&self, card: Arc<dyn FrameSink>) {
        *self.sink.lock() = Some(card);
        self.ring();
    }
    /// Called by the card.
    pub fn transmit(&self, frame: &[u8]) {
        let mut frames = self.from_card.lock();
        if frame.len() > MAX_FRAME || frames.bytes.len() + frame.len() > FROM_CARD {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = frames.bytes.is_empty();
        frames.push(frame);
        drop(frames);
        if first {
            self.ring();
        }
    }
    /// What the card has sent. `frames` is empty before.
    pub fn take(&self, frames: &mut Frames) {
        std::mem::swap(&mut *self.from_card.lock(), frames);
    }
}

/// The network's thread. It ends with this.
pub(crate) struct Worker {
    port: Arc<Port>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// `run` returns when the port has ended.
    pub fn start(
        name: &str,
        port: Arc<Port>,
        run: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Worker> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Worker { port, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.port.end();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// The network's thread's way to the card. A frame that the card has no room for waits for [`ToCard::retry`].
pub(crate) struct ToCard {
    port: Arc<Port>,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl ToCard {
    pub fn new(port: Arc<Port>) -> ToCard {
        ToCard { port, waiting: VecDeque::new(), bytes: 0 }
    }
    /// The card is full: who can wait should.
    pub fn blocked(&self) -> bool {
        !self.waiting.is_empty()
    }
    pub fn send(&mut self, frame: &[u8]) {
        if !self.blocked() {
            // Not under the lock: the card's lock is taken in there.
            let sink = self.port.sink.lock().clone();
            if sink.is_none_or(|sink| sink.receive(frame)) {
                return;
            }
        }
        if self.bytes + frame.len() > TO_CARD {
            self.port.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.bytes += frame.len();
        self.waiting.push_back(frame.to_vec());
    }
    /// Offers what waits. True: nothing is left.
    pub fn retry(&mut self) -> bool {
        let sink = self.port.sink.lock().clone();
        while let Some(frame) = self.waiting.front() {
            if !sink.as_ref().is_none_or(|sink| sink.receive(frame)) {
                return false;
            }
            self.bytes -= frame.len();
            self.waiting.pop_front();
        }
        true
    }
}
