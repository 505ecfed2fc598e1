//! `-machine`, `-m`, `-smp`, `-accel`, `-global`, `-device`, `-rtc`, `-uuid`, `-name`.

use super::super::keyval::KeyValues;
use super::super::settings::*;
use anyhow::{anyhow, bail};
use tulk_exec::Tier;

pub(super) fn machine(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-machine", value, Some("type"))?;
    if let Some(kind) = kv.text("type")
        && kind != "pc"
        && !kind.starts_with("pc-i440fx-")
    {
        bail!("the machine {kind} is not supported (only pc)");
    }
    s.hpet = kv.flag("hpet")?.unwrap_or(s.hpet);
    s.acpi = kv.flag("acpi")?.unwrap_or(s.acpi);
    if let Some(list) = kv.text("accel") {
        s.accelerators.extend(list.split(':').map(str::to_string));
    }
    // What this machine is anyway.
    kv.only(&[
        ("usb", &["off"]),
        ("vmport", &["off"]),
        ("smm", &["off"]),
        ("graphics", &["on"]),
        ("dump-guest-core", &["on"]),
        ("mem-merge", &["off"]),
        ("kernel-irqchip", &["off"]),
    ])?;
    kv.finish()
}

pub(super) fn memory(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-m", value, Some("size"))?;
    s.memory = kv.size("size", 1 << 20)?.ok_or_else(|| anyhow!("size= is missing"))?;
    // Whole pages of any size that tables may name.
    s.memory = s.memory.next_multiple_of(8 << 10);
    if s.memory < 1 << 20 || s.memory > 1 << 40 {
        bail!("between 1M and 1T");
    }
    kv.finish()
}

pub(super) fn smp(s: &mut Settings, value: &str) -> anyhow::Result<()> {
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

pub(super) fn accel(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-accel", value, Some("accel"))?;
    s.accelerators.push(kv.required("accel")?);
    // The options of one that is not chosen are not looked at.
    if kv.text("accel").is_some_and(|a| a != "tcg") {
        return Ok(());
    }
    kv.only(&[("thread", &["multi"]), ("split-wx", &["on"])])?;
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

pub(super) fn global(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let (path, value) = value.split_once('=').ok_or_else(|| anyhow!("DRIVER.PROPERTY=VALUE"))?;
    let (driver, property) =
        path.split_once('.').ok_or_else(|| anyhow!("DRIVER.PROPERTY=VALUE"))?;
    if !GLOBALS.contains(&(driver, property)) {
        bail!("the property {path} is not supported");
    }
    s.globals.push((driver.into(), property.into(), value.into()));
    Ok(())
}

pub(super) fn device(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-device", value, Some("driver"))?;
    let driver = kv.required("driver")?;
    s.devices.push(DeviceOption { driver, properties: kv.rest() });
    Ok(())
}

pub(super) fn rtc(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-rtc", value, None)?;
    match kv.text("base").as_deref() {
        None => {}
        Some("utc") => s.rtc_base = RtcBase::Utc,
        Some("localtime") => s.rtc_base = RtcBase::LocalTime,
        Some(date) => s.rtc_base = RtcBase::At(parse_date(date)?),
    }
    let clocks = [("host", RtcClock::Host), ("vm", RtcClock::Vm)];
    s.rtc_clock = kv.choice("clock", &clocks)?.unwrap_or(s.rtc_clock);
    kv.only(&[("driftfix", &["none"])])?;
    kv.finish()
}

/// `2006-06-17T16:01:21` or `2006-06-17`, in UTC.
pub(super) fn parse_date(text: &str) -> anyhow::Result<std::time::SystemTime> {
    let wrong = || anyhow!("base={text}: utc, localtime, 2006-06-17T16:01:21 or 2006-06-17");
    let date: jiff::civil::DateTime = text.parse().map_err(|_| wrong())?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?.timestamp();
    if at.as_second() < 0 {
        return Err(wrong());
    }
    Ok(at.into())
}

pub(super) fn uuid(s: &mut Settings, value: &str) -> anyhow::Result<()> {
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

pub(super) fn name(s: &mut Settings, value: &str) -> anyhow::Result<()> {
    let kv = KeyValues::parse("-name", value, Some("guest"))?;
    s.name = kv.text("guest").or(s.name.take());
    s.process_name = kv.text("process").or(s.process_name.take());
    // Threads have names.
    kv.only(&[("debug-threads", &["on"])])?;
    kv.finish()
}

/// Chooses among the accelerators that were named, in order: there is one.
pub(super) fn check_accelerators(s: &Settings) -> anyhow::Result<()> {
    match s.accelerators.first() {
        Some(other) if !s.accelerators.iter().any(|a| a == "tcg") => {
            bail!("the accelerator {other} is not supported (only tcg)")
        }
        _ => Ok(()),
    }
}
