//! `ioctl`: one row per request. A request without a row is ENOTTY, reported once under `unimp`.
//!
//! Request numbers and structures here are those of the kernel's generic interface; `Arg` says what the argument points
//! to, so that code pages can be made writable first and byte orders changed where a guest needs that.

use super::args::Args;
use super::{Cx, EBADF, Errno, SysResult, time};
use crate::abi::record::{DataModel, Field, I32, Ptr, U8, U16, U32, ULong};
use crate::{record, sleep, sys};

/// The argument of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arg {
    /// A number, or nothing.
    Int,
    /// 32-bit numbers read by the kernel.
    In(u16),
    /// 32-bit numbers written by the kernel.
    Out(u16),
    /// Both.
    InOut(u16),
    /// Bytes that have no byte order of the machine, or whose layout is the host's: read, written, or both.
    Bytes(u16),
    /// `struct ifconf`: a pointer inside.
    Ifconf,
    /// `struct ifreq`: a name and a union, larger on 64-bit guests.
    Ifreq,
    /// `struct ifreq` with `struct ifmap`.
    Ifmap,
    /// A word written by the kernel.
    OutWord,
    /// `struct hd_geometry`.
    Geometry,
    /// `struct timeval`, `struct timespec`.
    Timeval,
    Timespec,
    /// A structure with pointers, which 32-bit guests do not get.
    Wide(u16),
}
use Arg::*;

