//! The PC: memory map, interrupt map, board, firmware tables. The machine `pc` is an i440FX with a PIIX3.
//!
//! [`wiring::build`] makes a [`Pc`] from a [`Description`]: the board that processors run on (`tulk_base::Board`). What
//! the guest asks of the world outside comes as [`Event`]s.
#![forbid(unsafe_code)]

pub mod acpi;
mod board;
pub mod boot;
mod clock;
pub mod firmware;
mod irq;
pub mod layout;
mod memory;
pub mod smbios;
mod timers;
pub mod wiring;

pub use board::{Event, EventSink, Kicks, Pc, Processors};
pub use clock::MachineClock;
pub use memory::{Memory, MemoryError};
pub use timers::SharedDevice;
pub use wiring::{BuildError, Description, PciDevice, Peripherals, Slotted, build};
