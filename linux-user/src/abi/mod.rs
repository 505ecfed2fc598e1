//! What differs between guests: numbers, flags, structures, registers.
//!
//! A guest is one file here, one table in `data/`, and one row in [`GUESTS`].

pub mod aarch64;
mod aarch64_frame;
pub mod generic;
pub mod i386;
pub mod record;
pub mod siginfo;
pub mod x86;
mod x86_32_frame;
pub mod x86_64;
mod x86_64_frame;
mod x86_fpstate;

use crate::elf::{ElfClass, Machine};
use crate::host::signal::SIGINFO_BYTES;
use crate::process::Process;
use crate::signals::{Action, Exception, Frame, FrameKind, Restored};
use crate::syscall::{Errno, Row};
pub use record::DataModel;
use std::sync::Arc;
use tulk_base::{CpuState, Trap};
use tulk_frontend::GuestIsa;
use tulk_softmmu::UserSpace;

/// One bit (or field value) that has another number on the guest.
#[derive(Clone, Copy, Debug)]
pub struct Bits {
    pub name: &'static str,
    pub guest: u32,
    pub host: u32,
}

/// A configured processor: how it runs code and how it describes itself.
pub struct Cpu {
    pub isa: Arc<dyn GuestIsa>,
    pub hwcap: u64,
    pub hwcap2: u64,
    /// One processor's paragraph of `/proc/cpuinfo`, without the `processor` line; `{n}` stands for its number, `{count}` for
    /// how many there are.
    pub cpuinfo: String,
}

