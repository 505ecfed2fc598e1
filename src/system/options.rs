//! The options of `tulk system`, in QEMU's spelling: one table row each, from which the help comes, too.

use super::keyval::{KeyValues, choose, parse_number};
use super::settings::*;
use anyhow::{Context, anyhow, bail};
use std::ffi::OsString;
use std::path::PathBuf;
use tulk_exec::Tier;

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
                "pc[,hpet=on|off][,acpi=on|off]",
                "the machine: pc, also as pc-i440fx-N.M",
                machine,
            ),
            Row(&["-m"], "[size=]SIZE", "RAM; MiB without a suffix (default 128M)", memory),
            Row(&["-smp"], "[cpus=]N[,sockets=S][,cores=C][,threads=T]", "processors", smp),
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
                accel,
            ),
            Row(
                &["-global"],
                "DRIVER.PROPERTY=VALUE",
                "a property of all devices of a kind",
                global,
            ),
            Row(
                &["-device"],
                "DRIVER[,PROPERTY=VALUE...]",
                "a device, or help for the list",
                device,
            ),
            Row(
                &["-rtc"],
                "[base=utc|localtime|DATE][,clock=host]",
                "what the real-time clock begins with",
                rtc,
            ),
            Row(&["-uuid"], "UUID", "the machine's identity, for SMBIOS", uuid),
            Row(&["-name"], "NAME", "the guest's name", name),
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
                boot,
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
                fw_cfg,
            ),
        ],
    ),
    (
        "Disks",
        &[
            Row(
                &["-drive"],
                "[file=FILE][,if=ide|virtio|floppy|none][,index=N][,media=disk|cdrom][,format=raw|qcow2]\n[,snapshot=on|off][,readonly=on|off][,cache=MODE][,discard=unmap|ignore][,id=ID]",
                "a drive",
                drive,
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
            Row(&["-cdrom"], "FILE", "a CD image", |s, v| {
                let cdrom = Drive { cdrom: true, read_only: true, ..hard_disk_drive(v, 2) };
                s.drives.push(cdrom);
                Ok(())
            }),
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
                netdev,
            ),
            Row(
                &["-nic"],
                "none|KIND[,model=MODEL][,mac=ADDRESS][,...]",
                "a network and a card on it",
                nic,
            ),
            Row(&["-net"], "none|nic|user[,...]", "an older spelling", net),
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
            Row(&["-display"], "none|curses", "how the screen is shown", display),
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
                "a serial port (up to 4): stdio, mon:stdio, null, none, pty, file:FILE,\nunix:PATH[,server=on][,wait=off], tcp:HOST:PORT[,...], chardev:ID",
                |s, v| {
                    if s.serials.len() == 4 {
                        bail!("there are no more than 4 serial ports");
                    }
                    s.serials.push(char_spec(v)?);
                    Ok(())
                },
            ),
            Row(&["-monitor"], "BACKEND", "where the monitor is, as -serial", |s, v| {
                s.monitors.push(char_spec(v)?);
                Ok(())
            }),
            Row(&["-debugcon"], "BACKEND", "what guests write to port 0xe9, as -serial", |s, v| {
                s.debugcon = Some(char_spec(v)?);
                Ok(())
            }),
            Row(
                &["-chardev"],
                "BACKEND,id=ID[,path=][,host=,port=][,server=on|off][,mux=on|off][,...]",
                "a named backend: stdio, null, file, socket, pty",
                chardev,
            ),
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
                action,
            ),
            Row(&["-pidfile"], "FILE", "write the process number there", |s, v| {
                s.pidfile = Some(v.into());
                Ok(())
            }),
            Row(&["-msg"], "timestamp=on|off", "messages with the time", |s, v| {
                let kv = KeyValues::parse("-msg", v, None)?;
                s.message_time = kv.flag("timestamp")?.unwrap_or(false);
                kv.finish()
            }),
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
        default_network(&mut settings);
    }
    Ok(Request::Run(Box::new(settings)))
}

