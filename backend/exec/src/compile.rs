//! Making regions: the queue, the background threads, and one compilation.
//!
//! A job is only a key. When the queue is long the hottest block is next, by the counter that goes on counting
//! while it waits. Blocks are lifted again for compiling (keeping the IR of everything would cost more memory than
//! it saves time); should the code have changed since, its blocks are invalid or about to be, and the result is dropped.

use crate::code::Refused;
use crate::engine::Engine;
use crate::host::epoch::{Guard, Participant, lock};
use crate::host::{self, signals};
use crate::lift::lift_unit;
use crate::region;
use crate::tb::{Tb, code};
use crate::tuning;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use tulk_codegen::{Compiler, MemoryModel, Options, RegionInput};
use tulk_frontend::TbKey;
use tulk_ir::passes::Passes;
use tulk_ir::{FpRule, Unit};

/// Values of [`Tb::requested`].
mod request {
    pub const NONE: u32 = 0;
    pub const QUEUED: u32 = 1;
    /// The code generator refused it; never again.
    pub const HOPELESS: u32 = 2;
}

/// The queue of keys to compile.
pub struct Jobs {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Signalled when nothing is queued or running.
    idle: Condvar,
}

#[derive(Default)]
struct Queue {
    keys: Vec<TbKey>,
    threads: usize,
    running: usize,
    closed: bool,
}

impl Jobs {
    pub fn new() -> Arc<Jobs> {
        Arc::new(Jobs { queue: Mutex::default(), wake: Condvar::new(), idle: Condvar::new() })
    }
    pub fn close(&self) {
        lock(&self.queue).closed = true;
        self.wake.notify_all();
    }
    /// Locks the queue, for `fork`.
    pub fn freeze(&self) -> impl Sized + '_ {
        lock(&self.queue)
    }
    /// The threads are gone, and what they were at is requested again when it gets hot again. True when there
    /// may be requests that nobody serves.
    pub fn after_fork(&self) -> bool {
        std::mem::take(&mut *lock(&self.queue)).threads > 0
    }
}

impl Engine {
    /// A block reached the threshold: compiles it or has it compiled.
    #[cold]
    pub(crate) fn request_region(
        &self,
        tb: &Tb,
        guard: &Guard<'_>,
        own: &mut Option<Box<RegionCompiler>>,
    ) {
        tb.heat.store(0, Ordering::Relaxed);
        if !self.config.compiles() || tb.code.load(Ordering::Relaxed) != code::INTERPRET {
            return;
        }
        let (none, queued) = (request::NONE, request::QUEUED);
        let claimed =
            tb.requested.compare_exchange(none, queued, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        if self.config.synchronous {
            if own.is_none() {
                *own = RegionCompiler::new(self).map(Box::new);
            }
            match own {
                Some(compiler) => compiler.compile(self, tb, guard),
                None => tb.requested.store(request::HOPELESS, Ordering::Relaxed),
            }
            return;
        }
        let mut queue = lock(&self.jobs.queue);
        queue.keys.push(tb.key);
        let wanted = self.worker_count();
        if queue.threads < wanted && queue.keys.len() > queue.threads - queue.running {
            queue.threads += 1;
            drop(queue);
            self.start_worker();
        } else {
            drop(queue);
        }
        self.jobs.wake.notify_one();
    }

    fn worker_count(&self) -> usize {
        if self.config.workers != 0 {
            return self.config.workers;
        }
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        cores.saturating_sub(1).clamp(1, tuning::MAX_WORKERS)
    }

    fn start_worker(&self) {
        let (engine, jobs) = (self.me.clone(), self.jobs.clone());
        let worker = std::thread::Builder::new().name("tulk-compile".into());
        let started = signals::without_signals(|| worker.spawn(move || work(engine, &jobs)));
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for compiling");
            lock(&self.jobs.queue).threads -= 1;
        }
    }

