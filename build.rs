//! Links the `tulk` command with packed relative relocations. A position-independent executable has fifty thousand of them,
//! which are all read when it starts: 1.2 MiB of peak memory and a millisecond otherwise.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let here = variable("HOST") == variable("TARGET");
    if here && variable("CARGO_CFG_TARGET_OS") == "linux" && c_library_unpacks() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// glibc does since 2.36. (Linkers that do not know the option warn and ignore it.)
fn c_library_unpacks() -> bool {
    let version = || {
        let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    version().is_some_and(|version| version >= (2, 36))
}
