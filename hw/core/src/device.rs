//! The [`Device`] trait.

use serde::{Serialize, de::DeserializeOwned};
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

/// A device's state struct as its snapshot.
///
/// # Panics
/// When the state is not plain data.
pub fn save_state(state: &impl Serialize) -> Snapshot {
    serde_json::to_value(state).expect("a device's state is plain data")
}

/// The state struct in a snapshot. The caller still checks what its types do not: lengths, indices.
///
/// # Errors
/// It is another device's, or damaged.
pub fn load_state<S: DeserializeOwned>(
    device: &str,
    snapshot: &Snapshot,
) -> Result<S, SnapshotError> {
    S::deserialize(snapshot).map_err(|e| snapshot_error(device, e.to_string()))
}

/// A refused snapshot.
pub fn snapshot_error(device: &str, reason: impl Into<String>) -> SnapshotError {
    SnapshotError { device: device.to_owned(), reason: reason.into() }
}

/// As many ones as an access of `bytes` bytes (1 to 8) has bits: what reads give where nobody answers, and the access's mask.
pub fn ones(bytes: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(bytes.clamp(1, 8)))
}

/// An access to registers that are a byte wide: each byte by itself, lowest address first.
pub fn read_bytes(offset: u64, bytes: u8, mut byte: impl FnMut(u64) -> u8) -> u64 {
    (0..u64::from(bytes.min(8)))
        .fold(0, |value, n| value | u64::from(byte(offset.wrapping_add(n))) << (8 * n))
}

/// The write that belongs to [`read_bytes`].
pub fn write_bytes(offset: u64, bytes: u8, value: u64, mut byte: impl FnMut(u64, u8)) {
    for n in 0..u64::from(bytes.min(8)) {
        byte(offset.wrapping_add(n), (value >> (8 * n)) as u8);
    }
}
