//! One local APIC: its registers and what they do, without the other processors.
//!
//! Intel SDM volume 3, chapter 11 (APIC); register names and numbers are those of table 11-1 (offset / 16).

use super::lapic::{ApicMessage, DeliveryMode, TIMER_HZ};
use serde::{Deserialize, Serialize};
use tulk_base::CpuEvent;

pub(super) const ID: u8 = 0x02;
pub(super) const VERSION: u8 = 0x03;
pub(super) const TPR: u8 = 0x08;
pub(super) const APR: u8 = 0x09;
pub(super) const PPR: u8 = 0x0a;
pub(super) const EOI: u8 = 0x0b;
pub(super) const RRD: u8 = 0x0c;
pub(super) const LDR: u8 = 0x0d;
pub(super) const DFR: u8 = 0x0e;
pub(super) const SVR: u8 = 0x0f;
pub(super) const ISR: u8 = 0x10;
pub(super) const TMR: u8 = 0x18;
pub(super) const IRR: u8 = 0x20;
pub(super) const ESR: u8 = 0x28;
pub(super) const ICR_LOW: u8 = 0x30;
pub(super) const ICR_HIGH: u8 = 0x31;
pub(super) const LVT_TIMER: u8 = 0x32;
pub(super) const LVT_ERROR: u8 = 0x37;
pub(super) const INITIAL_COUNT: u8 = 0x38;
pub(super) const CURRENT_COUNT: u8 = 0x39;
pub(super) const DIVIDE: u8 = 0x3e;
pub(super) const SELF_IPI: u8 = 0x3f;

/// Version 0x14 (integrated), six LVT entries.
pub(super) const VERSION_VALUE: u32 = 0x0005_0014;

pub(super) const BASE_BSP: u64 = 1 << 8;
pub(super) const BASE_EXTD: u64 = 1 << 10;
pub(super) const BASE_EN: u64 = 1 << 11;
pub(super) const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
pub(super) const DEFAULT_ADDRESS: u64 = 0xfee0_0000;

const SVR_ENABLE: u32 = 1 << 8;
const LVT_REMOTE_IRR: u32 = 1 << 14;
const LVT_LEVEL: u32 = 1 << 15;
const LVT_MASKED: u32 = 1 << 16;
const TIMER_PERIODIC: u32 = 1;
const TIMER_TSC_DEADLINE: u32 = 2;
/// Bits of the LVT entries that exist and are writable, from the timer to the error entry.
const LVT_WRITABLE: [u32; 6] =
    [0x0007_00ff, 0x0001_07ff, 0x0001_07ff, 0x0001_a7ff, 0x0001_a7ff, 0x0001_00ff];
const LINT: [usize; 2] = [3, 4];
const LVT_TIMER_INDEX: usize = 0;
const LVT_ERROR_INDEX: usize = 5;

const ESR_SEND_ILLEGAL: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// Periodic timers wake the host not more often than this; interrupts in between coincide.
const SHORTEST_PERIOD_NS: u64 = 10_000;

/// 256 bits, one for each vector.
#[derive(Clone, Copy, Serialize, Deserialize, Default)]
pub(super) struct Vectors([u32; 8]);

impl Vectors {
    fn set(&mut self, vector: u8, on: bool) {
        let bit = 1 << (vector & 31);
        let word = &mut self.0[usize::from(vector >> 5)];
        *word = if on { *word | bit } else { *word & !bit };
    }
    fn get(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] >> (vector & 31) & 1 != 0
    }
    fn highest(&self) -> Option<u8> {
        let n = self.0.iter().rposition(|&w| w != 0)?;
        Some(n as u8 * 32 + 31 - self.0[n].leading_zeros() as u8)
    }
}

/// What an access asks of the other chips, after this one's lock is released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Send { message: ApicMessage, shorthand: u8 },
    EndOfInterrupt(u8),
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct LocalApic {
    /// Initial APIC ID: the processor's number.
    pub id: u32,
    /// IA32_APIC_BASE.
    pub base: u64,
    /// The ID register of xAPIC mode, which software may change.
    xapic_id: u8,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    pub isr: Vectors,
    tmr: Vectors,
    pub irr: Vectors,
    esr: u32,
    /// Errors since the last write to ESR.
    errors: u32,
    icr: u64,
    lvt: [u32; 6],
    divide: u32,
    initial_count: u32,
    /// Guest time of the last load or reload of the count.
    started: u64,
    /// The timer's next expiry in guest time.
    pub expires: Option<u64>,
    tsc_deadline: u64,
    /// Levels of LINT0 and LINT1.
    lint: [bool; 2],
    /// An ExtINT message has come (not by LINT0, whose level counts).
    ext_int: bool,
    nmi: bool,
    init: bool,
    startup: Option<u8>,
}

