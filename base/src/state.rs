//! The CPU state of one guest thread or vCPU: one flat array of 64-bit cells.
//!
//! Guest registers, the interpreter's temporaries and the scratch cells of helper calls live in the same
//! array, so that the interpreter names all of them by one `u16` (which cannot be out of bounds) and
//! generated code reaches all of them from one base pointer.
//!
//! | cells | use |
//! |---|---|
//! | 0 | guest pc |
//! | 1..16 | engine scratch |
//! | 16..32 | helper arguments: four values of two cells (low, high), rest reserved |
//! | 32..34 | helper result (low, high) |
//! | 62..64 | always zero |
//! | 64..4096 | guest registers, as the frontend's layout places them |
//! | 4096.. | interpreter temporaries |
//!
//! A value narrower than 64 bits occupies one cell and only its low bits mean something. A 128-bit value
//! occupies two cells, low first, at an even index.

use std::sync::atomic::{AtomicU32, Ordering};
use zerocopy::FromZeros;

/// Number of cells: every `u16` is a valid index.
pub const CELLS: usize = 1 << 16;
pub const CELL_PC: u16 = 0;
pub const CELL_ARGS: u16 = 16;
pub const CELL_RET: u16 = 32;
/// Two cells that hold zero and are never written.
pub const CELL_ZERO: u16 = 62;
/// First cell that a guest's register layout may use.
pub const CELL_GUEST: u16 = 64;
/// First cell of the interpreter's temporaries.
pub const CELL_TEMPS: u16 = 4096;

/// Words for the code generator and the dispatcher: tables and pointers that generated code needs. Their
/// meaning is fixed in `backend/codegen`.
pub const ENGINE_WORDS: usize = 255;

/// Bit of [`CpuState::exit_request`]: the board may have an event.
pub const EXIT_EVENT: u32 = 4;
/// Byte offset of [`CpuState::exit_request`].
pub const OFFSET_EXIT_REQUEST: i32 = 0;
/// Byte offset of `engine[0]`.
pub const OFFSET_ENGINE: i32 = 8;
/// Byte offset of `cells[0]`.
pub const OFFSET_CELLS: i32 = 8 + 8 * ENGINE_WORDS as i32;

/// See the module. Half a megabyte of zeroed memory of which only the touched pages cost anything: an alignment above
/// the allocator's own would make the standard library write all the zeros.
#[derive(FromZeros)]
#[repr(C, align(16))]
pub struct CpuState {
    /// Non-zero asks the guest thread to leave guest code at the next poll. Other threads and signal
    /// handlers set it.
    pub exit_request: AtomicU32,
    _pad: u32,
    pub engine: [u64; ENGINE_WORDS],
    pub cells: [u64; CELLS],
}

impl CpuState {
    /// A zeroed state, straight from untouched memory.
    ///
    /// # Panics
    /// When the host has no memory left.
    pub fn new() -> Box<CpuState> {
        CpuState::new_box_zeroed().expect("host memory for a CPU state")
    }

    #[inline]
    pub fn pc(&self) -> u64 {
        self.cells[CELL_PC as usize]
    }
    #[inline]
    pub fn set_pc(&mut self, pc: u64) {
        self.cells[CELL_PC as usize] = pc;
    }
    #[inline]
    pub fn get(&self, cell: u16) -> u64 {
        self.cells[cell as usize]
    }
    #[inline]
    pub fn set(&mut self, cell: u16, value: u64) {
        self.cells[cell as usize] = value;
    }
    #[inline]
    pub fn get128(&self, cell: u16) -> u128 {
        self.cells[cell as usize] as u128
            | (self.cells[cell.wrapping_add(1) as usize] as u128) << 64
    }
    #[inline]
    pub fn set128(&mut self, cell: u16, value: u128) {
        self.cells[cell as usize] = value as u64;
        self.cells[cell.wrapping_add(1) as usize] = (value >> 64) as u64;
    }
    /// Asks the thread that runs this state to leave guest code soon.
    #[inline]
    pub fn request_exit(&self) {
        self.exit_request.store(1, Ordering::SeqCst);
    }
    /// Has it look for events of the board ([`crate::Board::take_event`]) before its next block: for instructions that let in
    /// what waited.
    #[inline]
    pub fn request_events(&self) {
        self.exit_request.fetch_or(EXIT_EVENT, Ordering::SeqCst);
    }
}
