//! The engine that runs guest code: finds, lifts, interprets, compiles and drops translations.
//!
//! An [`Engine`] is what the threads of one guest process share; a [`Vcpu`] is one of them. A frontend supplies a
//! [`tulk_frontend::GuestIsa`], `softmmu` the memory. A block runs in tier 0, the IR interpreter, the first times; then
//! the thread that runs it gives it *baseline* code, in microseconds; blocks that get hot become entries of *regions*,
//! compiled by Cranelift on background threads. `backend/codegen` has both compilers.
//!
//! | file | what |
//! |---|---|
//! | `vcpu` | the dispatch loop |
//! | `engine`, `fork` | what is shared; finding and lifting blocks; what a child goes on with |
//! | `tb`, `table` | a block; all blocks, by key and by page |
//! | `system`, `processor`, `mmu` | system mode: blocks by physical page; processors; their memory |
//! | `lift`, `region`, `compile` | making blocks; choosing and compiling regions |
//! | `code` | published machine code and the edges between its pieces |
//! | `debug`, `debug_step` | breakpoints, watchpoints, single steps |
//! | `invalidate`, `dirty` | dropping translations |
//! | `env`, `trampoline`, `host/` | what guest code calls; entering and leaving generated code; signals, reclamation |
//! | `config`, `tuning`, `stats`, `log`, `perf` | choices, numbers, counters, logs |
//!
//! `unsafe` stands in `trampoline.rs` and `host/`; elsewhere only in the declarations that those need.
#![deny(unsafe_code)]

mod code;
mod compile;
mod config;
mod counters;
mod debug;
mod debug_step;
mod dirty;
mod engine;
mod env;
mod fork;
#[allow(unsafe_code)]
pub mod host;
mod invalidate;
mod lift;
mod log;
mod mmu;
mod perf;
mod processor;
mod region;
mod stats;
mod system;
mod table;
mod tb;
#[allow(unsafe_code)]
mod trampoline;
pub mod tuning;
mod vcpu;

pub use config::{Config, LogItems, LogSink, Tier, Watch};
pub use debug::{WatchHit, WatchKind, Watchpoint};
pub use engine::Engine;
pub use fork::ForkGuard;
pub use processor::VcpuHandle;
pub use stats::Stats;
pub use vcpu::{Exit, Vcpu};
