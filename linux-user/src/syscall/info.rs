//! What a process learns of the system and of itself.

use super::args::Args;
use super::time::Timeval;
use super::{Cx, EFAULT, EINVAL, Errno, SysResult};
use crate::abi::record::{Long, U8, U16, U32, U64, ULong};
use crate::host::Zeroed;
use crate::{record, sys};

record! {
    /// `struct new_utsname`.
    struct Utsname {
        sysname: [U8; 65],
        nodename: [U8; 65],
        release: [U8; 65],
        version: [U8; 65],
        machine: [U8; 65],
        domainname: [U8; 65],
    }
    struct Sysinfo {
        uptime: Long,
        loads: [ULong; 3],
        totalram: ULong,
        freeram: ULong,
        sharedram: ULong,
        bufferram: ULong,
        totalswap: ULong,
        freeswap: ULong,
        procs: U16,
        _pad: U16,
        totalhigh: ULong,
        freehigh: ULong,
        mem_unit: U32,
    }
    pub struct Rusage { utime: Timeval, stime: Timeval, rest: [Long; 14] }
    struct Rlimit { cur: ULong, max: ULong }
    pub struct Rlimit64 { cur: U64, max: U64 }
}

/// The personality of `linux32`.
const PER_LINUX32: u32 = 8;

fn text<const N: usize>(s: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let n = s.len().min(N - 1);
    out[..n].copy_from_slice(&s[..n]);
    out
}
fn host_text(field: &[libc::c_char]) -> Vec<u8> {
    field.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect()
}

/// The names of `uname`, in order.
pub fn names(cx: &Cx<'_>) -> Result<[[u8; 65]; 6], Errno> {
    let mut host = libc::utsname::zeroed();
    sys!(SYS_uname, &mut host)?;
    let release = match &cx.process.options.uname_release {
        Some(r) => r.as_bytes().to_vec(),
        None => host_text(&host.release),
    };
    let persona = sys!(SYS_personality, u32::MAX).unwrap_or(0) as u32;
    let machine = match persona & 0xff == PER_LINUX32 {
        true => cx.process.abi.uname_machine32(),
        false => cx.process.abi.uname_machine(),
    };
    Ok([
        text(&host_text(&host.sysname)),
        text(&host_text(&host.nodename)),
        text(&release),
        text(&host_text(&host.version)),
        text(machine.as_bytes()),
        text(&host_text(&host.domainname)),
    ])
}

pub fn sys_uname(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let [sysname, nodename, release, version, machine, domainname] = names(cx)?;
    let out = Utsname { sysname, nodename, release, version, machine, domainname };
    cx.put::<Utsname>(a[0], out)?;
    Ok(0)
}

pub fn sys_sysinfo(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut host = libc::sysinfo::zeroed();
    sys!(SYS_sysinfo, &mut host)?;
    // A 32-bit guest counts in larger units.
    let most = host.totalram.max(host.totalswap);
    let mut shift = 0;
    if cx.model.word == 4 {
        while most >> shift > u32::MAX as u64 && shift < 16 {
            shift += 1;
        }
    }
    let out = Sysinfo {
        uptime: host.uptime,
        loads: host.loads,
        totalram: host.totalram >> shift,
        freeram: host.freeram >> shift,
        sharedram: host.sharedram >> shift,
        bufferram: host.bufferram >> shift,
        totalswap: host.totalswap >> shift,
        freeswap: host.freeswap >> shift,
        procs: host.procs,
        _pad: 0,
        totalhigh: host.totalhigh >> shift,
        freehigh: host.freehigh >> shift,
        mem_unit: host.mem_unit << shift,
    };
    cx.put::<Sysinfo>(a[0], out)?;
    Ok(0)
}

/// The guest's `rusage` of a host one; for the wait family too.
pub fn rusage_of_host(r: &libc::rusage) -> Rusage {
    Rusage {
        utime: Timeval::of_host(r.ru_utime),
        stime: Timeval::of_host(r.ru_stime),
        rest: [
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
        ],
    }
}
pub fn sys_getrusage(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut host = libc::rusage::zeroed();
    sys!(SYS_getrusage, a[0], &mut host)?;
    cx.put::<Rusage>(a[1], rusage_of_host(&host))?;
    Ok(0)
}

/// Limits on memory would bind tulk itself: these are remembered for the guest and not given to the host. A small
/// stack limit likewise.
fn is_kept(resource: i32, new: &[u64; 2]) -> bool {
    match resource {
        2 | 9 => true, // RLIMIT_DATA, RLIMIT_AS
        3 => new[0] < 1 << 20,
        _ => false,
    }
}

