//! A guest process's address space as host memory at a constant distance.
//!
//! Two forms. *Flat*: guest address = host address; guests with 64-bit addresses. Guest mappings are
//! placed in an area far from where the host kernel puts tulk's own, and no guest request ever replaces
//! a mapping that is not the guest's. *Window*: a reserved 4 GiB window and guards, for 32-bit guests.
//!
//! Invariants:
//! - every mapped guest page is in the interval map with its guest protection, file and offset; host
//!   memory that is not in the map is never changed for the guest. In a window, what is not mapped is a
//!   `PROT_NONE` reservation.
//! - host protection = guest protection without EXEC, with READ where the guest has EXEC, without WRITE
//!   on pages that hold watched (translated) code.
//! - guest memory is never touched while the map's lock is held, so a fault handler may take it.
//! - loads and stores take no lock at all ([`crate::raw`]); the map is consulted after a fault.
//!
//! The guest's page size is 4 KiB. A host with larger pages would need guest pages that share a host page
//! to be merged; [`UserSpace::flat`] refuses such hosts rather than be wrong.
//!
//! Two mappings of one shared object are two places to write code through; only writes through the watched
//! mapping are seen, which suffices for guests that must flush their instruction cache explicitly.

mod code;
mod copy;
mod trap;

use crate::intervals::{EXEC, Intervals, MapName, Mapped, READ, Region, WRITE};
use crate::raw;
use parking_lot::{RwLock, RwLockWriteGuard};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tulk_base::{AccessKind, FaultCause, GuestVa, MemFault};

/// An error number of the host's kernel; what a guest system call returns (translated where they differ).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}
impl std::error::Error for Errno {}

const EFAULT: Errno = Errno(libc::EFAULT);
const EINVAL: Errno = Errno(libc::EINVAL);
const ENOMEM: Errno = Errno(libc::ENOMEM);

/// The guest's page size.
pub const PAGE: u64 = 4096;

/// What a growing mapping keeps clear below it (the kernel's default `stack_guard_gap`).
const GUARD_GAP: u64 = 256 * PAGE;
/// In the flags of a [`MapRequest`]: anywhere below 2 GiB, as x86's `MAP_32BIT` wants it.
pub const MAP_LOW: i32 = 0x40;
const LOW_AREA: Range<u64> = 0x4000_0000..0x8000_0000;

/// Bytes of guard in front of and behind a 32-bit window: offsets that do not wrap, and more than any one access can straddle.
const GUARD: u64 = tulk_base::mem::WINDOW_GUARD + (64 << 10);
const RESERVE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
/// Placement attempts when tulk's own mappings are in the way.
const ATTEMPTS: usize = 512;

/// What happened to a range whose code may have been translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeChange {
    /// Unmapped, moved, replaced by another mapping, or its content discarded.
    Unmapped,
    /// No longer executable; the bytes are the same.
    NotExecutable,
    /// The bytes are about to be written by the kernel on the guest's behalf.
    Written,
}

/// Told when translations of a range can no longer be used. Called without the lock of the map, after the
/// change; a `fork` waits until it returned ([`UserSpace::lock_for_fork`]).
pub trait CodeListener: Send + Sync {
    fn code_changed(&self, start: GuestVa, len: u64, change: CodeChange);
}

/// What [`UserSpace::on_write_fault`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFault {
    /// Not about watched code: a guest fault.
    NotOurs,
    /// The page (its first address) held watched code and can be written now: drop its translations,
    /// then repeat the access.
    CodePage { va: GuestVa },
}

/// One `mmap`. `flags` are the host's `MAP_*`.
#[derive(Clone, Debug)]
pub struct MapRequest {
    pub hint: GuestVa,
    pub len: u64,
    /// Guest protection ([`READ`], [`WRITE`], [`EXEC`]).
    pub prot: u32,
    pub flags: i32,
    pub fd: i32,
    pub offset: u64,
    pub name: Option<Arc<MapName>>,
}

