//! Making regions: the queue, the background threads, and one compilation.
//!
//! A job is only a key. The hottest block is next, by the counter of its baseline code, which goes on counting while it
//! waits. Blocks are lifted again for compiling (keeping the IR of everything would cost more memory than
//! it saves time); should the code have changed since, its blocks are invalid or about to be, and the result is dropped.
//!
//! Compiling has a budget: a share of the processor time that the guest takes. Programs that run much code
//! some ten thousand times (compilers, interpreters that start) cost more to compile than to run as they are.

use crate::code::Refused;
use crate::engine::Engine;
use crate::host::epoch::{Guard, Participant, lock};
use crate::host::{self, signals};
use crate::lift::{lift_unit, lift_unit_from};
use crate::region;
use crate::system::PhysCode;
use crate::tb::Tb;
use crate::tuning;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tulk_codegen::{Compiler, MemoryModel, Options, PageCheck, RegionInput};
use tulk_frontend::TbKey;
use tulk_ir::passes::Passes;
use tulk_ir::{FpRule, Unit};

/// Values of [`Tb::requested`]: any other is the generation of [`Jobs`] in which the block's job is queued or running.
mod request {
    pub const NONE: u16 = 0;
    /// It cannot be compiled; never again.
    pub const HOPELESS: u16 = u16::MAX;
}

/// The queue of blocks to compile regions from.
pub struct Jobs {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Ends the pauses of threads that are over their budget.
    pause: Condvar,
    /// Signalled when nothing is queued or running.
    idle: Condvar,
    /// Counts forks: a child has no jobs, whatever its blocks say.
    generation: AtomicU16,
    /// Processor time spent on compiling by background threads of this process, in nanoseconds.
    spent: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// What is being compiled.
    taken: Vec<TbKey>,
    threads: usize,
    /// Threads that are compiling or looking for something to compile.
    running: usize,
    /// Somebody waits for all of it: no pauses.
    hurry: bool,
    closed: bool,
}

struct Job {
    key: TbKey,
    /// How often the block reached the threshold again while it waited.
    rounds: u32,
}

impl Queue {
    /// Queues a job for `key` unless that is at work. Returns how often it was asked for before. A block's word says that
    /// it was asked for, but whether its job is here is decided here: one that a look-up missed comes back this way.
    fn add(&mut self, key: TbKey) -> u32 {
        if self.taken.contains(&key) {
            return 0;
        }
        if let Some(job) = self.jobs.iter_mut().find(|job| job.key == key) {
            job.rounds += 1;
            return job.rounds;
        }
        self.jobs.push(Job { key, rounds: 0 });
        0
    }
}

impl Jobs {
    pub fn new() -> Arc<Jobs> {
        Arc::new(Jobs {
            queue: Mutex::default(),
            wake: Condvar::new(),
            pause: Condvar::new(),
            idle: Condvar::new(),
            generation: AtomicU16::new(1),
            spent: AtomicU64::new(0),
        })
    }
    pub fn close(&self) {
        lock(&self.queue).closed = true;
        self.wake.notify_all();
        self.pause.notify_all();
    }
    /// Locks the queue, for `fork`.
    pub fn freeze(&self) -> impl Sized + '_ {
        lock(&self.queue)
    }
    /// The threads are gone, and what they were at is requested again when it gets hot again.
    pub fn after_fork(&self) {
        *lock(&self.queue) = Queue::default();
        self.spent.store(0, Ordering::Relaxed);
        let next = self.generation() % (request::HOPELESS - 1) + 1;
        self.generation.store(next, Ordering::Relaxed);
    }
    fn generation(&self) -> u16 {
        self.generation.load(Ordering::Relaxed)
    }

    /// How long compiling must pause so that it takes no more than its share.
    fn debt(&self, share: u32) -> Duration {
        let spent = self.spent.load(Ordering::Relaxed);
        if spent <= tuning::COMPILE_HEAD_START_NS {
            return Duration::ZERO;
        }
        let guest = host::process_cpu_ns().saturating_sub(spent);
        let budget = tuning::COMPILE_HEAD_START_NS + guest / 256 * share as u64;
        let debt = spent.saturating_sub(budget).saturating_mul(256) / share.max(1) as u64;
        Duration::from_nanos(debt).min(tuning::COMPILE_PAUSE)
    }
}

