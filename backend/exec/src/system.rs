//! System mode: what the processors of one machine share beyond the [`Engine`], and where blocks are found by physical page.
//!
//! A block's key holds, above the frontend's flags, the *code page id* of its page: a number for one virtual page that shows
//! one frame. A processor may enter a block when its code TLB says that the virtual page has that id now. So address
//! spaces that map a page alike share its blocks, and no change of a mapping ever invalidates one.
//! `docs/system-memory.md` has the whole picture.

use crate::engine::Engine;
use crate::host::epoch::{Guard, lock};
use crate::host::zeroed_slice;
use crate::lift::Lifter;
use crate::table::{Index, KeyMap};
use crate::tb::{PAGE_SHIFT, Tb, code};
use crate::tuning;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tulk_base::tlb::itlb_index;
use tulk_base::{Board, GuestVa};
use tulk_codegen::PageCheck;
use tulk_frontend::{CodeReader, SystemIsa, TbKey};
use tulk_softmmu::phys::{CODE, SETTLED, WRITABLE};
use tulk_softmmu::{PhysListener, PhysMem, Tlb};

/// See the module.
pub(crate) struct System {
    pub isa: Arc<dyn SystemIsa>,
    pub phys: Arc<PhysMem>,
    pub board: Arc<dyn Board>,
    pub ids: Arc<Ids>,
    /// Frames on which a store from before their code may be under way: code on them is checked.
    unsettled: Mutex<Unsettled>,
    /// Frames whose code is overwritten.
    bursts: Mutex<KeyMap<u32, Burst>>,
    /// Blocks lifted when the present age of [`Ids`] began.
    aged: AtomicU64,
}

/// How the code of a frame is overwritten.
#[derive(Default)]
struct Burst {
    /// How often, with blocks lifted there in between. A page that is filled with something else is no burst.
    writes: u32,
    /// The number of blocks lifted anywhere when it was written last.
    last: u64,
    /// A block was lifted there since.
    lifted: bool,
    /// How often it was trusted again, or a check found other bytes: see [`tuning::CHECKS_BEFORE_TRUST`].
    rounds: u32,
}

impl Burst {
    fn distrust(&mut self) {
        self.rounds = (self.rounds + 1).min(8);
    }
}

/// See [`System::unsettled`].
#[derive(Default)]
struct Unsettled {
    /// With the number of the grace period that must pass.
    frames: KeyMap<u32, u64>,
    last: u64,
}

/// Code page ids. Number 0 is none.
pub(crate) struct Ids {
    /// Where they stand in key flags.
    shift: u32,
    /// Virtual page (plus one) and frame of each.
    pages: Box<[AtomicU64]>,
    frames: Box<[AtomicU32]>,
    /// The age in which a processor last asked for each.
    used: Box<[AtomicU32]>,
    age: AtomicU32,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    ids: KeyMap<(u64, u32), u32>,
    free: Vec<u32>,
    /// Those from here on were never used.
    fresh: u32,
}

impl Ids {
    fn new(key_mask: u64) -> Ids {
        let bits = (!key_mask).leading_ones().min(tuning::CODE_PAGE_BITS);
        assert!(bits >= 16, "key flags leave {bits} bits for code pages");
        let n = 1 << bits;
        Ids {
            shift: 64 - bits,
            pages: zeroed_slice(n),
            frames: zeroed_slice(n),
            used: zeroed_slice(n),
            age: AtomicU32::new(0),
            known: Mutex::new(Known { fresh: 1, ..Known::default() }),
        }
    }

