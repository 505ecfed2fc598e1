//! The mouse behind the controller: PS/2 mouse ("Personal System/2 Hardware Interface Technical Reference", Mouse),
//! Microsoft IntelliMouse (wheel) and its five-button successor.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const QUEUE: usize = 16;
const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const NACK: u8 = 0xfc;
/// Movement that waits for its packets; more is lost.
const FARTHEST: i32 = 2048;

const STATUS_SCALING_2: u8 = 1 << 4;
const STATUS_ENABLED: u8 = 1 << 5;
const STATUS_REMOTE: u8 = 1 << 6;

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Mouse {
    replies: VecDeque<u8>,
    packets: VecDeque<u8>,
    command: Option<u8>,
    /// 0: PS/2, 3: wheel, 4: wheel and five buttons.
    id: u8,
    rate: u8,
    /// The last sample rates that were set, which unlock the other protocols.
    rates: [u8; 3],
    resolution: u8,
    scaling_2: bool,
    remote: bool,
    wrap: bool,
    reporting: bool,
    /// Bit 0 left, 1 right, 2 middle, 3 and 4 the side buttons.
    buttons: u8,
    sent_buttons: u8,
    dx: i32,
    dy: i32,
    dz: i32,
    last: u8,
}

impl Mouse {
    pub fn new() -> Mouse {
        Mouse {
            replies: VecDeque::new(),
            packets: VecDeque::new(),
            command: None,
            id: 0,
            rate: 100,
            rates: [0; 3],
            resolution: 2,
            scaling_2: false,
            remote: false,
            wrap: false,
            reporting: false,
            buttons: 0,
            sent_buttons: 0,
            dx: 0,
            dy: 0,
            dz: 0,
            last: 0,
        }
    }

    pub fn is_sane(&self) -> bool {
        let small = |v: i32| v.abs() <= FARTHEST;
        self.packets.len() <= QUEUE
            && self.replies.len() <= QUEUE
            && small(self.dx)
            && small(self.dy)
            && small(self.dz)
    }

    pub fn next(&mut self) -> Option<u8> {
        let byte = self.replies.pop_front().or_else(|| self.packets.pop_front())?;
        self.last = byte;
        self.send();
        Some(byte)
    }

    /// Right, up and towards the user are positive.
    pub fn moved(&mut self, dx: i32, dy: i32, dz: i32) {
        let add = |sum: i32, d: i32| sum.saturating_add(d).clamp(-FARTHEST, FARTHEST);
        (self.dx, self.dy, self.dz) = (add(self.dx, dx), add(self.dy, dy), add(self.dz, dz));
        self.send();
    }

    pub fn set_buttons(&mut self, buttons: u8) {
        self.buttons = buttons & 0x1f;
        self.send();
    }

    fn length(&self) -> usize {
        if self.id == 0 { 3 } else { 4 }
    }

    /// Queues packets for what has happened, in stream mode, as long as there is room.
    fn send(&mut self) {
        if !self.reporting || self.remote || self.wrap {
            return;
        }
        loop {
            let wheel = self.id != 0 && self.dz != 0;
            let side = if self.id == 4 { 0x1f } else { 7 };
            let pressed = (self.buttons ^ self.sent_buttons) & side != 0;
            let news = self.dx != 0 || self.dy != 0 || wheel || pressed;
            if !news || self.packets.len() + self.length() > QUEUE {
                return;
            }
            let packet = self.packet(self.scaling_2);
            self.packets.extend(packet);
        }
    }

    fn packet(&mut self, scaled: bool) -> Vec<u8> {
        let dx = self.dx.clamp(-255, 255);
        let dy = self.dy.clamp(-255, 255);
        let dz = self.dz.clamp(-8, 7);
        (self.dx, self.dy, self.dz) = (self.dx - dx, self.dy - dy, self.dz - dz);
        self.sent_buttons = self.buttons;
        let scale = |d: i32| {
            let size = match d.abs() {
                n if !scaled => n,
                n @ 0..=1 => n,
                2 => 1,
                3 => 3,
                4 => 6,
                5 => 9,
                n => (2 * n).min(255),
            };
            size * d.signum()
        };
        let (x, y) = (scale(dx), scale(dy));
        let signs = u8::from(x < 0) << 4 | u8::from(y < 0) << 5;
        let mut bytes = vec![8 | self.buttons & 7 | signs, x as u8, y as u8];
        match self.id {
            3 => bytes.push(dz as u8),
            4 => bytes.push(dz as u8 & 0xf | (self.buttons & 0x18) << 1),
            _ => self.dz = 0,
        }
        bytes
    }

    fn defaults(&mut self) {
        (self.rate, self.resolution) = (100, 2);
        (self.scaling_2, self.remote, self.reporting) = (false, false, false);
        (self.dx, self.dy, self.dz) = (0, 0, 0);
        self.packets.clear();
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.clear();
        self.replies.extend(bytes);
    }

    /// A byte from the controller.
    pub fn write(&mut self, value: u8) {
        if self.wrap && !matches!(value, 0xec | 0xff) {
            return self.reply(&[value]);
        }
        match (self.command.take(), value) {
            (Some(0xe8), 0..=3) => self.resolution = value,
            (Some(0xf3), 10 | 20 | 40 | 60 | 80 | 100 | 200) => self.set_rate(value),
            // A parameter that makes no sense: asked for again, then refused.
            (Some(_), 0..0xe6) => return self.reply(&[NACK]),
            (_, 0xe6) => self.scaling_2 = false,
            (_, 0xe7) => self.scaling_2 = true,
            (_, 0xe8 | 0xf3) => self.command = Some(value),
            (_, 0xe9) => {
                let status = (self.buttons & 1) << 2
                    | (self.buttons & 2) >> 1
                    | (self.buttons & 4) >> 1
                    | if self.scaling_2 { STATUS_SCALING_2 } else { 0 }
                    | if self.reporting { STATUS_ENABLED } else { 0 }
                    | if self.remote { STATUS_REMOTE } else { 0 };
                return self.reply(&[ACK, status, self.resolution, self.rate]);
            }
            (_, 0xea) => self.remote = false,
            (_, 0xeb) => {
                let packet = self.packet(false);
                self.reply(&[ACK]);
                return self.replies.extend(packet);
            }
            (_, 0xec) => self.wrap = false,
            (_, 0xee) => self.wrap = true,
            (_, 0xf0) => self.remote = true,
            (_, 0xf2) => return self.reply(&[ACK, self.id]),
            (_, 0xf4) => self.reporting = true,
            (_, 0xf5) => {
                self.reporting = false;
                self.packets.clear();
            }
            (_, 0xf6) => self.defaults(),
            (_, 0xfe) => return self.reply(&[self.last]),
            (_, 0xff) => {
                let buttons = self.buttons;
                *self = Mouse { buttons, sent_buttons: buttons, ..Mouse::new() };
                return self.reply(&[ACK, 0xaa, 0x00]);
            }
            _ => return self.reply(&[RESEND]),
        }
        self.reply(&[ACK]);
    }

    fn set_rate(&mut self, rate: u8) {
        self.rate = rate;
        self.rates = [self.rates[1], self.rates[2], rate];
        match (self.rates, self.id) {
            ([200, 100, 80], 0) => self.id = 3,
            ([200, 200, 80], 0 | 3) => self.id = 4,
            _ => {}
        }
    }
}
