//! The interrupt map: ISA interrupts reach both the 8259s and the I/O APIC, message-signalled ones the local APICs.
//!
//! PCI interrupts come as ISA interrupts from the south bridge's router, with the 8259s and with the I/O APIC.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tulk_devices::intc::{Apics, I8259, IoApic};
use tulk_hw::{IrqInputs, IrqSink};

/// IRQs of ISA devices.
pub mod isa {
    pub const TIMER: u32 = 0;
    pub const KEYBOARD: u32 = 1;
    pub const FLOPPY: u32 = 6;
    pub const RTC: u32 = 8;
    pub const SCI: u32 = 9;
    pub const MOUSE: u32 = 12;
    pub const IDE: [u32; 2] = [14, 15];
}

/// Lines 0 to 15 are the ISA interrupts. A level is held by several devices where lines are shared: see [`Shared`].
pub struct IrqMap {
    pub pic: Arc<Mutex<I8259>>,
    pub io_apic: Arc<Mutex<IoApic>>,
    pub apics: Arc<Apics>,
    /// How often each line was set high, for users.
    pub counts: Arc<IrqCounts>,
}

/// How often each ISA line was set high.
#[derive(Default)]
pub struct IrqCounts([AtomicU64; 16]);

impl IrqCounts {
    pub fn get(&self) -> [u64; 16] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl IrqSink for IrqMap {
    fn set(&self, line: u32, level: bool) {
        if level && let Some(count) = self.counts.0.get(line as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.pic.lock().set_input(line, level);
        // The timer has been at input 2 since the first machines with an I/O APIC; nothing is at input 0.
        let pin = if line == isa::TIMER { 2 } else { line };
        self.io_apic.lock().set_input(pin, level);
    }

    fn message(&self, address: u64, data: u32) {
        self.apics.message(address, data);
    }
}

/// Several devices on one line: the line is up as long as one of them holds it. Line n here is device n.
pub struct Shared {
    holders: Mutex<u32>,
    line: u32,
    map: Arc<dyn IrqSink>,
}

impl Shared {
    pub fn new(map: Arc<dyn IrqSink>, line: u32) -> Arc<Shared> {
        Arc::new(Shared { holders: Mutex::new(0), line, map })
    }
}

impl IrqSink for Shared {
    fn set(&self, device: u32, level: bool) {
        let mut holders = self.holders.lock();
        let before = *holders;
        let bit = 1 << (device & 31);
        *holders = if level { before | bit } else { before & !bit };
        if (*holders != 0) != (before != 0) {
            self.map.set(self.line, level);
        }
    }
    fn message(&self, address: u64, data: u32) {
        self.map.message(address, data);
    }
}

/// Lines of the timer and the clock, which are cut while the HPET replaces them.
pub struct Replaced {
    cut: AtomicBool,
    map: Arc<dyn IrqSink>,
}

impl Replaced {
    pub fn new(map: Arc<dyn IrqSink>) -> Arc<Replaced> {
        Arc::new(Replaced { cut: AtomicBool::new(false), map })
    }
    pub fn replace(&self, on: bool) {
        if self.cut.swap(on, Ordering::SeqCst) != on {
            // Whoever has the lines now begins with low ones.
            self.map.set(isa::TIMER, false);
            self.map.set(isa::RTC, false);
        }
    }
}

impl IrqSink for Replaced {
    fn set(&self, line: u32, level: bool) {
        if !self.cut.load(Ordering::SeqCst) {
            self.map.set(line, level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulk_hw::RecordedIrqs;

    #[test]
    fn a_shared_line_is_up_while_one_holds_it() {
        let irqs = RecordedIrqs::new();
        let shared = Shared::new(irqs.clone(), 4);
        shared.set(0, true);
        shared.set(1, true);
        shared.set(0, false);
        assert!(irqs.level(4));
        shared.set(1, false);
        assert!(!irqs.level(4));
        assert_eq!(irqs.take_rises(), [4]);
    }
}
