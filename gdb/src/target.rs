//! A [`Debuggee`] as `gdbstub`'s target.

use crate::extension::SIGINFO;
use crate::registers::{AnyGuest, Image, Number, description};
use crate::{Action, Catch, Debuggee, File, Go, Watchpoint};
use gdbstub::common::{Pid, Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::*;
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::breakpoints::*;
use gdbstub::target::ext::catch_syscalls::{CatchSyscalls, CatchSyscallsOps, SyscallNumbers};
use gdbstub::target::ext::extended_mode::*;
use gdbstub::target::ext::host_io::*;
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::*;
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::ext::{auxv, exec_file, host_info, libraries, memory_map, process_info};
use gdbstub::target::{Target, TargetError, TargetResult};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::{FileExt, MetadataExt};
use tulk_base::GuestVa;
use tulk_frontend::debug::Registers;

/// Most files that a client may have open.
const MAX_FILES: usize = 64;
const EIO: u8 = 5;
const EFAULT: u8 = 14;
const EINVAL: u8 = 22;

/// See the module.
pub struct Debugged<'a> {
    pub guest: &'a mut dyn Debuggee,
    xml: String,
    auxv: Option<Vec<u8>>,
    exec_file: Option<Vec<u8>>,
    /// Those that are there since the last stop, once somebody asked.
    libraries: Option<String>,
    memory_map: String,
    triple: Option<&'static str>,
    names: BTreeMap<u32, String>,
    files: BTreeMap<u32, File>,
    rest: Action,
    actions: Vec<(crate::Tid, Action)>,
    killed: bool,
    /// Only a client that breaks the protocol wants something then.
    running: bool,
}

const STAY: Action = Action { go: Go::Stay, signal: 0 };
const RUN: Action = Action { go: Go::Run, signal: 0 };

impl<'a> Debugged<'a> {
    pub fn new(guest: &'a mut dyn Debuggee, osabi: Option<&str>) -> Debugged<'a> {
        Debugged {
            xml: description(guest.registers(), osabi),
            auxv: guest.auxv(),
            exec_file: guest.exec_file(),
            libraries: None,
            memory_map: memory_map(guest.registers()),
            triple: triple(guest),
            guest,
            names: BTreeMap::new(),
            files: BTreeMap::new(),
            rest: RUN,
            actions: Vec::new(),
            killed: false,
            running: false,
        }
    }
    /// The client has killed it.
    pub fn was_killed(&self) -> bool {
        self.killed
    }
    /// A user program: what waits for it can be asked.
    pub fn has_siginfo(&self) -> bool {
        self.auxv.is_some()
    }
    /// To be called at each stop.
    pub fn stopped(&mut self) {
        self.libraries = None;
        self.running = false;
        self.names = self.guest.threads().iter().map(|&t| (t, self.guest.thread_name(t))).collect();
    }
    fn act(&mut self, tid: Tid, go: Go, signal: Option<Signal>) {
        let signal = signal.map_or(0, crate::server::guest_signal);
        if let Ok(tid) = tid.get().try_into() {
            self.actions.push((tid, Action { go, signal }));
        }
    }
}

/// Bytes of a pointer.
fn word(registers: &Registers) -> u64 {
    if registers.architecture == "i386" { 4 } else { 8 }
}

/// LLVM's name of the guest, for lldb.
fn triple(guest: &dyn Debuggee) -> Option<&'static str> {
    Some(match (guest.registers().architecture, guest.exec_file().is_some()) {
        ("aarch64", true) => "aarch64-unknown-linux-gnu",
        ("i386", true) => "i386-unknown-linux-gnu",
        ("i386:x86-64", true) => "x86_64-unknown-linux-gnu",
        ("i386", false) => "i386-unknown-unknown",
        ("i386:x86-64", false) => "x86_64-unknown-unknown",
        _ => return None,
    })
}

