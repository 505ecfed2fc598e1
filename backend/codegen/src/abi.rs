//! What generated code and the dispatcher agree on: the words of [`CpuState::engine`], the data behind a
//! region's code, and the calls that generated code makes.
//!
//! # Regions
//! A region is a Tail-convention function `fn(env: *mut CpuState)`. On x86-64 that is the System V convention
//! for one pointer argument: `rdi` is the state, nothing is on the stack. It leaves in one of two ways: by jumping to another region through an [edge](Edges), the return
//! ring or the jump cache; or by storing a [`Reason`] and its operands and returning. On return the
//! pc cell and all slots are exact.
//!
//! Code of [`crate::baseline`] obeys the same rules but restores no register: it changes the System V callee-saved
//! ones too. So whoever enters generated code saves those itself and expects nothing of them. (A Cranelift region
//! restores what it found before it leaves, by either way, and relies on nothing behind that.)
//!
//! # Edges
//! Behind the code lie edge records of [`EDGE_BYTES`]: word 0 is the code address of the target region, or 0
//! while not linked; word 1 belongs to the dispatcher (generated code never looks at it). They are written
//! through the writable view, word 0 by one atomic store.
//!
//! A direct exit of baseline code is a jump whose displacement is rewritten (by one aligned store of eight bytes, see
//! [`crate::code_memory::CodeMemory::link`]). Its record has [`JUMP_EDGE_BYTES`]. Word 0 is [`jump_record`]: the
//! instruction to which the jump leads while it is not linked, `call [word::THUNK_UNLINKED]`, and the distance to the
//! displacement. Word 2 is the guest pc of the target.
//!
//! # Thunks
//! Generated code calls two thunks, whose addresses stand in [`word::THUNK_HELPER`] and [`word::THUNK_EVAL`].
//! Convention: arguments as System V (`rdi` the state, `rsi`, `rdx`), no result, stack aligned as for any call,
//! and *every* register preserved, vector registers included; only the condition flags and the sticky float flags
//! may change. The thunk must not restore the float control register.
//!
//! * `helper(env, number, imm)` runs a row of the guest's helper table: [`helper_args`] fetches the arguments,
//!   [`set_result`] stores the result, [`word::STATUS`] becomes 0, or non-zero when the helper returned a trap
//!   (which the thunk keeps for the dispatcher); the region then leaves with [`Reason::HelperTrap`]. The pc
//!   cell holds the address of the calling guest instruction.
//! * `eval(env, w0, w1)` evaluates the IR operation packed in two words (`tulk_ir::interp::eval::EvalOp`) on
//!   [`eval_args`] and stores the result with [`set_result`]. It cannot fail.
//!
//! * `mem(env, access, pc)` does an access of [`crate::MemoryModel::Paged`] that the inline lookup did not, at the address in
//!   [`word::VA`]; [`MemAccess`] says which. Operands (value; expected and new) come as for `eval`, the result as in a plain
//!   load's or atomic's cell. It stores `pc` to the pc cell and [`word::STATUS`] as `helper` does.
//!
//! Baseline code also calls [`word::THUNK_STEP`], by the plain System V convention (it may change whatever a function
//! may): `step(env, program, index)` runs one step of a [`tulk_ir::interp::Program`] with [`tulk_ir::interp::step`].
//! [`word::STATUS`] becomes 0, or non-zero when the step returned a trap, which the thunk keeps as it keeps a
//! helper's; the code then leaves with [`Reason::HelperTrap`], and the pc cell is the one that the step left.

use tulk_base::state::{CELL_ARGS, CELL_GUEST, CELL_RET, OFFSET_CELLS, OFFSET_ENGINE};
use tulk_base::{CpuState, GuestMem, GuestVa, MemFault, MemOp, RmwOp};
use tulk_ir::HelperDef;

