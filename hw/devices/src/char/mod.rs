//! Character devices.

pub mod debugcon;
pub mod uart16550;

pub use debugcon::Debugcon;
pub use uart16550::Uart16550;