    /// Waits until all requested regions are compiled; for tests and benchmarks.
    pub fn wait_for_compiles(&self) {
        let mut queue = lock(&self.jobs.queue);
        while queue.threads > 0 && (!queue.keys.is_empty() || queue.running > 0) {
            queue = self.jobs.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A background thread's life. It holds the engine only while it works, so that it does not keep it alive.
fn work(engine: Weak<Engine>, jobs: &Jobs) {
    let mut compiler: Option<RegionCompiler> = None;
    let mut participant: Option<Arc<Participant>> = None;
    loop {
        {
            let mut queue = lock(&jobs.queue);
            while queue.keys.is_empty() && !queue.closed {
                queue = jobs.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.closed {
                return;
            }
            queue.running += 1;
        }
        let Some(engine) = engine.upgrade() else { return };
        let me = participant.get_or_insert_with(|| engine.epoch.join());
        let guard = me.pin(&engine.epoch);
        if let Some(tb) = next_job(&engine, jobs, &guard) {
            if compiler.is_none() {
                compiler = RegionCompiler::new(&engine);
            }
            match &mut compiler {
                Some(compiler) => compiler.compile(&engine, tb, &guard),
                None => tb.requested.store(request::HOPELESS, Ordering::Relaxed),
            }
        }
        drop(guard);
        engine.epoch.collect();
        drop(engine);
        let mut queue = lock(&jobs.queue);
        queue.running -= 1;
        if queue.running == 0 && queue.keys.is_empty() {
            jobs.idle.notify_all();
        }
    }
}

/// Takes the hottest key whose block is still valid.
fn next_job<'g>(engine: &Engine, jobs: &Jobs, guard: &'g Guard<'_>) -> Option<&'g Tb> {
    let mut queue = lock(&jobs.queue);
    let mut best: Option<(u32, usize, &Tb)> = None;
    for (i, &key) in queue.keys.iter().enumerate() {
        if let Some(tb) = engine.table.get(key, guard) {
            let heat = tb.heat.load(Ordering::Relaxed);
            if best.is_none_or(|(most, ..)| heat > most) {
                best = Some((heat, i, tb));
            }
        }
    }
    match best {
        Some((_, i, tb)) => {
            queue.keys.remove(i);
            Some(tb)
        }
        None => {
            queue.keys.clear();
            None
        }
    }
}

/// What one thread that compiles keeps between regions.
pub struct RegionCompiler {
    compiler: Compiler,
    units: Vec<Unit>,
    passes: Passes,
}

impl RegionCompiler {
    /// `None` when this host cannot be compiled for.
    pub fn new(engine: &Engine) -> Option<RegionCompiler> {
        let options = Options { listing: engine.log.items.out_asm, ..Options::default() };
        match Compiler::new(options) {
            Ok(compiler) => {
                Some(RegionCompiler { compiler, units: Vec::new(), passes: Passes::new() })
            }
            Err(error) => {
                tracing::warn!(%error, "interpreting everything");
                None
            }
        }
    }

    /// Forms, compiles and publishes the region of `entry`.
    fn compile<'g>(&mut self, engine: &Engine, entry: &'g Tb, guard: &'g Guard<'_>) {
        let started = host::thread_cpu_ns();
        let mut next = request::NONE;
        let mut blocks = region::form(engine, entry, guard);
        // A region too large for the code generator is tried again with its entry alone.
        loop {
            match self.try_compile(engine, &blocks, guard) {
                Ok(()) => {
                    // Blocks inside cool down: what still gets hot is reached from elsewhere.
                    blocks.iter().for_each(|tb| tb.heat.store(0, Ordering::Relaxed));
                    break;
                }
                Err(Failure::Refused) => {
                    engine.stats.regions_refused.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(Failure::Impossible) if blocks.len() > 1 => blocks.truncate(1),
                Err(Failure::Impossible) => {
                    engine.stats.compile_failures.fetch_add(1, Ordering::Relaxed);
                    next = request::HOPELESS;
                    break;
                }
            }
        }
        entry.requested.store(next, Ordering::Relaxed);
        engine.stats.compile_ns.fetch_add(host::thread_cpu_ns() - started, Ordering::Relaxed);
    }

    fn try_compile(
        &mut self,
        engine: &Engine,
        blocks: &[&Tb],
        guard: &Guard<'_>,
    ) -> Result<(), Failure> {
        let isa = &*engine.isa;
        let store = engine.code_store().ok_or(Failure::Impossible)?;
        while self.units.len() < blocks.len() {
            self.units.push(Unit::new(0, 0, FpRule::Arm));
        }
        for (tb, unit) in blocks.iter().zip(&mut self.units) {
            lift_unit(isa, &engine.mem, tb.key, tb.insns, unit);
            if unit.len != tb.len || unit.guest_insns != tb.insns {
                return Err(Failure::Refused);
            }
            self.passes.run(unit, isa.layout(), isa.helpers(), &engine.config.hot_passes);
            engine.log.optimized(engine, unit);
        }
        let units: Vec<&Unit> = self.units[..blocks.len()].iter().collect();
        let mem = match engine.mem.base() {
            0 => MemoryModel::Flat,
            _ => MemoryModel::Based,
        };
        let precise = engine.config.precise || isa.self_modifying_is_exact();
        let input = RegionInput {
            units: &units,
            layout: isa.layout(),
            helpers: isa.helpers(),
            mem,
            precise,
        };
        let region = self.compiler.compile(&input).map_err(|error| {
            tracing::debug!(%error, pc = %blocks[0].key.pc, blocks = blocks.len(), "not compiled");
            Failure::Impossible
        })?;
        let (bytes, insns) = (region.bytes.len() as u64, region.guest_insns as u64);
        if store.memory.used() + region.bytes.len() > engine.config.code_limit / 8 * 7 {
            engine.evict_code(&store, guard);
        }
        engine.log.compiled(engine, blocks, &region);
        let perf = engine.perf.wants().then(|| region.bytes[..region.code_len as usize].to_vec());
        match store.publish(&engine.epoch, blocks, region) {
            Ok(address) => {
                let s = &engine.stats;
                s.regions_compiled.fetch_add(1, Ordering::Relaxed);
                s.insns_compiled.fetch_add(insns, Ordering::Relaxed);
                s.code_bytes.fetch_add(bytes, Ordering::Relaxed);
                if let Some(code) = perf {
                    engine.perf.region(isa.name(), blocks[0].key.pc, address, &code);
                }
                Ok(())
            }
            Err(refused) => {
                if refused == Refused::Full {
                    engine.evict_code(&store, guard);
                }
                Err(Failure::Refused)
            }
        }
    }
}

/// Why there is no region.
enum Failure {
    /// The code changed, or there was no room: may work another time.
    Refused,
    /// The code generator cannot.
    Impossible,
}
