//! A user program as the GDB server's [`Debuggee`], and the server's thread.

use crate::debug::{Debugger, Place, hide, quiet_thread};
use crate::proc_files::ProcFile;
use crate::process::Process;
use crate::sys;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use tulk_base::{CpuState, GuestVa};
use tulk_frontend::debug::Registers;
use tulk_gdb::{Action, Catch, Debuggee, File, Go, Stop, Tid, Watchpoint};
use tulk_softmmu::intervals::WRITE;
use tulk_softmmu::user::PAGE;

/// What `monitor help` prints.
const MONITOR: &str = "\
help            this list
info registers  the registers of the thread that stopped last, as tulk keeps them
info tb         what the translator did
info maps       the program's memory
";

struct Program {
    process: Arc<Process>,
    debugger: Arc<Debugger>,
    registers: Registers,
}

/// Serves debuggers of the process on a thread of its own.
pub(crate) fn start(process: &Arc<Process>) {
    let Some(debugger) = process.debugger() else { return };
    let listener = debugger.listener.lock().map(|mut l| l.take()).ok().flatten();
    let Some(listener) = listener else { return };
    hide(process, &listener.as_fd());
    hide(process, &debugger.wake);
    hide(process, debugger.woken());
    let process = process.clone();
    quiet_thread("gdb", move || {
        let registers = process.engine.isa.debug_registers();
        let mut program = Program { process, debugger, registers };
        tulk_gdb::server::serve(&mut program, &listener, Some("GNU/Linux"));
    });
}

impl Program {
    /// Forgets what the client asked for.
    fn clear(&self) {
        self.process.engine.clear_breakpoints();
        self.process.engine.clear_watchpoints();
        self.debugger.set_catch(Catch::None);
        self.debugger.lock().attached = false;
    }

    /// The parts of `[va, va + len)` from `va` on that are mapped without a gap.
    fn mapped(&self, va: u64, len: usize) -> Vec<(u64, usize, u32)> {
        let space = &self.process.space;
        let va = space.untag(GuestVa(va)).0;
        let len = len.min((space.limit().saturating_sub(va)) as usize);
        let mut at = va;
        let mut parts = Vec::new();
        for m in space.mapped_in(GuestVa(va), len as u64) {
            let end = m.end.min(va + len as u64);
            if m.start > at || at >= end {
                break;
            }
            parts.push((at, (end - at) as usize, m.region.prot));
            at = end;
        }
        parts
    }
}

impl Debuggee for Program {
    fn registers(&self) -> &Registers {
        &self.registers
    }
    fn pid(&self) -> u32 {
        self.debugger.pid
    }
    fn threads(&self) -> Vec<Tid> {
        let inner = self.debugger.lock();
        let current = inner.current;
        let mut all: Vec<Tid> = inner.threads.keys().copied().collect();
        all.sort_by_key(|&t| t != current);
        all
    }
    fn thread_name(&self, tid: Tid) -> String {
        let name = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
        name.unwrap_or_default().trim_end().to_string()
    }
    fn with_registers(
        &mut self,
        tid: Tid,
        changes: bool,
        f: &mut dyn FnMut(&mut CpuState),
    ) -> bool {
        let mut inner = self.debugger.lock();
        match inner.threads.get_mut(&tid) {
            // Only a client that breaks the protocol asks.
            Some(slot) if slot.place == Place::Running => false,
            // The system call goes on with what it was given.
            Some(slot) if changes && slot.place != Place::Parked => false,
            Some(slot) => {
                f(&mut slot.registers);
                slot.changed |= changes;
                true
            }
            None => false,
        }
    }
    fn system_call(&self, tid: Tid) -> Option<u64> {
        self.debugger.lock().threads.get(&tid)?.call
    }
    fn read_memory(&mut self, _: Tid, va: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        for (at, len, _) in self.mapped(va, out.len()) {
            let n = self.process.space.copy_in_partial(GuestVa(at), &mut out[done..done + len]);
            done += n;
            if n < len {
                break;
            }
        }
        done
    }
    fn write_memory(&mut self, _: Tid, va: u64, data: &[u8]) -> bool {
        let space = &self.process.space;
        let parts = self.mapped(va, data.len());
        if parts.iter().map(|p| p.1).sum::<usize>() < data.len() {
            return false;
        }
        let mut rest = data;
        for (at, len, prot) in parts {
            let (now, later) = rest.split_at(len);
            rest = later;
            let start = GuestVa(at & !(PAGE - 1));
            let bytes = (at + len as u64).next_multiple_of(PAGE) - start.0;
            let locked = prot & WRITE == 0;
            if locked && space.protect(start, bytes, prot | WRITE).is_err() {
                return false;
            }
            let done = space.copy_out(GuestVa(at), now).is_ok();
            if locked {
                let _ = space.protect(start, bytes, prot);
            }
            self.process.engine.invalidate(GuestVa(at), len as u64);
            if !done {
                return false;
            }
        }
        true
    }
    fn set_breakpoint(&mut self, va: u64) {
        self.process.engine.set_breakpoint(GuestVa(va));
    }
    fn clear_breakpoint(&mut self, va: u64) -> bool {
        self.process.engine.clear_breakpoint(GuestVa(va))
    }
    fn set_watch(&mut self, watch: Watchpoint) -> bool {
        if watch.len == 0 || self.mapped(watch.start.0, 1).is_empty() {
            return false;
        }
        self.process.engine.set_watchpoint(watch);
        true
    }
    fn clear_watch(&mut self, watch: Watchpoint) -> bool {
        self.process.engine.clear_watchpoint(watch)
    }
    fn catch_syscalls(&mut self, catch: Catch) {
        self.debugger.set_catch(catch);
    }

