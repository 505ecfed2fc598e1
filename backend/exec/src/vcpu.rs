//! One guest thread: the dispatch loop.
//!
//! # Leaving guest code
//! [`CpuState::request_exit`] (from any thread or signal handler) makes [`Vcpu::run`] return [`Exit::Interrupted`] at a block boundary with all
//! registers exact. The request is consumed by exactly that return and by nothing else: if `run` returns for another
//! reason first, or was not running, the next `run` returns `Interrupted` at once. So a signal handler that notes its
//! signal and then requests an exit is never lost, as long as the caller looks at its notes after every `Interrupted`.

use crate::code::{CodeStore, Refused};
use crate::compile::RegionCompiler;
use crate::debug::WatchHit;
use crate::engine::{Engine, VcpuShared};
use crate::env::Env;
use crate::host::epoch::{Guard, Shared, lock};
use crate::host::{self, EXIT_EVENT, EXIT_GUEST, ExitFlag, HostFp, signals};
use crate::lift::Lifter;
use crate::processor::Pages;
use crate::stats::{Local, VcpuStats};
use crate::table::hash;
use crate::tb::{Tb, code};
use crate::trampoline::{self, JumpCache, REASON_FAULT};
use crate::tuning;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tulk_base::state::{CELL_GUEST, CELL_PC, CELL_TEMPS};
use tulk_base::{AccessKind, CpuState, FaultCause, GuestVa, MemFault, Trap};
use tulk_codegen::abi::{self, JumpEntry, Reason, word};
use tulk_codegen::baseline::{self, Baseline};
use tulk_frontend::{LiftLimits, TbKey};
use tulk_ir::interp::{self, Chain, ExitInfo, Outcome, Program};
use tulk_ir::{ExitKind, HelperDef};
use tulk_softmmu::Tlb;

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A guest event; the pc and all registers are exact. Never [`Trap::Resync`].
    Trap(Trap),
    /// Somebody asked, see the module.
    Interrupted,
    /// The instruction at the pc has a debugger's breakpoint, and has not run.
    Breakpoint,
    /// An instruction accessed watched bytes: the one before the pc, or, where processors tell before the access, the one at
    /// the pc, which then has not run.
    Watch(WatchHit),
    /// [`Vcpu::step_one`] has.
    Stepped,
    /// System mode: it waits for an event; interrupts wake it if the flag says so. To be run again once the board has one.
    Halt { interrupts: bool },
    /// System mode: it cannot go on.
    Shutdown,
}

/// A guest thread. Belongs to one host thread at a time and may move between runs.
pub struct Vcpu {
    /// The registers. The box must not be exchanged for another: other threads know its exit flag.
    pub state: Box<CpuState>,
    pub(crate) helpers: &'static [HelperDef],
    pub(crate) env: Box<Env>,
    /// Blocks found lately, by hash of the key.
    cache: Box<[Cached]>,
    pub(crate) jumps: JumpCache,
    pub(crate) lifter: Lifter,
    /// Made when first needed; `None` within: this host cannot.
    baseline: Option<Option<Box<Baseline>>>,
    /// Blocks that [`Vcpu::repeat`] interprets before it gives up.
    patience: u32,
    compiler: Option<Box<RegionCompiler>>,
    store: Option<Arc<CodeStore>>,
    pub(crate) counts: Local,
    /// Neither breakpoints nor watchpoints stop it.
    pub ignores_breakpoints: bool,
    /// The frontend changed the state for a second try since this was last cleared.
    pub(crate) retried: bool,
}

/// An entry of the block cache; zeroed ones are empty.
pub(crate) struct Cached {
    pc: u64,
    flags: u64,
    tb: Shared<Tb>,
}

/// The short way from block to block in tier 0: inside the interpreter's loop, as long as the next block is known and
/// nothing else is to be done.
struct Way<'a, 'g> {
    /// The block that runs.
    tb: &'g Tb,
    guard: &'g Guard<'g>,
    cache: &'a [Cached],
    /// In system mode.
    pages: Option<Pages<'a>>,
    threshold: u32,
    /// How many ran.
    blocks: u64,
    cache_hits: u64,
}

