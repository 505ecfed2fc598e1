//! What errors of the host lead to (`werror=`, `rerror=`): the guest is told, or the machine waits until somebody has
//! made room, and the access is tried again.
//!
//! The wait is the device's: an access that shall wait ends with [`Waiting`], which a device keeps as work that is not
//! done ([`is_waiting`]) until the machine goes on. Nobody blocks, so that whoever looks at the stopped machine is not in
//! anybody's way.

use crate::Disk;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an error leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnError {
    /// The guest gets an I/O error.
    Report,
    /// The machine is stopped and tries again when it goes on.
    Pause,
    /// The same for a full disk; other errors are reported.
    PauseIfFull,
    /// The guest is told that all is well.
    Ignore,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// For writes, flushes and discards.
    pub write: OnError,
    pub read: OnError,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { write: OnError::PauseIfFull, read: OnError::Report }
    }
}

/// An access that is to be tried again when the machine goes on.
#[derive(Debug, thiserror::Error)]
#[error("waits for the host: {0}")]
pub struct Waiting(io::Error);

/// Whether an access shall be tried again when the machine goes on.
pub fn is_waiting(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Waiting>())
}

/// What an error led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Reported,
    Waits,
    Ignored,
}

type Told = Box<dyn Fn(&str, &io::Error, Outcome) + Send + Sync>;

/// A disk with a policy.
pub struct Guarded {
    inner: Arc<dyn Disk>,
    policy: Policy,
    told: Told,
    /// An error was told that did not end yet: accesses that follow may fail in the same way, quietly.
    failing: AtomicBool,
}

impl Guarded {
    /// `told` gets what failed (`write`) when the disk begins to fail, and each time that an access waits. It is called
    /// by devices, in the middle of their work.
    pub fn new(
        inner: Arc<dyn Disk>,
        policy: Policy,
        told: impl Fn(&str, &io::Error, Outcome) + Send + Sync + 'static,
    ) -> Guarded {
        Guarded { inner, policy, told: Box::new(told), failing: AtomicBool::new(false) }
    }

    /// Passes a result on as the policy says.
    fn judge(&self, what: &str, policy: OnError, result: io::Result<()>) -> io::Result<()> {
        let error = match result {
            Ok(()) => {
                if self.failing.load(Ordering::Relaxed) {
                    self.failing.store(false, Ordering::Relaxed);
                }
                return Ok(());
            }
            // The guest's own mistakes: beyond the end, or writing what is read-only.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Err(error);
            }
            Err(error) => error,
        };
        let outcome = match policy {
            OnError::Pause => Outcome::Waits,
            OnError::PauseIfFull if is_full(&error) => Outcome::Waits,
            OnError::Report | OnError::PauseIfFull => Outcome::Reported,
            OnError::Ignore => Outcome::Ignored,
        };
        if !self.failing.swap(true, Ordering::Relaxed) || outcome == Outcome::Waits {
            (self.told)(what, &error, outcome);
        }
        match outcome {
            Outcome::Reported => Err(error),
            Outcome::Waits => Err(io::Error::new(error.kind(), Waiting(error))),
            Outcome::Ignored => Ok(()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Disk for Guarded {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn read_only(&self) -> bool {
        self.inner.read_only()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.judge("read", self.policy.read, self.inner.read_at(offset, out))
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.judge("write", self.policy.write, self.inner.write_at(offset, data))
    }
    fn flush(&self) -> io::Result<()> {
        self.judge("flush", self.policy.write, self.inner.flush())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.judge("discard", self.policy.write, self.inner.discard(offset, len))
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.judge("write", self.policy.write, self.inner.write_zeroes(offset, len))
    }
    fn description(&self) -> Vec<String> {
        self.inner.description()
    }
}

/// A disk that fails when it is told to: for tests of devices and of policies.
pub struct FailingDisk {
    inner: Arc<dyn Disk>,
    /// The error of all writes and flushes, and of all reads, while set.
    pub writes: parking_lot::Mutex<Option<io::ErrorKind>>,
    pub reads: parking_lot::Mutex<Option<io::ErrorKind>>,
}

impl FailingDisk {
    pub fn new(inner: Arc<dyn Disk>) -> FailingDisk {
        FailingDisk { inner, writes: Default::default(), reads: Default::default() }
    }
}

fn fail(error: &parking_lot::Mutex<Option<io::ErrorKind>>) -> io::Result<()> {
    error.lock().map_or(Ok(()), |kind| Err(kind.into()))
}

impl Disk for FailingDisk {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn read_only(&self) -> bool {
        self.inner.read_only()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        fail(&self.reads)?;
        self.inner.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        fail(&self.writes)?;
        self.inner.write_at(offset, data)
    }
    fn flush(&self) -> io::Result<()> {
        fail(&self.writes)?;
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;
    use parking_lot::Mutex;

    #[test]
    fn policies() {
        use OnError::*;
        let full = io::ErrorKind::StorageFull;
        let broken = io::ErrorKind::Other;
        for (policy, kind, error, waits, outcome) in [
            (Report, full, true, false, Outcome::Reported),
            (Report, broken, true, false, Outcome::Reported),
            (Pause, broken, true, true, Outcome::Waits),
            (PauseIfFull, full, true, true, Outcome::Waits),
            (PauseIfFull, broken, true, false, Outcome::Reported),
            (Ignore, full, false, false, Outcome::Ignored),
        ] {
            let failing =
                Arc::new(FailingDisk::new(Arc::new(MemoryDisk::new(vec![0; 512], false))));
            let told = Arc::new(Mutex::new(Vec::new()));
            let log = told.clone();
            let policies = Policy { write: policy, read: Report };
            let disk = Guarded::new(failing.clone(), policies, move |what, _, outcome| {
                log.lock().push((what.to_string(), outcome));
            });
            *failing.writes.lock() = Some(kind);
            let result = disk.write_at(0, &[1; 512]);
            assert_eq!(result.is_err(), error, "{policy:?} {kind:?}");
            assert_eq!(result.is_err_and(|e| is_waiting(&e)), waits, "{policy:?} {kind:?}");
            assert_eq!(*told.lock(), [("write".to_string(), outcome)]);
            *failing.writes.lock() = None;
            disk.write_at(0, &[1; 512]).unwrap();
            let mut out = [0; 512];
            disk.read_at(0, &mut out).unwrap();
            assert_eq!(out, [1; 512]);
        }
    }

    #[test]
    fn the_guests_mistakes_are_its_own() {
        let policy = Policy { write: OnError::Pause, read: OnError::Pause };
        let base = Arc::new(MemoryDisk::new(vec![0; 512], true));
        let disk = Guarded::new(base, policy, |_, _, _| panic!("told"));
        assert!(!is_waiting(&disk.write_at(0, &[1; 512]).unwrap_err()));
        assert!(!is_waiting(&disk.read_at(512, &mut [1; 512]).unwrap_err()));
    }
}
