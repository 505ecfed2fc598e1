//! Motorola MC146818 real-time clock with 128 bytes of battery-backed memory (CMOS), as PCs have it.
//!
//! Data sheet MC146818A. The date is a function of guest time, plus an offset that changes when the guest sets it; the
//! flags of register C are brought up to date when somebody looks.
//!
//! Ports: 0x70 takes the address (its bit 7, the NMI mask, does nothing), 0x71 the data. Byte 0x32 is the century, as
//! ACPI tables announce it. Not modelled: daylight saving, the square-wave pin, other time bases than 32.768 kHz (they
//! behave like it); updates take no time, but register A announces them 244 µs before.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Clock, Device, IrqLine, Snapshot, SnapshotError, snapshot_error};

/// Bytes of memory, the clock's registers among them.
pub const BYTES: usize = 128;

const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const DAY_OF_WEEK: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REG_A: u8 = 0x0a;
const REG_B: u8 = 0x0b;
const REG_C: u8 = 0x0c;
const REG_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

const A_UIP: u8 = 1 << 7;
const B_SET: u8 = 1 << 7;
const B_PIE: u8 = 1 << 6;
const B_AIE: u8 = 1 << 5;
const B_UIE: u8 = 1 << 4;
const B_SQWE: u8 = 1 << 3;
const B_DM_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
const C_IRQF: u8 = 1 << 7;
const C_PF: u8 = 1 << 6;
const C_AF: u8 = 1 << 5;
const C_UF: u8 = 1 << 4;
const D_VRT: u8 = 1 << 7;
const HOURS_PM: u8 = 1 << 7;

const SECOND: i128 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;
/// The update-in-progress bit is set this long before an update.
const UIP_NS: i128 = 244_000;

#[derive(Clone, Serialize, Deserialize)]
struct State {
    index: u8,
    /// Memory; registers A, B and C among it, and the date while it stands still.
    cmos: Vec<u8>,
    /// Date at guest time 0: seconds since 1970, and nanoseconds.
    offset: (i64, u32),
    /// Guest time up to which the flags of register C are right.
    seen: u64,
}

/// A date, from the calendar of Gregory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Date {
    year: i64,
    month: i64,
    day: i64,
    /// Seconds since midnight.
    second: i64,
    /// 0 is Sunday.
    weekday: i64,
}

impl Date {
    fn from_seconds(seconds: i64) -> Date {
        let days = seconds.div_euclid(DAY_SECONDS);
        // Days in years that begin in March, in eras of 400 years.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        Date {
            year: yoe + era * 400 + i64::from(month <= 2),
            month,
            day: doy - (153 * mp + 2) / 5 + 1,
            second: seconds.rem_euclid(DAY_SECONDS),
            weekday: (days + 4).rem_euclid(7),
        }
    }

    fn to_seconds(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let yoe = year.rem_euclid(400);
        let mp = (self.month + 9) % 12;
        let doy = (153 * mp + 2) / 5 + self.day - 1;
        let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
        (era * 146_097 + doe - 719_468) * DAY_SECONDS + self.second
    }
}

/// The clock and its memory. Window 0 is its two ports, usually 0x70; its interrupt is IRQ8.
pub struct Mc146818 {
    state: State,
    /// Memory and date as the board has set them up.
    initial: State,
    clock: Arc<dyn Clock>,
    irq: IrqLine,
}

impl Mc146818 {
    /// `base`: the date at guest time 0, in seconds since 1970, in the time zone that the guest is to see.
    pub fn new(clock: Arc<dyn Clock>, base: i64, irq: IrqLine) -> Mc146818 {
        let mut cmos = vec![0; BYTES];
        cmos[usize::from(REG_A)] = 0x26;
        cmos[usize::from(REG_B)] = B_24_HOURS;
        let state = State { index: 0, cmos, offset: (base, 0), seen: 0 };
        Mc146818 { initial: state.clone(), state, clock, irq }
    }

