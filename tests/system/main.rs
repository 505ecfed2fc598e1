//! `tulk system` boots: the demonstration, Debian's kernels, boot loaders, whole disks with Debian.
//!
//! Firmware is Debian's (package seabios). Kernels and busybox are unpacked by `tests/kernels` and `tests/packages` under
//! `TULK_CACHE`, disks are made there by `tests/debian-disk`; without them those tests are skipped, unless all tools are
//! required.

#[path = "../support/mod.rs"]
mod support;

mod console;
mod debian;
mod demo;
mod disks;
mod initramfs;
mod linux;
mod loaders;
mod network;

use std::path::Path;
use std::process::{Command, Stdio};
use support::{Run, finish, missing, tulk};

fn firmware() -> bool {
    let there = Path::new("/usr/share/seabios/bios-256k.bin").exists();
    if !there {
        missing("seabios");
    }
    there
}

/// Whether tests that take minutes run too.
fn soak() -> bool {
    std::env::var_os("TULK_SOAK").is_some_and(|value| value == "yes")
}

/// `tulk system options`, killed after `seconds`.
fn system(seconds: u32, options: &[&str]) -> Run {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &seconds.to_string()]).arg(tulk()).arg("system");
    command.args(options).stdin(Stdio::null());
    finish(command)
}

#[test]
fn what_is_missing_is_named() {
    for (options, word) in [
        (&["-bios", "no-such.bin"][..], "package seabios"),
        (&["-spice", "port=1"], "-spice"),
        (&["-kernel", "/nonexistent/vmlinuz"], "/nonexistent/vmlinuz"),
        (&["-kernel", "/bin/sh"], "/bin/sh"),
        (&["/nonexistent/disk"], "/nonexistent/disk"),
        (&["-cpu", "z80"], "z80"),
        (&["-netdev", "user,id=n,fish=1"], "fish"),
        (&["-device", "e1000,netdev=n9"], "n9"),
        (&["-device", "e1000,mac=01:00:00:00:00:01"], "group"),
        (&["-device", "sb16"], "sb16"),
        (&["-device", "virtconsole,chardev=c"], "virtio-serial-pci"),
        (&["-device", "isa-debug-exit,iobase=0x12345"], "0x12345"),
        (&["-device", "virtio-rng-pci,max-bytes=1"], "max-bytes"),
    ] {
        let run = system(20, options);
        assert_eq!(run.status, 1, "{options:?}");
        assert!(run.errors().contains(word), "{options:?}: {}", run.errors());
    }
}
