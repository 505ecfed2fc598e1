//! High precision event timer: "IA-PC HPET Specification" 1.0a, with a 64-bit counter at 100 MHz and three or more
//! comparators.
//!
//! Edge-triggered comparators pulse their line. Comparator values that are reached late interrupt once; periodic ones
//! go on in step. FSB interrupts (messages) are offered by all comparators.
//!
//! Not modelled: 32-bit main counters; periodic interrupts more often than each 10 µs.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tulk_hw::{Clock, Device, IrqSink, Snapshot, SnapshotError, snapshot_error};

/// Period of the main counter in femtoseconds: 10 ns.
pub const PERIOD_FS: u64 = 10_000_000;
const NS_PER_TICK: u64 = PERIOD_FS / 1_000_000;
/// Bytes of the register window, usually at 0xfed0_0000.
pub const WINDOW: u64 = 0x400;
const MOST_TIMERS: usize = 32;
/// Periodic comparators interrupt not more often than this, in ticks.
const SHORTEST_PERIOD: u64 = 10_000 / NS_PER_TICK;

const GCAP_ID: u64 = 0x000;
const GEN_CONF: u64 = 0x010;
const GINTR_STA: u64 = 0x020;
const MAIN_CNT: u64 = 0x0f0;
const TIMERS: u64 = 0x100;
const TN_CONF: u64 = 0x00;
const TN_COMPARE: u64 = 0x08;
const TN_FSB: u64 = 0x10;

const REVISION: u64 = 1;
const COUNT_SIZE_CAP: u64 = 1 << 13;
const LEG_RT_CAP: u64 = 1 << 15;
const VENDOR: u64 = 0x8086 << 16;

const ENABLE_CNF: u64 = 1 << 0;
const LEG_RT_CNF: u64 = 1 << 1;

const TN_INT_TYPE_LEVEL: u64 = 1 << 1;
const TN_INT_ENB: u64 = 1 << 2;
const TN_TYPE_PERIODIC: u64 = 1 << 3;
const TN_PER_INT_CAP: u64 = 1 << 4;
const TN_SIZE_CAP: u64 = 1 << 5;
const TN_VAL_SET: u64 = 1 << 6;
const TN_32MODE: u64 = 1 << 8;
const TN_INT_ROUTE: u64 = 0x1f << 9;
const TN_FSB_EN: u64 = 1 << 14;
const TN_FSB_CAP: u64 = 1 << 15;
const TN_WRITABLE: u64 =
    TN_INT_TYPE_LEVEL | TN_INT_ENB | TN_TYPE_PERIODIC | TN_32MODE | TN_INT_ROUTE | TN_FSB_EN;

#[derive(Clone, Serialize, Deserialize)]
struct Timer {
    conf: u64,
    compare: u64,
    /// What is added in periodic mode.
    period: u64,
    fsb: u64,
    /// VAL_SET: the next write to the comparator sets the value, not only the period.
    val_set: bool,
    /// The counter's value at which it fires next, counted without end from the counter's start.
    due: Option<u64>,
    /// The line that is held up by a level.
    held: Option<u32>,
}

#[derive(Clone, Serialize, Deserialize)]
struct State {
    conf: u64,
    status: u64,
    /// The counter's value while it stands; else its value at guest time 0, wrapping.
    counter: u64,
    timers: Vec<Timer>,
}

/// The timer block; its window is [`WINDOW`] bytes.
pub struct Hpet {
    state: State,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn IrqSink>,
    routes: u32,
    legacy: Box<dyn Fn(bool) + Send>,
}

impl Hpet {
    /// `timers`: 3 to 32 comparators. `sink` has the I/O APIC's inputs as lines and takes messages; `routes` has the
    /// bits of those inputs that comparators may use. `legacy(true)` is called when the comparators 0 and 1 take over
    /// IRQ0 (input 2 of the I/O APIC, input 0 of the 8259: line 0 of the sink) and IRQ8 from the 8254 and the RTC.
    pub fn new(
        timers: usize,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn IrqSink>,
        routes: u32,
        legacy: impl Fn(bool) + Send + 'static,
    ) -> Hpet {
        let state = Self::fresh(timers.clamp(3, MOST_TIMERS));
        Hpet { state, clock, sink, routes, legacy: Box::new(legacy) }
    }

