//! Sessions of `gdb-multiarch` with `tulk system`.

use super::gdb::{START, first_missing};
use super::{missing, tulk, wait_for};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub const TIERS: [&str; 4] = ["interp", "baseline", "jit", "mixed"];

/// `tulk system -gdb` in its own directory.
pub struct Machine {
    pub dir: tempfile::TempDir,
    child: Child,
}

pub fn tools() -> bool {
    let firmware = Path::new("/usr/share/seabios/bios-256k.bin").exists();
    let gdb = Command::new("gdb-multiarch").arg("--version").output().is_ok();
    for (there, what) in [(firmware, "seabios"), (gdb, "gdb-multiarch")] {
        if !there {
            missing(what);
            return false;
        }
    }
    true
}

impl Machine {
    pub fn start(options: &[&str]) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("gdb");
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "400"]).arg(tulk()).arg("system");
        command.arg("-gdb").arg(format!("unix:{}", socket.display())).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("tulk starts");
        wait_for("listening", || socket.exists());
        Machine { dir, child }
    }
    /// The small kernel, waiting at the reset vector.
    pub fn kernel(kernel: &Path, options: &[&str]) -> Machine {
        let fixed = ["-S", "-nodefaults", "-display", "none", "-m", "64", "-device"];
        let exit = ["isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", kernel.to_str().unwrap()];
        Machine::start(&[&fixed[..], &exit, options].concat())
    }
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("gdb")
    }
    /// What gdb prints in one session.
    pub fn gdb(&self, symbols: Option<&Path>, script: &str) -> String {
        let file = self.dir.path().join("script");
        let mut text = std::fs::File::create(&file).unwrap();
        let socket = self.socket();
        writeln!(text, "{START}\ntarget remote {}\n{script}", socket.display()).unwrap();
        Self::run(&["-x", file.to_str().unwrap()], symbols)
    }
    /// The same with commands that may fail: gdb goes on with the next one.
    pub fn commands(&self, symbols: Option<&Path>, commands: &str) -> String {
        let connect = format!("target remote {}", self.socket().display());
        let all = ["set pagination off", "set confirm off", "set width 0", &connect];
        let words: Vec<&str> =
            all.into_iter().chain(commands.lines()).flat_map(|line| ["-ex", line]).collect();
        Self::run(&words, symbols)
    }
    fn run(words: &[&str], symbols: Option<&Path>) -> String {
        // What gdb says goes to two streams, as it likes.
        let out = Command::new("sh")
            .args(["-c", "exec \"$@\" 2>&1", "sh", "timeout", "--signal=KILL", "300"])
            .args(["gdb-multiarch", "-nx", "-batch"])
            .args(words)
            .args(symbols)
            .stdin(Stdio::null())
            .output()
            .expect("gdb runs");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
    /// How it ended: status and what it printed.
    pub fn end(self) -> (Option<i32>, String) {
        let out = self.child.wait_with_output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

/// All of `lines` occur in gdb's output, in this order.
#[track_caller]
pub fn expect(output: &str, lines: &[&str]) {
    if let Some(line) = first_missing(output, lines) {
        panic!("no `{line}` in\n{output}");
    }
}

/// The lines that begin with this mark, without it.
pub fn marked<'a>(output: &'a str, mark: &str) -> Vec<&'a str> {
    output.lines().filter_map(|line| line.strip_prefix(mark)).collect()
}

/// Builds the small kernel.
pub fn kernel(dir: &Path, flags: &[&str]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/gdb/kernel.c");
    let out = dir.join("kernel");
    let compiler = super::Guest::X86_64.compiler();
    let built = Command::new(compiler)
        .args(["-g", "-O1", "-ffreestanding", "-fno-pie", "-no-pie", "-nostdlib", "-static"])
        .args(["-mno-red-zone", "-fno-stack-protector", "-fno-omit-frame-pointer", "-w"])
        .args(["-fcf-protection=none", "-Wl,-Ttext=0x100000,-N,--build-id=none,-e,start32"])
        .args(flags)
        .arg("-o")
        .args([&out, &source])
        .status();
    let Ok(built) = built else {
        missing(compiler);
        return None;
    };
    assert!(built.success());
    Some(out)
}
