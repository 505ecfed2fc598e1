//! tulk under QEMU's names: the options and variables that scripts use, with QEMU's spelling.

mod support;

use std::path::PathBuf;
use std::process::Command;
use support::{Guest, Run, compile, finish, missing, tulk};

/// A link named `qemu-aarch64` to tulk, and the program that shows what it was started with.
struct Qemu {
    dir: tempfile::TempDir,
    show: PathBuf,
}

impl Qemu {
    fn new() -> Option<Qemu> {
        if !Guest::Aarch64.has_compiler() {
            missing(Guest::Aarch64.compiler());
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(tulk(), dir.path().join("qemu-aarch64")).unwrap();
        Some(Qemu { dir, show: compile(Some(Guest::Aarch64), "show") })
    }
    /// Runs `qemu-aarch64 options PROGRAM arguments`.
    fn run(&self, variables: &[(&str, &str)], options: &[&str], arguments: &[&str]) -> Run {
        let mut command = Command::new(self.dir.path().join("qemu-aarch64"));
        command.args(options).arg(&self.show).args(arguments).env_clear();
        command.env("KEPT", "1").envs(variables.iter().copied()).current_dir(self.dir.path());
        finish(command)
    }
    fn line(&self, run: Run, key: &str) -> String {
        assert_eq!(run.status, 0, "{}", run.errors());
        let text = run.text();
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).into()
    }
}

#[test]
fn arguments_and_names() {
    let Some(q) = Qemu::new() else { return };
    assert_eq!(q.line(q.run(&[], &[], &["-strace", "b c"]), "args"), "-strace|b c|");
    assert_eq!(q.line(q.run(&[], &["-0", "other"], &[]), "argv0"), "other");
    assert_eq!(q.line(q.run(&[], &["-0", "-sh"], &[]), "argv0"), "-sh");
    assert_eq!(q.line(q.run(&[("QEMU_ARGV0", "named")], &[], &[]), "argv0"), "named");
}

#[test]
fn environment() {
    let Some(q) = Qemu::new() else { return };
    assert_eq!(q.line(q.run(&[], &["-E", "A=1,B=2"], &["A"]), "env"), "1");
    assert_eq!(q.line(q.run(&[], &["-E", "A=1", "-E", "KEPT=3"], &["KEPT"]), "env"), "3");
    assert_eq!(q.line(q.run(&[], &["-U", "KEPT"], &["KEPT"]), "env"), "(none)");
    assert_eq!(q.line(q.run(&[("QEMU_SET_ENV", "A=9")], &[], &["A"]), "env"), "9");
    assert_eq!(q.line(q.run(&[("QEMU_UNSET_ENV", "KEPT")], &[], &["KEPT"]), "env"), "(none)");
}

#[test]
fn kernel_and_stack() {
    let Some(q) = Qemu::new() else { return };
    assert_eq!(q.line(q.run(&[], &["-r", "6.9.0"], &[]), "release"), "6.9.0");
    assert_eq!(q.line(q.run(&[("QEMU_UNAME", "5.5.5")], &[], &[]), "release"), "5.5.5");
    assert_eq!(q.line(q.run(&[], &[], &[]), "machine"), "aarch64");
    assert_eq!(q.run(&[], &["-s", "16M"], &["-stack", "12"]).status, 0);
    assert_eq!(q.run(&[("QEMU_STACK_SIZE", "16M")], &[], &["-stack", "12"]).status, 0);
    assert_eq!(q.run(&[], &["-s", "1M"], &["-stack", "12"]).status, -SIGSEGV);
}

const SIGSEGV: i32 = 11;

#[test]
fn cpu() {
    let Some(q) = Qemu::new() else { return };
    let atomics = |run: Run| q.line(run, "atomics");
    assert_eq!(atomics(q.run(&[], &["-cpu", "max"], &[])), "1");
    assert_eq!(atomics(q.run(&[], &["-cpu", "cortex-a53"], &[])), "0");
    assert_eq!(atomics(q.run(&[("QEMU_CPU", "cortex-a72")], &[], &[])), "0");
    assert_eq!(q.run(&[], &["-cpu", "6502"], &[]).status, 2);
}

