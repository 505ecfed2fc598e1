//! AArch64 Linux, little-endian: the kernel's generic interface, with its own open flags.
//!
//! System call number in x8, arguments in x0..x5, result (negative errors) in x0.

use super::generic::{HOST_O_LARGEFILE, bits};
use super::{Bits, Cpu, DataModel, GuestAbi, StatForm, aarch64_frame};
use crate::abi::record::{Field, I32, I64, Pad, U32, U64};
use crate::elf::{ElfClass, Machine};
use crate::process::Process;
use crate::record;
use crate::signals::{Action, Frame, FrameKind, Restored};
use crate::syscall::args::{Arg, Args};
use crate::syscall::{Errno, Handler, Row};
use tulk_arm::a64::regs::{self, cell};
use tulk_base::{CpuState, Trap};
use tulk_softmmu::UserSpace;

pub struct Aarch64;
pub static AARCH64: Aarch64 = Aarch64;

static TABLE: &[Row] = include!(concat!(env!("OUT_DIR"), "/aarch64.rs"));

const OPEN_FLAGS: &[Bits] = bits! {
    O_LARGEFILE 0o400000 => HOST_O_LARGEFILE;
    O_CREAT 0o100;
    O_EXCL 0o200;
    O_NOCTTY 0o400;
    O_TRUNC 0o1000;
    O_APPEND 0o2000;
    O_NONBLOCK 0o4000;
    O_SYNC 0o4010000;
    O_DSYNC 0o10000;
    O_ASYNC 0o20000;
    O_DIRECTORY 0o40000;
    O_NOFOLLOW 0o100000;
    O_DIRECT 0o200000;
    O_NOATIME 0o1000000;
    O_CLOEXEC 0o2000000;
    O_PATH 0o10000000;
    O_TMPFILE 0o20040000;
};

record! {
    /// The generic `struct stat` of 64-bit guests.
    pub struct Stat {
        dev: U64,
        ino: U64,
        mode: U32,
        nlink: U32,
        uid: U32,
        gid: U32,
        rdev: U64,
        _pad1: U64,
        size: I64,
        blksize: I32,
        _pad2: I32,
        blocks: I64,
        atime: I64,
        atime_nsec: U64,
        mtime: I64,
        mtime_nsec: U64,
        ctime: I64,
        ctime_nsec: U64,
        _unused: Pad<8>,
    }
}

