//! Guest memory as devices see it.

use parking_lot::Mutex;
use std::sync::Arc;
use tulk_base::GuestPa;

/// Guest-physical memory for bus masters. Ranges outside RAM read as all ones and swallow writes; the result tells
/// whether all of it was RAM. Implementations drop translations of code that is overwritten.
pub trait Dma: Send + Sync {
    /// Fills `out` from `pa` on.
    fn read(&self, pa: GuestPa, out: &mut [u8]) -> bool;
    fn write(&self, pa: GuestPa, data: &[u8]) -> bool;
}

/// Memory for tests, from physical address 0.
#[derive(Clone, Default)]
pub struct VecMemory(pub Arc<Mutex<Vec<u8>>>);

impl VecMemory {
    pub fn new(bytes: usize) -> VecMemory {
        VecMemory(Arc::new(Mutex::new(vec![0; bytes])))
    }
}

/// The part of `[pa, pa + len)` that lies in memory of `size` bytes.
fn inside(pa: GuestPa, len: usize, size: usize) -> (usize, usize) {
    let start = usize::try_from(pa.0).unwrap_or(usize::MAX).min(size);
    (start, len.min(size - start))
}

impl Dma for VecMemory {
    fn read(&self, pa: GuestPa, out: &mut [u8]) -> bool {
        let memory = self.0.lock();
        let (start, n) = inside(pa, out.len(), memory.len());
        out[..n].copy_from_slice(&memory[start..start + n]);
        out[n..].fill(0xff);
        n == out.len()
    }
    fn write(&self, pa: GuestPa, data: &[u8]) -> bool {
        let mut memory = self.0.lock();
        let (start, n) = inside(pa, data.len(), memory.len());
        memory[start..start + n].copy_from_slice(&data[..n]);
        n == data.len()
    }
}
