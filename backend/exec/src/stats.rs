//! Counters: what the engine did.

use crate::engine::Engine;
use crate::host;
use crate::host::epoch::lock;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name { $($(#[$fdoc])* pub $field: AtomicU64),+ }
    };
}

counters! {
    /// Counted by whichever thread does it.
    Shared { blocks_lifted, insns_lifted, invalidated, idle, write_faults, regions_compiled, insns_compiled,
        compile_failures, regions_refused, evicted, compile_ns, code_bytes }
}

macro_rules! per_vcpu {
    ($($field:ident),+ $(,)?) => {
        /// Counted by the vCPU's own thread without atomic read-modify-writes.
        #[derive(Default)]
        pub(crate) struct VcpuStats { $(pub(crate) $field: AtomicU64),+ }

        /// The same while the dispatcher runs.
        #[derive(Default, Clone, Copy)]
        pub(crate) struct Local { $(pub $field: u64),+ }

        impl Local {
            /// Adds to the shared counters and starts anew.
            pub fn flush(&mut self, to: &VcpuStats) {
                $(to.$field.store(to.$field.load(Ordering::Relaxed) + self.$field, Ordering::Relaxed);)+
                *self = Local::default();
            }
        }

        impl VcpuStats {
            pub(crate) fn add_to_shared(&self, to: &VcpuStats) {
                $(to.$field.fetch_add(self.$field.load(Ordering::Relaxed), Ordering::Relaxed);)+
            }
            fn add_to(&self, stats: &mut Stats) {
                $(stats.$field += self.$field.load(Ordering::Relaxed);)+
            }
        }
    };
}

per_vcpu! {
    runs, blocks_interpreted, baseline_blocks, baseline_insns, baseline_bytes, baseline_refused, baseline_failures,
    baseline_entries, region_entries, edge_misses, cache_hits, cache_misses,
    exit_poll, exit_direct, exit_indirect, exit_trap, exit_helper_trap, exit_misaligned, exit_resync, exit_page, exit_fault,
    exit_hot, single_steps, ticks_total, ticks_baseline, ticks_code,
}

/// A snapshot of an engine's counters. Times of the tiers are measured only with
/// [`crate::Config::detailed_stats`]; their unit is the second.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub blocks_lifted: u64,
    pub insns_lifted: u64,
    /// Blocks in the table now.
    pub blocks: u64,
    /// Blocks dropped, in all, and those of them that had not run for long.
    pub invalidated: u64,
    pub idle: u64,
    pub write_faults: u64,
    pub regions_compiled: u64,
    pub insns_compiled: u64,
    /// Regions in code memory now.
    pub regions: u64,
    pub compile_failures: u64,
    /// Compiled in vain: stale, or no room.
    pub regions_refused: u64,
    /// Regions and blocks' baseline code dropped to make room.
    pub evicted: u64,
    /// Processor time of compiling, on whichever thread.
    pub compile_seconds: f64,
    /// Machine code of regions ever produced, in bytes.
    pub code_bytes: u64,
    /// Code memory in use now.
    pub code_used: u64,
    pub code_limit: u64,
    pub runs: u64,
    pub blocks_interpreted: u64,
    /// Blocks that got baseline code, their guest instructions, the code's bytes.
    pub baseline_blocks: u64,
    pub baseline_insns: u64,
    pub baseline_bytes: u64,
    /// Compiled in vain: stale, or no room.
    pub baseline_refused: u64,
    /// Blocks that the baseline compiler cannot do.
    pub baseline_failures: u64,
    /// Entries into generated code from the dispatcher.
    pub baseline_entries: u64,
    pub region_entries: u64,
    /// Direct exits of tier 0 whose target had to be looked up.
    pub edge_misses: u64,
    /// Lookups answered by a vCPU's block cache.
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub exit_poll: u64,
    pub exit_direct: u64,
    pub exit_indirect: u64,
    pub exit_trap: u64,
    pub exit_helper_trap: u64,
    pub exit_misaligned: u64,
    pub exit_resync: u64,
    /// Blocks that were reached by generated code but are on another page in this address space.
    pub exit_page: u64,
    pub exit_fault: u64,
    pub exit_hot: u64,
    pub single_steps: u64,
    /// Time of guest threads in generated code; making baseline code; everything else: tier 0, lifting, dispatching.
    pub code_seconds: f64,
    pub baseline_seconds: f64,
    pub tier0_seconds: f64,
    ticks_total: u64,
    ticks_baseline: u64,
    ticks_code: u64,
}

