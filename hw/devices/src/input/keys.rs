//! The keys of a PC keyboard by the names that users write, with their codes.
//!
//! Codes: IBM "Keyboards (101- and 102-key)", scan code sets 2 and 3; "Keyboard Scan Code Specification" (Microsoft,
//! 2000) for the keys that came later. Set 1 is set 2 through the controller's translation.

/// One row: names (the first is the usual one), code of set 2 (0xe0 prefix in the upper byte), code of set 3 (0: none).
type Row = (&'static str, u16, u8);

/// Keys, as QEMU's monitor spells them.
const KEYS: &[Row] = &[
    ("esc", 0x76, 0x08),
    ("1", 0x16, 0x16),
    ("2", 0x1e, 0x1e),
    ("3", 0x26, 0x26),
    ("4", 0x25, 0x25),
    ("5", 0x2e, 0x2e),
    ("6", 0x36, 0x36),
    ("7", 0x3d, 0x3d),
    ("8", 0x3e, 0x3e),
    ("9", 0x46, 0x46),
    ("0", 0x45, 0x45),
    ("minus", 0x4e, 0x4e),
    ("equal", 0x55, 0x55),
    ("backspace", 0x66, 0x66),
    ("tab", 0x0d, 0x0d),
    ("q", 0x15, 0x15),
    ("w", 0x1d, 0x1d),
    ("e", 0x24, 0x24),
    ("r", 0x2d, 0x2d),
    ("t", 0x2c, 0x2c),
    ("y", 0x35, 0x35),
    ("u", 0x3c, 0x3c),
    ("i", 0x43, 0x43),
    ("o", 0x44, 0x44),
    ("p", 0x4d, 0x4d),
    ("bracket_left", 0x54, 0x54),
    ("bracket_right", 0x5b, 0x5b),
    ("ret", 0x5a, 0x5a),
    ("ctrl", 0x14, 0x11),
    ("a", 0x1c, 0x1c),
    ("s", 0x1b, 0x1b),
    ("d", 0x23, 0x23),
    ("f", 0x2b, 0x2b),
    ("g", 0x34, 0x34),
    ("h", 0x33, 0x33),
    ("j", 0x3b, 0x3b),
    ("k", 0x42, 0x42),
    ("l", 0x4b, 0x4b),
    ("semicolon", 0x4c, 0x4c),
    ("apostrophe", 0x52, 0x52),
    ("grave_accent", 0x0e, 0x0e),
    ("shift", 0x12, 0x12),
    ("backslash", 0x5d, 0x5c),
    ("z", 0x1a, 0x1a),
    ("x", 0x22, 0x22),
    ("c", 0x21, 0x21),
    ("v", 0x2a, 0x2a),
    ("b", 0x32, 0x32),
    ("n", 0x31, 0x31),
    ("m", 0x3a, 0x3a),
    ("comma", 0x41, 0x41),
    ("dot", 0x49, 0x49),
    ("slash", 0x4a, 0x4a),
    ("shift_r", 0x59, 0x59),
    ("kp_multiply", 0x7c, 0x7e),
    ("alt", 0x11, 0x19),
    ("spc", 0x29, 0x29),
    ("caps_lock", 0x58, 0x14),
    ("f1", 0x05, 0x07),
    ("f2", 0x06, 0x0f),
    ("f3", 0x04, 0x17),
    ("f4", 0x0c, 0x1f),
    ("f5", 0x03, 0x27),
    ("f6", 0x0b, 0x2f),
    ("f7", 0x83, 0x37),
    ("f8", 0x0a, 0x3f),
    ("f9", 0x01, 0x47),
    ("f10", 0x09, 0x4f),
    ("num_lock", 0x77, 0x76),
    ("scroll_lock", 0x7e, 0x5f),
    ("kp_7", 0x6c, 0x6c),
    ("kp_8", 0x75, 0x75),
    ("kp_9", 0x7d, 0x7d),
    ("kp_subtract", 0x7b, 0x84),
    ("kp_4", 0x6b, 0x6b),
    ("kp_5", 0x73, 0x73),
    ("kp_6", 0x74, 0x74),
    ("kp_add", 0x79, 0x7c),
    ("kp_1", 0x69, 0x69),
    ("kp_2", 0x72, 0x72),
    ("kp_3", 0x7a, 0x7a),
    ("kp_0", 0x70, 0x70),
    ("kp_decimal", 0x71, 0x71),
    ("less", 0x61, 0x13),
    ("f11", 0x78, 0x56),
    ("f12", 0x07, 0x5e),
    ("sysrq", 0x84, 0x57),
    ("kp_enter", 0xe05a, 0x79),
    ("ctrl_r", 0xe014, 0x58),
    ("kp_divide", 0xe04a, 0x77),
    ("print", 0xe07c, 0x57),
    ("alt_r", 0xe011, 0x39),
    ("home", 0xe06c, 0x6e),
    ("up", 0xe075, 0x63),
    ("pgup", 0xe07d, 0x6f),
    ("left", 0xe06b, 0x61),
    ("right", 0xe074, 0x6a),
    ("end", 0xe069, 0x65),
    ("down", 0xe072, 0x60),
    ("pgdn", 0xe07a, 0x6d),
    ("insert", 0xe070, 0x67),
    ("delete", 0xe071, 0x64),
    ("meta_l", 0xe01f, 0x8b),
    ("meta_r", 0xe027, 0x8c),
    ("menu", 0xe02f, 0x8d),
    ("pause", 0xe114, 0x62),
    ("ro", 0x51, 0x51),
    ("henkan", 0x64, 0x86),
    ("muhenkan", 0x67, 0x85),
    ("hiragana", 0x13, 0x87),
    ("yen", 0x6a, 0x5d),
    ("kp_comma", 0x6d, 0x7b),
    ("kp_equals", 0x0f, 0),
    ("power", 0xe037, 0),
    ("sleep", 0xe03f, 0),
    ("wake", 0xe05e, 0),
    ("audionext", 0xe04d, 0),
    ("audioprev", 0xe015, 0),
    ("audiostop", 0xe03b, 0),
    ("audioplay", 0xe034, 0),
    ("audiomute", 0xe023, 0),
    ("volumeup", 0xe032, 0),
    ("volumedown", 0xe021, 0),
    ("mail", 0xe048, 0),
    ("calculator", 0xe02b, 0),
    ("computer", 0xe040, 0),
    ("ac_home", 0xe03a, 0),
    ("ac_bookmarks", 0xe018, 0),
    ("ac_back", 0xe038, 0),
    ("ac_forward", 0xe030, 0),
    ("ac_refresh", 0xe020, 0),
];

/// Other spellings.
const ALIASES: &[(&str, &str)] = &[
    ("asterisk", "kp_multiply"),
    ("compose", "menu"),
    ("enter", "ret"),
    ("space", "spc"),
    ("escape", "esc"),
    ("alt_l", "alt"),
    ("ctrl_l", "ctrl"),
    ("shift_l", "shift"),
    ("print_screen", "print"),
];

/// One key of the keyboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key(u8);

impl Key {
    /// By name (`ret`, `kp_0`) or by its number in set 1 (`0x1c`, 0x80 more for keys with prefix).
    pub fn by_name(name: &str) -> Option<Key> {
        if let Some(hex) = name.strip_prefix("0x") {
            let code = u8::from_str_radix(hex, 16).ok()?;
            return Self::all().find(|key| key.number() == Some(code));
        }
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        Self::all().find(|key| key.name() == name)
    }

    /// The keys of a combination like `ctrl-alt-delete`, in the order in which they are pressed. `Err` has the name
    /// that is no key's.
    pub fn combination(text: &str) -> Result<Vec<Key>, &str> {
        text.split('-').map(|name| Self::by_name(name).ok_or(name)).collect()
    }

    pub fn all() -> impl Iterator<Item = Key> {
        (0..KEYS.len() as u8).map(Key)
    }

    pub fn name(self) -> &'static str {
        KEYS[usize::from(self.0)].0
    }

    /// Number in set 1, with bit 7 for the prefix 0xe0.
    fn number(self) -> Option<u8> {
        let code = self.set2();
        let set1 = TRANSLATION.get(usize::from(code as u8)).copied().unwrap_or(code as u8);
        match code >> 8 {
            0 => Some(set1),
            0xe0 => Some(set1 | 0x80),
            _ => None,
        }
    }

    /// Code of set 2 with its prefix in the upper byte.
    pub(super) fn set2(self) -> u16 {
        KEYS[usize::from(self.0)].1
    }
    /// Code of set 3, if there is one.
    pub(super) fn set3(self) -> Option<u8> {
        Some(KEYS[usize::from(self.0)].2).filter(|&code| code != 0)
    }
}

