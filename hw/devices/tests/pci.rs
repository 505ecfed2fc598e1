//! The PCI bus, configuration space and the bridges of the PC, against PCI 3.0 and the chips' datasheets.

use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use tulk_devices::pci::i440fx::{I440fx, MemoryAttributes, Smram};
use tulk_devices::pci::piix3::{Piix3, ResetKind};
use tulk_devices::pci::piix4_pm::Piix4Pm;
use tulk_devices::pci::{
    Bar, BusMapper, ConfigSpace, Identity, PciBus, PciFunction, PirqRouter, load_function,
    save_function,
};
use tulk_hw::{Bus, Device, IrqLine, RecordedIrqs, Snapshot, SnapshotError, check_device};

/// A function with each kind of BAR and of interrupt. Reads of a window give its number.
struct Card {
    config: ConfigSpace,
}

impl Card {
    fn new(messages: bool) -> Card {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x5678,
            class: 0x02_0000,
            ..Identity::default()
        });
        config
            .pin(1)
            .bar(0, Bar::Io(32))
            .bar(1, Bar::Memory32 { size: 0x2000, prefetchable: false })
            .bar(2, Bar::Memory64 { size: 1 << 33, prefetchable: true })
            .bar(6, Bar::Rom(0x8000));
        if messages {
            config.msi(4).msix(3, 1, 0x1000, 0x1800);
        }
        Card { config }
    }
}

impl PciFunction for Card {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

impl Device for Card {
    fn name(&self) -> &'static str {
        "card"
    }
    fn reset(&mut self) {
        self.config.reset();
    }
    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        self.config.msix_read(window, offset, bytes).unwrap_or(window.into())
    }
    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        self.config.msix_write(window, offset, bytes, value);
    }
    fn save(&self) -> Snapshot {
        save_function(&self.config, &())
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        load_function::<()>("card", &mut self.config, snapshot, |()| Ok(()))
    }
}

struct Rig {
    bus: PciBus,
    ports: Arc<Bus>,
    memory: Arc<Bus>,
    irqs: Arc<RecordedIrqs>,
    router: Arc<PirqRouter>,
}

fn rig() -> Rig {
    let irqs = RecordedIrqs::new();
    let router = PirqRouter::new(irqs.clone());
    let (ports, memory) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
    let mapper = Arc::new(BusMapper { ports: ports.clone(), memory: memory.clone() });
    Rig { bus: PciBus::new(router.clone(), mapper), ports, memory, irqs, router }
}

impl Rig {
    fn address(&mut self, devfn: u8, offset: u16) {
        let confadd = 1 << 31 | u64::from(devfn) << 8 | u64::from(offset & 0xfc);
        self.bus.write(0, 0, 4, confadd);
    }
    fn get(&mut self, devfn: u8, offset: u16, bytes: u8) -> u32 {
        self.address(devfn, offset);
        self.bus.read(0, 4 + u64::from(offset & 3), bytes) as u32
    }
    fn put(&mut self, devfn: u8, offset: u16, bytes: u8, value: u32) {
        self.address(devfn, offset);
        self.bus.write(0, 4 + u64::from(offset & 3), bytes, value.into());
    }
}

#[test]
fn mechanism_one_reads_all_sizes_and_nothing_elsewhere() {
    let mut r = rig();
    r.bus.add(3, 0, Arc::new(Mutex::new(Card::new(false)))).unwrap();
    assert_eq!(r.get(3 << 3, 0, 4), 0x5678_1234);
    assert_eq!(r.get(3 << 3, 2, 2), 0x5678);
    assert_eq!(r.get(3 << 3, 1, 1), 0x12);
    assert_eq!(r.get(3 << 3 | 1, 0, 4), 0xffff_ffff);
    assert_eq!(r.get(4 << 3, 0, 2), 0xffff);
    r.bus.write(0, 0, 4, 0x8001_1800);
    assert_eq!(r.bus.read(0, 4, 4), 0xffff_ffff, "bus 1");
    r.bus.write(0, 0, 4, 0x0000_1800);
    assert_eq!(r.bus.read(0, 4, 4), 0xffff_ffff, "not enabled");
    assert_eq!(r.bus.read(0, 0, 4), 0x1800);
    r.bus.write(0, 1, 1, 0x55);
    assert_eq!(r.bus.read(0, 0, 4), 0x1800, "a byte write is not CONFADD's");
}