/// What no option can know alone.
fn check(s: &Settings) -> anyhow::Result<()> {
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

fn machine(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-machine", value, Some("type"))?;
    if let Some(kind) = kv.text("type")
        && kind != "pc"
        && !kind.starts_with("pc-i440fx-")
    {
        bail!("the machine {kind} is not supported (only pc)");
    }
    s.hpet = kv.flag("hpet")?.unwrap_or(s.hpet);
    s.acpi = kv.flag("acpi")?.unwrap_or(s.acpi);
    // What this machine is anyway.
    kv.only(&[
        ("accel", &["tcg"]),
        ("usb", &["off"]),
        ("vmport", &["off", "auto"]),
        ("smm", &["off", "auto"]),
        ("graphics", &["on"]),
        ("dump-guest-core", &["on", "off"]),
        ("mem-merge", &["on", "off"]),
        ("kernel-irqchip", &["off"]),
        ("pcspk-audiodev", &[]),
    ])?;
    kv.finish()
}

fn memory(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-m", value, Some("size"))?;
    s.memory = kv.size("size", 1 << 20)?.ok_or_else(|| anyhow!("size= is missing"))?;
    // Whole pages of any size that tables may name.
    s.memory = s.memory.next_multiple_of(8 << 10);
    if s.memory < 1 << 20 || s.memory > 1 << 40 {
        bail!("between 1M and 1T");
    }
    kv.finish()
}

fn smp(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-smp", value, Some("cpus"))?;
    let parts = ["sockets", "dies", "cores", "threads"].map(|part| kv.number(part));
    let [sockets, dies, cores, threads] = parts;
    let product = [sockets?, dies?, cores?, threads?]
        .into_iter()
        .flatten()
        .try_fold(1u64, |product, n| product.checked_mul(n))
        .ok_or_else(|| anyhow!("too many processors"))?;
    let cpus = kv.number("cpus")?.unwrap_or(product);
    if kv.number("maxcpus")?.is_some_and(|max| max != cpus) {
        bail!("maxcpus: processors cannot be added while the machine runs");
    }
    if cpus == 0 || cpus > 255 {
        bail!("between 1 and 255 processors");
    }
    if product > 1 && product != cpus {
        bail!("{product} places for {cpus} processors");
    }
    s.cpus = cpus as u32;
    kv.finish()
}

fn accel(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-accel", value, Some("accel"))?;
    kv.only(&[("accel", &["tcg"]), ("thread", &["multi"]), ("split-wx", &["on"])])?;
    if let Some(mib) = kv.number("tb-size")? {
        if mib == 0 || mib > 1 << 20 {
            bail!("tb-size={mib}: between 1 and 1048576 MiB");
        }
        s.code_size = Some(mib);
    }
    s.one_insn_per_tb = kv.flag("one-insn-per-tb")?.unwrap_or(s.one_insn_per_tb);
    let tiers = [
        ("interp", Tier::Interp),
        ("baseline", Tier::Baseline),
        ("jit", Tier::Jit),
        ("mixed", Tier::Mixed),
    ];
    s.tier = kv.choice("tier", &tiers)?.unwrap_or(s.tier);
    kv.finish()
}

/// Properties of the drivers that `-global` may set.
const GLOBALS: [(&str, &str); 4] = [
    ("isa-debugcon", "iobase"),
    ("isa-debug-exit", "iobase"),
    ("e1000", "mac"),
    ("virtio-net-pci", "mac"),
];

fn global(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let (path, value) = value.split_once('=').ok_or_else(|| anyhow!("DRIVER.PROPERTY=VALUE"))?;
    let (driver, property) =
        path.split_once('.').ok_or_else(|| anyhow!("DRIVER.PROPERTY=VALUE"))?;
    if !GLOBALS.contains(&(driver, property)) {
        bail!("the property {path} is not supported");
    }
    s.globals.push((driver.into(), property.into(), value.into()));
    Ok(())
}

fn device(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-device", value, Some("driver"))?;
    let driver = kv.required("driver")?;
    s.devices.push(DeviceOption { driver, properties: kv.rest() });
    Ok(())
}

fn rtc(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-rtc", value, None)?;
    match kv.text("base").as_deref() {
        None => {}
        Some("utc") => s.rtc_base = RtcBase::Utc,
        Some("localtime") => s.rtc_base = RtcBase::LocalTime,
        Some(date) => s.rtc_base = RtcBase::At(parse_date(date)?),
    }
    kv.only(&[("clock", &["host"]), ("driftfix", &["none"])])?;
    kv.finish()
}

/// `2006-06-17T16:01:21` or `2006-06-17`, in UTC.
fn parse_date(text: &str) -> anyhow::Result<std::time::SystemTime> {
    let wrong = || anyhow!("base={text}: utc, localtime, 2006-06-17T16:01:21 or 2006-06-17");
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, separator| -> anyhow::Result<[u64; 3]> {
        let parts: Result<Vec<u64>, _> = text.split(separator).map(str::parse).collect();
        parts.ok().and_then(|p| p.try_into().ok()).ok_or_else(wrong)
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let good = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !good {
        return Err(wrong());
    }
    // Days since 1970-01-01 of the Gregorian calendar, years beginning in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Ok(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

fn uuid(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let digits: String = value.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || value.len() != 36 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("not of the form 12345678-1234-1234-1234-123456789abc");
    }
    let mut bytes = [0; 16];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * n..2 * n + 2], 16)?;
    }
    s.uuid = Some(bytes);
    Ok(())
}

