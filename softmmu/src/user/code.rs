//! Pages with translated code: watched for writes, reported when they change.

use super::*;

impl UserSpace {
    /// States that `[start, start + len)` is about to be read and translated. Writable pages lose their host
    /// write permission until the first write. Call before reading the code, and compare
    /// [`Self::code_generation`] before publishing.
    pub fn watch_code(&self, start: GuestVa, len: u64) {
        let Some(range) = self.range(start, len) else { return };
        let is_watched = |maps: &Maps| {
            (range.start / PAGE..range.end / PAGE)
                .all(|n| maps.code.get(&n).is_some_and(|p| p.watched))
        };
        if is_watched(&self.maps.read()) {
            return;
        }
        let mut maps = self.maps.write();
        self.watching.store(true, Ordering::SeqCst);
        for m in maps.regions.clipped(range.clone()) {
            for at in (m.start..m.end).step_by(PAGE as usize) {
                let fresh = CodePage::default();
                let page = maps.code.entry(at / PAGE).or_insert(fresh);
                if page.watched {
                    continue;
                }
                page.watched = true;
                if m.region.prot & WRITE != 0 {
                    let prot = host_prot(m.region.prot) & !libc::PROT_WRITE;
                    let prot = maps.traps.limit(at, prot);
                    let _ = raw::protect(self.host(at), PAGE, prot);
                }
            }
        }
    }

    /// States that `[start, start + len)` is about to be translated for a guest that flushes after changing
    /// code: changes of the mapping will be reported, writes will not be noticed.
    pub fn note_code(&self, start: GuestVa, len: u64) {
        let Some(range) = self.range(start, len) else { return };
        let pages = range.start / PAGE..range.end / PAGE;
        let is_noted = |maps: &Maps| {
            pages.clone().all(|n| maps.code.get(&n).is_some_and(|p| p.watched || p.noted))
        };
        if is_noted(&self.maps.read()) {
            return;
        }
        let mut maps = self.maps.write();
        for m in maps.regions.clipped(range.clone()) {
            for n in m.start / PAGE..m.end / PAGE {
                maps.code.entry(n).or_default().noted = true;
            }
        }
    }

    /// Changes whenever the code in the page of `va` may have changed.
    pub fn code_generation(&self, va: GuestVa) -> u64 {
        let maps = self.maps.read();
        maps.code.get(&(va.0 / PAGE)).map_or(maps.generation, |p| p.generation)
    }

    /// A host write fault at `host_addr`: if the page is watched it becomes writable, and `tell` notes that its
    /// translations are stale. Safe in the handler of a synchronous fault of an access to guest memory, as far as `tell` is.
    pub fn on_write_fault(&self, host_addr: usize, tell: impl FnOnce(GuestVa)) -> WriteFault {
        let Some(va) = self.guest_va(host_addr) else { return WriteFault::NotOurs };
        let page = va.align_down(PAGE);
        {
            let maps = self.maps.read();
            if !maps.code.contains_key(&(page.0 / PAGE)) {
                return WriteFault::NotOurs;
            }
        }
        let _telling = self.telling.read();
        let mut maps = self.maps.write();
        let Some((.., region)) = maps.regions.find(page.0) else { return WriteFault::NotOurs };
        let prot = region.prot;
        if prot & WRITE == 0 || !maps.code.contains_key(&(page.0 / PAGE)) {
            return WriteFault::NotOurs;
        }
        let watched = maps.code.get(&(page.0 / PAGE)).is_some_and(|p| p.watched);
        let host = maps.traps.limit(page.0, host_prot(prot));
        if !watched && host & libc::PROT_WRITE == 0 {
            return WriteFault::NotOurs;
        }
        // Another thread may have been first; the access can be repeated then too.
        maps.unwatch(page.0);
        match raw::protect(self.host(page.0), PAGE, host) {
            Ok(()) => {
                tell(page);
                WriteFault::CodePage { va: page }
            }
            Err(_) => WriteFault::NotOurs,
        }
    }

    /// The kernel is about to write to `[va, va + len)` for the guest, and would report EFAULT on watched
    /// pages: makes them writable and reports them as changed.
    pub fn prepare_kernel_write(&self, va: GuestVa, len: u64) {
        if !self.watching.load(Ordering::SeqCst) {
            return;
        }
        let va = self.untag(va);
        let Some(range) = self.range(va, len) else { return };
        if self.maps.read().watched(range.clone()).is_empty() {
            return;
        }
        let mut dirty = Vec::new();
        let _telling = self.telling.read();
        let mut maps = self.maps.write();
        for page in maps.watched(range) {
            let prot = maps.regions.find(page).map_or(0, |(.., r)| r.prot);
            let host = maps.traps.limit(page, host_prot(prot));
            if prot & WRITE != 0 && raw::protect(self.host(page), PAGE, host).is_ok() {
                maps.unwatch(page);
                dirty.push(page);
            }
        }
        drop(maps);
        self.report(dirty, CodeChange::Written);
    }

    /// The content of `[va, va + len)` is about to be discarded (`MADV_DONTNEED`, truncation).
    pub fn discard_code(&self, va: GuestVa, len: u64) {
        let Some(range) = self.range(self.untag(va), len) else { return };
        let dirty = self.maps.read().translated(range);
        self.report(dirty, CodeChange::Unmapped);
    }

    pub(super) fn report(&self, pages: Vec<u64>, change: CodeChange) {
        let Some(listener) = self.listener.get() else { return };
        let mut run: Option<Range<u64>> = None;
        for page in pages {
            match &mut run {
                Some(r) if r.end == page => r.end = page + PAGE,
                _ => {
                    if let Some(r) = run.replace(page..page + PAGE) {
                        listener.code_changed(GuestVa(r.start), r.end - r.start, change);
                    }
                }
            }
        }
        if let Some(r) = run {
            listener.code_changed(GuestVa(r.start), r.end - r.start, change);
        }
    }
}

impl Maps {
    /// Watched pages in `range`, in order.
    pub(super) fn watched(&self, range: Range<u64>) -> Vec<u64> {
        self.code
            .range(range.start / PAGE..range.end.div_ceil(PAGE))
            .filter(|(_, p)| p.watched)
            .map(|(&n, _)| n * PAGE)
            .collect()
    }
    /// Pages in `range` that hold translated code, watched or not, in order.
    pub(super) fn translated(&self, range: Range<u64>) -> Vec<u64> {
        self.code
            .range(range.start / PAGE..range.end.div_ceil(PAGE))
            .filter(|(_, p)| p.watched || p.noted)
            .map(|(&n, _)| n * PAGE)
            .collect()
    }
    /// Stops watching a page and gives it a new generation.
    pub(super) fn unwatch(&mut self, at: u64) {
        self.generation += 1;
        let generation = self.generation;
        if let Some(p) = self.code.get_mut(&(at / PAGE)) {
            *p = CodePage { generation, ..CodePage::default() };
        }
    }
    /// Forgets all code pages in `range`; returns those that were watched.
    pub(super) fn forget_code(&mut self, range: Range<u64>) -> Vec<u64> {
        self.generation += 1;
        let generation = self.generation;
        let mut dirty = Vec::new();
        for (&n, p) in self.code.range_mut(range.start / PAGE..range.end.div_ceil(PAGE)) {
            if p.watched || p.noted {
                dirty.push(n * PAGE);
            }
            *p = CodePage { generation, ..CodePage::default() };
        }
        dirty
    }
}
