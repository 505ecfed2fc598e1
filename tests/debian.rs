//! Debian's own arm64 programs under tulk against the native programs of the same version.
//!
//! Each case is a script in `tests/guest/debian`, or a program built from one. The judge is the amd64 sysroot's
//! program, run natively in a chroot. tulk runs the arm64 one in two places: from outside with `-L SYSROOT`, and
//! inside a chroot that has nothing but the sysroot and tulk's one file. `TULK_SOAK=yes` repeats everything under
//! random tier settings.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::sandbox::{ENVIRONMENT, Place, Root, WORK, available};
use support::{Run, Tier, cache, tulk};

/// A program of Debian's and what it is given to do. In its words `{arch}` is the machine's Debian name, `{jdk}` the
/// folder of Java.
struct Case {
    name: &'static str,
    command: &'static [&'static str],
    /// Tiers in which it takes too long.
    without: &'static [Tier],
    /// Runs outside a chroot too.
    sysroot: bool,
    /// Native commands that make what it runs.
    build: &'static [&'static [&'static str]],
}

/// Compiling everything at first sight is for programs that are small or live long.
const NO_JIT: &[Tier] = &[Tier::JIT];
const MIXED_ONLY: &[Tier] = &[Tier::JIT, Tier::INTERP];

const CASES: &[Case] = &[
    case("busybox", &["/bin/busybox", "sh", "busybox.sh"], &[]),
    case("shell", &["/bin/bash", "shell.sh"], NO_JIT),
    case("perl", &["/usr/bin/perl", "perl.pl"], NO_JIT),
    case("python", &["/usr/bin/python3", "python.py"], NO_JIT),
    case("python_abort", &["/usr/bin/python3", "-S", "-c", "import os; os.abort()"], NO_JIT),
    case("sqlite", &["/usr/bin/sqlite3", "-batch", ":memory:", ".read sqlite.sql"], NO_JIT),
    case("git", &["/bin/bash", "git.sh"], MIXED_ONLY),
    case("openssl", &["/bin/bash", "openssl.sh"], MIXED_ONLY),
    case("gcc", &["/bin/bash", "gcc.sh"], MIXED_ONLY),
    case("threads", &["/bin/bash", "threads.sh"], NO_JIT),
    case("node", &["/usr/bin/node", "node.js"], MIXED_ONLY),
    case("luajit", &["/usr/bin/luajit", "luajit.lua"], &[]),
    Case {
        build: &[&["{jdk}/bin/javac", "-d", ".", "Check.java"]],
        sysroot: false,
        ..case("java", &["{jdk}/bin/java", "Check"], MIXED_ONLY)
    },
    Case { build: &[GO_AMD64, GO_ARM64], ..case("go", &["./program.{arch}"], NO_JIT) },
    case("go_tool", &["/usr/lib/go/bin/go", "env", "GOVERSION", "GOOS"], MIXED_ONLY),
    case("restic", &["/usr/bin/restic", "init", "--help"], MIXED_ONLY),
];

const GO_AMD64: &[&str] = &[
    "/usr/bin/env",
    "CGO_ENABLED=0",
    "GOARCH=amd64",
    "go",
    "build",
    "-o",
    "program.amd64",
    "program.go",
];
const GO_ARM64: &[&str] = &[
    "/usr/bin/env",
    "CGO_ENABLED=0",
    "GOARCH=arm64",
    "go",
    "build",
    "-o",
    "program.arm64",
    "program.go",
];

const fn case(
    name: &'static str,
    command: &'static [&'static str],
    without: &'static [Tier],
) -> Case {
    Case { name, command, without, sysroot: true, build: &[] }
}

fn words(command: &[&str], arch: &str) -> Vec<String> {
    let jdk = format!("/usr/lib/jvm/java-17-openjdk-{arch}");
    command.iter().map(|w| w.replace("{jdk}", &jdk).replace("{arch}", arch)).collect()
}

/// A fresh folder with the scripts and what `built` holds.
fn work_folder(built: Option<&Path>) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("tulk-debian-").tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/debian");
    for from in [Some(scripts.as_path()), built].into_iter().flatten() {
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
    }
    dir
}

fn run_natively(work: &Path, command: &[&str]) -> Run {
    Root { arch: "amd64", work }.run(&[], &words(command, "amd64"))
}

/// Makes what the case runs, natively.
fn build(case: &Case) -> Option<tempfile::TempDir> {
    if case.build.is_empty() {
        return None;
    }
    let work = work_folder(None);
    for command in case.build {
        let run = run_natively(work.path(), command);
        assert_eq!(run.status, 0, "{command:?}: {}", run.errors());
    }
    Some(work)
}

