//! What cannot be run: one line that says why, and the exit code of a shell. Never a panic.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Run, finish, tulk};

fn run(words: &[&str]) -> Run {
    let mut command = Command::new(tulk());
    command.arg("run").args(words).env_remove("QEMU_LD_PREFIX");
    finish(command)
}

/// Exit code and the whole of standard error; `{}` stands for the first word that is a path.
fn expect(words: &[&str], status: i32, line: &str) {
    let got = run(words);
    let path = words.iter().find(|w| w.starts_with('/')).copied().unwrap_or_default();
    let want = format!("tulk: {}\n", line.replace("{}", path));
    assert_eq!((got.status, got.errors()), (status, want), "{words:?}");
    assert_eq!(got.text(), "", "{words:?}");
}

/// A program that is good but for what a case changes.
const GOOD: &[u8] = include_bytes!("../src/demo/aarch64.elf");

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn write(&self, name: &str, bytes: &[u8]) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.into_os_string().into_string().unwrap()
    }
    /// The good program with some bytes changed.
    fn changed(&self, name: &str, changes: &[(usize, u8)]) -> String {
        let mut bytes = GOOD.to_vec();
        for &(at, value) in changes {
            bytes[at] = value;
        }
        self.write(name, &bytes)
    }
}

#[test]
fn nothing_there() {
    expect(&["/nonexistent/program"], 127, "{}: No such file or directory");
    expect(&["/etc/passwd/x"], 127, "{}: Not a directory");
}

#[test]
fn not_programs() {
    let files = Files::new();
    expect(&["/"], 126, "{}: is a directory");
    expect(&["/dev/null"], 126, "{}: not a regular file");
    expect(&[&files.write("empty", b"")], 126, "{}: the file is empty");
    let text = files.write("text", b"hello, world");
    expect(&[&text], 126, "{}: not an ELF program (it starts with 68 65 6c 6c)");
    let script = files.write("script", b"#!/nonexistent/interpreter -x\n");
    let got = run(&[&script]);
    assert_eq!(got.status, 127);
    assert!(got.errors().contains("/nonexistent/interpreter: No such file"), "{}", got.errors());
    let path = files.path("loop");
    let script = files.write("loop", format!("#!{}\n", path.display()).as_bytes());
    expect(&[&script], 126, "{}: scripts interpret each other without end");
}

#[test]
fn truncated() {
    let files = Files::new();
    for (length, place) in [(3, "file header"), (40, "file header"), (80, "program headers")] {
        let path = files.write("short", &GOOD[..length]);
        expect(
            &[&path],
            126,
            &format!("{{}}: the ELF file is truncated: it ends inside the {place}"),
        );
    }
    let path = files.write("short", &GOOD[..GOOD.len() / 4]);
    assert_eq!(run(&[&path]).status, 126);
}

#[test]
fn other_machines() {
    let files = Files::new();
    let other = |machine: &str, bits: u32, order: &str| {
        format!(
            "{{}}: a program for {machine} ({bits}-bit, {order}-endian), which tulk does not run; it runs aarch64, x86_64, i386"
        )
    };
    let path = files.changed("riscv", &[(18, 243)]);
    expect(&[&path], 126, &other("RISC-V", 64, "little"));
    let path = files.changed("unknown", &[(18, 0xfe), (19, 0xfe)]);
    expect(&[&path], 126, &other("machine 65278", 64, "little"));
    let path = files.changed("class", &[(4, 7)]);
    expect(&[&path], 126, "{}: the ELF header is invalid: unknown class");
    let path = files.changed("order", &[(5, 9)]);
    expect(&[&path], 126, "{}: the ELF header is invalid: unknown byte order");
    let path = files.changed("object", &[(16, 1)]);
    expect(&[&path], 126, "{}: not a program but an object file; link it first");
}

/// Every byte of the headers wrong in some way: a message or the program's own end, never a panic or a hang.
#[test]
fn lying_headers() {
    let files = Files::new();
    for at in (16..160).step_by(3) {
        let path = files.changed("lie", &[(at, GOOD[at] ^ 0xff)]);
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "60"]).arg(tulk()).args(["run", "-d", "int", &path]);
        let got = finish(command);
        assert!(!got.errors().contains("panicked"), "byte {at}: {}", got.errors());
        assert!(got.status != 137 && got.status != -9, "byte {at} hangs");
        // Under `timeout` a death by a signal is an exit code of 128 and more: it must be the guest's.
        if got.status > 128 {
            let own = format!("signal {} ends the program", got.status - 128);
            assert!(got.errors().contains(&own), "byte {at}: tulk died: {}", got.errors());
        }
    }
}

#[test]
fn unreadable() {
    let files = Files::new();
    let path = files.write("secret", GOOD);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(Path::new(&path), mode).unwrap();
    if std::fs::File::open(&path).is_ok() {
        return; // root reads everything
    }
    expect(&[&path], 126, "{}: Permission denied");
}

#[test]
fn wrong_options() {
    let files = Files::new();
    let good = files.write("good", GOOD);
    let models = "max, cortex-a53, cortex-a72, neoverse-n1";
    let line = format!("unknown CPU `z80` for aarch64; known are {models}");
    expect(&["--cpu", "z80", &good], 2, &line);
    expect(&["-d", "z80", &good], 1, "-d z80: unknown item; `-d help` lists them");
    expect(&["-E", "A", &good], 1, "-E A: expected VARIABLE=VALUE");
    assert_eq!(run(&["--no-such-option", &good]).status, 2);
    assert_eq!(run(&["-s", "8Q", &good]).status, 2);
}
