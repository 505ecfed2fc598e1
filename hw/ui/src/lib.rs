//! Consoles on the host's side: what serial ports talk to ([`CharBackend`]) and what a display shows ([`Frame`]).
#![deny(unsafe_code)]

use std::sync::Arc;

/// Takes bytes from the host: a serial port, a monitor.
pub trait CharSink: Send + Sync {
    /// Offers bytes; returns how many were taken. The rest is offered again after [`CharBackend::ready`].
    fn receive(&self, bytes: &[u8]) -> usize;
}

/// The host's end of a character device.
pub trait CharBackend: Send + Sync {
    /// Bytes from the guest. Does not block; what the host cannot take is lost or kept, as the backend's kind is.
    fn write(&self, bytes: &[u8]);
    fn connect(&self, sink: Arc<dyn CharSink>);
    /// The sink has room again.
    fn ready(&self);
    /// A line for the monitor: `stdio`, `file:PATH`.
    fn describe(&self) -> String;
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
