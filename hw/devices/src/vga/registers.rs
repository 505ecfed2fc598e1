//! The VGA's registers and ports 0x3B0 to 0x3DF.

use serde::{Deserialize, Serialize};
use tulk_hw::Clock;

/// Sequencer registers.
pub(super) mod sr {
    pub const CLOCKING_MODE: usize = 1;
    pub const MAP_MASK: usize = 2;
    pub const CHARACTER_MAP: usize = 3;
    pub const MEMORY_MODE: usize = 4;
}

/// Graphics controller registers.
pub(super) mod gr {
    pub const SET_RESET: usize = 0;
    pub const ENABLE_SET_RESET: usize = 1;
    pub const COLOR_COMPARE: usize = 2;
    pub const DATA_ROTATE: usize = 3;
    pub const READ_MAP_SELECT: usize = 4;
    pub const MODE: usize = 5;
    pub const MISCELLANEOUS: usize = 6;
    pub const COLOR_DONT_CARE: usize = 7;
    pub const BIT_MASK: usize = 8;
}

/// CRT controller registers.
pub(super) mod cr {
    pub const HORIZONTAL_TOTAL: usize = 0x00;
    pub const HORIZONTAL_DISPLAY_END: usize = 0x01;
    pub const VERTICAL_TOTAL: usize = 0x06;
    pub const OVERFLOW: usize = 0x07;
    pub const PRESET_ROW_SCAN: usize = 0x08;
    pub const MAXIMUM_SCAN_LINE: usize = 0x09;
    pub const CURSOR_START: usize = 0x0a;
    pub const CURSOR_END: usize = 0x0b;
    pub const START_ADDRESS: usize = 0x0c;
    pub const CURSOR_LOCATION: usize = 0x0e;
    pub const VERTICAL_RETRACE_START: usize = 0x10;
    pub const VERTICAL_RETRACE_END: usize = 0x11;
    pub const VERTICAL_DISPLAY_END: usize = 0x12;
    pub const OFFSET: usize = 0x13;
    pub const MODE_CONTROL: usize = 0x17;
    pub const LINE_COMPARE: usize = 0x18;
    pub const COUNT: usize = 0x19;
}

/// Attribute controller registers; 0 to 15 are the palette.
pub(super) mod ar {
    pub const MODE_CONTROL: usize = 0x10;
    pub const COLOR_PLANE_ENABLE: usize = 0x12;
    pub const HORIZONTAL_PANNING: usize = 0x13;
    pub const COLOR_SELECT: usize = 0x14;
    pub const COUNT: usize = 0x15;
}

/// The attribute index register's bit that gives the palette to the display.
pub(super) const PALETTE_ADDRESS_SOURCE: u8 = 0x20;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Registers {
    /// Miscellaneous output.
    pub misc: u8,
    /// Feature control.
    feature: u8,
    /// Video subsystem enable.
    enable: u8,
    sr_index: u8,
    pub sr: [u8; 5],
    gr_index: u8,
    pub gr: [u8; 9],
    cr_index: u8,
    pub cr: [u8; cr::COUNT],
    pub ar_index: u8,
    /// The next write of port 0x3C0 is data.
    ar_data: bool,
    pub ar: [u8; ar::COUNT],
    pub pel_mask: u8,
    dac_read: u8,
    dac_write: u8,
    /// Which of red, green and blue is next.
    dac_part: u8,
    dac_reading: bool,
    /// What was written of a colour whose blue is not there yet.
    dac_colour: [u8; 2],
    /// Red, green, blue of 256 colours.
    pub dac: Vec<u8>,
    /// The four planes as last read, plane 0 in the low byte.
    pub latch: u32,
}

impl Default for Registers {
    fn default() -> Registers {
        Registers {
            misc: 0,
            feature: 0,
            enable: 1,
            sr_index: 0,
            sr: [0; 5],
            gr_index: 0,
            gr: [0; 9],
            cr_index: 0,
            cr: [0; cr::COUNT],
            ar_index: 0,
            ar_data: false,
            ar: [0; ar::COUNT],
            pel_mask: 0xff,
            dac_read: 0,
            dac_write: 0,
            dac_part: 0,
            dac_reading: false,
            dac_colour: [0; 2],
            dac: vec![0; 768],
            latch: 0,
        }
    }
}

