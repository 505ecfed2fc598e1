//! 82371AB (PIIX4) function 3: configuration space of power management and SMBus (Intel 290562, section 7.1).
//!
//! Here is only where the registers are; the registers themselves are another device's (ACPI power management), which
//! the board hands over. Not modelled: device monitors and their address decoders, the general purpose timers, the
//! SMBus controller unless the board gives one.

use super::{
    ConfigSpace, Identity, Mapping, PciFunction, Space, command, load_function, reg, save_function,
    status,
};
use parking_lot::Mutex;
use std::sync::Arc;
use tulk_hw::{Device, Snapshot, SnapshotError};

const PMBASE: u16 = 0x40;
const DEVACTB: u16 = 0x58;
const PMREGMISC: u16 = 0x80;
const SMBBA: u16 = 0x90;
const SMBHSTCFG: u16 = 0xd2;

/// Registers with their values behind reset and writable bits.
const REGISTERS: &[(u16, &[u8], &[u8])] = &[
    (PMBASE, &[0x01, 0, 0, 0], &[0xc0, 0xff]), // power management base address
    (0x44, &[0; 4], &[0xff; 4]),               // CNTA, count A
    (0x48, &[0; 4], &[0xff; 4]),               // CNTB, count B
    (0x4c, &[0; 4], &[0xff; 4]),               // GPICTL, general purpose input control
    (0x50, &[0; 3], &[0xff; 3]),               // DEVRESD, device resource D
    (0x54, &[0; 4], &[0xff; 4]),               // DEVACTA, device activity A
    (DEVACTB, &[0; 4], &[0xff; 4]),            // device activity B
    (0x5c, &[0; 4], &[0xff; 4]),               // DEVRESA, device resource A
    (0x60, &[0; 4], &[0xff; 4]),               // DEVRESB, device resource B
    (0x64, &[0; 4], &[0xff; 4]),               // DEVRESC, device resource C
    (0x68, &[0; 3], &[0xff; 3]),               // DEVRESE, device resource E
    (0x6c, &[0; 4], &[0xff; 4]),               // DEVRESF, device resource F
    (0x70, &[0; 3], &[0xff; 3]),               // DEVRESG, device resource G
    (0x74, &[0; 4], &[0xff; 4]),               // DEVRESH, device resource H
    (0x78, &[0; 4], &[0xff; 4]),               // DEVRESI, device resource I
    (0x7c, &[0; 4], &[0xff; 4]),               // DEVRESJ, device resource J
    (PMREGMISC, &[0], &[0x01]),                // miscellaneous power management
    (SMBBA, &[0x01, 0, 0, 0], &[0xf0, 0xff]),  // SMBus base address
    (SMBHSTCFG, &[0], &[0x0f]),                // SMBus host configuration
    (0xd3, &[0; 3], &[0xff; 3]),               // SMBus slave command and shadows
];

/// DEVACTB: writes of the APM control port (0xB2) make a system management interrupt.
const APMC_EN: u32 = 1 << 25;

/// Another device's window.
pub type Window = (Arc<Mutex<dyn Device>>, u8);

/// Power management, function 3 of the ISA bridge's slot.
pub struct Piix4Pm {
    config: ConfigSpace,
    pm: Window,
    smbus: Option<Window>,
}

impl Piix4Pm {
    /// Windows of this function that stand for the other devices'.
    pub const PM: u8 = 7;
    pub const SMBUS: u8 = 8;
    /// Sizes of the I/O ranges in bytes.
    pub const PM_SIZE: u64 = 64;
    pub const SMBUS_SIZE: u64 = 16;

    /// `pm` is the window of the ACPI registers, whose offset 0 is at PMBASE; `smbus` that of the SMBus host registers.
    ///
    /// Processors have no system management mode, so APMC_EN is set from the start: firmware takes that for an
    /// installed handler, and does not wait for one to run.
    pub fn new(pm: Window, smbus: Option<Window>) -> Piix4Pm {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x7113,
            revision: 3,
            class: 0x06_8000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        });
        config
            .define(reg::COMMAND, &[0, 0], &[command::IO as u8, 0])
            .define(reg::STATUS, &(status::DEVSEL_MEDIUM | 0x80).to_le_bytes(), &[])
            .pin(1);
        for (offset, reset, writable) in REGISTERS {
            config.define(*offset, reset, writable);
        }
        config.define(DEVACTB, &APMC_EN.to_le_bytes(), &[0xff; 4]);
        Piix4Pm { config, pm, smbus }
    }
}

impl PciFunction for Piix4Pm {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn mappings(&self) -> Vec<Mapping> {
        let c = &self.config;
        let window = |window, base: u16, mask: u16, size| {
            let address = u64::from(c.word(base) & mask);
            (address != 0).then_some(Mapping { window, space: Space::Io, address, size })
        };
        let pm = window(Piix4Pm::PM, PMBASE, 0xffc0, Piix4Pm::PM_SIZE)
            .filter(|_| c.byte(PMREGMISC) & 1 != 0);
        let smbus = window(Piix4Pm::SMBUS, SMBBA, 0xfff0, Piix4Pm::SMBUS_SIZE).filter(|_| {
            self.smbus.is_some() && c.byte(SMBHSTCFG) & 1 != 0 && c.command() & command::IO != 0
        });
        pm.into_iter().chain(smbus).collect()
    }
    fn window_device(&self, window: u8) -> Option<Window> {
        match window {
            Piix4Pm::PM => Some(self.pm.clone()),
            Piix4Pm::SMBUS => self.smbus.clone(),
            _ => None,
        }
    }
}

impl Device for Piix4Pm {
    fn name(&self) -> &'static str {
        "piix4-pm"
    }
    fn reset(&mut self) {
        self.config.reset();
    }
    fn read(&mut self, _window: u8, _offset: u64, bytes: u8) -> u64 {
        tulk_hw::ones(bytes)
    }
    fn write(&mut self, _window: u8, _offset: u64, _bytes: u8, _value: u64) {}
    fn save(&self) -> Snapshot {
        save_function(&self.config, &())
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        load_function::<()>("piix4-pm", &mut self.config, snapshot, |()| Ok(()))
    }
}
