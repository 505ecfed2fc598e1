//! A system guest's memory as one processor sees it: the [`GuestMem`] and [`Machine`] of [`Env`].

use crate::debug::{WatchHit, watch_hit};
use crate::engine::Engine;
use crate::env::Env;
use crate::system::System;
use crate::trampoline::StatePtr;
use std::sync::{Arc, Mutex, PoisonError};
use tulk_base::{
    AccessKind, Board, FaultCause, GuestPa, GuestVa, Mapping, MemAlign, MemFault, MemOp, RmwOp,
    TlbFlush,
};
use tulk_frontend::SystemIsa;
use tulk_ir::Machine;
use tulk_softmmu::access;
use tulk_softmmu::tlb::{Found, Tlb, TlbOwner};
use tulk_softmmu::{PhysKind, PhysPage};

const PAGE: u64 = 4096;

/// One atomic access that the host cannot do at once, at a time.
static SPLIT: Mutex<()> = Mutex::new(());

/// See the module.
pub(crate) struct Mmu {
    engine: Arc<Engine>,
    /// The engine's; out of here while it walks.
    isa: Option<Arc<dyn SystemIsa>>,
    pub tlb: TlbOwner,
    /// The processor's registers, for walks.
    state: StatePtr,
    cpu: u32,
    /// A store to a line with code does nothing and fails, with [`Mmu::hit`].
    pub exact: bool,
    /// So does any access to watched bytes; done inexactly it leaves [`Mmu::watched`].
    pub hit: bool,
    pub watched: Option<WatchHit>,
}

/// Where the bytes of an access are.
enum Place {
    Host(usize, PhysPage, u32),
    Device(u64),
}

impl Mmu {
    pub fn new(engine: Arc<Engine>, tlb: Arc<Tlb>, state: StatePtr, cpu: u32) -> Mmu {
        let isa = engine.system.as_ref().map(|system| system.isa.clone());
        let mut mmu = Mmu {
            engine,
            isa,
            tlb: TlbOwner::new(tlb),
            state,
            cpu,
            exact: true,
            hit: false,
            watched: None,
        };
        mmu.publish();
        mmu
    }

    fn system(&self) -> &System {
        self.engine.system.as_ref().expect("a processor of a machine")
    }

    /// Tells generated code where the tables are.
    pub fn publish(&mut self) {
        let state = self.state;
        self.tlb.words(|mmu, mask, table, code| state.set_tables(mmu, mask, table, code));
    }

    /// Walks for one access, unless a large page is known.
    fn walk(
        &mut self,
        known: Option<Mapping>,
        va: GuestVa,
        kind: AccessKind,
        mmu: u8,
    ) -> Result<Mapping, MemFault> {
        if let Some(mapping) = known {
            return Ok(mapping);
        }
        let isa = self.isa.take().expect("walks do not walk");
        let state = self.state;
        let walked = isa.walk(state.registers(), self, va, kind, mmu);
        self.isa = Some(isa);
        let mut mapping = walked?;
        // Address lines that are not connected (x86: A20) may lie inside a large page.
        let lines = self.system().board.address_mask() | (PAGE - 1);
        let inside = (1u64 << mapping.size_log2.min(63)).wrapping_sub(1);
        if (mapping.pa.0 | inside) & !lines != 0 {
            mapping.pa.0 = (mapping.pa.0 & !inside | va.0 & inside) & lines & !(PAGE - 1);
            mapping.size_log2 = PAGE.trailing_zeros() as u8;
        }
        Ok(mapping)
    }

    /// Where the byte at `va` is, after what the guest's page tables say.
    fn translate(&mut self, va: GuestVa, kind: AccessKind, mmu: u8) -> Result<Found, MemFault> {
        if let Some(found) = self.tlb.find(va.0, mmu, kind == AccessKind::Write) {
            return Ok(found);
        }
        loop {
            let (ticket, known) = self.tlb.begin(va.0, kind, mmu);
            let mapping = self.walk(known, va, kind, mmu)?;
            if let Some(found) = self.tlb.insert(ticket, va.0, mmu, &mapping) {
                self.publish();
                return Ok(found);
            }
        }
    }