    /// The id of a virtual page that shows a frame; `None` when all are in use.
    pub fn get(&self, va: u64, frame: u32) -> Option<u32> {
        let page = va >> PAGE_SHIFT;
        let mut known = lock(&self.known);
        let id = self.get_known(&mut known, page, frame)?;
        self.used[id as usize].store(self.age.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(id)
    }
    fn get_known(&self, known: &mut Known, page: u64, frame: u32) -> Option<u32> {
        if let Some(&id) = known.ids.get(&(page, frame)) {
            return Some(id);
        }
        let id = match known.free.pop() {
            Some(id) => id,
            None if (known.fresh as usize) < self.pages.len() => {
                known.fresh += 1;
                known.fresh - 1
            }
            None => return None,
        };
        known.ids.insert((page, frame), id);
        self.frames[id as usize].store(frame, Ordering::Relaxed);
        self.pages[id as usize].store(page + 1, Ordering::Release);
        Some(id)
    }

    /// Whether `id` is one of the page of `va`.
    #[inline]
    pub fn is_of(&self, id: u32, va: u64) -> bool {
        self.pages[id as usize].load(Ordering::Acquire) == (va >> PAGE_SHIFT) + 1
    }

    /// The frames that the page of `va` showed.
    pub fn frames_of(&self, va: u64) -> Vec<u32> {
        let page = va >> PAGE_SHIFT;
        let known = lock(&self.known);
        known.ids.keys().filter(|key| key.0 == page).map(|key| key.1).collect()
    }

    pub fn frame(&self, id: u32) -> u32 {
        self.frames[id as usize].load(Ordering::Relaxed)
    }

    /// The frontend's key with a code page.
    #[inline]
    pub fn with(&self, key: TbKey, id: u32) -> TbKey {
        TbKey { pc: key.pc, flags: key.flags | (id as u64) << self.shift }
    }
    #[inline]
    pub fn of(&self, key: TbKey) -> u32 {
        (key.flags >> self.shift) as u32
    }
    /// The frontend's flags.
    #[inline]
    pub fn flags(&self, key: TbKey) -> u64 {
        key.flags & ((1 << self.shift) - 1)
    }
    pub fn bare(&self, key: TbKey) -> TbKey {
        TbKey { pc: key.pc, flags: self.flags(key) }
    }

    /// From here on whoever asks for an id is noted anew.
    fn begin_age(&self) {
        self.age.fetch_add(1, Ordering::Relaxed);
    }
    /// No processor asked for it in this age and in so many before.
    fn is_unused(&self, id: u32, before: u32) -> bool {
        let used = self.used[id as usize].load(Ordering::Relaxed);
        self.age.load(Ordering::Relaxed).wrapping_sub(used) > before
    }

    /// Nearly all are in use.
    fn is_scarce(&self) -> bool {
        let known = lock(&self.known);
        known.ids.len() > self.pages.len() / 8 * 7
    }

    /// Forgets all ids but `live`; they may be given again after [`Ids::release`].
    fn forget(&self, live: &HashSet<u32>) -> Vec<u32> {
        let mut known = lock(&self.known);
        let mut gone = Vec::new();
        known.ids.retain(|_, id| {
            let keep = live.contains(id);
            if !keep {
                gone.push(*id);
            }
            keep
        });
        for &id in &gone {
            self.pages[id as usize].store(0, Ordering::Release);
        }
        gone
    }
    fn release(&self, ids: Vec<u32>) {
        lock(&self.known).free.extend(ids);
    }
}

/// Reads code of one frame, and of the one behind it, if that is known.
pub(crate) struct PhysCode<'a> {
    phys: &'a PhysMem,
    page: u64,
    frames: [Option<u32>; 2],
    /// The end of what can be read was reached.
    pub short: bool,
}

impl<'a> PhysCode<'a> {
    pub fn new(phys: &'a PhysMem, pc: GuestVa, frame: u32, second: Option<u32>) -> PhysCode<'a> {
        PhysCode { phys, page: pc.0 >> PAGE_SHIFT, frames: [Some(frame), second], short: false }
    }
}

impl CodeReader for PhysCode<'_> {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() {
            let at = va.0.wrapping_add(done as u64);
            let page = (at >> PAGE_SHIFT).wrapping_sub(self.page) as usize;
            let Some(frame) = self.frames.get(page).copied().flatten() else {
                self.short = true;
                break;
            };
            let offset = at & ((1 << PAGE_SHIFT) - 1);
            let n = (out.len() - done).min(((1 << PAGE_SHIFT) - offset) as usize);
            self.phys
                .read_backing(((frame as u64) << PAGE_SHIFT) + offset, &mut out[done..done + n]);
            done += n;
        }
        done
    }
}

