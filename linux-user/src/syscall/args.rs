//! Kinds of system call arguments: how wide each is, how it lies in registers, and what --strace makes of it.

use crate::abi::DataModel;

/// See the module. The tables in `data/` name these in snake case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A register without meaning.
    Nothing,
    // 32 bits, signed
    Int,
    Fd,
    /// A directory descriptor or `AT_FDCWD`.
    At,
    Sig,
    Clock,
    Whence,
    Fcntl,
    Family,
    SockType,
    Sol,
    EpollOp,
    Rlimit,
    Prctl,
    Madvise,
    Futex,
    // 32 bits, unsigned
    Uint,
    Mode,
    Access,
    Open,
    Prot,
    Map,
    AtFlags,
    Fallocate,
    Mremap,
    Msg,
    Lock,
    Wait,
    StatxMask,
    Ioctl,
    // a word
    Long,
    Ulong,
    Hex,
    Clone,
    Ptr,
    /// A NUL-terminated string.
    Str,
    /// Bytes read by the call; the next argument is their number.
    Buf,
    /// Bytes written by the call; the next argument is the room, the result the number.
    Out,
    /// A NULL-terminated array of strings.
    Argv,
    /// `iovec`s whose bytes the call reads, or writes; the next argument is their number.
    Iov,
    IovOut,
    /// A socket address read by the call; the next argument is its length.
    Sockaddr,
    Msghdr,
    Timespec,
    Itimerspec,
    Stat,
    Pollfds,
    EpollEvent,
    OpenHow,
    // 64 bits: a pair of registers on 32-bit guests
    Off,
}

/// How wide an argument is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    S32,
    U32,
    Word,
    /// A `long`: sign-extended from the guest's word.
    SWord,
    Pair,
}

impl Arg {
    pub fn width(self) -> Width {
        use Arg::*;
        match self {
            Int | Fd | At | Sig | Clock | Whence | Fcntl | Family | SockType | Sol | EpollOp
            | Rlimit | Prctl | Madvise | Futex => Width::S32,
            Uint | Mode | Access | Open | Prot | Map | AtFlags | Fallocate | Mremap | Msg
            | Lock | Wait | StatxMask | Ioctl => Width::U32,
            Long => Width::SWord,
            Nothing | Ulong | Hex | Clone | Ptr | Str | Buf | Out | Argv | Iov | IovOut
            | Sockaddr | Msghdr | Timespec | Itimerspec | Stat | Pollfds | EpollEvent | OpenHow => {
                Width::Word
            }
            Off => Width::Pair,
        }
    }

    /// A pointer to guest memory when passed on to the host as it is.
    pub fn is_pointer(self) -> bool {
        use Arg::*;
        matches!(
            self,
            Ptr | Str
                | Buf
                | Out
                | Argv
                | Iov
                | IovOut
                | Sockaddr
                | Msghdr
                | Timespec
                | Itimerspec
                | Stat
                | Pollfds
                | EpollEvent
                | OpenHow
        )
    }
}

/// The arguments of one call, each extended to 64 bits as its kind says.
pub type Args = [u64; 7];

/// Brings raw argument registers into [`Args`]. On 32-bit guests a 64-bit argument takes two registers, the first of
/// them even-numbered when `aligned_pairs`.
pub fn gather(raw: &[u64; 7], kinds: &[Arg], m: DataModel, aligned_pairs: bool) -> Args {
    let mut args = *raw;
    let mut reg = 0;
    let mut take = || {
        let v = raw.get(reg).copied().unwrap_or(0);
        reg += 1;
        (v, reg)
    };
    for (arg, kind) in args.iter_mut().zip(kinds) {
        let width = kind.width();
        let (v, used) = if width == Width::Pair && m.word == 4 && aligned_pairs {
            let (v, used) = take();
            if used % 2 == 0 { take() } else { (v, used) }
        } else {
            take()
        };
        let _ = used;
        *arg = match width {
            Width::S32 => v as i32 as u64,
            Width::U32 => v as u32 as u64,
            Width::Word if m.word == 4 => v as u32 as u64,
            Width::SWord if m.word == 4 => v as i32 as u64,
            Width::Pair if m.word == 4 => {
                let (second, _) = take();
                let (lo, hi) = if m.big_endian { (second, v) } else { (v, second) };
                lo as u32 as u64 | hi << 32
            }
            _ => v,
        };
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_and_pairs() {
        let raw = [0xffff_ffff_8000_0001, 2, 0xffff_fff0, 4, 5, 6, 7];
        let kinds = [Arg::Uint, Arg::Off, Arg::Int];
        let a = gather(&raw, &kinds, DataModel::LP64, false);
        assert_eq!(a[..3], [0x8000_0001, 2, -16i64 as u64]);
        let arm = DataModel { big_endian: false, word: 4, align64: 8, time: 4 };
        // r0, then r2:r3 (r1 is skipped), then r4.
        let a = gather(&raw, &kinds, arm, true);
        assert_eq!(a[..3], [0x8000_0001, 4 << 32 | 0xffff_fff0, 5]);
        let i386 = DataModel { align64: 4, ..arm };
        let a = gather(&raw, &kinds, i386, false);
        assert_eq!(a[..3], [0x8000_0001, 0xffff_fff0 << 32 | 2, 4]);
        let ppc = DataModel { big_endian: true, ..arm };
        let a = gather(&raw, &kinds, ppc, true);
        assert_eq!(a[..3], [0x8000_0001, 0xffff_fff0 << 32 | 4, 5]);
    }
}