    /// The code page id of the page of `va` for fetches; `Err(None)`: it is no RAM, or there are no ids.
    pub fn code_page(&mut self, va: GuestVa, mmu: u8) -> Result<u32, Option<MemFault>> {
        let id = self.tlb.code_id(va.0, mmu);
        if id != 0 && self.system().ids.is_of(id, va.0) {
            return Ok(id);
        }
        loop {
            let (ticket, known) = self.tlb.begin(va.0, AccessKind::Exec, mmu);
            let mapping = self.walk(known, va, AccessKind::Exec, mmu).map_err(Some)?;
            let inside = (1u64 << mapping.size_log2.min(63)).wrapping_sub(1);
            let pa = mapping.pa.0 & !inside | va.0 & inside;
            let system = self.system();
            let page = system.phys.page(pa).ok_or(None)?;
            let id = system.ids.get(va.0, page.frame).ok_or(None)?;
            if self.tlb.insert_code(ticket, va.0, mmu, &mapping, id).is_some() {
                return Ok(id);
            }
        }
    }

    /// Reads code of any kind of memory.
    pub fn fetch(&mut self, va: GuestVa, out: &mut [u8], mmu: u8) -> Result<usize, MemFault> {
        let mut done = 0;
        while done < out.len() {
            let at = va.wrapping_add(done as u64);
            let (_, known) = self.tlb.begin(at.0, AccessKind::Exec, mmu);
            let mapping = match self.walk(known, at, AccessKind::Exec, mmu) {
                Ok(mapping) => mapping,
                Err(fault) if done == 0 => return Err(fault),
                Err(_) => break,
            };
            let inside = (1u64 << mapping.size_log2.min(63)).wrapping_sub(1);
            let pa = mapping.pa.0 & !inside | at.0 & inside;
            let n = (out.len() - done).min((PAGE - at.0 % PAGE) as usize);
            let system = self.system();
            if system.phys.page(pa).is_some() {
                system.phys.read(GuestPa(pa), &mut out[done..done + n]);
            } else {
                for (byte, at) in out[done..done + n].iter_mut().zip(pa..) {
                    *byte = system.board.mmio_read(self.cpu, GuestPa(at), 1) as u8;
                }
            }
            done += n;
        }
        Ok(done)
    }

    fn place(&mut self, va: GuestVa, kind: AccessKind, mmu: u8) -> Result<Place, MemFault> {
        let Found { pa, page } = self.translate(va, kind, mmu)?;
        Ok(match page {
            Some(page) if kind != AccessKind::Write || page.kind != PhysKind::Rom => {
                let offset = (pa % PAGE) as u32;
                let host = self.system().phys.frame_host(page.frame) + offset as usize;
                Place::Host(host, page, offset)
            }
            _ => Place::Device(pa),
        })
    }

    fn aligned(va: GuestVa, op: MemOp, kind: AccessKind) -> Result<(), MemFault> {
        if op.align() != MemAlign::Any && !va.is_aligned(op.align_bytes() as u64) {
            return Err(MemFault { va, kind, cause: FaultCause::Align });
        }
        Ok(())
    }

    /// The host address of an access that needs no care.
    #[inline(always)]
    pub fn host(&self, va: GuestVa, op: MemOp, write: bool) -> Option<usize> {
        if op.align() != MemAlign::Any && !va.is_aligned(op.align_bytes() as u64) {
            return None;
        }
        self.tlb.host(va.0, op.bytes(), op.mmu(), write)
    }

    /// The pieces of an access: one, or two when it crosses into another page.
    fn pieces(va: GuestVa, bytes: u32) -> [(GuestVa, u32); 2] {
        let first = ((PAGE - va.0 % PAGE) as u32).min(bytes);
        [(va, first), (va.wrapping_add(first as u64), bytes - first)]
    }

