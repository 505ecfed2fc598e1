//! Intel 8254 programmable interval timer of a PC with system control port B (0x61).
//!
//! Data sheet 231164-005. Counters are functions of guest time: each remembers the clock tick at which it was loaded, so
//! that nothing drifts. Edges of counter 0 that came too late are delivered at twice the rate until the guest has had all
//! of the last second.
//!
//! Not modelled: loading takes no clock cycle; a count written to a running mode 3 counter is used from the next whole
//! period on; the speaker is silent.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Clock, Device, IrqLine, Snapshot, SnapshotError};

/// Window of the four ports, usually 0x40.
pub const COUNTERS: u8 = 0;
/// Window of system control port B, 0x61.
pub const PORT_B: u8 = 1;

/// Input clock of the counters.
pub const HZ: u64 = 1_193_182;

/// Port B toggles bit 4 with each refresh cycle of memory.
const REFRESH_NS: u64 = 15_085;

/// Edges of counter 0 come not more often than this (20 µs); those in between are owed.
const SHORTEST_TICKS: u64 = 24;

const PORT_B_GATE2: u8 = 1 << 0;
const PORT_B_REFRESH: u8 = 1 << 4;
const PORT_B_OUT2: u8 = 1 << 5;
const PORT_B_WRITABLE: u8 = 0x0f;

const STATUS_OUT: u8 = 1 << 7;
const STATUS_NULL_COUNT: u8 = 1 << 6;

/// Ticks until `ns`.
fn ticks(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(HZ) / 1_000_000_000) as u64
}

/// First nanosecond of a tick.
fn nanoseconds(tick: u64) -> u64 {
    (u128::from(tick) * 1_000_000_000).div_ceil(u128::from(HZ)) as u64
}

#[derive(Clone, Serialize, Deserialize, Debug)]
struct Counter {
    /// 0 to 5.
    mode: u8,
    bcd: bool,
    /// 1: low byte, 2: high byte, 3: low, then high.
    access: u8,
    /// 1 to 0x10000; 0 while no count has been written since the mode.
    count: u32,
    /// A count for the next period (modes 2 and 3) and the tick at which that starts.
    next: Option<(u32, u64)>,
    /// The tick at which counting started, unless it waits for a trigger.
    started: Option<u64>,
    /// Ticks done when the gate went low in modes 0, 2, 3 and 4.
    paused: Option<u64>,
    gate: bool,
    /// The low byte has been written, the high one is awaited.
    written_low: Option<u8>,
    read_high: bool,
    latched: Option<u16>,
    status: Option<u8>,
}

impl Counter {
    fn new(gate: bool) -> Counter {
        Counter {
            mode: 3,
            bcd: false,
            access: 3,
            count: 0,
            next: None,
            started: None,
            paused: None,
            gate,
            written_low: None,
            read_high: false,
            latched: None,
            status: None,
        }
    }

    fn periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    /// Moves on to a count that was written in an earlier period.
    fn advance(&mut self, now: u64) {
        if let Some((count, at)) = self.next.filter(|&(_, at)| at <= now) {
            (self.count, self.started, self.next) = (count, Some(at), None);
        }
    }

    /// Ticks counted since the start.
    fn done(&self, now: u64) -> Option<u64> {
        self.paused.or_else(|| self.started.map(|at| now.saturating_sub(at)))
    }

    fn out(&self, now: u64) -> bool {
        let count = u64::from(self.count);
        if count == 0 {
            return self.mode != 0;
        }
        let Some(done) = self.done(now) else { return self.mode != 0 };
        match self.mode {
            0 | 1 => done >= count,
            // The gate's low level sets OUT high.
            2 => self.paused.is_some() || done % count != count - 1,
            3 => self.paused.is_some() || done % count < count.div_ceil(2),
            _ => done != count,
        }
    }

    /// The next tick behind `now` at which OUT rises.
    fn next_rise(&self, now: u64) -> Option<u64> {
        let start = self.started.filter(|_| self.paused.is_none() && self.count != 0)?;
        let count = u64::from(self.count);
        match self.mode {
            0 | 1 => Some(start + count).filter(|&at| at > now),
            2 | 3 => Some(start + (now.saturating_sub(start) / count + 1) * count),
            _ => Some(start + count + 1).filter(|&at| at > now),
        }
    }