fn name(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-name", value, Some("guest"))?;
    s.name = kv.text("guest");
    kv.only(&[("debug-threads", &["on", "off"])])?;
    if let Some(process) = kv.text("process") {
        bail!("process={process} is not supported");
    }
    kv.finish()
}

fn boot(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-boot", value, Some("order"))?;
    let drives = |text: Option<String>| -> anyhow::Result<Option<String>> {
        if let Some(bad) = text.iter().flat_map(|t| t.chars()).find(|c| !"abcdn".contains(*c)) {
            bail!("{bad}: there are the boot devices a, b, c, d and n");
        }
        Ok(text)
    };
    s.boot_order = drives(kv.text("order"))?.or(s.boot_order.take());
    s.boot_once = drives(kv.text("once"))?;
    s.boot_menu = kv.flag("menu")?.or(s.boot_menu);
    if let Some(ms) = kv.number("splash-time")? {
        s.boot_menu_wait = Some(u16::try_from(ms).context("splash-time")?);
    }
    if let Some(ms) = kv.text("reboot-timeout").filter(|t| t != "-1") {
        s.reboot_timeout = Some(parse_number(&ms)?.try_into().context("reboot-timeout")?);
    }
    s.boot_strict = kv.flag("strict")?.unwrap_or(s.boot_strict);
    kv.finish()
}

fn fw_cfg(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-fw_cfg", value, Some("name"))?;
    let name = kv.required("name")?;
    if name.len() > 55 {
        bail!("a name of more than 55 characters");
    }
    if !name.starts_with("opt/") && !name.starts_with("etc/") && !name.starts_with("genroms/") {
        bail!("names of users' files begin with opt/");
    }
    let content = match (kv.text("file"), kv.text("string")) {
        (Some(file), None) => FwCfgContent::File(file.into()),
        (None, Some(text)) => FwCfgContent::Text(text),
        _ => bail!("either file= or string="),
    };
    kv.finish()?;
    s.fw_cfg.push((name, content));
    Ok(())
}

