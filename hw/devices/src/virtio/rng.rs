//! Virtio entropy device (Virtual I/O Device 1.2, section 5.4): fills buffers with the host's random bytes.
//!
//! A buffer may come back filled in part, as the specification allows: [`MOST`] bytes at most.

use super::queue::Broken;
use super::{BURST, Rings, VirtioDevice};

/// Most bytes that one request gets.
pub const MOST: usize = 4096;

/// Fills a slice with random bytes.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// The device type. It has no state of its own.
pub struct Rng {
    entropy: Entropy,
}

impl Rng {
    /// A device that takes its bytes from `entropy`: the host's generator.
    pub fn new(entropy: Entropy) -> Rng {
        Rng { entropy }
    }
}

impl VirtioDevice for Rng {
    const NAME: &'static str = "virtio-rng";
    const ID: u16 = 4;
    const CLASS: u32 = 0x00_ff_00;
    type State = ();

    fn queue_sizes(&self) -> Vec<u16> {
        vec![8]
    }
    fn features(&self) -> u64 {
        0
    }
    fn config(&self, _: u64) -> Vec<u8> {
        Vec::new()
    }

    fn notify(&mut self, queue: u16, rings: &mut Rings) {
        let mut bytes = [0; MOST];
        for _ in 0..BURST {
            let Some(chain) = rings.pop(queue) else { return };
            let n = chain.writable_len().min(MOST);
            if n == 0 {
                rings.stop(queue, Broken("entropy request without room"));
                return;
            }
            (self.entropy)(&mut bytes[..n]);
            chain.write(&*rings.dma, 0, &bytes[..n]);
            rings.push(queue, &[(chain.head, n as u32)]);
        }
        rings.again(queue);
    }

    fn reset(&mut self) {}
    fn state(&self) {}
    fn set_state(&mut self, (): ()) {}
}
