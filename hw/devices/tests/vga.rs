//! The VGA's modes with small frames, its memory, and the VBE display interface.

use std::sync::Arc;
use tulk_devices::pci::PciFunction;
use tulk_devices::vga::{StdVga, VecVideoMemory, VgaDisplay, VideoMemory};
use tulk_hw::{Clock, Device, ManualClock, check_device};
use tulk_ui::{Display, Frame};

/// A mode as the IBM VGA BIOS sets it: miscellaneous, sequencer, CRTC, graphics, attribute registers.
struct Mode {
    misc: u8,
    sr: [u8; 5],
    cr: [u8; 25],
    gr: [u8; 9],
    ar: [u8; 21],
}

const TEXT: Mode = Mode {
    misc: 0x67,
    sr: [3, 0, 3, 0, 2],
    cr: [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c,
        0x0e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff],
    ar: [
        0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f,
        8, 0,
    ],
};

const PLANAR: Mode = Mode {
    misc: 0xe3,
    sr: [3, 1, 15, 0, 6],
    cr: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0, 0xea, 0x8c,
        0xdf, 0x28, 0, 0xe7, 0x04, 0xe3, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0, 5, 15, 0xff],
    ar: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1, 0, 15, 0, 0],
};

const MODE_13H: Mode = Mode {
    misc: 0x63,
    sr: [3, 1, 15, 0, 14],
    cr: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0, 0x9c, 0x0e,
        0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0x40, 5, 15, 0xff],
    ar: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0, 15, 0, 0],
};

/// 320x200 in 4 colours, as on a CGA.
const MODE_4: Mode = Mode {
    misc: 0x63,
    sr: [3, 9, 3, 0, 2],
    cr: [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0x9c, 0x0e,
        0x8f, 0x14, 0, 0x96, 0xb9, 0xa2, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0x30, 0x0f, 0, 0xff],
    ar: [0, 3, 5, 7, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1, 0, 3, 0, 0],
};

/// 640x200 in 2 colours.
const MODE_6: Mode = Mode {
    misc: 0x63,
    sr: [3, 1, 1, 0, 6],
    cr: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0x9c, 0x0e,
        0x8f, 0x28, 0, 0x96, 0xb9, 0xc2, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0, 0x0d, 0, 0xff],
    ar: [0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 1, 0, 1, 0, 0],
};

struct Rig {
    vga: StdVga,
    vram: Arc<VecVideoMemory>,
    clock: Arc<ManualClock>,
}

fn rig() -> Rig {
    let vram = Arc::new(VecVideoMemory::new(1 << 20));
    let clock = ManualClock::new();
    let rom = (0..3000u32).map(|n| n as u8).collect();
    let vga = StdVga::new(vram.clone(), clock.clone(), rom);
    Rig { vga, vram, clock }
}

