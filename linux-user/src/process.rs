//! One guest process.

use crate::Options;
use crate::abi::{Cpu, GuestAbi};
use crate::debug::Debugger;
use crate::elf::ElfError;
use crate::paths::{Paths, fd_path};
use crate::program::{self, LaunchError, Loaded, Program};
use crate::random::Random;
use crate::signals::Actions;
use crate::stack::{self, Stack, at};
use crate::syscall::Errno;
use crate::syscall::dir::DirPositions;
use crate::{host, sys};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tulk_base::CpuState;
use tulk_exec::Engine;
use tulk_softmmu::intervals::{EXEC, READ, WRITE};
use tulk_softmmu::user::PAGE;
use tulk_softmmu::{MapRequest, UserSpace};

/// The program that a process runs, and where its parts are.
#[derive(Clone, Debug, Default)]
pub struct ImageInfo {
    /// As the guest names it; what `/proc/self/exe` links to.
    pub exe: PathBuf,
    /// Where that is on the host.
    pub exe_host: PathBuf,
    pub loaded: Loaded,
    pub stack: Stack,
}

/// See the module. Shared by the process's threads.
pub struct Process {
    pub abi: &'static dyn GuestAbi,
    pub cpu: Cpu,
    pub space: Arc<UserSpace>,
    pub engine: Arc<Engine>,
    pub paths: Paths,
    pub options: Arc<Options>,
    pub actions: Arc<Actions>,
    /// Guest threads that live.
    pub threads: AtomicUsize,
    sigreturn: OnceLock<u64>,
    pub random: Mutex<Random>,
    /// Resource limits that the guest set and that are not given to the host.
    pub limits: Mutex<BTreeMap<i32, [u64; 2]>>,
    /// Ranges that `MADV_DONTFORK` named: address and length.
    pub not_forked: Mutex<BTreeSet<(u64, u64)>>,
    /// Local descriptors of x86 guests, by index.
    pub ldt: Mutex<Vec<u64>>,
    /// Directory positions that do not fit a 32-bit guest.
    pub dir_positions: Mutex<DirPositions>,
    /// Readable memory becomes executable too (`READ_IMPLIES_EXEC`).
    pub read_is_exec: AtomicBool,
    /// Attached System V segments: address and length.
    pub shm: Mutex<BTreeMap<u64, u64>>,
    /// Where --strace writes: a descriptor of tulk's own, because the guest may close or replace what the user sees.
    log_fd: i32,
    debugger: RwLock<Option<Arc<Debugger>>>,
    image: RwLock<ImageInfo>,
    /// Descriptors of tulk's own: not there for the guest.
    own_fds: RwLock<BTreeSet<i32>>,
    reported: Mutex<BTreeSet<u64>>,
}

impl Process {
    /// Opens the program that `options` name and makes an address space with it, ready to run. Returns the process
    /// and the program's first pc and stack pointer.
    pub fn launch(options: Arc<Options>) -> Result<(Arc<Process>, u64, u64), LaunchError> {
        let paths = Paths::new(options.sysroot.as_deref()).map_err(|reason| LaunchError::Open {
            path: options.sysroot.clone().unwrap_or_default(),
            reason,
        })?;
        let to_c =
            |s: &std::ffi::OsString| CString::new(s.as_bytes()).map_err(|_| LaunchError::TooLong);
        let mut argv: Vec<CString> = vec![to_c(
            options.argv0.as_ref().unwrap_or(&options.program.clone().into_os_string()),
        )?];
        for arg in &options.args {
            argv.push(to_c(arg)?);
        }
        let env = options.env.iter().map(to_c).collect::<Result<Vec<_>, _>>()?;
        let program = program::open(&paths, &options.program, argv)?;
        if let Some(wanted) = options.guest.as_deref().filter(|&g| g != program.abi.name()) {
            let machine = program.main.image.machine;
            let reason = ElfError::OtherGuest { machine, wanted: wanted.to_string() };
            return Err(LaunchError::Elf { path: options.program.clone(), reason });
        }
        let cpu = program.abi.cpu(options.cpu.as_deref()).map_err(LaunchError::Cpu)?;
        let mut random = Random::new(options.seed);
        let space = program.abi.new_space().map_err(LaunchError::Space)?;
        let space = Arc::new(if no_randomize() || space.is_window() {
            space
        } else {
            // Far from the host's own mappings; up to 64 GiB of play.
            let top = 0x4fff_f000_0000 - (random.below(1 << 24) << 12);
            space.with_area(0x10_0000_0000..top)
        });
        let log_fd = match options.strace {
            true => match sys!(SYS_fcntl, options.log_fd, libc::F_DUPFD_CLOEXEC, 3) {
                Ok(fd) => host::out_of_the_way(fd as i32),
                Err(_) => options.log_fd,
            },
            false => options.log_fd,
        };
        let engine = Engine::new(cpu.isa.clone(), space.clone(), options.engine.clone());
        let debugger = match &options.gdb {
            None => None,
            Some(spec) => {
                engine.prepare_debugging();
                let debugger = Debugger::new(spec.clone(), &*engine.isa);
                Some(Arc::new(debugger.map_err(LaunchError::Debugger)?))
            }
        };
        let actions = Actions::inherited();
        if debugger.is_some() {
            actions.let_debuggers_see();
        }
        let process = Process {
            abi: program.abi,
            engine,
            cpu,
            space,
            paths,
            random: Mutex::new(random),
            limits: Mutex::default(),
            log_fd,
            not_forked: Mutex::default(),
            shm: Mutex::default(),
            ldt: Mutex::default(),
            dir_positions: Mutex::default(),
            read_is_exec: AtomicBool::new(false),
            debugger: RwLock::new(debugger),
            image: RwLock::default(),
            own_fds: RwLock::default(),
            reported: Mutex::default(),
            actions: Arc::new(actions),
            threads: AtomicUsize::new(1),
            sigreturn: OnceLock::new(),
            options,
        };
        process.own_fds.write().extend(process.paths.own_fd());
        if log_fd != process.options.log_fd {
            process.hide_fd(log_fd);
        }
        let exec_fn = to_c(&process.options.program.clone().into_os_string())?;
        let (pc, sp) = process.map_program(&program, &env, &exec_fn)?;
        if tracing::enabled!(target: "page", tracing::Level::DEBUG) {
            let maps = crate::proc_files::maps(&process);
            tracing::debug!(target: "page", "memory map\n{}", String::from_utf8_lossy(&maps));
        }
        let process = Arc::new(process);
        Ok((process, pc, sp))
    }

