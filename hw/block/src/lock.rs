//! Image files are locked in the way of QEMU, so that it and tulk keep each other out.
//!
//! The locks are open file description locks (fcntl(2), `F_OFD_SETLK`) for reading on single bytes of the image, one byte per
//! permission: byte 100 + n says "I use permission n", byte 200 + n says "nobody else may use permission n". Who wants a permission
//! asks whether anybody holds the other byte. Read locks never exclude each other, so several readers can say the same.
//! Nothing is written to the file and the locks vanish with the last descriptor; [`Lock`] does not wait for that, because a process that
//! is just being started has copies of all descriptors for a moment.

use crate::{Error, Locking};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const HELD: i64 = 100;
const DENIED: i64 = 200;

/// Permission numbers; 2 (writing what is there already) is never denied by us.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

fn byte(kind: libc::c_int, start: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    }
}

/// Whether another open file has a lock on this byte.
fn is_locked(file: &File, start: i64) -> Result<bool, Errno> {
    let mut lock = byte(libc::F_WRLCK, start);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// A claim on an image, given up when dropped.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // All bytes, also of copies of the descriptor.
        let all = libc::flock { l_len: 0, ..byte(libc::F_UNLCK, 0) };
        let _ = fcntl(&self.0, FcntlArg::F_OFD_SETLK(&all));
    }
}

/// Claims the image for reading, or for reading and writing; other readers are welcome to share it, writers are not.
///
/// # Errors
/// [`Error::InUse`]; with [`Locking::On`] also a file system without locks.
pub(crate) fn lock(
    file: &File,
    path: &Path,
    write: bool,
    locking: Locking,
) -> Result<Option<Lock>, Error> {
    if locking == Locking::Off {
        return Ok(None);
    }
    let lock = Lock(file.try_clone().map_err(Error::host("lock", path))?);
    match try_lock(file, write) {
        Ok(None) => Ok(Some(lock)),
        Ok(Some(claim)) => {
            let holder = holders(file).unwrap_or_else(|| "another process".into());
            Err(Error::InUse { path: path.into(), holder, claim: claim.into() })
        }
        Err(errno) if locking == Locking::On => {
            Err(Error::host("lock", path)(std::io::Error::from_raw_os_error(errno as i32)))
        }
        // A file system without locks: nobody else can have locked it either.
        Err(_) => Ok(None),
    }
}

fn try_lock(file: &File, write: bool) -> Result<Option<&'static str>, Errno> {
    let used: &[i64] = if write { &[CONSISTENT_READ, WRITE, RESIZE] } else { &[CONSISTENT_READ] };
    let denied = [WRITE, RESIZE];
    // First claim, then look: of two that come at the same time at least one sees the other.
    for at in used.iter().map(|p| HELD + p).chain(denied.iter().map(|p| DENIED + p)) {
        fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at)))?;
    }
    for permission in denied {
        if is_locked(file, HELD + permission)? {
            return Ok(Some("has it open for writing"));
        }
    }
    for permission in used {
        if is_locked(file, DENIED + permission)? {
            return Ok(Some("reads it and lets nobody write"));
        }
    }
    Ok(None)
}

/// Names and process ids of those who have the file open, as far as /proc shows them: the owner of such a lock is not recorded.
fn holders(file: &File) -> Option<String> {
    let image = file.metadata().ok()?;
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let same = descriptors
            .flatten()
            .filter_map(|fd| std::fs::metadata(fd.path()).ok())
            .filter(|m| (m.dev(), m.ino()) == (image.dev(), image.ino()))
            .count();
        // Two of ours are the descriptor that asks and its copy.
        if same > 2 * usize::from(pid == std::process::id()) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{} (process {pid})", crate::printable(name.trim())));
        }
    }
    (!found.is_empty()).then(|| found.join(", "))
}