/// Bits that exist, of the sequencer, the graphics and the attribute controller.
const SR_BITS: [u8; 5] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];
const GR_BITS: [u8; 9] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];
const AR_BITS: [u8; 5] = [0xef, 0xff, 0x3f, 0x0f, 0x0f];

impl Registers {
    pub fn check(&self) -> Result<(), String> {
        let fits = self.dac.len() == 768 && self.dac_part < 3;
        if fits { Ok(()) } else { Err("damaged DAC".into()) }
    }

    /// Whether the port (0x3B0 to 0x3DF) is one of the two that `misc` does not select.
    fn hidden(&self, port: u16) -> bool {
        let colour = self.misc & 1 != 0;
        (0x3b0..0x3c0).contains(&port) && colour || (0x3d0..0x3e0).contains(&port) && !colour
    }

    pub fn port_read(&mut self, port: u16, clock: &dyn Clock) -> u8 {
        if self.hidden(port) {
            return 0xff;
        }
        let get = |registers: &[u8], index: u8| registers.get(usize::from(index)).copied();
        match port {
            0x3c0 if !self.ar_data => self.ar_index,
            0x3c0 => 0,
            0x3c1 => get(&self.ar, self.ar_index & 31).unwrap_or(0),
            // Input status 0.
            0x3c2 => 0,
            0x3c3 => self.enable,
            0x3c4 => self.sr_index,
            0x3c5 => get(&self.sr, self.sr_index).unwrap_or(0),
            0x3c6 => self.pel_mask,
            0x3c7 => {
                if self.dac_reading {
                    3
                } else {
                    0
                }
            }
            0x3c8 => self.dac_write,
            0x3c9 => self.dac_data_read(),
            0x3ca => self.feature,
            0x3cc => self.misc,
            0x3ce => self.gr_index,
            0x3cf => get(&self.gr, self.gr_index).unwrap_or(0),
            0x3b4 | 0x3d4 => self.cr_index,
            0x3b5 | 0x3d5 => get(&self.cr, self.cr_index).unwrap_or(0),
            0x3ba | 0x3da => {
                self.ar_data = false;
                self.input_status_1(clock.now())
            }
            _ => 0xff,
        }
    }

    pub fn port_write(&mut self, port: u16, value: u8) {
        if self.hidden(port) {
            return;
        }
        match port {
            0x3c0 => {
                let index = usize::from(self.ar_index & 31);
                match (self.ar_data, index) {
                    (false, _) => self.ar_index = value & 0x3f,
                    // The palette cannot be written while it is displayed.
                    (true, 0..16) if self.ar_index & PALETTE_ADDRESS_SOURCE == 0 => {
                        self.ar[index] = value & 0x3f;
                    }
                    (true, 16..ar::COUNT) => self.ar[index] = value & AR_BITS[index - 16],
                    _ => {}
                }
                self.ar_data = !self.ar_data;
            }
            0x3c2 => self.misc = value & 0xef,
            0x3c3 => self.enable = value & 1,
            0x3c4 => self.sr_index = value & 7,
            0x3c5 => {
                if let Some(bits) = SR_BITS.get(usize::from(self.sr_index)) {
                    self.sr[usize::from(self.sr_index)] = value & bits;
                }
            }
            0x3c6 => self.pel_mask = value,
            0x3c7 => {
                (self.dac_read, self.dac_part, self.dac_reading) = (value, 0, true);
                self.dac_write = value.wrapping_add(1);
            }
            0x3c8 => (self.dac_write, self.dac_part, self.dac_reading) = (value, 0, false),
            0x3c9 => self.dac_data_write(value),
            0x3ce => self.gr_index = value & 15,
            0x3cf => {
                if let Some(bits) = GR_BITS.get(usize::from(self.gr_index)) {
                    self.gr[usize::from(self.gr_index)] = value & bits;
                }
            }
            0x3b4 | 0x3d4 => self.cr_index = value & 0x3f,
            0x3b5 | 0x3d5 => self.crtc_write(value),
            0x3ba | 0x3da => self.feature = value & 0x0b,
            _ => {}
        }
    }

