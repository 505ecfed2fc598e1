//! Options of `tulk system` at work: what boots, what the screen in the terminal shows, what trouble of the host leads to.

mod support;

use rustix::pty::OpenptFlags;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::console::{Machine, PATIENCE, boot_image, firmware};
use support::{missing, tulk};

/// Says a letter on COM1 and resets the machine by the keyboard controller.
fn says_and_resets(letter: u8) -> Vec<u8> {
    let code = [
        0xba, 0xf8, 0x03, 0xb0, letter, 0xee, // mov dx, 0x3f8; mov al, letter; out dx, al
        0xb0, 0xfe, 0xe6, 0x64, // mov al, 0xfe; out 0x64, al
        0xf4, 0xeb, 0xfd, // hlt; jmp back
    ];
    boot_image(&code)
}

/// Writes 64 sectors from LBA 8 on by the BIOS; says K on COM1, or E for an error.
fn writes() -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
        0xb4, 0x43, 0xb0, 0x00, 0xb2, 0x80, // mov ah, 0x43; mov al, 0; mov dl, 0x80
        0xbe, 0x40, 0x7c, 0xcd, 0x13, // mov si, 0x7c40; int 0x13
        0xb0, b'K', 0x73, 0x02, 0xb0, b'E', // mov al, 'K'; jnc 1f; mov al, 'E'
        0xba, 0xf8, 0x03, 0xee, // 1: mov dx, 0x3f8; out dx, al
        0xfa, 0xf4, 0xeb, 0xfd, // cli; hlt; jmp back
    ];
    code.resize(0x40, 0);
    // The packet: 64 sectors from 0:0x7c00, which begins with this code, to LBA 8.
    code.extend([0x10, 0, 64, 0, 0x00, 0x7c, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
    boot_image(&code)
}

struct Images(tempfile::TempDir);

impl Images {
    fn new(images: &[(&str, Vec<u8>)]) -> Images {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in images {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        Images(folder)
    }
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }
    /// A `-drive` with this image and these sub-options.
    fn drive(&self, name: &str, more: &str) -> String {
        format!("file={},format=raw{more}", self.path(name))
    }
}

#[test]
fn the_first_boot_may_be_from_elsewhere() {
    if !firmware() {
        return;
    }
    let images = Images::new(&[("floppy", says_and_resets(b'F')), ("disk", says_and_resets(b'D'))]);
    let (floppy, disk) = (images.drive("floppy", ",if=floppy"), images.drive("disk", ""));
    let drives = ["-drive", &floppy, "-drive", &disk];
    let mut m = Machine::start(&[&drives[..], &["-boot", "order=c,once=a"]].concat());
    m.serial_until("FDD");
    assert_eq!(m.ask("boot_set a"), "");
    m.serial_until("DF");
    assert!(m.serial().starts_with("FDD"), "{}", m.serial());
    assert_eq!(m.end("quit"), 0);
}

#[test]
fn devices_boot_in_the_order_of_bootindex() {
    if !firmware() {
        return;
    }
    let images = Images::new(&[("ide", says_and_resets(b'I')), ("virtio", says_and_resets(b'V'))]);
    let ide = images.drive("ide", ",if=none,id=i");
    let virtio = images.drive("virtio", ",if=none,id=v");
    for (first, second, letter) in [(1, 2, "I"), (2, 1, "V")] {
        let ide_device = format!("ide-hd,drive=i,bus=ide.1,bootindex={first}");
        let virtio_device = format!("virtio-blk-pci,drive=v,addr=9,bootindex={second}");
        let mut m = Machine::start(&[
            "-no-reboot",
            "-drive",
            &ide,
            "-drive",
            &virtio,
            "-device",
            &ide_device,
            "-device",
            &virtio_device,
        ]);
        assert_eq!(m.wait(), 0, "{}", m.errors());
        assert_eq!(m.serial(), letter);
    }
}

#[test]
fn after_power_off_the_machine_may_stay() {
    if !firmware() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pidfile = folder.path().join("pid");
    let options = ["-no-shutdown", "-pidfile", pidfile.to_str().unwrap(), "-uuid"];
    let uuid = "12345678-1234-1234-1234-123456789abc";
    let mut m = Machine::start(&[&options[..], &[uuid]].concat());
    m.ask_until("info status", "VM status: paused (shutdown)");
    let pid: u32 = std::fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
    assert!(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("system"));
    assert_eq!(m.ask("info uuid"), format!("{uuid}\n"));
    assert_eq!(m.serial().matches("tulk boots PCs").count(), 1);
    assert!(m.ask("cont").contains("system_reset"));
    assert_eq!(m.ask("system_reset"), "");
    assert_eq!(m.ask("cont"), "");
    m.ask_until("info status", "VM status: paused (shutdown)");
    assert_eq!(m.serial().matches("tulk boots PCs").count(), 2);
    assert_eq!(m.end("quit"), 0);
    assert!(!pidfile.exists());
}

#[test]
fn messages_have_time_and_name() {
    if !firmware() {
        return;
    }
    let options = ["-S", "-msg", "timestamp=on,guest-name=on", "-name", "web,process=vm-web"];
    let mut m = Machine::start(&options);
    let mut kill = Command::new("kill");
    assert!(kill.args(["-TERM", &m.child.id().to_string()]).status().unwrap().success());
    m.wait();
    let errors = m.errors();
    let line = errors.lines().last().unwrap_or_default();
    assert!(line.ends_with("Z web tulk system: terminating on signal 15"), "{errors}");
    let stamp = line.split(' ').next().unwrap().as_bytes();
    assert_eq!((stamp.len(), stamp[10], stamp[19]), (27, b'T', b'.'), "{errors}");
}

/// Shows `Hi` by the BIOS, then each key.
const TYPES: &[u8] = &[
    0xb4, 0x0e, 0xb0, b'H', 0xcd, 0x10, 0xb0, b'i', 0xcd, 0x10, // mov ah, 0x0e; ... int 0x10
    0xb4, 0x00, 0xcd, 0x16, // mov ah, 0; int 0x16
    0xb4, 0x0e, 0xcd, 0x10, 0xeb, 0xf6, // mov ah, 0x0e; int 0x10; jmp back
];

#[test]
fn the_screen_is_in_the_terminal() {
    if !firmware() {
        return;
    }
    let images = Images::new(&[("disk", boot_image(TYPES))]);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    let size = rustix::termios::Winsize { ws_row: 25, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size).unwrap();
    let before = rustix::termios::tcgetattr(&slave).unwrap().local_modes;
    let end = || Stdio::from(slave.try_clone().unwrap());
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", "200"]).arg(tulk());
    command.args(["system", "-display", "curses", "-nic", "none"]);
    command.args(["-drive", &images.drive("disk", "")]);
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    let mut terminal = std::fs::File::from(master);
    let mut reader = terminal.try_clone().unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let text = seen.clone();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut part) {
            text.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..n]));
        }
    });
    let until = |word: &str| {
        let start = Instant::now();
        while !seen.lock().unwrap().contains(word) {
            assert!(start.elapsed() < PATIENCE, "no {word:?}: {:?}", seen.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("Hi");
    let raw = rustix::termios::tcgetattr(&slave).unwrap().local_modes;
    assert_ne!(raw, before);
    terminal.write_all(b"t").unwrap();
    until("Hit");
    terminal.write_all(b"U").unwrap();
    until("HitU");
    terminal.write_all(b"\x01x").unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < PATIENCE, "Ctrl-A x does not end it");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{:?}", seen.lock().unwrap());
    until("\x1b[?1049l");
    assert_eq!(rustix::termios::tcgetattr(&slave).unwrap().local_modes, before);
}

#[test]
fn without_a_terminal_there_is_no_curses() {
    if !firmware() {
        return;
    }
    let mut command = Command::new(tulk());
    let run = support::finish({
        command.args(["system", "-display", "curses"]).stdin(Stdio::null());
        command
    });
    assert_eq!(run.status, 1);
    assert!(run.errors().contains("needs one"), "{}", run.errors());
}

/// A folder on a file system of its own that is full but for what a file `room` holds.
fn full_disk(image: Vec<u8>) -> Option<Mounted> {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("full");
    std::fs::create_dir(&at).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&at).stderr(Stdio::null());
    if !mount.status().is_ok_and(|status| status.success()) {
        missing("the right to mount a tmpfs");
        return None;
    }
    let mounted = Mounted(folder);
    let disk = std::fs::File::create(mounted.path("disk")).unwrap();
    (&disk).write_all(&image[..512]).unwrap();
    disk.set_len(image.len() as u64).unwrap();
    let mut room = std::fs::File::create(mounted.path("room")).unwrap();
    while room.write_all(&[0; 4096]).is_ok() {}
    Some(mounted)
}

