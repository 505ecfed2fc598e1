//! Interrupt lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What interrupt lines lead to: an interrupt controller, or a board's router. `set` may be called from any thread and
/// must not call back into the device that raises the line.
pub trait IrqSink: Send + Sync {
    /// The level of line `line` is now `level`. Repeating a level changes nothing.
    fn set(&self, line: u32, level: bool);
    /// Delivers a message-signalled interrupt: a 32-bit write of `data` to physical address `address`.
    fn message(&self, address: u64, data: u32) {
        let _ = (address, data);
    }
}

/// A device with interrupt inputs. Behind its board's lock it is an [`IrqSink`].
pub trait IrqInputs: Send {
    /// The level of input `line` is now `level`; true is asserted, whatever its polarity on a board is.
    fn set_input(&mut self, line: u32, level: bool);
}

impl<T: IrqInputs> IrqSink for parking_lot::Mutex<T> {
    fn set(&self, line: u32, level: bool) {
        self.lock().set_input(line, level);
    }
}

/// One wire from a device to an [`IrqSink`].
#[derive(Clone)]
pub struct IrqLine {
    sink: Arc<dyn IrqSink>,
    line: u32,
}

impl IrqLine {
    pub fn new(sink: Arc<dyn IrqSink>, line: u32) -> IrqLine {
        IrqLine { sink, line }
    }
    /// A wire that leads nowhere.
    pub fn unconnected() -> IrqLine {
        IrqLine::new(RecordedIrqs::new(), 0)
    }
    #[inline]
    pub fn set(&self, level: bool) {
        self.sink.set(self.line, level);
    }
    pub fn message(&self, address: u64, data: u32) {
        self.sink.message(address, data);
    }
}

/// Remembers the levels of 64 lines and how often each rose, for tests.
#[derive(Default)]
pub struct RecordedIrqs {
    levels: AtomicU64,
    rises: parking_lot::Mutex<Vec<u32>>,
    messages: parking_lot::Mutex<Vec<(u64, u32)>>,
}

impl RecordedIrqs {
    pub fn new() -> Arc<RecordedIrqs> {
        Arc::default()
    }
    pub fn level(&self, line: u32) -> bool {
        self.levels.load(Ordering::SeqCst) >> (line & 63) & 1 != 0
    }
    /// The lines that rose since the last call, in order.
    pub fn take_rises(&self) -> Vec<u32> {
        std::mem::take(&mut self.rises.lock())
    }
    /// The messages since the last call, in order.
    pub fn take_messages(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.messages.lock())
    }
}

impl IrqSink for RecordedIrqs {
    fn set(&self, line: u32, level: bool) {
        let bit = 1 << (line & 63);
        if level {
            if self.levels.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
                self.rises.lock().push(line);
            }
        } else {
            self.levels.fetch_and(!bit, Ordering::SeqCst);
        }
    }
    fn message(&self, address: u64, data: u32) {
        self.messages.lock().push((address, data));
    }
}
