//! i386 Linux under a 64-bit kernel. INT 0x80 and SYSENTER: number in eax, arguments in ebx, ecx, edx, esi, edi, ebp,
//! result (negative errors) in eax. For 64-bit programs INT 0x80 means this interface too.
//!
//! In place of a vDSO there is one page ([`CODE`]): what `AT_SYSINFO` names, where SYSENTER returns to, and what
//! handlers without a restorer return to.

use super::x86::{self, AX, BP, BX, CX, DI, DX, SI, SP, UserDesc, reg, set_reg};
use super::{Bits, Cpu, DataModel, GuestAbi, StatForm, TrapSignal, read_record, x86_32_frame};
use crate::abi::record::{Field, I64, U16, U32, U64};
use crate::elf::{ElfClass, Machine};
use crate::process::Process;
use crate::record;
use crate::signals::{Action, Frame, FrameKind, Restored};
use crate::stack::at;
use crate::syscall::args::{Arg, Args};
use crate::syscall::{Errno, Handler, Row, id16};
use tulk_base::{CpuState, GuestVa, Trap};
use tulk_softmmu::UserSpace;
use tulk_x86::regs::{self, cell};
use tulk_x86::segment::attr;
use tulk_x86::{Mode, SYSCALL_INT80, SYSCALL_SYSCALL, cpu::CHIPS};

pub struct Guest;
pub static I386: Guest = Guest;

static TABLE: &[Row] = include!(concat!(env!("OUT_DIR"), "/i386.rs"));

record! {
    pub struct Stat {
        dev: U32,
        ino: U32,
        mode: U16,
        nlink: U16,
        uid: U16,
        gid: U16,
        rdev: U32,
        size: U32,
        blksize: U32,
        blocks: U32,
        atime: U32,
        atime_nsec: U32,
        mtime: U32,
        mtime_nsec: U32,
        ctime: U32,
        ctime_nsec: U32,
        _unused: [U32; 2],
    }
    pub struct Stat64 {
        dev: U64,
        _pad0: U32,
        ino_low: U32,
        mode: U32,
        nlink: U32,
        uid: U32,
        gid: U32,
        rdev: U64,
        _pad3: U32,
        size: I64,
        blksize: U32,
        blocks: U64,
        atime: U32,
        atime_nsec: U32,
        mtime: U32,
        mtime_nsec: U32,
        ctime: U32,
        ctime_nsec: U32,
        ino: U64,
    }
}

/// `__kernel_vsyscall` saves what SYSENTER would change, calls by INT 0x80, and goes on where SYSENTER returns to.
/// Behind it the two returns from handlers. As in the kernel, the call in front of [`LANDING_AT`] is what a
/// restarted SYSENTER executes.
const CODE: &[u8] = &[
    0x51, 0x52, 0x55, 0xcd, 0x80, // push ecx; push edx; push ebp; int 0x80
    0x5d, 0x5a, 0x59, 0xc3, // pop ebp; pop edx; pop ecx; ret
    0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, //
    0x58, 0xb8, 119, 0, 0, 0, 0xcd, 0x80, // pop eax; mov eax, 119; int 0x80
    0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, //
    0xb8, 173, 0, 0, 0, 0xcd, 0x80, // mov eax, 173; int 0x80
];
const LANDING_AT: u64 = 5;
pub const SIGRETURN_AT: u64 = 16;
pub const RT_SIGRETURN_AT: u64 = 32;

/// True in a 64-bit program.
fn is_long(state: &CpuState) -> bool {
    state.get(cell(regs::SEG_ATTR[regs::CS])) as u32 & attr::L != 0
}

