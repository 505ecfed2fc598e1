//! What the integration tests share: guests, compilers, running tulk.
#![allow(dead_code)] // each test binary uses its own part

pub mod console;
pub mod gdb;
pub mod gdb_machine;
pub mod initramfs;
pub mod packets;
pub mod rsp;
pub mod sandbox;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Returns when it is done; a minute is too long.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2400 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{what} did not happen");
}

/// How a run ended: the exit code, or `-signal`.
pub struct Run {
    pub status: i32,
    pub output: Output,
}

impl Run {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// A guest that tulk runs, and Debian's names for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guest {
    Aarch64,
    X86_64,
    I386,
}

impl Guest {
    pub const ALL: [Guest; 3] = [Guest::Aarch64, Guest::X86_64, Guest::I386];

    pub fn name(self) -> &'static str {
        match self {
            Guest::Aarch64 => "aarch64",
            Guest::X86_64 => "x86_64",
            Guest::I386 => "i386",
        }
    }
    pub fn compiler(self) -> &'static str {
        match self {
            Guest::Aarch64 => "aarch64-linux-gnu-gcc",
            Guest::X86_64 if cfg!(target_arch = "x86_64") => "gcc",
            Guest::X86_64 => "x86_64-linux-gnu-gcc",
            Guest::I386 => "i686-linux-gnu-gcc",
        }
    }
    /// Options beyond those for all.
    fn flags(self) -> &'static [&'static str] {
        match self {
            // Debian's default has no SSE.
            Guest::I386 => &["-msse2"],
            _ => &[],
        }
    }
    pub fn has_compiler(self) -> bool {
        Command::new(self.compiler()).arg("--version").output().is_ok()
    }
    /// Whether the host runs this guest's programs itself: then its own program is the best judge.
    pub fn is_native(self) -> bool {
        match self {
            Guest::X86_64 => cfg!(target_arch = "x86_64"),
            // Needs the kernel's 32-bit interface.
            Guest::I386 => {
                cfg!(target_arch = "x86_64") && Path::new("/proc/sys/abi/vsyscall32").exists()
            }
            Guest::Aarch64 => cfg!(target_arch = "aarch64"),
        }
    }
}

/// How tulk executes: each test runs in all of [`Tier::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tier(pub &'static str);

impl Tier {
    pub const INTERP: Tier = Tier("interp");
    /// Everything but the very first execution in baseline code.
    pub const BASELINE: Tier = Tier("baseline");
    /// Everything compiled at first sight, so that short programs exercise the compiler too.
    pub const JIT: Tier = Tier("jit");
    pub const MIXED: Tier = Tier("mixed");
    pub const ALL: &'static [Tier] = &[Tier::INTERP, Tier::BASELINE, Tier::JIT, Tier::MIXED];

    pub fn options(self) -> &'static [&'static str] {
        match self {
            Tier::INTERP => &["--tier", "interp"],
            Tier::BASELINE => &["--tier", "baseline", "--baseline-threshold", "1"],
            Tier::JIT => &["--tier", "jit"],
            _ => &["--tier", "mixed"],
        }
    }
}

/// Folder for built test programs and unpacked packages.
pub fn cache() -> PathBuf {
    std::env::var_os("TULK_CACHE").map_or_else(|| PathBuf::from("/var/tmp/tulk"), PathBuf::from)
}

/// The tulk under test: the release build where there is one (`./test` makes it), else the test profile's.
pub fn tulk() -> PathBuf {
    std::env::var_os("TULK")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tulk")), PathBuf::from)
}

/// Says that a tool is not installed; fails where all tools are required.
pub fn missing(what: &str) {
    assert!(std::env::var_os("TULK_REQUIRE_TOOLS").is_none(), "{what} is not installed");
    eprintln!("SKIPPED: {what} is not installed");
}

/// Builds `tests/guest/multiarch/PROGRAM.c`, statically linked; for the host when `guest` is `None`. The file name is
/// the same for all so that a program may print its own.
pub fn compile(guest: Option<Guest>, program: &str) -> PathBuf {
    compile_in("multiarch", guest, program)
}

/// The same from another folder of `tests/guest`.
pub fn compile_in(folder: &str, guest: Option<Guest>, program: &str) -> PathBuf {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guest/{folder}/{program}.c"));
    let dir = cache().join(folder).join(guest.map_or("native", Guest::name));
    std::fs::create_dir_all(&dir).unwrap();
    let out = dir.join(program);
    let fresh = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
    if fresh(&out) > fresh(&source) {
        return out;
    }
    let compiler = guest.map_or("gcc", Guest::compiler);
    // Tests of one process build the same program at once.
    let me = std::thread::current().id();
    let temporary = dir.join(format!("{program}.{}.{me:?}", std::process::id()));
    let status = Command::new(compiler)
        .args(["-O2", "-frounding-math", "-static", "-pthread", "-w"])
        .args((folder == "system").then_some("-mno-red-zone"))
        .args(guest.map_or(&[][..], Guest::flags))
        .arg("-o")
        .args([temporary.as_os_str(), source.as_os_str(), OsStr::new("-lm")])
        .status()
        .unwrap_or_else(|e| panic!("{compiler}: {e}"));
    assert!(status.success(), "{compiler} failed on {program}.c");
    std::fs::rename(&temporary, &out).unwrap();
    out
}

/// Runs a command to its end.
pub fn finish(mut command: Command) -> Run {
    use std::os::unix::process::ExitStatusExt;
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let status = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0));
    Run { status, output }
}

pub fn run_native(program: &Path) -> Run {
    finish(Command::new(program))
}

/// `tulk run [tier] [options] command...`, killed after five minutes.
pub fn run_tulk<S: AsRef<OsStr>>(tier: Tier, options: &[&str], command: &[S]) -> Run {
    let mut run = Command::new("timeout");
    run.args(["--signal=KILL", "300"]).arg(tulk()).arg("run");
    run.args(tier.options()).args(options).args(command);
    finish(run)
}

/// The first line in which two outputs differ.
pub fn first_difference(got: &str, expected: &str) -> String {
    let mut lines = got.lines().zip(expected.lines()).enumerate();
    match lines.find(|(_, (g, e))| g != e) {
        Some((n, (g, e))) => format!("line {} is\n  {g}\ninstead of\n  {e}", n + 1),
        None => format!("{} bytes of output, expected {}", got.len(), expected.len()),
    }
}
