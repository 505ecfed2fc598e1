//! What an [`crate::Engine`] can be told.

use crate::tuning;
use std::path::PathBuf;
use std::sync::Arc;
use tulk_codegen::baseline::Profile;
use tulk_ir::passes::PassConfig;

/// Which tiers run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// Everything is interpreted.
    Interp,
    /// Interpreted at first, then run as baseline code; no regions.
    Baseline,
    /// Regions only: every block is compiled before it runs, on the thread that needs it.
    Jit,
    /// Interpreted at first, then run as baseline code, as regions once hot.
    Mixed,
}

impl Tier {
    /// Blocks get baseline code.
    pub fn has_baseline(self) -> bool {
        matches!(self, Tier::Baseline | Tier::Mixed)
    }
    /// Regions are compiled.
    pub fn has_regions(self) -> bool {
        matches!(self, Tier::Jit | Tier::Mixed)
    }
}

/// Whether pages that hold translated code are write-protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// Only for guests that need no flush after changing code ([`tulk_frontend::GuestIsa::self_modifying_is_exact`]).
    Auto,
    Always,
    Never,
}

/// Which logs the sink wants; see [`LogSink`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogItems {
    /// Guest assembly of each block when it is lifted.
    pub in_asm: bool,
    /// IR as lifted.
    pub ir: bool,
    /// IR as run by tier 0, and as given to the code generator.
    pub ir_opt: bool,
    /// Host assembly of each region.
    pub out_asm: bool,
    /// Each block at each execution. Keeps everything in tier 0.
    pub exec: bool,
    /// With `exec`: all registers that debuggers know, in front of the block.
    pub registers: bool,
}

/// Where logs go. Called on guest and compile threads, in the order of events on each.
pub trait LogSink: Send + Sync {
    fn log(&self, text: &str);
}

/// See the fields. [`Config::default`] is what users get.
#[derive(Clone)]
pub struct Config {
    pub tier: Tier,
    /// Executions of a block in tier 0 before it gets baseline code, and ..
    pub baseline_threshold: u32,
    /// .. of that code before a region is compiled from it.
    pub threshold: u32,
    /// Compile on the thread that found the block hot, so that runs are repeatable.
    pub synchronous: bool,
    /// Share of the guest's processor time, in 1/256, that background compiling may take.
    pub compile_share: u32,
    /// Background compile threads; 0 chooses from the number of processors.
    pub workers: usize,
    /// Bytes of machine code kept.
    pub code_limit: usize,
    /// Blocks lifted between two looks for blocks that were not run in between and are dropped.
    pub idle_after: usize,
    /// System mode: most blocks kept.
    pub system_blocks: usize,
    /// Most bytes of machine code that a forked child gets a copy of.
    pub fork_copy: usize,
    /// Bounds of a region.
    pub region_insns: u32,
    pub region_tbs: usize,
    /// Most guest instructions per block.
    pub tb_insns: u32,
    /// What improves the IR that tier 0 runs, and the IR that is compiled.
    pub cold_passes: PassConfig,
    pub hot_passes: PassConfig,
    pub watch: Watch,
    /// Write faults on a page before it is no longer protected.
    pub page_fault_limit: u32,
    /// Guest registers are exact when a memory access faults in generated code. Without it only the pc is, which
    /// suffices while the guest handles no synchronous signal.
    pub precise: bool,
    /// Measure the time spent in each tier and count executions.
    pub detailed_stats: bool,
    pub log: Option<Arc<dyn LogSink>>,
    pub log_items: LogItems,
    /// Write `/tmp/perf-PID.map`.
    pub perf_map: bool,
    /// Write `jit-PID.dump` into this directory.
    pub jitdump: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            tier: Tier::Mixed,
            baseline_threshold: tuning::BASELINE_THRESHOLD,
            threshold: tuning::THRESHOLD,
            synchronous: false,
            compile_share: tuning::COMPILE_SHARE,
            workers: 0,
            code_limit: tulk_codegen::code_memory::DEFAULT_LIMIT,
            idle_after: tuning::IDLE_AFTER,
            system_blocks: tuning::SYSTEM_BLOCKS,
            fork_copy: tuning::FORK_COPY,
            region_insns: tuning::REGION_INSNS,
            region_tbs: tuning::REGION_TBS,
            tb_insns: tuning::TB_INSNS,
            cold_passes: PassConfig::cold(),
            hot_passes: PassConfig::hot(),
            watch: Watch::Auto,
            page_fault_limit: tuning::PAGE_FAULT_LIMIT,
            precise: true,
            detailed_stats: false,
            log: None,
            log_items: LogItems::default(),
            perf_map: false,
            jitdump: None,
        }
    }
}

impl Config {
    /// The defaults for a tier: `Jit` compiles everything at once and on the spot.
    pub fn for_tier(tier: Tier) -> Config {
        let config = Config { tier, ..Config::default() };
        match tier {
            Tier::Jit => Config {
                threshold: 1,
                synchronous: true,
                region_insns: tuning::REGION_INSNS_EAGER,
                ..config
            },
            Tier::Interp | Tier::Baseline | Tier::Mixed => config,
        }
    }

    fn compiles(&self) -> bool {
        !self.log_items.exec && cfg!(target_arch = "x86_64")
    }
    pub(crate) fn has_baseline(&self) -> bool {
        self.tier.has_baseline() && self.compiles()
    }
    pub(crate) fn has_regions(&self) -> bool {
        self.tier.has_regions() && self.compiles()
    }
    /// Executions after which baseline code asks for a region. With one it would leave before it did anything.
    pub(crate) fn heat_limit(&self) -> u32 {
        self.threshold.clamp(2, Profile::LIMIT)
    }
    /// Executions in tier 0 after which a block leaves it.
    pub(crate) fn first_threshold(&self) -> u32 {
        match (self.has_baseline(), self.has_regions()) {
            (true, _) => self.baseline_threshold,
            (false, true) => self.threshold,
            (false, false) => u32::MAX,
        }
    }
}
