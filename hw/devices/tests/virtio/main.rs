//! Virtio devices as drivers see them.

mod blk;
#[path = "../cable/mod.rs"]
mod cable;
mod console;
mod driver;
mod net;
mod transport;
