//! Images that somebody made to hurt: an error on one line, or a disk that can be used; never a panic, a hang or a changed file.

#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
mod support;

use mutate::{Random, mutate};
use std::path::Path;
use support::*;
use tulk_block::*;

/// What anybody may do with an image.
fn use_image(path: &Path) {
    let before = std::fs::read(path).unwrap();
    let one_line = |e: &Error| {
        let text = e.to_string();
        assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
    };
    let untouched = || assert!(std::fs::read(path).unwrap() == before, "the file has changed");
    match qcow2::check(path, Locking::Auto) {
        Ok(report) => assert!(report.messages.len() <= 1000),
        Err(e) => one_line(&e),
    }
    match open_image(&OpenOptions { read_only: true, ..OpenOptions::new(path) }) {
        Ok(disk) => {
            let mut at = 0;
            let mut data = vec![0; 8192];
            for _ in 0..200 {
                if at >= disk.len() {
                    break;
                }
                let n = (disk.len() - at).min(8192) as usize;
                let _ = disk.read_at(at, &mut data[..n]);
                let len = disk.extent(at).map_or(SECTOR, |(_, len)| len);
                at += (len.max(8192) / SECTOR * SECTOR).min(1 << 40);
            }
            let _ = disk.read_at(disk.len() - disk.len().min(SECTOR), &mut data[..512]);
        }
        Err(e) => one_line(&e),
    }
    untouched();
    match open_image(&OpenOptions { discard: Discard::Unmap, ..OpenOptions::new(path) }) {
        Ok(disk) => {
            for at in [0, 8192, 100 << 9, 1 << 20, disk.len() / 1024 * 512] {
                let _ = disk.write_at(at, &[0xa5; 4096]);
            }
            let _ = disk.flush();
            let _ = disk.discard(0, disk.len().min(1 << 20));
            let _ = disk.write_zeroes(0, disk.len().min(64 << 10));
            let _ = disk.flush();
        }
        Err(e) => {
            one_line(&e);
            untouched();
        }
    }
}

fn seeds(folder: &Folder) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    folder.raw("base.raw", &pattern(1, 64 << 10));
    for (cluster_size, refcount_bits, backing) in
        [(512, 16, false), (512, 1, true), (1024, 64, false), (4096, 16, true)]
    {
        let path = folder.file("seed.qcow2");
        let backing = backing.then(|| ("base.raw".to_string(), Format::Raw));
        let size = Some(256 << 10);
        let options = CreateOptions {
            cluster_size,
            refcount_bits,
            backing,
            ..CreateOptions::new(&path, Format::Qcow2, size)
        };
        create(&options).unwrap();
        let disk = open_rw(&path);
        disk.write_at(0, &pattern(2, 2048)).unwrap();
        disk.write_at(40 << 10, &pattern(3, 512)).unwrap();
        disk.write_zeroes(8 << 10, 8 << 10).unwrap();
        disk.write_at(200 << 10, &pattern(4, 512)).unwrap();
        drop(disk);
        seeds.push(std::fs::read(path).unwrap());
    }
    // Compressed clusters and a snapshot are QEMU's to make.
    let line = ["convert", "-c", "-O", "qcow2", "-o", "cluster_size=512", "base.raw", "c.qcow2"];
    if qemu_ok("qemu-img", &line, folder).is_some() {
        qemu_ok("qemu-img", &["snapshot", "-c", "one", "c.qcow2"], folder);
        seeds.push(std::fs::read(folder.file("c.qcow2")).unwrap());
    }
    seeds
}

#[test]
fn mutated_images_do_no_harm() {
    let folder = Folder::new();
    let seeds = seeds(&folder);
    let soak = std::env::var("TULK_SOAK").is_ok_and(|v| v == "yes");
    let path = folder.file("mutated.qcow2");
    for round in 0..if soak { 200_000 } else { 2_000 } {
        let mut random = Random::new(round);
        let mut data = seeds[random.below(seeds.len())].clone();
        // The header half of the time, the tables behind it otherwise.
        let focus = if round % 2 == 0 { 600 } else { data.len().min(12 << 10) };
        mutate(&mut data, focus, &mut random);
        std::fs::write(&path, &data).unwrap();
        let result = std::panic::catch_unwind(|| use_image(&path));
        if result.is_err() {
            let kept = std::env::temp_dir().join(format!("tulk-image-{round}"));
            std::fs::write(&kept, &data).unwrap();
            panic!("round {round}; the image is {}", kept.display());
        }
    }
}

/// A good image with one field of its header replaced.
fn with_field(folder: &Folder, name: &str, at: usize, value: &[u8]) -> std::path::PathBuf {
    let path = folder.qcow2(name, 1 << 30);
    let mut data = std::fs::read(&path).unwrap();
    data[at..at + value.len()].copy_from_slice(value);
    std::fs::write(&path, data).unwrap();
    path
}

