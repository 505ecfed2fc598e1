//! `tulk system` boots: the demonstration in every tier, and Debian's cloud kernel to user space.
//!
//! Firmware is Debian's (package seabios). The kernel and busybox are unpacked by `tests/kernels` under
//! `TULK_CACHE/kernels`; without them those tests are skipped, unless all tools are required.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Guest, Run, cache, compile_in, finish, missing, tulk};

fn firmware() -> bool {
    let there = Path::new("/usr/share/seabios/bios-256k.bin").exists();
    if !there {
        missing("seabios");
    }
    there
}

/// `tulk system options`, killed after `seconds`.
fn system(seconds: u32, options: &[&str]) -> Run {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &seconds.to_string()]).arg(tulk()).arg("system");
    command.args(options).stdin(Stdio::null());
    finish(command)
}

/// What the demonstration prints, behind what firmware printed before.
const DEMO: &str = "\
16 bits: real mode, booted by the firmware\r
32 bits: protected mode,  78498 primes below a million\r
64 bits: long mode, squares to 1000 sum to 333833500, in floats = the same\r
tulk boots PCs: tulk system [options] DISK\r
";

#[test]
fn the_demonstration_boots_in_every_tier() {
    if !firmware() {
        return;
    }
    for tier in ["interp", "baseline", "jit", "mixed"] {
        let run = system(120, &["-accel", &format!("tcg,tier={tier}")]);
        assert_eq!(run.status, 0, "{tier}: {}", run.errors());
        assert!(run.text().ends_with(DEMO), "{tier}: {}", run.text());
    }
}