fn run_under_tulk(case: &Case, place: Place, options: &[&str], work: &Path) -> Run {
    let command = words(case.command, "arm64");
    match place {
        Place::Chroot => {
            let prefix = [&["/tulk", "run"], options].concat();
            Root { arch: "arm64", work }.run(&prefix, &command)
        }
        Place::Sysroot => {
            let root = cache().join("sysroot-arm64");
            let program = match command[0].strip_prefix('/') {
                Some(path) => root.join(path),
                None => PathBuf::from(&command[0]),
            };
            let mut run = Command::new("timeout");
            run.args(["--signal=KILL", "600"]).arg(tulk()).arg("run").args(options);
            run.arg("-L").arg(&root).arg("--").arg(program).args(&command[1..]);
            run.current_dir(work).env_clear().envs(ENVIRONMENT.iter().copied()).env("HOME", work);
            support::finish(run)
        }
    }
}

fn check(name: &str) {
    if !available() {
        return;
    }
    let case = CASES.iter().find(|c| c.name == name).unwrap();
    let built = build(case);
    let built = built.as_ref().map(tempfile::TempDir::path);
    let expected = run_natively(work_folder(built).path(), case.command);
    let mut settings: Vec<(Place, Vec<String>)> = Vec::new();
    for &tier in Tier::ALL.iter().filter(|t| !case.without.contains(t)) {
        let options: Vec<String> = tier.options().iter().map(|&s| s.into()).collect();
        settings.push((Place::Chroot, options.clone()));
        if case.sysroot && tier == Tier::MIXED {
            settings.push((Place::Sysroot, options));
        }
    }
    if std::env::var("TULK_SOAK").is_ok_and(|v| v == "yes") {
        settings.extend((0..8).map(|round| (Place::Chroot, random_settings(case, round))));
    }
    for (place, options) in settings {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let work = work_folder(built);
        let got = run_under_tulk(case, place, &options, work.path());
        assert!(
            (got.status, got.text()) == (expected.status, expected.text()),
            "{name}, {place:?}, {options:?}: status {} instead of {}; {}\nerrors:\n{}",
            got.status,
            expected.status,
            support::first_difference(&got.text(), &expected.text()),
            got.errors()
        );
    }
}

/// Tier, thresholds and code memory drawn from the clock; a failure names them.
fn random_settings(case: &Case, round: u32) -> Vec<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut seed = u64::from(now.subsec_nanos()) ^ u64::from(round) << 32 | 1;
    let mut pick = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 20) % n
    };
    let tiers: Vec<_> = Tier::ALL.iter().filter(|t| !case.without.contains(t)).collect();
    let tier = tiers[pick(tiers.len() as u64) as usize].0;
    let first = [1, 2, 5, 20][pick(4) as usize];
    let threshold = [1, 2, 5, 20, 100, 1000][pick(6) as usize];
    let code_size = [1, 4, 16, 256][pick(4) as usize];
    let mut out = vec!["--tier".into(), tier.into(), "--threshold".into(), format!("{threshold}")];
    out.extend(["--baseline-threshold".into(), format!("{first}")]);
    out.extend(["--code-size".into(), format!("{code_size}")]);
    out
}

macro_rules! cases {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )+
        #[test]
        fn every_case_is_run() {
            let run = [$(stringify!($name)),+];
            assert!(CASES.iter().all(|c| run.contains(&c.name)));
        }
    };
}

cases! {
    busybox shell perl python python_abort sqlite git openssl gcc threads node luajit java go go_tool restic
}

/// The judge and the judged stand in the same folder.
#[test]
fn work_folder_is_the_current_one() {
    if available() {
        assert_eq!(run_natively(work_folder(None).path(), &["/bin/pwd"]).text().trim_end(), WORK);
    }
}

/// GCC's compiler proper, on sources of this repository: the same assembly as under qemu-aarch64.
#[test]
fn cc1() {
    if !available() {
        return;
    }
    let qemu = "qemu-aarch64";
    if Command::new(qemu).arg("-version").output().is_err() {
        return support::missing(qemu);
    }
    let root = cache().join("sysroot-arm64");
    let compiler = root.join("usr/lib/gcc/aarch64-linux-gnu/12/cc1");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/multiarch");
    for source in ["memory", "floats", "signals"] {
        let work = work_folder(None);
        let flat = work.path().join("flat.i");
        let cpp = Command::new("aarch64-linux-gnu-gcc")
            .args(["-E", "-P", "-o"])
            .args([flat.clone(), folder.join(format!("{source}.c"))])
            .status();
        if !cpp.is_ok_and(|s| s.success()) {
            return support::missing("aarch64-linux-gnu-gcc");
        }
        let assembly = |runner: &Path, options: &[&str]| {
            let out = work.path().join("out.s");
            let mut run = Command::new("timeout");
            run.args(["--signal=KILL", "600"]).arg(runner).args(options).arg("-L").arg(&root);
            run.arg(&compiler).args(["-fpreprocessed", "-quiet", "-O2", "-w"]).arg(&flat);
            let run = {
                run.arg("-o").arg(&out);
                support::finish(run)
            };
            assert_eq!(run.status, 0, "{}", run.errors());
            std::fs::read_to_string(out).unwrap()
        };
        let expected = assembly(Path::new(qemu), &[]);
        let got = assembly(&tulk(), &["run"]);
        assert!(got == expected, "{source}: {}", support::first_difference(&got, &expected));
    }
}
