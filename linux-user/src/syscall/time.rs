//! Clocks, timers and sleeping.

use super::args::Args;
use super::{Cx, SysResult};
use crate::abi::record::{DataModel, Field, I32, Long, Nsec, Pad, Ptr, Time, U32};
use crate::host::{self, Zeroed};
use crate::{record, sleep, sys};

record! {
    /// `struct timespec`.
    pub struct Timespec { sec: Time, nsec: Nsec }
    /// `struct timeval`.
    pub struct Timeval { sec: Long, usec: Long }
    pub struct Itimerspec { interval: Timespec, value: Timespec }
    pub struct Itimerval { interval: Timeval, value: Timeval }
    struct Timezone { minuteswest: I32, dsttime: I32 }
    struct Tms { utime: Long, stime: Long, cutime: Long, cstime: Long }
    /// `struct sigevent`.
    struct Sigevent { value: Ptr, signo: I32, notify: I32, tid: I32, _pad: Pad<44> }
    /// `struct timex`; wide in the calls with wide times.
    struct Timex {
        modes: U32,
        offset: Long,
        freq: Long,
        maxerror: Long,
        esterror: Long,
        status: I32,
        constant: Long,
        precision: Long,
        tolerance: Long,
        time: Timeval,
        tick: Long,
        ppsfreq: Long,
        jitter: Long,
        shift: I32,
        stabil: Long,
        jitcnt: Long,
        calcnt: Long,
        errcnt: Long,
        stbcnt: Long,
        tai: I32,
        _unused: [I32; 11],
    }
}

/// The host's `struct sigevent`, with its value as a number.
#[repr(C)]
struct HostSigevent {
    value: u64,
    signo: i32,
    notify: i32,
    tid: i32,
    _pad: [i32; 11],
}

impl Timespec {
    pub fn to_host(self) -> libc::timespec {
        libc::timespec { tv_sec: self.sec, tv_nsec: self.nsec }
    }
    pub fn of_host(t: libc::timespec) -> Timespec {
        Timespec { sec: t.tv_sec, nsec: t.tv_nsec }
    }
}
impl Timeval {
    pub fn to_host(self) -> libc::timeval {
        libc::timeval { tv_sec: self.sec, tv_usec: self.usec }
    }
    pub fn of_host(t: libc::timeval) -> Timeval {
        Timeval { sec: t.tv_sec, usec: t.tv_usec }
    }
}
impl Itimerspec {
    fn to_host(self) -> libc::itimerspec {
        let (it_interval, it_value) = (self.interval.to_host(), self.value.to_host());
        libc::itimerspec { it_interval, it_value }
    }
    fn of_host(t: libc::itimerspec) -> Itimerspec {
        Itimerspec {
            interval: Timespec::of_host(t.it_interval),
            value: Timespec::of_host(t.it_value),
        }
    }
}

/// A timeout argument, which may be absent.
pub fn timeout(cx: &Cx<'_>, va: u64) -> Result<Option<libc::timespec>, super::Errno> {
    Ok(cx.get_opt::<Timespec>(va)?.map(Timespec::to_host))
}

pub fn sys_clock_gettime(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let now = host::clock_gettime(a[0] as i32)?;
    cx.put::<Timespec>(a[1], Timespec::of_host(now))?;
    Ok(0)
}
pub fn sys_clock_settime(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = cx.get::<Timespec>(a[1])?.to_host();
    sys!(SYS_clock_settime, a[0], &time)
}
pub fn sys_clock_getres(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut time = libc::timespec::zeroed();
    sys!(SYS_clock_getres, a[0], &mut time)?;
    cx.put_opt::<Timespec>(a[1], Timespec::of_host(time))?;
    Ok(0)
}
pub fn sys_gettimeofday(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    if a[0] != 0 {
        let now = host::clock_gettime(libc::CLOCK_REALTIME)?;
        cx.put::<Timeval>(a[0], Timeval { sec: now.tv_sec, usec: now.tv_nsec / 1000 })?;
    }
    if a[1] != 0 {
        let (mut tv, mut tz) = (libc::timeval::zeroed(), [0i32; 2]);
        sys!(SYS_gettimeofday, &mut tv, &mut tz)?;
        cx.put::<Timezone>(a[1], Timezone { minuteswest: tz[0], dsttime: tz[1] })?;
    }
    Ok(0)
}
pub fn sys_settimeofday(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let tv = cx.get_opt::<Timeval>(a[0])?.map(Timeval::to_host);
    let tz = cx.get_opt::<Timezone>(a[1])?.map(|t| [t.minuteswest, t.dsttime]);
    sys!(SYS_settimeofday, tv.as_ref(), tz.as_ref())
}
pub fn sys_adjtimex(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    adjust(cx, a[0], |host| sys!(SYS_adjtimex, host))
}
pub fn sys_clock_adjtime(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    adjust(cx, a[1], |host| sys!(SYS_clock_adjtime, a[0], host))
}
/// The host's structure is the 64-bit one.
fn adjust(
    cx: &mut Cx<'_>,
    va: u64,
    call: impl FnOnce(&mut [u8; size_of::<libc::timex>()]) -> SysResult,
) -> SysResult {
    let m = match cx.model.time {
        8 => DataModel { word: 8, align64: 8, ..cx.model },
        _ => cx.model,
    };
    let mut host = [0; size_of::<libc::timex>()];
    Timex::put(&mut host, cx.get_as::<Timex>(va, m)?, DataModel::HOST);
    let result = call(&mut host)?;
    cx.put_as::<Timex>(va, Timex::get(&host, DataModel::HOST), m)?;
    Ok(result)
}

