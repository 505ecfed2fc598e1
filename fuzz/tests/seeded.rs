//! Every target on mutations of its seeds, the same in each run: about a second each, `TULK_SOAK=yes` a hundred times that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use tulk_fuzz::mutate::{Random, mutate};
use tulk_fuzz::target;

fn check(name: &str, rounds: u64) {
    let target = target(name).unwrap();
    let soak = std::env::var("TULK_SOAK").is_ok_and(|v| v == "yes");
    let rounds = if soak { rounds * 100 } else { rounds };
    let seeds = (target.seeds)();
    for seed in &seeds {
        (target.run)(seed);
    }
    for round in 0..rounds {
        let mut random = Random::new(round);
        let mut data = seeds[random.below(seeds.len())].clone();
        let focus = (target.focus)(data.len());
        mutate(&mut data, focus, &mut random);
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&data))).is_err() {
            let file = std::env::temp_dir().join(format!("tulk-fuzz-{name}-{round}"));
            std::fs::write(&file, &data).unwrap();
            panic!("round {round}; `fuzz {name} {}` repeats it", file.display());
        }
    }
}

#[test]
fn elf() {
    check("elf", 4_000);
}

#[test]
fn aarch64() {
    check("aarch64", 8_000);
}

#[test]
fn x86() {
    check("x86", 8_000);
}

#[test]
fn gdb() {
    check("gdb", 20_000);
}

#[test]
fn ir() {
    check("ir", 4_000);
}
