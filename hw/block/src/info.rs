//! What an image says of itself, without opening what it stands on.

use crate::file::ImageFile;
use crate::qcow2::{Header, Snapshot};
use crate::{Cache, Error, Format, Locking, SECTOR, backing_path};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One image of a chain.
#[derive(Clone, Debug)]
pub struct Info {
    pub path: PathBuf,
    pub format: Format,
    /// Bytes of the guest's disk.
    pub virtual_size: u64,
    /// Bytes that the file takes on the host.
    pub disk_size: u64,
    /// Of qcow2 images.
    pub header: Option<Header>,
    pub snapshots: Vec<Snapshot>,
}

impl Info {
    /// The backing file's path, as far as the header names one.
    ///
    /// # Errors
    /// As [`backing_path`].
    pub fn backing(&self) -> Result<Option<PathBuf>, Error> {
        let name = self.header.as_ref().and_then(|h| h.backing.as_deref());
        name.map(|name| backing_path(&self.path, name)).transpose()
    }
}

/// Reads an image's header. Features that we lack are no error here.
///
/// # Errors
/// Missing files, files in use by a writer (unless `locking` is off), headers that cannot be right.
pub fn info(path: &Path, format: Option<Format>, locking: Locking) -> Result<Info, Error> {
    let file = ImageFile::open(path, false, Cache::Writeback, locking)?;
    let format = format.map_or_else(|| crate::open::probe_file(&file), Ok)?;
    let metadata = file.file.metadata().map_err(Error::host("read", path))?;
    let mut info = Info {
        path: path.into(),
        format,
        virtual_size: file.len.next_multiple_of(SECTOR),
        disk_size: metadata.blocks() * 512,
        header: None,
        snapshots: Vec::new(),
    };
    if format == Format::Qcow2 {
        let header = Header::read(&file)?;
        let snapshots = header.read_snapshots(&file.file);
        info.snapshots = snapshots.map_err(|e| Error::bad(path, e.to_string()))?.0;
        info.virtual_size = header.size;
        info.header = Some(header);
    }
    Ok(info)
}
