//! Kernels started directly with a busybox initial RAM disk made here.

use crate::console::Console;
use crate::support::{Run, cache, missing};
use crate::{firmware, system};
use std::path::PathBuf;

/// A directory, file or device: name, mode, device number, content.
type Entry<'a> = (&'a str, u32, (u32, u32), &'a [u8]);

/// An archive in cpio's `newc` format.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let end = [("TRAILER!!!", 0, (0, 0), &[][..])];
    for (inode, (name, mode, device, content)) in entries.iter().chain(&end).enumerate() {
        let size = content.len() as u32;
        let (major, minor) = *device;
        let name_len = name.len() as u32 + 1;
        let fields = [inode as u32 + 1, *mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_len, 0];
        out.extend(b"070701");
        fields.iter().for_each(|field| out.extend(format!("{field:08x}").bytes()));
        out.extend(name.bytes().chain([0]));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(*content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// A kernel that is unpacked under `TULK_CACHE/folder`, and an initial RAM disk of busybox, these files in `/bin` and
/// this script.
pub fn linux(
    folder: &str,
    files: &[(&str, Vec<u8>)],
    script: &str,
) -> Option<(PathBuf, tempfile::NamedTempFile)> {
    let root = cache().join(folder);
    let kernel = std::fs::read_dir(root.join("boot")).ok().and_then(|entries| {
        let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        paths.find(|path| path.to_string_lossy().contains("vmlinuz"))
    });
    let busybox = std::fs::read(root.join("bin/busybox"));
    let (Some(kernel), Ok(busybox)) = (kernel, busybox) else {
        missing(&format!("Debian's kernel and busybox-static in {folder}"));
        return None;
    };
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
         mount -t proc proc /proc\nmount -t devtmpfs dev /dev\necho; echo BEGIN\n{script}"
    );
    let directory = |name| (name, 0o40755, (0, 0), &[][..]);
    let mut entries = vec![
        directory("bin"),
        directory("dev"),
        directory("mnt"),
        directory("proc"),
        directory("sys"),
        directory("tmp"),
        ("dev/console", 0o20600, (5, 1), &[]),
        ("dev/null", 0o20666, (1, 3), &[]),
        ("bin/busybox", 0o100755, (0, 0), &busybox),
        ("init", 0o100755, (0, 0), init.as_bytes()),
    ];
    let names: Vec<String> = files.iter().map(|(name, _)| format!("bin/{name}")).collect();
    for (name, (_, content)) in names.iter().zip(files) {
        entries.push((name, 0o100755, (0, 0), content));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), archive(&entries)).unwrap();
    Some((kernel, file))
}

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
