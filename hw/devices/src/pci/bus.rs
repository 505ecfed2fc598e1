//! Bus 0 and configuration mechanism #1 (PCI Local Bus 2.1, section 3.7.4.1): ports 0xCF8 (CONFADD) and 0xCFC (CONFDATA).

use super::{Mapping, PciFunction, Space, reg};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;
use tulk_hw::{Bus, Device, IrqLine, IrqSink, Snapshot, SnapshotError};

/// The board's address spaces, told where windows are. Called from accesses to configuration space.
pub trait BarMapper: Send + Sync {
    /// Window `window` of the device answers in `range` from now on.
    fn map(&self, space: Space, range: Range<u64>, device: &Arc<Mutex<dyn Device>>, window: u8);
    /// It does no longer.
    fn unmap(&self, space: Space, device: &Arc<Mutex<dyn Device>>, window: u8);
}

/// The plain mapper: all windows are windows of [`Bus`]es.
pub struct BusMapper {
    pub ports: Arc<Bus>,
    pub memory: Arc<Bus>,
}

impl BusMapper {
    fn bus(&self, space: Space) -> &Bus {
        match space {
            Space::Io => &self.ports,
            Space::Memory => &self.memory,
        }
    }
}

impl BarMapper for BusMapper {
    fn map(&self, space: Space, range: Range<u64>, device: &Arc<Mutex<dyn Device>>, window: u8) {
        self.bus(space).map(range, device.clone(), window);
    }
    fn unmap(&self, space: Space, device: &Arc<Mutex<dyn Device>>, window: u8) {
        self.bus(space).unmap(device, window);
    }
}

#[derive(Error, Debug, PartialEq, Eq)]
pub enum AddFunctionError {
    #[error("slot {slot:02x}.{function} of the PCI bus is taken")]
    Taken { slot: u8, function: u8 },
    #[error("there is no slot {slot:02x}.{function} on the PCI bus")]
    NoSlot { slot: u8, function: u8 },
    #[error("all slots of the PCI bus are taken")]
    Full,
}

struct Place {
    devfn: u8,
    function: Arc<Mutex<dyn PciFunction>>,
    device: Arc<Mutex<dyn Device>>,
    mapped: Vec<Mapping>,
}

/// What `info pci` shows of a function.
#[derive(Clone, PartialEq, Debug)]
pub struct FunctionInfo {
    pub slot: u8,
    pub function: u8,
    pub name: &'static str,
    pub vendor: u16,
    pub device: u16,
    /// Base class and sub-class: 0x0101.
    pub class: u16,
    pub subsystem_vendor: u16,
    pub subsystem: u16,
    /// 0 for none, 1 for INTA.
    pub pin: u8,
    /// What firmware wrote as interrupt line.
    pub line: u8,
    pub mappings: Vec<Mapping>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    /// CONFADD.
    address: u32,
}

/// PCI bus 0: window 0 is ports 0xCF8 to 0xCFF. A board maps port 0xCF9 (the reset control register of the ISA bridge)
/// over it for byte accesses.
///
/// Its reset and load make the mappings anew from the functions, which must be reset or loaded before.
pub struct PciBus {
    state: State,
    places: Vec<Place>,
    wires: Arc<dyn IrqSink>,
    mapper: Arc<dyn BarMapper>,
}

const ENABLE: u32 = 1 << 31;

impl PciBus {
    /// Bytes of window 0.
    pub const PORTS: u64 = 8;

    /// A bus whose interrupt pins are the lines `4 * devfn + pin` (pin 0 is INTA) of `wires`.
    pub fn new(wires: Arc<dyn IrqSink>, mapper: Arc<dyn BarMapper>) -> PciBus {
        PciBus { state: State::default(), places: Vec::new(), wires, mapper }
    }

