//! System V IPC and POSIX message queues.

use super::args::Args;
use super::time::timeout;
use super::{Cx, EINVAL, SysResult};
use crate::abi::record::{DataModel, Field, I16, I32, IpcTime, Long, U16, U32, ULong};
use crate::host::Zeroed;
use crate::{record, sleep, sys};
use tulk_base::GuestVa;
use tulk_softmmu::intervals::{EXEC, READ, WRITE};
use tulk_softmmu::{Errno, MapRequest};

record! {
    /// `struct ipc64_perm` of the generic interface.
    struct Perm {
        key: I32,
        uid: U32,
        gid: U32,
        cuid: U32,
        cgid: U32,
        mode: U32,
        seq: U16,
        _pad: U16,
        _unused: [ULong; 2],
    }
    struct ShmidDs {
        perm: Perm,
        segsz: ULong,
        atime: IpcTime,
        dtime: IpcTime,
        ctime: IpcTime,
        cpid: I32,
        lpid: I32,
        nattch: ULong,
        _unused: [ULong; 2],
    }
    struct MsqidDs {
        perm: Perm,
        stime: IpcTime,
        rtime: IpcTime,
        ctime: IpcTime,
        cbytes: ULong,
        qnum: ULong,
        qbytes: ULong,
        lspid: I32,
        lrpid: I32,
        _unused: [ULong; 2],
    }
    struct SemidDs { perm: Perm, otime: Long, ctime: Long, nsems: ULong, _unused: [ULong; 2] }
    /// With a word behind each time; on 32-bit guests that is its upper half.
    struct PaddedSemidDs {
        perm: Perm,
        otime: Long,
        _otime_high: ULong,
        ctime: Long,
        _ctime_high: ULong,
        nsems: ULong,
        _unused: [ULong; 2],
    }
    /// `struct shminfo64`, and `struct shm_info` behind its first number.
    struct ShmLimits { words: [ULong; 9] }
    struct ShmUse { used: I32, words: [ULong; 5] }
    struct Sembuf { num: U16, op: I16, flags: I16 }
    struct MqAttr { flags: Long, maxmsg: Long, msgsize: Long, curmsgs: Long, _unused: [Long; 4] }
}

fn perm_of_host(p: &libc::ipc_perm) -> Perm {
    Perm {
        key: p.__key,
        uid: p.uid,
        gid: p.gid,
        cuid: p.cuid,
        cgid: p.cgid,
        mode: p.mode as u32,
        seq: p.__seq,
        _pad: 0,
        _unused: [0; 2],
    }
}
/// What IPC_SET takes of the permissions.
fn perm_to_host(p: &Perm, host: &mut libc::ipc_perm) {
    (host.uid, host.gid) = (p.uid, p.gid);
    host.mode = p.mode as _;
}

/// Commands of the three `ctl` calls; the newer interface's flag is not part of the number.
const IPC_64: i32 = 0x100;
const IPC_RMID: i32 = 0;
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
/// `IPC_STAT`, and the forms that take an index.
const SHM_STATS: [i32; 3] = [IPC_STAT, 13, 15];
const SEM_STATS: [i32; 3] = [IPC_STAT, 18, 20];

pub fn sys_shmctl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let command = a[1] as i32 & !IPC_64;
    let mut host = libc::shmid_ds::zeroed();
    if SHM_STATS.contains(&command) {
        let result = sys!(SYS_shmctl, a[0], command, &mut host)?;
        let out = ShmidDs {
            perm: perm_of_host(&host.shm_perm),
            segsz: host.shm_segsz as u64,
            atime: host.shm_atime,
            dtime: host.shm_dtime,
            ctime: host.shm_ctime,
            cpid: host.shm_cpid,
            lpid: host.shm_lpid,
            nattch: host.shm_nattch,
            _unused: [0; 2],
        };
        cx.put::<ShmidDs>(a[2], out)?;
        return Ok(result);
    }
    match command {
        IPC_SET => {
            let set = cx.get::<ShmidDs>(a[2])?;
            perm_to_host(&set.perm, &mut host.shm_perm);
            sys!(SYS_shmctl, a[0], command, &mut host)
        }
        // IPC_INFO and SHM_INFO.
        3 => info::<ShmLimits>(cx, a, command),
        14 => info::<ShmUse>(cx, a, command),
        IPC_RMID | 11 | 12 => sys!(SYS_shmctl, a[0], command, 0),
        _ => Err(EINVAL),
    }
}

/// A `shmctl` that fills in a structure.
fn info<F: Field>(cx: &mut Cx<'_>, a: &Args, command: i32) -> SysResult {
    let mut host = [0u8; 128];
    let result = sys!(SYS_shmctl, a[0], command, &mut host)?;
    cx.put::<F>(a[2], F::get(&host, DataModel::HOST))?;
    Ok(result)
}