    /// Sets a byte of memory, as the board describes itself to firmware. Not for the clock's registers.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        if usize::from(index) < BYTES && index > REG_D {
            self.initial.cmos[usize::from(index)] = value;
            self.state.cmos[usize::from(index)] = value;
        }
    }

    /// A byte of memory.
    pub fn cmos(&self, index: u8) -> u8 {
        self.state.cmos[usize::from(index) % BYTES]
    }

    /// The machine's reset line: date and memory stay, interrupts are off. ([`Device::reset`] takes the battery out.)
    pub fn bus_reset(&mut self) {
        self.state.cmos[usize::from(REG_B)] &= !(B_PIE | B_AIE | B_UIE | B_SQWE);
        self.state.cmos[usize::from(REG_C)] = 0;
        self.update_irq();
    }

    /// The calendar goes `ns` ahead: the machine was stopped, and time outside was not.
    pub fn skip(&mut self, ns: u64) {
        let offset = self.offset() + i128::from(ns);
        let (seconds, rest) = (offset.div_euclid(SECOND), offset.rem_euclid(SECOND));
        self.state.offset = (seconds as i64, rest as u32);
    }

    /// The date that the guest has, in seconds since 1970.
    pub fn date(&self) -> i64 {
        (self.date_ns(self.clock.now()).div_euclid(SECOND)) as i64
    }

    fn reg(&self, index: u8) -> u8 {
        self.state.cmos[usize::from(index) % BYTES]
    }
    fn running(&self) -> bool {
        // Divider on, no SET.
        self.reg(REG_B) & B_SET == 0 && self.reg(REG_A) >> 4 & 7 < 6
    }
    fn offset(&self) -> i128 {
        i128::from(self.state.offset.0) * SECOND + i128::from(self.state.offset.1)
    }
    fn date_ns(&self, now: u64) -> i128 {
        self.offset() + i128::from(now)
    }

    fn encode(&self, value: i64) -> u8 {
        let value = value as u8;
        if self.reg(REG_B) & B_DM_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }
    fn decode(&self, value: u8) -> i64 {
        if self.reg(REG_B) & B_DM_BINARY != 0 {
            value.into()
        } else {
            i64::from(value >> 4) * 10 + i64::from(value & 15)
        }
    }
    fn encode_hour(&self, hour: i64) -> u8 {
        if self.reg(REG_B) & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        self.encode((hour + 11) % 12 + 1) | if hour >= 12 { HOURS_PM } else { 0 }
    }
    fn decode_hour(&self, value: u8) -> i64 {
        if self.reg(REG_B) & B_24_HOURS != 0 {
            return self.decode(value);
        }
        self.decode(value & !HOURS_PM) % 12 + if value & HOURS_PM != 0 { 12 } else { 0 }
    }

    /// Copies the running date into the registers.
    fn store_date(&mut self, now: u64) {
        if !self.running() {
            return;
        }
        let date = Date::from_seconds(self.date_ns(now).div_euclid(SECOND) as i64);
        for (index, value) in [
            (SECONDS, self.encode(date.second % 60)),
            (MINUTES, self.encode(date.second / 60 % 60)),
            (HOURS, self.encode_hour(date.second / 3600)),
            (DAY_OF_WEEK, self.encode(date.weekday + 1)),
            (DAY, self.encode(date.day)),
            (MONTH, self.encode(date.month)),
            (YEAR, self.encode(date.year.rem_euclid(100))),
            (CENTURY, self.encode(date.year.div_euclid(100).rem_euclid(100))),
        ] {
            self.state.cmos[usize::from(index)] = value;
        }
    }

    /// Lets the clock run on from the date in the registers; `fraction` nanoseconds of the second are over.
    fn load_date(&mut self, now: u64, fraction: i128) {
        let date = Date {
            year: self.decode(self.reg(CENTURY)) * 100 + self.decode(self.reg(YEAR)),
            month: self.decode(self.reg(MONTH)).clamp(1, 12),
            day: self.decode(self.reg(DAY)).clamp(1, 31),
            second: self.decode_hour(self.reg(HOURS)) * 3600
                + self.decode(self.reg(MINUTES)) * 60
                + self.decode(self.reg(SECONDS)),
            weekday: 0,
        };
        let offset = i128::from(date.to_seconds()) * SECOND + fraction - i128::from(now);
        self.state.offset = (offset.div_euclid(SECOND) as i64, offset.rem_euclid(SECOND) as u32);
    }

    /// The period of the periodic interrupt in 32,768ths of a nanosecond (table 5 for 32.768 kHz).
    fn period(&self) -> Option<i128> {
        let rate = self.reg(REG_A) & 15;
        let rate = if matches!(rate, 1 | 2) { rate + 7 } else { rate };
        (rate != 0 && self.reg(REG_A) >> 4 & 7 < 6).then(|| SECOND << (rate - 1))
    }

    /// Whole periods that have passed at `now`. They count from the start of the second.
    fn periods(&self, now: u64) -> Option<i128> {
        Some((self.date_ns(now) * 32_768).div_euclid(self.period()?))
    }

    /// Guest time of the first moment at which the date is `date` nanoseconds.
    fn moment(&self, date: i128) -> u64 {
        u64::try_from((date - self.offset()).max(0)).unwrap_or(u64::MAX)
    }

    /// The first second from `second` (since 1970) on at which the alarm matches.
    fn next_alarm(&self, second: i64) -> Option<i64> {
        // 0xc0 to 0xff match anything.
        let wanted = |index: u8| Some(self.reg(index)).filter(|v| *v < 0xc0);
        let hour = wanted(HOURS_ALARM).map(|v| self.decode_hour(v));
        let minute = wanted(MINUTES_ALARM).map(|v| self.decode(v));
        let sec = wanted(SECONDS_ALARM).map(|v| self.decode(v));
        let fits = |value: i64, wanted: Option<i64>| wanted.is_none_or(|w| w == value);
        let midnight = second.div_euclid(DAY_SECONDS) * DAY_SECONDS;
        let start = second - midnight;
        for h in start / 3600..start / 3600 + 25 {
            if !fits(h % 24, hour) {
                continue;
            }
            let from = (start - h * 3600).max(0);
            for m in (from / 60..60).filter(|&m| fits(m, minute)) {
                let from = (from - m * 60).max(0);
                if let Some(s) = (from..60).find(|&s| fits(s, sec)) {
                    return Some(midnight + h * 3600 + m * 60 + s);
                }
            }
        }
        None
    }

    /// Sets the flags for what has happened since the last look.
    fn advance(&mut self, now: u64) {
        let seen = self.state.seen;
        self.state.seen = now.max(seen);
        if now <= seen {
            return;
        }
        let mut flags = 0;
        if self.periods(seen) < self.periods(now) {
            flags |= C_PF;
        }
        if self.running() {
            let before = self.date_ns(seen).div_euclid(SECOND) as i64;
            let after = self.date_ns(now).div_euclid(SECOND) as i64;
            if after > before {
                flags |= C_UF;
                if self.next_alarm(before + 1).is_some_and(|at| at <= after) {
                    flags |= C_AF;
                }
            }
        }
        self.state.cmos[usize::from(REG_C)] |= flags;
        self.update_irq();
    }

    fn update_irq(&mut self) {
        // Enables and flags have the same bits.
        let active = self.reg(REG_B) & self.reg(REG_C) & (C_PF | C_AF | C_UF) != 0;
        let c = &mut self.state.cmos[usize::from(REG_C)];
        *c = *c & !C_IRQF | if active { C_IRQF } else { 0 };
        self.irq.set(active);
    }

    fn read_data(&mut self) -> u8 {
        let now = self.clock.now();
        self.advance(now);
        let index = self.state.index;
        match index {
            SECONDS | MINUTES | HOURS | DAY_OF_WEEK..=YEAR | CENTURY => {
                self.store_date(now);
                self.reg(index)
            }
            REG_A => {
                let left = SECOND - self.date_ns(now).rem_euclid(SECOND);
                let uip = self.running() && left <= UIP_NS;
                self.reg(REG_A) & !A_UIP | if uip { A_UIP } else { 0 }
            }
            REG_C => {
                let flags = std::mem::take(&mut self.state.cmos[usize::from(REG_C)]);
                self.update_irq();
                flags
            }
            REG_D => D_VRT,
            _ => self.reg(index),
        }
    }

    fn write_data(&mut self, value: u8) {
        let now = self.clock.now();
        self.advance(now);
        let index = self.state.index;
        let at = usize::from(index);
        let fraction = self.date_ns(now).rem_euclid(SECOND);
        self.store_date(now);
        match index {
            REG_A => {
                let was = self.running();
                self.state.cmos[at] = value & !A_UIP;
                if !was && self.running() {
                    // The first update comes half a second after the divider starts.
                    self.load_date(now, SECOND / 2);
                }
            }
            REG_B => {
                let was = self.running();
                let value = if value & B_SET != 0 { value & !B_UIE } else { value };
                self.state.cmos[at] = value;
                if !was && self.running() {
                    self.load_date(now, fraction);
                }
                self.update_irq();
            }
            REG_C | REG_D => {}
            SECONDS | MINUTES | HOURS | DAY..=YEAR | CENTURY => {
                self.state.cmos[at] = value;
                if self.running() {
                    self.load_date(now, fraction);
                }
            }
            _ => self.state.cmos[at] = value,
        }
    }
}

