//! The keyboard controller of a PC (Intel 8042 with the PS/2 firmware) with keyboard and mouse.
//!
//! "Personal System/2 Hardware Interface Technical Reference", Keyboard and Auxiliary Device Controller. Bytes of the
//! devices arrive as soon as the output buffer is free; the input buffer is never full.
//!
//! Not modelled: the time that bytes take, parity and timeout errors, the password, the keyboard's own typematic repeat
//! (who presses keys repeats them), types of single keys in set 3, the shift codes around the cursor keys with num lock.

use super::keys::Key;
use super::ps2_keyboard::{self, Keyboard};
use super::ps2_mouse::Mouse;
use crate::misc::A20Gate;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use tulk_hw::{Device, IrqLine, Snapshot, SnapshotError, snapshot_error};

/// Window of the data port, 0x60.
pub const DATA: u8 = 0;
/// Window of the status and command port, 0x64.
pub const COMMAND: u8 = 1;

const STATUS_OBF: u8 = 1 << 0;
const STATUS_SYS: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;
const STATUS_AUX: u8 = 1 << 5;

const MODE_KEYBOARD_INT: u8 = 1 << 0;
const MODE_AUX_INT: u8 = 1 << 1;
const MODE_SYS: u8 = 1 << 2;
const MODE_KEYBOARD_OFF: u8 = 1 << 4;
const MODE_AUX_OFF: u8 = 1 << 5;
const MODE_TRANSLATE: u8 = 1 << 6;

const OUT_NOT_RESET: u8 = 1 << 0;
const OUT_A20: u8 = 1 << 1;
const OUT_AUX_IRQ: u8 = 1 << 5;
const OUT_KEYBOARD_IRQ: u8 = 1 << 4;
/// Clock and data lines, as they are at rest.
const OUT_LINES: u8 = 0xcc;
/// Keyboard not locked, colour display.
const INPUT_PORT: u8 = 0x80;

/// Where the byte in the output buffer is from.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    Controller,
    Keyboard,
    Aux,
}

#[derive(Clone, Serialize, Deserialize)]
struct State {
    mode: u8,
    /// Internal memory behind the mode byte.
    ram: Vec<u8>,
    system_flag: bool,
    last_was_command: bool,
    /// A command that waits for its data.
    command: Option<u8>,
    output: Option<(u8, Source)>,
    /// The byte that is read while the buffer is empty.
    last: u8,
    replies: VecDeque<(u8, Source)>,
    /// The keyboard has sent a break prefix that is still to be translated.
    broken: bool,
    keyboard: Keyboard,
    mouse: Mouse,
}

/// The controller with its devices. Its interrupts are IRQ1 and IRQ12.
pub struct I8042 {
    state: State,
    keyboard_irq: IrqLine,
    aux_irq: IrqLine,
    a20: Arc<dyn A20Gate>,
    reset: Box<dyn Fn() + Send>,
}

impl I8042 {
    /// `reset` is called when the guest pulses the reset line.
    pub fn new(
        keyboard_irq: IrqLine,
        aux_irq: IrqLine,
        a20: Arc<dyn A20Gate>,
        reset: impl Fn() + Send + 'static,
    ) -> I8042 {
        I8042 { state: Self::fresh(), keyboard_irq, aux_irq, a20, reset: Box::new(reset) }
    }

    fn fresh() -> State {
        State {
            mode: MODE_KEYBOARD_INT | MODE_AUX_INT,
            ram: vec![0; 31],
            system_flag: false,
            last_was_command: true,
            command: None,
            output: None,
            last: 0,
            replies: VecDeque::new(),
            broken: false,
            keyboard: Keyboard::new(),
            mouse: Mouse::new(),
        }
    }

    /// A key goes down or up.
    pub fn key(&mut self, key: Key, down: bool) {
        self.state.keyboard.key(key, down);
        self.update();
    }