/// What became of a block that was looked for.
pub(crate) enum Lifted<'g> {
    Block(&'g Tb),
    /// Its code cannot be read to the end of one instruction.
    Fault,
    /// Its code page id is no longer one.
    Lost,
}

/// What a processor knows of the page behind a block's first one.
pub(crate) enum Second {
    /// Its code page id.
    Page(u32),
    /// It cannot be executed.
    Fault,
}

impl System {
    pub fn new(isa: Arc<dyn SystemIsa>, phys: Arc<PhysMem>, board: Arc<dyn Board>) -> System {
        let ids = Arc::new(Ids::new(isa.key_mask()));
        let (unsettled, bursts, aged) = Default::default();
        System { isa, phys, board, ids, unsettled, bursts, aged }
    }

    pub fn frame_of(&self, key: TbKey) -> u32 {
        self.ids.frame(self.ids.of(key))
    }

    /// What must hold where a block is entered.
    pub fn check(&self, key: TbKey) -> PageCheck {
        PageCheck {
            mmu: self.isa.code_mmu(self.ids.flags(key)),
            index: itlb_index(key.pc.0) as u16,
            id: self.ids.of(key),
        }
    }

    /// The same of the page behind, where the block reaches into it.
    pub fn second_check(&self, tb: &Tb) -> Option<PageCheck> {
        let behind = (tb.key.pc.0 | ((1 << PAGE_SHIFT) - 1)).wrapping_add(1);
        let index = itlb_index(behind) as u16;
        tb.second().map(|id| PageCheck { index, id, ..self.check(tb.key) })
    }

    fn key_beside(&self, from: TbKey, key: TbKey) -> Option<TbKey> {
        let same = key.pc.0 >> PAGE_SHIFT == from.pc.0 >> PAGE_SHIFT
            && self.isa.code_mmu(key.flags) == self.isa.code_mmu(self.ids.flags(from));
        same.then(|| self.ids.with(key, self.ids.of(from)))
    }

    /// How often lately the code of this frame was overwritten by code.
    fn is_given_up(&self, frame: u32, limit: u32) -> bool {
        lock(&self.bursts).get(&frame).is_some_and(|burst| burst.writes >= limit)
    }

    /// The same, for a block that is to be lifted there.
    fn lifts_given_up(&self, frame: u32, limit: u32) -> bool {
        lock(&self.bursts).get_mut(&frame).is_some_and(|burst| {
            burst.lifted = true;
            burst.writes >= limit
        })
    }

    /// Every so many checks of one block: whether its frame is trusted from now on.
    fn trusts(&self, frame: u32, limit: u32, checks: u32) -> bool {
        let mut bursts = lock(&self.bursts);
        let Some(burst) = bursts.get_mut(&frame).filter(|burst| burst.writes >= limit) else {
            return false;
        };
        let [first, most] = tuning::CHECKS_BEFORE_TRUST;
        let wanted = first.checked_shl(2 * burst.rounds).unwrap_or(most).min(most);
        if checks < wanted {
            return false;
        }
        burst.writes = 0;
        burst.distrust();
        true
    }
}

impl Engine {
    /// The frontend's part of a key.
    #[inline]
    pub(crate) fn bare(&self, key: TbKey) -> TbKey {
        match &self.system {
            None => key,
            Some(system) => system.ids.bare(key),
        }
    }

