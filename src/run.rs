//! `tulk run`: one Linux program of another processor.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tulk_exec::{Config, LogItems, LogSink, Tier};
use tulk_gdb::listen::Spec;
use tulk_linux_user::{AtExit, Options};

use crate::log;

/// Options of `tulk run`. `src/qemu_names.rs` translates QEMU's spelling into these.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tulk run ./hello-arm64\n  tulk run ./hello-i386\n  tulk run -L /usr/aarch64-linux-gnu ./dynamic-program --flag\n  \
    tulk run --strace ./program 2>trace.txt\n\nExit status: the program's own; 128 + N when signal N ended it under a shell; \
    126 when the program cannot be run, 127 when it is not found."
)]
pub struct RunArgs {
    /// Folder that holds the guest's libraries: absolute paths are looked for there first.
    #[arg(short = 'L', long, env = "QEMU_LD_PREFIX", value_name = "DIR")]
    sysroot: Option<PathBuf>,
    /// CPU model, or `help` for the list.
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// Set a variable in the program's environment (several: repeat, or separate with commas).
    #[arg(short = 'E', long = "set-env", value_name = "VAR=VALUE", value_delimiter = ',')]
    set_env: Vec<String>,
    /// Remove a variable from the program's environment.
    #[arg(short = 'U', long = "unset-env", value_name = "VAR", value_delimiter = ',')]
    unset_env: Vec<String>,
    /// The program's argv[0].
    #[arg(short = '0', long, value_name = "NAME", allow_hyphen_values = true)]
    argv0: Option<OsString>,
    /// Size of the main thread's stack in bytes (suffixes K, M, G); the resource limit's by default.
    #[arg(short = 's', long, value_name = "SIZE", value_parser = parse_size)]
    stack_size: Option<u64>,
    /// Kernel release that uname reports.
    #[arg(short = 'r', long, value_name = "RELEASE")]
    uname: Option<String>,
    /// Seed that makes the random bytes given to the program repeatable.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print every system call with its arguments and result.
    #[arg(long)]
    strace: bool,
    /// Log items, comma-separated: in_asm, ir, ir_opt, out_asm, exec, cpu, int, unimp, strace, page (`help` lists them).
    #[arg(short = 'd', long = "log", value_name = "ITEMS", value_delimiter = ',')]
    log: Vec<String>,
    /// Where the log goes instead of standard error; %d becomes the process id.
    #[arg(short = 'D', long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Execution tiers: the interpreter alone, baseline code without optimised regions, regions at first sight, or each for
    /// the part of the program that it suits.
    #[arg(long, value_enum, default_value = "mixed")]
    tier: TierArg,
    /// Executions in the interpreter after which a block gets baseline code.
    #[arg(long, value_name = "N")]
    baseline_threshold: Option<u32>,
    /// Executions of its baseline code after which an optimised region is compiled from a block.
    #[arg(long, value_name = "N")]
    threshold: Option<u32>,
    /// Limit of memory for compiled code, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    code_size: u64,
    /// Wait for gdb at PORT (on the loopback interface), HOST:PORT or unix:PATH, in which %d becomes the process id; with
    /// `,suspend=n` run at once and let it attach later. `none` for no debugger.
    #[arg(short = 'g', long, env = "QEMU_GDB", value_name = "PORT|unix:PATH[,suspend=n]", value_parser = parse_gdb)]
    gdb: Option<Debugger>,
    /// One guest instruction per translation block.
    #[arg(long)]
    one_insn_per_tb: bool,
    /// Print what the engine did when the program ends.
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "text", require_equals = true)]
    stats: Option<StatsFormat>,
    /// Write /tmp/perf-PID.map for `perf report`.
    #[arg(long)]
    perf_map: bool,
    /// Write jit-PID.dump for `perf inject`.
    #[arg(long)]
    jitdump: bool,
    /// The guest that the program must be for.
    #[arg(long, hide = true)]
    guest: Option<String>,
    /// The program and its arguments.
    #[arg(
        trailing_var_arg = true,
        required_unless_present_any = ["cpu", "log"], // their `help` needs none
        value_name = "PROGRAM [ARGS]"
    )]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum TierArg {
    Interp,
    Baseline,
    Jit,
    Mixed,
}

#[derive(Clone, Copy, ValueEnum)]
enum StatsFormat {
    Text,
    Json,
}

