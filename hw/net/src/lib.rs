//! Networks on the host's side: what a network card is connected to, [`Network`].
//!
//! [`user`] is a network of its own behind address translation, [`socket`] carries frames to other programs. Both are
//! made by [`open_network`] from [`NetdevOptions`].
#![deny(unsafe_code)]

mod error;
mod options;
mod port;
pub mod socket;
pub mod user;

pub use error::Error;
pub use options::{DgramOptions, Endpoint, NetdevOptions, StreamOptions};

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

/// Makes a network and starts its thread.
///
/// # Errors
/// What the host refuses: an address in use, a missing directory.
pub fn open_network(options: &NetdevOptions) -> Result<Arc<dyn Network>, Error> {
    Ok(match options {
        NetdevOptions::User(options) => Arc::new(user::UserNetwork::open(options)?),
        NetdevOptions::Stream(options) => Arc::new(socket::open_stream(options)?),
        NetdevOptions::Dgram(options) => Arc::new(socket::open_dgram(options)?),
    })
}
