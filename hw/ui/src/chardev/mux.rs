//! Several users on one backend, the serial port and the monitor on a terminal usually: [`Mux`].
//!
//! All write; input goes to the one in focus. Ctrl-A and a letter are commands, as QEMU has them.

use crate::{CharBackend, CharSink};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Ctrl-A.
const ESCAPE: u8 = 1;
/// Bytes that wait for a user who has no room, before the backend is held.
const PENDING: usize = 4096;

const HELP: &[u8] = b"\r\n\
C-a h    print this help\r\n\
C-a x    exit the machine\r\n\
C-a s    save disk data to the images\r\n\
C-a b    send break\r\n\
C-a c    switch between console and monitor\r\n\
C-a C-a  send C-a\r\n";

/// What a user of the terminal wants of the whole machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MuxCommand {
    /// Ctrl-A x.
    Quit,
    /// Ctrl-A s: write the disks' caches out.
    Sync,
}

#[derive(Default)]
struct User {
    sink: Option<Arc<dyn CharSink>>,
    pending: Vec<u8>,
}

#[derive(Default)]
struct State {
    users: Vec<User>,
    focus: usize,
    escaped: bool,
}

struct Shared {
    /// Users own the backend, so that it ends with them and on their thread: the terminal is given back before the
    /// process ends, whatever the backend's thread does in here.
    backend: Weak<dyn CharBackend>,
    state: Mutex<State>,
    command: Box<dyn Fn(MuxCommand) + Send + Sync>,
}

/// Shares a backend.
pub struct Mux {
    shared: Arc<Shared>,
    backend: Arc<dyn CharBackend>,
}

/// A user's end of a [`Mux`].
struct Port {
    shared: Arc<Shared>,
    backend: Arc<dyn CharBackend>,
    index: usize,
}

/// The backend's end. It does not keep the backend alive, which holds it.
struct Input(Weak<Shared>);

impl Mux {
    /// `command` is called from the backend's thread.
    pub fn new(
        backend: Arc<dyn CharBackend>,
        command: impl Fn(MuxCommand) + Send + Sync + 'static,
    ) -> Mux {
        let shared = Arc::new(Shared {
            backend: Arc::downgrade(&backend),
            state: Mutex::default(),
            command: Box::new(command),
        });
        backend.connect(Arc::new(Input(Arc::downgrade(&shared))));
        Mux { shared, backend }
    }

    /// One user more. The first one has the focus.
    pub fn port(&self) -> Arc<dyn CharBackend> {
        let mut state = self.shared.state.lock();
        state.users.push(User::default());
        let (shared, backend) = (self.shared.clone(), self.backend.clone());
        Arc::new(Port { shared, backend, index: state.users.len() - 1 })
    }
}

impl CharBackend for Port {
    fn write(&self, bytes: &[u8]) {
        self.backend.write(bytes);
    }
    fn connect(&self, sink: Arc<dyn CharSink>) {
        self.shared.state.lock().users[self.index].sink = Some(sink);
        self.backend.ready();
    }
    fn ready(&self) {
        self.backend.ready();
    }
    fn describe(&self) -> String {
        format!("mux:{}", self.backend.describe())
    }
    fn flush(&self) {
        self.backend.flush();
    }
}

impl Shared {
    /// Gives the user in focus what waits for it. Called from the backend's thread only, so nothing overtakes.
    fn deliver(&self) {
        let (sink, mut bytes, focus) = {
            let mut state = self.state.lock();
            let focus = state.focus;
            let Some(user) = state.users.get_mut(focus) else { return };
            (user.sink.clone(), std::mem::take(&mut user.pending), focus)
        };
        // Not under the lock: the device's lock is taken in there.
        if let Some(sink) = sink {
            while !bytes.is_empty() {
                let taken = sink.receive(&bytes).min(bytes.len());
                if taken == 0 {
                    break;
                }
                bytes.drain(..taken);
            }
        }
        self.state.lock().users[focus].pending = bytes;
    }

    /// One byte behind Ctrl-A.
    fn escape(&self, byte: u8) {
        match byte {
            b'h' | b'?' => {
                if let Some(backend) = self.backend.upgrade() {
                    backend.write(HELP);
                }
            }
            b'x' => (self.command)(MuxCommand::Quit),
            b's' => (self.command)(MuxCommand::Sync),
            b'b' => {
                let state = self.state.lock();
                let sink = state.users.get(state.focus).and_then(|user| user.sink.clone());
                drop(state);
                if let Some(sink) = sink {
                    sink.line_break();
                }
            }
            b'c' => {
                let mut state = self.state.lock();
                state.focus = (state.focus + 1) % state.users.len().max(1);
            }
            ESCAPE => drop(self.push(ESCAPE)),
            _ => {}
        }
    }

