//! What x86-64 and i386 share: exceptions as signals, descriptors of thread-local storage and of the LDT, the
//! general registers.

use super::TrapSignal;
use super::generic::{MAP_FLAGS as GENERIC_MAP_FLAGS, bits};
use super::{Bits, Cpu};
use crate::abi::record::{DataModel, Field, U32};
use crate::process::Process;
use crate::record;
use crate::signals::Exception;
use crate::syscall::{EFAULT, EINVAL, Errno};
use tulk_base::{AccessKind, CpuState, FaultCause, GuestVa, Trap};
use tulk_x86::regs::{self, cell};
use tulk_x86::{fpstate, segment};

pub fn reg(state: &CpuState, n: usize) -> u64 {
    state.get(cell(regs::GPR[n]))
}
pub fn set_reg(state: &mut CpuState, n: usize, value: u64) {
    state.set(cell(regs::GPR[n]), value);
}
/// Numbers of the general registers, as encoded.
pub const AX: usize = 0;
pub const CX: usize = 1;
pub const DX: usize = 2;
pub const BX: usize = 3;
pub const SP: usize = 4;
pub const BP: usize = 5;
pub const SI: usize = 6;
pub const DI: usize = 7;

/// Flat descriptors of Linux.
pub const DATA: u64 = 0x00cf_f300_0000_ffff;
pub const CODE32: u64 = 0x00cf_fb00_0000_ffff;
pub const CODE64: u64 = 0x00af_fb00_0000_ffff;

/// The flags that a frame may change (`FIX_EFLAGS` in the kernel's headers): AC, RF, OF, DF, TF and the arithmetic ones.
const USER_FLAGS: u32 = 0x5_0dd5;

pub fn restore_eflags(state: &mut CpuState, value: u32) {
    let kept = regs::eflags(state) & !USER_FLAGS;
    regs::set_eflags(state, kept | value & USER_FLAGS & !regs::eflags::RF);
}
/// A handler starts with the direction and trap flags clear.
pub fn clear_handler_flags(state: &mut CpuState) {
    let clear = regs::eflags::DF | regs::eflags::TF | regs::eflags::RF;
    let flags = regs::eflags(state) & !clear;
    regs::set_eflags(state, flags);
}

/// Exceptions of the x87 unit and of SSE.
const MF: u32 = 16;
const XM: u32 = 19;
const ILL_ILLOPN: i32 = 2;
const SI_KERNEL: i32 = 0x80;