/// Everything can be read and written that is there: what is where changes as the guest runs, and gdb asks only once.
fn memory_map(registers: &Registers) -> String {
    // 2^64 bytes are more than a length can say.
    let pieces: &[(u64, u64)] = match word(registers) {
        4 => &[(0, 1 << 32)],
        _ => &[(0, 1 << 63), (1 << 63, 1 << 63)],
    };
    let rows = pieces.iter().map(|(start, length)| {
        format!("<memory type=\"ram\" start=\"{start:#x}\" length=\"{length:#x}\"/>\n")
    });
    format!(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE memory-map PUBLIC \"+//IDN gnu.org//DTD GDB Memory Map V1.0//EN\" \
         \"http://sourceware.org/gdb/gdb-memory-map.dtd\">\n<memory-map>\n{}</memory-map>\n",
        rows.collect::<String>()
    )
}

fn number(tid: Tid) -> u32 {
    tid.get().try_into().unwrap_or(0)
}

/// A piece of `data` for a `qXfer` request; what was copied.
fn piece(data: &[u8], offset: u64, length: usize, buf: &mut [u8]) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|at| data.get(at..)).unwrap_or_default();
    let n = rest.len().min(length).min(buf.len());
    buf[..n].copy_from_slice(&rest[..n]);
    n
}

impl Target for Debugged<'_> {
    type Arch = AnyGuest;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, AnyGuest, Infallible> {
        BaseOps::MultiThread(self)
    }
    // Children are not this session's: see the module of the user program's side.
    fn use_fork_stop_reason(&self) -> bool {
        false
    }
    fn use_vfork_stop_reason(&self) -> bool {
        false
    }
    fn use_vforkdone_stop_reason(&self) -> bool {
        false
    }
    fn use_lldb_register_info(&self) -> bool {
        false
    }
    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
    fn support_extended_mode(&mut self) -> Option<ExtendedModeOps<'_, Self>> {
        Some(self)
    }
    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
    fn support_catch_syscalls(&mut self) -> Option<CatchSyscallsOps<'_, Self>> {
        // Only user programs make them to us.
        if self.auxv.is_some() { Some(self) } else { None }
    }
    fn support_host_io(&mut self) -> Option<HostIoOps<'_, Self>> {
        if self.exec_file.is_some() { Some(self) } else { None }
    }
    fn support_exec_file(&mut self) -> Option<exec_file::ExecFileOps<'_, Self>> {
        if self.exec_file.is_some() { Some(self) } else { None }
    }
    fn support_auxv(&mut self) -> Option<auxv::AuxvOps<'_, Self>> {
        if self.auxv.is_some() { Some(self) } else { None }
    }
    fn support_memory_map(&mut self) -> Option<memory_map::MemoryMapOps<'_, Self>> {
        Some(self)
    }
    /// Asked in front of each reading.
    fn support_libraries_svr4(&mut self) -> Option<libraries::LibrariesSvr4Ops<'_, Self>> {
        let auxv = self.auxv.as_deref()?;
        if self.libraries.is_none() {
            let word = word(self.guest.registers());
            self.libraries = Some(crate::libraries::svr4(self.guest, auxv, word));
        }
        Some(self)
    }
    fn support_host_info(&mut self) -> Option<host_info::HostInfoOps<'_, Self>> {
        if self.triple.is_some() { Some(self) } else { None }
    }
    fn support_process_info(&mut self) -> Option<process_info::ProcessInfoOps<'_, Self>> {
        if self.triple.is_some() { Some(self) } else { None }
    }
}