impl GuestAbi for Guest {
    fn name(&self) -> &'static str {
        "i386"
    }
    fn family(&self) -> &'static str {
        "x86"
    }
    fn machine(&self) -> (Machine, ElfClass) {
        (Machine::I386, ElfClass::Elf32)
    }
    fn model(&self) -> DataModel {
        DataModel::I386
    }
    fn uname_machine(&self) -> &'static str {
        "i686"
    }
    fn platform(&self) -> &'static str {
        "i686"
    }
    fn cpu(&self, model: Option<&str>) -> Result<Cpu, String> {
        x86::cpu(Mode::I386, model)
    }
    fn cpu_models(&self) -> Vec<&'static str> {
        CHIPS.iter().map(|c| c.name).collect()
    }
    fn new_space(&self) -> Result<UserSpace, Errno> {
        UserSpace::window32()
    }
    fn pie_base(&self) -> u64 {
        0x5655_5000
    }
    fn table(&self) -> &'static [Row] {
        TABLE
    }
    fn interface(
        &self,
        kind: u32,
        process: &Process,
        state: &mut CpuState,
    ) -> Result<&'static dyn GuestAbi, Option<Trap>> {
        if kind == SYSCALL_INT80 {
            return Ok(&I386);
        }
        // The caller has pushed ecx, edx and ebp. SYSENTER comes with the stack pointer in ebp; SYSCALL (of AMD
        // processors) with the second argument there, because it changes ecx.
        let bp = reg(state, BP) as u32 as u64;
        let (sp, second) = match kind {
            SYSCALL_SYSCALL => (reg(state, SP), bp),
            _ => (bp, reg(state, CX)),
        };
        set_reg(state, SP, sp as u32 as u64);
        set_reg(state, CX, second);
        state.set_pc(process.sigreturn_code() + LANDING_AT);
        let mut sixth = [0; 4];
        if process.space.copy_in(GuestVa(sp as u32 as u64), &mut sixth).is_err() {
            self.set_result(state, Err(Errno(libc::EFAULT)));
            return Err(None);
        }
        set_reg(state, BP, u32::from_le_bytes(sixth) as u64);
        Ok(&I386)
    }
    fn syscall(&self, state: &CpuState) -> (u64, [u64; 7]) {
        let r = |n| reg(state, n) as u32 as u64;
        (r(AX), [r(BX), r(CX), r(DX), r(SI), r(DI), r(BP), 0])
    }
    fn set_result(&self, state: &mut CpuState, result: Result<u64, Errno>) {
        let value = match result {
            Ok(v) => v,
            Err(e) => -(e.0 as i64) as u64,
        };
        let value = if is_long(state) { value } else { value as u32 as u64 };
        set_reg(state, AX, value);
    }
    fn rewind_syscall(&self, state: &mut CpuState) {
        state.set_pc(state.pc().wrapping_sub(2));
    }
    fn start(&self, cpu: &Cpu, state: &mut CpuState, entry: u64, sp: u64) {
        cpu.isa.reset(state);
        set_reg(state, SP, sp);
        state.set_pc(entry);
    }
    fn stack_pointer(&self, state: &CpuState) -> u64 {
        reg(state, SP)
    }
    fn start_clone(
        &self,
        process: &Process,
        state: &mut CpuState,
        sp: Option<u64>,
        tls: Option<u64>,
    ) {
        set_reg(state, AX, 0);
        if let Some(sp) = sp {
            set_reg(state, SP, sp);
        }
        // Checked before.
        if let Some(desc) = tls.and_then(|va| UserDesc::read(process, va).ok())
            && let Ok(index) = x86::tls_index(&desc)
        {
            x86::set_tls(state, index, &desc);
        }
    }
    fn check_tls(&self, process: &Process, tls: u64) -> Result<(), Errno> {
        x86::tls_index(&UserDesc::read(process, tls)?).map(drop)
    }
    fn clone_args(&self, args: &Args) -> [u64; 5] {
        let [flags, stack, parent_tid, tls, child_tid, ..] = *args;
        [flags, stack, parent_tid, child_tid, tls]
    }
    fn absorb_trap(&self, process: &Process, state: &mut CpuState, trap: Trap) -> bool {
        x86::absorb_trap(process, state, trap)
    }
    fn trap_signal(&self, process: &Process, state: &CpuState, trap: Trap) -> Option<TrapSignal> {
        x86::trap_signal(process, state, trap)
    }
    fn before_guest(&self, process: &Process, state: &mut CpuState) {
        x86::before_guest(process, state);
    }
    fn frame_abi(&self, _action: &Action) -> &'static dyn GuestAbi {
        &I386
    }
    fn push_frame(
        &self,
        space: &UserSpace,
        state: &mut CpuState,
        frame: &Frame<'_>,
    ) -> Result<(), Errno> {
        x86_32_frame::push(space, state, frame)
    }
    fn pop_frame(
        &self,
        process: &Process,
        state: &mut CpuState,
        kind: FrameKind,
    ) -> Result<Restored, Errno> {
        x86_32_frame::pop(process, state, kind)
    }
    fn sigreturn_code(&self) -> &'static [u8] {
        CODE
    }
    fn extra_auxv(&self, code: u64) -> Vec<(u64, u64)> {
        vec![(at::SYSINFO, code)]
    }
    fn executable_by_default(&self) -> bool {
        true
    }
    fn map_flags(&self) -> &'static [Bits] {
        x86::MAP_FLAGS
    }
    fn packed_epoll_event(&self) -> bool {
        true
    }
    fn stat_shown(&self, process: &Process, va: u64, form: StatForm) -> Option<(u32, i64)> {
        let m = self.model();
        match form {
            StatForm::Plain => {
                read_record::<Stat>(process, va, m).map(|st| (st.mode as u32, st.size as i64))
            }
            StatForm::Wide => read_record::<Stat64>(process, va, m).map(|st| (st.mode, st.size)),
            StatForm::Old => super::x86_64::old_stat_shown(process, va, m),
        }
    }
    fn stat_bytes(&self, st: &libc::stat, form: StatForm) -> Result<Vec<u8>, Errno> {
        match form {
            StatForm::Plain => stat(st, self.model()),
            StatForm::Wide => Ok(stat64(st, self.model())),
            StatForm::Old => super::x86_64::old_stat(st, self.model()),
        }
    }
}

