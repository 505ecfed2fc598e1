//! What a client sends, whatever it is, ends at most the session: seeded mutations of real packets, fed to the whole
//! stub with a guest behind it that checks what is asked of it.

#[path = "../../tests/support/packets.rs"]
mod packets;

use packets::{Spoiler, packet};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use tulk_base::CpuState;
use tulk_frontend::debug::Registers;
use tulk_gdb::server::{Client, End, session};
use tulk_gdb::*;
use tulk_ir::{RegLayout, Type};

struct Guest {
    registers: Registers,
    state: Box<CpuState>,
    memory: Vec<u8>,
    wake: (UnixStream, UnixStream),
    running: bool,
}

impl Guest {
    fn new() -> Guest {
        let mut layout = RegLayout::new();
        layout.add("r0", Type::I64, Some(0));
        layout.add("v0", Type::V128, Some(1));
        Guest {
            registers: Registers::plain(&layout),
            state: CpuState::new(),
            memory: vec![0; 4096],
            wake: UnixStream::pair().unwrap(),
            running: false,
        }
    }
}

impl Debuggee for Guest {
    fn registers(&self) -> &Registers {
        &self.registers
    }
    fn pid(&self) -> u32 {
        7
    }
    fn threads(&self) -> Vec<Tid> {
        vec![7, 8]
    }
    fn thread_name(&self, tid: Tid) -> String {
        format!("thread {tid}")
    }
    fn with_registers(&mut self, tid: Tid, _: bool, f: &mut dyn FnMut(&mut CpuState)) -> bool {
        let known = !self.running && (tid == 7 || tid == 8);
        if known {
            f(&mut self.state);
        }
        known
    }
    fn system_call(&self, _: Tid) -> Option<u64> {
        None
    }
    fn read_memory(&mut self, _: Tid, va: u64, out: &mut [u8]) -> usize {
        let rest = self.memory.get(va as usize..).unwrap_or_default();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        n
    }
    fn write_memory(&mut self, _: Tid, va: u64, data: &[u8]) -> bool {
        let end = (va as usize).checked_add(data.len());
        let place = end.and_then(|end| self.memory.get_mut(va as usize..end));
        place.map(|p| p.copy_from_slice(data)).is_some()
    }
    fn set_breakpoint(&mut self, _: u64) {}
    fn clear_breakpoint(&mut self, _: u64) -> bool {
        true
    }
    fn set_watch(&mut self, _: Watchpoint) -> bool {
        true
    }
    fn clear_watch(&mut self, _: Watchpoint) -> bool {
        true
    }
    fn resume(&mut self, _: Action, _: &[(Tid, Action)]) {
        self.running = true;
    }
    fn stop(&mut self) -> Tid {
        self.running = false;
        7
    }
    fn poll(&mut self) -> Option<Stop> {
        self.running = false;
        Some(Stop::Stepped(8))
    }
    fn event_fd(&self) -> BorrowedFd<'_> {
        self.wake.0.as_fd()
    }
    fn detach(&mut self) {}
    fn forsaken(&mut self) {}
    fn kill(&mut self) {}
    fn auxv(&self) -> Option<Vec<u8>> {
        Some(vec![1; 40])
    }
    fn exec_file(&self) -> Option<Vec<u8>> {
        Some(b"/program".to_vec())
    }
    fn open(&self, _: &[u8]) -> io::Result<File> {
        Ok(File::Content(vec![9; 1000]))
    }
    fn monitor(&mut self, _: &str) -> Option<String> {
        Some("text\n".into())
    }
}

/// Sends `input` in one piece; while the guest runs it stops by itself every other time.
struct Script {
    input: Vec<u8>,
    out: Vec<u8>,
    turn: usize,
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
        let n = self.input.len().min(buf.len()).min(100);
        buf[..n].copy_from_slice(&self.input[..n]);
        self.input.drain(..n);
        Ok(Some(n))
    }
}

const BODIES: &[&[u8]] = &[
    b"qSupported:multiprocess+;swbreak+;hwbreak+",
    b"?",
    b"Hgp7.7",
    b"Hg0",
    b"g",
    b"p0",
    b"p2",
    b"p63",
    b"P0=1122334455667788",
    b"P1=00",
    b"G0011",
    b"m0,10",
    b"mfff,ffff",
    b"mffffffffffffffff,10",
    b"M0,2:aabb",
    b"X0,2:ab",
    b"Z0,10,4",
    b"z0,10,4",
    b"Z2,0,ffffffffffffffff",
    b"z2,0,8",
    b"Z9,1,1",
    b"vCont?",
    b"vCont;c",
    b"vCont;s:p7.7;c",
    b"vCont;r0,ffff:p7.8",
    b"vCont;C0b:p7.7;c",
    b"c",
    b"s",
    b"qXfer:features:read:target.xml:0,ffb",
    b"qXfer:features:read:x:ffffffffffffffff,ffff",
    b"qXfer:auxv:read::0,1000",
    b"qXfer:exec-file:read:7:0,100",
    b"vFile:open:2f78,0,0",
    b"vFile:pread:0,fffff,0",
    b"vFile:pread:0,10,ffffffffffffffff",
    b"vFile:fstat:0",
    b"vFile:close:0",
    b"vFile:readlink:2f78",
    b"vFile:setfs:0",
    b"qfThreadInfo",
    b"qThreadExtraInfo,p7.7",
    b"Tp7.9",
    b"QCatchSyscalls:1;1;2",
    b"QCatchSyscalls:0",
    b"qRcmd,68656c70",
    b"QStartNoAckMode",
    b"vRun;;",
    b"vAttach;7",
    b"!",
];

fn talk(input: Vec<u8>) -> (End, Vec<u8>) {
    let mut script = Script { input, out: Vec::new(), turn: 0 };
    let end = session(&mut Guest::new(), &mut script, None);
    (end, script.out)
}

#[test]
fn packets_are_answered() {
    for body in BODIES {
        let (end, out) = talk([packet(body), packet(b"D;7")].concat());
        assert!(out.contains(&b'$'), "{}", String::from_utf8_lossy(body));
        assert!(matches!(end, End::Detached | End::Lost), "{}", String::from_utf8_lossy(body));
    }
    let (end, out) = talk([packet(b"g"), packet(b"vKill;7")].concat());
    assert_eq!(end, End::Killed);
    assert!(String::from_utf8_lossy(&out).ends_with("OK#9a"));
}

#[test]
fn garbage() {
    let mut spoiler = Spoiler::new();
    for _ in 0..20_000 {
        let mut input = Vec::new();
        for _ in 0..1 + spoiler.below(6) {
            input.extend(spoiler.packet(BODIES, 4));
            if spoiler.below(8) == 0 {
                input.push([3, b'+', b'-', 0xff][spoiler.below(4)]);
            }
        }
        talk(input);
    }
}
