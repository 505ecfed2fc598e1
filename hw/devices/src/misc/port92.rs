//! System control port A (0x92) of the PS/2 and its successors: fast A20 gate and fast processor reset.
//!
//! Not modelled: the security lock and the disk activity lights, whose bits are only kept.

use serde::{Deserialize, Serialize};
use tulk_hw::{Device, Snapshot, SnapshotError};

const FAST_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;

#[derive(Clone, Serialize, Deserialize, Debug, PartialEq, Eq)]
struct State {
    value: u8,
}

/// Window 0 is its one port.
pub struct Port92 {
    state: State,
    a20: Box<dyn Fn(bool) + Send>,
    reset_cpu: Box<dyn Fn() + Send>,
}

impl Port92 {
    /// `a20` gets the gate's level at each write; `reset_cpu` is called when the reset bit goes up.
    pub fn new(
        a20: impl Fn(bool) + Send + 'static,
        reset_cpu: impl Fn() + Send + 'static,
    ) -> Port92 {
        Port92 { state: State { value: A20 }, a20: Box::new(a20), reset_cpu: Box::new(reset_cpu) }
    }

    /// The gate was moved by the keyboard controller: the port shows it.
    pub fn set_a20(&mut self, on: bool) {
        self.state.value = self.state.value & !A20 | if on { A20 } else { 0 };
    }
}

impl Device for Port92 {
    fn name(&self) -> &'static str {
        "port92"
    }
    fn reset(&mut self) {
        // As firmware leaves it: the gate is open.
        self.state.value = A20;
        (self.a20)(true);
    }
    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |port| if port == 0 { self.state.value } else { 0xff })
    }
    fn write(&mut self, _window: u8, offset: u64, _bytes: u8, value: u64) {
        if offset != 0 {
            return;
        }
        let rises = value as u8 & !self.state.value & FAST_RESET != 0;
        self.state.value = value as u8;
        (self.a20)(self.state.value & A20 != 0);
        if rises {
            (self.reset_cpu)();
        }
    }
    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.state = tulk_hw::load_state(self.name(), snapshot)?;
        (self.a20)(self.state.value & A20 != 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn conforms_gates_and_resets() {
        let (gate, gates) = mpsc::channel();
        let (reset, resets) = mpsc::channel();
        let mut port =
            Port92::new(move |on| gate.send(on).unwrap(), move || reset.send(()).unwrap());
        for value in [0, 2, 3, 3, 2] {
            port.write(0, 0, 1, value);
        }
        assert_eq!(gates.try_iter().collect::<Vec<_>>(), [false, true, true, true, true]);
        assert_eq!(resets.try_iter().count(), 1);
        port.set_a20(false);
        assert_eq!(port.read(0, 0, 1), 0);
        tulk_hw::check_device(&mut port, &[1], 5_000);
    }
}
