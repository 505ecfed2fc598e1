//! Debian's own programs of each guest under tulk against the native programs of the same version.
//!
//! Each case is a script in `tests/guest/debian`, or a program built from one. The judge is the same program of a
//! sysroot that the host runs itself, in a chroot: for x86 guests the guest's own, for arm64 the amd64 one. tulk runs
//! the guest's in two places: from outside with `-L SYSROOT`, and inside a chroot that has nothing but the sysroot and
//! tulk's one file. `TULK_SOAK=yes` repeats everything under random tier settings.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::sandbox::{ENVIRONMENT, Place, Root, WORK, available};
use support::{Guest, Run, Tier, cache, tulk};

/// A program of Debian's and what it is given to do. In its words `{arch}` is the Debian name of the machine that it is for,
/// `{goarch}` its name in Go, `{jdk}` the folder of Java where the command runs, `{guest}` the guest, for its judge too.
struct Case {
    name: &'static str,
    command: &'static [&'static str],
    /// Tiers in which it takes too long.
    without: &'static [Tier],
    /// Runs outside a chroot too.
    sysroot: bool,
    /// Native commands that make what it runs, for the judge's machine and the guest's.
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
    Case { build: &[GO_BUILD], ..case("go", &["./program.{arch}"], NO_JIT) },
    case("go_tool", &["/usr/lib/go/bin/go", "env", "GOVERSION", "GOOS"], MIXED_ONLY),
    case("restic", &["/usr/bin/restic", "init", "--help"], MIXED_ONLY),
    case("ffmpeg", &["/bin/bash", "ffmpeg.sh", "{guest}"], MIXED_ONLY),
];

const GO_BUILD: &[&str] = &[
    "/usr/bin/env",
    "CGO_ENABLED=0",
    "GOARCH={goarch}",
    "go",
    "build",
    "-o",
    "program.{arch}",
    "program.go",
];

const fn case(
    name: &'static str,
    command: &'static [&'static str],
    without: &'static [Tier],
) -> Case {
    Case { name, command, without, sysroot: true, build: &[] }
}

/// Debian's name of the machine, Go's, and GCC's.
fn names(guest: Guest) -> (&'static str, &'static str, &'static str) {
    match guest {
        Guest::Aarch64 => ("arm64", "arm64", "aarch64-linux-gnu"),
        Guest::X86_64 => ("amd64", "amd64", "x86_64-linux-gnu"),
        Guest::I386 => ("i386", "386", "i686-linux-gnu"),
    }
}

fn sysroot(guest: Guest) -> PathBuf {
    cache().join(format!("sysroot-{}", names(guest).0))
}

/// Whose programs the host runs to know what the guest's should do.
fn judge(guest: Guest) -> Guest {
    if guest.is_native() { guest } else { Guest::X86_64 }
}

/// What both need is there.
fn ready(guest: Guest) -> bool {
    if !judge(guest).is_native() {
        support::missing("an x86 host, the judge of these programs,");
        return false;
    }
    available(&[names(guest).0, names(judge(guest)).0])
}