impl MultiThreadBase for Debugged<'_> {
    fn read_registers(&mut self, image: &mut Image, tid: Tid) -> TargetResult<(), Self> {
        let registers = self.guest.registers().clone();
        let call = self.guest.system_call(number(tid)).map_or(u128::MAX, |n| n as u128);
        let found = self.guest.with_registers(number(tid), false, &mut |state| {
            image.pc = state.pc();
            image.bytes.clear();
            for r in registers.by_number().into_iter().filter(|r| r.number < registers.whole) {
                let value = r.read(state).unwrap_or(call).to_le_bytes();
                image.bytes.extend(value[..r.bytes()].iter().copied().map(Some));
            }
        });
        if found { Ok(()) } else { Err(TargetError::NonFatal) }
    }
    fn write_registers(&mut self, image: &Image, tid: Tid) -> TargetResult<(), Self> {
        let registers = self.guest.registers().clone();
        let found = self.guest.with_registers(number(tid), true, &mut |state| {
            let mut bytes = image.bytes.iter().map(|b| b.unwrap_or(0));
            for r in registers.by_number().into_iter().filter(|r| r.number < registers.whole) {
                if bytes.len() < r.bytes() {
                    break;
                }
                let mut value = [0; 16];
                value[..r.bytes()].iter_mut().zip(&mut bytes).for_each(|(v, b)| *v = b);
                r.write(state, u128::from_le_bytes(value));
            }
        });
        if found { Ok(()) } else { Err(TargetError::NonFatal) }
    }
    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }
    fn read_addrs(&mut self, va: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        match self.guest.read_memory(number(tid), va, data) {
            0 if !data.is_empty() => Err(TargetError::Errno(EFAULT)),
            n => Ok(n),
        }
    }
    fn write_addrs(&mut self, va: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        if self.running {
            return Err(TargetError::NonFatal);
        }
        let done = self.guest.write_memory(number(tid), va, data);
        if done { Ok(()) } else { Err(TargetError::Errno(EFAULT)) }
    }
    fn list_active_threads(&mut self, each: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        self.guest.threads().into_iter().filter_map(|t| Tid::new(t as usize)).for_each(each);
        Ok(())
    }
    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Debugged<'_> {
    fn read_register(&mut self, tid: Tid, id: Number, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let all = self.guest.registers();
        let found = all.features.iter().flat_map(|f| &f.registers).find(|r| r.number == id.0);
        let register = found.cloned().ok_or(TargetError::NonFatal)?;
        let call = self.guest.system_call(number(tid)).map_or(u128::MAX, |n| n as u128);
        let mut value = None;
        self.guest.with_registers(number(tid), false, &mut |state| {
            value = Some(register.read(state).unwrap_or(call));
        });
        let value = value.ok_or(TargetError::NonFatal)?.to_le_bytes();
        let out = buf.get_mut(..register.bytes()).ok_or(TargetError::NonFatal)?;
        out.copy_from_slice(&value[..register.bytes()]);
        Ok(register.bytes())
    }
    fn write_register(&mut self, tid: Tid, id: Number, bytes: &[u8]) -> TargetResult<(), Self> {
        let all = self.guest.registers();
        let found = all.features.iter().flat_map(|f| &f.registers).find(|r| r.number == id.0);
        let register = found.cloned().ok_or(TargetError::NonFatal)?;
        let mut value = [0; 16];
        let len = bytes.len().min(16);
        value[..len].copy_from_slice(&bytes[..len]);
        let done = self.guest.with_registers(number(tid), true, &mut |state| {
            register.write(state, u128::from_le_bytes(value));
        });
        if done { Ok(()) } else { Err(TargetError::Errno(EINVAL)) }
    }
}

impl ThreadExtraInfo for Debugged<'_> {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Infallible> {
        let name = self.names.get(&number(tid)).map_or("", String::as_str);
        Ok(piece(name.as_bytes(), 0, buf.len(), buf))
    }
}

