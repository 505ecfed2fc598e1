//! The session: `gdbstub`'s state machine between a client and a [`Debuggee`].

use crate::listen::{Listener, Stream, wait};
use crate::target::Debugged;
use crate::{Debuggee, Stop, WatchKind};
use gdbstub::common::{Signal, Tid};
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine as Machine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use gdbstub::target::ext::breakpoints::WatchKind as StubWatch;
use gdbstub::target::ext::catch_syscalls::CatchSyscallPosition;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of the largest packet.
const PACKET: usize = 32 << 10;

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Detached,
    Killed,
    /// The guest has ended, and the client knows.
    GuestEnded,
    /// The connection broke, or carried what is no packet.
    Lost,
}

/// Linux's signal numbers in GDB's order (include/gdb/signals.def): GDB's number of each from 1 on.
const SIGNALS: [u8; 31] = [
    1, 2, 3, 4, 5, 6, 10, 8, 9, 30, 11, 31, 13, 14, 15, 143, 20, 19, 17, 18, 21, 22, 16, 24, 25,
    26, 27, 28, 23, 32, 12,
];

/// GDB's signal for a guest's (Linux) number.
pub fn signal_of(number: i32) -> Signal {
    match number {
        1..=31 => Signal(SIGNALS[number as usize - 1]),
        32 => Signal::SIG32,
        33..=63 => Signal(45 + (number - 33) as u8),
        64 => Signal::SIG64,
        _ => Signal::UNKNOWN,
    }
}

/// The guest's number for GDB's signal; 0 when there is none.
pub fn guest_signal(signal: Signal) -> i32 {
    (1..=64).find(|&n| signal_of(n) == signal).unwrap_or(0)
}

/// A connection that writes whole packets.
pub struct Packets<S> {
    stream: S,
    out: Vec<u8>,
    /// What goes out instead of the next packet, if that is the empty one: `gdbstub` did not know the question.
    answer: Option<String>,
}

/// The empty packet.
const UNKNOWN: &[u8] = b"$#00";

impl<S: Write> Packets<S> {
    pub fn new(stream: S) -> Packets<S> {
        Packets { stream, out: Vec::new(), answer: None }
    }
}

impl<S: Write> Connection for Packets<S> {
    type Error = io::Error;
    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.out.push(byte);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        if let Some(answer) = self.answer.take_if(|_| self.out.contains(&b'$'))
            && self.out.ends_with(UNKNOWN)
        {
            self.out.truncate(self.out.len() - UNKNOWN.len());
            let sum = answer.bytes().fold(0u8, u8::wrapping_add);
            self.out.extend(format!("${answer}#{sum:02x}").bytes());
        }
        let result = self.stream.write_all(&self.out);
        self.out.clear();
        result
    }
}

/// Looks at what comes in for packets of an emulator's own.
#[derive(Default)]
struct Vendor {
    /// From the `$` on.
    packet: Vec<u8>,
}

/// How such packets begin, and the longest one.
const VENDOR: [&[u8]; 2] = [b"$qqemu.", b"$Qqemu."];
const VENDOR_LEN: usize = 64;

impl Vendor {
    /// The packet that ends with this byte, without its frame.
    fn take(&mut self, byte: u8) -> Option<String> {
        if byte == b'$' {
            self.packet.clear();
        } else if self.packet.is_empty() {
            return None;
        }
        self.packet.push(byte);
        let len = self.packet.len();
        let begins = |name: &&[u8]| self.packet.iter().zip(*name).all(|(a, b)| a == b);
        if len > VENDOR_LEN || !VENDOR.iter().any(begins) {
            self.packet.clear();
            return None;
        }
        let body = self.packet.get(1..len.checked_sub(3)?)?;
        let (b'#', [high, low]) =
            (self.packet[len - 3], [self.packet[len - 2], self.packet[len - 1]])
        else {
            return None;
        };
        let digit = |b: u8| (b as char).to_digit(16);
        let sum = body.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        let good = Some(sum as u32) == Some(digit(high)? << 4 | digit(low)?);
        let body = String::from_utf8(body.to_vec()).ok().filter(|_| good);
        self.packet.clear();
        body
    }
}

