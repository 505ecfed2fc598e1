//! The port by which a guest ends the emulator (isa-debug-exit): a write of `value` exits with status
//! `(value << 1) | 1`. Reads give zero.

use serde::{Deserialize, Serialize};
use tulk_hw::{Device, Snapshot, SnapshotError};

/// It has no state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {}

/// Window 0 is its ports, as many as the board gives it (usually 2 at 0x501).
pub struct DebugExit {
    exit: Box<dyn Fn(i32) + Send>,
}

impl DebugExit {
    /// `exit` gets the status.
    pub fn new(exit: impl Fn(i32) + Send + 'static) -> DebugExit {
        DebugExit { exit: Box::new(exit) }
    }
}

impl Device for DebugExit {
    fn name(&self) -> &'static str {
        "isa-debug-exit"
    }
    fn reset(&mut self) {}
    fn read(&mut self, _window: u8, _offset: u64, _bytes: u8) -> u64 {
        0
    }
    fn write(&mut self, _window: u8, _offset: u64, bytes: u8, value: u64) {
        (self.exit)((((value & tulk_hw::ones(bytes)) as u32) << 1 | 1) as i32);
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
    use std::sync::mpsc;

    #[test]
    fn conforms_and_exits() {
        let (sender, statuses) = mpsc::channel();
        let mut port = DebugExit::new(move |status| sender.send(status).unwrap());
        port.write(0, 0, 1, 0xf10);
        port.write(0, 0, 4, 0x31);
        assert_eq!(statuses.try_iter().collect::<Vec<_>>(), [0x21, 0x63]);
        tulk_hw::check_device(&mut port, &[4], 5_000);
    }
}