pub fn sys_msgctl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let command = a[1] as i32 & !IPC_64;
    let mut host = libc::msqid_ds::zeroed();
    match command {
        IPC_STAT | 11 | 13 => {
            let result = sys!(SYS_msgctl, a[0], command, &mut host)?;
            let out = MsqidDs {
                perm: perm_of_host(&host.msg_perm),
                stime: host.msg_stime,
                rtime: host.msg_rtime,
                ctime: host.msg_ctime,
                cbytes: host.__msg_cbytes,
                qnum: host.msg_qnum,
                qbytes: host.msg_qbytes,
                lspid: host.msg_lspid,
                lrpid: host.msg_lrpid,
                _unused: [0; 2],
            };
            cx.put::<MsqidDs>(a[2], out)?;
            Ok(result)
        }
        IPC_SET => {
            let set = cx.get::<MsqidDs>(a[2])?;
            perm_to_host(&set.perm, &mut host.msg_perm);
            host.msg_qbytes = set.qbytes;
            sys!(SYS_msgctl, a[0], command, &mut host)
        }
        // IPC_INFO and MSG_INFO fill in integers.
        3 | 12 => sys!(SYS_msgctl, a[0], command, cx.mem_out(a[2], 64)),
        IPC_RMID => sys!(SYS_msgctl, a[0], command, 0),
        _ => Err(EINVAL),
    }
}

pub fn sys_semctl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let command = a[2] as i32 & !IPC_64;
    let mut host = libc::semid_ds::zeroed();
    if SEM_STATS.contains(&command) {
        let result = sys!(SYS_semctl, a[0], a[1], command, &mut host)?;
        let perm = perm_of_host(&host.sem_perm);
        let (otime, ctime, nsems) = (host.sem_otime, host.sem_ctime, host.sem_nsems);
        let _unused = [0; 2];
        if cx.abi.padded_semid_ds() {
            let high = |time: i64| if cx.model.word == 4 { (time >> 32) as u64 } else { 0 };
            let (_otime_high, _ctime_high) = (high(otime), high(ctime));
            let out =
                PaddedSemidDs { perm, otime, _otime_high, ctime, _ctime_high, nsems, _unused };
            cx.put::<PaddedSemidDs>(a[3], out)?;
        } else {
            cx.put::<SemidDs>(a[3], SemidDs { perm, otime, ctime, nsems, _unused })?;
        }
        return Ok(result);
    }
    match command {
        IPC_SET => {
            // The permissions come first in every form.
            perm_to_host(&cx.get::<Perm>(a[3])?, &mut host.sem_perm);
            sys!(SYS_semctl, a[0], a[1], command, &mut host)
        }
        // GETALL, SETALL: 16-bit numbers, as many as the set has.
        13 | 17 => {
            sys!(SYS_semctl, a[0], 0, IPC_STAT, &mut host)?;
            let n = host.sem_nsems as usize;
            if command == 17 {
                let values = cx.get_array::<U16>(a[3], n)?;
                return sys!(SYS_semctl, a[0], a[1], command, &values[..]);
            }
            let mut values = vec![0u16; n];
            let result = sys!(SYS_semctl, a[0], a[1], command, &mut values[..])?;
            cx.put_array::<U16>(a[3], &values)?;
            Ok(result)
        }
        // IPC_INFO and SEM_INFO fill in integers.
        3 | 19 => sys!(SYS_semctl, a[0], a[1], command, cx.mem_out(a[3], 64)),
        // IPC_RMID, GETPID, GETVAL, GETNCNT, GETZCNT, SETVAL.
        IPC_RMID | 11 | 12 | 14 | 15 | 16 => sys!(SYS_semctl, a[0], a[1], command, a[3] as i32),
        _ => Err(EINVAL),
    }
}

pub fn sys_semop(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    semop(cx, a, None)
}
pub fn sys_semtimedop(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = timeout(cx, a[3])?;
    semop(cx, a, time)
}
fn semop(cx: &mut Cx<'_>, a: &Args, time: Option<libc::timespec>) -> SysResult {
    if a[2] > 4096 {
        return Err(Errno(libc::E2BIG));
    }
    let guest = cx.get_array::<Sembuf>(a[1], a[2] as usize)?;
    let host = |b: &Sembuf| libc::sembuf { sem_num: b.num, sem_op: b.op, sem_flg: b.flags };
    let mut ops: Vec<libc::sembuf> = guest.iter().map(host).collect();
    sleep!(cx, SYS_semtimedop, a[0], &mut ops[..], ops.len(), time.as_ref())
}

/// Messages are a `long` and bytes. Guests with the host's data model need no copy.
pub fn sys_msgsnd(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let m = cx.model;
    if m == DataModel::HOST {
        return sleep!(cx, SYS_msgsnd, a[0], cx.mem(a[1]), a[2], a[3]);
    }
    let kind = cx.get::<Long>(a[1])?;
    let mut buf = kind.to_ne_bytes().to_vec();
    buf.extend(cx.get_bytes(a[1].wrapping_add(m.word as u64), a[2] as usize)?);
    sleep!(cx, SYS_msgsnd, a[0], &buf[..], a[2], a[3])
}
pub fn sys_msgrcv(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let m = cx.model;
    if m == DataModel::HOST {
        let out = cx.mem_out(a[1], a[2].saturating_add(8));
        return sleep!(cx, SYS_msgrcv, a[0], out, a[2], a[3], a[4]);
    }
    if a[2] > 1 << 24 {
        return Err(EINVAL);
    }
    let mut buf = vec![0u8; a[2] as usize + 8];
    let n = sleep!(cx, SYS_msgrcv, a[0], &mut buf[..], a[2], a[3], a[4])?;
    let mut kind = [0; 8];
    kind.copy_from_slice(&buf[..8]);
    cx.put::<Long>(a[1], i64::from_ne_bytes(kind))?;
    cx.put_bytes(a[1].wrapping_add(m.word as u64), &buf[8..8 + n as usize])?;
    Ok(n)
}