impl Rig {
    fn outb(&mut self, port: u64, value: u8) {
        self.vga.write(StdVga::LEGACY_PORTS, port - 0x3b0, 1, value.into());
    }
    fn outw(&mut self, port: u64, index: u8, value: u8) {
        let word = u64::from(value) << 8 | u64::from(index);
        self.vga.write(StdVga::LEGACY_PORTS, port - 0x3b0, 2, word);
    }
    fn inb(&mut self, port: u64) -> u8 {
        self.vga.read(StdVga::LEGACY_PORTS, port - 0x3b0, 1) as u8
    }
    fn sr(&mut self, index: u8, value: u8) {
        self.outw(0x3c4, index, value);
    }
    fn gr(&mut self, index: u8, value: u8) {
        self.outw(0x3ce, index, value);
    }
    fn cr(&mut self, index: u8, value: u8) {
        self.outw(0x3d4, index, value);
    }
    fn ar(&mut self, index: u8, value: u8) {
        self.inb(0x3da);
        self.outb(0x3c0, index);
        self.outb(0x3c0, value);
        self.outb(0x3c0, 0x20);
    }
    fn poke(&mut self, address: u64, value: u8) {
        self.vga.write(StdVga::LEGACY_MEMORY, address - 0xa0000, 1, value.into());
    }
    fn peek(&mut self, address: u64) -> u8 {
        self.vga.read(StdVga::LEGACY_MEMORY, address - 0xa0000, 1) as u8
    }
    /// Sets a mode, with palette entry `n` = red n, green 2n, blue 3n (of 63).
    fn set(&mut self, mode: &Mode) {
        self.outb(0x3c2, mode.misc);
        mode.sr.iter().enumerate().for_each(|(n, v)| self.sr(n as u8, *v));
        self.cr(0x11, 0);
        mode.cr.iter().enumerate().for_each(|(n, v)| self.cr(n as u8, *v));
        mode.gr.iter().enumerate().for_each(|(n, v)| self.gr(n as u8, *v));
        mode.ar.iter().enumerate().for_each(|(n, v)| self.ar(n as u8, *v));
        self.outb(0x3c8, 0);
        for n in 0..=255u8 {
            for part in [n, n.wrapping_mul(2), n.wrapping_mul(3)] {
                self.outb(0x3c9, part);
            }
        }
    }
    /// Makes the screen small, so that frames can be written down.
    fn shrink(&mut self, characters: u8, lines: u8) {
        self.cr(0x11, 0);
        self.cr(1, characters - 1);
        self.cr(7, 0x10);
        self.cr(0x12, lines - 1);
    }
    /// Palette indices of a frame, by the colours of `set`.
    fn frame(&self) -> (usize, usize, Vec<u8>) {
        let Frame::Pixels { width, height, pixels } = self.vga.frame() else {
            panic!("no pixels: {:?}", self.vga.frame());
        };
        let index = |n: u32| (n >> 18) as u8;
        (width, height, pixels.into_iter().map(index).collect())
    }
    fn dispi(&mut self, index: u16, value: u16) {
        self.vga.write(StdVga::DISPI_PORTS, 0, 2, index.into());
        self.vga.write(StdVga::DISPI_PORTS, 1, 2, value.into());
    }
    fn dispi_get(&mut self, index: u16) -> u16 {
        self.vga.write(StdVga::DISPI_PORTS, 0, 2, index.into());
        self.vga.read(StdVga::DISPI_PORTS, 1, 2) as u16
    }
}

#[test]
fn text_with_its_cursor_and_start_address() {
    let mut r = rig();
    assert_eq!(r.vga.frame(), Frame::Blank);
    r.set(&TEXT);
    for (n, byte) in b"H\x1fi\x2f".iter().enumerate() {
        r.poke(0xb8000 + n as u64, *byte);
    }
    r.poke(0xb8000 + 2 * 80 + 2, b'!');
    r.cr(0x0f, 81);
    let Frame::Text { columns, rows, cells, cursor } = r.vga.frame() else { panic!() };
    assert_eq!((columns, rows, cells.len()), (80, 25, 2000));
    assert_eq!(cells[..3], [(b'H', 0x1f), (b'i', 0x2f), (0, 0)]);
    assert_eq!(cells[81], (b'!', 0));
    assert_eq!(cursor, Some((1, 1)));
    r.cr(0x0d, 80);
    r.cr(0x0a, 0x2d);
    let Frame::Text { cells, cursor, .. } = r.vga.frame() else { panic!() };
    assert_eq!((cells[1], cursor), ((b'!', 0), None));
    // Split behind scan line 31: row 2 is the start of memory.
    r.cr(0x09, 0x0f);
    r.cr(0x07, 0x0f);
    r.cr(0x18, 31);
    let Frame::Text { cells, .. } = r.vga.frame() else { panic!() };
    assert_eq!((cells[1], cells[160]), ((b'!', 0), (b'H', 0x1f)));
    assert_eq!(r.peek(0xb8001), 0x1f);
    assert_eq!(r.peek(0xa0000), 0xff, "not in the memory map");
    r.sr(1, 0x20);
    assert_eq!(r.vga.frame(), Frame::Blank, "screen off");
}

