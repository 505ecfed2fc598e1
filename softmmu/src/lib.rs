//! Guest memory: the user-mode address space ([`user`]), a system guest's physical memory ([`phys`]) and translation
//! caches ([`tlb`]), and the host accesses beneath them ([`raw`]).
//!
//! All `unsafe` of this crate stands in `raw.rs` and its host files.
#![deny(unsafe_code)]

pub mod access;
pub mod intervals;
pub mod phys;
#[allow(unsafe_code)]
pub mod raw;
pub mod tlb;
pub mod user;
pub mod user_mem;

pub use phys::{PhysError, PhysKind, PhysListener, PhysMem, PhysPage};
pub use tlb::{Tlb, TlbOwner};
pub use user::{CodeChange, CodeListener, Errno, MapRequest, UserSpace, WriteFault};
pub use user_mem::UserMem;
