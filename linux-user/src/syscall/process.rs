//! The end of threads and processes, and what a thread registers with the kernel.

use super::args::Args;
use super::{Cx, Flow, SysResult};
use crate::host::signal::set_mask;

pub fn sys_exit(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    // A signal for the process that this thread has taken would be lost with it.
    set_mask(!0);
    cx.pending_first()?;
    cx.flow = Flow::ExitThread(a[0] as i32);
    Ok(0)
}
pub fn sys_exit_group(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    cx.flow = Flow::ExitGroup(a[0] as i32);
    Ok(0)
}
