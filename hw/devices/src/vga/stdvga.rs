//! The PCI function around the VGA: 1234:1111, with its windows.

use super::VideoMemory;
use super::dispi::{Dispi, index};
use super::registers::Registers;
use super::render;
use crate::pci::{
    Bar, ConfigSpace, Identity, Mapping, PciFunction, ROM_WINDOW, Space, command, load_function,
    save_function,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Clock, Device, Snapshot, SnapshotError};
use tulk_ui::{Display, Frame};

#[derive(Clone, Serialize, Deserialize)]
struct State {
    vga: Registers,
    dispi: Dispi,
}

/// The display adapter.
pub struct StdVga {
    config: ConfigSpace,
    s: State,
    vram: Arc<dyn VideoMemory>,
    clock: Arc<dyn Clock>,
    rom: Vec<u8>,
}

impl StdVga {
    /// BAR 0: video memory, which the board may map as memory instead of calling the device.
    pub const FRAMEBUFFER: u8 = 0;
    /// BAR 2: ports and display interface in memory.
    pub const MMIO: u8 = 2;
    /// Window of memory 0xA0000 to 0xBFFFF, of ports 0x3B0 to 0x3DF, of ports 0x1CE to 0x1D1. The bus maps them.
    pub const LEGACY_MEMORY: u8 = 7;
    pub const LEGACY_PORTS: u8 = 8;
    pub const DISPI_PORTS: u8 = 9;

    /// An adapter with its video memory, and the VGA BIOS as option ROM (may be empty: no ROM BAR).
    ///
    /// # Panics
    /// The memory's size is no power of two between 256 KiB and 1 GiB.
    pub fn new(vram: Arc<dyn VideoMemory>, clock: Arc<dyn Clock>, rom: Vec<u8>) -> StdVga {
        let size = vram.size();
        assert!((256 << 10..=1 << 30).contains(&size), "{size} bytes of video memory");
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x1111,
            revision: 2,
            class: 0x03_0000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        });
        config
            .bar(StdVga::FRAMEBUFFER, Bar::Memory32 { size: size as u32, prefetchable: true })
            .bar(StdVga::MMIO, Bar::Memory32 { size: 4096, prefetchable: false });
        if !rom.is_empty() {
            let size = rom.len().next_power_of_two().max(2048) as u32;
            config.bar(ROM_WINDOW, Bar::Rom(size));
        }
        let s = State { vga: Registers::default(), dispi: Dispi::new(size) };
        StdVga { config, s, vram, clock, rom }
    }

    /// What the screen shows now.
    pub fn frame(&self) -> Frame {
        render::frame(&self.s.vga, &self.s.dispi, &*self.vram)
    }

    fn port_read(&mut self, port: u16) -> u8 {
        let value = self.s.vga.port_read(port, &*self.clock);
        // The DAC has 6 bits unless the display interface made them 8.
        if port == 0x3c9 && !self.s.dispi.wide_dac() { value & 0x3f } else { value }
    }

    fn dispi_write(&mut self, register: u16, value: u16) {
        if self.s.dispi.write(register, value, self.vram.size()) {
            let zeros = [0; 64 << 10];
            let bytes = self.s.dispi.pitch() * u64::from(self.s.dispi.reg(index::YRES));
            let mut at = 0;
            while at < bytes {
                let n = (bytes - at).min(zeros.len() as u64);
                self.vram.write(at, &zeros[..n as usize]);
                at += n;
            }
        }
    }

    /// Whether the legacy window is linear memory from the bank on.
    fn banked(&self) -> bool {
        self.s.dispi.enabled() && self.s.dispi.depth() != 4
    }

    fn legacy_read(&mut self, offset: u64, bytes: u8) -> u64 {
        if !self.banked() {
            let bank = self.s.dispi.bank();
            return self.s.vga.memory_read(&*self.vram, offset, bytes, bank);
        }
        let ones = tulk_hw::ones(bytes);
        if offset + u64::from(bytes) > 0x1_0000 {
            ones
        } else {
            self.vram_read(self.s.dispi.bank() + offset, bytes)
        }
    }

    fn legacy_write(&mut self, offset: u64, bytes: u8, value: u64) {
        let bank = self.s.dispi.bank();
        if !self.banked() {
            self.s.vga.memory_write(&*self.vram, offset, bytes, value, bank);
        } else if offset + u64::from(bytes) <= 0x1_0000 {
            self.vram.write(bank + offset, &value.to_le_bytes()[..usize::from(bytes)]);
        }
    }

    fn vram_read(&self, offset: u64, bytes: u8) -> u64 {
        let mut value = [0; 8];
        self.vram.read(offset, &mut value[..usize::from(bytes)]);
        u64::from_le_bytes(value)
    }

    /// BAR 2: VGA ports 0x3C0 to 0x3DF from 0x400 on, the display interface's registers from 0x500 on.
    fn mmio_read(&mut self, offset: u64, bytes: u8) -> u64 {
        match offset {
            0x400..0x420 => tulk_hw::read_bytes(offset - 0x400, bytes, |at| match at {
                0..0x20 => self.port_read(0x3c0 + at as u16),
                _ => 0xff,
            }),
            0x500..0x516 if offset.is_multiple_of(2) => {
                let register = ((offset - 0x500) / 2) as u16;
                let low = u64::from(self.s.dispi.read(register));
                match bytes {
                    1 => low & 0xff,
                    2 => low,
                    _ => low | u64::from(self.s.dispi.read(register + 1)) << 16,
                }
            }
            // How much follows, and the byte order: little.
            0x600 => 8,
            0x604 => 0x1e1e_1e1e & tulk_hw::ones(bytes),
            // No EDID, and nothing else.
            _ => 0,
        }
    }

    fn mmio_write(&mut self, offset: u64, bytes: u8, value: u64) {
        match offset {
            0x400..0x420 => {
                for n in (0..u64::from(bytes)).take_while(|n| offset + n < 0x420) {
                    let port = 0x3c0 + (offset - 0x400 + n) as u16;
                    self.s.vga.port_write(port, (value >> (8 * n)) as u8);
                }
            }
            0x500..0x516 if offset.is_multiple_of(2) => {
                let register = ((offset - 0x500) / 2) as u16;
                self.dispi_write(register, value as u16);
                if bytes >= 4 {
                    self.dispi_write(register + 1, (value >> 16) as u16);
                }
            }
            _ => {}
        }
    }
}