fn drive(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-drive", value, None)?;
    let interfaces = [
        ("ide", Interface::Ide),
        ("floppy", Interface::Floppy),
        ("virtio", Interface::Virtio),
        ("none", Interface::None),
    ];
    let interface = kv.choice("if", &interfaces)?.unwrap_or_default();
    let cdrom = kv.choice("media", &[("disk", false), ("cdrom", true)])?.unwrap_or(false);
    let number = |key| -> anyhow::Result<Option<u32>> {
        kv.number(key)?.map(|n| Ok(u32::try_from(n)?)).transpose()
    };
    let index = match (number("index")?, number("bus")?, number("unit")?) {
        (None, None, None) => None,
        (index @ Some(_), None, None) => index,
        (None, bus, unit) => Some(bus.unwrap_or(0) * 2 + unit.unwrap_or(0)),
        _ => bail!("either index= or bus= and unit="),
    };
    let places = match interface {
        Interface::Ide => 4,
        Interface::Floppy => 2,
        _ => 32,
    };
    if index.is_some_and(|n| n >= places) {
        bail!("there are only {places} places");
    }
    let caches = [
        ("writeback", Cache::Writeback),
        ("writethrough", Cache::Writethrough),
        ("none", Cache::None),
        ("directsync", Cache::Directsync),
        ("unsafe", Cache::Unsafe),
    ];
    let formats = [("raw", "raw"), ("qcow2", "qcow2")];
    let format = match kv.text("format") {
        Some(text) => Some(choose(&text, &formats).context("format")?.to_string()),
        None => None,
    };
    let discards = [("unmap", true), ("on", true), ("ignore", false), ("off", false)];
    let drive = Drive {
        file: kv.text("file").filter(|f| !f.is_empty()).map(PathBuf::from),
        interface,
        index,
        cdrom,
        format,
        snapshot: kv.flag("snapshot")?.unwrap_or(false),
        read_only: kv.flag("readonly")?.or(kv.flag("read-only")?).unwrap_or(false) || cdrom,
        cache: kv.choice("cache", &caches)?.unwrap_or_default(),
        discard: kv.choice("discard", &discards)?.unwrap_or(false),
        detect_zeroes: kv
            .choice("detect-zeroes", &[("off", false), ("on", true), ("unmap", true)])?
            .unwrap_or(false),
        id: kv.text("id"),
        serial: kv.text("serial"),
        boot_index: None,
    };
    // How the host does it is not the guest's concern; errors are always reported to the guest.
    kv.only(&[
        ("aio", &["threads", "native", "io_uring"]),
        ("werror", &["report"]),
        ("rerror", &["report"]),
        ("copy-on-read", &["off"]),
    ])?;
    kv.finish()?;
    if drive.file.is_none() && !drive.cdrom && interface != Interface::Floppy {
        bail!("file= is missing");
    }
    s.drives.push(drive);
    Ok(())
}

fn hard_disk_drive(file: &str, index: u32) -> Drive {
    Drive { file: Some(file.into()), index: Some(index), ..Drive::default() }
}

fn hard_disk(s: &mut Settings, file: &str, index: u32) -> anyhow::Result<()> {
    s.drives.push(hard_disk_drive(file, index));
    Ok(())
}

fn floppy(s: &mut Settings, file: &str, index: u32) -> anyhow::Result<()> {
    s.drives.push(Drive { interface: Interface::Floppy, ..hard_disk_drive(file, index) });
    Ok(())
}

/// Networks that there are; the rest of their options is read when they are made.
pub const NETWORKS: [&str; 4] = ["user", "socket", "stream", "dgram"];

fn netdev(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-netdev", value, Some("type"))?;
    let kind = kv.required("type")?;
    choose(&kind, &NETWORKS.map(|n| (n, ())))?;
    let id = kv.required("id")?;
    s.default_net = false;
    add_network(s, Netdev { id, kind, options: kv.rest() })
}

fn add_network(s: &mut Settings, network: Netdev) -> anyhow::Result<()> {
    if s.netdevs.iter().any(|other| other.id == network.id) {
        bail!("there is a network {} already", network.id);
    }
    s.netdevs.push(network);
    Ok(())
}

/// Short names of network cards.
const CARDS: [(&str, &str); 5] = [
    ("e1000", "e1000"),
    ("e1000-82540em", "e1000"),
    ("virtio", "virtio-net-pci"),
    ("virtio-net", "virtio-net-pci"),
    ("virtio-net-pci", "virtio-net-pci"),
];

/// A card with the properties that `-nic` and `-net nic` know.
fn card(kv: &KeyValues, network: &str) -> anyhow::Result<DeviceOption> {
    let driver = kv.choice("model", &CARDS)?.unwrap_or("e1000");
    let mut properties = vec![("netdev".to_string(), network.to_string())];
    for (key, property) in [("mac", "mac"), ("macaddr", "mac"), ("addr", "addr")] {
        properties.extend(kv.text(key).map(|value| (property.to_string(), value)));
    }
    Ok(DeviceOption { driver: driver.into(), properties })
}

