//! How clients come to a user program and go, and what else they may ask of it: with programs of every guest, by gdb where gdb does it and by
//! a client of our own where gdb would be too polite.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::gdb::{Debuggee, Session, each_of, expect, session};
use support::packets::packet;
use support::rsp::Client;
use support::{Guest, Tier, tulk, wait_for};

/// Each guest once: what happens here is not the tiers' affair.
fn each(name: &str, flags: &[&str], f: impl Fn(Guest, &Path, &str)) {
    each_of(name, flags, |guest, program, tier, _| {
        if tier == Tier::MIXED {
            f(guest, program, guest.name());
        }
    });
}

fn tulk_run(options: &[&str], program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "400"]).arg(tulk()).arg("run").args(["--seed", "1"]);
    command.args(options).arg(program).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn gdb(program: &Path, target: &str, script: &str) -> String {
    // What gdb says goes to two streams, as it likes.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh", "timeout", "--signal=KILL", "400"]);
    command.args(["gdb-multiarch", "-nx", "-batch"]);
    let first = ["set pagination off", "set confirm off", "set width 0"];
    let connect = format!("target remote {target}");
    let all = first.into_iter().chain([connect.as_str()]).chain(script.lines());
    command.args(all.flat_map(|line| ["-ex", line])).arg(program).stdin(Stdio::null());
    String::from_utf8_lossy(&command.output().expect("gdb runs").stdout).into_owned()
}

/// A port of the loopback interface that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The addresses at which somebody listens on a port, as Linux writes them.
fn listens(port: u16) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.get(3) == Some(&"0A"));
    let local =
        rows.filter_map(|row| row[1].split_once(':').map(|(a, p)| (a.to_string(), p.to_string())));
    local.filter(|(_, p)| *p == format!("{port:04X}")).map(|(a, _)| a).collect()
}

fn end(child: Child) -> (Option<i32>, String) {
    let out = child.wait_with_output().unwrap();
    let text = [&out.stdout[..], &out.stderr].map(String::from_utf8_lossy).concat();
    (out.status.code(), text)
}

/// A port by `-g` and by `QEMU_GDB`, on the loopback interface only.
#[test]
fn ports() {
    each("threads", &["-static"], |_, program, what| {
        for by_variable in [false, true] {
            let port = free_port();
            let text = port.to_string();
            let options = ["-g", &text];
            let mut command = tulk_run(if by_variable { &[] } else { &options }, program, &[]);
            if by_variable {
                command.env("QEMU_GDB", &text);
            }
            let child = command.spawn().unwrap();
            wait_for("listening", || !listens(port).is_empty());
            assert_eq!(listens(port), ["0100007F"], "{what}");
            let script = "handle SIGUSR1 nostop noprint pass\nbreak main\ncontinue\ncontinue";
            let out = gdb(program, &format!(":{port}"), script);
            assert!(
                out.contains("Breakpoint 1, main") && out.contains("exited with code 07"),
                "{out}"
            );
            assert_eq!(end(child).0, Some(7), "{what}");
        }
        // `none` is stronger than the variable.
        let mut command = tulk_run(&["-g", "none"], program, &[]);
        let child = command.env("QEMU_GDB", free_port().to_string()).spawn().unwrap();
        assert_eq!(end(child).0, Some(7), "{what}");
    });
}

/// With `suspend=n` the program runs at once; a client stops it where it is, leaves it, comes back, and kills it.
#[test]
fn coming_late() {
    each("counters", &["-static"], |_, program, what| {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("gdb");
        let address = format!("unix:{},suspend=n", socket.display());
        let child = tulk_run(&["-g", &address], program, &[]).spawn().unwrap();
        wait_for("listening", || socket.exists());
        let target = socket.display().to_string();
        let count = "printf \"counters %lu %lu\\n\", counters[0], counters[1]";
        let mut last = [0, 0];
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(200));
            let out = gdb(program, &target, &format!("info threads\n{count}\ndetach"));
            let line = out.lines().find_map(|l| l.strip_prefix("counters "));
            let line = line.unwrap_or_else(|| panic!("{what}: {out}"));
            let now: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
            assert!(now[0] > last[0] && now[1] > last[1], "{what}: {last:?} {now:?}");
            assert!(out.contains("  2    Thread "), "{what}: {out}");
            last = [now[0], now[1]];
        }
        let out = gdb(program, &target, "break second\ntbreak *$pc\nkill");
        assert!(out.contains("killed"), "{what}: {out}");
        assert_eq!(end(child).0, None, "{what}");
    });
}

