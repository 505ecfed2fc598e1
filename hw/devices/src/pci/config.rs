//! Configuration space with a type 0 header (PCI Local Bus 3.0, chapter 6).

use super::ROM_WINDOW;
use super::message::{Msi, Msix, MsixState};
use serde::{Deserialize, Serialize};
use tulk_hw::IrqLine;

/// Offsets of the type 0 header (PCI 3.0, figure 6-1).
pub mod reg {
    pub const VENDOR_ID: u16 = 0x00;
    pub const DEVICE_ID: u16 = 0x02;
    pub const COMMAND: u16 = 0x04;
    pub const STATUS: u16 = 0x06;
    pub const REVISION_ID: u16 = 0x08;
    pub const CLASS_CODE: u16 = 0x09;
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    pub const LATENCY_TIMER: u16 = 0x0d;
    pub const HEADER_TYPE: u16 = 0x0e;
    pub const BASE_ADDRESS: u16 = 0x10;
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    pub const EXPANSION_ROM: u16 = 0x30;
    pub const CAPABILITIES: u16 = 0x34;
    pub const INTERRUPT_LINE: u16 = 0x3c;
    pub const INTERRUPT_PIN: u16 = 0x3d;
}

/// Bits of the command register.
pub mod command {
    pub const IO: u16 = 1 << 0;
    pub const MEMORY: u16 = 1 << 1;
    pub const BUS_MASTER: u16 = 1 << 2;
    pub const PARITY: u16 = 1 << 6;
    pub const SERR: u16 = 1 << 8;
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register.
pub mod status {
    pub const INTERRUPT: u16 = 1 << 3;
    pub const CAPABILITIES: u16 = 1 << 4;
    pub const DEVSEL_MEDIUM: u16 = 1 << 9;
    /// Parity and abort bits, which software clears by writing ones.
    pub const ERRORS: u16 = 0xf900;
}

/// What a function says that it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    pub vendor: u16,
    pub device: u16,
    pub revision: u8,
    /// Base class, sub-class and programming interface: 0x010180.
    pub class: u32,
    pub subsystem_vendor: u16,
    pub subsystem: u16,
}

/// A base address register and its size in bytes, a power of two: at least 4 for I/O, 16 for memory, 2048 for ROM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    Io(u32),
    Memory32 {
        size: u32,
        prefetchable: bool,
    },
    /// Takes this BAR and the next one.
    Memory64 {
        size: u64,
        prefetchable: bool,
    },
    Rom(u32),
}

/// An address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    Io,
    Memory,
}

/// A window of a function that is decoded now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    pub window: u8,
    pub space: Space,
    pub address: u64,
    pub size: u64,
}

/// What of a configuration space changes: its part of a snapshot.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct ConfigState {
    /// All 256 bytes.
    bytes: Vec<u8>,
    /// The function asks for its interrupt.
    interrupt: bool,
    pub(super) msix: Option<MsixState>,
}

impl ConfigState {
    pub(super) fn deserialize_checked(value: &serde_json::Value) -> Result<ConfigState, String> {
        let state = ConfigState::deserialize(value).map_err(|e| e.to_string())?;
        if state.bytes.len() != SIZE {
            return Err(format!("{} bytes of configuration space", state.bytes.len()));
        }
        Ok(state)
    }
}

const SIZE: usize = 256;

/// A function's configuration space: 256 bytes with masks that say which bits guests may write.
pub struct ConfigSpace {
    pub(super) state: ConfigState,
    fresh: ConfigState,
    writable: [u8; SIZE],
    clear_by_one: [u8; SIZE],
    bars: [Option<Bar>; 7],
    /// Where the next capability goes, and the byte that is to point to it.
    capability_end: u8,
    capability_link: u8,
    pub(super) msi: Option<Msi>,
    pub(super) msix: Option<Msix>,
    pub(super) line: IrqLine,
}

impl ConfigSpace {
    pub fn new(id: Identity) -> ConfigSpace {
        let state = ConfigState { bytes: vec![0; SIZE], interrupt: false, msix: None };
        let mut config = ConfigSpace {
            fresh: state.clone(),
            state,
            writable: [0; SIZE],
            clear_by_one: [0; SIZE],
            bars: [None; 7],
            capability_end: 0x40,
            capability_link: reg::CAPABILITIES as u8,
            msi: None,
            msix: None,
            line: IrqLine::unconnected(),
        };
        let commands = command::IO
            | command::MEMORY
            | command::BUS_MASTER
            | command::PARITY
            | command::SERR
            | command::INTX_DISABLE;
        config.define(reg::VENDOR_ID, &id.vendor.to_le_bytes(), &[]);
        config.define(reg::DEVICE_ID, &id.device.to_le_bytes(), &[]);
        config.define(reg::COMMAND, &[0, 0], &commands.to_le_bytes());
        config.define(reg::REVISION_ID, &[id.revision], &[]);
        config.define(reg::CLASS_CODE, &id.class.to_le_bytes()[..3], &[]);
        config.define(reg::CACHE_LINE_SIZE, &[0, 0], &[0xff, 0xff]);
        config.define(reg::SUBSYSTEM_VENDOR_ID, &id.subsystem_vendor.to_le_bytes(), &[]);
        config.define(reg::SUBSYSTEM_ID, &id.subsystem.to_le_bytes(), &[]);
        config.define(reg::INTERRUPT_LINE, &[0], &[0xff]);
        config.clear_by_one[reg::STATUS as usize..][..2]
            .copy_from_slice(&status::ERRORS.to_le_bytes());
        config
    }

