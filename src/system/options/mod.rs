//! The options of `tulk system`, in QEMU's spelling: one table row each, from which the help comes, too.
//!
//! | module | options |
//! |---|---|
//! | `machine` | what the machine is |
//! | `boot`, `drives`, `networks`, `console` | what it boots, and what it is connected to |
//! | `control` | what guest events lead to |

mod boot;
mod console;
mod control;
mod drives;
mod machine;
mod networks;

use super::keyval::choose;
use super::settings::*;
use anyhow::{Context, anyhow, bail};
use console::char_spec;
use drives::{floppy, hard_disk, hard_disk_drive};
pub use networks::{HUB, NETWORKS};
use std::ffi::OsString;

/// What remains to do after reading the command line.
#[derive(Debug)]
pub enum Request {
    Run(Box<Settings>),
    Help,
    Version,
    /// `-machine help`, `-cpu help` and the like: the option.
    List(&'static str),
}

type Apply = fn(&mut Settings, &str) -> anyhow::Result<()>;

/// One option: its names, what follows it (empty: nothing), what it does for the help, and how it is applied. An empty
/// help is an option that is not listed, because another name of it is.
struct Row(&'static [&'static str], &'static str, &'static str, Apply);

/// Sections of the help with their options.
const OPTIONS: &[(&str, &[Row])] = &[
    (
        "Machine",
        &[
            Row(
                &["-machine", "-M"],
                "pc[,accel=tcg][,hpet=on|off][,acpi=on|off]",
                "the machine: pc, also as pc-i440fx-N.M",
                machine::machine,
            ),
            Row(
                &["-m"],
                "[size=]SIZE",
                "RAM; MiB without a suffix (default 128M)",
                machine::memory,
            ),
            Row(
                &["-smp"],
                "[cpus=]N[,sockets=S][,cores=C][,threads=T]",
                "processors",
                machine::smp,
            ),
            Row(
                &["-cpu"],
                "MODEL[,+FEATURE][,-FEATURE]",
                "processor model, or help for the list",
                |s, v| {
                    s.cpu = Some(v.into());
                    Ok(())
                },
            ),
            Row(
                &["-accel"],
                "tcg[,thread=multi][,tb-size=MIB][,one-insn-per-tb=on|off]",
                "how it is executed",
                machine::accel,
            ),
            Row(
                &["-global"],
                "DRIVER.PROPERTY=VALUE",
                "a property of all devices of a kind",
                machine::global,
            ),
            Row(
                &["-device"],
                "DRIVER[,PROPERTY=VALUE...]",
                "a device, or help for the list",
                machine::device,
            ),
            Row(
                &["-rtc"],
                "[base=utc|localtime|DATE][,clock=host|vm]",
                "what the real-time clock begins with",
                machine::rtc,
            ),
            Row(&["-uuid"], "UUID", "the machine's identity, for SMBIOS", machine::uuid),
            Row(
                &["-name"],
                "[guest=]NAME[,process=NAME]",
                "the guest's name, for messages and the monitor; the process's name",
                machine::name,
            ),
            Row(
                &["-nodefaults"],
                "",
                "no network card, serial port, monitor, drive by default",
                |s, _| {
                    s.default_devices = false;
                    Ok(())
                },
            ),
            Row(&["-no-user-config"], "", "accepted: there are no configuration files", |_, _| {
                Ok(())
            }),
            Row(&["-no-hpet"], "", "the same as -machine hpet=off", |s, _| {
                s.hpet = false;
                Ok(())
            }),
            Row(&["-no-acpi"], "", "the same as -machine acpi=off", |s, _| {
                s.acpi = false;
                Ok(())
            }),
        ],
    ),
    (
        "Boot",
        &[
            Row(
                &["-boot"],
                "[order=]DRIVES[,once=DRIVES][,menu=on|off][,splash-time=MS][,strict=on|off]",
                "boot order: a floppy, c disk, d CD, n network",
                boot::boot,
            ),
            Row(&["-kernel"], "FILE", "a Linux bzImage, or a Multiboot or PVH kernel", |s, v| {
                s.kernel = Some(v.into());
                Ok(())
            }),
            Row(
                &["-initrd"],
                "FILE",
                "its initial RAM disk; for Multiboot FILE[ ARGS],...",
                |s, v| {
                    s.initrd = Some(v.into());
                    Ok(())
                },
            ),
            Row(&["-append"], "TEXT", "its command line", |s, v| {
                s.append = Some(v.into());
                Ok(())
            }),
            Row(&["-bios"], "FILE", "firmware instead of SeaBIOS", |s, v| {
                s.bios = Some(v.into());
                Ok(())
            }),
            Row(&["-L"], "DIR", "where firmware is looked for first", |s, v| {
                s.data_dirs.push(v.into());
                Ok(())
            }),
            Row(
                &["-fw_cfg"],
                "[name=]NAME,file=FILE|string=TEXT",
                "a file for the guest's firmware",
                boot::fw_cfg,
            ),
        ],
    ),
    (
        "Disks",
        &[
            Row(
                &["-drive"],
                "[file=FILE][,if=ide|virtio|floppy|none][,index=N][,media=disk|cdrom][,format=raw|qcow2]\n[,snapshot=on|off][,readonly=on|off][,cache=MODE][,discard=unmap|ignore][,id=ID]\n[,werror=enospc|report|stop|ignore][,rerror=report|stop|ignore][,file.locking=auto|on|off]",
                "a drive",
                drives::drive,
            ),
            Row(
                &["-hda"],
                "FILE",
                "the first hard disk; -hdb, -hdc, -hdd are the others",
                |s, v| hard_disk(s, v, 0),
            ),
            Row(&["-hdb"], "FILE", "", |s, v| hard_disk(s, v, 1)),
            Row(&["-hdc"], "FILE", "", |s, v| hard_disk(s, v, 2)),
            Row(&["-hdd"], "FILE", "", |s, v| hard_disk(s, v, 3)),
            Row(&["-cdrom"], "FILE", "a CD image", drives::cdrom),
            Row(
                &["-fda"],
                "FILE",
                "a floppy image in the first drive; -fdb: the second",
                |s, v| floppy(s, v, 0),
            ),
            Row(&["-fdb"], "FILE", "", |s, v| floppy(s, v, 1)),
            Row(&["-snapshot"], "", "writes to disks are lost at the end", |s, _| {
                s.snapshot = true;
                Ok(())
            }),
        ],
    ),
    (
        "Network",
        &[
            Row(
                &["-netdev"],
                "KIND,id=ID[,...]",
                "a network of the host: user, socket, stream, dgram",
                networks::netdev,
            ),
            Row(
                &["-nic"],
                "none|KIND[,model=MODEL][,mac=ADDRESS][,...]",
                "a network and a card on it",
                networks::nic,
            ),
            Row(&["-net"], "none|nic|user[,...]", "an older spelling", networks::net),
        ],
    ),
    (
        "Console",
        &[
            Row(
                &["-nographic"],
                "",
                "no display; serial port and monitor on the terminal",
                |s, _| {
                    s.nographic = true;
                    Ok(())
                },
            ),
            Row(&["-display"], "none|curses", "how the screen is shown", console::display),
            Row(&["-curses"], "", "the same as -display curses", |s, _| {
                s.display = Some(DisplayKind::Curses);
                Ok(())
            }),
            Row(&["-vga"], "std|none", "the display adapter", |s, v| {
                s.vga = choose(v, &[("std", VgaKind::Std), ("none", VgaKind::None)])?;
                Ok(())
            }),
            Row(
                &["-serial"],
                "BACKEND",
                "a serial port (up to 4): stdio, mon:stdio, null, none, pty, file:FILE, pipe:PATH,\nunix:PATH[,server=on][,wait=off], tcp:HOST:PORT[,...], telnet:HOST:PORT[,...], chardev:ID",
                console::serial,
            ),
            Row(&["-monitor"], "BACKEND", "where the monitor is, as -serial", |s, v| {
                s.monitors.push(char_spec(v)?);
                Ok(())
            }),
            Row(&["-mon"], "[chardev=]ID[,mode=readline]", "a monitor on a -chardev", console::mon),
            Row(&["-debugcon"], "BACKEND", "what guests write to port 0xe9, as -serial", |s, v| {
                s.debugcon = Some(char_spec(v)?);
                Ok(())
            }),
            Row(
                &["-chardev"],
                "BACKEND,id=ID[,path=][,host=,port=][,server=on|off][,mux=on|off][,...]",
                "a named backend: stdio, null, file, pipe, socket, pty, ringbuf",
                console::chardev,
            ),
            Row(&["-parallel"], "none", "parallel ports: there are none", |_, v| {
                choose(v, &[("none", ())])
            }),
            Row(&["-k"], "LAYOUT", "keyboard layout: only en-us", |_, v| {
                choose(v, &[("en-us", ())])
            }),
        ],
    ),
    (
        "Control",
        &[
            Row(&["-S"], "", "do not start until the monitor or a debugger says so", |s, _| {
                s.frozen = true;
                Ok(())
            }),
            Row(&["-gdb"], "tcp:[HOST]:PORT|unix:PATH", "wait for GDB there", |s, v| {
                s.gdb = Some(v.into());
                Ok(())
            }),
            Row(&["-s"], "", "the same as -gdb tcp::1234", |s, _| {
                s.gdb = Some("tcp::1234".into());
                Ok(())
            }),
            Row(&["-no-reboot"], "", "end when the guest resets itself", |s, _| {
                s.on_reboot = OnReboot::Exit;
                Ok(())
            }),
            Row(&["-no-shutdown"], "", "pause when the guest powers off", |s, _| {
                s.on_shutdown = OnShutdown::Pause;
                Ok(())
            }),
            Row(
                &["-action"],
                "[reboot=reset|shutdown][,shutdown=poweroff|pause]",
                "what guest events lead to",
                control::action,
            ),
            Row(&["-pidfile"], "FILE", "write the process number there", |s, v| {
                s.pidfile = Some(v.into());
                Ok(())
            }),
            Row(
                &["-msg"],
                "[timestamp=on|off][,guest-name=on|off]",
                "messages with the time, with the guest's name",
                control::msg,
            ),
            Row(&["-d"], "ITEMS", "log items, comma-separated; help lists them", |s, v| {
                s.log_items.extend(v.split(',').map(str::to_string));
                Ok(())
            }),
            Row(&["-D"], "FILE", "where the log goes instead of standard error", |s, v| {
                s.log_file = Some(v.into());
                Ok(())
            }),
            Row(&["-stats"], "", "print what the engine did at the end", |s, _| {
                s.stats = true;
                Ok(())
            }),
            Row(&["-version"], "", "version", |_, _| Ok(())),
            Row(&["-help", "-h"], "", "this help", |_, _| Ok(())),
        ],
    ),
];

