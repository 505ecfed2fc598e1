//! A process on a terminal: its modes while it runs, and afterwards, however it ended.

use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tulk_ui::{CharSink, Mux, MuxCommand, open_chardev};

const PATIENCE: Duration = Duration::from_secs(20);

struct Echo(Sender<Vec<u8>>);

impl CharSink for Echo {
    fn receive(&self, bytes: &[u8]) -> usize {
        // The other end lives as long as the process.
        let _ = self.0.send(bytes.to_vec());
        bytes.len()
    }
}

/// Not a test: what the tests start on a terminal, this program again.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    let Ok(spec) = std::env::var("SPEC") else { return };
    let backend = open_chardev(&spec).unwrap();
    let (sender, receiver) = channel();
    let port = if spec.starts_with("mon:") {
        let quit = sender.clone();
        let mux = Mux::new(backend, move |command| {
            assert_eq!(command, MuxCommand::Quit);
            let _ = quit.send(b"q".to_vec());
        });
        mux.port()
    } else {
        backend
    };
    port.connect(Arc::new(Echo(sender)));
    port.write(b"READY\n");
    for bytes in receiver {
        match &bytes[..] {
            b"q" => break,
            b"p" => panic!("as asked"),
            b"e" => {
                port.flush();
                tulk_ui::terminal::restore_terminal();
                std::process::exit(7);
            }
            other => port.write(format!("<{other:?}>").as_bytes()),
        }
    }
    port.write(b"BYE");
}

struct Terminal {
    master: File,
    before: Termios,
    child: Child,
    output: Vec<u8>,
}

impl Terminal {
    fn start(spec: &str) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let end: OwnedFd = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let before = tcgetattr(&end).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env("SPEC", spec)
            .stdin(end.try_clone().unwrap())
            .stdout(end.try_clone().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The modes go with the last descriptor of this end.
        std::mem::forget(end);
        let mut terminal = Terminal { master: master.into(), before, child, output: Vec::new() };
        terminal.expect("READY");
        terminal
    }

    fn expect(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&self.output).contains(text) {
            let count = self.master.read(&mut buffer).unwrap();
            self.output.extend_from_slice(&buffer[..count]);
        }
    }

    fn type_in(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.master).unwrap().local_modes
    }

    fn end(mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let after = tcgetattr(&self.master).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        status
    }
}

#[test]
fn a_shared_terminal_is_raw_and_given_back() {
    let mut terminal = Terminal::start("mon:stdio");
    assert!(!terminal.modes().intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    // Ctrl-C and Ctrl-D are the guest's.
    terminal.type_in(b"\x03");
    terminal.expect("<[3]>");
    terminal.type_in(b"\x04");
    terminal.expect("<[4]>");
    terminal.type_in(b"\x01x");
    terminal.expect("BYE");
    assert!(terminal.end().success());
}

#[test]
fn alone_ctrl_c_ends_the_process() {
    let terminal = Terminal::start("stdio");
    assert!(terminal.modes().contains(LocalModes::ISIG));
    assert!(!terminal.modes().contains(LocalModes::ECHO));
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&terminal.child),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert_eq!(terminal.end().signal(), Some(2));
}

#[test]
fn signals_panics_and_exits_give_it_back() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
        let terminal = Terminal::start("mon:stdio");
        let child = rustix::process::Pid::from_child(&terminal.child);
        rustix::process::kill_process(child, signal).unwrap();
        assert_eq!(terminal.end().signal(), Some(signal.as_raw()));
    }
    let mut terminal = Terminal::start("stdio");
    terminal.type_in(b"p");
    assert!(!terminal.end().success());
    let mut terminal = Terminal::start("stdio");
    terminal.type_in(b"e");
    assert_eq!(terminal.end().code(), Some(7));
}

#[test]
fn without_a_terminal_input_may_end() {
    let child = |input: Stdio| {
        Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env("SPEC", "stdio")
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut piped = child(Stdio::piped());
    piped.stdin.take().unwrap().write_all(b"q").unwrap();
    let output = piped.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("READY\nBYE"));
    let mut at_end = child(Stdio::null());
    std::thread::sleep(Duration::from_millis(200));
    assert!(at_end.try_wait().unwrap().is_none(), "the end of the input is not the machine's");
    at_end.kill().unwrap();
    at_end.wait().unwrap();
}