impl MapRequest {
    /// Private anonymous memory anywhere.
    pub fn anonymous(len: u64, prot: u32) -> MapRequest {
        MapRequest {
            hint: GuestVa(0),
            len,
            prot,
            flags: libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            fd: -1,
            offset: 0,
            name: None,
        }
    }
    /// The same at exactly this address, replacing what is there.
    pub fn fixed(self, at: GuestVa) -> MapRequest {
        MapRequest { hint: at, flags: self.flags | libc::MAP_FIXED, ..self }
    }
    /// The same under a name for `/proc/self/maps`.
    pub fn named(self, name: &str) -> MapRequest {
        let name = MapName { path: name.as_bytes().to_vec(), ..MapName::default() };
        MapRequest { name: Some(Arc::new(name)), ..self }
    }
}

/// A page that holds, or held, translated code.
#[derive(Clone, Copy, Debug, Default)]
struct CodePage {
    watched: bool,
    /// Translated without being watched: changes of the mapping are reported, writes are not noticed.
    noted: bool,
    generation: u64,
}

#[derive(Default)]
struct Maps {
    regions: Intervals,
    /// By page number.
    code: BTreeMap<u64, CodePage>,
    generation: u64,
    traps: trap::Traps,
    brk_start: u64,
    brk: u64,
    /// Where anonymous placement starts to look, top down.
    area: Range<u64>,
    cursor: u64,
}

/// See the module.
pub struct UserSpace {
    base: usize,
    /// First address that the guest cannot map.
    limit: u64,
    window: bool,
    /// The guest ignores the top byte of data addresses.
    tags: bool,
    maps: RwLock<Maps>,
    /// Held for reading from before a change of translated code until somebody was told. A `fork` in between
    /// would leave the child with translations of what is gone.
    telling: RwLock<()>,
    /// Some page was watched at some time; as long as none was, writes need no look at the map.
    watching: AtomicBool,
    /// Some page is trapped for a debugger.
    trapping: AtomicBool,
    listener: OnceLock<Arc<dyn CodeListener>>,
}

impl UserSpace {
    /// Guest addresses are host addresses, up to 47 bits.
    pub fn flat() -> Result<UserSpace, Errno> {
        // Far below the host kernel's mmap area and PIE base (0x5555..., 0x7f...), far above what
        // position-dependent programs and runtimes' fixed hints (Go: 0x40_0000_0000) use.
        Self::new(0, 1 << 47, false, 0x10_0000_0000..0x4fff_f000_0000)
    }

    /// A reserved 4 GiB window for a guest with 32-bit addresses, of which the guest may map what is
    /// below `limit` (at most 4 GiB).
    pub fn window32_below(limit: u64) -> Result<UserSpace, Errno> {
        let limit = limit.min(1 << 32) & !(PAGE - 1);
        let span = (1u64 << 32) + 2 * GUARD;
        // Low addresses: the host kernel, which places mappings top down, never fills a hole here.
        let base = (1..1024u64)
            .map(|i| ((i << 36) - GUARD) as usize)
            .find_map(|at| {
                let flags = RESERVE | libc::MAP_FIXED_NOREPLACE;
                raw::map(at, span, libc::PROT_NONE, flags, -1, 0).ok()
            })
            .ok_or(ENOMEM)?;
        Self::new(base + GUARD as usize, limit, true, 0x4000_0000..limit.min(0xf000_0000))
    }

    /// [`Self::window32_below`] with all but the last page.
    pub fn window32() -> Result<UserSpace, Errno> {
        Self::window32_below((1 << 32) - PAGE)
    }

