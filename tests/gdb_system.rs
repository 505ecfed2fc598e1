//! Real `gdb-multiarch` sessions with `tulk system`: firmware and the demonstration from the reset vector to long mode, a small kernel
//! of our own (`tests/guest/gdb/kernel.c`) with full debugging information, and Debian's kernel with symbols. What gdb prints is searched for the lines that it must print, in order.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::gdb_machine::{Machine, TIERS, expect, kernel, marked, tools};
use support::initramfs::linux;
use support::packets::{self, Spoiler};

/// A packet, behind the acknowledgement of the one before.
fn packet(body: &[u8]) -> Vec<u8> {
    [b"+".as_slice(), &packets::packet(body)].concat()
}

/// Firmware's first instruction, the boot sector, protected and long mode of the demonstration.
#[test]
fn modes_from_the_reset_vector_on() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/system/demo");
    let (object, symbols) = (dir.path().join("demo.o"), dir.path().join("demo"));
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("as").args(["--64", "-o"]).arg(&object).arg(folder.join("demo.S")));
    run(Command::new("ld")
        .args(["-Ttext", "0x7c00", "-e", "_start", "-o"])
        .args([&symbols, &object]));
    for tier in TIERS {
        let machine =
            Machine::start(&["-S", "-display", "none", "-accel", &format!("tcg,tier={tier}")]);
        let script = "set architecture i8086\nprintf \"at %x:%x %x\\n\", $cs, $ip, $pc\nx/i $pc\nstepi\nx/i $pc\n\
            printf \"at %x:%x\\n\", $cs, $ip\np $cr0\nbreak *0x7c00\ncontinue\nx/i $pc\n\
            printf \"boot %x:%x pe=%d\\n\", $cs, $ip, $cr0 & 1\nstepi\nx/i $pc\n\
            break protected\ncontinue\nset architecture i386\nx/i $pc\nprintf \"protected %x pe=%d\\n\", $cs, $cr0 & 1\n\
            stepi\nx/i $pc\nset architecture i386:x86-64\nbreak long_mode\ncontinue\nx/i $pc\np $efer\np $cr0\np $cr4\n\
            info registers rip\ndelete\ncontinue";
        let out = machine.gdb(Some(&symbols), script);
        expect(
            &out,
            &[
                "at f000:fff0 fffffff0",
                "0xfffffff0:\tljmp   $0xf000,$0xe05b",
                "0xfe05b:",
                "at f000:e05b",
                "[ ET NW CD ]",
                "Breakpoint 1, 0x00007c00",
                "ljmp   $0x0,$0x7c05",
                "boot 0:7c00 pe=0",
                "0x7c05",
                "cli",
                "Breakpoint 2,",
                "mov    $0x10,%ax",
                "protected 8 pe=1",
                "mov    %eax,%ds",
                "Breakpoint 3,",
                "<long_mode>:",
                "[ LME LMA ]",
                "PE ",
                " PG ]",
                "PAE",
                "<long_mode>",
                "exited normally",
            ],
        );
        let (status, text) = machine.end();
        assert_eq!(status, Some(0), "{text}");
    }
}

