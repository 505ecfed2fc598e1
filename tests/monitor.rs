//! The monitor of `tulk system`: what it says of a machine whose state is known, and what it does to it.

mod support;

use std::io::Read;
use support::console::{Machine, boot_image, firmware};
use support::wait_for;

/// Puts known values into registers, says so on COM1, and halts with interrupts off; behind the halt it says X.
const HALTS: &[u8] = &[
    0xfa, // cli
    0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, // mov eax, 0x12345678
    0x66, 0xbb, 0x0d, 0xf0, 0xad, 0xde, // mov ebx, 0xdeadf00d
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0x88, 0xc1, // mov cl, al
    0xb0, b'B', 0xee, // mov al, 'B'; out dx, al
    0x88, 0xc8, // mov al, cl
    0xf4, // hlt
    0xb0, b'X', 0xee, // mov al, 'X'; out dx, al
    0xf4, 0xeb, 0xfd, // hlt; jmp back
];

/// Says each key on COM1 that the BIOS reads.
const ECHOES: &[u8] = &[
    0xba, 0xf8, 0x03, 0xb0, b'>', 0xee, // mov dx, 0x3f8; mov al, '>'; out dx, al
    0xb4, 0x00, 0xcd, 0x16, // mov ah, 0; int 0x16
    0xba, 0xf8, 0x03, 0xee, // mov dx, 0x3f8; out dx, al
    0xeb, 0xf6, // jmp back
];

/// Prints without end on the debug console.
const PRINTS: &[u8] = &[
    0xb0, b'x', // mov al, 'x'
    0xe6, 0xe9, 0xeb, 0xfc, // out 0xe9, al; jmp back
];

fn image(code: &[u8]) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), boot_image(code)).unwrap();
    let option = format!("file={},format=raw", file.path().display());
    (file, option)
}

