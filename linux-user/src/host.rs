//! System calls of the host: the only `unsafe` of this crate.
//!
//! [`sys!`](crate::sys) makes one system call by name, without libc's wrappers, which change semantics (errno,
//! cancellation, emulated flags). Arguments are integers, guest memory ([`Mem`]) or Rust references.
//!
//! **Trust.** A reference argument lives across the call and must be of the type that the kernel writes or reads
//! for that call; that is the caller's duty, reviewed call by call, as with any foreign function. Guest memory is
//! not tulk's memory: what the guest asks the kernel to do with it is the guest's business (see `softmmu::raw`).

pub mod signal;
pub mod spawn;

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU32, Ordering};
use tulk_softmmu::Errno;

/// A signal came before the call was made, or while it slept and its handler has `SA_RESTART`: restart it. Never reaches
/// the guest. (What a handler ends, the host answers with EINTR.)
pub const ERESTARTSYS: Errno = Errno(512);
/// The call was not made because a signal must be seen before it: restart it in any case.
pub const ERESTARTNOINTR: Errno = Errno(513);
/// A signal came that a handler ends with EINTR.
pub const ERESTARTNOHAND: Errno = Errno(514);

/// A host address of guest memory (0 is the null pointer).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mem(pub usize);

impl Mem {
    pub const NULL: Mem = Mem(0);
}

/// Something that can be a system call's argument.
pub trait SysArg {
    fn word(self) -> u64;
}

macro_rules! integer_args {
    ($($ty:ty)*) => {$(
        impl SysArg for $ty {
            #[inline]
            fn word(self) -> u64 {
                self as i64 as u64
            }
        }
    )*};
}
integer_args!(i32 u32 i64 u64 usize isize u16 u8);

impl SysArg for Mem {
    #[inline]
    fn word(self) -> u64 {
        self.0 as u64
    }
}
impl<T> SysArg for &T {
    #[inline]
    fn word(self) -> u64 {
        self as *const T as u64
    }
}
impl<T> SysArg for &mut T {
    #[inline]
    fn word(self) -> u64 {
        self as *mut T as u64
    }
}
impl SysArg for &CStr {
    #[inline]
    fn word(self) -> u64 {
        self.as_ptr() as u64
    }
}
impl<T> SysArg for &[T] {
    #[inline]
    fn word(self) -> u64 {
        self.as_ptr() as u64
    }
}
impl<T> SysArg for &mut [T] {
    #[inline]
    fn word(self) -> u64 {
        self.as_mut_ptr() as u64
    }
}
impl<A: SysArg> SysArg for Option<A> {
    #[inline]
    fn word(self) -> u64 {
        self.map_or(0, A::word)
    }
}

/// A system call by name: `sys!(SYS_openat, dirfd, path, flags, mode)?`.
#[macro_export]
macro_rules! sys {
    ($name:ident $(, $arg:expr)* $(,)?) => {
        $crate::host::call(libc::$name, &[$($crate::host::SysArg::word($arg)),*])
    };
}

/// The same for a call that may sleep: `sleep!(cx, SYS_read, fd, mem, len)?`.
#[macro_export]
macro_rules! sleep {
    ($cx:expr, $name:ident $(, $arg:expr)* $(,)?) => {
        $crate::host::call_interruptible(
            libc::$name,
            &[$($crate::host::SysArg::word($arg)),*],
            &$cx.thread.interrupt,
        )
    };
}

/// Makes system call `nr`. See the module about references among the arguments.
#[inline]
pub fn call(nr: i64, args: &[u64]) -> Result<u64, Errno> {
    let a = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: see the module.
    let r = unsafe { libc::syscall(nr, a(0), a(1), a(2), a(3), a(4), a(5)) };
    // libc::syscall puts the error number into errno; addresses and counts are never negative otherwise.
    if r == -1 {
        let e = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(Errno(e));
    }
    Ok(r as u64)
}

