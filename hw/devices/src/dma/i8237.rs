//! The two cascaded Intel 8237A DMA controllers of a PC with its page registers.
//!
//! Data sheet 231466-005; page registers as in the PIIX3 (290550-002, section 2.5.1). Channels 0 to 3 move bytes,
//! channels 5 to 7 words; channel 4 is the cascade. Devices move blocks by [`I8237::transfer`] while their request is up
//! instead of single cycles.
//!
//! Not modelled: memory-to-memory transfers, cycle timing, compressed timing, software requests (kept and shown), and
//! bus arbitration: priorities decide nothing, as each transfer ends before the next one starts.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_base::GuestPa;
use tulk_hw::{Device, Dma, Snapshot, SnapshotError};

/// Window of the first controller: 16 ports at 0x00.
pub const CHANNELS_0_3: u8 = 0;
/// Window of the second controller: 32 ports at 0xc0, of which the even ones count.
pub const CHANNELS_4_7: u8 = 1;
/// Window of the page registers: 16 ports at 0x80.
pub const PAGES: u8 = 2;

/// Channel of each page register; the others are only memory.
const PAGE_CHANNEL: [Option<usize>; 16] = [
    None,
    Some(2),
    Some(3),
    Some(1),
    None,
    None,
    None,
    Some(0),
    None,
    Some(6),
    Some(7),
    Some(5),
    None,
    None,
    None,
    Some(4),
];

const MODE_TRANSFER: u8 = 3 << 2;
const MODE_WRITE: u8 = 1 << 2;
const MODE_READ: u8 = 2 << 2;
const MODE_AUTO_INIT: u8 = 1 << 4;
const MODE_DECREMENT: u8 = 1 << 5;
const MODE_CASCADE: u8 = 3 << 6;
const COMMAND_DISABLE: u8 = 1 << 2;

#[derive(Clone, Copy, Serialize, Deserialize, Default)]
struct Channel {
    base_address: u16,
    base_count: u16,
    address: u16,
    /// Transfers that are left, minus one.
    count: u16,
    mode: u8,
}

#[derive(Clone, Serialize, Deserialize)]
struct Controller {
    channels: [Channel; 4],
    command: u8,
    mask: u8,
    /// Terminal counts since the last read of the status.
    reached: u8,
    /// Requests: of devices, and of software.
    request: u8,
    software: u8,
    temporary: u8,
    /// Byte pointer flip-flop: the next access is to the high byte.
    high: bool,
}

impl Controller {
    fn fresh() -> Controller {
        Controller {
            channels: [Channel::default(); 4],
            command: 0,
            mask: 0xf,
            reached: 0,
            request: 0,
            software: 0,
            temporary: 0,
            high: false,
        }
    }

    fn flip(&mut self) -> u32 {
        self.high = !self.high;
        if self.high { 0 } else { 8 }
    }

    fn read(&mut self, register: u64) -> u8 {
        match register {
            0..8 => {
                let channel = self.channels[register as usize / 2];
                let word = if register & 1 == 0 { channel.address } else { channel.count };
                (word >> self.flip()) as u8
            }
            8 => std::mem::take(&mut self.reached) | (self.request | self.software) << 4,
            0xd => self.temporary,
            0xf => self.mask | 0xf0,
            _ => 0,
        }
    }

