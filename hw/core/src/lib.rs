//! What a device is, and what it is given: [`Device`], interrupt lines, the clock, guest memory for DMA.
//!
//! A device is a plain value. It knows no bus, thread or global: accesses come by method calls with offsets into its
//! own windows, time comes from an injected [`Clock`] and by [`Device::tick`], interrupts leave by [`IrqLine`]s, data by
//! [`Dma`] and by the host-side traits of `hw/block`, `hw/net` and `hw/ui`. Its state is one serialisable value, which
//! is also its snapshot. `hw/pc` places devices into the address spaces by tables.
//!
//! Locking: a board holds one lock per device and takes it for each call. A device that raises an interrupt line calls
//! into an interrupt controller, so interrupt controllers never call back into devices.
#![forbid(unsafe_code)]

mod bus;
mod clock;
mod conformance;
mod device;
mod dma;
mod irq;

pub use bus::{Bus, Mapped};
pub use clock::{Clock, ManualClock};
pub use conformance::check_device;
pub use device::{Device, Snapshot, SnapshotError};
pub use device::{load_state, ones, read_bytes, save_state, snapshot_error, write_bytes};
pub use dma::{Dma, VecMemory};
pub use irq::{IrqInputs, IrqLine, IrqSink, RecordedIrqs};
