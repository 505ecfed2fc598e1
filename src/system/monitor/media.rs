//! Removable media: `eject`, `change`, and what `info block` says of them.

use super::super::machine::Machine;
use std::sync::Arc;
use tulk_block::{Disk, OpenOptions};
use tulk_devices::ide::Tray;

/// A drive whose medium may be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Drive {
    Cdrom(usize, usize),
    Floppy(usize),
}

/// By name: `ide1-cd0`, `floppy0`.
fn find(machine: &Machine, name: &str) -> Result<Drive, String> {
    let unknown = format!("Device '{name}' not found");
    let p = machine.pc.peripherals();
    if let Some(n) = name.strip_prefix("floppy") {
        let n = n.parse().ok().filter(|n| *n < 2 && p.floppy.is_some());
        return n.map(Drive::Floppy).ok_or(unknown);
    }
    let is_cd = |(channel, unit): &(usize, usize)| {
        name == format!("ide{channel}-cd{unit}")
            && p.ide.as_ref().is_some_and(|ide| ide.lock().tray(*channel, *unit).is_some())
    };
    let places = [(0, 0), (0, 1), (1, 0), (1, 1)];
    match places.iter().find(|place| is_cd(place)) {
        Some((channel, unit)) => Ok(Drive::Cdrom(*channel, *unit)),
        None if p.disks().iter().any(|(n, _)| n == name) => {
            Err(format!("Device '{name}' is not removable"))
        }
        None => Err(unknown),
    }
}

/// Puts a medium in, or takes it out.
fn insert(machine: &Machine, drive: Drive, medium: Option<Arc<dyn Disk>>) -> Result<(), String> {
    let p = machine.pc.peripherals();
    if let (Drive::Floppy(n), Some(floppy)) = (drive, &p.floppy)
        && let Some(old) = floppy.lock().inserted(n)
    {
        old.flush().map_err(|error| format!("the disk in the drive cannot be written: {error}"))?;
    }
    let done = match drive {
        Drive::Cdrom(channel, unit) => {
            p.ide.as_ref().is_some_and(|ide| ide.lock().set_medium(channel, unit, medium.clone()))
        }
        Drive::Floppy(n) => p.floppy.as_ref().is_some_and(|f| f.lock().insert(n, medium.clone())),
    };
    if !done {
        return Err("the image is larger than a medium of this drive".into());
    }
    Ok(())
}

fn is_locked(machine: &Machine, drive: Drive) -> bool {
    let Drive::Cdrom(channel, unit) = drive else { return false };
    let ide = machine.pc.peripherals().ide.as_ref();
    ide.and_then(|ide| ide.lock().tray(channel, unit)).is_some_and(|(_, locked)| locked)
}

/// `eject [-f] DEVICE`.
pub fn eject(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let (force, name) = match words {
        ["-f", name] => (true, name),
        [name] => (false, name),
        _ => return Err("eject [-f] DEVICE".into()),
    };
    let drive = find(machine, name)?;
    if !force && is_locked(machine, drive) {
        if let (Drive::Cdrom(channel, unit), Some(ide)) =
            (drive, machine.pc.peripherals().ide.as_ref())
        {
            ide.lock().press_eject(channel, unit);
        }
        return Err(format!("Device '{name}' is locked and force was not specified"));
    }
    insert(machine, drive, None)?;
    Ok(String::new())
}

/// `change DEVICE FILE [FORMAT [read-only|read-write]]`.
pub fn change(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let usage = "change DEVICE FILE [FORMAT [retain|read-only|read-write]]";
    let (name, file, rest) = match words {
        [name, file, rest @ ..] if rest.len() <= 2 => (name, file, rest),
        _ => return Err(usage.into()),
    };
    let drive = find(machine, name)?;
    if is_locked(machine, drive) {
        return Err(format!("Device '{name}' is locked"));
    }
    let mut options = OpenOptions::new(file.trim_matches('"'));
    let format = rest.first().map(|format| format.parse::<tulk_block::Format>()).transpose();
    options.format = format.map_err(|error| error.to_string())?;
    options.read_only = match (drive, rest.get(1)) {
        (Drive::Cdrom(..), None | Some(&"retain" | &"read-only")) => true,
        (Drive::Floppy(_), None | Some(&"retain" | &"read-write")) => false,
        (Drive::Floppy(_), Some(&"read-only")) => true,
        _ => return Err(usage.into()),
    };
    let disk = tulk_block::open(&options).map_err(|error| error.to_string())?;
    insert(machine, drive, Some(disk))?;
    Ok(String::new())
}

/// `info block`.
pub fn info(machine: &Machine) -> String {
    let mut out = String::new();
    let p = machine.pc.peripherals();
    for (name, disk) in p.disks() {
        let lines = disk.map_or(vec!["[not inserted]".into()], |disk| match disk.description() {
            lines if lines.is_empty() => vec![format!("{} bytes of memory", disk.len())],
            lines => lines,
        });
        out += &format!("{name}: {}\n", lines.join("\n    "));
        match find(machine, &name) {
            Ok(Drive::Cdrom(channel, unit)) => {
                let tray = p.ide.as_ref().and_then(|ide| ide.lock().tray(channel, unit));
                let (tray, locked) = tray.unwrap_or((Tray::Closed, false));
                out += &format!(
                    "    Removable device: {}locked, tray {}\n",
                    if locked { "" } else { "not " },
                    if tray == Tray::Open { "open" } else { "closed" }
                );
            }
            Ok(Drive::Floppy(_)) => out += "    Removable device: not locked\n",
            Err(_) => {}
        }
        out.push('\n');
    }
    out
}
