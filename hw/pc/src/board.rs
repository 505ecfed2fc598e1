//! The machine as processors and front ends see it: [`Pc`].

use crate::clock::MachineClock;
use crate::layout;
use crate::memory::Memory;
use crate::timers::{SharedDevice, Timers};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tulk_base::{Board, CpuEvent, GuestPa};
use tulk_devices::intc::{Apics, I8259, IoApic};
use tulk_devices::misc::{A20Gate, AcpiPm};
use tulk_devices::pci::{PciBus, piix3::Piix3};
use tulk_devices::timer::Mc146818;
use tulk_hw::{Bus, Clock, Device};

/// What the guest asks the world for. Told from within a guest's access: whoever takes it must not wait for processors
/// there and then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Reset by the guest's request.
    Reset,
    /// A processor cannot go on (triple fault): PCs are reset then.
    Shutdown {
        cpu: u32,
    },
    PowerOff,
    /// End with this status (isa-debug-exit).
    Exit(i32),
}

pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// What the board has the processors do.
pub trait Processors: Send + Sync {
    /// [`Board::has_event`] may have become true.
    fn kick(&self, cpu: u32);
}

/// The processors, once they are there.
#[derive(Default)]
pub struct Kicks(OnceLock<Arc<dyn Processors>>);

impl Kicks {
    pub fn kick(&self, cpu: u32) {
        if let Some(processors) = self.0.get() {
            processors.kick(cpu);
        }
    }
}

/// Without the A20 gate.
const A20_MASKED: u64 = !(1 << 20);

/// Address line 20, which the keyboard controller and port 0x92 gate.
pub struct A20 {
    mask: AtomicU64,
    memory: Arc<Memory>,
}

impl A20 {
    pub fn new(memory: Arc<Memory>) -> Arc<A20> {
        Arc::new(A20 { mask: AtomicU64::new(u64::MAX), memory })
    }
}

impl A20Gate for A20 {
    fn set(&self, open: bool) {
        let mask = if open { u64::MAX } else { A20_MASKED };
        if self.mask.swap(mask, Ordering::SeqCst) != mask {
            self.memory.phys.drop_translations();
        }
    }
    fn is_open(&self) -> bool {
        self.mask.load(Ordering::SeqCst) == u64::MAX
    }
}

/// See the module. Made by [`crate::wiring::build`].
pub struct Pc {
    pub clock: Arc<MachineClock>,
    pub memory: Arc<Memory>,
    pub ports: Arc<Bus>,
    pub mmio: Arc<Bus>,
    pub apics: Arc<Apics>,
    pub pic: Arc<Mutex<I8259>>,
    pub io_apic: Arc<Mutex<IoApic>>,
    pub pci: Arc<Mutex<PciBus>>,
    pub piix3: Arc<Mutex<Piix3>>,
    pub rtc: Arc<Mutex<Mc146818>>,
    pub pm: Arc<Mutex<AcpiPm>>,
    /// All devices in the order of their reset; the clock with its battery is not among them.
    pub(crate) devices: Vec<SharedDevice>,
    pub(crate) timers: Arc<Timers>,
    pub(crate) a20: Arc<A20>,
    pub(crate) kicks: Arc<Kicks>,
    pub(crate) irq_counts: Arc<crate::irq::IrqCounts>,
    pub(crate) events: EventSink,
    pub(crate) peripherals: crate::wiring::Peripherals,
}

impl Pc {
    /// Connects the processors. Once.
    pub fn connect(&self, processors: Arc<dyn Processors>) {
        let _ = self.kicks.0.set(processors);
    }

    /// Starts guest time, or goes on.
    pub fn start(&self) {
        self.clock.start();
        self.timers.look();
    }

    /// Stops guest time. The processors must not run.
    pub fn stop(&self) {
        self.clock.stop();
        self.timers.look();
    }

    /// The reset line: all devices. The processors must not run; their own reset is the engine's. Memory keeps its
    /// content, as the clock does.
    pub fn reset(&self) {
        for device in &self.devices {
            device.lock().reset();
        }
        self.rtc.lock().bus_reset();
        self.apics.reset();
        self.a20.set(true);
        self.timers.look();
    }

    /// How often each ISA interrupt line was set high.
    pub fn irq_counts(&self) -> [u64; 16] {
        self.irq_counts.get()
    }

    /// Address lines that are connected: without line 20 while the A20 gate is closed.
    pub fn address_lines(&self) -> u64 {
        self.address_mask()
    }

    /// Where firmware boots from, the next time.
    pub fn set_boot_order(&self, order: &[crate::firmware::BootDevice]) {
        crate::firmware::fill_cmos(&mut self.rtc.lock(), &crate::firmware::cmos_order(order));
    }

    /// The guest's calendar goes `ns` ahead.
    pub fn skip_time(&self, ns: u64) {
        self.rtc.lock().skip(ns);
    }

    /// Disks that wait for the host try again ([`tulk_block::is_waiting`]). The processors must not run.
    pub fn retry_disks(&self) {
        if let Some(ide) = &self.peripherals.ide {
            ide.lock().retry();
        }
        for disk in &self.peripherals.virtio_disks {
            disk.lock().with(|disk, _| disk.retry());
        }
    }

    /// Presses the NMI button, which is at LINT1 of all processors.
    pub fn nmi(&self) {
        for cpu in 0..self.apics.processors() {
            self.apics.set_lint(cpu, 1, true);
            self.apics.set_lint(cpu, 1, false);
        }
    }