fn stat(st: &libc::stat, m: DataModel) -> Result<Vec<u8>, Errno> {
    const EOVERFLOW: Errno = Errno(libc::EOVERFLOW);
    let stat = Stat {
        dev: st.st_dev as u32,
        ino: u32::try_from(st.st_ino).map_err(|_| EOVERFLOW)?,
        mode: st.st_mode as u16,
        nlink: u16::try_from(st.st_nlink).map_err(|_| EOVERFLOW)?,
        uid: id16::shown(st.st_uid),
        gid: id16::shown(st.st_gid),
        rdev: st.st_rdev as u32,
        size: i32::try_from(st.st_size).map_err(|_| EOVERFLOW)? as u32,
        blksize: st.st_blksize as u32,
        blocks: st.st_blocks as u32,
        atime: st.st_atime as u32,
        atime_nsec: st.st_atime_nsec as u32,
        mtime: st.st_mtime as u32,
        mtime_nsec: st.st_mtime_nsec as u32,
        ctime: st.st_ctime as u32,
        ctime_nsec: st.st_ctime_nsec as u32,
        _unused: [0; 2],
    };
    let mut bytes = vec![0; Stat::size(m)];
    Stat::put(&mut bytes, stat, m);
    Ok(bytes)
}

fn stat64(st: &libc::stat, m: DataModel) -> Vec<u8> {
    let stat = Stat64 {
        dev: st.st_dev,
        _pad0: 0,
        ino_low: st.st_ino as u32,
        mode: st.st_mode,
        nlink: st.st_nlink as u32,
        uid: st.st_uid,
        gid: st.st_gid,
        rdev: st.st_rdev,
        _pad3: 0,
        size: st.st_size,
        blksize: st.st_blksize as u32,
        blocks: st.st_blocks as u64,
        atime: st.st_atime as u32,
        atime_nsec: st.st_atime_nsec as u32,
        mtime: st.st_mtime as u32,
        mtime_nsec: st.st_mtime_nsec as u32,
        ctime: st.st_ctime as u32,
        ctime_nsec: st.st_ctime_nsec as u32,
        ino: st.st_ino,
    };
    let mut bytes = vec![0; Stat64::size(m)];
    Stat64::put(&mut bytes, stat, m);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        assert_eq!(Stat::size(DataModel::I386), 64);
        assert_eq!(Stat64::size(DataModel::I386), 96);
    }

    #[test]
    fn entries_of_the_code_page() {
        assert_eq!(CODE[LANDING_AT as usize - 2..LANDING_AT as usize], [0xcd, 0x80]);
        assert_eq!((CODE[SIGRETURN_AT as usize], CODE[RT_SIGRETURN_AT as usize]), (0x58, 0xb8));
    }

    /// Every number that the kernel assigns, and those that it once did.
    #[test]
    fn the_table_is_complete() {
        let have: Vec<u32> = I386.table().iter().map(|r| r.number).collect();
        let gap = |n: &u32| ![222, 223, 251, 285, 415].contains(n) && !(387..=392).contains(n);
        let want: Vec<u32> = (0..=462).filter(gap).collect();
        assert_eq!(have, want);
    }
}
