//! A guest that checks what the stub asks of it, and a client that sends what it is given. For the tests of this crate and for `fuzz/`.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use tulk_base::CpuState;
use tulk_frontend::debug::Registers;
use tulk_gdb::server::{Client, End, session};
use tulk_gdb::{Action, Debuggee, File, Stop, Tid, Watchpoint};

const PID: Tid = 7;

struct Guest {
    registers: Registers,
    state: Box<CpuState>,
    memory: Vec<u8>,
    auxv: Vec<u8>,
    wake: (UnixStream, UnixStream),
    running: bool,
    breakpoints: usize,
}

impl Debuggee for Guest {
    fn registers(&self) -> &Registers {
        &self.registers
    }
    fn pid(&self) -> u32 {
        PID
    }
    fn threads(&self) -> Vec<Tid> {
        vec![PID, PID + 1]
    }
    fn thread_name(&self, tid: Tid) -> String {
        format!("thread {tid}")
    }
    fn with_registers(&mut self, tid: Tid, _: bool, f: &mut dyn FnMut(&mut CpuState)) -> bool {
        let known = !self.running && self.threads().contains(&tid);
        if known {
            f(&mut self.state);
        }
        known
    }
    fn system_call(&self, tid: Tid) -> Option<u64> {
        (tid == PID).then_some(64)
    }
    fn read_memory(&mut self, _: Tid, va: u64, out: &mut [u8]) -> usize {
        let rest = usize::try_from(va).ok().and_then(|va| self.memory.get(va..));
        let rest = rest.unwrap_or_default();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        n
    }
    fn write_memory(&mut self, _: Tid, va: u64, data: &[u8]) -> bool {
        assert!(!self.running, "memory is written while the guest runs");
        let end = (va as usize).checked_add(data.len());
        let place = end.and_then(|end| self.memory.get_mut(va as usize..end));
        place.map(|p| p.copy_from_slice(data)).is_some()
    }
    fn set_breakpoint(&mut self, _: u64) {
        self.breakpoints += 1;
    }
    fn clear_breakpoint(&mut self, _: u64) -> bool {
        let any = self.breakpoints > 0;
        self.breakpoints -= any as usize;
        any
    }
    fn set_watch(&mut self, watch: Watchpoint) -> bool {
        watch.len != 0
    }
    fn clear_watch(&mut self, _: Watchpoint) -> bool {
        false
    }
    fn resume(&mut self, _: Action, actions: &[(Tid, Action)]) {
        assert!(actions.iter().all(|(_, action)| (0..=64).contains(&action.signal)));
        self.running = true;
    }
    fn stop(&mut self) -> Tid {
        self.running = false;
        PID
    }
    fn poll(&mut self) -> Option<Stop> {
        self.running = false;
        Some(Stop::Breakpoint(PID + 1))
    }
    fn event_fd(&self) -> BorrowedFd<'_> {
        self.wake.0.as_fd()
    }
    fn detach(&mut self) {}
    fn forsaken(&mut self) {}
    fn kill(&mut self) {}
    fn auxv(&self) -> Option<Vec<u8>> {
        Some(self.auxv.clone())
    }
    fn exec_file(&self) -> Option<Vec<u8>> {
        Some(b"/program".to_vec())
    }
    fn siginfo(&self) -> Option<Vec<u8>> {
        (!self.running).then(|| b"$#}*siginfo".to_vec())
    }
    fn open(&self, path: &[u8]) -> io::Result<File> {
        Ok(File::Content(path.repeat(200)))
    }
    fn monitor(&mut self, command: &str) -> Option<String> {
        (command != "x").then(|| format!("{command}\n"))
    }
    fn vendor(&mut self, packet: &str) -> Option<String> {
        packet.contains("sstep").then(|| "0x7".into())
    }
}

/// Sends everything; while the guest runs it stops by itself every other time.
struct Script {
    input: Vec<u8>,
    turn: usize,
    out: Vec<u8>,
}

impl Write for Script {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client for &mut Script {
    fn receive(
        &mut self,
        buf: &mut [u8],
        guest: Option<BorrowedFd<'_>>,
    ) -> io::Result<Option<usize>> {
        self.turn += 1;
        if guest.is_some() && self.turn.is_multiple_of(2) {
            return Ok(None);
        }
        let n = self.input.len().min(buf.len()).min(1 + self.turn % 90);
        buf[..n].copy_from_slice(&self.input[..n]);
        self.input.drain(..n);
        Ok(Some(n))
    }
}

/// A session in which the client sends `input`: how it ended, and what was answered. `os` as [`session`] has it.
pub fn talk(
    registers: Registers,
    memory: Vec<u8>,
    auxv: Vec<u8>,
    os: Option<&str>,
    input: Vec<u8>,
) -> (End, Vec<u8>) {
    let mut guest = Guest {
        registers,
        state: CpuState::new(),
        memory,
        auxv,
        wake: UnixStream::pair().expect("a pair of sockets"),
        running: false,
        breakpoints: 0,
    };
    let mut script = Script { input, turn: 0, out: Vec::new() };
    let end = session(&mut guest, &mut script, os);
    (end, script.out)
}