#[test]
fn traces_and_logs() {
    let Some(q) = Qemu::new() else { return };
    for run in [q.run(&[], &["-strace"], &[]), q.run(&[("QEMU_STRACE", "1")], &[], &[])] {
        assert!(run.errors().contains("exit_group(0"), "{}", run.errors());
    }
    let log = q.dir.path().join("log");
    for variables in [&[][..], &[("QEMU_LOG", "in_asm"), ("QEMU_LOG_FILENAME", "log")]] {
        let options: &[&str] =
            if variables.is_empty() { &["-d", "in_asm", "-D", "log"] } else { &[] };
        let run = q.run(variables, options, &[]);
        assert_eq!((run.status, run.errors()), (0, String::new()));
        assert!(std::fs::read_to_string(&log).unwrap().contains("svc"));
        std::fs::remove_file(&log).unwrap();
    }
}

#[test]
fn sysroot() {
    let Some(q) = Qemu::new() else { return };
    std::fs::create_dir(q.dir.path().join("root")).unwrap();
    std::fs::write(q.dir.path().join("root/only-there"), "found").unwrap();
    assert_eq!(q.line(q.run(&[], &["-L", "root"], &["-read", "/only-there"]), "read"), "found");
    let run = q.run(&[("QEMU_LD_PREFIX", "root")], &[], &["-read", "/only-there"]);
    assert_eq!(q.line(run, "read"), "found");
    // The folder of the first program is not that of those it starts.
    let run = q.run(&[], &["-L", "root"], &["-elsewhere", "-read", "/only-there"]);
    assert_eq!(q.line(run, "read"), "found");
}

#[test]
fn version_and_mistakes() {
    let Some(q) = Qemu::new() else { return };
    let run = q.run(&[], &["-version"], &[]);
    assert_eq!(run.status, 0);
    assert!(run.text().starts_with("tulk "), "{}", run.text());
    let run = q.run(&[], &["-nonsense"], &[]);
    assert_eq!(run.status, 2);
    assert_eq!(run.errors().lines().count(), 1, "{}", run.errors());
}

#[test]
fn lists_need_no_program() {
    for (options, word) in [(["--cpu", "help"], "i386: "), (["-d", "help"], "in_asm ")] {
        let mut command = Command::new(tulk());
        command.arg("run").args(options);
        let run = finish(command);
        assert_eq!(run.status, 0, "{}", run.errors());
        assert!(run.text().contains(word), "{}", run.text());
    }
    for options in [&[][..], &["--cpu", "max"]] {
        let mut command = Command::new(tulk());
        command.arg("run").args(options);
        assert_eq!(finish(command).status, 2);
    }
}

/// `tulk run OPTIONS -D log PROGRAM`; the log.
fn log_of(q: &Qemu, options: &[&str], program: &str) -> String {
    let log = q.dir.path().join("items");
    let mut command = Command::new(tulk());
    command.arg("run").args(options).arg("-D").arg(&log);
    command.arg(compile(Some(Guest::Aarch64), program));
    let run = finish(command);
    assert_eq!(run.errors(), "", "{options:?}");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    text
}

/// Each item of `-d` shows what it is for.
#[test]
fn log_items() {
    let Some(q) = Qemu::new() else { return };
    let help = finish({
        let mut command = Command::new(tulk());
        command.args(["run", "-d", "help", "x"]);
        command
    });
    for (item, program, signs) in [
        ("in_asm", "show", &["IN: 0x", "svc", "mov x29, #0"][..]),
        ("ir", "show", &["lifted:", "unit 0x", " set x29, "]),
        ("ir_opt", "show", &["optimised:", "unit 0x"]),
        ("out_asm", "show", &["OUT: region at 0x", "movq"]),
        ("exec", "show", &["exec 0x"]),
        ("cpu", "show", &["system call at pc 0x", " x8=", " sp="]),
        ("int", "hostile", &["trap at pc 0x0", "Unmapped", "signal 11 ends the program"]),
        ("unimp", "hostile", &["illegal instruction at 0x"]),
        ("page", "show", &["memory map", "[stack]", "show"]),
        ("strace", "show", &["exit_group(0) = ?", "uname("]),
    ] {
        let text = log_of(&q, &["--threshold", "1", "-d", item], program);
        for sign in signs {
            assert!(text.contains(sign), "-d {item} has no {sign}:\n{:.2000}", text);
        }
        assert!(help.text().contains(&format!("\n{item} ")) || help.text().starts_with(item));
    }
    let both = log_of(&q, &["-d", "int,unimp", "-d", "strace"], "hostile");
    assert!(both.contains("unimp: ") && both.contains("int: ") && both.contains("brk("));
}