impl<'g> Way<'_, 'g> {
    #[inline(always)]
    fn go(&mut self, to: &'g Tb, state: &CpuState) -> Option<&'g Program> {
        let heat = to.heat.load(Ordering::Relaxed).wrapping_add(1);
        let plain = to.code.load(Ordering::Acquire) == code::INTERPRET && heat < self.threshold;
        if !plain || state.exit_request.load(Ordering::Relaxed) != 0 {
            return None;
        }
        to.heat.store(heat, Ordering::Relaxed);
        to.prefetch_next();
        self.tb = to;
        self.blocks += 1;
        Some(&to.program)
    }
}

impl<'g> Chain<'g> for Way<'_, 'g> {
    #[inline(always)]
    fn direct(&mut self, exit: u32, state: &CpuState) -> Option<&'g Program> {
        let edge = self.tb.edge(exit as usize);
        let to = edge.known(self.guard)?;
        if self.pages.is_some_and(|pages| !pages.allow(to, state)) {
            return None;
        }
        let next = self.go(to, state)?;
        edge.hit();
        Some(next)
    }
    #[inline(always)]
    fn indirect(&mut self, pc: u64, returns: bool, state: &CpuState) -> Option<&'g Program> {
        let from = self.tb;
        let key = match self.pages {
            None => TbKey { pc: GuestVa(pc), flags: self.tb.key.flags },
            Some(pages) => pages.key(pc, state)?,
        };
        let cached = &self.cache[cache_index(key)];
        if cached.pc != pc || cached.flags != key.flags {
            return None;
        }
        let next = self.go(cached.tb.get(self.guard)?, state)?;
        if !returns {
            from.hit_computed(self.tb, self.guard);
        }
        self.cache_hits += 1;
        Some(next)
    }
}

/// How the dispatcher goes on.
pub(crate) enum Next<'g> {
    Block(&'g Tb),
    /// Generated code left to this block, and could have gone by itself.
    From(Origin, &'g Tb),
    /// At the pc cell, from the top.
    Anew,
    /// The same, and the float environment may have changed.
    Resync,
    /// At the pc cell: an access to a page with a watchpoint.
    Watched,
    /// At the pc cell: repeat this one instruction in tier 0.
    Step,
    /// A region went back to its last checkpoint, from where what led to the fault is done again.
    Repeat,
    Leave(Trap),
    Exit(Exit),
}

/// What will lead generated code to a block the next time.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    /// The edge record at this address.
    Edge(usize),
    /// An entry of the jump cache.
    Jump,
}

impl Engine {
    /// A new guest thread, all registers zero.
    pub fn vcpu(self: &Arc<Self>) -> Vcpu {
        let mut state = CpuState::new();
        let shared = Arc::new(VcpuShared {
            participant: self.epoch.join(),
            flag: ExitFlag::new(&state),
            stale: Mutex::default(),
            flush: AtomicBool::new(false),
            flush_blocks: AtomicBool::new(false),
            stats: VcpuStats::default(),
            tlb: self.system.as_ref().map(|s| Tlb::new(s.phys.clone(), s.isa.mmu_modes())),
            alive: Mutex::new(true),
        });
        lock(&self.vcpus).push(shared.clone());
        let mut env =
            Box::new(Env { engine: self.clone(), shared, trap: None, done: 0, mmu: None });
        let mut jumps = trampoline::new_jump_cache();
        trampoline::set_words(&mut state, &mut env, &mut jumps);
        Vcpu {
            state,
            helpers: self.isa.helpers(),
            env,
            cache: host::zeroed_slice(1 << tuning::TB_CACHE_LOG2),
            jumps,
            lifter: Lifter::new(),
            baseline: None,
            patience: tuning::PATIENCE,
            compiler: None,
            store: None,
            counts: Local::default(),
            ignores_breakpoints: false,
            retried: false,
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        let (engine, shared) = (self.env.engine.clone(), self.env.shared.clone());
        signals::unbind(&shared);
        // From here on nobody raises the flag any more, so the state may go.
        *lock(&shared.alive) = false;
        lock(&engine.vcpus).retain(|v| !Arc::ptr_eq(v, &shared));
        engine.epoch.leave(&shared.participant);
        shared.stats.add_to_shared(&engine.gone);
    }
}

impl Vcpu {
    pub fn engine(&self) -> &Arc<Engine> {
        &self.env.engine
    }

