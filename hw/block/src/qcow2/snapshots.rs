//! The table of internal snapshots. They are listed and counted, not made or loaded.

use super::{Header, be16, be32, be64};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// One internal snapshot.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub id: String,
    pub name: String,
    /// Bytes of the machine's state.
    pub vm_state_size: u64,
    /// Seconds since 1970, and nanoseconds.
    pub date: (u32, u32),
    /// Nanoseconds that the guest had run.
    pub vm_clock: u64,
    /// Instructions that the guest had run, with `-icount`.
    pub icount: Option<u64>,
    pub l1_offset: u64,
    pub l1_entries: u32,
}

impl Header {
    /// The snapshots, and the bytes that their table takes.
    ///
    /// # Errors
    /// What the host reports; `InvalidData` for a table that is cut.
    pub fn read_snapshots(&self, file: &File) -> io::Result<(Vec<Snapshot>, u64)> {
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "the snapshot table is cut");
        let mut found = Vec::new();
        let mut at = self.snapshots_offset;
        for _ in 0..self.snapshots {
            let mut head = [0; 40];
            file.read_exact_at(&mut head, at)?;
            let word = |i| be32(&head, i).ok_or_else(cut);
            let (id, name) =
                (be16(&head, 12).ok_or_else(cut)?.into(), be16(&head, 14).ok_or_else(cut)?.into());
            let extra = word(36)? as usize;
            if extra > 1024 {
                return Err(cut());
            }
            let mut tail = vec![0; extra + id + name];
            file.read_exact_at(&mut tail, at + 40)?;
            let text = |from: usize, len: usize| {
                String::from_utf8_lossy(tail.get(from..from + len).unwrap_or(&[])).into_owned()
            };
            let large = be64(&tail[..extra], 0).filter(|_| extra >= 8);
            found.push(Snapshot {
                id: text(extra, id),
                name: text(extra + id, name),
                vm_state_size: large.unwrap_or(word(32)?.into()),
                date: (word(16)?, word(20)?),
                vm_clock: be64(&head, 24).ok_or_else(cut)?,
                icount: be64(&tail[..extra], 16).filter(|v| *v != u64::MAX),
                l1_offset: be64(&head, 0).ok_or_else(cut)?,
                l1_entries: word(8)?,
            });
            at += (40 + tail.len() as u64).next_multiple_of(8);
        }
        Ok((found, at - self.snapshots_offset))
    }
}
