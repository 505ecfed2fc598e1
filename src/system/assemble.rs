//! From the settings to a machine: firmware, disks, backends, processors.

use super::chardev;
use super::machine::{Machine, Notice};
use super::monitor::Monitor;
use super::network::Networks;
use super::processors::Processors;
use super::settings::*;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tulk_block::{Disk, OpenOptions};
use tulk_devices::ide::Attachment;
use tulk_devices::virtio::console::Port;
use tulk_devices::virtio::{Interface as VirtioInterface, blk};
use tulk_exec::{Config, Engine};
use tulk_pc::firmware::{BootDevice, BootOptions};
use tulk_pc::layout::MemoryMap;
use tulk_pc::{Description, Event, PciDevice, boot};
use tulk_ui::{CharBackend, Mux, MuxCommand};
use tulk_x86::{CpuModel, X86};

/// Where Debian and others put firmware.
const FIRMWARE_DIRS: [&str; 4] =
    ["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu", "/usr/share/vgabios"];

/// A firmware file: a path as it is, or a name in the folders of `-L` and the usual ones.
fn firmware(settings: &Settings, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut places = vec![PathBuf::from(name)];
    if !name.contains('/') {
        places.extend(settings.data_dirs.iter().map(|dir| dir.join(name)));
        places.extend(FIRMWARE_DIRS.iter().map(|dir| Path::new(dir).join(name)));
    }
    match places.iter().find(|place| place.is_file()) {
        Some(place) => {
            std::fs::read(place).with_context(|| format!("cannot read {}", place.display()))
        }
        None => bail!(
            "the firmware {name} is not there: install the Debian package seabios, or name a file with -bios or a folder with -L"
        ),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Sorts `-kernel`, `-initrd`, `-append` out.
fn kernel(settings: &Settings, memory: &MemoryMap) -> anyhow::Result<Option<boot::Prepared>> {
    let Some(path) = &settings.kernel else { return Ok(None) };
    let mut request = boot::Request {
        kernel: read(path)?,
        command_line: settings.append.clone().unwrap_or_default(),
        ..boot::Request::default()
    };
    for module in settings.initrd.iter().flat_map(|list| list.split(',')).filter(|m| !m.is_empty())
    {
        let file = module.split(' ').next().unwrap_or(module);
        request.initrd.push((module.to_string(), read(Path::new(file))?));
    }
    let prepared = boot::prepare(&request, memory);
    Ok(Some(prepared.with_context(|| format!("cannot boot {}", path.display()))?))
}

fn open_disk(settings: &Settings, drive: &Drive) -> anyhow::Result<Option<Arc<dyn Disk>>> {
    let Some(file) = &drive.file else { return Ok(None) };
    let mut options = OpenOptions::new(file);
    options.format = drive.format.as_deref().map(str::parse).transpose()?;
    options.read_only = drive.read_only;
    options.snapshot = !drive.read_only && (drive.snapshot || settings.snapshot);
    options.cache = match drive.cache {
        Cache::Writeback => tulk_block::Cache::Writeback,
        Cache::Writethrough => tulk_block::Cache::Writethrough,
        Cache::None => tulk_block::Cache::None,
        Cache::Directsync => tulk_block::Cache::Directsync,
        Cache::Unsafe => tulk_block::Cache::Unsafe,
    };
    options.detect_zeroes = drive.detect_zeroes;
    Ok(Some(tulk_block::open(&options)?))
}

type IdeDrives = [[Option<Attachment>; 2]; 2];

/// A drive of `if=none`: its name, what was said of it, its disk.
type Named = (String, Drive, Option<Arc<dyn Disk>>);

/// What hangs on the interfaces.
#[derive(Default)]
struct Drives {
    ide: IdeDrives,
    pci: Vec<(Option<u8>, PciDevice)>,
    floppies: Option<[Option<Arc<dyn Disk>>; 2]>,
    /// For `-device`, by name.
    named: Vec<Named>,
}

fn virtio_blk(drive: &Drive, disk: Option<Arc<dyn Disk>>) -> anyhow::Result<PciDevice> {
    let disk = disk.context("a disk drive without a file")?;
    let options = blk::Options {
        serial: drive.serial.clone().unwrap_or_default(),
        discard: drive.discard,
        ..blk::Options::default()
    };
    Ok(PciDevice::VirtioBlk { disk, options, interface: VirtioInterface::default() })
}

/// The image that boots when nothing else is given.
static DEMO: &[u8] = include_bytes!("demo/demo.img");

/// Puts the drives on their interfaces.
fn drives(settings: &Settings) -> anyhow::Result<Drives> {
    let Drives { mut ide, mut pci, mut floppies, mut named } = Drives::default();
    if settings.drives.is_empty() && settings.kernel.is_none() && settings.default_devices {
        let disk: Arc<dyn Disk> = Arc::new(tulk_block::MemoryDisk::new(DEMO.to_vec(), false));
        ide[0][0] = Some(Attachment::disk(disk));
        return Ok(Drives { ide, pci, floppies, named });
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
                let mut attachment = match (drive.cdrom, disk) {
                    (true, medium) => Attachment::cdrom(medium),
                    (false, Some(disk)) => Attachment::disk(disk),
                    (false, None) => bail!("a disk drive without a file"),
                };
                if let Some(serial) = &drive.serial {
                    attachment.serial = serial.clone();
                }
                ide[index / 2][index % 2] = Some(attachment);
            }
            Interface::Virtio => pci.push((None, virtio_blk(drive, disk)?)),
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
    Ok(Drives { ide, pci, floppies, named })
}

fn boot_options(settings: &Settings) -> anyhow::Result<BootOptions> {
    let order = settings.boot_once.as_deref().or(settings.boot_order.as_deref());
    Ok(BootOptions {
        order: order.unwrap_or("cad").chars().filter_map(BootDevice::from_letter).take(3).collect(),
        menu: settings.boot_menu.unwrap_or(false),
        menu_wait: settings.boot_menu_wait,
        retry: settings.reboot_timeout,
        strict: settings.boot_strict,
    })
}

/// Seconds since 1970 of the guest's clock at its start.
fn date(settings: &Settings) -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    let seconds = |t: SystemTime| t.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    match settings.rtc_base {
        RtcBase::At(time) => seconds(time),
        RtcBase::Utc | RtcBase::LocalTime => seconds(SystemTime::now()),
    }
}

/// The host ends of the serial ports, debug consoles and monitors.
struct Backends<'a> {
    settings: &'a Settings,
    notices: Sender<Notice>,
    serial: [Option<Arc<dyn CharBackend>>; 4],
    debug: Vec<(u16, Arc<dyn CharBackend>)>,
    /// With whether it says hello.
    monitors: Vec<(Arc<dyn CharBackend>, bool)>,
    /// Switches by what they stand on, so that a second user of a name shares it.
    switches: Vec<(CharSpec, Mux)>,
    /// What was opened, to be flushed at the end.
    opened: Vec<Arc<dyn CharBackend>>,
}