impl LocalApic {
    pub fn new(id: u32) -> LocalApic {
        let bsp = id == 0;
        let mut apic = LocalApic {
            id,
            base: DEFAULT_ADDRESS | BASE_EN | if bsp { BASE_BSP } else { 0 },
            xapic_id: id as u8,
            tpr: 0,
            ldr: 0,
            dfr: 0xffff_ffff,
            svr: 0xff,
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [LVT_MASKED; 6],
            divide: 0,
            initial_count: 0,
            started: 0,
            expires: None,
            tsc_deadline: 0,
            lint: [false; 2],
            ext_int: false,
            nmi: false,
            init: false,
            startup: None,
        };
        if bsp {
            // Virtual wire mode, in which firmware leaves the boot processor (MultiProcessor Specification 3.6.2.2).
            apic.lvt[LINT[0]] = 0x700;
        }
        apic
    }

    /// Section 11.4.7.3: as after reset, but IDs and IA32_APIC_BASE stay.
    fn init(&mut self) {
        let kept = (self.base, self.xapic_id, self.lint);
        *self = LocalApic::new(self.id);
        (self.base, self.xapic_id, self.lint) = kept;
        if self.x2apic() {
            self.ldr = x2apic_ldr(self.id);
        }
        self.init = true;
    }

    pub fn enabled(&self) -> bool {
        self.base & BASE_EN != 0
    }
    pub fn x2apic(&self) -> bool {
        self.base & BASE_EXTD != 0
    }
    pub fn software_enabled(&self) -> bool {
        self.enabled() && self.svr & SVR_ENABLE != 0
    }
    pub fn tpr(&self) -> u8 {
        self.tpr
    }
    pub fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
    }

    pub fn ppr(&self) -> u8 {
        let serviced = self.isr.highest().unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= serviced { self.tpr } else { serviced }
    }

    /// The vector to deliver, if one is above the processor's priority.
    fn deliverable(&self) -> Option<u8> {
        self.irr.highest().filter(|v| self.software_enabled() && v >> 4 > self.ppr() >> 4)
    }

    /// Whether the 8259's request reaches the processor by LINT0 or without the APIC, or one came as a message.
    fn ext_int_pending(&self) -> bool {
        let lint0 = self.lvt[LINT[0]];
        let wired = !self.enabled() || lint0 & (LVT_MASKED | 0x700) == 0x700;
        self.lint[0] && wired || self.ext_int
    }

    pub fn urgent(&self) -> bool {
        self.init || self.startup.is_some() || self.nmi
    }
    pub fn interrupting(&self) -> bool {
        self.deliverable().is_some() || self.ext_int_pending()
    }

    /// The next event. `Err(())`: the 8259 shall be asked for the vector.
    pub fn take(&mut self, interrupts: bool) -> Option<Result<CpuEvent, ()>> {
        if std::mem::take(&mut self.init) {
            return Some(Ok(CpuEvent::Init));
        }
        if let Some(page) = self.startup.take() {
            return Some(Ok(CpuEvent::Startup(page)));
        }
        if std::mem::take(&mut self.nmi) {
            return Some(Ok(CpuEvent::Nmi));
        }
        if !interrupts {
            return None;
        }
        if let Some(vector) = self.deliverable() {
            self.irr.set(vector, false);
            self.isr.set(vector, true);
            return Some(Ok(CpuEvent::Interrupt(vector)));
        }
        let ext_int = self.ext_int_pending();
        self.ext_int = false;
        ext_int.then_some(Err(()))
    }

    /// Whether a message is for this processor (sections 11.6.2 and 11.12.10).
    pub fn is_destination(&self, message: &ApicMessage) -> bool {
        let to = message.destination;
        if !self.enabled() {
            // Startup messages reach processors whose APIC is off, as do physical NMIs on the integrated APIC.
            return !message.logical && (to == self.id || to == u32::MAX);
        }
        match (message.logical, self.x2apic()) {
            (false, true) => to == self.id || to == u32::MAX,
            (false, false) => to == u32::from(self.xapic_id) || to == u32::MAX,
            (true, true) => {
                to == u32::MAX || to >> 16 == self.ldr >> 16 && to & self.ldr & 0xffff != 0
            }
            (true, false) => {
                let own = self.ldr >> 24;
                let to = to & 0xff;
                if self.dfr >> 28 == 0xf {
                    to & own != 0
                } else {
                    (to >> 4 == 0xf || to >> 4 == own >> 4) && to & own & 0xf != 0
                }
            }
        }
    }

    /// Takes a message; false when this APIC refuses it.
    pub fn accept(&mut self, mode: DeliveryMode, vector: u8, level: bool) -> bool {
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if !self.software_enabled() {
                    return false;
                }
                if vector < 16 {
                    self.error(ESR_RECEIVE_ILLEGAL);
                    return true;
                }
                self.irr.set(vector, true);
                self.tmr.set(vector, level);
            }
            DeliveryMode::Nmi => self.nmi = true,
            DeliveryMode::Init => self.init(),
            DeliveryMode::Startup => self.startup = Some(vector),
            DeliveryMode::ExtInt => self.ext_int = true,
            // There is no system management mode.
            DeliveryMode::Smi => {}
        }
        true
    }

    fn error(&mut self, bits: u32) {
        let new = self.errors & bits != bits;
        self.errors |= bits;
        let lvt = self.lvt[LVT_ERROR_INDEX];
        if new && lvt & LVT_MASKED == 0 && lvt & 0xff >= 16 {
            self.accept(DeliveryMode::Fixed, lvt as u8, false);
        }
    }

    fn local_interrupt(&mut self, index: usize) {
        let lvt = self.lvt[index];
        if lvt & LVT_MASKED != 0 {
            return;
        }
        // The timer and error entries have no delivery mode: these bits are zero, Fixed.
        match DeliveryMode::from_bits((lvt >> 8) as u8) {
            // By level, not by message.
            Some(DeliveryMode::ExtInt) | None => {}
            Some(DeliveryMode::Startup | DeliveryMode::LowestPriority) => {}
            Some(DeliveryMode::Fixed) => {
                let level = LINT.contains(&index) && lvt & LVT_LEVEL != 0;
                if level && lvt & LVT_REMOTE_IRR != 0 {
                    return;
                }
                if self.accept(DeliveryMode::Fixed, lvt as u8, level) && level {
                    self.lvt[index] |= LVT_REMOTE_IRR;
                }
            }
            Some(mode) => {
                self.accept(mode, lvt as u8, false);
            }
        }
    }

    /// Performance counter (4), thermal sensor (3): an event at the LVT entry of this register number.
    pub fn local_event(&mut self, register: u8) {
        let index = usize::from(register.wrapping_sub(LVT_TIMER));
        if self.enabled() && index < self.lvt.len() {
            self.local_interrupt(index);
        }
    }

    pub fn set_lint(&mut self, pin: usize, level: bool) {
        let rises = level && !self.lint[pin & 1];
        self.lint[pin & 1] = level;
        if !rises {
            return;
        }
        if self.enabled() {
            self.local_interrupt(LINT[pin & 1]);
        } else if pin == 1 {
            self.nmi = true;
        }
    }

    fn end_of_interrupt(&mut self) -> Option<Effect> {
        let vector = self.isr.highest()?;
        self.isr.set(vector, false);
        if !self.tmr.get(vector) {
            return None;
        }
        for (pin, index) in LINT.into_iter().enumerate() {
            let lvt = &mut self.lvt[index];
            if *lvt & LVT_REMOTE_IRR != 0 && *lvt as u8 == vector {
                *lvt &= !LVT_REMOTE_IRR;
                if self.lint[pin] {
                    self.local_interrupt(index);
                }
            }
        }
        Some(Effect::EndOfInterrupt(vector))
    }

    // Timer (section 11.5.4).

    fn timer_mode(&self) -> u32 {
        self.lvt[LVT_TIMER_INDEX] >> 17 & 3
    }
    fn divisor(&self) -> u64 {
        let log2 = ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7;
        1 << log2
    }
    fn tick_ns(&self) -> u64 {
        self.divisor() * (1_000_000_000 / TIMER_HZ)
    }

    fn start_timer(&mut self, now: u64) {
        self.started = now;
        let length = u64::from(self.initial_count) * self.tick_ns();
        self.expires = (length > 0).then(|| now + length);
        self.stretch_period(length, now);
    }

    /// Puts a periodic timer's next expiry on the first period's end that is not too soon.
    fn stretch_period(&mut self, length: u64, now: u64) {
        if self.timer_mode() == TIMER_PERIODIC && length > 0 {
            let periods = (now + SHORTEST_PERIOD_NS - self.started).div_ceil(length);
            self.expires = Some(self.started + periods.max(1) * length);
        }
    }

    fn current_count(&self, now: u64) -> u32 {
        if self.timer_mode() == TIMER_TSC_DEADLINE || self.initial_count == 0 {
            return 0;
        }
        let gone = now.saturating_sub(self.started) / self.tick_ns();
        let initial = u64::from(self.initial_count);
        let left = match self.timer_mode() {
            TIMER_PERIODIC => initial - gone % initial,
            _ => initial.saturating_sub(gone),
        };
        left as u32
    }

    /// Lets the timer expire if its time has come.
    pub fn advance(&mut self, now: u64) {
        if self.expires.is_none_or(|at| at > now) {
            return;
        }
        self.expires = None;
        self.tsc_deadline = 0;
        if self.timer_mode() == TIMER_PERIODIC {
            let length = u64::from(self.initial_count).max(1) * self.tick_ns();
            self.started += now.saturating_sub(self.started) / length * length;
            self.stretch_period(length, now);
        }
        self.local_interrupt(LVT_TIMER_INDEX);
    }

    pub fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// IA32_TSC_DEADLINE; `at` is its moment in guest time.
    pub fn set_tsc_deadline(&mut self, deadline: u64, at: u64) {
        if self.timer_mode() == TIMER_TSC_DEADLINE {
            self.tsc_deadline = deadline;
            self.expires = (deadline != 0).then_some(at);
        }
    }

    // Registers.

    /// `None`: there is no such register, or it is write-only.
    pub fn read(&self, register: u8, now: u64) -> Option<u32> {
        Some(match register {
            ID if self.x2apic() => self.id,
            ID => u32::from(self.xapic_id) << 24,
            VERSION => VERSION_VALUE,
            TPR => u32::from(self.tpr),
            APR if !self.x2apic() => u32::from(self.ppr()),
            PPR => u32::from(self.ppr()),
            RRD if !self.x2apic() => 0,
            EOI if !self.x2apic() => 0,
            LDR => self.ldr,
            DFR if !self.x2apic() => self.dfr,
            SVR => self.svr,
            ISR..TMR => self.isr.0[usize::from(register & 7)],
            TMR..IRR => self.tmr.0[usize::from(register & 7)],
            IRR..ESR => self.irr.0[usize::from(register & 7)],
            ESR => self.esr,
            ICR_LOW => self.icr as u32,
            ICR_HIGH => (self.icr >> 32) as u32,
            LVT_TIMER..=LVT_ERROR => self.lvt[usize::from(register - LVT_TIMER)],
            INITIAL_COUNT => self.initial_count,
            CURRENT_COUNT => self.current_count(now),
            DIVIDE => self.divide,
            _ => return None,
        })
    }

    /// Reads of registers that do not exist set an error in xAPIC mode.
    pub fn illegal_register(&mut self) {
        self.error(ESR_ILLEGAL_REGISTER);
    }

    /// Bits that may be set by a write in x2APIC mode; `None`: not writable (table 11-6).
    pub fn x2apic_writable(register: u8) -> Option<u64> {
        Some(match register {
            TPR => 0xff,
            EOI | ESR => 0,
            // With the focus bit of older processors, which does nothing.
            SVR => 0x3ff,
            ICR_LOW => 0xffff_ffff_000c_cfff,
            LVT_TIMER..=LVT_ERROR => {
                u64::from(LVT_WRITABLE[usize::from(register - LVT_TIMER)] | 0x5000)
            }
            INITIAL_COUNT => 0xffff_ffff,
            DIVIDE => 0xb,
            SELF_IPI => 0xff,
            _ => return None,
        })
    }

    pub fn write(&mut self, register: u8, value: u64, now: u64) -> Option<Effect> {
        self.advance(now);
        let low = value as u32;
        match register {
            ID if !self.x2apic() => self.xapic_id = (low >> 24) as u8,
            TPR => self.tpr = low as u8,
            EOI => return self.end_of_interrupt(),
            LDR if !self.x2apic() => self.ldr = low & 0xff00_0000,
            DFR if !self.x2apic() => self.dfr = low | 0x0fff_ffff,
            SVR => {
                self.svr = low & 0x1ff;
                if low & SVR_ENABLE == 0 {
                    self.lvt.iter_mut().for_each(|lvt| *lvt |= LVT_MASKED);
                }
            }
            ESR => self.esr = std::mem::take(&mut self.errors),
            ICR_LOW if self.x2apic() => return self.write_icr(value),
            ICR_LOW => return self.write_icr(self.icr & !0xffff_ffff | u64::from(low)),
            ICR_HIGH if !self.x2apic() => {
                self.icr = self.icr & 0xffff_ffff | u64::from(low & 0xff00_0000) << 32;
            }
            LVT_TIMER..=LVT_ERROR => self.write_lvt(usize::from(register - LVT_TIMER), low, now),
            INITIAL_COUNT if self.timer_mode() != TIMER_TSC_DEADLINE => {
                self.initial_count = low;
                self.start_timer(now);
            }
            DIVIDE => {
                // The count goes on from where it is, at the new rate.
                let left = self.current_count(now);
                self.divide = low & 0xb;
                if self.timer_mode() != TIMER_TSC_DEADLINE && left > 0 {
                    let gone = u64::from(self.initial_count - left) * self.tick_ns();
                    self.started = now.saturating_sub(gone);
                    let length = u64::from(self.initial_count) * self.tick_ns();
                    self.expires = Some(self.started + length);
                    self.stretch_period(length, now);
                }
            }
            SELF_IPI if self.x2apic() => return self.write_icr(0x4_0000 | value & 0xff),
            ID | VERSION | APR | PPR | RRD | LDR..=CURRENT_COUNT => {}
            _ => self.error(ESR_ILLEGAL_REGISTER),
        }
        None
    }

    fn write_lvt(&mut self, index: usize, value: u32, now: u64) {
        let old_mode = self.timer_mode();
        let kept = self.lvt[index] & LVT_REMOTE_IRR;
        let mut value = value & LVT_WRITABLE[index] | kept;
        if value & LVT_LEVEL == 0 {
            value &= !LVT_REMOTE_IRR;
        }
        if self.svr & SVR_ENABLE == 0 {
            value |= LVT_MASKED;
        }
        self.lvt[index] = value;
        if index == LVT_TIMER_INDEX && self.timer_mode() != old_mode {
            let from_or_to_deadline =
                old_mode == TIMER_TSC_DEADLINE || self.timer_mode() == TIMER_TSC_DEADLINE;
            if from_or_to_deadline {
                (self.expires, self.tsc_deadline, self.initial_count) = (None, 0, 0);
            } else if self.timer_mode() == TIMER_PERIODIC && self.initial_count != 0 {
                let length = u64::from(self.initial_count) * self.tick_ns();
                self.stretch_period(length, now);
            }
        }
        // A level that is up already is seen when the entry opens.
        if let Some(pin) = LINT.iter().position(|&n| n == index)
            && self.lint[pin]
            && value & LVT_LEVEL != 0
        {
            self.local_interrupt(index);
        }
    }

    fn write_icr(&mut self, value: u64) -> Option<Effect> {
        self.icr = value & !(1 << 12);
        let low = value as u32;
        let mode = DeliveryMode::from_bits((low >> 8) as u8)?;
        let (asserted, level) = (low >> 14 & 1 != 0, low >> 15 & 1 != 0);
        if mode == DeliveryMode::Init && level && !asserted {
            // INIT level de-assert only synchronises arbitration IDs, which are not there.
            return None;
        }
        let vector = low as u8;
        let fixed = matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        if fixed && vector < 16 {
            self.error(ESR_SEND_ILLEGAL);
            return None;
        }
        let shorthand = (low >> 18 & 3) as u8;
        // To itself (or to all with itself) go only ordinary interrupts (table 11-3).
        if mode == DeliveryMode::ExtInt || shorthand == 1 && !fixed || shorthand == 2 && !fixed {
            return None;
        }
        let logical = low >> 11 & 1 != 0;
        let destination = if self.x2apic() {
            (value >> 32) as u32
        } else {
            ApicMessage::destination_8bit((value >> 56) as u8, logical)
        };
        // Interrupts between processors are always edges.
        let message = ApicMessage { destination, logical, mode, vector, level: false };
        Some(Effect::Send { message, shorthand })
    }

    /// IA32_APIC_BASE; false where the value is refused (section 11.12.5).
    pub fn write_base(&mut self, value: u64) -> bool {
        if value & !(BASE_ADDRESS | BASE_BSP | BASE_EXTD | BASE_EN) != 0 {
            return false;
        }
        let modes = |v: u64| (v & BASE_EN != 0, v & BASE_EXTD != 0);
        match (modes(self.base), modes(value)) {
            (_, (false, true)) | ((false, _), (true, true)) | ((true, true), (true, false)) => {
                return false;
            }
            ((true, _), (false, _)) => {
                // Off: registers are as after reset when it comes back.
                let (lint, startup) = (self.lint, self.startup);
                *self = LocalApic::new(self.id);
                self.lvt = [LVT_MASKED; 6];
                (self.lint, self.startup) = (lint, startup);
            }
            ((true, false), (true, true)) => self.ldr = x2apic_ldr(self.id),
            _ => {}
        }
        self.base = value & !BASE_BSP | self.base & BASE_BSP;
        true
    }
}

/// Section 11.12.10.2: cluster and position follow from the ID.
fn x2apic_ldr(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 15)
}
