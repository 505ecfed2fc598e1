//! A machine whose first serial port a test reads and types on.

use crate::support::tulk;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A running machine; ended when dropped.
pub struct Console {
    machine: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What it printed, without carriage returns.
    text: String,
    /// How much of `text` was expected already.
    seen: usize,
}

impl Console {
    /// `tulk system options` with the first serial port here.
    pub fn start(options: &[&str]) -> Console {
        let mut command = Command::new(tulk());
        command.args(["system", "-display", "none", "-serial", "stdio"]).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut machine = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (input, mut pipe) = (machine.stdin.take().unwrap(), machine.stdout.take().unwrap());
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Console { machine, input, output, text: String::new(), seen: 0 }
    }

    /// Waits for more output; whether there was any before this time and before its end.
    fn more(&mut self, until: Instant) -> Result<(), RecvTimeoutError> {
        let left = until.saturating_duration_since(Instant::now());
        let bytes = self.output.recv_timeout(left)?;
        self.text.push_str(&String::from_utf8_lossy(&bytes).replace('\r', ""));
        Ok(())
    }

    /// Waits until the machine printed this, and returns what stood between the last expected text and this one.
    pub fn expect(&mut self, what: &str, seconds: u64) -> String {
        let until = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(at) = self.text[self.seen..].find(what) {
                let before = self.text[self.seen..self.seen + at].to_string();
                self.seen += at + what.len();
                return before;
            }
            if let Err(error) = self.more(until) {
                panic!("no {what:?} in {seconds} s ({error}): {}", self.text);
            }
        }
    }

    /// Types a line.
    pub fn send(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).expect("the machine runs");
    }

    /// Types a command at a shell whose prompt is over; what it printed and its exit status.
    pub fn command(&mut self, command: &str, seconds: u64) -> (String, i32) {
        // What the terminal echoes is not what is looked for.
        self.send(&format!("echo BE''GIN; {command}; echo EN''D $? D''ONE"));
        self.expect("BEGIN\n", seconds);
        let printed = self.expect("END ", seconds);
        let status = self.expect(" DONE", seconds);
        (printed, status.parse().unwrap_or_else(|_| panic!("status {status:?}: {}", self.text)))
    }

    /// Waits for the machine's end: everything that it printed and its exit status.
    pub fn finish(mut self, seconds: u64) -> (String, Option<i32>) {
        let until = Instant::now() + Duration::from_secs(seconds);
        loop {
            match self.more(until) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("not over in {seconds} s: {}", self.text),
            }
        }
        let status = self.machine.wait().expect("its status").code();
        (std::mem::take(&mut self.text), status)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}