    /// Copies pc and guest registers from another thread's state, as `clone` does.
    pub fn copy_registers(&mut self, from: &CpuState) {
        self.state.cells[CELL_PC as usize] = from.cells[CELL_PC as usize];
        let guest = CELL_GUEST as usize..CELL_TEMPS as usize;
        self.state.cells[guest.clone()].copy_from_slice(&from.cells[guest]);
    }

    /// Makes faults of guest accesses on this host thread this vCPU's. [`Vcpu::run`] does it too; to be called before
    /// a new thread touches guest memory otherwise.
    pub fn bind_thread(&mut self) {
        signals::bind(&mut self.state, &self.env.engine, &self.env.shared);
        if let Some(store) = &self.store {
            signals::set_regions(&store.faults);
        }
    }

    /// Runs guest code from the state's pc until something happens.
    pub fn run(&mut self) -> Exit {
        let (engine, shared) = (self.env.engine.clone(), self.env.shared.clone());
        self.bind_thread();
        trampoline::set_words(&mut self.state, &mut self.env, &mut self.jumps);
        let started = if engine.config.detailed_stats { host::ticks() } else { 0 };
        let host_fp = HostFp::get();
        engine.isa.load_fp(&self.state, &mut HostFp);
        let exact = signals::set_exact(engine.watches() && engine.isa.self_modifying_is_exact());
        let inside = engine.debug.enter();
        let exit = self.dispatch(&engine, &shared);
        if inside {
            engine.debug.leave();
        }
        signals::set_exact(exact);
        engine.isa.save_fp(&mut self.state, &mut HostFp);
        HostFp::set(host_fp);
        if engine.config.detailed_stats {
            self.counts.ticks_total += host::ticks() - started;
        }
        self.counts.runs += 1;
        self.counts.flush(&shared.stats);
        exit
    }