    /// The block's key that belongs to a frontend's; in system mode only if it is on the page of the block `from`.
    pub(crate) fn key_beside(&self, from: TbKey, key: TbKey) -> Option<TbKey> {
        match &self.system {
            None => Some(key),
            Some(system) => system.key_beside(from, key),
        }
    }

    /// Announces code on a frame before it is read. True when another processor's store from before may still be under way:
    /// one that found its TLB entry fast and has not happened yet. `own` is the caller's TLB.
    fn announce_code(&self, system: &System, own: &Tlb, frame: u32) -> bool {
        if system.phys.flags(frame) & (CODE | SETTLED) == CODE | SETTLED {
            return false;
        }
        let mut unsettled = lock(&system.unsettled);
        let before = system.phys.set_flags(frame, CODE);
        let mut others = false;
        if before & WRITABLE != 0 {
            system.phys.clear_flags(frame, WRITABLE);
            for vcpu in lock(&self.vcpus).iter() {
                if let Some(tlb) = &vcpu.tlb {
                    others |= tlb.protect(frame..frame + 1) && !std::ptr::eq(&**tlb, own);
                }
            }
        }
        if !others {
            let waits = unsettled.frames.contains_key(&frame);
            if !waits {
                system.phys.set_flags(frame, SETTLED);
            }
            return waits;
        }
        // A grace period that began before is too early for these.
        unsettled.last += 1;
        let period = unsettled.last;
        unsettled.frames.insert(frame, period);
        drop(unsettled);
        let me = self.me.clone();
        self.epoch.retire(move || {
            if let Some(engine) = me.upgrade() {
                engine.settle(frame, period);
            }
        });
        self.nudge();
        true
    }

    /// Every processor has passed a quiescent point since the frame's code was announced: what was under way is done.
    fn settle(&self, frame: u32, period: u64) {
        let Some(system) = &self.system else { return };
        {
            let mut unsettled = lock(&system.unsettled);
            if unsettled.frames.get(&frame) != Some(&period) {
                return;
            }
            unsettled.frames.remove(&frame);
            if system.phys.flags(frame) & CODE == 0 {
                return;
            }
            system.phys.set_flags(frame, SETTLED);
        }
        let given_up = system.is_given_up(frame, self.config.page_fault_limit);
        let mut changed = false;
        {
            let index = lock(&self.index);
            index.on_page(&self.epoch, frame as u64, |tb| {
                if tb.code.load(Ordering::Acquire) != code::CHECKED || tb.second().is_some() {
                    return;
                }
                if !self.same_bytes(system, tb) {
                    changed = true;
                } else if !given_up {
                    let (old, new) = (code::CHECKED, code::INTERPRET);
                    let _ = tb.code.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
                }
            });
        }
        if changed {
            self.invalidate_frame(frame, 0, 1 << PAGE_SHIFT);
        }
    }

    /// The bytes of a block are still what was lifted.
    fn same_bytes(&self, system: &System, tb: &Tb) -> bool {
        let bytes = tb.bytes();
        let mut now = [0; 16];
        let second = tb.second().map(|id| system.ids.frame(id));
        let mut code = PhysCode::new(&system.phys, tb.key.pc, system.frame_of(tb.key), second);
        bytes.chunks(now.len()).zip(0u64..).all(|(piece, n)| {
            let at = tb.key.pc.wrapping_add(16 * n);
            let now = &mut now[..piece.len()];
            code.fetch(at, now) == piece.len() && now == piece
        })
    }

    /// As [`Engine::still_matches`], in system mode.
    pub(crate) fn still_matches_frame(&self, system: &System, tb: &Tb) -> bool {
        let frame = system.frame_of(tb.key);
        if !self.same_bytes(system, tb) {
            if let Some(burst) = lock(&system.bursts).get_mut(&frame) {
                burst.distrust();
            }
            let offset = tb.key.pc.0 as u32 & ((1 << PAGE_SHIFT) - 1);
            self.invalidate_frame(frame, offset, 1);
            return false;
        }
        let checks = if tb.bytes().is_empty() { 1 } else { tb.count_check() + 1 };
        if checks.is_multiple_of(tuning::CHECKS_BEFORE_TRUST[0])
            && system.trusts(frame, self.config.page_fault_limit, checks)
        {
            // Nobody writes there any more.
            self.invalidate_frame(frame, 0, 1 << PAGE_SHIFT);
            return false;
        }
        true
    }