    /// The mouse moves: right, down and (the wheel) towards the user are positive.
    pub fn mouse_move(&mut self, dx: i32, dy: i32, dz: i32) {
        self.state.mouse.moved(dx, dy.saturating_neg(), dz);
        self.update();
    }

    /// The buttons that are down: bit 0 left, 1 right, 2 middle, 3 and 4 the side buttons.
    pub fn mouse_buttons(&mut self, buttons: u8) {
        self.state.mouse.set_buttons(buttons);
        self.update();
    }

    /// The keyboard's lights: bit 0 scroll lock, 1 num lock, 2 caps lock.
    pub fn leds(&self) -> u8 {
        self.state.keyboard.leds()
    }

    /// Fills the output buffer and sets the interrupt lines.
    fn update(&mut self) {
        let state = &mut self.state;
        if state.output.is_none() {
            state.output = state.replies.pop_front();
        }
        while state.output.is_none() && state.mode & MODE_KEYBOARD_OFF == 0 {
            let Some(byte) = state.keyboard.next() else { break };
            let byte = if state.mode & MODE_TRANSLATE != 0 {
                ps2_keyboard::translate(byte, &mut state.broken)
            } else {
                Some(byte)
            };
            state.output = byte.map(|byte| (byte, Source::Keyboard));
        }
        if state.output.is_none() && state.mode & MODE_AUX_OFF == 0 {
            state.output = state.mouse.next().map(|byte| (byte, Source::Aux));
        }
        let source = state.output.map(|(_, source)| source);
        let keyboard = matches!(source, Some(Source::Keyboard | Source::Controller));
        self.keyboard_irq.set(keyboard && state.mode & MODE_KEYBOARD_INT != 0);
        self.aux_irq.set(source == Some(Source::Aux) && state.mode & MODE_AUX_INT != 0);
    }

    fn reply(&mut self, byte: u8, source: Source) {
        // Commands replace an answer that nobody has read.
        self.state.replies.clear();
        self.state.replies.push_back((byte, source));
        if matches!(self.state.output, Some((_, Source::Controller))) {
            self.state.output = None;
        }
    }

    fn status(&self) -> u8 {
        let state = &self.state;
        let full = match state.output {
            None => 0,
            Some((_, Source::Aux)) => STATUS_OBF | STATUS_AUX,
            Some(_) => STATUS_OBF,
        };
        full | STATUS_UNLOCKED
            | if state.system_flag { STATUS_SYS } else { 0 }
            | if state.last_was_command { STATUS_COMMAND } else { 0 }
    }

    fn output_port(&self) -> u8 {
        let irq = match self.state.output {
            Some((_, Source::Aux)) => OUT_AUX_IRQ,
            Some(_) => OUT_KEYBOARD_IRQ,
            None => 0,
        };
        OUT_LINES | OUT_NOT_RESET | irq | if self.a20.is_open() { OUT_A20 } else { 0 }
    }

    fn write_output_port(&mut self, value: u8) {
        self.a20.set(value & OUT_A20 != 0);
        if value & OUT_NOT_RESET == 0 {
            (self.reset)();
        }
    }