/// A guest kernel interface.
pub trait GuestAbi: Send + Sync {
    /// The guest as users name it.
    fn name(&self) -> &'static str;
    /// ELF identity of its programs.
    fn machine(&self) -> (Machine, ElfClass);
    fn model(&self) -> DataModel;
    /// `uname -m`.
    fn uname_machine(&self) -> &'static str {
        self.name()
    }
    /// `AT_PLATFORM`.
    fn platform(&self) -> &'static str {
        self.name()
    }
    /// A CPU by the name given to `-cpu`, or one line that says what is wrong.
    fn cpu(&self, model: Option<&str>) -> Result<Cpu, String>;
    /// The names that [`GuestAbi::cpu`] knows.
    fn cpu_models(&self) -> Vec<&'static str>;
    fn new_space(&self) -> Result<UserSpace, Errno>;
    /// Where position-independent programs go, and where the heap of such a program may start.
    fn pie_base(&self) -> u64;
    /// Smallest signal stack (`AT_MINSIGSTKSZ`).
    fn min_signal_stack(&self) -> u64 {
        2048
    }
    /// Additional protection bits that mprotect and mmap accept and ignore (`PROT_BTI`).
    fn extra_prot(&self) -> u32 {
        0
    }

    /// All rows, by rising number.
    fn table(&self) -> &'static [Row];
    fn row(&self, number: u32) -> Option<&'static Row> {
        let table = self.table();
        // Tables start without gaps, so that most rows are at their number.
        if let Some(row) = table.get(number as usize)
            && row.number == number
        {
            return Some(row);
        }
        table.binary_search_by_key(&number, |r| r.number).ok().map(|i| &table[i])
    }
    /// 64-bit arguments of a 32-bit guest start at an even register.
    fn aligned_pairs(&self) -> bool {
        false
    }

    /// The kernel interface behind a system call instruction (`Trap::Syscall`'s number), and what the instruction itself
    /// does to the registers. Fails with the trap to raise instead, or with nothing when the call has been answered.
    fn interface(
        &self,
        kind: u32,
        process: &Process,
        state: &mut CpuState,
    ) -> Result<&'static dyn GuestAbi, Option<Trap>>;
    /// Number and argument registers of the system call at hand.
    fn syscall(&self, state: &CpuState) -> (u64, [u64; 7]);
    fn set_result(&self, state: &mut CpuState, result: Result<u64, Errno>);
    /// Moves the pc back to the system call instruction.
    fn rewind_syscall(&self, state: &mut CpuState);
    /// Registers of a new program.
    fn start(&self, cpu: &Cpu, state: &mut CpuState, entry: u64, sp: u64);
    fn stack_pointer(&self, state: &CpuState) -> u64;
    /// Registers of a new thread or process, copied from its parent's: `sp` and `tls` where the guest gave them,
    /// result 0.
    fn start_clone(
        &self,
        process: &Process,
        state: &mut CpuState,
        sp: Option<u64>,
        tls: Option<u64>,
    );
    /// Whether [`GuestAbi::start_clone`] can use this `tls`.
    fn check_tls(&self, _process: &Process, _tls: u64) -> Result<(), Errno> {
        Ok(())
    }
    /// `clone`'s arguments in one order: flags, stack, parent tid, child tid, tls.
    fn clone_args(&self, args: &crate::syscall::args::Args) -> [u64; 5];

    /// Deals with a trap that is no signal; guest code then goes on.
    fn absorb_trap(&self, _process: &Process, _state: &mut CpuState, _trap: Trap) -> bool {
        false
    }
    /// The signal of a trap where this guest has its own.
    fn trap_signal(
        &self,
        _process: &Process,
        _state: &CpuState,
        _trap: Trap,
    ) -> Option<TrapSignal> {
        None
    }
    /// Called whenever guest code is about to go on after a trap.
    fn before_guest(&self, _process: &Process, _state: &mut CpuState) {}
    /// Whose frames this action's handler gets.
    fn frame_abi(&self, action: &Action) -> &'static dyn GuestAbi;
    /// Bytes below the stack pointer that interrupted code uses.
    fn red_zone(&self) -> u64 {
        0
    }
    /// Pushes a signal frame and enters the handler; an error when the stack has no room.
    fn push_frame(
        &self,
        space: &UserSpace,
        state: &mut CpuState,
        frame: &Frame<'_>,
    ) -> Result<(), Errno>;
    /// Takes a frame's registers back.
    fn pop_frame(
        &self,
        process: &Process,
        state: &mut CpuState,
        kind: FrameKind,
    ) -> Result<Restored, Errno>;
    /// Code and address of the SIGSEGV for a frame that cannot be taken back.
    fn bad_frame(&self, _state: &CpuState) -> (i32, u64) {
        (libc::SI_KERNEL, 0)
    }
    /// A host `siginfo_t` as the guest's.
    fn siginfo_bytes(&self, info: &[u8; SIGINFO_BYTES]) -> [u8; SIGINFO_BYTES] {
        siginfo::convert(info, DataModel::HOST, self.model())
    }
    /// The reverse.
    fn siginfo_to_host(&self, bytes: &[u8; SIGINFO_BYTES]) -> [u8; SIGINFO_BYTES] {
        siginfo::convert(bytes, self.model(), DataModel::HOST)
    }
    /// Code of the kernel's that programs call or return to, mapped on a page of its own: at least what calls
    /// `rt_sigreturn` for handlers without a restorer.
    fn sigreturn_code(&self) -> &'static [u8];

    /// The guest's number for a host error.
    fn errno(&self, host: i32) -> i32 {
        host
    }
    fn open_flags(&self) -> &'static [Bits] {
        generic::OPEN_FLAGS
    }
    fn open_flags_to_host(&self, guest: u32) -> i32 {
        to_host(self.open_flags(), guest) as i32
    }
    fn open_flags_to_guest(&self, host: i32) -> u32 {
        to_guest(self.open_flags(), host as u32)
    }
    fn map_flags(&self) -> &'static [Bits] {
        generic::MAP_FLAGS
    }
    /// The guest's `struct stat` in one of its forms; EOVERFLOW when it does not fit.
    fn stat_bytes(&self, st: &libc::stat, form: StatForm) -> Result<Vec<u8>, Errno>;
    /// Mode and size in a `struct stat` of the guest's; `None` when it is not there.
    fn stat_shown(&self, process: &Process, va: u64, form: StatForm) -> Option<(u32, i64)>;
    /// `struct epoll_event` has no padding before its data.
    fn packed_epoll_event(&self) -> bool {
        false
    }
    /// `struct semid_ds` has a word behind each of its times on 64-bit guests too.
    fn padded_semid_ds(&self) -> bool {
        self.model().word == 4
    }
    /// `uname -m` under `PER_LINUX32`.
    fn uname_machine32(&self) -> &'static str {
        self.uname_machine()
    }
    /// A program that does not say whether its stack is executable gets all its readable memory executable.
    fn executable_by_default(&self) -> bool {
        false
    }
    /// Auxiliary vector entries of this guest only; `code` is where [`GuestAbi::sigreturn_code`] is.
    fn extra_auxv(&self, _code: u64) -> Vec<(u64, u64)> {
        Vec::new()
    }
    /// Mappings of the kernel's own for `/proc/self/maps`, above all others.
    fn kernel_maps(&self) -> &'static str {
        ""
    }
    /// Guests of one family run each other's programs on one machine.
    fn family(&self) -> &'static str {
        self.name()
    }
}

