//! System control port A (0x92) of the PS/2 and its successors: fast A20 gate and fast processor reset.
//!
//! Not modelled: the security lock and the disk activity lights, whose bits are only kept.

use super::A20Gate;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Device, Snapshot, SnapshotError};

const FAST_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;

/// The gate is among it, although it is not this device's alone.
#[derive(Clone, Serialize, Deserialize, Debug, PartialEq, Eq)]
struct State {
    value: u8,
}

/// Window 0 is its one port.
pub struct Port92 {
    state: State,
    a20: Arc<dyn A20Gate>,
    reset_cpu: Box<dyn Fn() + Send>,
}

impl Port92 {
    /// `reset_cpu` is called when the reset bit goes up.
    pub fn new(a20: Arc<dyn A20Gate>, reset_cpu: impl Fn() + Send + 'static) -> Port92 {
        Port92 { state: State { value: 0 }, a20, reset_cpu: Box::new(reset_cpu) }
    }

    fn value(&self) -> u8 {
        self.state.value & !A20 | if self.a20.is_open() { A20 } else { 0 }
    }
}

impl Device for Port92 {
    fn name(&self) -> &'static str {
        "port92"
    }
    fn reset(&mut self) {
        // As firmware leaves it: the gate is open.
        self.state.value = 0;
        self.a20.set(true);
    }
    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |port| if port == 0 { self.value() } else { 0xff })
    }
    fn write(&mut self, _window: u8, offset: u64, _bytes: u8, value: u64) {
        if offset != 0 {
            return;
        }
        let rises = value as u8 & !self.state.value & FAST_RESET != 0;
        self.state.value = value as u8;
        self.a20.set(value as u8 & A20 != 0);
        if rises {
            (self.reset_cpu)();
        }
    }
    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&State { value: self.value() })
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.state = tulk_hw::load_state(self.name(), snapshot)?;
        self.a20.set(self.state.value & A20 != 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::misc::LooseGate;
    use std::sync::mpsc;

    #[test]
    fn conforms_gates_and_resets() {
        let gate = LooseGate::new();
        let (reset, resets) = mpsc::channel();
        let mut port = Port92::new(gate.clone(), move || reset.send(()).unwrap());
        assert_eq!(port.read(0, 0, 1), 2);
        for (value, open) in [(0, false), (2, true), (3, true), (3, true), (0x40, false), (2, true)]
        {
            port.write(0, 0, 1, value);
            assert_eq!((gate.is_open(), port.read(0, 0, 1)), (open, value));
        }
        assert_eq!(resets.try_iter().count(), 1);
        // The other master closes it.
        gate.set(false);
        assert_eq!(port.read(0, 0, 1), 0);
        tulk_hw::check_device(&mut port, &[1], 5_000);
    }
}