    /// Gives registers their values behind reset and the bits that guests may write; missing masks are read-only.
    ///
    /// # Panics
    /// When it does not fit 256 bytes, as all functions that build configuration space.
    pub fn define(&mut self, offset: u16, reset: &[u8], writable: &[u8]) -> &mut ConfigSpace {
        let at = offset as usize;
        self.fresh.bytes[at..at + reset.len()].copy_from_slice(reset);
        self.state.bytes[at..at + reset.len()].copy_from_slice(reset);
        self.writable[at..at + reset.len()].fill(0);
        self.writable[at..at + writable.len()].copy_from_slice(writable);
        self
    }

    /// The function has a pin: 1 for INTA to 4 for INTD.
    pub fn pin(&mut self, pin: u8) -> &mut ConfigSpace {
        self.define(reg::INTERRUPT_PIN, &[pin], &[])
    }

    /// There are more functions in this slot. To be said of function 0.
    pub fn multifunction(&mut self) -> &mut ConfigSpace {
        self.define(reg::HEADER_TYPE, &[0x80], &[])
    }

    /// Adds BAR `index` (0 to 5), or the ROM (6).
    ///
    /// # Panics
    /// The size is no power of two or too small, or the index is taken.
    pub fn bar(&mut self, index: u8, bar: Bar) -> &mut ConfigSpace {
        let (size, low, least) = match bar {
            Bar::Io(size) => (u64::from(size), 1, 4),
            Bar::Memory32 { size, prefetchable } => {
                (u64::from(size), u32::from(prefetchable) << 3, 16)
            }
            Bar::Memory64 { size, prefetchable } => (size, u32::from(prefetchable) << 3 | 4, 16),
            Bar::Rom(size) => (u64::from(size), 0, 2048),
        };
        assert!(size.is_power_of_two() && size >= least, "BAR {index} of {size} bytes");
        assert_eq!(matches!(bar, Bar::Rom(_)), index == ROM_WINDOW);
        assert!(self.bars[index as usize].replace(bar).is_none(), "BAR {index} twice");
        let mask = (size - 1) ^ u64::MAX;
        let enable = u32::from(index == ROM_WINDOW);
        let offset = bar_offset(index);
        self.define(offset, &low.to_le_bytes(), &(mask as u32 | enable).to_le_bytes());
        if matches!(bar, Bar::Memory64 { .. }) {
            assert!(index < 5);
            self.define(offset + 4, &[0; 4], &((mask >> 32) as u32).to_le_bytes());
        }
        self
    }

    /// Adds a capability whose bytes behind the identifier and the link are `body`, and gives its offset.
    ///
    /// # Panics
    /// When there is no room left, or `body` and `writable` differ in length.
    pub fn capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u8 {
        assert_eq!(body.len(), writable.len());
        let at = self.capability_end;
        self.define(u16::from(self.capability_link), &[at], &[]);
        self.define(u16::from(at), &[id, 0], &[]);
        self.define(u16::from(at) + 2, body, writable);
        let status = self.fresh.bytes[reg::STATUS as usize] | status::CAPABILITIES as u8;
        self.define(reg::STATUS, &[status], &[]);
        self.capability_link = at + 1;
        self.capability_end = (u16::from(at) + 2 + body.len() as u16)
            .next_multiple_of(4)
            .try_into()
            .expect("room for capabilities");
        at
    }

    /// Adds the MSI capability for `vectors` (a power of two up to 32), 64-bit and with masks.
    pub fn msi(&mut self, vectors: u8) -> &mut ConfigSpace {
        self.msi = Some(Msi::add(self, vectors));
        self
    }

    /// Adds the MSI-X capability, whose table and pending bits are at these offsets in BAR `bar`.
    pub fn msix(
        &mut self,
        vectors: u16,
        bar: u8,
        table_offset: u32,
        pending_offset: u32,
    ) -> &mut ConfigSpace {
        let msix = Msix { vectors, bar, table_offset, pending_offset, at: 0 };
        let (msix, state) = msix.add(self);
        self.msix = Some(msix);
        self.fresh.msix = Some(state.clone());
        self.state.msix = Some(state);
        self
    }

    /// Connects the pin. [`super::PciBus`] does it for its functions.
    pub fn connect(&mut self, line: IrqLine) {
        self.line = line;
    }

    /// Back to the state behind reset; the interrupt is withdrawn.
    pub fn reset(&mut self) {
        self.state = self.fresh.clone();
        self.drive();
    }

