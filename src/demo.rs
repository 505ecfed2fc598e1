//! `tulk demo`: embedded guest programs of every guest and the PC's boot image, and what the engine did to run them.

use anyhow::Context;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Guest, its program.
const PROGRAMS: &[(&str, &[u8])] = &[
    ("64-bit ARM", include_bytes!("demo/aarch64.elf")),
    ("x86-64", include_bytes!("demo/x86_64.elf")),
    ("i386", include_bytes!("demo/i386.elf")),
];

/// Boots the PC's demonstration and shows what it prints behind the firmware's lines.
fn pc(own: &Path) -> anyhow::Result<()> {
    println!("== a PC, booted from a disk image by SeaBIOS ==");
    if let Err(error) = crate::system::find_firmware() {
        println!("-- left out: {error:#}\n");
        return Ok(());
    }
    let start = Instant::now();
    let output = Command::new(own)
        .args(["system", "-display", "none", "-serial", "stdio", "-nic", "none"])
        .stdin(std::process::Stdio::null())
        .output()
        .context("cannot start tulk")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "the PC's demonstration failed: {errors}");
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let begin = text.find("16 bits:").context("the PC's demonstration printed nothing")?;
    print!("{}", &text[begin..]);
    println!("-- {:.2} s from power-on to power-off\n", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs each program in a tulk of its own and shows its output and statistics.
pub fn demo() -> anyhow::Result<ExitCode> {
    let own = std::env::current_exe().context("cannot find tulk's own program")?;
    for (guest, program) in PROGRAMS {
        let mut file = tempfile::Builder::new().prefix("tulk-demo-").tempfile()?;
        file.write_all(program)?;
        let path = file.into_temp_path();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        println!("== {guest} program, {} bytes ==", program.len());
        let start = Instant::now();
        let output = Command::new(&own)
            .args(["run", "--stats=json"])
            .arg(&path)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::inherit())
            .output()
            .context("cannot start tulk")?;
        let seconds = start.elapsed().as_secs_f64();
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "the demo program failed: {errors}");
        let stats = errors.lines().last().unwrap_or_default();
        let number = |key: &str| -> f64 {
            let at = stats.find(&format!("\"{key}\":")).map(|i| &stats[i + key.len() + 3..]);
            let text = at.map(|t| t.trim_start().split([',', '}']).next().unwrap_or_default());
            text.and_then(|t| t.trim().parse().ok()).unwrap_or(0.0)
        };
        println!(
            "-- {seconds:.2} s, {} blocks lifted, {} regions compiled\n",
            number("blocks_lifted"),
            number("regions_compiled"),
        );
    }
    pc(&own)?;
    println!("Run your own: tulk run [-L SYSROOT] PROGRAM [ARGS], tulk system [OPTIONS] [DISK]");
    Ok(ExitCode::SUCCESS)
}