/// Numbers of the words in [`CpuState::engine`].
pub mod word {
    /// Set by the helper thunk: non-zero when the helper returned a trap.
    pub const STATUS: usize = 0;
    /// Byte offset of the return ring's newest entry from its first: a multiple of 32 below 512.
    pub const RING_TOP: usize = 1;
    /// Address of the step thunk.
    pub const THUNK_STEP: usize = 2;
    /// Address of the memory thunk.
    pub const THUNK_MEM: usize = 3;
    /// Host address of guest address 0 (for [`crate::MemoryModel::User`] with `BaseWord`).
    pub const MEM_BASE: usize = 4;
    /// Address of the way out of an unlinked jump: called from word 0 of its record, it leaves with
    /// [`super::Reason::Direct`].
    pub const THUNK_UNLINKED: usize = 5;
    /// Address of the way out of a block that was not entered: called in front of the block's guest pc, it leaves with
    /// [`super::Reason::Poll`] if `exit_request` is set, else with [`super::Reason::Hot`].
    pub const THUNK_ENTRY: usize = 6;
    /// Address of the eval thunk.
    pub const THUNK_EVAL: usize = 7;
    /// Address of the jump cache: [`super::JUMP_CACHE_ENTRIES`] of [`super::JumpEntry`].
    pub const JUMP_CACHE: usize = 8;
    /// Two words for each MMU index: of its data TLB ([`tulk_base::tlb`]) the mask (entries minus one, times the entry's
    /// size) and the address.
    /// Those of the first three are near the state's beginning, where a displacement takes one byte.
    pub const TLB: usize = 9;
    /// Address of the helper thunk.
    pub const THUNK_HELPER: usize = 41;
    /// Address of the guest's helper table, an array of [`tulk_ir::HelperDef`].
    pub const HELPERS: usize = 42;
    /// Guest address for the memory thunk.
    pub const VA: usize = 43;
    /// Why the region returned: a [`super::Reason`].
    pub const REASON: usize = 44;
    /// Operands of the reason.
    pub const A: usize = 45;
    pub const B: usize = 46;
    /// Nobody writes it.
    pub const ZERO: usize = 47;
    /// First word of the return ring: [`super::RING_ENTRIES`] of [`super::JumpEntry`]. Zeroed entries are
    /// empty: code address 0 never matches.
    pub const RING: usize = 48;
    /// One word for each MMU index of fetches: the address of its code TLB.
    pub const ITLB: usize = 112;
    /// From here on the words belong to the dispatcher.
    pub const DISPATCHER: usize = 128;
}

/// Entries of the return ring.
pub const RING_ENTRIES: usize = 16;
/// log2 of the entries of the jump cache.
pub const JUMP_CACHE_LOG2: u32 = 12;
pub const JUMP_CACHE_ENTRIES: usize = 1 << JUMP_CACHE_LOG2;
/// Bytes of one edge record.
pub const EDGE_BYTES: u32 = 16;
/// Bytes of the record of a jump.
pub const JUMP_EDGE_BYTES: u32 = 24;

/// Baseline code may count on `rbp` being this far ahead of `rdi`, the state: guest cells 0 to 31 have a displacement of one
/// byte. Who enters generated code sees to it, and regions keep `rbp`.
pub const RBP_BIAS: i32 = OFFSET_CELLS + 8 * CELL_GUEST as i32 + 128;

/// Word 0 of a jump's record, `distance` bytes behind the jump's displacement.
pub const fn jump_record(distance: u32) -> u64 {
    // call [rdi + d8]
    let thunk = (OFFSET_ENGINE + 8 * word::THUNK_UNLINKED as i32) as u64;
    0x57ff | thunk << 16 | ((1 << 31 | distance) as u64) << 32
}

/// The distance, if it is a jump's record: others have a code address there, or nothing.
pub const fn jump_of_record(word: u64) -> Option<u32> {
    if word >> 63 != 0 { Some((word >> 32) as u32 & !(1 << 31)) } else { None }
}

/// Bytes of the record with this word 0.
pub const fn record_bytes(word: u64) -> u32 {
    if jump_of_record(word).is_some() { JUMP_EDGE_BYTES } else { EDGE_BYTES }
}

/// An entry of the jump cache or the return ring. A lookup hits when pc and key flags are equal and `code` is
/// not 0. Only the thread of the state reads and writes them.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct JumpEntry {
    pub pc: u64,
    pub flags: u64,
    /// Entry address of a region, or 0.
    pub code: u64,
    /// Unused by generated code.
    pub user: u64,
}

const JUMP_HASH: u32 = 0x9e37_79b1;
/// Generated code computes `(low32(pc) * multiplier >> shift) & mask` as a byte offset into the jump cache.
pub(crate) const JUMP_HASH_PARTS: (u32, u32, u32) =
    (JUMP_HASH, 32 - JUMP_CACHE_LOG2 - 5, (JUMP_CACHE_ENTRIES as u32 - 1) << 5);

/// The entry of the jump cache in which `pc` may be.
#[inline]
pub const fn jump_cache_index(pc: u64) -> usize {
    ((pc as u32).wrapping_mul(JUMP_HASH) >> (32 - JUMP_CACHE_LOG2)) as usize
}