    /// Maps a program with its stack into the (empty) space; returns its first pc and stack pointer.
    pub fn map_program(
        &self,
        program: &Program,
        env: &[CString],
        exec_fn: &CString,
    ) -> Result<(u64, u64), LaunchError> {
        let mut random = self.random.lock();
        let all = program.main.image.exec_stack.is_none() && self.abi.executable_by_default();
        self.read_is_exec.store(all, Ordering::Relaxed);
        let exec_stack = all || program.main.image.exec_stack == Some(true);
        let (low, top) = program::map_stack(&self.space, self.stack_size(), exec_stack)?;
        // Mapped before anything else: later it could fall into a hole that the guest keeps.
        let code = self.sigreturn_code();
        let slide = (!no_randomize()).then_some(&mut *random);
        let loaded = program::load(&self.space, program, slide)?;
        self.space.set_brk_start(tulk_base::GuestVa(loaded.brk));
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        // A few hundred bytes of play for the stack pointer.
        let top = if no_randomize() { top } else { top - random.below(512) * 16 };
        let id = |nr: i64| host::call(nr, &[]).unwrap_or(0);
        let mut auxv = vec![
            (at::HWCAP, self.cpu.hwcap),
            (at::PAGESZ, tulk_softmmu::user::PAGE),
            (at::CLKTCK, 100),
            (at::PHDR, loaded.phdr),
            (at::PHENT, loaded.phentsize),
            (at::PHNUM, loaded.phnum),
            (at::BASE, loaded.base),
            (at::FLAGS, 0),
            (at::ENTRY, loaded.entry),
            (at::UID, id(libc::SYS_getuid)),
            (at::EUID, id(libc::SYS_geteuid)),
            (at::GID, id(libc::SYS_getgid)),
            (at::EGID, id(libc::SYS_getegid)),
            (at::SECURE, 0),
            (at::HWCAP2, self.cpu.hwcap2),
            (at::MINSIGSTKSZ, self.abi.min_signal_stack()),
        ];
        auxv.splice(0..0, self.abi.extra_auxv(code));
        let contents = stack::Contents {
            argv: &program.argv,
            env,
            exec_fn,
            platform: self.abi.platform(),
            random: bytes,
            auxv: &auxv,
        };
        let stack = stack::build(&self.space, self.abi.model(), top, top - low, &contents)?;
        let (pc, sp) = (loaded.start, stack.sp);
        let exe = std::path::absolute(&program.main.path).unwrap_or(program.main.path.clone());
        let exe_host = fd_path(program.main.file.as_raw_fd())
            .map_or(program.main.host_path.clone(), |p| OsStr::from_bytes(p.to_bytes()).into());
        set_comm(&exe);
        *self.image.write() = ImageInfo { exe, exe_host, loaded, stack };
        Ok((pc, sp))
    }

    /// The kernel's code for the guest, on a page of its own; 0 without any.
    pub fn sigreturn_code(&self) -> u64 {
        *self.sigreturn.get_or_init(|| {
            let code = self.abi.sigreturn_code();
            if code.is_empty() {
                return 0;
            }
            let request = MapRequest::anonymous(PAGE, READ | WRITE).named("[sigpage]");
            let at = self.space.map(&request);
            let at = at.and_then(|at| {
                self.space.copy_out(at, code).map_err(|_| Errno(libc::EFAULT))?;
                self.space.protect(at, PAGE, READ | EXEC).map(|()| at.0)
            });
            at.unwrap_or(0)
        })
    }

