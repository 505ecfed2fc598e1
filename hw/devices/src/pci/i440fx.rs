//! 82441FX PCI and memory controller, the host bridge of 440FX boards (Intel 290549, section 3.2).
//!
//! Modelled: the programmable attribute map of 0xC0000 to 0xFFFFF, and SMRAM control with its lock. The other registers
//! keep their bits. Not modelled: DRAM row boundaries and timings, error reporting, the turbo reset control register
//! (the ISA bridge's is the one in use).

use super::{ConfigSpace, Identity, PciFunction, load_function, reg, save_function, status};
use std::ops::Range;
use std::sync::Arc;
use tulk_hw::{Device, Snapshot, SnapshotError};

/// Registers behind the header.
mod pmc {
    pub const PMCCFG: u16 = 0x50;
    pub const DRAMC: u16 = 0x57;
    pub const DRAMT: u16 = 0x58;
    pub const PAM0: u16 = 0x59;
    pub const DRB0: u16 = 0x60;
    pub const FDHC: u16 = 0x68;
    pub const MTT: u16 = 0x70;
    pub const SMRAM: u16 = 0x72;
    pub const ERRCMD: u16 = 0x90;
}

const D_OPEN: u8 = 1 << 6;
const D_CLS: u8 = 1 << 5;
const D_LCK: u8 = 1 << 4;
const SMRAME: u8 = 1 << 3;

/// How the processors see SMRAM at 0xA0000 to 0xBFFFF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Smram {
    /// It is there at all.
    pub enabled: bool,
    /// It is also there outside of system management mode.
    pub open: bool,
    /// Data accesses go to the bus even in system management mode.
    pub closed: bool,
}

/// The board's memory map below 1 MiB. Told of changes during configuration writes, reset and load.
pub trait MemoryAttributes: Send + Sync {
    /// Whether reads and writes of a segment go to RAM (true), or to the bus with its ROMs.
    fn set_segment(&self, segment: Range<u64>, read_ram: bool, write_ram: bool);
    fn set_smram(&self, smram: Smram);
}

/// The 13 segments of the attribute map with their register (from PAM0) and bit of the read enable.
pub const SEGMENTS: [(Range<u64>, u8, u8); 13] = [
    (0xf0000..0x100000, 0, 4),
    (0xc0000..0xc4000, 1, 0),
    (0xc4000..0xc8000, 1, 4),
    (0xc8000..0xcc000, 2, 0),
    (0xcc000..0xd0000, 2, 4),
    (0xd0000..0xd4000, 3, 0),
    (0xd4000..0xd8000, 3, 4),
    (0xd8000..0xdc000, 4, 0),
    (0xdc000..0xe0000, 4, 4),
    (0xe0000..0xe4000, 5, 0),
    (0xe4000..0xe8000, 5, 4),
    (0xe8000..0xec000, 6, 0),
    (0xec000..0xf0000, 6, 4),
];

/// The host bridge, function 00.0. Has no windows.
pub struct I440fx {
    config: ConfigSpace,
    memory: Arc<dyn MemoryAttributes>,
    /// What the board was told: the attribute map, SMRAM.
    told: ([u8; 7], u8),
}

impl I440fx {
    pub fn new(memory: Arc<dyn MemoryAttributes>) -> I440fx {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x1237,
            revision: 2,
            class: 0x06_0000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        });
        config
            .define(reg::COMMAND, &[0x06, 0], &[0, 1])
            .define(reg::STATUS, &(status::DEVSEL_MEDIUM | 0x80).to_le_bytes(), &[])
            .define(reg::INTERRUPT_LINE, &[0], &[])
            .define(pmc::PMCCFG, &[0; 7], &[0xff; 7])
            .define(pmc::DRAMC, &[0x01], &[0xff])
            .define(pmc::DRAMT, &[0x10], &[0xff])
            .define(pmc::PAM0, &[0; 7], &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33])
            .define(pmc::DRB0, &[1; 8], &[0xff; 8])
            .define(pmc::FDHC, &[0], &[0xc0])
            .define(pmc::MTT, &[0; 2], &[0xff; 2])
            .define(pmc::SMRAM, &[0x02], &[D_OPEN | D_CLS | D_LCK | SMRAME])
            .define(pmc::ERRCMD, &[0], &[0xff]);
        let mut bridge = I440fx { config, memory, told: ([0; 7], 0) };
        bridge.tell(true);
        bridge
    }

    fn tell(&mut self, all: bool) {
        let pam: [u8; 7] = std::array::from_fn(|n| self.config.byte(pmc::PAM0 + n as u16));
        let smram = self.config.byte(pmc::SMRAM);
        for (range, register, bit) in SEGMENTS {
            let bits = |pam: &[u8; 7]| pam[usize::from(register)] >> bit & 3;
            if all || bits(&pam) != bits(&self.told.0) {
                self.memory.set_segment(range, bits(&pam) & 1 != 0, bits(&pam) & 2 != 0);
            }
        }
        if all || smram != self.told.1 {
            self.memory.set_smram(Smram {
                enabled: smram & SMRAME != 0,
                open: smram & D_OPEN != 0,
                closed: smram & D_CLS != 0,
            });
        }
        self.told = (pam, smram);
    }
}

impl PciFunction for I440fx {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn config_write(&mut self, offset: u16, bytes: u8, value: u32) {
        let old = self.config.byte(pmc::SMRAM);
        self.config.write(offset, bytes, value);
        let mut new = self.config.byte(pmc::SMRAM);
        if old & D_LCK != 0 {
            // Locked until reset: only D_CLS may change.
            new = old & !D_CLS | new & D_CLS;
        } else if new & D_LCK != 0 {
            new &= !D_OPEN;
        }
        self.config.set(pmc::SMRAM, &[new]);
        self.tell(false);
    }
}

impl Device for I440fx {
    fn name(&self) -> &'static str {
        "i440fx"
    }
    fn reset(&mut self) {
        self.config.reset();
        self.tell(false);
    }
    fn read(&mut self, _window: u8, _offset: u64, bytes: u8) -> u64 {
        tulk_hw::ones(bytes)
    }
    fn write(&mut self, _window: u8, _offset: u64, _bytes: u8, _value: u64) {}
    fn save(&self) -> Snapshot {
        save_function(&self.config, &())
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        load_function::<()>("i440fx", &mut self.config, snapshot, |()| Ok(()))?;
        self.tell(false);
        Ok(())
    }
}
