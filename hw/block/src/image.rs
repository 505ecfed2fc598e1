//! An open image: a format's reader behind the rules that hold for all of them (read-only, cache mode, discard, what may not be
//! written where).

use crate::lock::Lock;
use crate::mapped::Mapped;
use crate::open::foreign_format;
use crate::raw_image::RawImage;
use crate::{Cache, Discard, Disk, Format, printable};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an image holds at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    Data,
    /// Zeros that the image itself states.
    Zero,
    /// Nothing: reads as zeros.
    Hole,
}

pub(crate) enum Layer {
    Raw(RawImage),
    Mapped(Mapped),
}

/// A disk image in a file or block device of the host.
pub struct Image {
    pub(crate) layer: Layer,
    /// The topmost image's file, for what goes around the format's reader.
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) len: u64,
    pub(crate) read_only: bool,
    pub(crate) cache: Cache,
    pub(crate) discard: Discard,
    pub(crate) detect_zeroes: bool,
    /// The format is a guess: no guest may turn the image into one of another format.
    pub(crate) guessed_raw: bool,
    /// Files below, the next one first.
    pub(crate) backing: Vec<PathBuf>,
    /// The host has lost data once. It forgets that when asked again; we do not.
    pub(crate) lost: AtomicBool,
    /// On all files of the chain. Last, as closing an image may write to it.
    pub(crate) _locks: Vec<Lock>,
}

/// # Errors
/// `InvalidInput` when the range reaches beyond the end.
pub(crate) fn check_range(offset: u64, len: u64, size: u64) -> io::Result<()> {
    if offset.checked_add(len).is_some_and(|end| end <= size) {
        return Ok(());
    }
    let text = format!("{len} bytes at {offset} lie beyond the end of the disk ({size} bytes)");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

impl Image {
    pub fn format(&self) -> Format {
        self.format
    }
    /// What is at `offset`, and for how many bytes that holds.
    ///
    /// # Errors
    /// What the host reports, or tables that cannot be right.
    pub fn extent(&self, offset: u64) -> io::Result<(Extent, u64)> {
        check_range(offset, 1, self.len)?;
        match &self.layer {
            Layer::Raw(raw) => Ok(raw.extent(offset)),
            Layer::Mapped(mapped) => mapped.extent(offset),
        }
    }
    fn writable(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.len)?;
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }
    fn written(&self) -> io::Result<()> {
        if self.cache.writethrough() { self.flush() } else { Ok(()) }
    }
    fn zeros(&self, offset: u64, len: u64) -> io::Result<bool> {
        match &self.layer {
            Layer::Raw(raw) => {
                let freed = self.discard == Discard::Unmap && raw.punch(offset, len)?;
                Ok(freed || raw.zero(offset, len)?)
            }
            Layer::Mapped(mapped) => mapped.zero(offset, len),
        }
    }
    fn put(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.layer {
            Layer::Raw(raw) => raw.write_at(offset, data),
            Layer::Mapped(mapped) => mapped.write_at(offset, data),
        }
    }
}

impl Disk for Image {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        check_range(offset, out.len() as u64, self.len)?;
        match &self.layer {
            Layer::Raw(raw) => raw.read_at(offset, out),
            Layer::Mapped(mapped) => mapped.read_at(offset, out),
        }
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writable(offset, data.len() as u64)?;
        if self.guessed_raw
            && offset == 0
            && let Some(format) = foreign_format(data)
        {
            let text = format!(
                "sector 0 of a raw image of which the format was not given may not become the header of a {format} image; \
                 say format=raw to allow it"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if self.detect_zeroes && crate::copy::is_zero(data) {
            return self.write_zeroes(offset, data.len() as u64);
        }
        self.put(offset, data)?;
        self.written()
    }
    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        if self.lost.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier flush failed: what was written is lost"));
        }
        if let Layer::Mapped(mapped) = &self.layer {
            mapped.flush()?;
        }
        if self.cache == Cache::Unsafe {
            return Ok(());
        }
        self.file.sync_data().inspect_err(|error| {
            // After a failed write-back the kernel drops the pages and reports success next time.
            if error.kind() != io::ErrorKind::StorageFull {
                self.lost.store(true, Ordering::Relaxed);
            }
        })
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable(offset, len)?;
        if self.discard == Discard::Ignore || len == 0 {
            return Ok(());
        }
        match &self.layer {
            Layer::Raw(raw) => raw.punch(offset, len).map(drop),
            Layer::Mapped(mapped) => mapped.discard(offset, len, &self.file),
        }
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable(offset, len)?;
        if len == 0 || self.zeros(offset, len)? {
            return self.written();
        }
        let zeros = vec![0; len.min(1 << 20) as usize];
        let mut at = offset;
        while at < offset + len {
            let n = (offset + len - at).min(zeros.len() as u64);
            self.put(at, &zeros[..n as usize])?;
            at += n;
        }
        self.written()
    }
    fn description(&self) -> Vec<String> {
        let mode = if self.read_only { ", read-only" } else { "" };
        let mut lines = vec![
            format!("{} ({}{mode})", printable(&self.path), self.format),
            format!("Cache mode:       {}", self.cache),
        ];
        if self.detect_zeroes {
            lines.push("Detect zeroes:    on".into());
        }
        if let Some(backing) = self.backing.first() {
            let depth = self.backing.len();
            lines.push(format!("Backing file:     {} (chain depth: {depth})", printable(backing)));
        }
        lines
    }
}
