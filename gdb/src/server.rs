//! The session: `gdbstub`'s state machine between a client and a [`Debuggee`].

use crate::extension::{Packets, Renamed, SIGINFO_FEATURE, Vendor};
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
    let mut packets = Packets::new(client);
    packets.features = if target.has_siginfo() { SIGINFO_FEATURE } else { "" };
    let built = GdbStub::builder(packets).packet_buffer_size(PACKET).build();
    let Ok(mut machine) =
        built.map_err(drop).and_then(|s| s.run_state_machine(target).map_err(drop))
    else {
        return End::Lost;
    };
    let mut buf = [0; 4096];
    let (mut input, mut at) = (Vec::new(), 0);
    let (mut vendor, mut renamed) = (Vendor::default(), Renamed::default());
    loop {
        let next = match machine {
            Machine::Idle(mut idle) => {
                if at == input.len() {
                    let conn = idle.borrow_conn();
                    if conn.flush().is_err() {
                        return End::Lost;
                    }
                    match conn.stream.receive(&mut buf, None) {
                        Ok(Some(n)) if n > 0 => (input, at) = (renamed.pass(&buf[..n]), 0),
                        _ => return End::Lost,
                    }
                    machine = idle.into();
                    continue;
                }
                at += 1;
                if let Some(packet) = vendor.take(input[at - 1]) {
                    idle.borrow_conn().answer = target.guest.vendor(&packet);
                }
                idle.incoming_data(target, input[at - 1])
            }
            Machine::Running(mut running) => {
                if at == input.len() {
                    let conn = running.borrow_conn();
                    if conn.flush().is_err() {
                        return End::Lost;
                    }
                    match conn.stream.receive(&mut buf, Some(target.guest.event_fd())) {
                        Ok(Some(n)) if n > 0 => (input, at) = (renamed.pass(&buf[..n]), 0),
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
                    machine = running.into();
                    continue;
                }
                at += 1;
                running.incoming_data(target, input[at - 1])
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