#[test]
fn lying_headers_are_named() {
    let folder = Folder::new();
    let be32 = |v: u32| v.to_be_bytes().to_vec();
    let be64 = |v: u64| v.to_be_bytes().to_vec();
    let cases = [
        (4, be32(9), "version 9"),
        (20, be32(63), "clusters of 2^63 bytes"),
        (24, be64(u64::MAX), "larger than 8 EiB"),
        (24, be64(1 << 50), "L1 table is too small"),
        (32, be32(1), "encrypted"),
        (36, be32(u32::MAX), "L1 table is too large"),
        (40, be64(0x8000_0000_0000_0000), "L1 table"),
        (40, be64(123), "L1 table is not aligned"),
        (40, be64(0x10000), "overlap"),
        (40, be64(0x4000_0000), "truncated"),
        (48, be64(1), "refcount table is not aligned"),
        (48, be64(0), "overlap"),
        (56, be32(0), "no refcount table"),
        (56, be32(u32::MAX), "refcount table is too large"),
        (60, be32(u32::MAX), "too many snapshots"),
        (72, be64(1), "not closed properly"),
        (72, be64(2), "marked corrupt"),
        (72, be64(4), "data in a file of its own"),
        (72, be64(8), "zstd"),
        (72, be64(16), "L2"),
        (72, be64(1 << 63), "feature 63"),
        (96, be32(7), "reference counts"),
        (100, be32(96), "header claims"),
        (100, be32(u32::MAX), "header claims"),
        (108, be32(u32::MAX), "header extensions"),
    ];
    for (at, value, want) in cases {
        let path = with_field(&folder, "a.qcow2", at, &value);
        let before = std::fs::read(&path).unwrap();
        let error = open_image(&OpenOptions::new(&path)).err().unwrap().to_string();
        assert!(error.contains(want), "{at} {value:x?}: {error}");
        assert!(std::fs::read(&path).unwrap() == before);
    }
    for len in [0, 3, 4, 71, 103, 200] {
        let path = folder.qcow2("short.qcow2", 1 << 20);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        let format = Some(Format::Qcow2);
        let error = open_image(&OpenOptions { format, ..OpenOptions::new(&path) });
        let error = error.err().unwrap().to_string();
        assert!(error.contains("not a valid qcow2 image"), "{len}: {error}");
    }
    // An empty raw image is a disk without sectors.
    assert!(open_ro(&folder.raw("empty", b"")).is_empty());
}

#[test]
fn loops_and_strange_names_of_backing_files_are_errors() {
    let folder = Folder::new();
    folder.qcow2("a.qcow2", 1 << 20);
    folder.overlay("b.qcow2", "a.qcow2", Format::Qcow2);
    let looped = folder.overlay("c.qcow2", "b.qcow2", Format::Qcow2);
    std::fs::copy(&looped, folder.file("a.qcow2")).unwrap();
    // Locks are off, else the image would be found in use by itself.
    let options = OpenOptions { locking: Locking::Off, ..OpenOptions::new(&looped) };
    let error = open_image(&options).err().unwrap().to_string();
    assert!(error.contains("its own backing file"), "{error}");
    open_image(&OpenOptions::new(&looped)).err().unwrap();

    let name = "e.qcow2";
    folder.qcow2(name, 1 << 20);
    for (new, want) in [
        ("nbd://h", "not a file's name"),
        ("json:{}", "not a file's name"),
        ("a\nb.qco", "a\\nb.qco"),
        ("/dev/..", "a directory"),
    ] {
        let path = folder.overlay("d.qcow2", name, Format::Qcow2);
        let mut data = std::fs::read(&path).unwrap();
        let at = data.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
        data[at..at + 7].copy_from_slice(new.as_bytes());
        std::fs::write(&path, data).unwrap();
        let error = open_image(&OpenOptions::new(&path)).err().unwrap().to_string();
        assert!(error.contains(want) && !error.contains('\n'), "{new}: {error}");
    }
}

#[test]
fn damage_is_counted_as_qemu_counts_it() {
    let folder = Folder::new();
    let good = folder.qcow2("a.qcow2", 64 << 20);
    let disk = open_rw(&good);
    disk.write_at(0, &pattern(1, 1 << 20)).unwrap();
    drop(disk);
    let data = std::fs::read(&good).unwrap();
    let header = &data[..104];
    let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().unwrap()) as usize;
    let reftable = number(48);
    let block = u64::from_be_bytes(data[reftable..reftable + 8].try_into().unwrap()) as usize;
    let l1 = number(40);
    let l1_entry = u64::from_be_bytes(data[l1..l1 + 8].try_into().unwrap());
    let l2 = (l1_entry & 0x00ff_ffff_ffff_fe00) as usize;
    let cases: [(usize, Vec<u8>); 5] = [
        // A cluster that is used but not counted; one that is counted too often; an unused one.
        (block + 2 * 8, vec![0, 0]),
        (block + 2 * 9, vec![0, 3]),
        (block + 2 * 200, vec![0, 1]),
        // Two L2 entries for one cluster; an entry that is not aligned.
        (l2 + 8, data[l2..l2 + 8].to_vec()),
        (l2 + 16, 0x8000_0000_0000_0200u64.to_be_bytes().to_vec()),
    ];
    for (case, (at, bytes)) in cases.into_iter().enumerate() {
        let mut bad = data.clone();
        bad.resize(16 << 20, 0);
        bad[at..at + bytes.len()].copy_from_slice(&bytes);
        let path = folder.raw("bad.qcow2", &bad);
        let report = qcow2::check(&path, Locking::Auto).unwrap();
        assert!(report.corruptions + report.leaks > 0, "case {case}");
        let line = ["check", "--output=json", "bad.qcow2"];
        let Some(output) = qemu("qemu-img", &line, &folder) else { continue };
        let theirs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |name: &str| theirs[name].as_u64().unwrap_or(0);
        assert_eq!(report.leaks, count("leaks"), "case {case}: {theirs} {:?}", report.messages);
        let both = (report.corruptions > 0, count("corruptions") > 0);
        assert_eq!(both.0, both.1, "case {case}: {theirs} {:?}", report.messages);
    }
}
