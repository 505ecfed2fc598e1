//! 16550A serial port: PC16550D data sheet (National Semiconductor, June 1995).
//!
//! Bytes to the host leave at once; so the transmitter is empty again when the guest looks, and the interrupt that says
//! so comes right away. Bytes from the host are taken as fast as there is room: nothing overruns except in loopback.
//! The character timeout takes four characters of the programmed rate. The interrupt pin is gated by OUT2, as on PCs.
//!
//! Not modelled: transmission time, parity and framing errors, breaks to the host, DMA mode (FCR bit 3).

use crate::chardev::CharDevice;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use tulk_hw::{Clock, Device, IrqLine, Snapshot, SnapshotError, snapshot_error};
use tulk_ui::CharBackend;

/// Bytes of a FIFO.
const FIFO: usize = 16;
const CRYSTAL_HZ: u64 = 1_843_200;

const IER_ERBFI: u8 = 1 << 0;
const IER_ETBEI: u8 = 1 << 1;
const IER_ELSI: u8 = 1 << 2;
const IER_EDSSI: u8 = 1 << 3;

const IIR_NONE: u8 = 0x01;
const IIR_MODEM: u8 = 0x00;
const IIR_THRE: u8 = 0x02;
const IIR_DATA: u8 = 0x04;
const IIR_LINE: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_RESET_RX: u8 = 1 << 1;

const LCR_BREAK: u8 = 1 << 6;
const LCR_DLAB: u8 = 1 << 7;

const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;

const LSR_DR: u8 = 1 << 0;
const LSR_OE: u8 = 1 << 1;
const LSR_BI: u8 = 1 << 4;
const LSR_THRE: u8 = 1 << 5;
const LSR_TEMT: u8 = 1 << 6;
const LSR_FIFO_ERROR: u8 = 1 << 7;

/// Modem lines as in the upper half of MSR.
pub const MSR_CTS: u8 = 1 << 4;
pub const MSR_DSR: u8 = 1 << 5;
pub const MSR_RI: u8 = 1 << 6;
pub const MSR_DCD: u8 = 1 << 7;

#[derive(Clone, Serialize, Deserialize)]
struct State {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: u16,
    /// OE and the bits of the byte at the head of the FIFO that have not been read.
    line_errors: u8,
    /// Deltas of MSR.
    deltas: u8,
    /// Lines from the other end.
    modem: u8,
    thre_interrupt: bool,
    /// Received bytes with their error bits of LSR.
    rx: VecDeque<(u8, u8)>,
    /// Guest time at which the bytes in the FIFO are old enough for a timeout.
    timeout_at: Option<u64>,
    timeout: bool,
}

/// One serial port; window 0 is its eight ports.
pub struct Uart16550 {
    state: State,
    /// The host has offered bytes for which there was no room.
    refused: bool,
    clock: Arc<dyn Clock>,
    backend: Arc<dyn CharBackend>,
    irq: IrqLine,
}

impl Uart16550 {
    /// The backend is called with the device's lock held: it must not offer bytes from within its methods.
    pub fn new(clock: Arc<dyn Clock>, backend: Arc<dyn CharBackend>, irq: IrqLine) -> Uart16550 {
        Uart16550 { state: Self::fresh(), refused: false, clock, backend, irq }
    }

    fn fresh() -> State {
        State {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: 12,
            line_errors: 0,
            deltas: 0,
            modem: MSR_DCD | MSR_DSR | MSR_CTS,
            thre_interrupt: false,
            rx: VecDeque::new(),
            timeout_at: None,
            timeout: false,
        }
    }

