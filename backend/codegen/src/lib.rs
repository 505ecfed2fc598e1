//! From IR regions to machine code by way of Cranelift, and the memory in which that code lives.
//!
//! A *region* is a set of units (translation blocks) that becomes one function: guest slots are Cranelift variables
//! over the whole region, jumps between its units are jumps. [`Compiler`] turns a [`RegionInput`] into a
//! [`Region`] (position-independent bytes, edge records, fault map); [`code_memory::CodeMemory`] places it.
//! [`baseline`] makes the same of a single block's bytecode, quickly and without Cranelift. What generated code and the
//! dispatcher share is written down in [`abi`]. Nothing here knows a guest.
#![deny(unsafe_code)]

pub mod abi;
pub mod baseline;
mod checkpoint;
#[allow(unsafe_code)]
pub mod code_memory;
mod compiler;
pub mod fault_map;
mod float_order;
mod flow;
#[allow(unsafe_code)]
#[cfg(target_arch = "x86_64")]
#[path = "host_x86_64.rs"]
pub mod host;
mod lower;
mod narrow;
mod neighbours;
mod region;

pub use compiler::{Compiler, Options};
pub use fault_map::{FaultMap, Resume};
pub use region::{
    CompileError, Edge, EdgeKind, Listing, MemoryModel, PageCheck, Region, RegionInput, Target,
};