#[test]
fn a_machine_at_its_reset() {
    if !firmware() {
        return;
    }
    let options =
        ["-S", "-smp", "2", "-m", "64", "-name", "n1", "-rtc", "base=2006-06-17T16:01:21"];
    let mut m = Machine::start(&options);
    assert_eq!(m.ask("info status"), "VM status: paused (prelaunch)\n");
    let registers = m.ask("info registers");
    for line in [
        "CPU#0",
        "EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0",
        "ES =0000 00000000 0000ffff 00009300",
        "CS =f000 ffff0000 0000ffff 00009300",
        "LDT=0000 00000000 0000ffff 00008200",
        "TR =0000 00000000 0000ffff 00008b00",
        "GDT=     00000000 0000ffff",
        "CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000",
        "DR6=00000000ffff0ff0 DR7=0000000000000400",
        "EFER=0000000000000000",
        "FCW=0040 FSW=0000 [ST=0] FTW=ff MXCSR=00001f80",
    ] {
        assert!(registers.lines().any(|l| l == line), "{line}\nis not in\n{registers}");
    }
    let all = m.ask("info registers -a");
    assert!(all.contains("CPU#0\n") && all.contains("CPU#1\n"), "{all}");
    assert!(m.ask("info cpus").starts_with("* CPU #0: thread_id="));
    assert_eq!(m.ask("cpu 1"), "");
    assert!(m.ask("info cpus").contains("\n* CPU #1: thread_id="));
    assert!(m.ask("info registers").starts_with("CPU#1\n"));
    assert!(m.ask("cpu 2").starts_with("Error: "));
    assert!(m.ask("info registers 9").starts_with("Error: "));
    m.ask("cpu 0");
    assert_eq!(m.ask("print/x $pc"), "0xfffffff0\n");
    assert_eq!(m.ask("p $eip"), "0xfff0\n");
    assert_eq!(m.ask("p/d -(1 + 2) * 3"), "-9\n");
    // The reset vector is a far jump.
    let code = m.ask("x/1i $pc");
    assert!(code.starts_with("0xfffffff0:  ea ") && code.contains("ljmp"), "{code}");
    assert!(m.ask("x/2xb 0xfffffff0").starts_with("00000000fffffff0: 0xea "));
    assert_eq!(m.ask("info mem"), "PG disabled\n");
    assert_eq!(m.ask("gva2gpa 0x1234"), "gpa: 0x1234\n");
    assert_eq!(m.ask("info name"), "n1\n");
    assert_eq!(m.ask("info uuid"), "00000000-0000-0000-0000-000000000000\n");
    assert_eq!(m.ask("info version"), format!("{}\n", env!("CARGO_PKG_VERSION")));
    let lapic = m.ask("info lapic");
    assert!(lapic.contains("APIC_BASE 0xfee00900 (xAPIC), ID 0x0"), "{lapic}");
    assert!(m.ask("info lapic 1").contains("APIC_BASE 0xfee00800 (xAPIC), ID 0x1"));
    for (what, word) in [
        ("pic", "ioapic pin 23"),
        ("mtree", "address-space: I/O"),
        ("qtree", "bus: pci.0"),
        ("pci", "8086:1237"),
        ("block", "ide0-hd0: "),
        ("chardev", "serial0: filename=file:"),
        ("roms", "bios-256k.bin: 0x40000 bytes"),
        ("irq", "IRQ statistics"),
    ] {
        let answer = m.ask(&format!("info {what}"));
        assert!(answer.contains(word), "info {what}: {answer}");
    }
    // The clock stands still with the machine: year, month, day, hour.
    for (register, value) in [(9, "0x06"), (8, "0x06"), (7, "0x17"), (4, "0x16")] {
        assert_eq!(m.ask(&format!("o/b 0x70 {register}")), "");
        assert_eq!(m.ask("i/b 0x71"), format!("portb[0x0071] = {value}\n"));
    }
    let dump = m.path("dump");
    assert_eq!(m.ask(&format!("pmemsave 0xfffffff0 16 {}", dump.display())), "");
    let dump = std::fs::read(dump).unwrap();
    assert_eq!((dump.len(), dump[0]), (16, 0xea));
    for (wrong, word) in [
        ("nonsense", "unknown command: 'nonsense'"),
        ("info nonsense", "unknown command: 'info nonsense'"),
        ("x/3q 0", "no format 'q'"),
        ("x $zz", "no register $zz"),
        ("sendkey nokey", "unknown key: 'nokey'"),
        ("eject ide0-hd0", "is not removable"),
        ("eject nothing", "not found"),
        ("pmemsave 0 4 /nonexistent/file", "/nonexistent/file"),
        ("screendump /nonexistent/file", "/nonexistent/file"),
        ("boot_set xyz", "'xyz'"),
        ("system_powerdown", "does not listen"),
    ] {
        let answer = m.ask(wrong);
        assert!(answer.starts_with("Error: ") && answer.contains(word), "{wrong}: {answer}");
    }
    let help = m.ask("help");
    for command in ["info WHAT", "xp /FORMAT", "sendkey KEYS", "stop|s", "quit|q"] {
        assert!(help.contains(command), "{command}: {help}");
    }
    assert!(m.ask("help info").contains("info registers [-a|CPU] -- "));
    assert_eq!(m.ask("help nmi"), "nmi -- press the NMI button\n");
    assert_eq!(m.end("quit"), 0);
}

#[test]
fn a_halted_processor_is_looked_at_and_stays_halted() {
    if !firmware() {
        return;
    }
    let (_file, drive) = image(HALTS);
    let mut m = Machine::start(&["-drive", &drive]);
    m.serial_until("B");
    m.ask_until("info cpus", "(halted)");
    for _ in 0..3 {
        let registers = m.ask("info registers");
        assert!(registers.contains("EAX=12345678 EBX=deadf00d"), "{registers}");
        assert!(registers.contains("EIP=00007c18") && registers.contains("HLT=1"), "{registers}");
    }
    assert_eq!(m.ask("xp/4xb 0x7c00"), "0000000000007c00: 0xfa 0x66 0xb8 0x78\n");
    assert_eq!(m.ask("x/2xh 0x7c00"), "0000000000007c00: 0x66fa 0x78b8\n");
    let code = m.ask("x/2i 0x7c00");
    assert!(code.contains("fa") && code.contains("cli") && code.contains("$0x12345678"), "{code}");
    assert_eq!(m.ask("stop"), "");
    assert_eq!(m.ask("info status"), "VM status: paused (paused)\n");
    assert_eq!(m.ask("cont"), "");
    assert_eq!(m.ask("info status"), "VM status: running\n");
    assert_eq!(m.serial(), "B", "only an event wakes it");
    m.ask("nmi");
    m.serial_until("X");
    // What the BIOS wrote, in its font.
    let picture = m.path("screen.png");
    assert_eq!(m.ask(&format!("screendump {}", picture.display())), "");
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(picture).unwrap()))
            .read_info()
            .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (640, 400));
    let grey = pixels.as_chunks::<3>().0.iter().filter(|p| **p == [0xaa; 3]).count();
    assert!((500..50_000).contains(&grey), "{grey} pixels of letters");
    // A reset begins anew.
    m.ask("system_reset");
    m.serial_until("BXB");
    assert_eq!(m.end("quit"), 0);
}

