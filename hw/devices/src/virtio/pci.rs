//! The PCI transport (Virtual I/O Device 1.2, section 4.1), modern, legacy (4.1.4.10) or both ("transitional").
//!
//! | window | what |
//! |---|---|
//! | 0 | legacy registers, I/O ports |
//! | 1 | MSI-X table and pending bits |
//! | 4 | the modern structures ([`layout`]), memory |
//!
//! Behind each call of the device type, [`VirtioPci`] delivers what it left: interrupts for returned requests, changes of the
//! configuration, and `DEVICE_NEEDS_RESET` when the driver broke a rule (legacy drivers know no such thing: their queue
//! just stops). Not modelled: shared memory, notification data, queue reset, administration queues, SR-IOV.

use super::queue::Queue;
use super::{Rings, VirtioDevice, feature};
use crate::pci::{Bar, ConfigSpace, Identity, PciFunction, load_function, save_function};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Device, Dma, Snapshot, SnapshotError};

const VENDOR: u16 = 0x1af4;
const NO_VECTOR: u16 = 0xffff;

/// Windows.
pub const LEGACY: u8 = 0;
pub const MSIX: u8 = 1;
pub const MODERN: u8 = 4;

/// Where the structures are in window [`MODERN`].
pub mod layout {
    pub const COMMON: u64 = 0x0000;
    pub const ISR: u64 = 0x1000;
    pub const DEVICE: u64 = 0x2000;
    pub const NOTIFY: u64 = 0x3000;
    /// Each structure has so many bytes.
    pub const PART: u64 = 0x1000;
    pub const SIZE: u64 = 0x4000;
    /// Bytes between the notification addresses of two queues.
    pub const NOTIFY_STEP: u64 = 4;
}

/// Device status (2.1).
pub mod status {
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
}

/// Structure types of capabilities (4.1.4).
mod cap {
    pub const COMMON: u8 = 1;
    pub const NOTIFY: u8 = 2;
    pub const ISR: u8 = 3;
    pub const DEVICE: u8 = 4;
    pub const PCI: u8 = 5;
}

/// Which interfaces the device offers: `disable-modern`, `disable-legacy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Interface {
    #[default]
    Transitional,
    Modern,
    Legacy,
}

/// The transport's registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Registers {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    isr: u8,
    queue_select: u16,
    config_vector: u16,
    config_generation: u8,
    /// The driver placed a queue in the legacy way.
    legacy: bool,
    /// What was agreed on.
    features: u64,
    /// Queues with work left behind a burst, as bits.
    again: u64,
}

impl Registers {
    const FRESH: Registers = Registers {
        device_feature_select: 0,
        driver_feature_select: 0,
        driver_features: 0,
        status: 0,
        isr: 0,
        queue_select: 0,
        config_vector: NO_VECTOR,
        config_generation: 0,
        legacy: false,
        features: 0,
        again: 0,
    };
}

