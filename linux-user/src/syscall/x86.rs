//! Calls that only x86 guests have: segment bases and descriptors.

use super::args::Args;
use super::{Cx, EINVAL, EPERM, Errno, SysResult};
use crate::abi::record::{DataModel, Field, U64};
use crate::abi::x86::{self, UserDesc};
use crate::sys;
use tulk_x86::regs::{self, cell};

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
const ARCH_GET_CPUID: u64 = 0x1011;
const ARCH_SET_CPUID: u64 = 0x1012;
const ARCH_GET_XCOMP_SUPP: u64 = 0x1021;
const ARCH_GET_XCOMP_PERM: u64 = 0x1022;

/// Bases end where the user's half of the address space does.
const TASK_SIZE: u64 = (1 << 47) - 4096;

pub fn sys_arch_prctl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let long = cx.model.word == 8;
    match a[0] {
        code @ (ARCH_SET_FS | ARCH_SET_GS) if long => {
            if a[1] >= TASK_SIZE {
                return Err(EPERM);
            }
            let seg = if code == ARCH_SET_FS { regs::FS } else { regs::GS };
            cx.state.set(cell(regs::SEG[seg]), 0);
            cx.state.set(cell(regs::SEG_BASE[seg]), a[1]);
            Ok(0)
        }
        code @ (ARCH_GET_FS | ARCH_GET_GS) if long => {
            let seg = if code == ARCH_GET_FS { regs::FS } else { regs::GS };
            cx.put::<U64>(a[1], cx.state.get(cell(regs::SEG_BASE[seg])))?;
            Ok(0)
        }
        ARCH_GET_CPUID => Ok(1),
        // CPUID cannot be made to fault.
        ARCH_SET_CPUID if a[1] != 0 => Ok(0),
        ARCH_SET_CPUID => Err(Errno(libc::ENODEV)),
        ARCH_GET_XCOMP_SUPP | ARCH_GET_XCOMP_PERM => {
            cx.put::<U64>(a[1], cx.state.get(cell(regs::XCR0)))?;
            Ok(0)
        }
        _ => Err(EINVAL),
    }
}

pub fn sys_set_thread_area(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let mut desc = UserDesc::read(cx.process, a[0])?;
    let any = desc.entry == u32::MAX;
    if any {
        desc.entry = x86::free_tls(cx.state)?;
    }
    let index = x86::tls_index(&desc)?;
    if any {
        cx.put::<crate::abi::record::U32>(a[0], desc.entry)?;
    }
    x86::set_tls(cx.state, index, &desc);
    Ok(0)
}
pub fn sys_get_thread_area(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let entry = UserDesc::read(cx.process, a[0])?.entry;
    let raw = cx.state.get(cell(regs::GDT_TLS[x86::tls_slot(entry)?]));
    cx.put_as::<UserDesc>(a[0], UserDesc::of_descriptor(entry, raw), DataModel::I386)?;
    Ok(0)
}

/// Linux gives the result as an `unsigned int`: a 64-bit program does not see its errors as negative.
pub fn sys_modify_ldt(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    Ok(modify_ldt(cx, a).unwrap_or_else(|e| u64::from((e.0 as u32).wrapping_neg())))
}

fn modify_ldt(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    let room = a[2] as usize;
    match a[0] as i32 {
        // What there is, then zeroes.
        0 => {
            let ldt = cx.process.ldt.lock().clone();
            if ldt.is_empty() {
                return Ok(0);
            }
            let len = room.min(8192 * 8);
            let mut bytes: Vec<u8> = ldt.iter().flat_map(|d| d.to_le_bytes()).collect();
            bytes.resize(len, 0);
            cx.put_bytes(a[1], &bytes)?;
            Ok(len as u64)
        }
        // The default LDT is empty.
        2 => {
            let len = room.min(if cx.model.word == 8 { 128 } else { 40 });
            cx.put_bytes(a[1], &vec![0; len])?;
            Ok(len as u64)
        }
        form @ (1 | 0x11) => {
            if room != UserDesc::size(DataModel::I386) {
                return Err(EINVAL);
            }
            let desc = cx.get_as::<UserDesc>(a[1], DataModel::I386)?;
            x86::write_ldt(cx.process, cx.state, desc, form == 1).map(|()| 0)
        }
        _ => Err(super::ENOSYS),
    }
}

/// `keyctl` for guests whose addresses are not the host's: which arguments are pointers depends on the operation.
pub fn sys_keyctl(cx: &mut Cx<'_>, a: &Args) -> SysResult {
    // Bit n: argument n is a pointer.
    let pointers = match a[0] as i32 {
        1 => 0b0_0010,      // JOIN_SESSION_KEYRING
        2 => 0b0_0100,      // UPDATE
        6 | 11 => 0b0_0100, // DESCRIBE, READ
        10 => 0b0_1100,     // SEARCH
        12 => 0b0_0100,     // INSTANTIATE
        17 => 0b0_0100,     // GET_SECURITY
        23 | 20 => 0,       // DH_COMPUTE and INSTANTIATE_IOV have structures of words
        _ => 0,
    };
    if matches!(a[0] as i32, 20 | 23..) {
        return Err(Errno(libc::EOPNOTSUPP));
    }
    let word =
        |n: usize| if pointers >> n & 1 != 0 { cx.mem_out(a[n], 4096).0 as u64 } else { a[n] };
    sys!(SYS_keyctl, a[0], word(1), word(2), word(3), word(4))
}
