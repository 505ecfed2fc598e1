//! Disks on the host's side: image formats and what devices see of them, [`Disk`].
//!
//! [`open()`] makes a disk of an image file, a block device or a CD. Raw images are plain `pread` and `pwrite`; qcow2 is read
//! and written by the library `imago`, behind checks of our own ([`qcow2`]), because images come from anywhere.
//! `docs/disks.md` is the page for users.
#![forbid(unsafe_code)]

mod copy;
mod create;
mod error;
mod file;
mod guarded;
mod image;
mod info;
mod lock;
mod mapped;
mod open;
mod overlay;
pub mod qcow2;
mod raw_image;

pub use copy::{CopyOptions, Difference, compare, copy};
pub use create::{CreateOptions, Preallocation, create, resize};
pub use error::Error;
pub use file::printable;
pub use guarded::{FailingDisk, Guarded, OnError, Outcome, Policy, is_waiting};
pub use image::{Extent, Image};
pub use info::{Info, info};
pub use open::{
    Cache, Discard, Format, Locking, OpenOptions, backing_path, open, open_image, probe,
};

use std::io;

/// Bytes in a sector, the unit in which guests count.
pub const SECTOR: u64 = 512;

/// A disk, whatever stands behind it. Offsets and lengths are in bytes and multiples of [`SECTOR`]. May be used from
/// several threads at once.
pub trait Disk: Send + Sync {
    /// Size in bytes, a multiple of [`SECTOR`].
    fn len(&self) -> u64;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn read_only(&self) -> bool;
    /// # Errors
    /// What the host reports, or `InvalidInput` beyond the end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// # Errors
    /// As [`Disk::read_at`]; `PermissionDenied` on a read-only disk.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Everything written before is on stable storage afterwards.
    ///
    /// # Errors
    /// What the host reports.
    fn flush(&self) -> io::Result<()>;
    /// The range may read as zeros from now on.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }
    /// The range reads as zeros from now on.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = [0; 64 << 10];
        let mut at = offset;
        while at < offset + len {
            let n = (offset + len - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..n as usize])?;
            at += n;
        }
        Ok(())
    }
    /// Lines for a user: the image with its format, then what is worth knowing (`info block`).
    fn description(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A disk in memory, for tests and for images that are not kept.
pub struct MemoryDisk {
    data: parking_lot::RwLock<Vec<u8>>,
    read_only: bool,
}

impl MemoryDisk {
    /// A disk with this content, padded with zeros to whole sectors.
    pub fn new(mut data: Vec<u8>, read_only: bool) -> MemoryDisk {
        data.resize(data.len().next_multiple_of(SECTOR as usize), 0);
        MemoryDisk { data: parking_lot::RwLock::new(data), read_only }
    }
}

fn range(offset: u64, len: usize, size: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok();
    start
        .and_then(|s| Some(s..s.checked_add(len)?))
        .filter(|r| r.end <= size)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

impl Disk for MemoryDisk {
    fn len(&self) -> u64 {
        self.data.read().len() as u64
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let data = self.data.read();
        out.copy_from_slice(&data[range(offset, out.len(), data.len())?]);
        Ok(())
    }
    fn write_at(&self, offset: u64, new: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut data = self.data.write();
        let range = range(offset, new.len(), data.len())?;
        data[range].copy_from_slice(new);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
