//! What the integration tests share: guests, compilers, running tulk.
#![allow(dead_code)] // each test binary uses its own part

pub mod sandbox;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
#[derive(Clone, Copy, Debug)]
pub enum Guest {
    Aarch64,
}

impl Guest {
    pub const ALL: [Guest; 1] = [Guest::Aarch64];

    pub fn name(self) -> &'static str {
        match self {
            Guest::Aarch64 => "aarch64",
        }
    }
    pub fn compiler(self) -> &'static str {
        match self {
            Guest::Aarch64 => "aarch64-linux-gnu-gcc",
        }
    }
    pub fn has_compiler(self) -> bool {
        Command::new(self.compiler()).arg("--version").output().is_ok()
    }
}

/// How tulk executes: each test runs in all of them.
#[derive(Clone, Copy, Debug)]
pub enum Tier {
    Interp,
    /// Everything compiled at first sight, so that short programs exercise the compiler too.
    Jit,
    Mixed,
}

impl Tier {
    pub const ALL: [Tier; 3] = [Tier::Interp, Tier::Jit, Tier::Mixed];

    pub fn options(self) -> &'static [&'static str] {
        match self {
            Tier::Interp => &["--tier", "interp"],
            Tier::Jit => &["--tier", "jit"],
            Tier::Mixed => &["--tier", "mixed"],
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
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guest/multiarch/{program}.c"));
    let dir = cache().join("multiarch").join(guest.map_or("native", Guest::name));
    std::fs::create_dir_all(&dir).unwrap();
    let out = dir.join(program);
    let fresh = |p: &Path| p.metadata().and_then(|m| m.modified()).ok();
    if fresh(&out) > fresh(&source) {
        return out;
    }
    let compiler = guest.map_or("gcc", Guest::compiler);
    let temporary = dir.join(format!("{program}.{}", std::process::id()));
    let status = Command::new(compiler)
        .args(["-O2", "-frounding-math", "-static", "-pthread", "-w", "-o"])
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