#[test]
fn bars_tell_their_size_and_move() {
    let mut r = rig();
    r.bus.add(3, 0, Arc::new(Mutex::new(Card::new(false)))).unwrap();
    let d = 3 << 3;
    for (offset, mask) in [
        (0x10, 0xffff_ffe1),
        (0x14, 0xffff_e000),
        (0x18, 0x0000_000c),
        (0x1c, 0xffff_fffe),
        (0x20, 0),
        (0x30, 0xffff_8001),
    ] {
        r.put(d, offset, 4, !0);
        assert_eq!(r.get(d, offset, 4), mask, "{offset:#x}");
    }
    r.put(d, 4, 2, 7);
    assert!(r.ports.list().is_empty(), "sizing maps nothing");
    assert_eq!(r.memory.list(), []);
    r.put(d, 0x10, 4, 0xc000);
    r.put(d, 0x14, 4, 0xfebf_0000);
    r.put(d, 0x18, 4, 0);
    r.put(d, 0x1c, 4, 4);
    r.put(d, 0x30, 4, 0xfec0_0001);
    assert_eq!(r.ports.list(), [(0xc000..0xc020, "card")]);
    let memory = [
        (0xfebf_0000..0xfebf_2000, "card"),
        (0xfec0_0000..0xfec0_8000, "card"),
        (0x4_0000_0000..0x6_0000_0000, "card"),
    ];
    assert_eq!(r.memory.list(), memory);
    let (mapped, offset) = r.memory.find(0x4_0000_0010).unwrap();
    assert_eq!((mapped.window, offset), (2, 0x10));
    r.put(d, 0x10, 4, 0xd000);
    assert_eq!(r.ports.list(), [(0xd000..0xd020, "card")]);
    r.put(d, 4, 2, 1);
    assert_eq!(r.memory.list(), []);
    assert_eq!(r.ports.list().len(), 1);
}

#[test]
fn reset_and_snapshots_move_windows_by_refresh() {
    let mut r = rig();
    let card = Arc::new(Mutex::new(Card::new(true)));
    r.bus.add(3, 0, card.clone()).unwrap();
    r.put(3 << 3, 0x10, 4, 0xc000);
    r.put(3 << 3, 4, 2, 1);
    let saved = card.lock().save();
    card.lock().reset();
    r.bus.reset();
    assert_eq!(r.ports.list(), []);
    card.lock().load(&saved).unwrap();
    r.bus.refresh();
    assert_eq!(r.ports.list(), [(0xc000..0xc020, "card")]);
}

#[test]
fn errors_in_status_clear_by_ones() {
    let mut card = Card::new(false);
    card.config.set(6, &[0, 0xf9]);
    card.config.write(6, 2, 0x8000);
    assert_eq!(card.config.word(6), 0x7900);
    card.config.write(0, 4, 0);
    assert_eq!(card.config.dword(0), 0x5678_1234);
}

#[test]
fn pins_are_routed_to_isa_interrupts() {
    let mut r = rig();
    let cards: Vec<_> = (0..2).map(|_| Arc::new(Mutex::new(Card::new(false)))).collect();
    r.bus.add(3, 0, cards[0].clone()).unwrap();
    r.bus.add(7, 0, cards[1].clone()).unwrap();
    let bridge = Arc::new(Mutex::new(Piix3::new(r.router.clone(), Box::new(|_| ()))));
    r.bus.add(1, 0, bridge.clone()).unwrap();
    cards[0].lock().config.set_interrupt(true);
    assert!(!(0..16).any(|n| r.irqs.level(n)), "not routed behind reset");
    // INTA of slots 3 and 7 is PIRQC.
    r.put(1 << 3, 0x62, 1, 11);
    assert_eq!(r.irqs.take_rises(), [11]);
    assert_ne!(r.get(3 << 3, 6, 2) & 8, 0, "interrupt status");
    cards[1].lock().config.set_interrupt(true);
    cards[0].lock().config.set_interrupt(false);
    assert!(r.irqs.level(11), "shared");
    r.put(1 << 3, 0x62, 1, 10);
    assert!(!r.irqs.level(11) && r.irqs.level(10));
    r.put(7 << 3, 4, 2, 0x400);
    assert!(!r.irqs.level(10), "INTx disabled");
    r.put(7 << 3, 4, 2, 0);
    assert!(r.irqs.level(10));
    let saved = bridge.lock().save();
    bridge.lock().reset();
    assert!(!r.irqs.level(10));
    bridge.lock().load(&saved).unwrap();
    assert!(r.irqs.level(10));
    cards[1].lock().reset();
    assert!(!r.irqs.level(10), "reset withdraws the interrupt");
}

#[test]
fn the_swizzle_is_the_boards() {
    let pirqs: Vec<u8> = (1..6).map(|slot| PirqRouter::pirq(slot, 0)).collect();
    assert_eq!(pirqs, [0, 1, 2, 3, 0]);
    assert_eq!(PirqRouter::pirq(1, 3), 3);
    assert_eq!(PirqRouter::pirq(0, 0), 3);
}