/// The signal of an exception, with what the processor pushes and CR2. Codes as Linux chooses them: an exception
/// without an address of its own says `SI_KERNEL`.
pub fn trap_signal(process: &Process, state: &CpuState, trap: Trap) -> Option<TrapSignal> {
    let signal = |number, code, address, vector, error| {
        let exception = Exception { vector, error, address: None };
        Some(TrapSignal { number, code, address, exception })
    };
    let pc = state.pc();
    match trap {
        Trap::Mem(mut fault) => {
            if fault.kind == AccessKind::Exec {
                // An instruction that began on a page before; the lifter does not know why it ends there.
                fault = process.space.fault_cause(fault.va, 1, AccessKind::Exec);
            }
            let va = fault.va.0;
            let canonical = (va as i64) << 16 >> 16 == va as i64;
            let aligned = fault.cause != FaultCause::Align;
            if !aligned && regs::eflags(state) & regs::eflags::AC != 0 {
                return signal(libc::SIGBUS, 1, 0, 17, 0);
            }
            if !canonical || !aligned {
                return signal(libc::SIGSEGV, SI_KERNEL, 0, segment::GP, 0);
            }
            let (number, code) = match fault.cause {
                FaultCause::Bus => (libc::SIGBUS, 2),
                FaultCause::Protection => (libc::SIGSEGV, 2),
                _ => (libc::SIGSEGV, 1),
            };
            // Present, write, user, fetch. A page without any rights is not present; the kernel hides what is in its
            // own half.
            let shut = || process.space.query(fault.va).is_some_and(|m| m.region.prot == 0);
            let present = fault.cause == FaultCause::Protection && !shut() || va >> 47 != 0;
            let error = match fault.kind {
                AccessKind::Read if modifies_memory(process, state) => 6,
                AccessKind::Read => 4,
                AccessKind::Write => 6,
                AccessKind::Exec => 0x14,
            } | present as u32;
            let exception = Exception { vector: 14, error, address: Some(va) };
            Some(TrapSignal { number, code, address: va, exception })
        }
        Trap::Illegal => signal(libc::SIGILL, ILL_ILLOPN, pc, segment::UD, 0),
        Trap::Privileged => signal(libc::SIGSEGV, SI_KERNEL, 0, segment::GP, 0),
        Trap::Breakpoint(_) => signal(libc::SIGTRAP, SI_KERNEL, 0, 3, 0),
        // FPE_INTDIV is the integer unit's.
        Trap::Arithmetic(1) => signal(libc::SIGFPE, 1, pc, 0, 0),
        Trap::Arithmetic(code) => {
            let x87 = fpstate::x87_pending(state) && fpstate::x87_si_code(state) == code;
            signal(libc::SIGFPE, code as i32, pc, if x87 { MF } else { XM }, 0)
        }
        Trap::Guest { vector: MF, .. } => {
            signal(libc::SIGFPE, fpstate::x87_si_code(state) as i32, pc, MF, 0)
        }
        Trap::Guest { vector: XM, .. } => {
            signal(libc::SIGFPE, fpstate::sse_si_code(state) as i32, pc, XM, 0)
        }
        Trap::Guest { vector: 1, .. } => {
            // TRAP_TRACE after a single step, TRAP_BRKPT from INT1.
            let step = regs::eflags(state) & regs::eflags::TF != 0;
            signal(libc::SIGTRAP, if step { 2 } else { 1 }, pc, 1, 0)
        }
        Trap::Guest { vector, code } => {
            let number = match vector {
                segment::NP | segment::SS => libc::SIGBUS,
                _ => libc::SIGSEGV,
            };
            signal(number, SI_KERNEL, 0, vector, code)
        }
        Trap::Halt => signal(libc::SIGSEGV, SI_KERNEL, 0, segment::GP, 0),
        Trap::Syscall(_) | Trap::Resync => None,
    }
}

fn modifies_memory(process: &Process, state: &CpuState) -> bool {
    let attributes = state.get(cell(regs::SEG_ATTR[regs::CS])) as u32;
    let bits = match attributes & (segment::attr::L | segment::attr::DB) {
        0 => 16,
        segment::attr::DB => 32,
        _ => 64,
    };
    let mut code = [0; tulk_x86::bytes::LONGEST];
    let len = process.space.fetch_code(GuestVa(state.pc()), &mut code);
    tulk_x86::bytes::modifies_memory(bits, &code[..len])
}

record! {
    /// `struct user_desc`.
    pub struct UserDesc { entry: U32, base: U32, limit: U32, flags: U32 }
}

impl UserDesc {
    const SEG_32BIT: u32 = 1;
    const READ_ONLY: u32 = 1 << 3;
    const PAGES: u32 = 1 << 4;
    const NOT_PRESENT: u32 = 1 << 5;
    const USEABLE: u32 = 1 << 6;

