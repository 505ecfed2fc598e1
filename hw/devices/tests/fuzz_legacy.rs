//! Seeded random accesses to every device: none may panic, hang or break its snapshots.
//!
//! One row per device. `TULK_FUZZ_ACCESSES` sets how many accesses each gets.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tulk_block::MemoryDisk;
use tulk_devices::{char, dma, floppy, input, intc, misc, timer};
use tulk_hw::{Clock, Device, IrqLine, RecordedIrqs, VecMemory, check_device};
use tulk_ui::{CharBackend, CharSink};

struct NoConsole;
impl CharBackend for NoConsole {
    fn write(&self, _: &[u8]) {}
    fn connect(&self, _: Arc<dyn CharSink>) {}
    fn ready(&self) {}
    fn describe(&self) -> String {
        "none".into()
    }
}

/// A clock that goes on by nanoseconds, milliseconds or days whenever somebody looks.
struct Jumps(AtomicU64);
impl Jumps {
    fn new() -> Arc<Jumps> {
        Arc::new(Jumps(AtomicU64::new(1)))
    }
}
impl Clock for Jumps {
    fn now(&self) -> u64 {
        let now = self.0.load(Ordering::SeqCst);
        let by = match now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56 {
            0 => 1 << 47,
            1..100 => 1_000_003,
            _ => 77,
        };
        // Ten years are enough.
        let next = if now > 10 * 365 * 86_400_000_000_000 { now + 1 } else { now + by };
        self.0.store(next, Ordering::SeqCst);
        now
    }
}

fn line() -> IrqLine {
    IrqLine::unconnected()
}
fn memory() -> Arc<VecMemory> {
    Arc::new(VecMemory::new(1 << 20))
}
fn apics(processors: u32) -> Arc<intc::Apics> {
    intc::Apics::new(processors, Jumps::new(), 1_000_000_000, |_| {})
}
fn floppy_controller() -> Box<dyn Device> {
    let dma = Arc::new(Mutex::new(dma::I8237::new(memory())));
    // All channels open, so that random commands move data.
    for (window, port, value) in [(1, 0x16, 0xc0), (1, 0x1c, 0), (0, 0xb, 0x56), (0, 0xe, 0)] {
        dma.lock().write(window, port, 1, value);
    }
    let mut controller = floppy::I82078::new(2, Jumps::new(), dma, line());
    controller.insert(0, Some(Arc::new(MemoryDisk::new(vec![0; 1440 << 10], false))));
    Box::new(controller)
}
fn configuration() -> Box<dyn Device> {
    let mut device = misc::FwCfg::new(memory());
    device.add_writable_file("etc/w", vec![0; 64], |_| {});
    Box::new(device)
}

/// A name, the device, the lengths of its windows.
type Row = (&'static str, fn() -> Box<dyn Device>, &'static [u64]);

const DEVICES: &[Row] = &[
    ("acpi-pm", || Box::new(misc::AcpiPm::new(Jumps::new(), true, line(), || {})), &[64, 4, 2]),
    ("apic", || Box::new(intc::lapic::ApicsDevice(apics(4))), &[0x400, 0x400, 0x1000, 0x1000]),
    ("debug-exit", || Box::new(misc::DebugExit::new(|_| {})), &[4]),
    ("debugcon", || Box::new(char::Debugcon::new(Arc::new(NoConsole))), &[1]),
    ("fw_cfg", configuration, &[2, 8]),
    (
        "hpet",
        || {
            let sink = RecordedIrqs::new();
            Box::new(timer::Hpet::new(3, Jumps::new(), sink, 0xf0_0104, |_| {}))
        },
        &[0x400],
    ),
    (
        "i8042",
        || Box::new(input::I8042::new(line(), line(), misc::LooseGate::new(), || {})),
        &[1, 1],
    ),
    ("i82078", floppy_controller, &[8]),
    ("i8237", || Box::new(dma::I8237::new(memory())), &[16, 32, 16]),
    ("i8254", || Box::new(timer::I8254::new(Jumps::new(), line())), &[4, 1]),
    ("i8259", || Box::new(intc::I8259::new(line())), &[2, 2, 2]),
    ("ioapic", || Box::new(intc::IoApic::new(apics(2))), &[0x50]),
    ("mc146818", || Box::new(timer::Mc146818::new(Jumps::new(), 1_700_000_000, line())), &[2]),
    ("port92", || Box::new(misc::Port92::new(misc::LooseGate::new(), || {})), &[1]),
    (
        "uart16550",
        || Box::new(char::Uart16550::new(Jumps::new(), Arc::new(NoConsole), line())),
        &[8],
    ),
];

#[test]
fn devices_stand_random_accesses() {
    let accesses = std::env::var("TULK_FUZZ_ACCESSES").ok();
    let accesses = accesses.and_then(|n| n.parse().ok()).unwrap_or(200_000);
    for (name, make, windows) in DEVICES {
        println!("{name}");
        check_device(make().as_mut(), windows, accesses);
    }
}
