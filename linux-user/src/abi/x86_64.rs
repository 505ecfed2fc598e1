//! x86-64 Linux. SYSCALL: number in rax, arguments in rdi, rsi, rdx, r10, r8, r9, result (negative errors) in rax; the
//! instruction itself puts the return address into rcx and the flags into r11. INT 0x80 is the 32-bit interface,
//! here too. There is no vDSO; calls of the old vsyscall page fault there and are emulated.

use super::i386::I386;
use super::x86::{self, AX, DI, DX, SI, SP, reg, set_reg};
use super::{Bits, Cpu, DataModel, GuestAbi, StatForm, TrapSignal, read_record, x86_64_frame};
use crate::abi::record::{Field, I32, I64, Pad, U16, U32, U64};
use crate::elf::{ElfClass, Machine};
use crate::process::Process;
use crate::signals::{Action, Frame, FrameKind, Restored};
use crate::syscall::args::{Arg, Args};
use crate::syscall::{Errno, Handler, Row};
use crate::{host, record, sys};
use tulk_base::{AccessKind, CpuState, GuestVa, Trap};
use tulk_softmmu::UserSpace;
use tulk_x86::regs::{self, cell};
use tulk_x86::{Mode, SYSCALL_INT80, SYSCALL_SYSCALL, cpu::CHIPS};

pub struct Guest;
pub static X86_64: Guest = Guest;

static TABLE: &[Row] = include!(concat!(env!("OUT_DIR"), "/x86_64.rs"));

record! {
    pub struct Stat {
        dev: U64,
        ino: U64,
        nlink: U64,
        mode: U32,
        uid: U32,
        gid: U32,
        _pad0: U32,
        rdev: U64,
        size: I64,
        blksize: I64,
        blocks: I64,
        atime: I64,
        atime_nsec: U64,
        mtime: I64,
        mtime_nsec: U64,
        ctime: I64,
        ctime_nsec: U64,
        _unused: Pad<24>,
    }
    /// `struct __old_kernel_stat`, which both x86 guests have.
    pub struct OldStat {
        dev: U16,
        ino: U16,
        mode: U16,
        nlink: U16,
        uid: U16,
        gid: U16,
        rdev: U16,
        _pad: U16,
        size: U32,
        atime: U32,
        mtime: U32,
        ctime: U32,
    }
    struct Timeval { sec: I64, usec: I64 }
    struct Timezone { west: I32, dst: I32 }
}

/// The page of the first "virtual system calls", which old static programs call.
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

/// What a call of the vsyscall page returns; `None` when it faults.
fn vsyscall(process: &Process, number: u64, a: [u64; 2]) -> Option<u64> {
    let m = DataModel::LP64;
    let put = |va: u64, bytes: &[u8]| va == 0 || process.space.copy_out(GuestVa(va), bytes).is_ok();
    match number {
        // gettimeofday
        0 => {
            let now = host::clock_gettime(libc::CLOCK_REALTIME).ok()?;
            let (mut tv, mut zone) = ([0; 16], [0; 8]);
            Timeval::put(&mut tv, Timeval { sec: now.tv_sec, usec: now.tv_nsec / 1000 }, m);
            Timezone::put(&mut zone, Timezone { west: 0, dst: 0 }, m);
            (put(a[0], &tv) && put(a[1], &zone)).then_some(0)
        }
        // time
        1 => {
            let now = host::clock_gettime(libc::CLOCK_REALTIME).ok()?.tv_sec as u64;
            put(a[0], &now.to_le_bytes()).then_some(now)
        }
        // getcpu
        2 => {
            let (mut cpu, mut node) = (0u32, 0u32);
            sys!(SYS_getcpu, &mut cpu, &mut node, 0).ok()?;
            (put(a[0], &cpu.to_le_bytes()) && put(a[1], &node.to_le_bytes())).then_some(0)
        }
        _ => None,
    }
}

