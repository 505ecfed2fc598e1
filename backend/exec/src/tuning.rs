//! Every number that trades one cost for another, with the measurement that chose it. Defaults of [`crate::Config`].

/// Tier-0 executions of a block after which it gets baseline code. That costs some 3 us, and an execution in tier 0 some 50 ns
/// more, but mixing tiers costs too. python3's start (CPU time relative to QEMU, peak memory): 2: 0.50, 42 MiB; 4: 0.50, 39;
/// 8: 0.47, 37; 16: 0.47, 35; 32: 0.52, 33; 64: 0.56, 32.
pub const BASELINE_THRESHOLD: u32 = 16;

/// Executions of a block's baseline code after which a region is compiled from it. Compiling costs 15 to 20 us of processor
/// time per guest instruction (cc1, python3) and saves about 1 ns per execution, so the break-even lies near 20,000.
pub const THRESHOLD: u32 = 30_000;

/// How often one block must reach that threshold before the first compile thread starts: some milliseconds of a hot loop.
/// Programs that only start and end, such as `python3 -c pass`, do without Cranelift then, and with 3 MiB less.
pub const START_ROUNDS: u32 = 24;

/// Guest instructions that count as one block there. nbody of i386, whose blocks are 64 x87 instructions, waited two seconds
/// when all blocks counted alike.
pub const SMALL_BLOCK: u32 = 8;

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

/// An edge taken less often than the threshold divided by this stays out too.
pub const RARE_SHARE: u32 = 8;

/// Callees that have a region are copied into another when their first block has at most so many instructions.
pub const SMALL_CALLEE: u16 = 12;

/// Most guest instructions in one block: bounds the delay of an exit request in tier 0.
pub const TB_INSNS: u32 = 64;

/// Write faults on one code page after which it stays writable and its blocks are checked by comparing bytes.
pub const PAGE_FAULT_LIMIT: u32 = 16;

/// Stale keys queued for one vCPU above which it empties its caches instead of removing them one by one.
pub const STALE_KEYS: usize = 256;

/// Retired blocks are swept out of other blocks' edges when this many wait, or one in [`SWEEP_SHARE`] of all.
pub const SWEEP_MIN: usize = 512;
pub const SWEEP_SHARE: usize = 8;

/// Lifted blocks between two looks for blocks that have not run in between: these are dropped. python3's start (i386, AArch64): after 8192
/// 7600 and 7200 are dropped, of which 480 and 1300 are lifted again, after 12,288 5800 and 5500, of which 390 and 710. The
/// time that it costs is as much that of lifting as that of an allocator with holes.
pub const IDLE_AFTER: usize = 12_288;

/// Blocks above which nobody looks: it is a program's start that runs its code once. cc1, with 160,000 blocks, took 1.05 of its time
/// without this limit.
pub const IDLE_UNTIL: usize = 32_768;

/// Lifted blocks after which a thread that lifts looks what can be freed.
pub const COLLECT_EVERY: u64 = 1024;

/// Entries (log2) of the per-vCPU block cache of tier 0.
pub const TB_CACHE_LOG2: u32 = 12;

/// Background compile threads: all cores but one, at least one, at most this many.
pub const MAX_WORKERS: usize = 4;

/// Most requests kept; above it the colder half is dropped. Looking through a queue without limit took 15 % of cc1's
/// time, and what is compiled from its far end is not hot any more.
pub const QUEUE_LIMIT: usize = 256;

/// Background compiling may take this much processor time at first (the first region always, then, with starting
/// Cranelift), ..
pub const COMPILE_HEAD_START_NS: u64 = 3_000_000;

/// .. and this share (in 1/256) of what the guest takes. cc1, with its flat profile, took 0.85 and 0.66 of QEMU's time with a
/// quarter (64) and 0.53 without any regions; loops are compiled first and do not wait.
pub const COMPILE_SHARE: u32 = 16;

/// Longest pause of a compile thread before it looks again.
pub const COMPILE_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Most bytes of machine code that a forked child gets a copy of; it compiles anew what more there is. Copying costs some
/// 0.1 ms per MiB.
pub const FORK_COPY: usize = 32 << 20;

/// More instructions than a region has without a loop. Only where another thread changed the code meanwhile are stores that a region has
/// done not found again.
pub const MOST_REPEATED: u32 = 1 << 14;

/// Blocks interpreted after a fault in a region, from its checkpoint on, before generated code is used again: more than
/// lie between two writes of most programs, and some 0.5 ms.
pub const PATIENCE: u32 = 256;

/// Most bits of a code page id: 8 MiB of tables that are touched as far as they are used.
pub const CODE_PAGE_BITS: u32 = 20;

/// System mode: blocks above which those of pages are dropped that no processor has run for half as many lifted blocks. A guest that
/// starts programs again and again has the code of libraries at ever new addresses. When all were dropped at 600,000, gcc on a
/// Debian disk took 1.4 times as long: it came in the middle of it, and took the kernel, too. Debian's way to its login, gcc and python3 need
/// 700,000; with 512 MiB of RAM the peak is 920 MiB whether at 600,000 some are dropped or not.
pub const SYSTEM_BLOCKS: usize = 1_000_000;

/// Code that a guest's processor overwrites counts against its page only if fewer blocks than this were lifted in between:
/// pages are used anew for other things all the time.
pub const BURST_BLOCKS: u64 = 2_000;

/// Checks of a block's bytes after which its page counts as quiet again: the first time, four times as many each time that it
/// turns out wrong, or finds a change, and most. Most pages were patched once, by a kernel that starts: with 20,000 at once the start of Linux made
/// 36 million checks of single instructions, three quarters of its time.
pub const CHECKS_BEFORE_TRUST: [u32; 2] = [256, 16_384];