pub fn sys_shmat(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let flags = a[2] as i32;
    let page = tulk_softmmu::user::PAGE;
    let mut at = cx.process.space.untag(GuestVa(a[1]));
    if !at.is_aligned(page) {
        if flags & libc::SHM_RND == 0 {
            return Err(EINVAL);
        }
        at = at.align_down(page);
    }
    let mut host = libc::shmid_ds::zeroed();
    sys!(SYS_shmctl, a[0], IPC_STAT, &mut host)?;
    let mut prot = READ;
    if flags & libc::SHM_RDONLY == 0 {
        prot |= WRITE;
    }
    if flags & libc::SHM_EXEC != 0 {
        prot |= EXEC;
    }
    let remap = flags & libc::SHM_REMAP != 0;
    if remap && at.0 == 0 {
        return Err(EINVAL);
    }
    let mut req = MapRequest::anonymous(host.shm_segsz as u64, prot);
    req.hint = at;
    req.flags = libc::MAP_SHARED;
    if at.0 != 0 {
        req.flags |= if remap { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
    }
    let host_flags = flags & libc::SHM_RDONLY | libc::SHM_REMAP;
    let va = cx
        .process
        .space
        .map_by(&req, |host| sys!(SYS_shmat, a[0], host, host_flags).map(drop).map_err(|e| e.0))
        .map_err(|e| if e.0 == libc::EEXIST { EINVAL } else { e })?;
    cx.process.shm.lock().insert(va.0, host.shm_segsz as u64);
    Ok(va.0)
}
pub fn sys_shmdt(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let at = cx.process.space.untag(GuestVa(a[0]));
    let len = cx.process.shm.lock().remove(&at.0).ok_or(EINVAL)?;
    // Unmapping the last page detaches.
    cx.process.space.unmap(at, len).map(|()| 0)
}

fn mq_attr(cx: &Cx<'_>, va: u64) -> Result<Option<libc::mq_attr>, Errno> {
    Ok(cx.get_opt::<MqAttr>(va)?.map(|a| {
        let mut host = libc::mq_attr::zeroed();
        host.mq_flags = cx.abi.open_flags_to_host(a.flags as u32) as i64;
        (host.mq_maxmsg, host.mq_msgsize) = (a.maxmsg, a.msgsize);
        host
    }))
}
pub fn sys_mq_open(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let attr = mq_attr(cx, a[3])?;
    let flags = cx.abi.open_flags_to_host(a[1] as u32);
    sys!(SYS_mq_open, cx.mem(a[0]), flags, a[2], attr.as_ref())
}
pub fn sys_mq_timedsend(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = timeout(cx, a[4])?;
    sleep!(cx, SYS_mq_timedsend, a[0], cx.mem(a[1]), a[2], a[3], time.as_ref())
}
pub fn sys_mq_timedreceive(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = timeout(cx, a[4])?;
    let mut priority = 0u32;
    let out = cx.mem_out(a[1], a[2]);
    let n = sleep!(cx, SYS_mq_timedreceive, a[0], out, a[2], &mut priority, time.as_ref())?;
    cx.put_opt::<U32>(a[3], priority)?;
    Ok(n)
}
pub fn sys_mq_getsetattr(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let new = mq_attr(cx, a[1])?;
    let mut old = libc::mq_attr::zeroed();
    sys!(SYS_mq_getsetattr, a[0], new.as_ref(), &mut old)?;
    let out = MqAttr {
        flags: cx.abi.open_flags_to_guest(old.mq_flags as i32) as i64,
        maxmsg: old.mq_maxmsg,
        msgsize: old.mq_msgsize,
        curmsgs: old.mq_curmsgs,
        _unused: [0; 4],
    };
    cx.put_opt::<MqAttr>(a[2], out)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let m = DataModel::I386;
        assert_eq!((Perm::size(m), ShmidDs::size(m)), (36, 84));
        assert_eq!((MsqidDs::size(m), PaddedSemidDs::size(m)), (88, 64));
        let m = DataModel::LP64;
        assert_eq!(PaddedSemidDs::size(m), size_of::<libc::semid_ds>());
        assert_eq!(Perm::size(m), 48);
        assert_eq!(ShmidDs::size(m), 112);
        assert_eq!(MsqidDs::size(m), 120);
        assert_eq!(SemidDs::size(m), 88);
        assert_eq!((Sembuf::size(m), MqAttr::size(m)), (6, 64));
    }
}
