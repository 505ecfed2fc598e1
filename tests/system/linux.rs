//! Debian's kernels, started directly: processors, memory, restarts.

use crate::initramfs::{boot, boot_on, console, start};
use crate::soak;
use crate::support::{Guest, compile_in, finish, missing};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn processors_behave_in_the_guest_as_natively() {
    for (folder, guest) in [
        ("kernels", Guest::X86_64),
        ("kernels-686-pae", Guest::I386),
        ("kernels-amd64", Guest::X86_64),
        ("kernels-686", Guest::I386),
        ("kernels-backports", Guest::X86_64),
    ] {
        if folder != "kernels" && !soak() {
            continue;
        }
        if !guest.has_compiler() || !guest.is_native() {
            missing(guest.compiler());
            continue;
        }
        let program = compile_in("system", Some(guest), "selftest");
        let native = finish(Command::new(&program));
        assert_eq!(native.status, 0, "{}", native.errors());
        let files = [("selftest", std::fs::read(&program).unwrap())];
        let Some(printed) = boot_on(folder, &[], &files, "selftest") else { continue };
        assert_eq!(printed, native.text(), "{folder}");
    }
}

/// Runs each line that is typed.
const SHELL: &str = "while read line; do eval \"$line\"; done\n";

/// Kernels that restart the machine: by request, and after a panic. Each way twice, so that the second start is known
/// to be as good as the first.
#[test]
fn linux_restarts() {
    let ways = ["", "reboot=acpi", "reboot=kbd", "reboot=triple", "reboot=pci"];
    for words in ways.into_iter().take(if soak() { ways.len() } else { 1 }) {
        let Some((mut machine, _file)) = console("kernels", words, &["-smp", "2"], SHELL) else {
            return;
        };
        for _ in 0..2 {
            machine.expect("BEGIN\n", 240);
            machine.send("reboot -f");
            machine.expect("reboot: Restarting system\n", 120);
            machine.expect("BEGIN\n", 240);
            machine.send("echo c >/proc/sysrq-trigger");
            machine.expect("Kernel panic - not syncing: sysrq triggered crash\n", 120);
        }
        machine.expect("BEGIN\n", 240);
        machine.send("poweroff -f");
        let (text, status) = machine.finish(120);
        assert_eq!(status, Some(0), "{words}: {text}");
        assert_eq!(text.matches("BEGIN\n").count(), 5, "{words}: {text}");
        assert!(text.contains("reboot: Power down"), "{words}: {text}");
    }
}

/// The same where a reset ends the machine.
#[test]
fn restarts_end_the_machine() {
    for (script, word) in [
        ("reboot -f", "reboot: Restarting system"),
        ("echo c >/proc/sysrq-trigger", "Kernel panic - not syncing: sysrq triggered crash"),
    ] {
        let Some(run) = start("kernels", "", &["-no-reboot"], &[], script) else { return };
        assert_eq!(run.status, 0, "{script}: {}\n{}", run.text(), run.errors());
        let text = run.text();
        let (before, after) = text.split_once(word).unwrap_or_else(|| panic!("{script}: {text}"));
        assert_eq!(before.matches("BEGIN").count(), 1, "{script}: {text}");
        assert!(!after.contains("BEGIN"), "{script}: {text}");
    }
}

/// A minute in which all processors compute: the guest's clocks against the host's.
#[test]
fn clocks_are_right_under_load() {
    if !soak() {
        return;
    }
    let Some((mut machine, _file)) = console("kernels", "", &["-smp", "2"], SHELL) else { return };
    machine.expect("BEGIN\n", 240);
    machine.send("for i in 1 2 3; do while :; do seq 1 999 | sha256sum; done >/dev/null & done");
    let mut clocks = || {
        machine.send("echo CLO''CKS $(cut -d' ' -f1 /proc/uptime) $(date +%s) DO''NE");
        machine.expect("CLOCKS ", 60);
        let now = Instant::now();
        let text = machine.expect(" DONE", 60);
        let (uptime, date) = text.split_once(' ').unwrap();
        (now, uptime.parse::<f64>().unwrap(), date.parse::<f64>().unwrap())
    };
    let first = clocks();
    std::thread::sleep(Duration::from_secs(70));
    let last = clocks();
    let host = last.0.duration_since(first.0).as_secs_f64();
    let (uptime, date) = (last.1 - first.1, last.2 - first.2);
    println!("{host:.2} s on the host, {uptime:.2} s and {date} s in the guest");
    assert!((uptime / host - 1.0).abs() < 0.01, "{uptime} s in the guest, {host} s on the host");
    // Its resolution is a second.
    assert!((date - host).abs() < 1.0 + host / 100.0, "{date} s by its date, {host} s");
}

#[test]
fn linux_reaches_user_space_and_powers_off() {
    let script = "seq 1 1000 | sha256sum; awk 'BEGIN { printf \"%.6f\\n\", 355 / 113 }'; uname -m";
    let Some(printed) = boot(&[], script) else { return };
    let sum = "67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f  -";
    assert_eq!(printed, format!("{sum}\n3.141593\nx86_64\n"));
}

#[test]
fn linux_uses_all_processors() {
    let script = "grep -c ^processor /proc/cpuinfo\n\
        for i in 1 2 3 4; do (seq 1 9999 | sha256sum) & done; wait\n\
        for i in 0 1 2 3; do taskset $((1 << i)) true 2>/dev/null && echo on $i; done\n";
    let mut sum = Command::new("sh");
    sum.args(["-c", "seq 1 9999 | sha256sum"]);
    let sum = finish(sum).text();
    for processors in [2, 4] {
        let Some(printed) = boot(&["-smp", &processors.to_string()], script) else { return };
        let on: String = (0..processors).map(|n| format!("on {n}\n")).collect();
        assert_eq!(printed, format!("{processors}\n{}{on}", sum.repeat(4)));
    }
}

#[test]
fn linux_finds_all_memory() {
    // One below the hole under 4 GiB, one beyond it.
    for (size, least) in [("3G", 2_900_000), ("6G", 5_900_000)] {
        // Files in memory, which Linux takes from the top.
        let script = format!(
            "awk '/MemTotal/ {{ print ($2 > {least}) }}' /proc/meminfo\n\
             mount -t tmpfs -o size=90% none /mnt\n\
             seq 1 2000000 >/tmp/s; for i in $(seq 1 8); do cp /tmp/s /mnt/$i; done\n\
             cat /mnt/* | sha256sum; for i in 1 2 3 4 5 6 7 8; do cat /tmp/s; done | sha256sum\n"
        );
        let Some(printed) = boot(&["-m", size], &script) else { return };
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines[0], "1", "{size}: {printed}");
        assert_eq!(lines[1], lines[2], "{size}: {printed}");
    }
}