#[derive(Serialize, Deserialize)]
struct State<D> {
    registers: Registers,
    queues: Vec<Queue>,
    device: D,
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D: VirtioDevice> {
    device: D,
    rings: Rings,
    config: ConfigSpace,
    registers: Registers,
    interface: Interface,
    /// Offset of the capability for access to window [`MODERN`] by configuration space (4.1.4.9).
    pci_capability: Option<u16>,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// The function for a device type. Memory is reached by `dma`; the pin is connected by the bus.
    pub fn new(device: D, dma: Arc<dyn Dma>, interface: Interface) -> VirtioPci<D> {
        let sizes = device.queue_sizes();
        let modern_only = interface == Interface::Modern;
        // Transitional devices have numbers of their own up to 1005 (4.1.2.1).
        let legacy_id = match D::ID {
            1 => 0x1000,
            2 => 0x1001,
            3 => 0x1003,
            4 => 0x1005,
            id => 0x103f + id,
        };
        let mut config = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: if modern_only { 0x1040 + D::ID } else { legacy_id },
            revision: u8::from(modern_only),
            class: D::CLASS,
            subsystem_vendor: VENDOR,
            subsystem: D::ID,
        });
        config.pin(1);
        if !modern_only {
            let bytes = 24 + device.config(0).len() as u32;
            config.bar(LEGACY, Bar::Io(bytes.next_power_of_two()));
        }
        config.bar(MSIX, Bar::Memory32 { size: 4096, prefetchable: false });
        config.msix(sizes.len() as u16 + 1, MSIX, 0, 2048);
        let mut pci_capability = None;
        if interface != Interface::Legacy {
            config.bar(MODERN, Bar::Memory64 { size: layout::SIZE, prefetchable: true });
            pci_capability = Some(add_capabilities(&mut config));
        }
        let rings = Rings::new(dma, &sizes);
        let registers = Registers::FRESH;
        VirtioPci { device, rings, config, registers, interface, pci_capability }
    }

    pub fn device(&self) -> &D {
        &self.device
    }

    /// Calls the device type with its queues, and delivers what comes of it.
    pub fn with<T>(&mut self, f: impl FnOnce(&mut D, &mut Rings) -> T) -> T {
        let result = f(&mut self.device, &mut self.rings);
        self.deliver();
        result
    }

    /// What the device offers to a modern or a legacy driver.
    fn offered(&self) -> u64 {
        let common = feature::RING_INDIRECT_DESC | feature::RING_EVENT_IDX;
        let interface = match self.interface {
            Interface::Transitional => feature::ANY_LAYOUT | feature::VERSION_1,
            Interface::Modern => feature::VERSION_1,
            Interface::Legacy => feature::ANY_LAYOUT,
        };
        self.device.features() | common | interface
    }

    fn deliver(&mut self) {
        let wanted = self.rings.take_notifications();
        if let Some(broken) = self.rings.broken.take() {
            tracing::warn!(target: "guest_errors", "{}: the driver broke a rule: {}", D::NAME, broken.0);
            if self.rings.has(feature::VERSION_1) {
                self.registers.status |= status::NEEDS_RESET;
                self.rings.config_changed |= self.registers.status & status::DRIVER_OK != 0;
            }
        }
        for n in (0..self.rings.queues.len()).filter(|n| wanted >> n & 1 != 0) {
            self.interrupt(self.rings.queues[n].vector, 1);
        }
        if std::mem::take(&mut self.rings.config_changed) {
            self.registers.config_generation = self.registers.config_generation.wrapping_add(1);
            if self.registers.status & status::DRIVER_OK != 0 {
                self.interrupt(self.registers.config_vector, 2);
            }
        }
    }

    /// Sends the message of a vector, or sets an ISR bit and raises the pin.
    fn interrupt(&mut self, vector: u16, isr: u8) {
        if self.config.msix_enabled() {
            if vector != NO_VECTOR {
                self.config.notify(vector);
            }
        } else {
            self.registers.isr |= isr;
            self.config.set_interrupt(true);
        }
    }

    /// Reading the ISR status clears it and lowers the pin.
    fn take_isr(&mut self) -> u8 {
        self.config.set_interrupt(false);
        std::mem::take(&mut self.registers.isr)
    }

    /// A reset by the driver (2.1.1).
    fn reset_device(&mut self) {
        self.device.reset();
        self.rings.queues.iter_mut().for_each(Queue::reset);
        let rings = Rings::new(self.rings.dma.clone(), &[]);
        self.rings = Rings { queues: std::mem::take(&mut self.rings.queues), ..rings };
        let config_generation = self.registers.config_generation;
        self.registers = Registers { config_generation, ..Registers::FRESH };
        self.config.set_interrupt(false);
    }

    fn agree(&mut self, features: u64) {
        self.registers.features = features;
        self.rings.features = features;
        for q in &mut self.rings.queues {
            q.indirect = features & feature::RING_INDIRECT_DESC != 0;
            q.event_idx = features & feature::RING_EVENT_IDX != 0;
        }
    }

    /// Whether queues may be used. Legacy drivers may begin before they say `DRIVER_OK`, and forget the bus master bit.
    fn update_live(&mut self) {
        let up = self.registers.status & status::DRIVER_OK != 0 && self.config.bus_master();
        let live = up || self.registers.legacy && self.registers.status != 0;
        let started = live && !self.rings.live;
        self.rings.live = live;
        if started {
            self.notify_all(u64::MAX);
        }
    }

    fn notify_all(&mut self, queues: u64) {
        for n in (0..self.rings.queues.len()).filter(|n| queues >> n & 1 != 0) {
            if self.rings.queues[n].ready {
                self.device.notify(n as u16, &mut self.rings);
            }
        }
        self.deliver();
    }

    fn notify(&mut self, queue: u64) {
        if queue < self.rings.queues.len() as u64 && self.rings.live {
            self.notify_all(1 << queue);
        }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.reset_device();
        }
        let old = self.registers.status;
        let mut new = value | old & status::NEEDS_RESET;
        if new & !old & status::FEATURES_OK != 0 {
            let features = self.registers.driver_features;
            if features & !self.offered() != 0 || features & feature::VERSION_1 == 0 {
                new &= !status::FEATURES_OK;
            } else {
                self.agree(features);
            }
        }
        self.registers.status = new;
        self.update_live();
    }

    fn queue(&self) -> Option<&Queue> {
        self.rings.queues.get(usize::from(self.registers.queue_select))
    }

    /// Changes the selected queue, if there is one.
    fn set_queue(&mut self, f: impl FnOnce(&mut Queue)) {
        if let Some(q) = self.rings.queues.get_mut(usize::from(self.registers.queue_select)) {
            f(q);
        }
    }

    /// A vector that a driver writes, or none if the device does not have it.
    fn vector(&self, value: u16) -> u16 {
        if usize::from(value) <= self.rings.queues.len() { value } else { NO_VECTOR }
    }

    /// struct virtio_pci_common_cfg (4.1.4.3).
    fn common(&self) -> [u8; 56] {
        let r = &self.registers;
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let mut c = [0; 56];
        let mut put = |at: usize, bytes: &[u8]| c[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &r.device_feature_select.to_le_bytes());
        put(4, &half(self.offered(), r.device_feature_select).to_le_bytes());
        put(8, &r.driver_feature_select.to_le_bytes());
        put(12, &half(r.driver_features, r.driver_feature_select).to_le_bytes());
        put(16, &r.config_vector.to_le_bytes());
        put(18, &(self.rings.queues.len() as u16).to_le_bytes());
        put(20, &[r.status, r.config_generation]);
        put(22, &r.queue_select.to_le_bytes());
        if let Some(q) = self.queue() {
            put(24, &q.size.to_le_bytes());
            put(26, &q.vector.to_le_bytes());
            put(28, &u16::from(q.ready).to_le_bytes());
            put(30, &r.queue_select.to_le_bytes());
            put(32, &q.desc.to_le_bytes());
            put(40, &q.avail.to_le_bytes());
            put(48, &q.used.to_le_bytes());
        } else {
            put(26, &NO_VECTOR.to_le_bytes());
        }
        c
    }

    /// Writes a field of the common structure, in its own width; quadwords may come in halves.
    fn write_common(&mut self, offset: u64, bytes: u8, value: u64) {
        if bytes == 8 {
            self.write_common(offset, 4, value & 0xffff_ffff);
            return self.write_common(offset.wrapping_add(4), 4, value >> 32);
        }
        let low = |old: u64| old & !0xffff_ffff | value;
        let high = |old: u64| old & 0xffff_ffff | value << 32;
        match (offset, bytes) {
            (0, 4) => self.registers.device_feature_select = value as u32,
            (8, 4) => self.registers.driver_feature_select = value as u32,
            (12, 4) if self.registers.status & status::FEATURES_OK == 0 => {
                let old = self.registers.driver_features;
                match self.registers.driver_feature_select {
                    0 => self.registers.driver_features = low(old),
                    1 => self.registers.driver_features = high(old),
                    _ => {}
                }
            }
            (16, 2) => self.registers.config_vector = self.vector(value as u16),
            (20, 1) => self.write_status(value as u8),
            (22, 2) => self.registers.queue_select = value as u16,
            (26, 2) => {
                let vector = self.vector(value as u16);
                self.set_queue(|q| q.vector = vector);
            }
            (24 | 28 | 32..56, _) => self.set_queue(|q| match (offset, bytes) {
                // A running queue stays as it is (4.1.4.3.2).
                _ if q.ready => {}
                (24, 2) if (value as u16).is_power_of_two() && value <= u64::from(q.max()) => {
                    q.size = value as u16;
                }
                (28, 2) => q.ready = value == 1,
                (32, 4) => q.desc = low(q.desc),
                (36, 4) => q.desc = high(q.desc),
                (40, 4) => q.avail = low(q.avail),
                (44, 4) => q.avail = high(q.avail),
                (48, 4) => q.used = low(q.used),
                (52, 4) => q.used = high(q.used),
                _ => {}
            }),
            _ => {}
        }
    }

    fn read_modern(&mut self, offset: u64, bytes: u8) -> u64 {
        let at = offset % layout::PART;
        match offset - at {
            layout::COMMON => slice(&self.common(), at, bytes),
            layout::ISR if at == 0 => u64::from(self.take_isr()),
            layout::DEVICE => slice(&self.device.config(self.registers.features), at, bytes),
            _ => 0,
        }
    }

    fn write_modern(&mut self, offset: u64, bytes: u8, value: u64) {
        let at = offset % layout::PART;
        match offset - at {
            layout::COMMON => self.write_common(at, bytes, value),
            layout::DEVICE => self.write_device(at, bytes, value),
            layout::NOTIFY => self.notify(at / layout::NOTIFY_STEP),
            _ => {}
        }
    }

    fn write_device(&mut self, at: u64, bytes: u8, value: u64) {
        let data = &value.to_le_bytes()[..usize::from(bytes.min(8))];
        self.with(|device, rings| device.write_config(at as usize, data, rings));
    }

    /// Where the device's structure begins in legacy registers: behind the vectors, when MSI-X is on.
    fn legacy_device(&self) -> u64 {
        if self.config.msix_enabled() { 24 } else { 20 }
    }

    fn read_legacy(&mut self, offset: u64, bytes: u8) -> u64 {
        let device = self.legacy_device();
        if let Some(at) = offset.checked_sub(device) {
            return slice(&self.device.config(self.registers.features), at, bytes);
        }
        let r = &self.registers;
        let mut c = [0; 24];
        let mut put = |at: usize, bytes: &[u8]| c[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.offered() as u32).to_le_bytes());
        put(4, &(r.driver_features as u32).to_le_bytes());
        if let Some(q) = self.queue() {
            let page = if q.ready { (q.desc >> 12) as u32 } else { 0 };
            put(8, &page.to_le_bytes());
            put(12, &q.max().to_le_bytes());
            put(22, &q.vector.to_le_bytes());
        }
        put(14, &r.queue_select.to_le_bytes());
        put(18, &[r.status, r.isr]);
        put(20, &r.config_vector.to_le_bytes());
        if (offset..offset + u64::from(bytes)).contains(&19) {
            self.take_isr();
        }
        slice(&c, offset, bytes)
    }

    fn write_legacy(&mut self, offset: u64, bytes: u8, value: u64) {
        if let Some(at) = offset.checked_sub(self.legacy_device()) {
            return self.write_device(at, bytes, value);
        }
        match (offset, bytes) {
            (4, 4) => {
                let features = value & self.offered() & 0xffff_ffff;
                self.registers.driver_features = features;
                self.agree(features);
            }
            (8, 4) => {
                self.set_queue(|q| q.place_legacy(value as u32));
                self.registers.legacy = true;
                self.update_live();
            }
            (14, 2) => self.registers.queue_select = value as u16,
            (16, 2) => self.notify(value),
            (18, 1) => self.write_status(value as u8),
            (20, 2) => self.registers.config_vector = self.vector(value as u16),
            (22, 2) => {
                let vector = self.vector(value as u16);
                self.set_queue(|q| q.vector = vector);
            }
            _ => {}
        }
    }

    /// The access to window [`MODERN`] that configuration space describes: offset and bytes.
    fn pci_access(&self, offset: u16) -> Option<(u64, u8)> {
        let at = self.pci_capability.filter(|at| offset == at + 16)?;
        let (target, bytes) = (self.config.dword(at + 8), self.config.dword(at + 12));
        let sound = self.config.byte(at + 4) == MODERN
            && matches!(bytes, 1 | 2 | 4)
            && target.is_multiple_of(bytes)
            && u64::from(target) < layout::SIZE;
        sound.then_some((u64::from(target), bytes as u8))
    }
}

