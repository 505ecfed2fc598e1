//! Interrupt controllers.

pub mod i8259;
pub mod ioapic;
pub mod lapic;
mod lapic_describe;
mod lapic_regs;

pub use i8259::I8259;
pub use ioapic::IoApic;
pub use lapic::{ApicBus, ApicMessage, Apics, DeliveryMode};
