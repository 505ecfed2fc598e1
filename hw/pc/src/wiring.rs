//! Which device is where: [`build`] makes a machine from its description.

use crate::acpi::{self, ISA_BRIDGE_SLOT, Tables};
use crate::board::{A20, Event, EventSink, Kicks, Pc};
use crate::boot::Prepared;
use crate::clock::MachineClock;
use crate::firmware::{self, BootOptions, Facts};
use crate::irq::{IrqCounts, IrqMap, Replaced, Shared, isa};
use crate::layout::{self, MemoryMap};
use crate::memory::{BusMaster, Memory, MemoryError, Windows};
use crate::timers::{SharedDevice, Timers};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;
use tulk_devices::char::{Debugcon, Uart16550};
use tulk_devices::chardev::Plug;
use tulk_devices::dma::i8237;
use tulk_devices::floppy::I82078;
use tulk_devices::ide::{Attachment, DriveKind, Piix3Ide};
use tulk_devices::input::{I8042, i8042};
use tulk_devices::intc::{Apics, I8259, IoApic, i8259};
use tulk_devices::misc::{AcpiPm, DebugExit, FwCfg, Port92, acpi_pm, fw_cfg};
use tulk_devices::net::{self, Nic};
use tulk_devices::pci::i440fx::I440fx;
use tulk_devices::pci::piix3::{Piix3, ResetKind};
use tulk_devices::pci::piix4_pm::Piix4Pm;
use tulk_devices::pci::{AddFunctionError, BusMapper, PciBus, PciFunction, PirqRouter};
use tulk_devices::timer::{Hpet, I8254, Mc146818, hpet, i8254};
use tulk_devices::vga::{StdVga, VgaDisplay};
use tulk_devices::virtio::blk::{self, Blk};
use tulk_devices::virtio::console::{Console, Port};
use tulk_devices::virtio::rng::{Entropy, Rng};
use tulk_devices::virtio::{Interface, VirtioPci};
use tulk_hw::{Bus, Clock, Device, Dma, IrqLine, IrqSink};
use tulk_net::Network;
use tulk_ui::CharBackend;

/// A PCI device that the user adds.
pub enum PciDevice {
    E1000 { network: Arc<dyn Network>, mac: [u8; 6] },
    VirtioNet { network: Arc<dyn Network>, mac: [u8; 6], interface: Interface },
    VirtioBlk { disk: Arc<dyn tulk_block::Disk>, options: blk::Options, interface: Interface },
    VirtioRng { entropy: Entropy, interface: Interface },
    VirtioConsole { ports: Vec<Port>, interface: Interface },
}

/// A PCI device, where it goes, and when firmware boots from it.
pub struct Slotted {
    /// The slot that the user wants.
    pub slot: Option<u8>,
    /// Firmware tries devices with small numbers first, then those without one.
    pub boot_index: Option<u32>,
    pub device: PciDevice,
}

/// A machine to be.
pub struct Description {
    pub memory: MemoryMap,
    pub cpus: u32,
    /// Rate of the time stamp counters.
    pub tsc_hz: u64,
    /// The date at guest time 0, in seconds since 1970.
    pub date: i64,
    pub bios: Vec<u8>,
    pub hpet: bool,
    pub acpi: bool,
    pub uuid: Option<[u8; 16]>,
    pub boot: BootOptions,
    pub kernel: Option<Prepared>,
    pub fw_cfg_files: Vec<(String, Vec<u8>)>,
    pub serial: [Option<Arc<dyn CharBackend>>; 4],
    /// Debug consoles by port.
    pub debug_consoles: Vec<(u16, Arc<dyn CharBackend>)>,
    /// isa-debug-exit: port and number of ports.
    pub debug_exit: Option<(u16, u16)>,
    /// Drives 0 and 1 of both channels.
    pub ide: [[Option<Attachment>; 2]; 2],
    /// When firmware boots from these.
    pub ide_boot_index: [[Option<u32>; 2]; 2],
    pub pci: Vec<Slotted>,
    /// The display adapter's firmware; `None`: no adapter.
    pub vga_bios: Option<Vec<u8>>,
    /// The console is a terminal.
    pub no_graphics: bool,
    /// Two floppy drives, if any.
    pub floppies: Option<[Option<Arc<dyn tulk_block::Disk>>; 2]>,
}