    fn write_command(&mut self, value: u8) {
        self.state.command = None;
        let controller = Source::Controller;
        match value {
            0x20 => self.reply(self.state.mode, controller),
            0x21..=0x3f => self.reply(self.state.ram[usize::from(value - 0x21)], controller),
            0x60..=0x7f | 0xd1..=0xd4 => self.state.command = Some(value),
            // No password is there.
            0xa4 => self.reply(0xf1, controller),
            0xa7 => self.state.mode |= MODE_AUX_OFF,
            0xa8 => self.state.mode &= !MODE_AUX_OFF,
            0xa9 | 0xab => self.reply(0x00, controller),
            0xaa => {
                self.state.system_flag = true;
                self.state.mode |= MODE_SYS;
                self.state.output = None;
                self.reply(0x55, controller);
            }
            0xad => self.state.mode |= MODE_KEYBOARD_OFF,
            0xae => self.state.mode &= !MODE_KEYBOARD_OFF,
            0xc0 => self.reply(INPUT_PORT, controller),
            0xd0 => self.reply(self.output_port(), controller),
            0xdd | 0xdf => self.a20.set(value == 0xdf),
            0xe0 => self.reply(0, controller),
            // Pulses the lines whose bits are clear; only the reset line is wired.
            0xf0..=0xff if value & OUT_NOT_RESET == 0 => (self.reset)(),
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.state.command.take() {
            Some(0x60) => {
                self.state.mode = value & !0x80;
                self.state.system_flag = value & MODE_SYS != 0;
            }
            Some(n @ 0x61..=0x7f) => self.state.ram[usize::from(n - 0x61)] = value,
            Some(0xd1) => self.write_output_port(value),
            Some(0xd2) => self.reply(value, Source::Keyboard),
            Some(0xd3) => self.reply(value, Source::Aux),
            Some(0xd4) => {
                self.state.mode &= !MODE_AUX_OFF;
                self.state.mouse.write(value);
            }
            _ => {
                self.state.mode &= !MODE_KEYBOARD_OFF;
                self.state.keyboard.write(value);
            }
        }
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn reset(&mut self) {
        self.state = Self::fresh();
        self.update();
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        let value = tulk_hw::read_bytes(offset, bytes, |port| match (window, port) {
            (DATA, 0) => {
                if let Some((byte, _)) = self.state.output.take() {
                    self.state.last = byte;
                    // Each byte is an edge of its own.
                    self.keyboard_irq.set(false);
                    self.aux_irq.set(false);
                }
                self.state.last
            }
            (COMMAND, 0) => self.status(),
            _ => 0xff,
        });
        self.update();
        value
    }

    fn write(&mut self, window: u8, offset: u64, _bytes: u8, value: u64) {
        if offset != 0 {
            return;
        }
        self.state.last_was_command = window == COMMAND;
        match window {
            DATA => self.write_data(value as u8),
            COMMAND => self.write_command(value as u8),
            _ => {}
        }
        self.update();
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let state: State = tulk_hw::load_state(self.name(), snapshot)?;
        let sane = state.keyboard.is_sane() && state.mouse.is_sane() && state.replies.len() <= 16;
        if state.ram.len() != 31 || !sane {
            return Err(snapshot_error(self.name(), "queues or memory of another size"));
        }
        self.state = state;
        self.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::misc::LooseGate;
    use parking_lot::Mutex;
    use tulk_hw::{RecordedIrqs, check_device};

    struct Bench {
        kbc: I8042,
        irqs: Arc<RecordedIrqs>,
        gate: Arc<LooseGate>,
        log: Arc<Mutex<Vec<&'static str>>>,
    }
    impl Bench {
        fn new() -> Bench {
            let irqs = RecordedIrqs::new();
            let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
            let (gate, reset) = (LooseGate::new(), log.clone());
            let kbc = I8042::new(
                IrqLine::new(irqs.clone(), 1),
                IrqLine::new(irqs.clone(), 12),
                gate.clone(),
                move || reset.lock().push("reset"),
            );
            Bench { kbc, irqs, gate, log }
        }
        fn command(&mut self, value: u64) {
            self.kbc.write(COMMAND, 0, 1, value);
        }
        fn data(&mut self, value: u64) {
            self.kbc.write(DATA, 0, 1, value);
        }
        fn status(&mut self) -> u64 {
            self.kbc.read(COMMAND, 0, 1)
        }
        /// All bytes that are there.
        fn bytes(&mut self) -> Vec<u64> {
            let mut all = vec![];
            while self.status() & 1 != 0 {
                all.push(self.kbc.read(DATA, 0, 1));
            }
            all
        }
        fn keyboard(&mut self, value: u64) -> Vec<u64> {
            self.data(value);
            self.bytes()
        }
        fn mouse(&mut self, value: u64) -> Vec<u64> {
            self.command(0xd4);
            self.data(value);
            assert_eq!(self.status() & 0x21, 0x21);
            self.bytes()
        }
        fn press(&mut self, name: &str) -> (Vec<u64>, Vec<u64>) {
            let key = Key::by_name(name).unwrap();
            self.kbc.key(key, true);
            let down = self.bytes();
            self.kbc.key(key, false);
            (down, self.bytes())
        }
        fn mode(&mut self, mode: u64) {
            self.command(0x60);
            self.data(mode);
        }
    }

    #[test]
    fn conforms() {
        check_device(&mut Bench::new().kbc, &[1, 1], 40_000);
    }

    #[test]
    fn controller_commands() {
        let mut b = Bench::new();
        b.command(0xaa);
        assert_eq!((b.status() & 5, b.bytes()), (5, vec![0x55]));
        for (command, answer) in [(0xab, 0), (0xa9, 0), (0xa4, 0xf1), (0xd0, 0xcf)] {
            b.command(command);
            assert_eq!(b.bytes(), [answer], "{command:x}");
        }
        b.mode(0x65);
        b.command(0x20);
        assert_eq!(b.bytes(), [0x65]);
        b.command(0x62);
        b.data(0x99);
        b.command(0x22);
        assert_eq!(b.bytes(), [0x99]);
        b.command(0xd3);
        b.data(0x42);
        assert_eq!((b.status() & 0x21, b.bytes()), (0x21, vec![0x42]));
    }

    #[test]
    fn a20_and_reset() {
        let mut b = Bench::new();
        b.command(0xd1);
        b.data(0xdd);
        assert!(!b.gate.is_open());
        b.command(0xdf);
        b.command(0xd0);
        assert_eq!((b.bytes(), b.gate.is_open()), (vec![0xcf], true));
        // The other master closes it.
        b.gate.set(false);
        b.command(0xd0);
        assert_eq!(b.bytes(), [0xcd]);
        b.command(0xff);
        b.command(0xfe);
        assert_eq!(*b.log.lock(), ["reset"]);
    }

    #[test]
    fn keyboard_commands() {
        let mut b = Bench::new();
        assert_eq!(b.keyboard(0xff), [0xfa, 0xaa]);
        assert_eq!(b.keyboard(0xf2), [0xfa, 0xab, 0x83]);
        assert_eq!((b.keyboard(0xed), b.keyboard(7), b.kbc.leds()), (vec![0xfa], vec![0xfa], 7));
        assert_eq!((b.keyboard(0xf0), b.keyboard(0)), (vec![0xfa], vec![0xfa, 2]));
        assert_eq!((b.keyboard(0xf3), b.keyboard(0x20)), (vec![0xfa], vec![0xfa]));
        assert_eq!((b.keyboard(0xee), b.keyboard(0x05)), (vec![0xee], vec![0xfe]));
        b.mode(0x43);
        assert_eq!(b.keyboard(0xf2), [0xfa, 0xab, 0x41], "translated");
        b.keyboard(0xf5);
        assert_eq!(b.press("a"), (vec![], vec![]));
        b.keyboard(0xf4);
        assert_eq!(b.press("a"), (vec![0x1e], vec![0x9e]));
    }

    #[test]
    fn scan_codes() {
        let mut b = Bench::new();
        b.mode(0x03);
        assert_eq!(b.press("ret"), (vec![0x5a], vec![0xf0, 0x5a]));
        assert_eq!(b.press("delete"), (vec![0xe0, 0x71], vec![0xe0, 0xf0, 0x71]));
        b.keyboard(0xf0);
        b.keyboard(3);
        assert_eq!(b.press("ctrl"), (vec![0x11], vec![0xf0, 0x11]));
        b.keyboard(0xf0);
        b.keyboard(1);
        let untranslated = ["esc", "up", "print", "pause", "f7"].map(|key| b.press(key));
        b.keyboard(0xf6);
        b.mode(0x43);
        let translated = ["esc", "up", "print", "pause", "f7"].map(|key| b.press(key));
        assert_eq!(untranslated, translated);
        assert_eq!(translated[0], (vec![0x01], vec![0x81]));
        assert_eq!(translated[1], (vec![0xe0, 0x48], vec![0xe0, 0xc8]));
        assert_eq!(translated[2], (vec![0xe0, 0x2a, 0xe0, 0x37], vec![0xe0, 0xb7, 0xe0, 0xaa]));
        assert_eq!(translated[3], (vec![0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5], vec![]));
        assert_eq!(translated[4], (vec![0x41], vec![0xc1]));
    }

    #[test]
    fn interrupts_and_disabled_ports() {
        let mut b = Bench::new();
        b.mode(0x43);
        b.irqs.take_rises();
        b.kbc.key(Key::by_name("up").unwrap(), true);
        b.kbc.read(DATA, 0, 1);
        b.kbc.read(DATA, 0, 1);
        assert_eq!(b.irqs.take_rises(), [1, 1], "one edge for each byte");
        assert_eq!(b.kbc.read(DATA, 0, 1), 0x48, "the last byte stays");
        b.command(0xad);
        b.kbc.key(Key::by_name("a").unwrap(), true);
        assert_eq!(b.status() & 1, 0);
        b.command(0xae);
        assert_eq!(b.bytes(), [0x1e]);
        b.mouse(0xf4);
        b.irqs.take_rises();
        b.kbc.mouse_buttons(1);
        assert_eq!((b.irqs.take_rises(), b.bytes()), (vec![12], vec![9, 0, 0]));
    }

    #[test]
    fn overrun() {
        let mut b = Bench::new();
        b.mode(0x10);
        for _ in 0..20 {
            b.kbc.key(Key::by_name("up").unwrap(), false);
        }
        b.mode(0);
        let codes = b.bytes();
        assert_eq!((codes.len(), codes[15]), (16, 0));
    }

    #[test]
    fn mouse() {
        let mut b = Bench::new();
        assert_eq!(b.mouse(0xff), [0xfa, 0xaa, 0]);
        b.kbc.mouse_move(5, 5, 0);
        assert_eq!(b.bytes(), [0u64; 0], "not reporting");
        assert_eq!(b.mouse(0xeb), [0xfa, 0x28, 5, 0xfb]);
        b.mouse(0xf4);
        b.kbc.mouse_move(-300, 2, 0);
        assert_eq!(b.bytes(), [0x38, 0x01, 0xfe, 0x18, 0xd3, 0]);
        b.kbc.mouse_buttons(6);
        assert_eq!(b.bytes(), [0x0e, 0, 0]);
        assert_eq!(b.mouse(0xe9), [0xfa, 0x23, 2, 100]);
        b.mouse(0xe7);
        b.kbc.mouse_move(4, 0, 0);
        assert_eq!(b.bytes(), [0x0e, 6, 0]);
    }

    #[test]
    fn wheel_and_five_buttons() {
        let mut b = Bench::new();
        let rates = |b: &mut Bench, rates: [u64; 3]| {
            for rate in rates {
                b.mouse(0xf3);
                b.mouse(rate);
            }
            b.mouse(0xf2)[1]
        };
        assert_eq!(rates(&mut b, [200, 200, 100]), 0);
        assert_eq!(rates(&mut b, [200, 100, 80]), 3);
        b.mouse(0xf4);
        b.kbc.mouse_move(0, 0, -1);
        assert_eq!(b.bytes(), [8, 0, 0, 0xff]);
        b.kbc.mouse_buttons(0x10);
        assert_eq!(b.bytes(), [0u64; 0]);
        assert_eq!(rates(&mut b, [200, 200, 80]), 4);
        b.bytes();
        b.kbc.mouse_buttons(0x08);
        assert_eq!(b.bytes().last(), Some(&0x10));
        b.kbc.mouse_move(0, 0, -1);
        assert_eq!(b.bytes(), [8, 0, 0, 0x1f]);
    }
}
