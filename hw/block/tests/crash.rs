//! A writer is killed at random moments: the image passes the check afterwards and has everything that was flushed.

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use support::*;
use tulk_block::{Disk, Locking, OpenOptions, open, qcow2};

const SIZE: u64 = 256 << 20;
const IMAGE: &str = "TULK_TEST_CRASH_IMAGE";
const SEED: &str = "TULK_TEST_CRASH_SEED";

/// Where write `n` goes (a third of them to a few busy sectors), and how many sectors it has.
fn place(seed: u64, n: u64) -> (u64, u64) {
    let mut x = (seed << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    let sectors = 1 + (x >> 50) % 16;
    let range = if n.is_multiple_of(3) { 64 } else { SIZE / 512 - 16 };
    (x % range, sectors)
}

/// Not a test of its own: what the child process does.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(IMAGE) else { return };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let disk = open(&OpenOptions::new(path)).unwrap();
    for n in 1.. {
        let (sector, sectors) = place(seed, n);
        let data: Vec<u8> = n.to_le_bytes().repeat(sectors as usize * 64);
        disk.write_at(sector * 512, &data).unwrap();
        if n % 7 == 0 {
            disk.flush().unwrap();
            println!("flushed {n}");
        }
    }
}

#[test]
fn nothing_flushed_is_lost() {
    let folder = Folder::new();
    let soak = std::env::var("TULK_SOAK").is_ok_and(|v| v == "yes");
    for seed in 0..if soak { 300 } else { 12 } {
        let path = folder.qcow2("crash.qcow2", SIZE);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(IMAGE, &path)
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // At random, but not before something was flushed.
        let limit = place(seed, 0).0 % 100;
        let mut flushed = 0;
        let mut killed = false;
        for line in output.lines() {
            let line = line.unwrap();
            if let Some((_, n)) = line.split_once("flushed ") {
                flushed = n.parse().unwrap();
            }
            if flushed > limit * 7 && !killed {
                std::thread::sleep(std::time::Duration::from_micros(place(seed, 1).0 % 3000));
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(flushed > 0);

        let report = qcow2::check(&path, Locking::On).unwrap();
        assert_eq!(report.corruptions, 0, "seed {seed}: {:#?}", report.messages);
        // Exit code 3 is leaked space, which costs nobody data.
        if let Some(output) = qemu("qemu-img", &["check", "crash.qcow2"], &folder) {
            let code = output.status.code().unwrap();
            assert!(code == 0 || code == 3, "seed {seed}: {output:?}");
        }
        let disk = open_rw(&path);
        let mut last = HashMap::new();
        for n in 1..=flushed {
            let (sector, sectors) = place(seed, n);
            last.extend((sector..sector + sectors).map(|s| (s, n)));
        }
        let mut data = [0; 512];
        for (sector, n) in last {
            disk.read_at(sector * 512, &mut data).unwrap();
            let found = u64::from_le_bytes(*data.first_chunk().unwrap());
            // A later write may have reached it.
            let later = found > n && {
                let (first, sectors) = place(seed, found);
                (first..first + sectors).contains(&sector)
            };
            assert!(found == n || later, "seed {seed}: sector {sector} has {found}, not {n}");
        }
        drop(disk);
    }
}
