//! Scheduling parameters and processor sets.

use super::args::Args;
use super::poll::{bitmap_in, bitmap_out};
use super::{Cx, EFAULT, EINVAL, SysResult};
use crate::abi::record::I32;
use crate::sys;

pub fn sys_sched_setparam(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let priority = cx.get::<I32>(a[1])?;
    sys!(SYS_sched_setparam, a[0], &priority)
}
pub fn sys_sched_getparam(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut priority = 0i32;
    sys!(SYS_sched_getparam, a[0], &mut priority)?;
    cx.put::<I32>(a[1], priority)?;
    Ok(0)
}
pub fn sys_sched_setscheduler(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let priority = cx.get::<I32>(a[2])?;
    sys!(SYS_sched_setscheduler, a[0], a[1], &priority)
}

/// Most bytes of a processor set.
const SET_MAX: u64 = 8192;

pub fn sys_sched_setaffinity(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    // The kernel takes odd lengths; whole words hold all that matters.
    let word = cx.model.word as u64;
    let len = a[1].min(SET_MAX);
    let set = match len.is_multiple_of(word) {
        true => bitmap_in(cx, a[2], len as usize * 8)?,
        false => {
            let mut set = vec![0u64; len.div_ceil(8) as usize];
            for (i, b) in cx.get_bytes(a[2], len as usize)?.into_iter().enumerate() {
                set[i / 8] |= (b as u64) << (i % 8 * 8);
            }
            set
        }
    };
    sys!(SYS_sched_setaffinity, a[0], set.len() * 8, &set[..])
}
pub fn sys_sched_getaffinity(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let word = cx.model.word as u64;
    if !a[1].is_multiple_of(word) {
        return Err(EINVAL);
    }
    let mut set = vec![0u64; (a[1].min(SET_MAX)).div_ceil(8) as usize];
    let n = sys!(SYS_sched_getaffinity, a[0], set.len() * 8, &mut set[..])?.min(a[1]);
    bitmap_out(cx, a[2], n as usize * 8, &set)?;
    Ok(n)
}

/// `struct sched_attr` has one layout for all little-endian guests; its first word is its size.
pub fn sys_sched_setattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[1] == 0 {
        return Err(EINVAL);
    }
    sys!(SYS_sched_setattr, a[0], cx.mem_out(a[1], 128), a[2])
}
pub fn sys_sched_getattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[1] == 0 {
        return Err(EFAULT);
    }
    sys!(SYS_sched_getattr, a[0], cx.mem_out(a[1], a[2]), a[2], a[3])
}