/// Emulates the vsyscall page when execution came to one of its entries.
fn absorb_vsyscall(process: &Process, state: &mut CpuState, trap: Trap) -> bool {
    let Trap::Mem(fault) = trap else { return false };
    let pc = state.pc();
    if fault.kind != AccessKind::Exec || pc & !0xc00 != VSYSCALL {
        return false;
    }
    let mut back = [0; 8];
    let sp = reg(state, SP);
    if process.space.copy_in(GuestVa(sp), &mut back).is_err() {
        return false;
    }
    let args = [reg(state, DI), reg(state, SI)];
    let Some(result) = vsyscall(process, pc >> 10 & 3, args) else { return false };
    set_reg(state, AX, result);
    set_reg(state, SP, sp.wrapping_add(8));
    state.set_pc(u64::from_le_bytes(back));
    true
}

impl GuestAbi for Guest {
    fn name(&self) -> &'static str {
        "x86_64"
    }
    fn family(&self) -> &'static str {
        "x86"
    }
    fn machine(&self) -> (Machine, ElfClass) {
        (Machine::X86_64, ElfClass::Elf64)
    }
    fn model(&self) -> DataModel {
        DataModel::LP64
    }
    fn uname_machine32(&self) -> &'static str {
        "i686"
    }
    fn cpu(&self, model: Option<&str>) -> Result<Cpu, String> {
        x86::cpu(Mode::X86_64, model)
    }
    fn cpu_models(&self) -> Vec<&'static str> {
        CHIPS.iter().map(|c| c.name).collect()
    }
    fn new_space(&self) -> Result<UserSpace, Errno> {
        UserSpace::flat()
    }
    fn pie_base(&self) -> u64 {
        0x2aaa_aaaa_0000
    }
    fn table(&self) -> &'static [Row] {
        TABLE
    }
    fn interface(
        &self,
        kind: u32,
        _process: &Process,
        _state: &mut CpuState,
    ) -> Result<&'static dyn GuestAbi, Option<Trap>> {
        match kind {
            SYSCALL_SYSCALL => Ok(&X86_64),
            SYSCALL_INT80 => Ok(&I386),
            // SYSENTER returns to a vDSO that 64-bit programs do not have.
            _ => Err(Some(Trap::Privileged)),
        }
    }
    fn syscall(&self, state: &CpuState) -> (u64, [u64; 7]) {
        let r = |n| reg(state, n);
        // The kernel looks at eax alone.
        (r(AX) as u32 as u64, [r(DI), r(SI), r(DX), r(10), r(8), r(9), 0])
    }
    fn set_result(&self, state: &mut CpuState, result: Result<u64, Errno>) {
        let value = match result {
            Ok(v) => v,
            Err(e) => -(e.0 as i64) as u64,
        };
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
        _process: &Process,
        state: &mut CpuState,
        sp: Option<u64>,
        tls: Option<u64>,
    ) {
        set_reg(state, AX, 0);
        if let Some(sp) = sp {
            set_reg(state, SP, sp);
        }
        if let Some(tls) = tls {
            state.set(cell(regs::SEG_BASE[regs::FS]), tls);
        }
    }
    fn clone_args(&self, args: &Args) -> [u64; 5] {
        let [flags, stack, parent_tid, child_tid, tls, ..] = *args;
        [flags, stack, parent_tid, child_tid, tls]
    }
    fn absorb_trap(&self, process: &Process, state: &mut CpuState, trap: Trap) -> bool {
        x86::absorb_trap(process, state, trap) || absorb_vsyscall(process, state, trap)
    }
    fn trap_signal(&self, process: &Process, state: &CpuState, trap: Trap) -> Option<TrapSignal> {
        x86::trap_signal(process, state, trap)
    }
    fn before_guest(&self, process: &Process, state: &mut CpuState) {
        x86::before_guest(process, state);
    }
    fn frame_abi(&self, action: &Action) -> &'static dyn GuestAbi {
        if action.narrow { &I386 } else { &X86_64 }
    }
    fn red_zone(&self) -> u64 {
        128
    }
    fn push_frame(
        &self,
        space: &UserSpace,
        state: &mut CpuState,
        frame: &Frame<'_>,
    ) -> Result<(), Errno> {
        x86_64_frame::push(space, state, frame)
    }
    fn pop_frame(
        &self,
        process: &Process,
        state: &mut CpuState,
        _kind: FrameKind,
    ) -> Result<Restored, Errno> {
        x86_64_frame::pop(process, state)
    }
    /// None: a handler without a restorer cannot return, as on Linux.
    fn sigreturn_code(&self) -> &'static [u8] {
        &[]
    }
    fn map_flags(&self) -> &'static [Bits] {
        x86::MAP_FLAGS
    }
    fn packed_epoll_event(&self) -> bool {
        true
    }
    fn padded_semid_ds(&self) -> bool {
        true
    }
    fn kernel_maps(&self) -> &'static str {
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    }
    fn stat_shown(&self, process: &Process, va: u64, form: StatForm) -> Option<(u32, i64)> {
        if form == StatForm::Old {
            return old_stat_shown(process, va, self.model());
        }
        read_record::<Stat>(process, va, self.model()).map(|st| (st.mode, st.size))
    }
    fn stat_bytes(&self, st: &libc::stat, form: StatForm) -> Result<Vec<u8>, Errno> {
        if form == StatForm::Old {
            return old_stat(st, self.model());
        }
        let mut bytes = vec![0; Stat::size(self.model())];
        let stat = Stat {
            dev: st.st_dev,
            ino: st.st_ino,
            nlink: st.st_nlink,
            mode: st.st_mode,
            uid: st.st_uid,
            gid: st.st_gid,
            _pad0: 0,
            rdev: st.st_rdev,
            size: st.st_size,
            blksize: st.st_blksize,
            blocks: st.st_blocks,
            atime: st.st_atime,
            atime_nsec: st.st_atime_nsec as u64,
            mtime: st.st_mtime,
            mtime_nsec: st.st_mtime_nsec as u64,
            ctime: st.st_ctime,
            ctime_nsec: st.st_ctime_nsec as u64,
            _unused: (),
        };
        Stat::put(&mut bytes, stat, self.model());
        Ok(bytes)
    }
}

