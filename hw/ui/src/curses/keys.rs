//! Keys as a terminal reports them, as keys of a PC keyboard with a US layout.
//!
//! Names are the monitor's (`sendkey`). A terminal reports characters, not keys: what is pressed and released is made
//! up from them.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Characters of keys that have two: name, without shift, with shift.
const PAIRS: &[(&str, char, char)] = &[
    ("grave_accent", '`', '~'),
    ("1", '1', '!'),
    ("2", '2', '@'),
    ("3", '3', '#'),
    ("4", '4', '$'),
    ("5", '5', '%'),
    ("6", '6', '^'),
    ("7", '7', '&'),
    ("8", '8', '*'),
    ("9", '9', '('),
    ("0", '0', ')'),
    ("minus", '-', '_'),
    ("equal", '=', '+'),
    ("bracket_left", '[', '{'),
    ("bracket_right", ']', '}'),
    ("backslash", '\\', '|'),
    ("semicolon", ';', ':'),
    ("apostrophe", '\'', '"'),
    ("comma", ',', '<'),
    ("dot", '.', '>'),
    ("slash", '/', '?'),
];

const LETTERS: [&str; 26] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t", "u", "v", "w", "x", "y", "z",
];

const FUNCTIONS: [&str; 12] =
    ["f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12"];

/// A key and what is held down with it.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) struct Stroke {
    pub key: &'static str,
    pub shift: bool,
    pub ctrl: bool,
    pub alt: bool,
}

impl Stroke {
    /// `None`: a PC keyboard has no such key.
    pub fn of(event: &KeyEvent) -> Option<Stroke> {
        let held = |modifier| event.modifiers.contains(modifier);
        let (key, shift) = match event.code {
            KeyCode::Char(c) => character(c)?,
            code => (named(code)?, held(KeyModifiers::SHIFT) || code == KeyCode::BackTab),
        };
        Some(Stroke { key, shift, ctrl: held(KeyModifiers::CONTROL), alt: held(KeyModifiers::ALT) })
    }

    /// Presses and releases, in order.
    pub fn send(&self, mut key: impl FnMut(&str, bool)) {
        let modifiers = [("ctrl", self.ctrl), ("alt", self.alt), ("shift", self.shift)];
        let held = modifiers.iter().filter(|(_, held)| *held).map(|(name, _)| *name);
        held.clone().for_each(|name| key(name, true));
        key(self.key, true);
        key(self.key, false);
        held.rev().for_each(|name| key(name, false));
    }
}

/// The key of a character, and whether shift is held.
fn character(c: char) -> Option<(&'static str, bool)> {
    match c {
        ' ' => Some(("spc", false)),
        'a'..='z' => Some((LETTERS[usize::from(c as u8 - b'a')], false)),
        'A'..='Z' => Some((LETTERS[usize::from(c as u8 - b'A')], true)),
        _ => PAIRS.iter().find_map(|(name, plain, shifted)| {
            (c == *plain || c == *shifted).then_some((*name, c == *shifted))
        }),
    }
}

fn named(code: KeyCode) -> Option<&'static str> {
    Some(match code {
        KeyCode::Enter => "ret",
        KeyCode::Tab | KeyCode::BackTab => "tab",
        KeyCode::Backspace => "backspace",
        KeyCode::Esc => "esc",
        KeyCode::Up => "up",
        KeyCode::Down => "down",
        KeyCode::Left => "left",
        KeyCode::Right => "right",
        KeyCode::Home => "home",
        KeyCode::End => "end",
        KeyCode::PageUp => "pgup",
        KeyCode::PageDown => "pgdn",
        KeyCode::Insert => "insert",
        KeyCode::Delete => "delete",
        KeyCode::F(n) => FUNCTIONS.get(usize::from(n).checked_sub(1)?)?,
        KeyCode::PrintScreen => "print",
        KeyCode::Pause => "pause",
        KeyCode::Menu => "menu",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strokes(code: KeyCode, modifiers: KeyModifiers) -> String {
        let mut text = String::new();
        if let Some(stroke) = Stroke::of(&KeyEvent::new(code, modifiers)) {
            stroke.send(|key, down| {
                text.push(if down { '+' } else { '-' });
                text.push_str(key);
            });
        }
        text
    }

    #[test]
    fn every_printable_character_has_one_key() {
        let mut seen = std::collections::HashSet::new();
        for c in ' '..='~' {
            let key = character(c).unwrap_or_else(|| panic!("{c:?}"));
            assert!(seen.insert(key), "{c:?} is typed like another character");
        }
        assert_eq!(seen.len(), 95);
        assert_eq!(character('ä'), None);
    }

    #[test]
    fn modifiers_enclose_the_key() {
        let none = KeyModifiers::NONE;
        assert_eq!(strokes(KeyCode::Char('a'), none), "+a-a");
        assert_eq!(strokes(KeyCode::Char('A'), KeyModifiers::SHIFT), "+shift+a-a-shift");
        assert_eq!(strokes(KeyCode::Char('?'), none), "+shift+slash-slash-shift");
        assert_eq!(strokes(KeyCode::Char('c'), KeyModifiers::CONTROL), "+ctrl+c-c-ctrl");
        let both = KeyModifiers::CONTROL | KeyModifiers::ALT;
        assert_eq!(strokes(KeyCode::Delete, both), "+ctrl+alt+delete-delete-alt-ctrl");
        assert_eq!(strokes(KeyCode::BackTab, none), "+shift+tab-tab-shift");
        assert_eq!(strokes(KeyCode::F(12), none), "+f12-f12");
        assert_eq!(strokes(KeyCode::F(0), none) + &strokes(KeyCode::F(13), none), "");
    }
}
