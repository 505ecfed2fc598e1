//! Keyboards and mice.

pub mod i8042;
pub mod keys;
mod ps2_keyboard;
mod ps2_mouse;

pub use i8042::I8042;
pub use keys::Key;
