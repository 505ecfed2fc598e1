//! The DSDT: what operating systems cannot find out by themselves about the machine, in AML. ACPI Specification 6.4,
//! chapters 5.6, 6 and 19.

use super::Machine;
use crate::layout;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Equal,
    Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local,
    Memory32Fixed, Method, Name, OpRegion, OpRegionSpace, Or, PackageBuilder, Path,
    ResourceTemplate, Return, Scope, Store, ZERO,
};
use acpi_tables::{Aml, AmlSink};
use tulk_devices::pci::PirqRouter;

/// A piece of AML that is already encoded.
struct Code(Vec<u8>);

impl Aml for Code {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn code(aml: &dyn Aml) -> Code {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    Code(bytes)
}

fn all(parts: &[Code]) -> Vec<&dyn Aml> {
    parts.iter().map(|p| p as &dyn Aml).collect()
}

fn name(path: &str, value: &dyn Aml) -> Code {
    code(&Name::new(Path::new(path), value))
}

fn package(elements: &[&dyn Aml]) -> PackageBuilder {
    let mut package = PackageBuilder::new();
    for element in elements {
        package.add_element(*element);
    }
    package
}

fn device(path: &str, parts: &[Code]) -> Code {
    code(&Device::new(Path::new(path), all(parts)))
}

fn method(path: &str, arguments: u8, parts: &[Code]) -> Code {
    // Serialised, because a method that makes named objects cannot run twice at a time.
    code(&Method::new(Path::new(path), arguments, true, all(parts)))
}

fn scope(path: &str, parts: &[Code]) -> Code {
    code(&Scope::new(Path::new(path), all(parts)))
}

fn resources(parts: &[&dyn Aml]) -> Code {
    name("_CRS", &ResourceTemplate::new(parts.to_vec()))
}

/// Interrupts of ISA devices, edge-triggered (6.4.2.1 IRQ descriptor without flags); bit n is IRQ n.
struct IsaIrq(u16);

impl Aml for IsaIrq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(self.0);
    }
}

/// One ISA DMA channel, compatibility mode, 8 bits (6.4.2.2).
struct IsaDma(u8);

impl Aml for IsaDma {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&[0x2a, 1 << self.0, 0]);
    }
}

/// The choice of level-triggered, shareable interrupts of a link device (6.4.3.6 extended interrupt descriptor).
struct Choice<'a>(&'a [u32]);

impl Aml for Choice<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x89);
        sink.word(2 + 4 * self.0.len() as u16);
        sink.vec(&[0x09, self.0.len() as u8]);
        for irq in self.0 {
            sink.dword(*irq);
        }
    }
}

/// Interrupts (ISA numbers, and inputs of the I/O APIC) to which firmware and operating systems may route the PCI interrupts.
pub const PCI_IRQS: [u32; 3] = [5, 10, 11];
const LINKS: [&str; 4] = ["LNKA", "LNKB", "LNKC", "LNKD"];
/// The four routing registers in the south bridge's configuration space.
const ROUTES: [&str; 4] = ["PRQ0", "PRQ1", "PRQ2", "PRQ3"];
/// A routing register's bit: routed nowhere.
const UNROUTED: u8 = 0x80;

/// A PCI interrupt link device: `\_SB.LNKx`, over the routing register of PIRQx.
fn link(n: usize) -> Code {
    let register = Path::new(ROUTES[n]);
    let field = code(&CreateDWordField::new(&Path::new("IRQN"), &Path::new("BUFF"), &5u8));
    let argument = code(&CreateDWordField::new(&Path::new("IRQN"), &Arg(0), &5u8));
    let interrupt = Interrupt::new(true, false, false, true, 0);
    let routed = And::new(&Local(0), &register, &UNROUTED);
    device(
        LINKS[n],
        &[
            name("_HID", &EISAName::new("PNP0C0F")),
            name("_UID", &(n as u8)),
            name("_PRS", &ResourceTemplate::new(vec![&Choice(&PCI_IRQS)])),
            method(
                "_STA",
                0,
                &[
                    code(&routed),
                    code(&If::new(&Equal::new(&Local(0), &ZERO), vec![&Return::new(&0x0bu8)])),
                    code(&Return::new(&0x09u8)),
                ],
            ),
            method("_DIS", 0, &[code(&Or::new(&register, &register, &UNROUTED))]),
            method(
                "_CRS",
                0,
                &[
                    name("BUFF", &ResourceTemplate::new(vec![&interrupt])),
                    field,
                    code(&And::new(&Local(0), &register, &UNROUTED)),
                    code(&If::new(
                        &Equal::new(&Local(0), &ZERO),
                        vec![&Store::new(&Path::new("IRQN"), &register)],
                    )),
                    code(&Return::new(&Path::new("BUFF"))),
                ],
            ),
            method("_SRS", 1, &[argument, code(&Store::new(&register, &Path::new("IRQN")))]),
        ],
    )
}

