//! What the command line says about the machine, before anything is opened or made.

use std::path::PathBuf;
use std::time::SystemTime;
use tulk_exec::Tier;

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
    pub boot_index: Option<u32>,
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

/// How writes reach the host's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    #[default]
    Writeback,
    /// Each write is on stable storage when it is done.
    Writethrough,
    /// Around the host's page cache.
    None,
    Directsync,
    /// Flushes of the guest are ignored.
    Unsafe,
}

/// A host end of a character device.
#[derive(Clone, Debug, PartialEq)]
pub enum CharSpec {
    Null,
    /// There is no such port at all (`-serial none`).
    None,
    Stdio {
        /// Ctrl-C is passed to the guest.
        signal: bool,
    },
    File {
        path: PathBuf,
        append: bool,
    },
    Unix {
        path: PathBuf,
        server: bool,
        wait: bool,
    },
    Tcp {
        host: String,
        port: u16,
        server: bool,
        wait: bool,
        nodelay: bool,
        telnet: bool,
    },
    Pty,
    /// The `-chardev` of this name.
    Named(String),
    /// Shared with the monitor and other users: escapes with Ctrl-A.
    Mux(Box<CharSpec>),
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
    pub chardevs: Vec<(String, CharSpec)>,
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
    pub snapshot: bool,
    pub name: Option<String>,
    pub pidfile: Option<PathBuf>,
    pub data_dirs: Vec<PathBuf>,
    pub bios: Option<String>,
    pub fw_cfg: Vec<(String, FwCfgContent)>,
    pub default_devices: bool,
    pub uuid: Option<[u8; 16]>,
    pub message_time: bool,
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
            snapshot: false,
            name: None,
            pidfile: None,
            data_dirs: Vec::new(),
            bios: None,
            fw_cfg: Vec::new(),
            default_devices: true,
            uuid: None,
            message_time: false,
            stats: false,
        }
    }
}
