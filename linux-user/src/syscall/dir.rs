//! Names: directories, links, permissions, times.

use super::args::Args;
use super::time::Timespec;
use super::{Cx, EFAULT, Errno, SysResult};
use crate::abi::record::{DataModel, Field, I64, Long, U8, U16, U64, ULong};
use crate::host::Zeroed;
use crate::proc_files::ProcFile;
use crate::{record, sys};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

pub fn sys_getcwd(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_getcwd, cx.mem_out(a[0], a[1]), a[1])
}

pub fn sys_chdir(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    // The host's tree first: a program that changes to /var wants to write there.
    match sys!(SYS_chdir, cx.mem(a[0])) {
        Err(e) if e.0 == libc::ENOENT && cx.process.paths.sysroot().is_some() => {
            let path = cx.path(libc::AT_FDCWD, a[0], true)?;
            sys!(SYS_chdir, path.as_c_str())
        }
        result => result,
    }
}
pub fn sys_chroot(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_chroot, cx.mem(a[0]))
}

/// Positions in directories that a 32-bit guest cannot hold: file systems use hashes of 63 bits as such. It gets small
/// numbers for them, from [`DirPositions::FIRST`] on, and may seek to these.
#[derive(Default)]
pub struct DirPositions {
    /// By device and inode.
    dirs: HashMap<(u64, u64), Positions>,
}
#[derive(Default)]
struct Positions {
    real: Vec<i64>,
    known: HashMap<i64, u32>,
}

impl DirPositions {
    const FIRST: i64 = 1 << 30;

    fn shorten(&mut self, dir: (u64, u64), position: i64) -> i64 {
        if (0..Self::FIRST).contains(&position) {
            return position;
        }
        let all = self.dirs.entry(dir).or_default();
        let index = *all.known.entry(position).or_insert_with(|| {
            all.real.push(position);
            all.real.len() as u32 - 1
        });
        Self::FIRST + index as i64
    }
    fn real(&self, dir: (u64, u64), position: i64) -> Option<i64> {
        let index = usize::try_from(position.checked_sub(Self::FIRST)?).ok()?;
        self.dirs.get(&dir)?.real.get(index).copied()
    }
}

/// Device and inode of an open directory.
fn directory(fd: u64) -> Option<(u64, u64)> {
    let mut st = libc::stat::zeroed();
    sys!(SYS_fstat, fd, &mut st).ok()?;
    (st.st_mode & libc::S_IFMT == libc::S_IFDIR).then_some((st.st_dev, st.st_ino))
}

/// `lseek`; directories of 32-bit guests have positions of their own.
pub fn seek(cx: &Cx<'_>, fd: u64, offset: i64, whence: u64) -> SysResult {
    let narrow = cx.model.word == 4;
    let mut offset = offset;
    if narrow
        && offset >= DirPositions::FIRST
        && whence as i32 == libc::SEEK_SET
        && let Some(dir) = directory(fd)
        && let Some(real) = cx.process.dir_positions.lock().real(dir, offset)
    {
        offset = real;
    }
    let result = sys!(SYS_lseek, fd, offset, whence)?;
    if narrow
        && result as i64 >= DirPositions::FIRST
        && let Some(dir) = directory(fd)
    {
        return Ok(cx.process.dir_positions.lock().shorten(dir, result as i64) as u64);
    }
    Ok(result)
}

record! {
    /// What comes in front of the name in `struct linux_dirent64`.
    struct Dirent64 { ino: U64, off: I64, len: U16, kind: U8 }
}
const NAME64: usize = 19;
/// Where the name starts in `struct linux_dirent` (which has the type in its last byte) and in the answer of the first
/// `readdir`: behind two words and a length.
fn name_at(m: DataModel) -> usize {
    2 * m.word + 2
}