#[test]
fn the_demonstration_boots_from_disk_and_floppy() {
    if !firmware() {
        return;
    }
    // As large as a floppy disk: with less than a cylinder firmware does not read virtio disks.
    let mut content = include_bytes!("../src/system/demo/demo.img").to_vec();
    content.resize(1440 << 10, 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let image = file.path().to_str().unwrap();
    let drive = format!("file={image},format=raw,snapshot=on");
    let virtio = format!("{drive},if=virtio");
    for options in [&["-snapshot", "-fda", image][..], &["-drive", &drive], &["-drive", &virtio]] {
        let run = system(120, options);
        assert_eq!(run.status, 0, "{options:?}: {}", run.errors());
        assert!(run.text().ends_with(DEMO), "{options:?}: {}", run.text());
    }
}

#[test]
fn a_processor_without_long_mode_says_so() {
    if !firmware() {
        return;
    }
    let run = system(120, &["-cpu", "pentium3"]);
    assert_eq!(run.status, 0, "{}", run.errors());
    assert!(run.text().contains("no long mode"), "{}", run.text());
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

/// A directory, file or device: name, mode, device number, content.
type Entry<'a> = (&'a str, u32, (u32, u32), &'a [u8]);

/// An archive in cpio's `newc` format.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let end = [("TRAILER!!!", 0, (0, 0), &[][..])];
    for (inode, (name, mode, device, content)) in entries.iter().chain(&end).enumerate() {
        let size = content.len() as u32;
        let (major, minor) = *device;
        let name_len = name.len() as u32 + 1;
        let fields = [inode as u32 + 1, *mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_len, 0];
        out.extend(b"070701");
        fields.iter().for_each(|field| out.extend(format!("{field:08x}").bytes()));
        out.extend(name.bytes().chain([0]));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(*content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// A kernel that is unpacked under `TULK_CACHE/folder`, and an initial RAM disk of busybox, these files in `/bin` and
/// this script.
fn linux(
    folder: &str,
    files: &[(&str, Vec<u8>)],
    script: &str,
) -> Option<(PathBuf, tempfile::NamedTempFile)> {
    let root = cache().join(folder);
    let kernel = std::fs::read_dir(root.join("boot")).ok().and_then(|entries| {
        let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        paths.find(|path| path.to_string_lossy().contains("vmlinuz"))
    });
    let busybox = std::fs::read(root.join("bin/busybox"));
    let (Some(kernel), Ok(busybox)) = (kernel, busybox) else {
        missing(&format!("Debian's kernel and busybox-static in {folder}"));
        return None;
    };
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
         mount -t proc proc /proc\nmount -t devtmpfs dev /dev\necho; echo BEGIN\n{script}"
    );
    let directory = |name| (name, 0o40755, (0, 0), &[][..]);
    let mut entries = vec![
        directory("bin"),
        directory("dev"),
        directory("mnt"),
        directory("proc"),
        directory("sys"),
        directory("tmp"),
        ("dev/console", 0o20600, (5, 1), &[]),
        ("dev/null", 0o20666, (1, 3), &[]),
        ("bin/busybox", 0o100755, (0, 0), &busybox),
        ("init", 0o100755, (0, 0), init.as_bytes()),
    ];
    let names: Vec<String> = files.iter().map(|(name, _)| format!("bin/{name}")).collect();
    for (name, (_, content)) in names.iter().zip(files) {
        entries.push((name, 0o100755, (0, 0), content));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), archive(&entries)).unwrap();
    Some((kernel, file))
}

/// Boots a kernel with this on its command line too, these options more and the script; how that ended.
fn start(
    folder: &str,
    words: &str,
    options: &[&str],
    files: &[(&str, Vec<u8>)],
    script: &str,
) -> Option<Run> {
    if !firmware() {
        return None;
    }
    let (kernel, initrd) = linux(folder, files, script)?;
    let append = format!("console=ttyS0 quiet panic=-1 {words}");
    let mut all = vec!["-m", "256", "-nographic", "-append", &append];
    all.extend(["-kernel", kernel.to_str().unwrap(), "-initrd", initrd.path().to_str().unwrap()]);
    all.extend(options);
    Some(system(300, &all))
}

/// What the script printed on this kernel.
fn boot_on(
    folder: &str,
    options: &[&str],
    files: &[(&str, Vec<u8>)],
    script: &str,
) -> Option<String> {
    let script = format!("{script}\necho END\npoweroff -f\n");
    let options = [&["-no-reboot"], options].concat();
    let run = start(folder, "loglevel=1", &options, files, &script)?;
    let text = run.text().replace('\r', "");
    assert_eq!(run.status, 0, "{folder}: {text}\n{}", run.errors());
    let printed = text.split_once("BEGIN\n").and_then(|(_, rest)| rest.split_once("END\n"));
    Some(printed.unwrap_or_else(|| panic!("{folder}: {text}")).0.to_string())
}

/// The same on the cloud kernel.
fn boot(options: &[&str], script: &str) -> Option<String> {
    boot_on("kernels", options, &[], script)
}

/// Whether tests that take minutes run too.
fn soak() -> bool {
    std::env::var_os("TULK_SOAK").is_some_and(|value| value == "yes")
}

#[test]
fn processors_behave_in_the_guest_as_natively() {
    for (folder, guest) in [
        ("kernels", Guest::X86_64),
        ("kernels-686-pae", Guest::I386),
        ("kernels-amd64", Guest::X86_64),
        ("kernels-686", Guest::I386),
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

/// Kernels that restart the machine: by request, and after a panic.
#[test]
fn linux_restarts() {
    for (words, script) in [("", "reboot -f"), ("", "echo c >/proc/sysrq-trigger")] {
        let Some(run) = start("kernels", words, &["-no-reboot"], &[], script) else { return };
        assert_eq!(run.status, 0, "{script}: {}\n{}", run.text(), run.errors());
        assert_eq!(run.text().matches("BEGIN").count(), 1, "{script}: {}", run.text());
    }
}

#[test]
fn linux_reaches_user_space_and_powers_off() {
    let script = "seq 1 1000 | sha256sum; awk 'BEGIN { printf \"%.6f\\n\", 355 / 113 }'; uname -m";
    let Some(printed) = boot(&[], script) else { return };
    let sum = "67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f  -";
    assert_eq!(printed, format!("{sum}\n3.141593\nx86_64\n"));
}

#[test]
fn linux_uses_two_processors() {
    let script =
        "grep -c ^processor /proc/cpuinfo; (seq 1 9999 | sha256sum) & seq 1 9999 | sha256sum; wait";
    let Some(printed) = boot(&["-smp", "2"], script) else { return };
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "2");
    assert_eq!(lines[1], lines[2]);
}

#[test]
fn linux_finds_memory_above_4_gib() {
    let script = "awk '/MemTotal/ { print ($2 > 5500000) }' /proc/meminfo";
    let Some(printed) = boot(&["-m", "6G"], script) else { return };
    assert_eq!(printed, "1\n");
}

/// A disk of one partition (MBR) with an ext4 file system of busybox and this `/sbin/init`; `None` without e2fsprogs.
fn disk(folder: &str, init: &str) -> Option<Vec<u8>> {
    let tree = tempfile::tempdir().unwrap();
    for name in ["bin", "dev", "proc", "sbin"] {
        std::fs::create_dir(tree.path().join(name)).unwrap();
    }
    let (busybox, script) = (tree.path().join("bin/busybox"), tree.path().join("sbin/init"));
    std::fs::copy(cache().join(folder).join("bin/busybox"), busybox).ok()?;
    std::os::unix::fs::symlink("busybox", tree.path().join("bin/sh")).unwrap();
    std::fs::write(&script, init).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let part = tempfile::NamedTempFile::new().unwrap();
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-d"]).args([tree.path(), part.path()]).arg("47m");
    if !make.status().is_ok_and(|status| status.success()) {
        missing("mke2fs of e2fsprogs");
        return None;
    }
    let mut disk = vec![0; 1 << 20];
    let content = std::fs::read(part.path()).unwrap();
    let sectors = (content.len() / 512) as u32;
    disk[446..454].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0xff, 0xff, 0xff]);
    disk[454..458].copy_from_slice(&2048u32.to_le_bytes());
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(content);
    Some(disk)
}

/// The modules of the cloud kernel that disks need, in the order to load them.
const MODULES: [&str; 11] = [
    "scsi/scsi_common",
    "scsi/scsi_mod",
    "scsi/sd_mod",
    "ata/libata",
    "ata/ata_piix",
    "virtio/virtio",
    "virtio/virtio_ring",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci",
    "block/virtio_blk",
];

fn modules(folder: &str) -> Option<Vec<(&'static str, Vec<u8>)>> {
    let mut all = std::fs::read_dir(cache().join(folder).join("lib/modules")).ok()?;
    let drivers = all.next()?.ok()?.path().join("kernel/drivers");
    let read = |path: &&'static str| {
        let content = std::fs::read(drivers.join(format!("{path}.ko"))).ok()?;
        Some((path.rsplit('/').next()?, content))
    };
    MODULES.iter().map(read).collect()
}

