//! Messages of `tulk system` to its user, on standard error: `-msg` says what stands in front of them.
//!
//! While the guest's screen is in the terminal they wait until the terminal is given back.

use super::settings::MessageStyle;
use parking_lot::Mutex;
use std::io::IsTerminal;

struct Front {
    program: String,
    guest: Option<String>,
    style: MessageStyle,
    /// Messages that wait, if any shall.
    held: Option<Vec<String>>,
}

static FRONT: Mutex<Front> = Mutex::new(Front {
    program: String::new(),
    guest: None,
    style: MessageStyle { time: false, guest: false },
    held: None,
});

/// Sets what stands in front: the program's name always.
pub fn begin(program: &str) {
    FRONT.lock().program = program.to_string();
}

pub fn set_style(style: MessageStyle, guest: Option<&str>) {
    let mut front = FRONT.lock();
    front.style = style;
    front.guest = guest.map(str::to_string);
}

/// Messages wait from now on, if they would go to the terminal.
pub fn hold() {
    if std::io::stderr().is_terminal() {
        FRONT.lock().held.get_or_insert_default();
    }
}

/// Prints what waited.
pub fn release() {
    for line in FRONT.lock().held.take().into_iter().flatten() {
        eprintln!("{line}");
    }
}

/// Shows a line to the user.
pub fn say(text: &str) {
    let mut front = FRONT.lock();
    let mut line = String::new();
    if front.style.time {
        line += &stamp(jiff::Timestamp::now());
        line.push(' ');
    }
    if let Some(guest) = front.guest.as_ref().filter(|_| front.style.guest) {
        line += guest;
        line.push(' ');
    }
    line += &format!("{}: {text}", front.program);
    match &mut front.held {
        Some(held) => held.push(line),
        None => eprintln!("{line}"),
    }
}

/// ISO 8601 in UTC, with microseconds.
fn stamp(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        let at = |seconds, nanos| stamp(jiff::Timestamp::new(seconds, nanos).unwrap());
        assert_eq!(at(0, 5_999), "1970-01-01T00:00:00.000005Z");
        assert_eq!(at(951_782_401, 250_000_000), "2000-02-29T00:00:01.250000Z");
    }
}