    /// Compares an access with the debugger's watchpoints: fails, and notes it, when it is about one and must not happen
    /// unseen.
    fn guard_watch(&mut self, va: GuestVa, op: MemOp, kind: AccessKind) -> Result<(), MemFault> {
        if !self.engine.debug.has_watch() {
            return Ok(());
        }
        let write = kind == AccessKind::Write;
        let hit = watch_hit(&self.engine.debug.watches(), va.0, op.bytes() as u64, write);
        if hit.is_some() && self.exact {
            self.hit = true;
            return Err(MemFault { va, kind, cause: FaultCause::Protection });
        }
        self.watched = self.watched.or(hit);
        Ok(())
    }

    /// Loads up to 16 bytes, in memory order from the lowest.
    #[cold]
    pub fn load_slow(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        Self::aligned(va, op, AccessKind::Read)?;
        self.guard_watch(va, op, AccessKind::Read)?;
        let mut value = 0u128;
        let mut shift = 0;
        for (va, n) in Self::pieces(va, op.bytes()) {
            if n == 0 {
                break;
            }
            let piece = match self.place(va, AccessKind::Read, op.mmu())? {
                Place::Host(host, ..) => access::load_bytes(host, n),
                Place::Device(pa) => self.device_read(pa, n),
            };
            value |= piece << shift;
            shift += 8 * n;
        }
        Ok(value)
    }

    fn device_read(&self, pa: u64, n: u32) -> u128 {
        let board = &self.system().board;
        let (mut value, mut done) = (0, 0);
        while done < n {
            let size = 1 << (n - done).ilog2().min(3);
            let part = board.mmio_read(self.cpu, GuestPa(pa + done as u64), size as u8) as u128;
            let part = part & (u128::MAX >> (128 - 8 * size));
            value |= part << (8 * done);
            done += size;
        }
        value
    }

    fn device_write(&self, pa: u64, n: u32, value: u128) {
        let board = &self.system().board;
        let mut done = 0;
        while done < n {
            let size = 1 << (n - done).ilog2().min(3);
            let part = (value >> (8 * done)) as u64 & (u64::MAX >> (64 - 8 * size));
            board.mmio_write(self.cpu, GuestPa(pa + done as u64), size as u8, part);
            done += size;
        }
    }

    /// Fails, and notes it, when the store would hit code and must not do so unseen.
    fn guard_code(&mut self, place: &Place, va: GuestVa, n: u32) -> Result<(), MemFault> {
        if let Place::Host(_, page, offset) = place
            && self.exact
            && self.system().phys.has_code(page.frame, *offset, n)
        {
            self.hit = true;
            return Err(MemFault { va, kind: AccessKind::Write, cause: FaultCause::Protection });
        }
        Ok(())
    }

    /// What must follow a store.
    fn wrote(&mut self, place: &Place, va: GuestVa, n: u32, mmu: u8) {
        if let Place::Host(_, page, offset) = place {
            self.system().phys.written(page.frame, *offset, n);
            self.tlb.refresh(va.0, mmu);
        }
    }

    #[cold]
    pub fn store_slow(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        Self::aligned(va, op, AccessKind::Write)?;
        self.guard_watch(va, op, AccessKind::Write)?;
        let pieces = Self::pieces(va, op.bytes());
        let first = self.place(va, AccessKind::Write, op.mmu())?;
        self.guard_code(&first, va, pieces[0].1)?;
        if pieces[1].1 == 0 {
            match first {
                Place::Host(host, ..) => access::store(host, op, value),
                Place::Device(pa) => self.device_write(pa, op.bytes(), value),
            }
            self.wrote(&first, va, op.bytes(), op.mmu());
            return Ok(());
        }
        // Nothing is stored when the second page faults.
        let second = self.place(pieces[1].0, AccessKind::Write, op.mmu())?;
        self.guard_code(&second, pieces[1].0, pieces[1].1)?;
        let mut rest = value;
        for ((va, n), place) in pieces.into_iter().zip([first, second]) {
            match place {
                Place::Host(host, ..) => access::store_bytes(host, n, rest),
                Place::Device(pa) => self.device_write(pa, n, rest),
            }
            self.wrote(&place, va, n, op.mmu());
            rest >>= 8 * n;
        }
        Ok(())
    }