pub fn sys_nanosleep(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = cx.get::<Timespec>(a[0])?.to_host();
    doze(cx, libc::CLOCK_MONOTONIC, 0, time, a[1])
}
pub fn sys_clock_nanosleep(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let time = cx.get::<Timespec>(a[2])?.to_host();
    doze(cx, a[0] as i32, a[1] as i32, time, a[3])
}

/// Sleeps; when interrupted, what remains goes to the guest at `rest`, as EINTR demands it.
fn doze(cx: &mut Cx<'_>, clock: i32, flags: i32, time: libc::timespec, rest: u64) -> SysResult {
    let mut remaining = time;
    let result = sleep!(cx, SYS_clock_nanosleep, clock, flags, &time, &mut remaining);
    if result == Err(super::EINTR) && flags & libc::TIMER_ABSTIME == 0 && rest != 0 {
        cx.put::<Timespec>(rest, Timespec::of_host(remaining))?;
    }
    result
}

pub fn sys_timerfd_create(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    sys!(SYS_timerfd_create, a[0], cx.abi.open_flags_to_host(a[1] as u32))
}

/// `timerfd_settime` and `timer_settime` differ in the call only.
macro_rules! timer_calls {
    ($set:ident $get:ident $host_set:ident $host_get:ident) => {
        pub fn $set(cx: &mut Cx<'_>, a: &Args) -> SysResult {
            let new = cx.get::<Itimerspec>(a[2])?.to_host();
            let mut old = libc::itimerspec::zeroed();
            sys!($host_set, a[0], a[1], &new, &mut old)?;
            cx.put_opt::<Itimerspec>(a[3], Itimerspec::of_host(old))?;
            Ok(0)
        }
        pub fn $get(cx: &mut Cx<'_>, a: &Args) -> SysResult {
            let mut now = libc::itimerspec::zeroed();
            sys!($host_get, a[0], &mut now)?;
            cx.put::<Itimerspec>(a[1], Itimerspec::of_host(now))?;
            Ok(0)
        }
    };
}
timer_calls!(sys_timerfd_settime sys_timerfd_gettime SYS_timerfd_settime SYS_timerfd_gettime);
timer_calls!(sys_timer_settime sys_timer_gettime SYS_timer_settime SYS_timer_gettime);

/// The guest's `sigevent` for the host; signal numbers are the same.
fn sigevent(cx: &Cx<'_>, va: u64) -> Result<Option<HostSigevent>, super::Errno> {
    let event = cx.get_opt::<Sigevent>(va)?;
    Ok(event.map(|e| HostSigevent {
        value: e.value,
        signo: e.signo,
        notify: e.notify,
        tid: e.tid,
        _pad: [0; 11],
    }))
}
pub fn sys_timer_create(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let event = sigevent(cx, a[1])?;
    let mut id = 0i32;
    sys!(SYS_timer_create, a[0], event.as_ref(), &mut id)?;
    if let Err(e) = cx.put::<I32>(a[2], id) {
        let _ = sys!(SYS_timer_delete, id);
        return Err(e);
    }
    Ok(0)
}
pub fn sys_mq_notify(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut event = sigevent(cx, a[1])?;
    // With SIGEV_THREAD the value points to the bytes that are sent.
    if let Some(event) = event.as_mut().filter(|e| e.notify == libc::SIGEV_THREAD) {
        event.value = cx.mem(event.value).0 as u64;
    }
    sys!(SYS_mq_notify, a[0], event.as_ref())
}

pub fn sys_getitimer(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut now = libc::itimerval::zeroed();
    sys!(SYS_getitimer, a[0], &mut now)?;
    put_itimerval(cx, a[1], now)?;
    Ok(0)
}
pub fn sys_setitimer(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let new = cx.get_opt::<Itimerval>(a[1])?.map(|t| libc::itimerval {
        it_interval: t.interval.to_host(),
        it_value: t.value.to_host(),
    });
    let mut old = libc::itimerval::zeroed();
    sys!(SYS_setitimer, a[0], new.as_ref(), &mut old)?;
    if a[2] != 0 {
        put_itimerval(cx, a[2], old)?;
    }
    Ok(0)
}
fn put_itimerval(cx: &Cx<'_>, va: u64, t: libc::itimerval) -> Result<(), super::Errno> {
    let (interval, value) = (Timeval::of_host(t.it_interval), Timeval::of_host(t.it_value));
    cx.put::<Itimerval>(va, Itimerval { interval, value })
}

pub fn sys_sched_rr_get_interval(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut time = libc::timespec::zeroed();
    sys!(SYS_sched_rr_get_interval, a[0], &mut time)?;
    cx.put::<Timespec>(a[1], Timespec::of_host(time))?;
    Ok(0)
}

pub fn sys_times(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut t = libc::tms::zeroed();
    let ticks = sys!(SYS_times, &mut t)?;
    let (utime, stime) = (t.tms_utime, t.tms_stime);
    let (cutime, cstime) = (t.tms_cutime, t.tms_cstime);
    cx.put_opt::<Tms>(a[0], Tms { utime, stime, cutime, cstime })?;
    Ok(ticks)
}