    fn dispatch(&mut self, engine: &Engine, shared: &VcpuShared) -> Exit {
        // What a thread without a vCPU wrote to watched code; others are sent to `housekeep`.
        engine.drain_dirty();
        let mut guard = shared.participant.pin(&engine.epoch);
        let threshold = engine.config.first_threshold();
        let log_exec = engine.log.items.exec;
        let system = engine.system.as_ref();
        // The board may have something.
        let mut events = system.is_some();
        loop {
            // A quiescent point: no block is held. What became stale until here must leave the caches before they are
            // used again, because it may be freed now.
            guard.refresh();
            if let Some(hit) = self.take_watch(engine) {
                return Exit::Watch(hit);
            }
            if self.state.exit_request.load(Ordering::Acquire) != 0 {
                let bits = self.state.exit_request.swap(0, Ordering::SeqCst);
                self.housekeep(engine, shared);
                if bits & EXIT_GUEST != 0 {
                    return Exit::Interrupted;
                }
                events |= system.is_some() && bits & EXIT_EVENT != 0;
                if !events {
                    continue;
                }
            }
            if events && let Some(system) = system {
                events = false;
                if let Err(exit) = self.take_events(system) {
                    return exit;
                }
                if let Some(hit) = self.take_watch(engine) {
                    return Exit::Watch(hit);
                }
            }
            let key = engine.isa.tb_key(&self.state);
            let mut next = self.find(engine, key, &guard);
            // From block to block.
            'blocks: loop {
                let (mut tb, mut origin) = match next {
                    Next::Block(tb) => (tb, None),
                    Next::From(origin, tb) => (tb, Some(origin)),
                    Next::Anew => break,
                    Next::Resync => {
                        engine.isa.save_fp(&mut self.state, &mut HostFp);
                        engine.isa.load_fp(&self.state, &mut HostFp);
                        events = system.is_some();
                        break;
                    }
                    Next::Step => {
                        // One iteration, where the next may be one that the debugger watches.
                        let watched = system.is_some() && engine.debug.has_watch();
                        next = self.step(engine, if watched { LiftLimits::STEP } else { 1 });
                        continue;
                    }
                    Next::Exit(exit) => return exit,
                    Next::Watched => match self.watched_step(engine) {
                        Ok(after) => {
                            next = after;
                            continue;
                        }
                        Err(exit) => return exit,
                    },
                    Next::Repeat => {
                        next = self.repeat(engine);
                        continue;
                    }
                    Next::Leave(trap) => match system {
                        None => return Exit::Trap(trap),
                        Some(system) => match self.deliver(engine, system, trap) {
                            Ok(()) => break,
                            Err(exit) => return exit,
                        },
                    },
                };
                // From one that was found to the next.
                loop {
                    if self.state.exit_request.load(Ordering::Relaxed) != 0 {
                        self.state.set_pc(tb.key.pc.0);
                        break 'blocks;
                    }
                    let mut entry = tb.code.load(Ordering::Acquire);
                    if entry <= code::LAST {
                        let heat = tb.heat.load(Ordering::Relaxed).wrapping_add(1);
                        tb.heat.store(heat, Ordering::Relaxed);
                        // One that reaches into a second page is checked by its code, too.
                        let may = entry == code::INTERPRET
                            || entry == code::CHECKED
                                && tb.second().is_some()
                                && tb.bytes().is_empty();
                        if may && heat >= threshold {
                            self.state.set_pc(tb.key.pc.0);
                            self.warm_up(engine, tb, heat, &guard);
                            entry = tb.code.load(Ordering::Acquire);
                        }
                    }
                    if let Some(origin) = origin.take() {
                        self.remember(origin, tb, entry, &guard);
                    }
                    if entry > code::LAST {
                        if tb.second().is_some() && !self.check_block(engine, tb) {
                            self.state.set_pc(tb.key.pc.0);
                            break 'blocks;
                        }
                        next = self.enter(engine, tb, entry, &guard);
                        continue 'blocks;
                    }
                    if entry == code::BREAK {
                        self.state.set_pc(tb.key.pc.0);
                        if self.ignores_breakpoints {
                            next = self.step(engine, 1);
                            continue 'blocks;
                        }
                        if engine.debug.is_breakpoint(tb.key.pc.0) {
                            return Exit::Breakpoint;
                        }
                        engine.forget_split(tb.key.pc.0);
                        break 'blocks;
                    }
                    let checked = entry == code::CHECKED && self.check_block(engine, tb);
                    if entry != code::INTERPRET && !checked {
                        self.state.set_pc(tb.key.pc.0);
                        break 'blocks;
                    }
                    if log_exec {
                        engine.log.exec(engine, tb.key, &self.state);
                    }
                    let mut way = Way {
                        tb,
                        guard: &guard,
                        cache: &self.cache,
                        pages: system.map(|system| {
                            let flags = system.ids.flags(tb.key);
                            let mmu = system.isa.code_mmu(flags);
                            Pages { ids: &system.ids, mmu, flags }
                        }),
                        threshold: if log_exec { 0 } else { threshold },
                        blocks: 1,
                        cache_hits: 0,
                    };
                    let (state, env) = (&mut *self.state, &mut *self.env);
                    let outcome =
                        interp::run_chained(&tb.program, state, self.helpers, env, &mut way);
                    tb = way.tb;
                    let pages = way.pages;
                    self.counts.blocks_interpreted += way.blocks;
                    self.counts.cache_hits += way.cache_hits;
                    next = match outcome {
                        Outcome::Direct(n) => {
                            let edge = tb.edge(n as usize);
                            edge.hit();
                            let may =
                                |to: &&Tb| pages.is_none_or(|pages| pages.allow(to, &self.state));
                            if let Some(to) = edge.target(&guard).filter(may) {
                                tb = to;
                                continue;
                            }
                            self.counts.edge_misses += 1;
                            let exit = &tb.program.exit(n as usize);
                            let next = self.find(engine, key_behind(exit), &guard);
                            if let Next::Block(to) = next {
                                edge.link(to);
                            }
                            next
                        }
                        Outcome::Indirect { kind: ExitKind::Resync, pc, .. } => {
                            self.state.set_pc(pc);
                            Next::Resync
                        }
                        Outcome::Indirect { kind, pc, flags, .. } => {
                            let flags = flags.unwrap_or(engine.bare(tb.key).flags);
                            let next = self.find(engine, TbKey { pc: GuestVa(pc), flags }, &guard);
                            if let Next::Block(to) = next {
                                if kind != ExitKind::Return {
                                    tb.hit_computed(to, &guard);
                                }
                                tb = to;
                                continue;
                            }
                            next
                        }
                        Outcome::Trap(trap) => self.trapped(trap),
                    };
                    continue 'blocks;
                }
            }
        }
    }