impl MultiThreadResume for Debugged<'_> {
    fn resume(&mut self) -> Result<(), Infallible> {
        self.running = true;
        self.guest.resume(self.rest, &std::mem::take(&mut self.actions));
        Ok(())
    }
    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.actions.clear();
        self.rest = RUN;
        Ok(())
    }
    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.act(tid, Go::Run, signal);
        Ok(())
    }
    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }
    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Debugged<'_> {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.act(tid, Go::Step, signal);
        Ok(())
    }
}
impl MultiThreadRangeStepping for Debugged<'_> {
    fn set_resume_action_range_step(
        &mut self,
        tid: Tid,
        start: u64,
        end: u64,
    ) -> Result<(), Infallible> {
        self.act(tid, Go::StepRange(start, end), None);
        Ok(())
    }
}
impl MultiThreadSchedulerLocking for Debugged<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.rest = STAY;
        Ok(())
    }
}

impl Breakpoints for Debugged<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}
impl SwBreakpoint for Debugged<'_> {
    fn add_sw_breakpoint(&mut self, va: u64, _: usize) -> TargetResult<bool, Self> {
        // What cannot be read cannot be reached; gdb counts on being told.
        if !self.guest.may_break(va) {
            return Err(TargetError::Errno(EFAULT));
        }
        self.guest.set_breakpoint(va);
        Ok(true)
    }
    fn remove_sw_breakpoint(&mut self, va: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.guest.clear_breakpoint(va))
    }
}
impl HwBreakpoint for Debugged<'_> {
    fn add_hw_breakpoint(&mut self, va: u64, _: usize) -> TargetResult<bool, Self> {
        self.guest.set_breakpoint(va);
        Ok(true)
    }
    fn remove_hw_breakpoint(&mut self, va: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.guest.clear_breakpoint(va))
    }
}
impl HwWatchpoint for Debugged<'_> {
    fn add_hw_watchpoint(
        &mut self,
        va: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        Ok(self.guest.set_watch(watch(va, len, kind)))
    }
    fn remove_hw_watchpoint(
        &mut self,
        va: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        Ok(self.guest.clear_watch(watch(va, len, kind)))
    }
}

fn watch(start: u64, len: u64, kind: WatchKind) -> Watchpoint {
    let kind = match kind {
        WatchKind::Write => crate::WatchKind::Write,
        WatchKind::Read => crate::WatchKind::Read,
        WatchKind::ReadWrite => crate::WatchKind::Access,
    };
    Watchpoint { start: GuestVa(start), len, kind }
}

impl CatchSyscalls for Debugged<'_> {
    fn enable_catch_syscalls(
        &mut self,
        filter: Option<SyscallNumbers<'_, u64>>,
    ) -> TargetResult<(), Self> {
        let catch = filter.map_or(Catch::All, |numbers| Catch::Only(numbers.collect()));
        self.guest.catch_syscalls(catch);
        Ok(())
    }
    fn disable_catch_syscalls(&mut self) -> TargetResult<(), Self> {
        self.guest.catch_syscalls(Catch::None);
        Ok(())
    }
}

impl MonitorCmd for Debugged<'_> {
    fn handle_monitor_cmd(
        &mut self,
        cmd: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Infallible> {
        let command = String::from_utf8_lossy(cmd);
        let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
        let asked = if command == "help" { "" } else { &command };
        match self.guest.monitor(asked) {
            Some(text) => out.write_raw(text.as_bytes()),
            None => out
                .write_raw(format!("unknown command `{command}`; try `monitor help`\n").as_bytes()),
        }
        Ok(())
    }
}

impl TargetDescriptionXmlOverride for Debugged<'_> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        match annex {
            b"target.xml" => Ok(piece(self.xml.as_bytes(), offset, length, buf)),
            SIGINFO => match self.guest.siginfo() {
                Some(info) => Ok(piece(&info, offset, length, buf)),
                None => Err(TargetError::Errno(EINVAL)),
            },
            _ => Err(TargetError::NonFatal),
        }
    }
}

