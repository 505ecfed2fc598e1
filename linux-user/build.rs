//! Turns each `data/<guest>.tbl` into a Rust table of system calls (`OUT_DIR/<guest>.rs`).
//!
//! The format stands at the head of the tables. A row that breaks it ends the build with file, line and reason.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").unwrap();
    let out = env::var("OUT_DIR").unwrap();
    println!("cargo::rerun-if-changed=data");
    for entry in fs::read_dir(Path::new(&root).join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "tbl") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let rust = convert(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().unwrap().to_str().unwrap();
        fs::write(Path::new(&out).join(format!("{name}.rs")), rust).unwrap();
    }
}

fn convert(text: &str) -> Result<String, String> {
    let mut out = String::from("&[\n");
    let mut last = -1i64;
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let bad = |what: &str| format!("line {}: {what}: `{line}`", n + 1);
        let mut words = line.split_whitespace();
        let mut next = |what: &str| words.next().ok_or_else(|| bad(&format!("no {what}")));
        let number: i64 = next("number")?.parse().map_err(|_| bad("not a number"))?;
        let (name, handler) = (next("name")?, next("handler")?);
        if number <= last {
            return Err(bad("numbers must rise"));
        }
        last = number;
        let args: Vec<String> = words.map(|w| format!("Arg::{}", camel(w))).collect();
        if args.len() > 7 {
            return Err(bad("more than seven arguments"));
        }
        let (handler, time64) = match handler.strip_suffix("@64") {
            Some(handler) => (handler, true),
            None => (handler, false),
        };
        let handler = match handler.split_once(':').unwrap_or((handler, name)) {
            ("-", _) => "Handler::Missing".to_string(),
            ("declined", _) => "Handler::Declined".to_string(),
            // Since 5.1 a new call has one number on all machines, and the libc crate does not know all of them.
            ("pass", _) if number >= 424 => format!("Handler::Pass({number})"),
            ("block", _) if number >= 424 => format!("Handler::Block({number})"),
            ("pass", host) => format!("Handler::Pass(libc::SYS_{host})"),
            ("block", host) => format!("Handler::Block(libc::SYS_{host})"),
            (module, f) => {
                let f = f.strip_prefix(':').ok_or_else(|| bad("handler is no `module::name`"))?;
                let call = moved(module, f).ok_or_else(|| bad("arguments of the handler"))?;
                format!("Handler::Call({call})")
            }
        };
        let args = args.join(", ");
        writeln!(
            out,
            "Row {{ number: {number}, name: {name:?}, handler: {handler}, time64: {time64}, args: &[{args}] }},"
        )
        .unwrap();
    }
    out.push(']');
    Ok(out)
}

/// The function, or a closure that calls it with the arguments that stand behind it in parentheses: `$1` to `$6` the
/// guest's, `cwd`, numbers.
fn moved(module: &str, f: &str) -> Option<String> {
    let Some((f, list)) = f.split_once('(') else {
        return Some(format!("crate::syscall::{module}::sys_{f}"));
    };
    let mut words = Vec::new();
    for word in list.strip_suffix(')')?.split(',') {
        words.push(match word.strip_prefix('$') {
            Some(n) => format!("a[{}]", n.parse::<usize>().ok()?.checked_sub(1)?),
            None if word == "cwd" => "libc::AT_FDCWD as u64".into(),
            None => word.parse::<u64>().ok()?.to_string(),
        });
    }
    words.resize(7, "0".into());
    let words = words.join(", ");
    Some(format!("|cx, a| {{ let _ = a; crate::syscall::{module}::sys_{f}(cx, &[{words}]) }}"))
}

fn camel(word: &str) -> String {
    if word == "_" {
        return "Nothing".into();
    }
    word.split('_').map(|w| w[..1].to_uppercase() + &w[1..]).collect()
}
