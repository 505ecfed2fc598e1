//! The engine: everything that the vCPUs of one guest process share.

use crate::code::CodeStore;
use crate::compile::Jobs;
use crate::config::{Config, Watch};
use crate::debug::Debug;
use crate::dirty::DirtyPages;
use crate::host::epoch::{Epoch, Guard, Participant, lock};
use crate::host::{EXIT_ENGINE, ExitFlag, signals};
use crate::lift::Lifter;
use crate::log::Log;
use crate::perf::Perf;
use crate::stats::{Shared as SharedStats, VcpuStats, start_clock};
use crate::system::{PhysChanges, System};
use crate::table::{CodePages, Index, Table};
use crate::tb::{PAGE_SHIFT, Tb};
use crate::tuning;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use tulk_base::{AccessKind, Board, GuestVa, Trap};
use tulk_frontend::{GuestIsa, SystemIsa, TbKey};
use tulk_softmmu::{CodeChange, CodeListener, Errno, PhysListener, PhysMem, Tlb, UserSpace};

/// See the module.
pub struct Engine {
    pub isa: Arc<dyn GuestIsa>,
    pub mem: Arc<UserSpace>,
    pub config: Config,
    pub(crate) epoch: Epoch,
    pub(crate) table: Table,
    pub(crate) index: Mutex<Index>,
    pub(crate) code_pages: CodePages,
    /// Counts invalidations: a block lifted across one is lifted again.
    pub(crate) changes: AtomicU64,
    /// Pages written to while watched, to be invalidated.
    pub(crate) dirty: DirtyPages,
    pub(crate) vcpus: Mutex<Vec<Arc<VcpuShared>>>,
    /// Made on first use; `None` within: the host refuses.
    pub(crate) code: OnceLock<Option<Arc<CodeStore>>>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) stats: SharedStats,
    /// What vCPUs counted that are gone.
    pub(crate) gone: VcpuStats,
    pub(crate) debug: Debug,
    pub(crate) log: Log,
    pub(crate) perf: Perf,
    /// In system mode; `mem` is empty then.
    pub(crate) system: Option<System>,
    /// What physical memory tells.
    listener: OnceLock<Arc<PhysChanges>>,
    pub(crate) me: Weak<Engine>,
}

/// What other threads may know and do of a vCPU.
pub(crate) struct VcpuShared {
    pub participant: Arc<Participant>,
    pub flag: ExitFlag,
    /// Keys that its caches must forget, see [`Engine::announce_stale`].
    pub stale: Mutex<Vec<TbKey>>,
    /// It must forget everything, or all blocks, but not their code.
    pub flush: AtomicBool,
    pub flush_blocks: AtomicBool,
    pub stats: VcpuStats,
    /// In system mode.
    pub tlb: Option<Arc<Tlb>>,
    /// The state that `flag` points to exists.
    pub alive: Mutex<bool>,
}

impl Engine {
    /// For the threads of a user program.
    pub fn new(isa: Arc<dyn GuestIsa>, mem: Arc<UserSpace>, config: Config) -> Arc<Engine> {
        Engine::with(isa, mem, config, None)
    }