fn nic(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    s.default_net = false;
    if value == "none" {
        return Ok(());
    }
    let kv = KeyValues::parse("-nic", value, Some("type"))?;
    let kind = kv.required("type")?;
    choose(&kind, &NETWORKS.map(|n| (n, ())))?;
    let id = kv.text("id").unwrap_or_else(|| format!("#net{}", s.netdevs.len()));
    s.devices.push(card(&kv, &id)?);
    add_network(s, Netdev { id, kind, options: kv.rest() })
}

/// The card and network that there are when no option says anything about networks.
fn default_network(s: &mut Settings) {
    let id = "#net0".to_string();
    let properties = vec![("netdev".to_string(), id.clone())];
    s.devices.insert(0, DeviceOption { driver: "e1000".into(), properties });
    s.netdevs.push(Netdev { id, kind: "user".into(), options: Vec::new() });
}

/// What `-net nic` and `-net user` meet on: one card and one network.
pub const HUB: &str = "#net";

fn net(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    s.default_net = false;
    let kv = KeyValues::parse("-net", value, Some("type"))?;
    match &*kv.required("type")? {
        "none" => {}
        "nic" => s.devices.push(card(&kv, HUB)?),
        kind => {
            choose(kind, &NETWORKS.map(|n| (n, ())))?;
            let options = kv.rest();
            add_network(s, Netdev { id: HUB.into(), kind: kind.into(), options })
                .context("one network of -net is all that is supported (use -nic)")?;
        }
    }
    kv.finish()
}

fn display(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kinds = [("none", DisplayKind::None), ("curses", DisplayKind::Curses)];
    s.display = Some(choose(value, &kinds)?);
    Ok(())
}

fn action(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-action", value, None)?;
    let reboot = [("reset", OnReboot::Reset), ("shutdown", OnReboot::Exit)];
    let shutdown = [("poweroff", OnShutdown::Exit), ("pause", OnShutdown::Pause)];
    s.on_reboot = kv.choice("reboot", &reboot)?.unwrap_or(s.on_reboot);
    s.on_shutdown = kv.choice("shutdown", &shutdown)?.unwrap_or(s.on_shutdown);
    kv.finish()
}

fn chardev(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-chardev", value, Some("backend"))?;
    let backend = kv.required("backend")?;
    let id = kv.required("id")?;
    let server = kv.flag("server")?.unwrap_or(false);
    let wait = kv.flag("wait")?.unwrap_or(server);
    let spec = match &*backend {
        "null" => CharSpec::Null,
        "pty" => CharSpec::Pty,
        "stdio" => CharSpec::Stdio { signal: kv.flag("signal")?.unwrap_or(true) },
        "file" => CharSpec::File {
            path: kv.required("path")?.into(),
            append: kv.flag("append")?.unwrap_or(false),
        },
        "socket" => match kv.text("path") {
            Some(path) => CharSpec::Unix { path: path.into(), server, wait },
            None => CharSpec::Tcp {
                host: kv.text("host").unwrap_or_default(),
                port: kv.required("port")?.parse().context("port=")?,
                server,
                wait,
                nodelay: kv.flag("nodelay")?.or(kv.flag("delay")?.map(|d| !d)).unwrap_or(false),
                telnet: kv.flag("telnet")?.unwrap_or(false),
            },
        },
        other => bail!("the backend {other} is not supported"),
    };
    let spec = if kv.flag("mux")?.unwrap_or(false) { CharSpec::Mux(Box::new(spec)) } else { spec };
    kv.finish()?;
    if s.chardevs.iter().any(|(other, _)| *other == id) {
        bail!("there is a backend {id} already");
    }
    s.chardevs.push((id, spec));
    Ok(())
}