/// `_PRT`: which link each pin of each PCI slot leads to, with the 8259s as with the I/O APIC, whose first sixteen
/// inputs are the ISA interrupts.
fn routing() -> Code {
    let mut table = PackageBuilder::new();
    for slot in 0..32u32 {
        for pin in 0..4u8 {
            let pirq = PirqRouter::pirq(slot as u8, pin);
            let link = Path::new(&format!("\\_SB_.{}", LINKS[pirq as usize]));
            table.add_element(&package(&[&(slot << 16 | 0xffff), &pin, &link, &ZERO]));
        }
    }
    name("_PRT", &table)
}

/// Base port and IRQ of COM1 to COM4.
const COM: [(u16, u16); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

fn isa_devices(machine: &Machine) -> Vec<Code> {
    let io = |port: u16, length: u8| IO::new(port, port, 1, length);
    let id = |id: &str| name("_HID", &EISAName::new(id));
    let mut devices = vec![
        // Where the system's own ports are: nobody else may use them.
        device(
            "SYSR",
            &[
                id("PNP0C02"),
                resources(&[
                    &io(0x92, 1),
                    &io(0x4d0, 2),
                    &io(0xb2, 2),
                    &io(0x600, 0x40),
                    &io(0x700, 0x10),
                ]),
            ],
        ),
        device("RTC_", &[id("PNP0B00"), resources(&[&io(0x70, 2), &IsaIrq(1 << 8)])]),
        device("KBD_", &[id("PNP0303"), resources(&[&io(0x60, 1), &io(0x64, 1), &IsaIrq(1 << 1)])]),
        device("MOU_", &[id("PNP0F13"), resources(&[&IsaIrq(1 << 12)])]),
        device(
            "FDC0",
            &[
                id("PNP0700"),
                resources(&[&io(0x3f2, 4), &io(0x3f7, 1), &IsaIrq(1 << 6), &IsaDma(2)]),
            ],
        ),
    ];
    for (n, (port, irq)) in COM.into_iter().enumerate() {
        if machine.serial_ports & 1 << n != 0 {
            devices.push(device(
                &format!("COM{}", n + 1),
                &[
                    id("PNP0501"),
                    name("_UID", &(n as u8 + 1)),
                    resources(&[&io(port, 8), &IsaIrq(1 << irq)]),
                ],
            ));
        }
    }
    devices
}

/// The windows that the PCI host bridge passes on.
fn host_bridge_resources(machine: &Machine) -> Code {
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let bus = AddressSpace::new_bus_number(0u16, 0xff);
    let low_ports = AddressSpace::new_io(0u16, 0xcf7, None);
    let ports = AddressSpace::new_io(0xd00u16, 0xffff, None);
    let vga = AddressSpace::new_memory(
        AddressSpaceCacheable::Cacheable,
        true,
        layout::VGA.start as u32,
        layout::VGA.end as u32 - 1,
        None,
    );
    let memory = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        machine.memory.below_4g as u32,
        layout::PCI_END as u32 - 1,
        None,
    );
    resources(&[&bus, &config, &low_ports, &ports, &vga, &memory])
}

/// The definition block behind the table's header.
pub fn body(machine: &Machine) -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |part: Code| out.extend(part.0);

    // Soft off is sleep type 0 of the PIIX4's PM1 control register.
    add(name("\\_S5_", &package(&[&ZERO, &ZERO, &ZERO, &ZERO])));

    let mut bridge = vec![
        name("_HID", &EISAName::new("PNP0A03")),
        name("_UID", &ZERO),
        host_bridge_resources(machine),
    ];
    bridge.push(routing());
    let mut isa = vec![
        name("_ADR", &((super::ISA_BRIDGE_SLOT as u32) << 16)),
        code(&OpRegion::new(Path::new("P40C"), OpRegionSpace::PCIConfig, &0x60u8, &4u8)),
    ];
    isa.extend(isa_devices(machine));
    bridge.push(device("ISA_", &isa));
    add(scope("\\_SB_", &[device("PCI0", &bridge)]));

    let field = Field::new(
        Path::new("PCI0.ISA_.P40C"),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        ROUTES
            .iter()
            .map(|r| FieldEntry::Named(r.as_bytes().try_into().expect("four characters"), 8))
            .collect(),
    );
    let mut system = vec![code(&field)];
    system.extend((0..4).map(link));
    let hpet = Memory32Fixed::new(
        true,
        layout::HPET.start as u32,
        (layout::HPET.end - layout::HPET.start) as u32,
    );
    if machine.hpet {
        system.push(device(
            "HPET",
            &[name("_HID", &EISAName::new("PNP0103")), name("_UID", &ZERO), resources(&[&hpet])],
        ));
    }
    for cpu in 0..machine.cpus {
        system
            .push(device(&format!("C{cpu:03X}"), &[name("_HID", &"ACPI0007"), name("_UID", &cpu)]));
    }
    add(scope("\\_SB_", &system));
    out
}
