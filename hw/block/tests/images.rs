//! Images as disks: what is written is read, by us and by QEMU.

mod support;

use std::io::ErrorKind;
use std::sync::Arc;
use support::*;
use tulk_block::*;

const MIB: u64 = 1 << 20;

#[test]
fn raw_reads_and_writes() {
    let folder = Folder::new();
    // Not a whole number of sectors: the rest reads as zeros.
    let path = folder.raw("a.raw", &pattern(1, 1000));
    let disk = open_image(&OpenOptions { format: Some(Format::Raw), ..OpenOptions::new(&path) });
    let disk = disk.unwrap();
    assert_eq!(disk.len(), 1024);
    let mut sector = [1; 512];
    disk.read_at(512, &mut sector).unwrap();
    assert_eq!(sector[..488], pattern(1, 1000)[512..]);
    assert_eq!(sector[488..], [0; 24]);
    disk.write_at(512, &[7; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[512..], [7; 512]);
    assert_eq!(disk.read_at(1024, &mut sector).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.write_at(u64::MAX - 1, &sector).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.discard(512, u64::MAX).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_guessed_format_keeps_sector_0() {
    let folder = Folder::new();
    let path = folder.raw("a.raw", &pattern(1, 4096));
    let mut header = std::fs::read(folder.qcow2("b.qcow2", MIB)).unwrap();
    header.truncate(512);
    let guessed = open_rw(&path);
    assert_eq!(guessed.write_at(0, &header).unwrap_err().kind(), ErrorKind::PermissionDenied);
    guessed.write_at(0, &pattern(2, 512)).unwrap();
    guessed.write_at(512, &header).unwrap();
    drop(guessed);
    let given = OpenOptions { format: Some(Format::Raw), ..OpenOptions::new(&path) };
    open_image(&given).unwrap().write_at(0, &header).unwrap();
    assert_eq!(probe(&path).unwrap(), Format::Qcow2);
}

#[test]
fn qcow2_is_what_qemu_reads_and_writes() {
    let folder = Folder::new();
    let path = folder.qcow2("a.qcow2", 64 * MIB);
    let disk = open_rw(&path);
    let data = pattern(3, 300 * 512);
    disk.write_at(5 * MIB + 512, &data).unwrap();
    disk.write_at(63 * MIB, &data).unwrap();
    disk.write_zeroes(63 * MIB + 512, 1024).unwrap();
    disk.flush().unwrap();
    let mut back = vec![0; data.len()];
    disk.read_at(5 * MIB + 512, &mut back).unwrap();
    assert_eq!(back, data);
    drop(disk);
    assert_clean(&path, &folder);
    let convert = ["convert", "-O", "raw", "a.qcow2", "a.raw"];
    if qemu_ok("qemu-img", &convert, &folder).is_some() {
        assert_eq!(std::fs::read(folder.file("a.raw")).unwrap(), content(&path));
        let write = ["-c", "write -P 9 7M 100k", "-c", "flush", "a.qcow2"];
        qemu_ok("qemu-io", &write, &folder);
        assert_eq!(content(&path)[7 << 20..][..100 << 10], [9; 100 << 10]);
    }
}

#[test]
fn compressed_clusters_snapshots_and_version_2_are_read() {
    let folder = Folder::new();
    let data = pattern(4, 3 << 20);
    folder.raw("a.raw", &data);
    for options in [&["-c"][..], &["-o", "compat=0.10"], &["-c", "-o", "cluster_size=512"]] {
        let mut line = vec!["convert", "-O", "qcow2"];
        line.extend(options);
        line.extend(["a.raw", "a.qcow2"]);
        if qemu_ok("qemu-img", &line, &folder).is_none() {
            return;
        }
        let path = folder.file("a.qcow2");
        assert!(content(&path) == data, "{options:?}");
        // A compressed cluster that is written becomes a plain one; a snapshot keeps what it had.
        qemu_ok("qemu-img", &["snapshot", "-c", "before", "a.qcow2"], &folder);
        let disk = open_rw(&path);
        disk.write_at(MIB + 512, &[5; 1024]).unwrap();
        disk.write_at(0, &[6; 512]).unwrap();
        disk.write_zeroes(2 * MIB, 128 << 10).unwrap();
        disk.discard(2 * MIB, 128 << 10).unwrap();
        drop(disk);
        assert_clean(&path, &folder);
        let mut want = data.clone();
        want[(1 << 20) + 512..][..1024].fill(5);
        want[..512].fill(6);
        want[2 << 20..][..128 << 10].fill(0);
        assert!(content(&path) == want, "{options:?}");
        qemu_ok("qemu-img", &["snapshot", "-a", "before", "a.qcow2"], &folder);
        assert!(content(&path) == data, "{options:?}");
    }
}

#[test]
fn chains_are_followed_and_left_alone() {
    let folder = Folder::new();
    let base = pattern(5, 1 << 20);
    folder.raw("base.raw", &base);
    folder.overlay("middle.qcow2", "base.raw", Format::Raw);
    let top = folder.overlay("top.qcow2", "middle.qcow2", Format::Qcow2);
    let middle = std::fs::read(folder.file("middle.qcow2")).unwrap();
    let disk = open_rw(&top);
    assert_eq!(disk.len(), MIB);
    disk.write_at(512, &[8; 512]).unwrap();
    disk.flush().unwrap();
    let description = disk.description().join("\n");
    assert!(description.contains("middle.qcow2 (chain depth: 2)"), "{description}");
    drop(disk);
    let mut want = base.clone();
    want[512..1024].fill(8);
    assert_eq!(content(&top), want);
    assert_eq!(std::fs::read(folder.file("base.raw")).unwrap(), base);
    assert_eq!(std::fs::read(folder.file("middle.qcow2")).unwrap(), middle);
    assert_clean(&top, &folder);
    if qemu_ok("qemu-img", &["convert", "-O", "raw", "top.qcow2", "out"], &folder).is_some() {
        assert_eq!(std::fs::read(folder.file("out")).unwrap(), want);
    }
    std::fs::remove_file(folder.file("base.raw")).unwrap();
    let error = open_image(&OpenOptions::new(&top)).err().unwrap().to_string();
    assert!(error.contains("backing file of") && error.contains("base.raw"), "{error}");
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn a_snapshot_leaves_the_file_alone() {
    let folder = Folder::new();
    let data = pattern(6, 1 << 20);
    for path in [folder.raw("a.raw", &data), folder.qcow2("a.qcow2", MIB)] {
        open_image(&OpenOptions::new(&path)).unwrap().write_at(0, &data).unwrap();
        let before = std::fs::read(&path).unwrap();
        let options = OpenOptions { snapshot: true, ..OpenOptions::new(&path) };
        let disk = open(&options).unwrap();
        assert!(!disk.read_only());
        let mut want = data.clone();
        let mut random = 1u64;
        for step in 0..400u64 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(step | 1);
            let at = (random >> 40) % 2000 * 512;
            let len = ((random >> 20) % 40 + 1) * 512;
            let range = at as usize..((at + len).min(MIB)) as usize;
            match step % 5 {
                0 => {
                    disk.write_zeroes(at, range.len() as u64).unwrap();
                    want[range.clone()].fill(0);
                }
                _ => {
                    let new = pattern(step as u8, range.len());
                    disk.write_at(at, &new).unwrap();
                    want[range.clone()].copy_from_slice(&new);
                }
            }
            let mut back = vec![0; range.len()];
            disk.read_at(at, &mut back).unwrap();
            assert_eq!(back, want[range]);
        }
        disk.flush().unwrap();
        let mut all = vec![0; MIB as usize];
        disk.read_at(0, &mut all).unwrap();
        assert!(all == want);
        // Two of them share the file; a writer is kept out meanwhile.
        let second = open(&options).unwrap();
        second.read_at(0, &mut all).unwrap();
        assert!(all == data);
        assert!(matches!(open(&OpenOptions::new(&path)), Err(Error::InUse { .. })));
        drop((disk, second));
        assert!(std::fs::read(&path).unwrap() == before);
    }
}

#[test]
fn a_second_writer_is_kept_out() {
    let folder = Folder::new();
    for path in [folder.raw("a.raw", &[1; 4096]), folder.qcow2("a.qcow2", MIB)] {
        let name = path.file_name().unwrap().to_str().unwrap();
        let disk = open_rw(&path);
        let refused = |options: OpenOptions| open_image(&options).err().unwrap().to_string();
        let error = refused(OpenOptions::new(&path));
        assert!(error.contains("in use") && error.contains("has it open for writing"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        refused(OpenOptions { read_only: true, ..OpenOptions::new(&path) });
        let off = OpenOptions { locking: Locking::Off, ..OpenOptions::new(&path) };
        drop(open_image(&OpenOptions { read_only: true, ..off }).unwrap());
        // QEMU describes raw images without claiming them.
        if name.ends_with("qcow2")
            && let Some(output) = qemu("qemu-img", &["info", name], &folder)
        {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.contains("lock"), "{text}");
            qemu_ok("qemu-img", &["info", "-U", name], &folder);
        }
        if let Some(output) = qemu("qemu-io", &["-c", "read 0 512", name], &folder) {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.contains("lock"), "{text}");
        }
        drop(disk);
        // Readers share, and keep writers out.
        let readers = [open_ro(&path), open_ro(&path)];
        qemu_ok("qemu-img", &["info", name], &folder);
        let error = refused(OpenOptions::new(&path));
        assert!(error.contains("lets nobody write"), "{error}");
        drop(readers);
        open_rw(&path);
    }
}

#[test]
fn an_image_that_qemu_uses_is_refused() {
    use std::io::{BufRead, Write};
    let folder = Folder::new();
    let path = folder.qcow2("a.qcow2", MIB);
    if qemu("qemu-io", &["--version"], &folder).is_none() {
        return;
    }
    let mut child = std::process::Command::new("qemu-io")
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"write -P 1 0 512\n").unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    while !line.contains("wrote") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0);
    }
    let error = open_image(&OpenOptions::new(&path)).err().unwrap().to_string();
    assert!(error.contains("qemu-io") && error.contains(&child.id().to_string()), "{error}");
    drop(input);
    child.wait().unwrap();
    open_rw(&path);
}

