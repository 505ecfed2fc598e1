//! The power management block of the PIIX4: PM1a event and control registers, PM timer, general purpose events, and the
//! software SMI port by which ACPI is switched on and off.
//!
//! ACPI specification 6.5, section 4.8; PIIX4 data sheet 290562-001, chapter 7.2 (the block) and 7.1 (its PCI header,
//! which is not here: the board maps the windows where the header's base address says).
//!
//! There is no system management mode: what firmware's SMI handler would do at [`SMI_CMD`] happens at once. Sleep type
//! 0 (S5) powers off; other types are announced by no firmware table and ignored.
//!
//! Not modelled: S1 to S4, throttling, device monitors, the global lock.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Clock, Device, IrqLine, Snapshot, SnapshotError};

/// Window of the power management registers: 64 ports, usually 0x600 (0xb000 before firmware has run).
pub const PM: u8 = 0;
/// Window of the general purpose events: four ports, 0xafe0.
pub const GPE0: u8 = 1;
/// Window of APMC and APMS: two ports, 0xb2.
pub const SMI_CMD: u8 = 2;

/// Written to [`SMI_CMD`], these switch ACPI mode, as the FADT says.
pub const ACPI_ENABLE: u8 = 0xf1;
pub const ACPI_DISABLE: u8 = 0xf0;

/// Rate of the PM timer.
pub const TIMER_HZ: u64 = 3_579_545;

const PM1_STS: u64 = 0x00;
const PM1_EN: u64 = 0x02;
const PM1_CNT: u64 = 0x04;
const PM_TMR: u64 = 0x08;

const TMR_STS: u16 = 1 << 0;
const GBL_STS: u16 = 1 << 5;
const PWRBTN_STS: u16 = 1 << 8;
const RTC_STS: u16 = 1 << 10;
/// Events that have enable bits at the same places.
const EVENTS: u16 = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS;

const SCI_EN: u16 = 1 << 0;
const SLP_TYP_SHIFT: u16 = 10;
const SLP_EN: u16 = 1 << 13;
const CNT_WRITABLE: u16 = 0x1c06;

/// Sleep type of S5 in the DSDT.
pub const SLP_TYP_S5: u16 = 0;

#[derive(Clone, Serialize, Deserialize, Default)]
struct State {
    sts: u16,
    en: u16,
    cnt: u16,
    gpe_sts: u16,
    gpe_en: u16,
    apmc: u8,
    apms: u8,
    /// Value of the timer, all bits of it, up to which its status is right.
    seen: u64,
}

/// The power management block. Its interrupt, SCI, is level-triggered, usually IRQ9.
pub struct AcpiPm {
    state: State,
    /// The timer's highest bit, which gives the event when it changes: 23 or 31.
    timer_bit: u32,
    clock: Arc<dyn Clock>,
    sci: IrqLine,
    power_off: Box<dyn Fn() + Send>,
}

impl AcpiPm {
    /// `wide`: the timer has 32 bits, not 24 (as the FADT then says). `power_off` is called when the guest enters S5.
    pub fn new(
        clock: Arc<dyn Clock>,
        wide: bool,
        sci: IrqLine,
        power_off: impl Fn() + Send + 'static,
    ) -> AcpiPm {
        let timer_bit = if wide { 31 } else { 23 };
        AcpiPm { state: State::default(), timer_bit, clock, sci, power_off: Box::new(power_off) }
    }

    /// The power button is pressed. False when the guest would not notice, as ACPI is off or the event not enabled.
    pub fn press_power_button(&mut self) -> bool {
        self.state.sts |= PWRBTN_STS;
        self.update();
        self.state.cnt & SCI_EN != 0 && self.state.en & PWRBTN_STS != 0
    }

    /// A general purpose event (0 to 15).
    pub fn raise_event(&mut self, n: u32) {
        self.state.gpe_sts |= 1u16.checked_shl(n).unwrap_or(0);
        self.update();
    }