#[test]
fn planar_pixels_with_palette_panning_and_split() {
    let mut r = rig();
    r.set(&PLANAR);
    assert_eq!(r.frame().0 * r.frame().1, 640 * 480);
    r.shrink(2, 3);
    r.sr(2, 0b0101);
    r.poke(0xa0000, 0x80);
    r.sr(2, 0b1010);
    r.poke(0xa0000, 0x41);
    r.sr(2, 0b1111);
    r.poke(0xa0000 + 80 + 1, 0x0f);
    let (width, height, pixels) = r.frame();
    assert_eq!((width, height), (16, 3));
    assert_eq!(pixels[..16], [5, 10, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(pixels[16..32], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 15, 15, 15]);
    r.ar(0x13, 7);
    assert_eq!(r.frame().2[..2], [10, 0], "panning");
    r.cr(0x18, 1);
    r.cr(0x07, 0);
    r.cr(0x09, 0);
    assert_eq!(r.frame().2[32..34], [10, 0], "split");
    r.ar(0x10, 0x21);
    assert_eq!(r.frame().2[32..34], [5, 10], "not panned below the split");
    r.ar(0x13, 0);
    r.cr(0x0d, 1);
    assert_eq!(r.frame().2[16..24], [0, 0, 0, 0, 15, 15, 15, 15], "start address");
    r.ar(0x12, 0b0011);
    assert_eq!(r.frame().2[20], 3, "colour plane enable");
    r.ar(3, 0x15);
    assert_eq!(r.frame().2[20], 0x15);
    r.ar(0x10, 0x81);
    r.ar(0x14, 0x02);
    assert_eq!(r.frame().2[20], 0x25, "colour select");
    r.outb(0x3c6, 0x07);
    assert_eq!(r.frame().2[20], 0x05, "pixel mask");
}

#[test]
fn write_modes_and_latches() {
    let mut r = rig();
    r.set(&PLANAR);
    let planes = |r: &Rig, at| r.vram.read_planes(at);
    // Mode 0: rotate, set/reset, logic, bit mask.
    r.gr(3, 4);
    r.poke(0xa0000, 0x1e);
    assert_eq!(planes(&r, 0), 0xe1e1_e1e1);
    r.gr(3, 0);
    r.gr(0, 0b0110);
    r.gr(1, 0b0011);
    r.poke(0xa0001, 0x3c);
    assert_eq!(planes(&r, 1), 0x3c3c_ff00);
    r.gr(1, 0);
    r.gr(8, 0x0f);
    assert_eq!(r.peek(0xa0000), 0xe1);
    r.poke(0xa0000, 0x34);
    assert_eq!(planes(&r, 0), 0xe4e4_e4e4, "bit mask");
    r.gr(8, 0xff);
    for (logic, want) in [(1, 0x24), (2, 0xf4), (3, 0xd0)] {
        r.poke(0xa0002, 0xe4);
        r.gr(3, 0);
        r.poke(0xa0002, 0xe4);
        r.peek(0xa0002);
        r.gr(3, logic << 3);
        r.poke(0xa0002, 0x34);
        assert_eq!(planes(&r, 2), u32::from_ne_bytes([want; 4]), "logic {logic}");
    }
    r.gr(3, 0);
    // Mode 1: what was read.
    r.peek(0xa0001);
    r.gr(5, 1);
    r.poke(0xa0100, 0x55);
    assert_eq!(planes(&r, 0x100), 0x3c3c_ff00);
    // Mode 2: a colour.
    r.gr(5, 2);
    r.gr(8, 0xf0);
    r.peek(0xa0001);
    r.poke(0xa0101, 0b1001);
    assert_eq!(planes(&r, 0x101), 0xfc0c_0ff0);
    // Mode 3: the byte masks set/reset.
    r.gr(5, 3);
    r.gr(8, 0x3f);
    r.gr(0, 0b0101);
    r.peek(0xa0200);
    r.poke(0xa0200, 0xf3);
    assert_eq!(planes(&r, 0x200), 0x0033_0033);
    // Read modes: plane, colour compare.
    r.gr(5, 0);
    r.gr(4, 1);
    assert_eq!(r.peek(0xa0001), 0xff);
    r.gr(5, 8);
    r.gr(2, 0b1110);
    r.gr(7, 0b1111);
    assert_eq!(r.peek(0xa0001), 0x3c);
    r.gr(7, 0b0010);
    assert_eq!(r.peek(0xa0001), 0xff);
    r.gr(7, 0);
    assert_eq!(r.peek(0xa0777), 0xff, "nothing matters");
    // A map mask of one plane leaves the others.
    r.gr(5, 0);
    r.gr(8, 0xff);
    r.sr(2, 0b0100);
    r.vga.write(StdVga::LEGACY_MEMORY, 0x200, 2, 0xaabb);
    assert_eq!((planes(&r, 0x200), planes(&r, 0x201)), (0x00bb_0033, 0x00aa_0000));
}

#[test]
fn mode_13h_and_mode_x_share_linear_memory() {
    let mut r = rig();
    r.set(&MODE_13H);
    assert_eq!((r.frame().0, r.frame().1), (320, 200));
    r.shrink(2, 4);
    r.vga.write(StdVga::LEGACY_MEMORY, 0, 8, 0x0807_0605_0403_0201);
    r.vga.write(StdVga::LEGACY_MEMORY, 320, 4, 0x3d3e_3f40);
    assert_eq!(r.vga.read(StdVga::LEGACY_MEMORY, 1, 2), 0x0302);
    let (width, height, pixels) = r.frame();
    assert_eq!((width, height), (8, 2), "each line twice");
    assert_eq!(pixels, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0x3f, 0x3e, 0x3d, 0, 0, 0, 0]);
    // A chain-4 write through the pipeline: logic with the latch.
    r.peek(0xa0001);
    r.gr(3, 0x10);
    r.poke(0xa0001, 0x10);
    r.gr(3, 0);
    assert_eq!(r.frame().2[..4], [1, 0x12, 3, 4]);
    r.ar(0x13, 2);
    assert_eq!(r.frame().2[..4], [0x12, 3, 4, 5], "panning by pixels");
    r.ar(0x13, 0);
    // Unchained: four pixels at an address.
    r.sr(4, 6);
    r.cr(9, 0x40);
    r.sr(2, 0b1000);
    r.poke(0xa0001, 0x2a);
    let (width, height, pixels) = r.frame();
    assert_eq!((width, height), (8, 4));
    assert_eq!(pixels[..8], [1, 0x12, 3, 4, 5, 6, 7, 0x2a]);
    r.cr(0x0d, 1);
    assert_eq!(r.frame().2[..4], [5, 6, 7, 0x2a], "start address");
}