    pub fn state(&self) -> &ConfigState {
        &self.state
    }

    /// # Errors
    /// It is another function's.
    pub(super) fn set_state(&mut self, mut new: ConfigState) -> Result<(), String> {
        if new.bytes.len() != SIZE || new.bytes[..4] != self.fresh.bytes[..4] {
            return Err("another function's configuration space".into());
        }
        let lengths = |s: &ConfigState| s.msix.as_ref().map(MsixState::lengths);
        if lengths(&new) != lengths(&self.fresh) {
            return Err("another number of MSI-X vectors".into());
        }
        // The kinds of the BARs are wired.
        for at in reg::BASE_ADDRESS as usize..0x28 {
            new.bytes[at] = new.bytes[at] & self.writable[at] | self.fresh.bytes[at];
        }
        self.state = new;
        self.drive();
        Ok(())
    }

    /// Reads up to 4 bytes; all ones beyond the end.
    pub fn read(&self, offset: u16, bytes: u8) -> u32 {
        let mut value = 0;
        for n in 0..bytes.min(4) {
            let at = usize::from(offset) + usize::from(n);
            let mut byte = self.state.bytes.get(at).copied().unwrap_or(0xff);
            if at == reg::STATUS as usize && self.state.interrupt {
                byte |= status::INTERRUPT as u8;
            }
            value |= u32::from(byte) << (8 * n);
        }
        value
    }

    /// A guest's write: only what is writable changes.
    pub fn write(&mut self, offset: u16, bytes: u8, value: u32) {
        let start = usize::from(offset);
        for n in 0..usize::from(bytes.min(4)) {
            let new = (value >> (8 * n)) as u8;
            if let Some(byte) = self.state.bytes.get_mut(start + n) {
                *byte = *byte & !self.writable[start + n] | new & self.writable[start + n];
                *byte &= !(new & self.clear_by_one[start + n]);
            }
        }
        self.drive();
        self.message_control_changed();
    }

    /// Sets register bytes from the device's side, whatever guests may write.
    pub fn set(&mut self, offset: u16, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            if let Some(at) = self.state.bytes.get_mut(usize::from(offset) + n) {
                *at = *byte;
            }
        }
    }

    pub fn byte(&self, offset: u16) -> u8 {
        self.read(offset, 1) as u8
    }
    pub fn word(&self, offset: u16) -> u16 {
        self.read(offset, 2) as u16
    }
    pub fn dword(&self, offset: u16) -> u32 {
        self.read(offset, 4)
    }
    pub fn command(&self) -> u16 {
        self.word(reg::COMMAND)
    }
    /// Whether the function may use [`tulk_hw::Dma`] and send messages.
    pub fn bus_master(&self) -> bool {
        self.command() & command::BUS_MASTER != 0
    }
    pub fn bars(&self) -> &[Option<Bar>; 7] {
        &self.bars
    }

    /// The BARs that the command register enables and that hold an address.
    pub fn mappings(&self) -> Vec<Mapping> {
        (0..7u8).filter_map(|window| self.mapping(window)).collect()
    }

    fn mapping(&self, window: u8) -> Option<Mapping> {
        let offset = bar_offset(window);
        let low = self.dword(offset);
        let (space, address, size, limit) = match self.bars[window as usize]? {
            Bar::Io(size) => (Space::Io, u64::from(low & !3), u64::from(size), 0x1_0000),
            Bar::Memory32 { size, .. } => {
                (Space::Memory, u64::from(low & !15), u64::from(size), u64::from(u32::MAX))
            }
            Bar::Memory64 { size, .. } => {
                let high = u64::from(self.dword(offset + 4)) << 32;
                (Space::Memory, high | u64::from(low & !15), size, 1 << 52)
            }
            Bar::Rom(size) => {
                let address = u64::from(low & !0x7ff);
                (Space::Memory, address, u64::from(size), u64::from(u32::MAX) * u64::from(low & 1))
            }
        };
        let enable = if space == Space::Io { command::IO } else { command::MEMORY };
        // Address 0 is what software leaves; the topmost one is what it writes to learn the size.
        let end = address.checked_add(size)?;
        (self.command() & enable != 0 && address != 0 && end <= limit).then_some(Mapping {
            window,
            space,
            address,
            size,
        })
    }

    /// The level of the function's interrupt. It reaches the pin unless software disabled it or uses messages.
    pub fn set_interrupt(&mut self, level: bool) {
        if self.state.interrupt != level {
            self.state.interrupt = level;
            self.drive();
        }
    }

    pub fn interrupt(&self) -> bool {
        self.state.interrupt
    }

    fn drive(&self) {
        let enabled = self.command() & command::INTX_DISABLE == 0
            && self.byte(reg::INTERRUPT_PIN) != 0
            && !self.uses_messages();
        self.line.set(self.state.interrupt && enabled);
    }
}

fn bar_offset(index: u8) -> u16 {
    if index == ROM_WINDOW { reg::EXPANSION_ROM } else { reg::BASE_ADDRESS + 4 * u16::from(index) }
}
