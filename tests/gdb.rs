//! Real `gdb-multiarch` sessions with programs of every guest in every tier. A session is a script; what gdb prints is
//! searched for the lines that it must print, in order. Where gdb is not installed the tests say so and pass, unless
//! `TULK_REQUIRE_TOOLS` is set (as `./test` does).

mod support;

use std::path::Path;
use support::gdb::{Debuggee, Session, each_of, expect, session};
use support::{Guest, Tier};

fn each(f: impl Fn(Guest, &Path, Tier, &str)) {
    each_of("threads", &["-static"], f);
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

/// The registers as a session's `info registers` behind each mark showed them.
fn registers(s: &Session) -> Vec<Vec<&str>> {
    let behind = s.gdb.split("== registers\n").skip(1);
    behind.map(|part| part.lines().take_while(|l| !l.starts_with("==")).collect()).collect()
}

/// 1,000 steps over repeated strings, system calls, faults and their handler: on the way all registers are what they are at the same
/// places of a run without steps.
#[test]
fn steps() {
    each_of("hard", &["-static"], |guest, program, tier, what| {
        let regs = "echo == registers\\n\ninfo registers\necho ==\\n";
        let quiet = "handle SIGSEGV nostop noprint pass";
        let script = format!(
            "{quiet}\nbreak go\ncontinue\nprintf \"here %p\\n\", &here\nset var $n = 0\nwhile $n < 1000\nstepi\nset var $n = $n + 1\n\
             printf \"at %p\\n\", $pc\nif $n % 100 == 0 && $pc != (unsigned long) &here\n{regs}\nend\nend\ndelete\ndetach"
        );
        let stepped = session(program, tier, &[], &script);
        expect(&stepped, what, &["Breakpoint 1, go", "detached"]);
        let trace: Vec<&str> =
            stepped.gdb.lines().filter_map(|l| l.strip_prefix("at 0x")).collect();
        assert_eq!(trace.len(), 1000, "{what}: {}", stepped.gdb);
        let mut script = format!("{quiet}\nbreak go\ncontinue\ndelete\n");
        // Where it faults a breakpoint is hit twice, before the handler and behind it, and a step is one.
        let here = stepped.gdb.lines().find_map(|l| l.strip_prefix("here 0x")).unwrap_or_default();
        let mut part: Vec<&str> = Vec::new();
        let mut places = 0;
        for chunk in trace.chunks(100) {
            part.extend_from_slice(chunk);
            if chunk[99] == here {
                continue;
            }
            let times = part.iter().filter(|pc| **pc == chunk[99]).count() - 1;
            script +=
                &format!("tbreak *0x{}\nignore $bpnum {times}\ncontinue\n{regs}\n", chunk[99]);
            part.clear();
            places += 1;
        }
        let whole = session(program, tier, &[], &(script + "detach"));
        expect(&whole, what, &["Temporary breakpoint", "detached"]);
        let (a, b) = (registers(&stepped), registers(&whole));
        assert!(places > 5, "{what}");
        assert_eq!((a.len(), b.len()), (places, places), "{what}: {}", whole.gdb);
        for (n, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!(a.len() >= 16, "{what}");
            assert_eq!(a, b, "{what} {guest:?}: place {n}");
        }
        assert_eq!((stepped.status, whole.status), (Some(7), Some(7)), "{what}");
    });
}

/// 10,000 hits, each with a condition that gdb looks at.
#[test]
fn conditional_breakpoint() {
    each(|_, program, tier, what| {
        let script = "handle SIGUSR1 nostop noprint pass\nset var $hits = 0\nbreak work if ++$hits < 0\ncontinue\np $hits";
        let s = session(program, tier, &[], script);
        expect(&s, what, &["exited with code 07", "$1 = 10000"]);
        assert_eq!(s.status, Some(7), "{what}");
    });
}

/// A program with libraries, of which gdb has no copy: it reads them through tulk.
#[test]
fn libraries() {
    each_of("hard", &[], |guest, program, tier, what| {
        if tier == Tier::INTERP || tier == Tier::JIT {
            return;
        }
        let root = match guest {
            Guest::Aarch64 => "/usr/aarch64-linux-gnu",
            Guest::I386 => "/usr/i686-linux-gnu",
            Guest::X86_64 => "/",
        };
        let debuggee = Debuggee::start(tier, &["-L", root], "gdb", program, &[]);
        let script = "break main\ncontinue\nbt\ninfo sharedlibrary\nbreak getuid\nhandle SIGSEGV nostop noprint pass\ncontinue\nbt\n\
            info symbol $pc\nfinish\ndelete\ncontinue";
        let gdb = debuggee.gdb(&debuggee.socket(&[]), None, script);
        let (status, program) = debuggee.end();
        let s = Session { gdb, program, status };
        let lines = [
            "from remote target",
            "Breakpoint 1, main",
            "#0  main",
            "Shared Object Library",
            "target:",
            "libm.so.6",
            "libc.so.6",
            "Breakpoint 2",
            "getuid",
            "in go",
            "in main",
            "of target:",
            "exited with code 07",
        ];
        expect(&s, what, &lines);
        assert_eq!(s.status, Some(7), "{what}");
    });
}

/// A forked child has a stub of its own.
#[test]
fn children_with_stubs() {
    each(|_, program, tier, what| {
        let debuggee = Debuggee::start(tier, &[], "gdb.%d", program, &[]);
        let first = debuggee.socket(&[]);
        let script = "handle SIGUSR1 nostop noprint pass\nbreak forked\ncontinue\np pid > 0\ndelete\ncontinue";
        let parent = debuggee.spawn_gdb(&first, Some(program), script);
        let second = debuggee.socket(&[first]);
        let gdb =
            debuggee.gdb(&second, Some(program), "break work\ncontinue\nbt\ndelete\ncontinue");
        let child = Session { gdb, program: String::new(), status: None };
        expect(&child, what, &["Breakpoint 1, work (i=", "in main", "exited with code 03"]);
        let out = parent.wait_with_output().unwrap();
        let gdb = String::from_utf8_lossy(&out.stdout).into_owned();
        let (status, program) = debuggee.end();
        let s = Session { gdb, program, status };
        expect(&s, what, &["Breakpoint 1, forked", "$1 = 1", "exited with code 07"]);
        assert_eq!(s.status, Some(7), "{what}");
    });
}

/// What a `vfork` child does in its parent's memory is not the debugger's: a breakpoint there stops the parent alone.
#[test]
fn vfork() {
    each_of("vfork", &["-static"], |_, program, tier, what| {
        let script =
            "break touch\nwatch touches\ncontinue\np touches\ndelete\nfinish\np touches\ncontinue";
        let s = session(program, tier, &[], script);
        let lines = ["Breakpoint 1, touch", "$1 = 2", "$2 = 3", "exited with code 07"];
        expect(&s, what, &lines);
        assert!(s.program.contains("children 3 5\n"), "{what}: {}", s.program);
        assert_eq!(s.status, Some(7), "{what}");
    });
}

/// The program that `execve` starts waits for gdb at the same address.
#[test]
fn exec() {
    each_of("hard", &["-static"], |_, program, tier, what| {
        let debuggee = Debuggee::start(tier, &[], "gdb", program, &["exec"]);
        let socket = debuggee.socket(&[]);
        let first = debuggee.gdb(&socket, Some(program), "break main\ncontinue\np argc\ncontinue");
        let second = debuggee.gdb(
            &debuggee.socket(&[]),
            Some(program),
            "break main\ncontinue\np argc\np argv[1]\nhandle SIGSEGV nostop noprint pass\ncontinue",
        );
        let (status, program) = debuggee.end();
        let s = Session { gdb: first + &second, program, status };
        let lines = [
            "Breakpoint 1, main",
            "$1 = 2",
            "emote connection closed",
            "Breakpoint 1, main",
            "$1 = 2",
            "\"again\"",
            "exited with code 07",
        ];
        expect(&s, what, &lines);
    });
}
