//! From registers and video memory to a [`Frame`].

use super::VideoMemory;
use super::dispi::{Dispi, index};
use super::registers::{PALETTE_ADDRESS_SOURCE, Registers, ar, cr, gr, sr};
use tulk_ui::Frame;

/// Plane offsets that the CRTC reaches.
const COUNTER_MASK: u32 = 0xffff;

/// The DAC's colours as 0x00RRGGBB, behind the pixel mask.
fn colours(r: &Registers, wide: bool) -> [u32; 256] {
    std::array::from_fn(|n| {
        let at = 3 * (n & usize::from(r.pel_mask));
        let part = |n: usize| match u32::from(r.dac[at + n]) {
            value if wide => value,
            value => (value & 0x3f) << 2 | value >> 4 & 3,
        };
        part(0) << 16 | part(1) << 8 | part(2)
    })
}

/// The DAC index of each of the attribute controller's 16 colours.
fn palette(r: &Registers) -> [u8; 16] {
    let select = r.ar[ar::COLOR_SELECT];
    std::array::from_fn(|n| {
        let entry = r.ar[n & usize::from(r.ar[ar::COLOR_PLANE_ENABLE])] & 0x3f;
        let entry = match r.ar[ar::MODE_CONTROL] & 0x80 {
            0 => entry,
            _ => entry & 0x0f | select << 4 & 0x30,
        };
        entry | select << 4 & 0xc0
    })
}

/// The character generator as it stands: what a text frame is drawn with.
#[derive(Clone, Debug)]
pub struct Generator {
    /// Lines of a character.
    pub height: usize,
    /// `height` bytes for each of 256 characters, the leftmost pixel in the top bit.
    pub glyphs: Vec<u8>,
    /// The 16 attributes' colours, 0x00RRGGBB.
    pub colours: [u32; 16],
}

/// Where in plane 2 the eight fonts are.
const FONTS: [u32; 8] = [0x0000, 0x4000, 0x8000, 0xc000, 0x2000, 0x6000, 0xa000, 0xe000];

/// Reads the font of map A and the colours behind palette and DAC.
pub(super) fn generator(r: &Registers, dispi: &Dispi, vram: &dyn VideoMemory) -> Generator {
    let select = r.sr[sr::CHARACTER_MAP];
    let font = FONTS[usize::from(select >> 2 & 3 | select >> 3 & 4)];
    let height = u32::from(r.cr[cr::MAXIMUM_SCAN_LINE] & 31) + 1;
    // Each character has 32 lines of room.
    let line =
        |n: u32| (vram.read_planes((font + n / height * 32 + n % height).into()) >> 16) as u8;
    let colours = colours(r, dispi.wide_dac());
    Generator {
        height: height as usize,
        glyphs: (0..256 * height).map(line).collect(),
        colours: palette(r).map(|n| colours[usize::from(n)]),
    }
}

pub(super) fn frame(r: &Registers, dispi: &Dispi, vram: &dyn VideoMemory) -> Frame {
    let off = r.sr[sr::CLOCKING_MODE] & 0x20 != 0 || r.ar_index & PALETTE_ADDRESS_SOURCE == 0;
    if off {
        Frame::Blank
    } else if dispi.enabled() {
        linear(r, dispi, vram)
    } else if r.cr[cr::MODE_CONTROL] & 0x80 == 0 {
        // The CRTC is held in reset.
        Frame::Blank
    } else if r.gr[gr::MISCELLANEOUS] & 1 == 0 {
        text(r, vram)
    } else {
        graphics(r, vram)
    }
}

/// Where the CRTC reads: what the registers say of rows.
struct Raster {
    start: u32,
    /// From row to row.
    pitch: u32,
    /// Scan lines of a row, each shown `repeat` times.
    row_lines: u32,
    repeat: u32,
    /// Scan lines that a panned row begins late.
    preset: u32,
    line_compare: u32,
    panning: u32,
    /// Below the split nothing is panned.
    split_resets_panning: bool,
}