/// Bytes from a client and word of the guest.
pub trait Client: Write {
    /// Waits for bytes, or, when `guest` is given, until that is readable: then `Ok(None)`. `Ok(Some(0))` is the end.
    fn receive(
        &mut self,
        buf: &mut [u8],
        guest: Option<BorrowedFd<'_>>,
    ) -> io::Result<Option<usize>>;
}

impl Client for Stream {
    fn receive(
        &mut self,
        buf: &mut [u8],
        guest: Option<BorrowedFd<'_>>,
    ) -> io::Result<Option<usize>> {
        if let Some(guest) = guest {
            let (bytes, event) = wait(self.as_fd(), guest)?;
            if event && !bytes {
                return Ok(None);
            }
        }
        loop {
            match self.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(Some),
            }
        }
    }
}

fn reason(stop: Stop) -> MultiThreadStopReason<u64> {
    use MultiThreadStopReason as Reason;
    let tid = |t: u32| Tid::new(t as usize).unwrap_or(Tid::MIN);
    match stop {
        Stop::Stepped(t) => Reason::SignalWithThread { tid: tid(t), signal: Signal::SIGTRAP },
        Stop::Breakpoint(t) => Reason::SwBreak(tid(t)),
        Stop::Watch(t, kind, addr) => {
            let kind = match kind {
                WatchKind::Write => StubWatch::Write,
                WatchKind::Read => StubWatch::Read,
                WatchKind::Access => StubWatch::ReadWrite,
            };
            Reason::Watch { tid: tid(t), kind, addr }
        }
        Stop::Signal(t, number) => {
            Reason::SignalWithThread { tid: tid(t), signal: signal_of(number) }
        }
        Stop::SyscallEntry(t, number) => Reason::CatchSyscall {
            tid: Some(tid(t)),
            number,
            position: CatchSyscallPosition::Entry,
        },
        Stop::SyscallReturn(t, number) => Reason::CatchSyscall {
            tid: Some(tid(t)),
            number,
            position: CatchSyscallPosition::Return,
        },
        Stop::Exited(code) => Reason::Exited(code),
        Stop::Killed(number) => Reason::Terminated(signal_of(number)),
    }
}

/// Serves one client. The guest is stopped; afterwards it is as [`End`] says.
pub fn session<C: Client>(guest: &mut dyn Debuggee, client: C, osabi: Option<&str>) -> End {
    let mut target = Debugged::new(guest, osabi);
    target.stopped();
    let end = converse(&mut target, client);
    if target.was_killed() { End::Killed } else { end }
}

fn converse<C: Client>(target: &mut Debugged<'_>, client: C) -> End {
    let built = GdbStub::builder(Packets::new(client)).packet_buffer_size(PACKET).build();
    let Ok(mut machine) =
        built.map_err(drop).and_then(|s| s.run_state_machine(target).map_err(drop))
    else {
        return End::Lost;
    };
    let mut buf = [0; 4096];
    let (mut at, mut len) = (0, 0);
    let mut vendor = Vendor::default();
    loop {
        let next = match machine {
            Machine::Idle(mut idle) => {
                if at == len {
                    let conn = idle.borrow_conn();
                    if conn.flush().is_err() {
                        return End::Lost;
                    }
                    match conn.stream.receive(&mut buf, None) {
                        Ok(Some(n)) if n > 0 => (at, len) = (0, n),
                        _ => return End::Lost,
                    }
                }
                at += 1;
                if let Some(packet) = vendor.take(buf[at - 1]) {
                    idle.borrow_conn().answer = target.guest.vendor(&packet);
                }
                idle.incoming_data(target, buf[at - 1])
            }
            Machine::Running(mut running) => {
                if at == len {
                    let conn = running.borrow_conn();
                    if conn.flush().is_err() {
                        return End::Lost;
                    }
                    match conn.stream.receive(&mut buf, Some(target.guest.event_fd())) {
                        Ok(Some(n)) if n > 0 => (at, len) = (0, n),
                        Ok(None) => {
                            let Some(stop) = target.guest.poll() else {
                                machine = running.into();
                                continue;
                            };
                            target.stopped();
                            let ended = matches!(stop, Stop::Exited(_) | Stop::Killed(_));
                            let result = running.report_stop(target, reason(stop));
                            if ended {
                                return End::GuestEnded;
                            }
                            match result {
                                Ok(next) => machine = next,
                                Err(_) => return End::Lost,
                            }
                            continue;
                        }
                        _ => return End::Lost,
                    }
                }
                at += 1;
                running.incoming_data(target, buf[at - 1])
            }
            Machine::CtrlCInterrupt(interrupt) => {
                let tid = target.guest.stop();
                target.stopped();
                let tid = Tid::new(tid as usize).unwrap_or(Tid::MIN);
                let signal = Signal::SIGINT;
                let reason = MultiThreadStopReason::SignalWithThread { tid, signal };
                interrupt.interrupt_handled(target, Some(reason))
            }
            Machine::Disconnected(mut gone) => {
                let _ = gone.borrow_conn().flush();
                return match gone.get_reason() {
                    DisconnectReason::Disconnect => End::Detached,
                    DisconnectReason::Kill => End::Killed,
                    DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_) => {
                        End::GuestEnded
                    }
                };
            }
        };
        match next {
            Ok(next) => machine = next,
            Err(error) => {
                tracing::debug!(%error, "the debugger's session ends");
                return End::Lost;
            }
        }
    }
}

