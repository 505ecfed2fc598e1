//! Virtio devices as drivers see them.

mod blk;
mod console;
mod driver;
mod net;
mod transport;
