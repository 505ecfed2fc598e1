//! `fuzz TARGET [FILE...]`: runs a target on files, or on standard input.
#![forbid(unsafe_code)]

use std::io::Read;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(target) = args.next().and_then(|name| tulk_fuzz::target(&name)) else {
        let names: Vec<_> = tulk_fuzz::TARGETS.iter().map(|t| t.name).collect();
        eprintln!("usage: fuzz {} [FILE...]", names.join("|"));
        return ExitCode::from(2);
    };
    let files: Vec<String> = args.collect();
    let mut inputs = Vec::new();
    for file in &files {
        match std::fs::read(file) {
            Ok(bytes) => inputs.push(bytes),
            Err(e) => {
                eprintln!("fuzz: {file}: {e}");
                return ExitCode::from(2);
            }
        }
    }
    if files.is_empty() {
        let mut bytes = Vec::new();
        if let Err(e) = std::io::stdin().read_to_end(&mut bytes) {
            eprintln!("fuzz: standard input: {e}");
            return ExitCode::from(2);
        }
        inputs.push(bytes);
    }
    for input in &inputs {
        (target.run)(input);
    }
    ExitCode::SUCCESS
}