impl auxv::Auxv for Debugged<'_> {
    fn get_auxv(&self, offset: u64, length: usize, buf: &mut [u8]) -> TargetResult<usize, Self> {
        Ok(piece(self.auxv.as_deref().unwrap_or_default(), offset, length, buf))
    }
}
impl exec_file::ExecFile for Debugged<'_> {
    fn get_exec_file(
        &self,
        _: Option<Pid>,
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        Ok(piece(self.exec_file.as_deref().unwrap_or_default(), offset, length, buf))
    }
}

impl memory_map::MemoryMap for Debugged<'_> {
    fn memory_map_xml(
        &self,
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        Ok(piece(self.memory_map.as_bytes(), offset, length, buf))
    }
}
impl libraries::LibrariesSvr4 for Debugged<'_> {
    fn get_libraries_svr4(
        &self,
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let list = self.libraries.as_deref().unwrap_or_default();
        Ok(piece(list.as_bytes(), offset, length, buf))
    }
}
impl host_info::HostInfo for Debugged<'_> {
    fn host_info(
        &self,
        item: &mut dyn FnMut(&host_info::HostInfoResponse<'_>),
    ) -> Result<(), Infallible> {
        use host_info::HostInfoResponse::*;
        item(&Triple(self.triple.unwrap_or_default()));
        item(&Endianness(gdbstub::common::Endianness::Little));
        item(&PointerSize(word(self.guest.registers()) as usize));
        Ok(())
    }
}
impl process_info::ProcessInfo for Debugged<'_> {
    /// Without the number, which `gdbstub` writes in decimal and lldb reads in hexadecimal; stops have it, too.
    fn process_info(
        &self,
        item: &mut dyn FnMut(&process_info::ProcessInfoResponse<'_>),
    ) -> Result<(), Infallible> {
        use process_info::ProcessInfoResponse::*;
        item(&Triple(self.triple.unwrap_or_default()));
        item(&Endianness(gdbstub::common::Endianness::Little));
        item(&PointerSize(word(self.guest.registers()) as usize));
        Ok(())
    }
}

/// There is one process, which runs already. The extended mode makes its number known, and a `kill` answered.
impl ExtendedMode for Debugged<'_> {
    fn run(&mut self, _: Option<&[u8]>, _: Args<'_, '_>) -> TargetResult<Pid, Self> {
        Err(TargetError::Errno(EIO))
    }
    fn attach(&mut self, pid: Pid) -> TargetResult<(), Self> {
        if pid.get() == self.guest.pid() as usize { Ok(()) } else { Err(TargetError::Errno(3)) }
    }
    fn query_if_attached(&mut self, _: Pid) -> TargetResult<AttachKind, Self> {
        Ok(AttachKind::Attach)
    }
    fn kill(&mut self, _: Option<Pid>) -> TargetResult<ShouldTerminate, Self> {
        self.killed = true;
        Ok(ShouldTerminate::Yes)
    }
    fn restart(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
    fn support_current_active_pid(&mut self) -> Option<CurrentActivePidOps<'_, Self>> {
        Some(self)
    }
}
impl CurrentActivePid for Debugged<'_> {
    fn current_active_pid(&mut self) -> Result<Pid, Infallible> {
        Ok(Pid::new(self.guest.pid() as usize).unwrap_or(Pid::MIN))
    }
}