    /// For the processors of a machine. `mem` is what they share with its devices, `board` is all devices.
    ///
    /// # Errors
    /// The host has no address space left.
    pub fn system<I: GuestIsa + SystemIsa + 'static>(
        isa: Arc<I>,
        mem: Arc<PhysMem>,
        board: Arc<dyn Board>,
        config: Config,
    ) -> Result<Arc<Engine>, Errno> {
        let system = System::new(isa.clone(), mem.clone(), board);
        let engine = Engine::with(isa, Arc::new(UserSpace::flat()?), config, Some(system));
        let changes: Arc<PhysChanges> =
            engine.listener.get_or_init(|| Arc::new(PhysChanges(Arc::downgrade(&engine)))).clone();
        let changes: Arc<dyn PhysListener> = changes;
        mem.add_listener(Arc::downgrade(&changes));
        Ok(engine)
    }

    fn with(
        isa: Arc<dyn GuestIsa>,
        mem: Arc<UserSpace>,
        config: Config,
        system: Option<System>,
    ) -> Arc<Engine> {
        signals::install();
        start_clock();
        let engine = Arc::new_cyclic(|me: &Weak<Engine>| {
            let epoch = Epoch::new();
            let (table, mut index) = Table::new(&epoch);
            if let Some(system) = &system {
                index.use_frames(system.ids.clone());
            }
            Engine {
                debug: Debug::default(),
                log: Log::new(&config),
                perf: Perf::new(&config),
                jobs: Jobs::new(),
                isa,
                mem: mem.clone(),
                config,
                epoch,
                table,
                index: Mutex::new(index),
                code_pages: CodePages::new(),
                changes: AtomicU64::new(0),
                dirty: DirtyPages::new(),
                vcpus: Mutex::default(),
                code: OnceLock::new(),
                stats: SharedStats::default(),
                gone: VcpuStats::default(),
                system,
                listener: OnceLock::new(),
                me: me.clone(),
            }
        });
        mem.set_listener(Arc::new(Listener(Arc::downgrade(&engine))));
        signals::set_engine(&engine);
        engine
    }

    /// Whether code pages are write-protected.
    pub(crate) fn watches(&self) -> bool {
        match self.config.watch {
            Watch::Auto => self.isa.self_modifying_is_exact(),
            Watch::Always => true,
            Watch::Never => false,
        }
    }

    /// Finds or lifts the block at `key`, past all caches.
    #[cold]
    pub(crate) fn find_or_lift<'g>(
        &self,
        lifter: &mut Lifter,
        key: TbKey,
        guard: &'g Guard<'_>,
    ) -> Result<&'g Tb, Trap> {
        if let Some(tb) = self.table.get(key, guard) {
            return Ok(tb);
        }
        let page = key.pc.0 >> PAGE_SHIFT;
        let fault = || Trap::Mem(self.mem.fault_cause(key.pc, 1, AccessKind::Exec));
        loop {
            // Announced before the bytes are read, so that an invalidation from here on counts as a change. A
            // block ends with its page, but its last instruction may reach into the next.
            let pages = [page, page.wrapping_add(1)];
            pages.iter().for_each(|&p| self.code_pages.add(p));
            let before = self.changes.load(Ordering::SeqCst);
            let mixed = self.prepare_pages(key.pc);
            let limit = match mixed {
                true if self.isa.self_modifying_is_exact() => 1,
                _ => self.config.tb_insns,
            };
            let lifted = lifter.lift(self, key, limit).map(|mut tb| {
                if mixed {
                    let mut bytes = vec![0; tb.len as usize].into_boxed_slice();
                    self.mem.fetch_code(key.pc, &mut bytes);
                    tb.check(bytes);
                }
                if self.debug.is_split(key.pc.0) {
                    tb.stop_at();
                }
                tb
            });
            let mut index = lock(&self.index);
            let (mut tidy, mut look) = (false, false);
            let raced = self.changes.load(Ordering::SeqCst) != before;
            let result = match (lifted, index.find(key, guard)) {
                (_, Some(tb)) => Some(Ok(tb)),
                (None, None) => Some(Err(fault())),
                (Some(_), None) if raced => None,
                (Some(tb), None) => {
                    tb.pages().for_each(|p| self.code_pages.add(p));
                    let before = self.stats.blocks_lifted.fetch_add(1, Ordering::Relaxed);
                    tidy = before.is_multiple_of(tuning::COLLECT_EVERY);
                    self.stats.insns_lifted.fetch_add(tb.insns as u64, Ordering::Relaxed);
                    look = index.count_lifted(self.config.idle_after);
                    Some(Ok(index.insert(tb, &self.table, &self.epoch, guard)))
                }
            };
            drop(index);
            if tidy {
                // The table that the present one replaced.
                self.epoch.collect();
            }
            pages.iter().for_each(|&p| self.code_pages.remove(p));
            if look {
                self.drop_idle();
            }
            if let Some(result) = result {
                return result;
            }
        }
    }

    /// Tells guest memory that code is about to be read at `pc`. True when the page is written so often that its
    /// blocks are checked instead of watched.
    fn prepare_pages(&self, pc: GuestVa) -> bool {
        let page = pc.0 >> PAGE_SHIFT;
        let start = GuestVa(page << PAGE_SHIFT);
        if !self.watches() {
            self.mem.note_code(start, 1 << PAGE_SHIFT);
            return false;
        }
        let faults = lock(&self.index).faults.get(&page).copied().unwrap_or(0);
        if faults >= self.config.page_fault_limit {
            self.mem.note_code(start, 1 << PAGE_SHIFT);
            return true;
        }
        // The next page too, when an instruction may cross; watching a page twice costs nothing.
        let crosses = pc.0 & ((1 << PAGE_SHIFT) - 1) > (1 << PAGE_SHIFT) - 16;
        self.mem.watch_code(start, (1 + crosses as u64) << PAGE_SHIFT);
        false
    }

    /// Makes every vCPU that runs come to the dispatcher soon, for quiescence and to look at `stale`.
    pub(crate) fn nudge(&self) {
        for vcpu in lock(&self.vcpus).iter() {
            vcpu.flag.raise(EXIT_ENGINE);
        }
    }

    /// As [`Engine::announce_stale`] for blocks that have no code: those that had some were announced when it went.
    pub(crate) fn announce_uncompiled(&self, keys: &[TbKey]) {
        if keys.len() <= tuning::STALE_KEYS {
            return self.announce_stale(keys);
        }
        for vcpu in lock(&self.vcpus).iter() {
            vcpu.flush_blocks.store(true, Ordering::Release);
            vcpu.flag.raise(EXIT_ENGINE);
        }
    }

    /// Tells all vCPUs to drop these keys from their caches before they use them again.
    pub(crate) fn announce_stale(&self, keys: &[TbKey]) {
        if keys.is_empty() {
            return;
        }
        for vcpu in lock(&self.vcpus).iter() {
            let mut stale = lock(&vcpu.stale);
            if stale.len() + keys.len() > tuning::STALE_KEYS {
                stale.clear();
                vcpu.flush.store(true, Ordering::Release);
            } else {
                stale.extend_from_slice(keys);
            }
            drop(stale);
            vcpu.flag.raise(EXIT_ENGINE);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.jobs.close();
        signals::forget_engine(self);
    }
}

/// Passes changes of executable mappings on.
struct Listener(Weak<Engine>);

impl CodeListener for Listener {
    fn code_changed(&self, start: GuestVa, len: u64, change: CodeChange) {
        let Some(engine) = self.0.upgrade() else { return };
        if change == CodeChange::Unmapped {
            // What comes here next starts with a clean record.
            let pages = start.0 >> PAGE_SHIFT..=start.0.wrapping_add(len - 1) >> PAGE_SHIFT;
            lock(&engine.index).faults.retain(|page, _| !pages.contains(page));
        }
        engine.invalidate(start, len);
    }
}