struct Mounted(tempfile::TempDir);

impl Mounted {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join("full").join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path().join("full")).status();
    }
}

#[test]
fn a_full_disk_pauses_the_machine() {
    if !firmware() {
        return;
    }
    for interface in ["ide", "virtio"] {
        let Some(disk) = full_disk(writes()) else { return };
        let drive = format!("file={},format=raw,if={interface}", disk.path("disk").display());
        let mut m = Machine::start(&["-drive", &drive]);
        m.ask_until("info status", "VM status: paused (io-error)");
        assert!(m.errors().contains("write failed: No space left on device"), "{}", m.errors());
        assert!(m.ask("info registers").contains("CPU#0"), "it can be looked at");
        assert_eq!(m.ask("cont"), "");
        m.ask_until("info status", "VM status: paused (io-error)");
        assert_eq!(m.serial(), "", "{interface}");
        std::fs::remove_file(disk.path("room")).unwrap();
        assert_eq!(m.ask("cont"), "");
        m.serial_until("K");
        assert_eq!(m.end("quit"), 0, "{}", m.errors());
        let content = std::fs::read(disk.path("disk")).unwrap();
        assert_eq!(content[8 * 512..9 * 512], content[..512], "{interface}: nothing was lost");
    }
}

#[test]
fn the_guest_may_be_told_instead() {
    if !firmware() {
        return;
    }
    let Some(disk) = full_disk(writes()) else { return };
    let drive = format!("file={},format=raw,werror=report", disk.path("disk").display());
    let mut m = Machine::start(&["-drive", &drive]);
    m.serial_until("E");
    assert_eq!(m.ask("info status"), "VM status: running\n");
    assert!(m.errors().contains("(the guest is told)"), "{}", m.errors());
    m.end("quit");
}

/// Errors of the host that are not a full disk: here a limit on the size of files.
#[test]
fn other_errors_reach_the_guest() {
    if !firmware() {
        return;
    }
    let images = Images::new(&[("disk", writes())]);
    let pidfile = images.path("pid");
    let drive = images.drive("disk", "");
    // Its own limit comes behind its own memory.
    let mut m = Machine::start(&["-S", "-pidfile", &pidfile, "-drive", &drive]);
    let start = Instant::now();
    let pid = loop {
        match std::fs::read_to_string(&pidfile) {
            Ok(pid) if pid.ends_with('\n') => break pid,
            _ => assert!(start.elapsed() < PATIENCE),
        }
    };
    let mut limit = Command::new("prlimit");
    limit.args(["--pid", pid.trim(), "--fsize=4096"]);
    if !limit.status().is_ok_and(|status| status.success()) {
        missing("prlimit of util-linux");
        return;
    }
    assert_eq!(m.ask("cont"), "");
    m.serial_until("E");
    assert_eq!(m.ask("info status"), "VM status: running\n");
    assert!(m.errors().contains("File too large") && m.errors().contains("(the guest is told)"));
    m.end("quit");
}