impl HostIo for Debugged<'_> {
    fn support_open(&mut self) -> Option<HostIoOpenOps<'_, Self>> {
        Some(self)
    }
    fn support_close(&mut self) -> Option<HostIoCloseOps<'_, Self>> {
        Some(self)
    }
    fn support_pread(&mut self) -> Option<HostIoPreadOps<'_, Self>> {
        Some(self)
    }
    fn support_fstat(&mut self) -> Option<HostIoFstatOps<'_, Self>> {
        Some(self)
    }
    fn support_readlink(&mut self) -> Option<HostIoReadlinkOps<'_, Self>> {
        Some(self)
    }
    fn support_setfs(&mut self) -> Option<HostIoSetfsOps<'_, Self>> {
        Some(self)
    }
}
impl HostIoOpen for Debugged<'_> {
    fn open(
        &mut self,
        path: &[u8],
        flags: HostIoOpenFlags,
        _: HostIoOpenMode,
    ) -> HostIoResult<u32, Self> {
        let writes = HostIoOpenFlags::O_WRONLY | HostIoOpenFlags::O_RDWR | HostIoOpenFlags::O_CREAT;
        if flags.intersects(writes) {
            return Err(HostIoError::Errno(HostIoErrno::EROFS));
        }
        if self.files.len() >= MAX_FILES {
            return Err(HostIoError::Errno(HostIoErrno::EMFILE));
        }
        let file = self.guest.open(path)?;
        let fd = (0..).find(|fd| !self.files.contains_key(fd)).unwrap_or(0);
        if let File::Host(file) = &file {
            use std::os::fd::AsFd;
            self.guest.adopt_fd(file.as_fd());
        }
        self.files.insert(fd, file);
        Ok(fd)
    }
}
impl HostIoClose for Debugged<'_> {
    fn close(&mut self, fd: u32) -> HostIoResult<(), Self> {
        match self.files.remove(&fd) {
            Some(File::Host(file)) => {
                use std::os::fd::AsFd;
                self.guest.forget_fd(file.as_fd());
                Ok(())
            }
            Some(File::Content(_)) => Ok(()),
            None => Err(HostIoError::Errno(HostIoErrno::EBADF)),
        }
    }
}
impl HostIoPread for Debugged<'_> {
    fn pread(
        &mut self,
        fd: u32,
        count: usize,
        offset: u64,
        buf: &mut [u8],
    ) -> HostIoResult<usize, Self> {
        // A byte may need two in the packet.
        let n = count.min(buf.len() / 2 - 16);
        match self.files.get(&fd) {
            None => Err(HostIoError::Errno(HostIoErrno::EBADF)),
            Some(File::Host(file)) => Ok(file.read_at(&mut buf[..n], offset)?),
            Some(File::Content(bytes)) => Ok(piece(bytes, offset, n, buf)),
        }
    }
}
impl HostIoFstat for Debugged<'_> {
    fn fstat(&mut self, fd: u32) -> HostIoResult<HostIoStat, Self> {
        let mut stat = HostIoStat {
            st_dev: 0,
            st_ino: 0,
            st_mode: HostIoOpenMode::S_IFREG | HostIoOpenMode::S_IRUSR,
            st_nlink: 1,
            st_uid: 0,
            st_gid: 0,
            st_rdev: 0,
            st_size: 0,
            st_blksize: 4096,
            st_blocks: 0,
            st_atime: 0,
            st_mtime: 0,
            st_ctime: 0,
        };
        match self.files.get(&fd) {
            None => return Err(HostIoError::Errno(HostIoErrno::EBADF)),
            Some(File::Content(bytes)) => stat.st_size = bytes.len() as u64,
            Some(File::Host(file)) => {
                let meta = file.metadata()?;
                stat.st_dev = meta.dev() as u32;
                stat.st_ino = meta.ino() as u32;
                stat.st_mode = HostIoOpenMode::from_bits_truncate(meta.mode());
                stat.st_nlink = meta.nlink() as u32;
                (stat.st_uid, stat.st_gid) = (meta.uid(), meta.gid());
                (stat.st_size, stat.st_blocks) = (meta.size(), meta.blocks());
                stat.st_mtime = meta.mtime() as u32;
            }
        }
        Ok(stat)
    }
}
impl HostIoReadlink for Debugged<'_> {
    fn readlink(&mut self, path: &[u8], buf: &mut [u8]) -> HostIoResult<usize, Self> {
        let link = self.guest.read_link(path)?;
        Ok(piece(&link, 0, link.len(), buf))
    }
}
impl HostIoSetfs for Debugged<'_> {
    fn setfs(&mut self, _: FsKind) -> HostIoResult<(), Self> {
        Ok(())
    }
}
