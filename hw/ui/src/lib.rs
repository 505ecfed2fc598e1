//! Consoles on the host's side: what serial ports talk to ([`CharBackend`]) and what a display shows ([`Frame`]).
//!
//! [`chardev`] has the backends (terminal, files, sockets, pseudo terminals) and [`open_chardev`], [`terminal`] owns the
//! terminal's modes, [`curses`] shows a display in the terminal, [`png`] writes one as a picture.
#![deny(unsafe_code)]

pub mod chardev;
pub mod cp437;
pub mod curses;
mod error;
pub mod png;
pub mod terminal;
mod worker;

pub use chardev::{ChardevOptions, Mux, MuxCommand, open_chardev};
pub use error::Error;

use std::sync::Arc;

/// Takes bytes from the host: a serial port, a monitor.
pub trait CharSink: Send + Sync {
    /// Offers bytes; returns how many were taken. The rest is offered again after [`CharBackend::ready`].
    fn receive(&self, bytes: &[u8]) -> usize;
    /// After [`CharBackend::ready`], or at any time, from the thread that calls `receive`, before it.
    fn resume(&self) {}
    /// A peer has come, where [`CharBackend::has_peers`]: from the thread that calls `receive`, before it.
    fn opened(&self) {}
    /// The line is held low for longer than a character: a serial break.
    fn line_break(&self) {}
}

/// The host's end of a character device.
pub trait CharBackend: Send + Sync {
    /// Bytes from the guest. Does not block, except where a backend's kind says so; what the host cannot take is lost
    /// or kept, as the backend's kind is.
    fn write(&self, bytes: &[u8]);
    fn connect(&self, sink: Arc<dyn CharSink>);
    /// Peers come and go, and the sink is told of each that comes.
    fn has_peers(&self) -> bool {
        false
    }
    /// The sink has room again.
    fn ready(&self);
    /// A line for the monitor: `stdio`, `file:PATH`.
    fn describe(&self) -> String;
    /// Waits, for a bounded time, until the host has what was written: before the process ends.
    fn flush(&self) {}
}

/// What a display shows at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Characters of code page 437 with VGA attributes (blink, background, foreground), row by row.
    Text {
        columns: usize,
        rows: usize,
        cells: Vec<(u8, u8)>,
        /// Column and row, if it is shown.
        cursor: Option<(usize, usize)>,
    },
    /// Pixels as 0x00RRGGBB, row by row.
    Pixels { width: usize, height: usize, pixels: Vec<u32> },
    /// The display is off.
    Blank,
}

/// A display adapter.
pub trait Display: Send + Sync {
    fn frame(&self) -> Frame;
}
