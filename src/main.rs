//! The `tulk` command: the only place that talks to the user.
#![forbid(unsafe_code)]

mod demo;
mod img;
mod log;
mod qemu_names;
mod run;
mod system;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs programs and whole systems made for another processor.
#[derive(Parser)]
#[command(name = "tulk", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a Linux program built for another processor.
    Run(Box<run::RunArgs>),
    /// Run the built-in demonstration programs of every guest.
    Demo,
    /// Run a PC: `tulk system [options] [DISK]`; `tulk system -help` lists the options.
    System,
    /// Make, describe, convert and check disk images.
    Img(img::ImgArgs),
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // QEMU's spelling of options is not clap's.
    if arguments.get(1).is_some_and(|a| a == "system") {
        return system::run("tulk system", &arguments[2..]);
    }
    if let Some(name) = arguments.first().and_then(|program| qemu_names::system_of(program)) {
        return system::run(name, &arguments[1..]);
    }
    let cli = match qemu_names::translate(&arguments) {
        Ok(Some(translated)) => Cli::parse_from(translated),
        Ok(None) => Cli::parse_from(arguments),
        Err(message) => {
            eprintln!("tulk: {message}");
            return ExitCode::from(2);
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Demo => demo::demo(),
        Command::System => unreachable!("taken before"),
        Command::Img(args) => img::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tulk: {error:#}");
        ExitCode::from(1)
    })
}
