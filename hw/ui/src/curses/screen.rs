//! A frame as a terminal's control sequences (ECMA-48): [`Screen`].

use crate::{Frame, cp437};
use std::io::Write;

/// What the terminal shows.
pub(super) struct Screen {
    columns: usize,
    rows: usize,
    glyphs: [char; 256],
    /// The rows as they were written; `None`: not known.
    shown: Vec<Option<Vec<(u8, u8)>>>,
    cursor: Option<(usize, usize)>,
    /// The line of text that stands for what is no text.
    notice: String,
}

/// A VGA colour (bit 0 blue) as a terminal's (bit 0 red).
fn colour(vga: u8) -> u8 {
    vga & 8 | (vga & 1) << 2 | vga & 2 | (vga & 4) >> 2
}

impl Screen {
    pub fn new(size: (usize, usize)) -> Screen {
        let mut screen = Screen {
            columns: 0,
            rows: 0,
            glyphs: cp437::table(),
            shown: Vec::new(),
            cursor: None,
            notice: String::new(),
        };
        screen.resize(size);
        screen
    }

    /// The terminal has another size, and shows nothing known.
    pub fn resize(&mut self, (columns, rows): (usize, usize)) {
        (self.columns, self.rows) = (columns, rows);
        self.shown = vec![None; rows];
        self.cursor = None;
        self.notice.clear();
    }

    /// Appends what makes the terminal show `frame`. False: it does already.
    pub fn draw(&mut self, frame: &Frame, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match frame {
            Frame::Text { columns, rows, cells, cursor } => {
                let cells = cells.get(..columns * rows).unwrap_or(cells);
                self.text(*columns, *rows, cells, *cursor, out);
            }
            Frame::Pixels { width, height, .. } => {
                let text = format!("{width} x {height} graphics (screendump FILE in the monitor)");
                self.note(text, out);
            }
            Frame::Blank => self.note("the display is off".into(), out),
        }
        out.len() != start
    }

    fn text(
        &mut self,
        columns: usize,
        rows: usize,
        cells: &[(u8, u8)],
        cursor: Option<(usize, usize)>,
        out: &mut Vec<u8>,
    ) {
        if !self.notice.is_empty() {
            self.notice.clear();
            self.shown.fill(None);
        }
        // A terminal that is too small shows the part with the cursor.
        let row_of_cursor = cursor.map_or(0, |(_, row)| row.min(rows.saturating_sub(1)));
        let first = (row_of_cursor + 1).saturating_sub(self.rows);
        let before = out.len();
        for y in 0..self.rows {
            let row = first + y;
            let cells = if row < rows { cells.get(row * columns..) } else { None };
            let cells = cells.unwrap_or(&[]);
            let cells = &cells[..cells.len().min(columns).min(self.columns)];
            if self.shown[y].as_deref() == Some(cells) {
                continue;
            }
            self.shown[y] = Some(cells.to_vec());
            self.row(y, cells, out);
        }
        let cursor = cursor
            .map(|(column, row)| (column, row.wrapping_sub(first)))
            .filter(|(column, row)| *column < self.columns && *row < self.rows);
        if out.len() != before || cursor != self.cursor {
            self.cursor = cursor;
            match cursor {
                Some((column, row)) => {
                    put(out, format_args!("\x1b[{};{}H\x1b[?25h", row + 1, column + 1))
                }
                None => put(out, format_args!("\x1b[?25l")),
            }
        }
    }

    fn row(&self, y: usize, cells: &[(u8, u8)], out: &mut Vec<u8>) {
        put(out, format_args!("\x1b[?25l\x1b[{};1H", y + 1));
        let mut current = None;
        for &(code, attribute) in cells {
            if current != Some(attribute) {
                current = Some(attribute);
                let (front, back) = (colour(attribute & 15), colour(attribute >> 4 & 7));
                let blink = if attribute & 0x80 != 0 { ";5" } else { "" };
                put(out, format_args!("\x1b[0{blink};38;5;{front};48;5;{back}m"));
            }
            put(out, format_args!("{}", self.glyphs[usize::from(code)]));
        }
        put(out, format_args!("\x1b[0m"));
        if cells.len() < self.columns {
            put(out, format_args!("\x1b[K"));
        }
    }

