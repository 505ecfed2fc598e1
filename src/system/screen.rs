//! Pictures of the guest's screen.

use anyhow::{Context, bail};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use tulk_devices::vga::VideoMemory;
use tulk_pc::Pc;
use tulk_ui::{Display, Frame};

/// The colours of text mode, as firmware sets them.
const COLORS: [u32; 16] = [
    0x00_0000, 0x00_00aa, 0x00_aa00, 0x00_aaaa, 0xaa_0000, 0xaa_00aa, 0xaa_5500, 0xaa_aaaa,
    0x55_5555, 0x55_55ff, 0x55_ff55, 0x55_ffff, 0xff_5555, 0xff_55ff, 0xff_ff55, 0xff_ffff,
];
const CELL: (usize, usize) = (8, 16);

/// Draws characters with the font in plane 2 of video memory: 32 bytes each.
fn draw(columns: usize, rows: usize, cells: &[(u8, u8)], video: &dyn VideoMemory) -> Frame {
    let (width, height) = (columns * CELL.0, rows * CELL.1);
    let mut pixels = vec![0; width * height];
    for (n, (character, attribute)) in cells.iter().enumerate().take(columns * rows) {
        let (x, y) = (n % columns * CELL.0, n / columns * CELL.1);
        let (front, back) =
            (COLORS[(attribute & 15) as usize], COLORS[(attribute >> 4 & 7) as usize]);
        for line in 0..CELL.1 {
            let row = (video.read_planes(*character as u64 * 32 + line as u64) >> 16) as u8;
            for bit in 0..CELL.0 {
                let color = if row << bit & 0x80 != 0 { front } else { back };
                pixels[(y + line) * width + x + bit] = color;
            }
        }
    }
    Frame::Pixels { width, height, pixels }
}

/// Writes what the screen shows as a PNG file.
///
/// # Errors
/// There is no display, or the file cannot be written.
pub fn dump(pc: &Pc, path: &Path) -> anyhow::Result<()> {
    let Some(display) = &pc.peripherals().display else { bail!("the machine has no display") };
    let frame = match display.frame() {
        Frame::Text { columns, rows, cells, .. } => {
            draw(columns, rows, &cells, &*pc.memory.video())
        }
        Frame::Blank => Frame::Pixels { width: 640, height: 400, pixels: vec![0; 640 * 400] },
        pixels => pixels,
    };
    let Frame::Pixels { width, height, pixels } = frame else { unreachable!("drawn above") };
    let write = || -> Result<(), png::EncodingError> {
        let file = BufWriter::new(File::create(path)?);
        let mut encoder = png::Encoder::new(file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        let bytes: Vec<u8> =
            pixels.iter().flat_map(|p| [(p >> 16) as u8, (p >> 8) as u8, *p as u8]).collect();
        writer.write_image_data(&bytes)?;
        writer.finish()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
