//! A processor of a machine: what [`Vcpu`] does in system mode only. Exceptions are delivered and events taken inside its loop.

use crate::engine::{Engine, VcpuShared};
use crate::host::epoch::{Guard, lock};
use crate::host::{EXIT_EVENT, EXIT_GUEST};
use crate::mmu::Mmu;
use crate::system::{Ids, Lifted, Second, System};
use crate::tb::{PAGE_SHIFT, Tb};
use crate::trampoline::{self, StatePtr};
use crate::vcpu::{Exit, Next, Vcpu};
use std::sync::Arc;
use tulk_base::{AccessKind, CpuState, FaultCause, GuestVa, MemFault, Trap};
use tulk_codegen::abi::{self, JumpEntry};
use tulk_frontend::{CodeReader, Stop, TbKey};
use tulk_ir::HelperCx;
use tulk_ir::interp::{self, Outcome};

/// Another thread's way to a processor. Outlives it harmlessly.
#[derive(Clone)]
pub struct VcpuHandle(Arc<VcpuShared>);

impl VcpuHandle {
    fn raise(&self, bits: u32) {
        let alive = lock(&self.0.alive);
        if *alive {
            self.0.flag.raise(bits);
        }
    }
    /// The board may have an event for it: it looks before its next block. Does not end [`Vcpu::run`], so whoever waits after
    /// [`Exit::Halt`] must be woken by other means.
    pub fn interrupt(&self) {
        self.raise(EXIT_EVENT);
    }
    /// Makes [`Vcpu::run`] return [`Exit::Interrupted`], now or when it is called next.
    pub fn kick(&self) {
        self.raise(EXIT_GUEST);
    }
}

/// What the interpreter's short way must know of pages: ids, and the MMU index and flags of the block it starts from.
#[derive(Clone, Copy)]
pub(crate) struct Pages<'a> {
    pub ids: &'a Ids,
    pub mmu: u8,
    pub flags: u64,
}

impl Pages<'_> {
    /// Whether the block may be entered.
    #[inline]
    pub fn allow(&self, to: &Tb, state: &CpuState) -> bool {
        self.ids.flags(to.key) == self.flags
            && trampoline::code_page(state, self.mmu, to.key.pc.0) == self.ids.of(to.key)
    }
    /// The key of a block at `pc`, if its page is known.
    #[inline]
    pub fn key(&self, pc: u64, state: &CpuState) -> Option<TbKey> {
        let id = trampoline::code_page(state, self.mmu, pc);
        (id != 0).then(|| self.ids.with(TbKey { pc: GuestVa(pc), flags: self.flags }, id))
    }
}

/// Code that was read already.
struct Bytes<'a> {
    at: u64,
    bytes: &'a [u8],
}

impl CodeReader for Bytes<'_> {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let rest = self.bytes.get(va.0.wrapping_sub(self.at) as usize..).unwrap_or_default();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        n
    }
}

/// Longest instruction of any guest, and more.
const LONGEST: usize = 32;

impl Engine {
    /// Processor number `cpu`, as it is behind a reset. In an engine made by [`Engine::system`].
    ///
    /// # Panics
    /// In an engine for user programs.
    pub fn processor(self: &Arc<Self>, cpu: u32) -> Vcpu {
        let system = self.system.as_ref().expect("an engine of a machine");
        let mut vcpu = self.vcpu();
        system.isa.reset_processor(&mut vcpu.state, cpu);
        let tlb = vcpu.env.shared.tlb.clone().expect("a processor has a TLB");
        let state = StatePtr::new(&mut vcpu.state);
        vcpu.env.mmu = Some(Box::new(Mmu::new(self.clone(), tlb, state, cpu)));
        vcpu
    }
}

fn stopped(stop: Stop) -> Exit {
    match stop {
        Stop::Halt { interrupts } => Exit::Halt { interrupts },
        Stop::Shutdown => Exit::Shutdown,
    }
}

impl Vcpu {
    /// For other threads.
    pub fn handle(&self) -> VcpuHandle {
        VcpuHandle(self.env.shared.clone())
    }