#[test]
fn cga_modes_have_their_lines_in_banks() {
    let mut r = rig();
    r.set(&MODE_4);
    assert_eq!((r.frame().0, r.frame().1), (320, 200));
    r.shrink(1, 8);
    r.cr(0x13, 1);
    for (address, value) in [(0, 0b00_01_10_11), (1, 0xe4), (2, 0xff), (0x2000, 0x55), (4, 0x1b)] {
        r.poke(0xb8000 + address, value);
    }
    let (width, height, pixels) = r.frame();
    assert_eq!((width, height), (8, 4));
    // Palette entries 0 to 3 are colours 0, 3, 5, 7.
    assert_eq!(pixels[..8], [0, 3, 5, 7, 7, 5, 3, 0]);
    assert_eq!(pixels[8..16], [3, 3, 3, 3, 0, 0, 0, 0]);
    assert_eq!(pixels[16..24], [0, 3, 5, 7, 0, 0, 0, 0], "the next row");
    assert_eq!(r.peek(0xba000), 0x55);
    r.set(&MODE_6);
    assert_eq!((r.frame().0, r.frame().1), (640, 200));
    r.shrink(1, 4);
    r.poke(0xb8000, 0xa5);
    r.poke(0xba000, 0x0f);
    assert_eq!(r.frame().2, [7, 0, 7, 0, 0, 7, 0, 7, 0, 0, 0, 0, 7, 7, 7, 7]);
}

