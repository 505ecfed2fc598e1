//! PCI Local Bus 3.0 as guests see it: configuration space, functions, the bus and its interrupt wires.
//!
//! A function is a [`tulk_hw::Device`] whose windows 0 to 5 are its BARs and whose window [`ROM_WINDOW`] is its expansion
//! ROM, with a [`ConfigSpace`] beside it ([`PciFunction`]). [`PciBus`] finds functions by slot, and tells the board by
//! [`BarMapper`] where their windows are. Interrupts leave by [`ConfigSpace::set_interrupt`] (INTx) and
//! [`ConfigSpace::notify`] (MSI, MSI-X).
//!
//! Order of locks: the bus, then a function, then interrupt routers and controllers. The mapper is called without a
//! function's lock.
//!
//! Not modelled: bridges (type 1 headers), hotplug, PCI Express capabilities, power management states, parity and
//! system errors.

mod bus;
mod config;
pub mod i440fx;
mod message;
pub mod piix3;
pub mod piix4_pm;
mod pirq;

pub use bus::{AddFunctionError, BarMapper, BusMapper, FunctionInfo, PciBus};
pub use config::{Bar, ConfigSpace, ConfigState, Identity, Mapping, Space, command, reg, status};
pub use message::Msix;
pub use pirq::PirqRouter;

use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use tulk_hw::{Device, Snapshot, SnapshotError};

/// The window number of a function's expansion ROM.
pub const ROM_WINDOW: u8 = 6;

/// A PCI function. Windows 0 to 5 of the device are its BARs, 6 its expansion ROM; further ones are its own.
pub trait PciFunction: Device {
    fn config(&self) -> &ConfigSpace;
    fn config_mut(&mut self) -> &mut ConfigSpace;

    /// Reads 1, 2 or 4 bytes of configuration space; does not cross a multiple of 4.
    fn config_read(&mut self, offset: u16, bytes: u8) -> u32 {
        self.config().read(offset, bytes)
    }

    fn config_write(&mut self, offset: u16, bytes: u8, value: u32) {
        self.config_mut().write(offset, bytes, value);
    }

    /// Where the windows are decoded now. Functions with windows outside of BARs add them.
    fn mappings(&self) -> Vec<Mapping> {
        self.config().mappings()
    }

    /// The device and its window that stand behind window `window` of this function, if it is not the function itself.
    fn window_device(&self, window: u8) -> Option<(Arc<Mutex<dyn Device>>, u8)> {
        let _ = window;
        None
    }
}

/// The snapshot of a function: its configuration space beside its own state.
pub fn save_function<S: Serialize>(config: &ConfigSpace, state: &S) -> Snapshot {
    serde_json::json!({ "config": config.state(), "state": state })
}

/// Loads configuration space from a snapshot of [`save_function`], and gives the function's own state.
///
/// # Errors
/// The snapshot is another function's or damaged, or `check` says what is wrong with the state. `config` is unchanged
/// then.
pub fn load_function<S: DeserializeOwned>(
    device: &str,
    config: &mut ConfigSpace,
    snapshot: &Snapshot,
    check: impl FnOnce(&S) -> Result<(), String>,
) -> Result<S, SnapshotError> {
    let error = |reason: String| SnapshotError { device: device.to_string(), reason };
    let part = |name: &str| snapshot.get(name).ok_or_else(|| error(format!("{name} is missing")));
    let new = ConfigState::deserialize_checked(part("config")?).map_err(error)?;
    let state = S::deserialize(part("state")?).map_err(|e| error(e.to_string()))?;
    check(&state).map_err(error)?;
    config.set_state(new).map_err(error)?;
    Ok(state)
}
