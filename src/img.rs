//! `tulk img`: disk images made, described, converted and checked, in the spelling and with the exit codes of `qemu-img`.

mod describe;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tulk_block::{
    Cache, CopyOptions, CreateOptions, Difference, Discard, Disk, Error, Format, Locking,
    OpenOptions, Preallocation, printable,
};

/// Options of `tulk img`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tulk img create -f qcow2 disk.qcow2 20G\n  tulk img create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2\n  \
    tulk img convert -p -O qcow2 disk.img disk.qcow2\n  tulk img check disk.qcow2\n\nExit status: 0, or 1 after an error. check: 2 when the image is damaged, \
    3 when it loses space only, 63 when its format has no check. compare: 1 when the images differ, 2 after an error."
)]
pub struct ImgArgs {
    #[command(subcommand)]
    command: ImgCommand,
}

#[derive(Subcommand)]
enum ImgCommand {
    /// Make a new image.
    Create(CreateArgs),
    /// Describe an image.
    Info(InfoArgs),
    /// Copy an image into a new one, of another format perhaps.
    Convert(ConvertArgs),
    /// Look for damage in an image. Nothing is repaired.
    Check(CheckArgs),
    /// Give an image another size.
    Resize(ResizeArgs),
    /// Compare what two images hold.
    Compare(CompareArgs),
    /// List the snapshots in an image.
    Snapshot(SnapshotArgs),
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
    Json,
}

#[derive(Args)]
struct CreateArgs {
    /// Format: raw or qcow2.
    #[arg(short, default_value = "raw", value_name = "FORMAT")]
    format: Format,
    /// Backing file: what is not written is read from there. Relative names are relative to the new image.
    #[arg(short, value_name = "FILE")]
    backing: Option<String>,
    /// The backing file's format.
    #[arg(short = 'F', value_name = "FORMAT")]
    backing_format: Option<Format>,
    /// Options of the format: cluster_size, refcount_bits, preallocation (off, metadata, falloc, full), backing_file, backing_fmt, compat.
    #[arg(short, value_name = "NAME=VALUE,...", value_delimiter = ',')]
    options: Vec<String>,
    /// Print nothing.
    #[arg(short)]
    quiet: bool,
    file: PathBuf,
    /// Bytes, or with a suffix K, M, G, T; the backing file's size by default.
    #[arg(value_parser = parse_size)]
    size: Option<u64>,
}

#[derive(Args)]
struct InfoArgs {
    /// Format; found out by default.
    #[arg(short, value_name = "FORMAT")]
    format: Option<Format>,
    #[arg(long, default_value = "human")]
    output: Output,
    /// All images that this one stands on, too.
    #[arg(long)]
    backing_chain: bool,
    /// Even when somebody writes to it.
    #[arg(short = 'U', long)]
    force_share: bool,
    file: PathBuf,
}

#[derive(Args)]
struct ConvertArgs {
    /// The source's format; found out by default.
    #[arg(short, value_name = "FORMAT")]
    format: Option<Format>,
    /// The new image's format.
    #[arg(short = 'O', default_value = "raw", value_name = "FORMAT")]
    output_format: Format,
    /// Compress (not supported).
    #[arg(short)]
    compress: bool,
    /// Show how far it is.
    #[arg(short)]
    progress: bool,
    /// The destination is there already and is not made anew.
    #[arg(short)]
    no_create: bool,
    /// Print nothing.
    #[arg(short)]
    quiet: bool,
    /// Options of the new image's format, as for create.
    #[arg(short, value_name = "NAME=VALUE,...", value_delimiter = ',')]
    options: Vec<String>,
    /// Zeros of this length are left out; 0 writes them all.
    #[arg(short = 'S', value_name = "SIZE", default_value = "4k", value_parser = parse_size)]
    sparse: u64,
    /// Cache mode of the destination.
    #[arg(short = 't', value_name = "CACHE", default_value = "unsafe")]
    cache: Cache,
    /// Cache mode of the source.
    #[arg(short = 'T', value_name = "CACHE", default_value = "writeback")]
    source_cache: Cache,
    /// Even when somebody writes to the source.
    #[arg(short = 'U', long)]
    force_share: bool,
    source: PathBuf,
    destination: PathBuf,
}

#[derive(Args)]
struct CheckArgs {
    /// Format; found out by default.
    #[arg(short, value_name = "FORMAT")]
    format: Option<Format>,
    #[arg(long, default_value = "human")]
    output: Output,
    /// Repair (not supported).
    #[arg(short, value_name = "WHAT")]
    repair: Option<String>,
    /// Print nothing when all is well.
    #[arg(short)]
    quiet: bool,
    /// Even when somebody writes to it.
    #[arg(short = 'U', long)]
    force_share: bool,
    file: PathBuf,
}

