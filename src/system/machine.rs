//! A machine that runs: what front ends, the monitor and the guest may do to it as a whole.

use super::debugger::Debugger;
use super::message::say;
use super::processors::Processors;
use super::settings::{OnReboot, OnShutdown, Settings};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tulk_block::is_waiting;
use tulk_exec::Engine;
use tulk_pc::firmware::BootDevice;
use tulk_pc::{Event, Pc};
use tulk_ui::{CharBackend, MuxCommand};
use tulk_x86::X86;

/// What the main thread is told.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    Guest(Event),
    /// A signal ends the emulator.
    Signal(i32),
    /// End with this status.
    Quit(i32),
    /// Stop the machine; why.
    Stop(&'static str),
    /// Write the disks' caches out.
    Sync,
}

impl From<MuxCommand> for Notice {
    fn from(command: MuxCommand) -> Notice {
        match command {
            MuxCommand::Quit => Notice::Quit(0),
            MuxCommand::Sync => Notice::Sync,
        }
    }
}

/// What users know of a machine, besides its parts.
#[derive(Default)]
pub struct About {
    pub name: Option<String>,
    pub uuid: Option<[u8; 16]>,
    /// Host ends of consoles, by name.
    pub backends: Vec<(String, Arc<dyn CharBackend>)>,
    /// Firmware with its length in bytes.
    pub roms: Vec<(String, usize)>,
    /// The guest's calendar goes on while the machine is stopped.
    pub real_time: bool,
    /// The boot order from the first reset on, if it changes then.
    pub boot_order: Option<Vec<BootDevice>>,
}

/// Why a machine stands still after the guest powered off (`-no-shutdown`).
const OFF: &str = "shutdown";

/// How it stands still.
struct Stopped {
    /// Somebody stopped it since it last went on.
    standing: bool,
    why: &'static str,
    since: Instant,
    boot_order: Option<Vec<BootDevice>>,
}

/// See the module. Its methods may be called on any thread but the processors', and without locks of devices.
pub struct Machine {
    pub pc: Arc<Pc>,
    pub processors: Arc<Processors>,
    pub engine: Arc<Engine>,
    pub isa: Arc<X86>,
    pub notices: Sender<Notice>,
    pub about: About,
    /// The processor that the monitor's commands are about.
    monitor_cpu: AtomicU32,
    /// Held during what must not happen twice at a time.
    stopped: Mutex<Stopped>,
    /// To be told when somebody stops it, and of its end.
    pub debugger: OnceLock<Arc<Debugger>>,
}

impl Machine {
    pub fn new(
        pc: Arc<Pc>,
        processors: Arc<Processors>,
        engine: Arc<Engine>,
        isa: Arc<X86>,
        notices: Sender<Notice>,
        mut about: About,
    ) -> Arc<Machine> {
        let boot_order = about.boot_order.take();
        let stopped =
            Stopped { standing: true, why: "prelaunch", since: Instant::now(), boot_order };
        let (monitor_cpu, stopped) = (AtomicU32::new(0), Mutex::new(stopped));
        let debugger = OnceLock::new();
        Arc::new(Machine {
            pc,
            processors,
            engine,
            isa,
            notices,
            about,
            monitor_cpu,
            stopped,
            debugger,
        })
    }

    pub fn monitor_cpu(&self) -> u32 {
        self.monitor_cpu.load(Ordering::Relaxed)
    }

    pub fn set_monitor_cpu(&self, cpu: u32) {
        self.monitor_cpu.store(cpu, Ordering::Relaxed);
    }

    /// As `info status` says it.
    pub fn status(&self) -> String {
        if self.processors.is_running() {
            return "VM status: running".into();
        }
        format!("VM status: paused ({})", self.stopped.lock().why)
    }

    /// # Errors
    /// A guest that powered off needs a reset before.
    pub fn cont(&self) -> Result<(), &'static str> {
        self.cont_with(true)
    }

    /// Lets it go on, time too if `clock`; errors as of [`Machine::cont`].
    pub fn cont_with(&self, clock: bool) -> Result<(), &'static str> {
        let mut stopped = self.stopped.lock();
        if self.processors.is_running() {
            return Ok(());
        }
        if stopped.why == OFF {
            return Err("the guest has powered off: it needs system_reset before");
        }
        if clock {
            if self.about.real_time {
                self.pc.skip_time(stopped.since.elapsed().as_nanos() as u64);
            }
            self.pc.start();
        }
        self.pc.retry_disks();
        stopped.standing = false;
        self.processors.go();
        Ok(())
    }

    /// Stops it. A machine that stands still keeps its reason.
    pub fn stop(&self, why: &'static str) {
        {
            let mut stopped = self.stopped.lock();
            // A processor that stopped the others did not wait for them.
            self.processors.halt();
            self.pc.stop();
            if !stopped.standing {
                (stopped.standing, stopped.why, stopped.since) = (true, why, Instant::now());
            }
        }
        if let Some(debugger) = self.debugger.get() {
            debugger.wake();
        }
    }

    /// It stands still, and not only for a reset.
    pub fn stands(&self) -> bool {
        let _stopped = self.stopped.lock();
        !self.processors.is_running()
    }

    /// The reset button.
    pub fn reset(&self) {
        let mut stopped = self.stopped.lock();
        let running = self.processors.is_running();
        if running {
            self.processors.halt();
        }
        if let Some(order) = stopped.boot_order.take() {
            self.pc.set_boot_order(&order);
        }
        if stopped.why == OFF {
            stopped.why = "paused";
        }
        self.pc.reset();
        self.processors.reset();
        if running {
            self.processors.go();
        }
    }

    /// What the guest wrote reaches the host's disks. False: not all of it.
    pub fn sync(&self) -> bool {
        let mut all = true;
        for (name, disk) in self.pc.peripherals().disks() {
            let flushed = disk.map_or(Ok(()), |disk| disk.flush());
            // Disks that wait have told.
            if let Err(error) = &flushed
                && !is_waiting(error)
            {
                say(&format!("{name}: what was written may be lost: {error}"));
            }
            all &= flushed.is_ok();
        }
        all
    }

    /// Behind the end: nothing that the guest said or wrote is lost. False: the disks do not have all.
    pub fn finish(&self) -> bool {
        let all = self.sync();
        self.about.backends.iter().for_each(|(_, backend)| backend.flush());
        all
    }

    pub fn quit(&self, status: i32) {
        let _ = self.notices.send(Notice::Quit(status));
    }

    /// Does what the guest asked for; gives the status if that ends everything.
    pub fn handle(&self, event: Event, settings: &Settings) -> Option<i32> {
        tracing::debug!(target: "cpu_reset", "the guest asks for {event:?}");
        match event {
            Event::Reset | Event::Shutdown { .. } => match settings.on_reboot {
                OnReboot::Exit => return Some(0),
                OnReboot::Reset => self.reset(),
            },
            Event::PowerOff => match settings.on_shutdown {
                OnShutdown::Exit => return Some(0),
                OnShutdown::Pause => self.stop(OFF),
            },
            Event::Exit(status) => return Some(status),
        }
        None
    }
}
