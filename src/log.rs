//! What `-d` shows and where it goes.

use anyhow::bail;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use tulk_exec::{LogItems, LogSink};

/// What `-d help` prints.
pub const HELP: &str = "\
in_asm  guest assembly of each block when it is translated
ir      intermediate representation as lifted
ir_opt  intermediate representation as it is run and compiled
out_asm host assembly of each compiled region
exec    each block at each execution (slow)
cpu     registers at each system call and signal; with exec also in front of each block
int     traps and signals; of a PC interrupts and exceptions with registers
unimp   what the guest asks for and tulk does not have
page    the memory map at start
cpu_reset  what the guest asks of the machine: reset, power off
port    accesses to I/O ports
mmio    accesses to device memory
guest_errors  what guests do to devices and must not
irq     events that processors take
strace  system calls
";

/// Items of `-d`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Items {
    pub engine: LogItems,
    pub strace: bool,
    targets: u32,
}

/// Items that are `tracing` targets of the crates.
const TARGETS: [&str; 9] =
    ["cpu", "int", "unimp", "page", "cpu_reset", "port", "mmio", "irq", "guest_errors"];
/// Items of QEMU's that are accepted and mean nothing here.
const IGNORED: [&str; 7] = ["nochain", "op", "op_opt", "op_ind", "mmu", "pcall", "fpu"];

impl Items {
    /// # Errors
    /// Names the first unknown item.
    pub fn parse(words: &[String]) -> anyhow::Result<Items> {
        let mut items = Items::default();
        for word in words.iter().filter(|w| !w.is_empty()) {
            match word.as_str() {
                "in_asm" => items.engine.in_asm = true,
                "ir" => items.engine.ir = true,
                "ir_opt" => items.engine.ir_opt = true,
                "out_asm" => items.engine.out_asm = true,
                "exec" => items.engine.exec = true,
                "strace" => items.strace = true,
                other => match TARGETS.iter().position(|t| *t == other) {
                    Some(n) => items.targets |= 1 << n,
                    None if IGNORED.contains(&other) => {}
                    None => bail!("-d {other}: unknown item; `-d help` lists them"),
                },
            }
        }
        items.engine.registers = items.engine.exec && items.targets & 1 != 0;
        Ok(items)
    }
}

/// The log file, or standard error.
pub struct Sink {
    file: Option<OwnedFd>,
}

impl Sink {
    pub fn fd(&self) -> i32 {
        self.file.as_ref().map_or(2, |f| f.as_raw_fd())
    }
}

impl LogSink for Sink {
    fn log(&self, text: &str) {
        tulk_linux_user::host::write_log(self.fd(), text.as_bytes());
    }
}

/// Opens the log (`%d` in the name becomes the process id) and connects the crates' messages to it.
pub fn open(path: Option<&Path>, items: &Items) -> anyhow::Result<Arc<Sink>> {
    open_with(path, items, None)
}

/// The same; `warn` gets the crates' warnings and errors that are no log items.
pub fn open_with(
    path: Option<&Path>,
    items: &Items,
    warn: Option<fn(&str)>,
) -> anyhow::Result<Arc<Sink>> {
    let file = match path {
        None => None,
        Some(path) => {
            let name = path.to_string_lossy().replace("%d", &std::process::id().to_string());
            Some(File::options().create(true).append(true).open(name)?.into())
        }
    };
    let sink = Arc::new(Sink { file });
    let warnings = warn.map(|warn| Warnings(warn).with_filter(LevelFilter::WARN));
    if items.targets != 0 || warnings.is_some() {
        let shown = TARGETS.iter().enumerate().filter(|(n, _)| items.targets & 1 << n != 0);
        let filter = Targets::new().with_targets(shown.map(|(_, t)| (*t, LevelFilter::TRACE)));
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .without_time()
            .with_level(false)
            .with_ansi(false)
            .with_writer(move || LineWriter(writer.clone()))
            .with_filter(filter);
        tracing_subscriber::registry().with(layer).with(warnings).init();
    }
    Ok(sink)
}

/// Passes messages on that are for the user.
struct Warnings(fn(&str));

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if TARGETS.contains(&event.metadata().target()) {
            return;
        }
        let mut text = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| match field
            .name()
        {
            "message" => text.insert_str(0, &format!("{value:?}")),
            name => text += &format!(" ({name}: {value:?})"),
        });
        (self.0)(&text);
    }
}

struct LineWriter(Arc<Sink>);

impl std::io::Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        tulk_linux_user::host::write_log(self.0.fd(), bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
