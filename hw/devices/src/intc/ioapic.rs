//! Intel 82093AA I/O APIC with 24 inputs, as version 0x20 with the EOI register of later chipsets.
//!
//! Data sheet 290566-001. Inputs carry assertion, not voltage: the polarity bits are kept for the guest and change
//! nothing. Messages arrive at once, so the delivery status always reads as idle.
//!
//! Not modelled: the serial APIC bus and its arbitration; the remote IRR of messages that no processor takes stays
//! clear, and they are offered again when the input or the entry changes.

use super::lapic::{ApicBus, ApicMessage, DeliveryMode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Device, IrqInputs, Snapshot, SnapshotError};

/// Inputs, and entries in the redirection table.
pub const PINS: usize = 24;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOIR: u64 = 0x40;

const IOAPICID: u8 = 0x00;
const IOAPICVER: u8 = 0x01;
const IOAPICARB: u8 = 0x02;
const IOREDTBL: u8 = 0x10;
const VERSION: u32 = ((PINS as u32 - 1) << 16) | 0x20;

const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Bits of an entry that exist and are writable.
const WRITABLE: u64 = 0xff00_0000_0001_ffff & !(DELIVERY_STATUS | REMOTE_IRR);

#[derive(Clone, Serialize, Deserialize)]
struct State {
    select: u8,
    id: u8,
    inputs: u32,
    entries: [u64; PINS],
}

/// One I/O APIC; its only window is its page of memory, usually at 0xfec0_0000.
pub struct IoApic {
    state: State,
    bus: Arc<dyn ApicBus>,
}

impl IoApic {
    pub fn new(bus: Arc<dyn ApicBus>) -> IoApic {
        let state = State { select: 0, id: 0, inputs: 0, entries: [MASKED; PINS] };
        IoApic { state, bus }
    }

    /// A processor has ended the level-triggered interrupt `vector`.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..PINS {
            let entry = &mut self.state.entries[pin];
            if *entry & REMOTE_IRR != 0 && *entry as u8 == vector {
                *entry &= !REMOTE_IRR;
                self.serve_level(pin);
            }
        }
    }

    /// Redirection entries, for the monitor.
    pub fn entries(&self) -> &[u64; PINS] {
        &self.state.entries
    }

    fn send(&self, entry: u64) -> bool {
        let Some(mode) = DeliveryMode::from_bits((entry >> 8) as u8) else { return false };
        self.bus.deliver(ApicMessage {
            destination: ApicMessage::destination_8bit((entry >> 56) as u8, entry >> 11 & 1 != 0),
            logical: entry >> 11 & 1 != 0,
            mode,
            vector: entry as u8,
            level: entry & LEVEL != 0,
        })
    }

    /// Fixed and lowest priority may be level-triggered; the other modes are edges (section 3.2.4).
    fn is_level(entry: u64) -> bool {
        entry & LEVEL != 0 && entry >> 8 & 6 == 0
    }

    fn serve_level(&mut self, pin: usize) {
        let entry = self.state.entries[pin];
        let asserted = self.state.inputs >> pin & 1 != 0;
        if asserted && Self::is_level(entry) && entry & (MASKED | REMOTE_IRR) == 0 {
            // Set first: the processor may end the interrupt on another thread as soon as it is sent.
            self.state.entries[pin] |= REMOTE_IRR;
            if !self.send(entry) {
                self.state.entries[pin] &= !REMOTE_IRR;
            }
        }
    }

    fn read_register(&self) -> u32 {
        match self.state.select {
            IOAPICID | IOAPICARB => u32::from(self.state.id) << 24,
            IOAPICVER => VERSION,
            n => {
                let index = usize::from(n.wrapping_sub(IOREDTBL));
                let entry = self.state.entries.get(index / 2).copied().unwrap_or(0);
                (entry >> (32 * (index & 1))) as u32
            }
        }
    }

    fn write_register(&mut self, value: u32) {
        if self.state.select == IOAPICID {
            self.state.id = (value >> 24) as u8 & 0xf;
            return;
        }
        let index = usize::from(self.state.select.wrapping_sub(IOREDTBL));
        let Some(entry) = self.state.entries.get_mut(index / 2) else { return };
        let half = 0xffff_ffff << (32 * (index & 1));
        let writable = WRITABLE & half;
        *entry = *entry & !writable | (u64::from(value) << (32 * (index & 1))) & writable;
        if !Self::is_level(*entry) {
            *entry &= !REMOTE_IRR;
        }
        self.serve_level(index / 2);
    }
}

