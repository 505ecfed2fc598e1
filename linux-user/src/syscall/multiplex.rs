//! `socketcall` and `ipc`: one number for many calls, with their arguments in memory or moved along.

use super::args::Args;
use super::{Cx, EFAULT, EINVAL, ENOSYS, SysResult, ipc};
use crate::abi::record::{Long, ULong};

/// The sockets' calls by number: the row that serves it, and how many of its arguments are in memory.
const SOCKET_CALLS: [(&str, usize); 20] = [
    ("socket", 3),
    ("bind", 3),
    ("connect", 3),
    ("listen", 2),
    ("accept4", 3),
    ("getsockname", 3),
    ("getpeername", 3),
    ("socketpair", 4),
    ("sendto", 4),
    ("recvfrom", 4),
    ("sendto", 6),
    ("recvfrom", 6),
    ("shutdown", 2),
    ("setsockopt", 5),
    ("getsockopt", 5),
    ("sendmsg", 3),
    ("recvmsg", 3),
    ("accept4", 4),
    ("recvmmsg", 5),
    ("sendmmsg", 4),
];

pub fn sys_socketcall(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let index = (a[0] as usize).checked_sub(1).ok_or(EINVAL)?;
    let &(name, count) = SOCKET_CALLS.get(index).ok_or(EINVAL)?;
    let row = cx.abi.table().iter().find(|r| r.name == name).ok_or(ENOSYS)?;
    let mut raw = [0; 7];
    for (word, value) in raw.iter_mut().zip(cx.get_array::<ULong>(a[1], count)?) {
        *word = value;
    }
    let args = cx.gather(Some(row), &raw);
    cx.serve(row, &args)
}

/// `ipc(call, first, second, third, pointer, fifth)`. The version of the interface is in the call's upper half.
pub fn sys_ipc(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let (call, version) = (a[0] as u32 & 0xffff, a[0] as u32 >> 16);
    let [_, first, second, third, pointer, fifth, _] = *a;
    match call {
        1 => ipc::sys_semop(cx, &[first, pointer, second, 0, 0, 0, 0]),
        2 => crate::sys!(SYS_semget, first, second as i32, third),
        3 => {
            // The union comes by its address.
            let value = if pointer == 0 { return Err(EINVAL) } else { cx.get::<ULong>(pointer)? };
            ipc::sys_semctl(cx, &[first, second, third, value, 0, 0, 0])
        }
        4 => ipc::sys_semtimedop(cx, &[first, pointer, second, fifth, 0, 0, 0]),
        11 => ipc::sys_msgsnd(cx, &[first, pointer, second, third, 0, 0, 0]),
        12 => {
            let (pointer, kind) = match version {
                // Two of the arguments were in memory once.
                0 if pointer == 0 => return Err(EINVAL),
                0 => {
                    let [at, kind] = cx.get::<[ULong; 2]>(pointer)?;
                    (at, kind as i32 as i64)
                }
                _ => (pointer, fifth as i32 as i64),
            };
            ipc::sys_msgrcv(cx, &[first, pointer, second, kind as u64, third, 0, 0])
        }
        13 => crate::sys!(SYS_msgget, first, second),
        14 => ipc::sys_msgctl(cx, &[first, second, pointer, 0, 0, 0, 0]),
        21 => {
            if version == 1 {
                return Err(EINVAL);
            }
            let at = ipc::sys_shmat(cx, &[first, pointer, second, 0, 0, 0, 0])?;
            cx.put::<Long>(third, at as i64).map_err(|_| EFAULT)?;
            Ok(0)
        }
        22 => ipc::sys_shmdt(cx, &[pointer, 0, 0, 0, 0, 0, 0]),
        23 => crate::sys!(SYS_shmget, first, second, third),
        24 => ipc::sys_shmctl(cx, &[first, second, pointer, 0, 0, 0, 0]),
        _ => Err(ENOSYS),
    }
}