    fn crtc_write(&mut self, value: u8) {
        let index = usize::from(self.cr_index);
        let protected = self.cr[cr::VERTICAL_RETRACE_END] & 0x80 != 0;
        match index {
            // Of the protected registers only bit 8 of the line compare can change.
            cr::OVERFLOW if protected => {
                self.cr[index] = (self.cr[index] & !0x10) | (value & 0x10);
            }
            0..cr::OVERFLOW if protected => {}
            0..cr::COUNT => self.cr[index] = value,
            _ => {}
        }
    }

    fn dac_data_read(&mut self) -> u8 {
        let value = self.dac[usize::from(self.dac_read) * 3 + usize::from(self.dac_part)];
        self.dac_part += 1;
        if self.dac_part == 3 {
            self.dac_part = 0;
            self.dac_read = self.dac_read.wrapping_add(1);
        }
        value
    }

    fn dac_data_write(&mut self, value: u8) {
        if let Some(part) = self.dac_colour.get_mut(usize::from(self.dac_part)) {
            *part = value;
            self.dac_part += 1;
            return;
        }
        let [red, green] = self.dac_colour;
        let at = usize::from(self.dac_write) * 3;
        self.dac[at..at + 3].copy_from_slice(&[red, green, value]);
        self.dac_part = 0;
        self.dac_write = self.dac_write.wrapping_add(1);
    }

    /// Bits 8 and 9 of a vertical register, from the overflow register.
    fn overflow(&self, bit8: u8, bit9: u8) -> u32 {
        let overflow = u32::from(self.cr[cr::OVERFLOW]);
        ((overflow >> bit8 & 1) << 8) | ((overflow >> bit9 & 1) << 9)
    }

    /// Scan lines that are displayed.
    pub fn vertical_display(&self) -> u32 {
        (u32::from(self.cr[cr::VERTICAL_DISPLAY_END]) | self.overflow(1, 6)) + 1
    }

    /// The scan line behind which the start address is 0.
    pub fn line_compare(&self) -> u32 {
        let bit9 = u32::from(self.cr[cr::MAXIMUM_SCAN_LINE] >> 6 & 1) << 9;
        let bit8 = u32::from(self.cr[cr::OVERFLOW] >> 4 & 1) << 8;
        u32::from(self.cr[cr::LINE_COMPARE]) | bit8 | bit9
    }

    /// A 16-bit register of the CRTC, high byte first.
    pub fn cr_word(&self, index: usize) -> u32 {
        u32::from(self.cr[index]) << 8 | u32::from(self.cr[index + 1])
    }

    /// Nanoseconds of a scan line, and scan lines of a frame.
    fn timing(&self) -> (u64, u64) {
        let clock_khz = if self.misc >> 2 & 3 == 1 { 28_322 } else { 25_175 };
        let clocking = self.sr[sr::CLOCKING_MODE];
        let dots = if clocking & 1 != 0 { 8 } else { 9 } << (clocking >> 3 & 1);
        let characters = u64::from(self.cr[cr::HORIZONTAL_TOTAL]) + 5;
        let lines = (u32::from(self.cr[cr::VERTICAL_TOTAL]) | self.overflow(0, 5)) + 2;
        (characters * dots * 1_000_000 / clock_khz, lines.into())
    }

    /// Input status 1: where the beam is, from the time.
    fn input_status_1(&self, now: u64) -> u8 {
        let (line_ns, lines) = self.timing();
        let (line, in_line) = (now / line_ns % lines, now % line_ns);
        let start = u64::from(self.cr[cr::VERTICAL_RETRACE_START]) | u64::from(self.overflow(2, 7));
        let end = u64::from(self.cr[cr::VERTICAL_RETRACE_END] & 15);
        // The low four bits of the line end the retrace.
        let length = end.wrapping_sub(start) & 15;
        let retrace = (start..start + length.max(1)).contains(&line);
        let total = u64::from(self.cr[cr::HORIZONTAL_TOTAL]) + 5;
        let shown = u64::from(self.cr[cr::HORIZONTAL_DISPLAY_END]) + 1;
        let blank = line >= self.vertical_display().into() || in_line * total >= shown * line_ns;
        u8::from(retrace) << 3 | u8::from(blank || retrace)
    }
}
