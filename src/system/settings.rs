//! What the command line says about the machine, before anything is opened or made.

use std::path::PathBuf;
use std::time::SystemTime;
use tulk_block::{Cache, Locking, Policy};
use tulk_exec::Tier;
use tulk_ui::ChardevOptions;

/// A disk drive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drive {
    /// `None`: an empty drive.
    pub file: Option<PathBuf>,
    pub interface: Interface,
    /// Position on the interface: IDE channel * 2 + unit, floppy drive.
    pub index: Option<u32>,
    pub cdrom: bool,
    /// `None`: found out from the content.
    pub format: Option<String>,
    pub snapshot: bool,
    pub read_only: bool,
    pub cache: Cache,
    pub discard: bool,
    pub detect_zeroes: bool,
    pub id: Option<String>,
    pub serial: Option<String>,
    pub locking: Locking,
    /// What errors of the host lead to.
    pub policy: Policy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    #[default]
    Ide,
    Floppy,
    Virtio,
    /// For a `-device` that names the drive.
    None,
}

/// A host end of a character device.
#[derive(Clone, Debug, PartialEq)]
pub enum CharSpec {
    /// There is no such device at all (`-serial none`).
    None,
    /// The `-chardev` of this name.
    Named(String),
    Own(ChardevOptions),
}

/// A `-netdev`, or the part of `-nic` that is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Netdev {
    pub id: String,
    pub kind: String,
    pub options: Vec<(String, String)>,
}

/// A `-device`, or what another option means by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceOption {
    pub driver: String,
    pub properties: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisplayKind {
    None,
    Curses,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VgaKind {
    None,
    Std,
}

/// Zero of the guest's calendar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RtcBase {
    Utc,
    LocalTime,
    At(SystemTime),
}

/// What the guest's calendar goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcClock {
    /// The host's: it goes on while the machine is stopped.
    Host,
    /// Guest time.
    Vm,
}

/// What stands in front of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageStyle {
    pub time: bool,
    /// The guest's name.
    pub guest: bool,
}

/// What happens when the guest asks for it, or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReboot {
    Reset,
    Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnShutdown {
    Exit,
    Pause,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FwCfgContent {
    File(PathBuf),
    Text(String),
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Started as `qemu-system-i386`: 32-bit processor by default.
    pub i386: bool,
    pub memory: u64,
    pub cpus: u32,
    pub cpu: Option<String>,
    pub hpet: bool,
    pub acpi: bool,
    /// In the order of their preference.
    pub accelerators: Vec<String>,
    pub tier: Tier,
    /// MiB of machine code.
    pub code_size: Option<u64>,
    pub one_insn_per_tb: bool,
    pub drives: Vec<Drive>,
    pub boot_order: Option<String>,
    pub boot_once: Option<String>,
    pub boot_menu: Option<bool>,
    pub boot_menu_wait: Option<u16>,
    pub reboot_timeout: Option<u32>,
    pub boot_strict: bool,
    pub kernel: Option<PathBuf>,
    pub initrd: Option<String>,
    pub append: Option<String>,
    pub netdevs: Vec<Netdev>,
    /// Cards of `-nic` and `-net nic`, with the name of their network.
    pub devices: Vec<DeviceOption>,
    /// `-nic none`, or any network option: no default card.
    pub default_net: bool,
    pub globals: Vec<(String, String, String)>,
    pub chardevs: Vec<(String, ChardevOptions)>,
    pub serials: Vec<CharSpec>,
    pub monitors: Vec<CharSpec>,
    pub debugcon: Option<CharSpec>,
    pub nographic: bool,
    pub display: Option<DisplayKind>,
    pub vga: VgaKind,
    pub frozen: bool,
    pub gdb: Option<String>,
    pub log_items: Vec<String>,
    pub log_file: Option<PathBuf>,
    pub on_reboot: OnReboot,
    pub on_shutdown: OnShutdown,
    pub rtc_base: RtcBase,
    pub rtc_clock: RtcClock,
    pub snapshot: bool,
    pub name: Option<String>,
    /// Of the process, as `ps` shows it.
    pub process_name: Option<String>,
    pub pidfile: Option<PathBuf>,
    pub data_dirs: Vec<PathBuf>,
    pub bios: Option<String>,
    pub fw_cfg: Vec<(String, FwCfgContent)>,
    pub default_devices: bool,
    pub uuid: Option<[u8; 16]>,
    pub messages: MessageStyle,
    /// Print statistics of the engine at the end.
    pub stats: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            i386: false,
            memory: 128 << 20,
            cpus: 1,
            cpu: None,
            hpet: true,
            acpi: true,
            accelerators: Vec::new(),
            tier: Tier::Mixed,
            code_size: None,
            one_insn_per_tb: false,
            drives: Vec::new(),
            boot_order: None,
            boot_once: None,
            boot_menu: None,
            boot_menu_wait: None,
            reboot_timeout: None,
            boot_strict: false,
            kernel: None,
            initrd: None,
            append: None,
            netdevs: Vec::new(),
            devices: Vec::new(),
            default_net: true,
            globals: Vec::new(),
            chardevs: Vec::new(),
            serials: Vec::new(),
            monitors: Vec::new(),
            debugcon: None,
            nographic: false,
            display: None,
            vga: VgaKind::Std,
            frozen: false,
            gdb: None,
            log_items: Vec::new(),
            log_file: None,
            on_reboot: OnReboot::Reset,
            on_shutdown: OnShutdown::Exit,
            rtc_base: RtcBase::Utc,
            rtc_clock: RtcClock::Host,
            snapshot: false,
            name: None,
            process_name: None,
            pidfile: None,
            data_dirs: Vec::new(),
            bios: None,
            fw_cfg: Vec::new(),
            default_devices: true,
            uuid: None,
            messages: MessageStyle::default(),
            stats: false,
        }
    }
}
