//! The local APICs of all processors, and the bus between them and the I/O APIC: xAPIC and x2APIC.
//!
//! Intel SDM volume 3, chapter 11. [`Apics`] is shared by all processors' threads: each APIC has its own lock, and
//! what a processor polls ([`Apics::has_event`]) is one atomic byte. No lock is held while another chip is called, so
//! 8259 and I/O APIC may hold theirs when they deliver.
//!
//! The timer counts at [`TIMER_HZ`]. Interrupts from lowest-priority messages go to the processor with the lowest
//! priority class, the one with the lowest number among equals.
//!
//! Not modelled: SMI, EOI-broadcast suppression, CMCI, focus processor, arbitration IDs. Periodic timers with periods
//! under 10 µs interrupt at multiples of the period.

use super::lapic_regs::{self as regs, Effect, LocalApic};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tulk_base::CpuEvent;
use tulk_hw::{Clock, Device, IrqSink, Snapshot, SnapshotError, snapshot_error};

/// Rate of the timer before its divider.
pub const TIMER_HZ: u64 = 1_000_000_000;

pub const IA32_APIC_BASE: u32 = 0x1b;
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// The x2APIC's registers.
pub const X2APIC_MSRS: std::ops::Range<u32> = 0x800..0x900;

/// Register numbers (offset / 16) of LVT entries, for [`Apics::local_event`].
pub const LVT_THERMAL: u8 = 0x33;
pub const LVT_PERFORMANCE: u8 = 0x34;

/// Table 11-3 and 82093AA section 3.2.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DeliveryMode {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    Startup,
    ExtInt,
}

impl DeliveryMode {
    /// From the three bits of registers and messages; higher bits do not count. `None` for the reserved value 3.
    pub fn from_bits(bits: u8) -> Option<DeliveryMode> {
        use DeliveryMode::*;
        [
            Some(Fixed),
            Some(LowestPriority),
            Some(Smi),
            None,
            Some(Nmi),
            Some(Init),
            Some(Startup),
            Some(ExtInt),
        ][usize::from(bits & 7)]
    }
}

/// An interrupt message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicMessage {
    /// APIC ID or logical destination; all ones is everyone.
    pub destination: u32,
    pub logical: bool,
    pub mode: DeliveryMode,
    pub vector: u8,
    /// Level-triggered: the end of interrupt is told to the I/O APIC.
    pub level: bool,
}

impl ApicMessage {
    /// Widens the destination of an 8-bit message, in which 0xff is everyone.
    pub fn destination_8bit(destination: u8, logical: bool) -> u32 {
        if destination == 0xff && !logical { u32::MAX } else { destination.into() }
    }

    /// A message-signalled interrupt: a write of `data` to `address` (section 11.11). `None` where it is no such
    /// address or the mode is reserved.
    pub fn from_msi(address: u64, data: u32) -> Option<ApicMessage> {
        if address >> 20 != 0xfee {
            return None;
        }
        // Only with the redirection hint does the destination mode count.
        let logical = address >> 2 & 1 != 0;
        Some(ApicMessage {
            destination: Self::destination_8bit((address >> 12) as u8, logical),
            logical,
            mode: DeliveryMode::from_bits((data >> 8) as u8)?,
            vector: data as u8,
            level: data >> 15 & 1 != 0,
        })
    }
}

/// What carries interrupt messages to the processors.
pub trait ApicBus: Send + Sync {
    /// Delivers; false when no processor took it.
    fn deliver(&self, message: ApicMessage) -> bool;
}

const URGENT: u8 = 1;
const INTERRUPT: u8 = 2;
const NEVER: u64 = u64::MAX;

struct Slot {
    apic: Mutex<LocalApic>,
    /// [`URGENT`] and [`INTERRUPT`], as of the last unlock.
    pending: AtomicU8,
    deadline: AtomicU64,
}

/// All local APICs, by processor number, which is also the initial APIC ID.
pub struct Apics {
    slots: Vec<Slot>,
    clock: Arc<dyn Clock>,
    tsc_hz: u64,
    kick: Box<dyn Fn(u32) + Send + Sync>,
    acknowledge: OnceLock<Box<dyn Fn() -> u8 + Send + Sync>>,
    end_of_interrupt: OnceLock<Box<dyn Fn(u8) + Send + Sync>>,
}

