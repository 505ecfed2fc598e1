//! Runs one Linux program of another architecture: loader, system calls, and what a process sees of itself.
//!
//! [`run`] is the entry. The parts: [`program`] opens and maps ELF files ([`elf`]), [`stack`] builds the initial stack,
//! [`process`] and [`thread_state`] hold what tulk knows of the guest, [`abi`] what differs between guests,
//! [`syscall`] serves system calls by the tables in `data/`, [`strace`] shows them, [`paths`] and [`proc_files`] are the
//! guest's view of the file system, [`host`] makes the host's system calls (the only `unsafe`).
#![deny(unsafe_code)]

pub mod abi;
pub mod cpu;
pub mod debug;
mod debug_target;
pub mod elf;
#[allow(unsafe_code)]
pub mod host;
pub mod paths;
pub mod proc_files;
pub mod process;
pub mod program;
pub mod random;
pub mod signals;
pub mod stack;
pub mod strace;
pub mod syscall;
pub mod thread;
pub mod thread_state;

pub use process::Process;
pub use program::LaunchError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// What to run and how.
#[derive(Clone)]
pub struct Options {
    pub program: PathBuf,
    /// Arguments behind the program's name.
    pub args: Vec<OsString>,
    /// The guest's environment, `NAME=value`.
    pub env: Vec<OsString>,
    /// The name that the program sees as its own (`argv[0]`) instead of `program`.
    pub argv0: Option<OsString>,
    /// Where the guest's libraries are (`-L`, `QEMU_LD_PREFIX`).
    pub sysroot: Option<PathBuf>,
    /// The guest that the program must be for; any by default.
    pub guest: Option<String>,
    /// CPU model (`-cpu`).
    pub cpu: Option<String>,
    /// Bytes of stack; the resource limit's by default.
    pub stack_size: Option<u64>,
    /// What `uname -r` says.
    pub uname_release: Option<String>,
    /// Show system calls.
    pub strace: bool,
    /// Descriptor for --strace.
    pub log_fd: i32,
    /// Makes addresses and random bytes repeatable.
    pub seed: Option<u64>,
    /// The command line, without the program, under which `execve` starts tulk for a new program.
    pub reexec: Vec<OsString>,
    /// Where tulk itself is, for `execve` without `/proc`.
    pub own_path: Option<PathBuf>,
    /// Where a debugger may connect (`-g`).
    pub gdb: Option<tulk_gdb::listen::Spec>,
    /// How the engine works.
    pub engine: tulk_exec::Config,
    /// Called before the process ends, for statistics.
    pub at_exit: Option<AtExit>,
}

/// See [`Options::at_exit`].
pub type AtExit = Arc<dyn Fn(&tulk_exec::Engine) + Send + Sync>;

impl Options {
    /// `program` with its arguments in the environment of tulk itself.
    pub fn new(program: impl Into<PathBuf>) -> Options {
        let env = std::env::vars_os().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        });
        Options {
            program: program.into(),
            args: Vec::new(),
            env: env.collect(),
            argv0: None,
            sysroot: None,
            guest: None,
            cpu: None,
            stack_size: None,
            uname_release: None,
            strace: false,
            log_fd: 2,
            seed: None,
            reexec: vec!["tulk".into(), "run".into()],
            own_path: std::env::current_exe().ok(),
            gdb: None,
            engine: tulk_exec::Config::default(),
            at_exit: None,
        }
    }
}

/// Runs a program to its end: the process ends as the guest's does. Returns only when the program cannot be
/// started.
pub fn run(options: Options) -> LaunchError {
    match prepare(options) {
        Ok((process, vcpu)) => thread::run_first(&process, vcpu),
        Err(e) => e,
    }
}

/// A process with its first thread, ready to run.
pub fn prepare(options: Options) -> Result<(Arc<Process>, tulk_exec::Vcpu), LaunchError> {
    let (process, pc, sp) = Process::launch(Arc::new(options))?;
    let mut vcpu = process.engine.vcpu();
    process.abi.start(&process.cpu, &mut vcpu.state, pc, sp);
    Ok((process, vcpu))
}
