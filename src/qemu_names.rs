//! Command lines in the spelling of qemu-user, understood when tulk is started under a name like `qemu-aarch64`:
//! scripts, container build tools and cargo runners then work unchanged. They are translated into tulk's own options, so there is
//! one definition of each. `qemu-img` is `tulk img`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// `(qemu's option, tulk's option, takes a value, environment variable)`. An empty tulk option is accepted and
/// ignored because it has no meaning here.
const OPTIONS: &[(&str, &str, bool, &str)] = &[
    ("-L", "--sysroot", true, "QEMU_LD_PREFIX"),
    ("-E", "--set-env", true, "QEMU_SET_ENV"),
    ("-U", "--unset-env", true, "QEMU_UNSET_ENV"),
    ("-0", "--argv0", true, "QEMU_ARGV0"),
    ("-cpu", "--cpu", true, "QEMU_CPU"),
    ("-s", "--stack-size", true, "QEMU_STACK_SIZE"),
    ("-r", "--uname", true, "QEMU_UNAME"),
    ("-seed", "--seed", true, "QEMU_RAND_SEED"),
    ("-strace", "--strace", false, "QEMU_STRACE"),
    ("-d", "--log", true, "QEMU_LOG"),
    ("-D", "--log-file", true, "QEMU_LOG_FILENAME"),
    ("-tb-size", "--code-size", true, "QEMU_TB_SIZE"),
    ("-one-insn-per-tb", "--one-insn-per-tb", false, "QEMU_ONE_INSN_PER_TB"),
    ("-singlestep", "--one-insn-per-tb", false, "QEMU_SINGLESTEP"),
    ("-perfmap", "--perf-map", false, "QEMU_PERFMAP"),
    ("-jitdump", "--jitdump", false, "QEMU_JITDUMP"),
    ("-g", "--gdb", true, "QEMU_GDB"),
    ("-h", "--help", false, ""),
    ("-help", "--help", false, ""),
    ("--help", "--help", false, ""),
];

/// The guest named by a program name like `/usr/bin/qemu-aarch64-static`, if it is one.
fn guest_of(program: &OsStr) -> Option<&str> {
    let name = Path::new(program).file_name()?.to_str()?;
    let guest = name.strip_prefix("buildkit-").unwrap_or(name).strip_prefix("qemu-")?;
    let guest = guest.strip_suffix("-static").unwrap_or(guest);
    (!guest.starts_with("system-") && guest != "img").then_some(guest)
}

/// The equivalent `tulk img` command line when tulk was started as `qemu-img`.
fn image_tool(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let (program, rest) = arguments.split_first()?;
    if Path::new(program).file_name()? != "qemu-img" {
        return None;
    }
    if rest.first().is_some_and(|option| option == "-V" || option == "--version") {
        return Some(vec!["tulk".into(), "--version".into()]);
    }
    Some(["tulk".into(), "img".into()].into_iter().chain(rest.iter().cloned()).collect())
}

/// The name of a system emulator of QEMU's, if tulk was started under one.
pub fn system_of(program: &OsStr) -> Option<&'static str> {
    let name = Path::new(program).file_name()?.to_str()?;
    ["qemu-system-x86_64", "qemu-system-i386"].into_iter().find(|known| *known == name)
}

/// The equivalent `tulk run` command line when tulk was started under a QEMU name; `None` under its own.
///
/// # Errors
/// A line for the user when an option is unknown or lacks its value.
pub fn translate(arguments: &[OsString]) -> Result<Option<Vec<OsString>>, String> {
    if let Some(rest) = image_tool(arguments) {
        return Ok(Some(rest));
    }
    let Some(guest) = arguments.first().and_then(|program| guest_of(program)) else {
        return Ok(None);
    };
    let mut out: Vec<OsString> = vec!["tulk".into(), "run".into(), "--guest".into(), guest.into()];
    for &(_, option, value, variable) in OPTIONS {
        let Some(text) = (!variable.is_empty()).then(|| std::env::var_os(variable)).flatten()
        else {
            continue;
        };
        out.push(option.into());
        if value {
            out.push(text);
        }
    }
    let mut rest = arguments[1..].iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if !text.starts_with('-') || text == "-" {
            out.push("--".into());
            out.push(argument.clone());
            out.extend(rest.cloned());
            break;
        }
        if matches!(&*text, "-version" | "--version") {
            // Scripts look for `version N.N`.
            return Ok(Some(vec!["tulk".into(), "--version".into()]));
        }
        let name = text.strip_prefix('-').filter(|t| t.starts_with('-')).unwrap_or(&text);
        let Some(&(_, option, value, _)) = OPTIONS.iter().find(|o| o.0 == name || o.0 == text)
        else {
            return Err(format!(
                "unknown option {text}; `qemu-{guest} -h` lists those that are known"
            ));
        };
        out.push(option.into());
        if value {
            out.push(rest.next().ok_or_else(|| format!("option {text} needs a value"))?.clone());
        }
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> Result<Option<Vec<String>>, String> {
        let arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let out = translate(&arguments)?;
        Ok(out.map(|v| v.into_iter().map(|s| s.into_string().unwrap()).collect()))
    }

    #[test]
    fn own_name_is_left_alone() {
        assert_eq!(translated("/usr/bin/tulk run x"), Ok(None));
        assert_eq!(translated("qemu-system-x86_64 disk"), Ok(None));
    }

    #[test]
    fn images_have_their_tool() {
        let got = translated("/usr/bin/qemu-img info -U a").unwrap().unwrap();
        assert_eq!(got.join(" "), "tulk img info -U a");
        assert_eq!(translated("qemu-img --version").unwrap().unwrap().join(" "), "tulk --version");
    }

    #[test]
    fn options_and_program_are_kept_apart() {
        let got = translated("qemu-aarch64-static -L /sys -strace -E A=1 prog -strace -x").unwrap();
        let want =
            "tulk run --guest aarch64 --sysroot /sys --strace --set-env A=1 -- prog -strace -x";
        assert_eq!(got.unwrap().join(" "), want);
    }

    #[test]
    fn wrong_options_are_named() {
        assert!(translated("qemu-aarch64 -nonsense p").unwrap_err().contains("-nonsense"));
        assert!(translated("qemu-aarch64 -L").unwrap_err().contains("-L"));
    }
}