    /// Switches ACPI mode, as firmware without system management mode or a loader that skips firmware must.
    pub fn set_acpi_mode(&mut self, on: bool) {
        self.state.cnt = self.state.cnt & !SCI_EN | if on { SCI_EN } else { 0 };
        self.update();
    }

    fn timer(&self, ns: u64) -> u64 {
        (u128::from(ns) * u128::from(TIMER_HZ) / 1_000_000_000) as u64
    }

    /// The status is set whenever the highest bit changes.
    fn advance(&mut self, ns: u64) {
        let now = self.timer(ns).max(self.state.seen);
        if now >> self.timer_bit != self.state.seen >> self.timer_bit {
            self.state.sts |= TMR_STS;
        }
        self.state.seen = now;
    }

    fn update(&mut self) {
        let fixed = self.state.sts & self.state.en & EVENTS != 0;
        let general = self.state.gpe_sts & self.state.gpe_en != 0;
        self.sci.set(self.state.cnt & SCI_EN != 0 && (fixed || general));
    }

    fn read_pm(&self, port: u64, ns: u64) -> u8 {
        let byte = |value: u32| (value >> (8 * (port & 3))) as u8;
        let mask = ((1u64 << (self.timer_bit + 1)) - 1) as u32;
        match port & !3 {
            PM1_STS => byte(u32::from(self.state.en) << 16 | u32::from(self.state.sts)),
            PM1_CNT => byte(self.state.cnt.into()),
            PM_TMR => byte(self.timer(ns) as u32 & mask),
            _ => 0,
        }
    }

    fn write_pm(&mut self, port: u64, value: u8) {
        let shift = 8 * (port & 1);
        let (bits, mask) = (u16::from(value) << shift, 0xff << shift);
        match port & !1 {
            // One clears.
            PM1_STS => self.state.sts &= !bits,
            PM1_EN => self.state.en = self.state.en & !mask | bits & EVENTS,
            PM1_CNT => {
                self.state.cnt = self.state.cnt & !(mask & CNT_WRITABLE) | bits & CNT_WRITABLE;
                if bits & SLP_EN != 0 && self.state.cnt >> SLP_TYP_SHIFT & 7 == SLP_TYP_S5 {
                    (self.power_off)();
                }
            }
            _ => {}
        }
    }
}

