//! Lines of the trace. A call is one line, written when it returns, so that processes and threads that share a log do not
//! cut each other's lines; a call that sleeps is shown by a watching thread as `<unfinished ...>` first.

use crate::host::{self, signal};
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A call under way.
struct Flight {
    tid: u64,
    name: &'static str,
    since: Instant,
    /// The line so far.
    text: String,
    /// It stands in the log.
    shown: bool,
    log: i32,
}

static FLIGHTS: Mutex<Vec<Flight>> = Mutex::new(Vec::new());
/// This process has a watching thread (a `vfork` child is watched by its parent's).
static WATCHED: AtomicBool = AtomicBool::new(false);

/// How long a call may take before it is shown.
const PATIENCE: Duration = Duration::from_millis(50);

/// Held over `fork`, so that the child finds the list free.
pub fn before_fork() -> MutexGuard<'static, impl Sized> {
    FLIGHTS.lock()
}

/// A forked child has only the thread that forked, and no call under way.
pub fn forked() {
    WATCHED.store(false, Ordering::Relaxed);
    FLIGHTS.lock().clear();
}

/// A call begins.
pub fn begin(log: i32, tid: u64, name: &'static str, text: String) {
    let mut flights = FLIGHTS.lock();
    flights.retain(|f| f.tid != tid);
    flights.push(Flight { tid, name, since: Instant::now(), text, shown: false, log });
    drop(flights);
    if !WATCHED.swap(true, Ordering::Relaxed) {
        let old = signal::set_mask(!0);
        let _ = std::thread::Builder::new().stack_size(128 << 10).spawn(watch);
        signal::set_mask(old);
    }
}

/// The call of thread `tid` goes on with `rest`, which ends its line.
pub fn end(log: i32, tid: u64, rest: &str) {
    let mut flights = FLIGHTS.lock();
    let Some(at) = flights.iter().position(|f| f.tid == tid) else { return };
    let flight = flights.swap_remove(at);
    drop(flights);
    let text = match flight.shown {
        true => format!("{tid} <... {} resumed>{rest}\n", flight.name),
        false => format!("{}{rest}\n", flight.text),
    };
    host::write_log(log, text.as_bytes());
}

/// Shows the call of thread `tid` though it has not returned.
pub fn show(tid: u64) {
    if let Some(flight) = FLIGHTS.lock().iter_mut().find(|f| f.tid == tid) {
        flight.show();
    }
}

impl Flight {
    fn show(&mut self) {
        if !std::mem::replace(&mut self.shown, true) {
            host::write_log(self.log, format!("{} <unfinished ...>\n", self.text).as_bytes());
        }
    }
}

fn watch() {
    loop {
        std::thread::sleep(PATIENCE / 2);
        for flight in FLIGHTS.lock().iter_mut().filter(|f| f.since.elapsed() > PATIENCE) {
            flight.show();
        }
    }
}
