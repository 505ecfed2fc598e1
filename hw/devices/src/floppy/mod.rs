//! Floppy disks.

pub mod i82078;
mod media;

pub use i82078::I82078;
pub use media::Media;
