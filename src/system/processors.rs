//! One host thread per processor, and what others ask of them: stop, go on, reset, look at registers.
//!
//! A debugger gives each processor an [`Order`]. What happens to a processor that it wants to know is noted there, and stops all of
//! them; the processor itself stays where it is until the debugger has taken the note.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use parking_lot::{Condvar, Mutex};
use tulk_base::{Board, GuestVa};
use tulk_exec::{Engine, Exit, Vcpu, VcpuHandle};
use tulk_frontend::SystemIsa;
use tulk_gdb::{Go, Stop, Tid};
use tulk_pc::Pc;
use tulk_ui::chardev::Impatient;
use tulk_x86::X86;

/// Something to be done on a processor's own thread, between blocks.
type Job = Box<dyn FnOnce(&mut Vcpu, &mut Waits) + Send>;

/// How a processor waits for events after a halt: `None` while it runs, `Some(None)` when it cannot go on.
type Waits = Option<Option<bool>>;

/// How a processor goes on when the machine does.
#[derive(Clone, Copy)]
pub struct Order {
    pub go: Go,
    /// Steps lead into handlers of interrupts.
    pub interrupts: bool,
    /// What happened, and is not told yet.
    stop: Option<Stop>,
}

impl Order {
    pub const RUN: Order = Order { go: Go::Run, interrupts: true, stop: None };

    pub fn new(go: Go, interrupts: bool) -> Order {
        Order { go, interrupts, stop: None }
    }
}

/// A processor as other threads see it.
struct Cpu {
    handle: OnceLock<(VcpuHandle, Thread)>,
    jobs: Mutex<Vec<Job>>,
    /// It looks at `state` and `jobs` before it goes on.
    attention: AtomicBool,
    /// It waits for an event.
    waits: AtomicBool,
    /// The host's number of its thread.
    thread: AtomicI32,
}

#[derive(Default)]
struct State {
    running: bool,
    quit: bool,
    /// Processors that stand still.
    parked: u32,
    orders: Vec<Order>,
}

/// The processors of a machine.
pub struct Processors {
    isa: Arc<X86>,
    pc: Arc<Pc>,
    cpus: Vec<Cpu>,
    state: Mutex<State>,
    changed: Condvar,
    /// Counts how often registers may have changed.
    generation: AtomicU64,
    /// Called when a processor has something for the debugger.
    told: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl tulk_pc::Processors for Processors {
    fn kick(&self, cpu: u32) {
        if let Some((handle, thread)) = self.cpus.get(cpu as usize).and_then(|c| c.handle.get()) {
            handle.interrupt();
            thread.unpark();
        }
    }
}

impl Processors {
    /// Makes the processors with their threads. They stand still, as behind a reset.
    ///
    /// # Errors
    /// The host has no threads for them.
    pub fn start(
        engine: &Arc<Engine>,
        isa: &Arc<X86>,
        pc: &Arc<Pc>,
        count: u32,
    ) -> std::io::Result<Arc<Processors>> {
        let cpu = |_| Cpu {
            handle: OnceLock::new(),
            jobs: Mutex::default(),
            attention: AtomicBool::new(true),
            waits: AtomicBool::new(false),
            thread: AtomicI32::new(0),
        };
        let orders = vec![Order::RUN; count as usize];
        let processors = Arc::new(Processors {
            isa: isa.clone(),
            pc: pc.clone(),
            cpus: (0..count).map(cpu).collect(),
            state: Mutex::new(State { orders, ..State::default() }),
            changed: Condvar::new(),
            generation: AtomicU64::new(0),
            told: OnceLock::new(),
        });
        for cpu in 0..count {
            let (engine, me) = (engine.clone(), processors.clone());
            std::thread::Builder::new()
                .name(format!("cpu{cpu}"))
                .stack_size(8 << 20)
                .spawn(move || me.thread(cpu, engine.processor(cpu)))?;
        }
        let mut state = processors.state.lock();
        while state.parked < count {
            processors.changed.wait(&mut state);
        }
        drop(state);
        Ok(processors)
    }