/// Makes a system call that may sleep, unless `*interrupt` is not zero: then, when a signal arrives before the call, and
/// when the kernel wants it restarted, the result is [`ERESTARTSYS`]. The signal handler sets `*interrupt` and moves
/// the host pc as [`interrupted_call`] says; together that loses no signal between the test and the sleep.
#[inline]
pub fn call_interruptible(nr: i64, args: &[u64], interrupt: &AtomicU32) -> Result<u64, Errno> {
    let a = |i: usize| args.get(i).copied().unwrap_or(0);
    let words = [a(0), a(1), a(2), a(3), a(4), a(5)];
    let r = imp::syscall_unless(nr, &words, interrupt);
    if (-4095..0).contains(&r) {
        return Err(Errno(-r as i32));
    }
    Ok(r as u64)
}

/// Where a signal handler that found the thread at `host_pc` must continue, if that is in front of (or at) the
/// system call instruction of [`call_interruptible`].
pub fn interrupted_call(host_pc: usize) -> Option<usize> {
    imp::interrupted(host_pc)
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use super::*;
    use std::arch::global_asm;

    // rdi: number, rsi: six arguments, rdx: the interrupt word. From tulk_sys_begin up to tulk_sys_end the call has
    // not been made; there a signal handler moves the pc to tulk_sys_skip. The kernel itself backs the pc up to
    // the `syscall` instruction when it wants a call restarted.
    global_asm!(
        ".pushsection .text.tulk_sys, \"ax\", @progbits",
        ".globl tulk_sys_unless",
        ".hidden tulk_sys_unless",
        "tulk_sys_unless:",
        "mov rax, rdi",
        "mov r11, rsi",
        "mov rcx, rdx",
        "mov rdi, [r11]",
        "mov rsi, [r11 + 8]",
        "mov rdx, [r11 + 16]",
        "mov r10, [r11 + 24]",
        "mov r8, [r11 + 32]",
        "mov r9, [r11 + 40]",
        ".globl tulk_sys_begin",
        ".hidden tulk_sys_begin",
        "tulk_sys_begin:",
        "cmp dword ptr [rcx], 0",
        "jne tulk_sys_skip",
        "syscall",
        ".globl tulk_sys_end",
        ".hidden tulk_sys_end",
        "tulk_sys_end:",
        "ret",
        ".globl tulk_sys_skip",
        ".hidden tulk_sys_skip",
        "tulk_sys_skip:",
        "mov rax, -512",
        "ret",
        ".popsection",
    );

    unsafe extern "C" {
        fn tulk_sys_unless(nr: i64, args: *const u64, interrupt: *const AtomicU32) -> i64;
        static tulk_sys_begin: u8;
        static tulk_sys_end: u8;
        static tulk_sys_skip: u8;
    }

    #[inline]
    pub fn syscall_unless(nr: i64, args: &[u64; 6], interrupt: &AtomicU32) -> i64 {
        // SAFETY: the assembly above reads six words and the interrupt word; the call itself: see the module.
        unsafe { tulk_sys_unless(nr, args.as_ptr(), interrupt) }
    }

    pub fn interrupted(host_pc: usize) -> Option<usize> {
        let (begin, end) = (&raw const tulk_sys_begin as usize, &raw const tulk_sys_end as usize);
        (begin..end).contains(&host_pc).then_some(&raw const tulk_sys_skip as usize)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    //! Hosts without their own stub: a signal between the test and the call is noticed only after the call.
    use super::*;

    pub fn syscall_unless(nr: i64, args: &[u64; 6], interrupt: &AtomicU32) -> i64 {
        if interrupt.load(Ordering::SeqCst) != 0 {
            return -(ERESTARTSYS.0 as i64);
        }
        match call(nr, args) {
            Ok(v) => v as i64,
            Err(e) => -(e.0 as i64),
        }
    }

    pub fn interrupted(_host_pc: usize) -> Option<usize> {
        None
    }
}

/// True when a signal waits for this thread's guest code.
#[inline]
pub fn is_interrupted(interrupt: &AtomicU32) -> bool {
    interrupt.load(Ordering::SeqCst) != 0
}

/// A plain structure of the host's kernel interface with all bytes zero.
pub trait Zeroed: Copy {
    fn zeroed() -> Self;
}
macro_rules! zeroed {
    ($($ty:ty)*) => {$(
        impl Zeroed for $ty {
            fn zeroed() -> Self {
                // SAFETY: a C structure of integers (and raw pointers) for which all zeroes is a value.
                unsafe { std::mem::zeroed() }
            }
        }
    )*};
}
zeroed! {
    libc::stat libc::statx libc::timespec libc::timeval libc::itimerspec libc::itimerval
    libc::rusage libc::rlimit libc::sysinfo libc::utsname libc::tms libc::timex libc::epoll_event
    libc::flock libc::msghdr libc::iovec libc::shmid_ds libc::msqid_ds libc::semid_ds libc::mq_attr
    libc::mmsghdr libc::timezone
}

/// The time of a clock, without a system call where the host can (its vDSO).
pub fn clock_gettime(clock: i32) -> Result<libc::timespec, Errno> {
    let mut time = libc::timespec::zeroed();
    // SAFETY: writes to `time` only.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok(time),
        _ => Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))),
    }
}