/// The root file system on a disk is written, and clean after power off.
#[test]
fn linux_runs_from_disks() {
    let init = "#!/bin/sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmkdir /data\n\
        seq 1 200000 >/data/numbers\nfor i in $(seq 1 50); do echo $i >/data/f$i; done\nrm /data/f7\n\
        sync\nmount -t proc proc /proc\necho 3 >/proc/sys/vm/drop_caches\nsha256sum </data/numbers\n\
        mount -o remount,ro /\necho END\npoweroff -f\n";
    let Some(files) = modules("kernels") else {
        missing("Debian's cloud kernel");
        return;
    };
    let Some(content) = disk("kernels", init) else { return };
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let script = format!(
        "for m in {}; do insmod /bin/$m; done\n\
         for i in 1 2 3 4 5; do [ -b /dev/${{DISK}}1 ] || sleep 1; done\n\
         mount /dev/${{DISK}}1 /mnt\nexec switch_root /mnt /sbin/init\n",
        names.join(" ")
    );
    let all = [("raw", "ide", "sda"), ("qcow2", "virtio", "vda"), ("raw", "virtio", "vda")];
    for (format, interface, name) in all.into_iter().take(if soak() { 3 } else { 2 }) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        let (raw, image) = (at("disk.raw"), at("disk"));
        std::fs::write(&raw, &content).unwrap();
        let convert = |from: &str, old: &str, to: &str, new: &str| {
            let mut command = Command::new(tulk());
            command.args(["img", "convert", "-f", from, "-O", to, old, new]);
            let run = finish(command);
            assert_eq!(run.status, 0, "{}", run.errors());
        };
        convert("raw", &raw, format, &image);
        let drive = format!("file={image},format={format},if={interface}");
        let options = ["-no-reboot", "-drive", &drive];
        let words = format!("DISK={name}");
        let Some(run) = start("kernels", &words, &options, &files, &script) else { return };
        assert_eq!(run.status, 0, "{drive}: {}\n{}", run.text(), run.errors());
        let mut expected = Command::new("sh");
        expected.args(["-c", "seq 1 200000 | sha256sum"]);
        let expected = finish(expected).text();
        assert!(run.text().contains(expected.trim()), "{drive}: {}", run.text());
        convert(format, &image, "raw", &raw);
        let part = at("part");
        std::fs::write(&part, &std::fs::read(&raw).unwrap()[1 << 20..]).unwrap();
        let mut check = Command::new("e2fsck");
        check.args(["-fn", &part]);
        let check = finish(check);
        assert_eq!(check.status, 0, "{drive}: {}", check.text());
        let mut list = Command::new("debugfs");
        list.args(["-R", "cat /data/f50", &part]);
        assert_eq!(finish(list).text(), "50\n", "{drive}");
    }
}