/// Calls `f` with each entry that the host's call wrote, and its name.
fn entries(buf: &[u8], mut f: impl FnMut(&Dirent64, &[u8])) {
    let mut rest = buf;
    while rest.len() >= 24 {
        let head = Dirent64::get(rest, DataModel::HOST);
        let len = (head.len as usize).clamp(24, rest.len());
        let name = &rest[NAME64..len];
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        f(&head, &name[..end]);
        rest = &rest[len..];
    }
}

/// `getdents64`: the entries have one layout for all guests but for the byte order, and positions.
pub fn sys_getdents64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let m = cx.model;
    if m == DataModel::HOST {
        return sys!(SYS_getdents64, a[0], cx.mem_out(a[1], a[2]), a[2]);
    }
    let mut buf = vec![0u8; (a[2] as usize).min(1 << 16)];
    let n = sys!(SYS_getdents64, a[0], &mut buf[..], buf.len())? as usize;
    let mut positions = cx.process.dir_positions.lock();
    let dir = if m.word == 4 { directory(a[0]) } else { None };
    let mut out = vec![0u8; n];
    let mut at = 0;
    entries(&buf[..n], |entry, name| {
        let off = dir.map_or(entry.off, |d| positions.shorten(d, entry.off));
        let to = &mut out[at..];
        U64::put(to, entry.ino, m);
        I64::put(&mut to[8..], off, m);
        U16::put(&mut to[16..], entry.len, m);
        to[18] = entry.kind;
        to[NAME64..NAME64 + name.len()].copy_from_slice(name);
        at += entry.len as usize;
    });
    drop(positions);
    cx.put_bytes(a[1], &out)?;
    Ok(n as u64)
}

/// `getdents`: words, and the type behind the name. No entry is larger than the host's.
pub fn sys_getdents(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let m = cx.model;
    let mut buf = vec![0u8; (a[2] as usize).min(1 << 16)];
    let n = sys!(SYS_getdents64, a[0], &mut buf[..], buf.len())? as usize;
    let mut positions = cx.process.dir_positions.lock();
    let dir = if m.word == 4 { directory(a[0]) } else { None };
    let mut out = vec![0u8; n];
    let mut at = 0;
    let mut too_large = false;
    entries(&buf[..n], |entry, name| {
        let len = (name_at(m) + name.len() + 2).next_multiple_of(m.word);
        let off = dir.map_or(entry.off, |d| positions.shorten(d, entry.off));
        too_large |= m.word == 4 && entry.ino >> 32 != 0;
        let to = &mut out[at..at + len];
        ULong::put(to, entry.ino, m);
        Long::put(&mut to[m.word..], off, m);
        U16::put(&mut to[2 * m.word..], len as u16, m);
        to[name_at(m)..name_at(m) + name.len()].copy_from_slice(name);
        to[len - 1] = entry.kind;
        at += len;
    });
    drop(positions);
    if too_large {
        return Err(Errno(libc::EOVERFLOW));
    }
    cx.put_bytes(a[1], &out[..at])?;
    Ok(at as u64)
}

/// The first `readdir`: one entry at a time, 1 as the result, 0 at the end.
pub fn sys_readdir(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let m = cx.model;
    let mut buf = [0u8; 320];
    let n = sys!(SYS_getdents64, a[0], &mut buf, buf.len())? as usize;
    let mut first = None;
    entries(&buf[..n], |entry, name| {
        first.get_or_insert_with(|| (*entry, name.to_vec()));
    });
    let Some((entry, name)) = first else { return Ok(0) };
    // What was read beyond the first entry is read again.
    sys!(SYS_lseek, a[0], entry.off, libc::SEEK_SET)?;
    if m.word == 4 && entry.ino >> 32 != 0 {
        return Err(Errno(libc::EOVERFLOW));
    }
    let off = match directory(a[0]) {
        Some(dir) if m.word == 4 => cx.process.dir_positions.lock().shorten(dir, entry.off),
        _ => entry.off,
    };
    let mut out = vec![0; name_at(m) + name.len() + 1];
    ULong::put(&mut out, entry.ino, m);
    Long::put(&mut out[m.word..], off, m);
    U16::put(&mut out[2 * m.word..], name.len() as u16, m);
    out[name_at(m)..name_at(m) + name.len()].copy_from_slice(&name);
    cx.put_bytes(a[1], &out)?;
    Ok(1)
}