    /// The value in the counting element, as the guest reads it.
    fn value(&self, now: u64) -> u16 {
        let modulus: u64 = if self.bcd { 10_000 } else { 0x1_0000 };
        let count = u64::from(self.count);
        let value = match self.done(now) {
            None => count,
            Some(_) if count == 0 => 0,
            Some(done) => match self.mode {
                2 => count - done % count,
                // By two in each half of the period; odd counts are one longer in the first.
                3 => {
                    let (half, at) = (count.div_ceil(2), done % count);
                    let at = if at < half { at } else { at - half };
                    (count & !1).saturating_sub(2 * at).max(if count == 1 { 1 } else { 2 })
                }
                _ => (count + modulus - done % modulus) % modulus,
            },
        };
        let value = (value % modulus) as u16;
        if !self.bcd {
            return value;
        }
        (0..4).fold(0, |bcd, n| bcd | (value / 10u16.pow(n) % 10) << (4 * n))
    }

    fn write_control(&mut self, value: u8) {
        *self = Counter {
            mode: match value >> 1 & 7 {
                n @ 6.. => n - 4,
                n => n,
            },
            bcd: value & 1 != 0,
            access: value >> 4 & 3,
            ..Counter::new(self.gate)
        };
    }

    fn write(&mut self, value: u8, now: u64) {
        let word = match (self.access, self.written_low.take()) {
            (1, _) => u16::from(value),
            (2, _) => u16::from(value) << 8,
            (_, Some(low)) => u16::from(value) << 8 | u16::from(low),
            (_, None) => {
                self.written_low = Some(value);
                if self.mode == 0 {
                    // The first byte stops the counter.
                    (self.count, self.started, self.paused) = (0, None, None);
                }
                return;
            }
        };
        let count = match (word, self.bcd) {
            (0, true) => 10_000,
            (0, false) => 0x1_0000,
            (_, true) => {
                (0..4).map(|n| u32::from(word >> (4 * n) & 15) * 10u32.pow(n)).sum::<u32>()
            }
            (_, false) => u32::from(word),
        };
        match self.mode {
            2 | 3 if self.started.is_some() && self.count != 0 && self.paused.is_none() => {
                let at = self.started.unwrap_or(now);
                let period = u64::from(self.count);
                self.next = Some((count, at + (now.saturating_sub(at) / period + 1) * period));
            }
            1 | 5 => self.count = count,
            _ => {
                self.count = count;
                self.started = Some(now);
                self.paused = (!self.gate).then_some(0);
            }
        }
    }

    fn set_gate(&mut self, gate: bool, now: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode, gate) {
            (1 | 5, true) if self.count != 0 => self.started = Some(now),
            (1 | 5, _) => {}
            (_, false) => self.paused = self.started.map(|at| now.saturating_sub(at)),
            // Periodic modes start again, the others go on.
            (_, true) => {
                let done = self.paused.take().unwrap_or(0);
                let done = if self.periodic() { 0 } else { done };
                self.started = self.started.map(|_| now.saturating_sub(done));
                if let Some((count, _)) = self.next.take() {
                    self.count = count;
                }
            }
        }
    }

    fn latch_status(&mut self, now: u64) {
        let null = self.count == 0 || self.next.is_some();
        let status = if self.out(now) { STATUS_OUT } else { 0 }
            | if null { STATUS_NULL_COUNT } else { 0 }
            | self.access << 4
            | self.mode << 1
            | u8::from(self.bcd);
        self.status.get_or_insert(status);
    }

    fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let value = self.latched.unwrap_or_else(|| self.value(now));
        let high = self.access == 2 || self.access == 3 && self.read_high;
        if self.access == 3 {
            self.read_high = !self.read_high;
        }
        if high || self.access != 3 {
            self.latched = None;
        }
        (value >> if high { 8 } else { 0 }) as u8
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct State {
    counters: [Counter; 3],
    port_b: u8,
    /// The tick up to which edges of counter 0 have been seen.
    seen: u64,
    /// Edges that are owed to the guest.
    owed: u64,
    /// The tick at which the next owed edge is delivered.
    pay_at: u64,
}

