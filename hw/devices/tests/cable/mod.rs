//! What the tests connect a network card to.

use parking_lot::Mutex;
use std::sync::Arc;
use tulk_net::{FrameSink, Network};

/// A network that keeps what the card sends.
#[derive(Default)]
pub struct Cable {
    sent: Mutex<Vec<Vec<u8>>>,
    ready: Mutex<u32>,
}

impl Network for Cable {
    fn transmit(&self, frame: &[u8]) {
        self.sent.lock().push(frame.to_vec());
    }
    fn connect(&self, _: Arc<dyn FrameSink>) {}
    fn ready(&self) {
        *self.ready.lock() += 1;
    }
    fn describe(&self) -> String {
        "cable".into()
    }
}

impl Cable {
    /// The frames since the last call.
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent.lock())
    }
    /// How often the card had room again since the last call.
    pub fn take_ready(&self) -> u32 {
        std::mem::take(&mut self.ready.lock())
    }
}