    /// Puts a function into a slot and connects its pin.
    ///
    /// # Errors
    /// The place is taken, or there is no such place.
    pub fn add<F: PciFunction + 'static>(
        &mut self,
        slot: u8,
        function: u8,
        device: Arc<Mutex<F>>,
    ) -> Result<(), AddFunctionError> {
        if slot >= 32 || function >= 8 {
            return Err(AddFunctionError::NoSlot { slot, function });
        }
        let devfn = slot << 3 | function;
        if self.places.iter().any(|p| p.devfn == devfn) {
            return Err(AddFunctionError::Taken { slot, function });
        }
        {
            let mut device = device.lock();
            let pin = device.config().byte(reg::INTERRUPT_PIN);
            if (1..=4).contains(&pin) {
                let wire = u32::from(devfn) << 2 | u32::from(pin - 1);
                device.config_mut().connect(IrqLine::new(self.wires.clone(), wire));
            }
        }
        let place = Place { devfn, function: device.clone(), device, mapped: Vec::new() };
        self.places.push(place);
        self.places.sort_by_key(|p| p.devfn);
        Ok(())
    }

    /// Puts a function into the first free slot from `first` on, as function 0, and gives the slot.
    ///
    /// # Errors
    /// No slot is free.
    pub fn add_to_free_slot<F: PciFunction + 'static>(
        &mut self,
        first: u8,
        device: Arc<Mutex<F>>,
    ) -> Result<u8, AddFunctionError> {
        let slot = (first..32)
            .find(|slot| self.places.iter().all(|p| p.devfn >> 3 != *slot))
            .ok_or(AddFunctionError::Full)?;
        self.add(slot, 0, device).map(|()| slot)
    }

    /// Reads 1, 2 or 4 bytes of a function's configuration space. All ones where there is none.
    pub fn config_read(&mut self, devfn: u8, offset: u16, bytes: u8) -> u32 {
        let ones = u32::MAX >> (32 - 8 * u32::from(bytes.clamp(1, 4)));
        match self.places.iter().find(|p| p.devfn == devfn) {
            Some(place) => place.function.lock().config_read(offset, bytes) & ones,
            None => ones,
        }
    }

    pub fn config_write(&mut self, devfn: u8, offset: u16, bytes: u8, value: u32) {
        if let Some(place) = self.places.iter_mut().find(|p| p.devfn == devfn) {
            place.function.lock().config_write(offset, bytes, value);
            remap(place, &*self.mapper);
        }
    }

    /// Tells the mapper what changed by other ways than configuration writes: reset, a snapshot.
    pub fn refresh(&mut self) {
        for place in &mut self.places {
            remap(place, &*self.mapper);
        }
    }

    /// The functions in order of their slots.
    pub fn list(&self) -> Vec<FunctionInfo> {
        let info = |place: &Place| {
            let function = place.function.lock();
            let config = function.config();
            FunctionInfo {
                slot: place.devfn >> 3,
                function: place.devfn & 7,
                name: function.name(),
                vendor: config.word(reg::VENDOR_ID),
                device: config.word(reg::DEVICE_ID),
                class: config.word(reg::CLASS_CODE + 1),
                subsystem_vendor: config.word(reg::SUBSYSTEM_VENDOR_ID),
                subsystem: config.word(reg::SUBSYSTEM_ID),
                pin: config.byte(reg::INTERRUPT_PIN),
                line: config.byte(reg::INTERRUPT_LINE),
                mappings: function.mappings(),
            }
        };
        self.places.iter().map(info).collect()
    }

    /// The function and the dword that CONFADD names.
    fn target(&self) -> Option<(u8, u16)> {
        let address = self.state.address;
        // Type 0 cycles only: there is no bridge, so other buses answer nothing.
        (address & ENABLE != 0 && address >> 16 & 0xff == 0)
            .then_some(((address >> 8) as u8, (address & 0xfc) as u16))
    }
}

/// Brings the board's maps in line with what a function decodes.
fn remap(place: &mut Place, mapper: &dyn BarMapper) {
    let new = place.function.lock().mappings();
    if new == place.mapped {
        return;
    }
    let device_of = |window| {
        let other = place.function.lock().window_device(window);
        other.unwrap_or_else(|| (place.device.clone(), window))
    };
    for old in place.mapped.iter().filter(|m| !new.contains(m)) {
        let (device, window) = device_of(old.window);
        mapper.unmap(old.space, &device, window);
    }
    for added in new.iter().filter(|m| !place.mapped.contains(m)) {
        let (device, window) = device_of(added.window);
        let range = added.address..added.address + added.size;
        mapper.map(added.space, range, &device, window);
    }
    place.mapped = new;
}

impl Device for PciBus {
    fn name(&self) -> &'static str {
        "pci"
    }

    fn reset(&mut self) {
        self.state = State::default();
        self.refresh();
    }

    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        let ones = tulk_hw::ones(bytes);
        match (offset, bytes) {
            // CONFADD answers whole dwords only; other accesses pass to the ISA bus, where nobody is.
            (0, 4) => self.state.address.into(),
            (4..8, 1 | 2 | 4) if offset + u64::from(bytes) <= 8 => match self.target() {
                Some((devfn, dword)) => {
                    self.config_read(devfn, dword | (offset & 3) as u16, bytes).into()
                }
                None => ones,
            },
            _ => ones,
        }
    }

    fn write(&mut self, _window: u8, offset: u64, bytes: u8, value: u64) {
        match (offset, bytes) {
            // Bits 30:24 and 1:0 are reserved and read as zero.
            (0, 4) => self.state.address = value as u32 & 0x80ff_fffc,
            (4..8, 1 | 2 | 4) if offset + u64::from(bytes) <= 8 => {
                if let Some((devfn, dword)) = self.target() {
                    self.config_write(devfn, dword | (offset & 3) as u16, bytes, value as u32);
                }
            }
            _ => {}
        }
    }

    fn save(&self) -> Snapshot {
        serde_json::json!(self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.state = State::deserialize(snapshot)
            .map_err(|e| SnapshotError { device: self.name().into(), reason: e.to_string() })?;
        self.refresh();
        Ok(())
    }
}