#[derive(Error, Debug)]
pub enum BuildError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Pci(#[from] AddFunctionError),
    #[error("the image in floppy drive {0} is larger than a floppy disk")]
    Floppy(usize),
    #[error("the host gives no thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Devices that front ends talk to.
#[derive(Default)]
pub struct Peripherals {
    pub keyboard: Option<Arc<Mutex<I8042>>>,
    pub ide: Option<Arc<Mutex<Piix3Ide>>>,
    pub uarts: Vec<Arc<Mutex<Uart16550>>>,
    pub display: Option<Arc<VgaDisplay>>,
    pub floppy: Option<Arc<Mutex<I82078>>>,
    /// Block devices with threads.
    pub virtio_disks: Vec<Arc<Mutex<VirtioPci<Blk>>>>,
    /// Their threads; they end with the machine.
    workers: Vec<blk::Worker>,
    /// Disks of virtio, by name.
    blocks: Vec<(String, Arc<dyn tulk_block::Disk>)>,
    /// Networks with their cards' names, for the monitor.
    pub networks: Vec<(String, Arc<dyn Network>)>,
}

impl Peripherals {
    /// All drives by name (`ide0-hd0`, `ide1-cd0`, `floppy0`, `virtio4`) with what is in them now.
    pub fn disks(&self) -> Vec<(String, Option<Arc<dyn tulk_block::Disk>>)> {
        let mut all = Vec::new();
        if let Some(ide) = &self.ide {
            let ide = ide.lock();
            for (channel, unit) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                if let Some((kind, disk)) = ide.attached(channel, unit) {
                    let kind = if kind == DriveKind::Cdrom { "cd" } else { "hd" };
                    all.push((format!("ide{channel}-{kind}{unit}"), disk));
                }
            }
        }
        if let Some(floppy) = &self.floppy {
            let floppy = floppy.lock();
            all.extend((0..floppy.drives()).map(|n| (format!("floppy{n}"), floppy.inserted(n))));
        }
        all.extend(self.blocks.iter().map(|(name, disk)| (name.clone(), Some(disk.clone()))));
        all
    }
}

/// Windows of one device in the port space.
fn map(bus: &Bus, device: &SharedDevice, windows: &[(u8, Range<u64>)]) {
    for (window, range) in windows {
        bus.map(range.clone(), device.clone(), *window);
    }
}

fn shared<D: Device + 'static>(device: D) -> Arc<Mutex<D>> {
    Arc::new(Mutex::new(device))
}

/// What is under construction.
struct Builder {
    ports: Arc<Bus>,
    mmio: Arc<Bus>,
    timers: Arc<Timers>,
    clock: Arc<MachineClock>,
    pci: Arc<Mutex<PciBus>>,
    dma: Arc<dyn Dma>,
    devices: Vec<SharedDevice>,
    peripherals: Peripherals,
}

impl Builder {
    /// A device that resets with the machine and has deadlines.
    fn add(&mut self, device: SharedDevice) {
        self.timers.add(device.clone());
        self.devices.push(device);
    }

    /// By which the host's side tells of deadlines.
    fn notice(&self) -> net::Notice {
        let timers = self.timers.clone();
        Box::new(move |deadline| timers.notice(deadline))
    }

