//! Drives: their images, what errors of the host lead to, and their places on the interfaces.

use super::machine::Notice;
use super::message::say;
use super::settings::*;
use anyhow::Context;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tulk_block::{Disk, Guarded, OpenOptions, Outcome};
use tulk_devices::ide::Attachment;
use tulk_devices::virtio::{Interface as VirtioInterface, blk};
use tulk_pc::{PciDevice, Slotted};

fn open_disk(settings: &Settings, drive: &Drive) -> anyhow::Result<Option<Arc<dyn Disk>>> {
    let Some(file) = &drive.file else { return Ok(None) };
    let mut options = OpenOptions::new(file);
    options.format = drive.format.as_deref().map(str::parse).transpose()?;
    options.read_only = drive.read_only;
    options.snapshot = !drive.read_only && (drive.snapshot || settings.snapshot);
    options.cache = drive.cache;
    options.detect_zeroes = drive.detect_zeroes;
    options.locking = drive.locking;
    if drive.discard {
        options.discard = tulk_block::Discard::Unmap;
    }
    Ok(Some(tulk_block::open(&options)?))
}

/// Puts the drive's policy in front of a disk: what it leads to is told to the user, and stops the machine if it waits.
pub fn guard(
    name: String,
    drive: &Drive,
    disk: Arc<dyn Disk>,
    to: &Sender<Notice>,
) -> Arc<dyn Disk> {
    let notices = to.clone();
    Arc::new(Guarded::new(disk, drive.policy, move |what, error, outcome| {
        let then = match outcome {
            Outcome::Reported => "the guest is told",
            Outcome::Waits => "the machine is paused, 'cont' in the monitor tries again",
            Outcome::Ignored => "ignored",
        };
        say(&format!("{name}: {what} failed: {error} ({then})"));
        if outcome == Outcome::Waits {
            let _ = notices.send(Notice::Stop("io-error"));
        }
    }))
}

pub type IdeDrives = [[Option<Attachment>; 2]; 2];

/// A drive of `if=none`: its name, what was said of it, its disk.
pub type Named = (String, Drive, Option<Arc<dyn Disk>>);

/// What hangs on the interfaces.
#[derive(Default)]
pub struct Drives {
    pub ide: IdeDrives,
    pub ide_boot_index: [[Option<u32>; 2]; 2],
    pub pci: Vec<Slotted>,
    pub floppies: Option<[Option<Arc<dyn Disk>>; 2]>,
    /// For `-device`, by name.
    pub named: Vec<Named>,
}

/// What a place on the IDE channels gets of a drive. `None`: a disk that is not there.
pub fn attachment(
    place: usize,
    cdrom: bool,
    drive: &Drive,
    disk: Option<Arc<dyn Disk>>,
    notices: &Sender<Notice>,
) -> Option<Attachment> {
    let mut attachment = if cdrom {
        Attachment::cdrom(disk)
    } else {
        // As the monitor calls it.
        let name = format!("ide{}-hd{}", place / 2, place % 2);
        Attachment::disk(guard(name, drive, disk?, notices))
    };
    if let Some(serial) = &drive.serial {
        attachment.serial = serial.clone();
    }
    Some(attachment)
}

/// The image that boots when nothing else is given.
static DEMO: &[u8] = include_bytes!("demo/demo.img");

/// Puts the drives on their interfaces.
///
/// # Errors
/// Images that cannot be opened, places that are taken.
pub fn drives(settings: &Settings, notices: &Sender<Notice>) -> anyhow::Result<Drives> {
    let mut drives = Drives::default();
    let Drives { ide, pci, floppies, named, .. } = &mut drives;
    if settings.drives.is_empty() && settings.kernel.is_none() && settings.default_devices {
        let disk: Arc<dyn Disk> = Arc::new(tulk_block::MemoryDisk::new(DEMO.to_vec(), false));
        ide[0][0] = Some(Attachment::disk(disk));
        return Ok(drives);
    }
    let mut taken = [false; 4];
    for drive in settings.drives.iter().filter(|d| d.interface == Interface::Ide) {
        if let Some(index) = drive.index {
            taken[index as usize] = true;
        }
    }
    for drive in &settings.drives {
        let disk = open_disk(settings, drive)?;
        match drive.interface {
            Interface::Ide => {
                let index = match drive.index {
                    Some(index) => index as usize,
                    // CDs go to the second channel, as long as it has room.
                    None => {
                        let order = if drive.cdrom { [2, 3, 0, 1] } else { [0, 1, 2, 3] };
                        let free = order.into_iter().find(|n| !taken[*n]);
                        free.context("there are only four IDE drives")?
                    }
                };
                taken[index] = true;
                let attachment = attachment(index, drive.cdrom, drive, disk, notices);
                let attachment = attachment.context("a disk drive without a file")?;
                ide[index / 2][index % 2] = Some(attachment);
            }
            Interface::Virtio => {
                let disk = disk.context("a disk drive without a file")?;
                let disk = guard(format!("virtio-disk{}", pci.len()), drive, disk, notices);
                let serial = drive.serial.clone().unwrap_or_default();
                let options =
                    blk::Options { serial, discard: drive.discard, ..blk::Options::default() };
                let interface = VirtioInterface::default();
                let device = PciDevice::VirtioBlk { disk, options, interface };
                pci.push(Slotted { slot: None, boot_index: None, device });
            }
            Interface::Floppy => {
                let drives = floppies.get_or_insert_with(Default::default);
                let free = drives.iter().position(|d| d.is_none());
                let index = drive.index.map(|n| n as usize).or(free);
                drives[index.context("there are only two floppy drives")?] = disk;
            }
            Interface::None => {
                let id = drive.id.clone().context("-drive if=none: id= is missing")?;
                named.push((id, drive.clone(), disk));
            }
        }
    }
    Ok(drives)
}