#[test]
fn breakpoints_and_data() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &[]) else { return };
    for tier in TIERS {
        let machine = Machine::kernel(&kernel, &["-accel", &format!("tcg,tier={tier}")]);
        let script = "break kernel\ncontinue\nbt\np number\nbreak work if i == 3\ncontinue\nbt\nfinish\n\
            p $xmm0.v2_int64[0] = 0x1122334455667788\np/x $xmm0.v2_int64[0]\ndelete\nwatch global\ncontinue\np $pc\ncontinue\n\
            delete\nrwatch number\ncontinue\ndelete\nhbreak hard\ncontinue\np number\nset var number = 10\np number\n\
            p $st0\np $ymm15\ninfo line\nawatch faults\ncontinue\nbt 1\ndelete\ncontinue";
        let out = machine.gdb(Some(&kernel), script);
        expect(
            &out,
            &[
                "0x00000000fffffff0",
                "Breakpoint 1, kernel ()",
                "#0  kernel ()",
                "#1  0x",
                "in start64 ()",
                "$1 = 2.5",
                "Breakpoint 2, work (i=",
                "#0  work (i=",
                "#1  0x",
                " outer (i=",
                "in kernel ()",
                "Value returned is ",
                "0x1122334455667788",
                "Hardware watchpoint 3: global",
                "Old value = ",
                "New value = ",
                "work ",
                "Hardware watchpoint 3: global",
                "Old value = ",
                "Hardware read watchpoint 4: number",
                "Value = 2.5",
                "Breakpoint 5, hard ()",
                " = 5\n",
                " = 10\n",
                "Hardware access (read/write) watchpoint 6: faults",
                "on_page_fault",
                "exited with code 07",
            ],
        );
        assert_eq!(machine.end().0, Some(7), "{tier}");
    }
}

/// A false condition, looked at 10,000 times.
#[test]
fn conditional_breakpoint() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &[]) else { return };
    let machine = Machine::kernel(&kernel, &[]);
    let script = "break work if ++$hits < 0\nset var $hits = 0\ncontinue\np $hits";
    let out = machine.gdb(Some(&kernel), script);
    expect(&out, &["exited with code 07", "$1 = 10000"]);
    assert_eq!(machine.end().0, Some(7));
}

/// Each step through repeated strings, changed code and a page fault, and after 1,000 of them all registers are what they
/// are at the same place of a run without steps.
#[test]
fn steps() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &[]) else { return };
    let mut whole = Vec::new();
    for tier in TIERS {
        let accel = format!("tcg,tier={tier}");
        let print = "echo == registers\\n\ninfo registers\necho ==\\n\n";
        let script = "break hard\ncontinue\ndelete\nset var $n = 0\nwhile $n < 70\nprintf \"at %lx %lx %lx\\n\", $pc, $rcx, $rax\n\
            stepi\nset var $n = $n + 1\nend\nkill";
        let machine = Machine::kernel(&kernel, &["-accel", &accel]);
        let out = machine.gdb(Some(&kernel), script);
        machine.end();
        let trace: Vec<Vec<u64>> = marked(&out, "at ")
            .iter()
            .map(|l| l.split(' ').map(|w| u64::from_str_radix(w, 16).unwrap()).collect())
            .collect();
        assert_eq!(trace.len(), 70, "{out}");
        // 37 iterations at one place, counting down.
        let copy: Vec<&Vec<u64>> =
            trace.windows(2).filter(|w| w[0][0] == w[1][0]).map(|w| &w[0]).collect();
        assert_eq!(copy.len(), 36, "{out}");
        assert!(copy.iter().zip((2..=37).rev()).all(|(at, n)| at[1] == n), "{out}");
        // The instruction was changed by the one before.
        let changed = trace.windows(2).find(|w| w[1][2] == 7).expect("seven");
        assert_eq!(changed[1][0] - changed[0][0], 5, "{out}");
        if whole.is_empty() {
            whole = trace;
        } else {
            assert_eq!(whole, trace, "{tier}");
        }
        let script = format!(
            "break kernel\ncontinue\ndelete\nset var $n = 0\nwhile $n < 1000\nstepi\nset var $n = $n + 1\n\
             printf \"at %lx\\n\", $pc\nend\n{print}kill"
        );
        let machine = Machine::kernel(&kernel, &["-accel", &accel]);
        let stepped = machine.gdb(Some(&kernel), &script);
        machine.end();
        let trace = marked(&stepped, "at ");
        assert_eq!(trace.len(), 1000, "{stepped}");
        let last = trace[999];
        let before = trace.iter().filter(|pc| **pc == last).count() - 1;
        let script = format!(
            "break kernel\ncontinue\nbreak *0x{last}\nignore 2 {before}\ncontinue\n{print}kill"
        );
        let machine = Machine::kernel(&kernel, &["-accel", &accel]);
        let unbroken = machine.gdb(Some(&kernel), &script);
        machine.end();
        let registers = |out: &str| -> String {
            let behind = out.split("== registers\n").nth(1).unwrap_or_default().to_string();
            behind.split("==\n").next().unwrap_or_default().to_string()
        };
        assert!(registers(&stepped).contains("k_gs_base"), "{stepped}");
        assert_eq!(registers(&stepped), registers(&unbroken), "{tier}");
    }
}