impl Apics {
    /// `processors` APICs. Time stamp counters count `tsc_hz` from guest time 0 on; `kick(cpu)` is called (without
    /// locks held) when a processor has something new to take.
    pub fn new(
        processors: u32,
        clock: Arc<dyn Clock>,
        tsc_hz: u64,
        kick: impl Fn(u32) + Send + Sync + 'static,
    ) -> Arc<Apics> {
        let slot = |id| Slot {
            apic: Mutex::new(LocalApic::new(id)),
            pending: AtomicU8::new(0),
            deadline: AtomicU64::new(NEVER),
        };
        Arc::new(Apics {
            slots: (0..processors.max(1)).map(slot).collect(),
            clock,
            tsc_hz: tsc_hz.max(1),
            kick: Box::new(kick),
            acknowledge: OnceLock::new(),
            end_of_interrupt: OnceLock::new(),
        })
    }

    /// Connects the 8259, whose acknowledge cycle gives vectors for ExtINT. Its output goes to [`Apics::set_lint`].
    pub fn connect_pic(&self, acknowledge: impl Fn() -> u8 + Send + Sync + 'static) {
        let _ = self.acknowledge.set(Box::new(acknowledge));
    }

    /// Connects the I/O APIC, to which the end of level-triggered interrupts is told.
    pub fn connect_ioapic(&self, end_of_interrupt: impl Fn(u8) + Send + Sync + 'static) {
        let _ = self.end_of_interrupt.set(Box::new(end_of_interrupt));
    }

    /// A processor's APIC, for users to look at.
    pub fn describe(&self, cpu: u32) -> Option<String> {
        let now = self.clock.now();
        self.with(cpu, |apic| apic.describe(now))
    }