    /// A trap from tier 0 or a helper.
    pub(crate) fn trapped<'g>(&mut self, trap: Trap) -> Next<'g> {
        match trap {
            Trap::Resync => Next::Resync,
            // Not a guest fault: the block wrote to its own kind and must not go on.
            Trap::Mem(_) if signals::take_hit() || self.env.take_hit() => Next::Step,
            Trap::Mem(fault) if self.env.engine.is_watched(&fault) => Next::Watched,
            Trap::Mem(fault) if self.retry_fault(&fault) => Next::Anew,
            trap => Next::Leave(trap),
        }
    }

    /// The frontend changed the state so that the instruction may do better.
    #[cold]
    fn retry_fault(&mut self, fault: &MemFault) -> bool {
        self.retried = self.env.engine.isa.retry_fault(&mut self.state, fault);
        self.retried
    }

    /// The block at `key`; the pc cell is set when there is none.
    #[inline]
    fn find<'g>(&mut self, engine: &Engine, key: TbKey, guard: &'g Guard<'_>) -> Next<'g> {
        let key = match &engine.system {
            None => key,
            Some(system) => match self.locate(system, key) {
                Ok(key) => key,
                Err(next) => return next,
            },
        };
        let cached = &self.cache[cache_index(key)];
        if cached.pc == key.pc.0
            && cached.flags == key.flags
            && let Some(tb) = cached.tb.get(guard)
            && tb.is_valid()
        {
            self.counts.cache_hits += 1;
            return Next::Block(tb);
        }
        self.find_slowly(engine, key, guard)
    }

    #[cold]
    fn find_slowly<'g>(&mut self, engine: &Engine, key: TbKey, guard: &'g Guard<'_>) -> Next<'g> {
        self.counts.cache_misses += 1;
        let found = match &engine.system {
            None => engine.find_or_lift(&mut self.lifter, key, guard),
            Some(system) => self.find_paged(engine, system, key, guard),
        };
        match found {
            Ok(tb) => {
                let cached = &mut self.cache[cache_index(key)];
                (cached.pc, cached.flags) = (key.pc.0, key.flags);
                cached.tb.set(Some(tb));
                Next::Block(tb)
            }
            Err(trap) => {
                self.state.set_pc(key.pc.0);
                if trap == Trap::Resync { Next::Anew } else { Next::Leave(trap) }
            }
        }
    }

    /// A block reached the threshold at which tier 0 is left.
    #[cold]
    fn warm_up(&mut self, engine: &Engine, tb: &Tb, heat: u32, guard: &Guard<'_>) {
        let config = &engine.config;
        let heat = if tb.second().is_some() { 0 } else { heat };
        if config.has_baseline() && !tb.refuses_baseline() {
            self.compile_baseline(engine, tb, guard);
        } else if config.has_regions() && heat >= config.threshold {
            engine.request_region(tb, guard, &mut self.compiler);
        }
    }

