//! An address space of devices: which device answers at which address.

use crate::Device;
use parking_lot::{Mutex, RwLock};
use std::ops::Range;
use std::sync::Arc;

/// A device's window at a place in an address space.
#[derive(Clone)]
pub struct Mapped {
    pub device: Arc<Mutex<dyn Device>>,
    /// The device's own number of the window.
    pub window: u8,
    /// Offset within the window of the first address.
    pub offset: u64,
}

/// A map of addresses to windows (I/O ports, or device memory). Later windows hide earlier ones where they overlap, and
/// may be removed again, as PCI BARs move.
#[derive(Default)]
pub struct Bus {
    windows: RwLock<Vec<(Range<u64>, Mapped)>>,
}

impl Bus {
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Maps `range` to a device's window, whose offset 0 is at `range.start`.
    pub fn map(&self, range: Range<u64>, device: Arc<Mutex<dyn Device>>, window: u8) {
        self.windows.write().push((range, Mapped { device, window, offset: 0 }));
    }

    /// Removes the mapping of this device's window, if there is one.
    pub fn unmap(&self, device: &Arc<Mutex<dyn Device>>, window: u8) {
        self.windows
            .write()
            .retain(|(_, m)| !(Arc::ptr_eq(&m.device, device) && m.window == window));
    }

    /// The device at an address, and the offset in its window.
    pub fn find(&self, address: u64) -> Option<(Mapped, u64)> {
        let windows = self.windows.read();
        let (range, mapped) = windows.iter().rev().find(|(range, _)| range.contains(&address))?;
        Some((mapped.clone(), address - range.start + mapped.offset))
    }

    /// The ranges in use with the names of their devices, in order of addresses.
    pub fn list(&self) -> Vec<(Range<u64>, &'static str)> {
        let mut all: Vec<_> = self
            .windows
            .read()
            .iter()
            .map(|(range, m)| (range.clone(), m.device.lock().name()))
            .collect();
        all.sort_by_key(|(range, _)| range.start);
        all
    }
}