/// The timer and port B. Its interrupt is IRQ0.
pub struct I8254 {
    state: State,
    clock: Arc<dyn Clock>,
    irq: IrqLine,
}

impl I8254 {
    pub fn new(clock: Arc<dyn Clock>, irq: IrqLine) -> I8254 {
        I8254 { state: Self::fresh(), clock, irq }
    }

    fn fresh() -> State {
        State {
            counters: [Counter::new(true), Counter::new(true), Counter::new(false)],
            port_b: 0,
            seen: 0,
            owed: 0,
            pay_at: 0,
        }
    }

    fn now(&mut self) -> u64 {
        let now = ticks(self.clock.now());
        self.advance(now);
        now
    }

    /// Delivers the edges up to `now`, at most one of them now and those that it is late with afterwards.
    fn advance(&mut self, now: u64) {
        let state = &mut self.state;
        let counter = &mut state.counters[0];
        let mut edges = 0;
        while let Some(at) = counter.next_rise(state.seen).filter(|&at| at <= now) {
            edges += 1;
            state.seen = at;
            if counter.next.is_some() {
                counter.advance(at);
            } else if counter.periodic() {
                let more = (now - at) / u64::from(counter.count);
                edges += more;
                state.seen += more * u64::from(counter.count);
            }
        }
        state.seen = now.max(state.seen);
        state.counters.iter_mut().for_each(|counter| counter.advance(now));
        let period = u64::from(state.counters[0].count).max(1);
        if edges > 0 && state.owed == 0 {
            state.pay_at = now;
        }
        state.owed = (state.owed + edges).min(HZ / period + 1);
        if state.owed > 0 && state.pay_at <= now {
            state.owed -= 1;
            state.pay_at = now + (period / 2).max(SHORTEST_TICKS);
            self.irq.set(false);
            self.irq.set(true);
        }
    }

    /// The level of counter 0's output after a guest's write.
    fn update(&mut self, now: u64) {
        self.irq.set(self.state.counters[0].out(now));
    }

    fn write_control(&mut self, value: u8, now: u64) {
        match value >> 6 {
            3 => {
                for (n, counter) in self.state.counters.iter_mut().enumerate() {
                    if value >> (n + 1) & 1 == 0 {
                        continue;
                    }
                    if value & 0x20 == 0 && counter.latched.is_none() {
                        counter.latched = Some(counter.value(now));
                    }
                    if value & 0x10 == 0 {
                        counter.latch_status(now);
                    }
                }
            }
            n => {
                let counter = &mut self.state.counters[usize::from(n)];
                if value >> 4 & 3 != 0 {
                    counter.write_control(value);
                    if n == 0 {
                        (self.state.owed, self.state.pay_at) = (0, now);
                    }
                } else if counter.latched.is_none() {
                    counter.latched = Some(counter.value(now));
                }
            }
        }
    }
}