    fn new(base: usize, limit: u64, window: bool, area: Range<u64>) -> Result<UserSpace, Errno> {
        if raw::page_size() != PAGE {
            return Err(EINVAL);
        }
        let maps = Maps { cursor: area.end, area, ..Maps::default() };
        Ok(UserSpace {
            base,
            limit,
            window,
            tags: false,
            maps: RwLock::new(maps),
            telling: RwLock::new(()),
            watching: AtomicBool::new(false),
            trapping: AtomicBool::new(false),
            listener: OnceLock::new(),
        })
    }

    /// States that the guest ignores the top byte of data addresses (AArch64 TBI); such accesses fault on
    /// the host and are repeated without it.
    pub fn with_address_tags(mut self) -> UserSpace {
        self.tags = true;
        self
    }

    /// Sets the area in which addresses are chosen for the guest (top down).
    pub fn with_area(mut self, area: Range<u64>) -> UserSpace {
        let maps = self.maps.get_mut();
        maps.cursor = area.end;
        maps.area = area;
        self
    }

    /// Registers who is told about changed code; the first call counts.
    pub fn set_listener(&self, listener: Arc<dyn CodeListener>) {
        let _ = self.listener.set(listener);
    }

    /// Host address of guest address 0.
    #[inline]
    pub fn base(&self) -> usize {
        self.base
    }
    #[inline]
    pub fn is_window(&self) -> bool {
        self.window
    }
    /// First address that the guest cannot map.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The host address for an access at `va`; not necessarily mapped.
    #[inline(always)]
    pub fn host_ptr(&self, va: GuestVa) -> usize {
        if self.window { self.base + va.0 as u32 as usize } else { va.0 as usize }
    }
    /// The guest address at `host`, if it is inside the guest's range.
    #[inline]
    pub fn guest_va(&self, host: usize) -> Option<GuestVa> {
        let va = host.checked_sub(self.base)? as u64;
        (va < self.limit).then_some(GuestVa(va))
    }
    /// The address without an ignored tag.
    #[inline]
    pub fn untag(&self, va: GuestVa) -> GuestVa {
        if self.tags { GuestVa(va.0 & 0x00ff_ffff_ffff_ffff) } else { va }
    }

