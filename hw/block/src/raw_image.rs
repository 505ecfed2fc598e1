//! Raw images: the bytes of the file are those of the disk. Sizes are rounded up to whole sectors; what lies beyond the end of the
//! file reads as zeros, a write there makes it longer.

use crate::file::{ImageFile, fill_padded};
use crate::image::Extent;
use crate::{Error, SECTOR};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(crate) struct RawImage {
    file: File,
    len: u64,
    device: bool,
}

impl RawImage {
    pub fn new(image: ImageFile) -> Result<RawImage, Error> {
        let len = image.len.checked_next_multiple_of(SECTOR);
        let len = len.filter(|l| i64::try_from(*l).is_ok());
        let too_large = || Error::Option("the image is too large".into());
        Ok(RawImage { file: image.file, len: len.ok_or_else(too_large)?, device: image.device })
    }
    pub fn len(&self) -> u64 {
        self.len
    }
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        fill_padded(&self.file, offset, out)
    }
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
    /// Gives the range back to the host's file system, so that it reads as zeros. False where that cannot be done.
    pub fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
    /// Zeros without writing them, space kept. False where that cannot be done.
    pub fn zero(&self, offset: u64, len: u64) -> io::Result<bool> {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
    /// What the file system knows of the place: data or a hole, and how far that goes.
    pub fn extent(&self, offset: u64) -> (Extent, u64) {
        let rest = self.len - offset;
        if self.device {
            return (Extent::Data, rest);
        }
        // The position of the descriptor is nobody's.
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(at) if at > offset => (Extent::Hole, (at - offset).min(rest)),
            Ok(_) => match seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(end) if end > offset => (Extent::Data, (end - offset).min(rest)),
                _ => (Extent::Data, rest),
            },
            Err(Errno::NXIO) => (Extent::Hole, rest),
            Err(_) => (Extent::Data, rest),
        }
    }
}
