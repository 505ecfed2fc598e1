//! `-drive` and its short forms.

use super::super::keyval::{KeyValues, choose};
use super::super::settings::*;
use anyhow::{Context, bail};
use std::path::PathBuf;
use tulk_block::{Cache, Locking, OnError, Policy};

/// What is done about errors of the host; not the last for reading.
const WRITE_ERRORS: [(&str, OnError); 4] = [
    ("report", OnError::Report),
    ("stop", OnError::Pause),
    ("ignore", OnError::Ignore),
    ("enospc", OnError::PauseIfFull),
];

pub(super) fn drive(s: &mut Settings, value: &str) -> anyhow::Result<()> {
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
    let formats = [("raw", "raw"), ("qcow2", "qcow2")];
    let format = match kv.text("format") {
        Some(text) => Some(choose(&text, &formats).context("format")?.to_string()),
        None => None,
    };
    let discards = [("unmap", true), ("on", true), ("ignore", false), ("off", false)];
    let locking = kv.text("file.locking").or(kv.text("locking"));
    let policy = Policy {
        write: kv.choice("werror", &WRITE_ERRORS)?.unwrap_or(OnError::PauseIfFull),
        read: kv.choice("rerror", &WRITE_ERRORS[..3])?.unwrap_or(OnError::Report),
    };
    let asked = kv.text("werror").is_some() || kv.text("rerror").is_some();
    if asked && (interface == Interface::Floppy || cdrom) {
        bail!("werror= and rerror= are for disks");
    }
    let drive = Drive {
        file: kv.text("file").filter(|f| !f.is_empty()).map(PathBuf::from),
        interface,
        index,
        cdrom,
        format,
        snapshot: kv.flag("snapshot")?.unwrap_or(false),
        read_only: kv.flag("readonly")?.or(kv.flag("read-only")?).unwrap_or(false) || cdrom,
        cache: kv.text("cache").map_or(Ok(Cache::default()), |c| c.parse())?,
        discard: kv.choice("discard", &discards)?.unwrap_or(false),
        detect_zeroes: kv
            .choice("detect-zeroes", &[("off", false), ("on", true), ("unmap", true)])?
            .unwrap_or(false),
        id: kv.text("id"),
        serial: kv.text("serial"),
        locking: locking.map_or(Ok(Locking::default()), |l| l.parse())?,
        policy,
    };
    // A thread does it, whatever is said: that is not seen by the guest, nor in what is on stable storage when.
    kv.only(&[("aio", &["threads", "native", "io_uring"]), ("copy-on-read", &["off"])])?;
    kv.finish()?;
    if drive.file.is_none() && !drive.cdrom && interface != Interface::Floppy {
        bail!("file= is missing");
    }
    s.drives.push(drive);
    Ok(())
}

pub(super) fn hard_disk_drive(file: &str, index: u32) -> Drive {
    Drive { file: Some(file.into()), index: Some(index), ..Drive::default() }
}

pub(super) fn hard_disk(s: &mut Settings, file: &str, index: u32) -> anyhow::Result<()> {
    s.drives.push(hard_disk_drive(file, index));
    Ok(())
}

pub(super) fn floppy(s: &mut Settings, file: &str, index: u32) -> anyhow::Result<()> {
    s.drives.push(Drive { interface: Interface::Floppy, ..hard_disk_drive(file, index) });
    Ok(())
}

pub(super) fn cdrom(s: &mut Settings, file: &str) -> anyhow::Result<()> {
    s.drives.push(Drive { cdrom: true, read_only: true, ..hard_disk_drive(file, 2) });
    Ok(())
}