#[test]
fn keys_reach_the_guest() {
    if !firmware() {
        return;
    }
    let (_file, drive) = image(ECHOES);
    let mut m = Machine::start(&["-drive", &drive]);
    m.serial_until(">");
    for (keys, said) in [("a", ">a"), ("shift-b", ">aB"), ("kp_add", ">aB+"), ("ret", ">aB+\r")] {
        assert_eq!(m.ask(&format!("sendkey {keys} 20")), "");
        m.serial_until(said);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(m.end("quit"), 0);
}

#[test]
fn media_are_changed() {
    if !firmware() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    for (name, sectors) in [("a.iso", 40), ("b.iso", 80), ("floppy", 2880)] {
        std::fs::write(at(name), vec![0; sectors * 512]).unwrap();
    }
    let (_file, drive) = image(HALTS);
    let (a, b, floppy) = (at("a.iso"), at("b.iso"), at("floppy"));
    let floppy_drive = format!("if=floppy,file={floppy},format=raw");
    let mut m = Machine::start(&["-drive", &drive, "-cdrom", &a, "-drive", &floppy_drive]);
    let block = m.ask("info block");
    assert!(block.contains(&format!("ide1-cd0: {a} (raw, read-only)")), "{block}");
    assert!(block.contains("Removable device: not locked, tray closed"), "{block}");
    assert!(block.contains(&format!("floppy0: {floppy} (raw)")), "{block}");
    assert_eq!(m.ask("eject ide1-cd0"), "");
    assert!(m.ask("info block").contains("ide1-cd0: [not inserted]"));
    assert_eq!(m.ask(&format!("change ide1-cd0 {b}")), "");
    assert!(m.ask("info block").contains(&b));
    assert_eq!(m.ask("eject floppy0"), "");
    assert!(m.ask("info block").contains("floppy0: [not inserted]"));
    assert_eq!(m.ask(&format!("change floppy0 {floppy} raw read-only")), "");
    assert!(m.ask("info block").contains(&format!("floppy0: {floppy} (raw, read-only)")));
    let wrong = m.ask("change ide1-cd0 /nonexistent/cd");
    assert!(wrong.starts_with("Error: ") && wrong.contains("/nonexistent/cd"), "{wrong}");
    assert!(m.ask("info block").contains(&b), "the old one stays");
    assert_eq!(m.end("quit"), 0);
}

/// Of a process and all its threads, in clock ticks.
fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// A processor that waits for a host which reads nothing of its output is still there for the monitor, and loses nothing.
#[test]
fn a_console_that_nobody_reads() {
    if !firmware() {
        return;
    }
    let (_file, drive) = image(PRINTS);
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut reader = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let console = format!("file:{}", fifo.display());
    let mut m = Machine::start(&["-drive", &drive, "-debugcon", &console]);
    let pid = m.child.id();
    let stuck = || {
        wait_for("the guest's wait", || {
            let before = processor_time(pid);
            std::thread::sleep(std::time::Duration::from_millis(400));
            processor_time(pid) <= before + 2
        });
    };
    let said = || rustix::io::ioctl_fionread(&reader).unwrap() > 0;
    wait_for("output", said);
    stuck();
    assert_eq!(m.ask("stop"), "");
    assert!(m.ask("info registers").contains("EAX="));
    assert_eq!(m.ask("cont"), "");
    stuck();
    assert!(m.ask("info registers").contains("EAX="), "of a machine that runs");
    let mut bytes = vec![0; 3 << 20];
    reader.read_exact(&mut bytes).unwrap();
    let text = bytes.iter().position(|&byte| byte == b'x').unwrap();
    assert!(bytes[text..].iter().all(|&byte| byte == b'x'));
    stuck();
    assert_eq!(m.end("quit"), 0);
}
