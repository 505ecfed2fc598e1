//! What goes into a compilation and what comes out.

use crate::fault_map::FaultMap;
use tulk_ir::{ExitKind, HelperDef, RegLayout, Unit};

/// How guest addresses become host addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryModel {
    /// The guest address is the host address.
    Flat,
    /// Host address = [`crate::abi::word::MEM_BASE`] plus the zero-extended guest address. On both sides of the 4 GiB lie
    /// [`tulk_base::mem::WINDOW_GUARD`] bytes that fault; a precise region may fault there where a guest address wraps.
    Based,
    /// Guest addresses are looked up in the data TLB of the access's MMU index ([`tulk_base::tlb`]); what is not found there goes
    /// through [`crate::abi::word::THUNK_MEM`]. The host never faults. Slots are exact at each access.
    Paged,
}

/// What must hold where a block is entered, in paged memory: that its virtual page is what it was when the block was
/// translated. Code leaves with [`crate::abi::Reason::Page`] when it is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageCheck {
    /// The MMU index of fetches.
    pub mmu: u8,
    /// The entry of the code TLB ([`tulk_base::tlb::itlb_index`]).
    pub index: u16,
    /// What it must hold.
    pub id: u32,
}

impl PageCheck {
    /// The engine word with the table's address.
    pub(crate) fn word(self) -> usize {
        crate::abi::word::ITLB + self.mmu as usize
    }
    /// The entry's offset there, in bytes.
    pub(crate) fn offset(self) -> i32 {
        4 * self.index as i32
    }
}

/// One compilation. All units have the same NaN rule.
#[derive(Clone, Copy)]
pub struct RegionInput<'a> {
    /// `units[0]` is the entry. A direct exit to the pc and key flags of another unit is a jump inside the region. No two
    /// units have both in common.
    pub units: &'a [&'a Unit],
    pub layout: &'a RegLayout,
    pub helpers: &'a [HelperDef],
    pub mem: MemoryModel,
    /// At a fault all slots are exact at the pc that the fault map names, from which the interpreter repeats what led
    /// to the fault; else the pc is that of the faulting instruction, and the slots are not exact.
    pub precise: bool,
    /// For each unit what must hold where control comes to it from outside or from a unit that demands something else;
    /// empty when nothing is demanded.
    pub pages: &'a [PageCheck],
    /// Where computed jumps and calls probably lead, the likely ones first: where that is another unit, they are compared
    /// with it and stay inside.
    pub targets: &'a [Target],
}

/// A computed exit of the unit with pc and key flags `from` may lead to `pc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    pub from: (u64, u64),
    pub pc: u64,
}

impl RegionInput<'_> {
    /// Where the computed jump or call of a unit probably leads.
    pub(crate) fn targets_of(&self, unit: &Unit) -> impl Iterator<Item = u64> {
        let from = (unit.pc, unit.flags);
        self.targets.iter().filter(move |target| target.from == from).map(|target| target.pc)
    }

    /// What unit `to` demands that unit `from` does not.
    pub(crate) fn page_check(&self, from: usize, to: usize) -> Option<PageCheck> {
        let (from, to) = (self.pages.get(from), self.pages.get(to));
        to.filter(|_| from != to).copied()
    }
}

/// What an edge stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EdgeKind {
    /// A direct exit of this kind (`Jump`, `Call` or `Return`).
    Exit(ExitKind),
    /// Not left through: when linked, calls push its target as the code of their return address.
    ReturnSite,
}

/// One edge record of a region, see [`crate::abi`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    /// Guest pc of the target block.
    pub pc: u64,
    /// Key flags of the target block.
    pub flags: u64,
    pub kind: EdgeKind,
    /// Byte offset of the record from the start of the region.
    pub offset: u32,
}

/// Machine code of one region: position-independent, to be placed at a multiple of [`Region::ALIGN`]. The entry
/// is its first byte.
#[derive(Clone, Debug)]
pub struct Region {
    /// Code, literals, and the edge records (zeroed, but for those of jumps).
    pub bytes: Vec<u8>,
    /// Bytes of `bytes` that are code.
    pub code_len: u32,
    pub edges: Vec<Edge>,
    /// Baseline code: the direct exit that is taken whenever none of the others is, which are counted.
    pub derived: Option<u8>,
    pub fault_map: FaultMap,
    /// Guest instructions compiled.
    pub guest_insns: u32,
    /// Cranelift IR and assembly, when the compiler was asked for them.
    pub listing: Option<Box<Listing>>,
}

impl Region {
    /// Of code, edge records and constants.
    pub const ALIGN: usize = 16;
}

/// Text for logs.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub clif: String,
    /// Cranelift's assembly listing.
    pub asm: String,
}

/// Why a region was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("region has no units")]
    Empty,
    #[error("region is too large for the code generator: {0}")]
    TooLarge(String),
    #[error("this host processor cannot be compiled for: {0}")]
    Host(String),
    #[error("code generator failed: {0}")]
    Cranelift(String),
}