/// Calls, flags, errors, signals and ends as strace shows them; each line whole, though children share the log.
#[test]
fn strace_lines() {
    let Some(q) = Qemu::new() else { return };
    let text = log_of(&q, &["--strace"], "signals");
    for line in text.lines() {
        let (pid, rest) = line.split_once(' ').unwrap_or_else(|| panic!("odd line {line}"));
        assert!(pid.parse::<u32>().is_ok(), "odd line {line}");
        let end = [" ---", " +++", ">", " = ?", ")"].iter().any(|e| rest.ends_with(e));
        assert!(end || rest.contains(") = "), "odd line {line}");
    }
    for sign in [
        "rt_sigprocmask(SIG_BLOCK, [USR1], [], 8) = 0\n",
        "rt_sigpending([USR1], 8) = 0\n",
        "{si_signo=SIGUSR1, si_code=SI_TKILL, si_pid=",
        "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x10} ---\n",
        "--- SIGRT_5 {si_signo=SIGRT_5, si_code=SI_QUEUE, ",
        "sa_flags=SA_SIGINFO}, NULL, 8) = 0\n",
        "= ? ERESTARTNOHAND (To be restarted if no handler)\n",
        "[WIFSIGNALED(s) && WTERMSIG(s) == SIGTERM], 0, NULL) = ",
        "clone(CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, ",
        "mprotect(0x",
        "exit_group(0) = ?\n",
        "+++ exited with 0 +++\n",
        "+++ killed by SIGSEGV +++\n",
        " <unfinished ...>\n",
        " <... read resumed>, ",
    ] {
        assert!(text.contains(sign), "no {sign} in\n{text}");
    }
}

/// Structures by their main fields, for every guest.
#[test]
fn strace_structures() {
    for guest in Guest::ALL {
        if !guest.has_compiler() {
            missing(guest.compiler());
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new(tulk());
        command.args(["run", "--strace", "-D"]).arg(&log).arg(compile(Some(guest), "files"));
        command.current_dir(dir.path());
        let run = finish(command);
        assert_eq!(run.status, 0, "{}", run.errors());
        let text = std::fs::read_to_string(&log).unwrap();
        // Newer C libraries of 32-bit guests ask by statx, and i386's sends through socketcall.
        let stat = "_mode=S_IFREG|0640, st";
        assert!(text.contains(stat) && text.contains("_size=106, ...}"), "{guest:?}: {text}");
        for sign in [
            "EPOLL_CTL_ADD, ",
            "{events=EPOLLIN, data=0x1122334455667788}) = 0\n",
            "[{events=EPOLLIN, data=0x1122334455667788}, {events=EPOLLOUT, data=0x2a}], 4, 1000",
        ] {
            assert!(text.contains(sign), "{guest:?}: no {sign} in\n{text}");
        }
        for sign in [
            "{msg_name=NULL, msg_iov=[\"one\" (3), \"two\" (3)], msg_control=\"",
            "{msg_name=NULL, msg_iov=[\"onetwo\" (",
        ] {
            let shown = text.contains(sign) || guest == Guest::I386;
            assert!(shown, "{guest:?}: no {sign} in\n{text}");
        }
    }
}

/// What the parent ignores or blocks stays so, in spite of tulk's own runtime.
#[test]
fn inherited_signals() {
    let Some(q) = Qemu::new() else { return };
    let program = compile(Some(Guest::Aarch64), "show");
    for (setup, shown) in [("trap '' PIPE", "1"), ("trap - PIPE", "0")] {
        let mut command = Command::new("sh");
        let line = format!("{setup}; exec \"$@\"");
        command.args(["-c", &line, "sh"]).arg(tulk()).arg("run").arg(&program);
        command.current_dir(q.dir.path());
        assert_eq!(q.line(finish(command), "sigpipe"), shown);
    }
}
