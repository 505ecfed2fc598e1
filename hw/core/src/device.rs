//! The [`Device`] trait.

use thiserror::Error;

/// A device's state as data.
pub type Snapshot = serde_json::Value;

#[derive(Error, Debug)]
#[error("the saved state of {device} does not fit: {reason}")]
pub struct SnapshotError {
    pub device: String,
    pub reason: String,
}

/// A device as a board sees it. Its windows (port ranges, memory ranges, PCI BARs) are numbered by the device's own
/// constants. No access may panic, whatever its offset, size and value are, and none may loop long.
pub trait Device: Send {
    /// Short name for logs and the monitor, as users know the chip: `i8259`, `virtio-blk`.
    fn name(&self) -> &'static str;

    /// Back to the state behind power-on; keeps what it is connected to.
    fn reset(&mut self);

    /// Reads `bytes` (1, 2, 4 or 8) at `offset` in a window.
    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64;

    /// Writes the low `bytes` bytes of `value`.
    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64);

    /// Guest time in nanoseconds at which [`Device::tick`] wants to be called, if at all. Asked after each call.
    fn deadline(&self) -> Option<u64> {
        None
    }

    /// The deadline has come; `now` is at or behind it.
    fn tick(&mut self, now: u64) {
        let _ = now;
    }

    /// The whole guest-visible state.
    fn save(&self) -> Snapshot;

    /// # Errors
    /// The snapshot is another device's, or damaged. The device is unchanged then.
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError>;
}
