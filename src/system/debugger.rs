//! The machine as the GDB server's [`Debuggee`]: processors are threads, number n + 1 for processor n.
//!
//! Everything here happens on the server's own thread, but for [`Debugger`], by which others wake it. While everything is stopped, each
//! processor's registers are read once and kept; changes go to the processor at once.
//!
//! Addresses are linear and go through the page tables of the processor that gdb shows, which are read and not changed (no accessed
//! and dirty bits, no TLB entries). With `Qqemu.PhyMemMode:1` they are physical. Only RAM and ROM can be read and written: reading a device might
//! change it.
//!
//! QEMU's packets that gdb's manual does not know ([`Debuggee::vendor`]): `qqemu.PhyMemMode` and `Qqemu.PhyMemMode:N`, `qqemu.sstepbits`,
//! `qqemu.sstep` and `Qqemu.sstep=N`.

use super::machine::Machine;
use super::monitor;
use super::processors::Order;
use super::settings::Settings;
use anyhow::Context;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tulk_base::{AccessKind, Board, CpuState, GuestPa, GuestVa, TlbFlush};
use tulk_frontend::debug::Registers;
use tulk_frontend::{GuestIsa, SystemIsa};
use tulk_gdb::listen::{Listener, Spec};
use tulk_gdb::{Action, Debuggee, Go, Stop, Tid, Watchpoint};
use tulk_pc::Pc;
use tulk_x86::debug_system::{self, CR8_CELL};
use tulk_x86::regs::{self, cell};
use tulk_x86::system::{cr4, mmu};

/// Steps do not lead into handlers of interrupts.
const NO_INTERRUPTS: u8 = 2;
/// Guest time stands still during steps.
const NO_TIME: u8 = 4;
/// What QEMU begins with: stepping is on, and neither interrupts nor timers disturb it.
const STEP_FLAGS: u8 = 1 | NO_INTERRUPTS | NO_TIME;

/// How long the end of the machine waits for the debugger to hear of it.
const FAREWELL: Duration = Duration::from_secs(3);

const PAGE: u64 = 4096;

/// What gdb's `monitor` knows beyond the machine's own monitor.
const MORE: &str = "\
info tb -- what the translator did
info devices -- the PCI bus, and which device is at which address
";

/// The server's thread as others know it.
pub struct Debugger {
    wake: UnixStream,
    end: Mutex<End>,
    told: Condvar,
    /// A client waits for something to happen.
    listens: AtomicBool,
}

#[derive(Default)]
struct End {
    status: Option<u8>,
    told: bool,
}

impl Debugger {
    /// Has the server look at the machine.
    pub fn wake(&self) {
        let _ = (&self.wake).write(&[1]);
    }

    /// The machine ends: returns when the client knows.
    pub fn ended(&self, status: i32) {
        let mut end = self.end.lock();
        end.status = Some(status as u8);
        if self.listens.load(Ordering::SeqCst) {
            self.wake();
            self.told.wait_while_for(&mut end, |end| !end.told, FAREWELL);
        }
    }
}

/// Where `-gdb` wants gdb to come from.
///
/// # Errors
/// Names what is wrong with it.
pub fn address(settings: &Settings) -> anyhow::Result<Option<Spec>> {
    match settings.gdb.as_deref() {
        None | Some("none") => Ok(None),
        Some(text) => Ok(Some(Spec::parse(text).with_context(|| format!("-gdb {text}"))?)),
    }
}

/// Serves debuggers of the machine on a thread of its own.
///
/// # Errors
/// The address is not to be had.
pub fn start(machine: &Arc<Machine>, spec: &Spec) -> anyhow::Result<()> {
    let listener =
        Listener::open(&spec.address).with_context(|| format!("-gdb: {}", spec.address))?;
    let (wake, woken) = UnixStream::pair()?;
    woken.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    let debugger = Arc::new(Debugger {
        wake,
        end: Mutex::default(),
        told: Condvar::new(),
        listens: AtomicBool::new(false),
    });
    let _ = machine.debugger.set(debugger.clone());
    let waker = debugger.clone();
    machine.processors.on_stop(move || waker.wake());
    let mut target = Target {
        registers: machine.isa.debug_registers(),
        machine: machine.clone(),
        debugger,
        woken,
        current: 1,
        attached: false,
        physical: false,
        step: STEP_FLAGS,
        states: BTreeMap::new(),
        generation: 0,
    };
    std::thread::Builder::new().name("gdb".into()).spawn(move || {
        // Or gdb takes its own default, which it has for some of the architectures only: changing between them breaks it.
        tulk_gdb::server::serve(&mut target, &listener, Some("none"));
    })?;
    Ok(())
}

