//! Kernels given by `-kernel`: Linux bzImages, Multiboot 1 and PVH.
//!
//! The firmware boots as ever and finds an option ROM (`rom.S`) first in its boot order, which copies the parts of the
//! kernel through fw_cfg to their places and starts it. So the machine is set up as for any other boot, by reset too.

mod elf;
mod linux;
mod multiboot;
mod pvh;

use crate::layout::MemoryMap;
use thiserror::Error;

/// What the user gave.
#[derive(Default)]
pub struct Request {
    pub kernel: Vec<u8>,
    /// `-initrd`: for Multiboot, the modules with their command lines.
    pub initrd: Vec<(String, Vec<u8>)>,
    pub command_line: String,
}

#[derive(Error, Debug, PartialEq, Eq)]
pub enum BootError {
    #[error("it is neither a Linux bzImage nor a Multiboot or PVH kernel")]
    Unknown,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it speaks version {major}.{minor:02} of the boot protocol, at least 2.02 is needed")]
    OldProtocol { major: u8, minor: u8 },
    #[error("it is a 64-bit Multiboot kernel, and Multiboot starts kernels in 32-bit mode")]
    Multiboot64,
    #[error("it needs {0}, which is not supported")]
    Unsupported(&'static str),
    #[error("{what} of {bytes} bytes does not fit the machine's memory")]
    TooLarge { what: &'static str, bytes: u64 },
    #[error("a command line of {len} bytes is longer than the {max} that it takes")]
    LongCommandLine { len: usize, max: usize },
}

/// How the option ROM starts a kernel; the numbers are those in `rom.S`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Linux = 0,
    Multiboot = 1,
    Pvh = 2,
}

/// Something that is copied to a physical address.
#[derive(Default, Debug)]
struct Part {
    address: u32,
    data: Vec<u8>,
}

/// A kernel in parts. The setup part is at [`SETUP`], the command line (Linux only) at [`LOW`].
#[derive(Debug)]
struct Kernel {
    kind: Kind,
    kernel: Part,
    entry: u32,
    setup: Vec<u8>,
    command_line: Vec<u8>,
    initrd: Part,
}

/// Where the setup part goes, and the start or information structure within it.
const SETUP: u32 = 0x1_0000;
/// Where the command line goes, and the memory map that the option ROM makes.
const LOW: u32 = 0x2_0000;
/// What firmware keeps for itself at the end of the low RAM, at most.
const FIRMWARE_RESERVE: u64 = 1 << 20;

/// What fw_cfg hands out to start a kernel.
pub struct Prepared {
    /// Items by number.
    pub items: Vec<(u16, Vec<u8>)>,
    /// The option ROM, to be found by firmware as [`ROM_FILE`] and first in the boot order as [`ROM_BOOT_ENTRY`].
    pub rom: Vec<u8>,
}

pub const ROM_FILE: &str = "genroms/tulk-kernel.bin";
pub const ROM_BOOT_ENTRY: &str = "/rom@genroms/tulk-kernel.bin";

/// Sorts out what kind of kernel it is, and where everything goes.
///
/// # Errors
/// It is none that we know, is damaged, or does not fit the memory.
pub fn prepare(request: &Request, memory: &MemoryMap) -> Result<Prepared, BootError> {
    let kernel = if linux::is(&request.kernel) {
        linux::load(request, memory)?
    } else if multiboot::header(&request.kernel).is_some() {
        multiboot::load(request, memory)?
    } else if elf::is(&request.kernel) {
        pvh::load(request, memory)?
    } else {
        return Err(BootError::Unknown);
    };
    Ok(Prepared { rom: rom(kernel.kind), items: kernel.items() })
}

impl Kernel {
    fn items(self) -> Vec<(u16, Vec<u8>)> {
        let word = |n: u32| n.to_le_bytes().to_vec();
        let size = |data: &[u8]| word(data.len() as u32);
        vec![
            (0x07, word(self.kernel.address)),
            (0x08, size(&self.kernel.data)),
            (0x0a, word(self.initrd.address)),
            (0x0b, size(&self.initrd.data)),
            (0x10, word(self.entry)),
            (0x13, word(LOW)),
            (0x14, size(&self.command_line)),
            (0x16, word(SETUP)),
            (0x17, size(&self.setup)),
            (0x11, self.kernel.data),
            (0x12, self.initrd.data),
            (0x15, self.command_line),
            (0x18, self.setup),
        ]
    }
}

/// The option ROM for a kind of kernel.
fn rom(kind: Kind) -> Vec<u8> {
    const KIND: usize = 0x1c;
    const PNP: std::ops::Range<usize> = 0x20..0x40;
    const PNP_SUM: usize = 0x29;
    let mut rom = include_bytes!("rom.bin").to_vec();
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
    rom[KIND] = kind as u8;
    rom[PNP_SUM] = sum(&rom[PNP]).wrapping_neg();
    let last = rom.len() - 1;
    rom[last] = sum(&rom).wrapping_neg();
    rom
}

/// The highest page-aligned address at which `len` bytes end below `end` and start behind `start`.
fn place_high(
    what: &'static str,
    start: u64,
    end: u64,
    memory: &MemoryMap,
    len: usize,
) -> Result<u32, BootError> {
    let too_large = BootError::TooLarge { what, bytes: len as u64 };
    let end = end.min(memory.below_4g.saturating_sub(FIRMWARE_RESERVE));
    let address = end.checked_sub(len as u64).map(|a| a & !0xfff);
    match address {
        Some(address) if address >= start => Ok(address as u32),
        _ => Err(too_large),
    }
}

/// Numbers at offsets that may not be there.
trait Words {
    fn u16(&self, at: usize) -> Option<u16>;
    fn u32(&self, at: usize) -> Option<u32>;
    fn u64(&self, at: usize) -> Option<u64>;
}

impl Words for [u8] {
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.get(at..at.checked_add(2)?)?.try_into().ok()?))
    }
    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }
    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }
}

/// Overwrites bytes within a block that is known to hold them.
fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rom_is_one() {
        for kind in [Kind::Linux, Kind::Multiboot, Kind::Pvh] {
            let rom = rom(kind);
            assert_eq!(&rom[..2], [0x55, 0xaa]);
            assert_eq!(rom.len(), rom[2] as usize * 512);
            assert_eq!(rom.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
            let pnp = rom.as_slice().u16(0x1a).unwrap() as usize;
            assert_eq!(&rom[pnp..pnp + 4], b"$PnP");
            let len = rom[pnp + 5] as usize * 16;
            assert_eq!(rom[pnp..pnp + len].iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let memory = MemoryMap::new(128 << 20);
        for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0; 70000]] {
            let request = Request { kernel: bytes.to_vec(), ..Request::default() };
            assert!(prepare(&request, &memory).is_err());
        }
    }

    #[test]
    fn cut_and_broken_kernels_are_refused_or_taken_but_never_panic() {
        let memory = MemoryMap::new(64 << 20);
        let mut whole = linux::tests::image();
        whole.extend(multiboot::tests::elf());
        let mut seed = 1u32;
        for n in 0..4000 {
            let mut kernel = match n % 3 {
                0 => linux::tests::image(),
                1 => multiboot::tests::elf(),
                _ => pvh::tests::elf(),
            };
            for _ in 0..3 {
                seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
                let at = (seed >> 8) as usize % kernel.len().min(0x300);
                kernel[at] = seed as u8;
            }
            kernel.truncate(kernel.len() - (seed >> 4) as usize % 64);
            let _ = prepare(&Request { kernel, ..Request::default() }, &memory);
        }
    }
}