#[derive(Args)]
struct ResizeArgs {
    /// Format; found out by default.
    #[arg(short, value_name = "FORMAT")]
    format: Option<Format>,
    /// Allow a smaller size: what lies beyond is lost.
    #[arg(long)]
    shrink: bool,
    /// What is reserved: off, falloc, full.
    #[arg(long, default_value = "off")]
    preallocation: Preallocation,
    /// Print nothing.
    #[arg(short)]
    quiet: bool,
    file: PathBuf,
    /// The new size, or +SIZE or -SIZE.
    #[arg(allow_hyphen_values = true)]
    size: String,
}

#[derive(Args)]
struct CompareArgs {
    /// The first image's format; found out by default.
    #[arg(short, value_name = "FORMAT")]
    format: Option<Format>,
    /// The second image's format.
    #[arg(short = 'F', value_name = "FORMAT")]
    second_format: Option<Format>,
    /// Sizes must be equal too, and the places where the images have data.
    #[arg(short)]
    strict: bool,
    /// Show how far it is.
    #[arg(short)]
    progress: bool,
    /// Print nothing.
    #[arg(short)]
    quiet: bool,
    /// Even when somebody writes to them.
    #[arg(short = 'U', long)]
    force_share: bool,
    first: PathBuf,
    second: PathBuf,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("action"))]
struct SnapshotArgs {
    /// List them (the default).
    #[arg(short, group = "action")]
    list: bool,
    /// Make one (not supported).
    #[arg(short, value_name = "NAME", group = "action")]
    create: Option<String>,
    /// Go back to one (not supported).
    #[arg(short, value_name = "NAME", group = "action")]
    apply: Option<String>,
    /// Delete one (not supported).
    #[arg(short, value_name = "NAME", group = "action")]
    delete: Option<String>,
    /// Print nothing.
    #[arg(short)]
    quiet: bool,
    /// Even when somebody writes to it.
    #[arg(short = 'U', long)]
    force_share: bool,
    file: PathBuf,
}

/// Runs a sub-command.
///
/// # Errors
/// What the user is to be told; the exit code is then 1.
pub fn run(args: ImgArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ImgCommand::Create(args) => create(&args),
        ImgCommand::Info(args) => info(&args),
        ImgCommand::Convert(args) => convert(&args),
        ImgCommand::Check(args) => check(&args),
        ImgCommand::Resize(args) => resize(&args),
        ImgCommand::Compare(args) => compare(&args).or_else(|error| {
            eprintln!("tulk: {error:#}");
            Ok(ExitCode::from(2))
        }),
        ImgCommand::Snapshot(args) => snapshot(&args),
    }
}

fn locking(force_share: bool) -> Locking {
    if force_share { Locking::Off } else { Locking::Auto }
}

/// Bytes from `1.5G`: suffixes b, k, M, G, T, P, E are powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size: a number and a suffix of k, M, G, T, P, E");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "b" | "B" => 0,
        suffix if suffix.len() == 1 => {
            10 * ("KMGTPE".find(&suffix.to_uppercase()).ok_or_else(wrong)? + 1)
        }
        _ => return Err(wrong()),
    };
    if let Ok(number) = digits.parse::<u64>() {
        return number.checked_mul(1 << shift).ok_or_else(wrong);
    }
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number * (1u64 << shift) as f64;
    if bytes >= 0.0 && bytes < i64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Options in the form `name=value` of `-o`.
fn apply(options: &mut CreateOptions, list: &[String]) -> anyhow::Result<()> {
    let mut backing_file = None;
    let mut backing_format = None;
    for option in list {
        let (name, value) = option.split_once('=').unwrap_or((option, "on"));
        let size = || parse_size(value).map_err(anyhow::Error::msg);
        let qcow2 = options.format == Format::Qcow2;
        match name {
            "size" => options.size = Some(size()?),
            "preallocation" => options.preallocation = value.parse()?,
            "cluster_size" if qcow2 => options.cluster_size = size()?.try_into()?,
            "refcount_bits" if qcow2 => options.refcount_bits = size()?.try_into()?,
            "backing_file" if qcow2 => backing_file = Some(value.to_string()),
            "backing_fmt" if qcow2 => backing_format = Some(value.parse::<Format>()?),
            "compat" if qcow2 && matches!(value, "1.1" | "v3") => {}
            "compression_type" if qcow2 && value == "zlib" => {}
            "lazy_refcounts" | "extended_l2" | "nocow" if value == "off" => {}
            "compat" | "compression_type" | "lazy_refcounts" | "extended_l2" | "data_file"
            | "data_file_raw" | "encrypt.format" | "encryption" | "nocow" => {
                bail!("option '{option}' is not supported")
            }
            _ => bail!("{} images have no option '{}'", options.format, printable(name)),
        }
    }
    if let Some(file) = backing_file {
        let format = backing_format.context("backing_file needs backing_fmt")?;
        options.backing = Some((file, format));
    }
    Ok(())
}