const ROWS: &[(u32, &str, Arg)] = &[
    // Terminals
    (0x5401, "TCGETS", Bytes(36)),
    (0x5402, "TCSETS", Bytes(36)),
    (0x5403, "TCSETSW", Bytes(36)),
    (0x5404, "TCSETSF", Bytes(36)),
    (0x5405, "TCGETA", Bytes(18)),
    (0x5406, "TCSETA", Bytes(18)),
    (0x5407, "TCSETAW", Bytes(18)),
    (0x5408, "TCSETAF", Bytes(18)),
    (0x5409, "TCSBRK", Int),
    (0x540a, "TCXONC", Int),
    (0x540b, "TCFLSH", Int),
    (0x540c, "TIOCEXCL", Int),
    (0x540d, "TIOCNXCL", Int),
    (0x540e, "TIOCSCTTY", Int),
    (0x540f, "TIOCGPGRP", Out(4)),
    (0x5410, "TIOCSPGRP", In(4)),
    (0x5411, "TIOCOUTQ", Out(4)),
    (0x5412, "TIOCSTI", Bytes(1)),
    (0x5413, "TIOCGWINSZ", Bytes(8)),
    (0x5414, "TIOCSWINSZ", Bytes(8)),
    (0x5415, "TIOCMGET", Out(4)),
    (0x5416, "TIOCMBIS", In(4)),
    (0x5417, "TIOCMBIC", In(4)),
    (0x5418, "TIOCMSET", In(4)),
    (0x5419, "TIOCGSOFTCAR", Out(4)),
    (0x541a, "TIOCSSOFTCAR", In(4)),
    (0x541b, "FIONREAD", Out(4)),
    (0x541c, "TIOCLINUX", Bytes(16)),
    (0x541d, "TIOCCONS", Int),
    (0x541e, "TIOCGSERIAL", Wide(72)),
    (0x541f, "TIOCSSERIAL", Wide(72)),
    (0x5420, "TIOCPKT", In(4)),
    (0x5421, "FIONBIO", In(4)),
    (0x5422, "TIOCNOTTY", Int),
    (0x5423, "TIOCSETD", In(4)),
    (0x5424, "TIOCGETD", Out(4)),
    (0x5425, "TCSBRKP", Int),
    (0x5427, "TIOCSBRK", Int),
    (0x5428, "TIOCCBRK", Int),
    (0x5429, "TIOCGSID", Out(4)),
    (0x802c_542a, "TCGETS2", Bytes(44)),
    (0x402c_542b, "TCSETS2", Bytes(44)),
    (0x402c_542c, "TCSETSW2", Bytes(44)),
    (0x402c_542d, "TCSETSF2", Bytes(44)),
    (0x8004_5430, "TIOCGPTN", Out(4)),
    (0x4004_5431, "TIOCSPTLCK", In(4)),
    (0x8004_5432, "TIOCGDEV", Out(4)),
    (0x4004_5436, "TIOCSIG", Int),
    (0x5437, "TIOCVHANGUP", Int),
    (0x8004_5438, "TIOCGPKT", Out(4)),
    (0x8004_5439, "TIOCGPTLCK", Out(4)),
    (0x8004_5440, "TIOCGEXCL", Out(4)),
    (0x5441, "TIOCGPTPEER", Int),
    (0x545c, "TIOCMIWAIT", Int),
    (0x545d, "TIOCGICOUNT", Bytes(80)),
    // Any descriptor
    (0x5450, "FIONCLEX", Int),
    (0x5451, "FIOCLEX", Int),
    (0x5452, "FIOASYNC", In(4)),
    (0x5460, "FIOQSIZE", Bytes(8)),
    // Consoles
    (0x4b2f, "KIOCSOUND", Int),
    (0x4b30, "KDMKTONE", Int),
    (0x4b31, "KDGETLED", Bytes(1)),
    (0x4b32, "KDSETLED", Int),
    (0x4b33, "KDGKBTYPE", Bytes(1)),
    (0x4b3a, "KDSETMODE", Int),
    (0x4b3b, "KDGETMODE", Out(4)),
    (0x4b44, "KDGKBMODE", Out(4)),
    (0x4b45, "KDSKBMODE", Int),
    (0x4b64, "KDGKBLED", Bytes(1)),
    (0x4b65, "KDSKBLED", Int),
    (0x5600, "VT_OPENQRY", Out(4)),
    (0x5601, "VT_GETMODE", Bytes(8)),
    (0x5602, "VT_SETMODE", Bytes(8)),
    (0x5603, "VT_GETSTATE", Bytes(6)),
    (0x5605, "VT_RELDISP", Int),
    (0x5606, "VT_ACTIVATE", Int),
    (0x5607, "VT_WAITACTIVE", Int),
    (0x5608, "VT_DISALLOCATE", Int),
    // Files and file systems
    (0x1, "FIBMAP", InOut(4)),
    (0x2, "FIGETBSZ", Out(4)),
    (0xc004_5877, "FIFREEZE", Int),
    (0xc004_5878, "FITHAW", Int),
    (0xc018_5879, "FITRIM", Bytes(24)),
    (0x4004_9409, "FICLONE", Int),
    (0x4020_940d, "FICLONERANGE", Bytes(32)),
    (0xc018_9436, "FIDEDUPERANGE", Bytes(4096)),
    (0xc020_660b, "FS_IOC_FIEMAP", Bytes(32)),
    (0x8008_6601, "FS_IOC_GETFLAGS", Out(4)),
    (0x4008_6602, "FS_IOC_SETFLAGS", In(4)),
    (0x8008_7601, "FS_IOC_GETVERSION", Out(4)),
    (0x4008_7602, "FS_IOC_SETVERSION", In(4)),
    (0x801c_581f, "FS_IOC_FSGETXATTR", Bytes(28)),
    (0x401c_5820, "FS_IOC_FSSETXATTR", Bytes(28)),
    (0x8100_9431, "FS_IOC_GETFSLABEL", Bytes(256)),
    (0x4100_9432, "FS_IOC_SETFSLABEL", Bytes(256)),
    (0x8010_6613, "FS_IOC_GET_ENCRYPTION_PWSALT", Bytes(16)),
    (0xc009_6616, "FS_IOC_GET_ENCRYPTION_POLICY_EX", Bytes(64)),
    // Block devices
    (0x125d, "BLKROSET", In(4)),
    (0x125e, "BLKROGET", Out(4)),
    (0x125f, "BLKRRPART", Int),
    (0x1260, "BLKGETSIZE", OutWord),
    (0x1261, "BLKFLSBUF", Int),
    (0x1262, "BLKRASET", Int),
    (0x1263, "BLKRAGET", OutWord),
    (0x1264, "BLKFRASET", Int),
    (0x1265, "BLKFRAGET", OutWord),
    (0x1267, "BLKSECTGET", Bytes(2)),
    (0x1268, "BLKSSZGET", Out(4)),
    (0x1277, "BLKDISCARD", Bytes(16)),
    (0x1278, "BLKIOMIN", Out(4)),
    (0x1279, "BLKIOOPT", Out(4)),
    (0x127a, "BLKALIGNOFF", Out(4)),
    (0x127b, "BLKPBSZGET", Out(4)),
    (0x127c, "BLKDISCARDZEROES", Out(4)),
    (0x127d, "BLKSECDISCARD", Bytes(16)),
    (0x127e, "BLKROTATIONAL", Bytes(2)),
    (0x127f, "BLKZEROOUT", Bytes(16)),
    (0x8008_1270, "BLKBSZGET", Out(4)),
    (0x4008_1271, "BLKBSZSET", In(4)),
    (0x8008_1272, "BLKGETSIZE64", Bytes(8)),
    (0x301, "HDIO_GETGEO", Geometry),
    (0x5331, "CDROM_GET_CAPABILITY", Int),
    (0x5326, "CDROM_DRIVE_STATUS", Int),
    // Loop devices
    (0x4c00, "LOOP_SET_FD", Int),
    (0x4c01, "LOOP_CLR_FD", Int),
    (0x4c04, "LOOP_SET_STATUS64", Bytes(232)),
    (0x4c05, "LOOP_GET_STATUS64", Bytes(232)),
    (0x4c06, "LOOP_CHANGE_FD", Int),
    (0x4c07, "LOOP_SET_CAPACITY", Int),
    (0x4c08, "LOOP_SET_DIRECT_IO", Int),
    (0x4c09, "LOOP_SET_BLOCK_SIZE", Int),
    (0x4c0a, "LOOP_CONFIGURE", Bytes(304)),
    (0x4c80, "LOOP_CTL_ADD", Int),
    (0x4c81, "LOOP_CTL_REMOVE", Int),
    (0x4c82, "LOOP_CTL_GET_FREE", Int),
    // Sockets and network interfaces
    (0x8901, "FIOSETOWN", In(4)),
    (0x8902, "SIOCSPGRP", In(4)),
    (0x8903, "FIOGETOWN", Out(4)),
    (0x8904, "SIOCGPGRP", Out(4)),
    (0x8905, "SIOCATMARK", Out(4)),
    (0x8906, "SIOCGSTAMP", Timeval),
    (0x8907, "SIOCGSTAMPNS", Timespec),
    (0x890b, "SIOCADDRT", Wide(120)),
    (0x890c, "SIOCDELRT", Wide(120)),
    (0x8910, "SIOCGIFNAME", Ifreq),
    (0x8912, "SIOCGIFCONF", Ifconf),
    (0x8913, "SIOCGIFFLAGS", Ifreq),
    (0x8914, "SIOCSIFFLAGS", Ifreq),
    (0x8915, "SIOCGIFADDR", Ifreq),
    (0x8916, "SIOCSIFADDR", Ifreq),
    (0x8917, "SIOCGIFDSTADDR", Ifreq),
    (0x8918, "SIOCSIFDSTADDR", Ifreq),
    (0x8919, "SIOCGIFBRDADDR", Ifreq),
    (0x891a, "SIOCSIFBRDADDR", Ifreq),
    (0x891b, "SIOCGIFNETMASK", Ifreq),
    (0x891c, "SIOCSIFNETMASK", Ifreq),
    (0x891d, "SIOCGIFMETRIC", Ifreq),
    (0x8921, "SIOCGIFMTU", Ifreq),
    (0x8922, "SIOCSIFMTU", Ifreq),
    (0x8923, "SIOCSIFNAME", Ifreq),
    (0x8924, "SIOCSIFHWADDR", Ifreq),
    (0x8927, "SIOCGIFHWADDR", Ifreq),
    (0x8931, "SIOCADDMULTI", Ifreq),
    (0x8932, "SIOCDELMULTI", Ifreq),
    (0x8933, "SIOCGIFINDEX", Ifreq),
    (0x8942, "SIOCGIFTXQLEN", Ifreq),
    (0x8943, "SIOCSIFTXQLEN", Ifreq),
    (0x8970, "SIOCGIFMAP", Ifmap),
    (0x894c, "SIOCGSKNS", Int),
    (0x8b01, "SIOCGIWNAME", Bytes(32)),
    (0x89a0, "SIOCBRADDBR", Bytes(16)),
    (0x89a1, "SIOCBRDELBR", Bytes(16)),
    (0x89a2, "SIOCBRADDIF", Ifreq),
    (0x89a3, "SIOCBRDELIF", Ifreq),
    // TUN and TAP
    (0x4004_54c8, "TUNSETNOCSUM", Int),
    (0x4004_54ca, "TUNSETIFF", Ifreq),
    (0x4004_54cb, "TUNSETPERSIST", Int),
    (0x4004_54cc, "TUNSETOWNER", Int),
    (0x4004_54ce, "TUNSETGROUP", Int),
    (0x8004_54cf, "TUNGETFEATURES", Out(4)),
    (0x4004_54d0, "TUNSETOFFLOAD", Int),
    (0x8004_54d2, "TUNGETIFF", Ifreq),
    (0x4004_54d8, "TUNSETVNETHDRSZ", In(4)),
    // Random numbers, clocks
    (0x8004_5200, "RNDGETENTCNT", Out(4)),
    (0x4004_5201, "RNDADDTOENTCNT", In(4)),
    (0x5204, "RNDZAPENTCNT", Int),
    (0x5206, "RNDCLEARPOOL", Int),
    (0x8024_7009, "RTC_RD_TIME", Bytes(36)),
    (0x4024_700a, "RTC_SET_TIME", Bytes(36)),
    (0x7001, "RTC_AIE_ON", Int),
    (0x7002, "RTC_AIE_OFF", Int),
    (0x7003, "RTC_UIE_ON", Int),
    (0x7004, "RTC_UIE_OFF", Int),
    // Namespaces, timer and event descriptors, watchdogs
    (0xb701, "NS_GET_USERNS", Int),
    (0xb702, "NS_GET_PARENT", Int),
    (0xb703, "NS_GET_NSTYPE", Int),
    (0xb704, "NS_GET_OWNER_UID", Out(4)),
    (0x4008_5400, "TFD_IOC_SET_TICKS", Bytes(8)),
    (0x8004_5705, "WDIOC_KEEPALIVE", Out(4)),
    (0xc004_5706, "WDIOC_SETTIMEOUT", InOut(4)),
    (0x8004_5707, "WDIOC_GETTIMEOUT", Out(4)),
    // Audio (OSS), frame buffers and input: what old programs probe
    (0x4600, "FBIOGET_VSCREENINFO", Bytes(160)),
    (0x4601, "FBIOPUT_VSCREENINFO", Bytes(160)),
    (0x4602, "FBIOGET_FSCREENINFO", Bytes(80)),
    (0x8004_4501, "EVIOCGVERSION", Out(4)),
    (0x8008_4502, "EVIOCGID", Bytes(8)),
    (0x4004_4590, "EVIOCGRAB", Int),
];