    /// Takes bytes from the host; returns how many there was room for.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let room = if self.state.mcr & MCR_LOOP != 0 {
            0
        } else {
            self.depth().saturating_sub(self.state.rx.len())
        };
        let taken = room.min(bytes.len());
        for &byte in &bytes[..taken] {
            self.push(byte, 0);
        }
        self.refused = taken < bytes.len();
        self.update();
        taken
    }

    /// A break from the host.
    pub fn receive_break(&mut self) {
        if self.state.mcr & MCR_LOOP == 0 {
            self.push(0, LSR_BI);
            self.update();
        }
    }

    /// The other end's lines: [`MSR_CTS`], [`MSR_DSR`], [`MSR_RI`], [`MSR_DCD`].
    pub fn set_modem_lines(&mut self, lines: u8) {
        let before = self.modem_lines();
        self.state.modem = lines & 0xf0;
        self.modem_changed(before);
        self.update();
    }

    fn fifos(&self) -> bool {
        self.state.fcr & FCR_ENABLE != 0
    }
    fn depth(&self) -> usize {
        if self.fifos() { FIFO } else { 1 }
    }
    fn trigger(&self) -> usize {
        if self.fifos() { [1, 4, 8, 14][usize::from(self.state.fcr >> 6)] } else { 1 }
    }

    /// Nanoseconds of four characters.
    fn timeout_ns(&self) -> u64 {
        let bits = 7
            + u64::from(self.state.lcr & 3)
            + u64::from(self.state.lcr >> 2 & 1)
            + u64::from(self.state.lcr >> 3 & 1);
        let divisor = u64::from(self.state.divisor).max(1);
        4 * bits * divisor * 16 * 1_000_000_000 / CRYSTAL_HZ
    }
    fn restart_timeout(&mut self) {
        self.state.timeout = false;
        let waits = self.fifos() && !self.state.rx.is_empty();
        self.state.timeout_at = waits.then(|| self.clock.now() + self.timeout_ns());
    }

    fn push(&mut self, byte: u8, errors: u8) {
        if self.state.rx.len() >= self.depth() {
            self.state.line_errors |= LSR_OE;
            if self.fifos() {
                // The shift register is overwritten, the FIFO is not.
                return;
            }
            self.state.rx.clear();
        }
        self.state.rx.push_back((byte, errors));
        if self.state.rx.len() == 1 {
            self.state.line_errors |= errors;
        }
        self.restart_timeout();
    }

    fn pop(&mut self) -> u8 {
        let byte = self.state.rx.pop_front().map_or(0, |(byte, _)| byte);
        if let Some(&(_, errors)) = self.state.rx.front() {
            self.state.line_errors |= errors;
        }
        self.restart_timeout();
        byte
    }

    /// Tells the host of room that it was refused.
    fn offer_room(&mut self) {
        let free = self.state.rx.len() < self.depth() && self.state.mcr & MCR_LOOP == 0;
        if self.refused && free {
            self.refused = false;
            self.backend.ready();
        }
    }

    fn modem_lines(&self) -> u8 {
        if self.state.mcr & MCR_LOOP == 0 {
            return self.state.modem;
        }
        // DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
        let mcr = self.state.mcr;
        (mcr & 1) << 5 | (mcr & 2) << 3 | (mcr & 4) << 4 | (mcr & 8) << 4
    }

    fn modem_changed(&mut self, before: u8) {
        let now = self.modem_lines();
        let changed = before ^ now;
        // RI counts only its trailing edge.
        let deltas = changed & !MSR_RI | changed & before & MSR_RI;
        self.state.deltas |= deltas >> 4;
    }

    fn lsr(&self) -> u8 {
        let state = &self.state;
        let data = if state.rx.is_empty() { 0 } else { LSR_DR };
        let any_error = self.fifos() && state.rx.iter().any(|&(_, errors)| errors != 0);
        LSR_THRE | LSR_TEMT | state.line_errors | data | if any_error { LSR_FIFO_ERROR } else { 0 }
    }

    /// The pending interrupt of the highest priority, as in IIR.
    fn interrupt(&self) -> u8 {
        let state = &self.state;
        let enabled = |bit| state.ier & bit != 0;
        if enabled(IER_ELSI) && state.line_errors != 0 {
            IIR_LINE
        } else if enabled(IER_ERBFI) && state.rx.len() >= self.trigger() {
            IIR_DATA
        } else if enabled(IER_ERBFI) && state.timeout {
            IIR_TIMEOUT
        } else if enabled(IER_ETBEI) && state.thre_interrupt {
            IIR_THRE
        } else if enabled(IER_EDSSI) && state.deltas != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    fn update(&mut self) {
        let active = self.interrupt() != IIR_NONE && self.state.mcr & MCR_OUT2 != 0;
        self.irq.set(active);
    }

    fn transmit(&mut self, byte: u8) {
        self.state.thre_interrupt = true;
        if self.state.mcr & MCR_LOOP != 0 {
            self.push(byte, 0);
        } else {
            self.backend.write(&[byte]);
        }
    }

    fn write_fcr(&mut self, value: u8) {
        let switched = (value ^ self.state.fcr) & FCR_ENABLE != 0;
        if switched || value & (FCR_ENABLE | FCR_RESET_RX) == FCR_ENABLE | FCR_RESET_RX {
            self.state.rx.clear();
            self.state.line_errors &= LSR_OE;
            self.restart_timeout();
        }
        // The other bits count only together with the enable bit.
        self.state.fcr = if value & FCR_ENABLE != 0 { value & 0xc9 } else { 0 };
        self.offer_room();
    }

    fn read_register(&mut self, register: u64) -> u8 {
        let dlab = self.state.lcr & LCR_DLAB != 0;
        match register {
            0 if dlab => self.state.divisor as u8,
            1 if dlab => (self.state.divisor >> 8) as u8,
            0 => {
                let byte = self.pop();
                self.offer_room();
                byte
            }
            1 => self.state.ier,
            2 => {
                let source = self.interrupt();
                if source == IIR_THRE {
                    self.state.thre_interrupt = false;
                }
                source | if self.fifos() { IIR_FIFOS } else { 0 }
            }
            3 => self.state.lcr,
            4 => self.state.mcr,
            5 => {
                let lsr = self.lsr();
                self.state.line_errors = 0;
                if let Some(head) = self.state.rx.front_mut() {
                    head.1 = 0;
                }
                lsr
            }
            6 => self.modem_lines() | std::mem::take(&mut self.state.deltas),
            7 => self.state.scr,
            _ => 0xff,
        }
    }

    fn write_register(&mut self, register: u64, value: u8) {
        let dlab = self.state.lcr & LCR_DLAB != 0;
        match register {
            0 if dlab => self.state.divisor = self.state.divisor & 0xff00 | u16::from(value),
            1 if dlab => self.state.divisor = self.state.divisor & 0xff | u16::from(value) << 8,
            0 => self.transmit(value),
            1 => {
                // The transmitter is empty: enabling its interrupt raises it.
                if value & !self.state.ier & IER_ETBEI != 0 {
                    self.state.thre_interrupt = true;
                }
                self.state.ier = value & 0x0f;
            }
            2 => self.write_fcr(value),
            3 => {
                let breaks = value & !self.state.lcr & LCR_BREAK != 0;
                self.state.lcr = value;
                if breaks && self.state.mcr & MCR_LOOP != 0 {
                    self.push(0, LSR_BI);
                }
            }
            4 => {
                let before = self.modem_lines();
                self.state.mcr = value & 0x1f;
                self.modem_changed(before);
                self.offer_room();
            }
            7 => self.state.scr = value,
            // LSR and MSR are for factory tests only.
            _ => {}
        }
    }
}

