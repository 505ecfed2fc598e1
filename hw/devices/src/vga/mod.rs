//! The standard VGA with Bochs' VBE extension: PCI 1234:1111.
//!
//! Sources: IBM PS/2 Hardware Interface Technical Reference (video subsystem) for the VGA, the VBE DISPI interface of
//! the Bochs VGA BIOS for the extension.
//!
//! Video memory holds the four planes' bytes side by side: plane `p` at plane offset `n` is byte `4 * n + p`. Chain-4
//! and odd/even addressing use plane offsets without gaps, as SVGA chips do (an IBM VGA leaves gaps), so that the CRTC's
//! counter is a plane offset in all modes, and chain-4 memory is linear.
//!
//! Not modelled: the vertical interrupt, the monitor sense switches, the second DAC read-back state, EDID, skew and
//! blanking registers (a frame shows what is displayed, without borders), underline and the second font in text frames.

mod dispi;
mod memory;
mod registers;
mod render;
mod stdvga;

pub use render::Generator;
pub use stdvga::{StdVga, VgaDisplay};

use parking_lot::RwLock;

/// Video memory. The board gives memory that guests also reach directly; its content is no part of the device's
/// snapshot.
pub trait VideoMemory: Send + Sync {
    /// Bytes, a power of two of at least 256 KiB.
    fn size(&self) -> u64;
    /// Fills `out` from `offset` on. Behind the end there are zeros.
    fn read(&self, offset: u64, out: &mut [u8]);
    /// Writes; what is behind the end is swallowed.
    fn write(&self, offset: u64, data: &[u8]);
    /// The four planes' bytes at a plane offset, plane 0 in the low byte.
    fn read_planes(&self, plane_offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(4 * plane_offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
    fn write_planes(&self, plane_offset: u64, planes: u32) {
        self.write(4 * plane_offset, &planes.to_le_bytes());
    }
    /// A number that has changed if the content has since; `None` if the memory does not know.
    fn generation(&self) -> Option<u64> {
        None
    }
}

/// Video memory of its own, for tests.
pub struct VecVideoMemory(RwLock<Vec<u8>>);

impl VecVideoMemory {
    pub fn new(bytes: usize) -> VecVideoMemory {
        VecVideoMemory(RwLock::new(vec![0; bytes]))
    }
}

impl VideoMemory for VecVideoMemory {
    fn size(&self) -> u64 {
        self.0.read().len() as u64
    }
    fn read(&self, offset: u64, out: &mut [u8]) {
        let memory = self.0.read();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(memory.len());
        let n = out.len().min(memory.len() - start);
        out[..n].copy_from_slice(&memory[start..start + n]);
        out[n..].fill(0);
    }
    fn write(&self, offset: u64, data: &[u8]) {
        let mut memory = self.0.write();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(memory.len());
        let n = data.len().min(memory.len() - start);
        memory[start..start + n].copy_from_slice(&data[..n]);
    }
}
