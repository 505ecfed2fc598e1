//! What hangs on the controller by slow wires: the Microwire EEPROM (SDM 5, 13.4.3) and the PHY behind MDIC (13.4.7; the
//! 88E1000's registers from IEEE 802.3, 22.2.4).

use super::regs::{eecd, mdic};
use serde::{Deserialize, Serialize};

/// The EEPROM's words: address, identities, and a sum of 0xBABA over all (5.6).
pub fn eeprom(mac: [u8; 6]) -> [u16; 64] {
    let mut words = [0; 64];
    for (word, pair) in words.iter_mut().zip(mac.as_chunks::<2>().0) {
        *word = u16::from_le_bytes(*pair);
    }
    words[0x03] = 0x0200;
    words[0x08] = 0x1080;
    words[0x0a] = 0x4408;
    words[0x0b] = super::SUBSYSTEM;
    words[0x0c] = super::INTEL;
    words[0x0d] = super::DEVICE_ID;
    words[0x0e] = super::INTEL;
    words[0x0f] = 0x3040;
    words[0x21] = 0x7061;
    words[0x22] = 0x280c;
    words[0x3f] = words.iter().fold(0xbaba, |sum: u16, word| sum.wrapping_sub(*word));
    words
}

/// The serial side of a 93C46 EEPROM of 64 words. Reads only: erasing and writing are accepted and change nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Microwire {
    /// The level of the clock.
    clock: bool,
    /// Bits of the instruction so far, and how many; 0 before the start bit.
    input: u16,
    count: u8,
    /// Bits that are to leave, the next one at the top, and how many.
    output: u16,
    left: u8,
    /// The level of the data output.
    data: bool,
}

/// Start bit, two bits of operation code, six bits of address.
const INSTRUCTION: u8 = 9;
const READ: u16 = 0b110;

impl Microwire {
    /// The wires have these levels now (bits of EECD); returns whether the data output is high.
    pub fn drive(&mut self, wires: u32, words: &[u16; 64]) -> bool {
        let rises = wires & eecd::SK != 0 && !self.clock;
        if wires & eecd::CS == 0 {
            // Deselected: it forgets what it was doing. A high output says that it is ready.
            *self = Microwire { data: true, ..Microwire::default() };
        } else if rises {
            self.clock_in(wires & eecd::DI != 0, words);
        }
        self.clock = wires & eecd::SK != 0;
        self.data
    }

    fn clock_in(&mut self, bit: bool, words: &[u16; 64]) {
        if self.left > 0 {
            self.data = self.output & 0x8000 != 0;
            self.output <<= 1;
            self.left -= 1;
            return;
        }
        if self.count == INSTRUCTION || self.count == 0 && !bit {
            return;
        }
        self.input = self.input << 1 | u16::from(bit);
        self.count += 1;
        if self.count == INSTRUCTION && self.input >> 6 == READ {
            self.output = words[usize::from(self.input & 0x3f)];
            self.left = 16;
            // A zero goes before the data.
            self.data = false;
        }
    }
}

/// The PHY's address on the management wires.
const PHY: u32 = 1;

// Registers of the PHY.
const CONTROL: usize = 0;
const STATUS: usize = 1;
const SPECIFIC_STATUS: usize = 17;

/// Value behind reset and writable bits of each register of the PHY.
const PHY_REGISTERS: [(u16, u16); 32] = {
    let mut r = [(0, 0); 32];
    r[0] = (0x1140, 0xfdff & !0x8200); // control: 1000 Mb/s, full duplex, negotiates
    r[1] = (0x7949, 0); // status: capabilities; negotiation and link are computed
    r[2] = (0x0141, 0); // Marvell
    r[3] = (0x0c20, 0); // 88E1011
    r[4] = (0x0de1, 0xffff); // what we advertise
    r[5] = (0x4de1, 0); // the partner: all, acknowledged
    r[6] = (0x0001, 0);
    r[7] = (0x2001, 0xffff);
    r[9] = (0x0e00, 0xffff); // 1000BASE-T control
    r[10] = (0x3c00, 0); // 1000BASE-T status: partner full duplex, receivers fine
    r[15] = (0x3000, 0);
    r[16] = (0x0360, 0xffff);
    r[17] = (0xa800, 0); // 1000 Mb/s, full duplex, resolved
    r[18] = (0x0000, 0xffff);
    r[20] = (0x0d60, 0xffff);
    r[29] = (0x0000, 0xffff);
    r[30] = (0x0000, 0xffff);
    r
};

/// The PHY. Negotiation takes no time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Phy {
    registers: Vec<u16>,
}

impl Phy {
    pub fn new() -> Phy {
        Phy { registers: PHY_REGISTERS.iter().map(|r| r.0).collect() }
    }

    /// Whether a saved state is one.
    pub fn fits(&self) -> bool {
        self.registers.len() == PHY_REGISTERS.len()
    }

    fn read(&self, register: usize, link: bool) -> u16 {
        let value = self.registers[register];
        match register {
            STATUS if link => value | 0x24,
            SPECIFIC_STATUS if link => value | 0x0400,
            _ => value,
        }
    }

    /// Carries out what was written to MDIC; gives MDIC's new value, and whether negotiation was started.
    pub fn access(&mut self, command: u32, link: bool) -> (u32, bool) {
        let register = (command >> 16 & 31) as usize;
        let mut result = command & !(mdic::READY | mdic::ERROR) | mdic::READY;
        if command >> 21 & 31 != PHY {
            return (result | mdic::ERROR, false);
        }
        let mut negotiates = false;
        if command & mdic::READ != 0 {
            result = result & !0xffff | u32::from(self.read(register, link));
        } else if command & mdic::WRITE != 0 {
            let (value, writable) = (command as u16, PHY_REGISTERS[register].1);
            if register == CONTROL && value & 0x8000 != 0 {
                *self = Phy::new();
                negotiates = true;
            } else {
                let old = self.registers[register];
                self.registers[register] = old & !writable | value & writable;
                negotiates = register == CONTROL && value & 0x1200 == 0x1200;
            }
        }
        (result, negotiates)
    }
}
