//! Emulated chips: `CLASS/CHIP.rs`. Each is a plain value behind `tulk_hw::Device`, tested without a board.
#![forbid(unsafe_code)]

pub mod char;
pub mod chardev;
pub mod dma;
pub mod floppy;
pub mod ide;
pub mod input;
pub mod intc;
pub mod misc;
pub mod net;
pub mod pci;
pub mod timer;
pub mod vga;
pub mod virtio;
