//! The terminal's modes: raw while the guest uses it, as it was afterwards, however the process ends.
//!
//! [`TerminalGuard::raw`] changes the modes and its drop restores them. They are also restored by a panic, by the
//! signals that end a process (SIGHUP, SIGINT, SIGQUIT, SIGTERM), and by [`restore_terminal`] for ways out that drop
//! nothing. Only SIGKILL and the like leave a raw terminal behind. After SIGCONT the raw mode is set anew, because a
//! shell has changed it in between.

use crate::Error;
use parking_lot::Mutex;
use rustix::termios::{OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::sync::Once;

struct Saved {
    before: Termios,
    raw: Termios,
    /// Written to the terminal when it is given back: leaves the alternate screen and the like.
    farewell: &'static str,
}

static SAVED: Mutex<Option<Saved>> = Mutex::new(None);
type SignalHandler = Box<dyn Fn(i32) + Send + Sync>;
static ON_FATAL_SIGNAL: Mutex<Option<SignalHandler>> = Mutex::new(None);

/// What is done on a signal that ends the process, instead of ending it at once: power off cleanly. The modes are
/// restored before. Only while a [`TerminalGuard`] was made are signals watched.
pub fn on_fatal_signal(handler: impl Fn(i32) + Send + Sync + 'static) {
    *ON_FATAL_SIGNAL.lock() = Some(Box::new(handler));
}

/// Gives the terminal back in the state in which it was found. Does nothing the second time.
pub fn restore_terminal() {
    let Some(saved) = SAVED.lock().take() else { return };
    if !saved.farewell.is_empty() {
        let mut out = std::io::stdout().lock();
        // A terminal that has gone away needs no farewell.
        let _ = out.write_all(saved.farewell.as_bytes()).and_then(|()| out.flush());
    }
    let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &saved.before);
}

/// The terminal in raw mode.
#[derive(Debug)]
pub struct TerminalGuard(());

impl TerminalGuard {
    /// Sets the terminal on standard input to raw mode: no echo, no lines, output untouched. With `signals` Ctrl-C and
    /// its like still make signals. `None`: standard input is no terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn raw(signals: bool, farewell: &'static str) -> Result<Option<TerminalGuard>, Error> {
        use rustix::termios::{ControlModes, InputModes, LocalModes};
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else { return Ok(None) };
        let mut raw = before.clone();
        raw.input_modes -= InputModes::IGNBRK
            | InputModes::BRKINT
            | InputModes::PARMRK
            | InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON;
        // Lines of other messages still end well, so output processing (ONLCR) stays.
        raw.local_modes -=
            LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN;
        raw.local_modes.set(LocalModes::ISIG, signals);
        raw.control_modes -= ControlModes::CSIZE | ControlModes::PARENB;
        raw.control_modes |= ControlModes::CS8;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        watch()?;
        // Known before it is changed: a signal in between restores too much, never too little.
        *SAVED.lock() = Some(Saved { before, raw: raw.clone(), farewell });
        tcsetattr(stdin, OptionalActions::Now, &raw).map_err(|e| {
            *SAVED.lock() = None;
            Error::io("setting the terminal's mode", e)
        })?;
        Ok(Some(TerminalGuard(())))
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// Starts, once, the thread that waits for signals, and hooks panics.
fn watch() -> Result<(), Error> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore_terminal();
            previous(info);
        }));
        let ignored = ignored_signals();
        let watched = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCONT]
            .into_iter()
            .filter(|signal| ignored & (1 << (signal - 1)) == 0);
        result = Signals::new(watched).map_err(|e| Error::io("watching signals", e)).and_then(
            |signals| {
                std::thread::Builder::new()
                    .name("signals".into())
                    .spawn(move || serve(signals))
                    .map(drop)
                    .map_err(|e| Error::io("starting a thread", e))
            },
        );
    });
    result
}

fn serve(mut signals: Signals) {
    for signal in signals.forever() {
        if signal == SIGCONT {
            if let Some(saved) = &*SAVED.lock() {
                let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &saved.raw);
            }
            continue;
        }
        restore_terminal();
        match &*ON_FATAL_SIGNAL.lock() {
            Some(handler) => handler(signal),
            None => drop(signal_hook::low_level::emulate_default_handler(signal)),
        }
    }
}

/// The signals that our parent wants ignored (`nohup`), as a mask with bit 0 for signal 1: proc(5), SigIgn.
fn ignored_signals() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}