    /// `-d cpu`: the registers of up to 64 bits, eight to a line.
    pub fn log_registers(&self, state: &CpuState, why: &str) {
        if !tracing::enabled!(target: "cpu", tracing::Level::DEBUG) {
            return;
        }
        let mut text = format!("{why} at pc {:#x}", state.pc());
        let narrow = self.engine.isa.layout().slots().iter().filter(|s| s.ty.bytes() <= 8);
        for (n, slot) in narrow.enumerate() {
            text.push_str(if n % 8 == 0 { "\n  " } else { " " });
            text.push_str(&format!("{}={:x}", slot.name, state.get(slot.cell)));
        }
        tracing::debug!(target: "cpu", "{text}");
    }

    /// Called when a signal is about to end the process.
    pub fn on_fatal_signal(&self, signal: i32, state: &CpuState) {
        tracing::debug!(target: "int", "signal {signal} ends the program at pc {:#x}", state.pc());
        if let Some(debugger) = self.debugger() {
            debugger.ended(tulk_gdb::Stop::Killed(signal));
        }
        self.at_exit();
    }

    /// Called once, before the process ends.
    pub fn at_exit(&self) {
        if let Some(report) = &self.options.at_exit {
            report(&self.engine);
        }
    }

    /// The guest's stack: as the user says, or the resource limit within reason.
    pub fn stack_size(&self) -> u64 {
        use crate::host::Zeroed;
        if let Some(size) = self.options.stack_size {
            return size.clamp(64 << 10, 16 << 30);
        }
        let mut limit = libc::rlimit::zeroed();
        match sys!(SYS_prlimit64, 0, libc::RLIMIT_STACK, host::Mem::NULL, &mut limit) {
            Ok(_) if limit.rlim_cur != libc::RLIM_INFINITY => {
                limit.rlim_cur.clamp(128 << 10, 1 << 30)
            }
            _ => 8 << 20,
        }
    }

    pub fn image(&self) -> ImageInfo {
        self.image.read().clone()
    }
    /// The program as the guest names it.
    pub fn exe(&self) -> PathBuf {
        self.image.read().exe.clone()
    }
    pub fn exe_host_path(&self) -> PathBuf {
        self.image.read().exe_host.clone()
    }

    /// True for a descriptor that belongs to tulk.
    pub fn is_own_fd(&self, fd: i32) -> bool {
        self.own_fds.read().contains(&fd)
    }
    /// Hides a descriptor from the guest.
    pub fn hide_fd(&self, fd: i32) {
        self.own_fds.write().insert(fd);
    }
    /// The descriptor is tulk's no more.
    pub fn show_fd(&self, fd: i32) {
        self.own_fds.write().remove(&fd);
    }
    pub fn debugger(&self) -> Option<Arc<Debugger>> {
        self.debugger.read().clone()
    }
    pub fn set_debugger(&self, debugger: Option<Arc<Debugger>>) {
        *self.debugger.write() = debugger;
    }
    /// All hidden descriptors, in order.
    pub fn own_fds(&self) -> Vec<i32> {
        self.own_fds.read().iter().copied().collect()
    }

    /// Holds over `fork` what other threads may be using: the child must find it free.
    pub fn lock_for_fork(&self) -> impl Sized {
        (
            self.actions.lock_for_fork(),
            (self.random.lock(), self.limits.lock(), self.not_forked.lock()),
            (self.ldt.lock(), self.dir_positions.lock(), self.shm.lock()),
            (self.image.write(), self.own_fds.write(), self.reported.lock()),
        )
    }

    /// Reports a system call without a handler, once per number.
    pub fn unimplemented(&self, number: u64, name: Option<&str>) {
        if self.reported.lock().insert(number) {
            let name = name.unwrap_or("unknown");
            tracing::warn!(target: "unimp", "system call {number} ({name}) is not implemented");
        }
    }
    /// Reports something else that is missing, once per `key`.
    pub fn unimplemented_once(&self, key: u64, what: impl FnOnce() -> String) {
        if self.reported.lock().insert(key | 1 << 63) {
            tracing::warn!(target: "unimp", "{}", what());
        }
    }

    /// Where --strace writes.
    pub fn log_fd(&self) -> i32 {
        self.log_fd
    }
}

/// The kernel's name of the process, as `ps` and `pgrep` show it.
fn set_comm(exe: &Path) {
    if let Ok(name) = CString::new(crate::proc_files::comm(exe)) {
        let _ = sys!(SYS_prctl, libc::PR_SET_NAME, name.as_c_str(), 0, 0, 0);
    }
}

/// The user asked for fixed addresses (`setarch -R`).
fn no_randomize() -> bool {
    let persona = sys!(SYS_personality, 0xffff_ffffu32).unwrap_or(0);
    persona & libc::ADDR_NO_RANDOMIZE as u64 != 0
}
