//! From a host address in a region to the guest instruction at which the interpreter takes over when it faults: the
//! instruction's checkpoint in a precise region (see `checkpoint.rs`), else the instruction itself.
//!
//! Of the writes behind a checkpoint some may be done; the map says how many the interpreter leaves out.
//!
//! A sorted table, delta-coded in LEB128: each entry says from which code offset on which guest pc holds. The
//! lookup runs in a signal handler: it neither allocates nor locks nor panics.

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultMap {
    bytes: Box<[u8]>,
}

/// Where and how the interpreter takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// A guest instruction, or [`FaultMap::CHECKPOINT`].
    pub pc: u64,
    /// In a precise region: how many writes from there on are done already. `None` elsewhere, where it is the instruction that
    /// faults.
    pub done: Option<u8>,
}

/// Writes a [`FaultMap`].
#[derive(Debug, Default)]
pub(crate) struct FaultMapBuilder {
    bytes: Vec<u8>,
    offset: u32,
    last: Option<Resume>,
    last_pc: u64,
}

impl FaultMap {
    /// Found instead of a pc: the pc cell holds it already.
    pub const CHECKPOINT: u64 = u64::MAX;

    /// Where to go on for the code at this offset from the region's start; `None` where the code belongs
    /// to no guest instruction.
    pub fn lookup(&self, offset: u32) -> Option<Resume> {
        let mut bytes = self.bytes.iter().copied();
        let (mut at, mut pc, mut found) = (0u64, 0u64, None);
        while let Some(step) = read(&mut bytes) {
            // Bit 0: the range belongs to a guest instruction.
            at += (step >> 1) as u64;
            if at > offset as u64 {
                break;
            }
            found = if step & 1 != 0 {
                let to = read(&mut bytes)?;
                // Bit 0: the number of writes follows.
                pc = pc.wrapping_add(unzigzag((to >> 1) as u64));
                let done = if to & 1 != 0 { Some(bytes.next()?) } else { None };
                Some(Resume { pc, done })
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
    /// From `offset` (not below earlier ones) on, this holds.
    pub fn push(&mut self, offset: u32, resume: Option<Resume>) {
        if self.last == resume {
            return;
        }
        debug_assert!(offset >= self.offset);
        write(&mut self.bytes, ((offset - self.offset) as u128) << 1 | resume.is_some() as u128);
        if let Some(Resume { pc, done }) = resume {
            let to = zigzag(pc.wrapping_sub(self.last_pc)) as u128;
            write(&mut self.bytes, to << 1 | done.is_some() as u128);
            self.bytes.extend(done);
            self.last_pc = pc;
        }
        self.offset = offset;
        self.last = resume;
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

fn write(out: &mut Vec<u8>, mut n: u128) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read(bytes: &mut impl Iterator<Item = u8>) -> Option<u128> {
    let (mut n, mut shift) = (0u128, 0u32);
    loop {
        let byte = bytes.next()?;
        n |= ((byte & 0x7f) as u128).checked_shl(shift).unwrap_or(0);
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
        let of = |pc, done| Some(Resume { pc, done });
        let ranges = [
            (0u32, None),
            (7, of(0x40_1000u64, None)),
            (8, of(0x40_0ffc, Some(0))),
            (9, of(0x40_0ffc, Some(200))),
            (300, of(u64::MAX - 3, Some(1))),
            (400, of(1 << 63, None)),
            (500, of(FaultMap::CHECKPOINT, Some(1))),
            (70_000, None),
            (70_001, of(4, None)),
        ];
        let mut builder = FaultMapBuilder::default();
        for (offset, resume) in ranges {
            builder.push(offset, resume);
            builder.push(offset, resume);
        }
        let map = builder.finish();
        for (i, &(offset, resume)) in ranges.iter().enumerate() {
            let end = ranges.get(i + 1).map_or(offset + 1000, |r| r.0);
            for at in [offset, (offset + end) / 2, end - 1] {
                assert_eq!(map.lookup(at), resume, "at {at}");
            }
        }
        assert_eq!(FaultMap::default().lookup(0), None);
    }
}
