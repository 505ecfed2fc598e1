//! The keyboard behind the controller: IBM 101/102-key keyboard, "Personal System/2 Hardware Interface Technical
//! Reference", Keyboards.

use super::keys::{Key, TRANSLATION};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of codes that the keyboard keeps.
const QUEUE: usize = 16;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const TEST_PASSED: u8 = 0xaa;
const BREAK: u8 = 0xf0;
const TYPEMATIC_DEFAULT: u8 = 0x2b;

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Keyboard {
    /// Answers to commands, which go before codes.
    replies: VecDeque<u8>,
    codes: VecDeque<u8>,
    /// A command that waits for its parameter.
    command: Option<u8>,
    set: u8,
    leds: u8,
    typematic: u8,
    scanning: bool,
    /// Set 3: keys send break codes.
    breaks: bool,
    /// An Alt key is down.
    alt: bool,
    last: u8,
}

impl Keyboard {
    pub fn new() -> Keyboard {
        Keyboard {
            replies: VecDeque::new(),
            codes: VecDeque::new(),
            command: None,
            set: 2,
            leds: 0,
            typematic: TYPEMATIC_DEFAULT,
            scanning: true,
            breaks: true,
            alt: false,
            last: 0,
        }
    }

    /// Bit 0 scroll lock, 1 num lock, 2 caps lock.
    pub fn leds(&self) -> u8 {
        self.leds
    }

    /// The next byte on its way to the controller.
    pub fn next(&mut self) -> Option<u8> {
        let byte = self.replies.pop_front().or_else(|| self.codes.pop_front())?;
        self.last = byte;
        Some(byte)
    }

    pub fn is_sane(&self) -> bool {
        self.codes.len() <= QUEUE && self.replies.len() <= QUEUE
    }

    pub fn key(&mut self, key: Key, down: bool) {
        if matches!(key.name(), "alt" | "alt_r") {
            self.alt = down;
        }
        if !self.scanning {
            return;
        }
        let codes = self.codes_of(key, down);
        if self.codes.len() + codes.len() <= QUEUE {
            self.codes.extend(codes);
        } else if self.codes.len() < QUEUE {
            // The last place is for the overrun.
            self.codes.extend(std::iter::repeat_n(
                if self.set == 1 { 0xff } else { 0 },
                QUEUE - self.codes.len(),
            ));
        }
    }

    fn codes_of(&self, key: Key, down: bool) -> Vec<u8> {
        if self.set == 3 {
            return match (key.set3(), down) {
                (Some(code), true) => vec![code],
                (Some(code), false) if self.breaks => vec![BREAK, code],
                _ => vec![],
            };
        }
        let code = key.set2();
        let set2 = match (key.name(), down) {
            ("print", _) if self.alt => one(0, 0x84, down),
            ("print", true) => vec![0xe0, 0x12, 0xe0, 0x7c],
            ("print", false) => vec![0xe0, BREAK, 0x7c, 0xe0, BREAK, 0x12],
            ("pause", true) => vec![0xe1, 0x14, 0x77, 0xe1, BREAK, 0x14, BREAK, 0x77],
            ("pause", false) => vec![],
            _ => one((code >> 8) as u8, code as u8, down),
        };
        if self.set == 2 { set2 } else { translate_all(&set2) }
    }

    fn defaults(&mut self) {
        self.codes.clear();
        (self.set, self.typematic, self.breaks) = (2, TYPEMATIC_DEFAULT, true);
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.clear();
        self.replies.extend(bytes);
    }

    /// A byte from the controller.
    pub fn write(&mut self, value: u8) {
        if let Some(command) = self.command.take()
            && value < 0xed
        {
            self.parameter(command, value);
            return;
        }
        match value {
            0xed | 0xf0 | 0xf3 | 0xfb..=0xfd => {
                self.command = Some(value);
                self.reply(&[ACK]);
            }
            0xee => self.reply(&[0xee]),
            0xf2 => self.reply(&[ACK, 0xab, 0x83]),
            0xf4 => {
                self.scanning = true;
                self.codes.clear();
                self.reply(&[ACK]);
            }
            0xf5 => {
                self.defaults();
                self.scanning = false;
                self.reply(&[ACK]);
            }
            0xf6 => {
                self.defaults();
                self.reply(&[ACK]);
            }
            0xf7..=0xfa => {
                self.breaks = matches!(value, 0xf8 | 0xfa);
                self.reply(&[ACK]);
            }
            0xfe => self.reply(&[self.last]),
            0xff => {
                let alt = self.alt;
                *self = Keyboard { alt, ..Keyboard::new() };
                self.reply(&[ACK, TEST_PASSED]);
            }
            _ => self.reply(&[RESEND]),
        }
    }

    fn parameter(&mut self, command: u8, value: u8) {
        match (command, value) {
            (0xed, _) => self.leds = value & 7,
            (0xf3, _) => self.typematic = value & 0x7f,
            (0xf0, 0) => return self.reply(&[ACK, self.set]),
            (0xf0, 1..=3) => {
                self.set = value;
                self.codes.clear();
            }
            (0xf0, _) => return self.reply(&[RESEND]),
            // Types of single keys of set 3: taken, without effect.
            _ => {}
        }
        self.reply(&[ACK]);
    }
}

fn one(prefix: u8, code: u8, down: bool) -> Vec<u8> {
    let prefix = (prefix != 0).then_some(prefix);
    prefix.into_iter().chain((!down).then_some(BREAK)).chain([code]).collect()
}

fn translate_all(set2: &[u8]) -> Vec<u8> {
    let mut broken = false;
    set2.iter().filter_map(|&byte| translate(byte, &mut broken)).collect()
}

/// The controller's translation of set 2 to set 1; `broken` says that a break prefix has come.
pub(super) fn translate(byte: u8, broken: &mut bool) -> Option<u8> {
    if byte == BREAK {
        *broken = true;
        return None;
    }
    let code = TRANSLATION.get(usize::from(byte)).copied().unwrap_or(byte);
    Some(code | if std::mem::take(broken) { 0x80 } else { 0 })
}
