//! Opening files: through the sysroot, and `/proc` files that must show the guest.

use super::args::Args;
use super::{Cx, EFAULT, EINVAL, Errno, SysResult};
use crate::abi::record::U64;
use crate::host::OpenHow;
use crate::proc_files::ProcFile;
use crate::{record, sleep, sys};
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;

record! {
    /// `struct open_how`.
    pub struct GuestOpenHow { flags: U64, mode: U64, resolve: U64 }
}

/// A descriptor from which `content` can be read.
fn content_fd(content: &[u8], flags: i32) -> SysResult {
    let cloexec = if flags & libc::O_CLOEXEC != 0 { libc::MFD_CLOEXEC } else { 0 };
    let fd = sys!(SYS_memfd_create, c"tulk-proc", cloexec)?;
    let mut at = 0;
    while at < content.len() {
        match sys!(SYS_pwrite64, fd, &content[at..], content.len() - at, at) {
            Ok(n) => at += n as usize,
            Err(e) => {
                let _ = sys!(SYS_close, fd);
                return Err(e);
            }
        }
    }
    Ok(fd)
}

fn open(cx: &mut Cx<'_>, dirfd: i32, path: CString, how: &OpenHow, plain: bool) -> SysResult {
    let flags = how.flags as i32;
    let creates = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
    let reads = flags & libc::O_ACCMODE == libc::O_RDONLY && !creates;
    let mut path = path;
    if reads && how.resolve == 0 {
        let follow = flags & libc::O_NOFOLLOW == 0;
        match ProcFile::named(dirfd, &path) {
            Some(ProcFile::Exe) if follow => {
                let exe = cx.process.exe_host_path();
                path = CString::new(exe.as_os_str().as_bytes()).map_err(|_| EINVAL)?;
            }
            Some(file) if file != ProcFile::Exe && flags & libc::O_PATH == 0 => {
                if flags & libc::O_DIRECTORY != 0 {
                    return Err(Errno(libc::ENOTDIR));
                }
                return content_fd(&file.content(cx.process), flags);
            }
            _ => {}
        }
        if let Some(other) = cx.process.paths.lookup(cx.process, dirfd, &path, follow) {
            path = other;
        }
    }
    let path: &CStr = &path;
    if plain {
        return sleep!(cx, SYS_openat, dirfd, path, flags, how.mode);
    }
    sleep!(cx, SYS_openat2, dirfd, path, how, size_of::<OpenHow>())
}

pub fn sys_openat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.string(a[1])?;
    let flags = cx.abi.open_flags_to_host(a[2] as u32);
    let how = OpenHow { flags: flags as u32 as u64, mode: a[3] & 0o7777, resolve: 0 };
    open(cx, a[0] as i32, path, &how, true)
}

pub fn sys_openat2(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[3] < 24 {
        return Err(EINVAL);
    }
    if a[3] > 4096 {
        return Err(Errno(libc::E2BIG));
    }
    // A longer structure is from a newer interface: fine as long as nothing new is asked for.
    if cx.get_bytes(a[2].wrapping_add(24), a[3] as usize - 24)?.iter().any(|&b| b != 0) {
        return Err(Errno(libc::E2BIG));
    }
    let how = cx.get::<GuestOpenHow>(a[2])?;
    let high = how.flags >> 32;
    if high != 0 {
        return Err(EINVAL);
    }
    let flags = cx.abi.open_flags_to_host(how.flags as u32) as u32 as u64;
    let path = cx.string(a[1])?;
    let how = OpenHow { flags, mode: how.mode, resolve: how.resolve };
    open(cx, a[0] as i32, path, &how, false)
}

pub fn sys_open_by_handle_at(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[1] == 0 {
        return Err(EFAULT);
    }
    let flags = cx.abi.open_flags_to_host(a[2] as u32);
    sys!(SYS_open_by_handle_at, a[0], cx.mem(a[1]), flags)
}
