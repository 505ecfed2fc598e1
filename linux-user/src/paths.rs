//! Paths of the guest: the sysroot, and which names in `/proc` describe the guest rather than tulk.
//!
//! Only look-ups go through the sysroot (open for reading, stat, access, readlink, execve); what creates or changes
//! names is left to the host's tree. A path is resolved inside the sysroot by the kernel (`RESOLVE_IN_ROOT`), so
//! absolute symbolic links of the sysroot stay inside it.

use crate::host;
use crate::proc_files::ProcFile;
use crate::process::Process;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tulk_softmmu::Errno;

/// Trees that always are the host's: what the kernel makes, and where programs keep their own files (which they
/// write to the host's tree and must find again).
const HOST_TREES: [&str; 8] =
    ["/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/run", "/home", "/root"];

/// See the module.
pub struct Paths {
    sysroot: Option<(PathBuf, i32)>,
}

impl Paths {
    /// `sysroot` that cannot be opened is an error.
    pub fn new(sysroot: Option<&Path>) -> Result<Paths, Errno> {
        let Some(root) = sysroot.filter(|r| !r.as_os_str().is_empty() && *r != Path::new("/"))
        else {
            return Ok(Paths { sysroot: None });
        };
        let path = CString::new(root.as_os_str().as_bytes()).map_err(|_| Errno(libc::EINVAL))?;
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let fd = crate::sys!(SYS_openat, libc::AT_FDCWD, path.as_c_str(), flags, 0)? as i32;
        Ok(Paths { sysroot: Some((root.into(), host::out_of_the_way(fd))) })
    }

    pub fn sysroot(&self) -> Option<&Path> {
        self.sysroot.as_ref().map(|(path, _)| path.as_path())
    }
    /// The descriptor that the guest must not touch.
    pub fn own_fd(&self) -> Option<i32> {
        self.sysroot.as_ref().map(|(_, fd)| *fd)
    }

    /// The path inside the sysroot, if it exists there.
    fn in_sysroot(&self, path: &CStr, follow: bool) -> Option<CString> {
        let (_, root) = self.sysroot.as_ref()?;
        let bytes = path.to_bytes();
        if !bytes.starts_with(b"/") {
            return None;
        }
        let text = OsStr::from_bytes(bytes);
        if HOST_TREES.iter().any(|t| Path::new(text).starts_with(t)) {
            return None;
        }
        let last = if follow { 0 } else { libc::O_NOFOLLOW };
        let how = host::OpenHow {
            flags: (libc::O_PATH | libc::O_CLOEXEC | last) as u64,
            mode: 0,
            resolve: libc::RESOLVE_IN_ROOT,
        };
        let fd =
            crate::sys!(SYS_openat2, *root, path, &how, size_of::<host::OpenHow>()).ok()? as i32;
        let real = fd_path(fd);
        let _ = crate::sys!(SYS_close, fd);
        real
    }

    /// Where the file that the guest calls `path` is on the host.
    pub fn host_path(&self, path: &Path) -> PathBuf {
        CString::new(path.as_os_str().as_bytes())
            .ok()
            .and_then(|p| self.in_sysroot(&p, true))
            .map_or_else(|| path.into(), |p| PathBuf::from(OsStr::from_bytes(p.to_bytes())))
    }

    /// A path to use instead of `path` for a look-up, if another one applies.
    pub fn lookup(
        &self,
        process: &Process,
        dirfd: i32,
        path: &CStr,
        follow: bool,
    ) -> Option<CString> {
        if follow && ProcFile::named(dirfd, path) == Some(ProcFile::Exe) {
            let exe = process.exe_host_path();
            return CString::new(exe.as_os_str().as_bytes()).ok();
        }
        self.in_sysroot(path, follow)
    }
}

/// What a descriptor's link in `/proc` says.
pub fn fd_path(fd: i32) -> Option<CString> {
    let link = CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    read_link(libc::AT_FDCWD, &link)
}

/// The target of a symbolic link.
pub fn read_link(dirfd: i32, path: &CStr) -> Option<CString> {
    let mut buf = [0u8; libc::PATH_MAX as usize];
    let n = crate::sys!(SYS_readlinkat, dirfd, path, &mut buf, buf.len()).ok()? as usize;
    CString::new(&buf[..n.min(buf.len())]).ok()
}

/// `path` made absolute by the directory that `dirfd` names; not normalised.
pub fn absolute(dirfd: i32, path: &CStr) -> Option<Vec<u8>> {
    let bytes = path.to_bytes();
    if bytes.starts_with(b"/") {
        return Some(bytes.to_vec());
    }
    let dir = if dirfd == libc::AT_FDCWD {
        read_link(libc::AT_FDCWD, c"/proc/self/cwd")?
    } else {
        fd_path(dirfd)?
    };
    let mut all = dir.into_bytes();
    all.push(b'/');
    all.extend_from_slice(bytes);
    Some(all)
}
