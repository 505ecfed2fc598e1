//! Every number that trades one cost for another, with the measurement that chose it. Defaults of [`crate::Config`].

/// Tier-0 executions of a block after which a region is compiled from it. Start value: compiling costs about 5 us per
/// guest instruction, interpreting about 5 ns per guest instruction more than compiled code, so the break-even lies
/// near a thousand executions if compiling took the guest's time; it takes another core's.
pub const THRESHOLD: u32 = 600;

/// Most guest instructions in one region. Start value: allocation time per instruction grows slowly up to here
/// (ECOSYSTEM.md 3.4), and most hot loops of SPEC-like programs fit.
pub const REGION_INSNS: u32 = 300;

/// Most blocks in one region.
pub const REGION_TBS: usize = 64;

/// Most guest instructions per region in `--tier jit`, where everything is compiled before it ran once.
pub const REGION_INSNS_EAGER: u32 = 48;

/// An edge taken less often than this share (in 1/256) of its block's executions stays out of the region: it is
/// left through an edge slot and does not cost compile time.
pub const COLD_SHARE: u32 = 4;

/// Most guest instructions in one block: bounds the delay of an exit request in tier 0.
pub const TB_INSNS: u32 = 64;

/// Write faults on one code page after which it stays writable and its blocks are checked by comparing bytes.
pub const PAGE_FAULT_LIMIT: u32 = 16;

/// Stale keys queued for one vCPU above which it empties its caches instead of removing them one by one.
pub const STALE_KEYS: usize = 256;

/// Retired blocks are swept out of other blocks' edges when this many wait, or one in [`SWEEP_SHARE`] of all.
pub const SWEEP_MIN: usize = 512;
pub const SWEEP_SHARE: usize = 4;

/// Entries (log2) of the per-vCPU block cache of tier 0.
pub const TB_CACHE_LOG2: u32 = 11;

/// Background compile threads: all cores but one, at least one, at most this many.
pub const MAX_WORKERS: usize = 4;
