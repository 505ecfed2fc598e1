//! Whole disks with Debian 12 (`tests/debian-disk`): firmware, GRUB, the kernel, systemd, a login on the serial port.

use crate::console::Console;
use crate::support::{cache, finish, missing, tulk};
use crate::{firmware, soak};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Where the partition begins, in bytes.
const PARTITION: u64 = 1 << 20;

/// What the guest compiles and runs; every number is the same on any machine.
const PROGRAM: &str = r#"
#include <math.h>
#include <stdio.h>
int main(void) {
    unsigned primes = 0;
    for (unsigned n = 2; n < 100000; n++) {
        unsigned d = 2;
        while (d * d <= n && n % d) d++;
        primes += d * d > n;
    }
    double sum = 0;
    for (int n = 1; n <= 1000; n++) sum += sqrt(n);
    printf("%u primes, roots sum to %.9f\n", primes, sum);
}
"#;

const SCRIPT: &str = "\
import hashlib, json, math, subprocess, threading\n\
total = [0] * 4\n\
def work(n):\n    total[n] = sum(i * i for i in range(n, 100000, 4))\n\
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]\n\
[t.start() for t in threads]; [t.join() for t in threads]\n\
print(json.dumps({'sum': sum(total), 'pi': math.pi}), hashlib.sha256(b'tulk' * 100000).hexdigest()[:16])\n\
print(subprocess.run(['uname', '-s'], capture_output=True, text=True).stdout.strip(), 3 ** 200 % 1000007)\n";

/// Runs a host's command, which must succeed.
fn run(command: &mut Command) -> String {
    let mut owned = Command::new(command.get_program());
    owned.args(command.get_args());
    let run = finish(owned);
    assert_eq!(run.status, 0, "{command:?}: {}{}", run.text(), run.errors());
    run.text()
}

/// From GRUB's menu to a shell.
fn log_in(console: &mut Console) {
    console.expect("Debian", 120);
    console.expect("tulk login: ", 900);
    console.send("root");
    console.expect("Password: ", 120);
    console.send("tulk");
    console.expect("root@tulk:~# ", 120);
    // Long lines would be broken by the shell's editor.
    console.send("stty -echo cols 500; PS1=");
}

/// From power-on to power-off on a disk of this architecture, on IDE and one processor or on virtio and two.
fn whole_disk(arch: &str, interface: &str) {
    if !soak() || !firmware() {
        return;
    }
    let (format, processors, card) = match interface {
        "ide" => ("raw", "1", "user,model=e1000"),
        _ => ("qcow2", "2", "user,model=virtio-net-pci"),
    };
    let original = cache().join(format!("disk-{arch}/disk.raw"));
    if !original.exists() {
        missing(&format!("Debian's disk for {arch} (tests/debian-disk)"));
        return;
    }
    let folder = tempfile::tempdir_in(cache()).unwrap();
    let image = folder.path().join("disk");
    let convert = |from: &str, old: &Path, to: &str, new: &Path| {
        run(Command::new(tulk()).args(["img", "convert", "-f", from, "-O", to]).args([old, new]));
    };
    convert("raw", &original, format, &image);

    let drive = format!("file={},format={format},if={interface}", image.to_str().unwrap());
    let options = ["-m", "512", "-smp", processors, "-nic", card, "-drive", &drive];
    let start = Instant::now();
    let mut console = Console::start(&options);
    log_in(&mut console);
    println!("{arch} on {interface}: login after {:?}", start.elapsed());
    console.send("reboot");
    console.expect("reboot: Restarting system\n", 300);
    log_in(&mut console);
    println!("{arch} on {interface}: login again after {:?}", start.elapsed());
    for (name, text) in [("p.c", PROGRAM), ("s.py", SCRIPT)] {
        console.send(&format!("cat >{name} <<'END OF FILE'\n{text}\nEND OF FILE"));
    }
    let (printed, status) = console.command("gcc -O2 p.c -o p -lm && ./p", 300);
    assert_eq!((printed.as_str(), status), ("9592 primes, roots sum to 21097.455887481\n", 0));
    let (printed, status) = console.command("python3 s.py", 300);
    let expected =
        "{\"sum\": 333328333350000, \"pi\": 3.141592653589793} fd21a404570d0187\nLinux 959082\n";
    assert_eq!((printed.as_str(), status), (expected, 0));
    let (printed, _) = console.command("systemctl --failed --no-legend; uname -m; nproc", 120);
    let machine = if arch == "amd64" { "x86_64" } else { "i686" };
    assert_eq!(printed, format!("{machine}\n{processors}\n"));
    let address =
        "for i in $(seq 60); do ip -br -4 addr | grep -q 10.0.2.15/24 && break; sleep 1; done";
    assert_eq!(console.command(&format!("{address}; [ $i -lt 60 ]"), 120).1, 0, "no address");
    let (printed, status) = console.command("seq 300000 >numbers; sha256sum <numbers", 120);
    assert_eq!(status, 0);
    console.send("poweroff");
    let (text, status) = console.finish(300);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("reboot: Power down"), "{text}");
    println!("{arch} on {interface}: off after {:?}", start.elapsed());

    // What the guest left: a clean file system that holds what it wrote.
    let raw = folder.path().join("raw");
    convert(format, &image, "raw", &raw);
    let part = folder.path().join("part");
    let block = format!("bs={PARTITION}");
    run(Command::new("dd")
        .args([&block, "skip=1", "conv=sparse", "status=none"])
        .args([format!("if={}", raw.display()), format!("of={}", part.display())]));
    run(Command::new("e2fsck").arg("-fn").arg(&part));
    let show = |what: &str| run(Command::new("debugfs").args(["-R", what]).arg(&part));
    assert!(show("stats -h").contains("Filesystem state:         clean"));
    let numbers = folder.path().join("numbers");
    std::fs::write(&numbers, show("cat /root/numbers")).unwrap();
    assert_eq!(run(Command::new("sha256sum").arg(&numbers)).get(..64), printed.get(..64));
}

#[test]
fn debian_amd64_on_ide() {
    whole_disk("amd64", "ide");
}

#[test]
fn debian_amd64_on_virtio() {
    whole_disk("amd64", "virtio");
}

#[test]
fn debian_i386_on_ide() {
    whole_disk("i386", "ide");
}

#[test]
fn debian_i386_on_virtio() {
    whole_disk("i386", "virtio");
}