/// The capability with an identifier.
fn find_capability(config: &ConfigSpace, id: u8) -> u16 {
    let mut at = u16::from(config.byte(0x34));
    while config.byte(at) != id {
        at = config.byte(at + 1).into();
        assert_ne!(at, 0, "capability {id:#x}");
    }
    at
}

#[test]
fn msi_sends_masks_and_keeps_pending() {
    let irqs = RecordedIrqs::new();
    let mut card = Card::new(true);
    card.config.connect(IrqLine::new(irqs.clone(), 9));
    assert_ne!(card.config.word(6) & 0x10, 0, "capability list");
    let msi = find_capability(&card.config, 5);
    assert!(!card.config.notify(0));
    card.config.write(msi + 4, 4, 0xfee0_1003);
    card.config.write(msi + 8, 4, 1);
    card.config.write(msi + 12, 2, 0x4041);
    card.config.write(msi + 2, 2, 1 | 2 << 4);
    card.config.write(4, 2, 6);
    assert!(card.config.notify(2));
    assert_eq!(irqs.take_messages(), [(0x1_fee0_1000, 0x4042)]);
    card.config.write(msi + 16, 4, !0);
    assert_eq!(card.config.dword(msi + 16), 0xf);
    card.config.notify(3);
    assert_eq!(irqs.take_messages(), []);
    assert_eq!(card.config.dword(msi + 20), 8);
    card.config.write(msi + 16, 4, 0);
    assert_eq!(irqs.take_messages(), [(0x1_fee0_1000, 0x4043)]);
    assert_eq!(card.config.dword(msi + 20), 0);
    card.config.set_interrupt(true);
    assert!(!irqs.level(9), "the pin is silent");
    card.config.write(msi + 2, 2, 0);
    assert!(irqs.level(9));
    // One vector granted: all share it.
    card.config.write(msi + 2, 2, 1);
    card.config.notify(3);
    assert_eq!(irqs.take_messages(), [(0x1_fee0_1000, 0x4041)]);
}

#[test]
fn msix_table_is_in_its_bar_with_masks() {
    let irqs = RecordedIrqs::new();
    let mut card = Card::new(true);
    card.config.connect(IrqLine::new(irqs.clone(), 0));
    let cap = find_capability(&card.config, 0x11);
    assert_eq!(card.config.word(cap + 2), 2, "table size less one");
    assert_eq!(card.config.dword(cap + 4), 0x1001);
    assert_eq!(card.config.dword(cap + 8), 0x1801);
    card.config.write(cap + 2, 2, 0x8000);
    card.config.write(4, 2, 6);
    assert_eq!(card.read(1, 0x100c, 4), 1, "masked behind reset");
    card.write(1, 0x1010, 8, 0xfee0_2000);
    card.write(1, 0x1018, 4, 0x51);
    card.config.notify(1);
    assert_eq!(irqs.take_messages(), []);
    assert_eq!(card.read(1, 0x1800, 8), 2, "pending");
    card.write(1, 0x1800, 8, 0);
    assert_eq!(card.read(1, 0x1800, 4), 2, "pending bits are read-only");
    card.write(1, 0x101c, 4, 0);
    assert_eq!(irqs.take_messages(), [(0xfee0_2000, 0x51)]);
    assert_eq!(card.read(1, 0x1800, 8), 0);
    card.config.write(cap + 2, 2, 0xc000);
    card.config.notify(1);
    card.config.notify(1);
    assert_eq!(irqs.take_messages(), [], "function mask");
    card.config.write(cap + 2, 2, 0x8000);
    assert_eq!(irqs.take_messages(), [(0xfee0_2000, 0x51)]);
    card.config.notify(7);
    assert_eq!(irqs.take_messages(), [], "no such vector");
    assert_eq!(card.read(1, 0x1030, 4), 1, "behind the table");
    check_device(&mut card, &[32, 0x2000, 64], 20_000);
}

#[derive(Default)]
struct Told(Mutex<Vec<(Range<u64>, bool, bool)>>, Mutex<Vec<Smram>>);

impl MemoryAttributes for Told {
    fn set_segment(&self, segment: Range<u64>, read: bool, write: bool) {
        self.0.lock().push((segment, read, write));
    }
    fn set_smram(&self, smram: Smram) {
        self.1.lock().push(smram);
    }
}