/// A machine and what its client has asked for.
pub struct Target {
    machine: Arc<Machine>,
    debugger: Arc<Debugger>,
    registers: Registers,
    woken: UnixStream,
    /// What the last stop was about.
    current: Tid,
    attached: bool,
    /// Addresses of memory are physical.
    physical: bool,
    /// How steps are done: QEMU's bits.
    step: u8,
    /// Registers as they were read since the last change.
    states: BTreeMap<Tid, Box<CpuState>>,
    generation: u64,
}

/// The machine for walks that leave no trace.
struct Look<'a> {
    pc: &'a Pc,
    cpu: u32,
}

impl tulk_ir::Machine for Look<'_> {
    fn cpu(&self) -> u32 {
        self.cpu
    }
    fn board(&self) -> &dyn Board {
        self.pc
    }
    fn phys_load(&mut self, pa: GuestPa, bytes: u8) -> u64 {
        let lines = self.pc.address_mask() | (PAGE - 1);
        self.pc.memory.phys.load(pa.0 & lines, bytes).unwrap_or(0)
    }
    fn phys_replace(&mut self, _: GuestPa, _: u8, _: u64, _: u64) -> bool {
        true
    }
    fn flush_tlb(&mut self, _: TlbFlush) {}
    fn switch_space(&mut self, _: u16) {}
}

impl Target {
    fn is_running(&self) -> bool {
        self.machine.processors.is_running()
    }

    /// The processor's registers, to be looked at. `None`: no such processor, or it runs.
    fn state(&mut self, tid: Tid) -> Option<&mut CpuState> {
        let cpu = tid.checked_sub(1)?;
        let processors = &self.machine.processors;
        if self.is_running() || cpu >= processors.count() {
            return None;
        }
        let generation = processors.generation();
        if self.generation != generation {
            self.states.clear();
            self.generation = generation;
        }
        if !self.states.contains_key(&tid) {
            let priority = self.machine.pc.task_priority(cpu);
            let state = processors.with(cpu, |vcpu| {
                let mut state = CpuState::new();
                debug_system::copy(&mut state, &vcpu.state);
                state
            });
            let mut state = state?;
            state.set(CR8_CELL, priority as u64);
            self.states.insert(tid, state);
        }
        self.states.get_mut(&tid).map(|state| &mut **state)
    }

    /// Where the page of `va` is, as the processor's tables say now.
    fn translate(&mut self, tid: Tid, va: u64) -> Option<u64> {
        if self.physical {
            return Some(va);
        }
        let (pc, isa) = (self.machine.pc.clone(), self.machine.isa.clone());
        let state = self.state(tid)?;
        // Rights are no matter, and a processor may look before its startup.
        let changed = [
            (cell(regs::CR4), state.get(cell(regs::CR4)) & !cr4::PKE),
            (cell(regs::WAIT_FOR_STARTUP), 0),
        ];
        let before = changed.map(|(c, new)| {
            let old = state.get(c);
            state.set(c, new);
            (c, old)
        });
        let mut look = Look { pc: &pc, cpu: tid - 1 };
        let walked = isa.walk(state, &mut look, GuestVa(va), AccessKind::Read, mmu::KERNEL);
        before.into_iter().for_each(|(c, old)| state.set(c, old));
        let mapping = walked.ok()?;
        let inside = (1u64 << mapping.size_log2.min(63)) - 1;
        Some(mapping.pa.0 & !inside | va & inside)
    }