#[test]
fn the_palette_reads_back_and_the_crtc_is_protected() {
    let mut r = rig();
    r.set(&MODE_13H);
    r.outb(0x3c7, 9);
    assert_eq!(r.inb(0x3c7), 3);
    assert_eq!([r.inb(0x3c9), r.inb(0x3c9), r.inb(0x3c9), r.inb(0x3c9)], [9, 18, 27, 10]);
    r.outb(0x3c8, 200);
    r.outb(0x3c9, 0xff);
    assert_eq!(r.inb(0x3c8), 200, "a colour is written as a whole");
    r.cr(0x11, 0x80);
    r.cr(1, 3);
    r.outb(0x3d4, 1);
    assert_eq!(r.inb(0x3d5), 0x4f);
    r.cr(7, 0);
    r.outb(0x3d4, 7);
    assert_eq!(r.inb(0x3d5), 0x0f, "only bit 8 of the line compare");
    assert_eq!(r.inb(0x3b5), 0xff, "monochrome ports");
    r.outb(0x3c2, 0x62);
    assert_eq!((r.inb(0x3d5), r.inb(0x3b5)), (0xff, 0x0f));
    assert_eq!(r.inb(0x3cc), 0x62);
    // While it is displayed, the palette is not written.
    r.outb(0x3c2, 0x63);
    r.inb(0x3da);
    r.outb(0x3c0, 0x21);
    r.outb(0x3c0, 0x3f);
    r.inb(0x3da);
    r.outb(0x3c0, 0x21);
    assert_eq!(r.inb(0x3c1), 1);
}

#[test]
fn retrace_comes_from_the_time() {
    let mut r = rig();
    r.set(&TEXT);
    // 449 lines of 100 characters of 9 dots at 28.322 MHz: 70 Hz.
    let line = 900 * 1_000_000 / 28_322;
    let mut at = |n: u64| {
        r.clock.set(n);
        r.inb(0x3da) & 9
    };
    assert_eq!(at(100 * line), 0);
    assert_eq!(at(100 * line + line * 9 / 10), 1, "horizontal");
    assert_eq!(at(405 * line), 1, "vertical blank");
    assert_eq!(at(412 * line), 9, "vertical retrace");
    assert_eq!(at(413 * line), 9);
    assert_eq!(at(414 * line), 1);
    assert_eq!(at((449 + 100) * line), 0, "the next frame");
    assert!(r.clock.now() > 14_000_000);
}

#[test]
fn linear_modes_of_all_depths() {
    let mut r = rig();
    r.set(&MODE_13H);
    assert_eq!((r.dispi_get(0), r.dispi_get(10)), (0xb0c5, 16));
    r.dispi(4, 2);
    assert_eq!((r.dispi_get(1), r.dispi_get(3)), (16000, 32));
    r.dispi(4, 0);
    let bytes: Vec<u8> = (0..64).map(|n| n * 3).collect();
    for (bpp, want) in [
        (8, [0x00_0000, 0x0c_1824]),
        (15, [0x00_c600, 0x10_4231]),
        (16, [0x00_6100, 0x08_2031]),
        (24, [0x06_0300, 0x0f_0c09]),
        (32, [0x06_0300, 0x12_0f0c]),
    ] {
        r.dispi(4, 0);
        r.vram.write(0, &[0x99; 64]);
        r.dispi(1, 8);
        r.dispi(2, 2);
        r.dispi(3, bpp);
        r.dispi(4, 0x41);
        let Frame::Pixels { width, height, pixels } = r.vga.frame() else { panic!() };
        assert_eq!((width, height), (8, 2));
        assert_eq!(pixels, [0; 16], "cleared, {bpp}");
        r.vga.write(StdVga::FRAMEBUFFER, 0, 1, 1);
        r.vram.write(0, &bytes);
        let Frame::Pixels { pixels, .. } = r.vga.frame() else { panic!() };
        assert_eq!(pixels[..2], want, "{bpp}: {:06x?}", &pixels[..2]);
    }
}