    /// The host's number of a processor's thread, and whether the processor waits.
    pub fn thread_of(&self, cpu: u32) -> (i32, bool) {
        self.cpus.get(cpu as usize).map_or((0, false), |cpu| {
            (cpu.thread.load(Ordering::SeqCst), cpu.waits.load(Ordering::Relaxed))
        })
    }

    pub fn count(&self) -> u32 {
        self.cpus.len() as u32
    }

    fn thread(&self, number: u32, mut vcpu: Vcpu) {
        let cpu = &self.cpus[number as usize];
        let _ = cpu.handle.set((vcpu.handle(), std::thread::current()));
        cpu.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::SeqCst);
        let mut waits: Waits = None;
        // It waited for what no interrupt is: a startup, or an NMI.
        let mut called = false;
        loop {
            if cpu.attention.swap(false, Ordering::SeqCst)
                && !self.attend(number, &mut vcpu, &mut waits)
            {
                return;
            }
            let order = self.state.lock().orders[number as usize];
            match waits {
                Some(Some(interrupts)) if self.pc.has_event(number, interrupts) => {
                    waits = None;
                    called = !interrupts;
                }
                Some(_) => {
                    cpu.waits.store(true, Ordering::Relaxed);
                    std::thread::park();
                    continue;
                }
                None => {}
            }
            cpu.waits.store(false, Ordering::Relaxed);
            let exit = match order.go {
                Go::Run => vcpu.run(),
                Go::Stay => continue,
                _ if order.interrupts || called => vcpu.step_or_take_event(),
                _ => vcpu.step_one(),
            };
            called &= exit == Exit::Interrupted;
            match exit {
                Exit::Halt { interrupts } => waits = Some(Some(interrupts)),
                Exit::Shutdown => waits = Some(None),
                // The engine delivers traps itself.
                Exit::Trap(trap) => {
                    tracing::error!("processor {number} left with {trap:?}");
                    waits = Some(None);
                }
                _ => {}
            }
            if let Some(stop) = self.stop_of(&vcpu, order.go, number + 1, exit) {
                cpu.waits.store(waits.is_some(), Ordering::Relaxed);
                self.tell(number, stop);
            }
        }
    }

    /// What the debugger must know of an exit.
    fn stop_of(&self, vcpu: &Vcpu, go: Go, tid: Tid, exit: Exit) -> Option<Stop> {
        let pc = vcpu.state.pc();
        match exit {
            Exit::Breakpoint => Some(Stop::Breakpoint(tid)),
            Exit::Watch(hit) => Some(Stop::Watch(tid, hit.kind, hit.va.0)),
            Exit::Interrupted | Exit::Trap(_) => None,
            Exit::Stepped | Exit::Halt { .. } | Exit::Shutdown => match go {
                Go::Run | Go::Stay => None,
                Go::StepRange(start, end)
                    if exit == Exit::Stepped
                        && (start..end).contains(&pc)
                        && !vcpu.engine().has_breakpoint(GuestVa(pc)) =>
                {
                    None
                }
                _ => Some(Stop::Stepped(tid)),
            },
        }
    }

    /// Stops all processors, but does not wait for them, and has the debugger told.
    fn tell(&self, cpu: u32, stop: Stop) {
        {
            let mut state = self.state.lock();
            state.running = false;
            state.orders[cpu as usize].stop = Some(stop);
        }
        self.alert();
        if let Some(told) = self.told.get() {
            told();
        }
    }

    /// Has `told` called, on any thread, whenever [`Processors::take_stop`] has something. Once.
    pub fn on_stop(&self, told: impl Fn() + Send + Sync + 'static) {
        let _ = self.told.set(Box::new(told));
    }

    /// Something that happened since the last order. The processors must stand still.
    pub fn take_stop(&self) -> Option<Stop> {
        self.state.lock().orders.iter_mut().find_map(|order| order.stop.take())
    }

    /// Says how each processor goes on, while they stand still. False: something has still to be told of one that should go on, so
    /// they must not.
    pub fn order(&self, each: impl Fn(Tid) -> Order) -> bool {
        let mut state = self.state.lock();
        let mut free = true;
        for (order, tid) in state.orders.iter_mut().zip(1..) {
            let stop = order.stop;
            *order = each(tid);
            // Others come again, if they still are to come.
            if let Some(Stop::Watch(..)) = stop {
                order.stop = stop;
                free &= order.go == Go::Stay;
            }
        }
        free
    }

