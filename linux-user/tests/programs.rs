//! C programs that check system calls, run natively and as guests: their outputs must be equal.
//!
//! They are built with the cross compilers that are installed (`aarch64-linux-gnu-gcc`, `i686-linux-gnu-gcc`); without
//! one the guest is skipped and the test says so. This file runs itself again as the guest's process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tulk_exec::Tier;
use tulk_linux_user::abi::GUESTS;
use tulk_linux_user::syscall::Handler;
use tulk_linux_user::{Options, run};

const PROGRAMS: [&str; 6] = ["files", "memory", "network", "rest", "system", "tasks"];
/// Programs whose results are judged by `tests/multiarch.rs`: here only for the calls that they make.
const ELSEWHERE: [&str; 6] = ["signals", "actions", "threads", "processes", "ends", "mappings"];
/// What only makes sense as a guest: it must print `alive` at its end and nothing with `NO`.
const ALONE: [&str; 1] = ["abuse"];
/// A guest, its compiler, and where its C library is.
struct Row {
    guest: &'static str,
    compiler: &'static str,
    sysroot: &'static str,
    /// Builds what the host runs to know what is right: of the same word size.
    judge: &'static str,
}

const ROWS: [Row; 3] = [
    Row {
        guest: "aarch64",
        compiler: "aarch64-linux-gnu-gcc",
        sysroot: "/usr/aarch64-linux-gnu",
        judge: "cc",
    },
    Row { guest: "x86_64", compiler: "x86_64-linux-gnu-gcc", sysroot: "/", judge: "cc" },
    Row {
        guest: "i386",
        compiler: "i686-linux-gnu-gcc",
        sysroot: "/usr/i686-linux-gnu",
        judge: "i686-linux-gnu-gcc",
    },
];

fn main() {
    let mut args = std::env::args_os().skip(1);
    let sysroot = std::env::var_os("TULK_TEST_SYSROOT");
    if let Some(program) = std::env::var_os("TULK_TEST_GUEST") {
        guest(program, None, args.collect(), sysroot);
    }
    // What `execve` of a guest starts: `programs SYSROOT --argv0 NAME -- PROGRAM ARGS`.
    if std::env::args().nth(2).is_some_and(|a| a == "--argv0") {
        let (sysroot, argv0) = (args.next(), args.nth(1));
        let program = args.nth(1).expect("a program behind --");
        guest(program, argv0, args.collect(), sysroot);
    }
    if std::env::args().any(|a| a == "--list") {
        if !std::env::args().any(|a| a == "--ignored") {
            println!("programs: test");
        }
        return;
    }
    let only = std::env::args().nth(1).filter(|a| !a.starts_with('-') && a != "programs");
    let dir = std::env::temp_dir().join(format!("tulk-programs-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory for the tests");
    let mut failures = 0;
    for row in &ROWS {
        let Row { guest, compiler, sysroot, judge } = *row;
        if judge != "cc" && !Path::new("/proc/sys/abi/vsyscall32").exists() {
            println!("{guest}: skipped, the host does not run its programs, which judge it");
            continue;
        }
        let mut called = BTreeSet::new();
        if Command::new(compiler).arg("--version").output().is_err() {
            println!("{guest}: skipped, {compiler} is not installed");
            continue;
        }
        let all = PROGRAMS.iter().chain(&ALONE);
        // Its addresses do not reach what is the translator's.
        let narrow = guest == "i386";
        let all = all.filter(|p| !narrow || !ALONE.contains(p));
        let all = all.filter(|p| only.as_ref().is_none_or(|o| *p == o));
        std::thread::scope(|s| {
            let dir = &dir;
            let runs: Vec<_> =
                all.map(|name| s.spawn(move || compare_all(name, row, dir))).collect();
            for run in runs {
                let (failed, calls) = run.join().expect("no panic");
                failures += failed;
                called.extend(calls);
            }
        });
        if only.is_none() {
            for name in ELSEWHERE {
                let program = build(compiler, name, &dir, guest, &["-static"]);
                let mut command = run_guest(&program, "interp", sysroot);
                called.extend(calls(&output(command.env(STRACE, "1"), &dir, guest).stderr));
            }
            failures += !coverage(guest, &called) as u32;
        }
    }
    let _ = fs::remove_dir_all(&dir);
    if failures != 0 {
        println!("{failures} failures");
        std::process::exit(1);
    }
}

/// Runs a program natively and in all ways as a guest; returns how often the outputs differ, and the calls it makes.
fn compare_all(name: &str, row: &Row, dir: &Path) -> (u32, Vec<String>) {
    let Row { guest, compiler, sysroot, judge } = *row;
    let (mut failures, mut called) = (0, Vec::new());
    let alone = ALONE.contains(&name);
    let expected = (!alone).then(|| {
        // The host may not have this judge's C library.
        let flags: &[&str] = if judge == "cc" { &[] } else { &["-static"] };
        let native = build(judge, name, dir, &format!("native-{guest}"), flags);
        output(Command::new(&native).args(ARGS), dir, &format!("{name}-native-{guest}"))
    });
    for (link, flags) in [("static", &["-static"][..]), ("dynamic", &[])] {
        let program = build(compiler, name, dir, &format!("{guest}-{link}"), flags);
        for tier in ["interp", "mixed", "jit"] {
            let mut command = run_guest(&program, tier, sysroot);
            command.args(ARGS);
            if (link, tier) == ("static", "interp") {
                command.env(STRACE, "1");
            }
            let mut got = output(&mut command, dir, &format!("{name}-{guest}"));
            called.extend(calls(&got.stderr));
            got.stderr.clear();
            let ok = match &expected {
                Some(expected) => compare(expected, &got),
                None => is_alive(&got),
            };
            println!("{guest} {name} {link} {tier}: {}", if ok { "ok" } else { "FAILED" });
            failures += !ok as u32;
        }
    }
    (failures, called)
}

/// This test again, as the guest's process; killed when it takes too long.
fn run_guest(program: &Path, tier: &str, sysroot: &str) -> Command {
    let me = std::env::current_exe().expect("the path of this test");
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "120"]).arg(me).env("TULK_TEST_GUEST", program);
    command.env("TULK_TEST_TIER", tier).env("TULK_TEST_SYSROOT", sysroot);
    command
}