pub fn sys_readlinkat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.string(a[1])?;
    if ProcFile::named(a[0] as i32, &path) == Some(ProcFile::Exe) {
        if a[3] as i32 <= 0 {
            return Err(super::EINVAL);
        }
        let exe = cx.process.exe();
        let bytes = exe.as_os_str().as_bytes();
        let n = bytes.len().min(a[3] as usize);
        cx.put_bytes(a[2], &bytes[..n])?;
        return Ok(n as u64);
    }
    let path = cx.process.paths.lookup(cx.process, a[0] as i32, &path, false).unwrap_or(path);
    sys!(SYS_readlinkat, a[0], path.as_c_str(), cx.mem_out(a[2], a[3]), a[3])
}

pub fn sys_faccessat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.path(a[0] as i32, a[1], true)?;
    sys!(SYS_faccessat, a[0], path.as_c_str(), a[2])
}
pub fn sys_faccessat2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let follow = a[3] as i32 & libc::AT_SYMLINK_NOFOLLOW == 0;
    let path = cx.path(a[0] as i32, a[1], follow)?;
    sys!(SYS_faccessat2, a[0], path.as_c_str(), a[2], a[3])
}

pub fn sys_mknodat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_mknodat, a[0], cx.mem(a[1]), a[2], a[3])
}
pub fn sys_mkdirat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_mkdirat, a[0], cx.mem(a[1]), a[2])
}
pub fn sys_unlinkat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_unlinkat, a[0], cx.mem(a[1]), a[2])
}
pub fn sys_symlinkat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_symlinkat, cx.mem(a[0]), a[1], cx.mem(a[2]))
}
pub fn sys_linkat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_linkat, a[0], cx.mem(a[1]), a[2], cx.mem(a[3]), a[4])
}
pub fn sys_renameat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_renameat2, a[0], cx.mem(a[1]), a[2], cx.mem(a[3]), 0)
}
pub fn sys_renameat2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_renameat2, a[0], cx.mem(a[1]), a[2], cx.mem(a[3]), a[4])
}
pub fn sys_fchmodat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fchmodat, a[0], cx.mem(a[1]), a[2])
}
pub fn sys_fchmodat2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fchmodat2, a[0], cx.mem(a[1]), a[2], a[3])
}
pub fn sys_fchownat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fchownat, a[0], cx.mem(a[1]), a[2], a[3], a[4])
}

pub fn sys_utimensat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    // A null path means the descriptor itself; the kernel tells a bad one from that.
    let times = cx.get_opt::<[Timespec; 2]>(a[2])?;
    let host = times.map(|t| t.map(Timespec::to_host));
    if a[1] != 0 && cx.mem(a[1]).0 == 0 {
        return Err(EFAULT);
    }
    sys!(SYS_utimensat, a[0], cx.mem(a[1]), host.as_ref(), a[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_short_and_found_again() {
        let mut p = DirPositions::default();
        let dir = (1, 2);
        let hashes = [5, 0x1234_5678_9abc, i64::MAX, 0x4000_0000];
        let short = hashes.map(|h| p.shorten(dir, h));
        assert_eq!(short[0], 5);
        assert!(short.iter().all(|&s| (0..1 << 31).contains(&s)));
        for (h, s) in hashes.into_iter().zip(short).skip(1) {
            assert_eq!(p.real(dir, s), Some(h));
            assert_eq!(p.shorten(dir, h), s);
        }
        assert_eq!(p.real((1, 3), short[1]), None);
    }
}
