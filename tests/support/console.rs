//! A `tulk system` that runs while the test talks to its monitor on a socket, and boot programs in bytes.

use super::tulk;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub const PROMPT: &str = "(qemu) ";

/// Ends with its drop.
pub struct Machine {
    pub child: Child,
    pub folder: tempfile::TempDir,
    monitor: UnixStream,
}

impl Machine {
    /// Starts it with these options and a monitor. The serial port's output goes to the file `serial`, messages to the
    /// file `errors`.
    pub fn start(options: &[&str]) -> Machine {
        Machine::start_in(tempfile::tempdir().unwrap(), options)
    }

    pub fn start_in(folder: tempfile::TempDir, options: &[&str]) -> Machine {
        let at = |name: &str| folder.path().join(name);
        let monitor = at("monitor");
        let mut command = Command::new(tulk());
        command.args(["system", "-nic", "none"]);
        command.args(["-display", "none", "-monitor"]);
        command.arg(format!("unix:{},server=on,wait=off", monitor.display()));
        if !options.contains(&"-serial") {
            command.arg("-serial").arg(format!("file:{}", at("serial").display()));
        }
        command.args(options).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(at("errors")).unwrap());
        let mut child = command.spawn().unwrap();
        let start = Instant::now();
        let monitor = loop {
            if let Ok(stream) = UnixStream::connect(&monitor) {
                break stream;
            }
            let ended = child.try_wait().unwrap();
            let errors = || std::fs::read_to_string(at("errors")).unwrap_or_default();
            assert!(ended.is_none(), "{options:?} ended: {}", errors());
            assert!(start.elapsed() < PATIENCE, "{options:?}: no monitor: {}", errors());
            std::thread::sleep(Duration::from_millis(20));
        };
        monitor.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut machine = Machine { child, folder, monitor };
        machine.answer();
        machine
    }

    /// `None`: the machine has ended.
    fn answer(&mut self) -> Option<String> {
        let (mut text, mut part) = (Vec::new(), [0; 4096]);
        while !text.ends_with(PROMPT.as_bytes()) {
            match self.monitor.read(&mut part) {
                Ok(0) => return None,
                Ok(n) => text.extend_from_slice(&part[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the monitor does not answer: {error}\n{}", self.errors()),
            }
        }
        text.truncate(text.len() - PROMPT.len());
        Some(String::from_utf8_lossy(&text).replace('\r', ""))
    }

    /// A command's answer, without its echo. `None`: the machine has ended.
    pub fn try_ask(&mut self, line: &str) -> Option<String> {
        self.monitor.write_all(format!("{line}\n").as_bytes()).ok()?;
        let answer = self.answer()?;
        Some(answer.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_string()))
    }

    /// The same of a machine that goes on.
    pub fn ask(&mut self, line: &str) -> String {
        self.try_ask(line).unwrap_or_else(|| panic!("{line}: it ended: {}", self.errors()))
    }

    /// Asks again and again until the answer has this in it.
    pub fn ask_until(&mut self, line: &str, word: &str) -> String {
        let start = Instant::now();
        loop {
            let answer = self.ask(line);
            if answer.contains(word) {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "{line}: no {word}: {answer}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command that ends the machine; its status.
    pub fn end(&mut self, line: &str) -> i32 {
        self.monitor.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.wait()
    }

    pub fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < PATIENCE, "the machine does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn serial(&self) -> String {
        let bytes = std::fs::read(self.path("serial")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn serial_until(&self, word: &str) {
        let start = Instant::now();
        while !self.serial().contains(word) {
            assert!(start.elapsed() < PATIENCE, "no {word}: {}\n{}", self.serial(), self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.path("errors")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A boot sector of this 16-bit code, at 0x7c00, in an image as large as a floppy disk.
pub fn boot_image(code: &[u8]) -> Vec<u8> {
    assert!(code.len() <= 510, "{} bytes do not fit a boot sector", code.len());
    let mut image = code.to_vec();
    image.resize(510, 0);
    image.extend([0x55, 0xaa]);
    image.resize(1440 << 10, 0);
    image
}

/// Whether the firmware is installed.
pub fn firmware() -> bool {
    let there = Path::new("/usr/share/seabios/bios-256k.bin").exists();
    if !there {
        super::missing("seabios");
    }
    there
}
