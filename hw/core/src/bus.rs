//! An address space of devices: which device answers at which address.

use crate::Device;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
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

/// Addresses at which one window answers.
#[derive(Clone)]
struct Piece {
    range: Range<u64>,
    mapped: Mapped,
}

/// A map of addresses to windows (I/O ports, or device memory). Later windows hide earlier ones where they overlap, and
/// may be removed again, as PCI BARs move.
///
/// Accesses take no lock of the map: they see it as it was before or after a change.
#[derive(Default)]
pub struct Bus {
    /// As they were mapped.
    windows: Mutex<Vec<Piece>>,
    /// What is seen of them: sorted pieces that do not overlap.
    pieces: ArcSwap<Vec<Piece>>,
}

impl Bus {
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Maps `range` to a device's window, whose offset 0 is at `range.start`.
    pub fn map(&self, range: Range<u64>, device: Arc<Mutex<dyn Device>>, window: u8) {
        let mut windows = self.windows.lock();
        windows.push(Piece { range, mapped: Mapped { device, window, offset: 0 } });
        self.pieces.store(Arc::new(visible(&windows)));
    }

    /// Removes the mapping of this device's window, if there is one.
    pub fn unmap(&self, device: &Arc<Mutex<dyn Device>>, window: u8) {
        let mut windows = self.windows.lock();
        windows.retain(|p| !(same(&p.mapped.device, device) && p.mapped.window == window));
        self.pieces.store(Arc::new(visible(&windows)));
    }

    /// The device at an address, and the offset in its window.
    pub fn find(&self, address: u64) -> Option<(Mapped, u64)> {
        self.with(address, 1, |mapped, offset, _| (mapped.clone(), offset))
    }

    /// Calls `access` with the window at an address, the offset there, and how many of the `bytes` from there on are
    /// the same window's. `None` without a device.
    #[inline]
    pub fn with<R>(
        &self,
        address: u64,
        bytes: u8,
        access: impl FnOnce(&Mapped, u64, u8) -> R,
    ) -> Option<R> {
        let pieces = self.pieces.load();
        let n = pieces.partition_point(|piece| piece.range.end <= address);
        let piece = pieces.get(n).filter(|piece| piece.range.start <= address)?;
        let inside = (piece.range.end - address).min(bytes.into()) as u8;
        Some(access(&piece.mapped, address - piece.range.start + piece.mapped.offset, inside))
    }

    /// The ranges in use with the names of their devices, in order of addresses.
    pub fn list(&self) -> Vec<(Range<u64>, &'static str)> {
        // A copy: a device may be in the middle of moving its windows.
        let mut all = self.windows.lock().clone();
        all.sort_by_key(|piece| piece.range.start);
        all.into_iter().map(|p| (p.range, p.mapped.device.lock().name())).collect()
    }
}

fn same(a: &Arc<Mutex<dyn Device>>, b: &Arc<Mutex<dyn Device>>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

/// What is seen of windows of which later ones hide earlier ones.
fn visible(windows: &[Piece]) -> Vec<Piece> {
    let mut ends: Vec<u64> = windows.iter().flat_map(|p| [p.range.start, p.range.end]).collect();
    ends.sort_unstable();
    ends.dedup();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut last = usize::MAX;
    for range in ends.windows(2).map(|w| w[0]..w[1]) {
        let Some(n) = windows.iter().rposition(|p| p.range.contains(&range.start)) else {
            last = usize::MAX;
            continue;
        };
        if n == last {
            // Goes on behind the end of a window that it hides.
            pieces.last_mut().expect("the piece before").range.end = range.end;
            continue;
        }
        last = n;
        let Piece { range: whole, mapped } = &windows[n];
        let mut mapped = mapped.clone();
        mapped.offset += range.start - whole.start;
        pieces.push(Piece { range, mapped });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Snapshot, SnapshotError};

    struct Nothing;

    impl Device for Nothing {
        fn name(&self) -> &'static str {
            "nothing"
        }
        fn reset(&mut self) {}
        fn read(&mut self, _: u8, _: u64, _: u8) -> u64 {
            0
        }
        fn write(&mut self, _: u8, _: u64, _: u8, _: u64) {}
        fn save(&self) -> Snapshot {
            Snapshot::Null
        }
        fn load(&mut self, _: &Snapshot) -> Result<(), SnapshotError> {
            Ok(())
        }
    }

    fn at(bus: &Bus, address: u64) -> Option<(u8, u64)> {
        bus.find(address).map(|(m, offset)| (m.window, offset))
    }

    #[test]
    fn later_windows_hide_earlier_ones() {
        let bus = Bus::new();
        let device: Arc<Mutex<dyn Device>> = Arc::new(Mutex::new(Nothing));
        bus.map(0x100..0x200, device.clone(), 0);
        bus.map(0x140..0x150, device.clone(), 1);
        bus.map(0x180..0x280, device.clone(), 2);
        assert_eq!(at(&bus, 0xff), None);
        assert_eq!(at(&bus, 0x13f), Some((0, 0x3f)));
        assert_eq!(at(&bus, 0x14f), Some((1, 0xf)));
        assert_eq!(at(&bus, 0x150), Some((0, 0x50)));
        assert_eq!(at(&bus, 0x27f), Some((2, 0xff)));
        assert_eq!(at(&bus, 0x280), None);
        assert_eq!(bus.with(0x13e, 4, |_, _, inside| inside), Some(2), "the rest is another's");
        assert_eq!(bus.with(0x1fe, 4, |_, _, inside| inside), Some(4), "one piece");
        bus.unmap(&device, 1);
        assert_eq!(at(&bus, 0x145), Some((0, 0x45)));
        bus.unmap(&device, 2);
        assert_eq!(at(&bus, 0x190), Some((0, 0x90)));
        assert_eq!(bus.list().len(), 1);
    }
}
