//! `-device`: what may be added to the machine, and its properties.

use super::backends::Backends;
use super::drives::{Drives, Named, attachment, guard};
use super::keyval::{parse_flag, parse_number};
use super::machine::Notice;
use super::network::Networks;
use super::settings::*;
use anyhow::{Context, bail};
use std::sync::mpsc::Sender;
use tulk_devices::virtio::console::Port;
use tulk_devices::virtio::{Interface as VirtioInterface, blk};
use tulk_pc::{PciDevice, Slotted};

/// `addr=`: a slot of the PCI bus, in hexadecimal, function 0.
fn slot(text: Option<&str>) -> anyhow::Result<Option<u8>> {
    let Some(text) = text else { return Ok(None) };
    let slot = text.strip_suffix(".0").unwrap_or(text).trim_start_matches("0x");
    match u8::from_str_radix(slot, 16) {
        Ok(slot @ 2..32) => Ok(Some(slot)),
        _ => bail!("addr={text}: a slot between 2 and 1f"),
    }
}

/// `iobase=`.
pub fn io_port(text: &str) -> anyhow::Result<u16> {
    let port = super::keyval::parse_number(text)?;
    u16::try_from(port).map_err(|_| anyhow::anyhow!("iobase={text}: ports end at 0xffff"))
}

/// What `-device` may name.
pub const DRIVERS: [&str; 10] = [
    "e1000",
    "ide-cd",
    "ide-hd",
    "isa-debug-exit",
    "isa-debugcon",
    "virtconsole",
    "virtio-blk-pci",
    "virtio-net-pci",
    "virtio-rng-pci",
    "virtio-serial-pci",
];

/// The consoles of the virtio-serial controller.
fn consoles(settings: &Settings, backends: &mut Backends<'_>) -> anyhow::Result<Vec<Port>> {
    let mut ports = Vec::new();
    for console in settings.devices.iter().filter(|d| d.driver == "virtconsole") {
        let mut name = None;
        let mut chardev = None;
        for (key, value) in &console.properties {
            match &**key {
                "chardev" => chardev = Some(value),
                "name" => name = Some(value.clone()),
                "id" => {}
                _ => bail!("-device virtconsole: the property {key} is not supported"),
            }
        }
        let chardev = chardev.context("-device virtconsole: chardev= is missing")?;
        if let Some(backend) = backends.open("virtconsole", &CharSpec::Named(chardev.clone()))? {
            ports.push(Port { backend, console: true, name });
        }
    }
    Ok(ports)
}

/// One `-device`, while it is made.
struct Wanted<'a> {
    settings: &'a Settings,
    device: &'a DeviceOption,
}