impl Engine {
    /// A block reached the threshold: compiles a region from it or has it compiled.
    #[cold]
    pub(crate) fn request_region(
        &self,
        tb: &Tb,
        guard: &Guard<'_>,
        own: &mut Option<Box<RegionCompiler>>,
    ) {
        tb.cool(self.config.heat_limit());
        if !self.config.has_regions() || tb.in_region.load(Ordering::Relaxed) {
            return;
        }
        let (now, before) = (self.jobs.generation(), tb.requested.load(Ordering::Relaxed));
        let relaxed = Ordering::Relaxed;
        if before == request::HOPELESS {
            return;
        }
        if before == now {
            let mut queue = lock(&self.jobs.queue);
            let rounds = queue.add(tb.key);
            self.jobs.wake.notify_one();
            // In small blocks, of which large ones do the work of several.
            let rounds = rounds * (tb.insns as u32).div_ceil(tuning::SMALL_BLOCK);
            if queue.threads == 0 && rounds >= tuning::START_ROUNDS {
                queue.threads = 1;
                drop(queue);
                self.start_worker();
            }
            return;
        }
        if tb.requested.compare_exchange(before, now, relaxed, relaxed).is_err() {
            return;
        }
        if self.config.synchronous {
            if own.is_none() {
                *own = RegionCompiler::new(self).map(Box::new);
            }
            match own {
                Some(compiler) => compiler.compile(self, tb, guard),
                None => tb.requested.store(request::HOPELESS, relaxed),
            }
            return;
        }
        let mut queue = lock(&self.jobs.queue);
        queue.add(tb.key);
        // The first thread waits until a block is hot beyond doubt, unless regions are wanted sooner than by default.
        let patient = queue.threads == 0 && self.config.threshold >= tuning::THRESHOLD;
        let wanted = if patient { 0 } else { self.worker_count() };
        if queue.threads < wanted && queue.jobs.len() > queue.threads - queue.running {
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
        // Asking reads files.
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores =
            *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
        cores.saturating_sub(1).clamp(1, tuning::MAX_WORKERS)
    }

    fn start_worker(&self) {
        let (engine, jobs) = (self.me.clone(), self.jobs.clone());
        let worker = std::thread::Builder::new().name("tulk-compile".into());
        let share = self.config.compile_share;
        let started = signals::without_signals(|| worker.spawn(move || work(engine, &jobs, share)));
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for compiling");
            lock(&self.jobs.queue).threads -= 1;
        }
    }