    /// An atomic access: by the host's own on RAM inside a page, else one after the other. `host` works on an address,
    /// `plain` on memory bytes, and says what to store.
    #[cold]
    pub fn atomic_slow(
        &mut self,
        va: GuestVa,
        op: MemOp,
        host: impl FnOnce(usize) -> u128,
        plain: impl FnOnce(u128) -> Option<u128>,
    ) -> Result<u128, MemFault> {
        Self::aligned(va, op, AccessKind::Write)?;
        self.guard_watch(va, op, AccessKind::Write)?;
        self.guard_watch(va, op, AccessKind::Read)?;
        let pieces = Self::pieces(va, op.bytes());
        let place = self.place(va, AccessKind::Write, op.mmu())?;
        self.guard_code(&place, va, pieces[0].1)?;
        if let (Place::Host(at, ..), 0) = (&place, pieces[1].1) {
            let old = host(*at);
            self.wrote(&place, va, op.bytes(), op.mmu());
            return Ok(old);
        }
        if pieces[1].1 != 0 {
            let second = self.place(pieces[1].0, AccessKind::Write, op.mmu())?;
            self.guard_code(&second, pieces[1].0, pieces[1].1)?;
        }
        let _alone = SPLIT.lock().unwrap_or_else(PoisonError::into_inner);
        let op = op.with_align(MemAlign::Any);
        let old = self.load_slow(va, op)?;
        if let Some(new) = plain(old) {
            self.store_slow(va, op, new)?;
        }
        Ok(access::from_bytes(op, old))
    }

    pub fn rmw(
        &mut self,
        va: GuestVa,
        op: MemOp,
        rmw: RmwOp,
        operand: u64,
    ) -> Result<u64, MemFault> {
        let host = |at| access::rmw(at, op, rmw, operand);
        if let Some(at) = self.host(va, op, true) {
            return Ok(host(at));
        }
        let plain = |old: u128| Some(access::rmw_bytes(op, rmw, old as u64, operand) as u128);
        self.atomic_slow(va, op, |at| host(at) as u128, plain).map(|old| old as u64)
    }

    pub fn cas(&mut self, va: GuestVa, op: MemOp, old: u128, new: u128) -> Result<u128, MemFault> {
        let op = if op.log2() == 4 { op.with_align(MemAlign::Sixteen) } else { op };
        let host = |at| access::cas(at, op, old, new);
        if let Some(at) = self.host(va, op, true) {
            return Ok(host(at));
        }
        let (want, put) = (access::to_bytes(op, old), access::to_bytes(op, new));
        // What is stored when it fails is what was there: the bus cycle is a write in any case.
        let plain = |seen| Some(if seen == want { put } else { seen });
        self.atomic_slow(va, op, host, plain)
    }
}

impl Machine for Mmu {
    fn cpu(&self) -> u32 {
        self.cpu
    }
    fn board(&self) -> &dyn Board {
        &*self.system().board
    }
    fn phys_load(&mut self, pa: GuestPa, bytes: u8) -> u64 {
        let system = self.system();
        let pa = pa.0 & (system.board.address_mask() | 0xfff);
        let load = system.phys.load(pa, bytes);
        load.unwrap_or_else(|| system.board.mmio_read(self.cpu, GuestPa(pa), bytes))
    }
    fn phys_replace(&mut self, pa: GuestPa, bytes: u8, old: u64, new: u64) -> bool {
        let system = self.system();
        let pa = pa.0 & (system.board.address_mask() | 0xfff);
        system.phys.replace(pa, bytes, old, new).unwrap_or(true)
    }
    fn flush_tlb(&mut self, what: TlbFlush) {
        self.tlb.flush(what);
        self.publish();
    }
    fn switch_space(&mut self, space: u16) {
        self.tlb.switch_space(space);
        self.publish();
    }
}

impl Env {
    /// Whether the last failure was a store that found code.
    pub fn take_hit(&mut self) -> bool {
        self.mmu.as_mut().is_some_and(|mmu| std::mem::take(&mut mmu.hit))
    }
}
