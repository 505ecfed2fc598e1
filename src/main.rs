//! The `tulk` command: the only place that talks to the user.
#![forbid(unsafe_code)]

mod demo;
mod log;
mod qemu_names;
mod run;

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
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
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
    };
    result.unwrap_or_else(|error| {
        eprintln!("tulk: {error:#}");
        ExitCode::from(1)
    })
}
