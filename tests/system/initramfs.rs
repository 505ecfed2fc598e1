//! Kernels started directly with a busybox initial RAM disk.

use crate::console::Console;
use crate::support::initramfs::linux;
use crate::support::{Run, cache, missing};
use crate::{firmware, system};

/// Starts a kernel, whose console is typed on, with this on its command line too, these options more and the script.
/// The file must live as long as the machine.
pub fn console(
    folder: &str,
    words: &str,
    options: &[&str],
    script: &str,
) -> Option<(Console, tempfile::NamedTempFile)> {
    if !firmware() {
        return None;
    }
    let (kernel, initrd) = linux(folder, &[], script)?;
    let append = format!("console=ttyS0 quiet panic=-1 {words}");
    let mut all = vec!["-m", "256", "-append", &append];
    all.extend(["-kernel", kernel.to_str().unwrap(), "-initrd", initrd.path().to_str().unwrap()]);
    all.extend(options);
    Some((Console::start(&all), initrd))
}

/// Boots a kernel with this on its command line too, these options more and the script; how that ended.
pub fn start(
    folder: &str,
    words: &str,
    options: &[&str],
    files: &[(&str, Vec<u8>)],
    script: &str,
) -> Option<Run> {
    if !firmware() {
        return None;
    }
    let (kernel, initrd) = linux(folder, files, script)?;
    let append = format!("console=ttyS0 quiet panic=-1 {words}");
    let mut all = vec!["-m", "256", "-nographic", "-append", &append];
    all.extend(["-kernel", kernel.to_str().unwrap(), "-initrd", initrd.path().to_str().unwrap()]);
    all.extend(options);
    Some(system(300, &all))
}

/// What the script printed on this kernel.
pub fn boot_on(
    folder: &str,
    options: &[&str],
    files: &[(&str, Vec<u8>)],
    script: &str,
) -> Option<String> {
    let script = format!("{script}\necho END\npoweroff -f\n");
    let options = [&["-no-reboot"], options].concat();
    let run = start(folder, "loglevel=1", &options, files, &script)?;
    let text = run.text().replace('\r', "");
    assert_eq!(run.status, 0, "{folder}: {text}\n{}", run.errors());
    let printed = text.split_once("BEGIN\n").and_then(|(_, rest)| rest.split_once("END\n"));
    Some(printed.unwrap_or_else(|| panic!("{folder}: {text}")).0.to_string())
}

/// The same on the cloud kernel.
pub fn boot(options: &[&str], script: &str) -> Option<String> {
    boot_on("kernels", options, &[], script)
}

/// A kernel's modules, by their paths below its folder `kernel`, for the folder `/bin` of the initial RAM disk.
pub fn modules(folder: &str, paths: &[&'static str]) -> Option<Vec<(&'static str, Vec<u8>)>> {
    let mut all = std::fs::read_dir(cache().join(folder).join("lib/modules")).ok()?;
    let kernel = all.next()?.ok()?.path().join("kernel");
    let read = |path: &&'static str| {
        let content = std::fs::read(kernel.join(format!("{path}.ko"))).ok()?;
        Some((path.rsplit('/').next()?, content))
    };
    let found: Option<Vec<_>> = paths.iter().map(read).collect();
    if found.is_none() {
        missing(&format!("the modules of Debian's kernel in {folder}"));
    }
    found
}