    /// A device in the port space.
    fn isa<D: Device + 'static>(&mut self, device: &Arc<Mutex<D>>, windows: &[(u8, Range<u64>)]) {
        let device: SharedDevice = device.clone();
        map(&self.ports, &device, windows);
        self.add(device);
    }

    /// A device on the PCI bus, where the user wants it or in the first free slot.
    fn pci<F: PciFunction + 'static>(
        &mut self,
        slot: Option<u8>,
        device: &Arc<Mutex<F>>,
    ) -> Result<u8, BuildError> {
        const FIRST_FREE: u8 = 2;
        let slot = match slot {
            Some(slot) => self.pci.lock().add(slot, 0, device.clone()).map(|()| slot)?,
            None => self.pci.lock().add_to_free_slot(FIRST_FREE, device.clone())?,
        };
        self.add(device.clone());
        Ok(slot)
    }

    fn nic<N: Nic + PciFunction + 'static>(
        &mut self,
        slot: Option<u8>,
        card: N,
        (model, mac): (&str, [u8; 6]),
        network: Arc<dyn Network>,
    ) -> Result<u8, BuildError> {
        let card = shared(card);
        network.connect(Arc::new(net::Socket { card: card.clone(), notice: self.notice() }));
        let slot = self.pci(slot, &card)?;
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        self.peripherals.networks.push((format!("{model} in slot {slot}, mac={mac}"), network));
        Ok(slot)
    }

    /// Gives the slot, and the kind of node that it is for firmware's boot order.
    fn add_pci(
        &mut self,
        slot: Option<u8>,
        device: PciDevice,
    ) -> Result<(u8, &'static str), BuildError> {
        let dma = self.dma.clone();
        match device {
            PciDevice::E1000 { network, mac } => {
                let clock: Arc<dyn Clock> = self.clock.clone();
                let card = net::e1000::E1000::new(network.clone(), mac, dma, clock);
                Ok((self.nic(slot, card, ("e1000", mac), network)?, "ethernet"))
            }
            PciDevice::VirtioNet { network, mac, interface } => {
                let net = tulk_devices::virtio::net::Net::new(network.clone(), mac);
                let card = VirtioPci::new(net, dma, interface);
                Ok((self.nic(slot, card, ("virtio-net", mac), network)?, "ethernet"))
            }
            PciDevice::VirtioBlk { disk, options, interface } => {
                let device =
                    shared(VirtioPci::new(Blk::new(disk.clone(), options), dma, interface));
                let slot = self.pci(slot, &device)?;
                self.peripherals.workers.push(blk::start_worker(device.clone())?);
                self.peripherals.virtio_disks.push(device);
                self.peripherals.blocks.push((format!("virtio{slot}"), disk));
                Ok((slot, "scsi"))
            }
            PciDevice::VirtioRng { entropy, interface } => {
                let device = shared(VirtioPci::new(Rng::new(entropy), dma, interface));
                Ok((self.pci(slot, &device)?, "pci"))
            }
            PciDevice::VirtioConsole { ports, interface } => {
                let backends: Vec<_> = ports.iter().map(|p| p.backend.clone()).collect();
                let device = shared(VirtioPci::new(Console::new(ports), dma, interface));
                let slot = self.pci(slot, &device)?;
                for (port, backend) in backends.into_iter().enumerate() {
                    let device = device.clone();
                    backend.connect(Arc::new(Plug { device, port, notice: self.notice() }));
                }
                Ok((slot, "pci"))
            }
        }
    }
}

/// First of 8 ports of COM1 to COM4.
const COM: [u64; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];
/// Function numbers in the south bridge's slot.
const IDE_FUNCTION: u8 = 1;
const PM_FUNCTION: u8 = 3;
/// Comparators of the HPET, and I/O APIC inputs that they may use besides those of the timer and clock.
const HPET_TIMERS: usize = 3;
const HPET_ROUTES: u32 = 1 << 2 | 1 << 8 | 0xf0_0000;

/// The PCI bus in Open Firmware's paths.
const PCI_NODE: &str = "/pci@i0cf8";

/// Bytes of the display adapter's memory.
const VIDEO_MEMORY: u64 = 16 << 20;

