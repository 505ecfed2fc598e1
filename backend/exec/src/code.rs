//! Compiled regions: where they are, what links to them, and how they go away.
//!
//! Every edge record of every region is listed under its target key, linked or waiting. Publishing a region writes its
//! address into the records that wait for its entry, and fills its own from what is compiled already; retiring it
//! writes 0 into the former and takes the latter off the lists. All that happens under one lock, rarely; generated
//! code only ever reads the records.
//!
//! A retired region is unreachable for whoever passes a quiescent point: its entry's code word, the edges to it
//! and (by stale keys, see `invalidate.rs`) the jump caches and return rings no longer name it. Its memory is given
//! back after the grace period, and until then the fault index still knows it.

use crate::engine::Engine;
use crate::host::epoch::{Epoch, Guard, Owned, lock};
use crate::host::fault_index::FaultIndex;
use crate::table::KeyMap;
use crate::tb::{Tb, code};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tulk_base::GuestVa;
use tulk_codegen::code_memory::{CodeBlock, CodeMemory};
use tulk_codegen::{FaultMap, Region};
use tulk_frontend::TbKey;

/// A region in code memory.
pub struct Placed {
    entry: TbKey,
    pub block: CodeBlock,
    pub address: usize,
    pub fault_map: FaultMap,
    /// Target and address of each edge record.
    edges: Vec<(TbKey, usize)>,
    members: Vec<TbKey>,
}

/// What is known about a key as the target of edges.
#[derive(Default)]
struct Target {
    /// The region compiled for it and its entry address.
    region: Option<(u64, usize)>,
    /// Edge records that want to go there.
    edges: Vec<usize>,
}

#[derive(Default)]
struct Links {
    next_id: u64,
    /// By age.
    regions: BTreeMap<u64, Owned<Placed>>,
    targets: KeyMap<TbKey, Target>,
    /// Regions that contain a block.
    members: KeyMap<TbKey, Vec<u64>>,
}

/// See the module. One per process: a forked child starts a new one, because the memory is shared.
pub struct CodeStore {
    pub memory: CodeMemory,
    pub faults: FaultIndex,
    links: Mutex<Links>,
    /// This process is a fork of the store's: nothing may be written any more.
    abandoned: AtomicBool,
}

/// Why a region was not published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The code memory is full; room is being made.
    Full,
    /// A block was invalidated, or compiled by somebody else, meanwhile.
    Stale,
}

impl CodeStore {
    pub fn new(limit: usize) -> io::Result<Arc<CodeStore>> {
        let memory = CodeMemory::new(limit)?;
        let faults = FaultIndex::new(&memory);
        let links = Mutex::default();
        Ok(Arc::new(CodeStore { memory, faults, links, abandoned: AtomicBool::new(false) }))
    }