impl Backends<'_> {
    /// Opens a backend for one more user.
    fn open(&mut self, spec: &CharSpec) -> anyhow::Result<Option<Arc<dyn CharBackend>>> {
        match spec {
            CharSpec::Named(id) => {
                let mut all = self.settings.chardevs.iter();
                let found = all.find(|(name, _)| name == id);
                let spec = &found.with_context(|| format!("there is no -chardev with id={id}"))?.1;
                self.open(spec)
            }
            CharSpec::Mux(inner) => {
                if let Some((_, mux)) = self.switches.iter().find(|(known, _)| *known == **inner) {
                    return Ok(Some(mux.port()));
                }
                // Ctrl-C is the guest's where Ctrl-A ends the emulator.
                let opened = match &**inner {
                    CharSpec::Stdio { .. } => chardev::open(&CharSpec::Stdio { signal: false })?,
                    other => chardev::open(other)?,
                };
                let Some(backend) = opened else { return Ok(None) };
                self.opened.push(backend.clone());
                let notices = self.notices.clone();
                let mux = Mux::new(backend, move |command| {
                    let _ = notices.send(match command {
                        MuxCommand::Quit => Notice::Quit(0),
                        MuxCommand::Sync => Notice::Sync,
                    });
                });
                let port = mux.port();
                self.switches.push(((**inner).clone(), mux));
                Ok(Some(port))
            }
            other => {
                let backend = chardev::open(other)?;
                self.opened.extend(backend.clone());
                Ok(backend)
            }
        }
    }
}

