use super::*;
use tulk_hw::{ManualClock, check_device};

const SVR: u64 = 0xf0;

struct Bench {
    apics: Arc<Apics>,
    clock: Arc<ManualClock>,
    kicks: Arc<Mutex<Vec<u32>>>,
}

impl Bench {
    /// `n` processors with software-enabled APICs.
    fn new(n: u32) -> Bench {
        let clock = ManualClock::new();
        let kicks = Arc::new(Mutex::new(vec![]));
        let log = kicks.clone();
        let apics = Apics::new(n, clock.clone(), 2_000_000_000, move |cpu| log.lock().push(cpu));
        for cpu in 0..n {
            apics.mmio_write(cpu, SVR, 4, 0x1ff);
            apics.mmio_write(cpu, 0xd0, 4, 1 << (24 + cpu % 8));
        }
        Bench { apics, clock, kicks }
    }
    fn set(&self, cpu: u32, offset: u64, value: u64) {
        self.apics.mmio_write(cpu, offset, 4, value);
    }
    fn get(&self, cpu: u32, offset: u64) -> u64 {
        self.apics.mmio_read(cpu, offset, 4)
    }
    fn icr(&self, cpu: u32, high: u64, low: u64) {
        self.set(cpu, 0x310, high);
        self.set(cpu, 0x300, low);
    }
    /// The processors that have something now; it is taken.
    fn takers(&self) -> Vec<(u32, CpuEvent)> {
        let all = 0..self.apics.processors();
        all.filter_map(|cpu| Some((cpu, self.apics.take_event(cpu, true)?))).collect()
    }
    fn fixed(&self, vector: u8, level: bool) {
        let message = ApicMessage {
            destination: 0,
            logical: false,
            mode: DeliveryMode::Fixed,
            vector,
            level,
        };
        assert!(self.apics.deliver(message));
    }
    fn run(&self, until: u64) -> Vec<u64> {
        let mut times = vec![];
        while let Some(at) = self.apics.deadline().filter(|&at| at <= until) {
            self.clock.set(at);
            self.apics.tick(at);
            if self.apics.take_event(0, true).is_some() {
                times.push(at);
                self.set(0, 0xb0, 0);
            }
        }
        self.clock.set(until);
        times
    }
}

use CpuEvent::{Init, Interrupt, Nmi, Startup};

#[test]
fn conforms() {
    check_device(&mut ApicsDevice(Bench::new(2).apics), &[0x400, 0x400], 20_000);
    let x2 = Bench::new(2);
    check_device(&mut ApicsDevice(x2.apics), &[0x1000, 0x1000, 16], 20_000);
}

#[test]
fn reset_values() {
    let apics = Apics::new(2, ManualClock::new(), 1, |_| {});
    let registers = [0x20, 0x30, 0x80, 0xd0, 0xe0, 0xf0, 0x320, 0x350, 0x360, 0x370];
    assert_eq!(
        registers.map(|r| apics.mmio_read(1, r, 4)),
        [1 << 24, 0x50014, 0, 0, 0xffff_ffff, 0xff, 0x10000, 0x10000, 0x10000, 0x10000]
    );
    assert_eq!(apics.msr_read(0, 0x1b), Some(0xfee0_0900));
    assert_eq!(apics.msr_read(1, 0x1b), Some(0xfee0_0800));
}

#[test]
fn priorities() {
    let b = Bench::new(1);
    b.fixed(0x51, false);
    b.fixed(0x52, false);
    b.fixed(0x31, false);
    assert!(!b.apics.has_event(0, false) && b.apics.has_event(0, true));
    assert_eq!(b.apics.take_event(0, true), Some(Interrupt(0x52)));
    assert_eq!(b.get(0, 0xa0), 0x50);
    assert_eq!(b.apics.take_event(0, true), None, "the same class waits");
    b.fixed(0x61, false);
    assert_eq!(b.apics.take_event(0, true), Some(Interrupt(0x61)));
    assert_eq!((b.get(0, 0x120), b.get(0, 0x130)), (1 << 0x12, 1 << 1), "ISR");
    b.set(0, 0xb0, 0);
    b.set(0, 0xb0, 0);
    assert_eq!(b.apics.take_event(0, true), Some(Interrupt(0x51)));
    b.set(0, 0xb0, 0);
    b.apics.set_task_priority(0, 3);
    assert_eq!((b.get(0, 0x80), b.get(0, 0xa0)), (0x30, 0x30));
    assert!(!b.apics.has_event(0, true));
    b.set(0, 0x80, 0x2f);
    assert_eq!(b.apics.task_priority(0), 2);
    assert_eq!(b.apics.take_event(0, true), Some(Interrupt(0x31)));
}

