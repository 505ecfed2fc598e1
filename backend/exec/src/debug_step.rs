//! Exact steps of a vCPU, see `debug.rs`.

use crate::debug::{WatchHit, Watchpoint, watch_hit};
use crate::engine::Engine;
use crate::env::Env;
use crate::host::{EXIT_GUEST, HostFp, signals};
use crate::trampoline;
use crate::vcpu::{Exit, Next, Vcpu};
use std::sync::atomic::Ordering;
use tulk_base::{AccessKind, FaultCause, GuestMem, GuestVa, MemFault, MemOp, RmwOp, Trap};
use tulk_frontend::LiftLimits;
use tulk_ir::interp::{self, Outcome};
use tulk_ir::{ExitKind, FpEnv, FpFlags, HelperCx, HelperEnv, Round};

/// A vCPU's surroundings while one instruction runs whose accesses are compared with watchpoints.
struct Watching<'a> {
    env: &'a mut Env,
    watches: &'a [Watchpoint],
    /// The access must not happen.
    before: bool,
    hit: Option<WatchHit>,
}

impl Watching<'_> {
    fn note(&mut self, va: GuestVa, len: u64, write: bool) -> Result<(), MemFault> {
        let plain = self.env.engine.mem.untag(va).0;
        let hit = watch_hit(self.watches, plain, len, write);
        if self.hit.is_none() {
            self.hit = hit;
        }
        if self.before && hit.is_some() {
            let kind = if write { AccessKind::Write } else { AccessKind::Read };
            return Err(MemFault { va, kind, cause: FaultCause::Bus });
        }
        Ok(())
    }
}

impl GuestMem for Watching<'_> {
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        self.note(va, op.bytes() as u64, false)?;
        self.env.load(va, op)
    }
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        self.note(va, op.bytes() as u64, true)?;
        self.env.store(va, op, value)
    }
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        self.note(va, 16, false)?;
        self.env.load128(va, op)
    }
    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        self.note(va, 16, true)?;
        self.env.store128(va, op, value)
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, operand: u64) -> Result<u64, MemFault> {
        self.note(va, op.bytes() as u64, false)?;
        self.note(va, op.bytes() as u64, true)?;
        self.env.rmw(va, op, rmw, operand)
    }
    fn cas(&mut self, va: GuestVa, op: MemOp, old: u128, new: u128) -> Result<u128, MemFault> {
        self.note(va, op.bytes() as u64, false)?;
        self.note(va, op.bytes() as u64, true)?;
        self.env.cas(va, op, old, new)
    }
}

impl FpEnv for Watching<'_> {
    fn fp_flags(&mut self) -> FpFlags {
        self.env.fp_flags()
    }
    fn set_fp_flags(&mut self, flags: FpFlags) {
        self.env.set_fp_flags(flags);
    }
    fn fp_round(&mut self) -> Round {
        self.env.fp_round()
    }
    fn set_fp_mode(&mut self, round: Round, daz: bool, ftz: bool) {
        self.env.set_fp_mode(round, daz, ftz);
    }
}

impl HelperEnv for Watching<'_> {
    fn invalidate_code(&mut self, start: GuestVa, len: u64) {
        self.env.invalidate_code(start, len);
    }
    fn clock_ns(&mut self) -> u64 {
        self.env.clock_ns()
    }
    fn processor_id(&mut self) -> u32 {
        self.env.processor_id()
    }
    fn random(&mut self, out: &mut [u8]) {
        self.env.random(out);
    }
    fn machine(&mut self) -> Option<&mut dyn tulk_ir::Machine> {
        self.env.machine()
    }
}

impl Vcpu {
    /// Runs exactly one instruction, or one iteration of a repeated one, from the state's pc, breakpoints notwithstanding.
    /// [`Exit::Stepped`] when it is done; other events as from [`Vcpu::run`].
    pub fn step_one(&mut self) -> Exit {
        self.step_or_take(false)
    }

    /// System mode: the same, or the delivery of an event of the board, if there is one that the processor takes now.
    pub fn step_or_take_event(&mut self) -> Exit {
        self.step_or_take(true)
    }

    fn step_or_take(&mut self, events: bool) -> Exit {
        let (engine, shared) = (self.env.engine.clone(), self.env.shared.clone());
        self.bind_thread();
        let (env, jumps) = (&mut self.env, &mut self.jumps);
        trampoline::set_words(&mut self.state, env, jumps);
        let host_fp = HostFp::get();
        engine.isa.load_fp(&self.state, &mut HostFp);
        let inside = engine.debug.enter();
        engine.drain_dirty();
        let guard = shared.participant.pin(&engine.epoch);
        let taken = if events { self.take_one(&engine) } else { None };
        let exit = taken.unwrap_or_else(|| self.step_exit(&engine));
        let exit = match exit {
            Exit::Stepped => self.take_watch(&engine).map_or(Exit::Stepped, Exit::Watch),
            other => other,
        };
        drop(guard);
        if inside {
            engine.debug.leave();
        }
        engine.isa.save_fp(&mut self.state, &mut HostFp);
        HostFp::set(host_fp);
        exit
    }