record! {
    struct Ifconf { len: I32, buf: Ptr }
    struct IfreqMap {
        name: [U8; 16],
        start: ULong,
        end: ULong,
        base: U16,
        irq: U8,
        dma: U8,
        port: U8,
    }
    struct HdGeometry { heads: U8, sectors: U8, cylinders: U16, start: ULong }
}

/// Bytes of `struct ifreq` on the host, and on a guest of this word.
const IFREQ: usize = 40;
fn ifreq_bytes(m: DataModel) -> usize {
    if m.word == 8 { IFREQ } else { 32 }
}

/// Requests whose number holds the size of a `long`, though their argument is an `int` or 64 bits.
const SIZED_BY_WORD: [u32; 7] = [
    0x8008_6601, // FS_IOC_GETFLAGS
    0x4008_6602, // FS_IOC_SETFLAGS
    0x8008_7601, // FS_IOC_GETVERSION
    0x4008_7602, // FS_IOC_SETVERSION
    0x8008_1270, // BLKBSZGET
    0x4008_1271, // BLKBSZSET
    0x8008_1272, // BLKGETSIZE64
];
/// The host's number of a request.
fn host_request(request: u32, m: DataModel) -> u32 {
    let wide = request ^ 0x000c_0000;
    if m.word == 4 && SIZED_BY_WORD.contains(&wide) { wide } else { request }
}

