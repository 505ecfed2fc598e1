//! The end of threads and processes, and what a thread registers with the kernel.

use super::args::Args;
use super::{Cx, Flow, SysResult};

pub fn sys_exit(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    cx.flow = Flow::ExitThread(a[0] as i32);
    Ok(0)
}
pub fn sys_exit_group(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    cx.flow = Flow::ExitGroup(a[0] as i32);
    Ok(0)
}