/// Steps pass interrupts by unless told otherwise; HLT is a step like others.
#[test]
fn steps_and_interrupts() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &[]) else { return };
    let machine = Machine::kernel(&kernel, &[]);
    let script = "maintenance packet qqemu.sstepbits\nmaintenance packet qqemu.sstep\nbreak spin\nbreak idle\ncontinue\ndelete 2\n\
        set var $n = 0\nwhile $_caller_is(\"kernel\", 1) == 0 || $n < 12\nif *(unsigned char *) $pc == 0xf4\nprintf \"hlt %d\\n\", $n\nend\n\
        stepi\nset var $n = $n + 1\nend\np ticks\ncontinue\n\
        set var $n = 0\nset var $t = ticks\nwhile $n < 500\nstepi\nset var $n = $n + 1\nend\nprintf \"over %d\\n\", ticks - $t\n\
        maintenance packet Qqemu.sstep=1\nmaintenance packet qqemu.sstep\nset var $n = 0\n\
        while $n < 5000 && $pc != (unsigned long) &on_timer\nstepi\nset var $n = $n + 1\nend\nx/i $pc\nprintf \"if=%d\\n\", ($eflags >> 9) & 1\n\
        continue";
    let out = machine.gdb(Some(&kernel), script);
    expect(
        &out,
        &[
            "received: \"ENABLE=1,NOIRQ=2,NOTIMER=4\"",
            "received: \"0x7\"",
            "Breakpoint 2, idle",
            "hlt ",
            "Breakpoint 1, spin",
            "over 0",
            "received: \"OK\"",
            "received: \"0x1\"",
            "<on_timer>",
            "if=0",
            "exited with code 07",
        ],
    );
    assert_eq!(machine.end().0, Some(7));
}

/// Virtual and physical addresses, pages that are not there, code that gdb writes.
#[test]
fn memory() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &[]) else { return };
    let machine = Machine::kernel(&kernel, &[]);
    let script = "break hard\ncontinue\np/x *(unsigned long *) ((char *) &global + 0xffffffff80000000) == global\n\
        x/x 0x200000000\nset var *(int *) 0x200000000 = 1\nset var global = 0x1234\nmaintenance packet qqemu.PhyMemMode\n\
        maintenance packet Qqemu.PhyMemMode:1\nmaintenance packet qqemu.PhyMemMode\np/x *(int *) &global\nx/xh 0x200000000\n\
        x/xh 0xfffffff0\nmaintenance packet Qqemu.PhyMemMode:0\n\
        x/xw 0xfee00030\nprintf \"accessed %d\\n\", top[511] >> 5 & 1\n\
        set var *(unsigned char *) (resume) = 0xf4\nx/i resume\nset var *(unsigned char *) (resume) = 0x90\nx/i resume\n\
        set var $cr3 = $cr3\nset var $fs_base = 0x1234\np/x $fs_base\nset var $ds = 16\np $ds\nset var $cr8 = 5\np $cr8\nset var $cr8 = 0\n\
        set var $cr0 = 0x80000000\np $cr0\ncontinue";
    let out = machine.commands(Some(&kernel), script);
    expect(
        &out,
        &[
            "$1 = 0x1",
            "received: \"0\"",
            "received: \"OK\"",
            "received: \"1\"",
            "$2 = 0x1234",
            "0xfffffff0:\t0x5bea",
            "received: \"OK\"",
            "hlt",
            "nop",
            "= 0x1234",
            "= 16",
            "= 5",
            "[ PE ",
            "exited with code 07",
        ],
    );
    assert!(out.matches("Cannot access memory at address 0x200000000").count() == 3, "{out}");
    // A device is not read.
    expect(&out, &["Cannot access memory at address 0xfee00030"]);
    expect(&out, &["Could not write register \"cr0\""]);
    assert_eq!(machine.end().0, Some(7));
}