    fn fresh(timers: usize) -> State {
        let timer = Timer {
            conf: 0,
            compare: u64::MAX,
            period: 0,
            fsb: 0,
            val_set: false,
            due: None,
            held: None,
        };
        State { conf: 0, status: 0, counter: 0, timers: vec![timer; timers] }
    }

    fn ticks(&self, ns: u64) -> u64 {
        ns / NS_PER_TICK
    }
    fn enabled(&self) -> bool {
        self.state.conf & ENABLE_CNF != 0
    }
    fn counter(&self, ns: u64) -> u64 {
        if self.enabled() {
            self.state.counter.wrapping_add(self.ticks(ns))
        } else {
            self.state.counter
        }
    }

    /// The line of a comparator.
    fn line(&self, n: usize) -> u32 {
        match n {
            0 if self.state.conf & LEG_RT_CNF != 0 => 0,
            1 if self.state.conf & LEG_RT_CNF != 0 => 8,
            _ => (self.state.timers[n].conf >> 9 & 0x1f) as u32,
        }
    }

    /// Works out when a comparator fires next, in ticks of guest time.
    fn arm(&mut self, n: usize, ns: u64) {
        let (now, counter) = (self.ticks(ns), self.counter(ns));
        let running = self.enabled();
        let timer = &mut self.state.timers[n];
        let left = if timer.conf & TN_32MODE != 0 {
            u64::from((timer.compare as u32).wrapping_sub(counter as u32))
        } else {
            timer.compare.wrapping_sub(counter)
        };
        // A value that has just been reached comes again only after a whole turn.
        let turn = if timer.conf & TN_32MODE != 0 { 1 << 32 } else { u64::MAX };
        let left = if left == 0 { turn } else { left };
        timer.due = running.then(|| now.checked_add(left)).flatten();
    }

    fn arm_all(&mut self, ns: u64) {
        for n in 0..self.state.timers.len() {
            self.arm(n, ns);
        }
    }

    fn fire(&mut self, n: usize) {
        let timer = &self.state.timers[n];
        let enabled = timer.conf & TN_INT_ENB != 0;
        if timer.conf & TN_INT_TYPE_LEVEL != 0 {
            self.state.status |= 1 << n;
            self.update_level(n);
        } else if enabled && timer.conf & TN_FSB_EN != 0 {
            self.sink.message(timer.fsb >> 32, timer.fsb as u32);
        } else if enabled {
            let line = self.line(n);
            self.sink.set(line, true);
            self.sink.set(line, false);
        }
    }

    /// Raises or drops the line of a level-triggered comparator.
    fn update_level(&mut self, n: usize) {
        let timer = &self.state.timers[n];
        let wanted = timer.conf & TN_INT_TYPE_LEVEL != 0
            && timer.conf & TN_INT_ENB != 0
            && timer.conf & TN_FSB_EN == 0
            && self.state.status >> n & 1 != 0;
        let wanted = wanted.then(|| self.line(n));
        let held = std::mem::replace(&mut self.state.timers[n].held, wanted);
        if held != wanted {
            if let Some(line) = held {
                self.sink.set(line, false);
            }
            if let Some(line) = wanted {
                self.sink.set(line, true);
            }
        }
    }

