//! ISA DMA.

pub mod i8237;

pub use i8237::I8237;
