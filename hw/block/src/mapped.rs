//! Images that `imago` reads and writes: qcow2, and raw files that bypass the host's page cache (their alignment is its business).
//!
//! `imago` closes an image by writing back its tables, so a disk that is dropped is complete on the host's side.

use crate::error::one_line;
use crate::image::Extent;
use imago::file::File as Storage;
use imago::{FormatAccess, Mapping};
use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;

pub(crate) type Access = FormatAccess<Storage>;

pub(crate) struct Mapped {
    /// Shared for reading and writing; alone for what takes mappings away under other's feet.
    access: RwLock<Access>,
    /// Bytes that the format has, which need not be whole sectors.
    size: u64,
    /// Bytes of a cluster; 1 for raw.
    cluster: u64,
}

/// Bytes discarded at a time: bounds the list of places in the file.
const DISCARD_STEP: u64 = 4 << 30;

impl Mapped {
    pub fn new(access: Access, cluster: u64) -> Mapped {
        let size = access.size();
        Mapped { access: RwLock::new(access), size, cluster }
    }
    pub fn size(&self) -> u64 {
        self.size
    }
    pub fn into_inner(self) -> Access {
        self.access.into_inner()
    }
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.access.read().read(out, offset).map_err(one_line)
    }
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // The last sector may reach beyond the end.
        let room = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.access.read().write(&data[..data.len().min(room)], offset).map_err(one_line)
    }
    /// Writes back tables; data is not held back.
    pub fn flush(&self) -> io::Result<()> {
        self.access.read().flush().map_err(one_line)
    }
    /// Takes whole clusters out of the image, and gives their space in `file` back to the host.
    pub fn discard(&self, offset: u64, len: u64, file: &File) -> io::Result<()> {
        let end = offset + len.min(self.size.saturating_sub(offset));
        let mut access = self.access.write();
        let mut at = offset.next_multiple_of(self.cluster);
        let end = if end == self.size { end } else { end / self.cluster * self.cluster };
        while at < end {
            let step = (end - at).min(DISCARD_STEP);
            let places = own_places(&access, at, step)?;
            match access.discard_to_any(at, step) {
                // Version 2 has no way to say "zeros": the guest's wish stays a wish.
                Err(e) if e.kind() == io::ErrorKind::Unsupported => return Ok(()),
                result => result.map_err(one_line)?,
            }
            // Nobody can have been given the clusters yet: we are alone.
            for (place, len) in places {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let len = len.next_multiple_of(self.cluster);
                if fallocate(file, flags, place, len).is_err() {
                    break;
                }
            }
            at += step;
        }
        Ok(())
    }
    /// False when the format cannot say it.
    pub fn zero(&self, offset: u64, len: u64) -> io::Result<bool> {
        let len = len.min(self.size.saturating_sub(offset));
        match self.access.read().write_zeroes(offset, len) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(false),
            result => result.map(|()| true).map_err(one_line),
        }
    }
    pub fn extent(&self, offset: u64) -> io::Result<(Extent, u64)> {
        let access = self.access.read();
        let rest = self.size.saturating_sub(offset);
        if rest == 0 {
            return Ok((Extent::Hole, crate::SECTOR));
        }
        let (mapping, len) = access.get_mapping(offset, rest).map_err(one_line)?;
        let kind = match mapping {
            Mapping::Zero { explicit: true, .. } => Extent::Zero,
            Mapping::Zero { .. } | Mapping::Eof { .. } => Extent::Hole,
            _ => Extent::Data,
        };
        Ok((kind, len.clamp(1, rest)))
    }
}

/// Where in the top file the data of a range lies, as far as no snapshot needs it too.
fn own_places(access: &Access, mut at: u64, len: u64) -> io::Result<Vec<(u64, u64)>> {
    let end = at + len;
    let mut places = Vec::new();
    while at < end {
        let (mapping, len) = access.get_mapping(at, end - at).map_err(one_line)?;
        if let Mapping::Raw { offset, writable: true, .. } = mapping {
            places.push((offset, len));
        }
        at += len.max(1);
    }
    Ok(places)
}
