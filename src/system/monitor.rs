//! The monitor: commands in QEMU's spelling about a machine that runs.

use super::machine::Machine;
use super::screen;
use parking_lot::Mutex;
use std::fmt::Write;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tulk_base::GuestPa;
use tulk_devices::input::Key;
use tulk_frontend::GuestIsa;
use tulk_ui::{CharBackend, CharSink};

/// What scripts wait for.
const PROMPT: &str = "(qemu) ";

type Run = fn(&Machine, &[&str]) -> String;

/// Commands with their arguments and what they do; the answer's lines end with `\n`.
const COMMANDS: &[(&[&str], &str, &str, Run)] = &[
    (&["help", "?"], "", "this list", |_, _| help(COMMANDS, "")),
    (&["info"], "WHAT", "about the machine; `info` lists what", info),
    (&["stop", "s"], "", "stop the machine", |m, _| {
        m.stop("paused");
        String::new()
    }),
    (&["cont", "c"], "", "let it go on", |m, _| {
        m.cont();
        String::new()
    }),
    (&["system_reset"], "", "press the reset button", |m, _| {
        m.reset();
        String::new()
    }),
    (&["system_powerdown"], "", "press the power button", |m, _| match m.pc.power_button() {
        true => String::new(),
        false => "the guest does not listen to the power button\n".into(),
    }),
    (&["sendkey"], "KEYS [MS]", "press keys together, as ctrl-alt-f1", sendkey),
    (&["screendump"], "FILE", "the screen as a PNG file", |m, arguments| match arguments {
        [file] => match screen::dump(&m.pc, file.as_ref()) {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}\n"),
        },
        _ => "screendump FILE\n".into(),
    }),
    (&["xp"], "/COUNT FORMAT SIZE ADDRESS", "physical memory, as xp /16xb 0x7c00", examine),
    (&["quit", "q"], "", "end the emulator", |m, _| {
        m.quit(0);
        String::new()
    }),
];

const INFO: &[(&[&str], &str, &str, Run)] = &[
    (&["status"], "", "running or not", |m, _| m.status() + "\n"),
    (&["registers"], "[CPU]", "the processors' registers", registers),
    (&["cpus"], "", "the processors", |m, _| {
        (0..m.processors.count()).map(|n| format!("* CPU #{n}\n")).collect()
    }),
    (&["pci"], "", "the PCI bus", pci),
    (&["block"], "", "disks", |m, _| {
        let blocks = &m.pc.peripherals().blocks;
        let line = |(name, disk): &(String, Arc<dyn tulk_block::Disk>)| {
            let access = if disk.read_only() { ", read-only" } else { "" };
            format!("{name}: {} bytes{access}\n", disk.len())
        };
        blocks.iter().map(line).collect()
    }),
    (&["network"], "", "network cards and what they are on", |m, _| {
        let networks = &m.pc.peripherals().networks;
        networks.iter().map(|(card, network)| format!("{card}: {}\n", network.describe())).collect()
    }),
    (&["mtree"], "", "which device is at which address", |m, _| {
        let mut out = String::new();
        for (space, bus) in [("memory", &m.pc.mmio), ("I/O", &m.pc.ports)] {
            let _ = writeln!(out, "address-space: {space}");
            for (range, name) in bus.list() {
                let _ = writeln!(out, "  {:016x}-{:016x}: {name}", range.start, range.end - 1);
            }
        }
        out
    }),
    (&["pic"], "", "the interrupt controllers", |m, _| {
        let mut out = String::new();
        for (n, [irr, isr, imr]) in m.pc.pic.lock().registers().into_iter().enumerate() {
            let _ = writeln!(out, "pic{n}: irr={irr:02x} imr={imr:02x} isr={isr:02x}");
        }
        for (pin, entry) in m.pc.io_apic.lock().entries().iter().enumerate() {
            let _ = writeln!(out, "ioapic pin {pin:2}: {entry:016x}");
        }
        out
    }),
];

fn help(table: &[(&[&str], &str, &str, Run)], prefix: &str) -> String {
    let line = |row: &(&[&str], &str, &str, Run)| {
        format!("{prefix}{} {} -- {}\n", row.0.join("|"), row.1, row.2)
    };
    table.iter().map(line).collect()
}

fn find(table: &[(&[&str], &str, &str, Run)], machine: &Machine, words: &[&str]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    let row = table.iter().find(|row| row.0.contains(first))?;
    Some((row.3)(machine, rest))
}

fn info(machine: &Machine, words: &[&str]) -> String {
    find(INFO, machine, words).unwrap_or_else(|| help(INFO, "info "))
}

/// What a line says to do, and its answer.
pub fn execute(machine: &Machine, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match (find(COMMANDS, machine, &words), words.first()) {
        (Some(answer), _) => answer,
        (None, Some(word)) => {
            format!("unknown command: '{word}' (help lists those that are known)\n")
        }
        (None, None) => String::new(),
    }
}

fn registers(machine: &Machine, words: &[&str]) -> String {
    let cpu = words.first().and_then(|w| w.parse().ok()).unwrap_or(0);
    let isa = machine.isa.clone();
    let dump = machine.processors.with(cpu, move |vcpu| {
        let mut out = format!("pc={:016x}\n", vcpu.state.pc());
        for (n, slot) in isa.layout().slots().iter().enumerate() {
            let value = vcpu.state.get(slot.cell);
            let end = if n % 4 == 3 { '\n' } else { ' ' };
            let _ = write!(out, "{:>12}={value:016x}{end}", slot.name);
        }
        out.trim_end().to_string() + "\n"
    });
    dump.unwrap_or_else(|| format!("there is no processor {cpu}\n"))
}