#[test]
fn host_errors_are_seen() {
    let folder = Folder::new();
    let read_only = folder.raw("a.raw", &[1; 4096]);
    assert_eq!(
        open_ro(&read_only).write_at(0, &[0; 512]).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    let missing = open(&OpenOptions::new(folder.file("none"))).err().unwrap().to_string();
    assert!(missing.contains("none") && missing.contains("No such file"), "{missing}");
    let error = open(&OpenOptions::new("/dev")).err().unwrap().to_string();
    assert!(error.contains("a directory"), "{error}");
    let error = open(&OpenOptions::new("/dev/full")).err().unwrap().to_string();
    assert!(error.contains("a character device"), "{error}");
    let vmdk = folder.raw("a.vmdk", b"KDMV............");
    let error = open(&OpenOptions::new(vmdk)).err().unwrap().to_string();
    assert!(error.contains("vmdk"), "{error}");
}

/// Needs root: a file system that is too small for what is written.
#[test]
fn a_full_host_is_reported_as_such() {
    let folder = Folder::new();
    let mount = folder.file("small");
    std::fs::create_dir(&mount).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output();
        output.is_ok_and(|o| o.status.success())
    };
    let name = mount.to_str().unwrap();
    if !run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", name]) {
        eprintln!("skipped: no right to mount");
        return;
    }
    struct Unmount<'a>(&'a str);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(self.0).status();
        }
    }
    let _unmount = Unmount(name);
    for format in [Format::Raw, Format::Qcow2] {
        let path = mount.join(format.to_string());
        create(&CreateOptions::new(&path, format, Some(8 * MIB))).unwrap();
        let disk = open_rw(&path);
        let data = pattern(7, 64 << 10);
        let results: Vec<_> = (0..64).map(|i| disk.write_at(i * (64 << 10), &data)).collect();
        let good = results.iter().take_while(|r| r.is_ok()).count();
        assert!((1..64).contains(&good), "{good}");
        let error = results.into_iter().find_map(Result::err).unwrap();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        // What was written before is there.
        let mut back = vec![0; data.len()];
        for i in 0..good as u64 {
            disk.read_at(i * (64 << 10), &mut back).unwrap();
            assert!(back == data, "{format} {i}");
        }
        drop(disk);
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn every_cache_mode_keeps_data() {
    let folder = Folder::new();
    for cache in
        [Cache::Writeback, Cache::None, Cache::Writethrough, Cache::Directsync, Cache::Unsafe]
    {
        for format in [Format::Raw, Format::Qcow2] {
            let path = folder.file(&format!("{cache}.{format}"));
            create(&CreateOptions::new(&path, format, Some(MIB))).unwrap();
            let format = Some(format);
            let disk = match open_image(&OpenOptions { format, cache, ..OpenOptions::new(&path) }) {
                Ok(disk) => disk,
                // Some file systems have no O_DIRECT.
                Err(Error::Unsupported { what, .. }) if what.contains("O_DIRECT") => continue,
                Err(e) => panic!("{e}"),
            };
            let data = pattern(8, 70 * 512);
            disk.write_at(512, &data).unwrap();
            disk.flush().unwrap();
            let mut back = vec![0; data.len()];
            disk.read_at(512, &mut back).unwrap();
            assert!(back == data, "{cache}");
            drop(disk);
            assert!(content(&path)[512..][..data.len()] == data, "{cache}");
        }
    }
}

#[test]
fn discard_gives_space_back() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    for format in [Format::Raw, Format::Qcow2] {
        let path = folder.file(&format.to_string());
        create(&CreateOptions::new(&path, format, Some(8 * MIB))).unwrap();
        for discard in [Discard::Ignore, Discard::Unmap] {
            let options = OpenOptions { discard, format: Some(format), ..OpenOptions::new(&path) };
            let disk = open_image(&options).unwrap();
            disk.write_at(0, &pattern(9, 8 << 20)).unwrap();
            disk.flush().unwrap();
            let full = std::fs::metadata(&path).unwrap().blocks();
            disk.discard(0, 7 * MIB).unwrap();
            disk.flush().unwrap();
            let now = std::fs::metadata(&path).unwrap().blocks();
            assert_eq!(
                discard == Discard::Unmap,
                now < full / 2,
                "{format} {discard}: {full} {now}"
            );
        }
        if format == Format::Qcow2 {
            assert_clean(&path, &folder);
        }
    }
}