impl GuestAbi for Aarch64 {
    fn name(&self) -> &'static str {
        "aarch64"
    }
    fn machine(&self) -> (Machine, ElfClass) {
        (Machine::AARCH64, ElfClass::Elf64)
    }
    fn model(&self) -> DataModel {
        DataModel::LP64
    }
    fn cpu(&self, model: Option<&str>) -> Result<Cpu, String> {
        crate::cpu::aarch64(model)
    }
    fn cpu_models(&self) -> Vec<&'static str> {
        tulk_arm::a64::cpu::MODELS.iter().map(|m| m.name).collect()
    }
    fn new_space(&self) -> Result<UserSpace, Errno> {
        Ok(UserSpace::flat()?.with_address_tags())
    }
    fn pie_base(&self) -> u64 {
        0x2aaa_aaaa_0000
    }
    fn min_signal_stack(&self) -> u64 {
        // siginfo, ucontext with its 4 KiB of extension records, and the frame record.
        4720
    }
    fn extra_prot(&self) -> u32 {
        0x10 // PROT_BTI
    }
    fn table(&self) -> &'static [Row] {
        TABLE
    }
    fn interface(
        &self,
        _kind: u32,
        _process: &Process,
        _state: &mut CpuState,
    ) -> Result<&'static dyn GuestAbi, Option<Trap>> {
        Ok(&AARCH64)
    }
    fn syscall(&self, state: &CpuState) -> (u64, [u64; 7]) {
        let x = |n: usize| state.get(cell(regs::X[n]));
        (x(8), [x(0), x(1), x(2), x(3), x(4), x(5), x(6)])
    }
    fn set_result(&self, state: &mut CpuState, result: Result<u64, Errno>) {
        let value = match result {
            Ok(v) => v,
            Err(e) => -(e.0 as i64) as u64,
        };
        state.set(cell(regs::X[0]), value);
    }
    fn rewind_syscall(&self, state: &mut CpuState) {
        state.set_pc(state.pc().wrapping_sub(4));
    }
    fn start(&self, cpu: &Cpu, state: &mut CpuState, entry: u64, sp: u64) {
        cpu.isa.reset(state);
        state.set(cell(regs::EXCL_ADDR), u64::MAX);
        state.set(cell(regs::SP), sp);
        state.set_pc(entry);
    }
    fn stack_pointer(&self, state: &CpuState) -> u64 {
        state.get(cell(regs::SP))
    }
    fn start_clone(
        &self,
        _process: &Process,
        state: &mut CpuState,
        sp: Option<u64>,
        tls: Option<u64>,
    ) {
        let mut set = |slot, value| state.set(regs::cell(slot), value);
        set(regs::X[0], 0);
        set(regs::EXCL_ADDR, u64::MAX);
        if let Some(sp) = sp {
            set(regs::SP, sp);
        }
        if let Some(tls) = tls {
            set(regs::TPIDR_EL0, tls);
        }
    }
    fn clone_args(&self, args: &Args) -> [u64; 5] {
        let [flags, stack, parent_tid, tls, child_tid, ..] = *args;
        [flags, stack, parent_tid, child_tid, tls]
    }
    fn frame_abi(&self, _action: &Action) -> &'static dyn GuestAbi {
        &AARCH64
    }
    fn push_frame(
        &self,
        space: &UserSpace,
        state: &mut CpuState,
        frame: &Frame<'_>,
    ) -> Result<(), Errno> {
        aarch64_frame::push(space, state, frame)
    }
    fn pop_frame(
        &self,
        process: &Process,
        state: &mut CpuState,
        _kind: FrameKind,
    ) -> Result<Restored, Errno> {
        aarch64_frame::pop(&process.space, state)
    }
    fn sigreturn_code(&self) -> &'static [u8] {
        // mov x8, #139; svc #0: what debuggers and unwinders look for.
        &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]
    }
    fn open_flags(&self) -> &'static [Bits] {
        OPEN_FLAGS
    }
    /// SEGV_ACCERR at the stack pointer.
    fn bad_frame(&self, state: &CpuState) -> (i32, u64) {
        (2, self.stack_pointer(state))
    }
    fn stat_shown(&self, process: &Process, va: u64, _form: StatForm) -> Option<(u32, i64)> {
        super::read_record::<Stat>(process, va, self.model()).map(|st| (st.mode, st.size))
    }
    fn stat_bytes(&self, st: &libc::stat, _form: StatForm) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; Stat::size(self.model())];
        let stat = Stat {
            dev: st.st_dev,
            ino: st.st_ino,
            mode: st.st_mode,
            nlink: st.st_nlink as u32,
            uid: st.st_uid,
            gid: st.st_gid,
            rdev: st.st_rdev,
            _pad1: 0,
            size: st.st_size,
            blksize: st.st_blksize as i32,
            _pad2: 0,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_has_the_generic_layout() {
        assert_eq!(Stat::size(DataModel::LP64), 128);
        let mut bytes = [0; 128];
        Stat::put(&mut bytes, Stat { size: 0x77, nlink: 5, ..Stat::zero() }, DataModel::LP64);
        assert_eq!((bytes[48], bytes[20]), (0x77, 5));
    }

    #[test]
    fn open_flags_are_this_guests() {
        let host = AARCH64.open_flags_to_host(0o40000 | 0o2000000 | 2);
        assert_eq!(host, libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_RDWR);
        let guest = AARCH64.open_flags_to_guest(libc::O_DIRECT | libc::O_WRONLY);
        assert_eq!(guest, 0o200001);
        // The host's kernel shows its own O_LARGEFILE, which must not become O_NOFOLLOW.
        assert_eq!(AARCH64.open_flags_to_guest(HOST_O_LARGEFILE as i32), 0o400000);
    }
}