fn row(request: u32) -> Option<&'static (u32, &'static str, Arg)> {
    ROWS.iter().find(|r| r.0 == request)
}
/// The request's name, for --strace.
pub fn request_name(request: u32) -> Option<&'static str> {
    row(request).map(|r| r.1)
}

pub fn sys_ioctl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let m = cx.model;
    let (fd, request, arg) = (a[0], host_request(a[1] as u32, m), a[2]);
    if cx.process.is_own_fd(fd as i32) {
        return Err(EBADF);
    }
    let Some(&(_, _, kind)) = row(request) else {
        cx.process.unimplemented_once(1 << 62 | request as u64, || {
            format!("ioctl {request:#x} is not implemented")
        });
        // A bad descriptor is the first thing that the kernel notices.
        sys!(SYS_fcntl, fd, libc::F_GETFD)?;
        return Err(Errno(libc::ENOTTY));
    };
    match kind {
        Int => sleep!(cx, SYS_ioctl, fd, request, arg),
        In(len) | Out(len) | InOut(len) if m.big_endian != DataModel::HOST.big_endian => {
            let mut words: Vec<u32> = match kind {
                Out(_) => vec![0; len as usize / 4],
                _ => cx.get_array::<U32>(arg, len as usize / 4)?,
            };
            let result = sleep!(cx, SYS_ioctl, fd, request, &mut words[..])?;
            if !matches!(kind, In(_)) {
                cx.put_array::<U32>(arg, &words)?;
            }
            Ok(result)
        }
        In(_) => sleep!(cx, SYS_ioctl, fd, request, cx.mem(arg)),
        Out(len) | InOut(len) | Bytes(len) => {
            sleep!(cx, SYS_ioctl, fd, request, cx.mem_out(arg, len as u64))
        }
        Ifconf => ifconf(cx, fd, request, arg),
        Wide(_) if m.word != DataModel::HOST.word => Err(Errno(libc::ENOTTY)),
        Wide(len) => sleep!(cx, SYS_ioctl, fd, request, cx.mem_out(arg, len as u64)),
        Ifreq if ifreq_bytes(m) == IFREQ => {
            sleep!(cx, SYS_ioctl, fd, request, cx.mem_out(arg, IFREQ as u64))
        }
        Ifreq => {
            let len = ifreq_bytes(m);
            let mut host = [0u8; IFREQ];
            host[..len].copy_from_slice(&cx.get_bytes(arg, len)?);
            let result = sleep!(cx, SYS_ioctl, fd, request, &mut host)?;
            cx.put_bytes(arg, &host[..len])?;
            Ok(result)
        }
        Ifmap => converted::<IfreqMap>(cx, fd, request, arg),
        Geometry => converted::<HdGeometry>(cx, fd, request, arg),
        Timeval => converted::<time::Timeval>(cx, fd, request, arg),
        Timespec => converted::<time::Timespec>(cx, fd, request, arg),
        OutWord => converted::<ULong>(cx, fd, request, arg),
    }
}