fn pci(machine: &Machine, _: &[&str]) -> String {
    let mut out = String::new();
    for f in machine.pc.pci.lock().list() {
        let _ = writeln!(
            out,
            "  Bus  0, device {:3}, function {}:\n    {} class {:04x}: PCI device {:04x}:{:04x}",
            f.slot, f.function, f.name, f.class, f.vendor, f.device
        );
        if f.pin != 0 {
            let _ = writeln!(out, "      IRQ {}, pin {}", f.line, (b'@' + f.pin) as char);
        }
        for m in f.mappings {
            let end = m.address + m.size - 1;
            let _ = writeln!(
                out,
                "      window {}: {:?} at {:#x} [{end:#x}]",
                m.window, m.space, m.address
            );
        }
    }
    out
}

/// How long keys are held down unless the command says.
const HOLD: u64 = 100;

fn sendkey(machine: &Machine, words: &[&str]) -> String {
    let (Some(keys), hold) = (words.first(), words.get(1).map_or(Ok(HOLD), |ms| ms.parse())) else {
        return "sendkey KEYS [MS]\n".into();
    };
    let keys = match Key::combination(keys) {
        Ok(keys) => keys,
        Err(name) => return format!("there is no key {name}\n"),
    };
    let (Ok(hold), Some(keyboard)) = (hold, machine.pc.peripherals().keyboard.clone()) else {
        return "a time in milliseconds\n".into();
    };
    keys.iter().for_each(|key| keyboard.lock().key(*key, true));
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(hold));
        keys.iter().rev().for_each(|key| keyboard.lock().key(*key, false));
    });
    String::new()
}

/// Bytes that one command shows at most.
const MOST: usize = 64 << 10;

/// `/16xb 0x7c00`: count, format (x, d, u, o, c) and size (b, h, w, g).
fn examine(machine: &Machine, words: &[&str]) -> String {
    let usage = "xp [/COUNT FORMAT SIZE] ADDRESS\n".to_string();
    let (format, address) = match words {
        [format, address] if format.starts_with('/') => (&format[1..], address),
        [address] => ("", address),
        _ => return usage,
    };
    let digits = format.len() - format.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count = format[..digits].parse().unwrap_or(1usize);
    let (mut radix, mut size) = ('x', 4usize);
    for letter in format[digits..].chars() {
        match letter {
            'x' | 'd' | 'u' | 'o' | 'c' => radix = letter,
            'b' => size = 1,
            'h' => size = 2,
            'w' => size = 4,
            'g' => size = 8,
            _ => return usage,
        }
    }
    let Ok(address) = super::keyval::parse_number(address) else { return usage };
    let mut bytes = vec![0; count.saturating_mul(size).min(MOST)];
    machine.pc.memory.phys.read(GuestPa(address), &mut bytes);
    let mut out = String::new();
    for (n, chunk) in bytes.chunks(size).enumerate() {
        let per_line = 16 / size;
        if n % per_line == 0 {
            let _ = write!(
                out,
                "{}{:016x}:",
                if n > 0 { "\n" } else { "" },
                address + (n * size) as u64
            );
        }
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let value = u64::from_le_bytes(word);
        let shift = 64 - 8 * size as u32;
        let _ = match radix {
            'd' => write!(out, " {}", (value << shift) as i64 >> shift),
            'u' => write!(out, " {value}"),
            'o' => write!(out, " {value:#o}"),
            'c' => write!(out, " '{}'", (value as u8 as char).escape_default()),
            _ => write!(out, " 0x{value:0width$x}", width = 2 * size),
        };
    }
    out + "\n"
}

/// A monitor on a backend: collects lines and answers them.
pub struct Monitor {
    machine: Weak<Machine>,
    backend: Arc<dyn CharBackend>,
    line: Mutex<String>,
}

impl Monitor {
    pub fn start(machine: &Arc<Machine>, backend: Arc<dyn CharBackend>, greet: bool) {
        let monitor = Monitor {
            machine: Arc::downgrade(machine),
            backend: backend.clone(),
            line: Mutex::default(),
        };
        if greet {
            monitor.say(&format!(
                "tulk {} monitor, 'help' lists commands\n{PROMPT}",
                env!("CARGO_PKG_VERSION")
            ));
        }
        backend.connect(Arc::new(monitor));
    }

    fn say(&self, text: &str) {
        self.backend.write(text.replace('\n', "\r\n").as_bytes());
    }
}

impl CharSink for Monitor {
    fn receive(&self, bytes: &[u8]) -> usize {
        for &byte in bytes {
            match byte {
                b'\r' | b'\n' => {
                    let line = std::mem::take(&mut *self.line.lock());
                    self.say("\n");
                    if let Some(machine) = self.machine.upgrade() {
                        self.say(&(execute(&machine, &line) + PROMPT));
                    }
                }
                0x08 | 0x7f if self.line.lock().pop().is_some() => {
                    self.backend.write(b"\x08 \x08");
                }
                b' '..=b'~' => {
                    self.line.lock().push(byte as char);
                    self.backend.write(&[byte]);
                }
                _ => {}
            }
        }
        bytes.len()
    }
}