/// The value of `bytes` bytes at an offset; zeros beyond the end.
fn slice(data: &[u8], offset: u64, bytes: u8) -> u64 {
    let byte = |at: u64| usize::try_from(at).ok().and_then(|at| data.get(at)).copied();
    tulk_hw::read_bytes(offset, bytes, |at| byte(at).unwrap_or(0))
}

/// Adds the capabilities that tell drivers where the structures are (4.1.4); the offset of the last.
fn add_capabilities(config: &mut ConfigSpace) -> u16 {
    let body = |kind: u8, offset: u64, extra: usize| {
        let mut body = vec![16 + extra as u8, kind, MODERN, 0, 0, 0];
        body.extend((offset as u32).to_le_bytes());
        body.extend((layout::PART as u32).to_le_bytes());
        body
    };
    let parts =
        [(cap::COMMON, layout::COMMON), (cap::ISR, layout::ISR), (cap::DEVICE, layout::DEVICE)];
    for (kind, offset) in parts {
        config.capability(0x09, &body(kind, offset, 0), &[0; 14]);
    }
    let mut notify = body(cap::NOTIFY, layout::NOTIFY, 4);
    notify.extend((layout::NOTIFY_STEP as u32).to_le_bytes());
    config.capability(0x09, &notify, &[0; 18]);
    let mut pci = vec![20, cap::PCI];
    pci.resize(18, 0);
    let mut writable = [0xff; 18];
    // Length and kind, identifier and padding stay.
    writable[..2].fill(0);
    writable[3..6].fill(0);
    u16::from(config.capability(0x09, &pci, &writable))
}

