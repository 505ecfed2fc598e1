//! From a host address in a region to the guest instruction at which the interpreter takes over when it faults: the
//! instruction's checkpoint in a precise region (see `checkpoint.rs`), else the instruction itself.
//!
//! A sorted table, delta-coded in LEB128: each entry says from which code offset on which guest pc holds. The
//! lookup runs in a signal handler: it neither allocates nor locks nor panics.

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultMap {
    bytes: Box<[u8]>,
}

/// Writes a [`FaultMap`].
#[derive(Debug, Default)]
pub(crate) struct FaultMapBuilder {
    bytes: Vec<u8>,
    offset: u32,
    pc: Option<u64>,
    last_pc: u64,
}

impl FaultMap {
    /// Found instead of a pc: the pc cell holds it already.
    pub const CHECKPOINT: u64 = u64::MAX;

    /// The guest pc for the code at this offset from the region's start; `None` where the code belongs
    /// to no guest instruction.
    pub fn lookup(&self, offset: u32) -> Option<u64> {
        let mut bytes = self.bytes.iter().copied();
        let (mut at, mut pc, mut found) = (0u64, 0u64, None);
        while let Some(step) = read(&mut bytes) {
            // Bit 0: the range belongs to a guest instruction.
            at += step >> 1;
            if at > offset as u64 {
                break;
            }
            found = if step & 1 != 0 {
                pc = pc.wrapping_add(unzigzag(read(&mut bytes)?));
                Some(pc)
            } else {
                None
            };
        }
        found
    }

    /// Bytes that the table occupies.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl FaultMapBuilder {
    /// From `offset` (not below earlier ones) on, `pc` holds.
    pub fn push(&mut self, offset: u32, pc: Option<u64>) {
        if self.pc == pc {
            return;
        }
        debug_assert!(offset >= self.offset);
        write(&mut self.bytes, ((offset - self.offset) as u64) << 1 | pc.is_some() as u64);
        if let Some(pc) = pc {
            write(&mut self.bytes, zigzag(pc.wrapping_sub(self.last_pc)));
            self.last_pc = pc;
        }
        self.offset = offset;
        self.pc = pc;
    }

    pub fn finish(self) -> FaultMap {
        FaultMap { bytes: self.bytes.into_boxed_slice() }
    }
}

fn zigzag(n: u64) -> u64 {
    n << 1 ^ ((n as i64) >> 63) as u64
}

fn unzigzag(n: u64) -> u64 {
    n >> 1 ^ (n & 1).wrapping_neg()
}

fn write(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let (mut n, mut shift) = (0u64, 0u32);
    loop {
        let byte = bytes.next()?;
        n |= ((byte & 0x7f) as u64).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(n);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back() {
        let ranges = [
            (0u32, None),
            (7, Some(0x40_1000u64)),
            (8, Some(0x40_0ffc)),
            (300, Some(u64::MAX - 3)),
            (70_000, None),
            (70_001, Some(4)),
        ];
        let mut builder = FaultMapBuilder::default();
        for (offset, pc) in ranges {
            builder.push(offset, pc);
            builder.push(offset, pc);
        }
        let map = builder.finish();
        for (i, &(offset, pc)) in ranges.iter().enumerate() {
            let end = ranges.get(i + 1).map_or(offset + 1000, |r| r.0);
            for at in [offset, (offset + end) / 2, end - 1] {
                assert_eq!(map.lookup(at), pc, "at {at}");
            }
        }
        assert_eq!(FaultMap::default().lookup(0), None);
    }
}