impl Wanted<'_> {
    fn option(&self) -> String {
        format!("-device {}", self.device.driver)
    }

    /// The device's own property, or that of all of its kind.
    fn get(&self, key: &str) -> Option<&str> {
        let own = self.device.properties.iter().rev().find(|(k, _)| k == key).map(|(_, v)| &**v);
        let mut globals = self.settings.globals.iter().rev();
        let same = |g: &&(String, String, String)| g.0 == self.device.driver && g.1 == key;
        own.or_else(|| globals.find(same).map(|g| &*g.2))
    }

    /// # Errors
    /// Names a property that is none of these.
    fn known(&self, keys: &[&[&str]]) -> anyhow::Result<()> {
        let unknown = |key: &str| key != "id" && !keys.iter().any(|keys| keys.contains(&key));
        match self.device.properties.iter().find(|(key, _)| unknown(key)) {
            Some((key, _)) => bail!("{}: the property {key} is not supported", self.option()),
            None => Ok(()),
        }
    }

    fn number(&self, key: &str) -> anyhow::Result<Option<u64>> {
        let parse = |text| parse_number(text).with_context(|| format!("{} {key}=", self.option()));
        self.get(key).map(parse).transpose()
    }

    fn flag(&self, key: &str) -> anyhow::Result<Option<bool>> {
        let parse = |text| parse_flag(text).with_context(|| format!("{} {key}=", self.option()));
        self.get(key).map(parse).transpose()
    }

    fn boot_index(&self) -> anyhow::Result<Option<u32>> {
        let number = self.number("bootindex")?.map(u32::try_from).transpose();
        number.with_context(|| format!("{} bootindex=", self.option()))
    }

    fn port(&self, default: u16) -> anyhow::Result<u16> {
        self.get("iobase").map_or(Ok(default), io_port)
    }

    /// Where and how it is on the PCI bus.
    fn slotted(&self, device: PciDevice) -> anyhow::Result<Slotted> {
        if let Some(bus) = self.get("bus").filter(|bus| *bus != "pci.0") {
            bail!("{}: bus={bus}: there is only pci.0", self.option());
        }
        let slot = slot(self.get("addr")).with_context(|| self.option())?;
        Ok(Slotted { slot, boot_index: self.boot_index()?, device })
    }

    /// Which of the virtio interfaces the driver sees.
    fn interface(&self) -> anyhow::Result<VirtioInterface> {
        let off = |key| self.flag(key).map(|flag| flag.unwrap_or(false));
        Ok(match (off("disable-legacy")?, off("disable-modern")?) {
            (false, false) => VirtioInterface::default(),
            (true, false) => VirtioInterface::Modern,
            (false, true) => VirtioInterface::Legacy,
            (true, true) => bail!("{}: no interface is left", self.option()),
        })
    }

    /// Takes the drive of `drive=` from those of `if=none`.
    fn drive(&self, drives: &mut Drives) -> anyhow::Result<Named> {
        let option = self.option();
        let name = self.get("drive").with_context(|| format!("{option}: drive= is missing"))?;
        let at = drives.named.iter().position(|(id, ..)| id == name);
        let mut named =
            drives.named.remove(at.with_context(|| format!("{option}: there is no drive {name}"))?);
        named.1.serial = self.get("serial").map(str::to_string).or(named.1.serial);
        Ok(named)
    }

    fn virtio_blk(
        &self,
        drives: &mut Drives,
        notices: &Sender<Notice>,
    ) -> anyhow::Result<PciDevice> {
        let (name, drive, disk) = self.drive(drives)?;
        let option = self.option();
        let disk = disk.with_context(|| format!("{option}: the drive {name} is empty"))?;
        let disk = guard(name, &drive, disk, notices);
        let mut options = blk::Options {
            serial: drive.serial.clone().unwrap_or_default(),
            discard: drive.discard,
            ..blk::Options::default()
        };
        if let Some(queues) = self.number("num-queues")? {
            if !(1..=16).contains(&queues) {
                bail!("{option}: num-queues={queues}: between 1 and 16");
            }
            options.queues = queues as u16;
        }
        for (key, block) in [
            ("logical_block_size", &mut options.logical_block),
            ("physical_block_size", &mut options.physical_block),
        ] {
            let Some(bytes) = self.number(key)? else { continue };
            if !bytes.is_power_of_two() || !(512..=65536).contains(&bytes) {
                bail!("{option}: {key}={bytes}: a power of two between 512 and 65536");
            }
            *block = bytes as u32;
        }
        options.write_cache = match self.get("write-cache") {
            None | Some("auto") => options.write_cache,
            Some(_) => self.flag("write-cache")?.unwrap_or(true),
        };
        Ok(PciDevice::VirtioBlk { disk, options, interface: self.interface()? })
    }

    /// Puts a disk or CD on an IDE channel.
    fn ide(&self, drives: &mut Drives, notices: &Sender<Notice>) -> anyhow::Result<()> {
        let option = self.option();
        let cdrom = self.device.driver == "ide-cd";
        let (name, drive, disk) = match (cdrom, self.get("drive")) {
            (true, None) => (String::new(), Drive::default(), None),
            _ => self.drive(drives)?,
        };
        let free = |n: &usize| drives.ide[n / 2][n % 2].is_none();
        let (first, last) = match self.get("bus") {
            None => (0, 4),
            Some("ide.0") => (0, 2),
            Some("ide.1") => (2, 4),
            Some(bus) => bail!("{option}: bus={bus}: there are ide.0 and ide.1"),
        };
        let place = match self.get("unit") {
            None => (first..last).find(free),
            Some("0") => Some(first).filter(free),
            Some("1") => Some(first + 1).filter(free),
            Some(unit) => bail!("{option}: unit={unit}: 0 or 1"),
        };
        let place = place.with_context(|| format!("{option}: the place is taken"))?;
        if cdrom && drive.policy != Default::default() {
            bail!("werror= and rerror= are for disks");
        }
        let attachment = attachment(place, cdrom, &drive, disk, notices);
        let attachment =
            attachment.with_context(|| format!("{option}: the drive {name} is empty"))?;
        drives.ide[place / 2][place % 2] = Some(attachment);
        drives.ide_boot_index[place / 2][place % 2] = self.boot_index()?;
        Ok(())
    }
}

/// Properties of all PCI devices, and of all with virtio.
const PCI: &[&str] = &["addr", "bus"];
const VIRTIO: &[&str] = &["disable-legacy", "disable-modern"];