/// One thread steps while the other stands; each is asked for by name.
#[test]
fn one_thread_at_a_time() {
    each_of("counters", &["-static"], |_, program, tier, what| {
        let s = session(
            program,
            tier,
            &[],
            "break first\ncontinue\ndelete\nset scheduler-locking on\nset var $a = counters[0]\nset var $b = counters[1]\nstepi 100\n\
             printf \"first %d %d\\n\", counters[0] > $a, counters[1] == $b\nset scheduler-locking off\nwatch counters[1]\ncontinue\ndelete\n\
             set scheduler-locking on\nset var $a = counters[0]\nset var $b = counters[1]\nstepi 100\n\
             printf \"second %d %d\\n\", counters[0] == $a, counters[1] > $b\nkill",
        );
        expect(
            &s,
            what,
            &["Breakpoint 1, first", "first 1 1", "New value = ", "second 1 1", "killed"],
        );
    });
}

/// A range is stepped by one packet, from wherever in it, and a breakpoint in it ends that.
#[test]
fn range_steps() {
    each_of("threads", &["-static"], |_, program, tier, what| {
        let debuggee = Debuggee::start(tier, &[], "gdb", program, &[]);
        let mut client = Client::new(&debuggee.socket(&[]));
        let layout = client.layout();
        let pc = ["pc", "rip", "eip"].into_iter().find(|n| layout.iter().any(|r| r.0 == *n));
        let pc = pc.expect("a program counter");
        let out = Command::new("nm").arg("-S").arg(program).output().expect("nm runs");
        let out = String::from_utf8_lossy(&out.stdout).into_owned();
        let work = out.lines().find(|l| l.ends_with(" work")).expect("work");
        let words: Vec<&str> = work.split(' ').collect();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (number(words[0]), number(words[0]) + number(words[1]));
        assert!(client.ask("vCont?").split(';').any(|action| action == "r"), "{what}");
        assert_eq!(client.ask(&format!("Z0,{start:x},1")), "OK");
        let at = |client: &mut Client| number(&client.registers(&layout)[pc]);
        for _ in 0..3 {
            let stop = client.ask("vCont;c");
            assert_eq!(at(&mut client), start, "{what}: {stop}");
            let range = format!("vCont;r{start:x},{end:x}:{}", client.thread);
            let stop = client.ask(&format!("{range};c"));
            assert!(stop.starts_with("T05"), "{what}: {stop}");
            let after = at(&mut client);
            assert!(!(start..end).contains(&after), "{what}: {after:#x}");
        }
        // Behind the first instruction.
        client.ask("vCont;c");
        client.step("T05");
        let second = at(&mut client);
        assert_eq!(client.ask(&format!("Z0,{second:x},1")), "OK");
        client.step("T05");
        client.ask("vCont;c");
        assert_eq!(at(&mut client), start, "{what}");
        let range = format!("vCont;r{start:x},{end:x}:{}", client.thread);
        client.ask(&range);
        assert_eq!(at(&mut client), second, "{what}");
        assert_eq!(client.ask("D"), "OK");
        assert_eq!(debuggee.end().0, Some(7), "{what}");
    });
}

/// A client that vanishes leaves what stands standing, without breakpoints, and what runs running; signals end what waits for nobody.
#[test]
fn vanishing() {
    each("counters", &["-static"], |_, program, what| {
        let debuggee = Debuggee::start(Tier::MIXED, &[], "gdb", program, &[]);
        let socket = debuggee.socket(&[]);
        let address = |symbol: &str| {
            let out = Command::new("nm").arg(program).output().expect("nm runs");
            let out = String::from_utf8_lossy(&out.stdout).into_owned();
            let line = out.lines().find(|l| l.ends_with(&format!(" {symbol}"))).expect("a symbol");
            line.split(' ').next().unwrap().trim_start_matches('0').to_string()
        };
        let (second, counters) = (address("second"), address("counters"));
        let count = |client: &mut Client| client.ask(&format!("m{counters},4"));
        let mut client = Client::new(&socket);
        assert_eq!(client.ask(&format!("Z0,{second},1")), "OK");
        assert!(client.ask("vCont;c").starts_with("T05"), "{what}");
        let stood = count(&mut client);
        drop(client);
        std::thread::sleep(Duration::from_millis(300));
        let mut client = Client::new(&socket);
        assert_eq!(count(&mut client), stood, "{what}: it stands");
        // No breakpoint is left: it runs until it is stopped.
        client.send("vCont;c");
        std::thread::sleep(Duration::from_millis(300));
        client.interrupt();
        assert!(client.answer().starts_with("T02"), "{what}");
        let before = count(&mut client);
        client.send("vCont;c");
        drop(client);
        std::thread::sleep(Duration::from_millis(300));
        let mut client = Client::new(&socket);
        assert_ne!(count(&mut client), before, "{what}: it runs on");
        drop(client);
        // It stands, and nobody is there.
        std::thread::sleep(Duration::from_millis(200));
        debuggee.signal("TERM");
        assert_eq!(debuggee.end().0, None, "{what}");
    });
}