    fn compile_baseline(&mut self, engine: &Engine, tb: &Tb, guard: &Guard<'_>) {
        let started = if engine.config.detailed_stats { host::ticks() } else { 0 };
        if self.store.is_none()
            && let Some(store) = engine.code_store()
        {
            signals::set_regions(&store.faults);
            self.store = Some(store.clone());
        }
        let compiler = self.baseline.get_or_insert_with(|| match Baseline::new() {
            Ok(baseline) => Some(Box::new(baseline)),
            Err(error) => {
                tracing::warn!(%error, "no baseline compiler");
                None
            }
        });
        let (Some(compiler), Some(store)) = (compiler, &self.store) else {
            tb.refuse_baseline();
            return;
        };
        let config = &engine.config;
        let input = baseline::Input {
            program: &tb.program,
            pc: tb.key.pc.0,
            flags: engine.bare(tb.key).flags,
            insns: tb.insns as u32,
            mem: engine.memory_model(),
            // One that reaches into a second page is never part of a region.
            profile: if config.has_regions() && tb.second().is_none() {
                tb.profile()
            } else {
                None
            },
            page: engine.system.as_ref().map(|system| system.check(tb.key)),
            second: engine.system.as_ref().and_then(|system| system.second_check(tb)),
        };
        let region = match compiler.compile(&input) {
            Ok(region) => region,
            Err(error) => {
                tracing::debug!(%error, pc = %tb.key.pc, "no baseline code");
                tb.refuse_baseline();
                self.counts.baseline_failures += 1;
                return;
            }
        };
        engine.log.compiled(engine, &[tb], &region);
        let len = region.bytes.len();
        let perf = engine.perf.wants().then(|| region.bytes[..region.code_len as usize].to_vec());
        engine.make_room(store, len, guard);
        let find = |key| engine.table.get(engine.key_beside(tb.key, key)?, guard);
        match store.publish_baseline(tb, region, find, guard) {
            Ok(address) => {
                self.counts.baseline_blocks += 1;
                self.counts.baseline_insns += tb.insns as u64;
                self.counts.baseline_bytes += len as u64;
                if let Some(code) = perf {
                    engine.perf.region(engine.isa.name(), tb.key.pc, address, &code);
                }
            }
            Err(refused) => {
                self.counts.baseline_refused += 1;
                // Tier 0 for a while, or for ever.
                tb.heat.store(0, Ordering::Relaxed);
                match refused {
                    Refused::Full => engine.no_room(store, guard),
                    Refused::TooLarge => tb.refuse_baseline(),
                    Refused::Stale => {}
                }
            }
        }
        if engine.config.detailed_stats {
            self.counts.ticks_baseline += host::ticks() - started;
        }
    }

    /// Makes generated code find the way to a block by itself that it has just left for.
    fn remember(&mut self, origin: Origin, tb: &Tb, entry: u64, guard: &Guard<'_>) {
        match origin {
            Origin::Edge(record) => {
                if let Some(store) = &self.store {
                    store.exit_taken(record, tb, guard);
                }
            }
            Origin::Jump if entry > code::LAST => {
                let TbKey { pc, flags } = self.env.engine.bare(tb.key);
                let jump = JumpEntry { pc: pc.0, flags, code: entry, user: 0 };
                self.jumps[abi::jump_cache_index(pc.0)] = jump;
            }
            Origin::Jump => {}
        }
    }

    /// Baseline code says that its block has run often enough. Its counter starts again, or, when the block has a
    /// region already and an old jump cache entry led here, stays at the limit.
    #[cold]
    fn hot<'g>(&mut self, engine: &Engine, guard: &'g Guard<'_>) -> Next<'g> {
        let key = engine.isa.tb_key(&self.state);
        let next = self.find(engine, key, guard);
        let Next::Block(tb) = next else { return next };
        if tb.second().is_some() {
            // None of these is in a region.
            tb.heat.store(0, Ordering::Relaxed);
            return next;
        }
        if !tb.in_region.load(Ordering::Relaxed) {
            engine.request_region(tb, guard, &mut self.compiler);
        }
        if tb.in_region.load(Ordering::Relaxed) {
            engine.forward_baseline(tb);
            return Next::From(Origin::Jump, tb);
        }
        next
    }

