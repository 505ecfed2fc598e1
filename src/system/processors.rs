//! One host thread per processor, and what others ask of them: stop, go on, reset, look at registers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use parking_lot::{Condvar, Mutex};
use tulk_base::Board;
use tulk_exec::{Engine, Exit, Vcpu, VcpuHandle};
use tulk_frontend::SystemIsa;
use tulk_pc::Pc;
use tulk_x86::X86;

/// Something to be done on a processor's own thread, between blocks.
type Job = Box<dyn FnOnce(&mut Vcpu) + Send>;

/// A processor as other threads see it.
struct Cpu {
    handle: OnceLock<(VcpuHandle, Thread)>,
    jobs: Mutex<Vec<Job>>,
    /// It looks at `state` and `jobs` before it goes on.
    attention: AtomicBool,
}

#[derive(Default)]
struct State {
    running: bool,
    quit: bool,
    /// Processors that stand still.
    parked: u32,
}

/// The processors of a machine.
pub struct Processors {
    isa: Arc<X86>,
    pc: Arc<Pc>,
    cpus: Vec<Cpu>,
    state: Mutex<State>,
    changed: Condvar,
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
        };
        let processors = Arc::new(Processors {
            isa: isa.clone(),
            pc: pc.clone(),
            cpus: (0..count).map(cpu).collect(),
            state: Mutex::default(),
            changed: Condvar::new(),
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

    pub fn count(&self) -> u32 {
        self.cpus.len() as u32
    }

    fn thread(&self, number: u32, mut vcpu: Vcpu) {
        let cpu = &self.cpus[number as usize];
        let _ = cpu.handle.set((vcpu.handle(), std::thread::current()));
        // How it waits for events after a halt: `None` while it runs, `Some(None)` when it cannot go on.
        let mut waits: Option<Option<bool>> = None;
        loop {
            if cpu.attention.swap(false, Ordering::SeqCst)
                && !self.attend(cpu, &mut vcpu, &mut waits)
            {
                return;
            }
            match waits {
                Some(Some(interrupts)) if self.pc.has_event(number, interrupts) => waits = None,
                Some(_) => {
                    std::thread::park();
                    continue;
                }
                None => {}
            }
            match vcpu.run() {
                Exit::Interrupted => {}
                Exit::Halt { interrupts } => waits = Some(Some(interrupts)),
                Exit::Shutdown => waits = Some(None),
                // The engine delivers traps itself, and no debugger is attached here.
                left => {
                    tracing::error!("processor {number} left with {left:?}");
                    waits = Some(None);
                }
            }
        }
    }

    /// Does the jobs and stands still while the machine does. False: the end.
    fn attend(&self, cpu: &Cpu, vcpu: &mut Vcpu, waits: &mut Option<Option<bool>>) -> bool {
        let mut state = self.state.lock();
        let mut parked = false;
        loop {
            let jobs = std::mem::take(&mut *cpu.jobs.lock());
            if !jobs.is_empty() {
                drop(state);
                for job in jobs {
                    job(vcpu);
                    // It may have been a reset.
                    *waits = None;
                }
                state = self.state.lock();
                continue;
            }
            if state.quit || state.running {
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
        self.state.lock().running = true;
        self.alert();
    }

    /// Has all processors stand still, and waits until they do. Not to be called by one of them.
    pub fn halt(&self) {
        self.state.lock().running = false;
        self.alert();
        let mut state = self.state.lock();
        while state.parked < self.count() && !state.quit {
            self.changed.wait(&mut state);
        }
    }

    /// Ends the threads.
    pub fn quit(&self) {
        self.state.lock().quit = true;
        self.alert();
    }

    /// Runs `work` on a processor's thread, between two blocks, and gives its result.
    pub fn with<R: Send + 'static>(
        &self,
        cpu: u32,
        work: impl FnOnce(&mut Vcpu) -> R + Send + 'static,
    ) -> Option<R> {
        let (send, receive) = mpsc::channel();
        let job = move |vcpu: &mut Vcpu| {
            let _ = send.send(work(vcpu));
        };
        self.cpus.get(cpu as usize)?.jobs.lock().push(Box::new(job));
        self.alert();
        receive.recv_timeout(std::time::Duration::from_secs(5)).ok()
    }

    /// The reset line. The processors must stand still.
    pub fn reset(&self) {
        for cpu in 0..self.count() {
            let isa = self.isa.clone();
            self.with(cpu, move |vcpu| isa.reset_processor(&mut vcpu.state, cpu));
        }
        self.pc.memory.phys.drop_translations();
    }
}
