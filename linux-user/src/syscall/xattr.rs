//! Extended attributes: names and values are bytes, so the kernel works on guest memory directly.

use super::args::Args;
use super::{Cx, SysResult};
use crate::sys;

pub fn sys_setxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_setxattr, cx.mem(a[0]), cx.mem(a[1]), cx.mem(a[2]), a[3], a[4])
}
pub fn sys_lsetxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_lsetxattr, cx.mem(a[0]), cx.mem(a[1]), cx.mem(a[2]), a[3], a[4])
}
pub fn sys_fsetxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fsetxattr, a[0], cx.mem(a[1]), cx.mem(a[2]), a[3], a[4])
}
pub fn sys_getxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.path(libc::AT_FDCWD, a[0], true)?;
    sys!(SYS_getxattr, path.as_c_str(), cx.mem(a[1]), cx.mem_out(a[2], a[3]), a[3])
}
pub fn sys_lgetxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.path(libc::AT_FDCWD, a[0], false)?;
    sys!(SYS_lgetxattr, path.as_c_str(), cx.mem(a[1]), cx.mem_out(a[2], a[3]), a[3])
}
pub fn sys_fgetxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fgetxattr, a[0], cx.mem(a[1]), cx.mem_out(a[2], a[3]), a[3])
}
pub fn sys_listxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.path(libc::AT_FDCWD, a[0], true)?;
    sys!(SYS_listxattr, path.as_c_str(), cx.mem_out(a[1], a[2]), a[2])
}
pub fn sys_llistxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let path = cx.path(libc::AT_FDCWD, a[0], false)?;
    sys!(SYS_llistxattr, path.as_c_str(), cx.mem_out(a[1], a[2]), a[2])
}
pub fn sys_flistxattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_flistxattr, a[0], cx.mem_out(a[1], a[2]), a[2])
}
pub fn sys_removexattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_removexattr, cx.mem(a[0]), cx.mem(a[1]))
}
pub fn sys_lremovexattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_lremovexattr, cx.mem(a[0]), cx.mem(a[1]))
}
pub fn sys_fremovexattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_fremovexattr, a[0], cx.mem(a[1]))
}