/// Whatever a client sends, the program can be debugged afterwards, and does what it does without a debugger.
#[test]
fn garbage() {
    each("threads", &["-static"], |_, program, what| {
        let debuggee = Debuggee::start(Tier::MIXED, &[], "gdb", program, &[]);
        let socket = debuggee.socket(&[]);
        let bodies: &[&[u8]] = &[
            b"qSupported:multiprocess+;swbreak+",
            b"?",
            b"g",
            b"G0011",
            b"p0",
            b"pffff",
            b"P5=00",
            b"Hg-1",
            b"Hgp0.0",
            b"m0,ffff",
            b"mffffffffffffffff,ffff",
            b"Z0,0,1",
            b"Z2,0,ffffffffffffffff",
            b"z2,0,1",
            b"vCont;s:p1.1",
            b"qXfer:siginfo:read::0,100",
            b"qXfer:libraries-svr4:read::0,fff",
            b"qXfer:memory-map:read::ffffffffffffffff,1",
            b"vFile:open:2f,0,0",
            b"vFile:pread:0,ffffffff,0",
            b"vFile:close:7",
            b"QCatchSyscalls:1;zz",
            b"QCatchSyscalls:0",
            b"qRcmd,696e666f",
            b"qRcmd,zz",
            b"X0,ffff:",
            b"vKill",
            b"T1",
            b"!",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = move |below: usize| {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for round in 0..150 {
            let mut input = Vec::new();
            for _ in 0..1 + next(8) {
                let mut body = bodies[next(bodies.len())].to_vec();
                for _ in 0..next(3) {
                    let at = next(body.len());
                    body[at] = next(256) as u8;
                }
                input.extend([b"+".to_vec(), packet(&body)].concat());
            }
            let mut raw = UnixStream::connect(&socket)
                .unwrap_or_else(|e| panic!("{what}: round {round}: {e}"));
            let _ = raw.write_all(&input);
            let _ = raw.set_read_timeout(Some(Duration::from_millis(5)));
            let mut answers = [0; 4096];
            while matches!(raw.read(&mut answers), Ok(n) if n > 0) {}
        }
        let script = "handle SIGUSR1 nostop noprint pass\nbreak main\ncontinue\nbt\ncontinue";
        let out = gdb(program, &socket.display().to_string(), script);
        assert!(out.contains("#0  main") && out.contains("exited with code 07"), "{what}: {out}");
        let (status, text) = debuggee.end();
        assert_eq!(status, Some(7), "{what}");
        assert!(text.contains("handled 10\nchild 3 1\n"), "{what}: {text}");
    });
}

/// What a program is told that a signal brings, and its end by one.
#[test]
fn signals() {
    each_of("hard", &["-static"], |guest, program, tier, what| {
        let fields =
            "p $_siginfo.si_signo\np $_siginfo.si_code\np/x $_siginfo._sifields._sigfault.si_addr";
        let script = format!(
            "p $_siginfo\ncontinue\n{fields}\np $_exitsignal\nhandle SIGSEGV nostop noprint pass\nbreak getuid\n\
             continue\nsignal SIGTERM\np $_exitsignal"
        );
        // A command that fails must not end the session.
        let debuggee = Debuggee::start(tier, &[], "gdb", program, &[]);
        let target = debuggee.socket(&[]).display().to_string();
        let out = gdb(program, &target, &script);
        let (status, text) = debuggee.end();
        let s = Session { gdb: out, program: text, status };
        let lines = [
            "Unable to read siginfo",
            "received signal SIGSEGV",
            "$1 = 11",
            "$2 = 1",
            "$3 = 0x0",
            "$4 = void",
            "getuid",
            "terminated with signal SIGTERM",
            "$5 = 15",
        ];
        expect(&s, what, &lines);
        assert_eq!(status, None, "{what} {guest:?}: ended by a signal");
    });
}

/// As lldb does it: `c` lets all threads go on, at the start, too, where no thread has been named.
#[test]
fn plain_continue() {
    each("threads", &["-static"], |_, program, what| {
        let debuggee = Debuggee::start(Tier::MIXED, &[], "gdb", program, &["threads"]);
        let mut client = Client::new(&debuggee.socket(&[]));
        // SIGUSR1; then the other thread is made, which ends in a pause.
        assert!(client.ask("c").starts_with("T1e"), "{what}");
        wait_for("a second thread", || {
            client.send("c");
            std::thread::sleep(Duration::from_millis(200));
            client.interrupt();
            assert!(client.answer().starts_with("T02"), "{what}");
            client.ask("qfThreadInfo").split(',').count() == 2
        });
        client.send("k");
        assert_eq!(debuggee.end().0, None, "{what}");
    });
}

/// The objects that describe a program, and its files, of which gdb has no copy.
#[test]
fn descriptions_and_files() {
    each("hard", &[], |guest, program, what| {
        let root = match guest {
            Guest::Aarch64 => "/usr/aarch64-linux-gnu",
            Guest::I386 => "/usr/i686-linux-gnu",
            Guest::X86_64 => "/",
        };
        let debuggee = Debuggee::start(Tier::MIXED, &["-L", root], "gdb", program, &[]);
        let socket = debuggee.socket(&[]);
        let mut client = Client::new(&socket);
        let none = client.text("libraries-svr4:read:");
        assert!(none.contains("<library-list-svr4") && !none.contains("<library "), "{none}");
        let map = client.text("memory-map:read:");
        let length = if guest == Guest::I386 { "0x100000000" } else { "0x8000000000000000" };
        assert!(map.contains(&format!("start=\"0x0\" length=\"{length}\"")), "{map}");
        let path = client.text("exec-file:read:");
        assert!(path.ends_with(program.file_name().unwrap().to_str().unwrap()), "{path}");
        let auxv = client.object("auxv:read:").unwrap();
        let entry = if guest == Guest::I386 { 8 } else { 16 };
        assert!(auxv.len() > 10 * entry && auxv.len().is_multiple_of(entry), "{}", auxv.len());
        assert!(client.object("siginfo:read:").is_err());
        assert!(client.ask("qHostInfo").contains("ptrsize:"), "{what}");
        assert!(client.ask("qProcessInfo").contains("triple:"), "{what}");
        drop(client);
        std::thread::sleep(Duration::from_millis(200));
        let copy = debuggee.dir.path().join("copy");
        let script = format!(
            "break go\ncontinue\ninfo auxv\ninfo sharedlibrary\nremote get {} {}\nremote put {} /tmp/other\nremote delete {}\ninfo mem\n\
             x/xb 0xffffffffffffffff\nmonitor help\nmonitor info tb\nmonitor info maps\nmonitor info registers\nmonitor nonsense\ndetach",
            program.display(),
            copy.display(),
            program.display(),
            program.display()
        );
        let out = gdb(program, &socket.display().to_string(), &script);
        let lines =
            ["Breakpoint 1, go", "AT_ENTRY", "libm.so.6", "libc.so.6", "Read-only file system"];
        let s = Session { gdb: out, program: String::new(), status: None };
        expect(&s, what, &lines);
        let more =
            ["info maps", "blocks", "[stack]", "pc 0x", "unknown command `nonsense`", "detached"];
        expect(&s, what, &more);
        assert!(!s.gdb.contains("while parsing"), "{what}: {}", s.gdb);
        assert!(std::fs::read(&copy).unwrap() == std::fs::read(program).unwrap(), "{what}");
        assert!(program.exists(), "{what}");
        assert_eq!(debuggee.end().0, Some(7), "{what}");
    });
}

/// A register that gdb changes is the one that the program goes on with.
#[test]
fn changed_registers() {
    each_of("threads", &["-static"], |guest, program, tier, what| {
        let result = match guest {
            Guest::Aarch64 => "x0",
            Guest::X86_64 => "rax",
            Guest::I386 => "eax",
        };
        let sum = |text: &str| -> i64 {
            let line = text.lines().find(|l| l.ends_with(" 2.5 x"));
            let word = line.and_then(|l| l.split(' ').next());
            word.and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("{what}: {text}"))
        };
        let quiet = "handle SIGUSR1 nostop noprint pass";
        let plain = session(program, tier, &[], &format!("{quiet}\ncontinue"));
        let script = format!(
            "{quiet}\nbreak work\ncontinue\nfinish\ndelete\nset var ${result} = ${result} + 1000\ncontinue"
        );
        let changed = session(program, tier, &[], &script);
        assert_eq!(sum(&changed.program), sum(&plain.program) + 1000, "{what}");
    });
}