#[test]
fn zeros_are_detected_when_asked() {
    let folder = Folder::new();
    let path = folder.qcow2("a.qcow2", MIB);
    let options = OpenOptions { detect_zeroes: true, ..OpenOptions::new(&path) };
    let disk = open_image(&options).unwrap();
    disk.write_at(0, &[0; 256 << 10]).unwrap();
    assert_eq!(disk.extent(0).unwrap().0, Extent::Zero);
    drop(disk);
    assert!(std::fs::metadata(&path).unwrap().len() < 512 << 10);
}

#[test]
fn copies_are_equal_and_sparse() {
    let folder = Folder::new();
    let mut data = vec![0; 9 << 20];
    data[3 << 20..][..5000].copy_from_slice(&pattern(1, 5000));
    data[8 << 20..][..1 << 20].copy_from_slice(&pattern(2, 1 << 20));
    let from = folder.raw("a.raw", &data);
    for format in [Format::Qcow2, Format::Raw] {
        let to = folder.file(&format!("to.{format}"));
        create(&CreateOptions::new(&to, format, Some(9 * MIB))).unwrap();
        let mut last = 0;
        let options = CopyOptions { sparse: 4096, fresh: true };
        copy(&open_ro(&from), &open_rw(&to), options, &mut |at| last = at).unwrap();
        assert_eq!(last, 9 * MIB);
        assert!(content(&to) == data);
        let compared =
            |other, strict| compare(&open_ro(other), &open_ro(&to), strict, &mut |_| {}).unwrap();
        assert_eq!(compared(&from, false), Difference::None);
        // The source was written in full.
        assert_eq!(compared(&from, true), Difference::Allocation(0));
        assert_eq!(compared(&to, true), Difference::None);
        use std::os::unix::fs::MetadataExt;
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 2 * MIB);
        let disk = open_rw(&to);
        disk.write_at(4 * MIB, &pattern(3, 512)).unwrap();
        drop(disk);
        let differs = compare(&open_ro(&from), &open_ro(&to), false, &mut |_| {}).unwrap();
        assert_eq!(differs, Difference::Content(4 * MIB));
        if format == Format::Qcow2 {
            assert_clean(&to, &folder);
        }
    }
}

