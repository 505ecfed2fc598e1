//! From interrupt pins to PIRQA-D, and from these to ISA interrupts (82371SB datasheet, section 3.5 and PIRQRC).

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::IrqSink;

/// What of the router changes. Part of the ISA bridge's snapshot.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, Debug)]
pub(super) struct PirqState {
    /// PIRQRC[A:D]: the ISA interrupt in bits 3:0; bit 7 disables.
    pub route: [u8; 4],
    /// For each PIRQ, which functions (by slot and function number) hold it.
    holders: [[u64; 4]; 4],
}

impl PirqState {
    pub(super) fn reset() -> PirqState {
        PirqState { route: [0x80; 4], holders: [[0; 4]; 4] }
    }

    /// The ISA interrupts that are asserted.
    fn isa(&self) -> u16 {
        let mut lines = 0;
        for (route, holders) in self.route.iter().zip(&self.holders) {
            if route & 0x80 == 0 && holders.iter().any(|w| *w != 0) {
                lines |= 1 << (route & 15);
            }
        }
        lines
    }
}

struct Routed {
    state: PirqState,
    asserted: u16,
}

/// The wires of the PCI bus: an [`IrqSink`] whose lines are `4 * devfn + pin`, in front of the interrupt controllers'
/// lines 0 to 15. Interrupts that are routed to one ISA line share it; the board gives such lines to no ISA device.
pub struct PirqRouter {
    isa: Arc<dyn IrqSink>,
    routed: Mutex<Routed>,
}

impl PirqRouter {
    pub fn new(isa: Arc<dyn IrqSink>) -> Arc<PirqRouter> {
        let routed = Routed { state: PirqState::reset(), asserted: 0 };
        Arc::new(PirqRouter { isa, routed: Mutex::new(routed) })
    }

    pub(super) fn state(&self) -> PirqState {
        self.routed.lock().state
    }

    pub(super) fn change(&self, f: impl FnOnce(&mut PirqState)) {
        let mut routed = self.routed.lock();
        f(&mut routed.state);
        let new = routed.state.isa();
        let changed = new ^ routed.asserted;
        routed.asserted = new;
        // Under the lock, so that levels arrive in order.
        for line in (0..16).filter(|line| changed >> line & 1 != 0) {
            self.isa.set(line, new >> line & 1 != 0);
        }
    }

    /// The PIRQ (0 for A) of a slot's pin (0 for INTA), as boards of the time are wired: one further with each slot.
    pub fn pirq(slot: u8, pin: u8) -> u8 {
        slot.wrapping_add(pin).wrapping_sub(1) & 3
    }
}

impl IrqSink for PirqRouter {
    fn set(&self, line: u32, level: bool) {
        let (devfn, pin) = ((line >> 2) as u8, (line & 3) as u8);
        let pirq = PirqRouter::pirq(devfn >> 3, pin);
        self.change(|state| {
            let word = &mut state.holders[usize::from(pirq)][usize::from(devfn >> 6)];
            let bit = 1 << (devfn & 63);
            *word = if level { *word | bit } else { *word & !bit };
        });
    }

    fn message(&self, address: u64, data: u32) {
        self.isa.message(address, data);
    }
}
