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
        let handler = match handler {
            "-" => "Handler::Missing".to_string(),
            "declined" => "Handler::Declined".to_string(),
            "pass" => format!("Handler::Pass(libc::SYS_{name})"),
            "block" => format!("Handler::Block(libc::SYS_{name})"),
            path => match path.split_once("::") {
                Some((module, f)) => format!("Handler::Call(crate::syscall::{module}::sys_{f})"),
                None => return Err(bad("handler is no `module::name`")),
            },
        };
        let args = args.join(", ");
        writeln!(
            out,
            "Row {{ number: {number}, name: {name:?}, handler: {handler}, args: &[{args}] }},"
        )
        .unwrap();
    }
    out.push(']');
    Ok(out)
}

fn camel(word: &str) -> String {
    if word == "_" {
        return "Nothing".into();
    }
    word.split('_').map(|w| w[..1].to_uppercase() + &w[1..]).collect()
}
