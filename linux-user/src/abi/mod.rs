//! What differs between guests: numbers, flags, structures, registers.
//!
//! A guest is one file here, one table in `data/`, and one row in [`GUESTS`].

pub mod aarch64;
mod aarch64_frame;
pub mod generic;
pub mod record;

use crate::elf::{ElfClass, Machine};
use crate::host::signal::SIGINFO_BYTES;
use crate::signals::{Frame, Restored};
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
    /// One processor's paragraph of `/proc/cpuinfo`, without the `processor` line.
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

    /// Number and argument registers of the system call at hand.
    fn syscall(&self, state: &CpuState) -> (u64, [u64; 7]);
    fn set_result(&self, state: &mut CpuState, result: Result<u64, Errno>);
    /// Moves the pc back to the system call instruction.
    fn rewind_syscall(&self, state: &mut CpuState);
    /// Registers of a new program.
    fn start(&self, state: &mut CpuState, entry: u64, sp: u64);
    fn stack_pointer(&self, state: &CpuState) -> u64;
    /// Registers of a new thread or process, copied from its parent's: `sp` and `tls` where the guest gave them,
    /// result 0.
    fn start_clone(&self, state: &mut CpuState, sp: Option<u64>, tls: Option<u64>);
    /// `clone`'s arguments in one order: flags, stack, parent tid, child tid, tls.
    fn clone_args(&self, args: &crate::syscall::args::Args) -> [u64; 5];

    /// Signal, code and address of a trap where this guest has its own.
    fn trap_signal(&self, _trap: Trap, _state: &CpuState) -> Option<(i32, i32, u64)> {
        None
    }
    /// Pushes a signal frame and enters the handler; an error when the stack has no room.
    fn push_frame(
        &self,
        space: &UserSpace,
        state: &mut CpuState,
        frame: &Frame<'_>,
    ) -> Result<(), Errno>;
    /// Takes a frame's registers back.
    fn pop_frame(&self, space: &UserSpace, state: &mut CpuState) -> Result<Restored, Errno>;
    /// A host `siginfo_t` as the guest's.
    fn siginfo_bytes(&self, info: &[u8; SIGINFO_BYTES]) -> Vec<u8> {
        info.to_vec()
    }
    /// The reverse.
    fn siginfo_to_host(&self, bytes: &[u8]) -> Option<[u8; SIGINFO_BYTES]> {
        bytes.try_into().ok()
    }
    /// Instructions that call `rt_sigreturn`, mapped for handlers without a restorer.
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
    /// The guest's `struct stat` for newfstatat and fstat.
    fn stat_bytes(&self, st: &libc::stat) -> Vec<u8>;
    /// `struct epoll_event` has no padding before its data.
    fn packed_epoll_event(&self) -> bool {
        false
    }
}

/// All guests.
pub static GUESTS: &[&dyn GuestAbi] = &[&aarch64::AARCH64];

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
