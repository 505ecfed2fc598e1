//! A display's picture as a PNG file (`screendump`).

use crate::{Error, Frame};
use std::io::Write;

/// A character generator's glyphs: 8 pixels wide, one byte per line, leftmost pixel in the top bit, 256 of them.
#[derive(Clone, Copy)]
pub struct Font<'a> {
    /// Lines of a character, 1 to 32.
    pub height: usize,
    /// `256 * height` bytes; a shorter table has blank glyphs at its end.
    pub glyphs: &'a [u8],
    /// The attributes' colours, 0x00RRGGBB.
    pub colours: [u32; 16],
}

/// Colours of the text modes' 16 attributes as the VGA BIOS sets the palette: 0x00RRGGBB.
pub const TEXT_COLOURS: [u32; 16] = [
    0x000000, 0x0000aa, 0x00aa00, 0x00aaaa, 0xaa0000, 0xaa00aa, 0xaa5500, 0xaaaaaa, 0x555555,
    0x5555ff, 0x55ff55, 0x55ffff, 0xff5555, 0xff55ff, 0xffff55, 0xffffff,
];

/// A frame's pixels: width, height, rows of 0x00RRGGBB. Text is drawn with `font`, blinking characters lit, the cursor
/// in the lowest two lines. `None`: the display is off.
pub fn pixels(frame: &Frame, font: Font<'_>) -> Option<(usize, usize, Vec<u32>)> {
    match frame {
        Frame::Blank => None,
        Frame::Pixels { width, height, pixels } => {
            let mut pixels = pixels.clone();
            pixels.resize(width * height, 0);
            Some((*width, *height, pixels))
        }
        Frame::Text { columns, rows, cells, cursor } => {
            let lines = font.height.clamp(1, 32);
            let (width, height) = (columns * 8, rows * lines);
            let mut pixels = Vec::with_capacity(width * height);
            for y in 0..height {
                let (row, line) = (y / lines, y % lines);
                for column in 0..*columns {
                    let &(code, attribute) = cells.get(row * columns + column).unwrap_or(&(0, 0));
                    let glyph = font.glyphs.get(usize::from(code) * font.height + line);
                    let under = *cursor == Some((column, row)) && line + 2 >= lines;
                    let bits = if under { 0xff } else { glyph.copied().unwrap_or(0) };
                    let foreground = font.colours[usize::from(attribute & 15)];
                    let background = font.colours[usize::from(attribute >> 4 & 7)];
                    pixels.extend(
                        (0..8).map(|x| if bits & 0x80 >> x == 0 { background } else { foreground }),
                    );
                }
            }
            Some((width, height, pixels))
        }
    }
}

/// Writes a frame as a PNG, 8 bits per colour.
///
/// # Errors
/// The display is off or of no size, and what the writer reports.
pub fn write_png(frame: &Frame, font: Font<'_>, out: impl Write) -> Result<(), Error> {
    let (width, height, pixels) = pixels(frame, font).ok_or(Error::Blank)?;
    if width == 0 || height == 0 {
        return Err(Error::Blank);
    }
    let bytes: Vec<u8> =
        pixels.iter().flat_map(|p| [(p >> 16) as u8, (p >> 8) as u8, *p as u8]).collect();
    let size = |n: usize| u32::try_from(n).map_err(|_| Error::Blank);
    let mut encoder = ::png::Encoder::new(out, size(width)?, size(height)?);
    encoder.set_color(::png::ColorType::Rgb);
    encoder.set_depth(::png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&bytes)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut data).unwrap();
        (info.width, info.height, data)
    }

    #[test]
    fn pixels_come_out_as_they_are() {
        let frame = Frame::Pixels { width: 2, height: 1, pixels: vec![0x123456, 0xff0080] };
        let mut file = Vec::new();
        write_png(&frame, Font { height: 16, glyphs: &[], colours: TEXT_COLOURS }, &mut file)
            .unwrap();
        assert_eq!(decode(&file), (2, 1, vec![0x12, 0x34, 0x56, 0xff, 0, 0x80]));
    }

    #[test]
    fn text_is_drawn_with_its_colours_and_cursor() {
        let mut glyphs = vec![0; 256 * 4];
        glyphs[4 * 65..4 * 65 + 4].copy_from_slice(&[0x80, 0x01, 0, 0]);
        let frame = Frame::Text {
            columns: 2,
            rows: 1,
            cells: vec![(65, 0x1e), (65, 0x07)],
            cursor: Some((1, 0)),
        };
        let (width, height, pixels) =
            pixels(&frame, Font { height: 4, glyphs: &glyphs, colours: TEXT_COLOURS }).unwrap();
        assert_eq!((width, height), (16, 4));
        let at = |x: usize, y: usize| pixels[y * 16 + x];
        assert_eq!((at(0, 0), at(1, 0), at(7, 1)), (0xffff55, 0x0000aa, 0xffff55));
        assert_eq!((at(8, 0), at(9, 0), at(8, 2), at(15, 3)), (0xaaaaaa, 0, 0xaaaaaa, 0xaaaaaa));
    }

    #[test]
    fn hostile_frames_do_not_panic() {
        let font = Font { height: 0, glyphs: &[1], colours: TEXT_COLOURS };
        let short =
            Frame::Text { columns: 3, rows: 2, cells: vec![(255, 255)], cursor: Some((9, 9)) };
        assert!(pixels(&short, font).is_some());
        let none = Frame::Pixels { width: 0, height: 5, pixels: vec![] };
        assert!(matches!(write_png(&none, font, Vec::new()), Err(Error::Blank)));
        assert!(matches!(write_png(&Frame::Blank, font, Vec::new()), Err(Error::Blank)));
    }
}
