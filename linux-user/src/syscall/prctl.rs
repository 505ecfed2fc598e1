//! `prctl`: one row per option, and seccomp, which is declined.

use super::args::Args;
use super::{Cx, EFAULT, EINVAL, SysResult};
use crate::abi::record::{I32, Ptr};
use crate::sys;

/// How an option is served.
#[derive(Clone, Copy)]
enum Kind {
    /// The host's, with integer arguments.
    Pass,
    /// The host's, writing an `int` through the first argument.
    GetInt,
    /// A name of 16 bytes goes in, or out.
    SetName,
    GetName,
    /// The processor or kernel does not have it.
    No,
    /// Answered with this number.
    Is(u64),
    /// The address given to set_tid_address.
    TidAddress,
    /// Tagged addresses: the guest's processor ignores tags, so allowing them changes nothing.
    SetTagged,
    GetTagged,
}

/// Options: number, name, who answers. Others are EINVAL, as for a kernel that does not know them.
const OPTIONS: &[(i32, &str, Kind)] = &[
    (1, "PR_SET_PDEATHSIG", Kind::Pass),
    (2, "PR_GET_PDEATHSIG", Kind::GetInt),
    (3, "PR_GET_DUMPABLE", Kind::Pass),
    (4, "PR_SET_DUMPABLE", Kind::Pass),
    (7, "PR_GET_KEEPCAPS", Kind::Pass),
    (8, "PR_SET_KEEPCAPS", Kind::Pass),
    (13, "PR_GET_TIMING", Kind::Pass),
    (14, "PR_SET_TIMING", Kind::Pass),
    (15, "PR_SET_NAME", Kind::SetName),
    (16, "PR_GET_NAME", Kind::GetName),
    // Filters would see tulk's own calls.
    (21, "PR_GET_SECCOMP", Kind::Is(0)),
    (22, "PR_SET_SECCOMP", Kind::No),
    (23, "PR_CAPBSET_READ", Kind::Pass),
    (24, "PR_CAPBSET_DROP", Kind::Pass),
    (27, "PR_GET_SECUREBITS", Kind::Pass),
    (28, "PR_SET_SECUREBITS", Kind::Pass),
    (29, "PR_SET_TIMERSLACK", Kind::Pass),
    (30, "PR_GET_TIMERSLACK", Kind::Pass),
    (33, "PR_MCE_KILL", Kind::Pass),
    (34, "PR_MCE_KILL_GET", Kind::Pass),
    // Would describe tulk's memory.
    (35, "PR_SET_MM", Kind::No),
    (36, "PR_SET_CHILD_SUBREAPER", Kind::Pass),
    (37, "PR_GET_CHILD_SUBREAPER", Kind::GetInt),
    (38, "PR_SET_NO_NEW_PRIVS", Kind::Pass),
    (39, "PR_GET_NO_NEW_PRIVS", Kind::Pass),
    (40, "PR_GET_TID_ADDRESS", Kind::TidAddress),
    (41, "PR_SET_THP_DISABLE", Kind::Pass),
    (42, "PR_GET_THP_DISABLE", Kind::Pass),
    (47, "PR_CAP_AMBIENT", Kind::Pass),
    (50, "PR_SVE_SET_VL", Kind::No),
    (51, "PR_SVE_GET_VL", Kind::No),
    (52, "PR_GET_SPECULATION_CTRL", Kind::No),
    (53, "PR_SET_SPECULATION_CTRL", Kind::No),
    (54, "PR_PAC_RESET_KEYS", Kind::No),
    (55, "PR_SET_TAGGED_ADDR_CTRL", Kind::SetTagged),
    (56, "PR_GET_TAGGED_ADDR_CTRL", Kind::GetTagged),
    (57, "PR_SET_IO_FLUSHER", Kind::Pass),
    (58, "PR_GET_IO_FLUSHER", Kind::Pass),
    (59, "PR_SET_SYSCALL_USER_DISPATCH", Kind::No),
    (0x5961_6d61, "PR_SET_PTRACER", Kind::Pass),
    (0x5356_4d41, "PR_SET_VMA", Kind::No),
];

/// The option's name, for --strace.
pub fn option_name(option: i32) -> Option<&'static str> {
    OPTIONS.iter().find(|o| o.0 == option).map(|o| o.1)
}

pub fn sys_prctl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let Some(&(option, _, kind)) = OPTIONS.iter().find(|o| o.0 == a[0] as i32) else {
        return Err(EINVAL);
    };
    match kind {
        Kind::Pass => sys!(SYS_prctl, option, a[1], a[2], a[3], a[4]),
        Kind::No => Err(EINVAL),
        Kind::Is(value) => Ok(value),
        Kind::GetInt => {
            let mut value = 0i32;
            sys!(SYS_prctl, option, &mut value, a[2], a[3], a[4])?;
            cx.put::<I32>(a[1], value)?;
            Ok(0)
        }
        Kind::SetName => {
            if a[1] == 0 {
                return Err(EFAULT);
            }
            sys!(SYS_prctl, option, cx.mem(a[1]), 0, 0, 0)
        }
        Kind::GetName => {
            let mut name = [0u8; 16];
            sys!(SYS_prctl, option, &mut name, 0, 0, 0)?;
            cx.put_bytes(a[1], &name)?;
            Ok(0)
        }
        Kind::TidAddress => {
            cx.put::<Ptr>(a[1], cx.thread.clear_child_tid)?;
            Ok(0)
        }
        Kind::SetTagged => {
            if a[1] & !1 != 0 || a[2] | a[3] | a[4] != 0 {
                return Err(EINVAL);
            }
            cx.thread.tagged_addresses = a[1] & 1 != 0;
            Ok(0)
        }
        Kind::GetTagged => Ok(cx.thread.tagged_addresses as u64),
    }
}

/// Filters would see tulk's own calls: declined as by a kernel without them.
pub fn sys_seccomp(_: &mut Cx<'_>, _: &Args) -> SysResult {
    Err(EINVAL)
}
