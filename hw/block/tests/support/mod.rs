//! What the tests of images share: temporary folders, and QEMU's tools where they are installed.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tulk_block::{CreateOptions, Disk, Format, Image, OpenOptions, create, open_image};

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    pub fn raw(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, data).unwrap();
        path
    }
    pub fn qcow2(&self, name: &str, size: u64) -> PathBuf {
        let path = self.file(name);
        create(&CreateOptions::new(&path, Format::Qcow2, Some(size))).unwrap();
        path
    }
    pub fn overlay(&self, name: &str, below: &str, format: Format) -> PathBuf {
        let path = self.file(name);
        let backing = Some((below.into(), format));
        create(&CreateOptions { backing, ..CreateOptions::new(&path, Format::Qcow2, None) })
            .unwrap();
        path
    }
}

pub fn open_rw(path: &Path) -> Image {
    open_image(&OpenOptions::new(path)).unwrap()
}

pub fn open_ro(path: &Path) -> Image {
    open_image(&OpenOptions { read_only: true, ..OpenOptions::new(path) }).unwrap()
}

pub fn content(path: &Path) -> Vec<u8> {
    let disk = open_ro(path);
    let mut out = vec![0; disk.len() as usize];
    disk.read_at(0, &mut out).unwrap();
    out
}

/// Bytes that differ from sector to sector and from `seed` to `seed`.
pub fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 512) as u8 ^ (i as u8).wrapping_mul(7) ^ seed | 1).collect()
}

/// Runs one of QEMU's tools; `None` where it is not installed and need not be.
pub fn qemu(tool: &str, arguments: &[&str], folder: &Folder) -> Option<Output> {
    let mut command = Command::new(tool);
    command.args(arguments).current_dir(folder.0.path());
    match command.output() {
        Ok(output) => Some(output),
        Err(e) if std::env::var_os("TULK_REQUIRE_TOOLS").is_none() => {
            eprintln!("skipped: {tool}: {e}");
            None
        }
        Err(e) => panic!("{tool}: {e}"),
    }
}

/// The same, and it succeeds.
pub fn qemu_ok(tool: &str, arguments: &[&str], folder: &Folder) -> Option<String> {
    let output = qemu(tool, arguments, folder)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {text}{errors}");
    Some(text)
}

/// QEMU and we agree that the image is without errors.
pub fn assert_clean(path: &Path, folder: &Folder) {
    let report = tulk_block::qcow2::check(path, Default::default()).unwrap();
    let found = (report.corruptions, report.leaks, report.check_errors);
    assert_eq!(found, (0, 0, 0), "{:#?}", report.messages);
    qemu_ok("qemu-img", &["check", "-q", path.to_str().unwrap()], folder);
}