/// A structure that the kernel reads and writes in the host's layout.
fn converted<F: Field>(cx: &mut Cx<'_>, fd: u64, request: u32, arg: u64) -> SysResult {
    let mut host = [0u8; 64];
    F::put(&mut host, cx.get::<F>(arg)?, DataModel::HOST);
    let result = sleep!(cx, SYS_ioctl, fd, request, &mut host)?;
    cx.put::<F>(arg, F::get(&host, DataModel::HOST))?;
    Ok(result)
}

/// `SIOCGIFCONF`: the structure points to the room for the answer.
fn ifconf(cx: &mut Cx<'_>, fd: u64, request: u32, arg: u64) -> SysResult {
    let guest = cx.get::<Ifconf>(arg)?;
    let one = ifreq_bytes(cx.model);
    let room = guest.len.max(0) as usize / one;
    // Without a buffer the kernel tells how much it needs.
    let mut list = vec![0u8; if guest.buf == 0 { 0 } else { room * IFREQ }];
    let at = if guest.buf == 0 { 0 } else { list.as_mut_ptr() as u64 };
    let mut host = [0u8; 16];
    I32::put(&mut host, list.len() as i32, DataModel::HOST);
    Ptr::put(&mut host[8..], at, DataModel::HOST);
    let result = sys!(SYS_ioctl, fd, request, &mut host)?;
    let count = I32::get(&host, DataModel::HOST).max(0) as usize / IFREQ;
    for (i, item) in list.chunks_exact(IFREQ).take(count).enumerate() {
        cx.put_bytes(guest.buf.wrapping_add((i * one) as u64), &item[..one])?;
    }
    cx.put::<Ifconf>(arg, Ifconf { len: (count * one) as i32, ..guest })?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_agree_with_their_encoding() {
        let mut seen = std::collections::BTreeSet::new();
        for &(request, name, _) in ROWS {
            assert!(seen.insert(request), "{name}");
        }
        assert_eq!(Ifconf::size(DataModel::LP64), 16);
        assert_eq!((ifreq_bytes(DataModel::LP64), ifreq_bytes(DataModel::I386)), (40, 32));
        assert_eq!(host_request(0x8004_6601, DataModel::I386), 0x8008_6601);
        assert_eq!(host_request(0x8004_6601, DataModel::LP64), 0x8004_6601);
        assert_eq!(request_name(libc::TCGETS as u32), Some("TCGETS"));
        assert_eq!(request_name(libc::FIONREAD as u32), Some("FIONREAD"));
        assert_eq!(request_name(libc::TUNGETIFF as u32), Some("TUNGETIFF"));
        assert_eq!(request_name(libc::BLKSSZGET as u32), Some("BLKSSZGET"));
    }
}
