//! The window at 0xA0000 to 0xBFFFF: planes, latches, write and read modes.

use super::VideoMemory;
use super::registers::{Registers, gr, sr};

/// A byte 0xff for each bit of a nibble: plane 0 in the low byte.
const fn expand(nibble: u8) -> u32 {
    let n = nibble as u32 & 15;
    // A carry-free product spreads the four bits to four bytes.
    ((n * 0x0020_4081) & 0x0101_0101) * 0xff
}

const fn replicate(byte: u8) -> u32 {
    byte as u32 * 0x0101_0101
}

const CHAIN_4: u8 = 8;
const ODD_EVEN_DISABLE: u8 = 4;

impl Registers {
    /// The offset in video memory's window of an offset from 0xA0000, if the memory map has it.
    fn window(&self, offset: u64) -> Option<u64> {
        let (start, size) = match self.gr[gr::MISCELLANEOUS] >> 2 & 3 {
            0 => (0, 0x2_0000),
            1 => (0, 0x1_0000),
            2 => (0x1_0000, 0x8000),
            _ => (0x1_8000, 0x8000),
        };
        offset.checked_sub(start).filter(|at| *at < size)
    }

    fn chain_4(&self) -> bool {
        self.sr[sr::MEMORY_MODE] & CHAIN_4 != 0
    }

    /// Whether a write stores the host's byte as it is.
    fn writes_plainly(&self) -> bool {
        self.gr[gr::MODE] & 3 == 0
            && self.gr[gr::ENABLE_SET_RESET] == 0
            && self.gr[gr::DATA_ROTATE] == 0
            && self.gr[gr::BIT_MASK] == 0xff
    }

    /// A read of up to 8 bytes; `bank` is the offset in video memory of the window.
    pub fn memory_read(
        &mut self,
        vram: &dyn VideoMemory,
        offset: u64,
        bytes: u8,
        bank: u64,
    ) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |at| match self.window(at) {
            Some(at) => self.byte_read(vram, at, bank / 4),
            None => 0xff,
        })
    }

    fn byte_read(&mut self, vram: &dyn VideoMemory, at: u64, bank: u64) -> u8 {
        let odd_even = self.gr[gr::MODE] & 0x10 != 0;
        let select = self.gr[gr::READ_MAP_SELECT];
        let (plane_offset, plane) = if self.chain_4() {
            (at >> 2, at as u8 & 3)
        } else if odd_even {
            (at >> 1, select & 2 | at as u8 & 1)
        } else {
            (at, select & 3)
        };
        self.latch = vram.read_planes(plane_offset + bank);
        if self.gr[gr::MODE] & 8 == 0 {
            return (self.latch >> (8 * plane)) as u8;
        }
        // Read mode 1: the pixels whose colour compares, in the planes that matter.
        let differs = (self.latch ^ expand(self.gr[gr::COLOR_COMPARE]))
            & expand(self.gr[gr::COLOR_DONT_CARE]);
        let folded = differs | differs >> 16;
        !((folded | folded >> 8) as u8)
    }

    pub fn memory_write(
        &mut self,
        vram: &dyn VideoMemory,
        offset: u64,
        bytes: u8,
        value: u64,
        bank: u64,
    ) {
        let n = u64::from(bytes.min(8));
        let data = value.to_le_bytes();
        // Chain-4 memory is linear: nothing to compute unless software wants it.
        if self.chain_4()
            && self.sr[sr::MAP_MASK] == 15
            && self.writes_plainly()
            && let (Some(at), Some(_)) = (self.window(offset), self.window(offset + n - 1))
        {
            return vram.write(at + bank, &data[..n as usize]);
        }
        for (n, byte) in data[..n as usize].iter().enumerate() {
            if let Some(at) = self.window(offset + n as u64) {
                self.byte_write(vram, at, bank / 4, *byte);
            }
        }
    }

    fn byte_write(&mut self, vram: &dyn VideoMemory, at: u64, bank: u64, byte: u8) {
        let (plane_offset, planes) = if self.chain_4() {
            (at >> 2, 1 << (at & 3))
        } else if self.sr[sr::MEMORY_MODE] & ODD_EVEN_DISABLE == 0 {
            (at >> 1, 0b0101 << (at & 1))
        } else {
            (at, 0b1111)
        };
        let mask = expand(self.sr[sr::MAP_MASK] & planes);
        if mask == 0 {
            return;
        }
        let data = self.pipeline(byte);
        let place = plane_offset + bank;
        let new =
            if mask == u32::MAX { data } else { vram.read_planes(place) & !mask | data & mask };
        vram.write_planes(place, new);
    }

    /// What the graphics controller makes of a byte, by the write mode.
    fn pipeline(&self, byte: u8) -> u32 {
        let g = &self.gr;
        let rotated = byte.rotate_right((g[gr::DATA_ROTATE] & 7).into());
        let set_reset = expand(g[gr::SET_RESET]);
        let (data, bits) = match g[gr::MODE] & 3 {
            0 => {
                let enable = expand(g[gr::ENABLE_SET_RESET]);
                (replicate(rotated) & !enable | set_reset & enable, g[gr::BIT_MASK])
            }
            1 => return self.latch,
            2 => (expand(byte & 15), g[gr::BIT_MASK]),
            _ => (set_reset, g[gr::BIT_MASK] & rotated),
        };
        let data = match g[gr::DATA_ROTATE] >> 3 & 3 {
            0 => data,
            1 => data & self.latch,
            2 => data | self.latch,
            _ => data ^ self.latch,
        };
        let bits = replicate(bits);
        data & bits | self.latch & !bits
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn nibbles_expand() {
        for nibble in 0..16u8 {
            let bytes = super::expand(nibble).to_le_bytes();
            let want: [u8; 4] =
                std::array::from_fn(|n| if nibble >> n & 1 != 0 { 0xff } else { 0 });
            assert_eq!(bytes, want, "{nibble}");
        }
    }
}
