//! `siginfo_t` between guests of different word size and byte order.
//!
//! Three numbers, then a union whose form signal and code tell (signal(7), sigaction(2)).

use super::DataModel;
use super::record::{Field, I16, I32, Long, Pad, Ptr, U32, ULong};
use crate::host::signal::SIGINFO_BYTES;
use crate::record;

record! {
    struct Head { signo: I32, errno: I32, code: I32 }
    struct Sender { pid: I32, uid: U32 }
    struct Queued { pid: I32, uid: U32, value: Ptr }
    struct Timer { id: I32, overrun: I32, value: Ptr }
    struct Child { pid: I32, uid: U32, status: I32, utime: Long, stime: Long }
    struct Fault { address: Ptr, lsb: I16, lower: Ptr, upper: Ptr }
    struct Poll { band: Long, fd: I32 }
    struct Call { address: Ptr, number: I32, arch: U32 }
    /// Forms that tulk does not know stay as they are.
    struct Unknown { words: [U32; 4], _rest: Pad<64> }
}

const SI_KERNEL: i32 = 0x80;
const SI_SIGIO: i32 = -5;

/// Rewrites one structure of the union.
fn part<F: Field>(from: &[u8], to: &mut [u8], m: DataModel, new: DataModel) {
    F::put(to, F::get(from, m), new);
}

/// Rewrites a `siginfo_t` of one data model for another.
pub fn convert(info: &[u8; SIGINFO_BYTES], m: DataModel, new: DataModel) -> [u8; SIGINFO_BYTES] {
    if m == new {
        return *info;
    }
    let mut out = [0; SIGINFO_BYTES];
    let head = Head::get(info, m);
    Head::put(&mut out, head, new);
    // The union is aligned to its pointers.
    let start = |m: DataModel| Head::size(m).next_multiple_of(m.word);
    let (from, to) = (&info[start(m)..], &mut out[start(new)..]);
    let convert = match (head.signo, head.code) {
        (_, 0 | libc::SI_TKILL | SI_KERNEL) => part::<Sender>,
        (_, libc::SI_TIMER) => part::<Timer>,
        (libc::SIGPOLL, 1..) | (_, SI_SIGIO) => part::<Poll>,
        (_, i32::MIN..0) => part::<Queued>,
        (libc::SIGCHLD, _) => part::<Child>,
        (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP, _) => {
            part::<Fault>
        }
        (libc::SIGSYS, _) => part::<Call>,
        _ => part::<Unknown>,
    };
    convert(from, to, m, new);
    out
}

record! {
    /// Here so that the size of `ULong` fields is checked against the union's room.
    struct Room { words: [ULong; 4] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_survive_the_narrow_model() {
        let (wide, narrow) = (DataModel::LP64, DataModel::I386);
        let mut info = [0; SIGINFO_BYTES];
        Head::put(&mut info, Head { signo: libc::SIGCHLD, errno: 0, code: 1 }, wide);
        let child = Child { pid: 77, uid: 5, status: 3, utime: 10, stime: 11 };
        Child::put(&mut info[16..], child, wide);
        let small = convert(&info, wide, narrow);
        let c = Child::get(&small[12..], narrow);
        assert_eq!((c.pid, c.uid, c.status, c.utime, c.stime), (77, 5, 3, 10, 11));
        assert_eq!(small[12 + 16..12 + 20], [11, 0, 0, 0]);
        assert_eq!(convert(&small, narrow, wide), info);

        let mut info = [0; SIGINFO_BYTES];
        Head::put(&mut info, Head { signo: libc::SIGSEGV, errno: 0, code: 2 }, wide);
        let fault = Fault { address: 0x1234_5678, lsb: 0, lower: 0, upper: 0 };
        Fault::put(&mut info[16..], fault, wide);
        let small = convert(&info, wide, narrow);
        assert_eq!(small[12..16], [0x78, 0x56, 0x34, 0x12]);
        assert_eq!(Room::size(wide), 32);
    }
}