    pub(crate) fn mmu(&mut self) -> &mut Mmu {
        self.env.mmu.as_mut().expect("a processor of a machine")
    }

    /// Runs something that may write to code without leaving for it.
    pub(crate) fn inexact<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let exact = std::mem::replace(&mut self.mmu().exact, false);
        let result = f(self);
        let mmu = self.mmu();
        (mmu.exact, mmu.hit) = (exact, false);
        result
    }

    /// Takes what the board has for this processor.
    pub(crate) fn take_events(&mut self, system: &System) -> Result<(), Exit> {
        let cpu = tulk_ir::Machine::cpu(self.mmu());
        while system.board.has_event(cpu, system.isa.interrupts_enabled(&self.state)) {
            let taken = self.inexact(|vcpu| {
                let mut cx = HelperCx { state: &mut vcpu.state, env: &mut *vcpu.env };
                system.isa.take_event(&mut cx)
            });
            if !taken.map_err(stopped)? {
                break;
            }
        }
        system.isa.note_waiting(&mut self.state, system.board.has_event(cpu, true));
        Ok(())
    }

    /// Has the frontend take an exception.
    #[cold]
    pub(crate) fn deliver(
        &mut self,
        engine: &Engine,
        system: &System,
        trap: Trap,
    ) -> Result<(), Exit> {
        let mut trap = trap;
        if let Trap::Mem(fault) = trap
            && fault.kind == AccessKind::Exec
            && !matches!(fault.cause, FaultCause::Page(_))
        {
            // Found by a lifter, when it looked.
            let mmu = system.isa.code_mmu(engine.isa.tb_key(&self.state).flags);
            match self.mmu().fetch(fault.va, &mut [0], mmu) {
                Err(fault) => trap = Trap::Mem(fault),
                Ok(_) => {
                    self.forget_block(engine, system);
                    return Ok(());
                }
            }
        }
        self.inexact(|vcpu| {
            let mut cx = HelperCx { state: &mut vcpu.state, env: &mut *vcpu.env };
            system.isa.deliver(&mut cx, trap)
        })
        .map_err(stopped)
    }

    /// Drops the block at the pc, which is out of date.
    fn forget_block(&mut self, engine: &Engine, system: &System) {
        let key = engine.isa.tb_key(&self.state);
        let mmu = system.isa.code_mmu(key.flags);
        if let Ok(id) = self.mmu().code_page(key.pc, mmu) {
            let offset = key.pc.0 as u32 & ((1 << PAGE_SHIFT) - 1);
            engine.invalidate_frame(system.ids.frame(id), offset, 1);
        }
    }

    /// The frontend's key with the code page that it has now.
    #[inline]
    pub(crate) fn locate<'g>(&mut self, system: &System, key: TbKey) -> Result<TbKey, Next<'g>> {
        let mmu = system.isa.code_mmu(key.flags);
        let id = trampoline::code_page(&self.state, mmu, key.pc.0);
        if id != 0 && system.ids.is_of(id, key.pc.0) {
            return Ok(system.ids.with(key, id));
        }
        self.locate_slowly(system, key, mmu)
    }

    #[cold]
    fn locate_slowly<'g>(
        &mut self,
        system: &System,
        key: TbKey,
        mmu: u8,
    ) -> Result<TbKey, Next<'g>> {
        self.state.set_pc(key.pc.0);
        match self.mmu().code_page(key.pc, mmu) {
            Ok(id) => Ok(system.ids.with(key, id)),
            Err(Some(fault)) => Err(Next::Leave(Trap::Mem(fault))),
            // Not RAM, or no ids are left for now.
            Err(None) => {
                if !self.ignores_breakpoints && self.env.engine.debug.is_split(key.pc.0) {
                    if self.env.engine.debug.is_breakpoint(key.pc.0) {
                        return Err(Next::Exit(Exit::Breakpoint));
                    }
                    self.env.engine.forget_split(key.pc.0);
                }
                let engine = self.env.engine.clone();
                engine.tidy_system(system);
                Err(Next::Step)
            }
        }
    }

    /// The block at a key with its code page. [`Trap::Resync`]: look for it anew.
    pub(crate) fn find_paged<'g>(
        &mut self,
        engine: &Engine,
        system: &System,
        key: TbKey,
        guard: &'g Guard<'_>,
    ) -> Result<&'g Tb, Trap> {
        let mmu_index = system.isa.code_mmu(system.ids.flags(key));
        let behind = GuestVa((key.pc.0 | ((1 << PAGE_SHIFT) - 1)).wrapping_add(1));
        let mut fault = None;
        let own = self.mmu().tlb.shared().clone();
        let mmu = self.env.mmu.as_mut().expect("a processor of a machine");
        let second = || match mmu.code_page(behind, mmu_index) {
            Ok(id) => Second::Page(id),
            Err(found) => {
                fault = found;
                Second::Fault
            }
        };
        match engine.find_or_lift_paged(system, &own, &mut self.lifter, key, second, guard) {
            Lifted::Block(tb) => Ok(tb),
            Lifted::Lost => Err(Trap::Resync),
            Lifted::Fault => Err(Trap::Mem(fault.unwrap_or(MemFault {
                va: key.pc,
                kind: AccessKind::Exec,
                cause: FaultCause::Unmapped,
            }))),
        }
    }

    /// Whether a checked block may run: its bytes are the same, and so is the second page, if it has one.
    pub(crate) fn check_block(&mut self, engine: &Engine, tb: &Tb) -> bool {
        if let (Some(system), Some(id)) = (&engine.system, tb.second()) {
            let behind = GuestVa((tb.key.pc.0 | ((1 << PAGE_SHIFT) - 1)).wrapping_add(1));
            let mmu = system.isa.code_mmu(system.ids.flags(tb.key));
            if self.mmu().code_page(behind, mmu) != Ok(id) {
                let offset = tb.key.pc.0 as u32 & ((1 << PAGE_SHIFT) - 1);
                engine.invalidate_frame(system.frame_of(tb.key), offset, 1);
                return false;
            }
        }
        engine.still_matches(tb)
    }

    /// Up to `insns` instructions at the pc, from whatever memory, for no other use.
    pub(crate) fn lift_here(
        &mut self,
        engine: &Engine,
        system: &System,
        key: TbKey,
        insns: u32,
    ) -> Result<Tb, Trap> {
        let mut bytes = [0; LONGEST];
        let n = self.mmu().fetch(key.pc, &mut bytes, system.isa.code_mmu(key.flags))?;
        let mut code = Bytes { at: key.pc.0, bytes: &bytes[..n] };
        let lifted = self.lifter.lift_from(engine, key, key, &mut code, insns);
        lifted.ok_or_else(|| {
            let va = key.pc.wrapping_add(n as u64);
            let cause = FaultCause::Unmapped;
            Trap::Mem(MemFault { va, kind: AccessKind::Exec, cause })
        })
    }

    pub(crate) fn step_paged(
        &mut self,
        engine: &Engine,
        system: &System,
        key: TbKey,
        insns: u32,
    ) -> Outcome {
        match self.lift_here(engine, system, key, insns) {
            Err(trap) => Outcome::Trap(trap),
            Ok(tb) => self.inexact(|vcpu| {
                let outcome =
                    interp::run(&tb.program, &mut vcpu.state, vcpu.helpers, &mut *vcpu.env);
                if matches!(outcome, Outcome::Trap(Trap::Mem(_))) {
                    // It will be done again.
                    vcpu.mmu().watched = None;
                }
                if let Outcome::Direct(n) = outcome {
                    vcpu.state.set_pc(tb.program.exit(n as usize).pc);
                }
                outcome
            }),
        }
    }

    /// Generated code came to a block whose page is another now.
    pub(crate) fn forget_jump(&mut self) {
        self.jumps[abi::jump_cache_index(self.state.pc())] = JumpEntry::default();
    }
}
