//! The monitor: commands in QEMU's spelling about a machine that runs.
//!
//! | module | commands |
//! |---|---|
//! | `info`, `registers`, `paging` | `info ...` |
//! | `memory`, `expression` | `x`, `xp`, `print` and the like |
//! | `media` | `eject`, `change` |

mod expression;
mod info;
mod media;
mod memory;
mod paging;
mod registers;

use super::machine::Machine;
use parking_lot::Mutex;
use std::fs::File;
use std::io::BufWriter;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tulk_devices::input::Key;
use tulk_pc::firmware::BootDevice;
use tulk_ui::{CharBackend, CharSink};

/// What scripts wait for.
const PROMPT: &str = "(qemu) ";

/// The answer, whose lines end with `\n`; or what is wrong, as one line without an end.
type Run = fn(&Machine, &[&str]) -> Result<String, String>;

/// A command: names, arguments, what it does.
pub struct Command(&'static [&'static str], &'static str, &'static str, Run);

const COMMANDS: &[Command] = &[
    Command(&["boot_set"], "DRIVES", "boot order from the next reset on, as -boot", boot_set),
    Command(
        &["change"],
        "DEVICE FILE [FORMAT [read-only|read-write]]",
        "another medium in a CD or floppy drive",
        media::change,
    ),
    Command(&["cont", "c"], "", "let the machine go on", |m, _| {
        m.cont().map(|()| String::new()).map_err(str::to_string)
    }),
    Command(&["cpu"], "CPU", "the processor that other commands are about", cpu),
    Command(&["eject"], "[-f] DEVICE", "take a medium out; -f: even if it is locked", media::eject),
    Command(&["gva2gpa"], "ADDRESS", "the physical address of a virtual one", memory::gva2gpa),
    Command(&["help", "?"], "[COMMAND]", "the commands, or one", |_, words| Ok(help(words))),
    Command(&["i"], "/FORMAT PORT", "read an I/O port", memory::port_in),
    Command(&["info"], "WHAT", "about the machine; `help info` lists what", |m, words| match words
        .split_first()
    {
        None => Ok(list(info::INFO, "info ")),
        Some((what, rest)) => match find(info::INFO, what) {
            Some(command) => (command.3)(m, rest),
            None => Err(format!("unknown command: 'info {what}' (`help info` lists them)")),
        },
    }),
    Command(&["memsave"], "ADDRESS SIZE FILE", "write virtual memory to a file", memory::memsave),
    Command(&["mouse_button"], "STATE", "1 left, 2 middle, 4 right", mouse_button),
    Command(&["mouse_move"], "DX DY [DZ]", "move the mouse", mouse_move),
    Command(&["nmi"], "", "press the NMI button", |m, _| {
        m.pc.nmi();
        Ok(String::new())
    }),
    Command(&["o"], "/FORMAT PORT VALUE", "write an I/O port", memory::port_out),
    Command(
        &["pmemsave"],
        "ADDRESS SIZE FILE",
        "write physical memory to a file",
        memory::pmemsave,
    ),
    Command(&["print", "p"], "/FORMAT EXPRESSION", "compute, as p/x $rsp+8", memory::print),
    Command(&["quit", "q"], "", "end the emulator", |m, _| {
        m.quit(0);
        Ok(String::new())
    }),
    Command(&["screendump"], "FILE", "the screen as a PNG file", screendump),
    Command(&["sendkey"], "KEYS [MS]", "press keys together, as ctrl-alt-f1", sendkey),
    Command(&["stop", "s"], "", "stop the machine", |m, _| {
        m.stop("paused");
        Ok(String::new())
    }),
    Command(&["system_powerdown"], "", "press the power button", |m, _| {
        match m.pc.power_button() {
            true => Ok(String::new()),
            false => Err("the guest does not listen to the power button".into()),
        }
    }),
    Command(&["system_reset"], "", "press the reset button", |m, _| {
        m.reset();
        Ok(String::new())
    }),
    Command(
        &["x"],
        "/FORMAT ADDRESS",
        "virtual memory: count, x d u o c or i (instructions), size b h w g; as x/10i $pc",
        memory::x,
    ),
    Command(&["xp"], "/FORMAT ADDRESS", "physical memory, as xp/16xb 0x7c00", memory::xp),
];

fn find<'a>(table: &'a [Command], name: &str) -> Option<&'a Command> {
    table.iter().find(|command| command.0.contains(&name))
}

fn list(table: &[Command], prefix: &str) -> String {
    let line = |c: &Command| {
        let front = format!("{prefix}{} {}", c.0.join("|"), c.1);
        format!("{} -- {}\n", front.trim_end(), c.2)
    };
    table.iter().map(line).collect()
}

