//! A display's text screen in the terminal: `-display curses`.
//!
//! Keys go to the guest. Ctrl-A is the way out, as with `-nographic`: Ctrl-A x ends the machine, Ctrl-A Ctrl-A is a
//! Ctrl-A for the guest. The screen is looked at 30 times a second, less often when it stands still, and only rows that
//! have changed are written. Graphics modes show their size.

mod keys;
mod screen;

use crate::terminal::TerminalGuard;
use crate::worker::Worker;
use crate::{Display, Error, MuxCommand};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use keys::Stroke;
use screen::Screen;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const REFRESH: Duration = Duration::from_millis(33);
const REFRESH_STILL: Duration = Duration::from_millis(100);
/// Looks without a change after which the screen stands still.
const STILL: u32 = 60;

/// To the alternate screen, and back from it with colours and cursor as usual.
const HELLO: &str = "\x1b[?1049h\x1b[2J";
const FAREWELL: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// The display in the terminal. Its drop gives the terminal back.
pub struct Curses {
    stop: Arc<AtomicBool>,
    // In the order of their ends: the terminal is given back when nobody draws any more.
    _worker: Worker,
    _guard: TerminalGuard,
}

impl Curses {
    /// Takes the terminal. `key` gets names of keys (`a`, `ret`, `shift`) and whether they go down.
    ///
    /// # Errors
    /// Standard input is no terminal, or it refuses.
    pub fn start(
        display: Arc<dyn Display>,
        key: impl Fn(&str, bool) + Send + 'static,
        command: impl Fn(MuxCommand) + Send + 'static,
    ) -> Result<Curses, Error> {
        let _guard = TerminalGuard::raw(false, FAREWELL)?.ok_or(Error::NoTerminal)?;
        let mut out = std::io::stdout();
        out.write_all(HELLO.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("the terminal", e))?;
        let stop = Arc::<AtomicBool>::default();
        let worker = Worker::start("curses", {
            let stop = stop.clone();
            move || {
                if let Err(error) = run(&*display, &stop, key, command) {
                    tracing::error!("the terminal has gone: {error}");
                }
            }
        });
        let _worker = worker.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Curses { stop, _worker, _guard })
    }
}

impl Drop for Curses {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn run(
    display: &dyn Display,
    stop: &AtomicBool,
    key: impl Fn(&str, bool),
    command: impl Fn(MuxCommand),
) -> std::io::Result<()> {
    let size = |(columns, rows): (u16, u16)| (usize::from(columns), usize::from(rows));
    let mut screen = Screen::new(size(crossterm::terminal::size()?));
    let (mut still, mut escaped) = (0, false);
    let mut next = Instant::now();
    let mut bytes = Vec::new();
    while !stop.load(Ordering::Acquire) {
        if crossterm::event::poll(next.saturating_duration_since(Instant::now()))? {
            match crossterm::event::read()? {
                Event::Key(event) if event.kind != KeyEventKind::Release => {
                    if let Some(event) = escape(&mut escaped, event, &command)
                        && let Some(stroke) = Stroke::of(&event)
                    {
                        stroke.send(&key);
                    }
                    still = 0;
                }
                Event::Resize(columns, rows) => screen.resize(size((columns, rows))),
                _ => {}
            }
            continue;
        }
        bytes.clear();
        if screen.draw(&display.frame(), &mut bytes) {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()?;
            still = 0;
        }
        still += 1;
        next = Instant::now() + if still > STILL { REFRESH_STILL } else { REFRESH };
    }
    Ok(())
}

/// Takes Ctrl-A and its commands out. What is left is for the guest.
fn escape(escaped: &mut bool, event: KeyEvent, command: &impl Fn(MuxCommand)) -> Option<KeyEvent> {
    let is_escape =
        event.code == KeyCode::Char('a') && event.modifiers.contains(KeyModifiers::CONTROL);
    if std::mem::replace(escaped, false) {
        match event.code {
            KeyCode::Char('x') => command(MuxCommand::Quit),
            KeyCode::Char('s') => command(MuxCommand::Sync),
            _ if is_escape => return Some(event),
            _ => {}
        }
        None
    } else if is_escape {
        *escaped = true;
        None
    } else {
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_is_the_way_out() {
        let typed = |text: &str| {
            let commands = std::cell::RefCell::new(Vec::new());
            let (mut escaped, mut guest) = (false, String::new());
            for c in text.chars() {
                let (code, modifiers) = match c {
                    '\x01' => (KeyCode::Char('a'), KeyModifiers::CONTROL),
                    c => (KeyCode::Char(c), KeyModifiers::NONE),
                };
                let event = KeyEvent::new(code, modifiers);
                let command = |c| commands.borrow_mut().push(c);
                if escape(&mut escaped, event, &command).is_some() {
                    guest.push(c);
                }
            }
            (guest, commands.into_inner())
        };
        assert_eq!(typed("ax"), ("ax".into(), vec![]));
        assert_eq!(typed("a\x01xb"), ("ab".into(), vec![MuxCommand::Quit]));
        assert_eq!(typed("\x01\x01x\x01s"), ("\x01x".into(), vec![MuxCommand::Sync]));
    }
}
