//! Networks on the host's side: what a network card is connected to, [`Network`].
#![deny(unsafe_code)]

use std::sync::Arc;

/// Longest Ethernet frame that is passed on, without checksum.
pub const MAX_FRAME: usize = 65_550;

/// Takes frames from a network: a network card.
pub trait FrameSink: Send + Sync {
    /// One Ethernet frame, without checksum. False: no room now; the card calls [`Network::ready`] when there is.
    fn receive(&self, frame: &[u8]) -> bool;
}

/// Something that carries Ethernet frames. All methods return quickly and may be called from any thread; frames come
/// on the network's own thread.
pub trait Network: Send + Sync {
    /// A frame from the card. Lost when the network cannot keep up.
    fn transmit(&self, frame: &[u8]);
    /// Where frames for the card go.
    fn connect(&self, card: Arc<dyn FrameSink>);
    /// The card has room again.
    fn ready(&self);
    /// A line for the monitor's `info network`.
    fn describe(&self) -> String;
}