/// Serves clients, one after the other, until the guest ends.
pub fn serve(guest: &mut dyn Debuggee, listener: &Listener, osabi: Option<&str>) {
    loop {
        let (client, event) = match wait(listener.as_fd(), guest.event_fd()) {
            Ok(which) => which,
            Err(_) => return,
        };
        if event && !client {
            // It ends, and nobody asks.
            if let Some(Stop::Exited(_) | Stop::Killed(_)) = guest.poll() {
                guest.end_told();
                return;
            }
            continue;
        }
        let Ok(stream) = listener.accept() else { continue };
        guest.adopt_fd(stream.as_fd());
        let fd = stream.as_fd().try_clone_to_owned();
        guest.stop();
        let end = session(guest, stream, osabi);
        drop(fd);
        match end {
            End::Detached => guest.detach(),
            End::Lost => guest.forsaken(),
            End::Killed => {
                guest.kill();
                return;
            }
            End::GuestEnded => {
                guest.end_told();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_an_emulator() {
        let taken = |input: &[u8]| {
            let mut vendor = Vendor::default();
            input.iter().filter_map(|&b| vendor.take(b)).collect::<Vec<_>>()
        };
        assert_eq!(taken(b"$g#67+$qqemu.sstep#2a$qqemu.sstep#2b"), [0; 0].map(|_: i32| ""));
        let sum = |body: &str| body.bytes().fold(0u8, u8::wrapping_add);
        let packet = |body: &str| format!("${body}#{:02x}", sum(body));
        let both = ["qqemu.sstep", "Qqemu.PhyMemMode:1"];
        let input = format!("+{}${}{}", packet(both[0]), packet("m0,4"), packet(both[1]));
        assert_eq!(taken(input.as_bytes()), both);
        let mut out = Packets::new(Vec::new());
        out.answer = Some("1".into());
        for text in [&b"+"[..], b"$#00", b"$#00"] {
            text.iter().for_each(|&b| out.write(b).unwrap());
            out.flush().unwrap();
        }
        assert_eq!(out.stream, b"+$1#31$#00");
        out.answer = Some("1".into());
        b"$OK#9a".iter().for_each(|&b| out.write(b).unwrap());
        out.flush().unwrap();
        assert!(out.stream.ends_with(b"$OK#9a") && out.answer.is_none());
    }

    #[test]
    fn signals_there_and_back() {
        for n in (1..=64).filter(|&n| n != 16) {
            assert_eq!(guest_signal(signal_of(n)), n);
        }
        assert_eq!(signal_of(10), Signal::SIGUSR1);
        assert_eq!(signal_of(11), Signal::SIGSEGV);
        assert_eq!(signal_of(17), Signal::SIGCHLD);
        assert_eq!(guest_signal(Signal::SIGTRAP), 5);
        assert_eq!(guest_signal(Signal(0)), 0);
    }
}