impl Raster {
    fn new(r: &Registers) -> Raster {
        let byte_panning = u32::from(r.cr[cr::PRESET_ROW_SCAN] >> 5 & 3);
        Raster {
            start: r.cr_word(cr::START_ADDRESS) + byte_panning,
            pitch: 2 * u32::from(r.cr[cr::OFFSET]),
            row_lines: u32::from(r.cr[cr::MAXIMUM_SCAN_LINE] & 31) + 1,
            repeat: 1 + u32::from(r.cr[cr::MAXIMUM_SCAN_LINE] >> 7),
            preset: u32::from(r.cr[cr::PRESET_ROW_SCAN] & 31),
            line_compare: r.line_compare(),
            panning: u32::from(r.ar[ar::HORIZONTAL_PANNING] & 7),
            split_resets_panning: r.ar[ar::MODE_CONTROL] & 0x20 != 0,
        }
    }

    /// The counter at the start of a scan line, the line within its row, and the panning.
    fn line(&self, scan: u32) -> (u32, u32, u32) {
        let split = scan > self.line_compare;
        let (start, line) = match split {
            true => (0, (scan - self.line_compare - 1) / self.repeat),
            false => (self.start, scan / self.repeat + self.preset.min(self.row_lines - 1)),
        };
        let panning = if split && self.split_resets_panning { 0 } else { self.panning };
        (start + line / self.row_lines * self.pitch, line % self.row_lines, panning)
    }
}

fn text(r: &Registers, vram: &dyn VideoMemory) -> Frame {
    let raster = Raster::new(r);
    let columns = u32::from(r.cr[cr::HORIZONTAL_DISPLAY_END]) + 1;
    let height = raster.row_lines * raster.repeat;
    let rows = (r.vertical_display() / height).max(1);
    // A cursor whose end is before its start is not shown.
    let (begin, end) = (r.cr[cr::CURSOR_START], r.cr[cr::CURSOR_END] & 31);
    let shown = begin & 0x20 == 0 && begin & 31 <= end;
    let location = r.cr_word(cr::CURSOR_LOCATION);
    let mut cells = Vec::with_capacity((columns * rows) as usize);
    let mut cursor = None;
    for row in 0..rows {
        let (start, ..) = raster.line(row * height);
        for column in 0..columns {
            let at = (start + column) & COUNTER_MASK;
            let [character, attribute, ..] = vram.read_planes(at.into()).to_le_bytes();
            cells.push((character, attribute));
            if shown && at == location & COUNTER_MASK {
                cursor = Some((column as usize, row as usize));
            }
        }
    }
    Frame::Text { columns: columns as usize, rows: rows as usize, cells, cursor }
}

fn graphics(r: &Registers, vram: &dyn VideoMemory) -> Frame {
    let raster = Raster::new(r);
    let mode = r.gr[gr::MODE];
    let (deep, interleaved) = (mode & 0x40 != 0, mode & 0x20 != 0);
    let characters = u32::from(r.cr[cr::HORIZONTAL_DISPLAY_END]) + 1;
    // Pixels of four bytes: a pixel of 8 bits takes two dots.
    let pixels_per_step = if deep { 4 } else { 8 };
    let width = characters * pixels_per_step;
    let control = r.cr[cr::MODE_CONTROL];
    // CGA and Hercules modes have the lines of a row in banks; elsewhere they are all the same.
    let banked = control & 3 != 3;
    let repeat = if banked { raster.repeat } else { raster.repeat * raster.row_lines };
    let height = (r.vertical_display() / repeat).max(1);
    let bank_bit = if control & 0x40 != 0 { 13 } else { 12 };
    let colours = colours(r, false);
    let palette = palette(r).map(|n| colours[usize::from(n)]);
    let mut pixels = Vec::with_capacity((width * height) as usize);
    for y in 0..height {
        let (start, row_line, panning) = raster.line(y * repeat);
        let mut bank = 0;
        let mut bank_mask = 0;
        for (n, bit) in [(0, bank_bit), (1, bank_bit + 1)] {
            if control >> n & 1 == 0 {
                bank |= (row_line >> n & 1) << bit;
                bank_mask |= 1 << bit;
            }
        }
        let planes = |step: u32| {
            let at = (start + step) & !bank_mask | bank;
            vram.read_planes((at & COUNTER_MASK).into())
        };
        let skip = if deep { panning / 2 } else { panning };
        let line_start = pixels.len();
        let mut line = Vec::with_capacity((width + 8) as usize);
        for step in 0..characters + u32::from(skip != 0) {
            let four = planes(step);
            if deep {
                line.extend(four.to_le_bytes().map(|n| colours[usize::from(n)]));
            } else if interleaved {
                line.extend((0..8).map(|x| palette[interleaved_pixel(four, x)]));
            } else {
                line.extend((0..8).map(|x| palette[planar_pixel(four, x)]));
            }
        }
        pixels.extend(line.into_iter().skip(skip as usize).take(width as usize));
        pixels.resize(line_start + width as usize, 0);
    }
    Frame::Pixels { width: width as usize, height: height as usize, pixels }
}