/// A structure in the guest's memory.
fn read_record<F: record::Field>(process: &Process, va: u64, m: DataModel) -> Option<F::Host> {
    let mut bytes = vec![0; F::size(m)];
    process.space.copy_in(tulk_base::GuestVa(va), &mut bytes).ok()?;
    Some(F::get(&bytes, m))
}

/// The signal that a trap becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrapSignal {
    pub number: i32,
    pub code: i32,
    pub address: u64,
    /// What the processor tells beside it.
    pub exception: Exception,
}

/// Which `struct stat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatForm {
    /// That of `stat` and `newfstatat`.
    Plain,
    /// `stat64` of 32-bit guests.
    Wide,
    /// Of the first Linux.
    Old,
}

/// All guests.
pub static GUESTS: &[&dyn GuestAbi] = &[&aarch64::AARCH64, &x86_64::X86_64, &i386::I386];

/// The guest that runs programs of this ELF identity.
pub fn for_machine(
    machine: Machine,
    class: ElfClass,
    big_endian: bool,
) -> Option<&'static dyn GuestAbi> {
    GUESTS
        .iter()
        .copied()
        .find(|g| g.machine() == (machine, class) && g.model().big_endian == big_endian)
}

/// Translates a word of flags; bits that the table does not name pass.
pub fn to_host(table: &[Bits], guest: u32) -> u32 {
    translate(table, guest, |b| b.guest, |b| b.host)
}
/// The reverse.
pub fn to_guest(table: &[Bits], host: u32) -> u32 {
    translate(table, host, |b| b.host, |b| b.guest)
}

fn translate(
    table: &[Bits],
    word: u32,
    from: impl Fn(&Bits) -> u32,
    to: impl Fn(&Bits) -> u32,
) -> u32 {
    let known = table.iter().fold(0, |all, b| all | from(b));
    let named = table
        .iter()
        .filter(|b| from(b) != 0 && word & from(b) == from(b))
        .fold(0, |out, b| out | to(b));
    let targets = table.iter().fold(0, |all, b| all | to(b));
    named | word & !known & !targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_survive_a_round_trip() {
        for guest in GUESTS {
            for table in [guest.open_flags(), guest.map_flags()] {
                for b in table.iter().filter(|b| b.host != 0) {
                    assert_eq!(to_guest(table, to_host(table, b.guest)), b.guest, "{}", b.name);
                }
            }
        }
    }

    #[test]
    fn every_row_is_found_and_says_who_serves_it() {
        for guest in GUESTS {
            let table = guest.table();
            assert!(table.windows(2).all(|w| w[0].number < w[1].number));
            for row in table {
                assert_eq!(guest.row(row.number).map(|r| r.name), Some(row.name));
            }
        }
    }

    /// Every number that the kernel assigns to 64-bit guests with the generic table has its row.
    #[test]
    fn the_generic_table_is_complete() {
        let have: Vec<u32> = aarch64::AARCH64.table().iter().map(|r| r.number).collect();
        let want: Vec<u32> = (0..=243).chain(260..=294).chain(424..=462).collect();
        assert_eq!(have, want);
    }
}
