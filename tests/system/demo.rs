//! The demonstration (`src/system/demo`) in every tier and from every medium.

use crate::loaders::cd_of_floppy;
use crate::{firmware, system};

/// What the demonstration prints, behind what firmware printed before.
const DEMO: &str = "\
16 bits: real mode, booted by the firmware\r
32 bits: protected mode,  78498 primes below a million\r
64 bits: long mode, squares to 1000 sum to 333833500, in floats = the same\r
tulk boots PCs: tulk system [options] DISK\r
";

#[test]
fn the_demonstration_boots_in_every_tier() {
    if !firmware() {
        return;
    }
    for tier in ["interp", "baseline", "jit", "mixed"] {
        let run = system(120, &["-accel", &format!("tcg,tier={tier}")]);
        assert_eq!(run.status, 0, "{tier}: {}", run.errors());
        assert!(run.text().ends_with(DEMO), "{tier}: {}", run.text());
    }
}

#[test]
fn the_demonstration_boots_from_disk_floppy_and_cd() {
    if !firmware() {
        return;
    }
    // As large as a floppy disk: with less than a cylinder firmware does not read virtio disks.
    let mut content = include_bytes!("../../src/system/demo/demo.img").to_vec();
    content.resize(1440 << 10, 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content).unwrap();
    let image = file.path().to_str().unwrap();
    let drive = format!("file={image},format=raw,snapshot=on");
    let virtio = format!("{drive},if=virtio");
    for options in [&["-snapshot", "-fda", image][..], &["-drive", &drive], &["-drive", &virtio]] {
        let run = system(120, options);
        assert_eq!(run.status, 0, "{options:?}: {}", run.errors());
        assert!(run.text().ends_with(DEMO), "{options:?}: {}", run.text());
    }
    let Some(folder) = cd_of_floppy(&content) else { return };
    let run = system(120, &["-cdrom", folder.path().join("cd.iso").to_str().unwrap()]);
    assert_eq!(run.status, 0, "{}", run.errors());
    assert!(run.text().ends_with(DEMO), "{}", run.text());
}

#[test]
fn a_processor_without_long_mode_says_so() {
    if !firmware() {
        return;
    }
    let run = system(120, &["-cpu", "pentium3"]);
    assert_eq!(run.status, 0, "{}", run.errors());
    assert!(run.text().contains("no long mode"), "{}", run.text());
}