    fn note(&mut self, text: String, out: &mut Vec<u8>) {
        if self.notice != text {
            let visible: String = text.chars().take(self.columns).collect();
            put(out, format_args!("\x1b[0m\x1b[2J\x1b[1;1H\x1b[?25l{visible}"));
            self.notice = text;
        }
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A Vec takes all bytes.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &[u8], columns: usize, cursor: Option<(usize, usize)>) -> Frame {
        let cells = text.iter().map(|c| (*c, 0x07)).collect();
        Frame::Text { columns, rows: text.len() / columns, cells, cursor }
    }

    fn drawn(screen: &mut Screen, frame: &Frame) -> String {
        let mut out = Vec::new();
        let changed = screen.draw(frame, &mut out);
        assert_eq!(changed, !out.is_empty());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_changes_is_written() {
        let mut screen = Screen::new((4, 2));
        let first = drawn(&mut screen, &frame(b"ab\xdb\x01efgh", 4, Some((1, 1))));
        assert!(first.contains("ab█☺") && first.contains("efgh"), "{first:?}");
        assert!(first.ends_with("\x1b[2;2H\x1b[?25h"));
        assert_eq!(drawn(&mut screen, &frame(b"ab\xdb\x01efgh", 4, Some((1, 1)))), "");
        let moved = drawn(&mut screen, &frame(b"ab\xdb\x01efgh", 4, Some((2, 1))));
        assert_eq!(moved, "\x1b[2;3H\x1b[?25h");
        let second = drawn(&mut screen, &frame(b"ab\xdb\x01eFgh", 4, None));
        assert!(second.contains("eFgh") && !second.contains("ab"), "{second:?}");
        assert!(second.ends_with("\x1b[?25l"));
        screen.resize((4, 2));
        assert!(drawn(&mut screen, &frame(b"ab\xdb\x01eFgh", 4, None)).contains("ab"));
    }

    #[test]
    fn colours_and_blinking() {
        let mut screen = Screen::new((1, 1));
        // Bright red on blue, blinking.
        let cells = vec![(b'x', 0x9c)];
        let text = drawn(&mut screen, &Frame::Text { columns: 1, rows: 1, cells, cursor: None });
        assert!(text.contains("\x1b[0;5;38;5;9;48;5;4mx"), "{text:?}");
        assert_eq!((1..8).map(colour).collect::<Vec<_>>(), [4, 2, 6, 1, 5, 3, 7]);
    }

    #[test]
    fn small_terminals_follow_the_cursor_and_large_ones_clear_the_rest() {
        let mut small = Screen::new((2, 1));
        let text = drawn(&mut small, &frame(b"abcdefgh", 4, Some((0, 1))));
        assert!(text.contains("ef") && !text.contains('g') && !text.contains('a'), "{text:?}");
        let mut large = Screen::new((8, 4));
        let text = drawn(&mut large, &frame(b"abcdefgh", 4, None));
        assert_eq!(text.matches("\x1b[K").count(), 4);
        for size in [(0, 0), (0, 5), (5, 0)] {
            drawn(&mut Screen::new(size), &frame(b"abcdefgh", 4, Some((9, 9))));
        }
        let short =
            Frame::Text { columns: 80, rows: 25, cells: vec![(0, 0); 3], cursor: Some((0, 24)) };
        drawn(&mut large, &short);
    }

    #[test]
    fn graphics_are_named_and_text_comes_back() {
        let mut screen = Screen::new((80, 2));
        let text = frame(b"ab", 2, None);
        drawn(&mut screen, &text);
        let graphics = Frame::Pixels { width: 640, height: 480, pixels: vec![0; 640 * 480] };
        assert!(drawn(&mut screen, &graphics).contains("640 x 480 graphics"));
        assert_eq!(drawn(&mut screen, &graphics), "");
        assert!(drawn(&mut screen, &Frame::Blank).contains("off"));
        assert!(drawn(&mut screen, &text).contains("ab"));
    }
}