    /// Runs generated code until it comes back.
    fn enter<'g>(
        &mut self,
        engine: &Engine,
        tb: &'g Tb,
        code: u64,
        guard: &'g Guard<'_>,
    ) -> Next<'g> {
        let store = self.store.get_or_insert_with(|| {
            let store = engine.existing_code_store().expect("code lies in a store");
            signals::set_regions(&store.faults);
            store.clone()
        });
        debug_assert!(store.memory.range().contains(&(code as usize)));
        if tb.in_region.load(Ordering::Relaxed) {
            self.counts.region_entries += 1;
        } else {
            self.counts.baseline_entries += 1;
        }
        self.state.set_pc(tb.key.pc.0);
        let started = if engine.config.detailed_stats { host::ticks() } else { 0 };
        trampoline::enter(&mut self.state, &mut self.env, &mut self.jumps, code);
        if engine.config.detailed_stats {
            self.counts.ticks_code += host::ticks() - started;
        }
        let [reason, a, b] = [word::REASON, word::A, word::B].map(|w| self.state.engine[w]);
        if reason == REASON_FAULT {
            self.counts.exit_fault += 1;
            let hit = signals::take_hit();
            if let Some(next) = self.leave_out(engine, b) {
                return next;
            }
            return if hit { Next::Step } else { Next::Repeat };
        }
        let counts = &mut self.counts;
        match Reason::from_word(reason) {
            Some(Reason::Poll) => {
                counts.exit_poll += 1;
                Next::Anew
            }
            Some(Reason::Direct) => {
                counts.exit_direct += 1;
                let record = a as usize;
                let key = engine.isa.tb_key(&self.state);
                match self.find(engine, key, guard) {
                    Next::Block(tb) => Next::From(Origin::Edge(record), tb),
                    next => next,
                }
            }
            Some(Reason::Indirect) => {
                counts.exit_indirect += 1;
                let key = TbKey { pc: GuestVa(self.state.pc()), flags: a };
                match self.find(engine, key, guard) {
                    Next::Block(tb) => Next::From(Origin::Jump, tb),
                    next => next,
                }
            }
            Some(Reason::Hot) => {
                counts.exit_hot += 1;
                self.hot(engine, guard)
            }
            Some(Reason::Trap) => {
                counts.exit_trap += 1;
                match ExitKind::from_u8(a as u8).trap(b as u32) {
                    Some(Trap::Resync) => Next::Resync,
                    Some(trap) => Next::Leave(trap),
                    None => unreachable!("generated code left with exit kind {a}"),
                }
            }
            Some(Reason::HelperTrap) => {
                counts.exit_helper_trap += 1;
                let trap = self.env.trap.take().expect("the helper's trap");
                self.trapped(trap)
            }
            Some(Reason::Misaligned) => {
                counts.exit_misaligned += 1;
                let kind = if b == 0 { AccessKind::Read } else { AccessKind::Write };
                let fault = MemFault { va: GuestVa(a), kind, cause: FaultCause::Align };
                self.trapped(Trap::Mem(fault))
            }
            Some(Reason::Resync) => {
                counts.exit_resync += 1;
                Next::Resync
            }
            Some(Reason::Page) => {
                counts.exit_page += 1;
                self.forget_jump();
                Next::Anew
            }
            None => unreachable!("generated code left with reason {reason}"),
        }
    }

    /// Runs the one instruction at the pc in tier 0, uncached: to learn what is wrong with it, or because the
    /// translation that contains it was just invalidated by it.
    #[cold]
    pub(crate) fn step<'g>(&mut self, engine: &Engine, insns: u32) -> Next<'g> {
        self.counts.single_steps += 1;
        let key = engine.isa.tb_key(&self.state);
        if let Some(system) = &engine.system {
            return match self.step_paged(engine, system, key, insns) {
                Outcome::Direct(_) => Next::Anew,
                Outcome::Indirect { kind, pc, .. } => {
                    self.state.set_pc(pc);
                    if kind == ExitKind::Resync { Next::Resync } else { Next::Anew }
                }
                Outcome::Trap(trap) => self.trapped(trap),
            };
        }
        let Some(tb) = self.lifter.lift(engine, key, insns) else {
            let fault = engine.mem.fault_cause(key.pc, 1, AccessKind::Exec);
            return Next::Leave(Trap::Mem(fault));
        };
        // A write to code repeats itself: there is nothing behind it in this block.
        let exact = signals::set_exact(false);
        let outcome = interp::run(&tb.program, &mut self.state, self.helpers, &mut *self.env);
        signals::set_exact(exact);
        match outcome {
            Outcome::Direct(n) => {
                self.state.set_pc(tb.program.exit(n as usize).pc);
                Next::Anew
            }
            Outcome::Indirect { kind, pc, .. } => {
                self.state.set_pc(pc);
                if kind == ExitKind::Resync { Next::Resync } else { Next::Anew }
            }
            Outcome::Trap(trap) => self.trapped(trap),
        }
    }

    /// Interprets from a region's checkpoint until behind the last of the stores that the region has done since then, which
    /// are left out: until there nothing is read from memory, so nothing but registers changes. The outcome if that leads further
    /// than behind the instruction, which may have another store that faults.
    fn leave_out<'g>(&mut self, engine: &Engine, done: u64) -> Option<Next<'g>> {
        self.env.done = done as u32;
        for _ in 0..tuning::MOST_REPEATED {
            if self.env.done == 0 {
                break;
            }
            match self.step(engine, 1) {
                Next::Anew => {}
                next => {
                    self.env.done = 0;
                    return Some(next);
                }
            }
        }
        self.env.done = 0;
        None
    }

    /// Interprets until the fault comes again. What a region did since its checkpoint may be long, so each time that this
    /// gives up it tries twice as long the next time.
    #[cold]
    fn repeat<'g>(&mut self, engine: &Engine) -> Next<'g> {
        let insns = if engine.isa.self_modifying_is_exact() { 1 } else { tuning::TB_INSNS };
        let blocks = self.patience;
        // Outside the guest's memory generated code met an address that it should have wrapped, see `WINDOW_GUARD`.
        let wrapped = engine.mem.guest_va(self.state.engine[word::A] as usize).is_none();
        self.patience = if wrapped { blocks } else { blocks.saturating_mul(2) };
        for n in 0..blocks {
            // Not at once: at the checkpoint, slots that are overwritten before the fault may hold what they held before.
            if n >= tuning::PATIENCE && self.state.exit_request.load(Ordering::Relaxed) != 0 {
                break;
            }
            match self.step(engine, insns) {
                Next::Anew => {}
                next => {
                    self.patience = tuning::PATIENCE;
                    return next;
                }
            }
        }
        Next::Anew
    }

    /// What others left for this thread to do, at a quiescent point.
    #[cold]
    fn housekeep(&mut self, engine: &Engine, shared: &VcpuShared) {
        engine.debug.make_way();
        engine.drain_dirty();
        let stale = std::mem::take(&mut *lock(&shared.stale));
        if shared.flush_blocks.swap(false, Ordering::AcqRel) {
            self.cache.iter().for_each(|c| c.tb.set(None));
        }
        if shared.flush.swap(false, Ordering::AcqRel) {
            self.cache.iter().for_each(|c| c.tb.set(None));
            self.jumps.fill(JumpEntry::default());
            self.state.engine[word::RING..word::RING + 4 * abi::RING_ENTRIES].fill(0);
        } else if !stale.is_empty() {
            for key in stale {
                let cached = &mut self.cache[cache_index(key)];
                if cached.pc == key.pc.0 && cached.flags == key.flags {
                    cached.tb.set(None);
                }
                let jump = &mut self.jumps[abi::jump_cache_index(key.pc.0)];
                if jump.pc == key.pc.0 && jump.flags == engine.bare(key).flags {
                    *jump = JumpEntry::default();
                }
            }
            self.state.engine[word::RING..word::RING + 4 * abi::RING_ENTRIES].fill(0);
        }
        engine.epoch.collect();
    }
}

/// The block to which a direct exit leads.
pub fn key_behind(exit: &ExitInfo) -> TbKey {
    TbKey { pc: GuestVa(exit.pc), flags: exit.flags }
}

#[inline]
fn cache_index(key: TbKey) -> usize {
    (hash(key.pc.0, key.flags) >> 7) as usize & ((1 << tuning::TB_CACHE_LOG2) - 1)
}
