//! Steps of guests against an unbroken run: at each of 1,000 instructions every register that debuggers know has the value that it has in the
//! registers' log (`-d exec,cpu`) of a run that nobody debugs.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::gdb::{Debuggee, each_of};
use support::rsp::{Client, Layout};
use support::{Guest, Tier, missing, tulk, wait_for};

const STEPS: usize = 1000;

type Set = BTreeMap<String, String>;

/// The sets of a log, by its order.
fn sets(log: &str) -> Vec<Set> {
    let set = |part: &str| {
        let words = part.lines().skip(1).take_while(|line| line.starts_with("  "));
        let words = words.flat_map(str::split_whitespace).filter_map(|word| word.split_once('='));
        words.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    log.split("exec ").skip(1).map(set).collect()
}

/// Without what repeats at one place: iterations of a string instruction, an instruction that is run again.
fn distinct(all: Vec<Set>, pc: &str) -> Vec<Set> {
    let mut out: Vec<Set> = Vec::new();
    for set in all {
        if out.last().is_none_or(|last| last[pc] != set[pc]) {
            out.push(set);
        }
    }
    out
}

/// `stepped` is a part of `log`, up to the first place of both.
fn compare(stepped: Vec<Set>, log: Vec<Set>, pc: &str, what: &str) {
    let (stepped, log) = (distinct(stepped, pc), distinct(log, pc));
    let start = log.iter().position(|set| set[pc] == stepped[0][pc]);
    let start = start.unwrap_or_else(|| panic!("{what}: {} is not in the log", stepped[0][pc]));
    assert!(stepped.len() > STEPS / 2, "{what}: {} places", stepped.len());
    for (n, (step, run)) in stepped.iter().zip(&log[start..]).enumerate() {
        for (name, value) in run {
            assert_eq!(step.get(name), Some(value), "{what}: {name} at place {n}, {}", run[pc]);
        }
    }
    assert!(log.len() >= start + stepped.len(), "{what}: the log ends");
    // Registers of all kinds have changed on the way.
    let changed = |name: &str| log[start..].windows(2).any(|w| w[0].get(name) != w[1].get(name));
    let count = log[start].keys().filter(|name| changed(name)).count();
    assert!(count >= 12, "{what}: {count} registers change");
}

/// Sets of registers at [`STEPS`] instructions from here on.
fn steps(client: &mut Client, layout: &Layout) -> Vec<Set> {
    let mut all = vec![client.registers(layout)];
    let mut last = "T05".to_string();
    for n in 0..STEPS {
        last = client.step(&last);
        assert!(last.starts_with('T'), "step {n}: {last}");
        all.push(client.registers(layout));
    }
    all
}

/// Where a symbol is.
fn address(program: &Path, symbol: &str) -> u64 {
    let out = Command::new("nm").arg(program).output().expect("nm runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find(|line| line.split(' ').nth(2) == Some(symbol));
    let digits = line.and_then(|line| line.split(' ').next());
    u64::from_str_radix(digits.unwrap_or_else(|| panic!("no {symbol}")), 16).unwrap()
}

#[test]
fn programs() {
    let unbroken = std::cell::RefCell::new(BTreeMap::new());
    each_of("hard", &["-static"], |guest, program, tier, what| {
        let pc = match guest {
            Guest::Aarch64 => "pc",
            Guest::X86_64 => "rip",
            Guest::I386 => "eip",
        };
        let debuggee = Debuggee::start(tier, &[], "gdb", program, &[]);
        let mut client = Client::new(&debuggee.socket(&[]));
        let layout = client.layout();
        let go = address(program, "go");
        assert_eq!(client.ask(&format!("Z0,{go:x},1")), "OK");
        assert!(client.ask("vCont;c").starts_with("T05"), "{what}");
        assert_eq!(client.ask(&format!("z0,{go:x},1")), "OK");
        let stepped = steps(&mut client, &layout);
        assert_eq!(client.ask("D"), "OK");
        assert_eq!(debuggee.end().0, Some(7), "{what}");
        // The addresses of a program's stack depend on its name's length only, so one log does for all tiers.
        let mut unbroken = unbroken.borrow_mut();
        let log = unbroken.entry(guest.name()).or_insert_with(|| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("log");
            let mut run = Command::new("timeout");
            run.args(["--signal=KILL", "400"]).arg(tulk()).args(["run", "--seed", "1"]);
            run.args(["--one-insn-per-tb", "-d", "exec,cpu", "-D"]).arg(&file).arg(program);
            let status = run.stdin(Stdio::null()).status().unwrap();
            assert_eq!(status.code(), Some(7), "{what}");
            let text = std::fs::read_to_string(&file).unwrap();
            // All of it is much.
            let mark = format!("exec {go:#x} ");
            sets(&text[text.find(&mark).expect("it goes there")..])
        });
        compare(stepped, log.clone(), pc, what);
    });
}

/// A machine without firmware: real, protected and long mode.
#[test]
fn machine() {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/gdb/rom.S");
    let (object, rom) = (dir.path().join("rom.o"), dir.path().join("rom"));
    if !Guest::X86_64.has_compiler() {
        return missing(Guest::X86_64.compiler());
    }
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new(Guest::X86_64.compiler()).arg("-c").arg(&source).arg("-o").arg(&object));
    run(Command::new("objcopy").args(["-O", "binary", "-j", ".text"]).args([&object, &rom]));
    assert_eq!(rom.metadata().unwrap().len(), 64 << 10);
    let start = |options: &[&str], accel: &str| {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "400"]).arg(tulk()).args(["system", "-bios"]).arg(&rom);
        command.args(["-nodefaults", "-display", "none", "-m", "16", "-accel", accel]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]).args(options);
        command.stdin(Stdio::null()).spawn().expect("tulk starts")
    };
    let file: PathBuf = dir.path().join("log");
    let log = ["-d", "exec,cpu", "-D", file.to_str().unwrap()];
    let status = start(&log, "tcg,one-insn-per-tb=on").wait().unwrap();
    assert_eq!(status.code(), Some(7));
    let log = sets(&std::fs::read_to_string(&file).unwrap());
    for tier in Tier::ALL {
        let socket = dir.path().join(tier.0);
        let gdb = format!("unix:{}", socket.display());
        let mut machine = start(&["-S", "-gdb", &gdb], &format!("tcg,tier={}", tier.0));
        wait_for("listening", || socket.exists());
        let mut client = Client::new(&socket);
        let layout = client.layout();
        let stepped = steps(&mut client, &layout);
        let last = stepped.last().unwrap();
        // It has come as far as it should.
        assert_eq!(last["efer"], "501", "{last:?}");
        compare(stepped, log.clone(), "rip", tier.0);
        assert_eq!(client.ask("D"), "OK");
        assert_eq!(machine.wait().unwrap().code(), Some(7));
    }
}