fn backends(settings: &Settings, notices: Sender<Notice>) -> anyhow::Result<Backends<'_>> {
    let stdio = CharSpec::Mux(Box::new(CharSpec::Stdio { signal: false }));
    let mut serials = settings.serials.clone();
    let mut monitors = settings.monitors.clone();
    if serials.is_empty() && settings.default_devices {
        serials.push(stdio);
    }
    // A switch without a monitor of its own gets one.
    if monitors.is_empty() {
        monitors.extend(serials.iter().find(|s| matches!(s, CharSpec::Mux(_))).cloned());
    }
    let mut backends = Backends {
        settings,
        notices,
        serial: Default::default(),
        debug: Vec::new(),
        monitors: Vec::new(),
        switches: Vec::new(),
        opened: Vec::new(),
    };
    for (n, spec) in serials.iter().enumerate() {
        backends.serial[n] =
            backends.open(spec).with_context(|| format!("serial port {}", n + 1))?;
    }
    for spec in &monitors {
        let greet = !serials.contains(spec);
        let backend = backends.open(spec).context("-monitor")?;
        backends.monitors.extend(backend.map(|backend| (backend, greet)));
    }
    if let Some(spec) = &settings.debugcon {
        let port = settings.globals.iter().rev().find(|g| g.0 == "isa-debugcon");
        let port = match port {
            Some((_, _, value)) => io_port(value)?,
            None => 0xe9,
        };
        if let Some(backend) = backends.open(spec).context("-debugcon")? {
            backends.debug.push((port, backend));
        }
    }
    Ok(backends)
}

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
fn io_port(text: &str) -> anyhow::Result<u16> {
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
        if let Some(backend) = backends.open(&CharSpec::Named(chardev.clone()))? {
            ports.push(Port { backend, console: true, name });
        }
    }
    Ok(ports)
}

/// Devices of `-device`.
struct Extra {
    pci: Vec<(Option<u8>, PciDevice)>,
    debug_exit: Option<(u16, u16)>,
}