    /// Finds or lifts the block at `key`, which has its code page. `second` finds the code page id of the page behind.
    #[cold]
    pub(crate) fn find_or_lift_paged<'g>(
        &self,
        system: &System,
        own: &Tlb,
        lifter: &mut Lifter,
        key: TbKey,
        mut second: impl FnMut() -> Second,
        guard: &'g Guard<'_>,
    ) -> Lifted<'g> {
        if let Some(tb) = self.table.get(key, guard) {
            return Lifted::Block(tb);
        }
        let phys = &system.phys;
        let frame = system.frame_of(key);
        loop {
            phys.translating.fetch_add(1, Ordering::SeqCst);
            let before =
                (self.changes.load(Ordering::SeqCst), phys.disturbed.load(Ordering::SeqCst));
            let given_up = system.lifts_given_up(frame, self.config.page_fault_limit);
            let mut checked = given_up || self.announce_code(system, own, frame);
            let limit = if given_up { 1 } else { self.config.tb_insns };
            let bare = system.ids.bare(key);
            let mut code = PhysCode::new(phys, key.pc, frame, None);
            let mut lifted = lifter.lift_from(self, key, bare, &mut code, limit);
            let mut behind = None;
            if code.short && lifted.as_ref().is_none_or(|tb| tb.insns <= 1) {
                // Perhaps an instruction that crosses into the next page.
                if let Second::Page(id) = second() {
                    let frame = system.ids.frame(id);
                    checked |= self.announce_code(system, own, frame)
                        || system.is_given_up(frame, self.config.page_fault_limit);
                    let mut code = PhysCode::new(phys, key.pc, system.frame_of(key), Some(frame));
                    lifted = lifter.lift_from(self, key, bare, &mut code, 1);
                    behind = lifted.as_ref().is_some_and(Tb::crosses).then_some(id);
                }
            }
            let lifted = lifted.map(|mut tb| {
                if checked || behind.is_some() {
                    // Of one that only crosses stores are seen, as of others.
                    let len = if checked { tb.len as usize } else { 0 };
                    let mut bytes = vec![0; len].into_boxed_slice();
                    let second = behind.map(|id| system.ids.frame(id));
                    PhysCode::new(phys, key.pc, frame, second).fetch(key.pc, &mut bytes);
                    tb.check(bytes);
                    tb.set_second(behind);
                }
                if self.debug.is_split(key.pc.0) {
                    tb.stop_at();
                }
                tb
            });
            let mut index = lock(&self.index);
            let mut tidy = false;
            let found = index.find(key, guard);
            let result = match (lifted, found) {
                (_, Some(tb)) => Some(Lifted::Block(tb)),
                (None, None) => Some(Lifted::Fault),
                // Ids are taken back under this lock.
                _ if !system.ids.is_of(system.ids.of(key), key.pc.0) => Some(Lifted::Lost),
                (Some(tb), None) => {
                    if !given_up {
                        for (frame, start, len) in index.extent(&tb).into_iter().flatten() {
                            phys.add_lines(frame as u32, PhysMem::line_bits(start, len));
                        }
                    }
                    // Behind the lines: a store that the counters do not show sees these.
                    let now = (
                        self.changes.load(Ordering::SeqCst),
                        phys.disturbed.load(Ordering::SeqCst),
                    );
                    if now == before {
                        let n = self.stats.blocks_lifted.fetch_add(1, Ordering::Relaxed);
                        tidy = n.is_multiple_of(tuning::COLLECT_EVERY);
                        self.stats.insns_lifted.fetch_add(tb.insns as u64, Ordering::Relaxed);
                        let tb = index.insert(tb, &self.table, &self.epoch, guard);
                        Some(Lifted::Block(tb))
                    } else {
                        None
                    }
                }
            };
            drop(index);
            phys.translating.fetch_sub(1, Ordering::SeqCst);
            if tidy {
                self.epoch.collect();
                self.tidy_system(system);
            }
            if let Some(result) = result {
                return result;
            }
        }
    }

    /// Drops all translations of code in `[offset, offset + len)` of a frame.
    pub(crate) fn invalidate_frame(&self, frame: u32, offset: u32, len: u32) {
        let Some(system) = &self.system else { return };
        self.drop_blocks(|index, each| {
            index.remove_on_frame(frame, offset, len, &self.epoch, each);
            self.set_lines(system, index);
        });
    }
    /// To what is left of the code of frames that blocks were taken from, and of the neighbours' into which one reached.
    fn set_lines(&self, system: &System, index: &mut Index) {
        for frame in index.take_touched() {
            let lines = index.lines(&self.epoch, frame);
            system.phys.set_lines(frame, lines);
            if lines == 0 {
                system.phys.clear_flags(frame, CODE | SETTLED);
            }
        }
    }

    /// Keeps blocks and code page ids from using up what there is. Of too many blocks those go whose pages no processor has asked
    /// for lately: its code TLB is emptied when an age begins, so it asks for all that it still runs.
    pub(crate) fn tidy_system(&self, system: &System) {
        let most = self.config.system_blocks;
        let lifted = self.stats.blocks_lifted.load(Ordering::Relaxed);
        let aged = system.aged.load(Ordering::Relaxed);
        let mut begins = lifted.saturating_sub(aged) >= most as u64 / 4;
        for before in [1, 0] {
            if lock(&self.index).len() > most {
                self.drop_unused(system, before);
                begins = true;
            }
        }
        if lock(&self.index).len() > most {
            self.invalidate_all_frames(system);
        }
        let aged = &system.aged;
        if begins && aged.fetch_max(lifted, Ordering::Relaxed) < lifted {
            system.ids.begin_age();
            self.clear_code_tlbs();
        }
        if system.ids.is_scarce() {
            let mut live = HashSet::new();
            let index = lock(&self.index);
            index.for_each(&self.epoch, |tb, _| {
                live.insert(system.ids.of(tb.key));
                live.extend(tb.second());
            });
            if live.len() > system.ids.pages.len() / 2 {
                drop(index);
                self.invalidate_all_frames(system);
                return;
            }
            let gone = system.ids.forget(&live);
            drop(index);
            self.clear_code_tlbs();
            let ids = system.ids.clone();
            self.epoch.retire(move || ids.release(gone));
            self.nudge();
        }
    }

    fn clear_code_tlbs(&self) {
        for vcpu in lock(&self.vcpus).iter() {
            if let Some(tlb) = &vcpu.tlb {
                tlb.clear_code();
            }
        }
    }

    /// Drops the blocks of pages that no processor asked for in this age and in so many before.
    fn drop_unused(&self, system: &System, before: u32) {
        self.drop_blocks(|index, each| {
            let unused = |tb: &Tb| system.ids.is_unused(system.ids.of(tb.key), before);
            index.remove_where(&self.epoch, unused, each);
            self.set_lines(system, index);
        });
    }

    fn invalidate_all_frames(&self, system: &System) {
        let frames: Vec<u64> = lock(&self.index).page_numbers();
        for frame in frames {
            self.invalidate_frame(frame as u32, 0, 1 << PAGE_SHIFT);
        }
        lock(&system.bursts).clear();
    }
}

