//! Initial RAM disks of busybox, for Debian's kernels (`tests/kernels` unpacks both).

use super::{cache, missing};
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
