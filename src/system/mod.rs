//! `tulk system`: a whole PC.
//!
//! | module | what |
//! |---|---|
//! | `options`, `keyval`, `settings` | the command line, in QEMU's spelling |
//! | `assemble` | opens what it names and makes the machine |
//! | `processors`, `machine` | the threads of the processors; stop, go on, reset |
//! | `chardev` | the terminal and other backends |
//! | `network` | networks and the cards on them |
//! | `monitor`, `screen` | commands about a machine that runs; pictures of its screen |

mod assemble;
mod chardev;
mod keyval;
mod machine;
mod monitor;
mod network;
mod options;
mod processors;
mod screen;
mod settings;

use crate::log;
use anyhow::Context;
use machine::{Machine, Notice};
use settings::Settings;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use tulk_exec::{Config, LogItems, LogSink};

/// The command with the arguments behind `system`, or behind a name of QEMU's.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let result = command(program, arguments);
    tulk_ui::terminal::restore_terminal();
    match result {
        Ok(status) => ExitCode::from(status as u8),
        Err(error) => {
            eprintln!("{program}: {error:#}");
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
        _ => println!("{}", assemble::DRIVERS.join("\n")),
    }
}

/// Ends by signals like a key press does.
fn watch_signals(notices: mpsc::Sender<Notice>) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let again = notices.clone();
    tulk_ui::terminal::on_fatal_signal(move |signal| {
        let _ = again.send(Notice::Signal(signal));
    });
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let _ = notices.send(Notice::Signal(signal));
        }
    })?;
    Ok(())
}

fn emulate(settings: &Settings) -> anyhow::Result<i32> {
    let items = log::Items::parse(&settings.log_items)?;
    let sink = log::open(settings.log_file.as_deref(), &items).context("cannot open the log")?;
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
    if let Some(path) = &settings.pidfile {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !settings.frozen {
        machine.cont();
    }
    let status = serve(&machine, settings, &receive);
    machine.stop("shutdown");
    if settings.stats {
        eprint!("{}", machine.engine.stats());
    }
    machine.finish();
    machine.processors.quit();
    if let Some(path) = &settings.pidfile {
        let _ = std::fs::remove_file(path);
    }
    Ok(status)
}

/// Does what is asked until something ends the machine; gives the exit status.
fn serve(machine: &Machine, settings: &Settings, notices: &mpsc::Receiver<Notice>) -> i32 {
    while let Ok(notice) = notices.recv() {
        match notice {
            Notice::Quit(status) => return status,
            Notice::Sync => machine.sync(),
            Notice::Signal(signal) => {
                eprintln!("tulk system: terminating on signal {signal}");
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