/// Two processors, in different modes; one steps while the other stands.
#[test]
fn processors() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &["-DSECOND"]) else { return };
    let machine = Machine::kernel(&kernel, &["-smp", "2"]);
    let script = "info threads\nwatch counter\ncontinue\ndelete\ninfo threads\nthread 2\nset architecture i8086\nx/i $pc\n\
        set architecture i386:x86-64\nset scheduler-locking on\nset var $a = *(unsigned short *) 0x7f00\nset var $b = counter\n\
        thread 1\nstepi 200\nset var $same = *(unsigned short *) 0x7f00 == $a\nprintf \"first %d %d\\n\", $same, counter > $b\n\
        set var $b = counter\nthread 2\nstepi 20\nprintf \"second %d %d\\n\", *(unsigned short *) 0x7f00 - $a, counter == $b\n\
        set scheduler-locking off\nbreak *0x8000\ncontinue\ninfo threads\ndelete\nset var $a = *(unsigned short *) 0x7f00\nthread 1\n\
        stepi\nbreak *0x8004\ncontinue\nkill";
    let out = machine.gdb(Some(&kernel), script);
    expect(
        &out,
        &[
            "* 1    Thread 1.1 (CPU#0 [running])",
            "  2    Thread 1.2 (CPU#1 ",
            "Hardware watchpoint 1: counter",
            "* 1    Thread 1.1 (CPU#0 [running])",
            "  2    Thread 1.2 (CPU#1 [running])",
            "0x80",
            "first 1 1",
            "second 10 1",
            "hit Breakpoint 2, 0x0000000000008000",
            "* 2    Thread 1.2",
            "hit Breakpoint 3, 0x0000000000008004",
            "killed",
        ],
    );
    assert_eq!(machine.end().0, Some(0));
}

/// A client goes and comes; another vanishes; the last one kills.
#[test]
fn clients_come_and_go() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &["-DSECOND"]) else { return };
    let machine = Machine::kernel(&kernel, &["-smp", "2"]);
    let out = machine.gdb(Some(&kernel), "break second\ncontinue\ndetach");
    expect(&out, &["Breakpoint 1, second ()", "detached"]);
    std::thread::sleep(Duration::from_millis(500));
    // It runs on, and is stopped at once where it is.
    let count = "printf \"counter %lu\\n\", counter\n";
    let first = machine.gdb(Some(&kernel), &format!("{count}watch number\ndetach"));
    let number = |out: &str| -> u64 {
        marked(out, "counter ")
            .first()
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("{out}"))
    };
    std::thread::sleep(Duration::from_millis(300));
    // This one vanishes while the guest runs.
    let mut raw = UnixStream::connect(machine.socket()).unwrap();
    raw.write_all(&packet(b"vCont;c")).unwrap();
    let mut answer = [0; 1];
    raw.read_exact(&mut answer).unwrap();
    drop(raw);
    std::thread::sleep(Duration::from_millis(300));
    let again = machine.gdb(Some(&kernel), count);
    assert!(number(&again) > number(&first), "{first}\n{again}");
    // This one while it stands, with a breakpoint, which goes with it. (The session before ended by the end of gdb's script.)
    let mut raw = UnixStream::connect(machine.socket()).unwrap();
    raw.write_all(&packet(b"Z0,8000,1")).unwrap();
    raw.read_exact(&mut answer).unwrap();
    drop(raw);
    std::thread::sleep(Duration::from_millis(300));
    let stands = number(&machine.gdb(Some(&kernel), count));
    assert!(stands > number(&again));
    let out = machine.gdb(Some(&kernel), "kill");
    expect(&out, &["killed"]);
    let (status, text) = machine.end();
    assert_eq!(status, Some(0), "{text}");
}

