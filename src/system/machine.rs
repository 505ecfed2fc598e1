//! A machine that runs: what front ends, the monitor and the guest may do to it as a whole.

use super::processors::Processors;
use super::settings::{OnReboot, OnShutdown, Settings};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tulk_exec::Engine;
use tulk_pc::{Event, Pc};
use tulk_ui::CharBackend;
use tulk_x86::X86;

/// What the main thread is told.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    Guest(Event),
    /// A signal ends the emulator.
    Signal(i32),
    /// End with this status.
    Quit(i32),
    /// Write the disks' caches out.
    Sync,
}

/// See the module. Its methods may be called on any thread but the processors', and without locks of devices.
pub struct Machine {
    pub pc: Arc<Pc>,
    pub processors: Arc<Processors>,
    pub engine: Arc<Engine>,
    pub isa: Arc<X86>,
    pub notices: Sender<Notice>,
    backends: Vec<Arc<dyn CharBackend>>,
    /// Held during what must not happen twice at a time. Why it stands still.
    stopped: Mutex<&'static str>,
}

impl Machine {
    pub fn new(
        pc: Arc<Pc>,
        processors: Arc<Processors>,
        engine: Arc<Engine>,
        isa: Arc<X86>,
        notices: Sender<Notice>,
        backends: Vec<Arc<dyn CharBackend>>,
    ) -> Arc<Machine> {
        let stopped = Mutex::new("prelaunch");
        Arc::new(Machine { pc, processors, engine, isa, notices, backends, stopped })
    }

    /// As `info status` says it.
    pub fn status(&self) -> String {
        if self.processors.is_running() {
            return "VM status: running".into();
        }
        format!("VM status: paused ({})", *self.stopped.lock())
    }

    pub fn cont(&self) {
        let _stopped = self.stopped.lock();
        if !self.processors.is_running() {
            self.pc.start();
            self.processors.go();
        }
    }

    pub fn stop(&self, why: &'static str) {
        let mut stopped = self.stopped.lock();
        if self.processors.is_running() {
            self.processors.halt();
            self.pc.stop();
        }
        *stopped = why;
    }

    /// The reset button.
    pub fn reset(&self) {
        let _stopped = self.stopped.lock();
        let running = self.processors.is_running();
        if running {
            self.processors.halt();
        }
        self.pc.reset();
        self.processors.reset();
        if running {
            self.processors.go();
        }
    }

    /// What the guest wrote reaches the host's disks.
    pub fn sync(&self) {
        for (name, disk) in &self.pc.peripherals().blocks {
            if let Err(error) = disk.flush() {
                tracing::error!("{name}: {error}");
            }
        }
    }

    /// Behind the end: nothing that the guest said is lost.
    pub fn finish(&self) {
        self.sync();
        self.backends.iter().for_each(|backend| backend.flush());
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
                OnShutdown::Pause => self.stop("shutdown"),
            },
            Event::Exit(status) => return Some(status),
        }
        None
    }
}
