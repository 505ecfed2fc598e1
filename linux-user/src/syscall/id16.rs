//! User and group numbers of 16 bits, as the first calls of old guests have them: all ones means "leave it", and what
//! does not fit is shown as [`OVERFLOW`].

use super::args::Args;
use super::{Cx, EINVAL, SysResult};
use crate::abi::record::U16;
use crate::sys;

/// `/proc/sys/kernel/overflowuid`.
pub const OVERFLOW: u16 = 65534;

/// A number as the guest sees it.
pub fn shown(id: u32) -> u16 {
    u16::try_from(id).unwrap_or(OVERFLOW)
}
/// A number from the guest.
fn wide(id: u64) -> u32 {
    if id as u16 == u16::MAX { u32::MAX } else { id as u16 as u32 }
}

/// Calls that take numbers, and calls that return one.
macro_rules! calls {
    (take { $($name:ident $host:ident($($n:literal)*);)* } give { $($get:ident $host_get:ident;)* }) => {
        $(pub fn $name(_: &mut Cx<'_>, a: &Args) -> SysResult {
            sys!($host, $(wide(a[$n])),*)
        })*
        $(pub fn $get(_: &mut Cx<'_>, _: &Args) -> SysResult {
            sys!($host_get).map(|id| shown(id as u32) as u64)
        })*
    };
}
calls! {
    take {
    sys_setuid SYS_setuid(0);
    sys_setgid SYS_setgid(0);
    sys_setreuid SYS_setreuid(0 1);
    sys_setregid SYS_setregid(0 1);
    sys_setresuid SYS_setresuid(0 1 2);
    sys_setresgid SYS_setresgid(0 1 2);
    }
    give {
    sys_getuid SYS_getuid;
    sys_geteuid SYS_geteuid;
    sys_getgid SYS_getgid;
    sys_getegid SYS_getegid;
    }
}

pub fn sys_setfsuid(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_setfsuid, wide(a[0])).map(|id| shown(id as u32) as u64)
}
pub fn sys_setfsgid(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_setfsgid, wide(a[0])).map(|id| shown(id as u32) as u64)
}

pub fn sys_chown(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fchownat, libc::AT_FDCWD, cx.mem(a[0]), wide(a[1]), wide(a[2]), 0)
}
pub fn sys_lchown(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    sys!(SYS_fchownat, libc::AT_FDCWD, cx.mem(a[0]), wide(a[1]), wide(a[2]), flags)
}
pub fn sys_fchown(_: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fchown, a[0], wide(a[1]), wide(a[2]))
}

fn put_three(cx: &Cx<'_>, a: &Args, ids: [u32; 3]) -> SysResult {
    for (va, id) in a.iter().zip(ids) {
        cx.put::<U16>(*va, shown(id))?;
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
    let room = usize::try_from(a[0] as i32).map_err(|_| EINVAL)?;
    let mut groups = vec![0u32; room.min(65536)];
    let n = sys!(SYS_getgroups, groups.len(), &mut groups[..])?;
    if room != 0 {
        let ids: Vec<u16> = groups[..n as usize].iter().map(|&g| shown(g)).collect();
        cx.put_array::<U16>(a[1], &ids)?;
    }
    Ok(n)
}
pub fn sys_setgroups(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let count = usize::try_from(a[0] as i32).ok().filter(|&n| n <= 65536).ok_or(EINVAL)?;
    let ids = cx.get_array::<U16>(a[1], count)?;
    let groups: Vec<u32> = ids.into_iter().map(|id| wide(id as u64)).collect();
    sys!(SYS_setgroups, groups.len(), &groups[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_change_their_width() {
        assert_eq!((wide(0xffff), wide(0x1_0005), wide(7)), (u32::MAX, 5, 7));
        assert_eq!((shown(70_000), shown(9)), (OVERFLOW, 9));
    }
}
