//! Packets of GDB's remote protocol, sound ones and spoilt ones. For `gdb/tests/garbage.rs` too.

/// A packet around `body`.
pub fn packet(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |a, b| a.wrapping_add(*b));
    [b"$".as_slice(), body, format!("#{sum:02x}").as_bytes()].concat()
}

/// Spoils packets, the same way in each run.
pub struct Spoiler(u64);

impl Spoiler {
    pub fn new() -> Spoiler {
        Spoiler(0x1234_5678_9abc_def1)
    }
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % n
    }
    /// A packet around one of these, in which fewer than `changes` bytes were changed, dropped or put in, or the rest was cut off.
    pub fn packet(&mut self, bodies: &[&[u8]], changes: usize) -> Vec<u8> {
        let mut body = bodies[self.below(bodies.len())].to_vec();
        for _ in 0..self.below(changes) {
            let at = self.below(body.len() + 1);
            match self.below(4) {
                0 if at < body.len() => body[at] = self.below(256) as u8,
                1 if at < body.len() => drop(body.remove(at)),
                2 => body.insert(at, b"0f,:;#$}*-+"[self.below(11)]),
                _ => body.truncate(at),
            }
        }
        packet(&body)
    }
}