impl Device for Mc146818 {
    fn name(&self) -> &'static str {
        "mc146818"
    }

    fn reset(&mut self) {
        self.state = self.initial.clone();
        self.irq.set(false);
    }

    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        tulk_hw::read_bytes(offset, bytes, |port| if port == 1 { self.read_data() } else { 0xff })
    }

    fn write(&mut self, _window: u8, offset: u64, bytes: u8, value: u64) {
        tulk_hw::write_bytes(offset, bytes, value, |port, value| match port {
            0 => self.state.index = value & 0x7f,
            1 => self.write_data(value),
            _ => {}
        });
    }

    fn deadline(&self) -> Option<u64> {
        let enabled = self.reg(REG_B) & !self.reg(REG_C);
        if self.reg(REG_C) & C_IRQF != 0 {
            return None;
        }
        let seen = self.state.seen;
        let second = self.date_ns(seen).div_euclid(SECOND);
        let mut next = vec![];
        if enabled & B_PIE != 0
            && let (Some(period), Some(periods)) = (self.period(), self.periods(seen))
        {
            let date = (periods + 1) * period;
            next.push(self.moment(-(-date).div_euclid(32_768)));
        }
        if enabled & B_UIE != 0 && self.running() {
            next.push(self.moment((second + 1) * SECOND));
        }
        if enabled & B_AIE != 0 && self.running() {
            let alarm = self.next_alarm(second as i64 + 1);
            next.extend(alarm.map(|at| self.moment(i128::from(at) * SECOND)));
        }
        next.into_iter().min()
    }

    fn tick(&mut self, now: u64) {
        self.advance(now);
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let state: State = tulk_hw::load_state(self.name(), snapshot)?;
        let sane = state.offset.0.unsigned_abs() < 1 << 48;
        if state.cmos.len() != BYTES || !sane {
            return Err(snapshot_error(self.name(), "memory of another size or no date"));
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulk_hw::{ManualClock, RecordedIrqs, check_device};

    /// Tuesday, 29 February 2000, 23:59:58.
    const BASE: i64 = 951_868_798;

    struct Bench {
        rtc: Mc146818,
        clock: Arc<ManualClock>,
        irqs: Arc<RecordedIrqs>,
    }
    impl Bench {
        fn new() -> Bench {
            let (clock, irqs) = (ManualClock::new(), RecordedIrqs::new());
            let rtc = Mc146818::new(clock.clone(), BASE, IrqLine::new(irqs.clone(), 8));
            Bench { rtc, clock, irqs }
        }
        fn get(&mut self, index: u8) -> u64 {
            self.rtc.write(0, 0, 1, index.into());
            self.rtc.read(0, 1, 1)
        }
        fn set(&mut self, index: u8, value: u64) {
            self.rtc.write(0, 0, 1, index.into());
            self.rtc.write(0, 1, 1, value);
        }
        fn date(&mut self) -> [u64; 8] {
            [CENTURY, YEAR, MONTH, DAY, DAY_OF_WEEK, HOURS, MINUTES, SECONDS].map(|r| self.get(r))
        }
    }

    #[test]
    fn conforms() {
        check_device(&mut Bench::new().rtc, &[2], 20_000);
    }

    #[test]
    fn calendar() {
        let mut b = Bench::new();
        assert_eq!(b.date(), [0x20, 0x00, 0x02, 0x29, 3, 0x23, 0x59, 0x58]);
        b.clock.advance(2_000_000_000);
        assert_eq!(b.date(), [0x20, 0x00, 0x03, 0x01, 4, 0, 0, 0]);
        for seconds in [0, -1, 951_868_800, 4_107_542_399, 4_107_542_400] {
            assert_eq!(Date::from_seconds(seconds).to_seconds(), seconds);
        }
        assert_eq!(b.get(REG_D), 0x80);
    }

    #[test]
    fn binary_and_twelve_hours() {
        let mut b = Bench::new();
        b.set(REG_B, 0x04);
        assert_eq!(b.date(), [20, 0, 2, 29, 3, 0x80 | 11, 59, 58]);
        b.clock.advance(2_000_000_000);
        assert_eq!(b.get(HOURS), 12, "midnight is 12 AM");
        b.set(REG_B, 0x00);
        b.set(HOURS, 0x92);
        assert_eq!(b.get(HOURS), 0x92, "12 PM");
        b.set(REG_B, 0x02);
        assert_eq!(b.get(HOURS), 0x12);
    }

    #[test]
    fn setting() {
        let mut b = Bench::new();
        b.set(REG_B, 0x82);
        for (register, value) in [(CENTURY, 0x19), (YEAR, 0x99), (MONTH, 0x12), (DAY, 0x31)] {
            b.set(register, value);
        }
        b.clock.advance(5_000_000_000);
        assert_eq!(b.get(SECONDS), 0x58, "it stands still");
        b.set(REG_B, 0x02);
        b.clock.advance(2_000_000_000);
        assert_eq!(b.date()[..4], [0x20, 0x00, 0x01, 0x01]);
        // From the divider's start to the first update: half a second.
        b.set(REG_A, 0x76);
        b.set(REG_A, 0x26);
        b.clock.advance(499_000_000);
        assert_eq!(b.get(SECONDS), 0);
        b.clock.advance(1_000_000);
        assert_eq!(b.get(SECONDS), 1);
    }

    #[test]
    fn update_in_progress() {
        let mut b = Bench::new();
        assert_eq!(b.get(REG_A), 0x26);
        b.clock.set(1_000_000_000 - 244_000);
        assert_eq!(b.get(REG_A), 0xa6);
        b.clock.set(1_000_000_000);
        assert_eq!((b.get(REG_A), b.get(REG_C)), (0x26, 0x10 | 0x40));
    }

    fn run(b: &mut Bench, until: u64) -> Vec<u64> {
        let mut times = vec![];
        while let Some(at) = b.rtc.deadline().filter(|&at| at <= until) {
            b.clock.set(at);
            b.rtc.tick(at);
            if b.irqs.take_rises() == [8] {
                times.push(at);
                b.get(REG_C);
            }
        }
        times
    }

    #[test]
    fn periodic_interrupt() {
        let mut b = Bench::new();
        b.set(REG_B, 0x42);
        let times = run(&mut b, 1_000_000_000);
        assert_eq!(times.len(), 1024);
        assert_eq!(times[0], 976_563);
        assert_eq!(times[1023], 1_000_000_000);
        // Rate 1 of a 32.768 kHz clock is 256 Hz.
        b.set(REG_A, 0x21);
        assert_eq!(run(&mut b, 2_000_000_000).len(), 256);
    }

    #[test]
    fn update_and_alarm_interrupts() {
        let mut b = Bench::new();
        b.set(REG_B, 0x12);
        assert_eq!(run(&mut b, 3_000_000_000), [1_000_000_000, 2_000_000_000, 3_000_000_000]);
        // Each minute at second 5; it is 00:00:01.
        b.set(SECONDS_ALARM, 0x05);
        b.set(MINUTES_ALARM, 0xff);
        b.set(HOURS_ALARM, 0xc0);
        b.set(REG_B, 0x22);
        assert_eq!(run(&mut b, 70_000_000_000), [7_000_000_000, 67_000_000_000]);
        b.set(HOURS_ALARM, 0x03);
        b.set(MINUTES_ALARM, 0x00);
        assert_eq!(run(&mut b, 100_000_000_000_000).len(), 2, "once a day");
    }

    #[test]
    fn flags_without_enables_and_bus_reset() {
        let mut b = Bench::new();
        b.clock.advance(1_500_000_000);
        assert_eq!(b.get(REG_C), 0x50);
        assert_eq!(b.get(REG_C), 0);
        b.set(0x38, 0x12);
        b.set(REG_B, 0x12);
        b.clock.advance(1_000_000_000);
        b.rtc.tick(2_500_000_000);
        assert!(b.irqs.level(8));
        b.rtc.bus_reset();
        assert!(!b.irqs.level(8));
        assert_eq!((b.get(REG_B), b.get(0x38), b.get(SECONDS)), (2, 0x12, 0));
    }
}
