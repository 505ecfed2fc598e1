//! Network cards, and what a board needs to connect one: [`Nic`] and [`Socket`].

pub mod offload;

pub mod e1000;

use parking_lot::Mutex;
use std::sync::Arc;
use tulk_hw::Device;
use tulk_net::FrameSink;

/// A network card as the host's side sees it. Behind each call its deadline may have changed.
pub trait Nic: Device {
    /// A frame from the network, without checksum. False: no room now; the card calls [`tulk_net::Network::ready`] when there
    /// is. Frames that the card filters out, or that it cannot take at all, are taken and forgotten.
    fn receive(&mut self, frame: &[u8]) -> bool;

    /// Plugs or pulls the cable.
    fn set_link(&mut self, up: bool);
}

/// Tells a board of a device's deadline ([`Device::deadline`]) behind a call that did not come from the board.
pub type Notice = Box<dyn Fn(Option<u64>) + Send + Sync>;

/// The end of a network's cable: hands frames to a card behind its lock.
pub struct Socket<N: Nic + ?Sized> {
    pub card: Arc<Mutex<N>>,
    pub notice: Notice,
}

impl<N: Nic + ?Sized> FrameSink for Socket<N> {
    fn receive(&self, frame: &[u8]) -> bool {
        let mut card = self.card.lock();
        let taken = card.receive(frame);
        (self.notice)(card.deadline());
        taken
    }
}
