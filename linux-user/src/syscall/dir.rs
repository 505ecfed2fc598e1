//! Names: directories, links, permissions, times.

use super::args::Args;
use super::time::Timespec;
use super::{Cx, EFAULT, SysResult};
use crate::abi::record::{DataModel, Field, U16, U64};
use crate::proc_files::ProcFile;
use crate::sys;
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

/// `getdents64`: the entries have one layout for all guests but for the byte order.
pub fn sys_getdents64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let m = cx.process.abi.model();
    if m.big_endian == DataModel::HOST.big_endian {
        return sys!(SYS_getdents64, a[0], cx.mem_out(a[1], a[2]), a[2]);
    }
    let mut buf = vec![0u8; (a[2] as usize).min(1 << 16)];
    let n = sys!(SYS_getdents64, a[0], &mut buf[..], buf.len())? as usize;
    let mut at = 0;
    while at + 19 <= n {
        let entry = &mut buf[at..];
        let len = U16::get(&entry[16..], DataModel::HOST);
        let (ino, off) = (U64::get(entry, DataModel::HOST), U64::get(&entry[8..], DataModel::HOST));
        U64::put(entry, ino, m);
        U64::put(&mut entry[8..], off, m);
        U16::put(&mut entry[16..], len, m);
        at += (len as usize).max(19);
    }
    cx.put_bytes(a[1], &buf[..n])?;
    Ok(n as u64)
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
