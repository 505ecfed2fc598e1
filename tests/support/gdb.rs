//! Sessions of `gdb-multiarch`, and programs under `tulk run` for them.

use super::{Guest, Tier, missing, tulk, wait_for};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What each session begins with.
pub const START: &str =
    "set pagination off\nset confirm off\nset width 0\nset debuginfod enabled off";

/// The first of `lines` that does not occur in gdb's output, in this order.
pub fn first_missing<'a>(output: &str, lines: &[&'a str]) -> Option<&'a str> {
    let mut rest = output;
    lines.iter().copied().find(|line| match rest.find(line) {
        Some(at) => {
            rest = &rest[at + line.len()..];
            false
        }
        None => true,
    })
}

/// Builds `tests/guest/gdb/NAME.c` with debugging information.
pub fn build(guest: Guest, dir: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guest/gdb/{name}.c"));
    let out = dir.join(format!("{name}-{}", guest.name()));
    let built = Command::new(guest.compiler())
        .args(["-g", "-O1", "-fno-pie", "-no-pie", "-pthread"])
        .args(flags)
        .arg("-o")
        .args([&out, &source])
        .arg("-lm")
        .status()
        .expect("the compiler runs");
    assert!(built.success(), "{}", guest.name());
    out
}

/// Calls `f` for each guest with the program `name`, and for each tier.
pub fn each_of(name: &str, flags: &[&str], f: impl Fn(Guest, &Path, Tier, &str)) {
    if Command::new("gdb-multiarch").arg("--version").output().is_err() {
        return missing("gdb-multiarch");
    }
    for guest in Guest::ALL {
        if !guest.has_compiler() {
            missing(guest.compiler());
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let program = build(guest, dir.path(), name, flags);
        for &tier in Tier::ALL {
            f(guest, &program, tier, &format!("{} {tier:?}", guest.name()));
        }
    }
}

/// A program that waits for gdb.
pub struct Debuggee {
    pub dir: tempfile::TempDir,
    child: Child,
}

fn text(out: &Output) -> String {
    [&out.stdout[..], &out.stderr].map(String::from_utf8_lossy).concat()
}

impl Debuggee {
    /// `socket`: the name in [`Debuggee::dir`].
    pub fn start(
        tier: Tier,
        options: &[&str],
        socket: &str,
        program: &Path,
        words: &[&str],
    ) -> Debuggee {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "400"]).arg(tulk()).arg("run").args(tier.options());
        command.args(["--seed", "1"]).args(options).arg("-g");
        command.arg(format!("unix:{}", dir.path().join(socket).display()));
        command.arg(program).args(words);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Debuggee { child: child.spawn().expect("tulk starts"), dir }
    }
    /// The socket that is there beside `known`.
    pub fn socket(&self, known: &[PathBuf]) -> PathBuf {
        let fresh = |p: &PathBuf| {
            p.file_name().unwrap().to_string_lossy().starts_with("gdb") && !known.contains(p)
        };
        let mut found = None;
        wait_for("a socket", || {
            let entries = std::fs::read_dir(self.dir.path()).unwrap();
            found = entries.filter_map(Result::ok).map(|entry| entry.path()).find(fresh);
            found.is_some()
        });
        found.unwrap()
    }
    /// Starts gdb with a script.
    pub fn spawn_gdb(&self, socket: &Path, file: Option<&Path>, script: &str) -> Child {
        let name = self.dir.path().join(format!("script{}", script.len()));
        let mut out = std::fs::File::create(&name).unwrap();
        writeln!(out, "{START}\ntarget remote {}\n{script}", socket.display()).unwrap();
        Command::new("timeout")
            .args(["--signal=KILL", "400", "gdb-multiarch", "-nx", "-batch", "-x"])
            .arg(&name)
            .args(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gdb runs")
    }
    pub fn gdb(&self, socket: &Path, file: Option<&Path>, script: &str) -> String {
        text(&self.spawn_gdb(socket, file, script).wait_with_output().unwrap())
    }
    /// Sends tulk a signal (`timeout` passes it on).
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([&format!("-{name}"), &self.child.id().to_string()]);
        assert!(kill.status().unwrap().success());
    }
    pub fn end(self) -> (Option<i32>, String) {
        let out = self.child.wait_with_output().unwrap();
        (out.status.code(), text(&out))
    }
}

/// How one session with one program went.
pub struct Session {
    pub gdb: String,
    pub program: String,
    pub status: Option<i32>,
}

/// Runs the program under tulk with gdb attached.
pub fn session(program: &Path, tier: Tier, words: &[&str], script: &str) -> Session {
    let debuggee = Debuggee::start(tier, &[], "gdb", program, words);
    let gdb = debuggee.gdb(&debuggee.socket(&[]), Some(program), script);
    let (status, program) = debuggee.end();
    Session { gdb, program, status }
}

/// All of `lines` occur in gdb's output, in this order.
pub fn expect(s: &Session, what: &str, lines: &[&str]) {
    if let Some(line) = first_missing(&s.gdb, lines) {
        panic!("{what}: no `{line}` in\n{}\nprogram:\n{}", s.gdb, s.program);
    }
}
