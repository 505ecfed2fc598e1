//! `info WHAT`.

use super::super::machine::Machine;
use super::{Command, media, paging, registers};
use std::fmt::Write;

pub const INFO: &[Command] = &[
    Command(&["block"], "", "drives and what is in them", |m, _| Ok(media::info(m))),
    Command(&["chardev"], "", "host ends of serial ports and consoles", |m, _| {
        let line = |(name, backend): &(String, std::sync::Arc<dyn tulk_ui::CharBackend>)| {
            format!("{name}: filename={}\n", backend.describe())
        };
        Ok(m.about.backends.iter().map(line).collect())
    }),
    Command(&["cpus"], "", "the processors; * is the one that commands are about", |m, _| {
        let line = |n| {
            let mark = if n == m.monitor_cpu() { '*' } else { ' ' };
            let (thread, halted) = m.processors.thread_of(n);
            let halted = if halted { " (halted)" } else { "" };
            format!("{mark} CPU #{n}: thread_id={thread}{halted}\n")
        };
        Ok((0..m.processors.count()).map(line).collect())
    }),
    Command(&["irq"], "", "how often each interrupt line rose", |m, _| {
        let counts = m.pc.irq_counts();
        let rose = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let lines: String = rose.map(|(line, count)| format!("{line:2}: {count}\n")).collect();
        Ok(format!("IRQ statistics for isa:\n{lines}"))
    }),
    Command(&["lapic"], "[CPU]", "a processor's local APIC", |m, words| {
        let cpu = processor(m, words)?;
        let text = m.pc.apics.describe(cpu).ok_or(format!("there is no processor {cpu}"))?;
        Ok(format!("dumping local APIC state for CPU {cpu}\n\n{text}"))
    }),
    Command(&["mem"], "", "runs of pages with the same rights", |m, _| {
        let registers = registers_of(m, m.monitor_cpu())?;
        Ok(paging::mem(m, &registers))
    }),
    Command(&["mtree"], "", "which device is at which address", |m, _| {
        let mut out = String::new();
        let ram = m.pc.memory.map;
        let _ = writeln!(out, "RAM: {:#x} bytes from 0", ram.below_4g);
        if ram.above_4g > 0 {
            let _ = writeln!(out, "RAM: {:#x} bytes from {:#x}", ram.above_4g, 1u64 << 32);
        }
        for (space, bus) in [("memory", &m.pc.mmio), ("I/O", &m.pc.ports)] {
            let _ = writeln!(out, "address-space: {space}");
            for (range, name) in bus.list() {
                let _ = writeln!(out, "  {:016x}-{:016x}: {name}", range.start, range.end - 1);
            }
        }
        Ok(out)
    }),
    Command(&["name"], "", "the guest's name", |m, _| {
        Ok(m.about.name.as_ref().map_or(String::new(), |name| format!("{name}\n")))
    }),
    Command(&["network"], "", "network cards and what they are on", |m, _| {
        let networks = &m.pc.peripherals().networks;
        let line = |(card, network): &(String, std::sync::Arc<dyn tulk_net::Network>)| {
            format!("{card}: {}\n", network.describe())
        };
        Ok(networks.iter().map(line).collect())
    }),
    Command(&["pci"], "", "the PCI bus", |m, _| Ok(pci(m))),
    Command(&["pic"], "", "the interrupt controllers", |m, _| {
        let mut out = String::new();
        for (n, [irr, isr, imr]) in m.pc.pic.lock().registers().into_iter().enumerate() {
            let _ = writeln!(out, "pic{n}: irr={irr:02x} imr={imr:02x} isr={isr:02x}");
        }
        for (pin, entry) in m.pc.io_apic.lock().entries().iter().enumerate() {
            let masked = if entry >> 16 & 1 != 0 { " masked" } else { "" };
            let trigger = if entry >> 15 & 1 != 0 { "level" } else { "edge" };
            let _ = writeln!(
                out,
                "ioapic pin {pin:2}: {entry:016x} vec={} {trigger} dest={:#x}{masked}",
                entry & 0xff,
                entry >> 56
            );
        }
        Ok(out)
    }),
    Command(&["qtree"], "", "the devices by their buses", |m, _| {
        let mut out = String::from("bus: isa.0\n");
        let functions = m.pc.pci.lock().list();
        for device in m.pc.devices() {
            let name = device.lock().name();
            if functions.iter().all(|f| f.name != name) {
                let _ = writeln!(out, "  dev: {name}");
            }
        }
        out += "bus: pci.0\n";
        for f in functions {
            let _ = writeln!(out, "  dev: {}, addr = {:02x}.{}", f.name, f.slot, f.function);
        }
        Ok(out)
    }),
    Command(&["registers"], "[-a|CPU]", "registers; -a: of all processors", |m, words| {
        let one = |cpu| -> Result<String, String> {
            let registers = registers_of(m, cpu)?;
            let halted = m.processors.thread_of(cpu).1;
            let a20 = m.pc.address_lines() == u64::MAX;
            Ok(format!("CPU#{cpu}\n{}", registers.describe(a20, halted)))
        };
        match words {
            ["-a"] => (0..m.processors.count()).map(one).collect(),
            _ => one(processor(m, words)?),
        }
    }),
    Command(&["roms"], "", "firmware and option ROMs", |m, _| {
        Ok(m.about.roms.iter().map(|(name, len)| format!("{name}: {len:#x} bytes\n")).collect())
    }),
    Command(&["status"], "", "running or not", |m, _| Ok(m.status() + "\n")),
    Command(&["tlb"], "", "every page that is mapped", |m, _| {
        let registers = registers_of(m, m.monitor_cpu())?;
        Ok(paging::tlb(m, &registers))
    }),
    Command(&["uuid"], "", "the machine's identity", |m, _| {
        let digits: String =
            m.about.uuid.unwrap_or_default().iter().map(|b| format!("{b:02x}")).collect();
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        Ok(parts.join("-") + "\n")
    }),
    Command(&["version"], "", "tulk's version", |_, _| {
        Ok(concat!(env!("CARGO_PKG_VERSION"), "\n").into())
    }),
];

/// The processor that the words name, or the monitor's.
fn processor(machine: &Machine, words: &[&str]) -> Result<u32, String> {
    match words.first() {
        None => Ok(machine.monitor_cpu()),
        Some(word) => word.parse().map_err(|_| format!("'{word}' is not a processor's number")),
    }
}

fn registers_of(machine: &Machine, cpu: u32) -> Result<registers::Registers, String> {
    if cpu >= machine.processors.count() {
        return Err(format!("there is no processor {cpu}"));
    }
    registers::take(machine, cpu).ok_or(format!("processor {cpu} does not answer"))
}

fn pci(machine: &Machine) -> String {
    let mut out = String::new();
    for f in machine.pc.pci.lock().list() {
        let _ = writeln!(
            out,
            "  Bus  0, device {:3}, function {}:\n    {} class {:04x}: PCI device {:04x}:{:04x}",
            f.slot, f.function, f.name, f.class, f.vendor, f.device
        );
        if f.subsystem_vendor != 0 {
            let _ =
                writeln!(out, "      PCI subsystem {:04x}:{:04x}", f.subsystem_vendor, f.subsystem);
        }
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
