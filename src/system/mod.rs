//! `tulk system`: a whole PC.
//!
//! | module | what |
//! |---|---|
//! | `options`, `keyval`, `settings` | the command line, in QEMU's spelling |
//! | `assemble` | opens what it names and makes the machine |
//! | `drives`, `network`, `backends`, `devices` | disks; networks; consoles; what `-device` adds |
//! | `processors`, `machine` | the threads of the processors; stop, go on, reset |
//! | `debugger` | the machine as gdb sees it |
//! | `monitor` | commands about a machine that runs |
//! | `message` | what the user is told |

mod assemble;
mod backends;
mod debugger;
mod devices;
mod drives;
mod keyval;
mod machine;
mod message;
mod monitor;
mod network;
mod options;
mod processors;
mod settings;

pub use assemble::find_firmware;

use crate::log;
use anyhow::Context;
use machine::{Machine, Notice};
use message::say;
use settings::Settings;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use tulk_exec::{Config, LogItems, LogSink};
use tulk_ui::MuxCommand;
use tulk_ui::curses::Curses;

/// The command with the arguments behind `system`, or behind a name of QEMU's.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    message::begin(program);
    let result = command(program, arguments);
    tulk_ui::terminal::restore_terminal();
    message::release();
    match result {
        Ok(status) => ExitCode::from(status as u8),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(1)
        }
    }
}

fn command(program: &str, arguments: &[OsString]) -> anyhow::Result<i32> {
    match options::parse(arguments)? {
        options::Request::Help => print!("{}", options::help(program)),
        options::Request::Version => println!("tulk system version {}", env!("CARGO_PKG_VERSION")),
        options::Request::List(option) => list(option),
        options::Request::Run(mut settings) => {
            settings.i386 = program == "qemu-system-i386";
            return emulate(&settings);
        }
    }
    Ok(0)
}

/// What an option may be.
fn list(option: &str) {
    match option {
        "-d" => print!("{}", log::HELP),
        "-machine" => println!("pc    Standard PC (i440FX + PIIX, 1996) (default)"),
        "-accel" => println!("tcg"),
        "-netdev" => println!("{}", options::NETWORKS.join("\n")),
        "-cpu" => println!(
            "{}",
            tulk_x86::cpu::CHIPS.iter().map(|chip| chip.name).collect::<Vec<_>>().join("\n")
        ),
        _ => println!("{}", devices::DRIVERS.join("\n")),
    }
}

/// Ends by signals like a key press does.
fn watch_signals(notices: mpsc::Sender<Notice>) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    let again = notices.clone();
    tulk_ui::terminal::on_fatal_signal(move |signal| {
        let _ = again.send(Notice::Signal(signal));
    });
    // Files beyond the limit are an error of the write, then.
    let ignored = Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, ignored)?;
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let _ = notices.send(Notice::Signal(signal));
        }
    })?;
    Ok(())
}

fn emulate(settings: &Settings) -> anyhow::Result<i32> {
    message::set_style(settings.messages, settings.name.as_deref());
    if let Some(name) = &settings.process_name {
        let text = std::ffi::CString::new(name.as_str()).context("-name process=")?;
        rustix::thread::set_name(&text).context("-name process=")?;
    }
    let items = log::Items::parse(&settings.log_items)?;
    let sink = log::open_with(settings.log_file.as_deref(), &items, Some(say as fn(&str)))
        .context("cannot open the log")?;
    let defaults = Config::for_tier(settings.tier);
    let config = Config {
        tb_insns: if settings.one_insn_per_tb { 1 } else { defaults.tb_insns },
        detailed_stats: settings.stats,
        log: (items.engine != LogItems::default()).then(|| sink.clone() as Arc<dyn LogSink>),
        log_items: items.engine,
        ..defaults
    };
    let (send, receive) = mpsc::channel();
    watch_signals(send.clone())?;
    let machine = assemble::assemble(settings, config, send)?;
    let curses = curses(&machine, settings)?;
    if let Some(path) = &settings.pidfile {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(spec) = debugger::address(settings)? {
        debugger::start(&machine, &spec)?;
    }
    if !settings.frozen {
        let _ = machine.cont();
    }
    let status = serve(&machine, settings, &receive);
    if let Some(debugger) = machine.debugger.get() {
        debugger.ended(status);
    }
    end_in_any_case(status, settings.pidfile.clone());
    machine.stop("shutdown");
    drop(curses);
    message::release();
    if settings.stats {
        eprint!("{}", machine.engine.stats());
    }
    let complete = machine.finish();
    machine.processors.quit();
    if let Some(path) = &settings.pidfile {
        let _ = std::fs::remove_file(path);
    }
    Ok(if complete { status } else { 1 })
}

/// Puts the guest's screen into the terminal, and the terminal's keys into the guest's keyboard.
fn curses(machine: &Arc<Machine>, settings: &Settings) -> anyhow::Result<Option<Curses>> {
    if settings.display != Some(settings::DisplayKind::Curses) {
        return Ok(None);
    }
    let peripherals = machine.pc.peripherals();
    let display = peripherals.display.clone().context("-display curses needs a display adapter")?;
    let keyboard = peripherals.keyboard.clone();
    let key = move |name: &str, down: bool| {
        if let (Some(keyboard), Some(key)) = (&keyboard, tulk_devices::input::Key::by_name(name)) {
            keyboard.lock().key(key, down);
        }
    };
    let notices = machine.notices.clone();
    let command = move |command: MuxCommand| {
        let _ = notices.send(command.into());
    };
    let curses = Curses::start(display, key, command).context("-display curses")?;
    message::hold();
    Ok(Some(curses))
}

/// How long the end may take: a processor may hang in a write to a console that nobody reads.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Ends the process after a while, should the orderly way not come to its end.
fn end_in_any_case(status: i32, pidfile: Option<std::path::PathBuf>) {
    // Without a thread there is only the orderly way.
    let thread = std::thread::Builder::new().name("end".into());
    let _ = thread.spawn(move || end_by_force(status, pidfile.as_deref()));
}

fn end_by_force(status: i32, pidfile: Option<&std::path::Path>) {
    std::thread::sleep(PATIENCE);
    tulk_ui::terminal::restore_terminal();
    message::release();
    say("ended by force: a device of the host does not answer");
    if let Some(path) = pidfile {
        let _ = std::fs::remove_file(path);
    }
    std::process::exit(if status == 0 { 1 } else { status });
}

/// Does what is asked until something ends the machine; gives the exit status.
fn serve(machine: &Machine, settings: &Settings, notices: &mpsc::Receiver<Notice>) -> i32 {
    while let Ok(notice) = notices.recv() {
        match notice {
            Notice::Quit(status) => return status,
            Notice::Stop(why) => machine.stop(why),
            Notice::Sync => drop(machine.sync()),
            Notice::Signal(signal) => {
                say(&format!("terminating on signal {signal}"));
                return 0;
            }
            Notice::Guest(event) => {
                if let Some(status) = machine.handle(event, settings) {
                    return status;
                }
            }
        }
    }
    0
}
