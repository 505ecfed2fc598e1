//! The reset control register of the PIIX (port 0xcf9): data sheet 290550-002, section 2.5.4.2.
//!
//! Not modelled: a difference between hard and soft reset other than which callback's argument says.

use serde::{Deserialize, Serialize};
use tulk_hw::{Device, Snapshot, SnapshotError};

/// System reset: hard (1) or soft (0).
const SRST: u8 = 1 << 1;
/// Its rise resets.
const RCPU: u8 = 1 << 2;
const WRITABLE: u8 = 0x0e;

#[derive(Clone, Serialize, Deserialize, Debug, PartialEq, Eq)]
struct State {
    rcr: u8,
}

/// Window 0 is its one port. It lies among the ports of PCI configuration: the board maps it over them; only bytes are
/// its own.
pub struct ResetControl {
    state: State,
    reset: Box<dyn Fn(bool) + Send>,
}

impl ResetControl {
    /// `reset(hard)` is called when the guest asks for a reset.
    pub fn new(reset: impl Fn(bool) + Send + 'static) -> ResetControl {
        ResetControl { state: State { rcr: 0 }, reset: Box::new(reset) }
    }
}

impl Device for ResetControl {
    fn name(&self) -> &'static str {
        "reset-control"
    }
    fn reset(&mut self) {
        self.state.rcr = 0;
    }
    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |port| if port == 0 { self.state.rcr } else { 0xff })
    }
    fn write(&mut self, _window: u8, offset: u64, _bytes: u8, value: u64) {
        if offset != 0 {
            return;
        }
        let rises = value as u8 & !self.state.rcr & RCPU != 0;
        // The bit that resets does not stay: after the reset it is clear.
        self.state.rcr = value as u8 & WRITABLE & !RCPU;
        if rises {
            (self.reset)(value as u8 & SRST != 0);
        }
    }
    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.state = tulk_hw::load_state(self.name(), snapshot)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn conforms_and_resets() {
        let (sender, resets) = mpsc::channel();
        let mut port = ResetControl::new(move |hard| sender.send(hard).unwrap());
        port.write(0, 0, 1, 2);
        assert_eq!((resets.try_iter().count(), port.read(0, 0, 1)), (0, 2));
        port.write(0, 0, 1, 6);
        port.write(0, 0, 1, 4);
        assert_eq!(resets.try_iter().collect::<Vec<_>>(), [true, false]);
        tulk_hw::check_device(&mut port, &[1], 5_000);
    }
}