/// A step over a fault, an interrupt's instruction or a system call leads to the first instruction of its handler, and from the handler's
/// last one back.
#[test]
fn steps_into_handlers() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &[]) else { return };
    for tier in TIERS {
        let machine = Machine::kernel(&kernel, &["-accel", &format!("tcg,tier={tier}")]);
        let script = "break *(resume - 10)\ncontinue\nstepi\ninfo symbol $pc\nstepi 3\ninfo symbol $pc\nstepi\nprintf \"resume %d\\n\", $pc == (unsigned long) resume\n\
             break *(char *) &call\ncontinue\nstepi\ninfo symbol $pc\nstepi 2\nprintf \"fast %d\\n\", $pc == (unsigned long) &fast\n\
             stepi\ninfo symbol $pc\nprintf \"to %d\\n\", $rcx == (unsigned long) &back\nstepi 2\nprintf \"back %d\\n\", $pc == (unsigned long) &back\np calls\n\
             delete\ncontinue";
        let out = machine.gdb(Some(&kernel), script);
        expect(
            &out,
            &[
                "on_page_fault in section",
                "on_page_fault + ",
                "resume 1",
                "on_call in section",
                "fast 1",
                "on_syscall in section",
                "to 1",
                "back 1",
                "$1 = 2",
                "exited with code 07",
            ],
        );
        assert_eq!(machine.end().0, Some(7), "{tier}");
    }
}

/// Every command that a debugger's user expects, with what it must show.
#[test]
fn monitor_commands() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &["-DSECOND"]) else { return };
    let machine = Machine::kernel(&kernel, &["-smp", "2", "-device", "virtio-rng-pci"]);
    let ask = "echo == \\n\nmonitor ";
    let commands = [
        ("help", &["system_reset", "info tb", "info devices", "xp", "quit"][..]),
        ("info registers", &["RIP=", "CR3=", "EFER=", "GDT="]),
        ("info mem", &["0000000000000000-", "rw"]),
        ("info tlb", &["0000000000200000: 0000000000200000"]),
        ("info irq", &["IRQ statistics for isa:\n 0: "]),
        ("info pic", &["pic0:", "pic1:", "irr="]),
        ("info lapic", &["LVT0", "SPIV"]),
        ("info devices", &["PCI device", "0000000000000000-"]),
        ("info tb", &["blocks"]),
        ("xp /2xg &global", &[]),
        ("xp /4xb 0xfffffff0", &["0xea 0x5b 0xe0 0x00"]),
        ("x /2i $pc", &["0x"]),
        ("nonsense", &["unknown command: 'nonsense'"]),
    ];
    let script: String = commands.iter().map(|(c, _)| format!("{ask}{c}\n")).collect();
    // The machine is reset and comes to the same place again; then it ends.
    let script = format!(
        "break second\ncontinue\n{script}echo == \\n\nmonitor system_reset\nflushregs\nprintf \"at %lx\\n\", $pc\ncontinue\n\
         printf \"rounds %d\\n\", global > 1\nmonitor quit"
    );
    let out = machine.commands(Some(&kernel), &script);
    let mut answers = out.split("== \n").skip(1);
    for (command, lines) in commands {
        let answer = answers.next().unwrap_or_else(|| panic!("{command}: {out}"));
        for line in lines {
            assert!(answer.contains(line), "{command}: no `{line}` in\n{answer}");
        }
    }
    // The kernel has waited for three ticks of the timer.
    let ticks = out.split(" 0: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<u32>().ok());
    assert!(ticks.is_some_and(|n| n >= 3), "{out}");
    expect(answers.next().unwrap(), &["at fffffff0", "Breakpoint 1, second ()", "rounds 1"]);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn ctrl_c_and_monitor() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(kernel) = kernel(dir.path(), &["-DSECOND"]) else { return };
    let machine = Machine::kernel(&kernel, &["-smp", "2"]);
    let mut raw = UnixStream::connect(machine.socket()).unwrap();
    raw.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut text = Vec::new();
    let mut until = |raw: &mut UnixStream, what: &str| {
        let mut byte = [0; 1];
        while !String::from_utf8_lossy(&text).contains(what) {
            raw.read_exact(&mut byte).unwrap_or_else(|e| panic!("{what}: {e}"));
            text.push(byte[0]);
        }
        text.clear();
    };
    for _ in 0..20 {
        raw.write_all(&packet(b"vCont;c")).unwrap();
        until(&mut raw, "+");
        std::thread::sleep(Duration::from_millis(20));
        raw.write_all(&[3]).unwrap();
        until(&mut raw, "$T02");
    }
    drop(raw);
    let script = "monitor help\nmonitor info registers\nmonitor info pic\nmonitor xp /4xb 0xfffffff0\nmonitor nonsense\n\
        monitor system_reset\nprintf \"at %lx\\n\", $pc\nflushregs\nprintf \"at %lx\\n\", $pc\nbreak kernel\ncontinue\nmonitor quit";
    let out = machine.commands(Some(&kernel), script);
    expect(
        &out,
        &[
            "system_reset",
            "CR0=",
            "pic0:",
            "0xea 0x5b 0xe0 0x00",
            "nonsense",
            "at fffffff0",
            "Breakpoint 1, kernel",
        ],
    );
    assert_eq!(machine.end().0, Some(0));
}