/// Makes the machine. Guest time stands still until [`Pc::start`]; processors are connected by [`Pc::connect`].
///
/// # Errors
/// The host has no memory or threads, or devices are in each other's way.
pub fn build(d: Description, events: EventSink) -> Result<Arc<Pc>, BuildError> {
    let video_len = if d.vga_bios.is_some() { VIDEO_MEMORY } else { 0 };
    let memory = Memory::new(d.memory, &d.bios, video_len)?;
    let clock = Arc::new(MachineClock::default());
    let guest_clock: Arc<dyn Clock> = clock.clone();
    let timers = Timers::new(clock.clone());
    timers.spawn()?;
    let dma: Arc<dyn Dma> = Arc::new(BusMaster(memory.phys.clone()));
    let (ports, mmio) = (Arc::new(Bus::new()), Arc::new(Bus::new()));

    // Interrupts: the 8259s and the I/O APIC before the local APICs.
    let kicks = Arc::new(Kicks::default());
    let apics = {
        let kicks = kicks.clone();
        Apics::new(d.cpus, guest_clock.clone(), d.tsc_hz, move |cpu| kicks.kick(cpu))
    };
    let pic = shared(I8259::new(IrqLine::new(apics.clone(), 0)));
    let io_apic = shared(IoApic::new(apics.clone()));
    {
        let pic = Arc::downgrade(&pic);
        apics.connect_pic(move || pic.upgrade().map_or(0, |pic| pic.lock().acknowledge()));
        let io_apic = Arc::downgrade(&io_apic);
        apics.connect_ioapic(move |vector| {
            if let Some(io_apic) = io_apic.upgrade() {
                io_apic.lock().end_of_interrupt(vector);
            }
        });
    }
    let (pic_, io_apic_, apics_) = (pic.clone(), io_apic.clone(), apics.clone());
    let counts = Arc::new(IrqCounts::default());
    let irqs: Arc<dyn IrqSink> =
        Arc::new(IrqMap { pic: pic_, io_apic: io_apic_, apics: apics_, counts: counts.clone() });
    let irq = |line: u32| IrqLine::new(irqs.clone(), line);

    let router = PirqRouter::new(irqs.clone());
    let windows = Arc::new(Windows {
        buses: BusMapper { ports: ports.clone(), memory: mmio.clone() },
        memory: memory.clone(),
        vga: Mutex::default(),
    });
    let pci = shared(PciBus::new(router.clone(), windows.clone()));

    let (devices, peripherals) = (Vec::new(), Peripherals::default());
    let mut b = Builder { ports, mmio, timers, clock, pci, dma, devices, peripherals };

    b.isa(
        &pic,
        &[(i8259::MASTER, 0x20..0x22), (i8259::SLAVE, 0xa0..0xa2), (i8259::ELCR, 0x4d0..0x4d2)],
    );
    b.add(io_apic.clone());
    b.mmio.map(layout::IO_APIC, io_apic.clone(), 0);
    b.timers.add(shared(tulk_devices::intc::lapic::ApicsDevice(apics.clone())));

    // The HPET can take over the timer's and the clock's interrupts.
    let replaced = Replaced::new(irqs.clone());
    let [pit_irq, rtc_irq] =
        [isa::TIMER, isa::RTC].map(|line| IrqLine::new(replaced.clone(), line));
    let pit = shared(I8254::new(guest_clock.clone(), pit_irq));
    b.isa(&pit, &[(i8254::COUNTERS, 0x40..0x44), (i8254::PORT_B, 0x61..0x62)]);

    let rtc = shared(Mc146818::new(guest_clock.clone(), d.date, rtc_irq));
    // Not among those that reset: it has a battery.
    b.ports.map(0x70..0x72, rtc.clone(), 0);
    b.timers.add(rtc.clone());

    if d.hpet {
        let legacy = move |on| replaced.replace(on);
        let device = Hpet::new(HPET_TIMERS, guest_clock.clone(), irqs.clone(), HPET_ROUTES, legacy);
        let device = shared(device);
        b.mmio.map(layout::HPET.start..layout::HPET.start + hpet::WINDOW, device.clone(), 0);
        b.add(device);
    }

    // The A20 gate has two masters that show each other's setting, and both can pull the reset line.
    let a20 = A20::new(memory.clone());
    let reset = |events: &EventSink| {
        let events = events.clone();
        move || events(Event::Reset)
    };
    let port92 = shared(Port92::new(a20.clone(), reset(&events)));
    b.isa(&port92, &[(0, 0x92..0x93)]);
    let (keyboard_irq, mouse_irq) = (irq(isa::KEYBOARD), irq(isa::MOUSE));
    let keyboard = shared(I8042::new(keyboard_irq, mouse_irq, a20.clone(), reset(&events)));
    b.isa(&keyboard, &[(i8042::DATA, 0x60..0x61), (i8042::COMMAND, 0x64..0x65)]);
    b.peripherals.keyboard = Some(keyboard);

    let dma_controller = shared(i8237::I8237::new(b.dma.clone()));
    b.isa(
        &dma_controller,
        &[
            (i8237::CHANNELS_0_3, 0x00..0x10),
            (i8237::CHANNELS_4_7, 0xc0..0xe0),
            (i8237::PAGES, 0x80..0x90),
        ],
    );

    let mut drives = [0; 2];
    if let Some(disks) = d.floppies {
        let dma = dma_controller.clone();
        let mut controller = I82078::new(2, guest_clock.clone(), dma, irq(isa::FLOPPY));
        for (n, disk) in disks.into_iter().enumerate() {
            if !controller.insert(n, disk) {
                return Err(BuildError::Floppy(n));
            }
            drives[n] = controller.drive_type(n);
        }
        let controller = shared(controller);
        b.isa(&controller, &[(0, 0x3f0..0x3f8)]);
        b.peripherals.floppy = Some(controller);
    }
    firmware::fill_cmos(&mut rtc.lock(), &firmware::cmos(&d.memory, d.cpus, drives, &d.boot));

    // COM1 and COM3, COM2 and COM4 share a line.
    let lines = [4, 3].map(|line| Shared::new(irqs.clone(), line));
    let mut serial_ports = 0;
    for (n, backend) in d.serial.into_iter().enumerate() {
        let Some(backend) = backend else { continue };
        serial_ports |= 1 << n;
        let line = IrqLine::new(lines[n % 2].clone(), n as u32);
        let uart = shared(Uart16550::new(guest_clock.clone(), backend.clone(), line));
        b.isa(&uart, &[(0, COM[n]..COM[n] + 8)]);
        backend.connect(Arc::new(Plug { device: uart.clone(), port: 0, notice: b.notice() }));
        b.peripherals.uarts.push(uart);
    }
    for (port, backend) in d.debug_consoles {
        b.isa(&shared(Debugcon::new(backend)), &[(0, port.into()..port as u64 + 1)]);
    }
    if let Some((port, len)) = d.debug_exit {
        let events = events.clone();
        let exit = shared(DebugExit::new(move |status| events(Event::Exit(status))));
        b.isa(&exit, &[(0, port.into()..port as u64 + len as u64)]);
    }

    // The chipset's functions.
    let host_bridge = shared(I440fx::new(memory.clone()));
    b.pci.lock().add(0, 0, host_bridge.clone())?;
    b.add(host_bridge);
    let resets = events.clone();
    let piix3 = Piix3::new(router, Box::new(move |_: ResetKind| resets(Event::Reset)));
    let piix3 = shared(piix3);
    b.pci.lock().add(ISA_BRIDGE_SLOT, 0, piix3.clone())?;
    b.add(piix3.clone());
    let ide = shared(Piix3Ide::new(d.ide, isa::IDE.map(irq), b.dma.clone()));
    b.pci.lock().add(ISA_BRIDGE_SLOT, IDE_FUNCTION, ide.clone())?;
    b.add(ide.clone());
    b.peripherals.ide = Some(ide);
    let power_off = events.clone();
    let pm = AcpiPm::new(guest_clock.clone(), false, irq(isa::SCI), move || {
        power_off(Event::PowerOff);
    });
    let pm = shared(pm);
    b.isa(&pm, &[(acpi_pm::SMI_CMD, 0xb2..0xb4), (acpi_pm::GPE0, 0xafe0..0xafe4)]);
    let function = shared(Piix4Pm::new((pm.clone(), acpi_pm::PM), None));
    b.pci.lock().add(ISA_BRIDGE_SLOT, PM_FUNCTION, function.clone())?;
    b.add(function);

    if let Some(rom) = d.vga_bios {
        let vga = shared(StdVga::new(memory.video(), guest_clock.clone(), rom));
        windows.vga.lock().0 = Some(vga.clone());
        b.pci(None, &vga)?;
        b.peripherals.display = Some(Arc::new(VgaDisplay(vga)));
    }
    let mut first_boots: Vec<(u32, String)> = Vec::new();
    for (n, index) in d.ide_boot_index.iter().flatten().enumerate() {
        let path = format!("{PCI_NODE}/ide@1,1/drive@{}/disk@{}", n / 2, n % 2);
        first_boots.extend(index.map(|index| (index, path)));
    }
    for Slotted { slot, boot_index, device } in d.pci {
        let (slot, kind) = b.add_pci(slot, device)?;
        let unit = if kind == "scsi" { "/disk@0,0" } else { "" };
        let path = format!("{PCI_NODE}/{kind}@{slot:x}{unit}");
        first_boots.extend(boot_index.map(|index| (index, path)));
    }
    first_boots.sort();
    // Behind its functions: it takes their mappings anew.
    let bus = b.pci.clone();
    b.isa(&bus, &[(0, 0xcf8..0xcf8 + PciBus::PORTS)]);

    let tables = d.acpi.then(|| {
        Tables::new(&acpi::Machine { cpus: d.cpus, memory: d.memory, serial_ports, hpet: d.hpet })
    });
    let mut config = FwCfg::new(b.dma.clone());
    firmware::fill(
        &mut config,
        Facts {
            memory: d.memory,
            cpus: d.cpus,
            acpi: tables.as_ref(),
            hpet: d.hpet,
            uuid: d.uuid,
            graphics: !d.no_graphics,
            boot: &d.boot,
            boot_paths: first_boots.into_iter().map(|(_, path)| path).collect(),
            kernel: d.kernel,
            files: d.fw_cfg_files,
        },
    );
    b.isa(&shared(config), &[(fw_cfg::PORTS, 0x510..0x512), (fw_cfg::DMA, 0x514..0x51c)]);

    Ok(Arc::new(Pc {
        clock: b.clock,
        memory,
        ports: b.ports,
        mmio: b.mmio,
        apics,
        pic,
        io_apic,
        pci: b.pci,
        piix3,
        rtc,
        pm,
        devices: b.devices,
        timers: b.timers,
        a20,
        kicks,
        irq_counts: counts,
        events,
        peripherals: b.peripherals,
    }))
}
