//! What files and file systems are.

use super::args::Args;
use super::{Cx, EINVAL, Errno, SysResult};
use crate::abi::StatForm;
use crate::abi::record::{DataModel, Field, I32, I64, Long, Pad, U16, U32, U64, ULong};
use crate::host::Zeroed;
use crate::{record, sys};
use std::ffi::CString;

record! {
    /// `struct statfs`.
    struct Statfs {
        kind: Long,
        bsize: Long,
        blocks: ULong,
        bfree: ULong,
        bavail: ULong,
        files: ULong,
        ffree: ULong,
        fsid: [I32; 2],
        namelen: Long,
        frsize: Long,
        flags: Long,
        spare: [ULong; 4],
    }

    /// `struct statfs64` of 32-bit guests.
    struct Statfs64 {
        kind: U32,
        bsize: U32,
        blocks: U64,
        bfree: U64,
        bavail: U64,
        files: U64,
        ffree: U64,
        fsid: [I32; 2],
        namelen: U32,
        frsize: U32,
        flags: U32,
        spare: [U32; 4],
    }

    struct StatxTime { sec: I64, nsec: U32, _pad: I32 }

    /// `struct statx`: one layout for all guests.
    struct Statx {
        mask: U32,
        blksize: U32,
        attributes: U64,
        nlink: U32,
        uid: U32,
        gid: U32,
        mode: U16,
        _pad0: U16,
        ino: U64,
        size: U64,
        blocks: U64,
        attributes_mask: U64,
        atime: StatxTime,
        btime: StatxTime,
        ctime: StatxTime,
        mtime: StatxTime,
        rdev_major: U32,
        rdev_minor: U32,
        dev_major: U32,
        dev_minor: U32,
        mnt_id: U64,
        dio_mem_align: U32,
        dio_offset_align: U32,
        _spare: Pad<96>,
    }
}

/// The path of a call that takes `AT_EMPTY_PATH`: then a null pointer is as good as an empty string.
fn at_path(cx: &Cx<'_>, dirfd: u64, va: u64, flags: u64) -> Result<CString, Errno> {
    let flags = flags as i32;
    if va == 0 && flags & libc::AT_EMPTY_PATH != 0 {
        return Ok(CString::default());
    }
    cx.path(dirfd as i32, va, flags & libc::AT_SYMLINK_NOFOLLOW == 0)
}

pub fn sys_newfstatat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    stat_at(cx, a, StatForm::Plain)
}
pub fn sys_fstatat64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    stat_at(cx, a, StatForm::Wide)
}
fn stat_at(cx: &mut Cx<'_>, a: &Args, form: StatForm) -> SysResult {
    let path = at_path(cx, a[0], a[1], a[3])?;
    let mut st = libc::stat::zeroed();
    sys!(SYS_newfstatat, a[0], path.as_c_str(), &mut st, a[3])?;
    cx.put_bytes(a[2], &cx.abi.stat_bytes(&st, form)?)?;
    Ok(0)
}

pub fn sys_fstat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut st = libc::stat::zeroed();
    sys!(SYS_fstat, a[0], &mut st)?;
    cx.put_bytes(a[1], &cx.abi.stat_bytes(&st, StatForm::Plain)?)?;
    Ok(0)
}

pub fn sys_statx(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = at_path(cx, a[0], a[1], a[2])?;
    let mut st = libc::statx::zeroed();
    sys!(SYS_statx, a[0], path.as_c_str(), a[2], a[3], &mut st)?;
    let time = |t: libc::statx_timestamp| StatxTime { sec: t.tv_sec, nsec: t.tv_nsec, _pad: 0 };
    let out = Statx {
        mask: st.stx_mask,
        blksize: st.stx_blksize,
        attributes: st.stx_attributes,
        nlink: st.stx_nlink,
        uid: st.stx_uid,
        gid: st.stx_gid,
        mode: st.stx_mode,
        _pad0: 0,
        ino: st.stx_ino,
        size: st.stx_size,
        blocks: st.stx_blocks,
        attributes_mask: st.stx_attributes_mask,
        atime: time(st.stx_atime),
        btime: time(st.stx_btime),
        ctime: time(st.stx_ctime),
        mtime: time(st.stx_mtime),
        rdev_major: st.stx_rdev_major,
        rdev_minor: st.stx_rdev_minor,
        dev_major: st.stx_dev_major,
        dev_minor: st.stx_dev_minor,
        mnt_id: st.stx_mnt_id,
        dio_mem_align: st.stx_dio_mem_align,
        dio_offset_align: st.stx_dio_offset_align,
        _spare: (),
    };
    cx.put::<Statx>(a[4], out)?;
    Ok(0)
}

/// The host's structure, which is the generic one too.
type HostStatfs = [u8; 120];

fn put_statfs(cx: &Cx<'_>, va: u64, host: &HostStatfs) -> SysResult {
    let st = Statfs::get(host, DataModel::HOST);
    if cx.model.word == 4 {
        // "No number" is all ones, in any width.
        let large = |v: u64| v >> 32 != 0 && v != u64::MAX;
        if [st.blocks, st.bfree, st.bavail, st.files, st.ffree].into_iter().any(large) {
            return Err(Errno(libc::EOVERFLOW));
        }
    }
    cx.put::<Statfs>(va, st)?;
    Ok(0)
}
/// `size` is the guest's idea of the structure's.
fn put_statfs64(cx: &Cx<'_>, va: u64, size: u64, host: &HostStatfs) -> SysResult {
    if size as usize != Statfs64::size(cx.model) {
        return Err(EINVAL);
    }
    let st = Statfs::get(host, DataModel::HOST);
    let out = Statfs64 {
        kind: st.kind as u32,
        bsize: st.bsize as u32,
        blocks: st.blocks,
        bfree: st.bfree,
        bavail: st.bavail,
        files: st.files,
        ffree: st.ffree,
        fsid: st.fsid,
        namelen: st.namelen as u32,
        frsize: st.frsize as u32,
        flags: st.flags as u32,
        spare: [0; 4],
    };
    cx.put::<Statfs64>(va, out)?;
    Ok(0)
}
pub fn sys_statfs64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.path(libc::AT_FDCWD, a[0], true)?;
    let mut st: HostStatfs = [0; 120];
    sys!(SYS_statfs, path.as_c_str(), &mut st)?;
    put_statfs64(cx, a[2], a[1], &st)
}
pub fn sys_fstatfs64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut st: HostStatfs = [0; 120];
    sys!(SYS_fstatfs, a[0], &mut st)?;
    put_statfs64(cx, a[2], a[1], &st)
}

pub fn sys_statfs(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.path(libc::AT_FDCWD, a[0], true)?;
    let mut st: HostStatfs = [0; 120];
    sys!(SYS_statfs, path.as_c_str(), &mut st)?;
    put_statfs(cx, a[1], &st)
}

pub fn sys_fstatfs(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut st: HostStatfs = [0; 120];
    sys!(SYS_fstatfs, a[0], &mut st)?;
    put_statfs(cx, a[1], &st)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        assert_eq!(Statfs::size(DataModel::LP64), 120);
        assert_eq!(Statfs::size(DataModel::I386), 64);
        assert_eq!(Statfs64::size(DataModel::I386), 84);
        assert_eq!(Statx::size(DataModel::I386), 256);
        assert_eq!(Statx::size(DataModel::LP64), 256);
        assert_eq!(StatxTime::size(DataModel::LP64), 16);
    }
}