    /// Calls `f` with each piece of `[va, va + len)`, as far as it is RAM or ROM: its place in the backing, its place in the whole.
    /// How far that was.
    fn pieces(
        &mut self,
        tid: Tid,
        va: u64,
        len: usize,
        mut f: impl FnMut(&Machine, u64, std::ops::Range<usize>),
    ) -> usize {
        let mut done = 0;
        while done < len {
            let at = va.wrapping_add(done as u64);
            let n = (len - done).min((PAGE - at % PAGE) as usize);
            let Some(pa) = self.translate(tid, at) else { break };
            let Some(page) = self.machine.pc.memory.phys.page(pa) else { break };
            let place = page.frame as u64 * PAGE + pa % PAGE;
            f(&self.machine, place, done..done + n);
            done += n;
        }
        done
    }

    /// Forgets what the client asked for.
    fn clear(&mut self) {
        self.machine.engine.clear_breakpoints();
        self.machine.engine.clear_watchpoints();
        (self.attached, self.physical, self.step) = (false, false, STEP_FLAGS);
        // The next client begins with the first processor, as the first one did.
        self.current = 1;
        self.debugger.listens.store(false, Ordering::SeqCst);
    }
}

impl Debuggee for Target {
    fn registers(&self) -> &Registers {
        &self.registers
    }
    fn pid(&self) -> u32 {
        1
    }
    fn threads(&self) -> Vec<Tid> {
        let mut all: Vec<Tid> = (1..=self.machine.processors.count()).collect();
        all.sort_by_key(|&tid| tid != self.current);
        all
    }
    fn thread_name(&self, tid: Tid) -> String {
        let cpu = tid.wrapping_sub(1);
        let what = if self.machine.processors.waits(cpu) { "halted" } else { "running" };
        format!("CPU#{cpu} [{what}]")
    }
    fn with_registers(
        &mut self,
        tid: Tid,
        changes: bool,
        f: &mut dyn FnMut(&mut CpuState),
    ) -> bool {
        let Some(state) = self.state(tid) else { return false };
        if !changes {
            f(state);
            return true;
        }
        let mut new = CpuState::new();
        debug_system::copy(&mut new, state);
        f(&mut new);
        self.states.remove(&tid);
        let changed = self.machine.processors.change(tid - 1, move |vcpu, waits| {
            if vcpu.state.pc() != new.pc() {
                *waits = None;
            }
            vcpu.with_helpers(|cx| debug_system::apply(cx, &new))
        });
        changed == Some(true)
    }
    fn system_call(&self, _: Tid) -> Option<u64> {
        None
    }
    fn read_memory(&mut self, tid: Tid, va: u64, out: &mut [u8]) -> usize {
        self.pieces(tid, va, out.len(), |machine, place, piece| {
            machine.pc.memory.phys.read_backing(place, &mut out[piece]);
        })
    }
    fn write_memory(&mut self, tid: Tid, va: u64, data: &[u8]) -> bool {
        if self.is_running() || self.pieces(tid, va, data.len(), |_, _, _| {}) < data.len() {
            return false;
        }
        self.pieces(tid, va, data.len(), |machine, place, piece| {
            machine.pc.memory.phys.write_backing(place, &data[piece]);
        });
        true
    }
    /// Everywhere: what is not mapped now may be when the processor comes there.
    fn may_break(&mut self, _: u64) -> bool {
        true
    }
    fn set_breakpoint(&mut self, va: u64) {
        self.machine.engine.set_breakpoint(GuestVa(va));
    }
    fn clear_breakpoint(&mut self, va: u64) -> bool {
        self.machine.engine.clear_breakpoint(GuestVa(va))
    }
    fn set_watch(&mut self, watch: Watchpoint) -> bool {
        let fits =
            watch.len != 0 && watch.len <= PAGE && watch.start.0.checked_add(watch.len).is_some();
        if fits {
            self.machine.engine.set_watchpoint(watch);
        }
        fits
    }
    fn clear_watch(&mut self, watch: Watchpoint) -> bool {
        self.machine.engine.clear_watchpoint(watch)
    }