impl Device for Uart16550 {
    fn name(&self) -> &'static str {
        "uart16550"
    }

    fn reset(&mut self) {
        self.state = Self::fresh();
        self.update();
        self.offer_room();
    }

    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        let value = tulk_hw::read_bytes(offset, bytes, |register| self.read_register(register));
        self.update();
        value
    }

    fn write(&mut self, _window: u8, offset: u64, bytes: u8, value: u64) {
        tulk_hw::write_bytes(offset, bytes, value, |register, value| {
            self.write_register(register, value);
            // A new byte for the transmitter takes the interrupt away before it comes again: an edge.
            if register == 0 && self.interrupt() == IIR_THRE {
                self.irq.set(false);
            }
        });
        self.update();
    }

    fn deadline(&self) -> Option<u64> {
        self.state.timeout_at
    }

    fn tick(&mut self, now: u64) {
        if self.state.timeout_at.is_some_and(|at| at <= now) {
            self.state.timeout_at = None;
            self.state.timeout = true;
            self.update();
        }
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let state: State = tulk_hw::load_state(self.name(), snapshot)?;
        if state.rx.len() > FIFO {
            return Err(snapshot_error(self.name(), "more bytes than the FIFO holds"));
        }
        self.state = state;
        self.update();
        Ok(())
    }
}