/// `struct open_how` of openat2.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct OpenHow {
    pub flags: u64,
    pub mode: u64,
    pub resolve: u64,
}

/// Moves a descriptor of tulk's own to a high number, where a guest that counts on low ones being free does not
/// meet it. Returns the old one when there is no room.
pub fn out_of_the_way(fd: i32) -> i32 {
    let mut limit = libc::rlimit::zeroed();
    let soft = match crate::sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, Mem::NULL, &mut limit) {
        Ok(_) => limit.rlim_cur.min(1 << 20),
        Err(_) => 1024,
    };
    let lowest = soft.saturating_sub(32);
    match crate::sys!(SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, lowest) {
        Ok(high) => {
            let _ = crate::sys!(SYS_close, fd);
            high as i32
        }
        Err(_) => fd,
    }
}

/// The host's standard error, for logs: never through Rust's buffered handles, which a forked child would share.
pub fn write_log(fd: i32, text: &[u8]) {
    let mut rest = text;
    while !rest.is_empty() {
        match call(libc::SYS_write, &[fd as u64, rest.as_ptr() as u64, rest.len() as u64]) {
            Ok(n) if n > 0 => rest = &rest[n as usize..],
            Err(Errno(libc::EINTR)) => {}
            _ => return,
        }
    }
}

/// Two ends of a pipe, read then write, closed on exec.
pub fn pipe_cloexec() -> Result<(i32, i32), Errno> {
    let mut ends = [0i32; 2];
    call(libc::SYS_pipe2, &[SysArg::word(&mut ends), libc::O_CLOEXEC as u64])?;
    Ok((ends[0], ends[1]))
}

/// Starts a program in place of this one, unless `*interrupt` is not zero: the old program must see its signal first.
/// Returns only when that fails.
pub fn execve(
    path: &CStr,
    argv: &[CString],
    env: &[CString],
    interrupt: &AtomicU32,
) -> Result<u64, Errno> {
    let pointers = |strings: &[CString]| -> Vec<u64> {
        strings.iter().map(|s| s.as_ptr() as u64).chain([0]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    let words = [path.word(), (&argv[..]).word(), (&env[..]).word()];
    call_interruptible(libc::SYS_execve, &words, interrupt)
        .map_err(|e| if e == ERESTARTSYS { ERESTARTNOINTR } else { e })
}

/// Ends the process at once.
pub fn exit_group(code: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Ends the calling thread only.
pub fn exit_thread(code: i32) -> ! {
    loop {
        let _ = call(libc::SYS_exit, &[code as u64]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_values() {
        assert_eq!(call(libc::SYS_close, &[u64::MAX]), Err(Errno(libc::EBADF)));
        assert_eq!(call(libc::SYS_getpid, &[]), Ok(std::process::id() as u64));
    }

    #[test]
    fn an_interrupt_prevents_the_call() {
        let flag = AtomicU32::new(0);
        assert_eq!(call_interruptible(libc::SYS_getpid, &[], &flag), Ok(std::process::id() as u64));
        let r = call_interruptible(libc::SYS_close, &[u64::MAX], &flag);
        assert_eq!(r, Err(Errno(libc::EBADF)));
        flag.store(1, Ordering::SeqCst);
        assert_eq!(call_interruptible(libc::SYS_getpid, &[], &flag), Err(ERESTARTSYS));
        assert_eq!(interrupted_call(0), None);
    }
}
