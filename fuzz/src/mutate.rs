//! Repeatable mutations.

/// Random numbers that are the same for the same seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Less than `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() >> 33) as usize % n
    }
}

/// Values at which arithmetic goes wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0xfff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_f000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

/// Changes a few places among the first `focus` bytes: bits, bytes, words; now and then the length.
pub fn mutate(data: &mut Vec<u8>, focus: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let room = focus.min(data.len());
        if room == 0 {
            data.push(random.draw() as u8);
            continue;
        }
        let at = random.below(room);
        match random.below(10) {
            0..3 => data[at] ^= 1 << random.below(8),
            3..5 => data[at] = random.draw() as u8,
            5..7 => {
                let value = EDGES[random.below(EDGES.len())].to_le_bytes();
                let size = 1 << random.below(4);
                for (byte, new) in data[at..].iter_mut().zip(&value[..size]) {
                    *byte = *new;
                }
            }
            7 => {
                let from = random.below(data.len());
                let n = (1 + random.below(32)).min(data.len() - from.max(at));
                data.copy_within(from..from + n, at);
            }
            8 => {
                let n = 1 + random.below(16);
                let piece = data[at..(at + n).min(data.len())].to_vec();
                data.splice(at..at, piece);
            }
            _ if random.below(4) == 0 => data.truncate(at),
            _ => {
                let end = (at + 1 + random.below(8)).min(data.len());
                data.drain(at..end);
            }
        }
    }
}