    /// Presses the power button. False when the guest does not listen.
    pub fn power_button(&self) -> bool {
        self.pm.lock().press_power_button()
    }

    pub fn peripherals(&self) -> &crate::wiring::Peripherals {
        &self.peripherals
    }

    /// Devices by name, with their state.
    pub fn devices(&self) -> &[SharedDevice] {
        &self.devices
    }

    #[inline]
    fn read(&self, bus: &Bus, address: u64, bytes: u8) -> u64 {
        let access = |m: &tulk_hw::Mapped, offset, inside| {
            let mut device = m.device.lock();
            let value = device.read(m.window, offset, inside);
            self.timers.notice(device.deadline());
            (value, inside)
        };
        match bus.with(address, bytes, |m, offset, inside| {
            // Part of the access is another device's: bytes one by one.
            access(m, offset, if inside == bytes { bytes } else { 1 })
        }) {
            Some((value, done)) if done == bytes => value,
            Some((value, done)) => {
                value | self.read(bus, address + done as u64, bytes - done) << (8 * done)
            }
            None if bytes == 1 => 0xff,
            None => 0xff | self.read(bus, address + 1, bytes - 1) << 8,
        }
    }

    #[inline]
    fn write(&self, bus: &Bus, address: u64, bytes: u8, value: u64) {
        let done = bus.with(address, bytes, |m, offset, inside| {
            let n = if inside == bytes { bytes } else { 1 };
            let mut device = m.device.lock();
            device.write(m.window, offset, n, value & tulk_hw::ones(n));
            self.timers.notice(device.deadline());
            n
        });
        let done = done.unwrap_or(1);
        if done < bytes {
            self.write(bus, address + done as u64, bytes - done, value >> (8 * done));
        }
    }

    /// Whether this is the page of the processor's local APIC.
    #[inline]
    fn is_apic(&self, cpu: u32, pa: u64) -> bool {
        pa >> 20 == layout::LOCAL_APIC.start >> 20 && self.apics.mmio_base(cpu) == Some(pa & !0xfff)
    }
}

/// Port 0xcf9: reset control, for accesses of one byte; else a part of the PCI bus's registers.
const RESET_CONTROL: u16 = crate::acpi::RESET_PORT;

impl Board for Pc {
    fn port_read(&self, _cpu: u32, port: u16, bytes: u8) -> u32 {
        let value = if port == RESET_CONTROL && bytes == 1 {
            self.piix3.lock().read(Piix3::RESET_CONTROL, 0, 1)
        } else {
            self.read(&self.ports, port.into(), bytes)
        };
        tracing::trace!(target: "port", "read  {port:#06x} {bytes}: {value:#x}");
        value as u32
    }

    fn port_write(&self, _cpu: u32, port: u16, bytes: u8, value: u32) {
        tracing::trace!(target: "port", "write {port:#06x} {bytes}: {value:#x}");
        if port == RESET_CONTROL && bytes == 1 {
            self.piix3.lock().write(Piix3::RESET_CONTROL, 0, 1, value.into());
        } else {
            self.write(&self.ports, port.into(), bytes, value.into());
        }
    }

    fn mmio_read(&self, cpu: u32, pa: GuestPa, bytes: u8) -> u64 {
        if self.is_apic(cpu, pa.0) {
            let value = self.apics.mmio_read(cpu, pa.0 & 0xfff, bytes);
            self.timers.notice(self.apics.deadline());
            return value;
        }
        let value = self.read(&self.mmio, pa.0, bytes);
        tracing::trace!(target: "mmio", "read  {pa} {bytes}: {value:#x}");
        value
    }

    fn mmio_write(&self, cpu: u32, pa: GuestPa, bytes: u8, value: u64) {
        if self.is_apic(cpu, pa.0) {
            self.apics.mmio_write(cpu, pa.0 & 0xfff, bytes, value);
            self.timers.notice(self.apics.deadline());
            return;
        }
        tracing::trace!(target: "mmio", "write {pa} {bytes}: {value:#x}");
        if layout::SHADOW.contains(&pa.0) {
            self.memory.write_shadow(pa.0, &value.to_le_bytes()[..bytes as usize]);
            return;
        }
        self.write(&self.mmio, pa.0, bytes, value);
    }

    fn has_event(&self, cpu: u32, interrupts: bool) -> bool {
        self.apics.has_event(cpu, interrupts)
    }

    fn take_event(&self, cpu: u32, interrupts: bool) -> Option<CpuEvent> {
        let event = self.apics.take_event(cpu, interrupts);
        if let Some(event) = event {
            tracing::trace!(target: "irq", "cpu {cpu}: {event:?}");
        }
        event
    }

    fn msr_read(&self, cpu: u32, msr: u32) -> Option<u64> {
        let value = self.apics.msr_read(cpu, msr);
        self.timers.notice(self.apics.deadline());
        value
    }

    fn msr_write(&self, cpu: u32, msr: u32, value: u64) -> bool {
        let known = self.apics.msr_write(cpu, msr, value);
        self.timers.notice(self.apics.deadline());
        known
    }

    fn task_priority(&self, cpu: u32) -> u8 {
        self.apics.task_priority(cpu)
    }

    fn set_task_priority(&self, cpu: u32, priority: u8) {
        self.apics.set_task_priority(cpu, priority);
    }

    #[inline]
    fn address_mask(&self) -> u64 {
        self.a20.mask.load(Ordering::SeqCst)
    }

    fn clock_ns(&self) -> u64 {
        self.clock.now()
    }

    fn shutdown(&self, cpu: u32) {
        (self.events)(Event::Shutdown { cpu });
    }
}