    fn contents(&self) -> u32 {
        self.flags >> 1 & 3
    }
    fn is_zero(&self) -> bool {
        self.base == 0 && self.limit == 0 && self.flags == 0
    }
    fn is_empty(&self) -> bool {
        let flags = self.flags & 0x7f;
        self.base == 0 && self.limit == 0 && flags == Self::READ_ONLY | Self::NOT_PRESENT
    }
    /// The descriptor of the processor's.
    pub fn descriptor(&self) -> u64 {
        let on = |bit: u32| (self.flags & bit != 0) as u64;
        // Accessed, readable or writable, type, code or data segment of privilege 3, present.
        let access = 1
            | (on(Self::READ_ONLY) ^ 1) << 1
            | (self.contents() as u64) << 2
            | 1 << 4
            | 3 << 5
            | (on(Self::NOT_PRESENT) ^ 1) << 7;
        let size = on(Self::USEABLE) | on(Self::SEG_32BIT) << 2 | on(Self::PAGES) << 3;
        let (base, limit) = (self.base as u64, self.limit as u64);
        limit & 0xffff
            | (base & 0xff_ffff) << 16
            | access << 40
            | (limit >> 16 & 15) << 48
            | size << 52
            | (base >> 24) << 56
    }
    /// The reverse.
    pub fn of_descriptor(entry: u32, raw: u64) -> UserDesc {
        if raw == 0 {
            return UserDesc {
                entry,
                base: 0,
                limit: 0,
                flags: Self::READ_ONLY | Self::NOT_PRESENT,
            };
        }
        let bit = |n: u32| (raw >> n & 1) as u32;
        UserDesc {
            entry,
            base: (raw >> 16 & 0xff_ffff | raw >> 32 & 0xff00_0000) as u32,
            limit: (raw & 0xffff | raw >> 32 & 0xf_0000) as u32,
            flags: bit(54)
                | ((raw >> 42 & 3) as u32) << 1
                | (bit(41) ^ 1) << 3
                | bit(55) << 4
                | (bit(47) ^ 1) << 5
                | bit(52) << 6,
        }
    }
    pub fn read(process: &Process, va: u64) -> Result<UserDesc, Errno> {
        let mut bytes = [0; 16];
        process.space.copy_in(GuestVa(va as u32 as u64), &mut bytes).map_err(|_| EFAULT)?;
        Ok(UserDesc::get(&bytes, DataModel::I386))
    }
}

/// First GDT entry for thread-local storage, and how many there are.
const TLS_FIRST: u32 = regs::GDT_TLS_FIRST as u32;
const TLS_COUNT: u32 = 3;

/// The index of a descriptor for `set_thread_area`, checked as the kernel does.
pub fn tls_index(desc: &UserDesc) -> Result<usize, Errno> {
    if !desc.is_empty() && !desc.is_zero() {
        let bad = desc.flags & UserDesc::SEG_32BIT == 0
            || desc.contents() > 1
            || desc.flags & UserDesc::NOT_PRESENT != 0;
        if bad {
            return Err(EINVAL);
        }
    }
    tls_slot(desc.entry)
}
pub fn tls_slot(entry: u32) -> Result<usize, Errno> {
    match entry.checked_sub(TLS_FIRST) {
        Some(i) if i < TLS_COUNT => Ok(i as usize),
        _ => Err(EINVAL),
    }
}
/// The first unused entry.
pub fn free_tls(state: &CpuState) -> Result<u32, Errno> {
    let free = (0..TLS_COUNT).find(|&i| state.get(cell(regs::GDT_TLS[i as usize])) == 0);
    free.map(|i| TLS_FIRST + i).ok_or(Errno(libc::ESRCH))
}

/// Sets a TLS descriptor; segment registers that name it take it over.
pub fn set_tls(state: &mut CpuState, index: usize, desc: &UserDesc) {
    let raw = if desc.is_empty() || desc.is_zero() { 0 } else { desc.descriptor() };
    state.set(cell(regs::GDT_TLS[index]), raw);
    reload(state, (TLS_FIRST as u64 + index as u64) << 3, raw);
}
/// Segment registers (but CS and SS) with this selector, whatever its privilege, get a new descriptor.
fn reload(state: &mut CpuState, selector: u64, raw: u64) {
    for seg in [regs::ES, regs::DS, regs::FS, regs::GS] {
        let have = state.get(cell(regs::SEG[seg]));
        if have & !3 == selector {
            segment::set_segment(state, seg, if raw == 0 { 0 } else { have as u16 }, raw);
        }
    }
}