/// Whatever comes in, the machine can be debugged afterwards.
#[test]
fn garbage() {
    if !tools() {
        return;
    }
    const BODIES: &[&[u8]] = &[
        b"qSupported:multiprocess+;swbreak+;hwbreak+",
        b"?",
        b"Hgp1.1",
        b"Hg0",
        b"Hg2",
        b"g",
        b"p0",
        b"p63",
        b"P0=1122334455667788",
        b"P12=0800",
        b"Pff=00",
        b"G0011",
        b"m500,10",
        b"mfff0,ffff",
        b"mffffffffffffffff,10",
        b"M500,2:aabb",
        b"X500,2:ab",
        b"Z0,10,4",
        b"z0,10,4",
        b"Z1,fffffff0,4",
        b"Z2,500,8",
        b"Z3,500,ffffffffffffffff",
        b"z2,500,8",
        b"Z9,1,1",
        b"vCont?",
        b"vCont;c",
        b"vCont;s:p1.1;c",
        b"vCont;s:p1.2",
        b"vCont;r0,ffffffffff:p1.1",
        b"vCont;C0b:p1.1;c",
        b"c",
        b"s",
        b"qXfer:features:read:target.xml:0,ffb",
        b"qfThreadInfo",
        b"qThreadExtraInfo,p1.2",
        b"Tp1.9",
        b"qRcmd,696e666f20726567697374657273",
        b"qRcmd,73746f70",
        b"qRcmd,636f6e74",
        b"qRcmd,73797374656d5f7265736574",
        b"qqemu.sstepbits",
        b"Qqemu.sstep=1",
        b"Qqemu.PhyMemMode:1",
        b"qqemu.PhyMemMode",
        b"QStartNoAckMode",
        b"vRun;;",
        b"D;1",
        b"!",
    ];
    let machine = Machine::start(&["-S", "-display", "none", "-smp", "2", "-net", "none"]);
    let mut spoiler = Spoiler::new();
    for round in 0..400 {
        let mut input = Vec::new();
        for _ in 0..1 + spoiler.below(8) {
            input.push(b'+');
            input.extend(spoiler.packet(BODIES, 3));
            match spoiler.below(6) {
                0 => input.push(3),
                1 => input.extend([spoiler.below(256) as u8, spoiler.below(256) as u8]),
                _ => {}
            }
        }
        let Ok(mut raw) = UnixStream::connect(machine.socket()) else {
            panic!("round {round}: nobody listens");
        };
        let _ = raw.write_all(&input);
        let _ = raw.set_read_timeout(Some(Duration::from_millis(20)));
        let mut answers = [0; 4096];
        while matches!(raw.read(&mut answers), Ok(n) if n > 0) {}
    }
    let script = "monitor system_reset\nflushregs\nprintf \"at %lx %x\\n\", $pc, $cs\nstepi\nprintf \"at %x:%x\\n\", $cs, $ip\n\
        break *0x7c00\ncontinue\ndelete\ncontinue";
    let out = machine.gdb(None, script);
    expect(&out, &["at fffffff0 f000", "at f000:e05b", "Breakpoint 1", "exited normally"]);
    let (status, text) = machine.end();
    assert_eq!(status, Some(0), "{text}");
}

