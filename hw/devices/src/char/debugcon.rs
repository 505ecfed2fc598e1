//! The debug console port of Bochs (0xe9) and of SeaBIOS (0x402): each byte written goes out, reads give 0xe9, by
//! which guests know that it is there. Nothing else is there to model.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Device, Snapshot, SnapshotError};
use tulk_ui::CharBackend;

const PRESENT: u8 = 0xe9;

/// It has no state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {}

/// One port, window 0.
pub struct Debugcon {
    backend: Arc<dyn CharBackend>,
}

impl Debugcon {
    pub fn new(backend: Arc<dyn CharBackend>) -> Debugcon {
        Debugcon { backend }
    }
}

impl Device for Debugcon {
    fn name(&self) -> &'static str {
        "debugcon"
    }
    fn reset(&mut self) {}
    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |port| if port == 0 { PRESENT } else { 0xff })
    }
    fn write(&mut self, _window: u8, offset: u64, _bytes: u8, value: u64) {
        if offset == 0 {
            self.backend.write(&[value as u8]);
        }
    }
    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&State {})
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        tulk_hw::load_state::<State>(self.name(), snapshot).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::char::uart16550::tests::Recorder;

    #[test]
    fn conforms_and_writes() {
        let out = Arc::new(Recorder::default());
        let mut port = Debugcon::new(out.clone());
        port.write(0, 0, 1, 0x41);
        assert_eq!((port.read(0, 0, 1), port.read(0, 0, 2)), (0xe9, 0xffe9));
        assert_eq!(out.take(), b"A");
        tulk_hw::check_device(&mut port, &[1], 5_000);
    }
}