fn create(args: &CreateArgs) -> anyhow::Result<ExitCode> {
    let mut options = CreateOptions::new(&args.file, args.format, args.size);
    match (&args.backing, args.backing_format) {
        (Some(file), Some(format)) => options.backing = Some((file.clone(), format)),
        // As QEMU since 6.1: a guess today may be another one tomorrow.
        (Some(_), None) => bail!("-b needs the backing file's format: -F raw or -F qcow2"),
        (None, Some(_)) => bail!("-F is the format of a backing file, but there is no -b"),
        (None, None) => {}
    }
    apply(&mut options, &args.options)?;
    let size = tulk_block::create(&options)?;
    if !args.quiet {
        let mut line = format!("Formatting '{}', fmt={}", printable(&args.file), args.format);
        if args.format == Format::Qcow2 {
            line += &format!(" cluster_size={}", options.cluster_size);
        }
        line += &format!(" size={size}");
        if let Some((file, format)) = &options.backing {
            line += &format!(" backing_file={} backing_fmt={format}", printable(file));
        }
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

fn info(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let mut chain = Vec::new();
    let mut next = Some((args.file.clone(), args.format));
    while let Some((path, format)) = next.take() {
        let image = tulk_block::info(&path, format, locking(args.force_share))?;
        if args.backing_chain && chain.len() < 256 {
            let format = image.header.as_ref().and_then(|h| h.backing_format.clone());
            let format = format.map(|f| f.parse()).transpose()?;
            next = image.backing()?.map(|path| (path, format));
        }
        let is_loop = chain.iter().any(|i: &tulk_block::Info| i.path == path);
        if is_loop {
            bail!("'{}' is its own backing file, through its chain", printable(&args.file));
        }
        chain.push(image);
    }
    match args.output {
        Output::Human => print!("{}", describe::human(&chain)),
        Output::Json => {
            let images: Vec<_> = chain.iter().map(describe::json).collect();
            let value = match args.backing_chain {
                true => serde_json::Value::Array(images),
                false => images.into_iter().next().unwrap_or_default(),
            };
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A bar on the terminal; nothing where there is none.
fn progress(wanted: bool, len: u64) -> ProgressBar {
    if !wanted {
        return ProgressBar::hidden();
    }
    let style = "{bar:40} {percent:>3} %  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}";
    let style = ProgressStyle::with_template(style).expect("the template is constant");
    ProgressBar::new(len).with_style(style)
}

fn convert(args: &ConvertArgs) -> anyhow::Result<ExitCode> {
    if args.compress {
        bail!("-c is not supported: compressed images can be read, not written");
    }
    let sparse = usize::try_from(args.sparse)?;
    if !sparse.is_multiple_of(512) {
        bail!("-S must be a multiple of 512");
    }
    let source = tulk_block::open_image(&OpenOptions {
        format: args.format,
        read_only: true,
        cache: args.source_cache,
        locking: locking(args.force_share),
        ..OpenOptions::new(&args.source)
    })?;
    if args.no_create && !args.options.is_empty() {
        bail!("-o is for images that are made, and -n says not to");
    }
    let mut fresh = false;
    if !args.no_create {
        let mut options =
            CreateOptions::new(&args.destination, args.output_format, Some(source.len()));
        apply(&mut options, &args.options)?;
        tulk_block::create(&options)?;
        fresh = !is_device(&args.destination) && options.backing.is_none();
    }
    let destination = tulk_block::open_image(&OpenOptions {
        format: Some(args.output_format),
        cache: args.cache,
        discard: Discard::Unmap,
        ..OpenOptions::new(&args.destination)
    })?;
    let bar = progress(args.progress && !args.quiet, source.len());
    let options = CopyOptions { sparse, fresh };
    tulk_block::copy(&source, &destination, options, &mut |done| bar.set_position(done))
        .and_then(|()| destination.flush())
        .with_context(|| format!("cannot copy to '{}'", printable(&args.destination)))?;
    bar.finish();
    drop(destination);
    // The copy is on the disk before anybody deletes the original.
    std::fs::File::open(&args.destination)
        .and_then(|file| file.sync_data())
        .with_context(|| format!("cannot write '{}'", printable(&args.destination)))?;
    Ok(ExitCode::SUCCESS)
}

fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.is_file())
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if let Some(what) = &args.repair {
        bail!("-r {what} is not supported: nothing is repaired yet");
    }
    let locking = locking(args.force_share);
    let format = match args.format {
        Some(format) => format,
        None => tulk_block::probe(&args.file)?,
    };
    if format == Format::Raw {
        eprintln!("tulk: raw images have nothing that could be checked");
        return Ok(ExitCode::from(63));
    }
    let report = match tulk_block::qcow2::check(&args.file, locking) {
        Err(error @ Error::Unsupported { .. }) => {
            eprintln!("tulk: {error}");
            return Ok(ExitCode::from(63));
        }
        report => report?,
    };
    match args.output {
        Output::Json => {
            let value = describe::check_json(&args.file, &report);
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        Output::Human => {
            report.messages.iter().for_each(|line| eprintln!("{}", printable(line)));
            if !args.quiet {
                print!("{}", describe::check_human(&report));
            }
        }
    }
    Ok(match (report.check_errors, report.corruptions, report.leaks) {
        (1.., _, _) => ExitCode::from(1),
        (0, 1.., _) => ExitCode::from(2),
        (0, 0, 1..) => ExitCode::from(3),
        (0, 0, 0) => ExitCode::SUCCESS,
    })
}

fn resize(args: &ResizeArgs) -> anyhow::Result<ExitCode> {
    // Sector 0 is not written, so a guess does no harm.
    let format = match args.format {
        Some(format) => format,
        None => tulk_block::probe(&args.file)?,
    };
    let old = tulk_block::info(&args.file, Some(format), Locking::Auto)?.virtual_size;
    let parse = |text: &str| parse_size(text).map_err(anyhow::Error::msg);
    let new = match args.size.split_at_checked(1) {
        Some(("+", more)) => old.checked_add(parse(more)?),
        Some(("-", less)) => old.checked_sub(parse(less)?),
        _ => Some(parse(&args.size)?),
    };
    let new =
        new.with_context(|| format!("the image has {old} bytes: no {} from there", args.size))?;
    if new < old && !args.shrink {
        bail!("the image would become smaller and lose what lies beyond; --shrink allows it");
    }
    let options = OpenOptions { format: Some(format), ..OpenOptions::new(&args.file) };
    tulk_block::resize(&options, new, args.preallocation)?;
    if !args.quiet {
        println!("Image resized.");
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let open = |path: &PathBuf, format| {
        let locking = locking(args.force_share);
        let options = OpenOptions { format, read_only: true, locking, ..OpenOptions::new(path) };
        tulk_block::open_image(&options)
    };
    let first = open(&args.first, args.format)?;
    let second = open(&args.second, args.second_format)?;
    let bar = progress(args.progress && !args.quiet, first.len().max(second.len()));
    let result = tulk_block::compare(&first, &second, args.strict, &mut |at| bar.set_position(at))
        .context("cannot compare")?;
    bar.finish();
    let say = |text: &str| {
        if !args.quiet {
            println!("{text}");
        }
    };
    Ok(match result {
        Difference::Content(at) => {
            say(&format!("Content mismatch at offset {at}!"));
            ExitCode::from(1)
        }
        Difference::Allocation(at) => {
            say(&format!("Strict mode: Offset {at} block status mismatch!"));
            ExitCode::from(1)
        }
        Difference::Size if args.strict => {
            say("Strict mode: Image size mismatch!");
            ExitCode::from(1)
        }
        other => {
            if other == Difference::Size {
                say("Warning: Image size mismatch!");
            }
            say("Images are identical.");
            ExitCode::SUCCESS
        }
    })
}

fn snapshot(args: &SnapshotArgs) -> anyhow::Result<ExitCode> {
    for (option, value) in [("-c", &args.create), ("-a", &args.apply), ("-d", &args.delete)] {
        if value.is_some() {
            bail!("{option} is not supported: snapshots in images can be listed, not changed");
        }
    }
    let image = tulk_block::info(&args.file, None, locking(args.force_share))?;
    if !image.snapshots.is_empty() && !args.quiet {
        print!("{}", describe::snapshots(&image.snapshots));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1024"), Ok(1024));
        assert_eq!(parse_size("1k"), Ok(1024));
        assert_eq!(parse_size("1.5G"), Ok(3 << 29));
        assert_eq!(parse_size("7E"), Ok(7 << 60));
        for wrong in ["", "G", "1X", "-1", "16E", "1e99", "nan", "1GB", "0x10"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
