//! `snapshot=on`: what is written goes to a nameless temporary file and is gone at the end, however that comes.

use crate::{Disk, Error, Image, SECTOR};
use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, fallocate};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Unit of what the temporary file holds, in bytes.
const BLOCK: u64 = 4096;
/// Blocks per entry of the map.
const GROUP: u64 = 4096;

/// Which blocks are in the temporary file: one bit each.
#[derive(Default)]
struct Present(HashMap<u64, Box<[u64; (GROUP / 64) as usize]>>);

impl Present {
    fn has(&self, block: u64) -> bool {
        let word = self.0.get(&(block / GROUP)).map(|g| g[(block % GROUP / 64) as usize]);
        word.is_some_and(|w| w >> (block % 64) & 1 != 0)
    }
    fn insert(&mut self, block: u64) {
        let group = self.0.entry(block / GROUP).or_insert_with(|| Box::new([0; 64]));
        group[(block % GROUP / 64) as usize] |= 1 << (block % 64);
    }
}

pub(crate) struct Overlay {
    base: Image,
    file: File,
    present: RwLock<Present>,
}

impl Overlay {
    /// The temporary file is made in `TMPDIR`, or in /var/tmp, as it may become large.
    pub fn new(base: Image) -> Result<Overlay, Error> {
        let folder = std::env::var_os("TMPDIR").filter(|d| !d.is_empty());
        let folder = folder.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let file = tempfile::tempfile_in(&folder)
            .map_err(Error::host("make a temporary file for snapshot=on in", folder))?;
        Ok(Overlay { base, file, present: RwLock::default() })
    }

    /// Copies the block from below if only a part of it is going to be written.
    fn complete(&self, present: &Present, block: u64) -> io::Result<()> {
        if present.has(block) {
            return Ok(());
        }
        let at = block * BLOCK;
        let mut old = vec![0; BLOCK.min(self.len() - at) as usize];
        self.base.read_at(at, &mut old)?;
        self.file.write_all_at(&old, at)
    }

    fn write_with(
        &self,
        offset: u64,
        len: u64,
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        crate::image::check_range(offset, len, self.len())?;
        if len == 0 {
            return Ok(());
        }
        let (first, last) = (offset / BLOCK, (offset + len - 1) / BLOCK);
        {
            let present = self.present.read();
            if (first..=last).all(|b| present.has(b)) {
                return write(&self.file);
            }
        }
        let mut present = self.present.write();
        if !offset.is_multiple_of(BLOCK) {
            self.complete(&present, first)?;
        }
        if !(offset + len).is_multiple_of(BLOCK) {
            self.complete(&present, last)?;
        }
        write(&self.file)?;
        (first..=last).for_each(|b| present.insert(b));
        Ok(())
    }
}

impl Disk for Overlay {
    fn len(&self) -> u64 {
        self.base.len()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        crate::image::check_range(offset, out.len() as u64, self.len())?;
        let present = self.present.read();
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let here = present.has(at / BLOCK);
            let mut n = BLOCK - at % BLOCK;
            while n < rest.len() as u64 && present.has((at + n) / BLOCK) == here {
                n += BLOCK;
            }
            let n = n.min(rest.len() as u64);
            let (part, after) = rest.split_at_mut(n as usize);
            match here {
                true => crate::file::fill_padded(&self.file, at, part)?,
                false => self.base.read_at(at, part)?,
            }
            rest = after;
            at += n;
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_with(offset, data.len() as u64, |file| file.write_all_at(data, offset))
    }
    /// Nothing of it is meant to last.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_with(offset, len, |file| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if fallocate(file, flags, offset, len).is_ok() {
                return Ok(());
            }
            let zeros = [0; 64 << 10];
            (0..len).step_by(zeros.len()).try_for_each(|done| {
                let n = (len - done).min(zeros.len() as u64) as usize;
                file.write_all_at(&zeros[..n], offset + done)
            })
        })
    }
    fn description(&self) -> Vec<String> {
        let mut lines = self.base.description();
        lines.push("Snapshot:         on (what is written is temporary)".into());
        lines
    }
}

const _: () = assert!(BLOCK.is_multiple_of(SECTOR));