fn help(words: &[&str]) -> String {
    match words {
        [] => list(COMMANDS, ""),
        ["info"] => list(info::INFO, "info "),
        [name, ..] => {
            let one = find(COMMANDS, name).map(std::slice::from_ref);
            one.map_or_else(|| list(COMMANDS, ""), |one| list(one, ""))
        }
    }
}

/// What a line says to do, and its answer.
pub fn execute(machine: &Machine, line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let Some(first) = words.first().copied() else { return String::new() };
    // `x/4xw` is `x /4xw`.
    if let Some(at) = first.find('/').filter(|at| *at > 0) {
        words[0] = &first[at..];
        words.insert(0, &first[..at]);
    }
    let answer = match find(COMMANDS, words[0]) {
        Some(command) => (command.3)(machine, &words[1..]),
        None => Err(format!("unknown command: '{}' (`help` lists those that are known)", words[0])),
    };
    answer.unwrap_or_else(|error| format!("Error: {error}\n"))
}

fn cpu(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let number = words.first().and_then(|word| word.parse().ok());
    match number.filter(|n| *n < machine.processors.count()) {
        Some(number) => {
            machine.set_monitor_cpu(number);
            Ok(String::new())
        }
        None => Err(format!("there are the processors 0 to {}", machine.processors.count() - 1)),
    }
}

fn boot_set(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let letters = words.first().copied().unwrap_or_default();
    let order: Option<Vec<BootDevice>> = letters.chars().map(BootDevice::from_letter).collect();
    match order.filter(|order| !order.is_empty()) {
        Some(order) => {
            machine.pc.set_boot_order(&order);
            Ok(String::new())
        }
        None => Err(format!("'{letters}': a, c, d and n are drives")),
    }
}

fn screendump(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let file = match words {
        [file] | [file, "-f", "png"] | ["-f", "png", file] => file.trim_matches('"'),
        _ => return Err("screendump FILE [-f png]".into()),
    };
    let Some(display) = &machine.pc.peripherals().display else {
        return Err("the machine has no display".into());
    };
    let (frame, font) = display.picture();
    let font =
        tulk_ui::png::Font { height: font.height, glyphs: &font.glyphs, colours: font.colours };
    // A display that is off is black.
    let frame = match frame {
        tulk_ui::Frame::Blank => {
            tulk_ui::Frame::Pixels { width: 640, height: 400, pixels: vec![0; 640 * 400] }
        }
        other => other,
    };
    let out = File::create(file).map_err(|error| format!("{file}: {error}"))?;
    tulk_ui::png::write_png(&frame, font, BufWriter::new(out))
        .map_err(|e| format!("{file}: {e}"))?;
    Ok(String::new())
}

/// How long keys are held down unless the command says.
const HOLD: u64 = 100;

fn sendkey(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let (Some(keys), hold) = (words.first(), words.get(1).map_or(Ok(HOLD), |ms| ms.parse())) else {
        return Err("sendkey KEYS [MS]".into());
    };
    let keys = Key::combination(keys).map_err(|name| format!("unknown key: '{name}'"))?;
    let hold: u64 = hold.map_err(|_| "a time in milliseconds is wanted".to_string())?;
    let Some(keyboard) = machine.pc.peripherals().keyboard.clone() else {
        return Err("the machine has no keyboard".into());
    };
    keys.iter().for_each(|key| keyboard.lock().key(*key, true));
    let release = move || {
        std::thread::sleep(Duration::from_millis(hold));
        keys.iter().rev().for_each(|key| keyboard.lock().key(*key, false));
    };
    let thread = std::thread::Builder::new().name("sendkey".into());
    thread.spawn(release).map_err(|error| error.to_string())?;
    Ok(String::new())
}

fn mouse_move(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let numbers: Result<Vec<i32>, _> = words.iter().map(|word| word.parse()).collect();
    let (dx, dy, dz) = match numbers.as_deref() {
        Ok([dx, dy]) => (*dx, *dy, 0),
        Ok([dx, dy, dz]) => (*dx, *dy, *dz),
        _ => return Err("mouse_move DX DY [DZ]".into()),
    };
    if let Some(mouse) = &machine.pc.peripherals().keyboard {
        mouse.lock().mouse_move(dx, dy, dz);
    }
    Ok(String::new())
}

fn mouse_button(machine: &Machine, words: &[&str]) -> Result<String, String> {
    let state: u8 = match words {
        [word] => word.parse().map_err(|_| format!("'{word}' is not a number"))?,
        _ => return Err("mouse_button STATE".into()),
    };
    // The device has the right button before the middle one.
    let buttons = state & 1 | state >> 1 & 2 | state << 1 & 4;
    if let Some(mouse) = &machine.pc.peripherals().keyboard {
        mouse.lock().mouse_buttons(buttons);
    }
    Ok(String::new())
}

