//! The PC's memory map: where RAM, ROM and the chipset's fixed windows are, and the map that firmware is given of it.
//!
//! | physical addresses | what |
//! |---|---|
//! | 0 .. 0xA0000 | RAM |
//! | 0xA0000 .. 0xC0000 | VGA window |
//! | 0xC0000 .. 0xE0000 | option ROMs: RAM behind the chipset's attribute registers (PAM) |
//! | 0xE0000 .. 0x100000 | the BIOS's last 128 KiB, or RAM, as PAM says |
//! | 0x100000 .. [`MemoryMap::below_4g`] | RAM |
//! | .. 0xFEC00000 | PCI devices |
//! | 0xFEC00000 .. | I/O APIC, HPET, local APICs, see the constants |
//! | .. 0x100000000 | the BIOS, up to the reset vector |
//! | 0x100000000 .. | the rest of RAM |

use std::ops::Range;

/// End of conventional memory, start of the VGA window.
pub const VGA: Range<u64> = 0xa_0000..0xc_0000;
/// What the chipset's attribute registers switch between ROM (or nothing) and RAM.
pub const SHADOW: Range<u64> = 0xc_0000..0x10_0000;
/// The part of the BIOS that is seen below 1 MiB before any shadowing.
pub const LOW_BIOS: Range<u64> = 0xe_0000..0x10_0000;
pub const IO_APIC: Range<u64> = 0xfec0_0000..0xfec0_1000;
pub const HPET: Range<u64> = 0xfed0_0000..0xfed0_0400;
pub const LOCAL_APIC: Range<u64> = 0xfee0_0000..0xfee0_1000;
/// One past the last address of the PCI devices below 4 GiB.
pub const PCI_END: u64 = 0xfec0_0000;
pub const FOUR_GIB: u64 = 1 << 32;
/// RAM below 4 GiB ends here at the latest.
pub const LOW_RAM_LIMIT: u64 = 3 << 30;

/// How much RAM is where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryMap {
    /// End of the RAM below 4 GiB.
    pub below_4g: u64,
    /// Size of the RAM from 4 GiB on.
    pub above_4g: u64,
}

impl MemoryMap {
    /// The map of a machine with `bytes` of RAM.
    pub fn new(bytes: u64) -> MemoryMap {
        let below_4g = bytes.min(LOW_RAM_LIMIT);
        MemoryMap { below_4g, above_4g: bytes - below_4g }
    }

    pub fn total(&self) -> u64 {
        self.below_4g + self.above_4g
    }

    /// The content of fw_cfg's `etc/e820`: RAM, and what firmware cannot know to be in use. Entries are address, length (64
    /// bits each) and type (32 bits; 1 is RAM, 2 reserved).
    pub fn e820(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut entry = |start: u64, len: u64, kind: u32| {
            if len > 0 {
                out.extend(start.to_le_bytes());
                out.extend(len.to_le_bytes());
                out.extend(kind.to_le_bytes());
            }
        };
        entry(0, self.below_4g, 1);
        entry(FOUR_GIB, self.above_4g, 1);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_goes_around_the_hole() {
        let small = MemoryMap::new(128 << 20);
        assert_eq!((small.below_4g, small.above_4g), (128 << 20, 0));
        assert_eq!(small.e820().len(), 20);
        let large = MemoryMap::new(6 << 30);
        assert_eq!((large.below_4g, large.above_4g), (3 << 30, 3 << 30));
        let e820 = large.e820();
        assert_eq!(e820.len(), 40);
        assert_eq!(&e820[20..28], &FOUR_GIB.to_le_bytes());
        assert_eq!(&e820[28..36], &(3u64 << 30).to_le_bytes());
    }
}