    /// False: too much waits for the user in focus.
    fn push(&self, byte: u8) -> bool {
        let mut state = self.state.lock();
        let focus = state.focus;
        let Some(user) = state.users.get_mut(focus) else { return true };
        let room = user.pending.len() < PENDING;
        if room {
            user.pending.push(byte);
        }
        room
    }
}

impl CharSink for Input {
    /// Reads on up to [`PENDING`] bytes behind what the user in focus has taken, so that Ctrl-A works when it hangs.
    fn receive(&self, bytes: &[u8]) -> usize {
        let Some(shared) = self.0.upgrade() else { return bytes.len() };
        shared.deliver();
        for (count, &byte) in bytes.iter().enumerate() {
            let escaped = std::mem::replace(&mut shared.state.lock().escaped, false);
            if escaped {
                shared.deliver();
                shared.escape(byte);
            } else if byte == ESCAPE {
                shared.state.lock().escaped = true;
            } else if !shared.push(byte) {
                shared.deliver();
                if !shared.push(byte) {
                    return count;
                }
            }
        }
        shared.deliver();
        bytes.len()
    }
    fn resume(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.deliver();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Backend {
        written: Mutex<Vec<u8>>,
        sink: Mutex<Option<Arc<dyn CharSink>>>,
    }

    impl Backend {
        fn type_in(&self, bytes: &[u8]) -> usize {
            let sink = self.sink.lock().clone().unwrap();
            sink.resume();
            sink.receive(bytes)
        }
    }

    impl CharBackend for Backend {
        fn write(&self, bytes: &[u8]) {
            self.written.lock().extend_from_slice(bytes);
        }
        fn connect(&self, sink: Arc<dyn CharSink>) {
            *self.sink.lock() = Some(sink);
        }
        fn ready(&self) {}
        fn describe(&self) -> String {
            "test".into()
        }
    }

    struct Taker {
        got: Mutex<Vec<u8>>,
        room: Mutex<usize>,
        breaks: Mutex<u32>,
    }

    impl Taker {
        fn new(room: usize) -> Arc<Taker> {
            Arc::new(Taker {
                got: Mutex::default(),
                room: Mutex::new(room),
                breaks: Mutex::default(),
            })
        }
    }

    impl CharSink for Taker {
        fn receive(&self, bytes: &[u8]) -> usize {
            let mut room = self.room.lock();
            let taken = bytes.len().min(*room);
            *room -= taken;
            self.got.lock().extend_from_slice(&bytes[..taken]);
            taken
        }
        fn line_break(&self) {
            *self.breaks.lock() += 1;
        }
    }

    #[test]
    fn commands_reach_whom_they_are_for() {
        let backend = Arc::new(Backend::default());
        let commands = Arc::new(Mutex::new(Vec::new()));
        let mux = Mux::new(backend.clone(), {
            let commands = commands.clone();
            move |command| commands.lock().push(command)
        });
        let (serial, monitor) = (Taker::new(1000), Taker::new(1000));
        let ports = [mux.port(), mux.port()];
        ports[0].connect(serial.clone());
        ports[1].connect(monitor.clone());
        backend.type_in(b"ls\x01");
        backend.type_in(b"cinfo\x01\x01\x01ccat\x01b\x01x\x01s\x01z\x01h");
        assert_eq!(*serial.got.lock(), b"lscat");
        assert_eq!(*monitor.got.lock(), b"info\x01");
        assert_eq!(*serial.breaks.lock(), 1);
        assert_eq!(*monitor.breaks.lock(), 0);
        assert_eq!(*commands.lock(), [MuxCommand::Quit, MuxCommand::Sync]);
        ports[1].write(b"(tulk) ");
        let written = backend.written.lock();
        assert!(written.starts_with(b"\r\nC-a h") && written.ends_with(b"(tulk) "));
    }

    #[test]
    fn a_hanging_user_loses_nothing_and_does_not_lock_the_terminal() {
        let backend = Arc::new(Backend::default());
        let mux = Mux::new(backend.clone(), |_| ());
        let (serial, monitor) = (Taker::new(10), Taker::new(1000));
        mux.port().connect(serial.clone());
        mux.port().connect(monitor.clone());
        let all: Vec<u8> = (0..10_000).map(|n| (n % 97) as u8 + 32).collect();
        let taken = backend.type_in(&all);
        assert_eq!(taken, 10 + PENDING);
        *serial.room.lock() = 1;
        backend.type_in(b"");
        assert_eq!(backend.type_in(b"\x01cquit\n"), 7);
        assert_eq!(*monitor.got.lock(), b"quit\n");
        backend.type_in(b"\x01c");
        *serial.room.lock() = 100_000;
        backend.type_in(&all[taken..]);
        assert!(*serial.got.lock() == all);
    }
}
