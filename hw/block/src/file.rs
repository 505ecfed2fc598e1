//! The file behind an image, opened and locked, before anybody knows its format.

use crate::lock::{self, Lock};
use crate::{Cache, Error, Locking};
use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Text from outside (file names, names in headers) as it can be shown on one line.
pub fn printable(text: impl AsRef<Path>) -> String {
    let text = text.as_ref().to_string_lossy();
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

pub(crate) struct ImageFile {
    pub file: File,
    pub path: PathBuf,
    /// Bytes, at the time of opening.
    pub len: u64,
    /// A block device, whose size is fixed.
    pub device: bool,
    pub direct: bool,
    pub lock: Option<Lock>,
}

impl ImageFile {
    /// Opens a file or block device and claims it.
    ///
    /// # Errors
    /// What is not a file, is missing, may not be opened, or is in use.
    pub fn open(
        path: &Path,
        write: bool,
        cache: Cache,
        locking: Locking,
    ) -> Result<ImageFile, Error> {
        // Asked first: to open a pipe would wait, to open some devices does something.
        let metadata = std::fs::metadata(path).map_err(Error::host("open", path))?;
        usable(path, &metadata)?;
        let direct = cache.direct();
        let mut options = File::options();
        options.read(true).write(write);
        if direct {
            options.custom_flags(nix::libc::O_DIRECT);
        }
        let file = options.open(path).map_err(|source| {
            if direct && source.kind() == io::ErrorKind::InvalidInput {
                let what = "lies on a file system without O_DIRECT; use cache=writeback";
                return Error::Unsupported { path: path.into(), what: what.into() };
            }
            Error::host("open", path)(source)
        })?;
        Self::from_file(file, path, write, direct, locking)
    }

    /// What was opened by the caller, claimed.
    ///
    /// # Errors
    /// As [`ImageFile::open`].
    pub fn from_file(
        file: File,
        path: &Path,
        write: bool,
        direct: bool,
        locking: Locking,
    ) -> Result<ImageFile, Error> {
        let metadata = file.metadata().map_err(Error::host("open", path))?;
        usable(path, &metadata)?;
        let device = metadata.file_type().is_block_device();
        let lock = lock::lock(&file, path, write, locking)?;
        let len = if device {
            (&file).seek(SeekFrom::End(0)).map_err(Error::host("find the size of", path))?
        } else {
            metadata.len()
        };
        Ok(ImageFile { file, path: path.into(), len, device, direct, lock })
    }

    /// The first bytes, zeros beyond the end of the file. Works on files that want aligned buffers.
    pub fn head(&self, len: usize) -> Result<Vec<u8>, Error> {
        if !self.direct {
            return read_padded(&self.file, 0, len).map_err(Error::host("read", &self.path));
        }
        // A second descriptor without O_DIRECT; locks belong to the first.
        let plain = File::open(&self.path).map_err(Error::host("read", &self.path))?;
        read_padded(&plain, 0, len).map_err(Error::host("read", &self.path))
    }
}

fn usable(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() || kind.is_block_device() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a character device",
    };
    Err(Error::NotAnImage { path: path.into(), what })
}

/// `len` bytes from `offset`, zeros beyond the end of the file.
pub(crate) fn read_padded(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    fill_padded(file, offset, &mut out)?;
    Ok(out)
}

pub(crate) fn fill_padded(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => {
                out[done..].fill(0);
                break;
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