/// Why a region returned to the dispatcher, in [`word::REASON`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Reason {
    /// `exit_request` was set.
    Poll = 1,
    /// An edge that is not linked; `A` is the address of its record (in the executable view).
    Direct = 2,
    /// A computed pc that neither ring nor jump cache knew; `A` is the key flags of the target.
    Indirect = 3,
    /// A guest trap; `A` is the [`tulk_ir::ExitKind`], `B` the number.
    Trap = 4,
    /// The last helper or step returned a trap, which the thunk kept.
    HelperTrap = 5,
    /// A misaligned access; `A` is the guest address, `B` is 0 for a read and 1 for a write.
    Misaligned = 6,
    /// Look the next block up from the CPU state, whose mode may have changed.
    Resync = 7,
    /// Baseline code has been entered as often as its [`crate::baseline::Profile`] allows; nothing was done yet.
    Hot = 8,
    /// The page of the block at the pc cell is not, or not any more, what a check expected; see
    /// [`crate::PageCheck`].
    Page = 9,
}

impl Reason {
    pub const fn from_word(word: u64) -> Option<Reason> {
        Some(match word {
            1 => Reason::Poll,
            2 => Reason::Direct,
            3 => Reason::Indirect,
            4 => Reason::Trap,
            5 => Reason::HelperTrap,
            6 => Reason::Misaligned,
            7 => Reason::Resync,
            8 => Reason::Hot,
            9 => Reason::Page,
            _ => return None,
        })
    }
}

/// What the memory thunk shall do, packed in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemAccess {
    /// The result is extended to 64 bits as the operation says; 16 bytes to a pair.
    Load(MemOp),
    Store(MemOp),
    Rmw(MemOp, RmwOp),
    Cas(MemOp),
}

impl MemAccess {
    pub const fn to_word(self) -> u64 {
        match self {
            MemAccess::Load(op) => op.0 as u64,
            MemAccess::Store(op) => op.0 as u64 | 1 << 16,
            MemAccess::Rmw(op, rmw) => op.0 as u64 | 2 << 16 | (rmw as u64) << 20,
            MemAccess::Cas(op) => op.0 as u64 | 3 << 16,
        }
    }
    pub const fn from_word(word: u64) -> MemAccess {
        let op = MemOp(word as u16);
        match word >> 16 & 3 {
            0 => MemAccess::Load(op),
            1 => MemAccess::Store(op),
            2 => MemAccess::Rmw(op, RmwOp::ALL[(word >> 20 & 15) as usize % RmwOp::ALL.len()]),
            _ => MemAccess::Cas(op),
        }
    }
}

/// Does what the memory thunk is called for, on `mem`.
pub fn mem_access(
    state: &mut CpuState,
    mem: &mut impl GuestMem,
    access: MemAccess,
) -> Result<(), MemFault> {
    let va = GuestVa(state.engine[word::VA]);
    let (a, b) = (state.get128(CELL_ARGS), state.get128(CELL_ARGS + 2));
    let wide = |op: MemOp| op.log2() == 4;
    let value = match access {
        MemAccess::Load(op) if wide(op) => mem.load128(va, op)?,
        MemAccess::Load(op) => mem.load(va, op)? as u128,
        MemAccess::Store(op) if wide(op) => {
            mem.store128(va, op, a)?;
            return Ok(());
        }
        MemAccess::Store(op) => {
            mem.store(va, op, a as u64)?;
            return Ok(());
        }
        MemAccess::Rmw(op, rmw) => mem.rmw(va, op, rmw, a as u64)? as u128,
        MemAccess::Cas(op) => mem.cas(va, op, a, b)?,
    };
    set_result(state, value);
    Ok(())
}

/// The arguments of a helper call, zero-extended as helpers expect them, `imm` last. (The cells hold them in
/// the low bits only.)
#[inline]
pub fn helper_args(state: &CpuState, helper: &HelperDef, imm: u64) -> [u128; 4] {
    let mut args = [0, 0, 0, imm as u128];
    for (i, ty) in helper.args.iter().enumerate() {
        let cell = CELL_ARGS + 2 * i as u16;
        args[i] = match ty.bits() {
            128 => state.get128(cell),
            bits => (state.get(cell) & (u64::MAX >> (64 - bits))) as u128,
        };
    }
    args
}

/// The arguments of an eval call. As in the interpreter's cells, bits above an operand's type mean nothing.
#[inline]
pub fn eval_args(state: &CpuState) -> [u128; 3] {
    [state.get128(CELL_ARGS), state.get128(CELL_ARGS + 2), state.get128(CELL_ARGS + 4)]
}

/// Stores the result of a thunk.
#[inline]
pub fn set_result(state: &mut CpuState, value: u128) {
    state.set128(CELL_RET, value);
}