#[test]
fn the_host_bridge_maps_shadow_ram_and_smram() {
    let told = Arc::new(Told::default());
    let mut bridge = I440fx::new(told.clone());
    assert_eq!(bridge.config_read(0, 4), 0x1237_8086);
    let first = std::mem::take(&mut *told.0.lock());
    assert_eq!(first.len(), 13);
    assert_eq!(first.iter().map(|(r, ..)| r.end - r.start).sum::<u64>(), 0x40000);
    bridge.config_write(0x59, 1, 0xff);
    assert_eq!(bridge.config_read(0x59, 1), 0x30);
    assert_eq!(*told.0.lock(), [(0xf0000..0x100000, true, true)]);
    told.0.lock().clear();
    bridge.config_write(0x5a, 2, 0x2100);
    assert_eq!(*told.0.lock(), [(0xc8000..0xcc000, true, false), (0xcc000..0xd0000, false, true)]);
    told.1.lock().clear();
    bridge.config_write(0x72, 1, 0x4a);
    bridge.config_write(0x72, 1, 0x5a);
    assert_eq!(bridge.config_read(0x72, 1), 0x1a, "locking closes");
    bridge.config_write(0x72, 1, 0x40);
    assert_eq!(bridge.config_read(0x72, 1), 0x1a, "locked");
    let open = |open| Smram { enabled: true, open, closed: false };
    assert_eq!(*told.1.lock(), [open(true), open(false)]);
    told.0.lock().clear();
    bridge.reset();
    assert_eq!(told.0.lock().len(), 3);
    check_device(&mut bridge, &[1], 100);
}

#[test]
fn the_isa_bridge_resets_by_port() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, router) = (asked.clone(), PirqRouter::new(RecordedIrqs::new()));
    let mut bridge = Piix3::new(router, Box::new(move |kind| log.lock().push(kind)));
    assert_eq!(bridge.config_read(0, 4), 0x7000_8086);
    assert_eq!(bridge.config_read(0xe, 1), 0x80);
    assert_eq!(bridge.config_read(0x60, 4), 0x8080_8080);
    bridge.write(Piix3::RESET_CONTROL, 0, 1, 2);
    bridge.write(Piix3::RESET_CONTROL, 0, 1, 6);
    bridge.write(Piix3::RESET_CONTROL, 0, 1, 6);
    assert_eq!(*asked.lock(), [ResetKind::Hard], "the rise of RCPU");
    bridge.write(Piix3::RESET_CONTROL, 0, 1, 0);
    bridge.write(Piix3::RESET_CONTROL, 0, 1, 4);
    assert_eq!(*asked.lock(), [ResetKind::Hard, ResetKind::Soft]);
    check_device(&mut bridge, &[1; 8], 1000);
}

#[test]
fn power_management_registers_move() {
    let mut r = rig();
    let acpi: Arc<Mutex<dyn Device>> = Arc::new(Mutex::new(Card::new(false)));
    let smbus: Arc<Mutex<dyn Device>> = Arc::new(Mutex::new(Card::new(false)));
    let pm = Arc::new(Mutex::new(Piix4Pm::new((acpi.clone(), 5), Some((smbus, 0)))));
    r.bus.add(1, 3, pm.clone()).unwrap();
    let d = 1 << 3 | 3;
    assert_eq!(r.get(d, 0, 4), 0x7113_8086);
    assert_eq!(r.get(d, 0x5b, 1), 2, "no system management handler to install");
    r.put(d, 0x40, 4, 0xb000);
    assert_eq!(r.get(d, 0x40, 4), 0xb001);
    assert_eq!(r.ports.list(), []);
    r.put(d, 0x80, 1, 1);
    let (mapped, offset) = r.ports.find(0xb008).unwrap();
    assert_eq!((mapped.window, offset), (5, 8));
    assert!(Arc::ptr_eq(&mapped.device, &acpi));
    r.put(d, 0x90, 4, 0xb100);
    r.put(d, 0xd2, 1, 9);
    r.put(d, 4, 2, 1);
    assert_eq!(r.ports.list(), [(0xb000..0xb040, "card"), (0xb100..0xb110, "card")]);
    r.put(d, 0x40, 4, 0x600);
    assert_eq!(r.ports.list()[0].0, 0x600..0x640);
    check_device(&mut *pm.lock(), &[1], 100);
}

#[test]
fn the_bus_survives_scribbling_and_lists_its_functions() {
    let mut r = rig();
    r.bus.add(0, 0, Arc::new(Mutex::new(I440fx::new(Arc::<Told>::default())))).unwrap();
    r.bus.add(1, 0, Arc::new(Mutex::new(Piix3::new(r.router.clone(), Box::new(|_| ()))))).unwrap();
    let card = Arc::new(Mutex::new(Card::new(true)));
    assert_eq!(r.bus.add_to_free_slot(1, card.clone()), Ok(2));
    assert!(r.bus.add(2, 0, card.clone()).is_err());
    assert!(r.bus.add(32, 0, card).is_err());
    let names: Vec<_> = r.bus.list().iter().map(|f| (f.slot, f.name, f.pin)).collect();
    assert_eq!(names, [(0, "i440fx", 0), (1, "piix3", 0), (2, "card", 1)]);
    check_device(&mut r.bus, &[PciBus::PORTS], 20_000);
}