    /// Holds every lock of the space, for `fork`: the child then inherits a consistent map.
    pub fn lock_for_fork(&self) -> ForkGuard<'_> {
        let telling = self.telling.write();
        ForkGuard { _maps: self.maps.write(), _telling: telling }
    }

    // ---- questions -------------------------------------------------------------------------------

    /// The region that holds `va`.
    pub fn query(&self, va: GuestVa) -> Option<Mapped> {
        let maps = self.maps.read();
        let (start, end, region) = maps.regions.find(va.0)?;
        Some(Mapped { start, end, region: region.clone() })
    }
    /// All regions in order.
    pub fn regions(&self) -> Vec<Mapped> {
        self.maps.read().regions.all()
    }
    /// The mapped parts of `[va, va + len)`, in order.
    pub fn mapped_in(&self, va: GuestVa, len: u64) -> Vec<Mapped> {
        match self.range(va, len) {
            Some(r) => self.maps.read().regions.clipped(r),
            None => Vec::new(),
        }
    }
    /// True when all of `[va, va + len)` is mapped.
    pub fn is_mapped(&self, va: GuestVa, len: u64) -> bool {
        match self.range(va, len) {
            Some(r) => self.maps.read().regions.is_full(r),
            None => false,
        }
    }

    /// Page-aligned range inside the limit.
    fn range(&self, va: GuestVa, len: u64) -> Option<Range<u64>> {
        let start = va.align_down(PAGE).0;
        let end = va.0.checked_add(len)?.checked_add(PAGE - 1)? & !(PAGE - 1);
        (end <= self.limit).then_some(start..end)
    }

    /// Why an access that faulted on the host did so: the first byte that cannot be accessed, and the cause.
    /// When the map allows all of it, the backing is gone ([`FaultCause::Bus`]).
    pub fn fault_cause(&self, va: GuestVa, len: u64, kind: AccessKind) -> MemFault {
        let need = match kind {
            AccessKind::Read => READ | EXEC,
            AccessKind::Write => WRITE,
            AccessKind::Exec => EXEC,
        };
        let start = self.untag(va).0;
        let end = start.saturating_add(len.max(1));
        if start >= self.limit {
            return MemFault { va, kind, cause: FaultCause::Unmapped };
        }
        let maps = self.maps.read();
        let mut at = start;
        while at < end {
            let cause = match maps.regions.find(at) {
                _ if at >= self.limit => FaultCause::Unmapped,
                None => FaultCause::Unmapped,
                // The host's pages are readable wherever they are writable.
                Some((.., r))
                    if r.prot & need == 0 && !(kind == AccessKind::Read && r.prot & WRITE != 0) =>
                {
                    FaultCause::Protection
                }
                Some((_, region_end, _)) => {
                    at = region_end;
                    continue;
                }
            };
            return MemFault { va: va.wrapping_add(at - start), kind, cause };
        }
        MemFault { va, kind, cause: FaultCause::Bus }
    }

    // ---- mapping ---------------------------------------------------------------------------------

    /// `mmap`. Returns where.
    pub fn map(&self, req: &MapRequest) -> Result<GuestVa, Errno> {
        self.place(req, |host, len, flags| {
            raw::map(host, len, host_prot(req.prot), flags, req.fd, req.offset).map(drop)
        })
    }

    /// Places a mapping that `attach` makes over the reserved host range it is given (`shmat` and the like);
    /// `req.fd` and `req.offset` only describe.
    pub fn map_by(
        &self,
        req: &MapRequest,
        attach: impl FnOnce(usize) -> Result<(), i32>,
    ) -> Result<GuestVa, Errno> {
        let mut attach = Some(attach);
        let mut lost = None;
        let result = self.place(req, |host, len, flags| {
            let reserve = flags & libc::MAP_FIXED_NOREPLACE | libc::MAP_FIXED | RESERVE;
            raw::map(host, len, libc::PROT_NONE, reserve, -1, 0)?;
            let made = attach.take().map_or(Err(libc::EINVAL), |a| a(host));
            if made.is_err() {
                lost = Some((host - self.base) as u64..(host - self.base) as u64 + len);
            }
            made
        });
        if let (Err(_), Some(range)) = (&result, lost) {
            // The reservation replaced what a fixed request named; give the host its range back.
            let _telling = self.telling.read();
            let mut maps = self.maps.write();
            let _ = self.vacate(range.clone());
            maps.regions.remove(range.clone());
            let dirty = maps.forget_code(range);
            drop(maps);
            self.report(dirty, CodeChange::Unmapped);
        }
        result
    }

    fn place(
        &self,
        req: &MapRequest,
        mut make: impl FnMut(usize, u64, i32) -> Result<(), i32>,
    ) -> Result<GuestVa, Errno> {
        if req.len == 0 || !req.offset.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        let len = req.len.checked_next_multiple_of(PAGE).ok_or(ENOMEM)?;
        if len > self.limit {
            return Err(ENOMEM);
        }
        let fixed = req.flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0;
        let own = libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE | libc::MAP_GROWSDOWN | MAP_LOW;
        let flags = req.flags & !own;
        let _telling = self.telling.read();
        let mut dirty = Vec::new();
        let mut maps = self.maps.write();
        let start = if fixed {
            let range = self.exact(req.hint, len)?;
            if req.flags & libc::MAP_FIXED_NOREPLACE != 0 && !maps.regions.is_free(range.clone()) {
                return Err(Errno(libc::EEXIST));
            }
            let gaps = self.reserve_gaps(&maps, range.clone())?;
            if let Err(e) = make(self.host(range.start), len, flags | libc::MAP_FIXED) {
                for gap in gaps {
                    let _ = raw::unmap(self.host(gap.start), gap.end - gap.start);
                }
                return Err(Errno(e));
            }
            dirty = maps.forget_code(range.clone());
            range.start
        } else {
            let low = req.flags & MAP_LOW != 0;
            self.choose(&mut maps, req.hint, len, low, |at| {
                let how = if self.window { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
                make(self.host(at), len, flags | how)
            })?
        };
        let region = Region {
            prot: req.prot & (READ | WRITE | EXEC),
            shared: req.flags & libc::MAP_TYPE != libc::MAP_PRIVATE,
            name: req.name.clone(),
            offset: req.offset,
            file: req.flags & libc::MAP_ANONYMOUS == 0,
            grows: req.flags & libc::MAP_GROWSDOWN != 0,
        };
        let prot = region.prot;
        maps.regions.insert(start..start + len, region);
        if self.has_traps() {
            for page in maps.traps.in_range(start..start + len) {
                let _ = self.apply(&maps, page..page + PAGE, prot);
            }
        }
        drop(maps);
        self.report(dirty, CodeChange::Unmapped);
        Ok(GuestVa(start))
    }

    /// An access to `va`, which is not mapped: a mapping above it made with `MAP_GROWSDOWN` grows down to it, up to
    /// `limit` bytes in all and not close to what lies below. True when it did.
    pub fn grow_down(&self, va: GuestVa, limit: u64) -> bool {
        let at = self.untag(va).align_down(PAGE).0;
        let mut maps = self.maps.write();
        let end = at.saturating_add(limit).min(self.limit);
        let Some((start, stop, region)) =
            maps.regions.touching(at..end).next().map(|(s, e, r)| (s, e, r.clone()))
        else {
            return false;
        };
        let clear = at.saturating_sub(GUARD_GAP)..start;
        if !region.grows || start <= at || stop - at > limit || !maps.regions.is_free(clear) {
            return false;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let how = if self.window { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
        let made = raw::map(self.host(at), start - at, host_prot(region.prot), flags | how, -1, 0);
        if made.is_ok() {
            maps.regions.insert(at..start, region);
        }
        made.is_ok()
    }

    /// The page-aligned range that a fixed request names.
    fn exact(&self, at: GuestVa, len: u64) -> Result<Range<u64>, Errno> {
        if !at.is_aligned(PAGE) {
            return Err(EINVAL);
        }
        match at.0.checked_add(len) {
            Some(end) if end <= self.limit => Ok(at.0..end),
            _ => Err(ENOMEM),
        }
    }

    #[inline]
    fn host(&self, at: u64) -> usize {
        self.base + at as usize
    }

    /// Flat: claims what is not yet the guest's in `range`, so that a fixed mapping over all of it replaces
    /// nothing of tulk's own. Returns what was claimed.
    fn reserve_gaps(&self, maps: &Maps, range: Range<u64>) -> Result<Vec<Range<u64>>, Errno> {
        if self.window {
            return Ok(Vec::new());
        }
        let gaps = maps.regions.gaps(range);
        for (i, gap) in gaps.iter().enumerate() {
            let (at, len) = (self.host(gap.start), gap.end - gap.start);
            let flags = RESERVE | libc::MAP_FIXED_NOREPLACE;
            if let Err(e) = raw::map(at, len, libc::PROT_NONE, flags, -1, 0) {
                for gap in &gaps[..i] {
                    let _ = raw::unmap(self.host(gap.start), gap.end - gap.start);
                }
                return Err(if e == libc::EPERM { Errno(e) } else { ENOMEM });
            }
        }
        Ok(gaps)
    }

    /// Finds room for `len` bytes, at `hint` if that is free, and makes the mapping with `make`, which
    /// reports `EEXIST` where something of tulk's own is in the way.
    fn choose(
        &self,
        maps: &mut Maps,
        hint: GuestVa,
        len: u64,
        low: bool,
        mut make: impl FnMut(u64) -> Result<(), i32>,
    ) -> Result<u64, Errno> {
        let hint = hint.align_down(PAGE).0;
        let limit = if low { LOW_AREA.end } else { self.limit };
        if hint != 0
            && hint.checked_add(len).is_some_and(|end| end <= limit)
            && maps.regions.is_free(hint..hint + len)
        {
            match make(hint) {
                Ok(()) => return Ok(hint),
                Err(libc::EEXIST | libc::EPERM) => {}
                Err(e) => return Err(Errno(e)),
            }
        }
        let area = if low { LOW_AREA } else { maps.area.clone() };
        let mut top = if low { area.end } else { maps.cursor.min(area.end) };
        let mut wrapped = top == area.end;
        for _ in 0..ATTEMPTS {
            let Some(at) = maps.regions.find_gap_down(area.start..top, len, PAGE) else {
                if wrapped {
                    return Err(ENOMEM);
                }
                (wrapped, top) = (true, area.end);
                continue;
            };
            match make(at) {
                Ok(()) => {
                    if !low {
                        maps.cursor = at;
                    }
                    return Ok(at);
                }
                Err(libc::EEXIST) => top = at + len - PAGE,
                Err(e) => return Err(Errno(e)),
            }
        }
        Err(ENOMEM)
    }

    /// `munmap`: what the guest has mapped in the range goes, anything else stays.
    pub fn unmap(&self, va: GuestVa, len: u64) -> Result<(), Errno> {
        if !va.is_aligned(PAGE) || len == 0 {
            return Err(EINVAL);
        }
        let range = self.range(va, len).ok_or(EINVAL)?;
        let _telling = self.telling.read();
        let mut maps = self.maps.write();
        let dirty = self.release(&mut maps, range)?;
        drop(maps);
        self.report(dirty, CodeChange::Unmapped);
        Ok(())
    }

    fn release(&self, maps: &mut Maps, range: Range<u64>) -> Result<Vec<u64>, Errno> {
        for m in maps.regions.clipped(range.clone()) {
            self.vacate(m.start..m.end)?;
            maps.regions.remove(m.start..m.end);
            if m.end <= maps.area.end && m.end > maps.cursor {
                maps.cursor = m.end;
            }
        }
        Ok(maps.forget_code(range))
    }

    /// Gives host memory back (or to the window's reservation).
    fn vacate(&self, range: Range<u64>) -> Result<(), Errno> {
        let (at, len) = (self.host(range.start), range.end - range.start);
        if self.window {
            let flags = RESERVE | libc::MAP_FIXED;
            raw::map(at, len, libc::PROT_NONE, flags, -1, 0).map(drop).map_err(Errno)
        } else {
            raw::unmap(at, len).map_err(Errno)
        }
    }

    /// `mprotect`. Like the kernel it changes what lies in front of the first hole and then reports ENOMEM.
    pub fn protect(&self, va: GuestVa, len: u64, prot: u32) -> Result<(), Errno> {
        if !va.is_aligned(PAGE) {
            return Err(EINVAL);
        }
        let range = self.range(va, len).ok_or(ENOMEM)?;
        let _telling = self.telling.read();
        let mut dirty = Vec::new();
        let mut maps = self.maps.write();
        let mut at = range.start;
        let mut result = Ok(());
        for m in maps.regions.clipped(range.clone()) {
            if m.start > at {
                break;
            }
            at = m.end;
            if m.region.prot == prot {
                continue;
            }
            if let Err(e) = self.apply(&maps, m.start..m.end, prot) {
                at = range.end;
                result = Err(e);
                break;
            }
            maps.regions.protect(m.start..m.end, prot);
            if m.region.prot & EXEC != 0 && prot & EXEC == 0 {
                dirty.extend(maps.translated(m.start..m.end));
            }
        }
        drop(maps);
        self.report(dirty, CodeChange::NotExecutable);
        if at < range.end { Err(ENOMEM) } else { result }
    }

    /// Gives host pages the protection that guest protection `prot` asks for, watched pages aside.
    fn apply(&self, maps: &Maps, range: Range<u64>, prot: u32) -> Result<(), Errno> {
        let want = host_prot(prot);
        let set = |r: Range<u64>, p: i32| {
            if r.is_empty() {
                return Ok(());
            }
            raw::protect(self.host(r.start), r.end - r.start, p).map_err(Errno)
        };
        let mut at = range.start;
        if prot & WRITE != 0 {
            for page in maps.watched(range.clone()) {
                set(at..page, want)?;
                set(page..page + PAGE, want & !libc::PROT_WRITE)?;
                at = page + PAGE;
            }
        }
        set(at..range.end, want)?;
        if self.has_traps() {
            for page in maps.traps.in_range(range) {
                let watched = maps.code.get(&(page / PAGE)).is_some_and(|p| p.watched);
                let open = if watched { want & !libc::PROT_WRITE } else { want };
                set(page..page + PAGE, maps.traps.limit(page, open))?;
            }
        }
        Ok(())
    }

    /// `mremap`; `flags` are the host's `MREMAP_*`.
    pub fn remap(
        &self,
        old: GuestVa,
        old_len: u64,
        new_len: u64,
        flags: i32,
        to: GuestVa,
    ) -> Result<GuestVa, Errno> {
        let known = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let may_move = flags & libc::MREMAP_MAYMOVE != 0;
        let fixed = flags & libc::MREMAP_FIXED != 0;
        let keep_old = flags & libc::MREMAP_DONTUNMAP != 0;
        if flags & !known != 0 || !old.is_aligned(PAGE) || (fixed || keep_old) && !may_move {
            return Err(EINVAL);
        }
        let new_len = new_len.checked_next_multiple_of(PAGE).filter(|&l| l != 0).ok_or(EINVAL)?;
        let old_len = old_len.checked_next_multiple_of(PAGE).ok_or(EINVAL)?;
        if keep_old && old_len != new_len {
            return Err(EINVAL);
        }
        let from = self.range(old, old_len).ok_or(EFAULT)?;
        let _telling = self.telling.read();
        let mut maps = self.maps.write();
        let region = match maps.regions.clipped(old.0..from.end.max(old.0 + 1)).as_slice() {
            [only] if only.end >= from.end => only.region.clone(),
            _ => return Err(EFAULT),
        };
        if old_len == 0 && !region.shared {
            return Err(EINVAL);
        }
        // Pages that differ in host protection are several mappings to the kernel.
        let mut dirty = maps.forget_code(from.clone());
        if !dirty.is_empty() {
            self.apply(&maps, from.clone(), region.prot)?;
        }
        let result = (|| {
            if !fixed && !keep_old && old_len != 0 {
                if new_len <= old_len {
                    self.release(&mut maps, old.0 + new_len..old.0 + old_len)?;
                    return Ok(old);
                }
                if self.grow(&mut maps, old.0, old_len, new_len, &region).is_ok() {
                    return Ok(old);
                }
            }
            if !may_move {
                return Err(ENOMEM);
            }
            let target = if fixed {
                let range = self.exact(to, new_len).map_err(|_| EINVAL)?;
                if range.start < from.end && from.start < range.end {
                    return Err(EINVAL);
                }
                self.reserve_gaps(&maps, range.clone())?;
                dirty.extend(maps.forget_code(range.clone()));
                maps.regions.remove(range);
                to.0
            } else {
                self.choose(&mut maps, GuestVa(0), new_len, false, |at| {
                    let how = if self.window { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
                    raw::map(self.host(at), new_len, libc::PROT_NONE, RESERVE | how, -1, 0)
                        .map(drop)
                })?
            };
            let host_flags =
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | flags & libc::MREMAP_DONTUNMAP;
            let host = self.host(target);
            if let Err(e) = raw::remap(self.host(old.0), old_len, new_len, host_flags, host) {
                let _ = self.vacate(target..target + new_len);
                return Err(Errno(e));
            }
            if !keep_old && old_len != 0 {
                maps.regions.remove(from.clone());
                if self.window {
                    self.vacate(from.clone())?;
                }
            }
            maps.regions.insert(target..target + new_len, region.clone());
            Ok(GuestVa(target))
        })();
        drop(maps);
        self.report(dirty, CodeChange::Unmapped);
        result
    }

    /// Grows a mapping in place.
    fn grow(
        &self,
        maps: &mut Maps,
        old: u64,
        old_len: u64,
        new_len: u64,
        region: &Region,
    ) -> Result<(), Errno> {
        let tail = old + old_len..old.checked_add(new_len).ok_or(ENOMEM)?;
        if tail.end > self.limit || !maps.regions.is_free(tail.clone()) {
            return Err(ENOMEM);
        }
        let tail_len = tail.end - tail.start;
        if self.window {
            raw::unmap(self.host(tail.start), tail_len).map_err(Errno)?;
        }
        if let Err(e) = raw::remap(self.host(old), old_len, new_len, 0, 0) {
            if self.window {
                self.vacate(tail)?;
            }
            return Err(Errno(e));
        }
        maps.regions.insert(old..old + new_len, region.clone());
        Ok(())
    }

    // ---- the program break -----------------------------------------------------------------------

    /// Sets where the heap starts (page-aligned up); the loader calls this once.
    pub fn set_brk_start(&self, at: GuestVa) {
        let mut maps = self.maps.write();
        maps.brk_start = at.0.next_multiple_of(PAGE);
        maps.brk = maps.brk_start;
    }

    /// `brk`: the new end of the heap, or the old one when the request cannot be met.
    pub fn brk(&self, at: GuestVa) -> GuestVa {
        let (start, brk) = {
            let maps = self.maps.read();
            (maps.brk_start, maps.brk)
        };
        if at.0 < start || at.0 >= self.limit {
            return GuestVa(brk);
        }
        let (old_end, new_end) = (brk.next_multiple_of(PAGE), at.0.next_multiple_of(PAGE));
        let done = if new_end > old_end {
            let mut req = MapRequest::anonymous(new_end - old_end, READ | WRITE).named("[heap]");
            req.hint = GuestVa(old_end);
            req.flags |= libc::MAP_FIXED_NOREPLACE;
            self.map(&req).is_ok()
        } else {
            new_end == old_end || self.unmap(GuestVa(new_end), old_end - new_end).is_ok()
        };
        if done {
            self.maps.write().brk = at.0;
            at
        } else {
            GuestVa(brk)
        }
    }

    /// Start and end of the heap.
    pub fn brk_range(&self) -> (GuestVa, GuestVa) {
        let maps = self.maps.read();
        (GuestVa(maps.brk_start), GuestVa(maps.brk))
    }
}

impl Drop for UserSpace {
    /// Gives all guest memory back to the host.
    fn drop(&mut self) {
        if self.window {
            let _ = raw::unmap(self.base - GUARD as usize, (1 << 32) + 2 * GUARD);
            return;
        }
        for m in self.maps.get_mut().regions.all() {
            let _ = raw::unmap(self.base + m.start as usize, m.end - m.start);
        }
    }
}

/// See [`UserSpace::lock_for_fork`].
pub struct ForkGuard<'a> {
    _maps: RwLockWriteGuard<'a, Maps>,
    _telling: RwLockWriteGuard<'a, ()>,
}

/// Host protection for guest protection: code is read, never executed, by the host.
fn host_prot(prot: u32) -> i32 {
    let mut host = (prot & (READ | WRITE)) as i32;
    if prot & EXEC != 0 {
        host |= libc::PROT_READ;
    }
    host
}

#[cfg(test)]
#[path = "user/tests.rs"]
mod tests;