fn devices(
    settings: &Settings,
    drives: &mut Drives,
    backends: &mut Backends<'_>,
) -> anyhow::Result<Extra> {
    let mut networks = Networks::open(settings)?;
    let mut serial_controller = false;
    let mut extra = Extra { pci: Vec::new(), debug_exit: None };
    for device in &settings.devices {
        let option = format!("-device {}", device.driver);
        // The device's own, or that of all of its kind.
        let get = |key: &str| {
            let own = device.properties.iter().rev().find(|(k, _)| k == key).map(|(_, v)| &**v);
            let mut global = settings.globals.iter().rev();
            own.or_else(|| global.find(|g| g.0 == device.driver && g.1 == key).map(|g| &*g.2))
        };
        let known = |keys: &[&str]| -> anyhow::Result<()> {
            match device.properties.iter().find(|(k, _)| !keys.contains(&&**k) && k != "id") {
                Some((key, _)) => bail!("{option}: the property {key} is not supported"),
                None => Ok(()),
            }
        };
        let port = |default: u16| get("iobase").map_or(Ok(default), io_port);
        match &*device.driver {
            "isa-debug-exit" => {
                known(&["iobase", "iosize"])?;
                let len = get("iosize").map_or(Ok(2), super::keyval::parse_number)?;
                if !(1..=4).contains(&len) {
                    bail!("{option}: iosize={len}: between 1 and 4");
                }
                if extra.debug_exit.replace((port(0x501)?, len as u16)).is_some() {
                    bail!("{option}: there can be one only");
                }
            }
            "isa-debugcon" => {
                known(&["iobase", "chardev"])?;
                let name =
                    get("chardev").with_context(|| format!("{option}: chardev= is missing"))?;
                let spec = CharSpec::Named(name.into());
                if let Some(backend) = backends.open(&spec)? {
                    backends.debug.push((port(0xe9)?, backend));
                }
            }
            "virtio-rng-pci" => {
                known(&["addr"])?;
                let entropy = Box::new(|out: &mut [u8]| {
                    let flags = rustix::rand::GetRandomFlags::empty();
                    let _ = rustix::rand::getrandom(out, flags);
                });
                let interface = VirtioInterface::default();
                extra.pci.push((slot(get("addr"))?, PciDevice::VirtioRng { entropy, interface }));
            }
            "virtio-blk-pci" | "virtio-blk" => {
                known(&["drive", "addr", "serial"])?;
                let name = get("drive").with_context(|| format!("{option}: drive= is missing"))?;
                let at = drives.named.iter().position(|(id, ..)| id == name);
                let at = at.with_context(|| format!("{option}: there is no drive {name}"))?;
                let (_, mut drive, disk) = drives.named.remove(at);
                drive.serial = get("serial").map(str::to_string).or(drive.serial);
                extra.pci.push((slot(get("addr"))?, virtio_blk(&drive, disk)?));
            }
            "e1000" | "virtio-net-pci" | "virtio-net" => {
                known(&["netdev", "mac", "addr"])?;
                let mac = networks.mac(get("mac")).with_context(|| option.clone())?;
                let network = networks.connect(get("netdev")).with_context(|| option.clone())?;
                let card = match &*device.driver {
                    "e1000" => PciDevice::E1000 { network, mac },
                    _ => {
                        let interface = VirtioInterface::default();
                        PciDevice::VirtioNet { network, mac, interface }
                    }
                };
                extra.pci.push((slot(get("addr"))?, card));
            }
            "ide-hd" | "ide-cd" => {
                known(&["drive", "bus", "unit", "serial"])?;
                let name = get("drive").with_context(|| format!("{option}: drive= is missing"))?;
                let at = drives.named.iter().position(|(id, ..)| id == name);
                let at = at.with_context(|| format!("{option}: there is no drive {name}"))?;
                let (_, drive, disk) = drives.named.remove(at);
                let free = |n: &usize| drives.ide[n / 2][n % 2].is_none();
                let (first, last) = match get("bus") {
                    None => (0, 4),
                    Some("ide.0") => (0, 2),
                    Some("ide.1") => (2, 4),
                    Some(bus) => bail!("{option}: bus={bus}: there are ide.0 and ide.1"),
                };
                let place = match get("unit") {
                    None => (first..last).find(free),
                    Some("0") => Some(first).filter(free),
                    Some("1") => Some(first + 1).filter(free),
                    Some(unit) => bail!("{option}: unit={unit}: 0 or 1"),
                };
                let place = place.with_context(|| format!("{option}: the place is taken"))?;
                let mut attachment = match (&*device.driver, disk) {
                    ("ide-cd", medium) => Attachment::cdrom(medium),
                    (_, Some(disk)) => Attachment::disk(disk),
                    (_, None) => bail!("{option}: the drive {name} is empty"),
                };
                if let Some(serial) = get("serial").or(drive.serial.as_deref()) {
                    attachment.serial = serial.to_string();
                }
                drives.ide[place / 2][place % 2] = Some(attachment);
            }
            "virtio-serial-pci" | "virtio-serial" => {
                known(&["addr"])?;
                if std::mem::replace(&mut serial_controller, true) {
                    bail!("{option}: one controller is all that is supported");
                }
                let ports = consoles(settings, backends)?;
                if ports.is_empty() {
                    bail!("{option}: no -device virtconsole is on it");
                }
                let interface = VirtioInterface::default();
                let console = PciDevice::VirtioConsole { ports, interface };
                extra.pci.push((slot(get("addr"))?, console));
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
    networks.finish();
    Ok(extra)
}

/// Options that are understood and not there yet.
fn check(settings: &Settings) -> anyhow::Result<()> {
    let missing = [
        (settings.gdb.is_some(), "-gdb"),
        (settings.boot_once.is_some(), "-boot once="),
        (settings.message_time, "-msg timestamp=on"),
        (settings.display == Some(DisplayKind::Curses), "-display curses"),
        (settings.rtc_base == RtcBase::LocalTime, "-rtc base=localtime"),
        (settings.drives.iter().any(|d| d.boot_index.is_some()), "bootindex="),
    ];
    match missing.iter().find(|(wanted, _)| *wanted) {
        Some((_, option)) => bail!("{option} is not supported yet"),
        None => Ok(()),
    }
}

/// Makes the machine. It stands still.
///
/// # Errors
/// What of the command line cannot be had.
pub fn assemble(
    settings: &Settings,
    mut config: Config,
    notices: Sender<Notice>,
) -> anyhow::Result<Arc<Machine>> {
    check(settings)?;
    let memory = MemoryMap::new(settings.memory);
    let default_bios = "bios-256k.bin";
    let bios = firmware(settings, settings.bios.as_deref().unwrap_or(default_bios))?;
    let kernel = kernel(settings, &memory)?;
    let vga_bios = match settings.vga {
        VgaKind::Std => Some(firmware(settings, "vgabios-stdvga.bin")?),
        VgaKind::None => None,
    };
    let mut drives = drives(settings)?;
    let mut backends = backends(settings, notices.clone())?;
    let extra = devices(settings, &mut drives, &mut backends)?;
    drives.pci.extend(extra.pci);
    let mut fw_cfg_files = Vec::new();
    for (name, content) in &settings.fw_cfg {
        let bytes = match content {
            FwCfgContent::File(path) => read(path)?,
            FwCfgContent::Text(text) => text.clone().into_bytes(),
        };
        fw_cfg_files.push((name.clone(), bytes));
    }
    let model = settings.cpu.as_deref().unwrap_or(if settings.i386 { "pentium3" } else { "max" });
    let model = CpuModel::parse(model).with_context(|| format!("-cpu {model}"))?;
    let description = Description {
        memory,
        cpus: settings.cpus,
        tsc_hz: tulk_x86::cpuid::TSC_HZ,
        date: date(settings),
        bios,
        hpet: settings.hpet,
        acpi: settings.acpi,
        uuid: settings.uuid,
        boot: boot_options(settings)?,
        kernel,
        fw_cfg_files,
        serial: std::mem::take(&mut backends.serial),
        debug_consoles: std::mem::take(&mut backends.debug),
        debug_exit: extra.debug_exit,
        ide: drives.ide,
        pci: drives.pci,
        vga_bios,
        no_graphics: settings.nographic,
        floppies: drives.floppies,
    };
    let events = notices.clone();
    let pc = tulk_pc::build(
        description,
        Arc::new(move |event: Event| {
            let _ = events.send(Notice::Guest(event));
        }),
    )?;
    let isa = Arc::new(X86::new_system(model).with_processors(settings.cpus));
    config.code_limit = settings.code_size.map_or(config.code_limit, |mib| (mib as usize) << 20);
    let phys = pc.memory.phys.clone();
    let engine = Engine::system(isa.clone(), phys, pc.clone(), config)
        .map_err(|e| anyhow::anyhow!("the host has no address space for the machine: {e:?}"))?;
    let processors = Processors::start(&engine, &isa, &pc, settings.cpus)?;
    pc.connect(processors.clone());
    pc.reset();
    let machine = Machine::new(pc, processors, engine, isa, notices, backends.opened);
    for (backend, greet) in backends.monitors {
        Monitor::start(&machine, backend, greet);
    }
    Ok(machine)
}
