//! Chipset registers and the devices of emulators.

mod a20;
pub mod acpi_pm;
pub mod debug_exit;
pub mod fw_cfg;
pub mod port92;

pub use a20::{A20Gate, LooseGate};
pub use acpi_pm::AcpiPm;
pub use debug_exit::DebugExit;
pub use fw_cfg::FwCfg;
pub use port92::Port92;