    fn write(&mut self, register: u64, value: u8) {
        let n = usize::from(value & 3);
        let set = |bits: u8| if value & 4 != 0 { bits | 1 << n } else { bits & !(1 << n) };
        match register {
            0..8 => {
                let shift = self.flip();
                let channel = &mut self.channels[register as usize / 2];
                let (base, current) = if register & 1 == 0 {
                    (&mut channel.base_address, &mut channel.address)
                } else {
                    (&mut channel.base_count, &mut channel.count)
                };
                *base = *base & !(0xff << shift) | u16::from(value) << shift;
                *current = *base;
            }
            8 => self.command = value,
            9 => self.software = set(self.software),
            0xa => self.mask = set(self.mask),
            0xb => self.channels[n].mode = value & !3,
            0xc => self.high = false,
            // Master clear.
            0xd => {
                let (channels, request) = (self.channels, self.request);
                *self = Controller { channels, request, ..Controller::fresh() };
            }
            0xe => self.mask = 0,
            0xf => self.mask = value & 0xf,
            _ => {}
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct State {
    controllers: [Controller; 2],
    pages: [u8; 16],
}

/// Which way a device wants to move data.
pub enum Transfer<'a> {
    /// From the device to memory.
    ToMemory(&'a [u8]),
    FromMemory(&'a mut [u8]),
}

/// How far a transfer went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes moved; less than wanted at the terminal count or when the channel is masked.
    pub bytes: usize,
    pub terminal_count: bool,
}

/// Both controllers.
pub struct I8237 {
    state: State,
    memory: Arc<dyn Dma>,
}

impl I8237 {
    pub fn new(memory: Arc<dyn Dma>) -> I8237 {
        I8237 { state: Self::fresh(), memory }
    }

    fn fresh() -> State {
        State { controllers: [Controller::fresh(), Controller::fresh()], pages: [0; 16] }
    }

    /// A device's request line, as the status register shows it.
    pub fn set_request(&mut self, channel: usize, on: bool) {
        let bit = 1 << (channel & 3);
        let request = &mut self.state.controllers[channel >> 2 & 1].request;
        *request = if on { *request | bit } else { *request & !bit };
    }

    /// Whether a transfer on this channel would move anything.
    pub fn is_ready(&self, channel: usize) -> bool {
        let controller = &self.state.controllers[channel >> 2 & 1];
        let cascade = &self.state.controllers[1];
        // The first controller works through channel 4 of the second one.
        let open = channel >= 4 || cascade.mask & 1 == 0 && cascade.command & COMMAND_DISABLE == 0;
        open && controller.mask >> (channel & 3) & 1 == 0
            && controller.command & COMMAND_DISABLE == 0
            && channel != 4
            && controller.channels[channel & 3].mode & MODE_CASCADE != MODE_CASCADE
    }

    /// Moves a block for the device of `channel` (0 to 3, 5 to 7). The channel's mode must fit the direction; a verify
    /// transfer counts without touching memory, and gives the device zeros.
    pub fn transfer(&mut self, channel: usize, mut data: Transfer<'_>) -> Progress {
        let mut progress = Progress { bytes: 0, terminal_count: false };
        let width = if channel >= 4 { 2 } else { 1 };
        let wanted = match &data {
            Transfer::ToMemory(bytes) => bytes.len(),
            Transfer::FromMemory(bytes) => bytes.len(),
        };
        while progress.bytes + width <= wanted && !progress.terminal_count && self.is_ready(channel)
        {
            let page = (0..16).find(|&n| PAGE_CHANNEL[n] == Some(channel));
            let page = u64::from(page.map_or(0, |n| self.state.pages[n]));
            let controller = &mut self.state.controllers[channel >> 2 & 1];
            let unit = &mut controller.channels[channel & 3];
            let down = unit.mode & MODE_DECREMENT != 0;
            // The address wraps within its 64 K units.
            let to_wrap = if down { 1 } else { 0x1_0000 - usize::from(unit.address) };
            let units =
                ((wanted - progress.bytes) / width).min(usize::from(unit.count) + 1).min(to_wrap);
            let pa = if width == 2 {
                (page & 0xfe) << 16 | u64::from(unit.address) << 1
            } else {
                page << 16 | u64::from(unit.address)
            };
            let range = progress.bytes..progress.bytes + units * width;
            match (&mut data, unit.mode & MODE_TRANSFER) {
                (Transfer::ToMemory(bytes), MODE_WRITE) => {
                    self.memory.write(GuestPa(pa), &bytes[range]);
                }
                (Transfer::FromMemory(bytes), MODE_READ) => {
                    self.memory.read(GuestPa(pa), &mut bytes[range]);
                }
                (Transfer::ToMemory(_), 0) => {}
                (Transfer::FromMemory(bytes), 0) => bytes[range].fill(0),
                _ => return progress,
            }
            progress.bytes += units * width;
            let step = units as u16;
            unit.address = if down {
                unit.address.wrapping_sub(step)
            } else {
                unit.address.wrapping_add(step)
            };
            let (count, over) = unit.count.overflowing_sub(step);
            unit.count = count;
            if over || units == 0x1_0000 {
                progress.terminal_count = true;
                controller.reached |= 1 << (channel & 3);
                controller.software &= !(1 << (channel & 3));
                if unit.mode & MODE_AUTO_INIT != 0 {
                    (unit.address, unit.count) = (unit.base_address, unit.base_count);
                } else {
                    controller.mask |= 1 << (channel & 3);
                }
            }
        }
        progress
    }
}

impl Device for I8237 {
    fn name(&self) -> &'static str {
        "i8237"
    }

    fn reset(&mut self) {
        self.state = Self::fresh();
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |port| match (window, port) {
            (CHANNELS_0_3, 0..16) => self.state.controllers[0].read(port),
            (CHANNELS_4_7, 0..32) => self.state.controllers[1].read(port / 2),
            (PAGES, 0..16) => self.state.pages[port as usize],
            _ => 0xff,
        })
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        tulk_hw::write_bytes(offset, bytes, value, |port, value| match (window, port) {
            (CHANNELS_0_3, 0..16) => self.state.controllers[0].write(port, value),
            (CHANNELS_4_7, 0..32) if port & 1 == 0 => {
                self.state.controllers[1].write(port / 2, value);
            }
            (PAGES, 0..16) => self.state.pages[port as usize] = value,
            _ => {}
        });
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.state = tulk_hw::load_state(self.name(), snapshot)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulk_hw::{VecMemory, check_device};

    fn device() -> (I8237, VecMemory) {
        let memory = VecMemory::new(0x4_0000);
        let mut dma = I8237::new(Arc::new(memory.clone()));
        // As firmware does: cascade open.
        dma.write(CHANNELS_4_7, 0x16, 1, 0xc0);
        dma.write(CHANNELS_4_7, 0x14, 1, 0);
        (dma, memory)
    }
    fn program(dma: &mut I8237, mode: u64, page: u64, address: u64, count: u64) {
        dma.write(CHANNELS_0_3, 0xa, 1, 6);
        dma.write(CHANNELS_0_3, 0xc, 1, 0);
        dma.write(CHANNELS_0_3, 0xb, 1, mode | 2);
        for (register, value) in [(4, address), (5, count)] {
            dma.write(CHANNELS_0_3, register, 1, value & 0xff);
            dma.write(CHANNELS_0_3, register, 1, value >> 8);
        }
        dma.write(PAGES, 1, 1, page);
        dma.write(CHANNELS_0_3, 0xa, 1, 2);
    }
    fn current(dma: &mut I8237) -> [u64; 2] {
        dma.write(CHANNELS_0_3, 0xc, 1, 0);
        [4, 5].map(|r| dma.read(CHANNELS_0_3, r, 1) | dma.read(CHANNELS_0_3, r, 1) << 8)
    }

    #[test]
    fn conforms() {
        check_device(&mut device().0, &[16, 32, 16], 20_000);
    }

    #[test]
    fn to_memory_with_terminal_count() {
        let (mut dma, memory) = device();
        program(&mut dma, 0x44, 1, 0x2000, 7);
        let step = dma.transfer(2, Transfer::ToMemory(b"abc"));
        assert_eq!(step, Progress { bytes: 3, terminal_count: false });
        assert_eq!(current(&mut dma), [0x2003, 4]);
        let step = dma.transfer(2, Transfer::ToMemory(b"defghijk"));
        assert_eq!(step, Progress { bytes: 5, terminal_count: true });
        assert_eq!(memory.0.lock()[0x1_2000..0x1_2009], *b"abcdefgh\0");
        assert_eq!((dma.read(0, 8, 1), dma.read(0, 8, 1)), (4, 0));
        assert!(!dma.is_ready(2), "masked at the terminal count");
        assert_eq!(current(&mut dma), [0x2008, 0xffff]);
    }

    #[test]
    fn auto_init_wrap_and_down() {
        let (mut dma, memory) = device();
        program(&mut dma, 0x54, 2, 0xfffe, 3);
        assert!(dma.transfer(2, Transfer::ToMemory(b"wxyz")).terminal_count);
        assert_eq!(memory.0.lock()[0x2_fffe..0x3_0000], *b"wx");
        assert_eq!(memory.0.lock()[0x2_0000..0x2_0002], *b"yz");
        assert_eq!((current(&mut dma), dma.is_ready(2)), ([0xfffe, 3], true));
        program(&mut dma, 0x68, 2, 0x0001, 1);
        let mut out = [0; 2];
        assert!(dma.transfer(2, Transfer::FromMemory(&mut out)).terminal_count);
        assert_eq!(out, *b"zy");
    }

    #[test]
    fn verify_direction_and_masks() {
        let (mut dma, memory) = device();
        program(&mut dma, 0x40, 0, 0x100, 3);
        assert!(dma.transfer(2, Transfer::ToMemory(b"abcd")).terminal_count);
        assert_eq!(memory.0.lock()[0x100], 0);
        program(&mut dma, 0x48, 0, 0x100, 3);
        assert_eq!(dma.transfer(2, Transfer::ToMemory(b"abcd")).bytes, 0);
        program(&mut dma, 0x44, 0, 0x100, 3);
        dma.write(CHANNELS_4_7, 0x14, 1, 4);
        assert_eq!(dma.transfer(2, Transfer::ToMemory(b"abcd")).bytes, 0, "cascade masked");
        dma.set_request(2, true);
        assert_eq!(dma.read(0, 8, 1), 0x44);
    }

    #[test]
    fn words() {
        let (mut dma, memory) = device();
        dma.write(CHANNELS_4_7, 0x16, 1, 0x45);
        for value in [0x80, 0x00] {
            dma.write(CHANNELS_4_7, 4, 1, value);
        }
        for value in [1, 0] {
            dma.write(CHANNELS_4_7, 6, 1, value);
        }
        dma.write(PAGES, 0xb, 1, 3);
        dma.write(CHANNELS_4_7, 0x14, 1, 1);
        let step = dma.transfer(5, Transfer::ToMemory(b"abcdef"));
        assert_eq!(step, Progress { bytes: 4, terminal_count: true });
        assert_eq!(memory.0.lock()[0x2_0100..0x2_0104], *b"abcd");
    }
}