/// Pixel `x` of 8, a bit from each plane.
fn planar_pixel(planes: u32, x: u32) -> usize {
    let bits = planes >> (7 - x) & 0x0101_0101;
    (bits.wrapping_mul(0x0102_0408) >> 24 & 15) as usize
}

/// Pixel `x` of 8: two bits of plane 0 or 1, the upper two of plane 2 or 3.
fn interleaved_pixel(planes: u32, x: u32) -> usize {
    let plane = x / 4;
    let shift = 8 * plane + 6 - 2 * (x % 4);
    (planes >> shift & 3 | (planes >> (shift + 16) & 3) << 2) as usize
}

/// Modes of the display interface.
fn linear(r: &Registers, dispi: &Dispi, vram: &dyn VideoMemory) -> Frame {
    let (width, height) = (dispi.reg(index::XRES), dispi.reg(index::YRES));
    let (x0, y0) = (dispi.reg(index::X_OFFSET), dispi.reg(index::Y_OFFSET));
    let (depth, pitch) = (dispi.depth(), dispi.pitch());
    let colours = colours(r, dispi.wide_dac());
    let mut pixels = Vec::with_capacity((width * height) as usize);
    let mut line = vec![0; (u64::from(width) * u64::from(depth) / 8 + 4) as usize];
    for y in 0..height {
        let start = u64::from(y0 + y) * pitch + u64::from(x0) * u64::from(depth) / 8;
        if depth == 4 {
            let palette = palette(r).map(|n| colours[usize::from(n)]);
            let start = u64::from(y0 + y) * pitch / 4;
            pixels.extend((x0..x0 + width).map(|x| {
                let planes = vram.read_planes(start + u64::from(x / 8));
                palette[planar_pixel(planes, x % 8)]
            }));
            continue;
        }
        vram.read(start, &mut line);
        let line = &line[..line.len() - 4];
        match dispi.reg(index::BPP) {
            8 => pixels.extend(line.iter().map(|n| colours[usize::from(*n)])),
            15 => pixels.extend(line.chunks_exact(2).map(|p| packed(p, [5, 5, 5]))),
            16 => pixels.extend(line.chunks_exact(2).map(|p| packed(p, [5, 6, 5]))),
            _ => pixels.extend(
                line.chunks_exact(depth as usize / 8)
                    .map(|p| u32::from(p[2]) << 16 | u32::from(p[1]) << 8 | u32::from(p[0])),
            ),
        }
    }
    Frame::Pixels { width: width as usize, height: height as usize, pixels }
}

/// A pixel of two bytes whose red, green and blue have these many bits.
fn packed(pixel: &[u8], bits: [u32; 3]) -> u32 {
    let mut value = u32::from(pixel[0]) | u32::from(pixel[1]) << 8;
    let mut colour = 0;
    for (n, bits) in bits.into_iter().rev().enumerate() {
        let part = value & ((1 << bits) - 1);
        value >>= bits;
        colour |= (part << (8 - bits) | part >> (2 * bits - 8)) << (8 * n);
    }
    colour
}
