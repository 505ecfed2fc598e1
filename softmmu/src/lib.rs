//! Guest memory: the user-mode address space ([`user`]) and the host accesses beneath it ([`raw`]).
//!
//! All `unsafe` of this crate stands in `raw.rs` and its host files.
#![deny(unsafe_code)]

pub mod intervals;
#[allow(unsafe_code)]
pub mod raw;
pub mod user;
pub mod user_mem;

pub use user::{CodeChange, CodeListener, Errno, MapRequest, UserSpace, WriteFault};
pub use user_mem::UserMem;