impl IrqInputs for IoApic {
    fn set_input(&mut self, line: u32, level: bool) {
        if line as usize >= PINS {
            return;
        }
        let rises = level && self.state.inputs >> line & 1 == 0;
        self.state.inputs = self.state.inputs & !(1 << line) | u32::from(level) << line;
        let entry = self.state.entries[line as usize];
        if Self::is_level(entry) {
            self.serve_level(line as usize);
        } else if rises && entry & MASKED == 0 {
            self.send(entry);
        }
    }
}

impl Device for IoApic {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    fn reset(&mut self) {
        self.state = State { select: 0, id: 0, inputs: 0, entries: [MASKED; PINS] };
    }

    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        let value = match offset & !3 {
            IOREGSEL => u32::from(self.state.select),
            IOWIN => self.read_register(),
            _ => 0,
        };
        let shifted = u64::from(value) >> (8 * (offset & 3));
        shifted & tulk_hw::ones(bytes)
    }

    fn write(&mut self, _window: u8, offset: u64, _bytes: u8, value: u64) {
        match offset {
            IOREGSEL => self.state.select = value as u8,
            IOWIN => self.write_register(value as u32),
            EOIR => self.end_of_interrupt(value as u8),
            _ => {}
        }
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.state = tulk_hw::load_state(self.name(), snapshot)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use tulk_hw::check_device;

    #[derive(Default)]
    struct Sent(Mutex<Vec<ApicMessage>>);
    impl ApicBus for Sent {
        fn deliver(&self, message: ApicMessage) -> bool {
            self.0.lock().push(message);
            true
        }
    }
    impl Sent {
        fn vectors(&self) -> Vec<u8> {
            self.0.lock().drain(..).map(|m| m.vector).collect()
        }
    }
    fn new() -> (IoApic, Arc<Sent>) {
        let sent = Arc::new(Sent::default());
        (IoApic::new(sent.clone()), sent)
    }
    fn set(apic: &mut IoApic, register: u64, value: u64) {
        apic.write(0, 0, 4, register);
        apic.write(0, 0x10, 4, value);
    }
    fn get(apic: &mut IoApic, register: u64) -> u64 {
        apic.write(0, 0, 4, register);
        apic.read(0, 0x10, 4)
    }

    #[test]
    fn conforms() {
        check_device(&mut new().0, &[0x1000], 20_000);
        check_device(&mut new().0, &[0x50], 20_000);
    }

    #[test]
    fn registers() {
        let (mut apic, _) = new();
        assert_eq!(get(&mut apic, 1), 0x0017_0020);
        set(&mut apic, 0, 0x0f00_0000);
        assert_eq!((get(&mut apic, 0), get(&mut apic, 2)), (0x0f00_0000, 0x0f00_0000));
        assert_eq!(get(&mut apic, 0x10), 0x10000, "masked after reset");
        set(&mut apic, 0x3f, 0xffff_ffff);
        set(&mut apic, 0x3e, 0xffff_ffff);
        assert_eq!((get(&mut apic, 0x3e), get(&mut apic, 0x3f)), (0x1_afff, 0xff00_0000));
        assert_eq!(get(&mut apic, 0x40), 0);
    }

    #[test]
    fn edges() {
        let (mut apic, sent) = new();
        apic.set_input(4, true);
        set(&mut apic, 0x19, 0x0300_0000);
        set(&mut apic, 0x18, 0x0934);
        assert_eq!(sent.vectors(), [0u8; 0], "an edge while masked is lost");
        apic.set_input(4, false);
        apic.set_input(4, true);
        apic.set_input(4, true);
        let wanted = ApicMessage {
            destination: 3,
            logical: true,
            mode: DeliveryMode::LowestPriority,
            vector: 0x34,
            level: false,
        };
        assert_eq!(*sent.0.lock(), [wanted]);
    }

    #[test]
    fn levels() {
        let (mut apic, sent) = new();
        apic.set_input(10, true);
        set(&mut apic, 0x24, 0x1_8042);
        assert_eq!(sent.vectors(), [0u8; 0]);
        set(&mut apic, 0x24, 0x8042);
        assert_eq!(sent.vectors(), [0x42], "still asserted when unmasked");
        assert_eq!(get(&mut apic, 0x24), 0xc042);
        apic.set_input(10, false);
        apic.set_input(10, true);
        assert_eq!(sent.vectors(), [0u8; 0], "remote IRR holds it back");
        apic.end_of_interrupt(0x41);
        assert_eq!(sent.vectors(), [0u8; 0]);
        apic.end_of_interrupt(0x42);
        assert_eq!(sent.vectors(), [0x42]);
        apic.set_input(10, false);
        apic.write(0, 0x40, 4, 0x42);
        assert_eq!((sent.vectors(), get(&mut apic, 0x24)), (vec![], 0x8042));
    }
}