/// Makes what `-device` asks for; gives the ports of isa-debug-exit.
///
/// # Errors
/// Drivers, properties and values that there are not.
pub fn devices(
    settings: &Settings,
    drives: &mut Drives,
    backends: &mut Backends<'_>,
    notices: &Sender<Notice>,
) -> anyhow::Result<Option<(u16, u16)>> {
    let mut networks = Networks::open(settings)?;
    let mut serial_controller = false;
    let mut debug_exit = None;
    for device in &settings.devices {
        let wanted = Wanted { settings, device };
        let option = wanted.option();
        match &*device.driver {
            "isa-debug-exit" => {
                wanted.known(&[&["iobase", "iosize"]])?;
                let len = wanted.number("iosize")?.unwrap_or(2);
                if !(1..=4).contains(&len) {
                    bail!("{option}: iosize={len}: between 1 and 4");
                }
                if debug_exit.replace((wanted.port(0x501)?, len as u16)).is_some() {
                    bail!("{option}: there can be one only");
                }
            }
            "isa-debugcon" => {
                wanted.known(&[&["iobase", "chardev"]])?;
                let name = wanted.get("chardev");
                let name = name.with_context(|| format!("{option}: chardev= is missing"))?;
                if let Some(backend) = backends.open("debugcon", &CharSpec::Named(name.into()))? {
                    backends.debug.push((wanted.port(0xe9)?, backend));
                }
            }
            "virtio-rng-pci" => {
                wanted.known(&[PCI, VIRTIO])?;
                let entropy = Box::new(|out: &mut [u8]| {
                    let flags = rustix::rand::GetRandomFlags::empty();
                    let _ = rustix::rand::getrandom(out, flags);
                });
                let interface = wanted.interface()?;
                drives.pci.push(wanted.slotted(PciDevice::VirtioRng { entropy, interface })?);
            }
            "virtio-blk-pci" | "virtio-blk" => {
                let own = [
                    "drive",
                    "serial",
                    "bootindex",
                    "num-queues",
                    "logical_block_size",
                    "physical_block_size",
                    "write-cache",
                ];
                wanted.known(&[PCI, VIRTIO, &own])?;
                let disk = wanted.virtio_blk(drives, notices)?;
                drives.pci.push(wanted.slotted(disk)?);
            }
            "e1000" | "virtio-net-pci" | "virtio-net" => {
                let virtio = device.driver != "e1000";
                let more = if virtio { VIRTIO } else { &[] };
                wanted.known(&[PCI, more, &["netdev", "mac", "bootindex", "romfile"]])?;
                if let Some(rom) = wanted.get("romfile").filter(|rom| !rom.is_empty()) {
                    bail!("{option}: romfile={rom}: there is no network boot");
                }
                let mac = networks.mac(wanted.get("mac")).with_context(|| option.clone())?;
                let network = networks.connect(wanted.get("netdev"));
                let network = network.with_context(|| option.clone())?;
                let card = match virtio {
                    false => PciDevice::E1000 { network, mac },
                    true => {
                        let interface = wanted.interface()?;
                        PciDevice::VirtioNet { network, mac, interface }
                    }
                };
                drives.pci.push(wanted.slotted(card)?);
            }
            "ide-hd" | "ide-cd" => {
                wanted.known(&[&["drive", "bus", "unit", "serial", "bootindex"]])?;
                wanted.ide(drives, notices)?;
            }
            "virtio-serial-pci" | "virtio-serial" => {
                wanted.known(&[PCI, VIRTIO])?;
                if std::mem::replace(&mut serial_controller, true) {
                    bail!("{option}: one controller is all that is supported");
                }
                let ports = consoles(settings, backends)?;
                if ports.is_empty() {
                    bail!("{option}: no -device virtconsole is on it");
                }
                let interface = wanted.interface()?;
                let console = PciDevice::VirtioConsole { ports, interface };
                drives.pci.push(wanted.slotted(console)?);
            }
            // Made with their controller.
            "virtconsole" => {}
            _ => bail!("{option} is not supported (-device help lists those that are)"),
        }
    }
    if !serial_controller && settings.devices.iter().any(|d| d.driver == "virtconsole") {
        bail!("-device virtconsole needs -device virtio-serial-pci");
    }
    if let Some((id, ..)) = drives.named.first() {
        bail!("no -device uses the drive {id}");
    }
    let all = drives.pci.iter().map(|s| s.boot_index);
    let all = all.chain(drives.ide_boot_index.iter().flatten().copied());
    let mut indexes: Vec<u32> = all.flatten().collect();
    indexes.sort_unstable();
    if let Some(pair) = indexes.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("bootindex={}: two devices have it", pair[0]);
    }
    networks.finish();
    Ok(debug_exit)
}