/// Passes what happens to physical memory on.
pub(crate) struct PhysChanges(pub Weak<Engine>);

impl PhysListener for PhysChanges {
    fn remapped(&self) {
        let Some(engine) = self.0.upgrade() else { return };
        for vcpu in lock(&engine.vcpus).iter() {
            if let Some(tlb) = &vcpu.tlb {
                tlb.clear();
            }
        }
    }
    fn protect(&self, frames: Range<u32>) -> bool {
        let Some(engine) = self.0.upgrade() else { return false };
        let mut any = false;
        for vcpu in lock(&engine.vcpus).iter() {
            if let Some(tlb) = &vcpu.tlb {
                any |= tlb.protect(frames.clone());
            }
        }
        any
    }
    fn code_written(&self, frame: u32, offset: u32, len: u32) {
        let Some(engine) = self.0.upgrade() else { return };
        let Some(system) = &engine.system else { return };
        let lifted = engine.stats.blocks_lifted.load(Ordering::Relaxed);
        let whole = {
            let mut bursts = lock(&system.bursts);
            let burst = bursts.entry(frame).or_default();
            // Again, and nothing ran there meanwhile: it becomes another page, so all of it goes.
            let filled = burst.writes != 0 && !burst.lifted;
            if !filled {
                let soon = lifted - burst.last <= tuning::BURST_BLOCKS;
                burst.writes = if soon { burst.writes + 1 } else { 1 };
            }
            (burst.last, burst.lifted) = (lifted, false);
            let given_up = burst.writes >= engine.config.page_fault_limit;
            given_up || filled
        };
        engine.stats.write_faults.fetch_add(1, Ordering::Relaxed);
        let (offset, len) = if whole { (0, 1 << PAGE_SHIFT) } else { (offset, len) };
        engine.invalidate_frame(frame, offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_one_page_and_come_back() {
        let ids = Ids::new(!0 >> 16);
        let a = ids.get(0x5123, 7).unwrap();
        assert_eq!(ids.get(0x5fff, 7), Some(a));
        let b = ids.get(0x5000, 8).unwrap();
        let c = ids.get(0x6000, 7).unwrap();
        assert!(a != 0 && a != b && a != c && b != c);
        assert!(ids.is_of(a, 0x5fff) && !ids.is_of(a, 0x6000) && !ids.is_of(0, 0));
        assert_eq!((ids.frame(b), ids.frame(c)), (8, 7));
        let key = TbKey { pc: GuestVa(0x5004), flags: 0x1234 };
        let full = ids.with(key, b);
        assert_eq!((ids.of(full), ids.bare(full)), (b, key));
        // Until there are no more.
        let mut last = c;
        let mut page = 0x7000;
        while let Some(id) = ids.get(page, 1) {
            assert!(id > last);
            (last, page) = (id, page + 0x1000);
        }
        assert_eq!(last, (1 << 16) - 1);
        assert!(ids.is_scarce());
        let gone = ids.forget(&HashSet::from([a, c]));
        assert_eq!(gone.len(), (1 << 16) - 3);
        assert!(ids.is_of(a, 0x5000) && !ids.is_of(b, 0x5000) && !ids.is_scarce());
        assert_eq!(ids.get(0x5000, 8), None);
        ids.release(gone);
        assert!(ids.get(0x5000, 8).is_some_and(|id| id != a && id != c));
        assert_eq!(ids.get(0x5000, 7), Some(a));
    }

    #[test]
    fn ids_that_nobody_asks_for_age() {
        let ids = Ids::new(!0 >> 16);
        let [a, b] = [1, 2].map(|frame| ids.get(0x5000, frame).unwrap());
        assert!(!ids.is_unused(a, 0));
        ids.begin_age();
        assert_eq!(ids.get(0x5fff, 1), Some(a));
        assert_eq!([a, b].map(|id| ids.is_unused(id, 0)), [false, true]);
        assert!(!ids.is_unused(b, 1));
        ids.begin_age();
        assert_eq!([a, b].map(|id| ids.is_unused(id, 1)), [false, true]);
    }
}