/// A backend as `-serial` and others spell it.
fn char_spec(text: &str) -> anyhow::Result<CharSpec> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let flags = |kv: &KeyValues| -> anyhow::Result<(bool, bool)> {
        let server = kv.flag("server")?.unwrap_or(false);
        Ok((server, kv.flag("wait")?.unwrap_or(server)))
    };
    Ok(match kind {
        "null" => CharSpec::Null,
        "none" => CharSpec::None,
        "stdio" => CharSpec::Stdio { signal: true },
        "pty" => CharSpec::Pty,
        "mon" => CharSpec::Mux(Box::new(char_spec(rest)?)),
        "chardev" => CharSpec::Named(rest.into()),
        "file" if !rest.is_empty() => CharSpec::File { path: rest.into(), append: false },
        "unix" => {
            let kv = KeyValues::parse("unix:", rest, Some("path"))?;
            let (server, wait) = flags(&kv)?;
            let spec = CharSpec::Unix { path: kv.required("path")?.into(), server, wait };
            kv.finish()?;
            spec
        }
        "tcp" | "telnet" => {
            let kv = KeyValues::parse("tcp:", rest, Some("address"))?;
            let (server, wait) = flags(&kv)?;
            let address = kv.required("address")?;
            let (host, port) =
                address.rsplit_once(':').ok_or_else(|| anyhow!("{text}: tcp:HOST:PORT"))?;
            let spec = CharSpec::Tcp {
                host: host.into(),
                port: port.parse().with_context(|| format!("the port {port}"))?,
                server,
                wait,
                nodelay: kv.flag("nodelay")?.unwrap_or(false),
                telnet: kind == "telnet",
            };
            kv.finish()?;
            spec
        }
        _ => bail!("the backend {text} is not supported"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &[&str]) -> anyhow::Result<Settings> {
        let arguments: Vec<OsString> = line.iter().map(Into::into).collect();
        match parse(&arguments)? {
            Request::Run(settings) => Ok(*settings),
            other => panic!("{other:?}"),
        }
    }

    fn error(line: &[&str]) -> String {
        format!("{:#}", settings(line).unwrap_err())
    }

    #[test]
    fn a_usual_command_line() {
        let s = settings(&[
            "-m",
            "2G",
            "-smp",
            "2",
            "-nographic",
            "-kernel",
            "bzImage",
            "-append",
            "console=ttyS0",
            "-drive",
            "file=disk.qcow2,if=virtio,format=qcow2,cache=none",
            "-netdev",
            "user,id=n0,hostfwd=tcp::2222-:22",
            "-device",
            "virtio-net-pci,netdev=n0",
            "-no-reboot",
            "-boot",
            "d",
            "-rtc",
            "base=utc",
            "disk.img",
        ])
        .unwrap();
        assert_eq!((s.memory, s.cpus), (2 << 30, 2));
        assert_eq!(s.drives.len(), 2);
        assert_eq!(s.drives[0].interface, Interface::Virtio);
        assert_eq!(s.drives[0].cache, Cache::None);
        assert_eq!(s.drives[1].index, Some(0));
        assert_eq!(s.netdevs[0].options, [("hostfwd".into(), "tcp::2222-:22".into())]);
        assert_eq!(s.devices[0].driver, "virtio-net-pci");
        assert_eq!(s.on_reboot, OnReboot::Exit);
        assert_eq!(s.boot_order.as_deref(), Some("d"));
        assert!(!s.default_net);
    }

    #[test]
    fn errors_name_the_option() {
        for (line, word) in [
            (&["-usbdevice", "tablet"][..], "-usbdevice"),
            (&["-m"], "-m"),
            (&["-m", "12X"], "-m 12X"),
            (&["-machine", "q35"], "q35"),
            (&["-machine", "pc,nvdimm=on"], "nvdimm"),
            (&["-accel", "kvm"], "kvm"),
            (&["-smp", "0"], "-smp 0"),
            (&["-smp", "4,cores=3"], "3 places"),
            (&["-drive", "file=x,if=scsi"], "if=scsi"),
            (&["-drive", "file=x,bps=1"], "bps"),
            (&["-drive", "file=x,index=4"], "index"),
            (&["-drive", "if=ide"], "file="),
            (&["-hda", "a", "b"], "two drives"),
            (&["-boot", "x"], "x: there are"),
            (&["-netdev", "tap,id=n"], "tap"),
            (&["-netdev", "user"], "id="),
            (&["-netdev", "user,id=n", "-netdev", "user,id=n"], "network n already"),
            (&["-net", "user", "-net", "user"], "use -nic"),
            (&["-serial", "carrier-pigeon"], "carrier-pigeon"),
            (&["-vga", "qxl"], "qxl"),
            (&["-display", "gtk"], "gtk"),
            (&["-k", "de"], "de"),
            (&["-global", "foo.bar=1"], "foo.bar"),
            (&["-uuid", "1234"], "-uuid"),
            (&["-rtc", "base=yesterday"], "yesterday"),
            (&["-append", "x"], "-kernel"),
            (&["-fw_cfg", "name=opt/x"], "file= or string="),
            (&["-action", "watchdog=none"], "watchdog"),
            (&["-action", "panic=pause"], "panic"),
            (&["-global", "PIIX4_PM.disable_s3=1"], "disable_s3"),
            (&["-accel", "tcg,tb-size=99999999999999"], "tb-size"),
            (&["-drive", "file=x,werror=stop"], "werror"),
        ] {
            let error = error(line);
            assert!(error.contains(word), "{line:?}: {error}");
        }
    }

    #[test]
    fn backends() {
        let s = settings(&[
            "-serial",
            "mon:stdio",
            "-serial",
            "unix:/tmp/s,server=on,wait=off",
            "-serial",
            "tcp::4444,server,nowait",
            "-monitor",
            "none",
            "-chardev",
            "socket,id=c,path=/x,server=on",
            "-serial",
            "chardev:c",
        ])
        .unwrap();
        assert_eq!(s.serials[0], CharSpec::Mux(Box::new(CharSpec::Stdio { signal: true })));
        let CharSpec::Unix { server: true, wait: false, .. } = &s.serials[1] else { panic!() };
        let CharSpec::Tcp { port: 4444, server: true, wait: false, .. } = &s.serials[2] else {
            panic!()
        };
        assert_eq!(s.serials[3], CharSpec::Named("c".into()));
        assert_eq!(s.monitors, [CharSpec::None]);
        assert!(
            error(&[
                "-serial", "null", "-serial", "null", "-serial", "null", "-serial", "null",
                "-serial", "null"
            ])
            .contains("4 serial")
        );
    }

    #[test]
    fn networks() {
        let cards = |line: &[&str]| -> Vec<String> {
            let s = settings(line).unwrap();
            let on = |d: &DeviceOption| format!("{} {}", d.driver, d.properties[0].1);
            s.devices.iter().map(on).collect()
        };
        assert_eq!(cards(&[]), ["e1000 #net0"]);
        assert!(cards(&["-nodefaults"]).is_empty());
        assert!(cards(&["-nic", "none"]).is_empty());
        assert!(cards(&["-net", "none"]).is_empty());
        assert_eq!(cards(&["-nic", "user,model=virtio"]), ["virtio-net-pci #net0"]);
        assert_eq!(cards(&["-nic", "user", "-nic", "user"]), ["e1000 #net0", "e1000 #net1"]);
        assert_eq!(cards(&["-net", "nic", "-net", "user"]), ["e1000 #net"]);
    }

    #[test]
    fn dates() {
        let seconds = |text| {
            parse_date(text).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(seconds("1970-01-01"), 0);
        assert_eq!(seconds("2006-06-17T16:01:21"), 1_150_560_081);
        assert_eq!(seconds("2000-02-29T00:00:01"), 951_782_401);
        assert!(parse_date("2006-13-01").is_err());
        assert!(parse_date("2006").is_err());
    }

    #[test]
    fn the_help_lists_every_option() {
        let help = help("tulk system");
        for (_, rows) in OPTIONS {
            for row in rows.iter().filter(|row| !row.2.is_empty()) {
                assert!(help.contains(&format!("  {} ", row.0.join(", "))), "{}", row.0[0]);
            }
        }
        assert!(matches!(parse(&["--help".into()]), Ok(Request::Help)));
        assert!(matches!(parse(&["-cpu".into(), "help".into()]), Ok(Request::List("-cpu"))));
    }
}
