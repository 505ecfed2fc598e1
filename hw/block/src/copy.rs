//! One disk onto another, without what reads as zeros; and two disks against each other.

use crate::{Disk, Extent, Image, SECTOR};
use std::io;

/// Bytes read at a time.
const CHUNK: usize = 2 << 20;

/// Whether all bytes are zero.
pub(crate) fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<64>();
    words.iter().all(|w| *w == [0; 64]) && rest.iter().all(|b| *b == 0)
}

/// How [`copy`] goes.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Zeros of at least this many bytes are not written: a multiple of [`SECTOR`]; 0 writes everything.
    pub sparse: usize,
    /// The destination reads as zeros already: nothing need be written there.
    pub fresh: bool,
}

/// Copies all of `from`, and writes zeros beyond its end.
///
/// `progress` is told the bytes that are done.
///
/// # Errors
/// What the host reports, and a destination that is too small.
pub fn copy(
    from: &Image,
    to: &dyn Disk,
    options: CopyOptions,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    if to.len() < from.len() {
        let text = format!("{} bytes do not fit in {}", from.len(), to.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let zero = |at, len| if options.fresh { Ok(()) } else { to.write_zeroes(at, len) };
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < from.len() {
        let (extent, len) = from.extent(at)?;
        // Holes end where the file system likes; the rest of such a sector is read.
        let len = len.min(from.len() - at);
        let whole = len / SECTOR * SECTOR;
        if extent != Extent::Data && options.sparse != 0 && whole != 0 {
            zero(at, whole)?;
            at += whole;
        } else {
            let n = len.next_multiple_of(SECTOR).min(CHUNK as u64).min(from.len() - at);
            let chunk = &mut buffer[..n as usize];
            from.read_at(at, chunk)?;
            write_sparse(to, at, chunk, options.sparse, &zero)?;
            at += n;
        }
        progress(at);
    }
    if to.len() > from.len() {
        zero(from.len(), to.len() - from.len())?;
    }
    Ok(())
}

/// Writes the runs of blocks that are not all zero.
fn write_sparse(
    to: &dyn Disk,
    at: u64,
    data: &[u8],
    sparse: usize,
    zero: &dyn Fn(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    if sparse == 0 {
        return to.write_at(at, data);
    }
    let mut start = 0;
    while start < data.len() {
        let mut blocks = data[start..].chunks(sparse);
        let empty = blocks.next().is_some_and(is_zero);
        let more: usize = blocks.take_while(|b| is_zero(b) == empty).map(<[u8]>::len).sum();
        let end = (start + sparse + more).min(data.len());
        let place = at + start as u64;
        match empty {
            true => zero(place, (end - start) as u64)?,
            false => to.write_at(place, &data[start..end])?,
        }
        start = end;
    }
    Ok(())
}

/// Result of [`compare`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Difference {
    None,
    /// First byte that differs.
    Content(u64),
    /// One disk is longer, with zeros there.
    Size,
    /// The place where only one image has data; looked at by strict comparisons.
    Allocation(u64),
}

/// Compares two disks; `strict` also their sizes and where they have data.
///
/// # Errors
/// What the host reports.
pub fn compare(
    a: &Image,
    b: &Image,
    strict: bool,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Difference> {
    if strict && a.len() != b.len() {
        return Ok(Difference::Size);
    }
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let end = a.len().max(b.len());
    let mut at = 0;
    while at < end {
        let mut skip = end - at;
        let mut kinds = [Extent::Hole; 2];
        for (disk, kind) in [a, b].into_iter().zip(&mut kinds) {
            if at < disk.len() {
                let (extent, len) = disk.extent(at)?;
                *kind = extent;
                skip = skip.min(len);
            }
        }
        let [left_data, right_data] = kinds.map(|kind| kind == Extent::Data);
        if strict && left_data != right_data {
            return Ok(Difference::Allocation(at));
        }
        let skip = skip / SECTOR * SECTOR;
        if !left_data && !right_data && skip != 0 {
            at += skip;
            progress(at);
            continue;
        }
        // No further than what was asked about, if that is a place to stop.
        let room = if skip == 0 { end - at } else { skip };
        let n = room.min(CHUNK as u64) as usize;
        for (disk, buffer) in [(a, &mut left), (b, &mut right)] {
            let inside = disk.len().saturating_sub(at).min(n as u64) as usize;
            disk.read_at(at.min(disk.len()), &mut buffer[..inside])?;
            buffer[inside..n].fill(0);
        }
        if left[..n] != right[..n] {
            let first = left[..n].iter().zip(&right[..n]).position(|(x, y)| x != y);
            return Ok(Difference::Content(at + first.unwrap_or(0) as u64));
        }
        at += n as u64;
        progress(at);
    }
    Ok(if a.len() == b.len() { Difference::None } else { Difference::Size })
}