/// The text of `-help`.
pub fn help(program: &str) -> String {
    let mut out = format!(
        "usage: {program} [options] [DISK]\n\nRuns a PC. DISK is the image of its first hard disk; without any disk or kernel it boots a demonstration.\n"
    );
    for (section, rows) in OPTIONS {
        out += &format!("\n{section}:\n");
        for Row(names, value, text, _) in rows.iter().filter(|row| !row.2.is_empty()) {
            let indent = |text: &str| text.replace('\n', "\n          ");
            out +=
                &format!("  {} {}\n          {}\n", names.join(", "), indent(value), indent(text));
        }
    }
    out
}

/// Options whose value may be `help`.
const LISTS: [&str; 6] = ["-machine", "-cpu", "-device", "-accel", "-netdev", "-d"];

/// Reads the arguments behind the program's name (and `system`).
///
/// # Errors
/// Names the option that is unknown, lacks its value or has one that we do not understand.
pub fn parse(arguments: &[OsString]) -> anyhow::Result<Request> {
    let mut settings = Settings::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = argument
            .to_str()
            .ok_or_else(|| anyhow!("{}: not UTF-8", argument.to_string_lossy()))?;
        if !text.starts_with('-') || text == "-" {
            settings.drives.push(hard_disk_drive(text, 0));
            continue;
        }
        // Two dashes are as good as one.
        let name = if text.starts_with("--") { &text[1..] } else { text };
        let row = OPTIONS.iter().flat_map(|(_, rows)| *rows).find(|row| row.0.contains(&name));
        let Some(Row(names, value, _, apply)) = row else {
            bail!("the option {text} is not supported (`tulk system -help` lists those that are)");
        };
        match names[0] {
            "-help" => return Ok(Request::Help),
            "-version" => return Ok(Request::Version),
            _ => {}
        }
        let value = match (value.is_empty(), rest.as_slice().first()) {
            (true, _) => "",
            (false, None) => bail!("{text} needs a value: {text} {value}"),
            (false, Some(next)) => {
                rest.next();
                next.to_str().ok_or_else(|| anyhow!("{text}: its value is not UTF-8"))?
            }
        };
        if matches!(value, "help" | "?")
            && let Some(list) = LISTS.iter().find(|l| **l == names[0])
        {
            return Ok(Request::List(list));
        }
        apply(&mut settings, value)
            .with_context(|| format!("{text} {value}").trim_end().to_string())?;
    }
    check(&settings)?;
    if settings.default_net && settings.default_devices {
        networks::default_network(&mut settings);
    }
    Ok(Request::Run(Box::new(settings)))
}

/// What no option can know alone.
fn check(s: &Settings) -> anyhow::Result<()> {
    machine::check_accelerators(s)?;
    if s.nographic && s.display == Some(DisplayKind::Curses) {
        bail!("-nographic and -display curses both want the terminal");
    }
    if s.kernel.is_none() && s.initrd.is_some() {
        bail!("-initrd needs -kernel");
    }
    if s.kernel.is_none() && s.append.is_some() {
        bail!("-append needs -kernel");
    }
    for (n, drive) in s.drives.iter().enumerate() {
        let same = |other: &&Drive| {
            drive.index.is_some()
                && drive.interface == other.interface
                && drive.index == other.index
        };
        if let Some(other) = s.drives[..n].iter().find(same) {
            let file = |d: &Drive| d.file.clone().unwrap_or_default().display().to_string();
            bail!("two drives in one place: {} and {}", file(other), file(drive));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
