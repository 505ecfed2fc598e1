//! The vocabulary that every part of tulk shares: addresses, memory operations, faults and the CPU state.
//!
//! No I/O and no behaviour beyond reading and writing these values. Everything here is guest-neutral.
#![forbid(unsafe_code)]

pub mod addr;
pub mod fault;
pub mod machine;
pub mod mem;
pub mod state;
pub mod tlb;

pub use addr::{GuestPa, GuestVa};
pub use fault::{AccessKind, FaultCause, MemFault, Trap};
pub use machine::{Board, CpuEvent, Mapping, TlbFlush};
pub use mem::{GuestMem, MemAlign, MemOp, MemOrder, RmwOp};
pub use state::CpuState;
