//! Real `gdb-multiarch` sessions with programs of every guest in every tier. A session is a script; what gdb prints is
//! searched for the lines that it must print, in order. Where gdb is not installed the tests say so and pass, unless
//! `TULK_REQUIRE_TOOLS` is set (as `./test` does).

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Guest, Tier, tulk};

/// Builds `tests/guest/gdb/threads.c` with debugging information.
fn build(guest: Guest, dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/gdb/threads.c");
    let out = dir.join(format!("threads-{}", guest.name()));
    let built = Command::new(guest.compiler())
        .args(["-g", "-O1", "-fno-pie", "-no-pie", "-static", "-pthread", "-o"])
        .args([&out, &source])
        .status()
        .expect("the compiler runs");
    assert!(built.success(), "{}", guest.name());
    out
}

struct Session {
    gdb: String,
    program: String,
    status: Option<i32>,
}

/// Runs the program under tulk with gdb attached.
fn session(program: &Path, tier: Tier, words: &[&str], script: &str) -> Session {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("gdb");
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "120"]).arg(tulk()).arg("run").args(tier.options());
    command.args(["--seed", "1", "-g"]);
    command.arg(format!("unix:{}", socket.display())).arg(program).args(words);
    let tulk = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let tulk = tulk.spawn().expect("tulk starts");
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let file = dir.path().join("script");
    let mut text = std::fs::File::create(&file).unwrap();
    let start = "set pagination off\nset confirm off\nset width 0\nset debuginfod enabled off";
    writeln!(text, "{start}\ntarget remote {}\n{script}", socket.display()).unwrap();
    let gdb = Command::new("timeout")
        .args(["--signal=KILL", "100", "gdb-multiarch", "-nx", "-batch", "-x"])
        .args([file.as_path(), program])
        .stdin(Stdio::null())
        .output()
        .expect("gdb runs");
    let out = tulk.wait_with_output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Session {
        gdb: text(&gdb.stdout) + &text(&gdb.stderr),
        program: text(&out.stdout) + &text(&out.stderr),
        status: out.status.code(),
    }
}

/// All of `lines` occur in gdb's output, in this order.
fn expect(s: &Session, what: &str, lines: &[&str]) {
    let mut rest = s.gdb.as_str();
    for line in lines {
        match rest.find(line) {
            Some(at) => rest = &rest[at + line.len()..],
            None => panic!("{what}: no `{line}` in\n{}\nprogram:\n{}", s.gdb, s.program),
        }
    }
}