const STRACE: &str = "TULK_TEST_STRACE";
const ARGS: [&str; 2] = ["first", "second argument"];

/// Names of the system calls that a --strace log shows.
fn calls(log: &[u8]) -> Vec<String> {
    let name = |line: &str| {
        let name = line.split_whitespace().nth(1)?.split_once('(')?.0;
        Some(name.to_string())
    };
    String::from_utf8_lossy(log).lines().filter_map(name).collect()
}

/// Compares the calls that the programs make with the table: what is implemented and never called must stand in
/// `untested/<guest>.txt`, and what stands there must be untested. The list only shrinks.
fn coverage(guest: &str, called: &BTreeSet<String>) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/untested/{guest}.txt"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let listed: BTreeSet<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    let abi = GUESTS.iter().find(|g| g.name() == guest).expect("a guest of that name");
    let mut ok = true;
    for row in abi.table() {
        let served = !matches!(row.handler, Handler::Missing | Handler::Declined);
        let tested = called.contains(row.name);
        if served && !tested && !listed.contains(row.name) {
            println!(
                "{guest}: {} is implemented, not tested, and not in {}",
                row.name,
                path.display()
            );
            ok = false;
        }
        if (tested || !served) && listed.contains(row.name) {
            println!("{guest}: {} no longer belongs in {}", row.name, path.display());
            ok = false;
        }
    }
    ok
}

/// Becomes the guest.
fn guest(
    program: OsString,
    argv0: Option<OsString>,
    args: Vec<OsString>,
    sysroot: Option<OsString>,
) -> ! {
    let mut options = Options::new(program);
    options.args = args;
    options.argv0 = argv0;
    options.reexec = vec!["programs".into(), sysroot.clone().unwrap_or_default()];
    options.sysroot = sysroot.map(Into::into);
    options.engine.tier = match std::env::var("TULK_TEST_TIER").as_deref() {
        Ok("interp") => Tier::Interp,
        Ok("jit") => Tier::Jit,
        _ => Tier::Mixed,
    };
    options.engine.threshold = 2;
    options.strace = std::env::var_os(STRACE).is_some();
    let error = run(options);
    eprintln!("{error}");
    std::process::exit(error.exit_code())
}

fn build(compiler: &str, name: &str, dir: &Path, kind: &str, flags: &[&str]) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = if ELSEWHERE.contains(&name) { "../tests/guest/multiarch" } else { "tests/c" };
    let source = here.join(format!("{folder}/{name}.c"));
    let target = dir.join(format!("{name}-{kind}"));
    let status = Command::new(compiler)
        .args(["-O1", "-w", "-pthread", "-o"])
        .arg(&target)
        .arg(source)
        .args(flags)
        .arg("-lrt")
        .status()
        .expect("the compiler runs");
    assert!(status.success(), "{compiler} {name}");
    target
}

fn output(command: &mut Command, dir: &Path, kind: &str) -> Output {
    let work = dir.join(format!("work-{kind}"));
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).expect("a working directory");
    command.current_dir(&work).env("CHECK", "1").output().expect("the program runs")
}

/// A program of [`ALONE`] found everything in order.
fn is_alive(got: &Output) -> bool {
    let text = String::from_utf8_lossy(&got.stdout);
    let ok = got.status.success() && text.ends_with("alive\n") && !text.contains(": NO\n");
    if !ok {
        println!("ended with {}\n{text}", got.status);
    }
    ok
}

/// Equal outputs and ends; prints what differs.
fn compare(expected: &Output, got: &Output) -> bool {
    let mut ok = expected.status == got.status;
    if !ok {
        println!("ended with {}, expected {}", got.status, expected.status);
    }
    let (want, have) =
        (String::from_utf8_lossy(&expected.stdout), String::from_utf8_lossy(&got.stdout));
    let mut lines = have.lines();
    for line in want.lines() {
        let other = lines.next();
        if other != Some(line) {
            println!("expected {line}\n     got {}", other.unwrap_or("nothing"));
            ok = false;
            if other.is_none() {
                break;
            }
        }
    }
    for extra in lines {
        println!("surplus {extra}");
        ok = false;
    }
    ok
}