#[test]
fn virtual_screens_banks_and_mmio() {
    let mut r = rig();
    r.set(&MODE_13H);
    r.dispi(1, 16);
    r.dispi(2, 2);
    r.dispi(3, 8);
    r.dispi(4, 0xe1);
    r.dispi(6, 32);
    assert_eq!((r.dispi_get(6), r.dispi_get(7)), (32, 32768));
    r.dispi(8, 3);
    r.dispi(9, 5);
    r.vram.write(5 * 32 + 3, &[7, 8]);
    // 8-bit DAC.
    r.outb(0x3c8, 7);
    [0x81, 0x82, 0x83].into_iter().for_each(|n| r.outb(0x3c9, n));
    let Frame::Pixels { pixels, .. } = r.vga.frame() else { panic!() };
    assert_eq!(pixels[0], 0x81_8283);
    r.dispi(8, 100);
    assert_eq!(r.dispi_get(8), 16, "offsets stay in the virtual screen");
    r.dispi(5, 3);
    r.poke(0xa0001, 0x5a);
    assert_eq!(r.vga.read(StdVga::FRAMEBUFFER, 0x30001, 1), 0x5a);
    assert_eq!(r.peek(0xa0001), 0x5a);
    assert_eq!(r.vga.read(StdVga::MMIO, 0x500, 2), 0xb0c5);
    assert_eq!(r.vga.read(StdVga::MMIO, 0x502, 4), 0x2_0010);
    r.vga.write(StdVga::MMIO, 0x508, 2, 0);
    assert_eq!((r.frame().0, r.frame().1), (320, 200), "back in VGA");
    r.vga.write(StdVga::MMIO, 0x40e, 2, 0x0305);
    assert_eq!(r.vga.read(StdVga::MMIO, 0x40e, 2), 0x0305);
    assert_eq!(r.vga.read(6, 2999, 2), 0xff00 | (2999 % 256), "ROM");
    r.dispi(1, 0xffff);
    r.dispi(2, 0xffff);
    r.dispi(3, 32);
    r.dispi(4, 1);
    assert_eq!((r.dispi_get(1), r.dispi_get(2)), (16000, 16), "no more than fits");
}

#[test]
fn bochs_16_colours() {
    let mut r = rig();
    r.set(&PLANAR);
    r.dispi(1, 16);
    r.dispi(2, 2);
    r.dispi(3, 4);
    r.dispi(4, 1);
    r.poke(0xa0000 + 3, 0x80);
    let (_, _, pixels) = r.frame();
    assert_eq!(pixels[16 + 8..16 + 10], [15, 0]);
}

#[test]
fn windows_follow_the_command_register() {
    let mut r = rig();
    assert!(r.vga.mappings().is_empty());
    r.vga.config_write(0x10, 4, 0xfd00_0000);
    r.vga.config_write(4, 2, 3);
    let list: Vec<_> = r.vga.mappings().iter().map(|m| (m.window, m.address, m.size)).collect();
    let want = [(0, 0xfd00_0000, 1 << 20), (7, 0xa0000, 0x20000), (8, 0x3b0, 0x30), (9, 0x1ce, 4)];
    assert_eq!(list, want);
}

#[test]
fn conforms_and_frames_of_any_state_are_whole() {
    let mut r = rig();
    let windows = [1 << 20, 0, 4096, 0, 0, 0, 4096, 0x20000, 0x30, 4];
    check_device(&mut r.vga, &windows, 50_000);
    let mut x = 1u64;
    for _ in 0..200 {
        for _ in 0..50 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (port, value) = (0x3c0 + (x >> 40) % 32, (x >> 20) as u8);
            r.outb(port, value);
            r.outw([0x3c4, 0x3ce, 0x3d4][(x >> 50) as usize % 3], (x >> 30) as u8 % 26, value);
        }
        r.outb(0x3c0, 0x20);
        r.outb(0x3c0, 0x20);
        match r.vga.frame() {
            Frame::Text { columns, rows, cells, .. } => assert_eq!(columns * rows, cells.len()),
            Frame::Pixels { width, height, pixels } => assert_eq!(width * height, pixels.len()),
            Frame::Blank => {}
        }
    }
    let vga = Arc::new(parking_lot::Mutex::new(r.vga));
    let direct = vga.lock().frame();
    assert_eq!(VgaDisplay(vga).frame(), direct);
}