#[test]
fn sizes_change() {
    let folder = Folder::new();
    for format in [Format::Raw, Format::Qcow2] {
        let path = folder.file(&format.to_string());
        create(&CreateOptions::new(&path, format, Some(MIB))).unwrap();
        let options = OpenOptions { format: Some(format), ..OpenOptions::new(&path) };
        open_image(&options).unwrap().write_at(MIB - 512, &[4; 512]).unwrap();
        resize(&options, 600 * MIB, Preallocation::Off).unwrap();
        let disk = open_image(&options).unwrap();
        assert_eq!(disk.len(), 600 * MIB);
        disk.write_at(599 * MIB, &[3; 512]).unwrap();
        let mut sector = [0; 512];
        disk.read_at(MIB - 512, &mut sector).unwrap();
        assert_eq!(sector, [4; 512]);
        drop(disk);
        resize(&options, MIB, Preallocation::Off).unwrap();
        assert_eq!(content(&path).len() as u64, MIB);
        if format == Format::Qcow2 {
            assert_clean(&path, &folder);
        }
    }
}

#[test]
fn preallocated_images_are_sound() {
    let folder = Folder::new();
    for preallocation in [Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full] {
        for cluster_size in [4096, 65536] {
            let path = folder.file("a.qcow2");
            let options = CreateOptions {
                preallocation,
                cluster_size,
                ..CreateOptions::new(&path, Format::Qcow2, Some(16 * MIB))
            };
            create(&options).unwrap();
            assert_clean(&path, &folder);
            assert!(content(&path).iter().all(|b| *b == 0));
        }
    }
}

#[test]
fn several_threads_use_one_disk() {
    let folder = Folder::new();
    let path = folder.qcow2("a.qcow2", 64 * MIB);
    let disk: Arc<dyn Disk> = Arc::new(open_rw(&path));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let disk = &disk;
            scope.spawn(move || {
                let data = pattern(thread as u8 + 1, 4096);
                for i in 0..200 {
                    let at = (i * 4 + thread) * 4096 * 3;
                    disk.write_at(at, &data).unwrap();
                    if i % 50 == 0 {
                        disk.flush().unwrap();
                    }
                    let mut back = vec![0; 4096];
                    disk.read_at(at, &mut back).unwrap();
                    assert!(back == data);
                }
            });
        }
    });
    drop(disk);
    assert_clean(&path, &folder);
}