    /// Waits until all requested regions are compiled; for tests and benchmarks.
    pub fn wait_for_compiles(&self) {
        let mut queue = lock(&self.jobs.queue);
        queue.hurry = true;
        self.jobs.pause.notify_all();
        while queue.threads > 0 && (!queue.jobs.is_empty() || queue.running > 0) {
            queue = self.jobs.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.hurry = false;
    }

    /// Baseline code of a block with a region leaves at once: it is reached only through old entries of jump caches, which
    /// the dispatcher corrects.
    pub(crate) fn forward_baseline(&self, tb: &Tb) {
        tb.close(self.config.heat_limit());
    }

    pub(crate) fn memory_model(&self) -> MemoryModel {
        match self.mem.base() {
            _ if self.system.is_some() => MemoryModel::Paged,
            0 => MemoryModel::Flat,
            _ => MemoryModel::Based,
        }
    }
}

/// A background thread's life. It holds the engine only while it works, so that it does not keep it alive.
fn work(engine: Weak<Engine>, jobs: &Jobs, share: u32) {
    let mut compiler: Option<RegionCompiler> = None;
    let mut participant: Option<Arc<Participant>> = None;
    loop {
        {
            let mut queue = lock(&jobs.queue);
            loop {
                if queue.closed {
                    return;
                }
                if queue.jobs.is_empty() {
                    queue = jobs.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                let pause = jobs.debt(share);
                if pause.is_zero() || queue.hurry {
                    break;
                }
                let waited = jobs.pause.wait_timeout(queue, pause);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            queue.running += 1;
        }
        let Some(engine) = engine.upgrade() else { return };
        let me = participant.get_or_insert_with(|| engine.epoch.join());
        let guard = me.pin(&engine.epoch);
        let tb = next_job(&engine, jobs, &guard);
        let taken = tb.map(|tb| tb.key);
        if let Some(tb) = tb {
            let started = host::thread_cpu_ns();
            if compiler.is_none() {
                compiler = RegionCompiler::new(&engine);
            }
            match &mut compiler {
                Some(compiler) => compiler.compile(&engine, tb, &guard),
                None => tb.requested.store(request::HOPELESS, Ordering::Relaxed),
            }
            jobs.spent.fetch_add(host::thread_cpu_ns() - started, Ordering::Relaxed);
        }
        drop(guard);
        engine.epoch.collect();
        drop(engine);
        let mut queue = lock(&jobs.queue);
        if let Some(key) = taken {
            queue.taken.retain(|&other| other != key);
        }
        queue.running -= 1;
        if queue.running == 0 && queue.jobs.is_empty() {
            jobs.idle.notify_all();
        }
    }
}

/// Takes the hottest job that is still wanted. A long queue forgets its colder half: those blocks are
/// requested again if they go on being run.
fn next_job<'g>(engine: &Engine, jobs: &Jobs, guard: &'g Guard<'_>) -> Option<&'g Tb> {
    let mut queue = lock(&jobs.queue);
    let generation = jobs.generation();
    let mut hot: Vec<(u64, Job, &Tb)> = Vec::with_capacity(queue.jobs.len());
    for job in queue.jobs.drain(..) {
        // Of a block that is gone, or that this look-up missed because the table moves: then it asks again.
        let Some(tb) = engine.table.get(job.key, guard) else { continue };
        // Called off when a region came to contain it.
        if tb.requested.load(Ordering::Relaxed) == generation {
            let heat = tb.warmth(engine.config.heat_limit()) as u64;
            hot.push(((job.rounds as u64) << 32 | heat, job, tb));
        }
    }
    if hot.len() > tuning::QUEUE_LIMIT {
        hot.select_nth_unstable_by_key(tuning::QUEUE_LIMIT / 2, |&(heat, ..)| !heat);
        for (_, _, tb) in hot.drain(tuning::QUEUE_LIMIT / 2..) {
            tb.requested.store(request::NONE, Ordering::Relaxed);
        }
    }
    let best = (0..hot.len()).max_by_key(|&i| hot[i].0).map(|i| hot.swap_remove(i).2);
    queue.jobs.extend(hot.into_iter().map(|(_, job, _)| job));
    queue.taken.extend(best.map(|tb| tb.key));
    best
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
                    // Blocks inside cool down, and their own jobs are called off: only what gets hot again, because
                    // it is reached from elsewhere, needs a region of its own.
                    let generation = engine.jobs.generation();
                    for tb in &blocks[1..] {
                        let (none, relaxed) = (request::NONE, Ordering::Relaxed);
                        if !tb.in_region.load(relaxed) {
                            tb.cool(engine.config.heat_limit());
                        }
                        let _ = tb.requested.compare_exchange(generation, none, relaxed, relaxed);
                    }
                    engine.forward_baseline(entry);
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
            match &engine.system {
                None => lift_unit(isa, &engine.mem, tb.key, tb.insns as u32, unit),
                Some(system) => {
                    let (pc, frame) = (tb.key.pc, system.frame_of(tb.key));
                    let mut code = PhysCode::new(&system.phys, pc, frame, None);
                    let bare = system.ids.bare(tb.key);
                    lift_unit_from(isa, &mut code, bare, tb.insns as u32, unit);
                }
            }
            if unit.len != tb.len as u32 || unit.guest_insns != tb.insns as u32 {
                return Err(Failure::Refused);
            }
            self.passes.run(unit, isa.layout(), isa.helpers(), &engine.config.hot_passes);
            engine.log.optimized(engine, unit);
        }
        let units: Vec<&Unit> = self.units[..blocks.len()].iter().collect();
        let pages: Vec<PageCheck> = match &engine.system {
            None => Vec::new(),
            Some(system) => blocks.iter().map(|tb| system.check(tb.key)).collect(),
        };
        let targets = region::targets(engine, blocks, guard);
        let precise = engine.config.precise || isa.self_modifying_is_exact();
        let input = RegionInput {
            units: &units,
            layout: isa.layout(),
            helpers: isa.helpers(),
            mem: engine.memory_model(),
            precise,
            pages: &pages,
            targets: &targets,
        };
        let region = self.compiler.compile(&input).map_err(|error| {
            tracing::debug!(%error, pc = %blocks[0].key.pc, blocks = blocks.len(), "not compiled");
            Failure::Impossible
        })?;
        let (bytes, insns) = (region.bytes.len() as u64, region.guest_insns as u64);
        engine.make_room(store, region.bytes.len(), guard);
        engine.log.compiled(engine, blocks, &region);
        let perf = engine.perf.wants().then(|| region.bytes[..region.code_len as usize].to_vec());
        let find = |key| engine.table.get(engine.key_beside(blocks[0].key, key)?, guard);
        match store.publish(&engine.epoch, blocks, region, find, guard) {
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
            Err(Refused::Stale) => Err(Failure::Refused),
            Err(Refused::Full) => {
                engine.no_room(store, guard);
                Err(Failure::Refused)
            }
            Err(Refused::TooLarge) => Err(Failure::Impossible),
        }
    }
}

/// Why there is no region.
enum Failure {
    /// The code changed, or there was no room: may work another time.
    Refused,
    /// The code generator cannot, or the code memory is too small.
    Impossible,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulk_base::GuestVa;

    /// A job that a look-up missed is not in the queue any more, though its block says that it is asked for.
    #[test]
    fn lost_jobs_come_back() {
        let key = |pc| TbKey { pc: GuestVa(pc), flags: 0 };
        let mut queue = Queue::default();
        assert_eq!([queue.add(key(1)), queue.add(key(1)), queue.add(key(1))], [0, 1, 2]);
        assert_eq!(queue.add(key(2)), 0);
        assert_eq!(queue.jobs.len(), 2);
        queue.jobs.clear();
        assert_eq!((queue.add(key(1)), queue.jobs.len()), (0, 1));
        // What is being compiled is not queued again.
        queue.jobs.clear();
        queue.taken.push(key(1));
        assert_eq!((queue.add(key(1)), queue.jobs.len()), (0, 0));
        queue.taken.clear();
        assert_eq!((queue.add(key(1)), queue.jobs.len()), (0, 1));
    }
}