/// What the controller makes of codes of set 2; from 0x85 on they stay as they are.
pub(super) const TRANSLATION: [u8; 0x85] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
    0x80, 0x81, 0x82, 0x41, 0x54,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let codes = |text| -> Vec<_> {
            Key::combination(text).unwrap().into_iter().map(|key| key.set2()).collect()
        };
        assert_eq!(codes("ctrl-alt-delete"), [0x14, 0x11, 0xe071]);
        assert_eq!(codes("kp_0"), [0x70]);
        assert_eq!(codes("0x1c-0x9c"), [0x5a, 0xe05a]);
        assert_eq!(Key::combination("ctrl-nokey"), Err("nokey"));
        assert_eq!(Key::combination(""), Err(""));
    }

    #[test]
    fn no_name_or_code_twice() {
        for (n, row) in KEYS.iter().enumerate() {
            assert!(KEYS[..n].iter().all(|other| other.0 != row.0 && other.1 != row.1), "{row:?}");
        }
        assert!(ALIASES.iter().all(|(alias, _)| Key::by_name(alias).is_some()));
    }

    #[test]
    fn translation_is_one_to_one() {
        // But for F7 and SysRq, which stand for two codes each.
        let codes = &TRANSLATION[..0x80];
        for code in codes {
            assert_eq!(codes.iter().filter(|&c| c == code).count(), 1, "{code:#x}");
        }
    }
}