#[test]
fn eoi_reaches_the_ioapic_for_levels() {
    let b = Bench::new(1);
    let ended = Arc::new(Mutex::new(vec![]));
    let log = ended.clone();
    b.apics.connect_ioapic(move |vector| log.lock().push(vector));
    for (vector, level) in [(0x41, true), (0x42, false)] {
        b.fixed(vector, level);
        assert_eq!(b.get(0, 0x1a0) >> (vector & 31) & 1 != 0, level, "TMR");
        b.apics.take_event(0, true);
        b.set(0, 0xb0, 0);
    }
    assert_eq!(*ended.lock(), [0x41]);
}

#[test]
fn startup_sequence() {
    let b = Bench::new(3);
    b.kicks.lock().clear();
    b.icr(0, 0, 0xc4500);
    b.icr(0, 0, 0xc8500);
    assert_eq!(*b.kicks.lock(), [1, 2]);
    assert_eq!(b.takers(), [(1, Init), (2, Init)]);
    assert_eq!(b.get(1, SVR), 0xff, "INIT resets registers");
    assert_eq!(b.get(1, 0x20), 1 << 24, "but not the ID");
    b.icr(0, 2 << 24, 0x4699);
    assert_eq!(b.takers(), [(2, Startup(0x99))]);
}

#[test]
fn destinations() {
    let b = Bench::new(4);
    for (high, low, who) in [
        (2 << 24, 0x4040, vec![2]),
        (0xff << 24, 0x4041, vec![0, 1, 2, 3]),
        // Logical, flat.
        (0x0a << 24, 0x4842, vec![1, 3]),
        (0, 0x44043, vec![0]),
        (0, 0x84044, vec![0, 1, 2, 3]),
        (0, 0xc4045, vec![1, 2, 3]),
    ] {
        b.icr(0, high, low);
        let wanted: Vec<_> = who.iter().map(|&cpu| (cpu, Interrupt(low as u8))).collect();
        assert_eq!(b.takers(), wanted, "{high:x} {low:x}");
        who.iter().for_each(|&cpu| b.set(cpu, 0xb0, 0));
    }
    // Cluster model: clusters 1 (0, 1) and 2 (2, 3).
    for (cpu, ldr) in [0x11, 0x12, 0x21, 0x22].into_iter().enumerate() {
        b.set(cpu as u32, 0xe0, 0x0fff_ffff);
        b.set(cpu as u32, 0xd0, ldr << 24);
    }
    b.icr(0, 0x22 << 24, 0x4850);
    assert_eq!(b.takers(), [(3, Interrupt(0x50))]);
    b.icr(0, 0xf1 << 24, 0x4861);
    assert_eq!(b.takers(), [(0, Interrupt(0x61)), (2, Interrupt(0x61))]);
    // NMI is no interrupt that could be held back.
    b.icr(0, 1 << 24, 0x4400);
    assert_eq!(b.apics.take_event(1, false), Some(Nmi));
}

#[test]
fn lowest_priority() {
    let b = Bench::new(3);
    b.set(0, 0x80, 0x40);
    b.set(1, 0x80, 0x20);
    b.set(2, 0x80, 0x30);
    b.icr(0, 0x07 << 24, 0x4951);
    assert_eq!(b.takers(), [(1, Interrupt(0x51))]);
    // Now that it serves class 5, the next one is better.
    b.icr(0, 0x07 << 24, 0x4952);
    assert_eq!(b.takers(), [(2, Interrupt(0x52))]);
}

#[test]
fn messages() {
    let b = Bench::new(2);
    b.apics.message(0xfee0_1000, 0x4055);
    assert_eq!(b.takers(), [(1, Interrupt(0x55))]);
    b.apics.message(0xfee0_300c, 0x61);
    assert_eq!(b.takers().len(), 2, "logical with the hint");
    b.apics.message(0xfed0_0000, 0x61);
    assert_eq!(b.takers(), []);
}

#[test]
fn virtual_wire() {
    let b = Bench::new(2);
    // Firmware's LINT0 was masked by none of the writes so far: SVR enables it.
    b.apics.connect_pic(|| 0x08);
    b.apics.set(0, true);
    assert_eq!(b.takers(), [(0, Interrupt(0x08))]);
    assert!(b.apics.has_event(0, true), "as long as the line is up");
    b.set(0, 0x350, 0x10700);
    assert!(!b.apics.has_event(0, true));
    // LINT0 as ordinary interrupt, by edge.
    b.set(0, 0x350, 0x45);
    assert_eq!(b.takers(), []);
    b.apics.set(0, false);
    b.apics.set(0, true);
    assert_eq!(b.takers(), [(0, Interrupt(0x45))]);
    // Without the APIC the 8259 is wired to the processor.
    assert!(b.apics.msr_write(0, 0x1b, 0xfee0_0000));
    assert_eq!((b.takers(), b.apics.mmio_base(0)), (vec![(0, Interrupt(8))], None));
    b.apics.set(1, true);
    assert_eq!(b.apics.take_event(0, false), Some(Nmi));
}