impl Stats {
    /// Names and values, in the order in which they are printed.
    pub fn rows(&self) -> Vec<(&'static str, f64)> {
        macro_rules! rows {
            ($($field:ident),+ $(,)?) => { vec![$((stringify!($field), self.$field as f64)),+] };
        }
        rows!(
            blocks_lifted,
            insns_lifted,
            blocks,
            invalidated,
            idle,
            write_faults,
            regions_compiled,
            insns_compiled,
            regions,
            compile_failures,
            regions_refused,
            evicted,
            compile_seconds,
            code_bytes,
            baseline_blocks,
            baseline_insns,
            baseline_bytes,
            baseline_refused,
            baseline_failures,
            baseline_seconds,
            code_used,
            code_limit,
            tier0_seconds,
            code_seconds,
            runs,
            blocks_interpreted,
            baseline_entries,
            region_entries,
            edge_misses,
            cache_hits,
            cache_misses,
            exit_poll,
            exit_direct,
            exit_indirect,
            exit_trap,
            exit_helper_trap,
            exit_misaligned,
            exit_resync,
            exit_page,
            exit_fault,
            exit_hot,
            single_steps,
        )
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        let rows: Vec<String> =
            self.rows().iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!("{{{}}}", rows.join(", "))
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.rows() {
            let name = name.replace('_', " ");
            if name.ends_with("seconds") {
                writeln!(f, "{name:20} {value:14.6}")?;
            } else {
                writeln!(f, "{name:20} {value:14}")?;
            }
        }
        Ok(())
    }
}

/// Seconds per tick of [`host::ticks`], from the time since the process's first engine.
struct Clock {
    start: Instant,
    ticks: u64,
}

static CLOCK: std::sync::OnceLock<Clock> = std::sync::OnceLock::new();

pub(crate) fn start_clock() {
    CLOCK.get_or_init(|| Clock { start: Instant::now(), ticks: host::ticks() });
}

fn seconds(ticks: u64) -> f64 {
    CLOCK.get().map_or(0.0, |clock| {
        let passed = host::ticks().wrapping_sub(clock.ticks).max(1);
        ticks as f64 * clock.start.elapsed().as_secs_f64() / passed as f64
    })
}

impl Engine {
    /// The counters of now. Those of a vCPU that runs lag until it leaves guest code.
    pub fn stats(&self) -> Stats {
        let s = &self.stats;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let store = self.existing_code_store();
        let mut stats = Stats {
            blocks_lifted: get(&s.blocks_lifted),
            insns_lifted: get(&s.insns_lifted),
            blocks: lock(&self.index).len() as u64,
            invalidated: get(&s.invalidated),
            idle: get(&s.idle),
            write_faults: get(&s.write_faults),
            regions_compiled: get(&s.regions_compiled),
            insns_compiled: get(&s.insns_compiled),
            regions: store.as_ref().map_or(0, |s| s.regions() as u64),
            compile_failures: get(&s.compile_failures),
            regions_refused: get(&s.regions_refused),
            evicted: get(&s.evicted),
            compile_seconds: get(&s.compile_ns) as f64 / 1e9,
            code_bytes: get(&s.code_bytes),
            code_used: store.as_ref().map_or(0, |s| s.memory.used() as u64),
            code_limit: self.config.code_limit as u64,
            ..Stats::default()
        };
        self.gone.add_to(&mut stats);
        for vcpu in lock(&self.vcpus).iter() {
            vcpu.stats.add_to(&mut stats);
        }
        stats.code_seconds = seconds(stats.ticks_code);
        stats.baseline_seconds = seconds(stats.ticks_baseline);
        let compiled = stats.ticks_code + stats.ticks_baseline;
        stats.tier0_seconds = seconds(stats.ticks_total.saturating_sub(compiled));
        stats
    }
}