    fn resume(&mut self, rest: Action, actions: &[(Tid, Action)]) {
        self.debugger.listens.store(true, Ordering::SeqCst);
        // By the monitor.
        if self.is_running() {
            return;
        }
        let of = |tid: Tid| actions.iter().find(|(t, _)| *t == tid).map_or(rest, |a| a.1).go;
        let interrupts = self.step & NO_INTERRUPTS == 0;
        let processors = &self.machine.processors;
        // What waits for an event would wait for ever.
        let clock = self.step & NO_TIME == 0
            || (1..=processors.count()).any(|tid| match of(tid) {
                Go::Run => true,
                Go::Stay => false,
                _ => processors.waits(tid - 1),
            });
        if processors.order(|tid| Order::new(of(tid), interrupts)) {
            let _ = self.machine.cont_with(clock);
        } else {
            self.debugger.wake();
        }
    }
    fn stop(&mut self) -> Tid {
        self.attached = true;
        self.debugger.listens.store(false, Ordering::SeqCst);
        self.machine.stop("debug");
        self.machine.processors.at_ease();
        self.current
    }
    fn poll(&mut self) -> Option<Stop> {
        let mut drain = [0; 64];
        while matches!((&self.woken).read(&mut drain), Ok(n) if n > 0) {}
        if let Some(status) = self.debugger.end.lock().status {
            return Some(Stop::Exited(status));
        }
        if !self.machine.stands() {
            return None;
        }
        if !self.attached {
            // Of a client that is gone.
            let mut stale = false;
            while self.machine.processors.take_stop().is_some() {
                stale = true;
            }
            if stale {
                self.machine.stop("debug");
                self.machine.processors.release();
                let _ = self.machine.cont();
            }
            return None;
        }
        if !self.debugger.listens.swap(false, Ordering::SeqCst) {
            return None;
        }
        let stop = self.machine.processors.take_stop();
        if stop.is_some() {
            self.machine.stop("debug");
        }
        self.machine.processors.at_ease();
        // Without one the monitor or the guest stopped it.
        let stop = stop.unwrap_or(Stop::Signal(self.current, 2));
        if let Stop::Stepped(tid) | Stop::Breakpoint(tid) | Stop::Watch(tid, ..) = stop {
            self.current = tid;
        }
        Some(stop)
    }
    fn event_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
    fn detach(&mut self) {
        self.clear();
        while self.machine.processors.take_stop().is_some() {}
        self.machine.processors.release();
        let _ = self.machine.cont();
    }
    fn forsaken(&mut self) {
        self.clear();
        // What was stopped stays so; what runs is not stopped any more.
        if self.is_running() {
            self.machine.processors.release();
        }
    }
    fn kill(&mut self) {
        eprintln!("tulk system: ended by the debugger");
        self.machine.quit(0);
    }
    fn end_told(&mut self) {
        self.debugger.end.lock().told = true;
        self.debugger.told.notify_all();
    }

    fn monitor(&mut self, command: &str) -> Option<String> {
        let answer = match command {
            "" => monitor::execute(&self.machine, "help") + MORE,
            "info tb" => self.machine.engine.stats().to_string(),
            "info devices" => ["info pci", "info mtree"]
                .map(|command| monitor::execute(&self.machine, command))
                .concat(),
            command => monitor::execute(&self.machine, command),
        };
        self.states.clear();
        Some(answer)
    }
    fn vendor(&mut self, packet: &str) -> Option<String> {
        let flag = |text: &str| text.trim().parse::<u8>().ok();
        Some(match packet {
            "qqemu.PhyMemMode" => (self.physical as u8).to_string(),
            "qqemu.sstepbits" => format!("ENABLE=1,NOIRQ={NO_INTERRUPTS},NOTIMER={NO_TIME}"),
            "qqemu.sstep" => format!("{:#x}", self.step),
            _ => {
                let (name, value) = packet.split_once([':', '='])?;
                match (name, flag(value)?) {
                    ("Qqemu.PhyMemMode", value) => self.physical = value != 0,
                    ("Qqemu.sstep", value @ 0..=7) => self.step = value,
                    _ => return None,
                }
                "OK".into()
            }
        })
    }
}
