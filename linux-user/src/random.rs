//! Random numbers for layouts and `AT_RANDOM`: seeded by the user for repeatable runs, else by the host.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: Option<u64>) -> Random {
        Random(seed.unwrap_or_else(|| {
            let mut bytes = [0u8; 8];
            // When the host has no entropy yet, an address will do for a layout.
            match crate::sys!(SYS_getrandom, &mut bytes, 8u64, libc::GRND_NONBLOCK) {
                Ok(8) => u64::from_ne_bytes(bytes),
                _ => &raw const bytes as u64,
            }
        }))
    }
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.word() % n
    }
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.word().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
