//! The timer thread: calls devices at their deadlines.
//!
//! After each access to a device the board tells what its deadline is now ([`Timers::notice`]). The thread is woken only
//! by deadlines earlier than the one that it waits for, and then asks all devices; so an access costs one comparison.
//! Deadlines that moved away wake it once for nothing.

use crate::clock::MachineClock;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tulk_hw::{Clock, Device};

pub type SharedDevice = Arc<Mutex<dyn Device>>;

const NEVER: u64 = u64::MAX;

pub struct Timers {
    clock: Arc<MachineClock>,
    devices: Mutex<Vec<SharedDevice>>,
    /// What the thread waits for, in guest time.
    next: AtomicU64,
    /// Set when the thread shall look again.
    signal: Mutex<bool>,
    wake: Condvar,
}

impl Timers {
    pub fn new(clock: Arc<MachineClock>) -> Arc<Timers> {
        Arc::new(Timers {
            clock,
            devices: Mutex::default(),
            next: AtomicU64::new(NEVER),
            signal: Mutex::new(false),
            wake: Condvar::new(),
        })
    }

    pub fn add(&self, device: SharedDevice) {
        self.devices.lock().push(device);
        self.look();
    }

    /// A device has this deadline now.
    #[inline]
    pub fn notice(&self, deadline: Option<u64>) {
        if let Some(deadline) = deadline
            && deadline < self.next.load(Ordering::SeqCst)
        {
            self.next.fetch_min(deadline, Ordering::SeqCst);
            self.look();
        }
    }

    /// Has the thread ask all devices: the clock started or stopped, devices were reset.
    #[cold]
    pub fn look(&self) {
        *self.signal.lock() = true;
        self.wake.notify_one();
    }

    /// Starts the thread. It ends when the machine is gone.
    ///
    /// # Errors
    /// The host has no thread for us.
    pub fn spawn(self: &Arc<Timers>) -> std::io::Result<()> {
        let timers = Arc::downgrade(self);
        std::thread::Builder::new().name("timers".into()).spawn(move || thread(&timers))?;
        Ok(())
    }

    /// Calls the devices whose time has come; returns the earliest deadline that is left.
    fn serve(&self) -> u64 {
        // Before the devices are asked: what changes while that goes on counts on top.
        self.next.store(NEVER, Ordering::SeqCst);
        if self.clock.is_stopped() {
            return NEVER;
        }
        let devices = self.devices.lock().clone();
        let mut earliest = NEVER;
        for device in &devices {
            let mut device = device.lock();
            if let Some(deadline) = device.deadline() {
                let now = self.clock.now();
                if deadline <= now {
                    device.tick(now);
                }
            }
            earliest = earliest.min(device.deadline().unwrap_or(NEVER));
        }
        self.next.fetch_min(earliest, Ordering::SeqCst).min(earliest)
    }
}

/// A device whose deadline stays in the past is asked again at this distance.
const SHORTEST: Duration = Duration::from_micros(20);
/// How often the thread looks whether the machine is still there.
const LONGEST: Duration = Duration::from_secs(3);

fn thread(timers: &Weak<Timers>) {
    while let Some(timers) = timers.upgrade() {
        let next = timers.serve();
        let wait = match next {
            NEVER => LONGEST,
            at => timers.clock.until(at).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST),
        };
        let mut signal = timers.signal.lock();
        if !*signal {
            timers.wake.wait_for(&mut signal, wait);
        }
        *signal = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tulk_hw::{Snapshot, SnapshotError};

    #[derive(Default)]
    struct Alarm {
        at: Option<u64>,
        rang: Vec<u64>,
    }

    impl Device for Alarm {
        fn name(&self) -> &'static str {
            "alarm"
        }
        fn reset(&mut self) {}
        fn read(&mut self, _: u8, _: u64, _: u8) -> u64 {
            0
        }
        fn write(&mut self, _: u8, _: u64, _: u8, _: u64) {}
        fn deadline(&self) -> Option<u64> {
            self.at
        }
        fn tick(&mut self, now: u64) {
            self.rang.push(now);
            self.at = self.at.map(|at| at + 2_000_000).filter(|_| self.rang.len() < 3);
        }
        fn save(&self) -> Snapshot {
            Snapshot::Null
        }
        fn load(&mut self, _: &Snapshot) -> Result<(), SnapshotError> {
            Ok(())
        }
    }

    #[test]
    fn deadlines_are_met_in_guest_time() {
        let clock = Arc::new(MachineClock::default());
        let timers = Timers::new(clock.clone());
        let alarm = Arc::new(Mutex::new(Alarm::default()));
        timers.add(alarm.clone());
        timers.spawn().unwrap();
        alarm.lock().at = Some(5_000_000);
        timers.notice(Some(5_000_000));
        std::thread::sleep(Duration::from_millis(20));
        assert!(alarm.lock().rang.is_empty(), "the clock does not run");
        clock.start();
        timers.look();
        let start = Instant::now();
        while alarm.lock().rang.len() < 3 && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let rang = alarm.lock().rang.clone();
        assert_eq!(rang.len(), 3);
        assert!(rang[0] >= 5_000_000 && rang[1] >= 7_000_000 && rang[2] >= 9_000_000, "{rang:?}");
    }
}