/// Symbols of the kernel that the test looks at.
const SYMBOLS: &str = "start_kernel kernel_init ret_from_fork jiffies_64 do_timer tick_periodic tick_handle_periodic \
    vprintk _printk do_sys_openat2 __x64_sys_openat do_syscall_64 kernel_power_off __do_sys_reboot linux_banner";

/// An ELF file for gdb with sections for code and data without content, and a symbol table: from lines of `/proc/kallsyms` with
/// the next symbol's address behind each.
fn symbol_file(lines: &str) -> Vec<u8> {
    let mut names = vec![0];
    let mut symbols = vec![0; 24];
    let (mut code, mut data) = ((u64::MAX, 0), (u64::MAX, 0));
    let hex = |word: &str| u64::from_str_radix(word, 16).unwrap();
    for line in lines.lines() {
        let [at, kind, name, end] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let (at, end) = (hex(at), hex(end));
        let is_code = matches!(kind, "t" | "T");
        let range = if is_code { &mut code } else { &mut data };
        *range = (range.0.min(at), range.1.max(end));
        // Global: a function or an object.
        let (info, section) = if is_code { (0x12u8, 1u16) } else { (0x11, 2) };
        symbols.extend((names.len() as u32).to_le_bytes());
        symbols.extend([info, 0]);
        symbols.extend(section.to_le_bytes());
        symbols.extend(at.to_le_bytes());
        symbols.extend((end - at).to_le_bytes());
        names.extend(name.bytes().chain([0]));
    }
    const SECTIONS: &[u8] = b"\0.text\0.data\0.symtab\0.strtab\0.shstrtab\0";
    let start = 64u64;
    let (symbols_at, names_at) = (start, start + symbols.len() as u64);
    let sections_at = names_at + names.len() as u64;
    let headers_at = (sections_at + SECTIONS.len() as u64).next_multiple_of(8);
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for value in [code.0, 0, headers_at] {
        out.extend(value.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for value in [64u16, 0, 0, 64, 6, 5] {
        out.extend(value.to_le_bytes());
    }
    out.extend(&symbols);
    out.extend(&names);
    out.extend(SECTIONS);
    out.resize(headers_at as usize, 0);
    // Name, type, flags, address, offset, size, link, first global symbol, entry size.
    type Header = (u32, u32, u64, u64, u64, u64, u32, u32, u64);
    let headers: [Header; 6] = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 8, 6, code.0, start, code.1 - code.0, 0, 0, 0),
        (7, 8, 3, data.0, start, data.1 - data.0, 0, 0, 0),
        (13, 2, 0, 0, symbols_at, symbols.len() as u64, 4, 1, 24),
        (21, 3, 0, 0, names_at, names.len() as u64, 0, 0, 0),
        (29, 3, 0, 0, sections_at, SECTIONS.len() as u64, 0, 0, 0),
    ];
    for (name, kind, flags, address, offset, size, link, info, entry) in headers {
        out.extend(name.to_le_bytes().into_iter().chain(kind.to_le_bytes()));
        for value in [flags, address, offset, size] {
            out.extend(value.to_le_bytes());
        }
        out.extend(link.to_le_bytes().into_iter().chain(info.to_le_bytes()));
        out.extend(8u64.to_le_bytes().into_iter().chain(entry.to_le_bytes()));
    }
    out
}

