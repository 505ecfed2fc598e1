//! From the settings to a machine: firmware, disks, backends, processors.

use super::backends::backends;
use super::devices::devices;
use super::drives::drives;
use super::machine::{About, Machine, Notice};
use super::monitor::Monitor;
use super::processors::Processors;
use super::settings::*;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tulk_exec::{Config, Engine};
use tulk_pc::firmware::{BootDevice, BootOptions};
use tulk_pc::layout::MemoryMap;
use tulk_pc::{Description, Event, boot};
use tulk_x86::{CpuModel, X86};

/// Where Debian and others put firmware.
const FIRMWARE_DIRS: [&str; 4] =
    ["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu", "/usr/share/vgabios"];

const DEFAULT_BIOS: &str = "bios-256k.bin";
const VGA_BIOS: &str = "vgabios-stdvga.bin";

/// A firmware file: a path as it is, or a name in the folders of `-L` and the usual ones.
fn firmware(settings: &Settings, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut places = vec![PathBuf::from(name)];
    if !name.contains('/') {
        places.extend(settings.data_dirs.iter().map(|dir| dir.join(name)));
        places.extend(FIRMWARE_DIRS.iter().map(|dir| Path::new(dir).join(name)));
    }
    match places.iter().find(|place| place.is_file()) {
        Some(place) => read(place),
        None => bail!(
            "the firmware {name} is not there: install the Debian package seabios, or name a file with -bios or a folder with -L"
        ),
    }
}

/// Whether the firmware is installed that is used unless options say otherwise.
///
/// # Errors
/// It is not; says which package has it.
pub fn find_firmware() -> anyhow::Result<()> {
    let settings = Settings::default();
    firmware(&settings, DEFAULT_BIOS).and_then(|_| firmware(&settings, VGA_BIOS)).map(drop)
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

/// The devices of the letters of `-boot`.
fn boot_order(letters: Option<&str>) -> Vec<BootDevice> {
    letters.unwrap_or("cad").chars().filter_map(BootDevice::from_letter).take(3).collect()
}

fn boot_options(settings: &Settings) -> BootOptions {
    let order = settings.boot_once.as_deref().or(settings.boot_order.as_deref());
    BootOptions {
        order: boot_order(order),
        menu: settings.boot_menu.unwrap_or(false),
        menu_wait: settings.boot_menu_wait,
        retry: settings.reboot_timeout,
        strict: settings.boot_strict,
    }
}

/// Seconds since 1970 of the guest's clock at its start.
fn date(settings: &Settings) -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    let seconds = |t: SystemTime| t.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    match settings.rtc_base {
        RtcBase::At(time) => seconds(time),
        RtcBase::Utc => seconds(SystemTime::now()),
        RtcBase::LocalTime => {
            let now = seconds(SystemTime::now());
            let zone = jiff::tz::TimeZone::system();
            now + i64::from(zone.to_offset(jiff::Timestamp::now()).seconds())
        }
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
    let memory = MemoryMap::new(settings.memory);
    let bios = firmware(settings, settings.bios.as_deref().unwrap_or(DEFAULT_BIOS))?;
    let mut roms = vec![(settings.bios.clone().unwrap_or(DEFAULT_BIOS.into()), bios.len())];
    let kernel = kernel(settings, &memory)?;
    let vga_bios = match settings.vga {
        VgaKind::Std => Some(firmware(settings, VGA_BIOS)?),
        VgaKind::None => None,
    };
    roms.extend(vga_bios.iter().map(|rom| (VGA_BIOS.to_string(), rom.len())));
    let mut drives = drives(settings, &notices)?;
    let mut backends = backends(settings, notices.clone())?;
    let debug_exit = devices(settings, &mut drives, &mut backends, &notices)?;
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
        boot: boot_options(settings),
        kernel,
        fw_cfg_files,
        serial: std::mem::take(&mut backends.serial),
        debug_consoles: std::mem::take(&mut backends.debug),
        debug_exit,
        ide: drives.ide,
        ide_boot_index: drives.ide_boot_index,
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
    let about = About {
        name: settings.name.clone(),
        uuid: settings.uuid,
        backends: backends.opened,
        real_time: settings.rtc_clock == RtcClock::Host,
        // What follows once.
        boot_order: settings.boot_once.as_ref().map(|_| boot_order(settings.boot_order.as_deref())),
        roms,
    };
    let machine = Machine::new(pc, processors, engine, isa, notices, about);
    for (backend, greet) in backends.monitors {
        Monitor::start(&machine, backend, greet);
    }
    Ok(machine)
}