    /// Takes what the board has; `None`: nothing came of it.
    fn take_one(&mut self, engine: &Engine) -> Option<Exit> {
        let system = engine.system.as_ref()?;
        let before = self.state.pc();
        match self.take_events(system) {
            Ok(()) => (self.state.pc() != before).then_some(Exit::Stepped),
            Err(exit) => Some(exit),
        }
    }

    /// The watched access of what ran last in system mode.
    #[inline]
    pub(crate) fn take_watch(&mut self, engine: &Engine) -> Option<WatchHit> {
        if !engine.debug.has_watch() {
            return None;
        }
        let hit = self.env.mmu.as_mut()?.watched.take()?;
        // One of a watchpoint that is gone may be left.
        let watches = engine.debug.watches();
        watches.iter().any(|w| w.kind == hit.kind && w.contains(hit.va)).then_some(hit)
    }

    /// System mode: lets `f` do with the processor what helpers of its instructions may do.
    pub fn with_helpers<T>(&mut self, f: impl FnOnce(&mut HelperCx<'_>) -> T) -> T {
        let result =
            self.inexact(|vcpu| f(&mut HelperCx { state: &mut vcpu.state, env: &mut *vcpu.env }));
        self.mmu().watched = None;
        result
    }

    fn step_exit(&mut self, engine: &Engine) -> Exit {
        if self.state.exit_request.load(Ordering::Acquire) & EXIT_GUEST != 0 {
            self.state.exit_request.fetch_and(!EXIT_GUEST, Ordering::SeqCst);
            return Exit::Interrupted;
        }
        self.retried = false;
        // Tagged addresses and the like: the instruction is tried again, a few times at most.
        for _ in 0..4 {
            let next = match engine.debug.has_watch() && engine.system.is_none() {
                true => match self.watched_step(engine) {
                    Ok(next) => next,
                    Err(exit) => return exit,
                },
                false => self.step(engine, LiftLimits::STEP),
            };
            match (next, &engine.system) {
                (Next::Step | Next::Repeat | Next::Watched, _) => {}
                (Next::Leave(trap), None) => return Exit::Trap(trap),
                (Next::Leave(trap), Some(system)) => {
                    return match self.deliver(engine, system, trap) {
                        Ok(()) => Exit::Stepped,
                        Err(exit) => exit,
                    };
                }
                (Next::Anew, _) if std::mem::take(&mut self.retried) => {}
                _ => return Exit::Stepped,
            }
        }
        Exit::Stepped
    }

    /// One instruction with all accesses compared with the watchpoints and no other thread in guest code. An access that
    /// is about one is returned: after it, or instead of it where the processor tells before
    /// ([`tulk_frontend::GuestIsa::watches_before_access`]).
    #[cold]
    pub(crate) fn watched_step<'g>(&mut self, engine: &Engine) -> Result<Next<'g>, Exit> {
        self.counts.single_steps += 1;
        let watches = if self.ignores_breakpoints { Vec::new() } else { engine.debug.watches() };
        let before = engine.isa.watches_before_access();
        let key = engine.isa.tb_key(&self.state);
        let Some(tb) = self.lifter.lift(engine, key, LiftLimits::STEP) else {
            let fault = engine.mem.fault_cause(key.pc, 1, AccessKind::Exec);
            return Ok(Next::Leave(Trap::Mem(fault)));
        };
        let exact = signals::set_exact(false);
        let (outcome, hit) = engine.debug.alone(engine, || {
            engine.mem.open_traps();
            let env = &mut *self.env;
            let mut watching = Watching { env, watches: &watches, before, hit: None };
            let outcome = interp::run(&tb.program, &mut self.state, self.helpers, &mut watching);
            let hit = watching.hit;
            engine.mem.close_traps();
            (outcome, hit)
        });
        signals::set_exact(exact);
        let next = match outcome {
            Outcome::Direct(n) => {
                self.state.set_pc(tb.program.exit(n as usize).pc);
                Next::Anew
            }
            Outcome::Indirect { kind, pc, .. } => {
                self.state.set_pc(pc);
                if kind == ExitKind::Resync { Next::Resync } else { Next::Anew }
            }
            Outcome::Trap(Trap::Mem(_)) if before && hit.is_some() => Next::Anew,
            Outcome::Trap(trap) => return Ok(self.trapped(trap)),
        };
        match hit {
            Some(hit) => Err(Exit::Watch(hit)),
            None => Ok(next),
        }
    }
}
