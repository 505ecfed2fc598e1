//! Guest time: the host's monotonic clock without the time during which the machine was stopped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tulk_hw::Clock;

/// Starts at 0, stopped.
pub struct MachineClock {
    origin: Instant,
    /// Host nanoseconds at which guest time would have been 0.
    zero: AtomicU64,
    /// Guest time while stopped; [`RUNNING`] else.
    stopped: AtomicU64,
}

const RUNNING: u64 = u64::MAX;

impl Default for MachineClock {
    fn default() -> MachineClock {
        let zero = AtomicU64::new(0);
        MachineClock { origin: Instant::now(), zero, stopped: AtomicU64::new(0) }
    }
}

impl MachineClock {
    fn host(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// To be called with no processor running, by one thread.
    pub fn stop(&self) {
        let now = self.now();
        self.stopped.store(now, Ordering::SeqCst);
    }

    /// To be called by the thread that stops it.
    pub fn start(&self) {
        let stopped = self.stopped.load(Ordering::SeqCst);
        if stopped != RUNNING {
            self.zero.store(self.host() - stopped, Ordering::SeqCst);
            self.stopped.store(RUNNING, Ordering::SeqCst);
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) != RUNNING
    }

    /// How long it is until guest time `at`; `None` while stopped.
    pub fn until(&self, at: u64) -> Option<std::time::Duration> {
        (!self.is_stopped()).then(|| std::time::Duration::from_nanos(at.saturating_sub(self.now())))
    }
}

impl Clock for MachineClock {
    #[inline]
    fn now(&self) -> u64 {
        match self.stopped.load(Ordering::SeqCst) {
            RUNNING => self.host().saturating_sub(self.zero.load(Ordering::SeqCst)),
            stopped => stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn stands_still_while_stopped() {
        let clock = MachineClock::default();
        assert_eq!(clock.now(), 0);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(clock.now(), 0);
        assert_eq!(clock.until(10), None);
        clock.start();
        std::thread::sleep(Duration::from_millis(2));
        clock.stop();
        let stopped = clock.now();
        assert!(stopped >= 2_000_000);
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(clock.now(), stopped);
        clock.start();
        assert!(clock.now() >= stopped && clock.now() < stopped + 25_000_000);
    }
}