#[test]
fn level_lint() {
    let b = Bench::new(1);
    b.set(0, 0x360, 0x8047);
    b.apics.set_lint(0, 1, true);
    assert_eq!(b.takers(), [(0, Interrupt(0x47))]);
    assert_eq!(b.get(0, 0x360), 0xc047, "remote IRR");
    b.set(0, 0xb0, 0);
    assert_eq!(b.takers(), [(0, Interrupt(0x47))]);
    b.apics.set_lint(0, 1, false);
    b.set(0, 0xb0, 0);
    assert_eq!((b.takers(), b.get(0, 0x360)), (vec![], 0x8047));
}

#[test]
fn timer_one_shot_and_periodic() {
    let b = Bench::new(1);
    b.set(0, 0x320, 0xef);
    b.set(0, 0x3e0, 0x0b);
    b.set(0, 0x380, 100_000);
    b.clock.set(40_000);
    assert_eq!(b.get(0, 0x390), 60_000);
    assert_eq!(b.run(1_000_000), [100_000]);
    assert_eq!(b.get(0, 0x390), 0);
    // Divided by 16.
    b.set(0, 0x3e0, 0x03);
    b.set(0, 0x320, 0x200ef);
    b.set(0, 0x380, 6_250);
    assert_eq!(b.run(1_350_000), [1_100_000, 1_200_000, 1_300_000]);
    assert_eq!(b.get(0, 0x390), 3_125);
    b.set(0, 0x320, 0x300ef);
    assert!(b.run(1_500_000).is_empty(), "masked");
    b.set(0, 0x380, 0);
    assert_eq!(b.apics.deadline(), None);
    // A period too short for the host: it stays in step, at fewer interrupts.
    b.set(0, 0x320, 0x200ef);
    b.set(0, 0x3e0, 0x0b);
    b.set(0, 0x380, 3);
    let times = b.run(1_600_000);
    assert_eq!((times.len(), times[0]), (9, 1_510_002));
}

#[test]
fn tsc_deadline() {
    let b = Bench::new(1);
    assert!(b.apics.msr_write(0, 0x6e0, 5_000));
    assert_eq!(b.apics.msr_read(0, 0x6e0), Some(0), "not in this mode");
    b.set(0, 0x320, 0x400ef);
    b.set(0, 0x380, 100);
    assert_eq!(b.apics.deadline(), None);
    b.apics.msr_write(0, 0x6e0, 5_000);
    assert_eq!(b.apics.msr_read(0, 0x6e0), Some(5_000));
    // 2 GHz.
    assert_eq!(b.run(10_000), [2_500]);
    assert_eq!(b.apics.msr_read(0, 0x6e0), Some(0));
    b.apics.msr_write(0, 0x6e0, 7);
    assert_eq!(b.takers(), [(0, Interrupt(0xef))], "in the past");
    b.apics.msr_write(0, 0x6e0, u64::MAX);
    b.apics.msr_write(0, 0x6e0, 0);
    assert_eq!(b.apics.deadline(), None);
}

#[test]
fn errors() {
    let b = Bench::new(2);
    b.set(0, 0x370, 0xfe);
    b.icr(0, 1 << 24, 0x4005);
    assert_eq!(b.get(0, 0x280), 0, "shown after a write");
    b.set(0, 0x280, 0);
    assert_eq!(b.get(0, 0x280), 1 << 5, "illegal vector sent");
    assert_eq!(b.takers(), [(0, Interrupt(0xfe))]);
    b.set(0, 0xb0, 0);
    b.fixed(3, false);
    b.get(0, 0x3a0);
    b.set(0, 0x280, 0);
    assert_eq!(b.get(0, 0x280), 1 << 6 | 1 << 7);
    b.set(0, 0x280, 0);
    assert_eq!(b.get(0, 0x280), 0);
}