/// Reads and sets a limit; values are those of the 64-bit interface.
fn limit(cx: &Cx<'_>, pid: i32, resource: i32, new: Option<[u64; 2]>) -> Result<[u64; 2], Errno> {
    let own = pid == 0 || pid as u32 == std::process::id();
    let mut old = [0u64; 2];
    let mut kept = cx.process.limits.lock();
    match new {
        Some(new) if own && is_kept(resource, &new) => {
            sys!(SYS_prlimit64, pid, resource, 0, &mut old)?;
            if new[0] > new[1] {
                return Err(EINVAL);
            }
            let old = kept.get(&resource).copied().unwrap_or(old);
            if new[1] > old[1] && sys!(SYS_geteuid)? != 0 {
                return Err(super::EPERM);
            }
            kept.insert(resource, new);
            Ok(old)
        }
        _ => {
            sys!(SYS_prlimit64, pid, resource, new.as_ref(), &mut old)?;
            let shown = kept.get(&resource).copied().filter(|_| own);
            if own && new.is_some() {
                kept.remove(&resource);
            }
            Ok(shown.unwrap_or(old))
        }
    }
}

pub fn sys_prlimit64(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let new = cx.get_opt::<Rlimit64>(a[2])?.map(|l| [l.cur, l.max]);
    let [cur, max] = limit(cx, a[0] as i32, a[1] as i32, new)?;
    cx.put_opt::<Rlimit64>(a[3], Rlimit64 { cur, max })?;
    Ok(0)
}
pub fn sys_getrlimit(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    // "No limit", and what does not fit, is all ones in the guest's own word.
    let most = if cx.model.word == 4 { u32::MAX as u64 } else { u64::MAX };
    put_limit(cx, a, most)
}
/// The first form knew only positive numbers.
pub fn sys_old_getrlimit(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    put_limit(cx, a, i32::MAX as u64)
}
fn put_limit(cx: &Cx<'_>, a: &Args, most: u64) -> SysResult {
    let [cur, max] = limit(cx, 0, a[0] as i32, None)?.map(|v| v.min(most));
    cx.put::<Rlimit>(a[1], Rlimit { cur, max })?;
    Ok(0)
}
pub fn sys_setrlimit(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let new = cx.get::<Rlimit>(a[1])?;
    let narrow = cx.model.word == 4;
    let wide = |v: u64| if narrow && v == u32::MAX as u64 { u64::MAX } else { v };
    limit(cx, 0, a[0] as i32, Some([wide(new.cur), wide(new.max)]))?;
    Ok(0)
}

pub fn sys_getrandom(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if cx.process.options.seed.is_some() {
        let mut bytes = vec![0; (a[1] as usize).min(1 << 20)];
        cx.process.random.lock().fill(&mut bytes);
        cx.put_bytes(a[0], &bytes)?;
        return Ok(bytes.len() as u64);
    }
    crate::sleep!(cx, SYS_getrandom, cx.mem_out(a[0], a[1]), a[1], a[2])
}

pub fn sys_getcpu(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (mut cpu, mut node) = (0u32, 0u32);
    sys!(SYS_getcpu, &mut cpu, &mut node, 0)?;
    cx.put_opt::<U32>(a[0], cpu)?;
    cx.put_opt::<U32>(a[1], node)?;
    Ok(0)
}

fn put_three(cx: &Cx<'_>, a: &Args, ids: [u32; 3]) -> SysResult {
    for (va, id) in a.iter().zip(ids) {
        cx.put::<U32>(*va, id)?;
    }
    Ok(0)
}
pub fn sys_getresuid(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (mut r, mut e, mut s) = (0u32, 0u32, 0u32);
    sys!(SYS_getresuid, &mut r, &mut e, &mut s)?;
    put_three(cx, a, [r, e, s])
}
pub fn sys_getresgid(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (mut r, mut e, mut s) = (0u32, 0u32, 0u32);
    sys!(SYS_getresgid, &mut r, &mut e, &mut s)?;
    put_three(cx, a, [r, e, s])
}
pub fn sys_getgroups(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let room = a[0] as i32;
    if room < 0 {
        return Err(EINVAL);
    }
    let mut groups = vec![0u32; (room as usize).min(65536)];
    let n = sys!(SYS_getgroups, groups.len(), &mut groups[..])?;
    if room != 0 {
        cx.put_array::<U32>(a[1], &groups[..n as usize])?;
    }
    Ok(n)
}
pub fn sys_setgroups(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[0] as i32 > 65536 || (a[0] as i32) < 0 {
        return Err(EINVAL);
    }
    let groups = cx.get_array::<U32>(a[1], a[0] as usize)?;
    sys!(SYS_setgroups, groups.len(), &groups[..])
}

pub fn sys_personality(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_personality, a[0] as u32)
}
pub fn sys_syslog(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let len = a[2] as i32;
    if a[1] == 0 && matches!(a[0] as i32, 2..=4) {
        return Err(if len < 0 { EINVAL } else { EFAULT });
    }
    crate::sleep!(cx, SYS_syslog, a[0], cx.mem_out(a[1], len.max(0) as u64), a[2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::record::{DataModel, Field};

    #[test]
    fn layouts() {
        let m = DataModel::LP64;
        assert_eq!(Utsname::size(m), 390);
        assert_eq!(Sysinfo::size(m), 112);
        assert_eq!(Rusage::size(m), 144);
    }
}