impl Device for I8254 {
    fn name(&self) -> &'static str {
        "i8254"
    }

    fn reset(&mut self) {
        self.state = Self::fresh();
        self.irq.set(false);
    }

    fn read(&mut self, window: u8, offset: u64, bytes: u8) -> u64 {
        let ns = self.clock.now();
        let now = self.now();
        tulk_hw::read_bytes(offset, bytes, |port| match (window, port) {
            (COUNTERS, 0..3) => self.state.counters[port as usize].read(now),
            (PORT_B, 0) => {
                let refresh = if (ns / REFRESH_NS) & 1 != 0 { PORT_B_REFRESH } else { 0 };
                let out = if self.state.counters[2].out(now) { PORT_B_OUT2 } else { 0 };
                self.state.port_b | refresh | out
            }
            _ => 0xff,
        })
    }

    fn write(&mut self, window: u8, offset: u64, bytes: u8, value: u64) {
        let now = self.now();
        tulk_hw::write_bytes(offset, bytes, value, |port, value| match (window, port) {
            (COUNTERS, 0..3) => self.state.counters[port as usize].write(value, now),
            (COUNTERS, 3) => self.write_control(value, now),
            (PORT_B, 0) => {
                self.state.port_b = value & PORT_B_WRITABLE;
                self.state.counters[2].set_gate(value & PORT_B_GATE2 != 0, now);
            }
            _ => {}
        });
        if window == COUNTERS {
            self.update(now);
        }
    }

    fn deadline(&self) -> Option<u64> {
        let rise = self.state.counters[0].next_rise(self.state.seen);
        let next = match self.state.owed {
            0 => rise.map(|at| at.max(self.state.pay_at)),
            _ => Some(self.state.pay_at),
        };
        next.map(nanoseconds)
    }

    fn tick(&mut self, now: u64) {
        self.advance(ticks(now));
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let state: State = tulk_hw::load_state(self.name(), snapshot)?;
        if state.counters.iter().any(|c| c.mode > 5 || c.count > 0x1_0000) {
            return Err(tulk_hw::snapshot_error(self.name(), "no such mode or count"));
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulk_hw::{ManualClock, RecordedIrqs, check_device};

    struct Bench {
        pit: I8254,
        clock: Arc<ManualClock>,
        irqs: Arc<RecordedIrqs>,
    }
    impl Bench {
        fn new() -> Bench {
            let (clock, irqs) = (ManualClock::new(), RecordedIrqs::new());
            let pit = I8254::new(clock.clone(), IrqLine::new(irqs.clone(), 0));
            Bench { pit, clock, irqs }
        }
        /// To the middle of this tick since the start.
        fn to(&mut self, tick: u64) {
            self.clock.set(nanoseconds(tick) + 100);
            self.pit.tick(self.clock.now());
        }
        fn program(&mut self, n: u64, control: u64, count: u64) {
            self.pit.write(0, 3, 1, n << 6 | 0x30 | control);
            self.pit.write(0, n, 1, count & 0xff);
            self.pit.write(0, n, 1, count >> 8);
            self.irqs.take_rises();
        }
        fn count(&mut self, n: u64) -> u64 {
            self.pit.write(0, 3, 1, n << 6);
            self.pit.read(0, n, 1) | self.pit.read(0, n, 1) << 8
        }
        fn out(&mut self, n: u64) -> bool {
            self.pit.write(0, 3, 1, 0xe0 | 2 << n);
            self.pit.read(0, n, 1) & 0x80 != 0
        }
        fn rises(&self) -> usize {
            self.irqs.take_rises().len()
        }
    }

    #[test]
    fn conforms() {
        check_device(&mut Bench::new().pit, &[4, 1], 20_000);
    }

    #[test]
    fn rate_generator_does_not_drift() {
        let mut b = Bench::new();
        b.program(0, 4, 1000);
        let mut times = vec![];
        while times.len() < 1000 {
            let at = b.pit.deadline().unwrap();
            b.clock.set(at);
            b.pit.tick(at);
            if b.rises() == 1 {
                times.push(at);
            }
        }
        // 1000 periods of 1000/1193182 s.
        assert_eq!(times[999], 838_095_110_386u64.div_ceil(1000));
        b.to(1_000_000 + 250);
        assert_eq!(b.count(0), 750);
        assert!(b.out(0));
        b.to(1_000_999);
        assert!(!b.out(0), "one tick low");
    }

    #[test]
    fn late_ticks_are_caught_up() {
        let mut b = Bench::new();
        b.program(0, 4, 1000);
        b.to(5500);
        assert_eq!(b.rises(), 1);
        let mut rises = 1;
        while ticks(b.pit.deadline().unwrap()) < 12_000 {
            let at = b.pit.deadline().unwrap();
            b.clock.set(at);
            b.pit.tick(at);
            rises += b.rises();
        }
        assert_eq!(rises, 11, "none is lost");
        // What is owed is limited to a second.
        b.to(1_000_000_000);
        assert!(b.pit.state.owed <= HZ / 1000 + 1);
    }

    #[test]
    fn square_wave() {
        let mut b = Bench::new();
        b.program(0, 6, 5);
        let outs: Vec<_> = (0..10)
            .map(|n| {
                b.to(n);
                b.out(0)
            })
            .collect();
        // (N + 1) / 2 high, (N - 1) / 2 low.
        assert_eq!(outs, [true, true, true, false, false, true, true, true, false, false]);
        b.program(1, 6, 8);
        b.to(12);
        assert!(matches!(b.count(1), 4 | 2 | 6 | 8));
    }

    #[test]
    fn one_shot_modes() {
        let mut b = Bench::new();
        b.program(0, 0, 100);
        assert!(!b.out(0));
        b.to(99);
        assert_eq!((b.rises(), b.count(0)), (0, 1));
        b.to(100);
        assert_eq!((b.rises(), b.out(0)), (1, true));
        b.to(102);
        assert_eq!(b.count(0), 0xfffe, "it goes on counting");
        assert_eq!(b.pit.deadline(), None);
        // Mode 4: one tick low.
        b.program(0, 8, 50);
        assert!(b.out(0));
        b.to(152);
        assert!(!b.out(0));
        b.to(153);
        assert_eq!((b.rises(), b.out(0)), (1, true));
    }

    #[test]
    fn gate_and_port_b() {
        let mut b = Bench::new();
        // Mode 0 of counter 2 counts only while the gate is high.
        b.program(2, 0, 1000);
        b.to(500);
        assert_eq!(b.count(2), 1000);
        b.pit.write(PORT_B, 0, 1, 1);
        b.to(800);
        b.pit.write(PORT_B, 0, 1, 0);
        b.to(2000);
        assert_eq!(b.count(2), 700);
        b.pit.write(PORT_B, 0, 1, 0xf1);
        b.to(2699);
        assert_eq!(b.pit.read(PORT_B, 0, 1) & 0x2f, 1);
        b.to(2700);
        assert_eq!(b.pit.read(PORT_B, 0, 1) & 0x2f, 0x21);
        // Mode 1: the gate's edge triggers, again and again.
        b.program(2, 2, 10);
        b.pit.write(PORT_B, 0, 1, 0);
        assert!(b.out(2));
        b.pit.write(PORT_B, 0, 1, 1);
        assert!(!b.out(2));
        b.to(2705);
        b.pit.write(PORT_B, 0, 1, 0);
        b.pit.write(PORT_B, 0, 1, 1);
        b.to(2714);
        assert!(!b.out(2));
        b.to(2715);
        assert!(b.out(2));
        let first = b.pit.read(PORT_B, 0, 1) & 0x10;
        b.clock.advance(15_085);
        assert_ne!(b.pit.read(PORT_B, 0, 1) & 0x10, first);
    }

    #[test]
    fn bcd_latches_and_read_back() {
        let mut b = Bench::new();
        b.program(0, 5, 0x1234);
        b.to(235);
        assert_eq!(b.count(0), 0x0999);
        // Count and status latched at once: the status is read first.
        b.pit.write(0, 3, 1, 0xc2);
        b.to(500);
        let bytes = [0; 3].map(|_: u8| b.pit.read(0, 0, 1));
        assert_eq!(bytes, [0xb5, 0x99, 0x09]);
        b.pit.write(0, 3, 1, 0x14);
        b.pit.write(0, 3, 1, 0xe2);
        assert_eq!(b.pit.read(0, 0, 1), 0xd4, "null count until one is written");
        b.pit.write(0, 0, 1, 0);
        b.to(750);
        b.pit.write(0, 3, 1, 0);
        assert_eq!(b.pit.read(0, 0, 1), 6, "256 to go through 0x10000: low byte only");
    }

    #[test]
    fn edges_are_never_a_storm() {
        let mut b = Bench::new();
        b.program(0, 4, 2);
        let mut ticks = 0;
        while b.clock.now() < 1_000_000 {
            let at = b.pit.deadline().unwrap();
            b.clock.set(at);
            b.pit.tick(at);
            ticks += 1;
        }
        // A millisecond is 1193 clocks.
        assert!((49..=51).contains(&ticks), "{ticks}");
        assert_eq!(b.rises(), ticks);
    }

    #[test]
    fn new_count_waits_for_the_period() {
        let mut b = Bench::new();
        b.program(0, 4, 1000);
        b.to(300);
        b.pit.write(0, 0, 1, 100);
        b.pit.write(0, 0, 1, 0);
        b.to(990);
        assert_eq!(b.count(0), 10);
        b.to(1050);
        assert_eq!((b.count(0), b.rises()), (50, 1));
    }
}