/// The command as it is for `guest`, run on the machine `on`.
fn words(command: &[&str], guest: Guest, on: Guest) -> Vec<String> {
    let (arch, goarch, _) = names(guest);
    let jdk = format!("/usr/lib/jvm/java-17-openjdk-{}", names(on).0);
    let fill =
        |w: &str| w.replace("{jdk}", &jdk).replace("{arch}", arch).replace("{goarch}", goarch);
    command.iter().map(|w| fill(w)).collect()
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

fn run_natively(judge: Guest, work: &Path, command: &[String]) -> Run {
    Root { arch: names(judge).0, work }.run(&[], command)
}

/// Makes what the case runs, natively.
fn build(case: &Case, guest: Guest) -> Option<tempfile::TempDir> {
    if case.build.is_empty() {
        return None;
    }
    let (work, judge) = (work_folder(None), judge(guest));
    let both = |command: &&[&str]| [judge, guest].map(|g| words(command, g, judge));
    let mut commands: Vec<_> = case.build.iter().flat_map(both).collect();
    commands.dedup();
    for command in commands {
        let run = run_natively(judge, work.path(), &command);
        assert_eq!(run.status, 0, "{command:?}: {}", run.errors());
    }
    Some(work)
}

fn run_under_tulk(
    guest: Guest,
    command: &[String],
    place: Place,
    options: &[&str],
    work: &Path,
) -> Run {
    match place {
        Place::Chroot => {
            let prefix = [&["/tulk", "run"], options].concat();
            Root { arch: names(guest).0, work }.run(&prefix, command)
        }
        Place::Sysroot => {
            let root = sysroot(guest);
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

fn check(guest: Guest, name: &str) {
    if !ready(guest) {
        return;
    }
    let case = CASES.iter().find(|c| c.name == name).unwrap();
    let (built, judge) = (build(case, guest), judge(guest));
    let built = built.as_ref().map(tempfile::TempDir::path);
    let named = case.command.iter().map(|w| w.replace("{guest}", names(guest).0));
    let named: Vec<String> = named.collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let expected = run_natively(judge, work_folder(built).path(), &words(&named, judge, judge));
    let command = words(&named, guest, guest);
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
        let got = run_under_tulk(guest, &command, place, &options, work.path());
        assert!(
            (got.status, got.text()) == (expected.status, expected.text()),
            "{name} of {guest:?}, {place:?}, {options:?}: status {} instead of {}; {}\nerrors:\n{}",
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

/// GCC's compiler proper, on sources of this repository: the same assembly as natively, or as under qemu-aarch64.
fn check_cc1(guest: Guest) {
    if !ready(guest) {
        return;
    }
    let qemu = "qemu-aarch64";
    if !guest.is_native() && Command::new(qemu).arg("-version").output().is_err() {
        return support::missing(qemu);
    }
    if !guest.has_compiler() {
        return support::missing(guest.compiler());
    }
    let compiler = format!("/usr/lib/gcc/{}/12/cc1", names(guest).2);
    let command =
        [compiler.as_str(), "-fpreprocessed", "-quiet", "-O2", "-w", "flat.i", "-o", "out.s"];
    let command = words(&command, guest, guest);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/multiarch");
    for source in ["memory", "floats", "signals"] {
        let work = work_folder(None);
        let cpp = Command::new(guest.compiler())
            .args(["-E", "-P", "-o"])
            .args([work.path().join("flat.i"), folder.join(format!("{source}.c"))])
            .status();
        assert!(cpp.is_ok_and(|s| s.success()), "{source}.c is not preprocessed");
        let assembly = |run: Run| {
            assert_eq!(run.status, 0, "{}", run.errors());
            std::fs::read_to_string(work.path().join("out.s")).unwrap()
        };
        let expected = if guest.is_native() {
            assembly(run_natively(guest, work.path(), &command))
        } else {
            let mut run = Command::new(qemu);
            run.current_dir(work.path()).arg("-L").arg(sysroot(guest));
            run.arg(sysroot(guest).join(&compiler[1..])).args(&command[1..]);
            assembly(support::finish(run))
        };
        let got = assembly(run_under_tulk(guest, &command, Place::Sysroot, &[], work.path()));
        assert!(got == expected, "{source}: {}", support::first_difference(&got, &expected));
    }
}

macro_rules! cases {
    ($($name:ident)+) => {
        cases! { mod aarch64 = Aarch64: $($name)+ }
        cases! { mod x86_64 = X86_64: $($name)+ }
        cases! { mod i386 = I386: $($name)+ }

        #[test]
        fn every_case_is_run() {
            let run = [$(stringify!($name)),+];
            assert!(CASES.iter().all(|c| run.contains(&c.name)));
        }
    };
    (mod $module:ident = $guest:ident: $($name:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    super::check(super::Guest::$guest, stringify!($name));
                }
            )+
            #[test]
            fn cc1() {
                super::check_cc1(super::Guest::$guest);
            }
        }
    };
}

cases! {
    busybox shell perl python python_abort sqlite git openssl gcc threads node luajit java go go_tool restic ffmpeg
}

/// The judge and the judged stand in the same folder.
#[test]
fn work_folder_is_the_current_one() {
    if ready(Guest::X86_64) {
        let run = run_natively(Guest::X86_64, work_folder(None).path(), &["/bin/pwd".into()]);
        assert_eq!(run.text().trim_end(), WORK);
    }
}
