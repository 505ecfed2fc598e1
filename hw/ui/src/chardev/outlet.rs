//! Bytes on their way out to something that must get all of them: [`Outlet`].
//!
//! A thread of its own writes, so that a slow disk or terminal does not hold the guest up. Up to [`CAPACITY`] bytes
//! wait; a guest that is further ahead waits, because nothing may be lost here. Only while somebody is [`Impatient`] it
//! does not, and a little more is kept.

use crate::worker::Worker;
use parking_lot::{Condvar, Mutex};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Bytes that wait for the host.
pub(super) const CAPACITY: usize = 1 << 20;
/// How long [`Outlet::flush`] waits.
const FLUSH: Duration = Duration::from_secs(5);

/// How often a guest that waits looks whether it is wanted elsewhere.
const LOOK: Duration = Duration::from_millis(20);

/// How many are [`Impatient`].
static WANTED: AtomicU32 = AtomicU32::new(0);

/// As long as it lives no processor waits for a host that does not take its output: it is wanted elsewhere.
#[must_use]
pub struct Impatient(());

impl Impatient {
    #[expect(clippy::new_without_default)]
    pub fn new() -> Impatient {
        WANTED.fetch_add(1, Ordering::SeqCst);
        Impatient(())
    }
}

impl Drop for Impatient {
    fn drop(&mut self) {
        WANTED.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct State {
    queue: Vec<u8>,
    /// The thread is writing what it took from the queue.
    writing: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A writer with its queue and thread. Its drop waits until all is written.
pub(super) struct Outlet {
    shared: Arc<Shared>,
    _worker: Worker,
}

impl Outlet {
    /// `name` is for messages.
    pub fn new(writer: impl Write + Send + 'static, name: String) -> std::io::Result<Outlet> {
        let shared = Arc::<Shared>::default();
        let _worker = Worker::start("chardev out", {
            let shared = shared.clone();
            move || run(&shared, writer, &name)
        })?;
        Ok(Outlet { shared, _worker })
    }

    pub fn write(&self, mut bytes: &[u8]) {
        let mut state = self.shared.state.lock();
        while !bytes.is_empty() {
            let mut room = CAPACITY.saturating_sub(state.queue.len());
            while room == 0 {
                if WANTED.load(Ordering::SeqCst) > 0 {
                    room = bytes.len();
                    break;
                }
                self.shared.changed.wait_for(&mut state, LOOK);
                room = CAPACITY.saturating_sub(state.queue.len());
            }
            let (now, later) = bytes.split_at(bytes.len().min(room));
            state.queue.extend_from_slice(now);
            bytes = later;
            self.shared.changed.notify_all();
        }
    }

    pub fn flush(&self) {
        let mut state = self.shared.state.lock();
        let idle = |state: &mut State| state.writing || !state.queue.is_empty();
        self.shared.changed.wait_while_for(&mut state, idle, FLUSH);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

fn run(shared: &Shared, mut writer: impl Write, name: &str) {
    let mut taken = Vec::new();
    let mut reported = false;
    loop {
        {
            let mut state = shared.state.lock();
            state.writing = false;
            shared.changed.notify_all();
            while state.queue.is_empty() {
                if state.closed {
                    return;
                }
                shared.changed.wait(&mut state);
            }
            std::mem::swap(&mut state.queue, &mut taken);
            state.writing = true;
            shared.changed.notify_all();
        }
        match writer.write_all(&taken).and_then(|()| writer.flush()) {
            Ok(()) => reported = false,
            // A full disk or a closed pipe: said once, what cannot be written is lost, the next bytes are tried again.
            Err(error) if !reported => {
                tracing::error!("writing to {name}: {error}; output is lost");
                reported = true;
            }
            Err(_) => {}
        }
        taken.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Takes bytes when it is told to.
    struct Gate(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // A closed channel opens the gate for good.
            let _ = self.0.recv();
            let count = bytes.len().min(100_000);
            self.1.lock().extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_host_gets_every_byte_in_order() {
        let (open, gate) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let outlet = Arc::new(Outlet::new(Gate(gate, written.clone()), "gate".into()).unwrap());
        let all: Vec<u8> = (0..3 * CAPACITY).map(|n| (n / 7) as u8).collect();
        let guest = std::thread::spawn({
            let (outlet, all) = (outlet.clone(), all.clone());
            move || all.chunks(977).for_each(|part| outlet.write(part))
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!guest.is_finished(), "the queue is bounded");
        assert!(outlet.shared.state.lock().queue.len() <= CAPACITY);
        drop(open);
        guest.join().unwrap();
        outlet.flush();
        assert!(*written.lock() == all);
    }

    #[test]
    fn the_end_waits_for_the_rest() {
        let (open, gate) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let outlet = Outlet::new(Gate(gate, written.clone()), "gate".into()).unwrap();
        outlet.write(b"last words");
        drop(open);
        drop(outlet);
        assert_eq!(*written.lock(), b"last words");
    }
}