impl CharDevice for Uart16550 {
    fn receive(&mut self, _port: usize, bytes: &[u8]) -> usize {
        Uart16550::receive(self, bytes)
    }
    fn line_break(&mut self, _port: usize) {
        self.receive_break();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::chardev::Plug;
    use parking_lot::Mutex;
    use tulk_hw::{ManualClock, RecordedIrqs, check_device};
    use tulk_ui::CharSink;

    /// Keeps what the guest writes.
    #[derive(Default)]
    pub(crate) struct Recorder {
        written: Mutex<Vec<u8>>,
        ready: Mutex<u32>,
    }
    impl Recorder {
        pub(crate) fn take(&self) -> Vec<u8> {
            std::mem::take(&mut self.written.lock())
        }
    }
    impl CharBackend for Recorder {
        fn write(&self, bytes: &[u8]) {
            self.written.lock().extend(bytes);
        }
        fn connect(&self, _: Arc<dyn CharSink>) {}
        fn ready(&self) {
            *self.ready.lock() += 1;
        }
        fn describe(&self) -> String {
            "test".into()
        }
    }

    struct Bench {
        uart: Uart16550,
        clock: Arc<ManualClock>,
        irqs: Arc<RecordedIrqs>,
        host: Arc<Recorder>,
    }
    impl Bench {
        fn new() -> Bench {
            let (clock, irqs) = (ManualClock::new(), RecordedIrqs::new());
            let host = Arc::new(Recorder::default());
            let uart = Uart16550::new(clock.clone(), host.clone(), IrqLine::new(irqs.clone(), 4));
            Bench { uart, clock, irqs, host }
        }
        fn set(&mut self, register: u64, value: u64) {
            self.uart.write(0, register, 1, value);
        }
        fn get(&mut self, register: u64) -> u64 {
            self.uart.read(0, register, 1)
        }
    }

    #[test]
    fn conforms() {
        check_device(&mut Bench::new().uart, &[8], 20_000);
    }

    #[test]
    fn a_break_comes_through_the_plug() {
        let device = Arc::new(Mutex::new(Bench::new().uart));
        let plug = Plug { device: device.clone(), port: 0, notice: Box::new(|_| {}) };
        plug.line_break();
        let lsr = device.lock().read(0, 5, 1) as u8;
        assert_eq!(lsr, LSR_THRE | LSR_TEMT | LSR_BI | LSR_DR);
    }

    #[test]
    fn divisor_and_scratch() {
        let mut b = Bench::new();
        b.set(3, 0x83);
        b.set(0, 0x34);
        b.set(1, 0x12);
        assert_eq!((b.get(0), b.get(1)), (0x34, 0x12));
        b.set(3, 3);
        b.set(7, 0xa5);
        assert_eq!((b.get(7), b.get(1), b.get(5)), (0xa5, 0, 0x60));
        assert_eq!(b.host.take(), b"");
    }

    #[test]
    fn transmitter_interrupt() {
        let mut b = Bench::new();
        b.set(4, 8);
        assert_eq!(b.get(2), 1);
        b.set(1, 2);
        assert!(b.irqs.level(4), "enabling raises it");
        assert_eq!((b.get(2), b.get(2)), (2, 1), "reading IIR takes it away");
        assert!(!b.irqs.level(4));
        b.irqs.take_rises();
        b.set(0, 0x41);
        b.set(0, 0x42);
        assert_eq!(b.irqs.take_rises(), [4, 4]);
        assert_eq!((b.host.take(), b.get(2)), (b"AB".to_vec(), 2));
        b.set(4, 0);
        b.set(0, 0x43);
        assert!(!b.irqs.level(4), "OUT2 gates the pin");
    }

    #[test]
    fn receiver_without_fifo() {
        let mut b = Bench::new();
        b.set(4, 8);
        b.set(1, 1);
        assert_eq!(b.uart.receive(b"xy"), 1);
        assert_eq!((b.get(5), b.get(2), b.irqs.level(4)), (0x61, 4, true));
        assert_eq!((b.get(0), *b.host.ready.lock()), (b'x'.into(), 1));
        assert_eq!((b.get(5), b.get(2), b.irqs.level(4)), (0x60, 1, false));
    }

    #[test]
    fn fifo_trigger_and_timeout() {
        let mut b = Bench::new();
        b.set(4, 8);
        b.set(1, 1);
        b.set(2, 0x81);
        assert_eq!(b.get(2), 0xc1);
        assert_eq!(b.uart.receive(b"1234567"), 7);
        assert_eq!(b.get(2), 0xc1);
        // 9600 baud with 5-bit characters (LCR 0): 4 * 7 bits.
        assert_eq!(b.uart.deadline(), Some(4 * 7 * 12 * 16 * 1_000_000_000 / 1_843_200));
        let at = b.uart.deadline().unwrap();
        b.clock.set(at);
        b.uart.tick(at);
        assert_eq!((b.get(2), b.irqs.level(4)), (0xcc, true));
        b.get(0);
        assert_eq!(b.get(2), 0xc1, "a read ends the timeout");
        assert_eq!(b.uart.receive(b"abcdefghijklm"), 10);
        assert_eq!(b.get(2), 0xc4);
        for _ in 0..9 {
            b.get(0);
        }
        assert_eq!(b.get(2), 0xc1, "below the level of 8");
        b.set(2, 0x83);
        assert_eq!((b.get(5), b.uart.deadline()), (0x60, None));
    }

    #[test]
    fn loopback() {
        let mut b = Bench::new();
        b.set(4, 0x1a);
        assert_eq!(b.get(6), 0x90 | 0x02, "RTS and OUT2 to CTS and DCD; DSR fell");
        b.set(0, 0x55);
        assert_eq!((b.uart.receive(b"z"), b.get(5)), (0, 0x61));
        b.set(0, 0xaa);
        assert_eq!((b.get(5), b.get(5)), (0x63, 0x61), "overrun, once");
        assert_eq!(b.get(0), 0xaa);
        b.set(1, 4);
        b.set(3, 0x43);
        assert_eq!((b.get(2), b.get(5), b.get(0)), (6, 0x71, 0));
        assert_eq!(b.host.take(), b"");
        b.set(4, 0);
        assert_eq!((b.get(6), *b.host.ready.lock()), (0xb0 | 2, 1));
    }

    #[test]
    fn modem_status_and_priorities() {
        let mut b = Bench::new();
        b.set(4, 8);
        b.set(1, 0x0f);
        b.uart.set_modem_lines(MSR_RI);
        b.get(6);
        b.uart.set_modem_lines(MSR_CTS);
        b.uart.receive(b"a");
        b.uart.receive_break();
        let mut sources = vec![];
        for register in [5, 0, 2, 6] {
            sources.push(b.get(2));
            b.get(register);
        }
        // THRE goes by the first read of IIR that shows it.
        assert_eq!(sources, [6, 4, 2, 0]);
        assert_eq!(b.get(2), 1);
        b.uart.set_modem_lines(MSR_CTS | MSR_RI);
        assert_eq!(b.get(6), 0x50, "only the trailing edge of RI counts");
    }
}