    pub fn regions(&self) -> usize {
        lock(&self.links).regions.len()
    }

    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }

    /// Makes `region` the code of `members[0]`. `Ok` is its address.
    pub fn publish(
        self: &Arc<Self>,
        epoch: &Epoch,
        members: &[&Tb],
        region: Region,
    ) -> Result<usize, Refused> {
        let entry = members[0];
        let block = self.memory.allocate(&region.bytes).ok_or(Refused::Full)?;
        let address = self.memory.address(&block);
        let mut links = lock(&self.links);
        let links = &mut *links;
        let usable = members.iter().all(|tb| tb.is_valid())
            && entry.code.load(Ordering::Acquire) == code::INTERPRET;
        if !usable {
            // Nobody knows the block yet.
            self.memory.free(block);
            return Err(Refused::Stale);
        }
        let id = links.next_id;
        links.next_id += 1;
        let edges: Vec<(TbKey, usize)> = region
            .edges
            .iter()
            .map(|e| (TbKey { pc: GuestVa(e.pc), flags: e.flags }, address + e.offset as usize))
            .collect();
        let members: Vec<TbKey> = members.iter().map(|tb| tb.key).collect();
        let placed = Owned::new(Placed {
            entry: entry.key,
            block,
            address,
            fault_map: region.fault_map,
            edges,
            members,
        });
        self.faults.set(&placed, Some(&placed));
        for &key in &placed.members {
            links.members.entry(key).or_default().push(id);
        }
        for &(key, record) in &placed.edges {
            let target = links.targets.entry(key).or_default();
            target.edges.push(record);
            if let Some((_, code)) = target.region {
                self.memory.link(record, code);
            }
        }
        links.regions.insert(id, placed);
        let target = links.targets.entry(entry.key).or_default();
        target.region = Some((id, address));
        // The one store that makes it run; an invalidation that came in between wins.
        let (old, new) = (code::INTERPRET, address as u64);
        if entry.code.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            self.retire(links, id, epoch);
            return Err(Refused::Stale);
        }
        for &record in &target.edges {
            self.memory.link(record, address);
        }
        Ok(address)
    }

    /// Retires every region that contains one of `keys`; returns the keys of their entries, which are stale in jump
    /// caches now. `find` gives the valid block of a key.
    pub fn retire_members<'g>(
        self: &Arc<Self>,
        epoch: &Epoch,
        keys: &[TbKey],
        find: impl Fn(TbKey) -> Option<&'g Tb>,
    ) -> Vec<TbKey> {
        let mut links = lock(&self.links);
        let ids: Vec<u64> =
            keys.iter().filter_map(|key| links.members.get(key)).flatten().copied().collect();
        self.retire_all(&mut links, epoch, &ids, find)
    }

    /// Retires the oldest regions until at least `bytes` are on their way back; returns their entries.
    pub fn evict<'g>(
        self: &Arc<Self>,
        epoch: &Epoch,
        bytes: usize,
        find: impl Fn(TbKey) -> Option<&'g Tb>,
    ) -> Vec<TbKey> {
        let mut links = lock(&self.links);
        let mut sum = 0;
        let oldest = |region: &Placed| {
            let more = sum < bytes;
            sum += region.block.len();
            more
        };
        let mut oldest = oldest;
        let ids: Vec<u64> =
            links.regions.iter().take_while(|(_, r)| oldest(r)).map(|(&id, _)| id).collect();
        self.retire_all(&mut links, epoch, &ids, find)
    }

    fn retire_all<'g>(
        self: &Arc<Self>,
        links: &mut Links,
        epoch: &Epoch,
        ids: &[u64],
        find: impl Fn(TbKey) -> Option<&'g Tb>,
    ) -> Vec<TbKey> {
        let mut entries = Vec::new();
        for &id in ids {
            let Some(region) = links.regions.get(&id) else { continue };
            if let Some(tb) = find(region.entry) {
                let address = region.address as u64;
                tb.heat.store(0, Ordering::Relaxed);
                // Fails when the block was invalidated, which is as good.
                let _ = tb.code.compare_exchange(
                    address,
                    code::INTERPRET,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
            }
            entries.push(region.entry);
            self.retire(links, id, epoch);
        }
        entries
    }

    /// Unlinks a region and schedules its end.
    fn retire(self: &Arc<Self>, links: &mut Links, id: u64, epoch: &Epoch) {
        let Some(region) = links.regions.remove(&id) else { return };
        for &(key, record) in &region.edges {
            if let Some(target) = links.targets.get_mut(&key) {
                if let Some(at) = target.edges.iter().position(|&r| r == record) {
                    target.edges.swap_remove(at);
                }
                if target.edges.is_empty() && target.region.is_none() {
                    links.targets.remove(&key);
                }
            }
        }
        if let Some(target) = links.targets.get_mut(&region.entry)
            && target.region.is_some_and(|(of, _)| of == id)
        {
            target.region = None;
            target.edges.iter().for_each(|&record| self.memory.link(record, 0));
            if target.edges.is_empty() {
                links.targets.remove(&region.entry);
            }
        }
        for key in &region.members {
            if let Some(ids) = links.members.get_mut(key) {
                ids.retain(|&other| other != id);
                if ids.is_empty() {
                    links.members.remove(key);
                }
            }
        }
        let store = self.clone();
        epoch.retire(move || store.bury(region));
    }

    /// No thread is in the region any more.
    fn bury(&self, region: Owned<Placed>) {
        if self.abandoned.load(Ordering::SeqCst) {
            drop(region.free());
            return;
        }
        self.faults.set(&region, None);
        self.memory.free(region.free().block);
    }
}

impl Drop for CodeStore {
    fn drop(&mut self) {
        let links = self.links.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (_, region) in std::mem::take(&mut links.regions) {
            drop(region.free());
        }
    }
}

impl Engine {
    /// The code memory of this process, made on first use; `None` when the host refuses.
    pub(crate) fn code_store(&self) -> Option<Arc<CodeStore>> {
        let mut store = lock(&self.code);
        if store.is_none() {
            match CodeStore::new(self.config.code_limit) {
                Ok(new) => *store = Some(new),
                Err(error) => tracing::warn!(%error, "no memory for machine code, interpreting"),
            }
        }
        store.clone()
    }

    /// The code memory if there is one.
    pub(crate) fn existing_code_store(&self) -> Option<Arc<CodeStore>> {
        lock(&self.code).clone()
    }

    /// Makes room in the code memory by retiring its oldest quarter.
    pub(crate) fn evict_code(&self, store: &Arc<CodeStore>, guard: &Guard<'_>) {
        let bytes = self.config.code_limit / 4;
        let entries = store.evict(&self.epoch, bytes, |key| self.table.get(key, guard));
        self.stats.regions_evicted.fetch_add(entries.len() as u64, Ordering::Relaxed);
        self.announce_stale(&entries);
    }
}
