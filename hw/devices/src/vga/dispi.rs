//! Bochs' VBE display interface (VBE DISPI, version 0xB0C5): ports 0x1CE (index) and 0x1CF (data).

use serde::{Deserialize, Serialize};

pub(super) mod index {
    pub const ID: usize = 0;
    pub const XRES: usize = 1;
    pub const YRES: usize = 2;
    pub const BPP: usize = 3;
    pub const ENABLE: usize = 4;
    pub const BANK: usize = 5;
    pub const VIRT_WIDTH: usize = 6;
    pub const VIRT_HEIGHT: usize = 7;
    pub const X_OFFSET: usize = 8;
    pub const Y_OFFSET: usize = 9;
    pub const VIDEO_MEMORY_64K: usize = 10;
    pub const COUNT: usize = 11;
}

/// Bits of ENABLE.
const ENABLED: u16 = 1;
const GETCAPS: u16 = 2;
const EIGHT_BIT_DAC: u16 = 0x20;
const NOCLEARMEM: u16 = 0x80;

const FIRST_ID: u16 = 0xb0c0;
const LAST_ID: u16 = 0xb0c5;

/// Largest modes, as GETCAPS tells them.
const MAX_XRES: u16 = 16000;
const MAX_YRES: u16 = 12000;

#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Dispi {
    pub index: u16,
    regs: [u16; index::COUNT],
}

impl Dispi {
    pub fn new(memory: u64) -> Dispi {
        let mut dispi = Dispi::default();
        dispi.regs[index::ID] = LAST_ID;
        dispi.regs[index::BPP] = 8;
        dispi.regs[index::VIDEO_MEMORY_64K] = (memory >> 16) as u16;
        dispi
    }

    /// Of a snapshot: the mode must fit the memory.
    pub fn check(&self, memory: u64) -> Result<(), String> {
        let mut same = self.clone();
        same.fix(memory);
        match !self.enabled() || same == *self {
            true => Ok(()),
            false => Err("a video mode that does not fit".into()),
        }
    }

    pub fn reg(&self, index: usize) -> u32 {
        self.regs[index].into()
    }
    pub fn enabled(&self) -> bool {
        self.regs[index::ENABLE] & ENABLED != 0
    }
    /// DAC components have 8 bits, not 6.
    pub fn wide_dac(&self) -> bool {
        self.regs[index::ENABLE] & EIGHT_BIT_DAC != 0
    }
    /// Offset in video memory of the window at 0xA0000.
    pub fn bank(&self) -> u64 {
        if self.enabled() { u64::from(self.regs[index::BANK]) << 16 } else { 0 }
    }
    /// Bits of a pixel in memory.
    pub fn depth(&self) -> u32 {
        match self.regs[index::BPP] {
            15 => 16,
            bpp => bpp.into(),
        }
    }
    /// Bytes from line to line; of all planes in 4 bits per pixel.
    pub fn pitch(&self) -> u64 {
        u64::from(self.regs[index::VIRT_WIDTH]) * u64::from(self.depth()) / 8
    }

    pub fn read(&self, register: u16) -> u16 {
        let register = usize::from(register);
        if self.regs[index::ENABLE] & GETCAPS != 0 {
            match register {
                index::XRES => return MAX_XRES,
                index::YRES => return MAX_YRES,
                index::BPP => return 32,
                _ => {}
            }
        }
        self.regs.get(register).copied().unwrap_or(0)
    }

    /// True when video memory is to be cleared from its start to the end of the screen.
    pub fn write(&mut self, register: u16, value: u16, memory: u64) -> bool {
        let register = usize::from(register);
        match register {
            index::ID if (FIRST_ID..=LAST_ID).contains(&value) => self.regs[register] = value,
            index::XRES | index::YRES | index::BPP => {
                self.regs[register] = value;
                if self.enabled() {
                    self.fix(memory);
                }
            }
            index::VIRT_WIDTH | index::X_OFFSET | index::Y_OFFSET => {
                self.regs[register] = value;
                self.fix(memory);
            }
            index::BANK => {
                let banks = (memory >> 16).min(0x1_0000) as u16;
                self.regs[register] = value & banks.wrapping_sub(1);
            }
            index::ENABLE => {
                let rises = value & ENABLED != 0 && !self.enabled();
                self.regs[register] =
                    value & (ENABLED | GETCAPS | EIGHT_BIT_DAC | 0x40 | NOCLEARMEM);
                if rises {
                    self.regs[index::VIRT_WIDTH] = 0;
                    self.regs[index::X_OFFSET] = 0;
                    self.regs[index::Y_OFFSET] = 0;
                    self.regs[index::BANK] = 0;
                    self.fix(memory);
                    return value & NOCLEARMEM == 0;
                }
            }
            _ => {}
        }
        false
    }

    /// Makes a mode that fits the memory of what software wrote.
    fn fix(&mut self, memory: u64) {
        let r = &mut self.regs;
        if !matches!(r[index::BPP], 4 | 8 | 15 | 16 | 24 | 32) {
            r[index::BPP] = 8;
        }
        r[index::XRES] = (r[index::XRES] & !7).clamp(8, MAX_XRES);
        r[index::VIRT_WIDTH] = (r[index::VIRT_WIDTH] & !7).clamp(r[index::XRES], MAX_XRES);
        let lines = (memory / self.pitch()).min(0xffff) as u16;
        let r = &mut self.regs;
        r[index::YRES] = r[index::YRES].clamp(1, MAX_YRES.min(lines));
        r[index::VIRT_HEIGHT] = lines;
        r[index::X_OFFSET] = r[index::X_OFFSET].min(r[index::VIRT_WIDTH] - r[index::XRES]);
        r[index::Y_OFFSET] = r[index::Y_OFFSET].min(lines - r[index::YRES]);
    }
}