    fn resume(&mut self, rest: Action, actions: &[(Tid, Action)]) {
        self.debugger.resume(rest, actions);
    }
    fn stop(&mut self) -> Tid {
        let mut inner = self.debugger.stop_all();
        inner.attached = true;
        if !inner.threads.contains_key(&inner.current) {
            inner.current = inner.threads.keys().next().copied().unwrap_or(0);
        }
        inner.current
    }
    fn poll(&mut self) -> Option<Stop> {
        self.debugger.poll()
    }
    fn event_fd(&self) -> BorrowedFd<'_> {
        self.debugger.woken().as_fd()
    }
    fn detach(&mut self) {
        self.clear();
        // Signals that were about to be delivered are, as when gdb detaches from a process of the host.
        let mut signals = Vec::new();
        for (tid, slot) in &mut self.debugger.lock().threads {
            slot.event = None;
            signals.push((*tid, Action { go: Go::Run, signal: slot.signal }));
        }
        self.debugger.resume(Action { go: Go::Run, signal: 0 }, &signals);
    }
    fn forsaken(&mut self) {
        self.clear();
    }
    fn kill(&mut self) {
        let _ = sys!(SYS_kill, std::process::id(), libc::SIGKILL);
    }
    fn end_told(&mut self) {
        self.debugger.end_told();
    }
    fn adopt_fd(&mut self, fd: BorrowedFd<'_>) {
        hide(&self.process, &fd);
    }
    fn forget_fd(&mut self, fd: BorrowedFd<'_>) {
        self.process.show_fd(fd.as_raw_fd());
        self.debugger.drop_fd(fd.as_raw_fd());
    }

    fn auxv(&self) -> Option<Vec<u8>> {
        Some(self.process.image().stack.auxv)
    }
    fn exec_file(&self) -> Option<Vec<u8>> {
        Some(self.process.exe().into_os_string().as_bytes().to_vec())
    }
    fn siginfo(&self) -> Option<Vec<u8>> {
        let inner = self.debugger.lock();
        let slot = inner.threads.get(&inner.current).filter(|slot| slot.signal != 0)?;
        Some(slot.siginfo.clone())
    }
    fn open(&self, path: &[u8]) -> std::io::Result<File> {
        let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let name = CString::new(path).map_err(invalid)?;
        if let Some(file) = ProcFile::named(libc::AT_FDCWD, &name)
            && file != ProcFile::Exe
        {
            return Ok(File::Content(file.content(&self.process)));
        }
        let path = Path::new(OsStr::from_bytes(path));
        // The program itself, wherever it came from.
        let host = match path == self.process.exe() {
            true => self.process.exe_host_path(),
            false => self.process.paths.host_path(path),
        };
        std::fs::File::open(host).map(File::Host)
    }
    fn read_link(&self, path: &[u8]) -> std::io::Result<Vec<u8>> {
        let path = self.process.paths.host_path(Path::new(OsStr::from_bytes(path)));
        Ok(std::fs::read_link(path)?.into_os_string().as_bytes().to_vec())
    }
    fn monitor(&mut self, command: &str) -> Option<String> {
        Some(match command {
            "" => MONITOR.into(),
            "info tb" => self.process.engine.stats().to_string(),
            "info maps" => {
                String::from_utf8_lossy(&crate::proc_files::maps(&self.process)).into_owned()
            }
            "info registers" => {
                let inner = self.debugger.lock();
                let slot = inner.threads.get(&inner.current)?;
                let mut text = format!("pc {:#x}\n", slot.registers.pc());
                for def in self.process.engine.isa.layout().slots() {
                    let value = match def.ty.bytes() {
                        16 => slot.registers.get128(def.cell),
                        _ => slot.registers.get(def.cell) as u128,
                    };
                    text.push_str(&format!("{} {value:#x}\n", def.name));
                }
                text
            }
            _ => return None,
        })
    }
}