/// `8M`, `65536`, `1G`.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((i, 'k' | 'K')) => (&text[..i], 10),
        Some((i, 'm' | 'M')) => (&text[..i], 20),
        Some((i, 'g' | 'G')) => (&text[..i], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a size like 8M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// `--gdb none` overrides the environment.
#[derive(Clone)]
struct Debugger(Option<Spec>);

fn parse_gdb(text: &str) -> Result<Debugger, String> {
    match text {
        "none" | "" => Ok(Debugger(None)),
        _ => Spec::parse(text).map(|s| Debugger(Some(s))).map_err(|e| e.to_string()),
    }
}

/// The tulk options that a program started by `execve` inherits.
fn inherited(args: &RunArgs) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["tulk".into(), "run".into()];
    let mut option = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            words.push(name.into());
            words.push(value);
        }
    };
    let text = |s: &str| Some(OsString::from(s));
    // The program may change its folder before it starts another.
    let path = |p: &PathBuf| std::path::absolute(p).unwrap_or_else(|_| p.clone()).into_os_string();
    option("--sysroot", args.sysroot.as_ref().map(path));
    option("--cpu", args.cpu.clone().map(Into::into));
    option("--stack-size", args.stack_size.map(|n| n.to_string().into()));
    option("--uname", args.uname.clone().map(Into::into));
    option("--seed", args.seed.map(|n| n.to_string().into()));
    option("--tier", args.tier.to_possible_value().and_then(|v| text(v.get_name())));
    option("--baseline-threshold", args.baseline_threshold.map(|n| n.to_string().into()));
    option("--threshold", args.threshold.map(|n| n.to_string().into()));
    option("--code-size", Some(args.code_size.to_string().into()));
    option("--log", (!args.log.is_empty()).then(|| args.log.join(",").into()));
    option("--log-file", args.log_file.as_ref().map(path));
    for (name, on) in [
        ("--strace", args.strace),
        ("--one-insn-per-tb", args.one_insn_per_tb),
        ("--perf-map", args.perf_map),
        ("--jitdump", args.jitdump),
    ] {
        if on {
            words.push(name.into());
        }
    }
    words
}

/// The program's environment: tulk's own, changed as asked.
fn environment(args: &RunArgs) -> anyhow::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStrExt;
    let mut env: Vec<OsString> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect();
    let mut remove = |name: &str| {
        env.retain(|v| {
            v.as_bytes()
                .strip_prefix(name.as_bytes())
                .is_none_or(|rest| rest.first() != Some(&b'='))
        });
    };
    for name in &args.unset_env {
        remove(name);
    }
    for assignment in &args.set_env {
        let Some((name, _)) = assignment.split_once('=') else {
            bail!("-E {assignment}: expected VARIABLE=VALUE");
        };
        remove(name);
    }
    env.extend(args.set_env.iter().map(OsString::from));
    Ok(env)
}

/// Runs the program; returns only when it could not be started.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    if args.log.iter().any(|item| item == "help") {
        print!("{}", log::HELP);
        return Ok(ExitCode::SUCCESS);
    }
    if args.cpu.as_deref() == Some("help") {
        for guest in tulk_linux_user::abi::GUESTS {
            println!("{}: {}", guest.name(), guest.cpu_models().join(" "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.command.is_empty() {
        eprintln!("tulk: no program is named; `tulk run --help` shows how");
        return Ok(ExitCode::from(2));
    }
    let items = log::Items::parse(&args.log)?;
    let sink = log::open(args.log_file.as_deref(), &items).context("cannot open the log")?;
    let defaults = Config::for_tier(match args.tier {
        TierArg::Interp => Tier::Interp,
        TierArg::Baseline => Tier::Baseline,
        TierArg::Jit => Tier::Jit,
        TierArg::Mixed => Tier::Mixed,
    });
    let engine = Config {
        baseline_threshold: args.baseline_threshold.unwrap_or(defaults.baseline_threshold),
        threshold: args.threshold.unwrap_or(defaults.threshold),
        code_limit: (args.code_size.clamp(1, 1 << 12) as usize) << 20,
        tb_insns: if args.one_insn_per_tb { 1 } else { defaults.tb_insns },
        detailed_stats: args.stats.is_some(),
        log: (items.engine != LogItems::default()).then(|| sink.clone() as Arc<dyn LogSink>),
        log_items: items.engine,
        perf_map: args.perf_map,
        jitdump: args.jitdump.then(|| PathBuf::from(".")),
        ..defaults
    };
    let mut command = args.command.iter().cloned();
    let program = PathBuf::from(command.next().unwrap_or_default());
    let mut options = Options::new(program);
    options.args = command.collect();
    options.env = environment(&args)?;
    options.argv0 = args.argv0.clone();
    options.sysroot = args.sysroot.clone();
    options.guest = args.guest.clone();
    options.cpu = args.cpu.clone();
    options.stack_size = args.stack_size;
    options.uname_release = args.uname.clone();
    options.strace = args.strace || items.strace;
    options.log_fd = sink.fd();
    options.seed = args.seed;
    options.reexec = inherited(&args);
    options.gdb = args.gdb.and_then(|gdb| gdb.0);
    options.engine = engine;
    options.at_exit = args.stats.map(report);
    let error = tulk_linux_user::run(options);
    eprintln!("tulk: {error}");
    Ok(ExitCode::from(error.exit_code() as u8))
}

/// Prints what the engine did.
fn report(format: StatsFormat) -> AtExit {
    Arc::new(move |engine| {
        let stats = engine.stats();
        match format {
            StatsFormat::Text => eprint!("{stats}"),
            StatsFormat::Json => eprintln!("{}", stats.to_json()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("8M"), Ok(8 << 20));
        assert_eq!(parse_size("65536"), Ok(65536));
        assert!(parse_size("8Q").is_err());
        assert!(parse_size("99999999999G").is_err());
    }
}