/// Debian's kernel with symbols. (The package with its `System.map` is a gigabyte, so a first boot prints those of interest.)
#[test]
fn linux_with_symbols() {
    if !tools() {
        return;
    }
    let script = format!(
        "awk -v names='{SYMBOLS}' 'BEGIN {{ n = split(names, a, \" \"); for (i in a) want[a[i]] = 1 }} \
         last != \"\" {{ print last, $1; last = \"\" }} $3 in want {{ last = $0 }}' /proc/kallsyms\n\
         echo END\npoweroff -f\n"
    );
    let Some((image, initrd)) = linux("kernels", &[], &script) else { return };
    let dir = tempfile::tempdir().unwrap();
    let symbols = dir.path().join("vmlinux");
    let append = "nokaslr quiet loglevel=1 console=ttyS0 panic=-1";
    let fixed = ["-m", "256", "-smp", "2", "-display", "none", "-no-reboot", "-serial", "stdio"];
    let boot = ["-monitor", "none", "-append", append];
    let files = ["-kernel", image.to_str().unwrap(), "-initrd", initrd.path().to_str().unwrap()];
    let options = [&fixed[..], &boot, &files].concat();
    let (status, text) = Machine::start(&options).end();
    let text = text.replace('\r', "");
    let lines = text.split_once("BEGIN\n").and_then(|(_, rest)| rest.split_once("END\n"));
    let lines = lines.unwrap_or_else(|| panic!("{status:?} {text}")).0;
    std::fs::write(&symbols, symbol_file(lines)).unwrap();
    let machine = Machine::start(&[&["-S"][..], &options].concat());
    let script = "break *start_kernel\ncontinue\nx/i $pc\np $cr0\ndelete\n\
        break *kernel_init\ncontinue\nbt 2\ninfo threads\nx/s (char *) &linux_banner\ndelete\n\
        watch *(unsigned long *) &jiffies_64\ncontinue\nbt 3\ncontinue\ndelete\n\
        break *vprintk\ncontinue\nfinish\nstepi\ndelete\n\
        break *do_sys_openat2\ncontinue\nbt 2\nx/s (char *) $rsi\ndelete\n\
        set var $n = 0\nwhile $n < 300\nstepi\nset var $n = $n + 1\nend\nprintf \"steps %d\\n\", $n\n\
        break *kernel_power_off\ncontinue\nbt 2\ndelete\ncontinue";
    let out = machine.gdb(Some(&symbols), script);
    expect(
        &out,
        &[
            "hit Breakpoint 1, 0x",
            "in start_kernel ()",
            "<start_kernel>:",
            "PG ]",
            "hit Breakpoint 2, 0x",
            "in kernel_init ()",
            "#1  0x",
            "in ret_from_fork ()",
            "Thread 1.1 (CPU#0 [running])",
            "Thread 1.2 (CPU#1",
            "Linux version",
            "hit Hardware watchpoint 3: *(unsigned long *) &jiffies_64",
            "Old value = ",
            "New value = ",
            "in do_timer ()",
            "in tick_",
            "hit Hardware watchpoint 3: *(unsigned long *) &jiffies_64",
            "hit Breakpoint 4, 0x",
            "in vprintk ()",
            "in _printk ()",
            "hit Breakpoint 5, 0x",
            "in do_sys_openat2 ()",
            "in __x64_sys_openat ()",
            "\"/",
            "steps 300",
            "hit Breakpoint 6, 0x",
            "in kernel_power_off ()",
            "in __do_sys_reboot ()",
            "exited normally",
        ],
    );
    let (status, text) = machine.end();
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("BEGIN"), "{text}");
}
