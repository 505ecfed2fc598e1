//! Code page 437, as the character generator of a VGA draws it, in Unicode.
//!
//! Source: the Unicode Consortium's table CP437.TXT for 0x80 and up, and IBM's "PC Graphics" glyphs (CDRA code page
//! 437, registered glyphs) for the control codes, which a VGA shows as pictures.

/// The 256 glyphs in order.
const GLYPHS: &str = concat!(
    " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼",
    " !\"#$%&'()*+,-./0123456789:;<=>?",
    "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_",
    "`abcdefghijklmnopqrstuvwxyz{|}~⌂",
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ",
    "áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐",
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
);

/// The table by code.
pub fn table() -> [char; 256] {
    let mut table = [' '; 256];
    for (slot, glyph) in table.iter_mut().zip(GLYPHS.chars()) {
        *slot = glyph;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_without_doubles() {
        assert_eq!(GLYPHS.chars().count(), 256);
        let table = table();
        for code in 0x20..0x7fu8 {
            assert_eq!(table[usize::from(code)], char::from(code));
        }
        for (code, glyph) in
            [(1, '☺'), (0x80, 'Ç'), (0xb3, '│'), (0xc4, '─'), (0xdb, '█'), (0xe1, 'ß')]
        {
            assert_eq!(table[code], glyph);
        }
        for (i, a) in table.iter().enumerate().skip(1) {
            assert!(!table[i + 1..].contains(a), "{a:?} twice");
        }
    }
}
