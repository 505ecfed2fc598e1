//! Waiting for children: they are the host's own processes, so its answers are right.

use super::args::Args;
use super::{Cx, SysResult};
use crate::abi::record::{Field, I32, Long};
use crate::host::Zeroed;
use crate::host::signal::SIGINFO_BYTES;
use crate::sleep;

/// `struct rusage`: two times of two words, then fourteen words.
type Rusage = [Long; 18];

fn rusage(r: &libc::rusage) -> <Rusage as Field>::Host {
    [
        r.ru_utime.tv_sec,
        r.ru_utime.tv_usec,
        r.ru_stime.tv_sec,
        r.ru_stime.tv_usec,
        r.ru_maxrss,
        r.ru_ixrss,
        r.ru_idrss,
        r.ru_isrss,
        r.ru_minflt,
        r.ru_majflt,
        r.ru_nswap,
        r.ru_inblock,
        r.ru_oublock,
        r.ru_msgsnd,
        r.ru_msgrcv,
        r.ru_nsignals,
        r.ru_nvcsw,
        r.ru_nivcsw,
    ]
}

pub fn sys_wait4(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (mut status, mut usage) = (0i32, libc::rusage::zeroed());
    let pid = sleep!(cx, SYS_wait4, a[0], &mut status, a[2], &mut usage)?;
    if pid != 0 {
        cx.put_opt::<I32>(a[1], status)?;
        cx.put_opt::<Rusage>(a[3], rusage(&usage))?;
    }
    Ok(pid)
}

pub fn sys_waitid(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (mut info, mut usage) = ([0u8; SIGINFO_BYTES], libc::rusage::zeroed());
    let result = sleep!(cx, SYS_waitid, a[0], a[1], &mut info, a[3], &mut usage)?;
    if a[2] != 0 {
        cx.put_siginfo(a[2], &info)?;
    }
    cx.put_opt::<Rusage>(a[4], rusage(&usage))?;
    Ok(result)
}