/// Mode and size of [`OldStat`].
pub fn old_stat_shown(process: &Process, va: u64, m: DataModel) -> Option<(u32, i64)> {
    read_record::<OldStat>(process, va, m).map(|st| (st.mode as u32, st.size as i64))
}

/// The oldest `struct stat`: device numbers, inode and links must fit 16 bits, the size 31.
pub fn old_stat(st: &libc::stat, m: DataModel) -> Result<Vec<u8>, Errno> {
    const EOVERFLOW: Errno = Errno(libc::EOVERFLOW);
    let id = |v: u32| u16::try_from(v).unwrap_or(crate::syscall::id16::OVERFLOW);
    let stat = OldStat {
        dev: st.st_dev as u16,
        ino: u16::try_from(st.st_ino).map_err(|_| EOVERFLOW)?,
        mode: st.st_mode as u16,
        nlink: u16::try_from(st.st_nlink).map_err(|_| EOVERFLOW)?,
        uid: id(st.st_uid),
        gid: id(st.st_gid),
        rdev: st.st_rdev as u16,
        _pad: 0,
        size: i32::try_from(st.st_size).map_err(|_| EOVERFLOW)? as u32,
        atime: st.st_atime as u32,
        mtime: st.st_mtime as u32,
        ctime: st.st_ctime as u32,
    };
    let mut bytes = vec![0; OldStat::size(m)];
    OldStat::put(&mut bytes, stat, m);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        assert_eq!(Stat::size(DataModel::LP64), 144);
        assert_eq!(OldStat::size(DataModel::I386), 32);
    }

    /// Every number that the kernel assigns.
    #[test]
    fn the_table_is_complete() {
        let have: Vec<u32> = X86_64.table().iter().map(|r| r.number).collect();
        let want: Vec<u32> = (0..=334).chain(424..=462).collect();
        assert_eq!(have, want);
    }
}