    fn advance(&mut self, ns: u64) {
        let now = self.ticks(ns);
        for n in 0..self.state.timers.len() {
            let timer = &mut self.state.timers[n];
            let Some(due) = timer.due.filter(|&due| due <= now) else { continue };
            timer.due = None;
            let narrow = timer.conf & TN_32MODE != 0;
            if timer.conf & TN_TYPE_PERIODIC != 0 && timer.period != 0 {
                let periods = (now - due + SHORTEST_PERIOD - 1) / timer.period + 1;
                let step = timer.period.wrapping_mul(periods);
                timer.compare = timer.compare.wrapping_add(step);
                if narrow {
                    timer.compare &= 0xffff_ffff;
                }
                timer.due = due.checked_add(step).map(|at| at.max(now + 1));
            } else if narrow {
                timer.due = due.checked_add(1 << 32).map(|at| at.max(now + 1));
            }
            self.fire(n);
        }
    }

    fn read_register(&self, register: u64, ns: u64) -> u64 {
        match register {
            GCAP_ID => {
                let last = self.state.timers.len() as u64 - 1;
                PERIOD_FS << 32 | VENDOR | LEG_RT_CAP | COUNT_SIZE_CAP | last << 8 | REVISION
            }
            GEN_CONF => self.state.conf,
            GINTR_STA => self.state.status,
            MAIN_CNT => self.counter(ns),
            TIMERS.. => {
                let n = ((register - TIMERS) / 0x20) as usize;
                let Some(timer) = self.state.timers.get(n) else { return 0 };
                match register & 0x1f {
                    TN_CONF => {
                        let capable = TN_PER_INT_CAP | TN_SIZE_CAP | TN_FSB_CAP;
                        timer.conf | capable | u64::from(self.routes) << 32
                    }
                    TN_COMPARE => timer.compare,
                    TN_FSB => timer.fsb,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of a register.
    fn write_register(&mut self, register: u64, value: u64, mask: u64, ns: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        match register {
            GEN_CONF => {
                let counter = self.counter(ns);
                let before = self.state.conf;
                self.state.conf = merge(before) & (ENABLE_CNF | LEG_RT_CNF);
                if (before ^ self.state.conf) & ENABLE_CNF != 0 {
                    let now = self.ticks(ns);
                    let started = self.enabled();
                    self.state.counter = if started { counter.wrapping_sub(now) } else { counter };
                    self.arm_all(ns);
                }
                if (before ^ self.state.conf) & LEG_RT_CNF != 0 {
                    (self.legacy)(self.state.conf & LEG_RT_CNF != 0);
                }
                (0..self.state.timers.len()).for_each(|n| self.update_level(n));
            }
            GINTR_STA => {
                self.state.status &= !(value & mask);
                (0..self.state.timers.len()).for_each(|n| self.update_level(n));
            }
            MAIN_CNT => {
                let now = if self.enabled() { self.ticks(ns) } else { 0 };
                self.state.counter = merge(self.counter(ns)).wrapping_sub(now);
                self.arm_all(ns);
            }
            TIMERS.. => {
                let n = ((register - TIMERS) / 0x20) as usize;
                if n < self.state.timers.len() {
                    self.write_timer(n, register & 0x1f, value, mask, ns);
                }
            }
            _ => {}
        }
    }

    fn write_timer(&mut self, n: usize, register: u64, value: u64, mask: u64, ns: u64) {
        let routes = self.routes;
        let timer = &mut self.state.timers[n];
        let merge = |old: u64| old & !mask | value & mask;
        match register {
            TN_CONF => {
                let mut conf = merge(timer.conf) & TN_WRITABLE;
                if routes >> (conf >> 9 & 0x1f) & 1 == 0 {
                    // A route that is not offered does not stick.
                    conf = conf & !TN_INT_ROUTE | timer.conf & TN_INT_ROUTE;
                }
                timer.conf = conf;
                timer.val_set = value & mask & TN_VAL_SET != 0;
                if conf & TN_32MODE != 0 {
                    timer.compare &= 0xffff_ffff;
                    timer.period &= 0xffff_ffff;
                }
                if conf & TN_INT_TYPE_LEVEL == 0 {
                    self.state.status &= !(1 << n);
                }
                self.arm(n, ns);
                self.update_level(n);
            }
            TN_COMPARE => {
                let narrow = if timer.conf & TN_32MODE != 0 { 0xffff_ffff } else { u64::MAX };
                let periodic = timer.conf & TN_TYPE_PERIODIC != 0;
                if periodic {
                    timer.period = merge(timer.period) & narrow;
                }
                if !periodic || timer.val_set {
                    timer.compare = merge(timer.compare) & narrow;
                    // The lower half of a 64-bit value may be written first.
                    timer.val_set = timer.val_set && mask == 0xffff_ffff && narrow == u64::MAX;
                }
                self.arm(n, ns);
            }
            TN_FSB => timer.fsb = merge(timer.fsb),
            _ => {}
        }
    }
}

impl Device for Hpet {
    fn name(&self) -> &'static str {
        "hpet"
    }

    fn reset(&mut self) {
        for timer in &self.state.timers {
            if let Some(line) = timer.held {
                self.sink.set(line, false);
            }
        }
        if self.state.conf & LEG_RT_CNF != 0 {
            (self.legacy)(false);
        }
        self.state = Self::fresh(self.state.timers.len());
        // Routes that work, as reset values: the first one offered.
        let route = u64::from(self.routes.trailing_zeros() & 0x1f) << 9;
        self.state.timers.iter_mut().for_each(|timer| timer.conf = route);
    }

    fn read(&mut self, _window: u8, offset: u64, bytes: u8) -> u64 {
        let ns = self.clock.now();
        self.advance(ns);
        if offset >= WINDOW {
            return 0;
        }
        self.read_register(offset & !7, ns) >> (8 * (offset & 7)) & tulk_hw::ones(bytes)
    }

    fn write(&mut self, _window: u8, offset: u64, bytes: u8, value: u64) {
        let ns = self.clock.now();
        self.advance(ns);
        if offset < WINDOW {
            let mask = tulk_hw::ones(bytes);
            let shift = 8 * (offset & 7);
            self.write_register(offset & !7, value << shift, mask << shift, ns);
        }
    }

    fn deadline(&self) -> Option<u64> {
        let useful = |timer: &&Timer| timer.conf & (TN_INT_ENB | TN_INT_TYPE_LEVEL) != 0;
        let due = self.state.timers.iter().filter(useful).filter_map(|timer| timer.due).min();
        due.map(|tick| tick.saturating_mul(NS_PER_TICK))
    }

    fn tick(&mut self, now: u64) {
        self.advance(now);
    }

    fn save(&self) -> Snapshot {
        tulk_hw::save_state(&self.state)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let state: State = tulk_hw::load_state(self.name(), snapshot)?;
        if state.timers.len() != self.state.timers.len() {
            return Err(snapshot_error(self.name(), "another number of timers"));
        }
        self.state = state;
        (self.legacy)(self.state.conf & LEG_RT_CNF != 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tulk_hw::{ManualClock, RecordedIrqs, check_device};

    struct Bench {
        hpet: Hpet,
        clock: Arc<ManualClock>,
        irqs: Arc<RecordedIrqs>,
        legacy: Arc<AtomicBool>,
    }
    impl Bench {
        fn new() -> Bench {
            let (clock, irqs) = (ManualClock::new(), RecordedIrqs::new());
            let legacy = Arc::new(AtomicBool::new(false));
            let flag = legacy.clone();
            let mut hpet = Hpet::new(3, clock.clone(), irqs.clone(), 0x00f0_0004, move |on| {
                flag.store(on, Ordering::SeqCst);
            });
            hpet.reset();
            Bench { hpet, clock, irqs, legacy }
        }
        fn set(&mut self, offset: u64, value: u64) {
            self.hpet.write(0, offset, 8, value);
        }
        fn get(&mut self, offset: u64) -> u64 {
            self.hpet.read(0, offset, 8)
        }
        /// Lines that rose, with the times.
        fn run(&mut self, until: u64) -> Vec<(u64, u32)> {
            let mut all = vec![];
            while let Some(at) = self.hpet.deadline().filter(|&at| at <= until) {
                self.clock.set(at);
                self.hpet.tick(at);
                all.extend(self.irqs.take_rises().into_iter().map(|line| (at, line)));
            }
            self.clock.set(until);
            all
        }
    }

    #[test]
    fn conforms() {
        check_device(&mut Bench::new().hpet, &[WINDOW], 20_000);
        check_device(&mut Bench::new().hpet, &[0x160], 20_000);
    }

    #[test]
    fn capabilities_and_counter() {
        let mut b = Bench::new();
        assert_eq!(b.get(0), 10_000_000 << 32 | 0x8086_a201);
        assert_eq!(b.hpet.read(0, 4, 4), 10_000_000);
        assert_eq!(b.get(0x100) >> 32, 0x00f0_0004);
        assert_eq!(b.get(0x100) & 0x8030, 0x8030);
        b.clock.set(1000);
        assert_eq!(b.get(0xf0), 0);
        b.set(0xf0, 0xffff_fff0);
        b.set(0x10, 1);
        b.clock.advance(1000);
        assert_eq!(b.get(0xf0), 0x1_0000_0054);
        assert_eq!(b.hpet.read(0, 0xf4, 4), 1);
        b.set(0x10, 0);
        b.clock.advance(1000);
        assert_eq!(b.get(0xf0), 0x1_0000_0054);
    }

    #[test]
    fn one_shot_edge_and_level() {
        let mut b = Bench::new();
        b.set(0x100, 20 << 9 | 4);
        b.set(0x108, 500);
        b.set(0x10, 1);
        assert_eq!(b.run(1_000_000), [(5000, 20)]);
        b.set(0x100, 21 << 9 | 6);
        b.set(0x108, 200_000);
        assert_eq!(b.run(3_000_000), [(2_000_000, 21)]);
        assert!(b.irqs.level(21) && b.get(0x20) == 1);
        b.set(0x20, 1);
        assert!(!b.irqs.level(21) && b.get(0x20) == 0);
        b.set(0x100, 3 << 9 | 4);
        assert_eq!(b.get(0x100) >> 9 & 0x1f, 21, "route 3 is not offered");
    }

    #[test]
    fn periodic() {
        let mut b = Bench::new();
        b.set(0x10, 1);
        b.set(0x120, 2 << 9 | 4 | 8 | 0x40);
        b.set(0x128, 10_000);
        b.set(0x128, 20_000);
        assert_eq!(b.run(600_000), [(100_000, 2), (300_000, 2), (500_000, 2)]);
        assert_eq!(b.get(0x128), 70_000);
        // Far too late: one interrupt, then in step.
        b.clock.set(2_050_000);
        b.hpet.tick(2_050_000);
        assert_eq!(b.irqs.take_rises(), [2]);
        assert_eq!(b.run(2_200_000), [(2_100_000, 2)]);
    }

    #[test]
    fn narrow_comparators_wrap() {
        let mut b = Bench::new();
        b.set(0xf0, 0xffff_ff00);
        b.set(0x100, 20 << 9 | 4 | 0x100);
        b.set(0x108, 0x1_0000_0010);
        assert_eq!(b.get(0x108), 0x10);
        b.set(0x10, 1);
        assert_eq!(b.run(1_000_000), [(2720, 20)]);
    }

    #[test]
    fn legacy_replacement_and_messages() {
        let mut b = Bench::new();
        b.set(0x10, 3);
        assert!(b.legacy.load(Ordering::SeqCst));
        b.set(0x100, 4);
        b.set(0x108, 100);
        b.set(0x120, 4);
        b.set(0x128, 200);
        b.set(0x150, 0xfee0_1000_0000_0041);
        b.set(0x140, 0x4004);
        b.set(0x148, 300);
        assert_eq!(b.run(100_000), [(1000, 0), (2000, 8)]);
        assert_eq!(b.irqs.take_messages(), [(0xfee0_1000, 0x41)]);
        b.hpet.reset();
        assert!(!b.legacy.load(Ordering::SeqCst));
    }
}