#[test]
fn software_disable() {
    let b = Bench::new(2);
    b.set(0, 0x320, 0xef);
    b.set(0, SVR, 0xff);
    assert_eq!(b.get(0, 0x320), 0x100ef);
    b.set(0, 0x320, 0xef);
    assert_eq!(b.get(0, 0x320), 0x100ef, "stays masked");
    let message = ApicMessage {
        destination: 0,
        logical: false,
        mode: DeliveryMode::Fixed,
        vector: 0x40,
        level: false,
    };
    assert!(!b.apics.deliver(message));
    assert!(b.apics.deliver(ApicMessage { mode: DeliveryMode::Nmi, ..message }));
}

#[test]
fn x2apic() {
    let b = Bench::new(18);
    let apics = &b.apics;
    assert_eq!(apics.msr_read(17, 0x802), None);
    assert!(!apics.msr_write(17, 0x1b, 0xfee0_0400), "EXTD without EN");
    for cpu in 0..18 {
        let base = apics.msr_read(cpu, 0x1b).unwrap();
        assert!(apics.msr_write(cpu, 0x1b, base | 0x400));
    }
    assert!(!apics.msr_write(17, 0x1b, 0xfee0_0800), "not back to xAPIC directly");
    assert_eq!(apics.mmio_base(17), None);
    assert_eq!((apics.msr_read(17, 0x802), apics.msr_read(17, 0x80d)), (Some(17), Some(0x1_0002)));
    for (msr, value) in
        [(0x80e, 0), (0x802, 0), (0x80b, 1), (0x808, 0x100), (0x831, 0), (0x83f, 0x100)]
    {
        assert!(!apics.msr_write(0, msr, value), "{msr:x}");
    }
    for msr in [0x80e, 0x831, 0x83f, 0x80c, 0x809] {
        assert_eq!(apics.msr_read(0, msr), None, "{msr:x}");
    }
    assert!(apics.msr_write(0, 0x830, 17 << 32 | 0x4041));
    assert_eq!(apics.msr_read(0, 0x830), Some(17 << 32 | 0x4041));
    assert_eq!(b.takers(), [(17, Interrupt(0x41))]);
    // Logical: cluster 1, processors 16 and 17.
    apics.msr_write(0, 0x830, 0x1_0003 << 32 | 0x4851);
    assert_eq!(b.takers(), [(16, Interrupt(0x51)), (17, Interrupt(0x51))]);
    apics.msr_write(3, 0x83f, 0x66);
    assert_eq!(b.takers(), [(3, Interrupt(0x66))]);
    assert!(apics.msr_write(3, 0x80b, 0));
    assert_eq!(apics.msr_read(3, 0x813), Some(0));
    apics.msr_write(0, 0x830, 0xffff_ffff << 32 | 0x4400);
    assert_eq!(b.takers().len(), 18);
}

#[test]
fn snapshots_of_other_machines_are_refused() {
    let saved = Bench::new(2).apics.save();
    assert!(Bench::new(3).apics.load(&saved).is_err());
    assert!(Bench::new(2).apics.load(&saved).is_ok());
}

#[test]
fn random_msrs() {
    let b = Bench::new(3);
    let apics = &b.apics;
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let (mut accepted, mut events) = (0, 0);
    for n in 0..200_000 {
        let cpu = (next() % 3) as u32;
        let msr = [0x1b, 0x6e0, 0x800 + next() as u32 % 0x40][next() as usize % 3];
        let value = match next() % 4 {
            0 => next(),
            1 => next() & 0xfff,
            2 => 0xfee0_0000 | (next() & 3) << 10,
            _ => (next() & 3) << 32 | next() & 0xc_ffff,
        };
        accepted += u32::from(apics.msr_write(cpu, msr, value));
        apics.msr_read(cpu, msr);
        b.clock.advance(next() % 1_000_000);
        apics.tick(b.clock.now());
        if n % 4 == 0 {
            // Now and then a guest that means well.
            apics.msr_write(cpu, 0x1b, 0xfee0_0800);
            apics.msr_write(cpu, 0x1b, 0xfee0_0c00);
            apics.msr_write(cpu, 0x80f, 0x1ff);
            apics.msr_write(cpu, 0x808, 0);
            apics.msr_write(cpu, 0x80b, 0);
            apics.msr_write(cpu, 0x83f, 0x20 + next() % 0xe0);
        }
        events += u32::from(apics.take_event(cpu, true).is_some());
        let pending = {
            let apic = apics.slots[cpu as usize].apic.lock();
            apic.interrupting() || apic.urgent()
        };
        assert_eq!(apics.has_event(cpu, true), pending, "{n}");
    }
    assert!(accepted > 20_000 && events > 1_000, "{accepted} {events}");
    let saved = apics.save();
    apics.reset();
    assert!(apics.load(&saved).is_ok());
    assert_eq!(apics.save(), saved);
}