/// Loads a data segment register from outside guest code; a selector without a descriptor becomes 0, as after a kernel's
/// own failing load.
pub fn load_selector(process: &Process, state: &mut CpuState, seg: usize, selector: u16) {
    let raw = descriptor(process, state, selector);
    let d = segment::Descriptor::new(raw);
    let good = raw != 0
        && d.present()
        && d.dpl() == 3
        && (d.is_data() || d.is_code() && d.attr & segment::attr::RW != 0);
    match good {
        true => segment::set_segment(state, seg, selector, raw),
        false => segment::set_segment(state, seg, selector & 3, 0),
    }
}
/// The descriptor of a selector, 0 if there is none.
pub fn descriptor(process: &Process, state: &CpuState, selector: u16) -> u64 {
    let index = selector as usize >> 3;
    match (selector & 4 != 0, index) {
        (true, _) => process.ldt.lock().get(index).copied().unwrap_or(0),
        (false, 4) => CODE32,
        (false, 5) => DATA,
        (false, 6) => CODE64,
        (false, _) => match tls_slot(index as u32) {
            Ok(i) => state.get(cell(regs::GDT_TLS[i])),
            Err(_) => 0,
        },
    }
}

/// A segment load that needs the LDT.
pub fn absorb_trap(process: &Process, state: &mut CpuState, trap: Trap) -> bool {
    let Trap::Guest { vector: segment::WANT_DESCRIPTOR, code } = trap else { return false };
    let index = code as usize >> 3;
    let raw = process.ldt.lock().get(index).copied().unwrap_or(0);
    state.set(cell(regs::DESC), raw);
    state.set(cell(regs::DESC_SELECTOR), regs::DESC_VALID | code as u64);
    true
}

pub fn before_guest(process: &Process, state: &mut CpuState) {
    let blind = !process.actions.faults_are_seen();
    state.set(cell(regs::BLIND_FAULTS), blind as u64);
}

/// Entries of an LDT.
const LDT_ENTRIES: u32 = 8192;

/// `modify_ldt(1 or 0x11)`.
pub fn write_ldt(
    process: &Process,
    state: &mut CpuState,
    desc: UserDesc,
    old_form: bool,
) -> Result<(), Errno> {
    if desc.entry >= LDT_ENTRIES {
        return Err(EINVAL);
    }
    if desc.contents() == 3 && (old_form || desc.flags & UserDesc::NOT_PRESENT == 0) {
        return Err(EINVAL);
    }
    let clear = old_form && desc.base == 0 && desc.limit == 0 || desc.is_empty();
    let mut raw = if clear { 0 } else { desc.descriptor() };
    if old_form {
        raw &= !(1 << 52);
    }
    let mut ldt = process.ldt.lock();
    let index = desc.entry as usize;
    if ldt.len() <= index {
        ldt.resize(index + 1, 0);
    }
    ldt[index] = raw;
    drop(ldt);
    reload(state, (desc.entry as u64) << 3 | 4, raw);
    Ok(())
}

pub const MAP_FLAGS: &[Bits] = &{
    let mut all = [Bits { name: "", guest: 0, host: 0 }; GENERIC_MAP_FLAGS.len() + 1];
    let mut i = 0;
    while i < GENERIC_MAP_FLAGS.len() {
        all[i] = GENERIC_MAP_FLAGS[i];
        i += 1;
    }
    let own: &[Bits] = bits! { MAP_32BIT 0x40 => tulk_softmmu::user::MAP_LOW as u32; };
    all[i] = own[0];
    all
};

/// A processor by name; `max` by default.
pub fn cpu(mode: tulk_x86::Mode, name: Option<&str>) -> Result<Cpu, String> {
    crate::cpu::x86(mode, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_processors() {
        let tls = UserDesc { entry: 12, base: 0x0812_3456, limit: 0xfffff, flags: 0x51 };
        let raw = tls.descriptor();
        assert_eq!(raw, 0x08df_f312_3456_ffff);
        let back = UserDesc::of_descriptor(12, raw);
        assert_eq!((back.base, back.limit, back.flags), (tls.base, tls.limit, tls.flags));
        assert_eq!(tls_index(&tls), Ok(0));
        assert_eq!(tls_index(&UserDesc { entry: 6, ..tls }), Err(EINVAL));
        // Code is no thread-local storage.
        assert_eq!(tls_index(&UserDesc { flags: 0x55, ..tls }), Err(EINVAL));
    }
}