    /// What the debugger ordered is done: should somebody else let the machine go on, all run.
    pub fn at_ease(&self) {
        for order in &mut self.state.lock().orders {
            let stop = order.stop.filter(|stop| matches!(stop, Stop::Watch(..)));
            *order = Order { stop, ..Order::RUN };
        }
    }

    /// Nobody debugs any more.
    pub fn release(&self) {
        self.state.lock().orders.fill(Order::RUN);
        if self.is_running() {
            self.alert();
        }
    }

    /// The processor waits for an event after a halt.
    pub fn waits(&self, cpu: u32) -> bool {
        self.cpus.get(cpu as usize).is_some_and(|cpu| cpu.waits.load(Ordering::Relaxed))
    }

    /// Another number whenever registers may have changed since the last one.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Does the jobs and stands still while the machine does. False: the end.
    fn attend(&self, number: u32, vcpu: &mut Vcpu, waits: &mut Waits) -> bool {
        let cpu = &self.cpus[number as usize];
        let mut state = self.state.lock();
        let mut parked = false;
        loop {
            let jobs = std::mem::take(&mut *cpu.jobs.lock());
            if !jobs.is_empty() {
                drop(state);
                for job in jobs {
                    job(vcpu, waits);
                }
                cpu.waits.store(waits.is_some(), Ordering::Relaxed);
                state = self.state.lock();
                continue;
            }
            let order = &state.orders[number as usize];
            let may = state.running && order.go != Go::Stay && order.stop.is_none();
            if state.quit || may {
                break;
            }
            if !parked {
                parked = true;
                state.parked += 1;
                self.changed.notify_all();
            }
            self.changed.wait(&mut state);
        }
        if parked {
            state.parked -= 1;
        }
        !state.quit
    }

    /// Has processors look at what changed.
    fn alert(&self) {
        for cpu in &self.cpus {
            cpu.attention.store(true, Ordering::SeqCst);
            if let Some((handle, thread)) = cpu.handle.get() {
                handle.kick();
                thread.unpark();
            }
        }
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    pub fn is_running(&self) -> bool {
        self.state.lock().running
    }

    /// Lets the processors run.
    pub fn go(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.state.lock().running = true;
        self.alert();
    }

    /// Has all processors stand still, and waits until they do. Not to be called by one of them.
    pub fn halt(&self) {
        let _impatient = Impatient::new();
        self.state.lock().running = false;
        self.alert();
        let mut state = self.state.lock();
        while state.parked < self.count() && !state.quit {
            self.changed.wait(&mut state);
        }
    }

    /// Ends the threads.
    pub fn quit(&self) {
        // For good: they end.
        std::mem::forget(Impatient::new());
        self.state.lock().quit = true;
        self.alert();
    }

    /// Runs `work` on a processor's thread, between two blocks, and gives its result. A processor that waits goes on
    /// waiting.
    pub fn with<R: Send + 'static>(
        &self,
        cpu: u32,
        work: impl FnOnce(&mut Vcpu) -> R + Send + 'static,
    ) -> Option<R> {
        self.change(cpu, |vcpu, _| work(vcpu))
    }

    /// The same with work that may end the processor's wait for an event.
    pub fn change<R: Send + 'static>(
        &self,
        cpu: u32,
        work: impl FnOnce(&mut Vcpu, &mut Waits) -> R + Send + 'static,
    ) -> Option<R> {
        let _impatient = Impatient::new();
        let (send, receive) = mpsc::channel();
        let job = move |vcpu: &mut Vcpu, waits: &mut Waits| {
            let _ = send.send(work(vcpu, waits));
        };
        self.cpus.get(cpu as usize)?.jobs.lock().push(Box::new(job));
        self.alert();
        receive.recv_timeout(std::time::Duration::from_secs(5)).ok()
    }

    /// The reset line. The processors must stand still.
    pub fn reset(&self) {
        for cpu in 0..self.count() {
            let isa = self.isa.clone();
            self.change(cpu, move |vcpu, waits| {
                isa.reset_processor(&mut vcpu.state, cpu);
                *waits = None;
            });
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.pc.memory.phys.drop_translations();
    }
}