/// Lines that the arrow keys bring back.
const HISTORY: usize = 100;
/// Longest line.
const LONGEST_LINE: usize = 4096;

/// The line that is typed.
#[derive(Default)]
struct Editor {
    line: String,
    history: Vec<String>,
    /// Which of them is shown; its length for none.
    at: usize,
    /// How much of the sequence ESC [ has come.
    escape: u8,
}

/// What a key press leads to.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Echo(String),
    Line(String),
}

impl Editor {
    fn take(&mut self, byte: u8) -> Typed {
        let escape = std::mem::take(&mut self.escape);
        let printable = (b' '..=b'~').contains(&byte);
        match (escape, byte) {
            (1, b'[' | b'O') => self.escape = 2,
            (2, b'A' | b'B') => return Typed::Echo(self.recall(byte == b'A')),
            // Other keys: parameters, then the letter.
            (2, b'0'..=b'9' | b';') => self.escape = 2,
            (2, _) => {}
            (_, 0x1b) => self.escape = 1,
            (_, b'\r' | b'\n') => return Typed::Line(self.end()),
            (_, 0x08 | 0x7f) if self.line.pop().is_some() => {
                return Typed::Echo("\x08 \x08".into());
            }
            // Ctrl-U, Ctrl-C.
            (_, 0x15 | 0x03) => {
                let back = "\x08 \x08".repeat(self.line.len());
                self.line.clear();
                return Typed::Echo(back);
            }
            _ if printable && self.line.len() < LONGEST_LINE => {
                self.line.push(byte as char);
                return Typed::Echo((byte as char).into());
            }
            _ => {}
        }
        Typed::Echo(String::new())
    }

    fn end(&mut self) -> String {
        let line = std::mem::take(&mut self.line);
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
        }
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
        self.at = self.history.len();
        line
    }

    fn recall(&mut self, older: bool) -> String {
        self.at = match older {
            true => self.at.saturating_sub(1),
            false => (self.at + 1).min(self.history.len()),
        };
        let new = self.history.get(self.at).cloned().unwrap_or_default();
        let old = std::mem::replace(&mut self.line, new);
        "\x08 \x08".repeat(old.len()) + &self.line
    }
}

/// A monitor on a backend: collects lines and answers them.
pub struct Monitor {
    machine: Weak<Machine>,
    backend: Arc<dyn CharBackend>,
    editor: Mutex<Editor>,
    /// It says what it is: once, or to each peer.
    greets: bool,
}

impl Monitor {
    pub fn start(machine: &Arc<Machine>, backend: Arc<dyn CharBackend>, greet: bool) {
        let monitor = Monitor {
            machine: Arc::downgrade(machine),
            backend: backend.clone(),
            editor: Mutex::default(),
            greets: greet,
        };
        if !backend.has_peers() {
            monitor.opened();
        }
        backend.connect(Arc::new(monitor));
    }

    fn say(&self, text: &str) {
        self.backend.write(text.replace('\n', "\r\n").as_bytes());
    }
}

impl CharSink for Monitor {
    fn opened(&self) {
        *self.editor.lock() = Editor::default();
        if self.greets {
            let version = env!("CARGO_PKG_VERSION");
            self.say(&format!("tulk {version} monitor, 'help' lists commands\n{PROMPT}"));
        }
    }
    fn receive(&self, bytes: &[u8]) -> usize {
        for &byte in bytes {
            let typed = self.editor.lock().take(byte);
            match typed {
                Typed::Echo(text) => self.backend.write(text.as_bytes()),
                Typed::Line(line) => {
                    self.say("\n");
                    if let Some(machine) = self.machine.upgrade() {
                        self.say(&(execute(&machine, &line) + PROMPT));
                    }
                }
            }
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_edited_and_come_back() {
        let mut editor = Editor::default();
        let mut lines = Vec::new();
        let keys = b"inf\x08fo\r\x1b[A x\n\x1b[A\x1b[A\x1b[B\n\x1b[3~garbage\x15stop\r";
        for byte in keys {
            if let Typed::Line(line) = editor.take(*byte) {
                lines.push(line);
            }
        }
        assert_eq!(lines, ["info", "info x", "info x", "stop"]);
    }

    #[test]
    fn names_are_unique_and_explained() {
        for table in [COMMANDS, info::INFO] {
            for command in table {
                for name in command.0 {
                    assert_eq!(table.iter().filter(|c| c.0.contains(name)).count(), 1, "{name}");
                }
                assert!(!command.2.is_empty(), "{}", command.0[0]);
            }
        }
    }
}