impl<D: VirtioDevice> Device for VirtioPci<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn reset(&mut self) {
        self.reset_device();
        self.registers = Registers::FRESH;
        self.config.reset();
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        match window {
            LEGACY if self.interface != Interface::Modern => self.read_legacy(offset, bytes),
            MSIX => self.config.msix_read(window, offset, bytes).unwrap_or(0),
            MODERN if self.interface != Interface::Legacy => self.read_modern(offset, bytes),
            _ => tulk_hw::ones(bytes),
        }
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        let value = value & tulk_hw::ones(bytes);
        match window {
            LEGACY if self.interface != Interface::Modern => {
                self.write_legacy(offset, bytes, value)
            }
            MSIX => {
                self.config.msix_write(window, offset, bytes, value);
            }
            MODERN if self.interface != Interface::Legacy => {
                self.write_modern(offset, bytes, value)
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<u64> {
        (self.rings.again != 0).then_some(0)
    }

    fn tick(&mut self, _: u64) {
        let again = std::mem::take(&mut self.rings.again);
        self.notify_all(again);
    }

    fn save(&self) -> Snapshot {
        // First: it waits until the device's work is done.
        let device = self.device.state();
        let registers = Registers { again: self.rings.again, ..self.registers.clone() };
        save_function(&self.config, &State { registers, queues: self.rings.queues.clone(), device })
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let (device, queues) = (&self.device, &self.rings.queues);
        let offered = self.offered();
        let check = |s: &State<D::State>| {
            let fits = s.queues.len() == queues.len()
                && queues.iter().zip(&s.queues).all(|(q, saved)| q.fits(saved));
            if !fits {
                return Err("other queues".to_string());
            }
            if s.registers.features & !offered != 0 {
                return Err("features that the device does not have now".to_string());
            }
            device.check_state(&s.device)
        };
        let state = load_function(D::NAME, &mut self.config, snapshot, check)?;
        self.device.set_state(state.device);
        let dma = self.rings.dma.clone();
        self.rings = Rings { queues: state.queues, ..Rings::new(dma, &[]) };
        self.rings.features = state.registers.features;
        self.rings.again = state.registers.again;
        self.registers = state.registers;
        self.rings.live = self.registers.status & status::DRIVER_OK != 0
            && self.config.bus_master()
            || self.registers.legacy && self.registers.status != 0;
        Ok(())
    }
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_read(&mut self, offset: u16, bytes: u8) -> u32 {
        if let Some((target, length)) = self.pci_access(offset) {
            let value = self.read_modern(target, length) as u32;
            self.config.set(offset, &value.to_le_bytes());
        }
        self.config.read(offset, bytes)
    }

    fn config_write(&mut self, offset: u16, bytes: u8, value: u32) {
        self.config.write(offset, bytes, value);
        if let Some((target, length)) = self.pci_access(offset) {
            let value = u64::from(self.config.dword(offset));
            self.write_modern(target, length, value & tulk_hw::ones(length));
        }
        self.update_live();
    }
}