impl Device for AcpiPm {
    fn name(&self) -> &'static str {
        "acpi-pm"
    }

    fn reset(&mut self) {
        self.state = State::default();
        self.update();
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        let ns = self.clock.now();
        self.advance(ns);
        tulk_hw::read_bytes(offset, bytes, |port| match (window, port) {
            (PM, 0..64) => self.read_pm(port, ns),
            (GPE0, 0..2) => (self.state.gpe_sts >> (8 * port)) as u8,
            (GPE0, 2..4) => (self.state.gpe_en >> (8 * (port - 2))) as u8,
            (SMI_CMD, 0) => self.state.apmc,
            (SMI_CMD, 1) => self.state.apms,
            _ => 0xff,
        })
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        self.advance(self.clock.now());
        tulk_hw::write_bytes(offset, bytes, value, |port, value| {
            let shift = 8 * (port & 1);
            let (bits, mask) = (u16::from(value) << shift, 0xffu16 << shift);
            match (window, port) {
                (PM, 0..64) => self.write_pm(port, value),
                (GPE0, 0..2) => self.state.gpe_sts &= !bits,
                (GPE0, 2..4) => self.state.gpe_en = self.state.gpe_en & !mask | bits,
                (SMI_CMD, 0) => {
                    self.state.apmc = value;
                    match value {
                        ACPI_ENABLE => self.set_acpi_mode(true),
                        ACPI_DISABLE => self.set_acpi_mode(false),
                        _ => {}
                    }
                }
                (SMI_CMD, 1) => self.state.apms = value,
                _ => {}
            }
        });
        self.update();
    }

    fn deadline(&self) -> Option<u64> {
        let state = &self.state;
        let wanted = state.cnt & SCI_EN != 0 && state.en & TMR_STS != 0 && state.sts & TMR_STS == 0;
        let next = u128::from((state.seen >> self.timer_bit) + 1) << self.timer_bit;
        wanted.then(|| (next * 1_000_000_000).div_ceil(u128::from(TIMER_HZ)) as u64)
    }

    fn tick(&mut self, now: u64) {
        self.advance(now);
        self.update();
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.state = tulk_hw::load_state(self.name(), snapshot)?;
        self.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tulk_hw::{ManualClock, RecordedIrqs, check_device};

    struct Bench {
        pm: AcpiPm,
        clock: Arc<ManualClock>,
        irqs: Arc<RecordedIrqs>,
        offs: Arc<AtomicU32>,
    }
    fn bench(wide: bool) -> Bench {
        let (clock, irqs) = (ManualClock::new(), RecordedIrqs::new());
        let offs = Arc::new(AtomicU32::new(0));
        let count = offs.clone();
        let sci = IrqLine::new(irqs.clone(), 9);
        let pm = AcpiPm::new(clock.clone(), wide, sci, move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        Bench { pm, clock, irqs, offs }
    }

    #[test]
    fn conforms() {
        check_device(&mut bench(true).pm, &[64, 4, 2], 20_000);
    }

    #[test]
    fn timer() {
        for (wide, seconds, value) in [(true, 10, 35_795_450), (false, 10, 35_795_450 & 0xff_ffff)]
        {
            let mut b = bench(wide);
            b.clock.set(seconds * 1_000_000_000);
            assert_eq!(b.pm.read(PM, 8, 4), value);
        }
        let mut b = bench(false);
        b.pm.write(SMI_CMD, 0, 1, 0xf1);
        b.pm.write(PM, 2, 2, 1);
        // 2^23 / 3579545 s.
        assert_eq!(b.pm.deadline(), Some(2_343_484_438));
        b.clock.set(2_343_484_438);
        b.pm.tick(2_343_484_438);
        assert!(b.irqs.level(9));
        assert_eq!(b.pm.deadline(), None);
        b.pm.write(PM, 0, 2, 1);
        assert!(!b.irqs.level(9));
        assert_eq!(b.pm.deadline(), Some(4_686_968_875));
    }

    #[test]
    fn modes_and_button() {
        let mut b = bench(true);
        assert!(!b.pm.press_power_button());
        b.pm.write(PM, 2, 2, 0x100);
        assert!(!b.irqs.level(9), "ACPI is off");
        b.pm.write(SMI_CMD, 0, 1, 0xf1);
        assert_eq!(b.pm.read(PM, 4, 2), 1);
        assert!(b.irqs.level(9));
        b.pm.write(PM, 0, 2, 0x100);
        assert!(!b.irqs.level(9));
        assert!(b.pm.press_power_button());
        assert_eq!(b.pm.read(PM, 0, 4), 0x0100_0100);
        b.pm.write(SMI_CMD, 0, 1, 0xf0);
        assert_eq!((b.pm.read(PM, 4, 2), b.irqs.level(9)), (0, false));
    }

    #[test]
    fn sleep() {
        let mut b = bench(true);
        b.pm.write(PM, 4, 2, 0x2400);
        assert_eq!(b.offs.load(Ordering::SeqCst), 0, "S1 is not announced");
        b.pm.write(PM, 4, 2, 0x2000);
        assert_eq!(b.offs.load(Ordering::SeqCst), 1);
        assert_eq!(b.pm.read(PM, 4, 2), 0, "SLP_EN reads as zero");
    }

    #[test]
    fn general_events() {
        let mut b = bench(true);
        b.pm.set_acpi_mode(true);
        b.pm.write(GPE0, 2, 2, 0x8002);
        b.pm.raise_event(1);
        assert!(b.irqs.level(9));
        assert_eq!(b.pm.read(GPE0, 0, 4), 0x8002_0002);
        b.pm.write(GPE0, 0, 1, 2);
        assert!(!b.irqs.level(9));
    }
}