    /// Number of processors.
    pub fn processors(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Works on one APIC and publishes what follows for its processor. `None`: no such processor.
    fn with<R>(&self, cpu: u32, work: impl FnOnce(&mut LocalApic) -> R) -> Option<R> {
        let slot = self.slots.get(cpu as usize)?;
        let mut apic = slot.apic.lock();
        let result = work(&mut apic);
        let pending = if apic.urgent() { URGENT } else { 0 }
            | if apic.interrupting() { INTERRUPT } else { 0 };
        let before = slot.pending.swap(pending, Ordering::SeqCst);
        slot.deadline.store(apic.expires.unwrap_or(NEVER), Ordering::SeqCst);
        drop(apic);
        if pending & !before != 0 {
            (self.kick)(cpu);
        }
        Some(result)
    }

    // Processors' side.

    /// Whether [`Apics::take_event`] would give something. One atomic load.
    #[inline]
    pub fn has_event(&self, cpu: u32, interrupts: bool) -> bool {
        let wanted = if interrupts { URGENT | INTERRUPT } else { URGENT };
        self.slots
            .get(cpu as usize)
            .is_some_and(|slot| slot.pending.load(Ordering::SeqCst) & wanted != 0)
    }

    /// The most urgent event: INIT, startup, NMI, the highest vector, the 8259's interrupt.
    pub fn take_event(&self, cpu: u32, interrupts: bool) -> Option<CpuEvent> {
        if !self.has_event(cpu, interrupts) {
            return None;
        }
        match self.with(cpu, |apic| apic.take(interrupts))?? {
            Ok(event) => Some(event),
            Err(()) => self.acknowledge.get().map(|f| CpuEvent::Interrupt(f())),
        }
    }

    /// CR8: the upper half of the TPR.
    pub fn task_priority(&self, cpu: u32) -> u8 {
        self.slots.get(cpu as usize).map_or(0, |slot| slot.apic.lock().tpr() >> 4)
    }
    pub fn set_task_priority(&self, cpu: u32, priority: u8) {
        self.with(cpu, |apic| apic.set_tpr(priority << 4));
    }

    /// Where this processor's APIC page is, if it is on and in xAPIC mode.
    pub fn mmio_base(&self, cpu: u32) -> Option<u64> {
        let apic = self.slots.get(cpu as usize)?.apic.lock();
        (apic.enabled() && !apic.x2apic()).then_some(apic.base & regs::BASE_ADDRESS)
    }

    /// Reads this processor's APIC page. Registers are 32 bits wide at multiples of 16.
    pub fn mmio_read(&self, cpu: u32, offset: u64, bytes: u8) -> u64 {
        let now = self.clock.now();
        let register = (offset >> 4) as u8;
        let read = |apic: &mut LocalApic| {
            apic.advance(now);
            apic.read(register, now).unwrap_or_else(|| {
                apic.illegal_register();
                0
            })
        };
        let value = self.with(cpu, read).map_or(u64::MAX, u64::from);
        let shifted = match offset & 15 {
            n @ 0..4 => value >> (8 * n),
            _ => 0,
        };
        shifted & tulk_hw::ones(bytes)
    }

    /// Writes this processor's APIC page; only whole registers.
    pub fn mmio_write(&self, cpu: u32, offset: u64, bytes: u8, value: u64) {
        if offset & 15 == 0 && bytes >= 4 && offset < 0x1000 {
            self.write_register(cpu, (offset >> 4) as u8, value & 0xffff_ffff);
        }
    }

    fn write_register(&self, cpu: u32, register: u8, value: u64) {
        let now = self.clock.now();
        match self.with(cpu, |apic| apic.write(register, value, now)).flatten() {
            Some(Effect::EndOfInterrupt(vector)) => {
                if let Some(f) = self.end_of_interrupt.get() {
                    f(vector);
                }
            }
            Some(Effect::Send { message, shorthand }) => self.send(cpu, message, shorthand),
            None => {}
        }
    }

    /// IA32_APIC_BASE, IA32_TSC_DEADLINE and, in x2APIC mode, 0x800 to 0x8ff. `None`: #GP.
    pub fn msr_read(&self, cpu: u32, msr: u32) -> Option<u64> {
        let now = self.clock.now();
        self.with(cpu, |apic| {
            apic.advance(now);
            match msr {
                IA32_APIC_BASE => Some(apic.base),
                IA32_TSC_DEADLINE => Some(apic.tsc_deadline()),
                _ if !X2APIC_MSRS.contains(&msr) || !apic.x2apic() => None,
                _ => match msr as u8 {
                    regs::ICR_LOW => {
                        let half = |n| apic.read(n, now).map(u64::from);
                        Some(half(regs::ICR_LOW)? | half(regs::ICR_HIGH)? << 32)
                    }
                    regs::ICR_HIGH => None,
                    register => apic.read(register, now).map(u64::from),
                },
            }
        })?
    }

    /// False: #GP. IA32_TSC_DEADLINE is compared to a counter without offset: a processor whose counter has one
    /// subtracts it first.
    pub fn msr_write(&self, cpu: u32, msr: u32, value: u64) -> bool {
        match msr {
            IA32_APIC_BASE => self.with(cpu, |apic| apic.write_base(value)).unwrap_or(false),
            IA32_TSC_DEADLINE => {
                // The first nanosecond at which the counter has the value.
                let ns = (u128::from(value) * 1_000_000_000).div_ceil(u128::from(self.tsc_hz));
                let at = u64::try_from(ns).unwrap_or(NEVER - 1).min(NEVER - 1);
                let now = self.clock.now();
                self.with(cpu, |apic| {
                    apic.advance(now);
                    apic.set_tsc_deadline(value, at);
                    apic.advance(now);
                });
                true
            }
            _ if X2APIC_MSRS.contains(&msr) => {
                let register = msr as u8;
                let allowed = LocalApic::x2apic_writable(register);
                let on = self.with(cpu, |apic| apic.x2apic()).unwrap_or(false);
                if !on || allowed.is_none_or(|bits| value & !bits != 0) {
                    return false;
                }
                self.write_register(cpu, register, value);
                true
            }
            _ => false,
        }
    }

    // The board's side.

    /// LINT0 (`pin` 0, where the 8259 is) or LINT1 (1, NMI) of a processor.
    pub fn set_lint(&self, cpu: u32, pin: usize, level: bool) {
        self.with(cpu, |apic| apic.set_lint(pin, level));
    }

    /// An event of the thermal sensor or performance counters: [`LVT_THERMAL`], [`LVT_PERFORMANCE`].
    pub fn local_event(&self, cpu: u32, lvt: u8) {
        self.with(cpu, |apic| apic.local_event(lvt));
    }

    /// When [`Apics::tick`] wants to be called.
    pub fn deadline(&self) -> Option<u64> {
        let all = self.slots.iter().map(|slot| slot.deadline.load(Ordering::SeqCst));
        all.min().filter(|&at| at != NEVER)
    }

    pub fn tick(&self, now: u64) {
        for (cpu, slot) in self.slots.iter().enumerate() {
            if slot.deadline.load(Ordering::SeqCst) <= now {
                self.with(cpu as u32, |apic| apic.advance(now));
            }
        }
    }

    pub fn reset(&self) {
        for cpu in 0..self.processors() {
            self.with(cpu, |apic| *apic = LocalApic::new(cpu));
        }
    }

    pub fn save(&self) -> Snapshot {
        let all: Vec<LocalApic> = self.slots.iter().map(|slot| slot.apic.lock().clone()).collect();
        tulk_hw::save_state(&all)
    }

    /// # Errors
    /// Damaged, or of another number of processors.
    pub fn load(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let all: Vec<LocalApic> = tulk_hw::load_state("apic", snapshot)?;
        if all.len() != self.slots.len() || all.iter().zip(0..).any(|(apic, n)| apic.id != n) {
            return Err(snapshot_error("apic", "another number of processors"));
        }
        for (apic, cpu) in all.into_iter().zip(0..) {
            self.with(cpu, |own| *own = apic);
        }
        Ok(())
    }

    fn send(&self, from: u32, message: ApicMessage, shorthand: u8) {
        match shorthand {
            0 => {
                self.deliver(message);
            }
            1 => {
                self.accept(from, &message);
            }
            _ => {
                for cpu in (0..self.processors()).filter(|&cpu| shorthand == 2 || cpu != from) {
                    self.accept(cpu, &message);
                }
            }
        }
    }

    fn accept(&self, cpu: u32, m: &ApicMessage) -> bool {
        self.with(cpu, |apic| apic.accept(m.mode, m.vector, m.level)).unwrap_or(false)
    }

    fn lowest_priority(&self, message: &ApicMessage) -> Option<u32> {
        let candidate = |cpu: u32| {
            let apic = self.slots[cpu as usize].apic.lock();
            let fits = apic.software_enabled() && apic.is_destination(message);
            fits.then(|| (apic.ppr() >> 4, cpu))
        };
        (0..self.processors()).filter_map(candidate).min().map(|(_, cpu)| cpu)
    }
}

impl ApicBus for Apics {
    fn deliver(&self, message: ApicMessage) -> bool {
        if message.mode == DeliveryMode::LowestPriority {
            return self.lowest_priority(&message).is_some_and(|cpu| self.accept(cpu, &message));
        }
        let mut taken = false;
        for cpu in 0..self.processors() {
            taken |= self
                .with(cpu, |apic| {
                    apic.is_destination(&message)
                        && apic.accept(message.mode, message.vector, message.level)
                })
                .unwrap_or(false);
        }
        taken
    }
}

/// Line 0 is LINT0 of the boot processor (the 8259's output), line 1 its LINT1; messages are MSIs.
impl IrqSink for Apics {
    fn set(&self, line: u32, level: bool) {
        if line < 2 {
            self.set_lint(0, line as usize, level);
        }
    }
    fn message(&self, address: u64, data: u32) {
        if let Some(message) = ApicMessage::from_msi(address, data) {
            self.deliver(message);
        }
    }
}

/// All local APICs as one device: window n is processor n's page, for the board's list of devices.
pub struct ApicsDevice(pub Arc<Apics>);

impl Device for ApicsDevice {
    fn name(&self) -> &'static str {
        "apic"
    }
    fn reset(&mut self) {
        self.0.reset();
    }
    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        self.0.mmio_read(window.into(), offset, bytes)
    }
    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        self.0.mmio_write(window.into(), offset, bytes, value);
    }
    fn deadline(&self) -> Option<u64> {
        self.0.deadline()
    }
    fn tick(&mut self, now: u64) {
        self.0.tick(now);
    }
    fn save(&self) -> Snapshot {
        self.0.save()
    }
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.0.load(snapshot)
    }
}

#[cfg(test)]
#[path = "lapic_tests.rs"]
mod tests;
