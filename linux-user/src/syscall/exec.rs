//! `execve`: the new program starts under a new tulk, so that nothing needs to be registered with the kernel.
//!
//! Programs of the host's own architecture (and whatever the host's kernel can run) are started directly.

use super::args::Args;
use super::{Cx, Errno, SysResult};
use crate::abi::GuestAbi;
use crate::abi::record::{Field, Ptr};
use crate::host::signal::{self, Handover};
use crate::program::{self, LaunchError};
use crate::{host, sys};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most arguments or variables that are read before the host's own limit on their bytes decides.
const MAX_STRINGS: usize = 1 << 20;

pub fn sys_execve(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.string(a[0])?;
    exec(cx, &path, a[1], a[2])
}

pub fn sys_execveat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.string(a[1])?;
    let (dirfd, flags) = (a[0] as i32, a[4] as i32);
    if flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(super::EINVAL);
    }
    let empty = path.as_bytes().is_empty();
    if empty && flags & libc::AT_EMPTY_PATH == 0 {
        return Err(Errno(libc::ENOENT));
    }
    if dirfd == libc::AT_FDCWD || path.as_bytes().starts_with(b"/") {
        return exec(cx, &path, a[2], a[3]);
    }
    let base = crate::paths::fd_path(dirfd).ok_or(super::EBADF)?;
    if empty {
        return exec(cx, &base, a[2], a[3]);
    }
    let joined = [base.as_bytes(), b"/", path.as_bytes()].concat();
    let joined = CString::new(joined).map_err(|_| super::EINVAL)?;
    exec(cx, &joined, a[2], a[3])
}

/// A NULL-terminated array of strings; a null pointer is an empty array, as Linux has it.
fn strings(cx: &Cx<'_>, va: u64) -> Result<Vec<CString>, Errno> {
    let mut out = Vec::new();
    if va == 0 {
        return Ok(out);
    }
    let step = Ptr::size(cx.model) as u64;
    for i in 0..MAX_STRINGS as u64 {
        let at = cx.get::<Ptr>(va.wrapping_add(i * step))?;
        if at == 0 {
            return Ok(out);
        }
        let bytes = cx.process.space.read_cstr(tulk_base::GuestVa(at), 128 << 10);
        let bytes = bytes.map_err(|_| super::EFAULT)?.ok_or(Errno(libc::E2BIG))?;
        out.push(CString::new(bytes).map_err(|_| super::EFAULT)?);
    }
    Err(Errno(libc::E2BIG))
}

fn exec(cx: &mut Cx<'_>, path: &CStr, argv: u64, envp: u64) -> SysResult {
    if path.is_empty() {
        return Err(Errno(libc::ENOENT));
    }
    let argv = strings(cx, argv)?;
    let env = strings(cx, envp)?;
    // A signal that came before this call belongs to the old program.
    cx.pending_first()?;
    let process = cx.process;
    let guest_path = exec_path(cx, path);
    let guest_path = Path::new(OsStr::from_bytes(guest_path.as_bytes()));
    let host_path = process.paths.host_path(guest_path);
    let host_path = CString::new(host_path.as_os_str().as_bytes()).map_err(|_| super::EINVAL)?;
    // The permission check is the kernel's.
    sys!(SYS_faccessat, libc::AT_FDCWD, host_path.as_c_str(), libc::X_OK)?;
    let abi = match program::open(&process.paths, guest_path, argv.clone()) {
        Ok(program) if is_hosts_own(process.abi, program.abi) => {
            let _back = leave_program(cx);
            crate::strace::replaced(process);
            return host::execve(&host_path, &argv, &env, &cx.thread.interrupt);
        }
        Ok(program) => program.abi,
        Err(LaunchError::Elf { reason, .. }) if reason.is_foreign() => {
            let _back = leave_program(cx);
            crate::strace::replaced(process);
            return host::execve(&host_path, &argv, &env, &cx.thread.interrupt);
        }
        Err(e) => return Err(e.errno()),
    };
    let to_c = |s: &OsStr| CString::new(s.as_bytes()).map_err(|_| super::EINVAL);
    let mut command = Vec::new();
    let mut words = process.options.reexec.iter();
    while let Some(word) = words.next() {
        // A processor of another kind is no processor for this program.
        if word == "--cpu" && abi.family() != process.abi.family() {
            words.next();
            continue;
        }
        command.push(to_c(word)?);
    }
    let mut rest = argv.into_iter();
    let argv0 = rest.next().unwrap_or_default();
    if let Some(words) = crate::debug::words_for_exec(process) {
        command.push(c"--gdb".into());
        command.push(CString::new(words).map_err(|_| super::EINVAL)?);
    }
    command.push(c"--argv0".into());
    command.push(argv0);
    command.push(c"--".into());
    command.push(to_c(guest_path.as_os_str())?);
    command.extend(rest);
    let _back = leave_program(cx);
    crate::strace::replaced(process);
    let own = host::execve(c"/proc/self/exe", &command, &env, &cx.thread.interrupt);
    // Without /proc (a bare chroot) the path that tulk was started by is the next best.
    match (&process.options.own_path, own) {
        (Some(path), Err(Errno(libc::ENOENT))) => {
            host::execve(&to_c(path.as_os_str())?, &command, &env, &cx.thread.interrupt)
        }
        (_, result) => result,
    }
}

/// Handlers do not survive `execve`, and tulk's own must not be found by the new program either: the kernel does that.
/// What else it must be told is undone should the call fail.
fn leave_program(cx: &Cx<'_>) -> Handover {
    let thread = &cx.thread;
    signal::hand_over(thread.signals.mask, thread.actions.ignored(), &thread.signals.mailbox)
}

/// A program of the host's machine that a guest of another kind starts: the host runs it best.
fn is_hosts_own(caller: &dyn GuestAbi, program: &dyn GuestAbi) -> bool {
    program.name() == std::env::consts::ARCH && caller.family() != program.family()
}

/// `/proc/self/exe` means the guest's program.
fn exec_path(cx: &Cx<'_>, path: &CStr) -> CString {
    let own = format!("/proc/{}/exe", std::process::id());
    if path == c"/proc/self/exe" || path.to_bytes() == own.as_bytes() {
        let exe = cx.process.exe();
        return CString::new(exe.as_os_str().as_bytes()).unwrap_or_default();
    }
    path.into()
}
