//! Flag numbers of the kernel's generic interface, which most guests share.

use super::Bits;

/// Table rows: the host's number has the name of the guest's, or is given.
macro_rules! bits {
    (@host $name:ident) => { libc::$name as u32 };
    (@host $name:ident $host:expr) => { $host };
    ($($name:ident $guest:literal $(=> $host:expr)?;)*) => {
        &[$(Bits {
            name: stringify!($name),
            guest: $guest,
            host: bits!(@host $name $($host)?),
        }),*]
    };
}
pub(crate) use bits;

/// What the host's kernel calls `O_LARGEFILE` (libc has 0, because it is implied); `fcntl` shows it.
pub const HOST_O_LARGEFILE: u32 = match () {
    _ if cfg!(target_arch = "x86_64") => 0o100000,
    _ if cfg!(target_arch = "aarch64") => 0o400000,
    _ if cfg!(any(target_arch = "powerpc64", target_arch = "arm")) => 0o200000,
    _ if cfg!(target_arch = "sparc64") => 0x40000,
    _ => 0o100000,
};

/// `open` flags beyond the access mode.
pub const OPEN_FLAGS: &[Bits] = bits! {
    O_LARGEFILE 0o100000 => HOST_O_LARGEFILE;
    O_CREAT 0o100;
    O_EXCL 0o200;
    O_NOCTTY 0o400;
    O_TRUNC 0o1000;
    O_APPEND 0o2000;
    O_NONBLOCK 0o4000;
    O_SYNC 0o4010000;
    O_DSYNC 0o10000;
    O_ASYNC 0o20000;
    O_DIRECT 0o40000;
    O_DIRECTORY 0o200000;
    O_NOFOLLOW 0o400000;
    O_NOATIME 0o1000000;
    O_CLOEXEC 0o2000000;
    O_PATH 0o10000000;
    O_TMPFILE 0o20200000;
};

/// `mmap` flags.
pub const MAP_FLAGS: &[Bits] = bits! {
    MAP_SHARED 1;
    MAP_PRIVATE 2;
    MAP_SHARED_VALIDATE 3;
    MAP_FIXED 0x10;
    MAP_ANONYMOUS 0x20;
    MAP_GROWSDOWN 0x100;
    MAP_DENYWRITE 0x800;
    MAP_EXECUTABLE 0x1000;
    MAP_LOCKED 0x2000;
    MAP_NORESERVE 0x4000;
    MAP_POPULATE 0x8000;
    MAP_NONBLOCK 0x10000;
    MAP_STACK 0x20000;
    MAP_HUGETLB 0x40000;
    MAP_SYNC 0x80000;
    MAP_FIXED_NOREPLACE 0x100000;
};