fn each(f: impl Fn(Guest, &Path, Tier, &str)) {
    if Command::new("gdb-multiarch").arg("--version").output().is_err() {
        return support::missing("gdb-multiarch");
    }
    for guest in Guest::ALL {
        if !guest.has_compiler() {
            support::missing(guest.compiler());
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let program = build(guest, dir.path());
        for &tier in Tier::ALL {
            f(guest, &program, tier, &format!("{} {tier:?}", guest.name()));
        }
    }
}

const OUTPUT: &str = "10 x";

#[test]
fn breakpoints_and_data() {
    each(|guest, program, tier, what| {
        let vector = match guest {
            Guest::Aarch64 => "p $v0.d.u[0] = 0x1122334455667788\np/x $v0.d.u[0]",
            _ => "p $xmm0.v2_int64[0] = 0x1122334455667788\np/x $xmm0.v2_int64[0]",
        };
        let script = format!(
            "handle SIGUSR1 nostop noprint pass\nbreak main\ncontinue\nbt\np number\n{vector}\nset var number = 10\nbreak work if i == 3\ncontinue\n\
             bt\nfinish\nset var $n = 0\ndelete\nwatch global\ncontinue\ncontinue\ndelete\nmonitor info tb\n\
             p (int) work(0)\ncontinue"
        );
        let s = session(program, tier, &[], &script);
        let lines = [
            "Breakpoint 1, main",
            "#0  main",
            "$1 = 2.5",
            "0x1122334455667788",
            "Breakpoint 2, work (i=",
            "#1 ",
            "in main",
            "Value returned is",
            "Old value = ",
            "New value = ",
            "Old value = ",
            "exited with code 07",
        ];
        expect(&s, what, &lines);
        assert!(s.program.contains(OUTPUT), "{what}: {}", s.program);
        assert_eq!(s.status, Some(7), "{what}");
    });
}

/// A detached program goes on, with the signal that it was stopped by.
#[test]
fn detach() {
    each(|_, program, tier, what| {
        let s = session(program, tier, &[], "continue\ndetach");
        expect(&s, what, &["received signal SIGUSR1", "detached"]);
        assert!(s.program.contains("handled 10\nchild 3 1\n"), "{what}: {}", s.program);
        assert_eq!(s.status, Some(7), "{what}");
    });
}

/// 10,000 hits of a condition that is false.
#[test]
fn conditional_breakpoint() {
    each(|_, program, tier, what| {
        let s = session(
            program,
            tier,
            &[],
            "handle SIGUSR1 nostop noprint pass\nbreak work if i == 100\ncontinue",
        );
        expect(&s, what, &["exited with code 07"]);
        assert_eq!(s.status, Some(7), "{what}");
    });
}

#[test]
fn signals_system_calls_and_children() {
    each(|_, program, tier, what| {
        let script = "catch syscall write\ncontinue\ncontinue\ndelete\nhandle SIGUSR1 stop print nopass\ncontinue\n\
                      p handled\nbreak forked\ncontinue\nfinish\ndelete\ncontinue";
        let s = session(program, tier, &[], script);
        let lines = [
            "(call to syscall write)",
            "(returned from syscall write)",
            "received signal SIGUSR1",
            "$1 = 0",
            ", forked",
            "exited with code 07",
        ];
        expect(&s, what, &lines);
        // It was not passed.
        assert!(s.program.contains("handled 0\nchild 3 1\n"), "{what}: {}", s.program);
    });
}

#[test]
fn threads() {
    each(|_, program, tier, what| {
        let script = "handle SIGUSR1 nostop noprint pass\nbreak work if $_gthread > 1\ncontinue\ninfo threads\nbt\n\
                      delete\nstepi\nkill";
        let s = session(program, tier, &["threads"], script);
        expect(&s, what, &[", work", "(threads-", "(worker)", "in thread", "killed"]);
        assert_eq!(s.status, None, "{what}: killed by a signal");
    });
}

/// The registers as a session's `info registers` behind the mark showed them.
fn registers(s: &Session) -> Vec<&str> {
    let behind = s.gdb.split("== registers\n").nth(1).unwrap_or_default();
    behind.lines().take_while(|l| !l.starts_with("==")).collect()
}

/// After 1,000 steps all registers are what they are at the same place of a run without steps.
#[test]
fn steps() {
    each(|guest, program, tier, what| {
        let regs = "echo == registers\\n\ninfo registers\necho ==\\n\ndelete\ndetach";
        let script = format!(
            "break main\ncontinue\nset var $n = 0\nwhile $n < 1000\nstepi\nset var $n = $n + 1\n\
             printf \"at %p\\n\", $pc\nend\n{regs}"
        );
        let stepped = session(program, tier, &[], &script);
        expect(&stepped, what, &["Breakpoint 1, main", "detached"]);
        let trace: Vec<&str> =
            stepped.gdb.lines().filter_map(|l| Some(l.split_once("at 0x")?.1)).collect();
        let trace: Vec<&str> =
            trace.into_iter().filter(|pc| pc.chars().all(|c| c.is_ascii_hexdigit())).collect();
        assert_eq!(trace.len(), 1000, "{what}: {}", stepped.gdb);
        let last = trace[999];
        let before = trace.iter().filter(|pc| **pc == last).count() - 1;
        let script =
            format!("break main\ncontinue\nbreak *0x{last}\nignore 2 {before}\ncontinue\n{regs}");
        let whole = session(program, tier, &[], &script);
        expect(&whole, what, &["Breakpoint 2", "detached"]);
        let (a, b) = (registers(&stepped), registers(&whole));
        assert!(a.len() >= 16, "{what}");
        assert_eq!(a, b, "{what} {guest:?}");
        assert_eq!((stepped.status, whole.status), (Some(7), Some(7)), "{what}");
    });
}