impl PciFunction for StdVga {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn mappings(&self) -> Vec<Mapping> {
        let mut all = self.config.mappings();
        for (window, space, address, size) in [
            (StdVga::LEGACY_MEMORY, Space::Memory, 0xa0000, 0x2_0000),
            (StdVga::LEGACY_PORTS, Space::Io, 0x3b0, 0x30),
            (StdVga::DISPI_PORTS, Space::Io, 0x1ce, 4),
        ] {
            let enable = if space == Space::Io { command::IO } else { command::MEMORY };
            if self.config.command() & enable != 0 {
                all.push(Mapping { window, space, address, size });
            }
        }
        all
    }
}

impl Device for StdVga {
    fn name(&self) -> &'static str {
        "vga"
    }

    fn reset(&mut self) {
        self.config.reset();
        self.s = State { vga: Registers::default(), dispi: Dispi::new(self.vram.size()) };
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        let bytes = bytes.clamp(1, 8);
        let ones = tulk_hw::ones(bytes);
        match window {
            StdVga::FRAMEBUFFER => self.vram_read(offset, bytes),
            StdVga::MMIO => self.mmio_read(offset, bytes),
            ROM_WINDOW => tulk_hw::read_bytes(offset, bytes, |at| {
                let byte = usize::try_from(at).ok().and_then(|at| self.rom.get(at));
                byte.copied().unwrap_or(0xff)
            }),
            StdVga::LEGACY_MEMORY if offset < 0x2_0000 => self.legacy_read(offset, bytes),
            StdVga::LEGACY_PORTS if offset < 0x30 => {
                tulk_hw::read_bytes(offset, bytes, |at| self.port_read(0x3b0 + at as u16))
            }
            StdVga::DISPI_PORTS => match (offset, bytes) {
                (0, 2..) => self.s.dispi.index.into(),
                // Odd ports cannot be read in words on other buses; there it is one further.
                (1 | 2, 2..) => self.s.dispi.read(self.s.dispi.index).into(),
                _ => ones,
            },
            _ => ones,
        }
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        let bytes = bytes.clamp(1, 8);
        match window {
            StdVga::FRAMEBUFFER => {
                self.vram.write(offset, &value.to_le_bytes()[..usize::from(bytes)]);
            }
            StdVga::MMIO => self.mmio_write(offset, bytes, value),
            StdVga::LEGACY_MEMORY if offset < 0x2_0000 => self.legacy_write(offset, bytes, value),
            StdVga::LEGACY_PORTS if offset < 0x30 => {
                tulk_hw::write_bytes(offset, bytes, value, |at, byte| {
                    self.s.vga.port_write(0x3b0 + at as u16, byte);
                });
            }
            StdVga::DISPI_PORTS => match (offset, bytes) {
                (0, 2..) => self.s.dispi.index = value as u16,
                (1 | 2, 2..) => self.dispi_write(self.s.dispi.index, value as u16),
                _ => {}
            },
            _ => {}
        }
    }

    fn save(&self) -> Snapshot {
        save_function(&self.config, &self.s)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let memory = self.vram.size();
        self.s = load_function("vga", &mut self.config, snapshot, |state: &State| {
            state.vga.check()?;
            state.dispi.check(memory)
        })?;
        Ok(())
    }
}

/// The adapter as a user interface sees it.
pub struct VgaDisplay(pub Arc<Mutex<StdVga>>);

impl VgaDisplay {
    /// Only the registers are copied under the lock: a frame takes long, and the guest goes on.
    fn copy(&self) -> (State, Arc<dyn VideoMemory>) {
        let vga = self.0.lock();
        (vga.s.clone(), vga.vram.clone())
    }

    /// The screen, and what its characters are drawn with.
    pub fn picture(&self) -> (Frame, render::Generator) {
        let (state, vram) = self.copy();
        let frame = render::frame(&state.vga, &state.dispi, &*vram);
        (frame, render::generator(&state.vga, &state.dispi, &*vram))
    }
}

impl Display for VgaDisplay {
    fn frame(&self) -> Frame {
        let (state, vram) = self.copy();
        render::frame(&state.vga, &state.dispi, &*vram)
    }
}
